//! `nodectl cri stats` and `statsp`: what containers and pods use.
//!
//! A table needs two looks, as a runtime tells how much CPU was used since the start; JSON and YAML are one
//! look, as the runtime tells it.

use std::{io::Write, time::Duration};

use clap::{Args, value_parser};
use serde_json::json;

use super::{
    filter::{MeasuredContainers, MeasuredPods},
    format::{Format, FormatArgs},
    live::{Rounds, rounds},
    protojson,
    session::Session,
    usage::{self, Containers, PodSample, Pods, Sample},
};
use crate::error::CommandError;

/// How long to measure, and whether to go on.
#[derive(Debug, Clone, Args)]
pub(super) struct SampleArgs {
    /// How long to measure CPU, in seconds; with --watch also the pause
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1, value_parser = value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Measure again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

impl SampleArgs {
    fn rounds(&self, format: &Format) -> Rounds {
        Rounds {
            every: Duration::from_secs(self.seconds.into()),
            count: if self.watch { usize::MAX } else { 1 },
            pairs: *format == Format::Table,
        }
    }
}

/// Arguments of `nodectl cri stats`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatsArgs {
    /// Containers: ids or beginnings of them, NAMESPACE/POD/NAME, or a pod with one container by its UID
    /// or NAMESPACE/NAME. Without any, all that the filters leave
    #[arg(value_name = "CONTAINER")]
    ids: Vec<String>,
    /// Also containers that use nothing, as they do not run
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    filter: MeasuredContainers,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

/// Arguments of `nodectl cri statsp`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatspArgs {
    /// Pods: ids or UIDs, beginnings of them, or NAMESPACE/NAME. Without any, all that the filters leave
    #[arg(value_name = "POD")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: MeasuredPods,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn containers(
    args: &StatsArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let wanted = Containers::new((&args.filter).into(), &args.ids)?;
    let all = args.all || wanted.by_id();
    let render = |before: Option<&Sample>, now: &Sample, out: &mut dyn Write| {
        let value = || {
            let stats = now.stats.values().map(|stats| protojson::json("ContainerStats", stats));
            Ok(json!({ "stats": stats.collect::<Result<Vec<_>, _>>()? }))
        };
        format.print(out, value, || usage::table(&usage::rows(before, now, all), args.no_trunc).render())
    };
    rounds(args.sample.rounds(&format), out, async || wanted.sample(session).await, render).await
}

pub(super) async fn pods(
    args: &StatspArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let wanted = Pods::new((&args.filter).into(), &args.ids)?;
    let render = |before: Option<&PodSample>, now: &PodSample, out: &mut dyn Write| {
        let value = || {
            let stats = now.values().map(|stats| protojson::json("PodSandboxStats", stats));
            Ok(json!({ "stats": stats.collect::<Result<Vec<_>, _>>()? }))
        };
        format.print(out, value, || usage::pod_table(before, now, args.no_trunc).render())
    };
    rounds(args.sample.rounds(&format), out, async || wanted.sample(session).await, render).await
}
