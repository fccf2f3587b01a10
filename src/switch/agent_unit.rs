//! The unit that runs `nodectl run` in kubelet's place, told what the kubelet was told.
//!
//! It is the one in `contrib/systemd` but for the command line: that one reads kubeadm's files, and a kubelet without a
//! cluster has its arguments wherever somebody has put them.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{
    facts::Facts,
    kubelet::{self as kubelet_edit, KubeletWishes},
    systemd::{
        flags::{self, is_safe},
        unit::Unit,
    },
};
use crate::config::{Support, find_flag};

/// Where the unit is written.
pub const PATH: &str = "/etc/systemd/system/nodectl.service";

/// What a node of a cluster is without.
const IN_A_CLUSTER: &str =
    "nodectl has no persistent volumes yet: pods with PersistentVolumeClaims do not start";

const TEMPLATE: &str = include_str!("../../contrib/systemd/nodectl.service");

/// The unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentUnit {
    /// Its file.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
    /// What the kubelet was told and nodectl is not, a sentence each.
    pub notes: Vec<String>,
}

/// Why nodectl cannot take the kubelet's place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AgentUnitError {
    /// There is none.
    #[error("kubelet.service has no command line: there is no kubelet whose place nodectl could take")]
    NoKubelet,
    /// It is started by something else, which may do more.
    #[error(
        "kubelet.service starts `{0}`, which is no kubelet's command line: what nodectl would have to be told is not known; let \
         ExecStart= name the kubelet itself, then run this again"
    )]
    Script(String),
    /// An argument that a unit cannot hold.
    #[error(
        "--{0} has a control character in its value, which no unit can hold: take it from kubelet.service first"
    )]
    Control(String),
}

/// The unit for `program`, the path of nodectl, told what `kubelet` (its unit as it is) and `wishes` say.
///
/// # Errors
/// [`AgentUnitError`].
pub fn agent_unit(
    facts: &Facts,
    kubelet: &Unit,
    wishes: &KubeletWishes,
    program: &Path,
) -> Result<AgentUnit, AgentUnitError> {
    if kubelet.arguments.is_empty() {
        return Err(AgentUnitError::NoKubelet);
    }
    if kubelet_edit::is_script(kubelet) {
        return Err(AgentUnitError::Script(kubelet_edit::told(kubelet)));
    }
    let mut notes = Vec::new();
    if flags::value(kubelet, "kubeconfig").is_some_and(|path| !path.is_empty()) {
        notes.push(IN_A_CLUSTER.to_owned());
    }
    let mut arguments = vec![("container-runtime-endpoint".to_owned(), wishes.endpoint.clone())];
    arguments.extend(wishes.cgroup_driver.clone().map(|driver| ("cgroup-driver".to_owned(), driver)));
    let ours: Vec<String> = arguments.iter().map(|(name, _)| name.clone()).collect();
    for (name, flag) in flags::all(kubelet) {
        // An endpoint of its own for images was the old runtime's.
        if ours.contains(&name) || name == "image-service-endpoint" {
            continue;
        }
        match find_flag(&name).map(|known| (known.support(), known.help)) {
            None => notes.push(format!("--{name} is no flag that nodectl knows: it is left out")),
            Some((Support::Gone(_) | Support::NoEffect, help)) => {
                notes.push(format!("--{name} is left out: {help}"));
            }
            Some((Support::NotYet, _)) => {
                notes.push(format!("--{name} is taken along; nodectl does not act on it yet"));
                arguments.push((name, flag.value));
            }
            Some(_) => arguments.push((name, flag.value)),
        }
    }
    let told = |name: &str| arguments.iter().any(|(own, _)| own == name);
    let logs = [
        ("container-log-max-size", "containerLogMaxSize", wishes.log_max_size.clone()),
        (
            "container-log-max-files",
            "containerLogMaxFiles",
            wishes.log_max_files.map(|files| files.to_string()),
        ),
    ];
    let missing: Vec<(String, String)> = logs
        .into_iter()
        .filter(|(flag, key, _)| !told(flag) && !super::kubelet::says(facts, kubelet, key))
        .filter_map(|(flag, _, value)| Some((flag.to_owned(), value?)))
        .collect();
    arguments.extend(missing);
    let mut command = format!("ExecStart={} run", quoted(&program.display().to_string()));
    for (name, value) in &arguments {
        if value.chars().any(char::is_control) {
            return Err(AgentUnitError::Control(name.clone()));
        }
        command.push_str(" \\\n    ");
        command.push_str(&quoted(&format!("--{name}={value}")));
    }
    Ok(AgentUnit { path: PathBuf::from(PATH), text: with_command(&command), notes })
}

