//! `docs/pod-spec.md`: every field of a v1 Pod and what becomes of it, written from the agent's own tables
//! (`src/api/manifest/`) over the types of the API as they are found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use nodectl::api::manifest::fields::notes::{NO_EFFECT, NOTES, no_effect, note};
use nodectl::api::manifest::unsupported::{POD, TABLES, Table, Verdict};
use nodectl::api::manifest::{API_VERSION, fields};

use crate::api_types::{Type, explore};

/// The sections of the page, each with the paths that it begins with; the first that fits takes a field.
const SECTIONS: &[(&str, &str)] = &[
    ("Containers", "spec.containers"),
    ("Init containers", "spec.initContainers"),
    ("Ephemeral containers", "spec.ephemeralContainers"),
    ("Volumes", "spec.volumes"),
    ("Security context of the pod", "spec.securityContext"),
    ("The pod", "spec"),
    ("Around it", ""),
];

/// All tables by the type that they are of.
fn tables() -> BTreeMap<&'static str, &'static Table> {
    let mut all = BTreeMap::new();
    for table in TABLES.iter().chain(fields::TABLES) {
        let earlier = all.insert(table.kind, *table);
        assert!(
            earlier.is_none(),
            "{} has two tables: remove the one of src/api/manifest/fields/",
            table.kind
        );
    }
    all
}

/// Walks the types beside the tables.
struct Walk {
    tables: BTreeMap<&'static str, &'static Table>,
    /// Where a table's fields are told already.
    told: Vec<(&'static Table, String)>,
    rows: Vec<Row>,
    problems: BTreeSet<String>,
}

/// A line of the page.
pub(crate) struct Row {
    pub(crate) path: String,
    /// What becomes of it.
    pub(crate) what: String,
    remark: String,
    /// The type and the field, `Probe.periodSeconds`, of what has no more fields below it.
    pub(crate) field: Option<String>,
}

/// All lines of the page.
pub(crate) fn rows() -> Vec<Row> {
    walk().rows
}

impl Walk {
    fn object(&mut self, kind: &Type, table: &'static Table, path: &str) {
        for field in &kind.fields {
            let Some((_, verdict)) = table.fields.iter().find(|(name, _)| *name == field.name) else {
                self.problems.insert(format!("{}.{} has no row", kind.kind, field.name));
                continue;
            };
            let place =
                if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            let leaf = field.object.is_none().then(|| format!("{}.{}", kind.kind, field.name));
            let before = self.rows.len();
            self.field(&place, field.many, field.object.as_ref(), *verdict);
            if let (Some(leaf), Some(row)) = (leaf, self.rows.get_mut(before)) {
                row.field = Some(leaf);
            }
        }
    }

    fn field(&mut self, path: &str, many: &str, object: Option<&Type>, verdict: Verdict) {
        let all_below = if object.is_some() { format!("{path}{many}.*") } else { path.to_owned() };
        let remark = note(path).unwrap_or_default();
        match verdict {
            Verdict::Honoured if no_effect(path).is_some() => {
                self.row(all_below, "no effect on a node", no_effect(path).unwrap_or_default());
            }
            Verdict::Refuse(reason) => self.row(all_below, "refused", reason),
            Verdict::FromApi(reason) => self.row(all_below, "the API server's pods", reason),
            Verdict::NeedsApi(reason) => self.row(all_below, "needs the API server", reason),
            Verdict::Warn(reason) => self.row(all_below, "warning", reason),
            Verdict::Unless(allowed, reason) => {
                let allowed: Vec<String> = allowed.iter().map(|value| format!("`{value}`")).collect();
                self.row(all_below, &format!("only {}", allowed.join(", ")), reason);
            }
            Verdict::Honoured if object.is_none() => self.row(all_below, "honoured", remark),
            Verdict::Each(_) if object.is_none() => {
                self.problems.insert(format!("{path} has a table but is no object"));
            }
            Verdict::Honoured | Verdict::Each(_) => {
                let Some(object) = object else { return };
                let table = match verdict {
                    Verdict::Each(table) => Some(table),
                    _ => self.tables.get(object.kind).copied(),
                };
                let Some(table) = table.filter(|table| table.kind == object.kind) else {
                    self.problems.insert(format!("{path}: its type {} has no table", object.kind));
                    return;
                };
                if matches!(verdict, Verdict::Honoured) && !all_honoured(table, &self.tables) {
                    let kind = object.kind;
                    self.problems
                        .insert(format!("{path} is Honoured, and not all of {kind} is: make it Each"));
                }
                if let Some((_, first)) = self.told.iter().find(|(told, _)| std::ptr::eq(*told, table)) {
                    let see = format!("as `{first}.*`");
                    let remark = if remark.is_empty() { see } else { format!("{see}; {remark}") };
                    self.row(all_below, "honoured", &remark);
                } else {
                    let below = format!("{path}{many}");
                    self.told.push((table, below.clone()));
                    if !remark.is_empty() {
                        self.row(below.clone(), "honoured", remark);
                    }
                    self.object(object, table, &below);
                }
            }
        }
    }

