//! Folders that hold a node.

use std::path::{Path, PathBuf};

use super::{KUBEADM_CONF, KUBELET_SERVICE, Node, pod};
use crate::switch::{
    containerd::Release,
    detect::Where,
    facts::{RuntimeKind, UnitFacts},
};

#[tokio::test]
async fn a_node_of_kubeadm_1_20_with_docker() {
    let node = Node::kubeadm_1_20();
    let facts = node.detect().await;
    assert_eq!(facts.problems, Vec::<String>::new());
    assert_eq!((facts.node_name.as_str(), facts.root.as_deref()), ("master-0", Some(node.root())));
    assert_eq!(
        (facts.cgroup_version, facts.init.name.as_str(), facts.oom_score_restricted),
        (None, "", false)
    );

    let kubelet = facts.kubelet.as_ref().unwrap();
    assert_eq!((kubelet.version.as_deref(), kubelet.minor), (Some("v1.20.2"), Some(20)));
    assert_eq!(kubelet.program.as_deref(), Some(Path::new("/usr/bin/kubelet")));
    assert_eq!((kubelet.runtime, kubelet.endpoint.as_deref()), (RuntimeKind::Docker, None));
    assert_eq!(kubelet.cgroup_driver, "systemd");
    assert_eq!(kubelet.config_file.as_deref(), Some(Path::new("/var/lib/kubelet/config.yaml")));
    assert_eq!(kubelet.kubeconfig.as_deref(), Some(Path::new("/etc/kubernetes/kubelet.conf")));
    assert_eq!(kubelet.healthz.as_deref(), Some("127.0.0.1:10248"));
    assert_eq!(kubelet.root_dir, Path::new("/var/lib/kubelet"));
    assert_eq!(kubelet.static_pods, ["kube-system/etcd-master-0", "kube-system/kube-apiserver-master-0"]);
    let arguments: Vec<(&str, &str)> = kubelet
        .arguments
        .iter()
        .map(|argument| (argument.text.as_str(), argument.file.as_ref().unwrap().to_str().unwrap()))
        .collect();
    let conf = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
    assert_eq!(
        arguments,
        [
            ("--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf", conf),
            ("--kubeconfig=/etc/kubernetes/kubelet.conf", conf),
            ("--config=/var/lib/kubelet/config.yaml", conf),
            ("--network-plugin=cni", "/var/lib/kubelet/kubeadm-flags.env"),
            ("--pod-infra-container-image=k8s.gcr.io/pause:3.2", "/var/lib/kubelet/kubeadm-flags.env"),
        ]
    );

    let docker = facts.docker.as_ref().unwrap();
    assert_eq!(docker.version.as_deref(), Some("20.10.24"));
    assert_eq!((docker.socket.as_path(), docker.answers), (Path::new("/run/docker.sock"), false));
    assert_eq!((docker.cgroup_driver.as_deref(), docker.live_restore), (Some("systemd"), true));
    assert_eq!(docker.data_root, Path::new("/data/docker"));
    assert_eq!(docker.arguments, ["-H", "fd://", "--containerd=/run/containerd/containerd.sock"]);
    assert_eq!(docker.daemon["registry-mirrors"][0], "https://mirror.example.com");
    assert_eq!(docker.proxies["HTTP_PROXY"], "http://user:hunter2@proxy.example.com:3128");
    assert_eq!(docker.proxies["no_proxy"], "localhost,10.0.0.0/8");
    assert_eq!(docker.certificates["registry.example.com:5000"], ["ca.crt"]);
    assert_eq!(docker.logins[Path::new("/root/.docker/config.json")], ["registry.example.com:5000"]);

    let containerd = facts.containerd.as_ref().unwrap();
    assert_eq!(containerd.version.as_deref(), Some("1.4.13"));
    assert_eq!(containerd.release, Some(Release { major: 1, minor: 4 }));
    assert_eq!(containerd.socket, Path::new("/run/containerd/containerd.sock"));
    assert_eq!(containerd.config_files, [PathBuf::from("/etc/containerd/config.toml")]);
    assert_eq!((containerd.default_config.as_deref(), containerd.cri_answers), (None, false));

    let unit = facts.unit("kubelet.service");
    assert!(unit.exists() && unit.is_enabled() && !unit.runs());
    assert_eq!(unit.drop_ins, [PathBuf::from(conf)]);
    assert!(facts.unit("docker.socket").is_enabled());
    assert_eq!(facts.unit("containerd.service").enabled, "disabled");
    assert!(!facts.unit("cri-docker.service").exists());
    assert_eq!(facts.units.len(), 7);

    assert_eq!(facts.cni.configs, ["10-flannel.conflist"]);
    assert_eq!(facts.cni.bin_dirs, [PathBuf::from("/opt/cni/bin")]);
    assert_eq!(facts.cni.missing_plugins, ["portmap"]);
    let disks: Vec<&Path> = facts.disks.iter().map(|disk| disk.path.as_path()).collect();
    assert_eq!(disks, ["/data/docker", "/var/lib/containerd", "/var/lib/nodectl"].map(Path::new));
    assert!(facts.disks.iter().all(|disk| disk.total > 0));
    assert_eq!(facts.tools["kubelet"].as_deref(), Some(Path::new("/usr/bin/kubelet")));
    assert_eq!(facts.tools["ctr"], None);

    for path in [
        "/etc/containerd/config.toml",
        "/lib/systemd/system/kubelet.service",
        conf,
        "/var/lib/kubelet/kubeadm-flags.env",
        "/var/lib/kubelet/config.yaml",
        "/etc/docker/daemon.json",
        "/etc/systemd/system/docker.service.d/http-proxy.conf",
    ] {
        let text = std::fs::read_to_string(node.path(path)).unwrap();
        assert_eq!(facts.text(path), Some(text.as_str()), "{path}");
    }
    assert_eq!(facts.text("/etc/crictl.yaml"), None);
    assert_eq!(facts.text("/root/.docker/config.json"), None);
}

