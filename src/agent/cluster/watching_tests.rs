//! How often a server is asked that fails, under a clock of the test's own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::stream;
use kube::core::Status;

use super::*;
use crate::agent::cluster::retry::RETRY;

type Item = watcher::Result<Event<()>>;

fn failed(code: u16) -> watcher::Error {
    let status = Status { code, ..Status::default() };
    watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
}

fn forgotten() -> watcher::Error {
    let status = Status { code: 410, ..Status::default() };
    watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed()))
}

/// A watch of which each try goes like this, for ever, and how often it was begun.
fn watching(attempt: fn() -> Vec<Item>) -> (Watching<()>, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let begin = move || {
        count.fetch_add(1, Ordering::Relaxed);
        stream::repeat_with(attempt).flat_map(stream::iter).boxed()
    };
    (Watching::of(begin, RETRY), begun)
}

/// Errors that were told within so many seconds.
async fn errors_within(watching: &mut Watching<()>, seconds: u64) -> usize {
    let mut errors = 0;
    let count = async {
        loop {
            errors += usize::from(watching.next().await.is_err());
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), count).await.ok();
    errors
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_list_is_asked_ever_more_rarely() {
    let (mut watching, _begun) = watching(|| vec![Ok(Event::Init), Err(failed(500))]);
    // After 0.5 s, 1, 2, 4, 8, 16, and then 30: ten minutes have 26 tries at most if each waits for half of it.
    let errors = errors_within(&mut watching, 300).await;
    assert!((10..=26).contains(&errors), "{errors}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_begins_the_waits_anew() {
    let (mut watching, _begun) = watching(|| vec![Err(failed(500)), Ok(Event::Apply(()))]);
    let errors = errors_within(&mut watching, 60).await;
    // Every half second at the most, every quarter at the least.
    assert!((120..=241).contains(&errors), "{errors}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_forgotten_is_begun_anew_at_once_and_one_that_always_is_ever_more_rarely() {
    let (mut watching, begun) = watching(|| vec![Ok(Event::Init), Ok(Event::InitDone), Err(forgotten())]);
    let start = Instant::now();
    for _ in 0..2 {
        assert!(matches!(watching.next().await, Ok(Event::Init)));
        assert!(matches!(watching.next().await, Ok(Event::InitDone)));
    }
    // The first time nobody is told of it.
    assert_eq!((begun.load(Ordering::Relaxed), start.elapsed()), (2, Duration::ZERO));
    let errors = errors_within(&mut watching, 300).await;
    assert!((10..=26).contains(&errors), "{errors}");
    assert_eq!(begun.load(Ordering::Relaxed), errors + 2);
    // Long after, it is at once again.
    tokio::time::advance(LASTING).await;
    watching.not_before = None;
    while !matches!(watching.next().await, Ok(Event::InitDone)) {}
    let start = Instant::now();
    assert!(matches!(watching.next().await, Ok(Event::Init)));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_loses_nothing() {
    let (mut watching, _begun) = watching(|| vec![Err(failed(500)), Ok(Event::Apply(()))]);
    assert!(watching.next().await.is_err());
    let start = Instant::now();
    for _ in 0..100 {
        assert!(tokio::time::timeout(Duration::from_millis(1), watching.next()).await.is_err());
    }
    assert!(matches!(watching.next().await, Ok(Event::Apply(()))));
    assert!(start.elapsed() >= Duration::from_millis(250) && start.elapsed() <= Duration::from_millis(501));
}
