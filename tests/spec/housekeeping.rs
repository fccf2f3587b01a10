//! What is cleared away while pods run, and how they end: logs rotated, dead containers collected, leftovers
//! removed, the reasons and codes of ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    GREEDY, Node, NodeBuilder, Record, SOON, STAY, View, container, pod, pod_of, pod_with_policy, wait_for,
    wait_until,
};

/// Crash loops that a test can wait for.
const SHORT_BACKOFF: &str =
    "featureGates: {KubeletCrashLoopBackOffMax: true}\ncrashLoopBackOff: {maxContainerRestartPeriod: 1s}\n";

/// The log folder of a pod's container.
fn log_folder(node: &Node, view: &View, container: &str) -> PathBuf {
    let pod = view.0["metadata"]["name"].as_str().unwrap();
    node.pod_logs().join(format!("default_{pod}_{}/{container}", view.uid()))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// [`try_numbers`] where nobody rotates.
#[track_caller]
fn numbers(folder: &Path, log: &str) -> Vec<u64> {
    try_numbers(folder, log).unwrap_or_else(|wrong| panic!("{wrong} in {}", folder.display()))
}

/// What a container has written, over all files of its log in their order, as numbers one a line. What is
/// half made or compressed already does not count. While an agent rotates, a file may be gone that was there.
fn try_numbers(folder: &Path, log: &str) -> Result<Vec<u64>, String> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for name in names(folder).iter().filter(|name| name.starts_with(log) && !name.ends_with(".tmp")) {
        let stamp = name.trim_end_matches(".gz").strip_prefix(log).unwrap();
        // The present log comes last, whole files before halves of their making.
        let order = if stamp.is_empty() { "~".to_owned() } else { stamp.to_owned() };
        if name.ends_with(".gz") || !files.contains_key(&order) {
            files.insert(order, folder.join(name));
        }
    }
    let mut text = String::new();
    for file in files.values() {
        let told = |error: std::io::Error| format!("{}: {error}", file.display());
        let mut open = File::open(file).map_err(told)?;
        if file.extension().is_some_and(|end| end == "gz") {
            GzDecoder::new(open).read_to_string(&mut text).map_err(told)?;
        } else {
            open.read_to_string(&mut text).map_err(told)?;
        }
    }
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let (mut numbers, mut begun) = (Vec::new(), String::new());
    for line in whole.lines() {
        // "time stream tag content", where the tag P is of a part that the next line goes on with.
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        let [_, "stdout", tag, content] = fields[..] else { return Err(format!("{line:?} of {files:?}")) };
        begun.push_str(content);
        if tag == "F" {
            numbers.push(begun.parse::<u64>().map_err(|error| format!("{begun:?}: {error} of {files:?}"))?);
            begun.clear();
        }
    }
    Ok(numbers)
}

/// The lines follow one another and none is missing between the first and the last.
#[track_caller]
fn assert_whole(numbers: &[u64]) {
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(gap, None, "of {} lines", numbers.len());
}

