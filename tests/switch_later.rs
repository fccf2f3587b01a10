//! `nodectl switch-runtime` on nodes whose kubelet has no dockershim any more: versions at which what a kubelet
//! knows is different, on cri-dockerd and on containerd, with the files of their packages and of kubeadm. Kubelet
//! and cri-dockerd are stand-ins (`hack/machine-kubelet.sh`): a kubelet that does not start with a flag of before,
//! and runs the static pod for real.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{
    Release, SOON,
    machine::Machine,
    machine_files::differences,
    switching::{self, Before, Said},
    wait_until,
};

const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";
const CRI_DOCKERD: &str = "unix:///run/cri-dockerd.sock";
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const INSTANCE: &str = "/var/lib/kubelet/instance-config.yaml";
const OLD_UNITS: [&str; 4] = ["cri-docker.service", "cri-docker.socket", "docker.service", "docker.socket"];

/// A node and how it was.
struct Node {
    machine: Machine,
    before: Before,
}

impl Node {
    #[track_caller]
    fn new(name: &str, release: Release, kubelet: &str) -> Self {
        let machine = Machine::with_kubelet(name, release, kubelet);
        let before = Before::of(&machine);
        assert_eq!(before.units.len(), 6);
        for (unit, state) in &before.units {
            assert_eq!(*state, ("active".to_owned(), "enabled".to_owned()), "{unit}");
        }
        let node = Self { machine, before };
        let detected = node.switch(&["--detect", "-o", "json"]).ended(0).json();
        assert_eq!(detected["kubelet"]["version"], format!("v{kubelet}.0"));
        assert_eq!(detected["kubelet"]["runtime"], "cri-dockerd");
        assert_eq!(detected["kubelet"]["endpoint"], CRI_DOCKERD);
        assert_eq!(detected["problems"], serde_json::json!([]));
        node
    }

    fn switch(&self, arguments: &[&str]) -> Said {
        switching::switch(&self.machine, arguments)
    }

    /// A kubelet of this version does not start with this.
    #[track_caller]
    fn does_not_know(&self, flag: &str) {
        let said = Said::of(&self.machine.run(&["kubelet", flag])).ended(1);
        let name = flag.split('=').next().unwrap();
        assert!(said.err.contains(&format!("unknown flag: {name}")), "{}", said.err);
    }

    /// The id of the static pod's container in a runtime.
    fn container(&self) -> Option<String> {
        let list = Said::of(&self.machine.nodectl(&["cri", "-r", CONTAINERD, "ps", "-o", "json"]));
        let list: Value = serde_json::from_str(&list.out).ok()?;
        let [container] = list["containers"].as_array()?.as_slice() else { return None };
        assert_eq!(container["labels"]["io.kubernetes.pod.name"], "web-node1");
        container["id"].as_str().map(str::to_owned)
    }

    #[track_caller]
    fn is_moved(&self) {
        for (unit, state) in self.machine.units() {
            let wanted = if OLD_UNITS.contains(&unit.as_str()) {
                ("inactive", "disabled")
            } else {
                ("active", "enabled")
            };
            assert_eq!((state.0.as_str(), state.1.as_str()), wanted, "{unit}");
        }
        wait_until(SOON, "the pod serves", || self.machine.pod_serves());
        wait_until(SOON, "the pod is containerd's", || self.container().is_some());
        let left = self.machine.sure(&["ls", "/var/lib/cri-dockerd/sandbox"]);
        assert_eq!(left, "", "cri-dockerd's state is gone");
        assert_eq!(self.machine.try_read("/var/lib/nodectl/switch/unfinished"), None);
    }

    #[track_caller]
    fn is_as_before(&self) {
        self.before.is_back(&self.machine);
    }

    /// What of the kubelet's files is not as it was.
    fn changed(&self) -> Vec<String> {
        let all = differences(&self.before.files, &self.machine.files());
        all.into_iter().filter(|line| line.contains("kubelet") && line.ends_with("content")).collect()
    }

    #[track_caller]
    fn nothing_is_to_do(&self, arguments: &[&str]) {
        let again = self.switch(&[arguments, &["-o", "json"]].concat()).ended(0).json();
        assert_eq!(again["outcome"], "nothing-to-do", "{again}");
    }
}

/// What the kubelet of 1.24 has of its flags from kubeadm, with another endpoint.
fn flags_of_1_24(endpoint: &str) -> String {
    format!(
        "KUBELET_KUBEADM_ARGS=\"--container-runtime=remote --container-runtime-endpoint={endpoint} \
         --pod-infra-container-image=k8s.gcr.io/pause:3.2\"\n"
    )
}

