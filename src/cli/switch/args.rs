//! The options of `nodectl switch-runtime`, and what they ask for.

use std::{
    path::{PathBuf, absolute},
    sync::LazyLock,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use regex::Regex;

use crate::{
    error::CommandError,
    switch::{
        request::{Agent, Drain, DriverChoice, From, Images, Request},
        secrets::hide_word,
    },
};

/// Names as options write them.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident => $target:ident { $($(#[$help:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum $name { $($(#[$help])* $variant),+ }

        impl $name {
            fn asked(self) -> $target {
                match self { $(Self::$variant => $target::$variant),+ }
            }
        }
    };
}

choice! {
    /// `--from`.
    FromChoice => From {
        /// Docker through the kubelet's own dockershim
        Docker,
        /// Docker through cri-dockerd
        CriDockerd,
        /// containerd: bring its configuration up to date
        Containerd,
    }
}
choice! {
    /// `--agent`.
    AgentChoice => Agent {
        /// The kubelet, as before
        Kubelet,
        /// nodectl run, in its place
        Nodectl,
    }
}
choice! {
    /// `--cgroup-driver`.
    DriverArg => DriverChoice {
        /// systemd where process 1 is systemd
        Auto,
        /// systemd makes the containers' cgroups
        Systemd,
        /// runtime and kubelet make them
        Cgroupfs,
    }
}
choice! {
    /// `--images`.
    ImagesChoice => Images {
        /// All that have a tag
        All,
        /// Those that pods use
        Running,
        /// None; they are pulled anew
        None,
    }
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ToChoice {
    /// containerd
    Containerd,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Arguments of `nodectl switch-runtime`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = false, subcommand_negates_reqs = true)]
pub struct SwitchArgs {
    /// What to do with changes that were made before
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// Print what is on the node, and change nothing
    #[arg(long, conflicts_with_all = ["dry_run", "check", "resume", "rollback"], help_heading = "What to do")]
    pub detect: bool,
    /// Print the steps and the difference of every file, and change nothing
    #[arg(long, global = true, help_heading = "What to do")]
    pub dry_run: bool,
    /// As --dry-run, for Ansible's check mode: whether anything would change is in the output, not in the exit code
    #[arg(long, global = true, help_heading = "What to do")]
    pub check: bool,
    /// Go on with a change that was cut short
    #[arg(long, conflicts_with = "rollback", help_heading = "What to do")]
    pub resume: bool,
    /// Put everything back that a change which was cut short has changed
    #[arg(long, help_heading = "What to do")]
    pub rollback: bool,
    /// Do not ask for confirmation
    #[arg(short, long, global = true, help_heading = "What to do")]
    pub yes: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, global = true, help_heading = "What to do")]
    pub output: Format,

    /// The runtime that the node has; found out by itself
    #[arg(long, value_enum, help_heading = "The change")]
    pub from: Option<FromChoice>,
    /// The runtime that it gets
    #[arg(long, value_enum, default_value = "containerd", help_heading = "The change")]
    pub to: ToChoice,
    /// What runs the pods afterwards
    #[arg(long, value_enum, default_value = "kubelet", help_heading = "The change")]
    pub agent: AgentChoice,
    /// The image of pods' sandboxes [default: the one that is in use]
    #[arg(long, value_name = "IMAGE", help_heading = "The change")]
    pub pause_image: Option<String>,
    /// The cgroup driver of containerd and the kubelet
    #[arg(long, value_enum, default_value = "auto", help_heading = "The change")]
    pub cgroup_driver: DriverArg,
    /// A mirror, as URL for docker.io or REGISTRY=URL; may be given several times
    #[arg(long, value_name = "[REGISTRY=]URL", help_heading = "The change")]
    pub registry_mirror: Vec<String>,
    /// The images that go from Docker to containerd
    #[arg(long, value_enum, default_value = "running", help_heading = "The change")]
    pub images: ImagesChoice,
    /// Begin containerd's configuration anew, from `containerd config default`
    #[arg(long, help_heading = "The change")]
    pub reset_config: bool,
    /// Leave Docker installed as it is, running and started with the node
    #[arg(long, help_heading = "The change")]
    pub keep_docker: bool,
    /// Go on where containers that are not Kubernetes', or pods that use Docker, are in the way
    #[arg(long, global = true, help_heading = "The change")]
    pub force: bool,

    /// Credentials for the API server: the node is annotated, and must be Ready in the end
    #[arg(long, value_name = "FILE", help_heading = "The cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Cordon the node and move its pods elsewhere first; uncordoned in the end
    #[arg(long, requires = "kubeconfig", help_heading = "The cluster")]
    pub drain: bool,
    /// Seconds that --drain may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = "The cluster")]
    pub drain_timeout: u64,
    /// With --drain: also pods that nothing would make again
    #[arg(long, requires = "drain", help_heading = "The cluster")]
    pub drain_unmanaged: bool,
    /// With --drain: also pods with emptyDir volumes, whose data are lost
    #[arg(long, requires = "drain", help_heading = "The cluster")]
    pub delete_emptydir_data: bool,

    /// Edit the files of a node that is mounted there: nothing of it is run, no unit is touched
    #[arg(long, value_name = "DIR", global = true, help_heading = "A mounted node")]
    pub root: Option<PathBuf>,
    /// containerd's version there, as in 1.6.20
    #[arg(long, value_name = "VERSION", requires = "root", value_parser = version, help_heading = "A mounted node")]
    pub containerd_version: Option<String>,
    /// The kubelet's version there, as in 1.27.3
    #[arg(long, value_name = "VERSION", requires = "root", value_parser = version, help_heading = "A mounted node")]
    pub kubelet_version: Option<String>,
}

