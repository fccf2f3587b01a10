//! Units as kubeadm, packages and people write them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    flags::{FlagError, apply, find, is_safe, remove, set, value},
    unit::{Files, Unit, load},
};

/// A file system of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node(BTreeMap<PathBuf, String>);

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
    }

    fn unit(&self) -> Unit {
        load(self, "kubelet.service").unwrap()
    }

    fn command(&self) -> String {
        let unit = self.unit();
        unit.arguments.iter().map(|argument| argument.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// With the changes made, which must be of files that are there.
    fn with(&self, changes: Vec<super::flags::Change>) -> Self {
        let mut next = self.clone();
        next.0.extend(apply(changes, |path| self.0.get(path).cloned()));
        next
    }

    fn setting(&self, name: &str, value: &str) -> Self {
        self.with(set(&self.unit(), name, value, &VARIABLES).unwrap())
    }

    fn without(&self, name: &str) -> Self {
        self.with(remove(&self.unit(), name).unwrap())
    }

    fn text(&self, path: &str) -> &str {
        &self.0[Path::new(path)]
    }
}

impl Files for Node {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = self.0.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }
}

const VARIABLES: [&str; 2] = ["KUBELET_EXTRA_ARGS", "KUBELET_KUBEADM_ARGS"];
const PACKAGED: &str = "/usr/lib/systemd/system/kubelet.service";
const PACKAGED_DROP_IN: &str = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";
const OWN_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const DEFAULT: &str = "/etc/default/kubelet";

const UNIT: &str = "[Unit]\nDescription=kubelet\n\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n\n\
                    [Install]\nWantedBy=multi-user.target\n";
const DROP_IN: &str = "# Note: This dropin only works with kubeadm and kubelet v1.11+\n[Service]\n\
    Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/b.conf --kubeconfig=/k.conf\"\n\
    Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n\
    EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\nExecStart=\n\
    ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n";

fn kubeadm() -> Node {
    Node::new(&[
        (PACKAGED, UNIT),
        (PACKAGED_DROP_IN, DROP_IN),
        (
            FLAGS,
            "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.5\"\n",
        ),
        (DEFAULT, "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.1\n"),
    ])
}

#[test]
fn the_command_line_is_what_systemd_makes_of_it() {
    let node = kubeadm();
    assert_eq!(
        node.command(),
        "/usr/bin/kubelet --bootstrap-kubeconfig=/b.conf --kubeconfig=/k.conf --config=/var/lib/kubelet/config.yaml \
         --network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.5 --node-ip=10.0.0.1"
    );
    let unit = node.unit();
    assert_eq!(unit.fragment.as_deref(), Some(Path::new(PACKAGED)));
    assert_eq!(unit.drop_ins, [Path::new(PACKAGED_DROP_IN)]);
    assert_eq!(value(&unit, "network-plugin").as_deref(), Some("cni"));
    assert_eq!(value(&unit, "container-runtime"), None);
}

#[test]
fn a_file_of_the_same_name_hides_the_packaged_one() {
    let mut node = kubeadm();
    node.0.insert(OWN_DROP_IN.into(), "[Service]\nEnvironment=KUBELET_EXTRA_ARGS=--v=2\n".to_owned());
    assert_eq!(node.command(), "/usr/bin/kubelet");
    node.0.insert(OWN_DROP_IN.into(), String::new());
    assert_eq!(node.unit().drop_ins, Vec::<PathBuf>::new());
    node.0.insert("/etc/systemd/system/kubelet.service".into(), "[Service]\nExecStart=/k --a\n".to_owned());
    assert_eq!(node.command(), "/k --a");
}

#[test]
fn a_file_of_variables_wins_over_the_units_own() {
    let mut node = kubeadm();
    let drop_in = "[Service]\nEnvironment='KUBELET_EXTRA_ARGS=--v=9' OTHER=1\n";
    node.0.insert("/etc/systemd/system/kubelet.service.d/99-mine.conf".into(), drop_in.to_owned());
    assert!(node.command().ends_with("--node-ip=10.0.0.1"));
    node.0.remove(Path::new(DEFAULT));
    assert!(node.command().ends_with("--v=9"));
    let node = node.setting("container-runtime", "remote");
    assert_eq!(
        node.text("/etc/systemd/system/kubelet.service.d/99-mine.conf"),
        "[Service]\nEnvironment='KUBELET_EXTRA_ARGS=--v=9 --container-runtime=remote' OTHER=1\n"
    );
}

#[test]
fn flags_are_changed_where_they_stand() {
    let node = kubeadm()
        .setting("container-runtime", "remote")
        .setting("container-runtime-endpoint", "unix:///run/containerd/containerd.sock")
        .setting("pod-infra-container-image", "example.com/pause:3.9")
        .without("network-plugin");
    assert_eq!(
        node.text(DEFAULT),
        "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.1 --container-runtime=remote \
         --container-runtime-endpoint=unix:///run/containerd/containerd.sock\n"
    );
    assert_eq!(
        node.text(FLAGS),
        "KUBELET_KUBEADM_ARGS=\"--pod-infra-container-image=example.com/pause:3.9\"\n"
    );
    assert_eq!(node.text(PACKAGED_DROP_IN), DROP_IN);
    assert_eq!(node.setting("container-runtime", "remote"), node);
    assert_eq!(node.without("network-plugin"), node);
}

