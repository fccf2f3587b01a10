//! Slices of systemd, over D-Bus: what libcontainer asks of it for a cgroup whose name ends in `.slice`.
//!
//! systemd owns the cgroups on such a node: a group that it does not know of it may take away, and values
//! that it did not set it may set back. So it is told first, and the files are looked at after it.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::Mutex;
use zbus::{
    Connection,
    zvariant::{OwnedObjectPath, OwnedValue, Value},
};

use crate::api::cgroup::{CgroupValues, Limit, cpu_weight};
use crate::host::{
    systemd::is_named,
    systemd_private::{self, SOCKET},
};

/// How long systemd may take for all calls about one slice.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether a slice has started: it takes systemd a few milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The bus, and where there is none systemd's own socket, which root may use.
const BUS: &str = "unix:path=/run/dbus/system_bus_socket";

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const NOT_LOADED: &str = "org.freedesktop.systemd1.LoadFailed";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// It cannot be reached.
    #[error("cannot reach systemd over D-Bus at {BUS} or {SOCKET}: {0}")]
    Unreachable(#[source] Box<zbus::Error>),
    /// It refused, or the connection broke.
    #[error("systemd does not {what} {unit}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// For which unit.
        unit: String,
        /// Its answer.
        source: Box<zbus::Error>,
    },
    /// It did not answer in time.
    #[error("systemd has not finished with {unit} within {DEADLINE:?}")]
    Late {
        /// The unit.
        unit: String,
    },
}

/// A property, as `StartTransientUnit` and `SetUnitProperties` take it.
type Property = (&'static str, Value<'static>);

/// A connection that is made when it is first needed, and again after it broke.
pub(super) struct Systemd(Mutex<Option<Arc<Connection>>>);

impl Systemd {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Over a connection that is there already.
    #[cfg(test)]
    pub(super) fn over(connection: Connection) -> Self {
        Self(Mutex::new(Some(Arc::new(connection))))
    }

    /// Has a slice with these values.
    pub(super) async fn apply(
        &self,
        cgroup: &str,
        values: &CgroupValues,
        v2: bool,
    ) -> Result<(), SystemdError> {
        let unit = unit_of(cgroup);
        self.in_time(unit, self.apply_unit(unit, properties(values, v2))).await
    }

    /// Gives up a slice. One that is not there is fine.
    pub(super) async fn stop(&self, cgroup: &str) -> Result<(), SystemdError> {
        let unit = unit_of(cgroup);
        self.in_time(unit, async {
            if self.state(unit).await?.is_none() {
                return Ok(());
            }
            match self.call("StopUnit", &(unit, "replace")).await {
                Err(error) if is_named(&error, NO_SUCH_UNIT) || is_named(&error, NOT_LOADED) => Ok(()),
                Err(source) => Err(refused("stop", unit, source)),
                Ok(_) => Ok(()),
            }
        })
        .await
    }

    async fn apply_unit(&self, unit: &str, values: Vec<Property>) -> Result<(), SystemdError> {
        if self.state(unit).await?.as_deref() != Some("active") {
            let auxiliary: Vec<(&str, Vec<Property>)> = Vec::new();
            let all = [fixed(unit), values.clone()].concat();
            match self.call("StartTransientUnit", &(unit, "replace", all, auxiliary)).await {
                // It is on its way already: a slice below it was asked for.
                Err(error) if is_named(&error, UNIT_EXISTS) => {}
                Err(source) => return Err(refused("start", unit, source)),
                Ok(_) => return self.started(unit).await,
            }
        }
        if values.is_empty() {
            return Ok(());
        }
        self.call("SetUnitProperties", &(unit, true, values))
            .await
            .map(drop)
            .map_err(|source| refused("set the properties of", unit, source))
    }

