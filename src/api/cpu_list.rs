//! Lists of CPUs as the kernel and kubelet's `reservedSystemCPUs` write them: `0-3,8`.

/// How many CPUs a list names, each counted once; `None` for what is no such list.
pub fn count(list: &str) -> Option<i64> {
    let mut ranges = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last {
            return None;
        }
        ranges.push((i64::from(first), i64::from(last)));
    }
    ranges.sort_unstable();
    let (mut total, mut next) = (0, 0);
    for (first, last) in ranges {
        total += (last + 1 - first.max(next)).max(0);
        next = next.max(last + 1);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_counts_once() {
        for (list, expected) in [
            ("0-3,8\n", Some(5)),
            ("0", Some(1)),
            ("", Some(0)),
            ("2,0-4,3-5", Some(6)),
            ("3-1", None),
            ("a", None),
            ("0-4294967295", Some(1 << 32)),
        ] {
            assert_eq!(count(list), expected, "{list:?}");
        }
    }
}
