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
