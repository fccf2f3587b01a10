//! Who may import whom.
//!
//! The layers of the crate are a promise that the compiler does not keep. This test reads every path
//! in `src/` that leads to another top module (`crate::x`, `super::…::x`, in `use` lines and in
//! expressions alike, outside tests) and compares it with the rule below. It also keeps `policy` pure
//! and sees that every file says what it is for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What each top module may import. All may import themselves.
///
/// `error` is the boundary type with the exit code, and a leaf: it imports nothing, and everything
/// above the vocabulary may use it. `telemetry` is a leaf too: the command line sets the log up, and
/// the agent tells whether it is healthy.
const RULE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "agent",
            "server",
            "crictl",
            "switch",
            "doctor",
            "logs",
            "policy",
            "cri",
            "host",
            "kube",
            "store",
            "config",
            "api",
            "error",
            "telemetry",
            "files",
        ],
    ),
    // The agent is where the parts are wired, so it starts the servers; no other sibling is imported.
    (
        "agent",
        &[
            "server",
            "policy",
            "cri",
            "host",
            "kube",
            "store",
            "config",
            "api",
            "error",
            "telemetry",
            "rate",
            "files",
        ],
    ),
    (
        "server",
        &[
            "logs",
            "policy",
            "cri",
            "host",
            "kube",
            "store",
            "config",
            "api",
            "error",
            "telemetry",
            "files",
            "tls",
        ],
    ),
    // Reading containers' logs, for the inspector and for the node's API.
    ("logs", &["policy", "cri", "host", "api", "error"]),
    ("crictl", &["policy", "cri", "host", "kube", "store", "config", "api", "error"]),
    ("switch", &["policy", "cri", "host", "kube", "store", "config", "api", "error"]),
    ("doctor", &["policy", "cri", "host", "kube", "store", "config", "api", "error"]),
    ("policy", &["config", "api"]),
    // What these three do is counted.
    ("cri", &["config", "api", "error", "tls", "telemetry"]),
    ("host", &["config", "api", "error", "telemetry"]),
    ("kube", &["config", "api", "error", "tls", "rate", "files", "telemetry"]),
    ("store", &["config", "api", "error", "files"]),
    ("config", &["api"]),
    ("api", &[]),
    ("error", &[]),
    ("telemetry", &["config"]),
    // What the two TLS clients share; a leaf, as edges do not import one another.
    ("tls", &[]),
    // A measure of time, for what asks others.
    ("rate", &[]),
    // Reading within bounds and replacing as a whole, for edges that do not import one another.
    ("files", &[]),
];

/// What `policy` must not touch: each is a file, a socket, a clock or a global.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["tonic"],
    &["std", "fs"],
    // Addresses are data.
    &["TcpStream"],
    &["TcpListener"],
    &["UdpSocket"],
    &["ToSocketAddrs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["nix"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["SystemTime"],
    &["Instant"],
    &["static"],
    &["thread_local"],
];

/// A word or a sign of the source, with its line.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// One file that is not a test's.
struct Source {
    path: PathBuf,
    /// The modules from the crate's root down to this file: `["agent", "pods", "worker"]`.
    module: Vec<String>,
    tokens: Vec<Token>,
    text: String,
}

