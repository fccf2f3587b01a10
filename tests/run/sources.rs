//! Where pods come from: manifests that are edited, removed, put back, broken, or cannot be reached.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Node, SOON, STAY, STUBBORN, container, pod, pod_of, wait_for, wait_lines, wait_until};

#[test]
fn an_edited_manifest_replaces_the_pod_when_the_old_one_is_gone() {
    let node = Node::start("edited");
    let before = node.leaks();
    let out = node.dir().join("out");
    fs::create_dir(&out).unwrap();
    let manifest = |which: &str| {
        let script = format!(
            "trap 'sleep 1; echo {which}-down >> /out/log; exit 0' TERM; echo {which}-up >> /out/log; while :; do sleep 1000 & wait $!; done"
        );
        let mut pod = pod("web", &script);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(20);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "out", "mountPath": "/out"}]);
        pod["spec"]["volumes"] = json!([{"name": "out", "hostPath": {"path": out}}]);
        pod
    };
    node.put(&manifest("old"));
    let old = node.wait_ready("web");
    wait_lines(&out.join("log"), 1);
    node.put(&manifest("new"));
    let new = node.wait_view("web", "replaced", |v| v.uid() != old.uid() && v.condition("Ready"));
    assert_eq!(wait_lines(&out.join("log"), 3), ["old-up", "old-down", "new-up"]);
    // Nothing is left of the old one.
    assert!(node.containerd.sandboxes_of(old.uid()).is_empty());
    let traces: Vec<String> = node.leaks().machine.into_iter().filter(|m| m.contains(old.uid())).collect();
    assert_eq!(traces, Vec::<String>::new());
    assert_eq!(new.restarts("main"), 0);
    node.take_away("web");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn under_an_explicit_uid_only_the_changed_container_is_restarted() {
    let node = Node::start("inplace");
    let mut manifest = pod_of("kept", &[container("steady", STAY), container("changing", STAY)]);
    manifest["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    node.put(&manifest);
    let old = node.wait_ready("kept");
    assert_eq!(old.uid(), "11111111-2222-3333-4444-555555555555");
    manifest["spec"]["containers"][1]["env"] = json!([{"name": "NEW", "value": "yes"}]);
    node.put(&manifest);
    let new = node.wait_view("kept", "with one new container", |v| {
        v.condition("Ready") && v.runs("changing") && v.id("changing") != old.id("changing")
    });
    assert_eq!(new.id("steady"), old.id("steady"));
    assert_eq!((new.restarts("steady"), new.restarts("changing")), (0, 1));
    assert_eq!(node.process(&new, "changing").variable("NEW").as_deref(), Some("yes"));
    assert_eq!(node.containerd.sandboxes_of(new.uid()).len(), 1);

    // What is no field of a container's own restarts nothing.
    manifest["metadata"]["labels"] = json!({"some": "label"});
    node.put(&manifest);
    let labelled = node.wait_view("kept", "labelled", |v| v.0["metadata"]["labels"]["some"] == "label");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(node.view("kept").unwrap().id("steady"), labelled.id("steady"));
    assert_eq!(node.view("kept").unwrap().id("changing"), new.id("changing"));
}

#[test]
fn a_manifest_may_go_at_any_moment_of_a_start() {
    let node = Node::start("midway");
    let before = node.leaks();
    let mut slow = pod("slow", STAY);
    slow["spec"]["initContainers"] = json!([container("init", "sleep 1000")]);
    // At once, in the middle of the sandbox, and while the init container runs.
    for wait in [0, 10, 50, 100, 200, 400] {
        node.put(&slow);
        std::thread::sleep(Duration::from_millis(wait));
        node.take_away("slow");
        node.wait_no_pods();
    }
    node.put(&slow);
    node.wait_view("slow", "initialising", |view| view.runs("init"));
    node.take_away("slow");
    node.wait_no_pods();
    node.wait_leak_free(&before);
    // And may be replaced there.
    node.put(&slow);
    node.wait_view("slow", "initialising", |view| view.runs("init"));
    node.put(&pod("slow", STAY));
    node.wait_ready("slow");
    node.take_away("slow");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_manifest_that_is_removed_and_put_back_is_the_same_pod_anew() {
    let node = Node::start("back");
    let before = node.leaks();
    let manifest = pod("again", STAY);
    node.put(&manifest);
    let first = node.wait_ready("again");
    node.take_away("again");
    node.put(&manifest);
    // If the agent saw it gone it ends and comes again; if not it runs on. In the end it runs, once.
    let second = node.wait_ready("again");
    assert_eq!(first.uid(), second.uid());
    node.take_away("again");
    wait_until(SOON, "the removal seen", || {
        // It may go between the two.
        let told = node.view("again").and_then(|_| node.try_explain("again").ok());
        told.is_none_or(|told| told["progress"]["step"] == "terminating")
    });
    node.put(&manifest);
    let third =
        node.wait_view("again", "ready anew", |v| v.condition("Ready") && v.id("main") != second.id("main"));
    assert_eq!(third.uid(), first.uid());
    assert_eq!(node.containerd.sandboxes_of(third.uid()).len(), 1);
    assert_eq!(node.containerd.running_containers().len(), 1);
    node.take_away("again");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

/// A small HTTP server that answers every request with what it is given.
struct Web {
    port: u16,
    body: Arc<Mutex<Option<String>>>,
}

impl Web {
    fn start(body: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(body.map(str::to_owned)));
        let body = Arc::clone(&shared);
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let answer = match &*shared.lock().unwrap() {
                    Some(body) => format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    ),
                    None => {
                        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                            .to_owned()
                    }
                };
                // Whoever asked may have gone.
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        Self { port, body }
    }

    fn answer(&self, body: Option<&Value>) {
        *self.body.lock().unwrap() = body.map(Value::to_string);
    }
}

fn list(pods: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "PodList", "items": pods})
}

