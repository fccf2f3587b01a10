//! Gives a terminal back when this program cannot: a second process that waits for the first one's end.
//!
//! A process that is killed with SIGKILL, or that the kernel ends for want of memory, leaves its terminal raw, in
//! which a shell that does not mend it shows nothing of what is typed. The second process is this program again,
//! with the modes of before as its argument and a pipe as its input. A byte in the pipe says that all is well; its
//! end without one says that nobody else will do it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, Command, ExitCode, Stdio},
};

use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcsetattr,
};

use super::screen::LEAVE;

/// In place of a subcommand. It is for this program alone, and in no help.
pub(in crate::cli) const VERB: &str = "__guard-terminal";

/// All that raw mode changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Modes {
    flags: [u32; 4],
    min: u8,
    time: u8,
}

impl Modes {
    fn of(termios: &Termios) -> Self {
        Self {
            flags: [
                termios.input_modes.bits(),
                termios.output_modes.bits(),
                termios.control_modes.bits(),
                termios.local_modes.bits(),
            ],
            min: termios.special_codes[SpecialCodeIndex::VMIN],
            time: termios.special_codes[SpecialCodeIndex::VTIME],
        }
    }

    fn put(self, termios: &mut Termios) {
        let [input, output, control, local] = self.flags;
        termios.input_modes = InputModes::from_bits_retain(input);
        termios.output_modes = OutputModes::from_bits_retain(output);
        termios.control_modes = ControlModes::from_bits_retain(control);
        termios.local_modes = LocalModes::from_bits_retain(local);
        termios.special_codes[SpecialCodeIndex::VMIN] = self.min;
        termios.special_codes[SpecialCodeIndex::VTIME] = self.time;
    }

    fn text(self) -> String {
        let numbers = self.flags.into_iter().chain([self.min.into(), self.time.into()]);
        numbers.map(|number| format!("{number:x}")).collect::<Vec<_>>().join(":")
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u32>> =
            text.split(':').map(|number| u32::from_str_radix(number, 16).ok()).collect();
        let [input, output, control, local, min, time] = *numbers?.as_slice() else { return None };
        let (min, time) = (u8::try_from(min).ok()?, u8::try_from(time).ok()?);
        Some(Self { flags: [input, output, control, local], min, time })
    }
}

/// What is on the terminal meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// Lines, as ever.
    Lines,
    /// Another screen, which has to be left.
    Screen,
}

/// The argument that says so.
const SCREEN: &str = "screen";

/// The second process.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts it, for a terminal that is to be as `before` in the end.
    pub(super) fn start(terminal: &File, before: &Termios, shows: Shows) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("nodectl").arg(VERB).arg(Modes::of(before).text());
        if shows == Shows::Screen {
            command.arg(SCREEN);
        }
        // A group of its own: what kills this process with its group leaves that one alone.
        command.process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(terminal.try_clone()?).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // If it is gone, nothing is left to be done.
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(b".").ok();
        }
        self.0.wait().ok();
    }
}

/// Runs as the second process.
pub(in crate::cli) fn main(args: &[OsString]) -> ExitCode {
    let modes = args.first().and_then(|text| text.to_str()).and_then(Modes::parse);
    let Some(modes) = modes else { return ExitCode::from(2) };
    // From the background a terminal may be set only by those that this signal does not stop.
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTTOU);
    if stops.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    let mut byte = [0];
    let alive = io::stdin().read(&mut byte).is_ok_and(|read| read > 0);
    if alive {
        return ExitCode::SUCCESS;
    }
    let mut terminal = io::stdout();
    if args.get(1).is_some_and(|shows| shows == SCREEN) {
        // A terminal that is gone has no screen to leave.
        terminal.write_all(LEAVE).and_then(|()| terminal.flush()).ok();
    }
    let restored = tcgetattr(terminal.as_fd()).and_then(|mut termios| {
        modes.put(&mut termios);
        tcsetattr(terminal.as_fd(), OptionalActions::Now, &termios)
    });
    // A terminal that is gone needs no mode.
    if restored.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_handed_over() {
        let modes = Modes { flags: [0x4500, 5, 0xbf, 0x8a3b], min: 1, time: 0 };
        assert_eq!(modes.text(), "4500:5:bf:8a3b:1:0");
        assert_eq!(Modes::parse(&modes.text()), Some(modes));
        for wrong in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:100:0", "x:2:3:4:5:6"] {
            assert_eq!(Modes::parse(wrong), None, "{wrong}");
        }
    }
}
