//! A configuration as it would be, in files elsewhere, for containerd to read before anything is changed.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, value};

use super::{ConfigFile, Release, imports};
use crate::switch::lines::Lines;

/// The files to put into a folder, the main one first: read from there, they say what the given ones say where they
/// belong. Those are the main file and the ones that it imports, in the order in which containerd reads them, each with
/// whether it is another on the disk by now.
pub fn elsewhere(files: &[(ConfigFile, bool)], folder: &Path, release: Release) -> Vec<ConfigFile> {
    let Some(((main, _), others)) = files.split_first() else { return Vec::new() };
    let path = |number: usize| folder.join(format!("{number}.toml"));
    if !others.iter().any(|(_, changed)| *changed) {
        // The others are read where they are.
        return vec![ConfigFile { path: path(0), text: importing(main, &imports(main, release)) }];
    }
    // What others import is among them.
    let all: Vec<PathBuf> = (1..files.len()).map(path).collect();
    let mut placed = vec![ConfigFile { path: path(0), text: importing(main, &all) }];
    placed.extend(
        others
            .iter()
            .zip(&all)
            .map(|((file, _), path)| ConfigFile { path: path.clone(), text: importing(file, &[]) }),
    );
    placed
}

/// A file's text with other imports.
fn importing(file: &ConfigFile, paths: &[PathBuf]) -> String {
    let Ok(mut root) = Lines::new(&file.text).plain().parse::<DocumentMut>() else {
        return file.text.clone();
    };
    if root.get("imports").is_none_or(|said| !said.is_array()) {
        return file.text.clone();
    }
    root["imports"] = value(paths.iter().map(|path| path.display().to_string()).collect::<Array>());
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Release = Release { major: 1, minor: 6 };

    fn file(path: &str, text: &str, changed: bool) -> (ConfigFile, bool) {
        (ConfigFile { path: path.into(), text: text.to_owned() }, changed)
    }

    #[test]
    fn imports_are_where_they_are_unless_they_change_too() {
        let main =
            file("/etc/c/a.toml", "version = 2\nimports = [\"b.toml\", \"/x/*.toml\"]\n[p]\nq = 1\n", true);
        let other = file("/etc/c/b.toml", "imports = [\"c.toml\"]\nr = 2\n", false);
        let folder = Path::new("/run/t");
        let one = elsewhere(&[main.clone(), other.clone()], folder, ONE);
        let [only] = one.as_slice() else { panic!("{one:?}") };
        assert_eq!(only.path, Path::new("/run/t/0.toml"));
        assert_eq!(only.text, "version = 2\nimports = [\"/etc/c/b.toml\", \"/x/*.toml\"]\n[p]\nq = 1\n");
        let both = elsewhere(&[main, (other.0, true)], folder, ONE);
        let texts: Vec<&str> = both.iter().map(|file| file.text.as_str()).collect();
        assert_eq!(
            texts,
            ["version = 2\nimports = [\"/run/t/1.toml\"]\n[p]\nq = 1\n", "imports = []\nr = 2\n"]
        );
        // What is no list is containerd's to refuse.
        let wrong = elsewhere(&[file("/a", "imports = \"x\"\n", true)], folder, ONE);
        assert_eq!(wrong[0].text, "imports = \"x\"\n");
        assert!(elsewhere(&[], folder, ONE).is_empty());
    }
}
