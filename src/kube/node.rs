//! What is read of a Node and changed of it.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::{ApiClient, KubeError, Patch, client::escaped};

/// Says who made a node take no new pods, so that nobody else's wish is undone by us: kubectl leaves no such mark.
const CORDONED_BY: &str = "nodectl.dev/cordoned-by";
const OURSELVES: &str = "switch-runtime";

/// Whether a node takes new pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cordon {
    /// It takes them.
    No,
    /// It does not, by our own doing.
    Ours,
    /// It does not, by somebody else's.
    Others,
}

/// Reads a node.
///
/// # Errors
/// As [`KubeError`] has them.
pub async fn node(client: &ApiClient, name: &str) -> Result<Node, KubeError> {
    client.get(&path(name)).await
}

/// Whether a node takes new pods.
#[must_use]
pub fn cordoned(node: &Node) -> Cordon {
    if !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        Cordon::No
    } else if annotation(node, CORDONED_BY) == Some(OURSELVES) {
        Cordon::Ours
    } else {
        Cordon::Others
    }
}

/// The value of an annotation.
#[must_use]
pub fn annotation<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Makes a node take no new pods, marked as our doing; one that takes none already is left as it is.
///
/// # Errors
/// As [`KubeError`] has them.
pub async fn cordon(client: &ApiClient, name: &str) -> Result<(), KubeError> {
    if cordoned(&node(client, name).await?) != Cordon::No {
        return Ok(());
    }
    let change = json!({
        "metadata": { "annotations": { CORDONED_BY: OURSELVES } },
        "spec": { "unschedulable": true },
    });
    patch(client, name, &change).await
}

/// Makes a node take new pods again, if it was our doing that it does not.
///
/// # Errors
/// As [`KubeError`] has them.
pub async fn uncordon(client: &ApiClient, name: &str) -> Result<(), KubeError> {
    let found = node(client, name).await?;
    let unmark = json!({ "annotations": { CORDONED_BY: null } });
    let change = match cordoned(&found) {
        Cordon::Ours => json!({ "metadata": unmark, "spec": { "unschedulable": null } }),
        // Somebody has uncordoned it meanwhile, and our mark would speak of a later cordon.
        Cordon::No if annotation(&found, CORDONED_BY).is_some() => json!({ "metadata": unmark }),
        Cordon::No | Cordon::Others => return Ok(()),
    };
    patch(client, name, &change).await
}

/// Gives an annotation a value, or takes it away.
///
/// # Errors
/// As [`KubeError`] has them.
pub async fn set_annotation(
    client: &ApiClient,
    name: &str,
    key: &str,
    value: Option<&str>,
) -> Result<(), KubeError> {
    if annotation(&node(client, name).await?, key) == value {
        return Ok(());
    }
    patch(client, name, &json!({ "metadata": { "annotations": { key: value } } })).await
}

async fn patch(client: &ApiClient, name: &str, change: &Value) -> Result<(), KubeError> {
    client.patch::<Node>(&path(name), Patch::Merge, change).await.map(|_node| ())
}

