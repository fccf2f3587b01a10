//! Programs asked for their version or their defaults: nothing to read, little to say, and not for long.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use crate::switch::watch::Watch;

/// A kubelet takes half a second for its version on a busy node.
const LIMIT: Duration = Duration::from_secs(10);
/// containerd's defaults are some 12 KiB.
const MAX_OUTPUT: u64 = 1 << 20;
const MAX_COMPLAINT: u64 = 4096;

/// What a program prints; else why it does not, in a sentence with its path.
pub(super) async fn output(watch: &Watch, program: &Path, arguments: &[&str]) -> Result<String, String> {
    output_as(watch, program, arguments, None, LIMIT).await
}

/// The same, as another user and its group, and with another limit.
pub(super) async fn output_as(
    watch: &Watch,
    program: &Path,
    arguments: &[&str],
    user: Option<u32>,
    limit: Duration,
) -> Result<String, String> {
    let what = || format!("`{} {}`", program.display(), arguments.join(" "));
    let run = async {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", super::PROGRAMS.join(":"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        // It is there to be run, or not, when this is over.
        let mut child = watch.during(program, || command.spawn()).map_err(|error| error.to_string())?;
        let (mut said, mut complaint) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read = async {
            let mut stdout = stdout?.take(MAX_OUTPUT + 1);
            Some(stdout.read_to_end(&mut said).await)
        };
        let complain = async {
            let mut stderr = stderr?;
            let read = (&mut stderr).take(MAX_COMPLAINT).read_to_end(&mut complaint).await;
            // The rest is read too, so that the program does not wait for it.
            let rest = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            Some(read.and(rest.map(|_| 0)))
        };
        let (read, _) = tokio::join!(read, complain);
        if let Some(Err(error)) = read {
            return Err(error.to_string());
        }
        if said.len() as u64 > MAX_OUTPUT {
            return Err(format!("it prints more than {} KiB", MAX_OUTPUT >> 10));
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if !status.success() {
            let complaint = String::from_utf8_lossy(&complaint);
            let last = complaint.trim().lines().last().unwrap_or_default();
            return Err(format!("{status} {last}").trim().to_owned());
        }
        String::from_utf8(said).map_err(|_utf8| "it does not print UTF-8".to_owned())
    };
    match timeout(limit, run).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(why)) => Err(format!("{} does not work: {why}", what())),
        Err(_) => Err(format!("{} has not ended within {} s", what(), limit.as_secs())),
    }
}

/// The digits and dots that a version begins with, behind a `v` and a package's epoch: `1.6.20` in `1.6.20~ds1-1`,
/// `20.10.24` in `5:20.10.24~3-0~debian-bookworm`. `None` without a dot.
pub(super) fn plain_version(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.split_once(':').map_or(text, |(_, behind)| behind);
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let plain = text.get(..end)?.trim_end_matches('.');
    plain.contains('.').then(|| plain.to_owned())
}

/// The first two numbers of a version.
pub(super) fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
