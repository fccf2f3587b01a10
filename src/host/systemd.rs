//! systemd's manager over D-Bus: what a unit is, and starting, stopping and enabling it, each until it is done.
//!
//! A job's end is told by the signal `JobRemoved`, which is listened for before the job is asked for, so that it
//! cannot be missed; and every wait is bounded. (org.freedesktop.systemd1(5))

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::time::timeout;
use zbus::{
    Connection, MatchRule, Message, MessageStream,
    message::Type,
    zvariant::{self, DynamicType, OwnedObjectPath, OwnedValue},
};

use super::systemd_private::{self, SOCKET};

/// The bus; where there is none, systemd has a socket of its own, which root may use.
const BUS: &str = "unix:path=/run/dbus/system_bus_socket";

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// On a connection of its own there is nothing to subscribe to twice; on one that is shared there may be.
const SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";

/// A connection takes this long at most, and so does each of the two ways to one.
const CONNECT: Duration = Duration::from_secs(5);
/// A question, and a change of links or of the queue of jobs.
const ANSWER: Duration = Duration::from_secs(10);
/// systemd reads all its units and runs all generators, which have 90 s; on a busy node it takes seconds.
const RELOAD: Duration = Duration::from_secs(120);
/// Ends of jobs that wait to be looked at: those of others come too, many at once while a node starts or stops.
const QUEUE: usize = 4096;

/// `symlink` or `unlink`, the link, and what it leads to.
type Link = (String, String, String);

/// systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// It cannot be reached.
    #[error("cannot reach systemd over D-Bus at {BUS} or {SOCKET}: {0}")]
    Unreachable(String),
    /// It refused, or the connection broke.
    #[error("systemd does not {what} {unit}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// For which unit, or for what else.
        unit: String,
        /// Its answer.
        source: Box<zbus::Error>,
    },
    /// The unit did not come to where it should.
    #[error("systemd could not {what} {unit}: its job ended with {result:?}; see `journalctl -u {unit}`")]
    Failed {
        /// What was asked.
        what: &'static str,
        /// For which unit.
        unit: String,
        /// systemd's word: `failed`, `timeout`, `dependency`, `canceled`, …
        result: String,
    },
    /// It did not answer in time, or the unit did not get there. Its job goes on.
    #[error("systemd did not {what} {unit} within {} s", within.as_secs())]
    Late {
        /// What was asked.
        what: &'static str,
        /// For which unit, or for what else.
        unit: String,
        /// How long it had.
        within: Duration,
    },
}

/// A unit as systemd has it. The words are systemd's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active: String,
    /// Finer, as in `running`, `dead`, `auto-restart`.
    pub sub: String,
    /// `enabled`, `disabled`, `static`, `masked`, …; empty if there is no file.
    pub enabled: String,
    /// Its file.
    pub fragment: Option<PathBuf>,
    /// Its drop-ins, in the order in which they count.
    pub drop_ins: Vec<PathBuf>,
    /// Whether its files have changed since systemd read them.
    pub needs_reload: bool,
}

/// How a service's process fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// How it ended last: `success`, `exit-code`, `signal`, `start-limit-hit`, …
    pub result: String,
    /// The last exit status of its main process.
    pub exit_status: i32,
    /// How often systemd has started it again by itself; systemd before 235 does not tell.
    pub restarts: u32,
    /// Its main process; 0 if there is none.
    pub main_pid: u32,
}

/// A connection to systemd. Units' names are whole, as in `kubelet.service`.
#[derive(Debug, Clone)]
pub struct Systemd {
    connection: Connection,
    version: String,
}

impl Systemd {
    /// Connects over the system bus; where there is none, or systemd is not on it, over the socket that systemd
    /// has for root, as systemctl does.
    ///
    /// # Errors
    /// [`SystemdError::Unreachable`].
    pub async fn connect() -> Result<Self, SystemdError> {
        let bus = match timeout(CONNECT, Self::over_bus()).await {
            Ok(Ok(systemd)) => return Ok(systemd),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer from the bus".to_owned(),
        };
        match timeout(CONNECT, Self::over_private()).await {
            Ok(Ok(systemd)) => Ok(systemd),
            // Most often neither is there, and the bus is what people know.
            Ok(Err(_)) | Err(_) => Err(SystemdError::Unreachable(bus)),
        }
    }

    async fn over_bus() -> zbus::Result<Self> {
        Self::over(zbus::connection::Builder::address(BUS)?.build().await?).await
    }

    async fn over_private() -> zbus::Result<Self> {
        Self::over(systemd_private::connect(Path::new(SOCKET)).await?).await
    }

