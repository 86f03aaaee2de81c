//! Durable feeds.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jlog_core::{Jlog, Start, Timestamp, Wait};
use logdag::{Graph, Level, Location, Rotation, log};

use super::{assert_complete, log_from_threads, typed, within};

/// All messages and their times.
pub(crate) fn read(dir: &Path) -> Vec<(Timestamp, String)> {
    let feed = Jlog::open(dir).unwrap();
    feed.subscribe("of-the-test", Start::Beginning).unwrap();
    let mut reader = feed.reader("of-the-test").unwrap();
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        all.extend(batch.iter().map(|m| (m.time(), String::from_utf8(m.body().to_vec()).unwrap())));
        let last = batch.last_id();
        reader.commit(last).unwrap();
    }
    feed.unsubscribe("of-the-test").unwrap();
    all
}

fn subscribers(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        Jlog::open(dir).unwrap().subscribers().unwrap().iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[test]
fn messages_and_times_come_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let graph = Graph::new();
    let stream = graph.configure("feed", typed("jlog", &path, Rotation::default())).unwrap();
    stream.log_at(1_700_000_000_000_042, Level::Info, &Location::UNKNOWN, &[], &format_args!("one\ntwo\n"));
    stream.log_at(1_700_000_001_999_999, Level::Info, &Location::UNKNOWN, &[], &format_args!(""));
    graph.flush().unwrap();
    let expected = [
        (Timestamp { seconds: 1_700_000_000, micros: 42 }, "one\ntwo\n".to_owned()),
        (Timestamp { seconds: 1_700_000_001, micros: 999_999 }, String::new()),
    ];
    assert_eq!(read(&path), expected);
}

#[test]
fn subscribers_are_as_the_path_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let open = |list: &str| {
        let graph = Graph::new();
        let path = format!("{}{list}", path.display());
        graph.configure("feed", typed("jlog", Path::new(&path), Rotation::default())).unwrap();
        (graph, ())
    };
    drop(open("(a,b)"));
    assert_eq!(subscribers(&path), ["a", "b"]);
    let feed = Jlog::open(&path).unwrap();
    feed.subscribe("other", Start::Beginning).unwrap();
    feed.subscribe("~gone", Start::Beginning).unwrap();
    drop(open(""));
    assert_eq!(subscribers(&path), ["a", "b", "other", "~gone"]);
    drop(open("(a, b, c, *)"));
    assert_eq!(subscribers(&path), ["a", "b", "c", "other"]);
    feed.subscribe("~gone", Start::Beginning).unwrap();
    let (graph, ()) = open("(*)");
    feed.subscribe("~again", Start::Beginning).unwrap();
    graph.reopen().unwrap();
    assert_eq!(subscribers(&path), ["a", "b", "c", "other"]);
    drop(open("(c)"));
    assert_eq!(subscribers(&path), ["c"]);
    let graph = Graph::new();
    let wrong = format!("{}(a", path.display());
    let error = graph.configure("feed", typed("jlog", Path::new(&wrong), Rotation::default())).unwrap_err();
    assert!(error.to_string().contains(&wrong), "{error}");
}

#[test]
fn sizes_are_as_the_config_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let open = |segment: &str, pre_commit: &str| {
        let mut options = typed("jlog", &path, Rotation::default());
        let config = &mut options.sink.as_mut().unwrap().config;
        config.insert("segment_size".to_owned(), segment.to_owned());
        config.insert("precommit".to_owned(), pre_commit.to_owned());
        let graph = Graph::new();
        graph.configure("feed", options).map(|stream| (graph, stream))
    };
    let (graph, stream) = open("5000", "1024").unwrap();
    let feed = Jlog::open(&path).unwrap();
    assert_eq!(feed.meta().unwrap().segment_size, 5000);
    assert_eq!(feed.pre_commit().unwrap().map(|(_, size)| size), Some(1024));
    feed.subscribe("keeps", Start::Beginning).unwrap();
    log_from_threads(&stream, 1, 1000);
    graph.flush().unwrap();
    assert!(feed.segments().unwrap().len() > 5);
    assert_complete(read(&path).iter().map(|(_, line)| &**line), 1, 1000);
    drop((graph, stream));
    // A size out of range changes nothing; a buffer that is too large gets the largest size.
    for unchanged in ["0", "1073741825", "99999999999999"] {
        let (graph, _) = open(unchanged, "999999999").unwrap();
        assert_eq!(feed.meta().unwrap().segment_size, 5000, "{unchanged}");
        drop(graph);
    }
    assert!(open("large", "1").is_err() && open("5000", "none").is_err());
}

