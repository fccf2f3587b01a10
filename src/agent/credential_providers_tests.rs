//! Against scripts that note how they were run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;

const V1: &str = "credentialprovider.kubelet.k8s.io/v1";
const PASSWORD: &str = "hunter2-word";

/// Programs of one folder, each a script that notes every run.
fn providers(folder: &Path, script: &str, limit: Duration) -> CredentialProviders {
    let program = folder.join("provider");
    let text = format!("#!/bin/sh\necho run >> {}/runs\n{script}\n", folder.display());
    // Written by another process: a child that another test forks meanwhile would keep it open for writing.
    let beside = folder.join("text");
    fs::write(&beside, text).unwrap();
    assert!(std::process::Command::new("cp").args([&beside, &program]).status().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut providers = CredentialProviders::new(vec![CredentialProvider {
        name: "provider".to_owned(),
        program,
        match_images: vec!["*.example".to_owned()],
        default_cache_duration: Duration::ZERO,
        api_version: V1.to_owned(),
        args: vec!["get".to_owned(), "$(id)".to_owned()],
        env: vec![("WHO".to_owned(), "bob".to_owned())],
    }]);
    providers.0[0].limit = limit;
    providers
}

fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
}

fn answer(key: &str, duration: &str) -> String {
    format!(
        "cat > \"$(dirname \"$0\")/request\"\nprintf '%s' \"$#-$2\" > \"$(dirname \"$0\")/arguments\"\n\
         printf '%s' '{{\"kind\": \"CredentialProviderResponse\", \"apiVersion\": \"{V1}\", \
         \"cacheKeyType\": \"{key}\", {duration} \"auth\": {{\"*.example\": \
         {{\"username\": \"'\"$WHO\"'\", \"password\": \"{PASSWORD}\"}}}}}}'"
    )
}

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_program_is_asked_without_a_shell_and_its_answer_used() {
    let folder = tempfile::tempdir().unwrap();
    let providers = providers(folder.path(), &answer("Image", ""), SOON);
    let (found, problems) = providers.credentials("r.example/team/a").await;
    assert_eq!(problems, Vec::<String>::new());
    let auth = found[0].auth_config();
    assert_eq!((auth.username.as_str(), auth.password.as_str()), ("bob", PASSWORD));
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    let request: serde_json::Value = serde_json::from_str(&read("request")).unwrap();
    assert_eq!(
        request,
        json!({ "kind": "CredentialProviderRequest", "apiVersion": V1, "image": "r.example/team/a" })
    );
    assert_eq!(read("arguments"), "2-$(id)");
    // Not for others.
    assert_eq!(providers.credentials("docker.io/library/a").await, (Vec::new(), Vec::new()));
    assert_eq!(runs(folder.path()), 1);
}

#[tokio::test]
async fn an_answer_counts_for_what_and_as_long_as_it_says() {
    for (key, duration, expected) in [
        ("Image", "\"cacheDuration\": \"1h\",", 3),
        ("Registry", "\"cacheDuration\": \"1h\",", 2),
        ("Global", "\"cacheDuration\": \"1h\",", 1),
        ("Global", "", 4),
        ("Global", "\"cacheDuration\": \"0s\",", 4),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let providers = providers(folder.path(), &answer(key, duration), SOON);
        for image in ["r.example/a", "r.example/a", "r.example/b", "s.example/b"] {
            assert_eq!(providers.credentials(image).await.0.len(), 1);
        }
        assert_eq!(runs(folder.path()), expected, "{key} {duration}");
    }
}

#[tokio::test]
async fn requests_for_one_image_are_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done\n{}", go.display(), answer("Image", ""));
    let providers = providers(folder.path(), &script, SOON);
    let open = async {
        // Both wait by then: what is joined is polled in turn.
        tokio::task::yield_now().await;
        fs::write(&go, "").unwrap();
    };
    let ask = || providers.credentials("r.example/a");
    let (one, other, ()) = tokio::join!(ask(), ask(), open);
    assert_eq!((one.0.len(), one), (1, other));
    assert_eq!(runs(folder.path()), 1);
}

#[tokio::test]
async fn what_goes_wrong_is_told_without_what_was_said() {
    let long = format!("head -c {} /dev/zero", MAX_ANSWER + 10);
    for (script, told) in [
        ("echo hunter2 >&2; echo no such role >&2; exit 3", "exit status: 3 no such role"),
        ("echo '{\"kind\": \"hunter2'", "its answer cannot be read: line"),
        ("echo '{}'", "its answer cannot be read: line 1"),
        (
            "echo '{\"kind\": \"CredentialProviderResponse\", \"apiVersion\": \"v2\", \"cacheKeyType\": \"Image\"}'",
            "its answer is no CredentialProviderResponse of credentialprovider",
        ),
        (long.as_str(), "its answer is larger than 1024 KiB"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let providers = providers(folder.path(), script, SOON);
        let (found, problems) = providers.credentials("r.example/a").await;
        assert!(found.is_empty());
        assert!(problems[0].starts_with("credential provider \"provider\": "), "{problems:?}");
        assert!(problems[0].contains(told) && !problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = format!("sleep 1000 &\necho $$ $! > {}\nwait", pids.display());
    let providers = providers(folder.path(), &script, Duration::from_secs(1));
    let (_, problems) = providers.credentials("r.example/a").await;
    assert_eq!(problems, ["credential provider \"provider\": no answer within 1 s"]);
    // On a machine so busy that it had not begun there is nothing to look for.
    for pid in fs::read_to_string(&pids).unwrap_or_default().split_whitespace() {
        let gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
            Err(_) => true,
        };
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
