//! Counting, combining and limiting, over time that the tests move.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::policy::events::{Words, of_node};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

fn object(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some("shop".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(format!("uid-of-{name}")),
        field_path: Some("spec.containers{main}".to_owned()),
        ..ObjectReference::default()
    }
}

fn happens(name: &str, reason: &'static str, message: &str, at: Timestamp) -> Occurrence {
    Occurrence { object: object(name), words: Words::warning(reason, message), at }
}

fn count(told: &Correlated) -> i32 {
    told.event.count.unwrap()
}

#[test]
fn the_same_is_counted() {
    let mut correlator = Correlator::new("n1");
    let first = correlator.take(&happens("web", "BackOff", "again", at(0))).unwrap();
    assert!(!first.counted);
    let second = correlator.take(&happens("web", "BackOff", "again", at(20_000))).unwrap();
    assert!(second.counted);
    assert_eq!((count(&first), count(&second)), (1, 2));
    assert_eq!(first.event.metadata, second.event.metadata);
    assert_eq!(
        serde_json::to_value(&second.event).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": "web.17979cfe362a0000", "namespace": "shop" },
            "involvedObject": {
                "kind": "Pod", "namespace": "shop", "name": "web", "uid": "uid-of-web",
                "fieldPath": "spec.containers{main}",
            },
            "type": "Warning", "reason": "BackOff", "message": "again", "count": 2,
            "firstTimestamp": "2023-11-14T22:13:20Z", "lastTimestamp": "2023-11-14T22:13:40Z",
            "source": { "component": "kubelet", "host": "n1" },
            "reportingComponent": "kubelet", "reportingInstance": "n1",
        })
    );
    assert_eq!(
        change_of(&second.event),
        json!({ "count": 2, "lastTimestamp": "2023-11-14T22:13:40Z", "message": "again" })
    );
}

#[test]
fn others_are_others() {
    let mut correlator = Correlator::new("n1");
    let mut other = happens("web", "BackOff", "again", at(0));
    other.object.field_path = Some("spec.containers{side}".to_owned());
    let all = [
        happens("web", "BackOff", "again", at(0)),
        happens("shop", "BackOff", "again", at(0)),
        happens("web", "Failed", "again", at(0)),
        happens("web", "BackOff", "once more", at(0)),
        other,
        Occurrence { object: of_node("web"), ..happens("web", "BackOff", "again", at(0)) },
    ];
    let told: Vec<_> = all.iter().map(|happened| correlator.take(happened).unwrap()).collect();
    assert!(told.iter().all(|told| !told.counted && count(told) == 1));
    let names: BTreeSet<_> = told.iter().map(|told| told.event.metadata.name.clone()).collect();
    assert_eq!(names.len(), told.len());
    assert_eq!(told[5].event.metadata.namespace.as_deref(), Some("default"));
}

#[test]
fn similar_ones_are_combined_from_the_tenth_on() {
    let mut correlator = Correlator::new("n1");
    let mut told = Vec::new();
    for number in 0..12 {
        let happened = happens("web", "Failed", &format!("try {number}"), at(number * 1000));
        told.push(correlator.take(&happened).unwrap());
    }
    assert!(
        told[..9].iter().all(|told| !told.counted && !told.event.message.as_ref().unwrap().starts_with('('))
    );
    let message = |told: &Correlated| told.event.message.clone().unwrap();
    assert_eq!(message(&told[9]), "(combined from similar events): try 9");
    assert!(!told[9].counted);
    assert_eq!(message(&told[11]), "(combined from similar events): try 11");
    assert!(told[11].counted);
    assert_eq!(count(&told[11]), 3);
    assert_eq!(told[9].event.metadata.name, told[11].event.metadata.name);

    // After ten minutes without any they are new.
    let later = at(11_000 + 600_001);
    let told = correlator.take(&happens("web", "Failed", "try 12", later)).unwrap();
    assert_eq!(message(&told), "try 12");
}

