//! `nodectl switch-runtime` on a node of a cluster: a real API server 1.20, with which the node is cordoned, drained,
//! annotated and seen Ready; kubectl tells what came of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Value, json};
use support::{
    SOON,
    cluster::{ADMIN, NODE, SERVER},
    machine::{Job, Machine},
    machine_files::{Files, differences},
    slow,
    switching::{STATE, Said, hurry, struck, switch},
    wait_until,
};

const KUBEADM: &str = "kubeadm.alpha.kubernetes.io/cri-socket";
const OURS: &str = "nodectl.dev/cordoned-by";
const DOCKERSHIM: &str = "/var/run/dockershim.sock";
const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";

/// A node in its cluster and how it was: with a pod of a ReplicaSet and one of a DaemonSet.
struct Cluster {
    machine: Machine,
    replicas: Value,
    files: Files,
    units: BTreeMap<String, (String, String)>,
    /// What changes the kubelet's cgroup driver, so that the node has to be drained.
    driver: String,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let machine = Machine::in_cluster(name);
        machine.kubectl(&["annotate", "node", "node1", &format!("{KUBEADM}={DOCKERSHIM}")]);
        let replicas = machine.make_controller("ReplicaSet", "web");
        let daemons = machine.make_controller("DaemonSet", "log");
        machine.make_pod("log", Some(&daemons), &Value::Null);
        let (files, units) = (machine.files(), machine.units());
        let detected = switch(&machine, &["--detect", "-o", "json"]).ended(0).json();
        let driver = if detected["kubelet"]["cgroupDriver"] == "systemd" { "cgroupfs" } else { "systemd" };
        Self { machine, replicas, files, units, driver: format!("--cgroup-driver={driver}") }
    }

    /// A pod that a ReplicaSet would make again elsewhere.
    #[track_caller]
    fn managed(&self, name: &str) -> Value {
        self.machine.make_pod(name, Some(&self.replicas), &Value::Null)
    }

    fn words<'a>(&'a self, kubeconfig: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["--kubeconfig", kubeconfig, "--drain", "--yes", &self.driver], more].concat()
    }

    fn drain(&self, more: &[&str]) -> Said {
        switch(&self.machine, &self.words(ADMIN, more))
    }

    /// The same, not waited for.
    fn begin(&self, more: &[&str]) -> Job {
        self.machine.spawn(&[&["nodectl", "switch-runtime"], &self.words(ADMIN, more)[..]].concat())
    }

    /// Whether the node takes no pods, and whether by our doing.
    #[track_caller]
    fn cordoned(&self) -> (bool, bool) {
        let node = self.machine.node();
        (node["spec"]["unschedulable"] == true, node["metadata"]["annotations"][OURS] == "switch-runtime")
    }

    /// What the API server has of the node: the annotation for kubeadm, the runtime, and whether it is Ready.
    #[track_caller]
    fn seen(&self) -> (String, String, bool) {
        let node = self.machine.node();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        (
            text(&node["metadata"]["annotations"][KUBEADM]),
            text(&node["status"]["nodeInfo"]["containerRuntimeVersion"]),
            ready["status"] == "True",
        )
    }

    /// The node is moved, and the API server knows it by the time that the command ends.
    #[track_caller]
    fn is_moved(&self) {
        let (annotation, runtime, ready) = self.seen();
        assert_eq!((annotation.as_str(), ready), (CONTAINERD, true));
        assert!(runtime.starts_with("containerd://"), "{runtime}");
        let units = self.machine.units();
        assert_eq!(units["kubelet.service"].0, "active");
        assert_eq!(units["docker.service"], ("inactive".to_owned(), "disabled".to_owned()));
        // What stayed on the node is started anew.
        for pod in ["log", "web-node1"] {
            wait_until(SOON, &format!("{pod} runs"), || self.machine.pod_runs(pod, "containerd"));
        }
        assert_eq!(self.machine.try_read(&format!("{STATE}/unfinished")), None);
    }

    /// The node itself is as before, and its static pod serves.
    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(differences(&self.files, &self.machine.files()), Vec::<String>::new());
        assert_eq!(self.machine.units(), self.units);
        assert_eq!(self.machine.try_read(&format!("{STATE}/unfinished")), None);
        assert!(self.machine.pod_serves());
    }

    /// The node is back on Docker, also in the eyes of the API server.
    #[track_caller]
    fn is_back(&self) {
        wait_until(SOON, "the node is Ready on Docker", || {
            let (_, runtime, ready) = self.seen();
            ready && runtime.starts_with("docker://")
        });
        assert_eq!(self.seen().0, DOCKERSHIM);
        for pod in ["log", "web-node1"] {
            wait_until(SOON, &format!("{pod} runs"), || self.machine.pod_runs(pod, "docker"));
        }
        self.is_untouched();
    }
}

