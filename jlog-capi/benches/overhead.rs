//! The overhead of the C interface over the Rust one: single appends and single reads through both,
//! in one run.

#![allow(missing_docs, clippy::unwrap_used)]

use std::ffi::CString;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jlog::{
    jlog_ctx_close, jlog_ctx_open_reader, jlog_ctx_open_writer, jlog_ctx_read_interval,
    jlog_ctx_read_message, jlog_ctx_write, jlog_id, jlog_message, jlog_message_header_compressed, jlog_new,
};
use jlog_core::{Jlog, LogId, Start, Wait};

const BODY: [u8; 100] = [b'x'; 100];
const MESSAGES: u32 = 30_000;

fn feed(pre_commit: u32) -> (tempfile::TempDir, Jlog, CString) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let log = Jlog::options().checksums(false).pre_commit(pre_commit).create(&path).unwrap();
    (dir, log, CString::new(path.to_str().unwrap()).unwrap())
}

fn append(c: &mut Criterion) {
    for (name, pre_commit) in [("append", 0), ("append, buffered", 1 << 20)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        // Without subscribers, full segments are removed between the measurements.
        let (_dir, log, _) = feed(pre_commit);
        let writer = log.writer().unwrap();
        group.bench_function("Rust", |b| b.iter(|| writer.append(black_box(BODY)).unwrap()));
        drop(writer);
        let (_dir, _log, path) = feed(pre_commit);
        // SAFETY: the context is new, open for writing, and closed last; the message is 100 bytes.
        unsafe {
            let ctx = jlog_new(path.as_ptr());
            assert_eq!(jlog_ctx_open_writer(ctx), 0);
            group.bench_function("C", |b| {
                b.iter(|| assert_eq!(jlog_ctx_write(ctx, black_box(BODY).as_ptr().cast(), BODY.len()), 0));
            });
            jlog_ctx_close(ctx);
        }
    }
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read one by one");
    group.throughput(Throughput::Elements(u64::from(MESSAGES)));
    let (_dir, log, path) = feed(0);
    log.subscribe("s", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append_batch(&vec![BODY; MESSAGES as usize]).unwrap();
    writer.close().unwrap();
    let mut reader = log.reader("s").unwrap();
    group.bench_function("Rust, by id", |b| {
        b.iter(|| (1..=MESSAGES).map(|n| reader.read(LogId::new(0, n)).unwrap().body().len()).sum::<usize>());
    });
    group.bench_function("Rust, in batches", |b| {
        b.iter(|| {
            reader.rewind().unwrap();
            let mut sum = 0;
            while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
                sum += batch.iter().map(|message| message.body().len()).sum::<usize>();
            }
            assert_eq!(sum, BODY.len() * MESSAGES as usize);
        });
    });
    // SAFETY: the context is new, open for reading, and closed last; ids and messages are valid
    // during each call.
    unsafe {
        let ctx = jlog_new(path.as_ptr());
        assert_eq!(jlog_ctx_open_reader(ctx, c"s".as_ptr()), 0);
        group.bench_function("C", |b| {
            b.iter(|| {
                let (mut first, mut last) = (jlog_id::default(), jlog_id::default());
                assert_eq!(jlog_ctx_read_interval(ctx, &raw mut first, &raw mut last), 30_000);
                let mut sum = 0;
                while first.marker <= last.marker {
                    let mut message = jlog_message {
                        header: std::ptr::null_mut(),
                        mess_len: 0,
                        mess: std::ptr::null_mut(),
                        aligned_header: jlog_message_header_compressed::default(),
                    };
                    assert_eq!(jlog_ctx_read_message(ctx, &raw const first, &raw mut message), 0);
                    sum += message.mess_len as usize;
                    first.marker += 1;
                }
                assert_eq!(sum, BODY.len() * MESSAGES as usize);
            });
        });
        jlog_ctx_close(ctx);
    }
}

criterion_group!(benches, append, read);
criterion_main!(benches);
