//! The scheduler over real sockets. What commands that hang do to others is shown in `tests/simulation`.

use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    cri::{CriClient, CriTimeouts},
    policy::testing,
};

/// A prober whose runtime is not there.
fn prober() -> (Arc<Prober>, CancellationToken) {
    let cri = CriClient::connect_lazy(
        "unix:///nonexistent/runtime.sock".parse().unwrap(),
        None,
        CriTimeouts::from_request_timeout(Duration::from_secs(1)),
    );
    let prober = Prober::new(Arc::new(cri), Clock::system(), EventRecorder::default());
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&prober).run(stop.clone()));
    (prober, stop)
}

fn pod(uid: &str, probe: &serde_json::Value) -> Arc<Pod> {
    let mut pod = testing::pod(&["a"]);
    pod.metadata.uid = Some(uid.to_owned());
    pod.spec.as_mut().unwrap().containers[0].readiness_probe = serde_json::from_value(probe.clone()).unwrap();
    Arc::new(pod)
}

fn wanted(id: &str) -> WantedProbe {
    WantedProbe {
        id: id.into(),
        index: 0,
        sidecar: false,
        kind: ProbeKind::Readiness,
        started_at: Timestamp::now(),
        // Nobody else's address: when nobody listens any more, no other test does.
        ip: Some([127, 86, 0, 6].into()),
    }
}

/// Serves every connection, each after a while, and notes how many there were at most at once.
async fn slow_server(most: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.86.0.6:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (open, most) = (Arc::clone(&open), Arc::clone(&most));
            tokio::spawn(async move {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut head = [0; 512];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                tokio::time::sleep(Duration::from_millis(20)).await;
                open.fetch_sub(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
            });
        }
    });
    port
}

#[tokio::test]
async fn many_probes_run_a_few_at_a_time_and_leave_nothing() {
    let (prober, stop) = prober();
    let most = Arc::new(AtomicUsize::new(0));
    let port = slow_server(Arc::clone(&most)).await;
    let probe =
        serde_json::json!({"httpGet": {"port": port, "path": "/"}, "periodSeconds": 1, "timeoutSeconds": 30});
    let mailbox = Arc::new(Mailbox::default());
    let pods: Vec<_> = (0..300).map(|n| pod(&format!("u{n}"), &probe)).collect();
    for pod in &pods {
        prober.want(pod, vec![wanted("c")], &mailbox, |_| true);
    }
    assert_eq!(prober.count(), 300);
    let ready = |pod: &Arc<Pod>| prober.verdicts(&pod.uid()).values().any(|v| v.readiness == Some(true));
    tokio::time::timeout(Duration::from_secs(60), async {
        while !pods.iter().all(ready) {
            mailbox.probe_told().await;
        }
    })
    .await
    .unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!(most > 1 && most <= AT_ONCE[1], "{most} at once");
    for pod in &pods {
        prober.want(pod, Vec::new(), &mailbox, |_| false);
    }
    let state = prober.state();
    assert!(state.pods.is_empty() && state.queue.is_empty());
    drop(state);
    stop.cancel();
}

#[tokio::test]
async fn verdicts_are_told_when_they_change_and_kept_while_a_probe_cannot_be_run() {
    let (prober, _stop) = prober();
    let listener = TcpListener::bind("127.86.0.6:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = serde_json::json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1});
    let (mailbox, by_tcp) = (Arc::new(Mailbox::default()), pod("u", &probe));
    let readiness = || prober.verdicts(&"u".into()).get("c").and_then(|v| v.readiness);
    prober.want(&by_tcp, vec![wanted("c")], &mailbox, |_| true);
    mailbox.probe_told().await;
    assert_eq!(readiness(), Some(true));
    drop(listener);
    mailbox.probe_told().await;
    assert_eq!(readiness(), Some(false));
    assert!(prober.verdicts(&"u".into())["c"].said.contains("cannot connect"));

    // What was adopted stands until a probe says otherwise, and a runtime that is away says nothing.
    let exec = serde_json::json!({"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": 1});
    let by_exec = pod("v", &exec);
    prober.adopt(&"v".into(), &BTreeMap::from([("c".into(), Kept { started: true, ready: true })]));
    prober.want(&by_exec, vec![wanted("c")], &mailbox, |_| true);
    tokio::time::timeout(Duration::from_millis(2500), mailbox.probe_told()).await.unwrap_err();
    assert_eq!(prober.verdicts(&"v".into())["c"].readiness, Some(true));
    // A container that is gone is forgotten, and so is its pod.
    prober.want(&by_exec, Vec::new(), &mailbox, |_| false);
    prober.forget(&"u".into());
    assert!(prober.state().pods.is_empty() && prober.state().queue.is_empty());
}
