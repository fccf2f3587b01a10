//! `nodectl switch-runtime` on whole nodes: systemd, Debian's Docker and containerd, and a kubelet 1.20 with its
//! dockershim that runs a static pod. Moved, moved back, refused, interrupted, killed and cut from power at every
//! step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::{
    Release, SOON,
    machine::{Config, Machine},
    machine_files::differences,
    switching::{self, Before, Said},
    wait_until,
};

const ENDPOINT: &str = "unix:///run/containerd/containerd.sock";
const STATE: &str = "/var/lib/nodectl/switch";
/// In files of a node, all that a change may leave of itself.
const OURS: [&str; 2] = ["00-nodectl-switch.conf", ".nodectl"];

/// A node and how it was.
struct Node {
    machine: Machine,
    before: Before,
}

impl Node {
    fn new(name: &str, release: Release, config: Config) -> Self {
        let machine = Machine::with_config(name, release, config);
        let before = Before::of(&machine);
        Self { machine, before }
    }

    fn switch(&self, arguments: &[&str]) -> Said {
        switching::switch(&self.machine, arguments)
    }

    /// The command with a signal at its so-manieth write of the journal.
    fn struck(&self, signal: &str, at: usize, arguments: &[&str]) -> Said {
        switching::struck(&self.machine, signal, at, arguments)
    }

    /// Kills the command at so-manieth a write again and again until it comes to its end; how often that was. Before
    /// each time something else happens.
    fn killed_until_done(&self, at: usize, flag: &str, most: usize, first: impl Fn()) -> usize {
        let mut killed = 0;
        loop {
            first();
            let said = self.struck("SIGKILL", at, &[flag]);
            if said.code == Some(0) {
                return killed;
            }
            assert_eq!(said.code, None, "{}\n{}", said.out, said.err);
            killed += 1;
            assert!(killed <= most, "it does not get on");
        }
    }

    /// How many times a whole change writes its journal.
    fn writes(&self) -> usize {
        switching::writes(&self.machine, &[])
    }

