//! The operator socket: the running agent's pods and health as JSON over HTTP/1.1 on a unix socket, for
//! `nodectl pods` and `nodectl explain`.
//!
//! Pod specifications hold secrets in `env`, so it is for root alone: mode 0600 from the moment the socket
//! exists (set on the descriptor before `bind`, which on Linux becomes the file's mode, whatever the umask
//! leaves), and every peer's uid is checked, since a mode can be changed later. `GET /v1/pods` answers
//! with [`PodsAnswer`], `GET /v1/health` with [`HealthAnswer`]. The format is between one version of the
//! agent and the same version's command line, and not an interface to others; `nodectl pods -o json` is.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{Request, StatusCode, body::Incoming};
use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
    stat::{Mode, fchmod},
};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::http::{self, Accept, Answer, Limits, answer};
use crate::{
    api::view::{AgentView, HealthCheck, PodView},
    error::CommandError,
};

/// Where the agent listens if not told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nodectl/nodectl.sock";
/// `sun_path` has 108 bytes with the final zero.
const MAX_PATH_BYTES: usize = 107;

const LIMITS: Limits =
    Limits { connections: 16, header: Duration::from_secs(5), life: Duration::from_secs(30) };

/// What `GET /v1/pods` answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodsAnswer {
    /// Every pod, in order of namespace and name.
    pub pods: Vec<PodView>,
    /// Inputs that could not be used.
    pub problems: Vec<InputProblem>,
}

/// An input that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputProblem {
    /// Path or URL.
    pub origin: String,
    /// Why.
    pub reason: String,
}

/// What `GET /v1/health` answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthAnswer {
    /// All checks, the fatal ones first.
    pub checks: Vec<HealthCheck>,
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel's limit.
    #[error("socket path {path} has {bytes} bytes, and the kernel allows {MAX_PATH_BYTES}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something else stands there, and it is not removed.
    #[error("{path} is there and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another agent answers there.
    #[error("another process listens on {path}")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Others may exchange what is in the folder.
    #[error("folder {path} of the operator socket is writable for others (mode {mode:03o})")]
    OpenFolder {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl From<SocketError> for CommandError {
    /// A refusal before the start: exit code 3.
    fn from(error: SocketError) -> Self {
        let hint = match &error {
            SocketError::PathTooLong { .. } => "choose a shorter path for the operator socket".to_owned(),
            SocketError::NotASocket { path } => {
                format!("move {} away, or choose another path", path.display())
            }
            SocketError::InUse { .. } => "`nodectl pods` shows the agent that runs there".to_owned(),
            SocketError::OpenFolder { path, .. } => format!("chmod go-w {}", path.display()),
            SocketError::Io { .. } => "the agent needs root, and a writable folder for its socket".to_owned(),
        };
        Self::refused(error).hint(hint)
    }
}

/// The bound socket. Dropping it removes the file, unless another process has put its own there since.
#[derive(Debug)]
pub struct OperatorSocket {
    listener: Option<StdListener>,
    path: PathBuf,
    identity: (u64, u64),
}

impl OperatorSocket {
    /// Makes the folder (mode 0700) where it is missing, removes a socket that nobody listens on any more,
    /// and binds. Blocks on the file system only.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_PATH_BYTES {
            return Err(SocketError::PathTooLong { path: path.to_owned(), bytes });
        }
        let failed = |action| {
            let path = path.to_owned();
            move |source: io::Error| SocketError::Io { action, path, source }
        };
        let errno = |action| move |error: nix::Error| failed(action)(error.into());
        prepare_folder(path)?;
        remove_stale(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(errno("make a socket for"))?;
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(errno("set the mode of"))?;
        let address = UnixAddr::new(path).map_err(errno("use the path"))?;
        bind(fd.as_raw_fd(), &address).map_err(|error| match error {
            nix::Error::EADDRINUSE => SocketError::InUse { path: path.to_owned() },
            error => errno("bind")(error),
        })?;
        let meta = fs::symlink_metadata(path).map_err(failed("look at"))?;
        let bound = Self {
            listener: Some(StdListener::from(fd)),
            path: path.to_owned(),
            identity: (meta.dev(), meta.ino()),
        };
        let backlog = Backlog::new(16).map_err(errno("listen on"))?;
        if let Some(listener) = &bound.listener {
            listen(listener, backlog).map_err(errno("listen on"))?;
        }
        Ok(bound)
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `stop` is cancelled, and removes the socket.
    ///
    /// # Errors
    /// [`SocketError::Io`] if the listener cannot be registered with the runtime.
    pub async fn serve(
        mut self,
        view: Arc<dyn AgentView>,
        stop: CancellationToken,
    ) -> Result<(), SocketError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let listener = UnixListener::from_std(listener).map_err(|source| SocketError::Io {
            action: "listen on",
            path: self.path.clone(),
            source,
        })?;
        let listener = RootOnly { listener, own: nix::unistd::geteuid().as_raw() };
        http::serve(&listener, LIMITS, stop, move |request| respond(request, Arc::clone(&view))).await;
        Ok(())
    }
}

