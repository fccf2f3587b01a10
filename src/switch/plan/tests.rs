//! Plans of nodes as kubeadm makes them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::*;
use crate::switch::{
    facts::{
        CniFacts, ContainerFacts, ContainerdFacts, DiskFacts, DockerFacts, ImageFacts, Init, KubeletFacts,
        PodFacts, UnitFacts,
    },
    request::{Drain, Images},
    systemd::unit::{self, Files},
};

const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const CONFIG: &str = "/etc/containerd/config.toml";

struct Texts<'a>(&'a BTreeMap<PathBuf, String>);

impl Files for Texts<'_> {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = self.0.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }
}

fn unit_facts(active: &str, enabled: &str) -> UnitFacts {
    UnitFacts {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        enabled: enabled.to_owned(),
        ..UnitFacts::default()
    }
}

/// A node of kubeadm 1.20 on Docker, with a static pod.
pub(super) fn docker_node() -> Facts {
    let texts = [
        ("/lib/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n"),
        (
            DROP_IN,
            "[Service]\nEnvironment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n\
             EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\nExecStart=\n\
             ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n",
        ),
        (
            FLAGS,
            "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2\"\n",
        ),
        ("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n"),
        (
            "/var/lib/kubelet/config.yaml",
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\n",
        ),
        (CONFIG, "# as Docker's packages bring it\ndisabled_plugins = [\"cri\"]\n"),
    ];
    let files: BTreeMap<PathBuf, String> =
        texts.into_iter().map(|(path, text)| (path.into(), text.to_owned())).collect();
    let pod = |sandbox: bool| ContainerFacts {
        id: format!("{sandbox}"),
        name: "k8s_web".to_owned(),
        image: if sandbox { "k8s.gcr.io/pause:3.2" } else { "busybox:1" }.to_owned(),
        image_id: if sandbox { "sha256:1" } else { "sha256:2" }.to_owned(),
        running: true,
        pod: Some(PodFacts {
            namespace: "default".to_owned(),
            name: "web-node1".to_owned(),
            uid: "u".to_owned(),
        }),
        sandbox,
        mounts_docker_socket: false,
    };
    let image = |id: &str, tag: &str| ImageFacts {
        id: id.to_owned(),
        tags: vec![tag.to_owned()],
        digests: vec![],
        size: 1 << 20,
    };
    let kubelet_unit = unit::load(&Texts(&files), "kubelet.service").unwrap();
    Facts {
        node_name: "node1".to_owned(),
        init: Init { name: "systemd".to_owned(), version: Some("252".to_owned()) },
        cgroup_version: Some(1),
        units: [
            ("kubelet.service", unit_facts("active", "enabled")),
            ("docker.service", unit_facts("active", "enabled")),
            ("docker.socket", unit_facts("active", "enabled")),
            ("containerd.service", unit_facts("active", "enabled")),
        ]
        .map(|(name, unit)| (name.to_owned(), unit))
        .into(),
        docker: Some(DockerFacts {
            version: Some("20.10.24".to_owned()),
            socket: "/run/docker.sock".into(),
            answers: true,
            cgroup_driver: Some("cgroupfs".to_owned()),
            data_root: "/var/lib/docker".into(),
            containers: vec![pod(true), pod(false)],
            images: vec![
                image("sha256:1", "k8s.gcr.io/pause:3.2"),
                image("sha256:2", "busybox:1"),
                image("sha256:3", "unused:1"),
            ],
            ..DockerFacts::default()
        }),
        containerd: Some(ContainerdFacts {
            version: Some("1.6.20".to_owned()),
            release: Some(Release { major: 1, minor: 6 }),
            socket: "/run/containerd/containerd.sock".into(),
            config: CONFIG.into(),
            config_files: vec![CONFIG.into()],
            data_root: "/var/lib/containerd".into(),
            ..ContainerdFacts::default()
        }),
        kubelet: Some(KubeletFacts {
            version: Some("v1.20.2".to_owned()),
            minor: Some(20),
            unit: kubelet_unit,
            config_file: Some("/var/lib/kubelet/config.yaml".into()),
            runtime: RuntimeKind::Docker,
            cgroup_driver: "cgroupfs".to_owned(),
            static_pod_path: Some("/etc/kubernetes/manifests".into()),
            static_pods: vec!["default/web-node1".to_owned()],
            healthz: Some("127.0.0.1:10248".to_owned()),
            root_dir: "/var/lib/kubelet".into(),
            ..KubeletFacts::default()
        }),
        cni: CniFacts {
            conf_dir: "/etc/cni/net.d".into(),
            configs: vec!["10-bridge.conflist".to_owned()],
            bin_dirs: vec!["/opt/cni/bin".into()],
            missing_plugins: vec![],
        },
        disks: vec![DiskFacts {
            path: "/var/lib/containerd".into(),
            available: 64 << 30,
            total: 100 << 30,
            device: 1,
        }],
        tools: ["containerd", "ctr"]
            .map(|tool| (tool.to_owned(), Some(PathBuf::from("/usr/bin").join(tool))))
            .into(),
        files,
        ..Facts::default()
    }
}

