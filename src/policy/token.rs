//! When a pod's token is to be asked for anew (pkg/kubelet/token/token_manager.go).

use jiff::{SignedDuration, Timestamp};

/// Of its life a token is used so much.
const USED_PERCENT: i64 = 80;
/// And no longer than this.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// So much earlier at most, in seconds, so that the tokens of a node are not all asked for at once.
pub const JITTER_SECONDS: i64 = 10;

/// When another token is asked for, of one that is good until `expires` and has a life of `seconds`, `jitter` seconds
/// earlier.
pub fn refresh_at(expires: Timestamp, seconds: i64, jitter: i64) -> Timestamp {
    let life = SignedDuration::from_secs(seconds.max(0));
    let used = SignedDuration::from_secs(seconds.max(0).saturating_mul(USED_PERCENT) / 100).min(LONGEST);
    let early = SignedDuration::from_secs(jitter);
    expires.checked_sub(life - used + early).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_its_life_or_a_day() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        assert_eq!(refresh_at(at(600), 600, 0), at(480));
        assert_eq!(refresh_at(at(600), 600, 10), at(470));
        assert_eq!(refresh_at(at(3607), 3607, 0), at(2885));
        assert_eq!(refresh_at(at(31_536_000), 31_536_000, 3), at(86_397));
    }
}
