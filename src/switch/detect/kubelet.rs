//! The kubelet: what it is told by flags and files, and what follows from it for its runtime.
//!
//! A flag wins over the configuration file, and of the files of `--config-dir` the last over those before it
//! (kubelet's `kubeletConfigMergePatch`).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    Look, Notes, option_values, packages,
    program::{self, plain_version},
};
use crate::{
    api::yaml::{self, Limits, Node, Value},
    switch::{
        facts::{ArgumentFacts, Facts, KubeletFacts, RuntimeKind, UnitFacts},
        secrets::hide,
        systemd::{flags, unit::Unit},
    },
};

const ROOT_DIR: &str = "/var/lib/kubelet";
/// What kubeadm has written, in that folder whatever kubelet's own is.
const INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";
const KUBEADM_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// The runtime that kubelet takes from 1.24 on if it is told none.
const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";
const CRI_DOCKERD: &str = "/run/cri-dockerd.sock";
/// kubelet's own limits are far above what such files have.
const LIMITS: Limits = Limits { bytes: 4 << 20, nodes: 200_000, expanded_bytes: 16 << 20 };
/// Files of static pods, or of `--config-dir`.
const MAX_FILES: usize = 512;

pub(super) async fn detect(
    look: &Look<'_>,
    units: &BTreeMap<String, UnitFacts>,
    notes: &mut Notes,
) -> Option<KubeletFacts> {
    let unit = notes.unit(look, "kubelet.service");
    let state = units.get("kubelet.service").cloned().unwrap_or_default();
    if state.runs() && state.is_masked() {
        notes.obstacle(
            "kubelet.service runs, and is masked: it could not be started again (systemctl unmask)",
        );
    } else if state.runs() && unit.fragment.is_none() && notes.obstacles.is_empty() {
        notes.obstacle("kubelet.service runs, and its file is gone: it could not be started again");
    }
    let program = look.program_of(&unit, "kubelet");
    if unit.fragment.is_none() && program.is_none() {
        return None;
    }
    if unit.fragment.is_some() && unit.arguments.is_empty() {
        notes.problem("kubelet.service has no ExecStart=: what the kubelet is told is not known");
    }
    let version = version(look, program.as_deref(), notes).await;
    let minor = version
        .as_deref()
        .and_then(|text| program::release(text.trim_start_matches('v')))
        .map(|(_, minor)| minor);
    let flag = |name: &str| flags::value(&unit, name).filter(|value| !value.is_empty());
    let config_file = flag("config").map(PathBuf::from);
    let folder = flag("config-dir");
    let config =
        Config::read(look, config_file.as_deref(), folder.as_deref(), state.active == "active", notes);
    notes.read(look, Path::new(KUBEADM_FLAGS));
    let instance = notes.read(look, Path::new(INSTANCE_CONFIG));
    let (runtime, endpoint) = runtime(look, &unit, &config, minor, notes);
    let static_pod_path =
        flag("pod-manifest-path").or_else(|| config.text("staticPodPath")).map(PathBuf::from);
    let kubeconfig = flag("kubeconfig").map(PathBuf::from).filter(|path| look.rooted.exists(path));
    let arguments = unit.arguments.iter().skip(1).map(shown).collect();
    Some(KubeletFacts {
        version,
        minor,
        program,
        arguments,
        config_file: config_file.filter(|path| look.rooted.exists(path)),
        instance_config: instance.map(|_| PathBuf::from(INSTANCE_CONFIG)),
        kubeconfig,
        runtime,
        endpoint,
        cgroup_driver: flag("cgroup-driver")
            .or_else(|| config.text("cgroupDriver"))
            .unwrap_or_else(|| "cgroupfs".to_owned()),
        static_pod_path: static_pod_path.map(|path| match &config_file_folder(&unit) {
            // As kubelet takes paths of its configuration.
            Some(folder) if path.is_relative() => folder.join(path),
            _ => path,
        }),
        static_pods: Vec::new(),
        images_by_digest: Vec::new(),
        healthz: healthz(
            flag("healthz-bind-address").or_else(|| config.text("healthzBindAddress")),
            flag("healthz-port").or_else(|| config.text("healthzPort")),
        ),
        root_dir: PathBuf::from(flag("root-dir").unwrap_or_else(|| ROOT_DIR.to_owned())),
        unit,
    })
}

fn config_file_folder(unit: &Unit) -> Option<PathBuf> {
    Path::new(&flags::value(unit, "config")?).parent().map(Path::to_path_buf)
}

