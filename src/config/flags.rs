//! What is known of each flag, and how its text becomes a configuration value.
//!
//! The command line itself is taken apart elsewhere; here arrive names and values in their order.
//! Values are read as kubelet's flag library reads them: the last one of a scalar counts, lists and
//! maps collect over repetitions, booleans have Go's spellings.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::suggest::nearest;

use super::duration::GoDuration;
use super::error::{ConfigWarning, Origin, Problem, WarningKind};
pub(super) use super::flags_table::FLAGS;
use super::flags_value::{bool_value, value_of};
use super::keys::{Support, check_value, spec as key_spec};
use super::node::Node;

/// How the text of a flag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// A boolean; the flag alone is true.
    Bool,
    /// An integer.
    Int,
    /// A number.
    Float,
    /// Any text.
    Str,
    /// A duration.
    Duration,
    /// Texts with commas between.
    List,
    /// IP addresses with commas between.
    IpList,
    /// `name=value` with commas between.
    Map,
    /// One `name=value` for each use of the flag.
    Pair,
    /// `name<value` with commas between.
    AngleMap,
    /// `name=bool` with commas between.
    Gates,
    /// `name:value` with commas between.
    Headers,
    /// `pattern=number` with commas between.
    VModule,
    /// `key=value:effect` with commas between.
    Taints,
    /// `node:type=quantity,…` with semicolons between.
    Memory,
}

impl Syntax {
    /// The word for a value of this sort in help texts.
    pub fn value_name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int | Self::Float => "NUMBER",
            Self::Str => "TEXT",
            Self::Duration => "DURATION",
            Self::List => "LIST",
            Self::IpList => "ADDRESSES",
            Self::Map | Self::Pair => "NAME=VALUE",
            Self::AngleMap => "SIGNAL<AMOUNT",
            Self::Gates => "GATE=BOOL",
            Self::Headers => "NAME:VALUE",
            Self::VModule => "PATTERN=NUMBER",
            Self::Taints => "KEY=VALUE:EFFECT",
            Self::Memory => "NODE:TYPE=AMOUNT",
        }
    }
}

/// What a flag sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The configuration key with this path.
    Key(&'static str),
    /// A setting that has no key.
    Agent,
    /// Nothing.
    Nothing,
}

/// What is to be said of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagStatus {
    /// Stands for a key and is deprecated for it.
    Key,
    /// Stands for a key and is not deprecated.
    Current,
    /// Has no key, and nodectl acts on it.
    Acts,
    /// Has no key, and nodectl does not yet act on it.
    NotYet,
    /// Deprecated without a key, not acted on.
    Old,
    /// Deprecated without a key, acted on.
    OldActs,
    /// Removed from Kubernetes by this minor version.
    Gone(u8),
    /// Kept by kubelet, without a meaning for nodectl.
    NoEffect,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagSpec {
    /// The name without dashes; `v` is a short one.
    pub name: &'static str,
    /// How its value is written.
    pub syntax: Syntax,
    /// What it sets.
    pub target: Target,
    /// What is to be said of it.
    pub status: FlagStatus,
    /// Help text; for a deprecated or removed flag what to use instead.
    pub help: &'static str,
}

pub(super) const fn flag(
    name: &'static str,
    syntax: Syntax,
    target: Target,
    status: FlagStatus,
    help: &'static str,
) -> FlagSpec {
    FlagSpec { name, syntax, target, status, help }
}

impl FlagSpec {
    /// Whether nodectl acts on the flag.
    pub fn support(&self) -> Support {
        match (self.target, self.status) {
            (Target::Key(path), _) => key_spec(path).map_or(Support::NotYet, |spec| spec.support),
            (_, FlagStatus::Acts | FlagStatus::OldActs) => Support::Acts,
            (_, FlagStatus::Gone(minor)) => Support::Gone(minor),
            (_, FlagStatus::NoEffect) => Support::NoEffect,
            _ => Support::NotYet,
        }
    }

    /// Whether it is nodectl's own: kubelet has no such flag.
    pub fn is_own(&self) -> bool {
        matches!(self.name, "operator-socket" | "container-log-dir" | "runtime-class-path" | "offline-pods")
    }

    /// What the flag says where it stands without a value; `None` of one that needs its value. Such a flag takes it
    /// only behind an equals sign.
    pub fn bare(&self) -> Option<&'static str> {
        match (self.syntax, self.name) {
            (Syntax::Bool, _) => Some("true"),
            (_, "offline-pods") => Some("tolerated"),
            _ => None,
        }
    }
}

