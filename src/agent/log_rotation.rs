//! Rotates the logs of running containers: by size, some files of each kept, older ones compressed, the
//! runtime told to open the log anew. Names and numbers are decided in [`crate::policy::log_rotation`].
//!
//! Nothing of a rotation is kept in memory. Whatever state an agent that was killed has left is where the
//! next one goes on: a half-made file is removed, and a log that was renamed with the runtime not told is
//! opened anew, while the runtime went on writing to the renamed file. No line is lost on any of these ways.
//! A few rotations run at once and all file work is on blocking threads, so that a large log or a slow disk
//! holds up neither pods nor the other logs.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::pleg::Pleg;
use crate::{
    api::{ContainerId, ContainerState, ObservedContainer},
    cri::Cri,
    error::chain,
    host::log_file::{LogFile, LogRoot},
    policy::log_rotation::{before_rotation, compressed_names, leftovers, rotated_name},
};

/// Each rotation may take a blocking thread for as long as its compression takes, and others need some too.
const MOST_WORKERS: u32 = 8;

/// When logs are rotated and what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationSettings {
    /// The folder of all pods' logs; logs elsewhere are left alone.
    pub pod_logs: PathBuf,
    /// Size in bytes from which on a log is rotated.
    pub max_size: u64,
    /// Most files of one container, the present log among them; at least 2.
    pub max_files: u32,
    /// Most logs rotated at once; over 8 counts as 8.
    pub workers: u32,
    /// Time between two looks at all sizes.
    pub interval: Duration,
}

/// The task. See the module.
pub struct LogRotation {
    cri: Arc<dyn Cri>,
    pleg: Arc<Pleg>,
    settings: RotationSettings,
    workers: Semaphore,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Logs that are being rotated.
    busy: HashSet<ContainerId>,
    /// Logs whose leftovers of an earlier agent were looked for.
    tidied: HashSet<ContainerId>,
    /// What was last said of a log that cannot be rotated.
    failed: HashMap<ContainerId, String>,
}

/// A container's log, to be looked at.
struct Candidate {
    id: ContainerId,
    path: PathBuf,
    running: bool,
    tidied: bool,
}

/// What a log needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// It is not there: an agent was killed after it had renamed it, or somebody removed it.
    Reopening,
    Rotation,
}

impl LogRotation {
    /// Makes the task; it does nothing before [`LogRotation::run`].
    pub fn new(
        cri: Arc<dyn Cri>,
        pleg: Arc<Pleg>,
        settings: RotationSettings,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let workers = usize::try_from(settings.workers.clamp(1, MOST_WORKERS)).unwrap_or(1);
        Arc::new(Self {
            cri,
            pleg,
            settings,
            workers: Semaphore::new(workers),
            stop,
            state: Mutex::default(),
        })
    }

    /// Looks at all logs every interval until stopped.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.look().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all logs once, and begins to rotate those that are due.
    async fn look(self: &Arc<Self>) {
        if !*self.pleg.primed().borrow() {
            return;
        }
        let candidates = self.candidates();
        let this = Arc::clone(self);
        let looked = spawn_blocking(move || this.look_at(candidates)).await;
        let due = match looked {
            Ok(due) => due,
            Err(error) => return tracing::error!("looking at container logs failed: {error}"),
        };
        for (id, path, need) in due {
            self.state().busy.insert(id.clone());
            let this = Arc::clone(self);
            tokio::spawn(async move {
                // Never closed.
                let _permit = this.workers.acquire().await;
                let result = this.serve(&id, &path, need).await;
                this.state().busy.remove(&id);
                this.note(&id, &path, result);
            });
        }
    }

