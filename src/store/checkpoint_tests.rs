//! Checkpoints that are torn, foreign, in the way or too large, and disks that are full.

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt as _, PermissionsExt},
    process::Command,
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Value {
    count: u64,
    text: String,
    map: BTreeMap<String, Vec<i32>>,
}

const SCHEMA: Schema = Schema { kind: "test", version: 3 };

fn value(count: u64) -> Value {
    Value { count, text: "some text".into(), map: [("k".to_owned(), vec![1, -2])].into() }
}

fn folder() -> (tempfile::TempDir, CheckpointDir<Value>) {
    let temp = tempfile::tempdir().unwrap();
    let dir = CheckpointDir::open(temp.path().join("state/pods"), SCHEMA).unwrap();
    (temp, dir)
}

fn files(dir: &CheckpointDir<Value>) -> Vec<String> {
    let mut names = dir.list().unwrap();
    names.sort();
    names
}

#[test]
fn saves_replaces_loads_and_removes() {
    let (_temp, dir) = folder();
    assert_eq!(dir.load("a"), Loaded { value: None, set_aside: None });
    dir.save("b", &value(1)).unwrap();
    dir.save("a", &value(2)).unwrap();
    dir.save("b", &value(3)).unwrap();
    let (values, set_aside) = dir.load_all();
    assert_eq!(values, [("a".to_owned(), value(2)), ("b".to_owned(), value(3))]);
    assert_eq!(set_aside, []);
    let mode = fs::metadata(dir.path().join("a.ckpt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    dir.remove("a").unwrap();
    dir.remove("a").unwrap();
    assert_eq!(files(&dir), ["b.ckpt"]);
}

#[test]
fn names_cannot_leave_the_folder() {
    let (_temp, dir) = folder();
    for bad in ["", "..", "../x", "a/b", ".hidden", "a\0b"] {
        assert!(matches!(dir.save(bad, &value(1)), Err(StoreError::Name { .. })), "{bad:?}");
        assert!(dir.remove(bad).is_err());
        assert!(dir.load(bad).set_aside.is_some());
    }
    assert!(files(&dir).is_empty());
    for odd in ["x.ckpt", "x.ckpt.corrupt-1", "x.tmp-1"] {
        dir.save(odd, &value(1)).unwrap();
    }
    assert_eq!(dir.load_all().0.len(), 3);
    let again = CheckpointDir::<Value>::open(dir.path(), SCHEMA).unwrap();
    assert_eq!(again.load_all().0.len(), 3);
}

#[test]
fn a_file_cut_at_any_byte_is_set_aside_and_told() {
    let (_temp, dir) = folder();
    dir.save("a", &value(7)).unwrap();
    let path = dir.path().join("a.ckpt");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let loaded = dir.load("a");
        assert_eq!(loaded.value, None, "cut at {length}");
        let aside = loaded.set_aside.unwrap();
        assert_eq!(fs::read(aside.moved_to.unwrap()).unwrap(), &whole[..length]);
        assert!(!path.exists());
    }
    assert_eq!(files(&dir).len(), MAX_SET_ASIDE, "the kept files are bounded");
    dir.save("a", &value(8)).unwrap();
    assert_eq!(dir.load("a").value, Some(value(8)));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = encode(SCHEMA, &value(7)).unwrap();
    assert_eq!(decode::<Value>(SCHEMA, &bytes).unwrap(), value(7));
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << bit;
            decode::<Value>(SCHEMA, &damaged).expect_err("a flipped bit");
        }
    }
}

#[test]
fn other_versions_kinds_and_shapes_are_set_aside_by_name() {
    let (_temp, dir) = folder();
    let cases = [
        (encode(Schema { version: 4, ..SCHEMA }, &value(1)).unwrap(), "version \"4\" is not known"),
        (encode(Schema { kind: "other", ..SCHEMA }, &value(1)).unwrap(), "a \"other\" and not a \"test\""),
        (encode(SCHEMA, &"not a Value").unwrap(), "its value cannot be read"),
        (b"nodectl-checkpoint 2 test 3 00\n{}".to_vec(), "format \"2\" is not known"),
        (b"\xff\xfe\n".to_vec(), "does not start like a checkpoint"),
        (vec![0; 4096], "cut short or not a checkpoint"),
    ];
    for (bytes, reason) in cases {
        fs::write(dir.path().join("a.ckpt"), bytes).unwrap();
        dir.save("good", &value(1)).unwrap();
        let (values, set_aside) = dir.load_all();
        assert_eq!(values.len(), 1, "the other file is read all the same");
        assert_eq!(set_aside.len(), 1);
        assert!(set_aside[0].to_string().contains(reason), "{}", set_aside[0]);
    }
}

