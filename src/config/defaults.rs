//! What kubelet 1.36 assumes where a configuration says nothing.
//!
//! Kubelet's Go type has two sorts of keys. In a plain field zero and absent are the same, so an
//! explicit `0` or `""` is replaced by the default too; in a pointer field an explicit zero counts.
//! [`plain`] and [`pointer`] keep that difference. Nothing here looks at the machine.

use super::duration::GoDuration;
use super::gates::FeatureGates;
use super::types::{FlushFrequency, KubeletConfiguration};

/// The kind of every kubelet configuration document.
pub const KIND: &str = "KubeletConfiguration";
/// The apiVersion of every kubelet configuration document.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Longest crash-loop delay unless configured, as in kubelet.
pub(super) const MAX_CONTAINER_BACKOFF: GoDuration = GoDuration::from_secs(300);

/// Fills a plain field: the type's zero counts as absent.
fn plain<T: Default + PartialEq>(field: &mut Option<T>, default: T) {
    if field.as_ref().is_none_or(|value| *value == T::default()) {
        *field = Some(default);
    }
}

/// Fills a pointer field: any value that was given stays.
fn pointer<T>(field: &mut Option<T>, default: T) {
    field.get_or_insert(default);
}

/// Fills every absent key of `config` for which kubelet has a default. `gates` are the gates that
/// will be in force, since two defaults hang on one.
pub fn apply(config: &mut KubeletConfiguration, gates: &FeatureGates) {
    pointer(&mut config.api_version, API_VERSION.to_owned());
    pointer(&mut config.kind, KIND.to_owned());
    server(config);
    node(config);
    resources(config);
    containers(config);
    if gates.enabled("KubeletCrashLoopBackOffMax") {
        pointer(&mut config.crash_loop_back_off.max_container_restart_period, MAX_CONTAINER_BACKOFF);
    }
    if gates.enabled("KubeletEnsureSecretPulledImages") {
        plain(
            &mut config.image_pull_credentials_verification_policy,
            "NeverVerifyPreloadedImages".to_owned(),
        );
    }
}

/// kubelet's configuration where nothing is configured.
pub fn defaulted() -> KubeletConfiguration {
    let mut config = KubeletConfiguration::default();
    apply(&mut config, &FeatureGates::default());
    config
}

fn server(config: &mut KubeletConfiguration) {
    pointer(&mut config.enable_server, true);
    plain(&mut config.address, "0.0.0.0".to_owned());
    plain(&mut config.port, 10250);
    pointer(&mut config.authentication.anonymous.enabled, false);
    pointer(&mut config.authentication.webhook.enabled, true);
    plain(&mut config.authentication.webhook.cache_ttl, GoDuration::from_secs(120));
    plain(&mut config.authorization.mode, "Webhook".to_owned());
    plain(&mut config.authorization.webhook.cache_authorized_ttl, GoDuration::from_secs(300));
    plain(&mut config.authorization.webhook.cache_unauthorized_ttl, GoDuration::from_secs(30));
    pointer(&mut config.event_record_qps, 50);
    plain(&mut config.event_burst, 100);
    pointer(&mut config.enable_debugging_handlers, true);
    pointer(&mut config.healthz_port, 10248);
    plain(&mut config.healthz_bind_address, "127.0.0.1".to_owned());
    pointer(&mut config.oom_score_adj, -999);
    plain(&mut config.streaming_connection_idle_timeout, GoDuration::from_secs(4 * 3600));
    plain(&mut config.content_type, "application/vnd.kubernetes.protobuf".to_owned());
    pointer(&mut config.kube_api_qps, 50);
    plain(&mut config.kube_api_burst, 100);
    plain(&mut config.max_open_files, 1_000_000);
    pointer(&mut config.enable_system_log_handler, true);
    pointer(&mut config.enable_profiling_handler, true);
    pointer(&mut config.enable_debug_flags_handler, true);
    logging(config);
}

