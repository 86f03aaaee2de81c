//! Reading: in batches, message by message, with and without checking checksums.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jlog_benches::{Feed, MESSAGE, feed};
use jlog_core::{Compression, Jlog, JlogOptions, LogId, ReadMethod, ReaderOptions, Wait};

const MESSAGES: usize = 200_000;

fn filled(options: &JlogOptions) -> Feed {
    let feed = feed(options);
    let writer = feed.log.writer().unwrap();
    let message = [b'm'; MESSAGE];
    for _ in 0..MESSAGES / 1000 {
        writer.append_batch(&vec![&message[..]; 1000]).unwrap();
    }
    writer.close().unwrap();
    feed
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let plain = filled(&Jlog::options());
    let lz4 = filled(&Jlog::options().compression(Compression::Lz4));
    let checked = ReaderOptions::default();
    let unchecked = ReaderOptions::default().verify(false);
    let cases = [
        ("batches", &plain, checked),
        ("batches, not verified", &plain, unchecked),
        ("batches, not verified, mapped", &plain, unchecked.read_method(ReadMethod::Mmap)),
        ("batches, lz4, not verified", &lz4, unchecked),
    ];
    for (name, feed, options) in cases {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut reader = feed.log.reader_with("bench", options).unwrap();
                reader.seek(LogId::new(0, 0)).unwrap();
                let (mut messages, mut bytes) = (0, 0);
                while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
                    for message in &batch {
                        messages += 1;
                        bytes += black_box(message.body()).len();
                    }
                }
                assert_eq!((messages, bytes), (MESSAGES, MESSAGES * MESSAGE));
            });
        });
    }
    group.throughput(Throughput::Elements(1000));
    group.bench_function("one by one by id", |b| {
        let mut reader = plain.log.reader_with("bench", unchecked).unwrap();
        b.iter(|| {
            for marker in 1..=1000 {
                let message = reader.read(LogId::new(0, marker)).unwrap();
                assert_eq!(black_box(message.body()).len(), MESSAGE);
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = read
}
criterion_main!(benches);
