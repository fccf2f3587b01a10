//! What a static pod may not have: anything that only an API server could give.
//!
//! kubelet refuses these since 1.34 (before that, such a pod hung in ContainerCreating). Here they
//! are named by their path.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use super::Problems;

/// Lists every reference to an API object.
pub(super) fn check(pod: &Pod, problems: &mut Problems) {
    let Some(spec) = &pod.spec else { return };
    for (path, name) in [
        ("spec.serviceAccountName", &spec.service_account_name),
        ("spec.serviceAccount", &spec.service_account),
    ] {
        if name.as_deref().is_some_and(|n| !n.is_empty()) {
            refuse(path, "serviceaccounts", problems);
        }
    }
    for index in 0..spec.image_pull_secrets.as_ref().map_or(0, Vec::len) {
        refuse(format!("spec.imagePullSecrets[{index}]"), "secrets", problems);
    }
    if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
        refuse("spec.resourceClaims", "resourceclaims", problems);
    }
    if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        problems.forbidden("spec.ephemeralContainers", "a static pod may not have ephemeral containers");
    }
    for (kind, list) in [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", &spec.containers),
    ] {
        for (index, container) in list.iter().enumerate() {
            check_container(container, &format!("spec.{kind}[{index}]"), problems);
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        check_volume(volume, &format!("spec.volumes[{index}]"), problems);
    }
}

fn refuse(path: impl Into<String>, resource: &str, problems: &mut Problems) {
    problems.forbidden(path, &format!("static pods may not reference {resource}"));
}

fn check_container(container: &Container, path: &str, problems: &mut Problems) {
    for (index, env) in container.env.iter().flatten().enumerate() {
        let Some(from) = &env.value_from else { continue };
        if from.secret_key_ref.is_some() {
            refuse(format!("{path}.env[{index}].valueFrom.secretKeyRef"), "secrets", problems);
        }
        if from.config_map_key_ref.is_some() {
            refuse(format!("{path}.env[{index}].valueFrom.configMapKeyRef"), "configmaps", problems);
        }
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        if source.secret_ref.is_some() {
            refuse(format!("{path}.envFrom[{index}].secretRef"), "secrets", problems);
        }
        if source.config_map_ref.is_some() {
            refuse(format!("{path}.envFrom[{index}].configMapRef"), "configmaps", problems);
        }
    }
}

fn check_volume(volume: &Volume, path: &str, problems: &mut Problems) {
    for (field, resource, set) in [
        ("secret", "secrets", volume.secret.is_some()),
        ("configMap", "configmaps", volume.config_map.is_some()),
        ("persistentVolumeClaim", "persistentvolumeclaims", volume.persistent_volume_claim.is_some()),
        ("ephemeral", "persistentvolumeclaims", volume.ephemeral.is_some()),
        ("glusterfs", "endpoints", volume.glusterfs.is_some()),
        ("csi", "csidrivers", volume.csi.is_some()),
        ("azureFile", "secrets", volume.azure_file.is_some()),
    ] {
        if set {
            refuse(format!("{path}.{field}"), resource, problems);
        }
    }
    for (field, set) in [
        ("cephfs", volume.cephfs.as_ref().is_some_and(|v| v.secret_ref.is_some())),
        ("cinder", volume.cinder.as_ref().is_some_and(|v| v.secret_ref.is_some())),
        ("flexVolume", volume.flex_volume.as_ref().is_some_and(|v| v.secret_ref.is_some())),
        ("iscsi", volume.iscsi.as_ref().is_some_and(|v| v.secret_ref.is_some())),
        ("rbd", volume.rbd.as_ref().is_some_and(|v| v.secret_ref.is_some())),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.as_ref().is_some_and(|v| v.secret_ref.is_some())),
    ] {
        if set {
            refuse(format!("{path}.{field}.secretRef"), "secrets", problems);
        }
    }
    for (index, source) in volume.projected.iter().filter_map(|p| p.sources.as_ref()).flatten().enumerate() {
        let path = format!("{path}.projected.sources[{index}]");
        for (field, resource, set) in [
            ("secret", "secrets", source.secret.is_some()),
            ("configMap", "configmaps", source.config_map.is_some()),
            ("serviceAccountToken", "serviceaccounts", source.service_account_token.is_some()),
            ("clusterTrustBundle", "clustertrustbundles", source.cluster_trust_bundle.is_some()),
            ("podCertificate", "podcertificaterequests", source.pod_certificate.is_some()),
        ] {
            if set {
                refuse(format!("{path}.{field}"), resource, problems);
            }
        }
    }
}