#[test]
fn kubelet_1_24_goes_from_cri_dockerd_to_containerd_1_6_and_back() {
    let node = Node::new("k124", Release::Machine, "1.24");
    node.does_not_know("--network-plugin=cni");
    assert_eq!(node.machine.read(FLAGS), flags_of_1_24(CRI_DOCKERD));
    let other = node.switch(&["--yes", "--from", "docker"]).ended(3);
    assert!(other.err.contains("the kubelet uses cri-dockerd"), "{}", other.err);

    node.switch(&["--yes"]).ended(0);
    node.is_moved();
    assert_eq!(node.machine.read(FLAGS), flags_of_1_24(CONTAINERD));
    node.nothing_is_to_do(&["--yes"]);
    node.machine.power_cut();
    node.is_moved();
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
    assert_eq!(node.machine.read(FLAGS), flags_of_1_24(CRI_DOCKERD));
}

#[test]
fn kubelet_1_29_goes_to_containerd_1_6_and_on_to_2_and_all_the_way_back() {
    let node = Node::new("k129", Release::Machine, "1.29");
    node.does_not_know("--container-runtime=remote");
    // On cgroups of version 1 containerd 2 may end sandboxes of 1.x with the other driver.
    let driver = ["--yes", "--cgroup-driver", "cgroupfs"];
    node.switch(&driver).ended(0);
    node.is_moved();
    // Kubeadm's flags of this version win over the configuration; the package's own drop-in stays as it is.
    assert_eq!(node.changed(), [format!("{FLAGS}: content")]);
    assert_eq!(
        node.machine.read(FLAGS),
        format!(
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint={CONTAINERD} \
             --pod-infra-container-image=k8s.gcr.io/pause:3.2\"\n"
        )
    );
    let packaged = Path::new("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf");
    assert!(node.before.files.contains_key(packaged));

    node.machine.install_containerd(Release::Two);
    let (before, container) = (node.machine.files(), node.container().unwrap());
    let upgrade = [&driver[..], &["--from", "containerd"]].concat();
    node.switch(&upgrade).ended(0);
    let config = node.machine.read("/etc/containerd/config.toml");
    assert!(config.contains("version = 3\n") && config.contains("io.containerd.cri.v1.runtime"), "{config}");
    let version = node.machine.sure(&["ctr", "version"]);
    assert!(version.split("Server:").nth(1).unwrap().contains("Version:  2."), "{version}");
    node.is_moved();
    assert_eq!(node.container().as_ref(), Some(&container), "it went on");
    node.nothing_is_to_do(&upgrade);

    node.switch(&["rollback", "--yes"]).ended(0);
    assert_eq!(differences(&before, &node.machine.files()), Vec::<String>::new());
    node.is_moved();
    assert_eq!(node.container(), Some(container), "it went on");
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
}

#[test]
fn kubelet_1_35_goes_from_cri_dockerd_to_containerd_2_and_back_whatever_happens() {
    let node = Node::new("k135", Release::Two, "1.35");
    node.does_not_know("--pod-infra-container-image=k8s.gcr.io/pause:3.2");
    let failed = node.switch(&["--yes", "--pause-image", "localhost:1/none:1", "-o", "json"]).ended(4).json();
    assert!(failed["error"].as_str().unwrap().contains("localhost:1/none:1"), "{failed}");
    assert!(!failed["diff"].as_str().unwrap().contains("pod-infra"), "{failed}");
    node.is_as_before();

    // The power goes when pods and cri-dockerd's socket are down. With the power they come back, as they are enabled.
    let plan = node.switch(&["--dry-run", "-o", "json"]).ended(0).json();
    let steps = plan["steps"].as_array().unwrap();
    let stopped = steps.iter().position(|step| step["unit"] == "cri-docker.service").expect("it is stopped");
    for (end, flag) in [("taken back", "--rollback"), ("gone on with", "--resume")] {
        assert_eq!(switching::struck(&node.machine, "SIGKILL", 2 + 2 * stopped, &["--yes"]).code, None);
        node.machine.power_cut();
        let told = node.switch(&["--dry-run", flag]).ended(0);
        assert!(told.err.contains(&format!("it would be {end}")), "{}", told.err);
        node.switch(&[flag]).ended(0);
        if flag == "--rollback" {
            node.is_as_before();
        }
    }
    node.is_moved();
    // kubeadm's own file, which it lays over the configuration at its next upgrade, and that itself.
    assert_eq!(node.changed(), [CONFIG, INSTANCE].map(|path| format!("{path}: content")));
    for path in [CONFIG, INSTANCE] {
        let text = node.machine.read(path);
        assert!(text.contains(&format!("containerRuntimeEndpoint: {CONTAINERD}\n")), "{text}");
    }
    node.nothing_is_to_do(&["--yes"]);
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
}
