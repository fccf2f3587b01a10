//! Folders that hold a node, some of them made to lead out of themselves.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::{files::MAX_FILE, rooted::Rooted, systemd::unit::Files as _};

/// A folder with a node in it, beside a secret.
struct Image {
    outside: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("image/etc/containerd")).unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        Self { outside }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.outside.path().join("image").join(path)
    }

    fn rooted(&self) -> Rooted {
        Rooted::folder(&self.outside.path().join("image")).unwrap()
    }
}

#[test]
fn links_stay_inside() {
    let image = Image::new();
    fs::write(image.path("etc/containerd/real.toml"), "inside").unwrap();
    symlink("/etc/containerd/real.toml", image.path("etc/containerd/config.toml")).unwrap();
    symlink("/etc/containerd", image.path("conf")).unwrap();
    symlink(image.outside.path().join("secret"), image.path("absolute-out")).unwrap();
    symlink("../../../../../../secret", image.path("dots-out")).unwrap();
    symlink("loop", image.path("loop")).unwrap();
    symlink("/proc/self/root/etc/hostname", image.path("magic")).unwrap();
    let rooted = image.rooted();
    let read = |path: &str| rooted.read(Path::new(path));
    for path in ["/etc/containerd/config.toml", "/conf/config.toml", "/../../etc/containerd/real.toml"] {
        assert_eq!(read(path).unwrap().as_deref(), Some("inside"), "{path}");
        assert_eq!(rooted.real(Path::new(path)).unwrap(), Path::new("/etc/containerd/real.toml"), "{path}");
    }
    for path in ["/absolute-out", "/dots-out", "/magic", "/absent", "/etc/containerd/real.toml/x"] {
        assert_eq!(read(path).unwrap(), None, "{path}");
    }
    let error = read("/loop").unwrap_err();
    assert!(error.to_string().starts_with("/loop: "), "{error}");
    let error = rooted.real(Path::new("/absolute-out")).unwrap_err();
    assert!(error.to_string().contains("link to what is not there"), "{error}");
    assert_eq!(rooted.real(Path::new("/conf/new/x")).unwrap(), Path::new("/etc/containerd/new/x"));
    let mut names = rooted.list(Path::new("/conf")).unwrap();
    names.sort();
    assert_eq!(names, ["config.toml", "real.toml"]);
    assert!(rooted.list(Path::new("/none")).unwrap().is_empty());
}

#[test]
fn a_mask_is_empty_with_and_without_devices() {
    let image = Image::new();
    symlink("/dev/null", image.path("etc/masked")).unwrap();
    symlink("masked", image.path("etc/twice")).unwrap();
    for rooted in [image.rooted(), Rooted::node()] {
        let base = if rooted.is_node() { image.path("etc") } else { PathBuf::from("/etc") };
        assert_eq!(rooted.read(&base.join("masked")).unwrap().as_deref(), Some(""));
        assert_eq!(rooted.read(&base.join("twice")).unwrap().as_deref(), Some(""));
    }
}

#[test]
fn what_is_no_text_is_an_error_with_its_path() {
    let image = Image::new();
    fs::File::create(image.path("large")).unwrap().set_len(MAX_FILE + 1).unwrap();
    fs::write(image.path("binary"), b"\xff\xfe").unwrap();
    nix::unistd::mkfifo(&image.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let rooted = image.rooted();
    for (path, words) in [
        ("/large", "/large: has more than 4 MiB"),
        ("/binary", "/binary: is not UTF-8"),
        ("/pipe", "/pipe: is no regular file"),
        ("/etc", "/etc: is no regular file"),
    ] {
        assert_eq!(rooted.read(Path::new(path)).unwrap_err().to_string(), words);
    }
    assert!(Rooted::folder(&image.path("binary")).is_err());
    assert!(Rooted::folder(&image.path("absent")).is_err());
}

#[test]
fn files_are_changed_inside_alone() {
    let image = Image::new();
    let copies = tempfile::tempdir().unwrap();
    let there = image.outside.path().join("etc/containerd");
    fs::create_dir_all(&there).unwrap();
    // A folder that in truth is the one beside the image, if the link is followed on this machine.
    symlink(&there, image.path("out")).unwrap();
    symlink("/etc/containerd", image.path("in")).unwrap();
    let rooted = image.rooted();
    let file = Path::new("/in/certs.d/docker.io/hosts.toml");
    let missing = rooted.missing_folders(file);
    assert_eq!(missing, [PathBuf::from("/in/certs.d"), PathBuf::from("/in/certs.d/docker.io")]);
    assert_eq!(rooted.save(file, copies.path(), "0").unwrap(), None);
    assert!(rooted.write(file, "text", 0o640).unwrap());
    assert!(!rooted.write(file, "text", 0o600).unwrap());
    let real = image.path("etc/containerd/certs.d/docker.io/hosts.toml");
    assert_eq!(fs::read_to_string(&real).unwrap(), "text");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    let saved = rooted.save(file, copies.path(), "0").unwrap().unwrap();
    rooted.write(file, "other", 0o640).unwrap();
    rooted.restore(file, &saved, copies.path()).unwrap();
    assert_eq!(fs::read_to_string(&real).unwrap(), "text");
    rooted.remove(file, &missing).unwrap();
    rooted.remove(file, &missing).unwrap();
    assert!(!image.path("etc/containerd/certs.d").exists());

    // Through the other link nothing is written, inside or out: its target is not in the image.
    assert!(rooted.write(Path::new("/out/x"), "x", 0o644).is_err());
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
    // A link itself is not replaced.
    symlink("/etc/hosts", image.path("etc/link")).unwrap();
    let error = rooted.write(Path::new("/etc/link"), "x", 0o644).unwrap_err();
    assert!(error.to_string().contains("/etc/link: is a link"), "{error}");
    assert!(image.path("etc/link").is_symlink());
}

#[test]
fn room_is_told_for_what_is_not_there_yet() {
    let image = Image::new();
    let rooted = image.rooted();
    let room = rooted.room(Path::new("/var/lib/docker")).unwrap();
    assert!(room.total > 0 && room.available <= room.total);
    assert_eq!(rooted.room(Path::new("/etc")).unwrap().device, room.device);
    assert_eq!(Rooted::node().room(&image.path("none/x")).unwrap().device, room.device);
}
