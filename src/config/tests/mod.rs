//! The configuration as a whole: files, drop-ins, flags, and the tables against their page.

mod docs;
mod errors;
mod kubelet_1_20;
mod merging;
mod round_trip;

use std::path::{Path, PathBuf};

use super::*;

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// A file in a temporary folder, with the two lines that every configuration starts with.
fn file(dir: &Path, name: &str, body: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("{HEAD}{body}")).unwrap();
    path
}

fn pairs(flags: &[(&str, &str)]) -> Vec<(String, String)> {
    flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_flags(flags: &[(&str, &str)]) -> Result<(AgentConfig, Vec<ConfigWarning>), ConfigError> {
    load_on(&pairs(flags), &|| Ok("Node-1".to_owned()))
}

/// Loads one file with flags over it.
fn load_body(body: &str, flags: &[(&str, &str)]) -> Result<(AgentConfig, Vec<ConfigWarning>), ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "config.yaml", body);
    let mut all = vec![("config", path.to_str().unwrap())];
    all.extend_from_slice(flags);
    load_flags(&all)
}

/// The problems of one file, without its folder.
fn problems(body: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "config.yaml", body);
    let error = load_flags(&[("config", path.to_str().unwrap())]).unwrap_err();
    let folder = format!("{}/", dir.path().display());
    error.problems().iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
}
