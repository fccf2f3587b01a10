//! `nodectl certs`: the node's certificates, and their renewal by hand.
//!
//! All is read from the files, so that it works without an agent and without an API server: that is when somebody
//! wants to know.

mod entry;
mod inventory;
mod renew;
mod setting;

use std::{io::Write, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use self::{entry::Entry, setting::Setting};
use super::output::{self, OutputFormat, Table, human_duration};
use crate::{error::CommandError, server::local::DEFAULT_SOCKET};

/// Lists the node's certificates: whom they are for, until when, who renews them, and what is wrong.
///
/// Where they are is taken from the agent that runs on this machine, else from kubeadm's places.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or invalid configuration, 3 a renewal was refused because nothing
/// would use the new certificate.
#[derive(Debug, Clone, Args)]
pub struct CertsArgs {
    /// What to do; without it the certificates are listed
    #[command(subcommand)]
    pub command: Option<CertsCommand>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
    /// Where the certificates are
    #[command(flatten)]
    pub places: PlacesArgs,
}

/// Where certificates are.
#[derive(Debug, Clone, Args)]
pub struct PlacesArgs {
    /// The agent's configuration file; default: that of the running agent, else /var/lib/kubelet/config.yaml
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The node's kubeconfig; default: that of the running agent, else /etc/kubernetes/kubelet.conf
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig that the first certificate is got with; default: that of the running agent, else
    /// /etc/kubernetes/bootstrap-kubelet.conf
    #[arg(long, value_name = "FILE", global = true)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Folder of the node's certificates; default: that of the running agent, else /var/lib/kubelet/pki
    #[arg(long, value_name = "FOLDER", global = true)]
    pub cert_dir: Option<PathBuf>,
    /// The node's name; default: that of the running agent, else the machine's host name
    #[arg(long, value_name = "NAME", global = true)]
    pub hostname_override: Option<String>,
    /// Folder of the control plane's certificates
    #[arg(long, value_name = "FOLDER", default_value = "/etc/kubernetes/pki", global = true)]
    pub pki_dir: PathBuf,
    /// The agent's operator socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    pub socket: PathBuf,
}

/// What may be done with certificates.
#[derive(Debug, Clone, Subcommand)]
pub enum CertsCommand {
    /// Renew the node's certificates now; a running agent takes the new ones within seconds
    Renew(RenewArgs),
}

/// Which to renew.
#[derive(Debug, Clone, Args)]
pub struct RenewArgs {
    /// Which certificate; default: both, the serving one if the node gets it from the API server or signs it itself
    #[arg(value_enum)]
    pub which: Option<Which>,
    /// Seconds to wait for the approval
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// A certificate of the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The one that it shows to the API server.
    Client,
    /// The one that it shows to those who connect to it.
    Server,
}

/// Lists, or renews.
///
/// # Errors
/// [`CommandError`] as the exit codes say.
pub async fn run(args: CertsArgs, out: &mut impl Write, err: &mut impl Write) -> Result<(), CommandError> {
    let setting = Setting::of(&args.places)?;
    match &args.command {
        Some(CertsCommand::Renew(renew)) => renew::run(&setting, renew, out, err).await,
        None => {
            let now = Timestamp::now();
            let entries = inventory::collect(&setting, now);
            output::write(out, &render(&entries, args.output, now)?)?;
            if entries.is_empty() && matches!(args.output, OutputFormat::Table | OutputFormat::Wide) {
                output::write(err, "no certificates\n")?;
            }
            Ok(())
        }
    }
}

fn render(entries: &[Entry], format: OutputFormat, now: Timestamp) -> Result<String, CommandError> {
    match format {
        OutputFormat::Table | OutputFormat::Wide if entries.is_empty() => Ok(String::new()),
        OutputFormat::Table => {
            let mut table = Table::new(["NAME", "SUBJECT", "EXPIRES", "REMAINING", "RENEWED BY", "PROBLEMS"]);
            for entry in entries {
                let [name, subject, _issuer, expires, remaining, renewed_by, problems] = row(entry, now);
                table.push([name, subject, expires, remaining, renewed_by, problems]);
            }
            Ok(table.render())
        }
        OutputFormat::Wide => {
            let mut table = Table::new([
                "NAME",
                "SUBJECT",
                "ISSUER",
                "EXPIRES",
                "REMAINING",
                "RENEWED BY",
                "PROBLEMS",
                "NAMES",
                "RENEWAL",
                "FILE",
            ]);
            for entry in entries {
                let details = entry.details.as_ref();
                let names = details.map(|details| details.names().join(",")).unwrap_or_default();
                let renewal = entry.renews_at.map(|at| at.to_string());
                let more =
                    [dashed(names), dashed(renewal.unwrap_or_default()), entry.file.display().to_string()];
                table.push(row(entry, now).into_iter().chain(more));
            }
            Ok(table.render())
        }
        OutputFormat::Json => output::json(&json!({ "certificates": entries })),
        OutputFormat::Yaml => output::yaml(&json!({ "certificates": entries })),
    }
}

fn row(entry: &Entry, now: Timestamp) -> [String; 7] {
    let of =
        |text: fn(&entry::Details) -> String| dashed(entry.details.as_ref().map(text).unwrap_or_default());
    let remaining = entry.details.as_ref().map(|details| {
        let left = details.not_after.as_second() - now.as_second();
        if left > 0 { human_duration(left) } else { "expired".to_owned() }
    });
    [
        entry.name.clone(),
        of(|details| details.subject.clone()),
        of(|details| details.issuer.clone()),
        of(|details| second(details.not_after).to_string()),
        dashed(remaining.unwrap_or_default()),
        entry.renewed_by.clone(),
        dashed(entry.problems.join("; ")),
    ]
}

fn dashed(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
