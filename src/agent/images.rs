//! Images: present or pulled, one pull an image at a time, a bounded number at once, with back-off.
//!
//! A pod whose image is there never waits for anybody's pull: presence is asked first, without a permit. A
//! pull runs in a task of its own and goes on when the pod that wanted it is gone; whoever wants the same
//! image with the same credentials meanwhile waits for the same pull. Who comes with others has a pull of its
//! own, and a back-off of its own: nobody is let in by another's, or kept out by it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    agent::credential_providers::CredentialProviders,
    api::{
        cri::{ImageSpec, PodSandboxConfig},
        defaults::pull_policy_for,
        image_name::repository,
    },
    config::ImagePulls,
    cri::Cri,
    policy::{
        backoff::RetryBackoff,
        container_config::ImageFacts,
        keyring::{Credentials, PullAccess},
    },
    rate::TokenBucket,
};

/// How long a container waits for `ErrImagePull` before it waits for `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// Delays between tries to pull an image that failed: kubelet's 10 s doubling to 300 s.
const PULL_BACKOFF: RetryBackoff = RetryBackoff::new(Duration::from_secs(10), Duration::from_secs(300));

/// When an image is to be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The API's text; one that is unset is defaulted as the API does.
    pub fn of(policy: Option<&str>, image: &str) -> Self {
        let given = policy.filter(|policy| !policy.is_empty());
        match given.unwrap_or_else(|| pull_policy_for(image)) {
            "Always" => Self::Always,
            "Never" => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
}

/// Why an image cannot be used now.
#[derive(Debug, Clone, Error)]
pub enum ImageError {
    /// The runtime did not say whether it has the image.
    #[error("cannot ask for image {image:?}: {cause}")]
    Inspect {
        /// The image.
        image: String,
        /// The runtime's words.
        cause: String,
    },
    /// It is not there and must not be pulled.
    #[error("image {image:?} is not on this node and its pull policy is Never")]
    NeverPull {
        /// The image.
        image: String,
    },
    /// The pull failed.
    #[error("pulling image {image:?} failed: {cause}")]
    Pull {
        /// The image.
        image: String,
        /// The runtime's words.
        cause: String,
        /// How long until the next try is allowed.
        wait: Duration,
    },
    /// A pull failed before and the time for the next has not come.
    #[error("back-off before pulling image {image:?} again; the last pull failed: {cause}")]
    BackOff {
        /// The image.
        image: String,
        /// Why the last pull failed.
        cause: String,
        /// How long until the next try is allowed.
        wait: Duration,
    },
}

impl ImageError {
    /// The reason of the container's waiting state, in kubelet's words.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Inspect { .. } => "ImageInspectError",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::Pull { .. } => "ErrImagePull",
            Self::BackOff { .. } => "ImagePullBackOff",
        }
    }

    /// When to ask again; `None` where the caller's own back-off decides. After a pull that failed that is
    /// soon: the answer is then that a back-off is on, which is what the pod's status is to say meanwhile.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Pull { wait, .. } => Some((*wait).min(PULL_ERROR_SHOWN)),
            Self::BackOff { wait, .. } => Some(*wait),
            Self::Inspect { .. } | Self::NeverPull { .. } => None,
        }
    }
}

/// An image that is there.
#[derive(Debug)]
pub struct ReadyImage {
    /// What is known of it.
    pub facts: ImageFacts,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// How long its pull took, if it was pulled for this.
    pub pulled: Option<Duration>,
}

/// The image's reference, and how long the pull took.
type PullResult = Result<(String, Duration), ImageError>;

impl ImageError {
    /// With what stood in the way of credentials, as that may be why.
    fn beside(mut self, problems: &[String]) -> Self {
        if let (Self::Pull { cause, .. } | Self::BackOff { cause, .. }, false) =
            (&mut self, problems.is_empty())
        {
            *cause = format!("{cause}; of imagePullSecrets: {}", problems.join("; "));
        }
        self
    }
}

/// What limits pulls.
#[derive(Debug, Clone, Copy)]
pub struct PullLimits {
    /// How many at once.
    pub at_once: ImagePulls,
    /// `registryPullQPS`: pulls begun a second; `None` for no limit.
    pub per_second: Option<u32>,
    /// `registryBurst`.
    pub burst: u32,
}

