//! The files of volumes that the agent writes: `configMap`, `secret`, `downwardAPI`, and `projected` of such parts and
//! of tokens. The rules are kubelet's (pkg/volume/{configmap,secret,projected}).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{KeyToPath, Pod, ServiceAccountTokenProjection, Volume};

use super::{
    downward::{Downward, MAX_VOLUME_BYTES, VolumeFile},
    env::ConfigError,
    given::{Given, ObjectData, ObjectKind, token_key},
};
use crate::api::{PodExt as _, defaults::VOLUME_FILE_MODE};

/// A token's, where the pod's user or group is known, who are given it.
const TOKEN_MODE: u32 = 0o600;

/// Whether the agent writes the files of this volume; containers have it read-only, whatever the mount says.
pub fn is_written(volume: &Volume) -> bool {
    volume.downward_api.is_some()
        || volume.projected.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
}

/// Whether what is in the volume must never be on a disk.
pub fn is_secret(volume: &Volume) -> bool {
    let mut parts = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    volume.secret.is_some() || parts.any(|part| part.secret.is_some() || part.service_account_token.is_some())
}

/// What the files of such a volume are to be, by their paths as given.
///
/// # Errors
/// When an object or a key of it that must be there is not, in kubelet's words; when a text cannot be had; when all
/// together are too long.
pub fn volume_files(
    volume: &Volume,
    told: &Downward<'_>,
    given: &Given,
) -> Result<BTreeMap<String, VolumeFile>, ConfigError> {
    let pod = told.pod;
    let mut room = MAX_VOLUME_BYTES;
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        return told.volume_files(items, source.default_mode, &mut room);
    }
    let mut all = Files { pod, given, room, files: BTreeMap::new() };
    if let Some(source) = &volume.config_map {
        let (items, mode) = (source.items.as_deref(), mode(source.default_mode));
        all.object((ObjectKind::ConfigMap, &source.name), items, mode, source.optional)?;
    } else if let Some(source) = &volume.secret {
        let (items, mode) = (source.items.as_deref(), mode(source.default_mode));
        let name = source.secret_name.as_deref().unwrap_or_default();
        all.object((ObjectKind::Secret, name), items, mode, source.optional)?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for part in projected.sources.iter().flatten() {
            if let Some(source) = &part.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                let files = told.volume_files(items, projected.default_mode, &mut all.room)?;
                all.files.extend(files);
            } else if let Some(source) = &part.config_map {
                let named = (ObjectKind::ConfigMap, source.name.as_str());
                all.object(named, source.items.as_deref(), mode, source.optional)?;
            } else if let Some(source) = &part.secret {
                let named = (ObjectKind::Secret, source.name.as_str());
                all.object(named, source.items.as_deref(), mode, source.optional)?;
            } else if let Some(source) = &part.service_account_token {
                all.token(source, mode)?;
            } else {
                return Err(ConfigError::new("a source of this kind is not given to pods by nodectl"));
            }
        }
    }
    Ok(all.files)
}

fn mode(given: Option<i32>) -> u32 {
    u32::try_from(given.unwrap_or(VOLUME_FILE_MODE)).unwrap_or_default() & 0o777
}

struct Files<'a> {
    pod: &'a Pod,
    given: &'a Given,
    room: usize,
    files: BTreeMap<String, VolumeFile>,
}

impl Files<'_> {
    fn object(
        &mut self,
        (kind, name): (ObjectKind, &str),
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: Option<bool>,
    ) -> Result<(), ConfigError> {
        let optional = optional == Some(true);
        let given = self.given;
        let Some(data) = given.object(kind, self.pod, name, optional)? else { return Ok(()) };
        let items = items.unwrap_or_default();
        if items.is_empty() {
            let all = data.data.iter().chain(&data.binary);
            return all.into_iter().try_for_each(|(key, value)| self.put(key, value, mode, None));
        }
        for item in items {
            let mode = item.mode.map_or(mode, |own| u32::try_from(own).unwrap_or_default() & 0o777);
            match value(data, &item.key) {
                Some(value) => self.put(&item.path, value, mode, None)?,
                None if optional => {}
                None => {
                    let words = match kind {
                        ObjectKind::ConfigMap => "configmap references non-existent config key",
                        ObjectKind::Secret => "references non-existent secret key",
                    };
                    return Err(ConfigError::new(format!("{words}: {}", item.key)));
                }
            }
        }
        Ok(())
    }

    fn token(&mut self, source: &ServiceAccountTokenProjection, mode: u32) -> Result<(), ConfigError> {
        let key = token_key(source.audience.as_deref(), source.expiration_seconds);
        let given = self.given;
        let token = match given.tokens.get(&key) {
            Some(Ok(token)) => &token.0,
            Some(Err(why)) => return Err(ConfigError::new(format!("failed to fetch token: {why}"))),
            None => return Err(ConfigError::new("failed to fetch token: it has not been asked for")),
        };
        let owner = only_user(self.pod);
        let group = self.pod.spec().security_context.as_ref().and_then(|security| security.fs_group);
        let mode = if owner.is_some() || group.is_some() { TOKEN_MODE } else { mode };
        self.put(&source.path, token.as_bytes(), mode, owner)
    }

    fn put(&mut self, path: &str, content: &[u8], mode: u32, owner: Option<u32>) -> Result<(), ConfigError> {
        self.room = self.room.checked_sub(content.len()).ok_or_else(|| {
            let most = MAX_VOLUME_BYTES >> 20;
            ConfigError::new(format!("file {path:?}: the volume's files come to more than {most} MiB"))
        })?;
        self.files.insert(path.to_owned(), VolumeFile { content: content.to_vec(), mode, owner });
        Ok(())
    }
}

fn value<'a>(data: &'a ObjectData, key: &str) -> Option<&'a [u8]> {
    data.data.get(key).or_else(|| data.binary.get(key)).map(Vec::as_slice)
}

/// The user that all containers of the pod run as, if the specification says so of each
/// (pkg/volume/util, `FsUserFrom`).
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec();
    let of_pod = spec.security_context.as_ref().and_then(|security| security.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers
        .map(|container| container.security_context.as_ref().and_then(|own| own.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
#[path = "volume_files_tests.rs"]
mod tests;
