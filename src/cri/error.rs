//! Why a call to the runtime failed, in words that an operator can act on.

use std::time::Duration;

use tonic::{Code, Status};

use super::endpoint::SocketProblem;

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CriErrorKind {
    /// The runtime cannot be reached, or the connection broke in mid-call. Worth another try.
    Unavailable,
    /// No answer in time, from us or from the runtime's own limit. What was asked for may still
    /// happen.
    DeadlineExceeded,
    /// The runtime gave the call up before its time was over, as when it is shut down. What was asked for may
    /// still happen.
    Cancelled,
    /// There is no such sandbox, container or image.
    NotFound,
    /// What was to be made exists.
    AlreadyExists,
    /// The runtime lacks this call, or all of CRI v1.
    Unimplemented,
    /// Too much of something; an answer over 16 MiB too.
    ResourceExhausted,
    /// The runtime refuses the request as it is; another try gives the same.
    InvalidArgument,
    /// Anything else. containerd and CRI-O give most failures no kind at all.
    Other,
}

const BROKE: &str = "the connection broke before the answer came";

/// A failed call: which one, to whom, what kind of failure, and the runtime's words for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rpc} at {endpoint}: {message}")]
pub struct CriError {
    rpc: &'static str,
    endpoint: String,
    kind: CriErrorKind,
    message: String,
    no_cri_v1: bool,
}

/// Two creates of one name at once: the runtime still works on an earlier one, or has finished it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameReserved<'a> {
    /// The name as the runtime spells it.
    pub name: &'a str,
    /// Id of the container or sandbox that has the name; CRI-O does not tell.
    pub holder: Option<&'a str>,
}

impl CriError {
    /// An error with the runtime's `message`, from which gRPC's own wrapping is removed.
    #[must_use]
    pub fn new(
        rpc: &'static str,
        endpoint: impl Into<String>,
        kind: CriErrorKind,
        message: impl AsRef<str>,
    ) -> Self {
        let message = clean(message.as_ref());
        Self { rpc, endpoint: endpoint.into(), kind, message, no_cri_v1: false }
    }

    pub(super) fn deadline(rpc: &'static str, endpoint: &str, limit: Duration) -> Self {
        let message = format!("no answer within {} s", limit.as_secs_f32());
        Self::new(rpc, endpoint, CriErrorKind::DeadlineExceeded, message)
    }

    pub(super) fn from_status(rpc: &'static str, endpoint: &str, status: &Status) -> Self {
        if let Some(problem) = find::<SocketProblem>(status) {
            return Self::new(rpc, endpoint, CriErrorKind::Unavailable, problem.to_string());
        }
        if let Some(refusal) = not_cri_v1(status) {
            let error = Self::new(rpc, endpoint, CriErrorKind::Unimplemented, refusal);
            return Self { no_cri_v1: true, ..error };
        }
        if find::<tonic::transport::Error>(status).is_some()
            || find::<hyper::Error>(status).is_some()
            || transport_words(status)
        {
            let cause = root_cause(status);
            let message = format!("{BROKE}: {cause}");
            return Self::new(rpc, endpoint, CriErrorKind::Unavailable, message);
        }
        let kind = match status.code() {
            Code::Unavailable => CriErrorKind::Unavailable,
            Code::DeadlineExceeded => CriErrorKind::DeadlineExceeded,
            Code::Cancelled => CriErrorKind::Cancelled,
            Code::NotFound => CriErrorKind::NotFound,
            Code::AlreadyExists => CriErrorKind::AlreadyExists,
            Code::Unimplemented => CriErrorKind::Unimplemented,
            Code::ResourceExhausted | Code::OutOfRange => CriErrorKind::ResourceExhausted,
            Code::InvalidArgument => CriErrorKind::InvalidArgument,
            // Exec's time limit comes without a code from containerd.
            _ if status.message().ends_with("context deadline exceeded") => CriErrorKind::DeadlineExceeded,
            _ => CriErrorKind::Other,
        };
        if status.message().is_empty() {
            return Self::new(rpc, endpoint, kind, status.code().description());
        }
        Self::new(rpc, endpoint, kind, status.message())
    }

