//! What a simulated container does, written into its arguments, and pods made of such containers.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, EnvVar, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::world::Ms;

/// A container's behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Ends by itself after this time with this code; else it runs for ever.
    pub(crate) exit: Option<(Ms, i32)>,
    /// In its first so many attempts it exits with code 1 after 200 ms instead.
    pub(crate) crashes: u32,
    /// How long it takes to end when asked to; `None`: for ever.
    pub(crate) term: Option<Ms>,
}

impl Default for Script {
    fn default() -> Self {
        Self { exit: None, crashes: 0, term: Some(50) }
    }
}

impl Script {
    pub(crate) fn exits(after: Ms, code: i32) -> Self {
        Self { exit: Some((after, code)), ..Self::default() }
    }

    pub(crate) fn args(&self) -> Vec<String> {
        let mut args = vec![format!("crashes={}", self.crashes)];
        if let Some((after, code)) = self.exit {
            args.extend([format!("after={after}"), format!("code={code}")]);
        }
        args.extend(self.term.map(|term| format!("term={term}")));
        args
    }

    pub(crate) fn parse(args: &[String]) -> Self {
        let all: BTreeMap<&str, &str> = args.iter().filter_map(|arg| arg.split_once('=')).collect();
        let number = |key: &str| all.get(key).and_then(|text| text.parse::<i64>().ok());
        Self {
            exit: number("after").map(|after| {
                (u64::try_from(after).unwrap(), i32::try_from(number("code").unwrap_or(0)).unwrap())
            }),
            crashes: u32::try_from(number("crashes").unwrap_or(0)).unwrap(),
            term: number("term").map(|term| u64::try_from(term).unwrap()),
        }
    }

    /// When the given attempt ends by itself, and how.
    pub(crate) fn end(&self, attempt: u32) -> Option<(Ms, i32)> {
        if attempt < self.crashes { Some((200, 1)) } else { self.exit }
    }
}

/// A container with a behaviour and version 0.
pub(crate) fn container(name: &str, script: &Script) -> Container {
    Container {
        name: name.to_owned(),
        image: Some("localhost/app:1".to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(script.args()),
        env: Some(vec![EnvVar { name: "V".into(), value: Some("0".into()), value_from: None }]),
        ..Container::default()
    }
}

/// A restartable init container.
pub(crate) fn sidecar(name: &str, script: &Script) -> Container {
    Container { restart_policy: Some("Always".to_owned()), ..container(name, script) }
}

/// A static pod as the sources deliver it.
pub(crate) fn pod(name: &str, uid: &str, containers: Vec<Container>) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(uid.to_owned()),
            annotations: Some(BTreeMap::from([("kubernetes.io/config.source".into(), "file".into())])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers, ..PodSpec::default() }),
        status: None,
    }
}

/// Changes a pod's specification.
pub(crate) fn with(mut pod: Pod, change: impl FnOnce(&mut PodSpec)) -> Pod {
    change(pod.spec.as_mut().unwrap());
    pod
}

/// A pod of one container that runs for ever.
pub(crate) fn simple(name: &str, uid: &str) -> Arc<Pod> {
    Arc::new(pod(name, uid, vec![container("main", &Script::default())]))
}

/// Sets a container's version.
pub(crate) fn set_version(container: &mut Container, version: u32) {
    container.env =
        Some(vec![EnvVar { name: "V".into(), value: Some(version.to_string()), value_from: None }]);
}
