//! `nodectl switch-runtime` in a machine: what it said, and how it is struck on the way.

use std::collections::BTreeMap;

use serde_json::Value;

use super::machine::Machine;
use super::machine_files::{Files, differences};
pub(crate) use super::said::Said;
use super::{SOON, wait_until};

/// Where changes are kept.
pub(crate) const STATE: &str = "/var/lib/nodectl/switch";

/// A node on Docker as it was: its files, and its units' states.
pub(crate) struct Before {
    pub(crate) files: Files,
    pub(crate) units: BTreeMap<String, (String, String)>,
}

impl Before {
    pub(crate) fn of(machine: &Machine) -> Self {
        Self { files: machine.files(), units: machine.units() }
    }

    /// It is so again: files, units, and the static pod in Docker and nowhere else.
    #[track_caller]
    pub(crate) fn is_back(&self, machine: &Machine) {
        assert_eq!(differences(&self.files, &machine.files()), Vec::<String>::new());
        assert_eq!(machine.units(), self.units);
        wait_until(SOON, "the pod serves", || machine.pod_serves());
        let names = machine.sure(&["docker", "ps", "--format", "{{.Names}}"]);
        assert_eq!(names.lines().filter(|name| name.contains("_web-node1_")).count(), 2, "{names}");
        let others = machine.sure(&["ctr", "-n", "k8s.io", "containers", "ls", "-q"]);
        assert_eq!(others, "", "nothing runs in containerd");
        assert_eq!(machine.try_read(&format!("{STATE}/unfinished")), None);
        let needs = ["systemctl", "show", "--property=NeedDaemonReload", "--value", "kubelet", "containerd"];
        assert!(!machine.sure(&needs).contains("yes"), "systemd knows the units as they are");
    }
}

/// The command to its end.
pub(crate) fn switch(machine: &Machine, arguments: &[&str]) -> Said {
    Said::of(&machine.nodectl(&[&["switch-runtime"], arguments].concat()))
}

/// The command with a signal at its so-manieth write of the journal.
pub(crate) fn struck(machine: &Machine, signal: &str, at: usize, arguments: &[&str]) -> Said {
    let inject = format!("inject=fdatasync:signal={signal}:when={at}");
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    Said::of(&machine.run(&[&strace[..], &["nodectl", "switch-runtime"], arguments].concat()))
}

/// How many times a whole change writes its journal: the plan, each step's beginning and end, the end.
#[track_caller]
pub(crate) fn writes(machine: &Machine, arguments: &[&str]) -> usize {
    let plan = switch(machine, &[arguments, &["--dry-run", "-o", "json"]].concat()).ended(0).json();
    plan["steps"].as_array().expect("steps").len() * 2 + 2
}

/// Gives a step of the change that was cut short seconds in place of minutes.
#[track_caller]
pub(crate) fn hurry(machine: &Machine, action: &str) {
    let list = machine.sure(&["sh", "-c", &format!("ls -d {STATE}/*/journal | tail -n 1")]);
    let path = list.trim();
    let text = machine.read(path);
    let (first, rest) = text.split_once('\n').expect("a line");
    let mut first: Value = serde_json::from_str(first).expect("a line of JSON");
    let steps = first["steps"].as_array_mut().expect("steps");
    let step = steps.iter_mut().find(|step| step["action"] == action).expect("such a step");
    step["timeout"] = 10.into();
    machine.put(path, &format!("{first}\n{rest}"), 0o600);
}
