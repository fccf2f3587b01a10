//! How the files of one container's log are named, kept and removed when it is rotated: kubelet's rules
//! (pkg/kubelet/logs/container_log_manager.go), so that log collectors find what they know.
//!
//! The runtime writes `0.log`. Rotated, it becomes `0.log.20260102-150405`; the rotation after that
//! compresses it to `0.log.20260102-150405.gz`, by way of a `.tmp` of the same name. So the last rotated file
//! is never compressed: the runtime may still write its last lines and a collector may be at reading it. Two
//! things differ from kubelet. Files of other names are left alone. And a new name always sorts behind those
//! that are there, also when the clock was put back: the order of names is the order of age.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::{ToSpan as _, civil::DateTime};

/// The time in a rotated log's name, in the node's own time zone.
const STAMP: &str = "%Y%m%d-%H%M%S";
const STAMP_LEN: usize = 15;
const COMPRESSED: &str = ".gz";
const HALF_MADE: &str = ".tmp";

/// What is to be done with a log's older files before the log itself is renamed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Files to remove, the oldest first.
    pub remove: Vec<String>,
    /// Files to compress, the oldest first.
    pub compress: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Compressed,
    HalfMade,
}

/// The time and form in a rotated file's name; `None` for what is no rotated file of this log.
fn parse<'n>(log: &str, name: &'n str) -> Option<(&'n str, Form)> {
    let rest = name.strip_prefix(log)?.strip_prefix('.')?;
    let (stamp, suffix) = rest.split_at_checked(STAMP_LEN)?;
    let form = match suffix {
        "" => Form::Plain,
        COMPRESSED => Form::Compressed,
        HALF_MADE => Form::HalfMade,
        _ => return None,
    };
    DateTime::strptime(STAMP, stamp).ok().map(|_| (stamp, form))
}

/// What to do with the older files of a log that is about to be rotated, of which `max_files` may be there
/// afterwards, the one being written and the one rotated now among them. At least those two are kept.
pub fn before_rotation(log: &str, names: &[String], max_files: u32) -> Rotation {
    sort_out(log, names, max_files.saturating_sub(2))
}

/// What an agent that was killed in the middle of a rotation has left: half-made files, those that were
/// compressed already, and what is too many beside the log itself.
pub fn leftovers(log: &str, names: &[String], max_files: u32) -> Vec<String> {
    sort_out(log, names, max_files.saturating_sub(1)).remove
}

fn sort_out(log: &str, names: &[String], keep: u32) -> Rotation {
    let found = |wanted: Form| -> BTreeSet<&str> {
        let ours = names.iter().filter_map(|name| parse(log, name));
        ours.filter(|(_, form)| *form == wanted).map(|(stamp, _)| stamp).collect()
    };
    let (plain, compressed, half_made) = (found(Form::Plain), found(Form::Compressed), found(Form::HalfMade));
    let name = |stamp: &str, suffix: &str| format!("{log}.{stamp}{suffix}");
    let mut rotation = Rotation::default();
    rotation.remove.extend(half_made.iter().map(|stamp| name(stamp, HALF_MADE)));
    rotation.remove.extend(plain.intersection(&compressed).map(|stamp| name(stamp, "")));
    let all: Vec<&str> = plain.union(&compressed).copied().collect();
    let excess = all.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for (place, stamp) in all.into_iter().enumerate() {
        let is_compressed = compressed.contains(stamp);
        let file = name(stamp, if is_compressed { COMPRESSED } else { "" });
        if place < excess {
            rotation.remove.push(file);
        } else if !is_compressed {
            rotation.compress.push(file);
        }
    }
    rotation
}

/// A rotated file, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedFile {
    /// Its name.
    pub name: String,
    /// Whether it is compressed with gzip.
    pub packed: bool,
}

