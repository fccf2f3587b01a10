//! What is meant by an id: the id itself or the beginning of it, a pod's UID, `NAMESPACE/NAME`. What may
//! mean several things is refused with all of them, and an id of the wrong kind with the right verb.

use crate::{
    api::cri::{Container, Image, PodSandbox, PodSandboxMetadata},
    cli::output::printable,
    error::CommandError,
};

use super::{
    images::names,
    text::{container_state, pod_state, short_id},
};

/// Candidates that are listed.
const MAX_CANDIDATES: usize = 20;

/// What the runtime has.
#[derive(Debug, Clone, Default)]
pub(super) struct Inventory {
    pub(super) pods: Vec<PodSandbox>,
    pub(super) containers: Vec<Container>,
    pub(super) images: Vec<Image>,
}

/// A pod's `NAMESPACE/NAME`.
pub(super) fn full_name(metadata: Option<&PodSandboxMetadata>) -> String {
    metadata.map(|metadata| format!("{}/{}", metadata.namespace, metadata.name)).unwrap_or_default()
}

fn uid(pod: &PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str())
}

/// How well an id or name fits what was given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Exact,
    Prefix,
}

impl Fit {
    fn of(self, text: &str, wanted: &str) -> bool {
        match self {
            Self::Exact => text == wanted,
            Self::Prefix => text.starts_with(wanted),
        }
    }
}

impl Inventory {
    /// The container's pod.
    pub(super) fn pod_of(&self, container: &Container) -> Option<&PodSandbox> {
        self.pods.iter().find(|pod| pod.id == container.pod_sandbox_id)
    }

    /// The sandbox that is meant. Of one pod's several, the ready one, else the newest.
    pub(super) fn pod(&self, wanted: &str) -> Result<&PodSandbox, CommandError> {
        not_empty(wanted)?;
        for fit in [Fit::Exact, Fit::Prefix] {
            let found = self.pods_fitting(wanted, fit);
            match found.as_slice() {
                [pod] => return Ok(pod),
                [] => {}
                several => {
                    return Err(ambiguous(wanted, several.iter().map(|pod| describe_pod(pod)).collect()));
                }
            }
            if let [container, ..] = self.containers_by_id(wanted, fit).as_slice() {
                let what = self.describe_container(container);
                return Err(wrong_kind(wanted, &what, "not a pod", "inspect"));
            }
        }
        Err(self.none("pod", wanted, "nodectl cri pods"))
    }

    /// The container that is meant. Of one container's several attempts, the newest.
    pub(super) fn container(&self, wanted: &str) -> Result<&Container, CommandError> {
        not_empty(wanted)?;
        for fit in [Fit::Exact, Fit::Prefix] {
            let found = self.containers_fitting(wanted, fit);
            match found.as_slice() {
                [container] => return Ok(container),
                [] => {}
                several => {
                    let told = several.iter().map(|container| self.describe_container(container)).collect();
                    return Err(ambiguous(wanted, told));
                }
            }
            if let Some(pod) = self.pods.iter().find(|pod| fit.of(&pod.id, wanted)) {
                return Err(wrong_kind(wanted, &describe_pod(pod), "not a container", "inspectp"));
            }
        }
        if let Some(pod) = self.pods_fitting(wanted, Fit::Exact).first() {
            let text = format!("the {} has no container", describe_pod(pod));
            return Err(CommandError::failed(text).hint("`nodectl cri inspectp` shows the pod itself"));
        }
        Err(self.none("container", wanted, "nodectl cri ps -a"))
    }

    /// [`Self::pod`] for what changes it: an id or UID may be shortened, a name must be whole. A name that is
    /// the beginning of one pod's today is that of another one's tomorrow.
    pub(super) fn pod_to_change(&self, wanted: &str) -> Result<&PodSandbox, CommandError> {
        let pod = self.pod(wanted)?;
        let name = full_name(pod.metadata.as_ref());
        if wanted.contains('/') && wanted != name { Err(not_whole("pod", wanted, &name)) } else { Ok(pod) }
    }

    /// [`Self::container`] for what changes it; see [`Self::pod_to_change`].
    pub(super) fn container_to_change(&self, wanted: &str) -> Result<&Container, CommandError> {
        let container = self.container(wanted)?;
        let pod = self.pod_of(container).map(|pod| full_name(pod.metadata.as_ref())).unwrap_or_default();
        let name = format!("{pod}/{}", container_name(container));
        if wanted.contains('/') && wanted != name && wanted != pod {
            return Err(not_whole("container", wanted, &name));
        }
        Ok(container)
    }

