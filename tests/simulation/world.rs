//! The world outside the agent: what the runtime holds, what happens to it and when. It is plain data with
//! a queue of events in simulated time, so that it outlives the agent: every agent runs in an async runtime
//! of its own, and dropping that one kills the agent at whatever await its tasks stand at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use nodectl::{
    api::cri::{ContainerConfig, PodSandboxConfig},
    cri::{CriErrorKind, EventKind, EventSender, EventSource, RuntimeEvent},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    faults::{Fate, Faults, Plan, dice},
    invariants::Oracle,
    script::Script,
};

/// Milliseconds since the simulation began.
pub(crate) type Ms = u64;
/// The time of day at which every simulation begins.
pub(crate) const BEGIN: i64 = 1_800_000_000;

/// A simulated time as a time of day.
pub(crate) fn time_of(ms: Ms) -> Timestamp {
    Timestamp::from_millisecond(BEGIN * 1000 + i64::try_from(ms).unwrap()).unwrap()
}

pub(crate) type Failure = (CriErrorKind, String);
type Event = Box<dyn FnOnce(&mut State) + Send>;

pub(crate) struct World {
    state: Mutex<State>,
    wake: Notify,
    pub(crate) crashed: Notify,
}

pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) config: PodSandboxConfig,
    pub(crate) ready: bool,
    pub(crate) created: Ms,
    /// When the call that made it was sent.
    pub(crate) issued: Ms,
    pub(crate) ip: String,
    /// Names of init containers that ended well in it, and of sidecars that were started.
    pub(crate) passed: HashSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Created,
    Running,
    Exited,
}

pub(crate) struct Ctr {
    pub(crate) id: String,
    pub(crate) uid: String,
    pub(crate) pod: String,
    pub(crate) name: String,
    pub(crate) reserved: String,
    pub(crate) sandbox: String,
    pub(crate) attempt: u32,
    pub(crate) config: ContainerConfig,
    pub(crate) log_path: String,
    pub(crate) script: Script,
    pub(crate) is: Is,
    pub(crate) created: Ms,
    pub(crate) issued: Ms,
    pub(crate) started: Ms,
    pub(crate) finished: Ms,
    pub(crate) exit_code: i32,
    /// When it was first asked to end.
    pub(crate) term: Option<Ms>,
    /// Started by a call whose caller was never told.
    pub(crate) unheard: bool,
    pub(crate) waiters: Vec<Arc<Flight<()>>>,
}

impl Ctr {
    /// The value of the variable `V`, by which tests tell versions of a container's spec apart.
    pub(crate) fn version(&self) -> String {
        self.config.envs.iter().find(|env| env.key == "V").map_or_else(String::new, |env| env.value.clone())
    }
}

/// A call under way.
pub(crate) struct Flight<T> {
    answer: Mutex<Option<oneshot::Sender<Result<T, Failure>>>>,
    /// Whether it may still take effect.
    acts: AtomicBool,
}

impl<T> Flight<T> {
    pub(crate) fn answer(&self, result: Result<T, Failure>) {
        if let Some(sender) = self.answer.lock().unwrap().take() {
            sender.send(result).ok();
        }
    }

    /// Whether somebody waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.answer.lock().unwrap().as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

trait Break: Send + Sync {
    fn cut(&self, acts: bool);
}

impl<T: Send> Break for Flight<T> {
    fn cut(&self, acts: bool) {
        if !acts {
            self.acts.store(false, Ordering::Relaxed);
        }
        self.answer(Err((CriErrorKind::Unavailable, "the connection broke".to_owned())));
    }
}

pub(crate) struct State {
    pub(crate) seed: u64,
    base: Ms,
    anchor: Option<Instant>,
    queue: BTreeMap<(Ms, u64), Event>,
    serial: u64,
    flights: Vec<Weak<dyn Break>>,
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) containers: BTreeMap<String, Ctr>,
    pub(crate) reserved: HashMap<String, String>,
    pub(crate) images: HashSet<String>,
    /// Images whose pull fails so many times more; `u32::MAX` is for ever.
    pub(crate) bad_images: HashMap<String, u32>,
    /// What commands in containers come to, by their first word; others succeed.
    pub(crate) commands: HashMap<String, Command>,
    /// Commands that somebody waits for.
    pub(crate) waited_for: Arc<AtomicUsize>,
    pub(crate) down: bool,
    /// It was down or hung at some time.
    pub(crate) was_away: bool,
    pub(crate) hung_until: Ms,
    pub(crate) network_ready: bool,
    pub(crate) faults: Faults,
    pub(crate) events: Option<EventSender>,
    pub(crate) event_source: EventSource,
    pub(crate) event_loss: f64,
    calls: HashMap<String, u64>,
    pub(crate) mutations: u64,
    crash_at: Option<(u64, Ms)>,
    crash: bool,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Vec<String>,
    pub(crate) verbose: bool,
    /// The node's pods are an API server's.
    pub(crate) of_a_cluster: bool,
}

