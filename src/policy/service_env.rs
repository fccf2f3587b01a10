//! The variables that tell a container of the cluster's services (kubelet's `enableServiceLinks`,
//! pkg/kubelet/envvars).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The service that every pod is told of, whatever it says: the API server itself.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// What there is to tell of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    ip: String,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: Option<String>,
    number: i32,
    protocol: String,
}

impl ServiceFacts {
    /// Of a service with an address of its own; `None` of another, of which no pod is told.
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| Port {
            name: port.name.clone().filter(|name| !name.is_empty()),
            number: port.port,
            protocol: port.protocol.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".to_owned()),
        };
        Some(Self {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
            ip,
            ports: spec.ports.iter().flatten().map(port).collect(),
        })
    }

    /// Whether a pod is told of it: `links` is the pod's `enableServiceLinks`.
    fn is_told(&self, namespace: &str, links: bool) -> bool {
        (self.namespace.as_str(), self.name.as_str()) == MASTER || links && self.namespace == namespace
    }

    fn add_to(&self, variables: &mut BTreeMap<String, String>) {
        let Some(first) = self.ports.first() else { return };
        let prefix = variable(&self.name);
        let mut add = |name: String, value: String| drop(variables.insert(name, value));
        add(format!("{prefix}_SERVICE_HOST"), self.ip.clone());
        add(format!("{prefix}_SERVICE_PORT"), first.number.to_string());
        add(format!("{prefix}_PORT"), self.url(first));
        for port in &self.ports {
            if let Some(name) = &port.name {
                add(format!("{prefix}_SERVICE_PORT_{}", variable(name)), port.number.to_string());
            }
            let link = format!("{prefix}_PORT_{}_{}", port.number, port.protocol.to_uppercase());
            add(format!("{link}_PROTO"), port.protocol.to_lowercase());
            add(format!("{link}_PORT"), port.number.to_string());
            add(format!("{link}_ADDR"), self.ip.clone());
            add(link, self.url(port));
        }
    }

    fn url(&self, port: &Port) -> String {
        let host = if self.ip.contains(':') { format!("[{}]", self.ip) } else { self.ip.clone() };
        format!("{}://{host}:{}", port.protocol.to_lowercase(), port.number)
    }
}

/// The variables for a pod of this namespace. Of two services that give one name, the one whose name comes later in
/// the alphabet counts; kubelet leaves it to chance.
pub fn service_variables<'a>(
    services: impl IntoIterator<Item = &'a ServiceFacts>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut told: BTreeMap<&str, &ServiceFacts> = BTreeMap::new();
    for service in services {
        // The pod's own namespace may have a service `kubernetes` too, which counts then, as on kubelet.
        let own = service.namespace == namespace;
        if service.is_told(namespace, links) && (own || !told.contains_key(service.name.as_str())) {
            told.insert(&service.name, service);
        }
    }
    let mut variables = BTreeMap::new();
    told.values().for_each(|service| service.add_to(&mut variables));
    variables
}

/// A name as that of a variable.
fn variable(name: &str) -> String {
    let upper = name.replace(['.', '-'], "_").to_uppercase();
    if upper.starts_with(|c: char| c.is_ascii_digit()) { format!("_{upper}") } else { upper }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str, ports: &Value) -> Option<ServiceFacts> {
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "clusterIP": ip, "ports": ports },
        }))
        .unwrap();
        ServiceFacts::of(&service)
    }

    #[test]
    fn a_service_is_told_of_as_docker_links_and_kubelet_do() {
        let ports =
            json!([{ "port": 80, "name": "web-ui" }, { "port": 53, "name": "dns", "protocol": "UDP" }]);
        let service = service("ns", "my-app.2", "10.0.0.7", &ports).unwrap();
        let variables = service_variables([&service], "ns", true);
        let told: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            told,
            [
                "MY_APP_2_PORT=tcp://10.0.0.7:80",
                "MY_APP_2_PORT_53_UDP=udp://10.0.0.7:53",
                "MY_APP_2_PORT_53_UDP_ADDR=10.0.0.7",
                "MY_APP_2_PORT_53_UDP_PORT=53",
                "MY_APP_2_PORT_53_UDP_PROTO=udp",
                "MY_APP_2_PORT_80_TCP=tcp://10.0.0.7:80",
                "MY_APP_2_PORT_80_TCP_ADDR=10.0.0.7",
                "MY_APP_2_PORT_80_TCP_PORT=80",
                "MY_APP_2_PORT_80_TCP_PROTO=tcp",
                "MY_APP_2_SERVICE_HOST=10.0.0.7",
                "MY_APP_2_SERVICE_PORT=80",
                "MY_APP_2_SERVICE_PORT_DNS=53",
                "MY_APP_2_SERVICE_PORT_WEB_UI=80",
            ]
        );
    }

    #[test]
    fn which_services_a_pod_is_told_of() {
        let ports = json!([{ "port": 443 }]);
        let facts = |namespace, name, ip| service(namespace, name, ip, &ports).unwrap();
        let all = [
            facts("default", "kubernetes", "10.0.0.1"),
            facts("default", "app", "10.0.0.2"),
            facts("ns", "kubernetes", "10.0.0.3"),
            facts("ns", "6pack", "fd00::4"),
        ];
        let told = |namespace: &str, links| {
            let variables = service_variables(&all, namespace, links);
            let hosts = variables.into_iter().filter(|(name, _)| name.ends_with("_SERVICE_HOST"));
            hosts.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(told("default", false), ["KUBERNETES_SERVICE_HOST=10.0.0.1"]);
        assert_eq!(told("default", true), ["APP_SERVICE_HOST=10.0.0.2", "KUBERNETES_SERVICE_HOST=10.0.0.1"]);
        assert_eq!(told("ns", true), ["KUBERNETES_SERVICE_HOST=10.0.0.3", "_6PACK_SERVICE_HOST=fd00::4"]);
        assert_eq!(told("ns", false), ["KUBERNETES_SERVICE_HOST=10.0.0.1"]);
        assert_eq!(told("other", true), ["KUBERNETES_SERVICE_HOST=10.0.0.1"]);
        assert_eq!(service_variables(&all, "ns", true)["_6PACK_PORT"], "tcp://[fd00::4]:443");
    }

    #[test]
    fn a_service_without_an_address_is_not_told_of() {
        for ip in ["", "None"] {
            assert_eq!(service("ns", "a", ip, &json!([{ "port": 1 }])), None);
        }
        let bare = service("ns", "a", "10.0.0.1", &json!([])).unwrap();
        assert!(service_variables([&bare], "ns", true).is_empty());
    }
}
