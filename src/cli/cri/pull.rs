//! `nodectl cri pull`, and pulling before a container is made.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write},
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    act::aside, credentials::CredentialArgs, message_file, schema::PodSchema, session::Session, text::size,
};
use crate::{
    api::cri::{AuthConfig, ImageSpec, PodSandboxConfig},
    cli::output::{printable, write},
    config::GoDuration,
    cri::{Arriving, Cri as _, CriTimeouts},
    error::CommandError,
};

/// How often the progress is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Letters of a name in the progress, which is to stay on one line.
const SHOWN: usize = 40;

/// Parts of an image that are counted; more are left out.
const MAX_PARTS: usize = 512;

/// How to pull.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PullingArgs {
    #[command(flatten)]
    credentials: CredentialArgs,
    /// How long a pull may take, as in 5m; 0s, which is the default, for as long as it takes
    #[arg(
        long,
        visible_alias = "pt",
        value_name = "DURATION",
        env = "CRICTL_PULL_TIMEOUT",
        hide_env_values = true,
        value_parser = limit
    )]
    pull_timeout: Option<Duration>,
}

/// Arguments of `nodectl cri pull`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct PullArgs {
    #[command(subcommand)]
    pub(super) schema: Option<PodSchema>,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]", required = true)]
    image: Option<String>,
    #[command(flatten)]
    pulling: PullingArgs,
    /// Pull it for a pod of this configuration: a JSON or YAML file, or - for standard input
    #[arg(long, value_name = "FILE")]
    pod_config: Option<String>,
    /// An annotation for the runtime; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

fn limit(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) if text.trim_start().starts_with('-') => Err("a pull needs some time".to_owned()),
        Err(_) => Ok(GoDuration::parse(text).map_err(|error| error.to_string())?.to_std()),
    }
}

pub(super) async fn run(args: &PullArgs, session: &Session, out: &mut dyn Write) -> Result<(), CommandError> {
    // Not there beside `jsonschema` alone, which the command line has made sure of.
    let image = args.image.clone().unwrap_or_default();
    let mut annotations = BTreeMap::new();
    for text in &args.annotation {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => annotations.insert(key.to_owned(), value.to_owned()),
            _ => return Err(CommandError::usage(format!("--annotation {text:?} is no KEY=VALUE"))),
        };
    }
    let config = match args.pod_config.clone() {
        Some(file) => Some(aside(move || message_file::pod(&file)).await?),
        None => None,
    };
    let auth = args.pulling.credentials.of(&image).await?;
    let image = ImageSpec { image, annotations, ..ImageSpec::default() };
    let pulled = args.pulling.pull(image, auth, config, session).await?;
    write(out, &format!("Image is up to date for {}\n", printable(&pulled)))
}

impl PullingArgs {
    /// Pulls images one after the other, each with what the credentials have for its registry.
    pub(super) async fn pull_all(
        &self,
        images: Vec<ImageSpec>,
        config: &PodSandboxConfig,
        session: &Session,
    ) -> Result<(), CommandError> {
        // A password is asked for once.
        let mut asked: Option<Option<AuthConfig>> = None;
        for image in images {
            let auth = match (&asked, self.credentials.asks()) {
                (Some(auth), true) => auth.clone(),
                _ => self.credentials.of(&image.image).await?,
            };
            asked = Some(auth.clone());
            self.pull(image, auth, Some(config.clone()), session).await?;
        }
        Ok(())
    }

    async fn pull(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        config: Option<PodSandboxConfig>,
        session: &Session,
    ) -> Result<String, CommandError> {
        let name = image.image.clone();
        let pull = self.pull_timeout.filter(|limit| !limit.is_zero());
        let cri = session.change.with_timeouts(CriTimeouts { pull, ..CriTimeouts::default() });
        let pulling = session.act("PullImage", &name, cri.pull_image(image, auth, config));
        if !std::io::stderr().is_terminal() {
            return pulling.await;
        }
        tokio::pin!(pulling);
        let _line = Line;
        let begun = Instant::now();
        let mut progress = Progress::default();
        let mut again = tokio::time::interval(LOOK_AGAIN);
        loop {
            tokio::select! {
                pulled = &mut pulling => return pulled,
                _ = again.tick() => {
                    let arriving = session.cri.arriving(begun.elapsed()).await;
                    progress.take(arriving.unwrap_or_default());
                    show(&progress.line(&name, begun.elapsed()));
                }
            }
        }
    }
}

/// How far a pull has come, where the runtime tells.
#[derive(Default)]
struct Progress {
    /// Bytes that have come, and bytes in all, of what has been seen to arrive.
    parts: BTreeMap<String, (u64, u64)>,
    /// Whether something still arrives.
    arriving: bool,
}

impl Progress {
    /// Takes another look. What is no longer arriving is there.
    fn take(&mut self, arriving: Vec<Arriving>) {
        self.arriving = !arriving.is_empty();
        for (done, total) in self.parts.values_mut() {
            *total = (*total).max(*done);
            *done = *total;
        }
        for part in arriving {
            if self.parts.len() < MAX_PARTS || self.parts.contains_key(&part.name) {
                self.parts.insert(part.name, (part.done, part.total));
            }
        }
    }

    fn line(&self, name: &str, elapsed: Duration) -> String {
        let name = printable(name);
        let short: String = name.chars().skip(name.chars().count().saturating_sub(SHOWN)).collect();
        let sum = |of: fn(&(u64, u64)) -> u64| self.parts.values().map(of).fold(0, u64::saturating_add);
        let (done, total) = (sum(|part| part.0), sum(|part| part.1));
        let bytes = match (done, self.arriving) {
            (0, false) => String::new(),
            (_, false) => format!(", {}, unpacking", size(done)),
            _ if done < total => format!(", {} of {}", size(done), size(total)),
            _ => format!(", {}", size(done)),
        };
        format!("pulling {short}: {} s{bytes}", elapsed.as_secs())
    }
}

fn show(text: &str) {
    let mut err = std::io::stderr();
    // To the begin of the line, and nothing else on it. There is nobody to tell that telling failed.
    write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()).ok();
}

/// The line of the progress, which is taken away in the end, also where the pull was interrupted.
struct Line;

impl Drop for Line {
    fn drop(&mut self) {
        show("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(limit("0s"), Ok(Duration::ZERO));
        assert_eq!(limit("90"), Ok(Duration::from_secs(90)));
        assert_eq!(limit("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "x", "-5s", "5 s"] {
            limit(wrong).unwrap_err();
        }
    }

    #[test]
    fn progress_is_one_line_and_never_goes_back() {
        let second = Duration::from_secs(1);
        let part = |name: &str, done, total| Arriving { name: name.to_owned(), done, total };
        let mut progress = Progress::default();
        let mut shown = |arriving: Vec<Arriving>| {
            progress.take(arriving);
            progress.line("x:1", second)
        };
        assert_eq!(shown(Vec::new()), "pulling x:1: 1 s");
        assert_eq!(shown(vec![part("a", 1000, 2000), part("b", 0, 5000)]), "pulling x:1: 1 s, 1kB of 7kB");
        assert_eq!(shown(vec![part("b", 1000, 5000)]), "pulling x:1: 1 s, 3kB of 7kB");
        assert_eq!(shown(vec![part("c", 1000, 0)]), "pulling x:1: 1 s, 8kB");
        assert_eq!(shown(Vec::new()), "pulling x:1: 1 s, 8kB, unpacking");
        assert!(Progress::default().line(&"x".repeat(500), second).len() < 80);
        assert!(!Progress::default().line("a\nb\x1b[2J", second).contains(['\n', '\x1b']));
    }
}
