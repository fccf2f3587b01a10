//! `nodectl pods`: the running agent's pods, as `kubectl get pods` would list them.

use std::{io::Write, path::PathBuf, sync::Arc};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::{Value, json};

use super::{
    output::{self, OutputFormat, Table, age, printable},
    pod_summary::summarize,
};
use crate::{
    api::{pod::PodExt, view::PodView},
    error::CommandError,
    server::{
        local::{DEFAULT_SOCKET, InputProblem, PodsAnswer},
        local_client,
    },
};

/// The condition of a pod that is known from the disk alone. Only shown here: no server is there to be told.
const OFFLINE: &str = "nodectl.dev/Offline";

/// Lists the pods of the agent that runs on this machine.
#[derive(Debug, Clone, Args)]
pub struct PodsArgs {
    /// Output format; json and yaml are a v1 List of Pods
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
    /// Only pods of this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The agent's operator socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Asks the agent and prints. Inputs that the agent could not use are named on `err`.
///
/// # Errors
/// [`CommandError`] if the agent cannot be asked or the output not be written.
pub async fn run(args: PodsArgs, out: &mut impl Write, err: &mut impl Write) -> Result<(), CommandError> {
    let mut answer = local_client::pods(&args.socket).await?;
    if let Some(namespace) = &args.namespace {
        answer.pods.retain(|view| *view.pod.full_name().namespace == **namespace);
    }
    output::write(out, &render(&answer, args.output, Timestamp::now())?)?;
    if answer.pods.is_empty() && matches!(args.output, OutputFormat::Table | OutputFormat::Wide) {
        output::write(err, "no pods\n")?;
    }
    output::write(err, &offline_line(&answer.pods))?;
    let problems: String = answer.problems.iter().map(problem_line).collect();
    output::write(err, &problems)
}

/// That pods are not the API server's any more, if so.
fn offline_line(pods: &[PodView]) -> String {
    match pods.iter().filter(|view| view.offline).count() {
        0 => String::new(),
        1 => "offline: the API server is not heard; 1 pod is as last known\n".to_owned(),
        count => format!("offline: the API server is not heard; {count} pods are as last known\n"),
    }
}

/// An unusable input in one line.
pub(super) fn problem_line(problem: &InputProblem) -> String {
    format!("not used: {}: {}\n", printable(&problem.origin), printable(&problem.reason))
}

fn render(answer: &PodsAnswer, format: OutputFormat, now: Timestamp) -> Result<String, CommandError> {
    match format {
        OutputFormat::Table | OutputFormat::Wide if answer.pods.is_empty() => Ok(String::new()),
        OutputFormat::Table => Ok(table(&answer.pods, now)),
        OutputFormat::Wide => Ok(wide(&answer.pods, now)),
        OutputFormat::Json => output::json(&list(&answer.pods)?),
        OutputFormat::Yaml => output::yaml(&list(&answer.pods)?),
    }
}

fn table(pods: &[PodView], now: Timestamp) -> String {
    let mut table = Table::new(["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    pods.iter().for_each(|view| table.push(row(view, now)));
    table.render()
}

fn wide(pods: &[PodView], now: Timestamp) -> String {
    let mut table = Table::new([
        "NAMESPACE",
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "UID",
        "SOURCE",
        "STEP",
        "SINCE",
    ]);
    for view in pods {
        let ip = view.status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("<none>");
        let more = [
            ip.to_owned(),
            view.uid.to_string(),
            if view.offline {
                format!("{}, offline", summarize(view).source)
            } else {
                summarize(view).source
            },
            step_name(view),
            age(view.progress.since, now),
        ];
        table.push(row(view, now).into_iter().chain(more));
    }
    table.render()
}

fn row(view: &PodView, now: Timestamp) -> [String; 6] {
    let summary = summarize(view);
    let name = view.pod.full_name();
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, age(last, now)),
        _ => summary.restarts.to_string(),
    };
    [
        name.namespace.to_string(),
        name.name.to_string(),
        format!("{}/{}", summary.ready, summary.total),
        summary.status,
        restarts,
        summary.created.map_or_else(|| "<unknown>".to_owned(), |created| age(created, now)),
    ]
}

/// The step as the agent's JSON spells it: `pulling-image`.
pub(super) fn step_name(view: &PodView) -> String {
    serde_json::to_value(view.progress.step)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What `kubectl get pods -o json` prints.
fn list(pods: &[PodView]) -> Result<Value, CommandError> {
    let items: Result<Vec<Value>, _> = pods.iter().map(|view| serde_json::to_value(whole(view))).collect();
    let items = items.map_err(CommandError::failed)?;
    Ok(json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items }))
}

/// The API object: specification and status in one.
fn whole(view: &PodView) -> Pod {
    let mut pod = Pod::clone(&view.pod);
    pod.metadata.managed_fields = None;
    pod.metadata.uid.get_or_insert_with(|| view.uid.to_string());
    pod.status = Some(Arc::unwrap_or_clone(Arc::clone(&view.status)));
    if view.offline {
        let condition = PodCondition {
            type_: OFFLINE.to_owned(),
            status: "True".to_owned(),
            reason: Some("ServerNotHeard".to_owned()),
            message: Some("the pod is as the API server had it when it was last heard".to_owned()),
            ..PodCondition::default()
        };
        pod.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    }
    pod
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
