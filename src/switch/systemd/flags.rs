//! Flags of a unit's command line, changed in the files that they stand in; everything else in these files stays
//! as it is.

use std::{collections::BTreeMap, path::PathBuf};

use thiserror::Error;

use super::unit::{Place, Unit, Variable};
use crate::config::{Syntax, find_flag};

/// A replacement of a piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is replaced.
    pub place: Place,
    /// By what.
    pub text: String,
}

/// A flag that cannot be changed where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlagError {
    /// Its argument is put together from several places.
    #[error("--{0} stands in an argument of the unit that is put together from several variables")]
    Composed(String),
    /// A value that would need quotes, in the three kinds that these files and systemd have.
    #[error("{0:?} has characters that mean something to systemd")]
    Unsafe(String),
    /// There is no place for another argument.
    #[error("the unit's command line takes no variable that is set in a file")]
    NoPlace,
}

/// A flag on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Its value; `true` of a boolean that stands alone.
    pub value: String,
    /// Its argument, and that of its value if it is one of its own.
    at: (usize, Option<usize>),
}

impl Flag {
    /// The file that it stands in; `None` if it is put together from several places.
    pub fn place(&self, unit: &Unit) -> Option<PathBuf> {
        Some(unit.arguments.get(self.at.0)?.place.as_ref()?.path.clone())
    }
}

/// All places of a flag, in their order; the last counts, but for flags that add up.
pub fn find(unit: &Unit, name: &str) -> Vec<Flag> {
    let mut found = Vec::new();
    let mut at = 1;
    while let Some(argument) = unit.arguments.get(at) {
        let own = at;
        at += 1;
        let Some(flag) = argument.text.strip_prefix("--").or_else(|| argument.text.strip_prefix('-')) else {
            continue;
        };
        if flag.is_empty() {
            break;
        }
        let (this, value) = match flag.split_once('=') {
            Some((this, value)) => (this, Some(value.to_owned())),
            None => (flag, None),
        };
        // As kubelet has it: underscores are dashes, and a boolean takes its value behind an equals sign alone.
        let this = this.replace('_', "-");
        let next = unit.arguments.get(at).filter(|_| value.is_none());
        let takes_next = next.is_some_and(|next| match find_flag(&this) {
            Some(known) => known.syntax != Syntax::Bool,
            // One that was gone before kubelet 1.20.
            None => !next.text.starts_with('-'),
        });
        let next = takes_next.then_some(at);
        at += usize::from(next.is_some());
        if this == name {
            let apart = || next.and_then(|next| Some(unit.arguments.get(next)?.text.clone()));
            let value = value.or_else(apart).unwrap_or_else(|| "true".to_owned());
            found.push(Flag { value, at: (own, next) });
        }
    }
    found
}

/// The value of a flag that counts.
pub fn value(unit: &Unit, name: &str) -> Option<String> {
    find(unit, name).pop().map(|flag| flag.value)
}

/// Takes a flag away, wherever it stands.
///
/// # Errors
/// [`FlagError::Composed`].
pub fn remove(unit: &Unit, name: &str) -> Result<Vec<Change>, FlagError> {
    let mut changes = Vec::new();
    for flag in find(unit, name) {
        for at in [Some(flag.at.0), flag.at.1].into_iter().flatten() {
            changes.push(Change { place: place(unit, name, at)?, text: String::new() });
        }
    }
    Ok(changes)
}

/// Gives a flag a value: where it stands, if it does, else at the end of the first of `variables` that the command
/// line takes and a file sets.
///
/// # Errors
/// [`FlagError`]; with [`FlagError::NoPlace`] a drop-in has to say it.
pub fn set(unit: &Unit, name: &str, value: &str, variables: &[&str]) -> Result<Vec<Change>, FlagError> {
    if !is_safe(value) {
        return Err(FlagError::Unsafe(value.to_owned()));
    }
    if let Some(flag) = find(unit, name).pop() {
        if flag.value == value {
            return Ok(Vec::new());
        }
        let (at, text) = match flag.at {
            (_, Some(apart)) => (apart, value.to_owned()),
            (own, None) => (own, argument(name, value)),
        };
        return Ok(vec![Change { place: place(unit, name, at)?, text }]);
    }
    let taken = variables.iter().filter(|name| unit.split_variables.iter().any(|taken| taken == *name));
    let variable = taken.filter_map(|name| unit.environment.get(*name)).next().ok_or(FlagError::NoPlace)?;
    Ok(append(variable, &argument(name, value)))
}

