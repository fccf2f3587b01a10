//! `nodectl cri`'s verbs that change something as a whole process, against containerd 1.6 and 2.1, and 1.4
//! which serves nothing newer than v1alpha2: pods and containers made, updated, ended and removed by hand,
//! images pulled from a registry and removed, and what is said when something is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nodectl::cri::{Cri as _, CriClient, CriTimeouts};
use serde_json::{Value, json};
use support::{
    Containerd, IMAGE, Registry, Release, SOON, cgroup_hierarchies,
    cri_cli::{Answer, World, on_runtime, program},
    terminal::Terminal,
    wait_until,
};

/// A world and files for it.
struct Bench {
    world: World,
    registry: Registry,
}

impl Bench {
    fn new(world: World) -> Self {
        let registry = Registry::start(&world.containerd);
        Self { world, registry }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.world.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The configuration of a pod, as crictl takes it, and the folder of its logs.
    fn pod(&self, name: &str) -> (String, PathBuf) {
        let logs = self.world.containerd.dir().join("hand-logs").join(name);
        fs::create_dir_all(&logs).unwrap();
        let config = json!({
            "metadata": {"name": name, "namespace": "hand", "uid": format!("uid-{name}"), "attempt": 0},
            "log_directory": logs,
            "linux": {
                "cgroup_parent": format!("{}/{name}", self.world.containerd.cgroup_root()),
                "security_context": {"namespace_options": {"pid": 1, "network": 2}},
            },
        });
        (self.file(&format!("{name}.json"), &config.to_string()), logs)
    }

    fn container(&self, name: &str, command: &str) -> String {
        let text = format!(
            "metadata: {{name: {name}}}\nimage: {{image: {IMAGE}}}\n\
             command: [sh, -c, {command:?}]\nlogPath: {name}.log\n\
             linux: {{resources: {{memoryLimitInBytes: 67108864}}}}\n"
        );
        self.file(&format!("{name}.yaml"), &text)
    }

    /// The one line that it prints.
    #[track_caller]
    fn line(&self, arguments: &[&str]) -> String {
        let text = self.world.text(arguments);
        assert_eq!(text.lines().count(), 1, "{text}");
        text.trim_end().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.world.run(arguments)
    }

    fn state(&self, container: &str) -> Value {
        self.world.json(&["inspect", container])["status"]["state"].clone()
    }
}

/// `number` is what the runtime's version begins with.
fn everything(bench: &Bench, number: &str) {
    files(bench);
    a_life_by_hand(bench);
    several_at_once(bench);
    updates(bench);
    what_a_runtime_lacks(bench, number);
    an_agents_pod(bench);
    interruption(bench);
    pulls(bench);
    running(bench);
    images(bench);
}

fn files(bench: &Bench) {
    let odd = bench.file("odd.yaml", "metadata:\n  name: web\n  namespace: hand\nlog_dir: /x\nhostname: 5\n");
    bench.run(&["runp", &odd]).failed(
        2,
        "odd.yaml: line 4: log_dir: there is no such field; line 5: hostname: expected a string, found a number",
    );
    let odd = bench.file("odd.json", "{\n \"metadata\": {\n  \"name\": \"web\"}}");
    bench.run(&["runp", &odd]).failed(2, "line 2: metadata.namespace: the pod's namespace must be given");
    let odd = bench.file("odd.json", "{\"metadata\": ");
    bench.run(&["runp", &odd]).failed(2, "JSON syntax error at line 1");
    let (pod, _) = bench.pod("files");
    let odd = bench.file("odd.yaml", "metadata: {name: c}\nimage: {image: x}\nenvs: [{name: A}]\n");
    bench
        .run(&["create", "default/web", &odd, &pod])
        .failed(2, "line 3: envs[0].name: there is no such field");
    let odd = bench.file("odd.yaml", "metadata: {name: c}\n");
    bench.run(&["run", &odd, &pod]).failed(2, "image.image: the container's image must be given");
    bench.run(&["runp", "/nonexistent.json"]).failed(2, "cannot read /nonexistent.json");
    // The schema of such files needs no runtime.
    let printed = |arguments: &[&str]| {
        let mut command = program(&bench.world.config());
        Answer::of(command.args(["-r", "/nonexistent/x.sock"]).args(arguments).output().unwrap()).out
    };
    let schema: Value = serde_json::from_str(&printed(&["runp", "jsonschema"])).unwrap();
    assert_eq!(schema["$ref"], "#/$defs/PodSandboxConfig");
    assert_eq!(printed(&["pull", "js"]), printed(&["runp", "js"]));
    assert_eq!(printed(&["create", "jsonschema", "--pod"]), printed(&["run", "js", "-p"]));
    assert!(printed(&["run", "js", "-c"]).contains("\"$ref\": \"#/$defs/ContainerConfig\""));
    assert_eq!(bench.run(&["run", "js"]).code, Some(2));
    bench.run(&["run", "-", "-"]).failed(2, "only one of the two files can be standard input");
    // Nothing was made of any of them.
    assert_eq!(bench.world.text(&["pods", "-q", "--namespace", "hand"]), "");

    let mut child = bench
        .world
        .command(&["runp", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(&pod).unwrap()).unwrap();
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    bench.world.text(&["rmp", "-f", answer.out.trim_end()]);
}

fn a_life_by_hand(bench: &Bench) {
    let (pod, logs) = bench.pod("life");
    let container = bench.container("main", "echo hello; sleep 1000000");
    let sandbox = bench.line(&["runp", &pod]);
    assert_eq!(bench.world.json(&["inspectp", "uid-life"])["status"]["id"], json!(sandbox));
    let again = bench.run(&["runp", &pod]);
    again.failed(1, "is reserved for");
    assert!(again.err.contains(&format!("hint: {sandbox} has this name")), "{}", again.err);

    let id = bench.line(&["create", "hand/life", &container, &pod]);
    assert_eq!(bench.state(&id), "CONTAINER_CREATED");
    assert_eq!(bench.line(&["start", &id[..12]]), id[..12]);
    assert_eq!(bench.state(&id), "CONTAINER_RUNNING");
    bench.run(&["start", &id]).failed(1, "StartContainer");
    let log = logs.join("main.log");
    wait_until(SOON, "a line is logged", || fs::read_to_string(&log).is_ok_and(|log| log.contains("hello")));
    fs::write(logs.join("main.log.20260102-030405"), "x").unwrap();

    // What runs is not removed by mistake, and a name that is not whole means nothing.
    let refused = bench.run(&["rm", &id]);
    refused.failed(1, "runs\nhint: `nodectl cri stop` ends it");
    bench.run(&["rmp", &sandbox]).failed(1, "runs\nhint: `nodectl cri stopp` ends it");
    bench.run(&["stop", "hand/lif"]).failed(1, "did you mean hand/life/main?");
    bench.run(&["rmp", "-f", "hand/lif"]).failed(1, "did you mean hand/life?");
    assert_eq!(bench.state(&id), "CONTAINER_RUNNING");

    assert_eq!(bench.line(&["stop", "hand/life/main"]), "hand/life/main");
    let status = bench.world.json(&["inspect", &id])["status"].clone();
    assert_eq!((&status["state"], &status["exitCode"]), (&json!("CONTAINER_EXITED"), &json!(137)));
    assert_eq!(bench.line(&["stop", &id]), id, "stopping twice is no error");
    assert_eq!(bench.line(&["rm", &id]), id);
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 0, "the log goes with the container");
    assert_eq!(bench.line(&["stopp", &sandbox]), format!("Stopped sandbox {sandbox}"));
    assert_eq!(bench.world.json(&["inspectp", &sandbox])["status"]["state"], "SANDBOX_NOTREADY");
    assert_eq!(bench.line(&["rmp", "uid-life"]), "Removed sandbox uid-life");
    bench.run(&["rmp", &sandbox]).failed(1, "there is no pod");
    bench.run(&["rm", &id]).failed(1, "there is no container");
}

fn several_at_once(bench: &Bench) {
    let (pod, logs) = bench.pod("several");
    let sandbox = bench.line(&["runp", &pod]);
    let made = |name: &str| {
        let file = bench.container(name, "trap exit TERM; while :; do sleep 0.1; done");
        let id = bench.line(&["create", &sandbox, &file, &pod]);
        bench.line(&["start", &id]);
        id
    };
    let (one, two) = (made("one"), made("two"));
    let [web, ..] = bench.world.ids();

    // Each is tried; what may mean several things, or another kind of thing, never acts.
    let answer = bench.run(&["stop", "-t", "30", &one, "nope", web, "uid-several", &two]);
    assert_eq!((answer.code, answer.out), (Some(1), format!("{one}\n{two}\n")), "{}", answer.err);
    assert!(answer.err.contains("error: nope: there is no container \"nope\""), "{}", answer.err);
    assert!(
        answer.err.contains("not a container\nhint: pods are changed with stopp and rmp"),
        "{}",
        answer.err
    );
    assert!(answer.err.contains("error: uid-several: \"uid-several\" may be one of 2:"), "{}", answer.err);
    assert!(answer.err.ends_with("error: 3 of 5 failed\n"), "{}", answer.err);
    assert_eq!([bench.state(&one), bench.state(&two)], ["CONTAINER_EXITED"; 2]);
    let ambiguous = bench.run(&["rm", "uid-several"]);
    ambiguous.failed(1, "may be one of 2");
    assert_eq!(bench.world.text(&["ps", "-aq", "-p", "uid-several"]).lines().count(), 2);

    assert_eq!(bench.world.text(&["rm", "--keep-logs", &two, &one]), format!("{two}\n{one}\n"));
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 2, "logs are kept");
    // A reader that has gone keeps nothing from being done.
    let three = made("three");
    let mut remove = bench.world.command(&["rm", "-f", &three]);
    let mut child = remove.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert_eq!(bench.world.text(&["ps", "-aq", "-p", "uid-several"]), "");
    let answer = bench.run(&["rmp", "-f", "nope", &sandbox]);
    assert_eq!(
        (answer.code, answer.out),
        (Some(1), format!("Removed sandbox {sandbox}\n")),
        "{}",
        answer.err
    );
    for wrong in [&["stop"][..], &["rm", "-a", "x"], &["rmp"], &["stop", "-t", "-1", "x"], &["rmi", "-aq"]] {
        let answer = bench.run(wrong);
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{wrong:?}: {}", answer.err);
    }
}

