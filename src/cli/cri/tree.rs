//! `nodectl cri tree`: pods, the containers in them, and the images of these.

use std::{collections::BTreeMap, io::Write};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    filter::PodFilter,
    format::{Format, FormatArgs},
    lookup::{Inventory, full_name},
    ps::{inventory, readable_image},
    session::Session,
    text::{ago, container_state, pod_state, shown_id},
};
use crate::{
    api::cri::{Container, ContainerState, PodSandbox, PodSandboxState},
    cli::output::printable,
    error::CommandError,
};

/// Arguments of `nodectl cri tree`.
#[derive(Debug, Clone, Args)]
pub(super) struct TreeArgs {
    /// Pods: ids or UIDs, beginnings of them, or NAMESPACE/NAME. Without any, all that the filters leave
    #[arg(value_name = "POD")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: PodFilter,
    #[command(flatten)]
    format: FormatArgs,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(args: &TreeArgs, session: &Session, out: &mut dyn Write) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let compiled = args.filter.compile()?;
    let all = inventory(session).await?;
    let mut pods = args.filter.select(&compiled, &all.pods);
    if !args.ids.is_empty() {
        let given = args.ids.iter().map(|id| all.pod(id)).collect::<Result<Vec<_>, _>>()?;
        pods.retain(|pod| given.iter().any(|other| other.id == pod.id));
    }
    pods.sort_by_cached_key(|pod| (full_name(pod.metadata.as_ref()), pod.created_at));
    // Those of a sandbox that is gone hang from no pod, and are shown only where all are.
    let orphans = if pods.len() == all.pods.len() { orphans(&all) } else { Vec::new() };
    let containers = by_pod(&all);
    let of = |pod: &PodSandbox| containers.get(pod.id.as_str()).map(Vec::as_slice).unwrap_or_default();
    let value = || {
        let pods: Vec<Value> = pods.iter().map(|pod| pod_value(pod, of(pod), &all)).collect();
        let orphans: Vec<Value> = orphans.iter().map(|container| container_value(container, &all)).collect();
        Ok(json!({ "pods": pods, "containersWithoutPod": orphans }))
    };
    format.print(out, value, || {
        let now = Timestamp::now();
        let mut text = String::new();
        for pod in &pods {
            let id = shown_id(&pod.id, args.no_trunc);
            let name = full_name(pod.metadata.as_ref());
            let (state, age) = (pod_state(pod.state), ago(pod.created_at, now));
            text += &printable(&format!("{name}   {id}   {state}   {age}"));
            text.push('\n');
            text += &branches(of(pod), &all, args.no_trunc, now);
        }
        if !orphans.is_empty() {
            text += "(their pods are gone)\n";
            text += &branches(&orphans, &all, args.no_trunc, now);
        }
        text
    })
}

/// Containers by their sandbox, in the order in which they were made.
fn by_pod(all: &Inventory) -> BTreeMap<&str, Vec<&Container>> {
    let mut found: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in &all.containers {
        found.entry(container.pod_sandbox_id.as_str()).or_default().push(container);
    }
    for containers in found.values_mut() {
        containers.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.id.cmp(&b.id)));
    }
    found
}

fn orphans(all: &Inventory) -> Vec<&Container> {
    let mut found: Vec<&Container> =
        all.containers.iter().filter(|container| all.pod_of(container).is_none()).collect();
    found.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.id.cmp(&b.id)));
    found
}

fn name_of(container: &Container) -> (&str, u32) {
    container.metadata.as_ref().map_or(("", 0), |metadata| (metadata.name.as_str(), metadata.attempt))
}

/// A line for each container, aligned among themselves.
fn branches(containers: &[&Container], all: &Inventory, whole: bool, now: Timestamp) -> String {
    let rows: Vec<[String; 5]> = containers
        .iter()
        .map(|container| {
            let (name, attempt) = name_of(container);
            // A first attempt is what one expects.
            let name = if attempt == 0 { name.to_owned() } else { format!("{name} (attempt {attempt})") };
            [
                name,
                shown_id(&container.id, whole).to_owned(),
                container_state(container.state).to_owned(),
                ago(container.created_at, now),
                readable_image(container, &all.images, whole),
            ]
            .map(|cell| printable(&cell))
        })
        .collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let line = |(index, [name, id, state, age, image]): (usize, &[String; 5])| {
        let branch = if index + 1 == rows.len() { "└─" } else { "├─" };
        let [w0, w1, w2, w3] = widths;
        format!("{branch} {name:w0$}   {id:w1$}   {state:w2$}   {age:w3$}   {image}\n")
    };
    rows.iter().enumerate().map(line).collect()
}

fn pod_value(pod: &PodSandbox, containers: &[&Container], all: &Inventory) -> Value {
    let metadata = pod.metadata.clone().unwrap_or_default();
    let state = PodSandboxState::try_from(pod.state).map(|state| state.as_str_name());
    json!({
        "id": pod.id,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "attempt": metadata.attempt,
        },
        "state": state.map_or_else(|_| json!(pod.state), |name| json!(name)),
        "createdAt": pod.created_at.to_string(),
        "runtimeHandler": pod.runtime_handler,
        "containers": containers.iter().map(|c| container_value(c, all)).collect::<Vec<_>>(),
    })
}

fn container_value(container: &Container, all: &Inventory) -> Value {
    let (name, attempt) = name_of(container);
    let state = ContainerState::try_from(container.state).map(|state| state.as_str_name());
    json!({
        "id": container.id,
        "metadata": { "name": name, "attempt": attempt },
        "state": state.map_or_else(|_| json!(container.state), |name| json!(name)),
        "createdAt": container.created_at.to_string(),
        "image": readable_image(container, &all.images, true),
        "imageRef": container.image_ref,
    })
}
