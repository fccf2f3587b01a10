//! Containers, init containers and sidecars.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerRestartRule, EnvVar, PodSpec};

use super::{Problems, Unique, VolumeNames, downward, names, probes, resources, security, volumes};

/// The most restart rules of one container.
const MAX_RESTART_RULES: usize = 20;
/// The most exit codes of one restart rule.
const MAX_EXIT_CODES: usize = 255;

/// Checks every container of the pod.
pub(super) fn check(spec: &PodSpec, all_volumes: &VolumeNames<'_>, problems: &mut Problems) {
    if spec.containers.is_empty() {
        problems.required("spec.containers", "a pod needs at least one container");
    }
    let pod = probes::PodFacts {
        grace: spec.termination_grace_period_seconds,
        os: spec.os.as_ref().map(|os| os.name.as_str()),
    };
    let host_network = spec.host_network == Some(true);
    let mut all_names = Unique::default();
    let mut host_ports = HashSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = format!("spec.containers[{index}]");
        check_common(container, spec, all_volumes, &mut all_names, &path, problems);
        security::check_container(spec, container, &path, problems);
        probes::check(container, pod, &path, problems);
        check_ports(container, host_network, &mut host_ports, &path, problems);
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = format!("spec.initContainers[{index}]");
        check_common(container, spec, all_volumes, &mut all_names, &path, problems);
        security::check_container(spec, container, &path, problems);
        if container.restart_policy.as_deref() == Some("Always") {
            probes::check(container, pod, &path, problems);
        } else {
            for (field, set) in [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ] {
                if set {
                    problems.forbidden(
                        format!("{path}.{field}"),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
        // Init containers run one by one, so that each may use a host port again.
        check_ports(container, host_network, &mut HashSet::new(), &path, problems);
    }
}

fn check_common(
    container: &Container,
    spec: &PodSpec,
    all_volumes: &VolumeNames<'_>,
    all_names: &mut Unique,
    path: &str,
    problems: &mut Problems,
) {
    if container.name.is_empty() {
        problems.required(format!("{path}.name"), "");
    } else {
        problems.name(format!("{path}.name"), &container.name, names::dns1123_label);
        all_names.add(format!("{path}.name"), &container.name, problems);
    }
    match container.image.as_deref().unwrap_or_default() {
        "" => problems.required(format!("{path}.image"), ""),
        image if image.trim() != image => {
            problems.invalid(format!("{path}.image"), image, "must not have leading or trailing white space");
        }
        _ => {}
    }
    problems.one_of(
        format!("{path}.imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    );
    problems.one_of(
        format!("{path}.terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
    );
    check_restart_rules(container, path, problems);
    check_env(container, spec, path, problems);
    check_no_zero_bytes(container, path, problems);
    volumes::check_mounts(container, all_volumes, path, problems);
    if let Some(requirements) = &container.resources {
        resources::check(requirements, &format!("{path}.resources"), problems);
    }
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        let path = format!("{path}.resizePolicy[{index}]");
        problems.one_of(format!("{path}.resourceName"), Some(&policy.resource_name), &["cpu", "memory"]);
        problems.one_of(
            format!("{path}.restartPolicy"),
            Some(&policy.restart_policy),
            &["NotRequired", "RestartContainer"],
        );
    }
}

/// A zero byte ends a C string: the process would get another argument than the one written.
fn check_no_zero_bytes(container: &Container, path: &str, problems: &mut Problems) {
    for (field, list) in [("command", &container.command), ("args", &container.args)] {
        for (index, text) in list.iter().flatten().enumerate() {
            if text.contains('\0') {
                problems.invalid(format!("{path}.{field}[{index}]"), text, "must not contain a zero byte");
            }
        }
    }
    if let Some(folder) = container.working_dir.as_deref().filter(|d| d.contains('\0')) {
        problems.invalid(format!("{path}.workingDir"), folder, "must not contain a zero byte");
    }
}

fn check_restart_rules(container: &Container, path: &str, problems: &mut Problems) {
    problems.one_of(
        format!("{path}.restartPolicy"),
        container.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
    );
    let Some(rules) = container.restart_policy_rules.as_ref().filter(|r| !r.is_empty()) else { return };
    if container.restart_policy.is_none() {
        problems.required(format!("{path}.restartPolicy"), "must be set when restartPolicyRules are");
    }
    if rules.len() > MAX_RESTART_RULES {
        problems.add(
            format!("{path}.restartPolicyRules"),
            format!("Too many: {}: must have at most {MAX_RESTART_RULES} items", rules.len()),
        );
    }
    for (index, rule) in rules.iter().enumerate() {
        check_restart_rule(rule, &format!("{path}.restartPolicyRules[{index}]"), problems);
    }
}

fn check_restart_rule(rule: &ContainerRestartRule, path: &str, problems: &mut Problems) {
    problems.one_of(format!("{path}.action"), Some(&rule.action), &["Restart"]);
    let Some(codes) = &rule.exit_codes else {
        problems.required(format!("{path}.exitCodes"), "");
        return;
    };
    problems.one_of(format!("{path}.exitCodes.operator"), Some(&codes.operator), &["In", "NotIn"]);
    let values = codes.values.as_deref().unwrap_or_default();
    if values.is_empty() {
        problems.required(format!("{path}.exitCodes.values"), "a rule without exit codes says nothing");
    }
    if values.len() > MAX_EXIT_CODES {
        problems.add(
            format!("{path}.exitCodes.values"),
            format!("Too many: {}: must have at most {MAX_EXIT_CODES} items", values.len()),
        );
    }
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if !seen.insert(value) {
            problems.duplicate(format!("{path}.exitCodes.values[{index}]"), value);
        }
    }
}

fn check_env(container: &Container, spec: &PodSpec, path: &str, problems: &mut Problems) {
    for (index, env) in container.env.iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        if env.name.is_empty() {
            problems.required(format!("{path}.name"), "");
        } else {
            problems.name(format!("{path}.name"), &env.name, names::env_name);
        }
        if env.value.as_deref().is_some_and(|v| v.contains('\0')) {
            // The value itself is not shown: it may be a secret.
            problems.add(format!("{path}.value"), "Invalid value: must not contain a zero byte".to_owned());
        }
        check_env_source(env, spec, &path, problems);
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            problems.name(format!("{path}.prefix"), prefix, names::env_name);
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => problems.required(path, "must specify one of: configMapRef, secretRef"),
            (Some(_), Some(_)) => problems.forbidden(path, "may not have more than one source"),
            _ => {}
        }
    }
}

fn check_env_source(env: &EnvVar, spec: &PodSpec, path: &str, problems: &mut Problems) {
    let Some(from) = &env.value_from else { return };
    let path = format!("{path}.valueFrom");
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    match sources.iter().filter(|s| **s).count() {
        0 => problems.required(
            path.clone(),
            "must specify one of: fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef, fileKeyRef",
        ),
        1 => {}
        _ => problems.forbidden(path.clone(), "may not have more than one source"),
    }
    if env.value.as_deref().is_some_and(|v| !v.is_empty()) {
        problems.forbidden(path.clone(), "may not be set together with value");
    }
    if let Some(field) = &from.field_ref {
        downward::check_variable_field(&field.field_path, &format!("{path}.fieldRef.fieldPath"), problems);
        problems.one_of(format!("{path}.fieldRef.apiVersion"), field.api_version.as_deref(), &["v1"]);
    }
    if let Some(resource) = &from.resource_field_ref {
        downward::check_resource(resource, false, &format!("{path}.resourceFieldRef"), problems);
    }
    if let Some(file) = &from.file_key_ref {
        downward::check_file_key(file, spec, &format!("{path}.fileKeyRef"), problems);
    }
}

fn check_ports(
    container: &Container,
    host_network: bool,
    host_ports: &mut HashSet<String>,
    path: &str,
    problems: &mut Problems,
) {
    let mut port_names = Unique::default();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            problems.name(format!("{path}.name"), name, names::port_name);
            port_names.add(format!("{path}.name"), name, problems);
        }
        check_port(port, host_network, &path, problems);
        let host_port = port.host_port.unwrap_or_default();
        if host_port != 0 {
            let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            if !host_ports.insert(format!("{protocol}/{ip}/{host_port}")) {
                problems.duplicate(format!("{path}.hostPort"), format_args!("{protocol}/{ip}:{host_port}"));
            }
        }
    }
}

fn check_port(port: &ContainerPort, host_network: bool, path: &str, problems: &mut Problems) {
    if port.container_port == 0 {
        problems.required(format!("{path}.containerPort"), "");
    } else if !(1..=65535).contains(&port.container_port) {
        problems.invalid(format!("{path}.containerPort"), port.container_port, "must be between 1 and 65535");
    }
    if let Some(host_port) = port.host_port {
        if !(0..=65535).contains(&host_port) {
            problems.invalid(format!("{path}.hostPort"), host_port, "must be between 1 and 65535");
        } else if host_network && host_port != port.container_port {
            problems.invalid(
                format!("{path}.hostPort"),
                host_port,
                "must match containerPort when hostNetwork is true",
            );
        }
    }
    problems.one_of(format!("{path}.protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
    if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty())
        && ip.parse::<std::net::IpAddr>().is_err()
    {
        problems.invalid(format!("{path}.hostIP"), ip, "must be a valid IP address");
    }
}
