//! `nodectl cri images`, and which image a name means.

use std::io::Write;

use clap::Args;
use regex::Regex;
use serde_json::json;

use super::{
    filter::regex,
    format::{Format, FormatArgs},
    lookup::Inventory,
    protojson,
    session::Session,
    text::{shown_id, size},
};
use crate::{
    api::cri::{Image, ImageSpec},
    cli::output::{Table, printable},
    cri::Cri as _,
    error::CommandError,
};

/// Arguments of `nodectl cri images`.
#[derive(Debug, Clone, Args)]
pub(super) struct ImagesArgs {
    /// Only images of this repository, or this tag of it
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
    /// Only images that fit: dangling=true, dangling=false, reference=REGEX; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
    /// Only ids, one a line
    #[arg(short, long)]
    quiet: bool,
    /// Several lines for each image
    #[arg(short, long)]
    verbose: bool,
    /// Whole ids and digests
    #[arg(long)]
    no_trunc: bool,
    /// A column with digests
    #[arg(long)]
    digests: bool,
    /// A column that says which images are never removed as unused
    #[arg(long)]
    pinned: bool,
}

enum Condition {
    Dangling(bool),
    Reference(Regex),
}

fn conditions(texts: &[String]) -> Result<Vec<Condition>, CommandError> {
    let mut conditions = Vec::new();
    for text in texts {
        conditions.push(match text.split_once('=') {
            Some(("dangling", "true")) => Condition::Dangling(true),
            Some(("dangling", "false")) => Condition::Dangling(false),
            Some(("reference", pattern)) => match regex("--filter reference", Some(pattern))? {
                Some(regex) => Condition::Reference(regex),
                None => continue,
            },
            Some(("before" | "since", _)) => {
                return Err(CommandError::usage(format!(
                    "--filter {text:?}: a runtime does not tell over CRI when an image was made"
                )));
            }
            _ => {
                return Err(CommandError::usage(format!(
                    "--filter {text:?} is none of dangling=true, dangling=false, reference=REGEX"
                )));
            }
        });
    }
    Ok(conditions)
}

impl Condition {
    fn fits(&self, image: &Image) -> bool {
        match self {
            Self::Dangling(dangling) => image.repo_tags.is_empty() == *dangling,
            Self::Reference(regex) => names(image).any(|name| regex.is_match(name)),
        }
    }
}

/// Its tags and digests.
pub(super) fn names(image: &Image) -> impl Iterator<Item = &String> {
    image.repo_tags.iter().chain(&image.repo_digests)
}

pub(super) async fn run(
    args: &ImagesArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let format = args.format.format(Format::Table)?;
    let conditions = conditions(&args.filter)?;
    let mut images = session.ask("ListImages", session.cri.list_images(None)).await?;
    images.retain(|image| {
        conditions.iter().all(|condition| condition.fits(image))
            && args.repository.as_ref().is_none_or(|wanted| is_of(image, wanted))
    });
    let key = |image: &Image| (names(image).next().cloned().unwrap_or_default(), image.id.clone());
    images.sort_by_cached_key(key);
    let value = || {
        let items = images.iter().map(|image| protojson::json("Image", image));
        Ok(json!({ "images": items.collect::<Result<Vec<_>, _>>()? }))
    };
    format.print(out, value, || {
        if args.quiet {
            return images.iter().map(|image| format!("{}\n", image.id)).collect();
        }
        if args.verbose {
            return images.iter().map(|image| lines(image) + "\n").collect();
        }
        table(&images, args)
    })
}

/// Repository and tag; a port's colon is none of a tag.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// A name without what Docker leaves out.
fn familiar(repository: &str) -> &str {
    let rest = repository.strip_prefix("docker.io/").unwrap_or(repository);
    rest.strip_prefix("library/").unwrap_or(rest)
}

fn is_of(image: &Image, wanted: &str) -> bool {
    if wanted.contains('@') {
        return image.repo_digests.iter().any(|name| familiar(name) == familiar(wanted));
    }
    let bare = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).to_owned();
    if bare(&image.id) == bare(wanted) {
        return true;
    }
    let (repository, tag) = split(wanted);
    let tagged = image.repo_tags.iter().any(|name| {
        let (its, its_tag) = split(name);
        familiar(its) == familiar(repository) && (tag.is_none() || tag == its_tag)
    });
    let digests = image.repo_digests.iter().filter_map(|name| name.split_once('@'));
    tagged || (tag.is_none() && digests.into_iter().any(|(its, _)| familiar(its) == familiar(repository)))
}

