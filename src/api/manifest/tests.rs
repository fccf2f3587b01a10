//! Every way in which a manifest can be unreadable, and the stability of its canonical form.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::api::uid_hash::{HashOrigin, static_pod_uid};

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web, 1: one}
spec:
  hostNetwork: yes
  containers:
  - name: nginx
    image: nginx:1.29 # pinned
    ports:
    - containerPort: 80
    resources:
      limits: {cpu: 0.5, memory: 64Mi}
    livenessProbe:
      httpGet: {port: 80}
  volumes:
  - name: s
    secret: {secretName: s, defaultMode: 0644}
";

fn one(text: &str) -> ParsedPod {
    let mut pods = parse(text.as_bytes(), Shape::Pod).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

fn refused(text: &str) -> String {
    parse(text.as_bytes(), Shape::Pod).expect_err("must be refused").to_string()
}

#[test]
fn reads_yaml_as_kubernetes_does() {
    let pod = one(POD).pod;
    let spec = pod.spec.unwrap();
    assert_eq!(spec.host_network, Some(true));
    let container = &spec.containers[0];
    assert_eq!(container.image.as_deref(), Some("nginx:1.29"));
    let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!(limits["cpu"].0, "0.5");
    assert_eq!(spec.volumes.unwrap()[0].secret.as_ref().unwrap().default_mode, Some(0o644));
    assert_eq!(pod.metadata.labels.unwrap()["1"], "one");
}

#[test]
fn json_and_yaml_of_one_pod_have_one_canonical_form() {
    let json = r#"{"kind":"Pod","spec":{"volumes":[{"secret":{"defaultMode":420,"secretName":"s"},"name":"s"}],
	"containers":[{"livenessProbe":{"httpGet":{"port":80}},"resources":{"limits":{"memory":"64Mi","cpu":0.5}},
	"ports":[{"containerPort":80}],"image":"nginx:1.29","name":"nginx"}],"hostNetwork":true},
	"metadata":{"labels":{"1":"one","app":"web"},"name":"web","creationTimestamp":null},"apiVersion":"v1"}"#;
    let (a, b) = (one(POD), one(json));
    assert_eq!(a.document.canonical(), b.document.canonical());
    assert_eq!(a.pod, b.pod);
}

#[test]
fn json_escapes_survive() {
    let pod = one(
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","annotations":{"x":"\ud83d\ude00\/\u0001"}},"spec":{"containers":[]}}"#,
    );
    assert_eq!(pod.pod.metadata.annotations.as_ref().unwrap()["x"], "\u{1f600}/\u{1}");
    assert!(pod.document.canonical().contains("\\u0001"));
}

#[test]
fn unknown_fields_are_named_all_at_once_with_line_and_suggestion() {
    let text = POD.replace("image:", "imge:").replace("  volumes:", "  hostnetwork: true\n  volumez:");
    let message = refused(&text);
    assert!(
        message.contains("spec.containers[0].imge: unknown field, did you mean \"image\"? (line 10)"),
        "{message}"
    );
    assert!(message.contains("spec.hostnetwork: unknown field, did you mean \"hostNetwork\"?"), "{message}");
    assert!(message.contains("spec.volumez: unknown field, did you mean \"volumes\"?"), "{message}");
    let message = refused(&POD.replace("hostNetwork", "fromTheFuture"));
    assert!(message.contains("spec.fromTheFuture: unknown field (line 7)"), "{message}");
}

