//! Taking a pod's network down without the runtime that made it: libcni keeps what it did in a cache, a file for each
//! interface, with the configuration of that time (containernetworking/cni `libcni/api.go`, kind `cniCacheV1`). With
//! it each plugin is asked once more, with `CNI_COMMAND=DEL`, the last one first.

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::program;
use crate::host::read::read_bounded;

/// Bytes of a cached result, of a lease.
const MAX_FILE: usize = 1 << 20;
/// Entries of a folder that are looked at; a node has a few hundred addresses.
const MAX_ENTRIES: usize = 100_000;
/// A plugin waits for others' locks on iptables.
const DELETE: Duration = Duration::from_secs(30);

/// A file of the cache.
#[derive(Deserialize)]
struct Cached {
    kind: String,
    #[serde(rename = "containerId")]
    container: String,
    /// base64.
    config: String,
    #[serde(rename = "ifName")]
    interface: String,
    #[serde(rename = "networkName")]
    network: String,
    #[serde(default, rename = "cniArgs")]
    args: Option<Vec<(String, String)>>,
    #[serde(default, rename = "capabilityArgs")]
    capability_args: Option<Map<String, Value>>,
    #[serde(default)]
    result: Option<Value>,
}

/// An interface of a container in a network, as it was made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attachment {
    /// The file of the cache.
    pub(super) file: PathBuf,
    /// The container.
    pub(super) container: String,
    network: String,
    interface: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
    args: Vec<(String, String)>,
    capability_args: Map<String, Value>,
    result: Option<Value>,
}

/// All attachments of the caches. What is none, or an older kind without its configuration, is passed over.
pub(super) fn attachments(caches: &[PathBuf]) -> Vec<Attachment> {
    let files = caches.iter().flat_map(|cache| entries(&cache.join("results")));
    files.filter_map(|file| attachment(&file)).collect()
}

/// The files of a folder by their names.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .collect();
    files.sort_unstable();
    files
}

fn attachment(file: &Path) -> Option<Attachment> {
    let cached: Cached = serde_json::from_slice(&read_bounded(file, MAX_FILE).ok()?).ok()?;
    if cached.kind != "cniCacheV1" {
        return None;
    }
    let config: Map<String, Value> = serde_json::from_slice(&STANDARD.decode(cached.config).ok()?).ok()?;
    let version = config.get("cniVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let plugins = match config.get("plugins") {
        Some(plugins) => {
            plugins.as_array()?.iter().map(|plugin| plugin.as_object().cloned()).collect::<Option<_>>()?
        }
        None => vec![config],
    };
    Some(Attachment {
        file: file.to_owned(),
        container: cached.container,
        network: cached.network,
        interface: cached.interface,
        version,
        plugins,
        args: cached.args.unwrap_or_default(),
        capability_args: cached.capability_args.unwrap_or_default(),
        result: cached.result,
    })
}

impl Attachment {
    /// Takes it down, as libcni's `DelNetworkList`, and forgets it. All plugins are asked even if one fails: each
    /// gives back something of its own.
    ///
    /// # Errors
    /// What the plugins say. Then it is kept.
    pub(super) async fn delete(&self, namespace: Option<&Path>, folders: &[PathBuf]) -> Result<(), String> {
        let mut problems = Vec::new();
        for plugin in self.plugins.iter().rev() {
            if let Err(problem) = self.ask(plugin, namespace, folders).await {
                problems.push(problem);
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", self.file.display()))
            }
            _ => Ok(()),
        }
    }

    async fn ask(
        &self,
        plugin: &Map<String, Value>,
        namespace: Option<&Path>,
        folders: &[PathBuf],
    ) -> Result<(), String> {
        let name = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let program = find(name, folders)?;
        let args: Vec<String> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut command = program::command(&program, &[] as &[&str]);
        command
            .env("CNI_COMMAND", "DEL")
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", namespace.map(Path::as_os_str).unwrap_or_default())
            .env("CNI_IFNAME", &self.interface)
            .env("CNI_PATH", joined(folders))
            .env("CNI_ARGS", args.join(";"));
        let input = self.input(plugin).to_string();
        let what = format!("CNI plugin {name} (DEL)");
        let output = program::run(command, &what, Some(input.as_bytes()), DELETE).await?;
        if output.status.success() {
            return Ok(());
        }
        // By the specification the error is on its standard output.
        let told: Option<Value> = serde_json::from_str(&output.stdout).ok();
        let message = told.as_ref().and_then(|told| told.get("msg")).and_then(Value::as_str);
        Err(program::failure(&what, output.status, message.unwrap_or(&output.stderr)))
    }

