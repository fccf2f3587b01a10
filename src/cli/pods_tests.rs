//! What `nodectl pods` prints in each format.

use serde_json::json;

use super::*;
use crate::{
    api::view::PodStep,
    cli::fixtures::{Agent, containers, ended, now, pod, problem, running, status, waiting},
};

fn pods() -> Vec<PodView> {
    let crash = json!({ "phase": "Running", "containerStatuses": [
        status("a", false, 12, waiting("CrashLoopBackOff"), ended(1, "Error", "")),
    ] });
    vec![running("web-node1"), pod("x", PodStep::CrashLoopBackOff, containers(&["a"]), crash)]
}

#[test]
fn the_table_is_kubectls() {
    assert_eq!(
        table(&pods(), now()),
        "\
NAMESPACE   NAME        READY   STATUS             RESTARTS       AGE
default     web-node1   1/1     Running            0              60m
default     x           0/1     CrashLoopBackOff   12 (40s ago)   60m
"
    );
    assert_eq!(
        wide(&pods(), now()),
        "\
NAMESPACE   NAME        READY   STATUS             RESTARTS       AGE   IP         UID             SOURCE   STEP                  SINCE
default     web-node1   1/1     Running            0              60m   10.1.0.7   uid-web-node1   file     running               2m
default     x           0/1     CrashLoopBackOff   12 (40s ago)   60m   <none>     uid-x           file     crash-loop-back-off   2m
"
    );
}

#[test]
fn pods_without_their_server_are_told_as_such() {
    assert_eq!(offline_line(&pods()), "");
    let mut all = pods();
    all[1].offline = true;
    assert_eq!(offline_line(&all), "offline: the API server is not heard; 1 pod is as last known\n");
    assert!(wide(&all, now()).contains("file, offline"));
    let list = list(&all).unwrap();
    assert_eq!(list["items"][1]["status"]["conditions"][0]["type"], OFFLINE);
    assert!(!list["items"][0].to_string().contains(OFFLINE));
}

#[test]
fn json_and_yaml_are_a_list_of_v1_pods() {
    let answer = PodsAnswer { pods: pods(), problems: Vec::new() };
    let text = render(&answer, OutputFormat::Json, now()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("v1"), &json!("List")));
    let item = &value["items"][0];
    assert_eq!((&item["apiVersion"], &item["kind"]), (&json!("v1"), &json!("Pod")));
    assert_eq!(item["metadata"]["name"], "web-node1");
    assert_eq!(item["metadata"]["uid"], "uid-web-node1");
    assert_eq!(item["metadata"]["creationTimestamp"], "2026-03-01T11:00:00Z");
    assert_eq!(item["metadata"].get("managedFields"), None);
    assert_eq!(item["spec"]["containers"][0]["image"], "web:1");
    assert_eq!(
        item["status"]["containerStatuses"][0]["state"]["running"]["startedAt"],
        "2026-03-01T11:00:05Z"
    );
    let yaml = render(&answer, OutputFormat::Yaml, now()).unwrap();
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), value);
    assert!(yaml.starts_with("apiVersion: v1\n"), "{yaml}");
}

#[tokio::test]
async fn it_asks_the_agent_and_keeps_results_and_remarks_apart() {
    let temp = tempfile::tempdir().unwrap();
    let mut answer =
        PodsAnswer { pods: pods(), problems: vec![problem("/etc/m/bad.yaml", "line 3:\n\u{1b}what?")] };
    Arc::make_mut(&mut answer.pods[1].pod).metadata.namespace = Some("other".into());
    let (socket, stop) = Agent::start(temp.path(), answer);
    let args = |output, namespace: Option<&str>| PodsArgs {
        output,
        namespace: namespace.map(str::to_owned),
        socket: socket.clone(),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    run(args(OutputFormat::Table, Some("other")), &mut out, &mut err).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.lines().count() == 2 && out.contains("other       x"), "{out}");
    assert_eq!(String::from_utf8(err).unwrap(), "not used: /etc/m/bad.yaml: line 3:  what?\n");

    let (mut out, mut err) = (Vec::new(), Vec::new());
    run(args(OutputFormat::Wide, Some("nothing")), &mut out, &mut err).await.unwrap();
    assert!(out.is_empty() && err.starts_with(b"no pods\n"));

    let (mut out, mut err) = (Vec::new(), Vec::new());
    run(args(OutputFormat::Json, Some("nothing")), &mut out, &mut err).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap()["items"], json!([]));
    stop.cancel();
}

#[tokio::test]
async fn without_an_agent_it_says_so() {
    let args = PodsArgs { output: OutputFormat::Table, namespace: None, socket: "/nowhere/s".into() };
    let error = run(args, &mut Vec::new(), &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind.code(), 1);
    assert!(error.to_string().contains("hint: the agent is not running"), "{error}");
}
