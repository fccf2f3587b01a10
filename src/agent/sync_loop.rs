//! The loop that everything meets in. Four kinds of event drive it: pod updates from the sources, pod
//! lifecycle events from the runtime, the sync period, and housekeeping. It hands on and never works: each
//! branch takes microseconds, and what may take longer is spawned, so a runtime that hangs, a slow disk or a
//! long pull stops nobody but who needs it.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::{StreamExt as _, StreamMap, wrappers::WatchStream};
use tokio_util::sync::CancellationToken;

use super::{
    health::HealthMonitor,
    housekeeping,
    pods::{
        desired::DesiredPods,
        env::{PodEnv, PodRecord},
        workers::{PodWorkers, WorkerEnd},
    },
    sources::{PodSource, SourceSnapshot},
};
use crate::{
    api::{ContainerId, ContainerState, PodUid},
    cri::{EventSource, RuntimeEvents},
    error::chain,
};

/// Time between relists while the runtime tells of no events: kubelet's.
const RELIST: Duration = Duration::from_secs(1);
/// Time between relists while events flow: they are only the safety net then.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(15);
/// kubelet's housekeeping period.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// Logs and links are swept every so many housekeepings.
const SWEEP_EVERY: u64 = 30;
/// How often the loop turns at least, so that its standing still is noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A loop that has not turned for this long stands still.
pub const STALLED_AFTER: Duration = Duration::from_secs(30);

/// When the loop last turned, and what it last heard of the sources.
pub struct LoopState {
    begun: Instant,
    turned: AtomicU64,
    desired: Mutex<DesiredPods>,
}

impl LoopState {
    /// Of a loop that is about to begin.
    pub fn new(sources: impl IntoIterator<Item = PodSource>) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            turned: AtomicU64::new(0),
            desired: Mutex::new(DesiredPods::new(sources)),
        })
    }

    /// How long ago the loop last turned.
    pub fn idle(&self) -> Duration {
        let turned = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(turned)
    }

    /// What is wanted.
    pub fn desired(&self) -> MutexGuard<'_, DesiredPods> {
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(now, Ordering::Relaxed);
    }
}

/// What the loop needs to begin.
pub struct SyncLoop {
    /// Handles and settings of the pods.
    pub env: Arc<PodEnv>,
    /// The health monitor.
    pub health: Arc<HealthMonitor>,
    /// The configured sources.
    pub sources: Vec<watch::Receiver<Arc<SourceSnapshot>>>,
    /// UIDs of pods whose observation changed.
    pub changed: mpsc::UnboundedReceiver<PodUid>,
    /// The runtime's events.
    pub events: RuntimeEvents,
    /// Checkpoints found at start.
    pub records: HashMap<PodUid, PodRecord>,
    /// `syncFrequency`.
    pub sync_period: Duration,
    /// What is shown of the loop.
    pub state: Arc<LoopState>,
}

