//! `nodectl switch-runtime` in a machine: what it said, and how it is struck on the way.

use super::machine::Machine;
pub(crate) use super::said::Said;

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
