//! What containers may do: users, groups, capabilities, profiles, kernel settings, user namespaces.
//!
//! This machine enforces neither AppArmor nor SELinux: what is asked of the runtime for them is tested on
//! the request (`policy::container_config`), and here that AppArmor is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::support::{Node, Process, Release, SOON, STAY, View, container, pod, pod_of, wait_until};

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const CHOWN: u64 = 1;

fn node(name: &str, release: Release) -> Node {
    let builder = Node::builder(name).config("allowedUnsafeSysctls: [net.core.somaxconn, 'kernel.msg*']\n");
    match release {
        Release::Machine => builder.start(),
        Release::Two => builder.containerd2().start(),
    }
}

/// The words behind a key of `/proc/PID/status`.
#[track_caller]
fn status(process: Process, key: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).split_whitespace().map(str::to_owned).collect()
}

#[track_caller]
fn bits(process: Process, key: &str) -> u64 {
    u64::from_str_radix(&status(process, key)[0], 16).unwrap()
}

#[track_caller]
fn assert_user(process: Process, uid: &str, gid: &str, group: Option<&str>) {
    assert_eq!(status(process, "Uid"), [uid; 4]);
    assert_eq!(status(process, "Gid"), [gid; 4]);
    let groups = status(process, "Groups");
    assert!(group.is_none_or(|group| groups.iter().any(|g| g == group)), "{groups:?}");
}

