//! Probes and hooks.
