//! The interface's own description: which fields a message has, of what type, under which name.

/// The compiled `proto/runtime/v1/api.proto` as a `FileDescriptorSet`, for whoever reads messages by
/// reflection: the inspector prints all fields, also ones that no code of ours names.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cri.bin"));
