//! The file source on real folders, with real events and real time (bounded).

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::file::{FileSource, FileSourceConfig};
use super::{Clock, SourceSnapshot};
use crate::api::labels;
use crate::api::manifest::MAX_MANIFEST_BYTES;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test waits: what is found, is found by events.
const RARELY: Duration = Duration::from_secs(3600);

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: c\n    image: {image}\n"
    )
}

/// A clock that never gives the same time twice.
fn clock() -> Clock {
    let ticks = std::sync::atomic::AtomicI64::new(1_700_000_000);
    Arc::new(move || {
        let second = ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        jiff::Timestamp::from_second(second).unwrap()
    })
}

struct Fixture {
    root: TempDir,
    path: PathBuf,
    receiver: watch::Receiver<Arc<SourceSnapshot>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Fixture {
    /// A source on `manifests` in a temporary folder that `prepare` has filled.
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_with(RARELY, "manifests", |root| {
            fs::create_dir(root.join("manifests")).unwrap();
            prepare(&root.join("manifests"));
        })
    }

    fn start_with(check_frequency: Duration, name: &str, prepare: impl FnOnce(&Path)) -> Self {
        let root = TempDir::new().unwrap();
        prepare(root.path());
        let path = root.path().join(name);
        let config = FileSourceConfig {
            path: path.clone(),
            check_frequency,
            node_name: "Node".to_owned(),
            clock: clock(),
        };
        let (source, receiver) = FileSource::new(config);
        let stop = CancellationToken::new();
        let task = tokio::spawn(source.run(stop.clone()));
        Self { root, path, receiver, stop, task }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&SourceSnapshot) -> bool) -> Arc<SourceSnapshot> {
        let found = tokio::time::timeout(PATIENCE, self.receiver.wait_for(|s| wanted(s)))
            .await
            .map(|s| Arc::clone(&s.unwrap()));
        match found {
            Ok(snapshot) => snapshot,
            Err(_) => panic!("waited in vain for {what}: {:#?}", summary(&self.receiver.borrow())),
        }
    }

    async fn pods(&mut self, wanted: &[&str]) -> Arc<SourceSnapshot> {
        self.until(&format!("pods {wanted:?}"), |s| s.delivered && images(s) == wanted).await
    }

    async fn problem(&mut self, text: &str) -> Arc<SourceSnapshot> {
        self.until(&format!("problem {text:?}"), |s| s.problems.iter().any(|p| p.to_string().contains(text)))
            .await
    }

    /// That nothing changes for a while.
    async fn quiet(&mut self) {
        self.receiver.mark_unchanged();
        let changed = tokio::time::timeout(Duration::from_millis(500), self.receiver.changed()).await;
        assert!(changed.is_err(), "unexpected change: {:#?}", summary(&self.receiver.borrow()));
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("must stop").unwrap();
    }
}

/// `name=image` of every pod.
fn images(snapshot: &SourceSnapshot) -> Vec<String> {
    let image =
        |p: &k8s_openapi::api::core::v1::Pod| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    snapshot.pods.iter().map(|p| format!("{}={}", p.metadata.name.as_ref().unwrap(), image(p))).collect()
}

fn summary(snapshot: &SourceSnapshot) -> (bool, bool, Vec<String>, Vec<String>) {
    let problems = snapshot.problems.iter().map(ToString::to_string).collect();
    (snapshot.delivered, snapshot.incomplete, images(snapshot), problems)
}

