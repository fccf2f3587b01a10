//! Each way in which a node's CNI can be missing or broken, and what is said of it.

use super::*;

const GOOD: &str = r#"{"cniVersion": "0.4.0", "name": "net", "plugins": [
    {"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap"}]}"#;

struct Node {
    temp: tempfile::TempDir,
    conf: PathBuf,
    bin: PathBuf,
}

impl Node {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (conf, bin) = (temp.path().join("net.d"), temp.path().join("bin"));
        fs::create_dir(&conf).unwrap();
        fs::create_dir(&bin).unwrap();
        let node = Self { temp, conf, bin };
        for name in ["bridge", "host-local", "portmap", "loopback"] {
            node.plugin(name, 0o755);
        }
        node
    }

    fn plugin(&self, name: &str, mode: u32) {
        fs::write(self.bin.join(name), "").unwrap();
        fs::set_permissions(self.bin.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.conf.join(name), text).unwrap();
        self
    }

    fn diagnose(&self) -> CniDiagnosis {
        diagnose(std::slice::from_ref(&self.conf), std::slice::from_ref(&self.bin))
    }

    /// The report, with the temporary folder as `/T`.
    fn report(&self) -> String {
        format!("{:#}", self.diagnose()).replace(self.temp.path().to_str().unwrap(), "/T")
    }
}

#[test]
fn a_good_configuration_is_well() {
    let node = Node::new();
    node.write("10-net.conflist", GOOD);
    let found = node.diagnose();
    assert!(found.is_well());
    assert_eq!(found.in_use().unwrap().plugins, ["bridge", "host-local", "portmap"]);
    assert_eq!(
        node.report(),
        "the runtime uses /T/net.d/10-net.conflist: network \"net\", plugins bridge, host-local, portmap"
    );
}

#[test]
fn missing_empty_and_wrong_folders_are_named() {
    let node = Node::new();
    assert_eq!(node.report(), "CNI configuration folder /T/net.d is empty");
    node.write("10-net.conflist.bak", GOOD);
    fs::create_dir(node.conf.join("sub.conf")).unwrap();
    assert_eq!(
        node.report(),
        "CNI configuration folder /T/net.d has no .conf, .conflist or .json file \
         (there is 10-net.conflist.bak, sub.conf)"
    );
    fs::remove_dir_all(&node.conf).unwrap();
    assert_eq!(node.report(), "CNI configuration folder /T/net.d does not exist");
    fs::write(&node.conf, "").unwrap();
    assert_eq!(node.report(), "CNI configuration folder /T/net.d is not a folder");
    assert!(!node.diagnose().is_well());
}

#[test]
fn a_parse_error_has_its_line_and_the_broken_first_file_is_the_one_in_use() {
    let node = Node::new();
    node.write("05-broken.conflist", "{\n  \"name\": \"net\",\n  \"plugins\": [}\n")
        .write("10-net.conflist", GOOD);
    assert_eq!(
        node.report(),
        "the runtime uses /T/net.d/05-broken.conflist: is not valid JSON: expected value at line 3 column 15\n\
         not used, as it is not the first: /T/net.d/10-net.conflist: network \"net\", plugins bridge, \
         host-local, portmap"
    );
    assert!(!node.diagnose().is_well());
    assert!(!node.diagnose().to_string().contains('\n'), "one line for a condition");
}

