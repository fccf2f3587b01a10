//! What is on the node, found out without changing anything: no program is asked for more than its version or its
//! defaults, and no socket is connected to behind which systemd would start a service.
//!
//! Of a folder (`--root`) files alone are read, and nothing in it is run. What cannot be found out is told in
//! [`Facts::problems`]; it never ends the search for the rest.

mod containerd;
mod docker;
mod kubelet;
mod machine;
mod packages;
mod program;
mod rpm;
#[cfg(test)]
mod tests;
mod units;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokio::{
    sync::{OnceCell, oneshot},
    time::timeout,
};

use super::{
    facts::{Facts, Obstacles, RuntimeKind},
    rooted::Rooted,
    systemd::unit::{self, Files as _, Unit},
    watch::Watch,
};
use crate::host::systemd::Systemd;

/// Where programs are besides `$PATH`, which sudo and cron cut short.
const PROGRAMS: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/bin"];

/// So long one file or folder may take to answer; those of a slow disk or a server take a second or two.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at how far it is.
const PAUSE: Duration = Duration::from_millis(500);

/// Which node it is, and what is known of it beforehand.
#[derive(Debug, Clone, Default)]
pub struct Where {
    /// A folder that holds the node; `None` is the running one.
    pub root: Option<PathBuf>,
    /// containerd's version, for a folder without a package database.
    pub containerd_version: Option<String>,
    /// The kubelet's version, likewise.
    pub kubelet_version: Option<String>,
    /// Docker's socket, if it is not the one that dockerd is told.
    pub docker_socket: Option<PathBuf>,
    /// How long one file may take to answer, if not 15 s.
    pub patience: Option<Duration>,
}

/// A node that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The folder cannot be used as a root.
    #[error("cannot look into the folder {}: {source}", root.display())]
    Root {
        /// The folder.
        root: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file does not answer.
    #[error(
        "{} has not answered for {} s: the file system that it is on hangs, or the server behind that (NFS, FUSE); \
         mend or unmount it, then run this again", path.display(), patience.as_secs()
    )]
    Hangs {
        /// The file, folder or program.
        path: PathBuf,
        /// How long it had.
        patience: Duration,
    },
    /// Nobody can look.
    #[error("cannot look at the node: {0}")]
    Thread(std::io::Error),
}

/// Finds out what is on a node. It takes seconds at most, whatever hangs there: what hangs in the kernel hangs a thread
/// of its own, which ends with the process.
///
/// # Errors
/// [`DetectError`]. What is missing on the node is no error.
pub async fn detect(place: &Where) -> Result<Facts, DetectError> {
    let patience = place.patience.unwrap_or(PATIENCE);
    let (watch, place) = (Watch::default(), place.clone());
    let (answer, mut answered) = oneshot::channel();
    let watched = watch.clone();
    let look = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let facts = match runtime {
            Ok(runtime) => {
                let facts = runtime.block_on(look_at(&place, watched));
                runtime.shutdown_background();
                facts
            }
            Err(error) => Err(DetectError::Thread(error)),
        };
        // Whoever asked may have given up.
        answer.send(facts).ok();
    };
    thread::Builder::new().name("detect".to_owned()).spawn(look).map_err(DetectError::Thread)?;
    loop {
        match timeout(PAUSE, &mut answered).await {
            Ok(Ok(facts)) => return facts,
            Ok(Err(_ended)) => {
                return Err(DetectError::Thread(std::io::Error::other("its thread ended, which is a bug")));
            }
            Err(_not_yet) => {
                if let Some(path) = watch.stuck(patience) {
                    return Err(DetectError::Hangs { path, patience });
                }
            }
        }
    }
}

async fn look_at(place: &Where, watch: Watch) -> Result<Facts, DetectError> {
    let rooted = match &place.root {
        None => Rooted::node(),
        Some(root) => watch
            .during(root, || Rooted::folder(root))
            .map_err(|source| DetectError::Root { root: root.clone(), source })?,
    };
    let rooted = rooted.watched(watch);
    let look = Look { place, live: rooted.is_node(), rooted, rpm: OnceCell::new() };
    let mut notes = Notes::default();
    let systemd = if look.live { units::connect(&mut notes).await } else { None };
    Ok(look.all(systemd.as_ref(), notes).await)
}

/// What is looked at, and how.
struct Look<'a> {
    place: &'a Where,
    rooted: Rooted,
    /// Whether programs are run, and sockets asked.
    live: bool,
    /// The package database of RPM, once it was asked for.
    rpm: OnceCell<Option<rpm::Database>>,
}

/// What was read on the way, and what could not be found out.
#[derive(Debug, Default)]
struct Notes {
    problems: Vec<String>,
    /// Those of them that stand in the way of any change.
    obstacles: Vec<String>,
    files: BTreeMap<PathBuf, String>,
}

