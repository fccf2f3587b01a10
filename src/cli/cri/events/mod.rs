//! `nodectl cri events`: what happens to containers and pods, as it happens.
//!
//! From CRI's own event stream where there is a usable one. containerd 1.6 and older have none, and that of
//! 1.7 gives each event to one of its listeners only, so that watching would take events from the node's agent:
//! of both the events of containerd's own service are made what CRI's are, with the states asked for. A
//! runtime that goes away is waited for.

mod states;

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use regex::Regex;
use serde_json::Value;

use self::states::{States, Whose};
use super::{
    filter::regex,
    format::{Format, FormatArgs},
    hangup::reader_gone,
    protojson,
    session::Session,
    text::{short_id, time},
};
use crate::{
    api::cri::{ContainerEventResponse, ContainerEventType},
    cli::output::{json_line, printable, yaml},
    cri::{Cri as _, EventSource, Watched},
    error::CommandError,
};

/// Arguments of `nodectl cri events`.
#[derive(Debug, Clone, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Only events of these types
    #[arg(long = "type", value_name = "TYPE", value_enum, value_delimiter = ',', ignore_case = true)]
    types: Vec<TypeArg>,
    /// Only of the container, or of the pod's sandbox, whose id begins so
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only of containers with a name that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    name: Option<String>,
    /// Only of the pod whose id or UID begins so, or of NAMESPACE/NAME; it need not be there yet
    #[arg(short, long, value_name = "POD")]
    pod: Option<String>,
    /// Only of pods in namespaces that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    namespace: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TypeArg {
    Created,
    Started,
    Stopped,
    Deleted,
}

impl From<ContainerEventType> for TypeArg {
    fn from(kind: ContainerEventType) -> Self {
        match kind {
            ContainerEventType::ContainerCreatedEvent => Self::Created,
            ContainerEventType::ContainerStartedEvent => Self::Started,
            ContainerEventType::ContainerStoppedEvent => Self::Stopped,
            ContainerEventType::ContainerDeletedEvent => Self::Deleted,
        }
    }
}

/// What is wanted.
struct Wanted<'a> {
    args: &'a EventsArgs,
    name: Option<Regex>,
    namespace: Option<Regex>,
}

impl Wanted<'_> {
    fn fits(&self, event: &ContainerEventResponse, whose: &Whose) -> bool {
        let kind = TypeArg::from(event.container_event_type());
        let begins = |text: &str, wanted: &str| !text.is_empty() && text.starts_with(wanted);
        let full = format!("{}/{}", whose.namespace, whose.pod);
        (self.args.types.is_empty() || self.args.types.contains(&kind))
            && self.args.id.as_ref().is_none_or(|id| begins(&event.container_id, id))
            && self
                .args
                .pod
                .as_ref()
                .is_none_or(|pod| begins(&whose.sandbox, pod) || begins(&whose.uid, pod) || *pod == full)
            && self
                .name
                .as_ref()
                .is_none_or(|name| whose.container.as_ref().is_some_and(|n| name.is_match(n)))
            && self.namespace.as_ref().is_none_or(|namespace| namespace.is_match(&whose.namespace))
    }
}

