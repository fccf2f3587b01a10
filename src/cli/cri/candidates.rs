//! What a shell offers for the arguments of `nodectl cri` when Tab is pressed: the containers, pods and images
//! that are there at that moment.
//!
//! An argument gets its candidates by its value name: one that is declared with `value_name = "CONTAINER"`,
//! `"POD"` or `"IMAGE"`, positional or not, in whatever verb, needs nothing more. Which states make sense for a
//! verb is in [`container_state`] and [`pod_state`].
//!
//! A runtime that is dead or slow offers nothing, within [`LIMIT`], and nothing is ever said about it: the
//! words would land in the user's prompt.

use std::{
    ffi::{OsStr, OsString},
    sync::Arc,
    time::Duration,
};

use clap::{ArgMatches, Command, FromArgMatches as _, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, ValueCompleter};

use super::{
    config_file::KEYS,
    images::names,
    lookup::{Inventory, full_name},
    past, session,
    text::{self, short_id},
};
use crate::{
    api::cri::{ContainerState, PodSandboxState},
    cli::{complete::FILES, output::printable},
    cri::Cri as _,
};

/// How long all of it may take. Who presses Tab waits that long when the runtime hangs.
const LIMIT: Duration = Duration::from_millis(800);

/// A shell asks before it lists more than some hundred.
const MAX: usize = 1000;

/// What an argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Pod,
    Image,
    Format,
    Setting,
    Past,
    /// The shell completes names of files.
    File,
    Nothing,
}

/// By the value name; `hint` is what clap knows of its type.
fn kind(verb: &str, name: &str, hint: ValueHint) -> Kind {
    match name {
        "CONTAINER" => Kind::Container,
        "POD" => Kind::Pod,
        "IMAGE" => Kind::Image,
        "FORMAT" => Kind::Format,
        "KEY" => Kind::Setting,
        "NAME" if verb == "runtimes" => Kind::Past,
        "ENDPOINT" | "CONTAINER-CONFIG" | "POD-CONFIG" => Kind::File,
        _ if matches!(hint, ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath) => Kind::File,
        _ => Kind::Nothing,
    }
}

/// The state of the containers that a verb can do something with; `None` for all.
fn container_state(verb: &str) -> Option<ContainerState> {
    match verb {
        "attach" | "checkpoint" | "exec" | "stats" | "stop" | "update" => {
            Some(ContainerState::ContainerRunning)
        }
        "start" => Some(ContainerState::ContainerCreated),
        _ => None,
    }
}

/// The same for pods.
fn pod_state(verb: &str) -> Option<PodSandboxState> {
    match verb {
        "create" | "port-forward" | "statsp" | "stopp" => Some(PodSandboxState::SandboxReady),
        _ => None,
    }
}

/// Gives the arguments of `nodectl cri` and of its verbs their candidates. `words` are what stands on the
/// command line before: the runtime's endpoint may be among them.
pub(crate) fn attach(cri: Command, words: &Arc<[OsString]>) -> Command {
    let to_arguments = |command: Command| {
        let verb = command.get_name().to_owned();
        command.mut_args(|argument| {
            let names = argument.get_value_names().unwrap_or_default().iter();
            let kinds: Vec<Kind> = names.map(|name| kind(&verb, name, argument.get_value_hint())).collect();
            if kinds.iter().all(|kind| *kind == Kind::Nothing) {
                return argument;
            }
            argument.add(ArgValueCompleter::new(Completer {
                kinds,
                verb: verb.clone(),
                words: Arc::clone(words),
            }))
        })
    };
    to_arguments(cri).mut_subcommands(to_arguments)
}

/// The candidates of one argument.
struct Completer {
    /// Of each of its values; the last is that of all that follow.
    kinds: Vec<Kind>,
    verb: String,
    words: Arc<[OsString]>,
}

