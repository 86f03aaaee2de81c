//! Files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use logdag::{Graph, Rotation, log};

use super::{assert_complete, log_from_threads, typed, within};

/// The files that were rotated, oldest first, and the current one.
fn in_order(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let mut aside: Vec<(u64, PathBuf)> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|found| {
            let name = found.file_name()?.to_str()?.to_owned();
            Some((name.strip_prefix(&prefix)?.parse().ok()?, found))
        })
        .collect();
    aside.sort();
    aside.into_iter().map(|(_, path)| path).chain([path.to_owned()]).collect()
}

fn concatenated(path: &Path) -> (String, usize) {
    let files = in_order(path);
    let mut all = String::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "a line is split over files");
        all.push_str(&text);
    }
    (all, files.len())
}

#[test]
fn rotation_under_load_loses_doubles_and_splits_nothing() {
    for kind in ["file", "file_synch"] {
        const LINES: usize = 10_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let graph = Graph::new();
        graph.go_async();
        let rotation = Rotation::new().bytes(20_000);
        let stream = graph.configure("app", typed(kind, &path, rotation)).unwrap();
        log_from_threads(&stream, 4, LINES);
        within(Duration::from_secs(20), {
            let graph = graph.clone();
            move || graph.flush()
        })
        .unwrap();
        let (text, files) = concatenated(&path);
        assert_complete(text.lines(), 4, LINES);
        assert!(files > 20, "{files}");
        for file in in_order(&path).iter().rev().skip(1) {
            let len = fs::metadata(file).unwrap().len();
            // The line that reaches the limit is the last one.
            assert!((20_000..20_100).contains(&len), "{kind}: {len}");
        }
        let counters = graph.describe("app").unwrap().counters;
        assert_eq!((counters.lines, counters.bytes), (4 * LINES as u64, text.len() as u64));
        assert_eq!((counters.dropped, counters.failed), (0, 0));
    }
}

#[test]
fn a_new_file_has_the_permissions_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let graph = Graph::new();
    graph.configure("app", typed("file", &path, Rotation::default())).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    // The process's umask removes some bits.
    assert_eq!(mode & !0o664, 0);
    assert_eq!(mode & 0o600, 0o600);
}

#[test]
fn what_is_there_is_appended_to_and_messages_are_split() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    fs::write(&path, "before\n").unwrap();
    let graph = Graph::new();
    let mut options = typed("file_synch", &path, Rotation::default());
    options.flags.facility = true;
    options.escape = false;
    let stream = graph.configure("app", options).unwrap();
    log!(stream, "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\n[app] one\n[app] two\n");
    assert_eq!(graph.describe("app").unwrap().size, Some(27));
}

#[test]
fn a_file_that_was_moved_or_removed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("app.log"), dir.path().join("moved"));
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file", &path, Rotation::default())).unwrap();
    graph.go_async();
    let say = |line: &str| {
        log!(stream, "{line}");
        graph.flush().unwrap();
    };
    say("one");
    fs::rename(&path, &moved).unwrap();
    say("still there");
    std::thread::sleep(Duration::from_millis(1050));
    say("two");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "one\nstill there\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    fs::remove_file(&path).unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    say("three");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
}

#[test]
fn reopen_opens_what_was_moved_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("app.log"), dir.path().join("moved"));
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file_synch", &path, Rotation::default())).unwrap();
    log!(stream, "one");
    graph.reopen().unwrap();
    log!(stream, "two");
    fs::rename(&path, &moved).unwrap();
    graph.reopen().unwrap();
    log!(stream, "three");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
}

#[test]
fn rotate_puts_aside_what_was_logged_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file", &path, Rotation::default())).unwrap();
    graph.go_async();
    for n in 0..3 {
        log!(stream, "{n}");
        graph.rotate("app").unwrap();
    }
    let texts: Vec<String> = in_order(&path).iter().map(|p| fs::read_to_string(p).unwrap()).collect();
    assert_eq!(texts, ["0\n", "1\n", "2\n", ""]);
}

