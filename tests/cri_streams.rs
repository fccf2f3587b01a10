//! `nodectl cri exec`, `attach` and `port-forward` as a whole process, against containerd 1.6 and 2.1, by SPDY and
//! by WebSocket, with a terminal that is really typed in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nodectl::{
    api::cri::{ContainerConfig, ContainerState},
    cri::Cri as _,
};
use sha2::{Digest as _, Sha256};
use support::{
    Release, SOON,
    cri_cli::{Answer, Pod, World, client, container_config, on_runtime, sandbox_config},
    terminal::Terminal,
    wait_for, wait_until,
};

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// Several MiB that do not repeat.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| (0..120_000u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect())
}

/// What a run gave, in bytes.
struct Raw {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

/// Runs with this input and its end.
fn fed(mut command: Command, input: &[u8]) -> Raw {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A command that ends before it has read all closes the pipe.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    });
    Raw { code: output.status.code(), out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}

/// A pod with containers that are made as `change` makes them.
fn pod(world: &World, name: &str, containers: &[(&str, &[&str])], change: fn(&mut ContainerConfig)) -> Pod {
    on_runtime(async {
        let cri = client(&world.containerd);
        let config = sandbox_config(&world.containerd, "streams", name);
        let sandbox = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
        let mut ids = Vec::new();
        for (name, command) in containers {
            let mut container = container_config(name, command);
            change(&mut container);
            let id = cri.create_container(&sandbox, container, config.clone()).await.unwrap();
            cri.start_container(&id).await.unwrap();
            ids.push(id);
        }
        Pod { sandbox, containers: ids }
    })
}

fn state(world: &World, container: &str) -> ContainerState {
    on_runtime(async {
        let answer = client(&world.containerd).container_status(container, false).await.unwrap();
        answer.status.unwrap().state()
    })
}

/// What a signal makes of an exit code in a shell.
fn code_of(signal: Signal) -> Option<i32> {
    Some(128 + signal as i32)
}