/// The table of all flags.
pub fn flags() -> &'static [FlagSpec] {
    FLAGS
}

/// A name as kubelet's flag library has it: underscores are dashes.
pub fn normalize(name: &str) -> String {
    name.replace('_', "-")
}

/// The row of a flag by its normalized name.
pub fn find(name: &str) -> Option<&'static FlagSpec> {
    FLAGS.iter().find(|spec| spec.name == name)
}

/// What the flags of one command line say.
#[derive(Default)]
pub(super) struct Flags {
    /// Settings without a key: the last value of each flag.
    agent: BTreeMap<&'static str, String>,
    /// Keys that flags set, with their values, in the order of the table.
    pub(super) keys: Vec<(&'static str, Node)>,
    pub(super) warnings: Vec<ConfigWarning>,
    pub(super) problems: Vec<Problem>,
}

impl Flags {
    /// Reads names and values in the order of the command line.
    pub(super) fn read(given: &[(String, String)]) -> Self {
        let mut flags = Self::default();
        let mut by_name: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
        for (name, value) in given {
            let name = normalize(name);
            match find(&name) {
                Some(spec) => by_name.entry(spec.name).or_default().push(value),
                None => {
                    let origin = Origin::Flag(Arc::from(name.as_str()));
                    let close = nearest(&name, FLAGS.iter().map(|spec| spec.name));
                    flags.problems.push(Problem::new(&origin, "", "unknown flag").suggest(close));
                }
            }
        }
        for spec in FLAGS {
            if let Some(values) = by_name.get(spec.name) {
                flags.take(spec, values);
            }
        }
        flags
    }

    fn take(&mut self, spec: &'static FlagSpec, values: &[&str]) {
        let origin = Origin::Flag(Arc::from(spec.name));
        self.warn(spec, values, &origin);
        match spec.target {
            Target::Key(path) => match value_of(spec.syntax, values, &origin) {
                Ok(value) => {
                    let node = Node { origin, value };
                    if let Some(key) = key_spec(path) {
                        check_value(&node, path, key, &mut self.problems);
                    }
                    self.keys.push((path, node));
                }
                Err(message) => self.problems.push(Problem::new(&origin, "", message)),
            },
            Target::Agent | Target::Nothing => {
                if let Err(message) = value_of(spec.syntax, values, &origin) {
                    self.problems.push(Problem::new(&origin, "", message));
                }
                let joined = match spec.syntax {
                    Syntax::Map => values.join(","),
                    _ => values.last().map(|value| (*value).to_owned()).unwrap_or_default(),
                };
                self.agent.insert(spec.name, joined);
            }
        }
    }

    fn warn(&mut self, spec: &FlagSpec, values: &[&str], origin: &Origin) {
        let neutral = values.last().is_none_or(|value| {
            value.is_empty() || (spec.syntax == Syntax::Bool && bool_value(value) == Some(false))
        });
        let (kind, message) = match (spec.status, spec.target) {
            (FlagStatus::Key, Target::Key(path)) => {
                (WarningKind::Deprecated, format!("deprecated; set {path} in the configuration file"))
            }
            (FlagStatus::Old, _) => {
                (WarningKind::Deprecated, format!("deprecated and not acted on: {}", spec.help))
            }
            (FlagStatus::OldActs, _) => {
                (WarningKind::Deprecated, "deprecated; kubelet is to drop it for eviction".to_owned())
            }
            (FlagStatus::Gone(minor), _) => (
                WarningKind::Removed,
                format!("ignored: removed from kubelet by Kubernetes 1.{minor}: {}", spec.help),
            ),
            (FlagStatus::NoEffect, _) => (WarningKind::NoEffect, format!("ignored: {}", spec.help)),
            (FlagStatus::NotYet, _) if !neutral => {
                (WarningKind::NotYet, "not yet acted on by nodectl".to_owned())
            }
            _ => return,
        };
        self.warnings.push(ConfigWarning::new(kind, origin, spec.name, message));
    }

    /// The last value of a flag without a key; an empty one counts as not given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.agent.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Whether a text is a duration, for flags without a key.
pub(super) fn is_duration(text: &str) -> Result<(), String> {
    GoDuration::parse(text).map(|_| ()).map_err(|error| error.to_string())
}
