//! What really is: the runtime's own records of pods, the processes and what /proc tells of them. Nothing
//! here goes through nodectl.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Containerd, SOON, wait_for};

/// A sandbox or container as containerd's own store has it.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its id.
    pub(crate) id: String,
    /// The labels of its store entry, the runtime's own among them.
    pub(crate) labels: BTreeMap<String, String>,
    /// The configuration that CRI was given, as the runtime keeps it.
    pub(crate) config: Value,
}

impl Record {
    /// `None` if it has gone meanwhile.
    #[track_caller]
    fn read(containerd: &Containerd, id: &str) -> Option<Self> {
        let info = match containerd.try_ctr(&["containers", "info", id]) {
            Ok(info) => info,
            Err(error) if error.contains("not found") => return None,
            Err(error) => panic!("ctr containers info {id}: {error}"),
        };
        let info: Value = serde_json::from_str(&info).unwrap();
        let metadata = info["Extensions"]
            .as_object()
            .and_then(|all| all.iter().find(|(key, _)| key.ends_with(".metadata")))
            .map(|(_, value)| value["value"].as_str().unwrap())
            .unwrap_or_else(|| panic!("{id} was not made by CRI: {info}"));
        let metadata: Value = serde_json::from_slice(&base64(metadata)).unwrap();
        Some(Self {
            id: id.to_owned(),
            labels: serde_json::from_value(info["Labels"].clone()).unwrap(),
            config: metadata["Metadata"]["Config"].clone(),
        })
    }

    /// An annotation that CRI was given.
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.config["annotations"][key].as_str()
    }

    /// The attempt number in its metadata; 0 is left out of the record.
    pub(crate) fn attempt(&self) -> u64 {
        self.config["metadata"]["attempt"].as_u64().unwrap_or(0)
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().enumerate().fold(0, |bits, (at, c)| bits | (value(*c) << (18 - 6 * at)));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}

impl Containerd {
    fn ids(&self, filter: &str) -> Vec<String> {
        self.ctr(&["containers", "ls", "-q", filter]).lines().map(|l| l.trim().to_owned()).collect()
    }

