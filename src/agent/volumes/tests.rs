//! Mounts of containers, and what is left of them.

#![allow(clippy::needless_pass_by_value, reason = "values are written where they are passed")]

use std::os::unix::fs::symlink;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::json;

use super::*;
use crate::host::mounts as host_mounts;

pub(super) const MOUNTINFO: &str = "/proc/self/mountinfo";

pub(super) fn paths(root: &Path) -> NodePaths {
    NodePaths { root: root.into(), pod_logs: root.join("logs"), container_logs: root.join("links") }
}

pub(super) fn pod(volume: Volume) -> Pod {
    let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
    pod.metadata.uid = Some("u".into());
    pod.spec.as_mut().unwrap().volumes = Some(vec![volume]);
    pod
}

/// A pod with a volume `v` that its container `c` mounts.
struct Case {
    root: tempfile::TempDir,
    pod: Pod,
    env: Vec<(String, String)>,
    can: bool,
}

impl Case {
    fn new(volume: serde_json::Value) -> Self {
        let mut all = json!({"name": "v"});
        all.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
        let root = tempfile::tempdir().unwrap();
        let pod = pod(serde_json::from_value(all).unwrap());
        Self { root, pod, env: vec![("POD".into(), "p-0".into())], can: false }
    }

    fn set_up(&self) {
        let node = NodeSettings::default();
        let paths = paths(self.root.path());
        let mountinfo = Path::new(MOUNTINFO);
        check_host_paths(&self.pod).unwrap();
        set_up(&VolumeContext {
            pod: &self.pod,
            paths: &paths,
            mountinfo,
            node: &node,
            given: &Given::default(),
        })
        .unwrap();
    }

    fn at(&self) -> PathBuf {
        self.root.path().join("pods/u/volumes/kubernetes.io~empty-dir/v")
    }

    fn place(&self) -> PathBuf {
        self.root.path().join("pods/u/volume-subpaths/v/c/0")
    }

    fn mount(&self, mount: serde_json::Value) -> Result<Mount, VolumeError> {
        let mut all = json!({"name": "v", "mountPath": "/v"});
        all.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
        let container: Container =
            serde_json::from_value(json!({"name": "c", "volumeMounts": [all]})).unwrap();
        let images =
            BTreeMap::from([("v".to_owned(), ImageSpec { image: "i".into(), ..ImageSpec::default() })]);
        let host_parts = open_host_parts(&self.pod, &container, &self.env)?;
        let made = mounts(&MountContext {
            host_parts: &host_parts,
            pod: &self.pod,
            container: &container,
            env: &self.env,
            images: &images,
            can_recursive_read_only: self.can,
            paths: &paths(self.root.path()),
            mountinfo: Path::new(MOUNTINFO),
        })?;
        let [mount] = <[Mount; 1]>::try_from(made).unwrap();
        Ok(mount)
    }

    fn unmount(&self) -> Result<(), (PathBuf, io::Error)> {
        unmount_all(&self.root.path().join("pods/u"), Path::new(MOUNTINFO))
    }

    fn points(&self) -> Vec<PathBuf> {
        host_mounts::below(Path::new(MOUNTINFO), self.root.path()).unwrap()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for point in self.points() {
            host_mounts::unmount(&point).unwrap();
        }
    }
}

#[test]
fn a_whole_volume_is_mounted_from_where_it_is() {
    let mut case = Case::new(json!({"emptyDir": {}}));
    case.set_up();
    let mount = case.mount(json!({"mountPath": "data", "readOnly": true})).unwrap();
    assert_eq!((mount.container_path.as_str(), mount.readonly), ("/data", true));
    assert_eq!(Path::new(&mount.host_path), case.at());
    assert_eq!(
        (mount.propagation(), mount.recursive_read_only),
        (MountPropagation::PropagationPrivate, false)
    );
    let mount = case.mount(json!({"mountPropagation": "HostToContainer"})).unwrap();
    assert_eq!(mount.propagation(), MountPropagation::PropagationHostToContainer);
    let mount = case.mount(json!({"mountPropagation": "Bidirectional"})).unwrap();
    assert_eq!(mount.propagation(), MountPropagation::PropagationBidirectional);
    let error = case.mount(json!({"readOnly": true, "recursiveReadOnly": "Enabled"})).unwrap_err();
    assert!(error.to_string().contains("recursiveReadOnly"), "{error}");
    case.can = true;
    assert!(
        case.mount(json!({"readOnly": true, "recursiveReadOnly": "Enabled"})).unwrap().recursive_read_only
    );
    let error = case.mount(json!({"name": "w"})).unwrap_err().to_string();
    assert_eq!(error, "container \"c\" mounts volume \"w\", which the pod does not have");
}

