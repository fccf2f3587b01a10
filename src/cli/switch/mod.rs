//! `nodectl switch-runtime`: from what is asked to a plan, a question, and the change itself.

mod act;
mod ahead;
pub mod args;
mod report;

use std::{
    io::{IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use self::{
    act::Ended,
    args::{Format, SwitchArgs, Verb},
    report::Report,
};
use super::output;
use crate::{
    error::{CommandError, ErrorKind},
    switch::{
        detect::{Where, detect},
        facts::Facts,
        journal::{Journal, Outcome},
        plan::{self, Plan, PlanError, STATE, plan},
        rooted::Rooted,
        state::{Changes, Entry, Lock, State, StateError, entry},
        world::{gone, in_the_way, try_out},
    },
};

/// Where a journal does not help.
const BY_HAND: &str = "put the node back by hand, as docs/switch-runtime.md tells under \"By hand\"";

/// Does what is asked.
///
/// # Errors
/// [`CommandError`] with the exit code that `docs/switch-runtime.md` lists.
pub async fn run(args: &SwitchArgs, out: &mut impl Write, err: &mut impl Write) -> Result<(), CommandError> {
    let mut call = Call { args, out, err, report: Report::default(), lock: None };
    let done = call.run().await;
    if let (Err(error), Format::Json, false) = (&done, args.output, args.detect) {
        let mut report = std::mem::take(&mut call.report);
        report.error = Some(error.to_string());
        (report.outcome, report.changed) = match error.kind {
            ErrorKind::RolledBack => ("rolled-back", false),
            ErrorKind::RollbackFailed => ("failed", true),
            ErrorKind::Refused => ("refused", false),
            _ => ("failed", false),
        };
        // How the change ended counts, not whether somebody reads it.
        if let Err(error) = report.json().and_then(|text| output::write(call.out, &text)) {
            call.tell(&format!("warning: {error}\n")).ok();
        }
    }
    done
}

/// A call of the command.
struct Call<'a, O, E> {
    args: &'a SwitchArgs,
    out: &'a mut O,
    err: &'a mut E,
    report: Report,
    /// Held from before anything is looked at, if there is a folder for it.
    lock: Option<Lock>,
}

impl<O: Write, E: Write> Call<'_, O, E> {
    async fn run(&mut self) -> Result<(), CommandError> {
        let request = self.args.request()?;
        self.contradictions()?;
        let root = self.root()?;
        let rooted = match &root {
            Some(root) => Rooted::folder(root).map_err(refused)?,
            None => Rooted::node(),
        };
        let state = State::new(rooted.outside(Path::new(STATE)).map_err(refused)?);
        if let Some(Verb::History) = &self.args.verb {
            let entries = self.history(&state)?;
            return output::write(self.out, &report::history(&entries, self.args.output)?);
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(CommandError::refused("this needs root").hint("run it with sudo"));
        }
        let place = Where {
            root: root.clone(),
            containerd_version: self.args.containerd_version.clone(),
            kubelet_version: self.args.kubelet_version.clone(),
            docker_socket: None,
            patience: None,
        };
        if self.args.detect {
            let facts = self.detected(&place).await?;
            let text = match self.args.output {
                Format::Json => output::json(&facts)?,
                Format::Text => report::facts_text(&facts),
            };
            return output::write(self.out, &text);
        }
        let looks_only = self.args.dry_run || self.args.check;
        // A dry run leaves nothing, not even a folder; nor does a change that is refused.
        if !looks_only && state.folder().exists() {
            self.lock = Some(state.lock().map_err(refused)?);
        }
        let mut changes = state.changes().map_err(refused)?;
        let unfinished = changes.unfinished();
        if unfinished.is_some()
            && looks_only
            && let Some(process) = state.at_work()
        {
            return Err(refused(StateError::Locked(process)));
        }
        if unfinished.is_none() {
            self.left_behind(&rooted, &changes)?;
        }
        match (&self.args.verb, unfinished) {
            (_, Some(journal)) => self.go_on(journal, &rooted, looks_only).await,
            (Some(Verb::Rollback { name }), None) => {
                let found =
                    changes.finished(name.as_deref()).map_err(|error| refused(error).hint(BY_HAND))?;
                self.take_back(found, name.as_deref(), &rooted, looks_only).await
            }
            (_, None) if self.args.resume || self.args.rollback => {
                self.report.outcome = "nothing-to-do";
                self.tell("there is no change that was cut short; nothing to do\n")?;
                if self.args.rollback && changes.finished(None).is_ok_and(|found| found.is_some()) {
                    self.tell(
                        "the last change that is done is taken back by `nodectl switch-runtime rollback`\n",
                    )?;
                }
                self.print_report()
            }
            (_, None) => {
                let facts = self.detected(&place).await?;
                let mut plan = plan(&facts, &request).map_err(|error| match error {
                    PlanError::Missing(_) => CommandError::refused(error),
                    PlanError::Obstacles(_) => CommandError::refused(error)
                        .hint("mend that, and run this again; --detect shows all that is known"),
                    error => {
                        CommandError::refused(error).hint("mend the file, or move it away, and try again")
                    }
                })?;
                if plan.changes() && root.is_none() {
                    plan.refusals.extend(in_the_way(&request, &facts.node_name).await);
                }
                self.change(&facts, plan, &state, &rooted, looks_only).await
            }
        }
    }

    /// Options that say two things.
    fn contradictions(&self) -> Result<(), CommandError> {
        let SwitchArgs { detect, dry_run, check, resume, rollback, verb, .. } = self.args;
        for (both, names) in [
            (*detect && verb.is_some(), "--detect and a subcommand"),
            ((*resume || *rollback) && verb.is_some(), "--resume or --rollback, and a subcommand"),
            (*dry_run && *check, "--dry-run and --check"),
        ] {
            if both {
                return Err(CommandError::usage(format!("{names} do not go together"))
                    .hint("nodectl switch-runtime --help tells what each does"));
            }
        }
        Ok(())
    }

    /// The changes that were made, and who is at work on one.
    fn history(&self, state: &State) -> Result<Vec<Entry>, CommandError> {
        let changes = state.changes().map_err(|error| match nix::unistd::geteuid().is_root() {
            true => refused(error),
            false => refused(error).hint("run it with sudo"),
        })?;
        let mut entries = changes.entries();
        let open = entries.iter_mut().rfind(|entry| entry.outcome.is_none() && entry.damaged.is_none());
        if let Some(open) = open {
            open.at_work = state.at_work();
        }
        Ok(entries)
    }

    /// Looks whether something of a change is on the node whose journal is not; a journal that cannot be used is told.
    fn left_behind(&mut self, place: &Rooted, changes: &Changes) -> Result<(), CommandError> {
        let left = plan::left_by_a_change().into_iter().find(|path| place.exists(path));
        if let Some(path) = left {
            let why: Vec<String> = changes.damaged.iter().map(|damaged| damaged.why.to_string()).collect();
            let why = if why.is_empty() { "there is no journal of it".to_owned() } else { why.join("; ") };
            return Err(refused(format!(
                "a change of this node was cut short, as {} is there, and it can neither be gone on with nor taken back: {why}",
                path.display()
            ))
            .hint(BY_HAND));
        }
        for damaged in &changes.damaged {
            let warning = format!("an earlier change is passed over: {}", damaged.why);
            self.tell(&format!("warning: {}\n", output::printable(&warning)))?;
            self.report.warnings.push(warning);
        }
        Ok(())
    }

    /// The folder of `--root`, whole; the running node's own root is none.
    fn root(&self) -> Result<Option<PathBuf>, CommandError> {
        let Some(root) = &self.args.root else { return Ok(None) };
        let whole = root
            .canonicalize()
            .map_err(|error| CommandError::usage(format!("--root={}: {error}", root.display())))?;
        if !whole.is_dir() {
            return Err(CommandError::usage(format!("--root={}: is no folder", root.display())));
        }
        Ok(Some(whole))
    }

    async fn detected(&self, place: &Where) -> Result<Facts, CommandError> {
        detect(place).await.map_err(CommandError::failed)
    }

    /// A line for whoever watches.
    fn tell(&mut self, text: &str) -> Result<(), CommandError> {
        output::write(self.err, text)
    }

    async fn change(
        &mut self,
        facts: &Facts,
        mut plan: Plan,
        state: &State,
        place: &Rooted,
        looks_only: bool,
    ) -> Result<(), CommandError> {
        // Also before looking: what cannot be followed cannot be done.
        plan.resolve(|path| place.real(path)).map_err(refused)?;
        // A mounted folder may be read-only and looked at all the same: nothing of it is stopped by a change that fails.
        if plan.changes() && (place.is_node() || !looks_only) {
            let refusals = try_out(facts, &plan, place).await;
            plan.refusals.extend(refusals);
        }
        let warnings = std::mem::take(&mut self.report.warnings);
        self.report = Report::new(&plan);
        self.report.warnings.extend(warnings);
        let json = self.args.output == Format::Json;
        if looks_only || !plan.changes() {
            // A node that is not well is not as asked.
            if !json && (plan.changes() || plan.refusals.is_empty()) {
                output::write(self.out, &report::plan_text(facts, &plan, true))?;
            }
            self.preflight(&plan)?;
            if json {
                output::write(self.out, &self.report.json()?)?;
            }
            return Ok(());
        }
        if !json {
            self.tell(&report::plan_text(facts, &plan, false))?;
        }
        self.preflight(&plan)?;
        self.confirm("Go on?")?;
        if self.lock.is_none() {
            self.lock = Some(state.lock().map_err(refused)?);
            if !state.changes().map_err(refused)?.entries().is_empty() {
                return Err(CommandError::refused(
                    "another nodectl switch-runtime was at work on this node meanwhile",
                )
                .hint("run this again, to see what is left to be done"));
            }
        }
        // Whoever was asked may have looked for long.
        let changed = act::changed_meanwhile(&plan.steps, place);
        if !changed.is_empty() {
            return Err(CommandError::refused(format!(
                "files were changed since they were looked at: {}",
                named(&changed)
            ))
            .hint("run this again, to plan with what they say now"));
        }
        let folder = state.folder_for(Timestamp::now());
        self.report.backup_dir = Some(folder.display().to_string());
        let mut journal = Journal::begin(&folder, plan.steps.clone()).map_err(refused)?;
        let ended = act::apply(&mut journal, place).await?;
        self.finish(&journal, ended)
    }

    /// What stands in the way, all of it at once.
    fn preflight(&mut self, plan: &Plan) -> Result<(), CommandError> {
        let standing: Vec<_> =
            plan.refusals.iter().filter(|refusal| !(refusal.forceable && self.args.force)).collect();
        for refusal in plan.refusals.iter().filter(|refusal| refusal.forceable && self.args.force) {
            self.tell(&format!("forced: {}\n", output::printable(&refusal.message)))?;
        }
        let Some((first, others)) = standing.split_first() else { return Ok(()) };
        for other in others {
            self.tell(&format!(
                "refused: {}\nhint: {}\n",
                output::printable(&other.message),
                output::printable(&other.hint)
            ))?;
        }
        Err(CommandError::refused(first.message.clone()).hint(first.hint.clone()))
    }

    fn confirm(&mut self, question: &str) -> Result<(), CommandError> {
        if self.args.yes {
            return Ok(());
        }
        if !is_terminal() {
            return Err(CommandError::refused("nobody is asked without a terminal")
                .hint("give --yes to go on without being asked, or --dry-run to look at the steps alone"));
        }
        match asked(|| dialoguer::Confirm::new().with_prompt(question).default(false).interact())? {
            Some(true) => Ok(()),
            _ => Err(CommandError::refused("not confirmed; nothing was changed")),
        }
    }

    /// A change that was cut short is there.
    async fn go_on(
        &mut self,
        mut journal: Journal,
        place: &Rooted,
        looks_only: bool,
    ) -> Result<(), CommandError> {
        let found = entry(&journal);
        self.report.backup_dir = Some(found.backup_dir.display().to_string());
        self.report.steps = journal.steps().iter().map(report::step).collect();
        let taken_back = journal.rolling_back().map(str::to_owned);
        let state = match &taken_back {
            None => format!("cut short after {} of {} steps", found.done, found.steps),
            Some(_) => "cut short while it was being taken back".to_owned(),
        };
        let said = format!("the change {} of this node was {state}", found.name);
        let hint = if taken_back.is_some() {
            "--rollback takes the rest of it back"
        } else {
            "--resume goes on with it, --rollback puts everything back"
        };
        let rolls_back = self.args.rollback || matches!(self.args.verb, Some(Verb::Rollback { .. }));
        let resumes = self.args.resume && taken_back.is_none();
        let back = if rolls_back {
            true
        } else if resumes {
            false
        } else if is_terminal() && !self.args.yes && !self.args.resume && !looks_only {
            self.tell(&format!("{said}.\n"))?;
            self.ask(taken_back.is_some())?
        } else {
            return Err(CommandError::refused(said).hint(hint));
        };
        self.edits(&journal, place, back)?;
        if back {
            act::look_at_copies(&journal)?;
            self.way_back(&journal, place).await?;
        }
        if looks_only {
            let end = if back { "taken back" } else { "gone on with" };
            self.tell(&format!("{said}; it would be {end}\n"))?;
            let left = if back { ahead::back(&journal, place)? } else { ahead::on(&journal, place)? };
            return self.print_ahead(&left, back);
        }
        let ended = if back {
            act::take_back(&mut journal, "it was asked for", place).await?
        } else {
            act::apply(&mut journal, place).await?
        };
        self.finish(&journal, ended)
    }

    /// Whether it is to be taken back.
    fn ask(&self, only_back: bool) -> Result<bool, CommandError> {
        let mut choices = vec!["put everything back", "do nothing now"];
        if !only_back {
            choices.insert(0, "go on with it");
        }
        let chosen = asked(|| dialoguer::Select::new().items(&choices).default(0).interact_opt())?.flatten();
        match chosen.and_then(|number| choices.get(number)) {
            Some(&"go on with it") => Ok(false),
            Some(&"put everything back") => Ok(true),
            _ => Err(CommandError::refused("nothing was changed")
                .hint("--resume goes on with it, --rollback puts everything back")),
        }
    }

    /// A change that is done is undone.
    async fn take_back(
        &mut self,
        found: Option<Journal>,
        name: Option<&str>,
        place: &Rooted,
        looks_only: bool,
    ) -> Result<(), CommandError> {
        let Some(mut journal) = found else {
            let which = name.map_or_else(|| "is done".to_owned(), |name| format!("is named {name}"));
            return Err(CommandError::refused(format!("there is no change of this node that {which}"))
                .hint("nodectl switch-runtime history lists them"));
        };
        let found = entry(&journal);
        self.report.backup_dir = Some(found.backup_dir.display().to_string());
        if journal.outcome() == Some(Outcome::RolledBack) {
            self.report.outcome = "nothing-to-do";
            self.tell(&format!("the change {} was taken back already; nothing to do\n", found.name))?;
            return self.print_report();
        }
        self.report.steps = journal.steps().iter().rev().map(report::step).collect();
        self.edits(&journal, place, true)?;
        act::look_at_copies(&journal)?;
        self.way_back(&journal, place).await?;
        if looks_only {
            self.tell(&format!("the change {} would be taken back, {} steps\n", found.name, found.done))?;
            return self.print_ahead(&ahead::back(&journal, place)?, true);
        }
        self.tell(&format!("The change {} is taken back: {} steps.\n", found.name, found.done))?;
        self.confirm("Put everything back?")?;
        let ended = act::take_back(&mut journal, "it was asked for", place).await?;
        self.finish(&journal, ended)
    }

    /// Sees that nothing is lost that somebody has written into a change's files since.
    fn edits(&self, journal: &Journal, place: &Rooted, back: bool) -> Result<(), CommandError> {
        let name = entry(journal).name;
        if back {
            let edited = act::edited_since(journal, place);
            if edited.is_empty() || self.args.force {
                return Ok(());
            }
            let names = named(&edited);
            return Err(CommandError::refused(format!(
                "files were changed since, and would be as before the change {name}: {names}"
            ))
            .hint("keep a copy of what you need from them, and give --force"));
        }
        let edited = act::edited_ahead(journal, place);
        if edited.is_empty() {
            return Ok(());
        }
        let names = named(&edited);
        Err(CommandError::refused(format!("files were changed since the change {name} was planned: {names}"))
            .hint(
                "put them back as they were then; or take the change back with --rollback, and run it anew",
            ))
    }

    /// Sees that what is to run again is there to be run.
    async fn way_back(&mut self, journal: &Journal, place: &Rooted) -> Result<(), CommandError> {
        if !place.is_node() {
            return Ok(());
        }
        let gone = gone(journal, place).await;
        if gone.is_empty() {
            return Ok(());
        }
        let told = format!("what ran before the change {} cannot: {}", entry(journal).name, gone.join("; "));
        if self.args.force {
            return self.tell(&format!("forced: {}\n", output::printable(&told)));
        }
        Err(CommandError::refused(told).hint("install it again as it was; --force goes on all the same"))
    }

    /// What a change that was begun has ahead of it.
    fn print_ahead(&mut self, ahead: &Plan, back: bool) -> Result<(), CommandError> {
        self.report.outcome = "planned";
        self.report.changed = true;
        self.report.steps = ahead.steps.iter().map(report::step).collect();
        self.report.diff = ahead.diff();
        if self.args.output == Format::Text {
            output::write(self.out, &report::ahead_text(ahead, back))?;
        }
        self.print_report()
    }

    fn print_report(&mut self) -> Result<(), CommandError> {
        if self.args.output == Format::Json { output::write(self.out, &self.report.json()?) } else { Ok(()) }
    }

    /// Tells how it ended. That stands, whether or not anybody reads it.
    fn finish(&mut self, journal: &Journal, ended: Ended) -> Result<(), CommandError> {
        let backup = journal.folder().display();
        self.report.changed = true;
        let text = match ended {
            Ended::Done { warnings } => {
                self.report.warnings.extend(warnings);
                self.report.outcome = "done";
                let root = self.args.root.as_ref();
                let root = root.map(|root| format!(" --root {}", root.display())).unwrap_or_default();
                format!(
                    "Done. The files as they were are in {backup}; `nodectl switch-runtime rollback{root}` puts them back.\n"
                )
            }
            Ended::TakenBack { warnings } => {
                self.report.warnings.extend(warnings);
                self.report.outcome = "rolled-back";
                "Everything is put back as it was.\n".to_owned()
            }
        };
        let printed = match self.args.output {
            Format::Text => output::write(self.out, &text),
            Format::Json => self.print_report(),
        };
        if let Err(error) = printed {
            self.tell(&format!("warning: {error}\n")).ok();
        }
        Ok(())
    }
}

/// Asks; Ctrl-C is no answer, and leaves the terminal as it was.
fn asked<T>(ask: impl FnOnce() -> dialoguer::Result<T>) -> Result<Option<T>, CommandError> {
    let cannot = |error: &dyn std::fmt::Display| CommandError::refused(format!("cannot ask: {error}"));
    // Whoever is asked has the cursor hidden, and the signal that Ctrl-C is made into would end the program so.
    let _kept = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|error| cannot(&error))?;
    let answer = ask();
    dialoguer::console::Term::stderr().show_cursor().ok();
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(dialoguer::Error::IO(error)) if error.kind() == std::io::ErrorKind::Interrupted => {
            std::io::stderr().write_all(b"\n").ok();
            Ok(None)
        }
        Err(error) => Err(cannot(&error)),
    }
}

/// Paths in a sentence.
fn named(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether somebody can be asked.
fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    CommandError::refused(error)
}
