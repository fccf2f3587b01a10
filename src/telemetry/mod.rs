//! The log: to standard error, where systemd's journal picks it up.
//!
//! Lines go through a bounded queue to a thread of its own, so that a reader that stops reading (a full
//! pipe) holds nobody up; lines that find the queue full are dropped.

pub mod metrics;

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, OnceLock},
};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

use crate::config::LogFormat;

/// How many lines may wait to be written.
const QUEUED_LINES: usize = 4096;

/// The last error of writing the log, until a later write succeeds.
static WRITE_ERROR: Mutex<Option<String>> = Mutex::new(None);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Changes the verbosity of the log that was started.
static SET_VERBOSITY: OnceLock<SetVerbosity> = OnceLock::new();

type SetVerbosity = Box<dyn Fn(u32) -> Result<(), BoxError> + Send + Sync>;

/// Writes to standard error and notes whether that works.
struct Watched(io::Stderr);

impl Watched {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Ok(mut last) = WRITE_ERROR.lock() {
            *last = result.as_ref().err().map(|error| format!("cannot write the log: {error}"));
        }
        result
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.0.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Why the log is not written, if it is not.
pub fn write_error() -> Option<String> {
    WRITE_ERROR.lock().ok().and_then(|last| last.clone())
}

/// Starts the log. `verbosity` is klog's: 0 and 1 tell what happens, 2 and 3 are the same with more of it
/// as kubelet's defaults have it, 4 and up are debugging, 6 and up tracing. The variable `NODECTL_LOG`
/// overrides it with filters in the form of `tracing_subscriber::EnvFilter`. What is queued is written when
/// the guard is dropped.
///
/// # Errors
/// When a log has been started before.
pub fn start(verbosity: u32, format: LogFormat) -> Result<WorkerGuard, BoxError> {
    let (filter, handle) = reload::Layer::new(match std::env::var("NODECTL_LOG") {
        Ok(filters) => discreet(EnvFilter::try_new(filters)?)?,
        Err(_) => of_verbosity(verbosity)?,
    });
    let set = move |verbosity| Ok(handle.reload(of_verbosity(verbosity)?)?);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES)
        .thread_name("log")
        .finish(Watched(io::stderr()));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
        LogFormat::Text => {
            registry.with(layer.with_ansi(io::stderr().is_terminal()).with_target(false)).try_init()?;
        }
    }
    // A second log has failed above.
    SET_VERBOSITY.set(Box::new(set)).ok();
    Ok(guard)
}

/// What a verbosity lets through.
fn of_verbosity(verbosity: u32) -> Result<EnvFilter, BoxError> {
    discreet(EnvFilter::try_new(match verbosity {
        0..=3 => "info",
        4 | 5 => "info,nodectl=debug",
        _ => "info,nodectl=trace",
    })?)
}

/// An answer of the API server that it cannot read kube-rs logs whole, and that may be a Secret. The agent tells of
/// errors itself.
fn discreet(filter: EnvFilter) -> Result<EnvFilter, BoxError> {
    Ok(filter.add_directive("kube_client=off".parse()?).add_directive("kube_runtime=off".parse()?))
}

/// Has the log tell more or less from now on; as the `verbosity` of [`start`], and in place of `NODECTL_LOG` too.
///
/// # Errors
/// When no log has been started.
pub fn set_verbosity(verbosity: u32) -> Result<(), BoxError> {
    let set = SET_VERBOSITY.get().ok_or("there is no log")?;
    set(verbosity)
}
