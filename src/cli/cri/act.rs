//! What the verbs that change something share: each of several ids is tried and answered for, and whoever
//! ends the program while a call is under way is told what may have come of it.

use std::{io::Write, sync::PoisonError};

use futures_util::{StreamExt as _, stream};

use super::{session::Session, signals::Signals};
use crate::{
    cli::output::{printable, write},
    cri::CriError,
    error::CommandError,
};

/// Ids that are worked on at a time where their order does not matter: a runtime takes longer for many at once
/// than for some.
pub(super) const SOME: usize = 8;

/// Where results go, and where all else.
pub(super) type Streams<'a> = (&'a mut dyn Write, &'a mut dyn Write);

const LOOK: &str = "`nodectl cri ps -a` and `nodectl cri pods` show what is there";

impl Session {
    /// Awaits a call that changes `target`. A call that was cut says that it may have done it all the same.
    pub(super) async fn act<T>(
        &self,
        rpc: &'static str,
        target: &str,
        call: impl Future<Output = Result<T, CriError>>,
    ) -> Result<T, CommandError> {
        let what = printable(&format!("{rpc} of {target}"));
        let under_way = || self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way().push(what.clone());
        let answer = self.try_ask(rpc, call).await;
        under_way().retain(|other| *other != what);
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let told = self.failed(&error).await;
                if let Some(holder) = error.name_reserved_for() {
                    let holder = printable(holder);
                    return Err(told.hint(format!(
                        "{holder} has this name: remove it, or give another name or attempt"
                    )));
                }
                Err(if error.may_have_happened() {
                    told.hint(format!("what was asked for may still happen; {LOOK}"))
                } else {
                    told
                })
            }
        }
    }

    /// Does work that a signal may end.
    pub(super) async fn until_signal<T>(
        &self,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let mut signals = Signals::ending().map_err(CommandError::failed)?;
        tokio::select! {
            done = work => done,
            _ = signals.next() => Err(self.interrupted()),
        }
    }

    fn interrupted(&self) -> CommandError {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.is_empty() {
            return CommandError::failed("interrupted");
        }
        let what = under_way.join(", ");
        CommandError::failed(format!("interrupted; the runtime may still finish {what}")).hint(LOOK)
    }
}

/// Does what may wait for somebody, such as reading what is typed or a pipe, on a thread of its own: a signal ends
/// the program meanwhile.
///
/// # Errors
/// As the work.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("reads".to_owned());
    // Nobody hears it if the program ends.
    thread.spawn(move || sender.send(work()).is_ok()).map_err(CommandError::failed)?;
    answer.await.unwrap_or_else(|_closed| Err(CommandError::failed("what was read could not be taken in")))
}

/// Does `work` for each of `wanted`, so many `at_once`, and prints what it answers in their order. One that
/// fails keeps no other from being tried.
///
/// # Errors
/// Of one id, its error. Of several, how many failed: each error is told on `err` before.
pub(super) async fn each<'a, F>(
    wanted: &'a [String],
    at_once: usize,
    (out, err): Streams<'_>,
    work: impl Fn(&'a str) -> F,
) -> Result<(), CommandError>
where
    F: Future<Output = Result<String, CommandError>>,
{
    let mut done = stream::iter(wanted).map(|id| work(id)).buffered(at_once);
    let (mut at, mut failed) = (0, 0);
    while let Some(answer) = done.next().await {
        match answer {
            Ok(text) => write(out, &(printable_lines(&text)))?,
            Err(error) if wanted.len() == 1 => return Err(error),
            Err(error) => {
                failed += 1;
                let id = wanted.get(at).map(String::as_str).unwrap_or_default();
                // There is nobody to tell that telling failed.
                writeln!(err, "error: {}: {error}", printable(id)).ok();
            }
        }
        at += 1;
    }
    if failed > 0 {
        return Err(CommandError::failed(format!("{failed} of {} failed", wanted.len())));
    }
    Ok(())
}

fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(wanted: &[&str]) -> (Result<(), String>, String, String) {
        let wanted: Vec<String> = wanted.iter().map(|&id| id.to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = each(&wanted, SOME, (&mut out, &mut err), |id| async move {
            tokio::task::yield_now().await;
            if id.starts_with("bad") { Err(CommandError::failed("no").hint("so")) } else { Ok(id.to_owned()) }
        });
        let result = result.await.map_err(|error| error.to_string());
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[tokio::test]
    async fn each_is_tried_and_told_in_order() {
        let (result, out, err) = run(&["a", "bad1", "b", "bad2"]).await;
        assert_eq!(out, "a\nb\n");
        assert_eq!(err, "error: bad1: no\nhint: so\nerror: bad2: no\nhint: so\n");
        assert_eq!(result.unwrap_err(), "2 of 4 failed");
        let (result, out, err) = run(&["bad"]).await;
        assert_eq!((result.unwrap_err().as_str(), out.as_str(), err.as_str()), ("no\nhint: so", "", ""));
    }
}
