//! containerd: its version, its files in the order in which it reads them, and whether it answers CRI.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use toml_edit::DocumentMut;

use super::{
    Look, Notes, option_values, packages,
    program::{self, plain_version},
};
use crate::{
    api::cri::{PodSandboxFilter, PodSandboxState, PodSandboxStateValue},
    cri::{Cri as _, CriClient, CriTimeouts, RuntimeEndpoint},
    switch::{
        containerd::{CONFIG, ConfigFile, Release, cgroup_driver, imports, running_cgroup_driver},
        facts::{ContainerdFacts, PodFacts},
        toml::get_str,
    },
};

const SOCKET: &str = "/run/containerd/containerd.sock";
const DATA_ROOT: &str = "/var/lib/containerd";
/// Where `hosts.toml` files are by custom.
const HOSTS: &str = "/etc/containerd/certs.d";
/// For one answer of CRI.
const ANSWER: Duration = Duration::from_secs(5);
/// Of Docker's, of Debian's and of Ubuntu's packages.
const PACKAGES: [&str; 3] = ["containerd.io", "containerd", "containerd-app"];
/// Files of a configuration; more than a few are a pattern that matches what it should not.
const MAX_FILES: usize = 256;

pub(super) async fn detect(look: &Look<'_>, notes: &mut Notes) -> Option<ContainerdFacts> {
    let unit = notes.unit(look, "containerd.service");
    let program = look.program_of(&unit, "containerd");
    if unit.fragment.is_none() && program.is_none() && look.place.containerd_version.is_none() {
        return None;
    }
    let arguments: Vec<String> = unit.arguments.into_iter().skip(1).map(|argument| argument.text).collect();
    let flag = |names: &[&str]| option_values(&arguments, names).pop();
    let config = PathBuf::from(flag(&["config", "c"]).unwrap_or_else(|| CONFIG.to_owned()));

    let (version, default_config) = versions(look, program.as_deref(), notes).await;
    let release = version.as_deref().and_then(program::release);
    let release = release.map(|(major, minor)| Release { major, minor });
    // Without a version, as newer ones read.
    let read_as = release.unwrap_or(Release { major: 2, minor: 0 });
    let files = configuration(look, &config, None, read_as, notes);
    if let Some(text) = &default_config {
        // A configuration that begins anew imports what this one does.
        configuration(look, &config, Some(text), read_as, notes);
    }
    let documents: Vec<DocumentMut> = files.iter().filter_map(|file| file.text.parse().ok()).collect();
    let said = |path: &[&str]| {
        let told =
            documents.iter().rev().find_map(|root| get_str(root.as_item(), path).filter(|t| !t.is_empty()));
        told.map(str::to_owned)
    };
    let socket = flag(&["address", "a"])
        .or_else(|| said(&["plugins", "io.containerd.server.v1.grpc", "address"]))
        .or_else(|| said(&["grpc", "address"]))
        .unwrap_or_else(|| SOCKET.to_owned());
    let data_root = flag(&["root"]).or_else(|| said(&["root"])).unwrap_or_else(|| DATA_ROOT.to_owned());
    for folder in hosts_folders(&documents) {
        for registry in notes.list(look, &folder) {
            notes.read(look, &folder.join(registry).join("hosts.toml"));
        }
    }
    let asked = if look.live { ask(&socket, notes).await } else { None };
    let cri_answers = asked.is_some();
    let Asked { driver, pods } = asked.unwrap_or_default();
    Some(ContainerdFacts {
        version,
        release,
        program,
        cri_answers,
        cgroup_driver: driver.or_else(|| cgroup_driver(&files, read_as)).map(str::to_owned),
        pods,
        socket: PathBuf::from(socket),
        config,
        config_files: files.into_iter().map(|file| file.path).collect(),
        default_config,
        data_root: PathBuf::from(data_root),
    })
}

/// Its version and its defaults.
async fn versions(
    look: &Look<'_>,
    program: Option<&Path>,
    notes: &mut Notes,
) -> (Option<String>, Option<String>) {
    let given =
        look.place.containerd_version.as_deref().map(|text| plain_version(text).unwrap_or(text.to_owned()));
    if !look.live {
        if given.is_some() {
            return (given, None);
        }
        return (packages::version(look, &PACKAGES, Some("--containerd-version"), notes).await, None);
    }
    let Some(program) = program else { return (given, None) };
    let (version, default) = tokio::join!(
        program::output(look.rooted.watch(), program, &["--version"]),
        program::output(look.rooted.watch(), program, &["config", "default"]),
    );
    let mut known = |said: Result<String, String>| said.map_err(|why| notes.problem(why)).ok();
    let (version, default) = (known(version), known(default));
    // `containerd containerd.io 1.6.9 1c90a44`, `containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7`.
    let version = version.and_then(|said| {
        let found = said.split_whitespace().skip(2).find_map(plain_version);
        if found.is_none() {
            notes.problem(format!("`{} --version` tells no version: {}", program.display(), said.trim()));
        }
        found
    });
    (given.or(version), default)
}

