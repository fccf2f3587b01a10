//! The command line's side of the operator socket: one request, one bounded answer, and errors that say
//! what to do.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::local::{HealthAnswer, PodsAnswer};
use crate::error::CommandError;

/// The agent answers from memory; what takes this long does not come.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A pod is some 10 KiB of JSON.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why the running agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it, or it may not be used.
    #[error("cannot reach the agent on {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the agent on {path} did not answer: {message}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The cause.
        message: String,
    },
    /// No answer in time.
    #[error("the agent on {path} did not answer within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// Something else listens there, or another version.
    #[error("the answer on {path} is not that of this version's agent: {message}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let hints: &[&str] = match &error {
            ClientError::Connect { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => &[
                    "the agent is not running, or listens elsewhere (--socket): see `systemctl status nodectl`",
                ],
                io::ErrorKind::ConnectionRefused => {
                    &["the agent was killed and has not been started again: see `systemctl status nodectl`"]
                }
                io::ErrorKind::PermissionDenied => &["the socket is for root only: use sudo"],
                _ => &[],
            },
            ClientError::Broken { .. } => {
                &["if you are not root, use sudo; else see `journalctl -u nodectl`"]
            }
            ClientError::Timeout { .. } => {
                &["see `journalctl -u nodectl`; the systemd watchdog restarts an agent that hangs"]
            }
            ClientError::Answer { .. } => {
                &["an agent of another version runs: restart it (pods keep running), or use its own nodectl"]
            }
        };
        hints.iter().fold(Self::failed(error), |error, hint| error.hint(*hint))
    }
}

/// Asks for the pods.
///
/// # Errors
/// See [`ClientError`].
pub async fn pods(socket: &Path) -> Result<PodsAnswer, ClientError> {
    get(socket, "/v1/pods").await
}

/// Asks for the health checks.
///
/// # Errors
/// See [`ClientError`].
pub async fn health(socket: &Path) -> Result<HealthAnswer, ClientError> {
    get(socket, "/v1/health").await
}

async fn get<T: DeserializeOwned>(socket: &Path, path: &'static str) -> Result<T, ClientError> {
    let (status, body) = timeout(TIMEOUT, request(socket, path))
        .await
        .map_err(|_elapsed| ClientError::Timeout { path: socket.to_owned() })??;
    let wrong = |message: String| ClientError::Answer { path: socket.to_owned(), message };
    if status != StatusCode::OK {
        let text: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        return Err(wrong(format!("{status}: {text}")));
    }
    serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))
}

async fn request(socket: &Path, path: &'static str) -> Result<(StatusCode, Bytes), ClientError> {
    let broken = |message: String| ClientError::Broken { path: socket.to_owned(), message };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Connect { path: socket.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok((status, body.map_err(|error| broken(error.to_string()))?.to_bytes()))
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection has to be driven while the answer is awaited; if it ends first, the exchange knows.
    tokio::select! {
        done = exchange.as_mut() => done,
        _ = connection => exchange.await,
    }
}
