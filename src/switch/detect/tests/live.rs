//! A node that runs: programs are asked, and so are Docker and systemd.

use std::{fs, path::Path};

use super::Node;
use crate::{
    host::systemd_tests::{FakeSystemd, FakeUnit, running},
    switch::{
        containerd::Release,
        detect::{Look, Notes, Where, detect},
        docker_tests::FakeDocker,
        facts::{Facts, PodFacts, RuntimeKind},
        rooted::Rooted,
    },
};

const VERSION: &str = r#"{"Platform":{"Name":""},"Components":[],"Version":"20.10.24+dfsg1","ApiVersion":"1.41","MinAPIVersion":"1.12","GitCommit":"5d6db84","GoVersion":"go1.19.8","Os":"linux","Arch":"amd64","KernelVersion":"6.1.0"}"#;
const INFO: &str = r#"{"ID":"7TRN:IPZB","Containers":3,"Driver":"overlay2","CgroupDriver":"systemd","CgroupVersion":"1","DockerRootDir":"/mnt/docker","LiveRestoreEnabled":false,"Name":"m","ServerVersion":"20.10.24"}"#;
const CONTAINERS: &str = r#"[
{"Id":"8dfafdbc3a40","Names":["/k8s_etcd_etcd-m_kube-system_u1_0"],"Image":"0369cf4303ff","ImageID":"sha256:0369cf4303ff","Command":"etcd","Created":1367854155,"State":"running","Status":"Up 3 hours","Ports":[],"Labels":{"io.kubernetes.container.name":"etcd","io.kubernetes.docker.type":"container","io.kubernetes.pod.name":"etcd-m","io.kubernetes.pod.namespace":"kube-system","io.kubernetes.pod.uid":"u1"},"HostConfig":{"NetworkMode":"container:9cd87474be90"},"NetworkSettings":{"Networks":{}},"Mounts":[{"Type":"bind","Source":"/var/lib/etcd","Destination":"/var/lib/etcd","Mode":"","RW":true,"Propagation":"rprivate"}]},
{"Id":"9cd87474be90","Names":["/k8s_POD_etcd-m_kube-system_u1_0"],"Image":"k8s.gcr.io/pause:3.2","ImageID":"sha256:80d28bedfe5d","State":"running","Labels":{"io.kubernetes.docker.type":"podsandbox","io.kubernetes.pod.name":"etcd-m","io.kubernetes.pod.namespace":"kube-system","io.kubernetes.pod.uid":"u1"},"Mounts":[]},
{"Id":"3176a2479c92","Names":["/ci/db","/ci"],"Image":"jenkins:2","ImageID":"sha256:111","State":"exited","Labels":null,"Mounts":[{"Type":"bind","Source":"/var/run","Destination":"/var/run"}]},
{"Id":"4cb07b47f9fb","Names":["/exporter"],"Image":"exporter","ImageID":"sha256:222","State":"paused","Labels":{},"Mounts":[{"Type":"bind","Source":"/","Destination":"/host"},{"Type":"tmpfs","Destination":"/tmp"}]}
]"#;
const IMAGES: &str = r#"[
{"Containers":-1,"Created":1599,"Id":"sha256:80d28bedfe5d","Labels":null,"ParentId":"","RepoDigests":["k8s.gcr.io/pause@sha256:927d"],"RepoTags":["k8s.gcr.io/pause:3.2"],"SharedSize":-1,"Size":682696,"VirtualSize":682696},
{"Containers":-1,"Created":1600,"Id":"sha256:0369cf4303ff","RepoDigests":["<none>@<none>"],"RepoTags":["<none>:<none>"],"Size":253392289},
{"Containers":-1,"Created":1600,"Id":"sha256:333","RepoDigests":null,"RepoTags":null,"Size":5}
]"#;

/// A node whose programs say what those of Kubernetes 1.20 do.
fn node() -> Node {
    let node = Node::kubeadm_1_20();
    let kubelet = node.path("/bin/kubelet");
    let containerd = node.path("/bin/containerd");
    // Where they are run, and where the unit is looked at.
    for inside in ["", node.root().to_str().unwrap()] {
        node.program(&format!("{inside}/bin/kubelet"), "[ \"$*\" = --version ] && echo 'Kubernetes v1.20.2'")
            .program(
                &format!("{inside}/bin/containerd"),
                "case \"$*\" in
                 --version) echo 'containerd containerd.io 1.6.9 1c90a442489720eec95342e1789ee8a5e1b9536f';;
                 'config default') echo 'version = 2';;
                 *) exit 1;;
                 esac",
            );
    }
    let service =
        fs::read_to_string(node.path("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf")).unwrap();
    let service = service.replace("/usr/bin/kubelet", kubelet.to_str().unwrap());
    node.put("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", &service).put(
        "/lib/systemd/system/containerd.service",
        &format!("[Service]\nExecStart={}\n", containerd.display()),
    );
    node
}

async fn look(node: &Node, fake: &FakeSystemd, docker: &str) -> Facts {
    let (systemd, _server) = fake.serve().await;
    let place = Where { docker_socket: Some(node.path(docker)), ..Where::default() };
    let rooted = Rooted::folder(node.root()).unwrap();
    Look { place: &place, rooted, live: true, rpm: tokio::sync::OnceCell::new() }
        .all(Some(&systemd), Notes::default())
        .await
}

