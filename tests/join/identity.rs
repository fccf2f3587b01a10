//! The node's identity at a real API server: from a bootstrap token to a certificate, its renewal under a running
//! agent, what becomes of it when the agent is killed or files are torn, and `nodectl certs`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use nodectl::api::certificate::Certificate;
use serde_json::{Value, json};

use crate::support::{ControlPlane, Node, ROOMY, SOON, STAY, pod, wait_for, wait_until};

fn requests(cluster: &ControlPlane) -> Api<CertificateSigningRequest> {
    Api::all(cluster.client())
}

/// The requests of a node, by the subject in them.
fn requests_of(cluster: &ControlPlane, node: &str) -> Vec<String> {
    let user = format!("system:node:{node}");
    let all = cluster.block_on(requests(cluster).list(&ListParams::default())).unwrap();
    let mentions = |request: &CertificateSigningRequest| {
        use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
        let der = CertificateSigningRequestDer::from_pem_slice(&request.spec.request.0).unwrap();
        der.as_ref().windows(user.len()).any(|window| window == user.as_bytes())
    };
    all.into_iter().filter(|request| mentions(request)).filter_map(|request| request.metadata.name).collect()
}

fn decide(cluster: &ControlPlane, request: &str, kind: &str) {
    let condition =
        json!({ "type": kind, "status": "True", "reason": "ByTest", "message": "as the test wants" });
    let change = json!({ "status": { "conditions": [condition] } });
    let (api, params, change) = (requests(cluster), PatchParams::default(), Patch::Strategic(&change));
    cluster.block_on(api.patch_approval(request, &params, &change)).unwrap();
}

fn no_approval_by_itself(cluster: &ControlPlane) {
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client());
    let name = "kubeadm:node-autoapprove-bootstrap";
    cluster.block_on(bindings.delete(name, &DeleteParams::default())).unwrap();
}

fn kubeconfig(node: &Node) -> PathBuf {
    node.dir().join("kubelet.conf")
}

fn current(node: &Node, kind: &str) -> PathBuf {
    node.cert_dir().join(format!("kubelet-{kind}-current.pem"))
}

fn certificate(path: &Path) -> Option<Certificate> {
    Certificate::leaf(&fs::read(path).ok()?).ok()
}

/// A node that joins by the bootstrap kubeconfig, with a static pod.
fn joining(name: &str, cluster: &ControlPlane, config: &str) -> Node {
    let mut node = Node::builder(name).config(ROOMY).config(config).prepare();
    node.set_arguments(&[
        &format!("--kubeconfig={}", kubeconfig(&node).display()),
        &format!("--bootstrap-kubeconfig={}", cluster.fact("BOOTSTRAP")),
    ]);
    node.put(&pod("web", STAY));
    node
}

/// What healthz says of a check: whether it is well, and the words.
fn check(node: &Node, name: &str) -> Option<String> {
    let (_, body) = node.healthz("/healthz?verbose").ok()?;
    body.lines().find(|line| line.contains(&format!("]{name} "))).map(str::to_owned)
}

#[track_caller]
fn wait_check(node: &Node, name: &str, words: &str) -> String {
    let within = SOON * 2;
    wait_for(within, &format!("{name} says {words:?}"), || {
        check(node, name).filter(|line| line.contains(words))
    })
}

/// The request that healthz names.
#[track_caller]
fn awaited(node: &Node, check: &str) -> String {
    let line = wait_check(node, check, "kubectl certificate approve ");
    line.split_whitespace().find(|word| word.starts_with("node-csr-")).unwrap().to_owned()
}

fn certs(node: &Node, arguments: &[&str]) -> Output {
    node.run_cli(&[&["certs"], arguments].concat())
}

