//! A node's files: those of the running one, or of a folder that holds one, such as a mounted image.
//!
//! In a folder every path is resolved by the kernel as if the folder were the root of all (openat2, Linux 5.6):
//! no link of the image, absolute or with dots, leads to a file of the machine that it is mounted on.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::{
    files::{self, MAX_FILE, Saved},
    systemd::unit::Files,
    watch::Watch,
};

/// How often a resolution is tried anew that a rename elsewhere disturbed.
const TRIES: usize = 64;
/// Links that lead to links, as the kernel has it.
const MAX_LINKS: usize = 40;
/// Names in a folder; one of configurations has a few.
const MAX_NAMES: usize = 16_384;
const REFERENCE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Where a node's files are.
#[derive(Debug, Clone, Default)]
pub struct Rooted {
    root: Option<Arc<Root>>,
    watch: Watch,
}

#[derive(Debug)]
struct Root {
    folder: OwnedFd,
    /// Without a link in it.
    path: PathBuf,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What root can still write.
    pub available: u64,
    /// In all.
    pub total: u64,
    /// Its number.
    pub device: u64,
}

/// A file's place in a folder that is held open: nothing that is put in the folder's place leads elsewhere.
struct Place {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Rooted {
    /// The running node.
    pub fn node() -> Self {
        Self::default()
    }

