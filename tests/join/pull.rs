//! What pods of an API server are pulled with and told besides: credentials for registries, variables of services,
//! runtime classes. Against a real server with the Node authorizer and NodeRestriction on. And credentials that
//! programs give, which a node that stands alone has too.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::{
    core::v1::{Event, Secret, Service, ServiceAccount},
    node::v1::RuntimeClass,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, Node, Registry, SOON, STAY, container, copy_program, files_with, pod, pod_of, wait_for,
    wait_until,
};

/// A Secret of a type that kubelet takes credentials from, with one registry in it.
fn pull_secret(cluster: &ControlPlane, name: &str, registry: &str, password: &str) {
    let auth = BASE64_STANDARD.encode(format!("{}:{password}", Registry::USER));
    let file = json!({ "auths": { registry: { "auth": auth } } }).to_string();
    cluster.create::<Secret>(&json!({
        "metadata": { "name": name },
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": file },
    }));
}

/// A pod that pulls this image, with these Secrets.
fn private_pod(name: &str, image: &str, policy: &str, secrets: &[&str]) -> Value {
    let mut main = container("main", STAY);
    main["image"] = json!(image);
    main["imagePullPolicy"] = json!(policy);
    let mut pod = pod_of(name, &[main]);
    pod["spec"]["imagePullSecrets"] = secrets.iter().map(|name| json!({ "name": name })).collect();
    pod
}

#[test]
fn images_are_pulled_with_the_secrets_that_the_pod_names() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jp-pull").joined(&cluster).argument("-v=6").start();
    let registry = Registry::start(&node.containerd);
    let (image, host) = (registry.image(), registry.host());

    // A Secret that is not there keeps nobody from trying; when it is made the pull is tried again at once.
    cluster.bind("jp-pull", &private_pod("jp-late", &image, "Always", &["jp-late"]));
    let (_, told) = cluster.wait_waiting("jp-late", "secret \"jp-late\": not found");
    assert!(told.contains(&image), "{told}");
    wait_until(SOON, "an Event of it", || {
        let events = cluster.block_on(cluster.api::<Event>().list(&ListParams::default())).unwrap();
        events.iter().any(|event| {
            event.reason.as_deref() == Some("FailedToRetrieveImagePullSecret")
                && event.involved_object.name.as_deref() == Some("jp-late")
        })
    });
    pull_secret(&cluster, "jp-late", &host, Registry::PASSWORD);
    cluster.wait_ready("jp-late");

    // What does not let in is passed over, and so is what is for another registry.
    pull_secret(&cluster, "jp-wrong", &format!("https://{host}/v1/"), "another-word");
    pull_secret(&cluster, "jp-other", "registry.example", "another-word");
    cluster.create::<Secret>(&json!({
        "metadata": { "name": "jp-old" },
        "type": "kubernetes.io/dockercfg",
        "stringData": { ".dockercfg": json!({ format!("{host}/busybox"): {
            "username": Registry::USER, "password": Registry::PASSWORD,
        } }).to_string() },
    }));
    cluster.bind("jp-pull", &private_pod("jp-many", &image, "Always", &["jp-wrong", "jp-other", "jp-old"]));
    cluster.wait_ready("jp-many");

    // Nobody is let in by another's credentials, though the image is there.
    for (pod, secrets) in [("jp-none", &[][..]), ("jp-bad", &["jp-wrong"][..])] {
        cluster.bind("jp-pull", &private_pod(pod, &image, "Always", secrets));
        let (_, told) = cluster.wait_waiting(pod, "pull");
        assert!(told.contains(&image) && !told.contains("another-word"), "{told}");
    }
    // But what is there is there, as with kubelets that do not verify it.
    cluster.bind("jp-pull", &private_pod("jp-there", &image, "IfNotPresent", &[]));
    cluster.wait_ready("jp-there");

    // What the service account has is put into the pod by the server.
    cluster.create::<ServiceAccount>(&json!({
        "metadata": { "name": "jp-account" }, "imagePullSecrets": [{ "name": "jp-late" }],
    }));
    let mut pod = private_pod("jp-account", &image, "Always", &[]);
    pod["spec"].as_object_mut().unwrap().remove("imagePullSecrets");
    pod["spec"]["serviceAccountName"] = json!("jp-account");
    cluster.bind("jp-pull", &pod);
    cluster.wait_ready("jp-account");

    for secret in
        [Registry::PASSWORD, "another-word", &BASE64_STANDARD.encode(format!("bob:{}", Registry::PASSWORD))]
    {
        for folder in [node.root_dir(), node.pod_logs()] {
            assert_eq!(files_with(&folder, secret), Vec::<PathBuf>::new());
        }
        assert!(!node.agent_log().contains(secret));
        assert!(!node.pods_json().to_string().contains(secret));
    }
}