/// What SELinux makes of it cannot be shown on every machine: this is what the runtime is asked for.
#[test]
fn what_is_made_for_the_pod_gets_its_label_and_the_hosts_files_keep_theirs() {
    for (volume, relabel) in [
        (json!({"emptyDir": {}}), true),
        (json!({"emptyDir": {"medium": "Memory"}}), true),
        (json!({"downwardAPI": {}}), true),
        (json!({"projected": {}}), true),
        (json!({"image": {"reference": "localhost/i:1"}}), true),
        (json!({"hostPath": {"path": "/tmp"}}), false),
    ] {
        let case = Case::new(volume.clone());
        case.set_up();
        assert_eq!(case.mount(json!({})).unwrap().selinux_relabel, relabel, "{volume}");
        if volume.get("emptyDir").is_some() {
            assert!(case.mount(json!({"subPath": "a"})).unwrap().selinux_relabel, "{volume}");
            case.unmount().unwrap();
        }
    }
    let host = tempfile::tempdir().unwrap();
    let case = Case::new(json!({"hostPath": {"path": host.path()}}));
    assert!(!case.mount(json!({"subPath": "a"})).unwrap().selinux_relabel);
}

#[test]
fn an_image_is_mounted_by_the_runtime() {
    let case = Case::new(json!({"image": {"reference": "localhost/i:1"}}));
    case.set_up();
    let mount = case.mount(json!({"subPath": "etc"})).unwrap();
    assert_eq!((mount.host_path.as_str(), mount.image_sub_path.as_str(), mount.readonly), ("", "etc", true));
    assert_eq!(mount.image.unwrap().image, "i");
}

#[test]
fn a_part_is_mounted_where_no_container_reaches() {
    let case = Case::new(json!({"emptyDir": {}}));
    case.set_up();
    let mount = case.mount(json!({"subPathExpr": "logs/$(POD)"})).unwrap();
    assert_eq!(Path::new(&mount.host_path), case.place());
    fs::write(case.at().join("logs/p-0/file"), "x").unwrap();
    assert!(case.place().join("file").exists());

    // Once more, over what is there: a file now, then a folder again.
    fs::write(case.at().join("file"), "text").unwrap();
    case.mount(json!({"subPath": "file"})).unwrap();
    assert_eq!(fs::read_to_string(case.place()).unwrap(), "text");
    case.mount(json!({"subPath": "logs"})).unwrap();
    assert!(case.place().join("p-0").is_dir());
    assert_eq!(case.points(), [case.place()]);

    symlink("/etc", case.at().join("out")).unwrap();
    let error = case.mount(json!({"subPath": "out"})).unwrap_err().to_string();
    assert!(error.contains("leads out of the volume") && error.contains("\"out\""), "{error}");
    let error = case.mount(json!({"subPathExpr": "$(NONE)"})).unwrap_err().to_string();
    assert!(error.contains("missing value for NONE") && error.contains("\"c\""), "{error}");

    case.unmount().unwrap();
    assert!(case.points().is_empty());
    assert!(case.at().join("logs/p-0/file").exists());
    case.unmount().unwrap();
}

#[test]
fn only_the_pods_own_mounts_go() {
    let case = Case::new(json!({"emptyDir": {"medium": "Memory"}}));
    case.unmount().unwrap();
    case.set_up();
    case.mount(json!({"subPath": "a"})).unwrap();
    case.unmount().unwrap();
    assert!(case.points().is_empty());

    // What a privileged container left in the volume, and what somebody mounted beside.
    case.set_up();
    let (inside, beside) = (case.at().join("inside"), case.at().with_file_name("beside"));
    for folder in [&inside, &beside] {
        fs::create_dir(folder).unwrap();
    }
    host_mounts::mount_tmpfs(&inside, 0).unwrap();
    let source = fs::File::open("/etc").unwrap();
    host_mounts::bind(&source, &beside, Sharing::Private).unwrap();
    case.unmount().unwrap();
    let mut left = case.points();
    left.sort();
    assert_eq!(left, [beside, case.at(), inside]);
}
