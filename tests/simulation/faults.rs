//! What befalls a call: how long it takes, whether it takes effect, and what its caller is told. All is
//! drawn from the seed, the call and its object, so that it does not hang on the order of the tasks.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use nodectl::cri::CriErrorKind;

use crate::world::{Failure, Ms};

/// A number that depends on nothing but these.
pub(crate) fn dice(seed: u64, words: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, words).hash(&mut hasher);
    hasher.finish()
}

/// What the caller is told in the end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// What came of it.
    Normal,
    /// It fails and nothing was done.
    Refused(Failure),
    /// It was done, and the answer is lost.
    AnswerLost,
    /// No answer in time; it may take effect later or never.
    TimesOut {
        /// When the caller gives up.
        after: Ms,
        /// Whether it takes effect in the end.
        acts: bool,
    },
}

/// A call's way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) acts_after: Ms,
    pub(crate) answers_after: Ms,
    pub(crate) fate: Fate,
}

impl Plan {
    pub(crate) fn slow(acts_after: Ms) -> Self {
        Self { acts_after, answers_after: 1, fate: Fate::Normal }
    }

    /// Gives no answer within two minutes.
    pub(crate) fn hung(throw: u64) -> Self {
        Self {
            acts_after: 1000 + throw % 150_000,
            answers_after: 0,
            fate: Fate::TimesOut { after: 120_000, acts: throw.is_multiple_of(2) },
        }
    }

    pub(crate) fn told(&self) -> String {
        match &self.fate {
            Fate::Normal => String::new(),
            fate => format!(": {fate:?}, acts after {}", self.acts_after),
        }
    }
}

/// What befalls calls.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Faults in a thousand calls, of calls that change something.
    pub(crate) per_mille: u64,
    /// Likewise of calls that only ask.
    pub(crate) read_per_mille: u64,
    /// No faults from then on.
    pub(crate) until: Ms,
    /// The longest time a call takes.
    pub(crate) latency: Ms,
    /// Plans for the next calls of a kind whose key contains a word; no word is an empty key.
    pub(crate) scripted: Vec<(&'static str, String, Plan)>,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self { per_mille: 0, read_per_mille: 0, until: 0, latency: 5, scripted: Vec::new() }
    }

    /// Whether calls go as they should.
    pub(crate) fn are_none(&self) -> bool {
        self.per_mille == 0 && self.read_per_mille == 0
    }

    pub(crate) fn plan(&mut self, rpc: &str, key: &str, read: bool, now: Ms, throw: u64) -> Plan {
        let meant = self.scripted.iter().position(|(r, word, _)| {
            *r == rpc && if word.is_empty() { key.is_empty() } else { key.contains(word.as_str()) }
        });
        if let Some(place) = meant {
            return self.scripted.remove(place).2;
        }
        let longest = match rpc {
            "RunPodSandbox" | "CreateContainer" | "StopPodSandbox" | "RemovePodSandbox" => self.latency * 4,
            "PullImage" => self.latency * 200,
            _ => self.latency,
        };
        let mut plan = Plan {
            acts_after: 1 + throw % longest.max(1),
            answers_after: (throw >> 16) % self.latency.max(1),
            fate: Fate::Normal,
        };
        let rate = if read { self.read_per_mille } else { self.per_mille };
        if now >= self.until || (throw >> 24) % 1000 >= rate {
            return plan;
        }
        let refused = |kind, text: &str| Fate::Refused((kind, text.to_owned()));
        plan.fate = match (throw >> 40) % 8 {
            0 | 1 => refused(CriErrorKind::Other, "something failed"),
            2 => refused(CriErrorKind::Unavailable, "the connection broke"),
            3 | 4 => Fate::AnswerLost,
            5 => Fate::TimesOut { after: 1 + (throw >> 44) % 2000, acts: throw.is_multiple_of(2) },
            6 => Fate::TimesOut { after: 120_000, acts: throw.is_multiple_of(2) },
            _ => {
                plan.acts_after += (throw >> 44) % 20_000;
                Fate::Normal
            }
        };
        if let Fate::TimesOut { after, .. } = plan.fate {
            // It comes to its end, or is undone, some time before or after its caller gave up.
            plan.acts_after = 1 + (throw >> 48) % (after + 30_000);
        }
        plan
    }
}
