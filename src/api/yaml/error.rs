//! Why a document cannot be read. Each reader puts these into its own words for its own users.

/// One thing wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field, as in `spec.containers[0].image`; empty for the whole document.
    pub path: String,
    /// 1-based line, 0 where it is not known.
    pub line: u32,
    /// 1-based column, 0 where it is not known.
    pub column: u32,
    /// What is wrong.
    pub detail: String,
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// More bytes than the limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Nothing but white space, comments, document markers and null.
    #[error("empty")]
    Empty,
    /// Not text at all.
    #[error("not UTF-8 text: {reason} at byte {offset}")]
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
    /// A second document, of which kubelet would read nothing without saying so.
    #[error("line {line} starts a second document")]
    MultipleDocuments {
        /// 1-based line where the second document starts.
        line: u32,
    },
    /// The document unfolds to more than is sane; stops alias bombs.
    #[error("more than {limit} {what} once aliases are expanded")]
    TooComplex {
        /// `values` or `bytes`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Duplicate keys, unknown tags and the like. Never empty.
    #[error("{}", .0.iter().map(|fault| fault.detail.as_str()).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
}
