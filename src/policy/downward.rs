//! What a pod is told of itself: fields of the pod, and resources of its containers, as text. Variables and
//! volumes say the same by it.
//!
//! The rules are kubelet's (pkg/kubelet/kubelet_pods.go, pkg/fieldpath, pkg/api/v1/resource): a label or
//! annotation that is not there is an empty text; a limit that is not set is the pod's, and if that is not
//! set either the node's allocatable, except that a variable which names an init container gets nothing for
//! it; amounts are divided and rounded up.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Container, DownwardAPIVolumeFile, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::{env::ConfigError, node::NodeSettings, status::one_of_each_family};
use crate::api::{
    PodExt as _,
    defaults::VOLUME_FILE_MODE,
    quantity::{Format, Quantity},
};

/// The most bytes of a volume's files together. Many small items may each say all of the annotations, which
/// the agent holds at once; a whole object of an API server has less than 2 MiB.
pub const MAX_VOLUME_BYTES: usize = 16 << 20;

/// What the texts are taken from.
#[derive(Debug, Clone, Copy)]
pub struct Downward<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The pod's addresses, the primary one first; not known to volumes, which have no field for them.
    pub pod_ips: &'a [IpAddr],
    /// The node.
    pub node: &'a NodeSettings,
}

/// A file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// What is in it.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// The user whose it is, if not root's.
    pub owner: Option<u32>,
}

/// It may hold a secret, which is not shown.
impl fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, mode, owner) = (self.content.len(), self.mode, self.owner);
        write!(f, "VolumeFile {{ {bytes} bytes, mode: {mode:o}, owner: {owner:?} }}")
    }
}

