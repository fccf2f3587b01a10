//! The defaults that an API server sets on a v1 Pod.
//!
//! kubelet decodes a manifest with the API server's own defaulting, and the rest of the agent
//! relies on every one of these fields being there. Names and values are those of the v1 API as of
//! Kubernetes 1.36.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, HTTPGetAction, LifecycleHandler, Pod, PodSecurityContext, PodSpec,
    Probe, Volume,
};

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{
    pod::DEFAULT_GRACE_SECONDS,
    pod_resources::{self, Side, at_pod_level, is_hugepages},
};

/// Where a container may leave its last words.
pub const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// The file mode of projected files: 0644.
pub const VOLUME_FILE_MODE: i32 = 0o644;

/// Sets every default. Doing it twice changes nothing.
pub fn set_pod_defaults(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    set_spec_defaults(spec);
    let host_network = spec.host_network == Some(true);
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        set_container_defaults(container, host_network);
    }
    // After the containers' own, which they build on.
    set_pod_resources(spec);
    spec.volumes.iter_mut().flatten().for_each(set_volume_defaults);
}

/// A pod that limits itself requests what its containers request together, else as much as it limits. The
/// huge pages of its containers are the limit of its own.
fn set_pod_resources(spec: &mut PodSpec) {
    let requested = pod_resources::of_containers(spec, Side::Requests);
    let limited = pod_resources::of_containers(spec, Side::Limits);
    let Some(resources) = &mut spec.resources else { return };
    let some = |list: &Option<BTreeMap<String, Text>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if some(&resources.requests) || some(&resources.limits) {
        let limits = resources.limits.get_or_insert_default();
        for (name, amount) in limited.iter().filter(|(name, _)| is_hugepages(name)) {
            limits.entry(name.clone()).or_insert_with(|| Text(amount.to_string()));
        }
    }
    if some(&resources.limits) {
        let requests = resources.requests.get_or_insert_default();
        for (name, amount) in requested.iter().filter(|(name, _)| at_pod_level(name) && !is_hugepages(name)) {
            requests.entry(name.clone()).or_insert_with(|| Text(amount.to_string()));
        }
        for (name, limit) in resources.limits.iter().flatten().filter(|(name, _)| at_pod_level(name)) {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    // What was not given and has nothing to be is as absent as before.
    for list in [&mut resources.limits, &mut resources.requests] {
        list.take_if(|list| list.is_empty());
    }
}

fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

fn number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(default);
    }
}

fn set_spec_defaults(spec: &mut PodSpec) {
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_with(PodSecurityContext::default);
    spec.termination_grace_period_seconds.get_or_insert(DEFAULT_GRACE_SECONDS);
    spec.enable_service_links.get_or_insert(true);
}

fn set_container_defaults(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or_default();
    text(&mut container.image_pull_policy, pull_policy_for(image));
    text(&mut container.termination_message_path, TERMINATION_MESSAGE_PATH);
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        if host_network {
            let same = port.container_port;
            number(&mut port.host_port, same);
        }
    }
    // A limit without a request requests as much.
    if let Some(resources) = &mut container.resources
        && let Some(limits) = resources.limits.as_ref().filter(|l| !l.is_empty())
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    for env in container.env.iter_mut().flatten() {
        if let Some(field) = env.value_from.as_mut().and_then(|v| v.field_ref.as_mut()) {
            text(&mut field.api_version, "v1");
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(set_probe_defaults);
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            set_hook_defaults(hook);
        }
    }
}

