//! The records of a container's log, read as they come: CRI's (`TIME STREAM TAGS TEXT`, one a line) and
//! Docker's JSON, which cri-dockerd leaves where it is. As kubelet reads them
//! (k8s.io/cri-client/pkg/logs), but a text is passed on in pieces, so that its length costs no memory.

use std::borrow::Cow;

use jiff::{Timestamp, fmt::temporal::DateTimeParser};
use memchr::memchr;
use serde::Deserialize;

/// What stands before a text takes some 45 bytes; a longer one is damaged.
const MAX_HEAD: usize = 256;
/// Docker cuts texts at 16 KiB, of which JSON makes 96 KiB at worst.
pub(super) const MAX_JSON: usize = 128 << 10;

static TIMES: DateTimeParser = DateTimeParser::new();

/// Where a container said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// What is known of a record before its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The byte of the file at which it begins.
    pub(super) at: u64,
    pub(super) stream: Stream,
    /// The container's line goes on in the stream's next record.
    pub(super) partial: bool,
    pub(super) time: Timestamp,
    /// The time as it is written.
    pub(super) stamp: Cow<'a, str>,
}

/// What a file is made of, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Begin(Record<'a>),
    /// A part of the text, of the record that began before it.
    Text(Stream, &'a [u8]),
    End(Stream),
    /// The file ended in the text.
    Torn(Stream),
    /// A line that is in neither format, and the byte at which it begins.
    Damaged(u64),
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Text(Stream),
    Json,
    Damaged,
}

/// Takes a file in any pieces and gives its records.
#[derive(Debug, Default)]
pub(super) struct Parser {
    state: State,
    /// The byte of the file that comes next, and that at which the present line began.
    at: u64,
    begun: u64,
    /// What is kept of the present line: its head, or all of it if it is JSON.
    kept: Vec<u8>,
    spaces: usize,
}

impl Parser {
    /// One that begins at a byte of the file, where a line begins.
    pub(super) fn from(at: u64) -> Self {
        Self { at, begun: at, ..Self::default() }
    }

    /// Takes the next bytes. An error of `sink` is passed on; nothing more can be read then.
    pub(super) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Head => self.head(bytes, sink)?,
                State::Json => self.json(bytes, sink)?,
                State::Text(stream) => match memchr(b'\n', bytes) {
                    Some(end) => {
                        if end > 0 {
                            sink(Piece::Text(stream, &bytes[..end]))?;
                        }
                        sink(Piece::End(stream))?;
                        self.state = State::Head;
                        end + 1
                    }
                    None => {
                        sink(Piece::Text(stream, bytes))?;
                        bytes.len()
                    }
                },
                State::Damaged => match memchr(b'\n', bytes) {
                    Some(end) => {
                        self.state = State::Head;
                        end + 1
                    }
                    None => bytes.len(),
                },
            };
            self.at += u64::try_from(taken).unwrap_or(0);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The file has ended, or was cut: what comes next begins at `at`.
    pub(super) fn finish<E>(
        &mut self,
        at: u64,
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.state {
            State::Text(stream) => sink(Piece::Torn(stream))?,
            State::Json => self.whole_json(sink)?,
            State::Head if !self.kept.is_empty() => sink(Piece::Damaged(self.begun))?,
            State::Head | State::Damaged => {}
        }
        *self = Self::from(at);
        Ok(())
    }

    /// Takes bytes of what stands before the text.
    fn head<E>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        if self.kept.is_empty() {
            self.spaces = 0;
            self.begun = self.at;
            match bytes.first() {
                // A machine that lost power leaves them, and so does who cuts a file that is written to.
                Some(0) => return Ok(bytes.iter().take_while(|byte| **byte == 0).count()),
                Some(b'{') => {
                    self.state = State::Json;
                    return Ok(0);
                }
                _ => {}
            }
        }
        for (place, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => {
                    self.kept.clear();
                    sink(Piece::Damaged(self.begun))?;
                    return Ok(place + 1);
                }
                b' ' if self.spaces == 2 => {
                    self.state = match head(&self.kept, self.begun) {
                        Some(record) => {
                            let stream = record.stream;
                            sink(Piece::Begin(record))?;
                            State::Text(stream)
                        }
                        None => {
                            sink(Piece::Damaged(self.begun))?;
                            State::Damaged
                        }
                    };
                    self.kept.clear();
                    return Ok(place + 1);
                }
                _ if self.kept.len() == MAX_HEAD => {
                    self.kept.clear();
                    self.state = State::Damaged;
                    sink(Piece::Damaged(self.begun))?;
                    return Ok(place);
                }
                byte => {
                    self.spaces += usize::from(*byte == b' ');
                    self.kept.push(*byte);
                }
            }
        }
        Ok(bytes.len())
    }

    fn json<E>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let end = memchr(b'\n', bytes);
        let line = &bytes[..end.unwrap_or(bytes.len())];
        if self.kept.len() + line.len() > MAX_JSON {
            self.kept = Vec::new();
            self.state = State::Damaged;
            sink(Piece::Damaged(self.begun))?;
            return Ok(line.len());
        }
        self.kept.extend_from_slice(line);
        if end.is_some() {
            self.whole_json(sink)?;
            self.state = State::Head;
        }
        Ok(line.len() + usize::from(end.is_some()))
    }

    fn whole_json<E>(&mut self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        match json(&self.kept, self.begun) {
            Some((record, text)) => {
                let stream = record.stream;
                sink(Piece::Begin(record))?;
                if !text.is_empty() {
                    sink(Piece::Text(stream, text.as_bytes()))?;
                }
                sink(Piece::End(stream))?;
            }
            None => sink(Piece::Damaged(self.begun))?,
        }
        self.kept.clear();
        Ok(())
    }
}

