//! What fits an image, in which order, and what is said of Secrets that cannot be used.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::policy::given::{ObjectKey, ObjectKind};

fn who(name: &str) -> Credentials {
    Credentials::new(name.to_owned(), "hunter2-word".to_owned()).unwrap()
}

fn names(found: &[Credentials]) -> Vec<&str> {
    found.iter().map(|one| one.username.as_str()).collect()
}

fn keyring(locations: &[&str]) -> Keyring {
    let mut keyring = Keyring::default();
    locations.iter().for_each(|location| keyring.add(location, who(location)));
    keyring
}

#[test]
fn a_pattern_is_for_a_registry_or_a_part_of_it() {
    for (pattern, repository, expected) in [
        ("r.example", "r.example/a", true),
        ("r.example", "r.example:5000/a", false),
        ("r.example:5000", "r.example:5000/a", true),
        ("r.example:5000", "r.example:5001/a", false),
        ("r.example/team", "r.example/team/a", true),
        ("r.example/team", "r.example/other/a", false),
        // Kubelet compares the path's beginning by letters.
        ("r.example/team", "r.example/teams/a", true),
        ("*.example", "r.example/a", true),
        ("*.example", "a.r.example/a", false),
        ("*.*.example", "a.r.example/a", true),
        ("r*y.example", "registry.example/a", true),
        ("r*y.example", "registries.example/a", false),
        ("a*b*c.example", "a-b-b-c.example/a", true),
        ("*", "localhost/a", true),
        ("localhost:*", "localhost:5000/a", false),
        ("*.example", "example/a", false),
        ("[::1]:5000", "[::1]:5000/a", true),
    ] {
        assert_eq!(fits(pattern, repository), expected, "{pattern} {repository}");
    }
}

#[test]
fn the_longest_name_comes_first() {
    let keyring = keyring(&["quay.io", "quay.io/org", "*.io", "quay.io/org/a", "other.io"]);
    assert_eq!(names(&keyring.lookup("quay.io/org/a")), ["quay.io/org/a", "quay.io/org", "quay.io", "*.io"]);
    assert_eq!(names(&keyring.lookup("quay.io/b")), ["quay.io", "*.io"]);
    assert!(keyring.lookup("ghcr.io:443/b").is_empty());
}

#[test]
fn every_spelling_of_a_registry_counts() {
    for location in
        ["r.example", "https://r.example", "http://r.example/", "https://r.example/v1/", "r.example/v2/"]
    {
        assert_eq!(names(&keyring(&[location]).lookup("r.example/a")), [location]);
    }
    for location in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "docker.io/library"] {
        let found = keyring(&[location]);
        assert_eq!(names(&found.lookup("docker.io/library/busybox")), [location]);
        assert!(found.lookup("quay.io/busybox").is_empty());
    }
    for location in ["", "https://", "a b", "/v1/"] {
        assert_eq!(keyring(&[location]), Keyring::default(), "{location:?}");
    }
}

fn pod(secrets: &[&str]) -> Pod {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
    let pod = json!({
        "metadata": { "name": "p", "namespace": "ns" },
        "spec": { "containers": [], "imagePullSecrets": secrets },
    });
    serde_json::from_value(pod).unwrap()
}

fn given(secrets: &[(&str, Lookup)]) -> Given {
    let key = |name: &str| ObjectKey { kind: ObjectKind::Secret, namespace: "ns".into(), name: name.into() };
    let objects = secrets.iter().map(|(name, lookup)| (key(name), lookup.clone())).collect();
    Given { objects, ..Given::default() }
}

fn secret((type_, key): (&str, &str), content: &Value) -> Lookup {
    let content = match content {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    Lookup::Found(Arc::new(ObjectData {
        data: [(key.to_owned(), content)].into(),
        type_: type_.to_owned(),
        ..ObjectData::default()
    }))
}

#[test]
fn both_kinds_of_secrets_are_read_in_the_pods_order() {
    let auth = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
    let new = json!({ "auths": { "r.example": { "auth": auth("new:hunter2-word"), "username": "x" }, "none.example": {} } });
    let old = json!({ "https://r.example/v1/": { "username": "old", "password": "hunter2-word" }, "null.example": null });
    let bare = json!({ "auths": { "r.example": { "auth": auth("bare:a:b").trim_end_matches('=') } } });
    let given = given(&[
        ("new", secret(CONFIG_JSON, &new)),
        ("old", secret(CONFIG, &old)),
        ("bare", secret(CONFIG_JSON, &bare)),
    ]);
    let access = pull_access(&pod(&["old", "new", "bare", "old"]), &given);
    assert_eq!(access.problems, Vec::<String>::new());
    let found = access.keyring.lookup("r.example/a");
    assert_eq!(names(&found), ["old", "new", "bare"]);
    assert_eq!((found[0].password.as_str(), found[2].password.as_str()), ("hunter2-word", "a:b"));
    assert!(access.keyring.lookup("none.example/a").is_empty());
    assert!(!format!("{access:?}").contains("hunter2"));
    assert_eq!(found[0].scrub("bad hunter2-word!".to_owned()), "bad (hidden)!");
}

#[test]
fn what_cannot_be_used_is_told_without_its_content() {
    let half = json!({ "auths": {
        "https://u:hunter2@r.example/v1/": { "auth": "hunter2hunter2" },
        "ok.example": { "username": "u", "password": "p" },
    } });
    let given = given(&[
        ("missing", Lookup::Missing),
        ("unknown", Lookup::Unknown("no answer".into())),
        ("type", secret(("Opaque", "k"), &json!("hunter2"))),
        ("key", secret((CONFIG.0, "k"), &json!("hunter2"))),
        ("json", secret(CONFIG_JSON, &json!("{\"auths\": \"hunter2\"}"))),
        ("half", secret(CONFIG_JSON, &half)),
    ]);
    let access = pull_access(&pod(&["missing", "unknown", "type", "key", "json", "half", ""]), &given);
    assert_eq!(
        access.problems,
        [
            "secret \"missing\": not found",
            "secret \"unknown\": no answer",
            "secret \"type\": its type is \"Opaque\", not \"kubernetes.io/dockerconfigjson\"",
            "secret \"key\": it has no key .dockercfg",
            "secret \"json\": it cannot be read: line 1, column 19",
            "secret \"half\": auth of r.example is not the base64 of user:password",
        ]
    );
    assert_eq!(names(&access.keyring.lookup("ok.example/a")), ["u"]);
}
