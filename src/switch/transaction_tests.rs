//! Changes that are cut anywhere: by a failing step, or by the end of the program before or after any write.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    rc::Rc,
};

use proptest::prelude::*;

use super::{
    files,
    journal::{Journal, Outcome, Progress, list},
    steps::{Action, Before, Step},
    transaction::{TransactionError, World, roll_back, run},
};

/// A node with real files in a folder and units in a table. After so many doings the power goes.
struct Node {
    root: PathBuf,
    /// What runs, each with the configuration that it was started on.
    active: BTreeMap<String, String>,
    enabled: BTreeSet<String>,
    /// The units' files that systemd has read.
    read: BTreeMap<PathBuf, String>,
    /// Doings that are left before the power goes.
    left: Rc<Cell<usize>>,
    fails: Option<Action>,
}

const POWER: &str = "the power is gone";

impl Node {
    fn new(root: PathBuf) -> Self {
        fs::write(root.join("config.toml"), "old").unwrap();
        fs::write(root.join("stale"), "stale").unwrap();
        let mut node = Self {
            root,
            active: ["socket", "docker", "kubelet"].map(|unit| (unit.to_owned(), "old".to_owned())).into(),
            enabled: ["socket", "docker", "kubelet"].map(str::to_owned).into(),
            read: BTreeMap::new(),
            left: Rc::new(Cell::new(usize::MAX)),
            fails: None,
        };
        node.read = node.files();
        node
    }

    fn files(&self) -> BTreeMap<PathBuf, String> {
        fn walk(folder: &std::path::Path, found: &mut BTreeMap<PathBuf, String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    found.insert(path.clone(), String::new());
                    walk(&path, found);
                } else {
                    found.insert(path.clone(), fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.root, &mut found);
        found
    }

    fn state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        (self.files(), self.active.clone(), self.enabled.clone(), self.read.clone())
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.root.join("config.toml")).unwrap()
    }

    fn start(&mut self, unit: &str) {
        let text = self.configuration();
        self.active.entry(unit.to_owned()).or_insert(text);
    }

    /// The service of a socket ends with it.
    fn stop(&mut self, unit: &str) {
        self.active.remove(unit);
        if unit == "socket" {
            self.active.remove("docker");
        }
    }

    /// The power comes back: what is enabled runs, but for the kubelet while a change is not finished.
    fn boot(&mut self) {
        let text = self.configuration();
        self.active = self.enabled.iter().map(|unit| (unit.clone(), text.clone())).collect();
        if self.root.join("mark").exists() {
            self.active.remove("kubelet");
        }
        self.read = self.files();
    }

    fn spend(&self) -> Result<(), String> {
        let left = self.left.get();
        if left == 0 {
            return Err(POWER.to_owned());
        }
        self.left.set(left - 1);
        Ok(())
    }

    fn plan(&self) -> Vec<Step> {
        let unit = |unit: &str| unit.to_owned();
        let write = |name: &str| Action::WriteFile {
            path: self.root.join(name),
            text: "new".to_owned(),
            mode: 0o644,
            seen: None,
        };
        [
            Action::StopUnit { unit: unit("kubelet") },
            Action::ReloadUnits,
            write("mark"),
            // Before anything is edited, so that taken back they start on what they had.
            Action::StartWhenUndone { units: vec![unit("socket"), unit("docker")] },
            Action::StopUnit { unit: unit("socket") },
            Action::StopUnit { unit: unit("docker") },
            Action::StopUnit { unit: unit("containerd") },
            write("config.toml"),
            write("made/here/hosts.toml"),
            write("made/other"),
            Action::RemoveFile { path: self.root.join("stale") },
            Action::RemoveFile { path: self.root.join("never") },
            Action::DisableUnit { unit: unit("docker") },
            Action::EnableUnit { unit: unit("containerd") },
            Action::ReloadUnits,
            Action::RestartUnit { unit: unit("containerd") },
            Action::RemoveFile { path: self.root.join("mark") },
            Action::RestartUnit { unit: unit("kubelet") },
        ]
        .map(|action| Step { why: format!("{action:?}"), lenient: false, action })
        .into()
    }
}

impl World for Node {
    async fn before(
        &mut self,
        action: &Action,
        step: usize,
        copies: &std::path::Path,
    ) -> Result<Before, String> {
        self.spend()?;
        Ok(match action {
            Action::WriteFile { path, .. } | Action::RemoveFile { path } => {
                match files::save(path, copies, &step.to_string()).unwrap() {
                    Some(saved) => Before::File { saved },
                    None => Before::NoFile { folders: files::missing_folders(path) },
                }
            }
            Action::StopUnit { unit } | Action::RestartUnit { unit } => {
                Before::Unit { active: self.active.contains_key(unit) }
            }
            Action::DisableUnit { unit } | Action::EnableUnit { unit } => {
                Before::UnitFile { enabled: self.enabled.contains(unit) }
            }
            Action::StartWhenUndone { units } => Before::Present {
                names: units.iter().filter(|unit| self.active.contains_key(*unit)).cloned().collect(),
            },
            Action::ReloadUnits => Before::Nothing,
            other => panic!("{other:?}"),
        })
    }

