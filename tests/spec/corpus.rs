//! The manifests of `tests/pods/`: the bad ones are refused in the words that they name, the good ones run, all
//! of them beside one another on one node of each release of the runtime, and are looked into.

#[path = "corpus/expect.rs"]
mod expect;
#[path = "corpus/look.rs"]
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use expect::{Entry, corpus};
use look::Looker;
use nodectl::api::manifest::{Identity, ManifestError, Shape, StaticPod, make_static_pod, parse};
use nodectl::api::uid_hash::HashOrigin;
use serde_json::Value;

use crate::support::{Node, Process, SOON, View};

/// Reads a manifest as the agent does.
fn made(entry: &Entry) -> Result<StaticPod, Vec<String>> {
    let identity = Identity {
        node_name: "node",
        origin: HashOrigin::File("/manifests/pod.yaml"),
        seen: "2026-01-02T03:04:05Z".parse().unwrap(),
    };
    let text = entry.text.replace("@host@", "/host").replace("@loopback@", "127.0.0.1");
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

/// Manifests that need more than any node of the tests has, and what that is. Elsewhere they may run.
const NOT_RUN: &[(&str, &str)] = &[("stop-signal", "containerd 2.3")];

/// How many pods are on their way at the same time.
const AT_A_TIME: usize = 16;

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

/// Whether a manifest is for a node, and not refused before.
fn runs(entry: &Entry) -> bool {
    entry.expect.refused.is_empty()
}

/// Whether something on the node is older than what the entry needs.
fn too_old(node: &Node, entry: &Entry) -> bool {
    entry.expect.needs.iter().any(|needs| {
        let (program, least) = needs.split_once(' ').expect("`PROGRAM VERSION`");
        let version = match program {
            "containerd" => node.containerd.ctr(&["version"]),
            "runc" => {
                let runc = Command::new(node.containerd.fact("RUNC")).arg("--version").output();
                let told = text_of(&runc.expect(program).stdout);
                told.lines().next().unwrap_or_default().to_owned()
            }
            _ => text_of(&Command::new(program).arg("--version").output().expect(program).stdout),
        };
        numbers(&version) < numbers(least)
    })
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first two numbers of the last version that a text tells; of `ctr version` that is the server's.
fn numbers(text: &str) -> Vec<u32> {
    let told = text.lines().rfind(|line| line.trim().to_lowercase().contains("version"));
    let told = told.unwrap_or(text).trim_start_matches(|c: char| !c.is_ascii_digit());
    told.split(|c: char| !c.is_ascii_digit()).take(2).map(|part| part.parse().expect("a number")).collect()
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
    let text = entry.text.replace("@host@", host.to_str().unwrap()).replace("@loopback@", &loopback(node));
    node.put_manifest(&format!("{}.yaml", entry.name), &text);
}

/// An address of the host that no other node of a test listens on: it is of the agent's process.
fn loopback(node: &Node) -> String {
    let pid = node.agent_pid();
    format!("127.{}.{}.{}", 1 + (pid >> 16) % 254, pid >> 8 & 255, pid & 255)
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

/// The node at one moment: one look for all pods costs what one look for each would.
struct Moment {
    pods: Value,
    processes: BTreeMap<String, Process>,
}

impl Moment {
    fn of(node: &Node) -> Self {
        Self { pods: node.pods_json(), processes: node.containerd.processes() }
    }

    fn view(&self, name: &str) -> Option<View> {
        let mut pods = self.pods["items"].as_array()?.iter();
        pods.find(|pod| pod["metadata"]["name"] == name).cloned().map(View)
    }
}

/// What was not as it should be at that moment.
fn faults(node: &Node, moment: &Moment, entry: &Entry, old: bool) -> Vec<String> {
    let Some(view) = moment.view(&node.static_name(&entry.name)) else {
        return vec!["is not listed".to_owned()];
    };
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
    let host = host_folder(node, entry);
    let processes = &moment.processes;
    let mut looker = Looker { node, host: &host, view: &view, processes, faults: Vec::new() };
    looker.pod(entry);
    looker.faults
}

/// Where the newest runtime of the tests is, every manifest runs but those that are known not to.
fn all_but_the_known_run(node: &Node) {
    let entries = corpus("good");
    let held_back = entries.iter().filter(|entry| too_old(node, entry)).map(|entry| entry.name.as_str());
    let unknown: Vec<&str> =
        held_back.filter(|name| !NOT_RUN.iter().any(|(known, _)| known == name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} run nowhere: lower what they need, or name them in NOT_RUN");
    for (name, _) in NOT_RUN {
        assert!(
            entries.iter().any(|e| e.name == *name && !e.expect.needs.is_empty()),
            "{name} needs nothing"
        );
    }
}

fn all_run(node: &Node) {
    let entries: Vec<Entry> = corpus("good").into_iter().chain(corpus("bad")).filter(runs).collect();
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), entries.len(), "two manifests of one name");
    let before = node.leaks();
    let old: BTreeMap<&str, bool> = entries.iter().map(|e| (e.name.as_str(), too_old(node, e))).collect();
    // Those that are right stay; a few at a time become so, which a busy machine can follow. As long as one
    // after the other does, there is time, though not without end.
    let (start, mut last) = (Instant::now(), Instant::now());
    let (mut waiting, mut left) = (entries.iter(), Vec::new());
    let wrong = loop {
        for entry in waiting.by_ref().take(AT_A_TIME - left.len()) {
            put(node, entry);
            left.push(entry);
        }
        let moment = Moment::of(node);
        let (before, mut wrong) = (left.len(), Vec::new());
        left.retain(|entry| {
            let faults = faults(node, &moment, entry, old[entry.name.as_str()]);
            wrong.extend(faults.iter().map(|fault| format!("{}: {fault}", entry.name)));
            !faults.is_empty()
        });
        if left.len() < before {
            last = Instant::now();
        } else if last.elapsed() > SOON || start.elapsed() > 5 * SOON {
            break wrong;
        }
        if left.is_empty() && waiting.len() == 0 {
            break wrong;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    eprintln!("{} pods are as written after {:?}", entries.len(), start.elapsed());
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
    let node = Node::with_containerd2("co-all2");
    all_but_the_known_run(&node);
    all_run(&node);
}
