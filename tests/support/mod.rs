//! What the integration tests stand on: a private containerd, an agent on it, and counts of what both
//! leave behind.
//!
//! Every [`Node`] has a containerd of its own (`hack/containerd.sh`: half a second to start, a third to
//! stop) in a short folder under `/run`, as a unix socket's path holds 107 bytes. Sharing one would
//! save little and cost the exact counts: on a shared runtime nobody can tell whose sandbox leaked. The
//! agent's folders lie inside the same folder, so that one `stop` removes all, mounts included, also
//! when a test panics; what a killed test leaves behind is removed by the next run (`gc`).

#![allow(dead_code, unused_imports, reason = "each test file uses another part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot have what it needs must fail and say why"
)]

pub(crate) mod cluster;
mod containerd;
pub(crate) mod control_plane;
mod cri;
pub(crate) mod cri_cli;
pub(crate) mod fake_cri;
pub(crate) mod fake_docker;
mod inside;
mod leaks;
pub(crate) mod machine;
pub(crate) mod machine_files;
pub(crate) mod machine_registry;
mod manifest;
pub(crate) mod node_folder;
mod registry;
pub(crate) mod said;
mod search;
mod server_pod;
mod status;
pub(crate) mod switching;
pub(crate) mod terminal;
pub(crate) mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use containerd::{Containerd, Release, script};
pub(crate) use control_plane::ControlPlane;
pub(crate) use cri::{Empty, Id, call};
pub(crate) use inside::{Process, Record, get, wait_lines};
pub(crate) use leaks::{Leaks, cgroup_hierarchies, processes};
pub(crate) use manifest::{GREEDY, IMAGE, ROOMY, STAY, STUBBORN, container, pod, pod_of, pod_with_policy};
pub(crate) use registry::Registry;
pub(crate) use search::{files_on_disk_with, files_with};
pub(crate) use server_pod::{condition, main_of, uid};
pub(crate) use status::View;

/// How long a test waits for what should happen soon. Long, as the machine may be busy: a passing test
/// never waits it out.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// How many times longer than elsewhere anything may take here: `NODECTL_TEST_SLOW`, which is set where a
/// processor is emulated.
pub(crate) fn slow() -> u32 {
    std::env::var("NODECTL_TEST_SLOW").map_or(1, |text| text.parse().expect("NODECTL_TEST_SLOW is a number"))
}

/// Copies a program that is to be started, by a process of its own: a child that another test forks while
/// this process has the copy open for writing keeps it so for a moment, and the start then fails with "Text
/// file busy".
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().unwrap();
    assert!(copied.success(), "cp {} {}", from.display(), to.display());
}

/// Between two looks at what is waited for.
pub(crate) fn look_again() -> Duration {
    Duration::from_millis(20) * slow()
}

/// Tries `probe` every 20 ms until it answers `Some`; fails the test with `what` after `within`.
#[track_caller]
pub(crate) fn wait_for<T>(within: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let within = within * slow();
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(look_again());
    }
}

/// Like [`wait_for`] for a plain yes or no.
#[track_caller]
pub(crate) fn wait_until(within: Duration, what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(within, what, || probe().then_some(()));
}

/// A port that nobody listens on, on any address, and that nobody else is given. It is none that the kernel gives
/// to whoever asks for any (32768 and above), nor a port of a node or of a Service: what is only listened on later
/// would be somebody else's by then now and then.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 17_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other programs begin elsewhere.
    let begin = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let at = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + at).unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// The last lines of a file, for a failure's message; empty if it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What a [`Node`] is to be like.
pub(crate) struct NodeBuilder {
    name: String,
    release: Release,
    cgroup_driver: &'static str,
    config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl NodeBuilder {
    /// With systemd's cgroup driver, in the runtime and in the agent, and kubelet's own slices from the root:
    /// for a machine that is the test's own.
    pub(crate) fn systemd(mut self) -> Self {
        self.cgroup_driver = "systemd";
        self
    }

    /// On containerd 2.x (with CRI's event stream) instead of the machine's own.
    pub(crate) fn containerd2(mut self) -> Self {
        self.release = Release::Two;
        self
    }

    /// Lines to add to the KubeletConfiguration; a key of the harness itself may not come twice.
    pub(crate) fn config(mut self, yaml: &str) -> Self {
        self.config.push_str(yaml);
        if !yaml.ends_with('\n') {
            self.config.push('\n');
        }
        self
    }

    /// One more argument of `nodectl run`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A node of a cluster, with a certificate of its own.
    #[track_caller]
    pub(crate) fn joined(self, cluster: &ControlPlane) -> Self {
        let kubeconfig = cluster.node_kubeconfig(&self.name);
        self.argument(&format!("--kubeconfig={}", kubeconfig.display()))
    }

    /// A variable of the agent's environment.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The containerd and the folders, without the agent: for tests that prepare something first.
    pub(crate) fn prepare(self) -> Node {
        let containerd = Containerd::with_cgroup_driver(&self.name, self.release, self.cgroup_driver);
        let dir = containerd.dir().to_path_buf();
        for folder in ["kubelet", "manifests", "pod-logs", "container-logs"] {
            fs::create_dir(dir.join(folder)).unwrap();
        }
        let node = Node {
            healthz_port: free_port(),
            api_port: free_port(),
            name: self.name,
            containerd,
            dir,
            agent: None,
            cgroup_driver: self.cgroup_driver,
            extra_config: self.config,
            arguments: self.arguments,
            environment: self.environment,
        };
        fs::write(node.dir.join("config.yaml"), node.config_text()).unwrap();
        node
    }

    /// All of it, with the agent answering on its operator socket.
    pub(crate) fn start(self) -> Node {
        let mut node = self.prepare();
        node.start_agent();
        node
    }
}

/// A containerd with an agent on it. Dropping it removes both and all that they made.
pub(crate) struct Node {
    name: String,
    dir: PathBuf,
    agent: Option<Child>,
    healthz_port: u16,
    api_port: u16,
    cgroup_driver: &'static str,
    extra_config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The runtime, to be killed, frozen and asked.
    pub(crate) containerd: Containerd,
}

impl Node {
    /// A node on the machine's containerd, its agent running.
    pub(crate) fn start(name: &str) -> Self {
        Self::builder(name).start()
    }

