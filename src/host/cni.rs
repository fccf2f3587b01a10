//! Why is the pod network not ready? containerd says "cni plugin not initialized" whatever the cause; this
//! looks where it looks and names the folder, the files, what is wrong in which of them, and the plugin
//! programs that are not there.
//!
//! The rules are those of go-cni and libcni: files ending in `.conf`, `.conflist` and `.json`, sorted by
//! name; the first one counts (containerd's `max_conf_num` is 1 by default) and a broken first file is not
//! skipped; up to 2 MiB; a `.conflist` holds a list, the others a single plugin.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// go-cni's own limit for one configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 2 << 20;
/// How many files of a folder are read and told; a folder with more is broken in some other way.
const MAX_FILES: usize = 32;
/// The versions of the CNI specification that have been released.
const KNOWN_VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniFile {
    /// Its path.
    pub path: PathBuf,
    /// The network's name, where it could be read.
    pub network: Option<String>,
    /// The plugin programs that it names, `ipam` ones included, each once.
    pub plugins: Vec<String>,
    /// What is wrong in it.
    pub problems: Vec<String>,
}

/// A folder of configuration files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniFolder {
    /// Its path.
    pub path: PathBuf,
    /// Why it cannot be listed: missing, no permission, not a folder.
    pub error: Option<String>,
    /// The configuration files in the order in which the runtime takes them.
    pub files: Vec<CniFile>,
    /// How many further files were not looked at.
    pub unread: usize,
    /// The names of other entries, which the runtime passes over; up to five.
    pub ignored: Vec<String>,
}

/// What was found. Its `Display` is one line for a condition or a log; `{:#}` is one line per finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniDiagnosis {
    /// The configuration folders.
    pub folders: Vec<CniFolder>,
    /// Plugin programs named by the file in use that are in none of the program folders.
    pub missing_plugins: Vec<String>,
    /// The program folders as given, each with the reason why it cannot be used, if there is one.
    pub bin_dirs: Vec<(PathBuf, Option<String>)>,
}

impl CniDiagnosis {
    /// The file that the runtime takes: the first by name of the first folder that has one.
    pub fn in_use(&self) -> Option<&CniFile> {
        self.folders.iter().find_map(|folder| folder.files.first())
    }

    /// Whether nothing wrong was found. The plugin may still fail when it runs.
    pub fn is_well(&self) -> bool {
        self.in_use().is_some_and(|file| file.problems.is_empty()) && self.missing_plugins.is_empty()
    }

    /// The findings, the most telling first.
    fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let in_use = self.in_use();
        for folder in &self.folders {
            let path = folder.path.display();
            match (&folder.error, folder.files.is_empty()) {
                (Some(error), _) => lines.push(format!("CNI configuration folder {path} {error}")),
                (None, true) if folder.ignored.is_empty() => {
                    lines.push(format!("CNI configuration folder {path} is empty"));
                }
                (None, true) => lines.push(format!(
                    "CNI configuration folder {path} has no .conf, .conflist or .json file (there is {})",
                    folder.ignored.join(", ")
                )),
                (None, false) => {}
            }
            for file in &folder.files {
                let used = in_use.is_some_and(|first| first.path == file.path);
                let role = if used { "the runtime uses" } else { "not used, as it is not the first:" };
                let state = match (&file.problems[..], &file.network) {
                    ([], Some(network)) => {
                        format!("network {network:?}, plugins {}", file.plugins.join(", "))
                    }
                    ([], None) => format!("plugins {}", file.plugins.join(", ")),
                    (problems, _) => problems.join(", "),
                };
                lines.push(format!("{role} {}: {state}", file.path.display()));
            }
            if folder.unread > 0 {
                lines.push(format!("{} further files in {path} were not looked at", folder.unread));
            }
        }
        if !self.missing_plugins.is_empty() {
            let dirs: Vec<_> = self.bin_dirs.iter().map(|(dir, _)| dir.display().to_string()).collect();
            let missing = self.missing_plugins.join(", ");
            lines.push(format!("CNI plugin {missing} not found in {}", dirs.join(", ")));
        }
        for (dir, error) in &self.bin_dirs {
            lines.extend(error.as_ref().map(|error| format!("CNI plugin folder {} {error}", dir.display())));
        }
        lines
    }
}

impl fmt::Display for CniDiagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.findings().join(if f.alternate() { "\n" } else { "; " }))
    }
}

