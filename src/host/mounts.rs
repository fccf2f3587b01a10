//! What is mounted where, from `mountinfo` (proc_pid_mountinfo(5)), and the mounts that volumes need.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

const HIDDEN: &str = "something else is mounted over a folder that holds it";

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file system's type.
    pub fs_type: String,
    /// What is mounted: a device's file, or a name that the file system was given.
    pub source: String,
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

/// What is mounted right at a folder, the last one on top; nothing if it is no mount point.
///
/// # Errors
/// When `mountinfo` cannot be read.
pub fn at(mountinfo: &Path, folder: &Path) -> io::Result<Vec<MountInfo>> {
    let folder = match fs::canonicalize(folder) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(read(mountinfo)?.into_iter().filter(|mount| mount.point == folder).collect())
}

/// What is mounted where a path is: the source of the mount that it is on. The path has no links.
pub fn source_of<'m>(table: &'m [MountInfo], path: &Path) -> Option<&'m str> {
    // Of mounts at the same point the last is on top.
    let over = table.iter().filter(|mount| path.starts_with(&mount.point));
    over.max_by_key(|mount| mount.point.components().count()).map(|mount| mount.source.as_str())
}

/// Mounts a `tmpfs` of at most so many bytes, 0 for the kernel's own limit, which is not swapped out where
/// the kernel (6.3) can be told so.
///
/// # Errors
/// As `mount`.
pub fn mount_tmpfs(folder: &Path, bytes: u64) -> io::Result<()> {
    let size = (bytes > 0).then(|| format!("size={bytes}"));
    let options = |more: Option<&str>| {
        let all: Vec<&str> = size.as_deref().into_iter().chain(more).collect();
        all.join(",")
    };
    match mount_fs("tmpfs", folder, &options(Some("noswap"))) {
        Err(Errno::EINVAL) => Ok(mount_fs("tmpfs", folder, &options(None))?),
        result => Ok(result?),
    }
}

/// Mounts a `hugetlbfs` with pages of so many bytes.
///
/// # Errors
/// As `mount`; `EINVAL` for a size of page that the kernel has not.
pub fn mount_huge_pages(folder: &Path, page_bytes: u64) -> io::Result<()> {
    Ok(mount_fs("hugetlbfs", folder, &format!("pagesize={page_bytes}"))?)
}

fn mount_fs(fs_type: &str, folder: &Path, options: &str) -> nix::Result<()> {
    mount(Some(fs_type), folder, Some(fs_type), MsFlags::empty(), Some(options))
}

/// Which mounts show on the other side of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// None that are made later.
    Private,
    /// Those of the original.
    Slave,
    /// Those of either, if the original's are shared.
    Shared,
}

