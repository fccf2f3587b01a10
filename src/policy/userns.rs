//! The host's user and group numbers behind a pod's user namespace (`hostUsers: false`): which range a pod
//! gets, and the file in the pod's folder that keeps it. The file is kubelet's
//! (pkg/kubelet/userns/userns_manager.go), so that either agent finds what the other gave.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::api::cri::{IdMapping, Mount, NamespaceMode, UserNamespace};

/// The smallest number that may be given to pods: below are the host's own users.
const FIRST_ID: u64 = 1 << 16;
/// One more than the largest number that the kernel takes.
const ID_LIMIT: u64 = 1 << 32;

/// A pod's numbers: 0 and up in the pod are `host_id` and up on the host, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodIds {
    /// The first number on the host.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

impl PodIds {
    fn end(self) -> u64 {
        u64::from(self.host_id) + u64::from(self.length)
    }

    fn overlaps(self, other: Self) -> bool {
        u64::from(self.host_id) < other.end() && u64::from(other.host_id) < self.end()
    }

    fn mapping(self) -> IdMapping {
        IdMapping { host_id: self.host_id, container_id: 0, length: self.length }
    }

    /// The namespace to ask the runtime for.
    pub fn namespace(self) -> UserNamespace {
        UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: vec![self.mapping()],
            gids: vec![self.mapping()],
        }
    }

    /// Has files of these mounts belong to the same numbers in the pod as on the disk.
    pub fn map_mounts(self, mounts: &mut [Mount]) {
        for mount in mounts {
            mount.uid_mappings = vec![self.mapping()];
            mount.gid_mappings = vec![self.mapping()];
        }
    }
}

/// The numbers that pods may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdPool {
    /// The first number.
    pub first: u64,
    /// How many.
    pub length: u64,
    /// How many a pod gets (`userNamespaces.idsPerPod`).
    pub per_pod: u32,
}

/// No numbers are left.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("all {length} user numbers from {first} up are given away, {per_pod} to each pod")]
pub struct Exhausted {
    first: u64,
    length: u64,
    per_pod: u32,
}

impl IdPool {
    /// All but the host's own, as nothing says otherwise.
    pub fn whole(per_pod: u32) -> Self {
        Self { first: FIRST_ID.max(u64::from(per_pod)), length: ID_LIMIT, per_pod }
    }

    /// What `/etc/subuid` and `/etc/subgid` keep for the user `kubelet`. `None` if they name none.
    ///
    /// # Errors
    /// In words, when they say something that cannot be used.
    pub fn of_kubelet(subuid: &str, subgid: &str, per_pod: u32) -> Result<Option<Self>, String> {
        let (uids, gids) = (kubelet_range(subuid)?, kubelet_range(subgid)?);
        if uids != gids {
            return Err("/etc/subuid and /etc/subgid differ for the user kubelet".to_owned());
        }
        let Some((first, length)) = uids else { return Ok(None) };
        let unit = u64::from(per_pod);
        if first < FIRST_ID || first % unit != 0 || length % unit != 0 || first + length > ID_LIMIT {
            return Err(format!(
                "/etc/subuid gives the user kubelet {length} numbers from {first} up: both must be \
                 multiples of {per_pod}, and the first at least {FIRST_ID}"
            ));
        }
        Ok(Some(Self { first, length, per_pod }))
    }

    /// The lowest free range.
    ///
    /// # Errors
    /// When none is left.
    pub fn pick(&self, taken: &[PodIds]) -> Result<PodIds, Exhausted> {
        let end = (self.first + self.length).min(ID_LIMIT);
        let unit = u64::from(self.per_pod.max(1));
        // Ranges begin at multiples of their length.
        let mut start = self.first.div_ceil(unit) * unit;
        while start + unit <= end {
            if let Ok(host_id) = u32::try_from(start) {
                let ids = PodIds { host_id, length: self.per_pod };
                if !taken.iter().any(|other| other.overlaps(ids)) {
                    return Ok(ids);
                }
            }
            start += unit;
        }
        Err(Exhausted { first: self.first, length: self.length, per_pod: self.per_pod })
    }
}

