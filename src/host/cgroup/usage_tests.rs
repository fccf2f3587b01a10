//! Figures of cgroups as kernels write them, v1 and v2, whole and broken.

use std::fs;

use super::*;

struct World {
    root: tempfile::TempDir,
    mounts: CgroupMounts,
}

impl World {
    fn new(mounts: &[(&str, &str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let table: String = mounts
            .iter()
            .enumerate()
            .map(|(n, (name, kind, options))| {
                let point = root.path().join(name);
                fs::create_dir_all(&point).unwrap();
                format!("{n} 0 0:{n} / {} rw shared:1 - {kind} cgroup rw,{options}\n", point.display())
            })
            .collect();
        let mountinfo = root.path().join("mountinfo");
        fs::write(&mountinfo, table).unwrap();
        let mounts = CgroupMounts::find(&mountinfo).unwrap();
        Self { root, mounts }
    }

    fn group(&self, name: &str, files: &[(&str, &str)]) {
        let folder = self.root.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
    }

    fn usage(&self, cgroup: &str) -> Option<CgroupUsage> {
        self.mounts.usage(cgroup, &mut Devices::default())
    }
}

fn v1() -> World {
    let world = World::new(&[
        ("cpu", "cgroup", "cpu"),
        ("cpuacct", "cgroup", "cpuacct"),
        ("memory", "cgroup", "memory"),
        ("pids", "cgroup", "pids"),
        ("blkio", "cgroup", "blkio"),
    ]);
    world.group(
        "cpu/kubepods/a",
        &[
            ("cpu.shares", "512\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.cfs_quota_us", "20000\n"),
            ("cpu.stat", "nr_periods 40\nnr_throttled 30\nthrottled_time 2500000000\nnr_bursts 0\n"),
        ],
    );
    world.group(
        "cpuacct/kubepods/a",
        &[("cpuacct.usage", "1234567890\n"), ("cpuacct.stat", "user 100\nsystem 23\n")],
    );
    world.group(
        "memory/kubepods/a",
        &[
            ("memory.usage_in_bytes", "5000000\n"),
            ("memory.max_usage_in_bytes", "6000000\n"),
            ("memory.kmem.usage_in_bytes", "400000\n"),
            ("memory.limit_in_bytes", "8388608\n"),
            ("memory.memsw.usage_in_bytes", "5001000\n"),
            ("memory.memsw.limit_in_bytes", "9388608\n"),
            ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "3\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            (
                "memory.stat",
                "cache 1\nrss 1\ninactive_file 1\ntotal_cache 2000000\ntotal_rss 1500000\ntotal_mapped_file 7\n\
                 total_swap 1000\ntotal_pgfault 900\ntotal_pgmajfault 9\ntotal_inactive_file 700000\n\
                 total_active_file 800000\n",
            ),
        ],
    );
    world.group("pids/kubepods/a", &[("pids.current", "4\n"), ("pids.max", "max\n")]);
    world.group(
        "blkio/kubepods/a",
        &[
            (
                "blkio.throttle.io_service_bytes_recursive",
                "999:1 Read 4096\n999:1 Write 8192\n999:1 Sync 0\n999:2 Read 1\nTotal 12289\n",
            ),
            ("blkio.throttle.io_serviced_recursive", "999:1 Read 1\n999:1 Write 2\nTotal 3\n"),
        ],
    );
    world
}

#[test]
fn a_v1_cgroup_is_read_whole() {
    let usage = v1().usage("/kubepods/a").unwrap();
    assert_eq!(
        usage.cpu,
        Some(CpuUsage {
            total_ns: 1_234_567_890,
            user_ns: 1_000_000_000,
            system_ns: 230_000_000,
            throttling: Some(Throttling { periods: 40, throttled_periods: 30, throttled_ns: 2_500_000_000 }),
            limits: Some(CpuLimits { shares: 512, period_us: 100_000, quota_us: Some(20_000) }),
        })
    );
    assert_eq!(
        usage.memory,
        Some(MemoryUsage {
            usage: 5_000_000,
            working_set: 4_300_000,
            rss: 1_500_000,
            cache: 2_000_000,
            mapped_file: 7,
            active_file: 800_000,
            inactive_file: 700_000,
            kernel: Some(400_000),
            peak: Some(6_000_000),
            page_faults: 900,
            major_page_faults: 9,
            limit_hits: Some(3),
            oom_kills: Some(2),
            limit: Some(8_388_608),
            soft_limit: None,
            swap: Some(1000),
            swap_limit: Some(1_000_000),
        })
    );
    assert_eq!(usage.tasks, Some(TaskUsage { threads: 4, most: None }));
    let io = |device: &str, read_bytes, written_bytes, reads, writes| DeviceIo {
        device: device.into(),
        read_bytes,
        written_bytes,
        reads,
        writes,
    };
    // No machine has devices of such numbers.
    assert_eq!(usage.io, [io("999:1", 4096, 8192, 1, 2), io("999:2", 1, 0, 0, 0)]);
    assert_eq!((usage.cpu_pressure, usage.memory_pressure, usage.io_pressure), (None, None, None));
}

#[test]
fn what_is_broken_or_missing_is_left_out_and_nothing_else() {
    let world = v1();
    assert_eq!(world.usage("/kubepods/none"), None);
    assert_eq!(world.usage("/../memory/kubepods/a"), None);
    world.group("memory/kubepods/a", &[("memory.usage_in_bytes", "much\n")]);
    let usage = world.usage("/kubepods/a").unwrap();
    assert!(usage.memory.is_none() && usage.cpu.is_some() && usage.tasks.is_some());
    world.group("cpuacct/kubepods/a", &[("cpuacct.usage", "-3\n")]);
    assert_eq!(world.usage("/kubepods/a").unwrap().cpu, None);
    // A file of another size than the kernel's.
    world.group(
        "cpuacct/kubepods/a",
        &[("cpuacct.usage", "5\n"), ("cpuacct.stat", &"x".repeat(MAX_FILE + 1))],
    );
    world.group("cpu/kubepods/a", &[("cpu.stat", "nr_periods\n"), ("cpu.cfs_quota_us", "-1\n")]);
    let cpu = world.usage("/kubepods/a").unwrap().cpu.unwrap();
    assert_eq!((cpu.total_ns, cpu.user_ns, cpu.throttling), (5, 0, None));
    assert_eq!(cpu.limits.unwrap().quota_us, None);
    world.group(
        "blkio/kubepods/a",
        &[("blkio.throttle.io_service_bytes_recursive", "\n:\n1:2\n1:2 Read x\n")],
    );
    let io = world.usage("/kubepods/a").unwrap().io;
    assert_eq!(io.iter().map(|io| &*io.device).collect::<Vec<_>>(), ["999:1"]);
}

fn v2() -> World {
    let world = World::new(&[("all", "cgroup2", "")]);
    // As Linux 6.1 writes them.
    world.group(
        "all/kubepods/a",
        &[
            (
                "cpu.stat",
                "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 7\nnr_throttled 2\n\
                 throttled_usec 90000\nnr_bursts 0\nburst_usec 0\n",
            ),
            ("cpu.weight", "39\n"),
            ("cpu.max", "max 100000\n"),
            ("memory.current", "4000000\n"),
            ("memory.peak", "4500000\n"),
            ("memory.max", "max\n"),
            ("memory.low", "0\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "12000\n"),
            ("memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 0\n"),
            (
                "memory.stat",
                "anon 3000000\nfile 500000\nkernel 300000\nfile_mapped 40000\ninactive_file 200000\n\
                 active_file 100000\npgfault 77\npgmajfault 3\n",
            ),
            ("pids.current", "2\n"),
            ("pids.max", "100\n"),
            (
                "io.stat",
                "999:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n999:16 \nnone\n999:3 rbytes=x wios=9\n",
            ),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.25 avg300=0.01 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            ),
            ("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
            ("io.pressure", "nonsense\n"),
        ],
    );
    world
}

#[test]
fn a_v2_cgroup_is_read_whole() {
    let usage = v2().usage("/kubepods/a").unwrap();
    let cpu = usage.cpu.unwrap();
    assert_eq!((cpu.total_ns, cpu.user_ns, cpu.system_ns), (1_500_000_000, 1_000_000_000, 500_000_000));
    assert_eq!(
        cpu.throttling,
        Some(Throttling { periods: 7, throttled_periods: 2, throttled_ns: 90_000_000 })
    );
    // 39 is what 1024 shares are made into, and some others.
    assert_eq!(cpu.limits, Some(CpuLimits { shares: 998, period_us: 100_000, quota_us: None }));
    let memory = usage.memory.unwrap();
    assert_eq!((memory.usage, memory.working_set, memory.rss), (4_000_000, 3_800_000, 3_000_000));
    assert_eq!((memory.limit, memory.soft_limit, memory.swap_limit), (None, None, Some(12_000)));
    assert_eq!((memory.limit_hits, memory.oom_kills, memory.kernel), (Some(5), Some(1), Some(300_000)));
    assert_eq!(usage.tasks, Some(TaskUsage { threads: 2, most: Some(100) }));
    let io: Vec<_> = usage.io.iter().map(|io| (&*io.device, io.read_bytes, io.writes)).collect();
    assert_eq!(io, [("999:0", 10, 2), ("999:3", 0, 9)]);
    let pressure = usage.cpu_pressure.unwrap();
    assert_eq!((pressure.some.total_us, pressure.full.total_us), (12_345, 7));
    assert!((pressure.some.avg10 - 1.5).abs() < 1e-9);
    assert_eq!(usage.memory_pressure, Some(Pressure::default()));
    assert_eq!(usage.io_pressure, None);
}

#[test]
fn the_root_of_v2_counts_what_processes_hold() {
    let world = v2();
    world.group("all", &[("memory.stat", "anon 100\nfile 50\ninactive_file 20\n")]);
    let memory = world.usage("/").unwrap().memory.unwrap();
    assert_eq!((memory.usage, memory.working_set, memory.limit), (150, 130, None));
}

#[test]
fn processes_are_those_of_the_cgroup_and_of_those_right_below() {
    for (world, at) in [(v1(), "memory/kubepods"), (v2(), "all/kubepods")] {
        world.group(&format!("{at}/a"), &[("cgroup.procs", "10\n11\n0\nx\n")]);
        world.group(&format!("{at}/a/container"), &[("cgroup.procs", "12\n")]);
        world.group(&format!("{at}/a/container/deep"), &[("cgroup.procs", "13\n")]);
        assert_eq!(world.mounts.processes_of("/kubepods/a"), Some(vec![10, 11, 12]));
        assert_eq!(world.mounts.processes_of("/kubepods/b"), None);
        assert_eq!(world.mounts.counted_below("/kubepods/a"), ["container"]);
        assert!(world.mounts.is_counted("/kubepods/a") && !world.mounts.is_counted("/kubepods/b"));
        assert_eq!(world.mounts.counted_below("/kubepods/b"), Vec::<String>::new());
    }
}
