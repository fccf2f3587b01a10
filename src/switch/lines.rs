//! A text's lines across an edit: those that stay keep their bytes, and the change as a unified diff.

use similar::{ChangeTag, TextDiff};

/// What an editor that knows line feeds alone is given of a text, and what puts the rest back after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines<'a> {
    original: &'a str,
    mark: bool,
    plain: String,
}

/// What some editors of another system put at a file's begin.
const BYTE_ORDER_MARK: char = '\u{feff}';

impl<'a> Lines<'a> {
    /// Takes a text apart.
    pub fn new(original: &'a str) -> Self {
        let text = original.strip_prefix(BYTE_ORDER_MARK);
        let plain = text.unwrap_or(original).replace("\r\n", "\n");
        Self { original, mark: text.is_some(), plain }
    }

    /// The text with line feeds alone, and without a byte order mark.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// The edited plain text with the line ends that the original has: each line that stayed its own, each
    /// new one that of most of the original.
    pub fn restore(&self, edited: &str) -> String {
        if edited == self.plain {
            return self.original.to_owned();
        }
        let ends = |line: &str| line.ends_with("\r\n");
        let text = self.original.strip_prefix(BYTE_ORDER_MARK).unwrap_or(self.original);
        let old: Vec<&str> = text.split_inclusive('\n').collect();
        let (with, without): (Vec<&str>, Vec<&str>) =
            old.iter().filter(|line| line.ends_with('\n')).partition(|line| ends(line));
        let carriage = with.len() > without.len();
        let mut restored = String::with_capacity(edited.len() + old.len());
        if self.mark {
            restored.push(BYTE_ORDER_MARK);
        }
        for change in TextDiff::from_lines(self.plain.as_str(), edited).iter_all_changes() {
            match (change.tag(), change.old_index().and_then(|at| old.get(at))) {
                (ChangeTag::Delete, _) => {}
                (ChangeTag::Equal, Some(line)) => restored.push_str(line),
                _ => match change.value().strip_suffix('\n') {
                    Some(line) if carriage => restored.extend([line, "\r\n"]),
                    _ => restored.push_str(change.value()),
                },
            }
        }
        restored
    }
}

/// A change of a file as `diff -u` shows it; empty if there is none. A file that is not there before or after
/// is `/dev/null`, as with `git`.
pub fn unified_diff(path: &str, old: Option<&str>, new: Option<&str>) -> String {
    if old == new {
        return String::new();
    }
    let name = |there: Option<&str>, side: char| match there {
        Some(_) => format!("{side}{}{path}", if path.starts_with('/') { "" } else { "/" }),
        None => "/dev/null".to_owned(),
    };
    TextDiff::from_lines(old.unwrap_or_default(), new.unwrap_or_default())
        .unified_diff()
        .context_radius(3)
        .header(&name(old, 'a'), &name(new, 'b'))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_that_stay_keep_their_ends() {
        let lines = Lines::new("\u{feff}a\r\nb\nc\r\n");
        assert_eq!(lines.plain(), "a\nb\nc\n");
        assert_eq!(lines.restore("a\nb\nc\n"), "\u{feff}a\r\nb\nc\r\n");
        assert_eq!(lines.restore("a\nb\nnew\nc\n"), "\u{feff}a\r\nb\nnew\r\nc\r\n");
        assert_eq!(Lines::new("a\nb\r\n").restore("a\nx\nb\n"), "a\nx\nb\r\n");
        assert_eq!(Lines::new("a\r\nb").restore("a\nb\nc"), "a\r\nb\r\nc");
    }

    #[test]
    fn a_change_is_shown_as_diff_shows_it() {
        assert_eq!(unified_diff("/etc/a", Some("x\n"), Some("x\n")), "");
        assert_eq!(
            unified_diff("/etc/a", Some("x\ny\n"), Some("x\nz\n")),
            "--- a/etc/a\n+++ b/etc/a\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n"
        );
        assert!(unified_diff("/etc/a", None, Some("x\n")).starts_with("--- /dev/null\n+++ b/etc/a\n"));
    }

    proptest! {
        #[test]
        fn what_was_taken_apart_comes_back_whole(text in "(a|b|\r\n|\n){0,30}") {
            let lines = Lines::new(&text);
            prop_assert_eq!(lines.restore(lines.plain()), text.clone());
            // Whatever is put into it, the text without the new line is the same again.
            let edited = format!("new\n{}", lines.plain());
            let restored = lines.restore(&edited);
            let again = Lines::new(&restored);
            prop_assert_eq!(again.plain(), edited.as_str());
        }
    }
}
