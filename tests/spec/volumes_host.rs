//! Volumes that concern the host: mounts that containers make there, sockets and devices, file systems that do
//! not answer. And what groups, sizes and files of variables come to.

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount, umount2},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use serde_json::{Value, json};

use super::{
    support::{Node, Process, Release, SOON, STAY, container, pod_of, wait_for, wait_until},
    volumes::{mode_and_group, mounting, mounts, wait_error},
};

const CONFIG: &str = "featureGates: {EnvFiles: true}\n";

fn node(name: &str, release: Release) -> Node {
    let builder = Node::builder(name).config(CONFIG);
    match release {
        Release::Machine => builder.start(),
        Release::Two => builder.containerd2().start(),
    }
}

fn with_volumes(name: &str, containers: &[Value], volumes: &Value) -> Value {
    let mut pod = pod_of(name, containers);
    pod["spec"]["volumes"] = volumes.clone();
    pod
}

/// What a privileged container mounts in a folder of the host is mounted on the host, of the whole volume and
/// of a part of it; it stays when the pod is gone, and nothing else does.
fn mounts_of_a_container_show_on_the_host(node: &Node) {
    let shared = node.dir().join("both");
    fs::create_dir(&shared).unwrap();
    mount(Some("tmpfs"), &shared, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mount(None::<&str>, &shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    let script = "mkdir -p /v/whole /s/inner && mount -t tmpfs tmpfs /v/whole && mount -t tmpfs tmpfs /s/inner \
                  && touch /v/whole/made /s/inner/made && touch /v/done";
    let mut main = container("main", &format!("{script}; {STAY}"));
    main["securityContext"] = json!({"privileged": true});
    main["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"},
        {"name": "v", "mountPath": "/s", "subPath": "part", "mountPropagation": "Bidirectional"},
    ]);
    node.put(&with_volumes(
        "both",
        &[main],
        &json!([{"name": "v", "hostPath": {"path": shared, "type": "Directory"}}]),
    ));
    let view = node.wait_ready("both");
    wait_until(SOON, "the container's mounts are made", || shared.join("done").exists());
    let made = [shared.join("whole"), shared.join("part/inner")];
    let on_host = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points: Vec<PathBuf> = table.lines().map(|line| line.split(' ').nth(4).unwrap().into()).collect();
        made.iter().all(|path| points.contains(path) && path.join("made").exists())
    };
    assert!(on_host(), "what the container mounted is not on the host");
    // And the other way.
    let late = shared.join("part/late");
    fs::create_dir(&late).unwrap();
    mount(Some("tmpfs"), &late, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let main = node.process(&view, "main");
    for path in ["/v/part/late", "/s/late"] {
        assert!(mounts(main).contains_key(path), "{path} is not in the container");
    }
    node.take_away("both");
    node.wait_gone("both");
    assert!(on_host(), "what the container mounted went with the pod");
    // Somebody may just be looking there.
    for path in made.iter().chain([&late, &shared]) {
        wait_until(SOON, "it is unmounted", || umount(path).is_ok());
    }
}

fn sockets_and_devices_are_found(node: &Node) {
    let at = |name: &str| node.dir().join(name);
    let _listener = UnixListener::bind(at("sock")).unwrap();
    let rights = Mode::S_IRUSR | Mode::S_IWUSR;
    // Nobody opens it; there need not be such a device.
    mknod(&at("disk"), SFlag::S_IFBLK, rights, makedev(7, 250)).expect("this test makes a device's node");
    let volume = |name: &str, path: &Path, type_: &str| json!({"name": name, "hostPath": {"path": path, "type": type_}});
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/of-host/{name}")});
    let main = mounting("main", &json!([mount("sock"), mount("disk"), mount("null")]));
    let volumes = json!([
        volume("sock", &at("sock"), "Socket"),
        volume("disk", &at("disk"), "BlockDevice"),
        volume("null", Path::new("/dev/null"), "CharDevice"),
    ]);
    node.put(&with_volumes("types", &[main], &volumes));
    let view = node.wait_ready("types");
    let main = node.process(&view, "main");
    let kind = |name: &str| fs::symlink_metadata(main.path(&format!("/of-host/{name}"))).unwrap();
    assert!(kind("sock").file_type().is_socket());
    assert!(kind("disk").file_type().is_block_device());
    assert_eq!(kind("disk").rdev(), makedev(7, 250));
    assert!(kind("null").file_type().is_char_device());
    node.take_away("types");
    node.wait_gone("types");
}

