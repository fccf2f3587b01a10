//! A node that is mounted in a folder: its files are changed, and nothing else of it exists.

use std::path::Path;

use super::{
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

fn of_file(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// A journal of a node that runs, in a folder that holds it.
fn not_here(action: &Action) -> String {
    let kind = serde_json::to_value(action).unwrap_or_default();
    let kind = kind.get("action").and_then(serde_json::Value::as_str).unwrap_or("this");
    format!("{kind} is not possible in a folder: boot the node, and do it there")
}

impl<R: Report> World for Folder<R> {
    async fn before(&mut self, action: &Action, step: usize, copies: &Path) -> Result<Before, String> {
        let (Action::WriteFile { path, .. } | Action::RemoveFile { path }) = action else {
            return Err(not_here(action));
        };
        let saved = self.rooted.save(path, copies, &step.to_string()).map_err(of_file(path))?;
        Ok(match saved {
            Some(saved) => Before::File { saved },
            None => Before::NoFile { folders: self.rooted.missing_folders(path) },
        })
    }

    async fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::WriteFile { path, text, mode } => {
                self.rooted.write(path, text, *mode).map(drop).map_err(of_file(path))
            }
            Action::RemoveFile { path } => self.rooted.remove(path, &[]).map_err(of_file(path)),
            other => Err(not_here(other)),
        }
    }

    async fn keep(&mut self, action: &Action) -> Result<(), String> {
        self.act(action).await
    }

    async fn undo(&mut self, action: &Action, before: &Before, copies: &Path) -> Result<(), String> {
        match (action, before) {
            (Action::WriteFile { path, .. } | Action::RemoveFile { path }, Before::File { saved }) => {
                self.rooted.restore(path, saved, copies).map_err(of_file(path))
            }
            (Action::WriteFile { path, .. } | Action::RemoveFile { path }, Before::NoFile { folders }) => {
                self.rooted.remove(path, folders).map_err(of_file(path))
            }
            (other, _) => Err(not_here(other)),
        }
    }

    fn tell(&mut self, step: &Step, undone: bool) {
        self.report.step(step, undone);
    }

    fn warn(&mut self, step: &Step, cause: &str) {
        self.report.warn(&format!("{}: {cause}", step.why));
    }
}
