//! `nodectl cri runtimes`: which runtimes are on this node, and what became of those of the past.

use std::{io::Write, time::Duration};

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{
    format::{Format, FormatArgs},
    past::{self, Past},
    pods::handler,
    protojson,
};
use crate::{
    api::{
        cri::{RuntimeHandler, StatusResponse, VersionResponse},
        suggest::nearest,
    },
    cli::output::{Table, printable},
    cri::{Cri as _, CriClient, CriError, CriTimeouts, RuntimeEndpoint},
    error::CommandError,
};

/// Arguments of `nodectl cri runtimes`.
#[derive(Debug, Clone, Args)]
pub(super) struct RuntimesArgs {
    /// A runtime of the past: what became of it, and what to use now
    #[arg(value_name = "NAME", conflicts_with = "past")]
    name: Option<String>,
    /// List all runtimes of the past that are known here
    #[arg(long)]
    past: bool,
    #[command(flatten)]
    format: FormatArgs,
}

/// A socket and what is behind it.
struct Found {
    endpoint: RuntimeEndpoint,
    /// Where it was given, for one that is none of the known ones.
    origin: Option<String>,
    /// The runtime of the past that listened there.
    past: Option<&'static Past>,
    answer: Result<(VersionResponse, Result<StatusResponse, CriError>), CriError>,
}

/// What is told of the past.
pub(super) fn of_the_past(args: &RuntimesArgs, out: &mut dyn Write) -> Option<Result<(), CommandError>> {
    let told: Vec<&Past> = match &args.name {
        None if args.past => past::ALL.iter().collect(),
        None => return None,
        Some(name) => match past::find(name) {
            Some(past) => vec![past],
            None => return Some(Err(not_of_the_past(name))),
        },
    };
    Some(args.format.format(Format::Table).and_then(|format| {
        let value = || {
            let list: Vec<Value> = told.iter().map(|past| past_value(past)).collect();
            Ok(if args.past { json!({ "past": list }) } else { list.into_iter().next().unwrap_or_default() })
        };
        format.print(out, value, || {
            let texts: Vec<String> = told.iter().map(|past| past_text(past)).collect();
            texts.join("\n")
        })
    }))
}

fn not_of_the_past(name: &str) -> CommandError {
    let told =
        CommandError::usage(printable(&format!("{name:?} is no runtime of the past that is known here")));
    match nearest(name, past::ALL.iter().flat_map(|past| past.aliases.iter().copied())) {
        Some(near) => told.hint(format!("did you mean {near:?}?")),
        None => told.hint(
            "`nodectl cri runtimes --past` lists them, and `nodectl cri runtimes` shows those of this node",
        ),
    }
}

fn past_text(past: &Past) -> String {
    let sockets = past.sockets.iter().map(|socket| format!("  socket:  unix://{socket}\n"));
    format!(
        "{}\n  was:     {}\n  became:  {}\n  now use: {}\n{}",
        past.name,
        past.was,
        past.became,
        past.instead,
        sockets.collect::<String>()
    )
}

fn past_value(past: &Past) -> Value {
    json!({
        "name": past.name,
        "was": past.was,
        "became": past.became,
        "nowUse": past.instead,
        "sockets": past.sockets.iter().map(|socket| format!("unix://{socket}")).collect::<Vec<_>>(),
    })
}

/// Asks all sockets at the same time, each at most `limit`. `given` is what flag, variable or file name.
pub(super) async fn on_this_node(
    args: &RuntimesArgs,
    given: Option<(RuntimeEndpoint, String)>,
    limit: Duration,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let found = look(places(given), limit).await;
    let value = || Ok(json!({ "runtimes": found.iter().map(found_value).collect::<Result<Vec<_>, _>>()? }));
    format.print(out, value, || table(&found))
}

type Place = (RuntimeEndpoint, Option<String>, Option<&'static Past>);

/// What was given, the known sockets, and those of the past that are still there.
fn places(given: Option<(RuntimeEndpoint, String)>) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    places.extend(given.map(|(endpoint, origin)| (endpoint, Some(origin), None)));
    let known = RuntimeEndpoint::well_known().into_iter().map(|endpoint| (endpoint, None, None));
    let past = past::ALL.iter().flat_map(|past| {
        let there = past.sockets.iter().filter(|socket| std::path::Path::new(socket).exists());
        there.filter_map(move |socket| Some((socket.parse::<RuntimeEndpoint>().ok()?, None, Some(past))))
    });
    for place in known.chain(past) {
        match places.iter_mut().find(|(endpoint, ..)| *endpoint == place.0) {
            Some(same) => same.2 = same.2.or(place.2),
            None => places.push(place),
        }
    }
    places
}

