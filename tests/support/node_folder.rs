//! Folders that are shaped like the root of a node, for `--root`: the files that packages and kubeadm leave, and
//! programs that leave a trace if anybody runs them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine_files::{Files, below};
use super::said::Said;

/// Where the changes of a node are kept.
pub(crate) const STATE: &str = "/var/lib/nodectl/switch";

/// A folder that holds a node, beside one that is none of its business.
pub(crate) struct NodeFolder {
    folder: tempfile::TempDir,
}

impl NodeFolder {
    /// An empty one.
    pub(crate) fn empty() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["root", "outside"] {
            fs::create_dir(node.folder.path().join(name)).unwrap();
        }
        node
    }

    /// The node's root.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A folder on the machine, which the node has nothing to do with.
    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// Where a path of the node is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// A file.
    pub(crate) fn put(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A link, with its target as it stands in it.
    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// A file's text.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Programs of a node. Whoever runs one is found out by [`Self::traces`].
    fn programs(&self, folder: &str, names: &[&str]) {
        for name in names {
            let path = format!("{folder}/{name}");
            let traces = self.folder.path().join("traces");
            self.put(&path, &format!("#!/bin/sh\necho {name} >>{}\n", traces.display()));
            fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// What was run of it.
    pub(crate) fn traces(&self) -> String {
        fs::read_to_string(self.folder.path().join("traces")).unwrap_or_default()
    }

    /// All its files but for the state of changes.
    pub(crate) fn files(&self) -> Files {
        let mut files = below(&self.root(), "/var/lib/nodectl");
        // Folders on the way there, which may have been missing.
        files.retain(|path, _| {
            ![Path::new("/"), Path::new("/var"), Path::new("/var/lib")].contains(&path.as_path())
        });
        files
    }

    /// The command for it. Its programs come first where programs are looked for.
    fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let words = [before, &[env!("CARGO_BIN_EXE_nodectl"), "switch-runtime"], arguments].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--root").arg(self.root());
        let own = format!("{0}/usr/local/bin:{0}/usr/bin:{0}/usr/sbin", self.root().display());
        let path = std::env::var("PATH").unwrap_or_default();
        // strace itself is the machine's.
        command.env("PATH", if before.is_empty() { format!("{own}:{path}") } else { path });
        command.stdin(std::process::Stdio::null());
        command
    }

    /// `nodectl switch-runtime --root` of it.
    #[track_caller]
    pub(crate) fn switch(&self, arguments: &[&str]) -> Said {
        Said::of(&self.command(&[], arguments).output().unwrap())
    }

    /// The same, killed at its so-manieth write of the journal.
    #[track_caller]
    pub(crate) fn killed(&self, at: usize, arguments: &[&str]) -> Said {
        let inject = format!("inject=fdatasync:signal=SIGKILL:when={at}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
        Said::of(&self.command(&strace, arguments).output().unwrap())
    }

    /// The same, with all programs that it starts, itself included.
    #[track_caller]
    pub(crate) fn starts(&self, arguments: &[&str]) -> (Said, Vec<String>) {
        let log = self.folder.path().join("execve");
        let strace = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", "trace=execve,execveat"];
        let said = Said::of(&self.command(&strace, arguments).output().unwrap());
        let log = fs::read_to_string(log).unwrap();
        (said, log.lines().filter(|line| line.contains("exec")).map(str::to_owned).collect())
    }

    /// What of the change itself is left in it besides its state.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let ours = |path: &PathBuf| path.to_string_lossy().ends_with(".nodectl");
        self.files().into_keys().filter(ours).collect()
    }

    /// A node of Debian packages, made by kubeadm 1.20, on Docker, with settings of its own.
    pub(crate) fn debian() -> Self {
        let node = Self::empty();
        node.put("/lib/systemd/system/kubelet.service", KUBELET_SERVICE)
            .put("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", &kubeadm_conf("default"))
            .put("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.7\n")
            .put(
                "/var/lib/kubelet/kubeadm-flags.env",
                "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2\"\n",
            )
            .put("/var/lib/kubelet/config.yaml", &kubelet_config("cgroupfs"))
            .put("/etc/kubernetes/manifests/etcd.yaml", POD)
            .put("/etc/hostname", "master-0\n")
            .put("/lib/systemd/system/docker.service", DOCKER_SERVICE)
            .put("/lib/systemd/system/docker.socket", "[Socket]\nListenStream=/run/docker.sock\n")
            .put(
                "/etc/systemd/system/docker.service.d/http-proxy.conf",
                "[Service]\nEnvironment=\"HTTP_PROXY=http://user:hunter2@proxy.example.com:3128\"\n",
            )
            .put("/etc/docker/daemon.json", DAEMON_JSON)
            .put("/etc/docker/certs.d/registry.example.com:5000/ca.crt", "-----BEGIN CERTIFICATE-----\n")
            .put("/lib/systemd/system/containerd.service", CONTAINERD_SERVICE)
            .put("/etc/containerd/config.toml", "# Docker's.\ndisabled_plugins = [\"cri\"]\n#root = \"/x\"\n")
            .put("/var/lib/dpkg/status", DPKG_STATUS)
            .link("/var/run", "/run")
            .link("/etc/systemd/system/multi-user.target.wants/docker.service", "/lib/systemd/system/docker.service");
        node.programs(
            "/usr/bin",
            &["kubelet", "dockerd", "docker", "containerd", "ctr", "runc", "systemctl"],
        );
        node.programs("/usr/sbin", &["iptables"]);
        fs::set_permissions(node.path("/var/lib/kubelet/config.yaml"), fs::Permissions::from_mode(0o640))
            .unwrap();
        std::os::unix::fs::chown(node.path("/etc/containerd/config.toml"), Some(7), Some(8)).unwrap();
        node
    }

    /// A node of the packages of pkgs.k8s.io, kubeadm 1.28, on cri-dockerd. It has no package database.
    pub(crate) fn packaged() -> Self {
        let node = Self::empty();
        node.put("/usr/lib/systemd/system/kubelet.service", KUBELET_SERVICE)
            .put("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", &kubeadm_conf("default"))
            .put(
                "/var/lib/kubelet/kubeadm-flags.env",
                "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock --pod-infra-container-image=registry.k8s.io/pause:3.9\"\n",
            )
            .put("/var/lib/kubelet/config.yaml", &kubelet_config("systemd"))
            .put("/usr/lib/systemd/system/docker.service", DOCKER_SERVICE)
            .put(
                "/usr/lib/systemd/system/cri-docker.service",
                "[Service]\nExecStart=/usr/bin/cri-dockerd --container-runtime-endpoint fd://\n",
            )
            .put("/usr/lib/systemd/system/containerd.service", CONTAINERD_SERVICE)
            .put("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n")
            .put("/etc/hostname", "worker-1\n");
        node.programs("/usr/bin", &["kubelet", "dockerd", "cri-dockerd", "containerd", "ctr", "crictl"]);
        node
    }

    /// A node of RPM packages, kubeadm 1.23, on Docker. Only rpm reads its package database.
    pub(crate) fn rpm() -> Self {
        let node = Self::empty();
        node.put("/usr/lib/systemd/system/kubelet.service", KUBELET_SERVICE)
            .put("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", &kubeadm_conf("sysconfig"))
            .put(
                "/etc/sysconfig/kubelet",
                "# Ours.\nKUBELET_EXTRA_ARGS=\"--container-runtime=docker --v=2\"\n",
            )
            .put("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni\"\n")
            .put("/var/lib/kubelet/config.yaml", &kubelet_config("systemd"))
            .put("/usr/lib/systemd/system/docker.service", DOCKER_SERVICE)
            .put("/usr/lib/systemd/system/containerd.service", CONTAINERD_SERVICE)
            .put("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n")
            .put("/var/lib/rpm/rpmdb.sqlite", "SQLite format 3")
            .put("/etc/hostname", "node-2\n");
        node.programs("/usr/bin", &["kubelet", "dockerd", "containerd", "ctr", "rpm"]);
        node
    }
}

fn kubeadm_conf(folder: &str) -> String {
    format!(
        r#"# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/{folder}/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"#
    )
}

fn kubelet_config(driver: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n# Ours.\ncgroupDriver: {driver}\n\
         staticPodPath: /etc/kubernetes/manifests\n"
    )
}

const KUBELET_SERVICE: &str = "[Unit]\nDescription=kubelet: The Kubernetes Node Agent\n\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n\n\
     [Install]\nWantedBy=multi-user.target\n";
const DOCKER_SERVICE: &str =
    "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n\n[Install]\nWantedBy=multi-user.target\n";
const CONTAINERD_SERVICE: &str =
    "[Service]\nExecStart=/usr/bin/containerd\n\n[Install]\nWantedBy=multi-user.target\n";
const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: etcd\n  namespace: kube-system\nspec:\n  containers: []\n";
const DAEMON_JSON: &str = r#"{
  "registry-mirrors": ["https://mirror.example.com"],
  "insecure-registries": ["r.example.com:5000", "10.0.0.0/8"],
  "log-opts": {"max-size": "7m", "max-file": "4"}
}
"#;
const DPKG_STATUS: &str = "Package: kubelet
Status: hold ok installed
Version: 1.20.2-00

Package: containerd.io
Status: install ok installed
Version: 1.6.33-1
Description: a runtime
 of containers

Package: docker-ce
Status: install ok installed
Version: 5:20.10.24~3-0~debian-bullseye
";
