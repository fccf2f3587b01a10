//! `/containerLogs`: what a container said, as its log's files have it.
//!
//! Whoever follows a log may do so for days and read as slowly as he likes: each reader has a thread of its own, that
//! waits while the client does not take what was read, so that no more than some blocks of each are in memory.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CONTENT_TYPE, HeaderValue},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ContainerStatus;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_stream::StreamExt as _;
use tokio_util::{
    io::ReaderStream,
    sync::{CancellationToken, DropGuard},
};

use super::{NodeApi, Refusal, has_container, serve::Reply, status_of};
use crate::{
    cri::Cri,
    error::{CommandError, chain, printable},
    logs::{Choice, Log, Outputs, Stream, print_all, print_and_follow},
    policy::node_api::{Target, parameters},
};

/// Logs that are read at a time, on a thread each.
const READERS: usize = 256;
/// A reader's stack, bytes.
const STACK: usize = 512 << 10;
/// Bytes that are handed on at a time.
const BLOCK: usize = 16 << 10;

/// The readers' bound.
pub(super) struct LogReaders(Arc<Semaphore>);

impl Default for LogReaders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

/// What is asked for, as kubelet's `PodLogOptions`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    follow: bool,
    previous: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<u64>,
    limit: Option<u64>,
    stream: Option<Stream>,
}

fn undecodable() -> Refusal {
    Refusal::bad(r#"{"message": "Unable to decode query."}"#)
}

fn invalid() -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#.to_owned())
}

