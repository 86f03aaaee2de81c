//! The permissions and the owner of new files.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use jlog_core::{CleanOptions, Jlog, Limits, Start};

use testkit::feeds::new_path;

fn mode(path: &Path, name: &str) -> u32 {
    std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_have_the_mode_that_was_asked_for_and_follow_the_metastore() {
    let (_dir, path) = new_path();
    // The umask of whoever runs the tests removes some of these bits.
    let log = Jlog::options().file_mode(0o666).segment_size(1).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append("x").unwrap();
    for name in ["metastore", "settings", "identity", "cp.6f6e65", "00000000", "00000001"] {
        assert_eq!(mode(&path, name), 0o666, "{name}");
    }
    // After an operator's chmod, a running writer makes new files with that mode.
    std::fs::set_permissions(path.join("metastore"), PermissionsExt::from_mode(0o600)).unwrap();
    writer.append("y").unwrap();
    writer.append("z").unwrap();
    log.subscribe("two", Start::Beginning).unwrap();
    for name in ["00000002", "00000002.crc", "cp.74776f"] {
        assert_eq!(mode(&path, name), 0o600, "{name}");
    }
    // Existing files keep their mode when they are opened.
    std::fs::set_permissions(path.join("00000002"), PermissionsExt::from_mode(0o640)).unwrap();
    drop(writer);
    log.writer().unwrap();
    assert_eq!(mode(&path, "00000002"), 0o640);
}

#[test]
fn files_that_root_makes_belong_to_the_owner_of_the_directory() {
    const OWNER: u32 = 65_534;
    const GROUP: u32 = 4711;
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(1).pre_commit(4096).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let give = |path: &Path| chown(path, Some(OWNER), Some(GROUP));
    if give(&path).is_err() {
        eprintln!("skipped: no file can be given away (that needs root)");
        return;
    }
    for entry in std::fs::read_dir(&path).unwrap() {
        give(&entry.unwrap().path()).unwrap();
    }
    // Operations from a root shell: write, subscribe, limit, repair, clean.
    let writer = log.writer().unwrap();
    for message in ["one", "two", "three"] {
        writer.append(message).unwrap();
        writer.flush().unwrap();
    }
    writer.close().unwrap();
    log.subscribe("two", Start::End).unwrap();
    log.set_limits(Limits { max_bytes: Some(1 << 30), ..log.limits() }).unwrap();
    std::fs::write(path.join("00000001"), "damaged").unwrap();
    drop(log);
    Jlog::repair(&path).unwrap();
    Jlog::open(&path).unwrap().clean(CleanOptions::default().roll(true)).unwrap();

    let mut names = Vec::new();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let facts = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!((facts.uid(), facts.gid()), (OWNER, GROUP), "{name}");
        names.push(name);
    }
    for made in ["00000002", "00000002.crc", "cp.74776f", "settings"] {
        assert!(names.iter().any(|name| name == made), "{made} of {names:?}");
    }
    assert!(names.iter().any(|name| name.contains(".broken-")), "{names:?}");

    // A copy may take the feed's place.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o2775)).unwrap();
    let copy = path.with_extension("copy");
    Jlog::open(&path).unwrap().backup(&copy).unwrap();
    let facts = std::fs::metadata(&copy).unwrap();
    assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (OWNER, GROUP, 0o2775));
    for entry in std::fs::read_dir(&copy).unwrap() {
        let facts = entry.as_ref().unwrap().metadata().unwrap();
        assert_eq!((facts.uid(), facts.gid()), (OWNER, GROUP), "{entry:?}");
    }
}