    fn containers(&self) -> Vec<String> {
        let list = self.machine.sure(&["nodectl", "cri", "-r", ENDPOINT, "ps", "-o", "json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let name =
            |container: &Value| container["labels"]["io.kubernetes.pod.name"].as_str().unwrap().to_owned();
        list["containers"].as_array().unwrap().iter().map(name).collect()
    }

    #[track_caller]
    fn is_moved(&self) {
        let units = self.machine.units();
        let unit = |name: &str| (units[name].0.as_str(), units[name].1.as_str());
        assert_eq!(unit("kubelet.service"), ("active", "enabled"));
        assert_eq!(unit("containerd.service"), ("active", "enabled"));
        assert_eq!(unit("docker.service"), ("inactive", "disabled"));
        assert_eq!(unit("docker.socket"), ("inactive", "disabled"));
        let flags = self.machine.read("/var/lib/kubelet/kubeadm-flags.env");
        assert!(flags.contains("--container-runtime=remote"), "{flags}");
        assert!(flags.contains(&format!("--container-runtime-endpoint={ENDPOINT}")), "{flags}");
        assert!(self.machine.read("/etc/crictl.yaml").contains(ENDPOINT));
        let config = self.machine.read("/etc/containerd/config.toml");
        assert!(config.contains("SystemdCgroup = true"), "{config}");
        wait_until(SOON, "the pod serves", || self.machine.pod_serves());
        // containerd 1.6 does not always know a container again that it has just started when it was stopped; kubelet
        // makes such a one anew.
        wait_until(SOON, "the pod is containerd's", || self.containers() == ["web-node1"]);
        self.nothing_is_left();
    }

    /// Nothing of the change itself, but for its journal.
    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.machine.try_read(&format!("{STATE}/unfinished")), None);
        let left: Vec<_> = self
            .machine
            .files()
            .into_keys()
            .filter(|path| OURS.iter().any(|ours| path.to_string_lossy().ends_with(ours)))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[track_caller]
    fn is_as_before(&self) {
        self.before.is_back(&self.machine);
    }
}

/// Whether a table for people has a line.
fn told(table: &str, name: &str, value: &str) -> bool {
    table
        .lines()
        .any(|line| line.split_once(':').is_some_and(|(key, rest)| key == name && rest.trim() == value))
}

#[test]
fn a_node_is_moved_and_moved_back() {
    let node = Node::new("there", Release::Machine, Config::Docker);
    let detected = node.switch(&["--detect", "-o", "json"]).ended(0).json();
    assert_eq!(detected["kubelet"]["version"], "v1.20.2");
    assert_eq!(detected["kubelet"]["runtime"], "docker");
    assert_eq!(detected["kubelet"]["staticPods"], serde_json::json!(["default/web-node1"]));
    assert_eq!(detected["init"]["name"], "systemd");
    assert_eq!(detected["docker"]["answers"], true);
    assert_eq!(detected["units"]["docker.socket"]["enabled"], "enabled");
    assert_eq!(detected["containerd"]["cgroupDriver"], "cgroupfs");
    assert_eq!(detected["containerd"]["pods"], serde_json::json!([]));
    let text = node.switch(&["--detect"]).ended(0).out;
    assert!(text.contains("Docker:") && told(&text, "Pods in Docker", "default/web-node1"), "{text}");

    // Looking changes nothing, and leaves nothing.
    let looked = node.switch(&["--dry-run"]).ended(0).out;
    assert!(
        looked.contains("stop kubelet.service") && looked.contains("+++ b/etc/containerd/config.toml"),
        "{looked}"
    );
    let checked = node.switch(&["--check", "-o", "json"]).ended(0).json();
    assert_eq!((&checked["changed"], &checked["outcome"]), (&Value::from(true), &Value::from("planned")));
    node.is_as_before();
    assert!(!node.machine.outside(STATE).exists());
    // Nobody is asked without a terminal.
    let unasked = node.switch(&[]).ended(3);
    assert!(unasked.err.contains("error: nobody is asked without a terminal"), "{}", unasked.err);
    node.is_as_before();

    let done = node.switch(&["--yes", "-o", "json"]).ended(0);
    let report = done.json();
    assert_eq!((&report["changed"], &report["outcome"]), (&Value::from(true), &Value::from("done")));
    assert_eq!(report["steps"], checked["steps"]);
    assert_eq!(report["diff"], checked["diff"]);
    node.is_moved();
    // The images that its pods use came along, with their names, as nobody could have pulled them here.
    let images = node.machine.sure(&["ctr", "-n", "k8s.io", "images", "ls", "-q"]);
    assert!(images.contains("k8s.gcr.io/pause:3.2\n"), "{images}");
    let moved = node.machine.files();
    let detected = node.switch(&["--detect", "-o", "json"]).ended(0).json();
    assert_eq!(detected["containerd"]["cgroupDriver"], "systemd");
    let [pod] = detected["containerd"]["pods"].as_array().unwrap().as_slice() else { panic!("{detected}") };
    assert_eq!((&pod["namespace"], &pod["name"]), (&Value::from("default"), &Value::from("web-node1")));
    let text = node.switch(&["--detect"]).ended(0).out;
    assert!(text.contains("cgroup driver systemd, serves CRI, 1 pods\n"), "{text}");
    assert!(told(&text, "Pods in containerd", "default/web-node1"), "{text}");
    // What runs counts, not a file that has not been read yet.
    let config = node.machine.outside("/etc/containerd/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let times = std::fs::metadata(&config).unwrap().modified().unwrap();
    std::fs::write(&config, text.replace("SystemdCgroup = true", "SystemdCgroup = false")).unwrap();
    let detected = node.switch(&["--detect", "-o", "json"]).ended(0).json();
    assert_eq!(detected["containerd"]["cgroupDriver"], "systemd");
    std::fs::write(&config, text).unwrap();
    std::fs::File::options().append(true).open(&config).unwrap().set_modified(times).unwrap();

    for again in [&["--yes"][..], &["--yes", "--from", "docker"], &["--check"], &["--dry-run"]] {
        let again = node.switch(&[again, &["-o", "json"]].concat()).ended(0).json();
        assert_eq!(
            (&again["changed"], &again["outcome"]),
            (&Value::from(false), &Value::from("nothing-to-do"))
        );
    }
    assert_eq!(differences(&moved, &node.machine.files()), Vec::<String>::new());
    // It stays so when the node is booted.
    node.machine.power_cut();
    node.is_moved();

    let history = node.switch(&["history", "-o", "json"]).ended(0).json();
    assert_eq!((history.as_array().unwrap().len(), &history[0]["outcome"]), (1, &Value::from("done")));
    let back = node.switch(&["rollback", "--yes", "-o", "json"]).ended(0).json();
    assert_eq!((&back["changed"], &back["outcome"]), (&Value::from(true), &Value::from("rolled-back")));
    node.is_as_before();
    let again = node.switch(&["rollback", "--yes"]).ended(3);
    assert!(again.err.contains("there is no change of this node that is done"), "{}", again.err);
    assert!(node.switch(&["history"]).ended(0).out.contains("rolled back"));
}

#[test]
fn without_a_configuration_of_containerd_it_begins_with_the_default() {
    let node = Node::new("missing", Release::Machine, Config::Missing);
    let detected = node.switch(&["--detect", "-o", "json"]).ended(0).json();
    assert_eq!(detected["containerd"]["cgroupDriver"], "cgroupfs");
    node.switch(&["--yes"]).ended(0);
    node.is_moved();
    let config = node.machine.read("/etc/containerd/config.toml");
    assert!(config.contains("stream_idle_timeout"), "all of the default is there: {config}");
    let again = node.switch(&["--yes", "-o", "json"]).ended(0).json();
    assert_eq!(again["outcome"], "nothing-to-do");
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
}

#[test]
fn a_kubelet_that_containerd_2_does_not_understand_is_refused_and_nodectl_takes_its_place() {
    let node = Node::new("two", Release::Two, Config::Docker);
    let refused = node.switch(&["--yes"]).ended(3);
    assert!(refused.err.contains("error: kubelet 1.20 speaks CRI v1alpha2 alone"), "{}", refused.err);
    let report = node.switch(&["--yes", "-o", "json"]).ended(3).json();
    assert_eq!((&report["changed"], &report["outcome"]), (&Value::from(false), &Value::from("refused")));
    node.is_as_before();

    node.switch(&["--yes", "--agent", "nodectl"]).ended(0);
    let state = node.machine.sure(&["systemctl", "is-active", "nodectl.service", "containerd.service"]);
    assert_eq!(state, "active\nactive\n");
    wait_until(SOON, "the pod serves", || node.machine.pod_serves());
    wait_until(SOON, "the pod is containerd's", || node.containers() == ["web-node1"]);
    assert_eq!(node.machine.units()["kubelet.service"], ("inactive".to_owned(), "disabled".to_owned()));
    let dump = node.machine.sure(&["containerd", "config", "dump"]);
    assert!(dump.contains("SystemdCgroup = true"), "{dump}");
    node.nothing_is_left();
    let again = node.switch(&["--yes", "--agent", "nodectl", "-o", "json"]).ended(0).json();
    assert_eq!(again["changed"], false);
    node.switch(&["rollback", "--yes"]).ended(0);
    node.is_as_before();
}

#[test]
fn what_fails_on_the_way_is_put_back() {
    let node = Node::new("fails", Release::Machine, Config::Docker);
    // No registry answers here, so that the sandbox does not start.
    let failed = node.switch(&["--yes", "--pause-image", "localhost:1/none:1", "-o", "json"]).ended(4);
    let report = failed.json();
    assert_eq!((&report["changed"], &report["outcome"]), (&Value::from(false), &Value::from("rolled-back")));
    assert!(report["error"].as_str().unwrap().contains("localhost:1/none:1"), "{report}");
    node.is_as_before();
    // A network that does not come up.
    node.machine.put(
        "/etc/cni/net.d/05-broken.conflist",
        "{\"cniVersion\": \"0.4.0\", \"name\": \"x\", \"plugins\": [{\"type\": \"nothing\"}]}",
        0o644,
    );
    let refused = node.switch(&["--yes"]).ended(3);
    assert!(
        refused.err.contains("names plugins that are not in") && refused.err.contains(": nothing"),
        "{}",
        refused.err
    );
    std::fs::remove_file(node.machine.outside("/etc/cni/net.d/05-broken.conflist")).unwrap();
    // A configuration that is none.
    let config = node.machine.read("/etc/containerd/config.toml");
    node.machine.put("/etc/containerd/config.toml", "disabled_plugins = [\n", 0o644);
    let refused = node.switch(&["--yes"]).ended(3);
    assert!(refused.err.contains("/etc/containerd/config.toml is not valid TOML"), "{}", refused.err);
    node.machine.put("/etc/containerd/config.toml", &config, 0o644);
    // Somebody else's container.
    let image = node.machine.sure(&["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let image = image.lines().find(|image| image.contains("busybox")).expect("busybox is there").to_owned();
    node.machine.sure(&[
        "docker",
        "run",
        "-d",
        "--name",
        "mine",
        "--network",
        "host",
        &image,
        "busybox",
        "sleep",
        "3000",
    ]);
    let refused = node.switch(&["--yes"]).ended(3);
    assert!(refused.err.contains("not Kubernetes' and that will be stopped: mine"), "{}", refused.err);
    node.machine.sure(&["docker", "rm", "-f", "mine"]);
    assert!(node.machine.pod_serves());
}

/// Several machines share the steps, as most of the time is waited: for a kubelet to stay.
const MACHINES: usize = 3;

/// The signal comes while a step is done: one of each kind, as each of a kind is left in its middle alike.
fn interrupted(part: usize) {
    let node = Node::new("term", Release::Machine, Config::Docker);
    let plan = node.switch(&["--dry-run", "-o", "json"]).ended(0).json();
    let mut kinds = BTreeMap::new();
    for (step, told) in plan["steps"].as_array().unwrap().iter().enumerate() {
        kinds.entry(told["action"].as_str().unwrap()).or_insert(step);
    }
    assert!(kinds.len() >= 15, "{kinds:?}");
    for step in kinds.into_values().skip(part).step_by(2) {
        let said = node.struck("SIGTERM", 2 + 2 * step, &["--yes"]);
        assert_eq!(said.code, Some(4), "step {step}: {}\n{}", said.out, said.err);
        assert!(said.err.contains("interrupted by SIGTERM"), "{}", said.err);
        node.is_as_before();
    }
}

#[test]
fn interrupted_at_every_kind_of_step_all_is_as_before_1() {
    interrupted(0);
}

#[test]
fn interrupted_at_every_kind_of_step_all_is_as_before_2() {
    interrupted(1);
}

/// Every other time as the step is begun, else as it is done.
fn killed(part: usize) {
    let node = Node::new("back", Release::Machine, Config::Docker);
    let steps = node.writes() / 2 - 1;
    for (number, step) in (part..steps).step_by(MACHINES).enumerate() {
        let said = node.struck("SIGKILL", 2 + 2 * step + number % 2, &["--yes"]);
        assert_eq!(said.code, None, "step {step}: {}\n{}", said.out, said.err);
        if number == 0 {
            let found = node.switch(&["--yes"]).ended(3);
            assert!(
                found.err.contains("was cut short after") && found.err.contains("--resume goes on"),
                "{}",
                found.err
            );
            node.switch(&["--dry-run"]).ended(3);
        }
        node.switch(&["--rollback"]).ended(0);
        node.is_as_before();
    }
}

#[test]
fn killed_at_every_step_all_can_be_put_back_1() {
    killed(0);
}

#[test]
fn killed_at_every_step_all_can_be_put_back_2() {
    killed(1);
}

#[test]
fn killed_at_every_step_all_can_be_put_back_3() {
    killed(2);
}

#[test]
fn killed_at_every_step_it_can_be_gone_on_with() {
    let node = Node::new("on", Release::Machine, Config::Docker);
    let writes = node.writes();
    assert_eq!(node.struck("SIGKILL", 2, &["--yes"]).code, None);
    // Its second write: the step that was begun comes to its end, and the next one begins.
    let killed = node.killed_until_done(2, "--resume", writes, || {});
    assert!(killed >= writes / 2 - 2, "{killed} of {writes}");
    node.is_moved();
    let none = node.switch(&["--resume"]).ended(0);
    assert!(none.err.contains("there is no change that was cut short"), "{}", none.err);

    // And the same on the way back.
    assert_eq!(node.struck("SIGKILL", 2, &["rollback", "--yes"]).code, None);
    let found = node.switch(&["--resume"]).ended(3);
    assert!(found.err.contains("cut short while it was being taken back"), "{}", found.err);
    let killed = node.killed_until_done(1, "--rollback", writes, || {});
    assert!(killed >= writes / 2 - 2, "{killed} of {writes}");
    node.is_as_before();
}

#[test]
fn cut_from_power_at_any_step_one_comes_to_either_end() {
    let node = Node::new("power", Release::Machine, Config::Docker);
    let writes = node.writes();
    for at in (2..writes).step_by(7) {
        assert_eq!(node.struck("SIGKILL", at, &["--yes"]).code, None);
        node.machine.power_cut();
        node.switch(&["--rollback"]).ended(0);
        node.is_as_before();
    }
    assert_eq!(node.struck("SIGKILL", 4, &["--yes"]).code, None);
    let cut = node.killed_until_done(10, "--resume", writes, || node.machine.power_cut());
    assert!(cut >= 3, "{cut}");
    node.is_moved();
    node.machine.power_cut();
    assert_eq!(node.struck("SIGKILL", 8, &["rollback", "--yes"]).code, None);
    node.machine.power_cut();
    node.switch(&["--rollback"]).ended(0);
    node.is_as_before();
}
