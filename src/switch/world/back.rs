//! What only a look tells before a change is taken back: whether the services that ran before it are still there. Nobody
//! who has moved to containerd for good is kept from removing Docker.

use std::{collections::BTreeSet, path::Path};

use crate::{
    host::systemd::Systemd,
    switch::{
        facts::UnitFacts,
        journal::{Journal, Progress},
        rooted::Rooted,
        steps::{Action, Before},
        systemd::unit,
    },
};

/// Units that are to run, or to be started with the node, and that are not there any more: a sentence for each. Nothing is
/// told of what cannot be found out.
pub async fn gone(journal: &Journal, files: &Rooted) -> Vec<String> {
    let wanted = wanted(journal);
    let Ok(systemd) = Systemd::connect().await else { return Vec::new() };
    let mut told = Vec::new();
    for name in wanted {
        let Ok(found) = systemd.unit(name).await.map(UnitFacts::from) else { continue };
        if found.is_masked() {
            told.push(format!("{name} is masked"));
        // One whose file is gone is known to systemd until it reads its files again.
        } else if !found.exists() || found.fragment.as_ref().is_some_and(|file| !files.exists(file)) {
            told.push(format!("{name} is not there any more"));
        } else if let Some(program) = missing_program(files, name) {
            told.push(format!("{name} starts {program}, which is not there any more"));
        }
    }
    told
}

/// The units that ran, or were enabled, before any of the steps that are to be taken back.
fn wanted(journal: &Journal) -> BTreeSet<&str> {
    let mut wanted = BTreeSet::new();
    for (step, progress) in journal.steps().iter().zip(journal.progress()) {
        let (Progress::Begun(before) | Progress::Done(before)) = progress else { continue };
        match (&step.action, before) {
            (Action::StopUnit { unit } | Action::RestartUnit { unit }, Before::Unit { active: true })
            | (
                Action::DisableUnit { unit } | Action::EnableUnit { unit },
                Before::UnitFile { enabled: true },
            ) => {
                wanted.insert(unit.as_str());
            }
            (Action::StartWhenUndone { .. }, Before::Present { names }) => {
                wanted.extend(names.iter().map(String::as_str));
            }
            _ => {}
        }
    }
    wanted
}

/// The program of a service, if that is not there.
fn missing_program(files: &Rooted, name: &str) -> Option<String> {
    let unit = unit::load(files, name).ok()?;
    let program = &unit.arguments.first()?.text;
    let path = Path::new(program);
    (path.is_absolute() && !files.is_program(path)).then(|| program.clone())
}
