//! systemd's client against a manager that speaks D-Bus as systemd does, over a pair of sockets. The manager is
//! for tests elsewhere too.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use zbus::{
    object_server::SignalEmitter,
    zvariant::{ObjectPath, OwnedObjectPath},
};

use super::systemd::{ServiceState, Systemd, SystemdError, UnitState};

type Link = (String, String, String);

/// For what should come at once.
const LONG: Duration = Duration::from_secs(60);

/// A unit of the fake.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeUnit {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) enabled: String,
    pub(crate) fragment: String,
    pub(crate) drop_ins: Vec<String>,
    /// How its next jobs end, if not with `done`; `never` is one that does not.
    pub(crate) result: Option<String>,
    /// How often it was started again by itself.
    pub(crate) restarts: u32,
}

/// What the fake has and was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) units: BTreeMap<String, FakeUnit>,
    /// As in `StopUnit docker.service`.
    pub(crate) calls: Vec<String>,
    jobs: u32,
    subscribed: bool,
}

/// systemd as far as units go.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeSystemd(pub(crate) Arc<Mutex<State>>);

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum FakeError {
    #[zbus(error)]
    ZBus(zbus::Error),
    NoSuchUnit(String),
    AlreadySubscribed(String),
    UnitMasked(String),
}

impl FakeSystemd {
    /// Has a unit.
    pub(crate) fn with(self, name: &str, unit: FakeUnit) -> Self {
        self.0.lock().unwrap().units.insert(name.to_owned(), unit);
        self
    }

    /// A client of it, and what has to be kept as long.
    pub(crate) async fn serve(&self) -> (Systemd, zbus::Connection) {
        let (ours, its) = tokio::net::UnixStream::pair().unwrap();
        let server = zbus::connection::Builder::unix_stream(its)
            .server(zbus::Guid::generate())
            .unwrap()
            .p2p()
            .serve_at("/org/freedesktop/systemd1", self.clone())
            .unwrap()
            .build();
        let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
        let (server, client) = tokio::try_join!(server, client).unwrap();
        (Systemd::over(client).await.unwrap(), server)
    }

