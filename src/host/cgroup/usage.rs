//! What a cgroup has used, as cAdvisor counts it: from the files of its folders, each read once and within bounds.
//!
//! A file that is not there, or is not as the kernel writes it, leaves its figures out and no others.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{CgroupMounts, Kind, relative, v1::Hierarchy};
use crate::{
    api::usage::{
        CgroupUsage, CpuLimits, CpuUsage, DeviceIo, MemoryUsage, Pressure, Stalled, TaskUsage, Throttling,
    },
    host::read::read_bounded,
};

/// More than any of these files has; a bound against what is no cgroup file system.
const MAX_FILE: usize = 256 << 10;
/// Bytes of a list of processes: some hundred thousand of them.
const MAX_PROCESSES: usize = 1 << 20;
/// How many cgroups right below a container's are looked into for processes.
const MAX_BELOW: usize = 64;
/// Nanoseconds of the ticks in which the kernel tells user and system time.
const TICK_NS: u64 = 10_000_000;
/// A v1 limit of more bytes than this is none: the kernel rounds the largest number to pages.
const NO_LIMIT: u64 = 1 << 62;

/// The names of block devices by their numbers, for as long as one sample takes.
#[derive(Debug, Default)]
pub struct Devices {
    names: BTreeMap<(u32, u32), Option<Arc<str>>>,
}

impl Devices {
    /// `/dev/NAME`; `None` of a device that there is not.
    pub fn name(&mut self, major: u32, minor: u32) -> Option<Arc<str>> {
        let look = || {
            let path = format!("/sys/dev/block/{major}:{minor}/uevent");
            let text = text(Path::new(&path))?;
            let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
            Some(format!("/dev/{}", name.trim()).into())
        };
        self.names.entry((major, minor)).or_insert_with(look).clone()
    }
}

impl CgroupMounts {
    /// What a cgroup has used with those below it; `/` is the whole machine. `None` of one that is not there. Blocks
    /// on the file system.
    pub fn usage(&self, cgroup: &str, devices: &mut Devices) -> Option<CgroupUsage> {
        let path = if cgroup == "/" { "" } else { relative(cgroup).ok()? };
        match &self.kind {
            Kind::V1(all) => {
                let at = |controller: &str| folder(all, controller).map(|point| point.join(path));
                let (cpu, cpuacct, memory) = (at("cpu"), at("cpuacct"), at("memory"));
                if ![&cpu, &cpuacct, &memory].into_iter().flatten().any(|folder| folder.is_dir()) {
                    return None;
                }
                Some(CgroupUsage {
                    cpu: cpuacct.and_then(|cpuacct| v1_cpu(&cpuacct, cpu.as_deref())),
                    memory: memory.and_then(|folder| v1_memory(&folder)),
                    tasks: at("pids").and_then(|folder| tasks(&folder)),
                    io: at("blkio").map(|folder| v1_io(&folder, devices)).unwrap_or_default(),
                    ..CgroupUsage::default()
                })
            }
            Kind::V2(root) => {
                let folder = root.join(path);
                let pressure = |name: &str| match path {
                    "" => pressure(&Path::new("/proc/pressure").join(name)),
                    _ => pressure(&folder.join(format!("{name}.pressure"))),
                };
                folder.is_dir().then(|| CgroupUsage {
                    cpu: v2_cpu(&folder),
                    memory: v2_memory(&folder),
                    tasks: tasks(&folder),
                    io: v2_io(&folder, devices),
                    cpu_pressure: pressure("cpu"),
                    memory_pressure: pressure("memory"),
                    io_pressure: pressure("io"),
                })
            }
        }
    }

    /// The names of the cgroups right below one, in one hierarchy: that in which a container's usage is looked for.
    /// Blocks on the file system.
    pub fn counted_below(&self, cgroup: &str) -> Vec<String> {
        let Some(folder) = self.counted(cgroup) else { return Vec::new() };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Whether the cgroup is there. Blocks on the file system.
    pub fn is_counted(&self, cgroup: &str) -> bool {
        self.counted(cgroup).is_some_and(|folder| folder.is_dir())
    }

    /// The processes of a container's cgroup and of those right below it. `None` where that cannot be told. Blocks on
    /// the file system.
    pub fn processes_of(&self, cgroup: &str) -> Option<Vec<i32>> {
        let folder = self.counted(cgroup)?;
        let mut found = process_list(&folder)?;
        for name in self.counted_below(cgroup).into_iter().take(MAX_BELOW) {
            found.extend(process_list(&folder.join(name)).unwrap_or_default());
        }
        Some(found)
    }

    fn counted(&self, cgroup: &str) -> Option<PathBuf> {
        let path = if cgroup == "/" { "" } else { relative(cgroup).ok()? };
        match &self.kind {
            Kind::V1(all) => {
                let point = ["memory", "cpuacct", "cpu"].into_iter().find_map(|name| folder(all, name))?;
                Some(point.join(path))
            }
            Kind::V2(root) => Some(root.join(path)),
        }
    }
}

fn folder<'h>(all: &'h [Hierarchy], controller: &str) -> Option<&'h Path> {
    all.iter().find(|hierarchy| hierarchy.has(controller)).map(|hierarchy| hierarchy.point.as_path())
}

