//! Programs of the node: found on the path, started without a shell and without our environment, with a bound on
//! their time and on what they say.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

/// Bytes of a program's output that are kept; the list of a thousand images has some hundred thousand.
const MAX_OUTPUT: usize = 8 << 20;
/// Bytes at the end of what a program says of its failure.
const MAX_ERRORS: usize = 2 << 10;
/// For programs and for those that they start. An administrator's own comes first.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program said.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    /// The end of it, trimmed.
    pub(super) stderr: String,
}

impl Output {
    /// What it printed, if it succeeded.
    pub(super) fn succeeded(self, what: &str) -> Result<String, String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(failure(what, self.status, &self.stderr))
    }
}

/// A failure in words.
pub(super) fn failure(what: &str, status: ExitStatus, stderr: &str) -> String {
    if stderr.is_empty() { format!("{what} ended with {status}") } else { format!("{what}: {stderr}") }
}

/// Where a program is: on our own path or in the usual folders.
pub(super) fn find(name: &str) -> Result<PathBuf, String> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = own;
    paths.push(":");
    paths.push(PATH);
    which::which_in(name, Some(paths), "/").map_err(|_error| format!("the program {name} is not found"))
}

/// A program with arguments, in a process group and with an environment of its own.
pub(super) fn command(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Runs a program to its end and gives it `input` to read.
///
/// # Errors
/// When it does not start, says too much, or takes too long: then it is killed with what it started.
pub(super) async fn run(
    mut command: Command,
    what: &str,
    input: Option<&[u8]>,
    limit: Duration,
) -> Result<Output, String> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|error| format!("{what} does not start: {error}"))?;
    let mut group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let write = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // One that does not read all of it may be content all the same.
                stdin.write_all(input).await.ok();
            }
        };
        let (status, stdout, stderr, ()) =
            tokio::join!(child.wait(), begin_of(stdout), end_of(stderr), write);
        Ok::<_, std::io::Error>((status?, stdout?, stderr))
    };
    match timeout(limit, work).await {
        Ok(Ok((status, stdout, stderr))) => {
            group.ended();
            Ok(Output { status, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr })
        }
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_elapsed) => Err(format!("{what} has not ended within {} s", limit.as_secs())),
    }
}

/// Kills a program with what it has started, unless it has ended.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw))
    }

    /// It has ended: its number may be another's from now on.
    pub(super) fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            killpg(group, Signal::SIGKILL).ok();
        }
    }
}

async fn begin_of(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(stream) = stream else { return Ok(bytes) };
    let limit = u64::try_from(MAX_OUTPUT).unwrap_or(u64::MAX);
    stream.take(limit + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > MAX_OUTPUT {
        return Err(std::io::Error::other(format!("it prints more than {} MiB", MAX_OUTPUT >> 20)));
    }
    Ok(bytes)
}

/// The end of a stream, whatever its length.
pub(super) async fn end_of(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    while let Ok(read) = stream.read(&mut buffer).await
        && read > 0
    {
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let surplus = kept.len().saturating_sub(MAX_ERRORS);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        command(Path::new("/bin/sh"), &["-c", script])
    }

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_a_program_says_is_told() {
        let read = run(shell("cat; env | grep -v ^PWD | sort"), "sh", Some(b"in\n"), SOON).await.unwrap();
        let read = read.succeeded("sh").unwrap();
        assert_eq!(read, format!("in\nLC_ALL=C\nPATH={PATH}\n"), "{read}");
        let failed = run(shell("echo broken >&2; exit 3"), "sh", None, SOON).await.unwrap();
        assert_eq!(failed.succeeded("sh").unwrap_err(), "sh: broken");
        let mute = run(shell("exit 3"), "sh", None, SOON).await.unwrap();
        assert_eq!(mute.succeeded("sh").unwrap_err(), "sh ended with exit status: 3");
        let noisy = run(shell("yes broken | head -c 100000 >&2; echo last >&2; exit 1"), "sh", None, SOON);
        let told = noisy.await.unwrap().stderr;
        assert!(told.len() <= MAX_ERRORS && told.ends_with("last"));
        // Input that nobody reads does not hold it up.
        let many = vec![b'x'; 1 << 20];
        assert!(run(shell("exit 0"), "sh", Some(&many), SOON).await.unwrap().status.success());
        let endless = run(shell("exec yes"), "sh", None, SOON).await.unwrap_err();
        assert_eq!(endless, "sh: it prints more than 8 MiB");
        assert!(find("no-such-program").unwrap_err().contains("no-such-program"));
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let start = Instant::now();
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let error = run(shell(&script), "sh", None, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error, "sh has not ended within 5 s");
        assert!(start.elapsed() < Duration::from_secs(60));
        let child = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        for _ in 0..6000 {
            match std::fs::read_to_string(&stat) {
                Ok(stat) if !stat.contains(") Z ") => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => return,
            }
        }
        panic!("the child lives");
    }
}