/// What tells one pod from another of the same name.
fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap()
}

#[test]
fn a_node_is_drained_moved_and_moved_back() {
    let cluster = Cluster::new("drained");
    let machine = &cluster.machine;
    let web = cluster.managed("web");
    // Its status comes after it.
    wait_until(SOON, "the static pod's status is told", || machine.pod_runs("web-node1", "docker"));
    let (log, mirror) = (machine.object("pod", "log").unwrap(), machine.object("pod", "web-node1").unwrap());
    assert!(mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string(), "{mirror}");

    // In a cluster the pods have to go first.
    for credentials in [&[][..], &["--kubeconfig", ADMIN]] {
        switch(machine, &[&["--yes", &cluster.driver], credentials].concat())
            .ended(3)
            .told("the kubelet's cgroup driver would change from ")
            .told("drain the node first (--drain --kubeconfig FILE)");
    }
    // A budget that lets none go: time runs out.
    machine.make_budget("web", 0);
    let why = "default/web (Cannot evict pod as it would violate the pod's disruption budget.)";
    cluster
        .drain(&["--drain-timeout", "8"])
        .ended(4)
        .told("    waiting for 1 pods, for ")
        .told(&format!(" s at most: {why}\n"))
        .told(&format!("move its pods elsewhere: not drained within 8 s: {why}"));
    assert_eq!(cluster.cordoned(), (false, false));
    assert_eq!(cluster.seen().0, DOCKERSHIM);
    cluster.is_untouched();
    // Nobody has so much as restarted them.
    for pod in [&web, &log, &mirror] {
        let now = machine.object("pod", pod["metadata"]["name"].as_str().unwrap()).unwrap();
        assert_eq!((uid(&now), &now["status"]), (uid(pod), &pod["status"]));
    }

    // What would be lost is named, as kubectl names it.
    machine.make_pod("alone", None, &Value::Null);
    let volumes = json!([{ "name": "data", "emptyDir": {} }]);
    machine.make_pod("data", Some(&cluster.replicas), &volumes);
    let kubectl = ["kubectl", "--kubeconfig", ADMIN, "drain", "node1", "--ignore-daemonsets"];
    let kubectl = Said::of(&machine.run(&kubectl)).ended(1);
    machine.kubectl(&["uncordon", "node1"]);
    for (pod, ours, theirs) in [
        ("alone", "has no controller that would make it again", "not managed by ReplicationController"),
        ("data", "has data in an emptyDir volume", "Pods with local storage"),
    ] {
        let line = kubectl.err.lines().find(|line| line.contains(theirs)).unwrap_or_default();
        assert!(line.contains(&format!("default/{pod}")), "{}", kubectl.err);
        cluster.drain(&[]).ended(3).told(&format!("default/{pod} {ours}")).told("--drain-unmanaged");
    }
    let one = cluster.drain(&["--drain-unmanaged"]).ended(3).told("default/data has data");
    assert!(!one.err.contains("default/alone"), "{}", one.err);
    let other = cluster.drain(&["--delete-emptydir-data", "--check"]).ended(3).told("default/alone has no");
    assert!(!other.err.contains("default/data"), "{}", other.err);
    assert_eq!(cluster.cordoned(), (false, false));
    cluster.is_untouched();

    // All others go; this one as soon as its budget lets it.
    let mut job = cluster.begin(&["--drain-unmanaged", "--delete-emptydir-data"]);
    wait_until(SOON, "all but one are evicted", || {
        ["alone", "data"].iter().all(|pod| machine.object("pod", pod).is_none())
    });
    assert_eq!(cluster.cordoned(), (true, true));
    assert!(!job.ended());
    assert_eq!(uid(&machine.object("pod", "web").unwrap()), uid(&web));
    cluster.is_untouched();
    machine.allow("web", 1);
    let done = Said::of(&job.wait()).ended(0);
    assert!(
        done.err.contains("pods of DaemonSets stay, and are started anew later: default/log"),
        "{}",
        done.err
    );
    assert!(machine.object("pod", "web").is_none());
    let budget = machine.object("poddisruptionbudget", "web").unwrap();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0, "it was evicted, not deleted: {budget}");
    cluster.is_moved();
    assert_eq!(cluster.cordoned(), (false, false));
    for pod in [&log, &mirror] {
        assert_eq!(uid(&machine.object("pod", pod["metadata"]["name"].as_str().unwrap()).unwrap()), uid(pod));
    }
    let again = cluster.drain(&["-o", "json"]).ended(0).json();
    assert_eq!((&again["changed"], &again["outcome"]), (&json!(false), &json!("nothing-to-do")));

    // It is Ready by the time that this ends, and was before it was uncordoned.
    let back = switch(machine, &["rollback", "--yes"]).ended(0);
    let (_, runtime, ready) = cluster.seen();
    assert!(ready && runtime.starts_with("docker://"), "{runtime}");
    let at = |words: &str| back.err.find(words).unwrap_or_else(|| panic!("{words}: {}", back.err));
    assert!(at("undo: know when the node is Ready again") < at("undo: cordon the node"));
    assert!(!back.err.contains("warning:"), "{}", back.err);
    assert_eq!(cluster.cordoned(), (false, false));
    cluster.is_back();
}