/// A group reads what the pod is told of itself, and writes nothing there. A volume of the pod's own is given
/// to another group with all that is in it by then, whatever `fsGroupChangePolicy` says.
fn groups_have_what_is_theirs(node: &Node) {
    let script = "cat /told/d/name > /own/name && mkdir -p /own/d && umask 077 && touch /own/d/file";
    let mut main = container("main", &format!("{script}; {STAY}"));
    main["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000});
    main["volumeMounts"] =
        json!([{"name": "told", "mountPath": "/told"}, {"name": "own", "mountPath": "/own"}]);
    let item = json!({"path": "d/name", "fieldRef": {"fieldPath": "metadata.namespace"}});
    let mut pod = with_volumes(
        "group",
        &[main],
        &json!([
            {"name": "told", "downwardAPI": {"defaultMode": 0o400, "items": [item]}},
            {"name": "own", "emptyDir": {}},
        ]),
    );
    pod["metadata"]["uid"] = json!("group-uid");
    let policy = |gid: u32| json!({"fsGroup": gid, "fsGroupChangePolicy": "OnRootMismatch"});
    pod["spec"]["securityContext"] = policy(4321);
    node.put(&pod);
    for gid in [4321, 4322] {
        let in_group = |process: &Process| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap_or_default();
            status.lines().any(|line| line.starts_with("Groups:") && line.contains(&gid.to_string()))
        };
        let main = wait_for(SOON, "a container in the group", || {
            let view = node.view("group").filter(|view| view.runs("main"))?;
            node.containerd.process(&view.id("main")).filter(in_group)
        });
        wait_until(SOON, "the container wrote its files", || main.path("/own/d/file").exists());
        // The next one writes it anew.
        wait_until(SOON, "the container wrote its name", || {
            fs::read_to_string(main.path("/own/name")).is_ok_and(|name| name == "default")
        });
        assert_eq!(mode_and_group(main, "/told/d/name"), (0o440, gid));
        assert_eq!(mode_and_group(main, "/told"), (0o2755, gid));
        assert_eq!(mode_and_group(main, "/own"), (0o2777, gid));
        if gid == 4322 {
            // What the container of the group before left.
            assert_eq!(mode_and_group(main, "/own/d/file"), (0o660, gid));
        }
        pod["spec"]["securityContext"] = policy(4322);
        node.put(&pod);
    }
    node.take_away("group");
    node.wait_gone("group");
}

