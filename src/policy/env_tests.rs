//! Environments, and what is made of them.

use k8s_openapi::{
    api::core::v1::{EnvVar, ObjectFieldSelector, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};
use proptest::prelude::*;

use super::*;
use crate::policy::testing::{self, ContainerParts};

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
