//! Small things: options, versions, capabilities.

use super::super::{
    kubelet::{healthz, leads_to},
    machine::restricts,
    option_values,
    program::{output, plain_version},
};
use super::Node;
use crate::switch::secrets::hide;
use crate::switch::watch::Watch;
use std::path::Path;

#[test]
fn options_in_each_way_they_are_written() {
    let arguments: Vec<String> = "-H fd:// --host=tcp://x -Hunix:///s --debug -D --hosts x --host"
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!(option_values(&arguments, &["host", "H"]), ["fd://", "tcp://x", "unix:///s"]);
    assert_eq!(option_values(&arguments, &["config"]), Vec::<String>::new());
}

#[test]
fn versions_as_programs_and_packages_have_them() {
    for (text, plain) in [
        ("v1.20.2", Some("1.20.2")),
        ("1.6.20~ds1", Some("1.6.20")),
        ("5:20.10.24~3-0~debian-bookworm", Some("20.10.24")),
        ("1.28.2-1.1", Some("1.28.2")),
        ("v2.2.0-rc.1", Some("2.2.0")),
        ("1.24.", Some("1.24")),
        ("75cb2b7", None),
        ("containerd.io", None),
        ("12", None),
    ] {
        assert_eq!(plain_version(text).as_deref(), plain, "{text}");
    }
}

#[test]
fn passwords_of_urls_are_hidden() {
    for (text, shown) in [
        ("--x=http://u:p@h:1/a@b,https://v@w", "--x=http://***@h:1/a@b,https://***@w"),
        ("http://h/u:p@x", "http://h/u:p@x"),
        ("fd://", "fd://"),
        ("u@h", "u@h"),
        ("http://u:p@p@h", "http://***@h"),
    ] {
        assert_eq!(hide(text), shown);
    }
}

#[test]
fn where_healthz_answers() {
    let at = |address: Option<&str>, port: Option<&str>| {
        healthz(address.map(str::to_owned), port.map(str::to_owned))
    };
    assert_eq!(at(None, None).as_deref(), Some("127.0.0.1:10248"));
    assert_eq!(at(Some("0.0.0.0"), Some("1")).as_deref(), Some("127.0.0.1:1"));
    assert_eq!(at(Some("::"), None).as_deref(), Some("[::1]:10248"));
    assert_eq!(at(Some("10.0.0.1"), None).as_deref(), Some("10.0.0.1:10248"));
    assert_eq!(at(None, Some("0")), None);
}

#[test]
fn endpoints_of_one_socket() {
    assert!(leads_to("unix:///var/run/a.sock", Path::new("/run/a.sock")));
    assert!(leads_to("/run/a.sock", Path::new("/var/run/a.sock")));
    assert!(!leads_to("unix:///run/a.sock", Path::new("/run/b.sock")));
}

#[test]
fn who_may_not_lower_a_score() {
    let (all, user) = ("         0          0 4294967295\n", "         0       1000          1\n");
    let status =
        |effective: &str, bounding: &str| format!("Name:\tx\nCapEff:\t{effective}\nCapBnd:\t{bounding}\n");
    let (full, without) = ("000001ffffffffff", "000001fffeffffff");
    assert!(!restricts(&status(full, full), all, true));
    assert!(restricts(&status(without, without), all, true));
    assert!(restricts(&status(without, full), all, true));
    assert!(!restricts(&status("0000000000000000", full), all, false));
    assert!(restricts(&status(full, full), user, true));
    assert!(!restricts("", "", true));
}

#[tokio::test]
async fn a_program_that_misbehaves_is_told() {
    let node = Node::new();
    node.program("/fails", "echo no such thing >&2; exit 3")
        .program("/floods", "exec head -c 3000000 /dev/zero")
        .program("/complains", "head -c 300000 /dev/zero >&2; echo 1.2.3")
        .program("/binary", "printf '\\377\\376'");
    let run = |name: &str| {
        let path = node.path(name);
        async move { output(&Watch::default(), &path, &["--version"]).await }
    };
    let error = run("/fails").await.unwrap_err();
    assert!(error.contains("/fails --version`") && error.contains("no such thing"), "{error}");
    assert!(run("/floods").await.unwrap_err().contains("more than 1024 KiB"));
    assert_eq!(run("/complains").await.unwrap(), "1.2.3\n");
    assert!(run("/binary").await.unwrap_err().contains("UTF-8"));
    assert!(run("/absent").await.unwrap_err().contains("No such file"));
}