pub(super) async fn run(
    args: &EventsArgs,
    session: &Session,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let wanted = Wanted {
        args,
        name: regex("--name", args.name.as_deref())?,
        namespace: regex("--namespace", args.namespace.as_deref())?,
    };
    let version = session.ask("Version", session.cri.version()).await?;
    let who = printable(&format!("{} {}", version.runtime_name, version.runtime_version));
    let release = match version.runtime_name.as_str() {
        "containerd" => version.runtime_version.trim_start_matches('v'),
        _ => "",
    };
    // Known beforehand: that a call is lacking is told late by a runtime that is busy.
    let shared = release.starts_with("1.7.");
    let own_service = release.starts_with("1.");
    let mut states = States::new(session);
    let mut events = session.cri.watch(own_service);
    let mut left = std::pin::pin!(reader_gone());
    let mut note = |text: String| {
        // There is nobody to tell that telling failed.
        writeln!(err, "{}", printable(&text)).ok();
    };
    let (mut source, mut away) = (EventSource::None, false);
    let mut begun = false;
    loop {
        let watched = tokio::select! {
            watched = events.next() => watched,
            () = &mut left => return Ok(()),
        };
        match watched {
            None | Some(Watched::Unsupported) => {
                return Err(CommandError::failed(format!("{who} tells of no events"))
                    .hint("CRI-O does with enable_pod_events = true in its configuration"));
            }
            Some(Watched::From(from)) => {
                if away {
                    note("the runtime is back; what happened meanwhile was not told".to_owned());
                }
                if from != source && from == EventSource::Containerd {
                    let why = if shared {
                        "tells each CRI event to one listener only"
                    } else {
                        "has no CRI events"
                    };
                    note(format!("{who} {why}: these are from containerd's own event service"));
                }
                (source, away) = (from, false);
                states.remember_all().await;
                if !begun && format == Format::Table {
                    begun = true;
                    if !print(out, &row(["TIME", "EVENT", "ID", "NAME", "POD", "NAMESPACE"]))? {
                        return Ok(());
                    }
                }
            }
            Some(Watched::Broken(cause)) => {
                if !away {
                    note(format!("the runtime went away ({cause}); waiting for it"));
                }
                away = true;
            }
            Some(Watched::Event(event)) => {
                let (event, whose) = states.complete(event).await;
                if !wanted.fits(&event, &whose) {
                    continue;
                }
                let text = match shown(&format, &event, &whose)? {
                    Ok(text) => text,
                    Err(why) => {
                        note(format!("warning: the template does not fit an event: {why}"));
                        continue;
                    }
                };
                if !print(out, &text)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Prints at once; false if nobody reads any more.
fn print(out: &mut dyn Write, text: &str) -> Result<bool, CommandError> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::failed(format!("cannot write the output: {error}"))),
    }
}

/// An event's text, or why the template does not fit it.
fn shown(
    format: &Format,
    event: &ContainerEventResponse,
    whose: &Whose,
) -> Result<Result<String, String>, CommandError> {
    let value = || -> Result<Value, CommandError> { protojson::json("ContainerEventResponse", event) };
    Ok(Ok(match format {
        Format::Json => json_line(&value()?)?,
        Format::Yaml => format!("---\n{}", yaml(&value()?)?),
        Format::Template(template) => match template.render(&value()?) {
            Ok(text) => text + "\n",
            Err(error) => return Ok(Err(error.to_string())),
        },
        Format::Table => {
            let at = time(Some(event.created_at));
            let kind = format!("{:?}", TypeArg::from(event.container_event_type()));
            let name = whose.container.as_deref().unwrap_or("-");
            row([&at, &kind, short_id(&event.container_id), name, &whose.pod, &whose.namespace])
        }
    }))
}

/// A line of a table whose lines are not known beforehand.
fn row([time, event, id, name, pod, namespace]: [&str; 6]) -> String {
    let line = format!("{time:<35}   {event:<7}   {id:<13}   {name:<20}   {pod:<30}   {namespace}");
    printable(line.trim_end()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{ContainerMetadata, ContainerStatus, PodSandboxMetadata, PodSandboxStatus};

    fn event(kind: ContainerEventType, id: &str) -> ContainerEventResponse {
        ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: 1_767_225_600_500_000_000,
            pod_sandbox_status: Some(PodSandboxStatus {
                id: "sandbox1".to_owned(),
                metadata: Some(PodSandboxMetadata {
                    name: "web".to_owned(),
                    namespace: "default".to_owned(),
                    uid: "uid-1".to_owned(),
                    attempt: 0,
                }),
                ..PodSandboxStatus::default()
            }),
            containers_statuses: vec![ContainerStatus {
                id: "container1".to_owned(),
                metadata: Some(ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
                ..ContainerStatus::default()
            }],
        }
    }

    fn whose() -> Whose {
        Whose {
            container: Some("main".to_owned()),
            sandbox: "sandbox1".to_owned(),
            namespace: "default".to_owned(),
            pod: "web".to_owned(),
            uid: "uid-1".to_owned(),
        }
    }

    fn args(arguments: &[&str]) -> EventsArgs {
        use clap::FromArgMatches as _;
        let command = EventsArgs::augment_args(clap::Command::new("events"));
        let matches = command.get_matches_from([&["events"], arguments].concat());
        EventsArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn filters_compose() {
        let fits = |arguments: &[&str], whose: &Whose| {
            let args = args(arguments);
            let name = regex("--name", args.name.as_deref()).unwrap();
            let namespace = regex("--namespace", args.namespace.as_deref()).unwrap();
            let wanted = Wanted { args: &args, name, namespace };
            wanted.fits(&event(ContainerEventType::ContainerStartedEvent, "container1"), whose)
        };
        for yes in [
            &[][..],
            &["--type", "started"],
            &["--type", "Stopped,started"],
            &["--id", "contain"],
            &["--name", "^main$", "--namespace", "def"],
            &["-p", "sandb"],
            &["-p", "uid-"],
            &["-p", "default/web", "--type", "started"],
        ] {
            assert!(fits(yes, &whose()), "{yes:?}");
        }
        for no in [
            &["--type", "stopped"][..],
            &["--id", "x"],
            &["--name", "side"],
            &["--namespace", "^kube"],
            &["-p", "default/we"],
            &["-p", "default/web", "--type", "created"],
        ] {
            assert!(!fits(no, &whose()), "{no:?}");
        }
        // Of a sandbox, and of something of which nothing is known.
        assert!(!fits(&["--name", "."], &Whose { container: None, ..whose() }));
        assert!(!fits(&["-p", ""], &Whose::default()));
    }

    #[test]
    fn each_event_is_a_line() {
        let event = event(ContainerEventType::ContainerStoppedEvent, "container1");
        let text = |format: Format| shown(&format, &event, &whose()).unwrap();
        let json = text(Format::Json).unwrap();
        assert_eq!(json.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["containerEventType"], "CONTAINER_STOPPED_EVENT");
        assert_eq!(value["createdAt"], "1767225600500000000");
        assert_eq!(value["podSandboxStatus"]["metadata"]["name"], "web");
        assert_eq!(value["containersStatuses"][0]["metadata"]["name"], "main");
        assert!(text(Format::Yaml).unwrap().starts_with("---\ncontainerEventType: "));
        let template =
            |text: &str| Format::Template(crate::cli::cri::template::Template::parse(text).unwrap());
        assert_eq!(text(template("{{.containerId}}")).unwrap(), "container1\n");
        assert!(text(template("{{.nope}}")).unwrap_err().contains("no field"));
        let table = text(Format::Table).unwrap();
        let cells: Vec<&str> = table.split_whitespace().collect();
        assert_eq!(cells[1..], ["Stopped", "container1", "main", "web", "default"]);
    }
}
