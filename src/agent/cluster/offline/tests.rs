//! What is kept, on a disk of the tests' own.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tempfile::TempDir;

use super::{key::KeyFile, *};
use crate::policy::given::{ObjectData, TokenText};

fn pod(uid: &str, map: &str) -> Arc<Pod> {
    let pod = json!({
        "metadata": { "name": uid, "namespace": "ns", "uid": uid },
        "spec": { "containers": [{ "name": "a", "image": "web", "resources": { "limits": { "cpu": "1500m" } } }],
            "volumes": [
                { "name": "map", "configMap": { "name": map } },
                { "name": "secret", "secret": { "secretName": map } },
            ] },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods(all: &[&Arc<Pod>]) -> BTreeMap<PodUid, Arc<Pod>> {
    all.iter().map(|pod| (pod.uid(), Arc::clone(pod))).collect()
}

fn key(kind: ObjectKind, name: &str) -> ObjectKey {
    ObjectKey { kind, namespace: "ns".into(), name: name.into() }
}

fn found(value: &[u8]) -> Lookup {
    let data = [("k".to_owned(), value.to_vec())].into();
    Lookup::Found(Arc::new(ObjectData { data, immutable: true, ..ObjectData::default() }))
}

/// An agent's, with a key that needs nothing of the machine.
async fn agent(folder: &TempDir) -> Arc<Offline> {
    let offline = Offline::open(folder.path(), OfflinePods::Tolerated).unwrap();
    let (_, file) = Disk::open(folder.path()).unwrap();
    if file.load().value.is_none() {
        file.save(&KeyFile::Plain(BASE64_STANDARD.encode([7; 32]))).unwrap();
    }
    offline.load().await;
    Arc::new(offline)
}

fn files(folder: &TempDir, kind: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder.path().join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn the_next_agent_has_what_the_last_was_told_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let first = agent(&folder).await;
    let (map, secret) = (key(ObjectKind::ConfigMap, "m"), key(ObjectKind::Secret, "m"));
    let token_key = TokenKey { audience: "vault".into(), seconds: 600 };
    let token = KeptToken {
        text: TokenText("eyJhunter3".into()),
        expires: Timestamp::UNIX_EPOCH,
        refresh_at: Timestamp::UNIX_EPOCH,
    };
    // Words on objects without the server's word on pods are nothing to be kept.
    first.object(&map, &found(b"blue\xff"));
    first.object(&secret, &found(b"hunter2"));
    first.object(&key(ObjectKind::ConfigMap, "nobodys"), &found(b"x"));
    first.write().await.unwrap();
    assert_eq!((files(&folder, "pods").len(), files(&folder, "configmaps").len()), (0, 0));
    let (a, b) = (pod("a", "m"), pod("b", "none"));
    first.heard(&pods(&[&a, &b]));
    first.object(&secret, &Lookup::Unknown("no route".into()));
    first.object(&key(ObjectKind::ConfigMap, "none"), &Lookup::Missing);
    first.token(&a.uid(), &token_key, token.clone());
    first.in_contact();
    first.write().await.unwrap();
    assert!(first.state().changes().is_empty());
    let counts =
        ["pods", "configmaps", "secrets", "tokens", "contact"].map(|kind| files(&folder, kind).len());
    assert_eq!(counts, [2, 2, 1, 1, 1]);
    for file in files(&folder, "secrets").iter().chain(&files(&folder, "tokens")) {
        let text = fs::read_to_string(file).unwrap();
        for hidden in ["hunter2", "hunter3"] {
            assert!(!text.contains(hidden) && !text.contains(&BASE64_STANDARD.encode(hidden)));
        }
    }
    // It has a server, and takes no word but that one's.
    assert_eq!((first.last_object(&map), first.refuses(&a)), (None, None));

    let second = agent(&folder).await;
    let known = second.begin();
    assert_eq!(known, pods(&[&a, &b]));
    assert_eq!(second.last_object(&map), Some(found(b"blue\xff")));
    assert_eq!(second.last_object(&secret), Some(found(b"hunter2")));
    assert_eq!(second.last_object(&key(ObjectKind::ConfigMap, "none")), Some(Lookup::Missing));
    assert_eq!(second.last_object(&key(ObjectKind::Secret, "none")), None);
    assert_eq!(second.last_token(&a.uid(), &token_key), Some(token));
    assert!(second.refuses(&a).is_some_and(|why| why.contains("0 s")));
    // Nothing is erased before the server is heard.
    assert!(second.state().changes().is_empty());
    second.heard(&pods(&[&b]));
    second.write().await.unwrap();
    assert_eq!((second.refuses(&a), second.last_object(&map)), (None, None));
    let counts = ["pods", "configmaps", "secrets", "tokens"].map(|kind| files(&folder, kind).len());
    assert_eq!(counts, [1, 1, 0, 0]);
}

#[tokio::test]
async fn what_is_not_as_it_was_written_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let first = agent(&folder).await;
    let (a, b) = (pod("a", "m"), pod("b", "n"));
    first.heard(&pods(&[&a, &b]));
    for name in ["m", "n"] {
        first.object(&key(ObjectKind::Secret, name), &found(name.as_bytes()));
    }
    first.write().await.unwrap();
    // Each whole, and one in the other's place.
    let secrets = files(&folder, "secrets");
    fs::copy(&secrets[0], &secrets[1]).unwrap();
    fs::copy(folder.path().join("pods/a.ckpt"), folder.path().join("pods/c.ckpt")).unwrap();
    let second = agent(&folder).await;
    assert_eq!(second.begin(), pods(&[&a, &b]));
    let known = ["m", "n"].map(|name| second.last_object(&key(ObjectKind::Secret, name)).is_some());
    assert_eq!(known.iter().filter(|known| **known).count(), 1);
    let aside = |kind| {
        let files = files(&folder, kind);
        files.iter().filter(|file| file.to_string_lossy().contains(".corrupt-")).count()
    };
    assert_eq!((aside("secrets"), aside("pods")), (1, 1));
    // They go when it is known what they were of.
    second.heard(&pods(&[]));
    second.write().await.unwrap();
    assert_eq!((files(&folder, "secrets").len(), files(&folder, "pods").len()), (0, 0));

    // Another key opens nothing, and is no reason to have no pods.
    second.heard(&pods(&[&a]));
    second.object(&key(ObjectKind::Secret, "m"), &found(b"m"));
    second.write().await.unwrap();
    let (_, file) = Disk::open(folder.path()).unwrap();
    file.save(&KeyFile::Plain(BASE64_STANDARD.encode([8; 32]))).unwrap();
    let third = agent(&folder).await;
    assert_eq!((third.begin().len(), third.last_object(&key(ObjectKind::Secret, "m"))), (1, None));
}

#[test]
fn without_the_flag_what_is_there_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    erase(&kept).unwrap();
    Disk::open(&kept).unwrap();
    erase(&kept).unwrap();
    assert!(!kept.exists());
}
