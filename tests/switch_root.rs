//! `nodectl switch-runtime --root`: nodes that are folders, as an image that is being built. Their files are changed
//! and put back; nothing of them is run, and nothing outside is touched, whatever their links say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::machine_files::{below, differences};
use support::node_folder::{NodeFolder, STATE};
use support::terminal::Terminal;

const NOTHING: [String; 0] = [];

/// Looked at, changed, changed again, and put back, with options that are needed each time.
#[track_caller]
fn there_and_back(node: &NodeFolder, options: &[&str], check: impl Fn(&NodeFolder)) {
    let with = |more: &[&str]| -> Vec<String> {
        more.iter().chain(options).map(|word| (*word).to_owned()).collect()
    };
    let call = |more: &[&str]| {
        let words = with(more);
        node.switch(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (before, outside) = (node.files(), below(&node.outside(), "/none"));
    let detected = call(&["--detect", "-o", "json"]).ended(0).json();
    assert_eq!(detected["root"], node.root().to_str().unwrap());
    let planned = call(&["--dry-run", "-o", "json"]).ended(0).json();
    assert_eq!((&planned["changed"], &planned["outcome"]), (&Value::from(true), &Value::from("planned")));
    let actions: Vec<&str> =
        planned["steps"].as_array().unwrap().iter().map(|step| step["action"].as_str().unwrap()).collect();
    assert!(actions.iter().all(|action| ["write-file", "remove-file"].contains(action)), "{actions:?}");
    assert_eq!(differences(&before, &node.files()), NOTHING);
    assert!(!node.path(STATE).exists(), "looking leaves nothing");

    let done = call(&["--yes", "-o", "json"]).ended(0).json();
    assert_eq!((&done["changed"], &done["outcome"]), (&Value::from(true), &Value::from("done")));
    assert_eq!((&done["steps"], &done["diff"]), (&planned["steps"], &planned["diff"]));
    let backup = done["backup_dir"].as_str().unwrap();
    assert!(Path::new(backup).starts_with(node.path(STATE)), "{backup}");
    assert_eq!(fs::metadata(backup).unwrap().mode() & 0o7777, 0o700);
    check(node);
    let changed = node.files();
    let again = call(&["--yes", "-o", "json"]).ended(0).json();
    assert_eq!((&again["changed"], &again["outcome"]), (&Value::from(false), &Value::from("nothing-to-do")));
    assert_eq!(differences(&changed, &node.files()), NOTHING);
    let history = node.switch(&["history", "-o", "json"]).ended(0).json();
    assert_eq!((history.as_array().unwrap().len(), &history[0]["outcome"]), (1, &Value::from("done")));
    assert_eq!(history[0]["backupDir"], backup);

    node.switch(&["rollback", "--yes"]).ended(0);
    assert_eq!(differences(&before, &node.files()), NOTHING);
    assert!(node.switch(&["history"]).ended(0).out.contains("rolled back"));
    assert_eq!(node.traces(), "", "nothing of it was run");
    assert_eq!(differences(&outside, &below(&node.outside(), "/none")), NOTHING);
}

#[test]
fn a_node_of_debian_packages() {
    let node = NodeFolder::debian();
    there_and_back(&node, &[], |node| {
        let config = node.read("/etc/containerd/config.toml");
        assert!(config.starts_with("# Docker's.\ndisabled_plugins = []\n#root = \"/x\"\n"), "{config}");
        assert!(config.contains("sandbox_image = \"k8s.gcr.io/pause:3.2\"\n"), "{config}");
        assert!(config.contains("SystemdCgroup = true\n"), "{config}");
        let like = fs::metadata(node.path("/etc/containerd/config.toml")).unwrap();
        assert_eq!((like.uid(), like.gid(), like.mode() & 0o7777), (7, 8, 0o644));
        assert_eq!(
            node.read("/var/lib/kubelet/kubeadm-flags.env"),
            "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2 \
             --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock\"\n"
        );
        let kubelet = node.read("/var/lib/kubelet/config.yaml");
        assert!(kubelet.contains("\n# Ours.\ncgroupDriver: systemd\n"), "{kubelet}");
        assert!(kubelet.ends_with("containerLogMaxSize: 7M\ncontainerLogMaxFiles: 4\n"), "{kubelet}");
        assert_eq!(fs::metadata(node.path("/var/lib/kubelet/config.yaml")).unwrap().mode() & 0o7777, 0o640);
        let hosts = node.read("/etc/containerd/certs.d/registry.example.com:5000/hosts.toml");
        assert!(hosts.contains("ca = \"/etc/docker/certs.d/registry.example.com:5000/ca.crt\""), "{hosts}");
        assert!(
            node.read("/etc/containerd/certs.d/docker.io/hosts.toml").contains("https://mirror.example.com")
        );
        let proxy = "/etc/systemd/system/containerd.service.d/http-proxy.conf";
        assert!(node.read(proxy).contains("hunter2"));
        assert_eq!(fs::metadata(node.path(proxy)).unwrap().mode() & 0o7777, 0o600);
        // What nobody asked to change.
        assert_eq!(node.read("/etc/default/kubelet"), "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.7\n");
    });
    let looked = node.switch(&["--dry-run"]).ended(0);
    assert!(looked.out.contains("insecure registries 10.0.0.0/8"), "{}", looked.out);
    assert!(looked.out.contains("containerd 1.6.33"), "{}", looked.out);
    for said in [looked, node.switch(&["--yes", "-o", "json"]), node.switch(&["--detect", "-o", "json"])] {
        assert!(!format!("{}{}", said.out, said.err).contains("hunter2"), "{}{}", said.out, said.err);
    }
}

#[test]
fn a_packaged_drop_in_is_left_where_it_is() {
    let node = NodeFolder::packaged();
    let options = ["--kubelet-version", "1.28.2", "--containerd-version", "1.7.27"];
    there_and_back(&node, &options, |node| {
        let flags = node.read("/var/lib/kubelet/kubeadm-flags.env");
        assert!(
            flags.contains("--container-runtime-endpoint=unix:///run/containerd/containerd.sock"),
            "{flags}"
        );
        assert!(!flags.contains("cri-dockerd") && !flags.contains("--container-runtime="), "{flags}");
        // A file of that name would hide the packaged one.
        assert!(!node.path("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf").exists());
        let config = node.read("/etc/containerd/config.toml");
        assert!(
            config.contains("registry.k8s.io/pause:3.9") && config.contains("SystemdCgroup = true"),
            "{config}"
        );
    });
    // For containerd 2 the same file becomes one of version 3.
    node.switch(&["--yes", "--kubelet-version", "1.28.2", "--containerd-version", "2.1.4"]).ended(0);
    let config = node.read("/etc/containerd/config.toml");
    assert!(
        config.contains("version = 3")
            && config.contains("'io.containerd.cri.v1.runtime'")
                | config.contains("\"io.containerd.cri.v1.runtime\""),
        "{config}"
    );
    assert_eq!(node.traces(), "");
}

#[test]
fn without_versions_the_endpoint_alone_is_told_and_that_is_said() {
    let node = NodeFolder::rpm();
    let looked = node.switch(&["--dry-run", "-o", "json"]).ended(0).json();
    let warnings = looked["warnings"].to_string();
    assert!(warnings.contains("containerd's version could not be found out"), "{warnings}");
    assert!(warnings.contains("the kubelet's version could not be found out"), "{warnings}");
    let problems = node.switch(&["--detect", "-o", "json"]).ended(0).json()["problems"].to_string();
    assert!(problems.contains("/var/lib/rpm/rpmdb.sqlite is RPM's to read: `/usr/bin/rpm "), "{problems}");
    assert!(problems.contains("; say it with --kubelet-version"), "{problems}");
    there_and_back(&node, &[], |node| {
        let all = node.read("/etc/sysconfig/kubelet") + &node.read("/var/lib/kubelet/kubeadm-flags.env");
        assert!(all.contains("--container-runtime-endpoint=unix:///run/containerd/containerd.sock"), "{all}");
        // A flag that only an older kubelet takes is told the truth where it stands, and not where it does not.
        assert!(all.starts_with("# Ours.\nKUBELET_EXTRA_ARGS=\"--container-runtime=remote --v=2"), "{all}");
    });
    // A mirror of this kind cannot be told to an old one.
    let old = [
        "--dry-run",
        "--kubelet-version=1.23.0",
        "--containerd-version=1.4.3",
        "--registry-mirror=https://m.example",
    ];
    let old = node.switch(&old).ended(0).out;
    assert!(old.contains("containerd 1.4 reads no hosts.toml files") && !old.contains("certs.d"), "{old}");
    for wrong in [&["--kubelet-version=x"][..], &["--containerd-version", "2"], &["--containerd-version="]] {
        let said = node.switch(&[&["--dry-run"], wrong].concat()).ended(2);
        assert!(said.err.contains("is no version"), "{wrong:?}: {}", said.err);
    }
}

#[test]
fn without_versions_and_flags_of_old_kubelets_none_are_added() {
    let node = NodeFolder::packaged();
    fs::remove_file(node.path("/etc/containerd/config.toml")).unwrap();
    there_and_back(&node, &[], |node| {
        let flags = node.read("/var/lib/kubelet/kubeadm-flags.env");
        assert!(
            flags.contains("--container-runtime-endpoint=unix:///run/containerd/containerd.sock"),
            "{flags}"
        );
        assert!(!flags.contains("--container-runtime="), "{flags}");
        // There was none, and nobody can be asked for the default one.
        let config = node.read("/etc/containerd/config.toml");
        assert!(config.starts_with("version = 2\n") && config.contains("SystemdCgroup = true"), "{config}");
    });
}

#[test]
fn with_versions_an_old_kubelet_is_told_more() {
    let node = NodeFolder::rpm();
    let options = ["--kubelet-version", "v1.23.6", "--containerd-version", "1.6.8"];
    there_and_back(&node, &options, |node| {
        let flags = node.read("/etc/sysconfig/kubelet");
        assert!(flags.contains("--container-runtime=remote") && flags.contains("--v=2"), "{flags}");
    });
}

#[test]
fn versions_come_from_the_database_of_rpm_which_stays_as_it_is() {
    let made = tempfile::tempdir().unwrap();
    let spec = "Name: kubelet\nVersion: 1.23.6\nRelease: 0\nSummary: x\nLicense: x\nBuildArch: noarch\n%description\n%files\n\
                %package -n containerd.io\nSummary: x\nVersion: 1.6.8\n%description -n containerd.io\n%files -n containerd.io\n";
    fs::write(made.path().join("node.spec"), spec).unwrap();
    let make = "rpmbuild --quiet -bb --define \"_topdir $PWD\" node.spec
        rpm --dbpath \"$PWD/db\" --justdb --nodeps -i RPMS/noarch/*.rpm";
    let output = Command::new("sh").args(["-ec", make]).current_dir(made.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let database = fs::read(made.path().join("db/rpmdb.sqlite")).unwrap();
    for folder in ["/var/lib/rpm", "/usr/lib/sysimage/rpm"] {
        let node = NodeFolder::rpm();
        fs::remove_dir_all(node.path("/var/lib/rpm")).unwrap();
        fs::create_dir_all(node.path(folder)).unwrap();
        fs::write(node.path(&format!("{folder}/rpmdb.sqlite")), &database).unwrap();
        // The first place is a link to the second where there are both.
        if folder != "/var/lib/rpm" {
            node.link("/var/lib/rpm", "../../usr/lib/sysimage/rpm");
        }
        there_and_back(&node, &[], |node| {
            let flags = node.read("/etc/sysconfig/kubelet");
            assert!(flags.contains("--container-runtime=remote"), "{flags}");
        });
        let detected = node.switch(&["--detect", "-o", "json"]).ended(0).json();
        assert_eq!(detected["kubelet"]["version"], "v1.23.6", "{detected}");
        assert_eq!(detected["containerd"]["version"], "1.6.8", "{detected}");
        assert_eq!(detected["docker"]["version"], Value::Null, "{detected}");
    }
    // In a namespace of mounts, where nobody else leaves anything.
    let node = NodeFolder::rpm();
    fs::write(node.path("/var/lib/rpm/rpmdb.sqlite"), &database).unwrap();
    let script = format!(
        "mount -t tmpfs none /var/tmp && {} switch-runtime --detect --root {} && ls -A /var/tmp",
        env!("CARGO_BIN_EXE_nodectl"),
        node.root().display()
    );
    let words = ["--mount", "--propagation", "private", "sh", "-c", &script];
    let said = support::said::Said::of(&Command::new("unshare").args(words).output().unwrap()).ended(0).out;
    assert!(said.contains("v1.23.6") && !said.contains("nodectl-rpm"), "no copy is left: {said}");
}

#[test]
fn what_somebody_edits_meanwhile_is_not_lost() {
    let (flags, config) = ("/var/lib/kubelet/kubeadm-flags.env", "/etc/containerd/config.toml");
    // While the question stands.
    let node = NodeFolder::debian();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodectl"));
    command.args(["switch-runtime", "--root"]).arg(node.root());
    let mut terminal = Terminal::start(&command);
    terminal.wait_shown("Go on?");
    let edited = format!("{}# Mine.\n", node.read(flags));
    node.put(flags, &edited);
    let now = node.files();
    terminal.type_in("y");
    assert_eq!(terminal.wait().code(), Some(3), "{}", terminal.shown());
    terminal.wait_shown(&format!("error: files were changed since they were looked at: {flags}"));
    assert_eq!(differences(&now, &node.files()), NOTHING);

    // While the change lies there, cut short as it is about to write a file.
    let plan = node.switch(&["--dry-run", "-o", "json"]).ended(0).json();
    let at = plan["steps"].as_array().unwrap().iter().position(|step| step["path"] == config).unwrap();
    assert_eq!(node.killed(2 + 2 * at, &["--yes"]).code, None);
    let (old, other) = (node.read(config), node.read(flags));
    node.put(config, &format!("{old}# Mine.\n")).put(flags, &format!("{other}# Mine, too.\n"));
    node.switch(&["--resume"])
        .ended(3)
        .told("files were changed since the change ")
        .told(&format!(" was planned: {config}, {flags}\n"));
    for words in [&["--rollback"][..], &["--rollback", "--dry-run"]] {
        node.switch(words)
            .ended(3)
            .told(", and would be as before the change ")
            .told(&format!(": {config}\n"));
    }
    node.switch(&["--rollback", "--force"]).ended(0);
    assert_eq!((node.read(config), node.read(flags)), (old.clone(), format!("{other}# Mine, too.\n")));

    // What somebody has put back by hand is as it is to be.
    node.switch(&["--yes"]).ended(0);
    node.put(config, &old);
    node.switch(&["rollback", "--yes"]).ended(0);
    assert_eq!(node.read(config), old);
    let name =
        node.switch(&["history", "-o", "json"]).ended(0).json()[1]["name"].as_str().unwrap().to_owned();
    let again = node.switch(&["rollback", &name, "--yes", "-o", "json"]).ended(0).json();
    assert_eq!((&again["outcome"], &again["steps"]), (&Value::from("nothing-to-do"), &serde_json::json!([])));
}

#[test]
fn what_is_asked_is_refused_where_it_cannot_be() {
    let node = NodeFolder::debian();
    // Its package database says 1.20.
    let two = node.switch(&["--yes", "--containerd-version", "2.1.0"]).ended(3);
    assert!(two.err.contains("error: kubelet 1.20 speaks CRI v1alpha2 alone"), "{}", two.err);
    let other = node.switch(&["--yes", "--from", "cri-dockerd"]).ended(3);
    assert!(other.err.contains("--from cri-dockerd is asked"), "{}", other.err);
    let nowhere = Command::new(env!("CARGO_BIN_EXE_nodectl"))
        .args(["switch-runtime", "--dry-run", "--root", "/nowhere/at/all"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    let empty = NodeFolder::empty();
    let said = empty.switch(&["--yes"]).ended(3);
    assert!(said.err.contains("containerd is not installed"), "{}", said.err);
    let broken = NodeFolder::debian();
    broken.put("/etc/containerd/config.toml", "disabled_plugins = [\n");
    let said = broken.switch(&["--yes"]).ended(3);
    assert!(said.err.contains("/etc/containerd/config.toml is not valid TOML"), "{}", said.err);
}

#[test]
fn nothing_of_it_is_run() {
    let node = NodeFolder::debian();
    for arguments in [&["--detect"][..], &["--dry-run"], &["--yes", "--images=all"], &["rollback", "--yes"]] {
        let (said, started) = node.starts(arguments);
        said.ended(0);
        assert_eq!(started.len(), 1, "{arguments:?}: nodectl alone: {started:?}");
    }
    assert_eq!(node.traces(), "");
}

#[test]
fn links_lead_nowhere_else() {
    let outside_is_left = |node: &NodeFolder| {
        let files = below(&node.outside(), "/none");
        assert_eq!(files.len(), 2, "{files:?}");
        assert_eq!(
            fs::read_to_string(node.outside().join("file")).unwrap(),
            "disabled_plugins = [\"cri\"]\n"
        );
    };
    let prepared = || {
        let node = NodeFolder::debian();
        fs::write(node.outside().join("file"), "disabled_plugins = [\"cri\"]\n").unwrap();
        node
    };
    // A folder of configuration, and the one of the state, that lie outside.
    for folder in ["/etc/containerd", "/etc/systemd/system/containerd.service.d", STATE, "/var/lib/nodectl"] {
        let node = prepared();
        fs::remove_dir_all(node.path(folder)).ok();
        node.link(folder, node.outside());
        for arguments in [&["--dry-run"][..], &["--yes"]] {
            let said = node.switch(arguments).ended(3);
            assert!(said.err.contains("is a link to what is not there"), "{folder}: {}", said.err);
        }
        outside_is_left(&node);
        assert_eq!(differences(&node.files(), &node.files()), NOTHING);
    }
    // Up and out: in the folder that is its own root.
    let node = prepared();
    fs::remove_file(node.path("/etc/containerd/config.toml")).unwrap();
    let up =
        Path::new("../../../../../../../..").join(node.outside().join("file").strip_prefix("/").unwrap());
    node.link("/etc/containerd/config.toml", up);
    let said = node.switch(&["--yes"]).ended(3);
    assert!(said.err.contains("/etc/containerd/config.toml"), "{}", said.err);
    outside_is_left(&node);
    // Round in circles.
    let node = prepared();
    fs::remove_file(node.path("/etc/containerd/config.toml")).unwrap();
    node.link("/etc/containerd/config.toml", "/etc/containerd/other")
        .link("/etc/containerd/other", "config.toml");
    let said = node.switch(&["--yes"]).ended(3);
    assert!(
        said.err.contains("/etc/containerd/config.toml") && said.err.contains("symbolic links"),
        "{}",
        said.err
    );
    outside_is_left(&node);
    // What is linked within the node is changed where it is.
    let node = prepared();
    fs::create_dir_all(node.path("/srv")).unwrap();
    fs::rename(node.path("/etc/containerd"), node.path("/srv/containerd")).unwrap();
    fs::rename(node.path("/var/lib/kubelet"), node.path("/srv/kubelet")).unwrap();
    node.link("/etc/containerd", "/srv/containerd").link("/var/lib/kubelet", "../../srv/kubelet");
    node.link("/var/lib/nodectl", "/srv/state").put("/srv/state/.keep", "");
    let before = node.files();
    let done = node.switch(&["--yes", "-o", "json"]).ended(0).json();
    assert!(
        done["backup_dir"].as_str().unwrap().starts_with(node.path("/srv/state/switch").to_str().unwrap())
    );
    assert!(node.read("/srv/containerd/config.toml").contains("SystemdCgroup = true"));
    assert!(node.read("/srv/kubelet/kubeadm-flags.env").contains("containerd.sock"));
    assert!(node.path("/etc/containerd").is_symlink() && node.path("/var/lib/kubelet").is_symlink());
    node.switch(&["rollback", "--yes"]).ended(0);
    let left = differences(&before, &node.files());
    assert!(left.iter().all(|line| line.starts_with("+ /srv/state/switch")), "{left:?}");
    outside_is_left(&node);
}

#[test]
fn a_state_that_somebody_else_has_made_leads_nowhere_else() {
    let secret = "s3cret of the machine\n";
    let node = NodeFolder::debian();
    fs::write(node.outside().join("secret"), secret).unwrap();
    // A lock that is a link would be emptied.
    node.link(&format!("{STATE}/lock"), node.outside().join("secret"));
    node.switch(&["--yes"]).ended(3);
    fs::remove_file(node.path(&format!("{STATE}/lock"))).unwrap();
    // A journal that is a link would be cut and written to.
    node.link(&format!("{STATE}/20200101T000000Z/journal"), node.outside().join("secret"));
    for arguments in [&["--dry-run"][..], &["--rollback"]] {
        node.switch(arguments)
            .ended(0)
            .told("warning: an earlier change is passed over: cannot open the journal");
    }
    assert!(node.switch(&["history"]).ended(0).out.contains("cannot be read"));
    node.switch(&["rollback", "--yes"]).ended(3).told("Too many levels of symbolic links");
    fs::remove_dir_all(node.path(&format!("{STATE}/20200101T000000Z"))).unwrap();
    // A folder of changes that is a link.
    node.switch(&["--yes"]).ended(0);
    let name =
        node.switch(&["history", "-o", "json"]).ended(0).json()[0]["name"].as_str().unwrap().to_owned();
    let change = node.path(&format!("{STATE}/{name}"));
    fs::rename(&change, node.outside().join("change")).unwrap();
    node.link(&format!("{STATE}/{name}"), node.outside().join("change"));
    assert_eq!(node.switch(&["history", "-o", "json"]).ended(0).json(), serde_json::json!([]));
    fs::remove_file(&change).unwrap();
    fs::rename(node.outside().join("change"), &change).unwrap();
    // Copies that are files of the machine: by a name that leads there, by a link, by a linked folder.
    let journal = fs::read_to_string(change.join("journal")).unwrap();
    let up = Path::new("../../../../../../../../../../../..")
        .join(node.outside().join("secret").strip_prefix("/").unwrap());
    let led = journal.replacen("\"copy\":\"0\"", &format!("\"copy\":\"{}\"", up.display()), 1);
    assert_ne!(led, journal);
    fs::write(change.join("journal"), led).unwrap();
    for words in [&["rollback", "--yes"][..], &["rollback", "--dry-run"]] {
        let said = node.switch(words).ended(3).told("is no copy of a file");
        assert!(!said.out.contains("s3cret"), "{}", said.out);
    }
    fs::write(change.join("journal"), &journal).unwrap();
    fs::rename(change.join("copies/0"), change.join("0")).unwrap();
    std::os::unix::fs::symlink(node.outside().join("secret"), change.join("copies/0")).unwrap();
    for words in [&["rollback", "--yes", "--force"][..], &["rollback", "--dry-run", "--force"]] {
        let said = node.switch(words).ended(3).told("is no copy of a file");
        assert!(!said.out.contains("s3cret"), "{}", said.out);
    }
    fs::write(change.join("journal"), &journal).unwrap();
    fs::rename(change.join("copies"), change.join("were")).unwrap();
    std::os::unix::fs::symlink(node.outside(), change.join("copies")).unwrap();
    let said = node.switch(&["rollback", "--yes"]).ended(3);
    assert!(said.err.contains("the copies that belong to it are not there"), "{}", said.err);
    assert!(!node.read("/etc/containerd/config.toml").contains("s3cret"));
    assert_eq!(fs::read_to_string(node.outside().join("secret")).unwrap(), secret);
    assert_eq!(fs::read_dir(node.outside()).unwrap().count(), 1);
}

#[test]
fn killed_at_every_step_it_comes_to_either_end() {
    let node = NodeFolder::debian();
    let before = node.files();
    let steps = node.switch(&["--dry-run", "-o", "json"]).ended(0).json()["steps"].as_array().unwrap().len();
    node.switch(&["--yes"]).ended(0);
    let changed = node.files();
    node.switch(&["rollback", "--yes"]).ended(0);
    // The last write says that it is done.
    for at in 2..steps * 2 + 2 {
        assert_eq!(node.killed(at, &["--yes"]).code, None, "at {at}");
        let found = node.switch(&["--yes"]).ended(3);
        assert!(found.err.contains("was cut short after"), "{}", found.err);
        node.switch(&["--dry-run"]).ended(3);
        if at % 2 == 0 {
            node.switch(&["--resume"]).ended(0);
            // Times are each run's own.
            let mut differences = differences(&changed, &node.files());
            differences.retain(|line| !line.ends_with(": mtime"));
            assert_eq!(differences, NOTHING, "at {at}");
            node.switch(&["rollback", "--yes"]).ended(0);
        } else {
            node.switch(&["--rollback"]).ended(0);
        }
        assert_eq!(differences(&before, &node.files()), NOTHING, "at {at}");
        assert_eq!(node.leftovers(), Vec::<std::path::PathBuf>::new());
    }
    assert_eq!(node.traces(), "");
}

#[test]
fn one_at_a_time_and_not_where_nothing_can_be_written() {
    let node = NodeFolder::debian();
    node.switch(&["--yes"]).ended(0);
    node.switch(&["rollback", "--yes"]).ended(0);
    let lock = fs::File::open(node.path(&format!("{STATE}/lock"))).unwrap();
    lock.lock().unwrap();
    let said = node.switch(&["--yes"]).ended(3);
    assert!(said.err.contains("another nodectl switch-runtime is at work"), "{}", said.err);
    // To look is no work.
    node.switch(&["--dry-run"]).ended(0);
    drop(lock);

    // Read-only, in a namespace of mounts that ends with the command.
    let before = below(&node.root(), "/none");
    let mounted = |arguments: &str| {
        let script = format!(
            "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec {1} switch-runtime --root {0} {arguments}",
            node.root().display(),
            env!("CARGO_BIN_EXE_nodectl")
        );
        let words = ["--mount", "--propagation", "private", "sh", "-c", &script];
        support::said::Said::of(&Command::new("unshare").args(words).output().unwrap())
    };
    let said = mounted("--yes").ended(3);
    assert!(said.err.contains("Read-only file system"), "{}", said.err);
    assert!(mounted("--dry-run").ended(0).out.contains("+SystemdCgroup = true"));
    assert!(mounted("history").ended(0).out.contains("rolled back"));
    mounted("--detect").ended(0);
    assert_eq!(differences(&before, &below(&node.root(), "/none")), NOTHING);
}

#[test]
fn what_is_refused_leaves_nothing_and_what_contradicts_itself_is_wrong_usage() {
    let empty = NodeFolder::empty();
    empty.switch(&["--yes"]).ended(3).told("containerd is not installed on this node");
    assert!(!empty.path("/var").exists());
    for words in [&["--detect", "history"][..], &["--dry-run", "--check"], &["--resume", "rollback"]] {
        empty.switch(words).ended(2).told("do not go together");
    }
    let node = NodeFolder::debian();
    for (value, told) in [
        (
            "https://u:s3cret@m.example",
            "***@m.example: this is no mirror: user and password cannot be carried",
        ),
        ("https://m.example/?a=b", "this is no mirror"),
    ] {
        let said = node.switch(&["--dry-run", "-o", "json", "--registry-mirror", value]).ended(2).told(told);
        assert!(!format!("{}{}", said.out, said.err).contains("s3cret"), "{}", said.out);
    }
}

#[test]
fn ctrl_c_at_the_question_is_a_no_and_leaves_the_terminal_as_it_was() {
    let node = NodeFolder::debian();
    let before = node.files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodectl"));
    command.args(["switch-runtime", "--root"]).arg(node.root());
    let mut terminal = Terminal::start(&command);
    terminal.wait_shown("Go on?");
    terminal.wait_raw();
    terminal.type_in("\u{3}");
    assert_eq!(terminal.wait().code(), Some(3), "{}", terminal.shown());
    terminal.wait_shown("error: not confirmed; nothing was changed");
    let shown = terminal.shown();
    assert!(shown.rfind("\u{1b}[?25h") > shown.rfind("\u{1b}[?25l"), "the cursor is there again: {shown:?}");
    terminal.assert_restored();
    assert_eq!(differences(&before, &node.files()), NOTHING);
}
