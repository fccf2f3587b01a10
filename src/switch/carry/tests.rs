//! What becomes of Docker's options. That containerd reads the configuration is for `tests/switch_containerd.rs`.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::switch::{
    containerd::Tls,
    facts::{DockerFacts, ImageFacts, KubeletFacts},
};

const RELEASE: Release = Release { major: 1, minor: 6 };
const FOLDER: &str = "/etc/containerd/certs.d";

fn docker(daemon: impl Into<serde_json::Value>, arguments: &[&str]) -> Facts {
    let docker = DockerFacts {
        daemon: daemon.into().as_object().unwrap().clone(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        ..DockerFacts::default()
    };
    Facts { docker: Some(docker), ..Facts::default() }
}

/// What is carried; with its files written, nothing is left to write.
#[track_caller]
fn carried_with(mut facts: Facts, request: &Request, registries: &[Registry]) -> Carried {
    let carried = carry(&facts, request, RELEASE, registries, FOLDER);
    facts.files.extend(carried.files.iter().map(|(path, file)| (path.clone(), file.text.clone())));
    // Drop-ins count once the unit is there.
    facts
        .files
        .insert("/lib/systemd/system/containerd.service".into(), "[Service]\nExecStart=/c\n".to_owned());
    assert_eq!(carry(&facts, request, RELEASE, registries, FOLDER).files, BTreeMap::new());
    carried
}

#[track_caller]
fn carried(facts: Facts) -> Carried {
    carried_with(facts, &Request::default(), &[])
}

fn text<'a>(carried: &'a Carried, path: &str) -> &'a str {
    &carried.files[Path::new(path)].text
}

#[test]
fn a_docker_that_is_told_nothing_leaves_nothing() {
    let empty = carried(docker(json!({}), &["-H", "fd://"]));
    assert!(
        empty.files.is_empty() && !empty.needs_registry_config_path && empty.warnings.is_empty(),
        "{empty:?}"
    );
    assert_eq!(empty.notes.len(), 1, "{:?}", empty.notes);
    assert!(empty.notes[0].starts_with("Docker had no limit for containers' logs"));
    assert_eq!(carried(Facts::default()), Carried::default());
}

#[test]
fn mirrors_of_all_sides_are_the_hubs() {
    let facts = docker(
        json!({"registry-mirrors": ["https://b.example/", "https://a.example"]}),
        &["--registry-mirror=http://c:5000"],
    );
    let request = Request {
        registry_mirrors: vec![
            ("docker.io".to_owned(), "https://z.example".to_owned()),
            ("quay.io".to_owned(), "https://q.example/quay".to_owned()),
        ],
        ..Request::default()
    };
    let old =
        Registry { host: "docker.io".to_owned(), endpoints: vec!["https://a.example".to_owned()], tls: None };
    let carried = carried_with(facts, &request, &[old]);
    assert!(carried.needs_registry_config_path);
    let hub = text(&carried, "/etc/containerd/certs.d/docker.io/hosts.toml");
    let hosts: Vec<&str> = hub.lines().filter(|line| line.starts_with("[host")).collect();
    assert_eq!(
        hosts,
        [
            "[host.\"https://z.example\"]",
            "[host.\"http://c:5000\"]",
            "[host.\"https://b.example\"]",
            "[host.\"https://a.example\"]"
        ]
    );
    assert!(hub.starts_with("server = \"https://registry-1.docker.io\"\n"));
    assert!(
        text(&carried, "/etc/containerd/certs.d/quay.io/hosts.toml")
            .contains("[host.\"https://q.example/quay\"]")
    );
    assert_eq!(carried.files[Path::new("/etc/containerd/certs.d/docker.io/hosts.toml")].mode, 0o644);
}

