//! Where the last lines of a log begin. Files are read from their ends, so that the size of a log does not
//! matter; a compressed one, which cannot be, is read through and its last part kept.
//!
//! A line counts where it ends, and belongs to its stream: the two are interleaved, and so each has its own
//! place to begin at.

use std::{fs::File, io, ops::ControlFlow, os::unix::fs::FileExt as _};

use jiff::{SignedDuration, Timestamp};
use memchr::memrchr;

use super::{
    files,
    line::{MAX_JSON, Record, record},
    print::{Choice, Position},
};

/// Bytes that are read at a time.
const BLOCK: usize = if cfg!(test) { 64 } else { 64 << 10 };
/// What is kept of the decompressed bytes.
const WINDOW: usize = if cfg!(test) { 256 } else { 4 << 20 };
/// How far back the begin of a line is looked for where its stream says nothing.
const LOOK_BACK: u64 = 1 << 20;
/// The two streams' times are not quite in order, and clocks are put back a little.
pub(super) const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// Bytes that can be had from behind.
pub(super) trait Backwards {
    /// How many there are.
    fn length(&mut self) -> io::Result<u64>;
    /// Those that end at `end`, at most [`BLOCK`].
    fn before(&mut self, end: u64, into: &mut Vec<u8>) -> io::Result<()>;
}

impl Backwards for &File {
    fn length(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn before(&mut self, end: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let length = usize::try_from(end).unwrap_or(usize::MAX).min(BLOCK);
        into.resize(length, 0);
        self.read_exact_at(into, end - u64::try_from(length).unwrap_or(0))
    }
}

/// A compressed file, of whose bytes a window is kept.
pub(super) struct Packed<'f> {
    file: &'f File,
    window: Vec<u8>,
    /// Where the window begins.
    from: u64,
}

impl<'f> Packed<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        Self { file, window: Vec::new(), from: 0 }
    }

    /// Reads up to `end`, or all, and keeps the last part. A file that is damaged ends where it is.
    fn fill(&mut self, end: u64) -> io::Result<()> {
        let mut reader = files::unpack(self.file)?;
        self.window.clear();
        self.from = 0;
        let mut read = 0;
        let mut block = Box::new([0; BLOCK]);
        while read < end {
            let room = usize::try_from(end - read).unwrap_or(usize::MAX).min(BLOCK);
            let length = match io::Read::read(&mut reader, &mut block[..room]) {
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            self.window.extend_from_slice(&block[..length]);
            read += u64::try_from(length).unwrap_or(0);
            if self.window.len() > WINDOW + WINDOW / 4 {
                let old = self.window.len() - WINDOW;
                self.window.drain(..old);
                self.from += u64::try_from(old).unwrap_or(0);
            }
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.from + u64::try_from(self.window.len()).unwrap_or(0)
    }
}

impl Backwards for Packed<'_> {
    fn length(&mut self) -> io::Result<u64> {
        self.fill(u64::MAX)?;
        Ok(self.end())
    }

    fn before(&mut self, end: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let wanted = end.saturating_sub(u64::try_from(BLOCK).unwrap_or(0));
        if wanted < self.from || end > self.end() {
            self.fill(end)?;
        }
        let place = |at: u64| usize::try_from(at.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let part = self.window.get(place(wanted)..place(end));
        into.clear();
        into.extend_from_slice(part.ok_or_else(|| io::Error::other("the file has become shorter"))?);
        Ok(())
    }
}

/// Gives the lines of a file from the last to the first: where each begins, and its first bytes.
fn lines(
    mut source: impl Backwards,
    length: u64,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let (mut end, mut block) = (length, Vec::new());
    // The begin of a line, of which more comes before, and whether its line feed was seen.
    let (mut kept, mut ended): (Vec<u8>, bool) = (Vec::new(), false);
    while end > 0 {
        source.before(end, &mut block)?;
        let start = end - u64::try_from(block.len()).unwrap_or(0);
        let mut rest = block.as_slice();
        while let Some(feed) = memrchr(b'\n', rest) {
            kept = joined(&rest[feed + 1..], kept);
            if ended || !kept.is_empty() {
                let at = start + u64::try_from(feed + 1).unwrap_or(0);
                if each(at, &kept).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            kept.clear();
            (rest, ended) = (&rest[..feed], true);
        }
        kept = joined(rest, kept);
        end = start;
    }
    Ok(if ended || !kept.is_empty() { each(0, &kept) } else { ControlFlow::Continue(()) })
}

/// The first bytes of two parts.
fn joined(first: &[u8], mut kept: Vec<u8>) -> Vec<u8> {
    if !first.is_empty() {
        kept.truncate(MAX_JSON.saturating_sub(first.len()));
        kept.splice(..0, first.iter().take(MAX_JSON).copied());
    }
    kept
}

/// What is known of a stream on the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nothing,
    /// The record at which it begins so far belongs to a line that is wanted, and the one before may too.
    Taking,
    /// The line that is wanted first is whole.
    Whole,
}

/// Looks for the place where the last lines begin, through the files from the newest to the oldest.
pub(super) struct Tail<'c> {
    choice: &'c Choice,
    left: u64,
    seen: [Seen; 2],
    /// Bytes since the stream's last record.
    silent: [u64; 2],
    start: [Position; 2],
    before: Position,
}

