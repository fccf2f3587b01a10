//! Servers in the test's own process, for pods on the host's network to be probed by: gRPC health, HTTPS, and one
//! that knows neither.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{HeaderMap, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A certificate of version 1 for nobody, signed by itself, and its key.
const CERTIFICATE: &str = include_str!("../../data/tls-v1.crt");
const KEY: &str = include_str!("../../data/tls-v1.key");

/// The servers, for as long as it lives.
pub(super) struct Servers {
    /// Health by gRPC: the service `well` is serving, others are not.
    pub(super) grpc: u16,
    /// HTTPS: `/ok` is there, and nothing else.
    pub(super) https: u16,
    /// Takes anything for a bad request.
    pub(super) plain: u16,
    /// What the last was sent.
    pub(super) heard: Arc<Mutex<String>>,
    _runtime: tokio::runtime::Runtime,
}

impl Servers {
    pub(super) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let (grpc, https, plain) = runtime.block_on(async {
            let tls = tokio_rustls::TlsAcceptor::from(tls());
            let noted = Arc::clone(&heard);
            (
                serve(|stream| async {
                    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(health));
                    serving.await.ok();
                })
                .await,
                serve(move |stream| {
                    let tls = tls.clone();
                    async move {
                        let mut stream = tls.accept(stream).await.unwrap();
                        let mut head = vec![0; 4096];
                        let count = stream.read(&mut head).await.unwrap();
                        let status = if head[..count].starts_with(b"GET /ok ") { 200 } else { 404 };
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        stream.shutdown().await.ok();
                    }
                })
                .await,
                serve(move |mut stream| {
                    let noted = Arc::clone(&noted);
                    async move {
                        let mut head = vec![0; 4096];
                        let count = stream.read(&mut head).await.unwrap();
                        noted.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..count]));
                        let answer = b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                    }
                })
                .await,
            )
        });
        Self { grpc, https, plain, heard, _runtime: runtime }
    }
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    each: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(each(stream));
        }
    });
    port
}

fn tls() -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
    // Made by hand: rustls itself does not read such a certificate.
    let pair = rustls::sign::CertifiedKey::new(vec![certificate], key);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    Arc::new(config)
}

type Answer = Response<StreamBody<tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

/// grpc.health.v1.Health/Check: a message has a byte and four of length before it.
async fn health(request: Request<Incoming>) -> Result<Answer, Infallible> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let status = if asked.ends_with(b"\x0a\x04well") { 1 } else { 2 };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames =
        vec![Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(tokio_stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}
