//! Names, resolvers, namespaces, ports of the host and runtime classes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::support::{
    Node, NodeBuilder, Process, Release, STAY, View, container, free_port, get, pod, pod_of, wait_for,
    wait_until,
};

fn builder(name: &str, release: Release) -> NodeBuilder {
    match release {
        Release::Machine => Node::builder(name),
        Release::Two => Node::builder(name).containerd2(),
    }
}

/// A pod of one container that stays, with these fields in its specification.
fn staying(name: &str, spec: &Value) -> Value {
    with(pod(name, STAY), spec)
}

fn with(mut pod: Value, spec: &Value) -> Value {
    let fields = spec.as_object().unwrap().clone();
    pod["spec"].as_object_mut().unwrap().extend(fields);
    pod
}

/// The words of a resolv.conf by what they are.
fn resolver(process: Process) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in process.read("/etc/resolv.conf").lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        if let Some(what) = words.next() {
            found.entry(what).or_default().extend(words);
        }
    }
    found
}

fn resolver_of(lists: [(&str, &str); 3]) -> BTreeMap<String, Vec<String>> {
    lists.map(|(what, words)| (what.to_owned(), words.split(' ').map(str::to_owned).collect())).into()
}

fn ip(view: &View) -> &str {
    view.0["status"]["podIP"].as_str().unwrap()
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}

/// Waits until the agent tells an error of the pod that holds these words, and gives what is told.
#[track_caller]
fn wait_error(node: &Node, pod: &str, words: &[&str]) -> Value {
    wait_for(super::support::SOON, &format!("an error of {pod} with {words:?}"), || {
        node.view(pod)?;
        let told = node.explain(pod);
        let message = told["progress"]["lastError"]["message"].as_str().unwrap_or_default().to_owned();
        words.iter().all(|word| message.contains(word)).then_some(told)
    })
}

const OF_THE_HOST: [(&str, &str); 3] =
    [("nameserver", "192.0.2.53"), ("search", "host.example"), ("options", "timeout:1 rotate")];
const OF_THE_CLUSTER: [(&str, &str); 3] = [
    ("nameserver", "10.96.0.10"),
    ("search", "default.svc.cluster.local svc.cluster.local cluster.local host.example"),
    ("options", "ndots:5"),
];

