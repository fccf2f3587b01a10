//! Completion in the shells themselves, on containerd: what bash's function answers, and Tab pressed in bash, zsh
//! and fish on a terminal. A runtime that is dead or hangs is silent, and what a runtime tells never becomes
//! code on a command line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nodectl::cri::Cri as _;
use support::{
    IMAGE, Release,
    cri_cli::{Answer, BINARY, World, client, container_config, on_runtime, sandbox_config},
    terminal::Terminal,
};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name)
}

/// A folder to be first on the path, with the program in it.
fn bin(world: &World) -> PathBuf {
    let folder = world.folder.path().join("bin");
    if !folder.exists() {
        fs::create_dir(&folder).unwrap();
        symlink(BINARY, folder.join("nodectl")).unwrap();
    }
    folder
}

/// A shell that finds the program, and the program this containerd.
fn shell(world: &World, name: &str) -> Command {
    let mut command = Command::new(name);
    let path = format!("{}:{}", bin(world).display(), std::env::var("PATH").unwrap());
    command
        .env("PATH", path)
        .env("HOME", world.folder.path())
        .env("CONTAINER_RUNTIME_ENDPOINT", world.containerd.socket())
        .env("CRI_CONFIG_FILE", world.config())
        .env_remove("IMAGE_SERVICE_ENDPOINT")
        .stdin(Stdio::null());
    command
}

/// [`in_bash_once`] where the runtime answers. Whoever completes waits for it less than a second, which a busy
/// machine may need: it is asked again while there is nothing of the runtime's.
#[track_caller]
fn in_bash(world: &World, line: &str, word: &str) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..20 {
        words = in_bash_once(world, line, word);
        if words.iter().any(|word| !word.starts_with('-')) {
            break;
        }
    }
    words
}

/// What bash's function leaves in COMPREPLY for a line, of whose last word readline would replace `word`.
#[track_caller]
fn in_bash_once(world: &World, line: &str, word: &str) -> Vec<String> {
    let text = "source \"$1\"; COMP_LINE=$2; COMP_POINT=${#2}; COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); \
                _nodectl nodectl \"$3\" ''; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = shell(world, "bash");
    command.args(["--norc", "-c", text, "bash"]).arg(script("nodectl.bash")).args([line, word]);
    let answer = Answer::of(command.output().unwrap());
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{line}");
    let mut words: Vec<String> =
        answer.out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    words.sort();
    words
}

fn sorted(mut words: Vec<&str>) -> Vec<&str> {
    words.sort_unstable();
    words
}

fn bash_function(world: &World) {
    let [web, job, main, side, job_main] = world.ids();
    let mut loaded = shell(world, "bash");
    loaded.args(["--norc", "-c", "source \"$1\"; complete -p nodectl", "bash"]).arg(script("nodectl.bash"));
    assert_eq!(Answer::of(loaded.output().unwrap()).out, "complete -F _nodectl nodectl\n");

    assert_eq!(in_bash(world, "nodectl cri inspecti", "inspecti"), ["inspecti"]);
    let all = in_bash(world, "nodectl cri inspect ", "");
    let names = ["batch/job/main", "default/web/main", "default/web/side"];
    let ids = [&main[..13], &side[..13], &job_main[..13]];
    assert_eq!(all, sorted([ids, names].concat()));
    // Beginnings of ids, and the rest of one that is longer than what tables show.
    assert_eq!(in_bash(world, &format!("nodectl cri inspect {}", &side[..12]), &side[..12]), [&side[..13]]);
    assert_eq!(in_bash(world, &format!("nodectl cri inspect {}", &side[..20]), &side[..20]), [side]);
    // Only what uses something can be measured.
    assert_eq!(in_bash(world, "nodectl cri stats batch/", "batch/"), Vec::<String>::new());
    let pods = in_bash(world, "nodectl cri inspectp ", "");
    assert_eq!(pods, sorted(vec![&web[..13], &job[..13], "batch/job", "default/web"]));
    assert_eq!(in_bash(world, "nodectl cri inspectp uid-w", "uid-w"), ["uid-web"]);
    assert_eq!(in_bash(world, "nodectl cri ps --pod def", "def"), ["default/web"]);
    assert_eq!(in_bash(world, "nodectl cri ps --pod=def", "def"), ["default/web"]);
    // Bash ends words at colons: only what is behind one is replaced.
    assert_eq!(in_bash(world, &format!("nodectl cri inspecti {IMAGE}"), "1"), ["1"]);
    assert!(
        in_bash(world, "nodectl cri inspecti localhost/nodectl/b", "localhost/nodectl/b")
            .contains(&IMAGE.to_owned())
    );
    // The endpoint on the line is the one that is asked, also where it is quoted.
    let other = "nodectl cri -r '/nonexistent/x.sock' inspectp ";
    assert!(in_bash(world, other, "").iter().all(|word| word.starts_with('-')));
    // The second of two commands, and a word that no verb is.
    assert_eq!(in_bash(world, "true; nodectl cri inspectp uid-w", "uid-w"), ["uid-web"]);
    assert!(in_bash(world, "nodectl cri nosuch zzz", "zzz").is_empty());
}