impl Drop for OperatorSocket {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity && meta.file_type().is_socket());
        if same && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the operator socket");
        }
    }
}

fn prepare_folder(path: &Path) -> Result<(), SocketError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let failed = |action| {
        let path = folder.to_owned();
        move |source: io::Error| SocketError::Io { action, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make the folder"))?;
    let mode = fs::metadata(folder).map_err(failed("look at the folder"))?.mode() & 0o7777;
    // In a sticky folder such as /tmp only the owner replaces a file.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(SocketError::OpenFolder { path: folder.to_owned(), mode });
    }
    Ok(())
}

/// Removes the socket of an agent that was killed. Two agents cannot do so at once: each holds the lock on
/// its root-dir, and with two root-dirs the second `bind` fails.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |action| {
        let path = path.to_owned();
        move |source: io::Error| SocketError::Io { action, path, source }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    // Non-blocking: an agent that hangs has a full backlog, which is EAGAIN here and a wait otherwise.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .map_err(|error| failed("make a socket for")(error.into()))?;
    let address = UnixAddr::new(path).map_err(|error| failed("use the path")(error.into()))?;
    match connect(probe.as_raw_fd(), &address) {
        Err(nix::Error::ECONNREFUSED) => fs::remove_file(path).map_err(failed("remove the stale socket")),
        Err(nix::Error::ENOENT) => Ok(()),
        _ => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

struct RootOnly {
    listener: UnixListener,
    own: u32,
}

impl Accept for RootOnly {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        Ok(match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == self.own => Some(stream),
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), pid = peer.pid(), "turned away from the operator socket");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell who connects to the operator socket");
                None
            }
        })
    }
}

async fn respond(request: Request<Incoming>, view: Arc<dyn AgentView>) -> Answer {
    if let Some(refused) = http::refuse_method(&request) {
        return refused;
    }
    let path = request.uri().path().to_owned();
    // Hundreds of pods make megabytes of JSON: not on the threads that run the sync loop.
    let body = tokio::task::spawn_blocking(move || match path.as_str() {
        "/v1/pods" => Some(serde_json::to_vec(&pods_answer(&*view))),
        "/v1/health" => Some(serde_json::to_vec(&HealthAnswer { checks: view.health() })),
        _ => None,
    });
    match body.await {
        Ok(Some(Ok(json))) => answer(StatusCode::OK, "application/json", json),
        Ok(None) => http::text(StatusCode::NOT_FOUND, "there is /v1/pods and /v1/health\n"),
        Ok(Some(Err(error))) => {
            http::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the answer: {error}\n"))
        }
        Err(error) => {
            http::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot make the answer: {error}\n"))
        }
    }
}

fn pods_answer(view: &dyn AgentView) -> PodsAnswer {
    let problems = view.input_problems().into_iter();
    let problems = problems.map(|(origin, reason)| InputProblem { origin, reason }).collect();
    PodsAnswer { pods: view.pods(), problems }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