#[test]
fn wrong_types_are_named_with_path_and_line() {
    for (from, to, want) in [
        (
            "image: nginx:1.29",
            "image: 5",
            "spec.containers[0].image: expected a string, found the number 5: put the value in quotes (line 10)",
        ),
        (
            "containerPort: 80",
            "containerPort: \"80\"",
            "spec.containers[0].ports[0].containerPort: expected a whole number, found a string (line 12)",
        ),
        (
            "hostNetwork: yes",
            "hostNetwork: 1",
            "spec.hostNetwork: expected true or false, found the number 1 (line 7)",
        ),
        (
            "labels: {app: web, 1: one}",
            "labels: {a: true}",
            "metadata.labels.a: expected a string, found the boolean true",
        ),
        (
            "containerPort: 80",
            "containerPort: 5000000000",
            "spec.containers[0].ports[0].containerPort: invalid value",
        ),
        (
            "labels: {app: web, 1: one}",
            "labels: [a]",
            "metadata.labels: expected a mapping, found a list (line 5)",
        ),
    ] {
        let message = refused(&POD.replace(from, to));
        assert!(message.contains(want), "{message}\nwant {want}");
    }
    assert!(
        refused("apiVersion: v1\nkind: Pod\nspec: {containers: {}}")
            .contains("expected a list, found a mapping")
    );
    assert!(refused("- a").contains("expected a v1 Pod, found a list (line 1)"));
}

#[test]
fn other_kinds_are_refused_before_their_fields() {
    let message = refused("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1}");
    assert_eq!(
        message,
        "apiVersion: Unsupported value: \"apps/v1\": must be v1 (line 1); kind: Unsupported value: \"Deployment\": must be Pod (line 2)"
    );
    assert!(refused("metadata: {name: a}").starts_with("apiVersion: Required value: must be v1"));
    assert!(refused("apiVersion: v1\nkind: PodList\nitems: []").contains("must be Pod"));
}

#[test]
fn duplicate_keys_are_refused_with_both_lines() {
    let message = refused(&POD.replace("    ports:", "    image: other\n    ports:"));
    assert_eq!(message, "spec.containers[0].image: duplicate key, already set on line 10 (line 11)");
    let message = refused(r#"{"apiVersion":"v1","kind":"Pod","kind":"Pod"}"#);
    assert!(
        message.contains("JSON syntax error at line 1, column") && message.contains("duplicate key \"kind\""),
        "{message}"
    );
}

#[test]
fn exactly_one_document() {
    assert_eq!(one(&format!("---\n{POD}---\n# nothing\n")).pod, one(POD).pod);
    assert_eq!(
        parse(format!("{POD}---\n{POD}").as_bytes(), Shape::Pod).unwrap_err(),
        ManifestError::MultipleDocuments { line: 20 }
    );
}

#[test]
fn empty_binary_huge_and_torn_files_are_told_apart() {
    for empty in ["", " \n\t\n", "# only a comment\n", "---\n---\n", "null"] {
        assert_eq!(parse(empty.as_bytes(), Shape::Pod).unwrap_err(), ManifestError::Empty, "{empty:?}");
    }
    assert!(matches!(
        parse(b"\x7fELF\x02\x01\x01\x00", Shape::Pod).unwrap_err(),
        ManifestError::Binary { reason: "a zero byte", offset: 7 }
    ));
    assert!(matches!(
        parse(b"a: \xff\xfe", Shape::Pod).unwrap_err(),
        ManifestError::Binary { offset: 3, .. }
    ));
    let huge = vec![b'#'; MAX_MANIFEST_BYTES + 1];
    assert_eq!(parse(&huge, Shape::Pod).unwrap_err(), ManifestError::TooLarge { limit: MAX_MANIFEST_BYTES });
    assert!(
        refused("apiVersion: v1\nkind: Pod\nspec: {containers: [").starts_with("YAML syntax error at line")
    );
    assert!(refused("{\"apiVersion\": \"v1\",").starts_with("JSON syntax error at line 1"));
    assert!(refused("a:\n\tb: 1").contains("line 2"));
}

#[test]
fn a_byte_order_mark_is_no_content() {
    assert_eq!(one(&format!("\u{feff}{POD}")).pod, one(POD).pod);
}

#[test]
fn anchors_aliases_and_merges_work_within_bounds() {
    let text = "apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers:
  - &base
    name: one
    image: i
    env: &env [{name: A, value: b}]
  - <<: *base
    name: two
    env: *env
";
    let containers = one(text).pod.spec.unwrap().containers;
    assert_eq!(containers[1].name, "two");
    assert_eq!(containers[1].image.as_deref(), Some("i"));
    assert_eq!(containers[1].env, containers[0].env);
}

#[test]
fn alias_bombs_stop_at_the_limit() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..30 {
        let alias = format!("*a{}", i - 1);
        let _infallible = writeln!(bomb, "a{i}: &a{i} [{}]", [alias.as_str(); 10].join(","));
    }
    assert!(matches!(
        parse(bomb.as_bytes(), Shape::Pod).unwrap_err(),
        ManifestError::TooComplex { what: "values", .. }
    ));
    let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 100].join(","));
    assert!(matches!(
        parse(wide.as_bytes(), Shape::Pod).unwrap_err(),
        ManifestError::TooComplex { what: "bytes", .. }
    ));
    assert!(refused("a: &a [*a]").contains("alias refers to the node that it stands in"));
    assert!(refused("a: *nope").contains("YAML syntax error"));
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    let deep = format!("a: {}", "[".repeat(200_000));
    assert!(refused(&deep).starts_with("YAML syntax error"));
    let mut block = String::new();
    for depth in 0..2000 {
        let _infallible = writeln!(block, "{}a:", " ".repeat(depth));
    }
    assert!(refused(&block).starts_with("YAML syntax error"));
    assert!(refused(&format!("{{\"a\":{}", "[".repeat(200_000))).starts_with("JSON syntax error"));
}

