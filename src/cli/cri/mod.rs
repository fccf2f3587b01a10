//! `nodectl cri`: inspection of and surgery on a container runtime, with crictl's verbs, flags and JSON.
//!
//! One file a verb or family of verbs. What they share: [`session`] (which runtime, and what to say when
//! it does not answer), [`lookup`] (what is meant by an id), [`filter`], [`protojson`] and [`format`]. A
//! list asks the runtime for everything and narrows it here: filters then mean the same on every runtime,
//! and ids, names and images resolve against one picture.

mod act;
mod attach;
mod candidates;
mod change;
mod config;
mod config_file;
mod credentials;
mod end;
mod events;
mod exec;
mod filter;
mod format;
mod hangup;
mod images;
mod info;
mod inspect;
mod live;
mod logs;
mod lookup;
mod make;
mod message_file;
mod metrics;
mod password;
mod past;
mod pods;
mod port_forward;
mod protojson;
mod ps;
mod pull;
mod rmi;
mod runtimes;
mod schema;
mod screen;
mod session;
pub(in crate::cli) mod signals;
mod stats;
mod streams;
mod template;
mod terminal;
pub(super) mod terminal_guard;
mod terminal_modes;
mod text;
mod top;
mod tree;
mod update;
mod usage;

use std::{io::Write, process::ExitCode};

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};

use crate::error::CommandError;
pub(crate) use candidates::attach as attach_candidates;
use session::Session;

/// Arguments of `nodectl cri`.
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub struct CriArgs {
    #[command(flatten)]
    global: session::GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Show the runtime's name and versions
    Version(info::PlainArgs),
    /// Show the runtime's state, configuration and handlers
    Info(info::InfoArgs),
    /// List containers
    Ps(ps::PsArgs),
    /// List pods
    Pods(pods::PodsArgs),
    /// List images
    #[command(visible_aliases = ["image", "img"])]
    Images(images::ImagesArgs),
    /// Show all about containers
    Inspect(inspect::InspectArgs),
    /// Show all about pods
    Inspectp(inspect::InspectpArgs),
    /// Show all about images
    Inspecti(inspect::InspectiArgs),
    /// Show what a container said
    Logs(logs::LogsArgs),
    /// Show what happens to containers and pods, as it happens
    #[command(visible_alias = "event")]
    Events(events::EventsArgs),
    /// Run a command in a container, or in each of several
    Exec(exec::ExecArgs),
    /// Attach to a container's main process
    Attach(attach::AttachArgs),
    /// Forward local ports to a pod
    PortForward(port_forward::PortForwardArgs),
    /// Show where images are stored and what they take
    Imagefsinfo(info::PlainArgs),
    /// Show pods, the containers in them, and their images
    Tree(tree::TreeArgs),
    /// Show which runtimes are on this node, and what became of those of the past
    Runtimes(runtimes::RuntimesArgs),
    /// Show what containers use: CPU, memory, disk
    Stats(stats::StatsArgs),
    /// Watch what containers use, the largest first
    Top(top::TopArgs),
    /// Show what pods use: CPU, memory, disk
    Statsp(stats::StatspArgs),
    /// Show the runtime's own metrics of pods
    Metricsp(metrics::MetricspArgs),
    /// Show which metrics the runtime has
    Metricdescs(info::PlainArgs),
    /// Show what the runtime tells the agent to do: the cgroup driver
    RuntimeConfig(info::PlainArgs),
    #[command(flatten)]
    Change(change::ChangeVerb),
    /// Show and change the client's configuration, /etc/crictl.yaml
    Config(config::ConfigArgs),
}

/// Runs a verb. The exit code is 0, or that of a command that ran in a container.
///
/// # Errors
/// [`CommandError`] with what is wrong and what to do about it.
pub async fn run(
    matches: &ArgMatches,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ExitCode, CommandError> {
    let args = CriArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
    if let Verb::Config(config) = &args.verb {
        config::run(config, &args.global.config, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Verb::Runtimes(runtimes) = &args.verb {
        if let Some(told) = runtimes::of_the_past(runtimes, out) {
            told?;
        } else {
            let (given, limit) = session::given(&args.global, matches)?;
            runtimes::on_this_node(runtimes, given, limit, out).await?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Verb::Change(verb) = &args.verb
        && let Some(done) = change::offline(verb, out)
    {
        return done.map(|()| ExitCode::SUCCESS);
    }
    let session = Session::open(&args.global, matches, err).await?;
    match &args.verb {
        Verb::Exec(args) => return exec::run(args, &session).await,
        Verb::Attach(args) => return attach::run(args, &session).await,
        Verb::PortForward(args) => return port_forward::run(args, &session).await,
        Verb::Version(args) => info::version(args, &session, out).await,
        Verb::Info(args) => info::info(args, &session, out).await,
        Verb::Ps(args) => ps::run(args, &session, out).await,
        Verb::Pods(args) => pods::run(args, &session, out).await,
        Verb::Images(args) => images::run(args, &session, out).await,
        Verb::Inspect(args) => inspect::containers(args, &session, out).await,
        Verb::Inspectp(args) => inspect::pods(args, &session, out).await,
        Verb::Inspecti(args) => inspect::images(args, &session, out).await,
        Verb::Logs(args) => logs::run(args, &session, out, err).await,
        Verb::Events(args) => events::run(args, &session, out, err).await,
        Verb::Imagefsinfo(args) => info::image_fs(args, &session, out).await,
        Verb::Stats(args) => stats::containers(args, &session, out).await,
        Verb::Top(args) => top::run(args, &session, out).await,
        Verb::Statsp(args) => stats::pods(args, &session, out).await,
        Verb::Metricsp(args) => metrics::pods(args, &session, out).await,
        Verb::Metricdescs(args) => metrics::descriptors(args, &session, out).await,
        Verb::RuntimeConfig(args) => info::runtime_config(args, &session, out).await,
        Verb::Tree(args) => tree::run(args, &session, out).await,
        // Done above: they need no single runtime.
        Verb::Config(_) | Verb::Runtimes(_) => Ok(()),
        Verb::Change(verb) => session.until_signal(Box::pin(change::run(verb, &session, out, err))).await,
    }?;
    Ok(ExitCode::SUCCESS)
}