/// An argument without what is secret in it.
fn shown(argument: &crate::switch::systemd::unit::Argument) -> ArgumentFacts {
    let mut text = hide(&argument.text);
    if let Some((name, _)) = text.split_once('=').filter(|(name, _)| name.ends_with("manifest-url-header")) {
        text = format!("{name}=***");
    }
    ArgumentFacts { text, file: argument.place.as_ref().map(|place| place.path.clone()) }
}

async fn version(look: &Look<'_>, program: Option<&Path>, notes: &mut Notes) -> Option<String> {
    let found = if let Some(given) = &look.place.kubelet_version {
        plain_version(given)
    } else if !look.live {
        packages::version(look, &["kubelet"], Some("--kubelet-version"), notes).await
    } else {
        let program = program?;
        match program::output(look.rooted.watch(), program, &["--version"]).await {
            Err(why) => {
                notes.problem(why);
                None
            }
            Ok(said) => {
                // `Kubernetes v1.20.2`
                let found = said.split_whitespace().find_map(plain_version);
                if found.is_none() {
                    notes.problem(format!(
                        "`{} --version` tells no version: {}",
                        program.display(),
                        said.trim()
                    ));
                }
                found
            }
        }
    };
    found.map(|plain| format!("v{plain}"))
}

/// What kubelet reads of its files here.
struct Config {
    /// The main one, and those of `--config-dir` in their order.
    documents: Vec<Node>,
}

impl Config {
    /// A main file that is not there is one that is still to come, unless somebody `runs` with it.
    fn read(
        look: &Look<'_>,
        main: Option<&Path>,
        folder: Option<&str>,
        runs: bool,
        notes: &mut Notes,
    ) -> Self {
        let mut paths: Vec<PathBuf> = main.map(Path::to_path_buf).into_iter().collect();
        if let Some(folder) = folder.map(Path::new) {
            let names = notes.list(look, folder).into_iter().filter(|name| name.ends_with(".conf"));
            paths.extend(names.take(MAX_FILES).map(|name| folder.join(name)));
        }
        let mut documents = Vec::new();
        for path in paths {
            let Some(text) = notes.read_needed(look, &path) else {
                if Some(path.as_path()) == main && !look.rooted.exists(&path) {
                    let told = format!("{} is the kubelet's --config and is not there", path.display());
                    if runs { notes.obstacle(told) } else { notes.problem(told) }
                }
                continue;
            };
            match yaml::parse(text.as_bytes(), LIMITS) {
                Ok(document) => documents.push(document),
                Err(error) => notes.obstacle(format!("{}: {error}", path.display())),
            }
        }
        Self { documents }
    }

    /// A value as text; the last file that has one counts.
    fn text(&self, key: &str) -> Option<String> {
        self.documents.iter().rev().find_map(|document| match &document.get(key)?.value.value {
            Value::Str(text) if !text.is_empty() => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        })
    }
}

/// The runtime, and its endpoint if it has one.
fn runtime(
    look: &Look<'_>,
    unit: &Unit,
    config: &Config,
    minor: Option<u32>,
    notes: &mut Notes,
) -> (RuntimeKind, Option<String>) {
    let flag = |name: &str| flags::value(unit, name).filter(|value| !value.is_empty());
    let kind = flag("container-runtime");
    let told = flag("container-runtime-endpoint").or_else(|| config.text("containerRuntimeEndpoint"));
    // Before 1.24 an endpoint alone is that of dockershim, which the kubelet is.
    let dockershim = match minor {
        Some(minor) if minor < 24 => kind.as_deref() != Some("remote"),
        Some(_) => false,
        None => {
            let guess = kind.is_none() && told.is_none();
            if guess {
                notes.problem(
                    "whether the kubelet runs pods with Docker is not known: its version is not, and no endpoint is told",
                );
            }
            (guess && notes.unit(look, "docker.service").fragment.is_some())
                || kind.as_deref() == Some("docker")
        }
    };
    if dockershim {
        return (RuntimeKind::Docker, None);
    }
    let endpoint = match told {
        Some(told) => told,
        // `--container-runtime=remote` alone is dockershim's socket.
        None if minor.is_some_and(|minor| minor < 24) => "unix:///var/run/dockershim.sock".to_owned(),
        None => CONTAINERD.to_owned(),
    };
    let shim = notes.unit(look, "cri-docker.service");
    let shim: Vec<String> = shim.arguments.into_iter().map(|argument| argument.text).collect();
    let shim = option_values(&shim, &["container-runtime-endpoint"]);
    let is_shim = shim.iter().any(|socket| leads_to(&endpoint, Path::new(bare(socket))))
        || leads_to(&endpoint, Path::new(CRI_DOCKERD));
    let kind = match bare(&endpoint) {
        _ if is_shim => RuntimeKind::CriDockerd,
        path if path.contains("cri-docker") || path.contains("dockershim") => RuntimeKind::CriDockerd,
        path if path.contains("containerd") => RuntimeKind::Containerd,
        _ => RuntimeKind::Other,
    };
    (kind, Some(endpoint))
}

