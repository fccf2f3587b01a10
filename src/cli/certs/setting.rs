//! What the certificates of this node are: as the running agent was told, else as kubeadm places them.

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStringExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use super::PlacesArgs;
use crate::{
    cli::{kubelet_flags, run},
    config::{self, AgentConfig},
    error::CommandError,
};

const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// Flags of the agent whose values are paths.
const PATHS: [&str; 7] = [
    "config",
    "config-dir",
    "kubeconfig",
    "bootstrap-kubeconfig",
    "cert-dir",
    "tls-cert-file",
    "tls-private-key-file",
];

/// The agent's configuration, and where the control plane keeps its certificates.
pub(super) struct Setting {
    pub(super) config: AgentConfig,
    pub(super) pki: PathBuf,
}

impl Setting {
    /// What the arguments say, over what the running agent was told.
    ///
    /// # Errors
    /// Wrong usage, when the configuration cannot be read.
    pub(super) fn of(args: &PlacesArgs) -> Result<Self, CommandError> {
        let running = running_agent(&args.socket);
        let mut flags = running.unwrap_or_else(|| {
            let there = [("config", CONFIG), ("kubeconfig", KUBECONFIG), ("bootstrap-kubeconfig", BOOTSTRAP)];
            let there = there.into_iter().filter(|(_, path)| Path::new(path).exists());
            there.map(|(name, path)| (name.to_owned(), path.to_owned())).collect()
        });
        let given = [
            ("config", &args.config),
            ("kubeconfig", &args.kubeconfig),
            ("bootstrap-kubeconfig", &args.bootstrap_kubeconfig),
            ("cert-dir", &args.cert_dir),
        ];
        let given = given.map(|(name, path)| (name, path.as_ref().map(|path| path.display().to_string())));
        for (name, value) in given.into_iter().chain([("hostname-override", args.hostname_override.clone())])
        {
            if let Some(value) = value {
                flags.retain(|(flag, _)| flag != name);
                flags.push((name.to_owned(), value));
            }
        }
        // What the agent warns of is its business.
        let (config, _warnings) = config::load(&flags).map_err(CommandError::usage)?;
        Ok(Self { config, pki: args.pki_dir.clone() })
    }
}

/// The flags of the agent that answers at the socket; `None` if there is none, or none that we may look at.
fn running_agent(socket: &Path) -> Option<Vec<(String, String)>> {
    let stream = UnixStream::connect(socket).ok()?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).ok()?;
    let process = PathBuf::from(format!("/proc/{}", peer.pid()));
    let words = std::fs::read(process.join("cmdline")).ok()?;
    let words = words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_owned()));
    let mut words: Vec<OsString> = words.collect();
    // There is a zero behind the last word too.
    words.pop();
    let folder = std::fs::read_link(process.join("cwd")).ok()?;
    flags(words, &folder)
}

fn flags(words: Vec<OsString>, folder: &Path) -> Option<Vec<(String, String)>> {
    if words.get(1).is_none_or(|verb| verb != "run") {
        return None;
    }
    let words = kubelet_flags::normalize_args(words).into_iter().skip(1);
    let matches = run::command().try_get_matches_from(words).ok()?;
    let mut flags = kubelet_flags::given(&matches);
    for (name, value) in &mut flags {
        if PATHS.contains(&name.as_str()) && !value.is_empty() {
            *value = folder.join(&*value).display().to_string();
        }
    }
    Some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_flags_count() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let found =
            flags(words("nodectl run --cert-dir pki --kubeconfig=/a/b --v 3"), Path::new("/work")).unwrap();
        assert!(found.contains(&("cert-dir".to_owned(), "/work/pki".to_owned())), "{found:?}");
        assert!(found.contains(&("kubeconfig".to_owned(), "/a/b".to_owned())), "{found:?}");
        assert!(flags(words("nodectl pods"), Path::new("/")).is_none());
        assert!(running_agent(Path::new("/nowhere")).is_none());
    }
}