impl<'c> Tail<'c> {
    /// For so many lines before the end of the log.
    pub(super) fn new(choice: &'c Choice, lines: u64, end: Position) -> Self {
        Self { choice, left: lines, seen: [Seen::Nothing; 2], silent: [0; 2], start: [end; 2], before: end }
    }

    /// Goes back through a file; false if no older one is wanted.
    pub(super) fn file(&mut self, file: usize, mut source: impl Backwards) -> io::Result<bool> {
        let length = source.length()?;
        self.before = (file, length);
        let ended = lines(source, length, |at, line| {
            let passed = if self.before.0 == file { self.before.1 - at } else { 0 };
            self.before = (file, at);
            self.silent = self.silent.map(|bytes| bytes + passed);
            match record(line, at) {
                Some(record) => self.record((file, at), &record),
                None => self.go_on(),
            }
        })?;
        Ok(ended.is_continue())
    }

    fn record(&mut self, at: Position, record: &Record<'_>) -> ControlFlow<()> {
        let old = |since: Timestamp| record.time.saturating_add(SLACK).is_ok_and(|time| time < since);
        if self.choice.since.is_some_and(old) {
            return ControlFlow::Break(());
        }
        let stream = record.stream as usize;
        self.silent[stream] = 0;
        match (self.seen[stream], record.partial) {
            (Seen::Whole, _) => {}
            (Seen::Taking, true) => self.start[stream] = at,
            // A line ends here, or is still being written.
            (Seen::Taking, false) | (Seen::Nothing, _) => {
                if self.left == 0 {
                    self.seen[stream] = Seen::Whole;
                } else if self.choice.fits(record) {
                    self.left -= 1;
                    self.seen[stream] = Seen::Taking;
                    self.start[stream] = at;
                }
            }
        }
        self.go_on()
    }

    /// Whether something before can still be wanted.
    fn go_on(&self) -> ControlFlow<()> {
        let open = |stream: usize| self.seen[stream] == Seen::Taking && self.silent[stream] <= LOOK_BACK;
        if self.left > 0 || open(0) || open(1) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Where each stream begins, and a begin of a line that is not after these.
    pub(super) fn start(self) -> ([Position; 2], Position) {
        // Without any line: what is being written now may have begun, and is not shown.
        let nothing = self.seen.iter().all(|seen| *seen != Seen::Taking) && self.start[0] == self.start[1];
        (self.start, if nothing { self.before } else { self.start[0].min(self.start[1]) })
    }
}

/// A place in a file before all lines that are not older than `since`, found by steps back from its end that
/// grow: what is near the end is found without reading the rest.
pub(super) fn begin_of(mut source: impl Backwards, since: Timestamp) -> io::Result<u64> {
    let length = source.length()?;
    let (mut back, mut block) = (u64::try_from(BLOCK).unwrap_or(0), Vec::new());
    while back < length {
        let end = length - back;
        source.before(end, &mut block)?;
        let start = end - u64::try_from(block.len()).unwrap_or(0);
        // The last whole line of the block tells the time there.
        let last = memrchr(b'\n', &block).and_then(|feed| {
            let begin = memrchr(b'\n', &block[..feed])? + 1;
            let at = start + u64::try_from(begin).unwrap_or(0);
            record(&block[begin..feed], at).map(|record| (at, record.time))
        });
        if let Some((at, time)) = last
            && time.saturating_add(SLACK).is_ok_and(|time| time < since)
        {
            return Ok(at);
        }
        back = back.saturating_mul(2);
    }
    Ok(0)
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
