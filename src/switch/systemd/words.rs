//! systemd's texts taken apart, each piece with its place in the file: settings of unit files, the words of a
//! setting, and the assignments of environment files.
//!
//! Follows systemd.syntax(7), systemd.exec(5) and systemd's own parsers (`extract_first_word`,
//! `parse_env_file_internal`).

use std::ops::Range;

/// A text that was decoded: what it means, and where each of its characters stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text {
    chars: Vec<(char, Range<usize>)>,
    /// Where an end of it is, if it is empty: more would stand here.
    at: usize,
}

impl Text {
    pub(super) fn new(at: usize) -> Self {
        Self { chars: Vec::new(), at }
    }

    fn push(&mut self, char: char, place: Range<usize>) {
        self.at = place.end;
        self.chars.push((char, place));
    }

    pub(super) fn value(&self) -> String {
        self.chars.iter().map(|(char, _)| char).collect()
    }

    /// From its first character to its last.
    pub(super) fn place(&self) -> Range<usize> {
        match (self.chars.first(), self.chars.last()) {
            (Some((_, first)), Some((_, last))) => first.start..last.end,
            _ => self.at..self.at,
        }
    }

    /// Cut at the first `=`.
    pub(super) fn assignment(&self) -> Option<(String, Self)> {
        let cut = self.chars.iter().position(|(char, _)| *char == '=')?;
        let (name, rest) = self.chars.split_at(cut);
        let value = rest.get(1..).unwrap_or_default().to_vec();
        let at = value.last().or(rest.first()).map_or(self.at, |(_, place)| place.end);
        Some((name.iter().map(|(char, _)| char).collect(), Self { chars: value, at }))
    }

    /// With `%%` as the one percent sign that it stands for in a unit file. Other specifiers stay as they are.
    pub(super) fn without_specifiers(&self) -> Self {
        let mut chars: Vec<(char, Range<usize>)> = Vec::with_capacity(self.chars.len());
        let mut rest = self.chars.iter().peekable();
        while let Some((char, place)) = rest.next() {
            let mut place = place.clone();
            if let Some((_, second)) = rest.next_if(|(next, _)| *char == '%' && *next == '%') {
                place.end = second.end;
            }
            chars.push((*char, place));
        }
        Self { chars, at: self.at }
    }

    /// Its words, as systemd splits a variable: at blanks, with quotes taken off.
    pub(super) fn words(&self) -> Vec<Word> {
        words(&self.chars, Escapes::Plain)
    }
}

/// A word and its place, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: Text,
    pub(super) place: Range<usize>,
    /// Whether it is a word by quotes alone: it may be empty then.
    pub(super) quoted: bool,
}

/// What a backslash does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// As in C.
    C,
    /// It makes the next character plain.
    Plain,
}

/// A setting of a unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::switch) struct Setting {
    pub(in crate::switch) section: String,
    pub(in crate::switch) key: String,
    /// Lines that go on in the next are one here.
    value: Vec<(char, Range<usize>)>,
    /// Where its key begins.
    pub(super) begin: usize,
    /// Where it ends, the blanks behind it not counted.
    pub(super) end: usize,
}

impl Setting {
    pub(in crate::switch) fn value(&self) -> String {
        self.value.iter().map(|(char, _)| char).collect()
    }

    pub(super) fn words(&self) -> Vec<Word> {
        words(&self.value, Escapes::C)
    }

    /// Where its value stands, from the first character to the last.
    pub(super) fn value_place(&self) -> Range<usize> {
        self.value.first().map_or(self.end, |(_, place)| place.start)..self.end
    }
}

fn places(text: &str, from: usize) -> impl Iterator<Item = (char, Range<usize>)> {
    text.char_indices().map(move |(at, char)| (char, from + at..from + at + char.len_utf8()))
}

/// The settings of a unit file, in their order.
pub(in crate::switch) fn settings(text: &str) -> Vec<Setting> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut whole: Vec<(char, Range<usize>)> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let begin = at;
        at += line.len();
        let bare = line.trim_end_matches(['\n', '\r']);
        let trimmed = bare.trim_start();
        // A comment between the lines of a setting is passed over.
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        let goes_on = bare.ends_with('\\');
        let piece = bare.strip_suffix('\\').unwrap_or(bare);
        whole.extend(places(piece, begin));
        if goes_on {
            // In place of the backslash and the line's end.
            whole.push((' ', begin + piece.len()..at));
            continue;
        }
        take_line(&std::mem::take(&mut whole), &mut section, &mut found);
    }
    take_line(&whole, &mut section, &mut found);
    found
}

