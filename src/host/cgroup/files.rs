//! Files of a cgroup: written where they say something else.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::CgroupError;
use crate::api::cgroup::Limit;

/// What was said already and is not said again.
#[derive(Debug, Default)]
pub(super) struct Once(Mutex<HashSet<String>>);

impl Once {
    /// Warns of what the process may not do, once for a file's name and a cause.
    fn tell(&self, path: &Path, what: &str, error: &io::Error) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(format!("{what} {name} {:?}", error.kind())) {
            tracing::warn!(
                path = %path.display(),
                "cannot {what} in a cgroup, going on without (not said again): {error}"
            );
        }
    }
}

/// Whether the process lacks the right, or the kernel the file: no trying again would help. What is not
/// found in a folder that is gone itself may be there with the next try.
fn is_denied(error: &io::Error, folder: &Path) -> bool {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => true,
        io::ErrorKind::NotFound => folder.is_dir(),
        _ => false,
    }
}

/// A file with what it is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) text: String,
    /// Whether a kernel without the file is as good.
    pub(super) optional: bool,
}

impl Setting {
    pub(super) fn new(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), text: text.into(), optional: false }
    }

    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn holds(&self, folder: &Path) -> io::Result<bool> {
        let now = fs::read_to_string(folder.join(&self.file))?;
        Ok(says(now.trim(), &self.text))
    }

    pub(super) fn is_set(&self, folder: &Path) -> bool {
        // What cannot be read here cannot be written either.
        self.holds(folder).unwrap_or(true)
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        // Not made where it is missing: in a cgroup the kernel makes the files.
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(folder.join(&self.file))?
            .write_all(self.text.as_bytes())
    }
}

/// Whether a file's content means what was asked for. The kernel rounds bytes down to whole pages, and says
/// no limit as the largest number of pages (v1) or as a word (v2).
fn says(now: &str, wanted: &str) -> bool {
    const LARGEST_PAGE: u64 = 64 << 10;
    const UNLIMITED: u64 = i64::MAX.unsigned_abs() - LARGEST_PAGE;
    if now == wanted {
        return true;
    }
    let (Ok(now), wanted) = (now.parse::<u64>(), wanted.parse::<i64>()) else { return false };
    match wanted {
        Ok(-1) => now >= UNLIMITED,
        Ok(wanted) => {
            let wanted = wanted.unsigned_abs();
            now < wanted && now > LARGEST_PAGE && wanted - now < LARGEST_PAGE
        }
        Err(_) => false,
    }
}

/// Sets what differs. The kernel may refuse a value for as long as another has not changed (a shorter period
/// before a smaller quota), so what fails is tried once more after the others.
pub(super) fn set(folder: &Path, settings: &[Setting], once: &Once) -> Result<(), CgroupError> {
    let mut failed = Vec::new();
    for setting in settings {
        match try_set(folder, setting) {
            Ok(()) => {}
            Err(error) if is_denied(&error, folder) => {
                if !setting.optional || error.kind() != io::ErrorKind::NotFound {
                    once.tell(&folder.join(&setting.file), "set a value", &error);
                }
            }
            Err(_) => failed.push(setting),
        }
    }
    for setting in failed {
        try_set(folder, setting).map_err(|source| {
            CgroupError::new(format!("write {:?} to", setting.text), &folder.join(&setting.file), source)
        })?;
    }
    Ok(())
}

fn try_set(folder: &Path, setting: &Setting) -> io::Result<()> {
    if setting.holds(folder)? { Ok(()) } else { setting.write(folder) }
}

/// Makes a cgroup with those above it; `made` is called for each new one, and its parent. False where the
/// process may not.
pub(super) fn make(
    root: &Path,
    cgroup: &str,
    once: &Once,
    mut made: impl FnMut(&Path, &Path),
) -> Result<bool, CgroupError> {
    let leaf = root.join(cgroup);
    if leaf.is_dir() {
        return Ok(true);
    }
    let mut parent = root.to_owned();
    for name in cgroup.split('/') {
        let folder = parent.join(name);
        match fs::create_dir(&folder) {
            Ok(()) => made(&parent, &folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Not found is what was there a moment ago: a group over this one was removed meanwhile.
            Err(error) if error.kind() != io::ErrorKind::NotFound && is_denied(&error, &parent) => {
                once.tell(root, "make a group", &error);
                return Ok(false);
            }
            Err(source) => return Err(CgroupError::new("make cgroup", &folder, source)),
        }
        parent = folder;
    }
    Ok(true)
}

/// A limit in the words of v1, which has -1 for none.
pub(super) fn v1_limit(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "-1".to_owned(),
        Limit::Of(value) => value.min(i64::MAX.unsigned_abs()).to_string(),
    }
}

/// A limit in the words of v2.
pub(super) fn v2_limit(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "max".to_owned(),
        Limit::Of(value) => value.min(i64::MAX.unsigned_abs()).to_string(),
    }
}

/// A limit of processes: the kernel takes no number over that of all processes.
pub(super) fn pids_limit(limit: Limit) -> String {
    /// `PID_MAX_LIMIT` on 64 bits.
    const MOST: u64 = 4 << 20;
    match limit {
        Limit::Of(value) if value < MOST => value.to_string(),
        Limit::Of(_) | Limit::Unlimited => "max".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_means() {
        for (now, wanted, same) in [
            ("512", "512", true),
            ("512", "513", false),
            ("9223372036854771712", "-1", true),
            ("-1", "-1", true),
            ("8192", "-1", false),
            ("16777216", "16777217", true),
            ("16777216", "16900000", false),
            ("16777217", "16777216", false),
            ("max", "max", true),
            ("max", "100", false),
            ("max 100000", "50000 100000", false),
        ] {
            assert_eq!(says(now, wanted), same, "{now} for {wanted}");
        }
    }

    #[test]
    fn limits_in_the_kernels_words() {
        assert_eq!((v1_limit(Limit::Unlimited), v2_limit(Limit::Unlimited)), ("-1".into(), "max".into()));
        assert_eq!(v1_limit(Limit::Of(u64::MAX)), i64::MAX.to_string());
        assert_eq!((pids_limit(Limit::Of(7)), pids_limit(Limit::Of(u64::MAX))), ("7".into(), "max".into()));
    }
}