/// Knows of all images that are wanted.
pub struct Images {
    cri: Arc<dyn Cri>,
    permits: Arc<Semaphore>,
    rate: Option<Arc<Mutex<TokenBucket>>>,
    state: Arc<Mutex<State>>,
    providers: Arc<CredentialProviders>,
}

#[derive(Default)]
struct State {
    running: HashMap<Wanted, watch::Receiver<Option<PullResult>>>,
    failed: HashMap<Wanted, Failure>,
}

/// An image, and the credentials to be tried one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    image: String,
    credentials: Vec<Credentials>,
}

struct Failure {
    backoff: RetryBackoff,
    not_before: Instant,
    cause: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Images {
    /// Over a runtime, within limits, with the programs that give credentials besides.
    pub fn new(cri: Arc<dyn Cri>, limits: PullLimits, providers: CredentialProviders) -> Self {
        let permits = match limits.at_once {
            ImagePulls::Serial => 1,
            ImagePulls::Parallel { limit: Some(limit) } => {
                usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS).max(1)
            }
            ImagePulls::Parallel { limit: None } => Semaphore::MAX_PERMITS,
        };
        Self {
            cri,
            permits: Arc::new(Semaphore::new(permits)),
            rate: limits
                .per_second
                .filter(|rate| *rate > 0)
                .map(|rate| Arc::new(Mutex::new(TokenBucket::new(rate, limits.burst)))),
            state: Arc::default(),
            providers: Arc::new(providers),
        }
    }

    /// Makes sure that the image is on the node and answers what is known of it. `on_pull` is called
    /// before a pull is waited for; not while a back-off is on. `access` is asked for only where the image has to be
    /// pulled.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn ensure(
        &self,
        image: &str,
        policy: PullPolicy,
        sandbox: &PodSandboxConfig,
        access: impl Future<Output = PullAccess>,
        on_pull: impl FnOnce(),
    ) -> Result<ReadyImage, ImageError> {
        let image = qualified(image);
        if policy != PullPolicy::Always {
            if let Some(ready) = self.present(&image).await? {
                return Ok(ready);
            }
            if policy == PullPolicy::Never {
                return Err(ImageError::NeverPull { image });
            }
        }
        let PullAccess { keyring, problems } = access.await;
        let wanted = Wanted { credentials: keyring.lookup(&repository(&image)), image };
        let pulled = self.pull(wanted, sandbox, on_pull).await;
        let (reference, took) = pulled.map_err(|error| error.beside(&problems))?;
        // A pull does not tell the image's user.
        let (facts, bytes) =
            self.present(&reference).await?.map_or_else(Default::default, |ready| (ready.facts, ready.bytes));
        Ok(ReadyImage { facts: ImageFacts { reference, ..facts }, bytes, pulled: Some(took) })
    }

    async fn present(&self, image: &str) -> Result<Option<ReadyImage>, ImageError> {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let answer = self.cri.image_status(spec, false).await.map_err(|error| ImageError::Inspect {
            image: image.to_owned(),
            cause: crate::error::chain(&error),
        })?;
        Ok(answer.image.filter(|image| !image.id.is_empty()).map(|image| {
            let uid = image.uid.map(|uid| uid.value);
            let facts = ImageFacts { reference: image.id, uid, user_name: image.username };
            ReadyImage { facts, bytes: image.size, pulled: None }
        }))
    }

    async fn pull(&self, wanted: Wanted, sandbox: &PodSandboxConfig, on_pull: impl FnOnce()) -> PullResult {
        let mut result = {
            let mut state = lock(&self.state);
            if let Some(running) = state.running.get(&wanted) {
                running.clone()
            } else {
                if let Some(failure) = state.failed.get(&wanted) {
                    let wait = failure.not_before.saturating_duration_since(Instant::now());
                    if !wait.is_zero() {
                        let cause = failure.cause.clone();
                        return Err(ImageError::BackOff { image: wanted.image, cause, wait });
                    }
                }
                let (sender, receiver) = watch::channel(None);
                state.running.insert(wanted.clone(), receiver.clone());
                tokio::spawn(self.pull_task(wanted.clone(), sandbox.clone(), sender));
                receiver
            }
        };
        on_pull();
        match result.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or(Err(lost(&wanted.image))),
            Err(_) => Err(lost(&wanted.image)),
        }
    }

    fn pull_task(
        &self,
        wanted: Wanted,
        sandbox: PodSandboxConfig,
        sender: watch::Sender<Option<PullResult>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (cri, permits, rate, state) =
            (Arc::clone(&self.cri), Arc::clone(&self.permits), self.rate.clone(), Arc::clone(&self.state));
        let providers = Arc::clone(&self.providers);
        async move {
            let image = wanted.image.clone();
            // What programs give is no part of what the pull is known by: they may give something else each time.
            // A program that hangs has no permit that others wait for.
            let (provided, problems) = providers.credentials(&repository(&image)).await;
            let mut credentials = wanted.credentials.clone();
            credentials.extend(provided.into_iter().filter(|one| !wanted.credentials.contains(one)));
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            if let Some(rate) = rate {
                let wait = lock(&rate).take(Instant::now());
                tokio::time::sleep(wait).await;
            }
            tracing::info!(image, credentials = credentials.len(), "pulling image");
            let begun = Instant::now();
            let pulled = try_each(&*cri, &image, &credentials, &sandbox).await;
            let pulled = pulled.map_err(|cause| [&[cause][..], &problems].concat().join("; "));
            let took = begun.elapsed();
            let result = {
                let mut state = lock(&state);
                state.running.remove(&wanted);
                match pulled {
                    Ok(reference) => {
                        state.failed.remove(&wanted);
                        tracing::info!(image, ?took, "pulled image");
                        Ok((reference, took))
                    }
                    Err(cause) => {
                        let now = Instant::now();
                        // What failed long ago says nothing of images that nobody wants any more.
                        state.failed.retain(|_, failure| failure.not_before + Duration::from_secs(600) > now);
                        let failure = state.failed.entry(wanted).or_insert(Failure {
                            backoff: PULL_BACKOFF,
                            not_before: now,
                            cause: String::new(),
                        });
                        let wait = failure.backoff.fail();
                        failure.not_before = now + wait;
                        failure.cause.clone_from(&cause);
                        tracing::warn!(image, ?took, ?wait, "pulling image failed: {cause}");
                        Err(ImageError::Pull { image, cause, wait })
                    }
                }
            };
            sender.send_replace(Some(result));
        }
    }
}

