//! The change itself, done or taken back, with signals: one that ends a program takes the change back first, so that
//! nothing half-done survives Ctrl-C or the end of a session.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{cri::signals::Signals, output::printable},
    error::{CommandError, ErrorKind},
    switch::{
        files,
        folder::Folder,
        journal::{Journal, Outcome, Progress},
        rooted::Rooted,
        steps::{Action, Before, Seen, Step},
        systemd::unit::Files as _,
        transaction::{TransactionError, World, roll_back, run},
        world::{Carried, Node, Paths, Report},
    },
};

/// Tells whoever watches what is done, on stderr; a terminal that is gone is no failure.
#[derive(Debug, Clone)]
struct Reporter {
    progress: Arc<Mutex<Told>>,
    warnings: Arc<Mutex<Vec<String>>>,
}

/// How many steps were told, of how many.
#[derive(Debug)]
struct Told {
    steps: usize,
    told: usize,
}

impl Reporter {
    fn new(steps: usize) -> Self {
        Self { progress: Arc::new(Mutex::new(Told { steps, told: 0 })), warnings: Arc::default() }
    }

    /// What is told from now on is the way back.
    fn turns_back(&self, journal: &Journal) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) =
            Told { steps: begun(journal), told: 0 };
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).ok();
}

impl Report for Reporter {
    fn step(&mut self, step: &Step, undone: bool) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.told += 1;
        let undo = if undone { "undo: " } else { "" };
        let (told, of) = (progress.told, progress.steps.max(progress.told));
        say(&format!("[{told}/{of}] {undo}{}\n", printable(&step.why)));
    }

    fn warn(&mut self, text: &str) {
        say(&format!("warning: {}\n", printable(text)));
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(printable(text));
    }

    fn waits(&mut self, text: &str) {
        say(&format!("    {}\n", printable(text)));
    }

    fn carried(&mut self, progress: &Carried<'_>) {
        let Carried { image, number, of, bytes, done } = *progress;
        let line = format!("    image {number}/{of}: {}, {} MiB", printable(image), bytes >> 20);
        if std::io::stderr().is_terminal() {
            say(&format!("\r{line}\u{1b}[K{}", if done { "\n" } else { "" }));
        } else if done {
            say(&format!("{line}\n"));
        }
    }
}

/// How many steps there are to be taken back.
fn begun(journal: &Journal) -> usize {
    let begun = |progress: &&Progress| matches!(progress, Progress::Begun(_) | Progress::Done(_));
    journal.progress().iter().filter(begun).count()
}

/// How it ended.
pub(super) enum Ended {
    /// All steps are done.
    Done {
        /// Failures that it went on after.
        warnings: Vec<String>,
    },
    /// Everything is as it was, as was asked.
    TakenBack {
        /// What is not well all the same.
        warnings: Vec<String>,
    },
}

/// Does what is left of a change; a step that fails, and a signal, take everything back.
///
/// # Errors
/// [`ErrorKind::RolledBack`], or [`ErrorKind::RollbackFailed`] with what to do by hand.
pub(super) async fn apply(journal: &mut Journal, place: &Rooted) -> Result<Ended, CommandError> {
    let reporter = Reporter::new(journal.steps().len());
    if place.is_node() {
        apply_to(journal, Node::new(reporter.clone(), Paths::default()), &reporter).await
    } else {
        apply_to(journal, Folder::new(place.clone(), reporter.clone()), &reporter).await
    }
}

async fn apply_to(
    journal: &mut Journal,
    mut world: impl World,
    reporter: &Reporter,
) -> Result<Ended, CommandError> {
    let mut signals = listen()?;
    let done = tokio::select! {
        done = run(journal, &mut world) => done.map_err(|error| error.to_string()),
        number = signals.next() => Err(format!("interrupted by {}", name(number))),
    };
    match done {
        Ok(()) => {
            journal.end(Outcome::Done).map_err(|error| {
                CommandError::new(
                    ErrorKind::RollbackFailed,
                    format!("all steps are done, and that cannot be written down: {error}"),
                )
                .hint("mend that, and run `nodectl switch-runtime --resume` to end it, or --rollback")
            })?;
            Ok(Ended::Done { warnings: reporter.warnings() })
        }
        Err(cause) => {
            say(&format!("failed: {}\nputting everything back\n", printable(&cause)));
            reporter.turns_back(journal);
            let back = back(journal, &mut world, &cause, &mut signals).await;
            back.map_err(|error| stuck(journal, &cause, &error))?;
            Err(CommandError::new(ErrorKind::RolledBack, cause).hint("everything was put back as it was"))
        }
    }
}

/// Takes a change back.
///
/// # Errors
/// [`ErrorKind::RollbackFailed`] with what to do by hand.
pub(super) async fn take_back(
    journal: &mut Journal,
    why: &str,
    place: &Rooted,
) -> Result<Ended, CommandError> {
    let reporter = Reporter::new(begun(journal));
    let mut signals = listen()?;
    let done = if place.is_node() {
        back(journal, &mut Node::new(reporter.clone(), Paths::default()), why, &mut signals).await
    } else {
        back(journal, &mut Folder::new(place.clone(), reporter.clone()), why, &mut signals).await
    };
    done.map_err(|error| stuck(journal, why, &error))?;
    Ok(Ended::TakenBack { warnings: reporter.warnings() })
}

/// Signals do not stop it: what they ask for is what it does.
async fn back(
    journal: &mut Journal,
    world: &mut impl World,
    why: &str,
    signals: &mut Signals,
) -> Result<(), TransactionError> {
    let mut done = std::pin::pin!(roll_back(journal, world, why));
    loop {
        tokio::select! {
            done = &mut done => return done,
            _ = signals.next() => {}
        }
    }
}

