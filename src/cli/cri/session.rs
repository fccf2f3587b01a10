//! A runtime to ask: which one, and what to say when it does not answer.
//!
//! Where the endpoint comes from is kept, as a dead socket is mended there: a flag, a variable, crictl's
//! file. Without any, the known sockets are probed side by side, and which answered is told.

use std::{fmt, io::Write, path::PathBuf, sync::Mutex, time::Duration};

use clap::{ArgMatches, Args, parser::ValueSource};

use super::config_file::{self, Settings};
use crate::{
    cli::output::printable,
    config::GoDuration,
    cri::{Cri, CriClient, CriError, CriTimeouts, RuntimeEndpoint, probe},
    error::CommandError,
};

/// How long a call may take unless `--timeout` says so. crictl's two seconds are too short for a node
/// under load, which is when one looks.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call that changes something may take unless `--timeout` says so, as with kubelet: a pod's
/// network takes longer than a look, and a call that was cut may have happened all the same. A longer time in
/// the configuration file is kept, a shorter one is meant for looks.
const CHANGE: Duration = Duration::from_secs(120);

/// How long a known socket has to answer when no endpoint is given.
const PROBE: Duration = Duration::from_secs(2);

/// How long they have when a given endpoint is dead: the error waits for them, and they are only a hint.
const PROBE_FOR_HINT: Duration = Duration::from_millis(500);

/// Which runtime, how long to wait; given before the verb, as with crictl.
#[derive(Debug, Clone, Args)]
pub(super) struct GlobalArgs {
    /// The runtime's socket; without it, that of the configuration file, else the known ones are tried
    #[arg(short, long, value_name = "ENDPOINT", env = "CONTAINER_RUNTIME_ENDPOINT", hide_env_values = true)]
    runtime_endpoint: Option<String>,
    /// The socket of the image service, if not the runtime's
    #[arg(short, long, value_name = "ENDPOINT", env = "IMAGE_SERVICE_ENDPOINT", hide_env_values = true)]
    image_endpoint: Option<String>,
    /// How long a call may take, as in 5s, 1m30s or 5 (seconds); without it 10s, or what the configuration
    /// file says, and at least 2m for what changes something
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Say on stderr what is asked, where, and how long the answer takes
    #[arg(short = 'D', long)]
    debug: bool,
    /// The client's configuration file, crictl's own
    #[arg(
        short,
        long,
        value_name = "PATH",
        env = "CRI_CONFIG_FILE",
        hide_env_values = true,
        default_value = config_file::DEFAULT
    )]
    pub(super) config: PathBuf,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => GoDuration::parse(text).map_err(|error| error.to_string())?.to_std(),
    };
    if duration.is_zero() { Err("a call needs some time".to_owned()) } else { Ok(duration) }
}

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    File(PathBuf, &'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "the flag --{name}"),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::File(path, key) => write!(f, "{key} in {}", path.display()),
        }
    }
}

/// An endpoint that was given, and where.
type Given = Option<(RuntimeEndpoint, Origin)>;

/// All that decides whom to ask.
struct Plan {
    settings: Settings,
    runtime: Given,
    image: Given,
    timeout: Duration,
    change: Duration,
    debug: bool,
}

impl Plan {
    fn new(args: &GlobalArgs, matches: &ArgMatches) -> Result<Self, CommandError> {
        let settings = match config_file::load(&args.config)? {
            Some(settings) => settings,
            None if matches.value_source("config") == Some(ValueSource::DefaultValue) => Settings::default(),
            None => {
                return Err(CommandError::usage(format!("{} does not exist", args.config.display()))
                    .hint("`nodectl cri config --set KEY=VALUE` makes it"));
            }
        };
        let given = |value: &Option<String>, id: &str, flag, variable| {
            let text = value.as_deref().filter(|text| !text.trim().is_empty());
            let (text, origin) = match (text, matches.value_source(id)) {
                (Some(text), Some(ValueSource::EnvVariable)) => (text, Origin::Variable(variable)),
                (Some(text), _) => (text, Origin::Flag(flag)),
                (None, _) => match settings.get(flag) {
                    Some(text) => (text, Origin::File(args.config.clone(), flag)),
                    None => return Ok(None),
                },
            };
            let endpoint = text.parse::<RuntimeEndpoint>();
            let endpoint = endpoint
                .map_err(|error| CommandError::usage(error).hint(format!("it comes from {origin}")))?;
            Ok::<Given, CommandError>(Some((endpoint, origin)))
        };
        let seconds = settings.get("timeout").and_then(|text| text.parse().ok()).filter(|n| *n > 0);
        let timeout = args.timeout.or(seconds.map(Duration::from_secs)).unwrap_or(TIMEOUT);
        Ok(Self {
            runtime: given(
                &args.runtime_endpoint,
                "runtime_endpoint",
                "runtime-endpoint",
                "CONTAINER_RUNTIME_ENDPOINT",
            )?,
            image: given(&args.image_endpoint, "image_endpoint", "image-endpoint", "IMAGE_SERVICE_ENDPOINT")?,
            timeout,
            change: args.timeout.unwrap_or(timeout.max(CHANGE)),
            debug: args.debug || settings.get("debug") == Some("true"),
            settings,
        })
    }
}

