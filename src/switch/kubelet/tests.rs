//! Where a flag goes, and what is refused. Nodes as they are found are in `tests/switch_kubelet.rs`.

use std::path::Path;

use proptest::prelude::*;

use super::{node::Node, *};
use crate::switch::{
    facts::KubeletFacts,
    systemd::{flags, unit::Unit},
};

const PACKAGED: &str = "/usr/lib/systemd/system/kubelet.service";
const OWN: &str = "/etc/systemd/system/kubelet.service";
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/20-nodectl.conf";
const LATE: &str = "/etc/systemd/system/kubelet.service.d/zz-nodectl.conf";
const SOCKET: &str = "unix:///run/containerd/containerd.sock";

fn facts(minor: Option<u32>, files: &[(&str, &str)]) -> Facts {
    Facts {
        kubelet: Some(KubeletFacts { minor, ..KubeletFacts::default() }),
        files: files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect(),
        ..Facts::default()
    }
}

fn wishes() -> KubeletWishes {
    KubeletWishes { endpoint: SOCKET.to_owned(), ..KubeletWishes::default() }
}

/// The unit and the files after the edit; a second edit changes nothing.
#[track_caller]
fn edited(mut facts: Facts, wishes: &KubeletWishes) -> (Unit, BTreeMap<PathBuf, String>) {
    let files = edit(&facts, wishes).unwrap().files;
    facts.files.extend(files.clone());
    assert_eq!(edit(&facts, wishes).unwrap().files, BTreeMap::new());
    (Node::new(&facts).unit(), files)
}

#[track_caller]
fn one(minor: u32, files: &[(&str, &str)]) -> (String, BTreeMap<PathBuf, String>) {
    let (unit, files) = edited(facts(Some(minor), files), &wishes());
    (unit.arguments.iter().map(|argument| argument.text.as_str()).collect::<Vec<_>>().join(" "), files)
}

const TOLD: &str =
    "--container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock";

#[test]
fn a_packaged_command_line_is_copied_with_its_variables() {
    let unit = "[Service]\nExecStart=-/usr/bin/kubelet --network-plugin cni \\\n  --rate=50%% $ARGS\n";
    let (command, files) = one(25, &[(PACKAGED, unit)]);
    assert_eq!(command, format!("/usr/bin/kubelet --rate=50% {TOLD}"));
    assert_eq!(
        files[Path::new(DROP_IN)],
        format!(
            "# Written by nodectl switch-runtime.\n[Service]\n# As in {PACKAGED}, changed for containerd.\nExecStart=\n\
             ExecStart=-/usr/bin/kubelet \\\n  --rate=50%% $ARGS {TOLD}\n"
        )
    );
    assert_eq!(files.len(), 1);
}

#[test]
fn a_packaged_variable_is_copied_alone() {
    let unit = "[Service]\nEnvironment=\"KUBELET_EXTRA_ARGS=--v=2 --rate=5%%\" B=1\nExecStart=/k $KUBELET_EXTRA_ARGS\n";
    let (command, files) = one(20, &[(PACKAGED, unit)]);
    assert_eq!(command, format!("/k --v=2 --rate=5% {TOLD}"));
    let text = &files[Path::new(DROP_IN)];
    assert!(
        text.ends_with(&format!("Environment=\"KUBELET_EXTRA_ARGS=--v=2 --rate=5%% {TOLD}\"\n")),
        "{text}"
    );
    // Without quotes, and with a flag that has to go.
    let unit = "[Service]\nEnvironment=KUBELET_EXTRA_ARGS=--network-plugin=cni B=1\nExecStart=/k $KUBELET_EXTRA_ARGS\n";
    assert_eq!(one(26, &[(PACKAGED, unit)]).0, format!("/k {TOLD}"));
}

#[test]
fn a_drop_in_counts_more_than_what_it_changes() {
    let late = "/usr/lib/systemd/system/kubelet.service.d/50-package.conf";
    let (command, files) = one(
        20,
        &[(PACKAGED, "[Service]\nExecStart=/k\n"), (late, "[Service]\nExecStart=\nExecStart=/k --a\n")],
    );
    assert_eq!(command, format!("/k --a {TOLD}"));
    assert_eq!(files.keys().collect::<Vec<_>>(), [Path::new(LATE)]);
    // A drop-in of that name that is there already goes on to say what it said.
    let there = "[Service]\nCPUWeight=200\n";
    let (command, files) = one(20, &[(PACKAGED, "[Service]\nExecStart=/k\n"), (DROP_IN, there)]);
    assert_eq!(command, format!("/k {TOLD}"));
    assert!(files[Path::new(DROP_IN)].starts_with("[Service]\nCPUWeight=200\n\n[Service]\n# As in"));
}

