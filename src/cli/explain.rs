//! `nodectl explain POD`: where a pod stands, why, and what comes next.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus};
use serde::Serialize;

use super::{
    explain_text,
    output::{self, printable},
    pod_summary::summarize,
    pods::problem_line,
};
use crate::{
    api::{
        pod::{ContainerKind, PodExt},
        view::{PodProgress, PodView},
    },
    error::CommandError,
    server::{
        local::{DEFAULT_SOCKET, InputProblem, PodsAnswer},
        local_client,
    },
};

/// Candidates that an ambiguous name lists.
const MAX_CANDIDATES: usize = 20;

/// Says where a pod stands: its step and since when, the last error, what comes next and when.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The pod: NAME, NAMESPACE/NAME, its UID, or a unique prefix of one of them
    pub pod: String,
    /// Only pods of this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ExplainFormat::Text)]
    pub output: ExplainFormat,
    /// The agent's operator socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// `-o` of `explain`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ExplainFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Asks the agent and prints.
///
/// # Errors
/// [`CommandError`] if the agent cannot be asked, or if there is no such pod or more than one.
pub async fn run(args: ExplainArgs, out: &mut impl Write, err: &mut impl Write) -> Result<(), CommandError> {
    let answer = local_client::pods(&args.socket).await?;
    let found = find(&answer, &args.pod, args.namespace.as_deref())?;
    let explained: Vec<Explanation> = found.iter().map(|view| Explanation::of(view)).collect();
    let problems: Vec<&InputProblem> =
        answer.problems.iter().filter(|problem| found.iter().any(|view| concerns(problem, view))).collect();
    match args.output {
        ExplainFormat::Json => output::write(out, &output::json(&Json { items: &explained, problems })?),
        ExplainFormat::Text => {
            let now = Timestamp::now();
            let texts: Vec<_> = explained.iter().map(|pod| explain_text::render(pod, now)).collect();
            output::write(out, &texts.join("\n"))?;
            let lines: String = problems.into_iter().map(problem_line).collect();
            output::write(err, &lines)
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    items: &'a [Explanation],
    problems: Vec<&'a InputProblem>,
}

/// All that is told of a pod; `-o json` prints it as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) source: String,
    pub(super) status: String,
    pub(super) phase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    pub(super) ready: usize,
    pub(super) total: usize,
    pub(super) restarts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<Timestamp>,
    pub(super) progress: PodProgress,
    pub(super) containers: Vec<ContainerLine>,
}

/// A container's part.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerLine {
    pub(super) name: String,
    /// `init`, `sidecar` or `container`.
    pub(super) kind: &'static str,
    pub(super) image: String,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    pub(super) state: StateLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_exit: Option<StateLine>,
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum StateLine {
    Unknown,
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        since: Option<Timestamp>,
    },
    Exited {
        reason: String,
        message: String,
        exit_code: i32,
        started: Option<Timestamp>,
        finished: Option<Timestamp>,
    },
}

impl Explanation {
    fn of(view: &PodView) -> Self {
        let summary = summarize(view);
        let name = view.pod.full_name();
        Self {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            uid: view.uid.to_string(),
            source: summary.source,
            status: summary.status,
            phase: view.status.phase.clone().unwrap_or_else(|| "Pending".to_owned()),
            message: view.status.message.clone().filter(|message| !message.is_empty()),
            ready: summary.ready,
            total: summary.total,
            restarts: summary.restarts,
            created: summary.created,
            progress: view.progress.clone(),
            containers: containers(view),
        }
    }
}

/// The containers of the specification with their statuses; of a pod whose specification is gone, those of
/// the status alone.
fn containers(view: &PodView) -> Vec<ContainerLine> {
    let init = view.status.init_container_statuses.iter().flatten();
    let regular = view.status.container_statuses.iter().flatten();
    let ephemeral = view.status.ephemeral_container_statuses.iter().flatten();
    let all: Vec<&ContainerStatus> = init.chain(regular).chain(ephemeral).collect();
    let specified = view.pod.all_containers();
    if specified.is_empty() {
        return all.into_iter().map(|s| line("container", &s.name, &s.image, Some(s))).collect();
    }
    let kind = |kind| match kind {
        ContainerKind::Init => "init",
        ContainerKind::Sidecar => "sidecar",
        ContainerKind::Regular => "container",
        ContainerKind::Ephemeral => "ephemeral",
    };
    let ephemeral = view.pod.spec().ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|c| (ContainerKind::Ephemeral, &c.name, &c.image));
    let others = specified.into_iter().map(|(kind, c)| (kind, &c.name, &c.image));
    others
        .chain(ephemeral)
        .map(|(k, name, image)| {
            let status = all.iter().copied().find(|status| status.name == *name);
            line(kind(k), name, image.as_deref().unwrap_or_default(), status)
        })
        .collect()
}

