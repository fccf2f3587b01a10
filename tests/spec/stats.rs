//! The node's figures against the kernel's files of the same cgroups, on the version of cgroups that the machine has.
//! `vm` runs the same on a machine with v2.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::{
    cgroups::is_v2,
    support::{Node, Process, Release, SOON, STAY, pod, slow, wait_for},
};

/// Whoever can connect may look.
const OPEN: &str = "authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}\n\
                    authorization: {mode: AlwaysAllow}\n";

fn ask(node: &Node, path: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--insecure", "--max-time", "60"])
        .arg(format!("https://127.0.0.1:{}{path}", node.api_port()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A static pod's part of the Summary.
fn of_pod(node: &Node, pod: &str) -> Option<Value> {
    let all: Value = serde_json::from_str(&ask(node, "/stats/summary")).unwrap();
    let name = node.static_name(pod);
    let pods = all["pods"].as_array().unwrap();
    pods.iter().find(|one| one["podRef"]["name"] == name.as_str()).cloned()
}

/// CPU time of a process's cgroup as the kernel says it, nanoseconds.
fn cpu_ns(of: Process) -> u64 {
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    if is_v2() {
        let text = read(&of.cgroup("cpu").join("cpu.stat"));
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        return line.parse::<u64>().unwrap() * 1000;
    }
    read(&of.cgroup("cpuacct").join("cpuacct.usage")).trim().parse().unwrap()
}

/// The value of a container's series.
fn series(text: &str, name: &str, pod: &str) -> Option<f64> {
    let of_pod = format!("pod=\"{pod}\"");
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{container=\"main\"")) && line.contains(&of_pod))?;
    line.rsplit_once("} ")?.1.split(' ').next()?.parse().ok()
}

fn figures_are_those_of_the_cgroups(name: &str, release: Release) {
    let builder = Node::builder(name).config(OPEN);
    let node = match release {
        Release::Machine => builder.start(),
        Release::Two => builder.containerd2().start(),
    };
    let mut burn = pod("burn", "while :; do :; done");
    burn["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    node.put(&burn);
    node.put(&pod("hold", &format!("head -c 30000000 /dev/zero >/dev/shm/held; {STAY}")));
    let view = node.wait_ready("burn");
    let process = node.process(&view, "main");
    node.wait_ready("hold");
    let soon = SOON * slow();

    // What is told lies between what the kernel said before and says afterwards.
    let before = cpu_ns(process);
    let told = wait_for(soon, "a sample that is newer, with a rate", || {
        let told = of_pod(&node, "burn")?;
        let cpu = &told["containers"][0]["cpu"];
        let newer = cpu["usageCoreNanoSeconds"].as_u64()? >= before;
        (newer && !cpu["usageNanoCores"].is_null()).then_some(told)
    });
    let after = cpu_ns(process);
    let main = &told["containers"][0];
    let used = main["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap();
    assert!((before..=after).contains(&used), "{before} {used} {after}");
    assert!(
        told["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() >= used,
        "the pod has what its containers have"
    );
    // It burns what it may have, and a period's quota more at most for each CPU.
    let rate = main["cpu"]["usageNanoCores"].as_u64().unwrap();
    assert!((1_000_000..300_000_000).contains(&rate), "{rate}");
    assert_eq!(told["process_stats"]["process_count"], 1);
    let available = main["memory"]["availableBytes"].as_u64().unwrap();
    let working_set = main["memory"]["workingSetBytes"].as_u64().unwrap();
    assert_eq!(available + working_set, 64 << 20);

    let held = wait_for(soon, "what is held is seen", || {
        let told = of_pod(&node, "hold")?;
        let held = told["containers"][0]["memory"]["workingSetBytes"].as_u64()?;
        (held >= 30_000_000).then_some((told, held))
    });
    assert!(held.1 < 60_000_000, "{}", held.1);
    assert!(held.0["memory"]["workingSetBytes"].as_u64().unwrap() >= held.1);
    assert!(held.0["containers"][0]["memory"]["availableBytes"].is_null(), "it has no limit");
    let interface = &held.0["network"];
    assert_eq!(interface["name"], "eth0", "{interface}");

    let text = wait_for(soon, "its quota is used up", || {
        let text = ask(&node, "/metrics/cadvisor");
        let throttled =
            series(&text, "container_cpu_cfs_throttled_periods_total", &node.static_name("burn"))?;
        (throttled > 0.0).then_some(text)
    });
    let of_burn = |name: &str| series(&text, name, &node.static_name("burn"));
    assert_eq!(of_burn("container_spec_cpu_quota"), Some(20_000.0));
    assert_eq!(of_burn("container_spec_cpu_period"), Some(100_000.0));
    assert_eq!(of_burn("container_spec_memory_limit_bytes"), Some(67_108_864.0));
    assert_eq!(of_burn("container_processes"), Some(1.0));
    let user = of_burn("container_cpu_user_seconds_total").unwrap();
    assert!(user > 0.0 && user <= of_burn("container_cpu_usage_seconds_total").unwrap() + 0.05, "{user}");
    assert!(
        of_burn("container_cpu_cfs_periods_total") >= of_burn("container_cpu_cfs_throttled_periods_total")
    );
    // Where the kernel counts how long tasks wait, so do we; on v1 it does not by cgroup.
    let counts = is_v2() && fs::read("/proc/pressure/cpu").is_ok();
    assert_eq!(of_burn("container_pressure_cpu_waiting_seconds_total").is_some(), counts, "{text}");
    let root = "container_cpu_usage_seconds_total{container=\"\",cpu=\"total\",id=\"/\"";
    assert!(text.lines().any(|line| line.starts_with(root)), "{text}");

    // A pod that is gone is gone from the figures.
    node.take_away("burn");
    wait_for(soon, "nothing is told of it", || {
        let gone = of_pod(&node, "burn").is_none();
        let name = node.static_name("burn");
        let written = ["/metrics/resource", "/metrics/cadvisor"].map(|path| ask(&node, path).contains(&name));
        (gone && written == [false, false]).then_some(())
    });
}

#[test]
fn figures_are_those_of_the_cgroups_on_containerd_1() {
    figures_are_those_of_the_cgroups("st-one", Release::Machine);
}

#[test]
fn figures_are_those_of_the_cgroups_on_containerd_2() {
    figures_are_those_of_the_cgroups("st-two", Release::Two);
}
