//! The agent's own end and start: killed, stopped, refused. Pods notice nothing of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Node, NodeBuilder, Process, SOON, STAY, STUBBORN, View, container, copy_program, pod, pod_of, wait_for,
    wait_until,
};

/// Ids, start times and restart counts of all containers.
fn picture(node: &Node) -> BTreeMap<String, Vec<String>> {
    let list = node.pods_json();
    let pods = list["items"].as_array().unwrap();
    pods.iter()
        .map(|pod| {
            let containers = pod["status"]["containerStatuses"].as_array().unwrap();
            let facts = containers.iter().map(|c| {
                format!("{} {} {}", c["containerID"], c["state"]["running"]["startedAt"], c["restartCount"])
            });
            (pod["metadata"]["name"].as_str().unwrap().to_owned(), facts.collect())
        })
        .collect()
}

fn killed_and_started_again_under_load(builder: NodeBuilder) {
    const PODS: usize = 10;
    let mut node = builder.start();
    let before = node.leaks();
    for n in 0..PODS {
        node.put(&pod_of(&format!("p{n}"), &[container("main", STAY), container("other", STAY)]));
    }
    for n in 0..PODS {
        node.wait_ready(&format!("p{n}"));
    }
    // One has a restart behind it, which must stay counted.
    let view = node.view("p0").unwrap();
    node.process(&view, "main").kill();
    node.wait_view("p0", "restarted", |v| v.restarts("main") == 1 && v.condition("Ready"));
    let processes = node.containerd.running_containers();
    let told = picture(&node);
    assert_eq!(processes.len(), 2 * PODS);
    for round in 0..4 {
        // Under load: while others come and go.
        for n in 0..4 {
            node.put(&pod(&format!("load{round}-{n}"), STAY));
        }
        std::thread::sleep(Duration::from_millis(60 * round));
        node.kill9();
        for n in 0..2 {
            node.take_away(&format!("load{round}-{n}"));
        }
        node.start_agent();
        for n in 2..4 {
            node.wait_ready(&format!("load{round}-{n}"));
            node.take_away(&format!("load{round}-{n}"));
        }
        let now = node.containerd.running_containers();
        for (id, process) in &processes {
            assert_eq!(now.get(id), Some(process), "round {round}");
        }
    }
    wait_until(SOON, "the load gone", || node.pods_json()["items"].as_array().unwrap().len() == PODS);
    for n in 0..PODS {
        node.wait_ready(&format!("p{n}"));
    }
    assert_eq!(picture(&node), told);
    // What nobody named any more when the agent came back is ended without being listed.
    wait_until(SOON, "the load's containers gone", || node.containerd.running_containers().len() == 2 * PODS);
    assert_eq!(node.containerd.running_containers(), processes);
    for n in 0..PODS {
        node.take_away(&format!("p{n}"));
    }
    node.wait_no_pods();
    // A call whose caller was killed is given up by containerd 2.1, which then forgets the shim.
    node.wait_leak_free_but(&before, &["process containerd-shim"]);
}

#[test]
fn killed_and_started_again_under_load_on_the_machines_containerd() {
    killed_and_started_again_under_load(Node::builder("restart"));
}

#[test]
fn killed_and_started_again_under_load_on_containerd_2() {
    killed_and_started_again_under_load(Node::builder("restart-two").containerd2());
}

#[test]
fn what_happened_while_the_agent_was_away_is_found_out() {
    let mut node = Node::start("away");
    for name in ["dies", "goes", "stays"] {
        node.put(&pod(name, STAY));
    }
    let views = ["dies", "goes", "stays"].map(|name| node.wait_ready(name));
    node.kill9();
    node.process(&views[0], "main").kill();
    node.take_away("goes");
    node.put(&pod("comes", STAY));
    node.start_agent();
    node.wait_ready("comes");
    node.wait_view("dies", "restarted", |v| v.restarts("main") == 1 && v.condition("Ready"));
    wait_until(SOON, "the removed one gone", || node.containerd.sandboxes_of(views[1].uid()).is_empty());
    let left = node.wait_ready("stays");
    assert_eq!((left.id("main"), left.restarts("main")), (views[2].id("main"), 0));
}