    /// Over a connection that is there already.
    ///
    /// # Errors
    /// When systemd does not tell its version on it.
    pub async fn over(connection: Connection) -> zbus::Result<Self> {
        let mut systemd = Self { connection, version: String::new() };
        let answer = systemd.call(PATH, PROPERTIES, "Get", &(MANAGER, "Version")).await?;
        let value: OwnedValue = answer.body().deserialize()?;
        systemd.version = String::try_from(value)?;
        Ok(systemd)
    }

    /// systemd's version as it says it, as in `252.22-1~deb12u1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What a unit is. One that is nowhere has `load` `not-found`.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn unit(&self, name: &str) -> Result<UnitState, SystemdError> {
        let what = "tell of";
        let ask = async {
            // It reads the unit's files, if it has not: what is not running may not be in memory.
            let answer = self.call(PATH, MANAGER, "LoadUnit", &(name,)).await?;
            let path: OwnedObjectPath = answer.body().deserialize()?;
            let answer = self.call(path.as_str(), PROPERTIES, "GetAll", &(UNIT,)).await?;
            let body = answer.body();
            body.deserialize::<Properties>()
        };
        Ok(within(ANSWER, what, name, ask).await?.into())
    }

    /// How a service's process fares. Blocks no longer than [`Systemd::unit`].
    ///
    /// # Errors
    /// [`SystemdError`]; also for a unit that is no service.
    pub async fn service(&self, name: &str) -> Result<ServiceState, SystemdError> {
        let ask = async {
            let answer = self.call(PATH, MANAGER, "LoadUnit", &(name,)).await?;
            let path: OwnedObjectPath = answer.body().deserialize()?;
            let answer = self.call(path.as_str(), PROPERTIES, "GetAll", &(SERVICE,)).await?;
            let body = answer.body();
            body.deserialize::<ServiceProperties>()
        };
        Ok(within(ANSWER, "tell of", name, ask).await?.into())
    }

    /// Starts a unit and waits for it: until a service of `Type=notify` says that it is ready.
    ///
    /// # Errors
    /// [`SystemdError`]; [`SystemdError::Failed`] with the result of its job.
    pub async fn start(&self, name: &str, limit: Duration) -> Result<(), SystemdError> {
        self.job("StartUnit", "start", name, limit).await
    }

    /// Stops a unit and waits until it is stopped. One that is not there is fine.
    ///
    /// # Errors
    /// As [`Systemd::start`].
    pub async fn stop(&self, name: &str, limit: Duration) -> Result<(), SystemdError> {
        match self.job("StopUnit", "stop", name, limit).await {
            Err(SystemdError::Refused { source, .. }) if is_named(&source, NO_SUCH_UNIT) => Ok(()),
            result => result,
        }
    }

    /// Stops a unit if it runs, starts it and waits for it.
    ///
    /// # Errors
    /// As [`Systemd::start`].
    pub async fn restart(&self, name: &str, limit: Duration) -> Result<(), SystemdError> {
        self.job("RestartUnit", "restart", name, limit).await
    }

    /// Forgets that a unit has failed, and how often it was started lately: one that has failed too often would
    /// not be started. One that is not in memory has nothing to forget.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        let body = (name,);
        let ask = self.call(PATH, MANAGER, "ResetFailedUnit", &body);
        match within(ANSWER, "reset", name, ask).await {
            Err(SystemdError::Refused { source, .. }) if is_named(&source, NO_SUCH_UNIT) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Has a unit started with the node, and answers whether that changed anything.
    ///
    /// # Errors
    /// [`SystemdError`]; also for a unit that is masked or nowhere.
    pub async fn enable(&self, name: &str) -> Result<bool, SystemdError> {
        let (runtime, force) = (false, false);
        let ask = async {
            let answer = self.call(PATH, MANAGER, "EnableUnitFiles", &(&[name][..], runtime, force)).await?;
            Ok(is_change(&answer.body().deserialize::<(bool, Vec<Link>)>()?.1))
        };
        self.linked(within(ANSWER, "enable", name, ask).await?).await
    }

    /// Has a unit not started with the node any more, and answers whether that changed anything. One that is not
    /// there is fine.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn disable(&self, name: &str) -> Result<bool, SystemdError> {
        let ask = async {
            let answer = self.call(PATH, MANAGER, "DisableUnitFiles", &(&[name][..], false)).await?;
            Ok(is_change(&answer.body().deserialize::<Vec<Link>>()?))
        };
        match within(ANSWER, "disable", name, ask).await {
            Err(SystemdError::Refused { source, .. }) if is_named(&source, NO_SUCH_UNIT) => Ok(false),
            changed => self.linked(changed?).await,
        }
    }

    /// Links are there for systemd when it has read them.
    async fn linked(&self, changed: bool) -> Result<bool, SystemdError> {
        if changed {
            self.reload().await?;
        }
        Ok(changed)
    }

    /// Has systemd read all units' files (`systemctl daemon-reload`).
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn reload(&self) -> Result<(), SystemdError> {
        within(RELOAD, "reload", "its units", self.call(PATH, MANAGER, "Reload", &())).await.map(drop)
    }

    async fn job(
        &self,
        method: &'static str,
        what: &'static str,
        name: &str,
        limit: Duration,
    ) -> Result<(), SystemdError> {
        let run = async {
            let mut ends = self.job_ends().await?;
            let answer = self.call(PATH, MANAGER, method, &(name, "replace")).await?;
            let job: OwnedObjectPath = answer.body().deserialize()?;
            while let Some(message) = ends.next().await {
                let message = message?;
                let body = message.body();
                let Ok((_, ended, _, result)) = body.deserialize::<(u32, OwnedObjectPath, &str, &str)>()
                else {
                    continue;
                };
                if ended == job {
                    return Ok(result.to_owned());
                }
            }
            Err(zbus::Error::Failure("the connection ended before the job did".to_owned()))
        };
        let result = within(limit, what, name, run).await?;
        match result.as_str() {
            // "skipped": there was nothing to do, as for a unit that is stopped already.
            "done" | "skipped" => Ok(()),
            _ => Err(SystemdError::Failed { what, unit: name.to_owned(), result }),
        }
    }

    /// The ends of jobs from now on.
    async fn job_ends(&self) -> zbus::Result<MessageStream> {
        let mut rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .path(PATH)?
            .interface(MANAGER)?
            .member("JobRemoved")?;
        if self.connection.is_bus() {
            // Others may send a signal of this name too.
            rule = rule.sender(NAME)?;
        }
        let stream = MessageStream::for_match_rule(rule.build(), &self.connection, Some(QUEUE)).await?;
        match self.call(PATH, MANAGER, "Subscribe", &()).await {
            Err(error) if !is_named(&error, SUBSCRIBED) => Err(error),
            _ => Ok(stream),
        }
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &'static str,
        method: &'static str,
        body: &B,
    ) -> zbus::Result<Message>
    where
        B: Serialize + DynamicType + Sync,
    {
        // On systemd's own socket there is nobody else to send to.
        let destination = self.connection.is_bus().then_some(NAME);
        self.connection.call_method(destination, path, Some(interface), method, body).await
    }
}