    /// The logs of all containers, but for those that are being rotated.
    fn candidates(&self) -> Vec<Candidate> {
        let seen = self.pleg.all();
        let containers: Vec<&ObservedContainer> =
            seen.iter().flat_map(|pod| &pod.containers).filter(|c| !c.log_path.is_empty()).collect();
        let mut state = self.state();
        let known: HashSet<&ContainerId> = containers.iter().map(|container| &container.id).collect();
        state.tidied.retain(|id| known.contains(id));
        state.failed.retain(|id, _| known.contains(id));
        let made = |container: &&ObservedContainer| Candidate {
            id: container.id.clone(),
            path: PathBuf::from(&container.log_path),
            running: container.state == ContainerState::Running,
            tidied: state.tidied.contains(&container.id),
        };
        // One that has ended writes no more, and is done once it is tidy.
        containers
            .iter()
            .filter(|container| !state.busy.contains(&container.id))
            .map(made)
            .filter(|candidate| candidate.running || !candidate.tidied)
            .collect()
    }

    /// What is due. Blocks on the file system.
    fn look_at(&self, candidates: Vec<Candidate>) -> Vec<(ContainerId, PathBuf, Need)> {
        let root = match LogRoot::open(&self.settings.pod_logs) {
            Ok(Some(root)) => root,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(folder = %self.settings.pod_logs.display(), "cannot open the folder of the pods' logs: {error}");
                return Vec::new();
            }
        };
        let mut due = Vec::new();
        for candidate in candidates {
            match self.look_at_one(&root, &candidate) {
                Ok(need) => {
                    self.state().tidied.insert(candidate.id.clone());
                    if need == Need::Nothing {
                        self.note(&candidate.id, &candidate.path, Ok(()));
                    } else {
                        due.push((candidate.id, candidate.path, need));
                    }
                }
                Err(error) => self.note(&candidate.id, &candidate.path, Err(error.to_string())),
            }
        }
        due
    }

    fn look_at_one(&self, root: &LogRoot, candidate: &Candidate) -> io::Result<Need> {
        let Some(log) = self.open(root, &candidate.path)? else { return Ok(Need::Nothing) };
        if !candidate.tidied {
            for name in leftovers(log.name(), &log.rotated()?, self.settings.max_files) {
                tracing::info!(log = %candidate.path.display(), file = name, "removing what an earlier rotation left");
                log.remove(&name)?;
            }
        }
        Ok(match log.size()? {
            _ if !candidate.running => Need::Nothing,
            None => Need::Reopening,
            Some(size) if size >= self.settings.max_size => Need::Rotation,
            Some(_) => Need::Nothing,
        })
    }

    fn open(&self, root: &LogRoot, path: &Path) -> io::Result<Option<LogFile>> {
        match path.strip_prefix(&self.settings.pod_logs) {
            Ok(below) => root.log(below),
            Err(_) => {
                let folder = self.settings.pod_logs.display();
                Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is not below {folder}")))
            }
        }
    }

    /// Does what a log needs.
    async fn serve(self: &Arc<Self>, id: &ContainerId, path: &Path, need: Need) -> Result<(), String> {
        if self.stop.is_cancelled() {
            return Ok(());
        }
        if need == Need::Reopening {
            return self.reopen(id).await;
        }
        let (this, at) = (Arc::clone(self), path.to_path_buf());
        let opened = spawn_blocking(move || {
            let root = LogRoot::open(&this.settings.pod_logs)?;
            let log = root.map(|root| this.open(&root, &at)).transpose()?.flatten();
            log.map(|log| {
                move_away(&log, this.settings.max_files, &|| !this.stop.is_cancelled()).map(|to| (log, to))
            })
            .transpose()
        });
        let moved = opened.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let Some((log, Some(rotated))) = moved else { return Ok(()) };
        tracing::debug!(log = %path.display(), rotated, "rotated a container's log");
        let Err(error) = self.reopen(id).await else { return Ok(()) };
        let back = spawn_blocking(move || move_back(&log, &rotated)).await;
        match back {
            Ok(Ok(())) => Err(error),
            Ok(Err(back)) => Err(format!("{error}; and it cannot be renamed back: {back}")),
            Err(back) => Err(format!("{error}; and it cannot be renamed back: {back}")),
        }
    }

    async fn reopen(&self, id: &ContainerId) -> Result<(), String> {
        match self.cri.reopen_container_log(id.as_str()).await {
            Ok(()) => Ok(()),
            // It ended meanwhile, and the next look finds that out.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(format!("the runtime does not open it anew: {}", chain(&error))),
        }
    }

    /// Tells of a log that cannot be rotated, once for each reason.
    fn note(&self, id: &ContainerId, path: &Path, result: Result<(), String>) {
        let mut state = self.state();
        let Err(error) = result else {
            if state.failed.remove(id).is_some() {
                tracing::info!(log = %path.display(), "the container's log can be rotated again");
            }
            return;
        };
        if state.failed.get(id) != Some(&error) {
            tracing::warn!(log = %path.display(), %id, "cannot rotate a container's log: {error}");
            state.failed.insert(id.clone(), error);
        }
    }
}

