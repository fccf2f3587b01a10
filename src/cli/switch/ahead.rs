//! What a change that was begun still has ahead of it, either way: its steps, and what its files become.

use std::{collections::BTreeSet, path::Path};

use crate::{
    error::CommandError,
    switch::{
        journal::{Journal, Progress},
        plan::{FileChange, Plan},
        rooted::Rooted,
        steps::{Action, Before, Step},
        systemd::unit::Files as _,
    },
};

/// The steps that are left to be done.
pub(super) fn on(journal: &Journal, place: &Rooted) -> Result<Plan, CommandError> {
    let mut plan = Plan::default();
    for (step, progress) in journal.steps().iter().zip(journal.progress()) {
        if matches!(progress, Progress::Done(_)) {
            continue;
        }
        plan.steps.push(step.clone());
        let (path, new, mode) = match &step.action {
            Action::WriteFile { path, text, mode, .. } => (path, Some(text.clone()), *mode),
            Action::RemoveFile { path } => (path, None, 0o644),
            _ => continue,
        };
        add(&mut plan, step, path, new, mode & 0o077 == 0, place)?;
    }
    Ok(plan)
}

/// The steps that are to be taken back, the last first.
pub(super) fn back(journal: &Journal, place: &Rooted) -> Result<Plan, CommandError> {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for (step, progress) in journal.steps().iter().zip(journal.progress()) {
        let (Progress::Begun(before) | Progress::Done(before)) = progress else { continue };
        plan.steps.push(step.clone());
        let (Action::WriteFile { path, .. } | Action::RemoveFile { path }) = &step.action else { continue };
        // How it was before the first of them is how it is in the end.
        if !seen.insert(path) {
            continue;
        }
        let private = matches!(&step.action, Action::WriteFile { mode, .. } if mode & 0o077 == 0);
        let old = before.text(&journal.copies()).map_err(CommandError::refused)?;
        let private = match before {
            Before::File { saved } => saved.is_private(),
            _ => private,
        };
        add(&mut plan, step, path, old, private, place)?;
    }
    plan.steps.reverse();
    Ok(plan)
}

fn add(
    plan: &mut Plan,
    step: &Step,
    path: &Path,
    new: Option<String>,
    secret: bool,
    place: &Rooted,
) -> Result<(), CommandError> {
    let old = place.read(path).map_err(CommandError::refused)?;
    if old != new {
        let why = step.why.clone();
        plan.files.push(FileChange { path: path.to_owned(), old, new, mode: 0o644, secret, why });
    }
    Ok(())
}
