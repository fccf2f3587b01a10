//! What files take, with a runtime that answers nothing.

use super::*;
use crate::{
    api::cri::{FilesystemIdentifier, UInt64Value},
    cri::{CriClient, CriTimeouts},
    policy::testing,
};

fn places(root: &Path, socket: &Path) -> Places {
    let endpoint = format!("unix://{}", socket.display()).parse().unwrap();
    let patient = CriTimeouts::from_request_timeout(Duration::from_secs(600));
    Places {
        cri: Arc::new(CriClient::connect_lazy(endpoint, None, patient)),
        paths: NodePaths { root: root.into(), pod_logs: root.join("logs"), container_logs: root.into() },
        mountinfo: "/proc/self/mountinfo".into(),
        clock: Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_dead_or_does_not_answer_leaves_its_part_out() {
    let root = tempfile::tempdir().unwrap();
    let pod = testing::observed(
        vec![testing::sandbox("sb", 0)],
        vec![testing::container("a", "sb"), testing::container("b", "sb")],
    );
    let logs = root.path().join("logs/default_p_u/a");
    fs::create_dir_all(&logs).unwrap();
    fs::create_dir_all(root.path().join("pods/u")).unwrap();
    fs::write(logs.join("0.log"), vec![1; 10_000]).unwrap();
    fs::write(logs.join("0.log.20240101-000000"), vec![1; 5_000]).unwrap();
    fs::write(root.path().join("pods/u/etc-hosts"), "x").unwrap();
    let hangs = root.path().join("hangs.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&hangs).unwrap();
    for socket in [hangs, root.path().join("none.sock")] {
        let begun = tokio::time::Instant::now();
        let usage = take(places(root.path(), &socket), vec![Arc::new(pod.clone())]).await.unwrap();
        assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(100), "{:?}", begun.elapsed());
        assert_eq!((usage.images, usage.containers, usage.layers.len()), (None, None, 0));
        assert!(usage.root.as_ref().unwrap().capacity > 0 && !usage.root.unwrap().device.is_empty());
        assert_eq!(usage.logs.len(), 1, "what is not there is left out: {:?}", usage.logs);
        let log = &usage.logs[&("u".into(), "a".into())];
        assert_eq!(log.inodes, Some(3));
        assert!((15_000..40_000).contains(&log.bytes.unwrap()), "{log:?}");
        assert_eq!(usage.pod_files["u"].inodes, Some(1));
    }
}

#[test]
fn what_the_runtime_says_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let of = |mountpoint: &str, bytes| FilesystemUsage {
        timestamp: 1_700_000_000_000_000_000,
        fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.into() }),
        used_bytes: Some(UInt64Value { value: bytes }),
        inodes_used: None,
    };
    let layer = |id: &str, layer| ContainerStats {
        attributes: Some(crate::api::cri::ContainerAttributes { id: id.into(), ..Default::default() }),
        writable_layer: layer,
        ..ContainerStats::default()
    };
    let told = Told {
        layers: vec![
            layer("c1", Some(of(root.path().to_str().unwrap(), 7))),
            layer("c2", None),
            layer("c3", Some(FilesystemUsage { timestamp: 0, ..of("/not/there", 8) })),
            ContainerStats::default(),
        ],
        images: Some(of("/", 100)),
        containers: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let at = Timestamp::UNIX_EPOCH;
    let usage = look(&places(root.path(), &root.path().join("none")), &[], told, at);
    assert_eq!(usage.images.as_ref().unwrap().disk.bytes, Some(100));
    assert_eq!(usage.images.unwrap().at.as_second(), 1_700_000_000);
    assert_eq!(usage.layers.keys().map(crate::api::ContainerId::as_str).collect::<Vec<_>>(), ["c1", "c3"]);
    let [one, three] = [&usage.layers["c1"], &usage.layers["c3"]];
    assert!(one.fs.is_some() && one.disk == DiskUsage { bytes: Some(7), inodes: None });
    assert!(three.fs.is_none() && three.at == at, "{three:?}");
}
