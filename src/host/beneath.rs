//! Opening and making what lies below a folder whose content somebody else controls, who may change it at
//! any moment: a path there is never looked at first and used afterwards. The kernel resolves it within
//! the folder, and what comes of it is held by an open file, which no rename and no link can turn into
//! something else.
//!
//! Links are followed as long as they stay below the folder, as kubelet does (`subPath` of
//! pkg/volume/util/subpath). An absolute link leads out of the folder for the kernel; one that in truth
//! leads into it, as administrators make them in folders of the host, is resolved first and then opened
//! without following any link. In a folder of a pod's own no link means a path of the host, and none is
//! looked after there.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::geteuid,
};

/// How often a resolution is tried anew that a rename elsewhere disturbed.
const TRIES: usize = 64;
/// A folder that is only referred to.
const REFERENCE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);
const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How a new folder is made, before it gets its mode.
const NEW: Mode = Mode::S_IRWXU;
/// What a new folder may take over of the mode of the volume's own: not the sticky bit, which concerns
/// that folder's entries.
const INHERITED: u32 = 0o2777;

/// Whose folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The host's: an absolute link is a path of the host.
    Host,
    /// A pod's.
    Pod,
}

/// Opens what a path below a folder leads to, to be referred to only (`O_PATH`). The empty path is the
/// folder itself, which may be a file then. Blocks on the file system.
///
/// # Errors
/// As `openat2`; `EXDEV` for a path that leads out of the folder, `EINVAL` for one that is not relative.
pub fn open_beneath(folder: &Path, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
    let top = open(folder, REFERENCE, Mode::empty())?;
    open_below(top.as_fd(), folder, &relative(path)?, owner)
}

