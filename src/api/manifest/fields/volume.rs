//! Types below a volume that stand on the node alone.

use crate::api::manifest::unsupported::{Table, Verdict};

use Verdict::{Each, Honoured};

use super::{FIELD_REF, RESOURCE_FIELD_REF};

/// `HostPathVolumeSource`.
pub static HOST_PATH: Table =
    Table { kind: "HostPathVolumeSource", fields: &[("path", Honoured), ("type", Honoured)] };

/// `DownwardAPIVolumeSource`.
pub static DOWNWARD_API: Table = Table {
    kind: "DownwardAPIVolumeSource",
    fields: &[("defaultMode", Honoured), ("items", Each(&DOWNWARD_API_FILE))],
};

/// `DownwardAPIVolumeFile`.
pub static DOWNWARD_API_FILE: Table = Table {
    kind: "DownwardAPIVolumeFile",
    fields: &[
        ("fieldRef", Each(&FIELD_REF)),
        ("mode", Honoured),
        ("path", Honoured),
        ("resourceFieldRef", Each(&RESOURCE_FIELD_REF)),
    ],
};

/// `DownwardAPIProjection`.
pub static DOWNWARD_API_PROJECTION: Table =
    Table { kind: "DownwardAPIProjection", fields: &[("items", Each(&DOWNWARD_API_FILE))] };

/// `ImageVolumeSource`.
pub static IMAGE_VOLUME: Table =
    Table { kind: "ImageVolumeSource", fields: &[("pullPolicy", Honoured), ("reference", Honoured)] };
