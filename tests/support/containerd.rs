//! A private containerd: started, asked, frozen, killed and removed through `hack/containerd.sh`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{SOON, cri::answers, tail, wait_until};

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The one on this machine's PATH.
    Machine,
    /// 2.x, which `hack/containerd2.sh` fetches once.
    Two,
}

/// Runs a script of `hack/` to its end.
pub(crate) fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack").join(name))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("hack/{name} does not start: {error}"))
}

#[track_caller]
fn succeed(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = script(name, arguments, environment);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "hack/{name} {}: {}\n{errors}", arguments.join(" "), output.status);
    String::from_utf8(output.stdout).expect("the script prints text")
}

/// The `KEY=VALUE` lines of a text.
pub(super) fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// A containerd of a test's own. Dropping it ends it and removes all that it made.
pub(crate) struct Containerd {
    dir: PathBuf,
    facts: BTreeMap<String, String>,
}

impl Containerd {
    /// Starts one in a new folder, with the images of `hack/images.sh`.
    #[track_caller]
    pub(crate) fn start(name: &str, release: Release) -> Self {
        Self::with_cgroup_driver(name, release, "cgroupfs")
    }

    /// The same with a cgroup driver.
    #[track_caller]
    pub(crate) fn with_cgroup_driver(name: &str, release: Release, cgroup_driver: &str) -> Self {
        let fetched = match release {
            Release::Machine => None,
            Release::Two => Some("containerd2.sh"),
        };
        Self::launch(name, fetched, cgroup_driver)
    }

    /// A containerd 1.4, which serves CRI v1alpha2 and no v1, so that no agent runs on it;
    /// `hack/containerd14.sh` fetches it once.
    #[track_caller]
    pub(crate) fn old(name: &str) -> Self {
        Self::launch(name, Some("containerd14.sh"), "cgroupfs")
    }

    /// Starts the one that a script of `hack/` fetches, or the machine's.
    #[track_caller]
    fn launch(name: &str, fetched: Option<&str>, cgroup_driver: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts a containerd and needs root: `make test`"
        );
        let pid = std::process::id();
        let dir = PathBuf::from(format!("/run/ndt-{pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let owner = pid.to_string();
        let mut environment =
            vec![("NODECTL_OWNER", owner.as_str()), ("NODECTL_CGROUP_DRIVER", cgroup_driver)];
        let binary;
        if let Some(script) = fetched {
            binary = format!("{}/containerd", succeed(script, &[], &[]).trim());
            environment.push(("CONTAINERD_BIN", &binary));
        }
        let path = dir.to_str().expect("a plain path").to_owned();
        let facts = parse(&succeed("containerd.sh", &["start", &path], &environment));
        assert!(facts.contains_key("CONTAINERD_ADDRESS"), "hack/containerd.sh for {name} printed no address");
        let containerd = Self { dir, facts };
        containerd.wait_cri();
        containerd
    }

    /// Waits until CRI answers: it does a moment after the rest of containerd.
    #[track_caller]
    fn wait_cri(&self) {
        wait_until(SOON, "CRI answers", || answers(self.socket()));
    }

    /// The folder that it lives in.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A value that `hack/containerd.sh start` printed.
    #[track_caller]
    pub(crate) fn fact(&self, key: &str) -> &str {
        self.facts.get(key).unwrap_or_else(|| panic!("hack/containerd.sh printed no {key}"))
    }

    /// The CRI socket.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.fact("CONTAINERD_ADDRESS"))
    }

    /// The cgroup that is this node's own, as the runtime names it.
    pub(crate) fn cgroup_root(&self) -> &str {
        self.fact("CGROUP_ROOT")
    }

    /// The folder of its CNI configuration, to be emptied or broken by tests.
    pub(crate) fn cni_conf_dir(&self) -> &Path {
        Path::new(self.fact("CNI_CONF_DIR"))
    }

    /// Its log file.
    pub(crate) fn log(&self) -> &Path {
        Path::new(self.fact("LOG"))
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.fact("PID_FILE")).expect("a pid file");
        Pid::from_raw(text.trim().parse().expect("a process number"))
    }

    /// Kills it as a crash would; its containers and their shims go on.
    pub(crate) fn kill9(&self) {
        let pid = self.pid();
        kill(pid, Signal::SIGKILL).unwrap();
        wait_until(SOON, "containerd dead", || kill(pid, None).is_err() || is_zombie(pid));
    }

    /// Starts it again on the same state, and waits until its CRI answers.
    #[track_caller]
    pub(crate) fn resume(&self) {
        self.resume_without_cri();
        self.wait_cri();
    }

    /// The same with a configuration that takes the CRI away.
    #[track_caller]
    pub(crate) fn resume_without_cri(&self) {
        self.call("resume");
    }

    /// Stops its clock: from now on it accepts connections and never answers.
    pub(crate) fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on after [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    #[track_caller]
    fn call(&self, verb: &str) -> String {
        succeed("containerd.sh", &[verb, self.dir.to_str().expect("a plain path")], &[])
    }

    /// Ends it before its time; dropping does nothing more then.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.call("stop");
    }

    /// Runs `ctr` in the namespace of CRI and gives what it printed.
    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        self.try_ctr(arguments).unwrap_or_else(|errors| panic!("ctr {}: {errors}", arguments.join(" ")))
    }

    /// [`Self::ctr`] for what may fail: its errors then.
    pub(crate) fn try_ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(self.fact("CTR"))
            .arg("--address")
            .arg(self.socket())
            .args(["--timeout", "60s", "--namespace", "k8s.io"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("ctr starts");
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).expect("ctr prints text"))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// Has it ended, with nobody having asked for its exit code yet? Its sockets are closed when its last thread has.
fn is_zombie(pid: Pid) -> bool {
    let ended = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
    ended && fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() == 1)
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            eprintln!("---- containerd log of {} ----\n{}", self.dir.display(), tail(self.log(), 25));
        }
        let output = script("containerd.sh", &["stop", self.dir.to_str().unwrap_or_default()], &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            // A second panic would abort the whole run, and hide the first.
            assert!(panicking, "hack/containerd.sh stop {}: {errors}", self.dir.display());
            eprintln!("hack/containerd.sh stop {}: {errors}", self.dir.display());
        }
    }
}