    /// The call that failed, as the interface spells it: `CreateContainer`.
    #[must_use]
    pub fn rpc(&self) -> &'static str {
        self.rpc
    }

    /// Where it was sent.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> CriErrorKind {
        self.kind
    }

    /// The runtime's words, without call and endpoint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// There is no such thing in the runtime.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == CriErrorKind::NotFound
    }

    /// The runtime lacks this call.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        self.kind == CriErrorKind::Unimplemented
    }

    /// Whoever answers serves no CRI v1 at all, so that no call can succeed.
    #[must_use]
    pub fn is_no_cri_v1(&self) -> bool {
        self.no_cri_v1
    }

    /// The runtime could not be reached.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == CriErrorKind::Unavailable
    }

    /// The call took too long or was given up: what was asked for may still happen.
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        matches!(self.kind, CriErrorKind::DeadlineExceeded | CriErrorKind::Cancelled)
    }

    /// Nobody knows whether what was asked for was done, or still will be.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.is_deadline_exceeded() || self.message.starts_with(BROKE)
    }

    /// Whether this is the answer to a second create of one name, and who has the name.
    #[must_use]
    pub fn name_reserved(&self) -> Option<NameReserved<'_>> {
        reserved_by_containerd(&self.message).or_else(|| reserved_by_crio(&self.message))
    }

    /// The id of whoever has the name that was to be given a second time, where the runtime tells.
    #[must_use]
    pub fn name_reserved_for(&self) -> Option<&str> {
        self.name_reserved()?.holder
    }
}

/// `failed to reserve sandbox name "N": name "N" is reserved for "ID"`, with anything around it.
fn reserved_by_containerd(message: &str) -> Option<NameReserved<'_>> {
    let start = message.find("failed to reserve ")?;
    let (before, after) = message[start..].split_once(" is reserved for ")?;
    let name = before.strip_suffix('"')?.rsplit('"').next()?;
    let holder = after.trim_start().strip_prefix('"')?.split('"').next()?;
    Some(NameReserved { name, holder: Some(holder).filter(|id| !id.is_empty()) })
}

/// `error reserving ctr name N for id ID: name is reserved`, where ID is the newcomer's own.
fn reserved_by_crio(message: &str) -> Option<NameReserved<'_>> {
    let (_, rest) = message.split_once("error reserving ")?;
    let (_, rest) = rest.split_once(" name ")?;
    let (name, rest) = rest.split_once(" for id ")?;
    rest.contains("name is reserved").then_some(NameReserved { name, holder: None })
}

/// Removes what gRPC for Go puts around a message, wherever it was wrapped once more.
fn clean(message: &str) -> String {
    const OPEN: &str = "rpc error: code = ";
    const CLOSE: &str = " desc = ";
    let mut rest = message.trim();
    let mut cleaned = String::with_capacity(rest.len());
    while let Some(start) = rest.find(OPEN) {
        let code = &rest[start + OPEN.len()..];
        // A code is one word; anything longer is text that only looks like the wrapping.
        let end = code.find(CLOSE).filter(|end| code[..*end].bytes().all(|b| b.is_ascii_alphanumeric()));
        let Some(end) = end else { break };
        cleaned.push_str(&rest[..start]);
        rest = &code[end + CLOSE.len()..];
    }
    cleaned.push_str(rest);
    cleaned
}

/// Tells apart "lacks this call" from "is no CRI v1 runtime", which needs another remedy.
fn not_cri_v1(status: &Status) -> Option<&'static str> {
    if status.code() != Code::Unimplemented {
        return None;
    }
    let message = status.message();
    if message.contains("unknown service runtime.v1.") {
        return Some(
            "serves no CRI v1: the runtime's CRI is switched off (\"cri\" in disabled_plugins of \
             containerd's config.toml, as Docker's own package has it), failed to load (see the \
             runtime's log), or is only v1alpha2 (containerd before 1.6, which must be upgraded)",
        );
    }
    // Only asked after v1 was refused.
    if message.contains("unknown service runtime.v1alpha2.") {
        return Some(
            "serves no CRI, neither v1 nor v1alpha2: the runtime's CRI is switched off (\"cri\" in \
             disabled_plugins of containerd's config.toml, as Docker's own package has it) or failed to load \
             (see the runtime's log)",
        );
    }
    message.contains("grpc-status header missing").then_some(
        "what answers there is no CRI runtime (Docker's own socket? then name that of containerd or \
         cri-dockerd)",
    )
}

/// HTTP/2 failures reach us as text only where they happen within a body.
fn transport_words(status: &Status) -> bool {
    let message = status.message();
    status.code() != Code::ResourceExhausted
        && (message.starts_with("h2 protocol error") || message.starts_with("error reading a body"))
}

