//! How far pulls have come: what containerd's content store is being given. CRI itself tells nothing of a
//! pull under way. Another runtime has no such service, and then there is nothing to tell.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{MetadataValue, errors::InvalidMetadataValue},
};
use tonic_prost::ProstCodec;

use super::dialect::Line;

/// containerd.services.content.v1: the two messages of the one call that is made.
#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesResponse {
    #[prost(message, repeated, tag = "1")]
    statuses: Vec<Status>,
}

/// One blob on its way.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    started_at: Option<prost_types::Timestamp>,
    #[prost(string, tag = "3")]
    reference: String,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
}

/// A layer, or another part of an image, that the runtime is fetching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arriving {
    /// What the runtime calls it; the same as long as it is fetched.
    pub name: String,
    /// Bytes that have come.
    pub done: u64,
    /// Bytes in all; 0 where the registry does not tell.
    pub total: u64,
}

/// What began to come at most `since` ago and is not there yet.
pub(super) async fn arriving(line: Line, since: Duration) -> Option<Vec<Arriving>> {
    let mut client = Grpc::new(line);
    client.ready().await.ok()?;
    let mut request = Request::new(ListStatusesRequest::default());
    // CRI's images live in this one of containerd's namespaces.
    let namespace: Result<MetadataValue<_>, InvalidMetadataValue> = "k8s.io".parse();
    request.metadata_mut().insert("containerd-namespace", namespace.ok()?);
    let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/ListStatuses");
    let codec = ProstCodec::<ListStatusesRequest, ListStatusesResponse>::default();
    let answer = client.unary(request, path, codec).await.ok()?.into_inner();
    let begun = SystemTime::now().checked_sub(since)?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(fresh(answer.statuses, begun))
}

/// What began at `begun` (seconds since the epoch) or later.
fn fresh(statuses: Vec<Status>, begun: u64) -> Vec<Arriving> {
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let fresh = statuses
        .into_iter()
        .filter(|status| status.started_at.as_ref().is_some_and(|time| number(time.seconds) >= begun));
    fresh
        .map(|status| Arriving {
            name: status.reference,
            done: number(status.offset),
            total: number(status.total),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_is_another_pulls() {
        let status = |seconds, offset, total| Status {
            started_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            reference: format!("layer-{seconds}"),
            offset,
            total,
        };
        let arriving = |name: &str, done, total| Arriving { name: name.to_owned(), done, total };
        let all = vec![status(5, 1, 10), status(10, 2, 20), status(11, -3, 0), Status::default()];
        assert_eq!(fresh(all, 10), [arriving("layer-10", 2, 20), arriving("layer-11", 0, 0)]);
    }
}
