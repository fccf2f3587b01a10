//! Volumes and mounts. What concerns the host is in `volumes_host`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use super::support::{IMAGE, Node, Process, Release, STAY, View, container, pod_of, wait_for, wait_until};

/// Crashed containers come back soon.
const FAST: &str =
    "featureGates: {KubeletCrashLoopBackOffMax: true}\ncrashLoopBackOff: {maxContainerRestartPeriod: 1s}\n";

fn node(name: &str, release: Release) -> Node {
    let builder = Node::builder(name).config(FAST);
    match release {
        Release::Machine => builder.start(),
        Release::Two => builder.containerd2().start(),
    }
}

/// A mount as a process sees it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// What of its file system is mounted.
    root: String,
    fs_type: String,
    pub(super) super_options: String,
}

/// The mounts of a process by where they are; of several at a place, the last.
pub(super) fn mounts(process: Process) -> BTreeMap<String, Seen> {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", process.0)).unwrap();
    let seen = |line: &str| {
        let (left, right) = line.split_once(" - ").unwrap();
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let seen = Seen {
            root: left[3].to_owned(),
            fs_type: right[0].to_owned(),
            super_options: right[2].to_owned(),
        };
        (left[4].to_owned(), seen)
    };
    table.lines().map(seen).collect()
}

fn empty_dir(node: &Node, view: &View, volume: &str) -> PathBuf {
    node.root_dir().join(format!("pods/{}/volumes/kubernetes.io~empty-dir/{volume}", view.uid()))
}

/// Mode and group of a path as a process sees it.
pub(super) fn mode_and_group(process: Process, path: &str) -> (u32, u32) {
    let metadata = fs::metadata(process.path(path)).unwrap();
    (metadata.mode() & 0o7777, metadata.gid())
}

pub(super) fn mounting(name: &str, mounts: &Value) -> Value {
    let mut made = container(name, STAY);
    made["volumeMounts"] = mounts.clone();
    made
}

fn last_error(node: &Node, pod: &str) -> String {
    let told = node.view(pod).map(|_| node.explain(pod));
    let message = told.and_then(|told| told["progress"]["lastError"]["message"].as_str().map(str::to_owned));
    message.unwrap_or_default()
}

#[track_caller]
pub(super) fn wait_error(node: &Node, pod: &str, words: &[&str]) {
    let what = format!("an error of pod {pod} with {words:?}");
    wait_until(super::support::SOON, &what, || {
        let error = last_error(node, pod);
        words.iter().all(|word| error.contains(word))
    });
}

fn every_kind(node: &Node, host: &Path) -> Value {
    let mut main = mounting(
        "main",
        &json!([
            {"name": "disk", "mountPath": "/disk"},
            {"name": "memory", "mountPath": "/memory"},
            {"name": "huge", "mountPath": "huge"},
            {"name": "disk", "mountPath": "/part", "subPath": "a/b"},
            {"name": "memory", "mountPath": "/expanded", "subPathExpr": "logs/$(WHO)", "readOnly": true},
            {"name": "host", "mountPath": "/etc/of-host", "subPath": "current/page"},
        ]),
    );
    main["env"] = json!([{"name": "WHO", "value": "me-0"}]);
    // None of them, as the node takes no pod that asks for more than it has set aside: `vm` has some.
    main["resources"] = json!({
        "requests": {"cpu": "10m", "memory": "32Mi", "hugepages-2Mi": "0"},
        "limits": {"memory": "32Mi", "hugepages-2Mi": "0"}
    });
    let mut pod = pod_of("kinds", &[main]);
    pod["spec"]["securityContext"] = json!({"fsGroup": 4321, "fsGroupChangePolicy": "OnRootMismatch"});
    pod["spec"]["volumes"] = json!([
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "huge", "emptyDir": {"medium": "HugePages-2Mi"}},
        {"name": "host", "hostPath": {"path": host, "type": "Directory"}},
        {"name": "made", "hostPath": {"path": node.dir().join("made/by/type"), "type": "DirectoryOrCreate"}},
    ]);
    pod
}

