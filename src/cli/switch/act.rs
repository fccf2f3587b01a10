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
        folder::Folder,
        journal::{Journal, Outcome, Progress},
        rooted::Rooted,
        steps::{Action, Step},
        systemd::unit::Files as _,
        transaction::{TransactionError, World, roll_back, run},
        world::{Carried, Node, Paths, Report},
    },
};

/// Tells whoever watches what is done, on stderr; a terminal that is gone is no failure.
#[derive(Debug, Clone)]
struct Reporter {
    steps: usize,
    told: usize,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Reporter {
    fn new(steps: usize) -> Self {
        Self { steps, told: 0, warnings: Arc::default() }
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
        self.told += 1;
        let back = if undone { "back: " } else { "" };
        say(&format!("[{}/{}] {back}{}\n", self.told, self.steps.max(self.told), printable(&step.why)));
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
            journal.end(Outcome::Done).map_err(CommandError::failed)?;
            Ok(Ended::Done { warnings: reporter.warnings() })
        }
        Err(cause) => {
            say(&format!("failed: {}\nputting everything back\n", printable(&cause)));
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
    let reporter = Reporter::new(journal.steps().len());
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

/// Files that are not as a change has left them.
pub(super) fn edited_since(journal: &Journal, files: &Rooted) -> Vec<PathBuf> {
    let last_of = |number: usize, path: &PathBuf| {
        !journal.steps().iter().skip(number + 1).any(|step| {
            matches!(&step.action, Action::WriteFile { path: later, .. } | Action::RemoveFile { path: later } if later == path)
        })
    };
    let mut edited = Vec::new();
    for (number, (step, progress)) in journal.steps().iter().zip(journal.progress()).enumerate() {
        if !matches!(progress, Progress::Done(_)) {
            continue;
        }
        let (path, wanted) = match &step.action {
            Action::WriteFile { path, text, .. } => (path, Some(text)),
            Action::RemoveFile { path } => (path, None),
            _ => continue,
        };
        if last_of(number, path) && files.read(path).ok().flatten().as_ref() != wanted {
            edited.push(path.clone());
        }
    }
    edited
}
