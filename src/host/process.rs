//! What this process uses, as Prometheus' own clients tell it.

use std::{fs, io, path::Path, time::Duration};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{SysconfVar, sysconf},
};

/// What a process uses; what cannot be found out is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUse {
    /// CPU time in user and kernel mode, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: f64,
    /// Virtual memory, bytes.
    pub virtual_bytes: f64,
    /// Open files.
    pub open_files: f64,
    /// Files that may be open.
    pub max_files: f64,
    /// When it was started, seconds since 1970.
    pub started: f64,
}

impl ProcessUse {
    /// That of this process.
    #[must_use]
    pub fn own() -> Self {
        Self::read(Path::new("/proc")).unwrap_or_default()
    }

    #[allow(clippy::cast_precision_loss, reason = "figures of Prometheus are doubles")]
    fn read(proc: &Path) -> io::Result<Self> {
        let stat = fs::read_to_string(proc.join("self/stat"))?;
        let number = |var| sysconf(var).ok().flatten().unwrap_or(1) as f64;
        let ticks = number(SysconfVar::CLK_TCK);
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // Numbered as in proc(5), where the first of these is 3.
        let field = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let boot = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        let open = fs::read_dir(proc.join("self/fd")).map_or(0, Iterator::count);
        Ok(Self {
            cpu_seconds: (field(14) + field(15)) / ticks,
            resident_bytes: field(24) * number(SysconfVar::PAGE_SIZE),
            virtual_bytes: field(23),
            open_files: open as f64,
            max_files: getrlimit(Resource::RLIMIT_NOFILE).map_or(0.0, |(soft, _)| soft as f64),
            started: boot.unwrap_or(0.0) + field(22) / ticks,
        })
    }
}

/// A thread of this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Thread {
    /// Its number.
    pub id: u32,
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// What it does, as in proc(5): `R` runs, `S` sleeps, `D` waits for a device.
    pub state: char,
    /// CPU time in user mode so far.
    pub user: Duration,
    /// CPU time in kernel mode so far.
    pub system: Duration,
    /// The kernel's function that it waits in; empty where it waits in none, or the kernel does not tell.
    pub waits_in: String,
}

/// The threads of this process. Those that end meanwhile are left out. Blocks on the file system.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn threads() -> io::Result<Vec<Thread>> {
    threads_of(Path::new("/proc/self"))
}

fn threads_of(process: &Path) -> io::Result<Vec<Thread>> {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    let ticks = ticks.unwrap_or(100).max(1);
    let mut found = Vec::new();
    for entry in fs::read_dir(process.join("task"))? {
        let folder = entry?.path();
        let id = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        let (Some(id), Ok(stat)) = (id, fs::read_to_string(folder.join("stat"))) else { continue };
        let Some((before, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let time = |at: usize| {
            let ticked: u64 = fields.get(at - 3).and_then(|text| text.parse().ok()).unwrap_or(0);
            Duration::from_millis(ticked.saturating_mul(1000) / ticks)
        };
        let waits_in = fs::read_to_string(folder.join("wchan")).unwrap_or_default();
        found.push(Thread {
            id,
            name: before.split_once('(').map_or("", |(_, name)| name).to_owned(),
            state: fields.first().and_then(|state| state.chars().next()).unwrap_or('?'),
            user: time(14),
            system: time(15),
            waits_in: if waits_in == "0" { String::new() } else { waits_in },
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_with_what_they_use() {
        let folder = tempfile::tempdir().unwrap();
        let task = folder.path().join("task/17");
        fs::create_dir_all(&task).unwrap();
        let stat = "17 (log (x) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1000 8192000 300\n";
        fs::write(task.join("stat"), stat).unwrap();
        fs::write(task.join("wchan"), "futex_wait_queue").unwrap();
        let threads = threads_of(folder.path()).unwrap();
        assert_eq!((threads.len(), threads[0].id, threads[0].name.as_str()), (1, 17, "log (x) b"));
        assert_eq!((threads[0].state, threads[0].waits_in.as_str()), ('S', "futex_wait_queue"));
        assert!(threads[0].user == threads[0].system * 5 && threads[0].user > Duration::from_millis(200));
        assert!(super::threads().unwrap().len() >= 2, "this test has a thread of its own");
    }

    #[test]
    fn figures_are_read_from_what_the_kernel_tells() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("self/fd")).unwrap();
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1000 8192000 300 18446744073709551615\n";
        fs::write(folder.path().join("self/stat"), stat).unwrap();
        fs::write(folder.path().join("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
        for file in ["0", "1", "2"] {
            fs::write(folder.path().join("self/fd").join(file), "").unwrap();
        }
        let used = ProcessUse::read(folder.path()).unwrap();
        assert!(
            (used.cpu_seconds - 3.0).abs() < 1e-6 && (used.started - 1_700_000_010.0).abs() < 1e-6,
            "{used:?}"
        );
        assert!(
            (used.virtual_bytes - 8_192_000.0).abs() < 1.0 && (used.open_files - 3.0).abs() < 0.1,
            "{used:?}"
        );
        assert!(used.resident_bytes >= 300.0 * 4096.0, "{used:?}");
        let own = ProcessUse::own();
        assert!(own.resident_bytes > 1e5 && own.started > 1.6e9 && own.max_files > 0.0, "{own:?}");
    }
}