/// Whether something is mounted over a path of the container.
fn covered(process: Process, path: &str) -> bool {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", process.0)).unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

fn secured(name: &str, security: &Value) -> Value {
    let mut container = container(name, STAY);
    container["securityContext"] = security.clone();
    container
}

fn with_security(name: &str, security: &Value, containers: &[Value]) -> Value {
    let mut pod = pod_of(name, containers);
    pod["spec"]["securityContext"] = security.clone();
    pod
}

/// The message of the pod's last error, once it names `words`, and that nothing was made of the pod.
#[track_caller]
fn refused(node: &Node, pod: &str, words: &[&str]) {
    let view = node.wait_view(pod, "listed", |_| true);
    let mut last = String::new();
    wait_until(SOON, &format!("{pod} refused with {words:?}"), || {
        last = node.explain(pod)["progress"]["lastError"]["message"].as_str().unwrap_or_default().to_owned();
        words.iter().all(|word| last.contains(word))
    });
    assert!(node.containerd.sandboxes_of(view.uid()).is_empty(), "{pod} has a sandbox");
}

fn everything(name: &str, release: Release) {
    let mut node = node(name, release);
    let before = node.leaks();
    let profiles = node.root_dir().join("seccomp/test");
    fs::create_dir_all(&profiles).unwrap();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    });
    fs::write(profiles.join("no-mkdir.json"), profile.to_string()).unwrap();
    let pods = [users(), powers(), privileged(), settings(), unprivileged()];
    pods.iter().for_each(|pod| node.put(pod));
    for pod in refused_pods() {
        node.put(&pod);
    }
    users_are(&node);
    powers_are(&node);
    privileges_are(&node);
    settings_are(&node);
    non_root_is_kept(&node);
    refusals_are_told(&node);
    newer_features(&node, release);
    an_agent_with_another_default_restarts_nothing(&mut node);

    for file in fs::read_dir(node.manifests()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

fn users() -> Value {
    let mut over = secured("over", &json!({"runAsUser": 0, "runAsGroup": 7}));
    over["image"] = json!("localhost/nodectl/busybox:user-numeric");
    with_security(
        "users",
        &json!({"runAsUser": 1234, "runAsGroup": 2345, "supplementalGroups": [3456]}),
        &[container("inherits", STAY), secured("own", &json!({"runAsUser": 5000})), over],
    )
}

fn users_are(node: &Node) {
    let view = node.wait_ready("users");
    assert_user(node.process(&view, "inherits"), "1234", "2345", Some("3456"));
    assert_user(node.process(&view, "own"), "5000", "2345", Some("3456"));
    assert_user(node.process(&view, "over"), "0", "7", Some("3456"));
}

fn powers() -> Value {
    let mut local = container("local", &format!("mkdir /made; {STAY}"));
    local["securityContext"] =
        json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "test/no-mkdir.json"}});
    let mut made = container("made", &format!("mkdir /made; {STAY}"));
    made["securityContext"] = json!({"seccompProfile": {"type": "Unconfined"}});
    with_security(
        "powers",
        &json!({"seccompProfile": {"type": "RuntimeDefault"}}),
        &[
            secured("none", &json!({"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false})),
            secured(
                "some",
                &json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE"]}}),
            ),
            secured("less", &json!({"capabilities": {"drop": ["CAP_CHOWN"]}})),
            secured("frozen", &json!({"readOnlyRootFilesystem": true})),
            local,
            made,
        ],
    )
}

fn powers_are(node: &Node) {
    let view = node.wait_ready("powers");
    let process = |name: &str| node.process(&view, name);
    let none = process("none");
    assert_eq!((bits(none, "CapEff"), bits(none, "CapBnd")), (0, 0));
    assert_eq!(status(none, "NoNewPrivs"), ["1"]);
    assert_eq!(status(none, "Seccomp"), ["2"], "of the pod");
    let some = process("some");
    assert_eq!(bits(some, "CapEff"), NET_ADMIN | NET_BIND_SERVICE);
    assert_eq!(bits(some, "CapBnd"), NET_ADMIN | NET_BIND_SERVICE);
    assert_eq!(status(some, "NoNewPrivs"), ["0"]);
    let less = process("less");
    assert_eq!(bits(less, "CapBnd") & CHOWN, 0, "also by a name with CAP_ before it");
    assert_ne!(bits(less, "CapBnd") & NET_BIND_SERVICE, 0);
    assert!(process("frozen").is_read_only("/") && !less.is_read_only("/"));
    for path in ["/proc/interrupts", "/proc/sys"] {
        assert!(covered(less, path), "{path}");
    }
    let (local, made) = (process("local"), process("made"));
    wait_until(SOON, "the folder made", || made.path("/made").exists());
    assert_eq!(status(made, "Seccomp"), ["0"], "its own over the pod's");
    assert_eq!(status(local, "Seccomp"), ["2"]);
    // It has got past its mkdir when its shell waits for a child.
    wait_until(SOON, "a child of local", || {
        let children = format!("/proc/{0}/task/{0}/children", local.0);
        !fs::read_to_string(children).unwrap().trim().is_empty()
    });
    assert!(!local.path("/made").exists());
}

fn privileged() -> Value {
    pod_of("mighty", &[secured("mighty", &json!({"privileged": true})), container("plain", STAY)])
}

fn privileges_are(node: &Node) {
    let view = node.wait_ready("mighty");
    let (mighty, plain) = (node.process(&view, "mighty"), node.process(&view, "plain"));
    let own = bits(Process(std::process::id().cast_signed()), "CapBnd");
    assert_eq!((bits(mighty, "CapBnd"), bits(mighty, "CapEff")), (own, own));
    assert_ne!(bits(plain, "CapBnd"), own);
    assert_eq!(status(mighty, "Seccomp"), ["0"]);
    // Nothing is set for it: unconfined, as no seccompDefault is configured.
    assert_eq!(status(plain, "Seccomp"), ["0"]);
    assert_eq!(status(plain, "Uid"), ["0"; 4]);
    assert!(!covered(mighty, "/proc/interrupts") && covered(plain, "/proc/interrupts"));
    assert!(mighty.path("/dev/kmsg").exists() && !plain.path("/dev/kmsg").exists(), "the host's devices");
    let sysfs = |process: Process| process.is_read_only("/sys");
    assert!(!sysfs(mighty) && sysfs(plain));
}

const SETTINGS: [(&str, &str); 4] = [
    ("kernel.shm_rmid_forced", "1"),
    ("net.ipv4.ip_local_port_range", "2000 3000"),
    ("net.core.somaxconn", "321"),
    ("kernel/msgmax", "16384"),
];

fn settings() -> Value {
    // The files show the namespace of who reads them.
    let files = SETTINGS.map(|(name, _)| format!("/proc/sys/{}", name.replace('.', "/"))).join(" ");
    let sysctls: Vec<Value> =
        SETTINGS.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let shows = container("main", &format!("cat {files} > /seen.tmp; mv /seen.tmp /seen; {STAY}"));
    with_security("settings", &json!({"sysctls": sysctls}), &[shows])
}

fn settings_are(node: &Node) {
    let host = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let view = node.wait_ready("settings");
    let process = node.process(&view, "main");
    wait_until(SOON, "the settings shown", || process.path("/seen").exists());
    let seen = process.read("/seen");
    let seen: Vec<String> =
        seen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(seen, SETTINGS.map(|(_, value)| value));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), host);
}

fn unprivileged() -> Value {
    let image = |name: &str, tag: &str, security: Value| {
        let mut container = secured(name, &security);
        container["image"] = json!(format!("localhost/nodectl/busybox:{tag}"));
        container
    };
    with_security(
        "nonroot",
        &json!({"runAsNonRoot": true}),
        &[
            image("root", "1", json!({})),
            image("named", "user-named", json!({})),
            image("zero", "user-numeric", json!({"runAsUser": 0})),
            image("numeric", "user-numeric", json!({})),
            image("chosen", "1", json!({"runAsUser": 77})),
            image("allowed", "user-named", json!({"runAsNonRoot": false})),
        ],
    )
}

