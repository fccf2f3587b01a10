//! One row for each rule: what is changed in a good pod, and what is said of it.

use serde_json::{Value, json};

use super::*;
use crate::api::defaults::set_pod_defaults;

fn good() -> Value {
    json!({
        "metadata": {"name": "a", "namespace": "default", "uid": "u", "labels": {"app": "a"}},
        "spec": {
            "initContainers": [{"name": "init", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always"}],
            "containers": [
                {
                    "name": "c", "image": "i", "command": ["a"], "env": [{"name": "A", "value": "b"}],
                    "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]
                },
                {"name": "d", "image": "i"}
            ],
            "volumes": [{"name": "v"}, {"name": "h", "hostPath": {"path": "/x", "type": "Directory"}}]
        }
    })
}

fn problems_of(value: Value) -> Vec<String> {
    let mut pod: Pod = serde_json::from_value(value).unwrap();
    set_pod_defaults(&mut pod);
    validate_static_pod(&pod).iter().map(ToString::to_string).collect()
}

/// The problems of the good pod with one value put at a JSON pointer.
fn with(pointer: &str, value: Value) -> Vec<String> {
    let mut pod = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match pod.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => panic!("cannot put {key} into {other}"),
    }
    problems_of(pod)
}

#[test]
fn a_good_pod_has_no_problems() {
    assert_eq!(problems_of(good()), Vec::<String>::new());
}

#[test]
fn each_rule_is_told_by_path() {
    let c = "/spec/containers/0";
    let long = "a".repeat(300);
    let rows = [
        ("/metadata/name", json!("A"), "metadata.name: Invalid value: \"A\": must consist of lower case"),
        ("/metadata/name", json!(long), "metadata.name: Invalid value: \"aaa"),
        ("/metadata/name", json!(""), "metadata.name: Required value"),
        ("/metadata/namespace", json!("a.b"), "metadata.namespace: Invalid value"),
        ("/metadata/uid", json!("../x"), "metadata.uid: Invalid value"),
        ("/metadata/labels", json!({"a b": "c"}), "metadata.labels[a b]: Invalid value"),
        ("/metadata/labels", json!({"a": "-"}), "metadata.labels[a]: Invalid value: \"-\""),
        ("/metadata/annotations", json!({"a": "x".repeat(300_000)}), "metadata.annotations: Too long"),
        ("/metadata/annotations", json!({"a b": ""}), "metadata.annotations[a b]: Invalid value"),
        (
            "/spec/restartPolicy",
            json!("always"),
            "spec.restartPolicy: Unsupported value: \"always\": supported values: \"Always\"",
        ),
        ("/spec/dnsPolicy", json!("x"), "spec.dnsPolicy: Unsupported value"),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.terminationGracePeriodSeconds: Invalid value: \"-1\"",
        ),
        ("/spec/activeDeadlineSeconds", json!(0), "spec.activeDeadlineSeconds: Invalid value"),
        ("/spec/hostname", json!("a.b"), "spec.hostname: Invalid value"),
        ("/spec/os", json!({"name": "windows"}), "spec.os.name: Forbidden"),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "x"}]),
            "spec.tolerations[0].operator: Unsupported value",
        ),
        ("/spec/tolerations", json!([{}]), "spec.tolerations[0].operator: Invalid value"),
        (
            "/spec/tolerations",
            json!([{"key": "a", "tolerationSeconds": 1}]),
            "spec.tolerations[0].effect: Invalid value",
        ),
        ("/spec/hostAliases", json!([{"ip": "x"}]), "spec.hostAliases[0].ip: Invalid value"),
        (
            "/spec/hostAliases",
            json!([{"ip": "192.0.2.1", "hostnames": ["a b"]}]),
            "spec.hostAliases[0].hostnames[0]: Invalid value",
        ),
        ("/spec/subdomain", json!("a.b"), "spec.subdomain: Invalid value"),
        ("/spec/hostnameOverride", json!("A"), "spec.hostnameOverride: Invalid value"),
        ("/spec/hostnameOverride", json!("a".repeat(65)), "spec.hostnameOverride: Invalid value"),
        ("/spec/dnsPolicy", json!("None"), "spec.dnsConfig.nameservers: Required value"),
        (
            "/spec/dnsConfig",
            json!({"nameservers": ["192.0.2.1", "x"]}),
            "spec.dnsConfig.nameservers[1]: Invalid value",
        ),
        (
            "/spec/dnsConfig",
            json!({"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]}),
            "spec.dnsConfig.nameservers: Invalid value: \"4\"",
        ),
        (
            "/spec/dnsConfig",
            json!({"searches": ["ok._a.", ".", "-x"]}),
            "spec.dnsConfig.searches[2]: Invalid",
        ),
        ("/spec/dnsConfig", json!({"searches": vec!["a"; 33]}), "spec.dnsConfig.searches: Invalid value"),
        (
            "/spec/dnsConfig",
            // 32 names of 64 characters and 31 spaces.
            json!({"searches": vec![format!("{}.b", "a".repeat(62)); 32]}),
            "spec.dnsConfig.searches: Invalid value: \"2079\"",
        ),
        ("/spec/dnsConfig", json!({"options": [{"value": "x"}]}), "spec.dnsConfig.options[0].name: Required"),
        (
            "/spec/dnsConfig",
            json!({"options": [{"name": "a\nnameserver"}]}),
            "spec.dnsConfig.options[0].name: Invalid value",
        ),
        ("/spec/runtimeClassName", json!("A"), "spec.runtimeClassName: Invalid value"),
        (
            "/spec/affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required",
        ),
        ("/spec/overhead", json!({"cpu": "-1"}), "spec.overhead[cpu]: Invalid value"),
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        (&format!("{c}/name"), json!("A_b"), "spec.containers[0].name: Invalid value"),
        (&format!("{c}/name"), json!("d"), "spec.containers[1].name: Duplicate value: \"d\""),
        (&format!("{c}/name"), json!("init"), "spec.initContainers[0].name: Duplicate value: \"init\""),
        (&format!("{c}/image"), json!(""), "spec.containers[0].image: Required value"),
        (&format!("{c}/image"), json!(" i"), "spec.containers[0].image: Invalid value"),
        (
            &format!("{c}/imagePullPolicy"),
            json!("Sometimes"),
            "spec.containers[0].imagePullPolicy: Unsupported value",
        ),
        (
            &format!("{c}/terminationMessagePolicy"),
            json!("x"),
            "spec.containers[0].terminationMessagePolicy: Unsupported",
        ),
        (&format!("{c}/command"), json!(["a\0b"]), "spec.containers[0].command[0]: Invalid value"),
        (&format!("{c}/env"), json!([{"name": "a=b"}]), "spec.containers[0].env[0].name: Invalid value"),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "value": "s\0s"}]),
            "spec.containers[0].env[0].value: Invalid value: must not contain",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom: Required value",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported",
        ),
        (
            &format!("{c}/ports/0/containerPort"),
            json!(0),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            &format!("{c}/ports/0/containerPort"),
            json!(70000),
            "spec.containers[0].ports[0].containerPort: Invalid value",
        ),
        (&format!("{c}/ports/0/hostPort"), json!(-1), "spec.containers[0].ports[0].hostPort: Invalid value"),
        (
            &format!("{c}/ports/0/protocol"),
            json!("ICMP"),
            "spec.containers[0].ports[0].protocol: Unsupported value",
        ),
        (&format!("{c}/ports/0/hostIP"), json!("x"), "spec.containers[0].ports[0].hostIP: Invalid value"),
        (&format!("{c}/ports/0/name"), json!("HTTP"), "spec.containers[0].ports[0].name: Invalid value"),
        (
            &format!("{c}/ports/-"),
            json!({"name": "http", "containerPort": 81}),
            "spec.containers[0].ports[1].name: Duplicate value",
        ),
        (
            "/spec/containers/1/ports",
            json!([{"containerPort": 1, "hostPort": 8080}]),
            "spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP/0.0.0.0:8080\"",
        ),
        (
            "/spec/hostNetwork",
            json!(true),
            "spec.containers[0].ports[0].hostPort: Invalid value: \"8080\": must match containerPort",
        ),
        (
            &format!("{c}/resources/requests/cpu"),
            json!("2"),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            &format!("{c}/resources/limits/cpu"),
            json!("1x"),
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"1x\": is not a quantity",
        ),
        (
            &format!("{c}/resources/limits/cpu"),
            json!("-1"),
            "spec.containers[0].resources.limits[cpu]: Invalid value",
        ),
        (
            &format!("{c}/resources/limits/gpu"),
            json!("1"),
            "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource",
        ),
        (
            &format!("{c}/resources/limits"),
            json!({"x.io/gpu": "1.5"}),
            "spec.containers[0].resources.limits[x.io/gpu]: Invalid value: \"1.5\": must be an integer",
        ),
        (
            &format!("{c}/resources"),
            json!({"requests": {"x.io/gpu": "1"}}),
            "spec.containers[0].resources.limits[x.io/gpu]: Required value",
        ),
        (
            &format!("{c}/volumeMounts/0/name"),
            json!("w"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        ),
        (
            &format!("{c}/volumeMounts/0/mountPath"),
            json!("/a:b"),
            "spec.containers[0].volumeMounts[0].mountPath: Invalid value",
        ),
        (
            &format!("{c}/volumeMounts/0/mountPath"),
            json!(""),
            "spec.containers[0].volumeMounts[0].mountPath: Required value",
        ),
        (
            &format!("{c}/volumeMounts/-"),
            json!({"name": "h", "mountPath": "/v"}),
            "spec.containers[0].volumeMounts[1].mountPath: Duplicate value",
        ),
        (
            &format!("{c}/volumeMounts/0/subPath"),
            json!("a/../b"),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value",
        ),
        (
            &format!("{c}/volumeMounts/0/subPath"),
            json!("/a"),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value",
        ),
        (
            &format!("{c}/volumeMounts/0/mountPropagation"),
            json!("Bidirectional"),
            "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden",
        ),
        (
            &format!("{c}/volumeMounts/0/recursiveReadOnly"),
            json!("Enabled"),
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden",
        ),
        (&format!("{c}/livenessProbe"), json!({}), "spec.containers[0].livenessProbe: Required value"),
        (
            &format!("{c}/livenessProbe"),
            json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}),
            "spec.containers[0].livenessProbe: Forbidden",
        ),
        (
            &format!("{c}/livenessProbe"),
            json!({"exec": {"command": ["a"]}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"tcpSocket": {"port": 0}}),
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"exec": {}}),
            "spec.containers[0].readinessProbe.exec.command: Required value",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"grpc": {"port": 1}, "periodSeconds": -1}),
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value",
        ),
        (
            &format!("{c}/readinessProbe"),
            json!({"grpc": {"port": 1}, "terminationGracePeriodSeconds": 1}),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid",
        ),
        (
            &format!("{c}/lifecycle"),
            json!({"preStop": {"sleep": {"seconds": 31}}}),
            "spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value",
        ),
        (
            &format!("{c}/lifecycle"),
            json!({"postStart": {}}),
            "spec.containers[0].lifecycle.postStart: Required value",
        ),
        (
            &format!("{c}/lifecycle"),
            json!({"stopSignal": "SIGTERM"}),
            "spec.containers[0].lifecycle.stopSignal: Forbidden",
        ),
        ("/spec/initContainers/0/lifecycle", json!({}), "spec.initContainers[0].lifecycle: Forbidden"),
        (
            "/spec/initContainers/0/startupProbe",
            json!({"exec": {"command": ["a"]}}),
            "spec.initContainers[0].startupProbe: Forbidden",
        ),
        (
            "/spec/initContainers/1/startupProbe",
            json!({"exec": {}}),
            "spec.initContainers[1].startupProbe.exec.command: Required",
        ),
        (
            "/spec/initContainers/0/restartPolicy",
            json!("x"),
            "spec.initContainers[0].restartPolicy: Unsupported value",
        ),
        (
            &format!("{c}/restartPolicyRules"),
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
            "spec.containers[0].restartPolicy: Required value",
        ),
        (
            "/spec/initContainers/1/restartPolicyRules",
            json!([{"action": "Stop", "exitCodes": {"operator": "In", "values": [1]}}]),
            "spec.initContainers[1].restartPolicyRules[0].action: Unsupported",
        ),
        (
            "/spec/initContainers/1/restartPolicyRules",
            json!([{"action": "Restart"}]),
            "spec.initContainers[1].restartPolicyRules[0].exitCodes: Required",
        ),
        (
            "/spec/initContainers/1/restartPolicyRules",
            json!([{"action": "Restart", "exitCodes": {"operator": "Eq", "values": [1]}}]),
            "restartPolicyRules[0].exitCodes.operator: Unsupported",
        ),
        (
            "/spec/initContainers/1/restartPolicyRules",
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": vec![1; 256]}}]),
            "restartPolicyRules[0].exitCodes.values: Too many",
        ),
        (
            "/spec/initContainers/1/restartPolicyRules",
            json!(vec![json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}); 21]),
            "restartPolicyRules: Too many: 21",
        ),
        ("/spec/volumes/0/name", json!("h"), "spec.volumes[1].name: Duplicate value"),
        (
            "/spec/volumes/0/hostPath",
            json!({"path": "/a/../b"}),
            "spec.volumes[0].hostPath.path: Invalid value",
        ),
        ("/spec/volumes/0/hostPath", json!({"path": "a"}), "spec.volumes[0].hostPath.path: Invalid value"),
        (
            "/spec/volumes/0/hostPath",
            json!({"path": "/a", "type": "Dir"}),
            "spec.volumes[0].hostPath.type: Unsupported value",
        ),
        (
            "/spec/volumes/1/emptyDir",
            json!({}),
            "spec.volumes[1].hostPath: Forbidden: may not specify more than one volume type",
        ),
        (
            "/spec/volumes/0/emptyDir",
            json!({"medium": "Disk"}),
            "spec.volumes[0].emptyDir.medium: Unsupported value",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "image": {"pullPolicy": "Never"}}),
            "spec.volumes[0].image.reference: Required value",
        ),
        ("/spec/securityContext", json!({"fsGroup": -1}), "spec.securityContext.fsGroup: Invalid value"),
        (
            "/spec/securityContext",
            json!({"fsGroupChangePolicy": "Never"}),
            "spec.securityContext.fsGroupChangePolicy: Unsupported value",
        ),
        (
            "/spec/volumes/0/emptyDir",
            json!({"sizeLimit": "x"}),
            "spec.volumes[0].emptyDir.sizeLimit: Invalid value",
        ),
        (
            "/spec/resources",
            json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}),
            "spec.resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\"",
        ),
        (
            "/spec/resources",
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "spec.resources.requests[cpu]: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/resources",
            json!({"requests": {"cpu": "100m"}}),
            "spec.resources.requests[cpu]: Invalid value: \"100m\": must be greater than or equal to aggregate",
        ),
        (
            "/spec/resources",
            json!({"limits": {"cpu": "900m"}}),
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"1\": must be less than or equal to pod limits of 900m",
        ),
        (
            "/spec/serviceAccountName",
            json!("x"),
            "spec.serviceAccountName: Forbidden: static pods may not reference serviceaccounts",
        ),
        ("/spec/imagePullSecrets", json!([{"name": "x"}]), "spec.imagePullSecrets[0]: Forbidden"),
        ("/spec/resourceClaims", json!([{"name": "x"}]), "spec.resourceClaims: Forbidden"),
        ("/spec/ephemeralContainers", json!([{"name": "x"}]), "spec.ephemeralContainers: Forbidden"),
        (
            "/spec/volumes/0/secret",
            json!({"secretName": "x"}),
            "spec.volumes[0].secret: Forbidden: static pods may not reference secrets",
        ),
        (
            "/spec/volumes/0/persistentVolumeClaim",
            json!({"claimName": "x"}),
            "spec.volumes[0].persistentVolumeClaim: Forbidden",
        ),
        (
            "/spec/volumes/0/projected",
            json!({"sources": [{"configMap": {"name": "x"}}]}),
            "spec.volumes[0].projected.sources[0].configMap: Forbidden",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}]),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}}}]),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Unsupported",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "h", "path": "f", "key": "K"}}}]),
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"h\": must be a volume of type emptyDir",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "x", "path": "f", "key": "K"}}}]),
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "../f", "key": "K"}}}]),
            "spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "a=b"}}}]),
            "spec.containers[0].env[0].valueFrom.fileKeyRef.key: Invalid value",
        ),
        (
            "/spec/volumes/0/downwardAPI",
            json!({"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}),
            "spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath: Unsupported",
        ),
        (
            "/spec/volumes/0/downwardAPI",
            json!({"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}),
            "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName: Required",
        ),
        (
            "/spec/volumes/0/downwardAPI",
            json!({"items": [{"path": "..a", "mode": 512, "fieldRef": {"fieldPath": "metadata.name"}}]}),
            "spec.volumes[0].downwardAPI.items[0].path: Invalid value: \"..a\": must not start with '..'",
        ),
        (
            "/spec/volumes/0/downwardAPI",
            json!({"items": [{"path": "a", "mode": 512, "fieldRef": {"fieldPath": "metadata.name"}}]}),
            "spec.volumes[0].downwardAPI.items[0].mode: Invalid value",
        ),
        (
            "/spec/volumes/0/downwardAPI",
            json!({"defaultMode": -1, "items": [{"path": "a"}]}),
            "spec.volumes[0].downwardAPI.items[0]: Required value: must specify one of",
        ),
        (
            "/spec/volumes/0/projected",
            json!({"sources": [{"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.uid"}}]}},
                {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}),
            "spec.volumes[0].projected.sources[1].downwardAPI.items[0].path: Duplicate value",
        ),
        (
            "/spec/volumes/0/projected",
            json!({"sources": [{"downwardAPI": {}, "secret": {"name": "s"}}]}),
            "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than one",
        ),
        (
            &format!("{c}/env"),
            json!([{"name": "a", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]),
            "spec.containers[0].env[0].valueFrom.secretKeyRef: Forbidden",
        ),
        (
            &format!("{c}/envFrom"),
            json!([{"configMapRef": {"name": "x"}}]),
            "spec.containers[0].envFrom[0].configMapRef: Forbidden",
        ),
    ];
    for (pointer, value, want) in rows {
        let found = with(pointer, value.clone());
        assert!(found.iter().any(|p| p.contains(want)), "{pointer} = {value}\nwant {want}\nfound {found:#?}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let mut pod = good();
    pod["metadata"]["name"] = json!("A");
    pod["spec"]["restartPolicy"] = json!("x");
    pod["spec"]["containers"][0]["image"] = json!("");
    assert_eq!(problems_of(pod).len(), 3);
}

#[test]
fn a_pod_without_a_spec_is_refused() {
    let mut pod = good();
    pod.as_object_mut().unwrap().remove("spec");
    assert_eq!(problems_of(pod), ["spec: Required value"]);
}

#[test]
fn init_containers_may_share_a_host_port_and_extended_resources_are_whole() {
    let port = json!([{"containerPort": 1, "hostPort": 8080}]);
    assert_eq!(with("/spec/initContainers/0/ports", port), Vec::<String>::new());
    let limits = json!({"limits": {"x.io/gpu": "2"}});
    assert_eq!(with("/spec/containers/0/resources", limits), Vec::<String>::new());
    let value = |source: Value| json!([{"name": "a", "valueFrom": source}]);
    for source in [
        json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
        json!({"fieldRef": {"fieldPath": "metadata.annotations['Example.com/Note']"}}),
        json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}),
        json!({"resourceFieldRef": {"resource": "requests.hugepages-2Mi", "divisor": "1024Ki"}}),
        json!({"fileKeyRef": {"volumeName": "v", "path": "d/f", "key": "K", "optional": true}}),
    ] {
        assert_eq!(with("/spec/containers/0/env", value(source)), Vec::<String>::new());
    }
    let items = json!([{"path": "d/l", "mode": 256, "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "d/a", "fieldRef": {"fieldPath": "metadata.annotations['x']"}},
        {"path": "c", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]);
    let volume = json!({"name": "v", "downwardAPI": {"items": items}});
    assert_eq!(with("/spec/volumes/0", volume), Vec::<String>::new());
    let volume = json!({"name": "v", "projected": {"sources": [{"downwardAPI": {"items": items}}]}});
    assert_eq!(with("/spec/volumes/0", volume), Vec::<String>::new());
}

#[test]
fn stop_signals_are_those_of_the_pods_system() {
    let with = |os: &str, signal: &str| {
        problems_of(json!({"metadata": {"name": "a", "namespace": "default", "uid": "u"}, "spec": {
            "os": {"name": os},
            "containers": [{"name": "c", "image": "i", "lifecycle": {"stopSignal": signal}}]}}))
    };
    for known in ["SIGTERM", "SIGUSR1", "SIGRTMIN", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX"] {
        assert_eq!(with("linux", known), Vec::<String>::new(), "{known}");
    }
    for unknown in ["TERM", "SIGRTMIN+16", "SIGRTMIN+0", "SIGRTMIN+01", "SIGRTMAX-15", "SIGRTMAX+1", "9", ""]
    {
        assert_eq!(with("linux", unknown).len(), 1, "{unknown}");
    }
    // A pod for Windows is refused whatever its signal.
    assert_eq!((with("windows", "SIGKILL").len(), with("windows", "SIGHUP").len()), (1, 2));
}