#[test]
fn a_flag_that_is_put_together_is_overruled() {
    let unit =
        "[Service]\nEnvironment=S=/run/x.sock\nExecStart=/k --container-runtime-endpoint=unix://${S} --a\n";
    let (command, _) = one(27, &[(OWN, unit)]);
    assert_eq!(
        command,
        format!(
            "/k --container-runtime-endpoint=unix:///run/x.sock --a --container-runtime-endpoint={SOCKET}"
        )
    );
}

#[test]
fn the_flag_wins_over_the_configuration() {
    let config = "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///old\ncgroupDriver: systemd\n";
    let files = [
        (
            OWN,
            "[Service]\nExecStart=/k --config=/c --container-runtime-endpoint=unix:///old2 --cgroup-driver=cgroupfs\n",
        ),
        ("/c", config),
    ];
    let wishes = KubeletWishes { cgroup_driver: Some("systemd".to_owned()), ..wishes() };
    let (unit, files) = edited(facts(Some(30), &files), &wishes);
    assert_eq!(flags::value(&unit, "container-runtime-endpoint").as_deref(), Some(SOCKET));
    assert_eq!(flags::value(&unit, "cgroup-driver").as_deref(), Some("systemd"));
    assert_eq!(files.keys().collect::<Vec<_>>(), [Path::new(OWN)]);
}

#[test]
fn a_driver_that_is_the_default_needs_no_word() {
    let wishes = KubeletWishes { cgroup_driver: Some("cgroupfs".to_owned()), ..wishes() };
    let (unit, _) = edited(facts(Some(20), &[(OWN, "[Service]\nExecStart=/k\n")]), &wishes);
    assert_eq!(flags::value(&unit, "cgroup-driver"), None);
}

