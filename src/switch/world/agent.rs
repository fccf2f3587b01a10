//! Whether the agent does its work: its unit stays up, its healthz says ok, and the static pods run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{cri, docker_pods, units};
use crate::{
    api::{cri::ContainerState, labels},
    cri::{Cri as _, CriClient, CriTimeouts},
    host::systemd::Systemd,
    switch::docker::Docker,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// So long it must be well without a break: an agent that cannot start ends within it.
const STEADY: Duration = Duration::from_secs(5);
/// An agent that was started so often and did not stay will not.
const RESTARTS: u32 = 5;
const HEALTHZ: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// The static pods, and in which runtime they run: one of the two.
pub(super) struct Pods<'a> {
    pub(super) docker: Option<&'a Path>,
    pub(super) endpoint: Option<&'a str>,
    /// `NAMESPACE/NAME`.
    pub(super) wanted: &'a [String],
}

/// Waits until all is well.
pub(super) async fn verify(
    systemd: &Systemd,
    unit: &str,
    healthz: Option<&str>,
    pods: &Pods<'_>,
    seconds: u64,
) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let runtime = Runtime::of(pods)?;
    let mut steady: Option<(Instant, (u32, u32))> = None;
    let mut first = None;
    loop {
        let mut problems = Vec::new();
        match process(systemd, unit).await {
            Ok(process) => match steady {
                Some((since, known)) if known == process => {
                    if since.elapsed() < STEADY {
                        problems.push(format!("{unit} has just been started"));
                    }
                }
                _ => {
                    steady = Some((Instant::now(), process));
                    problems.push(format!("{unit} has just been started"));
                }
            },
            Err(problem) => {
                steady = None;
                problems.push(problem);
            }
        }
        if let Some(address) = healthz
            && let Err(problem) = ask_healthz(address).await
        {
            problems.push(format!("healthz at {address}: {problem}"));
        }
        problems.extend(missing(&runtime, pods.wanted).await);
        if problems.is_empty() {
            return Ok(());
        }
        let hopeless = hopeless(systemd, unit, &mut first).await;
        if hopeless.is_some() || Instant::now() >= deadline {
            let why = hopeless.unwrap_or_else(|| format!("not well within {seconds} s"));
            let told = format!("{why}: {}", problems.join("; "));
            return Err(units::with_journal(systemd, unit, told).await);
        }
        sleep(PAUSE).await;
    }
}

/// Why waiting is of no use: systemd starts it no more, or again and again. `first` is how often it had been started
/// again at the begin.
async fn hopeless(systemd: &Systemd, unit: &str, first: &mut Option<u32>) -> Option<String> {
    if systemd.unit(unit).await.ok()?.active == "failed" {
        return Some(format!("{unit} has failed, and is not started again"));
    }
    let restarts = systemd.service(unit).await.ok()?.restarts;
    // It counts anew when somebody starts it.
    let known = first.map_or(restarts, |first| first.min(restarts));
    *first = Some(known);
    let more = restarts - known;
    (more >= RESTARTS).then(|| format!("{unit} does not stay: it was started again {more} times"))
}

/// The unit's process and how often it was started again, if it is up.
async fn process(systemd: &Systemd, unit: &str) -> Result<(u32, u32), String> {
    let state = systemd.unit(unit).await.map_err(|error| error.to_string())?;
    if state.active != "active" {
        return Err(format!("{unit} is {} ({})", state.active, state.sub));
    }
    let service = systemd.service(unit).await.map_err(|error| error.to_string())?;
    Ok((service.main_pid, service.restarts))
}

async fn ask_healthz(address: &str) -> Result<(), String> {
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get("/healthz").header(HOST, address).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        drop(connection);
        if answer.status().as_u16() == 200 { Ok(()) } else { Err(format!("it answers {}", answer.status())) }
    };
    timeout(HEALTHZ, ask).await.map_err(|_elapsed| "no answer".to_owned())?
}

/// Where pods are looked for.
enum Runtime {
    Docker(Docker),
    Cri(Box<CriClient>),
    None,
}

impl Runtime {
    fn of(pods: &Pods<'_>) -> Result<Self, String> {
        Ok(match (pods.docker, pods.endpoint) {
            (Some(socket), _) => Self::Docker(Docker::new(socket)),
            (None, Some(endpoint)) => {
                Self::Cri(Box::new(cri(endpoint, CriTimeouts::from_request_timeout(ANSWER))?))
            }
            (None, None) => Self::None,
        })
    }

    /// The pods, `NAMESPACE/NAME`, that have a running container beside their sandbox.
    async fn running(&self) -> Result<BTreeSet<String>, String> {
        match self {
            Self::Docker(docker) => {
                let all = docker_pods::containers(docker).await.map_err(|error| error.to_string())?;
                let running = all.iter().filter(|container| container.runs() && !container.is_sandbox());
                Ok(running.map(docker_pods::Container::pod).collect())
            }
            Self::Cri(client) => {
                let all = client.list_containers(None).await.map_err(|error| error.to_string())?;
                let running = all
                    .into_iter()
                    .filter(|container| container.state == i32::from(ContainerState::ContainerRunning));
                let label = |labels: &BTreeMap<String, String>, key: &str| {
                    labels.get(key).cloned().unwrap_or_default()
                };
                Ok(running
                    .map(|container| {
                        let namespace = label(&container.labels, labels::POD_NAMESPACE);
                        format!("{namespace}/{}", label(&container.labels, labels::POD_NAME))
                    })
                    .collect())
            }
            Self::None => Ok(BTreeSet::new()),
        }
    }
}

async fn missing(runtime: &Runtime, wanted: &[String]) -> Option<String> {
    if wanted.is_empty() {
        return None;
    }
    let running = match runtime.running().await {
        Ok(running) => running,
        Err(error) => return Some(error),
    };
    let missing: Vec<&str> =
        wanted.iter().filter(|pod| !running.contains(*pod)).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("static pods without a running container: {}", missing.join(", ")))
}