    /// A node on containerd 2.x, its agent running.
    pub(crate) fn with_containerd2(name: &str) -> Self {
        Self::builder(name).containerd2().start()
    }

    /// To start from; `name` is the host name that the agent goes by.
    pub(crate) fn builder(name: &str) -> NodeBuilder {
        NodeBuilder {
            name: name.to_owned(),
            release: Release::Machine,
            cgroup_driver: "cgroupfs",
            config: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The folder that everything of this node lies in.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The agent's `--root-dir`.
    pub(crate) fn root_dir(&self) -> PathBuf {
        self.dir.join("kubelet")
    }

    /// The agent's `--cert-dir`.
    pub(crate) fn cert_dir(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The manifest folder.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// The folder of the pods' logs, kubelet's `/var/log/pods`.
    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.dir.join("pod-logs")
    }

    /// The folder of links to container logs, kubelet's `/var/log/containers`.
    pub(crate) fn container_logs(&self) -> PathBuf {
        self.dir.join("container-logs")
    }

    /// The operator socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("nodectl.sock")
    }

    /// The configuration file that the agent reads at its next start.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }

    /// Adds lines to the configuration, for the agent's next start.
    pub(crate) fn add_config(&mut self, yaml: &str) {
        self.extra_config.push_str(yaml);
        fs::write(self.config_file(), self.config_text()).unwrap();
    }

    /// Replaces the arguments of its own that the builder was given, for the agent's next start.
    pub(crate) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    fn config_text(&self) -> String {
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             staticPodPath: {manifests}\npodLogsDir: {logs}\ncontainerRuntimeEndpoint: unix://{runtime}\n\
             cgroupRoot: {cgroup}\ncgroupDriver: {driver}\nhealthzBindAddress: 127.0.0.1\n\
             healthzPort: {healthz}\nport: {port}\nreadOnlyPort: 0\n{extra}",
            manifests = self.manifests().display(),
            logs = self.pod_logs().display(),
            runtime = self.containerd.socket().display(),
            cgroup = if self.cgroup_driver == "systemd" { "/" } else { self.containerd.cgroup_root() },
            driver = self.cgroup_driver,
            healthz = self.healthz_port,
            port = self.api_port,
            extra = self.extra_config,
        )
    }

    /// `nodectl run` for this node, not yet started: for tests of its refusals.
    pub(crate) fn agent_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodectl"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.config_file())
            .arg("--root-dir")
            .arg(self.root_dir())
            .arg("--cert-dir")
            .arg(self.cert_dir())
            .arg("--hostname-override")
            .arg(&self.name)
            .arg("--operator-socket")
            .arg(self.socket())
            .arg("--container-log-dir")
            .arg(self.container_logs())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
        command
    }

