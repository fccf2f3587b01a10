//! Docker: what dockerd is told in its unit and its file, and what it says of itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Look, Notes, option_values, packages, program::plain_version, units};
use crate::switch::{
    docker::{Docker, DockerError},
    facts::{ContainerFacts, DockerFacts, ImageFacts, PodFacts, UnitFacts},
    secrets::hide,
    systemd::unit::Variable,
};

const SOCKET: &str = "/var/run/docker.sock";
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const DATA_ROOT: &str = "/var/lib/docker";
const CERTIFICATES: &str = "/etc/docker/certs.d";
/// Sockets that give whoever has them all of Docker.
const SOCKETS: [&str; 3] = ["/run/docker.sock", "/run/dockershim.sock", "/run/cri-dockerd.sock"];
/// Where kubelet and root keep what they are logged in to.
const LOGINS: [&str; 3] = ["/root/.docker/config.json", "/var/lib/kubelet/config.json", "/root/.dockercfg"];
const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
/// dockerd's flags for the same, from 23.0 on.
const PROXY_FLAGS: [&str; 3] = ["http-proxy", "https-proxy", "no-proxy"];
/// Of the packages of Debian and of Docker itself.
const PACKAGES: [&str; 3] = ["docker-ce", "docker.io", "moby-engine"];

pub(super) async fn detect(
    look: &Look<'_>,
    units: &BTreeMap<String, UnitFacts>,
    notes: &mut Notes,
) -> Option<DockerFacts> {
    let unit = notes.unit(look, "docker.service");
    let program = look.program_of(&unit, "dockerd");
    if unit.fragment.is_none() && program.is_none() && look.place.docker_socket.is_none() {
        return None;
    }
    let arguments: Vec<String> =
        unit.arguments.iter().skip(1).map(|argument| argument.text.clone()).collect();
    let flag = |name: &str| option_values(&arguments, &[name]).pop();
    let config = PathBuf::from(flag("config-file").unwrap_or_else(|| DAEMON_JSON.to_owned()));
    let text = notes.read_needed(look, &config);
    let daemon = text.as_ref().map(|text| parse(text, &config, notes)).unwrap_or_default();
    let said = |key: &str| daemon.get(key).and_then(Value::as_str).map(str::to_owned);
    let data_root = flag("data-root")
        .or_else(|| option_values(&arguments, &["graph", "g"]).pop())
        .or_else(|| said("data-root"))
        .or_else(|| said("graph"))
        .unwrap_or_else(|| DATA_ROOT.to_owned());
    // A boolean's value is behind an equals sign, or it has none.
    let live_restore = arguments.iter().rev().find_map(|argument| match argument.as_str() {
        "--live-restore" => Some(true),
        other => Some(other.strip_prefix("--live-restore=")? == "true"),
    });
    let mut proxies: BTreeMap<String, String> = BTreeMap::new();
    for (name, flag_name) in PROXIES.into_iter().zip(PROXY_FLAGS) {
        for name in [name.to_owned(), name.to_lowercase()] {
            let value = unit.environment.get(&name).map(Variable::value);
            proxies.extend(value.filter(|value| !value.is_empty()).map(|value| (name, value)));
        }
        proxies.extend(flag(flag_name).map(|value| (name.to_owned(), value)));
    }
    let mut facts = DockerFacts {
        socket: socket(look, &arguments, &daemon, notes),
        data_root: PathBuf::from(data_root),
        live_restore: live_restore
            .unwrap_or_else(|| daemon.get("live-restore").and_then(Value::as_bool).unwrap_or_default()),
        cgroup_driver: told_driver(&arguments, &daemon),
        daemon_json: text.is_some().then_some(config),
        daemon,
        arguments: arguments.iter().map(|argument| hide(argument)).collect(),
        proxies,
        certificates: certificates(look, notes),
        logins: logins(look, notes),
        ..DockerFacts::default()
    };
    if look.live {
        ask(&mut facts, units, notes).await;
    }
    if facts.version.is_none() && !look.live {
        facts.version = packages::version(look, &PACKAGES, None, notes).await;
    }
    Some(facts)
}

fn parse(text: &str, path: &Path, notes: &mut Notes) -> Map<String, Value> {
    if text.trim().is_empty() {
        return Map::new();
    }
    serde_json::from_str(text).unwrap_or_else(|error| {
        notes.obstacle(format!(
            "{} is not what dockerd reads, so that it could not be started again: {error}",
            path.display()
        ));
        Map::new()
    })
}

/// The first unix socket that dockerd listens on. `fd://` is what systemd hands over.
fn socket(look: &Look<'_>, arguments: &[String], daemon: &Map<String, Value>, notes: &mut Notes) -> PathBuf {
    if let Some(socket) = &look.place.docker_socket {
        return socket.clone();
    }
    let listed = daemon.get("hosts").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    for host in option_values(arguments, &["host", "H"]).into_iter().chain(listed) {
        if let Some(path) = host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return PathBuf::from(path);
        }
        if host.starts_with("fd://") {
            let streams = units::listens_on(look, "docker.socket", notes);
            if let Some(path) = streams.into_iter().find(|stream| stream.starts_with('/')) {
                return PathBuf::from(path);
            }
        }
    }
    PathBuf::from(SOCKET)
}

/// The cgroup driver that dockerd is told; it has a choice of its own otherwise.
fn told_driver(arguments: &[String], daemon: &Map<String, Value>) -> Option<String> {
    let listed = daemon.get("exec-opts").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let all = listed.chain(option_values(arguments, &["exec-opt"]));
    all.filter_map(|option| option.strip_prefix("native.cgroupdriver=").map(str::to_owned)).next_back()
}

