//! `nodectl cri start`, `stop`, `rm`, `stopp` and `rmp`: containers and pods begun, ended and removed by hand.

use std::{fs, io::Write, path::Path};

use clap::Args;

use super::{act::each, lookup::Inventory, ps::inventory, session::Session};
use crate::{
    api::{
        cri::{ContainerState, PodSandboxState},
        labels::POD_UID,
    },
    cli::output::{printable, write},
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri start`.
#[derive(Debug, Clone, Args)]
pub(super) struct StartArgs {
    /// Containers: ids or beginnings of them, NAMESPACE/POD/NAME, or a pod with one container by its UID or
    /// NAMESPACE/NAME
    #[arg(value_name = "CONTAINER", required = true)]
    ids: Vec<String>,
}

/// Arguments of `nodectl cri stop`.
#[derive(Debug, Clone, Args)]
pub(super) struct StopArgs {
    /// Containers: ids or beginnings of them, NAMESPACE/POD/NAME, or a pod with one container by its UID or
    /// NAMESPACE/NAME
    #[arg(value_name = "CONTAINER", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Seconds that the container has to end by itself before it is killed; 0 kills it at once
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    timeout: i64,
    /// All running containers
    #[arg(short, long)]
    all: bool,
}

/// Arguments of `nodectl cri rm`.
#[derive(Debug, Clone, Args)]
pub(super) struct RmArgs {
    /// Containers: ids or beginnings of them, NAMESPACE/POD/NAME, or a pod with one container by its UID or
    /// NAMESPACE/NAME
    #[arg(value_name = "CONTAINER", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Kill containers that run
    #[arg(short, long)]
    force: bool,
    /// Leave the container's log and its rotations
    #[arg(short, long)]
    keep_logs: bool,
    /// All containers
    #[arg(short, long)]
    all: bool,
}

/// Arguments of `nodectl cri stopp`.
#[derive(Debug, Clone, Args)]
pub(super) struct StoppArgs {
    /// Pods: ids or UIDs, beginnings of them, or NAMESPACE/NAME
    #[arg(value_name = "POD", required = true)]
    ids: Vec<String>,
}

/// Arguments of `nodectl cri rmp`.
#[derive(Debug, Clone, Args)]
pub(super) struct RmpArgs {
    /// Pods: ids or UIDs, beginnings of them, or NAMESPACE/NAME
    #[arg(value_name = "POD", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Stop pods that run
    #[arg(short, long)]
    force: bool,
    /// All pods
    #[arg(short, long)]
    all: bool,
}

type Streams<'a> = (&'a mut dyn Write, &'a mut dyn Write);

pub(super) async fn start(
    args: &StartArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    each(&args.ids, out, err, async |wanted| {
        let id = &all.container_to_change(wanted)?.id;
        session.act("StartContainer", wanted, session.change.start_container(id)).await?;
        Ok(wanted.to_owned())
    })
    .await
}

pub(super) async fn stop(
    args: &StopArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let running = all.containers.iter().filter(|c| c.state == ContainerState::ContainerRunning as i32);
    let ids = if args.all { running.map(|c| c.id.clone()).collect() } else { args.ids.clone() };
    if ids.is_empty() {
        return write(out, "No running containers found.\n");
    }
    let done = each(&ids, out, err, async |wanted| {
        let id = &all.container_to_change(wanted)?.id;
        session.act("StopContainer", wanted, session.change.stop_container(id, args.timeout)).await?;
        Ok(wanted.to_owned())
    });
    let done = done.await;
    tell_of_agents(containers_of_agents(&ids, &all), err);
    done
}

pub(super) async fn rm(
    args: &RmArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let every = all.containers.iter().map(|container| container.id.clone());
    let ids = if args.all { every.collect() } else { args.ids.clone() };
    if ids.is_empty() {
        note(err, "no containers to remove");
        return Ok(());
    }
    // Where they log is no longer told once they are gone.
    let done = each(&ids, out, err, async |wanted| {
        let id = &all.container_to_change(wanted)?.id;
        let status = session.ask("ContainerStatus", session.cri.container_status(id, false)).await?;
        let status = status.status.unwrap_or_default();
        if status.state == ContainerState::ContainerRunning as i32 {
            if !args.force {
                return Err(CommandError::failed(printable(&format!("the container {wanted} runs")))
                    .hint("`nodectl cri stop` ends it; `rm --force` kills it"));
            }
            session.act("StopContainer", wanted, session.change.stop_container(id, 0)).await?;
        }
        session.act("RemoveContainer", wanted, session.change.remove_container(id)).await?;
        if !args.keep_logs {
            remove_logs(Path::new(&status.log_path)).map_err(|error| {
                CommandError::failed(printable(&format!(
                    "the container {wanted} is removed, but not its log: {error}"
                )))
            })?;
        }
        Ok(wanted.to_owned())
    });
    let done = done.await;
    tell_of_agents(containers_of_agents(&ids, &all), err);
    done
}

pub(super) async fn stopp(
    args: &StoppArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let done = each(&args.ids, out, err, async |wanted| {
        let id = &all.pod_to_change(wanted)?.id;
        session.act("StopPodSandbox", wanted, session.change.stop_pod_sandbox(id)).await?;
        Ok(format!("Stopped sandbox {wanted}"))
    });
    let done = done.await;
    tell_of_agents(pods_of_agents(&args.ids, &all), err);
    done
}

pub(super) async fn rmp(
    args: &RmpArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let every = all.pods.iter().map(|pod| pod.id.clone());
    let ids = if args.all { every.collect() } else { args.ids.clone() };
    if ids.is_empty() {
        note(err, "no pods to remove");
        return Ok(());
    }
    let done = each(&ids, out, err, async |wanted| {
        let id = &all.pod_to_change(wanted)?.id;
        let status = session.ask("PodSandboxStatus", session.cri.pod_sandbox_status(id, false)).await?;
        if status.status.is_some_and(|status| status.state == PodSandboxState::SandboxReady as i32) {
            if !args.force {
                return Err(CommandError::failed(printable(&format!("the pod {wanted} runs")))
                    .hint("`nodectl cri stopp` ends it; `rmp --force` does both"));
            }
            session.act("StopPodSandbox", wanted, session.change.stop_pod_sandbox(id)).await?;
        }
        session.act("RemovePodSandbox", wanted, session.change.remove_pod_sandbox(id)).await?;
        Ok(format!("Removed sandbox {wanted}"))
    });
    let done = done.await;
    tell_of_agents(pods_of_agents(&ids, &all), err);
    done
}

/// Removes a log and its rotations, `0.log` and `0.log.20260102-030405.gz`. None there is none to remove.
fn remove_logs(log: &Path) -> Result<(), String> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let rotated = format!("{name}.");
    for entry in entries.flatten() {
        let file = entry.file_name();
        let is_log = file.to_str().is_some_and(|file| file == name || file.starts_with(&rotated));
        // A link is removed, not what it leads to.
        if is_log && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            fs::remove_file(entry.path()).map_err(|error| format!("{}: {error}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn containers_of_agents(ids: &[String], all: &Inventory) -> bool {
    let found = ids.iter().filter_map(|id| all.container_to_change(id).ok());
    found.into_iter().any(|container| container.labels.contains_key(POD_UID))
}

fn pods_of_agents(ids: &[String], all: &Inventory) -> bool {
    ids.iter().filter_map(|id| all.pod_to_change(id).ok()).any(|pod| pod.labels.contains_key(POD_UID))
}

/// What kubelet or `nodectl run` has made comes back.
fn tell_of_agents(any: bool, err: &mut dyn Write) {
    if any {
        note(
            err,
            "hint: the labels io.kubernetes.pod.* say that a node agent made it; while the agent runs it makes \
             it anew. Delete the pod or its manifest to end it",
        );
    }
}

/// There is nobody to tell that telling failed.
fn note(err: &mut dyn Write, text: &str) {
    writeln!(err, "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_with_its_rotations_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["0.log", "0.log.20260102-030405", "0.log.20260102-030405.gz", "0.logx", "1.log", "kept"]
        {
            fs::write(at(name), "x").unwrap();
        }
        fs::create_dir(at("0.log.d")).unwrap();
        std::os::unix::fs::symlink(at("kept"), at("0.log.link")).unwrap();
        remove_logs(&at("0.log")).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["0.log.d", "0.logx", "1.log", "kept"]);
        for none in ["", "/", "/nonexistent/0.log"] {
            remove_logs(Path::new(none)).unwrap();
        }
    }
}
