//! Actions on a node of stand-ins: systemd over a pair of sockets, a Docker daemon in memory, an API server.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Carried, Node, Paths, Report};
use crate::{
    host::systemd_tests::{FakeSystemd, FakeUnit},
    switch::{
        steps::{Action, Before, Step},
        transaction::World as _,
    },
};

#[path = "../../../tests/support/fake_docker.rs"]
mod fake_docker;
use fake_docker::{FakeContainer, FakeDocker};

#[derive(Default)]
pub(super) struct Warnings(Vec<String>);

impl Report for Warnings {
    fn step(&mut self, _: &Step, _: bool) {}

    fn warn(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }

    fn waits(&mut self, _: &str) {}

    fn carried(&mut self, _: &Carried<'_>) {}
}

/// A node in a folder.
pub(super) struct Scene {
    folder: tempfile::TempDir,
    systemd: FakeSystemd,
    pub(super) node: Node<Warnings>,
    _server: zbus::Connection,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["proc", "copies"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let systemd = FakeSystemd::default();
        let (client, server) = systemd.serve().await;
        let paths = Paths {
            proc: folder.path().join("proc"),
            cni_caches: vec![folder.path().join("cache")],
            cni_networks: folder.path().join("networks"),
            ..Paths::default()
        };
        let node = Node::new(Warnings::default(), paths).with_systemd(client);
        Self { folder, systemd, node, _server: server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn unit(&self, name: &str, active: &str, enabled: &str) {
        let unit = FakeUnit {
            load: "loaded".to_owned(),
            active: active.to_owned(),
            enabled: enabled.to_owned(),
            ..FakeUnit::default()
        };
        self.change(name, |known| *known = unit);
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut FakeUnit)) {
        change(self.systemd.0.lock().unwrap().units.entry(name.to_owned()).or_default());
    }

    fn state(&self, name: &str) -> (String, String) {
        let unit = self.systemd.0.lock().unwrap().units[name].clone();
        (unit.active, unit.enabled)
    }

    /// A container of Docker's lives.
    fn shim(&self, id: &str) {
        fs::create_dir_all(self.path("proc/7")).unwrap();
        let line = format!("/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0{id}\0");
        fs::write(self.path("proc/7/cmdline"), line).unwrap();
    }

    pub(super) async fn before(&mut self, action: &Action) -> Before {
        self.node.before(action, 3, &self.path("copies")).await.unwrap()
    }

    pub(super) async fn undo(&mut self, action: &Action, before: &Before) -> Result<(), String> {
        let copies = self.path("copies");
        self.node.undo(action, before, &copies).await
    }

    pub(super) fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.node.report.0)
    }
}

pub(super) fn unit(name: &str) -> String {
    name.to_owned()
}

#[tokio::test]
async fn files_are_put_back() {
    let mut scene = Scene::new().await;
    let (old, new) = (scene.path("old"), scene.path("a/new"));
    fs::write(&old, "old").unwrap();
    let write = |path: &PathBuf| Action::WriteFile {
        path: path.clone(),
        text: "x".to_owned(),
        mode: 0o600,
        seen: None,
    };
    for action in [write(&old), write(&new), Action::RemoveFile { path: old.clone() }] {
        let before = scene.before(&action).await;
        scene.node.act(&action).await.unwrap();
        scene.node.act(&action).await.unwrap();
        scene.undo(&action, &before).await.unwrap();
        scene.undo(&action, &before).await.unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "old");
        assert!(!scene.path("a").exists());
    }
    assert!(scene.path("copies/3").exists());
    let error = scene.node.act(&write(&old.join("below"))).await.unwrap_err();
    assert!(error.starts_with(&old.join("below").display().to_string()), "{error}");
    // A journal that has something else is not guessed at.
    assert!(scene.undo(&write(&old), &Before::Nothing).await.unwrap_err().contains("of another step"));
}