/// What is done with changes that were made before.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Put everything back that a change has changed
    Rollback {
        /// The change, as history names it [default: the last one that is done]
        name: Option<String>,
    },
    /// List the changes that were made
    History,
}

impl SwitchArgs {
    /// What is asked.
    ///
    /// # Errors
    /// [`CommandError`] for a value that cannot be meant.
    pub fn request(&self) -> Result<Request, CommandError> {
        let pause_image = self.pause_image.as_deref().map(image).transpose()?;
        let registry_mirrors =
            self.registry_mirror.iter().map(|text| mirror(text)).collect::<Result<_, _>>()?;
        Ok(Request {
            from: self.from.map(FromChoice::asked),
            agent: self.agent.asked(),
            program: std::env::current_exe().map_err(CommandError::failed)?,
            pause_image,
            cgroup_driver: self.cgroup_driver.asked(),
            registry_mirrors,
            images: self.images.asked(),
            reset_config: self.reset_config,
            keep_docker: self.keep_docker,
            force: self.force,
            // It is in the journal, and the call that takes a change back may be made from elsewhere.
            kubeconfig: self.kubeconfig.as_ref().map(absolute).transpose().map_err(|error| {
                CommandError::usage(format!("--kubeconfig: the working directory: {error}"))
            })?,
            drain: self.drain.then(|| Drain {
                timeout: Duration::from_secs(self.drain_timeout),
                unmanaged: self.drain_unmanaged,
                delete_emptydir_data: self.delete_emptydir_data,
            }),
        })
    }
}

/// A version of a program, as in `1.27`, `v1.27.3` and `2.1.4-rc.0`.
fn version(text: &str) -> Result<String, String> {
    let plain = text.strip_prefix('v').unwrap_or(text);
    let mut parts = plain.splitn(3, '.');
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| {
            !part.is_empty() && part.len() < 6 && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    if is_number(parts.next()) && is_number(parts.next()) {
        Ok(text.to_owned())
    } else {
        Err("this is no version, as in 1.27.3".to_owned())
    }
}

/// `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, as registries have it.
static IMAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let host = r"(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9.-]+:[0-9]+|\[[0-9a-fA-F:]+\](?::[0-9]+)?)(?::[0-9]+)?";
    let part = "[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*";
    let tag = "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}";
    Regex::new(&format!("^(?:{host}/)?{part}(?:/{part})*(?::{tag})?(?:@sha256:[0-9a-f]{{64}})?$")).ok()
});

