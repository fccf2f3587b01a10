//! Following a log: goes on until the container has ended and its last line is printed.
//!
//! inotify tells of what is written, and of new files. When the log is rotated, the runtime writes to the
//! renamed file until it has been told to open a new one, and a little longer: the new file is begun once the
//! old one is closed, or after a moment, and the old one is looked at until it is closed. So no line is lost
//! and none comes twice. Whether the container still runs is asked when its log is closed, and every few
//! seconds.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::AsRawFd as _,
    pin::Pin,
    time::Duration,
};

use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;

use super::{
    Choice, Log, Outputs, Printer, Stop, begin, ended,
    files::{All, Opened, Place, Reading, TRIES, unreadable},
    left_out_note, missing,
};
use crate::{
    api::cri::{ContainerState, ContainerStatusResponse},
    cri::CriError,
    error::CommandError,
};

/// How long the runtime has to close a log that was rotated before the new one is begun, or one whose
/// container has ended before that is believed to be all.
const CLOSING: Duration = Duration::from_secs(1);
/// The same for the log of a container that was seen to run or has ended lately: the runtime closes it when all is
/// written, which takes its time on a busy node. Only processes that outlive the container keep it open for good.
const CLOSING_SEEN: Duration = Duration::from_secs(5);
/// How soon, and how often at most, it is asked whether the container runs.
const ASK_FIRST: Duration = Duration::from_millis(20);
const ASK_LAST: Duration = Duration::from_secs(5);
/// How often files are looked at where inotify is not to be had.
const WITHOUT_EVENTS: Duration = Duration::from_millis(250);
/// Files that are still looked at though newer ones have begun.
const MOST_LATE: usize = 8;

type Check<'a> = Pin<Box<dyn Future<Output = Result<Box<ContainerStatusResponse>, CriError>> + 'a>>;

/// A file that is followed.
struct Followed {
    reading: Reading,
    watch: Option<WatchDescriptor>,
    /// Nobody writes to it any more.
    closed: bool,
}

struct Follower<'a> {
    place: Place,
    events: Option<EventStream<Vec<u8>>>,
    /// What is still to be read, the oldest first; the last is what the runtime writes, as far as is known.
    files: VecDeque<Followed>,
    late: Vec<Followed>,
    /// When the first of several files is left though it has not been closed.
    leave_at: Instant,
    /// Rotated files that are known, without `.gz`.
    known: BTreeSet<String>,
    /// The names of all files that were read, by their numbers.
    names: Vec<String>,
    printer: Printer<'a>,
    chunk: Vec<u8>,
}

/// Prints what there is and what comes, until the container has ended or nobody reads any more (`left`); what is to be
/// said of it. `status` asks the runtime for the container. Blocks while the outputs do.
///
/// # Errors
/// As [`super::print_all`].
pub async fn print_and_follow<F>(
    target: &Log,
    choice: Choice,
    tail: Option<u64>,
    outputs: Outputs<'_>,
    status: impl Fn() -> F,
    left: impl Future<Output = ()>,
) -> Result<Vec<String>, CommandError>
where
    F: Future<Output = Result<ContainerStatusResponse, CriError>>,
{
    let until = choice.until;
    let mut follower = Follower::open(target, choice, tail, outputs)?;
    ended(follower.run(target, until, status, left).await)?;
    ended(follower.printer.flush())?;
    let name = |file: usize| follower.names.get(file).cloned().unwrap_or_default();
    Ok(follower.printer.damage(name)?.into_iter().collect())
}

impl<'a> Follower<'a> {
    fn open(
        target: &Log,
        choice: Choice,
        tail: Option<u64>,
        (out, err): Outputs<'a>,
    ) -> Result<Self, CommandError> {
        let place = Place::find(&target.path)?;
        // Before the files are opened: what happens from here on is told.
        let events = watch_folder(&place);
        let All { files, rotated, left_out } = place.open_all()?;
        if files.is_empty() && target.state != ContainerState::ContainerCreated {
            return Err(missing(target));
        }
        let names = files.iter().map(|file| file.name.clone()).collect();
        let (readings, start) = begin(files, &choice, tail)?;
        let mut printer = Printer::new(choice, out, err);
        printer.start = start;
        let without = events.as_ref().err();
        let without = without.map(|error| {
            format!("inotify is not available ({error}); the log is looked at 4 times a second")
        });
        for note in left_out_note(left_out).iter().chain(&without) {
            ended(printer.note(note))?;
        }
        let mut follower = Self {
            place,
            events: events.ok(),
            files: VecDeque::new(),
            late: Vec::new(),
            leave_at: Instant::now(),
            known: rotated.iter().map(|file| plain_name(&file.name)).collect(),
            names,
            printer,
            chunk: Vec::new(),
        };
        for reading in readings {
            follower.add(reading);
        }
        Ok(follower)
    }

