//! Detection on folders that are shaped like real nodes, and with programs, a Docker and a systemd that are told
//! what to say.

mod hostile;
mod images;
mod live;
mod pieces;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{Where, detect};
use crate::switch::facts::Facts;

/// A folder that holds a node.
pub(super) struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn put(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(super) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// A program. It is written by another process: one of the tests that starts a program at the same time would
    /// have it open for writing otherwise, and it could not be run.
    pub(super) fn program(&self, path: &str, script: &str) -> &Self {
        use std::io::Write as _;
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut shell = std::process::Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
        self
    }

    pub(super) async fn detect(&self) -> Facts {
        self.detect_with(Where::default()).await
    }

    pub(super) async fn detect_with(&self, place: Where) -> Facts {
        detect(&Where { root: Some(self.root().to_owned()), ..place }).await.unwrap()
    }

    /// A control-plane node as kubeadm 1.20 makes it of Debian packages, with Docker.
    pub(super) fn kubeadm_1_20() -> Self {
        let node = Self::new();
        node.put("/lib/systemd/system/kubelet.service", KUBELET_SERVICE)
            .put("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM_CONF)
            .put("/var/lib/kubelet/kubeadm-flags.env", KUBEADM_FLAGS)
            .put("/var/lib/kubelet/config.yaml", KUBELET_CONFIG)
            .put("/etc/kubernetes/kubelet.conf", "apiVersion: v1\nkind: Config\n")
            .put("/etc/kubernetes/manifests/etcd.yaml", &pod("etcd"))
            .put("/etc/kubernetes/manifests/kube-apiserver.yaml", &pod("kube-apiserver"))
            .put("/etc/hostname", "Master-0\n")
            .put("/lib/systemd/system/docker.service", DOCKER_SERVICE)
            .put(
                "/lib/systemd/system/docker.socket",
                "[Socket]\nListenStream=/run/docker.sock\n\n[Install]\nWantedBy=sockets.target\n",
            )
            .put("/etc/systemd/system/docker.service.d/http-proxy.conf", PROXY)
            .put("/etc/docker/daemon.json", DAEMON_JSON)
            .put("/etc/docker/certs.d/registry.example.com:5000/ca.crt", "-----BEGIN CERTIFICATE-----\n")
            .put(
                "/root/.docker/config.json",
                "{\"auths\": {\"registry.example.com:5000\": {\"auth\": \"aGlkZGVuOmhpZGRlbg==\"}}}",
            )
            .put("/lib/systemd/system/containerd.service", CONTAINERD_SERVICE)
            .put(
                "/etc/containerd/config.toml",
                "disabled_plugins = [\"cri\"]\n#root = \"/var/lib/containerd\"\n",
            )
            .put("/var/lib/dpkg/status", DPKG_STATUS)
            .put("/etc/cni/net.d/10-flannel.conflist", CONFLIST)
            .put("/etc/cni/net.d/nothing.txt", "")
            .program("/opt/cni/bin/flannel", "exit 1")
            .program("/usr/bin/kubelet", "touch /tmp/executed")
            .program("/usr/bin/dockerd", "exit 1")
            .program("/usr/bin/containerd", "exit 1")
            .link(
                "/etc/systemd/system/multi-user.target.wants/kubelet.service",
                "/lib/systemd/system/kubelet.service",
            )
            .link(
                "/etc/systemd/system/multi-user.target.wants/docker.service",
                "/lib/systemd/system/docker.service",
            )
            .link(
                "/etc/systemd/system/sockets.target.wants/docker.socket",
                "/lib/systemd/system/docker.socket",
            );
        node
    }
}

pub(super) fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: kube-system\nspec:\n  containers: []\n"
    )
}

pub(super) const KUBELET_SERVICE: &str = "[Unit]
Description=kubelet: The Kubernetes Node Agent

[Service]
ExecStart=/usr/bin/kubelet
Restart=always

[Install]
WantedBy=multi-user.target
";

pub(super) const KUBEADM_CONF: &str = r#"# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"#;

const KUBEADM_FLAGS: &str =
    "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2\"\n";

const KUBELET_CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
healthzBindAddress: 127.0.0.1
healthzPort: 10248
staticPodPath: /etc/kubernetes/manifests
";

const DOCKER_SERVICE: &str = "[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS

[Install]
WantedBy=multi-user.target
";

const PROXY: &str = "[Service]
Environment=\"HTTP_PROXY=http://user:hunter2@proxy.example.com:3128\" \"no_proxy=localhost,10.0.0.0/8\"
";

const DAEMON_JSON: &str = r#"{
  "exec-opts": ["native.cgroupdriver=systemd"],
  "registry-mirrors": ["https://mirror.example.com"],
  "data-root": "/data/docker",
  "live-restore": true,
  "proxies": {"http-proxy": "http://user:hunter2@proxy.example.com:3128"}
}
"#;

const CONTAINERD_SERVICE: &str = "[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/bin/containerd

[Install]
WantedBy=multi-user.target
";

const DPKG_STATUS: &str = "Package: kubelet
Status: hold ok installed
Version: 1.20.2-00
Description: Kubernetes Node Agent

Package: containerd.io
Status: install ok installed
Version: 1.4.13-1
Description: a runtime
 of containers

Package: docker.io
Status: deinstall ok config-files
Version: 20.10.5+dfsg1-1

Package: docker-ce
Status: install ok installed
Version: 5:20.10.24~3-0~debian-bullseye
";

const CONFLIST: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
  {"type": "flannel", "delegate": {"isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}"#;
