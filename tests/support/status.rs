//! Reading what `nodectl pods -o json` and `nodectl explain -o json` say of a pod.

use std::time::Duration;

use serde_json::Value;

use super::{Node, Process, SOON, look_again, slow, wait_for};

/// A pod of the list.
#[derive(Clone, Debug)]
pub(crate) struct View(pub(crate) Value);

impl View {
    /// Its UID.
    pub(crate) fn uid(&self) -> &str {
        self.0["metadata"]["uid"].as_str().unwrap()
    }

    /// Its phase.
    pub(crate) fn phase(&self) -> &str {
        self.0["status"]["phase"].as_str().unwrap_or_default()
    }

    /// Whether a condition is true.
    pub(crate) fn condition(&self, kind: &str) -> bool {
        let all = self.0["status"]["conditions"].as_array();
        all.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
    }

    /// A container's status, init containers' too; null if there is none.
    pub(crate) fn container(&self, name: &str) -> &Value {
        ["containerStatuses", "initContainerStatuses"]
            .into_iter()
            .filter_map(|list| self.0["status"][list].as_array())
            .flatten()
            .find(|status| status["name"] == name)
            .unwrap_or(&Value::Null)
    }

    /// A container's id as the runtime has it.
    pub(crate) fn id(&self, name: &str) -> String {
        let id = self.container(name)["containerID"].as_str().unwrap_or_default();
        id.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// How often a container was started again.
    pub(crate) fn restarts(&self, name: &str) -> u64 {
        self.container(name)["restartCount"].as_u64().unwrap_or(0)
    }

    /// Why a container waits.
    pub(crate) fn waiting(&self, name: &str) -> &str {
        self.container(name)["state"]["waiting"]["reason"].as_str().unwrap_or_default()
    }

    /// Whether a container runs.
    pub(crate) fn runs(&self, name: &str) -> bool {
        self.container(name)["state"]["running"].is_object()
    }
}

impl Node {
    /// A pod as listed, by its name in the manifest or at the API server.
    pub(crate) fn view(&self, pod: &str) -> Option<View> {
        self.pod(&self.static_name(pod)).or_else(|| self.pod(pod)).map(View)
    }

    /// Writes a manifest from a value.
    pub(crate) fn put(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.put_manifest(&format!("{name}.json"), &pod.to_string());
    }

    /// Removes what [`Self::put`] wrote.
    pub(crate) fn take_away(&self, pod: &str) {
        self.remove_manifest(&format!("{pod}.json"));
    }

    /// Waits until a listed pod is as wanted, and gives it.
    #[track_caller]
    pub(crate) fn wait_view(&self, pod: &str, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        self.wait_view_within(SOON, pod, what, wanted)
    }

    /// [`Self::wait_view`] with a time of its own.
    #[track_caller]
    pub(crate) fn wait_view_within(
        &self,
        within: Duration,
        pod: &str,
        what: &str,
        wanted: impl Fn(&View) -> bool,
    ) -> View {
        let mut last = None;
        let within = within * slow();
        let start = std::time::Instant::now();
        loop {
            let view = self.view(pod);
            if let Some(view) = view.clone().filter(|view| wanted(view)) {
                return view;
            }
            last = view.or(last);
            assert!(start.elapsed() < within, "not within {within:?}: pod {pod} {what}: {last:#?}");
            std::thread::sleep(look_again());
        }
    }

    /// Waits until a pod runs with all its containers ready.
    #[track_caller]
    pub(crate) fn wait_ready(&self, pod: &str) -> View {
        self.wait_view(pod, "ready", |view| view.phase() == "Running" && view.condition("Ready"))
    }

    /// Waits until a pod is no longer listed.
    #[track_caller]
    pub(crate) fn wait_gone(&self, pod: &str) {
        wait_for(SOON, &format!("pod {pod} gone"), || self.view(pod).is_none().then_some(()));
    }

    /// The process of a container that a view tells of, once it is the container's own program.
    #[track_caller]
    pub(crate) fn process(&self, view: &View, container: &str) -> Process {
        let id = view.id(container);
        let process = self.containerd.process(&id);
        let process = process.unwrap_or_else(|| panic!("container {container} {id:?} does not run"));
        wait_for(SOON, &format!("container {container} is begun"), || process.is_begun().then_some(process))
    }

    /// `nodectl explain POD -o json`: the first item.
    #[track_caller]
    pub(crate) fn explain(&self, pod: &str) -> Value {
        self.try_explain(pod).unwrap_or_else(|errors| panic!("nodectl explain {pod}: {errors}"))
    }

    /// [`Self::explain`] of a pod that may go meanwhile.
    pub(crate) fn try_explain(&self, pod: &str) -> Result<Value, String> {
        let name = self.pod(pod).map_or_else(|| self.static_name(pod), |_| pod.to_owned());
        let output = self.run_cli(&["explain", "-o", "json", &name]);
        if !output.status.success() {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).expect("nodectl explain prints JSON");
        Ok(answer["items"][0].clone())
    }

    /// What `nodectl pods` says on stderr of inputs that are not used.
    pub(crate) fn problems(&self) -> String {
        String::from_utf8(self.run_cli(&["pods"]).stderr).unwrap()
    }

    /// Waits until `nodectl pods` names all of these in one line on stderr.
    #[track_caller]
    pub(crate) fn wait_problem(&self, words: &[&str]) {
        let mut last = String::new();
        let start = std::time::Instant::now();
        loop {
            last.clone_from(&self.problems());
            if last.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            assert!(start.elapsed() < SOON * slow(), "no line with {words:?} in:\n{last}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The lines of `/healthz?verbose`, and its code.
    #[track_caller]
    pub(crate) fn health(&self) -> (u16, String) {
        self.healthz("/healthz?verbose").expect("healthz answers")
    }

    /// Waits until `/healthz?verbose` has a line that begins so, and gives it.
    #[track_caller]
    pub(crate) fn wait_health(&self, begins: &str) -> String {
        wait_for(SOON, &format!("healthz line {begins:?}"), || {
            let (_, text) = self.health();
            text.lines().find(|line| line.starts_with(begins)).map(str::to_owned)
        })
    }
}