/// An endpoint's path.
fn bare(endpoint: &str) -> &str {
    endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint)
}

/// Whether an endpoint is a socket; `/var/run` is a link to `/run`.
pub(super) fn leads_to(endpoint: &str, socket: &Path) -> bool {
    let plain = |path: &str| {
        path.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(path).to_owned()
    };
    socket.to_str().is_some_and(|socket| plain(bare(endpoint)) == plain(socket))
}

/// Where healthz answers somebody on this machine.
pub(super) fn healthz(address: Option<String>, port: Option<String>) -> Option<String> {
    let port: u16 = port.map_or(Some(10248), |port| port.parse().ok()).filter(|port| *port != 0)?;
    let address: IpAddr = address.and_then(|text| text.parse().ok()).unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let address = match address {
        IpAddr::V4(all) if all.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(all) if all.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        other => other,
    };
    Some(std::net::SocketAddr::new(address, port).to_string())
}

/// The names of the static pods, as they run: `NAMESPACE/NAME-NODE`.
pub(super) fn static_pods(look: &Look<'_>, facts: &mut Facts, notes: &mut Notes) {
    let Some(kubelet) = &mut facts.kubelet else { return };
    let Some(folder) = &kubelet.static_pod_path else { return };
    let mut names = notes.list(look, folder);
    // kubelet passes over these.
    names.retain(|name| !name.starts_with('.'));
    if names.len() > MAX_FILES {
        notes.problem(format!("{} has more than {MAX_FILES} files", folder.display()));
        names.truncate(MAX_FILES);
    }
    for name in names {
        let path = folder.join(name);
        let bytes = match look.rooted.bytes(&path, crate::switch::files::MAX_FILE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            // What is no file is none of kubelet's business.
            Err(error) if error.to_string().ends_with("is no regular file") => continue,
            Err(error) => {
                notes.problem(error.to_string());
                continue;
            }
        };
        let root = yaml::parse(&bytes, LIMITS).map_err(|error| error.to_string());
        match root.and_then(|root| Ok((pod_name(&root)?, images_by_digest(&root)))) {
            Ok(((namespace, name), images)) => {
                kubelet.static_pods.push(format!("{namespace}/{name}-{}", facts.node_name));
                kubelet.images_by_digest.extend(images);
            }
            Err(why) => notes.problem(format!("{} is no static pod: {why}", path.display())),
        }
    }
    kubelet.static_pods.sort_unstable();
    kubelet.images_by_digest.sort_unstable();
    kubelet.images_by_digest.dedup();
}

/// The images of a pod's containers that it names by digest.
fn images_by_digest(root: &Node) -> Vec<String> {
    let spec = root.get("spec").map(|entry| &entry.value);
    let lists = ["initContainers", "containers"].map(|key| spec.and_then(|spec| spec.get(key)));
    let containers = lists.into_iter().flatten().filter_map(|entry| match &entry.value.value {
        Value::Seq(containers) => Some(containers),
        _ => None,
    });
    let images = containers.flatten().filter_map(|container| container.get("image")?.value.as_str());
    images.filter(|image| image.contains('@')).map(str::to_owned).collect()
}

fn pod_name(root: &Node) -> Result<(String, String), String> {
    let text =
        |node: &Node, key: &str| node.get(key).and_then(|entry| entry.value.as_str()).map(str::to_owned);
    if text(root, "kind").as_deref() != Some("Pod") {
        return Err("its kind is not Pod".to_owned());
    }
    let metadata = root.get("metadata").map(|entry| &entry.value);
    let name = metadata.and_then(|metadata| text(metadata, "name")).filter(|name| !name.is_empty());
    let namespace = metadata.and_then(|metadata| text(metadata, "namespace")).filter(|name| !name.is_empty());
    Ok((namespace.unwrap_or_else(|| "default".to_owned()), name.ok_or("it has no name")?))
}
