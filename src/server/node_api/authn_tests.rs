//! Who is let in, with real certificates and an API server of the test's own.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::json;

use super::*;
use crate::{
    config::Authorization,
    kube::{Kubeconfig, Rates, test_server::TestServer},
    server::node_api::authz::Authorizer,
};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn put(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }

    fn certificate(&self, change: impl Fn(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, "reader");
        params.distinguished_name.push(DnType::OrganizationName, "readers");
        change(&mut params);
        vec![params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()]
    }
}

fn nobody_to_ask() -> ApiServer {
    ApiServer::new(Rates::default())
}

fn asked(server: &TestServer) -> ApiServer {
    let api = nobody_to_ask();
    api.use_credentials(&Kubeconfig::read(&server.kubeconfig("")).unwrap()).unwrap();
    api
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("bearer  {token}")).unwrap());
    headers
}

fn reader() -> User {
    let groups = ["readers", "system:authenticated"].map(str::to_owned).into();
    User { name: "reader".to_owned(), groups, ..User::default() }
}

#[tokio::test]
async fn a_certificate_counts_if_its_authority_does_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    let (authority, other) = (Authority::new(), Authority::new());
    authority.put(&path);
    let authenticator = |anonymous| Authenticator::new(Some(path.clone()), None, anonymous, nobody_to_ask());
    let (ours, none) = (authenticator(false), HeaderMap::new());
    let shown = authority.certificate(|_| {});
    assert_eq!(ours.authenticate(Some(&shown), &none).await, Ok(Some(reader())));
    assert_eq!(ours.authenticate(None, &none).await, Ok(None));

    // What does not hold is never taken for nobody.
    let anonymous = authenticator(true);
    assert_eq!(anonymous.authenticate(None, &none).await, Ok(Some(User::anonymous())));
    type Change = fn(&mut CertificateParams);
    let wrong: [(&Authority, Change); 4] = [
        (&other, |_| {}),
        (&authority, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
        (&authority, |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1)),
        (&authority, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ];
    for (number, (authority, change)) in wrong.into_iter().enumerate() {
        let shown = authority.certificate(change);
        let refused = anonymous.authenticate(Some(&shown), &none).await;
        assert!(refused.is_err_and(|why| why.contains("does not hold")), "{number}");
    }
    // A name is what makes somebody of it.
    let nameless =
        authority.certificate(|params| params.distinguished_name = rcgen::DistinguishedName::new());
    assert_eq!(ours.authenticate(Some(&nameless), &none).await, Ok(None));
    // Without authorities it says nothing.
    let without = Authenticator::new(None, None, false, nobody_to_ask());
    assert_eq!(without.authenticate(Some(&shown), &none).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn another_authority_counts_without_a_restart_and_a_torn_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    let authenticator = Authenticator::new(Some(path.clone()), None, false, nobody_to_ask());
    let (old, new) = (Authority::new(), Authority::new());
    let (by_old, by_new) = (old.certificate(|_| {}), new.certificate(|_| {}));
    let none = HeaderMap::new();
    // There is no file yet.
    assert!(authenticator.authenticate(Some(&by_old), &none).await.is_err());
    old.put(&path);
    tokio::time::advance(LOOK).await;
    assert_eq!(authenticator.authenticate(Some(&by_old), &none).await, Ok(Some(reader())));
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    tokio::time::advance(LOOK).await;
    assert_eq!(authenticator.authenticate(Some(&by_old), &none).await, Ok(Some(reader())));
    new.put(&path);
    tokio::time::advance(LOOK).await;
    assert_eq!(authenticator.authenticate(Some(&by_new), &none).await, Ok(Some(reader())));
    assert!(authenticator.authenticate(Some(&by_old), &none).await.is_err());
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_is_believed_for_a_while() {
    let server = TestServer::start().await;
    let status = json!({ "authenticated": true, "user": { "username": "scraper", "uid": "7", "groups": ["g"],
        "extra": { "k": ["v"] } } });
    server.put(
        &format!("POST {REVIEWS}"),
        json!({ "metadata": {}, "spec": { "token": "" }, "status": status }),
    );
    let authenticator = Authenticator::new(None, Some(Duration::from_secs(600)), true, asked(&server));
    let expected = User {
        name: "scraper".to_owned(),
        uid: Some("7".to_owned()),
        groups: vec!["g".to_owned()],
        extra: [("k".to_owned(), vec!["v".to_owned()])].into(),
    };
    for _ in 0..3 {
        assert_eq!(authenticator.authenticate(None, &bearer("good")).await, Ok(Some(expected.clone())));
    }
    assert_eq!(server.count("POST"), 1);
    assert_eq!(server.requests()[0].body["spec"]["token"], "good");
    // The same by a WebSocket's protocols.
    let mut headers = HeaderMap::new();
    let protocols = "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.Z29vZA";
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
    // That is no WebSocket.
    assert_eq!(authenticator.authenticate(None, &headers).await, Ok(Some(User::anonymous())));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    assert_eq!(authenticator.authenticate(None, &headers).await, Ok(Some(expected)));
    // Alone it would be what is agreed on, and of two nobody knows which counts.
    let token = "base64url.bearer.authorization.k8s.io.Z29vZA";
    for wrong in [token.to_owned(), format!("{token}, v4.channel.k8s.io, {token}")] {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, wrong.parse().unwrap());
        assert_eq!(authenticator.authenticate(None, &headers).await, Ok(Some(User::anonymous())), "{wrong}");
    }
    assert_eq!(server.count("POST"), 1);

    // One that nobody knows is refused, and is not asked for again and again.
    server.put(
        &format!("POST {REVIEWS}"),
        json!({ "metadata": {}, "spec": { "token": "" }, "status": { "authenticated": false } }),
    );
    for _ in 0..3 {
        assert!(authenticator.authenticate(None, &bearer("bad")).await.is_err());
    }
    assert_eq!(server.count("POST"), 2);
    let long = "x".repeat(MAX_TOKEN + 1);
    assert!(authenticator.authenticate(None, &bearer(&long)).await.is_err());
    assert_eq!(server.count("POST"), 2);
    // Other schemes are as good as nothing.
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
    assert_eq!(authenticator.authenticate(None, &headers).await, Ok(Some(User::anonymous())));
}

#[tokio::test]
async fn a_server_that_fails_lets_nobody_in_and_is_asked_again() {
    let server = TestServer::start().await;
    server.refuse("POST", REVIEWS, 500, "etcd is away");
    let authenticator = Authenticator::new(None, Some(Duration::from_secs(600)), true, asked(&server));
    let why = authenticator.authenticate(None, &bearer("secret-token")).await.unwrap_err();
    assert!(why.contains("etcd is away") && !why.contains("secret-token"), "{why}");
    server.put(
        &format!("POST {REVIEWS}"),
        json!({ "metadata": {}, "spec": { "token": "" },
        "status": { "authenticated": true, "user": { "username": "scraper" } } }),
    );
    assert!(authenticator.authenticate(None, &bearer("secret-token")).await.is_ok_and(|user| user.is_some()));
    let alone = Authenticator::new(None, Some(Duration::from_secs(600)), true, nobody_to_ask());
    assert!(alone.authenticate(None, &bearer("secret-token")).await.is_err());
}

#[tokio::test]
async fn rights_are_asked_for_once_and_are_never_guessed() {
    let server = TestServer::start().await;
    let mode = Authorization::Webhook { allowed: Duration::from_secs(600), denied: Duration::from_secs(600) };
    let authorizer = Authorizer::new(mode, "node-a".to_owned(), asked(&server));
    let answer = |status: serde_json::Value| {
        server.put(&format!("POST {ACCESS}"), json!({ "metadata": {}, "spec": {}, "status": status }));
    };
    server.refuse("POST", ACCESS, 500, "etcd is away");
    assert!(authorizer.may(&reader(), "get", "metrics").await.is_err());
    answer(json!({ "allowed": true }));
    for _ in 0..3 {
        assert_eq!(authorizer.may(&reader(), "get", "metrics").await, Ok(true));
    }
    assert_eq!(server.count("POST"), 2);
    let asked_for = &server.requests()[1].body["spec"];
    assert_eq!(asked_for["user"], "reader");
    assert_eq!(asked_for["groups"], json!(["readers", "system:authenticated"]));
    let attributes = json!({ "verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "node-a" });
    assert_eq!(asked_for["resourceAttributes"], attributes);
    // A right to one thing says nothing of another, nor one user's of another's.
    answer(json!({ "allowed": false }));
    assert_eq!(authorizer.may(&reader(), "create", "metrics").await, Ok(false));
    assert_eq!(authorizer.may(&reader(), "get", "proxy").await, Ok(false));
    assert_eq!(
        authorizer.may(&User { name: "other".to_owned(), ..reader() }, "get", "metrics").await,
        Ok(false)
    );
    answer(json!({ "allowed": true, "denied": true }));
    assert_eq!(authorizer.may(&reader(), "get", "stats").await, Ok(false));
    let alone = Authorizer::new(mode, "node-a".to_owned(), nobody_to_ask());
    assert!(alone.may(&reader(), "get", "metrics").await.is_err());
    let always = Authorizer::new(Authorization::AlwaysAllow, "node-a".to_owned(), nobody_to_ask());
    assert_eq!(always.may(&reader(), "get", "metrics").await, Ok(true));
}
