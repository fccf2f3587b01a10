//! The running agent. This file is the only one that wires its parts together; they meet through handles
//! and read-only snapshots.

pub mod board;
pub mod cgroups;
pub mod clock;
pub mod cluster;
pub mod credential_providers;
pub mod env_files;
pub mod events;
pub mod health;
pub mod housekeeping;
pub mod images;
pub mod log_rotation;
pub mod logs;
mod node_api;
pub mod pleg;
pub mod pods;
pub mod probes;
pub mod resolver;
pub mod runtime_classes;
mod settings;
pub mod sources;
mod stats;
pub mod sync_loop;
pub mod termination;
pub mod view;
pub mod volumes;

pub use settings::host_ips;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    clock::Clock,
    cluster::{
        Cluster, ClusterPods,
        identity::{Identity, Places, Serving},
        node::{NodeAgent, tell_configured},
    },
    credential_providers::CredentialProviders,
    health::HealthMonitor,
    images::{Images, PullLimits},
    log_rotation::LogRotation,
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
    settings::{
        holds_pods, machine_facts, node_cgroups, node_settings, node_template, pressure_sources,
        rotation_settings,
    },
    sources::{
        PodSource, SourceSnapshot,
        file::{FileSource, FileSourceConfig},
        http::{HttpSource, HttpSourceConfig},
    },
    sync_loop::{LoopState, SyncLoop},
    view::View,
};
use crate::{
    api::{PodUid, view::AgentView},
    config::{AgentConfig, CgroupDriver},
    cri::{Cri, CriClient, CriTimeouts, RuntimeEndpoint},
    error::{CommandError, chain},
    host::{
        cgroup::CgroupMounts,
        instance::{InstanceError, RootLock, port_owner, refuse_kubelet},
        machine::Machine,
        oom::set_oom_score_adj,
        sd::Notifier,
    },
    kube::{ApiServer, Rates},
    policy::backoff::RestartBackoff,
    server::{healthz, local::OperatorSocket},
    telemetry,
};

/// How long the start waits for the runtime to tell its cgroup driver. A runtime that is down then is
/// taken to use the configured one.
const RUNTIME_CONFIG_WAIT: Duration = Duration::from_secs(2);
/// How long an agent that is told to stop waits for calls under way; after it the process ends all the
/// same, and the next agent finds out what came of them.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long the end waits for the operator socket to be taken away.
const SOCKET_WAIT: Duration = Duration::from_secs(1);