/// The files of a configuration in the order in which containerd reads them (`LoadConfig`): the main one, those that
/// it imports, and then theirs, each once. With `instead`, the main one has that text, and is not told.
fn configuration(
    look: &Look<'_>,
    main: &Path,
    instead: Option<&str>,
    release: Release,
    notes: &mut Notes,
) -> Vec<ConfigFile> {
    let mut files: Vec<ConfigFile> = Vec::new();
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut pending: Vec<(PathBuf, Option<String>)> = vec![(main.to_owned(), instead.map(str::to_owned))];
    let mut at = 0;
    while let Some((path, given)) = pending.get(at).cloned() {
        at += 1;
        if !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > MAX_FILES {
            notes.problem(format!("{} imports more than {MAX_FILES} files", main.display()));
            break;
        }
        let is_main = at == 1;
        let Some(text) = given.clone().or_else(|| notes.read_needed(look, &path)) else {
            if !is_main && !look.rooted.exists(&path) {
                notes.problem(format!(
                    "{} is imported and not there: containerd does not start so",
                    path.display()
                ));
            }
            continue;
        };
        let file = ConfigFile { path, text };
        if let Err(error) = file.text.parse::<DocumentMut>() {
            let why = error.message().replace('\n', ", ");
            notes.problem(format!("{} is not valid TOML: {why}", file.path.display()));
        }
        for import in imports(&file, release) {
            let import = plain(&Path::new("/").join(import));
            let found = match import.to_str() {
                Some(pattern) if pattern.contains('*') => matching(look, pattern, notes),
                _ => vec![import],
            };
            pending.extend(found.into_iter().map(|path| (path, None)));
        }
        if given.is_none() {
            files.push(file);
        }
    }
    files
}

/// A path without dots (Go's `filepath.Clean`).
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The paths that a pattern stands for, in their order (Go's `filepath.Glob`).
fn matching(look: &Look<'_>, pattern: &str, notes: &mut Notes) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !part.contains(['*', '?', '[']) {
            found = found.iter().map(|folder| folder.join(part)).collect();
            continue;
        }
        let Some(expression) = expression(part) else {
            notes.problem(format!("{pattern} is no pattern that containerd understands"));
            return Vec::new();
        };
        let mut next = Vec::new();
        for folder in &found {
            let names = notes.list(look, folder);
            next.extend(names.iter().filter(|name| expression.is_match(name)).map(|name| folder.join(name)));
            next.truncate(MAX_FILES + 1);
        }
        found = next;
    }
    found.retain(|path| look.rooted.exists(path));
    found
}

/// A piece of a pattern as an expression: `*`, `?`, classes, and what a backslash quotes (Go's `filepath.Match`).
fn expression(part: &str) -> Option<regex::Regex> {
    let mut text = String::from("^");
    let mut chars = part.chars();
    while let Some(char) = chars.next() {
        match char {
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => {
                let class: String = chars.by_ref().take_while(|char| *char != ']').collect();
                let (not, class) = match class.strip_prefix('^') {
                    Some(class) => ("^", class.to_owned()),
                    None => ("", class),
                };
                let class =
                    class.replace('\\', "\\\\").replace('[', "\\[").replace('&', "\\&").replace('~', "\\~");
                text.extend(["[", not, &class, "]"]);
            }
            '\\' => text.push_str(&regex::escape(&chars.next()?.to_string())),
            other => text.push_str(&regex::escape(&other.to_string())),
        }
    }
    text.push('$');
    regex::RegexBuilder::new(&text).dot_matches_new_line(true).build().ok()
}

/// The folders with a `hosts.toml` for each registry.
fn hosts_folders(documents: &[DocumentMut]) -> BTreeSet<PathBuf> {
    let places: [&[&str]; 3] = [
        &["plugins", "cri", "registry", "config_path"],
        &["plugins", "io.containerd.grpc.v1.cri", "registry", "config_path"],
        &["plugins", "io.containerd.cri.v1.images", "registry", "config_path"],
    ];
    let mut folders = BTreeSet::from([PathBuf::from(HOSTS)]);
    for root in documents {
        for place in places {
            // Several folders have colons between.
            let told = get_str(root.as_item(), place).into_iter().flat_map(|text| text.split(':'));
            folders.extend(told.filter(|path| path.starts_with('/')).map(PathBuf::from));
        }
    }
    folders
}

/// What a containerd that runs says over CRI, v1 or v1alpha2.
#[derive(Default)]
struct Asked {
    driver: Option<&'static str>,
    pods: Vec<PodFacts>,
}

/// `None` if it does not answer.
async fn ask(socket: &str, notes: &mut Notes) -> Option<Asked> {
    let endpoint: RuntimeEndpoint = socket.parse().ok()?;
    let client = CriClient::connect_lazy_to_any(endpoint, None, CriTimeouts::from_request_timeout(ANSWER));
    client.version().await.ok()?;
    let ready = PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() }),
        ..PodSandboxFilter::default()
    };
    let (status, sandboxes) = tokio::join!(client.status(true), client.list_pod_sandboxes(Some(ready)));
    let driver = match status {
        Ok(status) => {
            let config = status.info.get("config").and_then(|text| serde_json::from_str(text).ok());
            config.as_ref().and_then(running_cgroup_driver)
        }
        Err(error) => {
            notes.problem(format!("the cgroup driver that containerd has now is not known: {error}"));
            None
        }
    };
    let mut pods: Vec<PodFacts> = match sandboxes {
        Ok(sandboxes) => sandboxes
            .into_iter()
            .filter_map(|sandbox| sandbox.metadata)
            .map(|pod| PodFacts { namespace: pod.namespace, name: pod.name, uid: pod.uid })
            .collect(),
        Err(error) => {
            notes.problem(format!("the pods in containerd are not known: {error}"));
            Vec::new()
        }
    };
    pods.sort();
    Some(Asked { driver, pods })
}
