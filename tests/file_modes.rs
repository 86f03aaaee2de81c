//! Which permissions new files get.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jlog_core::{Jlog, Start};

use crate::support::new_path;

fn mode(path: &Path, name: &str) -> u32 {
    std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_have_the_mode_that_was_asked_for_and_follow_the_metastore() {
    let (_dir, path) = new_path();
    // The umask of whoever runs the tests takes something away from this.
    let log = Jlog::options().file_mode(0o666).segment_size(1).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append("x").unwrap();
    for name in ["metastore", "settings", "identity", "cp.6f6e65", "00000000", "00000001"] {
        assert_eq!(mode(&path, name), 0o666, "{name}");
    }
    // An operator's chmod holds for what a running writer makes from then on.
    std::fs::set_permissions(path.join("metastore"), PermissionsExt::from_mode(0o600)).unwrap();
    writer.append("y").unwrap();
    assert_eq!(mode(&path, "00000002"), 0o600);
    // What is there keeps its mode when it is opened.
    std::fs::set_permissions(path.join("00000002"), PermissionsExt::from_mode(0o640)).unwrap();
    drop(writer);
    log.writer().unwrap();
    assert_eq!(mode(&path, "00000002"), 0o640);
}