#[test]
fn what_is_refused_says_where_and_what_to_do() {
    let told = |minor: u32, files: &[(&str, &str)]| {
        edit(&facts(Some(minor), files), &wishes()).unwrap_err().to_string()
    };
    assert_eq!(edit(&Facts::default(), &wishes()), Err(KubeletEditError::NoKubelet));
    assert!(told(20, &[]).starts_with("kubelet.service has no command line: "));
    let config = [(OWN, "[Service]\nExecStart=/k --config=/c\n"), ("/c", "kind: Pod\n")];
    assert_eq!(told(30, &config), "/c: has kind \"Pod\", and not KubeletConfiguration");
    let composed = [(OWN, "[Service]\nEnvironment=P=cni\nExecStart=/k --network-plugin=${P}\n")];
    assert_eq!(
        told(24, &composed),
        format!(
            "--network-plugin in {OWN}: --network-plugin stands in an argument of the unit that is put together from \
             several variables: change it there by hand, then run this again"
        )
    );
    // What is made anew at each start cannot be changed, and wins over a unit's own variables.
    let made = [
        (OWN, "[Service]\nEnvironmentFile=/run/kubelet.env\nExecStart=/k $KUBELET_ARGS\n"),
        ("/run/kubelet.env", "KUBELET_ARGS=--network-plugin=cni\n"),
    ];
    assert!(told(24, &made).contains("--network-plugin in /run/kubelet.env: "), "{}", told(24, &made));
    assert_eq!(one(20, &made).0, format!("/k --network-plugin=cni {TOLD}"));
    // A part of the unit that was not read.
    let mut unread = facts(Some(20), &[(OWN, "[Service]\nExecStart=/k\n")]);
    let unit = Unit { drop_ins: vec![LATE.into()], ..Unit::default() };
    unread.kubelet = Some(KubeletFacts { unit, ..KubeletFacts::default() });
    assert_eq!(edit(&unread, &wishes()), Err(KubeletEditError::NotRead(LATE.into())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_other_argument_and_line_stays(
        extra in prop::collection::vec(prop_oneof![
            Just("--network-plugin=cni"), Just("--network-plugin cni"), Just("--v=2"), Just("--node-ip 10.0.0.1"),
            Just("--container-runtime=docker"), Just("--container_runtime docker"), Just("--fail-swap-on"),
            Just("--container-runtime-endpoint=unix:///old"), Just("--pod-infra-container-image=a/b:c"), Just("--docker-only"),
            Just("--cgroup-driver cgroupfs"), Just("--cni-bin-dir=/a,/b"),
        ], 0..6),
        variable in prop_oneof![Just("KUBELET_KUBEADM_ARGS"), Just("KUBELET_EXTRA_ARGS"), Just("KUBELET_ARGS")],
        file in 0..4_usize, gap in prop_oneof![Just(" "), Just("  "), Just(" \\\n  ")], minor in 18..37_u32,
        config in any::<bool>(),
    ) {
        let all = extra.join(gap);
        let told = if config { " --config=/c" } else { "" };
        let exec = format!("ExecStart=/k --first{told} ${variable} --last\n");
        let (unit, env) = match file {
            0 => (format!("[Service]\n# one\nEnvironmentFile=-/env\n{exec}# two\n"), format!("# three\n{variable}=\"{all}\"\nB=1\n")),
            1 => (format!("[Service]\n# one\nEnvironment=\"{variable}={all}\" B=1\n{exec}# two\n"), String::new()),
            2 => (format!("[Service]\n{}# two\n", exec.replace(&format!("${variable}"), &all)), String::new()),
            _ => (format!("[Service]\n{exec}# two\n"), String::new()),
        };
        let path = if minor % 2 == 0 { OWN } else { PACKAGED };
        let text = "# four\nkind: KubeletConfiguration\nmaxPods: 5\n";
        let before = facts(Some(minor), &[(path, &unit), ("/env", &env), ("/c", text)]);
        let wishes = KubeletWishes {
            pause_image: Some("p/q:1".to_owned()), cgroup_driver: Some("systemd".to_owned()),
            log_max_size: Some("10M".to_owned()), log_max_files: Some(2), ..wishes()
        };
        let (new, files) = edited(before.clone(), &wishes);
        let old = Node::new(&before).unit();
        let ours = ["container-runtime", "container-runtime-endpoint", "pod-infra-container-image", "cgroup-driver",
            "network-plugin", "cni-bin-dir", "docker-only", "container-log-max-size", "container-log-max-files"];
        prop_assert_eq!(flags::others(&old, &ours), flags::others(&new, &ours));
        prop_assert_eq!(flags::value(&new, "container-runtime").is_some(), minor < 27);
        prop_assert_eq!(flags::value(&new, "pod-infra-container-image").is_some(), minor < 35);
        prop_assert!(minor < 24 || flags::value(&new, "network-plugin").is_none());
        let endpoint = flags::value(&new, "container-runtime-endpoint");
        prop_assert!(endpoint.as_deref() == Some(SOCKET) || (config && endpoint.is_none()));
        prop_assert!(!files.contains_key(Path::new(PACKAGED)));
        // Lines that say nothing of ours are there in their order.
        for (path, text) in files {
            let Some(old) = before.text(&path) else { continue };
            let mut after = text.split_inclusive('\n');
            for line in old.split_inclusive('\n').filter(|line| line.starts_with('#') || line.starts_with("B=")) {
                prop_assert!(after.any(|other| other == line), "{line:?} in\n{text}");
            }
        }
    }
}

#[test]
fn a_script_in_an_argument_is_no_kubelets_command_line() {
    let told = |command: &str| {
        let facts = facts(Some(20), &[(OWN, &format!("[Service]\nExecStart={command}\n"))]);
        edit(&facts, &wishes()).map(drop).map_err(|error| error.to_string())
    };
    for script in [
        "/bin/sh -c \"exec kubelet $ARGS\"",
        "/usr/bin/env bash -ec 'exec /usr/bin/kubelet --v=2'",
        "/bin/bash -o pipefail -c \"kubelet\"",
    ] {
        let error = told(script).unwrap_err();
        assert!(
            error.starts_with("kubelet.service starts `/") && error.contains("no kubelet's command line"),
            "{error}"
        );
    }
    for fine in
        ["/usr/bin/nice -n 5 /usr/bin/kubelet", "/bin/sh /opt/kubelet.sh", "/opt/hyperkube kubelet -c"]
    {
        assert_eq!(told(fine), Ok(()), "{fine}");
    }
}
