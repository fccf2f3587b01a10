//! Which fields of a pod are fixed when its sandbox and its containers are made, so that a change of one
//! means making them anew. What may change in place, or matters only to what the agent does itself (image
//! pull policy, grace periods, restart policies), is not among them; but for a container's resources, by which it is
//! known whether it has what it is to have.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::qos::qos_class;
use crate::api::{
    ObservedContainer, PodExt, container_hash::kubelet_container_hash, fingerprint::Fingerprint,
};

/// The fields of a sandbox.
pub fn sandbox_fingerprint(pod: &Pod) -> Fingerprint {
    let spec = pod.spec();
    Fingerprint::new()
        .with("dnsConfig", &spec.dns_config)
        .with("dnsPolicy", &spec.dns_policy)
        .with("hostAliases", &spec.host_aliases)
        .with("hostIPC", &spec.host_ipc.unwrap_or(false))
        .with("hostNetwork", &pod.host_network())
        .with("hostPID", &spec.host_pid.unwrap_or(false))
        .with("hostUsers", &spec.host_users.unwrap_or(true))
        .with("hostname", &spec.hostname)
        .with("hostnameOverride", &spec.hostname_override)
        // The sandbox is in the class's cgroup.
        .with("qosClass", &qos_class(pod).as_str())
        .with("runtimeClassName", &spec.runtime_class_name)
        .with("securityContext", &spec.security_context)
        .with("setHostnameAsFQDN", &spec.set_hostname_as_fqdn.unwrap_or(false))
        .with("shareProcessNamespace", &spec.share_process_namespace.unwrap_or(false))
        .with("subdomain", &spec.subdomain)
}

/// The fields of a container, its image aside, which kubelet's hash covers.
pub fn container_fingerprint(pod: &Pod, container: &Container) -> Fingerprint {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    let volumes: Vec<_> = pod.spec().volumes.iter().flatten().filter(|v| mounted(&v.name)).collect();
    Fingerprint::new()
        .with("args", &container.args)
        .with("command", &container.command)
        .with("env", &container.env)
        .with("envFrom", &container.env_from)
        // A container without limits of its own has the pod's.
        .with("podResources", &pod.spec().resources)
        .with("ports", &container.ports)
        .with("resources", &container.resources)
        .with("securityContext", &container.security_context)
        .with("stopSignal", &container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_ref()))
        .with("stdin", &container.stdin.unwrap_or(false))
        .with("stdinOnce", &container.stdin_once.unwrap_or(false))
        .with("terminationMessagePath", &container.termination_message_path)
        .with("tty", &container.tty.unwrap_or(false))
        .with("volumeDevices", &container.volume_devices)
        .with("volumeMounts", &container.volume_mounts)
        .with("volumes", &volumes)
        .with("workingDir", &container.working_dir)
}

/// A container's resources alone, as they are in its fingerprint.
pub fn resources_fingerprint(container: &Container) -> Fingerprint {
    Fingerprint::new().with("resources", &container.resources)
}

/// The names of the fields that differ between what is wanted and what runs; empty if it may stay.
///
/// A container that another agent made carries kubelet's hash alone. Kubelets before 1.31 hashed the whole
/// struct: their hash says nothing to us, and such a container stays. That a hash is of the present kind is
/// known where it is that of the image that runs.
pub fn changed_fields(pod: &Pod, wanted: &Container, running: &ObservedContainer) -> Vec<String> {
    let Some(theirs) = &running.fingerprint else {
        let was = Container { image: Some(running.image.clone()), ..wanted.clone() };
        let changed = running.kubelet_hash == Some(kubelet_container_hash(&was)) && was.image != wanted.image;
        return if changed { vec!["image".to_owned()] } else { Vec::new() };
    };
    let ours = container_fingerprint(pod, wanted);
    // Those of the API server's pods change in place, see [`super::resize`].
    let in_place = |field: &str| field == "resources" && !pod.is_static();
    let changed = ours.changed_fields(theirs).into_iter().filter(|field| !in_place(field));
    let mut changed: Vec<String> = changed.map(str::to_owned).collect();
    if running.kubelet_hash.is_some_and(|hash| hash != kubelet_container_hash(wanted)) {
        changed.insert(0, "image".to_owned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume, VolumeMount};

    use super::*;
    use crate::policy::testing;

    #[test]
    fn a_changed_field_and_a_changed_image_are_named() {
        let pod = testing::pod(&["a"]);
        let wanted = &pod.spec().containers[0];
        let mut running = testing::container("a", "s");
        running.fingerprint = Some(container_fingerprint(&pod, wanted));
        assert!(changed_fields(&pod, wanted, &running).is_empty());

        let mut edited = wanted.clone();
        edited.image = Some("other".into());
        edited.command = Some(vec!["sh".into()]);
        edited.image_pull_policy = Some("Never".into());
        assert_eq!(changed_fields(&pod, &edited, &running), ["image", "command"]);
    }

    #[test]
    fn a_mounted_volumes_source_counts_and_another_does_not() {
        let mut pod = testing::pod(&["a"]);
        let volume = |path: &str| Volume {
            name: "v".into(),
            host_path: Some(HostPathVolumeSource { path: path.into(), type_: None }),
            ..Volume::default()
        };
        pod.spec.as_mut().unwrap().volumes = Some(vec![volume("/a")]);
        let before = pod.clone();
        pod.spec.as_mut().unwrap().volumes = Some(vec![volume("/b")]);
        let plain = &pod.spec().containers[0];
        let mounting = Container {
            volume_mounts: Some(vec![VolumeMount {
                name: "v".into(),
                mount_path: "/v".into(),
                ..VolumeMount::default()
            }]),
            ..plain.clone()
        };
        let differ = |c: &Container| {
            container_fingerprint(&pod, c).changed_fields(&container_fingerprint(&before, c)).len()
        };
        assert_eq!((differ(plain), differ(&mounting)), (0, 1));
    }

    #[test]
    fn another_agents_container_stays() {
        let pod = testing::pod(&["a"]);
        let mut running = testing::container("a", "s");
        running.kubelet_hash = Some(1);
        let wanted = &pod.spec().containers[0];
        assert!(changed_fields(&pod, wanted, &running).is_empty());
        let edited = Container { image: Some("other".into()), ..wanted.clone() };
        assert!(changed_fields(&pod, &edited, &running).is_empty());
        // Unless its hash is known to be over the image, and that is another now.
        running.kubelet_hash = Some(kubelet_container_hash(wanted));
        assert!(changed_fields(&pod, wanted, &running).is_empty());
        assert_eq!(changed_fields(&pod, &edited, &running), ["image"]);
    }
}
