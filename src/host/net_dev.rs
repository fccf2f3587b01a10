//! Counters of network interfaces, from `/proc/net/dev` of the machine or of a process.

use std::{io, path::Path};

use super::read::read_bounded;
use crate::api::usage::InterfaceUsage;

/// Bytes of the list: some thousands of interfaces.
const MAX_FILE: usize = 1 << 20;
/// Interfaces of the machine that are told. Nodes have some, and most network plugins one for each pod besides.
const MAX_INTERFACES: usize = 512;
/// What the machine has for its containers and for itself, as cAdvisor leaves it out.
const NOT_OF_THE_NODE: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];
/// The default interface of a pod.
const POD_DEFAULT: &str = "eth0";

/// The machine's interfaces, the one of the default route first. Blocks on the file system.
///
/// # Errors
/// When the list cannot be read.
pub fn of_node(proc_root: &Path) -> io::Result<Vec<InterfaceUsage>> {
    // `net` is this process's own, and so the machine's.
    let mut all = read(&proc_root.join("net/dev"))?;
    all.retain(|interface| !NOT_OF_THE_NODE.iter().any(|prefix| interface.name.starts_with(prefix)));
    let default = default_interface(&proc_root.join("net")).unwrap_or_else(|| POD_DEFAULT.to_owned());
    put_first(&mut all, &default);
    all.truncate(MAX_INTERFACES);
    Ok(all)
}

/// The interfaces of a process's network but for the loopback one, `eth0` first. Blocks on the file system.
///
/// # Errors
/// When the list cannot be read; `NotFound` if there is no such process.
pub fn of_process(proc_root: &Path, pid: i32) -> io::Result<Vec<InterfaceUsage>> {
    let mut all = read(&proc_root.join(pid.to_string()).join("net/dev"))?;
    all.retain(|interface| interface.name != "lo");
    put_first(&mut all, POD_DEFAULT);
    all.truncate(MAX_INTERFACES);
    Ok(all)
}

fn put_first(all: &mut Vec<InterfaceUsage>, name: &str) {
    if let Some(at) = all.iter().position(|interface| interface.name == name) {
        let found = all.remove(at);
        all.insert(0, found);
    }
}

fn read(path: &Path) -> io::Result<Vec<InterfaceUsage>> {
    let bytes = read_bounded(path, MAX_FILE)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
}

/// `eth0: BYTES PACKETS ERRS DROP FIFO FRAME COMPRESSED MULTICAST`, and the same of what was sent. A headline has no
/// colon.
fn parse(line: &str) -> Option<InterfaceUsage> {
    let (name, counters) = line.rsplit_once(':')?;
    let counters: Vec<u64> = counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = *counters.as_slice()
    else {
        return None;
    };
    Some(InterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

/// The interface of the default route, of the first one of several.
fn default_interface(net: &Path) -> Option<String> {
    let text = |name: &str| {
        let bytes = read_bounded(&net.join(name), MAX_FILE).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // Interface, destination, gateway, ….
    let v4 = text("route").lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")).then(|| words[0].to_owned())
    });
    // Destination, length of its prefix, …, interface.
    v4.or_else(|| {
        text("ipv6_route").lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let default = words.first()?.bytes().all(|digit| digit == b'0') && words.get(1) == Some(&"00");
            words.last().filter(|name| default && **name != "lo").map(|name| (*name).to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
veth1a:       1       1    0    0    0     0          0         0        1       1    0    0    0     0       0          0
  cni0:       5       6    0    0    0     0          0         0        7       8    0    0    0     0       0          0
 broken: 1 2 3
ens3.7:647656431   13930    1    2    0     0          0         0   628615    7817    3    4    0     0       0          0
";

    fn proc(route: &str, v6: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["net", "77/net"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("net/dev"), DEV).unwrap();
        fs::write(root.path().join("net/route"), route).unwrap();
        fs::write(root.path().join("net/ipv6_route"), v6).unwrap();
        fs::write(root.path().join("77/net/dev"), DEV.replace("ens3.7", "  eth0")).unwrap();
        root
    }

    fn names(all: &[InterfaceUsage]) -> Vec<&str> {
        all.iter().map(|interface| interface.name.as_str()).collect()
    }

    #[test]
    fn the_default_interface_comes_first_and_containers_ends_are_left_out() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  cni0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                  ens3.7\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let zeros = "0".repeat(32);
        let v6 = format!(
            "fe80{zeros} 40 {zeros} 00 {zeros} 00000100 1 0 00000001 cni0\n{zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200 lo\n{zeros} 00 {zeros} 00 {zeros} 00000400 1 0 00000003 ens3.7\n"
        );
        for (v4, v6) in [(v4, ""), ("", v6.as_str())] {
            let root = proc(v4, v6);
            let all = of_node(root.path()).unwrap();
            assert_eq!(names(&all), ["ens3.7", "cni0"]);
            let InterfaceUsage { rx_bytes, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_dropped, .. } =
                all[0];
            assert_eq!((rx_bytes, rx_errors, rx_dropped), (647_656_431, 1, 2));
            assert_eq!((tx_bytes, tx_packets, tx_dropped), (628_615, 7817, 4));
        }
        assert_eq!(names(&of_node(proc("", "").path()).unwrap()), ["cni0", "ens3.7"]);
    }

    #[test]
    fn a_process_has_its_own_interfaces() {
        let root = proc("", "");
        assert_eq!(names(&of_process(root.path(), 77).unwrap()), ["eth0", "veth1a", "cni0"]);
        assert_eq!(of_process(root.path(), 78).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
