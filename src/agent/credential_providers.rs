//! Programs that give credentials for registries, asked before a pull (kubelet's credential provider plugins).
//!
//! A program is given a request on its standard input and answers on its standard output. It is run without a shell,
//! for a bounded time, and no more of what it says is read than a bound; requests for one image are one run. What it
//! answers is kept as long as it says, for the image, its registry, or all images. None of it is shown.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::Instant,
};

use crate::{
    config::{CredentialProvider, GoDuration},
    policy::keyring::{Credentials, Keyring, fits},
};

/// How long a program may take, as with kubelet.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const MAX_ANSWER: u64 = 1 << 20;
/// Bytes of what it says beside.
const MAX_COMPLAINT: u64 = 4096;
/// Letters of that in a message.
const SHOWN: usize = 300;
/// Answers that are kept of a program; of more the ones that count for the shortest time go.
const MAX_KEPT: usize = 1000;

/// The programs of this node.
pub struct CredentialProviders(Vec<Provider>);

impl CredentialProviders {
    /// Those that are configured.
    pub fn new(providers: Vec<CredentialProvider>) -> Self {
        let provider = |config| Provider {
            config: Arc::new(config),
            limit: LIMIT,
            running: Mutex::default(),
            kept: Mutex::default(),
        };
        Self(providers.into_iter().map(provider).collect())
    }

    /// What the programs give for an image's repository, and why one of them gives nothing. All are asked at once.
    pub async fn credentials(&self, repository: &str) -> (Vec<Credentials>, Vec<String>) {
        let asked = self.0.iter().filter(|provider| provider.is_for(repository));
        let answers = futures_util::future::join_all(asked.map(|provider| async move {
            let answer = provider.ask(repository).await;
            answer.map_err(|why| format!("credential provider {:?}: {why}", provider.config.name))
        }));
        let (mut keyring, mut problems) = (Keyring::default(), Vec::new());
        for answer in answers.await {
            match answer {
                Ok(entries) => {
                    entries.iter().for_each(|(location, one)| keyring.add(location, one.clone()));
                }
                Err(why) => {
                    tracing::warn!(image = repository, "{why}");
                    problems.push(why);
                }
            }
        }
        (keyring.lookup(repository), problems)
    }
}

/// Credentials by where they are good for.
type Entries = Arc<[(String, Credentials)]>;
type Asked = Shared<BoxFuture<'static, Result<Answer, String>>>;

/// For what an answer counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum CacheKey {
    Image(String),
    Registry(String),
    Global,
}

struct Provider {
    config: Arc<CredentialProvider>,
    limit: Duration,
    running: Mutex<HashMap<String, Asked>>,
    kept: Mutex<HashMap<CacheKey, (Instant, Entries)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registry(repository: &str) -> String {
    repository.split('/').next().unwrap_or_default().to_owned()
}

impl Provider {
    fn is_for(&self, repository: &str) -> bool {
        self.config.match_images.iter().any(|pattern| fits(pattern, repository))
    }

    async fn ask(&self, repository: &str) -> Result<Entries, String> {
        let asked = {
            let mut running = lock(&self.running);
            if let Some(kept) = self.kept(repository) {
                return Ok(kept);
            }
            let run = || run(Arc::clone(&self.config), repository.to_owned(), self.limit).boxed().shared();
            running.entry(repository.to_owned()).or_insert_with(run).clone()
        };
        let answer = asked.clone().await;
        let mut running = lock(&self.running);
        // The first who hears of it.
        if running.get(repository).is_some_and(|known| known.ptr_eq(&asked)) {
            running.remove(repository);
            if let Ok(answer) = &answer {
                self.keep(repository, answer);
            }
        }
        Ok(answer?.entries)
    }

