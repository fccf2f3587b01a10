//! What the runtime is asked for, and what is read back of it.

use k8s_openapi::api::core::v1::EnvVar;

use super::*;
use crate::{
    api::{
        ContainerKind,
        cri::{NamespaceMode, Signal},
    },
    policy::{fingerprints::container_fingerprint, testing},
};

fn sandbox(pod: &Pod) -> crate::api::cri::PodSandboxConfig {
    sandbox_config(&SandboxInput {
        pod,
        attempt: 2,
        log_directory: "/logs",
        cgroup_parent: "/kubepods/x",
        hostname: "named",
        dns: Some(&crate::api::cri::DnsConfig { servers: vec!["192.0.2.1".into()], ..Default::default() }),
        user_namespace: None,
        node: &testing::node(),
    })
}

#[test]
fn labels_are_kubelets_and_win_over_the_pods_own() {
    let mut pod = testing::pod(&["a"]);
    pod.metadata.labels =
        Some(BTreeMap::from([("app".into(), "x".into()), (labels::POD_UID.into(), "forged".into())]));
    let config = sandbox(&pod);
    assert_eq!(config.labels[labels::POD_UID], "u");
    assert_eq!(config.labels["app"], "x");
    assert_eq!(config.metadata.as_ref().map(|m| m.attempt), Some(2));
    assert_eq!(config.hostname, "named");
    assert_eq!(config.dns_config.map(|dns| dns.servers), Some(vec!["192.0.2.1".to_owned()]));
    let container = testing::ContainerParts::of(&pod).with(container_config).unwrap();
    // Of the pod's labels none stands on its containers.
    assert_eq!(
        container.labels.keys().collect::<Vec<_>>(),
        [labels::CONTAINER_NAME, labels::POD_NAME, labels::POD_NAMESPACE, labels::POD_UID]
    );
    assert_eq!(container.log_path, "a/3.log");
    assert_eq!(container.image.map(|i| i.user_specified_image), Some(testing::IMAGE.to_owned()));
}

#[test]
fn what_is_written_is_read_back() {
    let mut pod = testing::pod(&["a"]);
    pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(7);
    let wanted = &pod.spec().containers[0];
    let config = {
        let mut parts = testing::ContainerParts::of(&pod);
        parts.start = testing::start(ContainerKind::Sidecar);
        parts.with(container_config).unwrap()
    };
    let marks = crate::api::observation::ContainerMarks::read(&config.annotations);
    assert_eq!(marks.restart_count, Some(3));
    assert_eq!(marks.restart_delay_seconds, Some(40));
    assert_eq!(marks.pod_grace_seconds, Some(7));
    assert!(marks.sidecar);
    assert_eq!(marks.fingerprint, Some(container_fingerprint(&pod, wanted)));
    assert_eq!(marks.kubelet_hash, Some(crate::api::container_hash::kubelet_container_hash(wanted)));
}

#[test]
fn commands_and_arguments_are_expanded() {
    let mut pod = testing::pod(&["a"]);
    let wanted = &mut pod.spec.as_mut().unwrap().containers[0];
    wanted.env = Some(vec![EnvVar { name: "N".into(), value: Some("5".into()), ..EnvVar::default() }]);
    wanted.command = Some(vec!["sleep".into(), "$(N)".into()]);
    wanted.args = Some(vec!["$(M)$$(N)".into()]);
    let config = testing::ContainerParts::of(&pod).with(container_config).unwrap();
    assert_eq!((config.command, config.args), (vec!["sleep".into(), "5".into()], vec!["$(M)$(N)".into()]));
}

#[test]
fn input_is_kept_open_or_closed_after_the_first_who_attaches() {
    let mut pod = testing::pod(&["a"]);
    for (stdin, once, tty) in [
        (None, None, None),
        (Some(true), None, None),
        (Some(true), Some(true), None),
        (None, None, Some(true)),
        (Some(true), Some(false), Some(true)),
    ] {
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        (container.stdin, container.stdin_once, container.tty) = (stdin, once, tty);
        let config = testing::ContainerParts::of(&pod).with(container_config).unwrap();
        assert_eq!(
            [config.stdin, config.stdin_once, config.tty],
            [stdin, once, tty].map(|given| given == Some(true))
        );
    }
}

#[test]
fn only_regular_containers_have_ports_of_the_host() {
    let mut pod = testing::pod(&["a"]);
    let port = |host: i32| -> Option<Vec<k8s_openapi::api::core::v1::ContainerPort>> {
        serde_json::from_value(serde_json::json!([
            {"containerPort": 80, "hostPort": host, "protocol": "UDP", "hostIP": "127.0.0.1"},
        ]))
        .unwrap()
    };
    let mut sidecar = testing::spec("s");
    (sidecar.ports, sidecar.restart_policy) = (port(81), Some("Always".into()));
    let spec = pod.spec.as_mut().unwrap();
    spec.init_containers = Some(vec![sidecar]);
    spec.containers[0].ports = port(80);
    let mapped = sandbox(&pod).port_mappings;
    let [only] = &mapped[..] else { panic!("{mapped:?}") };
    assert_eq!((only.container_port, only.host_port, &*only.host_ip), (80, 80, "127.0.0.1"));
    assert_eq!(only.protocol(), crate::api::cri::Protocol::Udp);
}

#[test]
fn on_the_hosts_network_the_hosts_name_stays() {
    let mut pod = testing::pod(&["a"]);
    pod.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(sandbox(&pod).hostname, "");
}

#[test]
fn namespaces_are_the_hosts_the_pods_or_the_containers() {
    let options = |change: fn(&mut k8s_openapi::api::core::v1::PodSpec)| {
        let mut pod = testing::pod(&["a"]);
        change(pod.spec.as_mut().unwrap());
        let of_sandbox = sandbox(&pod).linux.and_then(|l| l.security_context?.namespace_options).unwrap();
        let config = testing::ContainerParts::of(&pod).with(container_config).unwrap();
        let of_container = config.linux.and_then(|l| l.security_context?.namespace_options).unwrap();
        assert_eq!(of_sandbox, of_container);
        [of_container.network(), of_container.pid(), of_container.ipc()]
    };
    let (node, pod, container) = (NamespaceMode::Node, NamespaceMode::Pod, NamespaceMode::Container);
    assert_eq!(options(|_| {}), [pod, container, pod]);
    assert_eq!(options(|s| s.host_network = Some(true)), [node, container, pod]);
    assert_eq!(options(|s| s.host_pid = Some(true)), [pod, node, pod]);
    assert_eq!(options(|s| s.host_ipc = Some(true)), [pod, container, node]);
    assert_eq!(options(|s| s.share_process_namespace = Some(true)), [pod, pod, pod]);
    assert_eq!(options(|s| s.share_process_namespace = Some(false)), [pod, container, pod]);
}

#[test]
fn the_stop_signal_is_asked_of_the_runtime() {
    let mut pod = testing::pod(&["a"]);
    let asked = |pod: &Pod| testing::ContainerParts::of(pod).with(container_config).unwrap().stop_signal();
    assert_eq!(asked(&pod), Signal::RuntimeDefault);
    for (name, expected) in [
        ("SIGUSR1", Signal::Sigusr1),
        ("SIGRTMIN+3", Signal::Sigrtminplus3),
        ("SIGRTMAX-14", Signal::Sigrtmaxminus14),
        ("SIGRTMAX", Signal::Sigrtmax),
    ] {
        pod.spec.as_mut().unwrap().containers[0].lifecycle =
            serde_json::from_value(serde_json::json!({"stopSignal": name})).unwrap();
        assert_eq!(asked(&pod), expected, "{name}");
    }
}