/// Waits until all threads of the agent stand still after SIGSTOP.
fn wait_stopped(node: &Node) {
    let threads = format!("/proc/{}/task", node.agent_pid());
    wait_until(SOON, "the agent stands still", || {
        fs::read_dir(&threads).unwrap().all(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    });
}

fn logs_are_rotated(builder: NodeBuilder) {
    let mut node = builder
        .config(SHORT_BACKOFF)
        .config("containerLogMaxSize: 64Ki\ncontainerLogMaxFiles: 4\ncontainerLogMonitorInterval: 3s\n")
        .start();
    let before = node.leaks();
    // So much at first that compressing it takes a moment, then some in every second.
    let chatty =
        "n=400000; seq 1 $n; while :; do seq $((n + 1)) $((n + 2000)); n=$((n + 2000)); sleep 1; done";
    // Never more than its files hold: three times 64 KiB and a little. It goes on when it is told to.
    let told = |file: &str| format!("until test -e {file}; do sleep 0.1; done");
    let brief =
        format!("seq 1 1600; {}; seq 1601 3200; {}; seq 3201 4800; {STAY}", told("/second"), told("/third"));
    node.put(&pod("chatty", chatty));
    node.put(&pod("brief", &brief));
    let (chatty, brief) = (node.wait_ready("chatty"), node.wait_ready("brief"));
    let (chats, briefs) = (log_folder(&node, &chatty, "main"), log_folder(&node, &brief, "main"));

    // Killed while it compresses, the agent leaves a file half made; the next one removes it and goes on.
    // Stopped first: a small log is compressed while one looks.
    let compresses = || names(&chats).iter().any(|name| name.ends_with(".tmp"));
    wait_until(SOON, "a log that is being compressed", || {
        compresses() && {
            node.signal(Signal::SIGSTOP);
            wait_stopped(&node);
            let still = compresses();
            if !still {
                node.signal(Signal::SIGCONT);
            }
            still
        }
    });
    node.kill9();
    let left = names(&chats);
    assert!(left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
    assert_whole(&numbers(&chats, "0.log"));
    node.start_agent();
    wait_until(SOON, "the big log compressed", || {
        let names = names(&chats);
        names.iter().any(|name| name.ends_with(".gz")) && !names.iter().any(|name| name.ends_with(".tmp"))
    });

    // As many files as may be, and of them all but the last two compressed.
    let rotated = wait_for(SOON, "four files", || {
        let names = names(&chats);
        (names.len() == 4 && names[1].ends_with(".gz") && names[2].ends_with(".gz")).then_some(names)
    });
    assert_eq!(rotated[0], "0.log");
    let oldest = rotated[1].clone();
    wait_until(SOON, "the oldest removed", || !names(&chats).contains(&oldest));
    assert!(names(&chats).len() <= 5, "{:?}", names(&chats));
    let link = node.container_logs().join(format!(
        "{}_default_main-{}.log",
        node.static_name("chatty"),
        chatty.id("main")
    ));
    assert_eq!(fs::read_link(&link).unwrap(), chats.join("0.log"));
    assert_eq!(node.view("chatty").unwrap().restarts("main"), 0);
    // Nothing is missing in what is kept, nor in the log of which all is kept.
    let inside = node.process(&brief, "main");
    for (files, next) in [(2, "/second"), (3, "/third")] {
        wait_until(SOON, "the brief one's log rotated", || names(&briefs).len() >= files);
        fs::write(inside.path(next), "").unwrap();
    }
    wait_until(SOON, "all of the brief one's lines", || {
        try_numbers(&briefs, "0.log").is_ok_and(|numbers| numbers.last() == Some(&4800))
    });
    node.kill9();
    let lines = numbers(&chats, "0.log");
    // The first may be the end of a line whose beginning went with an older file.
    let lines = &lines[1..];
    assert_whole(lines);
    assert!(lines[0] > 1 && lines.len() > 2000, "{} lines from {}", lines.len(), lines[0]);
    let lines = numbers(&briefs, "0.log");
    assert_whole(&lines);
    assert_eq!((lines[0], lines.len()), (1, 4800), "{:?}", names(&briefs));
    let modes: Vec<u32> = names(&briefs)
        .iter()
        .map(|name| std::os::unix::fs::MetadataExt::mode(&fs::metadata(briefs.join(name)).unwrap()) & 0o777)
        .collect();
    assert!(modes.iter().all(|mode| *mode == modes[0]), "{modes:?}");

    // A log that vanished with nobody told is opened anew; the agent may have died right after it moved it away.
    let removed = fs::remove_file(chats.join("0.log"));
    assert!(removed.is_ok() || !chats.join("0.log").exists(), "{removed:?}");
    node.start_agent();
    wait_until(SOON, "the log again", || chats.join("0.log").exists());

    // With a dead container go all files of its log.
    for restarts in 1..=2 {
        let view = node.view("brief").unwrap();
        node.process(&view, "main").kill();
        node.wait_view("brief", "restarted", |v| v.restarts("main") == restarts && v.runs("main"));
    }
    wait_until(SOON, "the first log removed", || {
        !names(&briefs).iter().any(|name| name.starts_with("0.log"))
    });
    assert!(names(&briefs).contains(&"1.log".to_owned()), "{:?}", names(&briefs));
    node.take_away("chatty");
    node.take_away("brief");
    node.wait_no_pods();
    node.wait_leak_free(&before);
    assert!(names(&node.container_logs()).is_empty());
}

#[test]
fn logs_are_rotated_on_the_machines_containerd() {
    logs_are_rotated(Node::builder("hklog"));
}

#[test]
fn logs_are_rotated_on_containerd_2() {
    logs_are_rotated(Node::builder("hklog2").containerd2());
}

fn ended<'v>(view: &'v View, container: &str) -> &'v Value {
    &view.container(container)["state"]["terminated"]
}

fn code_and_reason(end: &Value) -> (i64, &str) {
    (end["exitCode"].as_i64().unwrap_or(-1), end["reason"].as_str().unwrap_or_default())
}

