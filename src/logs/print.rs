//! What of a log is printed, and where: the container's standard output to ours and its standard error to
//! ours, the parts of a line joined. A line is judged by the time at which it begins.

use std::io::{self, BufWriter, Write};

use jiff::Timestamp;

use super::line::{Piece, Record, Stream, fixed};
use crate::error::{CommandError, printable};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 32 << 10;

/// A byte of a log: of which of its files, the oldest being 0, and where in that.
pub(super) type Position = (usize, u64);

/// Which lines are wanted, and how they are shown.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Only what was said then or later.
    pub since: Option<Timestamp>,
    /// Only what was said then or before.
    pub until: Option<Timestamp>,
    /// Only this stream.
    pub stream: Option<Stream>,
    /// Before each line, when it was said.
    pub timestamps: bool,
    /// At most so many bytes of output.
    pub limit: Option<u64>,
    /// Nothing is written that the container did not say.
    pub quiet: bool,
}

impl Choice {
    pub(super) fn fits(&self, record: &Record<'_>) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
            && self.stream.is_none_or(|stream| record.stream == stream)
    }
}

/// Why no more is to be read.
#[derive(Debug)]
pub(super) enum Stop {
    /// All that was wanted is printed, or nobody reads any more.
    Enough,
    Failed(CommandError),
}

impl From<CommandError> for Stop {
    fn from(error: CommandError) -> Self {
        Self::Failed(error)
    }
}

/// What has been printed of a stream's present line.
#[derive(Debug, Default, Clone, Copy)]
struct Line {
    /// Its next part is still to come.
    open: bool,
    shown: bool,
    /// It ended without a line feed, in a file that was torn.
    torn: bool,
}

pub(super) struct Printer<'a> {
    choice: Choice,
    /// Where each stream begins.
    pub(super) start: [Position; 2],
    outputs: [BufWriter<&'a mut dyn Write>; 2],
    lines: [Line; 2],
    left: u64,
    /// Lines in neither format, the first of them, and records.
    damaged: u64,
    first_damaged: Option<Position>,
    records: u64,
}

impl<'a> Printer<'a> {
    pub(super) fn new(choice: Choice, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self {
            left: choice.limit.unwrap_or(u64::MAX),
            choice,
            start: [(0, 0); 2],
            outputs: [out, err].map(|output| BufWriter::with_capacity(BUFFER, output)),
            lines: [Line::default(); 2],
            damaged: 0,
            first_damaged: None,
            records: 0,
        }
    }

    /// Takes what comes next of a file.
    pub(super) fn piece(&mut self, file: usize, piece: Piece<'_>) -> Result<(), Stop> {
        match piece {
            Piece::Begin(record) => self.begin(file, &record)?,
            Piece::Text(stream, text) if self.lines[stream as usize].shown => self.write(stream, text)?,
            Piece::Text(..) => {}
            Piece::End(stream) => {
                let line = self.lines[stream as usize];
                if line.shown && !line.open {
                    self.write(stream, b"\n")?;
                }
            }
            Piece::Torn(stream) => {
                let line = &mut self.lines[stream as usize];
                (line.open, line.torn) = (false, line.shown);
            }
            Piece::Damaged(at) => {
                self.damaged += 1;
                self.first_damaged.get_or_insert((file, at));
            }
        }
        Ok(())
    }

    fn begin(&mut self, file: usize, record: &Record<'_>) -> Result<(), Stop> {
        self.records += 1;
        let stream = record.stream;
        let line = self.lines[stream as usize];
        let shown = if line.open {
            line.shown
        } else {
            (file, record.at) >= self.start[stream as usize] && self.choice.fits(record)
        };
        self.lines[stream as usize] = Line { open: record.partial, shown, torn: line.torn && !shown };
        if shown && line.torn {
            self.write(stream, b"\n")?;
        }
        if shown && !line.open && self.choice.timestamps {
            self.write(stream, fixed(&record.stamp).as_bytes())?;
            self.write(stream, b" ")?;
        }
        Ok(())
    }

    /// A file was cut and begins anew: all that it will hold is wanted.
    pub(super) fn cut(&mut self, file: usize) {
        for start in self.start.iter_mut().filter(|start| start.0 == file) {
            start.1 = 0;
        }
    }

    /// Says something on standard error that the container did not say.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Stop> {
        if self.choice.quiet {
            return Ok(());
        }
        self.flush()?;
        // There is nobody to tell that telling failed.
        writeln!(self.outputs[Stream::Stderr as usize], "warning: {}", printable(text)).ok();
        self.flush()
    }

    fn write(&mut self, stream: Stream, text: &[u8]) -> Result<(), Stop> {
        let (this, other) = (stream as usize, 1 - stream as usize);
        // On a terminal both are one, and what was said first comes first.
        if !self.outputs[other].buffer().is_empty() {
            written(self.outputs[other].flush())?;
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(text.len());
        written(self.outputs[this].write_all(&text[..length]))?;
        self.left -= u64::try_from(length).unwrap_or(0);
        if self.left == 0 { Err(Stop::Enough) } else { Ok(()) }
    }

    /// Writes what has been gathered.
    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        self.outputs.iter_mut().try_for_each(|output| written(output.flush()))
    }

    /// What is to be said of lines that could not be read, of which `name` gives the file; an error if there
    /// were no others.
    pub(super) fn damage(&self, name: impl Fn(usize) -> String) -> Result<Option<String>, CommandError> {
        let Some((file, at)) = self.first_damaged else { return Ok(None) };
        let (count, place) = (self.damaged, format!("at byte {at} of {}", name(file)));
        if self.records == 0 {
            let text = format!("what stands {place} is no line of a container's log, nor is anything else");
            return Err(CommandError::failed(text));
        }
        let lines = if count == 1 { "1 line is" } else { &format!("{count} lines are") };
        Ok(Some(format!("{lines} damaged and left out, the first {place}")))
    }
}

