//! The command line without a runtime: configuration, flags, exit codes, completions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn nodectl(arguments: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_nodectl"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the built nodectl starts");
    Answer {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A configuration as `kubeadm init` of 1.36 writes it.
const KUBEADM: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: \"0\"
    text:
      infoBufferSize: \"0\"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";

#[test]
fn kubeadms_own_configuration_is_valid_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "config.yaml", KUBEADM);
    let answer = nodectl(&["config", "validate", path.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
}

#[test]
fn the_defaults_are_a_valid_configuration() {
    let defaults = nodectl(&["config", "defaults"]);
    assert_eq!(defaults.code, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "defaults.yaml", &defaults.out);
    let answer = nodectl(&["config", "validate", path.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
}

#[test]
fn a_bad_configuration_is_told_with_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    for (line, words) in [
        ("maxpods: 5\n", &["maxpods", "maxPods"][..]),
        ("syncFrequency: soon\n", &["syncFrequency", "soon"]),
        ("healthzPort: 70000\n", &["healthzPort", "70000"]),
        ("featureGates: {NoSuchGate: true}\n", &["NoSuchGate"]),
        ("healthzPort: 1\nhealthzPort: 2\n", &["healthzPort"]),
    ] {
        let path = file(&folder, "config.yaml", &format!("{head}{line}"));
        let path = path.to_str().unwrap();
        let run = nodectl(&["run", "--config", path, "--root-dir", folder.path().to_str().unwrap()]);
        assert_eq!(run.code, Some(2), "{line}{}", run.err);
        let validate = nodectl(&["config", "validate", path]);
        assert_eq!(validate.code, Some(2), "{line}{}", validate.out);
        for text in [&run.err, &validate.out] {
            assert!(text.contains(&format!("{path}:")), "{text}");
            assert!([":3:", ":4:"].iter().any(|at| text.contains(at)), "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text}");
        }
    }
    let absent = folder.path().join("absent.yaml");
    let answer = nodectl(&["run", "--config", absent.to_str().unwrap()]);
    assert_eq!(answer.code, Some(2), "{}", answer.err);
    assert!(answer.err.contains("absent.yaml"), "{}", answer.err);
}

#[test]
fn wrong_usage_is_told_with_exit_code_2() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["run", "--sync-frequency=often"],
        &["run", "--root-dir"],
        &["nonsense"],
        &["pods", "-o", "nonsense"],
        &["explain"],
    ] {
        let answer = nodectl(arguments);
        assert_eq!(answer.code, Some(2), "{arguments:?}: {}", answer.err);
        assert!(!answer.err.is_empty() && answer.out.is_empty(), "{arguments:?}");
    }
    let answer = nodectl(&["run", "--no-such-flag"]);
    assert!(answer.err.contains("--no-such-flag"), "{}", answer.err);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let answer = nodectl(&["completions", shell]);
        assert_eq!(answer.code, Some(0));
        assert!(answer.out.contains(&format!("nodectl __complete {shell}")), "{shell}");
    }
    // What the scripts ask for.
    let answer = nodectl(&["__complete", "bash", "nodectl exp", "exp"]);
    assert_eq!(answer.code, Some(0));
    assert!(answer.out.lines().nth(1).is_some_and(|line| line.starts_with("explain\t")), "{}", answer.out);
    let help = nodectl(&["--help"]);
    assert_eq!(help.code, Some(0));
    for verb in ["run", "pods", "explain", "config", "completions"] {
        assert!(help.out.contains(verb), "{}", help.out);
    }
}
