//! contrib/ansible by the real ansible-core: a playbook moves a whole node and moves it back, looks without touching
//! anything, and fails with nodectl's own sentence where nodectl does. Ansible runs outside of the node, and reaches
//! it through tests/ansible/machine.py, as it would through SSH.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::{collections::BTreeSet, path::Path, process::Command};

use nodectl::cli::root::command;
use serde_json::{Value, json};
use support::{
    Release, SOON,
    machine::Machine,
    machine_files::{Files, differences},
    script, slow, wait_until,
};

const PLAYBOOK: &str = "contrib/ansible/switch-runtime.yml";
const ROLES: &str = "contrib/ansible/roles";
const LIBRARY: &str = "contrib/ansible/roles/nodectl_switch_runtime/library";
const MODULE: &str = "nodectl_switch_runtime";
/// Seconds for a whole play.
const PATIENCE: u32 = 600;

/// A program of Ansible, with nothing of this process's environment.
fn ansible(program: &str, arguments: &[&str]) -> Said {
    let found = script("ansible.sh", &[], &[]);
    assert!(found.status.success(), "hack/ansible.sh: {}", String::from_utf8_lossy(&found.stderr));
    let folder = String::from_utf8(found.stdout).unwrap();
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=10", &(PATIENCE * slow()).to_string()])
        .arg(Path::new(folder.trim()).join(program))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home.path())
        // It does not start without UTF-8.
        .env("LANG", "C.UTF-8")
        .env("NO_COLOR", "1")
        .env("ANSIBLE_CONNECTION_PLUGINS", "tests/ansible")
        .env("ANSIBLE_CALLBACK_RESULT_FORMAT", "json")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(std::env::var_os("NODECTL_CACHE").map(|cache| ("NODECTL_CACHE", cache)))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// What Ansible printed.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// What the last task of a play with `-v` came to.
    #[track_caller]
    fn result(&self) -> Value {
        let (_, text) = self.out.rsplit_once("[node1]").unwrap_or_else(|| panic!("{}", self.out));
        let (_, text) = text.split_once("=> ").unwrap_or_else(|| panic!("{}", self.out));
        serde_json::Deserializer::from_str(text).into_iter().next().unwrap().unwrap()
    }

    /// A count of the recap.
    #[track_caller]
    fn count(&self, what: &str) -> u32 {
        let recap =
            self.out.rsplit_once("PLAY RECAP").unwrap_or_else(|| panic!("{}\n{}", self.out, self.err)).1;
        let count = recap.split_whitespace().find_map(|word| word.strip_prefix(&format!("{what}=")));
        count.unwrap_or_else(|| panic!("no {what}: {recap}")).parse().unwrap()
    }
}

/// A node that Ansible reaches, and how it was.
struct Node {
    machine: Machine,
    inventory: tempfile::NamedTempFile,
    files: Files,
}

impl Node {
    fn new(name: &str) -> Self {
        let machine = Machine::boot(name, Release::Machine);
        let inventory = tempfile::NamedTempFile::new().unwrap();
        let line = format!(
            "node1 ansible_connection=machine ansible_user=root ansible_python_interpreter=/usr/bin/python3 \
             machine_script={}/hack/machine.sh machine_folder={}\n",
            env!("CARGO_MANIFEST_DIR"),
            machine.dir().display()
        );
        std::fs::write(inventory.path(), line).unwrap();
        let files = machine.files();
        Self { machine, inventory, files }
    }

    /// The playbook with these options of the module.
    fn play(&self, options: &Value, more: &[&str]) -> Said {
        let variables = json!({ "nodectl_switch_runtime": options }).to_string();
        let inventory = self.inventory.path().to_str().unwrap();
        ansible("ansible-playbook", &[&["-v", "-i", inventory, PLAYBOOK, "-e", &variables], more].concat())
    }

    /// One that changes the node.
    #[track_caller]
    fn changes(&self, options: &Value, more: &[&str], outcome: &str) -> Said {
        let said = self.play(options, more).ended(0);
        assert_eq!((said.count("changed"), said.count("failed")), (1, 0), "{}", said.out);
        assert_eq!(said.result()["outcome"], outcome);
        said
    }