/// The rotated files of a log, the oldest first. Of one that is there in both forms, as a crash leaves it, the
/// compressed one, which is whole. Docker's own files are read too: `LOG.1` is its newest (`json-file` with
/// `max-file`).
pub fn by_age(log: &str, names: &[String]) -> Vec<RotatedFile> {
    let mut found: BTreeMap<(Reverse<u32>, &str), bool> = BTreeMap::new();
    for name in names {
        let place = match parse(log, name) {
            Some((stamp, Form::Plain)) => Some(((Reverse(0), stamp), false)),
            Some((stamp, Form::Compressed)) => Some(((Reverse(0), stamp), true)),
            Some((_, Form::HalfMade)) => None,
            None => numbered(log, name).map(|(number, text, packed)| ((Reverse(number), text), packed)),
        };
        if let Some((place, packed)) = place {
            *found.entry(place).or_default() |= packed;
        }
    }
    let file = |((_, suffix), packed): ((Reverse<u32>, &str), bool)| RotatedFile {
        name: format!("{log}.{suffix}{}", if packed { COMPRESSED } else { "" }),
        packed,
    };
    found.into_iter().map(file).collect()
}

/// The number in the name of a file that Docker rotated.
fn numbered<'n>(log: &str, name: &'n str) -> Option<(u32, &'n str, bool)> {
    let rest = name.strip_prefix(log)?.strip_prefix('.')?;
    let (text, packed) = match rest.strip_suffix(COMPRESSED) {
        Some(text) => (text, true),
        None => (rest, false),
    };
    let number = text.parse::<u32>().ok().filter(|number| *number > 0 && number.to_string() == text)?;
    Some((number, text, packed))
}

/// The name that a log gets when it is rotated now: of this second, or of the first one that no older file
/// has.
pub fn rotated_name(log: &str, names: &[String], now: DateTime) -> String {
    let newest = names.iter().filter_map(|name| parse(log, name)).map(|(stamp, _)| stamp).max();
    let free = newest
        .and_then(|stamp| DateTime::strptime(STAMP, stamp).ok())
        .and_then(|newest| newest.checked_add(1.second()).ok());
    let at = free.map_or(now, |free| free.max(now));
    format!("{log}.{}", at.strftime(STAMP))
}

