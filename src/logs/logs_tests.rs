//! Whole logs of several files, without a runtime.

use std::{fs, io::Write as _, path::Path};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn target(folder: &Path) -> Log {
    Log {
        id: String::new(),
        path: folder.join("0.log"),
        state: ContainerState::ContainerExited,
        ended_lately: false,
        name: "container x".to_owned(),
    }
}

/// What is printed of the log in a folder, and what is said of it.
fn read(folder: &Path, choice: Choice, tail: Option<u64>) -> (String, String, Vec<String>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let notes = print_all(&target(folder), choice, tail, (&mut out, &mut err)).unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), notes)
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    if name.ends_with(".gz") {
        let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    } else {
        fs::write(path, text).unwrap();
    }
}

fn rows(from: usize, to: usize) -> String {
    (from..to).map(|row| format!("2026-01-01T00:{:02}:{:02}Z stdout F {row}\n", row / 60, row % 60)).collect()
}

fn said(from: usize, to: usize) -> String {
    (from..to).map(|row| format!("{row}\n")).collect()
}

/// 0..100 in two compressed files, a rotated one and the log.
fn rotated() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "0.log.20260101-000001.gz", &rows(0, 30));
    write(folder.path(), "0.log.20260101-000002.gz", &rows(30, 60));
    write(folder.path(), "0.log.20260101-000003", &rows(60, 90));
    write(folder.path(), "0.log", &rows(90, 100));
    // None of these is of the log.
    write(folder.path(), "1.log", "2026-01-01T00:00:00Z stdout F other\n");
    write(folder.path(), "0.log.20260101-000004.tmp", "half");
    folder
}

fn time(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[test]
fn a_log_is_all_its_files() {
    let folder = rotated();
    assert_eq!(read(folder.path(), Choice::default(), None), (said(0, 100), String::new(), vec![]));
    for tail in [0, 1, 9, 10, 11, 40, 41, 69, 70, 71, 99, 100, 500] {
        let (out, _, notes) = read(folder.path(), Choice::default(), Some(tail));
        assert_eq!(
            (out, notes.len()),
            (said(100 - usize::try_from(tail).unwrap().min(100), 100), 0),
            "{tail}"
        );
    }
    for second in [0, 29, 30, 59, 89, 95, 99] {
        let since = time(&format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60));
        let choice = Choice { since, ..Choice::default() };
        assert_eq!(read(folder.path(), choice.clone(), None).0, said(second, 100), "{second}");
        let choice = Choice { until: since, ..Choice::default() };
        assert_eq!(read(folder.path(), choice.clone(), None).0, said(0, second + 1), "{second}");
        // The last ones of those.
        let expected = said((second + 1).saturating_sub(7), second + 1);
        assert_eq!(read(folder.path(), choice, Some(7)).0, expected, "{second}");
    }
    let choice = Choice { limit: Some(7), ..Choice::default() };
    assert_eq!(read(folder.path(), choice, Some(50)).0, "50\n51\n5");
}

#[test]
fn files_from_before_are_not_read_at_all() {
    let folder = rotated();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    // Damaged, which would be told if it were read.
    fs::write(folder.path().join("0.log.20260101-000001.gz"), "no gzip").unwrap();
    let file = fs::File::options().write(true).open(folder.path().join("0.log.20260101-000001.gz")).unwrap();
    file.set_modified(old).unwrap();
    let choice = Choice { since: time("2026-01-01T00:00:40Z"), ..Choice::default() };
    assert_eq!(read(folder.path(), choice, None), (said(40, 100), String::new(), vec![]));
    let (out, _, notes) = read(folder.path(), Choice::default(), None);
    assert_eq!((out, notes.len()), (said(30, 100), 1));
    assert!(notes[0].starts_with("0.log.20260101-000001.gz is damaged after 0 bytes"), "{notes:?}");
    assert_eq!(read(folder.path(), Choice::default(), Some(90)).0, said(30, 100));
}

#[test]
fn a_compressed_file_that_was_cut_gives_what_it_has() {
    let folder = rotated();
    let path = folder.path().join("0.log.20260101-000002.gz");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (out, _, notes) = read(folder.path(), Choice::default(), None);
    assert!(out.starts_with(&said(0, 30)) && out.ends_with(&said(60, 100)), "{out}");
    assert!(notes[0].contains("is damaged after"), "{notes:?}");
    let (out, ..) = read(folder.path(), Choice::default(), Some(40));
    assert_eq!(out, said(60, 100));
}

#[test]
fn the_log_itself_may_be_missing_in_the_middle_of_a_rotation() {
    let folder = rotated();
    fs::remove_file(folder.path().join("0.log")).unwrap();
    assert_eq!(read(folder.path(), Choice::default(), Some(5)).0, said(85, 90));
    fs::remove_file(folder.path().join("0.log.20260101-000003")).unwrap();
    assert_eq!(read(folder.path(), Choice::default(), Some(5)).0, said(55, 60));
    assert_eq!(read(folder.path(), Choice::default(), Some(0)).0, "");
}