#[tokio::test]
async fn a_node_that_runs_docker() {
    let node = node();
    let fake = FakeSystemd::default()
        .with("kubelet.service", running("/lib/systemd/system/kubelet.service"))
        .with("docker.service", running("/lib/systemd/system/docker.service"))
        .with("docker.socket", running("/lib/systemd/system/docker.socket"));
    let docker = FakeDocker::default()
        .with("GET /version", 200, VERSION)
        .with("GET /info", 200, INFO)
        .with("GET /containers/json?all=1", 200, CONTAINERS)
        .with("GET /images/json", 200, IMAGES);
    docker.serve(&node.path("/docker.sock"));
    let facts = look(&node, &fake, "/docker.sock").await;
    assert_eq!(facts.problems, Vec::<String>::new());
    assert_eq!(facts.init.version.as_deref(), Some("252.22-1~deb12u1"));
    assert!(facts.cgroup_version.is_some());
    assert!(facts.unit("kubelet.service").runs() && !facts.unit("containerd.service").exists());
    assert!(fake.calls().is_empty(), "nothing is changed");
    assert!(docker.asked().iter().all(|asked| asked.starts_with("GET ")));

    let kubelet = facts.kubelet.as_ref().unwrap();
    assert_eq!((kubelet.version.as_deref(), kubelet.runtime), (Some("v1.20.2"), RuntimeKind::Docker));
    let containerd = facts.containerd.as_ref().unwrap();
    assert_eq!(containerd.version.as_deref(), Some("1.6.9"));
    assert_eq!(containerd.release, Some(Release { major: 1, minor: 6 }));
    assert_eq!(containerd.default_config.as_deref(), Some("version = 2\n"));

    let docker = facts.docker.as_ref().unwrap();
    assert!(docker.answers && !docker.live_restore);
    assert_eq!(
        (docker.version.as_deref(), docker.cgroup_driver.as_deref()),
        (Some("20.10.24"), Some("systemd"))
    );
    assert_eq!(docker.data_root, Path::new("/mnt/docker"));
    let [etcd, sandbox, jenkins, exporter] = &docker.containers[..] else { panic!("{docker:?}") };
    let pod = PodFacts { namespace: "kube-system".into(), name: "etcd-m".into(), uid: "u1".into() };
    assert_eq!((etcd.pod.as_ref(), etcd.sandbox, etcd.running), (Some(&pod), false, true));
    assert_eq!(
        (etcd.name.as_str(), etcd.image_id.as_str()),
        ("k8s_etcd_etcd-m_kube-system_u1_0", "sha256:0369cf4303ff")
    );
    assert_eq!((sandbox.pod.as_ref(), sandbox.sandbox), (Some(&pod), true));
    assert_eq!((jenkins.pod.as_ref(), jenkins.name.as_str(), jenkins.running), (None, "ci", false));
    assert!(jenkins.mounts_docker_socket && !etcd.mounts_docker_socket && !exporter.mounts_docker_socket);
    assert!(exporter.running);
    assert_eq!(docker.images.len(), 3);
    assert_eq!(
        (&docker.images[0].tags[..], docker.images[0].size),
        (&["k8s.gcr.io/pause:3.2".to_owned()][..], 682_696)
    );
    assert!(docker.images[1].tags.is_empty() && docker.images[1].digests.is_empty());
    assert_eq!(facts.disks[0].path, Path::new("/mnt/docker"));
}

#[tokio::test]
async fn docker_is_not_started_by_being_asked() {
    let node = node();
    let stopped = FakeUnit { active: "inactive".to_owned(), ..running("/lib/systemd/system/docker.service") };
    let fake = FakeSystemd::default()
        .with("docker.service", stopped)
        .with("docker.socket", running("/lib/systemd/system/docker.socket"));
    let docker = FakeDocker::default().with("GET /version", 200, VERSION);
    docker.serve(&node.path("/docker.sock"));
    let facts = look(&node, &fake, "/docker.sock").await;
    assert!(docker.asked().is_empty());
    assert!(!facts.docker.as_ref().unwrap().answers);
    assert!(facts.problems[0].contains("docker.socket would start it"), "{:?}", facts.problems);
    // What its files say is known all the same.
    assert_eq!(facts.docker.unwrap().data_root, Path::new("/data/docker"));
}

#[tokio::test]
async fn one_that_should_answer_and_does_not_is_a_problem() {
    let node = node();
    let fake = FakeSystemd::default().with("docker.service", running("/lib/systemd/system/docker.service"));
    FakeDocker::default()
        .with("GET /version", 200, VERSION)
        .with("GET /info", 200, "{}")
        .with("GET /containers/json?all=1", 500, "{\"message\":\"database is locked\"}")
        .with("GET /images/json", 200, "[{\"Id\": 1}]")
        .serve(&node.path("/docker.sock"));
    let facts = look(&node, &fake, "/docker.sock").await;
    let said = facts.problems.join("\n");
    assert!(said.contains("database is locked") && said.contains("GET /images/json"), "{said}");
    assert!(facts.docker.as_ref().unwrap().answers);
    let facts = look(&node, &fake, "/none.sock").await;
    assert!(
        facts.problems.iter().any(|problem| problem.contains("cannot reach Docker on")),
        "{:?}",
        facts.problems
    );
    // One that is stopped is no problem.
    let facts = look(&node, &FakeSystemd::default(), "/none.sock").await;
    assert_eq!(facts.problems, Vec::<String>::new());
}

#[tokio::test]
async fn the_machine_that_this_runs_on_can_be_looked_at() {
    let begun = std::time::Instant::now();
    let facts = detect(&Where::default()).await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    let comm = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(facts.init.name, comm.trim());
    assert!(!facts.node_name.is_empty() && facts.cgroup_version.is_some());
    assert_eq!(facts.units.len(), 7);
    assert!(facts.disks.iter().any(|disk| disk.path == Path::new("/var/lib/nodectl") && disk.total > 0));
    serde_json::to_string(&facts).unwrap();
}
