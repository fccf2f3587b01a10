//! `nodectl cri logs` and `events` as a whole process, against containerd 1.6 and 2.1: containers that say
//! what they are told to, with logs that are rotated, cut and removed while they are read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nodectl::{
    api::cri::{ContainerMetadata, ContainerState},
    cri::Cri as _,
};
use serde_json::{Value, json};
use support::{
    Release, SOON,
    cri_cli::{Answer, World, container_config, pod, program, sandbox_config},
    wait_until,
};

/// Says each line that comes through `/f` on both streams, and ends at `end`.
const TALKER: &[&str] = &[
    "sh",
    "-c",
    "mkfifo /f /said; echo ready; while :; do read -r l </f || continue; [ \"$l\" = end ] && exit 0; echo \"$l\"; echo \"$l!\" >&2; echo >/said; done",
];

/// A container that can be talked to.
struct Talker<'w> {
    world: &'w World,
    id: String,
    log: PathBuf,
}

impl<'w> Talker<'w> {
    fn new(world: &'w World, name: &str) -> Self {
        let made =
            world.ask(async |cri| pod(&cri, &world.containerd, "talk", name, &[("main", TALKER)]).await);
        let id = made.containers[0].clone();
        let log = log_path(world, &id);
        wait_until(SOON, "the talker is ready", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("ready"))
        });
        Self { world, id, log }
    }

    /// Makes it say something, and waits until it has.
    fn say(&self, text: &str) {
        let waits = if text == "end" { "" } else { "; read -r said </said" };
        let command = vec!["sh".to_owned(), "-c".to_owned(), format!("echo '{text}' >/f{waits}")];
        let answer = self.world.ask(async |cri| cri.exec_sync(&self.id, command, Some(SOON)).await.unwrap());
        assert_eq!(answer.exit_code, 0, "{}", String::from_utf8_lossy(&answer.stderr));
    }

    fn reopen(&self) {
        self.world.ask(async |cri| cri.reopen_container_log(&self.id).await).unwrap();
    }

    fn state(&self) -> ContainerState {
        let answer = self.world.ask(async |cri| cri.container_status(&self.id, false).await).unwrap();
        answer.status.unwrap().state()
    }
}

fn log_path(world: &World, id: &str) -> PathBuf {
    let answer = world.ask(async |cri| cri.container_status(id, false).await).unwrap();
    answer.status.unwrap().log_path.into()
}

