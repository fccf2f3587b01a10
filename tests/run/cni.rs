//! Missing or broken CNI configuration: named with folder, files and cause, and no obstacle for longer than
//! it lasts.

use std::fs;

use serde_json::json;

use crate::support::{Node, NodeBuilder, SOON, STAY, pod, wait_for};

/// Waits until healthz and explain say why there is no network, with all of these words.
#[track_caller]
fn wait_told(node: &Node, waiting: &str, words: &[&str]) {
    let has_all = |text: &str| words.iter().all(|word| text.contains(word));
    wait_for(SOON, &format!("healthz with {words:?}: {}", node.health().1), || {
        let (code, text) = node.health();
        assert_eq!(code, 200, "{text}");
        text.lines().any(|line| line.starts_with("[!]network failed") && has_all(line)).then_some(())
    });
    wait_for(SOON, &format!("explain with {words:?}"), || {
        node.view(waiting)?;
        let told = node.explain(waiting);
        let progress = &told["progress"];
        (progress["step"] == "waiting-for-network" && has_all(progress["detail"].as_str()?)).then_some(())
    });
}

fn a_missing_network(builder: NodeBuilder) {
    let mut node = builder.prepare();
    let folder = node.containerd.cni_conf_dir().to_path_buf();
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let good = fs::read(&file).unwrap();
    let path = folder.to_str().unwrap();
    fs::remove_file(&file).unwrap();
    // Without a file the runtime has no network from its next start on.
    node.containerd.kill9();
    node.containerd.resume();
    node.start_agent();
    node.put(&pod("waiting", STAY));
    wait_told(&node, "waiting", &[path]);

    // A pod on the host's network needs none.
    let mut shared = pod("shared", STAY);
    shared["spec"]["hostNetwork"] = json!(true);
    node.put(&shared);
    node.wait_ready("shared");

    fs::write(folder.join("README"), "no configuration").unwrap();
    wait_told(&node, "waiting", &[path, "README"]);
    fs::write(&file, "{\"cniVersion\": \"0.4.0\",\n  \"name\": oops}").unwrap();
    wait_told(&node, "waiting", &[path, &name, "line 2"]);
    fs::write(&file, r#"{"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "no-such-plugin"}]}"#)
        .unwrap();
    // That one the runtime finds out only when it makes a sandbox.
    wait_for(SOON, "the missing program named", || {
        let told = node.explain("waiting");
        told["progress"]["lastError"]["message"].as_str()?.contains("no-such-plugin").then_some(())
    });

    fs::write(&file, good).unwrap();
    node.wait_health("[+]network");
    let view = node.wait_ready("waiting");
    assert!(node.process(&view, "main").has_address(view.0["status"]["podIP"].as_str().unwrap()));
}

#[test]
fn a_missing_network_on_the_machines_containerd() {
    a_missing_network(Node::builder("cni"));
}

#[test]
fn a_missing_network_on_containerd_2() {
    a_missing_network(Node::builder("cni-two").containerd2());
}