/// Looks at the folders as the runtime does. Without program folders (`bin_dirs` empty: not known), the
/// plugin programs are not looked for. It blocks on the file system.
pub fn diagnose(conf_dirs: &[PathBuf], bin_dirs: &[PathBuf]) -> CniDiagnosis {
    let folders: Vec<_> = conf_dirs.iter().map(|dir| folder(dir)).collect();
    let bin_dirs = bin_dirs
        .iter()
        .map(|dir| (dir.clone(), fs::read_dir(dir).err().map(|error| listing_error(&error))))
        .collect();
    let mut diagnosis = CniDiagnosis { folders, missing_plugins: Vec::new(), bin_dirs };
    if diagnosis.bin_dirs.is_empty() {
        return diagnosis;
    }
    diagnosis.missing_plugins = diagnosis
        .in_use()
        .map(|file| file.plugins.iter().filter(|name| !is_installed(name, &diagnosis.bin_dirs)).cloned())
        .map(Iterator::collect)
        .unwrap_or_default();
    diagnosis
}

fn folder(path: &Path) -> CniFolder {
    let mut found =
        CniFolder { path: path.to_owned(), error: None, files: Vec::new(), unread: 0, ignored: Vec::new() };
    let (mut names, mut others) = match list(path) {
        Ok(listed) => listed,
        Err(error) => {
            found.error = Some(listing_error(&error));
            return found;
        }
    };
    names.sort_unstable();
    others.sort_unstable();
    others.truncate(5);
    found.ignored = others;
    found.unread = names.len().saturating_sub(MAX_FILES);
    found.files = names.iter().take(MAX_FILES).map(|name| read_file(path, &path.join(name))).collect();
    found
}

/// Configuration files, and the names of all else.
fn list(path: &Path) -> io::Result<(Vec<std::ffi::OsString>, Vec<String>)> {
    let (mut names, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let extension = Path::new(&name).extension().and_then(|e| e.to_str());
        // A file named just ".conf" has no extension for Rust and one for Go.
        let dotted = matches!(name.to_str(), Some(".conf" | ".conflist" | ".json"));
        let wanted = dotted || matches!(extension, Some("conf" | "conflist" | "json"));
        if wanted && !entry.file_type()?.is_dir() {
            names.push(name);
        } else {
            others.push(name.to_string_lossy().into_owned());
        }
    }
    Ok((names, others))
}

fn listing_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::NotADirectory => "is not a folder".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn read_file(dir: &Path, path: &Path) -> CniFile {
    let mut file =
        CniFile { path: path.to_owned(), network: None, plugins: Vec::new(), problems: Vec::new() };
    let object = match read_object(path) {
        Ok(object) => object,
        Err(problem) => {
            file.problems.push(problem);
            return file;
        }
    };
    check_name(&object, &mut file);
    check_version(&object, &mut file.problems);
    if path.extension().is_some_and(|extension| extension == "conflist") {
        check_list(dir, &object, &mut file);
    } else if object.contains_key("plugins") {
        file.problems.push("it has `plugins`, and so must be named .conflist".to_owned());
    } else {
        check_plugin("", &object, &mut file);
    }
    file
}

fn read_object(path: &Path) -> Result<Map<String, Value>, String> {
    let text = read_bounded(path).map_err(|error| match error.kind() {
        // A link whose target is gone, as some installers leave behind.
        io::ErrorKind::NotFound => "cannot be read: the link leads nowhere".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("is not a JSON object".to_owned()),
        Err(error) => Err(format!("is not valid JSON: {error}")),
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // A named pipe would block for ever otherwise.
    let file = fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has {} bytes, more than {MAX_FILE_BYTES}", meta.len())));
    }
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE_BYTES), &mut text)?;
    Ok(text)
}

fn check_name(object: &Map<String, Value>, file: &mut CniFile) {
    match object.get("name") {
        None => file.problems.push("`name` is missing".to_owned()),
        Some(Value::String(name)) if is_network_name(name) => file.network = Some(name.clone()),
        Some(Value::String(name)) => file.problems.push(format!("`name` {name:?} is not a network name")),
        Some(_) => file.problems.push("`name` is not a text".to_owned()),
    }
}

/// libcni: a letter or digit, then letters, digits, `_`, `.` and `-`.
fn is_network_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_version(object: &Map<String, Value>, problems: &mut Vec<String>) {
    match object.get("cniVersion") {
        // Absent means 0.1.0 to libcni.
        None => {}
        Some(Value::String(version)) if version.is_empty() || KNOWN_VERSIONS.contains(&&**version) => {}
        Some(Value::String(version)) => problems
            .push(format!("`cniVersion` {version:?} is not a known one ({})", KNOWN_VERSIONS.join(", "))),
        Some(_) => problems.push("`cniVersion` is not a text".to_owned()),
    }
}

fn check_list(dir: &Path, object: &Map<String, Value>, file: &mut CniFile) {
    match object.get("plugins") {
        Some(Value::Array(plugins)) if plugins.is_empty() => {
            file.problems.push("`plugins` is an empty list".to_owned());
        }
        Some(Value::Array(plugins)) => {
            for (index, plugin) in plugins.iter().enumerate() {
                match plugin {
                    Value::Object(plugin) => check_plugin(&format!("plugins[{index}]: "), plugin, file),
                    _ => file.problems.push(format!("plugins[{index}] is not an object")),
                }
            }
        }
        Some(_) => file.problems.push("`plugins` is not a list".to_owned()),
        None if !load_folder_plugins(dir, object, file) => {
            file.problems.push("`plugins` is missing".to_owned());
        }
        None => {}
    }
}