/// A run of the program that goes on, and the lines that it has printed.
struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Running {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = world.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// The next line of its standard output.
    #[track_caller]
    fn line(&self) -> String {
        self.out.recv_timeout(SOON * support::slow()).expect("a line is printed")
    }

    #[track_caller]
    fn said(&self, expected: &[&str]) {
        for line in expected {
            assert_eq!(self.line(), *line);
        }
    }

    /// Waits for its end; the rest of what it printed.
    #[track_caller]
    fn ended(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        wait_until(SOON, "the program ends", || self.child.try_wait().unwrap().is_some());
        (self.child.wait().unwrap(), self.out.iter().collect(), self.err.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn logs(world: &World, release: Release) {
    what_was_said(world);
    attempts_and_missing_files(world);
    following_to_the_end(world);
    following_through_rotations(world);
    following_what_was_cut(world);
    readers_that_leave(world);
    if release == Release::Two {
        large_logs(world);
    }
    runtime_away(world);
}

fn what_was_said(world: &World) {
    let script = "echo out 1; echo err 1 >&2; head -c 100000 /dev/zero | tr '\\0' x; echo; printf 'no end'";
    let command: &[&str] = &["sh", "-c", script];
    let made =
        world.ask(async |cri| pod(&cri, &world.containerd, "default", "speaker", &[("main", command)]).await);
    let id = &made.containers[0];
    wait_ended(world, id);
    let long = "x".repeat(100_000);
    let log = fs::read_to_string(log_path(world, id)).unwrap();
    assert!(log.matches(" stdout P ").count() > 1, "the long line is in parts");
    let answer = world.run(&["logs", id]);
    assert_eq!(answer.code, Some(0));
    assert_eq!((answer.out.len(), answer.err.as_str()), (6 + 100_001 + 6, "err 1\n"));
    assert_eq!(answer.out, format!("out 1\n{long}\nno end"));
    // All that a container may be called.
    for wanted in [&id[..12], "default/speaker/main", "default/speaker", "uid-speaker"] {
        assert_eq!(world.run(&["logs", wanted]).out, answer.out, "{wanted}");
    }
    assert_eq!(world.text(&["logs", "-s", "stdout", "--tail", "1", id]), "no end");
    assert_eq!(world.run(&["logs", "--tail=2", "--limit-bytes", "10", id]).out, "x".repeat(10));
    assert_eq!(world.run(&["logs", "--stream", "stderr", id]).err, "err 1\n");
    assert_eq!(world.text(&["logs", "--tail", "0", id]), "");
    assert_eq!(world.run(&["logs", "--tail", "-1", "--limit-bytes", "-1", id]).out, answer.out);
    assert_eq!(world.text(&["logs", "--since", "2100-01-01", id]), "");
    assert_eq!(world.text(&["logs", "--until", "1h", id]), "");
    let both = world.run(&["logs", "--since", "1h", "--until", "2100-01-01T00:00:00Z", id]);
    assert_eq!(both.out, answer.out);
    // One time for each line, as it is in the log.
    let stamped = world.run(&["logs", "-t", id]);
    let first: Vec<&str> = stamped.out.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|stamp| stamp.starts_with("20") && stamp.len() >= 30), "{first:?}");
    assert!(stamped.out.ends_with(" no end") && stamped.err.ends_with("Z err 1\n"), "{}", stamped.err);

    // What is in no format is told, and does not hide the rest.
    let mut file = fs::File::options().append(true).open(log_path(world, id)).unwrap();
    file.write_all(b"torn by a crash\n2026-01-02T03:04:05Z stderr F after\n").unwrap();
    let damaged = world.run(&["logs", "--tail", "1", id]);
    assert_eq!((damaged.code, damaged.out.as_str(), damaged.err.as_str()), (Some(0), "", "after\n"));
    let damaged = world.run(&["logs", id]);
    assert!(damaged.out.ends_with("no end") && damaged.err.starts_with("err 1\nafter\n"), "{}", damaged.err);
    assert!(
        damaged.err.contains("warning: 1 line is damaged and left out, the first at byte "),
        "{}",
        damaged.err
    );
}

fn wait_ended(world: &World, id: &str) {
    wait_until(SOON, "the container ended", || {
        let answer = world.ask(async |cri| cri.container_status(id, false).await).unwrap();
        answer.status.unwrap().state() == ContainerState::ContainerExited
    });
}

fn attempts_and_missing_files(world: &World) {
    let containerd = &world.containerd;
    let config = sandbox_config(containerd, "default", "again");
    let attempt = |sandbox: &str, number: u32, log: &str, start: bool| {
        let mut container = container_config("main", &["sh", "-c", &format!("echo attempt {number}")]);
        container.metadata = Some(ContainerMetadata { name: "main".to_owned(), attempt: number });
        container.log_path = log.to_owned();
        world.ask(async |cri| {
            let id = cri.create_container(sandbox, container, config.clone()).await.unwrap();
            if start {
                cri.start_container(&id).await.unwrap();
            }
            id
        })
    };
    let sandbox = world.ask(async |cri| cri.run_pod_sandbox(config.clone(), "").await).unwrap();
    let first = attempt(&sandbox, 0, "0.log", true);
    wait_ended(world, &first);
    world.run(&["logs", "-p", &first]).failed(1, "there is no attempt of container ");
    let second = attempt(&sandbox, 1, "1.log", true);
    wait_ended(world, &second);
    assert_eq!(world.text(&["logs", "default/again"]), "attempt 1\n");
    assert_eq!(world.text(&["logs", "--previous", "default/again"]), "attempt 0\n");
    assert_eq!(world.text(&["logs", "-f", "-p", &second]), "attempt 0\n");
    // The runtime has forgotten it, and its log is still there.
    world.ask(async |cri| cri.remove_container(&first).await).unwrap();
    assert_eq!(world.text(&["logs", "-p", &second]), "attempt 0\n");

    let third = attempt(&sandbox, 2, "2.log", false);
    world
        .run(&["logs", &third])
        .failed(1, "has not been started and has no log yet\nhint: `-f` waits for it");
    let waiting = Running::start(world, &["logs", "-f", &third]);
    world.ask(async |cri| cri.start_container(&third).await).unwrap();
    let (status, out, err) = waiting.ended();
    assert_eq!((status.code(), out, err.len()), (Some(0), vec!["attempt 2".to_owned()], 0));
    let path = log_path(world, &third);
    fs::remove_file(&path).unwrap();
    world.run(&["logs", &third]).failed(1, &format!("is not there: {}", path.display()));
    world.run(&["logs", "-f", &third]).failed(1, "is not there");
    // As cri-dockerd's links are, when Docker writes to the journal or has removed its file.
    std::os::unix::fs::symlink("/nonexistent/x-json.log", &path).unwrap();
    world.run(&["logs", &third]).failed(1, "is a link to /nonexistent/x-json.log, which is not there");
    let unlogged = attempt(&sandbox, 3, "", true);
    world.run(&["logs", &unlogged]).failed(1, "the runtime keeps no log file of container ");

    world.run(&["logs", "ffffffff"]).failed(1, "there is no container \"ffffffff\"");
    world.run(&["logs", &sandbox]).failed(1, "not a container\nhint: use `nodectl cri inspectp`");
    world.run(&["logs", "--since", "soon", &second]).failed(2, "--since \"soon\" is no time");
    world
        .run(&["logs", "--since", "1m", "--until", "2m", &second])
        .failed(2, "--since is later than --until");
    for wrong in
        [&["logs"][..], &["logs", "a", "b"], &["logs", "-s", "stdin", "a"], &["logs", "--tail", "x", "a"]]
    {
        assert_eq!(world.run(wrong).code, Some(2), "{wrong:?}");
    }
}

fn following_to_the_end(world: &World) {
    // A burst, and the end right behind it.
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done";
    let config = sandbox_config(&world.containerd, "default", "burst");
    let sandbox = world.ask(async |cri| cri.run_pod_sandbox(config.clone(), "").await).unwrap();
    for round in 0..5 {
        let name = format!("burst{round}");
        let id = world.ask(async |cri| {
            let container = container_config(&name, &["sh", "-c", script]);
            cri.create_container(&sandbox, container, config.clone()).await.unwrap()
        });
        let running = Running::start(world, &["logs", "-f", &id]);
        world.ask(async |cri| cri.start_container(&id).await).unwrap();
        let (status, out, err) = running.ended();
        assert_eq!((status.code(), err.join("\n")), (Some(0), String::new()));
        let expected: Vec<String> = (1..=3000).map(|line| format!("line {line}")).collect();
        assert!(out == expected, "round {round}: {} lines, the last {:?}", out.len(), out.last());
        // One that has ended long ago ends at once.
        assert_eq!(world.text(&["logs", "-f", "--tail", "2", &id]), "line 2999\nline 3000\n");
    }
    // One that is removed by force while it is followed.
    let talker = Talker::new(world, "removed");
    let running = Running::start(world, &["logs", "-f", &talker.id]);
    running.said(&["ready"]);
    world.ask(async |cri| cri.remove_container(&talker.id).await).unwrap();
    let (status, out, _) = running.ended();
    assert_eq!((status.code(), out.len()), (Some(0), 0));
}

/// Moves a log away as kubelet does.
fn rotate(talker: &Talker<'_>, number: u32) -> PathBuf {
    let to = talker.log.with_file_name(format!("main.log.20260101-00000{number}"));
    fs::rename(&talker.log, &to).unwrap();
    to
}

fn compress(file: &Path) {
    let done = Command::new("gzip").arg(file).status().unwrap();
    assert!(done.success());
}

fn following_through_rotations(world: &World) {
    let talker = Talker::new(world, "rotated");
    let running = Running::start(world, &["logs", "--follow", "default/no", "--help"]);
    drop(running);
    let running = Running::start(world, &["logs", "--follow", "talk/rotated"]);
    running.said(&["ready"]);
    talker.say("1");
    running.said(&["1"]);
    let first = rotate(&talker, 1);
    // Before it is told, the runtime writes to the renamed file.
    talker.say("2");
    running.said(&["2"]);
    talker.reopen();
    talker.say("3");
    running.said(&["3"]);
    compress(&first);
    let second = rotate(&talker, 2);
    talker.reopen();
    talker.say("4");
    running.said(&["4"]);
    // Several while nobody looks: the first is compressed when it is looked at.
    kill(pid(&running.child), Signal::SIGSTOP).unwrap();
    talker.say("5");
    let third = rotate(&talker, 3);
    talker.reopen();
    talker.say("6");
    compress(&second);
    rotate(&talker, 4);
    talker.reopen();
    compress(&third);
    talker.say("7");
    kill(pid(&running.child), Signal::SIGCONT).unwrap();
    running.said(&["5", "6", "7"]);
    // Who comes now reads all files.
    let all = ["ready", "1", "2", "3", "4", "5", "6", "7"].join("\n") + "\n";
    assert_eq!(world.run(&["logs", &talker.id]).out, all);
    assert_eq!(world.text(&["logs", "-s", "stdout", "--tail", "3", &talker.id]), "5\n6\n7\n");
    let late = Running::start(world, &["logs", "-f", "--tail", "5", "-s", "stdout", &talker.id]);
    late.said(&["3", "4", "5", "6", "7"]);
    talker.say("8");
    late.said(&["8"]);
    talker.say("end");
    for running in [running, late] {
        let (status, out, err) = running.ended();
        assert_eq!((status.code(), out.into_iter().filter(|line| line != "8").count()), (Some(0), 0));
        let expected: &[&str] = &["1!", "2!", "3!", "4!", "5!", "6!", "7!", "8!"];
        assert!(err.is_empty() || err == expected, "{err:?}");
    }
    assert_eq!(talker.state(), ContainerState::ContainerExited);
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn following_what_was_cut(world: &World) {
    let talker = Talker::new(world, "cut");
    let running = Running::start(world, &["logs", "-f", "-s", "stdout", "--tail", "5", &talker.id]);
    running.said(&["ready"]);
    // Longer than all that comes before the next look at the file, which could not be told from it otherwise.
    let before = format!("before {}", "-".repeat(500));
    talker.say(&before);
    running.said(&[&before]);
    // Copied and cut, as logrotate does it.
    wait_until(SOON, "both streams are written", || fs::read_to_string(&talker.log).unwrap().contains("-!"));
    fs::File::options().write(true).open(&talker.log).unwrap().set_len(0).unwrap();
    talker.say("after");
    running.said(&["after"]);
    // The file is removed, and the runtime told.
    fs::remove_file(&talker.log).unwrap();
    talker.say("into the void");
    running.said(&["into the void"]);
    world.run(&["logs", &talker.id]).failed(1, "`nodectl cri logs --reopen`");
    let reopened = world.run(&["logs", "-r", &talker.id]);
    assert_eq!((reopened.code, reopened.out.as_str()), (Some(0), ""));
    talker.say("again");
    running.said(&["again"]);
    assert_eq!(world.text(&["logs", "-s", "stdout", &talker.id]), "again\n");
    talker.say("end");
    let (status, out, err) = running.ended();
    assert_eq!((status.code(), out.len(), err.join("\n")), (Some(0), 0, String::new()));
}

fn readers_that_leave(world: &World) {
    let talker = Talker::new(world, "left");
    // Whoever has seen enough ends the program, though the container says nothing more.
    let mut command = world.command(&["logs", "-f", &talker.id]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    drop(reader);
    wait_until(SOON, "the program ends", || child.try_wait().unwrap().is_some());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));

    // Ctrl-C is no error to be told.
    let running = Running::start(world, &["logs", "-f", &talker.id]);
    running.said(&["ready"]);
    kill(pid(&running.child), Signal::SIGINT).unwrap();
    let (status, out, err) = running.ended();
    assert_eq!((status.signal(), out.len(), err.len()), (Some(Signal::SIGINT as i32), 0, 0));

    // Bytes and times end it too.
    let running = Running::start(world, &["logs", "-f", "-s", "stdout", "--limit-bytes", "7", &talker.id]);
    running.said(&["ready"]);
    talker.say("more");
    assert_eq!(running.ended().1, ["m"]);
    let running = Running::start(world, &["logs", "-f", "--until", "-1s", "-s", "stdout", &talker.id]);
    assert_eq!(running.ended().1, ["ready", "more"]);
}

/// What a process has needed of memory at most, in KiB.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A line of 100 MB, before it many short ones, in a plain and in a compressed file: neither is held.
fn large_logs(world: &World) {
    let talker = Talker::new(world, "large");
    let follow = |tail: &str| {
        let mut command = world.command(&["logs", "-f", "--tail", tail, &talker.id]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    // What the program takes by itself, which is the more the less it was optimized.
    let mut alone = follow("1");
    let mut line = String::new();
    BufReader::new(alone.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let own = peak(&alone);
    alone.kill().unwrap();
    alone.wait().unwrap();
    let stamp = "2026-01-01T00:00:00Z stdout F";
    let old = talker.log.with_file_name("main.log.20251231-000000");
    let mut file = std::io::BufWriter::new(fs::File::create(&old).unwrap());
    for number in 0..100_000 {
        writeln!(file, "{stamp} {number}").unwrap();
    }
    drop(file);
    compress(&old);
    let old = talker.log.with_file_name("main.log.20251231-000001");
    let mut file = std::io::BufWriter::new(fs::File::create(&old).unwrap());
    write!(file, "{stamp} ").unwrap();
    let part = vec![b'y'; 1 << 20];
    for _ in 0..100 {
        file.write_all(&part).unwrap();
    }
    writeln!(file).unwrap();
    drop(file);
    let mut child = follow("90002");
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut count) = (Vec::new(), 0);
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).unwrap();
        match line.as_slice() {
            b"ready\n" => break,
            [b'y', ..] => assert_eq!((line.len(), count), ((100 << 20) + 1, 90_000)),
            number => {
                let number = str::from_utf8(number).unwrap().trim();
                assert_eq!(number, (10_000 + count).to_string());
                count += 1;
            }
        }
    }
    let grown = peak(&child).saturating_sub(own);
    assert!(grown < 16 << 10, "{grown} KiB more than the {own} KiB of the program itself");
    talker.say("end");
    assert!(child.wait().unwrap().success());
}

/// Starts containerd again, and waits until its CRI answers.
fn resume(world: &World) {
    world.containerd.resume();
}

fn runtime_away(world: &World) {
    let talker = Talker::new(world, "away");
    let running = Running::start(world, &["logs", "-f", "-s", "stdout", &talker.id]);
    running.said(&["ready"]);
    world.containerd.kill9();
    resume(world);
    talker.say("back");
    running.said(&["back"]);
    talker.say("end");
    let (status, out, err) = running.ended();
    assert_eq!((status.code(), out.len()), (Some(0), 0));
    assert!(err.len() <= 1 && err.iter().all(|line| line.contains("going on")), "{err:?}");
}

/// A pod's life with one container that ends by itself, and the ids of both. They are removed when `told` has
/// seen what it waits for.
fn a_life(world: &World, name: &str, told: impl FnOnce(&str)) -> (String, String) {
    let made = world.ask(async |cri| {
        pod(&cri, &world.containerd, "events", name, &[("main", &["sh", "-c", "exit 3"])]).await
    });
    let id = made.containers[0].clone();
    told(&id);
    world.ask(async |cri| {
        cri.remove_container(&id).await.unwrap();
        cri.stop_pod_sandbox(&made.sandbox).await.unwrap();
        cri.remove_pod_sandbox(&made.sandbox).await.unwrap();
    });
    (made.sandbox, id)
}

/// Follows events, and waits until they flow.
fn watch(world: &World, release: Release, arguments: &[&str]) -> Running {
    let running = Running::start(world, &[&["events"], arguments].concat());
    if release == Release::Machine {
        let note = running.err.recv_timeout(SOON * support::slow()).unwrap();
        assert!(note.starts_with("containerd 1.6"), "{note}");
        assert!(
            note.ends_with(" has no CRI events: these are from containerd's own event service"),
            "{note}"
        );
    }
    running
}

/// Whether a line tells that this happened to that.
fn is(line: &str, what: &str, id: &str) -> bool {
    let event: Value = serde_json::from_str(line).unwrap();
    event["containerEventType"] == format!("CONTAINER_{what}_EVENT") && event["containerId"] == id
}

fn events(world: &World, release: Release) {
    let running = watch(world, release, &["-p", "events/one"]);
    let mut seen = Vec::new();
    let mut told = Vec::new();
    let (sandbox, id) = a_life(world, "one", |id| {
        while !told.last().is_some_and(|line: &String| is(line, "STOPPED", id)) {
            told.push(running.line());
        }
    });
    while !is(told.last().unwrap(), "DELETED", &sandbox) {
        told.push(running.line());
    }
    for line in told {
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let kind = event["containerEventType"].as_str().unwrap().to_owned();
        assert!(event["createdAt"].as_str().unwrap().parse::<i64>().unwrap() > 0, "{event}");
        if kind != "CONTAINER_DELETED_EVENT" {
            assert_eq!(event["podSandboxStatus"]["metadata"]["name"], "one", "{event}");
            assert_eq!(event["podSandboxStatus"]["metadata"]["uid"], "uid-one");
        }
        let of = event["containerId"].as_str().unwrap();
        if kind == "CONTAINER_STOPPED_EVENT" && of == id {
            let status = &event["containersStatuses"][0];
            assert_eq!(
                (&status["id"], &status["state"], &status["exitCode"]),
                (&json!(id), &json!("CONTAINER_EXITED"), &json!(3)),
                "{event}"
            );
        }
        seen.push((kind, of.to_owned()));
    }
    let of = |wanted: &str| -> Vec<&str> {
        seen.iter().filter(|(_, id)| id == wanted).map(|(kind, _)| kind.as_str()).collect()
    };
    let life = [
        "CONTAINER_CREATED_EVENT",
        "CONTAINER_STARTED_EVENT",
        "CONTAINER_STOPPED_EVENT",
        "CONTAINER_DELETED_EVENT",
    ];
    assert_eq!((of(&sandbox), of(&id), seen.len()), (life.to_vec(), life.to_vec(), 8), "{seen:?}");

    // Other forms and filters, side by side; the runtime dies and comes back in between.
    let table = watch(world, release, &["-o", "table", "--namespace", "^events$", "--name", "main"]);
    let template = "{{.containerId}} {{.containerEventType}}";
    let ended_all = watch(world, release, &["--type", "stopped,deleted", "-o", template]);
    let header = table.line();
    let header: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(header, ["TIME", "EVENT", "ID", "NAME", "POD", "NAMESPACE"]);
    world.containerd.kill9();
    let away = ended_all.err.recv_timeout(SOON * support::slow()).unwrap();
    assert!(away.starts_with("the runtime went away ("), "{away}");
    resume(world);
    for running in [&table, &ended_all] {
        loop {
            let back = running.err.recv_timeout(SOON * support::slow()).unwrap();
            if back == "the runtime is back; what happened meanwhile was not told" {
                break;
            }
        }
    }
    let row = |kind: &str, id: &str| {
        let line = table.line();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[1..], [kind, &id[..13], "main", "two", "events"], "{line}");
    };
    let (sandbox, id) = a_life(world, "two", |id| {
        ["Created", "Started", "Stopped"].iter().for_each(|kind| row(kind, id));
    });
    row("Deleted", &id);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line| *line != format!("{sandbox} CONTAINER_DELETED_EVENT")) {
        let line = ended_all.line();
        if line.starts_with(&sandbox) || line.starts_with(&id) {
            seen.push(line);
        }
    }
    let expected = [(&id, "STOPPED"), (&id, "DELETED"), (&sandbox, "STOPPED"), (&sandbox, "DELETED")];
    assert_eq!(seen, expected.map(|(id, kind)| format!("{id} CONTAINER_{kind}_EVENT")));

    // Ctrl-C and a reader that leaves.
    kill(pid(&table.child), Signal::SIGINT).unwrap();
    let (status, ..) = table.ended();
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    let mut command = world.command(&["event"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    wait_until(SOON, "the program ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));

    world.run(&["events", "--name", "("]).failed(2, "no regular expression");
    world.run(&["events", "-o", "{{.x"]).failed(2, "the template is broken");
    for wrong in [&["events", "extra"][..], &["events", "--type", "odd"], &["events", "-o", "xml"]] {
        assert_eq!(world.run(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn events_on_containerd_1_6() {
    events(&World::new("events16", Release::Machine), Release::Machine);
}

#[test]
fn events_on_containerd_2() {
    events(&World::new("events2", Release::Two), Release::Two);
}

#[test]
fn events_of_a_dead_runtime_are_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("crictl.yaml");
    fs::write(&config, "runtime-endpoint: unix:///nonexistent/x.sock\n").unwrap();
    for verb in [&["events"][..], &["logs", "-f", "x"]] {
        let answer = Answer::of(program(&config).args(verb).output().unwrap());
        answer.failed(1, "the socket /nonexistent/x.sock does not exist");
    }
}

#[test]
fn logs_on_containerd_1_6() {
    logs(&World::new("logs16", Release::Machine), Release::Machine);
}

#[test]
fn logs_on_containerd_2() {
    logs(&World::new("logs2", Release::Two), Release::Two);
}
