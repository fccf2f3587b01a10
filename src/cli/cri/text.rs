//! Words of tables: ages, sizes, shortened ids and states, as crictl writes them.

use jiff::{Timestamp, tz::TimeZone};

/// Letters of a shortened id.
const SHORT: usize = 13;

/// An id without its `sha256:`, cut to what tables show.
pub(super) fn short_id(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..SHORT).unwrap_or(id)
}

/// [`short_id`] unless all of it is wanted.
pub(super) fn shown_id(id: &str, whole: bool) -> &str {
    if whole { id } else { short_id(id) }
}

/// How long ago a time in nanoseconds since the epoch was: `About a minute ago`.
pub(super) fn ago(nanoseconds: i64, now: Timestamp) -> String {
    let seconds = i64::try_from((now.as_nanosecond() - i128::from(nanoseconds)) / 1_000_000_000);
    format!("{} ago", human(seconds.unwrap_or(0).max(0)))
}

fn human(seconds: i64) -> String {
    const DAY: i64 = 24;
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 2 * DAY => format!("{hours} hours"),
        () if hours < 14 * DAY => format!("{} days", hours / DAY),
        () if hours < 60 * DAY => format!("{} weeks", hours / DAY / 7),
        () if hours < 730 * DAY => format!("{} months", hours / DAY / 30),
        () => format!("{} years", hours / DAY / 365),
    }
}

/// Bytes in thousands with three digits: `742kB`, `1.15MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut scale, mut unit) = (1_u64, 0);
    // The next unit begins where three digits would round up to it.
    while unit + 1 < UNITS.len() && bytes >= scale.saturating_mul(1000) - scale / 2 {
        scale = scale.saturating_mul(1000);
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes}B");
    }
    // In thousandths, which is exact enough for three digits and needs no floats.
    let thousandths = u128::from(bytes) * 1000 / u128::from(scale);
    let digits = match thousandths {
        0..10_000 => 2,
        10_000..100_000 => 1,
        _ => 0,
    };
    let step = 10_u128.pow(3 - digits);
    let rounded = (thousandths + step / 2) / step * step;
    let text = format!("{}.{:03}", rounded / 1000, rounded % 1000);
    format!("{}{}", text.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

/// A time as `inspect` writes it: RFC 3339 in the local zone; Go's zero time for one that is not yet.
pub(super) fn time(nanoseconds: Option<i64>) -> String {
    let Some(time) = nanoseconds.and_then(|n| Timestamp::from_nanosecond(n.into()).ok()) else {
        return "0001-01-01T00:00:00Z".to_owned();
    };
    let offset = TimeZone::system().to_offset(time);
    if offset.seconds() == 0 { time.to_string() } else { time.display_with_offset(offset).to_string() }
}

/// `CONTAINER_RUNNING` as `Running`.
pub(super) fn container_state(state: i32) -> &'static str {
    use crate::api::cri::ContainerState as State;
    match State::try_from(state) {
        Ok(State::ContainerCreated) => "Created",
        Ok(State::ContainerRunning) => "Running",
        Ok(State::ContainerExited) => "Exited",
        _ => "Unknown",
    }
}

/// `SANDBOX_NOTREADY` as `NotReady`.
pub(super) fn pod_state(state: i32) -> &'static str {
    use crate::api::cri::PodSandboxState as State;
    match State::try_from(state) {
        Ok(State::SandboxReady) => "Ready",
        Ok(State::SandboxNotready) => "NotReady",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_crictl() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86_400, "13 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(ago(995_000_000_000, now), "5 seconds ago");
        assert_eq!(ago(i64::MAX, now), "Less than a second ago");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (742_000, "742kB"),
            (999_499, "999kB"),
            (999_500, "1MB"),
            (1_150_000, "1.15MB"),
            (2_496_000, "2.5MB"),
            (31_470_000, "31.5MB"),
            (5_000_000_000, "5GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn ids_and_times() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789abc");
        assert_eq!(short_id("abc"), "abc");
        assert_eq!(shown_id("sha256:0123456789abcdef", true), "sha256:0123456789abcdef");
        assert_eq!(time(None), "0001-01-01T00:00:00Z");
        let some = time(Some(1_700_000_000_120_000_000));
        assert!(some.starts_with("2023-11-1") && some.contains(":20.12"), "{some}");
    }
}