/// CNI 1.1: a list without `plugins` takes them from the folder of the network's name beside it. Answers
/// whether there was any.
fn load_folder_plugins(dir: &Path, object: &Map<String, Value>, file: &mut CniFile) -> bool {
    if object.get("loadOnlyInlinedPlugins").is_some_and(|value| value != &Value::Bool(false)) {
        return false;
    }
    let Some(folder) = file.network.as_ref().map(|name| dir.join(name)) else { return false };
    let Ok((mut names, _)) = list(&folder) else { return false };
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "conf"));
    names.sort_unstable();
    for name in names.iter().take(MAX_FILES) {
        let path = folder.join(name);
        match read_object(&path) {
            Ok(plugin) => check_plugin(&format!("{}: ", path.display()), &plugin, file),
            Err(problem) => file.problems.push(format!("{} {problem}", path.display())),
        }
    }
    !names.is_empty()
}

fn check_plugin(place: &str, plugin: &Map<String, Value>, file: &mut CniFile) {
    match plugin.get("type") {
        Some(Value::String(name)) if !name.is_empty() => add_program(place, name, file),
        Some(Value::String(_)) | None => file.problems.push(format!("{place}`type` is missing")),
        Some(_) => file.problems.push(format!("{place}`type` is not a text")),
    }
    if let Some(Value::String(name)) = plugin.get("ipam").and_then(|ipam| ipam.get("type"))
        && !name.is_empty()
    {
        add_program(&format!("{place}ipam: "), name, file);
    }
}

fn add_program(place: &str, name: &str, file: &mut CniFile) {
    // libcni refuses it too: a type is a file name in the plugin folders and no path.
    if name.contains('/') || name == "." || name == ".." {
        file.problems.push(format!("{place}`type` {name:?} is not a plain file name"));
    } else if !file.plugins.iter().any(|known| known == name) {
        file.plugins.push(name.to_owned());
    }
}

fn is_installed(name: &str, dirs: &[(PathBuf, Option<String>)]) -> bool {
    dirs.iter().any(|(dir, _)| {
        fs::metadata(dir.join(name))
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// The configuration and program folders that the runtime uses, from the verbose answer to CRI's `Status`.
/// containerd has its configuration under `config` (`cni.confDir`, `cni.binDir`, and since 2.1
/// `cni.binDirs`) and what go-cni really uses under `cniconfig`. `None` for a runtime that tells neither.
pub fn cni_dirs_from_runtime_info<S: std::hash::BuildHasher>(
    info: &HashMap<String, String, S>,
) -> Option<(Vec<PathBuf>, Vec<PathBuf>)> {
    let read = |key: &str| serde_json::from_str::<Value>(info.get(key)?).ok();
    let config = read("config").unwrap_or_default();
    let in_force = read("cniconfig").unwrap_or_default();
    let (config, in_force) = (&config["cni"], &in_force);
    let conf = paths([&config["confDir"], &in_force["PluginConfDir"]]);
    let bin = paths([&config["binDirs"], &config["binDir"], &in_force["PluginDirs"]]);
    (!conf.is_empty()).then_some((conf, bin))
}

/// The first of the values that names a path: a text, or a list of texts.
fn paths<const N: usize>(values: [&Value; N]) -> Vec<PathBuf> {
    let texts = |value: &Value| -> Vec<PathBuf> {
        let list = match value {
            Value::Array(list) => list.as_slice(),
            single => std::slice::from_ref(single),
        };
        let mut seen = HashSet::new();
        list.iter()
            .filter_map(Value::as_str)
            .filter(|text| !text.is_empty() && seen.insert(*text))
            .map(PathBuf::from)
            .collect()
    };
    values.into_iter().map(texts).find(|paths| !paths.is_empty()).unwrap_or_default()
}

/// What containerd said when it last loaded the configuration, by network (`default`, or a runtime
/// handler's name), where it was not "OK".
pub fn cni_load_errors<S: std::hash::BuildHasher>(
    info: &HashMap<String, String, S>,
) -> BTreeMap<String, String> {
    let failed = |text: &&String| !text.is_empty() && *text != "OK";
    let mut errors: BTreeMap<_, _> = info
        .iter()
        .filter_map(|(key, text)| Some((key.strip_prefix("lastCNILoadStatus.")?.to_owned(), text)))
        .filter(|(_, text)| failed(text))
        .map(|(network, text)| (network, text.clone()))
        .collect();
    if let Some(text) = info.get("lastCNILoadStatus").filter(failed) {
        errors.entry("default".to_owned()).or_insert_with(|| text.clone());
    }
    errors
}

#[cfg(test)]
#[path = "cni_tests.rs"]
mod tests;