    /// Starts the agent and waits until it answers. Its output is added to `agent.log`.
    #[track_caller]
    pub(crate) fn start_agent(&mut self) {
        assert!(self.agent.is_none(), "the agent of {} runs already", self.name);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("agent.log")).unwrap();
        let child = self
            .agent_command()
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the built nodectl starts");
        // Found by `hack/containerd.sh stop` if this process is killed.
        fs::write(self.dir.join("agent.pid"), format!("{}\n", child.id())).unwrap();
        self.agent = Some(child);
        let start = Instant::now();
        while !self.run_cli(&["pods", "-o", "json"]).status.success() {
            if let Some(status) = self.agent.as_mut().and_then(|a| a.try_wait().unwrap()) {
                self.agent = None;
                panic!("the agent ended while starting: {status}\n{}", self.agent_log());
            }
            assert!(
                start.elapsed() < SOON * slow(),
                "the agent does not answer on {}",
                self.socket().display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The agent's process number.
    #[track_caller]
    pub(crate) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    /// Sends the agent a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.agent_pid().cast_signed()), signal).unwrap();
    }

    fn end_agent(&mut self, signal: Signal) -> Option<std::process::ExitStatus> {
        self.agent.as_ref()?;
        self.signal(signal);
        let start = Instant::now();
        loop {
            if let Some(status) = self.agent.as_mut()?.try_wait().unwrap() {
                self.agent = None;
                return Some(status);
            }
            assert!(start.elapsed() < SOON * slow(), "the agent outlives {signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the agent as a crash would; its pods stay.
    #[track_caller]
    pub(crate) fn kill9(&mut self) {
        self.end_agent(Signal::SIGKILL).expect("the agent runs");
    }

    /// Asks the agent to end and gives its exit code; its pods stay.
    #[track_caller]
    pub(crate) fn sigterm(&mut self) -> Option<i32> {
        self.end_agent(Signal::SIGTERM).expect("the agent runs").code()
    }

    /// Kills the agent if it runs, and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.end_agent(Signal::SIGKILL);
        self.start_agent();
    }

    /// Has the agent ended by itself? Its status then.
    pub(crate) fn agent_ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.agent.as_mut()?.try_wait().unwrap()?;
        self.agent = None;
        Some(status)
    }

    /// Writes a manifest as careful tools do: beside, then renamed into place.
    pub(crate) fn put_manifest(&self, file: &str, text: &str) {
        let beside = self.manifests().join(format!(".{file}.tmp"));
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.manifests().join(file)).unwrap();
    }

    /// Removes a manifest.
    pub(crate) fn remove_manifest(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// Runs a subcommand that talks to the agent (`pods`, `explain`) with this node's socket.
    pub(crate) fn run_cli(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_nodectl"))
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .stdin(Stdio::null())
            .output()
            .expect("the built nodectl starts")
    }

    /// What `nodectl pods -o json` prints: a v1 PodList.
    #[track_caller]
    pub(crate) fn pods_json(&self) -> serde_json::Value {
        let output = self.run_cli(&["pods", "-o", "json"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nodectl pods: {}: {errors}", output.status);
        serde_json::from_slice(&output.stdout).expect("nodectl pods prints JSON")
    }

    /// One pod of the list, by its whole name (with the node's name behind); `None` if it is not there.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str) -> Option<serde_json::Value> {
        let list = self.pods_json();
        list["items"].as_array()?.iter().find(|p| p["metadata"]["name"] == name).cloned()
    }

    /// The whole name of a static pod here.
    pub(crate) fn static_name(&self, pod: &str) -> String {
        format!("{pod}-{}", self.name)
    }

    /// Waits until the pod is in the phase and gives it.
    #[track_caller]
    pub(crate) fn wait_phase(&self, pod: &str, phase: &str) -> serde_json::Value {
        let name = self.static_name(pod);
        let what = format!("pod {name} in phase {phase}");
        wait_for(SOON, &what, || self.pod(&name).filter(|p| p["status"]["phase"] == phase))
    }

    /// Waits until the agent lists no pod.
    #[track_caller]
    pub(crate) fn wait_no_pods(&self) {
        wait_until(SOON, "no pod listed", || self.pods_json()["items"].as_array().is_none_or(Vec::is_empty));
    }

    /// The port of the node's API.
    pub(crate) fn api_port(&self) -> u16 {
        self.api_port
    }

    /// Status code and body of a path on the healthz port.
    pub(crate) fn healthz(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.healthz_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let code = answer.split_whitespace().nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((code, body))
    }

    /// All that the agent has logged, over its restarts.
    pub(crate) fn agent_log(&self) -> String {
        fs::read(self.dir.join("agent.log"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// What there is now of things that could leak.
    pub(crate) fn leaks(&self) -> Leaks {
        Leaks::count(&self.containerd, Some(&self.root_dir()), Some(&self.pod_logs()))
    }

    /// Waits until there is no more than `before`; fails with the difference.
    #[track_caller]
    pub(crate) fn wait_leak_free(&self, before: &Leaks) {
        self.wait_leak_free_but(before, &[]);
    }

    /// [`Self::wait_leak_free`] without some kinds of things, see [`Leaks::without`].
    #[track_caller]
    pub(crate) fn wait_leak_free_but(&self, before: &Leaks, kinds: &[&str]) {
        let before = before.clone().without(kinds);
        let start = Instant::now();
        loop {
            let now = self.leaks().without(kinds);
            if now == before {
                return;
            }
            assert!(start.elapsed() < SOON * slow(), "leaked:\n{}", now.difference(&before));
            std::thread::sleep(look_again() * 5);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- agent log of {} ----\n{}", self.name, tail(&self.dir.join("agent.log"), 60));
        }
        if let Some(mut agent) = self.agent.take() {
            // Only fails if it has ended already.
            drop(agent.kill());
            drop(agent.wait());
        }
        // The rest goes with the containerd's folder.
    }
}
