//! containerd's configuration as it is edited, read back by containerd 1.6 and 2.1 themselves: a corpus of
//! files as they are found, and what they import.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nodectl::switch::{
    containerd::{ConfigFile, Release, Runtime, Wishes, cgroup_driver, check_dump, edit},
    lines::unified_diff,
};
use toml_edit::{DocumentMut, Item};

const IMAGE: &str = "registry.example/pause:9";

/// A containerd: its program and its release.
struct Containerd {
    program: PathBuf,
    release: Release,
}

fn both() -> [Containerd; 2] {
    let hack = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/containerd2.sh");
    let folder = Command::new(hack).output().unwrap();
    assert!(folder.status.success(), "{}", String::from_utf8_lossy(&folder.stderr));
    let folder = String::from_utf8(folder.stdout).unwrap();
    [
        Containerd { program: "containerd".into(), release: Release { major: 1, minor: 6 } },
        Containerd {
            program: Path::new(folder.trim()).join("containerd"),
            release: Release { major: 2, minor: 1 },
        },
    ]
}

impl Containerd {
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The whole configuration that follows from a file.
    fn dump(&self, path: &Path) -> String {
        self.run(&["-c", path.to_str().unwrap(), "config", "dump"])
    }

    fn settings(&self, dump: &DocumentMut) -> Settings {
        let plugins = &dump["plugins"];
        let (images, runtime) = if self.release.major < 2 {
            (&plugins["io.containerd.grpc.v1.cri"], &plugins["io.containerd.grpc.v1.cri"])
        } else {
            (&plugins["io.containerd.cri.v1.images"], &plugins["io.containerd.cri.v1.runtime"])
        };
        let pause = if self.release.major < 2 {
            &images["sandbox_image"]
        } else {
            &images["pinned_images"]["sandbox"]
        };
        let runtimes = runtime["containerd"]["runtimes"].as_table_like().unwrap();
        Settings {
            pause: pause.as_str().unwrap().to_owned(),
            runtimes: runtimes
                .iter()
                .map(|(name, runtime)| {
                    let systemd = runtime.get("options").and_then(|options| options.get("SystemdCgroup"));
                    let kind = runtime["runtime_type"].as_str().unwrap().to_owned();
                    (name.to_owned(), kind, systemd.and_then(Item::as_bool))
                })
                .collect(),
            mirrors: images["registry"]
                .get("mirrors")
                .and_then(Item::as_table_like)
                .map_or(0, toml_edit::TableLike::len),
            disabled: dump["disabled_plugins"].to_string(),
        }
    }
}

/// What of a configuration is looked at.
#[derive(Debug)]
struct Settings {
    pause: String,
    /// Name, type, `SystemdCgroup`.
    runtimes: Vec<(String, String, Option<bool>)>,
    mirrors: usize,
    disabled: String,
}

fn wishes() -> Wishes {
    Wishes { pause_image: Some(IMAGE.to_owned()), systemd_cgroup: Some(true), ..Wishes::default() }
}

/// The files are edited in a folder of their own; what containerd makes of them.
#[track_caller]
fn dumped(containerd: &Containerd, name: &str, texts: &[(&str, String)], wishes: &Wishes) -> String {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<ConfigFile> = texts
        .iter()
        .map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            ConfigFile { path, text: text.clone() }
        })
        .collect();
    let told = edit(&files, wishes, containerd.release).unwrap();
    assert!(!told.changed.is_empty(), "{name}");
    for file in &told.changed {
        fs::write(&file.path, &file.text).unwrap();
    }
    let dump = containerd.dump(&files[0].path);
    let checked = check_dump(&dump, &told.expected);
    assert_eq!(checked, Ok(()), "{name} with {:?}: {:#?}", containerd.release, told.changed);
    assert!(told.expected.len() >= 2, "{:?}", told.expected);
    // A wish that is not met is told.
    let wrong: Vec<(String, String)> =
        told.expected.iter().map(|(key, _)| (key.clone(), "\"another\"".to_owned())).collect();
    assert_eq!(check_dump(&dump, &wrong).unwrap_err().len(), wrong.len());
    dump
}

/// The files are edited, and looked at.
#[track_caller]
fn edited(containerd: &Containerd, name: &str, texts: &[(&str, String)]) -> Settings {
    let dump = dumped(containerd, name, texts, &wishes());
    let settings = containerd.settings(&dump.parse().unwrap());
    let told = format!("{name} with {:?}: {settings:?}", containerd.release);
    assert_eq!(settings.pause, IMAGE, "{told}");
    assert!(!settings.disabled.contains("cri"), "{told}");
    assert!(settings.runtimes.iter().any(|(name, ..)| name == "runc"), "{told}");
    for (_, kind, systemd) in &settings.runtimes {
        assert!(kind.starts_with("io.containerd.runc.v"), "{told}");
        assert_eq!(*systemd, Some(true), "{told}");
    }
    settings
}

/// The corpus, and what each containerd says by itself.
fn corpus(containerd: &Containerd) -> Vec<(String, String)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/switch/containerd");
    let mut names: Vec<PathBuf> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 9);
    let text = |path: &PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
    };
    let mut all: Vec<(String, String)> = names.iter().map(text).collect();
    // Older releases do not take the newer version.
    all.retain(|(name, _)| name != "version3.toml" || containerd.release.major >= 2);
    all.push(("the default".to_owned(), containerd.run(&["config", "default"])));
    all
}

