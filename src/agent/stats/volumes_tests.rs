//! What volumes take, found out over folders of our own.

use std::fs;

use serde_json::json;

use super::*;
use crate::api::{
    PodUid,
    view::{HealthCheck, PodView},
};

struct Pods(Mutex<Vec<PodView>>);

impl AgentView for Pods {
    fn pods(&self) -> Vec<PodView> {
        self.0.lock().unwrap().clone()
    }

    fn health(&self) -> Vec<HealthCheck> {
        Vec::new()
    }

    fn input_problems(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

fn view() -> PodView {
    serde_json::from_value(json!({
        "uid": "u",
        "pod": {
            "metadata": {"name": "p", "namespace": "default", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory"}},
                {"name": "missing", "emptyDir": {}},
                {"name": "config", "configMap": {"name": "c"}},
                {"name": "host", "hostPath": {"path": "/"}},
            ]},
        },
        "status": {},
        "progress": {"step": "running", "detail": "", "since": "2024-01-01T00:00:00Z"},
    }))
    .unwrap()
}

fn meter(root: &Path) -> Arc<VolumeMeter> {
    let paths = NodePaths { root: root.into(), pod_logs: root.into(), container_logs: root.into() };
    let clock = Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap());
    Arc::new(VolumeMeter::new(Duration::from_secs(60), paths, "/proc/self/mountinfo".into(), clock))
}

fn make(root: &Path) -> PathBuf {
    let volumes = root.join("pods/u/volumes");
    fs::create_dir_all(volumes.join("kubernetes.io~empty-dir/data/below")).unwrap();
    fs::create_dir_all(volumes.join("kubernetes.io~configmap/config")).unwrap();
    fs::write(volumes.join("kubernetes.io~empty-dir/data/below/file"), vec![1; 100_000]).unwrap();
    let memory = volumes.join("kubernetes.io~empty-dir/memory");
    fs::create_dir_all(&memory).unwrap();
    mounts::mount_tmpfs(&memory, 1 << 20).expect("this test mounts, and needs root");
    fs::write(memory.join("file"), vec![1; 50_000]).unwrap();
    memory
}

/// Lets the meter's task come as far as it can at this time.
async fn settle() {
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_looks_while_somebody_asks_and_forgets_pods_that_are_gone() {
    let root = tempfile::tempdir().unwrap();
    let memory = make(root.path());
    let (meter, stop) = (meter(root.path()), CancellationToken::new());
    let pods = Arc::new(Pods(Mutex::new(vec![view()])));
    let shown: Arc<dyn AgentView> = Arc::<Pods>::clone(&pods);
    let running = tokio::spawn(Arc::clone(&meter).run(shown, stop.clone()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(meter.found.lock().unwrap().is_empty(), "nobody has asked");
    assert!(meter.ask().is_empty(), "nobody waits for it");

    let uid = PodUid::from("u");
    let found = loop {
        // A thread of its own finds out; the clock stands meanwhile.
        if let Some(found) = meter.found.lock().unwrap().get(&uid) {
            break found.clone();
        }
        tokio::task::yield_now().await;
    };
    let brief: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.ephemeral)).collect();
    assert_eq!(brief, [("data", true), ("memory", false), ("config", true)]);
    let bytes: Vec<u64> = found.iter().map(|one| one.disk.bytes.unwrap()).collect();
    assert!((100_000..200_000).contains(&bytes[0]) && (50_000..70_000).contains(&bytes[1]), "{bytes:?}");
    assert_eq!((found[0].disk.inodes, found[1].fs.capacity), (Some(3), 1 << 20));
    assert!(found[0].fs.capacity > 1 << 20, "{found:?}");

    pods.0.lock().unwrap().clear();
    while !meter.found.lock().unwrap().is_empty() {
        meter.ask();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    // Nobody asks for a while: it ends, and begins again when somebody does.
    tokio::time::sleep(IDLE + Duration::from_secs(120)).await;
    pods.0.lock().unwrap().push(view());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(meter.found.lock().unwrap().is_empty());
    while meter.ask().is_empty() {
        // The clock runs on while the thread works, and somebody has to ask again and again.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.cancel();
    settle().await;
    assert!(running.is_finished());
    mounts::unmount(&memory).unwrap();
}

#[test]
fn a_round_that_is_ended_keeps_what_was_known() {
    let root = tempfile::tempdir().unwrap();
    let memory = make(root.path());
    let meter = meter(root.path());
    meter.found.lock().unwrap().insert("u".into(), Vec::new());
    meter.look(&[view().pod], &AtomicBool::new(true));
    mounts::unmount(&memory).unwrap();
    assert_eq!(meter.found.lock().unwrap().get(&PodUid::from("u")), Some(&Vec::new()));
}
