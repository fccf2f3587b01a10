//! containerd through `ctr`, which every package of containerd has: its images and its plugins.
//!
//! Importing an archive over containerd's own API would take what `ctr images import` is: a reader of both archive
//! formats, a writer of content with leases, and unpacking. `ctr` is always as old as its containerd and needs
//! none of that from us.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin},
    time::timeout,
};

use super::program::{self, Group};

/// For lists and removals; a removal waits for the garbage collection.
const ANSWER: Duration = Duration::from_secs(60);
/// containerd takes what it is given, or unpacks: nothing moves for this long only if something is stuck.
const IDLE: Duration = Duration::from_secs(600);
/// Names in one command line.
const AT_ONCE: usize = 100;

/// A containerd, in one of its namespaces.
#[derive(Debug, Clone)]
pub(super) struct Ctr {
    program: PathBuf,
    address: PathBuf,
    namespace: &'static str,
}

/// An image's name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) digest: String,
}

/// A plugin of containerd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plugin {
    /// As in `io.containerd.grpc.v1`.
    pub(super) kind: String,
    /// As in `cri`.
    pub(super) id: String,
    /// `ok`, `skip` or `error`.
    pub(super) status: String,
}

/// How images are unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unpack {
    /// Into containerd's default snapshotter.
    Default,
    /// Into this one.
    Into(String),
    /// When the first container needs it.
    Later,
}

impl Ctr {
    /// The namespace of Kubernetes' containers at an address. The `ctr` given, else the one beside the containerd
    /// given, else the one on the path.
    pub(super) fn find(
        given: Option<&Path>,
        containerd: Option<&Path>,
        address: &Path,
    ) -> Result<Self, String> {
        let beside = || containerd?.parent().map(|folder| folder.join("ctr")).filter(|path| path.is_file());
        let program = match given.map(Path::to_path_buf).or_else(beside) {
            Some(program) => program,
            None => program::find("ctr")?,
        };
        Ok(Self { program, address: address.to_owned(), namespace: "k8s.io" })
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = program::command(&self.program, &["--address"]);
        command.arg(&self.address).args(["--namespace", self.namespace, "--connect-timeout", "10s"]);
        command.args(arguments);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let what = format!("ctr {}", arguments.iter().take(2).copied().collect::<Vec<_>>().join(" "));
        program::run(self.command(arguments), &what, None, ANSWER).await?.succeeded(&what)
    }

    /// All images.
    pub(super) async fn images(&self) -> Result<Vec<Name>, String> {
        Ok(names(&self.run(&["images", "ls"]).await?))
    }

    /// Removes images by their names, and what nothing else needs.
    pub(super) async fn remove_images(&self, names: &[String]) -> Result<(), String> {
        for names in names.chunks(AT_ONCE) {
            let mut arguments = vec!["images", "rm", "--sync"];
            arguments.extend(names.iter().map(String::as_str));
            self.run(&arguments).await?;
        }
        Ok(())
    }

    /// All plugins.
    pub(super) async fn plugins(&self) -> Result<Vec<Plugin>, String> {
        Ok(plugins(&self.run(&["plugins", "ls"]).await?))
    }

    /// Why a plugin did not start, if it says.
    pub(super) async fn plugin_error(&self, plugin: &Plugin) -> Option<String> {
        let filter = format!("id=={},type=={}", plugin.id, plugin.kind);
        message(&self.run(&["plugins", "ls", "-d", &filter]).await.ok()?)
    }

    /// Starts to import an archive that comes piece by piece.
    pub(super) async fn import(&self, unpack: &Unpack) -> Result<Import, String> {
        // 2.x has a second way to import, which knows the default snapshotter only.
        let help = self.run(&["images", "import", "--help"]).await?;
        let mut arguments = vec!["images", "import"];
        if help.contains("--local") {
            arguments.push("--local");
        }
        match unpack {
            Unpack::Default => {}
            Unpack::Into(snapshotter) => arguments.extend(["--snapshotter", snapshotter]),
            Unpack::Later => arguments.push("--no-unpack"),
        }
        arguments.push("-");
        let mut command = self.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("ctr does not start: {error}"))?;
        let stderr = child.stderr.take();
        Ok(Import {
            group: Group::of(&child),
            stdin: child.stdin.take(),
            errors: tokio::spawn(program::end_of(stderr)),
            child,
        })
    }
}

