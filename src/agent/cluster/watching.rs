//! A watch that goes on for as long as somebody wants it, and asks a server that fails ever more rarely.
//!
//! kube's watcher begins again by itself, at once, and tells [`Event::Init`] before it has asked for anything: whoever
//! takes that for an answer of the server forgets with every try how often it has failed. A watch that the server has
//! forgotten ("410 Gone") is begun anew with a list, the first time at once; a server that forgets every watch is
//! listed ever more rarely too.

use std::{fmt::Debug, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Resource,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::retry::jitter;
use crate::policy::backoff::RetryBackoff;

/// A watch that is forgotten again so soon was not one.
const LASTING: Duration = Duration::from_secs(60);

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// See the module.
pub(crate) struct Watching<K> {
    begin: Box<dyn Fn() -> Events<K> + Send + Sync>,
    events: Events<K>,
    backoff: RetryBackoff,
    /// When to go on after an error.
    not_before: Option<Instant>,
    /// When the server last had forgotten where the watch was.
    forgotten: Option<Instant>,
}

impl<K: 'static> Watching<K> {
    /// Begins with the first look at it, and waits so long after errors.
    pub(crate) fn new(api: Api<K>, config: watcher::Config, backoff: RetryBackoff) -> Self
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send,
        K::DynamicType: Default,
    {
        Self::of(move || watcher(api.clone(), config.clone()).boxed(), backoff)
    }

    fn of(begin: impl Fn() -> Events<K> + Send + Sync + 'static, backoff: RetryBackoff) -> Self {
        let events = begin();
        Self { begin: Box::new(begin), events, backoff, not_before: None, forgotten: None }
    }

    /// What comes next. After an error the one after it takes its time. Nothing is lost when it is not waited for to
    /// the end.
    ///
    /// # Errors
    /// Why the server could not be heard; it is tried again.
    pub(crate) async fn next(&mut self) -> watcher::Result<Event<K>> {
        loop {
            if let Some(at) = self.not_before {
                sleep_until(at).await;
                self.not_before = None;
            }
            let Some(event) = self.events.next().await else {
                self.events = (self.begin)();
                self.wait();
                continue;
            };
            let error = match event {
                Ok(event) => {
                    if is_heard(&event) && !self.was_just_forgotten() {
                        self.backoff.reset();
                    }
                    return Ok(event);
                }
                Err(error) => error,
            };
            if is_gone(&error) {
                self.events = (self.begin)();
                let again = self.was_just_forgotten();
                self.forgotten = Some(Instant::now());
                if !again {
                    tracing::debug!("listing again: {error}");
                    continue;
                }
            }
            self.wait();
            return Err(error);
        }
    }

    fn wait(&mut self) {
        self.not_before = Some(Instant::now() + jitter(self.backoff.fail()));
    }

    fn was_just_forgotten(&self) -> bool {
        self.forgotten.is_some_and(|at| at.elapsed() < LASTING)
    }
}

/// Whether the server has said it.
pub(crate) fn is_heard<K>(event: &Event<K>) -> bool {
    !matches!(event, Event::Init)
}

/// Whether the server has forgotten where the watch was.
fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

#[cfg(test)]
#[path = "watching_tests.rs"]
mod tests;