    /// Waits until a slice is there. Looked at and not waited for by a signal: there is none to miss.
    async fn started(&self, unit: &str) -> Result<(), SystemdError> {
        while self.state(unit).await?.as_deref() != Some("active") {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// A unit's state; `None` if it is not loaded.
    async fn state(&self, unit: &str) -> Result<Option<String>, SystemdError> {
        let ask = |source| refused("tell of", unit, source);
        let path: OwnedObjectPath = match self.call("GetUnit", &(unit,)).await {
            Ok(answer) => answer.body().deserialize().map_err(ask)?,
            Err(error) if is_named(&error, NO_SUCH_UNIT) => return Ok(None),
            Err(error @ zbus::Error::Address(_)) => return Err(SystemdError::Unreachable(Box::new(error))),
            Err(error) => return Err(ask(error)),
        };
        let connection = self.connection().await.map_err(ask)?;
        let answer = connection
            .call_method(destination(&connection), &path, Some(PROPERTIES), "Get", &(UNIT, "ActiveState"))
            .await
            .map_err(ask)?;
        let value: OwnedValue = answer.body().deserialize().map_err(ask)?;
        Ok(String::try_from(value).ok())
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType + Sync,
    {
        let connection = self.connection().await?;
        let answer =
            connection.call_method(destination(&connection), MANAGER_PATH, Some(MANAGER), method, body).await;
        if let Err(error) = &answer
            && !matches!(error, zbus::Error::MethodError(..))
        {
            // A connection that broke is made anew at the next call.
            *self.0.lock().await = None;
        }
        answer
    }

    async fn connection(&self) -> zbus::Result<Arc<Connection>> {
        let mut kept = self.0.lock().await;
        if let Some(connection) = &*kept {
            return Ok(Arc::clone(connection));
        }
        let made = match zbus::connection::Builder::address(BUS)?.build().await {
            Ok(connection) => connection,
            Err(error) => match systemd_private::connect(Path::new(SOCKET)).await {
                Ok(connection) => connection,
                Err(_) => return Err(error),
            },
        };
        let made = Arc::new(made);
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn in_time<T>(
        &self,
        unit: &str,
        work: impl Future<Output = Result<T, SystemdError>>,
    ) -> Result<T, SystemdError> {
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(done) => done,
            Err(_) => Err(SystemdError::Late { unit: unit.to_owned() }),
        }
    }
}

/// On systemd's own socket there is nobody else to send to.
fn destination(connection: &Connection) -> Option<&'static str> {
    connection.is_bus().then_some(NAME)
}

fn refused(what: &'static str, unit: &str, source: zbus::Error) -> SystemdError {
    match source {
        zbus::Error::InputOutput(_) | zbus::Error::Address(_) | zbus::Error::Handshake(_) => {
            SystemdError::Unreachable(Box::new(source))
        }
        source => SystemdError::Refused { what, unit: unit.to_owned(), source: Box::new(source) },
    }
}

/// A cgroup's last part is its unit; the others follow from its name.
fn unit_of(cgroup: &str) -> &str {
    cgroup.rsplit('/').next().unwrap_or(cgroup)
}

/// What every slice of pods has: all accounted, and nothing of systemd's own order of start and stop.
fn fixed(unit: &str) -> Vec<Property> {
    let mut all = vec![
        ("Description", Value::from(format!("pods' slice {unit}"))),
        ("MemoryAccounting", Value::from(true)),
        ("CPUAccounting", Value::from(true)),
        ("TasksAccounting", Value::from(true)),
        ("IOAccounting", Value::from(true)),
        ("DefaultDependencies", Value::from(false)),
    ];
    if let Some((parent, _)) = unit.trim_end_matches(".slice").rsplit_once('-').filter(|(p, _)| !p.is_empty())
    {
        all.push(("Wants", Value::from(vec![format!("{parent}.slice")])));
    }
    all
}

/// systemd's properties for the values; what it has none for is in the files alone.
fn properties(values: &CgroupValues, v2: bool) -> Vec<Property> {
    /// What systemd's own period is.
    const PERIOD: u64 = 100_000;
    let number = |limit: Limit| match limit {
        Limit::Unlimited => Value::from(u64::MAX),
        Limit::Of(value) => Value::from(value),
    };
    let mut all: Vec<Property> = Vec::new();
    all.extend(values.cpu_shares.map(|shares| match v2 {
        true => ("CPUWeight", Value::from(cpu_weight(shares))),
        false => ("CPUShares", Value::from(shares)),
    }));
    let period = values.cpu_period_micros.unwrap_or(PERIOD).max(1);
    if period != PERIOD {
        all.push(("CPUQuotaPeriodUSec", Value::from(period)));
    }
    all.extend(values.cpu_quota_micros.map(|quota| match quota {
        Limit::Unlimited => ("CPUQuotaPerSecUSec", Value::from(u64::MAX)),
        Limit::Of(quota) => ("CPUQuotaPerSecUSec", Value::from(quota_per_second(quota, period))),
    }));
    let memory = if v2 { "MemoryMax" } else { "MemoryLimit" };
    all.extend(values.memory_bytes.map(|most| (memory, number(most))));
    all.extend(values.pids.map(|most| ("TasksMax", number(most))));
    all
}

/// CPU time in microseconds for each second. systemd reckons in whole percents: rounded up, so that the
/// containers below may have what they are given.
fn quota_per_second(quota_micros: u64, period_micros: u64) -> u64 {
    const PERCENT: u128 = 10_000;
    let per_second = u128::from(quota_micros) * 1_000_000 / u128::from(period_micros.max(1));
    u64::try_from(per_second.div_ceil(PERCENT) * PERCENT).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pods_slice_is_its_cgroups_last_part() {
        let cgroup = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice";
        let unit = unit_of(cgroup);
        assert_eq!(unit, "kubepods-burstable-podu_1.slice");
        let wants = |unit: &str| fixed(unit).into_iter().find(|(name, _)| *name == "Wants").map(|(_, v)| v);
        assert_eq!(wants(unit), Some(Value::from(vec!["kubepods-burstable.slice".to_owned()])));
        assert_eq!(wants("kubepods.slice"), None);
    }

    #[test]
    fn properties_by_version() {
        let values = CgroupValues {
            cpu_shares: Some(1024),
            cpu_quota_micros: Some(Limit::Of(12_345)),
            cpu_period_micros: Some(50_000),
            memory_bytes: Some(Limit::Of(1 << 20)),
            pids: Some(Limit::Unlimited),
            ..CgroupValues::default()
        };
        let v1 = [
            ("CPUShares", Value::from(1024_u64)),
            ("CPUQuotaPeriodUSec", Value::from(50_000_u64)),
            ("CPUQuotaPerSecUSec", Value::from(250_000_u64)),
            ("MemoryLimit", Value::from(1_u64 << 20)),
            ("TasksMax", Value::from(u64::MAX)),
        ];
        assert_eq!(properties(&values, false), v1);
        let v2 = properties(&values, true);
        assert_eq!((&v2[0], v2[3].0), (&("CPUWeight", Value::from(39_u64)), "MemoryMax"));
        assert!(properties(&CgroupValues::default(), true).is_empty());
    }

    proptest! {
        #[test]
        fn a_quota_is_never_cut(quota in 1000u64..10_000_000, period in 1000u64..=1_000_000) {
            let per_second = quota_per_second(quota, period);
            prop_assert_eq!(per_second % 10_000, 0);
            prop_assert!(u128::from(per_second) * u128::from(period) >= u128::from(quota) * 1_000_000 - u128::from(period));
            prop_assert!(quota_per_second(quota + 1, period) >= per_second);
        }
    }
}