#[test]
fn each_fault_of_a_file_is_told() {
    let cases = [
        ("a.conflist", "", "is empty"),
        ("a.conflist", "[]", "is not a JSON object"),
        ("a.conflist", r#"{"plugins": [{"type": "bridge"}]}"#, "`name` is missing"),
        ("a.conflist", r#"{"name": 1, "plugins": [{"type": "bridge"}]}"#, "`name` is not a text"),
        (
            "a.conflist",
            r#"{"name": "-x", "plugins": [{"type": "bridge"}]}"#,
            "`name` \"-x\" is not a network name",
        ),
        ("a.conflist", r#"{"name": "n"}"#, "`plugins` is missing"),
        ("a.conflist", r#"{"name": "n", "plugins": {}}"#, "`plugins` is not a list"),
        ("a.conflist", r#"{"name": "n", "plugins": []}"#, "`plugins` is an empty list"),
        ("a.conflist", r#"{"name": "n", "plugins": [7]}"#, "plugins[0] is not an object"),
        (
            "a.conflist",
            r#"{"name": "n", "plugins": [{"type": "bridge"}, {}]}"#,
            "plugins[1]: `type` is missing",
        ),
        (
            "a.conflist",
            r#"{"name": "n", "plugins": [{"type": "../sh"}]}"#,
            "\"../sh\" is not a plain file name",
        ),
        ("a.conf", r#"{"name": "n"}"#, "`type` is missing"),
        ("a.json", r#"{"name": "n", "type": 3}"#, "`type` is not a text"),
        ("a.conf", GOOD, "must be named .conflist"),
        (
            "a.conf",
            r#"{"name": "n", "type": "bridge", "cniVersion": "9.9"}"#,
            "`cniVersion` \"9.9\" is not a known",
        ),
        ("a.conf", r#"{"name": "n", "type": "bridge", "cniVersion": 1}"#, "`cniVersion` is not a text"),
    ];
    for (name, text, expected) in cases {
        let node = Node::new();
        node.write(name, text);
        assert!(node.report().contains(expected), "{text}\n{}", node.report());
        assert!(!node.diagnose().is_well());
    }
}

#[test]
fn missing_plugin_programs_are_named_with_the_folders() {
    let node = Node::new();
    node.write("a.conf", r#"{"name": "n", "type": "flannel", "ipam": {"type": "host-local"}}"#);
    assert_eq!(
        node.report(),
        "the runtime uses /T/net.d/a.conf: network \"n\", plugins flannel, host-local\n\
         CNI plugin flannel not found in /T/bin"
    );
    node.plugin("flannel", 0o644);
    assert_eq!(node.diagnose().missing_plugins, ["flannel"], "not executable");
    node.plugin("flannel", 0o755);
    assert!(node.diagnose().is_well());
    fs::remove_dir_all(&node.bin).unwrap();
    assert!(node.report().contains(
        "CNI plugin flannel, host-local not found in /T/bin\nCNI plugin folder /T/bin does not exist"
    ));
}

#[test]
fn hostile_files_neither_block_nor_fill_the_memory() {
    let node = Node::new();
    let huge = fs::File::create(node.conf.join("a.conf")).unwrap();
    huge.set_len(MAX_FILE_BYTES + 1).unwrap();
    nix::unistd::mkfifo(&node.conf.join("b.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/nowhere", node.conf.join("c.conf")).unwrap();
    node.write("d.conf", &"[".repeat(100_000));
    let report = node.report();
    for expected in [
        "a.conf: cannot be read: it has 2097153 bytes, more than 2097152",
        "b.conf: cannot be read: it is not a regular file",
        "c.conf: cannot be read: the link leads nowhere",
        "d.conf: is not valid JSON: recursion limit exceeded",
    ] {
        assert!(report.contains(expected), "{report}");
    }
    for number in 0..40 {
        node.write(&format!("z{number}.conf"), "{}");
    }
    assert!(node.report().contains("12 further files in /T/net.d were not looked at"));
}

#[test]
fn a_list_may_have_its_plugins_in_a_folder_of_its_name() {
    let node = Node::new();
    node.write("a.conflist", r#"{"cniVersion": "1.1.0", "name": "n"}"#);
    fs::create_dir(node.conf.join("n")).unwrap();
    assert!(node.report().contains("`plugins` is missing"));
    node.write("n/1.conf", r#"{"type": "bridge"}"#).write("n/2.conf", "{");
    let report = node.report();
    assert!(report.contains("/T/net.d/n/2.conf is not valid JSON"), "{report}");
    node.write("n/2.conf", r#"{"type": "portmap"}"#);
    assert!(node.diagnose().is_well());
}

fn info(entries: &[(&str, &str)]) -> HashMap<String, String> {
    entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn the_folders_are_read_from_the_runtimes_answer() {
    let dirs = |conf: &str, bin: &[&str]| {
        Some((vec![PathBuf::from(conf)], bin.iter().map(PathBuf::from).collect::<Vec<_>>()))
    };
    // containerd 1.6 and 1.7.
    let old = info(&[
        ("config", r#"{"cni": {"binDir": "/usr/lib/cni", "confDir": "/etc/cni/net.d", "maxConfNum": 1}}"#),
        ("golang", "\"go1.19\""),
        ("lastCNILoadStatus", "OK"),
    ]);
    assert_eq!(cni_dirs_from_runtime_info(&old), dirs("/etc/cni/net.d", &["/usr/lib/cni"]));
    // containerd 2.1: both keys, the old one empty or not.
    let new =
        info(&[("config", r#"{"cni": {"binDir": "", "binDirs": ["/a", "/b", "/a"], "confDir": "/c"}}"#)]);
    assert_eq!(cni_dirs_from_runtime_info(&new), dirs("/c", &["/a", "/b"]));
    let both = info(&[("config", r#"{"cni": {"binDir": "/a", "binDirs": null, "confDir": "/c"}}"#)]);
    assert_eq!(cni_dirs_from_runtime_info(&both), dirs("/c", &["/a"]));
    // The configuration in force alone.
    let force = info(&[("cniconfig", r#"{"PluginDirs": ["/p"], "PluginConfDir": "/c", "Networks": []}"#)]);
    assert_eq!(cni_dirs_from_runtime_info(&force), dirs("/c", &["/p"]));
    // Runtimes that tell nothing of it, or nonsense.
    for other in [info(&[]), info(&[("config", "{")]), info(&[("config", "[1]")]), info(&[("config", "{}")])]
    {
        assert_eq!(cni_dirs_from_runtime_info(&other), None);
    }
}

#[test]
fn the_last_load_error_is_told_by_network() {
    let told = info(&[
        ("lastCNILoadStatus", "no network config found in /etc/cni/net.d"),
        ("lastCNILoadStatus.default", "no network config found in /etc/cni/net.d"),
        ("lastCNILoadStatus.kata", "OK"),
    ]);
    let errors = cni_load_errors(&told);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors["default"], "no network config found in /etc/cni/net.d");
    assert!(cni_load_errors(&info(&[("lastCNILoadStatus", "OK")])).is_empty());
}
