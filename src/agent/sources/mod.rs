//! Where pods come from: a manifest folder ([`file`]), a URL ([`http`]), and the API server ([`api`]).
//!
//! Each source is one task that publishes, on a `watch` channel, everything it knows: the pods, and
//! what is wrong. A reader always sees the latest state and can never be behind, and a source can
//! never be held up by its reader.
//!
//! Two rules protect running pods. A source that cannot be reached publishes no pods as gone: until
//! it was read once, [`SourceSnapshot::delivered`] is false, and after that the pods it last gave
//! stay. And a manifest that is broken *now* does not end the pod that it described before; only
//! removing the file does.

pub mod api;
mod client;
pub mod file;
#[cfg(test)]
mod file_tests;
mod folder;
pub mod http;
#[cfg(test)]
mod http_tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::api::labels;
use crate::api::manifest::{FieldProblem, ParsedPod, StaticPod};
use crate::api::manifest::{Identity, ManifestError, make_static_pod};
use crate::api::uid_hash::HashOrigin;

/// Gives the time of day for the `kubernetes.io/config.seen` annotation.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The kinds of source, by kubelet's names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodSource {
    /// The manifest folder (or single file).
    File,
    /// The manifest URL.
    Http,
    /// The API server.
    Api,
}

impl fmt::Display for PodSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Api => "api",
        })
    }
}

/// Something that an operator should know about one manifest, or about the source as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceProblem {
    /// The path or URL (without its query and credentials) that it is about.
    pub origin: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Everything that a source knows at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSnapshot {
    /// Which source this is.
    pub source: PodSource,
    /// Whether the source has been read at all. While it has not, `pods` says nothing.
    pub delivered: bool,
    /// Whether there is a manifest that was there when the agent started and could not be read
    /// since. It may describe a pod that runs from before the restart, so pods that are running
    /// but not listed here must be left alone.
    pub incomplete: bool,
    /// Whether the pods are those of an earlier agent, and the source was not read since.
    pub offline: bool,
    /// The pods, at most one for each UID and each name, in the order of their origins.
    pub pods: Vec<Arc<Pod>>,
    /// What keeps a manifest, or the whole source, from being honoured.
    pub problems: Vec<SourceProblem>,
    /// What is ignored of manifests that are honoured.
    pub warnings: Vec<SourceProblem>,
}

impl SourceSnapshot {
    /// What is known before the first read: nothing.
    pub fn unknown(source: PodSource) -> Self {
        Self {
            source,
            delivered: false,
            incomplete: false,
            offline: false,
            pods: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// A static pod as the sources keep it.
#[derive(Clone, Debug)]
struct KeptPod {
    pod: Arc<Pod>,
    warnings: Vec<String>,
}

impl KeptPod {
    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn full_name(&self) -> String {
        let meta = &self.pod.metadata;
        format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        )
    }
}

/// Makes the pod of a manifest; `before` are the pods that the same origin gave last.
///
/// A pod that was known under its UID keeps the time when it was first seen, and its `Arc` where
/// nothing else changed either.
fn keep(
    parsed: &ParsedPod,
    origin: HashOrigin<'_>,
    node_name: &str,
    now: Timestamp,
    before: &[KeptPod],
) -> Result<KeptPod, ManifestError> {
    let identity = Identity { node_name, origin, seen: now };
    let StaticPod { mut pod, warnings } = make_static_pod(parsed, &identity)?;
    let warnings = warnings.iter().map(FieldProblem::to_string).collect();
    let known = before.iter().find(|k| k.pod.metadata.uid == pod.metadata.uid);
    if let Some(known) = known {
        let seen = known.pod.metadata.annotations.as_ref().and_then(|a| a.get(labels::CONFIG_SEEN));
        if let (Some(seen), Some(annotations)) = (seen, &mut pod.metadata.annotations) {
            annotations.insert(labels::CONFIG_SEEN.to_owned(), seen.clone());
        }
        if *known.pod == pod {
            return Ok(KeptPod { pod: Arc::clone(&known.pod), warnings });
        }
    }
    Ok(KeptPod { pod: Arc::new(pod), warnings })
}

/// Puts the pods of several origins together. Of two with one UID or one name the first is taken,
/// and the other is a problem that names both.
fn assemble<'k>(kept: impl Iterator<Item = (String, &'k KeptPod)>, snapshot: &mut SourceSnapshot) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut uids: BTreeMap<&str, String> = BTreeMap::new();
    for (origin, kept) in kept {
        let name = kept.full_name();
        let clash = match (names.get(&name), uids.get(kept.uid())) {
            (Some(first), _) => Some(format!("pod {name} is already given by {first}")),
            (None, Some(first)) => {
                Some(format!("pod {name} has the uid {} of the pod in {first}", kept.uid()))
            }
            (None, None) => None,
        };
        if let Some(message) = clash {
            snapshot.problems.push(SourceProblem { origin, message: format!("{message}, which is kept") });
            continue;
        }
        for warning in &kept.warnings {
            snapshot.warnings.push(SourceProblem { origin: origin.clone(), message: warning.clone() });
        }
        snapshot.pods.push(Arc::clone(&kept.pod));
        names.insert(name, origin.clone());
        uids.insert(kept.uid(), origin);
    }
}

/// The sending end: publishes what changed, and logs problems when they come and go.
#[derive(Debug)]
struct Publisher {
    sender: watch::Sender<Arc<SourceSnapshot>>,
}

impl Publisher {
    fn new(source: PodSource) -> (Self, watch::Receiver<Arc<SourceSnapshot>>) {
        let (sender, receiver) = watch::channel(Arc::new(SourceSnapshot::unknown(source)));
        (Self { sender }, receiver)
    }

    fn publish(&self, snapshot: SourceSnapshot) {
        self.sender.send_if_modified(|current| {
            if **current == snapshot {
                return false;
            }
            let source = snapshot.source;
            for new in snapshot.problems.iter().filter(|p| !current.problems.contains(p)) {
                tracing::warn!(%source, origin = new.origin, "{}", new.message);
            }
            for new in snapshot.warnings.iter().filter(|p| !current.warnings.contains(p)) {
                tracing::warn!(%source, origin = new.origin, "{}", new.message);
            }
            for gone in current.problems.iter().filter(|p| !snapshot.problems.contains(p)) {
                tracing::info!(%source, origin = gone.origin, "no longer: {}", gone.message);
            }
            if !current.delivered && snapshot.delivered {
                tracing::info!(%source, pods = snapshot.pods.len(), "pod source delivered for the first time");
            }
            *current = Arc::new(snapshot);
            true
        });
    }
}
