//! Names of images.

/// Registry and path of an image's name, without tag and digest, with what Docker's short names leave out:
/// `docker.io/library/busybox`.
pub fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            match name.strip_prefix("index.docker.io/") {
                Some(rest) => format!("docker.io/{rest}"),
                None => name.to_owned(),
            }
        }
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// Host and path of a registry, or a part of one, as files of Docker's name it: without scheme and the version of the
/// registry's API. `None` of what can be none.
pub fn registry_entry(location: &str) -> Option<String> {
    let name = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"));
    let name = name.unwrap_or(location).split(['?', '#']).next().unwrap_or_default();
    let (host, path) = name.find('/').map_or((name, ""), |at| name.split_at(at));
    let host = host.rsplit('@').next().unwrap_or(host);
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    let path = if path == "/" { "" } else { path };
    let possible = !host.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace());
    possible.then(|| format!("{host}{path}"))
}

/// Whether a text without a scheme names registries, or parts of them.
pub fn is_registry_pattern(text: &str) -> bool {
    !text.contains("://") && registry_entry(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_dockers() {
        for (image, name) in [
            ("busybox", "docker.io/library/busybox"),
            ("busybox:1@sha256:77", "docker.io/library/busybox"),
            ("a/b", "docker.io/a/b"),
            ("index.docker.io/a/b", "docker.io/a/b"),
            ("localhost/a", "localhost/a"),
            ("r:5000/a/b:1", "r:5000/a/b"),
        ] {
            assert_eq!(repository(image), name, "{image}");
        }
    }
}
