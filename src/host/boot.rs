//! Which boot of the machine this is, and how long it lasts.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// An identifier of this boot; empty where the kernel does not tell.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Time since the boot, with the time that the machine slept.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
