//! kubelet's flags as clap arguments, made from the table in [`crate::config`].
//!
//! clap takes the command line apart and writes help and completions; what a value means is read in
//! the library. Flags that act, or that are nodectl's own, are shown in groups; all others are
//! accepted and hidden.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{FlagSpec, FlagStatus, Support, Target, find_flag, flags, normalize_flag};

/// Adds every flag of kubelet and of `nodectl run` to `command`.
#[must_use]
pub fn augment(command: Command) -> Command {
    command.args(clap_args())
}

/// Adds the flags that the help shows.
#[must_use]
pub fn augment_shown(command: Command) -> Command {
    command.args(flags().iter().filter(|spec| shown(spec)).map(arg))
}

/// Every flag as an argument, in the order of the table.
pub fn clap_args() -> Vec<Arg> {
    flags().iter().map(arg).collect()
}

fn arg(spec: &'static FlagSpec) -> Arg {
    let arg = Arg::new(spec.name)
        .long(spec.name)
        .value_name(spec.syntax.value_name())
        .help(help(spec))
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .hide(!shown(spec))
        .help_heading(heading(spec));
    let arg = if spec.name == "v" { arg.short('v') } else { arg };
    match spec.bare() {
        // As in kubelet, a boolean takes its value only behind an equals sign.
        Some(value) => arg.num_args(0..=1).require_equals(true).default_missing_value(value),
        None => arg.num_args(1),
    }
}

fn shown(spec: &FlagSpec) -> bool {
    spec.support() == Support::Acts
}

fn heading(spec: &FlagSpec) -> &'static str {
    match (spec.target, spec.name) {
        _ if spec.is_own() => "nodectl's own",
        (_, "config" | "config-dir" | "feature-gates") => "Configuration",
        (_, "pod-manifest-path" | "manifest-url" | "manifest-url-header") => "Static pods",
        (_, name) if name.ends_with("-frequency") => "Static pods",
        (_, name) if name.ends_with("endpoint") || name.starts_with("runtime") => "Runtime",
        (_, "v" | "logging-format") => "Logging",
        (Target::Agent, _) => "Node",
        _ => "Pods and node",
    }
}

fn help(spec: &FlagSpec) -> String {
    match (spec.status, spec.target) {
        (FlagStatus::Key, Target::Key(key)) => format!("{} [key: {key}]", spec.help),
        _ => spec.help.to_owned(),
    }
}

/// Writes the names of long flags with dashes for underscores, which kubelet accepts too. Values and
/// what follows `--` stay as they are.
#[must_use]
pub fn normalize_args(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = false;
    args.into_iter()
        .map(|arg| {
            rest |= arg == OsStr::new("--");
            if rest { arg } else { normalized(&arg).unwrap_or(arg) }
        })
        .collect()
}

fn normalized(arg: &OsStr) -> Option<OsString> {
    let text = arg.to_str()?.strip_prefix("--")?;
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let name = normalize_flag(name);
    find_flag(&name)?;
    Some(match value {
        Some(value) => format!("--{name}={value}").into(),
        None => format!("--{name}").into(),
    })
}

/// The flags of a parsed command line as names and values, those of one flag in their order: what
/// [`crate::config::load`] takes.
pub fn given(matches: &ArgMatches) -> Vec<(String, String)> {
    let values = |name: &'static str| matches.get_many::<String>(name).into_iter().flatten();
    flags()
        .iter()
        .flat_map(|spec| values(spec.name).map(|value| (spec.name.to_owned(), value.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{WarningKind, load_on};

    fn command() -> Command {
        augment(Command::new("run"))
    }

    fn parse(line: &[&str]) -> Result<Vec<(String, String)>, clap::Error> {
        let args = normalize_args(std::iter::once("run").chain(line.iter().copied()).map(OsString::from));
        command().try_get_matches_from(args).map(|matches| given(&matches))
    }

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn kubelets_ways_to_write_a_flag_are_accepted() {
        for (line, expected) in [
            (&["--root-dir", "/r"][..], ("root-dir", "/r")),
            (&["--root-dir=/r"], ("root-dir", "/r")),
            (&["--root_dir=/r"], ("root-dir", "/r")),
            (&["--serialize-image-pulls"], ("serialize-image-pulls", "true")),
            (&["--offline-pods"], ("offline-pods", "tolerated")),
            (&["--offline-pods=always"], ("offline-pods", "always")),
            (&["--serialize-image-pulls=false"], ("serialize-image-pulls", "false")),
            (&["-v", "2"], ("v", "2")),
            (&["-v=2"], ("v", "2")),
            (&["-v2"], ("v", "2")),
            (&["--v=2"], ("v", "2")),
            (&["--oom-score-adj", "-5"], ("oom-score-adj", "-5")),
            (&["--eviction-hard=memory.available<100Mi"], ("eviction-hard", "memory.available<100Mi")),
            (&["--storage_driver_db=x"], ("storage-driver-db", "x")),
            (&["--container-runtime-endpoint", ""], ("container-runtime-endpoint", "")),
        ] {
            let given = parse(line).unwrap();
            assert_eq!(given, [(expected.0.to_owned(), expected.1.to_owned())], "{line:?}");
        }
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error_with_a_suggestion() {
        let error = parse(&["--pod-manifest-pth=/m"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--pod-manifest-path"), "{error}");
    }

    #[test]
    fn help_groups_what_acts_and_hides_the_rest() {
        let help = command().render_long_help().to_string();
        for word in ["--pod-manifest-path", "--operator-socket", "Static pods:", "nodectl's own:"] {
            assert!(help.contains(word), "{word} missing in\n{help}");
        }
        for word in ["--network-plugin", "--docker", "--kubelet-cgroups"] {
            assert!(!help.contains(word), "{word} shown");
        }
    }

    /// The lines that kubeadm 1.20 writes for a Docker node, environment files put together.
    #[test]
    fn kubeadms_command_lines_of_1_20_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n")
            .unwrap();
        let config = format!("--config={}", file.display());
        let kubeconfig = [
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
        ];
        for (environment, removed) in [
            (&["--network-plugin=cni", "--pod-infra-container-image=k8s.gcr.io/pause:3.2"][..], 2),
            (
                &[
                    "--cgroup-driver=systemd",
                    "--network-plugin=cni",
                    "--pod-infra-container-image=k8s.gcr.io/pause:3.2",
                ],
                2,
            ),
            (
                &[
                    "--container-runtime=remote",
                    "--container-runtime-endpoint=/run/containerd/containerd.sock",
                    "--node-labels=role=worker,zone=a",
                ],
                1,
            ),
        ] {
            let line: Vec<&str> = kubeconfig
                .iter()
                .copied()
                .chain([config.as_str()])
                .chain(environment.iter().copied())
                .collect();
            let given = parse(&line).unwrap();
            let (agent, warnings) = load_on(&given, &|| Ok("Node1".to_owned())).unwrap();
            assert_eq!(agent.node_name, "node1");
            let gone = warnings.iter().filter(|warning| warning.kind == WarningKind::Removed);
            assert_eq!(gone.clone().count(), removed, "{environment:?}");
            assert!(gone.clone().all(|warning| warning.message.contains("by Kubernetes 1.")));
        }
    }
}
