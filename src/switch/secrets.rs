//! Hiding passwords in what is shown of files: a proxy's URL may have one.

/// The text with user and password of each URL replaced by `***`.
pub fn hide(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::hide;

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
}
