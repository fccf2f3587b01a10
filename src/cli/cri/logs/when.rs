//! `--since` and `--until`: how long ago, or a time, in all ways that crictl takes.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use crate::config::GoDuration;

/// Reads `42m` (so long before `now`), RFC 3339, a time or day without a zone (then the local one), or
/// seconds since 1970 with or without a fraction.
pub(super) fn when(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    if let Some(seconds) = seconds(text) {
        return seconds.ok_or_else(|| "it is out of range".to_owned());
    }
    if let Ok(duration) = GoDuration::parse(text) {
        let nanoseconds = duration.as_nanos();
        let ago = SignedDuration::from_nanos(nanoseconds);
        return now.checked_sub(ago).map_err(|error| error.to_string());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // `2026-01-02T15` is a time for Go and none for RFC 3339; a day may have a zone.
    let whole = match text.len() {
        13 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let (civil, zone_text) = match whole.strip_suffix('Z') {
        Some(day) => (day, Some(TimeZone::UTC)),
        None => (whole.as_str(), None),
    };
    let civil: Option<DateTime> = civil.parse().ok();
    let time = civil.and_then(|civil| civil.to_zoned(zone_text.unwrap_or_else(|| zone.clone())).ok());
    time.map(|time| time.timestamp()).ok_or_else(|| {
        "it is how long ago, as 42m, or a time, as 2026-01-02T15:04:05Z, 2026-01-02T15:04:05 or 2026-01-02"
            .to_owned()
    })
}

/// `1136073600` or `1136073600.000000001`; `Some(None)` for what is a number and no time.
#[allow(clippy::option_option, reason = "a number that is no time is another mistake than what is no number")]
fn seconds(text: &str) -> Option<Option<Timestamp>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse::<i32>().ok()?;
    Some(whole.parse::<i64>().ok().and_then(|seconds| Timestamp::new(seconds, nanoseconds).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_crictl_reads_them() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        for (text, expected) in [
            ("42m", "2026-01-02T11:18:00Z"),
            ("1h30m", "2026-01-02T10:30:00Z"),
            ("-10s", "2026-01-02T12:00:10Z"),
            ("2013-01-02T13:23:37.5Z", "2013-01-02T13:23:37.5Z"),
            ("2013-01-02T13:23:37+01:00", "2013-01-02T12:23:37Z"),
            ("2013-01-02T13:23:37", "2013-01-02T11:23:37Z"),
            ("2013-01-02T13:23", "2013-01-02T11:23:00Z"),
            ("2013-01-02T13", "2013-01-02T11:00:00Z"),
            ("2013-01-02", "2013-01-01T22:00:00Z"),
            ("2013-01-02Z", "2013-01-02T00:00:00Z"),
            ("1136073600", "2006-01-01T00:00:00Z"),
            ("1136073600.000000001", "2006-01-01T00:00:00.000000001Z"),
        ] {
            assert_eq!(when(text, now, &zone).unwrap().to_string(), expected, "{text}");
        }
        for wrong in
            ["", "yesterday", "42", "5 m", "2013-13-02", "1.", "99999999999999999999", "2013-01-02Z1"]
        {
            let read = when(wrong, now, &zone);
            assert!(read.is_err() || wrong == "42", "{wrong}: {read:?}");
        }
    }
}
