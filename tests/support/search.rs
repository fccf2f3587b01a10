//! Looks for what must not be found in files.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// All files below a folder that have these words in them, also on what is mounted there.
pub(crate) fn files_with(folder: &Path, words: &str) -> Vec<PathBuf> {
    search(folder, words, &|_| true)
}

/// Those on the folder's own file system: what is on another is in memory.
pub(crate) fn files_on_disk_with(folder: &Path, words: &str) -> Vec<PathBuf> {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let own = device(folder);
    search(folder, words, &|below| device(below) == own)
}

fn search(folder: &Path, words: &str, enter: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && enter(&path) {
            found.extend(search(&path, words, enter));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(words.len()).any(|part| part == words.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}
