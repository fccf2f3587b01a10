//! Editing as pure functions; that containerd reads the outcome is for `tests/switch_containerd.rs`.

use proptest::prelude::*;

use super::*;

const OLD: Release = Release { major: 1, minor: 6 };
const NEW: Release = Release { major: 2, minor: 1 };

fn wishes() -> Wishes {
    Wishes {
        pause_image: Some("example.com/pause:3.9".to_owned()),
        systemd_cgroup: Some(true),
        ..Wishes::default()
    }
}

fn files(texts: &[&str]) -> Vec<ConfigFile> {
    let path = |at| match at {
        0 => PathBuf::from(CONFIG),
        at => PathBuf::from(format!("/etc/containerd/conf.d/{at}.toml")),
    };
    texts
        .iter()
        .enumerate()
        .map(|(at, text)| ConfigFile { path: path(at), text: (*text).to_owned() })
        .collect()
}

/// The texts after the edit, each parsed anew; a second edit changes nothing.
#[track_caller]
fn edited(texts: &[&str], wishes: &Wishes, release: Release) -> (Vec<String>, Edited) {
    let mut all = files(texts);
    let first = edit(&all, wishes, release).unwrap();
    for changed in &first.changed {
        let file = all.iter_mut().find(|file| file.path == changed.path).unwrap();
        assert_ne!(file.text, changed.text, "told as changed");
        file.text.clone_from(&changed.text);
        Lines::new(&file.text).plain().parse::<DocumentMut>().unwrap();
    }
    let second = edit(&all, wishes, release).unwrap();
    assert_eq!(second.changed, []);
    (all.into_iter().map(|file| file.text).collect(), first)
}

#[track_caller]
fn one(text: &str, release: Release) -> String {
    edited(&[text], &wishes(), release).0.remove(0)
}

#[test]
fn each_version_has_its_own_keys() {
    let v1 = "# mine\n[plugins.cri]\n  sandbox_image = 'k8s.gcr.io/pause:3.5' # old\n";
    assert_eq!(
        one(v1, OLD),
        "# mine\n[plugins.cri]\n  sandbox_image = \"example.com/pause:3.9\" # old\n\n\
         [plugins.cri.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
         [plugins.cri.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
    );
    let v2 = "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    \
              sandbox_image = \"registry.k8s.io/pause:3.6\"\n    \
              [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n      \
              runtime_type = \"io.containerd.runc.v2\"\n      \
              [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n        \
              SystemdCgroup = false\n";
    let expected = v2
        .replace("registry.k8s.io/pause:3.6", "example.com/pause:3.9")
        .replace("SystemdCgroup = false", "SystemdCgroup = true");
    for release in [OLD, NEW] {
        assert_eq!(one(v2, release), expected);
    }
    for version in [3, 4] {
        let text = format!(
            "version = {version}\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = 'a'\n\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  SystemdCgroup = false\n"
        );
        let expected = text.replace("'a'", "\"example.com/pause:3.9\"").replace("= false", "= true");
        assert_eq!(one(&text, NEW), expected);
    }
}

#[test]
fn an_empty_file_and_one_of_packages() {
    let text = one("", OLD);
    assert!(text.starts_with("[plugins.cri]\nsandbox_image"), "{text}");
    let docker =
        "#   Copyright\n#   you may not use this file\n\ndisabled_plugins = [\"cri\"]\n\n#root = \"/var\"\n";
    let text = one(docker, OLD);
    assert!(text.starts_with(&docker.replace("[\"cri\"]", "[]")), "{text}");
    for name in CRI_PLUGINS {
        let text = format!("version = 2\ndisabled_plugins = ['x.y', '{name}']\n");
        assert!(one(&text, NEW).starts_with("version = 2\ndisabled_plugins = ['x.y']\n"));
    }
}

#[test]
fn a_file_of_version_1_is_made_one_of_version_2_for_containerd_2() {
    let text = "# mine\ndisabled_plugins = [\"btrfs\", \"cri\"]\n\n[plugins.cri] # here\n  enable_selinux = true\n\
                [plugins.cri.cni]\n  conf_dir = \"/c\"\n[plugins.linux]\n  shim = \"x\"\n";
    let text = one(text, NEW);
    let begin = "version = 2\n# mine\ndisabled_plugins = [\"io.containerd.snapshotter.v1.btrfs\"]\n\n\
                 [plugins.\"io.containerd.grpc.v1.cri\"] # here\n  enable_selinux = true\n  \
                 sandbox_image = \"example.com/pause:3.9\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  conf_dir = \"/c\"\n";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.ends_with("[plugins.\"io.containerd.runtime.v1.linux\"]\n  shim = \"x\"\n"), "{text}");
}