#[test]
fn threads_and_a_queue_lose_nothing() {
    const LINES: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let graph = Graph::new();
    let stream = graph.configure("feed", typed("jlog", &path, Rotation::default())).unwrap();
    graph.go_async();
    log_from_threads(&stream, 4, LINES);
    within(Duration::from_secs(20), move || graph.flush().unwrap());
    assert_complete(read(&path).iter().map(|(_, line)| &**line), 4, LINES);
}

#[test]
fn a_queue_that_has_run_dry_leaves_nothing_in_the_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let graph = Graph::new();
    let mut options = typed("jlog", &path, Rotation::default());
    options.sink.as_mut().unwrap().config.insert("precommit".to_owned(), "1000000".to_owned());
    let stream = graph.configure("feed", options).unwrap();
    graph.go_async();
    log!(stream, "at once");
    let feed = Jlog::open(&path).unwrap();
    feed.subscribe("s", Start::Beginning).unwrap();
    let mut reader = feed.reader("s").unwrap();
    let seen = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        reader.next_batch(Wait::No).unwrap().is_some()
    });
    assert!(seen, "nobody had to flush it");
}

const VICTIM: &str = "LOGDAG_TEST_VICTIM";

/// The process that is killed.
fn be_killed(dir: &str) -> ! {
    let graph = Graph::new();
    let stream = graph.configure("feed", typed("jlog", Path::new(dir), Rotation::default())).unwrap();
    graph.go_async();
    let mut n = 0;
    loop {
        for _ in 0..1000 {
            log!(stream, "0 {n} {:.>20}", n);
            n += 1;
        }
        graph.flush().unwrap();
        println!("\nflushed={n}");
    }
}

