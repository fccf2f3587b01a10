//! Tests of [`super`].

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use serde_json::json;

use super::*;
use crate::kube::{Kubeconfig, connect, test_server::TestServer};

fn asked(key: &Key) -> Request {
    Request::new(key, "system:node:a", "system:nodes", Purpose::Client)
}

fn serving() -> Purpose {
    Purpose::Serving { names: vec!["a".to_owned()], addresses: vec!["10.0.0.1".parse().unwrap()] }
}

#[test]
fn the_name_is_kubelets_and_follows_from_what_is_asked() {
    let key = Key::generate().unwrap();
    let name = asked(&key).name;
    assert_eq!(asked(&key).name, name);
    assert_eq!(name.len(), "node-csr-".len() + 43);
    assert_ne!(asked(&Key::generate().unwrap()).name, name);
    assert_ne!(Request::new(&key, "system:node:b", "system:nodes", Purpose::Client).name, name);
    let served = Request::new(&key, "system:node:a", "system:nodes", serving()).name;
    let more = Purpose::Serving { names: vec!["a".to_owned(), "10.0.0.1".to_owned()], addresses: Vec::new() };
    assert_ne!(served, name);
    assert_ne!(Request::new(&key, "system:node:a", "system:nodes", more).name, served);
}

fn with(
    request: &Request,
    change: impl FnOnce(&mut CertificateSigningRequestStatus),
) -> Result<Option<Vec<u8>>, CsrError> {
    let mut object = request.object().unwrap();
    change(object.status.get_or_insert_default());
    request.outcome(&object)
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    }
}

#[test]
fn what_becomes_of_a_request_is_told() {
    let key = Key::generate().unwrap();
    let request = asked(&key);
    assert_eq!(with(&request, |_| ()), Ok(None));
    assert_eq!(
        with(&request, |status| status.conditions = Some(vec![condition("Approved", "", "")])),
        Ok(None)
    );
    for (kind, told) in
        [("Denied", "was denied: No: because "), ("Failed", "could not be signed: No: because ")]
    {
        let error = with(&request, |status| {
            status.conditions = Some(vec![condition(kind, "No", &format!("because \n{}", "x".repeat(2000)))]);
        })
        .unwrap_err();
        let text = error.to_string();
        assert!(
            error.is_final() && text.contains(told) && text.len() < 700 && !text.contains('\n'),
            "{text}"
        );
    }
    let silent = with(&request, |status| status.conditions = Some(vec![condition("Denied", "", "")]));
    assert!(silent.unwrap_err().to_string().ends_with("was denied, and nobody says why"));
    let signed = |pem: &[u8]| with(&request, |status| status.certificate = Some(ByteString(pem.to_owned())));
    assert_eq!(signed(b""), Ok(None));
    assert!(signed(b"x").unwrap_err().to_string().contains("what was signed holds no certificate"));
    let other = signed(include_bytes!("../../tests/data/tls-streams.crt")).unwrap_err();
    assert!(other.to_string().contains("for somebody else"));
    let foreign = asked(&Key::generate().unwrap()).object().unwrap();
    assert!(request.outcome(&foreign).unwrap_err().to_string().contains("somebody else has made one"));
}

/// Signs as a test's authority: the node itself.
fn signed(request: &Request) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, request.user.as_str());
    params.self_signed(&request.key).unwrap().pem().into_bytes()
}

#[tokio::test]
async fn a_request_is_made_once_and_found_again() {
    let server = TestServer::start().await;
    let client = connect(&Kubeconfig::read(&server.kubeconfig("")).unwrap(), None).unwrap();
    let request = asked(&Key::generate().unwrap());
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let own = format!("{path}/{}", request.name);
    // The server is not there yet.
    for _ in 0..3 {
        server.refuse("GET", &own, 503, "not yet");
    }
    let error = request.obtain(&client, || panic!("nothing to wait for")).await.unwrap_err();
    assert!(!error.is_final() && error.to_string().contains("not yet"), "{error}");
    // Approved while the answer to a lost creation is looked for.
    let mut object = serde_json::to_value(request.object().unwrap()).unwrap();
    object["status"] = json!({ "certificate": ByteString(signed(&request)) });
    server.on_request(move |asked, objects| {
        if asked.method == "POST" {
            objects.insert(own.clone(), object.clone());
        }
    });
    server.refuse("POST", path, 409, "already exists");
    let chain = request.obtain(&client, || ()).await.unwrap();
    Certificate::leaf(&chain).unwrap().check_key(request.key.pem().as_bytes()).unwrap();
    request.obtain(&client, || ()).await.unwrap();
    assert_eq!(server.count("POST"), 1);
}
