//! `$(NAME)` references in commands, arguments and environment values, as Kubernetes defines them
//! (k8s.io/kubernetes/third_party/forked/golang/expansion): a reference to an unknown name stays as it is,
//! `$$` is a dollar sign, and any other text, an unclosed `$(` too, is itself.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::EnvVar;

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

/// The environment of a container with literal values: in order, each value expanded over those before it;
/// the later of two equal names counts.
pub fn environment(vars: &[EnvVar]) -> Vec<(String, String)> {
    let mut known: HashMap<&str, String> = HashMap::new();
    let mut order: Vec<&str> = Vec::with_capacity(vars.len());
    for var in vars {
        let value =
            expand(var.value.as_deref().unwrap_or_default(), |name| known.get(name).map(String::as_str));
        if known.insert(&var.name, value).is_none() {
            order.push(&var.name);
        }
    }
    order.into_iter().map(|name| (name.to_owned(), known.remove(name).unwrap_or_default())).collect()
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

    #[test]
    fn later_variables_see_earlier_ones() {
        let var = |name: &str, value: &str| EnvVar {
            name: name.into(),
            value: Some(value.into()),
            ..EnvVar::default()
        };
        let env =
            environment(&[var("A", "$(B)"), var("B", "b"), var("C", "$(A)-$(B)"), var("B", "again-$(B)")]);
        let expected = [("A", "$(B)"), ("B", "again-b"), ("C", "$(B)-b")];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
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