#[tokio::test]
async fn units_come_back_as_they_were() {
    let mut scene = Scene::new().await;
    for (active, enabled) in
        [("active", "enabled"), ("activating", "disabled"), ("inactive", "static"), ("failed", "enabled")]
    {
        scene.unit("kubelet.service", active, enabled);
        let actions = [
            Action::DisableUnit { unit: unit("kubelet.service") },
            Action::StopUnit { unit: unit("kubelet.service") },
            Action::RestartUnit { unit: unit("kubelet.service") },
            Action::EnableUnit { unit: unit("kubelet.service") },
        ];
        let mut done = Vec::new();
        for action in &actions {
            let before = scene.before(action).await;
            scene.node.act(action).await.unwrap();
            done.push((action, before));
        }
        assert_eq!(scene.state("kubelet.service").0, "active");
        for (action, before) in done.iter().rev() {
            scene.undo(action, before).await.unwrap();
        }
        let runs = if active.starts_with("activ") { "active" } else { "inactive" };
        assert_eq!(scene.state("kubelet.service").0, runs, "{active}");
        let found = scene.state("kubelet.service").1;
        assert_eq!(found == "enabled", enabled == "enabled", "{enabled}: {found}");
    }
    // One that is not there does not run and is not enabled, before and after.
    for action in
        [Action::StopUnit { unit: unit("none.service") }, Action::DisableUnit { unit: unit("none.service") }]
    {
        let before = scene.before(&action).await;
        scene.node.act(&action).await.unwrap();
        scene.undo(&action, &before).await.unwrap();
    }
    scene.systemd.calls();
    scene.node.act(&Action::ReloadUnits).await.unwrap();
    scene.undo(&Action::ReloadUnits, &Before::Nothing).await.unwrap();
    assert_eq!(scene.systemd.calls(), ["Reload", "Reload"]);
}

#[tokio::test]
async fn a_unit_that_does_not_start_is_told_with_its_result() {
    let mut scene = Scene::new().await;
    scene.unit("containerd.service", "inactive", "enabled");
    scene.change("containerd.service", |unit| unit.result = Some("failed".to_owned()));
    let error = scene.node.act(&Action::RestartUnit { unit: unit("containerd.service") }).await.unwrap_err();
    assert!(error.contains("restart containerd.service") && error.contains("result exit-code"), "{error}");
}

fn stop(socket: PathBuf, cri: Option<&str>) -> Action {
    Action::StopDockerPods { docker: socket, cri: cri.map(str::to_owned), cni_bin_dirs: Vec::new() }
}