    /// The sandboxes of a pod's UID.
    pub(crate) fn sandboxes_of(&self, uid: &str) -> Vec<Record> {
        let filter =
            format!(r#"labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.uid"=={uid}"#);
        self.ids(&filter).iter().filter_map(|id| Record::read(self, id)).collect()
    }

    /// The containers of a pod's UID that have this name.
    pub(crate) fn containers_of(&self, uid: &str, name: &str) -> Vec<Record> {
        let filter =
            format!(r#"labels."io.kubernetes.container.name"=={name},labels."io.kubernetes.pod.uid"=={uid}"#);
        self.ids(&filter).iter().filter_map(|id| Record::read(self, id)).collect()
    }

    /// The process of a container or sandbox, if one runs.
    pub(crate) fn process(&self, id: &str) -> Option<Process> {
        self.processes().remove(id)
    }

    /// All running processes by the id of their container or sandbox.
    pub(crate) fn processes(&self) -> BTreeMap<String, Process> {
        let table = self.ctr(&["tasks", "ls"]);
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let (id, pid, state) = (words.next()?, words.next()?, words.next()?);
            (state == "RUNNING").then(|| Some((id.to_owned(), Process(pid.parse().ok()?)))).flatten()
        };
        table.lines().skip(1).filter_map(entry).collect()
    }

    /// The processes of containers, sandboxes left out. What is made or removed meanwhile does not count.
    pub(crate) fn running_containers(&self) -> BTreeMap<String, Process> {
        let mut all = self.processes();
        let containers = self.ids(r#"labels."io.cri-containerd.kind"==container"#);
        all.retain(|id, _| containers.contains(id));
        all
    }
}

/// A running process, seen from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process(pub(crate) i32);

impl Process {
    fn proc(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }

    /// A path as it sees it.
    pub(crate) fn path(self, path: &str) -> PathBuf {
        self.proc(&format!("root{path}"))
    }

    /// A file as it sees it.
    #[track_caller]
    pub(crate) fn read(self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path} of {}: {error}", self.0))
    }

    /// Whether it is the container's own program by now: a runtime's process becomes it only after the runtime has
    /// told that it started. One that has ended was.
    pub(crate) fn is_begun(self) -> bool {
        let name = fs::read_to_string(self.proc("comm")).unwrap_or_default();
        !(name.starts_with("runc:") || name.starts_with("crun"))
    }

    /// None of one that has ended.
    fn words(self, file: &str) -> Vec<String> {
        let bytes = fs::read(self.proc(file)).unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap();
        text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
    }

    /// Its arguments.
    pub(crate) fn arguments(self) -> Vec<String> {
        self.words("cmdline")
    }

    /// A variable of the environment it was started with.
    pub(crate) fn variable(self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        self.words("environ").iter().find_map(|word| word.strip_prefix(&prefix).map(str::to_owned))
    }

    /// The folder it works in; empty if it has ended.
    pub(crate) fn working_dir(self) -> PathBuf {
        fs::read_link(self.proc("cwd")).unwrap_or_default()
    }

    /// One of its namespaces, by the kernel's number; empty if it has ended.
    pub(crate) fn namespace(self, kind: &str) -> PathBuf {
        fs::read_link(self.proc(&format!("ns/{kind}"))).unwrap_or_default()
    }

    /// The host name that it sees.
    pub(crate) fn host_name(self) -> String {
        let output = std::process::Command::new("nsenter")
            .args(["--uts", "--target", &self.0.to_string(), "uname", "-n"])
            .output()
            .expect("nsenter starts");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Whether an address is its own.
    pub(crate) fn has_address(self, address: &str) -> bool {
        fs::read_to_string(self.proc("net/fib_trie")).unwrap().contains(&format!("|-- {address}\n"))
    }

    /// Whether a path is mounted read-only for it.
    pub(crate) fn is_read_only(self, path: &str) -> bool {
        let table = fs::read_to_string(self.proc("mountinfo")).unwrap();
        let entry = table.lines().find(|line| line.split(' ').nth(4) == Some(path));
        let entry = entry.unwrap_or_else(|| panic!("{path} is not mounted:\n{table}"));
        entry.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro")
    }

    /// The cgroup folder of a controller (v1) or the only one (v2); the root's if it has ended.
    pub(crate) fn cgroup(self, controller: &str) -> PathBuf {
        let table = fs::read_to_string(self.proc("cgroup")).unwrap_or_default();
        for line in table.lines() {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
            if controllers.split(',').any(|c| c == controller) {
                return PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}"));
            }
        }
        let path = table.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        PathBuf::from(format!("/sys/fs/cgroup{path}"))
    }

    /// A setting of its cgroup: the v1 file if there is one, else the v2 file.
    #[track_caller]
    pub(crate) fn cgroup_value(self, controller: &str, v1: &str, v2: &str) -> String {
        let folder = self.cgroup(controller);
        let file = [v1, v2].map(|name| folder.join(name)).into_iter().find(|file| file.is_file());
        let file = file.unwrap_or_else(|| panic!("neither {v1} nor {v2} in {}", folder.display()));
        fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Whether it is still there, and not only waited for.
    pub(crate) fn alive(self) -> bool {
        let stat = fs::read_to_string(self.proc("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// Kills it from outside, behind the runtime's back.
    pub(crate) fn kill(self) {
        kill(Pid::from_raw(self.0), Signal::SIGKILL).unwrap();
    }
}

/// Waits until a file has this many lines, and gives them.
#[track_caller]
pub(crate) fn wait_lines(path: &Path, count: usize) -> Vec<String> {
    wait_for(SOON, &format!("{count} lines in {}", path.display()), || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// A whole GET of a small server; `None` while it does not answer.
pub(crate) fn get(address: &str, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream =
        std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
