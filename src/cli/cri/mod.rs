//! `nodectl cri`: inspection of and surgery on a container runtime, with crictl's verbs, flags and JSON.
//!
//! One file a verb or family of verbs. What they share: [`session`] (which runtime, and what to say when
//! it does not answer), [`lookup`] (what is meant by an id), [`filter`], [`protojson`] and [`format`]. A
//! list asks the runtime for everything and narrows it here: filters then mean the same on every runtime,
//! and ids, names and images resolve against one picture.

mod act;
mod change;
mod config;
mod config_file;
mod credentials;
mod end;
mod filter;
mod format;
mod images;
mod info;
mod inspect;
mod lookup;
mod make;
mod message_file;
mod password;
mod pods;
mod protojson;
mod ps;
mod pull;
mod rmi;
mod schema;
mod session;
mod template;
mod text;
mod update;

use std::io::Write;

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
    /// Show where images are stored and what they take
    Imagefsinfo(info::PlainArgs),
    /// Show what the runtime tells the agent to do: the cgroup driver
    RuntimeConfig(info::PlainArgs),
    #[command(flatten)]
    Change(change::ChangeVerb),
    /// Show and change the client's configuration, /etc/crictl.yaml
    Config(config::ConfigArgs),
}

/// Runs a verb.
///
/// # Errors
/// [`CommandError`] with what is wrong and what to do about it.
pub async fn run(matches: &ArgMatches, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CommandError> {
    let args = CriArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
    if let Verb::Config(config) = &args.verb {
        return config::run(config, &args.global.config, out);
    }
    if let Verb::Change(verb) = &args.verb
        && let Some(done) = change::offline(verb, out)
    {
        return done;
    }
    let session = Session::open(&args.global, matches, err).await?;
    match &args.verb {
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
        Verb::Change(verb) => session.until_signal(Box::pin(change::run(verb, &session, out, err))).await,
    }
}
