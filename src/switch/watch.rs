//! What of the node is being looked at just now. A file system whose server is gone (NFS, FUSE) does not answer, and
//! no call on it can be ended from here: whoever waits at least learns for what.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Who looks, and who waits, have one each.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    now: Arc<Mutex<Option<(PathBuf, Instant)>>>,
}

impl Watch {
    /// Looks at a path.
    pub fn during<T>(&self, path: &Path, look: impl FnOnce() -> T) -> T {
        let outer = self.now().replace((path.to_owned(), Instant::now()));
        let found = look();
        *self.now() = outer;
        found
    }

    /// The path that has been looked at for longer than this.
    pub fn stuck(&self, limit: Duration) -> Option<PathBuf> {
        self.now().as_ref().filter(|(_, since)| since.elapsed() > limit).map(|(path, _)| path.clone())
    }

    fn now(&self) -> MutexGuard<'_, Option<(PathBuf, Instant)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_look_is_told_and_none_when_it_is_over() {
        let watch = Watch::default();
        let other = watch.clone();
        let stuck = |limit: u64| other.stuck(Duration::from_secs(limit));
        watch.during(Path::new("/a"), || {
            watch.during(Path::new("/a/b"), || assert_eq!(stuck(0), Some("/a/b".into())));
            assert_eq!(stuck(0), Some("/a".into()));
            assert_eq!(stuck(60), None);
        });
        assert_eq!(stuck(0), None);
    }
}