#[test]
fn every_runtime_of_the_runc_type_and_no_other() {
    let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'nvidia'\n\
                [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes]\n\
                runc = { runtime_type = 'io.containerd.runc.v2' }\n\
                nvidia = { runtime_type = 'io.containerd.runc.v2', options = { BinaryName = '/usr/bin/n' } }\n\
                kata.runtime_type = 'io.containerd.kata.v2'\n";
    let (texts, told) = edited(&[text], &wishes(), OLD);
    let root: DocumentMut = texts[0].parse().unwrap();
    let option = |name| {
        let path = [
            "plugins",
            "io.containerd.grpc.v1.cri",
            "containerd",
            "runtimes",
            name,
            "options",
            "SystemdCgroup",
        ];
        get(root.as_item(), &path).and_then(Item::as_bool)
    };
    assert_eq!((option("runc"), option("nvidia"), option("kata")), (Some(true), Some(true), None));
    assert!(texts[0].contains("BinaryName = '/usr/bin/n'"));
    assert_eq!(told.notes.len(), 1);
    assert!(told.notes[0].contains("\"kata\""), "{:?}", told.notes);
}

#[test]
fn a_default_runtime_of_another_name_needs_no_runc() {
    let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'crun'\n\
                [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.crun]\n\
                runtime_type = 'io.containerd.runc.v2'\n";
    let text = one(text, OLD);
    assert!(text.contains("runtimes.crun.options]\nSystemdCgroup = true"), "{text}");
    assert!(!text.contains("runtimes.runc"), "{text}");
}

#[test]
fn the_oldest_shim_has_its_own_switch() {
    let text = "[plugins.cri]\nsystemd_cgroup = false\n[plugins.cri.containerd.default_runtime]\n\
                runtime_type = 'io.containerd.runtime.v1.linux'\n";
    let text = one(text, OLD);
    assert!(text.contains("[plugins.cri]\nsystemd_cgroup = true\n"), "{text}");
    assert!(!text.contains("SystemdCgroup"), "{text}");
}

#[test]
fn a_setting_is_made_where_it_takes_effect() {
    let main = "version = 2\nimports = ['conf.d/*.toml']\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'a'\n";
    let nvidia = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.nvidia]\n\
                  runtime_type = 'io.containerd.runc.v2'\n";
    // The last file has the section, and so all of it that counts.
    let (texts, _) = edited(&[main, nvidia], &wishes(), OLD);
    assert!(texts[1].contains("sandbox_image") && texts[0].contains("example.com"), "{texts:?}");
    assert!(texts[1].contains("runtimes.runc.options]"), "{texts:?}");
    // Here files add up.
    let (texts, _) = edited(&[main, nvidia], &wishes(), NEW);
    assert!(!texts[1].contains("sandbox_image") && texts[0].contains("example.com"), "{texts:?}");
    assert!(texts[1].contains("runtimes.nvidia.options]") && texts[0].contains("runtimes.runc.options]"));
    let image = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'b'\n";
    let (texts, _) = edited(&[main, image], &wishes(), NEW);
    assert!(texts.iter().all(|text| text.contains("example.com/pause:3.9")), "{texts:?}");
    // disabled_plugins add up everywhere.
    let (texts, _) =
        edited(&[main, "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n"], &wishes(), OLD);
    assert!(texts[1].contains("disabled_plugins = []"), "{texts:?}");
}

