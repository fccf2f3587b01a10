//! Fields and resources as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceRequirements};
use proptest::prelude::*;

use super::*;
use crate::policy::testing;

fn pod() -> Pod {
    let mut pod = testing::pod(&["a", "b"]);
    pod.metadata.labels = Some([("app", "web"), ("z/y", "1")].map(|(k, v)| (k.into(), v.into())).into());
    pod.metadata.annotations = Some([("note".to_owned(), "two\nlines \"ä\"".to_owned())].into());
    pod
}

fn node() -> NodeSettings {
    NodeSettings {
        host_ips: vec![Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::LOCALHOST.into()],
        ..testing::node()
    }
}

const IPS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

#[test]
fn every_field() {
    let (pod, node) = (pod(), node());
    let told = Downward { pod: &pod, pod_ips: &IPS, node: &node };
    for (path, expected) in [
        ("metadata.name", "p"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u"),
        ("metadata.labels", "app=\"web\"\nz/y=\"1\""),
        ("metadata.annotations", "note=\"two\\nlines \\\"ä\\\"\""),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['z/y']", "1"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "two\nlines \"ä\""),
        ("spec.nodeName", "node1"),
        ("spec.serviceAccountName", ""),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1,::1"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2,::"),
    ] {
        assert_eq!(told.field(path).as_deref(), Ok(expected), "{path}");
    }
    for path in ["", "spec.hostname", "metadata.name['x']", "status.phase"] {
        assert!(told.field(path).is_err(), "{path}");
    }
    let nowhere = testing::node();
    let told = Downward { node: &nowhere, ..told };
    assert_eq!(told.field("status.hostIP").unwrap_err().hints.len(), 1);
}

#[test]
fn text_is_quoted_as_go_does() {
    for (text, expected) in [
        ("", r#""""#),
        ("a b", r#""a b""#),
        ("\u{7}\u{8}\u{c}\n\r\t\u{b}\0\u{7f}", r#""\a\b\f\n\r\t\v\x00\x7f""#),
        ("'\\\"", r#""'\\\"""#),
        ("é中\u{301}🌍", "\"é中\u{301}🌍\""),
        ("\u{a0}\u{200b}\u{e0001}", r#""\u00a0\u200b\U000e0001""#),
    ] {
        assert_eq!(go_quoted(text), expected, "{text:?}");
    }
}

fn with(pod: &mut Pod, requests: &[(&str, &str)], limits: &[(&str, &str)]) {
    let map = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), ApiQuantity((*v).to_owned()))).collect())
    };
    pod.spec.as_mut().unwrap().containers[0].resources = Some(ResourceRequirements {
        requests: map(requests),
        limits: map(limits),
        ..ResourceRequirements::default()
    });
}

fn ask(pod: &Pod, resource: &str, divisor: &str, container: &str) -> Result<String, ConfigError> {
    let node = node();
    let selector = ResourceFieldSelector {
        container_name: (!container.is_empty()).then(|| container.to_owned()),
        divisor: (!divisor.is_empty()).then(|| ApiQuantity(divisor.to_owned())),
        resource: resource.to_owned(),
    };
    Downward { pod, pod_ips: &[], node: &node }.resource(&selector, Some(&pod.spec().containers[0]))
}

#[test]
fn amounts_are_divided_and_rounded_up() {
    let mut pod = pod();
    let requests = [("cpu", "250m"), ("memory", "64Mi"), ("hugepages-2Mi", "4Mi")];
    with(&mut pod, &requests, &[("cpu", "1500m"), ("memory", "100M"), ("ephemeral-storage", "1Gi")]);
    for (resource, divisor, expected) in [
        ("limits.cpu", "", "2"),
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1", "1"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "", "100000000"),
        ("limits.memory", "1Mi", "96"),
        ("requests.memory", "1Mi", "64"),
        ("limits.ephemeral-storage", "1Gi", "1"),
        ("requests.ephemeral-storage", "", "0"),
        ("requests.hugepages-2Mi", "1Mi", "4"),
        ("limits.hugepages-1Gi", "", "0"),
    ] {
        assert_eq!(ask(&pod, resource, divisor, "").as_deref(), Ok(expected), "{resource} / {divisor}");
    }
    for (resource, divisor, container) in [
        ("cpu", "", ""),
        ("limits.disk", "", ""),
        ("given.cpu", "", ""),
        ("limits.cpu", "x", ""),
        ("limits.cpu", "", "c"),
    ] {
        assert!(ask(&pod, resource, divisor, container).is_err(), "{resource} {divisor} {container}");
    }
}

