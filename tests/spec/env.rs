//! Environment, downward API, expansion, termination messages, standard input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::{
    Node, NodeBuilder, Process, Release, STAY, View, container, pod, pod_of, wait_for, wait_until,
};

/// Crash loops that do not keep a test waiting.
const FAST_LOOPS: &str = "crashLoopBackOff:\n  maxContainerRestartPeriod: 1s\n";

fn builder(name: &str, release: Release) -> NodeBuilder {
    match release {
        Release::Machine => Node::builder(name),
        Release::Two => Node::builder(name).containerd2(),
    }
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn resource(name: &str, resource: &str, divisor: &str, container: Option<&str>) -> Value {
    let mut from = json!({"resource": resource, "divisor": divisor});
    if let Some(container) = container {
        from["containerName"] = json!(container);
    }
    json!({"name": name, "valueFrom": {"resourceFieldRef": from}})
}

fn from_file(name: &str, path: &str, key: &str, optional: bool) -> Value {
    let file = json!({"volumeName": "left", "path": path, "key": key, "optional": optional});
    json!({"name": name, "valueFrom": {"fileKeyRef": file}})
}

/// A pod that is told of itself in variables and files, and whose init container leaves variables.
fn told_pod() -> Value {
    let mut main = container("main", "");
    main["command"] = json!(["sh", "-c", "$(SCRIPT)", "$(NAME)"]);
    main["args"] = json!(["$(POD_IP):$(CPU)", "$$(NAME)", "$(NOBODY)"]);
    main["resources"] = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "1500m", "memory": "100M", "ephemeral-storage": "1Gi"}});
    main["env"] = json!([
        {"name": "SCRIPT", "value": STAY},
        field("NAME", "metadata.name"),
        field("NAMESPACE", "metadata.namespace"),
        field("UID_OF_POD", "metadata.uid"),
        field("LABEL", "metadata.labels['app']"),
        field("NOTE", "metadata.annotations['example.com/note']"),
        field("NO_LABEL", "metadata.labels['none']"),
        field("NODE", "spec.nodeName"),
        field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        field("HOST_IPS", "status.hostIPs"),
        field("POD_IP", "status.podIP"),
        field("POD_IPS", "status.podIPs"),
        resource("CPU", "limits.cpu", "0", None),
        resource("CPU_MILLI", "limits.cpu", "1m", Some("main")),
        resource("CPU_ASKED", "requests.cpu", "1m", None),
        resource("MEMORY", "limits.memory", "1Mi", None),
        resource("MEMORY_ASKED", "requests.memory", "1", None),
        resource("DISK", "limits.ephemeral-storage", "1Ki", None),
        resource("HUGE", "limits.hugepages-2Mi", "1", None),
        resource("CPU_OF_NODE", "limits.cpu", "1", Some("free")),
        resource("MEMORY_OF_NODE", "limits.memory", "1", Some("free")),
        resource("DISK_OF_NODE", "limits.ephemeral-storage", "1", Some("free")),
        resource("NOT_ASKED", "requests.cpu", "1m", Some("free")),
        {"name": "URL", "value": "http://$(POD_IP)/$(LABEL)?$(LATER)&$$(LABEL)"},
        {"name": "LATER", "value": "x"},
        from_file("LEFT", "d/vars", "LEFT", false),
        from_file("LINES", "link", "LINES", false),
        from_file("NONE", "d/vars", "NONE", true),
        from_file("NO_FILE", "absent", "LEFT", true),
    ]);
    main["volumeMounts"] =
        json!([{"name": "told", "mountPath": "/told"}, {"name": "parts", "mountPath": "/parts"}]);
    let mut init = container(
        "init",
        "mkdir /left/d && printf \"# of the init container\\nLEFT='kept \\$(NAME)'\\n LINES='a\\nb' # c\\n\" \
         > /left/d/vars && ln -s /d/vars /left/link",
    );
    init["volumeMounts"] = json!([{"name": "left", "mountPath": "/left"}]);
    let item = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let mut secret = item("d/uid", "metadata.uid");
    secret["mode"] = json!(0o400);
    let limit = json!({"path": "memory", "resourceFieldRef":
        {"containerName": "main", "resource": "limits.memory", "divisor": "1M"}});
    let mut pod = pod_of("told", &[main, container("free", STAY)]);
    pod["metadata"]["uid"] = json!("told-uid");
    pod["metadata"]["labels"] = json!({"app": "web", "tier": "test"});
    pod["metadata"]["annotations"] = json!({"example.com/note": "two\nlines"});
    pod["spec"]["initContainers"] = json!([init]);
    pod["spec"]["volumes"] = json!([
        {"name": "left", "emptyDir": {}},
        {"name": "told", "downwardAPI": {"defaultMode": 0o640, "items": [
            item("labels", "metadata.labels"), item("note", "metadata.annotations['example.com/note']"),
            secret, limit,
        ]}},
        {"name": "parts", "projected": {"sources": [
            {"downwardAPI": {"items": [item("name", "metadata.name")]}},
            {"downwardAPI": {"items": [item("d/app", "metadata.labels['app']")]}},
        ]}},
    ]);
    pod
}

