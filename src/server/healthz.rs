//! `/healthz` on its own port, as kubelet has it (`healthzBindAddress`, `healthzPort`).
//!
//! A supervisor restarts the agent when this fails, so only the checks for which a restart helps (`fatal`)
//! make it fail: a runtime that is down or a source that cannot be reached is told and no more. The formats
//! are those of Kubernetes' healthz (`[+]name ok`, `[-]name failed: reason`), with one line of our own,
//! `[!]name failed: reason (informative)`, and what there is to say of an informative check that is well. Unlike there the reason is not withheld, which is why the
//! port is bound to the loopback address by default.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Duration};

use hyper::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::{self, Answer, Limits, text};
use crate::api::view::{AgentView, HealthCheck};

const LIMITS: Limits =
    Limits { connections: 64, header: Duration::from_secs(5), life: Duration::from_secs(60) };

/// Serves on a bound listener until `stop` is cancelled. Port 0 of the configuration means off: then the
/// caller does not bind and does not call this.
pub async fn serve(listener: TcpListener, view: Arc<dyn AgentView>, stop: CancellationToken) {
    http::serve(&listener, LIMITS, stop, move |request| {
        let answer = http::refuse_method(&request)
            .unwrap_or_else(|| respond(request.uri().path(), request.uri().query(), &view.health()));
        std::future::ready(answer)
    })
    .await;
}

/// `/healthz` for all checks, `/healthz/NAME` for one.
pub(super) fn respond(path: &str, query: Option<&str>, checks: &[HealthCheck]) -> Answer {
    match path.trim_end_matches('/').split_once("/healthz") {
        Some(("", "")) => all(checks, query.unwrap_or_default()),
        Some(("", rest)) if rest.starts_with('/') => one(checks, &rest[1..]),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// One check, asked for by name: it fails if the check does, informative or not, since whoever asks for it
/// wants just this to know.
fn one(checks: &[HealthCheck], name: &str) -> Answer {
    let name = decode(name);
    match checks.iter().find(|check| check.name == name) {
        Some(check) if check.ok => text(StatusCode::OK, "ok"),
        Some(check) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("internal server error: {}\n", one_line(&check.message)),
        ),
        None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn all(checks: &[HealthCheck], query: &str) -> Answer {
    let parameters: Vec<(&str, Cow<'_, str>)> = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key, decode(value)))
        .collect();
    let verbose = parameters.iter().any(|(key, _)| *key == "verbose");
    let mut excluded: BTreeSet<&str> = parameters
        .iter()
        .filter(|(key, value)| *key == "exclude" && !value.is_empty())
        .map(|(_, value)| value.trim_matches('"'))
        .collect();
    let mut lines: Vec<String> = Vec::with_capacity(checks.len() + 2);
    let mut failed = false;
    for check in checks {
        let name = one_line(&check.name);
        let reason = one_line(&check.message);
        lines.push(if excluded.remove(check.name.as_str()) {
            format!("[+]{name} excluded: ok")
        } else if check.ok && (check.fatal || reason.is_empty()) {
            format!("[+]{name} ok")
        } else if check.ok {
            // What there is to say of it, e.g. since when.
            format!("[+]{name} ok: {reason}")
        } else if check.fatal {
            failed = true;
            format!("[-]{name} failed: {reason}")
        } else {
            format!("[!]{name} failed: {reason} (informative)")
        });
    }
    if !excluded.is_empty() {
        let names: Vec<_> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(", ");
        lines.push(format!("warn: some health checks cannot be excluded: no matches for {names}"));
    }
    lines.push(format!("healthz check {}\n", if failed { "failed" } else { "passed" }));
    let report = lines.join("\n");
    match (failed, verbose) {
        (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, report),
        (false, true) => text(StatusCode::OK, report),
        (false, false) => text(StatusCode::OK, "ok"),
    }
}

/// A message with line breaks would read as further checks.
fn one_line(text: &str) -> String {
    text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Percent-decoding, of one path element or query value. What is not valid stays as it is.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        rest = tail;
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = &tail[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
#[path = "healthz_tests.rs"]
mod tests;