#[test]
fn nodectl_takes_the_kubelets_place_in_its_cluster() {
    let cluster = Cluster::new("ours");
    let machine = &cluster.machine;
    cluster.managed("web");
    let log = machine.object("pod", "log").unwrap();
    let done = cluster.drain(&["--agent", "nodectl"]).ended(0);
    assert!(done.err.contains("nodectl has no persistent volumes yet"), "{}", done.err);
    let (annotation, runtime, ready) = cluster.seen();
    assert_eq!((annotation.as_str(), ready), (CONTAINERD, true));
    assert!(runtime.starts_with("containerd://"), "{runtime}");
    assert_eq!(cluster.cordoned(), (false, false));
    let version = machine.node()["status"]["nodeInfo"]["kubeletVersion"].clone();
    assert!(version.as_str().unwrap().contains("nodectl"), "{version}");
    assert_eq!(machine.sure(&["systemctl", "is-active", "nodectl.service"]), "active\n");
    assert_eq!(machine.sure(&["systemctl", "is-enabled", "nodectl.service"]), "enabled\n");
    assert_eq!(machine.units()["kubelet.service"], ("inactive".to_owned(), "disabled".to_owned()));
    for pod in ["log", "web-node1"] {
        wait_until(SOON, &format!("{pod} runs"), || machine.pod_runs(pod, "containerd"));
    }
    assert_eq!(uid(&machine.object("pod", "log").unwrap()), uid(&log));
    let again = cluster.drain(&["--agent", "nodectl", "-o", "json"]).ended(0).json();
    assert_eq!(again["changed"], false);
    switch(machine, &["rollback", "--yes"]).ended(0);
    cluster.is_back();
}