#[test]
fn dockers_files_are_read_over_its_link() {
    let (folder, docker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let row = |text: &str, stream: &str| {
        let row = serde_json::json!({"log": text, "stream": stream, "time": "2026-01-01T00:00:00.5Z"});
        format!("{row}\n")
    };
    write(docker.path(), "c-json.log.2.gz", &row("a\n", "stdout"));
    write(docker.path(), "c-json.log.1", &(row("b\n", "stderr") + &row("c", "stdout")));
    write(docker.path(), "c-json.log", &(row("d\n", "stdout") + &row("e\n", "stdout")));
    std::os::unix::fs::symlink(docker.path().join("c-json.log"), folder.path().join("0.log")).unwrap();
    assert_eq!(read(folder.path(), Choice::default(), None), ("a\ncd\ne\n".into(), "b\n".into(), vec![]));
    assert_eq!(read(folder.path(), Choice::default(), Some(2)).0, "cd\ne\n");
    assert_eq!(read(folder.path(), Choice::default(), Some(3)), ("cd\ne\n".into(), "b\n".into(), vec![]));
}

#[test]
fn what_is_no_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |target: &Log| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        print_all(target, Choice::default(), None, (&mut out, &mut err)).err().unwrap().to_string()
    };
    let mut it = target(folder.path());
    assert!(fails(&it).starts_with("the log of container x is not there: "), "{}", fails(&it));
    it.state = ContainerState::ContainerCreated;
    assert!(fails(&it).starts_with("container x has not been started"), "{}", fails(&it));
    it.state = ContainerState::ContainerRunning;
    assert!(fails(&it).contains("`nodectl cri logs --reopen`"), "{}", fails(&it));
    nix::unistd::mkfifo(&it.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(fails(&it).contains("is not a regular file"), "{}", fails(&it));
    fs::remove_file(&it.path).unwrap();
    std::os::unix::fs::symlink("/nonexistent/json.log", &it.path).unwrap();
    assert!(fails(&it).contains("is a link to /nonexistent/json.log, which is not there"), "{}", fails(&it));
    it.path = folder.path().join("gone/0.log");
    assert!(fails(&it).starts_with("cannot read the log "), "{}", fails(&it));
    it.path = "/".into();
    assert!(fails(&it).starts_with("cannot read the log /"), "{}", fails(&it));
    it.path = folder.path().join("2.log");
    fs::write(&it.path, "[Sat] journal\nmore\n").unwrap();
    assert!(fails(&it).contains("is no line of a container's log"), "{}", fails(&it));
}

#[test]
fn attempts_before_have_logs_of_their_names() {
    let status = |path: &str, attempt| ContainerStatus {
        log_path: path.to_owned(),
        metadata: Some(crate::api::cri::ContainerMetadata { name: "x".to_owned(), attempt }),
        ..ContainerStatus::default()
    };
    let before = |path: &str, attempt| path_before(&status(path, attempt));
    assert_eq!(before("/var/log/pods/p/c/3.log", 3), Some("/var/log/pods/p/c/2.log".into()));
    assert_eq!(before("/var/log/pods/p/c/0.log", 0), None);
    assert_eq!(before("/var/log/pods/p/c/web.log", 1), None);
}

/// A record: its stream, whether its line goes on, and its text.
type Row = (bool, bool, String);

/// What the last lines are, reckoned from all records at once. Per stream.
fn model(rows: &[Row], tail: usize) -> [String; 2] {
    // Each line with the place of its last record; its text; whether it is whole.
    let mut lines: Vec<(usize, usize, String)> = Vec::new();
    let mut open: [Option<(usize, String)>; 2] = [None, None];
    for (place, (err, partial, text)) in rows.iter().enumerate() {
        let stream = usize::from(*err);
        let (_, before) = open[stream].take().unwrap_or_default();
        if *partial {
            open[stream] = Some((place, before + text));
        } else {
            lines.push((place, stream, before + text + "\n"));
        }
    }
    for (stream, line) in open.into_iter().enumerate() {
        lines.extend(line.map(|(place, text)| (place, stream, text)));
    }
    lines.sort();
    let mut out = [String::new(), String::new()];
    for (_, stream, text) in lines.iter().skip(lines.len().saturating_sub(tail)) {
        out[*stream].push_str(text);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_log_cut_into_any_files_has_its_last_lines(
        rows in proptest::collection::vec((any::<bool>(), any::<bool>(), "[a-z]{0,60}"), 0..40),
        cuts in proptest::collection::vec((0usize..40, any::<bool>()), 0..5),
        tail in 0usize..45,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let text = |rows: &[Row]| -> String {
            let row = |(err, partial, text): &Row| {
                let stream = if *err { "stderr" } else { "stdout" };
                format!("2026-01-01T00:00:00Z {stream} {} {text}\n", if *partial { 'P' } else { 'F' })
            };
            rows.iter().map(row).collect()
        };
        let mut cuts: Vec<(usize, bool)> =
            cuts.into_iter().map(|(place, packed)| (place.min(rows.len()), packed)).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for (number, (place, packed)) in cuts.into_iter().enumerate() {
            let name = format!("0.log.20260101-00000{number}{}", if packed { ".gz" } else { "" });
            write(folder.path(), &name, &text(&rows[from..place]));
            from = place;
        }
        write(folder.path(), "0.log", &text(&rows[from..]));
        let expected = model(&rows, tail);
        let (out, err, notes) = read(folder.path(), Choice::default(), Some(u64::try_from(tail).unwrap()));
        prop_assert_eq!(&[out, err], &expected);
        prop_assert!(notes.is_empty());
        let expected = model(&rows, usize::MAX);
        let (out, err, _) = read(folder.path(), Choice::default(), None);
        prop_assert_eq!(&[out, err], &expected);
    }
}
