//! Doing the steps of a plan so that they can be gone on with or taken back whenever the program ends.

use std::path::Path;

use thiserror::Error;

use super::{
    journal::{Journal, JournalError, Outcome, Progress},
    steps::{Action, Before, Step},
};

/// What steps are done to. Each of its doings may be repeated: what is as wished already is no error.
pub trait World {
    /// How it is, enough to take the action back. What has to be kept goes into the folder under names that begin
    /// with the step's number.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    fn before(
        &mut self,
        action: &Action,
        step: usize,
        copies: &Path,
    ) -> impl Future<Output = Result<Before, String>>;

    /// Does it.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    fn act(&mut self, action: &Action) -> impl Future<Output = Result<(), String>>;

    /// Sees that it still is as the action, which is done, has left it: a unit that was restarted runs.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    fn keep(&mut self, action: &Action) -> impl Future<Output = Result<(), String>>;

    /// Takes it back, done or not.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    fn undo(
        &mut self,
        action: &Action,
        before: &Before,
        copies: &Path,
    ) -> impl Future<Output = Result<(), String>>;

    /// Is told what is being done.
    fn tell(&mut self, step: &Step, undone: bool);

    /// Is told of a failure that the change goes on after.
    fn warn(&mut self, step: &Step, cause: &str);
}

/// A change that did not come to its end.
#[derive(Debug, Error)]
pub enum TransactionError {
    /// The journal cannot be written. What was done stands, and can be gone on with or taken back.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step failed.
    #[error("{why}: {cause}")]
    Step {
        /// What it is for.
        why: String,
        /// What is wrong.
        cause: String,
    },
}

/// Does all steps that are not done yet, in their order.
///
/// # Errors
/// At the first step that fails and may not; those before it are done.
pub async fn run(journal: &mut Journal, world: &mut impl World) -> Result<(), TransactionError> {
    for step in settled(journal, Direction::On) {
        world.tell(&step, false);
        world.keep(&step.action).await.map_err(|cause| failed(&step, cause))?;
    }
    for number in 0..journal.steps().len() {
        let (Some(step), Some(progress)) =
            (journal.steps().get(number).cloned(), journal.progress().get(number))
        else {
            continue;
        };
        match progress {
            Progress::Done(_) => continue,
            Progress::Begun(_) => {}
            Progress::Waiting | Progress::Undone(_) => {
                let before = world.before(&step.action, number, &journal.copies()).await;
                journal.doing(number, before.map_err(|cause| failed(&step, cause))?)?;
            }
        }
        world.tell(&step, false);
        match world.act(&step.action).await {
            Err(cause) if step.lenient => world.warn(&step, &cause),
            done => done.map_err(|cause| failed(&step, cause))?,
        }
        journal.done(number)?;
    }
    Ok(())
}

/// Which way a change goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    On,
    Back,
}

/// The steps that are done already and that a boot since then undoes: it starts services, and with them pods, that
/// were stopped, and on files as they are in the middle of a change.
fn settled(journal: &Journal, direction: Direction) -> Vec<Step> {
    let done: Vec<&Step> = journal
        .steps()
        .iter()
        .zip(journal.progress())
        .filter(|(_, progress)| matches!(progress, Progress::Done(_)))
        .map(|(step, _)| step)
        .collect();
    let wanted = |(number, step): &(usize, &&Step)| {
        let later = done.get(number + 1..).unwrap_or_default();
        match &step.action {
            Action::StopUnit { unit } | Action::RestartUnit { unit } => {
                !later.iter().any(|later| is_of_unit(&later.action, unit))
            }
            // As long as nothing else may run pods.
            Action::StopDockerPods { .. } => {
                direction == Direction::On
                    && !later.iter().any(|later| matches!(later.action, Action::RestartUnit { .. }))
            }
            Action::ReloadUnits => direction == Direction::On,
            _ => false,
        }
    };
    done.iter().enumerate().filter(wanted).map(|(_, step)| (*step).clone()).collect()
}

/// The steps that an earlier try has taken back and that may not have lasted, the last first: a unit that was started
/// and has failed since, or was not started by a boot in between. Of each unit the first one counts; none is stopped for
/// it, as pods may run there again.
fn undone(journal: &Journal) -> Vec<(Step, Before)> {
    let all: Vec<(&Step, &Progress)> = journal.steps().iter().zip(journal.progress()).collect();
    let lasts = |(number, (step, progress)): (usize, &(&Step, &Progress))| {
        let Progress::Undone(before) = progress else { return None };
        let first = match (&step.action, before) {
            (Action::StopUnit { unit } | Action::RestartUnit { unit }, Before::Unit { active: true }) => {
                !all.iter().take(number).any(|(earlier, _)| is_of_unit(&earlier.action, unit))
            }
            (Action::StartWhenUndone { .. }, _) => true,
            _ => false,
        };
        first.then(|| ((*step).clone(), before.clone()))
    };
    let mut found: Vec<(Step, Before)> = all.iter().enumerate().filter_map(lasts).collect();
    found.reverse();
    found
}

fn is_of_unit(action: &Action, name: &str) -> bool {
    matches!(action, Action::StopUnit { unit } | Action::RestartUnit { unit } if unit == name)
}

/// Takes back all steps that were begun, the last first.
///
/// # Errors
/// At the first step that cannot be taken back; those after it are.
pub async fn roll_back(
    journal: &mut Journal,
    world: &mut impl World,
    why: &str,
) -> Result<(), TransactionError> {
    if journal.rolling_back().is_none() {
        journal.roll_back(why)?;
    }
    for step in settled(journal, Direction::Back) {
        // What a change has broken may not start any more, and is put back below.
        if let Err(cause) = world.keep(&step.action).await {
            world.warn(&step, &cause);
        }
    }
    for (step, before) in undone(journal) {
        world.undo(&step.action, &before, &journal.copies()).await.map_err(|cause| failed(&step, cause))?;
    }
    for number in (0..journal.steps().len()).rev() {
        let (Some(step), Some(progress)) =
            (journal.steps().get(number).cloned(), journal.progress().get(number))
        else {
            continue;
        };
        let (Progress::Begun(before) | Progress::Done(before)) = progress.clone() else { continue };
        world.tell(&step, true);
        world.undo(&step.action, &before, &journal.copies()).await.map_err(|cause| failed(&step, cause))?;
        journal.undone(number)?;
    }
    journal.end(Outcome::RolledBack)?;
    Ok(())
}

fn failed(step: &Step, cause: String) -> TransactionError {
    TransactionError::Step { why: step.why.clone(), cause }
}