/// Mounts what is open at a folder or file. What is mounted below it is left out, as kubelet has it.
///
/// # Errors
/// As `mount`.
pub fn bind(source: impl AsFd, target: &Path, sharing: Sharing) -> io::Result<()> {
    // The kernel follows this to the open file itself, whatever is at its path by now.
    let source = format!("/proc/self/fd/{}", source.as_fd().as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let flags = match sharing {
        Sharing::Private => MsFlags::MS_PRIVATE,
        Sharing::Slave => MsFlags::MS_SLAVE,
        Sharing::Shared => return Ok(()),
    };
    Ok(mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?)
}

/// Unmounts what is mounted at a mount point, and all that is mounted below it, without touching the
/// originals of what was propagated there. What is no mount point is fine.
///
/// # Errors
/// As `umount`; `EBUSY` while a process uses it.
pub fn unmount_with_all_below(mountinfo: &Path, folder: &Path) -> io::Result<()> {
    let points = below(mountinfo, folder)?;
    // From a mount that shares with others, a mount would vanish for those too.
    let alone = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    match mount(None::<&str>, folder, None::<&str>, alone, None::<&str>) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    points.iter().try_for_each(|point| unmount(point))
}

/// Unmounts all that is mounted at a folder or file, also mounts that lie upon one another, with all below.
///
/// # Errors
/// As [`unmount_with_all_below`]; `ResourceBusy` where mounts stay that are listed there and cannot be
/// reached: hidden by one that was made over a folder on the way.
pub fn unmount_every(mountinfo: &Path, folder: &Path) -> io::Result<()> {
    let mut listed = at(mountinfo, folder)?.len();
    while listed > 0 {
        unmount_with_all_below(mountinfo, folder)?;
        let left = at(mountinfo, folder)?.len();
        if left >= listed {
            let message = format!("{} is mounted and cannot be unmounted: {HIDDEN}", folder.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        listed = left;
    }
    Ok(())
}

/// Unmounts the top mount of a mount point.
///
/// # Errors
/// As `umount`; what is no mount point is fine.
pub fn unmount(point: &Path) -> io::Result<()> {
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = unescape(fields.nth(4)?);
    let mut file_system = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let fs_type = text(file_system.next()?);
    let source = file_system.next().map(text).unwrap_or_default();
    let fs_options = file_system.next().map(text).unwrap_or_default();
    Some(MountInfo { point, fs_type, source, fs_options })
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
        assert_eq!(mount.source, "/dev/root");
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn a_path_is_on_the_deepest_mount_over_it_and_the_last_of_several() {
        let table: Vec<MountInfo> = ["/ one", "/a two", "/a three", "/ab four", "/a/b/c five"]
            .into_iter()
            .filter_map(|line| {
                let (point, source) = line.split_once(' ')?;
                parse(format!("1 0 0:1 / {point} rw - t {source} rw").as_bytes())
            })
            .collect();
        for (path, source) in [("/x", "one"), ("/a", "three"), ("/a/b", "three"), ("/a/b/c/d", "five")] {
            assert_eq!(source_of(&table, Path::new(path)), Some(source), "{path}");
        }
        assert_eq!(source_of(&[], Path::new("/x")), None);
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
    fn a_bind_mount_goes_and_the_original_stays() {
        let info = Path::new("/proc/self/mountinfo");
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["shared", "bound"] {
            fs::create_dir(path(name)).unwrap();
        }
        mount_tmpfs(&path("shared"), 1 << 20).expect("this test mounts, and needs root");
        mount(None::<&str>, &path("shared"), None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        fs::create_dir(path("shared/inner")).unwrap();
        bind(fs::File::open(path("shared")).unwrap(), &path("bound"), Sharing::Shared).unwrap();
        mount_tmpfs(&path("shared/inner"), 0).unwrap();
        let points = |name: &str| below(info, &path(name)).unwrap().len();
        // What is mounted in one shows in the other.
        assert_eq!((points("shared"), points("bound")), (2, 2));
        assert_eq!(at(info, &path("bound")).unwrap().len(), 1);
        unmount_with_all_below(info, &path("bound")).unwrap();
        assert_eq!((points("shared"), points("bound")), (2, 0));
        unmount_with_all_below(info, &path("bound")).unwrap();
        unmount_with_all_below(info, &path("absent")).unwrap();

        unmount(&path("shared/inner")).unwrap();
        bind(fs::File::open(path("shared")).unwrap(), &path("bound"), Sharing::Private).unwrap();
        fs::create_dir(path("shared/news")).unwrap();
        mount_tmpfs(&path("shared/news"), 0).unwrap();
        assert_eq!((points("shared"), points("bound")), (2, 1));
        unmount_with_all_below(info, &path("bound")).unwrap();
        unmount_with_all_below(info, &path("shared")).unwrap();
        assert_eq!((points("shared"), points("bound")), (0, 0));
        assert_eq!(at(info, &path("bound")).unwrap(), []);
    }

    #[test]
    fn a_hidden_mount_is_an_error_and_no_endless_work() {
        let info = Path::new("/proc/self/mountinfo");
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("over/place");
        fs::create_dir_all(&place).unwrap();
        for _ in 0..3 {
            mount_tmpfs(&place, 1 << 20).expect("this test mounts, and needs root");
        }
        unmount_every(info, &place).unwrap();
        assert_eq!(at(info, &place).unwrap(), []);
        mount_tmpfs(&place, 1 << 20).unwrap();
        mount_tmpfs(&root.path().join("over"), 1 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        let hidden = unmount_every(info, &place);
        unmount(&root.path().join("over")).unwrap();
        let error = hidden.unwrap_err().to_string();
        assert!(error.contains("over/place") && error.contains("mounted over"), "{error}");
        unmount_every(info, &place).unwrap();
        assert_eq!(at(info, &place).unwrap(), []);
    }

    #[test]
    fn huge_pages_are_mounted_with_their_size() {
        let Some(page) = fs::read_dir("/sys/kernel/mm/hugepages").ok().and_then(|mut all| {
            let name = all.next()?.ok()?.file_name().into_string().ok()?;
            name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
        }) else {
            // A kernel without huge pages says so.
            let root = tempfile::tempdir().unwrap();
            assert!(mount_huge_pages(root.path(), 2 << 20).is_err());
            return;
        };
        let root = tempfile::tempdir().unwrap();
        mount_huge_pages(root.path(), page << 10).expect("this test mounts, and needs root");
        let found = at(Path::new("/proc/self/mountinfo"), root.path()).unwrap();
        let size = nix::sys::statfs::statfs(root.path()).map(|stat| stat.block_size());
        unmount(root.path()).unwrap();
        assert_eq!(found.iter().map(|mount| mount.fs_type.as_str()).collect::<Vec<_>>(), ["hugetlbfs"]);
        assert_eq!(u64::try_from(size.unwrap()).unwrap(), page << 10);
        assert!(mount_huge_pages(root.path(), 12_345).is_err());
    }

    #[test]
    fn the_running_systems_file_is_understood() {
        let all = read(Path::new("/proc/self/mountinfo")).unwrap();
        assert!(all.iter().any(|mount| mount.point == Path::new("/") && !mount.fs_type.is_empty()));
    }
}