#[test]
fn pods_come_from_a_url() {
    let web = Web::start(Some(&pod("alone", STAY).to_string()));
    let node = Node::builder("url")
        .config(&format!("staticPodURL: http://127.0.0.1:{}/pods\nhttpCheckFrequency: 200ms\n", web.port))
        .start();
    let view = node.wait_ready("alone");
    assert_eq!(view.0["metadata"]["annotations"]["kubernetes.io/config.source"], "http");
    web.answer(Some(&list(&[pod("alone", STAY), pod("second", STAY)])));
    node.wait_ready("second");
    // A server that is ill, answers rubbish, or nothing, removes nothing.
    web.answer(None);
    node.wait_problem(&["127.0.0.1", "503"]);
    node.wait_health("[!]source:http failed");
    assert_eq!(node.health().0, 200);
    web.answer(Some(&json!("rubbish")));
    node.wait_problem(&["127.0.0.1", "stay as they were"]);
    assert_eq!(node.containerd.running_containers().len(), 2);
    web.answer(Some(&list(&[pod("second", STAY)])));
    node.wait_gone("alone");
    assert_eq!(node.containerd.running_containers().len(), 1);
    web.answer(Some(&list(&[])));
    node.wait_no_pods();
}

#[test]
fn nothing_is_removed_before_every_source_has_delivered() {
    let mut node = Node::start("sources");
    node.put(&pod("filed", STAY));
    node.put(&pod("staying", STAY));
    node.wait_ready("filed");
    node.wait_ready("staying");
    node.kill9();
    let before = node.containerd.running_containers();
    // While the agent is down one manifest goes, and a URL is added that answers with an error.
    node.take_away("filed");
    let web = Web::start(None);
    node.add_config(&format!("staticPodURL: http://127.0.0.1:{}/\nhttpCheckFrequency: 200ms\n", web.port));
    node.start_agent();
    node.wait_ready("staying");
    node.wait_health("[!]source:http failed: not read yet");
    // Two rounds of housekeeping and more.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(node.containerd.running_containers(), before);
    assert_eq!(node.leaks().machine.iter().filter(|m| m.starts_with("pod folder")).count(), 2);
    web.answer(Some(&list(&[])));
    wait_until(SOON, "the unwanted one removed", || node.containerd.running_containers().len() == 1);
    let left = node.containerd.running_containers();
    assert!(left.iter().all(|(id, process)| before.get(id) == Some(process)));
    wait_until(SOON, "its folder removed", || {
        node.leaks().machine.iter().filter(|m| m.starts_with("pod folder")).count() == 1
    });
}

