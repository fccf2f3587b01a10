//! What a pod is told of names: its own, those of others, and who resolves them.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{failures::StepError, hosts::HostsFile, worker::PodWorker};
use crate::{
    api::{PodExt as _, cri::Mount},
    policy::{
        container_config::{PodHostname, pod_hostname},
        dns::{PodDns, pod_dns},
        events::Words,
    },
};

impl PodWorker {
    /// What the pod's host is called; nothing on the host's network, where the host's name stays.
    pub(super) fn hostname(&self, pod: &Pod) -> Result<PodHostname, StepError> {
        if pod.host_network() {
            return Ok(PodHostname::default());
        }
        pod_hostname(pod, &self.env.node).map_err(|error| StepError {
            hints: error.hints,
            ..StepError::new("FailedCreatePodSandBox", error.message)
        })
    }

    /// How the pod resolves names, from the host's file as it is now.
    pub(super) async fn dns(&self, pod: &Arc<Pod>) -> Result<PodDns, StepError> {
        let (env, pod) = (Arc::clone(&self.env), Arc::clone(pod));
        let made = tokio::task::spawn_blocking(move || {
            let host = env.host_names.resolver(pod.host_network())?;
            Ok(pod_dns(&pod, &env.node, host.as_ref()))
        });
        let failed = |error: String| StepError::new("FailedCreatePodSandBox", error);
        made.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }

    /// Tells what of its resolver a pod does not get as it asks for.
    pub(super) fn tell_dns_notes(&self, dns: &PodDns) {
        if dns.falls_back && self.env.host_names.tell_no_cluster() {
            tracing::info!(pod = %self.full_name, "no clusterDNS is configured: dnsPolicy ClusterFirst is taken as Default, for every pod");
        }
        if dns.falls_back {
            let message = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                           \"ClusterFirst\" policy. Falling back to \"Default\" policy.";
            let pod =
                format!("pod: \"{}_{}({})\". ", self.full_name.name, self.full_name.namespace, self.uid);
            self.tell(Words::warning("MissingClusterDNS", pod + message));
        }
        for note in &dns.notes {
            self.tell(Words::warning("DNSConfigForming", note.clone()));
            tracing::warn!(pod = %self.full_name, reason = "DNSConfigForming", "{note}");
        }
    }

    /// The mount of the pod's `/etc/hosts` into a container.
    pub(super) async fn hosts_mount(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        ips: &[IpAddr],
    ) -> Result<Option<Mount>, StepError> {
        let hostname = self.hostname(pod)?;
        let folder = self.env.paths.pod(&self.uid);
        let (env, pod) = (Arc::clone(&self.env), Arc::clone(pod));
        let (container, ips) = (container.clone(), ips.to_vec());
        let made = tokio::task::spawn_blocking(move || {
            // A pod without a folder was refused when it was prepared.
            let Some(folder) = folder else { return Ok(None) };
            let file = HostsFile {
                pod: &pod,
                folder: &folder,
                ips: &ips,
                hostname: &hostname,
                of_the_host: env.host_names.hosts(),
            };
            file.mount(&container)
        });
        let failed = |error: String| StepError::new("CreateContainerConfigError", error);
        made.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }
}