fn certificates(look: &Look<'_>, notes: &mut Notes) -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(CERTIFICATES);
    let hosts = notes.list(look, folder);
    let of = |host: String| {
        let files = notes.list(look, &folder.join(&host));
        (host, files)
    };
    hosts.into_iter().map(of).filter(|(_, files)| !files.is_empty()).collect()
}

/// Registries alone: what stands beside them is secret.
fn logins(look: &Look<'_>, notes: &mut Notes) -> BTreeMap<PathBuf, Vec<String>> {
    let mut logins = BTreeMap::new();
    for path in LOGINS.map(Path::new) {
        let bytes = match look.rooted.bytes(path, crate::switch::files::MAX_FILE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                notes.problem(error.to_string());
                continue;
            }
        };
        let Ok(config) = serde_json::from_slice::<Map<String, Value>>(&bytes) else {
            // The parser's words would show what is there.
            notes.problem(format!("{}: is no JSON object", path.display()));
            continue;
        };
        let keys = |value: Option<&Value>| -> Vec<String> {
            let table = value.and_then(Value::as_object);
            table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
        };
        let mut names = match path.ends_with(".dockercfg") {
            true => config.keys().cloned().collect(),
            false => [keys(config.get("auths")), keys(config.get("credHelpers"))].concat(),
        };
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() {
            logins.insert(path.to_owned(), names);
        }
    }
    logins
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    cgroup_driver: Option<String>,
    docker_root_dir: Option<PathBuf>,
    live_restore_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    #[serde(rename = "ImageID", default)]
    image_id: String,
    state: String,
    labels: Option<BTreeMap<String, String>>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default)]
    source: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    id: String,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    size: i64,
}

/// What dockerd says. It is not asked where that would start it.
async fn ask(facts: &mut DockerFacts, units: &BTreeMap<String, UnitFacts>, notes: &mut Notes) {
    let runs = |name: &str| units.get(name).is_some_and(UnitFacts::runs);
    if runs("docker.socket") && !runs("docker.service") {
        notes.problem(
            "docker.service does not run, and is not asked for its containers and images: docker.socket would start it",
        );
        return;
    }
    let docker = Docker::new(&facts.socket);
    let version: Version = match docker.get_json("/version").await {
        Ok(version) => version,
        Err(error @ DockerError::Connect { .. }) if !runs("docker.service") => {
            tracing::debug!("Docker does not run: {error}");
            return;
        }
        Err(error) => {
            facts.silence = Some(error.to_string());
            notes.problem(error.to_string());
            return;
        }
    };
    facts.answers = true;
    facts.version = Some(plain_version(&version.version).unwrap_or(version.version));
    let (info, containers, images) = tokio::join!(
        docker.get_json::<Info>("/info"),
        docker.get_json::<Vec<Container>>("/containers/json?all=1"),
        docker.get_json::<Vec<Image>>("/images/json"),
    );
    match info {
        Ok(info) => {
            facts.cgroup_driver = info.cgroup_driver.filter(|driver| !driver.is_empty());
            facts.data_root = info.docker_root_dir.unwrap_or_else(|| std::mem::take(&mut facts.data_root));
            facts.live_restore = info.live_restore_enabled.unwrap_or(facts.live_restore);
        }
        Err(error) => notes.problem(error.to_string()),
    }
    match containers {
        Ok(all) => {
            let socket = facts.socket.clone();
            facts.containers = all.into_iter().map(|container| of_container(container, &socket)).collect();
        }
        Err(error) => notes.obstacle(error.to_string()),
    }
    match images {
        Ok(all) => facts.images = all.into_iter().map(ImageFacts::from).collect(),
        Err(error) => notes.obstacle(error.to_string()),
    }
}

fn of_container(container: Container, socket: &Path) -> ContainerFacts {
    let labels = container.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name).cloned();
    let pod = label("io.kubernetes.pod.name").map(|name| PodFacts {
        namespace: label("io.kubernetes.pod.namespace").unwrap_or_default(),
        name,
        uid: label("io.kubernetes.pod.uid").unwrap_or_default(),
    });
    let mounts = container.mounts.unwrap_or_default();
    ContainerFacts {
        id: container.id,
        // Links of others to it are names too, with a slash more.
        name: container
            .names
            .unwrap_or_default()
            .iter()
            .map(|name| name.trim_start_matches('/'))
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
            .to_owned(),
        image: container.image,
        image_id: container.image_id,
        running: matches!(container.state.as_str(), "running" | "paused" | "restarting"),
        pod,
        sandbox: label("io.kubernetes.docker.type").as_deref() == Some("podsandbox"),
        mounts_docker_socket: mounts.iter().any(|mount| leads_to_socket(Path::new(&mount.source), socket)),
    }
}

/// Whether a mount is one of the sockets or a folder that has it. The root of all is not counted: whoever looks at
/// the whole machine from a container looks at its figures.
fn leads_to_socket(source: &Path, socket: &Path) -> bool {
    // /var/run is a link to /run.
    let plain = |path: &Path| match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path.to_owned(),
    };
    let source = plain(source);
    source.components().count() > 1
        && SOCKETS.iter().map(Path::new).chain([socket]).any(|socket| plain(socket).starts_with(&source))
}

impl From<Image> for ImageFacts {
    fn from(image: Image) -> Self {
        let named = |all: Option<Vec<String>>| -> Vec<String> {
            all.unwrap_or_default().into_iter().filter(|name| !name.contains("<none>")).collect()
        };
        Self {
            id: image.id,
            tags: named(image.repo_tags),
            digests: named(image.repo_digests),
            size: u64::try_from(image.size).unwrap_or_default(),
        }
    }
}
