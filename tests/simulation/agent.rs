//! The real agent on the simulated world, wired as `nodectl::agent` wires it, one async runtime for each
//! agent.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use nodectl::{
    agent::{
        board::Board,
        cgroups::NodeCgroups,
        clock::Clock,
        cluster::status::StatusWriter,
        credential_providers::CredentialProviders,
        events::EventRecorder,
        health::HealthMonitor,
        images::{Images, PullLimits},
        pleg::Pleg,
        pods::{
            admission::Admitted,
            env::{POD_RECORD, PodEnv, PodRecord, PodRecords},
            host_work::HostWork,
            paths::NodePaths,
            starts::Starts,
            userns::UserNamespaces,
        },
        probes::Prober,
        resolver::HostNames,
        runtime_classes::RuntimeClasses,
        sources::{
            PodSource, SourceSnapshot,
            api::{ApiReceivers, ApiSource},
        },
        sync_loop::{LoopState, SyncLoop},
    },
    api::{PodExt as _, PodUid, view::PodView},
    config::{CgroupDriver, ImagePulls},
    cri::Cri,
    host::cgroup::{CgroupMounts, Cgroups},
    kube::{ApiServer, Rate, Rates},
    policy::{
        backoff::RestartBackoff, cgroup::CgroupLayout, fit::NodeRoom, node::NodeSettings,
        pod_cgroup::NodeCapacity, resources::ResourceSettings,
    },
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    fake::FakeRuntime,
    server::Server,
    world::{Ms, World, time_of},
};

/// A simulated node: a runtime and folders, which outlive the agents on it.
pub(crate) struct Node {
    pub(crate) world: Arc<World>,
    folder: tempfile::TempDir,
    sources: Vec<PodSource>,
    /// How many CPUs pods may request together; `None` is no bound.
    pub(crate) cpus: Option<u32>,
    /// Where the pods come from, if it is the node of a cluster.
    pub(crate) server: Option<Arc<Server>>,
}

/// One agent, from its start to its end.
pub(crate) struct Agent {
    pub(crate) world: Arc<World>,
    pub(crate) env: Arc<PodEnv>,
    pub(crate) state: Arc<LoopState>,
    pub(crate) server: Option<Arc<Server>>,
    senders: Vec<(PodSource, watch::Sender<Arc<SourceSnapshot>>)>,
    stop: CancellationToken,
    looping: Option<JoinHandle<()>>,
}