    /// One that finds the node as asked.
    #[track_caller]
    fn leaves(&self, options: &Value, more: &[&str]) {
        let before = self.machine.files();
        let said = self.play(options, more).ended(0);
        assert_eq!((said.count("changed"), said.count("failed")), (0, 0), "{}", said.out);
        assert_eq!(said.result()["outcome"], "nothing-to-do");
        assert_eq!(differences(&before, &self.machine.files()), Vec::<String>::new());
    }

    /// One that fails: what its task came to.
    #[track_caller]
    fn fails(&self, options: &Value, more: &[&str]) -> Value {
        let said = self.play(options, more).ended(2);
        assert_eq!((said.count("changed"), said.count("failed")), (0, 1), "{}", said.out);
        said.result()
    }

    /// Its pod's containers, as the runtimes have them.
    fn pods(&self) -> (usize, usize) {
        let count = |command: &[&str], of: &str| self.machine.sure(command).matches(of).count();
        let docker = match self.machine.units()["docker.service"].0.as_str() {
            "active" => count(&["docker", "ps", "--format", "{{.Names}}"], "k8s_httpd_web-node1_"),
            _ => 0,
        };
        (docker, count(&["ctr", "-n", "k8s.io", "tasks", "ls"], "RUNNING"))
    }

    #[track_caller]
    fn is_moved(&self) {
        wait_until(SOON, "the pod serves", || self.machine.pod_serves());
        // The sandbox and its container.
        wait_until(SOON, "the pod is containerd's", || self.pods() == (0, 2));
        let flags = self.machine.read("/var/lib/kubelet/kubeadm-flags.env");
        assert!(flags.contains("--container-runtime=remote"), "{flags}");
    }

    #[track_caller]
    fn is_as_before(&self) {
        assert_eq!(differences(&self.files, &self.machine.files()), Vec::<String>::new());
        wait_until(SOON, "the pod serves", || self.machine.pod_serves());
        assert_eq!(self.pods(), (1, 0));
        // Ansible itself leaves nothing either.
        assert_eq!(self.machine.sure(&["sh", "-c", "ls -A /root/.ansible/tmp"]), "");
    }
}

