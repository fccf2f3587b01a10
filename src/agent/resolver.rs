//! The host's files that pods' name resolution starts from. They are read whenever a sandbox is made, so
//! that a change of the host's network is the next pod's too.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{config::AgentConfig, host::read::read_bounded, policy::dns::Resolver};

/// kubelet reads no more of a `resolv.conf`.
const MAX_RESOLV_CONF: usize = 10 << 20;
/// Where systemd-resolved tells the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Paths of the host's files, and what was told of them.
#[derive(Debug, Default)]
pub struct HostNames {
    /// The resolver file; none where `resolvConf` is empty.
    resolv_conf: Option<PathBuf>,
    /// What to take in its place where it names nobody but systemd-resolved's stub.
    behind_stub: Option<PathBuf>,
    /// The host's `/etc/hosts`.
    hosts: PathBuf,
    stub_told: AtomicBool,
    cluster_told: AtomicBool,
}

impl HostNames {
    /// Those of the configuration. A configured `resolvConf` is taken as it is; of the default one it is known
    /// that pods with a network of their own cannot reach the stub, which is why kubeadm configures the other
    /// file.
    pub fn of(config: &AgentConfig) -> Self {
        let behind_stub = (!config.resolv_conf_given).then(|| RESOLVED.into());
        Self::new(config.resolv_conf.clone(), behind_stub, "/etc/hosts".into())
    }

    /// Those at the given paths: a resolver file, one to take in its place where it names only the stub, and
    /// the host's `/etc/hosts`.
    pub fn new(resolv_conf: Option<PathBuf>, behind_stub: Option<PathBuf>, hosts: PathBuf) -> Self {
        Self { resolv_conf, behind_stub, hosts, ..Self::default() }
    }

    /// The host's `/etc/hosts`.
    pub fn hosts(&self) -> &Path {
        &self.hosts
    }

    /// The host's resolver; nothing where none is configured. What is behind systemd-resolved's stub is taken
    /// unless the pod is on the host's network, where the stub answers. Blocks on the file system.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that cannot be understood.
    pub fn resolver(&self, host_network: bool) -> Result<Option<Resolver>, String> {
        let Some(path) = &self.resolv_conf else { return Ok(None) };
        let found = read(path)?;
        let Some(behind) = self.behind_stub.as_ref().filter(|_| !host_network && found.is_stub()) else {
            return Ok(Some(found));
        };
        match read(behind) {
            Ok(real) if !real.servers.is_empty() => {
                if !self.stub_told.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        "{} names systemd-resolved's stub, which pods cannot reach: taking {}",
                        path.display(),
                        behind.display()
                    );
                }
                Ok(Some(real))
            }
            _ => Ok(Some(found)),
        }
    }

    /// Whether that there are no cluster servers is to be told: once.
    pub fn tell_no_cluster(&self) -> bool {
        !self.cluster_told.swap(true, Ordering::Relaxed)
    }
}

fn read(path: &Path) -> Result<Resolver, String> {
    let failed = |why: String| format!("resolvConf {}: {why}", path.display());
    let bytes = read_bounded(path, MAX_RESOLV_CONF).map_err(|error| failed(error.to_string()))?;
    Resolver::parse(&String::from_utf8_lossy(&bytes)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn behind_the_stub_the_real_file_is_taken_unless_one_is_configured() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, real) = (folder.path().join("etc"), folder.path().join("real"));
        let names = |behind: bool| HostNames {
            resolv_conf: Some(etc.clone()),
            behind_stub: behind.then(|| real.clone()),
            ..HostNames::default()
        };
        let servers = |names: &HostNames| names.resolver(false).unwrap().unwrap().servers;
        fs::write(&etc, "nameserver 127.0.0.53\n").unwrap();
        assert_eq!(servers(&names(true)), ["127.0.0.53"], "there is no other");
        fs::write(&real, "search x\n").unwrap();
        assert_eq!(servers(&names(true)), ["127.0.0.53"], "the other has none");
        fs::write(&real, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers(&names(true)), ["192.0.2.1"]);
        let on_the_host = names(true).resolver(true).unwrap().unwrap();
        assert_eq!(on_the_host.servers, ["127.0.0.53"], "there it is reached");
        assert_eq!(servers(&names(false)), ["127.0.0.53"], "configured");
        fs::write(&etc, "nameserver 192.0.2.7\n").unwrap();
        assert_eq!(servers(&names(true)), ["192.0.2.7"], "no stub");
    }

    #[test]
    fn a_file_that_cannot_be_had_is_named() {
        let names = HostNames { resolv_conf: Some("/nowhere/resolv.conf".into()), ..HostNames::default() };
        let error = names.resolver(false).unwrap_err();
        assert!(error.contains("/nowhere/resolv.conf"), "{error}");
        assert_eq!(HostNames::default().resolver(false), Ok(None));
    }
}