/// A parameter that is no number, or no truth, is one that cannot be decoded; one that makes no sense is invalid.
fn wanted(query: &str, now: Timestamp) -> Result<Wanted, Refusal> {
    let first = |name: &'static str| parameters(query, name).next().filter(|text| !text.is_empty());
    let truth = |name| match first(name).as_deref() {
        None => Ok(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some(_) => Err(undecodable()),
    };
    let number = |name| first(name).map(|text| text.parse::<i64>().map_err(|_no| undecodable())).transpose();
    // An older name of it.
    let tail = match first("tail").as_deref() {
        Some("all") => None,
        Some(text) => Some(text.parse::<i64>().map_err(|_no| undecodable())?),
        None => number("tailLines")?,
    };
    let natural = |number: Option<i64>, least: i64| match number {
        Some(number) if number < least => Err(invalid()),
        number => Ok(number.and_then(|number| u64::try_from(number).ok())),
    };
    let seconds = number("sinceSeconds")?;
    let time = first("sinceTime").map(|text| text.parse::<Timestamp>().map_err(|_no| undecodable()));
    let since = match (seconds, time.transpose()?) {
        (Some(_), Some(_)) => return Err(invalid()),
        (Some(seconds), None) if seconds < 1 => return Err(invalid()),
        (Some(seconds), None) => {
            Some(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN))
        }
        (None, time) => time,
    };
    let stream = match first("stream").as_deref() {
        None | Some("All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(_) => return Err(invalid()),
    };
    if stream.is_some() && tail.is_some() {
        return Err(invalid());
    }
    Ok(Wanted {
        follow: truth("follow")?,
        previous: truth("previous")?,
        timestamps: truth("timestamps")?,
        since,
        tail: natural(tail, 0)?,
        limit: natural(number("limitBytes")?, 1)?,
        stream,
    })
}

/// Which of its containers a container's log is of, by its status; else why there is none.
fn container_id(
    status: Option<&ContainerStatus>,
    (pod, name): (&str, &str),
    previous: bool,
) -> Result<String, String> {
    let Some(status) = status else {
        return Err(format!("container {name:?} in pod {pod:?} is not available"));
    };
    let id = |id: &Option<String>| {
        let id = id.as_deref().unwrap_or_default();
        Some(id.split_once("://").map_or(id, |(_, id)| id).to_owned()).filter(|id| !id.is_empty())
    };
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last = last.map(|last| id(&last.container_id));
    if previous {
        return last
            .flatten()
            .ok_or_else(|| format!("previous terminated container {name:?} in pod {pod:?} not found"));
    }
    let ended = || format!("container {name:?} in pod {pod:?} is terminated");
    if state.running.is_some() {
        return id(&status.container_id)
            .ok_or_else(|| format!("container {name:?} in pod {pod:?} is not available"));
    }
    if let Some(terminated) = &state.terminated {
        // Where the last start failed there is none, and the one before is asked for.
        return id(&terminated.container_id).or(last.flatten()).ok_or_else(ended);
    }
    if let Some(last) = last {
        return last.ok_or_else(ended);
    }
    let why = match state.waiting.and_then(|waiting| waiting.reason).as_deref() {
        Some("ErrImagePull") => "image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
        Some(reason) => reason.to_owned(),
        None => return Err(format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet")),
    };
    Err(format!("container {name:?} in pod {pod:?} is waiting to start: {why}"))
}

impl NodeApi {
    /// `/containerLogs`.
    pub(super) async fn container_logs(&self, target: &Target, query: &str) -> Result<Reply, Refusal> {
        let now = Timestamp::now();
        let wanted = wanted(query, now)?;
        let name = (target.pod.as_str(), target.container.as_str());
        let view = self
            .pod(target)
            .ok_or_else(|| Refusal::not_found(format!("pod {:?} does not exist", target.pod)))?;
        if !has_container(&view, name.1) {
            let words = format!("container {:?} not found in pod {:?}", name.1, name.0);
            return Err(Refusal::not_found(words));
        }
        let id = container_id(status_of(&view, name.1), name, wanted.previous).map_err(Refusal::bad)?;
        let answer = self.cri.container_status(&id, false).await;
        let answer = answer.map_err(|error| {
            if error.is_not_found() {
                let words =
                    format!("container {:?} in pod {:?} is not in the runtime any more", name.1, name.0);
                return Refusal::bad(words);
            }
            Refusal::failed(error.to_string())
        })?;
        let status = answer.status.unwrap_or_default();
        let log = Log::of(id, &status, format!("container {:?} in pod {:?}", name.1, name.0), now);
        let log = log.ok_or_else(|| {
            Refusal::bad(format!("the runtime keeps no log file of container {:?}", name.1))
        })?;
        let permit = Arc::clone(&self.logs.0).try_acquire_owned();
        let permit = permit.map_err(|_none| {
            let words = format!("{READERS} logs are being read; try again later\n");
            Refusal(StatusCode::TOO_MANY_REQUESTS, words)
        })?;
        let read = read(log, wanted, Arc::clone(&self.cri), permit);
        let Being { bytes, begun, left } =
            read.map_err(|error| Refusal::failed(format!("cannot read the log: {error}")))?;
        // What fails before the first byte is an error, and nothing of a log.
        if let Ok(Err(words)) = begun.await {
            return Err(Refusal::bad(words));
        }
        let all = ReaderStream::with_capacity(bytes, BLOCK).map_while(Result::ok).map(move |bytes| {
            let _with_it = &left;
            Ok(Frame::data(bytes))
        });
        let mut reply = Response::new(StreamBody::new(all).boxed_unsync());
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(reply)
    }
}

/// Tells that a log can be read, or why not.
type Begun = oneshot::Sender<Result<(), String>>;

/// What a reader of a log writes to, and how it tells that there is a log.
#[derive(Clone)]
struct Hand {
    pipe: Arc<UnixStream>,
    begun: Arc<Mutex<Option<Begun>>>,
}

impl Hand {
    /// Tells whether the log can be read; only the first word counts.
    fn begin(&self, outcome: Result<(), String>) {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever asked may have left.
        begun.map(|begun| begun.send(outcome).ok());
    }
}

impl Write for Hand {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin(Ok(()));
        (&*self.pipe).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log that is being read.
struct Being {
    /// What was read; the kernel keeps some blocks of it and makes the reader wait then.
    bytes: tokio::net::UnixStream,
    begun: oneshot::Receiver<Result<(), String>>,
    /// Its drop ends the reader.
    left: DropGuard,
}

/// Reads a log on a thread of its own.
fn read(log: Log, wanted: Wanted, cri: Arc<dyn Cri>, permit: OwnedSemaphorePermit) -> io::Result<Being> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    let bytes = tokio::net::UnixStream::from_std(theirs)?;
    let (sender, begun) = oneshot::channel();
    let mut hand = Hand { pipe: Arc::new(ours), begun: Arc::new(Mutex::new(Some(sender))) };
    let left = CancellationToken::new();
    let guard = left.clone().drop_guard();
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let _permit = permit;
        let choice = Choice {
            since: wanted.since,
            until: None,
            stream: wanted.stream,
            timestamps: wanted.timestamps,
            limit: wanted.limit,
            quiet: true,
        };
        let mut other = hand.clone();
        let read = if wanted.follow {
            // One that is still silent is answered all the same.
            if log.path.exists() {
                hand.begin(Ok(()));
            }
            follow(&log, choice, wanted.tail, (&mut hand, &mut other), (&left, cri, runtime))
        } else {
            print_all(&log, choice, wanted.tail, (&mut hand, &mut other)).map(drop).map_err(words)
        };
        other.begin(read.map_err(|problem| printable(&problem)));
    };
    std::thread::Builder::new().name("log-reader".to_owned()).stack_size(STACK).spawn(work)?;
    Ok(Being { bytes, begun, left: guard })
}

/// Follows a log; its waiting is done by a runtime of this thread, since what it prints makes it wait.
fn follow(
    log: &Log,
    choice: Choice,
    tail: Option<u64>,
    outputs: Outputs<'_>,
    (left, cri, runtime): (&CancellationToken, Arc<dyn Cri>, tokio::runtime::Handle),
) -> Result<(), String> {
    let own =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let status = || {
        let (cri, id) = (Arc::clone(&cri), log.id.clone());
        // The runtime's connection belongs to the agent's own threads.
        let asked = runtime.spawn(async move { cri.container_status(&id, false).await });
        async { asked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) }
    };
    let done = own.block_on(print_and_follow(log, choice, tail, outputs, status, left.cancelled()));
    done.map(drop).map_err(words)
}

