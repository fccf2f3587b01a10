//! `$(NAME)` references in commands, arguments and environment values, as Kubernetes defines them
//! (k8s.io/kubernetes/third_party/forked/golang/expansion): a reference to an unknown name stays as it is,
//! `$$` is a dollar sign, and any other text, an unclosed `$(` too, is itself.
//!
//! A text of a few bytes may refer to a variable that refers to others twice, and so on: what references
//! put in is counted, and the process that starts the container holds no more of it than one could use.

use thiserror::Error;

/// No kernel starts a process with more arguments and environment than this, in bytes (execve(2)).
const MOST: usize = 6 << 20;

/// References put more in than a process can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what is put in for references comes to more than the 6 MiB of text that a process can start with")]
pub struct TooMuch;

/// How many more bytes references may put in, over all texts of the same process.
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MOST)
    }
}

impl Room {
    /// Uses up what a reference puts in, also one of another kind than those of [`expand`].
    ///
    /// # Errors
    /// When less is left.
    pub fn take(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.0 = self.0.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }
}

/// Replaces the references in a text.
///
/// # Errors
/// When the values need more room than is left.
pub fn expand<'a>(
    text: &str,
    room: &mut Room,
    value_of: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, TooMuch> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Behind the last one nothing is a reference: to look for an end each time would take time squared.
    let mut closing = text.matches(')').count();
    while let Some(dollar) = rest.find('$') {
        closing -= rest[..dollar].matches(')').count();
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let reference = after.strip_prefix('(').filter(|_| closing > 0).and_then(|a| a.split_once(')'));
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = reference {
            closing -= 1;
            match value_of(name) {
                Some(value) => {
                    room.take(value.len())?;
                    out.push_str(value);
                }
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_a(text: &str) -> String {
        let value_of = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        };
        expand(text, &mut Room::default(), value_of).unwrap()
    }

    #[test]
    fn cases_of_the_documented_syntax() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x-$(A)-$(A)$(EMPTY)-y", "x-1-1-y"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$", "$"),
            ("$(A", "$(A"),
            ("$(", "$("),
            ("$()", "$()"),
            ("$($(A)", "$($(A)"),
            ("$(REF)", "$(A)"),
            ("ä$(A)ö", "ä1ö"),
            (")$(A))$(", ")1)$("),
        ] {
            assert_eq!(with_a(text), expected, "{text}");
        }
    }

    #[test]
    fn the_room_is_for_all_texts_together() {
        let value = "x".repeat(MOST / 4);
        let mut room = Room::default();
        for _ in 0..2 {
            assert_eq!(expand("$(A)$(A)", &mut room, |_| Some(value.as_str())).unwrap().len(), MOST / 2);
        }
        assert_eq!(expand("$(B) is none", &mut room, |_| None).unwrap(), "$(B) is none");
        assert_eq!(expand("$(A)", &mut room, |_| Some("x")), Err(TooMuch));
    }

    #[test]
    fn references_that_nothing_closes_cost_no_time_squared() {
        // A minute and more if the end of each were looked for.
        for text in ["$(".repeat(2 << 20), format!("){}", "$(".repeat(2 << 20))] {
            assert_eq!(with_a(&text), text);
        }
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_itself(text in "[^$]*") {
            prop_assert_eq!(with_a(&text), text);
        }

        #[test]
        fn escaping_every_dollar_gives_the_text_back(text in ".*") {
            prop_assert_eq!(with_a(&text.replace('$', "$$")), text);
        }
    }
}
