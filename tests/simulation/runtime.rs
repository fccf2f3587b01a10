//! What the simulated runtime does when a call takes effect: containerd's rules, as far as an agent can see
//! them.

use std::{fs, sync::Arc};

use nodectl::{
    api::{
        cri::{ContainerConfig, PodSandboxConfig},
        labels,
    },
    cri::{CriErrorKind, EventKind},
};

use crate::{
    script::Script,
    world::{Ctr, Failure, Flight, Is, Ms, Sandbox, State},
};

/// The exit code of a container that was killed.
const KILLED: i32 = 137;

fn failure<T>(kind: CriErrorKind, message: impl Into<String>) -> Result<T, Failure> {
    Err((kind, message.into()))
}

pub(crate) fn uid_of(config: &PodSandboxConfig) -> String {
    config.labels.get(labels::POD_UID).cloned().unwrap_or_default()
}

impl State {
    /// Takes a name for a call, as containerd does before it begins.
    pub(crate) fn reserve(&mut self, kind: &str, name: &str, id: &str) -> Result<(), Failure> {
        if self.down {
            return Ok(());
        }
        match self.reserved.get(name) {
            Some(holder) => failure(
                CriErrorKind::Other,
                format!(
                    "failed to reserve {kind} name \"{name}\": name \"{name}\" is reserved for \"{holder}\""
                ),
            ),
            None => {
                self.reserved.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    pub(crate) fn release(&mut self, name: &str, id: &str) {
        if self.reserved.get(name).is_some_and(|holder| holder == id) {
            self.reserved.remove(name);
        }
    }

    pub(crate) fn make_sandbox(&mut self, id: &str, config: PodSandboxConfig, issued: Ms) {
        let uid = uid_of(&config);
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let serial = self.serial();
        let ip = format!("10.{}.{}.{}", (serial >> 16) & 255, (serial >> 8) & 255, serial & 255);
        let sandbox = Sandbox {
            id: id.to_owned(),
            uid: uid.clone(),
            name,
            config,
            ready: true,
            created: self.now(),
            issued,
            ip,
            passed: std::collections::HashSet::new(),
        };
        self.note(format!("   sandbox {id} of {uid} is ready"));
        self.sandboxes.insert(id.to_owned(), sandbox);
        self.check_sandbox_made(id);
        self.tell(EventKind::Created, id, &uid);
        self.tell(EventKind::Started, id, &uid);
    }

    pub(crate) fn make_container(
        &mut self,
        id: &str,
        reserved: String,
        sandbox: &str,
        config: ContainerConfig,
        issued: Ms,
    ) -> Result<(), Failure> {
        let Some(home) = self.sandboxes.get(sandbox) else {
            return failure(CriErrorKind::Other, format!("failed to find sandbox id {sandbox:?}"));
        };
        if !home.ready {
            return failure(CriErrorKind::Other, format!("sandbox {sandbox} is not running"));
        }
        let metadata = config.metadata.clone().unwrap_or_default();
        let log_path = format!("{}/{}", home.config.log_directory, config.log_path);
        let container = Ctr {
            id: id.to_owned(),
            uid: home.uid.clone(),
            pod: home.name.clone(),
            name: metadata.name,
            reserved,
            sandbox: sandbox.to_owned(),
            attempt: metadata.attempt,
            script: Script::parse(&config.args),
            config,
            log_path,
            is: Is::Created,
            created: self.now(),
            issued,
            started: 0,
            finished: 0,
            exit_code: 0,
            term: None,
            unheard: false,
            waiters: Vec::new(),
        };
        let uid = container.uid.clone();
        self.check_container_made(&container);
        self.note(format!("   container {id} ({} {}) of {uid} is made", container.name, container.attempt));
        self.containers.insert(id.to_owned(), container);
        self.tell(EventKind::Created, id, &uid);
        Ok(())
    }

    pub(crate) fn start(&mut self, id: &str, heard: bool) -> Result<(), Failure> {
        let now = self.now();
        let Some(container) = self.containers.get(id) else {
            return failure(CriErrorKind::NotFound, format!("no container {id:?}"));
        };
        if container.is != Is::Created {
            return failure(CriErrorKind::Other, format!("container {id} is in state {:?}", container.is));
        }
        if !self.sandboxes.get(&container.sandbox).is_some_and(|sandbox| sandbox.ready) {
            return failure(CriErrorKind::Other, format!("sandbox {} is not running", container.sandbox));
        }
        self.check_container_starts(id);
        let Some(container) = self.containers.get_mut(id) else { unreachable!() };
        container.is = Is::Running;
        container.started = now;
        container.unheard = !heard;
        // The runtime writes the log into the folder that the agent made.
        let log = container.log_path.clone();
        let (uid, end) = (container.uid.clone(), container.script.end(container.attempt));
        let is_sidecar = container.config.annotations.contains_key(labels::SIDECAR);
        if is_sidecar {
            let (sandbox, name) = (container.sandbox.clone(), container.name.clone());
            if let Some(sandbox) = self.sandboxes.get_mut(&sandbox) {
                sandbox.passed.insert(name);
            }
        }
        if fs::write(&log, "hello\n").is_err() {
            self.oracle.violation(now, format!("container {id} has no log folder for {log}"));
        }
        self.note(format!("   container {id} runs"));
        self.tell(EventKind::Started, id, &uid);
        if let Some((after, code)) = end {
            let id = id.to_owned();
            self.at(now + after, move |state| state.exit(&id, code));
        }
        Ok(())
    }

    /// A container's process ends.
    pub(crate) fn exit(&mut self, id: &str, code: i32) {
        let now = self.now();
        let Some(container) = self.containers.get_mut(id).filter(|c| c.is == Is::Running) else { return };
        container.is = Is::Exited;
        container.finished = now;
        container.exit_code = code;
        let waiters = std::mem::take(&mut container.waiters);
        let (uid, name, sandbox) = (container.uid.clone(), container.name.clone(), container.sandbox.clone());
        if code == 0
            && let Some(sandbox) = self.sandboxes.get_mut(&sandbox)
        {
            sandbox.passed.insert(name);
        }
        self.note(format!("   container {id} exits with {code}"));
        self.tell(EventKind::Stopped, id, &uid);
        self.at(now + 1, move |_| waiters.iter().for_each(|waiter| waiter.answer(Ok(()))));
    }

    /// StopContainer: TERM now, KILL after the grace period for as long as the caller waits.
    pub(crate) fn stop(
        &mut self,
        id: &str,
        grace: i64,
        flight: &Arc<Flight<()>>,
    ) -> Option<Result<(), Failure>> {
        let now = self.now();
        let container = self.containers.get_mut(id).filter(|c| c.is == Is::Running);
        let Some(container) = container else { return Some(Ok(())) };
        if grace <= 0 {
            self.kill(id);
            return Some(Ok(()));
        }
        container.waiters.push(Arc::clone(flight));
        if container.term.is_none() {
            container.term = Some(now);
            if let Some(term) = container.script.term {
                let id = id.to_owned();
                self.at(now + term, move |state| state.exit(&id, 0));
            }
        }
        let (id, flight) = (id.to_owned(), Arc::clone(flight));
        self.at(now + u64::try_from(grace).unwrap() * 1000, move |state| {
            if flight.is_waited_for() {
                state.kill(&id);
            }
        });
        None
    }

    /// Kills a container at the agent's wish.
    pub(crate) fn kill(&mut self, id: &str) {
        self.check_kill(id);
        self.exit(id, KILLED);
    }

    pub(crate) fn stop_sandbox(&mut self, id: &str) {
        let inside: Vec<String> = self
            .containers
            .values()
            .filter(|c| c.sandbox == id && c.is == Is::Running)
            .map(|c| c.id.clone())
            .collect();
        inside.iter().for_each(|id| self.kill(id));
        self.sandbox_ends(id);
    }

    fn sandbox_ends(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.get_mut(id).filter(|sandbox| sandbox.ready) else { return };
        sandbox.ready = false;
        let uid = sandbox.uid.clone();
        self.note(format!("   sandbox {id} is stopped"));
        self.tell(EventKind::Stopped, id, &uid);
    }

    pub(crate) fn remove_container(&mut self, id: &str) {
        if self.containers.get(id).is_some_and(|c| c.is == Is::Running) {
            self.kill(id);
        }
        if let Some(gone) = self.containers.remove(id) {
            self.note(format!("   container {id} is removed"));
            self.release(&gone.reserved, id);
            self.tell(EventKind::Deleted, id, &gone.uid);
        }
    }

    pub(crate) fn remove_sandbox(&mut self, id: &str) {
        self.stop_sandbox(id);
        let inside: Vec<String> =
            self.containers.values().filter(|c| c.sandbox == id).map(|c| c.id.clone()).collect();
        inside.iter().for_each(|id| self.remove_container(id));
        if let Some(gone) = self.sandboxes.remove(id) {
            self.note(format!("   sandbox {id} is removed"));
            let metadata = gone.config.metadata.unwrap_or_default();
            let name = sandbox_name(&metadata.name, &metadata.namespace, &metadata.uid, metadata.attempt);
            self.release(&name, id);
            self.tell(EventKind::Deleted, id, &gone.uid);
        }
    }

    /// Something happens to a sandbox that the agent did not ask for: its process dies.
    pub(crate) fn sandbox_dies(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.get(id).filter(|sandbox| sandbox.ready) else { return };
        let uid = sandbox.uid.clone();
        self.oracle.disturbed(&uid);
        self.note(format!("-- sandbox {id} of {uid} dies"));
        self.end_all_in(id);
        self.sandbox_ends(id);
    }

    fn end_all_in(&mut self, sandbox: &str) {
        let inside: Vec<String> =
            self.containers.values().filter(|c| c.sandbox == sandbox).map(|c| c.id.clone()).collect();
        inside.iter().for_each(|id| self.exit(id, KILLED));
    }

    /// Somebody else removes a sandbox with all that is in it.
    pub(crate) fn sandbox_vanishes(&mut self, id: &str) {
        let Some(uid) = self.sandboxes.get(id).map(|sandbox| sandbox.uid.clone()) else { return };
        self.oracle.disturbed(&uid);
        self.note(format!("-- somebody removes sandbox {id} of {uid}"));
        self.end_all_in(id);
        self.remove_sandbox(id);
    }

    /// Somebody else kills a container, and perhaps removes it.
    pub(crate) fn container_killed(&mut self, id: &str, removed: bool) {
        let Some(uid) = self.containers.get(id).map(|c| c.uid.clone()) else { return };
        self.oracle.disturbed(&uid);
        self.note(format!("-- somebody kills container {id} of {uid}, removed: {removed}"));
        self.exit(id, KILLED);
        if removed {
            self.remove_container(id);
        }
    }
}

pub(crate) fn sandbox_name(name: &str, namespace: &str, uid: &str, attempt: u32) -> String {
    format!("{name}_{namespace}_{uid}_{attempt}")
}
