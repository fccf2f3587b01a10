//! What `nodectl cri` measures and draws, as a whole process against containerd 1.6 and 2.1: `stats` and
//! `statsp` beside the kernel's own counts, `metricsp`, `top` on a terminal and off it, `tree`, `runtimes`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nodectl::api::cri::{
    ContainerMetrics, ListMetricDescriptorsResponse, ListPodSandboxMetricsResponse, ListPodSandboxResponse,
    Metric, MetricDescriptor, MetricType, PodSandboxMetrics, UInt64Value, VersionResponse,
};
use prost::Message as _;
use serde_json::{Value, json};
use support::{
    Release, SOON,
    cri_cli::{Answer, World, client, masked, on_runtime, pod, program},
    fake_cri::FakeCri,
    terminal::Terminal,
    wait_until,
};

/// A container that computes now and then, and one that holds this much memory and disk.
const MIB: u64 = 1 << 20;
const HELD: u64 = 24 * MIB;
const WRITTEN: u64 = 3 * MIB;

/// The world with one more pod, `default/load`: its containers `spin` and `hold`.
fn loaded(name: &str, release: Release) -> (World, [String; 3]) {
    let world = World::new(name, release);
    let spin = "while :; do i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; sleep 0.05; done";
    let hold = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24; dd if=/dev/zero of=/written bs=1M count=3; \
                touch /a /b; exec sleep 1000000";
    let containers = [("spin", &["sh", "-c", spin][..]), ("hold", &["sh", "-c", hold][..])];
    let made = on_runtime(async {
        pod(&client(&world.containerd), &world.containerd, "default", "load", &containers).await
    });
    let [spin, hold] = [made.containers[0].clone(), made.containers[1].clone()];
    // The runtime counts a file system every ten seconds.
    wait_until(SOON, "the figures of what hold holds", || {
        let found = &world.json(&["stats", "-o", "json", &hold])["stats"][0];
        number(&found["memory"]["workingSetBytes"]) >= HELD
            && number(&found["writableLayer"]["usedBytes"]) >= WRITTEN
    });
    (world, [made.sandbox, spin, hold])
}

/// A value of the interface's wrapped 64-bit numbers.
#[track_caller]
fn number(value: &Value) -> u64 {
    value["value"].as_str().unwrap_or_else(|| panic!("no number: {value}")).parse().unwrap()
}

/// Nanoseconds of processor time, and bytes in memory, by the kernel's files of a process' cgroup.
fn by_the_kernel(pid: u64) -> (u64, u64) {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |controller: &str| {
        let of = |line: &&str| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller);
        let line = groups.lines().find(of)?;
        let kind = line.split(':').nth(1).unwrap();
        Some(format!("/sys/fs/cgroup/{kind}{}", line.split(':').nth(2).unwrap()))
    };
    let read = |file: String| fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let single = |file: String| read(file).trim().parse::<u64>().unwrap();
    match (path("cpuacct"), path("memory")) {
        (Some(cpu), Some(memory)) => {
            (single(format!("{cpu}/cpuacct.usage")), single(format!("{memory}/memory.usage_in_bytes")))
        }
        _ => {
            let folder = path("").unwrap();
            let stat = read(format!("{folder}/cpu.stat"));
            let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
            (micros.parse::<u64>().unwrap() * 1000, single(format!("{folder}/memory.current")))
        }
    }
}