fn kinds_are_what_they_say(node: &Node, host: &Path) {
    fs::create_dir_all(host.join("v1")).unwrap();
    fs::write(host.join("v1/page"), "of the host").unwrap();
    // As administrators do it; it stays inside.
    std::os::unix::fs::symlink(host.join("v1"), host.join("current")).unwrap();
    node.put(&every_kind(node, host));
    let view = node.wait_ready("kinds");
    let main = node.process(&view, "main");
    let all = mounts(main);

    assert_eq!((all["/memory"].fs_type.as_str(), all["/memory"].root.as_str()), ("tmpfs", "/"));
    assert!(all["/memory"].super_options.split(',').any(|o| o == "size=1024k"), "{:?}", all["/memory"]);
    assert_eq!(all["/huge"].fs_type, "hugetlbfs");
    assert!(all["/huge"].super_options.contains("pagesize=2M"), "{:?}", all["/huge"]);
    assert!(all["/part"].root.ends_with("/kubernetes.io~empty-dir/disk/a/b"), "{:?}", all["/part"]);
    assert_eq!((all["/expanded"].fs_type.as_str(), all["/expanded"].root.as_str()), ("tmpfs", "/logs/me-0"));
    assert!(main.is_read_only("/expanded") && !main.is_read_only("/part"));
    assert_eq!(main.read("/etc/of-host"), "of the host");
    assert!(node.dir().join("made/by/type").is_dir());

    // The group has the volumes, also what was made for a subPath, and the process is in it; the host's
    // files are not touched.
    let modes =
        [("/disk", 0o2777), ("/memory", 0o3777), ("/huge", 0o2775), ("/part", 0o2777), ("/expanded", 0o2777)];
    for (path, mode) in modes {
        assert_eq!(mode_and_group(main, path), (mode, 4321), "{path}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", main.0)).unwrap();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
    assert!(groups.split_whitespace().any(|group| group == "4321"), "{groups}");
    assert_eq!(fs::metadata(host.join("v1/page")).unwrap().gid(), 0);

    // What is written in one place is seen in the other, and is still there when the container comes back.
    fs::write(main.path("/part/file"), "kept").unwrap();
    assert_eq!(main.read("/disk/a/b/file"), "kept");
    fs::write(main.path("/memory/logs/me-0/file"), "in memory").unwrap();
    assert_eq!(main.read("/expanded/file"), "in memory");
    main.kill();
    let view = node.wait_view("kinds", "restarted", |view| view.restarts("main") == 1 && view.runs("main"));
    let main = node.process(&view, "main");
    assert_eq!((main.read("/part/file"), main.read("/expanded/file")), ("kept".into(), "in memory".into()));
    assert_eq!(fs::read_to_string(empty_dir(node, &view, "disk").join("a/b/file")).unwrap(), "kept");
}

