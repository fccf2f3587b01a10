//! Tests of [`super`].

use std::fs;

use jiff::SignedDuration;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

use super::*;

const NOW: i64 = 1_800_000_000;

fn hours(hours: i64) -> Timestamp {
    Timestamp::from_second(NOW).unwrap().checked_add(SignedDuration::from_hours(hours)).unwrap()
}

/// A folder with an authority and a kubeconfig's place.
struct Machine {
    folder: tempfile::TempDir,
    authority: KeyPair,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), authority: KeyPair::generate().unwrap() };
        let certificate = authority().self_signed(&machine.authority).unwrap();
        fs::write(machine.path("ca.crt"), certificate.pem()).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn places(&self, rotate: bool) -> Places {
        Places {
            node_name: "a".to_owned(),
            kubeconfig: self.path("kubelet.conf"),
            bootstrap: Some(self.path("bootstrap.conf")),
            store: PairStore::client(&self.path("pki")),
            rotate,
        }
    }

    /// A certificate and its key, good between these hours.
    fn certificate(&self, node: &str, from: i64, until: i64) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        let time = |at: i64| {
            (std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::from_secs(u64::try_from(hours(at).as_second()).unwrap()))
            .into()
        };
        (params.not_before, params.not_after) = (time(from), time(until));
        let key = KeyPair::generate().unwrap();
        let authority = authority();
        let issuer = Issuer::from_params(&authority, &self.authority);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, name: &str, user: &str) {
        let text = format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: k, user: u}}}}]\nclusters:\n- name: k\n  \
             cluster: {{server: 'https://127.0.0.1:1', certificate-authority: ca.crt}}\nusers:\n- name: u\n  user: {user}\n"
        );
        fs::write(self.path(name), text).unwrap();
    }

    /// A kubeconfig with this certificate.
    fn own(&self, (certificate, key): &(String, String)) {
        fs::write(self.path("own.crt"), certificate).unwrap();
        fs::write(self.path("own.key"), key).unwrap();
        self.write("kubelet.conf", "{client-certificate: own.crt, client-key: own.key}");
    }

    fn keep(&self, pair: &(String, String)) -> Pair {
        self.places(true).store.update(pair.0.as_bytes(), pair.1.as_bytes(), hours(0)).unwrap()
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[track_caller]
fn held(found: Found) -> Held {
    match found {
        Found::Ready { held: Some(held), .. } => *held,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn why(found: Found, bootstraps: bool) -> String {
    match found {
        Found::Bootstrap { why, .. } if bootstraps => why,
        Found::Stuck { why } if !bootstraps => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_newer_certificate_counts_where_it_is_renewed() {
    let machine = Machine::new();
    machine.own(&machine.certificate("a", -10, 100));
    assert!(held(machine.places(true).look(hours(0))).file.ends_with("own.crt"));
    let newer = machine.keep(&machine.certificate("a", -5, 100));
    assert_eq!(held(machine.places(true).look(hours(0))).file, newer.file);
    assert!(
        held(machine.places(false).look(hours(0))).file.ends_with("own.crt"),
        "not renewed: as configured"
    );
    // Another one was put in place since.
    machine.own(&machine.certificate("a", -1, 50));
    assert!(held(machine.places(true).look(hours(0))).file.ends_with("own.crt"));
    // It ends first.
    assert_eq!(held(machine.places(true).look(hours(60))).file, newer.file);
    // The store's is another node's.
    machine.keep(&machine.certificate("b", 0, 100));
    assert!(held(machine.places(true).look(hours(0))).file.ends_with("own.crt"));
    assert!(why(machine.places(true).look(hours(60)), false).contains("expired"));
}

#[test]
fn what_is_missing_or_expired_is_got_anew() {
    let machine = Machine::new();
    let (places, now) = (machine.places(true), hours(0));
    let told = why(places.look(now), false);
    assert!(
        told.contains("kubelet.conf: cannot be read") && told.contains("bootstrap.conf: cannot be read"),
        "{told}"
    );
    assert!(told.contains("kubeadm token create"), "{told}");
    machine.write("bootstrap.conf", "{token: hush}");
    assert!(!why(places.look(now), true).contains("hush"));
    machine.own(&machine.certificate("a", -10, -1));
    assert!(why(places.look(now), true).contains("own.crt has expired on"));
    fs::write(machine.path("own.crt"), "torn").unwrap();
    assert!(why(places.look(now), true).contains("holds no certificate"));
    let (certificate, _) = machine.certificate("a", -1, 1);
    fs::write(machine.path("own.crt"), certificate).unwrap();
    why(places.look(now), true);
    // A token is as good, until there is a way to a certificate.
    machine.write("kubelet.conf", "{token: x}");
    assert!(why(places.look(now), true).contains("no client certificate"));
    fs::remove_file(machine.path("bootstrap.conf")).unwrap();
    assert!(matches!(places.look(now), Found::Ready { held: None, .. }));
}

#[test]
fn who_was_killed_before_the_kubeconfig_was_written_needs_no_other_certificate() {
    let machine = Machine::new();
    let places = machine.places(false);
    machine.write("bootstrap.conf", "{token: x}");
    // It is from another cluster.
    Machine::new().certificate("a", -1, 10);
    let foreign = Machine::new().certificate("a", -1, 10);
    machine.keep(&foreign);
    why(places.look(hours(0)), true);
    let pair = machine.keep(&machine.certificate("a", -1, 10));
    let found = held(places.look(hours(0)));
    assert_eq!(found.certificate, pair.certificate);
    assert!(fs::read_to_string(machine.path("kubelet.conf")).unwrap().contains("kubelet-client-current.pem"));
    why(places.look(hours(11)), true);
}

#[test]
fn a_torn_certificate_is_mended_from_an_earlier_one() {
    let machine = Machine::new();
    let places = machine.places(true);
    let first = machine.keep(&machine.certificate("a", -2, 10));
    let second = machine.keep(&machine.certificate("a", -1, 10));
    let bootstrap = {
        machine.write("bootstrap.conf", "{token: x}");
        Kubeconfig::read(&machine.path("bootstrap.conf")).unwrap()
    };
    places.finish(&bootstrap).unwrap();
    assert_eq!(held(places.look(hours(0))).certificate, second.certificate);
    fs::write(&second.file, &fs::read(&second.file).unwrap()[..500]).unwrap();
    assert_eq!(held(places.look(hours(0))).certificate, first.certificate);
    fs::remove_file(&first.file).unwrap();
    why(places.look(hours(0)), true);
}
