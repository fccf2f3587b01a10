//! systemd-creds(1): bytes sealed so that this machine alone opens them again, with its TPM where it has one, and with
//! systemd's own key in `/var/lib/systemd/credential.secret`. The bytes go through pipes and touch no file.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

const PROGRAM: &str = "systemd-creds";
/// A TPM takes a second or so.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// Most that is told of its errors, in characters.
const MAX_ERROR: usize = 300;

/// Seals bytes under a name.
///
/// # Errors
/// In words: the program is not there, refuses, or does not answer within 10 s.
pub async fn encrypt(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    run("encrypt", name, bytes).await
}

/// Opens what [`encrypt`] gave for the same name on this machine.
///
/// # Errors
/// As there.
pub async fn decrypt(name: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
    run("decrypt", name, sealed).await
}

async fn run(verb: &str, name: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new(PROGRAM)
        .arg(verb)
        .arg(format!("--name={name}"))
        .args(["-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {PROGRAM}: {error}"))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(format!("{PROGRAM} has no pipes"));
    };
    let all = async {
        let (mut answer, mut errors) = (Vec::new(), Vec::new());
        let write = async {
            // One that refuses does not read to the end; its exit says so.
            stdin.write_all(input).await.ok();
            drop(stdin);
        };
        let (mut from, mut told) = (stdout.take(MAX_ANSWER), stderr.take(MAX_ANSWER));
        let ((), read, _) = tokio::join!(write, from.read_to_end(&mut answer), told.read_to_end(&mut errors));
        read.map_err(|error| format!("cannot read from {PROGRAM}: {error}"))?;
        let status = child.wait().await.map_err(|error| format!("cannot wait for {PROGRAM}: {error}"))?;
        if status.success() {
            return Ok(answer);
        }
        let errors: String = String::from_utf8_lossy(&errors).trim().chars().take(MAX_ERROR).collect();
        Err(format!("{PROGRAM} {verb}: {status}: {errors}"))
    };
    timeout(PATIENCE, all).await.unwrap_or_else(|_elapsed| {
        Err(format!("{PROGRAM} {verb}: no answer within {} s", PATIENCE.as_secs()))
    })
}
