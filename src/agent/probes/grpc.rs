//! A probe by the gRPC health checking protocol (kubelet's pkg/probe/grpc).

use std::time::Duration;

use tonic::{Code, transport::Endpoint};

use crate::{error::chain, policy::probe::ProbeResult};

#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, rustdoc::all, clippy::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/client/grpc.health.v1.rs"));
}

use proto::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// An answer is two bytes.
const MAX_ANSWER: usize = 4 << 10;

/// Asks the server at `host` for the health of a service; the empty one is the server as a whole.
pub(super) async fn check(host: &str, port: u16, service: &str, within: Duration) -> ProbeResult {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let address = format!("{host}:{port}");
    match tokio::time::timeout(within, ask(&address, service)).await {
        Ok(result) => result,
        Err(_elapsed) => {
            ProbeResult::Failure(format!("{address} did not answer within {} s", within.as_secs()))
        }
    }
}

async fn ask(address: &str, service: &str) -> ProbeResult {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(super::PROBE_AGENT));
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => return ProbeResult::Unknown(format!("{address}: {}", chain(&error))),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return ProbeResult::Failure(format!("cannot reach {address}: {}", chain(&error))),
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    match client.check(HealthCheckRequest { service: service.to_owned() }).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => ProbeResult::Success(String::new()),
            other => ProbeResult::Failure(format!("service {service:?} is {}", other.as_str_name())),
        },
        Err(status) if status.code() == Code::Unimplemented => {
            ProbeResult::Failure(format!("{address} has no gRPC health service"))
        }
        Err(status) => ProbeResult::Failure(format!("{address}: {:?}: {}", status.code(), status.message())),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::{
        Request, Response,
        body::{Bytes, Frame, Incoming},
        header::{HeaderMap, HeaderValue},
        service::service_fn,
    };
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A health server that gives one answer: a status of the protocol, or an error's code.
    async fn server(answer: Result<u8, &'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = service_fn(move |request: Request<Incoming>| async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("kube-probe/"));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(answer.err().unwrap_or("0")));
            let message = answer.ok().map(|status| Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status])));
            let frames = message.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>);
            let body = StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>()));
            Response::builder().header("content-type", "application/grpc").body(body)
        });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        port
    }

    #[tokio::test]
    async fn only_serving_passes() {
        let ask = async |answer| check("127.0.0.1", server(answer).await, "a", LONG).await;
        assert_eq!(ask(Ok(1)).await, ProbeResult::Success(String::new()));
        for (answer, word) in [
            (Ok(0), "UNKNOWN"),
            (Ok(2), "NOT_SERVING"),
            (Ok(3), "SERVICE_UNKNOWN"),
            (Err("12"), "no gRPC health service"),
            (Err("5"), "NotFound"),
        ] {
            let result = ask(answer).await;
            assert!(matches!(&result, ProbeResult::Failure(said) if said.contains(word)), "{result:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_and_no_answer_are_failures() {
        // Nobody else's address: when nobody listens any more, no other test does.
        let silent = TcpListener::bind("127.86.0.3:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let late = check("127.86.0.3", port, "", Duration::from_millis(100)).await;
        assert!(matches!(&late, ProbeResult::Failure(said) if said.contains("did not answer")), "{late:?}");
        drop(silent);
        let gone = check("127.86.0.3", port, "", LONG).await;
        assert!(matches!(&gone, ProbeResult::Failure(said) if said.contains("cannot reach")), "{gone:?}");
    }
}