fn line(kind: &'static str, name: &str, image: &str, status: Option<&ContainerStatus>) -> ContainerLine {
    ContainerLine {
        name: name.to_owned(),
        kind,
        image: image.to_owned(),
        ready: status.is_some_and(|status| status.ready),
        restarts: status.map_or(0, |status| status.restart_count),
        state: state(status.and_then(|status| status.state.as_ref())),
        last_exit: status.and_then(|s| s.last_state.as_ref()?.terminated.as_ref()).map(exit),
    }
}

fn state(state: Option<&ContainerState>) -> StateLine {
    let Some(state) = state else { return StateLine::Unknown };
    if let Some(end) = &state.terminated {
        exit(end)
    } else if let Some(running) = &state.running {
        StateLine::Running { since: running.started_at.as_ref().map(|time| time.0) }
    } else if let Some(waiting) = &state.waiting {
        StateLine::Waiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        }
    } else {
        StateLine::Unknown
    }
}

fn exit(end: &ContainerStateTerminated) -> StateLine {
    StateLine::Exited {
        reason: end.reason.clone().unwrap_or_default(),
        message: end.message.clone().unwrap_or_default(),
        exit_code: end.exit_code,
        started: end.started_at.as_ref().map(|time| time.0),
        finished: end.finished_at.as_ref().map(|time| time.0),
    }
}

/// The pods that are meant: more than one only if they share a full name, as a static pod and the one that
/// replaces it do.
fn find<'a>(
    answer: &'a PodsAnswer,
    wanted: &str,
    namespace: Option<&str>,
) -> Result<Vec<&'a PodView>, CommandError> {
    let pods: Vec<_> = answer
        .pods
        .iter()
        .filter(|view| namespace.is_none_or(|namespace| &*view.pod.full_name().namespace == namespace))
        .collect();
    let exact = |view: &&&PodView| {
        let name = view.pod.full_name();
        view.uid.as_str() == wanted || name.to_string() == wanted || &*name.name == wanted
    };
    let prefix = |view: &&&PodView| {
        let name = view.pod.full_name();
        [view.uid.as_str(), &name.to_string(), &name.name].iter().any(|text| text.starts_with(wanted))
    };
    let mut found: Vec<&PodView> = pods.iter().filter(exact).copied().collect();
    if found.is_empty() && !wanted.is_empty() {
        found = pods.iter().filter(prefix).copied().collect();
    }
    let Some(first) = found.first().map(|view| view.pod.full_name()) else {
        return Err(not_found(answer, wanted, namespace));
    };
    if found.iter().any(|view| view.pod.full_name() != first) {
        return Err(ambiguous(&found, wanted));
    }
    Ok(found)
}

fn ambiguous(found: &[&PodView], wanted: &str) -> CommandError {
    let mut lines: Vec<_> = found
        .iter()
        .take(MAX_CANDIDATES)
        .map(|view| printable(&format!("{}  {}", view.pod.full_name(), view.uid)))
        .collect();
    if found.len() > MAX_CANDIDATES {
        lines.push(format!("and {} more", found.len() - MAX_CANDIDATES));
    }
    let wanted = printable(wanted);
    let text = format!("{wanted:?} may be one of {} pods:\n  {}", found.len(), lines.join("\n  "));
    CommandError::failed(text).hint("give NAMESPACE/NAME or the UID")
}

fn not_found(answer: &PodsAnswer, wanted: &str, namespace: Option<&str>) -> CommandError {
    let place = namespace.map(|namespace| format!(" in namespace {namespace:?}")).unwrap_or_default();
    let problems: Vec<_> =
        answer.problems.iter().filter(|problem| is_about(problem, wanted, wanted)).collect();
    if problems.is_empty() {
        let error = CommandError::failed(format!("there is no pod {wanted:?}{place}"));
        return match answer.problems.len() {
            0 => error.hint("`nodectl pods` lists all pods"),
            count => error.hint(format!("`nodectl pods` lists all pods, and {count} inputs not used")),
        };
    }
    let lines: String =
        problems.into_iter().map(|problem| format!("\n  {}", problem_line(problem).trim_end())).collect();
    CommandError::failed(format!(
        "there is no pod {wanted:?}{place}, for its manifest cannot be used:{lines}"
    ))
    .hint("correct the file: it is read again as soon as it changes")
}

fn concerns(problem: &InputProblem, view: &PodView) -> bool {
    let name = view.pod.full_name();
    is_about(problem, &name.name, &name.to_string())
}

/// Whether an unusable input has to do with a pod: a manifest is named after its pod, mostly, and the
/// pod's name has the node's appended (`web.yaml`, `web-node1`); or the reason names the pod.
fn is_about(problem: &InputProblem, name: &str, full_name: &str) -> bool {
    let file = problem.origin.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    problem.origin == name
        || file == name
        || (!stem.is_empty()
            && name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
        || (full_name.contains('/') && names(&problem.reason, full_name))
}

/// Whether a text has a pod's full name as a word of its own.
fn names(text: &str, full_name: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
    text.split(|c: char| !part_of_name(c)).any(|word| word.trim_end_matches('.') == full_name)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