#[test]
fn containers_have_the_variables_of_services() {
    let cluster = ControlPlane::shared();
    let node = Node::builder("jp-service").joined(&cluster).start();
    let service: Service = cluster.create(&json!({
        "metadata": { "name": "jp-app" },
        "spec": { "ports": [
            { "name": "web", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" },
        ] },
    }));
    let ip = service.spec.unwrap().cluster_ip.unwrap();
    cluster.create::<Service>(&json!({
        "metadata": { "name": "jp-headless" }, "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] },
    }));
    let mut main = container("main", STAY);
    main["env"] = json!([
        { "name": "URL", "value": "http://$(JP_APP_SERVICE_HOST):$(JP_APP_SERVICE_PORT)" },
        { "name": "JP_APP_PORT", "value": "mine" },
    ]);
    // The service may be younger than what the node knows: such a pod is one that kubelet too starts without.
    let linked = wait_for(SOON, "a pod has the service's variables", || {
        cluster.bind("jp-service", &pod_of("jp-linked", &[main.clone()]));
        cluster.wait_ready("jp-linked");
        let process = node.process(&node.view("jp-linked").unwrap(), "main");
        if process.variable("JP_APP_SERVICE_HOST").is_none() {
            cluster.delete_pod("jp-linked", Some(0));
            cluster.wait_gone("jp-linked");
            return None;
        }
        Some(process)
    });
    for (name, value) in [
        ("URL", format!("http://{ip}:80")),
        ("JP_APP_PORT", "mine".to_owned()),
        ("JP_APP_SERVICE_HOST", ip.clone()),
        ("JP_APP_SERVICE_PORT", "80".to_owned()),
        ("JP_APP_SERVICE_PORT_WEB", "80".to_owned()),
        ("JP_APP_SERVICE_PORT_DNS", "53".to_owned()),
        ("JP_APP_PORT_53_UDP", format!("udp://{ip}:53")),
        ("JP_APP_PORT_80_TCP_ADDR", ip),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
    ] {
        assert_eq!(linked.variable(name), Some(value), "{name}");
    }
    assert_eq!(linked.variable("JP_HEADLESS_SERVICE_HOST"), None);

    let mut unlinked = pod_of("jp-unlinked", &[container("main", STAY)]);
    unlinked["spec"]["enableServiceLinks"] = json!(false);
    cluster.bind("jp-service", &unlinked);
    cluster.wait_ready("jp-unlinked");
    let process = node.process(&node.view("jp-unlinked").unwrap(), "main");
    assert!(process.variable("KUBERNETES_SERVICE_HOST").is_some());
    assert_eq!(process.variable("JP_APP_SERVICE_HOST"), None);

    // The services are known by now, so a static pod is told of them too.
    node.put(&pod("jp-static", STAY));
    let view = node.wait_ready("jp-static");
    assert!(node.process(&view, "main").variable("KUBERNETES_SERVICE_HOST").is_some());
}

fn runtime_class(cluster: &ControlPlane, name: &str) {
    let class: RuntimeClass = serde_json::from_value(json!({
        "metadata": { "name": name }, "handler": "crun",
        "overhead": { "podFixed": { "cpu": "10m", "memory": "8Mi" } },
    }))
    .unwrap();
    let classes = Api::<RuntimeClass>::all(cluster.client());
    cluster.block_on(classes.create(&PostParams::default(), &class)).unwrap();
}

/// Whether crun holds the pod's sandbox, as it tells itself.
fn is_of_crun(node: &Node, pod: &str) -> bool {
    let root = format!("{}/k8s.io", node.containerd.fact("CRUN_ROOT"));
    let output =
        Command::new("crun").args(["--root", &root, "list", "-f", "json"]).output().expect("it starts");
    assert!(output.status.success(), "crun list: {}", String::from_utf8_lossy(&output.stderr));
    let id = &node.containerd.sandboxes_of(node.view(pod).unwrap().uid())[0].id;
    String::from_utf8_lossy(&output.stdout).contains(id.as_str())
}

#[test]
fn runtime_classes_are_those_of_the_server() {
    let cluster = ControlPlane::shared();
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::builder("jp-class")
        .joined(&cluster)
        .argument("--runtime-class-path")
        .argument(folder.path().to_str().unwrap())
        .prepare();
    assert!(!node.containerd.fact("CRUN_ROOT").is_empty(), "crun is missing: run hack/deps.sh");
    runtime_class(&cluster, "jp-class");
    let mut wanted = pod_of("jp-class", &[container("main", STAY)]);
    wanted["spec"]["runtimeClassName"] = json!("jp-class");
    let made = cluster.bind("jp-class", &wanted);
    assert_eq!(made.spec.unwrap().overhead.unwrap()["cpu"].0, "10m");
    let classes = Api::<RuntimeClass>::all(cluster.client());
    cluster.block_on(classes.delete("jp-class", &DeleteParams::default())).unwrap();

    // The class of the folder is not that of the server's pods.
    let of_folder = |name: &str, handler: &str| {
        let class = json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": { "name": name }, "handler": handler,
        });
        fs::write(folder.path().join(format!("{name}.json")), class.to_string()).unwrap();
    };
    of_folder("jp-class", "runc");
    node.start_agent();
    cluster.wait_waiting("jp-class", "runtimeclass.node.k8s.io \"jp-class\" not found");
    runtime_class(&cluster, "jp-class");
    cluster.wait_ready("jp-class");
    assert!(is_of_crun(&node, "jp-class"));

    // A static pod has that of the folder, and else the server's.
    runtime_class(&cluster, "jp-other");
    for (name, class, of_crun, cpu) in
        [("jp-local", "jp-class", false, None), ("jp-remote", "jp-other", true, Some("10m"))]
    {
        let mut wanted = pod(name, STAY);
        wanted["spec"]["runtimeClassName"] = json!(class);
        node.put(&wanted);
        let view = node.wait_ready(name);
        assert_eq!(is_of_crun(&node, name), of_crun, "{name}");
        assert_eq!(view.0["spec"]["overhead"]["cpu"].as_str(), cpu, "{name}");
    }
}