/// What went wrong, without what to do on the node about it: whoever asks is elsewhere.
#[expect(clippy::needless_pass_by_value, reason = "the form of an error's conversion")]
fn words(error: CommandError) -> String {
    chain(&*error.source)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_read_as_kubelet_reads_them() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let read = |query: &str| wanted(query, now).map_err(|refusal| refusal.0.as_u16());
        assert_eq!(read(""), Ok(Wanted::default()));
        let all = "follow=true&previous=1&timestamps=t&sinceSeconds=60&tailLines=0&limitBytes=1&x=y";
        let expected = Wanted {
            follow: true,
            previous: true,
            timestamps: true,
            since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            tail: Some(0),
            limit: Some(1),
            stream: None,
        };
        assert_eq!(read(all), Ok(expected));
        assert_eq!(read("stream=Stderr").unwrap().stream, Some(Stream::Stderr));
        assert_eq!(read("tail=7&tailLines=1").unwrap().tail, Some(7));
        assert_eq!(read("tail=all&tailLines=1").unwrap().tail, None);
        assert_eq!(read("sinceTime=2026-01-01T00%3A00%3A00Z").unwrap().since, expected_since());
        for bad in ["tailLines=x", "follow=2", "sinceTime=yesterday", "limitBytes=1.5", "tail=some"] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
        for bad in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "stream=both",
            "stream=Stdout&tailLines=1",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
        ] {
            assert_eq!(read(bad), Err(422), "{bad}");
        }
    }

    fn expected_since() -> Option<Timestamp> {
        "2026-01-01T00:00:00Z".parse().ok()
    }

    #[test]
    fn a_log_is_of_the_container_that_kubelet_would_show() {
        let of = |state: serde_json::Value, last: serde_json::Value, previous: bool| {
            let status = json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "containerID": "containerd://now", "state": state, "lastState": last });
            let status: ContainerStatus = serde_json::from_value(status).unwrap();
            container_id(Some(&status), ("p", "c"), previous)
        };
        let ended = |id: &str| json!({ "terminated": { "exitCode": 1, "containerID": id } });
        let (running, none) = (json!({ "running": {} }), json!({}));
        assert_eq!(of(running.clone(), none.clone(), false), Ok("now".to_owned()));
        assert_eq!(of(running.clone(), ended("containerd://last"), true), Ok("last".to_owned()));
        let missing = r#"previous terminated container "c" in pod "p" not found"#;
        assert_eq!(of(running, none.clone(), true), Err(missing.to_owned()));
        assert_eq!(of(ended("containerd://e"), none.clone(), false), Ok("e".to_owned()));
        assert_eq!(of(ended(""), ended("containerd://last"), false), Ok("last".to_owned()));
        assert_eq!(
            of(ended(""), none.clone(), false),
            Err(r#"container "c" in pod "p" is terminated"#.to_owned())
        );
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        assert_eq!(of(waiting("CrashLoopBackOff"), ended("containerd://last"), false), Ok("last".to_owned()));
        for (reason, words) in [
            ("ContainerCreating", "ContainerCreating"),
            ("ErrImagePull", "image can't be pulled"),
            ("ImagePullBackOff", "trying and failing to pull image"),
        ] {
            let expected = format!(r#"container "c" in pod "p" is waiting to start: {words}"#);
            assert_eq!(of(waiting(reason), none.clone(), false), Err(expected));
        }
        let error = container_id(None, ("p", "c"), false).unwrap_err();
        assert_eq!(error, r#"container "c" in pod "p" is not available"#);
    }
}