/// Presses Tab after each of some beginnings, and runs what has come of the line.
fn on_a_terminal(world: &World, name: &str, arguments: &[&str], load: &str) {
    let mut command = shell(world, name);
    command.args(arguments).env("PS1", "ready> ").env("TZ", "UTC");
    let mut terminal = Terminal::of_size(&command, 40, 200);
    let mut at = terminal.wait_for("a prompt", 0, |text| text.contains("ready> "));
    terminal.type_in(&format!("{load}\r"));
    at = terminal.wait_for("a second prompt", at, |text| text.contains("ready> "));
    let [web, _, main, ..] = world.ids();
    for (typed, rest, expected) in [
        ("nodectl cri inspectp default/w", "-o '{{.status.id}}'", web.to_owned()),
        (&format!("nodectl cri inspect {}", &main[..11]), "-o '{{.status.id}}'", main.to_owned()),
        (
            "nodectl cri inspecti localhost/nodectl/pau",
            "-o '[{{index .status.repoTags 0}}]'",
            "[localhost/nodectl/pause:1]".to_owned(),
        ),
        (
            "nodectl cri inspecti localhost/nodectl/pause:",
            "-o '[{{len .status.repoTags}}]'",
            "[1]".to_owned(),
        ),
        ("nodectl cri ps --no-tr", "-q --name '^main$'", main.to_owned()),
        (
            &format!("nodectl cri --config {}/emp", world.folder.path().display()),
            "pods -q --name web",
            web.to_owned(),
        ),
    ] {
        terminal.type_in(&format!("{typed}\t"));
        // The shells themselves leave a space behind a word that is whole.
        terminal.type_in(&format!(" {rest}\r"));
        at = terminal.wait_for(&format!("{expected} for {typed:?} in {name}"), at, |text| {
            text.split_once(&expected).is_some_and(|(_, after)| after.contains("ready> "))
        });
    }
    terminal.type_in("exit\r");
    assert!(terminal.wait().success());
}

#[test]
fn bash_zsh_and_fish_complete_what_is_there() {
    let world = World::new("completions", Release::Machine);
    bash_function(&world);
    let source = |name: &str| format!("source {}", script(name).display());
    on_a_terminal(&world, "bash", &["--norc", "--noprofile", "-i"], &source("nodectl.bash"));
    let zsh = format!("autoload -U compinit; compinit -u -D; {}", source("_nodectl"));
    on_a_terminal(&world, "zsh", &["-f", "-i"], &zsh);
    let prompt = "function fish_prompt; echo -n 'ready> '; end";
    on_a_terminal(&world, "fish", &["--no-config", "--private", "-C", prompt], &source("nodectl.fish"));
    hostile_names(&world);
    dead(&world);
}

/// A pod whose name would run a command if a shell got it.
fn hostile_names(world: &World) {
    on_runtime(async {
        let cri = client(&world.containerd);
        let mut config = sandbox_config(&world.containerd, "default", "plain");
        config.metadata.as_mut().unwrap().name = "$(touch${IFS}owned)".to_owned();
        let sandbox = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
        let mut container = container_config("x", &["true"]);
        container.metadata.as_mut().unwrap().name = "a;b\nc".to_owned();
        cri.create_container(&sandbox, container, config).await.unwrap();
    });
    for line in ["nodectl cri inspectp default/", "nodectl cri inspect default/", "nodectl cri inspect "] {
        let word = line.rsplit(' ').next().unwrap();
        let words = in_bash(world, line, word);
        assert!(words.iter().all(|word| !word.contains(['$', ';', '{'])), "{words:?}");
        assert!(words.iter().any(|word| word.starts_with("default/web")), "{words:?}");
    }
}

/// A runtime that hangs, and one that is gone: no candidates, and no word on the terminal.
fn dead(world: &World) {
    world.containerd.freeze();
    let hangs = in_bash_once(world, "nodectl cri inspect default/w", "default/w");
    world.containerd.thaw();
    assert!(hangs.is_empty(), "{hangs:?}");
    world.containerd.kill9();
    assert!(in_bash(world, "nodectl cri inspect default/w", "default/w").is_empty());
    let mut direct = shell(world, BINARY);
    direct.args(["__complete", "zsh", "=default/w", "nodectl", "cri", "inspect"]);
    let answer = Answer::of(direct.output().unwrap());
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (Some(0), "words\n", ""));
    world.containerd.resume();
}
