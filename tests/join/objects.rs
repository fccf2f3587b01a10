//! What pods of an API server are given: ConfigMaps, Secrets and tokens, against a real server with the Node
//! authorizer and NodeRestriction on.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{ControlPlane, Node, SOON, STAY, container, files_on_disk_with, pod_of, wait_until};

/// What must not be found anywhere.
const PASSWORD: &str = "correct-horse-battery-staple";

fn config_map(cluster: &ControlPlane, name: &str, data: &Value) {
    cluster.create::<ConfigMap>(&json!({ "metadata": { "name": name }, "data": data }));
}

fn secret(cluster: &ControlPlane, name: &str, data: &Value) {
    cluster.create::<Secret>(&json!({ "metadata": { "name": name }, "stringData": data }));
}

fn change(cluster: &ControlPlane, name: &str, data: &Value) {
    let patch = json!({ "data": data });
    let api = cluster.api::<ConfigMap>();
    cluster.block_on(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).unwrap();
}

/// A pod whose container has these keys besides, and these volumes, each mounted at `/` and its name.
fn pod_with(name: &str, keys: &Value, volumes: &Value) -> Value {
    let mut main = container("main", STAY);
    main.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    if main["volumeMounts"].is_null() {
        let mount = |volume: &Value| json!({ "name": volume["name"], "mountPath": format!("/{}", volume["name"].as_str().unwrap()) });
        main["volumeMounts"] = volumes.as_array().unwrap().iter().map(mount).collect();
    }
    let mut pod = pod_of(name, &[main]);
    pod["spec"]["volumes"] = volumes.clone();
    pod
}

/// The password is in no file of the agent's, but for those in memory, nor in what it said.
#[track_caller]
fn nothing_told(node: &Node) {
    for folder in [node.root_dir(), node.pod_logs()] {
        assert_eq!(files_on_disk_with(&folder, PASSWORD), Vec::<PathBuf>::new());
    }
    assert!(!node.agent_log().contains(PASSWORD));
    assert!(!node.pods_json().to_string().contains(PASSWORD));
}