impl ValueCompleter for Completer {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        self.complete_at(0, current)
    }

    fn complete_at(&self, index: usize, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else { return Vec::new() };
        let Some(kind) = self.kinds.get(index.min(self.kinds.len().saturating_sub(1))) else {
            return Vec::new();
        };
        let fixed =
            |words: Vec<&str>| words.into_iter().map(|word| (word.to_owned(), String::new())).collect();
        let found: Vec<(String, String)> = match kind {
            Kind::Nothing => return Vec::new(),
            Kind::File => return vec![CompletionCandidate::new(FILES)],
            Kind::Format => fixed(vec!["table", "json", "yaml", "go-template"]),
            Kind::Setting => fixed(KEYS.map(|(key, _)| key).to_vec()),
            Kind::Past => fixed(past::ALL.iter().map(|past| past.aliases[0]).collect()),
            Kind::Container | Kind::Pod | Kind::Image => self.live(*kind, current).unwrap_or_default(),
        };
        let fits = found.into_iter().filter(|(value, _)| value.starts_with(current) && is_plain(value));
        fits.take(MAX)
            .map(|(value, help)| {
                let help = (!help.is_empty()).then(|| printable(&help).into());
                CompletionCandidate::new(value).help(help)
            })
            .collect()
    }
}

/// Nothing that means something to any shell: what a runtime tells is put on root's command line.
fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/:@-".contains(c);
    !word.is_empty() && !word.starts_with('-') && word.chars().all(plain)
}

impl Completer {
    /// Asks the runtime that the command line means.
    fn live(&self, kind: Kind, current: &str) -> Option<Vec<(String, String)>> {
        let matches = self.matches()?;
        let args = session::GlobalArgs::from_arg_matches(&matches).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let asked = async {
            let cri = session::in_passing(&args, &matches, LIMIT / 2).await?;
            let mut all = Inventory::default();
            if kind == Kind::Image {
                all.images = cri.list_images(None).await.ok()?;
            } else {
                let (pods, containers) =
                    tokio::join!(cri.list_pod_sandboxes(None), cri.list_containers(None));
                (all.pods, all.containers) = (pods.ok()?, containers.ok()?);
            }
            Some(all)
        };
        let all = runtime.block_on(async { tokio::time::timeout(LIMIT, asked).await.ok()? })?;
        Some(match kind {
            Kind::Container => containers(&all, container_state(&self.verb), current),
            Kind::Pod => pods(&all, pod_state(&self.verb), current),
            _ => images(&all, current),
        })
    }

    /// The global flags among the words before.
    fn matches(&self) -> Option<ArgMatches> {
        let root = crate::cli::root::command().ignore_errors(true);
        let matches = root.try_get_matches_from(self.words.iter()).ok()?;
        matches.subcommand_matches("cri").cloned()
    }
}

/// What tables show of an id, unless more than that is typed.
fn id<'a>(id: &'a str, current: &str) -> &'a str {
    let short = short_id(id);
    if current.len() > short.len() { id.strip_prefix("sha256:").unwrap_or(id) } else { short }
}

fn containers(all: &Inventory, state: Option<ContainerState>, current: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for container in &all.containers {
        if state.is_some_and(|state| container.state != state as i32) {
            continue;
        }
        let name = container.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        let pod = all.pod_of(container).map(|pod| full_name(pod.metadata.as_ref()));
        let state = text::container_state(container.state);
        let id = id(&container.id, current);
        let Some(pod) = pod else {
            found.push((id.to_owned(), format!("{name} {state}")));
            continue;
        };
        found.push((id.to_owned(), format!("{pod}/{name} {state}")));
        let named = format!("{pod}/{name}");
        // Several attempts are one name: the newest is meant.
        if !found.iter().any(|(value, _)| *value == named) {
            found.push((named, format!("{} {state}", short_id(&container.id))));
        }
    }
    found
}

fn pods(all: &Inventory, state: Option<PodSandboxState>, current: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for pod in &all.pods {
        if state.is_some_and(|state| pod.state != state as i32) {
            continue;
        }
        let (name, id) = (full_name(pod.metadata.as_ref()), id(&pod.id, current));
        let state = text::pod_state(pod.state);
        found.push((id.to_owned(), format!("{name} {state}")));
        if !found.iter().any(|(value, _)| *value == name) {
            found.push((name.clone(), format!("{} {state}", short_id(&pod.id))));
        }
        // A third of each would be too many, but who has begun one gets it.
        let uid = pod.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
        if !current.is_empty() {
            found.push((uid.to_owned(), format!("{name} {state}")));
        }
    }
    found
}

