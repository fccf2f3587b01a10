//! What `nodectl switch-runtime` does to a node, on containerd 1.6 and 2.1 themselves: images come over from a
//! stand-in for Docker, the runtime is looked at, a sandbox is tested with, pods are ended and their network taken
//! down.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nodectl::{
    api::cri::{
        ContainerConfig, ContainerMetadata, ContainerState, ImageSpec, LinuxPodSandboxConfig,
        PodSandboxConfig, PodSandboxMetadata, PortMapping,
    },
    cri::{Cri as _, CriClient, CriTimeouts},
    switch::{
        steps::{Action, Before, Step},
        transaction::World as _,
        world::{Carried, Node, Paths, Report},
    },
};
use support::{
    Containerd, Release,
    fake_docker::{FakeContainer, FakeDocker},
};

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Told {
    warnings: Vec<String>,
    /// Image, bytes, done.
    carried: Vec<(String, u64, bool)>,
}

impl Report for &mut Told {
    fn step(&mut self, _: &Step, _: bool) {}

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    fn waits(&mut self, _: &str) {}

    fn carried(&mut self, progress: &Carried<'_>) {
        assert!(progress.number >= 1 && progress.number <= progress.of);
        self.carried.push((progress.image.to_owned(), progress.bytes, progress.done));
    }
}

/// A containerd, and the actions on it.
struct Scene {
    containerd: Containerd,
    runtime: tokio::runtime::Runtime,
    cri: CriClient,
    paths: Paths,
}

impl Scene {
    fn new(name: &str, release: Release) -> Self {
        Self::on(Containerd::start(name, release))
    }

    fn on(containerd: Containerd) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cri = {
            let _entered = runtime.enter();
            let endpoint = format!("unix://{}", containerd.socket().display());
            CriClient::connect_lazy_to_any(endpoint.parse().unwrap(), None, CriTimeouts::default())
        };
        let paths = Paths {
            containerd: Some(containerd.fact("CONTAINERD_BIN").into()),
            ctr: Some(containerd.fact("CTR").into()),
            snapshotter: Some(containerd.fact("SNAPSHOTTER").to_owned()),
            cni_caches: vec!["/var/lib/cni".into()],
            cni_networks: containerd.dir().join("cni/ipam"),
            cgroup: format!("ndt{}", containerd.fact("NETWORK").replace('-', "")),
            ..Paths::default()
        };
        Self { containerd, runtime, cri, paths }
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.containerd.socket().display())
    }

    fn act(&self, told: &mut Told, action: &Action) -> Result<(), String> {
        self.runtime.block_on(Node::new(told, self.paths.clone()).act(action))
    }

    fn before(&self, action: &Action) -> Result<Before, String> {
        let mut told = Told::default();
        let copies = self.containerd.dir();
        self.runtime.block_on(Node::new(&mut told, self.paths.clone()).before(action, 0, copies))
    }

    fn undo(&self, told: &mut Told, action: &Action, before: &Before) -> Result<(), String> {
        let copies = self.containerd.dir();
        self.runtime.block_on(Node::new(told, self.paths.clone()).undo(action, before, copies))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.containerd.ctr(&["images", "ls", "-q"]).lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            port_mappings: vec![PortMapping {
                container_port: 80,
                host_port: i32::from(support::free_port()),
                ..PortMapping::default()
            }],
            log_directory: self.containerd.dir().join("logs").to_str().unwrap().to_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.containerd.cgroup_root()),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    /// A pod, and in it a container of an image that sleeps, if one is given.
    fn run_pod(&self, name: &str, image: Option<&str>) -> String {
        fs::create_dir_all(self.containerd.dir().join("logs")).unwrap();
        self.runtime.block_on(async {
            let config = self.sandbox_config(name);
            let sandbox = self.cri.run_pod_sandbox(config.clone(), "").await.unwrap();
            if let Some(image) = image {
                let container = ContainerConfig {
                    metadata: Some(ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
                    image: Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() }),
                    command: ["/bin/busybox", "sh", "-c", "cat /etc/message; exec /bin/busybox sleep 1000"]
                        .map(str::to_owned)
                        .into(),
                    log_path: format!("{name}.log"),
                    ..ContainerConfig::default()
                };
                let container = self.cri.create_container(&sandbox, container, config).await.unwrap();
                self.cri.start_container(&container).await.unwrap();
            }
            sandbox
        })
    }

    fn sandboxes(&self) -> Vec<String> {
        let all = self.runtime.block_on(self.cri.list_pod_sandboxes(None)).unwrap();
        all.into_iter().map(|sandbox| sandbox.id).collect()
    }

    fn remove_pods(&self) {
        for id in self.sandboxes() {
            self.runtime.block_on(async {
                self.cri.stop_pod_sandbox(&id).await.unwrap();
                self.cri.remove_pod_sandbox(&id).await.unwrap();
            });
        }
    }
}

