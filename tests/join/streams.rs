//! Commands in containers over the node's API: with a terminal, over WebSockets, and many at once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::node_api::{Served, Typed, costs, follow_loud, memory, served};
use crate::support::{
    SOON, STAY, pod,
    terminal::Terminal,
    tls::{Channels, client},
    wait_until,
};

/// The administrator's certificate and key.
fn admin(served: &Served) -> std::sync::Arc<rustls::ClientConfig> {
    let file = |end: &str| Path::new(served.cluster.fact("PKI")).join(format!("admin.{end}"));
    client(Some((&file("crt"), &file("key"))), &["http/1.1"])
}

fn query(command: &[&str], more: &str) -> String {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let words: Vec<String> = command.iter().map(|word| format!("command={}", encoded(word))).collect();
    format!("{}&{more}", words.join("&"))
}

#[test]
fn a_terminal_is_one_and_learns_its_size() {
    let served = served("st-tty", "", |builder| builder);
    served.runs(&pod("st-shell", STAY));
    let command = served.command(&["exec", "-i", "-t", "st-shell", "--", "sh"]);
    let mut terminal = Terminal::of_size(&command, 31, 97);
    terminal.wait_shown("# ");
    terminal.type_in("stty size; tty; echo is$((40+2))\r");
    terminal.wait_shown("is42");
    assert!(terminal.shown().contains("/dev/pts/"), "{}", terminal.shown());
    // The first size is told beside the streams and may come a moment later.
    wait_until(SOON, "the size is told", || {
        terminal.type_in("stty size\r");
        std::thread::sleep(Duration::from_millis(200));
        terminal.shown().contains("31 97")
    });
    terminal.resize(40, 100);
    wait_until(SOON, "the new size is told", || {
        terminal.type_in("stty size\r");
        std::thread::sleep(Duration::from_millis(200));
        terminal.shown().contains("40 100")
    });
    terminal.type_in("exit 7\r");
    assert_eq!(terminal.wait().code(), Some(7), "{}", terminal.shown());
    terminal.assert_restored();
}

#[test]
fn websockets_are_joined_directly_and_through_the_api_server() {
    let served = served("st-ws", "", |builder| builder);
    served.runs(&pod("st-web", STAY));
    let admin = admin(&served);
    let node = format!("127.0.0.1:{}", served.node.api_port());
    let server = served.cluster.fact("SERVER").trim_start_matches("https://").to_owned();
    let script = query(&["sh", "-c", "read line; echo you said $line; exit 3"], "");
    for (address, path, streams) in [
        (&node, "/exec/default/st-web/main", "input=1&output=1&error=1"),
        (
            &server,
            "/api/v1/namespaces/default/pods/st-web/exec",
            "container=main&stdin=true&stdout=true&stderr=true",
        ),
    ] {
        let mut socket = Channels::open(address, &admin, &format!("{path}?{script}{streams}")).unwrap();
        socket.send(0, b"hello\n");
        let (out, status) = socket.rest();
        assert_eq!(out, "you said hello\n", "{address}: {status}");
        assert!(
            status.contains("\"Failure\"") && status.contains("\"message\":\"3\""),
            "{address}: {status}"
        );
    }
    // Who has no certificate is refused before the upgrade.
    let nobody = client(None, &["http/1.1"]);
    let refused =
        Channels::open(&node, &nobody, "/exec/default/st-web/main?command=id&output=1").err().unwrap();
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
}

#[test]
fn a_hundred_logs_and_fifty_commands_at_once_leave_nothing_and_hold_up_no_pod() {
    let served = served("st-load", "", |builder| builder);
    let before = follow_loud::prepare(&served, "st-loud");
    served.runs(&pod("st-many", STAY));
    let admin = admin(&served);
    let node = format!("127.0.0.1:{}", served.node.api_port());
    // What a pod takes when nobody looks.
    let begun = Instant::now();
    served.runs(&pod("st-alone", STAY));
    let alone = begun.elapsed();
    let resident = memory(&served.node);
    let followers: Vec<Typed> = follow_loud::followers(&served, "st-loud", 100);
    let script = query(&["sh", "-c", "echo ready; read line; echo you said $line"], "input=1&output=1");
    let path = format!("/exec/default/st-many/main?{script}");
    let mut commands: Vec<Channels> =
        (0..50).map(|_| Channels::open(&node, &admin, &path).unwrap()).collect();
    for command in &mut commands {
        assert_eq!(command.receive(), Some((1, b"ready\n".to_vec())));
    }
    let grown = memory(&served.node).saturating_sub(resident);
    assert!(grown < 100 * 600 + 50 * 300, "100 followers and 50 commands cost {grown} KiB");
    let begun = Instant::now();
    served.runs(&pod("st-beside", STAY));
    println!("a pod alone: {alone:?}; beside 100 followers and 50 commands: {:?}", begun.elapsed());
    for (number, command) in commands.iter_mut().enumerate() {
        command.send(0, format!("{number}\n").as_bytes());
    }
    for (number, command) in commands.iter_mut().enumerate() {
        let (out, status) = command.rest();
        assert_eq!(out, format!("you said {number}\n"));
        assert!(status.contains("\"Success\""), "{status}");
    }
    drop((commands, followers));
    wait_until(SOON, "nothing is left of them", || {
        let after = costs(&served.node);
        after.0 <= before.0 + 4 && after.1 <= before.1 + 20
    });
}
