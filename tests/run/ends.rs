//! Containers that end, by themselves or by force: what is started again, when, and what the status says.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Node, NodeBuilder, Release, SOON, STAY, View, container, pod, pod_of, pod_with_policy, wait_for,
    wait_lines,
};

fn node(name: &str, release: Release) -> Node {
    match release {
        Release::Machine => Node::start(name),
        Release::Two => Node::with_containerd2(name),
    }
}

/// Crash loops that a test can wait for.
const SHORT_BACKOFF: &str =
    "featureGates: {KubeletCrashLoopBackOffMax: true}\ncrashLoopBackOff: {maxContainerRestartPeriod: 1s}\n";

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap_or_default().parse().unwrap_or_else(|error| panic!("{value}: {error}"))
}

#[test]
fn restart_policies() {
    let node = Node::start("policies");
    node.put(&pod_with_policy("never", "Never", "exit 3"));
    node.put(&pod_with_policy("ends-well", "OnFailure", "exit 0"));
    let mut mounted =
        pod_with_policy("second-try", "OnFailure", "test -e /data/x && exit 0; touch /data/x; exit 5");
    mounted["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    mounted["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.put(&mounted);
    node.put(&pod_with_policy("always", "Always", "exit 0"));

    // The first restart comes at once, also after a good end; the second after ten seconds. Looked at before
    // all else: on a busy machine the rest may take longer than that.
    let loops = |view: &View| view.waiting("main") == "CrashLoopBackOff";
    let view = node.wait_view("always", "in crash-loop back-off", loops);
    assert_eq!((view.phase(), view.restarts("main")), ("Running", 1));
    let told = node.explain("always");
    assert_eq!(told["progress"]["step"], "crash-loop-back-off");
    let due = time(&told["progress"]["next"]["at"]);
    let first_end = time(&view.container("main")["lastState"]["terminated"]["finishedAt"]);
    // Ten seconds after the end, which the status tells in whole ones.
    assert!((10..=11).contains(&due.duration_since(first_end).as_secs()), "{first_end}, then {due}");
    // Twenty seconds are left from then on to see it.
    let view = node.wait_view("always", "twice restarted", |v| v.restarts("main") == 2 && loops(v));
    let started = time(&view.container("main")["lastState"]["terminated"]["startedAt"]);
    assert!(started.as_second() + 1 >= due.as_second(), "explain said {due}, it was {started}");
    let records = node.containerd.containers_of(view.uid(), "main");
    assert!(records.len() <= 2, "of ended containers the last two are kept at most: {records:?}");

    let never = node.wait_view("never", "Failed", |view| view.phase() == "Failed");
    let ended = &never.container("main")["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(3), &json!("Error")));
    assert_eq!(never.restarts("main"), 0);
    assert!(!never.condition("Ready"));
    assert_eq!(node.containerd.containers_of(never.uid(), "main").len(), 1);

    let well = node.wait_view("ends-well", "Succeeded", |view| view.phase() == "Succeeded");
    assert_eq!((well.restarts("main"), node.containerd.containers_of(well.uid(), "main").len()), (0, 1));
    let second = node.wait_view("second-try", "Succeeded", |view| view.phase() == "Succeeded");
    assert_eq!(second.restarts("main"), 1);
    assert_eq!(second.container("main")["lastState"]["terminated"]["exitCode"], 5);

    // None of the finished ones came back meanwhile.
    for (name, phase) in [("never", "Failed"), ("ends-well", "Succeeded"), ("second-try", "Succeeded")] {
        assert_eq!(node.view(name).unwrap().phase(), phase);
    }
}

#[test]
fn the_longest_back_off_is_configurable() {
    let node = Node::builder("backoff").config(SHORT_BACKOFF).start();
    node.put(&pod("crashing", "exit 1"));
    // By kubelet's own back-off that would take 70 seconds and the starts besides.
    node.wait_view("crashing", "restarted four times", |v| v.restarts("main") >= 4);
    // The log of the last ended one is kept beside that of the present one, and no more.
    let view = node.view("crashing").unwrap();
    let logs = node.pod_logs().join(format!("default_{}_{}/main", node.static_name("crashing"), view.uid()));
    wait_for(SOON, "old logs removed", || (std::fs::read_dir(&logs).unwrap().count() <= 3).then_some(()));
}

#[test]
fn a_containers_own_restart_rules() {
    let node = Node::builder("rules").config(SHORT_BACKOFF).start();
    let mut main = container("main", "test -e /data/x && exit 7; touch /data/x; exit 42");
    main["restartPolicy"] = json!("Never");
    main["restartPolicyRules"] = json!([
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    ]);
    main["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut manifest = pod_of("ruled", &[main]);
    manifest["spec"]["restartPolicy"] = json!("Never");
    manifest["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.put(&manifest);
    let view = node.wait_view("ruled", "Failed", |view| view.phase() == "Failed");
    assert_eq!(view.restarts("main"), 1);
    assert_eq!(view.container("main")["state"]["terminated"]["exitCode"], 7);
    assert_eq!(view.container("main")["lastState"]["terminated"]["exitCode"], 42);
}

/// A container has two seconds to end, however little its pod asks for, alone and with its pod.
fn a_container_has_two_seconds_to_end(name: &str, release: Release) {
    let node = node(name, release);
    let out = node.dir().join("out");
    std::fs::create_dir(&out).unwrap();
    let of = |grace: i64, version: &str| {
        let name = format!("grace{grace}");
        let say = |word: &str| format!("echo {word} >> /out/{name}");
        let (up, ended) = (say("up"), say("ended"));
        let script =
            format!("trap 'sleep 1.1; {ended}; exit 0' TERM; {up}; while :; do sleep 1000 & wait $!; done");
        let mut main = container("main", &script);
        main["env"] = json!([{"name": "V", "value": version}]);
        main["volumeMounts"] = json!([{"name": "out", "mountPath": "/out"}]);
        let mut manifest = pod_of(&name, &[main]);
        // The same pod, whatever its manifest says.
        manifest["metadata"]["uid"] = json!(name);
        manifest["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        manifest["spec"]["volumes"] = json!([{"name": "out", "hostPath": {"path": out}}]);
        manifest
    };
    let graces = [0, 1].map(|grace| (grace, format!("grace{grace}")));
    for (grace, name) in &graces {
        node.put(&of(*grace, "1"));
        wait_lines(&out.join(name), 1);
    }
    for (grace, name) in &graces {
        let old = node.wait_ready(name).id("main");
        node.put(&of(*grace, "2"));
        let again = node.wait_view(name, "replaced", |v| v.runs("main") && v.id("main") != old);
        assert_eq!(again.container("main")["lastState"]["terminated"]["exitCode"], 0, "{name}");
        assert_eq!(wait_lines(&out.join(name), 3), ["up", "ended", "up"], "{name}");
        node.take_away(name);
    }
    for (_, name) in &graces {
        node.wait_gone(name);
        assert_eq!(wait_lines(&out.join(name), 4)[3], "ended", "{name}");
    }
}

#[test]
fn a_container_has_two_seconds_to_end_on_containerd_1() {
    a_container_has_two_seconds_to_end("twosec1", Release::Machine);
}

#[test]
fn a_container_has_two_seconds_to_end_on_containerd_2() {
    a_container_has_two_seconds_to_end("twosec2", Release::Two);
}

/// Less than the fifteen seconds between two relists, by what a busy machine takes for a start.
const BEFORE_THE_RELIST: Duration = Duration::from_secs(10);

/// Events tell of a death long before the relist, which comes every fifteen seconds then.
fn a_death_is_acted_on_at_once(name: &str, release: Release) {
    let node = node(name, release);
    node.put(&pod_of("mortal", &[container("main", STAY), container("other", STAY)]));
    let view = node.wait_ready("mortal");
    let id = view.id("main");
    let process = node.process(&view, "main");
    // The next relist is far away: one has just been made, for the events' beginning.
    std::thread::sleep(Duration::from_secs(1));
    let killed = Instant::now();
    process.kill();
    let again = node.wait_view("mortal", "restarted", |v| v.runs("main") && v.id("main") != id);
    let took = killed.elapsed();
    assert!(took < BEFORE_THE_RELIST, "only after {took:?}");
    assert_eq!((again.restarts("main"), again.restarts("other")), (1, 0));
    assert_eq!(again.id("other"), view.id("other"));
    let before = &again.container("main")["lastState"]["terminated"];
    assert_eq!(
        (&before["exitCode"], &before["containerID"]),
        (&json!(137), &json!(format!("containerd://{id}")))
    );
    assert_ne!(node.process(&again, "main"), process);
    let record = node.containerd.containers_of(again.uid(), "main");
    let new = record.iter().find(|record| record.id != id).unwrap();
    assert_eq!((new.attempt(), new.annotation("io.kubernetes.container.restartCount")), (1, Some("1")));

    // Nor is the next one missed after the runtime itself was away, and the events with it.
    node.containerd.kill9();
    node.containerd.resume();
    node.wait_health("[+]runtime");
    std::thread::sleep(Duration::from_secs(2));
    let killed = Instant::now();
    node.process(&again, "other").kill();
    node.wait_view("mortal", "restarted", |v| v.runs("other") && v.id("other") != again.id("other"));
    let took = killed.elapsed();
    assert!(took < BEFORE_THE_RELIST, "only after {took:?}, after the runtime was away");
}

#[test]
fn a_death_is_acted_on_at_once_with_containerds_events() {
    a_death_is_acted_on_at_once("death", Release::Machine);
}

#[test]
fn a_death_is_acted_on_at_once_with_the_event_stream_of_cri() {
    a_death_is_acted_on_at_once("death-two", Release::Two);
}

fn a_dead_sandbox_is_replaced(builder: NodeBuilder, shims_stay: bool) {
    let node = builder.config(SHORT_BACKOFF).start();
    let before = node.leaks();
    node.put(&pod("housed", STAY));
    let view = node.wait_ready("housed");
    let old = node.containerd.sandboxes_of(view.uid());
    assert_eq!((old.len(), old[0].attempt()), (1, 0));
    node.containerd.process(&old[0].id).unwrap().kill();
    let again = node.wait_view("housed", "in another sandbox", |v| {
        v.condition("Ready") && v.runs("main") && v.id("main") != view.id("main")
    });
    assert_eq!(again.restarts("main"), 1);
    let mut all = node.containerd.sandboxes_of(view.uid());
    let new = all.remove(all.iter().position(|sandbox| sandbox.attempt() == 1).unwrap());
    assert_ne!(new.id, old[0].id);
    let process = node.process(&again, "main");
    assert_eq!(process.namespace("net"), node.containerd.process(&new.id).unwrap().namespace("net"));
    node.wait_view("housed", "with the new address", |v| {
        v.0["status"]["podIP"].as_str().is_some_and(|ip| process.has_address(ip))
    });
    // The old one stays for as long as the status tells of the container in it, but gives back its network.
    let held = |what: &str| node.leaks().machine.iter().filter(|m| m.starts_with(what)).count();
    wait_for(SOON, "one network", || ((held("address "), held("bridge port ")) == (1, 1)).then_some(()));
    process.kill();
    wait_for(SOON, "the new sandbox alone", || {
        let left = node.containerd.sandboxes_of(view.uid());
        (left.len() == 1 && left[0].id == new.id).then_some(())
    });
    node.take_away("housed");
    node.wait_no_pods();
    // containerd 2.1 forgets the shim of a sandbox whose own process was killed before its containers.
    node.wait_leak_free_but(&before, if shims_stay { &["process containerd-shim"] } else { &[] });
}

#[test]
fn a_dead_sandbox_is_replaced_on_the_machines_containerd() {
    a_dead_sandbox_is_replaced(Node::builder("sandbox"), false);
}

#[test]
fn a_dead_sandbox_is_replaced_on_containerd_2() {
    a_dead_sandbox_is_replaced(Node::builder("sandbox-two").containerd2(), true);
}

/// Somebody with a crictl removes what the agent has made.
#[test]
fn what_is_removed_behind_the_agents_back_is_made_again() {
    let node = Node::start("behind");
    let before = node.leaks();
    node.put(&pod_of("robbed", &[container("main", STAY), container("other", STAY)]));
    let view = node.wait_ready("robbed");
    node.cri("RemoveContainer", &view.id("main"));
    let again =
        node.wait_view("robbed", "ready again", |v| v.condition("Ready") && v.id("main") != view.id("main"));
    assert_eq!(again.id("other"), view.id("other"));
    assert!(node.containerd.process(&again.id("main")).is_some());

    let sandbox = node.containerd.sandboxes_of(view.uid()).remove(0).id;
    node.cri("StopPodSandbox", &sandbox);
    node.cri("RemovePodSandbox", &sandbox);
    let anew = node.wait_view("robbed", "in another sandbox", |v| {
        v.condition("Ready") && v.id("main") != again.id("main") && v.id("other") != view.id("other")
    });
    let sandboxes = node.containerd.sandboxes_of(anew.uid());
    assert_eq!(sandboxes.len(), 1);
    assert_ne!(sandboxes[0].id, sandbox);
    node.take_away("robbed");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_pod_past_its_active_deadline_fails_and_stays_so() {
    let node = Node::start("deadline");
    let mut manifest = pod("late", STAY);
    // The time begins with the pod and not with its containers, and they must have run.
    manifest["spec"]["activeDeadlineSeconds"] = json!(15);
    node.put(&manifest);
    node.wait_ready("late");
    let view = node.wait_view("late", "Failed", |view| view.phase() == "Failed");
    assert_eq!(view.0["status"]["reason"], "DeadlineExceeded");
    wait_for(SOON, "no process left", || node.containerd.processes().is_empty().then_some(()));
}
