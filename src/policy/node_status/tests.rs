//! Nodes and patches by tables, and what a patch leads to as a property.

use jiff::ToSpan as _;
use k8s_openapi::api::core::v1::NodeCondition;
use proptest::prelude::*;

use super::*;
use crate::{
    api::cri::{Image, RuntimeHandlerFeatures},
    policy::node_affinity::node_labels,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn template() -> NodeTemplate {
    let labels = [("zone", "a"), ("node.kubernetes.io/instance-type", "big")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    NodeTemplate {
        name: "n1".to_owned(),
        labels: node_labels("n1", "x86_64", &labels.into()),
        processor: "x86_64",
        taints: vec![Taint { key: "t".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }],
        provider_id: Some("cloud://1".to_owned()),
        controller_attaches: true,
        port: 10250,
        ..NodeTemplate::default()
    }
}

fn facts() -> NodeFacts {
    let amounts = NodeResources { milli_cpu: 2000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 10 << 30 };
    let left = NodeResources { milli_cpu: 1500, ..amounts };
    let pages = [(2 << 20, 4 << 20)].into();
    NodeFacts {
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        capacity: resources(amounts, Some(110), &pages),
        allocatable: resources(left, Some(110), &pages),
        runtime: Some(RuntimeTold {
            name: "containerd".to_owned(),
            version: "2.1.0".to_owned(),
            handlers: ["runc", ""]
                .map(|name| RuntimeHandler {
                    name: name.to_owned(),
                    features: Some(RuntimeHandlerFeatures {
                        recursive_read_only_mounts: true,
                        user_namespaces: false,
                    }),
                })
                .into(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                ..RuntimeFeatures::default()
            }),
        }),
        ..NodeFacts::default()
    }
}

fn json_of<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap()
}

/// As the server merges a strategic patch of a status, in what ours use of it.
fn merged(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match (name.as_str(), value) {
            (_, Value::Null) => drop(target.as_object_mut().unwrap().remove(name)),
            ("conditions", Value::Array(changes)) => {
                let list = target.as_object_mut().unwrap().entry("conditions").or_insert(json!([]));
                for change in changes {
                    let all = list.as_array_mut().unwrap();
                    match all.iter_mut().find(|old| old["type"] == change["type"]) {
                        Some(old) => merged(old, change),
                        None => all.push(change.clone()),
                    }
                }
            }
            ("addresses", Value::Array(all)) => {
                assert_eq!(all.last().unwrap(), &json!({"$patch": "replace"}));
                target["addresses"] = all[..all.len() - 1].into();
            }
            (_, Value::Object(_)) => merged(&mut target[name.as_str()], value),
            _ => target[name.as_str()] = value.clone(),
        }
    }
}

fn after(current: &NodeStatus, patch: &Value) -> NodeStatus {
    let mut status = json_of(current);
    merged(&mut status, &patch["status"]);
    serde_json::from_value(status).unwrap()
}

fn condition<'a>(status: &'a NodeStatus, type_: &str) -> &'a NodeCondition {
    status.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == type_).unwrap()
}

#[test]
fn a_new_node_says_all() {
    let node = json_of(&new_node(&template(), &facts(), now()));
    assert_eq!(
        node["metadata"],
        json!({
            "name": "n1",
            "labels": {
                "kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
                "node.kubernetes.io/instance-type": "big", "zone": "a",
            },
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        })
    );
    assert_eq!(
        node["spec"],
        json!({"providerID": "cloud://1", "taints": [{"key": "t", "effect": "NoSchedule"}]})
    );
    let status = &node["status"];
    assert_eq!(
        status["addresses"],
        json!([
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "fd00::1"},
            {"type": "Hostname", "address": "n1"},
        ])
    );
    assert_eq!(
        status["capacity"],
        json!({"cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "pods": "110", "hugepages-2Mi": "4Mi"})
    );
    assert_eq!(status["allocatable"]["cpu"], "1500m");
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "containerd://2.1.0");
    assert!(status["nodeInfo"]["kubeletVersion"].as_str().unwrap().starts_with("v1."));
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    let handler = |name: &str| json!({"name": name, "features": {"recursiveReadOnlyMounts": true, "userNamespaces": false}});
    assert_eq!(status["runtimeHandlers"], json!([handler(""), handler("runc")]));
    assert_eq!(status["features"], json!({"supplementalGroupsPolicy": true}));
    let told: Vec<_> =
        status["conditions"].as_array().unwrap().iter().map(|c| (&c["type"], &c["status"])).collect();
    assert_eq!(
        json!(told),
        json!([
            ["MemoryPressure", "False"],
            ["DiskPressure", "False"],
            ["PIDPressure", "False"],
            ["Ready", "True"]
        ])
    );
}

