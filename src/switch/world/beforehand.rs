//! What only a try tells before anything is changed: whether each file can be written, and whether containerd reads its
//! configuration, as it is (taken back, it starts on that) and as it would be.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{dump, program};
use crate::switch::{
    containerd::{ConfigFile, Release, check_dump, elsewhere},
    facts::{ContainerdFacts, Facts},
    plan::{Plan, Refusal},
    rooted::Rooted,
    secrets,
    steps::Action,
};

/// For texts that are only looked at.
const SCRATCH: &str = "/run";

/// Tries what the plan needs, and leaves nothing behind.
pub async fn try_out(facts: &Facts, plan: &Plan, files: &Rooted) -> Vec<Refusal> {
    let mut refusals: Vec<Refusal> = unwritable(plan, files).into_iter().collect();
    if let Some(containerd) = facts.containerd.as_ref().filter(|_| files.is_node()) {
        refusals.extend(unreadable(facts, containerd, plan).await);
    }
    refusals
}

fn refusal(message: String, hint: &str) -> Refusal {
    Refusal { message, hint: hint.to_owned(), forceable: false }
}

/// The files that cannot be written or taken away.
fn unwritable(plan: &Plan, files: &Rooted) -> Option<Refusal> {
    let (mut tried, mut wrong) = (BTreeSet::new(), Vec::new());
    for step in &plan.steps {
        let (path, text) = match &step.action {
            Action::WriteFile { path, text, .. } => (path, text.as_str()),
            Action::RemoveFile { path } => (path, ""),
            _ => continue,
        };
        if tried.insert(path)
            && let Err(error) = files.try_write(path, text)
        {
            wrong.push(error.to_string());
        }
    }
    if wrong.is_empty() {
        return None;
    }
    Some(refusal(
        format!("files that are to change cannot be: {}", wrong.join("; ")),
        "see what is mounted there (findmnt), what protects it (lsattr) and how much room there is (df)",
    ))
}

async fn unreadable(facts: &Facts, containerd: &ContainerdFacts, plan: &Plan) -> Option<Refusal> {
    let program = match &containerd.program {
        Some(program) => program.clone(),
        // That it is missing is told by whoever looks for the tools.
        None => program::find("containerd").ok()?,
    };
    let is_there = containerd.config_files.contains(&containerd.config);
    if is_there && let Err(cause) = dump::dump(&program, &containerd.config).await {
        return Some(refusal(
            format!("containerd does not read its configuration as it is: {}", secrets::hide(&cause)),
            "mend it, so that containerd starts on it again should the change be taken back; or move it away to begin \
             with the default",
        ));
    }
    let text = |path: &PathBuf| {
        let new = plan.files.iter().find(|file| file.path == *path).and_then(|file| file.new.clone());
        let old = facts.text(path);
        let changed = new.as_deref().is_some_and(|new| Some(new) != old);
        let text = new.or_else(|| old.map(str::to_owned)).unwrap_or_default();
        (ConfigFile { path: path.clone(), text }, changed)
    };
    let others = containerd.config_files.iter().filter(|path| **path != containerd.config);
    let files: Vec<(ConfigFile, bool)> = [&containerd.config].into_iter().chain(others).map(text).collect();
    if !files.iter().any(|(_, changed)| *changed) {
        return None;
    }
    let release = containerd.release.unwrap_or(Release { major: 1, minor: 6 });
    let planned = async {
        let scratch = Scratch::new().map_err(|error| format!("{SCRATCH}: {error}"))?;
        let placed = elsewhere(&files, &scratch.0, release);
        for file in &placed {
            scratch.write(file).map_err(|error| format!("{}: {error}", file.path.display()))?;
        }
        let Some(main) = placed.first() else { return Ok(()) };
        let dumped = dump::dump(&program, &main.path).await?;
        check_dump(&dumped, plan.expected()).map_err(|problems| problems.join("; "))
    };
    let cause = planned.await.err()?;
    Some(refusal(
        format!("containerd would not read its configuration as it is to be: {}", secrets::hide(&cause)),
        "mend what of it is named there, or ask for --reset-config to begin with the default",
    ))
}

/// A folder for root alone: there may be passwords in what is put there.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = Path::new(SCRATCH).join(format!("nodectl-switch-{}", std::process::id()));
        // One of that name is of a process that is no more.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn write(&self, file: &ConfigFile) -> io::Result<()> {
        let mut open = OpenOptions::new();
        open.write(true).create_new(true).mode(0o600).open(&file.path)?.write_all(file.text.as_bytes())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
