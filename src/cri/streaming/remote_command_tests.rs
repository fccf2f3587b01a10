//! Remote commands against a server of the tests; those against real runtimes are in `tests/cri_streams.rs`.

use super::{
    super::{
        TlsOptions,
        test_server::{Manner, start},
    },
    *,
};

const LIMIT: Duration = Duration::from_secs(30);

fn dialer(limit: Duration) -> Dialer {
    let options = TlsOptions { server_name: "localhost".to_owned(), ..TlsOptions::default() };
    Dialer::new(&options, limit).unwrap()
}

async fn open(manner: Manner, transports: &[Transport]) -> Result<RemoteCommand, StreamError> {
    let url = start(manner).await;
    let wants = Wants { stdin: true, tty: false };
    RemoteCommand::open(&dialer(LIMIT), transports, wants, async || Ok(url.clone())).await
}

struct Run {
    ended: Result<Ended, StreamError>,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Runs with this input, and its end if `ends`.
async fn run(command: RemoteCommand, input: &[&[u8]], ends: bool, sizes: &[Size]) -> Run {
    let (stdin, input_end) = mpsc::channel(1);
    let (size, size_end) = mpsc::channel(1);
    let (stdout, mut out_end) = mpsc::channel::<Bytes>(1);
    let (stderr, mut err_end) = mpsc::channel::<Bytes>(1);
    let feed = async {
        for size_now in sizes {
            size.send(*size_now).await.unwrap();
        }
        for data in input {
            stdin.send(Bytes::copy_from_slice(data)).await.unwrap();
        }
        if ends {
            drop(stdin);
        } else {
            stdin.closed().await;
        }
    };
    let collect = async |end: &mut mpsc::Receiver<Bytes>| {
        let mut all = Vec::new();
        while let Some(data) = end.recv().await {
            all.extend_from_slice(&data);
        }
        all
    };
    let streams = Streams { stdin: Some(input_end), stdout, stderr, sizes: Some(size_end) };
    let (ended, (), out, err) =
        tokio::join!(command.run(streams), feed, collect(&mut out_end), collect(&mut err_end));
    Run { ended, out, err }
}

#[tokio::test]
async fn v5_tells_the_end_of_the_input_and_gives_the_exit_code() {
    let command = open(Manner::WebSocket(V5), Transport::ANY).await.unwrap();
    assert!(command.can_end_input());
    let big: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let sizes = [Size { width: 80, height: 24 }];
    let run = run(command, &[&big, b"\0\xff"], true, &sizes).await;
    assert_eq!(run.ended.unwrap(), Ended::Exit(7));
    assert!(run.out == [&big[..], b"\0\xff"].concat());
    assert_eq!(run.err, b"{\"Height\":24,\"Width\":80}\n");
}

#[tokio::test]
async fn v4_has_no_end_of_input_and_gives_the_exit_code() {
    for (typed, code) in [("exit 0", 0), ("exit 130", 130)] {
        let command = open(Manner::WebSocket(V4), &[Transport::WebSocket]).await.unwrap();
        assert!(!command.can_end_input());
        let run = run(command, &[b"x", typed.as_bytes()], false, &[]).await;
        assert_eq!((run.ended.unwrap(), &run.out[..]), (Ended::Exit(code), &b"x"[..]));
    }
}

#[tokio::test]
async fn output_that_nobody_reads_ends_it() {
    let command = open(Manner::WebSocket(V5), Transport::ANY).await.unwrap();
    let (stdin, input_end) = mpsc::channel(1);
    let (stdout, out_end) = mpsc::channel(1);
    let (stderr, _err_end) = mpsc::channel(1);
    stdin.send(Bytes::from_static(b"x")).await.unwrap();
    drop(out_end);
    let streams = Streams { stdin: Some(input_end), stdout, stderr, sizes: None };
    assert_eq!(command.run(streams).await.unwrap(), Ended::Unread);
}

#[tokio::test]
async fn a_server_that_breaks_off_is_not_taken_for_an_end() {
    let command = open(Manner::Breaks, &[Transport::WebSocket]).await.unwrap();
    let run = run(command, &[], false, &[]).await;
    assert_eq!(run.out, b"begun");
    let error = run.ended.unwrap_err();
    assert!(
        matches!(&error, StreamError::Broken(words) if words.contains("how the command ended")),
        "{error}"
    );
}

#[tokio::test]
async fn refusals_name_what_was_refused_and_why() {
    let error = open(Manner::WebSocket(V5), &[Transport::Spdy]).await.unwrap_err().to_string();
    assert_eq!(error, "the runtime's streaming server refuses SPDY: 403 Forbidden: not here");
    let error = open(Manner::WebSocket("v9"), Transport::ANY).await.unwrap_err().to_string();
    assert!(error.starts_with("the runtime's streaming server refuses WebSocket: 403 Forbidden"), "{error}");
    assert!(error.ends_with("SPDY was refused"), "{error}");
    let error = open(Manner::Liar, Transport::ANY).await.unwrap_err().to_string();
    assert!(error.contains("its answer is no WebSocket's"), "{error}");
}

#[tokio::test]
async fn spdy_streams_are_waited_for_and_what_is_early_is_kept() {
    // Early data of stdout (stream 3), then the replies for 1, 3, 5 and 7; the end of the report and of stdout.
    let bytes = b"\0\0\0\x03\0\0\0\x05early\
        \x80\x03\0\x02\0\0\0\x04\0\0\0\x01\x80\x03\0\x02\0\0\0\x04\0\0\0\x03\
        \x80\x03\0\x02\0\0\0\x04\0\0\0\x05\x80\x03\0\x02\0\0\0\x04\0\0\0\x07\
        \0\0\0\x07\x01\0\0\x14{\"status\":\"Success\"}\0\0\0\x03\x01\0\0\0";
    let command = open(Manner::Spdy(bytes), Transport::ANY).await.unwrap();
    let run = run(command, &[], false, &[]).await;
    assert_eq!((run.ended.unwrap(), &run.out[..]), (Ended::Exit(0), &b"early"[..]));
}

#[tokio::test]
async fn spdy_that_is_refused_or_broken_is_an_error() {
    for (bytes, words) in [
        // A reset in place of an answer; an answer that says that nothing will come; no SPDY at all.
        (&b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x03\0\0\0\x03"[..], "refuses a stream"),
        (b"\x80\x03\0\x02\x01\0\0\x04\0\0\0\x01", "refuses a stream"),
        (b"\x80\x07\0\x02\x01\0\0\x04\0\0\0\x01", "version 7"),
    ] {
        let error = open(Manner::Spdy(bytes), Transport::ANY).await.unwrap_err().to_string();
        assert!(error.contains("breaks the protocol") && error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_without_the_secret() {
    let wants = Wants { stdin: false, tty: false };
    let try_url = async |url: &str, limit: Duration| {
        let answer: Result<_, StreamError> =
            RemoteCommand::open(&dialer(limit), Transport::ANY, wants, async || Ok(url.to_owned())).await;
        let error = answer.err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
        error
    };
    // Nobody else's address, so that no other test listens there by now.
    let listener = std::net::TcpListener::bind("127.86.0.5:0").unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let error = try_url(&format!("http://{dead}/exec/secret"), LIMIT).await;
    assert!(error.contains(&format!("{dead} cannot be reached: Connection refused")), "{error}");
    let reached = dialer(LIMIT).reach(&format!("http://{dead}/exec/secret")).await.unwrap_err().to_string();
    assert!(
        reached.contains("cannot be reached: Connection refused") && !reached.contains("secret"),
        "{reached}"
    );
    let mute = start(Manner::Mute).await;
    dialer(LIMIT).reach(&mute).await.unwrap();
    let error = try_url(&mute, Duration::from_millis(50)).await;
    assert!(error.ends_with("cannot be reached: no answer within 0.05 s"), "{error}");
    assert!(try_url("/exec/secret", LIMIT).await.contains("neither http nor https"));
    assert!(
        try_url("ftp://x/secret", LIMIT)
            .await
            .contains("for the streams, \"ftp://x\", cannot be used: it is neither")
    );
    assert!(try_url("http:///exec/secret", LIMIT).await.contains("cannot be used: it is no URL"));
    // TLS where there is none.
    let plain = start(Manner::WebSocket(V5)).await.replace("http:", "https:");
    let error = try_url(&plain, LIMIT).await;
    assert!(error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn certificates_are_checked_when_they_can_be() {
    let file =
        |name: &str| Some(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name));
    let options = |server_name: &str, authority: Option<_>, own: bool| TlsOptions {
        server_name: server_name.to_owned(),
        authority,
        certificate: file("tls-streams.crt").filter(|_| own),
        key: file("tls-streams.key").filter(|_| own),
    };
    let run_with = async |manner, options: TlsOptions| {
        let url = start(manner).await;
        let dialer = Dialer::new(&options, LIMIT)?;
        let wants = Wants { stdin: true, tty: false };
        let command: RemoteCommand =
            RemoteCommand::open(&dialer, Transport::ANY, wants, async || Ok::<_, StreamError>(url.clone()))
                .await?;
        run(command, &[b"x"], true, &[]).await.ended
    };
    let authority = || file("tls-authority.crt");
    let ended = |code| Ok::<_, String>(Ended::Exit(code));
    let text = |answer: Result<Ended, StreamError>| answer.map_err(|error| error.to_string());
    let plain = Manner::Tls { asks: false };
    // Whatever it is called, as nothing is known of it; then by name and authority.
    assert_eq!(text(run_with(plain, options("localhost", None, false)).await), ended(7));
    assert_eq!(text(run_with(plain, options("streams.test", authority(), false)).await), ended(7));
    for (wrong, words) in [
        (options("other.test", authority(), false), "not valid for name"),
        (options("streams.test", file("tls-v1.crt"), false), "UnknownIssuer"),
        (options("streams.test", None, true), "UnknownIssuer"),
        (options("no name", None, false), "is no server's name"),
        (options("x", file("tls-streams.key"), false), "tls-streams.key holds no certificate"),
        (TlsOptions { key: None, ..options("x", None, true) }, "go together"),
        (TlsOptions { key: authority(), ..options("x", authority(), true) }, "holds no private key"),
    ] {
        let error = text(run_with(plain, wrong).await).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
    // A server that wants to know us.
    let asks = Manner::Tls { asks: true };
    assert_eq!(text(run_with(asks, options("streams.test", authority(), true)).await), ended(7));
    let error = text(run_with(asks, options("streams.test", authority(), false)).await).unwrap_err();
    assert!(error.contains("ertificate"), "{error}");
}

#[test]
fn reports_are_read() {
    let code = |text: &str| {
        format!(
            r#"{{"status":"Failure","reason":"NonZeroExitCode","message":"m","details":{{"causes":[{{"reason":"X","message":"1"}},{{"reason":"ExitCode","message":"{text}"}}]}}}}"#
        )
    };
    let told = |report: &str| verdict(report.as_bytes(), true).map_err(|error| error.to_string());
    assert_eq!(told(r#"{"status":"Success"}"#), Ok(Ended::Exit(0)));
    assert_eq!(told(&code("3")), Ok(Ended::Exit(3)));
    assert_eq!(told(&code("x")), Err("m".to_owned()));
    let internal = r#"{"status":"Failure","reason":"InternalError","message":"no such file"}"#;
    assert_eq!(told(internal), Err("no such file".to_owned()));
    assert_eq!(told(r#"{"status":"Failure"}"#), Err(r#"{"status":"Failure"}"#.to_owned()));
    assert_eq!(told("boom\n"), Err("boom".to_owned()));
    assert!(told("").unwrap_err().contains("it ended before"));
    // Before v4.
    assert_eq!(verdict(b"", false).unwrap(), Ended::Exit(0));
    assert_eq!(verdict(b"exit status 3", false).unwrap_err().to_string(), "exit status 3");
}
