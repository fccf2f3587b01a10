//! Each way in which a configuration can be wrong, with the place that is named.

use super::*;

#[test]
fn every_kind_of_error_names_line_and_key() {
    for (body, expected) in [
        ("maxPodz: 5\n", "config.yaml:3:1: maxPodz: unknown key (did you mean \"maxPods\"?)"),
        ("maxpods: 5\n", "config.yaml:3:1: maxpods: unknown key (did you mean \"maxPods\"?)"),
        (
            "authentication:\n  webhok:\n    enabled: true\n",
            "config.yaml:4:3: authentication.webhok: unknown key (did you mean \"webhook\"?)",
        ),
        ("maxPods: ten\n", "config.yaml:3:10: maxPods: want an integer, got a string"),
        ("maxPods: \"10\"\n", "config.yaml:3:10: maxPods: want an integer, got a string"),
        ("maxPods: 1.5\n", "config.yaml:3:10: maxPods: want an integer, got a number"),
        ("maxPods: 3000000000\n", "config.yaml:3:10: maxPods: 3000000000 does not fit a 32-bit integer"),
        ("maxPods: -1\n", "config.yaml:3:10: maxPods: -1 is negative"),
        (
            "serializeImagePulls: maybe\n",
            "config.yaml:3:22: serializeImagePulls: want a boolean (true or false), got a string",
        ),
        ("staticPodPath: [a]\n", "config.yaml:3:16: staticPodPath: want a string, got a list"),
        ("clusterDNS: 10.0.0.1\n", "config.yaml:3:13: clusterDNS: want a list of strings, got a string"),
        ("clusterDNS: [10]\n", "config.yaml:3:14: clusterDNS[0]: want a string, got an integer"),
        (
            "syncFrequency: 20\n",
            "config.yaml:3:16: syncFrequency: want a duration string such as \"1m30s\", got an integer",
        ),
        (
            "syncFrequency: 20sec\n",
            "config.yaml:3:16: syncFrequency: \"20sec\" has the unknown unit \"sec\" (want ns, us, ms, s, m or h)",
        ),
        (
            "cgroupDriver: sytemd\n",
            "config.yaml:3:15: cgroupDriver: \"sytemd\" is not one of \"cgroupfs\" or \"systemd\" (did you mean \"systemd\"?)",
        ),
        (
            "healthzBindAddress: localhost\n",
            "config.yaml:3:21: healthzBindAddress: \"localhost\" is not an IP address",
        ),
        ("healthzPort: 70000\n", "config.yaml:3:14: healthzPort: 70000 is not between 0 and 65535"),
        (
            "systemReserved:\n  memory: 1Gib\n",
            "config.yaml:4:11: systemReserved.memory: \"1Gib\" has the unknown suffix \"Gib\" (want n, u, m, k, M, G, T, P, E, Ki to Ei, or an exponent)",
        ),
        (
            "allowedUnsafeSysctls: [net.core.somaxconn, vm.swappiness]\n",
            "config.yaml:3:23: allowedUnsafeSysctls: \"vm.swappiness\" is not known to be namespaced: pods would change the host",
        ),
        (
            "allowedUnsafeSysctls: [\"net.*.x\"]\n",
            "config.yaml:3:23: allowedUnsafeSysctls: \"net.*.x\" is no name of a kernel setting, nor a beginning with * behind",
        ),
        (
            "systemReserved:\n  disk: 1Gi\n",
            "config.yaml:4:9: systemReserved.disk: cannot be reserved; want \"cpu\", \"memory\", \"ephemeral-storage\" or \"pid\"",
        ),
        (
            "evictionHard:\n  memory.availabel: 1Gi\n",
            "config.yaml:4:21: evictionHard.memory.availabel: unknown eviction signal (did you mean \"memory.available\"?)",
        ),
        (
            "evictionHard:\n  nodefs.available: 110%\n",
            "config.yaml:4:21: evictionHard.nodefs.available: \"110%\" is not a percentage from 0% to 100%",
        ),
        (
            "evictionSoft:\n  memory.available: 1Gi\n",
            "config.yaml:4:21: evictionSoft.memory.available: needs a period in evictionSoftGracePeriod",
        ),
        (
            "featureGates:\n  EventedPLG: true\n",
            "config.yaml:4:3: featureGates.EventedPLG: unknown feature gate (did you mean \"EventedPLEG\"?)",
        ),
        (
            "featureGates:\n  NodeSwap: false\n",
            "config.yaml:4:3: featureGates.NodeSwap: this feature gate is locked to true",
        ),
        (
            "featureGates:\n  EventedPLEG: 1\n",
            "config.yaml:4:16: featureGates.EventedPLEG: want a boolean (true or false), got an integer",
        ),
        ("maxPods: 5\nmaxPods: 6\n", "config.yaml:4:1: maxPods: duplicate key, already set on line 3"),
        ("podLogsDir: logs\n", "config.yaml:3:13: podLogsDir: \"logs\" is not an absolute path"),
        (
            "podLogsDir: /var/../logs\n",
            "config.yaml:3:13: podLogsDir: \"/var/../logs\" has empty, \".\" or \"..\" parts or ends in a slash",
        ),
        (
            "imageGCHighThresholdPercent: 70\n",
            "config.yaml:3:30: imageGCLowThresholdPercent: 80 is not below imageGCHighThresholdPercent, which is 70",
        ),
        ("cgroupsPerQOS: false\n", "config.yaml:3:16: enforceNodeAllocatable: \"pods\" needs cgroupsPerQOS"),
        ("maxParallelImagePulls: 0\n", "config.yaml:3:24: maxParallelImagePulls: 0 is not a positive number"),
        (
            "maxParallelImagePulls: 4\nserializeImagePulls: true\n",
            "config.yaml:3:24: maxParallelImagePulls: 4 needs serializeImagePulls to be false",
        ),
        (
            "cpuCFSQuotaPeriod: 10ms\n",
            "config.yaml:3:20: cpuCFSQuotaPeriod: 10ms needs feature gate CustomCPUCFSQuotaPeriod",
        ),
        (
            "crashLoopBackOff:\n  maxContainerRestartPeriod: 10m\n",
            "config.yaml:4:30: crashLoopBackOff.maxContainerRestartPeriod: 10m0s is not between 1s and 5m0s",
        ),
        (
            "shutdownGracePeriod: 10s\nshutdownGracePeriodCriticalPods: 20s\n",
            "config.yaml:4:34: shutdownGracePeriodCriticalPods: 20s is more than shutdownGracePeriod, which is 10s",
        ),
        (
            "enforceNodeAllocatable: [pods, pods]\n",
            "config.yaml:3:25: enforceNodeAllocatable: \"pods\" is there twice",
        ),
        (
            "enforceNodeAllocatable: [kube-reserved]\n",
            "config.yaml:3:25: enforceNodeAllocatable: \"kube-reserved\" needs kubeReservedCgroup",
        ),
        (
            "reservedSystemCPUs: 3-1\n",
            "config.yaml:3:21: reservedSystemCPUs: \"3-1\" is not a list of CPUs such as \"0-3,8\"",
        ),
        (
            "reservedMemory:\n- numaNode: 0\n  limits: {cpu: 1}\n",
            "config.yaml:5:17: reservedMemory[0].limits.cpu: want memory or hugepages-SIZE",
        ),
        (
            "registerWithTaints:\n- {key: a, effect: Never}\n",
            "config.yaml:4:20: registerWithTaints[0].effect: \"Never\" is not one of \"NoSchedule\", \"PreferNoSchedule\" or \"NoExecute\"",
        ),
        (
            "containerRuntimeEndpoint: tcp://1.2.3.4:1\n",
            "config.yaml:3:27: containerRuntimeEndpoint: \"tcp\" is not a scheme for Linux; want unix:///path",
        ),
        ("runOnce: true\n", "config.yaml:3:10: runOnce: no longer supported by kubelet"),
    ] {
        assert_eq!(problems(body), [expected], "{body}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let found = problems("maxPodz: 5\nport: x\nsyncFrequency: 1\n");
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn broken_documents_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let report = |text: &[u8]| {
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        let error = validate_file(&path).unwrap_err().to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    };
    for (text, expected) in [
        (&b"a: [1, 2\n"[..], "c.yaml:1:4: not valid YAML or JSON"),
        (b"", "c.yaml:1:1: empty; want at least apiVersion and kind"),
        (b"- a\n", "c.yaml:1:1: want a mapping of configuration keys, got a list"),
        (b"maxPods: 3\n", "c.yaml:1:1: apiVersion: missing; want \"kubelet.config.k8s.io/v1beta1\""),
        (b"apiVersion: v1\nkind: KubeletConfiguration\n", "c.yaml:1:13: apiVersion: want"),
        (b"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: Pod\n", "c.yaml:2:7: kind: want"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"a: &a [*a]\n", "c.yaml:1:"),
        (b"a: 1\n---\nb: 2\n", "a second document"),
    ] {
        let got = report(text);
        assert!(got.contains(expected), "{got:?} lacks {expected:?}");
    }
    let bomb: String = (0..20).map(|n| format!("a{}: &a{} [*a{n}, *a{n}, *a{n}]\n", n + 1, n + 1)).collect();
    let got = report(format!("a0: &a0 [x, x, x]\n{bomb}").as_bytes());
    assert!(got.contains("too many values"), "{got}");
    let got = report("[".repeat(100_000).as_bytes());
    assert!(got.contains("c.yaml:1:"), "{got}");
    let got = report(&vec![b'#'; 1024 * 1024 + 1]);
    assert!(got.contains("larger than 1048576 bytes"), "{got}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load_flags(&[("config", "/nonexistent/config.yaml")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot read configuration /nonexistent/config.yaml: No such file or directory (os error 2)"
    );
    let error = load_flags(&[("config-dir", "/nonexistent")]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn bad_flags_are_named() {
    for (name, value, expected) in [
        ("no-such-flag", "1", "--no-such-flag: unknown flag"),
        ("root-dri", "/x", "--root-dri: unknown flag (did you mean \"root-dir\"?)"),
        ("max-pods", "ten", "--max-pods: want an integer, got \"ten\""),
        ("max-pods", "-1", "--max-pods: maxPods: -1 is negative"),
        (
            "cgroup-driver",
            "x",
            "--cgroup-driver: cgroupDriver: \"x\" is not one of \"cgroupfs\" or \"systemd\"",
        ),
        (
            "sync-frequency",
            "20",
            "--sync-frequency: \"20\" has no unit (want ns, us, ms, s, m or h, as in \"1m30s\")",
        ),
        ("fail-swap-on", "maybe", "--fail-swap-on: want true or false, got \"maybe\""),
        ("feature-gates", "NodeSwap", "--feature-gates: want Gate=true or Gate=false, got \"NodeSwap\""),
        ("feature-gates", "Nope=true", "--feature-gates: featureGates.Nope: unknown feature gate"),
        (
            "eviction-hard",
            "memory.available=1Gi",
            "--eviction-hard: want signal<amount, got \"memory.available=1Gi\"",
        ),
        ("manifest-url-header", "s3cret", "--manifest-url-header: want name:value for each header"),
        ("node-ip", "x", "--node-ip: want an IP address, got \"x\""),
        ("node-ip", "1.1.1.1,2.2.2.2", "--node-ip: 1.1.1.1 and 2.2.2.2 are of one family; want one of each"),
        ("hostname-override", "a_b", "--hostname-override: \"a_b\" is not a DNS name"),
        ("v", "-1", "-v: logging.verbosity: -1 is negative or does not fit a 32-bit integer"),
    ] {
        let error = load_flags(&[(name, value)]).unwrap_err();
        let found: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
        assert_eq!(found, [expected], "--{name}={value}");
    }
}

#[test]
fn no_message_holds_a_header_or_url_credential() {
    let body =
        "staticPodURL: https://u:s3cret@h/p?token=s3cret\nstaticPodURLHeader:\n  Authorization: [s3cret]\n";
    let (agent, warnings) = load_body(body, &[]).unwrap();
    assert_eq!(agent.manifest_url_headers.iter().collect::<Vec<_>>(), [("Authorization", "s3cret")]);
    let shown = format!("{agent:?} {warnings:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let found = problems("staticPodURLHeader:\n  Authorization: s3cret\nstaticPodURL: s3cret\n").join("\n");
    assert!(!found.is_empty() && !found.contains("s3cret"), "{found}");
}
