//! `docs/configuration.md` lists what acts: the same as the tables. `make bless` writes it.

use std::{fs, sync::Mutex};

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

/// Compares the lines of the page between two markers with what they should be, or writes them.
fn check_section(name: &str, expected: &str) {
    static PAGE_LOCK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = PAGE_LOCK.lock();
    let page = fs::read_to_string(PAGE).unwrap();
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&start).unwrap();
    let (body, after) = rest.split_once(&end).unwrap();
    if std::env::var_os("NODECTL_BLESS").is_some() {
        fs::write(PAGE, format!("{before}{start}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(body, expected, "docs/configuration.md is not that of the tables: run 'make bless'");
}

fn kind_name(kind: KeyKind) -> String {
    match kind {
        KeyKind::Bool => "boolean".to_owned(),
        KeyKind::Int32 | KeyKind::Int64 | KeyKind::Uint32 => "integer".to_owned(),
        KeyKind::Enum(names) => names
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(" or "),
        KeyKind::Duration => "duration".to_owned(),
        KeyKind::Ip => "IP address".to_owned(),
        KeyKind::BoolMap => "booleans by name".to_owned(),
        KeyKind::StrList => "list".to_owned(),
        KeyKind::MultiMap => "lists by name".to_owned(),
        _ => "string".to_owned(),
    }
}

#[test]
fn the_page_lists_the_keys_that_act() {
    let defaults = serde_json::to_value(defaulted()).unwrap();
    let table: String = keys()
        .iter()
        .filter(|spec| spec.support == Support::Acts)
        .map(|spec| {
            let default = defaults.pointer(&format!("/{}", spec.path.replace('.', "/")));
            let default = match default {
                Some(serde_json::Value::String(text)) => format!("`{text}`"),
                Some(value) => format!("`{value}`"),
                None => String::new(),
            };
            format!("| `{}` | {} | {default} |\n", spec.path, kind_name(spec.kind))
        })
        .collect();
    check_section("acting keys", &format!("| key | value | default |\n|---|---|---|\n{table}"));
}

#[test]
fn the_page_lists_the_flags_that_act() {
    let rows = |own: bool| -> String {
        flags()
            .iter()
            .filter(|spec| spec.support() == Support::Acts && spec.is_own() == own)
            .map(|spec| {
                let dashes = if spec.name.len() == 1 { "-" } else { "--" };
                let key = match spec.target {
                    Target::Key(path) => format!("`{path}`"),
                    _ => String::new(),
                };
                format!("| `{dashes}{}` | {key} | {} |\n", spec.name, spec.help)
            })
            .collect()
    };
    let head = "| flag | key | what it sets |\n|---|---|---|\n";
    check_section("acting flags", &format!("{head}{}", rows(false)));
    check_section("own flags", &format!("{head}{}", rows(true)));
}
