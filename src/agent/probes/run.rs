//! One run of a probe.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    PROBE_AGENT, grpc,
    http::{Get, GetError, get},
    lookup::connect,
};
use crate::{
    cri::{Cri, CriErrorKind},
    error::chain,
    policy::{
        expansion::{Room, expand},
        probe::{ProbeResult, timeout},
    },
};

/// A runtime that has not answered so long after a command's time is over does not tell of the container.
const RUNTIME_SLACK: Duration = Duration::from_secs(10);
/// What could not be run is tried so often at once, as with kubelet (`maxProbeRetries`).
const TRIES: u32 = 3;
/// The most characters that are told of what a container said: its command's output, its server's answer.
const MAX_SAID: usize = 256;

/// The begin of what a container said, as it may be told and kept: short and in one line, so that none can write
/// lines of its own into the log.
pub(crate) fn cut(said: &str) -> String {
    said.trim().chars().take(MAX_SAID).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Runs a container's probe once. What its result tells is cut to a bounded length, whoever said it.
pub(super) async fn run(
    cri: &dyn Cri,
    probe: &Probe,
    container: &Container,
    id: &str,
    ip: Option<IpAddr>,
) -> ProbeResult {
    let mut result = ProbeResult::Unknown(String::new());
    for _ in 0..TRIES {
        result = run_once(cri, probe, container, id, ip).await;
        if !matches!(result, ProbeResult::Unknown(_)) {
            break;
        }
    }
    match result {
        ProbeResult::Success(said) => ProbeResult::Success(cut(&said)),
        ProbeResult::Failure(said) => ProbeResult::Failure(cut(&said)),
        ProbeResult::Unknown(said) => ProbeResult::Unknown(cut(&said)),
    }
}

async fn run_once(
    cri: &dyn Cri,
    probe: &Probe,
    container: &Container,
    id: &str,
    ip: Option<IpAddr>,
) -> ProbeResult {
    let within = timeout(probe);
    if let Some(exec) = &probe.exec {
        return run_exec(cri, exec.command.as_deref().unwrap_or_default(), container, id, within).await;
    }
    let Some(ip) = ip.map(|ip| ip.to_string()) else {
        return ProbeResult::Unknown("the pod has no address".to_owned());
    };
    if let Some(action) = &probe.http_get {
        return match request(action, container, &ip, PROBE_AGENT) {
            Err(why) => ProbeResult::Unknown(why),
            Ok(request) => judge(get(&request, Some(within)).await),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or(ip);
        return match port_number(&tcp.port, container) {
            Err(why) => ProbeResult::Unknown(why),
            Ok(port) => run_tcp(&host, port, within).await,
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return ProbeResult::Unknown(format!("port {} is none", action.port));
        };
        return grpc::check(&ip, port, action.service.as_deref().unwrap_or_default(), within).await;
    }
    ProbeResult::Unknown("the probe says nothing to do".to_owned())
}

async fn run_exec(
    cri: &dyn Cri,
    command: &[String],
    container: &Container,
    id: &str,
    within: Duration,
) -> ProbeResult {
    // As with kubelet only plain values are known here: a variable that comes from elsewhere is empty, and only
    // what `env` does not name stays as it is written.
    let vars = container.env.iter().flatten();
    let values: HashMap<&str, &str> =
        vars.map(|var| (var.name.as_str(), var.value.as_deref().unwrap_or_default())).collect();
    let mut room = Room::default();
    let command = command.iter().map(|text| expand(text, &mut room, |name| values.get(name).copied()));
    let command = match command.collect::<Result<_, _>>() {
        Ok(command) => command,
        Err(error) => return ProbeResult::Unknown(format!("the command: {error}")),
    };
    let call = cri.exec_sync(id, command, Some(within));
    match tokio::time::timeout(within + RUNTIME_SLACK, call).await {
        Err(_elapsed) => ProbeResult::Unknown("the runtime does not answer".to_owned()),
        Ok(Ok(done)) if done.exit_code == 0 => ProbeResult::Success(String::new()),
        Ok(Ok(done)) => {
            let output = if done.stdout.is_empty() { &done.stderr } else { &done.stdout };
            ProbeResult::Failure(said(
                &format!("exit code {}", done.exit_code),
                &String::from_utf8_lossy(output),
            ))
        }
        Ok(Err(error)) if error.kind() == CriErrorKind::DeadlineExceeded => {
            ProbeResult::Failure(format!("the command took longer than {} s", within.as_secs()))
        }
        Ok(Err(error)) => ProbeResult::Unknown(chain(&error)),
    }
}

async fn run_tcp(host: &str, port: u16, within: Duration) -> ProbeResult {
    match tokio::time::timeout(within, connect(host, port)).await {
        Ok(Ok(_)) => ProbeResult::Success(String::new()),
        Ok(Err(error)) => ProbeResult::Failure(format!("cannot connect to {host} port {port}: {error}")),
        Err(_elapsed) => ProbeResult::Failure(format!(
            "cannot connect to {host} port {port} within {} s",
            within.as_secs()
        )),
    }
}

/// The request of a probe or hook. The pod's address stands in where no host is given.
///
/// # Errors
/// In words, when the port's name is not among the container's.
pub(crate) fn request(
    action: &HTTPGetAction,
    container: &Container,
    ip: &str,
    agent: &'static str,
) -> Result<Get, String> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(ip);
    let headers = action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
    Ok(Get {
        https: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: host.to_owned(),
        port: port_number(&action.port, container)?,
        path: action.path.clone().unwrap_or_default(),
        headers: headers.collect(),
        agent,
    })
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("container {:?} has no port {port:?}", container.name))
}