#[test]
fn a_host_is_spoken_to_as_docker_did_wherever_it_stands() {
    let mut facts = docker(
        json!({"registry-mirrors": ["https://m.example:5000"], "insecure-registries": ["m.example:5000", "http://r.example"]}),
        &["--insecure-registry", "s.example:80"],
    );
    let names = ["ca.crt", "me.cert", "me.key", "other.cert", "readme"].map(str::to_owned).to_vec();
    facts.docker.as_mut().unwrap().certificates.insert("r.example".to_owned(), names);
    let carried = carried(facts);
    assert_eq!(
        text(&carried, "/etc/containerd/certs.d/docker.io/hosts.toml"),
        "server = \"https://registry-1.docker.io\"\n\n[host.\"https://m.example:5000\"]\n\
         capabilities = [\"pull\", \"resolve\"]\nskip_verify = true\n"
    );
    assert_eq!(
        text(&carried, "/etc/containerd/certs.d/r.example/hosts.toml"),
        "server = \"https://r.example\"\n\n[host.\"https://r.example\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         ca = \"/etc/docker/certs.d/r.example/ca.crt\"\n\
         client = [[\"/etc/docker/certs.d/r.example/me.cert\", \"/etc/docker/certs.d/r.example/me.key\"]]\nskip_verify = true\n\n\
         [host.\"http://r.example\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
    assert!(
        text(&carried, "/etc/containerd/certs.d/s.example:80/hosts.toml")
            .contains("[host.\"http://s.example:80\"]")
    );
    assert!(carried.files.contains_key(Path::new("/etc/containerd/certs.d/m.example:5000/hosts.toml")));
    assert!(carried.warnings[0].contains("other.cert has no other.key"), "{:?}", carried.warnings);
}

#[test]
fn ranges_of_addresses_are_named_and_what_is_in_them_is_carried() {
    let mut facts = docker(
        json!({"insecure-registries": ["10.0.0.0/8", "127.0.0.0/8", "::1/128", "fd00::/16", "192.168.0.0/16", "a/b"],
               "registry-mirrors": ["https://10.1.2.3:5000"]}),
        &[],
    );
    let tags = ["10.9.9.9:5000/team/app:1", "11.0.0.1/x:1", "[fd00::1]:5000/y:1", "busybox:1"]
        .map(str::to_owned)
        .to_vec();
    facts.docker.as_mut().unwrap().images = vec![ImageFacts { tags, ..ImageFacts::default() }];
    let carried = carried(facts);
    let hosts: Vec<String> = carried
        .files
        .keys()
        .map(|path| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(hosts, ["10.1.2.3:5000", "10.9.9.9:5000", "[fd00::1]:5000", "docker.io"]);
    assert!(text(&carried, "/etc/containerd/certs.d/docker.io/hosts.toml").contains("skip_verify = true"));
    assert_eq!(carried.warnings.len(), 4, "{:#?}", carried.warnings);
    assert!(
        carried.warnings[0].starts_with("insecure registries 10.0.0.0/8: ")
            && carried.warnings[0].contains("10.9.9.9:5000")
    );
    assert!(carried.warnings[2].ends_with("none of them is known here by its address"));
    assert!(carried.warnings[3].contains("\"a/b\""));
}

#[test]
fn a_hosts_file_that_is_there_is_added_to() {
    let mut facts = docker(
        json!({"registry-mirrors": ["https://a", "https://b"], "insecure-registries": ["r:5000", "broken"]}),
        &[],
    );
    let mine =
        "# mine\nserver = \"https://docker.io\"\n\n[host.\"https://b\"]\n  capabilities = [\"pull\"]\n";
    facts.files.insert(format!("{FOLDER}/docker.io/hosts.toml").into(), mine.to_owned());
    facts.files.insert(format!("{FOLDER}/r_5000_/hosts.toml").into(), "[host.'https://r:5000']\n".to_owned());
    facts.files.insert(format!("{FOLDER}/broken/hosts.toml").into(), "x = = 1".to_owned());
    let carried = carried(facts);
    let hub = text(&carried, "/etc/containerd/certs.d/docker.io/hosts.toml");
    assert_eq!(hub, format!("{mine}\n[host.\"https://a\"]\ncapabilities = [\"pull\", \"resolve\"]\n"));
    assert!(
        text(&carried, "/etc/containerd/certs.d/r_5000_/hosts.toml").contains("[host.\"http://r:5000\"]")
    );
    assert_eq!(carried.files.len(), 2);
    assert!(carried.warnings[0].contains("broken/hosts.toml is not valid TOML"), "{:?}", carried.warnings);
}

#[test]
fn what_containerds_own_file_said_of_registries_goes_on_to_count() {
    let registries = [
        Registry { host: "*".to_owned(), endpoints: vec!["https://all".to_owned()], tls: None },
        Registry {
            host: "r".to_owned(),
            tls: Some(Tls { ca: vec!["/ca".to_owned()], ..Tls::default() }),
            ..Registry::default()
        },
        Registry { host: "../evil".to_owned(), endpoints: vec!["https://all".to_owned()], tls: None },
    ];
    let carried = carried_with(Facts::default(), &Request::default(), &registries);
    assert!(
        text(&carried, "/etc/containerd/certs.d/_default/hosts.toml").starts_with("[host.\"https://all\"]")
    );
    let one = text(&carried, "/etc/containerd/certs.d/r/hosts.toml");
    assert!(one.contains("[host.\"https://all\"]") && one.contains("ca = \"/ca\""), "{one}");
    assert_eq!(carried.files.len(), 2);
    assert!(carried.warnings[0].contains("\"../evil\""));
    let other = carry(&Facts::default(), &Request::default(), RELEASE, &registries, "/a:/b");
    assert!(other.files.keys().all(|path| path.starts_with("/a")));
}

#[test]
fn the_proxy_becomes_containerds() {
    let mut facts = docker(json!({"proxies": {"https-proxy": "http://in-file:1"}}), &[]);
    let proxies = &mut facts.docker.as_mut().unwrap().proxies;
    proxies.insert("http_proxy".to_owned(), "http://me:p%40\"$x\\@proxy:3128".to_owned());
    proxies.insert("HTTPS_PROXY".to_owned(), "http://in-unit:1".to_owned());
    let carried = carried(facts.clone());
    let path = "/etc/systemd/system/containerd.service.d/http-proxy.conf";
    assert_eq!(
        text(&carried, path),
        "# Docker's, carried over by nodectl switch-runtime.\n[Service]\n\
         Environment=\"HTTP_PROXY=http://me:p%%40\\\"$x\\\\@proxy:3128\"\nEnvironment=\"HTTPS_PROXY=http://in-file:1\"\n"
    );
    assert!(carried.files[Path::new(path)].is_secret());
    assert!(carried.notes.iter().all(|note| !note.contains("p%40")), "{:?}", carried.notes);
    // As systemd has it then.
    facts
        .files
        .insert("/lib/systemd/system/containerd.service".into(), "[Service]\nExecStart=/c\n".to_owned());
    facts.files.insert(path.into(), text(&carried, path).to_owned());
    assert_eq!(
        load(&facts, "containerd.service").environment["HTTP_PROXY"].value(),
        "http://me:p%40\"$x\\@proxy:3128"
    );
    // What containerd has stays.
    facts.files.insert(path.into(), "[Service]\nEnvironment=https_proxy=http://own\n".to_owned());
    let carried = carry(&facts, &Request::default(), RELEASE, &[], FOLDER);
    assert_eq!(
        carried.files.keys().collect::<Vec<_>>(),
        [Path::new("/etc/systemd/system/containerd.service.d/20-nodectl-proxy.conf")]
    );
    assert!(carried.notes.iter().any(|note| note.contains("sets HTTPS_PROXY to something else")));
    let plain =
        docker(json!({"proxies": {"http-proxy": "http://a@b:1", "no-proxy": "localhost,10.0.0.0/8"}}), &[]);
    let carried = self::carried(plain);
    assert!(!carried.files[Path::new(path)].is_secret());
    assert!(text(&carried, path).contains("NO_PROXY=localhost,10.0.0.0/8"));
}

#[test]
fn limits_of_logs() {
    let limits = |daemon, arguments: &[&str]| {
        let carried = carried(docker(daemon, arguments));
        (carried.log_max_size.unwrap_or_default(), carried.log_max_files, carried.warnings.len())
    };
    let one = |size: &str, files: Option<i32>| (size.to_owned(), files, 0);
    assert_eq!(limits(json!({"log-opts": {"max-size": "10m", "max-file": "3"}}), &[]), one("10M", Some(3)));
    assert_eq!(
        limits(json!({"log-driver": "json-file", "log-opts": {"max-size": "100m"}}), &[]),
        one("100M", None)
    );
    assert_eq!(limits(json!({"log-opts": {"max-size": "1g", "max-file": "1"}}), &[]), one("1G", Some(2)));
    assert_eq!(
        limits(json!({}), &["--log-opt", "max-size=50m", "--log-opt=max-file=5"]),
        one("50M", Some(5))
    );
    assert_eq!(limits(json!({"log-driver": "local"}), &[]), one("20Mi", Some(5)));
    assert_eq!(
        limits(json!({"log-driver": "local", "log-opts": {"max-file": "7"}}), &[]),
        one("20Mi", Some(7))
    );
    assert_eq!(limits(json!({"log-opts": {"max-file": "7"}}), &[]), one("", None));
    assert_eq!(limits(json!({"log-driver": "journald"}), &[]), (String::new(), None, 1));
    assert_eq!(
        limits(json!({"log-opts": {"max-size": "big", "max-file": "x"}}), &[]),
        (String::new(), None, 2)
    );
}

#[test]
fn runtimes_and_the_default_one() {
    let carried = |daemon, arguments: &[&str]| carried(docker(daemon, arguments));
    let nvidia = carried(
        json!({"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "runtimeArgs": []}}}),
        &[],
    );
    let runtime = |name: &str, kind: &str, binary: Option<&str>| Runtime {
        name: name.to_owned(),
        kind: kind.to_owned(),
        binary: binary.map(str::to_owned),
    };
    assert_eq!(
        nvidia.runtimes,
        [runtime("nvidia", "io.containerd.runc.v2", Some("nvidia-container-runtime"))]
    );
    assert_eq!((nvidia.default_runtime.as_deref(), nvidia.warnings.len()), (Some("nvidia"), 0));
    let more = carried(
        json!({"runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}, "runc": {"path": "/x"},
               "crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]},
               "own": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/b", "SystemdCgroup": true}}}}),
        &["--add-runtime", "old=/usr/bin/old", "--default-runtime=runc"],
    );
    assert_eq!(
        more.runtimes,
        [
            runtime("old", "io.containerd.runc.v2", Some("/usr/bin/old")),
            runtime("crun", "io.containerd.runc.v2", Some("/usr/bin/crun")),
            runtime("kata", "io.containerd.kata.v2", None),
            runtime("own", "io.containerd.runc.v2", Some("/b")),
        ]
    );
    assert_eq!((more.default_runtime, more.warnings.len()), (None, 2));
    let shim = carried(json!({"default-runtime": "io.containerd.kata.v2"}), &[]);
    assert_eq!(
        (shim.default_runtime.as_deref(), shim.runtimes[0].kind.as_str()),
        (Some("kata"), "io.containerd.kata.v2")
    );
    let lost = carried(json!({"default-runtime": "gone"}), &[]);
    assert_eq!((lost.default_runtime, lost.warnings.len()), (None, 1));
}

#[test]
fn what_is_left_behind_is_named() {
    let mut facts = docker(
        json!({"bip": "172.18.0.1/16", "default-ulimits": {"nofile": {"Hard": 1, "Name": "nofile", "Soft": 1}}, "dns": [],
               "selinux-enabled": true, "userland-proxy": false, "storage-driver": "devicemapper", "mtu": 1400, "live-restore": true}),
        &["--init", "--no-new-privileges=false"],
    );
    facts
        .docker
        .as_mut()
        .unwrap()
        .logins
        .insert("/root/.docker/config.json".into(), vec!["r.example".to_owned()]);
    let carried = carried(facts);
    let warned =
        |name: &str| carried.warnings.iter().any(|warning| warning.starts_with(&format!("Docker's {name}")));
    assert!(
        warned("default-ulimits")
            && warned("selinux-enabled")
            && warned("init")
            && warned("storage driver devicemapper")
    );
    assert!(!warned("dns") && !warned("no-new-privileges") && !warned("userland-proxy"));
    assert!(
        carried.notes.iter().any(|note| note.starts_with("Docker's bip, mtu are for its own bridge")),
        "{:?}",
        carried.notes
    );
    assert!(carried.notes.iter().any(|note| note.contains("r.example stay in /root/.docker/config.json")));
}

#[test]
fn what_the_kubelet_knew_of_cni_and_the_pause_image() {
    let of = |runtime: RuntimeKind, kubelet: &str, shim: &str| {
        let found = Some(KubeletFacts { runtime, ..KubeletFacts::default() });
        let mut facts = Facts { kubelet: found, ..Facts::default() };
        for (name, arguments) in [("kubelet.service", kubelet), ("cri-docker.service", shim)] {
            let text = format!("[Service]\nExecStart=/x {arguments}\n");
            facts.files.insert(Path::new("/lib/systemd/system").join(name), text);
        }
        let carried = carry(&facts, &Request::default(), RELEASE, &[], FOLDER);
        [carried.cni_bin_dir, carried.cni_conf_dir, carried.pause_image].map(Option::unwrap_or_default)
    };
    assert_eq!(
        of(RuntimeKind::Docker, "--network-plugin=cni --cni-bin-dir=/a,/b", ""),
        ["/a,/b", "/etc/cni/net.d", ""]
    );
    assert_eq!(
        of(RuntimeKind::Docker, "--network-plugin=kubenet --pod-infra-container-image p:1", ""),
        ["", "", "p:1"]
    );
    assert_eq!(
        of(RuntimeKind::CriDockerd, "--cni-bin-dir=/no", "--cni-conf-dir=/c --pod-infra-container-image=q:1"),
        ["/opt/cni/bin", "/c", "q:1"]
    );
    assert_eq!(of(RuntimeKind::Containerd, "--cni-bin-dir=/a", ""), ["", "", ""]);
}

#[test]
fn a_containerd_that_reads_no_hosts_files_gets_none_and_that_is_said() {
    let facts =
        docker(json!({"registry-mirrors": ["https://m.example"], "insecure-registries": ["r:5000"]}), &[]);
    let old = carry(&facts, &Request::default(), Release { major: 1, minor: 4 }, &[], FOLDER);
    assert!(old.files.is_empty() && !old.needs_registry_config_path);
    assert!(
        old.warnings
            .iter()
            .any(|warning| warning.ends_with(": docker.io, r:5000") && warning.contains("containerd 1.4")),
        "{:?}",
        old.warnings
    );
    let new = carry(&facts, &Request::default(), Release { major: 1, minor: 5 }, &[], FOLDER);
    assert!(new.files.len() == 2 && new.warnings.is_empty(), "{new:?}");
}

proptest! {
    #[test]
    fn any_proxy_is_what_it_was(value in "[ -~]{1,40}") {
        let mut facts = docker(json!({}), &[]);
        facts.docker.as_mut().unwrap().proxies.insert("HTTPS_PROXY".to_owned(), value.clone());
        let carried = carry(&facts, &Request::default(), RELEASE, &[], FOLDER);
        facts.files.insert("/lib/systemd/system/containerd.service".into(), "[Service]\nExecStart=/c\n".to_owned());
        facts.files.extend(carried.files.into_iter().map(|(path, file)| (path, file.text)));
        prop_assert_eq!(load(&facts, "containerd.service").environment["HTTPS_PROXY"].value(), value);
    }
}
