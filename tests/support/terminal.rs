//! A terminal that a test types in.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::{SOON, slow, wait_for, wait_until};

/// A terminal with a program in it.
pub(crate) struct Terminal {
    /// Our side; dropped, the terminal vanishes.
    master: Option<File>,
    slave: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    before: String,
    gone: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// All of a terminal's modes.
fn modes(slave: &File) -> String {
    format!("{:?}", tcgetattr(slave).unwrap())
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts a program with a new terminal of 24 lines and 80 columns as its input, output and error output, in a
    /// session of its own.
    pub(crate) fn start(command: &Command) -> Self {
        Self::of_size(command, 24, 80)
    }

    /// The same with another size.
    pub(crate) fn of_size(command: &Command, rows: u16, columns: u16) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&slave, window(rows, columns)).unwrap();
        let before = modes(&slave);
        // Makes the terminal the session's own, without which it has no signals to give.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.env("TERM", "xterm");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reads, all) = (File::from(master.try_clone().unwrap()), Arc::clone(&shown));
        let gone = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&gone);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let mut waits = [PollFd::new(reads.as_fd(), PollFlags::POLLIN)];
                if poll(&mut waits, 50_u16).unwrap() == 0 {
                    continue;
                }
                let Ok(read @ 1..) = reads.read(&mut buffer) else { return };
                all.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { master: Some(master.into()), slave, child, shown, before, gone, reader: Some(reader) }
    }

    /// Types.
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.master.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// All that has been shown.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until this is shown.
    #[track_caller]
    pub(crate) fn wait_shown(&self, text: &str) {
        let start = Instant::now();
        while !self.shown().contains(text) {
            assert!(start.elapsed() < SOON * slow(), "{text:?} is not shown:\n{}", self.shown());
            std::thread::sleep(super::look_again());
        }
    }

    /// Waits until what is shown after the first `from` bytes fits, and answers how much is shown.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, from: usize, fits: impl Fn(&str) -> bool) -> usize {
        wait_for(SOON, &format!("{what} on the terminal"), || {
            let shown = self.shown.lock().unwrap();
            let new = String::from_utf8_lossy(shown.get(from..).unwrap_or_default());
            fits(&new).then_some(shown.len())
        })
    }

    /// Whether what is typed is shown.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Waits until the program has made the terminal raw.
    #[track_caller]
    pub(crate) fn wait_raw(&self) {
        wait_until(SOON, "a raw terminal", || {
            !tcgetattr(&self.slave).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
        });
    }

    /// Makes the window another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.slave, window(rows, columns)).unwrap();
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Takes the terminal away, as when its window is closed.
    pub(crate) fn vanish(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        // It holds it open too.
        self.reader.take().unwrap().join().unwrap();
        self.master = None;
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < SOON * slow(), "the program does not end:\n{}", self.shown());
            std::thread::sleep(super::look_again());
        }
    }

    /// Are all modes what they were before the program was started?
    #[track_caller]
    pub(crate) fn assert_restored(&self) {
        assert_eq!(modes(&self.slave), self.before);
    }

    /// Waits until they are.
    #[track_caller]
    pub(crate) fn wait_restored(&self) {
        wait_until(SOON, "the terminal's modes", || modes(&self.slave) == self.before);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Only fails if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
