//! Probes, and what they and hooks do.

use crate::api::manifest::unsupported::{Table, Verdict};

use Verdict::{Each, Honoured};

/// `Probe`.
pub static PROBE: Table = Table {
    kind: "Probe",
    fields: &[
        ("exec", Each(&EXEC)),
        ("failureThreshold", Honoured),
        ("grpc", Each(&GRPC)),
        ("httpGet", Each(&HTTP_GET)),
        ("initialDelaySeconds", Honoured),
        ("periodSeconds", Honoured),
        ("successThreshold", Honoured),
        ("tcpSocket", Each(&TCP_SOCKET)),
        ("terminationGracePeriodSeconds", Honoured),
        ("timeoutSeconds", Honoured),
    ],
};

/// `ExecAction`.
pub static EXEC: Table = Table { kind: "ExecAction", fields: &[("command", Honoured)] };

/// `GRPCAction`.
pub static GRPC: Table = Table { kind: "GRPCAction", fields: &[("port", Honoured), ("service", Honoured)] };

/// `HTTPGetAction`.
pub static HTTP_GET: Table = Table {
    kind: "HTTPGetAction",
    fields: &[
        ("host", Honoured),
        ("httpHeaders", Each(&HTTP_HEADER)),
        ("path", Honoured),
        ("port", Honoured),
        ("scheme", Honoured),
    ],
};

/// `HTTPHeader`.
pub static HTTP_HEADER: Table =
    Table { kind: "HTTPHeader", fields: &[("name", Honoured), ("value", Honoured)] };

/// `SleepAction`.
pub static SLEEP: Table = Table { kind: "SleepAction", fields: &[("seconds", Honoured)] };

/// `TCPSocketAction`.
pub static TCP_SOCKET: Table =
    Table { kind: "TCPSocketAction", fields: &[("host", Honoured), ("port", Honoured)] };
