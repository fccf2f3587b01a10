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