fn find<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn root_cause(status: &Status) -> String {
    let mut cause = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        cause = error.to_string();
        next = error.source();
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "unix:///run/x.sock";

    fn from(code: Code, message: &str) -> CriError {
        CriError::from_status("CreateContainer", ENDPOINT, &Status::new(code, message))
    }

    #[test]
    fn every_error_names_call_and_endpoint_and_loses_the_wrapping() {
        let error = from(
            Code::Unknown,
            "rpc error: code = Unknown desc = failed to pull: rpc error: code = NotFound desc = no such tag",
        );
        assert_eq!(error.to_string(), "CreateContainer at unix:///run/x.sock: failed to pull: no such tag");
        assert_eq!(error.kind(), CriErrorKind::Other);
        assert_eq!(from(Code::Internal, "").message(), Code::Internal.description());
    }

    #[test]
    fn text_that_only_looks_wrapped_is_kept() {
        for text in ["rpc error: code = ", "a rpc error: code = two words desc = b", "code = X desc = y"] {
            assert_eq!(from(Code::Unknown, text).message(), text.trim());
        }
    }

    #[test]
    fn kinds_follow_the_codes() {
        for (code, kind) in [
            (Code::Unavailable, CriErrorKind::Unavailable),
            (Code::DeadlineExceeded, CriErrorKind::DeadlineExceeded),
            (Code::Cancelled, CriErrorKind::Cancelled),
            (Code::NotFound, CriErrorKind::NotFound),
            (Code::AlreadyExists, CriErrorKind::AlreadyExists),
            (Code::Unimplemented, CriErrorKind::Unimplemented),
            (Code::ResourceExhausted, CriErrorKind::ResourceExhausted),
            (Code::InvalidArgument, CriErrorKind::InvalidArgument),
            (Code::Unknown, CriErrorKind::Other),
        ] {
            assert_eq!(from(code, "x").kind(), kind);
        }
    }

    #[test]
    fn containerd_tells_who_has_the_name() {
        for kind in ["sandbox", "container"] {
            let error = from(
                Code::Unknown,
                &format!(
                    "rpc error: code = Unknown desc = failed to reserve {kind} name \"a_b_c_uid_0\": \
                     name \"a_b_c_uid_0\" is reserved for \"e41d37b9\""
                ),
            );
            let reserved = NameReserved { name: "a_b_c_uid_0", holder: Some("e41d37b9") };
            assert_eq!(error.name_reserved(), Some(reserved));
            assert_eq!(error.name_reserved_for(), Some("e41d37b9"));
        }
    }

    #[test]
    fn crio_tells_only_that_the_name_is_taken() {
        let error = from(
            Code::Unknown,
            "Kubelet may be retrying requests that are timing out in CRI-O due to system load: context \
             deadline exceeded: error reserving ctr name k8s_a_b_c_uid_0 for id 8424e8fd: name is reserved",
        );
        assert_eq!(error.name_reserved(), Some(NameReserved { name: "k8s_a_b_c_uid_0", holder: None }));
        assert_eq!(error.name_reserved_for(), None);
    }

    #[test]
    fn other_words_reserve_nothing() {
        for text in [
            "failed to reserve container name \"x\": no space left on device",
            "port 80 is reserved for \"system\"",
            "error reserving ctr name x for id y: disk full",
            "failed to reserve ünïcode is reserved for ",
        ] {
            assert_eq!(from(Code::Unknown, text).name_reserved(), None, "{text}");
        }
    }

    #[test]
    fn a_runtime_without_cri_v1_is_told_from_one_without_a_call() {
        let off = from(Code::Unimplemented, "unknown service runtime.v1.RuntimeService");
        assert!(off.is_no_cri_v1() && off.message().contains("disabled_plugins"), "{off}");
        let neither = from(Code::Unimplemented, "unknown service runtime.v1alpha2.RuntimeService");
        assert!(neither.is_no_cri_v1() && neither.message().contains("neither v1 nor v1alpha2"), "{neither}");
        let docker =
            from(Code::Unimplemented, "grpc-status header missing, mapped from HTTP status code 404");
        assert!(docker.is_no_cri_v1() && docker.message().contains("Docker"), "{docker}");
        let old =
            from(Code::Unimplemented, "unknown method RuntimeConfig for service runtime.v1.RuntimeService");
        assert!(old.is_unimplemented() && !old.is_no_cri_v1(), "{old}");
    }
}
