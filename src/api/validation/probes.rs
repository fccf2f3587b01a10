//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Problems, names};

/// What of the pod the checks depend on.
#[derive(Clone, Copy)]
pub(super) struct PodFacts<'a> {
    /// `terminationGracePeriodSeconds`.
    pub(super) grace: Option<i64>,
    /// `os.name`.
    pub(super) os: Option<&'a str>,
}

/// Checks the probes and hooks of a container that may have them.
pub(super) fn check(container: &Container, pod: PodFacts<'_>, path: &str, problems: &mut Problems) {
    for (field, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let path = format!("{path}.{field}");
        check_probe(probe, &path, problems);
        if field != "readinessProbe" && probe.success_threshold.is_some_and(|n| n != 1) {
            problems.invalid(
                format!("{path}.successThreshold"),
                probe.success_threshold.unwrap_or_default(),
                "must be 1",
            );
        }
        if let Some(grace) = probe.termination_grace_period_seconds {
            if field == "readinessProbe" {
                problems.invalid(
                    format!("{path}.terminationGracePeriodSeconds"),
                    grace,
                    "must not be set for readinessProbes",
                );
            } else if grace <= 0 {
                problems.invalid(
                    format!("{path}.terminationGracePeriodSeconds"),
                    grace,
                    "must be greater than 0",
                );
            }
        }
    }
    if let Some(lifecycle) = &container.lifecycle {
        check_lifecycle(lifecycle, pod, &format!("{path}.lifecycle"), problems);
    }
}

fn check_probe(probe: &Probe, path: &str, problems: &mut Problems) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if let Some(value) = value.filter(|v| *v < 0) {
            problems.invalid(format!("{path}.{field}"), value, "must be greater than or equal to 0");
        }
    }
    let kinds =
        [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    exactly_one(&kinds, "exec, httpGet, tcpSocket or grpc", path, problems);
    check_actions(probe.exec.as_ref(), probe.http_get.as_ref(), probe.tcp_socket.as_ref(), path, problems);
    if let Some(grpc) = &probe.grpc {
        check_port(&IntOrString::Int(grpc.port), &format!("{path}.grpc.port"), problems);
    }
}

fn check_lifecycle(lifecycle: &Lifecycle, pod: PodFacts<'_>, path: &str, problems: &mut Problems) {
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            check_hook(hook, pod.grace, &format!("{path}.{field}"), problems);
        }
    }
    if let Some(signal) = lifecycle.stop_signal.as_deref() {
        let path = format!("{path}.stopSignal");
        match pod.os {
            None => problems.forbidden(&path, "may not be set when spec.os.name is not set"),
            Some("windows") => problems.one_of(path, Some(signal), &["SIGTERM", "SIGKILL"]),
            Some(_) if is_signal(signal) => {}
            Some(_) => {
                problems.invalid(path, signal, "must be a signal of Linux, such as SIGTERM or SIGRTMIN+3");
            }
        }
    }
}

/// The signals that the API knows: those with names, and the real-time ones counted from either end.
fn is_signal(name: &str) -> bool {
    const NAMED: [&str; 35] = [
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGCHLD",
        "SIGCLD",
        "SIGCONT",
        "SIGFPE",
        "SIGHUP",
        "SIGILL",
        "SIGINT",
        "SIGIO",
        "SIGIOT",
        "SIGKILL",
        "SIGPIPE",
        "SIGPOLL",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGSEGV",
        "SIGSTKFLT",
        "SIGSTOP",
        "SIGSYS",
        "SIGTERM",
        "SIGTRAP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGRTMIN",
    ];
    let counted = |rest: &str, sign: char, last: u8| {
        rest.strip_prefix(sign)
            .filter(|number| !number.starts_with(['0', '+']))
            .and_then(|number| number.parse::<u8>().ok())
            .is_some_and(|number| number <= last)
    };
    NAMED.contains(&name)
        || name == "SIGRTMAX"
        || name.strip_prefix("SIGRTMIN").is_some_and(|rest| counted(rest, '+', 15))
        || name.strip_prefix("SIGRTMAX").is_some_and(|rest| counted(rest, '-', 14))
}

fn check_hook(hook: &LifecycleHandler, grace: Option<i64>, path: &str, problems: &mut Problems) {
    let kinds =
        [hook.exec.is_some(), hook.http_get.is_some(), hook.tcp_socket.is_some(), hook.sleep.is_some()];
    exactly_one(&kinds, "exec, httpGet, tcpSocket or sleep", path, problems);
    check_actions(hook.exec.as_ref(), hook.http_get.as_ref(), hook.tcp_socket.as_ref(), path, problems);
    if let Some(sleep) = &hook.sleep
        && !(0..=grace.unwrap_or(i64::MAX)).contains(&sleep.seconds)
    {
        problems.invalid(
            format!("{path}.sleep.seconds"),
            sleep.seconds,
            "must be between 0 and terminationGracePeriodSeconds",
        );
    }
}

fn exactly_one(set: &[bool], kinds: &str, path: &str, problems: &mut Problems) {
    match set.iter().filter(|s| **s).count() {
        0 => problems.required(path, &format!("must specify a handler: {kinds}")),
        1 => {}
        _ => problems.forbidden(path, &format!("may not specify more than one handler of {kinds}")),
    }
}

fn check_actions(
    exec: Option<&ExecAction>,
    http_get: Option<&HTTPGetAction>,
    tcp_socket: Option<&TCPSocketAction>,
    path: &str,
    problems: &mut Problems,
) {
    if exec.is_some_and(|e| e.command.as_ref().is_none_or(Vec::is_empty)) {
        problems.required(format!("{path}.exec.command"), "");
    }
    if let Some(get) = http_get {
        check_port(&get.port, &format!("{path}.httpGet.port"), problems);
        problems.one_of(format!("{path}.httpGet.scheme"), get.scheme.as_deref(), &["HTTP", "HTTPS"]);
        for (index, header) in get.http_headers.iter().flatten().enumerate() {
            if header.name.is_empty()
                || !header.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                problems.invalid(
                    format!("{path}.httpGet.httpHeaders[{index}].name"),
                    &header.name,
                    "must consist of letters, digits, '-' or '_'",
                );
            }
        }
    }
    if let Some(tcp) = tcp_socket {
        check_port(&tcp.port, &format!("{path}.tcpSocket.port"), problems);
    }
}

fn check_port(port: &IntOrString, path: &str, problems: &mut Problems) {
    match port {
        IntOrString::Int(number) if (1..=65535).contains(number) => {}
        IntOrString::Int(number) => problems.invalid(path, number, "must be between 1 and 65535"),
        IntOrString::String(name) => problems.name(path, name, names::port_name),
    }
}