fn proc_number(file: &str, line: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|found| found.starts_with(line)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn a_pod_is_told_of_itself(name: &str, release: Release) {
    let node = builder(name, release).config("kubeReserved: {cpu: 500m, memory: 50Mi}").start();
    let before = node.leaks();
    node.put(&told_pod());
    let mut host = pod("onhost", STAY);
    host["spec"]["hostNetwork"] = json!(true);
    host["spec"]["containers"][0]["env"] =
        json!([field("POD_IP", "status.podIP"), field("HOST_IP", "status.hostIP")]);
    node.put(&host);
    let mut broken = pod("broken", STAY);
    broken["spec"]["containers"][0]["env"] = json!([from_file("A", "escape", "A", false)]);
    let mut init = container("init", "ln -s ../../../../../../config.yaml /left/escape");
    init["volumeMounts"] = json!([{"name": "left", "mountPath": "/left"}]);
    broken["spec"]["initContainers"] = json!([init]);
    broken["spec"]["volumes"] = json!([{"name": "left", "emptyDir": {}}]);
    node.put(&broken);
    for source in ["configMapRef", "secretRef"] {
        let mut refused = pod(&format!("r-{}", source.to_lowercase()), STAY);
        refused["spec"]["containers"][0]["envFrom"] =
            json!([{"prefix": "P_", source: {"name": "x", "optional": true}}]);
        node.put(&refused);
        node.wait_problem(&["spec.containers[0].envFrom[0]", source, "static pods may not reference"]);
    }

    let view = node.wait_ready("told");
    let main = node.process(&view, "main");
    variables(&node, &view, main);
    let address = view.0["status"]["podIP"].as_str().unwrap();
    assert_eq!(
        main.arguments()[3..],
        [node.static_name("told"), format!("{address}:2"), "$(NAME)".into(), "$(NOBODY)".into()]
    );
    volumes_follow_the_pod(&node, &view, main);

    let view = node.wait_ready("onhost");
    let main = node.process(&view, "main");
    let address = view.0["status"]["hostIP"].as_str().unwrap();
    assert_eq!(main.variable("POD_IP").as_deref(), Some(address));
    assert_eq!(main.variable("HOST_IP").as_deref(), Some(address));

    // A link out of the volume leads nowhere.
    let view = node.wait_view("broken", "refused its variable", |view| {
        view.waiting("main") == "CreateContainerConfigError"
    });
    let why = view.container("main")["state"]["waiting"]["message"].as_str().unwrap();
    assert!(why.contains("\"A\": file \"escape\" of volume \"left\" is not there"), "{why}");

    for pod in ["told", "onhost", "broken"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

fn variables(node: &Node, view: &View, main: Process) {
    let status = &view.0["status"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = node.static_name("told");
    let milli = 1000 * fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor\t").count();
    // What is left after the reservation, and after 100Mi that eviction keeps free.
    let memory = proc_number("/proc/meminfo", "MemTotal:") * 1024 - (150 << 20);
    for (variable, expected) in [
        ("NAME", name.clone()),
        ("NAMESPACE", "default".into()),
        ("UID_OF_POD", "told-uid".into()),
        ("LABEL", "web".into()),
        ("NOTE", "two\nlines".into()),
        ("NO_LABEL", String::new()),
        ("NODE", name.strip_prefix("told-").unwrap().to_owned()),
        ("ACCOUNT", String::new()),
        ("HOST_IP", text(&status["hostIP"])),
        ("HOST_IPS", text(&status["hostIPs"][0]["ip"])),
        ("POD_IP", text(&status["podIP"])),
        ("POD_IPS", text(&status["podIPs"][0]["ip"])),
        ("CPU", "2".into()),
        ("CPU_MILLI", "1500".into()),
        ("CPU_ASKED", "150".into()),
        ("MEMORY", "96".into()),
        ("MEMORY_ASKED", "100000000".into()),
        ("DISK", (1 << 20).to_string()),
        ("HUGE", "0".into()),
        ("CPU_OF_NODE", (milli - 500).div_ceil(1000).to_string()),
        ("MEMORY_OF_NODE", memory.to_string()),
        ("NOT_ASKED", "0".into()),
        ("URL", format!("http://{}/web?$(LATER)&$(LABEL)", text(&status["podIP"]))),
        ("LEFT", "kept $(NAME)".into()),
        ("LINES", "a\nb".into()),
    ] {
        assert_eq!(main.variable(variable), Some(expected), "{variable}");
    }
    assert_eq!((main.variable("NONE"), main.variable("NO_FILE")), (None, None));
    // Nine tenths of the disk: eviction keeps a tenth free.
    let told: u64 = main.variable("DISK_OF_NODE").unwrap().parse().unwrap();
    let disk = nix::sys::statvfs::statvfs(&node.root_dir()).unwrap();
    let whole = disk.blocks() * disk.fragment_size();
    assert!(told.abs_diff(whole / 10 * 9) < whole / 100, "{told} of {whole}");
}

fn volumes_follow_the_pod(node: &Node, view: &View, main: Process) {
    assert_eq!(main.read("/told/labels"), "app=\"web\"\ntier=\"test\"");
    assert_eq!(main.read("/told/note"), "two\nlines");
    assert_eq!((main.read("/told/d/uid"), main.read("/told/memory")), ("told-uid".into(), "100".into()));
    assert_eq!(
        (main.read("/parts/name"), main.read("/parts/d/app")),
        (node.static_name("told"), "web".into())
    );
    let mode = |path: &str| fs::metadata(main.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("/told/labels"), mode("/told/d/uid"), mode("/parts/name")], [0o640, 0o400, 0o644]);
    assert!(main.is_read_only("/told") && main.is_read_only("/parts"));
    let link = |path: &str| fs::read_link(main.path(path)).unwrap();
    assert_eq!(link("/told/labels"), Path::new("..data/labels"));
    let shown = link("/told/..data");
    let host = node.root_dir().join("pods/told-uid/volumes/kubernetes.io~downward-api/told");
    assert!(host.join(&shown).is_dir());

    // The pod's labels and annotations change, and nothing of what its containers are made from.
    let mut changed = told_pod();
    changed["metadata"]["labels"] = json!({"app": "db"});
    changed["metadata"]["annotations"]["example.com/note"] = json!("new");
    node.put(&changed);
    wait_until(super::support::SOON, "new labels in the container", || {
        fs::read_to_string(main.path("/told/labels")).is_ok_and(|text| text == "app=\"db\"")
    });
    wait_until(super::support::SOON, "the new label in the other volume", || {
        fs::read_to_string(main.path("/parts/d/app")).is_ok_and(|text| text == "db")
    });
    assert_eq!(main.read("/told/note"), "new");
    assert_ne!(link("/told/..data"), shown);
    wait_until(super::support::SOON, "the old files gone", || !host.join(&shown).exists());
    let now = node.wait_ready("told");
    assert_eq!((now.id("main"), now.restarts("main")), (view.id("main"), 0), "nothing is started again");
    assert_eq!(main.variable("LABEL").as_deref(), Some("web"), "an environment stays");
}

#[test]
fn a_pod_is_told_of_itself_on_1() {
    a_pod_is_told_of_itself("en-t1", Release::Machine);
}

#[test]
fn a_pod_is_told_of_itself_on_2() {
    a_pod_is_told_of_itself("en-t2", Release::Two);
}

fn message(view: &View, container: &str) -> Option<String> {
    let end = &view.container(container)["state"]["terminated"];
    assert!(end.is_object(), "{container} has not ended: {}", view.container(container));
    end["message"].as_str().map(str::to_owned)
}

/// Containers that end in different ways, and what they are heard to say.
fn words_pod() -> Value {
    let policy = |mut container: Value| {
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        container
    };
    let mut user = container("user", "id -u > /dev/termination-log; exit 2");
    user["image"] = json!("localhost/nodectl/busybox:user-named");
    let mut path = container("path", "echo -n elsewhere > /tmp/last; exit 2");
    path["terminationMessagePath"] = json!("tmp/last");
    let mut pod = pod_of(
        "words",
        &[
            container("file", "echo logged; echo -n spoken > /dev/termination-log"),
            user,
            path,
            container("link", "rm -f /dev/termination-log; ln -sf /etc/passwd /dev/termination-log; exit 2"),
            container(
                "long",
                "yes 0123456 | head -n 1000 > /dev/termination-log; echo -n end >> /dev/termination-log",
            ),
            policy(container("log", "for n in $(seq 100); do echo $n; done; exit 2")),
            policy(container("good", "echo logged")),
            policy(container("both", "echo logged; echo -n spoken > /dev/termination-log; exit 2")),
            policy(container(
                "wide",
                "yes 0123456 | head -n 70 | tr -d '\\n' > /tmp/x; for n in 1 2 3 4 5; do cat /tmp/x; echo; done; exit 2",
            )),
        ],
    );
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

fn last_words(node: &Node) -> Vec<Option<String>> {
    let view = node.wait_view("words", "ended", |view| view.phase() == "Failed");
    let all = ["file", "user", "path", "link", "long", "log", "good", "both", "wide"];
    all.iter().map(|name| message(&view, name)).collect()
}

fn last_words_are_heard(name: &str, release: Release) {
    let mut node = builder(name, release).config(FAST_LOOPS).start();
    let before = node.leaks();
    node.put(&words_pod());
    let words = last_words(&node);
    let text = |at: usize| words[at].as_deref();
    assert_eq!([text(0), text(1), text(2)], [Some("spoken"), Some("1000\n"), Some("elsewhere")]);
    assert_eq!(text(3), None, "a mounted file cannot be replaced");
    // Nine containers share 12 KiB; of a longer message the last 4096 bytes count, cut from its beginning.
    let long = text(4).unwrap();
    let whole = format!("{}end", "0123456\n".repeat(1000));
    assert_eq!(long, &whole[whole.len() - 4096..][..12 * 1024 / 9]);
    let log: String = (21..=100).map(|n| format!("{n}\n")).collect();
    assert_eq!([text(5), text(6), text(7)], [Some(log.as_str()), None, Some("spoken")]);
    let line = format!("{}\n", "0123456".repeat(70));
    let wide = line.repeat(5);
    assert_eq!(text(8).unwrap(), &wide[wide.len() - 2048..][..12 * 1024 / 9]);
    let uid = node.view("words").unwrap().uid().to_owned();
    let folder = node.root_dir().join(format!("pods/{uid}/containers/file"));
    let files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!((files.len(), fs::read_to_string(&files[0]).unwrap().as_str()), (1, "spoken"));
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o7777, 0o666);

    // An agent that was killed hears the same again.
    node.kill9();
    node.start_agent();
    assert_eq!(last_words(&node), words);

    // A crash loop's last words are those of the last end, and files go with the records they are of. (It comes after
    // the agent was killed: containerd 2.1 forgets the shim of a container whose start was cut short.)
    let mut talker = pod("talker", "echo -n \"start $HOSTNAME\" > /dev/termination-log; exit 3");
    talker["metadata"]["uid"] = json!("talker-uid");
    node.put(&talker);
    let said = "start talker-";
    node.wait_view("talker", "on its third start, with last words", |view| {
        let end = &view.container("main")["lastState"]["terminated"];
        view.restarts("main") >= 3 && end["message"].as_str().is_some_and(|m| m.starts_with(said))
    });
    wait_for(super::support::SOON, "files of removed containers gone", || {
        let folder = node.root_dir().join("pods/talker-uid/containers/main");
        let files = fs::read_dir(folder).unwrap().count();
        let records = node.containerd.containers_of("talker-uid", "main").len();
        (files == records && files < 3).then_some(())
    });
    wait_until(super::support::SOON, "explained", || node.explain("talker").to_string().contains(said));
    node.take_away("words");
    node.take_away("talker");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn last_words_are_heard_on_1() {
    last_words_are_heard("en-w1", Release::Machine);
}

#[test]
fn last_words_are_heard_on_2() {
    last_words_are_heard("en-w2", Release::Two);
}

fn standard_input(name: &str, release: Release) {
    let node = builder(name, release).start();
    let before = node.leaks();
    let with = |name: &str, fields: &[&str]| {
        // Ends at once where there is no input, and is waited for where there is.
        let mut container = container(
            name,
            &format!("cat; echo no more input; exec sh -c '{}'", STAY.replace('\'', "'\\''")),
        );
        for field in fields {
            container[*field] = json!(true);
        }
        container
    };
    node.put(&pod_of(
        "inputs",
        &[
            with("none", &[]),
            with("stdin", &["stdin"]),
            with("once", &["stdin", "stdinOnce"]),
            with("tty", &["tty"]),
            with("both", &["stdin", "tty"]),
        ],
    ));
    let view = node.wait_ready("inputs");
    let input = |container: &str| {
        let process = node.process(&view, container);
        fs::read_link(format!("/proc/{}/fd/0", process.0)).unwrap().to_string_lossy().into_owned()
    };
    assert_eq!(input("none"), "/dev/null");
    for container in ["stdin", "once"] {
        assert!(input(container).starts_with("pipe:"), "{container}: {}", input(container));
    }
    for container in ["tty", "both"] {
        assert_eq!(input(container), "/dev/pts/0");
        assert_eq!(
            fs::read_link(format!("/proc/{}/fd/1", node.process(&view, container).0)).unwrap(),
            Path::new("/dev/pts/0")
        );
    }
    // An open input is waited for; without one the container went on at once.
    let log = |container: &str| {
        let folder = format!("default_{}_{}", node.static_name("inputs"), view.uid());
        fs::read_to_string(node.pod_logs().join(folder).join(container).join("0.log")).unwrap()
    };
    wait_until(super::support::SOON, "the end of no input", || log("none").contains("no more input"));
    for container in ["stdin", "once", "both"] {
        assert!(!log(container).contains("no more input"), "{container}: {}", log(container));
    }
    // Who attaches first and hangs up ends the input that is open once; the other stays open.
    for container in ["once", "stdin"] {
        node.say(&view.id(container), "hello");
        let heard = format!("{container} has heard");
        wait_until(super::support::SOON, &heard, || log(container).contains("stdout F hello"));
    }
    wait_until(super::support::SOON, "the end of the input", || log("once").contains("no more input"));
    node.say(&view.id("stdin"), "again");
    wait_until(super::support::SOON, "the second line heard", || log("stdin").contains("stdout F again"));
    assert!(!log("stdin").contains("no more input"), "{}", log("stdin"));
    node.take_away("inputs");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn standard_input_on_1() {
    standard_input("en-i1", Release::Machine);
}

#[test]
fn standard_input_on_2() {
    standard_input("en-i2", Release::Two);
}
