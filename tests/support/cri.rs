//! CRI calls with messages of the harness's own, so that nodectl's client cannot hide a mistake of its own.

use std::path::Path;
use std::time::Duration;

use super::Node;

/// A request or an answer that is one identifier.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Id {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// An answer that says nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// Makes one call and waits a minute for its answer.
#[track_caller]
pub(crate) fn call<Q, A>(socket: &Path, method: &str, request: Q) -> A
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::try_from(format!("unix://{}", socket.display()))
            .unwrap()
            .timeout(Duration::from_secs(60))
            .connect()
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let path = tonic::codegen::http::uri::PathAndQuery::try_from(method).unwrap();
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        client
            .unary(tonic::Request::new(request), path, codec)
            .await
            .unwrap_or_else(|status| panic!("{method}: {status}"))
            .into_inner()
    })
}

impl Node {
    /// A call about one container or sandbox, as somebody beside the agent would make it.
    #[track_caller]
    pub(crate) fn cri(&self, method: &str, id: &str) {
        let method = format!("/runtime.v1.RuntimeService/{method}");
        let _: Empty = call(self.containerd.socket(), &method, Id { id: id.to_owned() });
    }
}