/// The endpoint that was given, with where, and how long a socket has to answer.
///
/// # Errors
/// [`CommandError`] if the endpoint or the configuration file is broken.
pub(super) fn given(
    args: &GlobalArgs,
    matches: &ArgMatches,
) -> Result<(Option<(RuntimeEndpoint, String)>, Duration), CommandError> {
    let plan = Plan::new(args, matches)?;
    let runtime = plan.runtime.map(|(endpoint, origin)| (endpoint, origin.to_string()));
    Ok((runtime, plan.timeout.min(PROBE)))
}

/// A runtime that is asked.
pub(super) struct Session {
    pub(super) cri: CriClient,
    /// The same runtime, with time enough for what changes something.
    pub(super) change: CriClient,
    /// The calls under way that change something, for whoever interrupts them.
    pub(super) under_way: Mutex<Vec<String>>,
    /// What the configuration file says beside whom to ask.
    pub(super) settings: Settings,
    runtime: Given,
    image: Given,
    debug: bool,
}

impl Session {
    /// Chooses the runtime. Only without a given endpoint is anything asked here.
    pub(super) async fn open(
        args: &GlobalArgs,
        matches: &ArgMatches,
        err: &mut dyn Write,
    ) -> Result<Self, CommandError> {
        let plan = Plan::new(args, matches)?;
        let endpoint = match &plan.runtime {
            Some((endpoint, _)) => endpoint.clone(),
            None => find(plan.timeout.min(PROBE), err).await?,
        };
        let cri = CriClient::connect_lazy_to_any(
            endpoint,
            plan.image.as_ref().map(|(endpoint, _)| endpoint.clone()),
            CriTimeouts::from_request_timeout(plan.timeout),
        );
        let session = Self {
            change: cri.with_timeouts(CriTimeouts::from_request_timeout(plan.change)),
            cri,
            under_way: Mutex::default(),
            settings: plan.settings,
            runtime: plan.runtime,
            image: plan.image,
            debug: plan.debug,
        };
        let origin = session.runtime.as_ref().map_or_else(|| "probing".to_owned(), |(_, o)| o.to_string());
        session.note(&format!("endpoint {} from {origin}, limit {:?}", session.cri.endpoint(), plan.timeout));
        Ok(session)
    }

    /// A line of `--debug`.
    fn note(&self, text: &str) {
        if self.debug {
            // There is nobody to tell that telling failed.
            writeln!(std::io::stderr(), "debug: {}", printable(text)).ok();
        }
    }

    /// Awaits a call; its failure is told with what can be done about it.
    pub(super) async fn ask<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<T, CriError>>,
    ) -> Result<T, CommandError> {
        match self.try_ask(rpc, call).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// [`Self::ask`] for a call whose failure the caller looks at.
    pub(super) async fn try_ask<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<T, CriError>>,
    ) -> Result<T, CriError> {
        let begun = std::time::Instant::now();
        let answer = call.await;
        let ended = answer.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
        let dialect = if self.cri.speaks_v1alpha2() { " in v1alpha2" } else { "" };
        self.note(&format!("{rpc} took {:?}{dialect}{ended}", begun.elapsed()));
        answer
    }

    /// What to tell of a call that failed.
    pub(super) async fn failed(&self, error: &CriError) -> CommandError {
        if error.is_unimplemented() && !error.is_no_cri_v1() {
            return self.unimplemented(error.rpc()).await;
        }
        let told = CommandError::failed(printable(&error.to_string()));
        if !error.is_unavailable() {
            return if error.is_deadline_exceeded() {
                told.hint("the runtime is overloaded or hangs; `--timeout` waits longer")
            } else {
                told
            };
        }
        // The origin of whichever socket it was.
        let given = [&self.image, &self.runtime].into_iter().flatten();
        let origin = given.into_iter().find(|(endpoint, _)| endpoint.to_string() == error.endpoint());
        let told = match origin {
            Some((_, origin @ Origin::File(_, key))) => told.hint(format!(
                "this endpoint is {origin}; `nodectl cri config --set {key}=ENDPOINT` changes it"
            )),
            Some((_, origin)) => told.hint(format!("this endpoint comes from {origin}")),
            None => told,
        };
        match answering(&probe(&RuntimeEndpoint::well_known(), PROBE_FOR_HINT).await) {
            Some((endpoint, name)) if endpoint.to_string() != error.endpoint() => {
                told.hint(format!("{name} answers at {endpoint}"))
            }
            _ => told,
        }
    }

    /// A call that this runtime lacks.
    pub(super) async fn unimplemented(&self, rpc: &str) -> CommandError {
        let who = match self.cri.version().await {
            Ok(version) => format!("{} {}", version.runtime_name, version.runtime_version),
            Err(_) => format!("the runtime at {}", self.cri.endpoint()),
        };
        CommandError::failed(printable(&format!("{who} does not implement {rpc}")))
    }
}

