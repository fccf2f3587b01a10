//! What a list is narrowed by. Filters compose: what is listed fits all of them.

use clap::{Args, ValueEnum};
use regex::{Regex, RegexBuilder};

use super::lookup::Inventory;
use crate::{
    api::cri::{Container, ContainerState, PodSandbox, PodSandboxState},
    error::CommandError,
};

/// Bytes that a compiled regular expression may take.
const MAX_REGEX: usize = 1 << 20;

/// `--state` of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ContainerStateArg {
    Created,
    Running,
    Exited,
    Unknown,
}

/// `--state` of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PodStateArg {
    Ready,
    #[value(name = "notready")]
    NotReady,
}

/// Which containers.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ContainerFilter {
    /// Containers in all states, not only running ones
    #[arg(short, long)]
    pub(super) all: bool,
    /// Only the container with this id, or the beginning of one
    #[arg(long, value_name = "CONTAINER")]
    id: Option<String>,
    /// Only containers with a name that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    name: Option<String>,
    /// Only containers of this pod: its id, the beginning of it, UID, or NAMESPACE/NAME
    #[arg(short, long, value_name = "POD")]
    pod: Option<String>,
    /// Only containers of pods in namespaces that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    namespace: Option<String>,
    /// Only containers of this image: a name, or the beginning of its id
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Only containers in this state
    #[arg(short, long, value_enum, ignore_case = true)]
    state: Option<ContainerStateArg>,
    /// Only containers with this label; may be repeated, and all must fit
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    label: Vec<String>,
    /// Only the newest container, in whatever state
    #[arg(short, long)]
    latest: bool,
    /// Only the N newest containers, in whatever state; 0 for all
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
}

/// Which pods.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PodFilter {
    /// Only the pod with this id or UID, or the beginning of one, or NAMESPACE/NAME
    #[arg(long, value_name = "POD")]
    id: Option<String>,
    /// Only pods with a name that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    name: Option<String>,
    /// Only pods in namespaces that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    namespace: Option<String>,
    /// Only pods in this state
    #[arg(short, long, value_enum, ignore_case = true)]
    state: Option<PodStateArg>,
    /// Only pods with this label; may be repeated, and all must fit
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    label: Vec<String>,
    /// Only the newest pod
    #[arg(short, long)]
    latest: bool,
    /// Only the N newest pods; 0 for all
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
}

/// Which containers to measure. It is [`ContainerFilter`] without the flags whose letters mean something
/// else there: `-s` is the length of a sample, `-n` a number of rounds.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct MeasuredContainers {
    /// Only the container with this id, or the beginning of one
    #[arg(long, value_name = "CONTAINER")]
    id: Option<String>,
    /// Only containers with a name that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    name: Option<String>,
    /// Only containers of this pod: its id, the beginning of it, UID, or NAMESPACE/NAME
    #[arg(short, long, value_name = "POD")]
    pod: Option<String>,
    /// Only containers of pods in namespaces that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    namespace: Option<String>,
    /// Only containers with this label; may be repeated, and all must fit
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    label: Vec<String>,
}

impl From<&MeasuredContainers> for ContainerFilter {
    fn from(args: &MeasuredContainers) -> Self {
        let MeasuredContainers { id, name, pod, namespace, label } = args.clone();
        Self { all: true, id, name, pod, namespace, label, ..Self::default() }
    }
}

/// Which pods to measure: [`PodFilter`] with the same flags left out.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct MeasuredPods {
    /// Only the pod with this id or UID, or the beginning of one, or NAMESPACE/NAME
    #[arg(long, value_name = "POD")]
    id: Option<String>,
    /// Only pods with a name that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    name: Option<String>,
    /// Only pods in namespaces that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    namespace: Option<String>,
    /// Only pods with this label; may be repeated, and all must fit
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    label: Vec<String>,
}