#[test]
fn containerd_reads_what_was_edited() {
    for containerd in both() {
        for (name, text) in corpus(&containerd) {
            let settings = edited(&containerd, &name, &[("config.toml", text)]);
            if name == "mirrors.toml" {
                assert_eq!(settings.mirrors, 0);
            }
            if name == "nvidia.toml" {
                assert!(settings.runtimes.iter().any(|(name, ..)| name == "nvidia"));
            }
        }
    }
}

#[test]
fn the_cgroup_driver_of_a_file_is_the_one_that_containerd_takes() {
    let mut told = Vec::new();
    for containerd in both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        // As they are found, and with the other driver.
        let both = corpus(&containerd).into_iter().flat_map(|(name, text)| {
            let file = ConfigFile { path: path.clone(), text };
            let edited = edit(std::slice::from_ref(&file), &wishes(), containerd.release).unwrap().changed;
            [Some(file), edited.into_iter().next()]
                .into_iter()
                .flatten()
                .map(move |file| (name.clone(), file))
        });
        for (name, file) in both {
            fs::write(&path, &file.text).unwrap();
            let dump: DocumentMut = containerd.dump(&path).parse().unwrap();
            let section = if containerd.release.major < 2 { "grpc.v1.cri" } else { "cri.v1.runtime" };
            // A file that disables CRI: containerd does not tell what it would make of it.
            let Some(section) = dump["plugins"].get(format!("io.containerd.{section}")) else { continue };
            let runtime = section["containerd"]["default_runtime_name"].as_str().unwrap();
            let settings = containerd.settings(&dump);
            let found = settings.runtimes.iter().find(|(name, ..)| name == runtime).unwrap();
            let driver = if found.2 == Some(true) { "systemd" } else { "cgroupfs" };
            assert_eq!(cgroup_driver(&[file], containerd.release), Some(driver), "{name}: {settings:?}");
            told.push(driver);
        }
    }
    assert!(told.contains(&"systemd") && told.contains(&"cgroupfs"), "{told:?}");
}

#[test]
fn containerd_reads_every_wish() {
    let all = Wishes {
        registry_config_path: Some("/etc/containerd/certs.d".to_owned()),
        cni_bin_dir: Some("/opt/a/bin,/opt/b/bin".to_owned()),
        cni_conf_dir: Some("/etc/a".to_owned()),
        restrict_oom_score_adj: Some(true),
        runtimes: vec![
            Runtime {
                name: "nvidia".to_owned(),
                kind: "io.containerd.runc.v2".to_owned(),
                binary: Some("/usr/bin/nvidia-container-runtime".to_owned()),
            },
            Runtime { name: "kata".to_owned(), kind: "io.containerd.kata.v2".to_owned(), binary: None },
        ],
        default_runtime: Some("nvidia".to_owned()),
        ..wishes()
    };
    for containerd in both() {
        for upgrade in [false, true] {
            for (name, text) in corpus(&containerd) {
                let wishes = Wishes { upgrade, ..all.clone() };
                let dump: DocumentMut =
                    dumped(&containerd, &name, &[("config.toml", text)], &wishes).parse().unwrap();
                let settings = containerd.settings(&dump);
                let of = |name: &str| {
                    settings.runtimes.iter().find(|(own, ..)| own == name).map(|(_, _, systemd)| *systemd)
                };
                // Those that take it, whoever brought them, and containerd's own beside them.
                assert_eq!(
                    (of("runc"), of("nvidia"), of("kata")),
                    (Some(Some(true)), Some(Some(true)), Some(None)),
                    "{name}"
                );
            }
        }
    }
}

/// What a file of an older version says is what it says as one of version 3.
#[test]
fn containerd_makes_the_same_of_an_upgraded_file() {
    let [old, new] = both();
    let mut all = corpus(&new);
    all.push(("the default of 1.6".to_owned(), old.run(&["config", "default"])));
    all.push((
        "everything that moves".to_owned(),
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/switch/containerd/moves.toml"))
            .unwrap(),
    ));
    for (name, text) in all {
        let files = [("config.toml", text)];
        let made_of = |upgrade: bool| {
            let dump = dumped(&new, &name, &files, &Wishes { upgrade, ..wishes() });
            let mut dump: DocumentMut = dump.parse().unwrap();
            // What containerd 2 does not know any more it passes on here, and calls by the old name.
            dump.remove("disabled_plugins");
            let plugins = dump["plugins"].as_table_mut().unwrap();
            plugins.remove("io.containerd.runtime.v1.linux");
            plugins.remove("io.containerd.snapshotter.v1.aufs");
            plugins.remove("io.containerd.monitor.container.v1.restart");
            dump.to_string()
        };
        let diff = unified_diff(&name, Some(&made_of(false)), Some(&made_of(true)));
        assert!(diff.is_empty(), "{diff}");
    }
}

#[test]
fn containerd_reads_what_was_edited_in_files_that_are_imported() {
    let main =
        "version = 2\nimports = [\"{}\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"a\"\n";
    let main = main.replace("{}", "more.toml");
    for more in [
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\n\
         runtime_type = \"io.containerd.runc.v2\"\n",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"b\"\n",
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = false\n",
    ] {
        for containerd in both() {
            edited(&containerd, more, &[("config.toml", main.clone()), ("more.toml", more.to_owned())]);
        }
    }
}