/// The range of the user `kubelet` in a file of lines `user:first:count`.
fn kubelet_range(text: &str) -> Result<Option<(u64, u64)>, String> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("kubelet:"));
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err("/etc/subuid or /etc/subgid gives the user kubelet more than one range".to_owned());
    }
    let range = line.split_once(':').and_then(|(first, count)| {
        Some((u64::from(first.trim().parse::<u32>().ok()?), u64::from(count.trim().parse::<u32>().ok()?)))
    });
    range.map(Some).ok_or_else(|| format!("the line kubelet:{line} of /etc/subuid or /etc/subgid is wrong"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MappingRecord {
    host_id: u32,
    container_id: u32,
    length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    uid_mappings: Vec<MappingRecord>,
    gid_mappings: Vec<MappingRecord>,
}

/// The file's text for a range.
pub fn record_text(ids: PodIds) -> String {
    format!(
        r#"{{"uidMappings":[{mapping}],"gidMappings":[{mapping}]}}"#,
        mapping = format_args!(r#"{{"hostId":{},"containerId":0,"length":{}}}"#, ids.host_id, ids.length),
    )
}

/// Reads the file.
///
/// # Errors
/// In words, when it holds something that no agent writes: the host's own users must not be given to a pod.
pub fn parse_record(text: &[u8]) -> Result<PodIds, String> {
    let record: Record = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let ([uids], [gids]) = (&record.uid_mappings[..], &record.gid_mappings[..]) else {
        return Err("it must hold one mapping of users and one of groups".to_owned());
    };
    if uids != gids {
        return Err("users and groups must be mapped alike".to_owned());
    }
    let ids = PodIds { host_id: uids.host_id, length: uids.length };
    if uids.container_id != 0 || ids.length == 0 {
        return Err("the pod's user 0 must be mapped".to_owned());
    }
    if u64::from(ids.host_id) < FIRST_ID || ids.end() > ID_LIMIT {
        return Err(format!("{} numbers from {} up are not for pods", ids.length, ids.host_id));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(host_id: u32, length: u32) -> PodIds {
        PodIds { host_id, length }
    }

    #[test]
    fn the_lowest_free_range_is_given() {
        let pool = IdPool::whole(65536);
        assert_eq!(pool.pick(&[]), Ok(ids(65536, 65536)));
        assert_eq!(pool.pick(&[ids(65536, 65536), ids(196_608, 65536)]), Ok(ids(131_072, 65536)));
        // A range of another length, given under another configuration, is not touched either.
        assert_eq!(pool.pick(&[ids(65536, 131_072)]), Ok(ids(196_608, 65536)));
        let small = IdPool { first: 65536, length: 131_072, per_pod: 65536 };
        let full = [ids(65536, 65536), ids(131_072, 65536)];
        assert!(small.pick(&full).unwrap_err().to_string().contains("131072 user numbers from 65536"));
        assert_eq!(IdPool::whole(131_072).pick(&[]), Ok(ids(131_072, 131_072)));
    }

    #[test]
    fn kubelets_own_range() {
        let of = |text: &str| IdPool::of_kubelet(text, text, 65536);
        assert_eq!(of("root:1:2\n"), Ok(None));
        assert_eq!(
            of("a:1:2\nkubelet:131072:7208960\n"),
            Ok(Some(IdPool { first: 131_072, length: 7_208_960, per_pod: 65536 }))
        );
        for bad in ["kubelet:0:65536", "kubelet:65537:65536", "kubelet:65536:1", "kubelet:x:1", "kubelet:1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of("kubelet:65536:65536\nkubelet:131072:65536").is_err());
        assert!(IdPool::of_kubelet("kubelet:65536:65536", "", 65536).is_err());
    }

    #[test]
    fn the_file_is_kubelets() {
        let text = r#"{"uidMappings":[{"hostId":65536,"containerId":0,"length":65536}],"gidMappings":[{"hostId":65536,"containerId":0,"length":65536}]}"#;
        assert_eq!(record_text(ids(65536, 65536)), text);
        assert_eq!(parse_record(text.as_bytes()), Ok(ids(65536, 65536)));
        for (from, to) in [
            (r#""hostId":65536"#, r#""hostId":0"#),
            (r#""hostId":65536"#, r#""hostId":4294967295"#),
            (r#""containerId":0"#, r#""containerId":1"#),
            (r#""length":65536"#, r#""length":0"#),
            ("uidMappings", "others"),
        ] {
            assert!(parse_record(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
        let unlike = text.replacen("65536", "131072", 1);
        assert!(parse_record(unlike.as_bytes()).is_err());
        assert!(parse_record(b"").is_err());
    }

    proptest! {
        #[test]
        fn no_two_pods_share_a_number(count in 1_usize..40, removed in proptest::collection::vec(0_usize..40, 0..20)) {
            let pool = IdPool::whole(65536);
            let mut taken = Vec::new();
            for _ in 0..count {
                let next = pool.pick(&taken).unwrap();
                prop_assert!(next.host_id >= 65536);
                taken.push(next);
            }
            for index in removed {
                if index < taken.len() {
                    taken.swap_remove(index);
                }
            }
            let next = pool.pick(&taken).unwrap();
            prop_assert!(taken.iter().all(|other| !other.overlaps(next)));
            prop_assert_eq!(parse_record(record_text(next).as_bytes()), Ok(next));
        }
    }
}
