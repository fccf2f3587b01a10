//! `nodectl cri top`: what containers use, the largest first; on a terminal a view that goes on.

use std::{cmp::Ordering, io::Write, time::Duration};

use clap::{Args, ValueEnum, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    filter::MeasuredContainers,
    live::{End, Rounds, rounds, wanted},
    session::Session,
    terminal::Terminal,
    text::size,
    usage::{self, Containers, Row, Sample},
};
use crate::{cli::output::printable, cri::Cri as _, error::CommandError};

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Cpu,
    Memory,
    Disk,
    Name,
}

/// Arguments of `nodectl cri top`.
#[derive(Debug, Clone, Args)]
pub(super) struct TopArgs {
    /// What to sort by; in the view the keys c, m, d and n change it
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    sort: Sort,
    /// End after N rounds; without it, at q or Ctrl-C on a terminal, and after one elsewhere
    #[arg(short = 'n', long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// How long a round takes, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1, value_parser = value_parser!(u32).range(1..=3600))]
    seconds: u32,
    #[command(flatten)]
    filter: MeasuredContainers,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(args: &TopArgs, session: &Session, out: &mut dyn Write) -> Result<(), CommandError> {
    let containers = Containers::new((&args.filter).into(), &[])?;
    let every = Duration::from_secs(args.seconds.into());
    let count = args.iterations.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    // Before the terminal is taken: what is wrong with the runtime is told as usual.
    let version = session.ask("Version", session.cri.version()).await?;
    let first = containers.sample(session).await?;
    let terminal = Terminal::take()
        .map_err(|error| CommandError::failed(format!("the terminal cannot be set up: {error}")))?;
    let Some(terminal) = terminal else {
        let how = Rounds { every, count: count.unwrap_or(1), pairs: true };
        let mut first = Some(first);
        let look = async || match first.take() {
            Some(first) => Ok(first),
            None => containers.sample(session).await,
        };
        return rounds(how, out, look, |before, now, out| {
            let rows = sorted(usage::rows(before, now, false), args.sort);
            wanted(out, usage::table(&rows, args.no_trunc).render().as_bytes()).map(drop)
        })
        .await;
    };
    let runtime = format!("{} {}", version.runtime_name, version.runtime_version);
    let view =
        View { terminal, runtime, sort: args.sort, whole: args.no_trunc, rows: Vec::new(), problem: None };
    view.go_on(session, &containers, first, every, count, out).await
}

/// The largest first; what is not known last.
fn sorted(mut rows: Vec<Row>, by: Sort) -> Vec<Row> {
    let name = |row: &Row| (row.namespace.clone(), row.pod.clone(), row.name.clone(), row.id.clone());
    rows.sort_by_cached_key(name);
    let cpu = |row: &Row| row.usage.cpu.unwrap_or(-1.0);
    let order = |a: &Row, b: &Row| match by {
        Sort::Cpu => cpu(b).total_cmp(&cpu(a)).then_with(|| b.usage.memory.cmp(&a.usage.memory)),
        Sort::Memory => b.usage.memory.cmp(&a.usage.memory),
        Sort::Disk => b.usage.disk.cmp(&a.usage.disk),
        Sort::Name => Ordering::Equal,
    };
    rows.sort_by(order);
    rows
}

/// What is on the screen.
struct View {
    terminal: Terminal,
    runtime: String,
    sort: Sort,
    whole: bool,
    rows: Vec<Row>,
    /// Why there are no new figures.
    problem: Option<String>,
}

/// What a key wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Sort(Sort),
    Nothing,
}

fn wish(key: u8) -> Wish {
    const CTRL_C: u8 = 3;
    match key {
        b'q' | b'Q' | CTRL_C => Wish::End,
        b'c' | b'C' => Wish::Sort(Sort::Cpu),
        b'm' | b'M' => Wish::Sort(Sort::Memory),
        b'd' | b'D' => Wish::Sort(Sort::Disk),
        b'n' | b'N' => Wish::Sort(Sort::Name),
        _ => Wish::Nothing,
    }
}