    /// What the plugin reads: its configuration with what all of the list share, what came of the last plugin, and
    /// of the pod's wishes those that it says it can do.
    fn input(&self, plugin: &Map<String, Value>) -> Value {
        let mut config = plugin.clone();
        config.insert("name".to_owned(), json!(self.network));
        config.insert("cniVersion".to_owned(), json!(self.version));
        if is_at_least(&self.version, (0, 4, 0))
            && let Some(result) = &self.result
        {
            config.insert("prevResult".to_owned(), result.clone());
        }
        let able = plugin.get("capabilities").and_then(Value::as_object);
        let wishes: Map<String, Value> = self
            .capability_args
            .iter()
            .filter(|(key, _)| able.and_then(|able| able.get(*key)) == Some(&Value::Bool(true)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !wishes.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(wishes));
        }
        Value::Object(config)
    }
}

/// Removes what the caches still have of these containers.
pub(super) fn forget(caches: &[PathBuf], containers: &[String]) -> Result<(), String> {
    for attachment in attachments(caches) {
        if containers.contains(&attachment.container) {
            remove(&attachment.file)?;
        }
    }
    Ok(())
}

/// Gives back the addresses that the plugin `host-local` holds for these containers: below the folder one for each
/// network, and there a file for each address, whose first line is the container.
pub(super) fn release(networks: &Path, containers: &[String]) -> Result<(), String> {
    for network in fs::read_dir(networks).into_iter().flatten().flatten().take(MAX_ENTRIES) {
        // A link there is nobody's doing that we know.
        if !network.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        for lease in entries(&network.path()) {
            let is_address = lease
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.parse::<IpAddr>().is_ok());
            if !is_address {
                continue;
            }
            let text = read_bounded(&lease, MAX_FILE).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let holder = text.lines().next().unwrap_or_default().trim();
            if containers.iter().any(|container| container == holder) {
                remove(&lease)?;
            }
        }
    }
    Ok(())
}

fn remove(file: &Path) -> Result<(), String> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", file.display()))
        }
        _ => Ok(()),
    }
}

fn find(plugin: &str, folders: &[PathBuf]) -> Result<PathBuf, String> {
    if plugin.is_empty() || plugin.contains('/') {
        return Err(format!("{plugin:?} is no name of a CNI plugin"));
    }
    let mut paths = folders.iter().map(|folder| folder.join(plugin));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("CNI plugin {plugin} is not found in {}", folders.join(", "))
    })
}

fn joined(folders: &[PathBuf]) -> OsString {
    let mut joined = OsString::new();
    for (number, folder) in folders.iter().enumerate() {
        if number > 0 {
            joined.push(":");
        }
        joined.push(folder);
    }
    joined
}