#[tokio::test]
async fn create_modify_rename_and_delete() {
    let mut f = Fixture::start(|_| {});
    let empty = f.until("first delivery", |s| s.delivered).await;
    assert!(empty.pods.is_empty() && !empty.incomplete && empty.problems.is_empty());

    f.write("a.yaml", &manifest("a", "i:1"));
    let first = f.pods(&["a-node=i:1"]).await;

    // The same content again is no change, and what was seen first stays.
    f.write("a.yaml", &manifest("a", "i:1"));
    f.quiet().await;
    f.write("a.yaml", &format!("# a comment\n{}", manifest("a", "i:1")));
    f.quiet().await;

    f.write("a.yaml", &manifest("a", "i:2"));
    let second = f.pods(&["a-node=i:2"]).await;
    assert_ne!(first.pods[0].metadata.uid, second.pods[0].metadata.uid);

    fs::write(f.root.path().join("new"), manifest("a", "i:3")).unwrap();
    fs::rename(f.root.path().join("new"), f.file("a.yaml")).unwrap();
    f.pods(&["a-node=i:3"]).await;

    fs::rename(f.file("a.yaml"), f.file("b.yaml")).unwrap();
    f.until("the path of the renamed manifest", |s| {
        s.pods.len() == 1 && s.pods[0].metadata.uid != second.pods[0].metadata.uid
    })
    .await;
    fs::remove_file(f.file("b.yaml")).unwrap();
    f.pods(&[]).await;
    f.end().await;
}