/// Runs the agent until `stop` is cancelled.
///
/// # Errors
/// Refused (exit code 3) when another agent or a kubelet works on the root-dir or has a port; failed when a
/// folder or socket cannot be made.
pub async fn run(mut config: AgentConfig, stop: CancellationToken) -> Result<(), CommandError> {
    let proc_root = Path::new("/proc");
    refuse_kubelet(proc_root, &config.root_dir)?;
    let _lock = RootLock::acquire(&config.root_dir)?;
    // The runtime has another working folder, and the kernel tells mounts by paths without links.
    config.root_dir = config.root_dir.canonicalize().map_err(CommandError::failed)?;
    for folder in [&mut config.pod_logs_dir, &mut config.container_log_dir]
        .into_iter()
        .chain(&mut config.runtime_class_path)
    {
        *folder = std::path::absolute(&*folder).map_err(CommandError::failed)?;
    }
    set_oom_score_adj(config.oom_score_adj);
    telemetry::metrics::init().map_err(CommandError::failed)?;
    let healthz = config.healthz.map(|addr| bind(proc_root, "healthz", addr)).transpose()?;
    let node_api = node_api::Listeners::bind(&config, |addr| bind(proc_root, "the node's API", addr))?;
    let socket = OperatorSocket::bind(&config.operator_socket)?;

    let cluster = Cluster::of(&config, cluster::offline::open(&config)?);
    let identity = cluster.as_ref().zip(Places::of(&config));
    let mut identity = identity.map(|(cluster, places)| Identity::new(cluster.api.clone(), places));
    identity.as_mut().map_or(Ok(()), Identity::begin)?;
    let api =
        cluster.as_ref().map_or_else(|| ApiServer::new(Rates::default()), |cluster| cluster.api.clone());
    let serving_identity = (cluster.is_some() || node_api.is_some()).then(|| {
        let addresses = config.node_ips.clone();
        Serving::new(&config, api.clone(), Box::new(move || host_ips(&addresses)))
    });
    let pods = cluster.as_ref().map(|cluster| cluster.pods(Arc::new(jiff::Timestamp::now)));
    let cluster = cluster.zip(pods);
    let aside = CancellationToken::new();
    let parts = Parts::assemble(&config, cluster.as_ref(), &aside).await?;
    let view: Arc<dyn AgentView> = Arc::new(View {
        env: Arc::clone(&parts.sync_loop.env),
        health: Arc::clone(&parts.sync_loop.health),
        sync_loop: Arc::clone(&parts.sync_loop.state),
        contact: parts.node.as_ref().map(NodeAgent::contact),
        certificates: identity
            .iter()
            .map(Identity::told)
            .chain(serving_identity.iter().map(Serving::told))
            .collect(),
    });
    if let Some(listener) = healthz {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(CommandError::failed)?;
        tokio::spawn(healthz::serve(listener, Arc::clone(&view), aside.clone()));
    }
    if let (Some(listeners), Some(serving)) = (node_api, &serving_identity) {
        listeners.serve(&config, api, serving.certificate(), (&view, &parts.sync_loop.env), &aside)?;
    }
    let serving = tokio::spawn(socket.serve(Arc::clone(&view), aside.clone()));
    tokio::spawn(Arc::clone(&parts.sync_loop.health).run(aside.clone()));
    tokio::spawn(Arc::clone(&parts.sync_loop.env.probes).run(aside.clone()));
    identity.map(|identity| tokio::spawn(identity.run(aside.clone())));
    serving_identity.map(|identity| tokio::spawn(identity.run(aside.clone())));
    match (parts.node, config.node.pod_cidr.clone()) {
        (Some(node), _) => drop(tokio::spawn(node.run(aside.clone()))),
        (None, Some(range)) => {
            let (cri, health) = (&parts.sync_loop.env.cri, &parts.sync_loop.health);
            let telling = tell_configured(Arc::clone(cri), Arc::clone(health), range);
            let stopped = aside.clone();
            tokio::spawn(async move { stopped.run_until_cancelled(telling).await });
        }
        (None, None) => {}
    }
    parts.sources.into_iter().for_each(|source| source.spawn(&aside));
    if let Some((cluster, pods)) = cluster {
        pods.spawn(&cluster, &parts.sync_loop.env, &parts.sync_loop.state, &aside);
    }
    if let Some(settings) = rotation_settings(&config) {
        let env = &parts.sync_loop.env;
        let rotation =
            LogRotation::new(Arc::clone(&env.cri), Arc::clone(&env.pleg), settings, stop.child_token());
        tokio::spawn(rotation.run());
    }
    let notifier = Arc::new(Notifier::from_env());
    tokio::spawn(feed_watchdog(Arc::clone(&notifier), Arc::clone(&view), aside.clone()));

    tracing::info!(node = config.node_name, root_dir = %config.root_dir.display(), "nodectl runs");
    notifier.ready();
    let looping = tokio::spawn(parts.sync_loop.run(stop.clone()));
    stop.cancelled().await;
    tracing::info!("stopping; pods are left running");
    notifier.stopping();
    if tokio::time::timeout(STOP_WAIT, looping).await.is_err() {
        tracing::warn!("calls to the runtime are still under way; they end without this agent");
    }
    aside.cancel();
    // It takes its socket away.
    tokio::time::timeout(SOCKET_WAIT, serving).await.ok();
    Ok(())
}

/// What the agent is made of.
struct Parts {
    sync_loop: SyncLoop,
    sources: Vec<Source>,
    /// The machine as a node of its cluster, if it has one.
    node: Option<NodeAgent>,
}

/// A source that has not begun.
enum Source {
    File(Box<FileSource>),
    Http(Box<HttpSource>),
}

impl Source {
    fn spawn(self, stop: &CancellationToken) {
        match self {
            Self::File(source) => tokio::spawn(source.run(stop.clone())),
            Self::Http(source) => tokio::spawn(source.run(stop.clone())),
        };
    }
}

