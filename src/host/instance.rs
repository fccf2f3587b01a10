//! One agent per root-dir and per port: the lock on the root-dir, and who else is there.
//!
//! Two agents on one root-dir would remove each other's pods. A second nodectl is kept out by a lock that
//! the kernel frees with the process, however it dies. kubelet takes no such lock, so running kubelets are
//! looked for in /proc and their `--root-dir` is compared by the folder itself (device and inode), as seen
//! through each process's own root: the kubelet of a cluster in containers has a /var/lib/kubelet that is
//! another folder.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use crate::error::CommandError;

pub use super::port_owner::{PortOwner, port_owner};

/// The root-dir of a kubelet that is not told another.
pub const DEFAULT_ROOT_DIR: &str = "/var/lib/kubelet";
const LOCK_FILE: &str = "nodectl.lock";
/// Command lines are cut here, for reading and for telling.
const MAX_CMDLINE_BYTES: u64 = 64 << 10;
const MAX_CMDLINE_CHARS: usize = 200;

/// Why the agent may not start here.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another nodectl holds the lock.
    #[error("root-dir {root_dir} is in use by another nodectl{}", who(*.pid, .cmdline))]
    Locked {
        /// The root-dir.
        root_dir: PathBuf,
        /// Its process id, where the lock file tells it and the process is there.
        pid: Option<u32>,
        /// Its command line, empty if not known.
        cmdline: String,
    },
    /// A kubelet works on the same folder.
    #[error("root-dir {root_dir} is in use by a kubelet{}", who(Some(.kubelet.pid), &.kubelet.cmdline))]
    Kubelet {
        /// The root-dir.
        root_dir: PathBuf,
        /// The kubelet.
        kubelet: LiveKubelet,
    },
    /// A port that the agent has to listen on is taken.
    #[error("{what} {addr} is in use{}", by(.owner))]
    PortInUse {
        /// Which of the agent's ports: `healthz port`.
        what: String,
        /// The address.
        addr: SocketAddr,
        /// Who listens there, where that can be seen.
        owner: Option<PortOwner>,
    },
    /// The root-dir or the lock file cannot be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn who(pid: Option<u32>, cmdline: &str) -> String {
    match (pid, cmdline) {
        (Some(pid), "") => format!(": process {pid}"),
        (Some(pid), cmdline) => format!(": process {pid}, {cmdline}"),
        (None, _) => String::new(),
    }
}

fn by(owner: &Option<PortOwner>) -> String {
    owner.as_ref().map(|owner| format!(" by process {} ({})", owner.pid, owner.name)).unwrap_or_default()
}

impl From<InstanceError> for CommandError {
    /// All of them are refusals before the start: exit code 3.
    fn from(error: InstanceError) -> Self {
        let hints = match &error {
            InstanceError::Locked { .. } => vec![
                "one agent runs per root-dir: `nodectl pods` shows the running one".to_owned(),
                "stop it (`systemctl stop nodectl`), or give this one another --root-dir".to_owned(),
            ],
            InstanceError::Kubelet { .. } => vec![
                "stop kubelet first (`systemctl disable --now kubelet`); its pods keep running and are taken over"
                    .to_owned(),
                "or give nodectl another --root-dir".to_owned(),
            ],
            InstanceError::PortInUse { owner, .. } => vec![match owner {
                Some(owner) => format!("stop process {}, or configure another port (0 turns it off)", owner.pid),
                None => "configure another port (0 turns it off)".to_owned(),
            }],
            InstanceError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => vec!["nodectl run needs root".to_owned()],
                io::ErrorKind::StorageFull => vec!["make room on that file system".to_owned()],
                io::ErrorKind::ReadOnlyFilesystem => {
                    vec!["the root-dir has to be on a writable file system (--root-dir)".to_owned()]
                }
                _ => Vec::new(),
            },
        };
        hints.into_iter().fold(Self::refused(error), Self::hint)
    }
}

/// Holds the root-dir until it is dropped or the process ends. The file itself stays: removing it would let
/// a third process lock a new file while a second still holds the old one.
#[derive(Debug)]
pub struct RootLock {
    file: File,
    path: PathBuf,
}

impl Drop for RootLock {
    /// Closing is not enough: a program that another thread is just starting has the file open until it runs.
    fn drop(&mut self) {
        self.file.unlock().ok();
    }
}

impl RootLock {
    /// Makes the root-dir where it is missing (mode 0750 as kubelet's), locks `nodectl.lock` in it and
    /// writes the process id there. The lock is not inherited by programs that the agent starts.
    ///
    /// # Errors
    /// [`InstanceError::Locked`] names the agent that holds it; [`InstanceError::Io`] for the file system.
    pub fn acquire(root_dir: &Path) -> Result<Self, InstanceError> {
        Self::acquire_with(root_dir, Path::new("/proc"))
    }

