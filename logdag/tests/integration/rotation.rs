//! Rotation and retention: which files are rotated, removed and created.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use logdag::{Graph, Rotation, log};

use super::{LONG, typed};

#[test]
fn retention_removes_the_oldest_when_a_second_has_many_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let rotation = Rotation::new().bytes(1).retain_count(3);
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file_synch", &path, rotation)).unwrap();
    for n in 0..10 {
        log!(stream, "{n}");
    }
    let mut kept: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| fs::read_to_string(e.unwrap().path()).unwrap()).collect();
    kept.sort();
    assert_eq!(kept, ["6\n", "7\n", "8\n", "9\n"], "the newest three that were rotated, and the current one");
}

#[test]
fn a_file_that_cannot_be_rotated_is_written_to_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // With the suffix, the name is too long.
    let path = dir.path().join("n".repeat(250));
    let rotation = Rotation::new().bytes(10);
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file_synch", &path, rotation)).unwrap();
    for n in 0..20 {
        log!(stream, "{n}");
    }
    assert_eq!(graph.describe("app").unwrap().counters.failed, 0);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 20);
}

#[test]
fn only_regular_files_are_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let rotation = Rotation::new().bytes(10);
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file_synch", &path, rotation)).unwrap();
    for n in 0..20 {
        log!(stream, "{n}");
    }
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo(), "as /dev/null would be removed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// While nothing is logged, a file that was moved away or removed is not created again, and a
/// missing directory is not reported.
#[test]
fn a_sink_with_nothing_to_write_makes_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let rotation = Rotation::new().every(Duration::from_secs(600)).retain_for(Duration::from_secs(600));
    let stream = graph.configure("app", typed("file", &path, rotation)).unwrap();
    graph.go_async();
    log!(stream, "a");
    graph.flush().unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!path.exists());
    log!(stream, "b");
    graph.flush().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
    graph.go_sync();
}

/// Old files are removed even while lines keep coming.
#[test]
fn old_files_go_while_lines_trickle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let old = dir.path().join("log.1000000000");
    fs::write(&old, "old\n").unwrap();
    let graph = Graph::new();
    let rotation = Rotation::new().bytes(1 << 30).retain_for(Duration::from_secs(1));
    let stream = graph.configure("app", typed("file", &path, rotation)).unwrap();
    graph.go_async();
    let begun = Instant::now();
    while old.exists() {
        assert!(begun.elapsed() < LONG, "it is still there");
        log!(stream, "a");
        std::thread::sleep(Duration::from_millis(50));
    }
    graph.go_sync();
}

#[test]
fn numbers_of_other_files_are_no_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(dir.path().join(format!("log.{}", u64::MAX)), "").unwrap();
    fs::write(dir.path().join("log.202611211200"), "").unwrap();
    let graph = Graph::new();
    let rotation = Rotation::new().bytes(10);
    let stream = graph.configure("file", typed("file_synch", &path, rotation)).unwrap();
    (0..10).for_each(|n| log!(stream, "line {n} is long"));
    assert_eq!(graph.describe("file").unwrap().counters.failed, 0);
    let now = logdag::now_micros() / 1_000_000;
    let ours = fs::read_dir(dir.path()).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("log.")?.parse::<u64>().ok().filter(|second| second.abs_diff(now) < 1000)
    });
    assert_eq!(ours.count(), 9);
}

#[test]
fn what_a_link_leads_to_is_rotated_not_the_link() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, real) = (dir.path().join("log"), elsewhere.path().join("real"));
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    let graph = Graph::new();
    let rotation = Rotation::new().bytes(10).retain_count(2);
    let stream = graph.configure("file", typed("file_synch", &path, rotation)).unwrap();
    (0..10).for_each(|n| log!(stream, "line {n} is long"));
    assert_eq!(fs::read_link(&path).unwrap(), real);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 3);
}
