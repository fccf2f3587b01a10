//! Steps that change files, the same on a node that runs and in a folder that holds one. Errors name the file.

use std::path::Path;

use super::{rooted::Rooted, steps::Before};

/// How a file is, with its copy.
pub(super) fn before(files: &Rooted, path: &Path, step: usize, copies: &Path) -> Result<Before, String> {
    match files.save(path, copies, &step.to_string()) {
        Ok(Some(saved)) => Ok(Before::File { saved }),
        Ok(None) => Ok(Before::NoFile { folders: files.missing_folders(path) }),
        Err(error) => Err(error.to_string()),
    }
}

/// Gives a file its text.
pub(super) fn write(files: &Rooted, path: &Path, text: &str, mode: u32) -> Result<(), String> {
    files.write(path, text, mode).map(drop).map_err(|error| error.to_string())
}

/// Removes a file.
pub(super) fn remove(files: &Rooted, path: &Path) -> Result<(), String> {
    files.remove(path, &[]).map_err(|error| error.to_string())
}

/// Puts a file back, or what was not there away.
pub(super) fn undo(files: &Rooted, path: &Path, before: &Before, copies: &Path) -> Result<(), String> {
    match before {
        Before::File { saved } => files.restore(path, saved, copies).map_err(|error| error.to_string()),
        Before::NoFile { folders } => files.remove(path, folders).map_err(|error| error.to_string()),
        other => Err(of_another(other)),
    }
}

/// A journal that says of a step what belongs to another.
pub(super) fn of_another(before: &Before) -> String {
    format!("the journal has {before:?} for it, which is of another step")
}