    fn acquire_with(root_dir: &Path, proc_root: &Path) -> Result<Self, InstanceError> {
        let io_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| InstanceError::Io { action, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(root_dir)
            .map_err(io_error("make root-dir", root_dir))?;
        let path = root_dir.join(LOCK_FILE);
        // std opens with O_CLOEXEC.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
            .open(&path)
            .map_err(io_error("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut file);
                let cmdline = pid.and_then(|pid| cmdline(proc_root, pid)).map(|args| args.join(" "));
                let cmdline = shorten(&cmdline.unwrap_or_default());
                return Err(InstanceError::Locked { root_dir: root_dir.to_owned(), pid, cmdline });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
        // The lock holds without it: the id is for the message that a second agent prints.
        if let Err(error) = write_pid(&mut file) {
            tracing::warn!(path = %path.display(), %error, "cannot write the process id into the lock file");
        }
        Ok(Self { file, path })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A running node agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKubelet {
    /// Its process id.
    pub pid: u32,
    /// Its command line, for telling; cut at 200 characters.
    pub cmdline: String,
    /// Its root-dir as it sees it.
    pub root_dir: PathBuf,
}

/// A running kubelet whose root-dir is this folder. Processes that cannot be looked into (without root) are
/// passed over.
pub fn find_kubelet(proc_root: &Path, root_dir: &Path) -> Option<LiveKubelet> {
    find(proc_root, root_dir, "kubelet", |_| true)
}

/// A running `nodectl run` whose root-dir is this folder, other than this process. The lock tells it too;
/// this finds one that runs in another mount of the same folder where locks are not shared.
pub fn find_nodectl(proc_root: &Path, root_dir: &Path) -> Option<LiveKubelet> {
    find(proc_root, root_dir, "nodectl", |args| {
        args.iter().skip(1).find(|arg| !arg.starts_with('-')).is_some_and(|verb| verb == "run")
    })
}

/// Refuses if a kubelet works on this root-dir.
///
/// # Errors
/// [`InstanceError::Kubelet`] names it.
pub fn refuse_kubelet(proc_root: &Path, root_dir: &Path) -> Result<(), InstanceError> {
    match find_kubelet(proc_root, root_dir) {
        Some(kubelet) => Err(InstanceError::Kubelet { root_dir: root_dir.to_owned(), kubelet }),
        None => Ok(()),
    }
}

fn find(
    proc_root: &Path,
    root_dir: &Path,
    comm: &str,
    is_agent: impl Fn(&[String]) -> bool,
) -> Option<LiveKubelet> {
    pids(proc_root).into_iter().filter(|pid| *pid != std::process::id()).find_map(|pid| {
        let home = proc_root.join(pid.to_string());
        if read_text(&home.join("comm"), 64)?.trim_end() != comm {
            return None;
        }
        // A zombie has no command line, and no root-dir either.
        let args = cmdline(proc_root, pid)?;
        let theirs = flag(&args, "root-dir").unwrap_or(DEFAULT_ROOT_DIR);
        let theirs = absolute(&home, Path::new(theirs))?;
        (is_agent(&args) && same_folder(&home, &theirs, root_dir)).then(|| LiveKubelet {
            pid,
            cmdline: shorten(&args.join(" ")),
            root_dir: theirs,
        })
    })
}

/// All process ids, ascending.
pub(super) fn pids(proc_root: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc_root).into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// A process's arguments; `None` for a zombie, a kernel thread, or one that is gone.
fn cmdline(proc_root: &Path, pid: u32) -> Option<Vec<String>> {
    let text = read_text(&proc_root.join(pid.to_string()).join("cmdline"), MAX_CMDLINE_BYTES)?;
    let args: Vec<String> = text.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    args.first().is_some_and(|program| !program.is_empty()).then_some(args)
}

/// The last value of a flag, as Go's flag parsers take it: `--name value`, `--name=value`, `-name`.
fn flag<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let mut value = None;
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if arg == "--" {
            break;
        }
        let Some(text) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        match text.strip_prefix(name) {
            Some("") => value = rest.next().map(String::as_str).or(value),
            Some(text) => value = text.strip_prefix('=').or(value),
            None => {}
        }
    }
    value
}

fn absolute(home: &Path, path: &Path) -> Option<PathBuf> {
    if path.is_absolute() {
        Some(path.to_owned())
    } else {
        Some(fs::read_link(home.join("cwd")).ok()?.join(path))
    }
}

/// Whether a path as a process sees it is our folder.
fn same_folder(home: &Path, theirs: &Path, ours: &Path) -> bool {
    let seen = home.join("root").join(theirs.strip_prefix("/").unwrap_or(theirs));
    match (fs::metadata(seen), fs::metadata(ours)) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        // One of them is not there yet: an agent that is about to make it is told by the path alone.
        _ => normal(theirs) == normal(&std::path::absolute(ours).unwrap_or_else(|_| ours.to_owned())),
    }
}

/// Without `.`, `..` and trailing slashes; symbolic links are not looked at.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
        path
    })
}

pub(super) fn read_text(path: &Path, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// For a message: no control characters, and not too long.
fn shorten(text: &str) -> String {
    let mut clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CMDLINE_CHARS + 1).collect();
    if clean.chars().count() > MAX_CMDLINE_CHARS {
        clean.pop();
        clean.push('…');
    }
    clean
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
