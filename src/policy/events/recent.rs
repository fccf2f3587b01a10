//! What was used lately, up to a number: the oldest goes when there is one too many.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

/// Names an entry: a digest of what it is about, so that its size does not depend on what others have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key([u8; 16]);

impl Key {
    /// Of these texts, which are kept apart.
    pub(super) fn of(texts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for text in texts {
            digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            digest.update(text);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        Self(key)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent<V> {
    limit: usize,
    uses: u64,
    entries: HashMap<Key, (u64, V)>,
    order: BTreeMap<u64, Key>,
}

impl<V> Recent<V> {
    /// With room for so many.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, uses: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    /// The entry, which counts as used now; made where there is none.
    pub(super) fn entry(&mut self, key: Key, make: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        let uses = self.uses;
        let known = self.entries.get(&key).map(|(used, _)| *used);
        if let Some(used) = known {
            self.order.remove(&used);
        } else if self.entries.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.order.insert(uses, key);
        let entry = self.entries.entry(key).or_insert_with(|| (uses, make()));
        entry.0 = uses;
        &mut entry.1
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_not_used_for_longest_goes() {
        let mut recent = Recent::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::of(&[name]));
        *recent.entry(a, || 1) += 10;
        recent.entry(b, || 2);
        assert_eq!(*recent.entry(a, || 0), 11);
        recent.entry(c, || 3);
        assert_eq!(recent.len(), 2);
        assert_eq!(*recent.entry(a, || 0), 11);
        assert_eq!(*recent.entry(b, || 20), 20);
        assert_eq!(*recent.entry(c, || 30), 30);
    }

    #[test]
    fn texts_are_kept_apart() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_eq!(Key::of(&["ab", "c"]), Key::of(&["ab", "c"]));
    }
}
