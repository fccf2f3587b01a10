//! The terminal of an interactive command: raw while the command has it, its size, and the keys that leave.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _},
    os::fd::AsFd as _,
    thread,
};

use hyper::body::Bytes;
use rustix::termios::{Termios, tcgetwinsize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use super::{signals::Signals, terminal_guard::Shows, terminal_modes::ChangedModes};
use crate::cri::streaming::remote_command::Size;

/// How much of the input is read at a time.
const READ: usize = 32 << 10;
/// How many such pieces wait to be sent.
const WAITING: usize = 2;

/// Ctrl-P and Ctrl-Q, one after the other, leave a terminal: crictl's and docker's keys.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// Whether the standard input is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Takes the standard input's terminal: every key goes to the command from here on, Ctrl-C too.
///
/// # Errors
/// If it is none, or cannot be set.
pub(super) fn enter_raw() -> io::Result<ChangedModes> {
    let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    ChangedModes::new(terminal, Shows::Lines, Termios::make_raw)
}

/// The size of the terminal that is the standard output or else the input.
fn size() -> Option<Size> {
    let found = tcgetwinsize(io::stdout()).or_else(|_error| tcgetwinsize(io::stdin())).ok()?;
    // A serial line does not know its own.
    (found.ws_col > 0 && found.ws_row > 0).then_some(Size { width: found.ws_col, height: found.ws_row })
}

/// Tells the terminal's size now and whenever it changes. With `redraw` another one comes first: a program that
/// is told the size that it has need not paint anything anew.
pub(super) async fn follow_size(sizes: mpsc::Sender<Size>, redraw: bool) -> io::Result<()> {
    let mut changed = signal(SignalKind::window_change())?;
    if redraw && let Some(Size { width, height }) = size() {
        let other = Size { width: width.saturating_add(1), height: height.saturating_add(1) };
        sizes.send(other).await.ok();
    }
    loop {
        if let Some(size) = size() {
            sizes.send(size).await.ok();
        }
        changed.recv().await;
    }
}

/// What comes from the standard input, read by a thread of its own: a read that waits for a key cannot be taken
/// back, and must not hold up the end of the program.
#[derive(Debug)]
pub(super) struct Input {
    /// The pieces; their end is the input's.
    pub(super) data: mpsc::Receiver<Bytes>,
    /// Resolves when the keys to leave were typed. It carries the other end of `data`, which would end else, and
    /// the command's input with it.
    pub(super) left: oneshot::Receiver<mpsc::Sender<Bytes>>,
}

impl Input {
    /// Begins to read. The keys to leave are looked for in a `tty` alone.
    pub(super) fn start(tty: bool) -> io::Result<Self> {
        let mut file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (sender, data) = mpsc::channel(WAITING);
        let (leave, left) = oneshot::channel();
        thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let (mut buffer, mut keys) = (vec![0; READ], Leaving::default());
            loop {
                let read = match file.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    // A terminal that has vanished has no more to say.
                    Err(_) => return,
                };
                let typed = buffer.get(..read).unwrap_or_default();
                let (data, left) = if tty { keys.pass(typed) } else { (typed.to_vec(), false) };
                if !data.is_empty() && sender.blocking_send(data.into()).is_err() {
                    return;
                }
                if left {
                    // Nobody waits for it if the command has just ended.
                    leave.send(sender).ok();
                    return;
                }
            }
        })?;
        Ok(Self { data, left })
    }
}

/// How many of the keys to leave have been typed.
#[derive(Debug, Default)]
struct Leaving {
    typed: usize,
}

impl Leaving {
    /// What of it is for the command, and whether it is to be left. The first key is held back until the next
    /// one tells what it was meant for.
    fn pass(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len() + LEAVE.len());
        for &key in input {
            if LEAVE.get(self.typed) == Some(&key) {
                self.typed += 1;
                if self.typed == LEAVE.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend(LEAVE.iter().take(self.typed));
            self.typed = 0;
            if key == LEAVE[0] {
                self.typed = 1;
            } else {
                passed.push(key);
            }
        }
        (passed, false)
    }
}

/// The signals that end the program. Those that whoever started it wants to be ignored (`nohup`, `&` in a
/// script) stay so.
///
/// # Errors
/// If they cannot be listened for.
pub(super) fn ending_signals() -> io::Result<Signals> {
    let ignored = ignored();
    let kinds = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()];
    Signals::listen(kinds.into_iter().filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0))
}

/// A bit for each signal that is ignored.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_to_leave_are_found_however_they_come() {
        let run = |pieces: &[&[u8]]| {
            let (mut keys, mut all) = (Leaving::default(), Vec::new());
            for piece in pieces {
                let (passed, left) = keys.pass(piece);
                all.extend(passed);
                if left {
                    return (all, true);
                }
            }
            (all, false)
        };
        assert_eq!(run(&[b"ls\r"]), (b"ls\r".to_vec(), false));
        assert_eq!(run(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(run(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(run(&[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(run(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(run(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }
}
