//! Mirror pods: what the API server has of a static pod, so that it is seen and counted there. As kubelet makes them
//! (pkg/kubelet/pod/mirror_client.go), since the server lets a node make no other pods (admission plugin NodeRestriction).

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::api::{PodExt as _, labels};

/// The mirror of a static pod; the node is its owner, so that it goes with the node.
pub(super) fn mirror_of(pod: &Pod, node_name: &str, node: &Node) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(labels::CONFIG_MIRROR.to_owned(), mark(pod).to_owned());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let metadata = ObjectMeta {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        labels: pod.metadata.labels.clone(),
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let mut spec = pod.spec.clone().unwrap_or_default();
    spec.node_name = Some(node_name.to_owned());
    Pod { metadata, spec: Some(spec), status: None }
}

/// Whether a mirror is that of this static pod as it is now.
pub(super) fn is_of(mirror: &Pod, pod: &Pod) -> bool {
    mirror.annotation(labels::CONFIG_MIRROR) == Some(mark(pod))
}

/// Whether a pod of the API server is a mirror.
pub(super) fn is_mirror(pod: &Pod) -> bool {
    pod.annotation(labels::CONFIG_MIRROR).is_some()
}

fn mark(pod: &Pod) -> &str {
    pod.annotation(labels::CONFIG_HASH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_mirror_is_what_a_node_may_make() {
        let pod: Pod = from_value(json!({
            "metadata": {
                "name": "web-n1", "namespace": "default", "uid": "abc", "labels": { "app": "web" },
                "annotations": { "kubernetes.io/config.hash": "abc", "kubernetes.io/config.source": "file" },
            },
            "spec": { "containers": [{ "name": "main", "image": "web" }] },
        }))
        .unwrap();
        let node: Node = from_value(json!({ "metadata": { "name": "N1", "uid": "node-uid" } })).unwrap();
        let mirror = mirror_of(&pod, "N1", &node);
        assert_eq!(
            serde_json::to_value(&mirror).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web-n1", "namespace": "default", "labels": { "app": "web" },
                    "annotations": {
                        "kubernetes.io/config.hash": "abc", "kubernetes.io/config.mirror": "abc",
                        "kubernetes.io/config.source": "file",
                    },
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Node", "name": "N1", "uid": "node-uid", "controller": true,
                    }],
                },
                "spec": { "containers": [{ "name": "main", "image": "web" }], "nodeName": "N1" },
            })
        );
        assert!(is_of(&mirror, &pod));
        let mut edited = pod;
        edited
            .metadata
            .annotations
            .get_or_insert_default()
            .insert("kubernetes.io/config.hash".into(), "b".into());
        assert!(!is_of(&mirror, &edited));
    }
}