/// What `docker save` writes: a tar archive with `manifest.json`, the configuration and a folder for each layer.
fn archive(folder: &Path, tag: &str) -> Vec<u8> {
    let root = folder.join("image");
    let tar = |from: &Path, to: &Path, what: &[&str]| {
        let done = Command::new("tar").arg("-C").arg(from).arg("-cf").arg(to).args(what).status().unwrap();
        assert!(done.success());
    };
    let digest = |path: &Path| {
        let out = Command::new("sha256sum").arg(path).output().unwrap().stdout;
        String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned()
    };
    fs::create_dir_all(root.join("1/bin")).unwrap();
    fs::create_dir_all(root.join("2/etc")).unwrap();
    fs::create_dir_all(root.join("save")).unwrap();
    support::copy_program(&which("busybox"), &root.join("1/bin/busybox"));
    fs::write(root.join("2/etc/message"), "carried over\n").unwrap();
    let mut layers = Vec::new();
    let mut ids = Vec::new();
    for (number, what) in [("1", "bin"), ("2", "etc")] {
        let layer = root.join(format!("{number}.tar"));
        tar(&root.join(number), &layer, &[what]);
        let id = digest(&layer);
        fs::create_dir_all(root.join("save").join(&id)).unwrap();
        fs::rename(layer, root.join("save").join(&id).join("layer.tar")).unwrap();
        layers.push(format!("{id}/layer.tar"));
        ids.push(format!("sha256:{id}"));
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["sh"] },
        // An image of its own, whatever the layers' times.
        "comment": tag,
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    fs::write(root.join("config"), config.to_string()).unwrap();
    let config = format!("{}.json", digest(&root.join("config")));
    fs::rename(root.join("config"), root.join("save").join(&config)).unwrap();
    let manifest = serde_json::json!([{ "Config": config, "RepoTags": [tag], "Layers": layers }]);
    fs::write(root.join("save/manifest.json"), manifest.to_string()).unwrap();
    tar(&root.join("save"), &folder.join("archive.tar"), &["."]);
    fs::remove_dir_all(root).unwrap();
    fs::read(folder.join("archive.tar")).unwrap()
}

fn which(program: &str) -> PathBuf {
    let out = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().into()
}

