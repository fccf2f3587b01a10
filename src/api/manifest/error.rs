//! What can be wrong with a manifest, in words that name the field and, where it is known, the line.

use std::fmt;

use crate::api::yaml::{Fault, YamlError};

/// One problem with one field of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldProblem {
    /// The field in the notation of Kubernetes' own validation: `spec.containers[0].image`.
    pub path: String,
    /// The 1-based line of the manifest that holds the field, where the format tells it.
    pub line: Option<u32>,
    /// What is wrong, and where possible what to do about it.
    pub detail: String,
}

impl FieldProblem {
    /// A problem whose line is not known (yet).
    pub fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, detail: detail.into() }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.detail)?;
        } else {
            write!(f, "{}: {}", self.path, self.detail)?;
        }
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// Why a manifest is refused.
///
/// The message does not name the file or URL: the caller, which knows it, puts it in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than [`super::MAX_MANIFEST_BYTES`].
    #[error("manifest is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Nothing but white space, comments and document markers.
    #[error("manifest is empty")]
    Empty,
    /// Not text at all.
    #[error("manifest is not UTF-8 text: {reason} at byte {offset}")]
    Binary {
        /// What was found.
        reason: &'static str,
        /// Where, counted from 0.
        offset: usize,
    },
    /// Neither YAML nor JSON.
    #[error("{format} syntax error at line {line}, column {column}: {message}")]
    Syntax {
        /// `YAML` or `JSON`.
        format: &'static str,
        /// 1-based line.
        line: usize,
        /// 1-based column.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A second YAML document, of which kubelet would read nothing without saying so.
    #[error(
        "line {line} starts a second YAML document: a manifest holds one pod, put each pod in a file of its own"
    )]
    MultipleDocuments {
        /// 1-based line where the second document starts.
        line: u32,
    },
    /// The document unfolds to more than is sane; stops YAML alias bombs.
    #[error("manifest is too complex: more than {limit} {what} once YAML aliases are expanded")]
    TooComplex {
        /// `values` or `bytes`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// One or more fields are wrong. Never empty.
    #[error("{}", join(.0))]
    Fields(Vec<FieldProblem>),
}

impl ManifestError {
    /// A refusal for one field.
    pub fn field(path: impl Into<String>, line: Option<u32>, detail: impl Into<String>) -> Self {
        Self::Fields(vec![FieldProblem { path: path.into(), line, detail: detail.into() }])
    }
}

impl From<YamlError> for ManifestError {
    fn from(error: YamlError) -> Self {
        match error {
            YamlError::TooLarge { limit } => Self::TooLarge { limit },
            YamlError::Empty => Self::Empty,
            YamlError::Binary { reason, offset } => Self::Binary { reason, offset },
            YamlError::Syntax { format, line, column, message } => {
                Self::Syntax { format, line, column, message }
            }
            YamlError::MultipleDocuments { line } => Self::MultipleDocuments { line },
            YamlError::TooComplex { what, limit } => Self::TooComplex { what, limit },
            YamlError::Faults(faults) => Self::Fields(faults.into_iter().map(FieldProblem::from).collect()),
        }
    }
}

impl From<Fault> for FieldProblem {
    fn from(fault: Fault) -> Self {
        Self { path: fault.path, line: (fault.line > 0).then_some(fault.line), detail: fault.detail }
    }
}

fn join(problems: &[FieldProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