impl Node {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_sources(seed, &[PodSource::File])
    }

    pub(crate) fn with_sources(seed: u64, sources: &[PodSource]) -> Self {
        // In memory where there is such a folder: every checkpoint is flushed to the disk.
        let base =
            if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("nodectl-simulation-").tempdir_in(base).unwrap();
        fs::write(folder.path().join("mountinfo"), "").unwrap();
        fs::write(folder.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
        Self { world: World::new(seed), folder, sources: sources.to_vec(), cpus: None, server: None }
    }

    /// A node whose pods come from an API server.
    pub(crate) fn of_a_cluster(seed: u64) -> Self {
        let node = Self::with_sources(seed, &[PodSource::Api]);
        node.world.lock().of_a_cluster = true;
        let server = Some(Server::new(&node.world, seed));
        Self { server, ..node }
    }

    pub(crate) fn paths(&self) -> NodePaths {
        NodePaths {
            root: self.folder.path().join("root"),
            pod_logs: self.folder.path().join("log/pods"),
            container_logs: self.folder.path().join("log/containers"),
        }
    }

    /// Runs an agent for as long as the given script takes, or until it is killed at a call. At the end the
    /// agent is killed as by SIGKILL unless the script stopped it. `None` if it was killed before.
    pub(crate) fn run<R>(&self, script: impl AsyncFnOnce(&mut Agent) -> R) -> Option<R> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let result = runtime.block_on(async {
            self.world.anchor();
            tokio::spawn(Arc::clone(&self.world).drive());
            let mut agent = self.start();
            tokio::select! {
                result = script(&mut agent) => Some(result),
                () = self.world.crashed.notified() => None,
            }
        });
        {
            // The world's time stands still from here.
            let _entered = runtime.enter();
            self.world.weigh_anchor();
        }
        drop(runtime);
        result
    }

    /// Lets time pass without an agent.
    pub(crate) fn without_agent(&self, time: Duration) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            self.world.anchor();
            tokio::spawn(Arc::clone(&self.world).drive());
            sleep(time).await;
            self.world.weigh_anchor();
        });
    }

    fn start(&self) -> Agent {
        let names: Vec<String> = self.sources.iter().map(ToString::to_string).collect();
        let now = self.world.with(|state| {
            state.note("-- an agent starts");
            state.oracle.new_agent(&names.iter().map(String::as_str).collect::<Vec<_>>());
            state.now()
        });
        let cri: Arc<dyn Cri> = Arc::new(FakeRuntime(Arc::clone(&self.world)));
        let clock = Clock::simulated(time_of(now));
        let health = HealthMonitor::new(Arc::clone(&cri));
        let paths = self.paths();
        let (pleg, changed) = Pleg::new(Arc::clone(&cri), clock, paths.clone());
        let mountinfo = self.folder.path().join("mountinfo");
        fs::create_dir_all(&paths.root).unwrap();
        let store = PodRecords::open(paths.checkpoints(), POD_RECORD).unwrap();
        let (records, set_aside) = store.load_all();
        assert!(set_aside.is_empty(), "checkpoints that cannot be used: {set_aside:?}");
        let records: HashMap<PodUid, PodRecord> =
            records.into_iter().map(|(name, record)| (PodUid::from(name), record)).collect();
        let events = cri.events();
        let limits =
            PullLimits { at_once: ImagePulls::Parallel { limit: Some(3) }, per_second: Some(5), burst: 10 };
        let probes = Prober::new(Arc::clone(&cri), clock, EventRecorder::default());
        let env = Arc::new(PodEnv {
            images: Images::new(Arc::clone(&cri), limits, CredentialProviders::new(Vec::new())),
            cri,
            pleg,
            health: Arc::clone(&health),
            clock,
            paths,
            // No hierarchy is mounted in this world.
            cgroups: NodeCgroups::new(
                CgroupLayout { driver: CgroupDriver::Systemd, root: "/".to_owned(), per_qos: true },
                Cgroups::with_files(CgroupMounts::find(&mountinfo).unwrap()),
                ResourceSettings::default(),
                NodeCapacity::default(),
                Vec::new(),
            ),
            mountinfo,
            node: NodeSettings {
                name: "node1".to_owned(),
                host_ips: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))],
                in_place_resize: true,
                room: NodeRoom {
                    pods: None,
                    amounts: self
                        .cpus
                        .map(|cpus| ("cpu".to_owned(), i64::from(cpus) * 1000))
                        .into_iter()
                        .collect(),
                },
                resources: ResourceSettings {
                    node_memory_bytes: 1 << 34,
                    cpu_cfs_quota: true,
                    cpu_cfs_period_micros: 100_000,
                    ..ResourceSettings::default()
                },
                ..NodeSettings::default()
            },
            server_node: None,
            supplies: None,
            offline: None,
            host_names: HostNames::new(None, None, self.folder.path().join("hosts")),
            starts: Starts::default(),
            runtime_classes: RuntimeClasses::default(),
            admitted: Admitted::default(),
            user_namespaces: UserNamespaces::of_node(self.folder.path(), 65536),
            host_work: HostWork::default(),
            probes,
            backoff: RestartBackoff::default(),
            events: EventRecorder::default(),
            board: Board::default(),
            records: store,
        });
        let state = LoopState::new(self.sources.iter().copied());
        let (senders, sources): (_, Vec<_>) = self
            .sources
            .iter()
            .map(|kind| {
                let (sender, receiver) = watch::channel(Arc::new(SourceSnapshot::unknown(*kind)));
                ((*kind, sender), receiver)
            })
            .unzip();
        let stop = CancellationToken::new();
        let sync_loop = SyncLoop {
            env: Arc::clone(&env),
            health: Arc::clone(&health),
            sources: match &self.server {
                Some(server) => vec![joined(server, &env, &stop)],
                None => sources,
            },
            changed,
            events,
            records,
            sync_period: Duration::from_secs(60),
            state: Arc::clone(&state),
        };
        tokio::spawn(health.run(stop.clone()));
        tokio::spawn(Arc::clone(&env.probes).run(stop.clone()));
        let looping = Some(tokio::spawn(sync_loop.run(stop.clone())));
        tokio::spawn(watch_shown(Arc::clone(&self.world), Arc::clone(&env)));
        let server = self.server.clone();
        Agent { world: Arc::clone(&self.world), env, state, server, senders, stop, looping }
    }
}

/// Has the agent hear of pods from the server, and tell it of them; what it hears.
fn joined(
    server: &Arc<Server>,
    env: &Arc<PodEnv>,
    stop: &CancellationToken,
) -> watch::Receiver<Arc<SourceSnapshot>> {
    let unbounded = Rate { per_second: 0, burst: 0 };
    let api = ApiServer::new(Rates { objects: unbounded, events: unbounded });
    api.use_clients(server.clients());
    let clock = env.clock;
    let name: Arc<str> = "node1".into();
    let (source, ApiReceivers { snapshots, server: all }) =
        ApiSource::new(api.clone(), Arc::clone(&name), Arc::new(move || clock.now()), None);
    let writer = StatusWriter::new(api, Arc::clone(env), name, all, || true);
    tokio::spawn(source.run(std::future::ready(()), stop.clone()));
    tokio::spawn(writer.run(stop.clone()));
    let (sender, receiver) = watch::channel(Arc::new(SourceSnapshot::unknown(PodSource::Api)));
    tokio::spawn(overheard(Arc::clone(server), snapshots, sender));
    receiver
}