    fn kept(&self, repository: &str) -> Option<Entries> {
        let kept = lock(&self.kept);
        let now = Instant::now();
        let keys = [
            CacheKey::Image(repository.to_owned()),
            CacheKey::Registry(registry(repository)),
            CacheKey::Global,
        ];
        let found = keys.iter().find_map(|key| kept.get(key).filter(|(until, _)| *until > now));
        found.map(|(_, entries)| Arc::clone(entries))
    }

    fn keep(&self, repository: &str, answer: &Answer) {
        let duration = answer.duration.unwrap_or(self.config.default_cache_duration);
        let now = Instant::now();
        let Some(until) = now.checked_add(duration).filter(|until| *until > now) else { return };
        let key = match answer.key {
            KeyType::Image => CacheKey::Image(repository.to_owned()),
            KeyType::Registry => CacheKey::Registry(registry(repository)),
            KeyType::Global => CacheKey::Global,
        };
        let mut kept = lock(&self.kept);
        kept.retain(|_, (until, _)| *until > now);
        if kept.len() >= MAX_KEPT
            && let Some(first) = kept.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone())
        {
            kept.remove(&first);
        }
        kept.insert(key, (until, Arc::clone(&answer.entries)));
    }
}

#[derive(Clone, Copy, Deserialize)]
enum KeyType {
    Image,
    Registry,
    Global,
}

#[derive(Clone)]
struct Answer {
    key: KeyType,
    duration: Option<Duration>,
    entries: Entries,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: KeyType,
    cache_duration: Option<GoDuration>,
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Asks the program.
///
/// # Errors
/// Why there is no answer, without a word of it.
async fn run(config: Arc<CredentialProvider>, repository: String, limit: Duration) -> Result<Answer, String> {
    tracing::debug!(provider = config.name, image = repository, "asking for credentials");
    let request = json!({
        "kind": "CredentialProviderRequest", "apiVersion": config.api_version, "image": repository,
    });
    let mut command = Command::new(&config.program);
    command
        .args(&config.args)
        .envs(config.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let say = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read what it is asked may answer all the same.
                stdin.write_all(request.to_string().as_bytes()).await.ok();
            }
        };
        let ((), answer, complaint) =
            tokio::join!(say, bounded(stdout, MAX_ANSWER), bounded(stderr, MAX_COMPLAINT));
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if !status.success() {
            let text = String::from_utf8_lossy(&complaint);
            let last = text.trim().lines().last().unwrap_or_default();
            let last: String = last.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            return Err(format!("{status} {last}").trim_end().to_owned());
        }
        Ok(answer)
    };
    let answer = tokio::time::timeout(limit, talk).await;
    let Ok(answer) = answer else {
        // It is still there, so that its number is nobody else's; its children hold the streams as well.
        if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
            killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
        }
        return Err(format!("no answer within {} s", limit.as_secs()));
    };
    read(&config, &answer?)
}

/// What is read of a stream; the rest is thrown away, so that nobody waits to be heard.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(limit + 1).read_to_end(&mut said).await.ok();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    }
    said
}

fn read(config: &CredentialProvider, answer: &[u8]) -> Result<Answer, String> {
    if answer.len() as u64 > MAX_ANSWER {
        return Err(format!("its answer is larger than {} KiB", MAX_ANSWER >> 10));
    }
    // The parser's own words may quote what stands there.
    let response: Response = serde_json::from_slice(answer).map_err(|error| {
        format!("its answer cannot be read: line {}, column {}", error.line(), error.column())
    })?;
    if response.kind != "CredentialProviderResponse" || response.api_version != config.api_version {
        return Err(format!("its answer is no CredentialProviderResponse of {}", config.api_version));
    }
    let entries = response.auth.unwrap_or_default().into_iter();
    let entries =
        entries.filter_map(|(at, auth)| Some((at, Credentials::new(auth.username, auth.password)?)));
    Ok(Answer {
        key: response.cache_key_type,
        duration: response.cache_duration.map(GoDuration::to_std),
        entries: entries.collect(),
    })
}

#[cfg(test)]
#[path = "credential_providers_tests.rs"]
mod tests;