fn exit_codes_and_outputs(world: &World) {
    let main = world.ids()[2];
    for transport in TRANSPORTS {
        let script = "echo out; echo err >&2; exit 3";
        let answer = world.run(&["exec", "-r", transport, main, "sh", "-c", script]);
        assert_eq!(
            (answer.code, answer.out.as_str(), answer.err.as_str()),
            (Some(3), "out\n", "err\n"),
            "{transport}"
        );
        let answer = world.run(&["exec", "--transport", transport, "default/web/main", "true"]);
        assert_eq!((answer.code, answer.out + &answer.err), (Some(0), String::new()));
        let answer = world.run(&["exec", "-r", transport, main, "sh", "-c", "kill -9 $$"]);
        assert_eq!((answer.code, answer.err.as_str()), (Some(137), ""), "{transport}");
        world.run(&["exec", "-r", transport, main, "/no/such"]).failed(1, "/no/such");

        // Bytes of all kinds, several MiB each way. Where the input's end cannot be told, the command knows it.
        let length = noise().len().to_string();
        let read = if transport == "spdy" { &["cat"][..] } else { &["head", "-c", &length] };
        let raw = fed(world.command(&[&["exec", "-i", "-r", transport, main], read].concat()), noise());
        assert_eq!(raw.code, Some(0), "{}", raw.err);
        assert!(raw.out == noise(), "{transport}: {} bytes came back", raw.out.len());
        assert_eq!(raw.err.contains("cannot be told the end of the input"), transport == "websocket");

        // A reader that has seen enough; what goes on in the container is ended by its own means.
        let script = "echo $$ > /tmp/endless; while :; do echo y; done";
        let mut child = world
            .command(&["exec", "-r", transport, main, "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        drop(child.stdout.take());
        let answer = Answer::of(child.wait_with_output().unwrap());
        assert_eq!((&begun, answer.code, answer.err.as_str()), (b"y\ny\n", Some(0), ""), "{transport}");
        world.text(&["exec", main, "sh", "-c", "kill -9 $(cat /tmp/endless) 2>/dev/null || true"]);
    }
    // The end of the input, where it can be told: without a choice it is.
    for arguments in [&["exec", "-i", main, "cat"][..], &["exec", "-i", "-r", "spdy", main, "cat"]] {
        let raw = fed(world.command(arguments), b"hi\n");
        assert_eq!((raw.code, &raw.out[..], raw.err.as_str()), (Some(0), &b"hi\n"[..], ""), "{arguments:?}");
    }
    let raw = fed(world.command(&["exec", "-i", main, "sha256sum"]), noise());
    let sum = hex::encode(Sha256::digest(noise()));
    assert_eq!(String::from_utf8(raw.out).unwrap(), format!("{sum}  -\n"), "{}", raw.err);
    // A command that does not read its input ends all the same. More than a pipe holds would make containerd
    // itself hang now and then.
    let raw = fed(world.command(&["exec", "-i", main, "sh", "-c", "exit 9"]), &noise()[..20_000]);
    assert_eq!((raw.code, raw.err.as_str()), (Some(9), ""));
}

fn several_and_sync(world: &World) {
    let [web, _, main, side, ended] = world.ids();
    let run = |flags: &[&str], command: &[&str]| world.run(&[&["exec"], flags, command].concat());
    let answer = run(&["--pod", web], &["hostname"]);
    let expected = format!("{side}:\nweb\n{main}:\nweb\n");
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(0), expected.as_str(), ""));
    assert_eq!(run(&["--label", "part=side", "-q"], &["hostname"]).out, "web\n");
    assert_eq!(run(&["-x", "--name", "main|side"], &["hostname"]).out, "web\nweb\n");
    assert_eq!(run(&["-l", "-q"], &["hostname"]).out, "web\n");
    assert_eq!(run(&["-i", "-l", "-q", "--name", "^main$"], &["hostname"]).out, "web\n");
    let answer = run(&["-q", "-p", "default/web"], &["sh", "-c", "exit 5"]);
    let told = format!("{}: exit code 5\n{}: exit code 5\n", &side[..13], &main[..13]);
    assert_eq!((answer.code, answer.err), (Some(5), told));
    assert_eq!(run(&["-e", "-q", "-p", "uid-web"], &["sh", "-c", "exit 5"]).code, Some(0));

    let sync = |flags: &[&str], script: &str| {
        world.run(&[&["exec", "-s"], flags, &[main, "sh", "-c", script]].concat())
    };
    let answer = sync(&[], "printf out; printf err >&2; exit 4");
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(4), "out", "err"));
    assert_eq!(sync(&[], "head -c 3000000 /dev/zero").out.len(), 3_000_000);
    sync(&["--timeout", "1"], "sleep 100").failed(1, "the command has not ended within 1 s");
    sync(&[], "head -c 20000000 /dev/zero").failed(1, "hint: without --sync output has no limit");
    world
        .run(&["exec", "--timeout", "1", main, "sleep", "3"])
        .failed(1, "the command has not ended within 1 s\nhint: it may go on");

    // Wrong input.
    world.run(&["exec", "--name", "nope", "ls"]).failed(1, "no container fits");
    world.run(&["exec", "nope", "ls"]).failed(1, "there is no container \"nope\"");
    world.run(&["exec", web, "ls"]).failed(1, "not a container");
    world.run(&["exec", ended, "ls"]).failed(1, "CONTAINER_EXITED");
    world.run(&["exec", main]).failed(2, "the command is missing");
    world.run(&["exec", main, "-it", "sh"]).failed(2, "\"-it\" cannot be the command");
    world.run(&["exec", "-it", main, "sh"]).failed(2, "the input is not a terminal");
    world.run(&["attach", "-it", main]).failed(2, "the input is not a terminal");
    world.run(&["exec", "-i", "-p", web, "ls"]).failed(2, "2 containers fit, and -i and -t go with one");
    world.run(&["exec", "--tls-ca", "/no/file", main, "ls"]).failed(2, "/no/file: No such file");
    world.run(&["attach", "nope"]).failed(1, "there is no container \"nope\"");
    world.run(&["attach", ended]).failed(1, "CONTAINER_EXITED");
    assert_eq!(world.run(&["exec", "-r", "smoke", main, "ls"]).code, Some(2));
}