/// What stands before a text, of which `head` is all but the last space.
fn head(head: &[u8], at: u64) -> Option<Record<'_>> {
    let mut parts = head.split(|byte| *byte == b' ');
    let (stamp, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let time = TIMES.parse_timestamp(stamp).ok()?;
    // More tags may come to be, with colons between.
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some(Record { at, stream, partial, time, stamp: Cow::Borrowed(str::from_utf8(stamp).ok()?) })
}

fn json(line: &[u8], at: u64) -> Option<(Record<'_>, Cow<'_, str>)> {
    let Json { log, stream, time: stamp } = serde_json::from_slice(line).ok()?;
    let stream = match stream.as_ref() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let time = TIMES.parse_timestamp(stamp.as_bytes()).ok()?;
    let whole = log.strip_suffix('\n').map(str::len);
    let text = match (whole, log) {
        (Some(length), Cow::Borrowed(log)) => Cow::Borrowed(&log[..length]),
        (Some(length), Cow::Owned(mut log)) => {
            log.truncate(length);
            Cow::Owned(log)
        }
        (None, log) => log,
    };
    Some((Record { at, stream, partial: whole.is_none(), time, stamp }, text))
}

/// The record that a line begins, of which the first [`MAX_JSON`] bytes are given.
pub(super) fn record(line: &[u8], at: u64) -> Option<Record<'_>> {
    let zeros = line.iter().take_while(|byte| **byte == 0).count();
    let (line, at) = (&line[zeros..], at + u64::try_from(zeros).unwrap_or(0));
    if line.first() == Some(&b'{') {
        return json(line, at).map(|(record, _)| record);
    }
    let mut spaces = line.iter().take(MAX_HEAD + 1).enumerate().filter(|(_, byte)| **byte == b' ');
    let (end, _) = spaces.nth(2)?;
    head(&line[..end], at)
}