/// A value of the cgroup that the container's process is in.
fn cgroup_value(bench: &Bench, container: &str, v1: &str, v2: &str) -> String {
    let pid = bench.world.json(&["inspect", container])["info"]["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let controller = v1.split('.').next().unwrap();
    let line = groups
        .lines()
        .find(|line| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller))
        .or_else(|| groups.lines().find(|line| line.starts_with("0::")))
        .unwrap();
    let path = line.splitn(3, ':').nth(2).unwrap().trim_start_matches('/').to_owned();
    let found = cgroup_hierarchies().into_iter().find_map(|root| {
        [v1, v2].iter().find_map(|file| fs::read_to_string(root.join(&path).join(file)).ok())
    });
    found.unwrap_or_else(|| panic!("neither {v1} nor {v2} of {path}")).trim().to_owned()
}

fn updates(bench: &Bench) {
    let (pod, _) = bench.pod("update");
    bench.line(&["runp", &pod]);
    let file = bench.container("main", "sleep 1000000");
    let id = bench.line(&["create", "uid-update", &file, &pod]);
    bench.line(&["start", &id]);
    let memory = || cgroup_value(bench, &id, "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), "67108864");
    assert_eq!(bench.line(&["update", "--memory", "100663296", &id]), id);
    assert_eq!(memory(), "100663296");
    let answer =
        bench.run(&["update", "--memory", "48Mi", "--cpu-period", "20000", "--cpu-quota", "5000", &id, "no"]);
    assert_eq!((answer.code, answer.out), (Some(1), format!("{id}\n")), "{}", answer.err);
    assert_eq!(memory(), (48 << 20).to_string());
    let quota = cgroup_value(bench, &id, "cpu.cfs_quota_us", "cpu.max");
    assert!(["5000", "5000 20000"].contains(&quota.as_str()), "{quota}");
    bench.run(&["update", &id]).failed(2, "nothing is given that could change");
    for wrong in [["--memory", "lots"], ["--oom-score-adj", "1001"], ["--cpu-count", "1"]] {
        assert_eq!(bench.run(&["update", wrong[0], wrong[1], &id]).code, Some(2));
    }
    bench.world.text(&["rmp", "-f", "uid-update"]);
}

fn what_a_runtime_lacks(bench: &Bench, number: &str) {
    let [_, _, main, ..] = bench.world.ids();
    let archive = bench.world.folder.path().join("main.tar");
    let answer = bench.run(&["checkpoint", "--export", archive.to_str().unwrap(), main]);
    // containerd 2 has the call, and needs a program that is not there.
    let has = number == "2.";
    let words =
        if has { "error: CheckpointContainer at ".to_owned() } else { format!("error: containerd {number}") };
    assert!(answer.err.starts_with(&words) && answer.err.lines().count() == 1, "{}", answer.err);
    answer.failed(1, if has { "criu" } else { "does not implement CheckpointContainer" });
    assert_eq!(bench.run(&["checkpoint", main]).code, Some(2), "without --export");

    let answer = bench.run(&["update-runtime-config", "--pod-cidr", "10.9.8.0/24"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), ""), "{}", answer.err);
    assert_eq!(answer.err, "Runtime config successfully updated\n");
    let wrong = bench.run(&["update-runtime-config", "--pod-cidr", "10.9.8.0"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("is no address range"), "{}", wrong.err);
}

/// What kubelet made comes back, and whoever ends it by hand is told.
fn an_agents_pod(bench: &Bench) {
    let (path, _) = bench.pod("agents");
    let mut pod: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    pod["labels"] = json!({"io.kubernetes.pod.uid": "uid-agents"});
    fs::write(&path, pod.to_string()).unwrap();
    let id = bench.line(&["runp", &path]);
    let answer = bench.run(&["rmp", "-f", &id]);
    assert_eq!((answer.code, answer.out), (Some(0), format!("Removed sandbox {id}\n")));
    assert!(
        answer.err.starts_with("hint: ") && answer.err.contains("a node agent made it"),
        "{}",
        answer.err
    );
    assert_eq!(answer.err.lines().count(), 1);
}

/// A call that was cut says what may come of it.
fn interruption(bench: &Bench) {
    let (pod, logs) = bench.pod("cut");
    let answer = bench.run(&["runp", "-T", "1ms", &pod]);
    answer.failed(1, "RunPodSandbox at ");
    assert!(answer.err.contains("no answer within 0.001 s"), "{}", answer.err);
    assert!(answer.err.contains("hint: what was asked for may still happen"), "{}", answer.err);
    // The runtime has given it up, and its name is free again, or it was made.
    wait_until(SOON, "the name is free", || {
        bench.run(&["rmp", "-f", "uid-cut"]);
        bench.run(&["runp", &pod]).code == Some(0)
    });
    // Nobody says anything: the wait for it ends at once.
    let mut waits = bench.world.command(&["runp", "-"]);
    let waits = waits.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let tasks = format!("/proc/{}/task", waits.id());
    wait_until(SOON, "it reads", || {
        let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
        tasks
            .into_iter()
            .any(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "reads\n"))
    });
    kill(Pid::from_raw(waits.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let (mut waits, mut said) = (waits, String::new());
    // To wait for a child closes its input otherwise.
    let input = waits.stdin.take();
    assert_eq!(waits.wait().unwrap().code(), Some(1));
    drop(input);
    waits.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "error: interrupted\n");
    // A runtime asks a container to end once, however often it is told to.
    for (name, signal) in [("int", Signal::SIGINT), ("term", Signal::SIGTERM)] {
        let stubborn = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done";
        let id = bench.line(&["create", "uid-cut", &bench.container(name, stubborn), &pod]);
        bench.line(&["start", &id]);
        let log = logs.join(format!("{name}.log"));
        let says = |word: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(word));
        wait_until(SOON, "the container minds signals", || says("ready"));
        let child = bench
            .world
            .command(&["stop", "-t", "600", &id])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until(SOON, "the container is asked to end", || says("asked"));
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let answer = Answer::of(child.wait_with_output().unwrap());
        answer.failed(1, &format!("interrupted; the runtime may still finish StopContainer of {id}\nhint: "));
        assert_eq!(bench.state(&id), "CONTAINER_RUNNING");
    }
    // The runtime dies in the middle of a call.
    let stubborn = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done";
    let id = bench.line(&["create", "uid-cut", &bench.container("dies", stubborn), &pod]);
    bench.line(&["start", &id]);
    let log = logs.join("dies.log");
    let says = |word: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(word));
    wait_until(SOON, "the container minds signals", || says("ready"));
    let mut stop = bench.world.command(&["stop", "-t", "600", &id]);
    let child = stop.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(SOON, "the container is asked to end", || says("asked"));
    bench.world.containerd.kill9();
    let answer = Answer::of(child.wait_with_output().unwrap());
    answer.failed(1, "StopContainer at ");
    assert!(answer.err.contains("the connection broke before the answer came"), "{}", answer.err);
    assert!(answer.err.contains("hint: what was asked for may still happen"), "{}", answer.err);
    bench.run(&["rmp", "-f", "uid-cut"]).failed(1, "nobody listens on it");
    bench.world.containerd.resume();
    bench.world.text(&["rmp", "-f", "uid-cut"]);
}

