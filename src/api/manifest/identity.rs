//! From a manifest to the static pod that this node runs: its UID, its name, its annotations.
//!
//! All as kubelet does it, so that tools which look for static pods by these marks find them; only
//! the UID of a manifest that gives none is computed otherwise (see [`crate::api::uid_hash`]).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};

use super::{FieldProblem, ManifestError, ParsedPod, cautions::cautions, unsupported};
use crate::api::uid_hash::{HashOrigin, static_pod_uid};
use crate::api::{defaults, labels, validation};

/// What a static pod gets from its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The node's name as configured; the pod's name gets it in lower case.
    pub node_name: &'a str,
    /// The file or URL that the manifest was read from.
    pub origin: HashOrigin<'a>,
    /// When it was read, for the annotation.
    pub seen: Timestamp,
}

/// A pod that is ready to run, and what to tell about it.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticPod {
    /// With defaults, UID, name suffix and annotations; validated.
    pub pod: Pod,
    /// Fields that are ignored, legitimately, but not in silence.
    pub warnings: Vec<FieldProblem>,
}

/// Makes the static pod that a parsed manifest describes.
///
/// # Errors
/// [`ManifestError::Fields`] with everything that an API server or kubelet would refuse, and every
/// field that is not supported yet.
pub fn make_static_pod(parsed: &ParsedPod, identity: &Identity<'_>) -> Result<StaticPod, ManifestError> {
    let mut pod = parsed.pod.clone();
    defaults::set_pod_defaults(&mut pod);
    let support = unsupported::check_support(&pod);
    let mut warnings = support.warnings;
    warnings.extend(cautions(&pod));
    if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref())
        && node != identity.node_name
    {
        warnings.push(FieldProblem::new(
            "spec.nodeName",
            format!("ignored: a static pod runs on the node that reads it, {}", identity.node_name),
        ));
    }
    identify(&mut pod, &parsed.document.canonical(), identity);
    let mut problems = validation::validate_static_pod(&pod);
    // What is invalid is told as such; that it would not be supported either is no news.
    let known = problems.len();
    for refused in support.refused {
        let told = problems[..known].iter().any(|p| p.path.starts_with(&refused.path));
        if !told {
            problems.push(refused);
        }
    }
    if problems.is_empty() {
        Ok(StaticPod { pod, warnings: parsed.locate(warnings) })
    } else {
        Err(ManifestError::Fields(parsed.locate(problems)))
    }
}

fn identify(pod: &mut Pod, canonical: &str, identity: &Identity<'_>) {
    let from_file = matches!(identity.origin, HashOrigin::File(_));
    let meta = &mut pod.metadata;
    let uid = match meta.uid.take() {
        Some(uid) if !uid.is_empty() => uid,
        _ => static_pod_uid(canonical, identity.node_name, identity.origin),
    };
    if let Some(name) = meta.name.as_mut().filter(|n| !n.is_empty()) {
        name.push('-');
        name.push_str(&identity.node_name.to_lowercase());
    }
    if meta.namespace.as_deref().unwrap_or_default().is_empty() {
        meta.namespace = Some("default".to_owned());
    }
    // What only an API server may set would be read as its word: a deletion time as "terminate".
    meta.resource_version = None;
    meta.self_link = None;
    meta.generation = None;
    meta.generate_name = None;
    meta.creation_timestamp = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.managed_fields = None;
    meta.owner_references = None;
    meta.finalizers = None;
    let annotations = meta.annotations.get_or_insert_default();
    annotations.remove(labels::CONFIG_MIRROR);
    annotations.insert(labels::CONFIG_HASH.to_owned(), uid.clone());
    annotations.insert(labels::CONFIG_SOURCE.to_owned(), if from_file { "file" } else { "http" }.to_owned());
    annotations.insert(labels::CONFIG_SEEN.to_owned(), identity.seen.to_string());
    meta.uid = Some(uid);
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(identity.node_name.to_owned());
        if from_file {
            tolerate_everything(spec.tolerations.get_or_insert_default());
        }
    }
}