fn signals(world: &World) {
    let main = world.ids()[2];
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let script = "echo begun; sleep 100";
        let mut child =
            world.command(&["exec", main, "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code_of(signal));
    }
}

/// Bytes that a process has read by now, and the most memory that it ever had, in KiB.
fn use_of(child: &Child) -> (u64, u64) {
    let number = |file: &str, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (number("io", "rchar:"), number("status", "VmHWM:"))
}

/// What is slow on one side holds the other side back, and nothing piles up in between.
fn backpressure(world: &World) {
    let main = world.ids()[2];
    for transport in TRANSPORTS {
        for (flag, script) in [("-q", "exec cat /dev/zero"), ("-i", "echo; exec sleep 1000")] {
            let mut child = world
                .command(&[
                    "exec",
                    flag,
                    "-r",
                    transport,
                    main,
                    "sh",
                    "-c",
                    &format!("echo $$ > /tmp/slow; {script}"),
                ])
                .stdin(std::fs::File::open("/dev/zero").unwrap())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            // It stops to take in more, though there is no end of it.
            let mut last = 0;
            wait_until(SOON, "a stream that stands still", || {
                let (read, _) = use_of(&child);
                std::thread::sleep(std::time::Duration::from_millis(300));
                std::mem::replace(&mut last, read) == read
            });
            let (read, memory) = use_of(&child);
            assert!(memory < 64 << 10, "{transport} {flag}: {memory} KiB after {read} bytes");
            // And it still hears.
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
            assert_eq!(child.wait().unwrap().code(), code_of(Signal::SIGTERM));
            world.text(&["exec", main, "sh", "-c", "kill -9 $(cat /tmp/slow) 2>/dev/null || true"]);
        }
    }
}

fn terminals(world: &World) {
    let main = world.ids()[2];
    for transport in TRANSPORTS {
        let shell = |script: &str| {
            let arguments = ["exec", "-it", "-r", transport, main, "sh", "-c", script];
            let terminal = Terminal::start(&world.command(&arguments));
            terminal.wait_raw();
            terminal
        };
        // Types, sees its size inside, and another one; Ctrl-C is the command's.
        let mut terminal = shell("echo be''gun; exec sh");
        terminal.wait_shown("begun");
        // The runtime sets the size beside what is typed.
        terminal.type_in("while [ \"$(stty size)\" != '24 80' ]; do sleep 0.1; done; echo si''zed\r");
        terminal.wait_shown("sized");
        terminal.resize(40, 132);
        terminal.type_in("while [ \"$(stty size)\" != '40 132' ]; do sleep 0.1; done; echo wi''der\r");
        terminal.wait_shown("wider");
        // A shell of its own: the one at the prompt loses a signal that comes while it forks.
        terminal.type_in("sh -c \"echo sl''eeps; exec sleep 1000\"\r");
        terminal.wait_shown("sleeps");
        terminal.type_in("\u{3}");
        terminal.type_in("echo af''ter $?; tty; exit 7\r");
        terminal.wait_shown("after 130");
        assert_eq!(terminal.wait().code(), Some(7), "{}", terminal.shown());
        terminal.wait_shown("/dev/pts/");
        terminal.assert_restored();

        // Killed in each way that a process can see, and in one that it cannot.
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let mut terminal = shell("sleep 100");
            terminal.signal(signal);
            assert_eq!(terminal.wait().code(), code_of(signal), "{}", terminal.shown());
            terminal.assert_restored();
        }
        let mut terminal = shell("sleep 100");
        terminal.signal(Signal::SIGKILL);
        assert_eq!(terminal.wait().code(), None);
        terminal.wait_restored();

        // Left by its keys.
        let mut terminal = shell("echo be''gun; sleep 100");
        terminal.wait_shown("begun");
        terminal.type_in("\u{10}\u{11}");
        assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.shown());
        terminal.assert_restored();
    }
    // A terminal for the command alone.
    let answer = world.run(&["exec", "-t", main, "sh", "-c", "test -t 1 && echo yes; echo err >&2"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(0), "yes\r\nerr\r\n", ""));
    // An error before and one after the terminal is raw.
    let mut terminal = Terminal::start(&world.command(&["exec", "-it", main, "/no/such"]));
    assert_eq!(terminal.wait().code(), Some(1));
    terminal.wait_shown("error: ");
    terminal.assert_restored();
}

