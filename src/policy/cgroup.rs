//! Where a pod's cgroup stands: kubelet's names (pkg/kubelet/cm/cgroup_manager_linux.go and
//! qos_container_manager_linux.go), so that what reads a node's cgroups finds pods where it expects them.

use k8s_openapi::api::core::v1::Pod;

use super::qos::{QosClass, qos_class};
use crate::{
    api::{PodExt, PodUid},
    config::CgroupDriver,
};

/// The node's cgroup settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupLayout {
    /// Who makes cgroups.
    pub driver: CgroupDriver,
    /// `cgroupRoot`: the cgroup over `kubepods`; empty or `/` for the root.
    pub root: String,
    /// `cgroupsPerQOS`: whether pods have cgroups of their own.
    pub per_qos: bool,
}

impl CgroupLayout {
    /// The cgroup to ask the runtime to put the pod's sandbox and containers under. Empty where pods have no
    /// cgroups of their own.
    pub fn pod_parent(&self, pod: &Pod) -> String {
        self.pod_path(&pod.uid(), qos_class(pod))
    }

    /// The three cgroups that a pod's may be, whatever its class: what is looked at when a pod is gone.
    pub fn pod_candidates(&self, uid: &PodUid) -> [String; 3] {
        [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort].map(|qos| self.pod_path(uid, qos))
    }

    /// The cgroup over a class's pods; that of Guaranteed pods is the one over all.
    pub fn class_path(&self, qos: QosClass) -> String {
        self.path(qos, None)
    }

    /// Whether a cgroup right below a class's, of that name, is a pod's, and if so which: the pod's UID, in
    /// which with systemd a `_` may stand for a `-`.
    pub fn is_pod(&self, name: &str) -> Option<PodUid> {
        let name = match self.driver {
            CgroupDriver::Cgroupfs => name.strip_prefix("pod")?,
            CgroupDriver::Systemd => name.strip_suffix(".slice")?.rsplit('-').next()?.strip_prefix("pod")?,
        };
        (!name.is_empty()).then(|| PodUid::from(name))
    }

    /// A UID as it stands in a cgroup's name: what [`CgroupLayout::is_pod`] answers.
    pub fn uid_in_name(&self, uid: &PodUid) -> PodUid {
        match self.driver {
            CgroupDriver::Cgroupfs => uid.clone(),
            CgroupDriver::Systemd => PodUid::from(uid.as_str().replace('-', "_")),
        }
    }

    fn pod_path(&self, uid: &PodUid, qos: QosClass) -> String {
        if !self.per_qos {
            return match self.root.as_str() {
                "/" => String::new(),
                root => root.to_owned(),
            };
        }
        self.path(qos, Some(uid))
    }

    fn path(&self, qos: QosClass, uid: Option<&PodUid>) -> String {
        let class = match qos {
            QosClass::Guaranteed => None,
            QosClass::Burstable => Some("burstable"),
            QosClass::BestEffort => Some("besteffort"),
        };
        let root = self.root.split('/').filter(|part| !part.is_empty());
        match self.driver {
            CgroupDriver::Cgroupfs => {
                let mut parts: Vec<String> = root.map(str::to_owned).collect();
                parts.push("kubepods".to_owned());
                parts.extend(class.map(str::to_owned));
                parts.extend(uid.map(|uid| format!("pod{uid}")));
                format!("/{}", parts.join("/"))
            }
            CgroupDriver::Systemd => {
                // A dash in a slice's name parts it from its parent, so a name may hold none itself.
                let mut parts: Vec<String> =
                    root.map(|part| part.trim_end_matches(".slice").replace('-', "_")).collect();
                parts.push("kubepods".to_owned());
                parts.extend(class.map(str::to_owned));
                parts.extend(uid.map(|uid| format!("pod{}", self.uid_in_name(uid))));
                let slices: Vec<String> =
                    (1..=parts.len()).map(|n| format!("{}.slice", parts[..n].join("-"))).collect();
                format!("/{}", slices.join("/"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing;

    fn layout(driver: CgroupDriver, root: &str) -> CgroupLayout {
        CgroupLayout { driver, root: root.into(), per_qos: true }
    }

    #[test]
    fn kubelets_names() {
        let mut pod = testing::pod(&["a"]);
        pod.metadata.uid = Some("12-34".into());
        assert_eq!(layout(CgroupDriver::Cgroupfs, "/").pod_parent(&pod), "/kubepods/besteffort/pod12-34");
        assert_eq!(
            layout(CgroupDriver::Systemd, "").pod_parent(&pod),
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12_34.slice"
        );
        let [guaranteed, burstable, _] = layout(CgroupDriver::Cgroupfs, "/demo").pod_candidates(&pod.uid());
        assert_eq!(guaranteed, "/demo/kubepods/pod12-34");
        assert_eq!(burstable, "/demo/kubepods/burstable/pod12-34");
    }

    #[test]
    fn a_root_is_a_slice_of_its_own() {
        let pod = testing::pod(&["a"]);
        assert_eq!(
            layout(CgroupDriver::Systemd, "/my-root.slice").pod_parent(&pod),
            "/my_root.slice/my_root-kubepods.slice/my_root-kubepods-besteffort.slice/\
             my_root-kubepods-besteffort-podu.slice"
        );
    }

    #[test]
    fn a_pods_cgroup_is_known_by_its_name() {
        let pod = testing::pod(&["a"]);
        for driver in [CgroupDriver::Cgroupfs, CgroupDriver::Systemd] {
            let layout = layout(driver, "/x");
            let uid = PodUid::from("1-2_3");
            for path in layout.pod_candidates(&uid) {
                let name = path.rsplit('/').next().unwrap();
                assert_eq!(layout.is_pod(name), Some(layout.uid_in_name(&uid)), "{path}");
            }
            for qos in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
                let class = layout.class_path(qos);
                assert_eq!(layout.is_pod(class.rsplit('/').next().unwrap()), None, "{class}");
            }
            assert_eq!(layout.is_pod("cgroup.procs"), None);
            assert!(layout.pod_parent(&pod).starts_with(&layout.class_path(QosClass::BestEffort)));
        }
    }

    #[test]
    fn without_pod_cgroups_the_root_is_the_parent() {
        let pod = testing::pod(&["a"]);
        for (root, expected) in [("/", ""), ("", ""), ("/x", "/x")] {
            let layout = CgroupLayout { per_qos: false, ..layout(CgroupDriver::Cgroupfs, root) };
            assert_eq!(layout.pod_parent(&pod), expected);
        }
    }
}
