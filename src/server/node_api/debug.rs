//! `/debug/`: how much the log tells, and what the agent's own threads do.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, StatusCode, body::Incoming};

use super::{NodeApi, Refusal, serve::Reply, text};
use crate::{
    host::process::{Thread, threads},
    policy::node_api::parameters,
    telemetry,
};

/// Bytes of a verbosity.
const MAX_BODY: usize = 64;
/// How long threads are watched if the client does not say, and at most. Seconds.
const WATCHED: u64 = 5;
const WATCHED_MOST: u64 = 60;

impl NodeApi {
    /// `/debug/flags/v`: the body is the verbosity from now on.
    pub(super) async fn set_verbosity(&self, request: &mut Request<Incoming>) -> Result<Reply, Refusal> {
        if !self.config.debug_flags {
            return Ok(disabled("flags"));
        }
        let told = Limited::new(request.body_mut(), MAX_BODY).collect();
        let told = tokio::time::timeout(super::serve::HEAD, told).await;
        let told =
            told.map_err(|_elapsed| Refusal(StatusCode::REQUEST_TIMEOUT, "no body came\n".to_owned()))?;
        let told =
            told.map_err(|_too_long| Refusal::bad("the body is no verbosity: it is too long\n"))?.to_bytes();
        let told = String::from_utf8_lossy(&told);
        let verbosity: u32 = told
            .trim()
            .parse()
            .map_err(|_no_number| Refusal::bad("the body is no verbosity: 0 and up are\n"))?;
        telemetry::set_verbosity(verbosity).map_err(|error| Refusal::failed(error.to_string()))?;
        tracing::info!(verbosity, "the log's verbosity was changed by a request to the node's API");
        Ok(text(StatusCode::OK, format!("successfully set klog.logging.verbosity to {verbosity}\n")))
    }

    /// `/debug/threads`: what the agent's threads used in a while.
    pub(super) async fn threads(&self, query: &str) -> Result<Reply, Refusal> {
        if !self.config.profiling {
            return Ok(disabled("profiling"));
        }
        let seconds = match parameters(query, "seconds").next() {
            None => WATCHED,
            Some(told) => told.parse().ok().filter(|seconds| *seconds <= WATCHED_MOST).ok_or_else(|| {
                Refusal::bad(format!("seconds is to be a whole number up to {WATCHED_MOST}\n"))
            })?,
        };
        let look = || async {
            let found = tokio::task::spawn_blocking(threads).await;
            found
                .map_err(|error| Refusal::failed(error.to_string()))?
                .map_err(|error| Refusal::failed(error.to_string()))
        };
        let before = look().await?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok(text(StatusCode::OK, table(&before, look().await?, seconds)))
    }

    /// `/debug/pprof/`: Go's profiles, which this is no program for.
    pub(super) fn no_profile(&self) -> Result<Reply, Refusal> {
        if !self.config.profiling {
            return Ok(disabled("profiling"));
        }
        let words = "nodectl is no Go program and has no such profile. /debug/threads?seconds=5 tells what its threads \
                     do, /metrics what it uses, and on the node `perf record -g -p $(pidof nodectl)` samples it.\n";
        Err(Refusal::not_found(words))
    }
}

fn disabled(what: &str) -> Reply {
    text(StatusCode::METHOD_NOT_ALLOWED, format!("{what} endpoint is disabled.\n"))
}

/// The threads as a table, who used most first. CPU times are in milliseconds.
fn table(before: &[Thread], mut now: Vec<Thread>, seconds: u64) -> String {
    let used: HashMap<u32, Duration> =
        before.iter().map(|thread| (thread.id, thread.user + thread.system)).collect();
    let lately = |thread: &Thread| {
        let all = thread.user + thread.system;
        all.saturating_sub(used.get(&thread.id).copied().unwrap_or_default())
    };
    now.sort_by_key(|thread| {
        (std::cmp::Reverse(lately(thread)), std::cmp::Reverse(thread.user + thread.system), thread.id)
    });
    let last = format!("IN {seconds} S");
    let mut out = format!(
        "{:>8}  {:<15}  {:<5}  {last:>8}  {:>9}  {:>9}  WAITS IN\n",
        "THREAD", "NAME", "STATE", "USER", "SYSTEM"
    );
    for thread in &now {
        let (lately, user, system) =
            (lately(thread).as_millis(), thread.user.as_millis(), thread.system.as_millis());
        // Into a text nothing fails.
        writeln!(
            out,
            "{:>8}  {:<15}  {:<5}  {lately:>8}  {user:>9}  {system:>9}  {}",
            thread.id, thread.name, thread.state, thread.waits_in
        )
        .ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_used_most_lately_comes_first() {
        let thread = |id: u32, name: &str, user: u64| Thread {
            id,
            name: name.to_owned(),
            state: 'S',
            user: Duration::from_millis(user),
            system: Duration::from_millis(10),
            waits_in: "ep_poll".to_owned(),
        };
        let before = [thread(1, "old", 9000), thread(2, "busy", 100)];
        let table =
            table(&before, vec![thread(1, "old", 9000), thread(2, "busy", 400), thread(3, "new", 40)], 5);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["THREAD", "NAME", "STATE", "IN", "5", "S", "USER", "SYSTEM", "WAITS", "IN"]);
        assert_eq!(rows[1], ["2", "busy", "S", "300", "400", "10", "ep_poll"]);
        assert_eq!(rows[2], ["3", "new", "S", "50", "40", "10", "ep_poll"]);
        assert_eq!(rows[3][1], "old");
    }
}