fn take_line(line: &[(char, Range<usize>)], section: &mut String, found: &mut Vec<Setting>) {
    let blank = |(char, _): &(char, Range<usize>)| char.is_whitespace();
    let first = line.iter().position(|c| !blank(c)).unwrap_or(line.len());
    let last = line.iter().rposition(|c| !blank(c)).map_or(first, |last| last + 1);
    let line = line.get(first..last).unwrap_or_default();
    let text: String = line.iter().map(|(char, _)| char).collect();
    if let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        name.clone_into(section);
        return;
    }
    let Some(equals) = line.iter().position(|(char, _)| *char == '=') else { return };
    let (key, rest) = line.split_at(equals);
    let value = rest.get(1..).unwrap_or_default();
    let first = value.iter().position(|c| !blank(c)).unwrap_or(value.len());
    let value = value.get(first..).unwrap_or_default().to_vec();
    let begin = key.first().map_or(0, |(_, place)| place.start);
    let end = value.last().or(rest.first()).map_or(0, |(_, place)| place.end);
    let key: String = key.iter().map(|(char, _)| char).collect();
    found.push(Setting { section: section.clone(), key: key.trim_end().to_owned(), value, begin, end });
}

/// Splits at blanks. Quotes anywhere in a word are taken off; what stands between them is one word.
fn words(chars: &[(char, Range<usize>)], escapes: Escapes) -> Vec<Word> {
    let mut found = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut rest = chars.iter().peekable();
    while let Some((char, place)) = rest.next() {
        if quote.is_none() && char.is_whitespace() {
            found.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_with(|| Word {
            text: Text::new(place.end),
            place: place.clone(),
            quoted: false,
        });
        current.place.end = place.end;
        match char {
            '\\' => {
                let Some((next, after)) = rest.next() else { break };
                current.place.end = after.end;
                let meant = match (escapes, next) {
                    (Escapes::C, 'n') => '\n',
                    (Escapes::C, 't') => '\t',
                    (Escapes::C, 's') => ' ',
                    (_, next) => *next,
                };
                current.text.push(meant, place.start..after.end);
            }
            '"' | '\'' if quote == Some(*char) => {
                quote = None;
                current.quoted = true;
                if current.text.chars.is_empty() {
                    current.text.at = place.start;
                }
            }
            '"' | '\'' if quote.is_none() => quote = Some(*char),
            _ => current.text.push(*char, place.clone()),
        }
    }
    found.extend(word);
    found
}

/// An assignment of an environment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) name: String,
    pub(super) value: Text,
    /// Whether the value is all in quotes of one kind.
    pub(super) quote: Option<char>,
}

/// The assignments of an environment file, in their order; lines that are none are passed over, as by systemd.
pub(super) fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut rest = places(text, 0).peekable();
    'lines: while let Some((char, place)) = rest.next() {
        if char.is_whitespace() {
            continue;
        }
        if matches!(char, '#' | ';') {
            while rest.next_if(|(char, _)| *char != '\n').is_some() {}
            continue;
        }
        let mut name = String::from(char);
        let mut at = place.end;
        loop {
            match rest.next() {
                None | Some(('\n', _)) => continue 'lines,
                Some(('=', place)) => {
                    at = at.max(place.end);
                    break;
                }
                Some((char, _)) => name.push(char),
            }
        }
        let (value, quote) = env_value(&mut rest, at);
        let name = name.trim_end().to_owned();
        let valid = |char: char| char.is_ascii_alphanumeric() || char == '_';
        if name.chars().all(valid) && !name.starts_with(|char: char| char.is_ascii_digit()) {
            found.push(Assignment { name, value, quote });
        }
    }
    found
}

/// The value behind the `=`, up to the end of its line.
fn env_value(
    rest: &mut std::iter::Peekable<impl Iterator<Item = (char, Range<usize>)>>,
    at: usize,
) -> (Text, Option<char>) {
    let mut value = Text::new(at);
    let (mut quotes, mut plain) = (Vec::new(), false);
    // Blanks count between what is not quoted, and not at its end.
    let mut blanks: Vec<(char, Range<usize>)> = Vec::new();
    let mut begun = false;
    while let Some((char, place)) = rest.next() {
        match char {
            '\n' => break,
            '\\' => {
                begun = true;
                plain = true;
                for (char, place) in blanks.drain(..) {
                    value.push(char, place);
                }
                match rest.next() {
                    None => break,
                    Some(('\n', _)) => {}
                    Some((next, after)) => value.push(next, place.start..after.end),
                }
            }
            '"' | '\'' if !begun => {
                quotes.push(char);
                value.at = place.end;
                quoted(rest, char, &mut value);
            }
            _ if char.is_whitespace() => {
                if begun {
                    blanks.push((char, place));
                }
            }
            _ => {
                begun = true;
                plain = true;
                for (char, place) in blanks.drain(..) {
                    value.push(char, place);
                }
                value.push(char, place);
            }
        }
    }
    let quote = match quotes.as_slice() {
        [quote] if !plain => Some(*quote),
        _ => None,
    };
    (value, quote)
}