impl Parts {
    async fn assemble(
        config: &AgentConfig,
        cluster: Option<&(Cluster, ClusterPods)>,
        aside: &CancellationToken,
    ) -> Result<Self, CommandError> {
        let cri: Arc<dyn Cri> = Arc::new(client(config)?);
        let driver = cgroup_driver(&*cri, config.cgroup_driver).await;
        let clock = Clock::system();
        let health = HealthMonitor::new(Arc::clone(&cri));
        let paths = NodePaths {
            root: config.root_dir.clone(),
            pod_logs: config.pod_logs_dir.clone(),
            container_logs: config.container_log_dir.clone(),
        };
        let (pleg, changed) = Pleg::new(Arc::clone(&cri), clock, paths.clone());
        let (store, records) = open_records(&paths)?;
        let events = cri.events();
        let machine = Machine::read(Path::new("/proc"), Path::new("/sys"));
        let mounts = CgroupMounts::find(Path::new("/proc/self/mountinfo")).map_err(CommandError::failed)?;
        let node = node_settings(config, &machine, &mounts);
        let told = cluster.map(|(cluster, _)| cluster.events.clone()).unwrap_or_default();
        let probes = Prober::new(Arc::clone(&cri), clock, told.clone());
        let cgroups = node_cgroups(config, driver, mounts.clone(), &machine, &node.resources);
        let cgroups =
            if holds_pods(config) { cgroups.tell(told.clone(), &config.node_name) } else { cgroups };
        let cluster_node = cluster.map(|(cluster, _)| {
            NodeAgent::new(
                cluster,
                (node_template(config, &node), config.node.clone()),
                machine_facts(config, &machine, &node),
                pressure_sources(config, &machine, &cgroups, mounts),
                (Arc::clone(&cri), Arc::clone(&health), clock),
            )
        });
        let pods = cluster.map(|(_, pods)| pods);
        let env = Arc::new(PodEnv {
            images: Images::new(
                Arc::clone(&cri),
                PullLimits {
                    at_once: config.image_pulls,
                    per_second: config.registry_pull_qps,
                    burst: config.registry_burst,
                },
                CredentialProviders::new(config.credential_providers.clone()),
            ),
            cri,
            pleg,
            health: Arc::clone(&health),
            clock,
            paths,
            cgroups,
            mountinfo: "/proc/self/mountinfo".into(),
            node,
            server_node: cluster_node.as_ref().map(NodeAgent::node),
            supplies: cluster.map(|(cluster, _)| cluster.supplies(aside)),
            offline: cluster.and_then(|(cluster, _)| cluster.offline.clone()),
            host_names: HostNames::of(config),
            starts: Starts::default(),
            runtime_classes: RuntimeClasses::new(config.runtime_class_path.clone()),
            admitted: Admitted::default(),
            user_namespaces: UserNamespaces::of_node(Path::new("/etc"), config.ids_per_pod),
            host_work: HostWork::default(),
            probes,
            backoff: RestartBackoff::with_max(config.max_container_restart_period),
            events: told,
            board: board::Board::default(),
            records: store,
        });
        let (sources, receivers, kinds) = sources(config, pods)?;
        let sync_loop = SyncLoop {
            env,
            health,
            sources: receivers,
            changed,
            events,
            records,
            sync_period: config.sync_frequency,
            state: LoopState::new(kinds),
        };
        Ok(Self { sync_loop, sources, node: cluster_node })
    }
}

fn client(config: &AgentConfig) -> Result<CriClient, CommandError> {
    let endpoint = |text: &str| text.parse::<RuntimeEndpoint>().map_err(CommandError::usage);
    let runtime = endpoint(&config.container_runtime_endpoint)?;
    let images = if config.image_service_endpoint == config.container_runtime_endpoint {
        None
    } else {
        Some(endpoint(&config.image_service_endpoint)?)
    };
    Ok(CriClient::connect_lazy(
        runtime,
        images,
        CriTimeouts::from_request_timeout(config.runtime_request_timeout),
    ))
}