fn attaching(world: &World) {
    let with_tty = |config: &mut ContainerConfig| (config.stdin, config.tty) = (true, true);
    let with_stdin = |config: &mut ContainerConfig| config.stdin = true;
    let shell = pod(world, "shell", &[("a", &["sh"]), ("b", &["sh"])], with_tty);
    let lines = &["sh", "-c", "while read line; do echo got $line; echo no >&2; done; sleep 1000000"][..];
    let reader = pod(world, "reader", &[("a", lines), ("b", lines)], with_stdin);
    for (number, transport) in TRANSPORTS.into_iter().enumerate() {
        let id = &shell.containers[number];
        let mut terminal = Terminal::start(&world.command(&["attach", "-it", "-r", transport, id]));
        terminal.wait_raw();
        // Another size comes first, so that the screen is painted anew.
        terminal.type_in("while [ \"$(stty size)\" != '24 80' ]; do sleep 0.1; done; echo $((6*7))answer\r");
        terminal.wait_shown("42answer\r\n");
        terminal.type_in("\u{10}\u{11}");
        assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.shown());
        terminal.assert_restored();
        assert_eq!(state(world, id), ContainerState::ContainerRunning);
        // Once more, to its end.
        let mut terminal = Terminal::start(&world.command(&["attach", "-it", "-r", transport, id]));
        terminal.wait_raw();
        terminal.type_in("exit 3\r");
        assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.shown());
        terminal.assert_restored();
        wait_until(SOON, "the container's end", || state(world, id) == ContainerState::ContainerExited);

        // By pipe, with output and error output apart.
        let id = &reader.containers[number];
        let mut child = world
            .command(&["attach", "-i", "-r", transport, id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = [0; 10];
        child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut out).unwrap();
        assert_eq!(&out, b"got hello\n");
        let mut err = Vec::new();
        while !err.ends_with(b"no\n") {
            let mut byte = [0];
            child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
            err.extend(byte);
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let code = child.wait().unwrap().code();
        let mut rest = String::new();
        child.stderr.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        let state = state(world, id);
        assert_eq!(code, code_of(Signal::SIGTERM), "{transport}, the container is {state:?}: {rest}");
        assert_eq!(state, ContainerState::ContainerRunning);
    }
}

/// A `port-forward` that runs.
struct Forward {
    child: Child,
    folder: tempfile::TempDir,
}

impl Forward {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        let mut command = world.command(&[&["port-forward"], arguments].concat());
        let child = command.stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Self { child, folder }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// The local port that leads there.
    fn port(&self, remote: u16) -> u16 {
        wait_for(SOON, "a port that is listened on", || {
            let out = self.text("out");
            let line = out.lines().find(|line| line.ends_with(&format!(" -> {remote}")))?;
            let local = line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?;
            local.parse().ok()
        })
    }

