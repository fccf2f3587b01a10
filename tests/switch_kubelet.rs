//! kubelet's files as installers, clouds and people write them, moved to containerd: what changes, as a diff, and
//! what the kubelet is told then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use nodectl::switch::{
    facts::{Facts, KubeletFacts},
    kubelet::{KubeletWishes, edit},
    lines::unified_diff,
    systemd::{
        flags::value,
        unit::{Files, Unit, load},
    },
};

struct Texts<'a>(&'a Facts);

impl Files for Texts<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Option<String>> {
        Ok(self.0.text(path).map(str::to_owned))
    }

    fn list(&self, folder: &Path) -> std::io::Result<Vec<String>> {
        let inside = self.0.files.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/switch/kubelet")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn walk(folder: &Path, root: &Path, facts: &mut Facts) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, root, facts);
        } else {
            let inside = Path::new("/").join(path.strip_prefix(root).unwrap());
            facts.files.insert(inside, fs::read_to_string(&path).unwrap());
        }
    }
}

/// A node of the corpus as it is found.
fn node(name: &str) -> Facts {
    let mut facts = Facts::default();
    let root = corpus().join(name).join("node");
    walk(&root, &root, &mut facts);
    let version = fs::read_to_string(corpus().join(name).join("version")).unwrap();
    let instance = PathBuf::from("/var/lib/kubelet/instance-config.yaml");
    facts.kubelet = Some(KubeletFacts {
        minor: version.split('.').nth(1).map(|minor| minor.parse().unwrap()),
        instance_config: facts.files.contains_key(&instance).then_some(instance),
        unit: unit(&facts),
        ..KubeletFacts::default()
    });
    facts
}

fn unit(facts: &Facts) -> Unit {
    load(&Texts(facts), "kubelet.service").unwrap()
}

fn wishes() -> KubeletWishes {
    KubeletWishes {
        endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
        pause_image: Some("registry.example/pause:9".to_owned()),
        cgroup_driver: Some("systemd".to_owned()),
        log_max_size: Some("10M".to_owned()),
        log_max_files: Some(3),
    }
}

#[test]
fn each_node_is_changed_as_it_should() {
    assert!(names().len() >= 15);
    let mut wrong = String::new();
    for name in names() {
        let mut facts = node(&name);
        let edited = edit(&facts, &wishes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut told = String::new();
        for (path, text) in &edited.files {
            told += &unified_diff(&path.display().to_string(), facts.text(path), Some(text));
        }
        for note in &edited.notes {
            writeln!(told, "note: {note}").unwrap();
        }
        // Nothing of a package is touched.
        assert!(edited.files.keys().all(|path| !path.starts_with("/usr/lib") && !path.starts_with("/lib")));
        // A second time there is nothing left to do, and the same to say.
        facts.files.extend(edited.files);
        facts.kubelet.as_mut().unwrap().unit = unit(&facts);
        let again = edit(&facts, &wishes()).unwrap();
        assert_eq!(again.files.keys().collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{name}");
        let command: Vec<String> = unit(&facts).arguments.into_iter().map(|argument| argument.text).collect();
        writeln!(told, "command: {}", command.join(" ")).unwrap();

        let expected = fs::read_to_string(corpus().join(&name).join("expected.diff")).unwrap_or_default();
        if told != expected {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("switch-kubelet");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(&name), &told).unwrap();
            writeln!(
                wrong,
                "{name} is not as in its expected.diff, but as in {}",
                folder.join(&name).display()
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What every kubelet must be told, whatever its files look like.
#[test]
fn each_node_is_told_what_is_wished_in_every_version() {
    for name in names() {
        for minor in [18, 20, 22, 23, 24, 26, 27, 30, 34, 35, 36] {
            let mut facts = node(&name);
            facts.kubelet.as_mut().unwrap().minor = Some(minor);
            let edited = edit(&facts, &wishes());
            // The only one in which a flag that has to go is put together from several places.
            if name == "by-hand-1.20" && minor >= 24 {
                let error = edited.unwrap_err().to_string();
                assert!(
                    error.starts_with("--docker-endpoint in /etc/systemd/system/kubelet.service: "),
                    "{error}"
                );
                continue;
            }
            facts.files.extend(edited.unwrap_or_else(|error| panic!("{name}: {error}")).files);
            let unit = unit(&facts);
            let flag = |flag: &str| value(&unit, flag);
            let told = format!("{name} 1.{minor}: {:?}", unit.arguments);
            assert_eq!(flag("container-runtime").as_deref(), (minor < 27).then_some("remote"), "{told}");
            let pause = (minor < 35).then_some("registry.example/pause:9");
            assert_eq!(flag("pod-infra-container-image").as_deref(), pause, "{told}");
            if minor >= 24 {
                assert_eq!((flag("network-plugin"), flag("cni-bin-dir")), (None, None), "{told}");
            }
            match flag("container-runtime-endpoint") {
                Some(endpoint) => assert_eq!(endpoint, wishes().endpoint, "{told}"),
                None => assert!(minor >= 27 && flag("config").is_some(), "{told}"),
            }
        }
    }
}