/// A folder of the host with something mounted in it, that shares its mounts.
fn shared_folder(node: &Node) -> PathBuf {
    let shared = node.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    mount(Some("tmpfs"), &shared, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mount(None::<&str>, &shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    for name in ["early", "late", "sub/late"] {
        fs::create_dir_all(shared.join(name)).unwrap();
    }
    mount(Some("tmpfs"), &shared.join("early"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    shared
}

fn mounts_show_as_asked(node: &Node, shared: &Path, release: Release) {
    let mut pod = pod_of(
        "mounts",
        &[
            mounting(
                "slave",
                &json!([
                    {"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"},
                    {"name": "v", "mountPath": "/s", "subPath": "sub", "mountPropagation": "HostToContainer"},
                ]),
            ),
            mounting(
                "alone",
                &json!([
                    {"name": "v", "mountPath": "/v", "mountPropagation": "None"},
                    {"name": "v", "mountPath": "/s", "subPath": "sub"},
                    {"name": "v", "mountPath": "/plain", "readOnly": true},
                    {"name": "v", "mountPath": "/deep", "readOnly": true, "recursiveReadOnly": "IfPossible"},
                ]),
            ),
        ],
    );
    pod["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": shared}}]);
    node.put(&pod);
    let view = node.wait_ready("mounts");
    let (slave, alone) = (node.process(&view, "slave"), node.process(&view, "alone"));
    for late in ["late", "sub/late"] {
        mount(Some("tmpfs"), &shared.join(late), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
    for path in ["/v/late", "/s/late"] {
        assert!(mounts(slave).contains_key(path), "{path} is not in the container that follows the host");
        assert!(!mounts(alone).contains_key(path), "{path} is in the container that is alone");
    }
    assert!(mounts(alone).contains_key("/v/early"));

    // Read-only at the top, or all the way down.
    let told: BTreeMap<&str, &Value> = view.container("alone")["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| (mount["mountPath"].as_str().unwrap(), &mount["recursiveReadOnly"]))
        .collect();
    let deep = matches!(release, Release::Two);
    assert!(alone.is_read_only("/plain") && !alone.is_read_only("/plain/early"));
    assert!(alone.is_read_only("/deep"));
    assert_eq!(alone.is_read_only("/deep/early"), deep);
    assert_eq!(told["/deep"], if deep { "Enabled" } else { "Disabled" });
    assert_eq!(told["/plain"], "Disabled");
}

fn what_takes_a_newer_runtime(node: &Node, shared: &Path, release: Release) {
    let of_image = |name: &str, mount: Value| {
        let mut pod = pod_of(name, &[mounting("main", &json!([mount]))]);
        pod["spec"]["volumes"] = json!([{"name": "i", "image": {"reference": IMAGE, "pullPolicy": "Never"}}]);
        pod
    };
    let image = of_image("image", json!({"name": "i", "mountPath": "/i"}));
    // Neither of these releases can do this; containerd 2.1 would mount the whole image.
    let part = of_image("part", json!({"name": "i", "mountPath": "/i", "subPath": "bin"}));
    let mut deep = pod_of(
        "deep",
        &[mounting(
            "main",
            &json!([
                {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"}
            ]),
        )],
    );
    deep["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": shared}}]);
    for pod in [&image, &part, &deep] {
        node.put(pod);
    }
    match release {
        Release::Machine => {
            wait_error(node, "image", &["spec.volumes[0].image", "containerd 1.", "takes containerd 2.1"]);
            wait_error(node, "deep", &["volumeMounts[0].recursiveReadOnly", "containerd 1.", "2.0"]);
            for pod in ["image", "deep"] {
                let view = node.view(pod).unwrap();
                assert!(node.containerd.sandboxes_of(view.uid()).is_empty(), "{pod} was begun");
            }
        }
        Release::Two => {
            let view = node.wait_ready("image");
            let main = node.process(&view, "main");
            assert!(main.path("/i/bin/busybox").exists() && main.is_read_only("/i"));
            wait_error(node, "part", &["volumeMounts[0].subPath", "containerd 2.1", "takes containerd 2.2"]);
            let part = node.view("part").unwrap();
            assert!(node.containerd.sandboxes_of(part.uid()).is_empty(), "part was begun");
            let view = node.wait_ready("deep");
            assert!(node.process(&view, "main").is_read_only("/v/early"));
        }
    }
    for pod in ["image", "part", "deep"] {
        node.take_away(pod);
    }
}

fn what_cannot_be_had_is_told(node: &Node, host: &Path) {
    let with = |name: &str, mount: Value| {
        let mut pod = pod_of(name, &[mounting("main", &json!([mount]))]);
        pod["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": host, "type": "Directory"}}]);
        pod
    };
    std::os::unix::fs::symlink("/etc", host.join("out")).unwrap();
    node.put(&with("out", json!({"name": "v", "mountPath": "/v", "subPath": "out"})));
    node.put(&with("expr", json!({"name": "v", "mountPath": "/v", "subPathExpr": "$(NONE)"})));
    let mut typed = with("typed", json!({"name": "v", "mountPath": "/v"}));
    typed["spec"]["volumes"][0]["hostPath"]["type"] = json!("Socket");
    node.put(&typed);
    let mut huge = with("huge", json!({"name": "v", "mountPath": "/v"}));
    huge["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {"medium": "HugePages"}}]);
    node.put(&huge);
    wait_error(node, "out", &["subPath \"out\"", "leads out of the volume"]);
    wait_error(node, "expr", &["subPathExpr", "missing value for NONE"]);
    wait_error(node, "typed", &["hostPath type check failed", "is not a socket, it is a directory"]);
    wait_error(node, "huge", &["huge pages"]);
    node.wait_view("out", "waits", |view| view.waiting("main") == "CreateContainerConfigError");
    for pod in ["out", "expr", "typed", "huge"] {
        node.take_away(pod);
        node.wait_gone(pod);
    }
}

/// One container turns the other's subPath into links out of the volume and back, as fast as it can, while
/// the other is started again and again.
fn a_link_in_its_place_leads_nowhere(node: &Node) {
    let mut evil = container(
        "evil",
        // Renamed, as what is removed cannot be mounted by anybody.
        "cd /v; mkdir -p at; turn() { mv at aside && ln -s $1 at && rm at && mv aside at; }; \
         while :; do for to in / ../../../../../../.. /proc/self/root; do ls at; \
         turn $to || { rm -rf at aside; mkdir at; }; ls at; ls at; done; done >/dev/null 2>&1",
    );
    evil["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let mut victim =
        container("victim", "grep ' /w ' /proc/self/mountinfo >> /seen/mounts; ls /w >> /seen/files; exit 1");
    victim["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/w", "subPath": "at"}, {"name": "seen", "mountPath": "/seen"}
    ]);
    let mut pod = pod_of("attack", &[evil, victim]);
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}, {"name": "seen", "emptyDir": {}}]);
    node.put(&pod);
    let view = node.wait_view("attack", "victim started often", |view| view.restarts("victim") >= 3);
    let seen = empty_dir(node, &view, "seen");
    // A start whose part was removed in between runs nothing.
    let lines = wait_for(super::support::SOON, "three starts of the victim told what they saw", || {
        fs::read_to_string(seen.join("mounts")).ok().filter(|lines| lines.lines().count() >= 3)
    });
    let files = fs::read_to_string(seen.join("files")).unwrap();
    for line in lines.lines() {
        let root = line.split(' ').nth(3).unwrap();
        assert!(root.contains("/kubernetes.io~empty-dir/v/a"), "{line}");
    }
    // `mv` puts it there when the agent has made the folder in between.
    assert!(
        files.lines().all(|file| file == "aside"),
        "the victim saw other files than the volume's: {files}"
    );
    node.take_away("attack");
    node.wait_gone("attack");
}