/// A time with nine digits after the point, as crictl prints it, whatever the runtime wrote.
pub(super) fn fixed(stamp: &str) -> String {
    let zone = stamp.rfind(['Z', 'z', '+', '-']).filter(|place| *place > 10).unwrap_or(stamp.len());
    let (time, zone) = stamp.split_at(zone);
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let zone = if zone == "+00:00" { "Z" } else { zone };
    let fraction = fraction.get(..9).unwrap_or(fraction);
    format!("{whole}.{fraction:0<9}{zone}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records with their texts whole; a damaged line is `?`, a torn one ends in `~`.
    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            match piece {
                Piece::Begin(record) => {
                    let tag = if record.partial { 'P' } else { 'F' };
                    let stamp = fixed(&record.stamp);
                    all.push(format!("{} {:?}{tag} {stamp} ", record.at, record.stream).into_bytes());
                }
                Piece::Text(_, text) => all.last_mut().unwrap().extend_from_slice(text),
                Piece::End(_) => {}
                Piece::Torn(_) => all.last_mut().unwrap().push(b'~'),
                Piece::Damaged(at) => all.push(format!("{at} ?").into_bytes()),
            }
            Ok::<(), ()>(())
        };
        let mut parser = Parser::default();
        for piece in pieces {
            parser.feed(piece, &mut sink).unwrap();
        }
        parser.finish(0, &mut sink).unwrap();
        all.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect()
    }

    const T: &str = "2026-01-02T03:04:05.6Z";

    #[test]
    fn records_are_read() {
        let log = format!(
            "{T} stdout F hello world\n{T} stderr P:x part\n{T} stdout F \n\0\0{T} stdout F after zeros\n"
        );
        assert_eq!(
            read(&[log.as_bytes()]),
            [
                "0 StdoutF 2026-01-02T03:04:05.600000000Z hello world",
                "44 StderrP 2026-01-02T03:04:05.600000000Z part",
                "83 StdoutF 2026-01-02T03:04:05.600000000Z ",
                "118 StdoutF 2026-01-02T03:04:05.600000000Z after zeros",
            ]
        );
    }

    #[test]
    fn what_is_in_no_format_is_passed_over() {
        let good = format!("{T} stdout F x\n");
        for bad in [
            "\n",
            "garbage\n",
            "a b c d e\n",
            "2026-01-02T03:04:05Z stdout F\n",
            "2026-01-02T03:04:05Z stdlog F x\n",
            "2026-13-02T03:04:05Z stdout F x\n",
            "{\"log\":\"x\"}\n",
            "{\"log\":\"x\",\"stream\":\"stdout\",\"time\":\"now\"}\n",
            "{ no json\n",
        ] {
            let log = format!("{good}{bad}{good}");
            let all = read(&[log.as_bytes()]);
            assert_eq!((all.len(), all[1].as_str()), (3, "34 ?"), "{bad:?}: {all:?}");
        }
        let long = format!("{}\n{good}", "x".repeat(1000));
        assert_eq!(read(&[long.as_bytes()]).len(), 2);
        let long = format!("{{{}\n{good}", "x".repeat(MAX_JSON));
        assert_eq!(read(&[long.as_bytes()]).len(), 2);
        assert_eq!(read(&[b"\xff\xfe stdout F x\n"]), ["0 ?"]);
    }

    #[test]
    fn a_file_that_ends_in_a_record_is_torn() {
        assert_eq!(
            read(&[format!("{T} stdout F hel").as_bytes()]),
            ["0 StdoutF 2026-01-02T03:04:05.600000000Z hel~"]
        );
        assert_eq!(read(&[format!("{T} stdo").as_bytes()]), ["0 ?"]);
        assert_eq!(read(&[b"\0\0\0"]), [""; 0]);
    }

    #[test]
    fn dockers_json_is_read() {
        let log = "{\"log\":\"say \\\"hi\\\"\\n\",\"stream\":\"stdout\",\"time\":\"2016-10-20T18:39:20.5Z\"}\n\
                   {\"log\":\"cut\",\"stream\":\"stderr\",\"time\":\"2016-10-20T18:39:20Z\"}\n\
                   {\"log\":\"\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"b\"},\"time\":\"2016-10-20T18:39:20Z\"}";
        assert_eq!(
            read(&[log.as_bytes()]),
            [
                "0 StdoutF 2016-10-20T18:39:20.500000000Z say \"hi\"",
                "73 StderrP 2016-10-20T18:39:20.000000000Z cut",
                "135 StdoutF 2016-10-20T18:39:20.000000000Z ",
            ]
        );
    }

    #[test]
    fn times_have_nine_digits_and_their_own_zone() {
        for (stamp, expected) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000000Z"),
            ("2026-01-02T03:04:05.12+02:00", "2026-01-02T03:04:05.120000000+02:00"),
            ("2026-01-02T03:04:05.123456789-07:00", "2026-01-02T03:04:05.123456789-07:00"),
            ("2026-01-02T03:04:05.5+00:00", "2026-01-02T03:04:05.500000000Z"),
        ] {
            assert_eq!(fixed(stamp), expected);
        }
    }

    proptest! {
        #[test]
        fn how_a_file_is_cut_into_pieces_does_not_matter(
            lines in proptest::collection::vec((any::<bool>(), any::<bool>(), "[ -~\u{e9}]{0,40}", 0..9), 0..12),
            cuts in proptest::collection::vec(0usize..600, 0..6),
        ) {
            let mut log = Vec::new();
            for (out, partial, text, kind) in &lines {
                let stream = if *out { "stdout" } else { "stderr" };
                let tag = if *partial { 'P' } else { 'F' };
                match kind {
                    0 => log.extend(format!("{text}\n").bytes()),
                    1 => log.extend(
                        serde_json::json!({ "log": text, "stream": stream, "time": T }).to_string().bytes().chain(*b"\n"),
                    ),
                    _ => log.extend(format!("{T} {stream} {tag} {text}\n").bytes()),
                }
            }
            let whole = read(&[&log]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(log.len())).collect();
            cuts.sort_unstable();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&log[from..cut]);
                from = cut;
            }
            pieces.push(&log[from..]);
            prop_assert_eq!(&read(&pieces), &whole);
            // Each line by itself is the same record.
            let mut at = 0_u64;
            let mut alone = Vec::new();
            for line in log.split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                alone.push(record(text, at).map(|record| (record.at, record.stream, record.partial)));
                at += u64::try_from(line.len()).unwrap();
            }
            prop_assert_eq!(alone.len(), whole.len());
            for (alone, whole) in alone.iter().zip(&whole) {
                match alone {
                    Some((at, stream, partial)) => {
                        let tag = if *partial { 'P' } else { 'F' };
                        let expected = format!("{at} {stream:?}{tag} ");
                        prop_assert!(whole.starts_with(&expected), "{} {}", whole, expected);
                    }
                    None => prop_assert!(whole.ends_with('?'), "{}", whole),
                }
            }
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read(&[&bytes]);
            record(&bytes, 0);
        }
    }
}
