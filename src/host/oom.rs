//! How willingly the kernel kills the agent itself when memory runs out.

use std::fs;

const FILE: &str = "/proc/self/oom_score_adj";

/// Sets the agent's own score (`oomScoreAdj`), from -1000 to 1000. A process that lacks the capability to be
/// killed later (`CAP_SYS_RESOURCE`) says so and goes on.
pub fn set_oom_score_adj(score: i32) {
    let now = fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if now != Some(score)
        && let Err(error) = fs::write(FILE, score.to_string())
    {
        tracing::warn!(score, "cannot set the agent's own oom_score_adj, going on without: {error}");
    }
}
