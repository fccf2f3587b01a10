//! What stands in the way, and what is known beforehand to be needed.

use super::{
    tests::{applied, docker_node},
    *,
};
use crate::switch::{
    facts::{ImageFacts, UnitFacts},
    request::Images,
};

fn carried(plan: &Plan) -> Vec<String> {
    let of = |step: &'_ Step| match &step.action {
        Action::CarryImages { images, .. } => Some(images.clone()),
        _ => None,
    };
    plan.steps.iter().find_map(of).unwrap_or_default()
}

fn refusals(facts: &Facts) -> Vec<String> {
    plan(facts, &Request::default()).unwrap().refusals.into_iter().map(|refusal| refusal.message).collect()
}

#[test]
fn which_units_of_docker_run_is_known_before_one_takes_another_along() {
    let plan = plan(&docker_node(), &Request::default()).unwrap();
    let at = |wanted: &dyn Fn(&Action) -> bool| plan.steps.iter().position(|step| wanted(&step.action));
    let known = at(
        &|action| matches!(action, Action::StartWhenUndone { units } if units == &["docker.socket", "docker.service"]),
    );
    let stopped = at(&|action| matches!(action, Action::StopUnit { unit } if unit == "docker.socket"));
    assert!(known.is_some() && known < stopped, "{known:?} {stopped:?}");
}

#[test]
fn the_image_of_sandboxes_comes_along_though_no_pod_runs() {
    let mut facts = docker_node();
    facts.docker.as_mut().unwrap().containers.clear();
    assert_eq!(carried(&plan(&facts, &Request::default()).unwrap()), ["k8s.gcr.io/pause:3.2"]);
    let none = Request { images: Images::None, ..Request::default() };
    assert_eq!(carried(&plan(&facts, &none).unwrap()), [""; 0]);
    // Another that is asked for, by another form of its name.
    let mine = ImageFacts {
        id: "sha256:9".to_owned(),
        tags: vec!["mine:latest".to_owned()],
        ..ImageFacts::default()
    };
    facts.docker.as_mut().unwrap().images.push(mine);
    let asked = |image: &str| Request { pause_image: Some(image.to_owned()), ..Request::default() };
    let planned = plan(&facts, &asked("docker.io/library/mine")).unwrap();
    assert_eq!(
        (carried(&planned), planned.warnings.as_slice()),
        (vec!["mine:latest".to_owned()], [].as_slice())
    );
    let planned = plan(&facts, &asked("r.example/none:1")).unwrap();
    assert_eq!(carried(&planned), [""; 0]);
    assert_eq!(
        planned.warnings,
        [
            "the sandbox image r.example/none:1 is not among Docker's images: containerd has to have it already, or to \
             pull it"
        ]
    );
}

#[test]
fn what_has_to_be_known_and_is_not_stands_in_the_way() {
    let told = |facts: &Facts| plan(facts, &Request::default()).map(drop).map_err(|error| error.to_string());
    let mut facts = docker_node();
    facts.obstacles.docker.push("daemon.json is broken".to_owned());
    facts.obstacles.kubelet.push("config.yaml is not UTF-8".to_owned());
    assert_eq!(told(&facts), Err("config.yaml is not UTF-8; daemon.json is broken".to_owned()));
    facts.obstacles.kubelet.clear();
    let from = Request { from: Some(From::Containerd), ..Request::default() };
    assert!(plan(&facts, &from).is_ok(), "Docker's is nobody's business then");
    facts.obstacles = crate::switch::facts::Obstacles::default();
    facts.problems.push("something else is not known".to_owned());
    let plan = plan(&facts, &Request::default()).unwrap();
    assert_eq!(plan.warnings, ["something else is not known"]);
}

#[test]
fn why_docker_does_not_answer_is_told() {
    let mut facts = docker_node();
    let docker = facts.docker.as_mut().unwrap();
    (docker.answers, docker.silence) = (false, Some("no answer within 10 s".to_owned()));
    let plan = plan(&facts, &Request::default()).unwrap();
    let refusal =
        plan.refusals.iter().find(|refusal| refusal.message.starts_with("Docker does not")).unwrap();
    assert!(refusal.message.ends_with("(no answer within 10 s)"), "{}", refusal.message);
    assert!(refusal.hint.contains("one of them hangs"), "{}", refusal.hint);
}

#[test]
fn a_moved_node_without_containerd_is_not_as_asked() {
    let facts = docker_node();
    let first = plan(&facts, &Request::default()).unwrap();
    let mut moved = applied(facts, &first);
    assert_eq!(refusals(&moved), [""; 0]);
    moved.tools.insert("containerd".to_owned(), None);
    assert_eq!(refusals(&moved), ["the program containerd is not found in PATH"]);
    moved.units.insert(CONTAINERD.to_owned(), UnitFacts::default());
    assert!(refusals(&moved).contains(&"there is no unit containerd.service".to_owned()));
}