/// Notes what the source tells the loop before the loop hears it, and that it takes no pod away which is there.
async fn overheard(
    server: Arc<Server>,
    mut from: watch::Receiver<Arc<SourceSnapshot>>,
    to: watch::Sender<Arc<SourceSnapshot>>,
) {
    let uids = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.uid().to_string()).collect::<BTreeSet<_>>();
    let mut before: BTreeSet<String> = server.wanted().into_iter().collect();
    while from.changed().await.is_ok() {
        let snapshot = Arc::clone(&from.borrow_and_update());
        if snapshot.delivered {
            let (there, told) = (server.wanted(), uids(&snapshot.pods));
            server.world.with(|state| {
                for uid in there.iter().filter(|uid| before.contains(*uid) && !told.contains(*uid)) {
                    state.blame(format!("the agent is told that {uid} is gone, which it is not"));
                }
                state.note(format!("   the agent is told of {told:?}"));
                let now = state.now();
                state.oracle.told(now, &PodSource::Api.to_string(), &snapshot.pods);
            });
            before = told;
        }
        to.send_replace(snapshot);
    }
}

/// Judges what is newly shown, again and again.
async fn watch_shown(world: Arc<World>, env: Arc<PodEnv>) {
    let mut judged: HashMap<PodUid, Arc<PodView>> = HashMap::new();
    loop {
        sleep(Duration::from_millis(250)).await;
        for uid in env.board.uids() {
            let Some(view) = env.board.get(&uid) else { continue };
            if !judged.get(&uid).is_some_and(|last| Arc::ptr_eq(last, &view)) {
                world.lock().check_shown(&view);
                judged.insert(uid, view);
            }
        }
    }
}

impl Agent {
    pub(crate) fn now(&self) -> Ms {
        self.world.lock().now()
    }

    /// The first source tells what it wants.
    pub(crate) fn publish(&self, pods: &[Arc<Pod>]) {
        self.publish_to(0, pods);
    }

    /// Of two sources the second has the pods with an odd number in their names.
    ///
    /// A server has them already, and where there are to be none it is told so: some are deleted, others forced out.
    pub(crate) async fn publish_split(&self, pods: &[Arc<Pod>], second_too: bool) {
        if let Some(server) = &self.server {
            for pod in server.pods().iter().filter(|_| pods.is_empty()) {
                let name = pod.metadata.name.as_deref().unwrap();
                if name.ends_with(['1', '3', '5']) { server.force(name) } else { server.delete(name, None) }
            }
            return;
        }
        let odd =
            |pod: &Arc<Pod>| pod.metadata.name.as_deref().is_some_and(|name| name.ends_with(['1', '3', '5']));
        let (second, first): (Vec<_>, Vec<_>) =
            pods.iter().cloned().partition(|pod| self.senders.len() > 1 && odd(pod));
        self.publish_to(0, &first);
        if second_too && self.senders.len() > 1 {
            // At the same moment either might be heard first.
            sleep(Duration::from_millis(1)).await;
            self.publish_to(1, &second);
        }
    }

    pub(crate) fn publish_to(&self, place: usize, pods: &[Arc<Pod>]) {
        let (kind, sender) = &self.senders[place];
        self.world.with(|state| {
            let names: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
            state.note(format!("-- source {kind} wants {names:?}"));
            let now = state.now();
            state.oracle.told(now, &kind.to_string(), pods);
        });
        let snapshot =
            SourceSnapshot { delivered: true, pods: pods.to_vec(), ..SourceSnapshot::unknown(*kind) };
        sender.send_replace(Arc::new(snapshot));
    }

    /// Stops the agent as SIGTERM does, which waits a while for calls under way.
    pub(crate) async fn stop(&mut self) {
        self.world.with(|state| state.note("-- the agent is stopped"));
        self.stop.cancel();
        if let Some(looping) = self.looping.take() {
            match tokio::time::timeout(Duration::from_secs(10), looping).await {
                Ok(ended) => ended.unwrap(),
                Err(_) => self.world.with(|state| state.note("-- it did not wait for its calls")),
            }
        }
    }

    /// What is shown of a pod.
    pub(crate) fn view(&self, uid: &str) -> Option<Arc<PodView>> {
        self.env.board.get(&PodUid::from(uid))
    }

    pub(crate) fn phase(&self, uid: &str) -> String {
        self.view(uid).and_then(|view| view.status.phase.clone()).unwrap_or_default()
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, within: Duration, is: impl Fn(&Self) -> bool) {
        let begun = tokio::time::Instant::now();
        while !is(self) {
            if begun.elapsed() > within {
                let trace = self.world.lock().trace.join("\n");
                panic!("{trace}\nnot within {within:?}: {what}");
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether a container runs.
    pub(crate) fn runs(&self, uid: &str, name: &str) -> bool {
        let state = self.world.lock();
        state.newest(uid, name).is_some_and(|c| c.is == crate::world::Is::Running)
    }
}