/// The node as the steps leave it.
pub(super) fn applied(mut facts: Facts, plan: &Plan) -> Facts {
    for step in &plan.steps {
        match &step.action {
            Action::WriteFile { path, text, .. } => drop(facts.files.insert(path.clone(), text.clone())),
            Action::RemoveFile { path } => drop(facts.files.remove(path)),
            Action::StopUnit { unit } => facts.units.get_mut(unit).unwrap().active = "inactive".to_owned(),
            Action::RestartUnit { unit } => {
                facts.units.entry(unit.clone()).or_default().active = "active".to_owned();
            }
            Action::EnableUnit { unit } => {
                facts.units.entry(unit.clone()).or_default().enabled = "enabled".to_owned();
            }
            Action::DisableUnit { unit } => {
                facts.units.get_mut(unit).unwrap().enabled = "disabled".to_owned();
            }
            Action::RemoveOldPods { .. } => {
                facts.docker.as_mut().unwrap().containers.retain(|c| c.pod.is_none());
            }
            _ => {}
        }
    }
    let kubelet = facts.kubelet.as_mut().unwrap();
    kubelet.unit = unit::load(&Texts(&facts.files), "kubelet.service").unwrap();
    let endpoint = crate::switch::systemd::flags::value(&kubelet.unit, "container-runtime-endpoint");
    if endpoint.as_deref() == Some("unix:///run/containerd/containerd.sock") {
        kubelet.runtime = RuntimeKind::Containerd;
        kubelet.endpoint = endpoint;
    }
    if facts.files["/var/lib/kubelet/config.yaml".as_ref() as &Path].contains("cgroupDriver: systemd") {
        kubelet.cgroup_driver = "systemd".to_owned();
    }
    facts
}

fn position(plan: &Plan, wanted: impl Fn(&Action) -> bool) -> usize {
    plan.steps.iter().position(|step| wanted(&step.action)).unwrap()
}

fn texts(refusals: &[Refusal]) -> Vec<&str> {
    refusals.iter().map(|refusal| refusal.message.as_str()).collect()
}

