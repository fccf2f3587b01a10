//! What goes on until the user has seen enough: rounds of looks with a pause between, and an end that is
//! clean at Ctrl-C, at SIGTERM, when the terminal hangs up and when nobody reads the output any more.

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use super::{hangup::reader_gone, signals::Signals};
use crate::error::CommandError;

/// The wish to end: a signal that has come, or a reader that has gone.
pub(super) struct End {
    signals: Signals,
}

impl End {
    /// From now on these signals end the work and not the process.
    pub(super) fn new() -> Result<Self, CommandError> {
        Ok(Self { signals: Signals::ending().map_err(CommandError::failed)? })
    }

    /// Waits for one of them, or until whoever read the output has left.
    pub(super) async fn wanted(&mut self) {
        tokio::select! {
            _ = self.signals.next() => {}
            () = reader_gone() => {}
        }
    }

    /// Awaits `work`; `None` if the end came before.
    pub(super) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wanted() => None,
        }
    }
}

/// How often to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    /// Between two looks.
    pub(super) every: Duration,
    /// How many rounds are printed.
    pub(super) count: usize,
    /// Does a round need the look before it? Then the first look prints nothing.
    pub(super) pairs: bool,
}

/// Looks, prints and waits, in turn. On a terminal each of several rounds takes the place of the one
/// before; elsewhere an empty line is between them.
///
/// # Errors
/// What `look` and `render` give; the first one ends it.
pub(super) async fn rounds<S>(
    how: Rounds,
    out: &mut dyn Write,
    mut look: impl AsyncFnMut() -> Result<S, CommandError>,
    render: impl Fn(Option<&S>, &S, &mut dyn Write) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut end = End::new()?;
    let redraws = how.count > 1 && io::stdout().is_terminal();
    let mut before = None;
    let mut printed = 0;
    loop {
        let Some(now) = end.or(look()).await else { return Ok(()) };
        let now = now?;
        if before.is_some() || !how.pairs {
            let mut text = Vec::new();
            match (redraws, printed) {
                (true, _) => text.extend_from_slice(CLEAR),
                (false, 0) => {}
                (false, _) => text.push(b'\n'),
            }
            render(before.as_ref(), &now, &mut text)?;
            printed += 1;
            if !wanted(out, &text)? || printed >= how.count {
                return Ok(());
            }
        }
        before = Some(now);
        if end.or(tokio::time::sleep(how.every)).await.is_none() {
            return Ok(());
        }
    }
}

/// To the first line, and all that is below it away.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

/// Writes; `false` if nobody reads it any more.
///
/// # Errors
/// [`CommandError`] if it cannot be written for another reason, such as a full disk.
pub(super) fn wanted(out: &mut dyn Write, text: &[u8]) -> Result<bool, CommandError> {
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::failed(format!("cannot write the output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::Fails;

    fn how(count: usize, pairs: bool) -> Rounds {
        Rounds { every: Duration::from_millis(1), count, pairs }
    }

    async fn printed(how: Rounds) -> String {
        let mut out = Vec::new();
        let mut count = 0;
        let look = async || {
            count += 1;
            Ok(count)
        };
        let render = |before: Option<&i32>, now: &i32, out: &mut dyn Write| {
            writeln!(out, "{before:?} {now}").map_err(CommandError::failed)
        };
        rounds(how, &mut out, look, render).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn rounds_are_counted_and_know_the_look_before() {
        assert_eq!(printed(how(1, false)).await, "None 1\n");
        assert_eq!(printed(how(1, true)).await, "Some(1) 2\n");
        assert_eq!(printed(how(3, false)).await, "None 1\n\nSome(1) 2\n\nSome(2) 3\n");
    }

    #[tokio::test]
    async fn a_reader_who_has_seen_enough_ends_it() {
        let render =
            |_: Option<&()>, _: &(), out: &mut dyn Write| out.write_all(b"x").map_err(CommandError::failed);
        let run =
            async |kind| rounds(how(usize::MAX, false), &mut Fails(kind), async || Ok(()), render).await;
        run(io::ErrorKind::BrokenPipe).await.unwrap();
        let full = run(io::ErrorKind::StorageFull).await.unwrap_err();
        assert!(full.to_string().contains("cannot write"), "{full}");
    }
}
