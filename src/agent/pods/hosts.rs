//! A pod's `/etc/hosts`: the file `etc-hosts` in the pod's folder, mounted into each of its containers.
//!
//! It is made when the first container is, as the addresses are known then, and looked at again for every
//! later one. As with kubelet all containers of a pod share the one file, and may write to it: so a file that
//! is there is written over where it stands. Were it replaced, running containers would keep the old one.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod};
use nix::fcntl::OFlag;

use crate::{
    api::{PodExt as _, cri::Mount},
    host::read::read_bounded,
    policy::{
        container_config::PodHostname,
        hosts::{host_network_hosts, managed_hosts},
    },
};

/// Where containers have it.
const ETC_HOSTS: &str = "/etc/hosts";
/// The file in the pod's folder.
const FILE: &str = "etc-hosts";
/// Everyone reads it, whatever the umask.
const MODE: u32 = 0o644;
/// More is not taken over from the host's file.
const MAX_HOST_FILE: usize = 1 << 20;

/// What the file depends on.
#[derive(Debug)]
pub(super) struct HostsFile<'a> {
    /// The pod.
    pub(super) pod: &'a Pod,
    /// The pod's folder.
    pub(super) folder: &'a Path,
    /// The pod's addresses.
    pub(super) ips: &'a [IpAddr],
    /// What it is called.
    pub(super) hostname: &'a PodHostname,
    /// The host's own file.
    pub(super) of_the_host: &'a Path,
}

impl HostsFile<'_> {
    /// Writes the file and gives the mount of it; nothing for a container that mounts something else there,
    /// and for a pod without an address. Blocks on the file system.
    ///
    /// # Errors
    /// What cannot be read or written, with its path.
    pub(super) fn mount(&self, container: &Container) -> Result<Option<Mount>, String> {
        if self.ips.is_empty() || mounts_its_own(container) {
            return Ok(None);
        }
        let path = self.folder.join(FILE);
        let content = self.content()?;
        write(&path, &content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Some(Mount {
            container_path: ETC_HOSTS.to_owned(),
            host_path: path.to_string_lossy().into_owned(),
            selinux_relabel: true,
            ..Mount::default()
        }))
    }

    fn content(&self) -> Result<Vec<u8>, String> {
        let aliases = self.pod.spec().host_aliases.as_deref().unwrap_or_default();
        if !self.pod.host_network() {
            return Ok(managed_hosts(self.ips, self.hostname, aliases).into_bytes());
        }
        let own = read_bounded(self.of_the_host, MAX_HOST_FILE)
            .map_err(|error| format!("cannot read {}: {error}", self.of_the_host.display()))?;
        Ok(host_network_hosts(&own, aliases))
    }
}

fn mounts_its_own(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| {
        // A relative path is taken from the container's root.
        let path: PathBuf = Path::new("/").join(&mount.mount_path).components().collect();
        path == Path::new(ETC_HOSTS)
    })
}

/// Brings the file to the content and mode. A new one appears whole; one that is there is the same file after.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let open = fs::OpenOptions::new().write(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path);
    let file = match open {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return create(path, content),
        Err(error) => return Err(error),
    };
    // A container may have made it any size.
    let unchanged = read_bounded(path, content.len()).is_ok_and(|found| found == content);
    if !unchanged {
        // First the content and then the length: a reader never finds it empty.
        file.write_all_at(content, 0)?;
        file.set_len(u64::try_from(content.len()).unwrap_or(u64::MAX))?;
    }
    file.set_permissions(fs::Permissions::from_mode(MODE))
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, content)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(MODE))?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use k8s_openapi::api::core::v1::{HostAlias, PodSpec, VolumeMount};

    use super::*;

    fn mount(folder: &Path, host_network: bool, container: &Container) -> Result<Option<Mount>, String> {
        let pod = Pod {
            spec: Some(PodSpec {
                host_network: Some(host_network),
                host_aliases: Some(vec![HostAlias {
                    ip: "192.0.2.1".into(),
                    hostnames: Some(vec!["db".into()]),
                }]),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        HostsFile {
            pod: &pod,
            folder,
            ips: &["10.0.0.2".parse().unwrap()],
            hostname: &PodHostname { name: "p".into(), ..PodHostname::default() },
            of_the_host: &folder.join("of-the-host"),
        }
        .mount(container)
    }

    #[test]
    fn a_new_file_is_whole_and_an_old_one_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc-hosts");
        let made = mount(folder.path(), false, &Container::default()).unwrap().unwrap();
        assert_eq!(
            (made.container_path.as_str(), Path::new(&made.host_path)),
            ("/etc/hosts", path.as_path())
        );
        assert!(!made.readonly);
        let content = fs::read_to_string(&path).unwrap();
        assert!(content.contains("10.0.0.2\tp\n") && content.ends_with("192.0.2.1\tdb\n"), "{content}");
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        // A container wrote into it and took away everyone's leave to read.
        fs::write(&path, format!("{content}{content}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        mount(folder.path(), false, &Container::default()).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!((after.ino(), after.mode() & 0o7777), (before.ino(), 0o644));
    }

    #[test]
    fn on_the_hosts_network_it_is_the_hosts_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = mount(folder.path(), true, &Container::default()).unwrap_err();
        assert!(error.contains("of-the-host"), "{error}");
        fs::write(folder.path().join("of-the-host"), "127.0.0.1 here\n").unwrap();
        mount(folder.path(), true, &Container::default()).unwrap();
        let content = fs::read_to_string(folder.path().join("etc-hosts")).unwrap();
        assert!(content.contains("(host network)") && content.contains("127.0.0.1 here\n"), "{content}");
        assert!(content.ends_with("192.0.2.1\tdb\n") && !content.contains("10.0.0.2"), "{content}");
    }

    #[test]
    fn a_container_with_its_own_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        for (path, own) in
            [("/etc/hosts", true), ("etc/hosts", true), ("/etc//hosts/", true), ("/etc/hosts.d", false)]
        {
            let container = Container {
                volume_mounts: Some(vec![VolumeMount { mount_path: path.into(), ..VolumeMount::default() }]),
                ..Container::default()
            };
            assert_eq!(mount(folder.path(), false, &container).unwrap().is_none(), own, "{path}");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("etc-hosts")).unwrap();
        mount(folder.path(), false, &Container::default()).unwrap_err();
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
    }
}
