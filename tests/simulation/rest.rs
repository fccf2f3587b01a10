//! How everything must be when the faults have ended and time has passed.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use nodectl::{
    agent::pods::paths::NodePaths,
    api::{ContainerKind, PodExt as _, RestartPolicy, view::PodStep},
    policy::grace::pod_grace,
};
use tokio::time::sleep;

use crate::{
    agent::{Agent, Node},
    faults::dice,
    server::Server,
    world::{Command, Is, State},
};

/// Crash loops and pulls wait for up to five minutes, hung calls for two.
const LONGEST: Duration = Duration::from_secs(1500);
/// What containers are given at the end of their pod's time.
const LEAST: Duration = Duration::from_secs(2);
/// The calls of a pod's end, one after the other, each as slow as they come without faults.
const SLOW_CALLS: Duration = Duration::from_secs(15);

pub(crate) fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What is left on disk of pods other than these.
fn left_on_disk(paths: &NodePaths, uids: &BTreeSet<String>) -> Vec<String> {
    let known = |uid: &str| uids.contains(uid);
    let mut left = Vec::new();
    let mut note = |what: &str, name: String| left.push(format!("{what} {name} is left"));
    names(&paths.pods()).into_iter().filter(|uid| !known(uid)).for_each(|uid| note("folder", uid));
    for name in names(&paths.checkpoints()) {
        if !known(name.trim_end_matches(".ckpt")) {
            note("checkpoint", name);
        }
    }
    for name in names(&paths.pod_logs) {
        if !name.rsplit('_').next().is_some_and(known) {
            note("log folder", name);
        }
    }
    for name in names(&paths.container_logs) {
        // Work on files goes on beside whoever looks: what has just gone is not left.
        let Ok(log) = fs::read_link(paths.container_logs.join(&name)) else { continue };
        let owner = log.strip_prefix(&paths.pod_logs).unwrap().iter().next().unwrap().to_string_lossy();
        if !log.exists() || !owner.rsplit('_').next().is_some_and(known) {
            note("link", name);
        }
    }
    left
}

/// What is not yet as it should be.
pub(crate) fn unsettled(agent: &Agent, wanted: &[Arc<Pod>]) -> Vec<String> {
    let uids: BTreeSet<String> = wanted.iter().map(|pod| pod.uid().to_string()).collect();
    let mut wrong = left_on_disk(&agent.env.paths, &uids);
    let state = agent.world.lock();
    let gone = |uid: &str| !uids.contains(uid);
    wrong.extend(
        state.sandboxes.values().filter(|s| gone(&s.uid)).map(|s| format!("sandbox {} is left", s.id)),
    );
    wrong.extend(
        state.containers.values().filter(|c| gone(&c.uid)).map(|c| format!("container {} is left", c.id)),
    );
    let held = |id: &String| state.sandboxes.contains_key(id) || state.containers.contains_key(id);
    wrong.extend(
        state.reserved.iter().filter(|(_, id)| !held(id)).map(|(name, _)| format!("{name} is reserved")),
    );
    let shown: BTreeSet<String> = agent.env.board.all().iter().map(|view| view.uid.to_string()).collect();
    if shown != uids {
        wrong.push(format!("shown are {shown:?}, wanted {uids:?}"));
    }
    wanted.iter().for_each(|pod| pod_unsettled(agent, &state, pod, &mut wrong));
    drop(state);
    if let Some(server) = &agent.server {
        server_unsettled(agent, server, &uids, &mut wrong);
    }
    wrong
}

/// The server has these pods and no others, and of each what the agent shows.
fn server_unsettled(agent: &Agent, server: &Server, uids: &BTreeSet<String>, wrong: &mut Vec<String>) {
    let pods = server.pods();
    let there: BTreeSet<String> = pods.iter().map(|pod| pod.uid().to_string()).collect();
    if there != *uids {
        wrong.push(format!("the server has {there:?}, wanted {uids:?}"));
    }
    let ready = |status: &PodStatus| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == "Ready").map(|condition| condition.status.clone())
    };
    for pod in &pods {
        let (Some(told), Some(view)) = (&pod.status, agent.view(&pod.uid().to_string())) else { continue };
        if told.phase != view.status.phase || ready(told) != ready(&view.status) {
            wrong.push(format!(
                "{} is {:?} at the server and {:?} here",
                view.uid, told.phase, view.status.phase
            ));
        }
    }
}

