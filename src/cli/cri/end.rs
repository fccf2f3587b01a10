//! `nodectl cri start`, `stop`, `rm`, `stopp` and `rmp`: containers and pods begun, ended and removed by hand.

use std::{cell::Cell, collections::BTreeMap, fs, io::Write, path::Path};

use clap::Args;

use super::{
    act::{SOME, Streams, each},
    ps::inventory,
    session::Session,
};
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

pub(super) async fn start(
    args: &StartArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    // One after the other: whoever starts several may mean the order.
    each(&args.ids, 1, (out, err), async |wanted| {
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
    let comes_back = ComesBack::default();
    let running = all.containers.iter().filter(|c| c.state == ContainerState::ContainerRunning as i32);
    let ids = if args.all { running.map(|c| c.id.clone()).collect() } else { args.ids.clone() };
    if ids.is_empty() {
        return write(out, "No running containers found.\n");
    }
    let done = each(&ids, SOME, (&mut *out, &mut *err), async |wanted| {
        let container = all.container_to_change(wanted)?;
        let call = session.change.stop_container(&container.id, args.timeout);
        session.act("StopContainer", wanted, call).await?;
        comes_back.note(&container.labels);
        Ok(wanted.to_owned())
    });
    let done = done.await;
    comes_back.tell(err);
    done
}

pub(super) async fn rm(
    args: &RmArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let comes_back = ComesBack::default();
    let every = all.containers.iter().map(|container| container.id.clone());
    let ids = if args.all { every.collect() } else { args.ids.clone() };
    if ids.is_empty() {
        note(err, "no containers to remove");
        return Ok(());
    }
    // Where they log is no longer told once they are gone.
    let done = each(&ids, SOME, (&mut *out, &mut *err), async |wanted| {
        let container = all.container_to_change(wanted)?;
        let id = &container.id;
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
        comes_back.note(&container.labels);
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
    comes_back.tell(err);
    done
}

pub(super) async fn stopp(
    args: &StoppArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let comes_back = ComesBack::default();
    let done = each(&args.ids, SOME, (&mut *out, &mut *err), async |wanted| {
        let pod = all.pod_to_change(wanted)?;
        session.act("StopPodSandbox", wanted, session.change.stop_pod_sandbox(&pod.id)).await?;
        comes_back.note(&pod.labels);
        Ok(format!("Stopped sandbox {wanted}"))
    });
    let done = done.await;
    comes_back.tell(err);
    done
}

pub(super) async fn rmp(
    args: &RmpArgs,
    session: &Session,
    (out, err): Streams<'_>,
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let comes_back = ComesBack::default();
    let every = all.pods.iter().map(|pod| pod.id.clone());
    let ids = if args.all { every.collect() } else { args.ids.clone() };
    if ids.is_empty() {
        note(err, "no pods to remove");
        return Ok(());
    }
    let done = each(&ids, SOME, (&mut *out, &mut *err), async |wanted| {
        let pod = all.pod_to_change(wanted)?;
        let id = &pod.id;
        let status = session.ask("PodSandboxStatus", session.cri.pod_sandbox_status(id, false)).await?;
        if status.status.is_some_and(|status| status.state == PodSandboxState::SandboxReady as i32) {
            if !args.force {
                return Err(CommandError::failed(printable(&format!("the pod {wanted} runs")))
                    .hint("`nodectl cri stopp` ends it; `rmp --force` does both"));
            }
            session.act("StopPodSandbox", wanted, session.change.stop_pod_sandbox(id)).await?;
        }
        session.act("RemovePodSandbox", wanted, session.change.remove_pod_sandbox(id)).await?;
        comes_back.note(&pod.labels);
        Ok(format!("Removed sandbox {wanted}"))
    });
    let done = done.await;
    comes_back.tell(err);
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

/// Whether something of what was ended is a node agent's: what kubelet or `nodectl run` has made comes back.
#[derive(Default)]
struct ComesBack(Cell<bool>);

impl ComesBack {
    fn note(&self, labels: &BTreeMap<String, String>) {
        if labels.contains_key(POD_UID) {
            self.0.set(true);
        }
    }

    fn tell(&self, err: &mut dyn Write) {
        if self.0.get() {
            let what = "the labels io.kubernetes.pod.* say that a node agent made it; while the agent runs it makes \
                        it anew. Delete the pod or its manifest to end it";
            note(err, &format!("hint: {what}"));
        }
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
