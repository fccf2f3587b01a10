//! How many Events come of what happens, by the rules and numbers of kubelet's client library
//! (client-go/tools/record/events_cache.go):
//!
//! - the same words of the same object are one Event, which counts and says when it was last;
//! - the tenth message of one reason within ten minutes, and those after it, go into one Event, `(combined from
//!   similar events)`;
//! - of one object 25 are told at once, and after that one in five minutes; what is not told is counted.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::{Value, json};

use super::{
    Occurrence,
    recent::{Key, Recent},
};

/// Objects, groups and Events that are remembered.
const REMEMBERED: usize = 4096;
/// So many different messages of one reason are one too many.
const SIMILAR: usize = 10;
/// Seconds after which similar ones are new.
const SIMILAR_SECONDS: i64 = 600;
const COMBINED: &str = "(combined from similar events): ";
/// Told of an object at once.
const BURST: f64 = 25.0;
/// Seconds for another one.
const REFILL_SECONDS: f64 = 300.0;
/// Bytes of a message; servers take no more of the newer kind of events.
const MAX_MESSAGE: usize = 1024;
/// Bytes of an object's name that go into that of its Event, which may have 253 with the time behind it.
const MAX_NAME: usize = 253 - 17;
/// Who tells: others look for events of kubelet's.
const COMPONENT: &str = "kubelet";

/// See the module.
#[derive(Debug)]
pub struct Correlator {
    host: String,
    objects: Recent<Budget>,
    groups: Recent<Group>,
    events: Recent<Told>,
    /// The time in the last name that was given, in nanoseconds: two Events never get one.
    last_name: i128,
}

/// What an object may still have told of it.
#[derive(Debug)]
struct Budget {
    left: f64,
    filled: Timestamp,
}

/// Different messages of one reason.
#[derive(Debug)]
struct Group {
    messages: BTreeSet<Key>,
    last: Timestamp,
}

/// An Event that was made.
#[derive(Debug, Default)]
struct Told {
    count: i32,
    name: String,
    first: Timestamp,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlated {
    /// The Event as it is to be, whether or not the server has it.
    pub event: Event,
    /// Whether the server should have it, so that only [`change_of`] is to be sent.
    pub counted: bool,
    key: Key,
}

/// What changes of an Event that happens again.
pub fn change_of(event: &Event) -> Value {
    json!({ "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message })
}

impl Correlator {
    /// For the events of a node.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            objects: Recent::new(REMEMBERED),
            groups: Recent::new(REMEMBERED),
            events: Recent::new(REMEMBERED),
            last_name: 0,
        }
    }

    /// Takes note of what happened. Answers what to tell of it, if anything.
    pub fn take(&mut self, happened: &Occurrence) -> Option<Correlated> {
        let (object, words, now) = (&happened.object, &happened.words, happened.at);
        let whom = about(object);
        let [kind, namespace, name, uid] = whom;
        let (severity, reason) = (words.severity.as_str(), &*words.reason);
        let group = Key::of(&[kind, namespace, name, uid, severity, reason]);
        let combined = self
            .groups
            .entry(group, || Group { messages: BTreeSet::new(), last: now })
            .add(Key::of(&[&words.message]), now);
        let (key, message) = if combined {
            (group, clipped(&format!("{COMBINED}{}", words.message)))
        } else {
            let path = object.field_path.as_deref().unwrap_or_default();
            let key = Key::of(&[kind, namespace, name, uid, path, severity, reason, &words.message]);
            (key, clipped(&words.message))
        };
        self.last_name = now.as_nanosecond().max(self.last_name + 1);
        let fresh = format!("{}.{:x}", begin_of_name(name), self.last_name);
        let told = self.events.entry(key, Told::default);
        let counted = told.count > 0;
        if !counted {
            *told = Told { count: 0, name: fresh, first: now };
        }
        told.count = told.count.saturating_add(1);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(told.name.clone()),
                namespace: Some(if namespace.is_empty() { "default" } else { namespace }.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            type_: Some(severity.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            count: Some(told.count),
            first_timestamp: Some(Time(told.first)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        let budget = self.objects.entry(Key::of(&whom), || Budget { left: BURST, filled: now });
        budget.take(now).then_some(Correlated { event, counted, key })
    }

    /// The server's answer: what it has now is what the next one counts from.
    pub fn written(&mut self, told: &Correlated, answer: &Event) {
        let first = answer.first_timestamp.as_ref().map(|time| time.0);
        let remembered = self.events.entry(told.key, Told::default);
        // More may have happened since, and the server's times are whole seconds.
        remembered.count = remembered.count.max(answer.count.unwrap_or(1));
        if let Some(name) = &answer.metadata.name {
            remembered.name.clone_from(name);
        }
        if remembered.first == Timestamp::default() {
            remembered.first = first.unwrap_or_default();
        }
    }
}

impl Group {
    /// Whether there are too many different ones, with this one.
    fn add(&mut self, message: Key, now: Timestamp) -> bool {
        if now.duration_since(self.last).as_secs_f64() > to_f64(SIMILAR_SECONDS) {
            self.messages.clear();
        }
        self.last = now;
        self.messages.insert(message);
        let many = self.messages.len() >= SIMILAR;
        if many {
            self.messages.pop_first();
        }
        many
    }
}

impl Budget {
    fn take(&mut self, now: Timestamp) -> bool {
        // A clock that was set back gives nothing, and takes nothing.
        let gone = now.duration_since(self.filled).as_secs_f64().max(0.0);
        self.filled = self.filled.max(now);
        self.left = (self.left + gone / REFILL_SECONDS).min(BURST);
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

fn to_f64(seconds: i64) -> f64 {
    jiff::SignedDuration::from_secs(seconds).as_secs_f64()
}

fn about(object: &ObjectReference) -> [&str; 4] {
    [&object.kind, &object.namespace, &object.name, &object.uid]
        .map(|text| text.as_deref().unwrap_or_default())
}

/// The begin of a text, in bytes, without half of a character.
fn begin(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn clipped(message: &str) -> String {
    begin(message, MAX_MESSAGE).to_owned()
}

fn begin_of_name(name: &str) -> &str {
    begin(name, MAX_NAME).trim_end_matches(['-', '.'])
}

#[cfg(test)]
#[path = "correlate_tests.rs"]
mod tests;
