//! `nodectl cri`'s looking verbs as a whole process, against containerd 1.6 and 2.1 with pods made by raw
//! CRI calls: tables, the JSON's names and types, filters, what an id may be, and what is said when
//! something is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    Containerd, IMAGE, Release, copy_program,
    cri_cli::{Answer, BINARY, World, masked, program},
};

fn all_verbs(world: &World, number: &str) {
    lists(world);
    filters(world);
    inspection(world);
    the_runtime(world, number);
    formats(world);
    wrong_input(world);
    pipes_and_limits(world);
    discovery(world);
}

fn lists(world: &World) {
    let ids = world.ids();
    let running = "CONTAINER | IMAGE | CREATED | STATE | NAME | ATTEMPT | POD ID | POD | NAMESPACE\n\
         <3> | localhost/nodectl/busybox:1 | AGO | Running | side | 0 | <0> | web | default\n\
         <2> | localhost/nodectl/busybox:1 | AGO | Running | main | 0 | <0> | web | default\n";
    assert_eq!(masked(&world.text(&["ps"]), &ids), running);
    let exited = "<4> | localhost/nodectl/busybox:1 | AGO | Exited | main | 0 | <1> | job | batch\n";
    let all = running.replacen("NAMESPACE\n", &format!("NAMESPACE\n{exited}"), 1);
    assert_eq!(masked(&world.text(&["ps", "-a"]), &ids), all);
    assert_eq!(
        masked(&world.text(&["pods"]), &ids),
        "POD ID | CREATED | STATE | NAME | NAMESPACE | ATTEMPT | RUNTIME | UID\n\
         <1> | AGO | Ready | job | batch | 0 | (default) | uid-job\n\
         <0> | AGO | Ready | web | default | 0 | (default) | uid-web\n"
    );
    let images = world.text(&["images", "localhost/nodectl/busybox:1"]);
    let row: Vec<&str> = images.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(images.split_whitespace().collect::<Vec<_>>()[..5], ["IMAGE", "TAG", "IMAGE", "ID", "SIZE"]);
    assert_eq!((row[0], row[1], row[2].len()), ("localhost/nodectl/busybox", "1", 13));
    assert!(row[3].ends_with("MB") || row[3].ends_with("kB"), "{images}");
    assert_eq!(world.text(&["img"]), world.text(&["images"]));
    assert_eq!(
        world.text(&["image", "--pinned", "--digests"]).lines().next().unwrap().split_whitespace().last(),
        Some("PINNED")
    );

    assert_eq!(world.text(&["ps", "-q"]), format!("{}\n{}\n", ids[3], ids[2]));
    assert_eq!(world.text(&["pods", "-q", "--latest"]), format!("{}\n", ids[1]));
    assert!(world.text(&["ps", "--no-trunc"]).contains(ids[3]));
    assert!(world.text(&["ps", "-av"]).contains("PodUID: uid-job\n"));
    assert!(world.text(&["pods", "-v"]).contains("Labels:\n    app -> job\n"));

    // Names and types of the JSON.
    let ps = world.json(&["ps", "-o", "json", "--name", "^main$"]);
    let container = &ps["containers"][0];
    assert_eq!(ps["containers"].as_array().unwrap().len(), 1);
    assert_eq!((&container["id"], &container["podSandboxId"]), (&json!(ids[2]), &json!(ids[0])));
    assert_eq!(container["metadata"], json!({"name": "main", "attempt": 0}));
    assert_eq!(container["state"], "CONTAINER_RUNNING");
    assert!(container["createdAt"].as_str().unwrap().parse::<i64>().unwrap() > 0);
    assert_eq!((&container["labels"], &container["annotations"]), (&json!({"part": "main"}), &json!({})));
    assert!(container["image"]["userSpecifiedImage"].is_string() && container["imageRef"].is_string());
    let pods = world.json(&["pods", "--format", "json"]);
    assert_eq!(
        pods["items"][1]["metadata"],
        json!({"name": "web", "namespace": "default", "uid": "uid-web", "attempt": 0})
    );
    assert_eq!(
        (&pods["items"][0]["state"], &pods["items"][0]["runtimeHandler"]),
        (&json!("SANDBOX_READY"), &json!(""))
    );
    let images = world.json(&["images", "-o", "json"]);
    let busybox = images["images"]
        .as_array()
        .unwrap()
        .iter()
        .find(|image| image["repoTags"].as_array().unwrap().contains(&json!(IMAGE)));
    let busybox = busybox.unwrap();
    assert!(busybox["size"].as_str().unwrap().parse::<u64>().unwrap() > 100_000);
    assert!(busybox["pinned"].is_boolean() && busybox["username"] == "" && busybox["repoDigests"].is_array());
    // The same state is the same bytes.
    assert_eq!(world.text(&["ps", "-o", "json"]), world.text(&["ps", "-o", "json"]));
}