#[test]
fn every_way_to_write_an_assignment() {
    for (text, expected) in [
        ("KUBELET_EXTRA_ARGS=\n", "KUBELET_EXTRA_ARGS=--a-b=c\n"),
        ("KUBELET_EXTRA_ARGS=\"\"\n", "KUBELET_EXTRA_ARGS=\"--a-b=c\"\n"),
        ("# x\nKUBELET_EXTRA_ARGS='--v 2' # y\n", "# x\nKUBELET_EXTRA_ARGS='--v 2' # y --a-b=c\n"),
        (
            "KUBELET_EXTRA_ARGS=\"--v=2 \\\n  --x=1\"\nZ=1",
            "KUBELET_EXTRA_ARGS=\"--v=2 \\\n  --x=1 --a-b=c\"\nZ=1",
        ),
        (
            "KUBELET_EXTRA_ARGS=--v=1\nKUBELET_EXTRA_ARGS=--v=2\n",
            "KUBELET_EXTRA_ARGS=--v=1\nKUBELET_EXTRA_ARGS=--v=2 --a-b=c\n",
        ),
    ] {
        let mut node = kubeadm();
        node.0.insert(DEFAULT.into(), text.to_owned());
        let node = node.setting("a-b", "c");
        assert_eq!(node.text(DEFAULT), expected);
        assert_eq!(value(&node.unit(), "a-b").as_deref(), Some("c"), "{text}");
        assert_eq!(node.without("a-b").text(DEFAULT), text);
    }
    for (text, expected) in [
        (
            "[Service]\nEnvironment=KUBELET_EXTRA_ARGS=--v=2 B=1\n",
            "[Service]\nEnvironment=\"KUBELET_EXTRA_ARGS=--v=2 --a-b=c\" B=1\n",
        ),
        (
            "[Service]\nEnvironment=KUBELET_EXTRA_ARGS=\n",
            "[Service]\nEnvironment=\"KUBELET_EXTRA_ARGS=--a-b=c\"\n",
        ),
        (
            "[Service]\nEnvironment=\"KUBELET_EXTRA_ARGS=\"\n",
            "[Service]\nEnvironment=\"KUBELET_EXTRA_ARGS=--a-b=c\"\n",
        ),
    ] {
        let own = "/etc/systemd/system/kubelet.service.d/20-own.conf";
        let mut node = kubeadm();
        node.0.remove(Path::new(DEFAULT));
        node.0.insert(own.into(), text.to_owned());
        let node = node.setting("a-b", "c");
        assert_eq!(node.text(own), expected);
        assert_eq!(value(&node.unit(), "a-b").as_deref(), Some("c"), "{text}");
    }
}

#[test]
fn flags_in_two_arguments_and_booleans() {
    let exec =
        "[Service]\nExecStart=/k --container_runtime docker --experimental-dockershim --v 3 \\\n  --last=1\n";
    let node = Node::new(&[(PACKAGED, exec)]);
    let unit = node.unit();
    assert_eq!(value(&unit, "container-runtime").as_deref(), Some("docker"));
    assert_eq!(value(&unit, "experimental-dockershim").as_deref(), Some("true"));
    assert_eq!(value(&unit, "v").as_deref(), Some("3"));
    let node = node.setting("container-runtime", "remote").without("v").without("experimental-dockershim");
    assert_eq!(node.text(PACKAGED), "[Service]\nExecStart=/k --container_runtime remote \\\n  --last=1\n");
    assert_eq!(node.without("last").text(PACKAGED), "[Service]\nExecStart=/k --container_runtime remote\n");
}

#[test]
fn what_cannot_be_changed_is_told() {
    let node = Node::new(&[(
        PACKAGED,
        "[Service]\nEnvironment=E=/run/x.sock\nExecStart=/k --a=unix://${E} --b=$$x\n",
    )]);
    let unit = node.unit();
    assert_eq!(node.command(), "/k --a=unix:///run/x.sock --b=$x");
    assert_eq!(remove(&unit, "a"), Err(FlagError::Composed("a".to_owned())));
    assert_eq!(set(&unit, "c", "1", &VARIABLES), Err(FlagError::NoPlace));
    for unsafe_value in ["a b", "$x", "a\"b", "%h", "a\nb", ""] {
        assert!(!is_safe(unsafe_value));
        assert!(set(&unit, "c", unsafe_value, &VARIABLES).is_err());
    }
    assert_eq!(load(&Node::default(), "kubelet.service").unwrap().arguments, []);
}

proptest! {
    #[test]
    fn a_flag_is_set_once_and_taken_back(
        extra in "(--[a-z]{1,3}(=[a-z0-9]{0,3})?( | {2}| \\\\\n )){0,4}", quote in prop_oneof![Just("\""), Just("'")],
        tail in "(# z\n|X=\"y\"\n){0,2}",
    ) {
        let extra = extra.trim_end_matches([' ', '\\', '\n']);
        // In single quotes a line that goes on would be another text.
        prop_assume!(quote == "\"" || !extra.contains('\\'));
        let mut node = kubeadm();
        let text = format!("KUBELET_EXTRA_ARGS={quote}{extra}{quote}\n{tail}");
        node.0.insert(DEFAULT.into(), text);
        let before = node.unit();
        prop_assume!(find(&before, "container-runtime-endpoint").is_empty());
        // A flag before it without a value would take it for its own.
        let alone = before.arguments.last().is_some_and(|last| !last.text.contains('='));
        prop_assume!(!alone);
        let set = node.setting("container-runtime-endpoint", "unix:///x");
        prop_assert_eq!(value(&set.unit(), "container-runtime-endpoint"), Some("unix:///x".to_owned()));
        prop_assert_eq!(&set.setting("container-runtime-endpoint", "unix:///x"), &set);
        prop_assert_eq!(set.without("container-runtime-endpoint"), node);
    }
}