fn names_and_namespaces(name: &str, release: Release) {
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    fs::write(
        &resolv_conf,
        "nameserver 192.0.2.53\nsearch host.example.\noptions timeout:2 rotate\noptions timeout:1\n",
    )
    .unwrap();
    let own_hosts = folder.path().join("hosts");
    fs::write(&own_hosts, "192.0.2.77 own\n").unwrap();
    let config = format!(
        "resolvConf: {}\nclusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\n",
        resolv_conf.display()
    );
    let mut node = builder(name, release).config(&config).start();
    let before = node.leaks();
    let aliases = json!([{"ip": "192.0.2.1", "hostnames": ["db", "db.example"]}, {"ip": "192.0.2.2", "hostnames": ["cache"]}]);

    let mut own = container("own", STAY);
    own["volumeMounts"] = json!([{"name": "hosts", "mountPath": "/etc/hosts"}]);
    let mut dies = container(
        "dies",
        "cat /etc/hosts > /dev/null; trap 'exit 1' TERM; while :; do sleep 1000 & wait $!; done",
    );
    dies["securityContext"] = json!({});
    let named = pod_of("named", &[container("main", STAY), own, dies]);
    node.put(&with(
        named,
        &json!({
            "hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": true, "hostAliases": aliases,
            "volumes": [{"name": "hosts", "hostPath": {"path": own_hosts, "type": "File"}}],
        }),
    ));
    let dns = json!({
        "nameservers": ["192.0.2.9", "192.0.2.8"], "searches": ["own.example", "_srv.own.example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    });
    let over = json!({"hostnameOverride": "any.name.example", "subdomain": "sub", "dnsPolicy": "None", "dnsConfig": dns});
    node.put(&staying("over", &over));
    let long = format!("long-{}", "x".repeat(70));
    let merged = json!({"nameservers": ["192.0.2.9"], "searches": ["own.example"], "options": [{"name": "timeout", "value": "7"}]});
    node.put(&staying(&long, &json!({"dnsPolicy": "Default", "dnsConfig": merged})));
    node.put(&staying("host", &json!({
        "hostNetwork": true, "hostPID": true, "hostIPC": true, "hostAliases": aliases, "hostname": "unused",
    })));
    node.put(&staying("hostdns", &json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})));
    let shared = pod_of("shared", &[container("a", STAY), container("b", STAY)]);
    node.put(&with(shared, &json!({"shareProcessNamespace": true})));
    node.put(&staying("toolong", &json!({"subdomain": "s".repeat(60), "setHostnameAsFQDN": true})));

    // The names of a pod's host, and its /etc/hosts, which all containers share but the one with its own.
    let view = node.wait_ready("named");
    let [main, own, dies] = ["main", "own", "dies"].map(|container| node.process(&view, container));
    assert_eq!(main.host_name(), "h.sub.default.svc.cluster.local");
    assert_eq!(main.variable("HOSTNAME").as_deref(), Some("h.sub.default.svc.cluster.local"));
    let hosts = format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
         {}\th.sub.default.svc.cluster.local\th\n\
         \n# Entries added by HostAliases.\n192.0.2.1\tdb\tdb.example\n192.0.2.2\tcache\n",
        ip(&view)
    );
    assert_eq!(main.read("/etc/hosts"), hosts);
    assert!(!main.is_read_only("/etc/hosts"));
    assert_eq!(own.read("/etc/hosts"), "192.0.2.77 own\n");
    let file = node.root_dir().join(format!("pods/{}/etc-hosts", view.uid()));
    for process in [main, dies] {
        assert_eq!(inode(&process.path("/etc/hosts")), inode(&file));
    }
    assert_eq!(resolver(main), resolver_of(OF_THE_CLUSTER));

    // What each shares with which.
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(main.namespace(kind), dies.namespace(kind), "{kind}");
        assert_ne!(main.namespace(kind), of_this_machine(kind), "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(main.namespace(kind), dies.namespace(kind), "{kind}");
    }

    let view_over = node.wait_ready("over");
    let over = node.process(&view_over, "main");
    assert_eq!(over.host_name(), "any.name.example");
    assert!(over.read("/etc/hosts").ends_with(&format!("\n{}\tany.name.example\n", ip(&view_over))));
    let own = [
        ("nameserver", "192.0.2.9 192.0.2.8"),
        ("search", "own.example _srv.own.example"),
        ("options", "ndots:2 edns0"),
    ];
    assert_eq!(resolver(over), resolver_of(own));

    let cut = node.process(&node.wait_ready(&long), "main");
    assert_eq!(cut.host_name(), node.static_name(&long)[..63]);
    let merged = [
        ("nameserver", "192.0.2.53 192.0.2.9"),
        ("search", "host.example own.example"),
        ("options", "timeout:7 rotate"),
    ];
    assert_eq!(resolver(cut), resolver_of(merged));

    let host = node.process(&node.wait_ready("host"), "main");
    for kind in ["net", "pid", "ipc", "uts"] {
        assert_eq!(host.namespace(kind), of_this_machine(kind), "{kind}");
    }
    let uname = nix::sys::utsname::uname().unwrap();
    assert_eq!(host.host_name(), uname.nodename().to_str().unwrap());
    let machines = fs::read_to_string("/etc/hosts").unwrap();
    let hosts_of_host = format!(
        "# Kubernetes-managed hosts file (host network).\n{machines}\n\
         # Entries added by HostAliases.\n192.0.2.1\tdb\tdb.example\n192.0.2.2\tcache\n"
    );
    assert_eq!(host.read("/etc/hosts"), hosts_of_host);
    assert_eq!(resolver(host), resolver_of(OF_THE_HOST));
    let hostdns = node.process(&node.wait_ready("hostdns"), "main");
    assert_eq!(resolver(hostdns), resolver_of(OF_THE_CLUSTER));
    assert_eq!(hostdns.namespace("net"), of_this_machine("net"));
    for kind in ["pid", "ipc"] {
        assert_ne!(hostdns.namespace(kind), of_this_machine(kind), "{kind}");
    }

    let view_shared = node.wait_ready("shared");
    let (a, b) = (node.process(&view_shared, "a"), node.process(&view_shared, "b"));
    assert_eq!(a.namespace("pid"), b.namespace("pid"));
    assert_ne!(a.namespace("pid"), of_this_machine("pid"));
    // Each sees the sandbox's process as the first, and the other's.
    let numbers = |process: Process| -> Vec<String> {
        // One that has ended meanwhile has no name.
        let of = |file: &str| fs::read_to_string(process.path(file)).unwrap_or_default();
        assert!(of("/proc/1/cmdline").contains("pause"), "{:?}", of("/proc/1/cmdline"));
        let seen = fs::read_dir(process.path("/proc")).unwrap();
        seen.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.parse::<u32>().is_ok() && of(&format!("/proc/{name}/comm")) == "sh\n")
            .collect()
    };
    // A shell that has just forked is two for a moment.
    wait_until(super::support::SOON, "each sees both shells", || {
        let (of_a, of_b) = (numbers(a), numbers(b));
        of_a.len() == 2 && of_a == of_b
    });

    let told = wait_error(&node, "toolong", &["setHostnameAsFQDN", "at most 64"]);
    assert!(told.to_string().contains("shorter"), "{told}");
    assert!(node.containerd.sandboxes_of(node.view("toolong").unwrap().uid()).is_empty());

    // A container that dies comes back to the one file, made anew; and another agent changes nothing.
    fs::write(main.path("/etc/hosts"), "192.0.2.66 written-by-the-pod\n").unwrap();
    dies.kill();
    let again = node
        .wait_view("named", "with a container started again", |v| v.restarts("dies") == 1 && v.runs("dies"));
    assert_eq!(node.process(&again, "dies").read("/etc/hosts"), hosts);
    assert_eq!(main.read("/etc/hosts"), hosts);
    let ids = |node: &Node| {
        ["named", "over", &long, "host", "hostdns", "shared"].map(|p| node.view(p).map(|v| v.id(main_of(p))))
    };
    let running = ids(&node);
    fs::write(&resolv_conf, "nameserver 192.0.2.54\n").unwrap();
    node.restart();
    wait_error(&node, "toolong", &["setHostnameAsFQDN"]);
    for pod in ["named", "over", &long, "host", "hostdns", "shared"] {
        node.wait_ready(pod);
    }
    assert_eq!(ids(&node), running);

    for pod in ["named", "over", &long, "host", "hostdns", "shared", "toolong"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
    assert_eq!(fs::read_to_string(own_hosts).unwrap(), "192.0.2.77 own\n");
}

