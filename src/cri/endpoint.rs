//! Where a runtime listens, and what is wrong with the socket when nobody answers there.
//!
//! "Connection refused" or "no such file" leave the operator guessing; the file at the path knows
//! more, so it is looked at before the error is told.

use std::{
    fmt, fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The longest path that the kernel takes for a socket, in bytes, without the closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// A runtime's unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuntimeEndpoint {
    path: PathBuf,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing was given.
    #[error("the runtime endpoint is empty; give a socket, as in unix:///run/containerd/containerd.sock")]
    Empty,
    /// A transport other than a unix socket.
    #[error(
        "runtime endpoint {0:?}: only unix sockets are supported, as in unix:///run/containerd/containerd.sock"
    )]
    Scheme(String),
    /// A path that depends on the working folder.
    #[error(
        "runtime endpoint {0:?}: the socket's path must be absolute, as in unix:///run/containerd/containerd.sock"
    )]
    Relative(String),
    /// A path that no socket can have.
    #[error("runtime endpoint {0:?}: a socket's path has at most {MAX_SOCKET_PATH} bytes, none of them NUL")]
    Path(String),
}

impl RuntimeEndpoint {
    /// Where containerd, CRI-O and cri-dockerd listen by default, in the order in which crictl
    /// looks for them.
    #[must_use]
    pub fn well_known() -> Vec<Self> {
        ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"]
            .into_iter()
            .map(|path| Self { path: PathBuf::from(path) })
            .collect()
    }

    /// The socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for RuntimeEndpoint {
    type Err = EndpointError;

    /// Takes `unix:///path`, `unix:/path` and a bare `/path`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let path = if let Some(path) = text.strip_prefix("unix://") {
            path
        } else if let Some(path) = text.strip_prefix("unix:") {
            path
        } else if text.contains("://") || text.starts_with("npipe:") || text.starts_with("tcp:") {
            return Err(EndpointError::Scheme(text.to_owned()));
        } else {
            text
        };
        if !path.starts_with('/') {
            return Err(EndpointError::Relative(text.to_owned()));
        }
        if path.len() > MAX_SOCKET_PATH || path.contains('\0') {
            return Err(EndpointError::Path(text.to_owned()));
        }
        Ok(Self { path: PathBuf::from(path) })
    }
}

impl fmt::Display for RuntimeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.path.display())
    }
}

/// Why a socket could not be connected to, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SocketProblem {
    /// There is nothing at the path.
    #[error("the socket {} does not exist; is the container runtime installed and running?", .0.display())]
    Missing(PathBuf),
    /// A socket that outlived its listener.
    #[error(
        "the socket {} exists but nobody listens on it, as after a runtime that crashed; start the \
         container runtime", .0.display()
    )]
    Stale(PathBuf),
    /// A folder, which container engines make where a bind mount's source is missing.
    #[error("{} is a directory, not a socket; check the runtime endpoint", .0.display())]
    Directory(PathBuf),
    /// Some other file.
    #[error("{} is a file, not a socket; check the runtime endpoint", .0.display())]
    NotASocket(PathBuf),
    /// The caller may not use it.
    #[error("permission denied on the socket {}; run as root", .0.display())]
    Denied(PathBuf),
    /// The kernel queues no more connections.
    #[error("the runtime behind the socket {} accepts no connections; it may hang", .0.display())]
    Busy(PathBuf),
    /// Anything else.
    #[error("cannot connect to the socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SocketProblem {
    /// Explains a failed connect to `path`, looking at the file where the error alone is ambiguous.
    /// One quick `stat`, only after a failure.
    #[must_use]
    pub fn explain(path: &Path, source: io::Error) -> Self {
        let at = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing(at),
            io::ErrorKind::PermissionDenied => Self::Denied(at),
            io::ErrorKind::WouldBlock => Self::Busy(at),
            io::ErrorKind::ConnectionRefused => match fs::metadata(path).map(|meta| meta.file_type()) {
                Ok(kind) if kind.is_dir() => Self::Directory(at),
                Ok(kind) if !kind.is_socket() => Self::NotASocket(at),
                Ok(_) => Self::Stale(at),
                // Removed between the two looks.
                Err(_) => Self::Missing(at),
            },
            _ => Self::Io { path: at, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_usual_spellings_mean_one_socket() {
        for text in ["unix:///run/x.sock", "unix:/run/x.sock", "/run/x.sock", " /run/x.sock\n"] {
            let endpoint: RuntimeEndpoint = text.parse().expect(text);
            assert_eq!(endpoint.path(), Path::new("/run/x.sock"));
            assert_eq!(endpoint.to_string(), "unix:///run/x.sock");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        let refused = |text: &str| text.parse::<RuntimeEndpoint>().expect_err(text);
        assert_eq!(refused("  "), EndpointError::Empty);
        for text in ["tcp://localhost:3735", "tcp:localhost", "npipe:////./pipe/x", "http://x/y"] {
            let error = refused(text);
            assert_eq!(error, EndpointError::Scheme(text.to_owned()));
            assert!(error.to_string().contains("only unix sockets") && error.to_string().contains(text));
        }
        for text in ["run/x.sock", "unix://run/x.sock", "unix://", "@abstract"] {
            assert_eq!(refused(text), EndpointError::Relative(text.to_owned()));
        }
        for text in [format!("/{}", "x".repeat(MAX_SOCKET_PATH)), "/run/\0x".to_owned()] {
            assert_eq!(refused(&text), EndpointError::Path(text));
        }
        assert!(format!("/{}", "x".repeat(MAX_SOCKET_PATH - 1)).parse::<RuntimeEndpoint>().is_ok());
    }

    #[test]
    fn each_dead_socket_gets_its_own_words() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let problem = |path: &Path| {
            SocketProblem::explain(path, UnixStream::connect(path).expect_err("nobody listens"))
        };
        let missing = folder.path().join("missing");
        assert!(matches!(problem(&missing), SocketProblem::Missing(_)));
        assert!(problem(&missing).to_string().contains(missing.to_str().expect("utf-8")));
        assert!(matches!(problem(folder.path()), SocketProblem::Directory(_)));
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(matches!(problem(&file), SocketProblem::NotASocket(_)));
        assert!(matches!(problem(&file.join("below")), SocketProblem::Missing(_)));
        let stale = folder.path().join("stale");
        drop(UnixListener::bind(&stale).expect("a socket"));
        assert!(matches!(problem(&stale), SocketProblem::Stale(_)));
    }
}
