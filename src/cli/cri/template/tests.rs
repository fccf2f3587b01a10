//! What templates make of a container's state.

use serde_json::json;

use super::*;

fn data() -> Value {
    json!({
        "status": {
            "id": "abc",
            "state": "CONTAINER_RUNNING",
            "exitCode": 0,
            "createdAt": "1700000000",
            "labels": {"a/b": "1", "c": "2"},
            "mounts": [{"path": "/x"}, {"path": "/y"}],
            "empty": [],
            "ready": true,
        },
        "info": {"pid": 42},
    })
}

fn render(text: &str) -> String {
    match Template::parse(text).and_then(|template| template.render(&data())) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn what_people_write() {
    for (template, expected) in [
        ("{{.status.state}}", "CONTAINER_RUNNING"),
        ("{{ .status.state }} {{.info.pid}}!", "CONTAINER_RUNNING 42!"),
        ("{{range .status.mounts}}{{.path}}\n{{end}}", "/x\n/y\n"),
        ("{{range $i, $m := .status.mounts}}{{$i}}={{$m.path}} {{end}}", "0=/x 1=/y "),
        ("{{range $k, $v := .status.labels}}{{$k}}:{{$v}};{{end}}", "a/b:1;c:2;"),
        ("{{range .status.empty}}x{{else}}none{{end}}", "none"),
        ("{{range .status.mounts}}{{if eq .path \"/y\"}}{{continue}}{{end}}{{.path}}{{end}}", "/x"),
        ("{{range .status.mounts}}{{.path}}{{break}}{{end}}", "/x"),
        ("{{index .status.labels \"a/b\"}}", "1"),
        ("{{(index .status.mounts 1).path}}", "/y"),
        ("{{index .status.mounts 0 \"path\"}}", "/x"),
        ("{{if .status.ready}}yes{{else}}no{{end}}", "yes"),
        ("{{if eq .status.exitCode 1}}one{{else if eq .status.exitCode 0}}zero{{else}}?{{end}}", "zero"),
        ("{{if and .status.ready (not .status.empty)}}ok{{end}}", "ok"),
        ("{{if or .status.empty .status.ready}}ok{{end}}", "ok"),
        ("{{if gt .info.pid 41}}big{{end}}{{if lt .info.pid 41}}small{{end}}", "big"),
        ("{{with .status}}{{.id}} {{$.info.pid}}{{end}}", "abc 42"),
        ("{{with .status.empty}}x{{else}}nothing{{end}}", "nothing"),
        ("{{$x := .status.id}}{{$x}}{{$x = \"new\"}}{{$x}}", "abcnew"),
        ("{{json .status.labels}}", r#"{"a/b":"1","c":"2"}"#),
        ("{{.status.labels | json}}", r#"{"a/b":"1","c":"2"}"#),
        ("{{.status.labels}} {{.status.mounts}}", "map[a/b:1 c:2] [map[path:/x] map[path:/y]]"),
        ("{{len .status.mounts}} {{len .status.id}} {{.status.labels | len}}", "2 3 2"),
        ("{{printf \"%s=%d %5d|%-5s|%03d%%\" .status.id .info.pid 7 \"a\" 7}}", "abc=42     7|a    |007%"),
        (
            "{{printf \"%d %q %.2f %v %t\" .status.createdAt .status.id 1.005 .info .status.ready}}",
            "1700000000 \"abc\" 1.00 map[pid:42] true",
        ),
        ("{{.status.id | printf \"%.2s\" | upper}}", "AB"),
        ("{{title \"ab cd\"}} {{lower \"AB\"}} {{print 1 2 \"a\" 3}}", "Ab Cd ab 1 2a3"),
        ("a  {{- /* gone */ -}}  b {{- .status.id -}} c", "ababcc"),
        ("{{`raw {{text}}`}} {{\"\\t\\u00e9\"}}", "raw {{text}} \té"),
        ("{{eq .status.id \"x\" \"abc\"}} {{ne 1 2}} {{le 1.5 2}} {{ge 2 3}}", "true true true false"),
        ("plain", "plain"),
        ("", ""),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn what_is_broken_is_said_when_it_is_read() {
    for (template, expected) in [
        ("{{.status", "\"{{\" has no \"}}\""),
        ("{{if .a}}x", "{{if}} has no {{end}}"),
        ("{{range .a}}", "{{range}} has no {{end}}"),
        ("{{if .a}}{{else}}x{{else}}{{end}}", "{{if}} has no {{end}}"),
        ("{{end}}", "{{end}} without a block that it ends"),
        ("{{}}", "a value is missing"),
        ("{{.a | }}", "a value is missing"),
        ("{{prinf \"x\"}}", "there is no function \"prinf\", did you mean \"print\"?"),
        ("{{template \"x\"}}", "{{template}} is not supported"),
        ("{{.a .b}}", "a value is no function and takes no arguments"),
        ("{{(len .a}}", "\"(\" has no \")\""),
        ("{{\"x}}", "a text in double quotes has no end"),
        ("{{/* x }}", "a comment has no end"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{1x}}", "\"1x\" is no number"),
        ("{{#}}", "unexpected '#'"),
    ] {
        let error = Template::parse(template).expect_err(template).to_string();
        assert_eq!(error, expected, "{template}");
    }
    Template::parse(&"{{if 1}}".repeat(1000)).unwrap_err();
    Template::parse(&format!("{{{{{}", "(".repeat(1000))).unwrap_err();
}

#[test]
fn what_does_not_fit_the_data_is_said_when_it_runs() {
    for (template, expected) in [
        ("{{.status.stat}}", "error: there is no field \"stat\", did you mean \"state\"?"),
        ("{{.status.mounts.path}}", "error: a list has no field \"path\"; use range or index"),
        ("{{.status.id.x}}", "error: abc has no field \"x\""),
        ("{{index .status.mounts 9}}", "error: index: there is no 9"),
        ("{{index .status.labels \"z\"}}", "error: index: there is no \"z\""),
        ("{{$nope}}", "error: there is no variable $nope"),
        ("{{eq .status.id 1}}", "error: cannot compare \"abc\" with 1"),
        ("{{len 1}}", "error: len needs a text, list or map, not 1"),
        ("{{range .status.id}}{{end}}", "error: range cannot go over \"abc\""),
        ("{{printf \"%d\" \"x\"}}", "error: printf: %d does not fit x"),
        ("{{printf \"%s\"}}", "error: printf: no value for %s"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

proptest::proptest! {
    /// Whatever is typed is a text or an error.
    #[test]
    fn nothing_panics(
        text in "(\\{\\{|\\}\\}|\\{\\{-|-\\}\\}|range |if |with |else |end|eq |len |index |printf |\\.status|\\.|\\$x|:=|=|,|\\||\\(|\\)|\"%5d\"|`|/\\*|\\*/| |é|[0-9a-z\"]){0,24}",
    ) {
        if let Ok(template) = Template::parse(&text) {
            template.render(&data()).ok();
        }
    }
}
