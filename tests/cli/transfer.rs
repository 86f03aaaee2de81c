//! `jlog export`, `jlog import` and `jlog copy`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use jlog_core::Start;
use nix::sys::signal::Signal;

use crate::support::{Place, Running, jlog, run, until};

/// All messages, with ids and times, and all checkpoints.
fn contents(feed: &std::path::Path) -> (String, String) {
    let path = feed.to_str().unwrap();
    let status = run(jlog(["status", path, "-o", "json"]), "").text();
    let subscribers = status.split_once("\"subscribers\"").unwrap().1.to_owned();
    (run(jlog(["cat", path, "-o", "short"]), "").text(), subscribers)
}

fn import(archive: &[u8], to: &std::path::Path) -> crate::support::Done {
    run(jlog(["import", to.to_str().unwrap()]), archive)
}

#[test]
fn a_feed_arrives_as_it_was() {
    let place = Place::with(
        &["--segment-size", "64", "--compression", "lz4", "--max-age", "7d"],
        &["one", "", "three", "four"],
    );
    let long = "x".repeat(126);
    place.log().subscribe(&long, Start::Last(1)).unwrap();
    place.ok("read", &["s", "-n", "3"]);
    let exported = run(place.jlog("export", crate::support::NONE), "");
    assert_eq!(
        (exported.code, exported.stderr.contains("exported, up to")),
        (Some(0), true),
        "{}",
        exported.stderr
    );
    let to = place.path("to");
    let imported = import(&exported.stdout, &to);
    assert!(imported.code == Some(0) && imported.stderr.contains("imported, up to"), "{}", imported.stderr);
    assert_eq!(contents(&to), contents(&place.feed));
    let meta = |feed: &std::path::Path| run(jlog(["meta", feed.to_str().unwrap(), "-o", "json"]), "").text();
    let of = |text: String| {
        text.lines().filter(|line| !line.contains("identity")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(meta(&to)).len(), of(meta(&place.feed)).len());
    assert_eq!(run(jlog(["verify", to.to_str().unwrap()]), "").code, Some(0));
    assert_eq!(run(jlog(["read", to.to_str().unwrap(), "s"]), "").text(), "four\n");
    let copy = place.path("copy");
    run(place.jlog("copy", [&copy]), "").ok();
    assert_eq!(contents(&copy).0, contents(&place.feed).0);
    // No other files are left.
    let mut names: Vec<String> = std::fs::read_dir(to.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["copy", "feed", "to"]);
}

/// The hidden files of incomplete exports and imports, except these.
fn unfinished(place: &Place, but: &[PathBuf]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().path());
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(".jlog-");
    entries.filter(|path| hidden(path) && !but.contains(path)).collect()
}

fn make_old(path: &Path) {
    let before = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(path).unwrap().set_modified(before).unwrap();
}

#[test]
fn what_killed_exports_and_imports_leave_is_removed_by_the_next_one() {
    // The feed is larger than a pipe's buffer.
    let place = Place::with(&[], &["x".repeat(1 << 20)]);
    let archive = run(place.jlog("export", crate::support::NONE), "").stdout;
    let to = place.path("to");
    for import in [false, true] {
        // Nobody reads the export's output, and the import gets only half of an archive.
        let start = || {
            let mut command = if import {
                jlog([Path::new("import"), &to])
            } else {
                place.jlog("export", crate::support::NONE)
            };
            Running::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()))
        };
        let mut killed = start();
        until("the first directory", || !unfinished(&place, &[]).is_empty());
        let left = unfinished(&place, &[]);
        killed.signal(Signal::SIGKILL);
        killed.end();
        assert_eq!(unfinished(&place, &[]), left);
        let mut running = start();
        until("the second directory", || {
            unfinished(&place, &left).iter().any(|path| path.join("feed").exists())
        });
        let used = unfinished(&place, &left);
        assert!(left[0].exists(), "it is too young to tell");
        left.iter().chain(&used).for_each(|path| make_old(path));
        if import {
            assert_eq!(self::import(&archive, &to).code, Some(0));
            std::fs::remove_dir_all(&to).unwrap();
        } else {
            assert_eq!(run(place.jlog("export", crate::support::NONE), "").code, Some(0));
        }
        assert_eq!(unfinished(&place, &[]), used, "only what is in use is left");
        running.signal(Signal::SIGKILL);
        running.end();
        used.iter().for_each(|path| std::fs::remove_dir_all(path).unwrap());
    }
}

#[test]
fn an_archive_that_was_cut_or_changed_makes_no_feed() {
    let place = Place::with(&["--segment-size", "64"], &["one", "two", "three", "four"]);
    let archive = run(place.jlog("export", crate::support::NONE), "").stdout;
    let to = place.path("to");
    for cut in (0..archive.len() - 1024).step_by(512) {
        let done = import(&archive[..cut], &to);
        assert_eq!(done.code, Some(1), "cut at {cut}: {}", done.stderr);
    }
    let at = archive.windows(5).position(|bytes| bytes == b"three").unwrap();
    let mut changed = archive.clone();
    changed[at] ^= 1;
    let complaint = import(&changed, &to).failed(1);
    assert!(complaint.contains("its files differ from its list"), "{complaint}");
    // Names that lead elsewhere, and files that are not feeds.
    let at = archive.windows(9).position(|bytes| bytes == b"metastore").unwrap();
    let mut elsewhere = archive.clone();
    elsewhere[at..at + 9].copy_from_slice(b"../escape");
    for archive in [&elsewhere[..], b"", b"no archive", &[0; 10_240]] {
        assert_eq!(import(archive, &to).code, Some(1));
    }
    let names: Vec<_> = std::fs::read_dir(place.feed.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["feed"]);
    assert!(import(&archive, &place.feed).failed(1).contains("exists already"));
    assert_eq!(import(&archive, &to).code, Some(0));
}

#[test]
fn a_feed_that_is_written_meanwhile_is_exported_without_a_gap() {
    let place = Place::with(&["--segment-size", "4KiB"], &["first"]);
    let mut write = jlog(["write", "-q"]);
    let mut writing = Running::start(write.arg(&place.feed).stdout(Stdio::null()));
    let mut stdin = writing.stdin.take().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let feeds = std::thread::spawn(move || {
        for n in 0.. {
            std::io::Write::write_all(&mut stdin, format!("message {n}\n").as_bytes()).unwrap();
            // Copies take longer than messages: the feed must not grow without bounds.
            if stopped.recv_timeout(Duration::from_micros(200)).is_ok() {
                return;
            }
        }
    });
    for round in 0..3 {
        let before: usize = place.ok("cat", &[]).lines().count();
        let exported = run(place.jlog("export", crate::support::NONE), "");
        let to = place.path(format!("to {round}"));
        assert_eq!(import(&exported.stdout, &to).code, Some(0), "{}", exported.stderr);
        let text = run(jlog([std::ffi::OsStr::new("cat"), to.as_os_str()]), "").text();
        assert!(text.lines().count() >= before);
        assert!(text.lines().skip(1).enumerate().all(|(n, line)| line == format!("message {n}")));
    }
    stop.send(()).unwrap();
    feeds.join().unwrap();
    assert_eq!(writing.end(), Some(0));
}
