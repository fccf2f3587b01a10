//! What `nodectl explain` says of pods at each step.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::view::{ErrorView, NextView, PodStep},
    cli::fixtures::{Agent, containers, ended, now, pod, problem, running, status, up, waiting},
};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn crashing() -> PodView {
    let spec = json!({
        "initContainers": [
            { "name": "setup", "image": "busybox:1" },
            { "name": "proxy", "image": "proxy:1", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "web", "image": "nginx:1" }, { "name": "log", "image": "log:1" }],
    });
    let status = json!({
        "phase": "Running", "conditions": [{ "type": "Initialized", "status": "True" }],
        "initContainerStatuses": [
            status("setup", true, 0, ended(0, "Completed", ""), json!({})),
            status("proxy", true, 0, up(), json!({})),
        ],
        "containerStatuses": [
            status("web", false, 5, waiting("CrashLoopBackOff"), ended(137, "OOMKilled", "\u{1b}[2Jfirst\nsecond\n")),
            status("log", false, 0, json!({}), json!({})),
        ],
    });
    let mut view = pod("web-node1", PodStep::CrashLoopBackOff, spec, status);
    view.progress.detail = "container \"web\" ended 5 times".into();
    view.progress.last_error = Some(ErrorView {
        reason: "CrashLoopBackOff".into(),
        message: "container \"web\" exited with code 137\nout of memory".into(),
        at: time("2026-03-01T11:59:20Z"),
        count: 5,
        hints: vec!["raise resources.limits.memory".into()],
    });
    view.progress.next = Some(NextView {
        what: "start container \"web\" again".into(),
        at: Some(time("2026-03-01T12:00:40Z")),
    });
    view
}