#[test]
fn a_missing_directory_is_an_error_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/app.log");
    let graph = Graph::new();
    let error = graph.configure("app", typed("file", &path, Rotation::default())).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("\"app\""), "{error}");
    assert!(error.contains("No such file or directory"), "{error}");
    let reported = format!("create the directory {}, or set make_dirs", path.parent().unwrap().display());
    assert!(error.contains(&reported), "{error}");
}

#[test]
fn a_directory_that_vanishes_costs_lines_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let path = sub.join("app.log");
    let graph = Graph::new();
    let rotation = Rotation::new().bytes(10);
    let stream = graph.configure("app", typed("file_synch", &path, rotation)).unwrap();
    log!(stream, "one");
    fs::remove_dir_all(&sub).unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    for _ in 0..10 {
        log!(stream, "to nowhere");
    }
    let counters = graph.describe("app").unwrap().counters;
    assert_eq!((counters.lines, counters.failed), (1, 10));
    fs::create_dir(&sub).unwrap();
    log!(stream, "two");
    let text = fs::read_to_string(&path).unwrap();
    let (first, reported) = text.split_once('\n').unwrap();
    assert_eq!(first, "two");
    assert!(
        reported.starts_with("log stream app: 10 lines lost since 2") && reported.contains("No such file"),
        "{reported}"
    );
}

/// A file system of 1 MiB.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at).output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // If this fails, it was not mounted.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_costs_whole_lines_until_there_is_room() {
    for (kind, threads) in [("file_synch", 1), ("file", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let Some(small) = Small::mount(dir.path()) else {
            eprintln!("skipped: a file system cannot be mounted here");
            return;
        };
        let ballast = dir.path().join("ballast");
        fs::write(&ballast, vec![0; 800_000]).unwrap();
        let path = dir.path().join("app.log");
        let graph = Graph::new();
        let stream = graph.configure("app", typed(kind, &path, Rotation::default())).unwrap();
        graph.go_async();
        let padding = "x".repeat(1001);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..400 / threads).for_each(|_| log!(stream, "{padding}")));
            }
        });
        let _ = graph.flush();
        let full = graph.describe("app").unwrap().counters;
        assert!(full.failed > 0 && full.lines > 0, "{full:?}");
        assert_eq!(full.lines + full.failed, 400);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len() as u64, full.bytes);
        assert_eq!(text.lines().count() as u64, full.lines);
        assert!(text.ends_with('\n') && text.lines().all(|line| line == padding), "a torn line");
        fs::remove_file(&ballast).unwrap();
        log!(stream, "there is room");
        graph.flush().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let (before, last) = text.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(before.lines().last(), Some("there is room"));
        let lost = full.failed;
        assert!(last.starts_with(&format!("log stream app: {lost} lines lost since 2")), "{last}");
        assert!(last.contains(&format!("{}: No space left", path.display())), "{last}");
        assert_eq!(graph.describe("app").unwrap().counters.lines, full.lines + 2);
        drop(graph);
        drop(small);
    }
}

#[test]
fn a_full_disk_costs_nobody_elses_lines() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        eprintln!("skipped: a file system cannot be mounted here");
        return;
    };
    let path = dir.path().join("shared.log");
    let graph = Graph::new();
    let one = graph.configure("one", typed("file_synch", &path, Rotation::default())).unwrap();
    let other = graph.configure("other", typed("file_synch", &path, Rotation::default())).unwrap();
    log!(one, "from one");
    (0..10).for_each(|n| log!(other, "precious {n}"));
    // Take all room except the rest of the page in which the log ends.
    let mut ballast = fs::File::create(dir.path().join("ballast")).unwrap();
    while std::io::Write::write_all(&mut ballast, &[0; 4096]).is_ok() {}
    let before = fs::read_to_string(&path).unwrap();
    log!(one, "{}", "x".repeat(8000));
    assert_eq!(graph.describe("one").unwrap().counters.failed, 1);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    log!(other, "and one more");
    assert_eq!(fs::read_to_string(&path).unwrap(), before + "and one more\n");
    drop(graph);
    drop(small);
}

