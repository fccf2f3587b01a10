//! Lines from behind, whatever the blocks.

use std::io::{Seek as _, Write as _};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

fn plain(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn packed(bytes: &[u8]) -> File {
    let mut encoder = GzEncoder::new(tempfile::tempfile().unwrap(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    let mut file = encoder.finish().unwrap();
    file.rewind().unwrap();
    file
}

fn all(mut source: impl Backwards) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let length = source.length().unwrap();
    let ended = lines(source, length, |at, line| {
        found.push((at, line.to_vec()));
        ControlFlow::Continue(())
    });
    assert!(ended.unwrap().is_continue());
    found.reverse();
    found
}

fn expected(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut at = 0;
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let begin = at;
            at += u64::try_from(line.len()).unwrap();
            (begin, line.strip_suffix(b"\n").unwrap_or(line).to_vec())
        })
        .collect()
}

proptest! {
    #[test]
    fn lines_from_behind_are_all_lines(
        lines in proptest::collection::vec((0usize..200, any::<bool>()), 0..20),
        ends in any::<bool>(),
    ) {
        let mut text = Vec::new();
        for (length, odd) in &lines {
            text.extend(std::iter::repeat_n(if *odd { b'x' } else { b'y' }, *length));
            text.push(b'\n');
        }
        if !ends {
            text.extend(b"more");
        }
        let (plain, packed) = (plain(&text), packed(&text));
        prop_assert_eq!(all(&plain), expected(&text));
        prop_assert_eq!(all(Packed::new(&packed)), expected(&text));
    }

    #[test]
    fn nothing_that_is_wanted_comes_before_the_begin(
        steps in proptest::collection::vec((0i64..40, 0usize..100), 1..60),
        since in 0i64..1500,
    ) {
        let (mut text, mut second, mut wanted) = (Vec::new(), 0, None);
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let time = |second: i64| begin + SignedDuration::from_secs(second);
        for (step, length) in steps {
            second += step;
            if second >= since {
                wanted.get_or_insert(u64::try_from(text.len()).unwrap());
            }
            text.extend(format!("{} stdout F {}\n", time(second), "x".repeat(length)).bytes());
        }
        let file = plain(&text);
        let at = begin_of(&file, time(since)).unwrap();
        prop_assert!(at <= wanted.unwrap_or(u64::MAX));
        prop_assert!(at == 0 || text[usize::try_from(at).unwrap() - 1] == b'\n');
    }
}

#[test]
fn what_is_old_is_not_read() {
    let old = "2026-01-01T00:00:00Z stdout F old\n".repeat(1000);
    let file = plain(format!("{old}2026-01-01T01:00:00Z stdout F new\n").as_bytes());
    let at = begin_of(&file, "2026-01-01T00:59:00Z".parse().unwrap()).unwrap();
    assert!(at > 33_000, "{at}");
}

#[test]
fn a_long_line_takes_no_memory_from_behind() {
    let text = format!("short\n2026-01-01T00:00:00Z stdout F {}\nlast\n", "x".repeat(MAX_JSON * 2));
    let found = all(&plain(text.as_bytes()));
    assert_eq!((found.len(), found[1].0, found[1].1.len()), (3, 6, MAX_JSON));
    assert!(found[1].1.starts_with(b"2026-01-01T00:00:00Z stdout F xxx") && found[2].1 == b"last");
}
