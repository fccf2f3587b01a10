//! Policies, merging and limits, and what is read from a `resolv.conf`.

use k8s_openapi::api::core::v1::PodDNSConfig;
use proptest::prelude::*;

use super::*;
use crate::policy::testing;

fn node() -> NodeSettings {
    NodeSettings {
        cluster_dns: vec!["10.96.0.10".parse().unwrap()],
        cluster_domain: "cluster.local".into(),
        ..testing::node()
    }
}

fn host() -> Resolver {
    Resolver::parse("nameserver 192.0.2.1\nsearch example.com\noptions timeout:2 rotate\n").unwrap()
}

fn pod(policy: &str) -> Pod {
    let mut pod = testing::pod(&["a"]);
    pod.spec.as_mut().unwrap().dns_policy = Some(policy.into());
    pod
}

fn dns(pod: &Pod) -> [String; 3] {
    let made = pod_dns(pod, &node(), Some(&host()));
    assert_eq!(made.notes, Vec::<String>::new());
    [made.config.servers, made.config.searches, made.config.options].map(|list| list.join(" "))
}

#[test]
fn every_policy() {
    let cluster =
        ["10.96.0.10", "default.svc.cluster.local svc.cluster.local cluster.local example.com", "ndots:5"];
    let of_the_host = ["192.0.2.1", "example.com", "timeout:2 rotate"];
    assert_eq!(dns(&pod("ClusterFirst")), cluster);
    assert_eq!(dns(&pod("ClusterFirstWithHostNet")), cluster);
    assert_eq!(dns(&pod("Default")), of_the_host);
    assert_eq!(dns(&pod("None")), ["", "", ""]);
    let mut on_the_host = pod("ClusterFirst");
    on_the_host.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(dns(&on_the_host), of_the_host);
    on_the_host.spec.as_mut().unwrap().dns_policy = Some("ClusterFirstWithHostNet".into());
    assert_eq!(dns(&on_the_host), cluster);
}

#[test]
fn a_pods_own_settings_are_merged() {
    let option = |name: &str, value: Option<&str>| PodDNSConfigOption {
        name: Some(name.into()),
        value: value.map(str::to_owned),
    };
    let own = PodDNSConfig {
        nameservers: Some(vec!["192.0.2.9".into(), "192.0.2.1".into()]),
        searches: Some(vec!["own.example".into(), "example.com".into()]),
        options: Some(vec![option("timeout", Some("9")), option("rotate", None), option("edns0", None)]),
    };
    let with = |policy: &str| {
        let mut pod = pod(policy);
        pod.spec.as_mut().unwrap().dns_config = Some(own.clone());
        dns(&pod)
    };
    assert_eq!(with("Default"), ["192.0.2.1 192.0.2.9", "example.com own.example", "timeout:9 rotate edns0"]);
    assert_eq!(with("None"), ["192.0.2.9 192.0.2.1", "own.example example.com", "timeout:9 rotate edns0"]);
    assert_eq!(with("ClusterFirst")[0], "10.96.0.10 192.0.2.9 192.0.2.1");
    assert_eq!(with("ClusterFirst")[2], "ndots:5 timeout:9 rotate edns0");
}

#[test]
fn without_cluster_servers_the_hosts_are_taken_and_it_is_told() {
    let made = pod_dns(&pod("ClusterFirst"), &testing::node(), Some(&host()));
    assert_eq!(made.config.servers, ["192.0.2.1"]);
    assert!(made.falls_back && made.notes.is_empty());
    assert!(!pod_dns(&pod("Default"), &testing::node(), Some(&host())).falls_back);
}

#[test]
fn an_empty_resolv_conf_means_no_names() {
    let made = pod_dns(&pod("Default"), &testing::node(), None).config;
    assert_eq!((made.servers, made.searches), (vec!["127.0.0.1".to_owned()], vec![".".to_owned()]));
    let node = NodeSettings { host_ips: vec!["fd00::1".parse().unwrap()], ..testing::node() };
    assert_eq!(pod_dns(&pod("Default"), &node, None).config.servers, ["::1"]);
    assert_eq!(pod_dns(&pod("None"), &node, None).config.servers, Vec::<String>::new());
}

