//! Versions from a package database, where no program of the node may be run.

use std::path::Path;

use super::{Look, Notes, program::plain_version, rpm};

const DPKG: &str = "/var/lib/dpkg/status";
/// A desktop has 5 MiB.
const MAX_STATUS: u64 = 64 << 20;

/// The version of the first of some packages that is installed, as its program would say it. With an `option` that
/// says it instead, one that is not found is told.
pub(super) async fn version(
    look: &Look<'_>,
    names: &[&str],
    option: Option<&str>,
    notes: &mut Notes,
) -> Option<String> {
    let status = match look.rooted.bytes(Path::new(DPKG), MAX_STATUS) {
        Ok(status) => status,
        Err(error) => {
            notes.problem(error.to_string());
            None
        }
    };
    if let Some(status) = status {
        // Descriptions may be in any encoding.
        let found = in_status(&String::from_utf8_lossy(&status), names);
        if found.is_some() {
            return found;
        }
    }
    let database = look.rpm.get_or_init(|| rpm::database(look)).await.as_ref();
    let why = match database.map(|found| (found.path.display(), &found.packages)) {
        Some((path, Ok(packages))) => {
            let of = |name: &&str| packages.iter().find(|(package, _)| package == name);
            let found = names.iter().find_map(of).and_then(|(_, version)| plain_version(version));
            if found.is_some() {
                return found;
            }
            format!("{path} has no such package")
        }
        Some((path, Err(why))) => format!("{path} is RPM's to read: {why}"),
        None => format!("{DPKG} has no such package"),
    };
    let option = option?;
    let name = names.first().copied().unwrap_or_default();
    notes.problem(format!("the version of {name} is not known: {why}; say it with {option}"));
    None
}

fn in_status(status: &str, names: &[&str]) -> Option<String> {
    let field = |paragraph: &str, name: &str| -> Option<String> {
        let line = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Some(line?.trim().to_owned())
    };
    let installed: Vec<(String, String)> = status
        .split("\n\n")
        .filter_map(|paragraph| {
            let package = field(paragraph, "Package").filter(|package| names.contains(&package.as_str()))?;
            // "hold ok installed" just as "install ok installed".
            field(paragraph, "Status")?.ends_with(" installed").then_some(())?;
            Some((package, plain_version(&field(paragraph, "Version")?)?))
        })
        .collect();
    names.iter().find_map(|name| {
        installed.iter().find(|(package, _)| package == name).map(|(_, version)| version.clone())
    })
}
