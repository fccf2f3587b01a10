//! Programs that give credentials for registries: `--image-credential-provider-config` and
//! `--image-credential-provider-bin-dir`.
//!
//! The rules are kubelet's (pkg/credentialprovider/plugin/config.go). Values of variables are in no message.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::image_name::is_registry_pattern;
use crate::api::suggest::nearest;

use super::MAX_DROP_INS;
use super::duration::GoDuration;
use super::error::{ConfigError, Origin, Problem};
use super::load::parse_file;
use super::node::{Node, Value};

/// The kind of such a file.
pub(super) const KIND: &str = "CredentialProviderConfig";
const VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
/// What a program may speak.
const REQUESTS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];
const KEYS: [&str; 7] =
    ["name", "matchImages", "defaultCacheDuration", "apiVersion", "args", "env", "tokenAttributes"];
const CONFIG: &str = "image-credential-provider-config";
const BIN_DIR: &str = "image-credential-provider-bin-dir";

/// A program that gives credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialProvider {
    /// Its name, which is that of its file.
    pub name: String,
    /// Its file.
    pub program: PathBuf,
    /// Patterns of the images that it is asked for.
    pub match_images: Vec<String>,
    /// How long an answer counts that does not say so itself.
    pub default_cache_duration: Duration,
    /// The version of requests and answers.
    pub api_version: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables over the agent's own.
    pub env: Vec<(String, String)>,
}

impl fmt::Debug for CredentialProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialProvider").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The programs that two flags name; none without them.
///
/// # Errors
/// One flag without the other, a file that cannot be read, and every problem in it.
pub(super) fn load(
    config: Option<&str>,
    bin_dir: Option<&str>,
) -> Result<Vec<CredentialProvider>, ConfigError> {
    let flag = |name: &str| Origin::Flag(name.into());
    let wrong =
        |name: &str, message: String| Err(ConfigError::Invalid(vec![Problem::new(&flag(name), "", message)]));
    let (config, bin_dir) = match (config.filter(|c| !c.is_empty()), bin_dir.filter(|d| !d.is_empty())) {
        (None, None) => return Ok(Vec::new()),
        (Some(config), Some(bin_dir)) => (Path::new(config), Path::new(bin_dir)),
        (Some(_), None) => return wrong(CONFIG, format!("needs --{BIN_DIR}")),
        (None, Some(_)) => return wrong(BIN_DIR, format!("needs --{CONFIG}")),
    };
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for file in files(config)? {
        match parse_file(&file)?.and_then(|node| read(&node)) {
            Ok(providers) => found.extend(providers),
            Err(wrong) => problems.extend(wrong),
        }
    }
    for (origin, provider) in &mut found {
        if !names.insert(provider.name.clone()) {
            problems.push(Problem::new(origin, "name", format!("{:?} is there twice", provider.name)));
        }
        let path = bin_dir.join(&provider.name);
        let program = fs::metadata(&path).map_err(|error| error.to_string()).and_then(|meta| {
            let runs = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
            if runs { Ok(()) } else { Err("it is no program".to_owned()) }
        });
        // The agent's working folder is nobody's business.
        let whole = std::path::absolute(&path).map_err(|error| error.to_string());
        match program.and(whole) {
            Ok(path) => provider.program = path,
            Err(why) => {
                problems.push(Problem::new(&flag(BIN_DIR), "", format!("{}: {why}", path.display())));
            }
        }
    }
    if problems.is_empty() {
        return Ok(found.into_iter().map(|(_, provider)| provider).collect());
    }
    Err(ConfigError::Invalid(problems))
}

/// The file, or those of a folder in the order of their names.
fn files(config: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        what: "configuration of credential providers",
        path: config.to_owned(),
        source,
    };
    if !fs::metadata(config).map_err(failed)?.is_dir() {
        return Ok(vec![config.to_owned()]);
    }
    let entries = fs::read_dir(config).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let paths = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let end = path.extension().and_then(|end| end.to_str());
        !path.is_dir() && matches!(end, Some("json" | "yaml" | "yml"))
    };
    let mut files: Vec<_> = paths.filter(ours).collect();
    files.sort();
    if files.len() > MAX_DROP_INS {
        return Err(ConfigError::TooManyDropIns { path: config.to_owned(), limit: MAX_DROP_INS });
    }
    if files.is_empty() {
        let none = format!("no file of {} ends in .json, .yaml or .yml", config.display());
        return Err(ConfigError::Invalid(vec![Problem::new(&Origin::Flag(CONFIG.into()), "", none)]));
    }
    Ok(files)
}

