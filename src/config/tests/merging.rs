//! Files, drop-ins and flags over one another, and the warnings that come of them.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

/// As kubeadm 1.30 writes /var/lib/kubelet/config.yaml.
const KUBEADM: &str = "authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";

#[test]
fn a_kubeadm_configuration_works_as_it_is() {
    let (agent, warnings) = load_body(KUBEADM, &[]).unwrap();
    assert_eq!(agent.cgroup_driver, CgroupDriver::Systemd);
    assert_eq!(agent.static_pod_path.as_deref(), Some(Path::new("/etc/kubernetes/manifests")));
    assert_eq!(agent.cluster_dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(agent.cluster_domain, "cluster.local");
    assert_eq!(agent.container_runtime_endpoint, "unix:///run/containerd/containerd.sock");
    assert_eq!(agent.image_service_endpoint, agent.container_runtime_endpoint);
    assert_eq!(agent.sync_frequency, Duration::from_secs(60));
    assert_eq!(agent.file_check_frequency, Duration::from_secs(20));
    assert_eq!(agent.runtime_request_timeout, Duration::from_secs(120));
    assert_eq!(agent.healthz, Some("127.0.0.1:10248".parse().unwrap()));
    let named: Vec<&str> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    let expected: Vec<&str> =
        ["rotateCertificates", "authentication.x509.clientCAFile", "clusterDomain", "clusterDNS"]
            .into_iter()
            .filter(|key| keys().iter().any(|spec| spec.path == *key && spec.support == Support::NotYet))
            .collect();
    assert_eq!(named, expected);
}

#[test]
fn nothing_configured_is_kubelets_defaults() {
    let (agent, warnings) = load_flags(&[]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(agent.kubelet, defaulted());
    assert_eq!(agent.node_name, "node-1");
    assert_eq!(agent.root_dir, Path::new("/var/lib/kubelet"));
    assert_eq!(agent.cert_dir, Path::new("/var/lib/kubelet/pki"));
    assert_eq!(agent.pod_logs_dir, Path::new("/var/log/pods"));
    assert_eq!(agent.container_log_dir, Path::new("/var/log/containers"));
    assert_eq!(agent.operator_socket, Path::new("/run/nodectl/nodectl.sock"));
    assert_eq!(agent.image_pulls, ImagePulls::Serial);
    assert_eq!(agent.max_container_restart_period, Duration::from_secs(300));
    assert_eq!(agent.container_log_max_size, Some(10 * 1024 * 1024));
    assert_eq!(agent.max_pods, 110);
    assert_eq!(agent.pods_per_core, None);
    assert_eq!(agent.resolv_conf.as_deref(), Some(Path::new("/etc/resolv.conf")));
    assert_eq!((agent.static_pod_path, agent.manifest_url, agent.kubeconfig), (None, None, None));
}

#[test]
fn pods_are_kept_for_offline_by_a_node_of_a_cluster_that_is_asked_to() {
    let joined = ("kubeconfig", "/etc/kubernetes/kubelet.conf");
    let mode = |value| load_flags(&[joined, ("offline-pods", value)]).map(|(agent, _)| agent.offline_pods);
    assert_eq!(load_flags(&[joined]).unwrap().0.offline_pods, None);
    assert_eq!(mode("tolerated").unwrap(), Some(OfflinePods::Tolerated));
    assert_eq!(mode("always").unwrap(), Some(OfflinePods::Always));
    let error = mode("never").unwrap_err().to_string();
    assert!(error.contains("want tolerated or always"), "{error}");
    let error = load_flags(&[("offline-pods", "always")]).unwrap_err().to_string();
    assert!(error.contains("--kubeconfig"), "{error}");
}

#[test]
fn whether_the_resolver_file_was_chosen_is_known() {
    let given = |body: &str, flags: &[(&str, &str)]| load_body(body, flags).unwrap().0.resolv_conf_given;
    assert!(!given("", &[]));
    assert!(given("resolvConf: /etc/resolv.conf\n", &[]), "also the default's path");
    assert!(given("resolvConf: \"\"\n", &[]));
    assert!(given("", &[("resolv-conf", "/etc/resolv.conf")]));
}

#[test]
fn json_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(
        &path,
        r#"{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "healthzPort": 0}"#,
    )
    .unwrap();
    let (agent, _) = load_flags(&[("config", path.to_str().unwrap())]).unwrap();
    assert_eq!(agent.healthz, None);
}

#[test]
fn yaml_1_1_booleans_anchors_and_merge_keys_are_read() {
    let body =
        "serializeImagePulls: off\nsystemReserved: &r {cpu: 100m}\nkubeReserved:\n  <<: *r\n  memory: 1Gi\n";
    let (agent, _) = load_body(body, &[]).unwrap();
    assert_eq!(agent.image_pulls, ImagePulls::Parallel { limit: None });
    let reserved = agent.kubelet.kube_reserved.unwrap();
    assert_eq!((reserved["cpu"].as_str(), reserved["memory"].as_str()), ("100m", "1Gi"));
}

#[test]
fn drop_ins_merge_in_the_order_of_their_paths() {
    let dir = tempfile::tempdir().unwrap();
    let base = file(
        dir.path(),
        "config.yaml",
        "maxPods: 10\nclusterDNS: [10.0.0.1, 10.0.0.2]\nevictionHard: {memory.available: 1Gi, pid.available: 5%}\n\
         authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}\nclusterDomain: a\n",
    );
    let drop = |name: &str, body: &str| file(dir.path(), &format!("conf.d/{name}"), body);
    drop("20-b.conf", "maxPods: 30\nmaxOpenFiles: 7\nclusterDNS: [10.0.0.3]\n");
    drop("10-a.conf", "maxPods: 20\nevictionHard: {memory.available: 2Gi}\nclusterDomain: null\n");
    drop("30/c.conf", "authentication: {anonymous: {enabled: false}}\n");
    drop("99-ignored.yaml", "maxPods: 99\n");
    let folder = dir.path().join("conf.d");
    let flags = [("config", base.to_str().unwrap()), ("config-dir", folder.to_str().unwrap())];
    let (agent, warnings) = load_flags(&flags).unwrap();
    assert_eq!(agent.max_pods, 30);
    assert_eq!(agent.cluster_dns.len(), 1, "lists are replaced");
    assert_eq!(agent.cluster_domain, "", "null takes a key away");
    let hard = agent.kubelet.eviction_hard.unwrap();
    assert_eq!((hard["memory.available"].as_str(), hard["pid.available"].as_str()), ("2Gi", "5%"));
    assert_eq!(agent.kubelet.authentication.anonymous.enabled, Some(false));
    assert_eq!(agent.kubelet.authentication.webhook.enabled, Some(false));
    let order: Vec<_> =
        agent.config_files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(order, ["config.yaml", "10-a.conf", "20-b.conf", "c.conf"]);
    let pods = warnings.iter().find(|warning| warning.key == "maxOpenFiles").unwrap();
    assert!(pods.to_string().contains("20-b.conf:4:15"), "{pods}");

    std::fs::write(folder.join("40.conf"), "maxPods: 1\n").unwrap();
    let error = load_flags(&flags).unwrap_err().to_string();
    assert!(error.contains("40.conf:1:1: apiVersion: missing"), "{error}");
}

#[test]
fn too_many_drop_ins_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..=MAX_DROP_INS {
        file(dir.path(), &format!("{n}.conf"), "");
    }
    let error = load_flags(&[("config-dir", dir.path().to_str().unwrap())]).unwrap_err();
    assert!(matches!(error, ConfigError::TooManyDropIns { limit: MAX_DROP_INS, .. }), "{error}");
}