/// What is over the C library's limits is left out, and without a resolver of the host there is a server that
/// answers nobody, as kubelet has it.
fn resolver_limits(name: &str, release: Release) {
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    let servers: Vec<String> = (1..=5).map(|n| format!("192.0.2.{n}")).collect();
    let searches: Vec<String> = (1..=40).map(|n| format!("d{n}.example")).collect();
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(&resolv_conf, format!("{lines}search {}\n", searches.join(" "))).unwrap();
    let mut node = builder(name, release).config(&format!("resolvConf: {}\n", resolv_conf.display())).start();
    let before = node.leaks();
    let found = |node: &Node, pod: &str, spec: &Value| {
        node.put(&staying(pod, spec));
        resolver(node.process(&node.wait_ready(pod), "main"))
    };
    let many = found(&node, "many", &json!({"dnsPolicy": "Default"}));
    assert_eq!(many["nameserver"], servers[..3]);
    assert_eq!(many["search"], searches[..32]);
    let own = json!({"nameservers": ["192.0.2.9"], "searches": ["own.example"]});
    let more = found(&node, "more", &json!({"dnsPolicy": "Default", "dnsConfig": own}));
    assert_eq!(more["nameserver"], servers[..3], "the host's come first");
    assert_eq!(more["search"], searches[..32]);
    // Ten of 250 characters and more: 2048 hold eight of them.
    let long: Vec<String> = (0..10).map(|n| format!("{n}{}.example", "abcdefg.".repeat(30))).collect();
    let long: Vec<String> = long.iter().map(|name| name.replace("..", ".")).collect();
    fs::write(&resolv_conf, format!("nameserver 192.0.2.1\nsearch {}\n", long.join(" "))).unwrap();
    let cut = found(&node, "cut", &json!({"dnsPolicy": "Default"}));
    let fitting = (1..=10).rev().find(|n| long[..*n].join(" ").len() <= 2048).unwrap();
    assert!(fitting < 10);
    assert_eq!(cut["search"], long[..fitting]);

    node.kill9();
    fs::write(node.config_file(), {
        let text = fs::read_to_string(node.config_file()).unwrap();
        text.replace(&format!("resolvConf: {}", resolv_conf.display()), "resolvConf: \"\"")
    })
    .unwrap();
    node.start_agent();
    let none = found(&node, "none", &json!({"dnsPolicy": "Default"}));
    assert_eq!(none["nameserver"], ["127.0.0.1"]);
    assert_eq!(none.get("search"), Some(&vec![".".to_owned()]));
    for pod in ["many", "more", "cut", "none"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_resolver_is_kept_within_its_limits() {
    resolver_limits("nt7", Release::Machine);
}

#[test]
fn a_resolver_is_kept_within_its_limits_on_containerd_2() {
    resolver_limits("nt8", Release::Two);
}

fn main_of(pod: &str) -> &'static str {
    if pod == "shared" { "a" } else { "main" }
}

fn of_this_machine(kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()
}

#[test]
fn names_and_namespaces_are_as_asked_for() {
    names_and_namespaces("nt1", Release::Machine);
}

#[test]
fn names_and_namespaces_are_as_asked_for_on_containerd_2() {
    names_and_namespaces("nt2", Release::Two);
}

fn serving(name: &str, port: &Value) -> Value {
    let mut web = container("main", &format!("echo {name} > /tmp/name; exec httpd -f -p 8080 -h /tmp"));
    web["ports"] = json!([port]);
    pod_of(name, &[web])
}

fn host_ports(name: &str, release: Release) {
    let mut node = builder(name, release).start();
    let before = node.leaks();
    let gateway = node.containerd.fact("GATEWAY").to_owned();
    let (everywhere, at_one) = (free_port(), free_port());
    let answers = |address: &str, port: u16, name: &str| {
        get(&format!("{address}:{port}"), "/name")
            .is_some_and(|answer| answer.ends_with(&format!("{name}\n")))
    };
    // A container without a probe is ready before its server listens.
    let wait_answers = |address: &str, port: u16, name: &str| {
        let what = format!("{name} answers at {address}:{port}");
        wait_until(super::support::SOON, &what, || answers(address, port, name));
    };
    node.put(&serving("tcp", &json!({"containerPort": 8080, "hostPort": everywhere})));
    node.wait_ready("tcp");
    wait_answers(&gateway, everywhere, "tcp");

    // Another protocol is another port.
    node.put(&serving("udp", &json!({"containerPort": 8080, "hostPort": everywhere, "protocol": "UDP"})));
    node.wait_ready("udp");
    let rules = Command::new("iptables").args(["-w", "-t", "nat", "-S"]).output().expect("iptables starts");
    let rules = String::from_utf8(rules.stdout).unwrap();
    for protocol in ["tcp", "udp"] {
        let words = [format!("-p {protocol} "), format!("--dport {everywhere} "), "DNAT".to_owned()];
        assert!(
            rules.lines().any(|line| words.iter().all(|word| line.contains(word))),
            "{protocol}:\n{rules}"
        );
    }

    // The same one is refused for good, also on one address, and by a pod on the host's network.
    let refused = |node: &Node, name: &str, taken_by: &str| {
        let view = node.wait_view(name, "refused", |view| view.phase() == "Failed");
        assert_eq!(view.0["status"]["reason"], "NodePorts");
        let message = view.0["status"]["message"].as_str().unwrap();
        assert!(message.contains("didn't have free ports"), "{message}");
        assert!(
            message.ends_with(&format!("is taken by pod default/{}", node.static_name(taken_by))),
            "{message}"
        );
        assert!(node.containerd.sandboxes_of(view.uid()).is_empty());
    };
    node.put(&serving("second", &json!({"containerPort": 8080, "hostPort": everywhere})));
    refused(&node, "second", "tcp");
    node.put(&serving("address", &json!({"containerPort": 8080, "hostPort": everywhere, "hostIP": gateway})));
    refused(&node, "address", "tcp");
    let on_the_host =
        with(serving("onhost", &json!({"containerPort": everywhere})), &json!({"hostNetwork": true}));
    node.put(&on_the_host);
    refused(&node, "onhost", "tcp");

    // Also by an agent that finds the others running.
    node.kill9();
    node.put(&serving("meanwhile", &json!({"containerPort": 8080, "hostPort": everywhere})));
    node.start_agent();
    refused(&node, "meanwhile", "tcp");

    // A port on one address is on that one only, and another address has the port free.
    node.put(&serving("one", &json!({"containerPort": 8080, "hostPort": at_one, "hostIP": gateway})));
    node.wait_ready("one");
    wait_answers(&gateway, at_one, "one");
    node.put(&serving("two", &json!({"containerPort": 8080, "hostPort": at_one, "hostIP": "127.0.0.2"})));
    node.wait_ready("two");
    assert!(answers(&gateway, at_one, "one"));
    assert!(!answers("127.0.0.1", at_one, "one"));

    // The port is free again when its pod is gone; the refused pod stays refused until it is given anew.
    node.take_away("tcp");
    node.wait_gone("tcp");
    assert_eq!(node.view("second").unwrap().phase(), "Failed");
    node.take_away("second");
    node.wait_gone("second");
    node.put(&serving("second", &json!({"containerPort": 8080, "hostPort": everywhere})));
    node.wait_ready("second");
    wait_answers(&gateway, everywhere, "second");

    for pod in ["udp", "second", "address", "onhost", "meanwhile", "one", "two"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_port_of_the_host_is_given_once() {
    host_ports("nt3", Release::Machine);
}

#[test]
fn a_port_of_the_host_is_given_once_on_containerd_2() {
    host_ports("nt4", Release::Two);
}

fn runtime_class(folder: &Path, name: &str, handler: &str, overhead: &Value) {
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
        "handler": handler, "overhead": overhead,
    });
    let beside = folder.join(".new");
    fs::write(&beside, class.to_string()).unwrap();
    fs::rename(beside, folder.join(format!("{name}.json"))).unwrap();
}

/// The processes of the containers that a low-level runtime holds, by id, as it tells itself.
fn held_by(program: &str, root: &str) -> BTreeMap<String, i64> {
    let root = format!("{root}/k8s.io");
    let output =
        Command::new(program).args(["--root", &root, "list", "-f", "json"]).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} list: {errors}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let held = list.as_array().into_iter().flatten();
    held.map(|c| (c["id"].as_str().unwrap().to_owned(), c["pid"].as_i64().unwrap())).collect()
}

