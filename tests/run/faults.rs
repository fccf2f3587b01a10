//! Faults under the agent: a runtime that is absent, hangs or dies, a full disk, damaged files, containers
//! that do not end. Errors are clear, nothing is lost, nothing doubled, nothing leaked.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Node, NodeBuilder, Release, SOON, STAY, STUBBORN, container, pod, pod_of, processes, wait_for, wait_until,
};

fn builder(name: &str, release: Release) -> NodeBuilder {
    match release {
        Release::Machine => Node::builder(name),
        Release::Two => Node::builder(name).containerd2(),
    }
}

/// Waits until everything of the agent's pods that runs is one container each.
#[track_caller]
fn wait_one_container_each(node: &Node, pods: usize) {
    wait_until(SOON, &format!("{pods} containers"), || node.containerd.running_containers().len() == pods);
    let list = node.pods_json();
    for pod in list["items"].as_array().unwrap() {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        // One that was cut short while it was made is removed beside the pod's life.
        wait_until(SOON, &format!("one sandbox of {uid}"), || node.containerd.sandboxes_of(uid).len() == 1);
    }
}

#[test]
fn the_agent_starts_without_a_runtime_and_its_pods_when_it_comes() {
    let mut node = Node::builder("absent").prepare();
    node.containerd.kill9();
    node.put(&pod("patient", STAY));
    node.start_agent();
    assert_eq!(node.healthz("/healthz").unwrap(), (200, "ok".to_owned()));
    let line = node.wait_health("[!]runtime failed");
    assert!(line.contains(node.containerd.socket().to_str().unwrap()), "{line}");
    assert_eq!(node.healthz("/healthz/runtime").unwrap().0, 500);
    node.wait_view("patient", "listed", |view| view.phase() == "Pending");
    let told = wait_for(SOON, "explained", || {
        let told = node.explain("patient");
        (told["progress"]["step"] == "waiting-for-runtime").then_some(told)
    });
    let detail = told["progress"]["detail"].as_str().unwrap();
    assert!(detail.contains(node.containerd.socket().to_str().unwrap()), "{detail}");
    node.containerd.resume();
    node.wait_ready("patient");
    assert!(node.wait_health("[+]runtime").contains("ok"));
    wait_one_container_each(&node, 1);
}