type Probed = Vec<(RuntimeEndpoint, Option<Result<crate::api::cri::VersionResponse, CriError>>)>;

fn answering(probed: &Probed) -> Option<(RuntimeEndpoint, String)> {
    probed.iter().find_map(|(endpoint, answer)| {
        let version = answer.as_ref()?.as_ref().ok()?;
        let name = format!("{} {}", version.runtime_name, version.runtime_version);
        Some((endpoint.clone(), printable(&name)))
    })
}

/// The first of the known sockets that answers.
async fn find(limit: Duration, err: &mut dyn Write) -> Result<RuntimeEndpoint, CommandError> {
    let probed = probe(&RuntimeEndpoint::well_known(), limit).await;
    let Some((endpoint, name)) = answering(&probed) else {
        return Err(none_answers(&probed));
    };
    // Only a note: a closed stderr does not matter.
    writeln!(
        err,
        "using {endpoint} ({name}); `nodectl cri config --set runtime-endpoint={endpoint}` keeps it"
    )
    .ok();
    Ok(endpoint)
}

fn none_answers(probed: &Probed) -> CommandError {
    let problem = |endpoint: &RuntimeEndpoint, answer: &Option<Result<_, CriError>>| match answer {
        // What to do is said once for all of them.
        Some(Err(error)) => error.message().split(';').next().unwrap_or_default().to_owned(),
        _ => format!("{endpoint} did not answer"),
    };
    let problems: Vec<String> = probed.iter().map(|(endpoint, answer)| problem(endpoint, answer)).collect();
    let told =
        CommandError::failed(format!("no container runtime answers: {}", printable(&problems.join("; "))));
    if problems.iter().any(|problem| problem.starts_with("permission denied")) {
        return told.hint("run as root");
    }
    told.hint("start the container runtime, or give its socket with --runtime-endpoint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};

    fn plan(arguments: &[&str], file: &str) -> Result<Plan, CommandError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crictl.yaml");
        std::fs::write(&path, file).unwrap();
        // Without the variables: tests run side by side, and the environment is one.
        let command = GlobalArgs::augment_args(Command::new("cri"))
            .mut_arg("runtime_endpoint", |arg| arg.env(None))
            .mut_arg("image_endpoint", |arg| arg.env(None))
            .mut_arg("config", |arg| arg.env(None));
        let all = ["cri", "--config", path.to_str().unwrap()].into_iter().chain(arguments.iter().copied());
        let matches = command.get_matches_from(all);
        Plan::new(&GlobalArgs::from_arg_matches(&matches).unwrap(), &matches)
    }

    #[test]
    fn flags_go_before_the_file() {
        let file = "runtime-endpoint: /run/file.sock\ntimeout: 7\ndebug: true\n";
        let made = plan(&[], file).unwrap();
        let (endpoint, origin) = made.runtime.unwrap();
        assert_eq!(endpoint.to_string(), "unix:///run/file.sock");
        assert!(origin.to_string().starts_with("runtime-endpoint in /"), "{origin}");
        assert_eq!((made.timeout, made.debug, made.image), (Duration::from_secs(7), true, None));
        assert_eq!(made.change, CHANGE);
        let made = plan(&["-r", "/run/flag.sock", "-i", "unix:///run/i.sock", "-t", "1m"], file).unwrap();
        let (endpoint, origin) = made.runtime.unwrap();
        assert_eq!(endpoint.to_string(), "unix:///run/flag.sock");
        assert_eq!(origin, Origin::Flag("runtime-endpoint"));
        assert_eq!(made.image.unwrap().0.to_string(), "unix:///run/i.sock");
        assert_eq!([made.timeout, made.change], [Duration::from_secs(60); 2]);
        assert_eq!(plan(&[], "timeout: 300").unwrap().change, Duration::from_secs(300));
        let made = plan(&["-r", ""], "timeout: 0").unwrap();
        assert_eq!((made.runtime, made.timeout, made.debug), (None, TIMEOUT, false));
    }

    #[test]
    fn a_broken_file_or_endpoint_is_wrong_configuration() {
        for (arguments, file) in [(&[][..], "nope: 1"), (&["-r", "tcp://x"][..], "")] {
            let error = plan(arguments, file).err().unwrap();
            assert_eq!(error.kind.code(), 2, "{error}");
        }
    }

    #[test]
    fn durations_are_gos_or_plain_seconds() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "x", "0", "0s", "-3s", "5 s"] {
            duration(wrong).unwrap_err();
        }
    }
}
