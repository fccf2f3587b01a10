//! What systemd is told: readiness, the stop, a status line, and that the agent is alive.
//!
//! Nothing here may fail the agent: without systemd all calls do nothing, and a message that cannot be sent
//! is logged once per kind of trouble and forgotten. `NOTIFY_SOCKET` stays in the environment; the agent
//! starts no children that would speak for it (`NotifyAccess=main` guards that on systemd's side).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sd_notify::NotifyState;

/// systemd shows one line; longer texts are cut here, well under the datagram's limit.
const MAX_STATUS_CHARS: usize = 512;

/// Sends messages to the service manager that started this process, if one did.
#[derive(Debug)]
pub struct Notifier {
    active: bool,
    watchdog: Option<Duration>,
    failed: AtomicBool,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. A watchdog that is meant for another
    /// process (`WATCHDOG_PID`) or that is 0 is none.
    pub fn from_env() -> Self {
        let active = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| active && !limit.is_zero());
        Self { active, watchdog, failed: AtomicBool::new(false) }
    }

    /// Whether a service manager listens.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// How often [`Notifier::watchdog`] should be called: a third of what `WatchdogSec=` allows, so that
    /// one late call is not the end. `None` where no watchdog is set.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| (limit / 3).max(Duration::from_millis(1)))
    }

    /// The agent does its work (`READY=1`).
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// The agent is on its way out (`STOPPING=1`).
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// The agent is alive (`WATCHDOG=1`).
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// The line that `systemctl status` shows. Line breaks become spaces: in the protocol, a new line is a
    /// new assignment.
    pub fn status(&self, text: &str) {
        let line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_STATUS_CHARS).collect();
        self.send(&[NotifyState::Status(&line)]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if !self.active {
            return;
        }
        match sd_notify::notify(states) {
            Ok(()) => self.failed.store(false, Ordering::Relaxed),
            // Logged on change: the watchdog calls every few seconds.
            Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "cannot notify the service manager");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixDatagram,
        process::{Command, Stdio},
    };

    use super::*;

    const ROLE: &str = "NODECTL_TEST_SD_CHILD";

    /// The environment belongs to the whole process, so each case runs in a child: this test itself.
    fn child(test: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &format!("host::sd::tests::{test}")])
            .env(ROLE, "1")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null());
        command
    }

    #[test]
    fn messages_reach_the_socket() {
        if std::env::var_os(ROLE).is_some() {
            let notifier = Notifier::from_env();
            assert!(notifier.is_active());
            assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(10)));
            notifier.ready();
            notifier.status("3 pods\nREADY=0");
            notifier.watchdog();
            notifier.stopping();
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let status = child("messages_reach_the_socket")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000000")
            .status()
            .unwrap();
        assert!(status.success());
        for expected in ["READY=1\n", "STATUS=3 pods READY=0\n", "WATCHDOG=1\n", "STOPPING=1\n"] {
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
        }
    }

    #[test]
    fn without_systemd_or_with_a_dead_one_nothing_happens() {
        if std::env::var_os(ROLE).is_some() {
            let notifier = Notifier::from_env();
            assert_eq!(notifier.watchdog_interval(), None);
            notifier.ready();
            notifier.watchdog();
            return;
        }
        let test = "without_systemd_or_with_a_dead_one_nothing_happens";
        assert!(child(test).status().unwrap().success());
        assert!(child(test).env("WATCHDOG_USEC", "30000000").status().unwrap().success(), "no socket");
        let gone = child(test).env("NOTIFY_SOCKET", "/nowhere/notify").status().unwrap();
        assert!(gone.success());
        let other = child(test)
            .env("NOTIFY_SOCKET", "/nowhere/notify")
            .env("WATCHDOG_USEC", "30000000")
            .env("WATCHDOG_PID", "1")
            .status()
            .unwrap();
        assert!(other.success());
    }
}
