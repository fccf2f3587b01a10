//! `nodectl cri config`: shows and changes `/etc/crictl.yaml`, with crictl's spellings.

use std::{io::Write, path::Path};

use clap::Args;

use super::config_file::{self, KEYS, Kind, Settings};
use crate::{
    cli::output::{self, Table},
    error::CommandError,
};

/// Arguments of `nodectl cri config`.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    /// Print one setting
    #[arg(long, value_name = "KEY", conflicts_with_all = ["set", "list", "pair"])]
    get: Option<String>,
    /// Change settings; may be repeated, or hold several with commas between
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', conflicts_with_all = ["list", "pair"])]
    set: Vec<String>,
    /// Print all settings (the default)
    #[arg(long, conflicts_with = "pair")]
    list: bool,
    /// A setting and its new value, in place of --set
    #[arg(value_names = ["KEY", "VALUE"], num_args = 2)]
    pair: Vec<String>,
}

pub(super) fn run(args: &ConfigArgs, path: &Path, out: &mut dyn Write) -> Result<(), CommandError> {
    let mut changes = Vec::new();
    for text in &args.set {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| CommandError::usage(format!("{text:?} is no KEY=VALUE, as in timeout=10")))?;
        changes.push(checked(key, value)?);
    }
    if let [key, value] = args.pair.as_slice() {
        changes.push(checked(key, value)?);
    }
    if !changes.is_empty() {
        let text = config_file::read(path)?.unwrap_or_default();
        let text = config_file::change(&text, &changes)
            .map_err(|problem| CommandError::usage(format!("{}: {problem}", path.display())))?;
        return config_file::write(path, &text);
    }
    let settings = config_file::load(path)?.unwrap_or_default();
    if let Some(key) = &args.get {
        let (key, kind) = config_file::find(key).map_err(CommandError::usage)?;
        return output::write(out, &format!("{}\n", shown(&settings, key, kind)));
    }
    let mut table = Table::new(["KEY", "VALUE"]);
    for (key, kind) in KEYS {
        table.push([key.to_owned(), shown(&settings, key, kind)]);
    }
    output::write(out, &table.render())
}

fn checked(key: &str, value: &str) -> Result<(&'static str, String), CommandError> {
    let (key, kind) = config_file::find(key.trim()).map_err(CommandError::usage)?;
    let value = config_file::normal(key, kind, value).map_err(CommandError::usage)?;
    Ok((key, value))
}

/// What crictl shows of a setting that is not there.
fn shown(settings: &Settings, key: &str, kind: Kind) -> String {
    let default = match kind {
        Kind::Endpoint => "",
        Kind::Number => "0",
        Kind::Switch => "false",
    };
    settings.get(key).unwrap_or(default).to_owned()
}
