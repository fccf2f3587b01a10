//! Tests of [`super`].

use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::*;

const CERTIFICATE: &[u8] = include_bytes!("../../tests/data/tls-streams.crt");
const OTHER: &[u8] = include_bytes!("../../tests/data/tls-authority.crt");
const KEY: &[u8] = include_bytes!("../../tests/data/tls-streams.key");

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

#[test]
fn pairs_are_laid_out_as_kubelet_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = PairStore::client(&folder.path().join("pki"));
    assert!(store.current().unwrap_err().is_missing());
    let pair = store.update(CERTIFICATE, KEY, at(0)).unwrap();
    let file = folder.path().join("pki/kubelet-client-2027-01-15-08-00-00.pem");
    assert_eq!(pair.file, file.canonicalize().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(store.current_path().is_symlink());
    assert_eq!(store.current().unwrap(), pair);
    let told = format!("{pair:?}");
    assert!(!told.contains("PRIVATE") && told.len() < 200, "{told}");
    // Twice in one second: the one in use is not written over.
    let second = store.update(CERTIFICATE, KEY, at(0)).unwrap();
    assert_ne!(second.file, pair.file);
    assert!(matches!(store.update(OTHER, KEY, at(1)).unwrap_err(), PairError::Broken { .. }));
    assert_eq!(store.current().unwrap().file, second.file);
}

#[test]
fn some_old_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = PairStore::server(folder.path());
    for name in
        ["kubelet-client-2020-01-01-00-00-00.pem", "kubelet-server-mine.pem", "kubelet-server-1-2-3.pem"]
    {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    for second in 0..20 {
        store.update(CERTIFICATE, KEY, at(second)).unwrap();
    }
    assert_eq!(store.dated().unwrap().len(), KEPT + 1);
    assert!(store.current().unwrap().file.ends_with("kubelet-server-2027-01-15-08-00-19.pem"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT + 1 + 1 + 3);
}

#[test]
fn what_another_program_was_killed_in_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let store = PairStore::client(folder.path());
    store.update(CERTIFICATE, KEY, at(0)).unwrap();
    // As kubelet does it: first the old link away, then the new one in its place.
    fs::rename(store.current_path(), folder.path().join("kubelet-client-updated.pem")).unwrap();
    store.current().unwrap();
    // A link that is left over goes with the next update.
    symlink("nowhere", folder.path().join("kubelet-client-updated.pem")).unwrap();
    store.update(CERTIFICATE, KEY, at(1)).unwrap();
    assert!(!folder.path().join("kubelet-client-updated.pem").is_symlink());
    // A file in the link's place is kept beside.
    fs::remove_file(store.current_path()).unwrap();
    fs::write(store.current_path(), "mine").unwrap();
    store.update(CERTIFICATE, KEY, at(2)).unwrap();
    assert_eq!(fs::read(folder.path().join("kubelet-client-replaced.pem")).unwrap(), b"mine");
    store.current().unwrap();
}

#[test]
fn an_earlier_one_stands_in_for_a_torn_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = PairStore::client(folder.path());
    let first = store.update(CERTIFICATE, KEY, at(0)).unwrap();
    let second = store.update(CERTIFICATE, KEY, at(1)).unwrap();
    fs::write(&second.file, "").unwrap();
    assert!(matches!(store.current().unwrap_err(), PairError::Broken { .. }));
    let found = store.newest(|_| true).unwrap();
    assert_eq!(found.file, first.file);
    assert!(store.newest(|_| false).is_none());
    store.take_back(&found).unwrap();
    assert_eq!(store.current().unwrap().file, first.file);
}

#[test]
fn a_pending_key_is_kept_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let store = PairStore::client(&folder.path().join("pki"));
    assert_eq!(store.pending_key(), None);
    store.keep_pending_key("key").unwrap();
    let file = folder.path().join("pki/kubelet-client.key.tmp");
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(store.pending_key().as_deref(), Some("key"));
    store.drop_pending_key();
    store.drop_pending_key();
    assert_eq!(store.pending_key(), None);
}

proptest! {
    #[test]
    fn a_torn_file_is_an_error(cut in 0usize..4000) {
        let folder = tempfile::tempdir().unwrap();
        let whole = [CERTIFICATE, KEY].concat();
        let file = folder.path().join("kubelet-client-current.pem");
        fs::write(&file, &whole[..cut.min(whole.len() - 2)]).unwrap();
        prop_assert!(PairStore::client(folder.path()).current().is_err());
    }

    #[test]
    fn only_names_with_dates_are_ours(name in "kubelet-client-[0-9-]{0,22}(\\.pem|\\.key\\.tmp|x)?") {
        if is_dated(&name, "kubelet-client") {
            prop_assert!(name.ends_with(".pem") && name.len() >= "kubelet-client-2020-1-1-1-1-1.pem".len());
        }
    }
}
