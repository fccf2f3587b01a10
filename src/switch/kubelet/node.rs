//! The node's files as they are and as they would be, and the flags of kubelet's unit in them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::KubeletEditError;
use crate::switch::{
    facts::Facts,
    systemd::{
        flags::{self, Change, FlagError},
        unit::{self, Files, Place, Unit},
    },
};

/// The kubelet's unit.
pub(super) const UNIT: &str = "kubelet.service";
/// Where drop-ins of the administrator's are.
const DROP_INS: &str = "/etc/systemd/system/kubelet.service.d";
/// The name of ours, and one that counts behind nearly all others.
const DROP_IN: [&str; 2] = ["20-nodectl.conf", "zz-nodectl.conf"];
/// The variables that are given another argument, where the command line takes them and a file sets them: kubeadm's
/// own, the administrator's, and those of other installers.
const VARIABLES: [&str; 4] = ["KUBELET_KUBEADM_ARGS", "KUBELET_EXTRA_ARGS", "KUBELET_ARGS", "KUBELET_OPTS"];
/// The one that is left to the administrator, as the comment in kubeadm's drop-in has it.
const EXTRA: &str = "KUBELET_EXTRA_ARGS";
/// What packages, and programs at run time, write again.
const NOT_OURS: [&str; 4] = ["/usr/lib", "/lib", "/usr/share", "/run"];

/// Files as they are, with changes over them.
pub(super) struct Node<'a> {
    facts: &'a Facts,
    /// The new texts.
    pub(super) changed: BTreeMap<PathBuf, String>,
}

impl Files for Node<'_> {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.text(path).map(str::to_owned))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let all = self.facts.files.keys().chain(self.changed.keys());
        let inside = all.filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }
}

/// Whether a file is left as it is: the next update of its package would bring it back.
pub(super) fn is_packaged(path: &Path) -> bool {
    NOT_OURS.iter().any(|folder| path.starts_with(folder))
}

