//! The manifests of tests/pods, each with what must be seen.
