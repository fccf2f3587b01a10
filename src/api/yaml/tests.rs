//! What both readers rely on; their own tests show the messages that come of it.

use super::*;

const LIMITS: Limits = Limits { bytes: 1000, nodes: 100, expanded_bytes: 1000 };

fn read(text: &str) -> Result<Node, YamlError> {
    parse(text.as_bytes(), LIMITS)
}

/// Line and column of the value at `key` and of the key itself.
fn places(node: &Node, key: &str) -> [(u32, u32); 2] {
    let entry = node.get(key).unwrap();
    [(entry.line, entry.column), (entry.value.line, entry.value.column)]
}

#[test]
fn places_are_told_in_yaml_and_json() {
    let node = read("a: 1\nbc:\n  d: [x, y]\n").unwrap();
    assert_eq!(places(&node, "a"), [(1, 1), (1, 4)]);
    assert_eq!(places(&node, "bc"), [(2, 1), (3, 3)]);
    let node = read("{\n  \"a\": 1,\n  \"bc\": {\"d\": []}\n}\n").unwrap();
    assert_eq!(places(&node, "a"), [(2, 3), (2, 8)]);
    assert_eq!(places(&node, "bc"), [(3, 3), (3, 9)]);
}

#[test]
fn json_that_is_no_yaml_is_read_without_places() {
    let node = read("{\n\t\"a\":\t\"\\ud83d\\ude00\"}").unwrap();
    assert_eq!(node.get("a").unwrap().value.as_str(), Some("\u{1f600}"));
}

#[test]
fn every_duplicate_key_is_named_at_once() {
    let Err(YamlError::Faults(faults)) = read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n") else { panic!("accepted") };
    let found: Vec<_> = faults.iter().map(|f| (f.path.as_str(), f.line, f.column)).collect();
    assert_eq!(found, [("b.c", 4, 3), ("a", 5, 1)]);
    assert!(matches!(read("{\"a\": 1, \"a\": 2}"), Err(YamlError::Syntax { format: "JSON", .. })));
}

#[test]
fn aliases_and_merge_keys_are_expanded_within_bounds() {
    let node = read("a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3\n").unwrap();
    assert_eq!(node.canonical(), "{\"a\":{\"k\":1,\"l\":2},\"b\":{\"k\":3,\"l\":2}}");
    let bomb: String = (0..9).map(|n| format!("a{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1)).collect();
    assert_eq!(
        read(&format!("a0: &a0 [x, x]\n{bomb}")),
        Err(YamlError::TooComplex { what: "values", limit: LIMITS.nodes })
    );
    let long = "x".repeat(400);
    assert_eq!(
        read(&format!("a: &a {long}\nb: [*a, *a]\n")),
        Err(YamlError::TooComplex { what: "bytes", limit: LIMITS.expanded_bytes })
    );
}

#[test]
fn what_is_no_document_is_told_apart() {
    assert_eq!(read(""), Err(YamlError::Empty));
    assert_eq!(read(&"#".repeat(1001)), Err(YamlError::TooLarge { limit: 1000 }));
    assert_eq!(read("a: 1\n---\nb: 1\n"), Err(YamlError::MultipleDocuments { line: 2 }));
    assert!(matches!(read("a: [1"), Err(YamlError::Syntax { format: "YAML", line: 1, .. })));
    assert!(matches!(parse(b"a\0", LIMITS), Err(YamlError::Binary { offset: 1, .. })));
}
