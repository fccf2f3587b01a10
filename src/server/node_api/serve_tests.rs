//! What clients may cost, over real sockets without TLS.

use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Server {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// One that lets in whoever asks for `/in`, and answers others without that.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = serve(listener, None, stop.clone(), |request, peer| async move {
            // The user's name is in the path.
            let user = request.uri().path().strip_prefix("/in");
            let let_in = user.is_some_and(|user| peer.let_in(user));
            let words = if let_in { "in" } else { "out" };
            Response::new(Full::from(words).map_err(|never| match never {}).boxed_unsync())
        });
        Self { address, stop, task: tokio::spawn(serving) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Asks on a connection that stays open; the body, or nothing if the connection has ended.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    let mut answer = Vec::new();
    let mut block = [0; 1024];
    loop {
        match stream.read(&mut block).await {
            Ok(0) | Err(_) => return String::new(),
            Ok(length) => answer.extend_from_slice(&block[..length]),
        }
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| !body.is_empty()) {
            return body.to_owned();
        }
    }
}

#[tokio::test]
async fn strangers_push_out_strangers_and_nobody_who_was_let_in() {
    let server = Server::start().await;
    let mut known = server.connect().await;
    assert_eq!(ask(&mut known, "/in").await, "in");
    let mut first = server.connect().await;
    assert_eq!(ask(&mut first, "/").await, "out");
    let mut others = Vec::new();
    for _ in 0..STRANGERS {
        let mut other = server.connect().await;
        assert_eq!(ask(&mut other, "/").await, "out");
        others.push(other);
    }
    assert_eq!(ask(&mut first, "/").await, "", "the oldest stranger has made room");
    assert_eq!(ask(&mut others[0], "/").await, "out");
    assert_eq!(ask(&mut known, "/in").await, "in");
}

#[tokio::test]
async fn one_user_leaves_places_for_others_and_who_leaves_makes_room() {
    let server = Server::start().await;
    let mut known = Vec::new();
    for _ in 0..KNOWN / 2 {
        let mut one = server.connect().await;
        assert_eq!(ask(&mut one, "/in/one").await, "in");
        known.push(one);
    }
    let mut more = server.connect().await;
    assert_eq!(ask(&mut more, "/in/one").await, "out");
    let mut other = server.connect().await;
    assert_eq!(ask(&mut other, "/in/other").await, "in");
    known.truncate(KNOWN / 2 - 2);
    // The server notices it a moment later.
    let mut tries = 0;
    while ask(&mut more, "/in/one").await != "in" {
        tries += 1;
        assert!(tries < 1000, "the place is not free again");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn however_many_a_user_has_another_finds_a_place() {
    let mut known = Known::default();
    for user in ["a", "b", "c", "d"] {
        let mut own = 0;
        while known.add(user) {
            own += 1;
        }
        assert!(own >= KNOWN / 16, "{user}: {own}");
    }
    assert!(known.all < KNOWN && known.of_user.len() == 4);
    while known.of_user.contains_key("a") {
        known.remove("a");
    }
    assert!(known.add("b") && !known.of_user.contains_key("a"));
    let before = known.all;
    known.remove("nobody");
    assert_eq!(known.all, before - 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_once_nothing_has_been_answered_for_so_long() {
    let activity = Activity(Arc::new(watch::Sender::new(0)));
    let active = activity.begin();
    let idle = activity.idle(IDLE);
    let mut idle = pin!(idle);
    assert!(timeout(IDLE * 3, &mut idle).await.is_err(), "a request is being answered");
    let answer = Response::new(Full::from("words").map_err(|never| match never {}).boxed_unsync());
    let answer = until_its_end(answer, active);
    assert_eq!(answer.headers()[CONTENT_LENGTH], "5");
    assert!(timeout(IDLE * 3, &mut idle).await.is_err(), "its answer is still being taken");
    drop(answer);
    assert!(timeout(IDLE / 2, &mut idle).await.is_err());
    timeout(IDLE, &mut idle).await.unwrap();
}

#[tokio::test]
async fn heads_are_bounded_and_garbage_is_refused() {
    let server = Server::start().await;
    let answer = async |request: Vec<u8>| {
        let mut stream = server.connect().await;
        // The server may close before it has read all.
        stream.write_all(&request).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
    let long = answer(long.into_bytes()).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(2 * MAX_HEADERS));
    let many = answer(many.into_bytes()).await;
    assert!(many.is_empty() || many.starts_with("HTTP/1.1 431"), "{many}");
    let garbage = answer(vec![0x16, 3, 1, 0, 200, 1, 0, 0, 13, 10, 13, 10]).await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let mut stream = server.connect().await;
    assert_eq!(ask(&mut stream, "/").await, "out");
}

#[tokio::test]
async fn it_ends_with_connections_open() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    assert_eq!(ask(&mut idle, "/in").await, "in");
    server.stop.cancel();
    timeout(Duration::from_secs(60), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_is_asked_for_by_head_has_a_length_and_no_body() {
    let whole = |words: &'static str| {
        Response::new(Full::from(words).map_err(|never: Infallible| match never {}).boxed_unsync())
    };
    let answer = without_body(whole("words"));
    assert_eq!(answer.headers()[CONTENT_LENGTH], "5");
    assert!(answer.into_body().is_end_stream());
    // One that says its length itself, as that of a file does.
    let mut of_file = whole("");
    of_file.headers_mut().insert(CONTENT_LENGTH, 7.into());
    assert_eq!(without_body(of_file).headers()[CONTENT_LENGTH], "7");
}