fn pulls(bench: &Bench) {
    let image = bench.registry.image();
    let creds = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let gone = || {
        let answer = bench.run(&["inspecti", &image]);
        answer.failed(1, "there is no image");
    };
    let pulled = |answer: Answer| {
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        assert!(answer.out.starts_with("Image is up to date for sha256:"), "{}", answer.out);
        assert_eq!(answer.err, "", "no progress where there is no terminal");
        assert!(bench.world.text(&["images"]).contains(&bench.registry.host()));
        // Alone: the image has another name besides.
        bench.world.containerd.ctr(&["images", "rm", "--sync", &image]);
        wait_until(SOON, "the name is gone", || {
            !bench.world.text(&["images"]).contains(&bench.registry.host())
        });
    };
    gone();
    bench.run(&["pull", &image]).failed(1, "PullImage at ");
    let wrong = bench.run(&["-D", "pull", "--creds", "bob:wr0ng-word", &image]);
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(1), ""), "{}", wrong.err);
    assert!(wrong.err.contains("PullImage") && !wrong.err.contains("wr0ng-word"), "{}", wrong.err);
    gone();
    pulled(bench.run(&["pull", "--creds", &creds, &image]));
    let variable = bench.world.command(&["pull", &image]).env("CRICTL_CREDS", &creds).output();
    pulled(Answer::of(variable.unwrap()));
    // base64 of the same.
    let auth = "Ym9iOnMzY3JldC13b3Jk";
    pulled(bench.run(&["pull", "--auth", auth, "--pull-timeout", "1m", "-a", "x=y", &image]));
    let file = json!({"auths": {bench.registry.host(): {"auth": auth}}}).to_string();
    pulled(bench.run(&["pull", "--auth-file", &bench.file("auth.json", &file), &image]));
    let (pod, _) = bench.pod("pull");
    pulled(bench.run(&["pull", "--creds", &creds, "--pod-config", &pod, &image]));

    // A password through a pipe.
    let mut command = bench.world.command(&["pull", "-u", Registry::USER, &image]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{}\n", Registry::PASSWORD).as_bytes()).unwrap();
    pulled(Answer::of(child.wait_with_output().unwrap()));
    typed_passwords(bench, &image);

    let both = bench.run(&["pull", "--creds", &creds, "--auth", auth, &image]);
    both.failed(2, "both --creds and --auth are given");
    bench.run(&["pull", "-a", "x", &image]).failed(2, "is no KEY=VALUE");
    bench.run(&["pull", "--auth-file", "/nonexistent", &image]).failed(2, "cannot read /nonexistent");
    let cut = bench.run(&["pull", "--pull-timeout", "1ms", "--creds", &creds, &image]);
    cut.failed(1, "no answer within 0.001 s");
    gone();
}