/// A static pod from a file is not evicted by a taint, whatever is wrong with the node.
fn tolerate_everything(tolerations: &mut Vec<Toleration>) {
    let all = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let same = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() } == all;
    match tolerations.iter_mut().find(|t| same(t)) {
        Some(given) => given.toleration_seconds = None,
        None => tolerations.push(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::manifest::{Shape, parse};

    fn identity(origin: HashOrigin<'static>) -> Identity<'static> {
        Identity { node_name: "Node-1", origin, seen: "2026-01-02T03:04:05.678901234Z".parse().unwrap() }
    }

    fn make(text: &str, origin: HashOrigin<'static>) -> Result<StaticPod, String> {
        let parsed = parse(text.as_bytes(), Shape::Pod).unwrap().remove(0);
        make_static_pod(&parsed, &identity(origin)).map_err(|e| e.to_string())
    }

    const FILE: HashOrigin<'static> = HashOrigin::File("/m/a.yaml");
    const SMALL: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn a_file_makes_a_static_pod_as_kubelet_does() {
        let StaticPod { pod, warnings } = make(SMALL, FILE).unwrap();
        assert_eq!(warnings, vec![]);
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let uid = pod.metadata.uid.clone().unwrap();
        assert_eq!(uid.len(), 32);
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(annotations[labels::CONFIG_HASH], uid);
        assert_eq!(annotations[labels::CONFIG_SOURCE], "file");
        assert_eq!(annotations[labels::CONFIG_SEEN], "2026-01-02T03:04:05.678901234Z");
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
        assert_eq!(spec.tolerations.unwrap().len(), 1);
        assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    }

    #[test]
    fn a_url_differs_in_source_uid_and_tolerations() {
        let file = make(SMALL, FILE).unwrap().pod;
        let url = make(SMALL, HashOrigin::Url("http://x/")).unwrap().pod;
        assert_eq!(url.metadata.annotations.as_ref().unwrap()[labels::CONFIG_SOURCE], "http");
        assert_eq!(url.spec.unwrap().tolerations, None);
        assert_ne!(file.metadata.uid, url.metadata.uid);
    }

    #[test]
    fn a_given_uid_is_kept_if_it_is_harmless() {
        let pod = make(&SMALL.replace("name: web", "name: web, uid: 0a-1"), FILE).unwrap().pod;
        assert_eq!(pod.metadata.uid.as_deref(), Some("0a-1"));
        for uid in ["../../etc", "a/b", "..", "."] {
            let message =
                make(&SMALL.replace("name: web", &format!("name: web, uid: {uid}")), FILE).unwrap_err();
            assert!(message.starts_with("metadata.uid: Invalid value"), "{message}");
            assert!(message.ends_with("(line 3)"), "{message}");
        }
    }

    #[test]
    fn marks_of_an_api_server_are_removed_and_told() {
        let text = SMALL.replace(
            "name: web",
            "name: web, deletionTimestamp: 2026-01-01T00:00:00Z, resourceVersion: '5', annotations: {kubernetes.io/config.mirror: x, a: b}",
        );
        let made = make(&text, FILE).unwrap();
        assert_eq!(made.pod.metadata.deletion_timestamp, None);
        assert_eq!(made.pod.metadata.resource_version, None);
        let annotations = made.pod.metadata.annotations.unwrap();
        assert_eq!(annotations.get(labels::CONFIG_MIRROR), None);
        assert_eq!(annotations["a"], "b");
        let told: Vec<&str> = made.warnings.iter().map(|w| w.path.as_str()).collect();
        assert_eq!(told, ["metadata.deletionTimestamp"]);
    }

    #[test]
    fn another_node_and_a_missing_name_are_told() {
        let made = make(&SMALL.replace("spec: {", "spec: {nodeName: other, "), FILE).unwrap();
        assert_eq!(made.warnings[0].path, "spec.nodeName");
        assert_eq!(made.warnings[0].line, Some(4));
        let message = make(&SMALL.replace("name: web", "labels: {}"), FILE).unwrap_err();
        assert_eq!(message, "metadata.name: Required value: name is needed for the pod (line 3)");
    }

    #[test]
    fn an_existing_toleration_is_not_doubled() {
        let text = SMALL.replace(
            "spec: {",
            "spec: {tolerations: [{operator: Exists, effect: NoExecute, tolerationSeconds: 5}], ",
        );
        let tolerations = make(&text, FILE).unwrap().pod.spec.unwrap().tolerations.unwrap();
        assert_eq!(tolerations.len(), 1);
        assert_eq!(tolerations[0].toleration_seconds, None);
    }
}