fn ends_are_told(builder: NodeBuilder) {
    let node = builder.config(SHORT_BACKOFF).start();
    let before = node.leaks();
    let mut oom = pod_with_policy("oom", "Never", GREEDY);
    oom["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    node.put(&oom);
    let mut again = pod_with_policy("again", "Always", GREEDY);
    again["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    node.put(&again);
    let mut codes = pod_of(
        "codes",
        &[container("well", "exit 0"), container("badly", "exit 42"), container("killed", STAY)],
    );
    codes["spec"]["restartPolicy"] = json!("Never");
    node.put(&codes);
    let mut missing = pod_with_policy("missing", "Never", "");
    missing["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    node.put(&missing);
    let mut init = pod_with_policy("init", "Never", STAY);
    init["spec"]["initContainers"] = json!([container("first", "exit 0"), container("second", "exit 3")]);
    node.put(&init);
    node.put(&pod_with_policy("robbed", "Always", STAY));
    node.put(&pod_with_policy(
        "housed",
        "Never",
        "trap 'exit 9' TERM; while :; do sleep 1000 & wait $!; done",
    ));

    let failed = |pod: &str| node.wait_view(pod, "Failed", |view| view.phase() == "Failed");
    assert_eq!(code_and_reason(ended(&failed("oom"), "main")), (137, "OOMKilled"));
    let view = node.wait_view("again", "out of memory twice", |view| view.restarts("main") > 0);
    let last = &view.container("main")["lastState"]["terminated"];
    assert_eq!(code_and_reason(last), (137, "OOMKilled"));

    let view = node.wait_view("codes", "two ended", |view| {
        view.runs("killed") && ended(view, "well").is_object() && ended(view, "badly").is_object()
    });
    assert_eq!(view.phase(), "Running");
    node.process(&view, "killed").kill();
    let view = failed("codes");
    for (name, end) in [("well", (0, "Completed")), ("badly", (42, "Error")), ("killed", (137, "Error"))] {
        assert_eq!(code_and_reason(ended(&view, name)), end, "{name}");
        let at = |key: &str| ended(&view, name)[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(at("startedAt") <= at("finishedAt"), "{name}");
    }

    let view = failed("missing");
    assert_eq!(code_and_reason(ended(&view, "main")), (128, "StartError"));
    let message = ended(&view, "main")["message"].as_str().unwrap();
    assert!(message.contains("/no/such/program"), "{message}");

    let view = failed("init");
    assert_eq!(code_and_reason(ended(&view, "first")), (0, "Completed"));
    assert_eq!(code_and_reason(ended(&view, "second")), (3, "Error"));
    assert_eq!(view.waiting("main"), "PodInitializing");

    // Nobody saw how it ended: the agent stands still between its end and its removal.
    let view = node.wait_ready("robbed");
    node.signal(Signal::SIGSTOP);
    wait_stopped(&node);
    node.cri("RemoveContainer", &view.id("main"));
    node.signal(Signal::SIGCONT);
    let again = node.wait_view("robbed", "another", |v| v.runs("main") && v.id("main") != view.id("main"));
    let last = &again.container("main")["lastState"]["terminated"];
    assert_eq!(code_and_reason(last), (137, "ContainerStatusUnknown"));
    assert_eq!(last["containerID"], view.container("main")["containerID"]);
    assert_eq!(again.restarts("main"), 1);

    // What is never started again ends with its sandbox.
    let view = node.wait_ready("housed");
    let sandbox = node.containerd.sandboxes_of(view.uid()).remove(0);
    node.containerd.process(&sandbox.id).unwrap().kill();
    let view = failed("housed");
    assert_eq!(code_and_reason(ended(&view, "main")), (9, "Error"));
    assert_eq!(node.containerd.sandboxes_of(view.uid()).len(), 1);

    // Ends stay as they were told when their records are gone.
    let told = node.view("codes").unwrap();
    for name in ["well", "badly", "killed"] {
        node.cri("RemoveContainer", &told.id(name));
    }
    node.put(&pod("later", STAY));
    node.wait_ready("later");
    let now = node.view("codes").unwrap();
    assert_eq!(now.0["status"]["containerStatuses"], told.0["status"]["containerStatuses"]);
    assert_eq!((now.phase(), node.containerd.containers_of(now.uid(), "well").len()), ("Failed", 0));

    for pod in ["oom", "again", "codes", "missing", "init", "robbed", "housed", "later"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    // containerd 2.1 forgets the shim of a sandbox whose own process was killed before its containers.
    node.wait_leak_free_but(&before, &["process containerd-shim"]);
}

#[test]
fn ends_are_told_on_the_machines_containerd() {
    ends_are_told(Node::builder("hkend"));
}

#[test]
fn ends_are_told_on_containerd_2() {
    ends_are_told(Node::builder("hkend2").containerd2());
}

/// Of a pod's grace period its containers take all. Then the sidecars are told, all at once, and have two
/// seconds each.
fn sidecars_share_what_is_left_of_the_grace_period(builder: NodeBuilder) {
    let node = builder.start();
    let before = node.leaks();
    let out = node.dir().join("order");
    fs::create_dir(&out).unwrap();
    let with = |name: &str, script: &str| {
        let mut one = container(name, script);
        one["volumeMounts"] = json!([{"name": "out", "mountPath": "/out"}]);
        one
    };
    let sidecar = |name: &str, script: &str| {
        let mut one = with(name, script);
        one["restartPolicy"] = json!("Always");
        one
    };
    let obedient = |name: &str| {
        format!("trap 'echo {name} >> /out/log; exit 0' TERM; while :; do sleep 1000 & wait $!; done")
    };
    let stubborn = |name: &str, on_term: &str| {
        format!("trap '{on_term}' TERM; while :; do echo {name} >> /out/log; sleep 0.1; done")
    };
    let mut manifest = pod_of("shared", &[with("main", &stubborn("main", "echo asked >> /out/log"))]);
    manifest["spec"]["terminationGracePeriodSeconds"] = json!(3);
    manifest["spec"]["initContainers"] = json!([
        sidecar("early", &obedient("early")),
        sidecar("middle", &stubborn("middle", "")),
        sidecar("late", &obedient("late")),
    ]);
    manifest["spec"]["volumes"] = json!([{"name": "out", "hostPath": {"path": out}}]);
    node.put(&manifest);
    node.wait_ready("shared");
    // Its script minds the signal when it says something.
    wait_until(SOON, "main says something", || {
        fs::read_to_string(out.join("log")).is_ok_and(|log| log.lines().any(|line| line == "main"))
    });
    node.take_away("shared");
    node.wait_no_pods();
    let text = fs::read_to_string(out.join("log")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let first = |name: &str| lines.iter().position(|line| *line == name).unwrap();
    let last = |name: &str| lines.iter().rposition(|line| *line == name).unwrap();
    assert!(first("asked") < last("main"), "it is asked before it is killed");
    assert!(last("main") < first("late"), "a sidecar waits for the containers");
    assert!(last("main") < first("early") && first("early") < last("middle"), "the time is over for all");
    node.wait_leak_free(&before);
}

#[test]
fn sidecars_share_what_is_left_on_the_machines_containerd() {
    sidecars_share_what_is_left_of_the_grace_period(Node::builder("hkside"));
}

#[test]
fn sidecars_share_what_is_left_on_containerd_2() {
    sidecars_share_what_is_left_of_the_grace_period(Node::builder("hkside2").containerd2());
}

/// `--minimum-container-ttl-duration`, `--maximum-dead-containers-per-container` and
/// `--maximum-dead-containers`.
fn dead_containers_are_kept_as_configured(builder: NodeBuilder) {
    let mut node = builder
        .config(SHORT_BACKOFF)
        .argument("--minimum-container-ttl-duration=1h")
        .argument("--maximum-dead-containers-per-container=0")
        .argument("--maximum-dead-containers=0")
        .start();
    let attempts = |node: &Node, uid: &str| {
        let mut all: Vec<u64> =
            node.containerd.containers_of(uid, "main").iter().map(Record::attempt).collect();
        all.sort_unstable();
        all
    };
    let crashed_again = |node: &Node, name: &str| {
        let before = node.view(name).map_or(0, |view| view.restarts("main"));
        node.wait_view(name, "restarted", |v| v.restarts("main") >= before + 2);
    };
    let again_with = |node: &mut Node, arguments: &[&str]| {
        node.sigterm();
        node.set_arguments(arguments);
        node.start_agent();
    };
    node.put(&pod("crashing", "exit 1"));
    let view = node.wait_view("crashing", "restarted five times", |v| v.restarts("main") >= 5);
    let uid = view.uid().to_owned();
    // None is old enough to go, whatever the numbers.
    let all = attempts(&node, &uid);
    assert!(all.len() >= 6 && all.iter().copied().eq(0..all.len() as u64), "{all:?}");

    again_with(&mut node, &["--maximum-dead-containers-per-container=3"]);
    wait_until(SOON, "some removed", || attempts(&node, &uid).len() <= 4);
    crashed_again(&node, "crashing");
    // One may have been made and not yet ended, and one ended whose place is not yet another's; what is too much
    // goes in a while, and never more than that.
    let kept = wait_for(SOON, "three kept, or one or two more", || {
        let kept = attempts(&node, &uid);
        assert!(kept.len() >= 3 && kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kept:?}");
        (kept.len() <= 5).then_some(kept)
    });
    assert!(kept[0] > 0, "{kept:?}");

    // All together may have four, and share them.
    node.put(&pod("second", "exit 1"));
    let second = node.wait_view("second", "restarted", |v| v.restarts("main") >= 4).uid().to_owned();
    let limits = ["--maximum-dead-containers-per-container=10", "--maximum-dead-containers=4"];
    again_with(&mut node, &limits);
    for name in ["crashing", "second"] {
        crashed_again(&node, name);
    }
    wait_until(SOON, "two of each", || {
        [&uid, &second].iter().all(|uid| (2..=3).contains(&attempts(&node, uid).len()))
    });

    again_with(&mut node, &["--maximum-dead-containers-per-container=0"]);
    wait_until(SOON, "the newest alone", || {
        [&uid, &second].iter().all(|uid| attempts(&node, uid).len() == 1)
    });
    assert!(node.view("crashing").unwrap().restarts("main") >= 5);
}

#[test]
fn dead_containers_are_kept_as_configured_on_the_machines_containerd() {
    dead_containers_are_kept_as_configured(Node::builder("hkdead"));
}

#[test]
fn dead_containers_are_kept_as_configured_on_containerd_2() {
    dead_containers_are_kept_as_configured(Node::builder("hkdead2").containerd2());
}

/// More ends at once than containerd's shim has room for: told all at once, it takes minutes.
#[test]
fn a_pod_of_many_containers_is_gone_soon() {
    let node = Node::start("hkmany");
    let before = node.leaks();
    let containers: Vec<Value> = (0..60).map(|n| container(&format!("c{n}"), STAY)).collect();
    let mut manifest = pod_of("many", &containers);
    manifest["spec"]["terminationGracePeriodSeconds"] = json!(30);
    node.put(&manifest);
    node.wait_view_within(3 * SOON, "many", "ready", |view| view.condition("Ready"));
    node.take_away("many");
    node.wait_gone("many");
    node.wait_leak_free(&before);
}

/// What a crashed agent has left of pods that nobody wants any more, in all its places.
#[test]
fn leftovers_go_from_all_folders() {
    let mut node = Node::builder("hkleft").prepare();
    let logs = node.pod_logs().join("default_gone_0456-gone/main");
    fs::create_dir_all(&logs).unwrap();
    for name in ["0.log", "0.log.20260101-000000.gz", "0.log.20260101-000001.tmp"] {
        fs::write(logs.join(name), "x").unwrap();
    }
    let link = |name: &str, target: &Path| {
        std::os::unix::fs::symlink(target, node.container_logs().join(name)).unwrap();
    };
    link("gone_default_main-0123.log", &logs.join("0.log"));
    link("older_default_main-4567.log", &node.pod_logs().join("default_older_x/main/0.log"));
    let foreign = node.dir().join("of-somebody-else.log");
    link("of-somebody-else.log", &foreign);
    let pods = node.root_dir().join("pods");
    fs::create_dir_all(pods.join("0123-gone/volumes/kubernetes.io~empty-dir/data/deep")).unwrap();
    fs::create_dir_all(pods.join("0123-gone/containers/main")).unwrap();
    fs::write(pods.join("0123-gone/volumes/kubernetes.io~empty-dir/data/deep/file"), "x").unwrap();
    fs::write(pods.join("no-pod"), "x").unwrap();
    node.put(&pod("alive", STAY));
    node.start_agent();
    let view = node.wait_ready("alive");
    wait_until(SOON, "the pod's folder removed", || !pods.join("0123-gone").exists());
    wait_until(SOON, "its logs removed", || !logs.parent().unwrap().exists());
    wait_until(SOON, "links without a log removed", || names(&node.container_logs()).len() == 2);
    let alive = format!("{}_default_main-{}.log", node.static_name("alive"), view.id("main"));
    assert_eq!(names(&node.container_logs()), [alive, "of-somebody-else.log".to_owned()]);
    assert!(pods.join(view.uid()).exists() && pods.join("no-pod").exists());
    assert!(log_folder(&node, &view, "main").join("0.log").exists());
}
