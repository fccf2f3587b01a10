//! An RPM database of a folder, which nobody but rpm reads: this machine's own is asked, and nothing of the folder is run.
//! It is asked as nobody, about a copy: whoever made the folder made the database too, and opening one may write to it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Look, program};

/// Where it is: today's place, and the one of before, which mostly leads there.
const FOLDERS: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];
/// Its main file: of SQLite, of SUSE's ndb, of Berkeley DB.
const MAIN: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];
/// What belongs to it: the other files are made anew from these.
const BESIDE: [&str; 2] = ["rpmdb.sqlite-wal", "Index.db"];
/// Bytes of a file of it. A desktop's has some 300 MiB.
const MAX: u64 = 2 << 30;
/// For large things that are soon gone, on a disk.
const SCRATCH: &str = "/var/tmp/nodectl-rpm-XXXXXX";
/// Who owns nothing: `nobody`.
const NOBODY: u32 = 65_534;
/// Two thousand packages take it a second.
const LIMIT: Duration = Duration::from_secs(60);

/// The database of a folder, and what is in it.
#[derive(Debug)]
pub(super) struct Database {
    /// Its main file.
    pub(super) path: PathBuf,
    /// Names and versions without epochs; else why they are not known, in a sentence.
    pub(super) packages: Result<Vec<(String, String)>, String>,
}

/// The folder's database, if it has one.
pub(super) async fn database(look: &Look<'_>) -> Option<Database> {
    let mut all = FOLDERS.iter().flat_map(|folder| MAIN.map(|name| Path::new(folder).join(name)));
    let path = all.find(|path| look.rooted.exists(path))?;
    let packages = packages(look, &path).await;
    Some(Database { path, packages })
}

async fn packages(look: &Look<'_>, main: &Path) -> Result<Vec<(String, String)>, String> {
    let rpm = look.own_program("rpm", |path| !is_within(path, look.place.root.as_deref()));
    let rpm = rpm.ok_or(
        "there is no program rpm to ask but in the folder, if there (on Debian: apt-get install rpm)",
    )?;
    let copy = Copy::of(look, main).map_err(|error| format!("it cannot be copied: {error}"))?;
    let folder = copy.0.to_string_lossy();
    let arguments =
        ["--dbpath", &*folder, "--nosignature", "--nodigest", "-qa", "--qf", "%{NAME} %{VERSION}\\n"];
    let said = program::output_as(look.rooted.watch(), &rpm, &arguments, Some(NOBODY), LIMIT).await?;
    let packages: Vec<(String, String)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect();
    // One of a kind that it does not know is an empty one to it.
    if packages.is_empty() {
        return Err(format!("{} finds no package in it, or does not know its kind", rpm.display()));
    }
    Ok(packages)
}

/// Whether a program is in a folder, whatever links lead there. One that cannot be told is.
fn is_within(program: &Path, root: Option<&Path>) -> bool {
    let Some(root) = root.and_then(|root| root.canonicalize().ok()) else { return true };
    program.canonicalize().map_or(true, |program| program.starts_with(root))
}

/// A folder with a copy, which is nobody's.
struct Copy(PathBuf);

impl Copy {
    fn of(look: &Look<'_>, main: &Path) -> io::Result<Self> {
        let copy = Self(nix::unistd::mkdtemp(SCRATCH)?);
        let folder = main.parent().unwrap_or(main);
        let names = main.file_name().and_then(|name| name.to_str()).into_iter().chain(BESIDE);
        for name in names {
            let from = folder.join(name);
            if !look.rooted.exists(&from) {
                continue;
            }
            let to = copy.0.join(name);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&to)?;
            look.rooted.stream(&from, MAX, |bytes| file.write_all(bytes))?;
            chown(&to, Some(NOBODY), Some(NOBODY))?;
        }
        chown(&copy.0, Some(NOBODY), Some(NOBODY))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
