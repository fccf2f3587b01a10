//! Kubernetes API vocabulary: identifiers, accessors and value types that every layer may use.

pub mod quantity;