/// The cells of a table's line, where none is empty or has spaces.
fn cells(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

fn stats(world: &World, [load, spin, hold]: &[String; 3]) {
    let [web, _, main, side, job_main] = world.ids();
    let text = world.text(&["stats"]);
    let head = "CONTAINER | NAME | CPU % | MEM | DISK | INODES | SWAP | POD | NAMESPACE";
    assert_eq!(masked(&text, &[]).lines().next(), Some(head));
    let mut rows: Vec<Vec<&str>> = text.lines().skip(1).map(cells).collect();
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let mut running = [&main[..13], &side[..13], &spin[..13], &hold[..13]];
    running.sort_unstable();
    assert_eq!(ids, running, "those that run, by their ids: {text}");
    rows.retain(|row| row[0] == &spin[..13] || row[0] == &hold[..13]);
    rows.sort_by_key(|row| row[1]);
    let [held, spun] = &rows[..] else { panic!("{text}") };
    assert_eq!((held[1], &held[7..]), ("hold", &["load", "default"][..]));
    assert_eq!((spun[1], held.len(), spun.len()), ("spin", 9, 9));
    let cpu = |row: &[&str]| row[2].parse::<f64>().unwrap();
    assert!(cpu(spun) > cpu(held) && cpu(held) >= 0.0, "{text}");
    let megabytes = |cell: &str| cell.strip_suffix("MB").unwrap().parse::<f64>().unwrap();
    assert!((25.0..60.0).contains(&megabytes(held[3])), "{text}");
    assert!((3.1..8.0).contains(&megabytes(held[4])), "{text}");
    assert!(held[5].parse::<u64>().unwrap() >= 3, "the files that it made: {text}");

    // Beside the kernel's own counts, which only grow: one look before, one after.
    let pid = world.json(&["inspect", spin])["info"]["pid"].as_u64().unwrap();
    let before = by_the_kernel(pid);
    let answer = world.json(&["stats", "-o", "json", spin]);
    let after = by_the_kernel(pid);
    let told = &answer["stats"][0];
    let used = number(&told["cpu"]["usageCoreNanoSeconds"]);
    assert!((before.0..=after.0).contains(&used), "{used} is not from {} to {}", before.0, after.0);
    let pid = world.json(&["inspect", hold])["info"]["pid"].as_u64().unwrap();
    let (_, used) = by_the_kernel(pid);
    let working =
        number(&world.json(&["stats", "-o", "json", hold])["stats"][0]["memory"]["workingSetBytes"]);
    assert!((HELD..=used + MIB).contains(&working), "{working} of {used}");

    // Names and types of the JSON are crictl's.
    assert_eq!(answer["stats"].as_array().unwrap().len(), 1);
    assert_eq!(told["attributes"]["id"], json!(spin));
    assert_eq!(told["attributes"]["metadata"], json!({"name": "spin", "attempt": 0}));
    assert_eq!(told["attributes"]["labels"], json!({"part": "spin"}));
    for at in ["/cpu/timestamp", "/memory/timestamp", "/writableLayer/timestamp"] {
        let time = told.pointer(at).unwrap_or_else(|| panic!("no {at} in {told}"));
        assert!(time.as_str().unwrap().parse::<u64>().unwrap() > 0, "{at}: {told}");
    }
    assert!(told["writableLayer"]["fsId"]["mountpoint"].as_str().unwrap().starts_with('/'), "{told}");
    number(&told["writableLayer"]["inodesUsed"]);

    // Filters, and what an id may be.
    let ids = |arguments: &[&str]| -> Vec<String> {
        let all = world.json(&[&["stats", "-o", "json"][..], arguments].concat());
        let id = |stats: &Value| stats["attributes"]["id"].as_str().unwrap().to_owned();
        all["stats"].as_array().unwrap().iter().map(id).collect()
    };
    let mut of_web = [main, side];
    of_web.sort_unstable();
    assert_eq!(ids(&["--pod", &web[..8]]), of_web);
    assert_eq!(ids(&["-p", "default/web", "--name", "^side$"]), [side]);
    assert_eq!(ids(&["--label", "part=hold", "--namespace", "default"]), [hold.as_str()]);
    assert_eq!(ids(&["--id", &side[..10]]), [side]);
    assert_eq!(ids(&["default/load/spin"]), [spin.as_str()]);
    assert_eq!(ids(&["default/web/main", &side[..9]]), of_web);
    assert!(ids(&["--name", "nothing"]).is_empty());
    // One that was asked for by its id is shown, whether or not it runs; a list leaves it out.
    assert!(!world.text(&["stats"]).contains(&job_main[..13]));
    world.run(&["stats", "nope"]).failed(1, "there is no container \"nope\"");
    world.run(&["stats", load]).failed(1, "not a container");
    world.run(&["stats", "--name", "("]).failed(2, "is no regular expression");
    world.run(&["stats", "-s", "0"]).failed_usage();
    for arguments in [&["stats", "-a"][..], &["stats", job_main]] {
        let text = world.text(arguments);
        let row = text.lines().find(|line| line.starts_with(&job_main[..13])).map(cells);
        assert_eq!(row.map(|row| (row[3], row[7])), Some(("0B", "job")), "{text}");
    }
    // JSON is what the runtime tells, of all that it tells of.
    assert_eq!(world.text(&["stats", "-o", "{{len .stats}}"]), "5\n");
    assert!(world.text(&["stats", "-o", "yaml", spin]).starts_with("stats:\n"));
    assert!(world.text(&["stats", "--no-trunc", spin]).contains(spin.as_str()));
}

/// What clap itself refuses.
trait Usage {
    fn failed_usage(&self);
}

impl Usage for Answer {
    #[track_caller]
    fn failed_usage(&self) {
        assert_eq!(self.code, Some(2), "{}{}", self.out, self.err);
        assert!(self.err.starts_with("error: ") && !self.err.contains("panicked"), "{}", self.err);
    }
}

fn pod_stats(world: &World, [load, spin, hold]: &[String; 3], release: Release) {
    let [web, job, ..] = world.ids();
    let text = world.text(&["statsp"]);
    assert_eq!(
        masked(&text, &[]).lines().next(),
        Some("POD | POD ID | CPU % | MEM | DISK | INODES | SWAP | NAMESPACE")
    );
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(cells).collect();
    let mut known = [&web[..13], &job[..13], &load[..13]];
    known.sort_unstable();
    assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), known, "{text}");
    let row = rows.iter().find(|row| row[0] == "load").unwrap();
    assert_eq!((row[7], row[2].parse::<f64>().unwrap() > 0.0), ("default", true), "{text}");
    let disk = row[4].strip_suffix("MB").unwrap().parse::<f64>().unwrap();
    assert!((3.1..8.0).contains(&disk), "{text}");

    let answer = world.json(&["statsp", "-o", "json", "default/load"]);
    let told = &answer["stats"][0];
    assert_eq!(answer["stats"].as_array().unwrap().len(), 1);
    assert_eq!(told["attributes"]["id"], json!(load));
    assert_eq!(
        told["attributes"]["metadata"],
        json!({"name": "load", "namespace": "default", "uid": "uid-load", "attempt": 0})
    );
    let inside = told["linux"]["containers"].as_array().unwrap();
    let mut ids: Vec<&str> = inside.iter().map(|of| of["attributes"]["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut both = [spin.as_str(), hold.as_str()];
    both.sort_unstable();
    assert_eq!(ids, both);
    assert!(number(&told["linux"]["memory"]["workingSetBytes"]) >= HELD);
    assert!(number(&told["linux"]["cpu"]["usageCoreNanoSeconds"]) > 0);
    assert!(number(&told["linux"]["process"]["processCount"]) >= 2, "{told}");

    let count =
        |arguments: &[&str]| world.text(&[&["statsp", "-o", "{{len .stats}}"][..], arguments].concat());
    assert_eq!(count(&["--label", "app=web"]), "1\n");
    assert_eq!(count(&["--id", &load[..9]]), "1\n");
    assert_eq!(count(&["--namespace", "^default$"]), "2\n");
    assert_eq!(count(&["uid-web", "batch/job"]), "2\n");
    // A pod without a cgroup of its own has no figures: those of others are told all the same.
    let bare = world.folder.path().join("bare.yaml");
    fs::write(&bare, "metadata: {name: bare, namespace: default}\nlinux: {}\n").unwrap();
    world.text(&["runp", bare.to_str().unwrap()]);
    world.run(&["statsp", "default/bare"]).failed(1, "cgroupPath");
    assert_eq!(count(&["default/load"]), "1\n");
    world.text(&["rmp", "-f", "default/bare"]);
    world.run(&["statsp", spin]).failed(1, "not a pod");
    world.run(&["statsp", "x/y"]).failed(1, "there is no pod \"x/y\"");

    // Neither release has the runtime's own metrics; which one it is, is said.
    let name = if release == Release::Two { "containerd 2." } else { "containerd 1.6" };
    for (verb, rpc) in [("metricsp", "ListPodSandboxMetrics"), ("metricdescs", "ListMetricDescriptors")] {
        let answer = world.run(&[verb]);
        answer.failed(1, &format!("does not implement {rpc}"));
        assert!(answer.err.starts_with(&format!("error: {name}")), "{}", answer.err);
        assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
    }
}

fn spawn(world: &World, arguments: &[&str]) -> Child {
    world.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn watching(world: &World) {
    // Rounds go on, each with a table of its own, and Ctrl-C is a clean end.
    let mut child = spawn(world, &["stats", "--watch", "--name", "^main$"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let round: Vec<String> = lines.by_ref().take(5).map(Result::unwrap).collect();
    let parts: Vec<&str> = round.iter().map(|line| line.split("   ").next().unwrap()).collect();
    assert_eq!((parts[0], parts[2], parts[3]), ("CONTAINER", "", "CONTAINER"), "{round:?}");
    assert_eq!(parts[1], parts[4]);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));

    // A reader who has seen enough ends it too: `| head -1`.
    for verb in ["stats", "statsp"] {
        let mut child = spawn(world, &[verb, "-w"]);
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("CPU %"), "{first}");
        let answer = Answer::of(child.wait_with_output().unwrap());
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    }

    world.containerd.freeze();
    let answer = world.run(&["-t", "300ms", "stats"]);
    world.containerd.thaw();
    answer.failed(1, "no answer within 0.3 s");
}

fn top(world: &World, [_, spin, hold]: &[String; 3]) {
    // Off a terminal: as many tables as are asked for, one without.
    let text = world.text(&["top", "-n", "2", "--sort", "memory"]);
    assert_eq!(text.matches("CONTAINER").count(), 2, "{text}");
    let (first, second) = text.split_once("\n\n").unwrap();
    for table in [first, second] {
        let rows: Vec<Vec<&str>> = table.lines().skip(1).map(cells).collect();
        assert_eq!((rows[0][0], rows.len()), (&hold[..13], 4), "the largest is first: {text}");
    }
    let text = world.text(&["top", "--pod", "default/load"]);
    assert_eq!(text.lines().nth(1).map(|line| cells(line)[0]), Some(&spin[..13]), "{text}");
    assert_eq!(text.lines().count(), 3);
    for wrong in [&["top", "-n", "0"][..], &["top", "--sort", "smell"], &["top", "-s", "x"]] {
        world.run(wrong).failed_usage();
    }

    // On a terminal: drawn until q, sorted by the key pressed, and the terminal given back.
    let mut terminal = Terminal::of_size(&world.command(&["top"]), 7, 60);
    let drawn = terminal.wait_for("a frame with CPU", 0, |text| {
        text.contains("by CPU") && text.matches("\x1b[J").count() >= 2 && text.contains(" spin ")
    });
    assert!(!terminal.echoes());
    let text = terminal.shown();
    assert!(
        text.starts_with("\x1b[?1049h\x1b[?25l\x1b[Hcontainerd ") && text.contains(": 4 containers, CPU")
    );
    let frame = text.split("\x1b[H").nth(1).unwrap();
    let lines: Vec<&str> = frame.split("\x1b[K").map(|line| line.trim_matches(['\r', '\n'])).collect();
    assert_eq!(lines.len(), 8, "seven lines, and the end of the last: {frame:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 60), "{frame:?}");
    terminal.type_in("m");
    terminal.wait_for("a frame sorted by memory", drawn, |text| {
        text.rsplit_once("by memory").is_some_and(|(_, frame)| frame.contains("CONTAINER"))
    });
    // A key that means nothing, then one that is no longer seen: raw mode ends with the view.
    terminal.type_in("x");
    terminal.type_in("q");
    assert!(terminal.wait().success());
    // What was written last may come after the program's end.
    wait_until(SOON, "the screen is left", || terminal.shown().ends_with("\x1b[?25h\x1b[?1049l"));
    terminal.assert_restored();

    // A second process gives it back when the first cannot.
    let mut terminal = Terminal::of_size(&world.command(&["top"]), 24, 100);
    terminal.wait_for("a first frame", 0, |text| text.contains("by CPU"));
    terminal.signal(Signal::SIGKILL);
    terminal.wait();
    terminal.wait_restored();
    wait_until(SOON, "the screen is left", || terminal.shown().ends_with("\x1b[?25h\x1b[?1049l"));

    // Ctrl-C, a number of rounds, and a runtime that went away and came back.
    let mut terminal = Terminal::of_size(&world.command(&["top", "-n", "1"]), 24, 100);
    assert!(terminal.wait().success());
    terminal.assert_restored();
    let mut terminal = Terminal::of_size(&world.command(&["-t", "1s", "top"]), 24, 300);
    let drawn = terminal.wait_for("a first frame", 0, |text| text.contains("by CPU"));
    world.containerd.kill9();
    let drawn = terminal.wait_for("what is wrong", drawn, |text| text.contains("nobody listens"));
    world.containerd.resume();
    terminal.wait_for("figures again", drawn, |text| text.contains("4 containers"));
    terminal.type_in("\u{3}");
    assert!(terminal.wait().success());
    terminal.assert_restored();
}

fn tree(world: &World, [load, spin, hold]: &[String; 3]) {
    let [web, job, main, side, job_main] = world.ids();
    let ids = [web, job, main, side, job_main, load, spin, hold];
    let image = "localhost/nodectl/busybox:1";
    assert_eq!(
        masked(&world.text(&["tree"]), &ids),
        format!(
            "batch/job | <1> | Ready | AGO\n\
             └─ main | <4> | Exited | AGO | {image}\n\
             default/load | <5> | Ready | AGO\n\
             ├─ spin | <6> | Running | AGO | {image}\n\
             └─ hold | <7> | Running | AGO | {image}\n\
             default/web | <0> | Ready | AGO\n\
             ├─ main | <2> | Running | AGO | {image}\n\
             └─ side | <3> | Running | AGO | {image}\n"
        )
    );
    let value = world.json(&["tree", "-o", "json", "uid-web"]);
    assert_eq!(value["containersWithoutPod"], json!([]));
    let pod = &value["pods"][0];
    assert_eq!(value["pods"].as_array().unwrap().len(), 1);
    assert_eq!((&pod["id"], &pod["state"]), (&json!(web), &json!("SANDBOX_READY")));
    assert_eq!(pod["metadata"]["uid"], "uid-web");
    let inside = pod["containers"].as_array().unwrap();
    assert_eq!([&inside[0]["id"], &inside[1]["id"]], [&json!(main), &json!(side)]);
    assert_eq!((&inside[0]["state"], &inside[0]["image"]), (&json!("CONTAINER_RUNNING"), &json!(image)));
    assert!(inside[0]["createdAt"].as_str().unwrap().parse::<i64>().unwrap() > 0);
    assert_eq!(world.text(&["tree", "--label", "app=load"]).lines().count(), 3);
    assert_eq!(world.text(&["tree", "--name", "nothing"]), "");
    world.run(&["tree", main]).failed(1, "not a pod");
}

fn runtimes(world: &World, release: Release) {
    let endpoint = format!("unix://{}", world.containerd.socket().display());
    let text = world.text(&["runtimes"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(cells(lines[0]), ["ENDPOINT", "RUNTIME", "VERSION", "API", "STATE"]);
    let row = cells(lines[1]);
    assert_eq!((row[0], row[1], row[3], row[4]), (endpoint.as_str(), "containerd", "v1", "Ready"));
    assert_eq!(row[2], world.json(&["version", "-o", "json"])["runtimeVersion"]);
    for known in ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("unix://{known}"))), "{text}");
    }
    let value = world.json(&["runtimes", "-o", "json"]);
    let one = &value["runtimes"][0];
    assert_eq!((&one["endpoint"], &one["answers"]), (&json!(endpoint), &json!(true)));
    assert_eq!(one["origin"], "the flag --runtime-endpoint");
    assert_eq!(one["status"]["conditions"][0]["type"], "RuntimeReady");
    let handlers = one["runtimeHandlers"].as_array().unwrap();
    let names: Vec<&str> = handlers.iter().map(|handler| handler["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"runc"), "{names:?}");
    if release == Release::Two {
        assert!(names.contains(&""), "the default one: {names:?}");
        let runc = handlers.iter().find(|handler| handler["name"] == "runc").unwrap();
        assert!(runc["features"]["recursiveReadOnlyMounts"].is_boolean(), "{runc}");
        assert!(text.contains("\n(default)   "), "{text}");
    } else {
        assert!(one.get("features").is_none(), "{one}");
    }

    world.containerd.freeze();
    let answer = world.run(&["-t", "300ms", "runtimes"]);
    world.containerd.thaw();
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.out.contains("no answer within 0.3 s"), "{}", answer.out);
}

fn all(name: &str, release: Release) {
    let (world, ids) = loaded(name, release);
    stats(&world, &ids);
    pod_stats(&world, &ids, release);
    watching(&world);
    tree(&world, &ids);
    runtimes(&world, release);
    top(&world, &ids);
}

#[test]
fn figures_on_containerd_1_6() {
    all("fig16", Release::Machine);
}

#[test]
fn figures_on_containerd_2() {
    all("fig2", Release::Two);
}

/// No containerd of today has metrics, and no old one lacks pods' figures.
#[test]
fn a_runtime_with_metrics_and_without_figures_of_pods() {
    let version = VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "fake".to_owned(),
        runtime_version: "7.0".to_owned(),
        runtime_api_version: "v1".to_owned(),
    };
    let metric = |name: &str, labels: &[&str], value| Metric {
        name: name.to_owned(),
        metric_type: MetricType::Gauge.into(),
        label_values: labels.iter().map(|&label| label.to_owned()).collect(),
        value: Some(UInt64Value { value }),
        ..Metric::default()
    };
    let metrics = ListPodSandboxMetricsResponse {
        pod_metrics: vec![PodSandboxMetrics {
            pod_sandbox_id: "0123456789abcdef".to_owned(),
            metrics: vec![metric("net_bytes", &["eth0"], u64::MAX)],
            container_metrics: vec![ContainerMetrics {
                container_id: "fedcba9876543210".to_owned(),
                metrics: vec![metric("memory", &[], 5)],
            }],
        }],
    };
    let descriptors = ListMetricDescriptorsResponse {
        descriptors: vec![MetricDescriptor {
            name: "net_bytes".to_owned(),
            help: "What went\u{1b}[31m over".to_owned(),
            label_keys: vec!["interface".to_owned()],
        }],
    };
    let runtime = FakeCri::start([
        ("Version", version.encode_to_vec()),
        ("ListPodSandbox", ListPodSandboxResponse::default().encode_to_vec()),
        ("ListPodSandboxMetrics", metrics.encode_to_vec()),
        ("ListMetricDescriptors", descriptors.encode_to_vec()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("emterminal.yaml");
    fs::write(&config, "").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = program(&config);
        Answer::of(command.arg("-r").arg(runtime.socket()).args(arguments).output().unwrap())
    };
    let text = |arguments: &[&str]| {
        let answer = run(arguments);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{arguments:?}");
        answer.out
    };
    let told: Value = serde_json::from_str(&text(&["metricsp"])).unwrap();
    assert_eq!(
        told["podMetrics"][0]["metrics"][0],
        json!({
            "name": "net_bytes",
            "timestamp": "0",
            "metricType": "GAUGE",
            "labelValues": ["eth0"],
            "value": {"value": "18446744073709551615"},
        })
    );
    assert_eq!(told["podMetrics"][0]["containerMetrics"][0]["containerId"], "fedcba9876543210");
    assert_eq!(
        text(&["metricsp", "-o", "table"]),
        "POD ID          CONTAINER       METRIC      VALUE                  LABELS\n\
         0123456789abc                   net_bytes   18446744073709551615   interface=eth0\n\
         0123456789abc   fedcba9876543   memory      5\n"
    );
    let told: Value = serde_json::from_str(&text(&["metricdescs"])).unwrap();
    assert_eq!(told["descriptors"][0]["labelKeys"], json!(["interface"]));
    let table = text(&["metricdescs", "-o", "table"]);
    assert!(table.contains("net_bytes   interface   What went [31m over"), "harmless: {table:?}");

    let refused = run(&["statsp"]);
    refused.failed(1, "fake 7.0 does not implement ListPodSandboxStats");
    assert!(
        refused.err.ends_with("hint: `nodectl cri stats` shows what the containers use\n"),
        "{}",
        refused.err
    );
    run(&["top"]).failed(1, "fake 7.0 does not implement");
    let runtimes = text(&["runtimes"]);
    assert!(runtimes.contains("fake      7.0       v1    "), "{runtimes}");
}

#[test]
fn runtimes_of_the_past_are_told_without_any_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("emterminal.yaml");
    fs::write(&config, "").unwrap();
    let run = |arguments: &[&str]| Answer::of(program(&config).args(arguments).output().unwrap());
    let names = [
        "dockershim",
        "rkt",
        "Rktlet",
        "Frakti",
        "runV",
        "PouchContainer",
        "Virtlet",
        "Infranetes",
        "Clear Containers",
    ];
    let all = run(&["runtimes", "--past"]);
    assert_eq!((all.code, all.err.as_str()), (Some(0), ""));
    for name in names {
        let one = run(&["runtimes", name]);
        assert_eq!((one.code, one.err.as_str()), (Some(0), ""), "{name}");
        assert!(one.out.starts_with(&format!("{name}\n  was:     ")), "{}", one.out);
        assert!(one.out.contains("\n  now use: ") && all.out.contains(&one.out), "{}", one.out);
    }
    let shim: Value = serde_json::from_str(&run(&["runtimes", "dockershim", "-o", "json"]).out).unwrap();
    assert!(shim["became"].as_str().unwrap().contains("1.24"), "{shim}");
    assert!(shim["nowUse"].as_str().unwrap().contains("cri-dockerd"), "{shim}");
    let list: Value = serde_json::from_str(&run(&["runtimes", "--past", "-o", "json"]).out).unwrap();
    assert!(list["past"].as_array().unwrap().len() >= names.len());
    run(&["runtimes", "containerd"]).failed(2, "is no runtime of the past");
    run(&["runtimes", "rkt", "--past"]).failed_usage();
    // A socket that is dead is a row, and no error.
    let dead = run(&["-r", "/nonexistent/x.sock", "runtimes"]);
    assert_eq!(dead.code, Some(0), "{}", dead.err);
    assert!(dead.out.contains("the socket /nonexistent/x.sock does not exist"), "{}", dead.out);
}
