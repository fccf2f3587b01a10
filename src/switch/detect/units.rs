//! Units: as systemd has them, and where it cannot be asked as their files say.

use std::{collections::BTreeMap, path::Path};

use futures_util::future::join_all;

use super::{Look, Notes};
use crate::{
    host::systemd::Systemd,
    switch::{
        facts::UnitFacts,
        systemd::{unit, words::settings},
    },
};

/// The units that matter to a change of runtime.
const UNITS: [&str; 7] = [
    "kubelet.service",
    "docker.service",
    "docker.socket",
    "cri-docker.service",
    "cri-docker.socket",
    "containerd.service",
    "nodectl.service",
];

/// Where `systemctl enable` puts its links, and where packages do.
const LINKS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

/// systemd, if it runs here.
pub(super) async fn connect(notes: &mut Notes) -> Option<Systemd> {
    match Systemd::connect().await {
        Ok(systemd) => Some(systemd),
        Err(error) => {
            notes.problem(format!("{error}; units are told as their files say"));
            None
        }
    }
}

pub(super) async fn detect(
    look: &Look<'_>,
    systemd: Option<&Systemd>,
    notes: &mut Notes,
) -> BTreeMap<String, UnitFacts> {
    let Some(systemd) = systemd else {
        return UNITS.iter().map(|name| ((*name).to_owned(), from_files(look, name, notes))).collect();
    };
    let asked = join_all(UNITS.iter().map(|name| async move { (*name, systemd.unit(name).await) })).await;
    let mut units = BTreeMap::new();
    for (name, told) in asked {
        let facts = match told {
            Ok(state) => {
                if state.needs_reload {
                    notes.problem(format!(
                        "the files of {name} have changed since systemd read them: `systemctl daemon-reload` is due"
                    ));
                }
                state.into()
            }
            Err(error) => {
                notes.problem(error.to_string());
                from_files(look, name, notes)
            }
        };
        units.insert(name.to_owned(), facts);
    }
    units
}

fn from_files(look: &Look<'_>, name: &str, notes: &mut Notes) -> UnitFacts {
    let unit = notes.unit(look, name);
    let Some(fragment) = unit.fragment else {
        return UnitFacts { load: "not-found".to_owned(), ..UnitFacts::default() };
    };
    let text = notes.files.get(&fragment).map(String::as_str).unwrap_or_default();
    // As systemd has it: what is empty, or leads to /dev/null, is masked.
    if text.is_empty() {
        let masked = "masked".to_owned();
        return UnitFacts {
            load: masked.clone(),
            enabled: masked,
            fragment: Some(fragment),
            ..UnitFacts::default()
        };
    }
    let can_be = settings(text).iter().any(|setting| {
        setting.section == "Install"
            && matches!(setting.key.as_str(), "WantedBy" | "RequiredBy" | "UpheldBy" | "Alias" | "Also")
    });
    let enabled = match (is_linked(look, name, notes), can_be) {
        (true, _) => "enabled",
        (false, true) => "disabled",
        (false, false) => "static",
    };
    // Drop-ins for all services are none of a socket's.
    let own =
        |path: &Path| name.ends_with(".service") || !path.parent().is_some_and(|d| d.ends_with("service.d"));
    UnitFacts {
        load: "loaded".to_owned(),
        active: String::new(),
        enabled: enabled.to_owned(),
        fragment: Some(fragment),
        drop_ins: unit.drop_ins.into_iter().filter(|path| own(path)).collect(),
    }
}

fn is_linked(look: &Look<'_>, name: &str, notes: &mut Notes) -> bool {
    LINKS.iter().any(|folder| {
        let folder = Path::new(folder);
        let wanting = notes
            .list(look, folder)
            .into_iter()
            .filter(|entry| [".wants", ".requires", ".upholds"].iter().any(|suffix| entry.ends_with(suffix)));
        wanting.into_iter().any(|entry| notes.list(look, &folder.join(entry)).iter().any(|link| link == name))
    })
}

/// The sockets that a socket's unit listens on.
pub(super) fn listens_on(look: &Look<'_>, name: &str, notes: &mut Notes) -> Vec<String> {
    let unit = unit::load(&look.rooted, name).unwrap_or_default();
    let mut streams: Vec<String> = Vec::new();
    for path in unit.fragment.iter().chain(&unit.drop_ins) {
        let text = notes.read(look, path).unwrap_or_default();
        for setting in settings(&text) {
            if setting.section == "Socket" && setting.key == "ListenStream" {
                match setting.value() {
                    empty if empty.is_empty() => streams.clear(),
                    // The one specifier that is used there: %t is /run for the system's units.
                    stream => streams.push(stream.replace("%t", "/run")),
                }
            }
        }
    }
    streams
}
