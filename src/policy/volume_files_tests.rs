//! Files of volumes from objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::policy::{
    given::{Lookup, ObjectKey, TokenText},
    node::NodeSettings,
};

/// A file's path, content, mode and owner.
type Told = (String, Vec<u8>, u32, Option<u32>);

fn given() -> Given {
    let key = |kind, name: &str| ObjectKey { kind, namespace: "default".into(), name: name.into() };
    let map = ObjectData {
        data: [("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())].into(),
        binary: [("bin".into(), vec![0xff, 0])].into(),
        ..ObjectData::default()
    };
    let secret = ObjectData { data: [("k".into(), b"hunter2".to_vec())].into(), ..ObjectData::default() };
    let mut given = Given::default();
    given.objects.insert(key(ObjectKind::ConfigMap, "m"), Lookup::Found(Arc::new(map)));
    given.objects.insert(key(ObjectKind::Secret, "s"), Lookup::Found(Arc::new(secret)));
    for kind in [ObjectKind::ConfigMap, ObjectKind::Secret] {
        given.objects.insert(key(kind, "none"), Lookup::Missing);
        given.objects.insert(key(kind, "away"), Lookup::Unknown("no answer".into()));
    }
    given.tokens.insert(token_key(None, None), Ok(TokenText("jwt".into())));
    given.tokens.insert(token_key(Some("x"), None), Err("no answer".into()));
    given
}

fn files_of(volume: &Value, spec: &Value) -> Result<Vec<Told>, String> {
    let mut named = json!({ "name": "v" });
    named.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
    let mut pod = json!({ "metadata": { "name": "p", "namespace": "default" }, "spec": { "containers": [{ "name": "c" }] } });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let (pod, volume) =
        (serde_json::from_value::<Pod>(pod).unwrap(), serde_json::from_value::<Volume>(named).unwrap());
    let node = NodeSettings::default();
    let told = Downward { pod: &pod, pod_ips: &[], node: &node };
    let files = volume_files(&volume, &told, &given()).map_err(|error| error.message)?;
    Ok(files.into_iter().map(|(path, file)| (path, file.content, file.mode, file.owner)).collect())
}

fn files(volume: &Value) -> Result<Vec<Told>, String> {
    files_of(volume, &json!({}))
}

fn file(path: &str, content: &[u8], mode: u32) -> Told {
    (path.to_owned(), content.to_vec(), mode, None)
}

#[test]
fn all_keys_are_files_or_the_items_alone() {
    assert_eq!(
        files(&json!({ "configMap": { "name": "m", "defaultMode": 0o640 } })).unwrap(),
        [file("a", b"1", 0o640), file("b", b"2", 0o640), file("bin", &[0xff, 0], 0o640)]
    );
    let items = json!([{ "key": "a", "path": "d/x" }, { "key": "bin", "path": "y", "mode": 0o400 }]);
    assert_eq!(
        files(&json!({ "configMap": { "name": "m", "items": items } })).unwrap(),
        [file("d/x", b"1", 0o644), file("y", &[0xff, 0], 0o400)]
    );
    assert_eq!(files(&json!({ "secret": { "secretName": "s" } })).unwrap(), [file("k", b"hunter2", 0o644)]);
}

#[test]
fn what_is_missing_is_told_as_kubelet_does_unless_it_may_be() {
    let error = |volume: Value| files(&volume).unwrap_err();
    assert_eq!(error(json!({ "configMap": { "name": "none" } })), "configmap \"none\" not found");
    assert_eq!(error(json!({ "secret": { "secretName": "none" } })), "secret \"none\" not found");
    assert_eq!(
        error(json!({ "secret": { "secretName": "away", "optional": true } })),
        "secret \"away\": no answer"
    );
    let items = json!([{ "key": "z", "path": "z" }]);
    assert_eq!(
        error(json!({ "configMap": { "name": "m", "items": items } })),
        "configmap references non-existent config key: z"
    );
    assert_eq!(
        error(json!({ "secret": { "secretName": "s", "items": items } })),
        "references non-existent secret key: z"
    );
    for volume in [
        json!({ "configMap": { "name": "none", "optional": true } }),
        json!({ "secret": { "secretName": "none", "optional": true } }),
        json!({ "configMap": { "name": "m", "items": items, "optional": true } }),
        json!({ "projected": { "sources": [{ "secret": { "name": "none", "optional": true } }] } }),
    ] {
        assert_eq!(files(&volume).unwrap(), [], "{volume}");
    }
}

#[test]
fn parts_are_put_together_and_a_token_is_its_users_alone() {
    let volume = json!({ "projected": { "defaultMode": 0o444, "sources": [
        { "serviceAccountToken": { "path": "token" } },
        { "configMap": { "name": "m", "items": [{ "key": "a", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
    ] } });
    assert_eq!(
        files(&volume).unwrap(),
        [file("ca.crt", b"1", 0o444), file("namespace", b"default", 0o444), file("token", b"jwt", 0o444)]
    );
    let token = |spec: Value| {
        let (_, _, mode, owner) = files_of(&volume, &spec).unwrap().remove(2);
        (mode, owner)
    };
    assert_eq!(token(json!({ "securityContext": { "runAsUser": 7 } })), (0o600, Some(7)));
    assert_eq!(token(json!({ "securityContext": { "fsGroup": 8 } })), (0o600, None));
    let own = json!([{ "name": "c", "securityContext": { "runAsUser": 9 } }, { "name": "d" }]);
    assert_eq!(token(json!({ "containers": own })), (0o444, None));
    assert_eq!(token(json!({ "containers": own, "securityContext": { "runAsUser": 9 } })), (0o600, Some(9)));
    let other =
        json!({ "projected": { "sources": [{ "serviceAccountToken": { "path": "t", "audience": "x" } }] } });
    assert_eq!(files(&other).unwrap_err(), "failed to fetch token: no answer");
}

#[test]
fn secrets_and_tokens_are_never_for_the_disk() {
    let volume = |volume: Value| {
        let mut named = json!({ "name": "v" });
        named.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
        let volume: Volume = serde_json::from_value(named).unwrap();
        (is_written(&volume), is_secret(&volume))
    };
    assert_eq!(volume(json!({ "secret": { "secretName": "s" } })), (true, true));
    assert_eq!(volume(json!({ "configMap": { "name": "m" } })), (true, false));
    assert_eq!(volume(json!({ "downwardAPI": {} })), (true, false));
    assert_eq!(
        volume(json!({ "projected": { "sources": [{ "configMap": { "name": "m" } }] } })),
        (true, false)
    );
    for part in [json!({ "secret": { "name": "s" } }), json!({ "serviceAccountToken": { "path": "t" } })] {
        assert_eq!(volume(json!({ "projected": { "sources": [part] } })), (true, true));
    }
    assert_eq!(volume(json!({ "emptyDir": {} })), (false, false));
}
