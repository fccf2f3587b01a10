//! Volumes and mounts.
