//! From files and flags to an [`AgentConfig`].
//!
//! Kubelet's precedence: defaults, the file, drop-ins in the order of their paths, flags. Defaults
//! are filled in before flags are put over, as in kubelet, so that a flag can set a key to zero.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::api::suggest::nearest;

use super::agent::AgentConfig;
use super::error::{ConfigError, ConfigWarning, Origin, Problem, WarningKind};
use super::flags::Flags;
use super::gates::{self, FeatureGates, GateState};
use super::keys::{KEYS, Support, check_document};
use super::node::{self, Map, Node, Value};
use super::resolve::resolve;
use super::types::KubeletConfiguration;
use super::validate::{Finding, validate};
use super::{MAX_DROP_INS, MAX_FILE_BYTES, credential_providers, defaults, unacted};

/// Deepest folder below `--config-dir` that is looked into.
const MAX_DIR_DEPTH: usize = 16;

/// Reads the configuration that `flags` (names without dashes, and values, in the order of the
/// command line) and the files they name make together.
///
/// # Errors
/// A file that cannot be read, or every problem found in files and flags.
pub fn load(flags: &[(String, String)]) -> Result<(AgentConfig, Vec<ConfigWarning>), ConfigError> {
    load_on(flags, &|| {
        let name = nix::unistd::gethostname().map_err(|error| error.to_string())?;
        name.into_string().map_err(|_not_utf8| "it is not UTF-8".to_owned())
    })
}

/// [`load`] on a machine with the host name that `hostname` gives.
///
/// # Errors
/// As [`load`].
pub fn load_on(
    flags: &[(String, String)],
    hostname: &dyn Fn() -> Result<String, String>,
) -> Result<(AgentConfig, Vec<ConfigWarning>), ConfigError> {
    let mut flags = Flags::read(flags);
    let mut files = Vec::new();
    if let Some(path) = flags.text("config") {
        files.push(PathBuf::from(path));
    }
    if let Some(dir) = flags.text("config-dir") {
        drop_ins(Path::new(dir), &mut files)?;
    }
    let mut problems = std::mem::take(&mut flags.problems);
    let mut tree = Node { origin: Origin::Default, value: Value::Map(Map::default()) };
    for path in &files {
        match read(path)? {
            Ok(node) => tree.merge(node),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    let checked = complete(tree, &flags.keys).map_err(ConfigError::Invalid)?;
    let mut warnings = flags.warnings.clone();
    warnings.extend(checked.warnings);
    let config = resolve(checked.config, checked.gates, &flags, checked.resolv_conf_given, files, hostname)?;
    Ok((config, warnings))
}

/// What is to say of one file on its own, as `nodectl config validate` does: its warnings, or an
/// error with its problems. It may be one of credential providers too.
///
/// # Errors
/// The file cannot be read, or is not valid.
pub fn validate_file(path: &Path) -> Result<Vec<ConfigWarning>, ConfigError> {
    let tree = parse_file(path)?.map_err(ConfigError::Invalid)?;
    let kind = tree.at("kind").map(|node| &node.value);
    if kind == Some(&Value::Str(credential_providers::KIND.to_owned())) {
        return credential_providers::read(&tree).map(|_| Vec::new()).map_err(ConfigError::Invalid);
    }
    let tree = checked(tree).map_err(ConfigError::Invalid)?;
    complete(tree, &[]).map(|checked| checked.warnings).map_err(ConfigError::Invalid)
}

struct Checked {
    config: KubeletConfiguration,
    gates: FeatureGates,
    /// Whether a file or flag says which resolver file to take.
    resolv_conf_given: bool,
    warnings: Vec<ConfigWarning>,
}

/// Defaults, flags and validation over the merged files.
fn complete(mut tree: Node, flags: &[(&'static str, Node)]) -> Result<Checked, Vec<Problem>> {
    tree.drop_nulls();
    quantities_to_text(&mut tree);
    let mut warnings = take_removed(&mut tree);
    let gates = gates_of(&tree, flags);
    let mut config: KubeletConfiguration =
        decode(tree.value.to_json()).map_err(|message| vec![Problem::new(&tree.origin, "", message)])?;
    defaults::apply(&mut config, &gates);

    let mut json = encode(&config).map_err(|message| vec![Problem::new(&tree.origin, "", message)])?;
    for (path, node) in flags {
        put(&mut tree, path, node);
        put_json(&mut json, path, node);
    }
    let effective = json.clone();
    let config: KubeletConfiguration =
        decode(json).map_err(|message| vec![Problem::new(&tree.origin, "", message)])?;

    let mut problems = check_gates(&tree, &mut warnings);
    problems.extend(
        validate(&config, &gates).into_iter().map(|finding| {
            Problem::new(place(&tree, &finding), finding.key.as_str(), finding.message.as_str())
        }),
    );
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(unacted::warnings(&tree, &effective));
    let resolv_conf_given = tree.at("resolvConf").is_some();
    Ok(Checked { config, gates, resolv_conf_given, warnings })
}

fn decode(json: Json) -> Result<KubeletConfiguration, String> {
    serde_json::from_value(json).map_err(|error| format!("cannot be decoded: {error}"))
}

fn encode(config: &KubeletConfiguration) -> Result<Json, String> {
    serde_json::to_value(config).map_err(|error| format!("cannot be encoded: {error}"))
}

/// Where to point for a finding: the key, or the one it does not go with where only that is set.
fn place<'a>(tree: &'a Node, finding: &Finding) -> &'a Origin {
    match (origin_of(tree, &finding.key), finding.beside) {
        (Origin::Default, Some(beside)) => origin_of(tree, beside),
        (origin, _) => origin,
    }
}

/// The place of a key, or of the nearest value around it that is there.
fn origin_of<'a>(tree: &'a Node, key: &str) -> &'a Origin {
    let mut node = tree;
    let mut rest = key;
    while !rest.is_empty() {
        let next = match &node.value {
            // Eviction signals have points in their names, so the whole rest is tried first.
            Value::Map(map) => map.get(rest).map(|node| (node, "")).or_else(|| {
                let (head, tail) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
                map.get(head).map(|node| (node, tail.strip_prefix('.').unwrap_or(tail)))
            }),
            Value::List(items) => {
                rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).and_then(|(at, tail)| {
                    let item = items.get(at.parse::<usize>().ok()?)?;
                    Some((item, tail.strip_prefix('.').unwrap_or(tail)))
                })
            }
            _ => None,
        };
        let Some(next) = next else { break };
        (node, rest) = next;
    }
    &node.origin
}