#[test]
fn what_was_cut_short_is_put_back_in_the_cluster_too() {
    let cluster = Cluster::new("short");
    let machine = &cluster.machine;
    // With the rights that the kubelet has.
    let words = cluster.words(NODE, &[]);
    cluster.managed("web");
    // Behind the plan come the beginning and the end of each step: cordoned, being drained; the kubelet stopped.
    for at in [4, 9] {
        assert_eq!(struck(machine, "SIGKILL", at, &words).code, None);
        assert_eq!(cluster.cordoned(), (true, true), "at {at}");
        if at == 9 {
            // The API server begins again, too.
            machine.power_cut();
        }
        switch(machine, &["--rollback"]).ended(0);
        assert_eq!(cluster.cordoned(), (false, false), "at {at}");
        cluster.is_back();
        assert_eq!(machine.object("pod", "web").is_some(), at < 9, "evicted or not");
    }
    assert_eq!(struck(machine, "SIGKILL", 9, &words).code, None);
    switch(machine, &["--resume"]).ended(0);
    cluster.is_moved();
    assert_eq!(cluster.cordoned(), (false, false));
    // Killed when the first step of the way back is done, which makes the node as it was before its last.
    assert_eq!(struck(machine, "SIGKILL", 2, &["rollback", "--yes"]).code, None);
    assert_eq!(cluster.cordoned(), (true, true));
    switch(machine, &["--rollback"]).ended(0);
    assert_eq!(cluster.cordoned(), (false, false));
    cluster.is_back();
}

#[test]
fn a_cluster_that_cannot_be_asked_is_told_before_anything_changes() {
    let cluster = Cluster::new("asked");
    let machine = &cluster.machine;
    let refused = |kubeconfig: &str, cause: &str| {
        let begin = Instant::now();
        switch(machine, &cluster.words(kubeconfig, &[]))
            .ended(3)
            .told("the cluster cannot be asked about the node node1: ")
            .told(&format!("kubeconfig {kubeconfig}: "))
            .told(cause);
        assert!(begin.elapsed() < SOON * slow());
        cluster.is_untouched();
        assert!(!machine.outside(STATE).join("unfinished").exists());
    };
    let admin = machine.read(ADMIN);
    let user = admin.find("    client-certificate-data:").unwrap();
    let variant = |name: &str, text: &str| {
        let path = format!("/root/{name}");
        machine.put(&path, text, 0o600);
        path
    };
    refused("/root/none", "No such file or directory");
    switch(machine, &["--kubeconfig", "/root/none", "--dry-run"])
        .ended(3)
        .told("kubeconfig /root/none: cannot be read");
    refused(
        &variant("wrong", &format!("{}    token: wrong\n", &admin[..user])),
        &format!("GET /api/v1/nodes/node1: API server {SERVER} refuses: Unauthorized (401)"),
    );
    refused(
        &variant("nobody", admin[..user].trim_end().trim_end_matches("user:").trim_end()),
        "User \"system:anonymous\" cannot get resource \"nodes\"",
    );
    let other = SERVER.replace("6443", "6444");
    refused(
        &variant("dead", &admin.replace(SERVER, &other)),
        &format!("GET /api/v1/nodes/node1: API server {other} cannot be asked: "),
    );

    // Somebody else's cordon stays; certificates are where the kubeconfig says, beginning at its own folder.
    machine.kubectl(&["cordon", "node1"]);
    let line = |key: &str| admin.lines().find(|line| line.trim().starts_with(key)).unwrap().to_owned();
    let relative = ["certificate-authority", "client-certificate", "client-key"]
        .into_iter()
        .zip(["pki/ca.crt", "pki/admin.crt", "pki/admin.key"])
        .fold(admin.clone(), |text, (key, path)| {
            text.replace(&line(&format!("{key}-data:")), &format!("    {key}: ../etc/kubernetes/{path}"))
        });
    assert!(!relative.contains("-data:"), "{relative}");
    variant("relative", &relative);
    let here =
        format!("cd /root && exec nodectl switch-runtime {}", cluster.words("relative", &[]).join(" "));
    Said::of(&machine.run(&["sh", "-c", &here])).ended(0);
    cluster.is_moved();
    assert_eq!(cluster.cordoned(), (true, false));
    Said::of(&machine.run(&["sh", "-c", "cd / && exec nodectl switch-runtime rollback --yes"])).ended(0);
    cluster.is_back();
    assert_eq!(cluster.cordoned(), (true, false));
}

