//! Whether the node runs short of memory, disk or process numbers: thresholds against what is left, as kubelet's
//! eviction manager has it (pkg/kubelet/eviction/helpers.go).
//!
//! A threshold counts as soon as it is passed, soft ones too: their grace period is about eviction and not about
//! what the node says of itself. It counts until there is more than the threshold and what is to be reclaimed, and a
//! pressure is told for a while after that, so that a node at the border does not come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::{api::quantity::Quantity, config::GoDuration};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the node that is not in use, without caches that can go.
    Memory,
    /// The same of what all pods may have together.
    AllocatableMemory,
    /// Bytes left on the file system of the agent's folder.
    NodeFs,
    /// Inodes left there.
    NodeFsInodes,
    /// Bytes left on the file system of the images.
    ImageFs,
    /// Inodes left there.
    ImageFsInodes,
    /// Process numbers left.
    Pids,
}

impl Signal {
    /// By the name that it has in the configuration. Those of container file systems follow from the others.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "memory.available" => Self::Memory,
            "allocatableMemory.available" => Self::AllocatableMemory,
            "nodefs.available" => Self::NodeFs,
            "nodefs.inodesFree" => Self::NodeFsInodes,
            "imagefs.available" => Self::ImageFs,
            "imagefs.inodesFree" => Self::ImageFsInodes,
            "pid.available" => Self::Pids,
            _ => return None,
        })
    }

    fn pressure(self) -> Pressure {
        match self {
            Self::Memory | Self::AllocatableMemory => Pressure::Memory,
            Self::NodeFs | Self::NodeFsInodes | Self::ImageFs | Self::ImageFsInodes => Pressure::Disk,
            Self::Pids => Pressure::Pid,
        }
    }
}

/// What a node can be short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
    /// Process numbers.
    Pid,
}

/// What was measured: how much is left of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// What is left.
    pub available: i64,
    /// Of how much.
    pub capacity: i64,
}

/// What was measured; a signal that could not be is not there.
pub type Measured = BTreeMap<Signal, Left>;

/// An amount, or a share of the capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Amount {
    Fixed(i64),
    Share(f64),
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => Some(Self::Share(percent.trim().parse::<f64>().ok()? / 100.0)),
            None => Some(Self::Fixed(Quantity::parse(text).ok()?.value())),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "a share of a capacity is smaller than it")]
    fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Fixed(amount) => amount,
            Self::Share(share) => (capacity as f64 * share) as i64,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Threshold {
    signal: Signal,
    amount: Amount,
    /// For how long it is to be passed before something is evicted.
    grace: Duration,
    reclaim: Amount,
}

impl Threshold {
    fn passed(&self, measured: &Measured, with_reclaim: bool) -> bool {
        let Some(left) = measured.get(&self.signal) else { return false };
        let reclaim = if with_reclaim { self.reclaim.of(left.capacity) } else { 0 };
        left.available < self.amount.of(left.capacity).saturating_add(reclaim)
    }
}

/// The configuration, as it stands there.
#[derive(Debug, Clone, Copy, Default)]
pub struct EvictionSettings<'a> {
    /// `evictionHard`.
    pub hard: Option<&'a BTreeMap<String, String>>,
    /// `evictionSoft`.
    pub soft: Option<&'a BTreeMap<String, String>>,
    /// `evictionSoftGracePeriod`.
    pub soft_grace: Option<&'a BTreeMap<String, String>>,
    /// `evictionMinimumReclaim`.
    pub minimum_reclaim: Option<&'a BTreeMap<String, String>>,
    /// Whether pods together are held to what is allocatable (`enforceNodeAllocatable` has `pods`).
    pub pods_enforced: bool,
}

/// Thresholds, and which of them are passed.
#[derive(Debug, Clone)]
pub struct Pressures {
    thresholds: Vec<Threshold>,
    transition: SignedDuration,
    /// By the place of a threshold: since when it is passed without a break.
    since: BTreeMap<usize, Timestamp>,
    /// Those whose grace period is over; they are passed until enough is reclaimed.
    unresolved: BTreeSet<usize>,
    last_seen: BTreeMap<Pressure, Timestamp>,
}

