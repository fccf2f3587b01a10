//! `/etc/crictl.yaml`: crictl's own file, read as crictl reads it and edited line by line, so that what
//! people wrote around the settings stays.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{api::suggest::nearest, cri::RuntimeEndpoint, error::CommandError};

/// Where it is unless `--config` or `CRI_CONFIG_FILE` say so.
pub(super) const DEFAULT: &str = "/etc/crictl.yaml";

/// Bytes; a larger file is not one of these.
const MAX_BYTES: u64 = 1 << 20;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Endpoint,
    Number,
    Switch,
}

/// crictl's keys, in its order.
pub(super) const KEYS: [(&str, Kind); 8] = [
    ("runtime-endpoint", Kind::Endpoint),
    ("image-endpoint", Kind::Endpoint),
    ("timeout", Kind::Number),
    ("debug", Kind::Switch),
    ("pull-image-on-create", Kind::Switch),
    ("disable-pull-on-run", Kind::Switch),
    ("max-retries", Kind::Number),
    ("enable-streaming", Kind::Switch),
];

/// The settings of a file, by key, in their normal form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// A setting that is there and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Reads a file's text; the error says what is wrong, without the file's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bare = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || matches!(line, "---" | "...")
        };
        if text.lines().all(bare) {
            return Ok(Self::default());
        }
        let read: BTreeMap<String, Value> = serde_saphyr::from_str(text).map_err(|error| {
            // The library shows the place over several lines.
            error.to_string().lines().next().unwrap_or("not YAML").to_owned()
        })?;
        let mut settings = BTreeMap::new();
        for (key, value) in read {
            let (known, kind) = find(&key)?;
            let value = match value {
                Value::Null => String::new(),
                Value::String(value) => value,
                Value::Bool(value) => value.to_string(),
                Value::Number(value) => value.to_string(),
                _ => return Err(format!("{key}: a single value is wanted")),
            };
            settings.insert(known, normal(known, kind, &value)?);
        }
        Ok(Self(settings))
    }
}

/// A key by its name.
pub(super) fn find(key: &str) -> Result<(&'static str, Kind), String> {
    KEYS.into_iter().find(|(known, _)| *known == key).ok_or_else(|| {
        let near = nearest(key, KEYS.map(|(known, _)| known));
        let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
        format!("there is no setting {key:?}{near}")
    })
}

/// A value in its normal form, or what is wrong with it.
pub(super) fn normal(key: &str, kind: Kind, value: &str) -> Result<String, String> {
    let value = value.trim();
    match kind {
        // crictl does not read a file in which a number or switch is empty.
        Kind::Endpoint if value.is_empty() => Ok(String::new()),
        Kind::Number if value.is_empty() => Ok("0".to_owned()),
        Kind::Switch if value.is_empty() => Ok("false".to_owned()),
        Kind::Endpoint => match value.parse::<RuntimeEndpoint>() {
            Ok(_) => Ok(value.to_owned()),
            Err(error) => Err(format!("{key}: {error}")),
        },
        Kind::Number => match value.parse::<u32>() {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err(format!("{key}: {value:?} is no whole number")),
        },
        // Go's notation of truth.
        Kind::Switch => match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
            _ => Err(format!("{key}: {value:?} is neither true nor false")),
        },
    }
}

/// The text with `key` set; other lines, comments too, stay as they are.
fn edit(text: &str, key: &str, value: &str) -> String {
    let value = if value.is_empty() { "\"\"" } else { value };
    let mut found = false;
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let rest = line.strip_prefix(key).map(str::trim_start).and_then(|rest| rest.strip_prefix(':'));
            let Some(rest) = rest else { return line.to_owned() };
            found = true;
            let comment = rest.find(" #").map(|at| rest[at..].trim_end()).unwrap_or_default();
            format!("{key}: {value}{comment}")
        })
        .collect();
    if !found {
        if lines.last().is_some_and(|line| line.trim() == "...") {
            lines.pop();
        }
        lines.push(format!("{key}: {value}"));
    }
    lines.join("\n") + "\n"
}

