//! A node of a test's own: systemd, Docker, containerd and a kubelet 1.20 in a container, through
//! `hack/machine.sh`. For tests of what changes a whole machine and may find its power cut.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::machine_files::{Files, configuration};
use super::{Release, leaks::mounts, script, slow};

/// Seconds after which a command in a machine is ended, and its test with it.
const PATIENCE: u32 = 300;

/// The units that a change of the runtime is about.
const UNITS: [&str; 4] = ["kubelet.service", "docker.service", "docker.socket", "containerd.service"];
/// Those of a node with a later kubelet besides.
const SHIM_UNITS: [&str; 2] = ["cri-docker.service", "cri-docker.socket"];
/// The kubelet that has its own dockershim.
const DOCKERSHIM: &str = "1.20";

/// Folders of a machine that are not on its root; each is one beside it here.
const BESIDE: [&str; 3] = ["/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet"];

/// Whose `/etc/containerd/config.toml` a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Config {
    /// Of Docker's package containerd.io, which switches CRI off.
    Docker,
    /// Of Debian's package containerd.
    Debian,
    /// None.
    Missing,
}

/// A command that runs in a machine.
pub(crate) struct Job {
    what: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Job {
    /// Waits for its end. One that the machine's power was cut under ends by a signal.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        let status = self.child.wait().expect("a child to wait for");
        let [stdout, stderr] = [&mut self.stdout, &mut self.stderr].map(|file| {
            let mut bytes = Vec::new();
            file.rewind().expect("a file");
            file.read_to_end(&mut bytes).expect("a file to read");
            bytes
        });
        let output = Output { status, stdout, stderr };
        assert!(status.code() != Some(124), "not within {PATIENCE} s: {}\n{}", self.what, shown(&output));
        output
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }
}

/// Both outputs, for a message.
fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A machine of a test's own, with nodectl on its PATH. Dropping it removes it and all that it made.
pub(crate) struct Machine {
    name: String,
    dir: PathBuf,
    facts: BTreeMap<String, String>,
}

impl Machine {
    /// Boots one and waits until its static pod serves. containerd is this machine's or 2.x, with Docker's
    /// configuration of it.
    #[track_caller]
    pub(crate) fn boot(name: &str, release: Release) -> Self {
        Self::with_config(name, release, Config::Docker)
    }

    /// The same with another configuration of containerd.
    #[track_caller]
    pub(crate) fn with_config(name: &str, release: Release, config: Config) -> Self {
        Self::start(name, release, config, "no", DOCKERSHIM)
    }

    /// One whose kubelet is a stand-in for a later version (`1.N`), on a stand-in of cri-dockerd.
    #[track_caller]
    pub(crate) fn with_kubelet(name: &str, release: Release, kubelet: &str) -> Self {
        Self::start(name, release, Config::Docker, "no", kubelet)
    }

    /// One that is the node of a cluster, with an API server on itself. It is Ready.
    #[track_caller]
    pub(crate) fn in_cluster(name: &str) -> Self {
        Self::start(name, Release::Machine, Config::Docker, "yes", DOCKERSHIM)
    }

    #[track_caller]
    fn start(name: &str, release: Release, config: Config, cluster: &str, kubelet: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "this test boots a machine and needs root: `make test`");
        let pid = std::process::id();
        let dir = PathBuf::from(format!("/run/ndm-{pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let config = match config {
            Config::Docker => "docker",
            Config::Debian => "debian",
            Config::Missing => "none",
        };
        let mut machine = Self { name: name.to_owned(), dir, facts: BTreeMap::new() };
        let facts = machine.call_with(
            "start",
            &[
                "--containerd",
                number(release),
                "--config",
                config,
                "--program",
                env!("CARGO_BIN_EXE_nodectl"),
                "--cluster",
                cluster,
                "--kubelet",
                kubelet,
            ],
            &[("NODECTL_OWNER", &pid.to_string())],
        );
        machine.facts = super::containerd::parse(&facts);
        machine
    }

    /// The folder that it lives in, on this machine.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A value that `hack/machine.sh start` printed.
    #[track_caller]
    pub(crate) fn fact(&self, key: &str) -> &str {
        self.facts.get(key).unwrap_or_else(|| panic!("hack/machine.sh printed no {key}"))
    }

