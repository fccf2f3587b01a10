//! One HTTP/2 connection to a runtime's socket, made when first used and again when it broke.
//!
//! There are no keep-alive pings: the kernel tells at once when the peer of a unix socket dies, a
//! peer that hangs is the business of each call's deadline, and servers in Go cut a client off that
//! pings more often than every five minutes, which would end long pulls.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{Response, Status, transport::Endpoint};

use super::{
    CriError, Result, RuntimeEndpoint, SocketProblem,
    dialect::{Dialect, Line},
    exec_output::Shortening,
    proto::v1::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};
use crate::telemetry::metrics::runtime_operation;

/// The largest answer that is taken, as in kubelet.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

/// Requests that wait to be written. It bounds a queue that is empty unless the runtime stalls.
const SEND_QUEUE: usize = 128;

/// A connection that is opened by the first call. A call while the socket is dead fails at once
/// with a [`SocketProblem`] in its causes, and the next one tries anew.
pub(super) fn open_lazily(endpoint: &RuntimeEndpoint, dialect: Dialect) -> Line {
    let path: Arc<std::path::Path> = endpoint.path().into();
    let connect = tower::service_fn(move |_| {
        let path = Arc::clone(&path);
        async move {
            let socket = UnixStream::connect(&path).await;
            socket.map(TokioIo::new).map_err(|error| SocketProblem::explain(&path, error))
        }
    });
    // The name is never resolved; servers in Go insist on a well-formed one.
    let socket = Endpoint::from_static("http://localhost").buffer_size(SEND_QUEUE);
    Line { channel: socket.connect_with_connector_lazy(connect), dialect }
}

pub(super) fn runtime_service(line: Line) -> RuntimeServiceClient<Line> {
    RuntimeServiceClient::new(line).max_decoding_message_size(MAX_MESSAGE)
}

/// For commands in containers alone: of what they say only the begin is kept.
pub(super) fn exec_service(line: Line) -> RuntimeServiceClient<Shortening> {
    RuntimeServiceClient::new(Shortening(line)).max_decoding_message_size(MAX_MESSAGE)
}

pub(super) fn image_service(line: Line) -> ImageServiceClient<Line> {
    ImageServiceClient::new(line).max_decoding_message_size(MAX_MESSAGE)
}

/// Awaits a call, at most `limit` long. Giving up resets the call's stream, by which the runtime
/// learns of it.
pub(super) async fn within<T>(
    rpc: &'static str,
    endpoint: &str,
    limit: Option<Duration>,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T> {
    let begun = Instant::now();
    let answer = match limit {
        None => call.await,
        Some(limit) => match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                runtime_operation(rpc, begun.elapsed(), false);
                return Err(CriError::deadline(rpc, endpoint, limit));
            }
        },
    };
    runtime_operation(rpc, begun.elapsed(), answer.is_ok());
    answer.map(Response::into_inner).map_err(|status| CriError::from_status(rpc, endpoint, &status))
}
