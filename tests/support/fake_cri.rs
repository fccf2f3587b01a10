//! A runtime that answers a few calls with messages that a test gives, and lacks all others: for what no
//! containerd has.

use std::{collections::BTreeMap, convert::Infallible, path::PathBuf, sync::Arc};

use http_body_util::StreamBody;
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{HeaderMap, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

/// A socket with answers behind it, as long as this lives.
pub(crate) struct FakeCri {
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl FakeCri {
    /// `answers` are encoded messages by the names of their calls, such as `Version`.
    pub(crate) fn start(answers: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Self {
        let answers: Arc<BTreeMap<&str, Vec<u8>>> = Arc::new(answers.into_iter().collect());
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(folder.path().join("cri.sock")).unwrap()
        };
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answers = Arc::clone(&answers);
                let service = service_fn(move |request: Request<Incoming>| {
                    let rpc = request.uri().path().rsplit('/').next().unwrap_or_default();
                    let message = answers.get(rpc).cloned();
                    async move {
                        Response::builder().header("content-type", "application/grpc").body(body(message))
                    }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Self { folder, _runtime: runtime }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }
}

type Frames = tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

/// The message and its end, or that there is no such call.
fn body(message: Option<Vec<u8>>) -> StreamBody<Frames> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if message.is_some() { "0" } else { "12" }));
    let data = message.map(|message| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        Frame::data(Bytes::from([&[0][..], &length, &message].concat()))
    });
    let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>()))
}
