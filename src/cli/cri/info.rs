//! `nodectl cri version`, `info`, `imagefsinfo` and `runtime-config`: the runtime itself.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::{
    format::{Format, FormatArgs},
    inspect::with_info,
    protojson,
    session::Session,
    text::size,
};
use crate::{
    api::cri::FilesystemUsage,
    cli::output::{Table, printable},
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri version`, `imagefsinfo`, `runtime-config` and `metricdescs`.
#[derive(Debug, Clone, Args)]
pub(super) struct PlainArgs {
    #[command(flatten)]
    pub(super) format: FormatArgs,
}

/// Arguments of `nodectl cri info`.
#[derive(Debug, Clone, Args)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Without the runtime's configuration
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn version(
    args: &PlainArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let version = session.ask("Version", session.cri.version()).await?;
    format.print(
        out,
        || protojson::json("VersionResponse", &version),
        || {
            // Two spaces, as scripts cut crictl's lines.
            let lines = [
                format!("Version:  {}", version.version),
                format!("RuntimeName:  {}", version.runtime_name),
                format!("RuntimeVersion:  {}", version.runtime_version),
                format!("RuntimeApiVersion:  {}", version.runtime_api_version),
            ];
            lines.iter().map(|line| printable(line) + "\n").collect()
        },
    )
}

pub(super) async fn info(
    args: &InfoArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let answer = session.ask("Status", session.cri.status(!args.quiet)).await?;
    let status = answer.status.clone().unwrap_or_default();
    let value = || {
        let mut value = with_info(protojson::json("RuntimeStatus", &status)?, &answer.info);
        if !answer.runtime_handlers.is_empty() {
            let handlers = answer.runtime_handlers.iter();
            let handlers = handlers.map(|handler| protojson::go_json("RuntimeHandler", handler));
            value["runtimeHandlers"] = Value::Array(handlers.collect::<Result<_, _>>()?);
        }
        if let Some(features) = &answer.features {
            value["features"] = protojson::go_json("RuntimeFeatures", features)?;
        }
        Ok(value)
    };
    format.print(out, value, || {
        let mut table = Table::new(["CONDITION", "STATUS", "REASON", "MESSAGE"]);
        for condition in &status.conditions {
            table.push([
                condition.r#type.clone(),
                condition.status.to_string(),
                condition.reason.clone(),
                condition.message.clone(),
            ]);
        }
        table.render()
    })
}

pub(super) async fn image_fs(
    args: &PlainArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let answer = session.ask("ImageFsInfo", session.cri.image_fs_info()).await?;
    let value = || {
        let status = protojson::json("ImageFsInfoResponse", &answer)?;
        Ok(with_info(status, &std::collections::BTreeMap::new()))
    };
    format.print(out, value, || {
        let mut table = Table::new(["FILESYSTEM", "MOUNTPOINT", "USED", "INODES"]);
        let mut push = |kind: &str, usages: &[FilesystemUsage]| {
            for usage in usages {
                table.push([
                    kind.to_owned(),
                    usage.fs_id.clone().unwrap_or_default().mountpoint,
                    size(usage.used_bytes.unwrap_or_default().value),
                    usage.inodes_used.unwrap_or_default().value.to_string(),
                ]);
            }
        };
        push("image", &answer.image_filesystems);
        push("container", &answer.container_filesystems);
        table.render()
    })
}

pub(super) async fn runtime_config(
    args: &PlainArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Json)?;
    let Some(answer) = session.ask("RuntimeConfig", session.cri.runtime_config()).await? else {
        return Err(session.unimplemented("RuntimeConfig").await);
    };
    format.print(
        out,
        || protojson::json("RuntimeConfigResponse", &answer),
        || {
            let mut table = Table::new(["KEY", "VALUE"]);
            let driver =
                answer.linux.as_ref().map(|linux| linux.cgroup_driver().as_str_name().to_lowercase());
            table.push(["cgroup driver".to_owned(), driver.unwrap_or_else(|| "unknown".to_owned())]);
            table.render()
        },
    )
}
