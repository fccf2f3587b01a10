//! The table of keys and the typed configuration say the same.

use serde_json::{Value, json};

use super::*;

/// A value of a kind that is no default anywhere.
fn sample(spec: &KeySpec) -> Value {
    match spec.kind {
        KeyKind::Bool => json!(true),
        KeyKind::Int32 | KeyKind::Int64 | KeyKind::Uint32 => json!(7),
        KeyKind::Float => json!(0.5),
        KeyKind::Str => json!("text"),
        KeyKind::Ip => json!("10.1.2.3"),
        KeyKind::Enum(names) => json!(names.last()),
        KeyKind::Duration | KeyKind::DurationOrInt => json!("1m7s"),
        KeyKind::Quantity | KeyKind::QuantityOrInt => json!("7Mi"),
        KeyKind::StrList => json!(["a", "b"]),
        KeyKind::IntList => json!([7, 8]),
        KeyKind::StrMap => json!({"a": "b"}),
        KeyKind::QuantityMap | KeyKind::QuantityOrIntMap => json!({"memory": "7Mi"}),
        KeyKind::BoolMap => json!({"A": true}),
        KeyKind::MultiMap => json!({"a": ["b", "c"]}),
        KeyKind::Struct => json!({}),
        KeyKind::StructList => json!([{}]),
    }
}

/// A document with every key of the table set.
fn full() -> Value {
    let mut document = json!({});
    for spec in keys().iter().filter(|spec| !matches!(spec.support, Support::Gone(_))) {
        let pointer = format!("/{}", spec.path.replace("[].", "/0/").replace('.', "/"));
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = sample(spec);
    }
    document
}

#[test]
fn every_key_goes_through_the_typed_configuration() {
    let document = full();
    let typed: KubeletConfiguration = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), document);
    let yaml = serde_saphyr::to_string(&typed).unwrap();
    let node = node::parse(Path::new("x"), yaml.as_bytes()).unwrap();
    assert_eq!(node.value.to_json(), document);
}

#[test]
fn the_typed_configuration_has_no_key_that_the_table_lacks() {
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        let Value::Object(map) = value else {
            found.push(path.to_owned());
            return;
        };
        for (name, value) in map {
            leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
        }
    }
    let mut found = Vec::new();
    leaves(&serde_json::to_value(defaulted()).unwrap(), "", &mut found);
    for path in found.iter().filter(|path| !path.starts_with("evictionHard.")) {
        assert!(keys().iter().any(|spec| spec.path == path), "{path}");
    }
    let unknown = serde_json::from_value::<KubeletConfiguration>(json!({"maxPodz": 1}));
    assert!(unknown.unwrap_err().to_string().contains("maxPodz"));
}

#[test]
fn keys_are_in_the_order_of_the_type() {
    let yaml = serde_saphyr::to_string(&defaulted()).unwrap();
    let printed =
        yaml.lines().filter(|line| !line.starts_with([' ', '-'])).filter_map(|line| line.split(':').next());
    let positions: Vec<usize> =
        printed.map(|name| keys().iter().position(|spec| spec.path == name).unwrap()).collect();
    assert!(positions.is_sorted(), "{positions:?}");
}

