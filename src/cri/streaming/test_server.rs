//! A streaming server of the tests: what no runtime at hand speaks (v5), and what none would do (refusals, broken
//! connections).

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::websocket::accept;

/// What it does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Speaks WebSocket with this version and refuses SPDY.
    WebSocket(&'static str),
    /// Agrees to SPDY and sends these bytes.
    Spdy(&'static [u8]),
    /// Agrees to a WebSocket and hangs up without a word about the command's end.
    Breaks,
    /// Agrees to a WebSocket without knowing what that is.
    Liar,
    /// Takes the connection and says nothing.
    Mute,
}

/// Starts it; answers its URL.
pub(super) async fn start(manner: Manner) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if manner == Manner::Mute {
                kept.push(stream);
            } else {
                tokio::spawn(serve(stream, manner));
            }
        }
    });
    format!("http://{address}/exec/secret")
}

async fn serve(mut stream: TcpStream, manner: Manner) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")));
        line.map(|line| line.split_once(": ").unwrap().1.to_owned()).unwrap_or_default()
    };
    let spdy = header("upgrade") == "SPDY/3.1";
    let key = accept(&header("sec-websocket-key"));
    let version = match manner {
        Manner::Spdy(bytes) if spdy => {
            assert!(head.starts_with("POST /exec/secret HTTP/1.1\r\n"), "{head}");
            let version = header("x-stream-protocol-version");
            let agreed = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                 X-Stream-Protocol-Version: {version}\r\n\r\n"
            );
            // With what follows in one packet.
            stream.write_all(&[agreed.as_bytes(), bytes].concat()).await.unwrap();
            // Until the client goes.
            stream.read_to_end(&mut Vec::new()).await.ok();
            return;
        }
        Manner::WebSocket(version) if !spdy && header("sec-websocket-protocol").contains(version) => version,
        Manner::Breaks | Manner::Liar if !spdy => "v4.channel.k8s.io",
        _ => {
            let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot here";
            stream.write_all(refusal.as_bytes()).await.unwrap();
            return;
        }
    };
    assert!(head.starts_with("GET /exec/secret HTTP/1.1\r\n"), "{head}");
    let key = if manner == Manner::Liar { "x".to_owned() } else { key };
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {version}\r\n\r\n"
    );
    stream.write_all(agreed.as_bytes()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    if manner == Manner::Breaks {
        socket.send(Message::Binary(b"\x01begun".as_slice().into())).await.unwrap();
        return;
    }
    echo(&mut socket).await;
}

/// A command that prints what it reads, tells of sizes on its error output, ends with code 7 when its input ends,
/// and at once with `exit N`.
async fn echo(socket: &mut WebSocketStream<TcpStream>) {
    socket.send(Message::Binary(vec![1].into())).await.unwrap();
    socket.send(Message::Ping(b"are you there".as_slice().into())).await.unwrap();
    let (mut ponged, mut code) = (false, None);
    while code.is_none() || !ponged {
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            _ => return,
        };
        ponged |= matches!(message, Message::Pong(_));
        let Message::Binary(data) = message else { continue };
        match (data[0], &data[1..]) {
            (0, input) if input.starts_with(b"exit ") => {
                code = Some(String::from_utf8_lossy(&input[5..]).trim().to_owned());
            }
            (0, input) => {
                let output = [&[1], input].concat();
                socket.send(Message::Binary(output.into())).await.unwrap();
            }
            (4, size) => socket.send(Message::Binary([&[2], size].concat().into())).await.unwrap(),
            (255, [0]) => code = Some("7".to_owned()),
            other => panic!("{other:?}"),
        }
    }
    let status = match code.unwrap().as_str() {
        "0" => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
        code => format!(
            r#"{{"metadata":{{}},"status":"Failure","message":"it ended with {code}","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
        ),
    };
    socket.send(Message::Binary([&[3], status.as_bytes()].concat().into())).await.unwrap();
    socket.close(None).await.ok();
}
