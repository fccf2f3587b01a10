//! Units: started, stopped, enabled, and what is told when one does not start.

use std::time::Duration;

use super::program;
use crate::{host::systemd::Systemd, switch::facts::UnitFacts};

/// A service may take its own time-outs, 90 s each by default, for stopping and for starting; dockerd with many
/// containers more.
const JOB: Duration = Duration::from_secs(300);
/// Lines of a unit's journal that are told.
const LINES: &str = "20";
const JOURNAL: Duration = Duration::from_secs(10);

async fn state(systemd: &Systemd, unit: &str) -> Result<UnitFacts, String> {
    systemd.unit(unit).await.map(UnitFacts::from).map_err(|error| error.to_string())
}

/// Whether a unit runs, or is on its way.
pub(super) async fn is_active(systemd: &Systemd, unit: &str) -> Result<bool, String> {
    Ok(state(systemd, unit).await?.runs())
}

/// Whether a unit is started with the node.
pub(super) async fn is_enabled(systemd: &Systemd, unit: &str) -> Result<bool, String> {
    Ok(state(systemd, unit).await?.is_enabled())
}

/// Ends a unit; one that is not there does not run.
pub(super) async fn stop(systemd: &Systemd, unit: &str) -> Result<(), String> {
    systemd.stop(unit, JOB).await.map_err(|error| error.to_string())
}

/// Starts a unit that does not run.
pub(super) async fn start(systemd: &Systemd, unit: &str) -> Result<(), String> {
    let state = state(systemd, unit).await?;
    if !state.exists() || state.active == "active" {
        return Ok(());
    }
    forget_failures(systemd, unit).await;
    match systemd.start(unit, JOB).await {
        Ok(()) => Ok(()),
        Err(error) => Err(with_journal(systemd, unit, error.to_string()).await),
    }
}

/// Starts a unit anew.
pub(super) async fn restart(systemd: &Systemd, unit: &str) -> Result<(), String> {
    forget_failures(systemd, unit).await;
    match systemd.restart(unit, JOB).await {
        Ok(()) => Ok(()),
        Err(error) => Err(with_journal(systemd, unit, error.to_string()).await),
    }
}

/// A unit that was started too often lately would not be; if this fails, the start says why.
async fn forget_failures(systemd: &Systemd, unit: &str) {
    systemd.reset_failed(unit).await.ok();
}

/// Has a unit started with the node, if it is not; one that is not there cannot be.
pub(super) async fn enable(systemd: &Systemd, unit: &str) -> Result<(), String> {
    if state(systemd, unit).await?.is_enabled() {
        return Ok(());
    }
    systemd.enable(unit).await.map(drop).map_err(|error| error.to_string())
}

/// Has a unit not started with the node, if it is; one that is not there is not.
pub(super) async fn disable(systemd: &Systemd, unit: &str) -> Result<(), String> {
    if !state(systemd, unit).await?.is_enabled() {
        return Ok(());
    }
    systemd.disable(unit).await.map(drop).map_err(|error| error.to_string())
}

/// Has systemd read its files.
pub(super) async fn reload(systemd: &Systemd) -> Result<(), String> {
    systemd.reload().await.map_err(|error| error.to_string())
}

/// What went wrong, with systemd's word for it and the unit's last words.
pub(super) async fn with_journal(systemd: &Systemd, unit: &str, cause: String) -> String {
    let mut told = cause;
    if let Ok(service) = systemd.service(unit).await
        && !matches!(service.result.as_str(), "" | "success")
    {
        told = format!("{told} ({unit}: result {}, exit status {})", service.result, service.exit_status);
    }
    match journal(unit).await {
        Some(lines) => format!("{told}\nthe journal of {unit} ends with:\n{lines}"),
        None => told,
    }
}

/// The last lines of a unit's journal, if there is one.
async fn journal(unit: &str) -> Option<String> {
    let program = program::find("journalctl").ok()?;
    let arguments = ["-u", unit, "-n", LINES, "--no-pager", "-o", "cat"];
    let run = program::run(program::command(&program, &arguments), "journalctl", None, JOURNAL);
    let lines = run.await.ok()?.succeeded("journalctl").ok()?;
    let lines = last(lines.trim_end());
    (!lines.is_empty() && !lines.starts_with("-- No entries")).then(|| lines.to_owned())
}

/// The end of a text, from a line's begin; a stack trace in one line can be long.
fn last(text: &str) -> &str {
    const MOST: usize = 4 << 10;
    let from = text.len().saturating_sub(MOST);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let end = text.get(from..).unwrap_or_default();
    match end.split_once('\n') {
        Some((_, rest)) if from > 0 => rest,
        _ => end,
    }
}
