//! A journal on a disk that is full.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::switch::steps::Action;

#[test]
fn a_line_that_did_not_fit_is_gone_when_the_next_one_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1");
    let step = Step { why: "x".to_owned(), lenient: false, action: Action::ReloadUnits };
    let mut journal = Journal::begin(&path, vec![step]).unwrap();
    // Where the file system can, the room is there from the start.
    let like = journal.file.metadata().unwrap();
    let (length, blocks) = (like.len(), like.blocks() * 512);
    assert!(blocks < ROOM || blocks >= length + ROOM, "{blocks}");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = std::mem::replace(&mut journal.file, full);
    let told = journal.doing(0, Before::Nothing).unwrap_err().to_string();
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(*journal.progress(), [Progress::Waiting]);
    // As much of it as there was room for.
    let mut half = OpenOptions::new().append(true).open(path.join(FILE)).unwrap();
    half.write_all(b"{\"event\":\"doing\",\"st").unwrap();
    journal.file = file;
    journal.roll_back("the disk is full").unwrap();
    journal.end(Outcome::RolledBack).unwrap();
    let read = Journal::open(&path).unwrap().unwrap();
    assert_eq!(read.rolling_back(), Some("the disk is full"));
    assert_eq!(read.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn one_that_cannot_begin_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1");
    fs::create_dir_all(path.join(COPIES)).unwrap();
    assert!(Journal::begin(&path, Vec::new()).is_err());
    assert!(path.join(COPIES).is_dir(), "what is another's stays");
}