    async fn act(&mut self, action: &Action) -> Result<(), String> {
        self.spend()?;
        if self.fails.as_ref() == Some(action) {
            return Err("broken".to_owned());
        }
        match action {
            Action::WriteFile { path, text, mode, .. } => drop(files::write(path, text, *mode).unwrap()),
            Action::RemoveFile { path } => files::remove(path, &[]).unwrap(),
            Action::StopUnit { unit } => self.stop(unit),
            Action::StartWhenUndone { .. } => {}
            Action::RestartUnit { unit } => {
                self.active.remove(unit);
                self.start(unit);
            }
            Action::DisableUnit { unit } => drop(self.enabled.remove(unit)),
            Action::EnableUnit { unit } => drop(self.enabled.insert(unit.clone())),
            Action::ReloadUnits => self.read = self.files(),
            other => panic!("{other:?}"),
        }
        // The power may go after it is done, too.
        self.spend()
    }

    async fn keep(&mut self, action: &Action) -> Result<(), String> {
        let Action::RestartUnit { unit } = action else { return self.act(action).await };
        self.spend()?;
        self.start(unit);
        Ok(())
    }

    async fn undo(
        &mut self,
        action: &Action,
        before: &Before,
        copies: &std::path::Path,
    ) -> Result<(), String> {
        self.spend()?;
        if self.fails.as_ref() == Some(action) {
            return Err("broken".to_owned());
        }
        match (action, before) {
            (Action::WriteFile { path, .. } | Action::RemoveFile { path }, Before::File { saved }) => {
                files::restore(path, saved, copies).unwrap();
            }
            (Action::WriteFile { path, .. } | Action::RemoveFile { path }, Before::NoFile { folders }) => {
                files::remove(path, folders).unwrap();
            }
            (Action::StopUnit { unit } | Action::RestartUnit { unit }, Before::Unit { active }) => {
                if *active {
                    self.start(unit);
                } else {
                    self.active.remove(unit);
                }
            }
            (Action::DisableUnit { unit } | Action::EnableUnit { unit }, Before::UnitFile { enabled }) => {
                if *enabled {
                    self.enabled.insert(unit.clone())
                } else {
                    self.enabled.remove(unit)
                };
            }
            (Action::StartWhenUndone { .. }, Before::Present { names }) => {
                names.iter().for_each(|unit| self.start(unit));
            }
            (Action::ReloadUnits, Before::Nothing) => self.read = self.files(),
            other => panic!("{other:?}"),
        }
        self.spend()
    }

    fn tell(&mut self, _: &Step, _: bool) {}

    fn warn(&mut self, _: &Step, _: &str) {}
}

struct Scene {
    node: Node,
    journals: tempfile::TempDir,
    _root: tempfile::TempDir,
}

fn world() -> Scene {
    let (root, journals) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Scene { node: Node::new(root.path().to_path_buf()), journals, _root: root }
}

/// Runs to the end or to where the power goes.
fn begin(world: &mut Scene) -> Result<(), TransactionError> {
    let mut journal = Journal::begin(&world.journals.path().join("1"), world.node.plan()).unwrap();
    block_on(run(&mut journal, &mut world.node))?;
    journal.end(Outcome::Done).unwrap();
    Ok(())
}