#[test]
fn limits_are_kept_and_told() {
    let mut many = pod("Default");
    let names = |count: usize, len: usize| -> Vec<String> {
        (0..count).map(|n| format!("{n:03}{}", "x".repeat(len - 3))).collect()
    };
    many.spec.as_mut().unwrap().dns_config = Some(PodDNSConfig {
        nameservers: Some((1..=4).map(|n| format!("192.0.2.{n}")).collect()),
        searches: Some(names(40, 10)),
        options: None,
    });
    let made = pod_dns(&many, &node(), Some(&host()));
    assert_eq!(made.config.servers, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(made.config.searches.len(), 32);
    assert_eq!(made.notes.len(), 2, "{:?}", made.notes);

    let fitted = |mut searches: Vec<String>| {
        let cut = fit_searches(&mut searches);
        (searches.len(), searches.join(" ").len(), cut)
    };
    // Eight of 253 with their spaces are 2031 characters; one of 16 more is 2048.
    assert_eq!(fitted(names(8, 253)), (8, 2031, false));
    assert_eq!(fitted([names(8, 253), names(1, 16)].concat()), (9, 2048, false));
    assert_eq!(fitted([names(8, 253), names(1, 17)].concat()), (8, 2031, true));
    assert_eq!(fitted(names(2, 254)), (0, 0, true));
}

#[test]
fn a_resolv_conf_is_read_as_kubelet_does() {
    let text = "# nameserver 1.1.1.1\n; nameserver 1.1.1.2\n\n  nameserver\t192.0.2.1 extra\nnameserver fe80::1%eth0\n\
        domain example.net\nsearch first.example\nsearch a.example. . b.example\n\
        options ndots:2 rotate\noptions ndots:3 trust-ad\nsortlist 192.0.2.0\nnameservers 1.1.1.3";
    let found = Resolver::parse(text).unwrap();
    assert_eq!(found.servers, ["192.0.2.1", "fe80::1%eth0"]);
    assert_eq!(found.searches, ["a.example", "b.example"]);
    assert_eq!(found.options, ["ndots:3", "rotate", "trust-ad"]);
    assert_eq!(Resolver::parse("x\nnameserver \n").unwrap_err(), "line 2: a nameserver without an address");
}

#[test]
fn the_stub_of_systemd_resolved_is_known() {
    let stub = |text: &str| Resolver::parse(text).unwrap().is_stub();
    assert!(stub("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"));
    assert!(!stub("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"));
    assert!(!stub("nameserver 127.0.0.1\n"));
    assert!(!stub(""));
}

proptest! {
    /// Whatever stands in a file, reading it does not fail but for a server without an address.
    #[test]
    fn any_text_can_be_read(text in "(nameserver|search|options|#|[ -~]|\n| ){0,60}") {
        if let Err(error) = Resolver::parse(&text) {
            prop_assert!(error.contains("nameserver"));
        }
    }

    /// What a resolver says, written as a runtime writes it, is read back.
    #[test]
    fn what_is_written_is_read_back(
        servers in prop::collection::vec(any::<IpAddr>().prop_map(|ip| ip.to_string()), 0..4),
        searches in prop::collection::vec("[a-z0-9]{1,9}(\\.[a-z]{1,9})?", 0..5),
        options in prop::collection::hash_set("[a-z]{1,9}", 0..4),
    ) {
        let options: Vec<String> = options.into_iter().collect();
        let line = |what: &str, words: &[String]| {
            if words.is_empty() { String::new() } else { format!("{what} {}\n", words.join(" ")) }
        };
        let mut text = line("search", &searches) + &line("options", &options);
        for server in &servers {
            text += &line("nameserver", std::slice::from_ref(server));
        }
        prop_assert_eq!(Resolver::parse(&text), Ok(Resolver { servers, searches, options }));
    }

    /// Limits hold for whatever a pod asks for, nothing is asked twice, and the cluster's domain comes first.
    #[test]
    fn limits_hold(
        servers in prop::collection::vec("192\\.0\\.2\\.[0-9]", 0..6),
        searches in prop::collection::vec("[a-c]{1,300}", 0..40),
        policy in prop::sample::select(vec!["None", "Default", "ClusterFirst", "ClusterFirstWithHostNet"]),
    ) {
        let mut pod = pod(policy);
        pod.spec.as_mut().unwrap().dns_config = Some(PodDNSConfig {
            nameservers: Some(servers),
            searches: Some(searches),
            options: None,
        });
        let made = pod_dns(&pod, &node(), Some(&host()));
        let DnsConfig { servers: kept, searches: domains, .. } = made.config;
        prop_assert!(kept.len() <= MAX_SERVERS && domains.len() <= MAX_SEARCHES);
        prop_assert!(domains.join(" ").len() <= MAX_SEARCH_CHARS);
        prop_assert!(domains.iter().all(|domain| domain.len() <= MAX_SEARCH_LEN));
        let mut sorted = domains.clone();
        sorted.sort();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), domains.len());
        if policy.starts_with("Cluster") {
            prop_assert_eq!(&kept[0], "10.96.0.10");
            prop_assert_eq!(&domains[0], "default.svc.cluster.local");
        }
    }
}
