//! Completion: the scripts of `nodectl completions`, and what they call at each press of Tab.
//!
//! The scripts know nothing of the command line. They hand the words to `nodectl __complete SHELL …`, which
//! answers from the very definitions that it parses with, and for containers, pods and images from the runtime.
//! So there is one place of truth for five shells, and no script to be written anew with each flag.
//!
//! The answer is a line `words` or `files` (the shell is to complete names of files), then a candidate a line,
//! with a tab and an explanation after it if there is one. It is never an error: that would land in the prompt.

use std::{ffi::OsString, io::Write, sync::Arc};

use clap_complete::{
    Shell,
    engine::{CompletionCandidate, complete},
};

use super::{cri, output::printable, root};

/// The first argument of a call by a script. No user types it.
pub const VERB: &str = "__complete";

/// The candidate that stands for names of files.
pub(super) const FILES: &str = "\u{1}files";

/// The script for a shell.
pub fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Zsh => include_str!("../../completions/_nodectl"),
        Shell::Fish => include_str!("../../completions/nodectl.fish"),
        Shell::PowerShell => include_str!("../../completions/_nodectl.ps1"),
        Shell::Elvish => include_str!("../../completions/nodectl.elv"),
        // clap may come to know shells that this does not.
        _ => include_str!("../../completions/nodectl.bash"),
    }
}

/// What is to be completed.
struct Question {
    /// The words before, the program first.
    before: Vec<OsString>,
    current: String,
    /// Bytes of the current word that the shell does not replace.
    kept: usize,
}

impl Question {
    /// Reads the arguments after `SHELL`. Bash gives the line up to the cursor, and what it would replace: its
    /// own words end at colons, as the words of no other shell do. The others give `=CURRENT` and the words.
    fn read(shell: &str, args: &[OsString]) -> Option<Self> {
        if shell == "bash" {
            let [line, replaced] = args else { return None };
            let mut words = shell_words(line.to_str()?);
            let current = words.pop()?;
            let kept = if current.ends_with(replaced.to_str()?) { current.len() - replaced.len() } else { 0 };
            return Some(Self { before: words.into_iter().map(OsString::from).collect(), current, kept });
        }
        let (current, before) = args.split_first()?;
        let current = current.to_str()?.strip_prefix('=')?.to_owned();
        Some(Self { before: before.to_vec(), current, kept: 0 })
    }
}

/// Answers a script. `args` are those after [`VERB`].
pub fn run(args: &[OsString], out: &mut dyn Write) {
    let Some((shell, args)) = args.split_first() else { return };
    let Some(question) = shell.to_str().and_then(|shell| Question::read(shell, args)) else { return };
    // Whoever asked has gone: there is nobody to tell.
    out.write_all(answer(question).as_bytes()).and_then(|()| out.flush()).ok();
}

fn answer(question: Question) -> String {
    let Question { before, current, kept } = question;
    let mut words = before.clone();
    words.push(current.clone().into());
    let index = before.len();
    let before: Arc<[OsString]> = before.into();
    let mut command =
        root::offered_command().mut_subcommand("cri", |cri| cri::attach_candidates(cri, &before));
    let found = complete(&mut command, words, index, None).unwrap_or_default();
    let is_files = |found: &CompletionCandidate| found.get_value().to_string_lossy().ends_with(FILES);
    if found.iter().any(is_files) {
        return "files\n".to_owned();
    }
    let found: Vec<(String, String)> = found
        .iter()
        .filter_map(|found| {
            let help = found.get_help().map(ToString::to_string).unwrap_or_default();
            Some((found.get_value().to_str()?.to_owned(), help.lines().next().unwrap_or_default().to_owned()))
        })
        .collect();
    // Flags come when one is begun, or when there is nothing else.
    let flags = current.starts_with('-') || found.iter().all(|(value, _)| value.starts_with('-'));
    let lines = found.iter().filter(|(value, _)| flags || !value.starts_with('-')).map(|(value, help)| {
        let value = value.get(kept..).unwrap_or(value);
        let help = if help.is_empty() { String::new() } else { format!("\t{}", printable(help)) };
        format!("{}{help}\n", printable(value))
    });
    format!("words\n{}", lines.collect::<String>())
}