fn images_come_over(release: Release) {
    let scene = Scene::new("carry", release);
    let socket = scene.containerd.dir().join("docker.sock");
    let docker = FakeDocker::start(&socket);
    let folder = tempfile::tempdir().unwrap();
    let image = archive(folder.path(), "carried:1");
    let size = image.len() as u64;
    let images =
        [("carried:1", image.clone()), ("broken:cut", image), ("other:1", archive(folder.path(), "x:1"))];
    docker.state.lock().unwrap().images = images.map(|(name, archive)| (name.to_owned(), archive)).into();
    let carry = |images: &[&str]| Action::CarryImages {
        docker: socket.clone(),
        containerd: scene.containerd.socket().to_owned(),
        images: images.iter().map(|image| (*image).to_owned()).collect(),
    };
    let action = carry(&["carried:1"]);
    let (names, before) = (scene.names(), scene.before(&action).unwrap());
    assert!(matches!(&before, Before::Present { names: found } if found.len() == names.len()));

    let mut told = Told::default();
    scene.act(&mut told, &action).unwrap();
    assert!(scene.names().contains(&"docker.io/library/carried:1".to_owned()), "{:?}", scene.names());
    assert_eq!(told.carried.first().unwrap(), &("carried:1".to_owned(), 0, false));
    let (image, bytes, done) = told.carried.last().unwrap();
    assert!(image == "carried:1" && *done, "{told:?}");
    // What follows tar's end mark nobody has to read.
    assert!(*bytes <= size && *bytes > size - 20 * 512, "{told:?}, {size}");
    assert!(told.carried.len() >= 3, "{told:?}");
    // Once is enough.
    docker.asked();
    scene.act(&mut told, &action).unwrap();
    assert_eq!(docker.asked(), Vec::<String>::new());
    assert_eq!(told.carried.last().unwrap(), &("carried:1".to_owned(), 0, true));

    // It runs, by the name that a manifest has.
    scene.run_pod("carried", Some("carried:1"));
    let log = scene.containerd.dir().join("logs/carried.log");
    support::wait_until(support::SOON, "the container's word", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("carried over"))
    });
    scene.remove_pods();

    let carried = scene.names();
    for (image, cause) in [
        ("broken:cut", "image broken:cut: Docker on "),
        ("none:1", "image none:1: Docker refuses GET /images/get: No such image: none:1"),
        ("other:1", "image other:1: what Docker gave has no image of this name"),
    ] {
        let error = scene.act(&mut told, &carry(&[image])).unwrap_err();
        assert!(error.contains(cause), "{error}");
    }
    // What the last one brought under another name is nobody's wish here: that name, and the one by its id, which
    // CRI adds when it hears of it.
    let brought = || scene.names().into_iter().filter(|name| !carried.contains(name)).collect::<Vec<_>>();
    support::wait_until(support::SOON, "the image's second name", || brought().len() == 2);
    for name in brought() {
        scene.containerd.ctr(&["images", "rm", "--sync", &name]);
    }
    scene.undo(&mut told, &action, &before).unwrap();
    assert_eq!(scene.names(), names);
    assert_eq!(told.warnings, Vec::<String>::new());

    // Without a word on the snapshotter it comes over all the same, and runs.
    let paths = Paths { snapshotter: None, ..scene.paths.clone() };
    scene.runtime.block_on(Node::new(&mut told, paths).act(&action)).unwrap();
    scene.run_pod("again", Some("carried:1"));
    scene.remove_pods();
}

#[test]
fn images_come_over_to_containerd_1_6() {
    images_come_over(Release::Machine);
}

#[test]
fn images_come_over_to_containerd_2() {
    images_come_over(Release::Two);
}