impl Pressures {
    /// `transition` is how long a pressure is told after it was last seen.
    pub fn new(settings: &EvictionSettings<'_>, transition: Duration) -> Self {
        let text =
            |map: Option<&BTreeMap<String, String>>, name: &str| map.and_then(|map| map.get(name).cloned());
        let mut thresholds = Vec::new();
        for (map, soft) in [(settings.hard, false), (settings.soft, true)] {
            for (name, amount) in map.into_iter().flatten() {
                let (Some(signal), Some(amount)) = (Signal::named(name), Amount::parse(amount)) else {
                    continue;
                };
                // A share of 0 and one of all turn a threshold off.
                if matches!(amount, Amount::Share(share) if share <= 0.0 || share >= 1.0) {
                    continue;
                }
                let grace = text(settings.soft_grace, name).filter(|_| soft);
                let threshold = Threshold {
                    signal,
                    amount,
                    grace: grace.and_then(|text| GoDuration::parse(&text).ok()).unwrap_or_default().to_std(),
                    reclaim: text(settings.minimum_reclaim, name)
                        .and_then(|text| Amount::parse(&text))
                        .unwrap_or(Amount::Fixed(0)),
                };
                thresholds.push(threshold);
                if signal == Signal::Memory && !soft && settings.pods_enforced {
                    thresholds.push(Threshold { signal: Signal::AllocatableMemory, ..threshold });
                }
            }
        }
        Self {
            thresholds,
            transition: SignedDuration::try_from(transition).unwrap_or(SignedDuration::MAX),
            since: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            last_seen: BTreeMap::new(),
        }
    }

