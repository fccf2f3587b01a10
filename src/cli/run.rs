//! `nodectl run`: the node agent.

use clap::{ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::kubelet_flags;
use crate::{agent, config, error::CommandError, host::memory, telemetry};

/// The subcommand with kubelet's flags.
pub fn command() -> Command {
    kubelet_flags::augment(described())
}

/// The subcommand with the flags that its help shows.
pub fn offered_command() -> Command {
    kubelet_flags::augment_shown(described())
}

fn described() -> Command {
    Command::new("run").about("Run the node agent in kubelet's place").long_about(
        "Run the node agent in kubelet's place.\n\nPods come from manifest files (staticPodPath) and a \
             URL (staticPodURL). The configuration is kubelet's: a KubeletConfiguration file (--config), \
             drop-ins (--config-dir) and kubelet's flags over both. SIGTERM ends the agent and leaves its \
             pods running.\n\nExit codes: 0 stopped by a signal, 1 failed, 2 wrong usage or invalid \
             configuration, 3 refused because another agent or a kubelet works on the root-dir or has a \
             port.",
    )
}

/// Runs the agent until a signal ends it.
///
/// # Errors
/// An invalid configuration is wrong usage; see [`agent::run`] for the rest.
pub fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    memory::limit_arenas();
    let (config, warnings) = config::load(&kubelet_flags::given(matches)).map_err(CommandError::usage)?;
    let _flushed_at_the_end =
        telemetry::start(config.log_verbosity, config.log_format).map_err(CommandError::failed)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each waits for the disk; more of them would only make it slower, and each has a stack.
        .max_blocking_threads(16)
        .thread_name("agent")
        .enable_all()
        .build()
        .map_err(CommandError::failed)?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        watch_signals(&stop)?;
        agent::run(config, stop).await
    });
    // Blocking file work that hangs must not hold up the end of the process.
    runtime.shutdown_background();
    result
}

fn watch_signals(stop: &CancellationToken) -> Result<(), CommandError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(CommandError::failed)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}