impl Source {
    fn top(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Splits Rust source into words and signs, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        match c {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (peek(at), peek(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => at = string_end(&chars, at + 1),
            // A character, and not a lifetime.
            '\'' if peek(at + 1) == '\\' || peek(at + 2) == '\'' => {
                at += if peek(at + 1) == '\\' { 3 } else { 2 };
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            'r' | 'b' if raw_string(&chars, at).is_some() => at = raw_string(&chars, at).unwrap(),
            c if c.is_alphanumeric() || c == '_' => {
                while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                    at += 1;
                }
                tokens.push(Token { text: chars[start..at].iter().collect(), line });
            }
            ':' if peek(at + 1) == ':' => {
                at += 2;
                tokens.push(Token { text: "::".to_owned(), line });
            }
            c => {
                at += 1;
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.to_string(), line });
                }
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Behind the closing quote of a string whose text starts at `at`.
fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Behind the end of `r"…"`, `r#"…"#`, `b"…"` or `br"…"` that starts at `at`, if one does.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let bytes = usize::from(chars[at] == 'b');
    if bytes == 1 && chars.get(at + 1) == Some(&'"') {
        return Some(string_end(chars, at + 2));
    }
    if chars.get(at + bytes) != Some(&'r') {
        return None;
    }
    let mut quote = at + bytes + 1;
    while chars.get(quote) == Some(&'#') {
        quote += 1;
    }
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let hashes = quote - (at + bytes + 1);
    let closes = |end: &usize| {
        chars[*end] == '"' && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (quote + 1..chars.len()).find(closes).map(|end| end + 1 + hashes)
}

/// Takes what is marked `#[cfg(test)]` out of `tokens`, and answers the names of the modules in files
/// of their own that this took out.
fn cut_tests(tokens: &mut Vec<Token>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut files = Vec::new();
    while let Some(start) =
        tokens.windows(MARK.len()).position(|window| window.iter().map(|t| t.text.as_str()).eq(MARK))
    {
        let mut at = start + MARK.len();
        let mut depth = 0_usize;
        let mut name = None;
        while at < tokens.len() {
            match tokens[at].text.as_str() {
                "mod" if depth == 0 => name = tokens.get(at + 1).map(|t| t.text.clone()),
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                ";" if depth == 0 => {
                    files.extend(name.take());
                    break;
                }
                _ => {}
            }
            // The item ends with its body; an attribute before it ends with a bracket.
            if depth == 0 && tokens[at].text == "}" {
                break;
            }
            at += 1;
        }
        tokens.drain(start..=at.min(tokens.len() - 1));
    }
    files
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file below `src/`, with a path from the package's root.
fn all_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    files
        .into_iter()
        .map(|file| (file.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&file).unwrap()))
        .collect()
}

/// The files that are no tests, their own tests cut out.
fn sources() -> Vec<Source> {
    let mut test_modules: BTreeSet<Vec<String>> = BTreeSet::new();
    let mut sources = Vec::new();
    for (path, text) in all_files() {
        let mut module: Vec<String> = path
            .with_extension("")
            .components()
            .skip(1)
            .map(|part| part.as_os_str().to_str().unwrap().to_owned())
            .collect();
        if module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
            module.pop();
        }
        let mut tokens = tokens(&text);
        for name in cut_tests(&mut tokens) {
            test_modules.insert(module.iter().cloned().chain([name]).collect());
        }
        sources.push(Source { path, module, tokens, text });
    }
    sources.retain(|source| {
        let in_tests = (1..=source.module.len()).any(|n| test_modules.contains(&source.module[..n]));
        // `#[path = "x_tests.rs"] mod tests;`
        let beside = source.module.last().is_some_and(|name| name.ends_with("_tests"));
        !in_tests && !beside
    });
    assert!(sources.len() > 50, "found only {} sources", sources.len());
    sources
}

/// The first words that a `use` tree or path gives after `::`, which stands at `at`.
fn heads(tokens: &[Token], at: usize) -> Vec<(String, usize)> {
    let Some(first) = tokens.get(at) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.text.clone(), first.line)];
    }
    let mut found = Vec::new();
    let (mut depth, mut fresh) = (0_usize, true);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => fresh = true,
            word if fresh && depth == 1 => {
                found.push((word.to_owned(), token.line));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// The top modules that a file names, with the line of each.
fn imports(source: &Source) -> Vec<(String, usize)> {
    let tokens = &source.tokens;
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let starts_path = at == 0 || !is(at - 1, "::");
        if !starts_path || !is(at + 1, "::") {
            continue;
        }
        match tokens[at].text.as_str() {
            "crate" => found.extend(heads(tokens, at + 2)),
            "nodectl" if source.top() == "main" => found.extend(heads(tokens, at + 2)),
            "super" => {
                let (mut up, mut next) = (1, at + 2);
                while is(next, "super") && is(next + 1, "::") {
                    (up, next) = (up + 1, next + 2);
                }
                // From the root itself the next word is a top module.
                if up >= source.module.len() {
                    found.extend(heads(tokens, next));
                }
            }
            _ => {}
        }
    }
    found
}

