//! The manifest folder: when to look at it.
//!
//! inotify tells of every change at once, so that a pod starts within milliseconds of its manifest
//! being closed. There is no waiting for "more events to come": while one batch is read, the next
//! gathers by itself, which coalesces a hundred files without delaying the first. A look at the
//! whole folder every `fileCheckFrequency` is the safety net, for file systems without events and
//! for targets of symbolic links.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::folder::{Folder, Look, is_hidden};
use super::{Clock, PodSource, Publisher, SourceSnapshot};

/// How soon to look again at a folder that is not there, or that cannot be watched.
const RETRY: Duration = Duration::from_millis(500);
/// The most events that are taken before the folder is looked at.
const BATCH: usize = 4096;

/// What the file source needs to know.
#[derive(Clone)]
pub struct FileSourceConfig {
    /// `staticPodPath`: a folder of manifests, or one manifest.
    pub path: PathBuf,
    /// `fileCheckFrequency`: the time between two looks at the whole folder.
    pub check_frequency: Duration,
    /// The node's name, which becomes part of the names of the pods.
    pub node_name: String,
    /// The time of day.
    pub clock: Clock,
}

/// The task that follows a manifest folder.
pub struct FileSource {
    path: PathBuf,
    check_frequency: Duration,
    folder: Folder,
    publisher: Publisher,
    writing: HashSet<OsString>,
}

impl FileSource {
    /// Makes the source and the channel on which it tells what it knows.
    pub fn new(config: FileSourceConfig) -> (Self, watch::Receiver<Arc<SourceSnapshot>>) {
        let (publisher, receiver) = Publisher::new(PodSource::File);
        // A trailing slash would change the paths, and with them the UIDs.
        let path: PathBuf = config.path.components().collect();
        let source = Self {
            folder: Folder::new(path.clone(), config.node_name, config.clock),
            path,
            check_frequency: config.check_frequency.max(Duration::from_millis(100)),
            publisher,
            writing: HashSet::new(),
        };
        (source, receiver)
    }

    /// Follows the folder until `stop`. Never fails: what goes wrong is published as a problem.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut watcher = Watcher::default();
        let mut look = Look { all: true, ..Look::default() };
        // When to look at everything; events in between must not put it off.
        let mut due = Instant::now();
        loop {
            let everything = look.all;
            if look.all {
                // First the watch, then the look: what changes in between is an event.
                watcher = watcher.renew(&self.path).await;
                if watcher.fresh {
                    // What was open before the watch will not be told as closed.
                    self.writing.clear();
                }
            }
            look.writing = self.writing.clone();
            let mut folder = self.folder;
            let looking = spawn_blocking(move || {
                let again = folder.look(&look);
                (folder, again)
            });
            let again = tokio::select! {
                // A look may hang on a dead network file system; stopping must not.
                () = stop.cancelled() => return,
                done = looking => match done {
                    Ok((folder, again)) => {
                        self.folder = folder;
                        again
                    }
                    // Only when the runtime itself shuts down; panics are caught per manifest.
                    Err(error) => {
                        tracing::error!(%error, "file source ended");
                        return;
                    }
                },
            };
            self.publisher.publish(self.folder.snapshot());
            let usual =
                if self.folder.reachable() && watcher.watching() { self.check_frequency } else { RETRY };
            let next = Instant::now() + again.map_or(usual, |a| a.min(usual));
            due = if everything { next } else { due.min(next) };
            look = tokio::select! {
                () = stop.cancelled() => return,
                look = self.events(&mut watcher, due) => look,
            };
        }
    }

    /// Waits for something to look at: events, or the time to look at everything.
    async fn events(&mut self, watcher: &mut Watcher, due: Instant) -> Look {
        loop {
            let mut look = Look::default();
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    look.all = true;
                    return look;
                }
                event = watcher.next() => self.note(event, &mut look),
            }
            for _ in 0..BATCH {
                match watcher.ready().await {
                    Some(event) => self.note(event, &mut look),
                    None => break,
                }
            }
            if look.all || !look.closed.is_empty() || !look.touched.is_empty() {
                return look;
            }
        }
    }

    fn note(&mut self, event: std::io::Result<EventOwned>, look: &mut Look) {
        let Ok(event) = event else {
            look.all = true;
            return;
        };
        let itself = EventMask::Q_OVERFLOW
            | EventMask::DELETE_SELF
            | EventMask::MOVE_SELF
            | EventMask::IGNORED
            | EventMask::UNMOUNT;
        let Some(name) = event.name.filter(|_| !event.mask.intersects(itself)) else {
            // The folder's own attributes are no change of a manifest.
            look.all |= event.mask.intersects(itself);
            return;
        };
        if is_hidden(&name) {
            // Volumes of Kubernetes swap a hidden link to exchange all files at once.
            look.all |= event.mask.contains(EventMask::MOVED_TO);
            return;
        }
        if event.mask.contains(EventMask::MODIFY) {
            self.writing.insert(name);
            return;
        }
        if event.mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) {
            self.writing.remove(&name);
            look.touched.remove(&name);
            look.closed.insert(name);
        } else {
            if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
                self.writing.remove(&name);
                look.closed.remove(&name);
            }
            if !look.closed.contains(&name) {
                look.touched.insert(name);
            }
        }
    }
}

