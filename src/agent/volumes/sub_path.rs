//! `subPath`: a part of a volume. The containers that write to the volume may put a link in its place at any
//! moment, and the runtime takes a path. So the part is opened within the volume, and what is open is mounted
//! at a place that no container reaches, where kubelet has it: `volume-subpaths/VOLUME/CONTAINER/INDEX` of
//! the pod's folder (pkg/volume/util/subpath). The runtime gets that place.
//!
//! It is mounted anew for every start of the container, and unmounted when the pod is cleared away.

use std::{fs, io, path::Path};

use nix::sys::stat::{SFlag, fstat};

use super::make_agent_dir;
use crate::host::{
    beneath::{make_beneath, open_beneath},
    mounts::{self, Sharing},
};

/// Mounts a part of a volume at a place, after what was mounted there before is gone. What of the part is
/// missing is made, as folders.
///
/// # Errors
/// As [`make_beneath`] and `mount`.
pub(super) fn bind(
    volume: &Path,
    part: &Path,
    place: &Path,
    sharing: Sharing,
    mountinfo: &Path,
) -> io::Result<()> {
    let source = match open_beneath(volume, part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_beneath(volume, part),
        found => found,
    }
    .map_err(|error| match nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        nix::errno::Errno::EXDEV => io::Error::other("a link on the way leads out of the volume"),
        _ => error,
    })?;
    let is_folder =
        SFlag::from_bits_truncate(fstat(&source)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    // Mounts may lie upon one another, of agents that were killed in between.
    mounts::unmount_every(mountinfo, place)?;
    if let Some(parent) = place.parent() {
        make_agent_dir(parent)?;
    }
    make_place(place, is_folder)?;
    mounts::bind(&source, place, sharing)
}

/// A folder is mounted on a folder, all else on a file.
fn make_place(place: &Path, is_folder: bool) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() == is_folder => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir(place)?,
        Ok(_) => fs::remove_file(place)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if is_folder { fs::create_dir(place) } else { fs::File::create_new(place).map(drop) }
}