#[test]
fn tags_are_core_ones_or_refused() {
    assert_eq!(
        one(&POD.replace("nginx:1.29", "!!str 5")).pod.spec.unwrap().containers[0].image.as_deref(),
        Some("5")
    );
    assert!(refused(&POD.replace("nginx:1.29", "!!int a")).contains("the tag !!int does not fit"));
    assert!(
        refused(&POD.replace("nginx:1.29", "!secret a"))
            .contains("the YAML tag !secret is not supported (line 10)")
    );
}

#[test]
fn lists_are_for_urls() {
    let item = "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[]}}";
    let list =
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"PodList\",\"metadata\":{{}},\"items\":[{item},{item}]}}");
    let pods = parse(list.as_bytes(), Shape::PodOrList).unwrap();
    assert_eq!(pods.len(), 2);
    assert_eq!(pods[1].path, "items[1]");
    assert_eq!(parse(POD.as_bytes(), Shape::PodOrList).unwrap().len(), 1);
    assert_eq!(parse(b"apiVersion: v1\nkind: PodList\nitems:\n", Shape::PodOrList).unwrap(), vec![]);
    let error = parse(list.replacen("\"spec\"", "\"spek\"", 1).as_bytes(), Shape::PodOrList).unwrap_err();
    assert_eq!(error.to_string(), "items[0].spek: unknown field, did you mean \"spec\"? (line 1)");
    let error = parse(b"kind: PodList\nitms: []\n", Shape::PodOrList).unwrap_err().to_string();
    assert!(error.contains("itms: unknown field, did you mean \"items\"? (line 2)"), "{error}");
    assert!(error.contains("apiVersion: Required value"), "{error}");
}

#[test]
fn lines_of_fields_and_of_missing_ones() {
    let pod = one(POD);
    assert_eq!(pod.document.line_of("spec.containers[0].image"), Some(10));
    assert_eq!(pod.document.line_of("spec.containers[0].workingDir"), Some(9));
    assert_eq!(pod.document.line_of("metadata.labels"), Some(5));
}

/// A document as data, to be written in many ways.
#[derive(Clone, Debug)]
enum Doc {
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<Doc>),
    Map(Vec<(String, Doc)>),
}

fn doc() -> impl Strategy<Value = Doc> {
    let leaf = prop_oneof![
        "[ -~]{0,12}".prop_map(Doc::Text),
        any::<i64>().prop_map(Doc::Int),
        any::<bool>().prop_map(Doc::Bool)
    ];
    let node = leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Doc::List),
            proptest::collection::btree_map("[a-z]{1,6}", inner, 0..5)
                .prop_map(|m| Doc::Map(m.into_iter().collect())),
        ]
    });
    proptest::collection::btree_map("[a-z]{1,6}", node, 1..5).prop_map(|m| Doc::Map(m.into_iter().collect()))
}