#[test]
fn a_crashing_pod_is_explained() {
    assert_eq!(
        explain_text::render(&Explanation::of(&crashing()), now()),
        "\
Pod:        default/web-node1
UID:        uid-web-node1 (source file)
Status:     CrashLoopBackOff, 0/3 ready, 5 restarts, made 60m ago
Step:       waiting to start a container again that keeps ending
            container \"web\" ended 5 times
Since:      2026-03-01T11:58:00Z (2m ago)
Last error: CrashLoopBackOff, 5 times in a row, 2026-03-01T11:59:20Z (40s ago)
            container \"web\" exited with code 137
            out of memory
            hint: raise resources.limits.memory
Next:       start container \"web\" again
            2026-03-01T12:00:40Z (in 40s)
Containers
  setup (init): exited with code 0 (Completed) at 2026-03-01T11:59:20Z (40s ago), ran 10s
      image busybox:1
  proxy (sidecar): running since 2026-03-01T11:00:05Z (59m ago), ready
      image proxy:1
  web: waiting: CrashLoopBackOff
      5 restarts, image nginx:1
      | about CrashLoopBackOff
      before: exited with code 137 (OOMKilled, signal 9) at 2026-03-01T11:59:20Z (40s ago), ran 10s
      |  [2Jfirst
      | second
  log: not made yet
      image log:1
"
    );
}

#[test]
fn a_healthy_pod_and_one_without_anything_are_explained() {
    assert_eq!(
        explain_text::render(&Explanation::of(&running("a")), now()),
        "\
Pod:        default/a
UID:        uid-a (source file)
Status:     Running, 1/1 ready, no restarts, made 60m ago
Step:       running
            all containers run
Since:      2026-03-01T11:58:00Z (2m ago)
Last error: none
Next:       nothing is due
Containers
  web: running since 2026-03-01T11:00:05Z (59m ago), ready
      image web:1
"
    );
    let mut bare = pod("b", PodStep::WaitingForNetwork, containers(&[]), json!({ "message": "no network" }));
    bare.progress.next = Some(NextView { what: "make the sandbox".into(), at: None });
    let text = explain_text::render(&Explanation::of(&bare), now());
    assert!(text.contains("Step:       waiting for the pod network\n"), "{text}");
    assert!(text.contains("made 60m ago\n            no network\n"), "{text}");
    assert!(
        text.contains("make the sandbox\n            as soon as something changes; no time is set\n"),
        "{text}"
    );
    assert!(text.ends_with("Containers\n  none known\n"), "{text}");
}

#[test]
fn a_long_last_message_is_cut_to_its_end() {
    let long: String = (0..50).map(|n| format!("line {n}\n")).collect();
    let status = json!({ "phase": "Failed", "containerStatuses": [
        status("web", false, 0, ended(1, "Error", &long), json!({})),
    ] });
    let view = pod("a", PodStep::Finished, containers(&["web"]), status);
    let text = explain_text::render(&Explanation::of(&view), now());
    assert!(
        !text.contains("line 39\n") && text.contains("| line 40\n") && text.contains("| line 49\n"),
        "{text}"
    );
}

fn answer() -> PodsAnswer {
    let mut other = running("web-node1");
    Arc::make_mut(&mut other.pod).metadata.namespace = Some("other".into());
    other.uid = "0f0f".into();
    let mut successor = running("db-node1");
    successor.uid = "dddd2".into();
    let mut db = running("db-node1");
    db.uid = "dddd1".into();
    PodsAnswer {
        pods: vec![db, successor, running("web-node1"), running("webcam"), other],
        problems: vec![
            problem("/etc/m/db.yaml", "line 2: unknown field"),
            problem("/etc/m/broken.json", "not JSON"),
            problem("/etc/m/copy.yaml", "pod default/webcam is there already."),
        ],
    }
}

fn found(wanted: &str, namespace: Option<&str>) -> Result<Vec<String>, String> {
    let answer = answer();
    let found = find(&answer, wanted, namespace).map_err(|error| error.to_string())?;
    Ok(found.iter().map(|view| view.uid.to_string()).collect())
}

#[test]
fn pods_are_found_by_name_uid_and_prefix() {
    assert_eq!(found("webcam", None).unwrap(), ["uid-webcam"]);
    assert_eq!(found("other/web-node1", None).unwrap(), ["0f0f"]);
    assert_eq!(found("web-node1", Some("other")).unwrap(), ["0f0f"]);
    assert_eq!(found("0f0f", None).unwrap(), ["0f0f"]);
    assert_eq!(found("0f", None).unwrap(), ["0f0f"]);
    assert_eq!(found("webc", None).unwrap(), ["uid-webcam"]);
    assert_eq!(found("other/", None).unwrap(), ["0f0f"]);
    assert_eq!(found("dddd1", None).unwrap(), ["dddd1"]);
    assert_eq!(found("db", None).unwrap(), ["dddd1", "dddd2"], "a pod and its successor are one question");
}

#[test]
fn ambiguous_and_unknown_names_are_told() {
    assert_eq!(
        found("web", None).unwrap_err(),
        "\"web\" may be one of 3 pods:\n  default/web-node1  uid-web-node1\n  default/webcam  uid-webcam\n  \
         other/web-node1  0f0f\nhint: give NAMESPACE/NAME or the UID"
    );
    assert!(found("web-node1", None).unwrap_err().starts_with("\"web-node1\" may be one of 2 pods"));
    assert_eq!(
        found("nothing", None).unwrap_err(),
        "there is no pod \"nothing\"\nhint: `nodectl pods` lists all pods, and 3 inputs not used"
    );
    assert!(found("", None).unwrap_err().starts_with("there is no pod \"\""));
    assert!(
        found("webcam", Some("other")).unwrap_err().starts_with("there is no pod \"webcam\" in namespace")
    );
}

#[test]
fn a_manifest_that_cannot_be_used_is_the_explanation() {
    for wanted in ["broken", "broken.json", "/etc/m/broken.json", "broken-node1"] {
        let error = found(wanted, None).unwrap_err();
        assert!(
            error.contains(
                "for its manifest cannot be used:\n  not used: /etc/m/broken.json: not JSON\nhint: "
            ),
            "{error}"
        );
    }
    let about = |name: &str| {
        let full = format!("default/{name}");
        let of = |problem: &&InputProblem| is_about(problem, name, &full);
        answer().problems.iter().filter(of).map(|problem| problem.origin.clone()).collect::<Vec<_>>()
    };
    assert_eq!(about("db-node1"), ["/etc/m/db.yaml"]);
    assert_eq!(about("webcam"), ["/etc/m/copy.yaml"]);
    assert!(about("dbx").is_empty() && about("web").is_empty());
}

#[tokio::test]
async fn it_asks_the_agent_in_both_formats() {
    let temp = tempfile::tempdir().unwrap();
    let mut all = answer();
    all.pods.push(crashing());
    Arc::make_mut(&mut all.pods[5].pod).metadata.namespace = Some("third".into());
    let (socket, stop) = Agent::start(temp.path(), all);
    let ask = async |pod: &str, output| {
        let args = ExplainArgs { pod: pod.into(), namespace: None, output, socket: socket.clone() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        run(args, &mut out, &mut err)
            .await
            .map(|()| (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
    };
    let (out, err) = ask("db-node1", ExplainFormat::Text).await.unwrap();
    assert_eq!(out.matches("Pod:        default/db-node1\n").count(), 2);
    assert_eq!(err, "not used: /etc/m/db.yaml: line 2: unknown field\n");

    let (out, _) = ask("third/web-node1", ExplainFormat::Json).await.unwrap();
    let value: Value = serde_json::from_str(&out).unwrap();
    let item = &value["items"][0];
    assert_eq!(item["status"], "CrashLoopBackOff");
    assert_eq!(item["progress"]["step"], "crash-loop-back-off");
    assert_eq!(item["progress"]["lastError"]["count"], 5);
    assert_eq!(item["progress"]["next"]["at"], "2026-03-01T12:00:40Z");
    assert_eq!(item["containers"][2]["state"]["is"], "waiting");
    assert_eq!(item["containers"][2]["lastExit"]["exitCode"], 137);

    let error = ask("nothing", ExplainFormat::Text).await.unwrap_err();
    assert_eq!(error.kind.code(), 1);
    stop.cancel();
}
