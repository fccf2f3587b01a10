//! Names of kernel settings: which are well formed, how they are spelt, and which namespace holds each.
//! Pods set them (`securityContext.sysctls`) and the node's configuration allows them
//! (`allowedUnsafeSysctls`), so both speak of them in the same way.

/// The longest name in bytes (kubelet's `SysctlMaxLength`).
const MAX_NAME: usize = 253;

/// The namespace that holds a kernel setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysctlNamespace {
    /// Of the pod's inter-process communication.
    Ipc,
    /// Of the pod's network.
    Net,
}

/// Whether a name is well formed: words of lower-case letters, digits, `-` and `_`, with dots or slashes
/// between them.
pub fn is_name(name: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let word = |word: &str| {
        edge(word.bytes().next())
            && edge(word.bytes().last())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    name.len() <= MAX_NAME && name.split(['.', '/']).all(word)
}

/// Whether a text is a name, or the beginning of names that ends in `*`.
pub fn is_pattern(pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => is_name(prefix.trim_end_matches(['.', '/', '-', '_'])) && pattern.len() <= MAX_NAME,
        None => is_name(pattern),
    }
}

/// The spelling with dots between the words. Where the first separator is a slash, slashes separate and
/// dots belong to words (`net/ipv4/conf/eno2.100/rp_filter`): the two are exchanged.
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The namespace that a setting, or every setting with this beginning, is known to belong to. `None` is one
/// that the whole machine shares.
pub fn namespace(dotted: &str) -> Option<SysctlNamespace> {
    const IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if dotted == "kernel.sem" || IPC.iter().any(|prefix| dotted.starts_with(prefix)) {
        Some(SysctlNamespace::Ipc)
    } else if dotted.starts_with("net.") {
        Some(SysctlNamespace::Net)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        for good in ["kernel.sem", "net.ipv4.tcp_rmem", "net/ipv4/conf/eno2.100/rp_filter", "a-b.c_d"] {
            assert!(is_name(good) && is_pattern(good), "{good}");
        }
        for bad in ["", ".", "kernel.", "Kernel.sem", "a..b", "_a", "a b", "net.*", "../etc", "a_.b"] {
            assert!(!is_name(bad), "{bad}");
        }
        for (pattern, expected) in [
            ("net.*", true),
            ("kernel.shm*", true),
            ("net.ipv4.tcp_*", true),
            ("*", false),
            ("net.*.x", false),
            ("n*t.x", false),
        ] {
            assert_eq!(is_pattern(pattern), expected, "{pattern}");
        }
        assert!(!is_name(&"a".repeat(254)));
    }

    #[test]
    fn slashes_become_dots() {
        for (name, expected) in [
            ("kernel.shm_rmid_forced", "kernel.shm_rmid_forced"),
            ("kernel/shm_rmid_forced", "kernel.shm_rmid_forced"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net.ipv4.conf.eno2/100.rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net.ipv4.conf.eno2/100.rp_filter"),
        ] {
            assert_eq!(dotted(name), expected);
        }
    }

    #[test]
    fn settings_belong_to_namespaces() {
        for (name, expected) in [
            ("kernel.sem", Some(SysctlNamespace::Ipc)),
            ("kernel.semaphore", None),
            ("kernel.shmmax", Some(SysctlNamespace::Ipc)),
            ("kernel.msgmax", Some(SysctlNamespace::Ipc)),
            ("fs.mqueue.msg_max", Some(SysctlNamespace::Ipc)),
            ("net.core.somaxconn", Some(SysctlNamespace::Net)),
            ("vm.swappiness", None),
            ("kernel.", None),
            ("fs.file-max", None),
        ] {
            assert_eq!(namespace(name), expected, "{name}");
        }
    }
}
