//! Which flag and which key says what, by the kubelet's version.

use std::path::{Path, PathBuf};

use super::{
    ConfigYamlError, KubeletEdit, KubeletEditError, KubeletWishes,
    config_yaml::{self, Setting},
    node::{Node, UNIT, is_packaged},
};
use crate::switch::{
    facts::Facts,
    systemd::{
        dependencies,
        flags::{self, find},
        unit::Unit,
    },
};

/// The first minor version without dockershim.
const WITHOUT_DOCKERSHIM: u32 = 24;
/// The first one without `--container-runtime`, and with the endpoint in the configuration.
const ENDPOINT_IN_CONFIG: u32 = 27;
/// The first one without `--pod-infra-container-image`.
const WITHOUT_PAUSE_IMAGE: u32 = 35;

/// Flags of dockershim, and of the part of cAdvisor that watched Docker: from 1.24 on a kubelet has no use for any of
/// them and does not start with the former. Before, with a remote runtime, they are not looked at ("this
/// docker-specific flag only works when container-runtime is set to docker").
const DOCKERSHIM: [&str; 18] = [
    "network-plugin",
    "network-plugin-mtu",
    "cni-bin-dir",
    "cni-conf-dir",
    "cni-cache-dir",
    "docker-endpoint",
    "image-pull-progress-deadline",
    "experimental-dockershim",
    "experimental-dockershim-root-directory",
    "docker",
    "docker-root",
    "docker-only",
    "docker-env-metadata-whitelist",
    "docker-tls",
    "docker-tls-ca",
    "docker-tls-cert",
    "docker-tls-key",
    "redirect-container-streaming",
];

/// Units of the old runtime.
const OLD_UNITS: [&str; 5] =
    ["docker.service", "docker.socket", "cri-docker.service", "cri-docker.socket", "cri-dockerd.service"];
/// The unit of the new one.
const NEW_UNIT: &str = "containerd.service";

const RUNTIME: &str = "container-runtime";
const ENDPOINT: &str = "container-runtime-endpoint";
const IMAGE_ENDPOINT: &str = "image-service-endpoint";
const PAUSE_IMAGE: &str = "pod-infra-container-image";
const DRIVER: &str = "cgroup-driver";
const RUNTIME_CGROUPS: &str = "runtime-cgroups";
const LOG_SIZE: &str = "container-log-max-size";
const LOG_FILES: &str = "container-log-max-files";