#[test]
fn a_node_is_moved_in_an_order_in_which_no_pod_runs_twice() {
    let facts = docker_node();
    let plan = plan(&facts, &Request::default()).unwrap();
    assert_eq!(texts(&plan.refusals), Vec::<&str>::new());
    let stops =
        |name: &'static str| position(&plan, move |a| matches!(a, Action::StopUnit { unit } if unit == name));
    let mark = position(&plan, |a| matches!(a, Action::WriteFile { path, .. } if path == Path::new(MARK)));
    let unmark = position(&plan, |a| matches!(a, Action::RemoveFile { path } if path == Path::new(MARK)));
    let carried = position(&plan, |a| matches!(a, Action::CarryImages { .. }));
    let pods = position(&plan, |a| matches!(a, Action::StopDockerPods { .. }));
    let config =
        position(&plan, |a| matches!(a, Action::WriteFile { path, .. } if path == Path::new(CONFIG)));
    let check = position(&plan, |a| matches!(a, Action::CheckContainerdConfig { .. }));
    let starts = |name: &'static str| {
        plan.steps
            .iter()
            .rposition(|s| matches!(&s.action, Action::RestartUnit { unit } if unit == name))
            .unwrap()
    };
    let order = [
        stops("kubelet.service"),
        mark,
        carried,
        pods,
        stops("docker.socket"),
        stops("docker.service"),
        stops("containerd.service"),
        config,
        check,
        starts("containerd.service"),
        position(&plan, |a| matches!(a, Action::VerifyRuntime { network: true, .. })),
        position(&plan, |a| matches!(a, Action::TestSandbox { .. })),
        unmark,
        starts("kubelet.service"),
        position(&plan, |a| matches!(a, Action::VerifyAgent { .. })),
        position(&plan, |a| matches!(a, Action::RemoveOldPods { .. })),
    ];
    assert!(order.is_sorted(), "{order:?}");
    let Action::CarryImages { images, .. } = &plan.steps[carried].action else { unreachable!() };
    assert_eq!(images, &["busybox:1", "k8s.gcr.io/pause:3.2"]);
    // systemd reads units' files before and behind their changes, for either way.
    let reload = |range: &[Step]| range.iter().any(|step| step.action == Action::ReloadUnits);
    let edits: Vec<usize> = plan
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| matches!(&step.action, Action::WriteFile { path, .. } if path.starts_with("/etc/systemd")))
        .map(|(number, _)| number)
        .collect();
    for edit in edits {
        assert!(reload(&plan.steps[..edit]) && reload(&plan.steps[edit..]), "{edit}");
    }

    let after = applied(facts, &plan);
    let flags = &after.files[Path::new(FLAGS)];
    assert!(flags.contains("--container-runtime=remote"), "{flags}");
    assert!(flags.contains("--container-runtime-endpoint=unix:///run/containerd/containerd.sock"), "{flags}");
    let config = &after.files[Path::new(CONFIG)];
    assert!(
        config.starts_with("# as Docker's packages bring it\n") && !config.contains("\"cri\"]"),
        "{config}"
    );
    assert!(
        config.contains("sandbox_image = \"k8s.gcr.io/pause:3.2\"")
            && config.contains("SystemdCgroup = true"),
        "{config}"
    );
    assert!(after.files[Path::new("/etc/crictl.yaml")].contains("unix:///run/containerd/containerd.sock"));
    assert!(!after.files.contains_key(Path::new(MARK)));
    assert!(!after.files.keys().any(|path| path.ends_with("00-nodectl-switch.conf")));
    let diff = plan.diff();
    assert!(
        diff.contains("+++ b/etc/containerd/config.toml") && diff.contains("-disabled_plugins = [\"cri\"]"),
        "{diff}"
    );

    // The second time there is nothing to do, however it is asked.
    let second = super::plan(&after, &Request::default()).unwrap();
    assert!(!second.changes(), "{:?}", second.steps);
    let second = super::plan(&after, &Request { from: Some(From::Docker), ..Request::default() }).unwrap();
    assert!(!second.changes() && second.refusals.is_empty(), "{:?}", second.steps);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let refused = |change: &dyn Fn(&mut Facts, &mut Request)| {
        let (mut facts, mut request) = (docker_node(), Request::default());
        change(&mut facts, &mut request);
        plan(&facts, &request).unwrap().refusals
    };
    type Case<'a> = (&'a str, bool, &'a dyn Fn(&mut Facts, &mut Request));
    let cases: [Case<'_>; 14] = [
        ("speaks CRI v1alpha2 alone", false, &|facts, _| {
            facts.containerd.as_mut().unwrap().release = Some(Release { major: 2, minor: 1 });
        }),
        ("does not have yet", false, &|facts, _| {
            facts.containerd.as_mut().unwrap().release = Some(Release { major: 1, minor: 5 });
            facts.kubelet.as_mut().unwrap().minor = Some(27);
        }),
        ("neither Docker nor containerd", false, &|facts, _| {
            facts.kubelet.as_mut().unwrap().runtime = RuntimeKind::Other;
        }),
        ("the program ctr is not found", false, &|facts, _| drop(facts.tools.insert("ctr".to_owned(), None))),
        ("process 1 is runit", false, &|facts, _| facts.init.name = "runit".to_owned()),
        ("no unit containerd.service", false, &|facts, _| drop(facts.units.remove(CONTAINERD))),
        ("containerd.service is masked", false, &|facts, _| {
            facts.units.get_mut(CONTAINERD).unwrap().load = "masked".to_owned();
        }),
        ("kubelet.service is activating", true, &|facts, _| {
            facts.units.get_mut(KUBELET).unwrap().active = "activating".to_owned();
        }),
        ("there is no CNI configuration in /etc/cni/net.d", true, &|facts, _| facts.cni.configs.clear()),
        ("not in /opt/cni/bin: flannel", true, &|facts, _| {
            facts.cni.missing_plugins = vec!["flannel".to_owned()];
        }),
        ("would change from cgroupfs to systemd", true, &|facts, _| {
            facts.kubelet.as_mut().unwrap().kubeconfig = Some("/etc/kubernetes/kubelet.conf".into());
        }),
        ("Docker does not answer at /run/docker.sock", false, &|facts, _| {
            facts.docker.as_mut().unwrap().answers = false;
        }),
        ("not Kubernetes' and that will be stopped: db", true, &|facts, _| {
            let other = ContainerFacts { name: "db".to_owned(), running: true, ..ContainerFacts::default() };
            facts.docker.as_mut().unwrap().containers.push(other);
        }),
        ("mount Docker's socket, which they will not find any more: default/web-node1", true, &|facts, _| {
            facts.docker.as_mut().unwrap().containers[1].mounts_docker_socket = true;
        }),
    ];
    for (message, forceable, change) in cases {
        let found = refused(change);
        assert_eq!(found.len(), 1, "{message}: {found:?}");
        assert!(found[0].message.contains(message), "{message}: {found:?}");
        assert_eq!(found[0].forceable, forceable, "{message}");
        assert_eq!(found[0].hint.contains("--force goes on"), forceable, "{message}");
    }
    // Room for images: twice their size, and a GiB.
    let full = refused(&|facts, _| facts.disks[0].available = 1 << 30);
    assert!(
        full[0].message.contains("has 1024 MiB left, and the images that come along need 1028 MiB"),
        "{full:?}"
    );
    assert!(
        refused(&|facts, request| {
            facts.disks[0].available = 1 << 20;
            request.images = Images::None;
        })
        .is_empty()
    );
    let mut without = docker_node();
    without.containerd = None;
    assert!(
        plan(&without, &Request::default()).unwrap_err().to_string().contains("containerd is not installed")
    );
}

