//! Images go from Docker to containerd, streamed, one after the other: layers that two of them share are sent twice
//! and stored once, and in return it is known how far it is, and what is there is not sent again.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Carried, Node, Report,
    ctr::{Ctr, Name, Unpack},
};
use crate::switch::docker::Docker;

/// Between two words on how far it is.
const OFTEN: Duration = Duration::from_millis(200);

impl<R: Report> Node<R> {
    pub(super) fn ctr(&self, address: &Path) -> Result<Ctr, String> {
        Ctr::find(self.paths.ctr.as_deref(), self.paths.containerd.as_deref(), address)
    }

    pub(super) async fn images_before(&self, containerd: &Path) -> Result<Vec<String>, String> {
        Ok(self.ctr(containerd)?.images().await?.into_iter().map(|image| image.name).collect())
    }

    /// Brings images over, those that are not there yet.
    pub(super) async fn carry_images(
        &mut self,
        docker: &Path,
        containerd: &Path,
        images: &[String],
    ) -> Result<(), String> {
        let docker = Docker::new(docker);
        let ctr = self.ctr(containerd)?;
        let unpack = self.unpack(&ctr).await?;
        let mut there: BTreeSet<String> = ctr.images().await?.into_iter().map(|image| image.name).collect();
        for (number, image) in images.iter().enumerate() {
            let mut progress = Carried { image, number: number + 1, of: images.len(), bytes: 0, done: false };
            let name = normalized(image);
            if !there.contains(&name) {
                self.carry(&docker, &ctr, &unpack, &mut progress)
                    .await
                    .map_err(|cause| format!("image {image}: {cause}"))?;
                there.extend(ctr.images().await?.into_iter().map(|image| image.name));
                if !there.contains(&name) {
                    return Err(format!(
                        "image {image}: what Docker gave has no image of this name; is it there under another id since?"
                    ));
                }
            }
            progress.done = true;
            self.report.carried(&progress);
        }
        Ok(())
    }

    async fn carry(
        &mut self,
        docker: &Docker,
        ctr: &Ctr,
        unpack: &Unpack,
        progress: &mut Carried<'_>,
    ) -> Result<(), String> {
        self.report.carried(progress);
        let mut told = Instant::now();
        let names = [progress.image.to_owned()];
        let mut archive = docker.save_images(&names).await.map_err(|error| error.to_string())?;
        let mut import = ctr.import(unpack).await?;
        // An error of Docker's ends the import without its end: dropped, it is killed.
        while let Some(bytes) = archive.next().await.map_err(|error| error.to_string())? {
            if !import.write(&bytes).await? {
                break;
            }
            progress.bytes += bytes.len() as u64;
            if told.elapsed() >= OFTEN {
                told = Instant::now();
                self.report.carried(progress);
            }
        }
        import.end().await
    }

    async fn unpack(&self, ctr: &Ctr) -> Result<Unpack, String> {
        if let Some(snapshotter) = &self.paths.snapshotter {
            return Ok(Unpack::Into(snapshotter.clone()));
        }
        let plugins = ctr.plugins().await?;
        let works = plugins.iter().any(|plugin| {
            plugin.kind == "io.containerd.snapshotter.v1" && plugin.id == "overlayfs" && plugin.status == "ok"
        });
        Ok(if works { Unpack::Default } else { Unpack::Later })
    }

    /// Takes away what was brought. What cannot be removed does no harm, and is no reason to stop going back.
    pub(super) async fn remove_images(&mut self, containerd: &Path, images: &[String], before: &[String]) {
        let removed = async {
            let ctr = self.ctr(containerd)?;
            let surplus = surplus(&ctr.images().await?, images, before);
            ctr.remove_images(&surplus).await
        };
        if let Err(cause) = removed.await {
            self.report.warn(&format!("the images that were brought to containerd stay there: {cause}"));
        }
    }
}

/// Which names go: those that were brought, and the other names that CRI has given to what they stand for, as long
/// as no name stays that stands for the same.
fn surplus(now: &[Name], brought: &[String], before: &[String]) -> Vec<String> {
    let before: BTreeSet<&str> = before.iter().map(String::as_str).collect();
    let brought: BTreeSet<String> = brought.iter().map(|image| normalized(image)).collect();
    let is_new = |image: &&Name| !before.contains(image.name.as_str());
    let is_derived = |image: &Name| image.name.starts_with("sha256:") || image.name.contains("@sha256:");
    let going: Vec<&Name> = now.iter().filter(is_new).filter(|image| brought.contains(&image.name)).collect();
    let goes = |image: &Name| going.iter().any(|gone| gone.digest == image.digest);
    let stays = |image: &Name| {
        now.iter().any(|other| {
            other.digest == image.digest
                && !going.contains(&other)
                && (!is_derived(other) || before.contains(other.name.as_str()))
        })
    };
    let derived = now.iter().filter(is_new).filter(|image| is_derived(image) && goes(image) && !stays(image));
    going.iter().copied().chain(derived).map(|image| image.name.clone()).collect()
}

/// The whole name of an image, as containerd has it (distribution/reference `ParseNormalizedNamed`).
pub(in crate::switch) fn normalized(image: &str) -> String {
    let (domain, rest) = match image.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.contains(char::is_uppercase) =>
        {
            (first, rest.to_owned())
        }
        _ => ("docker.io", image.to_owned()),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let rest = if domain == "docker.io" && !rest.contains('/') { format!("library/{rest}") } else { rest };
    let last = rest.rsplit('/').next().unwrap_or_default();
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{domain}/{rest}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_whole() {
        for (image, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
            ("docker.io/redis", "docker.io/library/redis:latest"),
            ("index.docker.io/a/b:1", "docker.io/a/b:1"),
            ("k8s.gcr.io/pause:3.5", "k8s.gcr.io/pause:3.5"),
            ("localhost/x:1", "localhost/x:1"),
            ("registry:5000/x", "registry:5000/x:latest"),
            ("a/b@sha256:12", "docker.io/a/b@sha256:12"),
        ] {
            assert_eq!(normalized(image), whole);
        }
    }

    #[test]
    fn only_what_was_brought_goes() {
        let name = |name: &str, digest: &str| Name { name: name.to_owned(), digest: digest.to_owned() };
        let now = [
            name("docker.io/library/a:1", "da"),
            name("sha256:ia", "da"),
            name("docker.io/library/b:1", "db"),
            name("sha256:ib", "db"),
            name("example/b:same", "db"),
            name("pulled/since:1", "dc"),
            name("sha256:ic", "dc"),
            name("docker.io/library/old:1", "do"),
            name("sha256:io", "do"),
        ];
        let before = ["docker.io/library/old:1", "sha256:io"].map(str::to_owned);
        let brought = ["a:1", "b:1", "old:1"].map(str::to_owned);
        assert_eq!(
            surplus(&now, &brought, &before),
            ["docker.io/library/a:1", "docker.io/library/b:1", "sha256:ia"]
        );
    }
}