#[test]
fn a_cloud_controller_has_the_first_word_on_addresses() {
    let mut template = NodeTemplate { external_cloud: true, ..template() };
    let node = new_node(&template, &facts(), now());
    assert_eq!(node.status.as_ref().unwrap().addresses, None);
    let taints = node.spec.unwrap().taints.unwrap();
    assert_eq!(taints[1].key, "node.cloudprovider.kubernetes.io/uninitialized");
    template.given_addresses = facts().addresses;
    let node = new_node(&template, &facts(), now());
    let mut status = node.status.unwrap();
    assert_eq!(status.addresses.as_ref().map(Vec::len), Some(3));
    assert_eq!(
        node.metadata.annotations.unwrap()["alpha.kubernetes.io/provided-node-ip"],
        "10.0.0.1,fd00::1"
    );
    let of_the_cloud = status.addresses.as_ref().map(|all| all[..1].to_vec());
    status.addresses.clone_from(&of_the_cloud);
    assert_eq!(super::status(&status, &template, &facts(), now()).addresses, of_the_cloud);
}

#[test]
fn of_an_existing_node_the_default_labels_are_ours_and_no_more() {
    let fresh = new_node(&template(), &facts(), now());
    assert_eq!(reconcile(&fresh, &template(), &facts()), None);
    let mut node = fresh;
    let labels = node.metadata.labels.as_mut().unwrap();
    labels.insert("zone".to_owned(), "of somebody else".to_owned());
    labels.insert("kubernetes.io/hostname".to_owned(), "other".to_owned());
    labels.remove("beta.kubernetes.io/os");
    labels.remove("node.kubernetes.io/instance-type");
    node.metadata.annotations = Some([("note".to_owned(), "theirs".to_owned())].into());
    node.spec.as_mut().unwrap().taints = None;
    let capacity = node.status.as_mut().unwrap().capacity.as_mut().unwrap();
    for name in ["hugepages-1Gi", "example.com/gpu"] {
        capacity.insert(name.to_owned(), Default::default());
    }
    assert_eq!(
        reconcile(&node, &template(), &facts()),
        Some(json!({
            "metadata": {
                "labels": {
                    "beta.kubernetes.io/os": "linux", "kubernetes.io/hostname": "n1",
                    "node.kubernetes.io/instance-type": "big",
                },
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "status": {"capacity": {"hugepages-1Gi": null}},
        }))
    );
    // A label of no value is taken away, and an annotation that does not hold any more.
    let mut changed = template();
    changed.labels.insert("node.kubernetes.io/instance-type".to_owned(), String::new());
    changed.controller_attaches = false;
    let mut node = new_node(&template(), &facts(), now());
    assert_eq!(
        reconcile(&node, &changed, &facts()),
        Some(json!({"metadata": {
            "labels": {"node.kubernetes.io/instance-type": null},
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": null},
        }}))
    );
    node.metadata.labels.as_mut().unwrap().remove("node.kubernetes.io/instance-type");
    node.metadata.annotations = None;
    assert_eq!(reconcile(&node, &changed, &facts()), None);
}

#[test]
fn what_others_wrote_stays() {
    let mut theirs = status(&NodeStatus::default(), &template(), &facts(), now());
    theirs.conditions.as_mut().unwrap().insert(
        0,
        NodeCondition {
            type_: "NetworkUnavailable".to_owned(),
            status: "False".to_owned(),
            ..NodeCondition::default()
        },
    );
    let gpu = "example.com/gpu".to_owned();
    let text = |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned());
    theirs.capacity.as_mut().unwrap().insert(gpu.clone(), text("4"));
    theirs.allocatable.as_mut().unwrap().insert("example.com/gone".to_owned(), text("1"));
    theirs.volumes_in_use = Some(vec!["v".to_owned()]);
    let next = status(&theirs, &template(), &facts(), now());
    assert_eq!(condition(&next, "NetworkUnavailable").status, "False");
    assert_eq!(next.capacity.as_ref().unwrap()[&gpu], text("4"));
    assert_eq!(next.allocatable.as_ref().unwrap()[&gpu], text("4"));
    assert!(!next.allocatable.as_ref().unwrap().contains_key("example.com/gone"));
    let patch = status_patch(&theirs, &next);
    assert_eq!(patch["status"]["allocatable"], json!({"example.com/gpu": "4", "example.com/gone": null}));
    assert!(patch["status"].get("volumesInUse").is_none() && patch["status"].get("capacity").is_none());
    assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 4);
    assert_eq!(after(&theirs, &patch), next);
}

