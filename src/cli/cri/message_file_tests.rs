use super::*;
use crate::api::cri::{NamespaceMode, Protocol};

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn read_pod(text: &str) -> Result<PodSandboxConfig, String> {
    let file = file(text);
    let name = file.path().to_str().unwrap();
    pod(name).map_err(|error| {
        assert_eq!(error.kind.code(), 2);
        error.to_string().replace(&format!("{name}: "), "")
    })
}

fn read_container(text: &str) -> Result<ContainerConfig, String> {
    let file = file(text);
    let name = file.path().to_str().unwrap();
    container(name).map_err(|error| error.to_string().replace(&format!("{name}: "), ""))
}

#[test]
fn names_of_both_kinds_and_values_of_all_kinds() {
    let json = r#"{
        "metadata": {"name": "p", "namespace": "ns", "attempt": 1, "uid": "u"},
        "log_directory": "/tmp/x",
        "port_mappings": [{"protocol": 1, "container_port": 80}, {"protocol": "SCTP", "hostPort": "8080"}],
        "labels": {"a": "b"},
        "linux": {"security_context": {"namespace_options": {"network": 2}, "run_as_user": {"value": 7}}}
    }"#;
    let yaml = "metadata: {name: p, namespace: ns, attempt: 1, uid: u}\n\
                logDirectory: /tmp/x\n\
                portMappings: [{protocol: UDP, containerPort: 80}, {protocol: SCTP, host_port: 8080}]\n\
                labels: {a: b}\n\
                hostname: null\n\
                linux:\n  securityContext:\n    namespaceOptions: {network: NODE}\n    runAsUser: '7'\n";
    let pod = read_pod(json).unwrap();
    assert_eq!(pod, read_pod(yaml).unwrap());
    assert_eq!(pod.port_mappings[0].protocol(), Protocol::Udp);
    assert_eq!((pod.port_mappings[1].protocol(), pod.port_mappings[1].host_port), (Protocol::Sctp, 8080));
    let security = pod.linux.unwrap().security_context.unwrap();
    assert_eq!(security.namespace_options.unwrap().network(), NamespaceMode::Node);
    assert_eq!(security.run_as_user.unwrap().value, 7);
    let container =
        read_container(r#"{"metadata": {"name": "c"}, "image": {"image": "x:1"}, "CDI_devices": []}"#);
    let image = container.unwrap().image.unwrap();
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("x:1", "x:1"));
}

#[test]
fn a_pod_without_uid_gets_one() {
    let uid = |_| read_pod("metadata: {name: p, namespace: ns}").unwrap().metadata.unwrap().uid;
    let (one, other): (String, String) = (uid(1), uid(2));
    assert_ne!(one, other);
    let parts: Vec<usize> = one.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{one}");
    assert!(one.split('-').nth(2).unwrap().starts_with('4'), "{one}");
}

#[test]
fn what_is_wrong_is_named_with_line_and_field() {
    for (text, words) in [
        ("metadata: {name: p}\n", "line 1: metadata.namespace: the pod's namespace must be given"),
        ("hostname: x\n", "metadata.name: the pod's name must be given"),
        (
            "metadata:\n  name: p\n  namespace: ns\nlog_dirctory: /x\n",
            "line 4: log_dirctory: there is no such field, did you mean \"log_directory\"?",
        ),
        (
            "metadata:\n  name: 7\n  namespace: ns\n",
            "line 2: metadata.name: expected a string, found a number: put the value in quotes",
        ),
        (
            "port_mappings:\n- protocol: TPC\n- container_port: 3000000000\n",
            "line 2: port_mappings[0].protocol: there is no value \"TPC\", did you mean \"TCP\"?; \
             line 3: port_mappings[1].container_port: the number is no 32-bit one",
        ),
        ("port_mappings:\n- protocol: 99999999999\n", "there is no value 99999999999"),
        (
            "linux:\n  security_context:\n    namespace_options: {pid: mine}\n",
            "pid: there is no value \"mine\", it is one of POD, CONTAINER, NODE, TARGET",
        ),
        ("linux: 5\n", "line 1: linux: expected a mapping, found a number"),
        ("labels: [a]\n", "line 1: labels: expected a mapping, found a list"),
        ("labels: {a: 1}\n", "labels[\"a\"]: expected a string"),
        ("port_mappings: {}\n", "expected a list, found a mapping"),
        ("hostname: a\nhostname: b\n", "line 2"),
        ("log_directory: /a\nlogDirectory: /b\n", "line 2: logDirectory: log_directory is given twice"),
        ("[1]\n", "expected a mapping, found a list"),
        ("{\"a\":", "JSON syntax error at line 1"),
        ("", "empty"),
    ] {
        let error = read_pod(text).unwrap_err();
        assert!(error.contains(words), "{text:?}: {error}");
    }
    let many: String = (0..9).map(|n| format!("odd{n}: 1\n")).collect();
    assert!(read_pod(&many).unwrap_err().ends_with("; and 4 more"));
    assert!(
        read_container("metadata: {name: c}").unwrap_err().contains("image.image: the container's image")
    );
    assert!(read_container("tty: yes-please").unwrap_err().contains("tty: expected true or false"));
    let error = pod("/nonexistent/x.json").unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nonexistent/x.json: No such file"), "{error}");
    assert!(read_pod(&" ".repeat(MAX_BYTES + 1)).unwrap_err().contains("larger than"));
}