fn logging(config: &mut KubeletConfiguration) {
    plain(&mut config.logging.format, "text".to_owned());
    pointer(&mut config.logging.flush_frequency, FlushFrequency::Duration(GoDuration::from_secs(5)));
    pointer(&mut config.logging.verbosity, 0);
    for format in [&mut config.logging.options.text, &mut config.logging.options.json] {
        pointer(&mut format.split_stream, false);
        pointer(&mut format.info_buffer_size, "0".to_owned());
    }
}

fn node(config: &mut KubeletConfiguration) {
    // An explicit update frequency is the report frequency too, as in releases that had only one.
    let report = config
        .node_status_update_frequency
        .filter(|frequency| !frequency.is_zero())
        .unwrap_or(GoDuration::from_secs(300));
    plain(&mut config.node_status_report_frequency, report);
    plain(&mut config.node_status_update_frequency, GoDuration::from_secs(10));
    plain(&mut config.node_lease_duration_seconds, 40);
    pointer(&mut config.node_status_max_images, 50);
    pointer(&mut config.register_node, true);
    plain(&mut config.max_pods, 110);
    pointer(&mut config.enable_controller_attach_detach, true);
    pointer(&mut config.fail_swap_on, true);
    pointer(&mut config.fail_cgroup_v1, true);
    pointer(&mut config.local_storage_capacity_isolation, true);
    plain(&mut config.hairpin_mode, "promiscuous-bridge".to_owned());
    pointer(&mut config.make_iptables_util_chains, true);
    pointer(&mut config.iptables_masquerade_bit, 14);
    pointer(&mut config.iptables_drop_bit, 15);
    plain(&mut config.volume_plugin_dir, "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".to_owned());
    plain(&mut config.volume_stats_agg_period, GoDuration::from_secs(60));
}

fn resources(config: &mut KubeletConfiguration) {
    pointer(&mut config.cgroups_per_qos, true);
    plain(&mut config.cgroup_driver, "cgroupfs".to_owned());
    plain(&mut config.cpu_manager_policy, "none".to_owned());
    plain(&mut config.cpu_manager_reconcile_period, GoDuration::from_secs(10));
    plain(&mut config.dra_manager_reconcile_period, GoDuration::from_secs(60));
    plain(&mut config.memory_manager_policy, "None".to_owned());
    plain(&mut config.topology_manager_policy, "none".to_owned());
    plain(&mut config.topology_manager_scope, "container".to_owned());
    pointer(&mut config.cpu_cfs_quota, true);
    pointer(&mut config.cpu_cfs_quota_period, GoDuration::from_millis(100));
    pointer(&mut config.memory_throttling_factor, 0.9);
    plain(&mut config.memory_reservation_policy, "None".to_owned());
    if config.pod_pids_limit.is_none_or(|limit| limit < 0) {
        config.pod_pids_limit = Some(-1);
    }
    plain(&mut config.eviction_pressure_transition_period, GoDuration::from_secs(300));
    pointer(&mut config.merge_default_eviction_settings, false);
    pointer(&mut config.enforce_node_allocatable, vec!["pods".to_owned()]);
    plain(&mut config.config_map_and_secret_change_detection_strategy, "Watch".to_owned());
    eviction(config);
}

/// kubelet fills the hard thresholds outside its defaulting function, on Linux to these.
fn eviction(config: &mut KubeletConfiguration) {
    const HARD: [(&str, &str); 5] = [
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
    ];
    let merge = config.merge_default_eviction_settings == Some(true);
    match &mut config.eviction_hard {
        Some(given) if merge => {
            for (signal, threshold) in HARD {
                given.entry(signal.to_owned()).or_insert_with(|| threshold.to_owned());
            }
        }
        Some(_) => {}
        empty @ None => {
            *empty = Some(HARD.iter().map(|(s, t)| ((*s).to_owned(), (*t).to_owned())).collect());
        }
    }
}