fn the_runtime_is_looked_at(release: Release) {
    let scene = Scene::new("verify", release);
    let mut told = Told::default();
    let within =
        |timeout: u64, network: bool| Action::VerifyRuntime { endpoint: scene.endpoint(), network, timeout };
    // What is to be well may take its time, and what is not is told soon.
    let (well, verify) = (|network| within(60, network), |network| within(2, network));
    scene.act(&mut told, &well(true)).unwrap();

    let (cni, aside) = (scene.containerd.cni_conf_dir().to_owned(), scene.containerd.dir().join("aside"));
    fs::rename(cni.join("10-nodectl.conflist"), &aside).unwrap();
    support::wait_until(support::SOON, "the network is not ready", || {
        scene.act(&mut told, &verify(true)).is_err_and(|error| {
            assert!(error.starts_with("not ready within 2 s: NetworkReady is false: "), "{error}");
            true
        })
    });
    scene.act(&mut told, &well(false)).unwrap();
    let test = Action::TestSandbox {
        endpoint: scene.endpoint(),
        network: true,
        cgroup_driver: "cgroupfs".to_owned(),
    };
    let error = scene.act(&mut told, &test).unwrap_err();
    assert!(error.starts_with("a sandbox does not start: "), "{error}");
    // containerd 1.x keeps what is left of it until it has a network again.
    let undo = Action::StopPodsWhenUndone { endpoint: scene.endpoint() };
    scene.undo(&mut told, &undo, &Before::Present { names: Vec::new() }).unwrap();
    let left = scene.sandboxes().len();
    assert_eq!(left, usize::from(release == Release::Machine));
    assert_eq!(std::mem::take(&mut told.warnings).len(), left);
    // containerd waits for a file to be written, not for one to be there.
    fs::write(cni.join("10-nodectl.conflist"), fs::read(&aside).unwrap()).unwrap();
    support::wait_until(support::SOON, "a sandbox", || scene.act(&mut told, &test).is_ok());
    assert_eq!(scene.sandboxes(), Vec::<String>::new());
    told.warnings.clear();

    // A plugin that does not like its configuration, and none at all: told at once, in containerd's words.
    let config = scene.containerd.dir().join("config.toml");
    let whole = fs::read_to_string(&config).unwrap();
    let images =
        if release == Release::Two { "io.containerd.cri.v1.images" } else { "io.containerd.grpc.v1.cri" };
    let mirrors = format!(
        "{whole}\n[plugins.\"{images}\".registry]\nconfig_path = \"/etc/certs.d\"\n\
         [plugins.\"{images}\".registry.mirrors.\"x.test\"]\nendpoint = [\"https://y.test\"]\n"
    );
    let disabled =
        whole.replace("disabled_plugins = [", "disabled_plugins = [\n  \"io.containerd.grpc.v1.cri\",");
    for (text, cause) in [
        (mirrors, "`mirrors` cannot be set when `config_path` is provided"),
        (disabled, "containerd has no CRI plugin: its configuration disables it"),
    ] {
        fs::write(&config, text).unwrap();
        scene.containerd.kill9();
        scene.containerd.resume_without_cri();
        let start = Instant::now();
        let long = Action::VerifyRuntime { endpoint: scene.endpoint(), network: true, timeout: 600 };
        let error = scene.act(&mut told, &long).unwrap_err();
        assert!(error.contains(cause), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    scene.containerd.kill9();
    let error = scene.act(&mut told, &verify(true)).unwrap_err();
    assert!(error.starts_with("not ready within 2 s: Status at unix://"), "{error}");
    assert_eq!(told.warnings, Vec::<String>::new());
    fs::write(&config, whole).unwrap();
    scene.containerd.resume();
}

#[test]
fn containerd_1_6_is_looked_at() {
    the_runtime_is_looked_at(Release::Machine);
}

#[test]
fn containerd_2_is_looked_at() {
    the_runtime_is_looked_at(Release::Two);
}

/// Whether a cgroup is there in any hierarchy.
fn has_cgroup(path: &str) -> bool {
    support::cgroup_hierarchies().iter().any(|hierarchy| Path::new(hierarchy).join(path).exists())
}

fn a_sandbox_leaves_nothing(release: Release) {
    let scene = Scene::new("sandbox", release);
    let mut told = Told::default();
    for network in [true, false] {
        // What an earlier test that was killed has left.
        let mut left = scene.sandbox_config("left");
        left.metadata = Some(PodSandboxMetadata {
            name: "nodectl-switch-test".to_owned(),
            uid: "earlier".to_owned(),
            namespace: "kube-system".to_owned(),
            attempt: 0,
        });
        scene.runtime.block_on(scene.cri.run_pod_sandbox(left, "")).unwrap();
        let other = scene.run_pod("other", None);
        let test =
            Action::TestSandbox { endpoint: scene.endpoint(), network, cgroup_driver: "cgroupfs".to_owned() };
        scene.act(&mut told, &test).unwrap();
        assert_eq!(scene.sandboxes(), [other]);
        scene.remove_pods();
        assert!(!has_cgroup(&scene.paths.cgroup));
    }
    let leases = fs::read_dir(scene.paths.cni_networks.join(scene.containerd.fact("NETWORK"))).unwrap();
    let leases: Vec<_> = leases.map(|lease| lease.unwrap().file_name()).collect();
    assert!(!leases.iter().any(|name| name.to_str().unwrap().starts_with("10.")), "{leases:?}");
    assert_eq!(told.warnings, Vec::<String>::new());
}

#[test]
fn a_sandbox_leaves_nothing_with_containerd_1_6() {
    a_sandbox_leaves_nothing(Release::Machine);
}

#[test]
fn a_sandbox_leaves_nothing_with_containerd_2() {
    a_sandbox_leaves_nothing(Release::Two);
}

#[test]
fn a_runtime_with_cri_v1alpha2_alone_will_do() {
    let scene = Scene::on(Containerd::old("old"));
    let mut told = Told::default();
    let endpoint = scene.endpoint();
    let pods = Action::StopPodsWhenUndone { endpoint: endpoint.clone() };
    let before = scene.before(&pods).unwrap();
    for action in [
        Action::VerifyRuntime { endpoint: endpoint.clone(), network: true, timeout: 60 },
        Action::TestSandbox { endpoint, network: true, cgroup_driver: "cgroupfs".to_owned() },
    ] {
        scene.act(&mut told, &action).unwrap();
    }
    scene.run_pod("new", None);
    scene.undo(&mut told, &pods, &before).unwrap();
    assert_eq!(scene.sandboxes(), Vec::<String>::new());
    assert_eq!(told.warnings, Vec::<String>::new());
}

#[test]
fn new_pods_end_and_old_ones_stay() {
    let scene = Scene::new("undo", Release::Machine);
    let mut told = Told::default();
    let action = Action::StopPodsWhenUndone { endpoint: scene.endpoint() };
    let old = scene.run_pod("old", None);
    let before = scene.before(&action).unwrap();
    scene.act(&mut told, &action).unwrap();
    scene.run_pod("new", Some("localhost/nodectl/busybox:1"));
    scene.run_pod("bare", None);
    scene.undo(&mut told, &action, &before).unwrap();
    scene.undo(&mut told, &action, &before).unwrap();
    assert_eq!(scene.sandboxes(), [old]);
    let containers = scene.runtime.block_on(scene.cri.list_containers(None)).unwrap();
    assert!(containers.iter().all(|c| c.state != i32::from(ContainerState::ContainerRunning)));

    // A containerd that is down and of which nothing new lives needs not be asked.
    scene.containerd.kill9();
    scene.undo(&mut told, &action, &before).unwrap();
    // What lives there is not to be taken for new ones later on, so it must be known.
    assert!(scene.before(&action).unwrap_err().contains("nobody listens"));
    scene.containerd.resume();
    scene.remove_pods();
    scene.containerd.kill9();
    assert_eq!(scene.before(&action).unwrap(), Before::Present { names: Vec::new() });
    scene.containerd.resume();
}

#[test]
fn a_pods_network_is_taken_down_by_the_cache() {
    let scene = Scene::new("network", Release::Machine);
    let mut told = Told::default();
    let (pod, other) = (scene.run_pod("pod", None), scene.run_pod("other", None));
    let network = scene.containerd.fact("NETWORK").to_owned();
    let cached = |id: &str| PathBuf::from(format!("/var/lib/cni/results/{network}-{id}-eth0"));
    assert!(cached(&pod).exists() && cached(&other).exists());
    let leases = || -> BTreeMap<String, String> {
        let folder = scene.paths.cni_networks.join(&network);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let leases = files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with("10."));
        leases
            .map(|file| {
                let text = fs::read_to_string(&file).unwrap();
                (text.lines().next().unwrap().to_owned(), file.display().to_string())
            })
            .collect()
    };
    assert!(leases().contains_key(&pod));
    let rules = |id: &str| {
        let out = Command::new("iptables").args(["-w", "-t", "nat", "-S"]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().contains(id)
    };
    assert!(rules(&pod) && rules(&other));
    let process = |id: &str| {
        let info = scene.runtime.block_on(scene.cri.pod_sandbox_status(id, true)).unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
    };
    let links = |pid: i32| fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let pid = process(&pod);
    assert!(links(pid).contains("eth0"));

    // Docker has the pod of that id.
    let socket = scene.containerd.dir().join("docker.sock");
    let docker = FakeDocker::start(&socket);
    let mut sandbox = FakeContainer::of_pod(&pod, "podsandbox", "default/pod");
    sandbox.pid = pid;
    let mut application = FakeContainer::of_pod("app", "container", "default/pod");
    let grace = "annotation.io.kubernetes.pod.terminationGracePeriod".to_owned();
    application.labels.insert(grace, "7".to_owned());
    docker.state.lock().unwrap().containers = vec![sandbox, application];
    let stop = Action::StopDockerPods {
        docker: socket,
        cri: None,
        cni_bin_dirs: vec![scene.containerd.fact("CNI_BIN_DIR").into()],
    };
    scene.act(&mut told, &stop).unwrap();
    assert_eq!(told.warnings, Vec::<String>::new());
    assert!(!links(pid).contains("eth0"), "{}", links(pid));
    assert!(!cached(&pod).exists() && cached(&other).exists());
    assert!(!rules(&pod) && rules(&other));
    let left = leases();
    assert!(!left.contains_key(&pod) && left.contains_key(&other), "{left:?}");
    assert_eq!(
        docker.asked(),
        [
            "GET /containers/json?all=1".to_owned(),
            "POST /containers/app/stop?t=7".to_owned(),
            format!("GET /containers/{pod}/json"),
            format!("POST /containers/{pod}/stop?t=2"),
            "GET /containers/json?all=1".to_owned(),
        ]
    );
    // Again there is nothing to do.
    scene.act(&mut told, &stop).unwrap();
    assert_eq!(docker.asked().len(), 2);
    scene.remove_pods();
}
