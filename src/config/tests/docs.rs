//! `docs/configuration.md` lists what acts: the same as the tables.

use super::*;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The lines of the page between two markers.
fn section(name: &str) -> String {
    let start = format!("<!-- {name} -->\n");
    let end = format!("<!-- end of {name} -->");
    let body = PAGE.split_once(&start).unwrap().1;
    body.split_once(&end).unwrap().0.to_owned()
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
        KeyKind::MultiMap => "lists by name".to_owned(),
        KeyKind::StrList => "list of strings".to_owned(),
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
    assert_eq!(section("acting keys"), format!("| key | value | default |\n|---|---|---|\n{table}"));
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
    assert_eq!(section("acting flags"), format!("{head}{}", rows(false)));
    assert_eq!(section("own flags"), format!("{head}{}", rows(true)));
}