fn non_root_is_kept(node: &Node) {
    for (name, why) in [
        ("root", "container has runAsNonRoot and image will run as root"),
        ("named", "image has non-numeric user (app), cannot verify user is non-root"),
        ("zero", "container's runAsUser breaks non-root policy"),
    ] {
        let view = node.wait_view("nonroot", name, |v| v.waiting(name) == "CreateContainerConfigError");
        let message = view.container(name)["state"]["waiting"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(why), "{message}");
        assert!(node.containerd.containers_of(view.uid(), name).is_empty(), "{name} was made");
    }
    let view =
        node.wait_view("nonroot", "running", |v| ["numeric", "chosen", "allowed"].iter().all(|c| v.runs(c)));
    assert_eq!(status(node.process(&view, "numeric"), "Uid"), ["1000"; 4]);
    assert_eq!(status(node.process(&view, "chosen"), "Uid"), ["77"; 4]);
    assert_eq!(status(node.process(&view, "allowed"), "Uid"), ["1000"; 4], "the image's, by its name");
}

fn refused_pods() -> Vec<Value> {
    let sysctl = |name: &str| json!({"sysctls": [{"name": name, "value": "1"}]});
    let stay = [container("main", STAY)];
    let forbidden = with_security("forbidden", &sysctl("kernel.sem"), &stay);
    let mut of_host = with_security("ofhost", &sysctl("net.core.somaxconn"), &stay);
    of_host["spec"]["hostNetwork"] = json!(true);
    let armored = with_security("armored", &json!({"appArmorProfile": {"type": "RuntimeDefault"}}), &stay);
    vec![forbidden, of_host, armored]
}

fn refusals_are_told(node: &Node) {
    let failed = |pod: &str, reason: &str, words: &str| {
        let view = node.wait_view(pod, "Failed", |view| view.phase() == "Failed");
        assert_eq!(view.0["status"]["reason"], reason);
        let message = view.0["status"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert!(node.containerd.sandboxes_of(view.uid()).is_empty(), "{pod} has a sandbox");
    };
    failed("forbidden", "SysctlForbidden", "\"kernel.sem\" not allowlisted");
    failed("ofhost", "SysctlForbidden", "\"net.core.somaxconn\" not allowed with host net enabled");
    if Path::new("/sys/kernel/security/apparmor").exists() {
        node.wait_ready("armored");
    } else {
        failed("armored", "AppArmor", "AppArmor is not enabled on the host");
    }
    // Of a manifest that no API server would take, all problems are told.
    let mut wrong = pod("wrong", STAY);
    wrong["spec"]["containers"][0]["securityContext"] =
        json!({"procMount": "Unmasked", "privileged": true, "allowPrivilegeEscalation": false});
    node.put(&wrong);
    node.wait_problem(&["procMount", "`hostUsers` must be false"]);
    node.take_away("wrong");
}

/// What runtimes of before containerd 2 ignore is not asked of them.
fn newer_features(node: &Node, release: Release) {
    let strict = json!({
        "runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [5555], "supplementalGroupsPolicy": "Strict"
    });
    node.put(&with_security("strict", &strict, &[container("main", STAY)]));
    if release == Release::Machine {
        refused(node, "strict", &["supplementalGroupsPolicy", "containerd 1.", "2.0"]);
        let mut apart = pod("apart", STAY);
        apart["spec"]["hostUsers"] = json!(false);
        node.put(&apart);
        refused(node, "apart", &["spec.hostUsers", "containerd 1.", "2.0"]);
        node.take_away("apart");
        node.wait_gone("apart");
    } else {
        let view = node.wait_ready("strict");
        let mut groups = status(node.process(&view, "main"), "Groups");
        groups.retain(|group| group != "1000");
        assert_eq!(groups, ["5555"]);
    }
    node.take_away("strict");
    node.wait_gone("strict");
}

fn an_agent_with_another_default_restarts_nothing(node: &mut Node) {
    let pods = ["users", "powers", "mighty", "settings"];
    let ids = |node: &Node| -> Vec<(String, Value)> {
        let views: Vec<View> = pods.iter().map(|pod| node.wait_ready(pod)).collect();
        views
            .iter()
            .flat_map(|view| view.0["status"]["containerStatuses"].as_array().unwrap().clone())
            .map(|status| {
                (status["containerID"].as_str().unwrap().to_owned(), status["restartCount"].clone())
            })
            .collect()
    };
    let were = ids(node);
    node.kill9();
    node.add_config("seccompDefault: true\n");
    node.start_agent();
    node.put(&pod("later", STAY));
    let view = node.wait_ready("later");
    assert_eq!(status(node.process(&view, "main"), "Seccomp"), ["2"]);
    assert_eq!(ids(node), were);
}

#[test]
fn security_on_the_machines_containerd() {
    everything("se1", Release::Machine);
}

#[test]
fn security_on_containerd_2() {
    everything("se2", Release::Two);
}