/// What is in a document, each with its place.
///
/// # Errors
/// Every problem.
pub(super) fn read(root: &Node) -> Result<Vec<(Origin, CredentialProvider)>, Vec<Problem>> {
    let mut reader = Reader::default();
    reader.keys(root, "", &["apiVersion", "kind", "providers"]);
    reader.one_of(root, "", "kind", &[KIND]);
    reader.one_of(root, "", "apiVersion", &VERSIONS);
    let mut found = Vec::new();
    let providers = match root.at("providers").map(|node| &node.value) {
        Some(Value::List(items)) if !items.is_empty() => items.as_slice(),
        Some(Value::List(_) | Value::Null) | None => {
            reader.wrong(root, "providers", "at least one is needed");
            &[]
        }
        Some(_) => {
            reader.wrong(root, "providers", "must be a list");
            &[]
        }
    };
    for (index, node) in providers.iter().enumerate() {
        let provider = reader.provider(node, &format!("providers[{index}]"));
        found.push((node.origin.clone(), provider));
    }
    if reader.0.is_empty() { Ok(found) } else { Err(reader.0) }
}

/// Collects what is wrong.
#[derive(Default)]
struct Reader(Vec<Problem>);

impl Reader {
    fn wrong(&mut self, node: &Node, key: &str, message: impl Into<String>) {
        self.0.push(Problem::new(&node.origin, key, message));
    }

    fn keys(&mut self, node: &Node, at: &str, known: &[&'static str]) {
        let Value::Map(map) = &node.value else {
            self.wrong(node, at, format!("must be a mapping, is {}", node.value.type_name()));
            return;
        };
        for (key, origin, _) in &map.0 {
            if !known.contains(&key.as_str()) {
                let close = nearest(key, known.iter().copied());
                self.0.push(Problem::new(origin, below(at, key), "unknown key").suggest(close));
            }
        }
    }

    /// The text of a key; empty where it is not given.
    fn text(&mut self, node: &Node, at: &str, key: &str) -> String {
        match node.at(key).map(|node| (node, &node.value)) {
            Some((_, Value::Str(text))) => text.clone(),
            Some((_, Value::Null)) | None => String::new(),
            Some((node, other)) => {
                self.wrong(node, &below(at, key), format!("must be a string, is {}", other.type_name()));
                String::new()
            }
        }
    }

    fn one_of(&mut self, node: &Node, at: &str, key: &str, wanted: &[&str]) -> String {
        let text = self.text(node, at, key);
        if !wanted.contains(&text.as_str()) {
            let place = node.at(key).unwrap_or(node);
            self.wrong(place, &below(at, key), format!("{text:?} is not {}", wanted.join(" or ")));
        }
        text
    }

    fn texts(&mut self, node: &Node, at: &str, key: &str) -> Vec<String> {
        let items = match node.at(key).map(|node| (node, &node.value)) {
            Some((_, Value::List(items))) => items,
            Some((_, Value::Null)) | None => return Vec::new(),
            Some((node, _)) => {
                self.wrong(node, &below(at, key), "must be a list of strings");
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::Str(text) => texts.push(text.clone()),
                _ => self.wrong(item, &below(at, key), "must be a list of strings"),
            }
        }
        texts
    }

    fn provider(&mut self, node: &Node, at: &str) -> CredentialProvider {
        self.keys(node, at, &KEYS);
        let name = self.text(node, at, "name");
        if name.is_empty() || name.contains(['/', ' ', '\0']) || name == "." || name == ".." {
            self.wrong(
                node,
                &below(at, "name"),
                format!("{name:?} is not the name of a file without spaces"),
            );
        }
        let match_images = self.texts(node, at, "matchImages");
        if match_images.is_empty() {
            self.wrong(node, &below(at, "matchImages"), "at least one is needed");
        }
        for pattern in match_images.iter().filter(|pattern| !is_registry_pattern(pattern)) {
            let place = node.at("matchImages").unwrap_or(node);
            let message = format!("{pattern:?} is not a registry, or a part of one, without a scheme");
            self.wrong(place, &below(at, "matchImages"), message);
        }
        let duration = self.text(node, at, "defaultCacheDuration");
        let default_cache_duration = match GoDuration::parse(&duration) {
            Ok(duration) if duration >= GoDuration::ZERO => duration.to_std(),
            _ => {
                let place = node.at("defaultCacheDuration").unwrap_or(node);
                let message = format!("{duration:?} is not a duration such as 12h, or 0s");
                self.wrong(place, &below(at, "defaultCacheDuration"), message);
                Duration::ZERO
            }
        };
        if let Some(place) = node.at("tokenAttributes").filter(|node| node.value != Value::Null) {
            let message = "nodectl does not give service account tokens to credential providers yet";
            self.wrong(place, &below(at, "tokenAttributes"), message);
        }
        CredentialProvider {
            program: PathBuf::new(),
            match_images,
            default_cache_duration,
            api_version: self.one_of(node, at, "apiVersion", &REQUESTS),
            args: self.texts(node, at, "args"),
            env: self.env(node, at),
            name,
        }
    }

    fn env(&mut self, node: &Node, at: &str) -> Vec<(String, String)> {
        let at = below(at, "env");
        let items = match node.at("env").map(|node| (node, &node.value)) {
            Some((_, Value::List(items))) => items,
            Some((_, Value::Null)) | None => return Vec::new(),
            Some((node, _)) => {
                self.wrong(node, &at, "must be a list");
                return Vec::new();
            }
        };
        let mut env = Vec::new();
        for item in items {
            self.keys(item, &at, &["name", "value"]);
            let name = self.text(item, &at, "name");
            let value = self.text(item, &at, "value");
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                self.wrong(item, &below(&at, "name"), "is not the name of a variable with a value of text");
            }
            env.push((name, value));
        }
        env
    }
}