/// What a command in a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Exits with this code.
    Exits(i32),
    /// Runs for ever.
    Hangs,
    /// Exits with this code after this time.
    Takes(Ms, i32),
}

impl World {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            seed,
            base: 0,
            anchor: None,
            queue: BTreeMap::new(),
            serial: 0,
            flights: Vec::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            reserved: HashMap::new(),
            images: HashSet::from(["localhost/app:1".to_owned()]),
            bad_images: HashMap::new(),
            commands: HashMap::new(),
            waited_for: Arc::default(),
            down: false,
            was_away: false,
            hung_until: 0,
            network_ready: true,
            faults: Faults::none(),
            events: None,
            event_source: EventSource::Cri,
            event_loss: 0.0,
            calls: HashMap::new(),
            mutations: 0,
            crash_at: None,
            crash: false,
            oracle: Oracle::default(),
            trace: Vec::new(),
            verbose: std::env::var_os("NODECTL_SIM_TRACE").is_some(),
            of_a_cluster: false,
        };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new(), crashed: Notify::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the world from outside, and sees to what follows.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.wake.notify_one();
        result
    }

    /// Ties the world's time to the clock of the async runtime that this is called on.
    pub(crate) fn anchor(&self) {
        let mut state = self.lock();
        state.anchor = Some(Instant::now());
        state.crash = false;
    }

    /// Unties it, when that runtime is about to end.
    pub(crate) fn weigh_anchor(&self) {
        let mut state = self.lock();
        state.base = state.now();
        state.anchor = None;
        state.events = None;
    }

    /// Makes what is due happen, for as long as the async runtime lives.
    pub(crate) async fn drive(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                let now = state.now();
                while let Some(entry) = state.queue.first_entry().filter(|entry| entry.key().0 <= now) {
                    let event = entry.remove();
                    event(&mut state);
                }
                if std::mem::take(&mut state.crash) {
                    self.crashed.notify_one();
                }
                state.queue.first_key_value().map(|((due, _), _)| due - now)
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = async { match next {
                    Some(left) => tokio::time::sleep(Duration::from_millis(left)).await,
                    None => std::future::pending().await,
                } } => {}
            }
        }
    }

    /// Sends a call; `act` is what it does to the world, told whether it takes effect. It answers later
    /// itself where it gives `None`.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        rpc: &'static str,
        key: String,
        act: impl FnOnce(&mut State, bool, &Arc<Flight<T>>) -> Option<Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let receiver = {
            let (sender, receiver) = oneshot::channel();
            let flight = Arc::new(Flight { answer: Mutex::new(Some(sender)), acts: AtomicBool::new(true) });
            self.lock().begin(rpc, &key, flight, act);
            receiver
        };
        self.wake.notify_one();
        match receiver.await {
            Ok(result) => result,
            // The call of a runtime that was cut off in the middle: the caller's deadline ends it.
            Err(_) => {
                tokio::time::sleep(Duration::from_secs(120)).await;
                Err((CriErrorKind::DeadlineExceeded, "no answer within 120 s".to_owned()))
            }
        }
    }
}

const READS: [&str; 8] = [
    "Version",
    "Status",
    "ListPodSandbox",
    "ListContainers",
    "PodSandboxStatus",
    "ContainerStatus",
    "ImageStatus",
    "PullImage",
];

impl State {
    pub(crate) fn now(&self) -> Ms {
        let gone = self.anchor.map_or(0, |anchor| anchor.elapsed().as_millis());
        self.base + u64::try_from(gone).unwrap()
    }

    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// An id that is the same in every run of a seed.
    pub(crate) fn fresh_id(&mut self, name: &str) -> String {
        let count = self.calls.entry(format!("id {name}")).or_default();
        *count += 1;
        let throw = dice(self.seed, &["id", name, &count.to_string()]);
        format!("{throw:016x}")
    }

    pub(crate) fn at(&mut self, due: Ms, event: impl FnOnce(&mut Self) + Send + 'static) {
        let serial = self.serial();
        self.queue.insert((due, serial), Box::new(event));
    }

    pub(crate) fn note(&mut self, line: impl Into<String>) {
        let line = format!("{:>9} {}", self.now(), line.into());
        if self.verbose {
            eprintln!("{line}");
        }
        self.trace.push(line);
    }

    /// The agent is killed `after` milliseconds after it has sent its `nth` call from now that changes
    /// something.
    pub(crate) fn crash_at(&mut self, nth: u64, after: Ms) {
        self.crash_at = Some((self.mutations + nth, after));
    }