#[test]
fn images_that_lose_their_name_are_named_before() {
    let mut facts = docker_node();
    let docker = facts.docker.as_mut().unwrap();
    docker.images[1] = ImageFacts {
        id: "sha256:2".to_owned(),
        digests: vec!["busybox@sha256:7".to_owned()],
        size: 1,
        ..ImageFacts::default()
    };
    let plan = plan(&facts, &Request::default()).unwrap();
    assert!(
        plan.warnings.iter().any(|warning| warning.ends_with("pulled anew: busybox@sha256:7")),
        "{:?}",
        plan.warnings
    );
    let carried = position(&plan, |action| matches!(action, Action::CarryImages { .. }));
    let Action::CarryImages { images, .. } = &plan.steps[carried].action else { unreachable!() };
    assert_eq!(images, &["k8s.gcr.io/pause:3.2"]);

    // That it has a tag too does not help whoever asks for a digest.
    let mut facts = docker_node();
    let told = |facts: &Facts| {
        let warnings = super::plan(facts, &Request::default()).unwrap().warnings;
        warnings
            .iter()
            .any(|warning| warning.contains("by digest") && warning.ends_with(": busybox@sha256:7"))
    };
    assert!(!told(&facts));
    facts.kubelet.as_mut().unwrap().images_by_digest = vec!["busybox@sha256:7".to_owned()];
    assert!(told(&facts));
}

