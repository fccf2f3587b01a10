//! What a container says when it ends: a file mounted into it, in which it may leave its last words, or else
//! the end of its log (kubelet's pkg/kubelet/kuberuntime/kuberuntime_container.go).
//!
//! The file is read when the container is first seen to have ended, and again by an agent that starts later:
//! nothing else keeps the message. It goes just before the runtime's record of the container.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Container;

use super::{pods::paths::NodePaths, volumes::make_agent_dir};
use crate::{
    api::{
        ObservedContainer, PodUid,
        cri::{ContainerStatus, Mount},
        defaults::TERMINATION_MESSAGE_PATH,
        labels,
    },
    host::regular::{Links, open_below, read_end},
};

/// The container writes it as whatever user it runs as.
const FILE_MODE: u32 = 0o666;
/// The most bytes of a message; of a longer file the last ones count.
const MAX_MESSAGE: u64 = 4096;
/// The most bytes and lines of a log that stand for a message.
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: usize = 80;
/// How much of a log's end is read for that: so many lines with their times, and one of the longest that a
/// runtime writes (16 KiB).
const LOG_END: u64 = 64 << 10;

/// Makes the file for one start of a container, empty, and gives the mount of it. Blocks on the file system.
///
/// # Errors
/// As `mkdir` and `open`; `InvalidInput` for a UID or name that cannot be a folder's.
pub fn set_up(paths: &NodePaths, uid: &PodUid, container: &Container, attempt: u32) -> io::Result<Mount> {
    let folder = paths
        .container(uid, &container.name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "its name cannot be a folder's"))?;
    make_agent_dir(&folder)?;
    // One file for each start; a start that is tried again has the same one, which the runtime may have
    // mounted already.
    let host_path = folder.join(format!("{attempt:08x}"));
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&host_path)?;
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
    let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let path = path.unwrap_or(TERMINATION_MESSAGE_PATH);
    Ok(Mount {
        // A relative path is taken from the container's root.
        container_path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        host_path: host_path.to_string_lossy().into_owned(),
        // Nothing comes of it where there is no SELinux.
        selinux_relabel: true,
        ..Mount::default()
    })
}