/// Takes keys out that Kubernetes has removed, with a warning for each.
fn take_removed(tree: &mut Node) -> Vec<ConfigWarning> {
    let mut warnings = Vec::new();
    for spec in KEYS {
        let Support::Gone(minor) = spec.support else { continue };
        let Some(node) = tree.at(spec.path) else { continue };
        warnings.push(ConfigWarning::new(
            WarningKind::Removed,
            &node.origin,
            spec.path,
            format!("ignored: removed from kubelet by Kubernetes 1.{minor}"),
        ));
        let parent = match spec.path.rsplit_once('.') {
            Some((parent, _)) => tree.at_mut(parent),
            None => Some(&mut *tree),
        };
        if let Some(Node { value: Value::Map(map), .. }) = parent {
            map.0.retain(|(key, ..)| spec.path.rsplit('.').next() != Some(key.as_str()));
        }
    }
    warnings
}

/// Turns numbers into texts where Kubernetes reads either as a quantity.
fn quantities_to_text(tree: &mut Node) {
    fn to_text(node: &mut Node) {
        if let Value::Int(number) = node.value {
            node.value = Value::Str(number.to_string());
        }
    }
    for format in ["text", "json"] {
        if let Some(node) = tree.at_mut(&format!("logging.options.{format}.infoBufferSize")) {
            to_text(node);
        }
    }
    let Some(Node { value: Value::List(reservations), .. }) = tree.at_mut("reservedMemory") else { return };
    for reservation in reservations {
        if let Some(Node { value: Value::Map(limits), .. }) = reservation.at_mut("limits") {
            limits.0.iter_mut().for_each(|(.., node)| to_text(node));
        }
    }
}