    /// A folder that holds a node.
    ///
    /// # Errors
    /// When it is no folder, and on a kernel without openat2.
    pub fn folder(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::openat(CWD, path, REFERENCE | OFlags::DIRECTORY, Mode::empty())?;
        let real = location(&folder)?;
        let root = Some(Arc::new(Root { folder, path: real }));
        let rooted = Self { root, watch: Watch::default() };
        rooted.find(Path::new("/")).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOSYS | Errno::PERM) => {
                io::Error::other("files cannot be kept within a folder here: openat2 (Linux 5.6) is missing")
            }
            _ => error,
        })?;
        Ok(rooted)
    }

    /// With somebody who watches what is looked at.
    #[must_use]
    pub fn watched(self, watch: Watch) -> Self {
        Self { watch, ..self }
    }

    /// Who watches.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Whether this is the running node.
    pub fn is_node(&self) -> bool {
        self.root.is_none()
    }

    /// What a path leads to, to be referred to only.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, REFERENCE)
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let Some(root) = &self.root else {
            return Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // One that goes up is refused while something is renamed at the same time.
        for _ in 0..TRIES {
            match rustix::fs::openat2(&root.folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "something is renamed on the way all the time"))
    }

    /// What is at a path; `None` if it is not there.
    fn look(&self, path: &Path) -> io::Result<Option<(OwnedFd, Stat)>> {
        match self.find(path) {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found)?;
                Ok(Some((found, stat)))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file's bytes, at most `limit`; `None` if it is not there. What leads to `/dev/null` has none, also where
    /// an image has no devices.
    ///
    /// # Errors
    /// When it cannot be read, is no file, or has more bytes.
    pub fn bytes(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let Some((found, stat)) = self.look(path)? else {
                return Ok(self.leads_to_null(path).then(Vec::new));
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {}
                FileType::CharacterDevice if stat.st_rdev == rustix::fs::makedev(1, 3) => {
                    return Ok(Some(Vec::new()));
                }
                _ => return Err(io::Error::other("is no regular file")),
            }
            let mut bytes = Vec::new();
            // The same file, whatever the path has come to mean.
            let file = File::open(as_path(&found))?;
            file.take(limit + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(io::Error::other(format!("has more than {} MiB", limit >> 20)));
            }
            Ok(Some(bytes))
        };
        self.watch.during(path, read).map_err(|error| named(path, &error))
    }

    /// Hands a file's bytes on, at most `limit`, piece by piece.
    ///
    /// # Errors
    /// When it cannot be read, is no file, or has more bytes, and those of `take`.
    pub fn stream(
        &self,
        path: &Path,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let open = || -> io::Result<File> {
            let (found, stat) = self.look(path)?.ok_or(io::ErrorKind::NotFound)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("is no regular file"));
            }
            File::open(as_path(&found))
        };
        let mut file = self.watch.during(path, open).map_err(|error| named(path, &error))?;
        let (mut buffer, mut all) = (vec![0; 1 << 20], 0_u64);
        loop {
            let read =
                self.watch.during(path, || file.read(&mut buffer)).map_err(|error| named(path, &error))?;
            all += read as u64;
            if all > limit {
                return Err(named(path, &io::Error::other(format!("has more than {} MiB", limit >> 20))));
            }
            match buffer.get(..read) {
                Some(bytes) if read > 0 => take(bytes)?,
                _ => return Ok(()),
            }
        }
    }

    /// A link whose last target is `/dev/null`, which need not be there.
    fn leads_to_null(&self, path: &Path) -> bool {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            if path == Path::new("/dev/null") {
                return true;
            }
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
            let Ok(folder) = self.find(parent) else { return false };
            let Ok(target) = rustix::fs::readlinkat(&folder, name, Vec::new()) else { return false };
            let Ok(target) = target.into_string() else { return false };
            path = parent.join(target);
        }
        false
    }

    /// Whether there is something.
    pub fn exists(&self, path: &Path) -> bool {
        matches!(self.watch.during(path, || self.look(path)), Ok(Some(_)))
    }

    /// Whether there is a program.
    pub fn is_program(&self, path: &Path) -> bool {
        let is = |stat: Stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
        };
        matches!(self.watch.during(path, || self.look(path)), Ok(Some((_, stat))) if is(stat))
    }

    /// The room where a path is, or will be: on the file system of the nearest folder that is there.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn room(&self, path: &Path) -> io::Result<Room> {
        for at in path.ancestors() {
            let look = || match self.look(at)? {
                Some((found, stat)) => Ok(Some((rustix::fs::fstatvfs(&found)?, stat))),
                None => Ok(None),
            };
            let told = self.watch.during(at, look).map_err(|error: io::Error| named(at, &error))?;
            let Some((told, stat)) = told else { continue };
            return Ok(Room {
                available: told.f_bavail.saturating_mul(told.f_frsize),
                total: told.f_blocks.saturating_mul(told.f_frsize),
                device: stat.st_dev,
            });
        }
        Err(named(path, &io::ErrorKind::NotFound.into()))
    }

    /// A path without links: the file that a change has to be made in. What is not there yet is where it would be
    /// made.
    ///
    /// # Errors
    /// When it cannot be followed, as a link to what is not there.
    pub fn real(&self, path: &Path) -> io::Result<PathBuf> {
        let follow = || -> io::Result<PathBuf> {
            let mut missing: Vec<&std::ffi::OsStr> = Vec::new();
            for at in path.ancestors() {
                if let Some((found, _)) = self.look(at)? {
                    let place = self.inside(&location(&found)?)?;
                    if let Some(first) = missing.last()
                        && rustix::fs::statat(&found, *first, AtFlags::SYMLINK_NOFOLLOW).is_ok()
                    {
                        return Err(io::Error::other("is a link to what is not there"));
                    }
                    return Ok(missing.iter().rev().fold(place, |place, name| place.join(name)));
                }
                match at.file_name() {
                    Some(name) => missing.push(name),
                    None => return Err(io::ErrorKind::NotFound.into()),
                }
            }
            Err(io::ErrorKind::NotFound.into())
        };
        self.watch.during(path, follow).map_err(|error| named(path, &error))
    }

    /// Where a path of the node is on this machine, without links: what is made there is made in the node.
    ///
    /// # Errors
    /// As [`Rooted::real`].
    pub fn outside(&self, path: &Path) -> io::Result<PathBuf> {
        let Some(root) = &self.root else { return Ok(path.to_owned()) };
        let inside = self.real(path)?;
        Ok(root.path.join(inside.strip_prefix("/").unwrap_or(&inside)))
    }

    /// The path below the root of what is at a path of this machine.
    fn inside(&self, place: &Path) -> io::Result<PathBuf> {
        let Some(root) = &self.root else { return Ok(place.to_owned()) };
        let inside =
            place.strip_prefix(&root.path).map_err(|_prefix| io::Error::other("was moved meanwhile"))?;
        Ok(Path::new("/").join(inside))
    }

    /// As [`files::save`].
    ///
    /// # Errors
    /// As there; for a file in a folder also if it is a link.
    pub fn save(&self, path: &Path, folder: &Path, name: &str) -> io::Result<Option<Saved>> {
        let Some(place) = self.place(path, false)? else { return Ok(None) };
        files::save(&place.path, folder, name).map_err(|error| named(path, &error))
    }

    /// As [`files::restore`].
    ///
    /// # Errors
    /// As [`Rooted::save`].
    pub fn restore(&self, path: &Path, saved: &Saved, folder: &Path) -> io::Result<()> {
        let Some(place) = self.place(path, true)? else { return Ok(()) };
        files::restore(&place.path, saved, folder).map_err(|error| named(path, &error))
    }

    /// As [`files::write`].
    ///
    /// # Errors
    /// As [`Rooted::save`].
    pub fn write(&self, path: &Path, text: &str, mode: u32) -> io::Result<bool> {
        let Some(place) = self.place(path, true)? else { return Ok(false) };
        files::write(&place.path, text, mode).map_err(|error| named(path, &error))
    }

    /// Whether a file could be given a text, or taken away, as far as a try tells that leaves nothing: nothing protects
    /// it, and its folder, or the nearest one that is there, takes that text under another name.
    ///
    /// # Errors
    /// Why it could not be, with the path.
    pub fn try_write(&self, path: &Path, text: &str) -> io::Result<()> {
        let attempt = || -> io::Result<()> {
            if let Some((found, _)) = self.look(path)? {
                let like = rustix::fs::statx(&found, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
                let is = |attribute| like.stx_attributes.contains(attribute);
                if is(StatxAttributes::IMMUTABLE) || is(StatxAttributes::APPEND) {
                    return Err(io::Error::other("is protected by an attribute (chattr -i, chattr -a)"));
                }
                if is(StatxAttributes::MOUNT_ROOT) {
                    return Err(io::Error::other("is mounted, and cannot be replaced so"));
                }
            }
            let name = path.file_name().ok_or_else(|| io::Error::other("is no path of a file"))?;
            for folder in path.ancestors().skip(1) {
                if let Some((found, _)) = self.look(folder)? {
                    return files::try_write(&as_path(&found), name, text);
                }
            }
            Err(io::ErrorKind::NotFound.into())
        };
        self.watch.during(path, attempt).map_err(|error| named(path, &error))
    }

    /// As [`files::remove`].
    ///
    /// # Errors
    /// As [`Rooted::save`].
    pub fn remove(&self, path: &Path, folders: &[PathBuf]) -> io::Result<()> {
        if let Some(place) = self.place(path, false)? {
            files::remove(&place.path, &[]).map_err(|error| named(path, &error))?;
        }
        for folder in folders.iter().rev() {
            let Some(place) = self.place(folder, false)? else { continue };
            // Somebody else may have put something there since.
            if fs::remove_dir(&place.path).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// As [`files::missing_folders`].
    pub fn missing_folders(&self, path: &Path) -> Vec<PathBuf> {
        let above = path.ancestors().skip(1).take_while(|folder| !self.exists(folder));
        let mut missing: Vec<PathBuf> = above.map(Path::to_path_buf).collect();
        missing.reverse();
        missing
    }

    /// Where a file is, that itself is no link; `None` if its folder is not there and is not to be made.
    fn place(&self, path: &Path, make: bool) -> io::Result<Option<Place>> {
        if self.root.is_none() {
            return Ok(Some(Place { path: path.to_owned(), _folder: None }));
        }
        let find = || -> io::Result<Option<Place>> {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(io::Error::other("is no path of a file"));
            };
            let folder = match self.find(parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && make => self.make(parent)?,
                Err(error) if is_absent(&error) => return Ok(None),
                result => result?,
            };
            let like = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
            if like.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
                return Err(io::Error::other("is a link: what it leads to is to be changed"));
            }
            Ok(Some(Place { path: as_path(&folder).join(name), _folder: Some(folder) }))
        };
        find().map_err(|error| named(path, &error))
    }

    /// Makes the folders of a path that are not there.
    fn make(&self, folder: &Path) -> io::Result<OwnedFd> {
        let missing = self.missing_folders(&folder.join("x"));
        let mut at = match missing.first().and_then(|first| first.parent()) {
            Some(there) => self.find(there)?,
            None => return self.find(folder),
        };
        for folder in &missing {
            let Some(name @ Component::Normal(_)) = folder.components().next_back() else { continue };
            match rustix::fs::mkdirat(&at, name.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let flags = REFERENCE | OFlags::DIRECTORY;
            at = rustix::fs::openat2(at.as_fd(), name.as_os_str(), flags, Mode::empty(), resolve)?;
        }
        Ok(at)
    }
}

impl Files for Rooted {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        let Some(bytes) = self.bytes(path, MAX_FILE)? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_utf8| named(path, &io::Error::other("is not UTF-8")))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let found = match self.open(folder, REFERENCE | OFlags::DIRECTORY) {
                Err(error) if is_absent(&error) => return Ok(Vec::new()),
                result => result?,
            };
            let mut names = Vec::new();
            for entry in fs::read_dir(as_path(&found))? {
                // A name that is not UTF-8 is none that anything here looks for.
                names.extend(entry?.file_name().into_string().ok());
                if names.len() > MAX_NAMES {
                    return Err(io::Error::other(format!("has more than {MAX_NAMES} files")));
                }
            }
            Ok(names)
        };
        self.watch.during(folder, list).map_err(|error| named(folder, &error))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A path of what is open, which only this process has.
fn as_path(open: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()))
}

fn location(open: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(as_path(open))
}
