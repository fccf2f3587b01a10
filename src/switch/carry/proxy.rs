//! The proxy through which images are pulled: dockerd's becomes containerd's.

use std::path::Path;

use serde_json::Value;

use super::{Carried, NewFile, load};
use crate::switch::facts::Facts;

const FOLDER: &str = "/etc/systemd/system/containerd.service.d";
/// The variables, and the keys of `proxies` in `daemon.json` (Docker 23), which win over the environment.
const NAMES: [(&str, &str); 3] =
    [("HTTP_PROXY", "http-proxy"), ("HTTPS_PROXY", "https-proxy"), ("NO_PROXY", "no-proxy")];

pub(super) fn carry(facts: &Facts, carried: &mut Carried) {
    let Some(docker) = &facts.docker else { return };
    let own = load(facts, "containerd.service").environment;
    let mut lines = String::new();
    let mut secret = false;
    for (name, key) in NAMES {
        let in_file =
            docker.daemon.get("proxies").and_then(|proxies| proxies.get(key)).and_then(Value::as_str);
        // Go's programs take the first of the two that is there.
        let in_unit =
            || [name.to_owned(), name.to_lowercase()].into_iter().find_map(|name| docker.proxies.get(&name));
        let value = in_file.or_else(|| in_unit().map(String::as_str)).filter(|value| !value.is_empty());
        let Some(value) = value else { continue };
        let there = own.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        if let Some((_, variable)) = there {
            if variable.value() != value {
                carried.notes.push(format!(
                    "containerd.service sets {name} to something else than Docker had ({}): that stays",
                    variable.path.display()
                ));
            }
            continue;
        }
        if value.chars().any(char::is_control) {
            carried
                .warnings
                .push(format!("Docker's {name} has a control character in it: it is not carried over"));
            continue;
        }
        secret |= has_password(value);
        lines += &format_line(name, value);
    }
    if lines.is_empty() {
        return;
    }
    let free = |name: &&&str| facts.text(Path::new(FOLDER).join(name)).is_none();
    let name = ["http-proxy.conf", "20-nodectl-proxy.conf"].iter().find(free).copied();
    let path = Path::new(FOLDER).join(name.unwrap_or("zz-nodectl-proxy.conf"));
    let text = format!("# Docker's, carried over by nodectl switch-runtime.\n[Service]\n{lines}");
    carried.files.insert(path, NewFile { text, mode: if secret { 0o600 } else { 0o644 } });
    if secret {
        carried.notes.push(
            "the proxy has a password: its drop-in is for root alone to read, as far as systemd keeps it (`systemctl show` \
             tells everybody a unit's environment)"
                .to_owned(),
        );
    }
}

/// As systemd reads it: a dollar means itself here, a percent sign does not.
fn format_line(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("Environment=\"{name}={value}\"\n")
}

/// Whether a URL, or what stands for one, has a name and a password before its host.
fn has_password(value: &str) -> bool {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    rest.split('/')
        .next()
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
}