    fn begin<T: Send + 'static>(
        &mut self,
        rpc: &'static str,
        key: &str,
        flight: Arc<Flight<T>>,
        act: impl FnOnce(&mut Self, bool, &Arc<Flight<T>>) -> Option<Result<T, Failure>> + Send + 'static,
    ) {
        let now = self.now();
        let count = self.calls.entry(format!("{rpc} {key}")).or_default();
        *count += 1;
        let count = *count;
        let read = READS.contains(&rpc);
        // A command may come at any time, and changes nothing that the agent keeps.
        if !read && rpc != "ExecSync" {
            self.mutations += 1;
            if self.crash_at.is_some_and(|(nth, _)| self.mutations >= nth) {
                let (_, after) = self.crash_at.take().unwrap();
                self.at(now + after, |state| {
                    state.note("-- the agent is killed");
                    state.crash = true;
                });
            }
        }
        if self.down {
            if !read {
                self.note(format!("{rpc} {key}: runtime down"));
            }
            self.at(now + 1, move |state| {
                act(state, false, &flight);
                flight.answer(Err((CriErrorKind::Unavailable, "the runtime is down".to_owned())));
            });
            return;
        }
        let throw = dice(self.seed, &[rpc, key, &count.to_string()]);
        let plan = if now < self.hung_until {
            Plan::hung(throw)
        } else {
            self.faults.plan(rpc, key, read, now, throw)
        };
        if !read {
            self.note(format!("{rpc} {key}{}", plan.told()));
        }
        let unpinned: Weak<dyn Break> = {
            let strong: Arc<dyn Break> = Arc::clone(&flight) as Arc<dyn Break>;
            Arc::downgrade(&strong)
        };
        self.flights.retain(|flight| flight.strong_count() > 0);
        self.flights.push(unpinned);
        let Plan { acts_after, answers_after, fate } = plan;
        if let Fate::TimesOut { after, .. } = fate {
            let flight = Arc::clone(&flight);
            self.at(now + after, move |_| {
                flight.answer(Err((CriErrorKind::DeadlineExceeded, format!("no answer within {after} ms"))));
            });
        }
        self.at(now + acts_after, move |state| {
            let mut acts = flight.acts.load(Ordering::Relaxed) && !matches!(fate, Fate::Refused(_));
            if let Fate::TimesOut { acts: in_the_end, .. } = fate {
                acts &= in_the_end;
            } else if !flight.is_waited_for() {
                // Given up by its caller, or cut off: the runtime rolls back, unless it is too late.
                acts &= throw % 5 < 2;
            }
            let result = act(state, acts, &flight);
            let Some(result) = result else { return };
            let result = match fate {
                Fate::Refused(ref failure) => Err(failure.clone()),
                Fate::AnswerLost => Err((CriErrorKind::Unavailable, "the connection broke".to_owned())),
                Fate::Normal | Fate::TimesOut { .. } => result,
            };
            if matches!(fate, Fate::TimesOut { .. }) {
                return;
            }
            state.at(now + acts_after + answers_after, move |_| flight.answer(result));
        });
    }

    /// The runtime dies. What was under way may or may not have come to its end.
    pub(crate) fn go_down(&mut self) {
        self.note("-- the runtime dies");
        self.down = true;
        self.was_away = true;
        let flights = std::mem::take(&mut self.flights);
        for (place, flight) in flights.into_iter().enumerate() {
            if let Some(flight) = flight.upgrade() {
                let throw = dice(self.seed, &["down", &self.now().to_string(), &place.to_string()]);
                flight.cut(throw.is_multiple_of(2));
            }
        }
        if let Some(events) = &self.events {
            events.set_source(EventSource::None);
        }
    }

    /// It comes back; containers lived on.
    pub(crate) fn come_back(&mut self) {
        self.note("-- the runtime is back");
        self.down = false;
        if let Some(events) = &self.events {
            events.set_source(self.event_source);
        }
    }

    /// Tells the agent, unless the event is lost.
    pub(crate) fn tell(&mut self, kind: EventKind, id: &str, uid: &str) {
        let throw = dice(self.seed, &["event", id, &format!("{kind:?}")]);
        if self.down || self.event_source == EventSource::None {
            return;
        }
        if (throw % 1000) as f64 / 1000.0 < self.event_loss {
            return;
        }
        let event = RuntimeEvent {
            kind,
            container_id: id.to_owned(),
            pod_uid: (self.event_source == EventSource::Cri).then(|| uid.to_owned()),
            source: self.event_source,
        };
        let due = self.now() + throw % 7;
        self.at(due, move |state| {
            if let Some(events) = &state.events {
                events.send(event);
            }
        });
    }
}