impl<'a> Node<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self { facts, changed: BTreeMap::new() }
    }

    pub(super) fn text(&self, path: &Path) -> Option<&str> {
        self.changed.get(path).map(String::as_str).or_else(|| self.facts.text(path))
    }

    pub(super) fn put(&mut self, path: PathBuf, text: String) {
        if self.facts.text(&path) == Some(text.as_str()) {
            self.changed.remove(&path);
        } else {
            self.changed.insert(path, text);
        }
    }

    pub(super) fn unit(&self) -> Unit {
        // Texts in memory are read without an error.
        unit::load(self, UNIT).unwrap_or_default()
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for (path, text) in flags::apply(changes, |path| self.text(path).map(str::to_owned)) {
            self.put(path, text);
        }
    }

    /// Gives a flag a value: where it stands, else behind other arguments.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), KubeletEditError> {
        // What stands in a packaged file is copied into a drop-in first, and changed there: at most a variable
        // and the command line.
        for _ in 0..3 {
            let unit = self.unit();
            let told = flags::find(&unit, name);
            let changes = match told.last() {
                Some(last) if last.value == value => return Ok(()),
                Some(_) => match flags::set(&unit, name, value, &[]) {
                    // Put together from several variables: one behind it wins.
                    Err(FlagError::Composed(_)) => flags::append_to_command(&unit, name, value),
                    changes => changes,
                },
                None => match self.new_argument(&unit, name, value) {
                    Ok(Some(changes)) => Ok(changes),
                    Ok(None) => return Ok(()),
                    Err(error) => Err(error),
                },
            };
            let changes = changes.map_err(|error| self.refused(&unit, name, &error))?;
            match changes.iter().map(|change| &change.place).find(|place| is_packaged(&place.path)) {
                Some(place) => self.copy(&unit, place, name)?,
                None => {
                    self.apply(changes);
                    return Ok(());
                }
            }
        }
        Err(self.refused(&self.unit(), name, &FlagError::NoPlace))
    }

    /// Takes a flag away, wherever it stands.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), KubeletEditError> {
        for _ in 0..VARIABLES.len() + 2 {
            let unit = self.unit();
            let changes = flags::remove(&unit, name).map_err(|error| self.refused(&unit, name, &error))?;
            match changes.iter().map(|change| &change.place).find(|place| is_packaged(&place.path)) {
                Some(place) => self.copy(&unit, place, name)?,
                None => {
                    self.apply(changes);
                    return Ok(());
                }
            }
        }
        Err(self.refused(&self.unit(), name, &FlagError::NoPlace))
    }

    /// Where a flag that stands nowhere goes. `None` if it is said in a drop-in already.
    fn new_argument(
        &mut self,
        unit: &Unit,
        name: &str,
        value: &str,
    ) -> Result<Option<Vec<Change>>, FlagError> {
        let taken = |variable: &str| unit.split_variables.iter().any(|taken| taken == variable);
        // An environment file of a package cannot be overruled by a unit's own variable.
        let usable =
            |variable: &&unit::Variable| !(variable.in_environment_file && is_packaged(&variable.path));
        let mut set =
            VARIABLES.iter().filter(|name| taken(name)).filter_map(|name| unit.environment.get(*name));
        if let Some(variable) = set.find(usable) {
            return flags::append_to_variable(variable, name, value).map(Some);
        }
        // A variable that the command line takes and nothing sets: nothing is hidden by setting it.
        if taken(EXTRA) && !unit.environment.contains_key(EXTRA) {
            if !flags::is_safe(value) {
                return Err(FlagError::Unsafe(value.to_owned()));
            }
            self.drop_in(None, &format!("Environment=\"{EXTRA}=--{name}={value}\"\n"));
            return Ok(None);
        }
        flags::append_to_command(unit, name, value).map(Some)
    }

    /// Copies what is at a place of a packaged file, a variable or the command line, into a drop-in that comes
    /// behind it. The command line is copied as it is written, with the variables in it, so that whatever sets
    /// these goes on to count; a file of the packaged one's name would hide all else that that says.
    fn copy(&mut self, unit: &Unit, place: &Place, name: &str) -> Result<(), KubeletEditError> {
        let within = |outer: &Place| {
            outer.path == place.path
                && outer.range.start <= place.range.start
                && place.range.end <= outer.range.end
        };
        let text_at = |place: &Place| self.text(&place.path)?.get(place.range.clone()).map(str::to_owned);
        if let Some(command) = unit.command.as_ref().filter(|command| within(command))
            && let Some(text) = text_at(command)
        {
            let path = command.path.clone();
            self.drop_in(
                Some(&path),
                &format!(
                    "# As in {}, changed for containerd.\nExecStart=\nExecStart={text}\n",
                    path.display()
                ),
            );
            return Ok(());
        }
        let mut units = unit.environment.values().filter(|variable| !variable.in_environment_file);
        if let Some(variable) = units.find(|variable| within(&variable.assignment()))
            && let Some(text) = text_at(&variable.assignment())
        {
            let path = variable.path.clone();
            self.drop_in(
                Some(&path),
                &format!("# As in {}, changed for containerd.\nEnvironment={text}\n", path.display()),
            );
            return Ok(());
        }
        Err(KubeletEditError::Flag {
            flag: name.to_owned(),
            path: place.path.clone(),
            why: "the file belongs to a package or is made anew at each start".to_owned(),
        })
    }

    /// Says something in our drop-in, which counts more than `above`.
    fn drop_in(&mut self, above: Option<&Path>, lines: &str) {
        let is_drop_in = |path: &&Path| path.extension().is_some_and(|extension| extension == "conf");
        let above = above.filter(is_drop_in).and_then(|path| path.file_name()).and_then(|name| name.to_str());
        let own = DROP_IN.into_iter().find(|own| above.is_none_or(|above| above < *own));
        let path = Path::new(DROP_INS).join(own.unwrap_or(DROP_IN[1]));
        const HEAD: &str = "# Written by nodectl switch-runtime.\n[Service]\n";
        let text = match self.text(&path) {
            Some(old) if old.starts_with(HEAD) => format!("{}\n{lines}", old.trim_end_matches('\n')),
            Some(old) if !old.is_empty() => format!("{}\n\n[Service]\n{lines}", old.trim_end_matches('\n')),
            _ => format!("{HEAD}{lines}"),
        };
        self.put(path, text);
    }

    /// Where a flag stands, or would.
    pub(super) fn place_of(&self, unit: &Unit, name: &str) -> PathBuf {
        let found = flags::find(unit, name).pop().and_then(|flag| flag.place(unit));
        found.or_else(|| unit.exec_start.clone()).unwrap_or_else(|| PathBuf::from(UNIT))
    }

    fn refused(&self, unit: &Unit, name: &str, error: &FlagError) -> KubeletEditError {
        let path = self.place_of(unit, name);
        KubeletEditError::Flag { flag: name.to_owned(), path, why: error.to_string() }
    }
}
