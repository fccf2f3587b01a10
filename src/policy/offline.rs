//! Whether a pod that the node knows from its disk alone may be started while no API server is heard.
//!
//! A node that is not heard of gets the taint `node.kubernetes.io/unreachable`, and a pod is evicted when its toleration
//! of it has run out (pkg/controller/tainteviction): another may then run elsewhere in its place. The node counts the
//! same seconds from when it last renewed its lease. The cluster begins to count later, when the lease has run out, so
//! a node that keeps to this is never late.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint};
use serde::{Deserialize, Serialize};

use super::taints::{NO_EXECUTE, tolerates};
use crate::{api::PodExt as _, config::OfflinePods};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A point of time by both clocks that there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The time of day, which may be wrong after a boot, and be set at any time.
    pub at: Timestamp,
    /// Which boot of the machine it was in.
    pub boot: String,
    /// Since that boot, with the time that the machine slept; never wrong.
    pub since_boot: Duration,
}

/// How long the server was not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// For this long, or for longer where the clock was set back meanwhile.
    For(Duration),
    /// The clock stands before the time of the last contact, so it is wrong.
    ClockBehind,
    /// It is not known that it was ever heard.
    Unknown,
}

/// How long the server was not heard, now.
pub fn silence(last: Option<&Moment>, now: &Moment) -> Silence {
    let Some(last) = last else { return Silence::Unknown };
    if !last.boot.is_empty() && last.boot == now.boot {
        return Silence::For(now.since_boot.saturating_sub(last.since_boot));
    }
    match Duration::try_from(now.at.duration_since(last.at)) {
        // It was before this boot, whatever the time of day says.
        Ok(gone) => Silence::For(gone.max(now.since_boot)),
        Err(_) => Silence::ClockBehind,
    }
}

/// For how long the pod stays on a node that is not heard of; `None` is for ever. Of several tolerations the first
/// counts, as for who evicts.
pub fn tolerated(pod: &Pod) -> Option<Duration> {
    let taint =
        Taint { key: UNREACHABLE.to_owned(), value: None, effect: NO_EXECUTE.to_owned(), time_added: None };
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let Some(first) = tolerations.iter().find(|toleration| tolerates(toleration, &taint)) else {
        return Some(Duration::ZERO);
    };
    first.toleration_seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Whether the pod may be started.
///
/// # Errors
/// Why not, in words.
pub fn may_start(pod: &Pod, mode: OfflinePods, silence: Silence) -> Result<(), String> {
    let Some(tolerated) = tolerated(pod).filter(|_| mode == OfflinePods::Tolerated && !pod.is_static())
    else {
        return Ok(());
    };
    let bound = format!(
        "the pod tolerates {UNREACHABLE} for {} s, and another may run in its place by now",
        tolerated.as_secs()
    );
    match silence {
        Silence::For(gone) if gone < tolerated => Ok(()),
        Silence::For(gone) => {
            Err(format!("the API server was last heard of {} ago; {bound}", in_words(gone)))
        }
        Silence::ClockBehind => Err(format!(
            "the clock stands before the time at which the API server was last heard of, so it is not known how long \
             ago that was; {bound}"
        )),
        Silence::Unknown => Err(format!("it is not known when the API server was last heard of; {bound}")),
    }
}

/// A duration to its second.
pub fn in_words(duration: Duration) -> String {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    format!("{:#}", SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::testing::pod;

    const SECOND: Duration = Duration::from_secs(1);

    fn moment(at: i64, boot: &str, since_boot: u64) -> Moment {
        Moment {
            at: Timestamp::from_second(at).unwrap(),
            boot: boot.to_owned(),
            since_boot: SECOND * u32::try_from(since_boot).unwrap(),
        }
    }

    fn tolerating(tolerations: &Value) -> Pod {
        let mut pod = pod(&["a"]);
        pod.metadata.annotations = None;
        pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(tolerations.clone()).unwrap();
        pod
    }

    #[test]
    fn within_a_boot_the_time_of_day_does_not_count() {
        let last = moment(1_000_000, "a", 100);
        for at in [0, 1_000_010, 9_000_000] {
            assert_eq!(silence(Some(&last), &moment(at, "a", 110)), Silence::For(SECOND * 10));
        }
        assert_eq!(silence(None, &last), Silence::Unknown);
    }

    #[test]
    fn after_a_boot_it_does_and_one_that_is_behind_is_wrong() {
        let last = moment(1_000_000, "a", 100);
        let now = |at, since| silence(Some(&last), &moment(at, "b", since));
        assert_eq!(now(1_000_200, 20), Silence::For(SECOND * 200));
        // A clock that stood still while the machine was off: the time since the boot is passed at least.
        assert_eq!(now(1_000_000, 20), Silence::For(SECOND * 20));
        assert_eq!(now(999_999, 20), Silence::ClockBehind);
        // Of unknown boots none is this one.
        let unknown = moment(1_000_000, "", 100);
        assert_eq!(silence(Some(&unknown), &moment(1_000_050, "", 110)), Silence::For(SECOND * 110));
    }

    #[test]
    fn the_first_toleration_counts() {
        let seconds = |tolerations: Value| tolerated(&tolerating(&tolerations)).map(|time| time.as_secs());
        let of = |key: &str, seconds: Value| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds });
        assert_eq!(seconds(json!([])), Some(0));
        assert_eq!(seconds(json!([of("node.kubernetes.io/not-ready", json!(300))])), Some(0));
        assert_eq!(seconds(json!([of(UNREACHABLE, json!(300))])), Some(300));
        assert_eq!(seconds(json!([of(UNREACHABLE, json!(-1))])), Some(0));
        assert_eq!(seconds(json!([of(UNREACHABLE, Value::Null)])), None);
        assert_eq!(seconds(json!([{ "operator": "Exists" }])), None);
        assert_eq!(seconds(json!([of(UNREACHABLE, json!(5)), { "operator": "Exists" }])), Some(5));
        assert_eq!(seconds(json!([{ "operator": "Exists", "effect": "NoSchedule" }])), Some(0));
    }

    #[test]
    fn a_pod_starts_while_its_toleration_lasts() {
        let of = |seconds: Value| json!([{ "key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": seconds }]);
        let bounded = tolerating(&of(json!(300)));
        let forever = tolerating(&of(Value::Null));
        let may = |pod: &Pod, mode, silence| may_start(pod, mode, silence).is_ok();
        use OfflinePods::{Always, Tolerated};
        for (silence, expected) in [
            (Silence::For(SECOND * 299), true),
            (Silence::For(SECOND * 300), false),
            (Silence::ClockBehind, false),
            (Silence::Unknown, false),
        ] {
            assert_eq!(may(&bounded, Tolerated, silence), expected, "{silence:?}");
            assert!(may(&bounded, Always, silence) && may(&forever, Tolerated, silence));
        }
        let none = tolerating(&json!([]));
        assert!(!may(&none, Tolerated, Silence::For(Duration::ZERO)));
        let mut fixed = none;
        let source = ("kubernetes.io/config.source".to_owned(), "file".to_owned());
        fixed.metadata.annotations = Some([source].into());
        assert!(may(&fixed, Tolerated, Silence::Unknown));
        let why = may_start(&bounded, Tolerated, Silence::For(SECOND * 3700)).unwrap_err();
        assert!(
            why.starts_with("the API server was last heard of 1h 1m 40s ago; the pod tolerates"),
            "{why}"
        );
    }
}