fn read(path: &Path, limit: usize) -> Option<String> {
    match read_bounded(path, limit) {
        Ok(bytes) => String::from_utf8(bytes).ok(),
        Err(error) => {
            // Gone meanwhile, no such controller, or a kernel without it: each is ordinary.
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) {
                tracing::trace!(path = %path.display(), "cannot read a figure: {error}");
            }
            None
        }
    }
}

fn text(path: &Path) -> Option<String> {
    read(path, MAX_FILE)
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// A number where `max` is none.
fn bound(path: &Path) -> Option<u64> {
    number(path).filter(|bound| *bound < NO_LIMIT)
}

/// Lines of a name and a number.
fn lines(text: &str) -> BTreeMap<&str, u64> {
    let pair = |line| -> Option<(&str, u64)> {
        let (name, value) = str::split_once(line, ' ')?;
        Some((name, value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn process_list(folder: &Path) -> Option<Vec<i32>> {
    let text = read(&folder.join("cgroup.procs"), MAX_PROCESSES)?;
    Some(text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid > 0).collect())
}

fn tasks(folder: &Path) -> Option<TaskUsage> {
    Some(TaskUsage {
        threads: number(&folder.join("pids.current"))?,
        most: number(&folder.join("pids.max")).filter(|most| *most > 0),
    })
}

fn v1_cpu(cpuacct: &Path, cpu: Option<&Path>) -> Option<CpuUsage> {
    let total_ns = number(&cpuacct.join("cpuacct.usage"))?;
    let stat = text(&cpuacct.join("cpuacct.stat")).unwrap_or_default();
    let stat = lines(&stat);
    let ticks = |name: &str| stat.get(name).copied().unwrap_or(0).saturating_mul(TICK_NS);
    Some(CpuUsage {
        total_ns,
        user_ns: ticks("user"),
        system_ns: ticks("system"),
        throttling: cpu.and_then(|cpu| {
            let text = text(&cpu.join("cpu.stat"))?;
            let stat = lines(&text);
            Some(Throttling {
                periods: *stat.get("nr_periods")?,
                throttled_periods: *stat.get("nr_throttled")?,
                throttled_ns: *stat.get("throttled_time")?,
            })
        }),
        limits: cpu.and_then(|cpu| {
            Some(CpuLimits {
                shares: number(&cpu.join("cpu.shares"))?,
                period_us: number(&cpu.join("cpu.cfs_period_us"))?,
                // No bound is -1.
                quota_us: number(&cpu.join("cpu.cfs_quota_us")),
            })
        }),
    })
}

fn v2_cpu(folder: &Path) -> Option<CpuUsage> {
    let text = text(&folder.join("cpu.stat"))?;
    let stat = lines(&text);
    let ns = |name: &str| Some(stat.get(name)?.saturating_mul(1000));
    let throttling = || {
        Some(Throttling {
            periods: *stat.get("nr_periods")?,
            throttled_periods: *stat.get("nr_throttled")?,
            throttled_ns: ns("throttled_usec")?,
        })
    };
    Some(CpuUsage {
        total_ns: ns("usage_usec")?,
        user_ns: ns("user_usec").unwrap_or(0),
        system_ns: ns("system_usec").unwrap_or(0),
        throttling: throttling(),
        limits: v2_cpu_limits(folder),
    })
}

fn v2_cpu_limits(folder: &Path) -> Option<CpuLimits> {
    let weight = number(&folder.join("cpu.weight"))?;
    let text = text(&folder.join("cpu.max"))?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some(CpuLimits {
        // The way back of `api::cgroup::cpu_weight`.
        shares: 2 + weight.saturating_sub(1).saturating_mul(262_142) / 9_999,
        period_us: period.parse().ok()?,
        quota_us: quota.parse().ok(),
    })
}

fn v1_memory(folder: &Path) -> Option<MemoryUsage> {
    let usage = number(&folder.join("memory.usage_in_bytes"))?;
    let stat = text(&folder.join("memory.stat"))?;
    let stat = lines(&stat);
    let of = |name: &str| stat.get(name).copied().unwrap_or(0);
    let with_swap = number(&folder.join("memory.memsw.usage_in_bytes"));
    let limit = bound(&folder.join("memory.limit_in_bytes"));
    let control = text(&folder.join("memory.oom_control")).unwrap_or_default();
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(of("total_inactive_file")),
        rss: of("total_rss"),
        cache: of("total_cache"),
        mapped_file: of("total_mapped_file"),
        active_file: of("total_active_file"),
        inactive_file: of("total_inactive_file"),
        kernel: number(&folder.join("memory.kmem.usage_in_bytes")),
        peak: number(&folder.join("memory.max_usage_in_bytes")),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        limit_hits: number(&folder.join("memory.failcnt")),
        oom_kills: lines(&control).get("oom_kill").copied(),
        limit,
        soft_limit: bound(&folder.join("memory.soft_limit_in_bytes")),
        swap: with_swap.map(|_counted| of("total_swap")),
        // The file is for memory and swap together.
        swap_limit: limit
            .zip(bound(&folder.join("memory.memsw.limit_in_bytes")))
            .map(|(memory, both)| both.saturating_sub(memory)),
    })
}

fn v2_memory(folder: &Path) -> Option<MemoryUsage> {
    let stat = text(&folder.join("memory.stat"))?;
    let stat = lines(&stat);
    let of = |name: &str| stat.get(name).copied().unwrap_or(0);
    // The root has no file with its use.
    let usage = number(&folder.join("memory.current"));
    let usage = usage.unwrap_or_else(|| of("anon").saturating_add(of("file")));
    let events = text(&folder.join("memory.events")).unwrap_or_default();
    let events = lines(&events);
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(of("inactive_file")),
        rss: of("anon"),
        cache: of("file"),
        mapped_file: of("file_mapped"),
        active_file: of("active_file"),
        inactive_file: of("inactive_file"),
        kernel: stat.get("kernel").copied(),
        peak: number(&folder.join("memory.peak")),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        limit_hits: events.get("max").copied(),
        oom_kills: events.get("oom_kill").copied(),
        limit: bound(&folder.join("memory.max")),
        // What v1's is made into for v2.
        soft_limit: bound(&folder.join("memory.low")).filter(|low| *low > 0),
        swap: number(&folder.join("memory.swap.current")),
        swap_limit: bound(&folder.join("memory.swap.max")),
    })
}

