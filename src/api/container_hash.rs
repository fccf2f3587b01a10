//! The value of the annotation `io.kubernetes.container.hash`, as current kubelets compute it, so that
//! exchanging kubelet and nodectl on a node restarts nothing.
//!
//! kubelet (pkg/kubelet/container/helpers.go, `HashContainer`) marshals `{"image": …, "name": …}` to JSON
//! and feeds the *printed form of the byte slice* (`([]uint8)[123 34 …]`, spew's `%#v`) to 32-bit FNV-1a.

use k8s_openapi::api::core::v1::Container;

/// FNV-1a over 32 bits (RFC 9923).
fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A JSON string as Go's `encoding/json` writes it: besides the usual escapes, `<`, `>`, `&`, U+2028 and
/// U+2029 become `\u….` escapes.
fn go_json_string(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// kubelet's hash of a container: over its name and image only.
pub fn kubelet_container_hash(container: &Container) -> u32 {
    let image = container.image.as_deref().unwrap_or_default();
    let json =
        format!("{{\"image\":{},\"name\":{}}}", go_json_string(image), go_json_string(&container.name));
    let numbers: Vec<String> = json.bytes().map(|b| b.to_string()).collect();
    fnv32a(format!("([]uint8)[{}]", numbers.join(" ")).as_bytes())
}

/// The annotation's text: lower-case hex without leading zeros.
pub fn kubelet_container_hash_text(container: &Container) -> String {
    format!("{:x}", kubelet_container_hash(container))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, image: &str) -> Container {
        Container { name: name.into(), image: Some(image.into()), ..Container::default() }
    }

    #[test]
    fn agrees_with_kubelet() {
        // The value that kubelet's own test pins (pkg/kubelet/container/helpers_test.go, since 1.31).
        assert_eq!(kubelet_container_hash(&container("test_container", "foo/image:v1")), 0x8e45_cbd0);
        assert_eq!(kubelet_container_hash_text(&container("test_container", "foo/image:v1")), "8e45cbd0");
    }

    #[test]
    fn only_name_and_image_count() {
        let plain = container("c", "i");
        let mut other = plain.clone();
        other.args = Some(vec!["x".into()]);
        assert_eq!(kubelet_container_hash(&plain), kubelet_container_hash(&other));
        assert_ne!(kubelet_container_hash(&plain), kubelet_container_hash(&container("c", "j")));
    }

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(go_json_string("a<b>&\"\\\n\u{1}"), "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\u0001\"");
    }
}
