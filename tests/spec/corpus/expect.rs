//! A manifest of `tests/pods/` with what must be seen of it; `tests/pods/README.md` describes the format.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nodectl::api::yaml::{self, Limits};
use serde::Deserialize;
use serde_json::Value;

/// One file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name without `.yaml`, which is the pod's name too where it has one.
    pub(crate) name: String,
    /// The whole text, with places (`@host@`) not yet filled in.
    pub(crate) text: String,
    /// What its `#?` lines say.
    pub(crate) expect: Expect,
}

/// What must be seen of one manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// The first releases that can run it, `containerd 2.1`, `runc 1.2`.
    pub(crate) needs: Vec<String>,
    /// What `nodectl explain` says on older ones.
    pub(crate) without: Option<String>,
    /// A part of every problem for which the manifest is refused.
    pub(crate) refused: Vec<String>,
    /// The same of its warnings.
    pub(crate) warned: Vec<String>,
    /// Files to make beforehand below `@host@`; a name that ends in `/` is a folder.
    pub(crate) host: BTreeMap<String, String>,
    /// The phase to wait for; not given, the pod must become ready.
    pub(crate) phase: Option<String>,
    /// Values of the pod as `nodectl pods -o json` tells it, by JSON pointer.
    pub(crate) pod: BTreeMap<String, Match>,
    /// What `nodectl explain -o json` has.
    pub(crate) explain: Option<Match>,
    /// Files of the node, after the pod is as it should be.
    pub(crate) node_files: BTreeMap<String, Match>,
    /// What is to be seen in its containers.
    pub(crate) containers: BTreeMap<String, Look>,
}

/// What must be seen of one container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Look {
    /// Its status as `nodectl pods -o json` tells it, by JSON pointer.
    pub(crate) state: BTreeMap<String, Match>,
    /// What it has written, without time stamps.
    pub(crate) log: Option<Match>,
    /// Variables of its process.
    pub(crate) env: BTreeMap<String, Match>,
    /// Arguments of its process.
    pub(crate) args: Option<Vec<String>>,
    /// The folder it works in.
    pub(crate) cwd: Option<Match>,
    /// The host name it sees.
    pub(crate) hostname: Option<Match>,
    /// Files as it sees them; of a folder the names in it.
    pub(crate) files: BTreeMap<String, Match>,
    /// `0644 UID:GID` of files as it sees them; links are not followed.
    pub(crate) modes: BTreeMap<String, Match>,
    /// Lines of `/proc/PID/status` by their name.
    pub(crate) status: BTreeMap<String, Match>,
    /// Whole files of `/proc/PID`.
    pub(crate) proc: BTreeMap<String, Match>,
    /// Entries of its `mountinfo` by mount point.
    pub(crate) mounts: BTreeMap<String, Match>,
    /// Settings of its cgroup: `V1FILE|V2FILE`.
    pub(crate) cgroup: BTreeMap<String, Match>,
    /// The same of the pod's cgroup.
    pub(crate) pod_cgroup: BTreeMap<String, Match>,
    /// Its namespaces: `host`, `own` (not the host's), or the name of another container.
    pub(crate) namespaces: BTreeMap<String, String>,
}

/// What a value must be like: a plain one is equal to it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Match {
    /// Parts and forms.
    Rules(Rules),
    /// Equal but for white space at the ends.
    Is(Value),
}

/// All that are given must hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Rules {
    contains: Vec<String>,
    lacks: Vec<String>,
    /// The whole of it, where `*` stands for any text.
    matches: Option<String>,
    one_of: Option<Vec<Value>>,
    absent: Option<bool>,
}

impl Match {
    /// What is wrong with a value, if anything is; `fill` puts values at places such as `@uid@`.
    pub(crate) fn fault(&self, value: Option<&str>, fill: &dyn Fn(&str) -> String) -> Option<String> {
        let found = value.map(str::trim);
        let equals = |wanted: &Value| found == Some(fill(&plain(wanted)).trim());
        let ok = match self {
            Self::Is(wanted) => equals(wanted),
            Self::Rules(rules) if rules.absent == Some(true) => found.is_none(),
            Self::Rules(rules) => found.is_some_and(|found| {
                rules.contains.iter().all(|part| found.contains(&fill(part)))
                    && !rules.lacks.iter().any(|part| found.contains(&fill(part)))
                    && rules.matches.as_ref().is_none_or(|form| fits(&fill(form), found))
                    && rules.one_of.as_ref().is_none_or(|all| all.iter().any(equals))
            }),
        };
        (!ok).then(|| format!("is {found:?}, should be {self:?}"))
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text has a form in which `*` stands for anything.
fn fits(form: &str, text: &str) -> bool {
    match form.split_once('*') {
        None => form == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| fits(rest, &tail[at..]))
        }),
    }
}

/// The files of a folder of `tests/pods/`, by name.
pub(crate) fn corpus(folder: &str) -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Entry {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let header: String =
        text.lines().filter_map(|line| line.strip_prefix("#?")).map(|line| format!("{line}\n")).collect();
    let limits = Limits { bytes: 1 << 20, nodes: 10_000, expanded_bytes: 1 << 20 };
    let expect = match yaml::parse(header.as_bytes(), limits) {
        Ok(node) => serde_json::from_str(&node.canonical())
            .unwrap_or_else(|e| panic!("{}: what it expects: {e}", file.display())),
        Err(yaml::YamlError::Empty) => Expect::default(),
        Err(error) => panic!("{}: what it expects: {error}", file.display()),
    };
    let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
    Entry { name, text, expect }
}
