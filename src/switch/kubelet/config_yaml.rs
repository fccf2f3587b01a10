//! A KubeletConfiguration, of which single keys are set and everything else stays byte for byte as it is: comments,
//! order, quotes.
//!
//! The parser says where a value stands; what comes out is read again and compared, so that whatever the parser's
//! places may miss is refused and never written.

use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, StructureStyle};
use thiserror::Error;

use crate::{
    api::yaml::{self, Limits, Node, Value},
    switch::{files::MAX_FILE, lines::Lines},
};

/// A configuration that is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigYamlError {
    /// It is not YAML, has several documents, or a key twice.
    #[error("is no KubeletConfiguration that can be read: {0}")]
    Broken(String),
    /// It is something else.
    #[error("has kind {0:?}, and not KubeletConfiguration")]
    Kind(String),
    /// A value is written in a way that is left to people.
    #[error("{key} is {what}: write it on one line as `{key}: VALUE`, then run this again")]
    Unusual {
        /// The key.
        key: String,
        /// How it is written.
        what: &'static str,
    },
}

impl ConfigYamlError {
    fn broken(why: &impl ToString) -> Self {
        Self::Broken(why.to_string())
    }
}

/// A value to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    /// A text.
    Text(String),
    /// A number.
    Number(i32),
}

impl Setting {
    /// As it is compared with what the file says, whatever its quotes.
    pub(super) fn value(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }

    fn node(&self) -> Value {
        match self {
            Self::Text(text) => Value::Str(text.clone()),
            Self::Number(number) => Value::Int((*number).into()),
        }
    }

    /// As it is written in the style of what it replaces.
    fn written(&self, style: ScalarStyle, json: bool) -> String {
        let Self::Text(text) = self else { return self.value() };
        // The reader decides whether a bare text means itself: `1e3` and `yes` do not.
        let bare = || yaml::parse(format!("k: {text}\n").as_bytes(), LIMITS).ok();
        let is_bare =
            || bare().is_some_and(|node| node.get("k").is_some_and(|k| k.value.value == self.node()));
        match style {
            ScalarStyle::SingleQuoted if !text.contains(['\'', '\n']) => format!("'{text}'"),
            ScalarStyle::Plain if !json && is_bare() => text.clone(),
            _ => serde_json::Value::from(text.as_str()).to_string(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a constant of a few million")]
const LIMITS: Limits = Limits { bytes: MAX_FILE as usize, nodes: 100_000, expanded_bytes: MAX_FILE as usize };

/// The kind of the kubelet's configuration.
const KIND: Option<&str> = Some("KubeletConfiguration");

/// The document, checked to be of a kind if one is given.
fn document(text: &str, kind: Option<&str>) -> Result<Node, ConfigYamlError> {
    let node = yaml::parse(text.as_bytes(), LIMITS).map_err(|error| ConfigYamlError::broken(&error))?;
    let found = node.get("kind").and_then(|kind| kind.value.as_str()).unwrap_or_default();
    if kind.is_some_and(|kind| kind != found) {
        return Err(ConfigYamlError::Kind(found.to_owned()));
    }
    Ok(node)
}

/// What a key of the top level says, if it says anything.
///
/// # Errors
/// When the text is no KubeletConfiguration.
pub(super) fn get(text: &str, key: &str) -> Result<Option<String>, ConfigYamlError> {
    let node = document(Lines::new(text).plain(), KIND)?;
    Ok(node.get(key).and_then(|entry| match &entry.value.value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    }))
}

/// The text with a key of the top level set.
///
/// # Errors
/// [`ConfigYamlError`].
pub(super) fn set(text: &str, key: &str, setting: &Setting) -> Result<String, ConfigYamlError> {
    set_in(text, key, setting, KIND)
}

/// The text of another YAML file with a key of the top level set to a text.
///
/// # Errors
/// [`ConfigYamlError`].
pub(in crate::switch) fn set_text(text: &str, key: &str, value: &str) -> Result<String, ConfigYamlError> {
    let setting = Setting::Text(value.to_owned());
    // One with nothing in it has no map to set a key of.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{gap}{key}: {}\n", setting.written(ScalarStyle::Plain, false)));
    }
    set_in(text, key, &setting, None)
}

fn set_in(text: &str, key: &str, setting: &Setting, kind: Option<&str>) -> Result<String, ConfigYamlError> {
    let lines = Lines::new(text);
    let plain = lines.plain();
    let before = document(plain, kind)?;
    if before.get(key).is_some_and(|entry| entry.value.value == setting.node()) {
        return Ok(text.to_owned());
    }
    let places = Places::find(plain, key)?;
    let (range, new) = places.change(plain, key, setting)?;
    let mut edited = plain.to_owned();
    edited.replace_range(range, &new);
    let unusual =
        || ConfigYamlError::Unusual { key: key.to_owned(), what: "in a file whose layout is not understood" };
    // Read again: the key says what it should, and everything else what it did.
    let after = document(&edited, kind).map_err(|_unread| unusual())?;
    let right = after.get(key).is_some_and(|entry| entry.value.value == setting.node());
    if !right || without(&after, key) != without(&before, key) {
        return Err(unusual());
    }
    Ok(lines.restore(&edited))
}

/// What a document says besides a key.
fn without(node: &Node, key: &str) -> String {
    let mut node = node.clone();
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| entry.key != key);
    }
    node.canonical()
}

