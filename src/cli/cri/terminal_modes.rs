//! The modes of a terminal, changed for a while: it is given back as it was whatever way the program ends.

use std::{fs::File, io};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

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