impl View {
    async fn go_on(
        mut self,
        session: &Session,
        containers: &Containers,
        first: Sample,
        every: Duration,
        count: Option<usize>,
        out: &mut dyn Write,
    ) -> Result<(), CommandError> {
        let mut end = End::new()?;
        let mut resized = signal(SignalKind::window_change()).map_err(CommandError::failed)?;
        let look = || async move {
            tokio::time::sleep(every).await;
            containers.sample(session).await
        };
        self.rows = usage::rows(None, &first, false);
        let mut before = first;
        let mut looking = Box::pin(look());
        let mut seen = 0;
        loop {
            if !wanted(out, self.frame().as_bytes())? || count.is_some_and(|count| seen >= count) {
                return Ok(());
            }
            tokio::select! {
                now = &mut looking => {
                    match now {
                        Ok(now) => {
                            self.rows = usage::rows(Some(&before), &now, false);
                            self.problem = None;
                            before = now;
                        }
                        // A runtime that is started anew is back soon.
                        Err(error) => self.problem = Some(error.to_string()),
                    }
                    seen += 1;
                    looking.set(look());
                }
                key = self.terminal.key() => match key.map_or(Wish::End, wish) {
                    Wish::End => return Ok(()),
                    Wish::Sort(by) => self.sort = by,
                    Wish::Nothing => {}
                },
                _ = resized.recv() => {}
                () = end.wanted() => return Ok(()),
            }
        }
    }

    /// The whole screen anew, cut to its size.
    fn frame(&self) -> String {
        let (width, height) = self.terminal.size();
        let rows = sorted(self.rows.clone(), self.sort);
        let text = self.head(width) + &usage::table(&rows, self.whole).render();
        frame(&text, width, height)
    }

    fn head(&self, width: usize) -> String {
        let cpu: f64 = self.rows.iter().filter_map(|row| row.usage.cpu).sum();
        let memory = self.rows.iter().map(|row| row.usage.memory).fold(0, u64::saturating_add);
        let by = match self.sort {
            Sort::Cpu => "CPU",
            Sort::Memory => "memory",
            Sort::Disk => "disk",
            Sort::Name => "name",
        };
        let first = match &self.problem {
            Some(problem) => wrapped(&printable(problem.lines().next().unwrap_or_default()), width),
            None => printable(&format!(
                "{}: {} containers, CPU {cpu:.2} %, memory {}",
                self.runtime,
                self.rows.len(),
                size(memory)
            )),
        };
        let second = format!("by {by}; c CPU, m memory, d disk, n name; q ends");
        format!("{first}\n{second}\n\n")
    }
}

/// In lines of this many characters: nothing of an error is cut away.
fn wrapped(text: &str, width: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    let lines: Vec<String> = letters.chunks(width.max(1)).map(|line| line.iter().collect()).collect();
    lines.join("\n")
}

/// From the first place of the screen, each line's rest and what is below the last away.
fn frame(text: &str, width: usize, height: usize) -> String {
    let lines = text.lines().take(height);
    let lines: Vec<String> = lines.map(|line| line.chars().take(width).collect()).collect();
    format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use usage::Usage;

    fn row(name: &str, cpu: Option<f64>, memory: u64, disk: u64) -> Row {
        Row {
            id: name.to_owned(),
            name: name.to_owned(),
            pod: "p".to_owned(),
            namespace: "n".to_owned(),
            usage: Usage { cpu, memory, disk, ..Usage::default() },
        }
    }

    #[test]
    fn the_largest_is_first() {
        let rows = vec![
            row("d", None, 1, 4),
            row("a", Some(2.0), 3, 3),
            row("c", Some(2.0), 4, 1),
            row("b", Some(9.0), 2, 2),
        ];
        let order = |by| -> String { sorted(rows.clone(), by).into_iter().map(|row| row.name).collect() };
        assert_eq!(
            [order(Sort::Cpu), order(Sort::Memory), order(Sort::Disk), order(Sort::Name)],
            ["bcad", "cabd", "dabc", "abcd"]
        );
    }

    #[test]
    fn keys() {
        assert_eq!([wish(b'q'), wish(3), wish(b'Q')], [Wish::End; 3]);
        assert_eq!([wish(b'm'), wish(b'c')], [Wish::Sort(Sort::Memory), Wish::Sort(Sort::Cpu)]);
        assert_eq!([wish(b'x'), wish(26), wish(0x1b)], [Wish::Nothing; 3]);
    }

    #[test]
    fn a_frame_is_cut_to_the_screen() {
        assert_eq!(frame("abc\näöü\nlast\n", 2, 2), "\x1b[Hab\x1b[K\r\näö\x1b[K\x1b[J");
        assert_eq!(wrapped("abcde", 2), "ab\ncd\ne");
        assert_eq!(frame("", 80, 24), "\x1b[H\x1b[K\x1b[J");
    }
}