    fn path(&self) -> &str {
        self.dir.to_str().expect("a plain path")
    }

    #[track_caller]
    fn call_with(&self, verb: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let words = [&[verb, self.path()], arguments].concat();
        let output = script("machine.sh", &words, environment);
        assert!(
            output.status.success(),
            "hack/machine.sh {} of {}: {}",
            words.join(" "),
            self.name,
            shown(&output)
        );
        String::from_utf8(output.stdout).expect("the script prints text")
    }

    /// Starts a command in it. It runs in all of the machine's namespaces, with nothing of this process's
    /// environment.
    #[track_caller]
    pub(crate) fn spawn(&self, command: &[&str]) -> Job {
        let [stdout, stderr] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
        let limit = PATIENCE * slow();
        let child = Command::new("timeout")
            // For what the inner one cannot end.
            .args(["--kill-after=10", &format!("{}", limit + 30)])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/machine.sh"))
            .args(["run", self.path(), "timeout", "--kill-after=10", &format!("{limit}")])
            .args(command)
            .stdin(Stdio::null())
            // Files and not pipes: what a command leaves running would keep those open.
            .stdout(stdout.try_clone().expect("a descriptor"))
            .stderr(stderr.try_clone().expect("a descriptor"))
            .spawn()
            .expect("timeout starts");
        Job { what: command.join(" "), child, stdout, stderr }
    }