fn written(result: io::Result<()>) -> Result<(), Stop> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::Enough),
        Err(error) => Err(CommandError::failed(format!("cannot write the output: {error}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::Fails;
    use crate::logs::line::Parser;

    fn printed(choice: Choice, start: [Position; 2], files: &[&str]) -> (String, String, bool) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(choice, &mut out, &mut err);
        printer.start = start;
        let mut stopped = false;
        for (file, text) in files.iter().enumerate() {
            let mut parser = Parser::default();
            let mut sink = |piece: Piece<'_>| printer.piece(file, piece);
            stopped |=
                parser.feed(text.as_bytes(), &mut sink).and_then(|()| parser.finish(0, &mut sink)).is_err();
        }
        printer.flush().unwrap();
        drop(printer);
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), stopped)
    }

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02Z stderr F two\n\
                       2026-01-01T00:00:03Z stdout P thr\n\
                       2026-01-01T00:00:04Z stderr F four\n\
                       2026-01-01T00:00:05Z stdout P e\n";
    const MORE: &str = "2026-01-01T00:00:06Z stdout F e\n2026-01-01T00:00:07Z stdout F seven\n";

    fn at(second: i64) -> Option<Timestamp> {
        Some(format!("2026-01-01T00:00:0{second}Z").parse().unwrap())
    }

    #[test]
    fn streams_are_kept_apart_and_parts_joined() {
        let (out, err, stopped) = printed(Choice::default(), [(0, 0); 2], &[LOG, MORE]);
        assert_eq!((out.as_str(), err.as_str(), stopped), ("one\nthree\nseven\n", "two\nfour\n", false));
        let choice = Choice { stream: Some(Stream::Stderr), ..Choice::default() };
        assert_eq!(printed(choice, [(0, 0); 2], &[LOG, MORE]).0, "");
    }

    #[test]
    fn a_line_is_judged_by_its_begin() {
        let choice = Choice { since: at(4), ..Choice::default() };
        let (out, err, _) = printed(choice, [(0, 0); 2], &[LOG, MORE]);
        assert_eq!((out.as_str(), err.as_str()), ("seven\n", "four\n"));
        let choice = Choice { until: at(3), timestamps: true, ..Choice::default() };
        let (out, err, _) = printed(choice, [(0, 0); 2], &[LOG, MORE]);
        assert_eq!(out, "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:03.000000000Z three\n");
        assert_eq!(err, "2026-01-01T00:00:02.000000000Z two\n");
        // The streams begin at places of their own.
        let second = u64::try_from(LOG.len()).unwrap() - 67;
        let (out, err, _) = printed(Choice::default(), [(1, 32), (0, second)], &[LOG, MORE]);
        assert_eq!((out.as_str(), err.as_str()), ("seven\n", "four\n"));
    }

    #[test]
    fn bytes_are_counted() {
        for (limit, expected) in [(0, ("", "")), (2, ("on", "")), (6, ("one\n", "tw")), (7, ("one\n", "two"))]
        {
            let choice = Choice { limit: Some(limit), ..Choice::default() };
            let (out, err, stopped) = printed(choice, [(0, 0); 2], &[LOG, MORE]);
            assert_eq!((out.as_str(), err.as_str(), stopped), (expected.0, expected.1, true));
        }
    }

    #[test]
    fn a_torn_file_does_not_glue_lines() {
        let (out, ..) = printed(Choice::default(), [(0, 0); 2], &["2026-01-01T00:00:01Z stdout F hal", MORE]);
        assert_eq!(out, "hal\ne\nseven\n");
        let (out, ..) = printed(Choice::default(), [(0, 0); 2], &["2026-01-01T00:00:01Z stdout F hal"]);
        assert_eq!(out, "hal");
    }

    #[test]
    fn a_reader_that_left_is_enough_and_a_full_disk_is_told() {
        let stop = |kind| {
            let (mut out, mut err) = (Fails(kind), Vec::new());
            let mut printer = Printer::new(Choice::default(), &mut out, &mut err);
            let mut sink = |piece: Piece<'_>| printer.piece(0, piece);
            Parser::default().feed(MORE.as_bytes(), &mut sink).unwrap();
            printer.flush().unwrap_err()
        };
        assert!(matches!(stop(io::ErrorKind::BrokenPipe), Stop::Enough));
        let Stop::Failed(error) = stop(io::ErrorKind::StorageFull) else { panic!("it is told") };
        assert!(error.to_string().starts_with("cannot write the output"), "{error}");
    }

    #[test]
    fn damage_is_told() {
        let told = |log: &str| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut printer = Printer::new(Choice::default(), &mut out, &mut err);
            let mut sink = |piece: Piece<'_>| printer.piece(0, piece);
            Parser::default().feed(log.as_bytes(), &mut sink).unwrap();
            printer.damage(|file| format!("{file}.log")).map_err(|error| error.to_string())
        };
        assert_eq!(told(LOG), Ok(None));
        let text = "1 line is damaged and left out, the first at byte 169 of 0.log";
        assert_eq!(told(&format!("{LOG}bad\n")), Ok(Some(text.to_owned())));
        assert!(told(&format!("a\nb\n{LOG}")).unwrap().unwrap().starts_with("2 lines are damaged"));
        assert!(told("a\nb\n").unwrap_err().contains("is no line of a container's log"));
    }
}