    fn pods_fitting(&self, wanted: &str, fit: Fit) -> Vec<&PodSandbox> {
        let mut found: Vec<&PodSandbox> = self.pods.iter().filter(|pod| fit.of(&pod.id, wanted)).collect();
        // Each pod that fits by its UID or name, by the one of its sandboxes that counts.
        let mut named: Vec<&PodSandbox> = self
            .pods
            .iter()
            .filter(|pod| {
                let name = full_name(pod.metadata.as_ref());
                (!uid(pod).is_empty() && fit.of(uid(pod), wanted))
                    // The beginning of a namespace would fit all in it.
                    || (wanted.contains('/') && fit.of(&name, wanted))
            })
            .collect();
        named.sort_by_key(|pod| (pod.state, std::cmp::Reverse(pod.created_at)));
        let mut seen: Vec<(String, Option<&str>)> = Vec::new();
        for pod in named {
            // A pod that is gone and its successor share the name: the ready one is meant. Two that are
            // ready are two.
            let name = full_name(pod.metadata.as_ref());
            let ready = pod.state == crate::api::cri::PodSandboxState::SandboxReady as i32;
            let known = seen.iter().any(|(n, u)| *n == name && (!ready || *u == Some(uid(pod))));
            if !known && !found.iter().any(|other| other.id == pod.id) {
                found.push(pod);
            }
            seen.push((name, Some(uid(pod))));
        }
        found
    }

    fn containers_by_id(&self, wanted: &str, fit: Fit) -> Vec<&Container> {
        self.containers.iter().filter(|container| fit.of(&container.id, wanted)).collect()
    }

    fn containers_fitting(&self, wanted: &str, fit: Fit) -> Vec<&Container> {
        let mut found = self.containers_by_id(wanted, fit);
        let mut named: Vec<&Container> = self
            .containers
            .iter()
            .filter(|container| {
                let Some(pod) = self.pod_of(container) else { return false };
                let name = full_name(pod.metadata.as_ref());
                let pod_fits = !uid(pod).is_empty() && fit.of(uid(pod), wanted);
                let whole = format!("{name}/{}", container_name(container));
                pod_fits || (wanted.contains('/') && (fit.of(&name, wanted) || fit.of(&whole, wanted)))
            })
            .collect();
        named.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        let mut seen: Vec<(String, &str)> = Vec::new();
        for container in named {
            let pod = self.pod_of(container).map(|pod| full_name(pod.metadata.as_ref())).unwrap_or_default();
            let key = (pod, container_name(container));
            if !seen.contains(&key) && !found.iter().any(|other| other.id == container.id) {
                found.push(container);
            }
            seen.push(key);
        }
        found
    }

    fn describe_container(&self, container: &Container) -> String {
        let of = self.pod_of(container).map(|pod| format!(" of pod {}", full_name(pod.metadata.as_ref())));
        let name = container_name(container);
        let state = container_state(container.state);
        format!("container {} ({name}{}, {state})", short_id(&container.id), of.unwrap_or_default())
    }

    /// The image, by its id or the beginning of it, or one of its names.
    pub(super) fn image(&self, wanted: &str) -> Result<Option<&Image>, CommandError> {
        not_empty(wanted)?;
        let bare = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let named = |image: &&Image| names(image).any(|n| n == wanted);
        let by_id =
            |image: &&Image, fit: Fit| fit.of(image.id.strip_prefix("sha256:").unwrap_or(&image.id), bare);
        if let Some(image) = self.images.iter().find(|image| by_id(image, Fit::Exact) || named(image)) {
            return Ok(Some(image));
        }
        let found: Vec<&Image> = self.images.iter().filter(|image| by_id(image, Fit::Prefix)).collect();
        match found.as_slice() {
            [] => Ok(None),
            [image] => Ok(Some(image)),
            several => Err(ambiguous(wanted, several.iter().map(|image| describe_image(image)).collect())),
        }
    }

    /// There is nothing of this kind with this id; perhaps of another.
    pub(super) fn none(&self, kind: &str, wanted: &str, list: &str) -> CommandError {
        // A few letters fit some image by chance.
        let image = if wanted.len() >= 3 { self.image(wanted).ok().flatten() } else { None };
        if let Some(image) = image.filter(|_| kind != "image") {
            return wrong_kind(wanted, &describe_image(image), &format!("not a {kind}"), "inspecti");
        }
        let text = printable(&format!("there is no {kind} {wanted:?}"));
        CommandError::failed(text).hint(format!("`{list}` lists all"))
    }

