//! Docker's runtimes besides runc: each is a handler in containerd's configuration.

use serde_json::Value;

use super::{Carried, options};
use crate::switch::{containerd::Runtime, facts::Facts};

/// The shim that calls a program with runc's command line.
const RUNC: &str = "io.containerd.runc.v2";

pub(super) fn carry(facts: &Facts, carried: &mut Carried) {
    let Some(docker) = &facts.docker else { return };
    for pair in options::list(facts, "add-runtime", "") {
        if let Some((name, path)) = pair.split_once('=') {
            add(carried, name, RUNC, Some(path.to_owned()));
        }
    }
    for (name, said) in docker.daemon.get("runtimes").and_then(Value::as_object).into_iter().flatten() {
        let text = |key: &str| said.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let binary = text("path").or_else(|| said.pointer("/options/BinaryName").and_then(Value::as_str));
        add(carried, name, text("runtimeType").unwrap_or(RUNC), binary.map(str::to_owned));
        let lost = ["runtimeArgs", "options"].into_iter().filter(|key| match said.get(*key) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => map.keys().any(|key| key != "BinaryName"),
            _ => false,
        });
        for key in lost {
            carried.warnings.push(format!(
                "the runtime {name:?} has {key} in daemon.json, which are not carried over: put a program in its place \
                 that adds them, or say them in containerd's configuration"
            ));
        }
    }
    let Some(default) = options::text(facts, "default-runtime").filter(|name| name != "runc" && name != RUNC)
    else {
        return;
    };
    let known = carried.runtimes.iter().any(|runtime| runtime.name == default);
    // Docker takes a shim's own name too.
    let shim = default.strip_prefix("io.containerd.").and_then(|rest| rest.rsplit_once(".v"));
    match shim.filter(|_| !known) {
        Some((name, _)) => {
            let name = name.replace('.', "-");
            add(carried, &name, &default, None);
            carried.default_runtime = Some(name);
        }
        None if known => carried.default_runtime = Some(default),
        None => carried.warnings.push(format!(
            "Docker's default runtime {default:?} is in no list of runtimes: it is not carried over, and pods run with runc"
        )),
    }
}

fn add(carried: &mut Carried, name: &str, kind: &str, binary: Option<String>) {
    // containerd has these of its own.
    if matches!(name, "runc" | "io.containerd.runc.v2" | "io.containerd.runtime.v1.linux") {
        return;
    }
    if !carried.runtimes.iter().any(|runtime| runtime.name == name) {
        carried.runtimes.push(Runtime { name: name.to_owned(), kind: kind.to_owned(), binary });
    }
}
