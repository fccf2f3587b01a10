//! Compiles `proto/` with a compiler written in Rust, so that a build needs no `protoc`.
//!
//! It runs twice: once for the plain CRI messages, which policy code may use without pulling in
//! gRPC, and once for the client, which refers to those messages.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// Messages that the client passes on the heap. A call's future holds its message once for every
/// layer it goes through, which by value made it 43 KB for the largest of them.
const BOXED: [&str; 6] = [
    "ContainerStatusResponse",
    "CreateContainerRequest",
    "ImageStatusResponse",
    "PodSandboxStatusResponse",
    "PullImageRequest",
    "RunPodSandboxRequest",
];

const PROTO_ROOT: &str = "proto";
const CRI: &str = "runtime/v1/api.proto";
const CONTAINERD_EVENTS: &str = "containerd/services/events/v1/events.proto";
const GRPC_HEALTH: &str = "grpc/health/v1/health.proto";
const CONTAINERD_PAYLOADS: &str = "containerd/events/events.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let (messages, client) = (out.join("messages"), out.join("client"));
    fs::create_dir_all(&messages)?;
    fs::create_dir_all(&client)?;

    let cri = protox::compile([CRI], [PROTO_ROOT])?;
    // What `nodectl cri` reads field names and types from; comments and lines are of no use there.
    let mut described = cri.clone();
    described.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("cri.bin"), described.encode_to_vec())?;
    prost_build::Config::new()
        // Ordered maps: the same configuration always gives the same bytes and the same output.
        .btree_map(["."])
        // Holds passwords; `api::cri` writes its own.
        .skip_debug(["runtime.v1.AuthConfig"])
        .out_dir(&messages)
        .compile_fds(cri.clone())?;

    let client_only =
        || tonic_prost_build::configure().build_server(false).build_transport(false).out_dir(&client);
    let mut cri_client = client_only().extern_path(".runtime.v1", "crate::api::cri");
    for message in BOXED {
        let boxed = format!("crate::cri::proto::boxed::{message}");
        cri_client = cri_client.extern_path(format!(".runtime.v1.{message}"), boxed);
    }
    cri_client.compile_fds(cri)?;
    client_only().compile_fds(protox::compile([CONTAINERD_EVENTS, CONTAINERD_PAYLOADS], [PROTO_ROOT])?)?;
    client_only().compile_fds(protox::compile([GRPC_HEALTH], [PROTO_ROOT])?)?;

    println!("cargo::rerun-if-changed={PROTO_ROOT}");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