/// An import on its way. Dropped, it is given up, and containerd forgets what came.
#[derive(Debug)]
pub(super) struct Import {
    group: Group,
    child: Child,
    stdin: Option<ChildStdin>,
    errors: tokio::task::JoinHandle<String>,
}

impl Import {
    /// Hands it the next bytes; false if it does not take any more, as [`Self::end`] will tell why.
    ///
    /// # Errors
    /// When it takes nothing for ten minutes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let Some(stdin) = &mut self.stdin else { return Ok(false) };
        match timeout(IDLE, stdin.write_all(bytes)).await {
            Ok(written) => Ok(written.is_ok()),
            Err(_elapsed) => Err(format!("ctr images import has taken nothing for {} s", IDLE.as_secs())),
        }
    }

    /// There is no more; waits until the image is there and unpacked.
    ///
    /// # Errors
    /// What `ctr` says.
    pub(super) async fn end(mut self) -> Result<(), String> {
        drop(self.stdin.take());
        let what = "ctr images import";
        let status = match timeout(IDLE, self.child.wait()).await {
            Ok(status) => status.map_err(|error| format!("{what}: {error}"))?,
            Err(_elapsed) => return Err(format!("{what} has not ended within {} s", IDLE.as_secs())),
        };
        self.group.ended();
        let errors = self.errors.await.unwrap_or_default();
        if status.success() { Ok(()) } else { Err(program::failure(what, status, &errors)) }
    }
}

/// `ctr images ls`: a heading, then REF, TYPE, DIGEST and more.
fn names(text: &str) -> Vec<Name> {
    let lines = text.lines().filter(|line| !line.starts_with("REF "));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, digest) = (words.next()?, words.nth(1)?);
            Some(Name { name: name.to_owned(), digest: digest.to_owned() })
        })
        .collect()
}

/// `ctr plugins ls`: a heading, then TYPE, ID, PLATFORMS and STATUS.
fn plugins(text: &str) -> Vec<Plugin> {
    let lines = text.lines().filter(|line| !line.starts_with("TYPE "));
    lines
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, id, .., status] = words.as_slice() else { return None };
            Some(Plugin { kind: (*kind).to_owned(), id: (*id).to_owned(), status: (*status).to_owned() })
        })
        .collect()
}

/// `ctr plugins ls -d`: the message of the one plugin.
fn message(text: &str) -> Option<String> {
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with("Message:"));
    let lines = lines.take_while(|line| !line.starts_with("Type:") && !line.trim().is_empty());
    let words = lines.flat_map(str::split_whitespace).skip(1).collect::<Vec<_>>().join(" ");
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ctr_prints_is_read() {
        let images = "REF                              TYPE                                                 DIGEST      \
                      SIZE      PLATFORMS   LABELS \n\
                      docker.io/library/busybox:1      application/vnd.docker.distribution.manifest.v2+json sha256:aa   \
                      1.9 MiB   linux/amd64 io.cri-containerd.image=managed \n";
        let name = |name: &str, digest: &str| Name { name: name.to_owned(), digest: digest.to_owned() };
        assert_eq!(names(images), [name("docker.io/library/busybox:1", "sha256:aa")]);
        let list = "TYPE                                  ID                PLATFORMS      STATUS    \n\
                    io.containerd.content.v1              content           -              ok        \n\
                    io.containerd.grpc.v1                 cri               linux/amd64    error     \n\n";
        let read = plugins(list);
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[1].kind.as_str(), read[1].id.as_str(), read[1].status.as_str()),
            ("io.containerd.grpc.v1", "cri", "error")
        );
        let detail = "Type:         io.containerd.grpc.v1\nID:           cri\nPlatforms:    linux/amd64\nError:        \n\
                      \x20             Code:        Unknown\n\
                      \x20             Message:     invalid plugin config: `mirrors` cannot be set when `config_path` is provided\n";
        assert_eq!(
            message(detail).unwrap(),
            "invalid plugin config: `mirrors` cannot be set when `config_path` is provided"
        );
        assert_eq!(message("Type: x\nID: y\n"), None);
    }
}
