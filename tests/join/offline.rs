//! Pods without their server (`--offline-pods`): what is kept, what starts from it after a reboot, and what the server
//! says when it is back.
//!
//! A reboot is what it leaves: the agent killed, no sandbox and no container in the runtime, nothing mounted.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use nix::mount::{MntFlags, umount2};
use nodectl::{
    agent::cluster::offline::{contact, folder},
    policy::offline::Moment,
};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, Node, SOON, STAY, View, container, files_on_disk_with, pod, pod_of, wait_for, wait_until,
};

/// What must not be found anywhere.
const PASSWORD: &str = "correct-horse-battery-staple";
/// A condition that only the agent shows.
const OFFLINE: &str = "nodectl.dev/Offline";

fn config_map(cluster: &ControlPlane, name: &str, data: &Value) {
    cluster.create::<ConfigMap>(&json!({ "metadata": { "name": name }, "data": data }));
}

fn secret(cluster: &ControlPlane, name: &str, data: &Value) {
    cluster.create::<Secret>(&json!({ "metadata": { "name": name }, "stringData": data }));
}

/// A pod that has a ConfigMap and a Secret of its name, as variable and as files, and is ready by the latter.
fn configured(cluster: &ControlPlane, name: &str) -> Value {
    config_map(cluster, name, &json!({ "colour": "blue" }));
    secret(cluster, name, &json!({ "password": PASSWORD }));
    let mut main = container("main", STAY);
    main["env"] = json!([
        { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": name, "key": "colour" } } },
        { "name": "NONE", "valueFrom": { "configMapKeyRef": { "name": "none", "key": "k", "optional": true } } },
        { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": name, "key": "password" } } },
    ]);
    main["volumeMounts"] =
        json!([{ "name": "map", "mountPath": "/map" }, { "name": "secret", "mountPath": "/secret" }]);
    main["readinessProbe"] = json!({
        "exec": { "command": ["test", "-s", "/secret/password"] }, "periodSeconds": 1,
    });
    let mut pod = pod_of(name, &[main]);
    pod["spec"]["volumes"] = json!([
        { "name": "map", "configMap": { "name": name } },
        { "name": "secret", "secret": { "secretName": name } },
    ]);
    pod
}

/// The files that are kept of a kind, without those that were set aside.
fn kept(node: &Node, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(&node.root_dir()).join(kind)).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ckpt"));
    files.sort();
    files
}

#[track_caller]
fn wait_kept(node: &Node, counts: [(&str, usize); 3]) {
    wait_until(SOON, &format!("kept are {counts:?}"), || {
        counts.iter().all(|(kind, count)| kept(node, kind).len() == *count)
            && kept(node, "contact").len() == 1
            // What each was given of services.
            && kept(node, "listed").len() == kept(node, "pods").len()
    });
}

/// The words are in no file of the agent's, but for those in memory, nor in base64, nor in what it said.
#[track_caller]
fn nothing_told(node: &Node, words: &str) {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let encoded = BASE64_STANDARD.encode(words);
    for words in [words, encoded.as_str()] {
        for folder in [node.root_dir(), node.pod_logs()] {
            assert_eq!(files_on_disk_with(&folder, words), Vec::<PathBuf>::new());
        }
        assert!(!node.agent_log().contains(words));
    }
}

/// The machine goes down: of the agent, the runtime's state and what is mounted nothing is left.
#[track_caller]
fn power_off(node: &mut Node) {
    node.kill9();
    let ids = node.containerd.ctr(&["containers", "ls", "-q", r#"labels."io.cri-containerd.kind"==sandbox"#]);
    for id in ids.lines().map(str::trim).filter(|id| !id.is_empty()) {
        node.cri("StopPodSandbox", id);
        node.cri("RemovePodSandbox", id);
    }
    let root = format!("{}/", node.root_dir().display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(&root));
    for at in below.collect::<Vec<_>>().into_iter().rev() {
        umount2(at, MntFlags::MNT_DETACH).unwrap();
    }
    assert_eq!(node.containerd.ctr(&["containers", "ls", "-q"]).trim(), "");
}

/// Has the agent believe that it last heard the server so long ago, before a boot.
fn last_heard(node: &Node, seconds_ago: i64) {
    let last = Moment {
        at: Timestamp::now().checked_sub(SignedDuration::from_secs(seconds_ago)).unwrap(),
        boot: "the boot before".to_owned(),
        since_boot: std::time::Duration::from_secs(1),
    };
    contact(&folder(&node.root_dir())).unwrap().save(&last).unwrap();
}

#[track_caller]
fn wait_offline_ready(node: &Node, pod: &str) -> View {
    node.wait_view(pod, "ready and offline", |view| view.condition("Ready") && view.condition(OFFLINE))
}

/// Waits until the server has heard that the pod is ready with this container.
#[track_caller]
fn wait_told(cluster: &ControlPlane, pod: &str, id: &str) {
    wait_for(SOON, &format!("the server is told of container {id}"), || {
        let status = cluster.pod(pod)?.status?;
        let of_main = status.container_statuses?.into_iter().next()?;
        (of_main.ready && of_main.container_id?.ends_with(id)).then_some(())
    });
}

#[test]
fn after_a_reboot_without_the_server_pods_run_as_last_known() {
    let cluster = ControlPlane::start();
    let mut node =
        Node::builder("jf-boot").joined(&cluster).argument("--offline-pods").argument("-v=6").start();
    cluster.bind("jf-boot", &configured(&cluster, "jf-boot"));
    let mut with_token = pod("jf-token", STAY);
    with_token["spec"]["volumes"] = json!([
        { "name": "access", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } },
    ]);
    with_token["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "access", "mountPath": "/access" }]);
    cluster.bind("jf-boot", &with_token);
    cluster.wait_ready("jf-boot");
    cluster.wait_ready("jf-token");
    // Also that one ConfigMap is not there.
    wait_kept(&node, [("pods", 2), ("configmaps", 2), ("secrets", 1)]);
    wait_until(SOON, "the token is kept", || kept(&node, "tokens").len() == 1);
    let token_of = |node: &Node| {
        let process = node.process(&node.view("jf-token").unwrap(), "main");
        process.read("/access/token")
    };
    let token = token_of(&node);
    let before = node.view("jf-boot").unwrap();
    nothing_told(&node, PASSWORD);
    nothing_told(&node, &token);
    let mode = fs::metadata(folder(&node.root_dir())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    cluster.kill("kube-apiserver");
    power_off(&mut node);
    node.start_agent();
    let view = wait_offline_ready(&node, "jf-boot");
    assert_ne!(view.id("main"), before.id("main"));
    let process = node.process(&view, "main");
    assert_eq!(process.variable("COLOUR").as_deref(), Some("blue"));
    assert_eq!(process.variable("PASSWORD").as_deref(), Some(PASSWORD));
    // Without which no client finds the server, once it is back.
    assert!(process.variable("KUBERNETES_SERVICE_HOST").is_some());
    assert_eq!(
        (process.read("/map/colour"), process.read("/secret/password")),
        ("blue".into(), PASSWORD.into())
    );
    wait_offline_ready(&node, "jf-token");
    assert_eq!(token_of(&node), token);
    // It says so.
    assert!(node.agent_log().contains("offline: the API server is not reached"));
    let (code, health) = node.healthz("/healthz?verbose").unwrap();
    assert_eq!(code, 200);
    assert!(health.contains("offline: 2 pods as last known"), "{health}");
    let listed = node.run_cli(&["pods"]);
    let errors = String::from_utf8(listed.stderr).unwrap();
    assert!(errors.contains("offline: the API server is not heard; 2 pods are as last known"), "{errors}");
    // What ends is started again.
    process.kill();
    let again = node
        .wait_view("jf-boot", "started again", |view| view.condition("Ready") && view.restarts("main") == 1);
    nothing_told(&node, PASSWORD);
    nothing_told(&node, &token);

    cluster.resume();
    wait_told(&cluster, "jf-boot", &again.id("main"));
    let after = node.wait_view("jf-boot", "not offline", |view| !view.condition(OFFLINE));
    assert_eq!((after.id("main"), after.restarts("main")), (again.id("main"), 1));
    assert!(
        cluster
            .pod("jf-boot")
            .unwrap()
            .status
            .unwrap()
            .conditions
            .unwrap()
            .iter()
            .all(|c| c.type_ != OFFLINE)
    );
    // What changes is followed and kept again, and goes with its pod.
    let patch = kube::api::Patch::Merge(json!({ "data": { "colour": "red" } }));
    let maps = cluster.api::<ConfigMap>();
    cluster.block_on(maps.patch("jf-boot", &kube::api::PatchParams::default(), &patch)).unwrap();
    let process = node.process(&after, "main");
    wait_until(SOON, "the change is in the volume", || process.read("/map/colour") == "red");
    cluster.delete_pod("jf-boot", None);
    cluster.wait_gone("jf-boot");
    wait_kept(&node, [("pods", 1), ("configmaps", 0), ("secrets", 0)]);
    cluster.delete_pod("jf-token", None);
    cluster.wait_gone("jf-token");
    wait_kept(&node, [("pods", 0), ("configmaps", 0), ("secrets", 0)]);
    assert_eq!(kept(&node, "tokens").len(), 0);
}

#[test]
fn a_pod_whose_toleration_has_run_out_is_not_started_unless_always_is_said() {
    let cluster = ControlPlane::start();
    let mut node = Node::builder("jf-tol").joined(&cluster).argument("--offline-pods=tolerated").start();
    // The server gives it 300 s.
    cluster.bind("jf-tol", &pod("jf-bounded", STAY));
    let mut forever = pod("jf-forever", STAY);
    forever["spec"]["tolerations"] =
        json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute" }]);
    cluster.bind("jf-tol", &forever);
    node.put(&pod("static", STAY));
    for name in ["jf-bounded", "jf-forever", "static"] {
        node.wait_ready(name);
    }
    wait_kept(&node, [("pods", 2), ("configmaps", 0), ("secrets", 0)]);
    let bounded = node.view("jf-bounded").unwrap();

    cluster.kill("kube-apiserver");
    // The agent alone: what runs is taken on, for however long the server was not heard.
    node.kill9();
    last_heard(&node, 400);
    node.start_agent();
    let view = wait_offline_ready(&node, "jf-bounded");
    assert_eq!(view.id("main"), bounded.id("main"));

    // The machine.
    power_off(&mut node);
    last_heard(&node, 400);
    node.start_agent();
    wait_offline_ready(&node, "jf-forever");
    node.wait_ready("static");
    assert!(!node.view("static").unwrap().condition(OFFLINE));
    let held = wait_for(SOON, "the other is held", || {
        node.view("jf-bounded")?;
        let progress = node.explain("jf-bounded")["progress"].clone();
        (progress["step"] == "waiting-for-server").then_some(progress)
    });
    let why = held["detail"].as_str().unwrap();
    assert!(why.contains("tolerates node.kubernetes.io/unreachable for 300 s"), "{why}");
    assert!(node.containerd.sandboxes_of(bounded.uid()).is_empty());
    assert!(node.agent_log().contains("not started while offline"));

    // A clock before the last contact is wrong.
    power_off(&mut node);
    last_heard(&node, -3600);
    node.start_agent();
    wait_offline_ready(&node, "jf-forever");
    wait_for(SOON, "held for the clock", || {
        node.view("jf-bounded")?;
        let why = node.explain("jf-bounded")["progress"]["detail"].clone();
        why.as_str()?.contains("the clock stands before").then_some(())
    });

    // As it is asked for.
    power_off(&mut node);
    let kubeconfig = format!("--kubeconfig={}", cluster.node_kubeconfig("jf-tol").display());
    node.set_arguments(&[&kubeconfig, "--offline-pods=always"]);
    node.start_agent();
    let view = wait_offline_ready(&node, "jf-bounded");
    cluster.resume();
    wait_told(&cluster, "jf-bounded", &view.id("main"));
    assert_eq!(node.view("jf-bounded").unwrap().id("main"), view.id("main"));
}

#[test]
fn what_the_server_deleted_meanwhile_ends_and_is_erased_and_without_the_flag_nothing_is_kept() {
    let cluster = ControlPlane::start();
    // Without systemd-creds: the key is a file.
    let mut node = Node::builder("jf-gone")
        .joined(&cluster)
        .argument("--offline-pods")
        .env("PATH", "/nonexistent")
        .start();
    cluster.bind("jf-gone", &configured(&cluster, "jf-gone"));
    cluster.bind("jf-gone", &configured(&cluster, "jf-stays"));
    cluster.wait_ready("jf-gone");
    cluster.wait_ready("jf-stays");
    wait_kept(&node, [("pods", 2), ("configmaps", 3), ("secrets", 2)]);
    assert!(node.agent_log().contains("under a key that is a file on the same disk"));
    let key = kept(&node, "key").remove(0);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    nothing_told(&node, PASSWORD);
    let (gone, stays) = (node.view("jf-gone").unwrap(), node.view("jf-stays").unwrap());

    node.kill9();
    cluster.delete_pod("jf-gone", Some(0));
    cluster.wait_gone("jf-gone");
    cluster.kill("kube-apiserver");
    node.start_agent();
    // Nobody knows it yet: it is taken on as it was.
    let view = wait_offline_ready(&node, "jf-gone");
    assert_eq!(view.id("main"), gone.id("main"));
    cluster.resume();
    node.wait_gone("jf-gone");
    wait_kept(&node, [("pods", 1), ("configmaps", 2), ("secrets", 1)]);
    assert!(node.containerd.containers_of(gone.uid(), "main").is_empty());
    wait_told(&cluster, "jf-stays", &stays.id("main"));

    node.kill9();
    let kubeconfig = format!("--kubeconfig={}", cluster.node_kubeconfig("jf-gone").display());
    node.set_arguments(&[&kubeconfig]);
    node.start_agent();
    assert!(!folder(&node.root_dir()).exists());
    assert!(node.agent_log().contains("what an earlier agent kept for offline is erased"));
    cluster.bind("jf-gone", &configured(&cluster, "jf-new"));
    cluster.wait_ready("jf-new");
    assert!(!folder(&node.root_dir()).exists());
    assert_eq!(node.view("jf-stays").unwrap().id("main"), stays.id("main"));
}

#[test]
fn files_that_are_not_as_they_were_written_are_set_aside_and_the_others_run() {
    let cluster = ControlPlane::start();
    let mut node = Node::builder("jf-torn").joined(&cluster).argument("--offline-pods").start();
    let mut uids = Vec::new();
    for name in ["jf-torn", "jf-flipped", "jf-well"] {
        let made = cluster.bind("jf-torn", &configured(&cluster, name));
        uids.push(made.metadata.uid.unwrap());
        cluster.wait_ready(name);
    }
    wait_kept(&node, [("pods", 3), ("configmaps", 4), ("secrets", 3)]);
    cluster.kill("kube-apiserver");
    power_off(&mut node);
    let kept_in = |kind: &str| folder(&node.root_dir()).join(kind);
    // Torn.
    let torn = kept_in("pods").join(format!("{}.ckpt", uids[0]));
    let text = fs::read(&torn).unwrap();
    fs::write(&torn, &text[..text.len() / 2]).unwrap();
    // One that was never ours, and one of another's name.
    fs::write(kept_in("pods").join("foreign.ckpt"), "apiVersion: v1\nkind: Pod\n").unwrap();
    let moved = kept_in("pods").join("00000000-0000-0000-0000-000000000000.ckpt");
    fs::copy(kept_in("pods").join(format!("{}.ckpt", uids[2])), &moved).unwrap();
    // A bit.
    let of_flipped = kept(&node, "secrets")
        .into_iter()
        .find(|path| fs::read_to_string(path).unwrap().contains("Secret default/jf-flipped"))
        .unwrap();
    let mut text = fs::read(&of_flipped).unwrap();
    let place = text.len() - 20;
    text[place] ^= 1;
    fs::write(&of_flipped, text).unwrap();

    node.start_agent();
    wait_offline_ready(&node, "jf-well");
    let why = wait_for(SOON, "the one without its Secret says so", || {
        let waiting = node.view("jf-flipped")?.container("main")["state"]["waiting"]["message"].clone();
        waiting.as_str().filter(|why| why.contains("secret \"jf-flipped\"")).map(str::to_owned)
    });
    assert!(!why.contains("not found"), "{why}");
    assert!(node.view("jf-torn").is_none());
    let aside = |kind: &str| {
        let entries = fs::read_dir(folder(&node.root_dir()).join(kind)).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains(".ckpt.corrupt-")).count()
    };
    assert_eq!((aside("pods"), aside("secrets")), (3, 1));
    let log = node.agent_log();
    assert_eq!(log.matches("what was kept for offline cannot be used").count(), 4, "{log}");

    cluster.resume();
    for name in ["jf-torn", "jf-flipped", "jf-well"] {
        let view = node.wait_view(name, "ready", |view| view.condition("Ready") && !view.condition(OFFLINE));
        wait_told(&cluster, name, &view.id("main"));
    }
    wait_kept(&node, [("pods", 3), ("configmaps", 4), ("secrets", 3)]);
}
