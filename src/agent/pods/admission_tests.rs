//! Who has a place on the node, and who makes room.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use super::*;
use crate::policy::{fit::NodeRoom, testing};

fn node() -> NodeSettings {
    let amounts = BTreeMap::from([("cpu".to_owned(), 1000)]);
    NodeSettings { room: NodeRoom { pods: None, amounts }, ..testing::node() }
}

fn pod(name: &str, cpu: u32, priority: Option<i32>) -> (PodUid, Arc<Pod>) {
    let mut pod = testing::pod(&["a"]);
    (pod.metadata.name, pod.metadata.uid) = (Some(name.into()), Some(name.into()));
    let spec = pod.spec.as_mut().unwrap();
    spec.priority = priority;
    let resources = json!({ "requests": { "cpu": format!("{cpu}m") } });
    spec.containers[0].resources = Some(serde_json::from_value(resources).unwrap());
    (name.into(), Arc::new(pod))
}

const CRITICAL: Option<i32> = Some(2_000_001_000);

async fn woken(mailbox: &Mailbox) -> bool {
    tokio::time::timeout(Duration::from_millis(1), mailbox.changed()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_has_its_place_and_waits_for_those_that_end() {
    let (admitted, node) = (Admitted::default(), node());
    let (small, large) = (pod("small", 400, None), pod("large", 600, None));
    let (first, second) = (pod("first", 500, CRITICAL), pod("second", 400, CRITICAL));
    let mailboxes: Vec<Arc<Mailbox>> = (0..4).map(|_| Arc::default()).collect();
    for ((uid, _), mailbox) in [&small, &large, &first, &second].into_iter().zip(&mailboxes) {
        admitted.join(uid, mailbox);
    }
    let admit = |(uid, pod): &(PodUid, Arc<Pod>)| admitted.admit(uid, pod, &node, None);
    let waits = |names: &[&str]| {
        Ok(Admission::Waits(names.iter().map(|name| PodFullName::new("default", name)).collect()))
    };
    assert_eq!((admit(&small), admit(&large)), (Ok(Admission::Taken), Ok(Admission::Taken)));

    assert_eq!(admit(&first), waits(&["large"]));
    assert!(admitted.is_preempted(&large.0) && !admitted.is_preempted(&small.0));
    assert!(woken(&mailboxes[1]).await && !woken(&mailboxes[0]).await);
    // Asked again it ends no other, and nobody else has the room.
    assert_eq!(admit(&first), waits(&["large"]));
    assert!(admit(&pod("late", 100, None)).is_err());
    assert_eq!(admit(&second), waits(&["large", "small"]));
    assert!(woken(&mailboxes[0]).await && !woken(&mailboxes[2]).await);

    admitted.release(&large.0);
    assert!(woken(&mailboxes[2]).await && woken(&mailboxes[3]).await);
    assert_eq!(admit(&second), waits(&["small"]));
    admitted.release(&small.0);
    assert_eq!((admit(&first), admit(&second)), (Ok(Admission::Taken), Ok(Admission::Taken)));
    assert!(!admitted.is_preempted(&large.0));
}

#[test]
fn what_an_earlier_agent_has_decided_is_not_decided_again() {
    let (admitted, node) = (Admitted::default(), node());
    let (ending, running, critical) =
        (pod("ending", 500, None), pod("running", 500, None), pod("c", 500, CRITICAL));
    admitted.keep(&ending.0, &ending.1);
    admitted.keep(&running.0, &running.1);
    admitted.preempt(&ending.0);
    let judged = admitted.admit(&critical.0, &critical.1, &node, None);
    assert_eq!(judged, Ok(Admission::Waits(vec![PodFullName::new("default", "ending")])));
    assert!(!admitted.is_preempted(&running.0));
    // One that is refused has no place.
    let huge = pod("huge", 2000, CRITICAL);
    assert!(admitted.admit(&huge.0, &huge.1, &node, None).is_err());
    assert_eq!(admitted.lock().pods.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_comes_free_goes_to_who_is_first_in_line() {
    let (admitted, node) = (Admitted::default(), NodeSettings { in_place_resize: true, ..node() });
    let had = [pod("low", 100, Some(1)), pod("high", 100, Some(9)), pod("gone", 700, None)];
    let mailboxes: Vec<Arc<Mailbox>> = (0..3).map(|_| Arc::default()).collect();
    for ((uid, pod), mailbox) in had.iter().zip(&mailboxes) {
        admitted.join(uid, mailbox);
        assert_eq!(admitted.admit(uid, pod, &node, None), Ok(Admission::Taken));
    }
    let [low, high, gone] = &had;
    let resize = |(uid, pod): &(PodUid, Arc<Pod>), wanted: &(PodUid, Arc<Pod>)| {
        admitted.resize(uid, pod, &wanted.1, &node).map_err(|pending| pending.deferred)
    };
    let (low_wants, high_wants) = (pod("low", 600, Some(1)), pod("high", 700, Some(9)));
    assert_eq!((resize(low, &low_wants), resize(high, &high_wants)), (Err(true), Err(true)));
    assert_eq!(resize(low, &pod("low", 1100, Some(1))), Err(false), "it never will");
    assert_eq!(resize(low, &low_wants), Err(true));
    admitted.release(&gone.0);
    assert!(woken(&mailboxes[0]).await && woken(&mailboxes[1]).await);
    // Whoever asks first, the higher priority has it.
    assert_eq!((resize(low, &low_wants), resize(high, &high_wants)), (Err(true), Ok(())));
    assert!(woken(&mailboxes[0]).await);
    assert_eq!(resize(low, &pod("low", 300, Some(1))), Ok(()));
    // What was given counts for whoever comes, and is not taken back by what the source says.
    admitted.keep_running(&high.0, &high.1);
    assert!(admitted.admit(&"late".into(), &pod("late", 100, None).1, &node, None).is_err());
    // Who asks for less is not held up by others.
    admitted.keep(&low.0, &low.1);
    assert_eq!(resize(low, &low_wants), Err(true));
    assert_eq!(resize(&(high.0.clone(), high_wants.1), &pod("high", 50, Some(9))), Ok(()));
}
