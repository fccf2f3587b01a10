//! A unit as systemd puts it together: its file, its drop-ins, its environment files, and the command line that
//! follows from them, each argument with the place that it comes from.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::words::{Setting, Text, Word, assignments, settings};

/// Where systemd looks for units, the first that has a file of a name winning (systemd.unit(5)).
const FOLDERS: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A file system to read from: the node's, or a folder that holds one.
pub trait Files {
    /// A file's text; `None` if it is not there. What leads to `/dev/null` is empty.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, path: &Path) -> io::Result<Option<String>>;

    /// The names in a folder, in no order; none if it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// From its first byte to behind its last.
    pub range: Range<usize>,
}

/// An argument of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// As the program gets it.
    pub text: String,
    /// Where it stands, alone and whole. `None` if it is put together from several.
    pub place: Option<Place>,
}

/// A variable of the unit's environment.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The file that gives it the value that counts.
    pub path: PathBuf,
    /// Whether that is an environment file, not a unit's.
    pub in_environment_file: bool,
    value: Text,
    /// The whole assignment, with quotes around it.
    assignment: Range<usize>,
    /// Whether blanks within the value need quotes that are not there.
    bare: bool,
}

impl Variable {
    /// Its value.
    pub fn value(&self) -> String {
        self.value.value()
    }

    /// Where its value stands.
    pub fn place(&self) -> Place {
        Place { path: self.path.clone(), range: self.value.place() }
    }

    /// Where its whole assignment stands: in a unit file with the quotes around it, in an environment file its value.
    pub fn assignment(&self) -> Place {
        Place { path: self.path.clone(), range: self.assignment.clone() }
    }

    /// Where its whole assignment stands, if a value with blanks has to be put in quotes together with it.
    pub fn bare_assignment(&self) -> Option<Place> {
        self.bare.then(|| Place { path: self.path.clone(), range: self.assignment.clone() })
    }
}

/// A unit, resolved.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// The unit's own file.
    pub fragment: Option<PathBuf>,
    /// Its drop-ins, in the order in which they count.
    pub drop_ins: Vec<PathBuf>,
    /// The environment files that it names, there or not.
    pub environment_files: Vec<PathBuf>,
    /// Those of them without which systemd does not start it, and that are not there.
    pub missing_environment_files: Vec<PathBuf>,
    /// The environment that it gives its program.
    pub environment: BTreeMap<String, Variable>,
    /// The command line of its `ExecStart=`; empty if there is none.
    pub arguments: Vec<Argument>,
    /// The names of variables that the command line takes apart into arguments, set or not.
    pub split_variables: Vec<String>,
    /// The file with the `ExecStart=` that counts.
    pub exec_start: Option<PathBuf>,
    /// Where that command line stands, up to where another argument would.
    pub command: Option<Place>,
}

/// Puts a service together. A unit that is nowhere has no fragment.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn load(files: &impl Files, name: &str) -> io::Result<Unit> {
    let mut unit = Unit::default();
    let mut sources: Vec<(PathBuf, String)> = Vec::new();
    for folder in FOLDERS {
        let path = Path::new(folder).join(name);
        if let Some(text) = files.read(&path)? {
            unit.fragment = Some(path.clone());
            sources.push((path, text));
            break;
        }
    }
    for path in drop_ins(files, name)? {
        // What leads to /dev/null hides those of its name, and says nothing.
        if let Some(text) = files.read(&path)?.filter(|text| !text.is_empty()) {
            unit.drop_ins.push(path.clone());
            sources.push((path, text));
        }
    }
    let all: Vec<(&Path, Setting)> = sources
        .iter()
        .flat_map(|(path, text)| settings(text).into_iter().map(|setting| (path.as_path(), setting)))
        .filter(|(_, setting)| setting.section == "Service")
        .collect();
    unit.read_environment(files, &all)?;
    let mut exec = all.iter().filter(|(_, setting)| setting.key == "ExecStart");
    // An empty one takes back those before it.
    if let Some((path, setting)) = exec.next_back().filter(|(_, setting)| !setting.value().is_empty()) {
        unit.exec_start = Some(path.to_path_buf());
        unit.command = Some(Place { path: path.to_path_buf(), range: setting.value_place() });
        unit.read_command(path, setting);
    }
    Ok(unit)
}