    fn end(mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.text("err"));
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // Only fails if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn forwarding(world: &World) {
    let [web, _, main, ..] = world.ids();
    let script = "mkdir -p /www; echo hello > /www/index.html; httpd -p 8080 -h /www; \
                  nc -ll -p 8081 -e cat &";
    world.text(&["exec", main, "sh", "-c", &format!("({script}) >/dev/null 2>&1 </dev/null")]);
    // Ports 8081 and 8083 in the kernel's table.
    let listening = "until grep -qi \":$0 \" /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done";
    world.text(&["exec", main, "sh", "-c", listening, "1f91"]);
    for transport in TRANSPORTS {
        let once = "nc -l -p 8083 -e echo once >/dev/null 2>&1 </dev/null &";
        world.text(&["exec", main, "sh", "-c", once]);
        world.text(&["exec", main, "sh", "-c", listening, "1f93"]);
        let forward = Forward::start(world, &["-r", transport, web, ":8080", ":8081", ":8083", ":9"]);
        // One that takes a single connection: nobody else has been there.
        let mut said = String::new();
        connect(forward.port(8083)).read_to_string(&mut said).unwrap();
        assert_eq!(said, "once\n", "{transport}");
        let get = || {
            let mut stream = connect(forward.port(8080));
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(get().ends_with("\r\n\r\nhello\n"), "{transport}");

        // Several at once: one that is open and silent, one with much to say each way.
        let idle = connect(forward.port(8081));
        let mut loud = connect(forward.port(8081));
        let mut back = loud.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || loud.write_all(noise()).unwrap());
            let mut came = vec![0; noise().len()];
            back.read_exact(&mut came).unwrap();
            assert!(came == noise(), "{transport}");
        });
        // One side has ended, and what the other still says comes.
        let mut half = connect(forward.port(8081));
        half.write_all(b"abc").unwrap();
        half.shutdown(Shutdown::Write).unwrap();
        let mut came = String::new();
        half.read_to_string(&mut came).unwrap();
        assert_eq!(came, "abc", "{transport}");
        // A port on which nobody listens is told, and the others go on.
        let mut refused = connect(forward.port(9));
        refused.write_all(b"x").ok();
        refused.read_to_end(&mut Vec::new()).ok();
        wait_until(SOON, "the refusal told", || forward.text("err").contains(" -> 9: "));
        assert!(forward.text("err").contains("refused"), "{}", forward.text("err"));
        assert!(get().ends_with("hello\n"), "{transport}");
        drop(idle);
        assert!(forward.text("out").contains(&format!("Handling connection for {}\n", forward.port(8080))));
        let signal = if transport == "spdy" { Signal::SIGINT } else { Signal::SIGTERM };
        forward.end(signal);
    }

    // A local port that is taken, a pod that is none, ports that are none.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let arguments = ["port-forward", "--address", "127.0.0.1", web, &format!("{port}:80")];
    world.run(&arguments).failed(1, &format!("cannot listen on 127.0.0.1:{port}: Address already in use"));
    world.run(&["port-forward", "nope", "80"]).failed(1, "there is no pod \"nope\"");
    world.run(&["port-forward", main, "80"]).failed(1, "not a pod");
    assert_eq!(world.run(&["port-forward", web, "0"]).code, Some(2));
    assert_eq!(world.run(&["port-forward", web]).code, Some(2));
    world.run(&["port-forward", "--address", "x.y", web, "80"]).failed(2, "neither an IP address");
}

/// What holds when the runtime goes while streams are open.
fn without_the_runtime(world: &World) {
    let main = world.ids()[2];
    let arguments = ["exec", "-it", main, "sh", "-c", "echo be''gun; sleep 1000"];
    let mut typed = Terminal::start(&world.command(&arguments));
    typed.wait_raw();
    typed.wait_shown("begun");
    let mut plain = world
        .command(&["exec", main, "sh", "-c", "echo begun; sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    plain.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let mut vanishing = Terminal::start(&world.command(&arguments));
    vanishing.wait_raw();
    vanishing.vanish();
    assert_eq!(vanishing.wait().code(), code_of(Signal::SIGHUP));

    world.containerd.kill9();
    assert_eq!(typed.wait().code(), Some(1), "{}", typed.shown());
    typed.wait_shown("error: the connection to the runtime's streaming server broke");
    typed.assert_restored();
    let answer = Answer::of(plain.wait_with_output().unwrap());
    answer.failed(1, "the connection to the runtime's streaming server broke");
    world.run(&["exec", main, "ls"]).failed(1, "nobody listens on it");
}

fn all(world: &World) {
    exit_codes_and_outputs(world);
    several_and_sync(world);
    signals(world);
    backpressure(world);
    terminals(world);
    attaching(world);
    forwarding(world);
    without_the_runtime(world);
}

#[test]
fn streams_on_containerd_1_6() {
    all(&World::new("streams16", Release::Machine));
}

#[test]
fn streams_on_containerd_2() {
    all(&World::new("streams2", Release::Two));
}