fn filters(world: &World) {
    let [web, _, main, side, job_main] = world.ids();
    let ps = |arguments: &[&str]| -> Vec<String> {
        let all = [&["ps", "-q"][..], arguments].concat();
        world.text(&all).lines().map(str::to_owned).collect()
    };
    assert_eq!(ps(&["--name", "side"]), [side]);
    assert_eq!(ps(&["-a", "--name", "^ma"]), [job_main, main]);
    assert_eq!(ps(&["-a", "--name", "^ma", "--namespace", "^default$"]), [main]);
    assert_eq!(ps(&["--pod", &web[..6], "--label", "part=side"]), [side]);
    assert_eq!(ps(&["-p", "uid-web", "-l"]), [side]);
    assert_eq!(ps(&["-p", "default/web"]), [side, main]);
    assert_eq!(ps(&["-s", "Exited"]), [job_main]);
    assert!(ps(&["--label", "part=main,part=side"]).is_empty());
    assert_eq!(ps(&["-n", "2"]), [job_main, side]);
    assert_eq!(ps(&["--id", &main[..8]]), [main]);
    assert_eq!(ps(&["--image", IMAGE]), [side, main]);
    assert!(ps(&["--image", "localhost/nodectl/pause:1"]).is_empty());
    assert!(ps(&["--image", "no/such:1"]).is_empty());
    assert!(ps(&["--name", "side", "--label", "part=main"]).is_empty());
    assert_eq!(world.text(&["pods", "-q", "--label", "app=web", "--state", "ready"]), format!("{web}\n"));
    assert_eq!(world.text(&["pods", "-q", "--name", "nope"]), "");
    assert_eq!(world.text(&["pods", "-q", "--id", "uid-web"]), format!("{web}\n"));
    assert_eq!(world.text(&["images", "-q", "-f", "dangling=true"]), "");
    assert!(!world.text(&["images", "-q", "-f", "reference=busybox:1$"]).is_empty());
}