fn pod_unsettled(agent: &Agent, state: &State, pod: &Pod, wrong: &mut Vec<String>) {
    let uid = pod.uid().to_string();
    let mine = || state.containers.values().filter(|c| c.uid == uid);
    let mut note = |text: String| wrong.push(format!("{uid}: {text}"));
    for (_, spec) in pod.all_containers() {
        let dead = mine().filter(|c| c.name == spec.name && c.is != Is::Running).count();
        if dead > 1 {
            note(format!("{dead} dead containers {} are kept", spec.name));
        }
    }
    let sandboxes = state.sandboxes.values().filter(|s| s.uid == uid).count();
    if sandboxes > 3 {
        note(format!("{sandboxes} sandboxes are kept"));
    }
    let phase = agent.phase(&uid);
    // A pod that is not always restarted may lose what it had done when its records are taken away; but it
    // comes to its end, or all of it has started.
    if state.oracle.is_disturbed(&uid) && pod.restart_policy() != RestartPolicy::Always {
        let waits = |kind: ContainerKind, name: &str| {
            kind != ContainerKind::Init && state.newest(&uid, name).is_none()
        };
        // As with kubelet, one that is never restarted has no second sandbox, and keeps the phase that its
        // containers amount to: a static pod whose sandbox died before they began is over, and `Pending`.
        let over = pod.restart_policy() == RestartPolicy::Never
            && agent.view(&uid).is_some_and(|view| view.progress.step == PodStep::Finished);
        if !over && !["Failed", "Succeeded"].contains(&phase.as_str()) {
            for (_, spec) in pod.all_containers().into_iter().filter(|(kind, spec)| waits(*kind, &spec.name))
            {
                note(format!("container {} has not started, and the phase is {phase}", spec.name));
            }
        }
        return;
    }
    if state.is_done(&uid) {
        if mine().any(|c| c.is == Is::Running) {
            note("a container runs, and the pod is done".to_owned());
        }
        if state.sandboxes.values().any(|s| s.uid == uid && s.ready) {
            note("the sandbox is up, and the pod is done".to_owned());
        }
        let failed = pod.all_containers().into_iter().any(|(kind, spec)| {
            kind != ContainerKind::Sidecar && state.newest(&uid, &spec.name).is_some_and(|c| c.exit_code != 0)
        });
        let expected = if failed { "Failed" } else { "Succeeded" };
        if phase != expected {
            note(format!("its phase is {phase}, and {expected} is right"));
        }
        return;
    }
    if phase != "Running" {
        note(format!("its phase is {phase}, and Running is right"));
    }
    let view = agent.view(&uid);
    let statuses: Vec<_> = view
        .iter()
        .flat_map(|view| [&view.status.container_statuses, &view.status.init_container_statuses])
        .flatten()
        .flatten()
        .collect();
    for (kind, spec) in pod.all_containers() {
        let Some(newest) = state.newest(&uid, &spec.name) else {
            // The record of an init container that was through may have been taken away.
            if kind != ContainerKind::Init {
                note(format!("there is no container {}", spec.name));
            }
            continue;
        };
        if kind == ContainerKind::Init {
            continue;
        }
        let done = newest.is == Is::Exited
            && newest.exit_code == 0
            && pod.restart_policy() == RestartPolicy::OnFailure
            || newest.is == Is::Exited && pod.restart_policy() == RestartPolicy::Never;
        if done && kind == ContainerKind::Regular {
            continue;
        }
        if newest.is != Is::Running {
            note(format!("container {} does not run", spec.name));
        }
        let version = spec.env.iter().flatten().find(|env| env.name == "V").and_then(|env| env.value.clone());
        if Some(newest.version()) != version {
            note(format!(
                "container {} is of version {} instead of {version:?}",
                spec.name,
                newest.version()
            ));
        }
        let told = statuses.iter().find(|status| status.name == spec.name);
        if !told.is_some_and(|status| status.ready && status.started == Some(true)) {
            note(format!("container {} is not shown as ready", spec.name));
        }
        // A server remembers what was told of containers that somebody has taken away.
        let shown = told.map(|status| status.restart_count);
        let (right, counted_on) = (Some(i32::try_from(newest.attempt).unwrap()), agent.server.is_some());
        if shown != right && !(counted_on && state.oracle.is_disturbed(&uid) && shown > right) {
            note(format!("restarts of {} are shown as {told:?}", spec.name));
        }
    }
}

