//! A program on a terminal of its own: keys are typed, and what it draws is read.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    pty::openpty,
    sys::termios::{Termios, tcgetattr},
};

use super::{SOON, wait_for, wait_until};

/// A terminal with a program on it.
pub(crate) struct Pty {
    child: Child,
    keys: File,
    /// The program's end, kept open so that its settings can be looked at.
    terminal: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts a program on a new terminal of that many lines and columns, which controls it.
    pub(crate) fn start(command: &Command, lines: u16, columns: u16) -> Self {
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        // setsid makes the terminal the controlling one; stty gives it its size.
        let script = format!("stty rows {lines} cols {columns}; exec \"$@\"");
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait", "sh", "-c", &script, "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        let child = wrapped.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let mut master = File::from(pty.master);
        let keys = master.try_clone().unwrap();
        let written = Arc::clone(&screen);
        // Ends when the last who has the terminal open is gone.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = master.read(&mut buffer) {
                written.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, keys, terminal: pty.slave, screen }
    }

    /// Types.
    pub(crate) fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// All that was drawn so far.
    pub(crate) fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until what is drawn after the first `from` bytes fits, and answers how much is drawn.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, from: usize, fits: impl Fn(&str) -> bool) -> usize {
        wait_for(SOON, &format!("{what} on the terminal"), || {
            let drawn = self.screen.lock().unwrap();
            let new = String::from_utf8_lossy(drawn.get(from..).unwrap_or_default());
            fits(&new).then_some(drawn.len())
        })
    }

    /// How the terminal is set up.
    pub(crate) fn settings(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    /// Kills the program, which cannot give the terminal back itself then.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(SOON, "the program on the terminal ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // A test that failed leaves nothing running: the terminal's session hangs up with its leader.
        if self.child.try_wait().ok().flatten().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