struct Edit<'a> {
    node: Node<'a>,
    minor: Option<u32>,
    /// The configuration and its drop-ins, in the order in which they count; those that are there.
    configs: Vec<PathBuf>,
    /// The overlay of kubeadm's, which the kubelet itself does not read.
    instance: Option<PathBuf>,
    /// What the kubelet must be told in the end: a flag and its value; without one it must not be there.
    flags: Vec<(&'static str, Option<String>)>,
    /// Keys of the configuration, and their values.
    keys: Vec<(&'static str, Setting)>,
    notes: Vec<String>,
}

pub(super) fn edit(facts: &Facts, wishes: &KubeletWishes) -> Result<KubeletEdit, KubeletEditError> {
    let kubelet = facts.kubelet.as_ref().ok_or(KubeletEditError::NoKubelet)?;
    let unread = kubelet.unit.fragment.iter().chain(&kubelet.unit.drop_ins);
    if let Some(path) = unread.into_iter().find(|path| facts.text(path).is_none()) {
        return Err(KubeletEditError::NotRead(path.clone()));
    }
    let node = Node::new(facts);
    let before = node.unit();
    if before.arguments.is_empty() {
        return Err(KubeletEditError::NoKubelet);
    }
    if super::is_script(&before) {
        return Err(KubeletEditError::Script(super::told(&before)));
    }
    let mut edit = Edit {
        configs: configs(facts, &before, kubelet.config_file.as_deref()),
        instance: kubelet.instance_config.clone().filter(|path| facts.text(path).is_some()),
        node,
        minor: kubelet.minor,
        flags: Vec::new(),
        keys: Vec::new(),
        notes: Vec::new(),
    };
    // First: a unit that is copied for this can be changed then.
    edit.dependencies();
    edit.runtime(&wishes.endpoint)?;
    edit.dockershim()?;
    edit.pause_image(wishes.pause_image.as_deref())?;
    if let Some(driver) = &wishes.cgroup_driver {
        edit.cgroup_driver(driver)?;
    }
    edit.logs(wishes)?;
    edit.verify(&before)?;
    Ok(KubeletEdit { files: edit.node.changed, notes: edit.notes })
}

/// The files of `--config` and `--config-dir` that are there (`*.conf` below the folder, by their paths).
pub(super) fn configs(facts: &Facts, unit: &Unit, known: Option<&Path>) -> Vec<PathBuf> {
    let config = flags::value(unit, "config").map(PathBuf::from).or_else(|| known.map(Path::to_path_buf));
    let folder = flags::value(unit, "config-dir").map(PathBuf::from);
    let is_drop_in = |path: &&PathBuf| {
        folder.as_ref().is_some_and(|folder| path.starts_with(folder))
            && path.extension().is_some_and(|extension| extension == "conf")
    };
    let main = config.filter(|path| facts.text(path).is_some());
    main.into_iter().chain(facts.files.keys().filter(is_drop_in).cloned()).collect()
}

impl Edit<'_> {
    fn before(&self, minor: u32) -> bool {
        self.minor.is_some_and(|own| own < minor)
    }

    fn from(&self, minor: u32) -> bool {
        self.minor.is_some_and(|own| own >= minor)
    }

    fn told(&self, name: &str) -> Option<String> {
        flags::value(&self.node.unit(), name)
    }

    fn flag(&mut self, name: &'static str, value: &str) -> Result<(), KubeletEditError> {
        self.node.set(name, value)?;
        self.flags.push((name, Some(value.to_owned())));
        Ok(())
    }

    fn without_flag(&mut self, name: &'static str) -> Result<(), KubeletEditError> {
        self.node.remove(name)?;
        self.flags.push((name, None));
        Ok(())
    }

    fn config_error(path: &Path, why: ConfigYamlError) -> KubeletEditError {
        KubeletEditError::Config { path: path.to_path_buf(), why }
    }

    /// What the configuration says, in the last of its files that says it.
    fn key(&self, key: &str) -> Result<Option<(PathBuf, String)>, KubeletEditError> {
        for path in self.configs.iter().rev() {
            let text = self.node.text(path).unwrap_or_default();
            if let Some(value) = config_yaml::get(text, key).map_err(|why| Self::config_error(path, why))? {
                return Ok(Some((path.clone(), value)));
            }
        }
        Ok(None)
    }

    /// Sets a key in the file that says it, else in the first. Answers whether there is one.
    fn set_key(&mut self, key: &'static str, setting: Setting) -> Result<bool, KubeletEditError> {
        let place = self.key(key)?.map(|(path, _)| path).or_else(|| self.configs.first().cloned());
        let Some(path) = place else { return Ok(false) };
        self.set_in(&path, key, &setting)?;
        self.keys.push((key, setting));
        Ok(true)
    }

    fn set_in(&mut self, path: &Path, key: &str, setting: &Setting) -> Result<(), KubeletEditError> {
        let text = self.node.text(path).unwrap_or_default();
        let text = config_yaml::set(text, key, setting).map_err(|why| Self::config_error(path, why))?;
        self.node.put(path.to_path_buf(), text);
        Ok(())
    }

    /// Says something by a flag if a flag says it today, else by a key, else by a flag.
    fn say(
        &mut self,
        flag: &'static str,
        key: &'static str,
        setting: Setting,
    ) -> Result<(), KubeletEditError> {
        let value = setting.value();
        if self.told(flag).is_some() || !self.set_key(key, setting)? {
            self.flag(flag, &value)?;
        }
        Ok(())
    }

    /// Which runtime, and where it is.
    fn runtime(&mut self, endpoint: &str) -> Result<(), KubeletEditError> {
        if self.before(ENDPOINT_IN_CONFIG) || (self.minor.is_none() && self.told(RUNTIME).is_some()) {
            self.flag(RUNTIME, "remote")?;
        } else if self.from(ENDPOINT_IN_CONFIG) {
            self.without_flag(RUNTIME)?;
        }
        let text = Setting::Text(endpoint.to_owned());
        if self.from(ENDPOINT_IN_CONFIG) {
            self.say(ENDPOINT, "containerRuntimeEndpoint", text.clone())?;
            // kubeadm lays this file over the configuration whenever it writes that.
            if let Some(path) = self.instance.clone() {
                self.set_in(&path, "containerRuntimeEndpoint", &text)?;
            }
        } else {
            self.flag(ENDPOINT, endpoint)?;
        }
        // Images have an endpoint of their own only where somebody gave them one; it was the old runtime's.
        if self.told(IMAGE_ENDPOINT).is_some_and(|told| !told.is_empty()) {
            self.flag(IMAGE_ENDPOINT, endpoint)?;
        }
        if self.from(ENDPOINT_IN_CONFIG)
            && self.key("imageServiceEndpoint")?.is_some_and(|(_, told)| !told.is_empty())
        {
            self.set_key("imageServiceEndpoint", text)?;
        }
        if let Some(told) = self.told(RUNTIME_CGROUPS)
            && let Some(above) = told.strip_suffix("docker.service")
        {
            self.flag(RUNTIME_CGROUPS, &format!("{above}{NEW_UNIT}"))?;
        }
        Ok(())
    }

    fn dockershim(&mut self) -> Result<(), KubeletEditError> {
        let unit = self.node.unit();
        let told: Vec<&'static str> =
            DOCKERSHIM.into_iter().filter(|name| !find(&unit, name).is_empty()).collect();
        if self.from(WITHOUT_DOCKERSHIM) {
            for name in told {
                self.without_flag(name)?;
            }
        } else if !told.is_empty() && self.minor.is_some() {
            let told: Vec<String> = told.iter().map(|name| format!("--{name}")).collect();
            self.notes.push(format!(
                "{} {}: with another runtime this kubelet does not look at them, and \
                 kubelet 1.{WITHOUT_DOCKERSHIM} does not start with them",
                told.join(", "),
                if told.len() == 1 {
                    "is for dockershim alone and stays"
                } else {
                    "are for dockershim alone and stay"
                },
            ));
        }
        Ok(())
    }

    fn pause_image(&mut self, image: Option<&str>) -> Result<(), KubeletEditError> {
        if self.from(WITHOUT_PAUSE_IMAGE) {
            return self.without_flag(PAUSE_IMAGE);
        }
        match image {
            Some(image) if self.minor.is_some() || self.told(PAUSE_IMAGE).is_some() => {
                self.flag(PAUSE_IMAGE, image)
            }
            _ => Ok(()),
        }
    }

    fn cgroup_driver(&mut self, driver: &str) -> Result<(), KubeletEditError> {
        // What a kubelet does that is told nothing.
        if driver == "cgroupfs" && self.told(DRIVER).is_none() && self.key("cgroupDriver")?.is_none() {
            return Ok(());
        }
        self.say(DRIVER, "cgroupDriver", Setting::Text(driver.to_owned()))
    }

    /// Docker's own limits take effect in the kubelet now. What somebody told the kubelet had none before, and was
    /// meant for this.
    fn logs(&mut self, wishes: &KubeletWishes) -> Result<(), KubeletEditError> {
        let size = wishes.log_max_size.clone().map(Setting::Text);
        let files = wishes.log_max_files.map(Setting::Number);
        for (flag, key, setting) in
            [(LOG_SIZE, "containerLogMaxSize", size), (LOG_FILES, "containerLogMaxFiles", files)]
        {
            let Some(setting) = setting else { continue };
            let told = match self.told(flag) {
                Some(told) => Some(told),
                None => self.key(key)?.map(|(_, told)| told),
            };
            match told {
                None => self.say(flag, key, setting)?,
                Some(told) if told != setting.value() => self.notes.push(format!(
                    "kubelet is told {key} {told} already, which stays; Docker had {}",
                    setting.value()
                )),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A unit that needs Docker would start it, and be stopped with it.
    fn dependencies(&mut self) {
        let unit = self.node.unit();
        for path in unit.fragment.iter().chain(&unit.drop_ins) {
            let Some(text) = self.node.text(path) else { continue };
            if !dependencies::needs(text, &OLD_UNITS) {
                continue;
            }
            let text = dependencies::replace(text, &OLD_UNITS, NEW_UNIT);
            if !is_packaged(path) {
                self.node.put(path.clone(), text);
            } else if Some(path) == unit.fragment.as_ref() {
                let own = Path::new("/etc/systemd/system").join(UNIT);
                self.notes.push(format!(
                    "{} needs Docker's unit, which no drop-in can take back: {} is a copy of it without that, and \
                     takes its place, also when the package changes",
                    path.display(),
                    own.display()
                ));
                self.node.put(own, text);
            } else {
                self.notes.push(format!(
                    "{} makes kubelet need Docker's unit, and belongs to a package: as long as it is there, Docker is \
                     started with kubelet",
                    path.display()
                ));
            }
        }
    }

    /// The files as they would be, put together as systemd and the kubelet do.
    fn verify(&self, before: &Unit) -> Result<(), KubeletEditError> {
        let after = self.node.unit();
        let unverified = |wished: String, found: String, name: &str| {
            let path = self.node.place_of(&after, name);
            Err(KubeletEditError::Unverified { wished, found, path })
        };
        let shown = |name: &str, value: &Option<String>| match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("no --{name}"),
        };
        for (name, wished) in &self.flags {
            let found = flags::value(&after, name);
            if found != *wished {
                return unverified(shown(name, wished), shown(name, &found), name);
            }
        }
        for (key, wished) in &self.keys {
            let found = self.key(key)?.map(|(_, value)| value).unwrap_or_default();
            if found != wished.value() {
                return unverified(format!("{key}: {}", wished.value()), format!("{key}: {found}"), key);
            }
        }
        let ours: Vec<&str> = self.flags.iter().map(|(name, _)| *name).collect();
        let (old, new) = (flags::others(before, &ours), flags::others(&after, &ours));
        if old != new || before.arguments.first().map(|a| &a.text) != after.arguments.first().map(|a| &a.text)
        {
            let lost = old.iter().find(|argument| !new.contains(argument));
            let found = new.iter().find(|argument| !old.contains(argument)).cloned().unwrap_or_default();
            return unverified(
                lost.cloned().unwrap_or_else(|| "its other arguments".to_owned()),
                found,
                "config",
            );
        }
        Ok(())
    }
}
