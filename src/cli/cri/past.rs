//! Runtimes that one still reads about and that no longer exist as such: what became of them, and what to use
//! in their place.

/// A runtime of the past.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    /// As its makers wrote it.
    pub(super) name: &'static str,
    /// Other names that it went by, in small letters.
    pub(super) aliases: &'static [&'static str],
    /// What it was.
    pub(super) was: &'static str,
    /// What became of it, and when.
    pub(super) became: &'static str,
    /// What to use now.
    pub(super) instead: &'static str,
    /// Where it listened.
    pub(super) sockets: &'static [&'static str],
}

/// All of them, in the order of their names.
pub(super) const ALL: [Past; 10] = [
    Past {
        name: "Clear Containers",
        aliases: &["clear-containers", "clearcontainers", "cc-runtime", "cc-oci-runtime", "cor"],
        was: "Intel's OCI runtime that gave each container or pod a small virtual machine",
        became: "it and runV became Kata Containers in December 2017; its repositories are archived since \
                 May 2020",
        instead: "Kata Containers, as a runtime handler (RuntimeClass) of containerd or CRI-O",
        sockets: &[],
    },
    Past {
        name: "cri-containerd",
        aliases: &["cri-containerd", "containerd-cri"],
        was: "a daemon of its own between kubelet and containerd 1.0",
        became: "it became a plugin of containerd itself with containerd 1.1, in April 2018",
        instead: "containerd, which serves CRI on its own socket: /run/containerd/containerd.sock",
        sockets: &["/run/cri-containerd.sock"],
    },
    Past {
        name: "dockershim",
        aliases: &["dockershim", "docker-shim", "docker"],
        was: "kubelet's built-in adapter to the Docker Engine",
        became: "deprecated in Kubernetes 1.20 (December 2020) and removed in 1.24 (May 2022)",
        instead: "containerd, which a Docker Engine has under it already, or CRI-O; cri-dockerd if pods must \
                  go on in the Docker Engine",
        sockets: &["/run/dockershim.sock"],
    },
    Past {
        name: "Frakti",
        aliases: &["frakti", "hyperd", "hypercontainer"],
        was: "a CRI runtime that ran pods in virtual machines, by HyperContainer (hyperd, runV) and later Kata",
        became: "no change since December 2020; the Kubernetes project archived it in September 2021",
        instead: "containerd or CRI-O with Kata Containers as a runtime handler (RuntimeClass)",
        sockets: &["/run/frakti.sock"],
    },
    Past {
        name: "Infranetes",
        aliases: &["infranetes"],
        was: "a CRI runtime of appOrbit that made a virtual machine in a cloud for each pod",
        became: "it never went beyond the first, alpha versions of CRI, which no kubelet of today speaks",
        instead: "Kata Containers with remote hypervisors (the cloud-api-adaptor of Confidential Containers), \
                  or Virtual Kubelet",
        sockets: &[],
    },
    Past {
        name: "PouchContainer",
        aliases: &["pouchcontainer", "pouch", "pouchd"],
        was: "Alibaba's container engine on top of containerd, with a CRI server of its own",
        became: "development nearly stopped after version 1.3.0 of 2019; the last version is 1.3.1, of \
                 November 2022",
        instead: "containerd",
        sockets: &["/run/pouchcri.sock"],
    },
    Past {
        name: "rkt",
        aliases: &["rkt", "rocket", "rktnetes"],
        was: "CoreOS' container engine without a daemon; kubelet once drove it directly (rktnetes)",
        became: "kubelet dropped it with Kubernetes 1.10 (2018), CNCF archived the project in August 2019, and \
                 its makers ended it in February 2020",
        instead: "containerd or CRI-O; Podman where a single machine runs containers without a daemon",
        sockets: &[],
    },
    Past {
        name: "Rktlet",
        aliases: &["rktlet"],
        was: "the CRI server in front of rkt",
        became: "no change since May 2018; the Kubernetes project archived it in December 2019, after rkt's end",
        instead: "containerd or CRI-O",
        sockets: &["/run/rktlet.sock"],
    },
    Past {
        name: "runV",
        aliases: &["runv", "hyper", "hyper-runv"],
        was: "Hyper's OCI runtime that ran containers in virtual machines",
        became: "it and Clear Containers became Kata Containers in December 2017",
        instead: "Kata Containers, as a runtime handler (RuntimeClass) of containerd or CRI-O",
        sockets: &[],
    },
    Past {
        name: "Virtlet",
        aliases: &["virtlet", "criproxy"],
        was: "Mirantis' CRI runtime whose pods were virtual machines made from QCOW2 images",
        became: "its last work was for Kubernetes 1.14, in 2019; nobody has maintained it since",
        instead: "KubeVirt, which runs virtual machines inside ordinary pods",
        sockets: &["/run/virtlet.sock"],
    },
];

/// The runtime of this name, however it is written.
pub(super) fn find(name: &str) -> Option<&'static Past> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let wanted = plain(name);
    ALL.iter()
        .find(|past| plain(past.name) == wanted || past.aliases.iter().any(|alias| plain(alias) == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for (written, name) in [
            ("dockershim", "dockershim"),
            ("Docker-Shim", "dockershim"),
            ("RKT", "rkt"),
            ("rktlet", "Rktlet"),
            ("frakti", "Frakti"),
            ("runv", "runV"),
            ("pouch", "PouchContainer"),
            ("PouchContainer", "PouchContainer"),
            ("virtlet", "Virtlet"),
            ("infranetes", "Infranetes"),
            ("clear containers", "Clear Containers"),
            ("ClearContainers", "Clear Containers"),
        ] {
            assert_eq!(find(written).map(|past| past.name), Some(name), "{written}");
        }
        for today in ["containerd", "cri-o", "kata", "", "x"] {
            assert!(find(today).is_none(), "{today}");
        }
    }

    #[test]
    fn names_are_in_order_and_each_means_one_runtime() {
        let names: Vec<String> = ALL.iter().map(|past| past.name.to_lowercase()).collect();
        assert!(names.is_sorted(), "{names:?}");
        let mut aliases: Vec<&str> = ALL.iter().flat_map(|past| past.aliases.iter().copied()).collect();
        let count = aliases.len();
        aliases.sort_unstable();
        aliases.dedup();
        assert_eq!(aliases.len(), count);
    }
}
