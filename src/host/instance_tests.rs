//! A second agent, and a kubelet beside this one, are refused by name.

use std::{
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use super::*;

/// A /proc with processes of our making.
struct Proc(tempfile::TempDir);

impl Proc {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `root` is what the process has as its root folder.
    fn add(&self, pid: u32, comm: &str, args: &[&str], cwd: &Path, root: &Path) {
        let home = self.0.path().join(pid.to_string());
        fs::create_dir(&home).unwrap();
        fs::write(home.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(home.join("cmdline"), args.iter().map(|a| format!("{a}\0")).collect::<String>()).unwrap();
        symlink(cwd, home.join("cwd")).unwrap();
        symlink(root, home.join("root")).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[test]
fn a_second_lock_is_refused_and_names_the_first() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("deep/root");
    let lock = RootLock::acquire(&root).unwrap();
    assert_eq!(fs::read_to_string(lock.path()).unwrap().trim(), std::process::id().to_string());
    let error = RootLock::acquire(&root).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("another nodectl: process {}", std::process::id())), "{text}");
    let exe = std::env::current_exe().unwrap();
    assert!(text.contains(exe.file_stem().unwrap().to_str().unwrap().split('-').next().unwrap()), "{text}");
    let error = CommandError::from(error);
    assert_eq!(error.kind.code(), 3);
    assert!(error.to_string().contains("hint: "));
    drop(lock);
    RootLock::acquire(&root).unwrap();
}

/// The test runs itself as the process that holds the lock and is killed.
#[test]
fn a_killed_holder_frees_the_lock_and_its_children_do_not_keep_it() {
    const CHILD: &str = "NODECTL_TEST_LOCK_CHILD";
    if let Some(root) = std::env::var_os(CHILD) {
        let _lock = RootLock::acquire(Path::new(&root)).unwrap();
        let mut sleeper = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        fs::write(Path::new(&root).join("sleeper"), sleeper.id().to_string()).unwrap();
        sleeper.wait().unwrap();
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "host::instance::tests::a_killed_holder_frees_the_lock_and_its_children_do_not_keep_it",
        ])
        .env(CHILD, temp.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let sleeper = temp.path().join("sleeper");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fs::read_to_string(&sleeper).unwrap_or_default().is_empty() {
        assert!(std::time::Instant::now() < end, "the child took the lock");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let error = RootLock::acquire(temp.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let taken = RootLock::acquire(temp.path());
    let pid = nix::unistd::Pid::from_raw(fs::read_to_string(&sleeper).unwrap().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    taken.unwrap();
}

#[test]
fn the_lock_file_is_neither_a_link_nor_a_pipe() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, temp.path().join(LOCK_FILE)).unwrap();
    let error = RootLock::acquire(temp.path()).unwrap_err();
    assert!(error.to_string().starts_with("cannot open the lock file /"), "{error}");
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let error = CommandError::from(RootLock::acquire(&file).unwrap_err());
    assert_eq!(error.kind.code(), 3);
    assert!(error.to_string().starts_with("cannot make root-dir /"), "{error}");
}

#[test]
fn a_kubelet_on_the_same_folder_is_found_however_it_names_it() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let (ours, other) = (base.join("ours"), base.join("other"));
    fs::create_dir(&ours).unwrap();
    fs::create_dir(&other).unwrap();
    symlink(&ours, base.join("link")).unwrap();
    let slash = Path::new("/");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let found: Vec<Vec<String>> = vec![
        vec!["--root-dir".into(), text(&ours)],
        vec![format!("--root-dir={}/", text(&ours))],
        vec![format!("-root-dir={}", text(&base.join("link")))],
        vec!["--root-dir=ours".into()],
        vec![format!("--root-dir={}/../ours/.", text(&other))],
        vec![format!("--root-dir={}", text(&other)), "--v=2".into(), format!("--root-dir={}", text(&ours))],
    ];
    for args in found {
        let args: Vec<&str> =
            ["/usr/bin/kubelet"].into_iter().chain(args.iter().map(String::as_str)).collect();
        let fake = Proc::new();
        fake.add(41, "systemd", &["/sbin/init"], slash, slash);
        fake.add(42, "kubelet", &args, &base, slash);
        let kubelet = find_kubelet(fake.path(), &ours).unwrap_or_else(|| panic!("{args:?}"));
        assert_eq!(kubelet.pid, 42);
        assert!(kubelet.cmdline.starts_with("/usr/bin/kubelet "));
        assert_eq!(find_kubelet(fake.path(), &other), None);
        let error = refuse_kubelet(fake.path(), &ours).unwrap_err();
        assert!(error.to_string().contains("in use by a kubelet: process 42, /usr/bin/kubelet"), "{error}");
        assert_eq!(CommandError::from(error).kind.code(), 3);
    }
}

#[test]
fn kubelets_elsewhere_zombies_and_others_are_no_obstacle() {
    let temp = tempfile::tempdir().unwrap();
    // A node in a container: its /var/lib/kubelet is below its own root.
    let container = temp.path().join("container");
    fs::create_dir_all(container.join("var/lib/kubelet")).unwrap();
    let ours = temp.path().join("var/lib/kubelet");
    fs::create_dir_all(&ours).unwrap();
    let fake = Proc::new();
    let slash = Path::new("/");
    fake.add(50, "kubelet", &["kubelet"], slash, &container);
    fake.add(51, "kubelet", &[], slash, slash);
    fake.add(52, "kubelet-helper", &["kubelet-helper", "--root-dir", ours.to_str().unwrap()], slash, slash);
    fs::create_dir(fake.path().join("53")).unwrap();
    assert_eq!(find_kubelet(fake.path(), &ours), None);
    // Seen through its root, the container's kubelet does use that folder.
    assert_eq!(find_kubelet(fake.path(), &container.join("var/lib/kubelet")).unwrap().pid, 50);
}

#[test]
fn a_root_dir_that_is_not_there_yet_is_compared_by_its_path() {
    let fake = Proc::new();
    fake.add(60, "kubelet", &["kubelet", "--root-dir=/nowhere/./kubelet/"], Path::new("/"), Path::new("/"));
    assert_eq!(find_kubelet(fake.path(), Path::new("/nowhere/x/../kubelet")).unwrap().pid, 60);
    assert_eq!(find_kubelet(fake.path(), Path::new("/nowhere/else")), None);
}

#[test]
fn a_running_nodectl_is_found_by_its_verb() {
    let temp = tempfile::tempdir().unwrap();
    let flag = format!("--root-dir={}", temp.path().display());
    let fake = Proc::new();
    let slash = Path::new("/");
    fake.add(70, "nodectl", &["nodectl", "pods", &flag], slash, slash);
    assert_eq!(find_nodectl(fake.path(), temp.path()), None);
    fake.add(71, "nodectl", &["nodectl", "run", &flag], slash, slash);
    assert_eq!(find_nodectl(fake.path(), temp.path()).unwrap().pid, 71);
    fake.add(std::process::id(), "nodectl", &["nodectl", "run", &flag], slash, slash);
    fs::remove_dir_all(fake.path().join("71")).unwrap();
    assert_eq!(find_nodectl(fake.path(), temp.path()), None, "not this process");
}

#[test]
fn a_taken_port_is_told_with_its_owner() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let owner = port_owner(Path::new("/proc"), addr);
    let error = InstanceError::PortInUse { what: "healthz port".into(), addr, owner };
    assert!(error.to_string().contains(&format!("{addr} is in use by process {} (", std::process::id())));
    assert!(CommandError::from(error).to_string().contains("hint: stop process"));
    let error = InstanceError::PortInUse { what: "healthz port".into(), addr, owner: None };
    assert_eq!(error.to_string(), format!("healthz port {addr} is in use"));
}