    /// Nothing is an image of this name; says so if it is something else's id.
    pub(super) fn no_image(&self, wanted: &str) -> CommandError {
        for fit in [Fit::Exact, Fit::Prefix] {
            if let [container, ..] = self.containers_by_id(wanted, fit).as_slice() {
                return wrong_kind(wanted, &self.describe_container(container), "not an image", "inspect");
            }
            if let Some(pod) = self.pods.iter().find(|pod| fit.of(&pod.id, wanted)) {
                return wrong_kind(wanted, &describe_pod(pod), "not an image", "inspectp");
            }
        }
        self.none("image", wanted, "nodectl cri images")
    }
}

fn container_name(container: &Container) -> &str {
    container.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

fn describe_pod(pod: &PodSandbox) -> String {
    let name = full_name(pod.metadata.as_ref());
    format!("pod {} ({name}, {})", short_id(&pod.id), pod_state(pod.state))
}

fn describe_image(image: &Image) -> String {
    let name = image.repo_tags.first().or(image.repo_digests.first());
    format!("image {} ({})", short_id(&image.id), name.map_or("<none>", String::as_str))
}

fn not_empty(wanted: &str) -> Result<(), CommandError> {
    if wanted.is_empty() { Err(CommandError::usage("an id is empty")) } else { Ok(()) }
}

fn not_whole(kind: &str, wanted: &str, name: &str) -> CommandError {
    CommandError::failed(printable(&format!("there is no {kind} {wanted:?}")))
        .hint(printable(&format!("did you mean {name}? What changes something takes whole names")))
}

fn wrong_kind(wanted: &str, what: &str, not: &str, verb: &str) -> CommandError {
    let text = printable(&format!("{wanted} is the {what}, {not}"));
    CommandError::failed(text).hint(format!("use `nodectl cri {verb}`"))
}

fn ambiguous(wanted: &str, mut candidates: Vec<String>) -> CommandError {
    let count = candidates.len();
    candidates.sort();
    candidates.truncate(MAX_CANDIDATES);
    let mut lines: Vec<String> = candidates.iter().map(|line| printable(line)).collect();
    if count > MAX_CANDIDATES {
        lines.push(format!("and {} more", count - MAX_CANDIDATES));
    }
    let wanted = printable(wanted);
    CommandError::failed(format!("{wanted:?} may be one of {count}:\n  {}", lines.join("\n  ")))
        .hint("give more of the id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{ContainerMetadata, ContainerState, PodSandboxState};

    fn pod(id: &str, name: &str, uid: &str, created_at: i64, ready: bool) -> PodSandbox {
        let state = if ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready };
        PodSandbox {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                namespace: "ns".to_owned(),
                uid: uid.to_owned(),
                attempt: 0,
            }),
            state: state.into(),
            created_at,
            ..PodSandbox::default()
        }
    }

    fn container(id: &str, pod: &str, name: &str, created_at: i64) -> Container {
        Container {
            id: id.to_owned(),
            pod_sandbox_id: pod.to_owned(),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            state: ContainerState::ContainerRunning.into(),
            created_at,
            ..Container::default()
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            pods: vec![
                pod("aa11", "web", "uid-web", 2, true),
                pod("ab22", "web", "uid-web", 1, false),
                pod("cc33", "db", "uid-db", 3, true),
                pod("dd44", "old", "uid-old-1", 1, false),
                pod("dd55", "old", "uid-old-2", 2, false),
                pod("ee66", "empty", "uid-empty", 2, true),
            ],
            containers: vec![
                container("f0a1", "aa11", "nginx", 5),
                container("f0a0", "ab22", "nginx", 4),
                container("f1b2", "cc33", "pg", 5),
                container("f1c3", "cc33", "backup", 5),
            ],
            images: vec![
                Image { id: "sha256:9a9a".into(), repo_tags: vec!["x/web:1".into()], ..Image::default() },
                Image {
                    id: "sha256:9b9b".into(),
                    repo_digests: vec!["x/db@sha256:77".into()],
                    ..Image::default()
                },
            ],
        }
    }

    #[test]
    fn pods_by_id_uid_name_and_beginnings() {
        let all = inventory();
        for (wanted, id) in [
            ("aa11", "aa11"),
            ("aa", "aa11"),
            ("ab22", "ab22"),
            ("uid-web", "aa11"),
            ("uid-d", "cc33"),
            ("ns/web", "aa11"),
            ("ns/d", "cc33"),
            ("ns/old", "dd55"),
            ("uid-old-1", "dd44"),
        ] {
            assert_eq!(all.pod(wanted).unwrap().id, id, "{wanted}");
        }
    }

    #[test]
    fn what_changes_something_takes_whole_names() {
        let all = inventory();
        for (wanted, id) in [("aa", "aa11"), ("uid-d", "cc33"), ("ns/web", "aa11")] {
            assert_eq!(all.pod_to_change(wanted).unwrap().id, id, "{wanted}");
        }
        for (wanted, id) in [("f1b", "f1b2"), ("ns/web", "f0a1"), ("ns/cc", ""), ("ns/db/pg", "f1b2")] {
            match all.container_to_change(wanted) {
                Ok(container) => assert_eq!(container.id, id, "{wanted}"),
                Err(error) => assert!(id.is_empty(), "{wanted}: {error}"),
            }
        }
        let error = all.pod_to_change("ns/d").unwrap_err().to_string();
        assert!(error.starts_with("there is no pod \"ns/d\"\nhint: did you mean ns/db?"), "{error}");
        let error = all.container_to_change("ns/db/p").unwrap_err().to_string();
        assert!(error.contains("did you mean ns/db/pg?"), "{error}");
    }

    #[test]
    fn containers_by_id_pod_and_name() {
        let all = inventory();
        for (wanted, id) in [
            ("f0a0", "f0a0"),
            ("f1b", "f1b2"),
            ("uid-web", "f0a1"),
            ("ns/web", "f0a1"),
            ("ns/db/pg", "f1b2"),
            ("ns/db/b", "f1c3"),
        ] {
            assert_eq!(all.container(wanted).unwrap().id, id, "{wanted}");
        }
    }

    #[test]
    fn what_is_not_one_thing_is_said() {
        let all = inventory();
        let pod = |wanted: &str| all.pod(wanted).unwrap_err().to_string();
        let container = |wanted: &str| all.container(wanted).unwrap_err().to_string();
        assert_eq!(
            pod("a"),
            "\"a\" may be one of 2:\n  pod aa11 (ns/web, Ready)\n  pod ab22 (ns/web, NotReady)\n\
             hint: give more of the id"
        );
        assert_eq!(
            container("ns/db"),
            "\"ns/db\" may be one of 2:\n  container f1b2 (pg of pod ns/db, Running)\n  \
             container f1c3 (backup of pod ns/db, Running)\nhint: give more of the id"
        );
        assert_eq!(
            container("cc3"),
            "cc3 is the pod cc33 (ns/db, Ready), not a container\nhint: use `nodectl cri inspectp`"
        );
        assert_eq!(
            pod("f1b"),
            "f1b is the container f1b2 (pg of pod ns/db, Running), not a pod\nhint: use `nodectl cri inspect`"
        );
        assert!(pod("9a9").starts_with("9a9 is the image 9a9a (x/web:1), not a pod"), "{}", pod("9a9"));
        assert_eq!(pod("zz"), "there is no pod \"zz\"\nhint: `nodectl cri pods` lists all");
        assert!(container("uid-empty").contains("has no container"), "{}", container("uid-empty"));
        assert_eq!(all.pod("").unwrap_err().kind.code(), 2);
        assert_eq!(all.pod("zz").unwrap_err().kind.code(), 1);
    }

    #[test]
    fn images_by_id_and_name() {
        let all = inventory();
        for wanted in ["sha256:9a9a", "9a9a", "9a", "sha256:9a", "x/web:1"] {
            assert_eq!(all.image(wanted).unwrap().unwrap().id, "sha256:9a9a", "{wanted}");
        }
        assert_eq!(all.image("x/db@sha256:77").unwrap().unwrap().id, "sha256:9b9b");
        assert!(all.image("9").unwrap_err().to_string().contains("image 9a9a (x/web:1)"));
        assert_eq!(all.image("nope").unwrap(), None);
        assert!(all.no_image("f1b2").to_string().contains("not an image\nhint: use `nodectl cri inspect`"));
        assert!(all.no_image("nope").to_string().starts_with("there is no image \"nope\""));
    }
}
