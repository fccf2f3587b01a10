//! How much memory a cgroup uses, as cAdvisor counts it: what is in use, without the page cache that nobody has
//! looked at lately (the working set).

use std::{fs, io, path::Path};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// The working set in bytes.
    pub working_set: i64,
    /// The most that it may use in bytes; `None` is no bound.
    pub limit: Option<i64>,
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}

fn wrong(path: &Path, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} says {:?}", path.display(), text.trim()))
}

fn number(path: &Path) -> io::Result<Option<i64>> {
    let Some(text) = read(path)? else { return Ok(None) };
    // An amount of no bound is over what fits.
    let value = text.trim().parse::<u64>().map_err(|_error| wrong(path, &text))?;
    Ok(Some(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// A line of `memory.stat`; 0 where there is none.
fn stat(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn v1(folder: &Path) -> io::Result<Option<MemoryUse>> {
    let Some(usage) = number(&folder.join("memory.usage_in_bytes"))? else { return Ok(None) };
    let stats = read(&folder.join("memory.stat"))?.unwrap_or_default();
    // The largest number of pages is no bound; it is less than the largest number of bytes by a page at most.
    let limit = number(&folder.join("memory.limit_in_bytes"))?.filter(|limit| *limit < i64::MAX - (1 << 20));
    Ok(Some(MemoryUse { working_set: (usage - stat(&stats, "total_inactive_file")).max(0), limit }))
}

pub(super) fn v2(folder: &Path) -> io::Result<Option<MemoryUse>> {
    let Some(stats) = read(&folder.join("memory.stat"))? else { return Ok(None) };
    // The root has no file with its use.
    let usage = match number(&folder.join("memory.current"))? {
        Some(usage) => usage,
        None => stat(&stats, "anon").saturating_add(stat(&stats, "file")),
    };
    let limit = read(&folder.join("memory.max"))?.and_then(|text| text.trim().parse().ok());
    Ok(Some(MemoryUse { working_set: (usage - stat(&stats, "inactive_file")).max(0), limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_in_files() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        assert_eq!(v1(root.path()).unwrap(), None);
        assert_eq!(v2(root.path()).unwrap(), None);
        put("memory.usage_in_bytes", "1000\n");
        put("memory.limit_in_bytes", "9223372036854771712\n");
        put("memory.stat", "inactive_file 1\ntotal_inactive_file 300\nanon 50\nfile 30\n");
        assert_eq!(v1(root.path()).unwrap(), Some(MemoryUse { working_set: 700, limit: None }));
        put("memory.limit_in_bytes", "4096\n");
        assert_eq!(v1(root.path()).unwrap().unwrap().limit, Some(4096));
        assert_eq!(v2(root.path()).unwrap(), Some(MemoryUse { working_set: 79, limit: None }));
        put("memory.current", "10\n");
        put("memory.max", "max\n");
        assert_eq!(v2(root.path()).unwrap(), Some(MemoryUse { working_set: 9, limit: None }));
        put("memory.max", "5\n");
        assert_eq!(v2(root.path()).unwrap().unwrap().limit, Some(5));
        put("memory.usage_in_bytes", "many\n");
        assert!(v1(root.path()).unwrap_err().to_string().contains("many"));
    }
}