#[tokio::test]
async fn docker_that_is_down_with_nothing_alive_has_no_pods() {
    let mut scene = Scene::new().await;
    let action = stop(scene.path("docker.sock"), None);
    scene.node.act(&action).await.unwrap();
    assert_eq!(scene.systemd.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn containers_that_outlive_docker_are_ended_through_it() {
    let mut scene = Scene::new().await;
    let socket = scene.path("docker.sock");
    scene.shim("s");
    scene.unit("docker.service", "inactive", "enabled");
    scene.unit("docker.socket", "inactive", "enabled");
    let state: Arc<std::sync::Mutex<fake_docker::State>> = Arc::default();
    state.lock().unwrap().containers = vec![
        FakeContainer::of_pod("s", "podsandbox", "ns/p"),
        FakeContainer::of_pod("c", "container", "ns/p"),
    ];
    // It answers once systemd has started it.
    let (systemd, kept, at) = (scene.systemd.clone(), Arc::clone(&state), socket.clone());
    let starter = tokio::spawn(async move {
        loop {
            if systemd.0.lock().unwrap().units["docker.service"].active == "active" {
                return FakeDocker::with(&at, kept);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    scene.node.act(&stop(socket, None)).await.unwrap();
    let docker = starter.await.unwrap();
    assert!(state.lock().unwrap().containers.iter().all(|container| !container.running));
    let stops: Vec<String> = docker.asked().into_iter().filter(|asked| asked.starts_with("POST")).collect();
    assert_eq!(stops, ["POST /containers/c/stop?t=30", "POST /containers/s/stop?t=2"]);
    assert_eq!(scene.state("docker.service").0, "inactive");
    assert_eq!(
        scene.systemd.calls(),
        [
            "ResetFailedUnit docker.service",
            "StartUnit docker.service",
            "StopUnit docker.socket",
            "StopUnit docker.service"
        ]
    );
    assert!(scene.warnings()[0].contains("containers live without it"));
}

#[tokio::test]
async fn what_does_not_end_is_named() {
    let mut scene = Scene::new().await;
    let socket = scene.path("docker.sock");
    let docker = FakeDocker::start(&socket);
    let mut hung = FakeContainer::of_pod("0123456789abcdef", "container", "ns/p");
    hung.stubborn = true;
    let mut dead = FakeContainer::of_pod("dead", "container", "ns/q");
    dead.running = false;
    let other = FakeContainer { id: "other".to_owned(), running: true, ..FakeContainer::default() };
    docker.state.lock().unwrap().containers =
        vec![hung, dead, other, FakeContainer::of_pod("s", "podsandbox", "ns/p")];
    // cri-dockerd does not answer: its pods end all the same.
    let endpoint = format!("unix://{}", scene.path("cri.sock").display());
    let error = scene.node.act(&stop(socket, Some(&endpoint))).await.unwrap_err();
    assert!(
        error.starts_with("1 containers of pods in Docker do not end: 0123456789ab of pod ns/p."),
        "{error}"
    );
    let state = docker.state.lock().unwrap();
    let running: Vec<&str> =
        state.containers.iter().filter(|container| container.running).map(|c| c.id.as_str()).collect();
    assert_eq!(running, ["0123456789abcdef", "other"]);
    drop(state);
    let warnings = scene.warnings();
    assert!(
        warnings[0].contains("cannot stop container") && warnings[1].contains("CNI cache"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn old_pods_go_with_all_that_was_theirs() {
    let mut scene = Scene::new().await;
    let socket = scene.path("docker.sock");
    let docker = FakeDocker::start(&socket);
    docker.state.lock().unwrap().containers = vec![
        FakeContainer::of_pod("s", "podsandbox", "ns/p"),
        FakeContainer::of_pod("c", "container", "ns/p"),
        FakeContainer { id: "other".to_owned(), ..FakeContainer::default() },
    ];
    for folder in ["shim/sandbox", "networks/cbr0", "cache/results"] {
        fs::create_dir_all(scene.path(folder)).unwrap();
    }
    fs::write(scene.path("shim/sandbox/t"), "{}").unwrap();
    for (address, holder) in [("10.0.0.2", "s"), ("10.0.0.3", "t\r\neth0"), ("10.0.0.4", "u")] {
        fs::write(scene.path("networks/cbr0").join(address), holder).unwrap();
    }
    let cached = json!({ "kind": "cniCacheV1", "containerId": "t", "ifName": "eth0", "networkName": "cbr0",
        "config": "e30=" });
    fs::write(scene.path("cache/results/cbr0-t-eth0"), cached.to_string()).unwrap();
    scene.unit("docker.service", "active", "enabled");
    scene.unit("docker.socket", "active", "enabled");
    let remove = |stop_docker: bool| Action::RemoveOldPods {
        docker: socket.clone(),
        stop_docker,
        dockershim: scene.folder.path().join("shim"),
    };
    let (keep, end) = (remove(false), remove(true));
    scene.node.act(&keep).await.unwrap();
    assert_eq!(scene.systemd.calls(), Vec::<String>::new());
    let asked: Vec<String> = docker.asked().into_iter().skip(1).collect();
    assert_eq!(asked, ["DELETE /containers/c?force=1&v=1", "DELETE /containers/s?force=1&v=1"]);
    let names = |folder: &str| {
        let entries = fs::read_dir(scene.folder.path().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names("networks/cbr0"), ["10.0.0.4"]);
    assert!(names("cache/results").is_empty() && names("shim/sandbox").is_empty());
    scene.node.act(&end).await.unwrap();
    assert_eq!(scene.systemd.calls(), ["StopUnit docker.socket", "StopUnit docker.service"]);
    // What cannot be removed is told, and Docker is down all the same.
    let mut hung = FakeContainer::of_pod("h", "container", "ns/p");
    hung.stubborn = true;
    docker.state.lock().unwrap().containers.push(hung);
    let error = scene.node.act(&end).await.unwrap_err();
    assert!(error.starts_with("1 containers are not removed: Docker refuses"), "{error}");
    assert_eq!(scene.systemd.calls(), ["StopUnit docker.socket", "StopUnit docker.service"]);
}

/// A healthz that answers this.
async fn healthz(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn the_agent_is_well_when_all_of_it_is() {
    let mut scene = Scene::new().await;
    let socket = scene.path("docker.sock");
    let docker = FakeDocker::start(&socket);
    docker.state.lock().unwrap().containers = vec![
        FakeContainer::of_pod("s", "podsandbox", "ns/p"),
        FakeContainer::of_pod("c", "container", "ns/p"),
    ];
    scene.unit("kubelet.service", "active", "enabled");
    let well = healthz("200 OK").await;
    let verify = |healthz: &str, pods: &[&str], timeout: u64| Action::VerifyWhenUndone {
        unit: unit("kubelet.service"),
        healthz: Some(healthz.to_owned()),
        docker: Some(socket.clone()),
        endpoint: None,
        static_pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
        timeout,
    };
    let good = verify(&well, &["ns/p"], 60);
    // It does nothing until it is taken back.
    let start = std::time::Instant::now();
    scene.node.act(&good).await.unwrap();
    assert_eq!(docker.asked(), Vec::<String>::new());
    scene.undo(&good, &Before::Nothing).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(5), "it is watched for a while");

    let ill = healthz("500 Internal Server Error").await;
    let bad = verify(&ill, &["ns/p", "ns/q"], 0);
    let error = scene.undo(&bad, &Before::Nothing).await.unwrap_err();
    assert!(error.contains(&format!("healthz at {ill}: it answers 500")), "{error}");
    assert!(error.contains("static pods without a running container: ns/q"), "{error}");
    scene.change("kubelet.service", |unit| unit.active = "activating".to_owned());
    let error = scene.undo(&verify(&well, &[], 0), &Before::Nothing).await.unwrap_err();
    assert!(error.contains("kubelet.service is activating"), "{error}");

    // One that starts again and again is up whenever it is looked at.
    scene.unit("kubelet.service", "active", "enabled");
    let systemd = scene.systemd.clone();
    let restarting = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            systemd.0.lock().unwrap().units.get_mut("kubelet.service").unwrap().restarts += 1;
        }
    });
    let error = scene.undo(&verify(&well, &[], 60), &Before::Nothing).await.unwrap_err();
    restarting.abort();
    assert!(error.contains("kubelet.service does not stay: it was started again "), "{error}");
}

#[tokio::test]
async fn containerd_is_asked_what_it_makes_of_its_files() {
    let mut scene = Scene::new().await;
    let config = scene.path("config.toml");
    fs::write(&config, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"a:1\"\n")
        .unwrap();
    let check = |value: &str, config: &Path| Action::CheckContainerdConfig {
        config: config.to_owned(),
        expected: vec![("plugins.\"io.containerd.grpc.v1.cri\".sandbox_image".to_owned(), value.to_owned())],
    };
    scene.node.act(&check("\"a:1\"", &config)).await.unwrap();
    let error = scene.node.act(&check("\"b:1\"", &config)).await.unwrap_err();
    assert!(error.ends_with("sandbox_image \"a:1\", and not \"b:1\""), "{error}");
    fs::write(&config, "version = ").unwrap();
    let error = scene.node.act(&check("\"a:1\"", &config)).await.unwrap_err();
    assert!(error.starts_with(&format!("containerd --config {} config dump: ", config.display())), "{error}");
}