#[test]
fn a_condition_keeps_its_time_while_its_status_is_the_same() {
    let first = status(&NodeStatus::default(), &template(), &facts(), now());
    let later = now() + 60.seconds();
    let mut facts = facts();
    facts.problems = vec!["container runtime not ready: gone".to_owned()];
    facts.pressures.insert(Pressure::Memory);
    let second = status(&first, &template(), &facts, later);
    let ready = condition(&second, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
    assert_eq!(ready.message.as_deref(), Some("container runtime not ready: gone"));
    assert_eq!(ready.last_transition_time.as_ref().unwrap().0, later);
    assert_eq!(condition(&second, "MemoryPressure").reason.as_deref(), Some("KubeletHasInsufficientMemory"));
    let disk = condition(&second, "DiskPressure");
    assert_eq!(disk.last_transition_time.as_ref().unwrap().0, now());
    assert_eq!(disk.last_heartbeat_time.as_ref().unwrap().0, later);
    facts.problems.push("two".to_owned());
    let third = status(&second, &template(), &facts, later + 1.second());
    let ready = condition(&third, "Ready");
    assert_eq!(ready.message.as_deref(), Some("[container runtime not ready: gone, two]"));
    assert_eq!(ready.last_transition_time.as_ref().unwrap().0, later);
    assert_ne!(content(&second), content(&third));
    assert_eq!(content(&third), content(&status(&third, &template(), &facts, later + 9.seconds())));
}

#[test]
fn what_is_not_known_is_left_as_it_was() {
    let full =
        status(&NodeStatus::default(), &template(), &NodeFacts { images: Some(vec![]), ..facts() }, now());
    let mut less = facts();
    (less.runtime, less.addresses, less.images) = (None, Vec::new(), None);
    let next = status(&full, &template(), &less, now());
    assert_eq!(next, full);
}

#[test]
fn the_largest_images_are_told_with_a_few_names() {
    let image = |id: &str, size, tags: usize| Image {
        id: id.to_owned(),
        size,
        repo_digests: vec![format!("{id}@sha256:1")],
        repo_tags: (0..tags).map(|tag| format!("{id}:{tag}")).collect(),
        ..Image::default()
    };
    let all = [image("b", 10, 1), image("a", 10, 9), image("c", 30, 0), image("d", 1, 1)];
    let told = images(&all, Some(3));
    let names: Vec<Vec<String>> = told.iter().map(|image| image.names.clone().unwrap()).collect();
    assert_eq!(names[0], ["c@sha256:1"]);
    assert_eq!(names[1], ["a@sha256:1", "a:0", "a:1", "a:2", "a:3"]);
    assert_eq!(names[2], ["b@sha256:1", "b:0"]);
    assert_eq!(told.len(), 3);
    assert_eq!(images(&all, None).len(), 4);
    assert!(images(&all, Some(0)).is_empty());
}

fn any_facts() -> impl Strategy<Value = NodeFacts> {
    (0i64..9000, 0i64..1 << 40, any::<[bool; 5]>(), prop::collection::btree_map(1u64..4, 0u64..9, 0..3))
        .prop_map(|(cpu, memory, [ready, disk, runtime, images, addresses], pages)| {
            let mut facts = facts();
            let amounts =
                NodeResources { milli_cpu: cpu, memory_bytes: memory, ephemeral_storage_bytes: memory / 2 };
            let pages = pages.into_iter().map(|(size, bytes)| (size << 20, bytes << 20)).collect();
            facts.capacity = resources(amounts, Some(110), &pages);
            facts.allocatable = facts.capacity.clone();
            if !ready {
                facts.problems.push(format!("not ready: {cpu}"));
            }
            if disk {
                facts.pressures.insert(Pressure::Disk);
            }
            if !runtime {
                facts.runtime = None;
            }
            if images {
                facts.images = Some(vec![ContainerImage { names: None, size_bytes: Some(memory) }]);
            }
            if addresses {
                facts.addresses.truncate(1);
            }
            facts
        })
}

proptest! {
    /// The patch makes what the server has what is wanted, and nothing is wanted after it.
    #[test]
    fn a_patch_leads_from_any_status_to_the_next(one in any_facts(), two in any_facts()) {
        let first = status(&NodeStatus::default(), &template(), &one, now());
        let next = status(&first, &template(), &two, now() + 1.second());
        let patched = after(&first, &status_patch(&first, &next));
        prop_assert_eq!(&patched, &next);
        let again = status(&patched, &template(), &two, now() + 2.seconds());
        prop_assert_eq!(content(&again), content(&patched));
    }
}