#[test]
fn a_termination_under_way_keeps_its_deadline_over_a_restart() {
    let mut node = Node::start("deadlines");
    let before = node.leaks();
    let grace = jiff::SignedDuration::from_secs(14);
    let mut manifest = pod("mule", STUBBORN);
    manifest["spec"]["terminationGracePeriodSeconds"] = json!(grace.as_secs());
    node.put(&manifest);
    let view = node.wait_ready("mule");
    let process = node.process(&view, "main");
    node.take_away("mule");
    let deadline = |node: &Node| {
        let told = node.explain("mule");
        let at =
            (told["progress"]["step"] == "terminating").then(|| told["progress"]["next"]["at"].clone())?;
        at.as_str()?.parse::<jiff::Timestamp>().ok()
    };
    let first = wait_for(SOON, "terminating", || deadline(&node));
    std::thread::sleep(Duration::from_secs(4));
    // The whole time anew would begin after this.
    let anew = jiff::Timestamp::now() + grace;
    node.restart();
    let second = wait_for(SOON, "terminating still", || node.view("mule").and_then(|_| deadline(&node)));
    assert_eq!(first, second);
    let mut living = jiff::Timestamp::now();
    wait_until(SOON, "killed", || {
        let looked = jiff::Timestamp::now();
        let alive = process.alive();
        if alive {
            living = looked;
        }
        !alive
    });
    let killed = jiff::Timestamp::now();
    assert!(killed >= first - jiff::SignedDuration::from_millis(500), "killed at {killed}, before {first}");
    assert!(living < anew, "alive at {living}, though its time was over at {first}");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_finished_pod_is_not_run_again_after_a_restart() {
    let mut node = Node::start("finished");
    let mut manifest = pod("once", "exit 0");
    manifest["spec"]["restartPolicy"] = json!("Never");
    node.put(&manifest);
    let view = node.wait_view("once", "Succeeded", |view| view.phase() == "Succeeded");
    node.restart();
    let again = node.wait_view("once", "Succeeded", |view| view.phase() == "Succeeded");
    assert_eq!((again.id("main"), again.restarts("main")), (view.id("main"), 0));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(node.containerd.containers_of(view.uid(), "main").len(), 1);
}

#[test]
fn sigterm_leaves_the_pods_running_and_exits_with_0() {
    let mut node = Node::start("sigterm");
    node.put(&pod("steady", STAY));
    let view = node.wait_ready("steady");
    let process = node.process(&view, "main");
    assert_eq!(node.sigterm(), Some(0));
    assert!(process.alive());
    assert!(!node.socket().exists(), "the operator socket is left behind");
    node.start_agent();
    let again = node.wait_ready("steady");
    assert_eq!((again.id("main"), node.process(&again, "main")), (view.id("main"), process));
    // Also when it stops in the middle of things.
    node.put(&pod("second", STAY));
    assert_eq!(node.sigterm(), Some(0));
    node.start_agent();
    node.wait_ready("second");
    assert_eq!(node.containerd.running_containers().len(), 2);
    // And when the runtime hangs: nobody waits for it for long.
    node.put(&pod("third", STAY));
    node.containerd.freeze();
    std::thread::sleep(Duration::from_millis(500));
    let begun = std::time::Instant::now();
    assert_eq!(node.sigterm(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    node.containerd.thaw();
    node.start_agent();
    node.wait_ready("third");
    assert_eq!(node.containerd.running_containers().len(), 3);
}

fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_second_agent_is_refused_by_name() {
    let node = Node::start("second");
    let (code, errors) = refusal(&mut node.agent_command());
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains(&node.agent_pid().to_string()) && errors.contains("another nodectl"), "{errors}");
    assert!(errors.contains(node.root_dir().to_str().unwrap()), "{errors}");
    // The first is none the worse for it.
    node.put(&pod("fine", STAY));
    node.wait_ready("fine");
    assert!(node.socket().exists());
}

#[test]
fn a_live_kubelet_on_the_same_folder_is_refused_by_name() {
    let node = Node::builder("kubelet").prepare();
    // Its name and its flag are all that makes it one.
    let program = node.dir().join("kubelet.d/kubelet");
    fs::create_dir(program.parent().unwrap()).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    copy_program(Path::new(busybox.expect("busybox-static is installed by hack/deps.sh")), &program);
    let root = format!("--root-dir={}", node.root_dir().display());
    let mut kubelet = Command::new(&program)
        .arg0("sh")
        .args(["-c", "while :; do read line; done", &root])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = kubelet.id();
    wait_until(SOON, "the kubelet runs", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "kubelet\n")
            && fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&root))
    });
    let (code, errors) = refusal(&mut node.agent_command());
    kubelet.kill().unwrap();
    kubelet.wait().unwrap();
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains("kubelet") && errors.contains(&pid.to_string()), "{errors}");
}

#[test]
fn a_taken_port_is_refused_with_its_owner() {
    let node = Node::builder("port").prepare();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (code, errors) = refusal(node.agent_command().arg(format!("--healthz-port={port}")));
    assert_eq!(code, Some(3), "{errors}");
    for word in [port.to_string(), std::process::id().to_string()] {
        assert!(errors.contains(&word), "no {word} in {errors}");
    }
}

#[test]
fn a_socket_path_that_is_something_else_is_refused() {
    let node = Node::builder("socket").prepare();
    fs::write(node.socket(), "precious").unwrap();
    let (code, errors) = refusal(&mut node.agent_command());
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains(node.socket().to_str().unwrap()), "{errors}");
    assert_eq!(fs::read_to_string(node.socket()).unwrap(), "precious");
}

/// What a crashed agent has left on the disk is cleared away by the next one: folders of pods that nobody
/// wants any more, and whose sandboxes are long gone.
#[test]
fn leftovers_of_an_earlier_life_are_cleared_away() {
    let mut node = Node::builder("leftovers").prepare();
    let pods = node.root_dir().join("pods");
    fs::create_dir_all(pods.join("0123-gone/volumes/kubernetes.io~empty-dir/data")).unwrap();
    let before_ids: Vec<Process> = node.containerd.processes().into_values().collect();
    assert!(before_ids.is_empty());
    node.put(&pod("alive", STAY));
    node.start_agent();
    let view: View = node.wait_ready("alive");
    wait_until(SOON, "the leftover gone", || !pods.join("0123-gone").exists());
    assert!(pods.join(view.uid()).exists());
}