#[test]
fn a_program_gives_credentials_on_a_node_that_stands_alone() {
    let mut node = Node::builder("jp-alone").prepare();
    let registry = Registry::start(&node.containerd);
    let (image, host) = (registry.image(), registry.host());
    let bin = node.dir().join("providers");
    fs::create_dir(&bin).unwrap();
    let answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry",
        "auth": { &host: { "username": Registry::USER, "password": Registry::PASSWORD } },
    });
    fs::write(bin.join("answer"), answer.to_string()).unwrap();
    let program = |name: &str, script: &str| {
        let text = node.dir().join("script");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        copy_program(&text, &bin.join(name));
    };
    let noted = node.dir().join("requests");
    program("good", &format!("cat >> {}; echo >> {0}; cat \"$ANSWER\"", noted.display()));
    program("bad", "echo no such role >&2; exit 3");
    let provider = |name: &str| {
        json!({
            "name": name, "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": [&host],
            "defaultCacheDuration": "1h", "env": [{ "name": "ANSWER", "value": bin.join("answer") }],
        })
    };
    let config = node.dir().join("providers.json");
    let configure = |names: &[&str]| {
        let file = json!({
            "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
            "providers": names.iter().map(|name| provider(name)).collect::<Vec<_>>(),
        });
        fs::write(&config, file.to_string()).unwrap();
    };
    let arguments = [
        format!("--image-credential-provider-config={}", config.display()),
        format!("--image-credential-provider-bin-dir={}", bin.display()),
    ];

    // What is not there is found out at the start.
    configure(&["good", "gone"]);
    let refused = node.agent_command().args(&arguments).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("providers/gone: "), "{told}");

    configure(&["bad"]);
    node.set_arguments(&[&arguments[0], &arguments[1]]);
    node.start_agent();
    let mut main = container("main", STAY);
    main["image"] = json!(image);
    main["imagePullPolicy"] = json!("Always");
    node.put(&pod_of("first", &[main.clone()]));
    node.wait_view("first", "told of the program", |view| {
        view.0.to_string().contains("credential provider \\\"bad\\\": exit status: 3 no such role")
    });

    node.kill9();
    configure(&["bad", "good"]);
    node.start_agent();
    node.put(&pod_of("second", &[main]));
    node.wait_ready("first");
    node.wait_ready("second");
    let requests = fs::read_to_string(&noted).unwrap();
    let repository = image.rsplit_once(':').unwrap().0;
    assert!(requests.contains(&format!("\"image\":\"{repository}\"")), "{requests}");
    assert_eq!(requests.lines().count(), 1, "the answer counts for the registry: {requests}");
    assert!(!node.agent_log().contains(Registry::PASSWORD));
    assert_eq!(files_with(&node.root_dir(), Registry::PASSWORD), Vec::<PathBuf>::new());
}
