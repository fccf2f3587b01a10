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
/// At the first step that fails; those before it are done.
pub async fn run(journal: &mut Journal, world: &mut impl World) -> Result<(), TransactionError> {
    for number in 0..journal.steps().len() {
        let (Some(step), Some(progress)) =
            (journal.steps().get(number).cloned(), journal.progress().get(number))
        else {
            continue;
        };
        match progress {
            Progress::Done(_) => continue,
            Progress::Begun(_) => {}
            Progress::Waiting | Progress::Undone => {
                let before = world.before(&step.action, number, &journal.copies()).await;
                journal.doing(number, before.map_err(|cause| failed(&step, cause))?)?;
            }
        }
        world.tell(&step, false);
        world.act(&step.action).await.map_err(|cause| failed(&step, cause))?;
        journal.done(number)?;
    }
    Ok(())
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