fn images(all: &Inventory, current: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for image in &all.images {
        let size = text::size(image.size);
        let tagged = !image.repo_tags.is_empty();
        // Digests are long: only who has begun one gets it.
        let shown = names(image).filter(|name| !name.contains('@') || current.contains('@'));
        found.extend(shown.map(|name| (name.clone(), format!("{} {size}", short_id(&image.id)))));
        if !tagged || !current.is_empty() {
            let name = names(image).next().cloned().unwrap_or_default();
            found.push((id(&image.id, current).to_owned(), format!("{name} {size}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{Container, ContainerMetadata, Image, PodSandbox, PodSandboxMetadata};

    fn inventory() -> Inventory {
        let container = |id: &str, name: &str, state: ContainerState| Container {
            id: id.to_owned(),
            pod_sandbox_id: "aaaaaaaaaaaaaaaaaaaa".to_owned(),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            state: state.into(),
            ..Container::default()
        };
        Inventory {
            pods: vec![PodSandbox {
                id: "aaaaaaaaaaaaaaaaaaaa".to_owned(),
                metadata: Some(PodSandboxMetadata {
                    name: "web".to_owned(),
                    namespace: "ns".to_owned(),
                    uid: "uid-web".to_owned(),
                    attempt: 0,
                }),
                ..PodSandbox::default()
            }],
            containers: vec![
                container("cccccccccccccccccccc", "main", ContainerState::ContainerRunning),
                container("dddddddddddddddddddd", "main", ContainerState::ContainerExited),
            ],
            images: vec![
                Image {
                    id: "sha256:eeeeeeeeeeeeeeeeeeee".to_owned(),
                    repo_tags: vec!["x/web:1".to_owned()],
                    repo_digests: vec!["x/web@sha256:77".to_owned()],
                    size: 1000,
                    ..Image::default()
                },
                Image { id: "sha256:ffffffffffffffffffff".to_owned(), ..Image::default() },
            ],
        }
    }

    fn values(found: Vec<(String, String)>) -> Vec<String> {
        found.into_iter().map(|(value, _)| value).collect()
    }

    #[test]
    fn containers_by_id_and_by_name() {
        let all = inventory();
        assert_eq!(
            containers(&all, None, "")[..2],
            [
                ("ccccccccccccc".to_owned(), "ns/web/main Running".to_owned()),
                ("ns/web/main".to_owned(), "ccccccccccccc Running".to_owned())
            ]
        );
        assert_eq!(values(containers(&all, None, "")), ["ccccccccccccc", "ns/web/main", "ddddddddddddd"]);
        let running = Some(ContainerState::ContainerRunning);
        assert_eq!(values(containers(&all, running, "")), ["ccccccccccccc", "ns/web/main"]);
        assert_eq!(values(containers(&all, running, "cccccccccccccc"))[0], "cccccccccccccccccccc");
    }

    #[test]
    fn pods_and_images() {
        let all = inventory();
        assert_eq!(values(pods(&all, None, "")), ["aaaaaaaaaaaaa", "ns/web"]);
        assert_eq!(values(pods(&all, None, "u")), ["aaaaaaaaaaaaa", "ns/web", "uid-web"]);
        assert!(pods(&all, Some(PodSandboxState::SandboxNotready), "").is_empty());
        assert_eq!(values(images(&all, "")), ["x/web:1", "fffffffffffff"]);
        assert_eq!(values(images(&all, "e")), ["x/web:1", "eeeeeeeeeeeee", "fffffffffffff"]);
        assert!(values(images(&all, "x/web@")).contains(&"x/web@sha256:77".to_owned()));
    }

    #[test]
    fn nothing_that_means_something_to_a_shell_is_offered() {
        for word in ["f2e1bb0b4e1e5", "kube-system/web-1/nginx", "localhost:5000/a_b/c:1.2", "x@sha256:00"] {
            assert!(is_plain(word), "{word}");
        }
        for word in
            ["", "-rf", "a b", "a;b", "$(x)", "`x`", "a'b", "a\"b", "a\\b", "*", "~", "a\nb", "ä", "#"]
        {
            assert!(!is_plain(word), "{word}");
        }
    }

    #[test]
    fn every_argument_that_names_a_thing_has_candidates() {
        let words: Arc<[OsString]> = Arc::from([]);
        let root = crate::cli::root::command();
        let cri = attach(root.find_subcommand("cri").unwrap().clone(), &words);
        let mut count = 0;
        for verb in cri.get_subcommands() {
            for argument in verb.get_arguments() {
                let names = argument.get_value_names().unwrap_or_default();
                if names.iter().any(|name| ["CONTAINER", "POD", "IMAGE"].contains(&name.as_str())) {
                    assert!(argument.get::<ArgValueCompleter>().is_some(), "{} {argument}", verb.get_name());
                    count += 1;
                }
            }
        }
        assert!(count >= 9, "{count}");
    }
}
