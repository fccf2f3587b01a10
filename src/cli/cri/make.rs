//! `nodectl cri runp`, `create` and `run`: pods and containers made by hand from files.

use std::{io::Write, time::Duration};

use clap::Args;

use super::{
    act::aside,
    lookup::Inventory,
    message_file,
    ps::inventory,
    pull::PullingArgs,
    schema::{PodSchema, Schema},
    session::{Session, duration},
};
use crate::{
    api::cri::{ContainerConfig, ImageSpec, PodSandboxConfig},
    cli::output::{printable, write},
    cri::{Cri as _, CriClient, CriTimeouts},
    error::CommandError,
};

/// Arguments of `nodectl cri runp`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct RunpArgs {
    #[command(subcommand)]
    pub(super) schema: Option<PodSchema>,
    /// The pod: a JSON or YAML file with a PodSandboxConfig, or - for standard input
    #[arg(value_name = "POD-CONFIG", required = true)]
    pod: Option<String>,
    /// The runtime's handler to run it with; `nodectl cri info` lists them
    #[arg(short, long, value_name = "HANDLER", default_value = "", hide_default_value = true)]
    runtime: String,
    /// How long making the pod may take before it is given up, as in 30s
    #[arg(short = 'T', long, value_name = "DURATION", value_parser = duration)]
    cancel_timeout: Option<Duration>,
}

/// What `create` and `run` do about the image.
#[derive(Debug, Clone, Args)]
struct ImageArgs {
    /// Take the image that is on the node
    #[arg(long)]
    no_pull: bool,
    /// Pull the image first
    #[arg(long, conflicts_with = "no_pull")]
    with_pull: bool,
    #[command(flatten)]
    pulling: PullingArgs,
    /// How long making the container may take before it is given up, as in 30s
    #[arg(short = 'T', long, value_name = "DURATION", value_parser = duration)]
    cancel_timeout: Option<Duration>,
}

/// Arguments of `nodectl cri create`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct CreateArgs {
    #[command(subcommand)]
    pub(super) schema: Option<Schema>,
    /// The pod: its id or UID, the beginning of one, or NAMESPACE/NAME
    #[arg(value_name = "POD", required = true)]
    pod: Option<String>,
    /// The container: a JSON or YAML file with a ContainerConfig, or - for standard input
    #[arg(value_name = "CONTAINER-CONFIG", required = true)]
    container: Option<String>,
    /// The file that the pod was made from
    #[arg(value_name = "POD-CONFIG", required = true)]
    pod_config: Option<String>,
    #[command(flatten)]
    image: ImageArgs,
}

/// Arguments of `nodectl cri run`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct RunArgs {
    #[command(subcommand)]
    pub(super) schema: Option<Schema>,
    /// The container: a JSON or YAML file with a ContainerConfig, or - for standard input
    #[arg(value_name = "CONTAINER-CONFIG", required = true)]
    container: Option<String>,
    /// The pod: a JSON or YAML file with a PodSandboxConfig, or - for standard input
    #[arg(value_name = "POD-CONFIG", required = true)]
    pod: Option<String>,
    /// The runtime's handler to run it with; `nodectl cri info` lists them
    #[arg(short, long, value_name = "HANDLER", default_value = "", hide_default_value = true)]
    runtime: String,
    #[command(flatten)]
    image: ImageArgs,
}

pub(super) async fn runp(
    args: &RunpArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let file = given(&args.pod).to_owned();
    let config = aside(move || message_file::pod(&file)).await?;
    let cri = patient(session, args.cancel_timeout);
    write(out, &format!("{}\n", make_pod(config, &args.runtime, &cri, session).await?))
}

pub(super) async fn create(
    args: &CreateArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let (container, pod) = files(given(&args.container), given(&args.pod_config)).await?;
    let all: Inventory = inventory(session).await?;
    let sandbox = &all.pod_to_change(given(&args.pod))?.id;
    let wanted = session.settings.get("pull-image-on-create") == Some("true");
    args.image.pull(wanted, &container, &pod, session).await?;
    let cri = patient(session, args.image.cancel_timeout);
    write(out, &format!("{}\n", make_container(sandbox, container, pod, &cri, session).await?))
}

pub(super) async fn run(args: &RunArgs, session: &Session, out: &mut dyn Write) -> Result<(), CommandError> {
    let (container, pod) = files(given(&args.container), given(&args.pod)).await?;
    // Before the pod: an image that cannot be had then leaves nothing behind.
    let wanted = session.settings.get("disable-pull-on-run") != Some("true");
    args.image.pull(wanted, &container, &pod, session).await?;
    let sandbox = make_pod(pod.clone(), &args.runtime, &session.change, session).await?;
    let cri = patient(session, args.image.cancel_timeout);
    let started = async {
        let id = make_container(&sandbox, container, pod, &cri, session).await?;
        session.act("StartContainer", &id, session.change.start_container(&id)).await?;
        Ok::<_, CommandError>(id)
    };
    match started.await {
        Ok(id) => write(out, &format!("{id}\n")),
        Err(error) => {
            let id = printable(&sandbox);
            Err(error.hint(format!("the pod {id} is there; `nodectl cri rmp --force {id}` removes it")))
        }
    }
}

/// The runtime with the limit that was given, or the usual ones.
fn patient(session: &Session, limit: Option<Duration>) -> CriClient {
    match limit {
        Some(limit) => {
            session.change.with_timeouts(CriTimeouts { request: limit, run_sandbox: limit, pull: None })
        }
        None => session.change.clone(),
    }
}

/// What is there wherever no `jsonschema` is: the command line has made sure of it.
fn given(argument: &Option<String>) -> &str {
    argument.as_deref().unwrap_or_default()
}

async fn files(container: &str, pod: &str) -> Result<(ContainerConfig, PodSandboxConfig), CommandError> {
    if container == "-" && pod == "-" {
        return Err(CommandError::usage("only one of the two files can be standard input"));
    }
    let (container, pod) = (container.to_owned(), pod.to_owned());
    aside(move || Ok((message_file::container(&container)?, message_file::pod(&pod)?))).await
}

async fn make_pod(
    config: PodSandboxConfig,
    handler: &str,
    cri: &CriClient,
    session: &Session,
) -> Result<String, CommandError> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let name = format!("{}/{}", metadata.namespace, metadata.name);
    session.act("RunPodSandbox", &name, cri.run_pod_sandbox(config, handler)).await
}

async fn make_container(
    sandbox: &str,
    config: ContainerConfig,
    pod: PodSandboxConfig,
    cri: &CriClient,
    session: &Session,
) -> Result<String, CommandError> {
    let name = config.metadata.clone().unwrap_or_default().name;
    session.act("CreateContainer", &name, cri.create_container(sandbox, config, pod)).await
}

impl ImageArgs {
    /// Pulls the container's image, and those that it mounts, if a flag says so or else `usually`.
    async fn pull(
        &self,
        usually: bool,
        container: &ContainerConfig,
        pod: &PodSandboxConfig,
        session: &Session,
    ) -> Result<(), CommandError> {
        if self.no_pull || !(usually || self.with_pull) {
            return Ok(());
        }
        let mounted = container.mounts.iter().filter_map(|mount| mount.image.clone());
        let images: Vec<ImageSpec> = container
            .image
            .clone()
            .into_iter()
            .chain(mounted)
            .filter(|image| !image.image.is_empty())
            .collect();
        let pulled = self.pulling.pull_all(images, pod, session).await;
        pulled.map_err(|error| error.hint("--no-pull takes the image that is on the node"))
    }
}