/// A run on a terminal of its own, where `keys` are typed once the password is asked for, and which ends with
/// those words: its exit code and what was shown.
fn on_a_terminal(bench: &Bench, arguments: &[&str], keys: &str, last: &str) -> (Option<i32>, String) {
    let mut terminal = Terminal::of_size(&bench.world.command(arguments), 25, 100);
    terminal.wait_shown("Password of bob: ");
    assert!(!terminal.echoes());
    terminal.type_in(keys);
    let code = terminal.wait().code();
    terminal.assert_restored();
    // What was written last may come after the program's end.
    terminal.wait_shown(last);
    (code, terminal.shown())
}

fn typed_passwords(bench: &Bench, image: &str) {
    let typed = format!("wrong\x15{}x\x7f\r", Registry::PASSWORD);
    let (code, shown) = on_a_terminal(
        bench,
        &["pull", "--username", "bob", image],
        &typed,
        "Image is up to date for sha256:",
    );
    assert_eq!(code, Some(0), "{shown}");
    // On a terminal there is progress.
    assert!(shown.contains("\r\x1b[Kpulling localhost:"), "{shown}");
    assert!(!shown.contains("s3cret") && !shown.contains("wrong"), "the password is shown: {shown}");
    bench.world.containerd.ctr(&["images", "rm", "--sync", image]);
    let (code, shown) =
        on_a_terminal(bench, &["pull", "-u", "bob", image], "s3cr\x03", "error: no password was given");
    assert_eq!(code, Some(1), "{shown}");
}