fn quoted(
    rest: &mut std::iter::Peekable<impl Iterator<Item = (char, Range<usize>)>>,
    quote: char,
    value: &mut Text,
) {
    while let Some((char, place)) = rest.next() {
        match char {
            _ if char == quote => return,
            '\\' if quote == '"' => match rest.next() {
                None => return,
                Some(('\n', _)) => {}
                Some((next @ ('"' | '\\' | '`' | '$'), after)) => value.push(next, place.start..after.end),
                Some((next, after)) => {
                    value.push('\\', place);
                    value.push(next, after);
                }
            },
            _ => value.push(char, place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> Vec<String> {
        let found = settings(&format!("[Service]\nX={text}\n"));
        found[0].words().iter().map(|word| word.text.value()).collect()
    }

    #[test]
    fn a_settings_words() {
        assert_eq!(split("a  b\t c"), ["a", "b", "c"]);
        assert_eq!(split("\"A=1 2\" 'b c' d\"e f\"g \"\""), ["A=1 2", "b c", "de fg", ""]);
        assert_eq!(split("a\\ b \\\"c \\x"), ["a b", "\"c", "x"]);
        assert_eq!(split("a \\\n  # between\n  b \\\n c"), ["a", "b", "c"]);
    }

    #[test]
    fn settings_with_their_sections_and_places() {
        let text = "# x\n[Unit]\nA = b \n; y\n[Service]\nExecStart=\nExecStart=/a --b\n";
        let found = settings(text);
        let told: Vec<_> = found.iter().map(|s| (s.section.as_str(), s.key.as_str(), s.value())).collect();
        assert_eq!(
            told,
            [
                ("Unit", "A", "b".to_owned()),
                ("Service", "ExecStart", String::new()),
                ("Service", "ExecStart", "/a --b".to_owned())
            ]
        );
        let word = &found[2].words()[1];
        assert_eq!(&text[word.place.clone()], "--b");
        assert_eq!(found[2].end, text.len() - 1);
    }

    #[test]
    fn the_assignments_of_an_environment_file() {
        let told = |text: &str| -> Vec<(String, String, Option<char>)> {
            assignments(text).into_iter().map(|a| (a.name, a.value.value(), a.quote)).collect()
        };
        let one = |name: &str, value: &str, quote| vec![(name.to_owned(), value.to_owned(), quote)];
        assert_eq!(told("# c\n\nA=b c  \n"), one("A", "b c", None));
        assert_eq!(told("A=\"b \\\" \\x c\"\n"), one("A", "b \" \\x c", Some('"')));
        assert_eq!(told("A='b \\ c'"), one("A", "b \\ c", Some('\'')));
        assert_eq!(told("A=\"b\" 'c'\n"), one("A", "bc", None));
        assert_eq!(told("A=b\"c\"\n"), one("A", "b\"c\"", None));
        assert_eq!(told("A=b\\\nc\n"), one("A", "bc", None));
        assert_eq!(told("A=\"b \\\n c\"\n"), one("A", "b  c", Some('"')));
        assert_eq!(told("export A=1\nnothing\n1A=2\nB=\n"), one("B", "", None));
    }

    #[test]
    fn words_of_a_value_have_their_places() {
        let text = "KUBELET_EXTRA_ARGS=\"--a=1 --b 'x y'\"\n";
        let words = assignments(text)[0].value.words();
        let told: Vec<_> = words.iter().map(|w| (w.text.value(), &text[w.place.clone()])).collect();
        assert_eq!(
            told,
            [("--a=1".to_owned(), "--a=1"), ("--b".to_owned(), "--b"), ("x y".to_owned(), "'x y'")]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_within_its_bounds(text in "[a-z=\"'\\\\\n \r#;\\[\\]$é-]{0,60}") {
            for setting in settings(&text) {
                for word in setting.words() {
                    prop_assert!(text.get(word.place.clone()).is_some());
                    prop_assert!(text.get(word.text.place()).is_some());
                }
                prop_assert!(text.is_char_boundary(setting.end));
            }
            for assignment in assignments(&text) {
                prop_assert!(text.get(assignment.value.place()).is_some());
                for word in assignment.value.words() {
                    prop_assert!(text.get(word.place.clone()).is_some());
                }
            }
        }
    }
}