#[track_caller]
fn listed(node: &Node, name: &str) -> Value {
    let output = certs(node, &["-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = list["certificates"].as_array().unwrap();
    entries
        .iter()
        .find(|entry| entry["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {list}"))
        .clone()
}

#[test]
fn a_token_becomes_an_identity() {
    let cluster = ControlPlane::shared();
    let mut node = joining("id-token", &cluster, "rotateCertificates: true\n");
    node.start_agent();
    wait_check(&node, "client-certificate", "is good until");
    for file in [kubeconfig(&node), current(&node, "client")] {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert!(current(&node, "client").is_symlink());
    let text = fs::read_to_string(kubeconfig(&node)).unwrap();
    assert!(text.contains("kubelet-client-current.pem") && !text.contains("token"), "{text}");
    let first = certificate(&current(&node, "client")).unwrap();
    assert_eq!(first.subject, "O=system:nodes, CN=system:node:id-token");
    assert!(!node.cert_dir().join("kubelet-client.key.tmp").exists());
    assert_eq!(requests_of(&cluster, "id-token").len(), 1);
    wait_check(&node, "serving-certificate", "self-signed");
    node.wait_phase("web", "Running");
    // The next agent has what it needs.
    node.restart();
    wait_check(&node, "client-certificate", "is good until");
    // Killed before the kubeconfig was written: the certificate is there.
    node.kill9();
    fs::remove_file(kubeconfig(&node)).unwrap();
    node.start_agent();
    wait_check(&node, "client-certificate", "is good until");
    assert_eq!(certificate(&current(&node, "client")).unwrap(), first);
    assert_eq!(requests_of(&cluster, "id-token").len(), 1);
    // Torn under the running agent, with nothing before it: got anew.
    fs::write(fs::canonicalize(current(&node, "client")).unwrap(), "torn").unwrap();
    wait_until(SOON, "a new certificate", || {
        certificate(&current(&node, "client")).is_some_and(|new| new != first)
    });
    wait_check(&node, "client-certificate", "is good until");
    assert_eq!(requests_of(&cluster, "id-token").len(), 2);
    let log = node.agent_log();
    assert!(!log.contains("PRIVATE KEY") && !log.contains("0123456789abcdef"), "secrets in the log");
    node.wait_phase("web", "Running");
}

#[test]
fn approval_is_awaited_over_restarts_and_outages() {
    let cluster = ControlPlane::start();
    no_approval_by_itself(&cluster);
    // It may be at its start, which it does not survive without a server, or wait ever longer for one.
    cluster.kill("kube-controller-manager");
    cluster.kill("kube-apiserver");
    let mut node = joining("id-waits", &cluster, "");
    node.start_agent();
    // No server: static pods run all the same.
    wait_check(&node, "client-certificate", "cannot get a certificate");
    node.wait_phase("web", "Running");
    cluster.resume();
    let name = awaited(&node, "client-certificate");
    let told = format!("kubectl certificate approve {name}");
    wait_until(SOON, "the log tells it", || node.agent_log().contains(&told));
    node.kill9();
    node.start_agent();
    assert_eq!(awaited(&node, "client-certificate"), name);
    assert_eq!(requests_of(&cluster, "id-waits"), std::slice::from_ref(&name));
    // Approved while nobody looks.
    node.kill9();
    decide(&cluster, &name, "Approved");
    node.start_agent();
    wait_check(&node, "client-certificate", "it is not renewed (rotateCertificates)");
    assert_eq!(requests_of(&cluster, "id-waits"), [name]);
    assert!(kubeconfig(&node).exists());

    // Another node is not let in, until somebody changes his mind.
    let mut node = joining("id-denied", &cluster, "");
    node.start_agent();
    let name = awaited(&node, "client-certificate");
    decide(&cluster, &name, "Denied");
    let line = wait_check(&node, "client-certificate", "was denied");
    assert!(
        line.contains("ByTest: as the test wants") && line.contains(&format!("kubectl delete csr {name}")),
        "{line}"
    );
    cluster.block_on(requests(&cluster).delete(&name, &DeleteParams::default())).unwrap();
    let again = awaited(&node, "client-certificate");
    assert_ne!(again, name);
    decide(&cluster, &again, "Approved");
    wait_check(&node, "client-certificate", "is good until");
}

#[test]
fn certificates_are_renewed_under_the_running_agent() {
    // The signer dates certificates back by five minutes, and these count: thirty seconds are left.
    let cluster = ControlPlane::start_with(&[("NODECTL_SIGNING", "5m30s")]);
    let config = "rotateCertificates: true\nserverTLSBootstrap: true\n";
    let mut node = joining("id-short", &cluster, config);
    node.start_agent();
    wait_check(&node, "client-certificate", "is good until");
    // Nobody approves serving certificates by himself.
    let name = awaited(&node, "serving-certificate");
    decide(&cluster, &name, "Approved");
    wait_check(&node, "serving-certificate", "is good until");
    let serving = certificate(&current(&node, "server")).unwrap();
    assert_eq!(serving.dns_names, ["id-short"]);
    assert_eq!(serving.addresses.len(), 1);
    let mut seen = vec![certificate(&current(&node, "client")).unwrap()];
    for _ in 0..2 {
        let last = seen.last().unwrap().clone();
        let next = wait_for(SOON * 2, "the next certificate", || {
            certificate(&current(&node, "client")).filter(|next| *next != last)
        });
        assert_ne!(next.public_key, last.public_key, "a new key");
        seen.push(next);
    }
    let renewed = awaited(&node, "serving-certificate");
    assert_ne!(renewed, name);
    decide(&cluster, &renewed, "Approved");
    wait_until(SOON, "the next serving certificate", || {
        certificate(&current(&node, "server")).is_some_and(|next| next != serving)
    });
    // The node renews with what it has.
    let own = || {
        let user = Some("system:node:id-short");
        let all = cluster.block_on(requests(&cluster).list(&ListParams::default())).unwrap();
        let own = all.into_iter().filter(|request| {
            request.spec.signer_name == "kubernetes.io/kube-apiserver-client-kubelet"
                && request.spec.username.as_deref() == user
                && request.status.as_ref().is_some_and(|status| status.certificate.is_some())
        });
        own.count()
    };
    wait_until(SOON * 2, "two renewals by the node itself", || own() >= 2);
    // It was let in once with the token, and again only where all was too slow for seconds of a certificate.
    let log = node.agent_log();
    let mut begun = log.lines().filter(|line| line.contains("as the bootstrap kubeconfig says"));
    assert!(begun.next().is_some(), "{log}");
    assert!(begun.all(|line| line.contains("has expired on")), "{log}");
    let old = fs::read_dir(node.cert_dir()).unwrap().count();
    assert!(old < 20, "old ones are removed: {old}");
}

#[test]
fn certs_are_listed_and_renewed() {
    let cluster = ControlPlane::shared();
    let mut node = joining("id-certs", &cluster, "");
    node.start_agent();
    wait_check(&node, "client-certificate", "it is not renewed");
    wait_check(&node, "serving-certificate", "self-signed");
    // Where all is follows from the running agent.
    let client = listed(&node, "client");
    assert_eq!(client["subject"], "O=system:nodes, CN=system:node:id-certs");
    assert_eq!((&client["renewedBy"], &client["problems"]), (&json!("nobody"), &json!([])));
    assert_eq!(client["file"], current(&node, "client").display().to_string());
    assert_eq!(listed(&node, "serving")["dnsNames"], json!(["id-certs"]));
    assert_eq!(listed(&node, "server-ca")["isAuthority"], true);
    let before = certificate(&current(&node, "client")).unwrap();
    let output = certs(&node, &["renew", "client"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("client: "));
    let after = certificate(&current(&node, "client")).unwrap();
    assert_ne!(before, after);
    // The agent takes it.
    wait_check(&node, "client-certificate", &after.not_after.to_string());
    assert!(certs(&node, &["renew", "server"]).status.success());
    // Without an agent, a server, and with much that is wrong.
    assert_eq!(node.sigterm(), Some(0));
    fs::write(node.cert_dir().join("kubelet.crt"), "torn").unwrap();
    let broken = |arguments: &[&str]| {
        let places = [
            ("--kubeconfig", kubeconfig(&node)),
            ("--cert-dir", node.cert_dir()),
            ("--pki-dir", PathBuf::from(cluster.fact("PKI"))),
            ("--socket", "/nowhere".into()),
            ("--config", node.config_file()),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodectl"));
        command.arg("certs").args(arguments).args(["--hostname-override", "other"]);
        for (flag, path) in &places {
            command.arg(flag).arg(path);
        }
        command.output().unwrap()
    };
    let output = broken(&[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("not for \"system:node:other\"") && text.contains("holds no certificate"),
        "{text}"
    );
    assert!(text.contains("control-plane/apiserver") && text.contains("kubeadm"), "{text}");
    // A certificate inside the kubeconfig would not be used after its renewal.
    let inside = cluster.node_kubeconfig("id-inside");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodectl"));
    command.args(["certs", "renew", "client", "--socket", "/nowhere", "--hostname-override", "id-inside"]);
    command.arg("--kubeconfig").arg(&inside).arg("--cert-dir").arg(node.dir().join("other"));
    let refused = command.output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("hint: set rotateCertificates: true"), "{told}");
}

#[test]
fn an_expired_identity_is_told_and_replaced() {
    let cluster = ControlPlane::shared();
    let mut node = Node::builder("id-expired").config(ROOMY).prepare();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(node.dir().join("old.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(node.dir().join("old.key"), key.serialize_pem()).unwrap();
    let text = format!(
        "current-context: a\ncontexts: [{{name: a, context: {{cluster: k, user: u}}}}]\nclusters:\n- name: k\n  \
         cluster: {{server: '{}'}}\nusers:\n- name: u\n  user: {{client-certificate: old.crt, client-key: old.key}}\n",
        cluster.fact("SERVER")
    );
    fs::write(kubeconfig(&node), text).unwrap();
    node.set_arguments(&[&format!("--kubeconfig={}", kubeconfig(&node).display())]);
    node.put(&pod("web", STAY));
    node.start_agent();
    let line = wait_check(&node, "client-certificate", "has expired on 2021-01-01");
    assert!(
        line.contains("kubeadm token create") && line.contains("--client-name=system:node:id-expired"),
        "{line}"
    );
    node.wait_phase("web", "Running");
    assert_eq!(listed(&node, "client")["problems"][0], "expired");
    let renewed = certs(&node, &["renew", "client"]);
    assert_eq!(renewed.status.code(), Some(1));
    // What the words say is done, and it is taken at once.
    let new = cluster.node_kubeconfig("id-expired");
    fs::copy(new, node.dir().join("new.conf")).unwrap();
    fs::rename(node.dir().join("new.conf"), kubeconfig(&node)).unwrap();
    wait_check(&node, "client-certificate", "is good until");

    // There is no such file, and no way to get one: the path is wrong.
    assert_eq!(node.sigterm(), Some(0));
    node.set_arguments(&["--kubeconfig=/nowhere/kubelet.conf"]);
    let output = node.agent_command().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no such file"));
}