fn judge(answer: Result<super::http::Answer, GetError>) -> ProbeResult {
    match answer {
        Ok(answer) if (200..300).contains(&answer.status) => ProbeResult::Success(String::new()),
        Ok(answer) if (300..400).contains(&answer.status) => {
            ProbeResult::Success(format!("status {}: the redirect was not followed", answer.status))
        }
        Ok(answer) => ProbeResult::Failure(said(&format!("status {}", answer.status), &answer.body)),
        Err(GetError::Failed(why) | GetError::NoTls(why)) => ProbeResult::Failure(why),
        Err(GetError::Body(why) | GetError::Request(why)) => ProbeResult::Unknown(why),
    }
}

fn said(what: &str, output: &str) -> String {
    let output = cut(output);
    if output.is_empty() { what.to_owned() } else { format!("{what}: {output}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::probes::http::Answer;

    #[test]
    fn ports_are_found_by_name_and_number() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        let number = |port: IntOrString| port_number(&port, &container).ok();
        assert_eq!(number(IntOrString::String("web".into())), Some(8080));
        assert_eq!(number(IntOrString::Int(81)), Some(81));
        assert_eq!(number(IntOrString::String("82".into())), Some(82));
        assert_eq!(number(IntOrString::String("other".into())), None);
        assert_eq!(number(IntOrString::Int(0)), None);
        assert_eq!(number(IntOrString::Int(70_000)), None);
        let action: HTTPGetAction =
            serde_json::from_value(serde_json::json!({"port": "web", "scheme": "HTTPS"})).unwrap();
        let made = request(&action, &container, "10.0.0.2", "x").unwrap();
        assert_eq!((made.https, made.host.as_str(), made.port), (true, "10.0.0.2", 8080));
    }

    #[test]
    fn statuses_from_200_to_399_pass() {
        let judged = |status| judge(Ok(Answer { status, body: "words".into() }));
        assert_eq!(judged(204), ProbeResult::Success(String::new()));
        assert!(matches!(judged(399), ProbeResult::Success(said) if !said.is_empty()));
        assert_eq!(judged(400), ProbeResult::Failure("status 400: words".into()));
        assert!(matches!(judged(199), ProbeResult::Failure(_)));
        assert!(matches!(judge(Err(GetError::Body("x".into()))), ProbeResult::Unknown(_)));
    }

    #[test]
    fn what_is_told_is_one_line() {
        assert_eq!(cut(" a\nINFO b\t\u{1b}[31m\n"), "a INFO b  [31m");
    }

    #[tokio::test]
    async fn what_is_told_is_cut_whoever_said_it() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
            let answer = format!("HTTP/1.1 302 X\r\nlocation: a:{}\r\n\r\n", "x".repeat(10_000));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let probe = serde_json::from_value(serde_json::json!({"httpGet": {"port": port}})).unwrap();
        let nobody = crate::cri::CriClient::connect_lazy(
            "unix:///nonexistent/runtime.sock".parse().unwrap(),
            None,
            crate::cri::CriTimeouts::default(),
        );
        let result = run(&nobody, &probe, &Container::default(), "c", Some([127, 0, 0, 1].into())).await;
        let ProbeResult::Failure(said) = result else { panic!("{result:?}") };
        assert!(said.starts_with("redirect to an unusable location") && said.len() == MAX_SAID, "{said}");
    }
}