fn table(images: &[Image], args: &ImagesArgs) -> String {
    let mut head = vec!["IMAGE", "TAG"];
    head.extend(args.digests.then_some("DIGEST"));
    head.extend(["IMAGE ID", "SIZE"]);
    head.extend(args.pinned.then_some("PINNED"));
    let mut table = Table::default();
    table.push(head.into_iter().map(str::to_owned));
    for image in images {
        let digest = image.repo_digests.first().and_then(|name| name.split_once('@'));
        let untagged = [digest.map_or("<none>", |(name, _)| name).to_owned() + ":<none>"];
        let tags = if image.repo_tags.is_empty() { &untagged[..] } else { &image.repo_tags[..] };
        for name in tags {
            let (repository, tag) = split(name);
            let mut row = vec![repository.to_owned(), tag.unwrap_or("<none>").to_owned()];
            let shown = digest.map_or("<none>", |(_, digest)| shown_id(digest, args.no_trunc));
            row.extend(args.digests.then(|| shown.to_owned()));
            row.extend([shown_id(&image.id, args.no_trunc).to_owned(), size(image.size)]);
            row.extend(args.pinned.then(|| image.pinned.to_string()));
            table.push(row);
        }
    }
    table.render()
}

/// An image in lines, as `-v` and `inspecti -o table` print it.
pub(super) fn lines(image: &Image) -> String {
    let mut lines = vec![format!("ID: {}", image.id)];
    lines.extend(image.repo_tags.iter().map(|tag| format!("RepoTags: {tag}")));
    lines.extend(image.repo_digests.iter().map(|digest| format!("RepoDigests: {digest}")));
    lines.push(format!("Size: {}", size(image.size)));
    lines.extend(image.uid.as_ref().map(|uid| format!("Uid: {}", uid.value)));
    lines.extend(
        Some(&image.username).filter(|name| !name.is_empty()).map(|name| format!("Username: {name}")),
    );
    lines.push(format!("Pinned: {}", image.pinned));
    lines.iter().map(|line| printable(line) + "\n").collect()
}

/// The image that a name or id means: looked up here, else asked of the runtime, which knows what short
/// names stand for. `None` if it is not on the node.
pub(super) async fn resolve(
    wanted: &str,
    all: &Inventory,
    session: &Session,
) -> Result<Option<Image>, CommandError> {
    if let Some(image) = all.image(wanted)? {
        return Ok(Some(image.clone()));
    }
    let spec = ImageSpec { image: wanted.to_owned(), ..ImageSpec::default() };
    match session.try_ask("ImageStatus", session.cri.image_status(spec, false)).await {
        Ok(answer) => Ok(answer.image),
        // A text that can name no image is refused by some runtimes and not found by others.
        Err(error) if error.is_unavailable() || error.is_deadline_exceeded() => {
            Err(session.failed(&error).await)
        }
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> Image {
        Image {
            id: "sha256:0123456789abcdef".to_owned(),
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            repo_digests: digests.iter().map(|&digest| digest.to_owned()).collect(),
            size: 2_496_000,
            ..Image::default()
        }
    }

    #[test]
    fn repositories_and_tags() {
        let busybox = image(&["docker.io/library/busybox:1.36"], &["docker.io/library/busybox@sha256:77"]);
        for wanted in [
            "busybox",
            "busybox:1.36",
            "library/busybox",
            "docker.io/library/busybox",
            "busybox@sha256:77",
            "0123456789abcdef",
        ] {
            assert!(is_of(&busybox, wanted), "{wanted}");
        }
        for wanted in ["busy", "busybox:1", "x/busybox", "busybox@sha256:78", "library"] {
            assert!(!is_of(&busybox, wanted), "{wanted}");
        }
        let local = image(&["localhost:5000/a:b"], &[]);
        assert!(is_of(&local, "localhost:5000/a") && is_of(&local, "localhost:5000/a:b"));
        assert!(is_of(&image(&[], &["x/y@sha256:1"]), "x/y"));
    }

    #[test]
    fn conditions_compose_and_what_cannot_be_known_is_refused() {
        let all = |texts: &[&str]| conditions(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
        let fits = |texts: &[&str], image: &Image| all(texts).unwrap().iter().all(|c| c.fits(image));
        let (tagged, bare) = (image(&["x/a:1"], &[]), image(&[], &["x/b@sha256:1"]));
        assert!(fits(&["dangling=false", "reference=^x/a"], &tagged));
        assert!(!fits(&["dangling=true"], &tagged) && fits(&["dangling=true", "reference=/b@"], &bare));
        for wrong in ["before=x", "since=x", "dangling=maybe", "reference=(", "x"] {
            assert_eq!(all(&[wrong]).err().unwrap().kind.code(), 2, "{wrong}");
        }
    }

    #[test]
    fn tables_have_a_line_for_each_tag() {
        let args = ImagesArgs {
            repository: None,
            filter: Vec::new(),
            format: FormatArgs::default(),
            quiet: false,
            verbose: false,
            no_trunc: false,
            digests: true,
            pinned: true,
        };
        let images =
            [image(&["x/a:1", "localhost:5000/a:2"], &["x/a@sha256:fedcba98765432100"]), image(&[], &[])];
        assert_eq!(
            table(&images, &args),
            "IMAGE              TAG      DIGEST          IMAGE ID        SIZE    PINNED\n\
             x/a                1        fedcba9876543   0123456789abc   2.5MB   false\n\
             localhost:5000/a   2        fedcba9876543   0123456789abc   2.5MB   false\n\
             <none>             <none>   <none>          0123456789abc   2.5MB   false\n"
        );
    }
}
