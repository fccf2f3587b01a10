//! Asks for a password on the terminal without showing it.
//!
//! The terminal is set back whatever ends the asking: the line, an error, Ctrl-C (which arrives as a letter
//! here), or a signal. It is opened anew and read without blocking, so that its own settings are the only
//! ones that change.

use std::io::{self, Write as _};

use rustix::termios::{LocalModes, QueueSelector, tcflush};
use tokio::signal::unix::SignalKind;

use super::{
    signals::Signals,
    terminal_guard::Shows,
    terminal_modes::{Keys, controlling},
};
use crate::error::CommandError;

/// Bytes of a password.
const MAX: usize = 64 << 10;

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Silent(Keys);

impl Silent {
    fn open() -> io::Result<Self> {
        // Letter by letter: Ctrl-C must not end the program before the terminal is as it was.
        let keys = Keys::of(controlling()?, Shows::Lines, |modes| {
            modes.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        })?;
        // What was typed before it was asked for was shown.
        tcflush(&keys.terminal, QueueSelector::IFlush)?;
        Ok(Self(keys))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.terminal.write_all(b"\n").ok();
    }
}

/// What is done with a letter.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    More,
    Done,
    GivenUp,
}

/// Adds what was typed; the terminal's own editing is off, so that the usual keys are minded here.
fn typed(password: &mut Vec<u8>, byte: u8) -> Typed {
    match byte {
        b'\r' | b'\n' => return Typed::Done,
        // Ctrl-C, Ctrl-D, Ctrl-\.
        3 | 4 | 28 => return Typed::GivenUp,
        // Backspace takes a whole letter, of however many bytes.
        8 | 127 => while password.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
        // Ctrl-U.
        21 => password.clear(),
        byte if password.len() < MAX => password.push(byte),
        _ => {}
    }
    Typed::More
}

/// Asks.
///
/// # Errors
/// [`CommandError`] if there is no terminal, or the asking was given up.
pub(super) async fn ask(prompt: &str) -> Result<String, CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("cannot ask for the password: {error}"));
    let given_up = || CommandError::failed("no password was given");
    let mut signals = Signals::listen([SignalKind::terminate(), SignalKind::hangup()]).map_err(failed)?;
    let mut silent = Silent::open().map_err(failed)?;
    silent.0.terminal.write_all(prompt.as_bytes()).map_err(failed)?;
    let mut password = Vec::new();
    loop {
        let byte = tokio::select! {
            byte = silent.0.next() => byte.map_err(failed)?,
            _ = signals.next() => None,
        };
        match byte.map(|byte| typed(&mut password, byte)) {
            Some(Typed::More) => {}
            Some(Typed::Done) => break,
            Some(Typed::GivenUp) | None => return Err(given_up()),
        }
    }
    drop(silent);
    if password.is_empty() {
        return Err(given_up());
    }
    String::from_utf8(password).map_err(|_bytes| CommandError::failed("the password is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let line = |bytes: &[u8]| {
            let mut password = Vec::new();
            let last = bytes.iter().map(|&byte| typed(&mut password, byte)).last();
            (String::from_utf8(password).unwrap(), last.unwrap())
        };
        assert_eq!(line(b"abc\r"), ("abc".to_owned(), Typed::Done));
        assert_eq!(line("aé\u{7f}b\n".as_bytes()), ("ab".to_owned(), Typed::Done));
        assert_eq!(line(b"\x7fabc\x15xy\n"), ("xy".to_owned(), Typed::Done));
        assert_eq!(line(b"a\x03").1, Typed::GivenUp);
    }
}
