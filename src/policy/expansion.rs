//! `$(NAME)` references in commands, arguments and environment values, as Kubernetes defines them
//! (k8s.io/kubernetes/third_party/forked/golang/expansion): a reference to an unknown name stays as it is,
//! `$$` is a dollar sign, and any other text, an unclosed `$(` too, is itself.

/// Replaces the references in a text.
pub fn expand<'a>(text: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match value_of(name) {
                Some(value) => out.push_str(value),
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
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_a(text: &str) -> String {
        expand(text, |name| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        })
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
        ] {
            assert_eq!(with_a(text), expected, "{text}");
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