/// An inotify watch that may be missing: then the folder is looked at often.
#[derive(Default)]
struct Watcher {
    stream: Option<EventStream<Vec<u8>>>,
    watched: Option<WatchDescriptor>,
    fresh: bool,
    failure: Option<String>,
}

impl Watcher {
    fn watching(&self) -> bool {
        self.stream.is_some() && self.watched.is_some()
    }

    /// Watches what is at `path` now. Where that is the same folder as before nothing changes.
    async fn renew(mut self, path: &Path) -> Self {
        if self.stream.is_none() {
            let made = Inotify::init().and_then(|i| i.into_event_stream(vec![0; 16 << 10]));
            match made {
                Ok(stream) => self.stream = Some(stream),
                Err(error) => return self.failed(format!("inotify is not available: {error}")),
            }
        }
        let Some(mut watches) = self.stream.as_ref().map(EventStream::watches) else { return self };
        let path = path.to_owned();
        let added = spawn_blocking(move || {
            // A single manifest is watched through its folder: it is replaced by renaming.
            let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
            folder.filter(|_| path.exists()).map(|folder| {
                let mask = WatchMask::CLOSE_WRITE
                    | WatchMask::MODIFY
                    | WatchMask::MOVED_TO
                    | WatchMask::MOVED_FROM
                    | WatchMask::CREATE
                    | WatchMask::DELETE
                    | WatchMask::ATTRIB
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
                    | WatchMask::ONLYDIR;
                watches.add(folder, mask)
            })
        });
        match added.await {
            Ok(Some(Ok(descriptor))) => {
                self.fresh = self.watched.as_ref() != Some(&descriptor);
                if self.fresh
                    && let Some(old) = self.watched.replace(descriptor)
                    && let Some(stream) = &self.stream
                {
                    // Fails where the old folder is gone, and the watch with it.
                    let _gone = stream.watches().remove(old);
                }
                self.failure = None;
                self
            }
            Ok(Some(Err(error))) => {
                self.watched = None;
                self.failed(format!("manifest folder cannot be watched: {error}"))
            }
            // Nothing there to watch; that is told as the folder's own problem.
            _ => {
                self.watched = None;
                self
            }
        }
    }

    fn failed(mut self, why: String) -> Self {
        if self.failure.as_ref() != Some(&why) {
            tracing::warn!("{why}; looking every {RETRY:?} instead");
        }
        self.failure = Some(why);
        self
    }

    async fn next(&mut self) -> std::io::Result<EventOwned> {
        match &mut self.stream {
            Some(stream) => match stream.next().await {
                Some(event) => event,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// An event that is there already.
    async fn ready(&mut self) -> Option<std::io::Result<EventOwned>> {
        let stream = self.stream.as_mut()?;
        std::future::poll_fn(|cx| match Pin::new(&mut *stream).poll_next(cx) {
            Poll::Ready(event) => Poll::Ready(event),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
