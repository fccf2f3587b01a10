//! What containerd makes of its configuration.

use std::{path::Path, time::Duration};

use toml_edit::{DocumentMut, Item, Key, Value};

use super::{Node, Report, program};

const DUMP: Duration = Duration::from_secs(30);

impl<R: Report> Node<R> {
    /// Has containerd read its files, and compares.
    pub(super) async fn check_containerd_config(
        &self,
        config: &Path,
        expected: &[(String, String)],
    ) -> Result<(), String> {
        let containerd = match &self.paths.containerd {
            Some(program) => program.clone(),
            None => program::find("containerd")?,
        };
        let mut command = program::command(&containerd, &["--config"]);
        command.arg(config).args(["config", "dump"]);
        let what = format!("containerd --config {} config dump", config.display());
        let dump = program::run(command, &what, None, DUMP).await?.succeeded(&what)?;
        check_dump(&dump, expected).map_err(|problem| format!("{}: {problem}", config.display()))
    }
}

/// Whether a dump has these values at these keys.
pub(super) fn check_dump(dump: &str, expected: &[(String, String)]) -> Result<(), String> {
    let document: DocumentMut =
        dump.parse().map_err(|error| format!("what containerd makes of it is no TOML: {error}"))?;
    let mut wrong = Vec::new();
    for (path, wanted) in expected {
        let keys = Key::parse(path).map_err(|error| format!("{path} is no key: {error}"))?;
        let wanted: Value = wanted
            .parse()
            .map_err(|error| format!("{wanted}, which {path} is to be, is no value: {error}"))?;
        let mut item = Some(document.as_item());
        for key in &keys {
            item = item.and_then(|item| item.get(key.get()));
        }
        match item.and_then(Item::as_value) {
            Some(found) if same(found, &wanted) => {}
            Some(found) => wrong.push(format!("{path} is {} and not {}", plain(found), plain(&wanted))),
            None => wrong.push(format!("{path} is not there, and should be {}", plain(&wanted))),
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("containerd reads it otherwise: {}", wrong.join("; ")))
    }
}

fn plain(value: &Value) -> String {
    value.to_string().trim().to_owned()
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.value() == b.value(),
        (Value::Integer(a), Value::Integer(b)) => a.value() == b.value(),
        (Value::Boolean(a), Value::Boolean(b)) => a.value() == b.value(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        _ => plain(a) == plain(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_and_not_their_spelling() {
        let dump = "disabled_plugins = []\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  \
                    sandbox_image = \"a:1\"\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  n = 3\n  on = false\n";
        let check = |path: &str, value: &str| check_dump(dump, &[(path.to_owned(), value.to_owned())]);
        check("plugins.'io.containerd.grpc.v1.cri'.sandbox_image", "'a:1'").unwrap();
        check("plugins.\"io.containerd.grpc.v1.cri\".containerd.n", "3").unwrap();
        check("disabled_plugins", "[ ]").unwrap();
        let error = check("plugins.\"io.containerd.grpc.v1.cri\".containerd.on", "true").unwrap_err();
        assert!(error.ends_with("containerd.on is false and not true"), "{error}");
        assert!(check("plugins.cri.sandbox_image", "'a:1'").unwrap_err().contains("is not there"));
        assert!(check("version.x", "1").is_err());
        assert!(check_dump("x", &[]).unwrap_err().contains("no TOML"));
    }
}