impl SyncLoop {
    /// Turns until stopped, then waits for the workers to end their present step.
    pub async fn run(self, stop: CancellationToken) {
        let Self { env, health, sources, mut changed, mut events, records, sync_period, state } = self;
        let (workers, mut ends) = PodWorkers::new(Arc::clone(&env), stop.clone(), records);
        let workers = Arc::new(workers);
        workers.resume();
        let present = sources.clone();
        let mut sources: StreamMap<usize, _> =
            sources.into_iter().map(WatchStream::new).enumerate().collect();
        let mut health_seen = health.watch();
        let mut was_usable = false;
        let mut event_source = events.watch_source();
        let relister = Arc::new(Relister { env: Arc::clone(&env), busy: AtomicBool::new(false) });
        let keeper = Arc::new(Keeper {
            env: Arc::clone(&env),
            workers: Arc::clone(&workers),
            state: Arc::clone(&state),
            busy: AtomicBool::new(false),
            round: AtomicU64::new(0),
        });
        let mut relist = pin!(tokio::time::sleep(Duration::ZERO));
        let mut primed = env.pleg.primed();
        let mut sync = ticks(sync_period);
        let mut housekeeping = ticks(HOUSEKEEPING);
        let mut heartbeat = ticks(HEARTBEAT);
        loop {
            state.turn();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = sources.next(), if !sources.is_empty() => {
                    let (updates, all_delivered) = {
                        let mut desired = state.desired();
                        let told = present.iter().map(|source| Arc::clone(&source.borrow()));
                        (desired.apply(told), desired.all_delivered())
                    };
                    // First: whoever comes has the place of those that the API server has no more.
                    updates.removed.iter().for_each(|uid| workers.remove(uid));
                    if all_delivered {
                        workers.disown(|uid| state.desired().knows(uid));
                    }
                    workers.update(updates.set);
                    if all_delivered {
                        workers.allow_removals();
                    }
                }
                Some(uid) = changed.recv() => workers.wake(&uid),
                Some(event) = events.recv() => {
                    let env = Arc::clone(&env);
                    tokio::spawn(async move {
                        if let Err(error) = env.pleg.follow(event).await {
                            tracing::debug!("cannot follow an event of the runtime: {}", chain(&error));
                            env.health.doubt();
                        }
                    });
                }
                Some((uid, end)) = ends.recv() => workers.ended(&uid, end),
                Ok(()) = primed.changed() => {
                    workers.admit();
                    workers.wake_all();
                }
                Ok(()) = health_seen.changed() => {
                    let usable = health_seen.borrow_and_update().is_usable();
                    if usable && !was_usable {
                        relist.as_mut().reset(Instant::now());
                    }
                    was_usable = usable;
                    workers.wake_all();
                }
                Ok(()) = event_source.changed() => relist.as_mut().reset(Instant::now()),
                () = &mut relist => {
                    relister.relist();
                    let period = match *event_source.borrow() {
                        EventSource::None => RELIST,
                        EventSource::Cri | EventSource::Containerd if *primed.borrow() => RELIST_WITH_EVENTS,
                        EventSource::Cri | EventSource::Containerd => RELIST,
                    };
                    relist.as_mut().reset(Instant::now() + period);
                }
                _ = sync.tick() => workers.wake_all(),
                _ = housekeeping.tick() => keeper.keep(),
                _ = heartbeat.tick() => {}
            }
        }
        drop(events);
        // Their ends are read no more; what a worker has begun to make, it makes.
        workers.wait().await;
        while let Ok((uid, end)) = ends.try_recv() {
            if end == WorkerEnd::Panicked {
                tracing::error!(%uid, "a pod's worker failed while the agent stopped");
            }
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Relists one at a time, beside the loop.
struct Relister {
    env: Arc<PodEnv>,
    busy: AtomicBool,
}

impl Relister {
    fn relist(self: &Arc<Self>) {
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = this.env.pleg.relist().await {
                tracing::debug!("cannot relist: {}", chain(&error));
                this.env.health.doubt();
            }
            this.busy.store(false, Ordering::Release);
        });
    }
}

/// Housekeeping, one at a time, beside the loop.
struct Keeper {
    env: Arc<PodEnv>,
    workers: Arc<PodWorkers>,
    state: Arc<LoopState>,
    busy: AtomicBool,
    round: AtomicU64,
}

impl Keeper {
    fn keep(self: &Arc<Self>) {
        // Nothing may be removed before it is known what is wanted and what runs.
        let ready = self.state.desired().is_complete() && *self.env.pleg.primed().borrow();
        if !ready || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            this.round().await;
            this.busy.store(false, Ordering::Release);
        });
    }

    async fn keep_cgroups(&self, sweep: bool) {
        let env = &self.env;
        env.cgroups.keep(&env.admitted, sweep).await;
        let known = || {
            let mut known: HashSet<PodUid> = self.state.desired().uids().cloned().collect();
            known.extend(env.board.uids());
            known.extend(env.pleg.all().iter().map(|seen| seen.uid.clone()));
            known
        };
        env.cgroups.reap(sweep, known).await;
    }

    async fn round(&self) {
        let env = Arc::clone(&self.env);
        let folders = tokio::task::spawn_blocking(move || housekeeping::pod_folders(&env.paths)).await;
        match folders {
            Ok(Ok(folders)) => {
                self.workers.remove_unknown(&folders, |uid| self.state.desired().knows(uid));
            }
            Ok(Err(error)) => tracing::warn!("cannot list the pods' folders: {error}"),
            Err(error) => tracing::error!("listing the pods' folders failed: {error}"),
        }
        let sweep = self.round.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY);
        self.keep_cgroups(sweep).await;
        if !sweep {
            return;
        }
        let (env, state) = (Arc::clone(&self.env), Arc::clone(&self.state));
        let swept = tokio::task::spawn_blocking(move || {
            let known = |uid: &PodUid| {
                state.desired().knows(uid) || env.board.get(uid).is_some() || env.pleg.get(uid).is_some()
            };
            let running: HashSet<ContainerId> = env
                .pleg
                .all()
                .iter()
                .flat_map(|pod| &pod.containers)
                .filter(|container| container.state == ContainerState::Running)
                .map(|container| container.id.clone())
                .collect();
            housekeeping::sweep_logs(&env.paths, known, |id| running.contains(&ContainerId::from(id)))
        })
        .await;
        match swept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot sweep the log folders: {error}"),
            Err(error) => tracing::error!("sweeping the log folders failed: {error}"),
        }
    }
}
