//! Security contexts, seccomp, sysctls, user namespaces.
