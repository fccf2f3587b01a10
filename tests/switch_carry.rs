//! What `nodectl switch-runtime` brings along on whole nodes: where images come from, through which proxy, images
//! themselves, Docker's own containers, and pods of a containerd whose configuration is brought up to date.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{
    Release, SOON,
    machine::Machine,
    machine_files::{Files, differences},
    machine_registry::{self, MIRROR, PLAIN, SECURE},
    said::Said,
    wait_until,
};

const ENDPOINT: &str = "unix:///run/containerd/containerd.sock";
const IMAGE: &str = "localhost/nodectl/busybox:1";
const NOTHING: [String; 0] = [];

/// A node and how it was.
struct Node {
    machine: Machine,
    files: Files,
    units: std::collections::BTreeMap<String, (String, String)>,
    images: String,
}

impl Node {
    /// A Docker node, changed before anybody looks.
    fn new(name: &str, prepare: impl FnOnce(&Machine)) -> Self {
        let machine = Machine::boot(name, Release::Machine);
        prepare(&machine);
        let (files, units) = (machine.files(), machine.units());
        let mut node = Self { machine, files, units, images: String::new() };
        node.images = node.shell("ctr -n k8s.io images ls -q");
        node
    }

    fn shell(&self, script: &str) -> String {
        self.machine.sure(&["sh", "-ec", script])
    }

    fn switch(&self, arguments: &[&str]) -> Said {
        Said::of(&self.machine.nodectl(&[&["switch-runtime"], arguments].concat()))
    }

    fn cri(&self, arguments: &[&str]) -> Said {
        Said::of(&self.machine.nodectl(&[&["cri", "-r", ENDPOINT], arguments].concat()))
    }

    /// The id of the pod's container in containerd, and when it was started.
    fn container(&self) -> Option<(String, String)> {
        let list = self.cri(&["ps", "-o", "json"]);
        let list: Value = serde_json::from_str(&list.out).ok()?;
        let [container] = list["containers"].as_array()?.as_slice() else { return None };
        assert_eq!(container["labels"]["io.kubernetes.pod.name"], "web-node1");
        let id = container["id"].as_str()?.to_owned();
        let told = self.cri(&["inspect", "-o", "json", &id]).ended(0).json();
        let started = told["status"]["startedAt"].as_str().expect("when it was started").to_owned();
        Some((id, started))
    }

    #[track_caller]
    fn is_moved(&self) {
        wait_until(SOON, "the pod serves", || self.machine.pod_serves());
        wait_until(SOON, "the pod is containerd's", || self.container().is_some());
    }

    #[track_caller]
    fn is_as_before(&self) {
        assert_eq!(differences(&self.files, &self.machine.files()), NOTHING);
        assert_eq!(self.machine.units(), self.units);
        wait_until(SOON, "the pod serves", || self.machine.pod_serves());
        let names = self.shell("docker ps --format '{{.Names}}'");
        assert_eq!(names.lines().filter(|name| name.contains("_web-node1_")).count(), 2, "{names}");
        assert_eq!(self.shell("ctr -n k8s.io containers ls -q"), "");
        assert_eq!(self.shell("ctr -n k8s.io images ls -q"), self.images);
    }

    /// Docker is told something, and told to look.
    fn tell_docker(machine: &Machine, daemon: &Value) {
        machine.put("/etc/docker/daemon.json", &daemon.to_string(), 0o644);
        machine.sure(&["systemctl", "daemon-reload"]);
        machine.sure(&["systemctl", "restart", "docker.service"]);
        machine.wait_pod();
    }
}

const PASSWORD: &str = "s3cret%40word";