/// What the runtime says, else what is configured.
async fn cgroup_driver(cri: &dyn Cri, configured: CgroupDriver) -> CgroupDriver {
    let answer = tokio::time::timeout(RUNTIME_CONFIG_WAIT, cri.runtime_config()).await;
    let told = match answer {
        Ok(Ok(Some(config))) => config.linux,
        Ok(Ok(None)) => None,
        Ok(Err(error)) => {
            tracing::warn!(
                "the runtime does not tell its cgroup driver, taking the configured one: {}",
                chain(&error)
            );
            None
        }
        Err(_) => {
            tracing::warn!("the runtime does not answer, taking the configured cgroup driver");
            None
        }
    };
    let Some(linux) = told else { return configured };
    let driver = match linux.cgroup_driver() {
        crate::api::cri::CgroupDriver::Systemd => CgroupDriver::Systemd,
        crate::api::cri::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
    };
    if driver != configured {
        tracing::info!(?driver, ?configured, "taking the runtime's cgroup driver over the configured one");
    }
    driver
}

/// Opens the checkpoints and reads them. One that cannot be read is set aside: what runs is found in the
/// runtime as well.
fn open_records(paths: &NodePaths) -> Result<(PodRecords, HashMap<PodUid, PodRecord>), CommandError> {
    let folder = paths.checkpoints();
    volumes::make_agent_dir(&folder)
        .map_err(|error| CommandError::failed(format!("cannot make folder {}: {error}", folder.display())))?;
    let store = PodRecords::open(folder, POD_RECORD).map_err(CommandError::failed)?;
    let (records, set_aside) = store.load_all();
    for file in set_aside {
        tracing::warn!("a checkpoint cannot be used, going on without it: {file}");
    }
    Ok((store, records.into_iter().map(|(name, record)| (PodUid::from(name), record)).collect()))
}

type Sources = (Vec<Source>, Vec<watch::Receiver<Arc<SourceSnapshot>>>, Vec<PodSource>);

fn sources(config: &AgentConfig, cluster: Option<&ClusterPods>) -> Result<Sources, CommandError> {
    let clock: sources::Clock = Arc::new(jiff::Timestamp::now);
    let (mut made, mut receivers, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(path) = &config.static_pod_path {
        let (source, receiver) = FileSource::new(FileSourceConfig {
            path: path.clone(),
            check_frequency: config.file_check_frequency,
            node_name: config.node_name.clone(),
            clock: Arc::clone(&clock),
        });
        made.push(Source::File(Box::new(source)));
        receivers.push(receiver);
        kinds.push(PodSource::File);
    }
    if let Some(url) = &config.manifest_url {
        let (source, receiver) = HttpSource::new(HttpSourceConfig {
            url: url.expose().to_owned(),
            headers: config
                .manifest_url_headers
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            check_frequency: config.http_check_frequency,
            node_name: config.node_name.clone(),
            clock,
        })
        .map_err(CommandError::usage)?;
        made.push(Source::Http(Box::new(source)));
        receivers.push(receiver);
        kinds.push(PodSource::Http);
    }
    if let Some(cluster) = cluster {
        receivers.push(cluster.snapshots());
        kinds.push(PodSource::Api);
    }
    if kinds.is_empty() {
        tracing::warn!("no source of pods is configured: set staticPodPath, staticPodURL or a kubeconfig");
    }
    Ok((made, receivers, kinds))
}

fn bind(proc_root: &Path, what: &str, addr: SocketAddr) -> Result<TcpListener, CommandError> {
    let listener = TcpListener::bind(addr).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            let owner = port_owner(proc_root, addr);
            CommandError::from(InstanceError::PortInUse { what: what.to_owned(), addr, owner })
        } else {
            CommandError::failed(format!("cannot listen on {addr} for {what}: {error}"))
        }
    })?;
    listener.set_nonblocking(true).map_err(CommandError::failed)?;
    Ok(listener)
}

/// Tells systemd that the agent lives for as long as no check fails that a restart would mend.
async fn feed_watchdog(notifier: Arc<Notifier>, view: Arc<dyn AgentView>, stop: CancellationToken) {
    let Some(period) = notifier.watchdog_interval() else { return };
    loop {
        let failed = view.health().into_iter().find(|check| check.fatal && !check.ok);
        match failed {
            None => notifier.watchdog(),
            Some(check) => tracing::error!("not feeding the watchdog: {}: {}", check.name, check.message),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}
