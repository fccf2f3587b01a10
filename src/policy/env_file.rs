//! Files of variables, which a container may leave in a volume for the ones after it (`fileKeyRef`).
//!
//! The format is the small part of the shell's that kubelet takes since Kubernetes 1.35, where text within
//! single quotes is itself, over lines too, and nothing is expanded (pkg/kubelet/util/env):
//!
//! ```text
//! # a comment
//! NAME='value'   # another
//! ```
//!
//! Nothing may stand around the `=`, and behind a value only spaces and a comment. Reading for a variable
//! ends where it is found, so mistakes after it do no harm.
//!
//! A file is read once for all the variables that are looked for in it, and only these are kept.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// The longest name that is looked for, in bytes.
pub const MAX_KEY: usize = 128;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 32 << 10;

/// What is wrong with a file. Its values are not shown: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct EnvFileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// What a file says of the variables that were looked for in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvFile {
    found: BTreeMap<String, Result<String, EnvFileError>>,
    /// Where reading ended before all were found.
    failed: Option<EnvFileError>,
}

impl EnvFile {
    /// Looks for variables in a text.
    pub fn parse(text: &str, wanted: &BTreeSet<&str>) -> Self {
        let mut file = Self::default();
        file.failed = file.read(text, wanted).err();
        file
    }

    /// The value of the first variable of that name; `None` if there is none, or it was not looked for.
    ///
    /// # Errors
    /// The first line up to that variable that is none of the format.
    pub fn value(&self, key: &str) -> Result<Option<&str>, EnvFileError> {
        match (self.found.get(key), &self.failed) {
            (Some(found), _) => found.as_deref().map(Some).map_err(Clone::clone),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(None),
        }
    }

    fn read(&mut self, text: &str, wanted: &BTreeSet<&str>) -> Result<(), EnvFileError> {
        const BLANK: [char; 3] = [' ', '\t', '\r'];
        let (mut rest, mut line) = (text, 1);
        while !rest.is_empty() && self.found.len() < wanted.len() {
            let wrong = |what| EnvFileError { line, what };
            let (this, next) = rest.split_once('\n').unwrap_or((rest, ""));
            let declared = this.trim_start_matches(BLANK);
            if declared.is_empty() || declared.starts_with('#') {
                (rest, line) = (next, line + 1);
                continue;
            }
            let (name, value) =
                declared.split_once('=').ok_or_else(|| wrong("is not of the form NAME='value'"))?;
            if name.is_empty() {
                return Err(wrong("has no name before '='"));
            }
            if name.ends_with(BLANK) {
                return Err(wrong("must not have space before '='"));
            }
            let value =
                value.strip_prefix('\'').ok_or_else(|| wrong("the value must be in single quotes"))?;
            // From here the value may go on over lines.
            let start = text.len() - rest.len() + this.len() - value.len();
            let (value, behind) =
                text[start..].split_once('\'').ok_or_else(|| wrong("the value's quote is not closed"))?;
            line += value.matches('\n').count();
            let wrong = |what| EnvFileError { line, what };
            let (tail, next) = behind.split_once('\n').unwrap_or((behind, ""));
            let comment = tail.trim_start_matches(BLANK);
            if !(comment.is_empty() || (comment.starts_with('#') && comment.len() < tail.len())) {
                return Err(wrong("only a comment may stand behind the value"));
            }
            if wanted.contains(name) && !self.found.contains_key(name) {
                let value = if value.len() > MAX_VALUE {
                    Err(wrong("the value is longer than 32 KiB"))
                } else if value.contains('\0') {
                    Err(wrong("the value has a zero byte"))
                } else {
                    Ok(value.to_owned())
                };
                self.found.insert(name.to_owned(), value);
            }
            (rest, line) = (next, line + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value_of(text: &str, key: &str) -> Result<Option<String>, EnvFileError> {
        EnvFile::parse(text, &[key].into()).value(key).map(|value| value.map(str::to_owned))
    }

    #[test]
    fn the_format() {
        let text =
            "# c\n\n   A='one'\n\tB='  two # = \"x\" $A \\n  ' \t# c\nM='a\n b\n\nc'\r\nE=''\nA='again'\n";
        for (key, expected) in [
            ("A", Some("one")),
            ("B", Some("  two # = \"x\" $A \\n  ")),
            ("M", Some("a\n b\n\nc")),
            ("E", Some("")),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(value_of(text, key), Ok(expected.map(str::to_owned)), "{key}");
        }
        assert_eq!(value_of("", "A"), Ok(None));
        assert_eq!(value_of("A='x'", "A"), Ok(Some("x".to_owned())));
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, line) in [
            ("A='1'\nB=2\nK='3'", 2),
            ("B=\"2\"", 1),
            ("B ='2'", 1),
            ("B= '2'", 1),
            ("='2'", 1),
            ("A='1'\n\nnonsense", 3),
            ("A='1\n2'x\nK='3'", 2),
            ("A='1''2'", 1),
            ("A='1'#c", 1),
            ("A='1", 1),
            ("A='1\nK='3'\n", 2),
        ] {
            assert_eq!(value_of(text, "K").map_err(|error| error.line), Err(line), "{text:?}");
        }
        assert_eq!(
            value_of("K='1'\nnonsense", "K"),
            Ok(Some("1".to_owned())),
            "what comes after is not read"
        );
        let long = format!("A='{0}'\nK='{0}'", "x".repeat(MAX_VALUE + 1));
        assert_eq!(value_of(&long, "K").map_err(|error| error.line), Err(2));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec("[^'\\x00]{0,40}", 1..6)) {
            let text: String =
                values.iter().enumerate().map(|(at, value)| format!(" V{at}='{value}' # {at}\n\n")).collect();
            let names: Vec<String> = (0..values.len()).map(|at| format!("V{at}")).collect();
            let file = EnvFile::parse(&text, &names.iter().map(String::as_str).collect());
            for (name, value) in names.iter().zip(&values) {
                prop_assert_eq!(value_of(&text, name), Ok(Some(value.clone())));
                prop_assert_eq!(file.value(name), Ok(Some(value.as_str())));
            }
        }

        /// To look for many at once says of each what looking for it alone says.
        #[test]
        fn one_reading_does_for_all(lines in prop::collection::vec(
            prop_oneof!["[ABC]='[x\n]{0,3}'", Just("# c".to_owned()), Just("B=".to_owned()), Just("A='\0'".to_owned())], 0..8,
        )) {
            let text = lines.join("\n");
            let file = EnvFile::parse(&text, &["A", "B", "C"].into());
            for key in ["A", "B", "C"] {
                prop_assert_eq!(file.value(key).map(|value| value.map(str::to_owned)), value_of(&text, key));
            }
        }

        #[test]
        fn no_text_makes_it_fail_other_than_by_an_error(text in "[A'= #\\n\\PC]{0,60}") {
            drop(value_of(&text, "A"));
        }
    }
}