fn a_runtime_that_hangs(name: &str, release: Release) {
    let node = builder(name, release).config("runtimeRequestTimeout: 8s\n").start();
    let before = node.leaks();
    node.put(&pod("steady", STAY));
    let steady = node.wait_ready("steady");
    node.containerd.freeze();
    let frozen = Instant::now();
    node.put(&pod("newcomer", STAY));
    // The agent answers all the while, and reads its manifests.
    node.wait_view("newcomer", "listed", |_| true);
    // Whoever asks gives it ten seconds for the answer.
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
    assert!(node.explain("newcomer")["progress"]["step"].is_string());
    node.wait_health("[!]runtime failed");
    node.put_manifest("typo.yaml", "kind: Podd\n");
    node.wait_problem(&["typo.yaml"]);
    // Past the deadlines of the calls under way, so that they are tried again.
    wait_until(SOON, "an error told", || {
        let told = node.explain("newcomer");
        frozen.elapsed() > Duration::from_secs(12) && told["progress"]["step"] == "waiting-for-runtime"
    });
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
    node.containerd.thaw();
    node.wait_ready("newcomer");
    assert_eq!(node.wait_ready("steady").id("main"), steady.id("main"));
    assert_eq!(node.view("steady").unwrap().restarts("main"), 0);
    wait_one_container_each(&node, 2);
    node.wait_health("[+]runtime");
    node.remove_manifest("typo.yaml");
    node.take_away("steady");
    node.take_away("newcomer");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_runtime_that_hangs_on_the_machines_containerd() {
    a_runtime_that_hangs("hang", Release::Machine);
}

#[test]
fn a_runtime_that_hangs_on_containerd_2() {
    a_runtime_that_hangs("hang-two", Release::Two);
}

fn a_runtime_that_dies_in_the_middle_of_creating(name: &str, release: Release) {
    const PODS: usize = 12;
    let node = builder(name, release).start();
    let before = node.leaks();
    node.put(&pod("steady", STAY));
    let steady = node.wait_ready("steady");
    for round in 0..3 {
        for n in 0..PODS {
            node.put(&pod(&format!("p{n}"), STAY));
        }
        // When the first of them has a process it is in the midst of the others.
        let count = node.containerd.processes().len();
        wait_until(SOON, "some sandboxes", || processes(node.dir()).len() > 1 + round);
        assert!(count < 2 * PODS);
        node.containerd.kill9();
        std::thread::sleep(Duration::from_millis(300));
        node.containerd.resume();
        for n in 0..PODS {
            node.wait_ready(&format!("p{n}"));
        }
        wait_one_container_each(&node, PODS + 1);
        for n in 0..PODS {
            node.take_away(&format!("p{n}"));
        }
        if round == 1 {
            // In the middle of removing, too.
            std::thread::sleep(Duration::from_millis(400));
            node.containerd.kill9();
            node.containerd.resume();
        }
        wait_until(SOON, "only the steady one", || node.pods_json()["items"].as_array().unwrap().len() == 1);
    }
    assert_eq!(node.view("steady").unwrap().id("main"), steady.id("main"));
    assert_eq!(node.view("steady").unwrap().restarts("main"), 0);
    node.take_away("steady");
    node.wait_no_pods();
    // What containerd had made and not yet noted when it was killed, it does not find again.
    node.wait_leak_free_but(
        &before,
        &["process ", "mount ", "snapshot", "address ", "bridge port ", "cni result "],
    );
}

#[test]
fn the_machines_containerd_dies_in_the_middle_of_creating() {
    a_runtime_that_dies_in_the_middle_of_creating("dies", Release::Machine);
}

#[test]
fn containerd_2_dies_in_the_middle_of_creating() {
    a_runtime_that_dies_in_the_middle_of_creating("dies-two", Release::Two);
}

#[test]
fn pods_wait_for_space_on_a_full_disk() {
    let mut node = Node::builder("full").prepare();
    let root = node.root_dir();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k,nr_inodes=64", "tmpfs"])
        .arg(&root)
        .status();
    assert!(mounted.unwrap().success());
    node.start_agent();
    let before = node.leaks();
    node.put(&pod("early", STAY));
    let early = node.wait_ready("early");
    // Full in both ways: no block and no file more. Both end in an error, which is the point.
    let ballast = root.join("ballast");
    fs::create_dir(&ballast).unwrap();
    drop(fs::write(ballast.join("blocks"), vec![0_u8; 1 << 20]));
    while fs::File::create(ballast.join(fs::read_dir(&ballast).unwrap().count().to_string())).is_ok() {}
    let mut manifest = pod("late", STAY);
    manifest["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    manifest["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.put(&manifest);
    let told = wait_for(SOON, "the cause told", || {
        let told = node.view("late").map(|_| node.explain("late"))?;
        told["progress"]["lastError"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("No space left"))
            .then_some(told)
    });
    let message = told["progress"]["lastError"]["message"].as_str().unwrap();
    assert!(message.contains(root.to_str().unwrap()), "{message}");
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
    // The others go on: a death is acted on, without a file for the next one's last words, and a removal is done.
    node.process(&early, "main").kill();
    node.wait_view("early", "restarted", |view| view.restarts("main") == 1 && view.runs("main"));
    node.take_away("early");
    node.wait_gone("early");
    fs::remove_dir_all(&ballast).unwrap();
    node.wait_ready("late");
    node.take_away("late");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn checkpoints_that_were_cut_short_or_garbled_are_set_aside() {
    let mut node = Node::start("cut");
    let before = node.leaks();
    for name in ["a", "b", "c"] {
        node.put(&pod(name, STAY));
    }
    let ids: Vec<String> = ["a", "b", "c"].map(|name| node.wait_ready(name).id("main")).to_vec();
    let folder = node.root_dir().join("nodectl/pods");
    let files = || -> Vec<_> { fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect() };
    wait_until(SOON, "three checkpoints", || files().len() == 3);
    node.kill9();
    let found = files();
    fs::File::options().write(true).open(&found[0]).unwrap().set_len(40).unwrap();
    fs::write(&found[1], "").unwrap();
    fs::write(&found[2], [0xff; 100]).unwrap();
    node.start_agent();
    for (name, id) in ["a", "b", "c"].iter().zip(&ids) {
        let view = node.wait_ready(name);
        assert_eq!((&view.id("main"), view.restarts("main")), (id, 0));
    }
    let log = node.agent_log();
    for file in &found {
        let stem = file.file_name().unwrap().to_str().unwrap();
        assert!(log.contains(stem), "{stem} is not named in:\n{log}");
    }
    node.kill9();
    for file in files() {
        fs::remove_file(file).unwrap();
    }
    node.start_agent();
    for name in ["a", "b", "c"] {
        node.wait_ready(name);
    }
    let running: Vec<String> = node.containerd.running_containers().into_keys().collect();
    assert!(running.len() == 3 && ids.iter().all(|id| running.contains(id)));
    for name in ["a", "b", "c"] {
        node.take_away(name);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{value}: {error}"))
}

#[test]
fn a_container_that_ignores_sigterm_is_killed_at_the_deadline() {
    const GRACE: i64 = 8;
    let node = Node::start("stubborn");
    let before = node.leaks();
    let mut manifest = pod_of("mule", &[container("main", STUBBORN), container("good", STAY)]);
    manifest["spec"]["terminationGracePeriodSeconds"] = json!(GRACE);
    node.put(&manifest);
    let view = node.wait_ready("mule");
    let process = node.process(&view, "main");
    let removed = jiff::Timestamp::now();
    node.take_away("mule");
    let told = wait_for(SOON, "terminating", || {
        let told = node.explain("mule");
        (told["progress"]["step"] == "terminating").then_some(told)
    });
    assert_eq!(told["status"], "Terminating");
    // The agent has seen the removal between the two; times are told in whole seconds.
    let seen = jiff::Timestamp::now();
    let deadline = time(&told["progress"]["next"]["at"]);
    let grace = jiff::SignedDuration::from_secs(GRACE);
    let slack = jiff::SignedDuration::from_secs(1);
    let around = removed + grace - slack..=seen + grace + slack;
    assert!(around.contains(&deadline), "{deadline}, from {removed} to {seen}");
    let table = String::from_utf8(node.run_cli(&["pods"]).stdout).unwrap();
    assert!(table.contains("Terminating"), "{table}");
    let text = node.run_cli(&["explain", &node.static_name("mule")]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("stopping the containers"));
    // A moment before the deadline it lives, soon after it does not.
    loop {
        let alive = process.alive();
        // Looked at after it: whatever time passes between the two.
        if jiff::Timestamp::now() >= deadline - jiff::SignedDuration::from_millis(500) {
            break;
        }
        assert!(alive, "killed before its time");
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_until(SOON, "killed", || !process.alive());
    let late = jiff::Timestamp::now().duration_since(deadline);
    // A pod's time as it is without a word of its own would end later.
    assert!(late < jiff::SignedDuration::from_secs(30 - GRACE), "killed {late} late");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}