/// Plays on without faults until everything is as it should be, checks that it stays so, and that new
/// agents change nothing; then takes all pods away.
pub(crate) fn comes_to_rest(node: &Node, wanted: &[Arc<Pod>]) -> Result<(), String> {
    let settled = loop {
        let settled = node.run(async |agent| {
            agent.world.with(|state| {
                state.note("-- the faults have ended");
                state.hung_until = 0;
                state.network_ready = true;
            });
            agent.publish_split(wanted, true).await;
            settles(agent, wanted, "to what is wanted").await?;
            sleep(Duration::from_secs(120)).await;
            stays(agent, Duration::from_secs(400), "at rest").await?;
            still(agent, wanted)
        });
        // A kill may have been on its way.
        if let Some(settled) = settled {
            break settled;
        }
    };
    settled?;
    for clean in [true, false] {
        let kept = node.run(async |agent| {
            let before = agent.world.lock().mutations;
            sleep(Duration::from_secs(1)).await;
            agent.publish_split(wanted, true).await;
            stays(agent, Duration::from_secs(90), "after the start of a new agent").await?;
            if agent.world.lock().mutations != before {
                return Err("a new agent does something before it is told what is wanted".to_owned());
            }
            still(agent, wanted)?;
            if clean {
                agent.stop().await;
            }
            Ok(())
        });
        kept.unwrap_or(Ok(()))?;
    }
    let longest = wanted.iter().map(|pod| pod_grace(pod)).max().unwrap_or_default();
    let emptied = node.run(async |agent| {
        agent.publish_split(wanted, true).await;
        sleep(Duration::from_secs(10)).await;
        agent.world.with(|state| {
            let seed = state.seed;
            for (word, does) in state.commands.iter_mut().filter(|(word, _)| word.ends_with("preStop")) {
                *does = match dice(seed, &["end", word]) % 3 {
                    0 => Command::Exits(0),
                    1 => Command::Exits(1),
                    _ => Command::Takes(120_000, 0),
                };
            }
        });
        agent.publish_split(&[], true).await;
        let begun = tokio::time::Instant::now();
        while agent.world.lock().containers.values().any(|c| c.is == Is::Running) && begun.elapsed() < LONGEST
        {
            sleep(Duration::from_millis(100)).await;
        }
        // No hook and no number of sidecars draws it out, but for the least that each is given, together.
        if begun.elapsed() > longest + LEAST + SLOW_CALLS {
            return Err(format!("the end took {:?}, of {longest:?}", begun.elapsed()));
        }
        settles(agent, &[], "to nothing").await?;
        if !agent.env.pleg.all().is_empty() {
            return Err("what the runtime held is still in the agent's tables".to_owned());
        }
        Ok(())
    });
    emptied.unwrap_or(Ok(()))
}

async fn settles(agent: &Agent, wanted: &[Arc<Pod>], what: &str) -> Result<(), String> {
    let begun = tokio::time::Instant::now();
    loop {
        let wrong = unsettled(agent, wanted);
        if wrong.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > LONGEST {
            let views = agent.env.board.all();
            let shown: Vec<_> = views.iter().map(|v| format!("{}: {:?}", v.uid, v.progress)).collect();
            return Err(format!("does not come {what}:\n{}\n{}", wrong.join("\n"), shown.join("\n")));
        }
        if !agent.world.lock().oracle.violations.is_empty() {
            return Err("given up on the way".to_owned());
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Nothing is asked of the runtime that changes anything.
async fn stays(agent: &Agent, time: Duration, what: &str) -> Result<(), String> {
    let writes = || agent.server.as_ref().map_or(0, |server| server.writes());
    let before = (agent.world.lock().mutations, writes());
    sleep(time).await;
    let calls = agent.world.lock().mutations - before.0;
    if calls > 0 {
        return Err(format!("{calls} calls change something {what}"));
    }
    let written = writes() - before.1;
    if written > 0 { Err(format!("{written} requests change something {what}")) } else { Ok(()) }
}

fn still(agent: &Agent, wanted: &[Arc<Pod>]) -> Result<(), String> {
    let wrong = unsettled(agent, wanted);
    if wrong.is_empty() { Ok(()) } else { Err(format!("does not stay as it was:\n{}", wrong.join("\n"))) }
}