/// The name of the compressed file, and the one it has until it is whole.
pub fn compressed_names(rotated: &str) -> (String, String) {
    (format!("{rotated}{COMPRESSED}"), format!("{rotated}{HALF_MADE}"))
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;
    use proptest::prelude::*;

    use super::*;

    fn names(suffixes: &[&str]) -> Vec<String> {
        suffixes.iter().map(|suffix| format!("0.log{suffix}")).collect()
    }

    #[test]
    fn the_oldest_go_and_the_last_rotated_is_compressed() {
        let all = names(&[
            "",
            ".20260101-000003",
            ".20260101-000002.gz",
            ".20260101-000001.gz",
            ".20260101-000000.gz",
        ]);
        let rotation = before_rotation("0.log", &all, 5);
        assert_eq!(rotation.remove, names(&[".20260101-000000.gz"]));
        assert_eq!(rotation.compress, names(&[".20260101-000003"]));
        assert_eq!(leftovers("0.log", &all, 5), names(&[]));
        assert_eq!(leftovers("0.log", &all, 4), names(&[".20260101-000000.gz"]));
        // With two files there is none between the present one and the one that is rotated now.
        let rotation = before_rotation("0.log", &all, 2);
        assert_eq!((rotation.remove.len(), rotation.compress.len()), (4, 0));
    }

    #[test]
    fn what_a_crash_left_goes() {
        let all = names(&[
            ".20260101-000001",
            ".20260101-000001.gz",
            ".20260101-000002.tmp",
            ".20260101-000002",
            "",
        ]);
        let rotation = before_rotation("0.log", &all, 5);
        assert_eq!(rotation.remove, names(&[".20260101-000002.tmp", ".20260101-000001"]));
        assert_eq!(rotation.compress, names(&[".20260101-000002"]));
        assert_eq!(leftovers("0.log", &all, 5), rotation.remove);
    }

    #[test]
    fn other_files_are_left_alone() {
        let all = names(&[".backup", ".20260101-000000.bz2", ".20261301-000000", "x.20260101-000000", ".é"]);
        assert_eq!(before_rotation("0.log", &all, 2), Rotation::default());
        assert_eq!(before_rotation("1.log", &names(&[".20260101-000000"]), 2), Rotation::default());
    }

    #[test]
    fn files_to_read_are_ordered_by_age() {
        let ordered = |suffixes: &[&str]| -> Vec<(String, bool)> {
            by_age("0.log", &names(suffixes)).into_iter().map(|file| (file.name, file.packed)).collect()
        };
        assert_eq!(
            ordered(&[
                "",
                ".20260101-000003",
                ".20260101-000001.gz",
                ".20260101-000002.gz",
                ".20260101-000002",
                ".20260101-000003.tmp",
                ".backup",
                ".20269999-000003",
            ]),
            [
                ("0.log.20260101-000001.gz".to_owned(), true),
                ("0.log.20260101-000002.gz".to_owned(), true),
                ("0.log.20260101-000003".to_owned(), false),
            ]
        );
        assert_eq!(
            ordered(&[".2.gz", ".1", ".10.gz", ".0", ".01", ".x", ".99999999999"]),
            [
                ("0.log.10.gz".to_owned(), true),
                ("0.log.2.gz".to_owned(), true),
                ("0.log.1".to_owned(), false),
            ]
        );
    }

    #[test]
    fn a_new_name_comes_after_all_others() {
        let now = datetime(2026, 10, 25, 2, 30, 0, 0);
        assert_eq!(rotated_name("0.log", &[], now), "0.log.20261025-023000");
        let older = names(&[".20261025-022959.gz"]);
        assert_eq!(rotated_name("0.log", &older, now), "0.log.20261025-023000");
        // The same second, and an hour that comes twice.
        for newest in ["20261025-023000", "20261025-025959.gz", "20261025-025959.tmp"] {
            let name = rotated_name("0.log", &names(&[&format!(".{newest}")]), now);
            assert!(*name > *format!("0.log.{}", &newest[..15]) && parse("0.log", &name).is_some(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn rotating_keeps_the_newest_within_the_number(
            stamps in proptest::collection::btree_map(0i64..40, 0usize..4, 0..12),
            max in 2u32..7,
        ) {
            let at = |second: i64| datetime(2026, 1, 1, 0, 0, 0, 0).checked_add(second.seconds()).unwrap();
            let mut all = vec!["0.log".to_owned()];
            for (second, form) in &stamps {
                let name = format!("0.log.{}", at(*second).strftime(STAMP));
                let forms: &[&str] = [&[""][..], &[".gz"], &["", ".gz"], &["", ".tmp"]][*form];
                all.extend(forms.iter().map(|suffix| format!("{name}{suffix}")));
            }
            let rotation = before_rotation("0.log", &all, max);
            let new = rotated_name("0.log", &all, at(20));
            all.retain(|name| !rotation.remove.contains(name));
            for name in &mut all {
                if rotation.compress.contains(name) {
                    *name = compressed_names(name).0;
                } else if name == "0.log" {
                    name.clone_from(&new);
                }
            }
            all.push("0.log".to_owned());
            let kept = stamps.len().min(max as usize - 2);
            prop_assert_eq!(all.len(), kept + 2);
            prop_assert!(all.iter().all(|name| !name.ends_with(HALF_MADE)));
            prop_assert!(all.iter().all(|name| *name == "0.log" || *name == new || name.ends_with(COMPRESSED)));
            prop_assert!(all.iter().all(|name| *name <= new));
            for (second, _) in stamps.iter().rev().take(kept) {
                let name = format!("0.log.{}", at(*second).strftime(STAMP));
                prop_assert!(all.iter().any(|file| file.starts_with(&name)));
            }
            prop_assert_eq!(leftovers("0.log", &all, max), Vec::<String>::new());
        }
    }
}
