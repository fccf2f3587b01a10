//! Who listens on a port? The kernel lists listening sockets with their inodes in /proc/net, and a process
//! that has one shows it among its open files.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use super::instance::{pids, read_text};

/// A process that listens where we wanted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Its process id.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
}

/// The state LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";

/// The process that keeps this TCP address from being bound. `None` if nobody does, or if it cannot be seen
/// (another user's without root, or another PID namespace's). It reads all processes' open files: for an
/// error message, not for a loop.
pub fn port_owner(proc_root: &Path, addr: SocketAddr) -> Option<PortOwner> {
    let sockets: Vec<String> = ["net/tcp", "net/tcp6"]
        .into_iter()
        .flat_map(|table| listeners(&proc_root.join(table), addr))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    pids(proc_root).into_iter().find_map(|pid| {
        let home = proc_root.join(pid.to_string());
        let mut files = fs::read_dir(home.join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|target| target.to_str().is_some_and(|target| sockets.iter().any(|s| s == target)))
        });
        let name = || read_text(&home.join("comm"), 64).unwrap_or_default().trim_end().to_owned();
        holds.then(|| PortOwner { pid, name: name() })
    })
}

/// Inodes of the sockets in one table that conflict with the address.
fn listeners(table: &Path, wanted: SocketAddr) -> Vec<u64> {
    let Ok(file) = File::open(table) else { return Vec::new() };
    BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            // sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (words.get(1)?, *words.get(3)?, words.get(9)?);
            let (address, port) = local.split_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            let conflict = state == LISTEN
                && port == wanted.port()
                && conflicts(parse_address(address)?.to_canonical(), wanted.ip().to_canonical());
            if conflict { inode.parse().ok() } else { None }
        })
        .collect()
}

/// A socket on all addresses is in the way of each single one, and the other way round.
fn conflicts(listening: IpAddr, wanted: IpAddr) -> bool {
    listening == wanted
        || (listening.is_unspecified() && (listening.is_ipv6() || wanted.is_ipv4()))
        || (wanted.is_unspecified() && (wanted.is_ipv6() || listening.is_ipv4()))
}

/// The kernel prints an address as 32-bit words in its own byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..text.len().checked_div(8)?)
        .map(|word| u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let bytes = words?.concat();
    match text.len() {
        8 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        32 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_owner_of_a_real_listener_is_this_process() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let owner = port_owner(Path::new("/proc"), listener.local_addr().unwrap()).unwrap();
            assert_eq!(owner.pid, std::process::id(), "{bind}");
            assert!(!owner.name.is_empty());
        }
        // Nobody else's address, so that no other test listens there by now.
        let gone = TcpListener::bind("127.86.0.4:0").unwrap().local_addr().unwrap();
        assert_eq!(port_owner(Path::new("/proc"), gone), None);
    }

    #[test]
    fn wildcard_addresses_conflict() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (listening, wanted, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("::", "127.0.0.1", true),
            ("::1", "0.0.0.0", false),
            ("0.0.0.0", "::1", false),
            ("::1", "::", true),
        ] {
            assert_eq!(conflicts(ip(listening), ip(wanted)), expected, "{listening} {wanted}");
        }
    }

    #[test]
    fn odd_tables_are_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("net")).unwrap();
        fs::write(
            temp.path().join("net/tcp"),
            "header\n 0: zz:zz 0 0A\n 1: 0100007F:2808 x 0A a b c d e\n\n",
        )
        .unwrap();
        assert_eq!(port_owner(temp.path(), "127.0.0.1:10248".parse().unwrap()), None);
    }
}