/// Clears away and compresses the older files, then renames the log. Answers its new name; `None` if it is
/// not there or `go_on` told to stop. Blocks on the file system.
fn move_away(log: &LogFile, max_files: u32, go_on: &dyn Fn() -> bool) -> io::Result<Option<String>> {
    let names = log.rotated()?;
    let plan = before_rotation(log.name(), &names, max_files);
    for name in &plan.remove {
        log.remove(name)?;
    }
    for name in &plan.compress {
        let (to, half_made) = compressed_names(name);
        if !log.compress(name, (&to, &half_made), go_on)? {
            return Ok(None);
        }
    }
    // What is removed counts too: the new name comes after it.
    let rotated = rotated_name(log.name(), &names, jiff::Zoned::now().datetime());
    match log.rename(log.name(), &rotated) {
        Ok(()) => Ok(Some(rotated)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a log its name back, for the runtime still writes there and is asked again later. If the runtime
/// has opened a new one all the same, both stay as they are.
fn move_back(log: &LogFile, rotated: &str) -> io::Result<()> {
    match log.rename(rotated, log.name()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn log() -> (tempfile::TempDir, LogFile) {
        let root = tempfile::tempdir().unwrap();
        let log = LogRoot::open(root.path()).unwrap().unwrap().log(Path::new("0.log")).unwrap().unwrap();
        (root, log)
    }

    fn names(root: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(root.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn rotating_again_and_again_keeps_the_number() {
        let (root, log) = log();
        for turn in 0..6 {
            fs::write(root.path().join("0.log"), format!("turn {turn}\n")).unwrap();
            let rotated = move_away(&log, 3, &|| true).unwrap().unwrap();
            assert_eq!(fs::read_to_string(root.path().join(&rotated)).unwrap(), format!("turn {turn}\n"));
            let names = names(&root);
            assert_eq!(*names.last().unwrap(), rotated);
            assert_eq!(names.len(), if turn == 0 { 1 } else { 2 });
            assert!(names[..names.len() - 1].iter().all(|name| name.ends_with(".gz")), "{names:?}");
        }
        // It is away already, and comes when the runtime has opened it anew.
        assert_eq!(move_away(&log, 3, &|| true).unwrap(), None);
    }

    #[test]
    fn an_agent_that_stops_leaves_the_log_in_its_place() {
        let (root, log) = log();
        fs::write(root.path().join("0.log"), "new").unwrap();
        fs::write(root.path().join("0.log.20260101-000000"), "old").unwrap();
        assert_eq!(move_away(&log, 5, &|| false).unwrap(), None);
        assert_eq!(names(&root), ["0.log", "0.log.20260101-000000"]);
    }

    #[test]
    fn a_log_that_the_runtime_does_not_open_anew_gets_its_name_back() {
        let (root, log) = log();
        fs::write(root.path().join("0.log"), "x").unwrap();
        let rotated = move_away(&log, 5, &|| true).unwrap().unwrap();
        move_back(&log, &rotated).unwrap();
        assert_eq!(names(&root), ["0.log"]);
        // It has opened a new one, and its answer was lost: what it writes there now is not written over.
        let rotated = move_away(&log, 5, &|| true).unwrap().unwrap();
        fs::write(root.path().join("0.log"), "new").unwrap();
        move_back(&log, &rotated).unwrap();
        assert_eq!(names(&root), ["0.log".to_owned(), rotated]);
        assert_eq!(fs::read_to_string(root.path().join("0.log")).unwrap(), "new");
    }
}
