//! Where a pod's files are: kubelet's layout (pkg/kubelet/kubelet_getters.go), so that what looks for them
//! there finds them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use crate::{
    api::{PodExt as _, PodFullName, PodUid, ids::is_safe_path_component},
    policy::container_config::pod_log_dir_name,
};

/// The folders of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePaths {
    /// `--root-dir`.
    pub root: PathBuf,
    /// `podLogsDir`.
    pub pod_logs: PathBuf,
    /// Where links to container logs stand; log collectors read it.
    pub container_logs: PathBuf,
}

impl NodePaths {
    /// The folder of all pods.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The folder of one pod. `None` for a UID that is no safe folder name.
    pub fn pod(&self, uid: &PodUid) -> Option<PathBuf> {
        is_safe_path_component(uid.as_str()).then(|| self.pods().join(uid.as_str()))
    }

    /// The folder of an emptyDir volume.
    pub fn empty_dir(&self, uid: &PodUid, volume: &str) -> Option<PathBuf> {
        self.volume(uid, "kubernetes.io~empty-dir", volume)
    }

    /// The folder of a volume of the given kind.
    pub fn volume(&self, uid: &PodUid, plugin: &str, volume: &str) -> Option<PathBuf> {
        let pod = self.pod(uid)?;
        is_safe_path_component(volume).then(|| pod.join("volumes").join(plugin).join(volume))
    }

    /// The folder of what is kept of a container.
    pub fn container(&self, uid: &PodUid, name: &str) -> Option<PathBuf> {
        let pod = self.pod(uid)?;
        is_safe_path_component(name).then(|| pod.join("containers").join(name))
    }

    /// The mark beside an emptyDir volume that says that it is whole, where kubelet has it.
    pub fn empty_dir_mark(&self, uid: &PodUid, volume: &str) -> Option<PathBuf> {
        let pod = self.pod(uid)?;
        let folder = pod.join("plugins/kubernetes.io~empty-dir").join(volume);
        is_safe_path_component(volume).then(|| folder.join("ready"))
    }

    /// Where a part of a volume is mounted for a container's mount of that place in its list.
    pub fn volume_sub_path(
        &self,
        uid: &PodUid,
        volume: &str,
        container: &str,
        index: usize,
    ) -> Option<PathBuf> {
        let safe = is_safe_path_component(volume) && is_safe_path_component(container);
        let folder = self.pod(uid)?.join("volume-subpaths").join(volume).join(container);
        safe.then(|| folder.join(index.to_string()))
    }

    /// A pod's log folder.
    pub fn pod_log(&self, pod: &Pod) -> PathBuf {
        self.pod_log_of(&pod.full_name(), &pod.uid())
    }

    /// The same of a pod that is known by its name and UID alone.
    pub fn pod_log_of(&self, name: &PodFullName, uid: &PodUid) -> PathBuf {
        self.pod_logs.join(pod_log_dir_name(name, uid))
    }

    /// The checkpoints of pods.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("nodectl/pods")
    }

    /// The link to a container's log: `pod_namespace_container-id.log`, cut so that it fits a file name, as
    /// kubelet has it (pkg/kubelet/kuberuntime/legacy.go).
    pub fn container_log_link(&self, pod: &PodFullName, container: &str, id: &str) -> PathBuf {
        const MAX_STEM: usize = 251;
        let mut stem = format!("{}_{}_{container}", pod.name, pod.namespace);
        let room = MAX_STEM.saturating_sub(id.len() + 1);
        stem.truncate(room.min(stem.len()));
        self.container_logs.join(format!("{stem}-{id}.log"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn paths() -> NodePaths {
        NodePaths {
            root: "/r".into(),
            pod_logs: "/var/log/pods".into(),
            container_logs: "/var/log/containers".into(),
        }
    }

    #[test]
    fn kubelets_layout() {
        let uid = PodUid::from("u-1");
        assert_eq!(
            paths().empty_dir(&uid, "data").unwrap(),
            Path::new("/r/pods/u-1/volumes/kubernetes.io~empty-dir/data")
        );
        assert_eq!(paths().container(&uid, "c").unwrap(), Path::new("/r/pods/u-1/containers/c"));
        assert_eq!(
            paths().empty_dir_mark(&uid, "data").unwrap(),
            Path::new("/r/pods/u-1/plugins/kubernetes.io~empty-dir/data/ready")
        );
        assert_eq!(
            paths().volume_sub_path(&uid, "data", "c", 3).unwrap(),
            Path::new("/r/pods/u-1/volume-subpaths/data/c/3")
        );
        let link = paths().container_log_link(&PodFullName::new("ns", "pod"), "c", "0123");
        assert_eq!(link, Path::new("/var/log/containers/pod_ns_c-0123.log"));
        let long = paths().container_log_link(&PodFullName::new("ns", "p".repeat(300)), "c", &"0".repeat(64));
        assert_eq!(long.file_name().unwrap().len(), 251 + ".log".len());
    }

    #[test]
    fn a_bad_name_has_no_folder() {
        assert_eq!(paths().pod(&"../etc".into()), None);
        assert_eq!(paths().empty_dir(&"u".into(), "../../x"), None);
        assert_eq!(paths().container(&"u".into(), ".."), None);
        assert_eq!(paths().empty_dir_mark(&"u".into(), ".."), None);
        assert_eq!(paths().volume_sub_path(&"u".into(), "v", "..", 0), None);
    }
}
