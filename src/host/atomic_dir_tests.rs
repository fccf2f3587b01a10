//! The layout, what changes in it, and what is left when a writer dies.

use proptest::prelude::*;

use super::*;

fn files(all: &[(&str, &str, u32)]) -> BTreeMap<String, NewFile> {
    all.iter()
        .map(|(path, content, mode)| {
            (
                (*path).to_owned(),
                NewFile { content: content.as_bytes().to_vec(), mode: *mode, group: None, owner: None },
            )
        })
        .collect()
}

fn put(folder: &Path, all: &[(&str, &str, u32)]) -> bool {
    write(folder, &files(all), |_| Ok(())).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names without that of the timestamped folder, of which there must be one.
fn seen(folder: &Path) -> Vec<String> {
    let shown = fs::read_link(folder.join("..data")).unwrap();
    let all = names(folder);
    assert!(all.contains(&shown.to_str().unwrap().to_owned()));
    all.into_iter().filter(|name| Path::new(name) != shown).collect()
}

fn read(folder: &Path, path: &str) -> String {
    fs::read_to_string(folder.join(path)).unwrap()
}

#[test]
fn the_layout_is_kubelets() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    assert!(put(folder, &[("name", "a", 0o644), ("d/e/f", "b", 0o400), ("./d//g", "c", 0o666)]));
    assert_eq!(seen(folder), ["..data", "d", "name"]);
    assert_eq!(fs::read_link(folder.join("name")).unwrap(), Path::new("..data/name"));
    assert_eq!(fs::read_link(folder.join("d")).unwrap(), Path::new("..data/d"));
    assert_eq!([read(folder, "name"), read(folder, "d/e/f"), read(folder, "d/g")], ["a", "b", "c"]);
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("name"), mode("d/e/f"), mode("d/g"), mode("d")], [0o644, 0o400, 0o666, 0o755]);
    let shown = fs::read_link(folder.join("..data")).unwrap();
    let shown = shown.to_str().unwrap();
    let time = jiff::fmt::strtime::parse("..%Y_%m_%d_%H_%M_%S", shown.rsplit_once('.').unwrap().0);
    assert!(time.is_ok(), "{shown}");
}

#[test]
fn a_file_takes_the_place_of_an_empty_folder_and_of_no_other() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    put(folder, &[("a", "1", 0o644)]);
    // As a mount of a part that is not there leaves it.
    fs::create_dir(folder.join("b")).unwrap();
    put(folder, &[("a", "2", 0o644), ("b", "3", 0o644)]);
    assert_eq!([read(folder, "a"), read(folder, "b")], ["2", "3"]);
    fs::create_dir_all(folder.join("c/d")).unwrap();
    let error = write(folder, &files(&[("c", "4", 0o644)]), |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("/c: "), "{error}");
    assert_eq!(read(folder, "a"), "2");
}

#[test]
fn only_a_change_is_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let shown = || fs::read_link(folder.join("..data")).unwrap();
    assert!(put(folder, &[]));
    assert_eq!(seen(folder), ["..data"]);
    assert!(put(folder, &[("a", "1", 0o644), ("d/b", "2", 0o644)]));
    let before = shown();
    assert!(!put(folder, &[("a", "1", 0o644), ("d/b", "2", 0o644)]));
    assert_eq!(shown(), before);
    // A file that others may do more with than was asked for is not as wanted.
    fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o664)).unwrap();
    assert!(put(folder, &[("a", "1", 0o644), ("d/b", "2", 0o644)]));
    assert_eq!(fs::metadata(folder.join("a")).unwrap().permissions().mode() & 0o7777, 0o644);
    for change in [
        [("a", "3", 0o644), ("d/b", "2", 0o644)].as_slice(),
        &[("a", "3", 0o600), ("d/b", "2", 0o644)],
        &[("a", "3", 0o600)],
        &[("c", "3", 0o600)],
        &[("c/d", "3", 0o600)],
    ] {
        let before = shown();
        assert!(put(folder, change), "{change:?}");
        assert_ne!(shown(), before);
        assert!(!folder.join(before).exists());
        for (path, content, _) in change {
            assert_eq!(read(folder, path), *content);
        }
    }
    assert_eq!(seen(folder), ["..data", "c"]);
}

