//! Signals that end work, and not the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that are listened for from now on.
pub(in crate::cli) struct Signals(Vec<(i32, Signal)>);

impl Signals {
    /// Ctrl-C, SIGTERM, and the terminal's hanging up.
    ///
    /// # Errors
    /// If they cannot be listened for.
    pub(in crate::cli) fn ending() -> io::Result<Self> {
        Self::listen([SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
    }

    /// Signals of these kinds.
    ///
    /// # Errors
    /// As [`Self::ending`].
    pub(in crate::cli) fn listen(kinds: impl IntoIterator<Item = SignalKind>) -> io::Result<Self> {
        let listened = kinds.into_iter().map(|kind| Ok((kind.as_raw_value(), signal(kind)?)));
        listened.collect::<io::Result<_>>().map(Self)
    }

    /// The number of the next one.
    pub(in crate::cli) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