/// A node whose Docker has its images from registries of its own. They have `plain`, `library/mirrored` and `extra`,
/// and behind TLS `secure`.
fn with_registries(machine: &Machine) {
    let authority = machine_registry::start(machine);
    machine.put(&format!("/etc/docker/certs.d/{SECURE}/ca.crt"), &authority, 0o644);
    machine.put(
        "/etc/systemd/system/docker.service.d/http-proxy.conf",
        &format!(
            "[Service]\nEnvironment=\"HTTP_PROXY=http://bob:{}@192.168.77.10:3128\" \"https_proxy=http://192.168.77.10:3129\"\n\
             Environment=NO_PROXY=node1,192.168.77.10\n",
            PASSWORD.replace('%', "%%")
        ),
        0o600,
    );
    machine.put(
        "/etc/containerd/certs.d/docker.io/hosts.toml",
        "# Mine.\nserver = \"https://registry-1.docker.io\"\n\n[host.\"http://192.168.77.10:1\"]  # nobody\n  capabilities = [\"pull\", \"resolve\"]\n",
        0o640,
    );
    Node::tell_docker(
        machine,
        &json!({
            "registry-mirrors": [MIRROR],
            "insecure-registries": [PLAIN, "10.77.0.0/16"],
            "log-opts": {"max-size": "7m", "max-file": "4"},
        }),
    );
    let other = format!(
        "docker run --name other --network none {IMAGE} sh -c 'echo other >/other'; docker commit other other; docker rm other"
    );
    machine.sure(&["sh", "-ec", &other]);
    for name in [
        format!("{PLAIN}/plain"),
        format!("{PLAIN}/library/mirrored"),
        format!("{PLAIN}/extra"),
        format!("{SECURE}/secure"),
    ] {
        let script = format!("docker tag other {name}:1; docker push -q {name}:1; docker rmi {name}:1");
        machine.sure(&["sh", "-ec", &script]);
    }
    // This is what it can do, and is to be as good afterwards.
    let pulled = format!("{PLAIN}/plain:1 {SECURE}/secure:1 mirrored:1");
    machine.sure(&["sh", "-ec", &format!("for i in {pulled}; do docker pull -q $i; docker rmi $i; done")]);
}