#[test]
fn a_new_file_belongs_to_whom_the_old_one_did() {
    let owner = |path: &Path| fs::metadata(path).map(|facts| (facts.uid(), facts.gid())).unwrap();
    for kind in ["file", "file_synch"] {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("app.log"), dir.path().join("moved"));
        fs::write(&path, "").unwrap();
        if std::os::unix::fs::chown(&path, Some(12_345), Some(23_456)).is_err() {
            eprintln!("skipped: no file can be given away (that needs root)");
            return;
        }
        let graph = Graph::new();
        graph.go_async();
        let stream = graph.configure("app", typed(kind, &path, Rotation::default())).unwrap();
        log!(stream, "one");
        graph.rotate("app").unwrap();
        assert_eq!(owner(&path), (12_345, 23_456), "{kind}, rotated");
        log!(stream, "two");
        graph.flush().unwrap();
        fs::rename(&path, &moved).unwrap();
        graph.reopen().unwrap();
        assert_eq!(owner(&path), (12_345, 23_456), "{kind}, reopened");
        // So does a file that another process has made meanwhile.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_ne!(owner(&path), (12_345, 23_456));
        graph.reopen().unwrap();
        assert_eq!(owner(&path), (12_345, 23_456), "{kind}, reopened where there was one");
        log!(stream, "three");
        graph.flush().unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let aside = in_order(&path);
        assert_eq!(aside.len(), 2, "{aside:?}");
        assert_eq!(fs::read_to_string(&aside[0]).unwrap(), "one\n");
        assert_eq!(owner(&aside[0]), (12_345, 23_456));
    }
}

/// A file that nobody can remove.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn make(path: &'a Path) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(path).output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(path))
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        // If this fails, the file stays.
        let _ = Command::new("chattr").arg("-i").arg(self.0).status();
    }
}

#[test]
fn a_file_that_cannot_be_removed_does_not_keep_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let aside = |second: u32| dir.path().join(format!("app.log.{second}"));
    for second in [1_700_001_000, 1_700_002_000, 1_700_003_000] {
        fs::write(aside(second), "old\n").unwrap();
    }
    let graph = Graph::new();
    let rotation = Rotation::new().retain_for(Duration::from_secs(60));
    let stream = graph.configure("app", typed("file", &path, rotation)).unwrap();
    log!(stream, "one");
    let stuck = aside(1_700_002_000);
    let Some(immutable) = Immutable::make(&stuck) else {
        eprintln!("skipped: no file can be made immutable here");
        return;
    };
    // There is a removable file on either side of it, whatever the order.
    let error = graph.remove_expired("app").unwrap_err().to_string();
    assert!(error.contains(stuck.to_str().unwrap()) && error.contains("not permitted"), "{error}");
    assert_eq!(
        [1_700_001_000, 1_700_002_000, 1_700_003_000].map(|second| aside(second).exists()),
        [false, true, false]
    );
    // Nor does it keep the file from being rotated, or lines from being written.
    graph.rotate("app").unwrap();
    log!(stream, "two");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    drop(immutable);
    assert_eq!(graph.remove_expired("app").unwrap(), 1);
    let left: Vec<String> = in_order(&path).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(left, ["one\n", "two\n"]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_file_has_the_mode_of_the_old_one() {
    for kind in ["file", "file_synch"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "").unwrap();
        // More and fewer bits than new files get.
        for bits in [0o600, 0o640, 0o400, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let graph = Graph::new();
            graph.go_async();
            let stream = graph.configure("app", typed(kind, &path, Rotation::default())).unwrap();
            log!(stream, "one");
            graph.rotate("app").unwrap();
            assert_eq!(mode(&path), bits, "{kind}, rotated");
            log!(stream, "two");
            graph.flush().unwrap();
            fs::rename(&path, dir.path().join("moved")).unwrap();
            graph.reopen().unwrap();
            assert_eq!(mode(&path), bits, "{kind}, reopened");
            // A file that others have created meanwhile (logrotate's `create 0604`) keeps its mode.
            fs::remove_file(&path).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
            graph.reopen().unwrap();
            assert_eq!(mode(&path), 0o604, "{kind}, created by others");
        }
    }
}