fn survives(node: &mut Node, shared: &Path) {
    // Of all others nothing is left.
    wait_until(super::support::SOON, "two pods listed", || {
        node.pods_json()["items"].as_array().is_some_and(|pods| pods.len() == 2)
    });
    let before = node.view("kinds").unwrap();
    let of_node = |node: &Node| node.leaks().machine.into_iter().filter(|name| name.starts_with("mount "));
    let mounted: Vec<String> = of_node(node).collect();
    node.restart();
    let after = node.wait_ready("kinds");
    assert_eq!((before.id("main"), before.restarts("main")), (after.id("main"), after.restarts("main")));
    assert_eq!(of_node(node).collect::<Vec<_>>(), mounted);
    // The container's next start is this agent's, on the volumes of the one before.
    node.process(&after, "main").kill();
    let view = node.wait_view("kinds", "restarted", |view| {
        view.restarts("main") > after.restarts("main") && view.runs("main")
    });
    assert_eq!(node.process(&view, "main").read("/expanded/file"), "in memory");

    // Gone while no agent looked.
    node.kill9();
    for pod in ["kinds", "mounts"] {
        node.take_away(pod);
    }
    node.start_agent();
    node.wait_no_pods();
    for point in ["sub/late", "late", "early", ""] {
        wait_until(super::support::SOON, "it is unmounted", || umount(&shared.join(point)).is_ok());
    }
}

fn somebody_elses_mount_is_named_and_kept(node: &Node) {
    let mut pod = pod_of("kept", &[mounting("main", &json!([{"name": "v", "mountPath": "/v"}]))]);
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {"medium": "Memory"}}]);
    node.put(&pod);
    let view = node.wait_ready("kept");
    let inside = empty_dir(node, &view, "v").join("inside");
    fs::create_dir(&inside).unwrap();
    mount(Some("tmpfs"), &inside, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::write(inside.join("file"), "kept").unwrap();
    node.take_away("kept");
    wait_error(node, "kept", &["is mounted there", "/inside"]);
    assert_eq!(fs::read_to_string(inside.join("file")).unwrap(), "kept");
    // The agent may just be looking there.
    wait_until(super::support::SOON, "it is unmounted", || umount(&inside).is_ok());
    node.wait_gone("kept");
}

fn memory_is_given_back_at_the_end(node: &Node) {
    let mut main = container("main", "echo x > /v/file; cat /v/file");
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v", "subPath": "a"}]);
    let mut pod = pod_of("ended", &[main]);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {"medium": "Memory"}}]);
    node.put(&pod);
    let view = node.wait_view("ended", "succeeded", |view| view.phase() == "Succeeded");
    let folder = format!("/pods/{}/", view.uid());
    wait_until(super::support::SOON, "the ended pod's memory is given back", || {
        !node.leaks().machine.iter().any(|name| name.starts_with("mount ") && name.contains(&folder))
    });
    assert!(node.view("ended").is_some());
    node.take_away("ended");
    node.wait_gone("ended");
}

fn volumes(name: &str, release: fn() -> Release) {
    let mut node = node(name, release());
    let before = node.leaks();
    let host = node.dir().join("of-the-host");
    let shared = shared_folder(&node);
    kinds_are_what_they_say(&node, &host);
    mounts_show_as_asked(&node, &shared, release());
    what_takes_a_newer_runtime(&node, &shared, release());
    what_cannot_be_had_is_told(&node, &host);
    a_link_in_its_place_leads_nowhere(&node);
    somebody_elses_mount_is_named_and_kept(&node);
    memory_is_given_back_at_the_end(&node);
    survives(&mut node, &shared);
    node.wait_leak_free(&before);
    let page =
        wait_for(super::support::SOON, "the host's page", || fs::read_to_string(host.join("v1/page")).ok());
    assert_eq!(page, "of the host");
}

#[test]
fn volumes_are_as_the_pod_says() {
    volumes("vo1", || Release::Machine);
}

#[test]
fn volumes_are_as_the_pod_says_on_containerd2() {
    volumes("vo2", || Release::Two);
}
