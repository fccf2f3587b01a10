//! A node that is mounted in a folder: its files are changed, and nothing else of it exists.

use std::path::Path;

use super::{
    file_steps,
    rooted::Rooted,
    steps::{Action, Before, Step},
    transaction::World,
    world::Report,
};

/// The folder.
pub struct Folder<R> {
    rooted: Rooted,
    report: R,
}

impl<R: Report> Folder<R> {
    /// A folder that holds a node.
    pub fn new(rooted: Rooted, report: R) -> Self {
        Self { rooted, report }
    }
}

/// A journal of a node that runs, in a folder that holds it.
fn not_here(action: &Action) -> String {
    let kind = serde_json::to_value(action).unwrap_or_default();
    let kind = kind.get("action").and_then(serde_json::Value::as_str).unwrap_or("this");
    format!("{kind} is not possible in a folder: boot the node, and do it there")
}

impl<R: Report> World for Folder<R> {
    async fn before(&mut self, action: &Action, step: usize, copies: &Path) -> Result<Before, String> {
        let (path, seen) = match action {
            Action::WriteFile { path, seen, .. } => (path, seen.as_ref()),
            Action::RemoveFile { path } => (path, None),
            other => return Err(not_here(other)),
        };
        file_steps::before(&self.rooted, path, seen, step, copies)
    }

    async fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::WriteFile { path, text, mode, .. } => file_steps::write(&self.rooted, path, text, *mode),
            Action::RemoveFile { path } => file_steps::remove(&self.rooted, path),
            other => Err(not_here(other)),
        }
    }

    async fn keep(&mut self, action: &Action) -> Result<(), String> {
        self.act(action).await
    }

    async fn undo(&mut self, action: &Action, before: &Before, copies: &Path) -> Result<(), String> {
        match action {
            Action::WriteFile { path, .. } | Action::RemoveFile { path } => {
                file_steps::undo(&self.rooted, path, before, copies)
            }
            other => Err(not_here(other)),
        }
    }

    fn tell(&mut self, step: &Step, undone: bool) {
        self.report.step(step, undone);
    }

    fn warn(&mut self, step: &Step, cause: &str) {
        self.report.warn(&format!("{}: {cause}", step.why));
    }
}