impl Downward<'_> {
    /// A field of the pod.
    ///
    /// # Errors
    /// For a path that stands for no field, and for an address of the node where it has none.
    pub fn field(&self, path: &str) -> Result<String, ConfigError> {
        let metadata = &self.pod.metadata;
        if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            let map = match map {
                "metadata.labels" => metadata.labels.as_ref(),
                "metadata.annotations" => metadata.annotations.as_ref(),
                _ => return Err(ConfigError::new(format!("the field {path:?} has no keys"))),
            };
            return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => self.pod.full_name().name.to_string(),
            "metadata.namespace" => self.pod.full_name().namespace.to_string(),
            "metadata.uid" => self.pod.uid().to_string(),
            "metadata.labels" => lines(metadata.labels.as_ref()),
            "metadata.annotations" => lines(metadata.annotations.as_ref()),
            "spec.nodeName" => self.node.name.clone(),
            "spec.serviceAccountName" => self.pod.spec().service_account_name.clone().unwrap_or_default(),
            "status.hostIP" => self.host_ips(1)?,
            "status.hostIPs" => self.host_ips(2)?,
            "status.podIP" => join(self.own_ips().iter().take(1)),
            "status.podIPs" => join(self.own_ips().iter()),
            _ => return Err(ConfigError::new(format!("a pod has no field {path:?} to be told of"))),
        })
    }

    /// As the status has them.
    fn own_ips(&self) -> Vec<IpAddr> {
        one_of_each_family(self.pod_ips, &self.node.host_ips)
    }

    fn host_ips(&self, count: usize) -> Result<String, ConfigError> {
        if self.node.host_ips.is_empty() {
            return Err(ConfigError {
                message: "the node's address is not known".to_owned(),
                hints: vec!["give it by --node-ip".to_owned()],
            });
        }
        Ok(join(self.node.host_ips.iter().take(count)))
    }

    /// A resource of a container of the pod; of `own`, the container of a variable, where the selector names
    /// none. A volume is no container's own.
    ///
    /// # Errors
    /// For a container that the pod has not, a resource that there is not, a divisor that is no quantity.
    pub fn resource(
        &self,
        selector: &ResourceFieldSelector,
        own: Option<&Container>,
    ) -> Result<String, ConfigError> {
        let (container, has_default) = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
            None => (own.ok_or_else(|| ConfigError::new("resourceFieldRef names no container"))?, true),
            Some(name) => {
                let spec = self.pod.spec();
                // To variables, an init container that is named has no limit but its own.
                let regular = spec.containers.iter().map(|container| (container, true));
                let init = spec.init_containers.iter().flatten().map(|container| (container, own.is_none()));
                regular
                    .chain(init)
                    .find(|(container, _)| container.name == name)
                    .ok_or_else(|| ConfigError::new(format!("the pod has no container {name:?}")))?
            }
        };
        let divisor = match &selector.divisor {
            Some(text) if !text.0.is_empty() => Quantity::parse(&text.0)
                .map_err(|error| ConfigError::new(format!("the divisor of resourceFieldRef: {error}")))?,
            _ => Quantity::ZERO,
        };
        let one = Quantity::from_value(1, Format::DecimalSi);
        let divisor = if divisor.is_zero() { one } else { divisor };
        let amount = self.amount(container, &selector.resource, has_default)?;
        Ok(divided_up(amount.nano_value(), divisor.nano_value()).to_string())
    }

    fn amount(
        &self,
        container: &Container,
        resource: &str,
        has_default: bool,
    ) -> Result<Quantity, ConfigError> {
        let unknown = || ConfigError::new(format!("a container has no resource {resource:?} to be told of"));
        let (list, name) = resource.split_once('.').ok_or_else(unknown)?;
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
            return Err(unknown());
        }
        let resources = container.resources.as_ref();
        match list {
            "requests" => Ok(quantity(resources.and_then(|r| r.requests.as_ref()), name)),
            "limits" => {
                let own = quantity(resources.and_then(|r| r.limits.as_ref()), name);
                Ok(if own.is_zero() && has_default { self.default_limit(name) } else { own })
            }
            _ => Err(unknown()),
        }
    }

    /// The limit of a container that has none. Huge pages are never promised without being asked for.
    fn default_limit(&self, name: &str) -> Quantity {
        let of_the_node = match name {
            "cpu" => Quantity::from_milli(self.node.allocatable.milli_cpu),
            "memory" => Quantity::from_value(self.node.allocatable.memory_bytes, Format::BinarySi),
            "ephemeral-storage" => {
                let bytes = self.node.allocatable.ephemeral_storage_bytes;
                return Quantity::from_value(bytes, Format::BinarySi);
            }
            _ => return Quantity::ZERO,
        };
        let of_the_pod = self.pod.spec().resources.as_ref().and_then(|r| r.limits.as_ref());
        let of_the_pod = quantity(of_the_pod, name);
        if of_the_pod.is_zero() { of_the_node } else { of_the_pod }
    }

    /// The files of a downwardAPI volume, or of such a part of a projected one, by their paths as given.
    ///
    /// # Errors
    /// As [`Downward::field`] and [`Downward::resource`], and when the contents need more than `room`, which
    /// they take from; the file is named.
    pub fn volume_files(
        &self,
        items: &[DownwardAPIVolumeFile],
        default_mode: Option<i32>,
        room: &mut usize,
    ) -> Result<BTreeMap<String, VolumeFile>, ConfigError> {
        let default_mode = default_mode.unwrap_or(VOLUME_FILE_MODE);
        let file = |item: &DownwardAPIVolumeFile| {
            let content = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => self.field(&field.field_path),
                (None, Some(resource)) => self.resource(resource, None),
                (None, None) => Err(ConfigError::new("neither fieldRef nor resourceFieldRef is given")),
            };
            let content = content.and_then(|content| {
                *room = room.checked_sub(content.len()).ok_or_else(|| {
                    let most = MAX_VOLUME_BYTES >> 20;
                    ConfigError::new(format!("the volume's files come to more than {most} MiB"))
                })?;
                Ok(content)
            });
            let content = content.map_err(|error| ConfigError {
                message: format!("file {:?}: {}", item.path, error.message),
                ..error
            })?;
            let mode = u32::try_from(item.mode.unwrap_or(default_mode)).unwrap_or_default() & 0o777;
            Ok((item.path.clone(), VolumeFile { content: content.into_bytes(), mode, owner: None }))
        };
        items.iter().map(file).collect()
    }
}

fn quantity(map: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Quantity {
    let given = map.and_then(|map| map.get(name));
    given.and_then(|given| Quantity::parse(&given.0).ok()).unwrap_or(Quantity::ZERO)
}

/// The smallest whole number that is not below the quotient; nothing of what is not above nothing.
fn divided_up(amount: i128, divisor: i128) -> i64 {
    if amount <= 0 || divisor <= 0 {
        return 0;
    }
    let (whole, rest) = (amount / divisor, amount % divisor);
    i64::try_from(whole + i128::from(rest > 0)).unwrap_or(i64::MAX)
}

fn join<'a>(ips: impl Iterator<Item = &'a IpAddr>) -> String {
    ips.map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A map as lines of `key="value"`, sorted by key.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", go_quoted(value));
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// A text as Go's `%q` writes it.
fn go_quoted(text: &str) -> String {
    format!("\"{}\"", text.chars().map(go_escaped).collect::<String>())
}

fn go_escaped(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
        c if c.is_ascii() || is_printable(c) => c.to_string(),
        c if u32::from(c) <= 0xffff => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    }
}

/// Whether a character that is not ASCII is a letter, mark, number, sign or symbol. The standard library
/// escapes the others, and marks only at a text's beginning.
fn is_printable(c: char) -> bool {
    let text: String = ['a', c].into_iter().collect();
    !text.escape_debug().any(|escaped| escaped == '\\')
}

#[cfg(test)]
#[path = "downward_tests.rs"]
mod tests;
