//! `nodectl cri inspect`, `inspectp` and `inspecti`: all that the runtime tells of containers, pods and
//! images.
//!
//! The shape is crictl's: `status` beside what the runtime adds under names of its own (`info`, `config`,
//! `pid`, …), whose JSON texts are opened up; times of containers and pods as RFC 3339. One thing is an
//! object, several are one array. Where one of several cannot be had, nothing is printed.

use std::{collections::BTreeMap, io::Write};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    filter::{ContainerFilter, PodFilter},
    format::{Format, FormatArgs},
    images,
    lookup::full_name,
    pods::handler,
    protojson,
    ps::{inventory, selected},
    session::Session,
    text::{ago, container_state, pod_state, time},
};
use crate::{
    api::cri::{
        ContainerState, ContainerStatusResponse, ImageSpec, ImageStatusResponse, PodSandboxStatusResponse,
    },
    cli::output::printable,
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri inspect`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectArgs {
    /// Containers: ids or beginnings of them, NAMESPACE/POD/NAME, or a pod with one container by its UID
    /// or NAMESPACE/NAME. Without any, all that the filters leave
    #[arg(value_name = "CONTAINER")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: ContainerFilter,
    #[command(flatten)]
    format: FormatArgs,
    /// Without what the runtime adds to the status
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `nodectl cri inspectp`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectpArgs {
    /// Pods: ids or UIDs, beginnings of them, or NAMESPACE/NAME. Without any, all that the filters leave
    #[arg(value_name = "POD")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: PodFilter,
    #[command(flatten)]
    format: FormatArgs,
    /// Without what the runtime adds to the status
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `nodectl cri inspecti`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectiArgs {
    /// Images: names, or beginnings of ids
    #[arg(value_name = "IMAGE", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
    /// Without what the runtime adds to the status
    #[arg(short, long)]
    quiet: bool,
}

/// One thing: as data, and as text for a table.
struct Found {
    value: Value,
    text: String,
}

pub(super) async fn containers(
    args: &InspectArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let compiled = args.filter.compile()?;
    let all = inventory(session).await?;
    let mut ids: Vec<String> = Vec::new();
    if args.ids.is_empty() {
        let found = selected(&args.filter, &compiled, &all, session).await?;
        ids.extend(found.into_iter().map(|container| container.id.clone()));
        some(&ids, "container")?;
    }
    for wanted in &args.ids {
        ids.push(all.container(wanted)?.id.clone());
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        let call = session.cri.container_status(id, !args.quiet);
        found.push(container(&session.ask("ContainerStatus", call).await?)?);
    }
    print(&format, found, out)
}

pub(super) async fn pods(
    args: &InspectpArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let compiled = args.filter.compile()?;
    let all = inventory(session).await?;
    let mut ids: Vec<String> = Vec::new();
    if args.ids.is_empty() {
        let found = args.filter.select(&compiled, &all.pods);
        ids.extend(found.into_iter().map(|pod| pod.id.clone()));
        some(&ids, "pod")?;
    }
    for wanted in &args.ids {
        ids.push(all.pod(wanted)?.id.clone());
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        let call = session.cri.pod_sandbox_status(id, !args.quiet);
        found.push(pod(&session.ask("PodSandboxStatus", call).await?)?);
    }
    print(&format, found, out)
}

pub(super) async fn images(
    args: &InspectiArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let all = inventory(session).await?;
    let mut found = Vec::with_capacity(args.ids.len());
    for wanted in &args.ids {
        let Some(image) = images::resolve(wanted, &all, session).await? else {
            return Err(all.no_image(wanted));
        };
        let spec = ImageSpec { image: image.id, ..ImageSpec::default() };
        let call = session.cri.image_status(spec, !args.quiet);
        let answer = session.ask("ImageStatus", call).await?;
        // Removed between the two looks.
        found.push(image_status(&answer)?.ok_or_else(|| all.no_image(wanted))?);
    }
    print(&format, found, out)
}

fn some(ids: &[String], kind: &str) -> Result<(), CommandError> {
    if ids.is_empty() {
        return Err(CommandError::failed(format!("no {kind} fits"))
            .hint(format!("give the id of a {kind}; for containers that have ended, add --all")));
    }
    Ok(())
}

fn print(format: &Format, found: Vec<Found>, out: &mut dyn Write) -> Result<(), CommandError> {
    let (mut values, texts): (Vec<Value>, Vec<String>) =
        found.into_iter().map(|found| (found.value, found.text)).unzip();
    let value = || {
        let single = if values.len() == 1 { values.pop() } else { None };
        Ok(single.unwrap_or(Value::Array(values)))
    };
    format.print(out, value, || texts.join("\n"))
}

/// The status, and what the runtime adds to it beside it.
pub(super) fn with_info(status: Value, info: &BTreeMap<String, String>) -> Value {
    let mut map = Map::new();
    for (key, text) in info {
        map.insert(key.clone(), opened(text));
    }
    map.insert("status".to_owned(), status);
    Value::Object(map)
}

/// A runtime's addition: JSON in a text, or a text, perhaps in quotes. What only looks like JSON stays.
fn opened(text: &str) -> Value {
    let looks = text.starts_with(['{', '[', '"']);
    let parsed = if looks { serde_json::from_str(text).ok() } else { None };
    parsed.unwrap_or_else(|| Value::from(text))
}

fn container(answer: &ContainerStatusResponse) -> Result<Found, CommandError> {
    let status = answer.status.clone().unwrap_or_default();
    let mut value = protojson::json("ContainerStatus", &status)?;
    let is = |state: ContainerState| status.state == state as i32;
    let began = (!is(ContainerState::ContainerCreated)).then_some(status.started_at);
    let over = is(ContainerState::ContainerExited)
        || (is(ContainerState::ContainerUnknown) && status.finished_at > 0);
    let ended = over.then_some(status.finished_at);
    value["createdAt"] = time(Some(status.created_at)).into();
    value["startedAt"] = time(began).into();
    value["finishedAt"] = time(ended).into();

    let now = Timestamp::now();
    let metadata = status.metadata.unwrap_or_default();
    let mut lines = vec![
        format!("ID: {}", status.id),
        format!("Name: {}", metadata.name),
        format!("Attempt: {}", metadata.attempt),
        format!("State: {}", container_state(status.state)),
        format!("Image: {}", status.image.unwrap_or_default().image),
        format!("Created: {}", ago(status.created_at, now)),
    ];
    lines.extend(began.map(|time| format!("Started: {}", ago(time, now))));
    if let Some(time) = ended {
        lines.push(format!("Finished: {}", ago(time, now)));
        lines.push(format!("Exit Code: {}", status.exit_code));
        lines.push(format!("Reason: {}", status.reason));
    }
    lines.push(format!("Log: {}", status.log_path));
    lines.extend(entries("Labels", &status.labels));
    lines.extend(entries("Annotations", &status.annotations));
    Ok(Found { value: with_info(value, &answer.info), text: text(&lines) })
}

fn pod(answer: &PodSandboxStatusResponse) -> Result<Found, CommandError> {
    let status = answer.status.clone().unwrap_or_default();
    let mut value = protojson::json("PodSandboxStatus", &status)?;
    value["createdAt"] = time(Some(status.created_at)).into();

    let name = full_name(status.metadata.as_ref());
    let metadata = status.metadata.unwrap_or_default();
    let mut lines = vec![
        format!("ID: {}", status.id),
        format!("Pod: {name}"),
        format!("UID: {}", metadata.uid),
        format!("Attempt: {}", metadata.attempt),
        format!("Status: {}", pod_state(status.state)),
        format!("Created: {}", ago(status.created_at, Timestamp::now())),
        format!("Runtime: {}", handler(&status.runtime_handler)),
    ];
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.iter().map(|more| more.ip.as_str());
    for ip in std::iter::once(network.ip.as_str()).chain(more).filter(|ip| !ip.is_empty()) {
        lines.push(format!("IP Address: {ip}"));
    }
    lines.extend(entries("Labels", &status.labels));
    lines.extend(entries("Annotations", &status.annotations));
    Ok(Found { value: with_info(value, &answer.info), text: text(&lines) })
}

fn image_status(answer: &ImageStatusResponse) -> Result<Option<Found>, CommandError> {
    let Some(image) = &answer.image else { return Ok(None) };
    let value = with_info(protojson::json("Image", image)?, &answer.info);
    Ok(Some(Found { value, text: images::lines(image) }))
}

/// A heading and its `key -> value` lines, if there are any.
pub(super) fn entries(title: &str, map: &BTreeMap<String, String>) -> Vec<String> {
    if map.is_empty() {
        return Vec::new();
    }
    let lines = map.iter().map(|(key, value)| format!("    {key} -> {value}"));
    std::iter::once(format!("{title}:")).chain(lines).collect()
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::ContainerStatus;
    use serde_json::json;

    #[test]
    fn what_the_runtime_adds_is_opened() {
        let info = [
            ("info", r#"{"pid":1,"a":{"b":[2]}}"#),
            ("quoted", r#""x""#),
            ("plain", "x y"),
            ("broken", "{no"),
            ("number", "12"),
        ];
        let info = info.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        assert_eq!(
            with_info(json!({"id": "a"}), &info),
            json!({
                "status": {"id": "a"},
                "info": {"pid": 1, "a": {"b": [2]}},
                "quoted": "x",
                "plain": "x y",
                "broken": "{no",
                "number": "12",
            })
        );
    }

    #[test]
    fn times_are_those_that_the_state_has() {
        let at = |state: ContainerState| {
            let status = ContainerStatus {
                state: state.into(),
                created_at: 1_700_000_000_000_000_000,
                started_at: 1_700_000_001_000_000_000,
                finished_at: 1_700_000_002_000_000_000,
                ..ContainerStatus::default()
            };
            let answer = ContainerStatusResponse { status: Some(status), ..Default::default() };
            let status = container(&answer).unwrap().value["status"].take();
            ["createdAt", "startedAt", "finishedAt"]
                .map(|key| !status[key].as_str().unwrap().starts_with("0001"))
        };
        assert_eq!(at(ContainerState::ContainerCreated), [true, false, false]);
        assert_eq!(at(ContainerState::ContainerRunning), [true, true, false]);
        assert_eq!(at(ContainerState::ContainerExited), [true, true, true]);
    }

    #[test]
    fn one_is_an_object_and_several_are_an_array() {
        let found = |id: &str| Found { value: json!({ "id": id }), text: format!("ID: {id}\n") };
        let print = |format: &Format, found: Vec<Found>| {
            let mut out = Vec::new();
            print(format, found, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(print(&Format::Json, vec![found("a")]), "{\n  \"id\": \"a\"\n}\n");
        let several: Value =
            serde_json::from_str(&print(&Format::Json, vec![found("a"), found("b")])).unwrap();
        assert_eq!(several, json!([{"id": "a"}, {"id": "b"}]));
        assert_eq!(print(&Format::Table, vec![found("a"), found("b")]), "ID: a\n\nID: b\n");
    }
}