fn json_of(doc: &Doc, reversed: bool, space: &str) -> String {
    match doc {
        Doc::Text(t) => serde_json::to_string(t).unwrap(),
        Doc::Int(i) => i.to_string(),
        Doc::Bool(b) => b.to_string(),
        Doc::List(l) => {
            let items: Vec<_> = l.iter().map(|d| json_of(d, reversed, space)).collect();
            format!("[{space}{}{space}]", items.join(&format!(",{space}")))
        }
        Doc::Map(m) => {
            let mut items: Vec<_> =
                m.iter().map(|(k, d)| format!("\"{k}\":{space}{}", json_of(d, reversed, space))).collect();
            if reversed {
                items.reverse();
            }
            format!("{{{space}{}{space}}}", items.join(&format!(",{space}")))
        }
    }
}

fn yaml_of(doc: &Doc, indent: usize) -> String {
    let pad = "  ".repeat(indent);
    match doc {
        Doc::Text(t) => format!("'{}'", t.replace('\'', "''")),
        Doc::Int(i) => i.to_string(),
        Doc::Bool(b) => if *b { "yes" } else { "Off" }.to_owned(),
        Doc::List(l) if l.is_empty() => "[]".to_owned(),
        Doc::Map(m) if m.is_empty() => "{}".to_owned(),
        Doc::List(l) => l
            .iter()
            .map(|d| format!("\n{pad}- # note\n{pad}  {}", yaml_of(d, indent + 1).trim_start()))
            .collect(),
        Doc::Map(m) => {
            m.iter().rev().map(|(k, d)| format!("\n{pad}\"{k}\": {}", yaml_of(d, indent + 1))).collect()
        }
    }
}

fn canonical(text: &str) -> String {
    yaml::parse(text.as_bytes(), LIMITS).unwrap_or_else(|e| panic!("{e}\n{text}")).canonical()
}

/// Changes one leaf, chosen by `pick`.
fn changed(doc: &Doc, pick: &mut usize) -> Doc {
    match doc {
        Doc::List(l) if !l.is_empty() => Doc::List(l.iter().map(|d| changed(d, pick)).collect()),
        Doc::Map(m) if !m.is_empty() => {
            Doc::Map(m.iter().map(|(k, d)| (k.clone(), changed(d, pick))).collect())
        }
        leaf => {
            let hit = *pick == 0;
            *pick = pick.wrapping_sub(1);
            match leaf {
                leaf if !hit => leaf.clone(),
                Doc::Text(t) => Doc::Text(format!("{t}!")),
                Doc::Int(i) => Doc::Int(i.wrapping_add(1)),
                Doc::Bool(b) => Doc::Bool(!b),
                _ => Doc::Int(1),
            }
        }
    }
}

proptest! {
    #[test]
    fn the_hash_sees_content_and_not_form(doc in doc()) {
        let plain = canonical(&json_of(&doc, false, ""));
        prop_assert_eq!(&plain, &canonical(&json_of(&doc, true, "\n\t ")));
        prop_assert_eq!(&plain, &canonical(&yaml_of(&doc, 0)));
        // The canonical form is itself JSON of the same content.
        prop_assert_eq!(&plain, &canonical(&plain));
    }

    #[test]
    fn the_hash_sees_every_change(doc in doc(), pick in 0usize..12) {
        let before = canonical(&json_of(&doc, false, ""));
        let mut left = pick;
        let after_doc = changed(&doc, &mut left);
        let after = canonical(&json_of(&after_doc, false, ""));
        let touched = left > pick;
        let uid = |c: &str| static_pod_uid(c, "node", HashOrigin::File("/m/a.yaml"));
        prop_assert_eq!(touched, before != after);
        prop_assert_eq!(touched, uid(&before) != uid(&after));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _refused = parse(&bytes, Shape::PodOrList);
    }

    #[test]
    fn arbitrary_text_in_a_pod_never_panics(text in "[\\x20-\\x7e\\n]{0,200}") {
        let _either = parse(format!("apiVersion: v1\nkind: Pod\nspec:\n  {text}").as_bytes(), Shape::Pod);
    }
}