/// Puts a flag's value at a key; feature gates are merged, all else replaces.
fn put(tree: &mut Node, path: &str, value: &Node) {
    let mut node = tree;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if !matches!(node.value, Value::Map(_)) {
            node.value = Value::Map(Map::default());
        }
        let Value::Map(map) = &mut node.value else { return };
        if parts.peek().is_none() && path != "featureGates" {
            map.set(part, &value.origin, value.clone());
            return;
        }
        if map.get(part).is_none() {
            let empty = Node { origin: value.origin.clone(), value: Value::Map(Map::default()) };
            map.set(part, &value.origin, empty);
        }
        let Some(next) = map.get_mut(part) else { return };
        node = next;
    }
    node.merge(value.clone());
}

fn put_json(json: &mut Json, path: &str, value: &Node) {
    let mut at = json;
    for part in path.split('.') {
        if !at.is_object() {
            *at = Json::Object(serde_json::Map::new());
        }
        let Json::Object(map) = at else { return };
        at = map.entry(part).or_insert(Json::Null);
    }
    match (path, &mut *at, value.value.to_json()) {
        ("featureGates", Json::Object(gates), Json::Object(flags)) => gates.extend(flags),
        (_, at, json) => *at = json,
    }
}

fn gates_of(tree: &Node, flags: &[(&'static str, Node)]) -> FeatureGates {
    let given = flags.iter().filter(|(path, _)| *path == "featureGates").map(|(_, node)| node);
    let mut configured = BTreeMap::new();
    for node in tree.at("featureGates").into_iter().chain(given) {
        let Value::Map(map) = &node.value else { continue };
        configured.extend(map.0.iter().filter_map(|(name, _, node)| match node.value {
            Value::Bool(on) => Some((name.clone(), on)),
            _ => None,
        }));
    }
    FeatureGates::new(&configured)
}

fn check_gates(tree: &Node, warnings: &mut Vec<ConfigWarning>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(Node { value: Value::Map(map), .. }) = tree.at("featureGates") else { return problems };
    for (name, origin, node) in &map.0 {
        let key = format!("featureGates.{name}");
        let on = node.value == Value::Bool(true);
        let (kind, message) = match gates::lookup(name) {
            None => {
                let close = nearest(name, gates::GATES.iter().map(|(name, _)| *name));
                problems.push(Problem::new(origin, key, "unknown feature gate").suggest(close));
                continue;
            }
            Some(GateState::Removed { minor }) => (
                WarningKind::Removed,
                format!("ignored: this feature gate was removed by Kubernetes 1.{minor}"),
            ),
            Some(GateState::Known { default, locked: true }) if on != default => {
                problems.push(Problem::new(origin, key, format!("this feature gate is locked to {default}")));
                continue;
            }
            Some(GateState::Known { default, .. }) if on != default && !gates::acts(name) => {
                (WarningKind::NotYet, "this feature gate is not yet acted on by nodectl".to_owned())
            }
            Some(GateState::Known { .. }) => continue,
        };
        warnings.push(ConfigWarning::new(kind, origin, key, message));
    }
    problems
}

/// Reads and checks one file.
fn read(path: &Path) -> Result<Result<Node, Vec<Problem>>, ConfigError> {
    Ok(parse_file(path)?.and_then(checked))
}

fn checked(node: Node) -> Result<Node, Vec<Problem>> {
    let problems = check_document(&node);
    if problems.is_empty() { Ok(node) } else { Err(problems) }
}

/// Reads one file.
pub(super) fn parse_file(path: &Path) -> Result<Result<Node, Vec<Problem>>, ConfigError> {
    let failed = |source| ConfigError::Read { what: "configuration", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    Ok(node::parse(path, &bytes))
}

/// The `*.conf` files below a folder, in the order of their paths.
fn drop_ins(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    walk(dir, dir, 0, &mut found)?;
    files.append(&mut found);
    Ok(())
}

fn walk(root: &Path, dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ConfigError> {
    let too_many = || ConfigError::TooManyDropIns { path: root.to_owned(), limit: MAX_DROP_INS };
    if depth > MAX_DIR_DEPTH {
        return Err(too_many());
    }
    let failed = |source| ConfigError::Read { what: "drop-in folder", path: dir.to_owned(), source };
    let mut entries =
        fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(root, &entry.path(), depth + 1, found)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "conf") {
            found.push(entry.path());
            if found.len() > MAX_DROP_INS {
                return Err(too_many());
            }
        }
    }
    Ok(())
}