/// The same, and makes the folders on the path that are not there, with the mode of the folder. Blocks on
/// the file system.
///
/// # Errors
/// As [`open_beneath`] and `mkdir`; `EEXIST` if something is there that cannot be opened, e.g. a link to
/// nothing.
pub fn make_beneath(folder: &Path, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
    let top = open(folder, REFERENCE, Mode::empty())?;
    let path = relative(path)?;
    match open_below(top.as_fd(), folder, &path, owner) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mode = Mode::from_bits_truncate(fstat(&top)?.st_mode & INHERITED);
    let (mut at, missing) = deepest(&top, folder, &path, owner)?;
    for name in missing {
        match mkdirat(&at, &name, NEW) {
            Ok(()) => {
                at = step(at.as_fd(), &name)?;
                settle(&at, mode)?;
            }
            // Somebody else made it meanwhile: it is a folder, or in the way.
            Err(Errno::EEXIST) => match step(at.as_fd(), &name) {
                Ok(folder) => at = folder,
                Err(_) => return Err(Errno::EEXIST.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    // To be referred to only, as what was there is.
    Ok(openat2(&at, ".", how(REFERENCE, ResolveFlag::RESOLVE_BENEATH))?)
}

/// The longest beginning of the path that is there, opened, and the rest of it.
fn deepest(top: &OwnedFd, folder: &Path, path: &Path, owner: Owner) -> io::Result<(OwnedFd, Vec<PathBuf>)> {
    let mut missing = Vec::new();
    let mut start = path.to_owned();
    loop {
        let Some(name) = start.file_name().map(PathBuf::from) else {
            let how = how(FOLDER | OFlag::O_RDONLY, ResolveFlag::RESOLVE_BENEATH);
            return Ok((openat2(top, ".", how)?, reversed(missing)));
        };
        missing.push(name);
        start.pop();
        match open_below(top.as_fd(), folder, &start, owner) {
            Ok(found) => {
                let how = how(FOLDER | OFlag::O_RDONLY, ResolveFlag::RESOLVE_BENEATH);
                return Ok((openat2(&found, ".", how)?, reversed(missing)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives a new folder its mode, which is not left to the umask. By its name it was opened after it was made:
/// what is open may be another, put in its place. Nothing but an empty folder as they are made here gets
/// a mode.
fn settle(made: &OwnedFd, mode: Mode) -> io::Result<()> {
    let found = fstat(made)?;
    // On some file systems the mode is everybody's and cannot be set.
    if found.st_mode & 0o7777 == mode.bits() {
        return Ok(());
    }
    let as_made = found.st_uid == geteuid().as_raw() && found.st_mode & 0o5777 == NEW.bits();
    if !as_made || !is_empty(made)? {
        let message = "the folder that was made was exchanged for another at once";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
    }
    Ok(fchmod(made, mode)?)
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    let entries = Dir::openat(folder, c".", FOLDER | OFlag::O_RDONLY, Mode::empty())?;
    for entry in entries {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn reversed(mut names: Vec<PathBuf>) -> Vec<PathBuf> {
    names.reverse();
    names
}

/// Opens a folder right below another one, which must be no link.
fn step(at: BorrowedFd<'_>, name: &Path) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(at, name, how(FOLDER | OFlag::O_RDONLY, resolve))
}

fn open_below(top: BorrowedFd<'_>, folder: &Path, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return top.try_clone_to_owned();
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match persistently(|| openat2(top, path, how(REFERENCE, resolve))) {
        Err(error) if error.raw_os_error() == Some(Errno::EXDEV as i32) && owner == Owner::Host => {}
        result => return result,
    }
    // What is found here may be another thing at once: it only says which path without links to try.
    let (Ok(real), whole) = (fs::canonicalize(folder.join(path)), fs::canonicalize(folder)?) else {
        return Err(Errno::EXDEV.into());
    };
    let Ok(inner) = real.strip_prefix(whole) else { return Err(Errno::EXDEV.into()) };
    if inner.as_os_str().is_empty() {
        return top.try_clone_to_owned();
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    persistently(|| openat2(top, inner, how(REFERENCE, resolve)))
}

/// A path that goes up is refused by the kernel while something is renamed at the same time. Somebody who
/// renames without end gets an error for it, not a thread.
pub(super) fn persistently(mut attempt: impl FnMut() -> nix::Result<OwnedFd>) -> io::Result<OwnedFd> {
    for _ in 0..TRIES {
        match attempt() {
            Err(Errno::EAGAIN) => {}
            result => return Ok(result?),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "something is renamed on the way all the time"))
}

fn how(flags: OFlag, resolve: ResolveFlag) -> OpenHow {
    OpenHow::new().flags(flags).resolve(resolve)
}

/// The path in its plain form.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            fd::AsRawFd as _,
            unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        },
        sync::atomic::{AtomicBool, Ordering},
    };

    use proptest::prelude::*;

    use super::*;

    /// Where an open file is.
    fn place(file: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
    }

    fn code(result: io::Result<OwnedFd>) -> Option<Errno> {
        result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
    }

    #[test]
    fn links_are_followed_inside_and_not_out() {
        let root = tempfile::tempdir().unwrap();
        let (volume, secret) = (root.path().join("volume"), root.path().join("secret"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::write(volume.join("a/file"), "").unwrap();
        symlink("a/b", volume.join("inside")).unwrap();
        symlink("../file", volume.join("a/b/up")).unwrap();
        symlink(volume.join("a"), volume.join("absolute")).unwrap();
        symlink(&volume, volume.join("self")).unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink(&secret, volume.join("absolute-out")).unwrap();
        symlink("/", volume.join("root")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        let open = |path: &str| open_beneath(&volume, Path::new(path), Owner::Host);
        for (path, found) in [
            ("", ""),
            ("a//./b/", "a/b"),
            ("inside", "a/b"),
            ("inside/up", "a/file"),
            ("absolute/file", "a/file"),
            ("self/a", "a"),
            ("self", ""),
        ] {
            assert_eq!(place(&open(path).unwrap()), volume.join(found).components().collect::<PathBuf>());
        }
        for (path, expected) in [
            ("out", Errno::EXDEV),
            ("absolute-out", Errno::EXDEV),
            ("root", Errno::EXDEV),
            ("root/etc/passwd", Errno::EXDEV),
            ("magic", Errno::EXDEV),
            ("loop", Errno::ELOOP),
            ("absent", Errno::ENOENT),
            ("a/file/x", Errno::ENOTDIR),
            ("..", Errno::EINVAL),
            ("a/../../secret", Errno::EINVAL),
            ("/etc", Errno::EINVAL),
        ] {
            assert_eq!(code(open(path)), Some(expected), "{path}");
            assert_eq!(
                code(make_beneath(&volume, Path::new(path), Owner::Host)).is_some(),
                path != "absent",
                "{path}"
            );
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0);
        // In a pod's own folder no link is a path of the host.
        let open = |path: &str| open_beneath(&volume, Path::new(path), Owner::Pod);
        assert_eq!(place(&open("inside/up").unwrap()), volume.join("a/file"));
        for path in ["absolute/file", "self", "absolute-out", "out"] {
            assert_eq!(code(open(path)), Some(Errno::EXDEV), "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_made_with_the_volumes_mode() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("a")).unwrap();
        nix::unistd::chown(&volume, None, Some(1234.into())).expect("this test needs root");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o3777)).unwrap();
        symlink("a", volume.join("link")).unwrap();
        symlink("nowhere", volume.join("dangling")).unwrap();
        let made = make_beneath(&volume, Path::new("x/y/z"), Owner::Host).unwrap();
        assert_eq!(place(&made), volume.join("x/y/z"));
        for folder in ["x", "x/y", "x/y/z"] {
            let metadata = fs::metadata(volume.join(folder)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o2777, 1234), "{folder}");
        }
        assert_eq!(
            place(&make_beneath(&volume, Path::new("link/n"), Owner::Host).unwrap()),
            volume.join("a/n")
        );
        assert_eq!(
            place(&make_beneath(&volume, Path::new("x/y/z"), Owner::Host).unwrap()),
            volume.join("x/y/z")
        );
        assert_eq!(code(make_beneath(&volume, Path::new("dangling"), Owner::Pod)), Some(Errno::EEXIST));
        assert_eq!(code(make_beneath(&volume, Path::new("dangling/x"), Owner::Host)), Some(Errno::EEXIST));
        assert!(!volume.join("nowhere").exists());
        // A volume may be a file, of which nothing is below.
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(place(&open_beneath(&file, Path::new(""), Owner::Host).unwrap()), file);
        assert_eq!(code(make_beneath(&file, Path::new("x"), Owner::Host)), Some(Errno::ENOTDIR));
    }

    #[test]
    fn only_a_folder_as_it_was_made_gets_a_mode() {
        let root = tempfile::tempdir().unwrap();
        let wanted = Mode::from_bits_truncate(0o2777);
        let with = |name: &str, mode: u32| {
            let path = root.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let after = |path: &Path| {
            let found = open(path, FOLDER | OFlag::O_RDONLY, Mode::empty()).unwrap();
            let result = settle(&found, wanted);
            (result.is_ok(), fs::metadata(path).unwrap().mode() & 0o7777)
        };
        assert_eq!(after(&with("new", 0o700)), (true, 0o2777));
        assert_eq!(after(&with("in-a-group", 0o2700)), (true, 0o2777));
        assert_eq!(after(&with("already", 0o2777)), (true, 0o2777));
        assert_eq!(after(&with("other", 0o750)), (false, 0o750));
        let full = with("full", 0o700);
        fs::write(full.join("key"), "").unwrap();
        assert_eq!(after(&full), (false, 0o700));
        let foreign = with("foreign", 0o700);
        nix::unistd::chown(&foreign, Some(1234.into()), None).expect("this test needs root");
        assert_eq!(after(&foreign), (false, 0o700));
    }

    #[test]
    fn who_renames_all_the_time_is_given_up() {
        let mut tries = 0;
        let result = persistently(|| {
            tries += 1;
            Err(Errno::EAGAIN)
        });
        assert_eq!((result.unwrap_err().kind(), tries), (io::ErrorKind::WouldBlock, TRIES));
        let result = persistently(|| Err(Errno::ELOOP));
        assert_eq!(code(result), Some(Errno::ELOOP));
    }

    #[test]
    fn a_race_never_leads_out() {
        let root = tempfile::tempdir().unwrap();
        let (volume, secret) = (root.path().join("volume"), root.path().join("secret"));
        fs::create_dir_all(volume.join("real/sub")).unwrap();
        fs::create_dir_all(secret.join("sub")).unwrap();
        let done = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                // A folder, a link out, nothing, and again.
                let (at, aside) = (volume.join("at"), volume.join("aside"));
                let mut turn = 0;
                while !done.load(Ordering::Relaxed) {
                    while fs::rename(volume.join("real"), &at).is_err() {
                        // What was made meanwhile is in the way.
                        fs::remove_dir_all(&at).ok();
                    }
                    fs::rename(&at, volume.join("real")).unwrap();
                    let target = if turn % 2 == 0 { Path::new("../secret") } else { &secret };
                    symlink(target, &aside).unwrap();
                    while fs::rename(&aside, &at).is_err() {
                        fs::remove_dir_all(&at).ok();
                    }
                    fs::remove_file(&at).unwrap();
                    turn += 1;
                }
            });
            let mut found = Vec::new();
            for round in 0..4_000 {
                let path = Path::new(if round % 2 == 0 { "at/sub" } else { "at/sub/deep" });
                let result = if round % 3 == 0 {
                    make_beneath(&volume, path, Owner::Host)
                } else {
                    open_beneath(&volume, path, Owner::Host)
                };
                found.extend(result.ok().map(|file| place(&file)));
            }
            done.store(true, Ordering::Relaxed);
            found
        });
        assert!(!found.is_empty());
        let outside: Vec<_> = found.iter().filter(|place| !place.starts_with(&volume)).collect();
        assert!(outside.is_empty(), "{outside:?}");
        assert_eq!(fs::read_dir(secret.join("sub")).unwrap().count(), 0);
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    /// One entry of a random tree: where it is, and what a link there says.
    fn entry() -> impl Strategy<Value = (Vec<usize>, Option<String>)> {
        let path = || prop::collection::vec(0..NAMES.len(), 1..4);
        let part = prop_oneof![Just(".."), Just("."), prop::sample::select(&NAMES[..])];
        let link = (any::<bool>(), prop::collection::vec(part, 1..5))
            .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")));
        (path(), prop::option::of(link))
    }

    fn joined(path: &[usize]) -> PathBuf {
        path.iter().map(|name| NAMES[*name]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn nothing_outside_is_ever_opened_or_made(
            entries in prop::collection::vec(entry(), 0..12),
            asked in prop::collection::vec(prop::collection::vec(0..NAMES.len(), 0..5), 1..6),
        ) {
            let root = tempfile::tempdir().unwrap();
            let volume = root.path().join("outer/volume");
            fs::create_dir_all(&volume).unwrap();
            // Names that links may lead to outside.
            for name in ["a", "b"] {
                fs::create_dir(root.path().join("outer").join(name)).unwrap();
            }
            for (path, link) in &entries {
                let at = volume.join(joined(path));
                // What an earlier link makes impossible is left out; nothing is made through links.
                if at.parent().and_then(|p| fs::canonicalize(p).ok()).is_some_and(|p| p.starts_with(&volume)) {
                    match link {
                        Some(target) => symlink(target, &at).ok(),
                        None => fs::create_dir(&at).ok(),
                    };
                }
            }
            let before: Vec<PathBuf> = outside(root.path(), &volume);
            for path in &asked {
                let path = joined(path);
                let results = [open_beneath(&volume, &path, Owner::Host), make_beneath(&volume, &path, Owner::Host)];
                for file in results.into_iter().flatten() {
                    let place = place(&file);
                    prop_assert!(place.starts_with(&volume), "{} is {}", path.display(), place.display());
                }
            }
            prop_assert_eq!(outside(root.path(), &volume), before);
        }
    }

    /// All that is below a folder and not below the volume.
    fn outside(root: &Path, volume: &Path) -> Vec<PathBuf> {
        let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                let path = entry.path();
                if path != *volume && entry.file_type().unwrap().is_dir() {
                    open.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}
