//! `nodectl cri`: looks into a container runtime, with crictl's verbs, flags and JSON.
//!
//! One file a verb or family of verbs. What they share: [`session`] (which runtime, and what to say when
//! it does not answer), [`lookup`] (what is meant by an id), [`filter`], [`protojson`] and [`format`]. A
//! list asks the runtime for everything and narrows it here: filters then mean the same on every runtime,
//! and ids, names and images resolve against one picture.

mod attach;
mod config;
mod config_file;
mod exec;
mod filter;
mod format;
mod images;
mod info;
mod inspect;
mod lookup;
mod pods;
mod port_forward;
mod protojson;
mod ps;
mod session;
mod streams;
mod template;
mod terminal;
pub(super) mod terminal_guard;
mod text;

use std::{io::Write, process::ExitCode};

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};

use crate::error::CommandError;
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
    /// Run a command in a container, or in each of several
    Exec(exec::ExecArgs),
    /// Attach to a container's main process
    Attach(attach::AttachArgs),
    /// Forward local ports to a pod
    PortForward(port_forward::PortForwardArgs),
    /// Show where images are stored and what they take
    Imagefsinfo(info::PlainArgs),
    /// Show what the runtime tells the agent to do: the cgroup driver
    RuntimeConfig(info::PlainArgs),
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
        Verb::Imagefsinfo(args) => info::image_fs(args, &session, out).await,
        Verb::RuntimeConfig(args) => info::runtime_config(args, &session, out).await,
        // Done above: it asks no runtime.
        Verb::Config(_) => Ok(()),
    }?;
    Ok(ExitCode::SUCCESS)
}
