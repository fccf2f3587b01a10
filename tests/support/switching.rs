//! `nodectl switch-runtime` in a machine: what it said, and how it is struck on the way.

use std::process::Output;

use serde_json::Value;

use super::machine::Machine;

/// What the command said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// That something stands in what it said to people.
    #[track_caller]
    pub(crate) fn told(self, text: &str) -> Self {
        assert!(self.err.contains(text), "not told {text:?}:\n{}\n{}", self.out, self.err);
        self
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
