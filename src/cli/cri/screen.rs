//! The user's terminal for a view of the whole screen: keys as they are pressed, nothing echoed, and all as
//! it was before when the view ends, by whatever way the program ends.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::{InputModes, LocalModes};

use super::{
    terminal_guard::Shows,
    terminal_modes::{Keys, controlling},
};

/// Columns and lines where the terminal does not tell its size.
const USUAL: (usize, usize) = (80, 24);

/// Another screen, so that what was on the terminal is there again afterwards; no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
pub(super) const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// A terminal that belongs to a view. Dropping it gives it back.
pub(super) struct Terminal(Keys);

impl Terminal {
    /// Takes the terminal; `None` if the output does not go to one. Only on the async runtime.
    ///
    /// # Errors
    /// If it is one that cannot be set up.
    pub(super) fn take() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        // A terminal that controls nobody, as under some supervisors, gives no keys.
        let Ok(tty) = controlling() else { return Ok(None) };
        // Ctrl-C and Ctrl-Z come as keys then: a stopped view would leave the terminal raw.
        let keys = Keys::of(tty, Shows::Screen, |modes| {
            modes
                .local_modes
                .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
            modes.input_modes.remove(InputModes::IXON | InputModes::ICRNL);
        })?;
        // From here on dropping restores.
        let taken = Self(keys);
        let mut out = io::stdout();
        out.write_all(ENTER)?;
        out.flush()?;
        Ok(Some(taken))
    }

    /// The next key; `None` if the terminal is gone.
    pub(super) async fn key(&self) -> Option<u8> {
        self.0.next().await.ok().flatten()
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        match terminal_size::terminal_size_of(&self.0.terminal) {
            Some((width, height)) if width.0 > 0 && height.0 > 0 => (width.0.into(), height.0.into()),
            _ => USUAL,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let mut out = io::stdout();
        out.write_all(LEAVE).and_then(|()| out.flush()).ok();
    }
}
