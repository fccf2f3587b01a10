//! The generated gRPC clients. The CRI messages themselves are in [`crate::api::cri`].

#![allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, rustdoc::all, clippy::all)]

/// Clients of the CRI v1 services.
pub(super) mod v1 {
    include!(concat!(env!("OUT_DIR"), "/client/runtime.v1.rs"));
}

/// Client of containerd's event service.
pub(super) mod containerd_events {
    include!(concat!(env!("OUT_DIR"), "/client/containerd.services.events.v1.rs"));
}

/// What containerd's events carry.
pub(super) mod containerd_payloads {
    include!(concat!(env!("OUT_DIR"), "/client/containerd.events.rs"));
}

/// Messages too large to be held by value in the layers of a call; `build.rs` names them to the
/// generated client.
pub(super) mod boxed {
    use crate::api::cri;

    pub(crate) type ContainerStatusResponse = Box<cri::ContainerStatusResponse>;
    pub(crate) type CreateContainerRequest = Box<cri::CreateContainerRequest>;
    pub(crate) type ImageStatusResponse = Box<cri::ImageStatusResponse>;
    pub(crate) type PodSandboxStatusResponse = Box<cri::PodSandboxStatusResponse>;
    pub(crate) type PullImageRequest = Box<cri::PullImageRequest>;
    pub(crate) type RunPodSandboxRequest = Box<cri::RunPodSandboxRequest>;
}