#[test]
fn after_a_crash_in_a_rotation_the_mode_is_that_of_the_newest_rotated_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    for (second, bits) in [("1700000001", 0o644), ("1700000002", 0o600)] {
        let rotated = dir.path().join(format!("app.log.{second}"));
        fs::write(&rotated, "").unwrap();
        fs::set_permissions(&rotated, fs::Permissions::from_mode(bits)).unwrap();
    }
    let graph = Graph::new();
    graph.configure("app", typed("file", &path, Rotation::default())).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn the_access_of_the_first_file_can_be_set() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let config = |attributes: &str| {
        let path = path.display();
        let text =
            format!("<app><logs><log name='app' type='file_synch' path='{path}' {attributes}/></logs></app>");
        logdag::config::Config::from_text("app.xml", &text)
    };
    let graph = Graph::new();
    config("mode='600'").unwrap().apply(&graph).unwrap();
    assert_eq!(mode(&path), 0o600);
    // Rotation keeps the mode of the existing file, whatever is configured.
    let graph = Graph::new();
    config("mode='666'").unwrap().apply(&graph).unwrap();
    graph.rotate("app").unwrap();
    assert_eq!(mode(&path), 0o600);
    for (attributes, expected) in [
        ("mode='9'", "octal"),
        ("mode='4755'", "octal"),
        ("owner='nobody at all'", "there is no user \"nobody at all\""),
        ("group='nobody at all'", "there is no group \"nobody at all\""),
    ] {
        fs::remove_file(&path).unwrap_or_default();
        let graph = Graph::new();
        let error = match config(attributes) {
            Err(e) => e.to_string(),
            Ok(config) => config.apply(&graph).unwrap_err().to_string(),
        };
        assert!(error.contains(expected), "{error}");
        assert!(!path.exists(), "{attributes}");
    }
    fs::read_dir(dir.path()).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    let graph = Graph::new();
    match config("mode='640' owner='12345' group='23456'").unwrap().apply(&graph) {
        Ok(()) => {
            let facts = fs::metadata(&path).unwrap();
            assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o777), (12_345, 23_456, 0o640));
        }
        // Only root can give files away.
        Err(e) => assert!(e.to_string().contains("not permitted") && !path.exists(), "{e}"),
    }
}

#[test]
fn a_dangling_link_stays_and_its_target_is_rotated() {
    for link_of_directory in [false, true] {
        let (dir, big) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, target) = if link_of_directory {
            std::os::unix::fs::symlink(big.path(), dir.path().join("logs")).unwrap();
            (dir.path().join("logs/app.log"), big.path().join("app.log"))
        } else {
            std::os::unix::fs::symlink(big.path().join("x.log"), dir.path().join("app.log")).unwrap();
            (dir.path().join("app.log"), big.path().join("x.log"))
        };
        let graph = Graph::new();
        let rotation = Rotation::new().bytes(10).retain_count(2);
        let stream = graph.configure("app", typed("file_synch", &path, rotation)).unwrap();
        (0..10).for_each(|n| log!(stream, "line {n} is long"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the link alone");
        let (text, files) = concatenated(&target);
        assert_eq!((files, &*text), (3, "line 7 is long\nline 8 is long\nline 9 is long\n"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 9 is long\n");
    }
}

#[test]
fn retention_takes_only_what_the_rotation_has_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let kept = ["1", "2", "20261101", "2026110114"].map(|name| dir.path().join(format!("app.log.{name}")));
    let graph = Graph::new();
    let other = graph.configure("other", typed("file_synch", &kept[0], Rotation::default())).unwrap();
    log!(other, "live");
    kept[1..].iter().for_each(|path| fs::write(path, "others'\n").unwrap());
    // The clock was wrong at some time.
    for n in 0..3 {
        fs::write(dir.path().join(format!("app.log.{}", 4_102_444_800_u64 + n)), "").unwrap();
    }
    let rotation = Rotation::new().bytes(100).retain_count(3).retain_for(Duration::from_secs(60));
    let stream = graph.configure("app", typed("file_synch", &path, rotation)).unwrap();
    (0..1000).for_each(|n| log!(stream, "line {n}"));
    assert!(kept.iter().all(|path| path.exists()));
    kept.iter().for_each(|path| fs::remove_file(path).unwrap());
    let (text, files) = concatenated(&path);
    assert_eq!(files, 4);
    assert!(text.lines().count() > 30 && text.ends_with("line 998\nline 999\n"), "{text}");
}