/// The template with another command line, and without the files and variables of its own.
fn with_command(command: &str) -> String {
    let mut text = String::from("# Written by nodectl switch-runtime, with what kubelet.service said.\n");
    let mut comment = String::new();
    for line in TEMPLATE.split_inclusive('\n') {
        if line.starts_with('#') {
            comment.push_str(line);
        } else if line.starts_with("Environment") {
            // What was said of these goes with them.
            comment.clear();
        } else {
            text.push_str(&std::mem::take(&mut comment));
            if line.starts_with("ExecStart=") {
                text.push_str(command);
                text.push('\n');
            } else {
                text.push_str(line);
            }
        }
    }
    text
}

/// A word of a command line as systemd reads it.
fn quoted(word: &str) -> String {
    if is_safe(word) {
        return word.to_owned();
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$").replace('%', "%%");
    format!("\"{word}\"")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io};

    use super::*;
    use crate::switch::systemd::unit::{Files, load};

    struct Node(BTreeMap<PathBuf, String>);

    impl Files for Node {
        fn read(&self, path: &Path) -> io::Result<Option<String>> {
            Ok(self.0.get(path).cloned())
        }

        fn list(&self, _folder: &Path) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    fn unit_of(name: &str, text: String) -> Unit {
        let node = Node(BTreeMap::from([(Path::new("/etc/systemd/system").join(name), text)]));
        load(&node, name).unwrap()
    }

    fn made(kubelet: &str, config: Option<&str>) -> Result<AgentUnit, AgentUnitError> {
        let kubelet =
            unit_of("kubelet.service", format!("[Service]\nExecStart=/usr/bin/kubelet {kubelet}\n"));
        let mut facts = Facts::default();
        facts.files.extend(config.map(|text| (PathBuf::from("/c"), text.to_owned())));
        let wishes = KubeletWishes {
            endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            pause_image: Some("a/b:c".to_owned()),
            cgroup_driver: Some("systemd".to_owned()),
            log_max_size: Some("10M".to_owned()),
            log_max_files: Some(3),
        };
        agent_unit(&facts, &kubelet, &wishes, Path::new("/usr/local/bin/nodectl"))
    }

    #[track_caller]
    fn command(unit: &AgentUnit) -> String {
        let unit = unit_of("nodectl.service", unit.text.clone());
        unit.arguments.iter().map(|argument| argument.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nodectl_is_told_what_kubelet_was() {
        let unit = made(
            "--pod-manifest-path /etc/manifests --container-runtime=docker --network-plugin=cni --fail-swap-on=false \
             --hostname-override=\"a $$b 5%%\" --cgroup_driver cgroupfs --image-service-endpoint=unix:///old --who-knows=1 \
             --container-log-max-files=9 --pod-infra-container-image=x --seccomp-default",
            None,
        )
        .unwrap();
        assert_eq!(
            command(&unit),
            "/usr/local/bin/nodectl run --container-runtime-endpoint=unix:///run/containerd/containerd.sock --cgroup-driver=systemd \
             --pod-manifest-path=/etc/manifests --fail-swap-on=false --hostname-override=a $b 5% --container-log-max-files=9 \
             --seccomp-default=true --container-log-max-size=10M"
        );
        let told = unit.notes.join("\n");
        for name in [
            "--container-runtime is left out",
            "--network-plugin is left out",
            "--who-knows is no flag",
            "--pod-infra-container-image is left out",
        ] {
            assert!(told.contains(name), "{name} in {told}");
        }
        // Everything else is as in the unit that is installed by hand.
        assert_eq!(unit.path, Path::new(PATH));
        for line in [
            "Type=notify\n",
            "Conflicts=kubelet.service\n",
            "KillMode=process\n",
            "WantedBy=multi-user.target\n",
        ] {
            assert!(unit.text.contains(line), "{}", unit.text);
        }
        assert!(!unit.text.contains("Environment") && !unit.text.contains("kubeadm"), "{}", unit.text);
    }

    #[test]
    fn what_the_configuration_says_stays_said_there() {
        let unit =
            made("--config=/c", Some("kind: KubeletConfiguration\ncontainerLogMaxSize: 5Mi\n")).unwrap();
        assert_eq!(
            command(&unit),
            "/usr/local/bin/nodectl run --container-runtime-endpoint=unix:///run/containerd/containerd.sock --cgroup-driver=systemd \
             --config=/c --container-log-max-files=3"
        );
    }

    #[test]
    fn a_node_of_a_cluster_stays_one_and_what_it_is_without_is_told() {
        let unit = made("--bootstrap-kubeconfig /b --kubeconfig=/k", None).unwrap();
        assert!(unit.text.contains("--bootstrap-kubeconfig=/b"), "{}", unit.text);
        assert!(unit.text.contains("--kubeconfig=/k"), "{}", unit.text);
        assert!(unit.notes.contains(&IN_A_CLUSTER.to_owned()), "{:?}", unit.notes);
        assert!(!made("--kubeconfig=", None).unwrap().notes.contains(&IN_A_CLUSTER.to_owned()));
        let none =
            agent_unit(&Facts::default(), &Unit::default(), &KubeletWishes::default(), Path::new("/n"));
        assert_eq!(none, Err(AgentUnitError::NoKubelet));
    }
}