fn containers(config: &mut KubeletConfiguration) {
    plain(&mut config.pod_logs_dir, "/var/log/pods".to_owned());
    plain(&mut config.sync_frequency, GoDuration::from_secs(60));
    plain(&mut config.file_check_frequency, GoDuration::from_secs(20));
    plain(&mut config.http_check_frequency, GoDuration::from_secs(20));
    pointer(&mut config.registry_pull_qps, 5);
    plain(&mut config.registry_burst, 10);
    plain(&mut config.image_minimum_gc_age, GoDuration::from_secs(120));
    pointer(&mut config.image_gc_high_threshold_percent, 85);
    pointer(&mut config.image_gc_low_threshold_percent, 80);
    plain(&mut config.runtime_request_timeout, GoDuration::from_secs(120));
    pointer(&mut config.resolv_conf, "/etc/resolv.conf".to_owned());
    // A bound over one says that pulls are to run in parallel.
    let parallel = config.max_parallel_image_pulls.is_some_and(|bound| bound >= 2);
    pointer(&mut config.serialize_image_pulls, !parallel);
    plain(&mut config.container_log_max_size, "10Mi".to_owned());
    pointer(&mut config.container_log_max_files, 5);
    pointer(&mut config.container_log_max_workers, 1);
    pointer(&mut config.container_log_monitor_interval, GoDuration::from_secs(10));
    pointer(&mut config.seccomp_default, false);
    plain(&mut config.container_runtime_endpoint, "unix:///run/containerd/containerd.sock".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_counts_as_absent_only_in_plain_fields() {
        let mut config = KubeletConfiguration {
            max_pods: Some(0),
            healthz_port: Some(0),
            sync_frequency: Some(GoDuration::ZERO),
            resolv_conf: Some(String::new()),
            cgroup_driver: Some(String::new()),
            ..KubeletConfiguration::default()
        };
        apply(&mut config, &FeatureGates::default());
        assert_eq!(config.max_pods, Some(110));
        assert_eq!(config.healthz_port, Some(0));
        assert_eq!(config.sync_frequency, Some(GoDuration::from_secs(60)));
        assert_eq!(config.resolv_conf.as_deref(), Some(""));
        assert_eq!(config.cgroup_driver.as_deref(), Some("cgroupfs"));
    }

    #[test]
    fn a_bound_on_parallel_pulls_turns_serial_pulls_off() {
        for (bound, serial) in [(None, true), (Some(1), true), (Some(2), false)] {
            let mut config =
                KubeletConfiguration { max_parallel_image_pulls: bound, ..KubeletConfiguration::default() };
            apply(&mut config, &FeatureGates::default());
            assert_eq!(config.serialize_image_pulls, Some(serial), "{bound:?}");
        }
    }

    #[test]
    fn an_explicit_update_frequency_is_the_report_frequency() {
        let mut config = KubeletConfiguration {
            node_status_update_frequency: Some(GoDuration::from_secs(4)),
            ..KubeletConfiguration::default()
        };
        apply(&mut config, &FeatureGates::default());
        assert_eq!(config.node_status_report_frequency, Some(GoDuration::from_secs(4)));
        assert_eq!(defaulted().node_status_report_frequency, Some(GoDuration::from_secs(300)));
    }

    #[test]
    fn defaults_are_a_fixed_point() {
        let once = defaulted();
        let mut twice = once.clone();
        apply(&mut twice, &FeatureGates::default());
        assert_eq!(once, twice);
    }

    #[test]
    fn hard_thresholds_are_merged_only_when_asked() {
        for (merge, expected) in [(None, 1), (Some(true), 5)] {
            let mut config = KubeletConfiguration {
                eviction_hard: Some([("memory.available".to_owned(), "1Gi".to_owned())].into()),
                merge_default_eviction_settings: merge,
                ..KubeletConfiguration::default()
            };
            apply(&mut config, &FeatureGates::default());
            let hard = config.eviction_hard.unwrap_or_default();
            assert_eq!(hard.len(), expected);
            assert_eq!(hard["memory.available"], "1Gi");
        }
    }
}