fn is_at_least(version: &str, wanted: (u32, u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= wanted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A plugin that notes what it is asked, and fails if it is to.
    fn plugin(folder: &Path, name: &str, end: &str) {
        let (path, text) = (folder.join(name), folder.join("text"));
        let script = format!(
            "#!/bin/sh\necho \"{name} $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS\" >>{0}/asked\n\
             cat >>{0}/asked\necho >>{0}/asked\n{end}\n",
            folder.display()
        );
        fs::write(&text, script).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // By a process of its own: what another test forks keeps what is open here for writing, and so busy.
        let copied = std::process::Command::new("cp").args([&text, &path]).status().unwrap();
        assert!(copied.success());
    }

    fn cache(folder: &Path, version: &str) -> PathBuf {
        fs::create_dir_all(folder.join("results")).unwrap();
        let config = json!({ "cniVersion": version, "name": "net", "plugins": [
            { "type": "first" },
            { "type": "second", "capabilities": { "portMappings": true, "bandwidth": false } },
        ] });
        let cached = json!({
            "kind": "cniCacheV1", "containerId": "abc", "ifName": "eth0", "networkName": "net",
            "config": STANDARD.encode(config.to_string()),
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "p"]],
            "capabilityArgs": { "portMappings": [{ "hostPort": 80 }], "bandwidth": {} },
            "result": { "ips": ["10.0.0.2/24"] },
        });
        let file = folder.join("results/net-abc-eth0");
        fs::write(&file, cached.to_string()).unwrap();
        fs::write(folder.join("results/net-old-eth0"), "{\"ips\":[]}").unwrap();
        file
    }

    #[tokio::test]
    async fn plugins_are_asked_as_libcni_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = cache(folder.path(), "0.4.0");
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for (folder, name) in [(&first, "first"), (&second, "second")] {
            fs::create_dir(folder).unwrap();
            plugin(folder, name, "");
        }
        let all = attachments(&[folder.path().to_owned(), folder.path().join("none")]);
        assert_eq!(all.len(), 1);
        all[0].delete(Some(Path::new("/proc/7/ns/net")), &[first.clone(), second.clone()]).await.unwrap();
        assert!(!file.exists() && folder.path().join("results/net-old-eth0").exists());
        let asked = fs::read_to_string(second.join("asked")).unwrap();
        let (head, body) = asked.split_once('\n').unwrap();
        assert_eq!(head, "second DEL abc /proc/7/ns/net eth0 IgnoreUnknown=1;K8S_POD_NAME=p");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "second", "name": "net", "cniVersion": "0.4.0",
                "capabilities": { "portMappings": true, "bandwidth": false },
                "prevResult": { "ips": ["10.0.0.2/24"] },
                "runtimeConfig": { "portMappings": [{ "hostPort": 80 }] },
            })
        );
        let asked = fs::read_to_string(first.join("asked")).unwrap();
        assert!(!asked.contains("runtimeConfig") && asked.contains("prevResult"), "{asked}");
    }

    #[tokio::test]
    async fn one_plugin_that_fails_keeps_no_other_from_its_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = cache(folder.path(), "0.3.1");
        plugin(folder.path(), "first", "");
        plugin(folder.path(), "second", "echo '{\"code\":100,\"msg\":\"iptables is locked\"}'; exit 1");
        let attachment = attachments(&[folder.path().to_owned()]).remove(0);
        let folders = [folder.path().to_owned()];
        let error = attachment.delete(None, &folders).await.unwrap_err();
        assert_eq!(error, "CNI plugin second (DEL): iptables is locked");
        assert!(file.exists());
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        assert!(asked.contains("first DEL abc  eth0") && !asked.contains("prevResult"), "{asked}");
        fs::remove_file(folder.path().join("first")).unwrap();
        assert!(
            attachment.delete(None, &folders).await.unwrap_err().contains("CNI plugin first is not found in")
        );
    }

    #[test]
    fn leases_of_the_given_containers_go() {
        let folder = tempfile::tempdir().unwrap();
        let network = folder.path().join("cbr0");
        fs::create_dir(&network).unwrap();
        let files = [
            ("10.0.0.2", "abc"),
            ("10.0.0.3", "abc\r\neth0"),
            ("10.0.0.4", "abcd\r\neth0"),
            ("fd00::2", "def\neth0"),
            ("last_reserved_ip.0", "abc"),
            ("lock", ""),
        ];
        for (name, text) in files {
            fs::write(network.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&network, folder.path().join("link")).unwrap();
        release(folder.path(), &["abc".to_owned(), "def".to_owned()]).unwrap();
        let mut left: Vec<String> = fs::read_dir(&network)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["10.0.0.4", "last_reserved_ip.0", "lock"]);
        release(&folder.path().join("none"), &[]).unwrap();
        let file = cache(folder.path(), "0.4.0");
        forget(&[folder.path().to_owned()], &["other".to_owned()]).unwrap();
        assert!(file.exists());
        forget(&[folder.path().to_owned()], &["abc".to_owned()]).unwrap();
        assert!(!file.exists());
    }
}