#[test]
fn neither_links_nor_pipes_nor_folders_nor_giants_are_read() {
    let (temp, dir) = folder();
    let secret = temp.path().join("secret");
    fs::write(&secret, encode(SCHEMA, &value(1)).unwrap()).unwrap();
    std::os::unix::fs::symlink(&secret, dir.path().join("link.ckpt")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe.ckpt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(dir.path().join("folder.ckpt")).unwrap();
    File::create(dir.path().join("giant.ckpt")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    let (values, set_aside) = dir.load_all();
    assert_eq!(values, []);
    let reasons: Vec<_> = set_aside.iter().map(|s| s.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "it is not a regular file",
            "it has 16777217 bytes, more than 16777216",
            "it is a symbolic link",
            "it is not a regular file"
        ]
    );
    assert!(secret.exists());
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_value_and_no_rubbish() {
    let (_temp, dir) = folder();
    dir.save("a", &value(1)).unwrap();
    let half = &encode(SCHEMA, &value(2)).unwrap()[..40];
    fs::write(dir.path().join(".a.tmp-0123456789abcdef"), half).unwrap();
    let dir = CheckpointDir::<Value>::open(dir.path(), SCHEMA).unwrap();
    assert_eq!(files(&dir), ["a.ckpt"]);
    assert_eq!(dir.load("a").value, Some(value(1)));
}

/// A tmpfs that goes when the test ends, however it ends.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, options: &str) -> Self {
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options))
            .expect("this test mounts a small tmpfs and needs root");
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_or_read_only_disk_is_an_error_and_the_old_value_stays() {
    let temp = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(temp.path(), "size=64k,mode=0700");
    let dir = CheckpointDir::<Value>::open(temp.path(), SCHEMA).unwrap();
    dir.save("a", &value(1)).unwrap();
    let big = Value { text: "x".repeat(100_000), ..value(2) };
    let error = dir.save("a", &big).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert!(error.to_string().starts_with("cannot write /"), "{error}");
    assert_eq!(dir.load("a").value, Some(value(1)));
    assert_eq!(files(&dir), ["a.ckpt"], "the unfinished file is gone");
    dir.save("a", &value(3)).unwrap();

    mount(None::<&str>, &disk.0, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
        .unwrap();
    let error = dir.save("a", &value(4)).unwrap_err();
    assert!(!error.is_full() && error.to_string().contains("Read-only file system"), "{error}");
    assert!(dir.remove("a").is_err());
    assert_eq!(dir.load("a").value, Some(value(3)));
    // Damage on a read-only disk: told, and left where it is.
    mount(None::<&str>, &disk.0, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).unwrap();
    fs::write(dir.path().join("a.ckpt"), "rubbish").unwrap();
    mount(None::<&str>, &disk.0, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
        .unwrap();
    let aside = dir.load("a").set_aside.unwrap();
    assert_eq!(aside.moved_to, None);
    assert!(aside.to_string().contains("Read-only file system"), "{aside}");
}

/// The test runs itself as a child that saves without end, and kills it -9 at odd moments.
#[test]
fn killed_at_any_moment_it_loses_nothing_that_was_saved() {
    const CHILD: &str = "NODECTL_TEST_CHECKPOINT_CHILD";
    if let Some(path) = std::env::var_os(CHILD) {
        let dir = CheckpointDir::<Value>::open(PathBuf::from(path), SCHEMA).unwrap();
        let mut count = dir.load("a").value.map_or(0, |v| v.count);
        loop {
            count += 1;
            dir.save("a", &Value { text: "y".repeat(8_000), ..value(count) }).unwrap();
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let mut last = 0;
    let written =
        || fs::metadata(temp.path().join("a.ckpt")).ok().map(|about| (about.ino(), about.mtime_nsec()));
    for round in 0..12_u64 {
        let before = written();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::checkpoint::tests::killed_at_any_moment_it_loses_nothing_that_was_saved",
            ])
            .env(CHILD, temp.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // It writes, each time another file in the place of the last one; then it is killed at whatever it does.
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while written() == before {
            assert!(std::time::Instant::now() < end, "the child saves");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let dir = CheckpointDir::<Value>::open(temp.path(), SCHEMA).unwrap();
        let loaded = dir.load("a");
        assert_eq!(loaded.set_aside, None);
        let count = loaded.value.map_or(0, |v| v.count);
        assert!(count >= last, "{count} < {last}");
        last = count;
        assert!(files(&dir).len() <= 1, "{:?}", files(&dir));
    }
    assert!(last > 0, "the child saved something");
}

#[test]
fn a_single_checkpoint_is_one_name_in_its_folder() {
    let temp = tempfile::tempdir().unwrap();
    let one = Checkpoint::<Value>::open(temp.path(), "node", SCHEMA).unwrap();
    one.save(&value(1)).unwrap();
    assert_eq!(one.load().value, Some(value(1)));
    one.remove().unwrap();
    assert_eq!(one.load(), Loaded { value: None, set_aside: None });
    assert!(Checkpoint::<Value>::open(temp.path(), "../x", SCHEMA).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        count in any::<u64>(),
        text in any::<String>(),
        map in prop::collection::btree_map(any::<String>(), prop::collection::vec(any::<i32>(), 0..5), 0..5),
    ) {
        let value = Value { count, text, map };
        prop_assert_eq!(decode::<Value>(SCHEMA, &encode(SCHEMA, &value).unwrap()).unwrap(), value);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(decode::<Value>(SCHEMA, &bytes).is_err());
    }
}