fn again(world: &Scene) -> Journal {
    let folders = list(world.journals.path()).unwrap();
    Journal::open(&folders[0]).unwrap().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_plan_is_done_and_a_step_that_fails_is_taken_back_with_those_before() {
    let mut world = world();
    let old = world.node.state();
    begin(&mut world).unwrap();
    assert_eq!(again(&world).outcome(), Some(Outcome::Done));
    assert_eq!(world.node.active.get("containerd").map(String::as_str), Some("new"));
    assert!(!world.node.active.contains_key("docker"));
    let new = world.node.state();
    assert_ne!(old, new);
    // What is finished can be taken back too, and when that is cut short it is not finished any more.
    let mut journal = again(&world);
    world.node.left.set(9);
    block_on(roll_back(&mut journal, &mut world.node, "wished")).unwrap_err();
    world.node.left.set(usize::MAX);
    let mut journal = again(&world);
    assert_eq!(journal.outcome(), None);
    block_on(roll_back(&mut journal, &mut world.node, "wished")).unwrap();
    assert_eq!(world.node.state(), old);
    assert!(journal.progress().iter().all(|progress| matches!(progress, Progress::Undone(_))));

    for number in 0..world.node.plan().len() {
        let mut world = self::world();
        let old = world.node.state();
        world.node.fails = Some(world.node.plan()[number].action.clone());
        let error = begin(&mut world).unwrap_err().to_string();
        assert!(error.ends_with(": broken"), "{number}: {error}");
        world.node.fails = None;
        let mut journal = again(&world);
        block_on(roll_back(&mut journal, &mut world.node, &error)).unwrap();
        assert_eq!(world.node.state(), old, "{number}");
        assert_eq!(again(&world).outcome(), Some(Outcome::RolledBack));
    }
}

#[test]
fn what_ended_again_while_it_was_taken_back_is_started_again() {
    let mut world = world();
    let old = world.node.state();
    begin(&mut world).unwrap();
    let mut journal = again(&world);
    let kubelet = Action::StopUnit { unit: "kubelet".to_owned() };
    world.node.fails = Some(kubelet);
    let error = block_on(roll_back(&mut journal, &mut world.node, "wished")).unwrap_err();
    assert!(error.to_string().ends_with(": broken"), "{error}");
    let undone = journal.progress().iter().filter(|progress| matches!(progress, Progress::Undone(_))).count();
    assert_eq!(undone, journal.steps().len() - 1);
    world.node.fails = None;
    world.node.active.clear();
    let mut journal = again(&world);
    block_on(roll_back(&mut journal, &mut world.node, "wished")).unwrap();
    assert_eq!(world.node.state(), old);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The power goes after so many doings, again and again; then one is gone on with, or taken back.
    #[test]
    fn whatever_the_power_cuts_comes_to_one_of_two_ends(
        cuts in prop::collection::vec((0..60_usize, any::<bool>(), 0..40_usize), 1..4), forward in any::<bool>(),
    ) {
        let mut world = world();
        let old = world.node.state();
        let mut reference = self::world();
        begin(&mut reference).unwrap();
        world.node.left.set(cuts[0].0);
        let mut finished = begin(&mut world).is_ok();
        let mut backward = false;
        for (left, back, torn) in &cuts[1..] {
            if finished {
                break;
            }
            tear(&world, *torn);
            world.node.boot();
            world.node.left.set(*left);
            let Some(mut journal) = Journal::open(&world.journals.path().join("1")).unwrap() else { break };
            backward |= back;
            finished = if backward {
                block_on(roll_back(&mut journal, &mut world.node, "x")).is_ok()
            } else {
                block_on(run(&mut journal, &mut world.node)).is_ok()
            };
        }
        world.node.left.set(usize::MAX);
        if !finished {
            world.node.boot();
        }
        if let Some(mut journal) = Journal::open(&world.journals.path().join("1")).unwrap() {
            if forward && !backward {
                block_on(run(&mut journal, &mut world.node)).unwrap();
                let there = |node: &Node| {
                    let root = node.root.clone();
                    let names = node.files().into_iter();
                    let names = names.map(|(path, text)| (path.strip_prefix(&root).unwrap().to_path_buf(), text));
                    (names.collect::<BTreeMap<_, _>>(), node.active.clone(), node.enabled.clone())
                };
                prop_assert_eq!(there(&world.node), there(&reference.node));
            } else {
                block_on(roll_back(&mut journal, &mut world.node, "x")).unwrap();
                prop_assert_eq!(format!("{:?}", world.node.state()), format!("{old:?}"));
            }
        }
    }
}

/// A line that was being written when the power went.
fn tear(world: &Scene, bytes: usize) {
    use std::io::Write as _;
    let line = r#"{"event":"doing","step":3,"before":{"was":"nothing"}}"#;
    let path = world.journals.path().join("1/journal");
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(&line.as_bytes()[..bytes.min(line.len())]).unwrap();
}

#[test]
fn a_journal_that_is_not_one_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1");
    let step = Step { why: "x".to_owned(), lenient: false, action: Action::ReloadUnits };
    let mut journal = Journal::begin(&path, vec![step]).unwrap();
    assert!(Journal::begin(&path, vec![]).is_err());
    journal.doing(0, Before::Nothing).unwrap();
    assert!(journal.undone(7).is_err());
    let told = Journal::open(&path).unwrap_err().to_string();
    assert!(told.contains("line 3: it does not follow"), "{told}");
    fs::write(path.join("journal"), "{\"event\":\"begin\",\"version\":9,\"nodectl\":\"9.9\",\"steps\":[]}\n")
        .unwrap();
    assert!(Journal::open(&path).unwrap_err().to_string().contains("version 9, written by nodectl 9.9"));
    fs::write(path.join("journal"), "{\"event\":\"beg").unwrap();
    assert!(Journal::open(&path).unwrap().is_none());
    fs::write(path.join("journal"), "[]\n").unwrap();
    assert!(Journal::open(&path).unwrap_err().to_string().contains("line 1"));
}
