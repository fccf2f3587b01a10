//! Containers that live though nobody can be asked about them: a shim of containerd's stands above each, as long as
//! it lives, and its command line says whose it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::host::read::read_bounded;

/// Bytes of a command line that is looked at.
const MAX_LINE: usize = 64 << 10;

/// A shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shim {
    /// Its process.
    pub(super) pid: i32,
    /// The container that it was started for; empty for shims of containerd 1.3 and before, which say it otherwise.
    pub(super) id: String,
}

/// The shims of a namespace of containerd's; with an address, of the containerd that is there.
pub(super) fn alive(proc: &Path, namespace: &str, address: Option<&Path>) -> Vec<Shim> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<Shim> = pids
        .filter_map(|pid| {
            let line = read_bounded(&proc.join(pid.to_string()).join("cmdline"), MAX_LINE).ok()?;
            Some(Shim { pid, id: shim_of(&line, namespace, address)? })
        })
        .collect();
    found.sort_unstable_by_key(|shim| shim.pid);
    found
}

/// The container of a command line, if it is a shim's of that namespace.
fn shim_of(line: &[u8], namespace: &str, address: Option<&Path>) -> Option<String> {
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).map(|word| str::from_utf8(word).ok()).collect::<Option<_>>()?;
    let program = PathBuf::from(words.first()?);
    if !program.file_name()?.to_str()?.starts_with("containerd-shim") {
        return None;
    }
    let value = |flag: &str| {
        let mut words = words.iter().skip_while(|word| word.trim_start_matches('-') != flag).skip(1);
        words.next().copied()
    };
    if value("namespace")? != namespace {
        return None;
    }
    if let (Some(wanted), Some(found)) = (address, value("address"))
        && Path::new(found) != wanted
    {
        return None;
    }
    Some(value("id").unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_told_by_their_command_lines() {
        let proc = tempfile::tempdir().unwrap();
        let put = |pid: &str, words: &[&str]| {
            fs::create_dir(proc.path().join(pid)).unwrap();
            let line: String = words.iter().map(|word| format!("{word}\0")).collect();
            fs::write(proc.path().join(pid).join("cmdline"), line).unwrap();
        };
        let shim = "/usr/bin/containerd-shim-runc-v2";
        put("30", &[shim, "-namespace", "moby", "-id", "abc", "-address", "/run/containerd/containerd.sock"]);
        put("4", &[shim, "-namespace", "moby", "-id", "def", "-address", "/other.sock"]);
        put("5", &[shim, "-namespace", "k8s.io", "-id", "ghi", "-address", "/other.sock"]);
        put("6", &["containerd-shim", "-namespace", "moby", "-workdir", "/x/moby/jkl"]);
        put("7", &["sleep", "-namespace", "moby"]);
        put("self", &[shim, "-namespace", "moby"]);
        let ids = |namespace: &str, address: Option<&str>| {
            let found = alive(proc.path(), namespace, address.map(Path::new));
            found.into_iter().map(|shim| (shim.pid, shim.id)).collect::<Vec<_>>()
        };
        let found = |pid: i32, id: &str| (pid, id.to_owned());
        assert_eq!(ids("moby", None), [found(4, "def"), found(6, ""), found(30, "abc")]);
        assert_eq!(ids("k8s.io", Some("/other.sock")), [found(5, "ghi")]);
        assert_eq!(ids("k8s.io", Some("/run/containerd/containerd.sock")), []);
    }
}