#[test]
fn tables_have_no_duplicates_and_flags_name_keys_that_exist() {
    let mut paths: Vec<_> = keys().iter().map(|spec| spec.path).collect();
    paths.sort_unstable();
    assert!(paths.windows(2).all(|pair| pair[0] != pair[1]));
    let mut names: Vec<_> = flags().iter().map(|spec| spec.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    for spec in flags() {
        assert_eq!(normalize_flag(spec.name), spec.name);
        if let Target::Key(path) = spec.target {
            assert!(keys().iter().any(|key| key.path == path), "--{} names {path}", spec.name);
        }
    }
}

/// Every flag, with a value of its sort, is read without a complaint about the value's form.
#[test]
fn every_flag_takes_a_value_of_its_sort() {
    // Read with the program that it names.
    let providers = tempfile::NamedTempFile::new().unwrap();
    let text = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "sh", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": ["r.example"],
            "defaultCacheDuration": "1h",
        }],
    });
    std::fs::write(providers.path(), text.to_string()).unwrap();
    let providers = providers.path().to_str().unwrap();
    for spec in flags().iter().filter(|spec| !matches!(spec.name, "config" | "config-dir")) {
        let value = match (spec.name, spec.syntax) {
            ("system-cgroups" | "reserved-cpus" | "cpu-cfs-quota-period" | "runonce", _) => continue,
            (_, Syntax::Bool) => "false",
            (_, Syntax::Int) => "50",
            (_, Syntax::Float) => "0.5",
            (_, Syntax::Duration) => "10s",
            (_, Syntax::IpList) => "10.0.0.1",
            (_, Syntax::AngleMap) => "memory.available<1Gi",
            (_, Syntax::Gates) => "EventedPLEG=true",
            (_, Syntax::Headers) => "a:b",
            (_, Syntax::VModule) => "file=2",
            (_, Syntax::Taints) => "key=value:NoSchedule,other:NoExecute",
            (_, Syntax::Memory) => "0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=1Gi",
            ("cluster-dns", _) => "10.0.0.1",
            ("enforce-node-allocatable", _) => "pods",
            ("allowed-unsafe-sysctls", _) => "net.*,kernel.sem",
            (_, Syntax::List) => "a,\"b,c\"",
            ("eviction-soft-grace-period", _) => "memory.available=1m",
            ("eviction-minimum-reclaim", _) => "memory.available=1Gi",
            ("qos-reserved", _) => "memory=50%",
            ("kube-reserved" | "system-reserved", _) => "cpu=100m,memory=1Gi,pid=1000",
            (_, Syntax::Map | Syntax::Pair) => "a=b",
            ("address" | "healthz-bind-address", _) => "::1",
            ("authorization-mode", _) => "Webhook",
            ("cgroup-driver", _) => "systemd",
            ("cloud-provider", _) => "external",
            ("image-credential-provider-bin-dir", _) => "/bin",
            ("image-credential-provider-config", _) => providers,
            ("container-log-max-size", _) => "5Mi",
            ("cpu-manager-policy", _) => "static",
            ("hairpin-mode", _) => "none",
            ("log-json-info-buffer-size" | "log-text-info-buffer-size", _) => "1Ki",
            ("logging-format", _) => "json",
            ("manifest-url", _) => "http://h/",
            ("offline-pods", _) => "always",
            ("memory-manager-policy", _) => "Static",
            ("tls-min-version", _) => "VersionTLS12",
            ("topology-manager-policy", _) => "restricted",
            ("topology-manager-scope", _) => "pod",
            (_, Syntax::Str) => "text",
        };
        let value = match spec.name {
            "image-gc-low-threshold" | "iptables-drop-bit" | "iptables-masquerade-bit" => "10",
            "image-gc-high-threshold" => "90",
            _ => value,
        };
        let extra: &[(&str, &str)] = match spec.name {
            "eviction-soft" => &[("eviction-soft-grace-period", "memory.available=1m")],
            "offline-pods" => &[("kubeconfig", "/etc/kubernetes/kubelet.conf")],
            "cgroups-per-qos" => &[("enforce-node-allocatable", "none")],
            "image-credential-provider-bin-dir" => &[("image-credential-provider-config", providers)],
            "image-credential-provider-config" => &[("image-credential-provider-bin-dir", "/bin")],
            _ => &[],
        };
        let mut line = vec![(spec.name, value)];
        line.extend_from_slice(extra);
        if let Err(error) = load_flags(&line) {
            panic!("--{}={value}: {error}", spec.name);
        }
    }
}

/// Every gate of the table is read, whatever became of it.
#[test]
fn every_gate_is_known() {
    for (name, state) in gates::GATES {
        let on = match state {
            GateState::Known { default, .. } => *default,
            GateState::Removed { .. } => true,
        };
        let (_, warnings) = load_body(&format!("featureGates: {{{name}: {on}}}\n"), &[]).unwrap();
        let removed = matches!(state, GateState::Removed { .. });
        assert_eq!(
            warnings.iter().filter(|warning| warning.kind == WarningKind::Removed).count(),
            usize::from(removed)
        );
    }
}
