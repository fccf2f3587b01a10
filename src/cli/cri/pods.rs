//! `nodectl cri pods`: sandboxes.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    filter::PodFilter,
    format::{Format, FormatArgs},
    inspect, protojson,
    session::Session,
    text::{ago, pod_state, shown_id},
};
use crate::{
    api::cri::PodSandbox,
    cli::output::{Table, printable},
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri pods`.
#[derive(Debug, Clone, Args)]
pub(super) struct PodsArgs {
    #[command(flatten)]
    filter: PodFilter,
    #[command(flatten)]
    format: FormatArgs,
    /// Only ids, one a line
    #[arg(short, long)]
    quiet: bool,
    /// Several lines for each pod, with labels and annotations
    #[arg(short, long)]
    verbose: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(args: &PodsArgs, session: &Session, out: &mut dyn Write) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let compiled = args.filter.compile()?;
    let pods = session.ask("ListPodSandbox", session.cri.list_pod_sandboxes(None)).await?;
    let found = args.filter.select(&compiled, &pods);
    let value = || {
        let items = found.iter().map(|pod| protojson::json("PodSandbox", *pod));
        Ok(json!({ "items": items.collect::<Result<Vec<_>, _>>()? }))
    };
    format.print(out, value, || {
        if args.quiet {
            return found.iter().map(|pod| format!("{}\n", pod.id)).collect();
        }
        let now = Timestamp::now();
        if args.verbose {
            return found.iter().map(|pod| verbose(pod, now)).collect();
        }
        table(&found, args.no_trunc, now)
    })
}

/// crictl's columns, and the UID after them, so that a column's place is where scripts expect it.
fn table(found: &[&PodSandbox], whole: bool, now: Timestamp) -> String {
    let mut table =
        Table::new(["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME", "UID"]);
    for pod in found {
        let metadata = pod.metadata.clone().unwrap_or_default();
        table.push([
            shown_id(&pod.id, whole).to_owned(),
            ago(pod.created_at, now),
            pod_state(pod.state).to_owned(),
            metadata.name,
            metadata.namespace,
            metadata.attempt.to_string(),
            handler(&pod.runtime_handler).to_owned(),
            metadata.uid,
        ]);
    }
    table.render()
}

/// The runtime handler's name.
pub(super) fn handler(name: &str) -> &str {
    if name.is_empty() { "(default)" } else { name }
}

fn verbose(pod: &PodSandbox, now: Timestamp) -> String {
    let metadata = pod.metadata.clone().unwrap_or_default();
    let mut lines = vec![
        format!("ID: {}", pod.id),
        format!("Name: {}", metadata.name),
        format!("UID: {}", metadata.uid),
        format!("Namespace: {}", metadata.namespace),
        format!("Attempt: {}", metadata.attempt),
        format!("Status: {}", pod_state(pod.state)),
        format!("Created: {}", ago(pod.created_at, now)),
        format!("Runtime: {}", handler(&pod.runtime_handler)),
    ];
    lines.extend(inspect::entries("Labels", &pod.labels));
    lines.extend(inspect::entries("Annotations", &pod.annotations));
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    lines.join("\n") + "\n\n"
}