#[test]
fn variables_come_from_config_maps_and_secrets() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jo-env").joined(&cluster).argument("-v=6").start();
    config_map(&cluster, "jo-env-map", &json!({ "COLOUR": "blue", "1st": "x" }));
    secret(&cluster, "jo-env-secret", &json!({ "PASSWORD": PASSWORD }));
    let keys = json!({
        "env": [
            { "name": "ONE", "valueFrom": { "configMapKeyRef": { "name": "jo-env-map", "key": "COLOUR" } } },
            { "name": "TWO", "valueFrom": { "secretKeyRef": { "name": "jo-env-secret", "key": "PASSWORD" } } },
            { "name": "NONE", "valueFrom": { "secretKeyRef": { "name": "jo-env-none", "key": "k", "optional": true } } },
            { "name": "OLD", "value": "$(M_COLOUR)" },
        ],
        "envFrom": [
            { "prefix": "M_", "configMapRef": { "name": "jo-env-map" } },
            { "configMapRef": { "name": "jo-env-map" } },
            { "secretRef": { "name": "jo-env-none", "optional": true } },
        ],
    });
    cluster.bind("jo-env", &pod_with("jo-env", &keys, &json!([])));
    cluster.wait_ready("jo-env");
    let process = node.process(&node.view("jo-env").unwrap(), "main");
    let variable = |name: &str| process.variable(name);
    for (name, value) in [
        ("ONE", "blue"),
        ("TWO", PASSWORD),
        ("OLD", "blue"),
        ("M_COLOUR", "blue"),
        ("COLOUR", "blue"),
        ("M_1st", "x"),
    ] {
        assert_eq!(variable(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!((variable("NONE"), variable("1st")), (None, None));
    assert!(
        node.agent_log().contains("Keys [1st] from the EnvFrom configMap default/jo-env-map were skipped")
    );
    nothing_told(&node);
}

#[test]
fn volumes_have_the_objects_files_and_follow_them() {
    let cluster = ControlPlane::shared();
    let mut node = Node::builder("jo-vol").joined(&cluster).argument("-v=6").start();
    let before = node.leaks();
    config_map(&cluster, "jo-vol-map", &json!({ "a": "1", "b": "2" }));
    secret(&cluster, "jo-vol-secret", &json!({ "password": PASSWORD }));
    let items = json!([{ "key": "a", "path": "d/one", "mode": 0o400 }]);
    let volumes = json!([
        { "name": "map", "configMap": { "name": "jo-vol-map", "defaultMode": 0o640 } },
        { "name": "items", "configMap": { "name": "jo-vol-map", "items": items } },
        { "name": "later", "configMap": { "name": "jo-vol-later", "optional": true } },
        { "name": "secret", "secret": { "secretName": "jo-vol-secret", "defaultMode": 0o400 } },
        { "name": "all", "projected": { "sources": [
            { "secret": { "name": "jo-vol-secret" } },
            { "configMap": { "name": "jo-vol-map", "items": [{ "key": "b", "path": "two" }] } },
            { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
        ] } },
    ]);
    let mut mounts: Vec<Value> = ["map", "items", "later", "secret", "all"]
        .iter()
        .map(|name| json!({ "name": name, "mountPath": format!("/{name}") }))
        .collect();
    mounts.push(json!({ "name": "map", "mountPath": "/part", "subPath": "a" }));
    let mut wanted = pod_with("jo-vol", &json!({ "volumeMounts": mounts }), &volumes);
    wanted["spec"]["securityContext"] = json!({ "fsGroup": 4321 });
    cluster.bind("jo-vol", &wanted);
    cluster.wait_ready("jo-vol");
    let view = node.view("jo-vol").unwrap();
    let process = node.process(&view, "main");
    let read = |path: &str| process.read(path);
    assert_eq!([read("/map/a"), read("/map/b"), read("/items/d/one")], ["1", "2", "1"]);
    assert_eq!([read("/secret/password"), read("/all/password")], [PASSWORD, PASSWORD]);
    assert_eq!([read("/all/two"), read("/all/name"), read("/part")], ["2", "jo-vol", "1"]);
    assert!(
        fs::read_dir(process.path("/later"))
            .unwrap()
            .all(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("..") })
    );
    // As the container sees it: root's, the group's to read.
    let file = |path: &str| {
        let found = fs::metadata(process.path(path)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(file("/map/a"), (0, 4321, 0o640));
    assert_eq!(file("/items/d/one"), (0, 4321, 0o440));
    assert_eq!(file("/secret/password"), (0, 4321, 0o440));
    assert_eq!(file("/all/two"), (0, 4321, 0o644));
    for path in ["/map", "/secret", "/all"] {
        assert!(process.is_read_only(path), "{path}");
    }
    nothing_told(&node);

    change(&cluster, "jo-vol-map", &json!({ "a": "new", "b": null, "c": "3" }));
    config_map(&cluster, "jo-vol-later", &json!({ "k": "there" }));
    wait_until(SOON, "the change is in the volumes", || {
        let text = |path: &str| fs::read_to_string(process.path(path)).ok();
        text("/map/a").as_deref() == Some("new")
            && text("/map/c").as_deref() == Some("3")
            && text("/later/k").as_deref() == Some("there")
    });
    assert!(!process.path("/map/b").exists());
    assert_eq!(read("/items/d/one"), "new");
    // A part stays what it was.
    assert_eq!(read("/part"), "1");
    // A key that the volume needs is gone: it stays as it was, and the pod runs on.
    assert_eq!(read("/all/two"), "2");
    node.restart();
    node.wait_ready("jo-vol");
    change(&cluster, "jo-vol-map", &json!({ "a": "newer", "b": "2 again" }));
    wait_until(SOON, "the next agent follows it too", || {
        let text = |path: &str| fs::read_to_string(process.path(path)).ok();
        text("/map/a").as_deref() == Some("newer") && text("/all/two").as_deref() == Some("2 again")
    });
    assert!(process.alive());
    nothing_told(&node);
    cluster.delete_pod("jo-vol", None);
    cluster.wait_gone("jo-vol");
    node.wait_leak_free(&before);
}

#[test]
fn what_is_missing_is_told_and_the_pod_starts_when_it_is_there() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jo-miss").joined(&cluster).start();
    let env = json!({ "env": [
        { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "jo-miss-map", "key": "k" } } },
    ] });
    cluster.bind("jo-miss", &pod_with("jo-miss-env", &env, &json!([])));
    let volumes = json!([{ "name": "v", "secret": { "secretName": "jo-miss-secret" } }]);
    cluster.bind("jo-miss", &pod_with("jo-miss-vol", &json!({}), &volumes));
    let (reason, message) = cluster.wait_waiting("jo-miss-env", "not found");
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("CreateContainerConfigError", "configmap \"jo-miss-map\" not found")
    );
    let (_, message) = cluster.wait_waiting("jo-miss-vol", "not found");
    assert_eq!(message, "MountVolume.SetUp failed for volume \"v\" : secret \"jo-miss-secret\" not found");
    config_map(&cluster, "jo-miss-map", &json!({ "other": "x" }));
    cluster.wait_waiting("jo-miss-env", "couldn't find key k in ConfigMap default/jo-miss-map");
    change(&cluster, "jo-miss-map", &json!({ "k": "there" }));
    secret(&cluster, "jo-miss-secret", &json!({ "password": PASSWORD }));
    cluster.wait_ready("jo-miss-env");
    cluster.wait_ready("jo-miss-vol");
    let process = node.process(&node.view("jo-miss-env").unwrap(), "main");
    assert_eq!(process.variable("A").as_deref(), Some("there"));
}