#[test]
fn what_a_dead_writer_left_goes_with_the_next_write() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    put(folder, &[("a", "1", 0o644)]);
    // Killed before the swap: a folder, a new link to it, and a link to a file that is not shown yet.
    fs::create_dir(folder.join("..2001_01_01_00_00_00.1")).unwrap();
    fs::write(folder.join("..2001_01_01_00_00_00.1/b"), "").unwrap();
    symlink("..2001_01_01_00_00_00.1", folder.join("..data_tmp")).unwrap();
    symlink("..data/b", folder.join("b")).unwrap();
    fs::remove_file(folder.join("a")).unwrap();
    assert!(!put(folder, &[("a", "1", 0o644)]), "what is shown is as wanted");
    assert_eq!(
        (seen(folder), read(folder, "a")),
        (vec!["..data".to_owned(), "a".to_owned()], "1".to_owned())
    );
    // Its data lost, or leading elsewhere.
    for target in ["..gone", "/etc", "..", "../x"] {
        fs::remove_file(folder.join("..data")).unwrap();
        symlink(target, folder.join("..data")).unwrap();
        assert!(put(folder, &[("a", "1", 0o644)]), "{target}");
        assert_eq!((seen(folder).len(), read(folder, "a")), (2, "1".to_owned()), "{target}");
    }
}

#[test]
fn a_failure_leaves_the_old_state() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    put(folder, &[("a", "1", 0o644)]);
    let given = write(folder, &files(&[("a", "2", 0o644)]), |new| {
        assert_eq!(read(new, "a"), "2");
        assert_eq!(read(folder, "a"), "1", "not seen yet");
        Err(io::Error::other("no"))
    });
    assert!(matches!(given, Err(AtomicDirError::Io { .. })), "{given:?}");
    // One path is a file and a folder.
    assert!(write(folder, &files(&[("a", "2", 0o644), ("a/b", "", 0o644)]), |_| Ok(())).is_err());
    assert_eq!(
        (seen(folder), read(folder, "a")),
        (vec!["..data".to_owned(), "a".to_owned()], "1".to_owned())
    );
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let long = "x".repeat(256);
    let deep = "x/".repeat(2049);
    for path in ["", ".", "/a", "..", "../a", "a/../b", "..a", "./..data/x", "a\0b", &long, &deep] {
        let written = write(root.path(), &files(&[(path, "", 0o644)]), |_| Ok(()));
        assert!(matches!(written, Err(AtomicDirError::Path { .. })), "{path:?}: {written:?}");
    }
    assert!(names(root.path()).is_empty());
    assert!(put(root.path(), &[("a/..b", "", 0o644)]), "only the first part may not start so");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the paths, nothing is written outside the folder, and what is accepted can be read.
    #[test]
    fn every_path_stays_inside(paths in prop::collection::btree_set("[a./]{1,8}", 1..4)) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x/y");
        fs::create_dir_all(&folder).unwrap();
        let wanted: BTreeMap<String, NewFile> = paths
            .iter()
            .map(|path| (path.clone(), NewFile { content: path.clone().into_bytes(), mode: 0o644, group: None, owner: None }))
            .collect();
        let clean: BTreeSet<_> = paths.iter().filter_map(|path| checked(path).ok()).collect();
        if write(&folder, &wanted, |_| Ok(())).is_ok() && clean.len() == paths.len() {
            for path in &paths {
                let clean = checked(path).unwrap();
                prop_assert_eq!(&read(&folder, clean.to_str().unwrap()), path);
            }
        }
        prop_assert_eq!(names(root.path()), ["x"]);
        prop_assert_eq!(names(&root.path().join("x")), ["y"]);
    }
}