    fn row(&mut self, path: String, what: &str, remark: &str) {
        let remark = remark.replace('|', "\\|");
        self.rows.push(Row { path, what: what.to_owned(), remark, field: None });
    }
}

fn all_honoured(table: &Table, tables: &BTreeMap<&str, &'static Table>) -> bool {
    table.fields.iter().all(|(_, verdict)| match verdict {
        Verdict::Honoured => true,
        Verdict::Each(below) => all_honoured(tables.get(below.kind).copied().unwrap_or(below), tables),
        _ => false,
    })
}

fn walk() -> Walk {
    let mut walk = Walk { tables: tables(), told: Vec::new(), rows: Vec::new(), problems: BTreeSet::new() };
    walk.object(&explore::<Pod>(), &POD, "");
    walk
}

/// Every type below `kind` by its name.
fn types<'t>(kind: &'t Type, all: &mut BTreeMap<&'static str, &'t Type>) {
    all.insert(kind.kind, kind);
    kind.fields.iter().filter_map(|field| field.object.as_ref()).for_each(|below| types(below, all));
}

#[test]
fn every_field_of_the_api_has_a_row_and_every_row_a_field() {
    let mut problems = walk().problems;
    let pod = explore::<Pod>();
    let mut all = BTreeMap::new();
    types(&pod, &mut all);
    for (kind, table) in tables() {
        let Some(found) = all.get(kind) else {
            problems.insert(format!("no type {kind} in a pod"));
            continue;
        };
        let mut rows: Vec<&str> = table.fields.iter().map(|(name, _)| *name).collect();
        let mut names: Vec<&str> = found.fields.iter().map(|field| field.name).collect();
        rows.sort_unstable();
        names.sort_unstable();
        if rows != names {
            problems.insert(format!("{kind} has {names:?}, its table {rows:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_note_is_on_a_row_of_its_kind() {
    let rows = rows();
    let what = |path: &str| {
        let fits = |row: &str| {
            [path, &format!("{path}.*"), &format!("{path}[].*"), &format!("{path}[]")].contains(&row)
        };
        rows.iter().find(|row| fits(&row.path)).map_or("no row", |row| row.what.as_str())
    };
    for (path, _) in NO_EFFECT {
        assert_eq!(what(path), "no effect on a node", "{path}");
    }
    for (path, _) in NOTES {
        assert_eq!(what(path), "honoured", "{path}: a note on what is not honoured says nothing");
    }
}

#[test]
fn the_page_of_the_pod_spec_is_that_of_the_tables() {
    let rows = rows();
    let mut page = HEAD.replace("@version@", API_VERSION);
    for (at, (title, _)) in SECTIONS.iter().enumerate() {
        let section = |path: &str| SECTIONS.iter().position(|(_, begins)| path.starts_with(begins));
        write!(page, "\n## {title}\n\n| field | on this node | |\n|---|---|---|\n").unwrap();
        for Row { path, what, remark, .. } in rows.iter().filter(|row| section(&row.path) == Some(at)) {
            writeln!(page, "| `{path}` | {what} | {remark} |").unwrap();
        }
    }
    crate::settle_all(&BTreeMap::from([(PathBuf::from("docs/pod-spec.md"), page)]));
}

const HEAD: &str = "\
# The fields of a pod

Every field of a `v1` Pod of Kubernetes @version@, and what `nodectl run` makes of it in a [static pod](static-pods.md). The page is written from the agent's own tables; a test keeps it complete.

| on this node | means |
|---|---|
| honoured | acted on as kubelet does, or as the remark says |
| no effect on a node | rightly nothing is done: it is for the scheduler or an API server |
| warning | the pod runs without it, and `nodectl pods` says so |
| refused | a manifest that sets it is not run, because the pod would be another than the one written; the message names the field, the line and this reason |
| only `x` | as refused, unless it has this value, which is what happens anyway |
| the API server's pods | acted on as kubelet does in a pod of the API server; a static pod that sets it is refused, as kubelet does, because of what it would need |
| needs the API server | refused, as its object or its value could only come from there |

A field whose value is empty counts as not set. `[]` stands for any element, `.*` for all fields below. Fields that this page does not have are unknown and refused by name.

To find out about a manifest, put it into the folder and read `nodectl pods`: all its problems are listed at once.
";