#[test]
fn a_manifest_folder_that_is_missing_removes_nothing() {
    let mut node = Node::start("folder");
    node.put(&pod("one", STAY));
    let view = node.wait_ready("one");
    let process = node.process(&view, "main");
    let aside = node.dir().join("aside");
    fs::rename(node.manifests(), &aside).unwrap();
    node.wait_problem(&[node.manifests().to_str().unwrap()]);
    assert!(node.wait_health("[!]source:file").contains("manifests"));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.process(&node.view("one").unwrap(), "main"), process);
    // Nor when the agent starts without it.
    node.restart();
    node.wait_health("[!]source:file failed: not read yet");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.containerd.process(&view.id("main")), Some(process));
    fs::rename(&aside, node.manifests()).unwrap();
    node.wait_health("[+]source:file");
    let again = node.wait_ready("one");
    assert_eq!((again.uid(), again.id("main")), (view.uid(), view.id("main")));
    node.put(&pod("two", STAY));
    node.wait_ready("two");
}

#[test]
fn bad_manifests_are_named_and_harm_nobody() {
    let node = Node::start("bad");
    node.put(&pod("good", STAY));
    let good = node.wait_ready("good");
    let other = |name: &str| pod(name, STAY);

    node.put_manifest(
        "typo.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: typo}\nspec:\n  contaners: []\n",
    );
    node.wait_problem(&["typo.yaml", "contaners"]);
    node.put_manifest("syntax.yaml", "apiVersion: v1\nkind: Pod\n  metadata: {\n");
    node.wait_problem(&["syntax.yaml", "line"]);
    node.put_manifest("zz-twin.yaml", &other("good").to_string());
    node.wait_problem(&["zz-twin.yaml", "good"]);
    let mut huge = other("huge").to_string();
    huge.push_str(&" ".repeat(11 << 20));
    node.put_manifest("huge.json", &huge);
    node.wait_problem(&["huge.json", "larger than"]);
    fs::write(node.manifests().join("binary.yaml"), (0..=255_u8).cycle().take(4096).collect::<Vec<_>>())
        .unwrap();
    node.wait_problem(&["binary.yaml"]);
    fs::write(node.manifests().join("empty.yaml"), "").unwrap();
    node.wait_problem(&["empty.yaml"]);
    let mut unsupported = other("unsupported");
    unsupported["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"tcpSocket": {"port": 1}}});
    node.put(&unsupported);
    node.wait_problem(&["unsupported.json", "tcpSocket"]);
    let mut volume = other("volume");
    volume["spec"]["volumes"] = json!([{"name": "x", "configMap": {"name": "y"}}]);
    node.put(&volume);
    node.wait_problem(&["volume.json", "configMap"]);
    let mut invalid = other("invalid");
    invalid["spec"]["containers"][0]["name"] = json!("Not_A_Name");
    node.put(&invalid);
    node.wait_problem(&["invalid.json", "spec.containers[0].name"]);

    // All of them together leave the good one alone, and others still come.
    node.wait_health("[!]source:file failed");
    assert_eq!(node.health().0, 200);
    node.put(&pod("newcomer", STAY));
    node.wait_ready("newcomer");
    assert_eq!(node.view("good").unwrap().id("main"), good.id("main"));
    assert_eq!(node.pods_json()["items"].as_array().unwrap().len(), 2);
    let told = node.run_cli(&["explain", "typo"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("contaners"), "{told:?}");

    // A corrected one runs, and a running one that is broken runs on.
    node.put_manifest("typo.yaml", &pod("typo", STAY).to_string());
    node.wait_ready("typo");
    node.put_manifest("good.json", "{\"apiVersion\": \"v1\", \"kind\": ");
    node.wait_problem(&["good.json"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(node.view("good").unwrap().id("main"), good.id("main"));
    assert!(node.containerd.process(&good.id("main")).is_some());
}

#[test]
fn a_half_written_manifest_is_not_taken() {
    let node = Node::start("half");
    // A file from before the agent looked is only taken for finished sooner.
    wait_until(SOON, "the folder is followed", || node.agent_log().contains("delivered for the first time"));
    let text = pod("written", STAY).to_string();
    let path = node.manifests().join("written.json");
    let mut file = fs::File::create(&path).unwrap();
    for piece in text.as_bytes().chunks(text.len() / 4 + 1) {
        file.write_all(piece).unwrap();
        file.flush().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(node.view("written").is_none());
        assert_eq!(node.problems().matches("written.json").count(), 0, "{}", node.problems());
    }
    drop(file);
    let view = node.wait_ready("written");
    // Nor is a running one touched while its manifest is written anew in place.
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&text.as_bytes()[..text.len() / 2]).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(node.view("written").unwrap().id("main"), view.id("main"));
    file.write_all(&text.as_bytes()[text.len() / 2..]).unwrap();
    drop(file);
    std::thread::sleep(Duration::from_secs(1));
    let again = node.wait_ready("written");
    assert_eq!((again.uid(), again.id("main")), (view.uid(), view.id("main")));
}

#[test]
fn a_missing_image_is_told_by_kubelets_names() {
    let node = Node::start("images");
    // Taken, so that nobody else listens on it, and not listened on.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = taken.local_addr().unwrap().port();
    let mut never = pod("never", STAY);
    never["spec"]["containers"][0]["image"] = json!("localhost/nodectl/absent:1");
    let mut pulled = pod("pulled", STAY);
    pulled["spec"]["containers"][0]["image"] = json!(format!("127.0.0.1:{refused}/absent:1"));
    pulled["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    node.put(&never);
    node.put(&pulled);
    node.put(&pod("fine", STAY));
    node.wait_ready("fine");
    let view = node.wait_view("never", "without its image", |v| v.waiting("main") == "ErrImageNeverPull");
    assert_eq!(view.phase(), "Pending");
    // A pull that failed is ErrImagePull, and while nothing is tried ImagePullBackOff.
    let reasons = ["ErrImagePull", "ImagePullBackOff"];
    node.wait_view("pulled", "failing", |view| reasons.contains(&view.waiting("main")));
    let view = node.wait_view("pulled", "backing off", |view| view.waiting("main") == "ImagePullBackOff");
    let message = view.container("main")["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("connection refused") && message.contains(&refused.to_string()), "{message}");
    // Between two tries it is told when the next one is.
    let told = wait_for(SOON, "when it is tried again", || {
        let told = node.explain("pulled");
        told["progress"]["next"]["at"].is_string().then_some(told)
    });
    assert!(
        told["progress"]["lastError"]["message"].as_str().unwrap().contains("connection refused"),
        "{told}"
    );
    // A shorter way out than waiting: the manifest is corrected.
    node.put(&pod("pulled", STAY));
    node.wait_ready("pulled");
}

#[test]
fn a_hundred_manifests_at_once() {
    let node = Node::start("hundred");
    let before = node.leaks();
    let staging = node.dir().join("staging");
    fs::create_dir(&staging).unwrap();
    let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    for name in &names {
        fs::write(staging.join(format!("{name}.json")), pod(name, STAY).to_string()).unwrap();
    }
    let mv = |from: &std::path::Path, to: &std::path::Path| {
        for name in &names {
            let file = format!("{name}.json");
            fs::rename(from.join(&file), to.join(&file)).unwrap();
        }
    };
    mv(&staging, &node.manifests());
    let ready = || {
        let list = node.pods_json();
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|p| p["status"]["containerStatuses"][0]["ready"] == true).count()
    };
    wait_until(Duration::from_secs(180), "a hundred pods ready", || ready() == 100);
    assert_eq!(node.containerd.running_containers().len(), 100);
    mv(&node.manifests(), &staging);
    wait_for(Duration::from_secs(180), "all gone", || {
        node.pods_json()["items"].as_array().unwrap().is_empty().then_some(())
    });
    node.wait_leak_free(&before);
    // Added and removed before they could run.
    mv(&staging, &node.manifests());
    mv(&node.manifests(), &staging);
    node.put(&pod("last", STUBBORN));
    node.wait_ready("last");
    node.take_away("last");
    wait_until(Duration::from_secs(180), "all gone", || {
        node.pods_json()["items"].as_array().unwrap().is_empty()
    });
    node.wait_leak_free(&before);
}
