//! The manifests of `tests/pods/`: the bad ones are refused in the words that they name, the good ones run, all
//! of them at the same time on one node of each release of the runtime, and are looked into.

#[path = "corpus/expect.rs"]
mod expect;
#[path = "corpus/look.rs"]
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use expect::{Entry, corpus};
use look::Looker;
use nodectl::api::manifest::{Identity, ManifestError, Shape, StaticPod, make_static_pod, parse};
use nodectl::api::uid_hash::HashOrigin;

use crate::support::{Node, SOON, View};

/// Reads a manifest as the agent does.
fn made(entry: &Entry) -> Result<StaticPod, Vec<String>> {
    let identity = Identity {
        node_name: "node",
        origin: HashOrigin::File("/manifests/pod.yaml"),
        seen: "2026-01-02T03:04:05Z".parse().unwrap(),
    };
    let text = entry.text.replace("@host@", "/host");
    parse(text.as_bytes(), Shape::Pod)
        .and_then(|mut parsed| make_static_pod(&parsed.remove(0), &identity))
        .map_err(|error| match error {
            ManifestError::Fields(problems) => problems.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        })
}

/// What is found must be what is wanted, each by a part of it and in any order.
fn differ(what: &str, entry: &Entry, wanted: &[String], found: &[String]) -> Option<String> {
    let missing: Vec<&String> =
        wanted.iter().filter(|part| !found.iter().any(|f| f.contains(*part))).collect();
    let extra: Vec<&String> = found.iter().filter(|f| !wanted.iter().any(|part| f.contains(part))).collect();
    let same = missing.is_empty() && extra.is_empty();
    (!same).then(|| format!("{}: {what}: not told: {missing:#?}, told beyond: {extra:#?}", entry.name))
}

fn none_of(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn bad_manifests_are_refused_by_field_and_reason() {
    let refused = |entry: &Entry| match made(entry) {
        Err(problems) => differ("refused", entry, &entry.expect.refused, &problems),
        Ok(_) if runs(entry) => None,
        Ok(_) => Some(format!("{}: is not refused", entry.name)),
    };
    none_of(&corpus("bad").iter().filter_map(refused).collect::<Vec<_>>());
}

#[test]
fn good_manifests_are_read_with_the_warnings_that_they_name() {
    let warned = |entry: &Entry| match made(entry) {
        Ok(pod) => {
            let warnings: Vec<String> = pod.warnings.iter().map(ToString::to_string).collect();
            differ("warnings", entry, &entry.expect.warned, &warnings)
        }
        Err(problems) => Some(format!("{}: refused: {problems:#?}", entry.name)),
    };
    none_of(&corpus("good").iter().filter_map(warned).collect::<Vec<_>>());
}

/// What waits for a feature is well-formed all the same.
#[test]
fn manifests_kept_for_later_are_readable() {
    for entry in corpus("ahead") {
        let parsed = parse(entry.text.replace("@host@", "/host").as_bytes(), Shape::Pod);
        let parsed = parsed.unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        assert_eq!(parsed[0].pod.metadata.name.as_ref(), Some(&entry.name));
    }
}

/// Whether a manifest is for a node, and not refused before.
fn runs(entry: &Entry) -> bool {
    entry.expect.refused.is_empty()
}

/// Whether the node's runtime is older than what the entry needs.
fn too_old(node: &Node, entry: &Entry) -> bool {
    let Some(needs) = &entry.expect.needs else { return false };
    let numbers = |text: &str| -> Vec<u32> {
        let digits =
            text.trim_start_matches(|c: char| !c.is_ascii_digit()).split(|c: char| !c.is_ascii_digit());
        digits.take(2).map(|part| part.parse().unwrap_or(0)).collect()
    };
    let version = node.containerd.ctr(&["version"]);
    let version =
        version.lines().rev().find_map(|line| line.trim().strip_prefix("Version:")).expect("a version");
    numbers(version) < numbers(needs)
}

fn put(node: &Node, entry: &Entry) {
    let host = host_folder(node, entry);
    fs::create_dir_all(&host).unwrap();
    for (name, text) in &entry.expect.host {
        let path = host.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::write(path, text).unwrap();
        }
    }
    node.put_manifest(&format!("{}.yaml", entry.name), &entry.text.replace("@host@", host.to_str().unwrap()));
}

/// The folder of the node that is the entry's own.
fn host_folder(node: &Node, entry: &Entry) -> PathBuf {
    node.dir().join("host").join(&entry.name)
}

/// Whether a pod has come to where it is to be looked at.
fn arrived(entry: &Entry, view: &View) -> bool {
    match &entry.expect.phase {
        Some(phase) => view.phase() == phase,
        None => view.phase() == "Running" && view.condition("Ready"),
    }
}

/// What is not as it should be at this moment.
fn faults(node: &Node, entry: &Entry, old: bool) -> Vec<String> {
    let Some(view) = node.view(&entry.name) else { return vec!["is not listed".to_owned()] };
    if old {
        let explained = node.explain(&entry.name).to_string();
        let wanted = entry.expect.without.as_deref().expect("`needs` goes with `without`");
        let mut faults = Vec::new();
        if !explained.contains(wanted) {
            faults.push(format!("{wanted:?} is not told: {explained}"));
        }
        if view.phase() != "Pending" || !node.containerd.sandboxes_of(view.uid()).is_empty() {
            faults.push(format!("runs: {:#?}", view.0["status"]));
        }
        return faults;
    }
    if !arrived(entry, &view) {
        return vec![format!("is not there yet: {:#}\n{:#}", view.0["status"], node.explain(&entry.name))];
    }
    let processes = node.containerd.processes();
    let host = host_folder(node, entry);
    let mut looker = Looker { node, host: &host, view: &view, processes: &processes, faults: Vec::new() };
    looker.pod(entry);
    looker.faults
}

fn all_run(node: &Node) {
    let entries: Vec<Entry> = corpus("good").into_iter().chain(corpus("bad")).filter(runs).collect();
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), entries.len(), "two manifests of one name");
    let before = node.leaks();
    let old: BTreeMap<&str, bool> = entries.iter().map(|e| (e.name.as_str(), too_old(node, e))).collect();
    entries.iter().for_each(|entry| put(node, entry));
    let (mut wrong, start) = (Vec::new(), Instant::now());
    for entry in &entries {
        let left = loop {
            let left = faults(node, entry, old[entry.name.as_str()]);
            if left.is_empty() || start.elapsed() > SOON {
                break left;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        wrong.extend(left.into_iter().map(|fault| format!("{}: {fault}", entry.name)));
    }
    none_of(&wrong);
    entries.iter().for_each(|entry| node.remove_manifest(&format!("{}.yaml", entry.name)));
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn good_manifests_run_as_written() {
    all_run(&Node::start("co-all"));
}

#[test]
fn good_manifests_run_as_written_on_containerd2() {
    all_run(&Node::with_containerd2("co-all2"));
}
