//! Against small servers of our own that note what they are sent.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(60));

/// A server that gives one answer to each connection in turn, and what it was sent.
async fn server(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut heard = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heard.push(String::from_utf8(head).unwrap().to_lowercase());
            // Who has read enough may be gone.
            stream.write_all(answer.as_bytes()).await.ok();
        }
        heard
    });
    (port, serving)
}

fn to(port: u16, path: &str) -> Get {
    Get {
        https: false,
        host: "127.0.0.1".into(),
        port,
        path: path.into(),
        headers: Vec::new(),
        agent: "kube-probe/1.36",
    }
}

fn answer(status: u16, head: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn sends_what_kubelet_sends() {
    let (port, heard) = server(vec![answer(200, "", "well"), answer(503, "", "")]).await;
    let well = get(&to(port, "/live?x=1 2#f"), LONG).await.unwrap();
    assert_eq!(well, Answer { status: 200, body: "well".into() });
    let own = [("Host", "a.example"), ("Accept", ""), ("User-Agent", "me"), ("X-A", "1"), ("X-A", "2")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    assert_eq!(get(&Get { headers: own, ..to(port, "live") }, LONG).await.unwrap().status, 503);
    let heard = heard.await.unwrap();
    let lines = |head: &String| {
        let mut lines: Vec<String> = head.trim_end().lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    let host = format!("host: 127.0.0.1:{port}");
    assert_eq!(
        lines(&heard[0]),
        [
            "get /live?x=1%202 http/1.1",
            "accept: */*",
            "connection: close",
            &host,
            "user-agent: kube-probe/1.36"
        ]
    );
    assert_eq!(
        lines(&heard[1]),
        ["get /live http/1.1", "connection: close", "host: a.example", "user-agent: me", "x-a: 1", "x-a: 2"]
    );
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_and_bounded() {
    let to_path = |path: &str| answer(302, &format!("location: {path}\r\n"), "");
    let (port, heard) = server(vec![to_path("b?c"), to_path("/last"), answer(204, "", "")]).await;
    let headers = vec![("Host".to_owned(), "a.example".to_owned())];
    assert_eq!(get(&Get { headers, ..to(port, "/x/a") }, LONG).await.unwrap().status, 204);
    let heard = heard.await.unwrap();
    let begins = ["get /x/a ", "get /x/b?c ", "get /last "];
    assert!(heard.iter().zip(begins).all(|(head, begin)| head.starts_with(begin)), "{heard:?}");
    assert!(heard.iter().all(|head| head.contains("host: a.example\r\n")));

    let (port, _) = server(vec![to_path("http://198.51.100.1/")]).await;
    assert_eq!(get(&to(port, "/"), LONG).await.unwrap().status, 302, "another host is not asked");
    let (port, _) = server(vec![answer(304, "", "")]).await;
    assert_eq!(get(&to(port, "/"), LONG).await.unwrap().status, 304);
    let (port, heard) = server(vec![to_path("/"); 10]).await;
    let error = get(&to(port, "/"), LONG).await.unwrap_err();
    assert_eq!(error, GetError::Failed("stopped after 10 redirects".into()));
    assert_eq!(heard.await.unwrap().len(), 10);
}

#[tokio::test]
async fn reads_no_more_than_it_needs_and_waits_no_longer_than_it_may() {
    let (port, _) = server(vec![answer(200, "", &"x".repeat(1 << 20))]).await;
    assert_eq!(get(&to(port, "/"), LONG).await.unwrap().body.len(), MAX_BODY);
    let (port, _) = server(vec!["HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nshort".into()]).await;
    assert!(matches!(get(&to(port, "/"), LONG).await, Err(GetError::Body(_))));
    // Nobody else's address: when nobody listens any more, no other test does.
    let silent = TcpListener::bind("127.86.0.7:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let to_it = Get { host: "127.86.0.7".into(), ..to(port, "/") };
    let late = get(&to_it, Some(Duration::from_millis(50))).await;
    assert!(matches!(&late, Err(GetError::Failed(why)) if why.contains("no answer within")), "{late:?}");
    drop(silent);
    assert!(matches!(get(&to_it, LONG).await, Err(GetError::Failed(_))));
    let bad = vec![("a b".to_owned(), String::new())];
    assert!(matches!(get(&Get { headers: bad, ..to(port, "/") }, LONG).await, Err(GetError::Request(_))));
}

#[test]
fn where_redirects_lead() {
    let from = Target { https: true, host: "h".into(), port: 8443, path: "/a/b?q".into() };
    let lead = |location: &str| {
        from.redirected(location).map(|t| format!("{} {} {} {}", t.https, t.host, t.port, t.path))
    };
    for (location, expected) in [
        ("c", "true h 8443 /a/c"),
        ("?x", "true h 8443 /a/b?x"),
        ("/c d", "true h 8443 /c%20d"),
        ("//h:1/x", "true h 1 /x"),
        ("http://h/x", "false h 80 /x"),
        ("https://u:p@h", "true h 443 /"),
        ("https://[::1]:7/x", "true ::1 7 /x"),
    ] {
        assert_eq!(lead(location).as_deref(), Some(expected), "{location}");
    }
    for nowhere in ["ftp://h/", "http://h:x/", "http://", "mailto:a"] {
        assert_eq!(lead(nowhere), None, "{nowhere}");
    }
}

/// A certificate that names nobody, is signed by itself and is good for one day, and its key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBeDCCAR2gAwIBAgIUftcjoSgG1fdjm4lARAHCVQMafDQwCgYIKoZIzj0EAwIw\n\
    ETEPMA0GA1UEAwwGbm9ib2R5MB4XDTI2MTEyMTExMTU0M1oXDTI2MTEyMjExMTU0\n\
    M1owETEPMA0GA1UEAwwGbm9ib2R5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n\
    vTw0ahRK9NJtJTgEmamqDLYLHRqae+fXAnRn/w8xTnOiHI3vVcCMZyA5MiljsggI\n\
    SHDS6ZSK5Y82xKBrLJJ8HaNTMFEwHQYDVR0OBBYEFHGw6GKFlVesRw4s+gk+yC/u\n\
    89ZXMB8GA1UdIwQYMBaAFHGw6GKFlVesRw4s+gk+yC/u89ZXMA8GA1UdEwEB/wQF\n\
    MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAK9vtytNq18m9CHhxJ9YxBlolcFxgKZq\n\
    sKsJEloUxNxDAiEAwvhsSwX07sqe2RwHZG+Nxg7J+rMAMp49w9+57vKDN3g=\n\
    -----END CERTIFICATE-----";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3EJjdtyuqpNcPAA2\n\
    DHNdFIOp3qH1wpQeE5plDad9uwqhRANCAAS9PDRqFEr00m0lOASZqaoMtgsdGpp7\n\
    59cCdGf/DzFOc6Icje9VwIxnIDkyKWOyCAhIcNLplIrljzbEoGssknwd\n\
    -----END PRIVATE KEY-----";

/// One of version 1, as `openssl x509 -req` makes them, which rustls by itself does not read.
const CERTIFICATE_V1: &str = include_str!("../../../tests/data/tls-v1.crt");
const KEY_V1: &str = include_str!("../../../tests/data/tls-v1.key");

/// A server over TLS of one version that gives one answer.
async fn tls_server(certificate: &str, key: &str, version: &'static rustls::SupportedProtocolVersion) -> u16 {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    let pair = rustls::sign::CertifiedKey::new(vec![certificate], key);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(answer(200, "", "over tls").as_bytes()).await.unwrap();
        stream.shutdown().await.ok();
    });
    port
}

#[tokio::test]
async fn any_certificate_will_do() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (certificate, key) in [(CERTIFICATE, KEY), (CERTIFICATE_V1, KEY_V1)] {
            let port = tls_server(certificate, key, version).await;
            let well = get(&Get { https: true, ..to(port, "/") }, LONG).await.unwrap();
            assert_eq!(well, Answer { status: 200, body: "over tls".into() });
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_no_success_over_it_and_is_told() {
    for (says, is_http) in [("HTTP/1.1 400 X\r\n\r\n", true), ("SSH-2.0-x\r\n", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
            stream.write_all(says.as_bytes()).await.unwrap();
        });
        let plain = get(&Get { https: true, ..to(port, "/") }, LONG).await;
        match plain {
            Err(GetError::NoTls(why)) if is_http => assert!(why.contains("plain HTTP"), "{why}"),
            Err(GetError::Failed(_)) if !is_http => {}
            other => panic!("{says}: {other:?}"),
        }
    }
}
