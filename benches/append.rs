//! Appending: single and in batches, with and without a pre-commit buffer.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jlog_benches::{Feed, MESSAGE, feed};
use jlog_core::{Compression, Jlog, JlogOptions, Locking, SyncPolicy, Writer, WriterOptions};

/// Messages per measured iteration: few enough that most iterations do not roll.
const MESSAGES: u64 = 1000;

fn writer(feed: &Feed, locking: Locking) -> Writer {
    feed.log.writer_with(WriterOptions::default().locking(locking).sync(SyncPolicy::Never)).unwrap()
}

fn single(c: &mut Criterion) {
    let message = [b'm'; MESSAGE];
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(MESSAGES));
    let multi = Locking::MultiProcess;
    let alone = Locking::SingleProcess;
    let cases: [(&str, JlogOptions, Locking); 7] = [
        ("many processes", Jlog::options(), multi),
        ("many processes, no checksums", Jlog::options().checksums(false), multi),
        ("one process", Jlog::options(), alone),
        ("pre-commit 1 MiB, many processes", Jlog::options().pre_commit(1 << 20), multi),
        ("pre-commit 1 MiB, one process", Jlog::options().pre_commit(1 << 20), alone),
        (
            "pre-commit 1 MiB, one process, no checksums",
            Jlog::options().pre_commit(1 << 20).checksums(false),
            alone,
        ),
        ("lz4, many processes", Jlog::options().compression(Compression::Lz4), multi),
    ];
    for (name, options, locking) in cases {
        let feed = feed(&options);
        let writer = writer(&feed, locking);
        group.bench_function(name, |b| {
            b.iter_batched(
                || feed.forget(),
                |()| {
                    for _ in 0..MESSAGES {
                        writer.append(black_box(&message)).unwrap();
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn batch(c: &mut Criterion) {
    let message = [b'm'; MESSAGE];
    let mut group = c.benchmark_group("append_batch");
    for size in [10usize, 100, 1000] {
        group.throughput(Throughput::Elements(size as u64));
        let messages = vec![&message[..]; size];
        for (name, checksums) in [("many processes", true), ("many processes, no checksums", false)] {
            let feed = feed(&Jlog::options().checksums(checksums));
            let writer = writer(&feed, Locking::MultiProcess);
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter_batched(
                    || feed.forget(),
                    |()| writer.append_batch(black_box(&messages)).unwrap(),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn durable(c: &mut Criterion) {
    let message = [b'm'; MESSAGE];
    let feed = feed(&Jlog::options());
    let options = WriterOptions::default().sync(SyncPolicy::EachAppend);
    let writer = feed.log.writer_with(options).unwrap();
    c.bench_function("durable append", |b| b.iter(|| writer.append(black_box(&message)).unwrap()));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = single, batch, durable
}
criterion_main!(benches);