#[test]
fn a_play_moves_a_node_and_moves_it_back() {
    let node = Node::new("play");
    let none = json!({});
    let back = json!({"state": "rolled_back"});
    node.leaves(&back, &[]);

    let looked = node.changes(&none, &["--check", "--diff"], "planned");
    for line in [
        "--- a/etc/containerd/config.toml\n+++ b/etc/containerd/config.toml\n",
        "\n-disabled_plugins = [\"cri\"]\n+disabled_plugins = []\n",
        "--- /dev/null\n+++ b/etc/crictl.yaml\n",
    ] {
        assert!(looked.out.contains(line), "{}", looked.out);
    }
    let planned = looked.result();
    assert!(planned["steps"].as_array().unwrap().len() > 20, "{planned}");
    assert!(
        planned["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|note| note.as_str().unwrap().contains("cgroup driver"))
    );
    node.is_as_before();
    assert!(!node.machine.outside("/var/lib/nodectl").exists());
    // Without --diff there is none.
    assert!(!node.changes(&none, &["--check"], "planned").out.contains("+++ b/"));

    let done = node.changes(&none, &["--diff"], "done");
    assert!(done.out.contains("+++ b/etc/containerd/config.toml\n"), "{}", done.out);
    assert_eq!(done.result()["steps"], planned["steps"]);
    assert!(!done.err.contains("WARNING"), "{}", done.err);
    let name = done.result()["backup_dir"].as_str().unwrap().to_owned();
    let name = name.strip_prefix("/var/lib/nodectl/switch/").expect("a folder of the node").to_owned();
    node.is_moved();
    node.leaves(&none, &[]);
    node.leaves(&none, &["--check", "--diff"]);
    node.leaves(&json!({"state": "resumed"}), &[]);
    node.leaves(&json!({"state": "reverted"}), &["--check"]);
    node.is_moved();

    let moved = node.machine.files();
    node.changes(&back, &["--check"], "planned");
    assert_eq!(differences(&moved, &node.machine.files()), Vec::<String>::new());
    let wrong = node.fails(&json!({"state": "rolled_back", "change": "20010101T000000Z"}), &[]);
    assert!(
        wrong["msg"].as_str().unwrap().starts_with("there is no change of this node that is named"),
        "{wrong}"
    );
    let named = json!({"state": "rolled_back", "change": name});
    node.changes(&named, &[], "rolled-back");
    node.is_as_before();
    node.leaves(&named, &[]);
    node.leaves(&back, &[]);
    node.leaves(&back, &["--check"]);
}

#[test]
fn options_reach_the_node_and_warnings_the_user() {
    let node = Node::new("options");
    node.machine.sure(&["docker", "tag", "k8s.gcr.io/pause:3.2", "registry.example/pause:3.9"]);
    node.machine.put("/etc/docker/daemon.json", "{\"insecure-registries\": [\"10.9.0.0/16\"]}\n", 0o644);
    let options = json!({
        "from": "docker",
        "agent": "kubelet",
        "pause_image": "registry.example/pause:3.9",
        "cgroup_driver": "auto",
        "registry_mirrors": ["https://mirror.example", "quay.io=https://quay.example:5000"],
        "images": "all",
        "reset_config": true,
        "keep_docker": true,
        "force": true,
    });
    let said = node.changes(&options, &["--diff"], "done");
    // Wrapped at the width of a terminal.
    let warned = said.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(warned.contains("[WARNING]: insecure registries 10.9.0.0/16:"), "{}", said.err);
    wait_until(SOON, "the pod serves", || node.machine.pod_serves());
    let config = node.machine.read("/etc/containerd/config.toml");
    assert!(config.contains("sandbox_image = \"registry.example/pause:3.9\""), "{config}");
    assert!(!config.contains("Docker Inc."), "it was begun anew: {config}");
    for (registry, mirror) in
        [("docker.io", "https://mirror.example"), ("quay.io", "https://quay.example:5000")]
    {
        let hosts = node.machine.read(&format!("/etc/containerd/certs.d/{registry}/hosts.toml"));
        assert!(hosts.contains(&format!("[host.\"{mirror}\"]")), "{hosts}");
    }
    assert_eq!(node.machine.units()["docker.service"], ("active".to_owned(), "enabled".to_owned()));
    let images = node.machine.sure(&["ctr", "-n", "k8s.io", "images", "ls", "-q"]);
    assert!(images.contains("registry.example/pause:3.9\n"), "{images}");
    node.leaves(&options, &[]);
}

#[test]
fn a_task_fails_as_nodectl_does() {
    let node = Node::new("fails");
    let said = |result: &Value| result["msg"].as_str().unwrap().to_owned();
    // The module itself.
    let refused = node.fails(&json!({"drain": true}), &[]);
    assert!(said(&refused).contains("all of the following are missing: kubeconfig"), "{refused}");
    let refused = node.fails(&json!({"images": "some"}), &[]);
    assert!(said(&refused).contains("must be one of: all, running, none"), "{refused}");
    let refused = node.fails(&json!({"drian": true}), &[]);
    assert!(
        refused.to_string().contains("nodectl_switch_runtime.drian. Supported parameters include"),
        "{refused}"
    );
    let missing = node.fails(&json!({}), &["-e", "nodectl_executable=/none/nodectl"]);
    assert!(said(&missing).contains("No such file or directory"), "{missing}");
    // Its usage, and no value is an option.
    let usage = node.fails(&json!({"pause_image": "--force"}), &[]);
    assert_eq!(
        (said(&usage).lines().next().unwrap(), &usage["rc"]),
        ("--pause-image=--force: this is no image's name", &json!(2))
    );
    let usage = node.fails(&json!({"drain_unmanaged": true}), &[]);
    assert!(said(&usage).contains("--drain"), "{usage}");

    // What stands in the way.
    node.machine.put(
        "/etc/cni/net.d/05-broken.conflist",
        "{\"cniVersion\": \"0.4.0\", \"name\": \"x\", \"plugins\": [{\"type\": \"nothing\"}]}",
        0o644,
    );
    for more in [&[][..], &["--check"]] {
        let refused = node.fails(&json!({}), more);
        assert!(said(&refused).contains("names plugins that are not in"), "{refused}");
        assert!(said(&refused).contains("\nhint: "), "{refused}");
        assert_eq!((&refused["rc"], &refused["outcome"]), (&json!(3), &json!("refused")));
        assert_eq!(refused["refusals"].as_array().unwrap().len(), 1);
    }
    std::fs::remove_file(node.machine.outside("/etc/cni/net.d/05-broken.conflist")).unwrap();
    node.is_as_before();
    // A step: no registry answers here.
    let failed = node.fails(&json!({"pause_image": "localhost:1/none:1"}), &[]);
    assert!(said(&failed).contains("localhost:1/none:1"), "{failed}");
    assert!(said(&failed).contains("hint: everything was put back as it was"), "{failed}");
    assert_eq!((&failed["rc"], &failed["outcome"]), (&json!(4), &json!("rolled-back")));
    node.is_as_before();

    // A change that is cut short, twice.
    let strike = "#!/bin/sh\nexec strace -qq -o /dev/null -e trace=fdatasync \
                  -e inject=fdatasync:signal=SIGKILL:when=31 nodectl \"$@\"\n";
    let struck = "/usr/local/sbin/struck";
    node.machine.put(struck, strike, 0o755);
    for (state, outcome) in [("reverted", "rolled-back"), ("resumed", "done")] {
        let killed = node.fails(&json!({}), &["-e", "nodectl_executable=struck"]);
        assert_eq!(killed["rc"], -9, "{killed}");
        assert!(said(&killed).starts_with("nodectl was ended by signal 9"), "{killed}");
        assert!(killed["stderr"].as_str().unwrap().contains("stop kubelet.service"), "{killed}");
        let half = node.machine.files();
        for more in [&[][..], &["--check"]] {
            let refused = node.fails(&json!({}), more);
            assert!(said(&refused).contains("of this node was cut short after"), "{refused}");
            assert!(
                said(&refused).contains("hint: --resume goes on with it, --rollback puts everything back"),
                "{refused}"
            );
        }
        node.changes(&json!({"state": state}), &["--check"], "planned");
        assert_eq!(differences(&half, &node.machine.files()), Vec::<String>::new());
        node.changes(&json!({"state": state}), &[], outcome);
        match state {
            "reverted" => node.is_as_before(),
            _ => node.is_moved(),
        }
        node.leaves(&json!({"state": state}), &[]);
    }
}

/// The options of a document that `ansible-doc --json` prints.
fn documented(arguments: &[&str], path: &str) -> Value {
    let said = ansible("ansible-doc", &[&["--json"], arguments].concat()).ended(0);
    let all: Value = serde_json::from_str(&said.out).unwrap();
    all.pointer(path).unwrap_or_else(|| panic!("no {path} in {all}")).clone()
}

#[test]
fn its_documentation_is_printed_and_says_what_nodectl_takes() {
    let text = ansible("ansible-doc", &["-M", LIBRARY, MODULE]).ended(0).out;
    for words in
        ["Runs `nodectl switch-runtime' on the node.", "- registry_mirrors", "EXAMPLES:", "RETURN VALUES:"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let options = documented(&["-M", LIBRARY, MODULE], "/nodectl_switch_runtime/doc/options");
    let options = options.as_object().unwrap();
    let command = command();
    let command = command.find_subcommand("switch-runtime").unwrap();
    for (name, about) in options {
        // A state is a verb, and a change what it is about.
        if ["state", "change", "executable"].contains(&name.as_str()) {
            continue;
        }
        let flag = name.trim_end_matches("_mirrors").to_owned()
            + if name.ends_with("_mirrors") { "_mirror" } else { "" };
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(flag.replace('_', "-").as_str()))
            .unwrap_or_else(|| panic!("nodectl has no option for {name}"));
        if let Some(choices) = about["choices"].as_array() {
            let possible: Vec<_> =
                argument.get_possible_values().iter().map(|value| json!(value.get_name())).collect();
            assert_eq!(choices, &possible, "{name}");
        }
    }
    // The role hands all of them on, and takes no other.
    let role = documented(
        &["-t", "role", "-r", ROLES, MODULE],
        "/nodectl_switch_runtime/entry_points/main/options/nodectl_switch_runtime/options",
    );
    let names: BTreeSet<&str> =
        options.keys().map(String::as_str).filter(|name| *name != "executable").collect();
    assert_eq!(role.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    let task = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join(ROLES).join(MODULE).join("tasks/main.yml"),
    )
    .unwrap();
    for name in names {
        let line = format!("    {name}: \"{{{{ nodectl_switch_runtime.{name} | default(omit) }}}}\"\n");
        assert!(task.contains(&line), "{line}");
    }
}

#[test]
fn the_playbook_is_one() {
    let said = ansible("ansible-playbook", &["--syntax-check", "-i", "localhost,", PLAYBOOK]).ended(0);
    assert!(said.out.contains(PLAYBOOK), "{}", said.out);
    assert_eq!(said.err, "");
}
