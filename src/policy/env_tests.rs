//! Environments, and what is made of them.

use k8s_openapi::{
    api::core::v1::{EnvVar, ObjectFieldSelector, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};
use proptest::prelude::*;
use serde_json::json;

use std::sync::Arc;

use super::*;
use crate::policy::{
    given::{Lookup, ObjectKey},
    testing::{self, ContainerParts},
};

fn var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

fn from(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}

fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.into() });
    from(name, EnvVarSource { field_ref, ..EnvVarSource::default() })
}

fn file(name: &str, path: &str, key: &str, optional: bool) -> EnvVar {
    let selector = FileKeySelector {
        key: key.into(),
        optional: Some(optional),
        path: path.into(),
        volume_name: "v".into(),
    };
    from(name, EnvVarSource { file_key_ref: Some(selector), ..EnvVarSource::default() })
}

/// A file of volume `v` that says this of `K` and `L`.
fn text(path: &str, text: &str) -> ((String, String), Option<EnvFile>) {
    (("v".to_owned(), path.to_owned()), Some(EnvFile::parse(text, &["K", "L", "none"].into())))
}

fn parts(env: Vec<EnvVar>) -> ContainerParts {
    let mut pod = testing::pod(&["a"]);
    pod.spec.as_mut().unwrap().containers[0].env = Some(env);
    ContainerParts::of(&pod)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn later_variables_see_earlier_ones() {
    let env = parts(vec![var("A", "$(B)"), var("B", "b"), var("C", "$(A)-$(B)"), var("B", "again-$(B)")]);
    assert_eq!(env.environment().unwrap(), pairs(&[("A", "$(B)"), ("B", "again-b"), ("C", "$(B)-b")]));
}

#[test]
fn fields_and_resources_are_values_that_others_may_refer_to() {
    let divisor = Some(Quantity("1m".into()));
    let resource = ResourceFieldSelector { container_name: None, divisor, resource: "limits.cpu".into() };
    let resource = EnvVarSource { resource_field_ref: Some(resource), ..EnvVarSource::default() };
    let mut parts = parts(vec![
        field("IP", "status.podIP"),
        from("CPU", resource),
        var("URL", "http://$(IP):$(CPU)/"),
        field("NOTE", "metadata.annotations['note']"),
    ]);
    parts.pod_ips = vec![std::net::Ipv4Addr::new(10, 1, 2, 3).into()];
    // What comes from elsewhere is not expanded again.
    parts.pod.metadata.annotations = Some([("note".to_owned(), "$(IP)".to_owned())].into());
    let expected = [("IP", "10.1.2.3"), ("CPU", "1900"), ("URL", "http://10.1.2.3:1900/"), ("NOTE", "$(IP)")];
    assert_eq!(parts.environment().unwrap(), pairs(&expected));
}

#[test]
fn files_give_values() {
    let mut parts = parts(vec![
        var("KEPT", "before"),
        file("A", "f", "K", false),
        file("KEPT", "f", "none", true),
        file("GONE", "absent", "K", true),
        var("B", "$(A)$(GONE)"),
    ]);
    parts.files = [text("f", "K='$(KEPT)'"), (("v".into(), "absent".into()), None)].into();
    let expected = [("KEPT", "before"), ("A", "$(KEPT)"), ("B", "$(KEPT)$(GONE)")];
    assert_eq!(parts.environment().unwrap(), pairs(&expected));
}

#[test]
fn what_cannot_be_had_is_told_by_the_variables_name() {
    let mut node = testing::node();
    for (env, expected) in [
        (file("A", "absent", "K", false), "file \"absent\" of volume \"v\" is not there"),
        (file("A", "f", "L", false), "has no variable \"L\""),
        (file("A", "bad", "K", true), "line 1: the value must be in single quotes"),
        (field("A", "status.hostIP"), "the node's address is not known"),
        (from("A", EnvVarSource::default()), "API server"),
    ] {
        let mut parts = parts(vec![env]);
        parts.files = [text("f", "K='1'"), text("bad", "K=secret")].into();
        let error = parts.environment().unwrap_err();
        assert!(error.message.starts_with("environment variable \"A\": "), "{error}");
        assert!(error.message.contains(expected) && !error.message.contains("secret"), "{error}");
    }
    node.env_files = false;
    let parts = ContainerParts { node, ..parts(vec![file("A", "f", "K", true)]) };
    assert!(parts.environment().unwrap_err().message.contains("gate EnvFiles is off"));
}

#[test]
fn variables_that_double_end_in_an_error() {
    let doubling = |n: usize| var(&format!("V{n}"), &format!("$(V{0})$(V{0})", n - 1));
    let vars: Vec<EnvVar> = std::iter::once(var("V0", "0123456789")).chain((1..60).map(doubling)).collect();
    let error = parts(vars.clone()).environment().unwrap_err();
    assert!(
        error.message.starts_with("environment variable \"V") && error.message.contains("6 MiB"),
        "{error}"
    );
    let env = parts(vars[..10].to_vec()).environment().unwrap();
    assert_eq!(env[9].1.len(), 10 << 9);
    // So do those that say a long annotation again and again.
    let mut parts = parts((0..1000).map(|n| field(&format!("F{n}"), "metadata.annotations['a']")).collect());
    parts.pod.metadata.annotations = Some([("a".to_owned(), "x".repeat(200 << 10))].into());
    let error = parts.environment().unwrap_err();
    assert!(error.message.contains("\"F30\"") && error.message.contains("6 MiB"), "{error}");
}

proptest! {
    /// A value without a reference is itself, whatever stands around it, and the last of a name counts.
    #[test]
    fn plain_values_arrive_as_they_are(values in prop::collection::vec(("[A-C]", "[^$]{0,20}"), 0..8)) {
        let env = parts(values.iter().map(|(name, value)| var(name, value)).collect()).environment().unwrap();
        let last: BTreeMap<_, _> = values.into_iter().collect();
        prop_assert_eq!(env.into_iter().collect::<BTreeMap<_, _>>(), last);
    }
}

/// A container of these variables and sources, with a ConfigMap `m` and a Secret `s`; `none` is missing.
fn given(env: serde_json::Value, env_from: serde_json::Value) -> ContainerParts {
    let mut pod = testing::pod(&["a"]);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.env = serde_json::from_value(env).unwrap();
    container.env_from = serde_json::from_value(env_from).unwrap();
    let namespace = pod.full_name().namespace.to_string();
    let mut parts = ContainerParts::of(&pod);
    let key = |kind, name: &str| ObjectKey { kind, namespace: namespace.clone(), name: name.into() };
    let map = ObjectData {
        data: [("A".into(), b"map".to_vec()), ("1x".into(), b"1".to_vec()), ("raw".into(), vec![0xff])]
            .into(),
        binary: [("B".into(), b"no".to_vec())].into(),
        ..ObjectData::default()
    };
    let secret = ObjectData { data: [("A".into(), b"hunter2".to_vec())].into(), ..ObjectData::default() };
    let objects = &mut parts.given.objects;
    objects.insert(key(ObjectKind::ConfigMap, "m"), Lookup::Found(Arc::new(map)));
    objects.insert(key(ObjectKind::Secret, "s"), Lookup::Found(Arc::new(secret)));
    objects.insert(key(ObjectKind::ConfigMap, "none"), Lookup::Missing);
    objects.insert(key(ObjectKind::Secret, "none"), Lookup::Missing);
    parts
}

#[test]
fn objects_are_values_and_what_is_missing_is_told_as_kubelet_does() {
    let value = |name: &str, source: &str, object: &str, key: &str, optional: bool| json!({ "name": name, "valueFrom": { source: { "name": object, "key": key, "optional": optional } } });
    let (map, secret) = ("configMapKeyRef", "secretKeyRef");
    let env = json!([
        value("M", map, "m", "A", false),
        value("S", secret, "s", "A", false),
        { "name": "BOTH", "value": "$(M)-$(S)" },
        value("N", map, "none", "A", true),
        value("K", map, "m", "none", true),
    ]);
    let expected = pairs(&[("M", "map"), ("S", "hunter2"), ("BOTH", "map-hunter2")]);
    assert_eq!(given(env, json!([])).environment().unwrap(), expected);
    let error = |source, object, key| {
        given(json!([value("X", source, object, key, false)]), json!([])).environment().unwrap_err().message
    };
    assert_eq!(error(map, "none", "A"), "configmap \"none\" not found");
    assert_eq!(error(secret, "none", "A"), "secret \"none\" not found");
    assert_eq!(error(map, "m", "z"), "couldn't find key z in ConfigMap default/m");
    // Files may be bytes, variables not.
    assert_eq!(error(map, "m", "B"), "couldn't find key B in ConfigMap default/m");
    assert!(error(map, "m", "raw").contains("no text in UTF-8"));
    assert!(error(map, "other", "A").contains("which this node has not"));
}

#[test]
fn whole_objects_come_first_and_names_that_are_none_are_skipped_and_told() {
    let from = json!([
        { "secretRef": { "name": "s" }, "prefix": "S_" },
        { "configMapRef": { "name": "none", "optional": true } },
    ]);
    let env = json!([{ "name": "X", "value": "$(S_A)" }, { "name": "S_A", "value": "own" }]);
    let parts = given(env, from);
    assert_eq!(parts.environment().unwrap(), pairs(&[("S_A", "own"), ("X", "hunter2")]));
    let mut parts = given(json!([]), json!([{ "configMapRef": { "name": "m" } }]));
    assert!(parts.environment().unwrap_err().message.contains("key \"raw\" of ConfigMap default/m"));
    for object in parts.given.objects.values_mut() {
        if let Lookup::Found(data) = object {
            Arc::make_mut(data).data.remove("raw");
        }
    }
    assert_eq!(parts.environment().unwrap(), pairs(&[("A", "map")]));
    let skipped = parts.env_input(skipped_names);
    assert_eq!(
        skipped,
        ["Keys [1x] from the EnvFrom configMap default/m were skipped since they are considered invalid \
          environment variable names."]
    );
    let missing = given(json!([]), json!([{ "secretRef": { "name": "none" } }]));
    assert_eq!(missing.environment().unwrap_err().message, "secret \"none\" not found");
}

#[test]
fn variables_of_services_come_last_and_may_be_referred_to() {
    let mut env = parts(vec![var("URL", "http://$(APP_SERVICE_HOST)/"), var("APP_PORT", "mine")]);
    let services = [("APP_SERVICE_HOST", "10.0.0.7"), ("APP_PORT", "tcp://10.0.0.7:80")];
    env.given.services = services.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(
        env.environment().unwrap(),
        pairs(&[("URL", "http://10.0.0.7/"), ("APP_PORT", "mine"), ("APP_SERVICE_HOST", "10.0.0.7")])
    );
}
