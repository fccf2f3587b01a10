//! `nodectl cri ps`: containers, with their pods and readable images.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    filter::{Compiled, ContainerFilter, namespace_of},
    format::{Format, FormatArgs},
    images, inspect,
    lookup::Inventory,
    protojson,
    session::Session,
    text::{ago, container_state, short_id, shown_id},
};
use crate::{
    api::cri::{Container, Image},
    cli::output::{Table, printable},
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri ps`.
#[derive(Debug, Clone, Args)]
pub(super) struct PsArgs {
    #[command(flatten)]
    filter: ContainerFilter,
    #[command(flatten)]
    format: FormatArgs,
    /// Only ids, one a line
    #[arg(short, long)]
    quiet: bool,
    /// Several lines for each container, with labels and annotations
    #[arg(short, long)]
    verbose: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Names of images in place of their ids, which is what is printed anyway
    #[arg(short, long)]
    resolve_image_path: bool,
}

pub(super) async fn run(args: &PsArgs, session: &Session, out: &mut dyn Write) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let compiled = args.filter.compile()?;
    let all = inventory(session).await?;
    let found = selected(&args.filter, &compiled, &all, session).await?;
    let value = || {
        let items = found.iter().map(|container| protojson::json("Container", *container));
        Ok(json!({ "containers": items.collect::<Result<Vec<_>, _>>()? }))
    };
    format.print(out, value, || {
        if args.quiet {
            return found.iter().map(|container| format!("{}\n", container.id)).collect();
        }
        let now = Timestamp::now();
        if args.verbose {
            return found.iter().map(|container| verbose(container, &all, now)).collect();
        }
        table(&found, &all, args.no_trunc, now)
    })
}

/// What a filter leaves of the containers. The image that it names is asked of the runtime if need be.
pub(super) async fn selected<'a>(
    filter: &ContainerFilter,
    compiled: &Compiled,
    all: &'a Inventory,
    session: &Session,
) -> Result<Vec<&'a Container>, CommandError> {
    let image = match &filter.image {
        Some(wanted) => images::resolve(wanted, all, session).await?.map(|image| image.id),
        None => None,
    };
    filter.select(compiled, all, image.as_deref())
}

/// Pods, containers and images, asked for side by side.
pub(super) async fn inventory(session: &Session) -> Result<Inventory, CommandError> {
    let (pods, containers, images) = tokio::join!(
        session.try_ask("ListPodSandbox", session.cri.list_pod_sandboxes(None)),
        session.try_ask("ListContainers", session.cri.list_containers(None)),
        session.try_ask("ListImages", session.cri.list_images(None)),
    );
    match (pods, containers, images) {
        (Ok(pods), Ok(containers), Ok(images)) => Ok(Inventory { pods, containers, images }),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => Err(session.failed(&error).await),
    }
}

fn table(found: &[&Container], all: &Inventory, whole: bool, now: Timestamp) -> String {
    let mut table = Table::new([
        "CONTAINER",
        "IMAGE",
        "CREATED",
        "STATE",
        "NAME",
        "ATTEMPT",
        "POD ID",
        "POD",
        "NAMESPACE",
    ]);
    for container in found {
        let metadata = container.metadata.clone().unwrap_or_default();
        table.push([
            shown_id(&container.id, whole).to_owned(),
            readable_image(container, &all.images, whole),
            ago(container.created_at, now),
            container_state(container.state).to_owned(),
            metadata.name,
            metadata.attempt.to_string(),
            shown_id(&container.pod_sandbox_id, whole).to_owned(),
            pod_name(container, all).to_owned(),
            namespace_of(container, all).to_owned(),
        ]);
    }
    table.render()
}

/// The pod's name; kubelet's label for a container whose sandbox is gone.
pub(super) fn pod_name<'a>(container: &'a Container, all: &'a Inventory) -> &'a str {
    let metadata = all.pod_of(container).and_then(|pod| pod.metadata.as_ref());
    let label = || container.labels.get("io.kubernetes.pod.name").map(String::as_str);
    metadata.map(|metadata| metadata.name.as_str()).or_else(label).unwrap_or("unknown")
}

/// A name of the container's image: what the user wrote if the image still has that name, else its first
/// one, else its digest, else what the runtime says.
pub(super) fn readable_image(container: &Container, images: &[Image], whole: bool) -> String {
    let spec = container.image.as_ref();
    let named = spec.map_or("", |spec| spec.image.as_str());
    let ids = [container.image_id.as_str(), named, container.image_ref.as_str()];
    let is = |image: &Image, name: &str| {
        !name.is_empty() && (image.id == name || images::names(image).any(|n| n == name))
    };
    let image = ids.iter().find_map(|id| images.iter().find(|image| is(image, id)));
    let Some(image) = image else {
        let raw = if named.is_empty() { container.image_ref.as_str() } else { named };
        return if raw.starts_with("sha256:") { shown_id(raw, whole) } else { raw }.to_owned();
    };
    let written = spec.map_or("", |spec| spec.user_specified_image.as_str());
    let tag = image.repo_tags.iter().find(|tag| *tag == written || *tag == named).or(image.repo_tags.first());
    match (tag, image.repo_digests.first()) {
        (Some(tag), _) => tag.clone(),
        (None, Some(digest)) if whole => digest.clone(),
        (None, Some(digest)) => match digest.split_once("@sha256:") {
            Some((name, digest)) => format!("{name}@{}", short_id(digest)),
            None => digest.clone(),
        },
        (None, None) => shown_id(&image.id, whole).to_owned(),
    }
}

fn verbose(container: &Container, all: &Inventory, now: Timestamp) -> String {
    let metadata = container.metadata.clone().unwrap_or_default();
    let uid = all.pod_of(container).and_then(|pod| pod.metadata.as_ref()).map_or("", |m| m.uid.as_str());
    let mut lines = vec![
        format!("ID: {}", container.id),
        format!("PodID: {}", container.pod_sandbox_id),
        format!("Pod: {}", pod_name(container, all)),
        format!("Namespace: {}", namespace_of(container, all)),
        format!("PodUID: {uid}"),
        format!("Name: {}", metadata.name),
        format!("Attempt: {}", metadata.attempt),
        format!("State: {}", container_state(container.state)),
        format!("Image: {}", readable_image(container, &all.images, true)),
        format!("Created: {}", ago(container.created_at, now)),
    ];
    lines.extend(inspect::entries("Labels", &container.labels));
    lines.extend(inspect::entries("Annotations", &container.annotations));
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    lines.join("\n") + "\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::ImageSpec;

    #[test]
    fn images_are_readable() {
        let images = [
            Image {
                id: "sha256:aaaaaaaaaaaaaaaaaaaa".into(),
                repo_tags: vec!["x/web:1".into(), "x/web:2".into()],
                ..Image::default()
            },
            Image {
                id: "sha256:bbbbbbbbbbbbbbbbbbbb".into(),
                repo_digests: vec!["x/db@sha256:0123456789abcdef".into()],
                ..Image::default()
            },
        ];
        let shown = |image: &str, written: &str, whole| {
            let spec = ImageSpec {
                image: image.to_owned(),
                user_specified_image: written.to_owned(),
                ..ImageSpec::default()
            };
            readable_image(&Container { image: Some(spec), ..Container::default() }, &images, whole)
        };
        assert_eq!(shown("sha256:aaaaaaaaaaaaaaaaaaaa", "", false), "x/web:1");
        assert_eq!(shown("sha256:aaaaaaaaaaaaaaaaaaaa", "x/web:2", false), "x/web:2");
        assert_eq!(shown("x/web:2", "", false), "x/web:2");
        assert_eq!(shown("sha256:bbbbbbbbbbbbbbbbbbbb", "", false), "x/db@0123456789abc");
        assert_eq!(shown("sha256:bbbbbbbbbbbbbbbbbbbb", "", true), "x/db@sha256:0123456789abcdef");
        assert_eq!(shown("sha256:cccccccccccccccccccc", "", false), "ccccccccccccc");
        assert_eq!(shown("gone:1", "", false), "gone:1");
    }
}
