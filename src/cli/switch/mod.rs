//! `nodectl switch-runtime`: from what is asked to a plan, a question, and the change itself.

mod act;
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
        plan::{Plan, PlanError, STATE, plan},
        rooted::Rooted,
        state::{State, entry},
        world::{in_the_way, try_out},
    },
};

/// Does what is asked.
///
/// # Errors
/// [`CommandError`] with the exit code that `docs/switch-runtime.md` lists.
pub async fn run(args: &SwitchArgs, out: &mut impl Write, err: &mut impl Write) -> Result<(), CommandError> {
    let mut call = Call { args, out, err, report: Report::default() };
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
        output::write(call.out, &report.json()?)?;
    }
    done
}

/// A call of the command.
struct Call<'a, O, E> {
    args: &'a SwitchArgs,
    out: &'a mut O,
    err: &'a mut E,
    report: Report,
}

impl<O: Write, E: Write> Call<'_, O, E> {
    async fn run(&mut self) -> Result<(), CommandError> {
        let request = self.args.request()?;
        let root = self.root()?;
        let rooted = match &root {
            Some(root) => Rooted::folder(root).map_err(refused)?,
            None => Rooted::node(),
        };
        let state = State::new(rooted.outside(Path::new(STATE)).map_err(refused)?);
        if let Some(Verb::History) = &self.args.verb {
            let entries: Vec<_> = state.journals().map_err(refused)?.iter().map(entry).collect();
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
        // A dry run leaves nothing, not even a folder.
        let _lock = if looks_only { None } else { Some(state.lock().map_err(refused)?) };
        let unfinished = state.unfinished().map_err(refused)?;
        match (&self.args.verb, unfinished) {
            (_, Some(journal)) => self.go_on(journal, &rooted, looks_only).await,
            (Some(Verb::Rollback { name }), None) => {
                let found = state.finished(name.as_deref()).map_err(refused)?;
                self.take_back(found, name.as_deref(), &rooted, looks_only).await
            }
            (_, None) if self.args.resume || self.args.rollback => {
                self.report.outcome = "nothing-to-do";
                self.tell("there is no change that was cut short; nothing to do\n")?;
                if self.args.output == Format::Json {
                    output::write(self.out, &self.report.json()?)?;
                }
                Ok(())
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
        if plan.changes() {
            let refusals = try_out(facts, &plan, place).await;
            plan.refusals.extend(refusals);
        }
        self.report = Report::new(&plan);
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
        let answer = dialoguer::Confirm::new().with_prompt(question).default(false).interact();
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(CommandError::refused("not confirmed; nothing was changed")),
            Err(error) => Err(CommandError::refused(format!("cannot ask: {error}"))),
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
        if looks_only {
            self.report.outcome = "planned";
            self.report.changed = true;
            let end = if back { "taken back" } else { "gone on with" };
            self.tell(&format!("{said}; it would be {end}\n"))?;
            return self.print_report();
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
        let chosen = dialoguer::Select::new().items(&choices).default(0).interact_opt();
        let chosen = chosen.map_err(|error| CommandError::refused(format!("cannot ask: {error}")))?;
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
        self.report.steps = journal.steps().iter().rev().map(report::step).collect();
        if journal.outcome() == Some(Outcome::RolledBack) {
            self.report.outcome = "nothing-to-do";
            self.tell(&format!("the change {} was taken back already; nothing to do\n", found.name))?;
            return self.print_report();
        }
        let edited = act::edited_since(&journal, place);
        if !edited.is_empty() && !self.args.force {
            let names: Vec<String> = edited.iter().map(|path| path.display().to_string()).collect();
            return Err(CommandError::refused(format!(
                "files were changed since, and would be as before the change {}: {}",
                found.name,
                names.join(", ")
            ))
            .hint("keep a copy of what you need from them, and give --force"));
        }
        if looks_only {
            self.report.outcome = "planned";
            self.report.changed = true;
            self.tell(&format!("the change {} would be taken back, {} steps\n", found.name, found.done))?;
            return self.print_report();
        }
        self.tell(&format!("The change {} is taken back: {} steps.\n", found.name, found.done))?;
        self.confirm("Put everything back?")?;
        let ended = act::take_back(&mut journal, "it was asked for", place).await?;
        self.finish(&journal, ended)
    }

    fn print_report(&mut self) -> Result<(), CommandError> {
        if self.args.output == Format::Json { output::write(self.out, &self.report.json()?) } else { Ok(()) }
    }

    fn finish(&mut self, journal: &Journal, ended: Ended) -> Result<(), CommandError> {
        let backup = journal.folder().display();
        self.report.changed = true;
        match ended {
            Ended::Done { warnings } => {
                self.report.warnings.extend(warnings);
                self.report.outcome = "done";
                if self.args.output == Format::Text {
                    let root = self.args.root.as_ref();
                    let root = root.map(|root| format!(" --root {}", root.display())).unwrap_or_default();
                    let text = format!(
                        "Done. The files as they were are in {backup}; `nodectl switch-runtime rollback{root}` puts them back.\n"
                    );
                    output::write(self.out, &text)?;
                }
            }
            Ended::TakenBack { warnings } => {
                self.report.warnings.extend(warnings);
                self.report.outcome = "rolled-back";
                if self.args.output == Format::Text {
                    output::write(self.out, "Everything is put back as it was.\n")?;
                }
            }
        }
        self.print_report()
    }
}

/// Whether somebody can be asked.
fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    CommandError::refused(error)
}