#[test]
fn flags_come_over_files_and_gates_merge() {
    let body = "healthzPort: 1\nevictionHard: {memory.available: 1Gi}\nfeatureGates: {EventedPLEG: true, KubeletPSI: false}\n";
    let flags = [
        ("healthz-port", "0"),
        ("eviction-hard", "nodefs.available<5%,imagefs.available<6%"),
        ("feature-gates", "KubeletPSI=true,MemoryQoS=true"),
        ("container-runtime-endpoint", "/run/x.sock"),
        ("node-ip", "10.0.0.1,fd00::1"),
        ("hostname-override", " My-Node "),
        ("manifest-url", "http://h/pods"),
        ("manifest-url-header", "a:hello,b:again,c:world"),
        ("manifest-url-header", "b:beautiful"),
        ("cluster-dns", "10.0.0.1"),
        ("cluster-dns", "10.0.0.2,10.0.0.3"),
        ("node-labels", "a=1,b="),
        ("cert-dir", "/etc/pki"),
        ("v", "4"),
        ("seccomp-default", "true"),
    ];
    let (agent, warnings) = load_body(body, &flags).unwrap();
    assert_eq!(agent.healthz, None, "a flag can set zero");
    let hard = agent.kubelet.eviction_hard.as_ref().unwrap();
    assert_eq!(
        hard.keys().collect::<Vec<_>>(),
        ["imagefs.available", "nodefs.available"],
        "flag maps replace"
    );
    for (gate, on) in [("EventedPLEG", true), ("KubeletPSI", true), ("MemoryQoS", true)] {
        assert_eq!(agent.feature_gates.enabled(gate), on, "{gate}");
    }
    assert_eq!(agent.container_runtime_endpoint, "/run/x.sock");
    assert_eq!(agent.image_service_endpoint, "/run/x.sock");
    assert_eq!(agent.node_ips.len(), 2);
    assert_eq!(agent.node_name, "my-node");
    assert_eq!(
        agent.manifest_url_headers.iter().collect::<Vec<_>>(),
        [("a", "hello"), ("b", "again"), ("b", "beautiful"), ("c", "world")]
    );
    assert_eq!(agent.cluster_dns.len(), 3);
    assert_eq!(agent.node_labels, [("a", "1"), ("b", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(agent.log_verbosity, 4);
    assert!(agent.seccomp_default);
    let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for line in [
        "--healthz-port: deprecated; set healthzPort in the configuration file",
        "--feature-gates: this feature gate is not yet acted on by nodectl",
    ] {
        assert!(shown.iter().any(|warning| warning == line), "{line} not in {shown:#?}");
    }
}

#[test]
fn removed_and_old_things_are_accepted_with_a_warning() {
    let body = "logging: {sanitization: true}\nfeatureGates: {DynamicKubeletConfig: false}\n";
    let flags = [
        ("container_runtime", "remote"),
        ("network-plugin", "cni"),
        ("cni-bin-dir", "/opt/cni/bin"),
        ("docker_root", "/var/lib/docker"),
        ("logtostderr", "true"),
        ("housekeeping_interval", "10s"),
        ("maximum-dead-containers", "5"),
    ];
    let (_, warnings) = load_body(body, &flags).unwrap();
    let count = |kind| warnings.iter().filter(|warning| warning.kind == kind).count();
    assert_eq!(count(WarningKind::Removed), 7, "{warnings:#?}");
    assert_eq!((count(WarningKind::NoEffect), count(WarningKind::Deprecated)), (1, 1));
    let text = warnings.iter().find(|warning| warning.key == "container-runtime").unwrap().to_string();
    assert!(
        text.starts_with("--container-runtime: ignored: removed from kubelet by Kubernetes 1.27"),
        "{text}"
    );
}

#[test]
fn a_key_set_to_its_default_is_not_warned_of() {
    let (_, warnings) = load_body(
        "maxOpenFiles: 1000000\nimageMinimumGCAge: 120s\nevictionPressureTransitionPeriod: 300s\n",
        &[],
    )
    .unwrap();
    assert_eq!(warnings, []);
    let (_, warnings) = load_body("logging: {options: {text: {infoBufferSize: 0Ki}}}\n", &[]).unwrap();
    assert_eq!(warnings, []);
    let (_, warnings) = load_body("maxOpenFiles: 101\n", &[]).unwrap();
    assert_eq!(warnings.len(), 1);
}

#[test]
fn the_host_name_must_be_usable() {
    for name in ["", "a b", "-a", &"a".repeat(300)] {
        let error = load_on(&[], &|| Ok(name.to_owned())).unwrap_err();
        assert!(matches!(error, ConfigError::Hostname { .. }), "{name}: {error}");
    }
}

#[test]
fn dead_containers_are_kept_as_kubelets_old_flags_say() {
    let (agent, _) = load_body("", &[]).unwrap();
    let kubelets =
        ContainerGcSettings { min_age: Duration::ZERO, max_per_container: Some(1), max_total: None };
    assert_eq!(agent.container_gc, kubelets);
    let flags = [
        ("minimum-container-ttl-duration", "1m"),
        ("maximum-dead-containers-per-container", "-1"),
        ("maximum-dead-containers", "100"),
    ];
    let (agent, warnings) = load_body("", &flags).unwrap();
    let wanted = ContainerGcSettings {
        min_age: Duration::from_secs(60),
        max_per_container: None,
        max_total: Some(100),
    };
    assert_eq!(agent.container_gc, wanted);
    assert!(warnings.iter().all(|warning| warning.kind == WarningKind::Deprecated), "{warnings:?}");
    assert_eq!(warnings.len(), 3);
    assert!(load_body("", &[("maximum-dead-containers", "many")]).is_err());
    assert!(load_body("", &[("maximum-dead-containers", "99999999999")]).is_err());
}

#[test]
fn a_negative_log_size_turns_rotation_off() {
    let (agent, _) = load_body("containerLogMaxSize: \"-1\"\n", &[]).unwrap();
    assert_eq!(agent.container_log_max_size, None);
}
