//! kubelet's side of a change: what its command line and its configuration are to say, by its version, each
//! changed where it takes effect today.
//!
//! What a kubelet knows follows from its own sources: dockershim and its flags went with 1.24, `--container-runtime`
//! with 1.27, which took the endpoint into the configuration too, and `--pod-infra-container-image` with 1.35. A flag
//! wins over the configuration in all of them.

pub(super) mod config_yaml;
mod node;
mod rules;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

use thiserror::Error;

use super::{facts::Facts, systemd::unit::Unit};
pub use config_yaml::ConfigYamlError;

/// What the kubelet is to be told. What is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct KubeletWishes {
    /// The runtime's endpoint, `unix://…`.
    pub endpoint: String,
    /// The image of sandboxes, which an older kubelet must know to keep it.
    pub pause_image: Option<String>,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: Option<String>,
    /// At what size a container's log is begun anew, a quantity. One that the kubelet is told already stays.
    pub log_max_size: Option<String>,
    /// How many logs a container has at most. A number that the kubelet is told already stays.
    pub log_max_files: Option<i32>,
}

/// What becomes of the kubelet's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeletEdit {
    /// The new texts of files that change, and new files.
    pub files: BTreeMap<PathBuf, String>,
    /// What is worth knowing, a sentence each.
    pub notes: Vec<String>,
}

/// Why the kubelet cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KubeletEditError {
    /// There is none, or its unit starts nothing.
    #[error(
        "kubelet.service has no command line: install a kubelet that systemd starts, or change it by hand"
    )]
    NoKubelet,
    /// It starts something else.
    #[error(
        "kubelet.service starts `{0}`, which is no kubelet's command line: arguments behind it would not be the kubelet's; \
         let ExecStart= name the kubelet itself, then run this again"
    )]
    Script(String),
    /// A file of the unit was not read.
    #[error("{0} is a part of kubelet.service, and its text is not known: run this again as root")]
    NotRead(PathBuf),
    /// A flag that cannot be changed where it stands.
    #[error("--{flag} in {}: {why}: change it there by hand, then run this again", path.display())]
    Flag {
        /// Without dashes.
        flag: String,
        /// Where it stands, or would.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// A KubeletConfiguration that cannot be changed.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: ConfigYamlError,
    },
    /// The files as they would be do not tell the kubelet what they should.
    #[error("with the files changed, kubelet would be told {found} and not {wished} ({}): change it by hand, then run this again", path.display())]
    Unverified {
        /// As `--container-runtime=remote`.
        wished: String,
        /// What it would be told.
        found: String,
        /// The file that should say it.
        path: PathBuf,
    },
}

/// The changes that tell the kubelet what is wished. Nothing that is told already is changed.
///
/// # Errors
/// When a file cannot be changed so that the kubelet is told; nothing is to be changed then.
pub fn edit(facts: &Facts, wishes: &KubeletWishes) -> Result<KubeletEdit, KubeletEditError> {
    rules::edit(facts, wishes)
}

/// Whether a unit's command line is a script within an argument (`sh -c "exec kubelet $ARGS"`): what is put behind it
/// are no arguments of a kubelet's.
pub(super) fn is_script(unit: &Unit) -> bool {
    const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];
    let words = unit.arguments.iter().map(|argument| argument.text.as_str());
    let behind = words.skip_while(|word| !SHELLS.contains(&word.rsplit('/').next().unwrap_or_default()));
    let mut options = behind.skip(1).filter(|word| word.starts_with('-') && !word.starts_with("--"));
    options.any(|option| option.ends_with('c'))
}

/// A command line as it is told.
pub(super) fn told(unit: &Unit) -> String {
    let words: Vec<&str> = unit.arguments.iter().map(|argument| argument.text.as_str()).collect();
    super::secrets::hide(&words.join(" "))
}

/// Whether the configuration that a kubelet's unit names says a key.
pub(super) fn says(facts: &Facts, unit: &Unit, key: &str) -> bool {
    let known = facts.kubelet.as_ref().and_then(|kubelet| kubelet.config_file.as_deref());
    let texts = rules::configs(facts, unit, known).into_iter().filter_map(|path| facts.text(path));
    texts.into_iter().any(|text| config_yaml::get(text, key).is_ok_and(|value| value.is_some()))
}