async fn look(places: Vec<Place>, limit: Duration) -> Vec<Found> {
    let mut asking = JoinSet::new();
    for (index, (endpoint, origin, past)) in places.into_iter().enumerate() {
        asking.spawn(async move {
            let timeouts = CriTimeouts::from_request_timeout(limit);
            let cri = CriClient::connect_lazy(endpoint.clone(), None, timeouts);
            let answer = match cri.version().await {
                // Verbose, as older runtimes name their handlers in their configuration alone.
                Ok(version) => Ok((version, cri.status(true).await)),
                Err(error) => Err(error),
            };
            (index, Found { endpoint, origin, past, answer })
        });
    }
    let mut found = asking.join_all().await;
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, found)| found).collect()
}

/// The handlers of a status; of containerd before 1.7, which has none there, those of its configuration.
fn handlers(status: &StatusResponse) -> Vec<RuntimeHandler> {
    if !status.runtime_handlers.is_empty() {
        return status.runtime_handlers.clone();
    }
    let config = status.info.get("config").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let runtimes = config.as_ref().and_then(|config| config.pointer("/containerd/runtimes")?.as_object());
    let names = runtimes.map(Map::keys).into_iter().flatten();
    names.map(|name| RuntimeHandler { name: name.clone(), ..RuntimeHandler::default() }).collect()
}

/// What the handler can do, by the interface's own names.
fn features(handler: &RuntimeHandler) -> Result<Vec<String>, CommandError> {
    let value = protojson::go_json("RuntimeHandler", handler)?;
    let features = value.get("features").and_then(Value::as_object);
    let on = features.into_iter().flatten().filter(|(_, on)| **on == Value::Bool(true));
    Ok(on.map(|(name, _)| name.clone()).collect())
}

