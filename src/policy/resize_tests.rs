//! Resources that change in place.

use serde_json::json;

use super::*;
use crate::policy::{
    fingerprints::container_fingerprint,
    fit::NodeRoom,
    testing::{self, container, exited, observed, sandbox},
};

/// A pod with a sidecar `side` and the container `a`, whose resources are these.
fn pod(a: &Value, side: &Value) -> Pod {
    let spec = json!({
        "initContainers": [
            { "name": "first", "image": testing::IMAGE },
            { "name": "side", "image": testing::IMAGE, "restartPolicy": "Always", "resources": side },
        ],
        "containers": [{ "name": "a", "image": testing::IMAGE, "resources": a }],
    });
    let mut pod = testing::pod(&[]);
    pod.spec = Some(serde_json::from_value(spec).unwrap());
    pod
}

fn amounts_of(cpu: &str, memory: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": memory } })
}

fn small() -> Pod {
    pod(&amounts_of("100m", "64Mi"), &json!({}))
}

fn node(cpu: i64) -> NodeSettings {
    let room = NodeRoom {
        pods: None,
        amounts: [("cpu", cpu), ("memory", 1 << 30)].map(|(name, n)| (name.to_owned(), n)).into(),
    };
    NodeSettings { room, in_place_resize: true, ..testing::node() }
}

/// As it was made from `pod`.
fn made(pod: &Pod, name: &str) -> ObservedContainer {
    let mut seen = container(name, "s");
    seen.fingerprint = Some(container_fingerprint(pod, container_of(pod, name).unwrap()));
    seen
}

#[test]
fn a_pod_keeps_what_it_was_taken_with_until_more_is_allocated() {
    let taken = small();
    let mut wanted = pod(&amounts_of("200m", "64Mi"), &json!({}));
    wanted.metadata.generation = Some(2);
    let kept = keep_resources(&taken, Arc::new(wanted.clone()));
    assert_eq!((&kept.spec, kept.metadata.generation), (&taken.spec, Some(2)));
    assert!(differs(&kept, &wanted));
    // The same amount in another way of writing, and other things, are nothing to wait for.
    let same = Arc::new(pod(&amounts_of("0.1", "65536Ki"), &json!({})));
    assert!(Arc::ptr_eq(&keep_resources(&taken, Arc::clone(&same)), &same));
    wanted.metadata.annotations =
        Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    let wanted = Arc::new(wanted);
    assert!(Arc::ptr_eq(&keep_resources(&taken, Arc::clone(&wanted)), &wanted), "a static pod");
}

#[test]
fn what_fits_is_given_what_may_fit_waits_and_the_rest_never_is() {
    let taken = small();
    let other = Arc::new(pod(&amounts_of("500m", "64Mi"), &json!({})));
    let verdict = |wanted: &Pod, node: &NodeSettings| {
        judge(&taken, wanted, std::slice::from_ref(&other), node).map_err(|why| (why.reason(), why.message))
    };
    let asking = |cpu| pod(&amounts_of(cpu, "64Mi"), &json!({}));
    assert_eq!(verdict(&asking("500m"), &node(1000)), Ok(()));
    let (reason, message) = verdict(&asking("600m"), &node(1000)).unwrap_err();
    assert_eq!(reason, "Deferred");
    assert_eq!(message, "Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000");
    let (reason, message) = verdict(&asking("1100m"), &node(1000)).unwrap_err();
    assert_eq!(reason, "Infeasible");
    assert_eq!(message, "Node didn't have enough capacity: cpu, requested: 1100, capacity: 1000");

    let off = NodeSettings { in_place_resize: false, ..node(1000) };
    let mut of_pod = asking("100m");
    of_pod.spec.as_mut().unwrap().resources =
        serde_json::from_value(json!({ "requests": { "cpu": "1" } })).unwrap();
    let mut by_manifest = asking("200m");
    by_manifest.metadata.annotations =
        Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    let mut swapping = node(1000);
    let resources = &mut swapping.resources;
    (resources.limited_swap, resources.swap_controller, resources.cgroup_v2) = (true, true, true);
    let half = |memory| pod(&json!({ "requests": { "memory": memory } }), &json!({}));
    let mut restarting = half("8Mi");
    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    restarting.spec.as_mut().unwrap().containers[0].resize_policy = serde_json::from_value(policy).unwrap();
    let swaps = |taken: &Pod| judge(taken, &half("16Mi"), &[], &swapping).is_err();
    assert_eq!((swaps(&half("8Mi")), swaps(&half("16Mi")), swaps(&restarting)), (true, false, false));
    for (wanted, node, words) in [
        (asking("200m"), off, "InPlacePodVerticalScaling is disabled"),
        (of_pod, node(1000), "InPlacePodLevelResourcesVerticalScaling is disabled"),
        (by_manifest, node(1000), "static-pods"),
        (testing::pod(&["a"]), node(1000), "QOS Class"),
    ] {
        let (reason, message) = verdict(&wanted, &node).unwrap_err();
        assert!(reason == "Infeasible" && message.contains(words), "{message}");
    }
}

#[test]
fn who_asks_for_less_goes_first_then_the_higher_priority() {
    let with_priority = |cpu, priority| {
        let mut pod = pod(&amounts_of(cpu, "64Mi"), &json!({}));
        pod.spec.as_mut().unwrap().priority = Some(priority);
        pod
    };
    let rank = |wanted: &Pod| rank(&small(), wanted);
    assert!(rank(&with_priority("50m", 0)) < rank(&with_priority("200m", 9)));
    assert!(rank(&with_priority("300m", 9)) < rank(&with_priority("200m", 0)));
}