/// `run`, which pulls unless it is told not to.
fn running(bench: &Bench) {
    let (pod, _) = bench.pod("run");
    let file = bench.container("main", "sleep 1000000");
    let id = bench.line(&["run", "--no-pull", &file, &pod]);
    assert_eq!(bench.state("hand/run/main"), "CONTAINER_RUNNING");
    assert_eq!(bench.world.json(&["inspect", "uid-run"])["status"]["id"], json!(id));
    bench.world.text(&["rmp", "--force", "hand/run"]);

    let image = bench.registry.image();
    let text =
        format!("metadata: {{name: main}}\nimage: {{image: '{image}'}}\ncommand: [sleep, '1000000']\n");
    let file = bench.file("pulled.yaml", &text);
    let failed = bench.run(&["run", &file, &pod]);
    failed.failed(1, "PullImage at ");
    assert!(failed.err.contains("hint: --no-pull takes the image"), "{}", failed.err);
    assert_eq!(bench.world.text(&["pods", "-q", "--namespace", "hand"]), "", "nothing is left");
    let creds = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let id = bench.line(&["run", "--creds", &creds, &file, &pod]);
    assert_eq!(bench.state(&id), "CONTAINER_RUNNING");
    bench.world.text(&["rmp", "-f", "hand/run"]);

    // What is left where only the end fails is told.
    let text = format!("metadata: {{name: main}}\nimage: {{image: {IMAGE}}}\ncommand: [/nonexistent]\n");
    let file = bench.file("broken.yaml", &text);
    let failed = bench.run(&["run", "--no-pull", &file, &pod]);
    failed.failed(1, "StartContainer at ");
    let sandbox = bench.line(&["pods", "-q", "--no-trunc", "--namespace", "hand"]);
    assert!(
        failed.err.contains(&format!("`nodectl cri rmp --force {sandbox}` removes it")),
        "{}",
        failed.err
    );
    bench.world.text(&["rmp", "-f", &sandbox]);
    let failed = bench.run(&["runp", "--runtime", "no-such-handler", &pod]);
    failed.failed(1, "no-such-handler");
    // A configuration file that says not to pull.
    let config = bench.file("crictl.yaml", "disable-pull-on-run: true\n");
    let file = bench.container("main", "sleep 1000000");
    let mut command = program(Path::new(&config));
    command.arg("-r").arg(bench.world.containerd.socket()).args(["run", &file, &pod]);
    let answer = Answer::of(command.output().unwrap());
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    bench.world.text(&["rmp", "-f", "hand/run"]);
}

