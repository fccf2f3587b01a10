//! What is mounted where, from `mountinfo` (proc_pid_mountinfo(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type.
    pub fs_type: String,
    /// The file system's own options, between commas: of a v1 cgroup hierarchy its controllers are there.
    pub fs_options: String,
}

/// Reads a `mountinfo` file.
///
/// # Errors
/// When it cannot be read; a line of another form is passed over.
pub fn read(mountinfo: &Path) -> io::Result<Vec<MountInfo>> {
    Ok(fs::read(mountinfo)?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mount points at or below a folder, the deepest first.
///
/// # Errors
/// When `mountinfo` cannot be read.
pub fn below(mountinfo: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    // The kernel tells paths without links.
    let folder = match fs::canonicalize(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => folder.to_owned(),
        Err(error) => return Err(error),
    };
    let mut points: Vec<PathBuf> =
        read(mountinfo)?.into_iter().map(|mount| mount.point).filter(|p| p.starts_with(&folder)).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(points)
}

fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = unescape(fields.nth(4)?);
    let mut file_system = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let fs_type = text(file_system.next()?);
    let fs_options = file_system.nth(1).map(text).unwrap_or_default();
    Some(MountInfo { point, fs_type, fs_options })
}

/// Space, tab, newline and backslash stand as three octal digits after a backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_unescaped_and_types_found() {
        let line = br"36 35 98:0 /mnt1 /mnt\040two\134x rw,noatime master:1 shared:2 - ext3 /dev/root rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.point, mount.fs_type.as_str()), (PathBuf::from(r"/mnt two\x"), "ext3"));
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn deeper_mounts_come_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "1 0 0:1 / /a rw - tmpfs t rw\n2 0 0:1 / /a/b/c rw - tmpfs t rw\n3 0 0:1 / /ab rw - tmpfs t rw\n",
        )
        .unwrap();
        assert_eq!(below(file.path(), Path::new("/a")).unwrap(), [Path::new("/a/b/c"), Path::new("/a")]);
    }

    #[test]
    fn the_running_systems_file_is_understood() {
        let all = read(Path::new("/proc/self/mountinfo")).unwrap();
        assert!(all.iter().any(|mount| mount.point == Path::new("/") && !mount.fs_type.is_empty()));
    }
}