impl Notes {
    fn problem(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    fn obstacle(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.obstacles.contains(&text) {
            self.obstacles.push(text.clone());
        }
        self.problem(text);
    }

    fn merge(&mut self, other: Self) {
        other.problems.into_iter().for_each(|problem| self.problem(problem));
        self.files.extend(other.files);
    }

    /// A file's text, which is kept if it is there.
    fn read(&mut self, look: &Look<'_>, path: &Path) -> Option<String> {
        self.read_or(look, path, Self::problem)
    }

    /// The same of a file that has to be read, if it is there.
    fn read_needed(&mut self, look: &Look<'_>, path: &Path) -> Option<String> {
        self.read_or(look, path, Self::obstacle)
    }

    fn read_or(&mut self, look: &Look<'_>, path: &Path, tell: fn(&mut Self, String)) -> Option<String> {
        match look.rooted.read(path) {
            Ok(Some(text)) => {
                self.files.insert(path.to_owned(), text.clone());
                Some(text)
            }
            Ok(None) => None,
            Err(error) => {
                tell(self, error.to_string());
                None
            }
        }
    }

    /// The names in a folder, in their order.
    fn list(&mut self, look: &Look<'_>, folder: &Path) -> Vec<String> {
        let mut names = look.rooted.list(folder).unwrap_or_else(|error| {
            self.problem(error.to_string());
            Vec::new()
        });
        names.sort_unstable();
        names
    }

    /// A unit as its files have it; all of them are kept.
    fn unit(&mut self, look: &Look<'_>, name: &str) -> Unit {
        let unit = unit::load(&look.rooted, name).unwrap_or_else(|error| {
            self.obstacle(format!("{name} cannot be put together: {error}"));
            Unit::default()
        });
        for path in unit.missing_environment_files.iter().filter(|_| look.live) {
            self.obstacle(format!(
                "{name} has EnvironmentFile={}, which is not there: systemd does not start it so",
                path.display()
            ));
        }
        for path in unit.fragment.iter().chain(&unit.drop_ins).chain(&unit.environment_files) {
            self.read(look, path);
        }
        unit
    }
}

impl Look<'_> {
    async fn all(&self, systemd: Option<&Systemd>, mut notes: Notes) -> Facts {
        let mut facts = Facts {
            root: self.place.root.clone(),
            units: units::detect(self, systemd, &mut notes).await,
            ..Facts::default()
        };
        let mut parts = [Notes::default(), Notes::default(), Notes::default()];
        let [of_docker, of_containerd, of_kubelet] = &mut parts;
        (facts.docker, facts.containerd, facts.kubelet) = tokio::join!(
            docker::detect(self, &facts.units, of_docker),
            containerd::detect(self, of_containerd),
            kubelet::detect(self, &facts.units, of_kubelet),
        );
        facts.obstacles = Obstacles {
            docker: std::mem::take(&mut of_docker.obstacles),
            containerd: std::mem::take(&mut of_containerd.obstacles),
            kubelet: std::mem::take(&mut of_kubelet.obstacles),
        };
        parts.into_iter().for_each(|part| notes.merge(part));
        if let (Some(kubelet), Some(containerd)) = (&mut facts.kubelet, &facts.containerd)
            && kubelet.runtime == RuntimeKind::Other
            && kubelet.endpoint.as_deref().is_some_and(|told| kubelet::leads_to(told, &containerd.socket))
        {
            kubelet.runtime = RuntimeKind::Containerd;
        }
        facts.node_name = machine::node_name(self, &mut notes);
        machine::detect(self, systemd, &mut facts, &mut notes);
        kubelet::static_pods(self, &mut facts, &mut notes);
        let ours = crate::switch::agent_unit::PATH;
        for path in ["/etc/crictl.yaml", "/etc/default/kubelet", "/etc/sysconfig/kubelet", ours] {
            notes.read(self, Path::new(path));
        }
        facts.problems = notes.problems;
        facts.files = notes.files;
        facts
    }

    /// A program, where it is.
    fn program(&self, name: &str) -> Option<PathBuf> {
        if !self.rooted.is_node() {
            let candidates = PROGRAMS.iter().map(|folder| Path::new(folder).join(name));
            return candidates.into_iter().find(|path| self.rooted.is_program(path));
        }
        self.own_program(name, |_| true)
    }

    /// A program of this machine, whatever is looked at: the first that is accepted.
    fn own_program(&self, name: &str, accept: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let known = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&known).chain(PROGRAMS.iter().map(PathBuf::from));
        let folders = std::env::join_paths(folders).ok()?;
        let watch = self.rooted.watch();
        watch.during(Path::new(&folders), || {
            which::which_in_all(name, Some(&folders), "/").ok()?.find(|path| accept(path))
        })
    }

    /// The program that a unit starts, else the one that is found by its name.
    fn program_of(&self, unit: &Unit, name: &str) -> Option<PathBuf> {
        let started = unit.arguments.first().map(|argument| PathBuf::from(&argument.text));
        let absolute = started.filter(|path| path.is_absolute() && self.rooted.is_program(path));
        absolute.or_else(|| self.program(name))
    }
}

/// The values of an option on a command line: `--name value`, `--name=value`, `-n value`, `-n=value`, and of a
/// single letter `-nvalue`.
fn option_values(arguments: &[String], names: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    let mut at = arguments.iter();
    while let Some(argument) = at.next() {
        let Some(bare) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        if names.contains(&name) {
            values.extend(value.map(str::to_owned).or_else(|| at.next().cloned()));
        } else if !argument.starts_with("--")
            && let Some(short) = names.iter().find(|short| short.len() == 1 && bare.starts_with(**short))
        {
            values.extend(bare.strip_prefix(short).map(str::to_owned));
        }
    }
    values
}
