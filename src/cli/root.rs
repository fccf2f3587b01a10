//! The root of the command line: which subcommands there are, and what each of them runs.

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser};
use clap_complete::Shell;

use super::{certs, complete, config, cri, explain, kubelet_flags, output, pods, run, switch};
use crate::error::{CommandError, ErrorKind};

/// A Kubernetes node in one binary: node agent, CRI inspector, runtime migration.
#[derive(Debug, Parser)]
#[command(name = "nodectl", version, propagate_version = true, arg_required_else_help = true)]
struct Root {}

/// Arguments of `nodectl completions`.
#[derive(Debug, Args)]
struct CompletionsArgs {
    /// The shell to write for.
    shell: Shell,
}

/// The whole command line; completions, manual pages and the tests are made from it.
pub fn command() -> Command {
    Root::command()
        .subcommand(run::command())
        .subcommand(
            pods::PodsArgs::augment_args(Command::new("pods"))
                .about("List the pods of the agent on this node"),
        )
        .subcommand(
            explain::ExplainArgs::augment_args(Command::new("explain"))
                .about("Say where a pod stands: its step, last error, and what comes next"),
        )
        .subcommand(
            certs::CertsArgs::augment_args(Command::new("certs"))
                .about("List this node's certificates with their expiry, or renew them"),
        )
        .subcommand(cri_command())
        .subcommand(
            switch::args::SwitchArgs::augment_args(Command::new("switch-runtime"))
                .about("Move this node from Docker to containerd, or put everything back"),
        )
        .subcommand(
            config::ConfigArgs::augment_args(Command::new("config"))
                .about("Print default configuration, or check configuration files"),
        )
        // Described last: the arguments' own comments would stand here else.
        .subcommand(
            CompletionsArgs::augment_args(Command::new("completions"))
                .about("Write a completion script for a shell to standard output"),
        )
}

fn cri_command() -> Command {
    cri::CriArgs::augment_args(Command::new("cri"))
        .about("Look into a container runtime and change what is in it, with crictl's verbs and flags")
}

/// As much of [`command`] as these arguments need. `nodectl cri` is run by scripts and by hand over and over,
/// and kubelet's hundreds of flags would be made ready for nothing.
fn needed_command(args: &[OsString]) -> Command {
    match args.get(1) {
        Some(verb) if verb == "cri" => Root::command().subcommand(cri_command()),
        _ => command(),
    }
}

/// The command line that is offered: [`command`] without kubelet's flags that do nothing here. They are
/// accepted, but a completion script would list some two hundred of them.
pub fn offered_command() -> Command {
    command().mut_subcommand("run", |_| run::offered_command())
}

/// Parses the arguments, runs what they ask for, prints the error, and answers the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|verb| verb == cri::terminal_guard::VERB) {
        return cri::terminal_guard::main(args.get(2..).unwrap_or_default());
    }
    if args.get(1).is_some_and(|verb| verb == "run") {
        args = kubelet_flags::normalize_args(args);
    }
    // No subcommand of the command line: what the completion scripts call at each press of Tab.
    if args.get(1).is_some_and(|verb| verb == complete::VERB) {
        let mut out = std::io::stdout().lock();
        complete::run(&args[2..], &mut out);
        return ExitCode::SUCCESS;
    }
    let matches = match needed_command(&args).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let code = if error.use_stderr() { ErrorKind::Usage.code() } else { 0 };
            // There is nobody to tell that telling failed.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let mut stderr = std::io::stderr();
    match dispatch(&matches) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(stderr, "error: {error}").ok();
            error.exit_code()
        }
    }
}

fn dispatch(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr());
    match matches.subcommand() {
        Some(("run", matches)) => {
            drop(stdout);
            run::run(matches)?;
        }
        Some(("pods", matches)) => {
            let args = pods::PodsArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
            wait_for(pods::run(args, &mut stdout, &mut stderr))?;
        }
        Some(("explain", matches)) => {
            let args = explain::ExplainArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
            wait_for(explain::run(args, &mut stdout, &mut stderr))?;
        }
        Some(("certs", matches)) => {
            let args = certs::CertsArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
            wait_for(certs::run(args, &mut stdout, &mut stderr))?;
        }
        Some(("cri", matches)) => {
            return wait_for(cri::run(matches, &mut stdout, &mut stderr));
        }
        Some(("switch-runtime", matches)) => {
            let args = switch::args::SwitchArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
            wait_for(switch::run(&args, &mut stdout, &mut stderr))?;
        }
        Some(("config", matches)) => {
            let args = config::ConfigArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
            return configure(&args, &mut stdout);
        }
        Some(("completions", matches)) => {
            let args = CompletionsArgs::from_arg_matches(matches).map_err(CommandError::usage)?;
            output::write(&mut stdout, complete::script(args.shell))?;
        }
        _ => return Err(CommandError::usage("no subcommand is given; see nodectl --help")),
    }
    Ok(ExitCode::SUCCESS)
}

fn configure(args: &config::ConfigArgs, out: &mut impl Write) -> Result<ExitCode, CommandError> {
    match &args.command {
        config::ConfigCommand::Defaults => {
            let text = config::defaults().map_err(CommandError::failed)?;
            out.write_all(text.as_bytes()).map_err(CommandError::failed)?;
            Ok(ExitCode::SUCCESS)
        }
        config::ConfigCommand::Validate(args) => {
            let report = config::validate(args);
            out.write_all(report.text.as_bytes()).map_err(CommandError::failed)?;
            Ok(ExitCode::from(if report.valid { 0 } else { ErrorKind::Usage.code() }))
        }
    }
}

/// Runs a command that asks the agent, on this thread.
fn wait_for<T>(command: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::failed)?
        .block_on(command)
}

/// Whoever read the output has seen enough (`nodectl pods | head -1`).
fn is_broken_pipe(error: &CommandError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error.source);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
