//! Processes that fork while their threads log. A separate test binary, so that other tests do not
//! interfere. jlog-fork runs the first two with a logdag that has no features.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jlog_core::{Jlog, Wait};
use logdag::{Compression, Graph, Rotation, SinkSpec, StreamOptions, log};
use testkit::forks::{self, Stop, in_child};

fn messages(feed: &Path) -> Vec<String> {
    let mut reader = Jlog::open(feed).unwrap().reader("reader").unwrap();
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        all.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    all
}

#[test]
fn children_are_usable_and_double_nothing_and_the_parent_does_not_notice() {
    forks::children_are_usable_and_double_nothing(Some(messages));
}

#[test]
fn a_child_of_a_process_whose_queue_is_full_and_stuck_goes_on() {
    forks::a_child_of_a_stuck_process_goes_on(Some(messages));
}

#[test]
fn children_that_rotate_and_compress_lose_and_double_nothing() {
    const FORKS: usize = 60;
    const OF_CHILD: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let rotation =
            Rotation::new().bytes(20_000).name("number".parse().unwrap()).compress(Compression::Gzip);
        let path = dir.path().join("app.log").display().to_string();
        let sink = SinkSpec::new("file", path).rotation(rotation);
        let graph = Graph::new();
        let options = StreamOptions::new().sink(sink);
        let app = graph.configure("app", options).unwrap();
        graph.go_async();
        (graph, app)
    };
    let (graph, app) = open();
    let stop = AtomicBool::new(false);
    let logged = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                log!(app, "parent {n}");
                n += 1;
                std::thread::sleep(Duration::from_micros(100));
            }
            n
        });
        let stopping = Stop(&stop);
        for child in 0..FORKS {
            in_child(child, || {
                (0..OF_CHILD).for_each(|n| log!(app, "child {child} {n} {:.>80}", n));
                drop(graph.drain_at_end());
            });
        }
        drop(stopping);
        thread.join().unwrap()
    });
    drop(graph.drain_at_end());
    drop((graph, app));
    // Files that could not be compressed while another process had them open are compressed by the
    // next one. (The children of the other tests have them open for a while, too.)
    let plain = || {
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().unwrap() != "gz").count()
    };
    let begun = Instant::now();
    while plain() > 1 && begun.elapsed() < Duration::from_secs(60) {
        let (graph, app) = open();
        drop(graph.drain_at_end());
        drop((graph, app));
    }
    let mut lines: Vec<String> = Vec::new();
    let mut compressed = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut text = String::new();
        let mut file = std::fs::File::open(&path).unwrap();
        if path.extension().unwrap() == "gz" {
            compressed += 1;
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            assert_eq!(path.file_name().unwrap(), "app.log");
            file.read_to_string(&mut text).unwrap();
        }
        lines.extend(text.lines().map(str::to_owned));
    }
    assert!(compressed > 10, "{compressed}");
    let of_children =
        (0..FORKS).flat_map(|child| (0..OF_CHILD).map(move |n| format!("child {child} {n} {:.>80}", n)));
    let mut expected: Vec<String> = (0..logged).map(|n| format!("parent {n}")).chain(of_children).collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines.len(), expected.len());
    assert!(lines == expected);
}

/// A forked child has its parent's descriptors and their locks: what it drops must not release the
/// parent's locks.
#[test]
fn a_child_does_not_end_the_claims_of_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Jlog::create(dir.path().join("feed")).unwrap();
    feed.subscribe("s", jlog_core::Start::Beginning).unwrap();
    let alone = jlog_core::WriterOptions::default().locking(jlog_core::Locking::SingleProcess);
    let writer = feed.writer_with(alone).unwrap();
    let reader = feed.reader("s").unwrap();
    let (mut readers, mut writers) = (Some(reader), Some(writer));
    in_child(0, || drop((readers.take(), writers.take())));
    assert!(matches!(feed.reader("s"), Err(jlog_core::Error::ReaderBusy { .. })));
    assert!(matches!(feed.writer(), Err(jlog_core::Error::WriterBusy { .. })));
    drop((readers, writers));
    feed.reader("s").unwrap();
    feed.writer().unwrap();
}