    /// What it was asked since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    fn noted<T>(&self, call: &str, name: &str, then: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        state.calls.push(format!("{call} {name}").trim().to_owned());
        then(&mut state)
    }

    async fn job(
        &self,
        call: &str,
        name: &str,
        active: &str,
        emitter: &SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, FakeError> {
        let found = self.noted(call, name, |state| {
            state.jobs += 1;
            let number = state.jobs;
            let unit = state.units.get_mut(name)?;
            let result = unit.result.clone().unwrap_or_else(|| "done".to_owned());
            if result == "done" {
                unit.active = active.to_owned();
            }
            Some((number, result, state.subscribed))
        });
        let Some((number, result, subscribed)) = found else {
            return Err(FakeError::NoSuchUnit(format!("Unit {name} not loaded.")));
        };
        assert!(subscribed, "systemd tells of jobs' ends only who has asked for it");
        let path = |number: u32| {
            OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap()
        };
        if result != "never" {
            // That of another job before it, as there are many; and even before the answer.
            Self::job_removed(emitter, 7, path(1_000_000), "other.service", "failed").await?;
            Self::job_removed(emitter, number, path(number), name, &result).await?;
        }
        Ok(path(number))
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeSystemd {
    #[zbus(property)]
    fn version(&self) -> String {
        "252.22-1~deb12u1".to_owned()
    }

    fn subscribe(&self) -> Result<(), FakeError> {
        let mut state = self.0.lock().unwrap();
        if std::mem::replace(&mut state.subscribed, true) {
            return Err(FakeError::AlreadySubscribed("Client is already subscribed.".to_owned()));
        }
        Ok(())
    }

    async fn load_unit(
        &self,
        name: &str,
        #[zbus(object_server)] server: &zbus::ObjectServer,
    ) -> Result<OwnedObjectPath, FakeError> {
        let escaped: String = name
            .bytes()
            .map(|byte| match byte.is_ascii_alphanumeric() {
                true => char::from(byte).to_string(),
                false => format!("_{byte:02x}"),
            })
            .collect();
        let path = ObjectPath::try_from(format!("/org/freedesktop/systemd1/unit/{escaped}")).unwrap();
        let object = UnitObject { systemd: self.clone(), name: name.to_owned() };
        server.at(&path, object).await?;
        if name.ends_with(".service") {
            let object = ServiceObject(UnitObject { systemd: self.clone(), name: name.to_owned() });
            server.at(&path, object).await?;
        }
        Ok(path.into())
    }

    async fn start_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, FakeError> {
        assert_eq!(mode, "replace");
        self.job("StartUnit", name, "active", &emitter).await
    }

    async fn stop_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, FakeError> {
        assert_eq!(mode, "replace");
        self.job("StopUnit", name, "inactive", &emitter).await
    }

    async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, FakeError> {
        assert_eq!(mode, "replace");
        self.job("RestartUnit", name, "active", &emitter).await
    }

    fn reset_failed_unit(&self, name: &str) -> Result<(), FakeError> {
        self.noted("ResetFailedUnit", name, |state| {
            let unit = state.units.get_mut(name).ok_or_else(|| FakeError::NoSuchUnit(name.to_owned()))?;
            if unit.active == "failed" {
                unit.active = "inactive".to_owned();
            }
            Ok(())
        })
    }

    fn enable_unit_files(
        &self,
        names: Vec<String>,
        runtime: bool,
        force: bool,
    ) -> Result<(bool, Vec<Link>), FakeError> {
        assert!(!runtime && !force);
        let name = names.into_iter().next().unwrap();
        self.noted("EnableUnitFiles", &name, |state| match state.units.get_mut(&name) {
            Some(unit) if unit.load == "masked" => {
                Err(FakeError::UnitMasked(format!("Unit file {name} is masked.")))
            }
            Some(unit) if unit.enabled == "enabled" => Ok((true, Vec::new())),
            Some(unit) => {
                unit.enabled = "enabled".to_owned();
                let link = format!("/etc/systemd/system/multi-user.target.wants/{name}");
                Ok((true, vec![("symlink".to_owned(), link, unit.fragment.clone())]))
            }
            None => Err(FakeError::NoSuchUnit(format!("Unit file {name} does not exist."))),
        })
    }

    fn disable_unit_files(&self, names: Vec<String>, runtime: bool) -> Result<Vec<Link>, FakeError> {
        assert!(!runtime);
        let name = names.into_iter().next().unwrap();
        self.noted("DisableUnitFiles", &name, |state| match state.units.get_mut(&name) {
            Some(unit) if unit.enabled == "enabled" => {
                unit.enabled = "disabled".to_owned();
                let link = format!("/etc/systemd/system/multi-user.target.wants/{name}");
                Ok(vec![("unlink".to_owned(), link, String::new())])
            }
            Some(unit) if unit.load == "masked" => {
                Ok(vec![("masked".to_owned(), format!("/etc/systemd/system/{name}"), String::new())])
            }
            Some(_) => Ok(Vec::new()),
            // So it is since 252 at the latest; older ones do nothing.
            None => Err(FakeError::NoSuchUnit(format!("Unit file {name} does not exist."))),
        })
    }

    fn reload(&self) {
        self.noted("Reload", "", |_| ());
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct UnitObject {
    systemd: FakeSystemd,
    name: String,
}

impl UnitObject {
    fn unit(&self) -> FakeUnit {
        let found = self.systemd.0.lock().unwrap().units.get(&self.name).cloned();
        found.unwrap_or(FakeUnit {
            load: "not-found".to_owned(),
            active: "inactive".to_owned(),
            ..FakeUnit::default()
        })
    }
}

struct ServiceObject(UnitObject);

#[zbus::interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceObject {
    #[zbus(property)]
    fn result(&self) -> String {
        let failed = self.0.unit().result.is_some();
        if failed { "exit-code".to_owned() } else { "success".to_owned() }
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        i32::from(self.0.unit().result.is_some())
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        self.0.unit().restarts
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        if self.0.unit().active == "active" { 42 } else { 0 }
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    fn load_state(&self) -> String {
        self.unit().load
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.unit().active
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        if self.unit().active == "active" { "running".to_owned() } else { "dead".to_owned() }
    }

    #[zbus(property)]
    fn unit_file_state(&self) -> String {
        self.unit().enabled
    }

    #[zbus(property)]
    fn fragment_path(&self) -> String {
        self.unit().fragment
    }

    #[zbus(property)]
    fn drop_in_paths(&self) -> Vec<String> {
        self.unit().drop_ins
    }

    #[zbus(property)]
    fn need_daemon_reload(&self) -> bool {
        false
    }

    /// One of the many that nobody asked for.
    #[zbus(property)]
    fn conditions(&self) -> HashMap<String, u64> {
        HashMap::from([("ConditionTimestamp".to_owned(), 1)])
    }
}

pub(crate) fn running(fragment: &str) -> FakeUnit {
    FakeUnit {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        enabled: "enabled".to_owned(),
        fragment: fragment.to_owned(),
        ..FakeUnit::default()
    }
}

#[tokio::test]
async fn a_unit_is_told_with_its_files() {
    let mut kubelet = running("/lib/systemd/system/kubelet.service");
    kubelet.drop_ins = vec!["/etc/systemd/system/kubelet.service.d/10-kubeadm.conf".to_owned()];
    let fake = FakeSystemd::default().with("kubelet.service", kubelet);
    let (systemd, _server) = fake.serve().await;
    assert_eq!(systemd.version(), "252.22-1~deb12u1");
    let told = systemd.unit("kubelet.service").await.unwrap();
    let expected = UnitState {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        sub: "running".to_owned(),
        enabled: "enabled".to_owned(),
        fragment: Some("/lib/systemd/system/kubelet.service".into()),
        drop_ins: vec!["/etc/systemd/system/kubelet.service.d/10-kubeadm.conf".into()],
        needs_reload: false,
    };
    assert_eq!(told, expected);
    let absent = systemd.unit("cri-docker.socket").await.unwrap();
    assert_eq!((absent.load.as_str(), absent.fragment), ("not-found", None));
    assert!(fake.calls().is_empty(), "nothing changes by being looked at");
}

#[tokio::test]
async fn jobs_are_waited_for() {
    let fake = FakeSystemd::default()
        .with("docker.service", running("/lib/systemd/system/docker.service"))
        .with("broken.service", FakeUnit { result: Some("failed".to_owned()), ..running("/b") })
        .with("slow.service", FakeUnit { result: Some("never".to_owned()), ..running("/s") });
    let (systemd, _server) = fake.serve().await;
    systemd.stop("docker.service", LONG).await.unwrap();
    assert_eq!(systemd.unit("docker.service").await.unwrap().active, "inactive");
    systemd.start("docker.service", LONG).await.unwrap();
    systemd.restart("docker.service", LONG).await.unwrap();
    assert_eq!(systemd.unit("docker.service").await.unwrap().active, "active");
    assert_eq!(
        fake.calls(),
        ["StopUnit docker.service", "StartUnit docker.service", "RestartUnit docker.service"]
    );

    let error = systemd.start("broken.service", LONG).await.unwrap_err();
    assert!(matches!(&error, SystemdError::Failed { result, .. } if result == "failed"), "{error}");
    assert!(error.to_string().contains("journalctl -u broken.service"), "{error}");
    let error = systemd.stop("slow.service", Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, SystemdError::Late { .. }), "{error}");
    // One that is not there is stopped, and does not start.
    systemd.stop("none.service", LONG).await.unwrap();
    let error = systemd.start("none.service", LONG).await.unwrap_err();
    assert!(error.to_string().contains("start none.service"), "{error}");
}

#[tokio::test]
async fn enabling_reads_the_links_and_says_whether_there_is_a_change() {
    let mut docker = running("/lib/systemd/system/docker.service");
    docker.active = "failed".to_owned();
    let masked = FakeUnit { load: "masked".to_owned(), ..FakeUnit::default() };
    let fake = FakeSystemd::default().with("docker.service", docker).with("masked.service", masked);
    let (systemd, _server) = fake.serve().await;
    assert!(systemd.disable("docker.service").await.unwrap());
    assert!(!systemd.disable("docker.service").await.unwrap());
    assert!(!systemd.disable("none.service").await.unwrap());
    assert!(!systemd.disable("masked.service").await.unwrap());
    assert!(systemd.enable("docker.service").await.unwrap());
    assert!(!systemd.enable("docker.service").await.unwrap());
    assert_eq!(fake.calls().iter().filter(|call| *call == "Reload").count(), 2);
    let error = systemd.enable("masked.service").await.unwrap_err();
    assert!(error.to_string().contains("masked"), "{error}");
    systemd.reset_failed("docker.service").await.unwrap();
    systemd.reset_failed("none.service").await.unwrap();
    assert_eq!(systemd.unit("docker.service").await.unwrap().active, "inactive");
}

#[tokio::test]
async fn a_manager_that_goes_away_is_an_error_at_once() {
    let fake = FakeSystemd::default()
        .with("slow.service", FakeUnit { result: Some("never".to_owned()), ..running("/s") });
    let (systemd, server) = fake.serve().await;
    let stop = tokio::spawn(async move { systemd.stop("slow.service", LONG).await });
    while fake.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.close().await.unwrap();
    let error = stop.await.unwrap().unwrap_err();
    assert!(!matches!(error, SystemdError::Late { .. }), "{error}");
}

#[tokio::test]
async fn a_services_process_is_told() {
    let fake = FakeSystemd::default().with(
        "kubelet.service",
        FakeUnit { active: "active".to_owned(), restarts: 3, ..FakeUnit::default() },
    );
    let (systemd, _server) = fake.serve().await;
    let found = systemd.service("kubelet.service").await.unwrap();
    let wanted = ServiceState { result: "success".to_owned(), exit_status: 0, restarts: 3, main_pid: 42 };
    assert_eq!(found, wanted);
    assert!(systemd.service("some.slice").await.is_err());
}
