//! The verbs that change something, which a signal may end with word of what was under way.

use std::io::Write;

use clap::Subcommand;

use super::{end, make, pull, rmi, session::Session, update};
use crate::error::CommandError;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ChangeVerb {
    /// Pull an image from a registry
    Pull(pull::PullArgs),
    /// Remove images
    Rmi(rmi::RmiArgs),
    /// Make a pod from a file
    Runp(make::RunpArgs),
    /// Make a container in a pod from files
    Create(make::CreateArgs),
    /// Make a pod and a container in it from files, and start it
    Run(make::RunArgs),
    /// Start containers that were created
    Start(end::StartArgs),
    /// Stop containers
    Stop(end::StopArgs),
    /// Stop pods
    Stopp(end::StoppArgs),
    /// Remove containers
    Rm(end::RmArgs),
    /// Remove pods
    Rmp(end::RmpArgs),
    /// Change the resources of containers that run
    Update(update::UpdateArgs),
    /// Write the state of a container that runs to an archive
    Checkpoint(update::CheckpointArgs),
    /// Tell the runtime the node's range of pod addresses
    UpdateRuntimeConfig(update::UpdateRuntimeConfigArgs),
}

/// Runs a verb.
pub(super) async fn run(
    verb: &ChangeVerb,
    session: &Session,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CommandError> {
    match verb {
        ChangeVerb::Pull(args) => pull::run(args, session, out).await,
        ChangeVerb::Rmi(args) => rmi::run(args, session, (out, err)).await,
        ChangeVerb::Runp(args) => make::runp(args, session, out).await,
        ChangeVerb::Create(args) => make::create(args, session, out).await,
        ChangeVerb::Run(args) => make::run(args, session, out).await,
        ChangeVerb::Start(args) => end::start(args, session, (out, err)).await,
        ChangeVerb::Stop(args) => end::stop(args, session, (out, err)).await,
        ChangeVerb::Stopp(args) => end::stopp(args, session, (out, err)).await,
        ChangeVerb::Rm(args) => end::rm(args, session, (out, err)).await,
        ChangeVerb::Rmp(args) => end::rmp(args, session, (out, err)).await,
        ChangeVerb::Update(args) => update::update(args, session, (out, err)).await,
        ChangeVerb::Checkpoint(args) => update::checkpoint(args, session, (out, err)).await,
        ChangeVerb::UpdateRuntimeConfig(args) => update::update_runtime_config(args, session, err).await,
    }
}