impl From<&MeasuredPods> for PodFilter {
    fn from(args: &MeasuredPods) -> Self {
        let MeasuredPods { id, name, namespace, label } = args.clone();
        Self { id, name, namespace, label, ..Self::default() }
    }
}

/// A filter's texts, read.
pub(super) struct Compiled {
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: Vec<(String, String)>,
}

impl Compiled {
    fn new(name: Option<&str>, namespace: Option<&str>, labels: &[String]) -> Result<Self, CommandError> {
        let labels = labels.iter().map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(CommandError::usage(format!("--label {text:?} is no KEY=VALUE"))),
        });
        Ok(Self {
            name: regex("--name", name)?,
            namespace: regex("--namespace", namespace)?,
            labels: labels.collect::<Result<_, _>>()?,
        })
    }

    fn fits<'a>(&self, name: &str, namespace: &str, label: impl Fn(&str) -> Option<&'a String>) -> bool {
        self.name.as_ref().is_none_or(|regex| regex.is_match(name))
            && self.namespace.as_ref().is_none_or(|regex| regex.is_match(namespace))
            && self.labels.iter().all(|(key, value)| label(key).is_some_and(|found| found == value))
    }
}

/// A regular expression of the command line.
pub(super) fn regex(flag: &str, text: Option<&str>) -> Result<Option<Regex>, CommandError> {
    let Some(text) = text else { return Ok(None) };
    let regex = RegexBuilder::new(text).size_limit(MAX_REGEX).build().map_err(|error| {
        // The library draws the place under the text over several lines; the last says what it is.
        let error = error.to_string();
        let what = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        CommandError::usage(format!("{flag} {text:?} is no regular expression: {what}"))
    })?;
    Ok(Some(regex))
}

/// How many of the newest: all without a limit.
fn limit(latest: bool, last: Option<usize>) -> usize {
    match (last, latest) {
        (Some(last), _) if last > 0 => last,
        (_, true) => 1,
        _ => usize::MAX,
    }
}

impl ContainerFilter {
    /// Reads the filter's texts.
    pub(super) fn compile(&self) -> Result<Compiled, CommandError> {
        Compiled::new(self.name.as_deref(), self.namespace.as_deref(), &self.label)
    }

    /// The containers that fit, newest first. `image` is the id of the image that `--image` names.
    pub(super) fn select<'a>(
        &self,
        compiled: &Compiled,
        all: &'a Inventory,
        image: Option<&str>,
    ) -> Result<Vec<&'a Container>, CommandError> {
        let pod = match &self.pod {
            None => None,
            Some(wanted) => Some(all.pod(wanted)?.id.as_str()),
        };
        let every = self.all || self.latest || self.last.is_some();
        let state = match self.state {
            Some(ContainerStateArg::Created) => Some(ContainerState::ContainerCreated),
            Some(ContainerStateArg::Running) => Some(ContainerState::ContainerRunning),
            Some(ContainerStateArg::Exited) => Some(ContainerState::ContainerExited),
            Some(ContainerStateArg::Unknown) => Some(ContainerState::ContainerUnknown),
            None if every => None,
            None => Some(ContainerState::ContainerRunning),
        };
        let mut found: Vec<&Container> = all
            .containers
            .iter()
            .filter(|container| {
                let name = container.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
                let namespace = namespace_of(container, all);
                state.is_none_or(|state| container.state == state as i32)
                    && self.id.as_ref().is_none_or(|id| container.id.starts_with(id.as_str()))
                    && pod.is_none_or(|pod| container.pod_sandbox_id == pod)
                    && (self.image.is_none() || uses(container, image))
                    && compiled.fits(name, namespace, |key| container.labels.get(key))
            })
            .collect();
        found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        found.truncate(limit(self.latest, self.last));
        Ok(found)
    }
}

