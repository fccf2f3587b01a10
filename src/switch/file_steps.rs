//! Steps that change files, the same on a node that runs and in a folder that holds one. Errors name the file.

use std::path::Path;

use super::{
    rooted::Rooted,
    steps::{Before, Seen},
};

/// How a file is, with its copy. One that is not as it was `seen` is somebody else's to speak for.
pub(super) fn before(
    files: &Rooted,
    path: &Path,
    seen: Option<&Seen>,
    step: usize,
    copies: &Path,
) -> Result<Before, String> {
    let before = match files.save(path, copies, &step.to_string()) {
        Ok(Some(saved)) => Before::File { saved },
        Ok(None) => Before::NoFile { folders: files.missing_folders(path) },
        Err(error) => return Err(error.to_string()),
    };
    let Some(seen) = seen else { return Ok(before) };
    let text = before.text(copies).map_err(|error| error.to_string())?;
    if Seen::of(text.as_deref()) != *seen {
        return Err(format!(
            "{}: somebody has changed it since the change was planned; run this again, to plan with what it says now",
            path.display()
        ));
    }
    Ok(before)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_somebody_has_written_since_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (path, files) = (folder.path().join("a.conf"), Rooted::node());
        let before = |seen: Option<Seen>| before(&files, &path, seen.as_ref(), 0, folder.path());
        assert!(matches!(before(Some(Seen::Nothing)), Ok(Before::NoFile { .. })));
        let told = before(Some(Seen::of(Some("x")))).unwrap_err();
        assert!(told.contains("a.conf: somebody has changed it since the change was planned"), "{told}");
        fs::write(&path, "x").unwrap();
        assert!(matches!(before(Some(Seen::of(Some("x")))), Ok(Before::File { .. })));
        assert!(before(Some(Seen::Nothing)).is_err());
        assert!(before(Some(Seen::of(Some("y")))).is_err());
        assert!(before(None).is_ok());
        // A copy that cannot be made is told with its own place.
        let told = super::before(&files, &path, None, 0, &folder.path().join("none")).unwrap_err();
        assert!(told.contains("its copy ") && told.contains("none/0"), "{told}");
    }
}
