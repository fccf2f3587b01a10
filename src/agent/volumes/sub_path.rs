//! `subPath`: a part of a volume. The containers that write to the volume may put a link in its place at any
//! moment, and the runtime takes a path. So the part is opened within the volume, and what is open is mounted
//! at a place that no container reaches, where kubelet has it: `volume-subpaths/VOLUME/CONTAINER/INDEX` of
//! the pod's folder (pkg/volume/util/subpath). The runtime gets that place.
//!
//! It is mounted anew for every start of the container, and unmounted when the pod is cleared away.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    sys::stat::{SFlag, fstat},
};

use super::make_agent_dir;
use crate::host::{
    beneath::{Owner, make_beneath, open_beneath},
    mounts::{self, Sharing},
};

/// A part of a volume that is open, to be mounted.
#[derive(Debug)]
pub(super) struct OpenPart {
    file: OwnedFd,
    is_folder: bool,
}

/// Opens a part of a volume. What of it is missing is made, as folders.
///
/// # Errors
/// As [`make_beneath`].
pub(super) fn open(volume: &Path, part: &Path, owner: Owner) -> io::Result<OpenPart> {
    let found = match open_beneath(volume, part, owner) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_beneath(volume, part, owner),
        found => found,
    };
    let file = found.map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::EXDEV => io::Error::other("a link on the way leads out of the volume"),
        _ => error,
    })?;
    let is_folder = SFlag::from_bits_truncate(fstat(&file)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    Ok(OpenPart { file, is_folder })
}

/// Mounts a part of a volume at a place, after what was mounted there before is gone.
///
/// # Errors
/// As `mount`.
pub(super) fn bind(part: &OpenPart, place: &Path, sharing: Sharing, mountinfo: &Path) -> io::Result<()> {
    // Mounts may lie upon one another, of agents that were killed in between.
    mounts::unmount_every(mountinfo, place)?;
    if let Some(parent) = place.parent() {
        make_agent_dir(parent)?;
    }
    make_place(place, part.is_folder)?;
    mounts::bind(&part.file, place, sharing)
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