fn listen() -> Result<Signals, CommandError> {
    // A session that ends takes its terminal along, and a change goes on without one.
    let kept = signal(SignalKind::hangup())
        .and_then(|_| Signals::listen([SignalKind::interrupt(), SignalKind::terminate()]));
    kept.map_err(|error| CommandError::failed(format!("cannot listen for signals: {error}")))
}

fn name(number: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(number).map_or("a signal", nix::sys::signal::Signal::as_str)
}

/// A rollback that failed itself.
fn stuck(journal: &Journal, cause: &str, error: &TransactionError) -> CommandError {
    let left: Vec<String> = journal
        .steps()
        .iter()
        .zip(journal.progress())
        .rev()
        .filter(|(_, progress)| matches!(progress, Progress::Begun(_) | Progress::Done(_)))
        .filter_map(|(step, _)| by_hand(&step.action))
        .collect();
    let mut told = CommandError::new(
        ErrorKind::RollbackFailed,
        format!("{cause}; and putting everything back failed: {error}"),
    )
    .hint("mend that, and run `nodectl switch-runtime --rollback` to go on")
    .hint(format!("the files as they were are in {}", journal.copies().display()));
    if !left.is_empty() {
        told = told.hint(format!("still as changed: {}", left.join("; ")));
    }
    told
}

/// What undoing a step by hand is about.
fn by_hand(action: &Action) -> Option<String> {
    Some(match action {
        Action::WriteFile { path, .. } | Action::RemoveFile { path } => {
            format!("the file {}", path.display())
        }
        Action::StopUnit { unit } | Action::RestartUnit { unit } => format!("whether {unit} runs"),
        Action::EnableUnit { unit } | Action::DisableUnit { unit } => format!("whether {unit} is enabled"),
        Action::StopPodsWhenUndone { endpoint } => format!("pods in {endpoint}"),
        Action::Cordon { node, .. } => format!("the node {node} is cordoned"),
        _ => return None,
    })
}

/// Files that a change has written, or was about to, and that somebody has changed since: taken back, what stands there now
/// would be lost.
pub(super) fn edited_since(journal: &Journal, files: &Rooted) -> Vec<PathBuf> {
    let begun = |progress: &Progress| matches!(progress, Progress::Begun(_) | Progress::Done(_));
    edited(journal, files, begun)
}

/// Files that a change has yet to write, and that somebody has changed since it was planned: gone on with, what stands there
/// now would be lost.
pub(super) fn edited_ahead(journal: &Journal, files: &Rooted) -> Vec<PathBuf> {
    edited(journal, files, |progress| !matches!(progress, Progress::Done(_)))
}

/// Of the files whose steps came so far, those that are neither as they were nor as they are to be.
fn edited(journal: &Journal, files: &Rooted, counts: impl Fn(&Progress) -> bool) -> Vec<PathBuf> {
    let mut edited = Vec::new();
    let steps = journal.steps().iter().zip(journal.progress()).filter(|(_, progress)| counts(progress));
    let steps: Vec<_> = steps.collect();
    for (number, (step, progress)) in steps.iter().enumerate() {
        let (path, wanted, seen) = match &step.action {
            Action::WriteFile { path, text, seen, .. } => (path, Some(text.as_str()), seen.as_ref()),
            Action::RemoveFile { path } => (path, None, None),
            _ => continue,
        };
        let touched_again = steps.iter().skip(number + 1).any(|(later, _)| {
            matches!(&later.action, Action::WriteFile { path: later, .. } | Action::RemoveFile { path: later } if later == path)
        });
        if touched_again {
            continue;
        }
        let Ok(now) = files.read(path) else {
            edited.push(path.clone());
            continue;
        };
        let as_before = match progress {
            Progress::Waiting => seen.is_none_or(|seen| *seen == Seen::of(now.as_deref())),
            Progress::Begun(before) | Progress::Done(before) | Progress::Undone(before) => {
                before.text(&journal.copies()).is_ok_and(|before| before == now)
            }
        };
        if !as_before && now.as_deref() != wanted {
            edited.push(path.clone());
        }
    }
    edited
}

/// Files that somebody has changed since a change was planned on them.
pub(super) fn changed_meanwhile(steps: &[Step], files: &Rooted) -> Vec<PathBuf> {
    let changed = steps.iter().filter_map(|step| match &step.action {
        Action::WriteFile { path, seen: Some(seen), .. } => {
            let same = files.read(path).is_ok_and(|now| Seen::of(now.as_deref()) == *seen);
            (!same).then(|| path.clone())
        }
        _ => None,
    });
    changed.collect()
}

/// Sees that all files that are to be put back can be.
///
/// # Errors
/// [`ErrorKind::Refused`], with the copies that are not there or cannot be read.
pub(super) fn look_at_copies(journal: &Journal) -> Result<(), CommandError> {
    let mut lost = Vec::new();
    for (step, progress) in journal.steps().iter().zip(journal.progress()) {
        let (Progress::Begun(Before::File { saved }) | Progress::Done(Before::File { saved })) = progress
        else {
            continue;
        };
        let (Action::WriteFile { path, .. } | Action::RemoveFile { path }) = &step.action else { continue };
        if let Err(error) = files::read_copy(saved, &journal.copies()) {
            lost.push(format!("{}: {error}", path.display()));
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let all = lost.join("; ");
    let told = CommandError::refused(format!("files cannot be put back as they were: {all}"));
    Err(told.hint(format!(
        "nothing was changed; the copies belong in {}, if there is a backup of them",
        journal.copies().display()
    )))
}
