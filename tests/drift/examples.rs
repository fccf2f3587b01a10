//! Every row of `docs/pod-spec.md` has a manifest in `tests/pods/` that shows it: what is honoured, of no effect
//! or warned of in one that runs, what is refused in one that is refused for it.

use std::collections::BTreeSet;
use std::fs;

use k8s_openapi::api::core::v1::Pod;
use nodectl::api::manifest::{Identity, ManifestError, Shape, StaticPod, make_static_pod, parse};
use nodectl::api::uid_hash::HashOrigin;
use serde_json::Value;

use crate::api_types::{Type, explore};
use crate::pod_spec::{Row, rows};

/// Fields that are honoured and that no manifest which runs anywhere can show, and why.
const NOT_SHOWN: &[(&str, &str)] = &[(
    "spec.containers[].securityContext.appArmorProfile.localhostProfile",
    "needs a kernel that enforces AppArmor: elsewhere the node fails the pod",
)];

/// What the manifests of one folder say.
#[derive(Default)]
struct Said {
    /// Fields that are set, by path with `[]` for every element.
    paths: BTreeSet<String>,
    /// The same by type: `Probe.periodSeconds`.
    fields: BTreeSet<String>,
    /// Paths that are refused.
    refused: BTreeSet<String>,
    /// Paths that are warned of.
    warned: BTreeSet<String>,
}

impl Said {
    fn of(folder: &str) -> Self {
        let (mut said, pod) = (Self::default(), explore::<Pod>());
        for file in fs::read_dir(crate::root().join("tests/pods").join(folder)).unwrap() {
            let text = String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap())
                .replace("@host@", "/host")
                .replace("@loopback@", "127.0.0.1");
            let Ok(mut parsed) = parse(text.as_bytes(), Shape::Pod) else { continue };
            let parsed = parsed.remove(0);
            let document = serde_json::from_str(&parsed.document.canonical()).unwrap();
            said.object(&pod, &document, "");
            let identity = Identity {
                node_name: "node",
                origin: HashOrigin::File("/manifests/pod.yaml"),
                seen: "2026-01-02T03:04:05Z".parse().unwrap(),
            };
            match make_static_pod(&parsed, &identity) {
                Ok(StaticPod { warnings, .. }) => {
                    said.warned.extend(warnings.iter().map(|problem| any_element(&problem.path)));
                }
                Err(ManifestError::Fields(problems)) => {
                    said.refused.extend(problems.iter().map(|problem| any_element(&problem.path)));
                }
                Err(_) => {}
            }
        }
        said
    }

    fn object(&mut self, kind: &Type, value: &Value, path: &str) {
        for field in &kind.fields {
            let Some(value) = value.get(field.name).filter(|value| !value.is_null()) else { continue };
            let place =
                if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            self.paths.insert(place.clone());
            self.fields.insert(format!("{}.{}", kind.kind, field.name));
            let Some(object) = &field.object else { continue };
            let below = format!("{place}{}", field.many);
            match value {
                Value::Array(items) => items.iter().for_each(|item| self.object(object, item, &below)),
                one => self.object(object, one, &below),
            }
        }
    }
}

/// `a[0].b` as `a[].b`.
fn any_element(path: &str) -> String {
    let mut parts = path.split('[');
    let head = parts.next().unwrap_or_default().to_owned();
    parts.fold(head, |all, part| format!("{all}[]{}", part.split_once(']').map_or("", |(_, rest)| rest)))
}

/// Whether one of the paths is this one or below it.
fn any_below(paths: &BTreeSet<String>, row: &str) -> bool {
    let row = row.trim_end_matches(".*").trim_end_matches("[]");
    paths.iter().any(|path| {
        path.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

#[test]
fn every_row_of_the_page_is_shown_by_a_manifest() {
    let (good, bad) = (Said::of("good"), Said::of("bad"));
    let mut missing = Vec::new();
    let all = rows();
    for Row { path, what, field, .. } in &all {
        let shown = match what.as_str() {
            "honoured" => match field {
                Some(field) => good.fields.contains(field),
                None => any_below(&good.paths, path),
            },
            "no effect on a node" => any_below(&good.paths, path),
            "warning" => any_below(&good.warned, path),
            _ => any_below(&bad.refused, path),
        };
        let excuse = NOT_SHOWN.iter().find(|(not_shown, _)| not_shown == path);
        match (shown, excuse) {
            (false, None) => missing.push(format!("{path} ({what}) is in no manifest of tests/pods/")),
            (true, Some(_)) => missing.push(format!("{path} is shown: take it off the list")),
            _ => {}
        }
    }
    for (path, _) in NOT_SHOWN {
        if !all.iter().any(|row| row.path == *path) {
            missing.push(format!("{path} is no row"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
