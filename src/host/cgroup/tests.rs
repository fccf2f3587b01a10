//! Groups made and set in folders of our own: v1 and v2 without a kernel behind, whose files are put there
//! as it would.

use std::fmt::Write as _;

use super::*;
use crate::api::cgroup::Limit;

struct World {
    root: tempfile::TempDir,
}

impl World {
    fn new(mounts: &[(&str, &str, &str)]) -> (Self, CgroupMounts) {
        let root = tempfile::tempdir().unwrap();
        let mut table = String::from("3 0 0:3 / /proc rw - proc proc rw\n");
        for (n, (name, kind, options)) in mounts.iter().enumerate() {
            let point = root.path().join(name);
            fs::create_dir_all(&point).unwrap();
            writeln!(table, "{n} 0 0:{n} / {} rw shared:1 - {kind} cgroup rw,{options}", point.display())
                .unwrap();
        }
        let mountinfo = root.path().join("mountinfo");
        fs::write(&mountinfo, table).unwrap();
        let mounts = CgroupMounts::find(&mountinfo).unwrap();
        (Self { root }, mounts)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts a group's files there.
    fn group(&self, name: &str, files: &[(&str, &str)]) {
        fs::create_dir_all(self.path(name)).unwrap();
        for (file, text) in files {
            fs::write(self.path(name).join(file), format!("{text}\n")).unwrap();
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap().trim().to_owned()
    }
}

const V1: [(&str, &str, &str); 5] = [
    ("cpu,cpuacct", "cgroup", "cpu,cpuacct"),
    ("memory", "cgroup", "memory"),
    ("pids", "cgroup", "pids"),
    ("hugetlb", "cgroup", "hugetlb"),
    ("unified", "cgroup2", ""),
];

fn values() -> CgroupValues {
    CgroupValues {
        cpu_shares: Some(512),
        cpu_quota_micros: Some(Limit::Of(50_000)),
        cpu_period_micros: Some(100_000),
        memory_bytes: Some(Limit::Of(64 << 20)),
        pids: Some(Limit::Of(100)),
        hugepage_bytes: [(2 << 20, Limit::Of(0))].into(),
        unified: [("memory.min".to_owned(), "4096".to_owned())].into(),
    }
}

#[test]
fn a_cgroup_goes_from_every_hierarchy() {
    let (world, mounts) = World::new(&[("cpu", "cgroup", "cpu"), ("memory", "cgroup2", "x")]);
    let (cpu, memory) = (world.path("cpu"), world.path("memory"));
    for hierarchy in [&cpu, &memory] {
        fs::create_dir_all(hierarchy.join("kubepods/podu/container")).unwrap();
    }
    assert!(mounts.remove("/kubepods/podu").unwrap());
    assert!(!mounts.remove("/kubepods/podu").unwrap());
    assert!(cpu.join("kubepods").is_dir() && !memory.join("kubepods/podu").exists());
    for bad in ["", "/", "kubepods", "/a/../b", "/a//b"] {
        assert!(mounts.remove(bad).is_err() && mounts.children(bad).is_err(), "{bad}");
    }
}

#[test]
fn values_go_to_the_controllers_of_v1() {
    let (world, mounts) = World::new(&V1);
    assert!(!mounts.is_v2());
    world.group(
        "cpu,cpuacct/k/p",
        &[("cpu.shares", "1024"), ("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "-1")],
    );
    world.group("memory/k/p", &[("memory.limit_in_bytes", "9223372036854771712")]);
    world.group("pids/k/p", &[("pids.max", "max")]);
    world.group("hugetlb/k/p", &[("hugetlb.2MB.limit_in_bytes", "9223372036854771712")]);
    assert!(!mounts.is_set("/k/p", &values()));
    mounts.apply("/k/p", &values(), &Once::default()).unwrap();
    assert!(mounts.is_set("/k/p", &values()));
    assert_eq!(world.read("cpu,cpuacct/k/p/cpu.shares"), "512");
    assert_eq!(world.read("cpu,cpuacct/k/p/cpu.cfs_quota_us"), "50000");
    // Nothing was written that said the same already.
    assert!(fs::read_to_string(world.path("cpu,cpuacct/k/p/cpu.cfs_period_us")).unwrap().ends_with('\n'));
    assert_eq!(world.read("memory/k/p/memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(world.read("pids/k/p/pids.max"), "100");
    assert_eq!(world.read("hugetlb/k/p/hugetlb.2MB.limit_in_bytes"), "0");
    // v2 beside v1 is systemd's.
    assert!(!world.path("unified/k").exists());
}

#[test]
fn what_a_kernel_lacks_is_said_once_and_the_rest_is_set() {
    let (world, mounts) = World::new(&V1[..3]);
    world.group("memory/k/p", &[("memory.limit_in_bytes", "1")]);
    let once = Once::default();
    // The groups of the others are made, and have no files here.
    mounts.apply("/k/p", &values(), &once).unwrap();
    assert!(world.path("cpu,cpuacct/k/p").is_dir() && world.path("pids/k/p").is_dir());
    assert_eq!(world.read("memory/k/p/memory.limit_in_bytes"), (64 << 20).to_string());
    // A value that the kernel refuses is no lack of rights: it is told to the caller.
    fs::create_dir(world.path("pids/k/p/pids.max")).unwrap();
    let error = mounts.apply("/k/p", &values(), &once).unwrap_err().to_string();
    assert!(error.contains("pids.max") && error.contains("100"), "{error}");
}

/// What is logged while the closure runs.
fn logged(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_may_not_be_set_is_said_once_for_all_groups() {
    let (world, mounts) = World::new(&V1[..3]);
    for group in ["k/p", "k/q"] {
        world.group(&format!("memory/{group}"), &[("memory.limit_in_bytes", "1")]);
        world.group(&format!("pids/{group}"), &[("pids.max", "max")]);
        let shares = world.path(&format!("cpu,cpuacct/{group}"));
        fs::create_dir_all(&shares).unwrap();
        // A file that even root may not write.
        std::os::unix::fs::symlink("/proc/sys/kernel/ostype", shares.join("cpu.shares")).unwrap();
    }
    let values = CgroupValues { cpu_quota_micros: None, cpu_period_micros: None, ..values() };
    let once = Once::default();
    let told = logged(|| {
        for group in ["/k/p", "/k/p", "/k/q"] {
            mounts.apply(group, &values, &once).unwrap();
        }
    });
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("WARN") && told.contains("cpu.shares") && told.contains("not said again"),
        "{told}"
    );
    assert_eq!(world.read("memory/k/q/memory.limit_in_bytes"), (64 << 20).to_string());
    // Another file is another matter.
    fs::remove_file(world.path("pids/k/q/pids.max")).unwrap();
    let told = logged(|| mounts.apply("/k/q", &values, &once).unwrap());
    assert!(told.lines().count() == 1 && told.contains("pids.max"), "{told}");
}

#[test]
fn a_group_that_vanishes_meanwhile_is_an_error_and_not_a_lack_of_rights() {
    let (world, mounts) = World::new(&V1[..3]);
    let once = Once::default();
    let told = logged(|| {
        let gone = world.path("pids/k/gone");
        let error = files::set(&gone, &[files::Setting::new("pids.max", "7")], &once).unwrap_err();
        assert!(error.to_string().contains("pids.max"), "{error}");
        let error = files::set(&gone, &[files::Setting::new("pids.max", "7").optional()], &once);
        assert!(error.is_err());
        // The parent of the last is taken away in the middle of the making.
        let error = files::make(&world.path("pids"), "k/p/c", &once, |_, made| {
            if made.ends_with("k/p") {
                fs::remove_dir(made).unwrap();
            }
        });
        assert!(error.unwrap_err().to_string().contains("k/p/c"));
    });
    assert_eq!(told, "");
    mounts.apply("/k/p", &CgroupValues::default(), &once).unwrap();
    assert!(world.path("pids/k/p").is_dir());
}

#[test]
fn a_new_group_of_v1_inherits_its_cpus() {
    let (world, mounts) = World::new(&[("cpuset", "cgroup", "cpuset"), ("cpu", "cgroup", "cpu")]);
    world.group("cpuset", &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]);
    // Without a kernel a new folder is empty: only that nothing fails can be seen here, tests on a real
    // hierarchy start containers in it.
    mounts.apply("/k/p", &CgroupValues::default(), &Once::default()).unwrap();
    assert!(world.path("cpuset/k/p").is_dir() && world.path("cpu/k/p").is_dir());
}

#[test]
fn v2_hands_controllers_down_and_sets_its_own_words() {
    let (world, mounts) = World::new(&[("cg", "cgroup2", "nsdelegate"), ("other/longer", "cgroup2", "")]);
    assert!(mounts.is_v2());
    world.group("cg", &[("cgroup.controllers", "cpu memory pids"), ("cgroup.subtree_control", "memory")]);
    world.group("cg/k", &[("cgroup.controllers", "cpu memory pids"), ("cgroup.subtree_control", "")]);
    world.group(
        "cg/k/p",
        &[
            ("cgroup.controllers", ""),
            ("cgroup.subtree_control", ""),
            ("cpu.weight", "100"),
            ("cpu.max", "max 100000"),
            ("memory.max", "max"),
            ("memory.min", "0"),
            ("pids.max", "max"),
            ("hugetlb.2MB.max", "max"),
            ("memory.swap.max", "max"),
        ],
    );
    assert!(!mounts.limits_swap(), "no group right below the root has the file");
    world.group("cg/k", &[("memory.swap.max", "max")]);
    assert!(mounts.limits_swap());
    mounts.apply("/k/p", &values(), &Once::default()).unwrap();
    assert_eq!(world.read("cg/cgroup.subtree_control"), "+cpu +pids");
    assert_eq!(world.read("cg/k/cgroup.subtree_control"), "+cpu +memory +pids");
    assert_eq!(world.read("cg/k/p/cgroup.subtree_control"), "");
    for (file, text) in [
        ("cpu.weight", "20"),
        ("cpu.max", "50000 100000"),
        ("memory.max", "67108864"),
        ("memory.min", "4096"),
        ("pids.max", "100"),
        ("hugetlb.2MB.max", "0"),
    ] {
        assert_eq!(world.read(&format!("cg/k/p/{file}")), text, "{file}");
    }
    assert!(mounts.is_set("/k/p", &values()));
    let open = CgroupValues {
        cpu_quota_micros: Some(Limit::Unlimited),
        memory_bytes: Some(Limit::Unlimited),
        pids: Some(Limit::Unlimited),
        ..values()
    };
    mounts.apply("/k/p", &open, &Once::default()).unwrap();
    assert_eq!(world.read("cg/k/p/cpu.max"), "max 100000");
    assert_eq!(world.read("cg/k/p/memory.max"), "max");
}

#[test]
fn children_and_processes_of_all_hierarchies() {
    let (world, mounts) = World::new(&V1);
    world.group("cpu,cpuacct/k/podA", &[("cgroup.procs", "12\n7")]);
    world.group("memory/k/podB/c", &[("cgroup.procs", "3")]);
    world.group("memory/k/podB", &[("cgroup.procs", "")]);
    assert_eq!(mounts.children("/k").unwrap(), ["podA".to_owned(), "podB".to_owned()].into());
    assert_eq!(mounts.children("/none").unwrap(), BTreeSet::new());
    assert_eq!(mounts.processes("/k/podA").unwrap(), [7, 12].into());
    assert_eq!(mounts.processes("/k/podB").unwrap(), [3].into());
    assert_eq!(mounts.processes("/k/podC").unwrap(), BTreeSet::new());
}

#[tokio::test]
async fn through_the_handle() {
    let (world, mounts) = World::new(&[("pids", "cgroup", "pids"), ("cpu", "cgroup", "cpu")]);
    let cgroups = Arc::new(Cgroups::with_files(mounts));
    cgroups.apply("/k/p", &CgroupValues::default()).await.unwrap();
    assert!(world.path("pids/k/p").is_dir());
    cgroups.remove("/k/p").await.unwrap();
    cgroups.remove("/k/p").await.unwrap();
    assert!(world.path("pids/k").is_dir() && !world.path("pids/k/p").exists());
    assert!(cgroups.remove("k").await.is_err());
}

/// systemd as far as slices end: it knows some, and may refuse.
#[derive(Clone, Default)]
struct FakeManager(Arc<std::sync::Mutex<Fake>>);

#[derive(Default)]
struct Fake {
    units: BTreeSet<String>,
    refuses: bool,
    stops: Vec<String>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn get_unit(&self, name: &str) -> Result<zbus::zvariant::OwnedObjectPath, FakeError> {
        let there = self.0.lock().unwrap().units.contains(name);
        let path = zbus::zvariant::ObjectPath::try_from("/unit").unwrap().into();
        if there { Ok(path) } else { Err(FakeError::NoSuchUnit(name.to_owned())) }
    }

    fn stop_unit(&self, name: &str, _mode: &str) -> Result<zbus::zvariant::OwnedObjectPath, FakeError> {
        let mut fake = self.0.lock().unwrap();
        fake.stops.push(name.to_owned());
        if fake.refuses {
            return Err(FakeError::Refused("not now".to_owned()));
        }
        fake.units.remove(name);
        Ok(zbus::zvariant::ObjectPath::try_from("/job").unwrap().into())
    }
}

struct FakeUnit;

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl FakeUnit {
    #[zbus(property)]
    fn active_state(&self) -> String {
        "active".to_owned()
    }
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum FakeError {
    #[zbus(error)]
    ZBus(zbus::Error),
    NoSuchUnit(String),
    Refused(String),
}

impl FakeManager {
    async fn serve(&self) -> (systemd::Systemd, zbus::Connection) {
        let (ours, its) = tokio::net::UnixStream::pair().unwrap();
        let server = zbus::connection::Builder::unix_stream(its)
            .server(zbus::Guid::generate())
            .unwrap()
            .p2p()
            .serve_at("/org/freedesktop/systemd1", self.clone())
            .unwrap()
            .serve_at("/unit", FakeUnit)
            .unwrap()
            .build();
        let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
        let (server, client) = tokio::try_join!(server, client).unwrap();
        (systemd::Systemd::over(client), server)
    }

    fn stops(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().stops)
    }
}

#[tokio::test]
async fn a_slice_is_given_up_before_its_folder_and_also_without_one() {
    let (world, mounts) = World::new(&[("pids", "cgroup", "pids"), ("cpu", "cgroup", "cpu")]);
    let (cgroup, unit) = ("/k.slice/k-podu.slice", "k-podu.slice");
    let fake = FakeManager::default();
    fake.0.lock().unwrap().units.insert(unit.to_owned());
    let (systemd, _server) = fake.serve().await;
    let cgroups = Arc::new(Cgroups { mounts, systemd: Some(systemd), once: Once::default() });

    // What still runs in it would end with it.
    let folder = world.path("pids/k.slice/k-podu.slice");
    world.group("pids/k.slice/k-podu.slice/c", &[("cgroup.procs", "7")]);
    assert!(cgroups.remove(cgroup).await.unwrap_err().is_busy());
    assert!(fake.stops().is_empty() && folder.is_dir());

    // In a cgroup the kernel's files are no hindrance; here they are.
    fs::remove_file(folder.join("c/cgroup.procs")).unwrap();
    fake.0.lock().unwrap().refuses = true;
    let error = cgroups.remove(cgroup).await.unwrap_err();
    assert!(error.to_string().contains(unit), "{error}");
    assert!(folder.is_dir(), "it is what the next try finds it by");
    fake.0.lock().unwrap().refuses = false;
    cgroups.remove(cgroup).await.unwrap();
    assert_eq!(fake.stops(), [unit, unit]);
    assert!(!folder.exists());

    // An agent that was killed left the slice alone, or systemd has taken its folder away.
    fake.0.lock().unwrap().units.insert(unit.to_owned());
    cgroups.remove(cgroup).await.unwrap();
    assert_eq!(fake.stops(), [unit]);
    // One that is not there is fine.
    cgroups.remove(cgroup).await.unwrap();
    assert!(fake.stops().is_empty());
}