/// The drop-ins of a service by their names; of one name, the one in the folder that comes first.
fn drop_ins(files: &impl Files, name: &str) -> io::Result<Vec<PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    // Those for the unit come before those for all services.
    for own in [format!("{name}.d"), "service.d".to_owned()] {
        for folder in FOLDERS {
            let folder = Path::new(folder).join(&own);
            for file in files.list(&folder)? {
                if file.ends_with(".conf") {
                    found.entry(file.clone()).or_insert_with(|| folder.join(&file));
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

impl Unit {
    fn read_environment(&mut self, files: &impl Files, all: &[(&Path, Setting)]) -> io::Result<()> {
        let mut named: Vec<(PathBuf, bool)> = Vec::new();
        for (path, setting) in all {
            match setting.key.as_str() {
                "Environment" if setting.value().is_empty() => self.environment.clear(),
                "Environment" => {
                    for word in setting.words() {
                        let Some((name, value)) = word.text.without_specifiers().assignment() else {
                            continue;
                        };
                        let variable = Variable {
                            path: path.to_path_buf(),
                            in_environment_file: false,
                            value,
                            bare: !word.quoted,
                            assignment: word.place,
                        };
                        self.environment.insert(name, variable);
                    }
                }
                "EnvironmentFile" if setting.value().is_empty() => named.clear(),
                "EnvironmentFile" => {
                    let value = setting.value();
                    let path = value.strip_prefix('-').unwrap_or(&value);
                    // What a pattern or a specifier leads to is not known here.
                    let needed = path.len() == value.len() && !path.contains(['*', '?', '[', '%']);
                    named.push((PathBuf::from(path), needed));
                }
                _ => {}
            }
        }
        // Files win over what stands in units, wherever they are named.
        for (path, needed) in &named {
            let text = files.read(path)?;
            if *needed && text.is_none() {
                self.missing_environment_files.push(path.clone());
            }
            for assignment in assignments(&text.unwrap_or_default()) {
                let variable = Variable {
                    path: path.clone(),
                    in_environment_file: true,
                    assignment: assignment.value.place(),
                    value: assignment.value,
                    bare: false,
                };
                self.environment.insert(assignment.name, variable);
            }
        }
        self.environment_files = named.into_iter().map(|(path, _)| path).collect();
        Ok(())
    }

    fn read_command(&mut self, path: &Path, setting: &Setting) {
        let place = |word: &Word| Some(Place { path: path.to_path_buf(), range: word.place.clone() });
        let mut plain = false;
        for (number, word) in setting.words().iter().enumerate() {
            let mut text = word.text.without_specifiers().value();
            if number == 0 {
                // What is before the program's path is how to run it; a colon switches variables off.
                let bare = text.trim_start_matches(['@', '-', ':', '+', '!']).to_owned();
                plain = text.len() > bare.len() && text[..text.len() - bare.len()].contains(':');
                text = bare;
            }
            if plain {
                self.arguments.push(Argument { text, place: place(word) });
                continue;
            }
            if let Some(name) = text.strip_prefix('$').filter(|name| is_name(name)) {
                self.split_variables.push(name.to_owned());
                if let Some(variable) = self.environment.get(name) {
                    let words = variable.value.words();
                    self.arguments.extend(words.into_iter().map(|word| Argument {
                        text: word.text.value(),
                        place: Some(Place { path: variable.path.clone(), range: word.place }),
                    }));
                }
                continue;
            }
            let whole =
                text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| is_name(name));
            if let Some(name) = whole {
                let variable = self.environment.get(name);
                self.arguments.push(Argument {
                    text: variable.map(Variable::value).unwrap_or_default(),
                    place: variable.map(Variable::place),
                });
                continue;
            }
            let expanded = self.expand(&text);
            let place = if expanded == text { place(word) } else { None };
            self.arguments.push(Argument { text: expanded, place });
        }
    }

    /// `${NAME}` within a word; `$$` is a dollar.
    fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            expanded.push_str(before);
            let braced = from.strip_prefix("${").and_then(|from| from.split_once('}'));
            match braced.filter(|(name, _)| is_name(name)) {
                Some((name, after)) => {
                    expanded.push_str(&self.environment.get(name).map(Variable::value).unwrap_or_default());
                    rest = after;
                }
                None => {
                    expanded.push('$');
                    rest = from.strip_prefix("$$").unwrap_or(from.get(1..).unwrap_or_default());
                }
            }
        }
        expanded + rest
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}