#[test]
fn mirrors_beside_a_config_path_become_files() {
    let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = ''\n\
                [plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = ['https://m.example', 'http://n:5000']\n\
                [plugins.'io.containerd.grpc.v1.cri'.registry.configs.'r.example:5000'.tls]\n\
                insecure_skip_verify = true\nca_file = '/ca.crt'\n\
                [plugins.'io.containerd.grpc.v1.cri'.registry.configs.'r.example:5000'.auth]\nusername = 'u'\n";
    let untouched = edited(&[text], &wishes(), OLD).1;
    assert_eq!((untouched.registries.len(), untouched.registry_config_path), (0, None));
    // One that reads no such files keeps what it says in place, whatever else stands there.
    let old = text.replace("config_path = ''", "config_path = '/x'");
    let (texts, told) = edited(&[&old], &wishes(), Release { major: 1, minor: 4 });
    assert_eq!((told.registries.len(), told.registry_config_path), (0, None));
    assert!(texts[0].contains("https://m.example") && texts[0].contains("insecure_skip_verify"), "{texts:?}");
    let wishes = Wishes { registry_config_path: Some("/etc/containerd/certs.d".to_owned()), ..wishes() };
    let (texts, told) = edited(&[text], &wishes, OLD);
    assert!(
        !texts[0].contains("mirrors") && !texts[0].contains("tls") && texts[0].contains("username = 'u'")
    );
    assert!(texts[0].contains("config_path = \"/etc/containerd/certs.d\""));
    assert_eq!(told.registry_config_path.as_deref(), Some("/etc/containerd/certs.d"));
    let hosts: Vec<(&str, String)> =
        told.registries.iter().map(|registry| (registry.folder(), registry.hosts_toml())).collect();
    assert_eq!(hosts[0].0, "docker.io");
    assert_eq!(
        hosts[0].1,
        "server = \"https://registry-1.docker.io\"\n\n[host.\"https://m.example\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n\
         [host.\"http://n:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
    assert_eq!(hosts[1].0, "r.example:5000");
    assert_eq!(
        hosts[1].1,
        "server = \"https://r.example:5000\"\n\n[host.\"https://r.example:5000\"]\n\
         capabilities = [\"pull\", \"resolve\"]\nca = \"/ca.crt\"\nskip_verify = true\n"
    );
}

#[test]
fn an_upgraded_file_keeps_its_comments() {
    let text = include_str!("../../../tests/switch/containerd/moves.toml");
    let wishes = Wishes { upgrade: true, ..wishes() };
    let (texts, told) = edited(&[text], &wishes, NEW);
    assert_eq!(texts[0], include_str!("../../../tests/switch/moves-upgraded.toml"));
    assert_eq!(
        told.notes,
        [
            "/etc/containerd/config.toml: containerd 2 has no plugin_dir: it is gone",
            "/etc/containerd/config.toml: containerd 2 has no plugins.\"io.containerd.runtime.v1.linux\": it is gone",
        ]
    );
    // A file of version 1 goes all the way, an older containerd keeps what it reads.
    let (texts, _) = edited(&["[plugins.cri]\nsandbox_image = 'a' # b\n"], &wishes, NEW);
    assert!(texts[0].starts_with("version = 3\n"), "{}", texts[0]);
    assert!(texts[0].contains("pinned_images]\nsandbox = \"example.com/pause:3.9\" # b\n"), "{}", texts[0]);
    let (texts, told) = edited(&["version = 2\n"], &wishes, OLD);
    assert!(texts[0].starts_with("version = 2\n") && told.notes.len() == 1);
}

#[test]
fn runtimes_of_before_have_names_after_an_upgrade() {
    let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.default_runtime]\n# ours\n\
                runtime_type = 'io.containerd.runc.v1'\nruntime_engine = '/usr/bin/x'\n\
                [plugins.'io.containerd.grpc.v1.cri'.containerd.untrusted_workload_runtime]\nruntime_type = ''\n";
    let (texts, told) = edited(&[text], &Wishes { upgrade: true, ..wishes() }, NEW);
    let root: DocumentMut = texts[0].parse().unwrap();
    let containerd = &root["plugins"]["io.containerd.cri.v1.runtime"]["containerd"];
    assert_eq!(containerd["default_runtime_name"].as_str(), Some("default"));
    assert_eq!(containerd["runtimes"]["default"]["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
    assert_eq!(containerd["runtimes"]["default"]["options"]["SystemdCgroup"].as_bool(), Some(true));
    assert!(containerd.get("untrusted_workload_runtime").is_none());
    assert!(texts[0].contains("# ours\n"));
    assert!(told.notes.iter().any(|note| note.contains("runtime_engine")), "{:?}", told.notes);
    assert!(
        told.notes.iter().any(|note| note.contains("had the shim io.containerd.runc.v1")),
        "{:?}",
        told.notes
    );
}

#[test]
fn runtimes_are_added_and_those_that_are_there_stay() {
    let nvidia = Runtime {
        name: "nvidia".to_owned(),
        kind: "io.containerd.runc.v2".to_owned(),
        binary: Some("/new".to_owned()),
    };
    let wishes = Wishes { runtimes: vec![nvidia], default_runtime: Some("nvidia".to_owned()), ..wishes() };
    for release in [OLD, NEW] {
        let (texts, told) = edited(&["version = 2\n"], &wishes, release);
        for part in [
            "runtimes.nvidia.options]\nBinaryName = \"/new\"\nSystemdCgroup = true",
            "default_runtime_name = \"nvidia\"",
            "runtimes.runc",
        ] {
            assert!(texts[0].contains(part), "{part} in {}", texts[0]);
        }
        assert_eq!(told.notes, Vec::<String>::new());
    }
    let text = include_str!("../../../tests/switch/containerd/nvidia.toml");
    let (texts, _) = edited(&[text], &wishes, OLD);
    assert!(texts[0].contains("/usr/bin/nvidia-container-runtime") && !texts[0].contains("/new"));
    let unknown = Wishes { runtimes: Vec::new(), ..wishes };
    let (texts, told) = edited(&["version = 2\n"], &unknown, NEW);
    assert!(!texts[0].contains("default_runtime_name"));
    assert!(told.notes[0].starts_with("no runtime \"nvidia\" is known"), "{:?}", told.notes);
}

#[test]
fn cni_folders_as_each_release_has_them() {
    let wish = |bin: &str| Wishes {
        cni_bin_dir: Some(bin.to_owned()),
        cni_conf_dir: Some("/etc/cni/net.d".to_owned()),
        ..Wishes::default()
    };
    // What containerd does by itself is not said.
    assert_eq!(edit(&files(&["version = 2\n"]), &wish("/opt/cni/bin"), OLD).unwrap().changed, []);
    let (texts, told) = edited(&["version = 2\n"], &wish("/a, /b"), OLD);
    assert!(texts[0].contains("bin_dir = \"/a\"\n") && told.notes[0].contains("/b"), "{told:?}");
    let (texts, told) = edited(
        &["version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = '/x'\n"],
        &wish("/a, /b"),
        NEW,
    );
    assert!(
        texts[0].contains("bin_dirs = [\"/a\", \"/b\"]") && !texts[0].contains("bin_dir ="),
        "{}",
        texts[0]
    );
    assert_eq!(told.expected[0].1, "[\"/a\", \"/b\"]");
    let (texts, _) = edited(
        &["version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/usr/lib/cni'\n"],
        &wish("/opt/cni/bin"),
        OLD,
    );
    assert!(texts[0].ends_with("bin_dir = \"/opt/cni/bin\"\n"), "{}", texts[0]);
}

#[test]
fn a_dump_that_is_not_as_wished_is_told() {
    let expected =
        [("plugins.\"a.b\".c".to_owned(), "true".to_owned()), ("d".to_owned(), "[\"x\"]".to_owned())];
    assert_eq!(check_dump("d = ['x']\n[plugins.'a.b']\nc = true\n", &expected), Ok(()));
    let told = check_dump("disabled_plugins = ['cri']\nd = ['y']\n", &expected).unwrap_err();
    assert_eq!(told[0], "containerd has no plugins.\"a.b\".c, which should be true");
    assert_eq!(told[1], "containerd makes d ['y'], and not [\"x\"]");
    assert!(told[2].starts_with("disabled_plugins has \"cri\""));
    let mirrors = "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/x'\n[plugins.'io.containerd.cri.v1.images'.registry.mirrors.a]\n";
    assert!(check_dump(mirrors, &[]).unwrap_err()[0].contains("switches CRI off"));
    assert!(check_dump("x = = 1", &[]).is_err());
}

#[test]
fn a_hosts_file_that_is_there_gets_what_it_lacks() {
    let registry = Registry {
        host: "docker.io".to_owned(),
        endpoints: vec!["https://a/".to_owned(), "https://b".to_owned()],
        tls: None,
    };
    let tls = |host: &str| {
        (host == "b").then(|| Tls {
            ca: vec!["/b.crt".to_owned(), "/c.crt".to_owned()],
            client: vec![("/x".to_owned(), "/y".to_owned())],
            ..Tls::default()
        })
    };
    let old =
        "# mine\nserver = \"https://z\"\r\n[host.'https://a'] # first\n  capabilities = ['pull']\n# end\n";
    let new = hosts_toml(&registry, Some(old), tls).unwrap();
    assert_eq!(
        new,
        format!(
            "{old}\n[host.\"https://b\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = [\"/b.crt\", \"/c.crt\"]\nclient = [[\"/x\", \"/y\"]]\n"
        )
    );
    assert_eq!(hosts_toml(&registry, Some(&new), tls).unwrap(), new);
    assert_eq!(hosts_toml(&registry, Some("x = = 1"), tls), None);
    let plain = Registry {
        host: "r:5000".to_owned(),
        tls: Some(Tls { skip_verify: true, plain_http: true, ..Tls::default() }),
        ..Registry::default()
    };
    assert_eq!(
        plain.hosts_toml(),
        "server = \"https://r:5000\"\n\n[host.\"https://r:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\nskip_verify = true\n\n\
         [host.\"http://r:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
}

#[test]
fn line_ends_and_marks_stay() {
    let text =
        "\u{feff}version = 2\r\n# mine\r\n[plugins.'io.containerd.grpc.v1.cri']\r\nsandbox_image = 'a'\r\n";
    let text = one(text, OLD);
    assert!(text.starts_with("\u{feff}version = 2\r\n# mine\r\n"), "{text:?}");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
}

#[test]
fn what_cannot_be_understood_is_told_with_its_place() {
    let told = |text: &str| edit(&files(&[text]), &wishes(), OLD).unwrap_err().to_string();
    let broken = told("version = 2\nx = = 1\n");
    assert!(
        broken.starts_with("/etc/containerd/config.toml is not valid TOML: line 2, column 5"),
        "{broken}"
    );
    assert!(told("version = 9\n").ends_with("has version = 9, and known are 1 to 4"));
    assert!(told("version = 2\nplugins = 1\n").contains("plugins is integer, and should be a table"));
    let misplaced =
        edited(&["[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'a'\n"], &wishes(), OLD).1;
    assert!(misplaced.notes[0].contains("has no `version = 2`"), "{:?}", misplaced.notes);
}

#[test]
fn imports_are_found_as_containerd_finds_them() {
    let file = &files(&["imports = ['a.toml', '/b.toml', 'conf.d/*.toml']\n"])[0];
    let found =
        |release| imports(file, release).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    assert_eq!(found(OLD), ["/etc/containerd/a.toml", "/b.toml", "conf.d/*.toml"]);
    assert_eq!(found(NEW)[2], "/etc/containerd/conf.d/*.toml");
}

/// A piece of a configuration that has nothing to do with ours.
fn foreign() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("# a comment\n".to_owned()),
        Just("\n".to_owned()),
        "k[a-z]{1,5}[0-9]{1,4}".prop_map(|key| format!("{key} = ['a', # b\n 'c']\n")),
        "k[a-z]{1,5}[0-9]{1,4}".prop_map(|key| format!("{key}  =  \"\"\"\n x = 1\n\"\"\" # y\n")),
    ];
    prop::collection::vec(line, 0..6).prop_map(|lines| {
        // No key twice.
        let mut seen = std::collections::BTreeSet::new();
        lines.into_iter().filter(|line| !line.starts_with('k') || seen.insert(line.clone())).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_not_ours_stays_byte_for_byte(
        top in foreign(), middle in foreign(), end in foreign(), carriage in any::<bool>(), new in any::<bool>(),
        version in 1..=3_i64,
    ) {
        let cri = if version == 1 { "cri" } else { "'io.containerd.grpc.v1.cri'" };
        let text = format!(
            "version = {version}\n{top}[other]\n{middle}[plugins.{cri}.cni]\nconf_dir = '/x' # here\n{end}"
        );
        prop_assume!(text.parse::<DocumentMut>().is_ok());
        let text = if carriage { text.replace('\n', "\r\n") } else { text };
        let release = if new { NEW } else { OLD };
        let (texts, _) = edited(&[&text], &wishes(), release);
        // Every line that was there is there, in its order; but for those that name the plugin anew.
        let renamed = version == 1 && new;
        let mut after = texts[0].split_inclusive('\n');
        for line in text.split_inclusive('\n') {
            if renamed && (line.contains("plugins.cri") || line.contains("version")) {
                continue;
            }
            prop_assert!(after.any(|other| other == line), "{line:?} of\n{text}\nin\n{}", texts[0]);
        }
    }
}

#[test]
fn the_image_of_sandboxes_that_is_said_is_found_in_any_version() {
    let file = |text: &str| ConfigFile { path: "/c".into(), text: text.to_owned() };
    let of = |texts: &[&str], release| {
        sandbox_image(&texts.iter().map(|text| file(text)).collect::<Vec<_>>(), release)
    };
    for (text, release) in [
        ("[plugins.cri]\nsandbox_image = 'p:1'\n", OLD),
        ("[plugins.cri]\nsandbox_image = 'p:1'\n", NEW),
        ("version = 2\nplugins.'io.containerd.grpc.v1.cri'.sandbox_image = 'p:1'\n", OLD),
        ("version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'p:1'\n", NEW),
    ] {
        assert_eq!(of(&[text], release).as_deref(), Some("p:1"), "{text}");
        let last = text.replace("p:1", "q:2");
        assert_eq!(of(&[text, &last], release).as_deref(), Some("q:2"), "{text}");
    }
    assert_eq!(of(&["version = 2\n"], OLD), None);
    assert_eq!(of(&["not = [\n"], OLD), None);
}

#[test]
fn the_cgroup_driver_that_is_said_is_found_in_any_version() {
    let of = |texts: &[&str], release| cgroup_driver(&files(texts), release);
    let v1 = "[plugins.cri.containerd.runtimes.runc.options]\nsystemdcgroup = true\n";
    let v2 = "version = 2\nplugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options.SystemdCgroup = true\n";
    let v3 = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
    for (text, release) in [(v1, OLD), (v2, OLD), (v2, NEW), (v3, NEW)] {
        assert_eq!(of(&[text], release), Some("systemd"), "{text}");
        assert_eq!(of(&[text, &text.replace("true", "false")], release), Some("cgroupfs"), "{text}");
        assert_eq!(of(&[text, "version = 2\n"], release), Some("systemd"), "{text}");
    }
    assert_eq!(of(&[], OLD), Some("cgroupfs"));
    assert_eq!(of(&[v1], NEW), Some("cgroupfs"), "it is not read");
    // The section of the last file counts whole, in 1.x alone.
    let other = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'a'\n";
    assert_eq!((of(&[v2, other], OLD), of(&[v2, other], NEW)), (Some("cgroupfs"), Some("systemd")));
    // Of several runtimes it is the default one's.
    let nvidia = v3.replace("runc", "nvidia");
    assert_eq!(of(&[&nvidia], NEW), Some("cgroupfs"));
    let named = format!(
        "{nvidia}[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'nvidia'\n"
    );
    assert_eq!(of(&[&named], NEW), Some("systemd"));
    let kata = "[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'kata'\n\
                [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n";
    assert_eq!(of(&[&format!("version = 3\n{kata}")], NEW), None, "it has a way of its own");
    let linux = "[plugins.cri]\nsystemd_cgroup = true\n[plugins.cri.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runtime.v1.linux'\n";
    assert_eq!(of(&[linux], OLD), Some("systemd"));
    assert_eq!(of(&["not = [\n"], OLD), None);
}

#[test]
fn the_cgroup_driver_that_a_running_containerd_has_is_found() {
    let config = |name: &str, options: serde_json::Value| serde_json::json!({ "containerd": { "defaultRuntimeName": "runc", "runtimes": { name: { "options": options } } } });
    let of = |name, options| running_cgroup_driver(&config(name, options));
    assert_eq!(of("runc", serde_json::json!({ "Root": "", "SystemdCgroup": false })), Some("cgroupfs"));
    assert_eq!(of("runc", serde_json::json!({ "systemdCgroup": true })), Some("systemd"));
    assert_eq!(of("runc", serde_json::json!({})), None);
    assert_eq!(of("runc", serde_json::Value::Null), None);
    assert_eq!(of("kata", serde_json::json!({ "SystemdCgroup": true })), None);
}
