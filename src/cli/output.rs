//! How results are printed: tables, durations as kubectl writes them, JSON and YAML, and text from pods
//! made safe for a terminal.

pub use crate::error::printable;
use std::io::{self, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::CommandError;

/// `-o` of commands that list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A table with aligned columns and three spaces between them, as kubectl prints it.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header line.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    /// Adds a row. Its cells are made safe for a terminal.
    pub fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table's text, each line ended; no spaces at the ends of lines.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// Seconds as kubectl prints an age: two units where the first is small, else one (`45s`, `3m20s`, `5h7m`,
/// `2d3h`, `40d`, `2y10d`).
pub fn human_duration(seconds: i64) -> String {
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        two(days, "d", hours % 24, "h")
    } else if years < 2 {
        format!("{days}d")
    } else if years < 8 {
        two(years, "y", days % 365, "d")
    } else {
        format!("{years}y")
    }
}

/// How long ago a time was.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second().saturating_sub(then.as_second()))
}

/// A time in UTC to the second, and how far away it is: `2026-01-02T03:04:05Z (3m ago)`.
pub fn at(then: Timestamp, now: Timestamp) -> String {
    // Rounding to whole seconds cannot leave the range of times.
    let whole = Timestamp::from_second(then.as_second()).unwrap_or(then);
    if then > now {
        format!("{whole} (in {})", age(now, then))
    } else {
        format!("{whole} ({} ago)", age(then, now))
    }
}

/// Indented JSON with a final line break.
///
/// # Errors
/// [`CommandError`] if the value does not turn into JSON.
pub fn json(value: &impl Serialize) -> Result<String, CommandError> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(CommandError::failed)
}

/// JSON in one line.
///
/// # Errors
/// [`CommandError`] if the value does not turn into JSON.
pub fn json_line(value: &impl Serialize) -> Result<String, CommandError> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(CommandError::failed)
}

/// YAML with a final line break.
///
/// # Errors
/// [`CommandError`] if the value does not turn into YAML.
pub fn yaml(value: &impl Serialize) -> Result<String, CommandError> {
    let text = serde_saphyr::to_string(value).map_err(CommandError::failed)?;
    Ok(text.trim_end_matches('\n').to_owned() + "\n")
}

/// Writes a result. A reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// [`CommandError`] if the output cannot be written for another reason, such as a full disk.
pub fn write(out: &mut (impl Write + ?Sized), text: &str) -> Result<(), CommandError> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::failed(format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::Fails;

    #[test]
    fn durations_are_kubectls() {
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (7 * 3600 + 61, "7h1m"),
            (8 * 3600 + 1800, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (730 * 86_400, "2y"),
            (745 * 86_400, "2y15d"),
            (9 * 365 * 86_400 + 86_400, "9y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn tables_are_aligned_and_harmless() {
        let mut table = Table::new(["NAME", "STATUS", "AGE"]);
        table.push(["a".to_owned(), "Running".to_owned(), String::new()]);
        table.push(["längér".to_owned(), "\u{1b}[31mX\n".to_owned(), "1s".to_owned()]);
        assert_eq!(table.render(), "NAME     STATUS    AGE\na        Running\nlängér    [31mX    1s\n");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        write(&mut Fails(io::ErrorKind::BrokenPipe), "x").unwrap();
        let error = write(&mut Fails(io::ErrorKind::StorageFull), "x").unwrap_err();
        assert_eq!(error.kind.code(), 1);
    }

    #[test]
    fn yaml_keeps_texts_that_look_like_something_else() {
        let odd =
            ["yes", "on", "1.0", "0x1f", "null", "~", "", "a: b", "2026-01-01", "- x", "#", "1e3", "\t"];
        let text = yaml(&odd).unwrap();
        assert_eq!(serde_saphyr::from_str::<Vec<String>>(&text).unwrap(), odd);
        // What YAML 1.1 readers such as kubectl's would take for a boolean or a number is quoted.
        for word in ["yes", "on", "1.0", "0x1f", "null"] {
            assert!(!text.contains(&format!("- {word}\n")), "{text}");
        }
    }
}