fn inspection(world: &World) {
    let [web, job, main, side, job_main] = world.ids();
    let one = world.json(&["inspect", &main[..10]]);
    let status = &one["status"];
    assert_eq!((&status["id"], &status["state"]), (&json!(main), &json!("CONTAINER_RUNNING")));
    for time in ["createdAt", "startedAt"] {
        assert!(status[time].as_str().unwrap().starts_with("20"), "{status}");
    }
    assert_eq!(status["finishedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(
        (&status["exitCode"], &status["reason"], &status["mounts"]),
        (&json!(0), &json!(""), &json!([]))
    );
    assert!(status["logPath"].as_str().unwrap().ends_with("main.log"));
    // What containerd adds is JSON in a text, and an object here.
    assert!(one["info"]["pid"].as_u64().unwrap() > 1 && one["info"]["runtimeSpec"].is_object(), "{one}");
    let quiet = world.json(&["inspect", "-q", main]);
    assert_eq!(quiet.as_object().unwrap().keys().collect::<Vec<_>>(), ["status"]);
    let ended = world.json(&["inspect", "batch/job"]);
    assert_eq!((&ended["status"]["id"], &ended["status"]["exitCode"]), (&json!(job_main), &json!(3)));
    assert_eq!(ended["status"]["state"], "CONTAINER_EXITED");
    assert!(ended["status"]["finishedAt"].as_str().unwrap().starts_with("20"));
    let both = world.json(&["inspect", "default/web/side", main]);
    assert_eq!([&both[0]["status"]["id"], &both[1]["status"]["id"]], [&json!(side), &json!(main)]);
    assert_eq!(world.json(&["inspect", "--name", "side"])["status"]["id"], side);
    assert_eq!(world.json(&["inspect", "-a"]).as_array().unwrap().len(), 3);

    for wanted in [web, &web[..9], "uid-web", "default/web"] {
        let pod = world.json(&["inspectp", wanted]);
        assert_eq!((&pod["status"]["id"], &pod["status"]["state"]), (&json!(web), &json!("SANDBOX_READY")));
        assert!(
            pod["status"]["createdAt"].as_str().unwrap().starts_with("20") && pod["info"]["pid"].is_u64()
        );
        assert!(pod["status"]["network"]["additionalIps"].is_array(), "{pod}");
        let namespaces = &pod["status"]["linux"]["namespaces"]["options"];
        assert_eq!([&namespaces["network"], &namespaces["pid"]], ["POD", "CONTAINER"], "{pod}");
    }
    assert_eq!(world.json(&["inspectp", "uid-web", "uid-job"])[1]["status"]["id"], job);
    assert_eq!(world.json(&["inspectp", "--namespace", "batch"])["status"]["id"], job);

    let image = world.json(&["inspecti", IMAGE]);
    let id = image["status"]["id"].as_str().unwrap().to_owned();
    assert!(image["status"]["size"].is_string() && image["info"]["imageSpec"].is_object(), "{image}");
    assert_eq!(world.json(&["inspecti", &id["sha256:".len()..][..12]])["status"]["id"], json!(id));
    assert_eq!(world.json(&["inspecti", IMAGE, "localhost/nodectl/pause:1"]).as_array().unwrap().len(), 2);

    // Tables for people.
    let table = world.text(&["inspect", "-o", "table", "batch/job"]);
    assert!(table.contains("State: Exited\n") && table.contains("Exit Code: 3\n"), "{table}");
    assert!(world.text(&["inspectp", "-o", "table", "uid-web"]).contains("UID: uid-web\n"));
    assert!(world.text(&["inspecti", "-o", "table", IMAGE]).contains(&format!("RepoTags: {IMAGE}\n")));
}

/// `number` is what the runtime's version begins with.
fn the_runtime(world: &World, number: &str) {
    let version = world.text(&["version"]);
    let lines: Vec<&str> = version.lines().collect();
    assert_eq!(
        (lines[0], lines[1], lines[3].strip_prefix("RuntimeApiVersion:  ")),
        (
            "Version:  0.1.0",
            "RuntimeName:  containerd",
            Some(if number == "1.4" { "v1alpha2" } else { "v1" })
        )
    );
    assert!(
        lines[2]
            .strip_prefix("RuntimeVersion:  ")
            .unwrap()
            .trim_start_matches(['v', '~'])
            .starts_with(number),
        "{version}"
    );
    assert_eq!(world.json(&["version", "-o", "json"])["runtimeName"], "containerd");

    let info = world.json(&["info"]);
    let ready = json!({"type": "RuntimeReady", "status": true, "reason": "", "message": ""});
    assert_eq!(info["status"]["conditions"][0], ready);
    assert!(info["config"].is_object(), "{info}");
    let quiet = world.json(&["info", "-q"]);
    assert!(quiet.get("config").is_none());
    if number == "2." {
        let handlers = info["runtimeHandlers"].as_array().unwrap();
        let default = handlers.iter().find(|handler| handler.get("name").is_none());
        assert_eq!(default.unwrap()["features"]["recursive_read_only_mounts"], true, "{info}");
        assert!(info["features"].is_object());
        assert_eq!(world.json(&["runtime-config"]), json!({"linux": {"cgroupDriver": "CGROUPFS"}}));
    } else {
        assert!(info.get("runtimeHandlers").is_none() && info.get("features").is_none());
        let answer = world.run(&["runtime-config"]);
        answer.failed(1, "does not implement RuntimeConfig");
        assert!(answer.err.starts_with(&format!("error: containerd {number}")), "{}", answer.err);
    }
    let fs = world.json(&["imagefsinfo"]);
    let usage = &fs["status"]["imageFilesystems"][0];
    assert!(usage["fsId"]["mountpoint"].as_str().unwrap().starts_with('/'), "{fs}");
    assert!(usage["usedBytes"]["value"].is_string() && usage["timestamp"].is_string(), "{fs}");
    assert!(world.text(&["imagefsinfo", "-o", "table"]).contains("image        /"));
    assert!(world.text(&["info", "-o", "table"]).contains("RuntimeReady"));
}

fn formats(world: &World) {
    let main = world.ids()[2];
    assert_eq!(
        world.text(&["inspect", "-o", "go-template", "--template", "{{.status.state}}", main]),
        "CONTAINER_RUNNING\n"
    );
    assert_eq!(world.text(&["inspect", "--format", "{{.status.metadata.name}}", main]), "main\n");
    let pid = world.json(&["inspect", main])["info"]["pid"].clone();
    assert_eq!(world.text(&["inspect", "-o", "go-template={{.info.pid}}", main]), format!("{pid}\n"));
    let template = "{{range .containers}}{{.metadata.name}}={{.state}};{{end}}";
    assert_eq!(world.text(&["ps", "-o", template]), "side=CONTAINER_RUNNING;main=CONTAINER_RUNNING;\n");
    let yaml = world.text(&["inspect", "-o", "yaml", main]);
    let read: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(read["status"], world.json(&["inspect", main])["status"]);
    assert!(world.text(&["pods", "-o", "yaml"]).starts_with("items:\n"));
}

fn wrong_input(world: &World) {
    let [web, _, main, ..] = world.ids();
    world.run(&["inspect", "ffffffffffff"]).failed(1, "there is no container \"ffffffffffff\"");
    world.run(&["inspectp", "nope"]).failed(1, "there is no pod \"nope\"");
    world.run(&["inspecti", "no/such:1"]).failed(1, "there is no image \"no/such:1\"");
    world.run(&["inspecti", "NO SUCH"]).failed(1, "there is no image \"NO SUCH\"");
    world.run(&["inspect", web]).failed(1, "not a container\nhint: use `nodectl cri inspectp`");
    world.run(&["inspectp", &main[..12]]).failed(1, "not a pod\nhint: use `nodectl cri inspect`");
    world.run(&["inspecti", main]).failed(1, "not an image\nhint: use `nodectl cri inspect`");
    let ambiguous = world.run(&["inspect", "uid-web"]);
    ambiguous.failed(1, "\"uid-web\" may be one of 2:\n");
    assert!(ambiguous.err.contains("(main of pod default/web, Running)"), "{}", ambiguous.err);
    // One that cannot be had: nothing is printed of the others.
    world.run(&["inspect", main, "nope"]).failed(1, "there is no container \"nope\"");
    world.run(&["inspect", "--name", "nope"]).failed(1, "no container fits");
    world
        .run(&["inspect", "-o", "{{.status.stat}}", main])
        .failed(1, "no field \"stat\", did you mean \"state\"?");
    world.run(&["inspect", "-o", "{{.status", main]).failed(2, "the template is broken");
    world.run(&["ps", "--name", "("]).failed(2, "no regular expression: unclosed group");
    world.run(&["ps", "--label", "x"]).failed(2, "is no KEY=VALUE");
    world.run(&["ps", "-p", "nope"]).failed(1, "there is no pod \"nope\"");
    world.run(&["images", "-f", "since=x"]).failed(2, "does not tell over CRI when an image was made");
    for wrong in
        [&["ps", "-o", "xml"][..], &["ps", "--state", "odd"], &["ps", "extra"], &["nope"], &["inspecti"]]
    {
        let answer = world.run(wrong);
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{wrong:?}: {}", answer.err);
    }
}

fn pipes_and_limits(world: &World) {
    // A reader that has gone before a word was written.
    let mut child = world
        .command(&["images", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));

    let debug = world.run(&["-D", "ps"]);
    assert_eq!(debug.code, Some(0));
    assert!(
        debug.err.contains("from the flag --runtime-endpoint") && debug.err.contains("ListContainers took"),
        "{}",
        debug.err
    );

    // A runtime that hangs costs the limit and is named.
    world.containerd.freeze();
    let answer = world.run(&["-t", "300ms", "ps"]);
    world.containerd.thaw();
    answer.failed(1, "no answer within 0.3 s");
    assert!(answer.err.contains("hint: the runtime is overloaded or hangs"), "{}", answer.err);
}

/// Runs a shell script with a `/run` of its own, where `/run/containerd/containerd.sock` leads to the
/// test's containerd if `alive`.
fn in_own_run(world: &World, alive: bool, arguments: &[&str]) -> Answer {
    let bound = world.folder.path().join("bound");
    fs::create_dir_all(&bound).unwrap();
    let socket = world.containerd.socket().strip_prefix(world.containerd.dir()).unwrap();
    let script = "set -e; mount --bind \"$1\" \"$2\"; mount -t tmpfs tmpfs /run; \
                  if [ \"$3\" != none ]; then mkdir /run/containerd; \
                  ln -s \"$2/$3\" /run/containerd/containerd.sock; fi; shift 3; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(world.containerd.dir()).arg(&bound);
    command.arg(if alive { socket } else { Path::new("none") });
    let wanted = program(&world.config());
    command.arg(wanted.get_program()).args(wanted.get_args()).args(arguments);
    for (name, value) in wanted.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Answer::of(command.stdin(Stdio::null()).output().unwrap())
}

fn discovery(world: &World) {
    let found = in_own_run(world, true, &["pods", "-q"]);
    assert_eq!((found.code, found.out.lines().count()), (Some(0), 2), "{}", found.err);
    assert!(
        found.err.starts_with("using unix:///run/containerd/containerd.sock (containerd "),
        "{}",
        found.err
    );
    assert_eq!(found.err.lines().count(), 1);
    // The one that answers is named when a given one is dead.
    let dead = in_own_run(world, true, &["-r", "unix:///run/crio/crio.sock", "ps"]);
    dead.failed(1, "the socket /run/crio/crio.sock does not exist");
    assert!(dead.err.contains("hint: this endpoint comes from the flag --runtime-endpoint"), "{}", dead.err);
    assert!(dead.err.contains("answers at unix:///run/containerd/containerd.sock"), "{}", dead.err);
    let none = in_own_run(world, false, &["ps"]);
    none.failed(1, "no container runtime answers: the socket /run/containerd/containerd.sock does not exist");
    assert!(
        none.err.ends_with("hint: start the container runtime, or give its socket with --runtime-endpoint\n")
    );
    assert!(
        none.err.contains("/run/crio/crio.sock") && none.err.contains("/run/cri-dockerd.sock"),
        "{}",
        none.err
    );

    // The variable, and the file that `config` writes.
    let socket = format!("unix://{}", world.containerd.socket().display());
    let variable =
        program(&world.config()).env("CONTAINER_RUNTIME_ENDPOINT", &socket).args(["pods", "-q"]).output();
    assert_eq!(Answer::of(variable.unwrap()).out.lines().count(), 2);
    let file = world.folder.path().join("made/crictl.yaml");
    let config = |arguments: &[&str]| Answer::of(program(&file).args(arguments).output().unwrap());
    let set = config(&["config", "--set", &format!("runtime-endpoint={socket},timeout=20")]);
    assert_eq!((set.code, set.err.as_str()), (Some(0), ""));
    assert_eq!(config(&["pods", "-q"]).out.lines().count(), 2);

    let user = user_without_rights(world, &socket);
    user.failed(1, "permission denied on the socket");
}

/// The program as a user who may not open the socket.
fn user_without_rights(world: &World, socket: &str) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("nodectl");
    copy_program(Path::new(BINARY), &binary);
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(binary);
    command.args(["cri", "-c"]).arg(world.config()).args(["-r", socket, "ps"]).uid(65_534).gid(65_534);
    Answer::of(command.stdin(Stdio::null()).output().unwrap())
}