/// The text with all `changes` made, checked by reading it again.
pub(super) fn change(text: &str, changes: &[(&'static str, String)]) -> Result<String, String> {
    let mut wanted = Settings::parse(text)?;
    let mut changed = text.to_owned();
    for (key, value) in changes {
        changed = edit(&changed, key, value);
        wanted.0.insert(key, value.clone());
    }
    match Settings::parse(&changed) {
        Ok(read) if read == wanted => Ok(changed),
        _ => Err("it is not in the plain form \"key: value\", one a line; edit it by hand".to_owned()),
    }
}

/// The file's text; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("cannot read {}: {error}", path.display()));
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(CommandError::usage(format!("{} is larger than 1 MiB", path.display())));
    }
    String::from_utf8(text)
        .map(Some)
        .map_err(|_bytes| CommandError::usage(format!("{} is not UTF-8 text", path.display())))
}

/// The settings of the file; `None` if there is no file.
pub(super) fn load(path: &Path) -> Result<Option<Settings>, CommandError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let settings = Settings::parse(&text);
    settings.map(Some).map_err(|problem| CommandError::usage(format!("{}: {problem}", path.display())))
}

/// Puts a new text in the file's place, in one step: readers see the old one or the new one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    // A link stays, and what it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    replace(&target, text)
        .map_err(|error| CommandError::failed(format!("cannot write {}: {error}", path.display())))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let beside: PathBuf = folder.join(format!(".{name}.tmp-{}", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // Best effort: the first failure is what is told.
        fs::remove_file(&beside).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# ours
runtime-endpoint: unix:///run/a.sock   # the one
image-endpoint: \"\"
timeout: 10
debug: false
";

    #[test]
    fn crictls_files_are_read() {
        let settings = Settings::parse(FILE).unwrap();
        assert_eq!(settings.get("runtime-endpoint"), Some("unix:///run/a.sock"));
        assert_eq!((settings.get("image-endpoint"), settings.get("timeout")), (None, Some("10")));
        assert_eq!(settings.get("debug"), Some("false"));
        for empty in ["", "\n", "# nothing\n---\n"] {
            assert_eq!(Settings::parse(empty), Ok(Settings::default()), "{empty:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let problem = |text: &str| Settings::parse(text).unwrap_err();
        assert_eq!(
            problem("runtime-endpont: x"),
            "there is no setting \"runtime-endpont\", did you mean \"runtime-endpoint\"?"
        );
        assert_eq!(problem("timeout: soon"), "timeout: \"soon\" is no whole number");
        assert_eq!(problem("debug: maybe"), "debug: \"maybe\" is neither true nor false");
        assert_eq!(problem("debug: [a]"), "debug: a single value is wanted");
        assert!(problem("runtime-endpoint: tcp://x").contains("only unix sockets"));
        for broken in ["a: b: c", "- x", "just text", "debug: true\ndebug: false"] {
            assert!(!problem(broken).is_empty(), "{broken}");
        }
    }

    #[test]
    fn an_edit_leaves_all_else_as_it_is() {
        let changes =
            [("runtime-endpoint", "unix:///run/b.sock".to_owned()), ("max-retries", "3".to_owned())];
        assert_eq!(
            change(FILE, &changes).unwrap(),
            "# ours\nruntime-endpoint: unix:///run/b.sock # the one\nimage-endpoint: \"\"\ntimeout: 10\n\
             debug: false\nmax-retries: 3\n"
        );
        assert_eq!(change("", &[("debug", "true".to_owned())]).unwrap(), "debug: true\n");
        assert_eq!(
            change(FILE, &[("timeout", normal("timeout", Kind::Number, "").unwrap())]).unwrap(),
            FILE.replace(": 10", ": 0").replace("   #", " #").replace("sock #", "sock   #")
        );
        let flow = "{debug: true, timeout: 3}\n";
        assert!(change(flow, &[("debug", "false".to_owned())]).unwrap_err().contains("by hand"));
    }

    #[test]
    fn a_file_is_replaced_through_its_link_with_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        write(&real, "debug: true\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, "debug: false\n").unwrap();
        assert_eq!(load(&link).unwrap().unwrap().get("debug"), Some("false"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(load(&folder.path().join("none")).unwrap(), None);
        // A folder that is not there yet is made.
        write(&folder.path().join("new/file"), "").unwrap();
    }
}