#[test]
fn a_cluster_is_asked_first_and_last() {
    let mut facts = docker_node();
    facts.kubelet.as_mut().unwrap().kubeconfig = Some("/etc/kubernetes/kubelet.conf".into());
    let drain =
        Drain { timeout: std::time::Duration::from_secs(60), unmanaged: false, delete_emptydir_data: true };
    let request =
        Request { kubeconfig: Some("/root/admin.conf".into()), drain: Some(drain), ..Request::default() };
    let plan = plan(&facts, &request).unwrap();
    assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
    assert!(matches!(&plan.steps[0].action, Action::Cordon { node, .. } if node == "node1"));
    assert!(matches!(plan.steps[1].action, Action::Drain { timeout: 60, delete_emptydir_data: true, .. }));
    assert!(matches!(plan.steps.last().unwrap().action, Action::Uncordon { .. }));
    let annotated = position(&plan, |action| matches!(action, Action::AnnotateNode { .. }));
    assert!(annotated < position(&plan, |action| matches!(action, Action::VerifyNode { .. })));
    // Taken back, the node is Ready again before it is uncordoned, and after the agent was seen well.
    let ready = position(&plan, |action| matches!(action, Action::NodeReadyWhenUndone { .. }));
    assert_eq!(ready, 2);
    assert!(ready < position(&plan, |action| matches!(action, Action::VerifyWhenUndone { .. })));
}

#[test]
fn a_folder_has_its_files_changed_and_nothing_else() {
    let mut facts = docker_node();
    facts.root = Some("/mnt".into());
    facts.init = Init::default();
    for unit in facts.units.values_mut() {
        unit.active = String::new();
    }
    let docker = facts.docker.as_mut().unwrap();
    (docker.answers, docker.containers, docker.images) = (false, vec![], vec![]);
    let plan = plan(&facts, &Request::default()).unwrap();
    assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
    assert!(!plan.steps.is_empty());
    assert!(
        plan.steps.iter().all(|step| matches!(step.action, Action::WriteFile { .. })),
        "{:?}",
        plan.steps
    );
    let after = applied(facts, &plan);
    assert!(after.files[Path::new(CONFIG)].contains("SystemdCgroup = true"));
    assert!(!super::plan(&after, &Request::default()).unwrap().changes());
}

#[test]
fn docker_is_kept_where_that_is_asked() {
    let request = Request { keep_docker: true, ..Request::default() };
    let plan = plan(&docker_node(), &request).unwrap();
    let of = |wanted: &dyn Fn(&Action) -> bool| plan.steps.iter().filter(|step| wanted(&step.action)).count();
    assert_eq!(of(&|action| matches!(action, Action::DisableUnit { .. })), 0);
    assert_eq!(of(&|action| matches!(action, Action::StopUnit { unit } if unit.starts_with("docker"))), 2);
    assert_eq!(of(&|action| matches!(action, Action::RestartUnit { unit } if unit.starts_with("docker"))), 2);
}

#[test]
fn a_control_plane_is_warned_of() {
    let mut facts = docker_node();
    facts.kubelet.as_mut().unwrap().static_pods =
        vec!["kube-system/etcd-node1".to_owned(), "kube-system/kube-apiserver-node1".to_owned()];
    let plan = plan(&facts, &Request::default()).unwrap();
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("its kube-apiserver and its etcd will be away")),
        "{:?}",
        plan.warnings
    );
}
