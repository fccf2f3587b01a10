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

use nodectl::switch::containerd::{ConfigFile, Release, Wishes, edit};
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
    fn dump(&self, path: &Path) -> DocumentMut {
        self.run(&["-c", path.to_str().unwrap(), "config", "dump"]).parse().unwrap()
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

/// The files are edited in a folder of their own, and looked at.
#[track_caller]
fn edited(containerd: &Containerd, name: &str, texts: &[(&str, String)]) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<ConfigFile> = texts
        .iter()
        .map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            ConfigFile { path, text: text.clone() }
        })
        .collect();
    let told = edit(&files, &wishes(), containerd.release).unwrap();
    assert!(!told.changed.is_empty(), "{name}");
    for file in &told.changed {
        fs::write(&file.path, &file.text).unwrap();
    }
    let settings = containerd.settings(&containerd.dump(&files[0].path));
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

#[test]
fn containerd_reads_what_was_edited() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/switch/containerd");
    let mut names: Vec<PathBuf> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 8);
    for containerd in both() {
        for path in &names {
            let name = path.file_name().unwrap().to_str().unwrap();
            // Older releases do not take the newer version.
            if name == "version3.toml" && containerd.release.major < 2 {
                continue;
            }
            let settings = edited(&containerd, name, &[("config.toml", fs::read_to_string(path).unwrap())]);
            if name == "mirrors.toml" {
                assert_eq!(settings.mirrors, 0);
            }
            if name == "nvidia.toml" {
                assert!(settings.runtimes.iter().any(|(name, ..)| name == "nvidia"));
            }
        }
        edited(&containerd, "the default", &[("config.toml", containerd.run(&["config", "default"]))]);
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