/// A value as it is written.
enum Written {
    /// On its own; where, and how.
    Scalar(Range<usize>, ScalarStyle),
    /// In another way.
    Unusual(&'static str),
}

/// Where things are in a document.
#[derive(Default)]
struct Places {
    /// Whether the document is in braces.
    flow: bool,
    /// Where the first key begins, and its column.
    first_key: Option<(usize, usize)>,
    /// Where the key ends, and its value.
    found: Option<(usize, Written)>,
    /// Where the document begins that is in braces.
    begin: usize,
    /// Where the document ends.
    end: usize,
}

impl Places {
    fn find(text: &str, key: &str) -> Result<Self, ConfigYamlError> {
        let mut places = Self { end: text.len(), ..Self::default() };
        let mut depth = 0_usize;
        // Whether the next thing in the outermost map is a key, and the one before it.
        let (mut is_key, mut last_key) = (true, None);
        for next in Parser::new_from_str_with_options(text, Options::default()) {
            let (event, span): (Event<'_>, Span) = next.map_err(|error| ConfigYamlError::broken(&error))?;
            let range = span.byte_range().unwrap_or_default();
            let written = match &event {
                Event::Scalar(_, _, _, Some(_)) => Some(Written::Unusual("a value with a tag")),
                Event::Scalar(_, _, 1.., _) => Some(Written::Unusual("a value that has a name (`&`)")),
                Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {
                    Some(Written::Unusual("a text of several lines"))
                }
                Event::Scalar(_, style, ..) => Some(Written::Scalar(range.clone(), *style)),
                Event::Alias(_) => Some(Written::Unusual("the name of another value (`*`)")),
                Event::SequenceStart(..) => Some(Written::Unusual("a list")),
                Event::MappingStart(..) => Some(Written::Unusual("a map")),
                _ => None,
            };
            if depth == 1
                && let Some(written) = written
            {
                if is_key {
                    places.first_key.get_or_insert((range.start, span.start.col()));
                    last_key = match &event {
                        Event::Scalar(text, ..) => Some((text.to_string(), range.end)),
                        _ => None,
                    };
                } else if let Some((_, end)) = last_key.take_if(|(name, _)| name == key) {
                    places.found = Some((end, written));
                }
                is_key = !is_key;
            }
            match event {
                Event::MappingStart(style, ..) => {
                    if depth == 0 {
                        places.flow = style == StructureStyle::Flow;
                        places.begin = range.start;
                    }
                    depth += 1;
                }
                Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => depth = depth.saturating_sub(1),
                // An empty document may follow.
                Event::DocumentEnd if places.first_key.is_some() => {
                    places.end = range.start;
                    break;
                }
                _ => {}
            }
        }
        Ok(places)
    }

    fn change(
        &self,
        text: &str,
        key: &str,
        setting: &Setting,
    ) -> Result<(Range<usize>, String), ConfigYamlError> {
        match &self.found {
            Some((_, Written::Unusual(what))) => Err(ConfigYamlError::Unusual { key: key.to_owned(), what }),
            // Nothing stands there: behind the colon.
            Some((end, Written::Scalar(range, _))) if range.is_empty() => {
                let colon = text.get(*end..).and_then(|rest| rest.find(':')).map_or(*end, |at| end + at + 1);
                Ok((colon..colon, format!(" {}", setting.written(ScalarStyle::Plain, self.flow))))
            }
            Some((_, Written::Scalar(range, style))) => {
                let json = self.flow && *style != ScalarStyle::Plain;
                Ok((range.clone(), setting.written(*style, json)))
            }
            None => Ok(self.insertion(text, key, setting)),
        }
    }

    /// A line at the end; in braces, an entry before the first one, with the blanks that stand before that.
    fn insertion(&self, text: &str, key: &str, setting: &Setting) -> (Range<usize>, String) {
        let (at, column) = self.first_key.unwrap_or((self.end, 0));
        if self.flow {
            let blanks =
                text.get(self.begin + 1..at).filter(|blanks| blanks.trim().is_empty()).unwrap_or(" ");
            let blanks = if blanks.is_empty() { " " } else { blanks };
            let value = setting.written(ScalarStyle::DoubleQuoted, true);
            return (at..at, format!("\"{key}\": {value},{blanks}"));
        }
        let before = text.get(..self.end).unwrap_or_default();
        // What is behind the last line is the end of the document.
        let end = match text.get(self.end..).unwrap_or_default().is_empty() {
            true => before.len(),
            false => before.rfind('\n').map_or(0, |at| at + 1),
        };
        let gap = if text.get(..end).is_none_or(|text| text.ends_with('\n')) { "" } else { "\n" };
        let value = setting.written(ScalarStyle::Plain, false);
        (end..end, format!("{gap}{:column$}{key}: {value}\n", ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    fn text(value: &str) -> Setting {
        Setting::Text(value.to_owned())
    }

    #[track_caller]
    fn with(before: &str, key: &str, setting: &Setting) -> String {
        let after = set(before, key, setting).unwrap();
        assert_eq!(get(&after, key).unwrap(), Some(setting.value()), "{after}");
        assert_eq!(set(&after, key, setting).unwrap(), after);
        after
    }

    #[test]
    fn other_files_have_no_kind() {
        let set = |text: &str| set_text(text, "image-endpoint", "unix:///run/x.sock").unwrap();
        assert_eq!(set(""), "image-endpoint: unix:///run/x.sock\n");
        assert_eq!(set("# crictl\n"), "# crictl\nimage-endpoint: unix:///run/x.sock\n");
        assert_eq!(
            set("timeout: 2 # s\nimage-endpoint: \"\"\n"),
            "timeout: 2 # s\nimage-endpoint: \"unix:///run/x.sock\"\n"
        );
        assert!(set_text("- a\n", "k", "v").is_err() && set_text("{", "k", "v").is_err());
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        for (before, after) in [
            ("cgroupDriver: cgroupfs # why\nx: 1\n", "cgroupDriver: systemd # why\nx: 1\n"),
            ("cgroupDriver:   \"cgroupfs\"\n", "cgroupDriver:   \"systemd\"\n"),
            ("'cgroupDriver' : 'cgroupfs'\n", "'cgroupDriver' : 'systemd'\n"),
            ("cgroupDriver:\nx: 1\n", "cgroupDriver: systemd\nx: 1\n"),
            ("cgroupDriver: # why\nx: 1\n", "cgroupDriver: systemd # why\nx: 1\n"),
            ("cgroupDriver: ~\n", "cgroupDriver: systemd\n"),
            ("cgroupDriver: \"\"\n", "cgroupDriver: \"systemd\"\n"),
            ("x:\n  cgroupDriver: a\n", "x:\n  cgroupDriver: a\ncgroupDriver: systemd\n"),
            ("x: |\n  cgroupDriver: a\n\n", "x: |\n  cgroupDriver: a\n\ncgroupDriver: systemd\n"),
            ("x: 1", "x: 1\ncgroupDriver: systemd\n"),
            ("x: 1\n...\n", "x: 1\ncgroupDriver: systemd\n...\n"),
            ("x: 1\n---\n", "x: 1\ncgroupDriver: systemd\n---\n"),
        ] {
            assert_eq!(
                with(&format!("{HEAD}{before}"), "cgroupDriver", &text("systemd")),
                format!("{HEAD}{after}")
            );
            let marked = format!("---\n# c\n{HEAD}{before}");
            assert_eq!(with(&marked, "cgroupDriver", &text("systemd")), format!("---\n# c\n{HEAD}{after}"));
        }
        let indented = "  kind: KubeletConfiguration\n  x: [1,\n 2]\n";
        assert_eq!(with(indented, "logs", &Setting::Number(5)), format!("{indented}  logs: 5\n"));
        assert!(with(HEAD, "a", &text("1e3")).ends_with("a: \"1e3\"\n"));
        assert!(
            with(HEAD, "a", &text("unix:///run/containerd/containerd.sock")).ends_with("containerd.sock\n")
        );
        assert_eq!(get(&format!("{HEAD}a: {{}}\n"), "a").unwrap(), None);
    }

    #[test]
    fn json_and_braces() {
        for (before, after) in [
            ("{\"kind\":\"KubeletConfiguration\"}", "{\"a\": \"b\", \"kind\":\"KubeletConfiguration\"}"),
            (
                "{\n  \"kind\": \"KubeletConfiguration\",\n  \"x\": {\"a\": 1}\n}\n",
                "{\n  \"a\": \"b\",\n  \"kind\": \"KubeletConfiguration\",\n  \"x\": {\"a\": 1}\n}\n",
            ),
            ("---\n{kind: KubeletConfiguration, a: c}\n", "---\n{kind: KubeletConfiguration, a: b}\n"),
            (
                "{\n\t\"kind\": \"KubeletConfiguration\", \"a\": \"\"}",
                "{\n\t\"kind\": \"KubeletConfiguration\", \"a\": \"b\"}",
            ),
        ] {
            assert_eq!(with(before, "a", &text("b")), after);
        }
    }

    #[test]
    fn line_ends_and_marks_stay() {
        let before = format!("\u{feff}{HEAD}a: b # c\n").replace('\n', "\r\n");
        let after = with(&before, "a", &text("d"));
        assert_eq!(after, before.replace("a: b", "a: d"));
        assert!(with(&before, "z", &text("d")).ends_with("\r\nz: d\r\n"));
    }

    #[test]
    fn what_is_not_changed_is_told() {
        let told = |text: &str| set(text, "a", &Setting::Number(1)).unwrap_err().to_string();
        assert!(told("kind: Pod\n").contains("has kind \"Pod\""));
        assert!(told("a: [").contains("is no KubeletConfiguration that can be read"));
        assert!(told(&format!("{HEAD}a: 1\na: 2\n")).contains("duplicate key"));
        assert!(told(&format!("{HEAD}---\n{HEAD}")).contains("document"));
        for (written, what) in [
            ("a: |\n  x\n", "a text of several lines"),
            ("a: &x 3\nb: *x\n", "a name"),
            ("b: &x 3\na: *x\n", "another value"),
            ("a: !!str 3\n", "a tag"),
            ("a: [3]\n", "a list"),
            ("a: {}\n", "a map"),
        ] {
            assert!(told(&format!("{HEAD}{written}")).contains(what), "{written}");
        }
    }

    proptest! {
        #[test]
        fn everything_else_stays_byte_for_byte(
            keys in prop::collection::vec(("[b-y]{1,4}", prop_oneof![
                Just("1 # x"), Just("'a: b'"), Just("\n  z: 1\n  y: [a, b]"), Just("|\n  a: 1\n\n  b"), Just("[1,\n  2]"),
                Just("\n- a: 1\n- b"), Just("\"a\\n\""), Just("plain text\n  goes on"), Just(">-\n  a\n"),
            ]), 0..6),
            at in any::<prop::sample::Index>(), there in any::<bool>(), carriage in any::<bool>(),
        ) {
            let mut seen = std::collections::BTreeSet::new();
            let mut lines: Vec<String> = keys.iter().filter(|(key, _)| seen.insert(key.clone()))
                .map(|(key, value)| format!("{key}: {value}\n")).collect();
            if there {
                lines.insert(at.index(lines.len() + 1), "a: old # why\n".to_owned());
            }
            let mut before = format!("{HEAD}{}", lines.concat());
            if carriage {
                before = before.replace('\n', "\r\n");
            }
            prop_assume!(document(Lines::new(&before).plain(), KIND).is_ok());
            let after = set(&before, "a", &text("new")).unwrap();
            prop_assert_eq!(&set(&after, "a", &text("new")).unwrap(), &after);
            if there {
                prop_assert_eq!(after, before.replace("a: old", "a: new"));
            } else {
                prop_assert!(after.starts_with(&before));
            }
        }
    }
}