    fn add(&mut self, reading: Reading) {
        let path = format!("/proc/self/fd/{}", reading.file().as_raw_fd());
        let mask = WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
        // Without a watch it is looked at now and then.
        let watch = self.events.as_ref().and_then(|events| events.watches().add(path, mask).ok());
        let closed = reading.is_packed();
        self.files.push_back(Followed { reading, watch, closed });
    }

    async fn run<F>(
        &mut self,
        target: &Log,
        until: Option<Timestamp>,
        status: impl Fn() -> F,
        left: impl Future<Output = ()>,
    ) -> Result<(), Stop>
    where
        F: Future<Output = Result<ContainerStatusResponse, CriError>>,
    {
        let until = until.map(|until| {
            let left = until.duration_since(Timestamp::now());
            Instant::now() + Duration::try_from(left).unwrap_or_default()
        });
        let mut left = std::pin::pin!(left);
        let mut check: Option<Check<'_>> = None;
        let (mut ask_at, mut pause) = (Instant::now(), ASK_FIRST);
        let mut away = false;
        // Since when the container is known to have ended, and nothing has come.
        let mut ended_at = match target.state {
            ContainerState::ContainerCreated | ContainerState::ContainerRunning => None,
            _ if target.ended_lately => Some(Instant::now()),
            _ => Some(Instant::now() - CLOSING),
        };
        let seen = ended_at.is_none() || target.ended_lately;
        let closing = if seen { CLOSING_SEEN } else { CLOSING };
        let mut is_first = true;
        loop {
            let some = self.read()?;
            self.printer.flush()?;
            let now = Instant::now();
            if some && !is_first {
                ended_at = ended_at.map(|_| now);
            }
            is_first = false;
            let over = ended_at.is_some_and(|at| self.at_end(at + closing, now));
            if over || until.is_some_and(|until| until <= now) {
                return self.finish();
            }
            let mut wake = match ended_at {
                Some(at) => at + closing,
                None if check.is_some() => now + ASK_LAST,
                None => ask_at,
            };
            if self.files.len() > 1 {
                wake = if ended_at.is_some() { self.leave_at } else { wake.min(self.leave_at) };
            }
            if self.events.is_none() {
                wake = wake.min(now + WITHOUT_EVENTS);
            }
            wake = until.map_or(wake, |until| wake.min(until));
            tokio::select! {
                event = next(&mut self.events) => {
                    if self.take(event)? {
                        // The container may have ended.
                        (ask_at, pause) = (Instant::now(), ASK_FIRST);
                    }
                }
                answer = wait(&mut check) => {
                    check = None;
                    match state(&answer) {
                        Some(true) => away = false,
                        Some(false) => {
                            ended_at = Some(Instant::now());
                            self.look()?;
                        }
                        None if away => {}
                        None => {
                            away = true;
                            let why = answer.err().map(|error| error.to_string()).unwrap_or_default();
                            let text = format!("it is not known whether the container runs; going on: {why}");
                            self.printer.note(&text)?;
                        }
                    }
                    ask_at = Instant::now() + pause;
                    pause = (pause * 2).min(ASK_LAST);
                }
                () = sleep_until(wake) => self.look()?,
                () = &mut left => return Ok(()),
            }
            if check.is_none() && ended_at.is_none() && ask_at <= Instant::now() {
                let call = status();
                check = Some(Box::pin(async move { call.await.map(Box::new) }));
            }
        }
    }

    /// Prints what there is, and answers whether there was anything.
    fn read(&mut self) -> Result<bool, Stop> {
        let mut some = false;
        for late in &mut self.late {
            some |= late.reading.read_on(u64::MAX, &mut self.chunk, &mut self.printer)?;
        }
        let done: Vec<Followed> = self.late.extract_if(.., |late| late.closed).collect();
        done.into_iter().try_for_each(|file| self.leave(file))?;
        while let Some(first) = self.files.front_mut() {
            let closed = first.closed;
            some |= first.reading.read_on(u64::MAX, &mut self.chunk, &mut self.printer)?;
            if self.files.len() == 1 || (!closed && Instant::now() < self.leave_at) {
                return Ok(some);
            }
            let Some(first) = self.files.pop_front() else { return Ok(some) };
            // Of files that were rotated long ago only the last may still be written to.
            if closed || self.files.len() > 1 {
                self.leave(first)?;
            } else {
                self.late.push(first);
            }
            if self.late.len() > MOST_LATE {
                let oldest = self.late.remove(0);
                self.leave(oldest)?;
            }
        }
        Ok(some)
    }

