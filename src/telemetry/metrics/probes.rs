//! `/metrics/probes`: what probes found, a series a probe. A pod's series go with the pod.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, TextEncoder, core::Collector as _};

use super::{DEFAULT, METRICS};

/// By the pods' UIDs.
#[derive(Default)]
pub(super) struct Figures(Mutex<BTreeMap<String, OfPod>>);

/// Whose probe it is.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOf<'a> {
    /// The pod's UID.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// `Liveness`, `Readiness` or `Startup`.
    pub kind: &'static str,
}

/// How a run of a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The container is well.
    Successful,
    /// It is not.
    Failed,
    /// The probe could not be run.
    Unknown,
}

struct OfPod {
    runs: IntCounterVec,
    seconds: HistogramVec,
}

impl OfPod {
    fn new(of: &ProbeOf<'_>) -> Result<Self, prometheus::Error> {
        let runs = Opts::new("prober_probe_total", "Runs of probes by what they found.")
            .const_label("namespace", of.namespace)
            .const_label("pod", of.pod)
            .const_label("pod_uid", of.uid);
        let seconds = HistogramOpts::new(
            "prober_probe_duration_seconds",
            "Duration in seconds of runs of probes that did not fail.",
        )
        .const_label("namespace", of.namespace)
        .const_label("pod", of.pod)
        .buckets(DEFAULT.to_vec());
        Ok(Self {
            runs: IntCounterVec::new(runs, &["probe_type", "container", "result"])?,
            seconds: HistogramVec::new(seconds, &["probe_type", "container"])?,
        })
    }
}

/// A probe was run.
pub fn probed(of: &ProbeOf<'_>, outcome: ProbeOutcome, took: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    let mut pods = metrics.probes.0.lock().unwrap_or_else(PoisonError::into_inner);
    if !pods.contains_key(of.uid) {
        // The names are fixed, so it is never refused.
        let Ok(made) = OfPod::new(of) else { return };
        pods.insert(of.uid.to_owned(), made);
    }
    let Some(pod) = pods.get(of.uid) else { return };
    let result = match outcome {
        ProbeOutcome::Successful => "successful",
        ProbeOutcome::Failed => "failed",
        ProbeOutcome::Unknown => "unknown",
    };
    pod.runs.with_label_values(&[of.kind, of.container, result]).inc();
    // As with kubelet.
    if outcome != ProbeOutcome::Failed {
        pod.seconds.with_label_values(&[of.kind, of.container]).observe(took.as_secs_f64());
    }
}

/// A pod is not probed any more.
pub fn forget_probes(uid: &str) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.probes.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
}

/// What probes found, in Prometheus' text format.
///
/// # Errors
/// When a figure cannot be written: the library's words.
pub fn probe_text() -> Result<String, prometheus::Error> {
    let Some(metrics) = METRICS.get() else { return Ok(String::new()) };
    let pods = metrics.probes.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut runs, mut seconds) = (None, None);
    for pod in pods.values() {
        for (all, of_pod) in [(&mut runs, pod.runs.collect()), (&mut seconds, pod.seconds.collect())] {
            for mut family in of_pod {
                let series = family.take_metric();
                let all: &mut prometheus::proto::MetricFamily = all.get_or_insert(family);
                series.into_iter().for_each(|one| all.mut_metric().push(one));
            }
        }
    }
    drop(pods);
    let families: Vec<_> =
        [runs, seconds].into_iter().flatten().filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_has_its_series_until_its_pod_is_gone() {
        super::super::init().unwrap();
        let of = |uid: &'static str, pod: &'static str| ProbeOf {
            uid,
            namespace: "probe-test",
            pod,
            container: "main",
            kind: "Readiness",
        };
        for (uid, pod) in [("probe-1", "a"), ("probe-2", "b")] {
            probed(&of(uid, pod), ProbeOutcome::Successful, Duration::from_millis(20));
            probed(&of(uid, pod), ProbeOutcome::Failed, Duration::from_millis(20));
        }
        probed(&of("probe-1", "a"), ProbeOutcome::Unknown, Duration::from_millis(20));
        let text = probe_text().unwrap();
        for (pod, uid, result) in [
            ("a", "probe-1", "successful"),
            ("a", "probe-1", "failed"),
            ("a", "probe-1", "unknown"),
            ("b", "probe-2", "failed"),
        ] {
            let line = format!(
                "prober_probe_total{{container=\"main\",namespace=\"probe-test\",pod=\"{pod}\",pod_uid=\"{uid}\",probe_type=\"Readiness\",result=\"{result}\"}} 1"
            );
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        let line = "prober_probe_duration_seconds_count{container=\"main\",namespace=\"probe-test\",pod=\"a\",probe_type=\"Readiness\"} 2";
        assert!(text.lines().any(|own| own == line), "{text}");
        for head in ["# TYPE prober_probe_total counter", "# TYPE prober_probe_duration_seconds histogram"] {
            assert_eq!(text.lines().filter(|line| *line == head).count(), 1, "{text}");
        }
        forget_probes("probe-1");
        let text = probe_text().unwrap();
        assert!(!text.contains("probe-1") && text.contains("probe-2"), "{text}");
        forget_probes("probe-2");
        assert!(!probe_text().unwrap().contains("probe-test"));
    }
}
