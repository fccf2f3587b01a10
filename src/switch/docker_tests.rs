//! Docker's client against a server on a unix socket with answers as dockerd has them. The server is for tests
//! elsewhere too.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;

use super::docker::{Docker, DockerError};

/// A daemon: what it answers, by method and path with the query, and what it was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeDocker {
    answers: BTreeMap<String, (u16, String)>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeDocker {
    /// Has an answer, as in `GET /info`.
    pub(crate) fn with(mut self, request: &str, status: u16, body: &str) -> Self {
        self.answers.insert(request.to_owned(), (status, body.to_owned()));
        self
    }

    /// What it was asked, in the order of the requests.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Serves on a socket until the test ends.
    pub(crate) fn serve(&self, socket: &Path) {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = fake.clone();
                let service = service_fn(move |request| {
                    let fake = fake.clone();
                    async move { fake.answer(&request) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
    }

    fn answer(
        &self,
        request: &Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::convert::Infallible> {
        let asked = format!("{} {}", request.method(), request.uri());
        self.asked.lock().unwrap().push(asked.clone());
        let (status, body) = self
            .answers
            .get(&asked)
            .cloned()
            .unwrap_or_else(|| (404, "{\"message\":\"page not found\"}\n".to_owned()));
        let whole = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
        let body = match body.strip_prefix("cut short after ") {
            None => whole(body),
            Some(begin) => {
                let frames = vec![
                    Ok(Frame::data(Bytes::from(begin.to_owned()))),
                    Err(std::io::Error::other("no space left on device")),
                ];
                BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
            }
        };
        Ok(Response::builder().status(status).body(body).unwrap())
    }
}

#[tokio::test]
async fn containers_end_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let fake = FakeDocker::default()
        .with("POST /containers/a/stop?t=30", 204, "")
        .with("POST /containers/b/stop?t=30", 304, "")
        .with("POST /containers/c/stop?t=1", 500, "{\"message\":\"cannot stop container: c: tried to kill container, but did not receive an exit event\"}\n")
        .with("DELETE /containers/a?force=1&v=1", 204, "")
        .with("DELETE /containers/b?force=1&v=1", 409, "{\"message\":\"removal of container b is already in progress\"}\n")
        .with("DELETE /containers/c?force=1&v=1", 409, "{\"message\":\"You cannot remove a running container\"}\n");
    fake.serve(&socket);
    let docker = Docker::new(&socket);
    docker.stop_container("a", 30).await.unwrap();
    docker.stop_container("b", 30).await.unwrap();
    docker.stop_container("gone", 30).await.unwrap();
    let error = docker.stop_container("c", 1).await.unwrap_err();
    assert!(error.to_string().contains("did not receive an exit event"), "{error}");
    docker.remove_container("a").await.unwrap();
    docker.remove_container("b").await.unwrap();
    docker.remove_container("gone").await.unwrap();
    assert!(docker.remove_container("c").await.is_err());
    // No name is a way to another path.
    docker.stop_container("../x?y", 1).await.unwrap();
    assert_eq!(fake.asked().last().unwrap(), "POST /containers/..%2Fx%3Fy/stop?t=1");
}

#[tokio::test]
async fn images_are_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let names = "names=k8s.gcr.io%2Fpause%3A3.2&names=nginx%3Alatest";
    FakeDocker::default()
        .with(&format!("GET /images/get?{names}"), 200, "a tar archive")
        .with("GET /images/get?names=cut", 200, "cut short after a begin")
        .with("GET /images/get?names=none", 404, "{\"message\":\"No such image: none\"}")
        .serve(&socket);
    let docker = Docker::new(&socket);
    let mut archive =
        docker.save_images(&["k8s.gcr.io/pause:3.2".to_owned(), "nginx:latest".to_owned()]).await.unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = archive.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all, b"a tar archive");
    let Err(error) = docker.save_images(&["none".to_owned()]).await else { panic!("there is none") };
    assert!(error.is_not_found() && error.to_string().contains("No such image: none"), "{error}");
    // dockerd sends what it has before it fails; here nothing may have been sent yet.
    let ended = match docker.save_images(&["cut".to_owned()]).await {
        Err(error) => Err(error),
        Ok(mut archive) => loop {
            match archive.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        },
    };
    assert!(matches!(ended, Err(DockerError::Broken { .. })), "what is cut short is no whole archive");
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let error = Docker::new(&socket).get_json::<u8>("/info").await.unwrap_err();
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    FakeDocker::default().with("GET /info", 200, "<html>").with("GET /version", 503, "busy\n").serve(&socket);
    let docker = Docker::new(&socket);
    let error = docker.get_json::<u8>("/info").await.unwrap_err();
    assert!(matches!(error, DockerError::Answer { .. }), "{error}");
    let error = docker.get_json::<u8>("/version").await.unwrap_err();
    let DockerError::Refused { status, message, .. } = &error else { panic!("{error}") };
    assert_eq!((*status, message.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let begun = tokio::time::Instant::now();
    let error = Docker::new(&socket).get_json::<u8>("/info").await.unwrap_err();
    assert!(matches!(error, DockerError::Late { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(11));
}