/// `Ready`, or what is not and why.
fn state(found: &Found) -> String {
    let note = found.past.filter(|_| found.answer.is_err());
    let note = note.map(|past| format!(" (a socket of {}: `nodectl cri runtimes {0}`)", past.name));
    let text = match &found.answer {
        Err(error) => error.message().split(';').next().unwrap_or_default().to_owned(),
        Ok((_, Err(error))) => error.to_string(),
        Ok((_, Ok(status))) => {
            let status = status.status.clone().unwrap_or_default();
            let not = status.conditions.iter().filter(|condition| !condition.status);
            let not: Vec<String> = not
                .map(|condition| {
                    let why = [&condition.reason, &condition.message].map(String::as_str);
                    let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
                    format!("{} is false ({})", condition.r#type, why.join(": "))
                })
                .collect();
            if not.is_empty() { "Ready".to_owned() } else { not.join(", ") }
        }
    };
    text + &note.unwrap_or_default()
}

fn table(found: &[Found]) -> String {
    let mut runtimes = Table::new(["ENDPOINT", "RUNTIME", "VERSION", "API", "STATE"]);
    let mut all = Table::new(["HANDLER", "FEATURES", "ENDPOINT"]);
    let mut some = false;
    for one in found {
        let unknown = || ["-".to_owned(), "-".to_owned(), "-".to_owned()];
        let [name, version, api] = one.answer.as_ref().map_or_else(
            |_| unknown(),
            |(of, _)| [&of.runtime_name, &of.runtime_version, &of.runtime_api_version].map(Clone::clone),
        );
        runtimes.push([one.endpoint.to_string(), name, version, api, state(one)]);
        let Ok((_, Ok(status))) = &one.answer else { continue };
        for of in handlers(status) {
            let can = features(&of).unwrap_or_default();
            let can = if can.is_empty() { "-".to_owned() } else { can.join(",") };
            all.push([handler(&of.name).to_owned(), can, one.endpoint.to_string()]);
            some = true;
        }
    }
    let handlers = if some { format!("\n{}", all.render()) } else { String::new() };
    runtimes.render() + &handlers
}

fn found_value(found: &Found) -> Result<Value, CommandError> {
    let mut value = json!({ "endpoint": found.endpoint.to_string(), "answers": found.answer.is_ok() });
    if let Some(origin) = &found.origin {
        value["origin"] = json!(origin);
    }
    if let Some(past) = found.past {
        value["past"] = json!(past.name);
    }
    match &found.answer {
        Err(error) => value["problem"] = json!(error.message()),
        Ok((version, status)) => {
            value["version"] = protojson::json("VersionResponse", version)?;
            match status {
                Err(error) => value["problem"] = json!(error.to_string()),
                Ok(status) => {
                    let all = handlers(status);
                    let all = all.iter().map(|handler| protojson::json("RuntimeHandler", handler));
                    value["runtimeHandlers"] = Value::Array(all.collect::<Result<_, _>>()?);
                    let status_value = status.status.clone().unwrap_or_default();
                    value["status"] = protojson::json("RuntimeStatus", &status_value)?;
                    if let Some(features) = &status.features {
                        value["features"] = protojson::json("RuntimeFeatures", features)?;
                    }
                }
            }
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{RuntimeCondition, RuntimeHandlerFeatures, RuntimeStatus};
    use crate::cri::CriErrorKind;

    fn found(answer: Result<(VersionResponse, Result<StatusResponse, CriError>), CriError>) -> Found {
        Found { endpoint: "/run/x.sock".parse().unwrap(), origin: None, past: None, answer }
    }

    fn version() -> VersionResponse {
        VersionResponse {
            runtime_name: "containerd".to_owned(),
            runtime_version: "1.6".to_owned(),
            runtime_api_version: "v1".to_owned(),
            ..VersionResponse::default()
        }
    }

    #[test]
    fn handlers_come_from_the_status_or_from_the_configuration_in_it() {
        let config = r#"{"containerd": {"runtimes": {"runc": {}, "kata": {}}}}"#;
        let old = StatusResponse {
            info: [("config".to_owned(), config.to_owned())].into(),
            ..StatusResponse::default()
        };
        let names: Vec<String> = handlers(&old).into_iter().map(|handler| handler.name).collect();
        assert_eq!(names, ["kata", "runc"]);
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true };
        let new = StatusResponse {
            runtime_handlers: vec![RuntimeHandler { name: String::new(), features: Some(features) }],
            ..old
        };
        assert_eq!(
            table(&[found(Ok((version(), Ok(new))))]),
            "ENDPOINT             RUNTIME      VERSION   API   STATE\n\
             unix:///run/x.sock   containerd   1.6       v1    Ready\n\
             \n\
             HANDLER     FEATURES                                     ENDPOINT\n\
             (default)   recursive_read_only_mounts,user_namespaces   unix:///run/x.sock\n"
        );
        for odd in ["", "[]", r#"{"containerd": {"runtimes": 1}}"#] {
            let info = [("config".to_owned(), odd.to_owned())].into();
            assert!(handlers(&StatusResponse { info, ..StatusResponse::default() }).is_empty(), "{odd}");
        }
    }

    #[test]
    fn what_is_not_ready_is_told_with_its_reason() {
        let condition = RuntimeCondition {
            r#type: "NetworkReady".to_owned(),
            status: false,
            reason: "NetworkPluginNotReady".to_owned(),
            message: "cni plugin not initialized".to_owned(),
        };
        let status = StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![condition] }),
            ..StatusResponse::default()
        };
        let one = found(Ok((version(), Ok(status))));
        assert_eq!(state(&one), "NetworkReady is false (NetworkPluginNotReady: cni plugin not initialized)");
        let dead =
            CriError::new("Version", "unix:///run/x.sock", CriErrorKind::Unavailable, "nobody listens");
        let one = Found { past: past::find("dockershim"), ..found(Err(dead)) };
        assert!(state(&one).ends_with("(a socket of dockershim: `nodectl cri runtimes dockershim`)"));
        let value = found_value(&one).unwrap();
        assert_eq!((&value["answers"], &value["past"]), (&json!(false), &json!("dockershim")));
    }

    #[test]
    fn the_past_is_told_by_name_and_as_a_whole() {
        let run = |name: Option<&str>, past| {
            let args = RuntimesArgs { name: name.map(str::to_owned), past, format: FormatArgs::default() };
            let mut out = Vec::new();
            of_the_past(&args, &mut out).map(|told| told.map(|()| String::from_utf8(out).unwrap()))
        };
        let one = run(Some("runv"), false).unwrap().unwrap();
        assert!(one.starts_with("runV\n  was:") && one.contains("now use: Kata Containers"), "{one}");
        let all = run(None, true).unwrap().unwrap();
        assert_eq!(all.matches("now use:").count(), past::ALL.len());
        assert!(run(None, false).is_none());
        let near = run(Some("dockershimm"), false).unwrap().unwrap_err();
        assert!(near.to_string().contains("did you mean \"dockershim\"?"), "{near}");
        assert_eq!(near.kind.code(), 2);
    }
}