#[tokio::test]
async fn a_manifest_is_acted_on_within_milliseconds() {
    let mut f = Fixture::start(|_| {});
    f.until("first delivery", |s| s.delivered).await;
    let mut times = Vec::new();
    for n in 0..20 {
        let want = format!("a-node=i:{n}");
        let text = manifest("a", &format!("i:{n}"));
        let start = Instant::now();
        f.write("a.yaml", &text);
        f.pods(&[&want]).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!("from close to snapshot: median {:?}, longest {:?}", times[10], times[19]);
    // Far below any polling or settling time, which none of them would escape. The machine may be busy for most.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
    f.end().await;
}

#[tokio::test]
async fn an_explicit_uid_survives_edits_and_keeps_its_time() {
    let mut f = Fixture::start(|_| {});
    let text = |image: &str| manifest("a", image).replace("  name: a\n", "  name: a\n  uid: my-uid\n");
    f.write("a.yaml", &text("i:1"));
    let first = f.pods(&["a-node=i:1"]).await;
    f.write("a.yaml", &text("i:2"));
    let second = f.pods(&["a-node=i:2"]).await;
    let seen =
        |s: &SourceSnapshot| s.pods[0].metadata.annotations.as_ref().unwrap()[labels::CONFIG_SEEN].clone();
    assert_eq!(seen(&first), seen(&second));
    assert_eq!(second.pods[0].metadata.uid.as_deref(), Some("my-uid"));
    f.end().await;
}

#[tokio::test]
async fn a_half_written_file_is_not_read_until_closed() {
    let mut f = Fixture::start(|_| {});
    f.until("first delivery", |s| s.delivered).await;
    // A valid manifest at every moment, but not the one that is meant.
    let mut file = fs::File::create(f.file("a.yaml")).unwrap();
    file.write_all(manifest("a", "i:1").as_bytes()).unwrap();
    file.flush().unwrap();
    f.quiet().await;
    file.write_all(b"  restartPolicy: Never\n").unwrap();
    drop(file);
    let got = f.pods(&["a-node=i:1"]).await;
    assert_eq!(got.pods[0].spec.as_ref().unwrap().restart_policy.as_deref(), Some("Never"));
    f.end().await;
}

#[tokio::test]
async fn a_typo_keeps_the_pod_and_is_told() {
    let mut f = Fixture::start(|dir| fs::write(dir.join("other.yaml"), manifest("o", "i:1")).unwrap());
    f.write("a.yaml", &manifest("a", "i:1"));
    f.pods(&["a-node=i:1", "o-node=i:1"]).await;
    f.write("a.yaml", &manifest("a", "i:2").replace("image", "imagee"));
    let broken =
        f.problem("a.yaml: spec.containers[0].imagee: unknown field, did you mean \"image\"? (line 8)").await;
    assert_eq!(images(&broken), ["a-node=i:1", "o-node=i:1"]);
    assert!(!broken.incomplete);
    assert!(broken.problems[0].message.ends_with("; pod default/a-node stays as it was last given"));
    f.write("a.yaml", &manifest("a", "i:3"));
    let fixed = f.pods(&["a-node=i:3", "o-node=i:1"]).await;
    assert_eq!(fixed.problems, vec![]);
    fs::remove_file(f.file("a.yaml")).unwrap();
    f.pods(&["o-node=i:1"]).await;
    f.end().await;
}

#[tokio::test]
async fn a_file_that_is_broken_at_start_makes_the_snapshot_incomplete() {
    let mut f = Fixture::start(|dir| {
        fs::write(dir.join("a.yaml"), "kind: [").unwrap();
        fs::write(dir.join("b.yaml"), manifest("b", "i:1")).unwrap();
    });
    let first = f.until("first delivery", |s| s.delivered).await;
    assert!(first.incomplete);
    assert_eq!(images(&first), ["b-node=i:1"]);
    f.write("a.yaml", &manifest("a", "i:1"));
    assert!(!f.pods(&["a-node=i:1", "b-node=i:1"]).await.incomplete);
    // Broken later: there cannot be a pod of it from before.
    f.write("c.yaml", "x");
    assert!(!f.problem("c.yaml").await.incomplete);
    f.end().await;
}

#[tokio::test]
async fn bad_files_are_named_and_leave_the_others_alone() {
    let mut f = Fixture::start(|dir| {
        fs::write(dir.join("binary.yaml"), b"\x7fELF\0\0").unwrap();
        fs::write(dir.join("empty.yaml"), b"").unwrap();
        fs::write(dir.join("huge.yaml"), vec![b'#'; MAX_MANIFEST_BYTES + 1]).unwrap();
        fs::write(dir.join("good.yaml"), manifest("good", "i:1")).unwrap();
        fs::write(dir.join("two.yaml"), format!("{}---\n{}", manifest("x", "i"), manifest("y", "i")))
            .unwrap();
        fs::write(dir.join("kind.yaml"), "apiVersion: apps/v1\nkind: Deployment\n").unwrap();
        let hook = manifest("p", "i") + "    lifecycle: {postStart: {tcpSocket: {port: 1}}}\n";
        fs::write(dir.join("hook.yaml"), hook).unwrap();
        fs::write(dir.join(".hidden.yaml"), manifest("hidden", "i:1")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/s.yaml"), manifest("s", "i:1")).unwrap();
        nix::unistd::mkfifo(&dir.join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("nowhere", dir.join("dangling.yaml")).unwrap();
        symlink("/dev/zero", dir.join("device.yaml")).unwrap();
    });
    let got = f.pods(&["good-node=i:1"]).await;
    let told: Vec<String> = got
        .problems
        .iter()
        .map(|p| p.to_string().rsplit_once('/').map(|(_, t)| t.to_owned()).unwrap_or_default())
        .collect();
    for want in [
        "binary.yaml: manifest is not UTF-8 text: a zero byte at byte 4",
        "empty.yaml: manifest is empty",
        "huge.yaml: manifest is larger than 10485760 bytes",
        "two.yaml: line 9 starts a second YAML document",
        "hook.yaml: spec.containers[0].lifecycle.postStart.tcpSocket: no kubelet runs such a hook",
        "pipe.yaml: is a named pipe, not a regular file",
        "dangling.yaml: symbolic link points to nothing",
        "device.yaml: is a device, not a regular file",
    ] {
        assert!(told.iter().any(|t| t.starts_with(want)), "{want}\nin {told:#?}");
    }
    assert!(got.problems.iter().any(|p| p.to_string().contains("kind.yaml: apiVersion: Unsupported value")));
    assert_eq!(got.problems.len(), 9, "{told:#?}");
    f.end().await;
}

#[tokio::test]
async fn of_two_manifests_of_one_pod_the_first_is_kept() {
    let mut f = Fixture::start(|dir| {
        fs::write(dir.join("a.yaml"), manifest("x", "i:1")).unwrap();
        fs::write(dir.join("b.yaml"), manifest("x", "i:2")).unwrap();
        let uid = manifest("u1", "i:1").replace("  name: u1\n", "  name: u1\n  uid: same\n");
        fs::write(dir.join("c.yaml"), &uid).unwrap();
        fs::write(dir.join("d.yaml"), uid.replace("u1", "u2")).unwrap();
    });
    let got = f.pods(&["x-node=i:1", "u1-node=i:1"]).await;
    let told: Vec<String> = got.problems.iter().map(ToString::to_string).collect();
    let at = |name: &str| f.file(name).display().to_string();
    assert_eq!(
        told,
        [
            format!(
                "{}: pod default/x-node is already given by {}, which is kept",
                at("b.yaml"),
                at("a.yaml")
            ),
            format!(
                "{}: pod default/u2-node has the uid same of the pod in {}, which is kept",
                at("d.yaml"),
                at("c.yaml")
            ),
        ]
    );
    fs::remove_file(f.file("a.yaml")).unwrap();
    f.pods(&["x-node=i:2", "u1-node=i:1"]).await;
    f.end().await;
}

#[tokio::test]
async fn a_missing_folder_is_no_delivery_and_a_removed_one_ends_no_pod() {
    let mut f = Fixture::start_with(RARELY, "manifests", |_| {});
    let missing = f.problem("manifest path does not exist; waiting for it").await;
    assert!(!missing.delivered);

    fs::create_dir(&f.path).unwrap();
    f.until("first delivery", |s| s.delivered && s.problems.is_empty()).await;
    f.write("a.yaml", &manifest("a", "i:1"));
    f.pods(&["a-node=i:1"]).await;

    // Moved away as a whole: nothing is told about the pods.
    fs::rename(&f.path, f.root.path().join("away")).unwrap();
    let gone = f.problem("does not exist").await;
    assert_eq!(images(&gone), ["a-node=i:1"]);
    assert!(gone.delivered);

    // Another folder in its place is watched in turn, and what is not in it is gone.
    fs::create_dir(&f.path).unwrap();
    f.write("b.yaml", &manifest("b", "i:1"));
    f.pods(&["b-node=i:1"]).await;
    f.write("c.yaml", &manifest("c", "i:1"));
    f.pods(&["b-node=i:1", "c-node=i:1"]).await;
    f.end().await;
}

#[tokio::test]
async fn symbolic_links_are_followed_and_swapped_at_once() {
    let mut f = Fixture::start(|dir| {
        for (version, image) in [("..1", "i:1"), ("..2", "i:2")] {
            fs::create_dir(dir.join(version)).unwrap();
            fs::write(dir.join(version).join("a.yaml"), manifest("a", image)).unwrap();
        }
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    });
    f.pods(&["a-node=i:1"]).await;
    symlink("..2", f.file("..data_tmp")).unwrap();
    fs::rename(f.file("..data_tmp"), f.file("..data")).unwrap();
    f.pods(&["a-node=i:2"]).await;
    // A new link has no writer that could close it.
    symlink("..1/a.yaml", f.file("b.yaml")).unwrap();
    f.problem("b.yaml: pod default/a-node is already given").await;
    f.end().await;
}

#[tokio::test]
async fn editors_that_move_the_file_away_first_do_not_end_the_pod() {
    let mut f = Fixture::start(|dir| fs::write(dir.join("a.yaml"), manifest("a", "i:1")).unwrap());
    f.pods(&["a-node=i:1"]).await;
    let mut seen = f.receiver.clone();
    seen.mark_unchanged();
    let watching = tokio::spawn(async move {
        let mut least = usize::MAX;
        loop {
            seen.changed().await.unwrap();
            let now = Arc::clone(&seen.borrow_and_update());
            least = least.min(now.pods.len());
            if images(&now) == ["a-node=i:2"] {
                return least;
            }
        }
    });
    fs::rename(f.file("a.yaml"), f.file(".a.yaml~")).unwrap();
    f.write("a.yaml", &manifest("a", "i:2"));
    f.pods(&["a-node=i:2"]).await;
    assert_eq!(watching.await.unwrap(), 1, "the pod was gone in between");
    f.end().await;
}

#[tokio::test]
async fn a_hundred_files_come_and_go_at_once() {
    let mut f = Fixture::start(|_| {});
    f.until("first delivery", |s| s.delivered).await;
    let start = Instant::now();
    for n in 0..100 {
        f.write(&format!("{n}.yaml"), &manifest(&format!("p{n}"), "i:1"));
    }
    let all = f.until("a hundred pods", |s| s.pods.len() == 100).await;
    println!("a hundred manifests in {:?}", start.elapsed());
    assert_eq!(all.problems, vec![]);
    let start = Instant::now();
    for n in 0..100 {
        fs::remove_file(f.file(&format!("{n}.yaml"))).unwrap();
    }
    f.until("no pods", |s| s.pods.is_empty()).await;
    println!("a hundred removals in {:?}", start.elapsed());
    // Each waits until it has settled, and all do so together.
    assert!(start.elapsed() < super::folder::SETTLE * 50);
    f.end().await;
}

#[tokio::test]
async fn a_single_file_is_a_source_too() {
    let mut f = Fixture::start_with(RARELY, "pod.yaml", |root| {
        fs::write(root.join("pod.yaml"), manifest("a", "i:1")).unwrap();
        fs::write(root.join("other.yaml"), manifest("b", "i:1")).unwrap();
    });
    f.pods(&["a-node=i:1"]).await;
    fs::write(f.root.path().join("tmp"), manifest("a", "i:2")).unwrap();
    fs::rename(f.root.path().join("tmp"), &f.path).unwrap();
    f.pods(&["a-node=i:2"]).await;
    fs::remove_file(&f.path).unwrap();
    f.pods(&[]).await;
    fs::write(&f.path, manifest("a", "i:3")).unwrap();
    f.pods(&["a-node=i:3"]).await;
    f.end().await;
}

#[tokio::test]
async fn changes_without_events_are_found_by_looking() {
    let mut f = Fixture::start_with(Duration::from_millis(100), "manifests", |root| {
        fs::create_dir(root.join("manifests")).unwrap();
        fs::create_dir(root.join("target")).unwrap();
        fs::write(root.join("target/a.yaml"), manifest("a", "i:1")).unwrap();
        symlink("../target/a.yaml", root.join("manifests/a.yaml")).unwrap();
    });
    f.pods(&["a-node=i:1"]).await;
    // The target of a link is in no watched folder.
    fs::write(f.root.path().join("target/a.yaml"), manifest("a", "i:2")).unwrap();
    f.pods(&["a-node=i:2"]).await;
    f.end().await;
}

#[tokio::test]
async fn removals_are_found_while_other_files_keep_changing() {
    let mut f = Fixture::start(|dir| fs::write(dir.join("a.yaml"), manifest("a", "i:1")).unwrap());
    f.pods(&["a-node=i:1"]).await;
    let busy = f.file("busy.yaml");
    let stop = CancellationToken::new();
    let writer = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || {
            while !stop.is_cancelled() {
                fs::write(&busy, manifest("b", "i:1")).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        }
    });
    f.pods(&["a-node=i:1", "b-node=i:1"]).await;
    fs::remove_file(f.file("a.yaml")).unwrap();
    f.pods(&["b-node=i:1"]).await;
    stop.cancel();
    writer.await.unwrap();
    f.end().await;
}

#[tokio::test]
async fn an_unreadable_file_keeps_its_pod() {
    if nix::unistd::geteuid().is_root() {
        // Root reads everything: a file that becomes a folder's socket stands in for it.
        let mut f = Fixture::start(|dir| fs::write(dir.join("a.yaml"), manifest("a", "i:1")).unwrap());
        f.pods(&["a-node=i:1"]).await;
        let socket = f.root.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::rename(&socket, f.file("a.yaml")).unwrap();
        let got = f.problem("a.yaml: is a socket, not a regular file; pod default/a-node stays").await;
        assert_eq!(images(&got), ["a-node=i:1"]);
        f.end().await;
    } else {
        let mut f = Fixture::start(|dir| fs::write(dir.join("a.yaml"), manifest("a", "i:1")).unwrap());
        f.pods(&["a-node=i:1"]).await;
        let closed = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o000);
        fs::set_permissions(f.file("a.yaml"), closed).unwrap();
        let got = f.problem("a.yaml: cannot be read").await;
        assert_eq!(images(&got), ["a-node=i:1"]);
        f.end().await;
    }
}
