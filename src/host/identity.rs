//! Who the machine is and what runs on it, from where cAdvisor has it for a kubelet (cadvisor/utils/sysinfo,
//! cadvisor/machine). What cannot be read is empty.

use std::{fs, path::Path};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The machine's, made when the system was installed.
    pub machine_id: String,
    /// The firmware's.
    pub system_uuid: String,
    /// The kernel's, of this boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution's name and version, in words.
    pub os_image: String,
}

impl Identity {
    /// Reads it below `root`, which is `/` on a node. Blocks on the file system.
    pub fn read(root: &Path) -> Self {
        let first = |paths: &[&str]| -> String {
            let texts = paths.iter().filter_map(|path| fs::read_to_string(root.join(path)).ok());
            let mut trimmed =
                texts.map(|text| text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned());
            trimmed.find(|text| !text.is_empty()).unwrap_or_default()
        };
        let machine_id = first(&["etc/machine-id", "var/lib/dbus/machine-id"]);
        let firmware = first(&[
            "sys/class/dmi/id/product_uuid",
            "proc/device-tree/system-id",
            "proc/device-tree/vm,uuid",
        ]);
        Self {
            system_uuid: if firmware.is_empty() { machine_id.clone() } else { firmware },
            machine_id,
            boot_id: first(&["proc/sys/kernel/random/boot_id"]),
            kernel_version: first(&["proc/sys/kernel/osrelease"]),
            os_image: pretty_name(&first(&["etc/os-release", "usr/lib/os-release"])),
        }
    }
}

fn pretty_name(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="));
    let value = value.map(|value| value.trim().trim_matches(['"', '\'']));
    value.filter(|value| !value.is_empty()).unwrap_or("Linux").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_in_files() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            Identity::read(root.path()),
            Identity { os_image: "Linux".to_owned(), ..Identity::default() }
        );
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("etc/machine-id", "abc\n");
        put("proc/sys/kernel/random/boot_id", "b-1\n");
        put("proc/sys/kernel/osrelease", "6.1.0-amd64\n");
        put("etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n");
        let found = Identity::read(root.path());
        assert_eq!((found.machine_id.as_str(), found.system_uuid.as_str()), ("abc", "abc"));
        assert_eq!((found.boot_id.as_str(), found.kernel_version.as_str()), ("b-1", "6.1.0-amd64"));
        assert_eq!(found.os_image, "Debian GNU/Linux 12 (bookworm)");
        put("sys/class/dmi/id/product_uuid", "u-1\n");
        assert_eq!(Identity::read(root.path()).system_uuid, "u-1");
    }
}