/// The files with paths that break the rule, one line for each.
fn violations(sources: &[Source]) -> String {
    let mut report = String::new();
    for source in sources.iter().filter(|source| source.top() != "lib") {
        let top = source.top();
        let Some((_, allowed)) = RULE.iter().find(|(name, _)| *name == top) else {
            writeln!(report, "{}: the module {top} is not in the rule", source.at(1)).unwrap();
            continue;
        };
        for (target, line) in imports(source) {
            let known = RULE.iter().any(|(name, _)| *name == target);
            if target != top && known && !allowed.contains(&target.as_str()) {
                let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
                writeln!(report, "{}: {top} imports {target}; {top} may import {allowed}", source.at(line))
                    .unwrap();
            }
        }
    }
    report
}

#[test]
fn modules_import_only_what_is_below_them() {
    let report = violations(&sources());
    assert!(report.is_empty(), "the dependency rule is broken:\n{report}");
}

#[test]
fn policy_knows_no_file_socket_clock_or_global() {
    let mut report = String::new();
    for source in sources().iter().filter(|source| source.top() == "policy") {
        for banned in IMPURE {
            // `a::b`, and `b` within the braces of `a::{…}`.
            for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.text == banned[0]) {
                let hit = match banned {
                    // `'static` is a lifetime and no item.
                    ["static"] => at == 0 || source.tokens[at - 1].text != "'",
                    [_] => true,
                    [_, second, ..] => {
                        source.tokens.get(at + 1).is_some_and(|token| token.text == "::")
                            && heads(&source.tokens, at + 2).iter().any(|(head, _)| head == second)
                    }
                    [] => false,
                };
                if hit {
                    let name = banned.join("::");
                    writeln!(report, "{}: policy is pure and may not use {name}", source.at(token.line))
                        .unwrap();
                }
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = all_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no `//!` header: {silent:?}");
}

#[test]
fn every_top_module_is_in_the_rule() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.top() == "lib").expect("src/lib.rs");
    for window in lib.tokens.windows(2).filter(|window| window[0].text == "mod") {
        let name = window[1].text.as_str();
        assert!(RULE.iter().any(|(known, _)| *known == name), "src/lib.rs: {name} is not in the rule");
    }
    assert!(lib.text.contains("pub mod"), "src/lib.rs declares no modules");
}

/// The test tests itself: each way to write a forbidden import is found, and nothing else is.
#[test]
fn forbidden_imports_are_found_however_they_are_written() {
    let check = |module: &[&str], text: &str| {
        let mut tokens = tokens(text);
        cut_tests(&mut tokens);
        let module = module.iter().map(|part| (*part).to_owned()).collect();
        violations(&[Source { path: "src/x.rs".into(), module, tokens, text: text.to_owned() }])
    };
    for (module, text, line) in [
        (&["policy", "a"][..], "use crate::cri;", 1),
        (&["policy", "a"], "use crate::{\n    api::x,\n    cri::{self, y},\n};", 3),
        (&["policy", "a"], "fn f() {\n    crate::agent::g();\n}", 2),
        (&["policy", "a"], "use super::super::host::x;", 1),
        (&["cri", "b"], "use crate::{store, api};", 1),
        (&["host"], "use super::kube;", 1),
        (&["api", "b"], "use crate::config::X;", 1),
        (&["policy"], "#[cfg(test)]\nmod tests { use crate::cri; }\nuse crate::cri;", 3),
        (&["main"], "fn main() { nodectl::agent::run() }", 1),
        (&["server", "x"], "const A: char = '\"'; use crate::agent;", 1),
    ] {
        let report = check(module, text);
        assert!(report.starts_with(&format!("src/x.rs:{line}: ")), "{text}: {report:?}");
        assert_eq!(report.lines().count(), 1, "{text}: {report}");
    }
    for (module, text) in [
        (&["policy", "a"][..], "use crate::{api::{cri, store}, config};"),
        (&["policy", "a"], "use super::cri;"),
        (&["policy", "a"], "// crate::cri\n/* crate::cri */ const A: &str = \"crate::cri\";"),
        (&["policy", "a"], "const A: &str = r#\"\" crate::cri\"#;"),
        (&["policy", "a"], "#[cfg(test)]\nmod tests { use crate::cri; }"),
        (&["policy", "a"], "#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;"),
        (&["agent", "a"], "use crate::{cri, host, policy, server, store};"),
        (&["main"], "fn main() { nodectl::cli::run() }"),
    ] {
        assert_eq!(check(module, text), "", "{text}");
    }
}