#[test]
fn registries_mirrors_proxies_and_logs_come_along() {
    let node = Node::new("carry", with_registries);
    let mut said = vec![
        node.switch(&["--detect"]).ended(0),
        node.switch(&["--detect", "-o", "json"]).ended(0),
        node.switch(&["--dry-run"]).ended(0),
    ];
    let looked = &said[2].out;
    assert!(looked.contains("insecure registries 10.77.0.0/16: containerd knows no ranges"), "{looked}");
    let mirror = format!("registry.k8s.io={MIRROR}/");
    let options = ["--registry-mirror", &mirror];
    said.push(node.switch(&[&["--dry-run", "-o", "json"], &options[..]].concat()).ended(0));
    let done = node.switch(&[&["--yes", "-o", "json"], &options[..]].concat()).ended(0);
    assert_eq!(said[3].json()["diff"], done.json()["diff"]);
    said.push(done);
    node.is_moved();

    for image in [
        format!("{PLAIN}/plain:1"),
        format!("{SECURE}/secure:1"),
        "docker.io/library/mirrored:1".to_owned(),
        "registry.k8s.io/extra:1".to_owned(),
    ] {
        assert!(
            !node.shell("ctr -n k8s.io images ls -q").lines().any(|name| name == image),
            "{image} is pulled"
        );
        node.cri(&["pull", &image]).ended(0);
        assert!(node.shell("ctr -n k8s.io images ls -q").lines().any(|name| name == image), "{image}");
    }
    let hosts = node.machine.read("/etc/containerd/certs.d/docker.io/hosts.toml");
    assert!(hosts.starts_with("# Mine.\nserver = \"https://registry-1.docker.io\"\n\n[host.\"http://192.168.77.10:1\"]  # nobody\n"), "{hosts}");
    assert!(hosts.contains(&format!("[host.\"{MIRROR}\"]")), "{hosts}");
    let files = node.machine.files();
    assert_eq!(files[Path::new("/etc/containerd/certs.d/docker.io/hosts.toml")].mode, 0o640);

    let drop_in = &files[Path::new("/etc/systemd/system/containerd.service.d/http-proxy.conf")];
    assert_eq!((drop_in.mode, drop_in.uid, drop_in.gid), (0o600, 0, 0));
    let told =
        node.shell("tr '\\0' '\\n' </proc/$(systemctl show --property=MainPID --value containerd)/environ");
    for line in [
        &format!("HTTP_PROXY=http://bob:{PASSWORD}@192.168.77.10:3128"),
        "HTTPS_PROXY=http://192.168.77.10:3129",
        "NO_PROXY=node1,192.168.77.10",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    let kubelet = node.machine.read("/var/lib/kubelet/config.yaml");
    assert!(
        kubelet.contains("\ncontainerLogMaxSize: 7M\n") && kubelet.contains("\ncontainerLogMaxFiles: 4\n"),
        "{kubelet}"
    );
    // Asked again it stays, also what was asked on the command line alone.
    let again = node.switch(&["--yes", "-o", "json"]).ended(0);
    assert_eq!(again.json()["changed"], false);
    said.push(again);
    assert_eq!(differences(&files, &node.machine.files()), NOTHING);

    // Pulled since, and nobody's to take away. It is one image with four names.
    node.cri(&["rmi", &format!("{PLAIN}/plain:1")]).ended(0);
    said.push(node.switch(&["rollback", "--yes"]).ended(0));
    node.is_as_before();
    said.push(node.switch(&["history"]).ended(0));
    for said in &said {
        for text in [&said.out, &said.err] {
            assert!(!text.contains("s3cret"), "{text}");
        }
    }
    let log = node.shell("journalctl --no-pager -o cat");
    assert!(
        !log.contains("s3cret"),
        "{:?}",
        log.lines().filter(|line| line.contains("s3cret")).collect::<Vec<_>>()
    );
    assert!(
        log.contains("Started containerd") || log.contains("containerd container runtime"),
        "that was the log"
    );
}

/// Images besides those of the pods: `base:1`, `many:1` on top of it with a second name, and one without a name.
fn with_images(machine: &Machine) {
    let script = format!(
        "docker run --name first --network none {IMAGE} sh -c 'echo one >/one'; docker commit first base:1
         docker run --name second --network none base:1 sh -c 'echo two >/two; rm /one; mkdir /d; echo three >/d/three'; docker commit second many:1
         docker tag many:1 host.example:5000/team/many:v2
         docker run --name third --network none {IMAGE} sh -c 'echo no >/no'; docker commit third >/srv/nameless; docker rm first second third"
    );
    machine.sure(&["sh", "-ec", &script]);
}

const SECOND_NAME: &str = "host.example:5000/team/many:v2";

#[test]
fn all_images_come_along_with_their_names_or_none() {
    let node = Node::new("images", with_images);
    let id = node.shell("docker inspect --format '{{.Id}}' many:1").trim().to_owned();
    let nameless = node.machine.read("/srv/nameless").trim().to_owned();
    let planned = node.switch(&["--dry-run", "-o", "json", "--images", "all"]).ended(0).json();
    let warnings = planned["warnings"].to_string();
    assert!(
        warnings.contains("images without a tag do not come along") && warnings.contains(&nameless),
        "{warnings}"
    );
    let running = node.switch(&["--dry-run", "-o", "json"]).ended(0).json();
    assert!(!running["warnings"].to_string().contains(&nameless), "{running}");

    // There is no room for them.
    node.shell("mount -t tmpfs -o size=500m small /var/lib/containerd");
    let refused = node.switch(&["--yes", "--images", "all"]).ended(3);
    assert!(
        refused.err.contains("error: /var/lib/containerd has ")
            && refused.err.contains(" MiB left, and the images that come along need "),
        "{}",
        refused.err
    );
    node.shell("umount /var/lib/containerd");
    node.is_as_before();

    // One goes meanwhile.
    let strace = "strace -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:signal=SIGKILL:when=2";
    let killed = format!("{strace} nodectl switch-runtime --yes --images all");
    assert!(!node.machine.run(&["sh", "-c", &killed]).status.success());
    node.shell(&format!("docker rmi {SECOND_NAME}"));
    let failed = node.switch(&["--resume", "-o", "json"]).ended(4);
    let report = failed.json();
    assert_eq!((&report["changed"], &report["outcome"]), (&Value::from(false), &Value::from("rolled-back")));
    let error = report["error"].as_str().unwrap();
    assert!(
        error.contains(&format!("image {SECOND_NAME}: Docker refuses GET /images/get"))
            && error.contains("404"),
        "{error}"
    );
    node.is_as_before();
    node.shell(&format!("docker tag many:1 {SECOND_NAME}"));

    // Nobody has the pause image.
    let failed = node.switch(&["--yes", "--images", "none", "-o", "json"]).ended(4).json();
    assert!(failed["error"].as_str().unwrap().contains("k8s.gcr.io/pause:3.2"), "{failed}");
    node.is_as_before();

    let done = node.switch(&["--yes", "--images", "all"]).ended(0);
    assert!(done.err.contains("many:1, ") && done.err.contains(&nameless), "{}", done.err);
    node.is_moved();
    let names = node.shell("ctr -n k8s.io images ls -q");
    for name in
        ["docker.io/library/base:1", "docker.io/library/many:1", SECOND_NAME, "k8s.gcr.io/pause:3.2", IMAGE]
    {
        assert!(names.lines().any(|line| line == name), "{name}: {names}");
    }
    let images = node.cri(&["images", "-o", "json"]).ended(0).json();
    let images = images["images"].as_array().unwrap();
    let many =
        images.iter().find(|image| image["id"] == id.as_str()).unwrap_or_else(|| panic!("{id}: {images:?}"));
    let mut tags: Vec<&str> =
        many["repoTags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["docker.io/library/many:1", SECOND_NAME]);
    assert!(images.iter().all(|image| image["id"] != nameless.as_str()), "{images:?}");
    let looked = node.shell(
        "mkdir /mnt/image; ctr -n k8s.io images mount docker.io/library/many:1 /mnt/image >/dev/null
         cat /mnt/image/two /mnt/image/d/three; test ! -e /mnt/image/one; test -x /mnt/image/bin/sh
         ctr -n k8s.io images unmount --rm /mnt/image >/dev/null; rmdir /mnt/image",
    );
    assert_eq!(looked, "two\nthree\n");
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
}

#[test]
fn containerd_is_brought_up_to_date_under_its_pods() {
    let node = Node::new("upgrade", |_| {});
    // On cgroups of version 1, systemd moves sandboxes out of their devices cgroup when its units are reloaded, and
    // runc then says that they have no processes: containerd 2 takes those of 1.x for leaked then, and ends them.
    let driver = ["--cgroup-driver", "cgroupfs", "--agent", "nodectl", "--yes"];
    node.switch(&driver).ended(0);
    node.is_moved();
    node.machine.install_containerd(Release::Two);
    let (before, container) = (node.machine.files(), node.container().unwrap());
    let goes_on = |what: &str| {
        assert_eq!(
            node.machine.sure(&["systemctl", "is-active", "nodectl.service", "containerd.service"]),
            "active\nactive\n"
        );
        assert!(node.machine.pod_serves(), "{what}");
        assert_eq!(node.container().as_ref(), Some(&container), "{what}");
        let version = node.shell("ctr version");
        assert!(version.split("Server:").nth(1).unwrap().contains("Version:  2."), "{version}");
        assert_eq!(node.machine.try_read("/var/lib/nodectl/switch/unfinished"), None);
    };
    let upgrade = [&driver[..], &["--from", "containerd"]].concat();
    node.switch(&upgrade).ended(0);
    goes_on("upgraded");
    let config = node.machine.read("/etc/containerd/config.toml");
    assert!(config.contains("version = 3\n") && config.contains("io.containerd.cri.v1.runtime"), "{config}");
    assert!(config.contains("#   Copyright 2018-2022 Docker Inc.\n"), "{config}");
    let dump = node.shell("containerd config dump");
    assert!(
        dump.contains("SystemdCgroup = false") && dump.contains("restrict_oom_score_adj = true"),
        "{dump}"
    );
    let again = node.switch(&[&upgrade[..], &["-o", "json"]].concat()).ended(0).json();
    assert_eq!((&again["changed"], &again["outcome"]), (&Value::from(false), &Value::from("nothing-to-do")));
    goes_on("asked again");
    node.switch(&["rollback", "--yes"]).ended(0);
    assert_eq!(differences(&before, &node.machine.files()), NOTHING);
    goes_on("put back");

    // From nothing but the default.
    node.switch(&[&upgrade[..], &["--reset-config"]].concat()).ended(0);
    goes_on("begun anew");
    let config = node.machine.read("/etc/containerd/config.toml");
    assert!(
        !config.contains("Copyright")
            && config.contains("enable_cdi")
            && config.contains("SystemdCgroup = false"),
        "{config}"
    );
    node.switch(&["rollback", "--yes"]).ended(0);
    assert_eq!(differences(&before, &node.machine.files()), NOTHING);
    goes_on("put back again");
}

#[test]
fn docker_is_kept_for_others_and_none_of_its_pods_lives_on() {
    let node = Node::new("keep", |machine| {
        Node::tell_docker(machine, &json!({"live-restore": true}));
        let run =
            ["docker", "run", "-d", "--restart", "always", "--name", "mine", "--network", "none", IMAGE];
        machine.sure(&[&run[..], &["sleep", "3003"]].concat());
    });
    let processes = || node.shell("pgrep -f '^(sleep 3003|httpd .*)' || true");
    let mine = || node.shell("pgrep -fx 'sleep 3003' || true");
    // They outlive dockerd here.
    let old = processes();
    assert_eq!(old.lines().count(), 2, "{old}");
    node.shell("systemctl restart docker.service");
    assert_eq!(processes(), old);
    let refused = node.switch(&["--yes", "--keep-docker"]).ended(3);
    assert!(refused.err.contains("not Kubernetes' and that will be stopped: mine"), "{}", refused.err);
    assert_eq!(processes(), old);

    node.switch(&["--yes", "--keep-docker", "--force"]).ended(0);
    node.is_moved();
    for unit in ["docker.service", "docker.socket"] {
        assert_eq!(node.machine.units()[unit], ("active".to_owned(), "enabled".to_owned()), "{unit}");
    }
    wait_until(SOON, "it runs again", || !mine().is_empty());
    assert_eq!(node.shell("docker ps -a --format '{{.Names}}'"), "mine\n");
    let lives_on: Vec<String> =
        processes().lines().filter(|pid| old.lines().any(|old| old == *pid)).map(str::to_owned).collect();
    let mine_was: Vec<String> = mine().lines().map(str::to_owned).collect();
    assert!(lives_on.iter().all(|pid| mine_was.contains(pid)), "{lives_on:?}");
    let again = node.switch(&["--yes", "--keep-docker", "-o", "json"]).ended(0).json();
    assert_eq!(again["changed"], false, "{again}");
    node.machine.power_cut();
    node.is_moved();
    wait_until(SOON, "it runs after a boot", || !mine().is_empty());
    node.switch(&["rollback", "--yes", "--force"]).ended(0);
    node.is_as_before();
    wait_until(SOON, "it runs as before", || !mine().is_empty());

    // Without Docker it goes, as was said.
    node.switch(&["--yes", "--force"]).ended(0);
    node.is_moved();
    assert_eq!(node.machine.units()["docker.service"], ("inactive".to_owned(), "disabled".to_owned()));
    assert_eq!(mine(), "");
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
    wait_until(SOON, "it runs as before", || !mine().is_empty());
}
