//! Metrics that are written from a sample, with the sample's times: nothing is kept between two scrapes, so that what
//! is gone from the node is gone from its metrics.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use prometheus::{
    TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// A metric's name, what it is, and whether it only grows.
pub(super) type Kind = (&'static str, &'static str, MetricType);

/// Labels of a series.
pub(super) type Labels<'l> = [(&'l str, &'l str)];

/// Series by their names.
#[derive(Default)]
pub(super) struct Families(BTreeMap<&'static str, (Kind, Vec<Metric>)>);

impl Families {
    /// Adds a series; `at` is when it was so, where that is told.
    pub(super) fn add(&mut self, kind: Kind, labels: &Labels<'_>, value: f64, at: Option<Timestamp>) {
        let mut labels: Vec<LabelPair> = labels
            .iter()
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect();
        labels.sort_by(|a, b| a.name().cmp(b.name()));
        let mut metric = Metric::default();
        metric.set_label(labels);
        match kind.2 {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        if let Some(at) = at {
            metric.set_timestamp_ms(at.as_millisecond());
        }
        self.0.entry(kind.0).or_insert_with(|| (kind, Vec::new())).1.push(metric);
    }

    /// All of it in Prometheus' text format.
    ///
    /// # Errors
    /// The library's words.
    pub(super) fn text(self) -> Result<String, prometheus::Error> {
        let families = self.0.into_values().map(|((name, help, kind), metrics)| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        });
        TextEncoder::new().encode_to_string(&families.collect::<Vec<_>>())
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A number as metrics have them: doubles, which are exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "figures of Prometheus are doubles")]
pub(super) fn number(number: u64) -> f64 {
    number as f64
}

/// Nanoseconds in seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

/// Seconds since 1970.
#[allow(clippy::cast_precision_loss, reason = "see above")]
pub(super) fn since_epoch(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_order_and_escaped_and_times_are_told() {
        let mut families = Families::default();
        let kind = ("a_total", "What it is.", MetricType::COUNTER);
        let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        families.add(kind, &[("pod", "p\"\\\n"), ("container", "c")], 1.5, Some(at));
        families.add(kind, &[], number(1 << 53), None);
        families.add(("a", "First.", MetricType::GAUGE), &[("x", "y")], since_epoch(at), None);
        assert_eq!(
            families.text().unwrap(),
            "# HELP a First.\n# TYPE a gauge\na{x=\"y\"} 1700000000.123\n\
             # HELP a_total What it is.\n# TYPE a_total counter\n\
             a_total{container=\"c\",pod=\"p\\\"\\\\\\n\"} 1.5 1700000000123\n\
             a_total 9007199254740992\n"
        );
        assert_eq!(Families::default().text().unwrap(), "");
    }
}