#[test]
fn ten_minutes_are_counted_from_the_last() {
    let mut correlator = Correlator::new("n1");
    let mut now = 0;
    for number in 0..10 {
        let told = correlator.take(&happens("web", "Failed", &format!("try {number}"), at(now))).unwrap();
        assert_eq!(told.event.message.unwrap().starts_with("(combined"), number == 9);
        now += 599_000;
    }
}

#[test]
fn an_object_has_25_told_at_once_and_one_in_five_minutes() {
    let mut correlator = Correlator::new("n1");
    let mut take = |millis| correlator.take(&happens("web", "BackOff", "again", at(millis)));
    let told: Vec<_> = (0..30).map(&mut take).collect();
    assert!(told[..25].iter().all(Option::is_some) && told[25..].iter().all(Option::is_none));
    assert_eq!(take(299_000), None);
    // What was not told is counted.
    assert_eq!(count(&take(300_100).unwrap()), 32);
    assert_eq!(take(300_200), None);
    // A clock that goes back gives nothing.
    assert_eq!(take(-600_000), None);
    assert_eq!(take(300_300), None);
    assert!(take(900_400).is_some() && take(900_400).is_some() && take(900_400).is_none());
    assert!(correlator.take(&happens("other", "BackOff", "again", at(0))).is_some());
}

#[test]
fn the_servers_answer_is_counted_on() {
    let mut correlator = Correlator::new("n1");
    let happened = happens("web", "BackOff", "again", at(0));
    let told = correlator.take(&happened).unwrap();
    let mut answer = told.event.clone();
    answer.metadata.name = Some("theirs".to_owned());
    answer.count = Some(5);
    correlator.written(&told, &answer);
    let next = correlator.take(&happened).unwrap();
    assert_eq!((count(&next), next.event.metadata.name.as_deref()), (6, Some("theirs")));
}

#[test]
fn what_is_too_long_is_cut() {
    let mut correlator = Correlator::new("n1");
    let long = "ä".repeat(1000);
    let mut happened = happens(&"n".repeat(253), "Failed", &long, at(0));
    let event = correlator.take(&happened).unwrap().event;
    assert_eq!(event.message.unwrap().len(), 1024);
    assert_eq!(event.metadata.name.unwrap().len(), 253);
    for number in 0..10 {
        happened.words.message = format!("{number}{long}");
        let event = correlator.take(&happened).unwrap().event;
        assert!(event.message.unwrap().len() <= 1024);
    }
}

proptest! {
    /// However much happens: what an object has told stays within its budget, the number of Events within what is
    /// not combined, no name is given twice, and counts only grow.
    #[test]
    fn whatever_happens_is_bounded(
        steps in proptest::collection::vec((0..3_u8, 0..30_u8, 0..3_u8, 0..120_u32), 1..400)
    ) {
        let mut correlator = Correlator::new("n1");
        let mut now = at(0);
        let mut told: Vec<(u8, Correlated)> = Vec::new();
        for (who, what, reason, seconds) in steps {
            now += SignedDuration::from_secs(seconds.into());
            let reason = ["BackOff", "Failed", "Unhealthy"][usize::from(reason)];
            let happened = happens(&format!("pod{who}"), reason, &format!("message {what}"), now);
            told.extend(correlator.take(&happened).map(|correlated| (who, correlated)));
        }
        let passed = now.duration_since(at(0)).as_secs();
        for pod in 0..3 {
            let mine: Vec<_> = told.iter().filter(|(who, _)| *who == pod).map(|(_, told)| told).collect();
            let most = 26 + passed / 300;
            prop_assert!(i64::try_from(mine.len()).unwrap() <= most);
            let mut last = std::collections::HashMap::new();
            for told in mine {
                let name = told.event.metadata.name.clone().unwrap();
                let before = last.insert(name, count(told));
                prop_assert!(before.is_none_or(|before| before < count(told)));
                prop_assert!(told.counted || before.is_none());
            }
        }
    }
}