fn path(name: &str) -> String {
    format!("/api/v1/nodes/{}", escaped(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::{Kubeconfig, test_server::TestServer};

    fn unschedulable(server: &TestServer) -> Value {
        server.object("/api/v1/nodes/n")["spec"]["unschedulable"].clone()
    }

    #[tokio::test]
    async fn only_our_own_cordon_is_taken_back() {
        let server = TestServer::start().await;
        server.put("/api/v1/nodes/n", json!({ "metadata": { "name": "n" } }));
        let client = ApiClient::open(&server.kubeconfig("")).unwrap();
        cordon(&client, "n").await.unwrap();
        assert_eq!(cordoned(&node(&client, "n").await.unwrap()), Cordon::Ours);
        cordon(&client, "n").await.unwrap();
        assert_eq!(server.count("PATCH"), 1, "{:?}", server.requests());
        uncordon(&client, "n").await.unwrap();
        assert_eq!(unschedulable(&server), Value::Null);
        assert_eq!(server.object("/api/v1/nodes/n")["metadata"]["annotations"], json!({}));

        server.put(
            "/api/v1/nodes/n",
            json!({ "metadata": { "name": "n" }, "spec": { "unschedulable": true } }),
        );
        cordon(&client, "n").await.unwrap();
        uncordon(&client, "n").await.unwrap();
        assert_eq!(unschedulable(&server), true);
        assert_eq!(server.count("PATCH"), 2);
    }

    #[tokio::test]
    async fn an_annotation_is_set_and_taken_away() {
        let server = TestServer::start().await;
        server.put("/api/v1/nodes/n", json!({ "metadata": { "name": "n", "annotations": { "a": "1" } } }));
        let client = ApiClient::open(&server.kubeconfig("")).unwrap();
        set_annotation(&client, "n", "b/c", Some("2")).await.unwrap();
        assert_eq!(
            server.object("/api/v1/nodes/n")["metadata"]["annotations"],
            json!({ "a": "1", "b/c": "2" })
        );
        set_annotation(&client, "n", "b/c", None).await.unwrap();
        set_annotation(&client, "n", "b/c", None).await.unwrap();
        assert_eq!(server.object("/api/v1/nodes/n")["metadata"]["annotations"], json!({ "a": "1" }));
        assert_eq!(server.count("PATCH"), 2);
        let error = set_annotation(&client, "m", "a", None).await.unwrap_err();
        assert!(error.is_not_found() && !error.may_pass());
        let told = format!(
            "GET /api/v1/nodes/m: API server {} refuses: /api/v1/nodes/m not found (404)",
            client.server()
        );
        assert_eq!(error.to_string(), told);
    }

    #[tokio::test]
    async fn who_we_are_and_whom_we_trust() {
        let server = TestServer::start().await;
        server.put("/api/v1/nodes/n", json!({ "metadata": { "name": "n" } }));
        // By the certificate.
        let by_certificate = ApiClient::open(&server.kubeconfig("")).unwrap();
        node(&by_certificate, "n").await.unwrap();
        assert_eq!(server.requests()[0].who, "certificate");
        // By a token in a file, read anew whenever it is used.
        let token = server.folder().join("token");
        std::fs::write(&token, "first\n").unwrap();
        let by_token = ApiClient::open(&server.kubeconfig("tokenFile: token\n")).unwrap();
        node(&by_token, "n").await.unwrap();
        std::fs::write(&token, "second\n").unwrap();
        node(&by_token, "n").await.unwrap();
        let who: Vec<_> = server.requests()[1..].iter().map(|request| request.who.clone()).collect();
        assert_eq!(who, ["Bearer first", "Bearer second"]);
        std::fs::remove_file(&token).unwrap();
        let error = node(&by_token, "n").await.unwrap_err().to_string();
        assert!(error.contains("tokenFile") && error.contains("cannot be read"), "{error}");

        let config = std::fs::read_to_string(server.kubeconfig("token: x\n")).unwrap();
        let other = |from: &str, to: &str| {
            let path = server.folder().join("other");
            std::fs::write(&path, config.replace(from, to)).unwrap();
            ApiClient::new(Kubeconfig::read(&path).unwrap())
        };
        let wrong_name = other("streams.test", "api.test").unwrap();
        let error = node(&wrong_name, "n").await.unwrap_err();
        assert!(error.may_pass() && error.to_string().contains("certificate"), "{error}");
        let authority = "certificate-authority: ca.crt";
        let unknown = other(authority, "x: y").unwrap();
        assert!(node(&unknown, "n").await.unwrap_err().to_string().contains("UnknownIssuer"));
        let any = other(authority, "insecure-skip-tls-verify: true").unwrap();
        node(&any, "n").await.unwrap();
    }
}
