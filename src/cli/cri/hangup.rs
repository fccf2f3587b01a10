//! Whoever read what is printed may have left while nothing is printed.

use std::{io, os::fd::AsFd as _};

use tokio::{io::Interest, net::unix::pipe::Sender};

/// Waits until the pipe or socket that is the standard output has no reader any more; for ever if it is
/// something else, or has one.
pub(super) async fn reader_gone() {
    // Files cannot be waited for, and have no readers. Unchecked, as a check would make it non-blocking, for us
    // and for whoever else writes to it.
    if let Ok(output) = io::stdout().as_fd().try_clone_to_owned()
        && let Ok(watched) = Sender::from_owned_fd_unchecked(output)
        && watched.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