#[test]
fn more_objects_than_a_connection_has_streams_and_immutable_ones_are_given() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jo-many").joined(&cluster).start();
    let names: Vec<String> = (0..130).map(|number| format!("jo-many-{number}")).collect();
    for name in &names {
        config_map(&cluster, name, &json!({ name: "x" }));
    }
    let fixed = json!({ "metadata": { "name": "jo-fixed" }, "data": { "fixed": "1" }, "immutable": true });
    cluster.create::<ConfigMap>(&fixed);
    let mut sources: Vec<Value> = names.iter().map(|name| json!({ "configMap": { "name": name } })).collect();
    sources.push(json!({ "configMap": { "name": "jo-fixed" } }));
    let volumes = json!([{ "name": "all", "projected": { "sources": sources } }]);
    cluster.bind("jo-many", &pod_with("jo-many", &json!({}), &volumes));
    cluster.wait_ready("jo-many");
    let process = node.process(&node.view("jo-many").unwrap(), "main");
    assert_eq!(process.read("/all/jo-many-129"), "x");
    assert_eq!(process.read("/all/fixed"), "1");
    change(&cluster, "jo-many-129", &json!({ "jo-many-129": "y" }));
    wait_until(SOON, "the last is followed as the first", || process.read("/all/jo-many-129") == "y");
    // One that is immutable is not asked for any more: that it is gone is no news.
    let api = cluster.api::<ConfigMap>();
    cluster.block_on(api.delete("jo-fixed", &DeleteParams::default())).unwrap();
    change(&cluster, "jo-many-0", &json!({ "jo-many-0": "y" }));
    wait_until(SOON, "the next change is there", || process.read("/all/jo-many-0") == "y");
    assert_eq!(process.read("/all/fixed"), "1");
}

/// What a token says.
fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

#[test]
fn tokens_are_bound_to_their_pods_and_stay_off_the_disk() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jo-token").joined(&cluster).argument("-v=6").start();
    let volumes = json!([{ "name": "access", "projected": { "defaultMode": 0o444, "sources": [
        { "serviceAccountToken": { "path": "token" } },
        { "serviceAccountToken": { "path": "vault", "expirationSeconds": 600, "audience": "vault" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
    ] } }]);
    let mut wanted = pod_with("jo-token", &json!({}), &volumes);
    wanted["spec"]["securityContext"] = json!({ "runAsUser": 1234 });
    let made = cluster.bind("jo-token", &wanted);
    cluster.wait_ready("jo-token");
    let process = node.process(&node.view("jo-token").unwrap(), "main");
    let token = process.read("/access/token");
    let own = claims(&token);
    let bound = &own["kubernetes.io"];
    assert_eq!(bound["pod"]["uid"].as_str(), made.metadata.uid.as_deref());
    assert_eq!(
        (bound["pod"]["name"].as_str(), bound["namespace"].as_str()),
        (Some("jo-token"), Some("default"))
    );
    assert_eq!(own["sub"], "system:serviceaccount:default:default");
    assert_eq!(own["exp"].as_i64().unwrap() - own["iat"].as_i64().unwrap(), 3600);
    let vault = claims(&process.read("/access/vault"));
    assert_eq!(vault["aud"], json!(["vault"]));
    assert_eq!(vault["exp"].as_i64().unwrap() - vault["iat"].as_i64().unwrap(), 600);
    assert!(process.read("/access/ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(process.read("/access/namespace"), "default");
    // The only user's that there is.
    let file = fs::metadata(process.path("/access/token")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (1234, 0o600));
    assert_eq!(files_on_disk_with(&node.root_dir(), &token), Vec::<PathBuf>::new());
    assert!(!node.agent_log().contains(&token));
}

#[test]
fn an_ordinary_pod_has_the_token_that_the_server_gives_it() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jo-plain").joined(&cluster).start();
    let mut wanted = pod_of("jo-plain", &[container("main", STAY)]);
    wanted["spec"]["automountServiceAccountToken"] = json!(true);
    cluster.bind("jo-plain", &wanted);
    cluster.wait_ready("jo-plain");
    let process = node.process(&node.view("jo-plain").unwrap(), "main");
    let read = |file: &str| process.read(&format!("/var/run/secrets/kubernetes.io/serviceaccount/{file}"));
    assert_eq!(claims(&read("token"))["sub"], "system:serviceaccount:default:default");
    assert_eq!(read("namespace"), "default");
    assert!(read("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
}
