//! `nodectl cri update`, `checkpoint` and `update-runtime-config`.

use std::{collections::BTreeMap, io::Write, net::IpAddr, path::PathBuf};

use clap::Args;

use super::{
    act::{Streams, each},
    ps::inventory,
    session::Session,
};
use crate::{
    api::{
        cri::{LinuxContainerResources, NetworkConfig, RuntimeConfig},
        quantity::Quantity,
    },
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri update`.
#[derive(Debug, Clone, Args)]
pub(super) struct UpdateArgs {
    /// Containers: ids or beginnings of them, NAMESPACE/POD/NAME, or a pod with one container by its UID or
    /// NAMESPACE/NAME
    #[arg(value_name = "CONTAINER", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    resources: ResourceArgs,
}

/// What is to change; what is not given stays.
#[derive(Debug, Clone, Default, Args)]
struct ResourceArgs {
    /// Length of a period of the CPU quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_period: Option<i64>,
    /// CPU time that may be used in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Weight of the container among others when CPU is short
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<i64>,
    /// Limit of memory: bytes, or a quantity such as 256Mi
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<i64>,
    /// CPUs that may be used, as in 0-2,4
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as in 0-1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// How soon the kernel kills it when memory is short: -1000 (never) to 1000
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    oom_score_adj: Option<i64>,
}

fn bytes(text: &str) -> Result<i64, String> {
    let bytes = match text.parse() {
        Ok(bytes) => bytes,
        Err(_) => {
            let quantity = text.parse::<Quantity>().map_err(|error| error.to_string())?;
            quantity.value()
        }
    };
    // What does not fit is as large as can be told.
    if (-1..i64::MAX).contains(&bytes) { Ok(bytes) } else { Err("no number of bytes that can be".to_owned()) }
}

/// Arguments of `nodectl cri checkpoint`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckpointArgs {
    /// The container: its id or the beginning of it, NAMESPACE/POD/NAME, or its pod's UID or NAMESPACE/NAME
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// The archive to write
    #[arg(short, long, value_name = "PATH")]
    export: PathBuf,
}

/// Arguments of `nodectl cri update-runtime-config`.
#[derive(Debug, Clone, Args)]
pub(super) struct UpdateRuntimeConfigArgs {
    /// The node's range of pod addresses, as in 10.1.2.0/24; two with a comma between for two families
    #[arg(short, long, value_name = "CIDR", value_parser = ranges)]
    pod_cidr: String,
}

/// Address ranges with commas between; an empty text is none, which the runtime leaves out.
fn ranges(text: &str) -> Result<String, String> {
    let fits = |range: &str| {
        let (address, bits) = range.trim().split_once('/')?;
        let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        (bits.parse::<u8>().ok()? <= most).then_some(())
    };
    match text.split(',').find(|range| !text.is_empty() && fits(range).is_none()) {
        Some(wrong) => Err(format!("{wrong:?} is no address range, as in 10.1.2.0/24")),
        None => Ok(text.to_owned()),
    }
}

pub(super) async fn update(
    args: &UpdateArgs,
    session: &Session,
    streams: Streams<'_>,
) -> Result<(), CommandError> {
    let given = &args.resources;
    let resources = LinuxContainerResources {
        cpu_period: given.cpu_period.unwrap_or_default(),
        cpu_quota: given.cpu_quota.unwrap_or_default(),
        cpu_shares: given.cpu_share.unwrap_or_default(),
        memory_limit_in_bytes: given.memory.unwrap_or_default(),
        cpuset_cpus: given.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: given.cpuset_mems.clone().unwrap_or_default(),
        oom_score_adj: given.oom_score_adj.unwrap_or_default(),
        ..LinuxContainerResources::default()
    };
    // The runtime takes 0 for what is not given, and would change nothing.
    if resources == LinuxContainerResources::default() {
        return Err(CommandError::usage(
            "nothing is given that could change; 0 stands for what is not given",
        ));
    }
    let all = inventory(session).await?;
    each(&args.ids, 1, streams, async |wanted| {
        let id = &all.container_to_change(wanted)?.id;
        let call = session.change.update_container_resources(id, resources.clone(), BTreeMap::new());
        session.act("UpdateContainerResources", wanted, call).await?;
        Ok(wanted.to_owned())
    })
    .await
}

pub(super) async fn checkpoint(
    args: &CheckpointArgs,
    session: &Session,
    streams: Streams<'_>,
) -> Result<(), CommandError> {
    // The runtime writes it, and works in a folder of its own.
    let path = std::path::absolute(&args.export).map_err(CommandError::usage)?;
    let Some(path) = path.to_str() else {
        return Err(CommandError::usage("--export: the path is not UTF-8 text"));
    };
    let all = inventory(session).await?;
    each(std::slice::from_ref(&args.id), 1, streams, async |wanted| {
        let id = &all.container_to_change(wanted)?.id;
        let call = session.change.checkpoint_container(id, path, None);
        session.act("CheckpointContainer", wanted, call).await?;
        Ok(wanted.to_owned())
    })
    .await
}

pub(super) async fn update_runtime_config(
    args: &UpdateRuntimeConfigArgs,
    session: &Session,
    err: &mut dyn Write,
) -> Result<(), CommandError> {
    let network = NetworkConfig { pod_cidr: args.pod_cidr.clone() };
    let call = session.change.update_runtime_config(RuntimeConfig { network_config: Some(network) });
    session.act("UpdateRuntimeConfig", "the runtime", call).await?;
    // As crictl: nothing on stdout. There is nobody to tell that telling failed.
    writeln!(err, "Runtime config successfully updated").ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_ranges() {
        for good in ["10.1.2.0/24", "10.1.2.0/24,fd00::/64", ""] {
            assert_eq!(ranges(good).as_deref(), Ok(good));
        }
        for wrong in ["10.1.2.0", "10.1.2.0/33", "x/24", "10.1.2.0/24,", "fd00::/129"] {
            ranges(wrong).unwrap_err();
        }
    }

    #[test]
    fn memory_is_bytes_or_a_quantity() {
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("64Mi"), Ok(64 << 20));
        assert_eq!(bytes("-1"), Ok(-1));
        for wrong in ["x", "-5", "99999999999999999999", "16Ei", "1e30"] {
            bytes(wrong).unwrap_err();
        }
    }
}
