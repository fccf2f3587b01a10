//! The UID of a static pod that gives none.

use sha2::{Digest, Sha256};

/// Where a manifest was read from, as it enters the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashOrigin<'a> {
    /// The path of a file, as configured (not resolved).
    File(&'a str),
    /// The whole URL.
    Url(&'a str),
}

/// 32 lower-case hex digits that stand for this manifest, on this node, from this place.
///
/// A SHA-256, cut to 128 bits, over a label, the node's name, the kind of source, its path or URL
/// and the manifest's canonical form ([`crate::api::yaml::Node::canonical`], taken before any
/// default is set). So the UID changes with whatever the manifest says, but not with comments,
/// layout, order of keys, or a release of nodectl that knows more defaults.
///
/// kubelet hashes its internal structs by Go's formatting of them, which nothing else can compute:
/// static pods are replaced once when kubelet and nodectl are exchanged.
pub fn static_pod_uid(canonical: &str, node_name: &str, origin: HashOrigin<'_>) -> String {
    let (kind, place) = match origin {
        HashOrigin::File(path) => ("file", path),
        HashOrigin::Url(url) => ("url", url),
    };
    let mut hash = Sha256::new();
    // Each part is preceded by its length, so that no two lists of parts read the same.
    for part in ["nodectl static pod uid v1", node_name, kind, place, canonical] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_32_hex_digits_and_depends_on_every_part() {
        let base = static_pod_uid("{}", "n", HashOrigin::File("/m/a.yaml"));
        assert_eq!(base.len(), 32);
        assert!(base.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_eq!(base, static_pod_uid("{}", "n", HashOrigin::File("/m/a.yaml")));
        for other in [
            static_pod_uid("{\"a\":1}", "n", HashOrigin::File("/m/a.yaml")),
            static_pod_uid("{}", "m", HashOrigin::File("/m/a.yaml")),
            static_pod_uid("{}", "n", HashOrigin::File("/m/b.yaml")),
            static_pod_uid("{}", "n", HashOrigin::Url("/m/a.yaml")),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn does_not_change_between_releases() {
        // A release that computes another value restarts every static pod of every node.
        assert_eq!(
            static_pod_uid(
                "{\"kind\":\"Pod\"}",
                "node-1",
                HashOrigin::File("/etc/kubernetes/manifests/a.yaml")
            ),
            "2601dff9fa65ead31cf8790bc92b384e"
        );
    }
}
