//! The modes of a terminal, changed for a while: it is given back as it was whatever way the program ends. And its
//! keys, as they are pressed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::net::unix::pipe::Receiver;

use super::terminal_guard::{Guard, Shows};

/// A terminal whose modes are changed. Dropping it gives it back as it was, which a panic does too.
#[derive(Debug)]
pub(super) struct ChangedModes {
    terminal: File,
    before: Termios,
    /// Gives it back if this process is killed. Ended last.
    _guard: Option<Guard>,
}

impl ChangedModes {
    /// Changes the modes of a terminal.
    ///
    /// # Errors
    /// If it is none, or cannot be set.
    pub(super) fn new(terminal: File, shows: Shows, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        // As good as it can be: without /proc nobody is to be kept from his work.
        let guard = Guard::start(&terminal, &before, shows).ok();
        let mut modes = before.clone();
        change(&mut modes);
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        Ok(Self { terminal, before, _guard: guard })
    }
}

impl Drop for ChangedModes {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        tcsetattr(&self.terminal, OptionalActions::Now, &self.before).ok();
    }
}

/// The terminal that controls this program, opened anew: reading without waiting changes nothing for the shell then,
/// which shares its own.
///
/// # Errors
/// If there is none, as under some supervisors.
pub(super) fn controlling() -> io::Result<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/tty")
}

/// The keys of a terminal whose modes are changed.
pub(super) struct Keys {
    pub(super) terminal: File,
    /// No pipe, but it is waited for and read as one.
    typed: Receiver,
    _modes: ChangedModes,
}

impl Keys {
    /// Takes a terminal of [`controlling`]. Only on the async runtime.
    ///
    /// # Errors
    /// If it cannot be set.
    pub(super) fn of(terminal: File, shows: Shows, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let typed = Receiver::from_file_unchecked(terminal.try_clone()?)?;
        let modes = ChangedModes::new(terminal.try_clone()?, shows, change)?;
        Ok(Self { terminal, typed, _modes: modes })
    }

    /// The next byte; `None` when the terminal has gone.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) async fn next(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            self.typed.readable().await?;
            match self.typed.try_read(&mut byte) {
                Ok(read) => return Ok((read == 1).then_some(byte[0])),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
