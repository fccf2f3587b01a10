//! Hiding passwords in what is shown of files: a proxy's URL may have one, and so may containerd's configuration, which
//! has those for registries.

use std::sync::LazyLock;

use regex::Regex;

/// Keys whose values are secret, in TOML, YAML, JSON and `hosts.toml` (a header); whatever stands before them, as in
/// `registry_password`.
const KEYS: &str =
    "password|passwd|auth|identitytoken|identity_token|registrytoken|token|secret|authorization";

/// A key, quoted or not, with what is between it and its value.
static KEY: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r#"(?i)(?:^|[^a-z0-9])(?:{KEYS})["']?[ \t]*[=:][ \t]*"#)).ok());

/// The text with user and password of each URL, and the values of keys that have a secret, replaced by `***`.
pub fn hide(text: &str) -> String {
    hide_values(&hide_urls(text))
}

/// An option's value that is not what it should be: whatever is before an @ may be a password, however it is written.
pub fn hide_word(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("***@{rest}"),
        None => text.to_owned(),
    }
}

fn hide_urls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // The authority ends where a path, a query or whatever the URL stands in begins.
        let end = after
            .find(|char: char| char.is_whitespace() || matches!(char, '/' | '?' | '#' | '"' | '\'' | ','))
            .unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str("***@");
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = behind;
    }
    shown + rest
}

/// The values of keys that have a secret.
fn hide_values(text: &str) -> String {
    let Some(key) = KEY.as_ref() else { return text.to_owned() };
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = key.find(rest) {
        let (before, value) = rest.split_at(found.end());
        shown.push_str(before);
        let end = value_end(value);
        let (value, behind) = value.split_at(end);
        if !value.is_empty() {
            shown.push_str("***");
        }
        rest = behind;
    }
    shown + rest
}

/// How long a value is; 0 for none, and for a table, of which what is in it counts.
fn value_end(value: &str) -> usize {
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inner) = value.strip_prefix(quotes) {
            return inner.find(quotes).map_or(value.len(), |at| at + 2 * quotes.len());
        }
    }
    let quoted = |quote: char| {
        let mut escaped = false;
        for (at, char) in value.char_indices().skip(1) {
            match char {
                '\n' => return at,
                _ if escaped => escaped = false,
                '\\' if quote == '"' => escaped = true,
                _ if char == quote => return at + 1,
                _ => {}
            }
        }
        value.len()
    };
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(quote),
        Some('[') => value.find(']').map_or(value.len(), |at| at + 1),
        Some('{') | None => 0,
        Some(_) => value.find(['\n', '\r', ',', '}', ']']).unwrap_or(value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::{hide, hide_word};

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (text, shown) in [
            (
                "Environment=\"HTTP_PROXY=http://me:s3cret@proxy:3128/\"",
                "Environment=\"HTTP_PROXY=http://***@proxy:3128/\"",
            ),
            ("http://a@b:c@host http://x/y@z", "http://***@host http://x/y@z"),
            ("unix:///run/containerd/containerd.sock", "unix:///run/containerd/containerd.sock"),
            ("mail me@host, https://h", "mail me@host, https://h"),
            ("://", "://"),
        ] {
            assert_eq!(hide(text), shown);
        }
    }

    #[test]
    fn what_keys_keep_secret_is_hidden() {
        for (text, shown) in [
            (
                "[plugins.cri.registry.configs.\"r.example\".auth]\n  username = \"u\"\n  password = \"hun\\\"ter2\"\n  x = 1\n",
                "[plugins.cri.registry.configs.\"r.example\".auth]\n  username = \"u\"\n  password = ***\n  x = 1\n",
            ),
            ("auth = 'dTpw'\nidentitytoken=\"t\" # c\n", "auth = ***\nidentitytoken=*** # c\n"),
            (
                "auth = { username = \"u\", password = \"p,}\", auth = \"\" }\n",
                "auth = { username = \"u\", password = ***, auth = *** }\n",
            ),
            ("configs.\"r\".auth.password = \"p\"", "configs.\"r\".auth.password = ***"),
            ("{\"auths\":{\"r\":{\"auth\":\"dTpw\"}}}", "{\"auths\":{\"r\":{\"auth\":***}}}"),
            ("password = \"\"\"a\nb\"\"\"\nnext = 1", "password = ***\nnext = 1"),
            ("password = \"open\nnext = 1", "password = ***\nnext = 1"),
            ("password: hun ter2\nnext: 1", "password: ***\nnext: 1"),
            ("Authorization = [\"Basic eA==\"]\nx = 1", "Authorization = ***\nx = 1"),
            ("password =", "password ="),
            ("password =\nnext = 1", "password =\nnext = 1"),
            // What only looks alike, and is in these files all the time.
            ("authentication:\n  webhook:\n", "authentication:\n  webhook:\n"),
            ("authorization:\n  mode: Webhook\n", "authorization:\n  mode: Webhook\n"),
            ("bearer_token_file = \"/x\"", "bearer_token_file = \"/x\""),
            ("[metrics]\n  address = \"\"", "[metrics]\n  address = \"\""),
        ] {
            assert_eq!(hide(text), shown);
        }
        assert_eq!(hide_word("https://user:pa/ss@m/x"), "***@m/x");
        assert_eq!(hide_word("m.example"), "m.example");
    }
}
