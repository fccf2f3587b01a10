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
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
}

/// Bytes that have come, and bytes in all, of the blobs that began to come at most `since` ago.
pub(super) async fn pulled_bytes(line: Line, since: Duration) -> Option<(u64, u64)> {
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
    Some(sum(&answer.statuses, begun))
}

/// The sum of what began at `begun` (seconds since the epoch) or later.
fn sum(statuses: &[Status], begun: u64) -> (u64, u64) {
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let fresh = statuses
        .iter()
        .filter(|status| status.started_at.as_ref().is_some_and(|time| number(time.seconds) >= begun));
    fresh.fold((0, 0), |(done, total), status| {
        let (offset, size) = (number(status.offset), number(status.total));
        (u64::saturating_add(done, offset), u64::saturating_add(total, size.max(offset)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_is_another_pulls() {
        let status = |seconds, offset, total| Status {
            started_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            offset,
            total,
        };
        let all = [status(5, 1, 10), status(10, 2, 20), status(11, 3, 0), status(12, -1, i64::MAX)];
        assert_eq!(sum(&all[..3], 10), (5, 23));
        assert_eq!(sum(&all, 12), (0, i64::MAX.unsigned_abs()));
        assert_eq!(sum(&[Status::default()], 0), (0, 0));
    }
}
