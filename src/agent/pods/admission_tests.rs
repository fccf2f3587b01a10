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
    for (uid, pod) in [&ending, &running] {
        admitted.join(uid, &Arc::default());
        admitted.keep(uid, pod);
    }
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

#[tokio::test(start_paused = true)]
async fn what_ends_already_is_waited_for_before_another_ends() {
    let (admitted, node) = (Admitted::default(), node());
    let (small, large, high) = (pod("small", 300, None), pod("large", 500, None), pod("high", 200, CRITICAL));
    for (uid, pod) in [&small, &large, &high] {
        admitted.join(uid, &Arc::default());
        assert_eq!(admitted.admit(uid, pod, &node, None), Ok(Admission::Taken));
    }
    let waits = |names: &[&str]| {
        Ok(Admission::Waits(names.iter().map(|name| PodFullName::new("default", name)).collect()))
    };
    let critical = pod("critical", 300, CRITICAL);
    let mailbox = Arc::default();
    admitted.join(&critical.0, &mailbox);
    let admit = |(uid, pod): &(PodUid, Arc<Pod>)| admitted.admit(uid, pod, &node, None);
    admitted.ends(&large.0);
    assert_eq!(admit(&critical), waits(&["large"]));
    assert!(!admitted.is_preempted(&large.0) && !admitted.is_preempted(&small.0));
    // Its place is its own until it has ended, and no longer.
    assert!(admit(&pod("late", 100, None)).is_err());
    assert!(!woken(&mailbox).await);
    admitted.release(&large.0);
    assert!(woken(&mailbox).await);
    assert_eq!(
        (admit(&critical), admit(&pod("late", 200, None))),
        (Ok(Admission::Taken), Ok(Admission::Taken))
    );
    // Nobody has to end for one that fits when another critical pod has ended by itself.
    let second = pod("second", 500, CRITICAL);
    admitted.ends(&high.0);
    admitted.ends(&critical.0);
    assert_eq!(admit(&second), waits(&["critical", "high"]));
    assert!(!admitted.is_preempted(&small.0));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_has_no_more_holds_nobodys_place() {
    let (admitted, node) = (Admitted::default(), NodeSettings { in_place_resize: true, ..node() });
    let (gone, stays) = (pod("gone", 600, None), pod("stays", 400, None));
    let mailbox = Arc::default();
    for (uid, pod) in [&gone, &stays] {
        admitted.join(uid, &mailbox);
        assert_eq!(admitted.admit(uid, pod, &node, None), Ok(Admission::Taken));
    }
    let wants = pod("stays", 500, None);
    assert!(admitted.resize(&stays.0, &stays.1, &wants.1, &node).unwrap_err().deferred);
    admitted.leaves(&gone.0);
    assert!(woken(&mailbox).await, "who waits for room is told");
    assert_eq!(admitted.resize(&stays.0, &stays.1, &wants.1, &node), Ok(()));
    let next = pod("next", 500, None);
    admitted.join(&next.0, &mailbox);
    assert_eq!(admitted.admit(&next.0, &next.1, &node, None), Ok(Admission::Taken));
    // Nor is it ended for another, or waited for.
    let critical = pod("critical", 100, CRITICAL);
    let judged = admitted.admit(&critical.0, &critical.1, &node, None);
    let Ok(Admission::Waits(names)) = judged else { panic!("{judged:?}") };
    assert_eq!(names, [PodFullName::new("default", "next")]);
    assert!(!admitted.is_preempted(&gone.0));
    // A manifest's is waited for by who has its name.
    let mut of_a_manifest = Pod::clone(&pod("static", 100, None).1);
    of_a_manifest.metadata.annotations =
        Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    let (uid, node) = ("static".into(), NodeSettings { room: NodeRoom::default(), ..node });
    assert_eq!(admitted.admit(&uid, &Arc::new(of_a_manifest), &node, None), Ok(Admission::Taken));
    admitted.leaves(&uid);
    assert!(!admitted.lock().left.contains(&uid));
    // Nothing is kept of pods that have no place.
    for uid in [&gone.0, &"nobody".into()] {
        admitted.release(uid);
        admitted.leaves(uid);
        admitted.ends(uid);
    }
    assert!(admitted.lock().left.is_empty() && admitted.lock().ending.is_empty());
}

#[test]
fn nobody_waits_for_a_pod_that_has_no_worker() {
    let (admitted, node) = (Admitted::default(), node());
    let (known, from_disk) = (pod("known", 400, None), pod("from-disk", 600, None));
    admitted.keep(&from_disk.0, &from_disk.1);
    // Such a one could only be ended when the server is heard, which may be what is to be begun.
    let critical = pod("critical", 600, CRITICAL);
    assert_eq!(admitted.admit(&critical.0, &critical.1, &node, None), Ok(Admission::Taken));
    assert!(admitted.is_preempted(&from_disk.0), "it ends when it has one");
    admitted.join(&known.0, &Arc::default());
    admitted.keep(&known.0, &known.1);
    let second = pod("second", 400, CRITICAL);
    let names = vec![PodFullName::new("default", "known")];
    assert_eq!(admitted.admit(&second.0, &second.1, &node, None), Ok(Admission::Waits(names)));
}

#[tokio::test(start_paused = true)]
async fn who_ends_is_not_in_the_line_for_more() {
    let (admitted, node) = (Admitted::default(), NodeSettings { in_place_resize: true, ..node() });
    let had = [pod("low", 200, Some(1)), pod("high", 200, Some(9)), pod("other", 400, None)];
    let mailboxes: Vec<Arc<Mailbox>> = (0..3).map(|_| Arc::default()).collect();
    for ((uid, pod), mailbox) in had.iter().zip(&mailboxes) {
        admitted.join(uid, mailbox);
        assert_eq!(admitted.admit(uid, pod, &node, None), Ok(Admission::Taken));
    }
    let [low, high, other] = &had;
    let resize = |(uid, pod): &(PodUid, Arc<Pod>), wanted: (PodUid, Arc<Pod>)| {
        admitted.resize(uid, pod, &wanted.1, &node).map_err(|pending| pending.deferred)
    };
    assert_eq!(resize(high, pod("high", 700, Some(9))), Err(true));
    assert_eq!(resize(low, pod("low", 600, Some(1))), Err(true));
    admitted.release(&other.0);
    assert!(woken(&mailboxes[0]).await);
    assert_eq!(resize(low, pod("low", 600, Some(1))), Err(true), "the other comes first");
    admitted.ends(&high.0);
    assert!(woken(&mailboxes[0]).await);
    assert_eq!(resize(low, pod("low", 600, Some(1))), Ok(()));
}