/// The pod's namespace; kubelet's label for a container whose sandbox is gone.
pub(super) fn namespace_of<'a>(container: &'a Container, all: &'a Inventory) -> &'a str {
    let metadata = all.pod_of(container).and_then(|pod| pod.metadata.as_ref());
    let label = || container.labels.get("io.kubernetes.pod.namespace").map(String::as_str);
    metadata.map(|metadata| metadata.namespace.as_str()).or_else(label).unwrap_or_default()
}

fn uses(container: &Container, image: Option<&str>) -> bool {
    let spec = container.image.as_ref().map_or("", |image| image.image.as_str());
    image.is_some_and(|image| {
        [container.image_id.as_str(), container.image_ref.as_str(), spec].contains(&image)
    })
}

impl PodFilter {
    /// Reads the filter's texts.
    pub(super) fn compile(&self) -> Result<Compiled, CommandError> {
        Compiled::new(self.name.as_deref(), self.namespace.as_deref(), &self.label)
    }

    /// The pods that fit, newest first.
    pub(super) fn select<'a>(&self, compiled: &Compiled, pods: &'a [PodSandbox]) -> Vec<&'a PodSandbox> {
        let state = self.state.map(|state| match state {
            PodStateArg::Ready => PodSandboxState::SandboxReady,
            PodStateArg::NotReady => PodSandboxState::SandboxNotready,
        });
        let mut found: Vec<&PodSandbox> = pods
            .iter()
            .filter(|pod| {
                let metadata = pod.metadata.clone().unwrap_or_default();
                let full = super::lookup::full_name(Some(&metadata));
                let id = |id: &str| pod.id.starts_with(id) || metadata.uid.starts_with(id) || full == id;
                state.is_none_or(|state| pod.state == state as i32)
                    && self.id.as_deref().is_none_or(id)
                    && compiled.fits(&metadata.name, &metadata.namespace, |key| pod.labels.get(key))
            })
            .collect();
        found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        found.truncate(limit(self.latest, self.last));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{ContainerMetadata, ImageSpec, PodSandboxMetadata};

    fn inventory() -> Inventory {
        let pod = |id: &str, namespace: &str, name: &str, created_at, state: PodSandboxState| PodSandbox {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                uid: format!("u-{id}"),
                attempt: 0,
            }),
            state: state.into(),
            created_at,
            labels: [("app".to_owned(), name.to_owned())].into(),
            ..PodSandbox::default()
        };
        let container = |id: &str, pod: &str, name: &str, created_at, state: ContainerState| Container {
            id: id.to_owned(),
            pod_sandbox_id: pod.to_owned(),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: format!("img-{name}"), ..ImageSpec::default() }),
            state: state.into(),
            created_at,
            labels: [("a".to_owned(), "1".to_owned()), ("n".to_owned(), name.to_owned())].into(),
            ..Container::default()
        };
        Inventory {
            pods: vec![
                pod("p1", "kube-system", "dns", 1, PodSandboxState::SandboxReady),
                pod("p2", "default", "web", 2, PodSandboxState::SandboxReady),
                pod("p3", "default", "job", 3, PodSandboxState::SandboxNotready),
            ],
            containers: vec![
                container("c1", "p1", "dns", 1, ContainerState::ContainerRunning),
                container("c2", "p2", "web", 2, ContainerState::ContainerRunning),
                container("c3", "p2", "web-sidecar", 3, ContainerState::ContainerRunning),
                container("c4", "p3", "job", 4, ContainerState::ContainerExited),
            ],
            images: Vec::new(),
        }
    }

    fn containers(filter: &ContainerFilter, image: Option<&str>) -> Vec<String> {
        let all = inventory();
        let found = filter.select(&filter.compile().unwrap(), &all, image).unwrap();
        found.into_iter().map(|container| container.id.clone()).collect()
    }

    #[test]
    fn containers_by_each_filter_and_by_several() {
        let none = ContainerFilter::default;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(containers(&none(), None), ["c3", "c2", "c1"]);
        assert_eq!(containers(&ContainerFilter { all: true, ..none() }, None), ["c4", "c3", "c2", "c1"]);
        assert_eq!(containers(&ContainerFilter { latest: true, ..none() }, None), ["c4"]);
        assert_eq!(containers(&ContainerFilter { last: Some(2), ..none() }, None), ["c4", "c3"]);
        assert_eq!(containers(&ContainerFilter { last: Some(0), ..none() }, None).len(), 4);
        assert_eq!(containers(&ContainerFilter { name: text("^web$"), ..none() }, None), ["c2"]);
        assert_eq!(containers(&ContainerFilter { name: text("web"), ..none() }, None), ["c3", "c2"]);
        assert_eq!(containers(&ContainerFilter { namespace: text("kube"), ..none() }, None), ["c1"]);
        assert_eq!(containers(&ContainerFilter { pod: text("u-p2"), ..none() }, None), ["c3", "c2"]);
        assert_eq!(containers(&ContainerFilter { pod: text("default/web"), ..none() }, None), ["c3", "c2"]);
        assert_eq!(containers(&ContainerFilter { id: text("c2"), ..none() }, None), ["c2"]);
        let exited = Some(ContainerStateArg::Exited);
        assert_eq!(containers(&ContainerFilter { state: exited, ..none() }, None), ["c4"]);
        let label = vec!["a=1".to_owned(), "n=dns".to_owned()];
        assert_eq!(containers(&ContainerFilter { label, ..none() }, None), ["c1"]);
        let by_image = ContainerFilter { image: text("x"), ..none() };
        assert_eq!(containers(&by_image, Some("img-dns")), ["c1"]);
        assert!(containers(&by_image, None).is_empty());
        let several = ContainerFilter { name: text("web"), pod: text("p2"), latest: true, ..none() };
        assert_eq!(containers(&several, None), ["c3"]);
        let none_fits = ContainerFilter { name: text("web"), namespace: text("kube"), ..none() };
        assert!(containers(&none_fits, None).is_empty());
    }

    #[test]
    fn pods_by_each_filter_and_by_several() {
        let all = inventory();
        let select = |filter: PodFilter| -> Vec<String> {
            let compiled = filter.compile().unwrap();
            filter.select(&compiled, &all.pods).into_iter().map(|pod| pod.id.clone()).collect()
        };
        let text = |text: &str| Some(text.to_owned());
        let none = PodFilter::default;
        assert_eq!(select(none()), ["p3", "p2", "p1"]);
        assert_eq!(select(PodFilter { latest: true, ..none() }), ["p3"]);
        assert_eq!(select(PodFilter { last: Some(2), latest: true, ..none() }), ["p3", "p2"]);
        assert_eq!(select(PodFilter { name: text("^(web|dns)$"), ..none() }), ["p2", "p1"]);
        assert_eq!(select(PodFilter { state: Some(PodStateArg::NotReady), ..none() }), ["p3"]);
        assert_eq!(select(PodFilter { id: text("u-p1"), ..none() }), ["p1"]);
        assert_eq!(select(PodFilter { id: text("default/web"), ..none() }), ["p2"]);
        let label = vec!["app=web".to_owned()];
        assert_eq!(select(PodFilter { label: label.clone(), namespace: text("default"), ..none() }), ["p2"]);
        assert!(select(PodFilter { label, namespace: text("kube"), ..none() }).is_empty());
    }

    #[test]
    fn broken_filters_are_wrong_usage() {
        let name = PodFilter { name: Some("(".to_owned()), ..PodFilter::default() };
        let error = name.compile().err().unwrap();
        assert_eq!((error.kind.code(), error.to_string().lines().count()), (2, 1), "{error}");
        assert!(
            error.to_string().contains("--name \"(\" is no regular expression: unclosed group"),
            "{error}"
        );
        for label in ["x", "=y", ""] {
            let filter = PodFilter { label: vec![label.to_owned()], ..PodFilter::default() };
            assert_eq!(filter.compile().err().unwrap().kind.code(), 2);
        }
    }
}