#[test]
fn every_verb_on_containerd_1_6() {
    all_verbs(&World::new("cri16", Release::Machine), "1.6");
}

#[test]
fn every_verb_on_containerd_2() {
    all_verbs(&World::new("cri2", Release::Two), "2.");
}

#[test]
fn every_verb_on_containerd_1_4_in_v1alpha2() {
    all_verbs(&World::on(Containerd::old("cri14")), "1.4");
}

#[test]
fn a_dead_socket_in_the_configuration_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (stale, file) = (folder.path().join("stale.sock"), folder.path().join("crictl.yaml"));
    drop(UnixListener::bind(&stale).unwrap());
    fs::write(&file, format!("# mine\nruntime-endpoint: unix://{}\n", stale.display())).unwrap();
    let run = |arguments: &[&str]| Answer::of(program(&file).args(arguments).output().unwrap());
    let answer = run(&["ps"]);
    answer.failed(1, "exists but nobody listens on it");
    let hint =
        format!("hint: this endpoint is runtime-endpoint in {}; `nodectl cri config --set", file.display());
    assert!(answer.err.contains(&hint), "{}", answer.err);
    // A flag goes before the file.
    run(&["-r", "/nonexistent/x.sock", "ps"]).failed(1, "the socket /nonexistent/x.sock does not exist");
    run(&["-r", "tcp://localhost:1", "ps"]).failed(2, "only unix sockets are supported");
    run(&["-i", "unix:///nonexistent/i.sock", "images"]).failed(1, "/nonexistent/i.sock does not exist");

    // crictl's ways to change the file; what else is in it stays.
    let done = |arguments: &[&str]| {
        let answer = run(arguments);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{arguments:?}");
        answer.out
    };
    assert_eq!(done(&["config", "--set", "timeout=5,debug=false", "--set", "image-endpoint="]), "");
    assert_eq!(done(&["config", "runtime-endpoint", "unix:///run/x.sock"]), "");
    assert_eq!(done(&["config", "--get", "timeout"]), "5\n");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "# mine\nruntime-endpoint: unix:///run/x.sock\ntimeout: 5\ndebug: false\nimage-endpoint: \"\"\n"
    );
    let list = done(&["config", "--list"]);
    assert!(
        list.starts_with("KEY                    VALUE\nruntime-endpoint       unix:///run/x.sock\n"),
        "{list}"
    );
    assert_eq!(done(&["config"]), list);
    run(&["config", "--set", "tiemout=5"]).failed(2, "did you mean \"timeout\"?");
    run(&["config", "--set", "timeout"]).failed(2, "is no KEY=VALUE");
    run(&["config", "--get", "nope"]).failed(2, "there is no setting \"nope\"");
    fs::write(&file, "runtime-endpoint: [x\n").unwrap();
    run(&["ps"]).failed(2, file.to_str().unwrap());
    let missing = Answer::of(program(&folder.path().join("none.yaml")).arg("ps").output().unwrap());
    missing.failed(2, "none.yaml does not exist");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file is left");
}