#[tokio::test]
async fn what_is_printed_has_neither_texts_nor_passwords() {
    let node = Node::kubeadm_1_20();
    node.put("/etc/default/docker", "DOCKER_OPTS=--http-proxy=http://user:hunter2@other.example.com/\n");
    node.put(
        "/etc/default/kubelet",
        "KUBELET_EXTRA_ARGS=--manifest-url=https://user:hunter2@x/y --manifest-url-header=X-Key:hunter2\n",
    );
    let facts = node.detect().await;
    assert!(facts.text("/etc/docker/daemon.json").unwrap().contains("hunter2"));
    assert_eq!(
        facts.docker.as_ref().unwrap().proxies["HTTP_PROXY"],
        "http://user:hunter2@other.example.com/"
    );
    let printed = serde_json::to_string(&facts).unwrap();
    for secret in ["hunter2", "aGlkZGVu", "BEGIN CERTIFICATE", "ExecStart", "disabled_plugins"] {
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
    for told in [
        "--http-proxy=http://***@other.example.com/",
        "--manifest-url=https://***@x/y",
        "--manifest-url-header=***",
        "registry.example.com:5000",
        "\"nodeName\":\"master-0\"",
        "\"runtime\":\"docker\"",
    ] {
        assert!(printed.contains(told), "{told}: {printed}");
    }
}

#[tokio::test]
async fn a_packaged_drop_in_and_containerd_2() {
    let node = Node::new();
    node.put("/usr/lib/systemd/system/kubelet.service", KUBELET_SERVICE)
        .put("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM_CONF)
        .put("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--hostname-override=Worker-1 --config-dir=/etc/kubernetes/kubelet.d\n")
        .put("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"\"\n")
        .put("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncgroupDriver: systemd\nhealthzPort: 0\nstaticPodPath: manifests\n")
        .put("/etc/kubernetes/kubelet.d/20-site.conf", "{\"kind\": \"KubeletConfiguration\", \"cgroupDriver\": \"cgroupfs\"}")
        .put("/var/lib/kubelet/instance-config.yaml", "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
        .put("/var/lib/kubelet/manifests/x.json", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"x\"}, \"spec\": {\"newInFuture\": 1}}")
        .put("/usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/local/bin/containerd --config /etc/cd/config.toml\n")
        .put("/etc/cd/config.toml", "version = 3\nroot = '/data/containerd'\nimports = ['conf.d/*.toml', 'last.toml']\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/cd/certs.d:/etc/docker/certs.d'\n")
        .put("/etc/cd/conf.d/b.toml", "[grpc]\naddress = '/run/cd.sock'\n")
        .put("/etc/cd/conf.d/a.toml", "imports = ['../deeper.toml', '/etc/cd/config.toml']\n")
        .put("/etc/cd/conf.d/a.toml.bak", "no = 'file'\n")
        .put("/etc/cd/last.toml", "")
        .put("/etc/cd/deeper.toml", "# deeper\n")
        .put("/etc/cd/certs.d/docker.io/hosts.toml", "server = 'https://docker.io'\n");
    let facts = node
        .detect_with(Where {
            kubelet_version: Some("v1.28.2".to_owned()),
            containerd_version: Some("2.1.4".to_owned()),
            ..Where::default()
        })
        .await;
    assert_eq!(facts.problems, Vec::<String>::new());
    let kubelet = facts.kubelet.as_ref().unwrap();
    assert_eq!((kubelet.runtime, kubelet.minor), (RuntimeKind::Containerd, Some(28)));
    assert_eq!(kubelet.endpoint.as_deref(), Some("unix:///run/containerd/containerd.sock"));
    assert_eq!((kubelet.cgroup_driver.as_str(), kubelet.healthz.as_deref()), ("cgroupfs", None));
    assert_eq!(
        facts.unit("kubelet.service").drop_ins,
        [PathBuf::from("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf")]
    );
    assert_eq!(kubelet.static_pod_path.as_deref(), Some(Path::new("/var/lib/kubelet/manifests")));
    assert_eq!(kubelet.static_pods, ["default/x-worker-1"]);
    assert_eq!(kubelet.instance_config.as_deref(), Some(Path::new("/var/lib/kubelet/instance-config.yaml")));
    assert!(facts.text("/etc/kubernetes/kubelet.d/20-site.conf").is_some());
    let containerd = facts.containerd.as_ref().unwrap();
    assert_eq!(containerd.release, Some(Release { major: 2, minor: 1 }));
    let order = ["config.toml", "conf.d/a.toml", "conf.d/b.toml", "last.toml", "deeper.toml"];
    assert_eq!(containerd.config_files, order.map(|name| Path::new("/etc/cd").join(name)));
    assert_eq!(containerd.config, Path::new("/etc/cd/config.toml"));
    assert_eq!(
        (containerd.socket.as_path(), containerd.data_root.as_path()),
        (Path::new("/run/cd.sock"), Path::new("/data/containerd"))
    );
    assert!(facts.text("/etc/cd/certs.d/docker.io/hosts.toml").is_some());
    assert!(facts.docker.is_none());
}

#[tokio::test]
async fn a_node_of_rpm_packages_with_cri_dockerd() {
    let node = Node::new();
    let conf = KUBEADM_CONF.replace("/etc/default/kubelet", "/etc/sysconfig/kubelet");
    node.put("/usr/lib/systemd/system/kubelet.service", KUBELET_SERVICE)
        .put("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", &conf)
        .put("/etc/sysconfig/kubelet", "KUBELET_EXTRA_ARGS=\n")
        .put("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/shim.sock\"\n")
        .put("/usr/lib/systemd/system/cri-docker.service", "[Service]\nExecStart=/usr/bin/cri-dockerd --container-runtime-endpoint unix:///var/run/shim.sock --network-plugin=cni --cni-bin-dir=/opt/x,/opt/y\n")
        .put("/usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd -H unix:///srv/docker.sock --exec-opt native.cgroupdriver=cgroupfs -g /srv/docker\n")
        .put("/var/lib/rpm/rpmdb.sqlite", "SQLite format 3");
    let facts = node.detect().await;
    let kubelet = facts.kubelet.as_ref().unwrap();
    assert_eq!((kubelet.runtime, kubelet.version.as_deref()), (RuntimeKind::CriDockerd, None));
    assert_eq!(kubelet.cgroup_driver, "cgroupfs");
    assert_eq!(facts.cni.bin_dirs, [PathBuf::from("/opt/x"), PathBuf::from("/opt/y")]);
    assert!(facts.text("/etc/sysconfig/kubelet").is_some());
    let docker = facts.docker.as_ref().unwrap();
    assert_eq!(
        (docker.socket.as_path(), docker.data_root.as_path()),
        (Path::new("/srv/docker.sock"), Path::new("/srv/docker"))
    );
    assert_eq!(docker.cgroup_driver.as_deref(), Some("cgroupfs"));
    let said = facts.problems.join("\n");
    assert!(
        said.contains("the version of kubelet is not known: /var/lib/rpm/rpmdb.sqlite is RPM's to read: "),
        "{said}"
    );
    assert!(said.contains("; say it with --kubelet-version"), "{said}");
    assert!(said.contains("the node's name is not known"), "{said}");
}

#[tokio::test]
async fn an_empty_folder_is_a_node_without_anything() {
    let facts = Node::new().detect().await;
    assert!(facts.docker.is_none() && facts.containerd.is_none() && facts.kubelet.is_none());
    let absent = UnitFacts { load: "not-found".to_owned(), ..UnitFacts::default() };
    assert!(facts.units.values().all(|unit| *unit == absent));
    assert!(facts.files.is_empty());
}

#[tokio::test]
async fn without_a_version_an_endpoint_or_its_absence_tells_the_runtime() {
    for (flags, docker, expected) in [
        (
            "--container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock",
            true,
            RuntimeKind::Containerd,
        ),
        ("--container-runtime-endpoint=unix:///var/run/crio/crio.sock", true, RuntimeKind::Other),
        ("--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock", true, RuntimeKind::CriDockerd),
        ("--container-runtime=docker", false, RuntimeKind::Docker),
        ("", true, RuntimeKind::Docker),
        ("", false, RuntimeKind::Containerd),
    ] {
        let node = Node::new();
        node.put(
            "/etc/systemd/system/kubelet.service",
            &format!("[Service]\nExecStart=/usr/bin/kubelet {flags}\n"),
        );
        if docker {
            node.put("/etc/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd\n");
        }
        let facts = node.detect().await;
        assert_eq!(facts.kubelet.unwrap().runtime, expected, "{flags} {docker}");
        assert_eq!(facts.problems.iter().any(|p| p.contains("with Docker is not known")), flags.is_empty());
    }
}

#[tokio::test]
async fn images_that_static_pods_name_by_digest_are_found() {
    let node = Node::kubeadm_1_20();
    let containers = "spec:\n  initContainers: [{name: a, image: \"b/c@sha256:1\"}]\n  containers:\n  - image: d:1\n  - image: a@sha256:2\n  - {}\n";
    let text = |name: &str| pod(name).replace("spec:\n  containers: []\n", containers);
    node.put("/etc/kubernetes/manifests/x.yaml", &text("x"))
        .put("/etc/kubernetes/manifests/z.yaml", &text("z"));
    let kubelet = node.detect().await.kubelet.unwrap();
    assert_eq!(kubelet.images_by_digest, ["a@sha256:2", "b/c@sha256:1"]);
    assert_eq!(kubelet.static_pods.len(), 4);
}

#[tokio::test]
async fn a_broken_manifest_is_told_and_the_others_are_found() {
    let node = Node::kubeadm_1_20();
    node.put("/etc/kubernetes/manifests/broken.yaml", "kind: [")
        .put("/etc/kubernetes/manifests/deployment.yaml", "kind: Deployment\n")
        .put("/etc/kubernetes/manifests/.hidden.yaml", &pod("hidden"));
    std::fs::create_dir(node.path("/etc/kubernetes/manifests/old")).unwrap();
    let facts = node.detect().await;
    assert_eq!(facts.kubelet.unwrap().static_pods.len(), 2);
    assert_eq!(facts.problems.len(), 2, "{:?}", facts.problems);
    assert!(facts.problems[0].contains("/etc/kubernetes/manifests/broken.yaml"));
    assert!(facts.problems[1].contains("its kind is not Pod"));
}
