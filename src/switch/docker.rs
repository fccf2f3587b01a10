//! Docker's API over its unix socket, as far as a node is moved away from it: what it has is listed, containers
//! are ended and removed, images are streamed out of it.
//!
//! Paths have no version: a daemon takes that for its own newest, and what is asked here has been the same since
//! long before kubelet 1.20.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// Lists come from memory. With many containers dockerd takes a second or two.
const ANSWER: Duration = Duration::from_secs(10);
/// Beyond its grace period a container is killed, and its network and mounts are taken down.
const STOP: Duration = Duration::from_secs(60);
/// A container's folders are removed with it.
const REMOVE: Duration = Duration::from_secs(120);
/// dockerd gathers all layers of an image before it sends the first byte.
const SAVE_IDLE: Duration = Duration::from_secs(600);
/// A thousand containers are some 2 MiB.
const MAX_ANSWER: usize = 64 << 20;
/// An error is a sentence.
const MAX_ERROR: usize = 64 << 10;

/// Docker could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nobody listens.
    #[error("cannot reach Docker on {}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The connection broke.
    #[error("Docker on {} broke off ({what}): {why}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What was asked, as in `GET /info`.
        what: String,
        /// The cause.
        why: String,
    },
    /// No answer in time.
    #[error("Docker on {} did not answer {what} within {} s", socket.display(), within.as_secs())]
    Late {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        what: String,
        /// How long it had.
        within: Duration,
    },
    /// It refused.
    #[error("Docker refuses {what}: {message} ({status})")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        status: StatusCode,
        /// In its words.
        message: String,
    },
    /// The answer is not Docker's.
    #[error("the answer to {what} on {} is not Docker's: {why}", socket.display())]
    Answer {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl DockerError {
    /// Whether Docker said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// Docker's API. Each call is a connection of its own.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: PathBuf,
}

/// A request that is answered, and the connection that its body comes over.
struct Answer {
    response: Response<Incoming>,
    /// Drives the connection, and closes it when this is dropped.
    _connection: AbortOnDropHandle<()>,
}

impl Docker {
    /// Behind a socket. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something that is JSON: a path with a query, as in `/containers/json?all=1`. At most 10 s and 64 MiB.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, DockerError> {
        let bytes = self.call(Method::GET, path, ANSWER).await?;
        serde_json::from_slice(&bytes).map_err(|error| DockerError::Answer {
            socket: self.socket.clone(),
            what: format!("GET {path}"),
            why: error.to_string(),
        })
    }

    /// Has something done, without a body, and answers what Docker says to it.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn post(&self, path: &str, limit: Duration) -> Result<Bytes, DockerError> {
        self.call(Method::POST, path, limit).await
    }

    /// Ends a container: its stop signal, and after `seconds` the kill. One that is not there or does not run is
    /// fine. Waited for a minute longer.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn stop_container(&self, id: &str, seconds: u32) -> Result<(), DockerError> {
        let path = format!("/containers/{}/stop?t={seconds}", escaped(id));
        match self.post(&path, STOP + Duration::from_secs(seconds.into())).await {
            Err(DockerError::Refused {
                status: StatusCode::NOT_MODIFIED | StatusCode::NOT_FOUND, ..
            }) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Removes a container with its anonymous volumes, as dockershim does; one that runs is killed. One that is not
    /// there, or is being removed, is fine.
    ///
    /// # Errors
    /// See [`DockerError`].
    pub async fn remove_container(&self, id: &str) -> Result<(), DockerError> {
        let path = format!("/containers/{}?force=1&v=1", escaped(id));
        match self.call(Method::DELETE, &path, REMOVE).await {
            Err(DockerError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(DockerError::Refused { status: StatusCode::CONFLICT, message, .. })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Images as `docker save` writes them: a tar archive with all of `names` (`NAME:TAG`), layers that they share
    /// once.
    ///
    /// # Errors
    /// See [`DockerError`]; one of them that is not there is refused.
    pub async fn save_images(&self, names: &[String]) -> Result<ImageArchive, DockerError> {
        let names: Vec<String> = names.iter().map(|name| format!("names={}", escaped(name))).collect();
        let path = format!("/images/get?{}", names.join("&"));
        let what = "GET /images/get".to_owned();
        let work = self.send(Method::GET, &path);
        let answer = timeout(SAVE_IDLE, work).await.map_err(|_elapsed| self.late(&what, SAVE_IDLE))??;
        let answer = self.accepted(answer, &what).await?;
        Ok(ImageArchive { docker: self.clone(), what, answer })
    }

    async fn call(&self, method: Method, path: &str, limit: Duration) -> Result<Bytes, DockerError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let work = async {
            let answer = self.send(method, path).await?;
            let answer = self.accepted(answer, &what).await?;
            let body = Limited::new(answer.response.into_body(), MAX_ANSWER).collect().await;
            Ok(body.map_err(|error| self.broken(&what, error.as_ref()))?.to_bytes())
        };
        timeout(limit, work).await.map_err(|_elapsed| self.late(&what, limit))?
    }

    async fn send(&self, method: Method, path: &str) -> Result<Answer, DockerError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| DockerError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&what, &error))?;
        // Whatever ends it, the request or its body tells.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(&what, &error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&what, &error))?;
        Ok(Answer { response, _connection: connection })
    }

    /// What succeeded; else what Docker says.
    async fn accepted(&self, answer: Answer, what: &str) -> Result<Answer, DockerError> {
        #[derive(Deserialize)]
        struct Said {
            message: String,
        }
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.response.into_body(), MAX_ERROR).collect().await;
        let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = match serde_json::from_slice::<Said>(&bytes) {
            Ok(said) => said.message.trim().to_owned(),
            Err(_) => String::from_utf8_lossy(&bytes).trim().chars().take(200).collect(),
        };
        Err(DockerError::Refused { what: what.to_owned(), status, message })
    }

    fn late(&self, what: &str, within: Duration) -> DockerError {
        DockerError::Late { socket: self.socket.clone(), what: what.to_owned(), within }
    }

    fn broken(&self, what: &str, error: &(dyn std::error::Error + 'static)) -> DockerError {
        DockerError::Broken { socket: self.socket.clone(), what: what.to_owned(), why: error.to_string() }
    }
}

/// A tar archive of images on its way.
pub struct ImageArchive {
    docker: Docker,
    what: String,
    answer: Answer,
}

impl ImageArchive {
    /// The next bytes; `None` behind the last. Docker that fails in the middle ends the archive without tar's end
    /// mark, or breaks off.
    ///
    /// # Errors
    /// See [`DockerError`]; [`DockerError::Late`] when nothing comes for ten minutes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DockerError> {
        loop {
            let frame = timeout(SAVE_IDLE, self.answer.response.body_mut().frame()).await;
            match frame.map_err(|_elapsed| self.docker.late(&self.what, SAVE_IDLE))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.docker.broken(&self.what, &error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// A piece of a path or a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => {
                escaped.push('%');
                escaped.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    escaped
}
