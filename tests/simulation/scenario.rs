//! Scenarios drawn from a seed: what is wanted changes, the runtime and the node misbehave, agents are
//! killed and started again; in the end everything must be as it should.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, Probe};
use nodectl::{agent::sources::PodSource, cri::EventSource};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    agent::{Agent, Node},
    faults::Faults,
    rest,
    script::{Script, container, pod, set_version, sidecar, with},
    server::Server,
    world::{Command, Is, Ms},
};

/// A static pod's name, and what stands in its manifest now.
struct Slot {
    name: String,
    generation: u32,
    version: u32,
    pod: Option<Arc<Pod>>,
    last: Option<Arc<Pod>>,
}

pub(crate) struct Scenario {
    rng: StdRng,
    seed: u64,
    of_a_cluster: bool,
    slots: Vec<Slot>,
    /// When the faults end.
    end: Ms,
    /// What commands of new pods come to, before the world knows of them.
    new_commands: Vec<(String, Command)>,
}

/// How an agent's time ends.
enum End {
    Killed,
    Stopped,
    /// The scenario is over.
    Over,
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Scenario {
    pub(crate) fn new(seed: u64, of_a_cluster: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let slots = (0..rng.random_range(1..=6))
            .map(|n| Slot { name: format!("p{n}"), generation: 0, version: 0, pod: None, last: None })
            .collect();
        let end = rng.random_range(30_000..400_000);
        Self { end, new_commands: Vec::new(), rng, seed, of_a_cluster, slots }
    }

    /// Plays it; answers what was wrong, with the trace.
    pub(crate) fn play(mut self) -> Result<(), String> {
        let sources =
            if self.chance(30) { &[PodSource::File, PodSource::Http][..] } else { &[PodSource::File] };
        let node = if self.of_a_cluster {
            Node::of_a_cluster(self.seed)
        } else {
            Node::with_sources(self.seed, sources)
        };
        self.set_up(&node);
        loop {
            let ended = node.run(async |agent| self.live(&node, agent).await);
            match ended {
                Some(End::Over) => break,
                Some(End::Killed | End::Stopped) | None => {}
            }
            if self.chance(40) {
                let away = self.rng.random_range(1..100_000);
                node.without_agent(millis(away));
            }
            for _ in 0..self.rng.random_range(0..3_u32) {
                self.change(&node);
            }
        }
        node.world.with(|state| {
            state.faults = Faults { latency: state.faults.latency, ..Faults::none() };
            state.event_loss = 0.0;
            state.commands.values_mut().for_each(|command| *command = Command::Exits(0));
        });
        if let Some(server) = &node.server {
            server.is_well();
        }
        let wanted = self.wanted();
        let ended = rest::comes_to_rest(&node, &wanted);
        let state = node.world.lock();
        let mut wrong = state.oracle.violations.clone();
        wrong.extend(ended.err());
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("{}\n\nWRONG:\n{}", state.trace.join("\n"), wrong.join("\n")))
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.random_range(0..all.len())]
    }

    fn wanted(&self) -> Vec<Arc<Pod>> {
        self.slots.iter().filter_map(|slot| slot.pod.clone()).collect()
    }

    fn set_up(&mut self, node: &Node) {
        let faults = Faults {
            per_mille: self.pick(&[0, 0, 30, 100, 250]),
            read_per_mille: self.pick(&[0, 0, 5, 40]),
            until: Ms::MAX,
            latency: self.pick(&[1, 5, 40, 200]),
            scripted: Vec::new(),
        };
        let source = self.pick(&[EventSource::None, EventSource::Cri, EventSource::Containerd]);
        let loss = self.pick(&[0.0, 0.0, 0.3]);
        if let Some(server) = &node.server {
            server.set_faults(self.pick(&[0, 0, 50, 200]), self.pick(&[2, 20, 300]));
        }
        node.world.with(|state| {
            state.note(format!("-- seed {}: {faults:?}, events {source:?} loss {loss}", state.seed));
            state.faults = faults;
            state.event_source = source;
            state.event_loss = loss;
            state.bad_images.insert("localhost/late:1".to_owned(), 2);
            state.bad_images.insert("localhost/never:1".to_owned(), u32::MAX);
        });
    }

    /// One agent's time.
    async fn live(&mut self, node: &Node, agent: &mut Agent) -> End {
        if self.chance(50) {
            sleep(millis(self.rng.random_range(0..3000))).await;
        }
        let place = self.rng.random_range(0..3);
        // A second source may tell long after the first, or not in this agent's time.
        let second = agent.now() + self.rng.random_range(0..*[1, 5000, 200_000].get(place).unwrap());
        self.publish(agent, agent.now() >= second).await;
        loop {
            let gap = *[0, 1, 20, 300, 3000, 30_000].get(self.rng.random_range(0..6)).unwrap();
            sleep(millis(self.rng.random_range(0..=gap))).await;
            if agent.now() >= self.end {
                return End::Over;
            }
            if let Some(server) = &node.server
                && self.chance(25)
            {
                self.server_turns(server);
                continue;
            }
            match self.rng.random_range(0..100) {
                0..50 => {
                    self.change(node);
                    self.publish(agent, agent.now() >= second).await;
                }
                50..55 => return End::Killed,
                55..62 => {
                    let nth = self.rng.random_range(1..6);
                    let after = self.pick(&[0, 1, 5, 50, 500]);
                    agent.world.with(|state| state.crash_at(nth, after));
                }
                62..65 => {
                    agent.stop().await;
                    return End::Stopped;
                }
                65..72 => self.runtime_away(agent),
                72..75 => {
                    let long = self.rng.random_range(100..150_000);
                    agent.world.with(|state| {
                        state.note(format!("-- the runtime hangs for {long} ms"));
                        state.hung_until = state.now() + long;
                        state.was_away = true;
                    });
                }
                75..90 => self.mischief(agent),
                90..92 => self.commands_turn(agent),
                92..94 => {
                    let long = self.rng.random_range(1000..60_000);
                    agent.world.with(|state| {
                        state.note("-- the network is down");
                        state.network_ready = false;
                        let back = state.now() + long;
                        state.at(back, |state| state.network_ready = true);
                    });
                }
                _ => {}
            }
        }
    }

    async fn publish(&mut self, agent: &Agent, second_too: bool) {
        let new = std::mem::take(&mut self.new_commands);
        agent.world.with(|state| state.commands.extend(new));
        agent.publish_split(&self.wanted(), second_too).await;
    }

    fn runtime_away(&mut self, agent: &Agent) {
        let long = *[100, 3000, 60_000].get(self.rng.random_range(0..3)).unwrap();
        let long = self.rng.random_range(1..long);
        agent.world.with(|state| {
            if state.down {
                return;
            }
            state.go_down();
            let back = state.now() + long;
            state.at(back, crate::world::State::come_back);
        });
    }

    /// Something is done to a pod behind the agent's back.
    fn mischief(&mut self, agent: &Agent) {
        let (throw, kind) = (self.rng.random::<u64>(), self.rng.random_range(0..4));
        agent.world.with(|state| {
            let place = |len: usize| usize::try_from(throw).unwrap_or(0).checked_rem(len);
            let sandboxes: Vec<String> = state.sandboxes.keys().cloned().collect();
            let running = state.containers.values().filter(|c| c.is == Is::Running);
            let running: Vec<String> = running.map(|c| c.id.clone()).collect();
            let (sandbox, container) = (place(sandboxes.len()), place(running.len()));
            match (kind, sandbox, container) {
                (0, Some(place), _) => state.sandbox_dies(&sandboxes[place]),
                (1, Some(place), _) => state.sandbox_vanishes(&sandboxes[place]),
                (2, _, Some(place)) => state.container_killed(&running[place], true),
                (_, _, Some(place)) => state.container_killed(&running[place], false),
                _ => {}
            }
        });
    }

    /// Some commands come to something else from now on.
    fn commands_turn(&mut self, agent: &Agent) {
        let mut words: Vec<String> = agent.world.with(|state| state.commands.keys().cloned().collect());
        words.sort();
        for word in words {
            if self.chance(30) {
                let does = self.command();
                agent.world.with(|state| {
                    state.note(format!("-- {word} now {does:?}"));
                    state.commands.insert(word, does);
                });
            }
        }
    }

    fn command(&mut self) -> Command {
        let slow = self.rng.random_range(500..120_000);
        self.pick(&[
            Command::Exits(0),
            Command::Exits(0),
            Command::Exits(0),
            Command::Exits(1),
            Command::Takes(slow, 0),
            Command::Takes(slow, 1),
        ])
    }

    /// A command for a pod's container, and what it comes to at first.
    fn word(&mut self, container: &Container, uid: &str, what: &str) -> String {
        let word = format!("{uid}-{}-{what}", container.name);
        let does = self.command();
        self.new_commands.push((word.clone(), does));
        word
    }

    fn probe(&mut self, container: &Container, uid: &str, what: &str) -> Option<Probe> {
        let successes = if what == "ready" { self.pick(&[1, 1, 2]) } else { 1 };
        let json = serde_json::json!({
            "exec": {"command": [self.word(container, uid, what)]},
            "initialDelaySeconds": self.pick(&[0, 0, 3]),
            "periodSeconds": self.pick(&[1, 2, 5]),
            "timeoutSeconds": self.pick(&[1, 2]),
            "successThreshold": successes,
            "failureThreshold": self.pick(&[1, 2, 3]),
        });
        Some(serde_json::from_value(json).unwrap())
    }

    /// Gives some containers probes and hooks.
    fn probed(&mut self, made: &mut Container, uid: &str) {
        if self.chance(20) {
            made.startup_probe = self.probe(made, uid, "up");
        }
        if self.chance(20) {
            made.liveness_probe = self.probe(made, uid, "live");
        }
        if self.chance(20) {
            made.readiness_probe = self.probe(made, uid, "ready");
        }
        let mut hooks = serde_json::Map::new();
        for (hook, percent) in [("postStart", 10), ("preStop", 20)] {
            if self.chance(percent) {
                let word = self.word(made, uid, hook);
                hooks.insert(hook.to_owned(), serde_json::json!({"exec": {"command": [word]}}));
            }
        }
        if !hooks.is_empty() {
            made.lifecycle = Some(serde_json::from_value::<Lifecycle>(hooks.into()).unwrap());
        }
    }

    /// Something happens to the server, or to what it has.
    fn server_turns(&mut self, server: &Server) {
        let place = self.rng.random_range(0..self.slots.len());
        let name = self.slots[place].name.clone();
        match self.rng.random_range(0..6) {
            0 => {
                let longest = self.pick(&[100, 3000, 150_000]);
                server.go_away(self.rng.random_range(1..longest));
            }
            1 => server.cut(false),
            2 => server.cut(true),
            3 => server.meddle(&name, true),
            4 => server.meddle(&name, false),
            // Less time for one that is on its way out.
            _ if self.slots[place].pod.is_none() => server.delete(&name, Some(self.rng.random_range(1..5))),
            _ => {}
        }
    }

    /// Somebody makes, changes or deletes a pod at the server.
    fn change_at(&mut self, server: &Server) {
        let place = self.rng.random_range(0..self.slots.len());
        let throw = self.rng.random_range(0..10);
        match (self.slots[place].pod.clone(), throw) {
            (None, _) | (Some(_), 0..2) => {
                // Another under the name, whatever the node has still of the one before.
                let made = self.make(place);
                let new = std::mem::take(&mut self.new_commands);
                server.world.with(|state| state.commands.extend(new));
                server.create(&made);
                self.slots[place].pod = Some(made);
            }
            (Some(pod), 2..5) => {
                let edited = self.edited(place, &pod);
                server.update(&edited);
                self.slots[place].pod = Some(edited);
            }
            (Some(_), 5..7) => {
                server.force(&self.slots[place].name);
                self.slots[place].pod = None;
            }
            (Some(_), _) => {
                let grace = self.pick(&[None, None, Some(1), Some(60)]);
                server.delete(&self.slots[place].name, grace);
                self.slots[place].pod = None;
            }
        }
    }

    /// A pod with another version of one of its containers.
    fn edited(&mut self, place: usize, pod: &Pod) -> Arc<Pod> {
        let slot = &mut self.slots[place];
        slot.version += 1;
        let version = slot.version;
        let mut edited = pod.clone();
        let containers = &mut edited.spec.as_mut().unwrap().containers;
        let which = self.rng.random_range(0..containers.len());
        set_version(&mut containers[which], version);
        Arc::new(edited)
    }

    /// The manifests change, or what the server has.
    fn change(&mut self, node: &Node) {
        if let Some(server) = &node.server {
            self.change_at(server);
            return;
        }
        let place = self.rng.random_range(0..self.slots.len());
        let throw = self.rng.random_range(0..10);
        match (self.slots[place].pod.clone(), throw) {
            (None, 0..5) | (Some(_), 0..3) => {
                // A new pod, or an edited manifest: a new UID under the same name.
                let made = self.make(place);
                self.slots[place].pod = Some(made);
            }
            (None, _) => {
                // Put back as it was.
                let last = self.slots[place].last.clone();
                self.slots[place].pod = last;
            }
            (Some(pod), 3..6) => {
                // Edited under its own UID.
                let edited = self.edited(place, &pod);
                self.slots[place].pod = Some(edited);
            }
            (Some(pod), _) => {
                self.slots[place].last = Some(pod);
                self.slots[place].pod = None;
            }
        }
    }

    fn make(&mut self, place: usize) -> Arc<Pod> {
        let slot = &mut self.slots[place];
        slot.generation += 1;
        let (name, uid) = (slot.name.clone(), format!("{}-u{}", slot.name, slot.generation));
        let policy = self.pick(&["Always", "Always", "Always", "OnFailure", "Never"]);
        let grace = self.pick(&[1, 2, 5, 30, 60]);
        let on_host = self.chance(20);
        let regular: Vec<Container> =
            (0..self.rng.random_range(1..=3)).map(|n| self.regular(&format!("c{n}"), &uid, policy)).collect();
        let mut inits = Vec::new();
        for n in 0..self.pick(&[0, 0, 0, 1, 2]) {
            let after = self.rng.random_range(1..5000);
            let crashes = self.pick(&[0, 0, 1]);
            inits.push(container(&format!("i{n}"), &Script { crashes, ..Script::exits(after, 0) }));
        }
        for n in 0..self.pick(&[0, 0, 0, 1, 2]) {
            let mut side = sidecar(&format!("s{n}"), &self.endless());
            self.probed(&mut side, &uid);
            let at = self.rng.random_range(0..=inits.len());
            inits.insert(at, side);
        }
        Arc::new(with(pod(&name, &uid, regular), |spec| {
            spec.restart_policy = Some(policy.to_owned());
            spec.termination_grace_period_seconds = Some(grace);
            spec.host_network = Some(on_host);
            spec.init_containers = (!inits.is_empty()).then_some(inits);
        }))
    }

    fn endless(&mut self) -> Script {
        let term = self.pick(&[Some(1), Some(50), Some(1500), Some(20_000), None]);
        Script { exit: None, crashes: self.pick(&[0, 0, 0, 1, 3]), term }
    }

    fn regular(&mut self, name: &str, uid: &str, policy: &str) -> Container {
        let mut script = self.endless();
        if policy != "Always" && self.chance(60) {
            script.exit = Some((self.rng.random_range(1..20_000), 0));
        }
        let mut made = container(name, &script);
        self.probed(&mut made, uid);
        let image = self.pick(&["app", "app", "app", "app", "app", "pulled", "late"]);
        made.image = Some(format!("localhost/{image}:1"));
        made
    }
}