/// Removes the file of a container whose record is about to go. Blocks on the file system.
///
/// # Errors
/// As `unlink`; what is gone is fine.
pub fn remove(container: &ObservedContainer, paths: &NodePaths) -> io::Result<()> {
    if below_pods(&container.termination_file, paths).is_none() {
        return Ok(());
    }
    match fs::remove_file(&container.termination_file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The last words of a container that has ended, empty if it left none. Blocks on the file system.
pub fn message(container: &ObservedContainer, status: &ContainerStatus, paths: &NodePaths) -> String {
    let policy = status.annotations.get(labels::CONTAINER_TERMINATION_MESSAGE_POLICY);
    let from_log = policy.is_some_and(|policy| policy == "FallbackToLogsOnError")
        && status.exit_code != 0
        && status.reason != "ContainerCannotRun";
    match written(&container.termination_file, paths) {
        Ok(message) if message.is_empty() && from_log => {
            let told = |error| format!("cannot read the log's end as termination message: {error}");
            end_of_log(&container.log_path, paths).unwrap_or_else(told)
        }
        Ok(message) => message,
        Err(error) => format!("cannot read the termination message: {error}"),
    }
}

fn below_pods(file: &str, paths: &NodePaths) -> Option<PathBuf> {
    let below = Path::new(file).strip_prefix(paths.pods()).ok()?;
    (!below.as_os_str().is_empty()).then(|| below.to_owned())
}

fn written(file: &str, paths: &NodePaths) -> io::Result<String> {
    let Some(below) = below_pods(file, paths) else { return Ok(String::new()) };
    match open_below(&paths.pods(), &below, Links::Refused) {
        Ok(file) => Ok(String::from_utf8_lossy(&read_end(&file, MAX_MESSAGE)?.0).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn end_of_log(log: &str, paths: &NodePaths) -> io::Result<String> {
    let Ok(below) = Path::new(log).strip_prefix(&paths.pod_logs) else { return Ok(String::new()) };
    let file = match open_below(&paths.pod_logs, below, Links::Refused) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let (bytes, whole) = read_end(&file, LOG_END)?;
    Ok(last_lines(&String::from_utf8_lossy(&bytes), whole))
}

/// What the last lines of a log in CRI's format (`time stream tags text`) say. A line with the tag `P` goes
/// on in the next.
fn last_lines(log: &str, whole: bool) -> String {
    let log = if whole { log } else { log.split_once('\n').map_or("", |(_, rest)| rest) };
    let lines: Vec<&str> = log.lines().collect();
    let mut said = String::new();
    for line in &lines[lines.len().saturating_sub(MAX_LOG_LINES)..] {
        let mut parts = line.splitn(4, ' ');
        let (Some(_), Some("stdout" | "stderr"), Some(tags)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        said.push_str(parts.next().unwrap_or_default());
        if tags.split(':').next() != Some("P") {
            said.push('\n');
        }
    }
    let mut start = said.len().saturating_sub(MAX_LOG_MESSAGE);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    said.split_off(start)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(root: &Path) -> NodePaths {
        NodePaths { root: root.into(), pod_logs: root.join("logs"), container_logs: root.join("links") }
    }

    fn status(policy: &str, exit_code: i32) -> ContainerStatus {
        let policy = (labels::CONTAINER_TERMINATION_MESSAGE_POLICY.to_owned(), policy.to_owned());
        ContainerStatus { annotations: [policy].into(), exit_code, ..ContainerStatus::default() }
    }

    /// A container with its file, and with a log of one line.
    fn ended(paths: &NodePaths) -> (ObservedContainer, PathBuf) {
        let container = Container { name: "c".into(), ..Container::default() };
        let mount = set_up(paths, &"u".into(), &container, 3).unwrap();
        fs::create_dir_all(&paths.pod_logs).unwrap();
        let log = paths.pod_logs.join("0.log");
        fs::write(&log, "t stdout F of the log\n").unwrap();
        let mut container = crate::policy::testing::exited("c", "s", 1, 1);
        container.termination_file.clone_from(&mount.host_path);
        container.log_path = log.to_string_lossy().into_owned();
        (container, mount.host_path.into())
    }

    #[test]
    fn each_start_has_a_file_that_all_may_write() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let mut container = Container { name: "c".into(), ..Container::default() };
        let mount = set_up(&paths, &"u".into(), &container, 3).unwrap();
        assert_eq!(Path::new(&mount.host_path), root.path().join("pods/u/containers/c/00000003"));
        assert_eq!((mount.container_path.as_str(), mount.readonly), ("/dev/termination-log", false));
        assert!(mount.selinux_relabel, "a container under SELinux could not write it");
        let mode = fs::metadata(&mount.host_path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o666);
        fs::write(&mount.host_path, "of a start that failed").unwrap();
        container.termination_message_path = Some("tmp/last".into());
        let again = set_up(&paths, &"u".into(), &container, 3).unwrap();
        assert_eq!(
            (again.host_path.as_str(), again.container_path.as_str()),
            (&*mount.host_path, "/tmp/last")
        );
        assert_eq!(fs::read_to_string(&again.host_path).unwrap(), "");
        assert!(set_up(&paths, &"../u".into(), &container, 3).is_err());
    }

    #[test]
    fn the_file_counts_and_the_log_only_where_it_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let (container, file) = ended(&paths);
        let said = |policy: &str, code| message(&container, &status(policy, code), &paths);
        assert_eq!(said("File", 1), "");
        assert_eq!(said("FallbackToLogsOnError", 0), "");
        assert_eq!(said("FallbackToLogsOnError", 1), "of the log\n");
        fs::write(&file, "of the file").unwrap();
        assert_eq!(said("File", 0), "of the file");
        assert_eq!(said("FallbackToLogsOnError", 1), "of the file");
        fs::write(&file, format!("cut off{}end", "x".repeat(4093))).unwrap();
        assert_eq!(said("File", 1), format!("{}end", "x".repeat(4093)));
        fs::write(&file, b"bad \xff byte").unwrap();
        assert_eq!(said("File", 1), "bad \u{fffd} byte");
        remove(&container, &paths).unwrap();
        remove(&container, &paths).unwrap();
        assert!(!file.exists());
        assert_eq!(said("FallbackToLogsOnError", 1), "of the log\n");
        fs::remove_file(&container.log_path).unwrap();
        assert_eq!(said("FallbackToLogsOnError", 1), "");
    }

    #[test]
    fn nothing_else_of_the_host_is_read_or_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let (mut container, file) = ended(&paths);
        let victim = root.path().join("victim");
        fs::write(&victim, "secret").unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&victim, &file).unwrap();
        assert!(!message(&container, &status("File", 1), &paths).contains("secret"));
        container.termination_file = victim.to_string_lossy().into_owned();
        container.log_path.clone_from(&container.termination_file);
        assert_eq!(message(&container, &status("FallbackToLogsOnError", 1), &paths), "");
        remove(&container, &paths).unwrap();
        assert!(victim.exists());
    }

    #[test]
    fn a_logs_end_is_cut_by_lines_and_bytes() {
        assert_eq!(last_lines("", true), "");
        let log = "t stdout F a\nt stderr P b\nt stdout F \nt stdout F:x c d\nnonsense\n";
        assert_eq!(last_lines(log, true), "a\nb\nc d\n");
        assert_eq!(last_lines("rest of a line\nt stdout F a\n", false), "a\n");
        assert_eq!(last_lines("rest of a line", false), "");
        let many: String = (0..100).map(|n| format!("t stdout F {n}\n")).collect();
        let kept: Vec<String> = last_lines(&many, true).lines().map(str::to_owned).collect();
        assert_eq!((kept.len(), kept[0].as_str(), kept[79].as_str()), (80, "20", "99"));
        let long = format!("t stdout F {}\n", "ä".repeat(3000));
        let kept = last_lines(&long, true);
        assert!(kept.len() <= 2048 && kept.len() > 2040 && kept.ends_with("ä\n"), "{}", kept.len());
    }
}
