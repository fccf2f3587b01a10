//! The text of `nodectl explain`: from the whole to the parts, each line with its time and how long ago
//! that was, so that nobody has to compute at three in the morning.

use jiff::Timestamp;

use super::{
    explain::{ContainerLine, Explanation, StateLine},
    output::{age, at, printable},
};
use crate::api::view::{ErrorView, PodStep};

/// Continuation lines stand under the text and not under the label.
const INDENT: &str = "            ";

/// A pod's explanation, each line ended.
pub(super) fn render(pod: &Explanation, now: Timestamp) -> String {
    let mut text = Lines::default();
    text.field("Pod", &format!("{}/{}", pod.namespace, pod.name));
    text.field("UID", &format!("{} (source {})", pod.uid, pod.source));
    let made = pod.created.map(|created| format!(", made {} ago", age(created, now))).unwrap_or_default();
    let restarts = count(pod.restarts, "restart");
    text.field("Status", &format!("{}, {}/{} ready, {restarts}{made}", pod.status, pod.ready, pod.total));
    text.more(pod.message.as_deref().unwrap_or_default());

    let progress = &pod.progress;
    text.field("Step", words(progress.step));
    text.more(&progress.detail);
    text.field("Since", &at(progress.since, now));
    match &progress.last_error {
        Some(error) => last_error(&mut text, error, now),
        None => text.field("Last error", "none"),
    }
    match &progress.next {
        Some(next) => {
            text.field("Next", &next.what);
            let due = next.at.map(|due| at(due, now));
            text.more(&due.unwrap_or_else(|| "as soon as something changes; no time is set".to_owned()));
        }
        None => text.field("Next", "nothing is due"),
    }
    text.0.push_str("Containers\n");
    pod.containers.iter().for_each(|container| text.container(container, now));
    if pod.containers.is_empty() {
        text.0.push_str("  none known\n");
    }
    text.0
}

fn last_error(text: &mut Lines, error: &ErrorView, now: Timestamp) {
    let often = match error.count {
        0 | 1 => String::new(),
        count => format!(", {count} times in a row"),
    };
    text.field("Last error", &format!("{}{often}, {}", error.reason, at(error.at, now)));
    text.more(&error.message);
    error.hints.iter().for_each(|hint| text.more(&format!("hint: {hint}")));
}

/// A step in words.
fn words(step: PodStep) -> &'static str {
    match step {
        PodStep::Rejected => "refused: the node does not take the pod",
        PodStep::WaitingForPredecessor => "waiting until the former pod of this name is gone",
        PodStep::WaitingForRoom => "waiting until pods that make room for it have ended",
        PodStep::WaitingForRuntime => "waiting for the container runtime",
        PodStep::WaitingForServer => "offline: not to be started before the API server is heard",
        PodStep::WaitingForNetwork => "waiting for the pod network",
        PodStep::PreparingVolumes => "making folders and volumes",
        PodStep::CreatingSandbox => "making the pod sandbox",
        PodStep::PullingImage => "pulling an image",
        PodStep::StartingContainer => "starting a container",
        PodStep::Initializing => "running the init containers",
        PodStep::Running => "running",
        PodStep::CrashLoopBackOff => "waiting to start a container again that keeps ending",
        PodStep::Retrying => "waiting to try a failed step again",
        PodStep::Terminating => "stopping the containers",
        PodStep::CleaningUp => "stopped; removing what is left",
        PodStep::Finished => "finished: all containers ended and none is started again",
    }
}

fn count(number: i64, what: &str) -> String {
    match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn field(&mut self, label: &str, text: &str) {
        let label = format!("{label}:");
        self.line(&format!("{label:<width$}", width = INDENT.len()), text);
    }

    /// The lines of a longer text, each under the field above.
    fn more(&mut self, text: &str) {
        text.lines().filter(|line| !line.trim().is_empty()).for_each(|line| self.line(INDENT, line));
    }

    fn line(&mut self, start: &str, text: &str) {
        // Writing to a String does not fail.
        let line = format!("{start}{}", printable(text));
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn container(&mut self, container: &ContainerLine, now: Timestamp) {
        let kind = if container.kind == "container" { "" } else { container.kind };
        let kind = if kind.is_empty() { String::new() } else { format!(" ({kind})") };
        self.line("  ", &format!("{}{kind}: {}", container.name, state(container, now)));
        let mut details = Vec::new();
        if container.restarts > 0 {
            details.push(count(container.restarts.into(), "restart"));
        }
        if !container.image.is_empty() {
            details.push(format!("image {}", container.image));
        }
        self.line("      ", &details.join(", "));
        self.quote(message(&container.state));
        if let Some(last) = &container.last_exit {
            self.line("      ", &format!("before: {}", exit(last, now)));
            self.quote(message(last));
        }
    }

    /// What the runtime or the container itself said; long ones to their last lines, where the cause is.
    fn quote(&mut self, text: &str) {
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.len().saturating_sub(10);
        lines[last..].iter().for_each(|line| self.line("      | ", line));
    }
}

fn message(state: &StateLine) -> &str {
    match state {
        StateLine::Waiting { message, .. } | StateLine::Exited { message, .. } => message,
        StateLine::Unknown | StateLine::Running { .. } => "",
    }
}

fn state(container: &ContainerLine, now: Timestamp) -> String {
    match &container.state {
        StateLine::Unknown => "not made yet".to_owned(),
        StateLine::Waiting { reason, .. } if reason.is_empty() => "waiting".to_owned(),
        StateLine::Waiting { reason, .. } => format!("waiting: {reason}"),
        StateLine::Running { since } => {
            let ready = if container.ready { "ready" } else { "not ready" };
            let since = since.map(|since| format!(" since {}", at(since, now))).unwrap_or_default();
            format!("running{since}, {ready}")
        }
        exited @ StateLine::Exited { .. } => exit(exited, now),
    }
}

fn exit(state: &StateLine, now: Timestamp) -> String {
    let StateLine::Exited { reason, exit_code, started, finished, .. } = state else { return String::new() };
    let mut text = format!("exited with code {exit_code}");
    let signal = exit_code - 128;
    let killed = if (1..=64).contains(&signal) { format!("signal {signal}") } else { String::new() };
    let why: Vec<&str> = [reason.as_str(), &killed].into_iter().filter(|part| !part.is_empty()).collect();
    if !why.is_empty() {
        text = format!("{text} ({})", why.join(", "));
    }
    if let Some(finished) = finished {
        text = format!("{text} at {}", at(*finished, now));
    }
    if let (Some(started), Some(finished)) = (started, finished) {
        text = format!("{text}, ran {}", age(*started, *finished));
    }
    text
}