/// The words of the last command in a line, as a shell would read them; what is not closed ends with the line.
/// The last one is empty if the line ends between words.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, ';' | '|' | '&') => {
                words.clear();
                word = None;
            }
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if letter == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.push(word.unwrap_or_default());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut out = Vec::new();
        run(&args, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn words(args: &[&str]) -> Vec<String> {
        let text = asked(args);
        let lines = text.strip_prefix("words\n").unwrap_or_else(|| panic!("{args:?}: {text}")).lines();
        lines.map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_read_as_a_shell_reads_them() {
        for (line, expected) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a ", &["a", ""]),
            ("a  b\tc", &["a", "b", "c"]),
            ("a 'b c' \"d e\"f", &["a", "b c", "d ef"]),
            ("a 'b c", &["a", "b c"]),
            ("a \"b\\\"c\" d\\ e", &["a", "b\"c", "d e"]),
            ("a '\\' ''", &["a", "\\", ""]),
            ("x | y; z a b", &["z", "a", "b"]),
            ("x 'a;b'", &["x", "a;b"]),
            ("a b\\", &["a", "b"]),
        ] {
            assert_eq!(shell_words(line), expected, "{line:?}");
        }
    }

    #[test]
    fn verbs_flags_and_values_come_from_the_command_line() {
        let verbs = words(&["zsh", "=", "nodectl"]);
        for verb in ["run", "pods", "explain", "cri", "config", "completions"] {
            assert!(verbs.contains(&verb.to_owned()), "no {verb} in {verbs:?}");
        }
        assert!(!verbs.iter().any(|word| word.starts_with('-') || word == VERB), "{verbs:?}");
        assert_eq!(words(&["fish", "=inspect", "nodectl", "cri"]), ["inspect", "inspectp", "inspecti"]);
        assert_eq!(words(&["bash", "nodectl cri inspectp", "inspectp"]), ["inspectp"]);
        assert_eq!(words(&["zsh", "=--no-t", "nodectl", "cri", "ps"]), ["--no-trunc"]);
        assert_eq!(words(&["zsh", "=j", "nodectl", "cri", "ps", "-o"]), ["json"]);
        assert_eq!(words(&["bash", "nodectl cri ps --output=j", "j"]), ["json"]);
        assert_eq!(words(&["elvish", "=R", "nodectl", "cri", "ps", "--state"]), Vec::<String>::new());
        assert_eq!(words(&["elvish", "=r", "nodectl", "cri", "ps", "--state"]), ["running"]);
        assert_eq!(words(&["fish", "=image-", "nodectl", "cri", "config", "--get"]), ["image-endpoint"]);
        assert_eq!(words(&["fish", "=docker", "nodectl", "cri", "runtimes"]), ["dockershim"]);
        let help = asked(&["fish", "=inspectp", "nodectl", "cri"]);
        assert_eq!(help, "words\ninspectp\tShow all about pods\n");
        // Flags that do nothing are not offered.
        assert!(words(&["zsh", "=--network-plugin", "nodectl", "run"]).is_empty());
    }

    #[test]
    fn names_of_files_are_the_shells() {
        for question in [
            &["bash", "nodectl cri --config /e", "/e"][..],
            &["bash", "nodectl cri --config=/e", "/e"],
            &["zsh", "=", "nodectl", "cri", "-c"],
            &["fish", "=/run/x", "nodectl", "cri", "-r"],
        ] {
            assert_eq!(asked(question), "files\n", "{question:?}");
        }
    }

    #[test]
    fn a_runtime_that_is_dead_and_a_question_that_is_none_are_silent() {
        let dead = ["zsh", "=", "nodectl", "cri", "-r", "/nonexistent/x.sock", "inspecti"];
        assert!(words(&dead).iter().all(|word| word.starts_with('-')));
        assert!(words(&["zsh", "=x", "nodectl", "cri", "-r", "tcp://x", "inspecti"]).is_empty());
        for none in [&[][..], &["bash"], &["bash", "x"], &["zsh"], &["zsh", "x"], &["nosuch", "x"]] {
            assert_eq!(asked(none), "", "{none:?}");
        }
        // Text that is no known command.
        assert_eq!(asked(&["bash", "", ""]), "words\n");
    }

    #[test]
    fn scripts_call_the_program_by_its_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let script = script(shell);
            assert!(script.contains(&format!("nodectl {VERB} {shell} ")), "{shell}");
        }
    }
}