#[test]
fn what_the_cluster_does_not_let_or_see_is_told() {
    let cluster = Cluster::new("faults");
    let machine = &cluster.machine;
    // Another node's credentials: they may read everything, and change this node in nothing.
    let script = "cd /root; pki=/etc/kubernetes/pki; openssl genrsa -out other.key 2048 2>/dev/null
        openssl req -new -key other.key -subj /O=system:nodes/CN=system:node:node2 -out other.csr
        echo extendedKeyUsage=clientAuth >other.ext
        openssl x509 -req -in other.csr -CA $pki/ca.crt -CAkey $pki/ca.key -set_serial 77 -days 2 -extfile other.ext -out other.crt 2>/dev/null
        sed -e 's|client-certificate-data:.*|client-certificate: other.crt|' -e 's|client-key-data:.*|client-key: other.key|' \
            /etc/kubernetes/admin.conf >other.conf";
    machine.sure(&["sh", "-ec", script]);
    let other = cluster.words("/root/other.conf", &[]);
    let refused = "node \"node2\" is not allowed to modify node \"node1\"";
    switch(machine, &other).ended(4).told("cordon the node node1: ").told(refused);
    assert_eq!(cluster.cordoned(), (false, false));
    cluster.is_back();

    // The credentials are taken away before the last step.
    let lent = ["--kubeconfig", "/root/lent.conf", "--drain", "--yes"];
    machine.sure(&["cp", ADMIN, "/root/lent.conf"]);
    let plan = switch(machine, &[&lent[..], &["--dry-run", "-o", "json"]].concat()).ended(0).json();
    let last =
        plan["steps"].as_array().unwrap().iter().position(|step| step["action"] == "uncordon").unwrap();
    assert_eq!(struck(machine, "SIGKILL", 2 + 2 * last, &lent).code, None);
    machine.sure(&["cp", "/root/other.conf", "/root/lent.conf"]);
    let stuck = switch(machine, &["--resume"]).ended(5).told("uncordon the node node1: ").told(refused);
    stuck.told("putting everything back failed");
    assert_eq!(cluster.cordoned(), (true, true));
    machine.sure(&["cp", ADMIN, "/root/lent.conf"]);
    switch(machine, &["--rollback"]).ended(0);
    assert_eq!(cluster.cordoned(), (false, false));
    cluster.is_back();

    // The kubelet goes on as it was begun, and when it is started anew it does not find the API server.
    let dead = SERVER.replace("6443", "6444");
    let right = machine.read(NODE);
    machine.put(NODE, &right.replace(SERVER, &dead), 0o600);
    let words = ["--kubeconfig", "/root/other.conf", "--cgroup-driver=cgroupfs", "--yes"];
    assert_eq!(struck(machine, "SIGKILL", 2, &words).code, None);
    for action in ["verify-node", "node-ready-when-undone"] {
        hurry(machine, action);
    }
    let failed = switch(machine, &["--resume"]).ended(4);
    // That the annotation cannot be written is told, and no reason to go back; that the node is not Ready is one.
    let failed =
        failed.told("warning: name the runtime in the node's annotation for kubeadm: ").told(refused);
    let failed = failed.told("wait until the node is Ready: node node1 is not Ready within 10 s: ");
    failed.told("warning: everything is put back, and node node1 is not Ready within 10 s: ");
    assert_eq!(cluster.seen().0, DOCKERSHIM);
    assert_eq!(
        differences(&cluster.files, &machine.files()),
        [format!("{NODE}: content"), format!("{NODE}: mtime")]
    );
    machine.put(NODE, &right, 0o600);
    machine.sure(&["systemctl", "restart", "kubelet.service"]);
    wait_until(SOON, "the node is Ready on Docker", || cluster.seen().2 && machine.pod_serves());
}
