//! CRI calls with messages of the harness's own, so that nodectl's client cannot hide a mistake of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Node, SOON, slow};

/// A request or an answer that is one identifier.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Id {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// An answer that says nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// Asks for the streams of a container.
#[derive(Clone, PartialEq, prost::Message)]
struct Attach {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(bool, tag = "2")]
    stdin: bool,
    #[prost(bool, tag = "4")]
    stdout: bool,
}

/// Where the streams are.
#[derive(Clone, PartialEq, prost::Message)]
struct Attached {
    #[prost(string, tag = "1")]
    url: String,
}

/// Makes one call that must succeed and waits a minute for its answer.
#[track_caller]
pub(crate) fn call<Q, A>(socket: &Path, method: &str, request: Q) -> A
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    try_call(socket, method, request).unwrap_or_else(|status| panic!("{method}: {status}"))
}

/// Makes one call and waits a minute for its answer.
#[track_caller]
fn try_call<Q, A>(socket: &Path, method: &str, request: Q) -> Result<A, Box<tonic::Status>>
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
        let answer = client.unary(tonic::Request::new(request), path, codec).await.map_err(Box::new)?;
        Ok(answer.into_inner())
    })
}

/// Whether CRI answers, in the version that the runtime has.
pub(super) fn answers(socket: &Path) -> bool {
    ["v1", "v1alpha2"].iter().any(|version| {
        let method = format!("/runtime.{version}.RuntimeService/ListPodSandbox");
        try_call::<_, Empty>(socket, &method, Empty {}).is_ok()
    })
}

impl Node {
    /// Attaches to a container's input, as `kubectl attach -i` does, says a line of at most 120 bytes and hangs
    /// up. The runtime takes a WebSocket: behind its handshake come frames, each with the number of a stream.
    #[track_caller]
    pub(crate) fn say(&self, container: &str, line: &str) {
        let request = Attach { container_id: container.to_owned(), stdin: true, stdout: true };
        let answer: Attached = call(self.containerd.socket(), "/runtime.v1.RuntimeService/Attach", request);
        let rest = answer.url.strip_prefix("http://").unwrap_or_else(|| panic!("{answer:?}"));
        let (address, path) = rest.split_once('/').unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Origin: http://{address}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        )
        .unwrap();
        let mut answer = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = answer.next().unwrap().unwrap();
        assert!(first.contains(" 101 "), "{first}");
        answer.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
        // One binary frame, masked with zeros: stream 0 is the input. Then the frame that closes.
        let text = format!("{line}\n");
        let length = u8::try_from(text.len() + 1).unwrap();
        assert!(length < 126, "too long for a short frame");
        let mut frames = vec![0x82, 0x80 | length, 0, 0, 0, 0, 0];
        frames.extend(text.as_bytes());
        frames.extend([0x88, 0x80, 0, 0, 0, 0]);
        stream.write_all(&frames).unwrap();
    }

    /// Stops or removes one container or sandbox, as somebody beside the agent would. The runtime refuses that
    /// while the agent is at the same one, and takes it as done when it is gone: it is asked until it agrees.
    #[track_caller]
    pub(crate) fn cri(&self, method: &str, id: &str) {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let mut refused = None;
        let start = Instant::now();
        while start.elapsed() < SOON * slow() {
            match try_call::<_, Empty>(self.containerd.socket(), &path, Id { id: id.to_owned() }) {
                Ok(Empty {}) => return,
                Err(status) => refused = Some(status),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{method} of {id}: {}", refused.expect("asked at least once"));
    }
}
