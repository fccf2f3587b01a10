//! `nodectl cri` as a whole process, on a private containerd with pods made by raw CRI calls.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nodectl::{
    api::cri::{
        ContainerConfig, ContainerMetadata, ContainerState, ImageSpec, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    },
    cri::{Cri, CriClient, CriTimeouts},
};
use serde_json::Value;

use super::{Containerd, IMAGE, Release, look_again};

/// The built program.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_nodectl");

/// What a run of the program gave.
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It failed with this code, in one line (and hints), without a panic; the line holds `words`.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        assert!(self.out.is_empty(), "{}", self.out);
        let lines: Vec<&str> = self.err.lines().filter(|line| !line.starts_with("hint: ")).collect();
        assert!(lines[0].starts_with("error: ") && self.err.contains(words), "{words:?} in {}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// The program without anything from this machine's environment or `/etc/crictl.yaml`.
pub(crate) fn program(config: &Path) -> Command {
    // A signal that is ignored from the start, as below nohup, would stay ignored.
    let mut command = Command::new("env");
    command.args(["--default-signal", BINARY]);
    for name in ["CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT", "CRI_CONFIG_FILE"] {
        command.env_remove(name);
    }
    command.env("TZ", "UTC").stdin(Stdio::null()).arg("cri").arg("-c").arg(config);
    command
}

/// The beginning of every id that a container or pod has, and of ages, made the same; cells with bars.
pub(crate) fn masked(table: &str, ids: &[&str]) -> String {
    let line = |line: &str| {
        let cells: Vec<String> =
            line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).map(cell).collect();
        cells.join(" | ") + "\n"
    };
    fn cell(cell: &str) -> String {
        if cell.ends_with(" ago") { "AGO".to_owned() } else { cell.to_owned() }
    }
    let mut text: String = table.lines().map(line).collect();
    for (number, id) in ids.iter().enumerate() {
        text = text.replace(&id[..13], &format!("<{number}>"));
    }
    text
}

/// A pod's sandbox and its containers, in the order they were made.
pub(crate) struct Pod {
    pub(crate) sandbox: String,
    pub(crate) containers: Vec<String>,
}

/// A containerd with two pods: `default/web` with the containers `main` and `side`, which stay, and `batch/job`,
/// whose `main` has ended with code 3.
pub(crate) struct World {
    pub(crate) containerd: Containerd,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) web: Pod,
    pub(crate) job: Pod,
}

impl World {
    /// Starts containerd and makes the pods.
    pub(crate) fn new(name: &str, release: Release) -> Self {
        Self::on(Containerd::start(name, release))
    }

    /// Makes the pods on a containerd.
    pub(crate) fn on(containerd: Containerd) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("empty.yaml"), "").unwrap();
        let (web, job) = on_runtime(async {
            let cri = client(&containerd);
            let stay = &["sleep", "1000000"][..];
            let web = pod(&cri, &containerd, "default", "web", &[("main", stay), ("side", stay)]).await;
            let job = pod(&cri, &containerd, "batch", "job", &[("main", &["sh", "-c", "exit 3"])]).await;
            for _ in 0..3000 {
                let answer = cri.container_status(&job.containers[0], false).await.unwrap();
                if answer.status.unwrap().state() == ContainerState::ContainerExited {
                    return (web, job);
                }
                tokio::time::sleep(look_again()).await;
            }
            panic!("the job does not end");
        });
        Self { containerd, folder, web, job }
    }

    /// A configuration file that says nothing.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("empty.yaml")
    }

    /// The program, which is to ask this containerd.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.config());
        command.arg("-r").arg(self.containerd.socket()).args(arguments);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().unwrap())
    }

    /// What it prints; it must do well and say nothing on stderr.
    #[track_caller]
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{arguments:?}: {}", answer.out);
        answer.out
    }

    /// [`Self::text`] read as JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
    }

    /// Makes raw calls.
    pub(crate) fn ask<T>(&self, work: impl AsyncFnOnce(CriClient) -> T) -> T {
        on_runtime(async { work(client(&self.containerd)).await })
    }

    /// The ids of web, job, web's main and side, and job's main.
    pub(crate) fn ids(&self) -> [&str; 5] {
        let [main, side] = [&self.web.containers[0], &self.web.containers[1]];
        [&self.web.sandbox, &self.job.sandbox, main, side, &self.job.containers[0]]
    }
}

/// Raw calls to a containerd; only on the async runtime.
pub(crate) fn client(containerd: &Containerd) -> CriClient {
    let endpoint = containerd.socket().to_str().unwrap().parse().unwrap();
    CriClient::connect_lazy_to_any(endpoint, None, CriTimeouts::default())
}

/// Awaits on an async runtime of its own.
pub(crate) fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The configuration of a pod; its log folder is there afterwards.
pub(crate) fn sandbox_config(containerd: &Containerd, namespace: &str, name: &str) -> PodSandboxConfig {
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: namespace.to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: containerd.dir().join("pod-logs").join(name).display().to_string(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("{}/{name}", containerd.cgroup_root()),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..NamespaceOption::default()
                }),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    };
    fs::create_dir_all(&config.log_directory).unwrap();
    config
}

/// The configuration of a container.
pub(crate) fn container_config(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() }),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        labels: [("part".to_owned(), name.to_owned())].into(),
        log_path: format!("{name}.log"),
        ..ContainerConfig::default()
    }
}

/// A pod with containers that are started, made by raw calls.
pub(crate) async fn pod(
    cri: &CriClient,
    containerd: &Containerd,
    namespace: &str,
    name: &str,
    containers: &[(&str, &[&str])],
) -> Pod {
    let config = sandbox_config(containerd, namespace, name);
    let sandbox = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
    let mut ids = Vec::new();
    for (name, command) in containers {
        let container = container_config(name, command);
        let id = cri.create_container(&sandbox, container, config.clone()).await.unwrap();
        cri.start_container(&id).await.unwrap();
        ids.push(id);
    }
    Pod { sandbox, containers: ids }
}
