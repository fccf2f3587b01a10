//! Cgroups and resources.