#[test]
fn a_container_is_changed_while_it_runs_or_started_anew_as_its_policy_says() {
    let old = small();
    let mut new = pod(&amounts_of("200m", "64Mi"), &amounts_of("50m", "16Mi"));
    let seen =
        observed(vec![sandbox("s", 0)], vec![made(&old, "a"), made(&old, "side"), container("first", "s")]);
    assert!(plan(&old, &seen, &AllActuated::new()).is_empty());
    let had = actuated_now(&old, &seen, &AllActuated::new());
    assert_eq!(had.keys().collect::<Vec<_>>(), ["a", "side"]);
    let names = |plan: &ResizePlan| plan.update.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let both = plan(&new, &seen, &had);
    assert_eq!((names(&both), both.restart.len()), (vec!["side".to_owned(), "a".to_owned()], 0));
    // Also where nobody knows any more what they had: they were not made with this.
    assert_eq!(names(&plan(&new, &seen, &AllActuated::new())).len(), 2);

    let policy = json!([
        { "resourceName": "cpu", "restartPolicy": "RestartContainer" },
        { "resourceName": "memory", "restartPolicy": "NotRequired" },
    ]);
    new.spec.as_mut().unwrap().containers[0].resize_policy = serde_json::from_value(policy).unwrap();
    let one = plan(&new, &seen, &had);
    assert_eq!(one.restart, [seen.latest("a").unwrap().id.clone()].into());
    assert_eq!(names(&one), ["side"]);
    // What changes beside it in the other way is done by the same start; alone it is done in place.
    let mut memory = pod(&amounts_of("100m", "128Mi"), &json!({}));
    memory.spec.as_mut().unwrap().containers[0].resize_policy =
        new.spec().containers[0].resize_policy.clone();
    assert_eq!(names(&plan(&memory, &seen, &had)), ["a"]);

    // Done: what was told counts, until another container comes that was made with it.
    let told = |pod: &Pod, name: &str| Actuated {
        id: seen.latest(name).unwrap().id.clone(),
        resources: container_of(pod, name).unwrap().resources.clone().unwrap(),
    };
    let done: AllActuated = ["a", "side"].map(|name| (name.to_owned(), told(&new, name))).into();
    assert!(plan(&new, &seen, &done).is_empty());
    let mut next = made(&new, "a");
    next.id = "next".into();
    let seen = observed(vec![sandbox("s", 0)], vec![next, made(&new, "side")]);
    assert!(plan(&new, &seen, &done).is_empty());
    // What does not run has nothing to be changed.
    let seen = observed(vec![sandbox("s", 0)], vec![exited("a", "s", 1, 5)]);
    assert!(plan(&new, &seen, &had).is_empty());
}

#[test]
fn memory_that_is_given_back_comes_first_and_is_looked_at_before() {
    let old = pod(&amounts_of("100m", "64Mi"), &amounts_of("100m", "64Mi"));
    let new = pod(&amounts_of("100m", "32Mi"), &amounts_of("100m", "96Mi"));
    let seen = observed(vec![sandbox("s", 0)], vec![made(&old, "a"), made(&old, "side")]);
    let had = actuated_now(&old, &seen, &AllActuated::new());
    assert_eq!(
        plan(&new, &seen, &had).update.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["a", "side"]
    );
    let lower = |name| lower_memory_limit(container_of(&new, name).unwrap(), &had);
    assert_eq!((lower("a"), lower("side")), (Some(32 << 20), None));
    // The group over both holds what they have and what they get.
    assert_eq!(with_actuated(&new, &had).spec(), old.spec());
}

#[test]
fn events_tell_the_resources_in_kubelets_words() {
    let told = words("Deferred", &small(), Some(3), Some("no room"));
    let json = told.strip_prefix("Pod resize Deferred: ").unwrap();
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["containers"][0]["resources"]["requests"]["cpu"], "100m");
    assert_eq!(
        (json["initContainers"][1]["name"].as_str(), json["generation"].as_i64()),
        (Some("side"), Some(3))
    );
    assert_eq!(json["error"], "no room");
}

#[test]
fn an_init_container_is_allocated_to_but_never_changed_while_it_runs() {
    let with_init = |cpu: &str| {
        let mut pod = small();
        let init = &mut pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0];
        init.resources = Some(serde_json::from_value(amounts_of(cpu, "16Mi")).unwrap());
        pod
    };
    let (taken, wanted) = (with_init("50m"), with_init("5"));
    assert!(differs(&taken, &wanted));
    assert_eq!(keep_resources(&taken, Arc::new(wanted.clone())).spec, taken.spec);
    let (reason, message) = match judge(&taken, &wanted, &[], &node(1000)) {
        Err(why) => (why.reason(), why.message),
        Ok(()) => panic!("nobody has five CPUs"),
    };
    assert!(reason == "Infeasible" && message.contains("requested: 5000"), "{message}");
    assert_eq!(judge(&taken, &with_init("60m"), &[], &node(1000)), Ok(()));
    let seen = observed(vec![sandbox("s", 0)], vec![container("first", "s")]);
    assert!(plan(&wanted, &seen, &AllActuated::new()).is_empty());
}

#[test]
fn what_a_replaced_container_had_is_forgotten() {
    let old = small();
    let seen = observed(vec![sandbox("s", 0)], vec![made(&old, "a"), made(&old, "side")]);
    let mut had = actuated_now(&old, &seen, &AllActuated::new());
    forget_replaced(&mut had, &seen);
    assert_eq!(had.len(), 2);
    let mut next = made(&old, "a");
    next.id = "next".into();
    forget_replaced(&mut had, &observed(vec![sandbox("s", 0)], vec![next, made(&old, "side")]));
    assert_eq!(had.keys().collect::<Vec<_>>(), ["side"]);
}
