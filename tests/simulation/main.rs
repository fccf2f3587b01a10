//! The real sync loop and pod workers on a simulated runtime, under a clock that jumps: pods, faults,
//! crashes and restarts drawn from a seed, and scripted cases, with invariants checked at every call. Pods
//! come as from manifests, or from a simulated API server, by the real source and with the real writer of
//! statuses.
//!
//! `NODECTL_SIM_SEED=n` replays one seed and prints its trace; `NODECTL_SIM_SECONDS=n` goes on for so
//! long, where otherwise the same seeds are tried every time. A seed draws the same scenario every time; where tasks are ready at the same moment their
//! order may differ from run to run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test's helpers fail by panicking and say why"
)]

mod agent;
mod cluster;
mod directed;
mod fake;
mod faults;
mod health;
mod invariants;
mod probes;
mod resize;
mod rest;
mod room;
mod runtime;
mod scenario;
mod script;
mod server;
#[path = "../support/strategic.rs"]
mod strategic;
mod world;

use std::{
    cell::Cell,
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use scenario::Scenario;

/// So many seeds are tried, however long they take.
const SEEDS: u64 = 120;
/// The same with an API server, whose requests and answers are as much again.
const CLUSTER_SEEDS: u64 = 40;

thread_local! {
    /// Panics on this thread: a worker that fails is put in its place again, and would not be noticed.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn play(seed: u64, of_a_cluster: bool) -> Result<(), String> {
    let before = PANICS.get();
    Scenario::new(seed, of_a_cluster).play()?;
    if PANICS.get() > before { Err("a task of the agent panicked".to_owned()) } else { Ok(()) }
}

#[test]
fn seeds() {
    try_seeds("seeds", SEEDS, false);
}

#[test]
fn seeds_of_a_cluster() {
    try_seeds("seeds_of_a_cluster", CLUSTER_SEEDS, true);
}

fn try_seeds(test: &str, seeds: u64, of_a_cluster: bool) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        default(info);
    }));
    if let Some(seed) = number("NODECTL_SIM_SEED") {
        play(seed, of_a_cluster).unwrap_or_else(|wrong| panic!("seed {seed}:\n{wrong}"));
        return;
    }
    let time = Duration::from_secs(number("NODECTL_SIM_SECONDS").unwrap_or(0));
    let first = number("NODECTL_SIM_FIRST").unwrap_or(1);
    let (begun, next, failed) = (Instant::now(), AtomicU64::new(first), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = seed >= first + seeds && begun.elapsed() > time;
                    if enough || failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                    if let Err(wrong) = play(seed, of_a_cluster) {
                        failed.lock().unwrap().push((seed, wrong));
                    }
                }
            });
        }
    });
    let tried = next.load(Ordering::Relaxed) - first;
    eprintln!("{tried} seeds in {:?}", begun.elapsed());
    let failed = failed.into_inner().unwrap();
    for (seed, wrong) in &failed {
        let short = wrong.rsplit_once("WRONG:").map_or(wrong.as_str(), |(_, short)| short);
        eprintln!(
            "seed {seed} fails; replay with NODECTL_SIM_SEED={seed} cargo test --test simulation {test}\n{short}"
        );
    }
    assert!(failed.is_empty(), "{} seeds fail", failed.len());
}
