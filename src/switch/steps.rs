//! What a change of the node is made of: steps that can each be done again and taken back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files::Saved;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// A file is to have this text.
    WriteFile {
        /// Where, with no link in it.
        path: PathBuf,
        /// What.
        text: String,
        /// The access rights of a file that is not there yet; one that is keeps its own.
        mode: u32,
    },
    /// A file is to be gone.
    RemoveFile {
        /// Where.
        path: PathBuf,
    },
    /// A unit is not to run.
    StopUnit {
        /// Its name.
        unit: String,
    },
    /// A unit is to run, begun anew if it does.
    RestartUnit {
        /// Its name.
        unit: String,
    },
    /// A unit is not to be started with the node.
    DisableUnit {
        /// Its name.
        unit: String,
    },
    /// A unit is to be started with the node.
    EnableUnit {
        /// Its name.
        unit: String,
    },
    /// systemd is to read its files. So it is when this is taken back: a plan has one before it changes units'
    /// files too.
    ReloadUnits,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is for, in a sentence.
    pub why: String,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

/// How it was before a step, enough to take the step back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Before {
    /// A file that was there, and its copy.
    File {
        /// The copy and what the file was like.
        saved: Saved,
    },
    /// No file.
    NoFile {
        /// The folders above it that were not there either, the outermost first.
        folders: Vec<PathBuf>,
    },
    /// Whether a unit ran.
    Unit {
        /// It ran, or was on its way.
        active: bool,
    },
    /// Whether a unit was started with the node.
    UnitFile {
        /// It was.
        enabled: bool,
    },
    /// There is nothing to keep.
    Nothing,
}
