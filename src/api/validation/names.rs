//! The kinds of names in the Kubernetes API. Each check says what is wrong, or nothing.

use crate::api::ids::is_safe_path_component;

/// A DNS label as of RFC 1123: containers, volumes, namespaces.
pub fn dns1123_label(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!label_form(name)).then_some(
        "must consist of lower case letters, digits or '-', and must start and end with a letter or digit",
    )
}

/// A DNS name as of RFC 1123: pods, hosts, prefixes of label keys.
pub fn dns1123_subdomain(name: &str) -> Option<&'static str> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters");
    }
    (!name.split('.').all(label_form)).then_some(
        "must consist of lower case letters, digits, '-' or '.', and every part between dots must start and end with a letter or digit",
    )
}

fn label_form(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The key of a label or annotation: an optional DNS prefix, a slash, a name of at most 63.
pub fn qualified_name(key: &str) -> Option<&'static str> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() || dns1123_subdomain(prefix).is_some() {
                return Some("the part before '/' must be a DNS name of at most 253 characters");
            }
            name
        }
        None => key,
    };
    if name.is_empty() || name.len() > 63 {
        return Some("the name must have 1 to 63 characters");
    }
    (!word_form(name)).then_some(
        "the name must consist of letters, digits, '-', '_' or '.', and must start and end with a letter or digit",
    )
}

/// The value of a label: empty, or at most 63 of a few characters.
pub fn label_value(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!value.is_empty() && !word_form(value)).then_some(
        "must be empty, or consist of letters, digits, '-', '_' or '.' and start and end with a letter or digit",
    )
}

fn word_form(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The name of a port (an IANA service name): at most 15, with a letter, no two `-` in a row.
pub fn port_name(name: &str) -> Option<&'static str> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters");
    }
    let fits = label_form(name) && !name.contains("--") && name.bytes().any(|b| b.is_ascii_lowercase());
    (!fits).then_some(
        "must consist of lower case letters, digits and single '-' between them, with at least one letter",
    )
}

/// The name of an environment variable: printable ASCII but `=`, as since Kubernetes 1.34.
pub fn env_name(name: &str) -> Option<&'static str> {
    (name.is_empty() || !name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'='))
        .then_some("must consist of printable ASCII characters other than '='")
}

/// A UID from a manifest. It becomes the name of folders, cgroups and log folders, so it must be
/// one harmless path component: letters, digits, `-`, `_`, `.`, no `..`, at most 128.
pub fn pod_uid(uid: &str) -> Option<&'static str> {
    (!is_safe_path_component(uid)).then_some(
        "must be 1 to 128 letters, digits, '-', '_' or '.', and not start with '.': it becomes the name of folders",
    )
}

/// A path without a `..` component.
pub fn no_backsteps(path: &str) -> Option<&'static str> {
    path.split('/').any(|part| part == "..").then_some("must not contain '..'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(f: fn(&str) -> Option<&'static str>, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(f(name), None, "{name:?}");
        }
        for name in bad {
            assert!(f(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn names() {
        let l63 = "a".repeat(63);
        let l64 = "a".repeat(64);
        check(dns1123_label, &["a", "a-b", "1", &l63], &["", "A", "-a", "a-", "a.b", "a_b", &l64]);
        let long = [l63.as_str(); 5].join(".");
        check(dns1123_subdomain, &["a", "a.b-c.d", &l64], &["", "a..b", ".a", "a.", "A.b", &long]);
        check(qualified_name, &["a", "A_b.c", "x.io/a"], &["", "/a", "x.io/", "a/b/c", "X.io/a", "-a", &l64]);
        check(label_value, &["", "a", "A_b.c-1"], &["-", "a b", &l64]);
        check(port_name, &["http", "a1", "1a"], &["", "80", "a--b", "-a", "A", "abcdefghijklmnop"]);
        check(env_name, &["A", "a.b-c", "1", "A B"], &["", "a=b", "\u{e9}", "a\n"]);
        check(
            pod_uid,
            &["0123", "a-b_c.d", "c56f77f1-1d28-4b15-b5c1-1e3b1f6c1e1c"],
            &["", ".", "..", ".a", "a/b", "a b", "\u{e9}", "a\0", &"a".repeat(129)],
        );
        check(no_backsteps, &["a/b", "a..b", "/"], &["..", "a/../b", "../a", "a/.."]);
    }
}