fn sizes_and_files_are_bounded(node: &Node) {
    // Where one container may take any memory, the volume's own limit counts.
    let mut limited = mounting("a", &json!([{"name": "v", "mountPath": "/v"}]));
    limited["resources"] = json!({"limits": {"memory": "64Mi"}});
    let memory = json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]);
    node.put(&with_volumes("size", &[limited.clone(), container("b", STAY)], &memory));
    node.put(&with_volumes("least", &[limited], &memory));
    for (pod, size) in [("size", "size=1048576k"), ("least", "size=65536k")] {
        let view = node.wait_ready(pod);
        let options = &mounts(node.process(&view, "a"))["/v"].super_options;
        assert!(options.split(',').any(|option| option == size), "{pod}: {options}");
    }
    // One file of 900 KiB, by ten names.
    let mut init = container(
        "init",
        "head -c 921600 /dev/zero | tr '\\0' '#' > /left/f; for n in 0 1 2 3 4 5 6 7 8 9; do ln -s f /left/l$n; done",
    );
    init["volumeMounts"] = json!([{"name": "left", "mountPath": "/left"}]);
    let from = |n: usize| {
        let file = json!({"volumeName": "left", "path": format!("l{n}"), "key": "A", "optional": true});
        json!({"name": format!("A{n}"), "valueFrom": {"fileKeyRef": file}})
    };
    for (name, count) in [("few", 6), ("many", 10)] {
        let mut main = container("main", STAY);
        main["env"] = (0..count).map(from).collect();
        let mut pod = with_volumes(name, &[main], &json!([{"name": "left", "emptyDir": {}}]));
        pod["spec"]["initContainers"] = json!([init]);
        node.put(&pod);
    }
    node.wait_ready("few");
    wait_error(node, "many", &["fileKeyRef", "longer than 6 MiB together"]);
    node.wait_view("many", "waits", |view| view.waiting("main") == "CreateContainerConfigError");
    for pod in ["size", "least", "few", "many"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
}

/// A file system whose server never answers.
struct Hung {
    server: Option<File>,
    at: PathBuf,
}

impl Hung {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let server = File::options().read(true).write(true).open("/dev/fuse");
        let server = server.expect("this test needs /dev/fuse (modprobe fuse)");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("hung"), &at, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { server: Some(server), at }
    }

    /// Whoever waits for it gets an error from now on.
    fn give_up(&mut self) {
        self.server = None;
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.give_up();
        umount2(&self.at, MntFlags::MNT_DETACH).unwrap();
    }
}

fn file_systems_that_do_not_answer_hold_up_nobody_else(node: &Node) {
    // More than there are threads for such work, and about as many as there are for all.
    const PODS: usize = 18;
    let mut hung = Hung::mount(node.dir().join("hung"));
    let names: Vec<String> = (0..PODS).map(|n| format!("hung-{n}")).collect();
    for name in &names {
        let main = mounting("main", &json!([{"name": "v", "mountPath": "/v"}]));
        let volume = json!([{"name": "v", "hostPath": {"path": hung.at.join("data"), "type": "Directory"}}]);
        node.put(&with_volumes(name, &[main], &volume));
    }
    let told = |words: &str| {
        let tells = |name: &&String| {
            node.view(name).is_some()
                && node.explain(name)["progress"]["detail"]
                    .as_str()
                    .is_some_and(|told| told.starts_with(words))
        };
        names.iter().filter(tells).count()
    };
    wait_until(SOON, "all of them are told", || {
        told("look at ") == 8 && told("wait to look at ") == PODS - 8
    });
    let well = mounting("main", &json!([{"name": "v", "mountPath": "/v", "subPath": "a"}]));
    node.put(&with_volumes("well", &[well], &json!([{"name": "v", "emptyDir": {"medium": "Memory"}}])));
    node.wait_ready("well");
    for name in &names {
        node.take_away(name);
    }
    for name in &names {
        node.wait_gone(name);
    }
    hung.give_up();
    // There is room again.
    let main = mounting("main", &json!([{"name": "v", "mountPath": "/v"}]));
    node.put(&with_volumes("host", &[main], &json!([{"name": "v", "hostPath": {"path": node.dir()}}])));
    node.wait_ready("host");
    for pod in ["well", "host"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
}

fn host(name: &str, release: Release) {
    let node = node(name, release);
    let before = node.leaks();
    mounts_of_a_container_show_on_the_host(&node);
    sockets_and_devices_are_found(&node);
    groups_have_what_is_theirs(&node);
    sizes_and_files_are_bounded(&node);
    file_systems_that_do_not_answer_hold_up_nobody_else(&node);
    node.wait_leak_free(&before);
}

#[test]
fn volumes_and_the_host() {
    host("vh1", Release::Machine);
}

#[test]
fn volumes_and_the_host_on_containerd2() {
    host("vh2", Release::Two);
}