    /// What the node is short of, after a measurement.
    pub fn observe(&mut self, measured: &Measured, now: Timestamp) -> BTreeSet<Pressure> {
        let passed: BTreeSet<usize> = (self.thresholds.iter().enumerate())
            .filter(|(place, threshold)| {
                threshold.passed(measured, false)
                    || (self.unresolved.contains(place) && threshold.passed(measured, true))
            })
            .map(|(place, _)| place)
            .collect();
        self.since.retain(|place, _| passed.contains(place));
        for place in &passed {
            self.since.entry(*place).or_insert(now);
        }
        self.unresolved = passed
            .into_iter()
            .filter(|place| {
                let Some(threshold) = self.thresholds.get(*place) else { return false };
                self.last_seen.insert(threshold.signal.pressure(), now);
                let grace = SignedDuration::try_from(threshold.grace).unwrap_or(SignedDuration::MAX);
                self.since.get(place).is_some_and(|since| now.duration_since(*since) >= grace)
            })
            .collect();
        // One that is seen at this moment is told whatever the period.
        self.last_seen.retain(|_, seen| *seen == now || now.duration_since(*seen) < self.transition);
        self.last_seen.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn left(signal: Signal, available: i64, capacity: i64) -> Measured {
        [(signal, Left { available, capacity })].into()
    }

    fn hard(pairs: &[(&str, &str)], transition: u64) -> Pressures {
        let hard = map(pairs);
        let settings = EvictionSettings { hard: Some(&hard), ..EvictionSettings::default() };
        Pressures::new(&settings, Duration::from_secs(transition))
    }

    #[test]
    fn amounts_and_shares_are_passed_below_them() {
        for (name, threshold, signal, available, pressure) in [
            ("memory.available", "100", Signal::Memory, 100, None),
            ("memory.available", "100", Signal::Memory, 99, Some(Pressure::Memory)),
            ("memory.available", "1Ki", Signal::Memory, 999, Some(Pressure::Memory)),
            ("nodefs.available", "10%", Signal::NodeFs, 100, None),
            ("nodefs.available", "10%", Signal::NodeFs, 99, Some(Pressure::Disk)),
            ("nodefs.inodesFree", "5%", Signal::NodeFsInodes, 49, Some(Pressure::Disk)),
            ("imagefs.available", "15%", Signal::ImageFs, 0, Some(Pressure::Disk)),
            ("imagefs.inodesFree", "1", Signal::ImageFsInodes, 0, Some(Pressure::Disk)),
            ("pid.available", "0.5%", Signal::Pids, 4, Some(Pressure::Pid)),
            // Off.
            ("pid.available", "0%", Signal::Pids, -1, None),
            ("pid.available", "100%", Signal::Pids, 1, None),
            // Nothing was measured of it.
            ("pid.available", "100", Signal::Memory, 1, None),
        ] {
            let found = hard(&[(name, threshold)], 0).observe(&left(signal, available, 1000), at(0));
            assert_eq!(found, pressure.into_iter().collect(), "{name} {threshold} {available}");
        }
    }

    #[test]
    fn a_pressure_stays_for_the_transition_period() {
        let mut pressures = hard(&[("memory.available", "100")], 30);
        let (much, little) = (left(Signal::Memory, 500, 1000), left(Signal::Memory, 10, 1000));
        let pressed = BTreeSet::from([Pressure::Memory]);
        assert_eq!(pressures.observe(&much, at(0)), BTreeSet::new());
        assert_eq!(pressures.observe(&little, at(10)), pressed);
        assert_eq!(pressures.observe(&much, at(20)), pressed);
        assert_eq!(pressures.observe(&much, at(39)), pressed);
        assert_eq!(pressures.observe(&much, at(40)), BTreeSet::new());
        assert_eq!(pressures.observe(&little, at(41)), pressed);
    }

    #[test]
    fn soft_ones_are_told_at_once_and_held_until_reclaimed_after_their_grace() {
        let (soft, grace, reclaim) = (
            map(&[("memory.available", "100")]),
            map(&[("memory.available", "1m")]),
            map(&[("memory.available", "50")]),
        );
        let settings = EvictionSettings {
            soft: Some(&soft),
            soft_grace: Some(&grace),
            minimum_reclaim: Some(&reclaim),
            ..EvictionSettings::default()
        };
        let mut pressures = Pressures::new(&settings, Duration::ZERO);
        let mut observe = |available, second| {
            !pressures.observe(&left(Signal::Memory, available, 1000), at(second)).is_empty()
        };
        assert!(observe(99, 0));
        // Its grace is not over: nothing has to be reclaimed.
        assert!(!observe(120, 10));
        assert!(observe(99, 20));
        assert!(observe(99, 80));
        // Now it is.
        assert!(observe(120, 90));
        assert!(observe(149, 100));
        assert!(!observe(150, 110));
        assert!(!observe(120, 120));
    }

    #[test]
    fn what_all_pods_have_is_held_to_the_hard_one() {
        let thresholds = map(&[("memory.available", "100")]);
        for (pods_enforced, pressed) in [(true, true), (false, false)] {
            let settings =
                EvictionSettings { hard: Some(&thresholds), pods_enforced, ..EvictionSettings::default() };
            let mut pressures = Pressures::new(&settings, Duration::ZERO);
            let found = pressures.observe(&left(Signal::AllocatableMemory, 99, 1000), at(0));
            assert_eq!(!found.is_empty(), pressed);
        }
    }

    proptest! {
        /// Told exactly while the last passing is within the period.
        #[test]
        fn told_as_long_as_seen_lately(
            steps in prop::collection::vec((1i64..40, any::<bool>()), 1..40), period in 0i64..60,
        ) {
            let mut pressures = hard(&[("pid.available", "10")], u64::try_from(period).unwrap());
            let (mut now, mut seen) = (0, None);
            for (step, pressed) in steps {
                now += step;
                if pressed {
                    seen = Some(now);
                }
                let available = if pressed { 9 } else { 10 };
                let found = pressures.observe(&left(Signal::Pids, available, 100), at(now));
                prop_assert_eq!(!found.is_empty(), seen.is_some_and(|seen| pressed || now - seen < period));
            }
        }
    }
}