#[test]
fn what_was_flushed_is_there_after_a_kill() {
    if let Ok(dir) = std::env::var(VICTIM) {
        be_killed(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["jlog::what_was_flushed_is_there_after_a_kill", "--exact", "--nocapture"])
        .env(VICTIM, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut flushed = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(n) = line.unwrap().strip_prefix("flushed=") {
            flushed = n.parse().unwrap();
            if flushed >= 5000 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    let lines = read(&path);
    assert!(flushed >= 5000 && lines.len() >= flushed, "{} of {flushed}", lines.len());
    assert_complete(lines.iter().map(|(_, line)| &**line), 1, lines.len());
}

/// Logs without a queue, and records each line as soon as `log!` has returned.
fn be_killed_without_a_queue(dir: &Path) -> ! {
    let graph = Graph::new();
    let stream = graph.configure("feed", typed("jlog", &dir.join("feed"), Rotation::default())).unwrap();
    let progress = std::fs::File::create(dir.join("progress")).unwrap();
    for n in 0u64.. {
        log!(stream, "0 {n} {:.>20}", n);
        progress.write_all_at(&(n + 1).to_le_bytes(), 0).unwrap();
    }
    unreachable!()
}

/// A child that is killed and waited for, however the test ends.
struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn lines_without_a_queue_survive_a_kill_and_let_other_processes_write() {
    if let Ok(dir) = std::env::var(VICTIM) {
        be_killed_without_a_queue(Path::new(&dir));
    }
    const LINES: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    drop(Jlog::create(&path).unwrap());
    let test = "jlog::lines_without_a_queue_survive_a_kill_and_let_other_processes_write";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(VICTIM, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut victim = Victim(child);
    let progress = || {
        let bytes = std::fs::read(dir.path().join("progress")).unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    };
    let writer = Jlog::open(&path).unwrap().writer().unwrap();
    let (mut others, begun) = (0, Instant::now());
    while progress() < LINES {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {LINES}", progress());
        let waited = Instant::now();
        writer.append("other").unwrap();
        others += 1;
        assert!(waited.elapsed() < Duration::from_secs(5), "the lock is not given back");
        std::thread::sleep(Duration::from_millis(20));
    }
    // One write for the line and one for its record: writes for checksums are few.
    let io = std::fs::read_to_string(format!("/proc/{}/io", victim.0.id())).unwrap();
    let writes: u64 =
        io.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap().trim().parse().unwrap();
    let so_far = progress();
    assert!(writes < so_far * 5 / 2, "{writes} writes for {so_far} lines");
    victim.0.kill().unwrap();
    victim.0.wait().unwrap();
    let logged = usize::try_from(progress()).unwrap();
    let (other, lines): (Vec<_>, Vec<_>) =
        read(&path).into_iter().map(|(_, line)| line).partition(|line| line == "other");
    assert_eq!(other.len(), others);
    // The process may have been killed before it recorded the last line.
    assert!(lines.len() == logged || lines.len() == logged + 1, "{} of {logged}", lines.len());
    assert_complete(lines.iter().map(|line| &**line), 1, lines.len());
}

#[test]
fn lines_without_a_queue_can_be_read_at_once() {
    for pre_commit in ["0", "1000000"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        let graph = Graph::new();
        let mut options = typed("jlog", &path, Rotation::default());
        options.sink.as_mut().unwrap().config.insert("precommit".to_owned(), pre_commit.to_owned());
        let stream = graph.configure("feed", options).unwrap();
        let feed = Jlog::open(&path).unwrap();
        feed.subscribe("s", Start::Beginning).unwrap();
        let mut reader = feed.reader("s").unwrap();
        for n in 0..1000 {
            log!(stream, "{n}");
            let batch = reader.next_batch(Wait::No).unwrap().unwrap();
            let bodies: Vec<_> =
                batch.iter().map(|m| String::from_utf8(m.body().to_vec()).unwrap()).collect();
            assert_eq!(bodies, [n.to_string()], "{pre_commit}");
        }
    }
}

#[test]
fn a_jlog_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let graph = Graph::new();
    let with_names = format!("{}(one,two)", path.display());
    let stream = graph.configure("feed", typed("jlog", Path::new(&with_names), Rotation::default())).unwrap();
    let there = || -> Vec<String> { read(&path).into_iter().map(|(_, text)| text).collect() };
    log!(stream, "before");
    assert_eq!(there(), ["before"]);

    std::fs::remove_dir_all(&path).unwrap();
    graph.reopen().unwrap();
    assert_eq!(subscribers(&path), ["one", "two"]);
    log!(stream, "after a signal");
    assert_eq!(there(), ["after a signal"]);

    // The open segment takes lines until its lock is released.
    std::fs::remove_dir_all(&path).unwrap();
    within(Duration::from_secs(10), move || {
        while !path.exists() {
            log!(stream, "where");
            std::thread::sleep(Duration::from_millis(5));
        }
        log!(stream, "there");
        assert_eq!(subscribers(&path), ["one", "two"]);
        let lines = read(&path);
        assert_eq!(lines.last().map(|(_, text)| &**text), Some("there"));
    });
    assert_eq!(graph.describe("feed").unwrap().counters.failed, 0);
}

#[test]
fn a_jlog_that_was_restored_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("feed"), dir.path().join("backup"));
    drop(Jlog::create(&backup).unwrap());
    let graph = Graph::new();
    let stream = graph.configure("feed", typed("jlog", &path, Rotation::default())).unwrap();
    log!(stream, "before");
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&backup, &path).unwrap();
    log!(stream, "after");
    assert_eq!(read(&path).into_iter().map(|(_, text)| text).collect::<Vec<_>>(), ["after"]);
    assert_eq!(graph.describe("feed").unwrap().counters.failed, 0);
}

#[test]
fn sizes_out_of_range_change_nothing() {
    for (key, value) in [
        ("segment_size", "-5"),
        ("segment_size", "0"),
        ("segment_size", "99999999999999999999"),
        ("precommit", "-1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        let mut options = typed("jlog", &path, logdag::Rotation::default());
        let config = options.sink.as_mut().map(|sink| &mut sink.config).unwrap();
        config.insert(key.to_owned(), value.to_owned());
        let graph = Graph::new();
        let stream = graph.configure("feed", options).unwrap();
        log!(stream, "one");
        graph.flush().unwrap();
        assert_eq!(jlog_core::Jlog::open(&path).unwrap().status().unwrap().records, 1, "{key} {value}");
    }
}