    /// Runs a command in it to its end.
    #[track_caller]
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        self.spawn(command).wait()
    }

    /// [`Self::run`] for what must succeed: what it printed.
    #[track_caller]
    pub(crate) fn sure(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{}: {}\n{}", command.join(" "), output.status, shown(&output));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Runs the nodectl under test in it.
    #[track_caller]
    pub(crate) fn nodectl(&self, arguments: &[&str]) -> Output {
        self.run(&[&["nodectl"], arguments].concat())
    }

    /// Where a path of it is on this machine, whether it runs or not: its root, or a folder beside it. Links on
    /// the way are not followed.
    #[track_caller]
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        let (base, rest) = self.split(Path::new(path));
        base.join(rest)
    }

    #[track_caller]
    fn split<'a>(&self, path: &'a Path) -> (PathBuf, &'a Path) {
        assert!(path.is_absolute(), "{} is not absolute", path.display());
        for folder in BESIDE {
            if let Ok(rest) = path.strip_prefix(folder) {
                let name = Path::new(folder).file_name().expect("a name");
                return (self.dir.join("disk").join(name), rest);
            }
        }
        (self.dir.join("root"), path.strip_prefix("/").expect("an absolute path"))
    }

    /// Writes a file of it, folders included.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, text: &str, mode: u32) {
        let outside = self.outside(path);
        fs::create_dir_all(outside.parent().expect("a folder")).unwrap();
        fs::write(&outside, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        fs::set_permissions(&outside, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Reads a file of it; links lead where they lead in it. `None` if there is none.
    #[track_caller]
    pub(crate) fn try_read(&self, path: &str) -> Option<String> {
        let (base, rest) = self.split(Path::new(path));
        let base = File::open(base).unwrap();
        match openat2(&base, rest, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(file) => {
                let mut text = String::new();
                File::from(file).read_to_string(&mut text).unwrap_or_else(|error| panic!("{path}: {error}"));
                Some(text)
            }
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// [`Self::try_read`] for what must be there.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        self.try_read(path).unwrap_or_else(|| panic!("{path} is not there"))
    }

    /// Its configuration: all of `/etc`, the units of its packages, and kubelet's files (not its state).
    pub(crate) fn files(&self) -> Files {
        configuration(|path| self.outside(path))
    }

    /// kubelet's, Docker's and containerd's units, and cri-dockerd's where a node has them: whether each is `active` and whether it is `enabled`, in
    /// systemd's words. A unit that is not there is `inactive` and nothing.
    #[track_caller]
    pub(crate) fn units(&self) -> BTreeMap<String, (String, String)> {
        let show = ["systemctl", "show", "--property=Id,ActiveState,UnitFileState"];
        let shim: &[&str] = if self.fact("KUBELET") == DOCKERSHIM { &[] } else { &SHIM_UNITS };
        let text = self.sure(&[&show[..], &UNITS, shim].concat());
        let unit = |block: &str| {
            let facts = super::containerd::parse(block);
            let get = |key: &str| facts.get(key).cloned().unwrap_or_default();
            (get("Id"), (get("ActiveState"), get("UnitFileState")))
        };
        text.split("\n\n").map(unit).collect()
    }

    /// Whether its static pod serves at the node's address, `127.0.0.1` not included.
    pub(crate) fn pod_serves(&self) -> bool {
        // Where nobody listens that is said at once; the time is for a busy machine.
        let get =
            ["busybox", "timeout", "20", "busybox", "wget", "-q", "-O", "-", "http://192.168.77.10:8080/"];
        self.run(&get).stdout == b"web-node1\n"
    }

    /// Waits until its static pod serves, and in a cluster the node is Ready.
    #[track_caller]
    pub(crate) fn wait_pod(&self) {
        self.call_with("wait", &[], &[]);
    }

    /// Cuts its power and leaves it off. Nothing of it runs any more; its disk keeps what was written.
    #[track_caller]
    pub(crate) fn power_off(&self) {
        self.call_with("crash", &[], &[]);
    }

    /// Boots it again after [`Self::power_off`], and waits until systemd has started what it is to start.
    #[track_caller]
    pub(crate) fn power_on(&self) {
        self.call_with("boot", &[], &[]);
    }

    /// Cuts its power, at whatever it is doing, and boots it again.
    #[track_caller]
    pub(crate) fn power_cut(&self) {
        self.power_off();
        self.power_on();
    }

    /// Puts another containerd in the place of the one it has, as an upgrade of the package does; what runs
    /// goes on with the old one until it is restarted.
    #[track_caller]
    pub(crate) fn install_containerd(&self, release: Release) {
        self.call_with("containerd", &[number(release)], &[]);
    }

    /// Ends it before its time; dropping does nothing more then.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.call_with("stop", &[], &[]);
    }

    /// What of it is on this machine: mounts, cgroups, processes and files.
    pub(crate) fn traces(&self) -> Vec<String> {
        traces(&self.dir, self.fact("NAME"))
    }
}

/// What is there of the machine of this folder and name.
pub(crate) fn traces(dir: &Path, name: &str) -> Vec<String> {
    let mut found: Vec<String> = mounts(dir).into_iter().map(|point| format!("mount {point}")).collect();
    let own = [
        dir.to_owned(),
        Path::new("/run/nodectl-machines").join(name),
        Path::new("/run/systemd/nspawn/propagate").join(name),
    ];
    let cgroups = super::cgroup_hierarchies().into_iter().map(|hierarchy| hierarchy.join(name));
    found.extend(
        own.into_iter().chain(cgroups).filter(|path| path.exists()).map(|path| path.display().to_string()),
    );
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let mine =
            |line: &str| line.splitn(3, ':').nth(2).is_some_and(|path| path.split('/').nth(1) == Some(name));
        // One that has ended and whose parent has not asked yet is none.
        let ended = read("stat").rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        if !ended && read("cgroup").lines().any(mine) {
            found.push(format!("process {}", process.file_name().display()));
        }
    }
    found
}

/// The release as `hack/machine.sh` names it.
fn number(release: Release) -> &'static str {
    match release {
        Release::Machine => "1",
        Release::Two => "2",
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking && self.dir.exists() {
            let units = ["kubelet", "docker", "cri-docker", "containerd", "kube-apiserver", "etcd"];
            let units: Vec<&str> = units.iter().flat_map(|unit| ["-u", unit]).collect();
            let log = [&["run", self.path(), "journalctl", "--no-pager", "-n", "60"], &units[..]].concat();
            eprintln!(
                "---- log of {} ({}) ----\n{}",
                self.name,
                self.path(),
                shown(&script("machine.sh", &log, &[]))
            );
        }
        let output = script("machine.sh", &["stop", self.path()], &[]);
        if !output.status.success() {
            // A second panic would abort the whole run, and hide the first.
            assert!(panicking, "hack/machine.sh stop {}: {}", self.path(), shown(&output));
            eprintln!("hack/machine.sh stop {}: {}", self.path(), shown(&output));
        }
    }
}
