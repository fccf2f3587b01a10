//! `nodectl cri metricsp` and `metricdescs`: the runtime's own metrics of pods, which CRI leaves to it.

use std::{collections::BTreeMap, io::Write, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    format::{Format, FormatArgs},
    info::PlainArgs,
    live::{Rounds, rounds},
    protojson,
    session::Session,
    text::short_id,
};
use crate::{
    api::cri::{Metric, MetricDescriptor, PodSandboxMetrics},
    cli::output::Table,
    cri::Cri as _,
    error::CommandError,
};

/// Between two rounds of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Arguments of `nodectl cri metricsp`.
#[derive(Debug, Clone, Args)]
pub(super) struct MetricspArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Print them again every second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

pub(super) async fn pods(
    args: &MetricspArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    // The names of the labels are in the descriptors, and only a table needs them.
    let descriptors = if format == Format::Table { described(session).await? } else { Vec::new() };
    let how = Rounds { every: EVERY, count: if args.watch { usize::MAX } else { 1 }, pairs: false };
    let look = async || {
        let mut metrics =
            session.ask("ListPodSandboxMetrics", session.cri.list_pod_sandbox_metrics()).await?;
        metrics.sort_by(|a, b| a.pod_sandbox_id.cmp(&b.pod_sandbox_id));
        Ok(metrics)
    };
    rounds(how, out, look, |_, now: &Vec<PodSandboxMetrics>, out| {
        let value = || {
            let metrics = now.iter().map(|metrics| protojson::json("PodSandboxMetrics", metrics));
            Ok(json!({ "podMetrics": metrics.collect::<Result<Vec<_>, _>>()? }))
        };
        format.print(out, value, || table(now, &descriptors))
    })
    .await
}

async fn described(session: &Session) -> Result<Vec<MetricDescriptor>, CommandError> {
    session.ask("ListMetricDescriptors", session.cri.list_metric_descriptors()).await
}

pub(super) async fn descriptors(
    args: &PlainArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let found = described(session).await?;
    let value = || {
        let descriptors = found.iter().map(|descriptor| protojson::json("MetricDescriptor", descriptor));
        Ok(json!({ "descriptors": descriptors.collect::<Result<Vec<_>, _>>()? }))
    };
    format.print(out, value, || {
        let mut table = Table::new(["METRIC", "LABELS", "HELP"]);
        for descriptor in &found {
            let labels = descriptor.label_keys.join(",");
            table.push([descriptor.name.clone(), labels, descriptor.help.clone()]);
        }
        table.render()
    })
}

fn table(pods: &[PodSandboxMetrics], descriptors: &[MetricDescriptor]) -> String {
    let keys: BTreeMap<&str, &[String]> =
        descriptors.iter().map(|of| (of.name.as_str(), of.label_keys.as_slice())).collect();
    let mut table = Table::new(["POD ID", "CONTAINER", "METRIC", "VALUE", "LABELS"]);
    for pod in pods {
        let mut push = |container: &str, metric: &Metric| {
            let keys = keys.get(metric.name.as_str()).copied().unwrap_or_default();
            let labels = metric.label_values.iter().enumerate().map(|(at, value)| match keys.get(at) {
                Some(key) => format!("{key}={value}"),
                None => value.clone(),
            });
            table.push([
                short_id(&pod.pod_sandbox_id).to_owned(),
                short_id(container).to_owned(),
                metric.name.clone(),
                metric.value.unwrap_or_default().value.to_string(),
                labels.collect::<Vec<_>>().join(","),
            ]);
        };
        pod.metrics.iter().for_each(|metric| push("", metric));
        for container in &pod.container_metrics {
            container.metrics.iter().for_each(|metric| push(&container.container_id, metric));
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{ContainerMetrics, UInt64Value};

    #[test]
    fn metrics_in_a_table_have_their_labels_by_name() {
        let metric = |name: &str, values: &[&str]| Metric {
            name: name.to_owned(),
            label_values: values.iter().map(|&value| value.to_owned()).collect(),
            value: Some(UInt64Value { value: 7 }),
            ..Metric::default()
        };
        let pods = [PodSandboxMetrics {
            pod_sandbox_id: "0123456789abcdef".to_owned(),
            metrics: vec![metric("net", &["eth0", "odd"])],
            container_metrics: vec![ContainerMetrics {
                container_id: "c1".to_owned(),
                metrics: vec![metric("mem", &[])],
            }],
        }];
        let descriptors = [MetricDescriptor {
            name: "net".to_owned(),
            label_keys: vec!["interface".to_owned()],
            ..MetricDescriptor::default()
        }];
        assert_eq!(
            table(&pods, &descriptors),
            "POD ID          CONTAINER   METRIC   VALUE   LABELS\n\
             0123456789abc               net      7       interface=eth0,odd\n\
             0123456789abc   c1          mem      7\n"
        );
    }
}
