//! The log-stream graph: the cost of a line for the thread that logs it.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logdag::{
    Flags, Format, Graph, Layout, Location, Record, SinkSpec, Stream, StreamOptions, Value, format, log,
};

/// Formats a message of 99 bytes.
macro_rules! request {
    ($stream:expr, $n:expr) => {
        log!(
            $stream,
            "{:08} 192.0.2.17 GET /archive/{:08x}/index.html 200 compatible; feed reader/1.0 (for everyone)",
            $n,
            $n
        )
    };
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(1));
    let graph = Graph::new();
    let ring = graph.add_memory("ring", 10_000, 2_000_000).unwrap();

    graph.add_outlet("disabled", "ring", None).unwrap();
    graph.set_enabled("disabled", false).unwrap();
    let disabled = graph.stream("disabled").unwrap();
    group.bench_function("disabled stream", |b| {
        let mut n = 0u64;
        b.iter(|| {
            n += 1;
            request!(*black_box(&disabled), n);
        });
    });

    group.bench_function("ring", |b| {
        let mut n = 0u64;
        b.iter(|| {
            n += 1;
            request!(ring, n);
        });
    });
    group.bench_function("ring, text that is there already", |b| {
        let text = "t".repeat(99);
        b.iter(|| log!(ring, "{}", text));
    });

    for (name, filter) in [
        ("filter: a number, does not pass", "status >= 500"),
        ("filter: exists, does not pass", "exists(other)"),
        ("filter: a number, passes to the ring", "status < 500"),
    ] {
        graph.add_outlet(name, "ring", Some(filter)).unwrap();
        let stream = graph.stream(name).unwrap();
        group.bench_function(name, |b| {
            let mut n = 0u64;
            b.iter(|| {
                n += 1;
                log!(stream, status = black_box(200); "GET /archive/{}", n);
            });
        });
    }
    group.finish();
}

fn render(c: &mut Criterion) {
    let mut group = c.benchmark_group("render");
    group.throughput(Throughput::Elements(1));
    let some = Flags::new().timestamps(true).facility(true).debug(true);
    let none = Flags::default();
    for (name, format, flags) in [
        ("plain", Format::Plain, none),
        ("plain with a prefix", Format::Plain, some),
        ("json", Format::Json, none),
        ("event", Format::Event, none),
    ] {
        let mut out = Vec::new();
        let mut micros = 1_700_000_000_000_000;
        group.bench_function(name, |b| {
            b.iter(|| {
                // A thousand lines take less than a second, so that cached parts of times are used.
                micros += 500;
                let keys = [("status", Value::from(200)), ("path", Value::from("/index.html"))];
                let arguments = format_args!("GET /archive/{}", micros);
                let mut record = Record::new(micros, "http/access", &arguments);
                record.keys = &keys;
                record.location = &Location { file: file!(), line: line!() };
                out.clear();
                format::render(format, flags, Layout::default(), black_box(&record), &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

/// A stream to a file that is removed after the bench.
fn to_file(graph: &Graph, dir: &tempfile::TempDir, kind: &str, format: Format) -> Stream {
    let path = dir.path().join(kind).to_str().unwrap().to_owned();
    // One rotated file is kept, so that a long bench does not fill the disk.
    let rotation = logdag::Rotation::default().bytes(10_000_000).retain_count(1);
    let sink = SinkSpec::new(kind.to_owned(), path).rotation(rotation);
    graph.configure(kind, StreamOptions::new().sink(sink).format(format)).unwrap()
}

fn files(c: &mut Criterion) {
    let mut group = c.benchmark_group("file");
    group.throughput(Throughput::Elements(1));
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    graph.go_async();
    for kind in ["file_synch", "file"] {
        for format in [Format::Plain, Format::Event] {
            let stream = to_file(&graph, &dir, kind, format);
            group.bench_function(format!("{kind}, {}", format.name()), |b| {
                let mut n = 0u64;
                b.iter(|| {
                    n += 1;
                    request!(stream, n);
                });
            });
        }
    }
    group.finish();
    graph.go_sync();
}

/// A feed that the logging thread writes, and one behind a queue.
fn feeds(c: &mut Criterion) {
    let mut group = c.benchmark_group("feed");
    group.throughput(Throughput::Elements(1));
    for asynchronous in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let graph = Graph::new();
        let path = dir.path().join("feed").to_str().unwrap().to_owned();
        let sink = SinkSpec::new("jlog", path);
        let options = StreamOptions::new().sink(sink);
        let stream = graph.configure("feed", options).unwrap();
        if asynchronous {
            graph.go_async();
        }
        group.bench_function(if asynchronous { "queued" } else { "synchronous" }, |b| {
            let mut n = 0u64;
            b.iter(|| {
                n += 1;
                request!(stream, n);
            });
        });
        graph.go_sync();
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = calls, render, files, feeds
}
criterion_main!(benches);
