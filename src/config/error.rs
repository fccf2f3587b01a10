//! What can be wrong with a configuration, and where.
//!
//! A configuration is read to its end before anything is reported, so that one run names every
//! problem. Values of keys that may hold credentials are never part of a message.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place in a configuration file.
    File {
        /// Path as it was given.
        path: Arc<Path>,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
    },
    /// A command line flag, by its name without dashes.
    Flag(Arc<str>),
    /// Not configured anywhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Flag(name) if name.len() == 1 => write!(f, "-{name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that makes a configuration invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub origin: Origin,
    /// The key, as a path with points ("authentication.webhook.cacheTTL"); empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// A known name close to an unknown one.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem without a suggestion.
    pub(super) fn new(origin: &Origin, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), key: key.into(), message: message.into(), suggestion: None }
    }

    /// The same problem with a suggestion, if there is one.
    pub(super) fn suggest(mut self, suggestion: Option<&str>) -> Self {
        self.suggestion = suggestion.map(str::to_owned);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(name) => write!(f, " (did you mean {name:?}?)"),
            None => Ok(()),
        }
    }
}

/// Why a configuration cannot be used. All of these are the user's to mend: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Read {
        /// What it was to be read as.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is longer than [`super::MAX_FILE_BYTES`].
    #[error("{} is larger than {limit} bytes, too large for a kubelet configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A drop-in folder holds more than [`super::MAX_DROP_INS`] files, or folders too deep.
    #[error("{} holds more drop-ins than the {limit} allowed, or folders nested too deep", path.display())]
    TooManyDropIns {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The machine's own host name cannot be used as the node name.
    #[error("cannot use the machine's host name as node name: {cause}; set --hostname-override")]
    Hostname {
        /// The cause.
        cause: String,
    },
    /// The command line or a file says something wrong.
    #[error("invalid configuration:{}", list(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The problems inside, if it is the contents that are wrong.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            _ => &[],
        }
    }
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => format!(" {one}"),
        many => many.iter().map(|problem| format!("\n  {problem}")).collect(),
    }
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// A flag for which a configuration key should be used.
    Deprecated,
    /// A key, flag or gate that Kubernetes has removed.
    Removed,
    /// A key or flag that has no effect in current Kubernetes either.
    NoEffect,
    /// A key or flag that nodectl knows and does not yet act on.
    NotYet,
}

impl WarningKind {
    /// A stable name for machine-readable output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deprecated => "deprecated",
            Self::Removed => "removed",
            Self::NoEffect => "noEffect",
            Self::NotYet => "notYet",
        }
    }
}

/// Something in a configuration that is accepted and worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// What it is about.
    pub kind: WarningKind,
    /// Where it is.
    pub origin: Origin,
    /// The key path, or the flag's name.
    pub key: String,
    /// What to know.
    pub message: String,
}

impl ConfigWarning {
    pub(super) fn new(kind: WarningKind, origin: &Origin, key: impl Into<String>, message: String) -> Self {
        Self { kind, origin: origin.clone(), key: key.into(), message }
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Flag(_) => write!(f, "{}: {}", self.origin, self.message),
            _ => write!(f, "{}: {}: {}", self.origin, self.key, self.message),
        }
    }
}
