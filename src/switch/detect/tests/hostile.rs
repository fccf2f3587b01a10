//! Folders that are not what they should be, or made to mislead.

use std::{fs, path::Path};

use super::Node;
use crate::switch::{
    detect::{DetectError, Where, detect},
    files::MAX_FILE,
    rooted::Rooted,
};

#[tokio::test]
async fn a_linked_configuration_is_read_and_its_file_is_known() {
    let node = Node::kubeadm_1_20();
    fs::remove_file(node.path("/etc/containerd/config.toml")).unwrap();
    node.put("/opt/containerd/real.toml", "version = 2\nimports = [\"/etc/containerd/self.toml\"]\n")
        .link("/etc/containerd/config.toml", "/opt/containerd/real.toml")
        .link("/etc/containerd/self.toml", "/etc/containerd/config.toml");
    let facts = node.detect().await;
    let config = Path::new("/etc/containerd/config.toml");
    assert!(facts.text(config).unwrap().starts_with("version = 2"));
    let rooted = Rooted::folder(node.root()).unwrap();
    assert_eq!(rooted.real(config).unwrap(), Path::new("/opt/containerd/real.toml"));
    assert!(facts.problems.is_empty(), "{:?}", facts.problems);
}

#[tokio::test]
async fn nothing_outside_is_read_and_nothing_inside_is_run() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "KUBELET_EXTRA_ARGS=--v=9\n").unwrap();
    let node = Node::kubeadm_1_20();
    let ran = outside.path().join("ran");
    let script = format!("touch {}", ran.display());
    for program in ["/usr/bin/kubelet", "/usr/bin/containerd", "/usr/bin/dockerd"] {
        fs::remove_file(node.path(program)).unwrap();
        node.program(program, &script);
    }
    node.link("/etc/default/kubelet", secret.to_str().unwrap())
        .link("/etc/crictl.yaml", &format!("../../../../../../..{}", secret.display()))
        .link("/etc/sysconfig", outside.path().to_str().unwrap())
        .link("/etc/containerd/certs.d", outside.path().parent().unwrap().to_str().unwrap());
    let facts = node.detect().await;
    assert!(facts.files.values().all(|text| !text.contains("--v=9")));
    assert!(!ran.exists());
    assert_eq!(facts.kubelet.unwrap().arguments.len(), 5);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_by_its_path() {
    let node = Node::kubeadm_1_20();
    node.link("/etc/crictl.yaml", "/etc/crictl.yaml")
        .put("/etc/systemd/system/containerd.service.d/bad.conf", "");
    fs::write(node.path("/etc/systemd/system/containerd.service.d/bad.conf"), b"[Service]\n# \xff\n")
        .unwrap();
    fs::File::create(node.path("/etc/docker/daemon.json")).unwrap().set_len(MAX_FILE + 1).unwrap();
    fs::write(node.path("/root/.docker/config.json"), "hunter2").unwrap();
    fs::write(node.path("/var/lib/kubelet/config.yaml"), "cgroupDriver: [\n").unwrap();
    fs::write(node.path("/etc/cni/net.d/10-flannel.conflist"), "{").unwrap();
    fs::write(node.path("/etc/containerd/config.toml"), "imports = [\"/gone.toml\"]\nroot =\n").unwrap();
    let facts = node.detect().await;
    let said = facts.problems.join("\n");
    for words in [
        "/etc/crictl.yaml: Too many levels of symbolic links",
        "containerd.service cannot be put together: /etc/systemd/system/containerd.service.d/bad.conf: is not UTF-8",
        "/etc/docker/daemon.json: has more than 4 MiB",
        "/root/.docker/config.json: is no JSON object",
        "/var/lib/kubelet/config.yaml: ",
        "/etc/cni/net.d/10-flannel.conflist: is no network configuration",
        "/etc/containerd/config.toml is not valid TOML",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("hunter2"));
    // Without these nothing can be planned; what is logged in where is no reason.
    let named = |all: &[String], words: &str| all.iter().any(|text| text.contains(words));
    let found = &facts.obstacles;
    assert!(named(&found.docker, "/etc/docker/daemon.json: has more"), "{found:?}");
    assert!(named(&found.containerd, "bad.conf: is not UTF-8"), "{found:?}");
    assert!(named(&found.kubelet, "/var/lib/kubelet/config.yaml: "), "{found:?}");
    let all = [&found.docker[..], &found.containerd, &found.kubelet].concat();
    assert!(!named(&all, "/root/.docker") && !named(&all, "crictl.yaml"), "{all:?}");
    // The rest is found all the same.
    assert_eq!(facts.kubelet.unwrap().cgroup_driver, "cgroupfs");
    assert_eq!(facts.docker.unwrap().data_root, Path::new("/var/lib/docker"));
}

#[tokio::test]
async fn masks_and_missing_imports() {
    let node = Node::kubeadm_1_20();
    node.link("/etc/systemd/system/docker.service", "/dev/null")
        .link("/etc/systemd/system/kubelet.service.d/99-off.conf", "/dev/null")
        .put(
            "/lib/systemd/system/kubelet.service.d/99-off.conf",
            "[Service]\nExecStart=\nExecStart=/bin/false\n",
        );
    fs::write(
        node.path("/etc/containerd/config.toml"),
        "version = 2\nimports = [\"/gone.toml\", \"/none/*.toml\"]\n",
    )
    .unwrap();
    let facts = node.detect().await;
    let docker = facts.unit("docker.service");
    assert_eq!((docker.load.as_str(), docker.enabled.as_str()), ("masked", "masked"));
    assert!(docker.exists() && !docker.is_enabled());
    assert_eq!(facts.kubelet.as_ref().unwrap().program.as_deref(), Some(Path::new("/usr/bin/kubelet")));
    assert_eq!(facts.problems, ["/gone.toml is imported and not there: containerd does not start so"]);
}

#[tokio::test]
async fn a_folder_that_is_none_is_an_error() {
    let node = Node::new();
    node.put("/file", "");
    for root in [node.path("/file"), node.path("/absent")] {
        let error = detect(&Where { root: Some(root.clone()), ..Where::default() }).await.unwrap_err();
        assert!(matches!(error, DetectError::Root { .. }));
        assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
    }
}
