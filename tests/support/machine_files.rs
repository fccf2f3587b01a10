//! The configuration of a machine as it is on its disk, to be compared before and after: file by file, with modes,
//! owners and times.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Folders of a machine that hold configuration. What runs, writes elsewhere.
const CONFIGURATION: [&str; 4] = ["/etc", "/usr/lib/systemd", "/usr/local/lib", "/root/.docker"];

/// One file, folder or link of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds; only of files, as a folder has another when anything in it comes or goes.
    pub(crate) mtime: Option<(i64, i64)>,
}

/// What an [`Entry`] is, with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With the SHA-256 of its bytes.
    File(String),
    Folder,
    /// With its target.
    Link(PathBuf),
    Other,
}

/// The files of a machine by their paths in it.
pub(crate) type Files = BTreeMap<PathBuf, Entry>;

/// What is different after something, a line for each: `+ PATH`, `- PATH`, or `PATH: WHAT` with what changed
/// (`kind`, `content`, `mode`, `owner` or `mtime`).
pub(crate) fn differences(before: &Files, after: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, old) in before {
        let Some(new) = after.get(path) else {
            lines.push(format!("- {}", path.display()));
            continue;
        };
        let content = match (&old.kind, &new.kind) {
            (Kind::File(a), Kind::File(b)) => (a != b).then_some("content"),
            (Kind::Link(a), Kind::Link(b)) => (a != b).then_some("content"),
            (a, b) => (a != b).then_some("kind"),
        };
        let rest = [
            (old.mode != new.mode).then_some("mode"),
            ((old.uid, old.gid) != (new.uid, new.gid)).then_some("owner"),
            (old.mtime != new.mtime).then_some("mtime"),
        ];
        lines.extend(
            content
                .into_iter()
                .chain(rest.into_iter().flatten())
                .map(|what| format!("{}: {what}", path.display())),
        );
    }
    lines.extend(
        after.keys().filter(|path| !before.contains_key(*path)).map(|path| format!("+ {}", path.display())),
    );
    lines
}

/// The configuration of the machine whose paths are where `outside` says.
pub(super) fn configuration(outside: impl Fn(&str) -> PathBuf) -> Files {
    let mut found = BTreeMap::new();
    for folder in CONFIGURATION {
        let outside = outside(folder);
        if outside.exists() {
            collect(&outside, Path::new(folder), &mut found);
        }
    }
    let kubelet = "/var/lib/kubelet";
    for entry in fs::read_dir(outside(kubelet)).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        let state = [&b"_manager_state"[..], b"nodectl.lock"]
            .iter()
            .any(|end| name.as_encoded_bytes().ends_with(end));
        if !state && !entry.file_type().unwrap().is_dir() {
            found.insert(Path::new(kubelet).join(name), look(&entry.path()));
        }
    }
    found
}

fn look(outside: &Path) -> Entry {
    let about =
        fs::symlink_metadata(outside).unwrap_or_else(|error| panic!("{}: {error}", outside.display()));
    let kind = if about.is_file() {
        Kind::File(hex::encode(Sha256::digest(fs::read(outside).unwrap())))
    } else if about.is_dir() {
        Kind::Folder
    } else if about.is_symlink() {
        Kind::Link(fs::read_link(outside).unwrap())
    } else {
        Kind::Other
    };
    let mtime = about.is_file().then(|| (about.mtime(), about.mtime_nsec()));
    Entry { kind, mode: about.mode() & 0o7777, uid: about.uid(), gid: about.gid(), mtime }
}

fn collect(outside: &Path, inside: &Path, found: &mut Files) {
    let entry = look(outside);
    let folder = entry.kind == Kind::Folder;
    found.insert(inside.to_owned(), entry);
    if folder {
        for child in fs::read_dir(outside).unwrap().map(Result::unwrap) {
            collect(&child.path(), &inside.join(child.file_name()), found);
        }
    }
}

/// All that is below a folder, by its paths as if the folder were the root; what is below `without` is left out.
pub(crate) fn below(folder: &Path, without: &str) -> Files {
    let mut found = BTreeMap::new();
    collect(folder, Path::new("/"), &mut found);
    found.retain(|path, _| !path.starts_with(without));
    found
}
