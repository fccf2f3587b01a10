//! Types below a container: sources of variables, ports, restart rules.

use crate::api::manifest::unsupported::{Table, Verdict};

use Verdict::{Each, Honoured, NeedsApi};

const EPHEMERAL: &str = "ephemeral containers are added to a running pod through an API server";

/// `ObjectFieldSelector`.
pub static FIELD_REF: Table =
    Table { kind: "ObjectFieldSelector", fields: &[("apiVersion", Honoured), ("fieldPath", Honoured)] };

/// `ResourceFieldSelector`.
pub static RESOURCE_FIELD_REF: Table = Table {
    kind: "ResourceFieldSelector",
    fields: &[("containerName", Honoured), ("divisor", Honoured), ("resource", Honoured)],
};

/// `FileKeySelector`.
pub static FILE_KEY_REF: Table = Table {
    kind: "FileKeySelector",
    fields: &[("key", Honoured), ("optional", Honoured), ("path", Honoured), ("volumeName", Honoured)],
};

/// `ContainerPort`.
pub static PORT: Table = Table {
    kind: "ContainerPort",
    fields: &[
        ("containerPort", Honoured),
        ("hostIP", Honoured),
        ("hostPort", Honoured),
        ("name", Honoured),
        ("protocol", Honoured),
    ],
};

/// `ContainerResizePolicy`.
pub static RESIZE_POLICY: Table = Table {
    kind: "ContainerResizePolicy",
    fields: &[("resourceName", Honoured), ("restartPolicy", Honoured)],
};

/// `ContainerRestartRule`.
pub static RESTART_RULE: Table = Table {
    kind: "ContainerRestartRule",
    fields: &[("action", Honoured), ("exitCodes", Each(&RESTART_RULE_CODES))],
};

/// `ContainerRestartRuleOnExitCodes`.
pub static RESTART_RULE_CODES: Table = Table {
    kind: "ContainerRestartRuleOnExitCodes",
    fields: &[("operator", Honoured), ("values", Honoured)],
};

/// `VolumeDevice`.
pub static VOLUME_DEVICE: Table =
    Table { kind: "VolumeDevice", fields: &[("devicePath", Honoured), ("name", Honoured)] };

/// `EphemeralContainer`.
pub static EPHEMERAL_CONTAINER: Table = Table {
    kind: "EphemeralContainer",
    fields: &[
        ("args", NeedsApi(EPHEMERAL)),
        ("command", NeedsApi(EPHEMERAL)),
        ("env", NeedsApi(EPHEMERAL)),
        ("envFrom", NeedsApi(EPHEMERAL)),
        ("image", NeedsApi(EPHEMERAL)),
        ("imagePullPolicy", NeedsApi(EPHEMERAL)),
        ("lifecycle", NeedsApi(EPHEMERAL)),
        ("livenessProbe", NeedsApi(EPHEMERAL)),
        ("name", NeedsApi(EPHEMERAL)),
        ("ports", NeedsApi(EPHEMERAL)),
        ("readinessProbe", NeedsApi(EPHEMERAL)),
        ("resizePolicy", NeedsApi(EPHEMERAL)),
        ("resources", NeedsApi(EPHEMERAL)),
        ("restartPolicy", NeedsApi(EPHEMERAL)),
        ("restartPolicyRules", NeedsApi(EPHEMERAL)),
        ("securityContext", NeedsApi(EPHEMERAL)),
        ("startupProbe", NeedsApi(EPHEMERAL)),
        ("stdin", NeedsApi(EPHEMERAL)),
        ("stdinOnce", NeedsApi(EPHEMERAL)),
        ("targetContainerName", NeedsApi(EPHEMERAL)),
        ("terminationMessagePath", NeedsApi(EPHEMERAL)),
        ("terminationMessagePolicy", NeedsApi(EPHEMERAL)),
        ("tty", NeedsApi(EPHEMERAL)),
        ("volumeDevices", NeedsApi(EPHEMERAL)),
        ("volumeMounts", NeedsApi(EPHEMERAL)),
        ("workingDir", NeedsApi(EPHEMERAL)),
    ],
};