/// An image's name: what registries allow in one, so that it needs no quotes anywhere.
fn image(text: &str) -> Result<String, CommandError> {
    let fine = text.len() <= 512 && IMAGE.as_ref().is_some_and(|name| name.is_match(text));
    if !fine {
        return Err(CommandError::usage(format!(
            "--pause-image={}: this is no image's name",
            hide_word(text)
        ))
        .hint("as in registry.k8s.io/pause:3.9"));
    }
    Ok(text.to_owned())
}

/// `[REGISTRY=]URL`.
fn mirror(text: &str) -> Result<(String, String), CommandError> {
    let is_host = |host: &str| {
        !host.is_empty() && host.chars().all(|char| char.is_ascii_alphanumeric() || "-._:[]*".contains(char))
    };
    // A URL may have an equals sign of its own behind its scheme.
    let (host, url) = match text.split_once('=') {
        Some((host, url)) if !host.contains("://") => (host, url),
        _ => ("docker.io", text),
    };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let fine = rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.contains(|char: char| char.is_whitespace() || "\"'\\@?#".contains(char))
    });
    if !fine || !is_host(host) {
        let why =
            if text.contains('@') { ": user and password cannot be carried in a mirror's URL" } else { "" };
        let shown = hide_word(text);
        return Err(CommandError::usage(format!("--registry-mirror={shown}: this is no mirror{why}"))
            .hint("as in https://mirror.example, or registry.k8s.io=https://mirror.example:5000/k8s"));
    }
    Ok((host.to_owned(), url.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_for_a_registry() {
        let of = |text: &str| mirror(text).map_err(|error| error.to_string());
        let pair = |host: &str, url: &str| Ok((host.to_owned(), url.to_owned()));
        assert_eq!(of("https://m.example/"), pair("docker.io", "https://m.example"));
        assert_eq!(of("quay.io=http://m:5000/a"), pair("quay.io", "http://m:5000/a"));
        assert_eq!(of("https://m/x=z"), pair("docker.io", "https://m/x=z"));
        for wrong in [
            "m.example",
            "quay.io=",
            "=https://m",
            "https://",
            "https:///x",
            "a b=https://m",
            "https://m/\"",
            "https://u:s3cret@m",
            "quay.io=https://u:s3/cret@m/",
            "u:s3cret@m",
            "https://m/x?y=z",
            "https://m#c",
        ] {
            let told = of(wrong).unwrap_err();
            assert!(told.contains("is no mirror") && !told.contains("s3"), "{wrong}: {told}");
        }
    }

    #[test]
    fn versions_have_two_numbers() {
        for fine in ["1.27", "v1.27.3", "2.1.4-rc.0", "1.6.20~ds1"] {
            assert_eq!(version(fine).as_deref(), Ok(fine));
        }
        for wrong in ["", "x", "2", "v", "1.", "1.x", ".1", "1.-2", "999999.1"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn images_need_no_quotes() {
        let digest = format!("localhost:5000/a_b/c__d@sha256:{}", "0f".repeat(32));
        for fine in [
            "pause",
            "k8s.gcr.io/pause:3.5",
            "localhost/x",
            "localhost:1/none:1",
            "10.0.0.1:5000/pause",
            "[fd00::1]:5000/a",
            "Registry.Example/a-b--c/d.e:V_1.x",
            &digest,
        ] {
            assert_eq!(image(fine).unwrap(), fine);
        }
        for wrong in [
            "",
            "-x",
            "a b",
            "a\"b",
            "$(x)",
            "a%b",
            "https://foo/pause:3",
            "user:s3cret@host/pause:3",
            "UPPER/Case:1",
            "a/",
            "a:",
            "a@sha256:00ff",
        ] {
            let told = image(wrong).unwrap_err().to_string();
            assert!(told.contains("is no image's name") && !told.contains("s3cret"), "{wrong}: {told}");
        }
    }
}