/// An argument in one piece.
fn argument(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

/// Puts an argument behind those that a variable has.
fn append(variable: &Variable, argument: &str) -> Vec<Change> {
    let gap = if variable.value().trim().is_empty() { "" } else { " " };
    let behind = |mut place: Place| {
        place.range.start = place.range.end;
        place
    };
    match variable.bare_assignment() {
        // Within double quotes a backslash means what it means without them.
        Some(place) => {
            let mut before = place.clone();
            before.range.end = before.range.start;
            let end = Change { place: behind(place), text: format!("{gap}{argument}\"") };
            vec![Change { place: before, text: "\"".to_owned() }, end]
        }
        None => vec![Change { place: behind(variable.place()), text: format!("{gap}{argument}") }],
    }
}

/// Gives a flag that stands nowhere a value, at the end of a variable.
///
/// # Errors
/// [`FlagError::Unsafe`].
pub fn append_to_variable(variable: &Variable, name: &str, value: &str) -> Result<Vec<Change>, FlagError> {
    if !is_safe(value) {
        return Err(FlagError::Unsafe(value.to_owned()));
    }
    Ok(append(variable, &argument(name, value)))
}

/// Gives a flag a value at the end of the command line itself, where it counts most.
///
/// # Errors
/// [`FlagError::Unsafe`], and [`FlagError::NoPlace`] if there is no command line.
pub fn append_to_command(unit: &Unit, name: &str, value: &str) -> Result<Vec<Change>, FlagError> {
    if !is_safe(value) {
        return Err(FlagError::Unsafe(value.to_owned()));
    }
    let mut place = unit.command.clone().ok_or(FlagError::NoPlace)?;
    place.range.start = place.range.end;
    Ok(vec![Change { place, text: format!(" {}", argument(name, value)) }])
}

/// The arguments, without the program, that are neither one of these flags nor a value of one.
pub fn others(unit: &Unit, names: &[&str]) -> Vec<String> {
    let ours: Vec<usize> = names
        .iter()
        .flat_map(|name| find(unit, name))
        .flat_map(|flag| [Some(flag.at.0), flag.at.1])
        .flatten()
        .collect();
    let all = unit.arguments.iter().enumerate().skip(1);
    all.filter(|(at, _)| !ours.contains(at)).map(|(_, argument)| argument.text.clone()).collect()
}

/// Whether a text means itself in a unit file, an environment file and on a command line.
pub fn is_safe(text: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.,:/=@+".contains(char);
    !text.is_empty() && text.chars().all(plain)
}

/// Whether a text ends where the value of a variable begins.
fn begins_value(text: &str) -> bool {
    let text = text.strip_suffix(['"', '\'']).unwrap_or(text);
    let token = text.rsplit(|char: char| char.is_whitespace() || matches!(char, '"' | '\'')).next();
    token.is_some_and(|token| token.ends_with('=') && !token.starts_with('-'))
}

fn place(unit: &Unit, name: &str, at: usize) -> Result<Place, FlagError> {
    let place = unit.arguments.get(at).and_then(|argument| argument.place.clone());
    place.ok_or_else(|| FlagError::Composed(name.to_owned()))
}

/// The texts with the changes made. A text is asked for by its path; what is taken away takes the blanks before it
/// along. Changes at the same place are made in their order.
pub fn apply(
    mut changes: Vec<Change>,
    text_of: impl Fn(&PathBuf) -> Option<String>,
) -> BTreeMap<PathBuf, String> {
    let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
    // From the end, so that the places before stay where they are.
    changes.sort_by_key(|change| change.place.range.start);
    for change in changes.into_iter().rev() {
        let Place { path, mut range } = change.place;
        let Some(old) = texts.get(&path).cloned().or_else(|| text_of(&path)) else { continue };
        let mut text = change.text;
        if text.is_empty() {
            let before = old.get(..range.start).unwrap_or_default();
            let bare = before.trim_end_matches([' ', '\t', '\\', '\n', '\r']);
            if bare.len() < before.len() && !begins_value(bare) {
                range.start = bare.len();
            } else {
                // The first of its value: the blanks behind it.
                let after = old.get(range.end..).unwrap_or_default();
                range.end += after.len() - after.trim_start_matches([' ', '\t']).len();
            }
        }
        let (Some(begin), Some(end)) = (old.get(..range.start), old.get(range.end..)) else { continue };
        text = [begin, &text, end].concat();
        texts.insert(path, text);
    }
    texts
}
