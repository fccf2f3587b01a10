//! What is done with an input: shared by the targets of cargo-fuzz and by `tests/fuzz.rs`, which runs a
//! bounded number of inputs on every test run. A body panics when something does not hold.

use std::cell::RefCell;
use std::io::{Seek, Write};

use nodectl::api::manifest::{
    Identity, ManifestError, ParsedPod, Shape, StaticPod, make_static_pod, parse, unsupported::check_support,
};
use nodectl::api::quantity::Quantity;
use nodectl::api::uid_hash::HashOrigin;
use nodectl::api::validation::validate_static_pod;
use nodectl::config::load_on;
use nodectl::policy::expansion::{Room, expand};

/// More bytes are not tried: what is slow with size has a limit of its own, and a test for it.
pub const MOST: usize = 1 << 16;

/// A manifest on its way to a pod.
pub fn manifest(bytes: &[u8]) {
    for shape in [Shape::Pod, Shape::PodOrList] {
        match parse(bytes, shape) {
            Ok(pods) => pods.iter().for_each(|parsed| pod(bytes, parsed)),
            Err(error) => told(bytes, &error),
        }
    }
}

fn pod(bytes: &[u8], parsed: &ParsedPod) {
    // The canonical form is of the same content, and is its own canonical form.
    if parsed.path.is_empty() {
        let canonical = parsed.document.canonical();
        let again = parse(canonical.as_bytes(), Shape::Pod).expect("the canonical form is read").remove(0);
        assert_eq!(again.pod, parsed.pod, "the canonical form is another pod");
        assert_eq!(again.document.canonical(), canonical, "the canonical form has another one");
    }
    // What the agent writes, it reads.
    let mut typed = serde_json::to_value(&parsed.pod).expect("a pod is written");
    typed["apiVersion"] = "v1".into();
    typed["kind"] = "Pod".into();
    let again = parse(typed.to_string().as_bytes(), Shape::Pod).expect("a written pod is read").remove(0);
    assert_eq!(again.pod, parsed.pod, "a pod changes by being written and read");

    let identity = Identity {
        node_name: "Node-1",
        origin: HashOrigin::File("/manifests/pod.yaml"),
        seen: jiff::Timestamp::UNIX_EPOCH,
    };
    match make_static_pod(parsed, &identity) {
        Ok(made) => runnable(&made),
        Err(error) => told(bytes, &error),
    }
}

/// What may be run is valid, honoured, and named harmlessly.
fn runnable(made: &StaticPod) {
    assert_eq!(validate_static_pod(&made.pod), vec![], "an invalid pod passes");
    assert_eq!(check_support(&made.pod).refused, vec![], "a pod passes that is not honoured");
    let meta = &made.pod.metadata;
    for name in [&meta.uid, &meta.name, &meta.namespace] {
        let name = name.as_deref().expect("a pod has a name");
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(name.chars().all(harmless) && !name.starts_with('.') && !name.is_empty(), "{name:?}");
    }
}

/// A refusal says where, and does not drown who reads it.
fn told(bytes: &[u8], error: &ManifestError) {
    let text = error.to_string();
    // An alias unfolds to more than is written.
    if !bytes.contains(&b'*') {
        assert!(text.len() <= 4096 + 512 * bytes.len(), "{} bytes of error", text.len());
    }
    if let ManifestError::Fields(problems) = error {
        assert!(!problems.is_empty(), "refused for nothing");
        let last =
            String::from_utf8_lossy(bytes).split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
        for problem in problems {
            assert!(problem.line.is_none_or(|line| line >= 1 && line as usize <= last), "{problem}");
        }
    }
}

/// Quantities, one on each line.
pub fn quantity(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read: Vec<Quantity> =
        text.split('\n').take(16).filter_map(|line| Quantity::parse(line).ok()).collect();
    for one in &read {
        let printed = one.to_string();
        assert!(printed.len() <= 32, "{printed}");
        let again = Quantity::parse(&printed).expect("a printed quantity is read");
        assert_eq!((again, again.to_string()), (*one, printed));
        assert_eq!(
            serde_json::from_value::<Quantity>(serde_json::json!(one)).expect("JSON of a quantity"),
            *one
        );
        assert_eq!(one.is_whole(), one.nano_value() % 1_000_000_000 == 0);
        for other in &read {
            assert_eq!(one.cmp(other), one.nano_value().cmp(&other.nano_value()));
            assert_eq!(*one + *other, *other + *one);
            assert_eq!(*one - *other, *one + -*other);
        }
    }
}

/// `$(NAME)` in a text, where the first line is the value of `A` and the second that of `LONG-NAME`.
pub fn expansion(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(3, '\n');
    let (a, long, text) =
        (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let value = |name: &str| match name {
        "A" => Some(a),
        "LONG-NAME" => Some(long),
        _ => None,
    };
    assert_eq!(
        expand(text, &mut Room::default(), value).as_deref(),
        Ok(expanded(text, value).as_str()),
        "of {text:?}"
    );
    assert_eq!(expand(&text.replace('$', "$$"), &mut Room::default(), value).as_deref(), Ok(text), "escaped");
}

/// The same by the book, one character after the other.
fn expanded<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < chars.len() {
        let next = chars.get(at + 1);
        let close = chars.iter().skip(at).position(|c| *c == ')').map(|offset| at + offset);
        match (chars[at], next, close) {
            ('$', Some('$'), _) => {
                out.push('$');
                at += 2;
            }
            ('$', Some('('), Some(close)) => {
                let name: String = chars[at + 2..close].iter().collect();
                out.push_str(&value(&name).map_or_else(|| format!("$({name})"), str::to_owned));
                at = close + 1;
            }
            (other, _, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    out
}

/// A KubeletConfiguration file.
pub fn config(bytes: &[u8]) {
    thread_local!(static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) });
    FILE.with_borrow_mut(|slot| {
        let file = slot.get_or_insert_with(|| tempfile::NamedTempFile::new().expect("a temporary file"));
        file.rewind().and_then(|()| file.as_file().set_len(0)).expect("the file is emptied");
        file.write_all(bytes).expect("the file is written");
        let flags = [("config".to_owned(), file.path().to_str().expect("a plain path").to_owned())];
        let load = || load_on(&flags, &|| Ok("node".to_owned()));
        match (load(), load()) {
            (Ok((first, warnings)), Ok((second, _))) => {
                assert_eq!(
                    format!("{first:?}"),
                    format!("{second:?}"),
                    "the same file gives two configurations"
                );
                assert!(warnings.len() <= 4096 + bytes.len(), "{} warnings", warnings.len());
            }
            (Err(first), Err(second)) => {
                let text = first.to_string();
                assert_eq!(text, second.to_string(), "the same file is refused for two reasons");
                if !bytes.contains(&b'*') {
                    assert!(text.len() <= 16384 + 1024 * bytes.len(), "{} bytes of error", text.len());
                }
            }
            _ => panic!("the same file is taken once and refused once"),
        }
    });
}
