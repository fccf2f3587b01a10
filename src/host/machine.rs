//! What the machine has: memory, swap, CPUs, process numbers, huge pages.

use std::{collections::BTreeMap, fs, path::Path};

/// See the module. What cannot be read is zero or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Swap in bytes.
    pub swap_bytes: i64,
    /// CPUs that the kernel uses.
    pub cpus: u32,
    /// How many processes and threads the kernel allows.
    pub pids: u64,
    /// Bytes set aside for huge pages, by the size of a page in bytes: each size that the kernel knows.
    pub hugepage_bytes: BTreeMap<u64, u64>,
}

impl Machine {
    /// Reads it below `/proc` and `/sys`. Blocks on the file system.
    pub fn read(proc_root: &Path, sys_root: &Path) -> Self {
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let meminfo = text(&proc_root.join("meminfo"));
        let kib = |name: &str| -> i64 {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
            number.unwrap_or(0).saturating_mul(1024)
        };
        let cpuinfo = text(&proc_root.join("cpuinfo"));
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let number = |name: &str| text(&proc_root.join("sys/kernel").join(name)).trim().parse::<u64>().ok();
        let pids = [number("pid_max"), number("threads-max")].into_iter().flatten().min();
        Self {
            memory_bytes: kib("MemTotal"),
            swap_bytes: kib("SwapTotal"),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            pids: pids.unwrap_or(0),
            hugepage_bytes: hugepages(&sys_root.join("kernel/mm/hugepages")),
        }
    }
}

fn hugepages(folder: &Path) -> BTreeMap<u64, u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?;
            let size = size.checked_mul(1024)?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            Some((size, count.trim().parse::<u64>().ok()?.saturating_mul(size)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_in_files() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(Machine::read(root.path(), root.path()), Machine::default());
        put("meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\nSwapTotal:   1024 kB\n");
        put("cpuinfo", "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n");
        put("sys/kernel/pid_max", "32768\n");
        put("sys/kernel/threads-max", "5000\n");
        put("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
        put("kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
        let machine = Machine::read(root.path(), root.path());
        assert_eq!((machine.memory_bytes, machine.swap_bytes), (2 << 20, 1 << 20));
        assert_eq!((machine.cpus, machine.pids), (2, 5000));
        assert_eq!(machine.hugepage_bytes, [(2 << 20, 6 << 20), (1 << 30, 0)].into());
    }
}
