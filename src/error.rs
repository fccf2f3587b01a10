//! The one boundary between errors and exit codes. Modules have error types of their own; a command turns
//! what it cannot handle into a [`CommandError`], and `main` prints it and exits with its code.

use std::{error::Error, fmt, process::ExitCode};

/// What kind of failure it is; each kind has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It was tried and failed: exit code 1.
    Failed,
    /// Wrong usage or an invalid configuration: exit code 2.
    Usage,
    /// A check before the start refused: exit code 3.
    Refused,
    /// Failed, and all changes were rolled back: exit code 4.
    RolledBack,
    /// Failed, and the rollback failed too: exit code 5.
    RollbackFailed,
}

impl ErrorKind {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::RolledBack => 4,
            Self::RollbackFailed => 5,
        }
    }
}

/// An error on its way out of the program, with what the user can do about it.
#[derive(Debug)]
pub struct CommandError {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What went wrong, with its causes.
    pub source: Box<dyn Error + Send + Sync>,
    /// What to do about it, one sentence each.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error of a kind, without hints.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into(), hints: Vec::new() }
    }

    /// [`ErrorKind::Failed`].
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Failed, source)
    }

    /// [`ErrorKind::Usage`].
    pub fn usage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Usage, source)
    }

    /// [`ErrorKind::Refused`].
    pub fn refused(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Refused, source)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The process exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", chain(&*self.source))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// An error and its causes in one line, `outer: inner: innermost`; a cause that its parent already spells
/// out is not said twice.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// Text without control characters: what a container wrote as its last words goes to root's terminal, and
/// an escape sequence there can retitle, erase or worse.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_and_hints_are_told() {
        let error = CommandError::refused(Outer(std::io::Error::other("inner"))).hint("do this");
        assert_eq!(error.to_string(), "outer: inner\nhint: do this");
        assert_eq!(error.kind.code(), 3);
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading: {0}")]
        struct Says(#[source] std::io::Error);
        assert_eq!(chain(&Says(std::io::Error::other("denied"))), "reading: denied");
    }
}