fn runtime_classes(name: &str, release: Release) {
    let folder = tempfile::tempdir().unwrap();
    let classes = folder.path();
    let overhead = json!({"podFixed": {"cpu": "250m", "memory": "32Mi"}});
    runtime_class(classes, "light", "crun", &overhead);
    runtime_class(classes, "nowhere", "no-such-handler", &Value::Null);
    let mut node =
        builder(name, release).argument("--runtime-class-path").argument(classes.to_str().unwrap()).start();
    let before = node.leaks();
    node.put(&staying("light", &json!({"runtimeClassName": "light"})));
    node.put(&staying(
        "given",
        &json!({"runtimeClassName": "light", "overhead": {"cpu": "0.25", "memory": "32Mi"}}),
    ));
    node.put(&staying("plain", &json!({})));
    node.put(&staying("wrong", &json!({"runtimeClassName": "light", "overhead": {"cpu": "1"}})));
    node.put(&staying("late", &json!({"runtimeClassName": "late"})));
    node.put(&staying("nowhere", &json!({"runtimeClassName": "nowhere"})));
    node.put(&staying("none", &json!({"overhead": {"cpu": "100m"}})));

    // Which program runs them is asked of the programs.
    let (crun, runc) = (node.containerd.fact("CRUN_ROOT"), node.containerd.fact("RUNC_ROOT"));
    assert!(!crun.is_empty(), "crun is missing: run hack/deps.sh");
    let (light, plain) = (node.wait_ready("light"), node.wait_ready("plain"));
    let of_crun = held_by("crun", crun);
    let of_runc = held_by("runc", runc);
    let id = light.id("main");
    assert_eq!(of_crun.get(&id), Some(&i64::from(node.process(&light, "main").0)), "{of_crun:?}");
    assert!(of_runc.contains_key(&plain.id("main")) && !of_runc.contains_key(&id), "{of_runc:?}");
    let sandbox = &node.containerd.sandboxes_of(light.uid())[0];
    assert!(of_crun.contains_key(&sandbox.id), "the sandbox is not crun's");

    // The overhead of the class is the pod's; another one is refused for good.
    assert_eq!(light.0["spec"]["overhead"], overhead["podFixed"]);
    node.wait_ready("given");
    let wrong = node.wait_view("wrong", "refused", |view| view.phase() == "Failed");
    assert_eq!(wrong.0["status"]["reason"], "PodOverhead");
    assert_eq!(node.wait_ready("none").0["spec"]["overhead"]["cpu"], "100m", "without a class, as it stands");

    // What is not known yet is told, and tried again.
    let told = wait_error(&node, "late", &["runtime class \"late\" is not known", "no manifest in"]);
    assert_eq!(told["progress"]["lastError"]["reason"], "RuntimeClassNotFound");
    assert!(told.to_string().contains("put a RuntimeClass manifest"), "{told}");
    wait_error(&node, "nowhere", &["no-such-handler"]);
    assert!(node.containerd.sandboxes_of(node.view("late").unwrap().uid()).is_empty());
    runtime_class(classes, "late", "crun", &Value::Null);
    let late = node.wait_ready("late");
    assert!(held_by("crun", crun).contains_key(&late.id("main")));
    assert!(late.0["spec"]["overhead"].is_null());

    // A class that is gone, or has another overhead, changes no pod that is there, nor does another agent.
    fs::remove_file(classes.join("late.json")).unwrap();
    runtime_class(classes, "light", "crun", &json!({"podFixed": {"cpu": "1"}}));
    node.restart();
    for (pod, view) in [("light", &light), ("late", &late), ("plain", &plain)] {
        assert_eq!(node.wait_ready(pod).id("main"), view.id("main"), "{pod}");
    }
    assert_eq!(node.wait_ready("light").0["spec"]["overhead"], overhead["podFixed"]);

    for pod in ["light", "given", "plain", "wrong", "late", "nowhere", "none"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
    let left = held_by("crun", node.containerd.fact("CRUN_ROOT"));
    assert!(left.is_empty(), "crun still holds {left:?}");
}

#[test]
fn a_runtime_class_names_the_handler() {
    runtime_classes("nt5", Release::Machine);
}

#[test]
fn a_runtime_class_names_the_handler_on_containerd_2() {
    runtime_classes("nt6", Release::Two);
}