/// What is wanted of a unit's properties; there are some hundred.
#[derive(Debug, zvariant::DeserializeDict, zvariant::Type)]
#[zvariant(signature = "dict", rename_all = "PascalCase")]
struct Properties {
    load_state: String,
    active_state: String,
    sub_state: Option<String>,
    unit_file_state: Option<String>,
    fragment_path: Option<String>,
    drop_in_paths: Option<Vec<String>>,
    need_daemon_reload: Option<bool>,
}

impl From<Properties> for UnitState {
    fn from(told: Properties) -> Self {
        Self {
            load: told.load_state,
            active: told.active_state,
            sub: told.sub_state.unwrap_or_default(),
            enabled: told.unit_file_state.unwrap_or_default(),
            fragment: told.fragment_path.filter(|path| !path.is_empty()).map(PathBuf::from),
            drop_ins: told.drop_in_paths.unwrap_or_default().into_iter().map(PathBuf::from).collect(),
            needs_reload: told.need_daemon_reload.unwrap_or_default(),
        }
    }
}

/// What is wanted of a service's properties.
#[derive(Debug, zvariant::DeserializeDict, zvariant::Type)]
#[zvariant(signature = "dict", rename_all = "PascalCase")]
struct ServiceProperties {
    result: Option<String>,
    exec_main_status: Option<i32>,
    n_restarts: Option<u32>,
    #[zvariant(rename = "MainPID")]
    main_pid: Option<u32>,
}

impl From<ServiceProperties> for ServiceState {
    fn from(told: ServiceProperties) -> Self {
        Self {
            result: told.result.unwrap_or_default(),
            exit_status: told.exec_main_status.unwrap_or_default(),
            restarts: told.n_restarts.unwrap_or_default(),
            main_pid: told.main_pid.unwrap_or_default(),
        }
    }
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    unit: &str,
    work: impl Future<Output = zbus::Result<T>>,
) -> Result<T, SystemdError> {
    match timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => {
            Err(SystemdError::Refused { what, unit: unit.to_owned(), source: Box::new(source) })
        }
        Err(_) => Err(SystemdError::Late { what, unit: unit.to_owned(), within: limit }),
    }
}

/// Others of these tell what was left as it is, and why: that a unit is masked, or nowhere.
fn is_change(links: &[Link]) -> bool {
    links.iter().any(|(kind, ..)| matches!(kind.as_str(), "symlink" | "unlink"))
}

/// Whether an answer over D-Bus is the error of this name.
pub(super) fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, ..) if found.as_str() == name)
}