#[test]
fn without_a_limit_the_pods_and_then_the_nodes_counts() {
    let mut pod = pod();
    assert_eq!(ask(&pod, "limits.cpu", "1m", "b").as_deref(), Ok("1900"));
    assert_eq!(ask(&pod, "limits.memory", "", "b").as_deref(), Ok("1000000000"));
    assert_eq!(ask(&pod, "limits.ephemeral-storage", "", "b").as_deref(), Ok("5000000000"));
    assert_eq!(ask(&pod, "requests.cpu", "1m", "b").as_deref(), Ok("0"));
    with(&mut pod, &[], &[("cpu", "0"), ("memory", "1Gi")]);
    assert_eq!(ask(&pod, "limits.cpu", "1m", "a").as_deref(), Ok("1900"), "no limit at all");
    assert_eq!(ask(&pod, "limits.memory", "1Mi", "a").as_deref(), Ok("1024"));
    pod.spec.as_mut().unwrap().resources = Some(ResourceRequirements {
        limits: Some([("cpu".to_owned(), ApiQuantity("700m".to_owned()))].into()),
        ..ResourceRequirements::default()
    });
    assert_eq!(ask(&pod, "limits.cpu", "1m", "b").as_deref(), Ok("700"), "the pod's");
    assert_eq!(ask(&pod, "limits.memory", "", "b").as_deref(), Ok("1000000000"));
}

#[test]
fn a_named_init_container_has_a_default_limit_in_volumes_only() {
    let mut pod = pod();
    let init = ["i", "j"].map(testing::spec);
    pod.spec.as_mut().unwrap().init_containers = Some(init.to_vec());
    let node = node();
    let told = Downward { pod: &pod, pod_ips: &[], node: &node };
    let told = |name: Option<&str>, own: Option<&Container>| {
        let selector = ResourceFieldSelector {
            container_name: name.map(str::to_owned),
            divisor: Some(ApiQuantity("1m".to_owned())),
            resource: "limits.cpu".to_owned(),
        };
        told.resource(&selector, own).unwrap()
    };
    let regular = &pod.spec().containers[0];
    for (name, own, expected) in [
        (Some("i"), Some(regular), "0"),
        (Some("i"), Some(&init[0]), "0"),
        (Some("j"), Some(&init[0]), "0"),
        (None, Some(&init[0]), "1900"),
        (Some("a"), Some(&init[0]), "1900"),
        (Some("i"), None, "1900"),
    ] {
        assert_eq!(told(name, own), expected, "{name:?} in {:?}", own.map(|c| &c.name));
    }
}

#[test]
fn files_have_their_mode_or_the_volumes() {
    let (mut pod, node) = (pod(), node());
    with(&mut pod, &[], &[("cpu", "2")]);
    let field = |path: &str, field: &str, mode| DownwardAPIVolumeFile {
        path: path.into(),
        mode,
        field_ref: Some(ObjectFieldSelector { api_version: None, field_path: field.into() }),
        resource_field_ref: None,
    };
    let limit = DownwardAPIVolumeFile {
        path: "cpu".into(),
        resource_field_ref: Some(ResourceFieldSelector {
            container_name: Some("a".into()),
            resource: "limits.cpu".into(),
            divisor: None,
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let told = Downward { pod: &pod, pod_ips: &[], node: &node };
    let files = told
        .volume_files(&[field("d/name", "metadata.name", Some(0o400)), limit], Some(0o440), &mut 100)
        .unwrap();
    let file = |content: &str, mode| VolumeFile { content: content.into(), mode, owner: None };
    assert_eq!(files, [("cpu".into(), file("2", 0o440)), ("d/name".into(), file("p", 0o400))].into());
    let items = ["a", "b", "c"].map(|path| field(path, "metadata.name", None));
    let error =
        told.volume_files(&items, None, &mut (2 * pod.metadata.name.as_ref().unwrap().len())).unwrap_err();
    assert!(error.message.starts_with("file \"c\": ") && error.message.contains("16 MiB"), "{error}");
    let error = told.volume_files(&[field("x", "spec.x", None)], None, &mut 100).unwrap_err();
    assert!(error.message.contains("file \"x\""), "{error}");
}

proptest! {
    #[test]
    fn the_quotient_is_the_least_that_suffices(amount in 0i64..i64::MAX, divisor in 1i64..i64::MAX) {
        let quotient = i128::from(divided_up(i128::from(amount), i128::from(divisor)));
        let (amount, divisor) = (i128::from(amount), i128::from(divisor));
        prop_assert!(quotient * divisor >= amount);
        prop_assert!(quotient == 0 || (quotient - 1) * divisor < amount);
    }

    #[test]
    fn quoting_keeps_to_one_line_and_loses_nothing(text in "\\PC*|[\\x00-\\x7f]*") {
        let quoted = go_quoted(&text);
        prop_assert!(!quoted.contains(|c: char| c.is_control()));
        // What stands between the quotes has no bare quote, so that it can be read back.
        let inner = &quoted[1..quoted.len() - 1];
        let bare = inner.replace("\\\\", "").replace("\\\"", "");
        prop_assert!(!bare.contains('"'));
    }
}