fn images(bench: &Bench) {
    // All that is there: busybox is used by the world's containers, pause by their pods.
    let names = || {
        let images = bench.world.json(&["images", "-o", "json"]);
        let tags = images["images"].as_array().unwrap().iter().flat_map(|image| {
            image["repoTags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned())
        });
        let mut tags: Vec<String> = tags.collect();
        tags.sort();
        tags
    };
    let named = "localhost/nodectl/busybox:user-named";
    let id = bench.world.json(&["inspecti", named])["status"]["id"].as_str().unwrap().to_owned();
    let answer = bench.run(&["rmi", "no/such:1", &id["sha256:".len()..][..12], "NO SUCH"]);
    assert_eq!((answer.code, answer.out), (Some(1), format!("Deleted: {named}\n")), "{}", answer.err);
    assert!(
        answer.err.contains("error: no/such:1: there is no image") && answer.err.ends_with("2 of 3 failed\n")
    );
    let [web, _, main, ..] = bench.world.ids();
    bench.run(&["rmi", main]).failed(1, "not an image\nhint: containers are changed with");
    bench.run(&["rmi", web]).failed(1, "not an image\nhint: pods are changed with");

    let answer = bench.run(&["rmi", "--prune"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.out.contains("Deleted: localhost/nodectl/busybox:user-numeric\n"), "{}", answer.out);
    let left = names();
    assert!(
        left.contains(&IMAGE.to_owned()) && left.contains(&"localhost/nodectl/pause:1".to_owned()),
        "{left:?}"
    );
    assert_eq!(left.iter().filter(|name| name.starts_with("localhost/nodectl")).count(), 2, "{left:?}");
    // Without a container busybox goes; without a pod pause stays.
    assert_eq!(bench.world.text(&["rmp", "-af"]).lines().count(), 2);
    assert_eq!(bench.run(&["rmp", "-a"]).err, "no pods to remove\n");
    assert_eq!(bench.line(&["stop", "-a"]), "No running containers found.");
    assert_eq!(bench.run(&["rm", "-a"]).err, "no containers to remove\n");
    assert!(bench.world.text(&["rmi", "-q"]).contains(&format!("Deleted: {IMAGE}\n")));
    assert_eq!(names(), ["localhost/nodectl/pause:1"]);
    assert_eq!(bench.run(&["rmi", "-q"]).err, "no images to remove\n");
    let answer = bench.run(&["rmi", "--all"]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "Deleted: localhost/nodectl/pause:1\n"));
    assert!(answer.err.starts_with("hint: one was the runtime's own"), "{}", answer.err);
}

#[test]
fn every_verb_on_containerd_1_6() {
    everything(&Bench::new(World::new("change16", Release::Machine)), "1.6");
}

#[test]
fn every_verb_on_containerd_2() {
    everything(&Bench::new(World::new("change2", Release::Two)), "2.");
}

#[test]
fn every_verb_on_containerd_1_4_in_v1alpha2() {
    let bench = Bench::new(World::on(Containerd::old("change14")));
    let version = bench.world.text(&["version"]);
    assert!(version.ends_with("RuntimeApiVersion:  v1alpha2\n"), "{version}");
    // What the agent asks with takes no other than v1, and says what to do.
    let socket = bench.world.containerd.socket().to_str().unwrap().parse().unwrap();
    let refused =
        on_runtime(async { CriClient::connect_lazy(socket, None, CriTimeouts::default()).version().await });
    let refused = refused.unwrap_err();
    assert!(
        refused.is_no_cri_v1()
            && refused.message().contains("v1alpha2 (containerd before 1.6, which must be")
    );
    let debug = bench.run(&["-D", "ps"]);
    assert!(debug.err.contains(" in v1alpha2\n"), "{}", debug.err);
    everything(&bench, "1.4");
}