    /// A file that has all been read.
    fn leave(&mut self, mut file: Followed) -> Result<(), Stop> {
        if let (Some(events), Some(watch)) = (&self.events, file.watch) {
            // The kernel removes that of a file that is gone.
            events.watches().remove(watch).ok();
        }
        file.reading.finish(&mut self.printer)?;
        match file.reading.broken_note() {
            Some(note) => self.printer.note(&note),
            None => Ok(()),
        }
    }

    /// All is printed of a container that has ended.
    fn at_end(&self, latest: Instant, now: Instant) -> bool {
        let closed = self.files.iter().all(|file| file.closed);
        self.files.len() <= 1 && ((closed && !self.files.is_empty()) || now >= latest)
    }

    fn finish(&mut self) -> Result<(), Stop> {
        let left: Vec<Followed> = self.late.drain(..).chain(self.files.drain(..)).collect();
        left.into_iter().try_for_each(|file| self.leave(file))
    }

    /// Notes an event; true if the file that the runtime writes was closed.
    fn take(&mut self, event: Option<io::Result<inotify::EventOwned>>) -> Result<bool, Stop> {
        let Some(Ok(event)) = event else {
            // It does not end by itself.
            self.events = None;
            return Ok(false);
        };
        let mut last_closed = false;
        let count = self.files.len();
        let all = self.late.iter_mut().chain(self.files.iter_mut()).rev().enumerate();
        for (place, file) in all.filter(|(_, file)| file.watch.as_ref() == Some(&event.wd)) {
            if event.mask.contains(EventMask::CLOSE_WRITE) {
                file.closed = true;
                last_closed |= place == 0 && count > 0;
            } else if event.mask.contains(EventMask::MODIFY) {
                file.closed = false;
            }
        }
        if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO | EventMask::Q_OVERFLOW) {
            self.look()?;
        }
        Ok(last_closed)
    }

    /// Looks for files that have come.
    fn look(&mut self) -> Result<(), CommandError> {
        for _ in 0..TRIES {
            let rotated = self.place.rotated()?;
            let log = self.place.open(self.place.name(), false)?;
            // A rotation in between is looked at from its begin.
            if self.place.rotated()? != rotated {
                continue;
            }
            let known = std::mem::take(&mut self.known);
            self.known = rotated.iter().map(|file| plain_name(&file.name)).collect();
            let mut new = rotated.iter().filter(|file| !known.contains(&plain_name(&file.name)));
            let mut came = Vec::new();
            // The oldest new one is what was the log, under another name.
            if let Some(last) = self.files.back_mut().filter(|last| last.reading.name == self.place.name())
                && log.as_ref().is_none_or(|log| log.id != last.reading.id)
                && let Some(file) = new.next()
            {
                last.reading.name = plain_name(&file.name);
                if !file.packed {
                    // It was removed in truth if this is another.
                    came.extend(self.place.open(&file.name, false)?);
                }
            }
            for file in new {
                came.extend(self.place.open(&file.name, file.packed)?);
            }
            came.extend(log);
            return came.into_iter().try_for_each(|file| self.came(file));
        }
        // It changes all the time; the next look is not far.
        Ok(())
    }

    fn came(&mut self, file: Opened) -> Result<(), CommandError> {
        let known = |followed: &Followed| followed.reading.id == file.id;
        if self.late.iter().any(known) || self.files.iter().any(known) {
            return Ok(());
        }
        let number = self.names.len();
        self.names.push(file.name.clone());
        let name = file.name.clone();
        let reading = Reading::new(number, file, 0).map_err(|error| unreadable(name.as_ref(), &error))?;
        self.leave_at = Instant::now() + CLOSING;
        self.add(reading);
        Ok(())
    }
}

fn plain_name(name: &str) -> String {
    name.strip_suffix(".gz").unwrap_or(name).to_owned()
}

fn watch_folder(place: &Place) -> io::Result<EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(&place.folder, WatchMask::CREATE | WatchMask::MOVED_TO)?;
    inotify.into_event_stream(vec![0; 4096])
}

async fn next(events: &mut Option<EventStream<Vec<u8>>>) -> Option<io::Result<inotify::EventOwned>> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn wait(check: &mut Option<Check<'_>>) -> Result<Box<ContainerStatusResponse>, CriError> {
    match check {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}

/// Whether the container runs, or is still to; `None` if that is not known.
fn state(answer: &Result<Box<ContainerStatusResponse>, CriError>) -> Option<bool> {
    match answer {
        Ok(answer) => {
            let state = answer.status.as_ref().map(crate::api::cri::ContainerStatus::state);
            let alive = [ContainerState::ContainerCreated, ContainerState::ContainerRunning];
            Some(state.is_some_and(|state| alive.contains(&state)))
        }
        Err(error) if error.is_not_found() => Some(false),
        Err(_) => None,
    }
}