/// `MAJOR:MINOR`.
fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

type Counters = BTreeMap<(u32, u32), DeviceIo>;

fn entry<'c>(counters: &'c mut Counters, of: (u32, u32), devices: &mut Devices) -> &'c mut DeviceIo {
    counters.entry(of).or_insert_with(|| DeviceIo {
        device: devices.name(of.0, of.1).unwrap_or_else(|| format!("{}:{}", of.0, of.1).into()),
        read_bytes: 0,
        written_bytes: 0,
        reads: 0,
        writes: 0,
    })
}

/// `8:0 Read 4096`, and a total without a device.
fn v1_io(folder: &Path, devices: &mut Devices) -> Vec<DeviceIo> {
    let mut counters = Counters::new();
    for (name, is_bytes) in [("io_service_bytes", true), ("io_serviced", false)] {
        let recursive = text(&folder.join(format!("blkio.throttle.{name}_recursive")));
        let Some(text) = recursive.or_else(|| text(&folder.join(format!("blkio.throttle.{name}")))) else {
            continue;
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(of), Some(what), Some(Ok(value))) =
                (words.next().and_then(device), words.next(), words.next().map(str::parse::<u64>))
            else {
                continue;
            };
            let io = entry(&mut counters, of, devices);
            match (what, is_bytes) {
                ("Read", true) => io.read_bytes = value,
                ("Write", true) => io.written_bytes = value,
                ("Read", false) => io.reads = value,
                ("Write", false) => io.writes = value,
                _ => {}
            }
        }
    }
    counters.into_values().collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn v2_io(folder: &Path, devices: &mut Devices) -> Vec<DeviceIo> {
    let text = text(&folder.join("io.stat")).unwrap_or_default();
    let mut counters = Counters::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(of) = words.next().and_then(device) else { continue };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match name {
                "rbytes" => entry(&mut counters, of, devices).read_bytes = value,
                "wbytes" => entry(&mut counters, of, devices).written_bytes = value,
                "rios" => entry(&mut counters, of, devices).reads = value,
                "wios" => entry(&mut counters, of, devices).writes = value,
                _ => {}
            }
        }
    }
    counters.into_values().collect()
}

/// Reads a pressure file; `None` of a kernel that does not count.
fn pressure(path: &Path) -> Option<Pressure> {
    let text = text(path)?;
    let line = |kind: &str| -> Option<Stalled> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let of =
            |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Some(Stalled {
            total_us: of("total")?.parse().ok()?,
            avg10: of("avg10")?.parse().ok()?,
            avg60: of("avg60")?.parse().ok()?,
            avg300: of("avg300")?.parse().ok()?,
        })
    };
    // Of the CPUs older kernels tell only the one.
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