/// Pulls with each of the credentials until one is taken; as nobody where there are none. Kubelet too does not come as
/// nobody once it has credentials.
async fn try_each(
    cri: &dyn Cri,
    image: &str,
    credentials: &[Credentials],
    sandbox: &PodSandboxConfig,
) -> Result<String, String> {
    let nobody = credentials.is_empty().then_some(None);
    let mut causes: Vec<String> = Vec::new();
    for one in credentials.iter().map(Some).chain(nobody) {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let auth = one.map(Credentials::auth_config);
        match cri.pull_image(spec, auth, Some(sandbox.clone())).await {
            Ok(reference) => return Ok(reference),
            Err(error) => {
                let cause = crate::error::chain(&error);
                let cause = credentials.iter().fold(cause, |cause, one| one.scrub(cause));
                if !causes.contains(&cause) {
                    causes.push(cause);
                }
            }
        }
    }
    Err(causes.join("; "))
}

fn lost(image: &str) -> ImageError {
    ImageError::Inspect { image: image.to_owned(), cause: "the task that pulled it ended".to_owned() }
}

/// The name with the tag that Kubernetes supposes where none is given: `latest`.
fn qualified(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') || name.contains(':') || image.is_empty() {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_policy_is_the_apis_default() {
        for (policy, image, expected) in [
            (None, "nginx", PullPolicy::Always),
            (Some(""), "nginx", PullPolicy::Always),
            (None, "nginx:1.27", PullPolicy::IfNotPresent),
            (Some("Always"), "nginx:1.27", PullPolicy::Always),
            (Some("Never"), "nginx", PullPolicy::Never),
        ] {
            assert_eq!(PullPolicy::of(policy, image), expected, "{policy:?} {image}");
        }
    }

    #[test]
    fn a_missing_tag_is_latest() {
        for (image, expected) in [
            ("nginx", "nginx:latest"),
            ("localhost:5000/nginx", "localhost:5000/nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("nginx@sha256:00", "nginx@sha256:00"),
        ] {
            assert_eq!(qualified(image), expected);
        }
    }
}
