//! `nodectl cri rmi`: images removed by name or id, all of them, or all that nobody uses.
//!
//! A runtime removes an image with all its names. Unused are images that no container has, in whatever state,
//! and no container mounts; pinned ones and the one that the runtime makes sandboxes from are never unused.

use std::{collections::BTreeSet, io::Write};

use clap::Args;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use super::{
    act::each,
    images::{names, resolve},
    lookup::Inventory,
    ps::inventory,
    session::Session,
};
use crate::{
    api::cri::{Image, ImageSpec},
    cri::Cri as _,
    error::CommandError,
};

/// Containers that are asked about at a time.
const AT_ONCE: usize = 8;

/// Arguments of `nodectl cri rmi`.
#[derive(Debug, Clone, Args)]
pub(super) struct RmiArgs {
    /// Images: names, or beginnings of ids
    #[arg(value_name = "IMAGE", required_unless_present_any = ["all", "prune"], conflicts_with_all = ["all", "prune"])]
    ids: Vec<String>,
    /// All images, pinned ones too
    #[arg(short, long, conflicts_with = "prune")]
    all: bool,
    /// All images that no container uses, but for pinned ones and the sandbox image
    #[arg(short = 'q', long)]
    prune: bool,
}

pub(super) async fn run(
    args: &RmiArgs,
    session: &Session,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Result<(), CommandError> {
    let all = inventory(session).await?;
    let ids: Vec<String> = if args.prune {
        let used = used(&all, session).await?;
        let unused = all.images.iter().filter(|image| !image.pinned && !used.contains(&image.id));
        unused.map(|image| image.id.clone()).collect()
    } else if args.all {
        all.images.iter().map(|image| image.id.clone()).collect()
    } else {
        args.ids.clone()
    };
    if ids.is_empty() {
        // There is nobody to tell that telling failed.
        writeln!(err, "no images to remove").ok();
        return Ok(());
    }
    each(&ids, out, err, async |wanted| {
        let image = meant(wanted, &all, session).await?;
        let spec = ImageSpec { image: image.id.clone(), ..ImageSpec::default() };
        session.act("RemoveImage", wanted, session.change.remove_image(spec)).await?;
        let gone = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        // An image without a name is told by its id.
        let gone: Vec<&str> =
            if gone.is_empty() { vec![image.id.as_str()] } else { gone.iter().map(String::as_str).collect() };
        Ok(gone.into_iter().map(|name| format!("Deleted: {name}\n")).collect())
    })
    .await
}

/// The image that a name or the beginning of an id means. A short name that is also the beginning of another
/// image's id means neither.
async fn meant(wanted: &str, all: &Inventory, session: &Session) -> Result<Image, CommandError> {
    let Some(local) = all.image(wanted)? else {
        return resolve(wanted, all, session).await?.ok_or_else(|| all.no_image(wanted));
    };
    let bare = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).to_owned();
    if bare(&local.id) == bare(wanted) || names(local).any(|name| name == wanted) {
        return Ok(local.clone());
    }
    let spec = ImageSpec { image: wanted.to_owned(), ..ImageSpec::default() };
    let other = session.try_ask("ImageStatus", session.cri.image_status(spec, false)).await;
    match other.ok().and_then(|answer| answer.image) {
        Some(other) if other.id != local.id => Err(CommandError::failed(format!(
            "{wanted:?} is the name of one image and the beginning of another one's id"
        ))
        .hint("give the whole name, or more of the id")),
        _ => Ok(local.clone()),
    }
}

/// The ids of all images that are used.
async fn used(all: &Inventory, session: &Session) -> Result<BTreeSet<String>, CommandError> {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for container in &all.containers {
        let spec = container.image.clone().unwrap_or_default();
        named.extend([spec.image, container.image_ref.clone(), container.image_id.clone()]);
    }
    // Which images a container mounts is not in the list.
    let mut statuses = stream::iter(&all.containers)
        .map(|container| {
            let call = session.cri.container_status(&container.id, false);
            session.try_ask("ContainerStatus", call)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(answer) = statuses.next().await {
        match answer {
            Ok(answer) => {
                let mounts = answer.status.unwrap_or_default().mounts;
                named.extend(mounts.into_iter().filter_map(|mount| mount.image).map(|image| image.image));
            }
            // Removed between the two looks.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(session.failed(&error).await),
        }
    }
    drop(statuses);
    let status = session.ask("Status", session.cri.status(true)).await?;
    named.extend(sandbox_image(&status.info));
    named.remove("");
    let mut used = BTreeSet::new();
    for name in &named {
        // A beginning of an id is no name here, and what is not on the node cannot be removed.
        used.extend(resolve(name, all, session).await?.map(|image| image.id));
    }
    Ok(used)
}

/// The image that the runtime makes sandboxes from, as its own configuration has it: containerd's
/// `sandboxImage` (1.x) or `pinnedImages` (2.x), CRI-O's `pause_image`.
fn sandbox_image(info: &std::collections::BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for text in info.values() {
        match serde_json::from_str(text) {
            Ok(value) => search(&value, &mut found),
            Err(_) => found.extend(text.lines().filter_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == "pause_image").then(|| value.trim().trim_matches('"').to_owned())
            })),
        }
    }
    found
}

fn search(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("sandboxImage", Value::String(image)) => found.push(image.clone()),
                    ("pinnedImages", Value::Object(images)) => {
                        found.extend(images.values().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => search(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| search(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_tells_its_sandbox_image_elsewhere() {
        let of = |key: &str, text: &str| sandbox_image(&[(key.to_owned(), text.to_owned())].into());
        assert_eq!(of("config", r#"{"containerd": {}, "sandboxImage": "x/pause:3"}"#), ["x/pause:3"]);
        assert_eq!(of("config", r#"{"a": [{"pinnedImages": {"sandbox": "x/pause:3"}}]}"#), ["x/pause:3"]);
        assert_eq!(of("config", "[crio.image]\npause_image = \"x/pause:3\"\n"), ["x/pause:3"]);
        assert!(of("golang", "\"go1.19\"").is_empty() && of("x", "{\"sandboxImage\": 1}").is_empty());
    }
}
