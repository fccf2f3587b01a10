//! `hostPath`: what is on the host already, checked and made as its type says
//! (pkg/volume/hostpath/host_path.go). Links are followed, for the host's folders are the operator's.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

/// Checks and makes as the type says.
pub(super) fn set_up(volume: &str, host_path: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&host_path.path);
    let io_error = |source| VolumeError::Io { volume: volume.to_owned(), path: path.into(), source };
    let found = match fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(error)),
    };
    let must_be = |wanted: &'static str, is: fn(fs::FileType) -> bool| match found {
        Some(found) if is(found) => Ok(()),
        Some(found) => Err(VolumeError::WrongType {
            volume: volume.to_owned(),
            path: path.into(),
            wanted,
            found: name_of(found),
        }),
        None => Err(VolumeError::NotThere { volume: volume.to_owned(), path: path.into(), wanted }),
    };
    let is_dir = |found: fs::FileType| found.is_dir();
    let is_file = |found: fs::FileType| found.is_file();
    match host_path.type_.as_deref().unwrap_or_default() {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => make_dir(path).map_err(io_error),
        "FileOrCreate" if found.is_none() => make_file(path).map_err(io_error),
        "DirectoryOrCreate" | "Directory" => must_be("directory", is_dir),
        "FileOrCreate" | "File" => must_be("file", is_file),
        "Socket" => must_be("socket", |found| found.is_socket()),
        "CharDevice" => must_be("character device", |found| found.is_char_device()),
        "BlockDevice" => must_be("block device", |found| found.is_block_device()),
        _ => Err(VolumeError::Unsupported { volume: volume.to_owned() }),
    }
}

/// With its parents. The mode is subject to the umask, as kubelet's is.
fn make_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Without its parents. Empty, and with this mode whatever the umask.
fn make_file(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o644)),
        // Made by somebody else meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_file() => Ok(()),
        Err(error) => Err(error),
    }
}

fn name_of(found: fs::FileType) -> &'static str {
    if found.is_dir() {
        "directory"
    } else if found.is_file() {
        "file"
    } else if found.is_socket() {
        "socket"
    } else if found.is_char_device() {
        "character device"
    } else if found.is_block_device() {
        "block device"
    } else {
        "pipe"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(path: &Path, type_: &str) -> Result<(), VolumeError> {
        let source =
            HostPathVolumeSource { path: path.to_string_lossy().into_owned(), type_: Some(type_.into()) };
        set_up("v", &source)
    }

    #[test]
    fn host_paths_are_checked_and_made_by_their_type() {
        let root = tempfile::tempdir().unwrap();
        let new = |name: &str| root.path().join(name);
        let (file, link, dangling) = (new("file"), new("link"), new("dangling"));
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        symlink("nowhere", &dangling).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(new("socket")).unwrap();
        check(&new("d/e"), "DirectoryOrCreate").unwrap();
        assert!(new("d/e").is_dir());
        check(&new("f"), "FileOrCreate").unwrap();
        assert!(new("f").is_file());
        for (path, type_) in [
            (new("absent"), ""),
            (new("d"), "Directory"),
            (new("d"), "DirectoryOrCreate"),
            (file.clone(), "File"),
            (file.clone(), "FileOrCreate"),
            (link.clone(), "File"),
            (new("socket"), "Socket"),
            ("/dev/null".into(), "CharDevice"),
        ] {
            check(&path, type_).unwrap_or_else(|error| panic!("{type_}: {error}"));
        }
        assert!(!new("absent").exists());
        for (path, type_, words) in [
            (&file, "Directory", "is not a directory, it is a file"),
            (&link, "Directory", "is not a directory, it is a file"),
            (&file, "DirectoryOrCreate", "is not a directory, it is a file"),
            (&new("absent"), "File", "file"),
            (&new("absent"), "File", "does not exist"),
            (&new("absent"), "Directory", "does not exist"),
            (&dangling, "Directory", "does not exist"),
            (&file, "Socket", "is not a socket, it is a file"),
            (&file, "BlockDevice", "is not a block device, it is a file"),
            (&"/dev/null".into(), "BlockDevice", "it is a character device"),
            (&root.path().to_owned(), "FileOrCreate", "is not a file, it is a directory"),
            (&new("no/parent"), "FileOrCreate", "No such file"),
            (&file, "Nonsense", "does not provide"),
        ] {
            let error = check(path, type_).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("\"v\""), "{type_}: {error}");
        }
    }
}