fn set_probe_defaults(probe: &mut Probe) {
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    if let Some(get) = &mut probe.http_get {
        set_http_get_defaults(get);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn set_hook_defaults(hook: &mut LifecycleHandler) {
    if let Some(get) = &mut hook.http_get {
        set_http_get_defaults(get);
    }
}

fn set_http_get_defaults(get: &mut HTTPGetAction) {
    text(&mut get.path, "/");
    text(&mut get.scheme, "HTTP");
}

fn set_volume_defaults(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy_for(image.reference.as_deref().unwrap_or_default());
        text(&mut image.pull_policy, policy);
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(VOLUME_FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(VOLUME_FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(VOLUME_FILE_MODE);
        for item in downward.items.iter_mut().flatten() {
            if let Some(field) = &mut item.field_ref {
                text(&mut field.api_version, "v1");
            }
        }
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(VOLUME_FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            for item in source.downward_api.iter_mut().filter_map(|d| d.items.as_mut()).flatten() {
                if let Some(field) = &mut item.field_ref {
                    text(&mut field.api_version, "v1");
                }
            }
        }
    }
}

/// `Always` for the tag `latest`, given or implied; else `IfNotPresent`. A digest without a tag
/// implies no tag.
pub fn pull_policy_for(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    let latest = match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !digest && !last.is_empty(),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaulted(value: serde_json::Value) -> serde_json::Value {
        let mut pod: Pod = serde_json::from_value(value).unwrap();
        set_pod_defaults(&mut pod);
        let once = pod.clone();
        set_pod_defaults(&mut pod);
        assert_eq!(once, pod, "defaulting twice must change nothing");
        serde_json::to_value(pod).unwrap()
    }

    #[test]
    fn pull_policies_by_tag_and_digest() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("reg:5000/nginx", "Always"),
            ("reg:5000/nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("reg:5000/a/b:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
            ("nginx:1@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy_for(image), want, "{image}");
        }
    }

    #[test]
    fn a_small_pod_gets_the_defaults_of_the_api() {
        let pod = defaulted(json!({"metadata": {"name": "a"}, "spec": {
            "hostNetwork": true,
            "containers": [{
                "name": "c", "image": "i",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
                "lifecycle": {"preStop": {"httpGet": {"port": 80}}}
            }],
            "volumes": [
                {"name": "none"}, {"name": "host", "hostPath": {"path": "/"}},
                {"name": "s", "secret": {"secretName": "s"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
            ]
        }}));
        assert_eq!(
            pod["spec"],
            json!({
                "hostNetwork": true,
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
                "containers": [{
                    "name": "c", "image": "i", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                    "livenessProbe": {
                        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 5,
                        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3
                    },
                    "lifecycle": {"preStop": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}}}
                }],
                "volumes": [
                    {"name": "none", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/", "type": ""}},
                    {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                    {"name": "p", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}
                ]
            })
        );
    }

    #[test]
    fn a_pods_own_requests_come_from_its_containers_or_its_limits() {
        let of = |own: serde_json::Value| {
            let pod = defaulted(json!({"metadata": {"name": "a"}, "spec": {"resources": own, "containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": "250m"},
                    "limits": {"hugepages-2Mi": "4Mi"}}},
                {"name": "d", "image": "i", "resources": {"limits": {"cpu": "500m"}}}]}}));
            pod["spec"]["resources"].clone()
        };
        assert_eq!(
            of(json!({"limits": {"cpu": "2", "memory": "1Gi"}})),
            json!({"limits": {"cpu": "2", "memory": "1Gi", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "750m", "memory": "1Gi", "hugepages-2Mi": "4Mi"}})
        );
        assert_eq!(
            of(json!({"requests": {"cpu": "1"}})),
            json!({"requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "limits": {"hugepages-2Mi": "4Mi"}})
        );
        assert_eq!(of(json!({})), json!({}));
    }

    #[test]
    fn what_is_set_stays() {
        let given = json!({"metadata": {"name": "a"}, "spec": {
            "restartPolicy": "Never", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": false, "schedulerName": "x", "securityContext": {"runAsUser": 1},
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Never",
                "terminationMessagePath": "/x", "terminationMessagePolicy": "FallbackToLogsOnError",
                "ports": [{"containerPort": 80, "protocol": "UDP"}]}]
        }});
        assert_eq!(defaulted(given.clone())["spec"], given["spec"]);
    }
}
