//! The structs inside a [`super::types::KubeletConfiguration`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::duration::GoDuration;

/// Whether a struct says nothing, so that it need not be written out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `logging.flushFrequency`: a duration, or, as kubelet still accepts, a number of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlushFrequency {
    /// Nanoseconds.
    Nanos(i64),
    /// A duration string.
    Duration(GoDuration),
}

/// Authentication of requests to the kubelet API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletAuthentication {
    /// Client certificates.
    #[serde(skip_serializing_if = "is_default")]
    pub x509: KubeletX509Authentication,
    /// Bearer tokens checked by TokenReview.
    #[serde(skip_serializing_if = "is_default")]
    pub webhook: KubeletWebhookAuthentication,
    /// Requests that carry no identity.
    #[serde(skip_serializing_if = "is_default")]
    pub anonymous: KubeletAnonymousAuthentication,
}

/// Client certificate authentication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletX509Authentication {
    /// PEM bundle of the authorities that sign client certificates.
    #[serde(rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<String>,
}

/// Bearer token authentication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletWebhookAuthentication {
    /// Check bearer tokens with the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long an answer is cached.
    #[serde(rename = "cacheTTL", skip_serializing_if = "Option::is_none")]
    pub cache_ttl: Option<GoDuration>,
}

/// Anonymous requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletAnonymousAuthentication {
    /// Let unidentified requests through as `system:anonymous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Authorization of requests to the kubelet API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletAuthorization {
    /// `AlwaysAllow` or `Webhook`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// SubjectAccessReview settings.
    #[serde(skip_serializing_if = "is_default")]
    pub webhook: KubeletWebhookAuthorization,
}

/// Authorization by SubjectAccessReview.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletWebhookAuthorization {
    /// How long a yes is cached.
    #[serde(rename = "cacheAuthorizedTTL", skip_serializing_if = "Option::is_none")]
    pub cache_authorized_ttl: Option<GoDuration>,
    /// How long a no is cached.
    #[serde(rename = "cacheUnauthorizedTTL", skip_serializing_if = "Option::is_none")]
    pub cache_unauthorized_ttl: Option<GoDuration>,
}

/// Swap of containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemorySwapConfiguration {
    /// `NoSwap` or `LimitedSwap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_behavior: Option<String>,
}

/// component-base's logging configuration, v1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoggingConfiguration {
    /// `text` or `json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Time between log flushes; nodectl's log is not buffered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_frequency: Option<FlushFrequency>,
    /// klog verbosity; 0 is information and up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<u32>,
    /// Verbosity by source file pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmodule: Option<Vec<VModuleItem>>,
    /// Options of the formats.
    #[serde(skip_serializing_if = "is_default")]
    pub options: LoggingOptions,
}

/// Verbosity of one file pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VModuleItem {
    /// File name pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_pattern: Option<String>,
    /// Verbosity of matching files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<u32>,
}

/// Options by log format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoggingOptions {
    /// Options of the text format.
    #[serde(skip_serializing_if = "is_default")]
    pub text: LoggingFormatOptions,
    /// Options of the JSON format.
    #[serde(skip_serializing_if = "is_default")]
    pub json: LoggingFormatOptions,
}

/// Options of one log format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoggingFormatOptions {
    /// Errors to stderr, the rest to stdout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_stream: Option<bool>,
    /// Buffer of the information stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info_buffer_size: Option<String>,
}

/// Shutdown time of one range of pod priorities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ShutdownGracePeriodByPodPriority {
    /// Lowest priority that the entry is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Time for these pods, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_period_seconds: Option<i64>,
}

/// Bounds of the restart delay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CrashLoopBackOffConfig {
    /// Longest delay before a crashed container is restarted, 1 s to 300 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_container_restart_period: Option<GoDuration>,
}

/// Memory reserved on one NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemoryReservation {
    /// Number of the NUMA node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<i32>,
    /// Amounts by memory type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, String>>,
}

/// A node taint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Taint {
    /// Key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// Not allowed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

/// component-base's tracing configuration, v1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TracingConfiguration {
    /// Collector endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Samples per million spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_rate_per_million: Option<i32>,
}

/// User namespaces of pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UserNamespaces {
    /// UIDs and GIDs mapped per pod, a multiple of 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids_per_pod: Option<i64>,
}
