//! Two image registries in a machine of a test's own: one without TLS, and one with a certificate of an authority that
//! nobody knows.

use super::machine::Machine;
use super::{SOON, script, wait_until};

/// Without TLS. It answers at the machine's address too, which mirrors are told.
pub(crate) const PLAIN: &str = "node1:5000";
/// [`PLAIN`] as a mirror.
pub(crate) const MIRROR: &str = "http://192.168.77.10:5000";
/// With TLS.
pub(crate) const SECURE: &str = "node1:5443";

const FOLDER: &str = "/srv/registry";

/// Starts both, and answers the certificate of the authority. They end with the machine.
#[track_caller]
pub(crate) fn start(machine: &Machine) -> String {
    let output = script("registry.sh", &[], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let program = String::from_utf8(output.stdout).unwrap();
    let config = |name: &str, port: u16, tls: &str| {
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {FOLDER}/{name}}}}}\n\
             http:\n  addr: \"192.168.77.10:{port}\"\n{tls}"
        );
        machine.put(&format!("{FOLDER}/{name}.yml"), &text, 0o644);
    };
    config("plain", 5000, "");
    config("secure", 5443, &format!("  tls: {{certificate: {FOLDER}/own.crt, key: {FOLDER}/own.key}}\n"));
    super::copy_program(program.trim().as_ref(), &machine.outside(&format!("{FOLDER}/program")));
    let certificates = "cd /srv/registry
        new='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
        $new -subj /CN=authority -keyout ca.key -out ca.crt 2>&1
        $new -subj /CN=node1 -CA ca.crt -CAkey ca.key -addext subjectAltName=DNS:node1 \
            -addext basicConstraints=critical,CA:FALSE -keyout own.key -out own.crt 2>&1
        for name in plain secure; do systemd-run --quiet --unit=registry-$name /srv/registry/program serve $name.yml; done";
    let certificates = certificates.replace("serve $name", "serve /srv/registry/$name");
    machine.sure(&["sh", "-ec", &certificates]);
    wait_until(SOON, "the registries listen", || {
        let ask = "for port in 5000 5443; do : </dev/tcp/192.168.77.10/$port; done";
        machine.run(&["bash", "-ec", ask]).status.success()
    });
    machine.read(&format!("{FOLDER}/ca.crt"))
}