fn below(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: ecr
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ['*.dkr.ecr.*.amazonaws.com', 'r.example:5000/team']
  defaultCacheDuration: 12h
  args: [get]
  env: [{name: TOKEN, value: s3cret}]
";

    fn folder() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("ecr"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(bin.join("ecr"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(bin.join("text"), "").unwrap();
        let bin = bin.to_str().unwrap().to_owned();
        (folder, bin)
    }

    fn load_text(text: &str) -> Result<Vec<CredentialProvider>, String> {
        let (folder, bin) = folder();
        let file = folder.path().join("config.yaml");
        fs::write(&file, text).unwrap();
        load(file.to_str(), Some(&bin)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_and_a_folder_are_read() {
        let found = load_text(GOOD).unwrap();
        let ecr = &found[0];
        assert_eq!((ecr.name.as_str(), ecr.default_cache_duration.as_secs()), ("ecr", 43200));
        assert!(ecr.program.ends_with("bin/ecr") && ecr.args == ["get"]);
        assert_eq!(ecr.env, [("TOKEN".to_owned(), "s3cret".to_owned())]);
        assert!(!format!("{ecr:?}").contains("s3cret"));

        let (folder, bin) = folder();
        let configs = folder.path().join("configs");
        fs::create_dir(&configs).unwrap();
        let load = || load(configs.to_str(), Some(&bin)).map_err(|error| error.to_string());
        assert!(load().unwrap_err().contains("no file of"));
        fs::write(configs.join("a.yaml"), GOOD).unwrap();
        fs::write(configs.join("README"), "x").unwrap();
        assert_eq!(load().unwrap().len(), 1);
        fs::write(configs.join("b.yml"), GOOD).unwrap();
        assert!(load().unwrap_err().contains("\"ecr\" is there twice"));
    }

    #[test]
    fn a_file_is_checked_on_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |text: &str| {
            fs::write(file.path(), text).unwrap();
            crate::config::validate_file(file.path()).map_err(|error| error.to_string())
        };
        // The programs are the node's.
        assert_eq!(check(GOOD), Ok(Vec::new()));
        assert!(check(&GOOD.replace("12h", "x")).unwrap_err().contains("is not a duration"));
    }

    #[test]
    fn one_flag_needs_the_other() {
        assert_eq!(load(None, None).unwrap(), []);
        assert!(
            load(Some("x"), None).unwrap_err().to_string().contains("--image-credential-provider-bin-dir")
        );
        assert!(
            load(None, Some("x")).unwrap_err().to_string().contains("--image-credential-provider-config")
        );
        assert!(load(Some("/nowhere"), Some("/")).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn every_problem_is_named_with_its_line_and_no_value_of_a_variable() {
        for (from, to, told) in [
            (
                "config.k8s.io/v1\n",
                "config.k8s.io/v2\n",
                "yaml:1:13: apiVersion: \"kubelet.config.k8s.io/v2\" is not",
            ),
            ("CredentialProviderConfig", "Pod", "kind: \"Pod\" is not CredentialProviderConfig"),
            ("name: ecr", "name: ../ecr", "providers[0].name: \"../ecr\" is not the name of a file"),
            ("name: ecr", "name: gone", "bin/gone: No such file"),
            ("name: ecr", "name: text", "bin/text: it is no program"),
            ("io/v1\n  match", "io/v3\n  match", "providers[0].apiVersion: \"credentialprovider"),
            (
                "['*.dkr.ecr.*.amazonaws.com', 'r.example:5000/team']",
                "[]",
                "matchImages: at least one is needed",
            ),
            ("'*.dkr.ecr.*.amazonaws.com'", "'https://x'", "matchImages: \"https://x\" is not a registry"),
            ("12h", "-1h", "defaultCacheDuration: \"-1h\" is not a duration"),
            ("12h", "12", "defaultCacheDuration: must be a string, is an integer"),
            ("args: [get]", "args: get", "args: must be a list of strings"),
            ("args: [get]", "arg: [get]", "providers[0].arg: unknown key (did you mean \"args\"?)"),
            ("args: [get]", "tokenAttributes: {}", "does not give service account tokens"),
            ("name: TOKEN", "name: 'A=B'", "is not the name of a variable"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = load_text(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let error =
            load_text("apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n").unwrap_err();
        assert!(error.contains("providers: at least one is needed"), "{error}");
    }
}
