//! Sizes at and around every limit: of messages, segments, the pre-commit buffer, names and
//! options.

use std::fs::File;
use std::os::unix::fs::FileExt;

use jlog_core::compat::JlogCompat;
use jlog_core::compat::ReaderCompat;
use jlog_core::compat::WriterCompat;
use jlog_core::format::{
    MAX_PRE_COMMIT, MAX_SEGMENT_SIZE, Meta, PLAIN_HEADER_LEN, RecordFormat, RecordHeader,
};
use jlog_core::internals::scan::{Step, step};
use jlog_core::{
    AlterOptions, Appended, Compression, Error, Jlog, JlogOptions, LogId, ReaderOptions, Safety, Start,
    SubscriberName, Timestamp, Wait, WriterOptions,
};

use testkit::checker::check_strictly;
use testkit::feeds::{bodies, body, consume, new_path, read_all, read_on, time};

const HEADER: usize = PLAIN_HEADER_LEN;
const COMPRESSIONS: [Compression; 2] = [Compression::None, Compression::Lz4];

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

/// Lengths of the segments' files, in order.
fn lengths(log: &Jlog) -> Vec<u64> {
    log.segments().unwrap().into_iter().map(|n| log.inspect(n, |_| {}).unwrap().bytes).collect()
}

#[test]
fn an_empty_message_is_a_message() {
    for compression in COMPRESSIONS {
        for pre_commit in [0, 4096] {
            let (_dir, path) = new_path();
            let log = Jlog::options().compression(compression).pre_commit(pre_commit).create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            let writer = log.writer().unwrap();
            writer.append_at(time(1), "").unwrap();
            writer.append_batch_at(time(2), &["", "x", ""]).unwrap();
            writer.close().unwrap();
            let got = consume(&log, "one");
            let expected: [&[u8]; 4] = [b"", b"", b"x", b""];
            assert_eq!(bodies(&got), expected, "{compression:?} {pre_commit}");
            assert_eq!(got.iter().map(|m| m.time).collect::<Vec<_>>(), [1, 2, 2, 2].map(time));
            assert_eq!(got.iter().map(|m| m.id.marker).collect::<Vec<_>>(), [1, 2, 3, 4]);
            assert_eq!(log.checkpoint("one").unwrap(), LogId::new(0, 4));
        }
    }
}

#[test]
fn an_empty_batch_is_nothing() {
    for pre_commit in [0, 4096] {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(pre_commit).create(&path).unwrap();
        let writer = log.writer().unwrap();
        writer.append_batch::<&str>(&[]).unwrap();
        writer.close().unwrap();
        assert_eq!(read_all(&log), []);
        assert_eq!(lengths(&log), [0]);
    }
}

/// A segment ends with the record that reaches its size: one byte less does not end it, the exact
/// size and one byte more do.
#[test]
fn records_around_one_segment() {
    const SIZE: usize = 1000;
    for (len, segments) in [
        (SIZE - HEADER - 1, vec![999 + 17]),
        (SIZE - HEADER, vec![1000, 17]),
        (SIZE - HEADER + 1, vec![1001, 17]),
        (SIZE, vec![1016, 17]),
        (50 * SIZE, vec![50_016, 17]),
    ] {
        for batch in [false, true] {
            let (_dir, path) = new_path();
            let log = Jlog::options().segment_size(u32_of(SIZE)).create(&path).unwrap();
            let writer = log.writer().unwrap();
            let (first, second) = (body(1, len), b"z".to_vec());
            let last = if batch {
                writer.append_batch(&[&first, &second]).unwrap().last()
            } else {
                assert_eq!(writer.append(&first).unwrap(), Appended::InSegment(LogId::new(0, 1)));
                // As in the C library, the roll is done when the append returns.
                assert_eq!(writer.segment(), u32_of(segments.len() - 1), "{len}");
                writer.append(&second).unwrap()
            };
            let rolled = segments.len() == 2;
            // A record that does not end the segment leaves room for the next one, which then
            // exceeds the size.
            let expected = if rolled { LogId::new(1, 1) } else { LogId::new(0, 2) };
            assert_eq!(last, Appended::InSegment(expected), "{len}");
            let all = if rolled { segments.clone() } else { vec![segments[0], 0] };
            assert_eq!(lengths(&log), all, "{len}");
            writer.close().unwrap();
            let got = read_all(&log);
            assert_eq!(bodies(&got), [&first[..], &second[..]]);
            assert_eq!(got[1].id, expected);
        }
    }
}

/// With the smallest segments, every record gets its own segment.
#[test]
fn segments_of_one_byte() {
    for compression in COMPRESSIONS {
        let (_dir, path) = new_path();
        let log = Jlog::options().segment_size(1).compression(compression).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let messages: Vec<Vec<u8>> = (0..5).map(|n| body(n, usize::try_from(n).unwrap() * 100)).collect();
        writer.append_batch(&messages[..3]).unwrap();
        for message in &messages[3..] {
            writer.append(message).unwrap();
        }
        writer.close().unwrap();
        assert_eq!(log.segments().unwrap(), [0, 1, 2, 3, 4, 5]);
        let got = consume(&log, "one");
        assert_eq!(bodies(&got), messages);
        assert_eq!(got.iter().map(|m| m.id).collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(|n| LogId::new(n, 1)));
    }
}

/// As above with LZ4, where the stored length counts instead of the message's.
#[test]
fn a_compressed_record_of_exactly_one_segment() {
    let message = body(7, 5000);
    let stored = lz4_flex::block::compress(&message).len();
    assert!(stored < 5000);
    let record = 20 + stored;
    for (size, last) in [(record - 1, (1, 1)), (record, (1, 1)), (record + 1, (0, 2))] {
        let (_dir, path) = new_path();
        let log = Jlog::options()
            .segment_size(u32_of(size))
            .compression(Compression::Lz4)
            .checksums(false)
            .create(&path)
            .unwrap();
        let writer = log.writer().unwrap();
        writer.append(&message).unwrap();
        assert_eq!(writer.append("z").unwrap().id(), Some(LogId::new(last.0, last.1)));
        writer.close().unwrap();
        assert_eq!(bodies(&read_all(&log)), [&message[..], b"z"]);
    }
}

#[test]
fn messages_around_the_pre_commit_buffer() {
    const BUFFER: usize = 512;
    for (len, fits) in
        [(BUFFER - HEADER - 1, true), (BUFFER - HEADER, true), (BUFFER - HEADER + 1, false), (BUFFER, false)]
    {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(u32_of(BUFFER)).create(&path).unwrap();
        let writer = log.writer().unwrap();
        assert_eq!(writer.pre_commit_size(), BUFFER);
        let message = body(1, len);
        let placed = writer.append(&message).unwrap();
        let used = if fits { len + HEADER } else { 0 };
        assert_eq!(
            placed,
            if fits { Appended::Buffered } else { Appended::InSegment(LogId::new(0, 1)) },
            "{len}"
        );
        assert_eq!(writer.pre_commit_used(), used, "{len}");
        assert_eq!(read_all(&log).len(), usize::from(!fits), "what is buffered is not readable yet");
        writer.flush().unwrap();
        assert_eq!(writer.pre_commit_used(), 0);
        assert_eq!(bodies(&read_all(&log)), [&message[..]]);
    }
}

/// A record that does not fit into the rest of the buffer flushes it first, and the order is kept.
#[test]
fn messages_around_what_is_left_of_the_buffer() {
    const BUFFER: usize = 512;
    let first = body(1, 100);
    let left = BUFFER - HEADER - first.len();
    for (len, flushed) in [(left - HEADER, false), (left - HEADER + 1, true)] {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(u32_of(BUFFER)).create(&path).unwrap();
        let writer = log.writer().unwrap();
        writer.append(&first).unwrap();
        let second = body(2, len);
        assert_eq!(writer.append(&second).unwrap(), Appended::Buffered);
        assert_eq!(bodies(&read_all(&log)), if flushed { vec![&first[..]] } else { vec![] }, "{len}");
        assert_eq!(writer.pre_commit_used(), if flushed { HEADER + len } else { BUFFER });
        // A message larger than the whole buffer: the buffer's contents come first.
        let third = body(3, BUFFER);
        assert_eq!(writer.append(&third).unwrap(), Appended::InSegment(LogId::new(0, 3)));
        writer.close().unwrap();
        assert_eq!(bodies(&read_all(&log)), [&first[..], &second, &third]);
    }
}

#[test]
fn batches_around_the_buffer() {
    const BUFFER: usize = 512;
    for (len, buffered) in [(512 / 4 - HEADER, true), (512 / 4 - HEADER + 1, false)] {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(u32_of(BUFFER)).create(&path).unwrap();
        let writer = log.writer().unwrap();
        writer.append("before").unwrap();
        let batch: Vec<Vec<u8>> = (0..4).map(|n| body(n, len)).collect();
        let placed = writer.append_batch(&batch).unwrap().last();
        assert_eq!(placed, if buffered { Appended::Buffered } else { Appended::InSegment(LogId::new(0, 5)) });
        assert_eq!(writer.pre_commit_used(), if buffered { BUFFER } else { 0 });
        writer.append("after").unwrap();
        writer.close().unwrap();
        let mut expected = vec![&b"before"[..]];
        expected.extend(batch.iter().map(|message| &message[..]));
        expected.push(b"after");
        assert_eq!(bodies(&read_all(&log)), expected);
    }
}

/// Messages larger than both the segment and the buffer, between small ones.
#[test]
fn messages_larger_than_everything() {
    for compression in COMPRESSIONS {
        let (_dir, path) = new_path();
        let options = Jlog::options().segment_size(1024).pre_commit(512).compression(compression);
        let log = options.create(&path).unwrap();
        let writer = log.writer().unwrap();
        let messages =
            [3, 300_000, 600, 0, 1100, 70_000, 1].map(|len| body(len, usize::try_from(len).unwrap()));
        for (message, n) in messages.iter().zip(0..) {
            writer.append_at(time(n), message).unwrap();
        }
        writer.append_batch_at(time(9), &messages).unwrap();
        writer.close().unwrap();
        let got = read_all(&log);
        let expected: Vec<&[u8]> = messages.iter().chain(&messages).map(|message| &message[..]).collect();
        assert!(bodies(&got) == expected, "{compression:?}");
        for n in log.segments().unwrap() {
            let mut ends = Vec::new();
            log.inspect(n, |record| ends.push(record.offset)).unwrap();
            let last = ends.last().copied().unwrap_or(0);
            // A buffer is flushed as one append, so that a segment can exceed its size by one
            // buffer.
            assert!(last < 1024 + 512, "segment {n} went on behind its size: {ends:?}");
        }
        if let Some((good, report)) = check_strictly(&path) {
            assert!(good, "{}", report["problems"]);
        }
    }
}

/// A batch that crosses many segments, with bodies that are written without a copy, and pieces of
/// more than a MiB.
#[test]
fn a_batch_over_many_segments() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(1 << 20).create(&path).unwrap();
    let sizes = [10, 70_000, 65_536, 65_535, 0, 900_000, 1, 1 << 20, (1 << 20) - 16, 5, 2_500_000, 3];
    let batch: Vec<Vec<u8>> = sizes.iter().zip(0..).map(|(&len, n)| body(n, len)).collect();
    let writer = log.writer().unwrap();
    writer.append("before").unwrap();
    let last = writer.append_batch_at(time(1), &batch).unwrap().last();
    writer.close().unwrap();
    let got = read_all(&log);
    assert_eq!(got.len(), 13);
    assert!(bodies(&got[1..]) == batch);
    assert!(got[1..].iter().all(|message| message.time == time(1)));
    assert_eq!(last.id(), Some(got[12].id));
    // The ids are those that single appends would have given.
    let (mut segment, mut used, mut marker) = (0, HEADER + 6, 1);
    for (message, &len) in got[1..].iter().zip(&sizes) {
        marker += 1;
        assert_eq!(message.id, LogId::new(segment, marker), "message of {len} bytes");
        used += HEADER + len;
        if used >= 1 << 20 {
            (segment, used, marker) = (segment + 1, 0, 0);
        }
    }
}

/// A record that is longer than a batch comes whole, as the only one of its batch.
#[test]
fn records_around_the_readers_batch() {
    for compression in COMPRESSIONS {
        let (_dir, path) = new_path();
        let log = Jlog::options().compression(compression).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let sizes = [4096 - 16, 4096 - 15, 1, 4096, 100_000, 0, 4000, 80, 16, 64];
        let messages: Vec<Vec<u8>> = sizes.iter().zip(0..).map(|(&len, n)| body(n, len)).collect();
        log.writer().unwrap().append_batch(&messages).unwrap();
        for bytes in [0, 4096, 8192, 1 << 20, usize::MAX] {
            let mut reader = log.reader_with("one", ReaderOptions::default().batch_bytes(bytes)).unwrap();
            assert!(bodies(&read_on(&mut reader)) == messages, "{compression:?}, batches of {bytes}");
        }
    }
}

/// Any time that the format can hold comes back, even an invalid one.
#[test]
fn times_at_their_limits() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    let writer = log.writer().unwrap();
    let times = [(0, 0), (u32::MAX, 999_999), (u32::MAX, u32::MAX)]
        .map(|(seconds, micros)| Timestamp { seconds, micros });
    for time in times {
        writer.append_at(time, "x").unwrap();
    }
    assert_eq!(read_all(&log).iter().map(|message| message.time).collect::<Vec<_>>(), times);
}

#[test]
fn u32_limits_of_a_record_by_arithmetic() {
    let plain = RecordFormat::new(Compression::None);
    let lz4 = RecordFormat::new(Compression::Lz4);
    assert_eq!(plain.max_message_len(), (1 << 32) - 1 - 16);
    assert_eq!(lz4.max_message_len(), (1 << 32) - 1 - 20);
    for (format, header) in [(plain, 16), (lz4, 20)] {
        let longest = u32::try_from(format.max_message_len()).unwrap();
        for len in [0, 1, longest, u32::MAX] {
            let record = RecordHeader { time: time(1), len, stored: len };
            let mut head = [0; 20];
            format.encode(&record, &mut head);
            let total = u64::from(len) + header;
            // Lengths of header and body are added as u64, so nothing wraps.
            assert_eq!(step(format, &head, total), Step::Record(record, total));
            assert_eq!(step(format, &head, u64::MAX), Step::Record(record, total));
            assert_eq!(step(format, &head, total - 1), Step::Torn);
        }
    }
}

/// Offsets beyond 4 GiB: a segment whose first record has the maximum length (and is sparse on
/// disk).
#[test]
fn a_record_behind_4_gib() {
    let (_dir, path) = new_path();
    let log = Jlog::options().checksums(false).create(&path).unwrap();
    log.store_checkpoint("one", LogId::new(0, 1)).unwrap();
    let format = RecordFormat::new(Compression::None);
    let longest = u32::try_from(format.max_message_len()).unwrap();
    let mut head = [0; 16];
    format.encode(&RecordHeader { time: time(1), len: longest, stored: longest }, &mut head);
    let segment = File::create(path.join("00000000")).unwrap();
    let end = u64::from(longest) + 16;
    segment.write_all_at(&head, 0).unwrap();
    format.encode(&RecordHeader { time: time(2), len: 6, stored: 6 }, &mut head);
    segment.write_all_at(&head, end).unwrap();
    segment.write_all_at(b"behind", end + 16).unwrap();
    drop(segment);

    let mut offsets = Vec::new();
    let inspection = log.inspect(0, |record| offsets.push(record.offset)).unwrap();
    assert_eq!(offsets, [0, u64::from(u32::MAX)]);
    assert_eq!((inspection.records, inspection.bytes), (2, end + 22));
    let lag = log.lag("one").unwrap();
    assert_eq!((lag.messages, lag.bytes, lag.oldest), (1, 22, Some(time(2))));
    // The index, whose entries are u64, finds it, too.
    let mut reader = log.reader("one").unwrap();
    let interval = reader.interval().unwrap();
    assert_eq!((interval.first, interval.count), (LogId::new(0, 2), 1));
    assert_eq!(reader.read(LogId::new(0, 2)).unwrap().body(), b"behind");
    drop(reader);
    let index = std::fs::read(path.join("00000000.idx")).unwrap();
    assert_eq!(index, [0u64, u64::from(u32::MAX)].map(u64::to_le_bytes).concat());
    let writer = log.writer().unwrap();
    assert_eq!(writer.append("next").unwrap().id(), Some(LogId::new(1, 1)), "the segment was more than full");
    assert_eq!(bodies(&consume(&log, "one")), [&b"behind"[..], b"next"]);
}

/// The last segment numbers: what fits is written and read, and then the error is clear.
#[test]
fn the_last_segment_numbers() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(40).create(&path).unwrap();
    let meta = Meta { storage_log: u32::MAX - 1, ..log.meta().unwrap() };
    std::fs::write(path.join("metastore"), meta.encode()).unwrap();
    std::fs::write(path.join("fffffffe"), "").unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    assert_eq!(log.checkpoint("one").unwrap(), LogId::new(u32::MAX - 1, 0));
    let writer = log.writer().unwrap();
    let messages = [body(1, 40), body(2, 10), body(3, 40)];
    let ids = [(u32::MAX - 1, 1), (u32::MAX, 1), (u32::MAX, 2)].map(|(s, m)| LogId::new(s, m));
    for (message, id) in messages.iter().zip(ids) {
        assert_eq!(writer.append(message).unwrap().id(), Some(id));
    }
    assert!(matches!(writer.append("too much"), Err(Error::OutOfSegments { .. })));
    assert!(matches!(writer.append_batch(&["too", "much"]), Err(Error::OutOfSegments { .. })));
    assert!(matches!(writer.roll(), Err(Error::OutOfSegments { .. })));
    drop(writer);
    assert_eq!(log.segments().unwrap(), [u32::MAX - 1, u32::MAX]);
    let got = consume(&log, "one");
    assert_eq!(bodies(&got), messages);
    assert_eq!(got.iter().map(|message| message.id).collect::<Vec<_>>(), ids);
    assert_eq!(log.checkpoint("one").unwrap(), LogId::new(u32::MAX, 2));
    assert_eq!(log.segments().unwrap(), [u32::MAX]);
    assert_eq!(log.verify().unwrap().findings, []);
}

#[test]
fn subscriber_names_of_every_length() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.writer().unwrap().append("x").unwrap();
    for len in [1, 2, 63, 125, 126] {
        let name = vec![b'n'; len];
        log.subscribe(&name, Start::Beginning).unwrap();
        assert_eq!(log.checkpoint(&name).unwrap(), LogId::new(0, 0));
        assert_eq!(bodies(&consume(&log, &name)), [b"x"]);
        assert_eq!(log.checkpoint(&name).unwrap(), LogId::new(0, 1));
        let file = path.join(format!("cp.{}", "6e".repeat(len)));
        assert_eq!(std::fs::read(file).unwrap(), [0, 0, 0, 0, 1, 0, 0, 0]);
        assert!(matches!(log.subscribe(&name, Start::End), Err(Error::SubscriberExists { .. })));
    }
    for bad in [&b""[..], &[b'n'; 127], &[b'n'; 300], b"a\0b", b"\0"] {
        let wrong = |e: Option<Error>| assert!(matches!(e, Some(Error::SubscriberName { .. })), "{bad:?}");
        wrong(log.subscribe(bad, Start::Beginning).err());
        wrong(log.unsubscribe(bad).err());
        wrong(log.checkpoint(bad).err());
        wrong(log.set_checkpoint(bad, LogId::new(0, 0)).err());
        wrong(log.reader(bad).err());
        wrong(log.lag(bad).err());
        wrong(log.has_subscriber(bad).err());
        wrong(SubscriberName::new(bad).err().map(Error::from));
    }
    assert_eq!(log.subscribers().unwrap().len(), 5);
}

#[test]
fn subscriber_names_of_every_byte() {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.writer().unwrap().append_batch(&["x"; 255]).unwrap();
    for byte in 1..=255u8 {
        assert!(!log.has_subscriber([byte]).unwrap());
        log.subscribe([byte], Start::After(LogId::new(0, byte.into()))).unwrap();
        assert!(log.has_subscriber([byte]).unwrap());
    }
    let names: Vec<Vec<u8>> =
        log.subscribers().unwrap().iter().map(|name| name.as_bytes().to_vec()).collect();
    assert_eq!(names, (1..=255u8).map(|byte| vec![byte]).collect::<Vec<_>>());
    for byte in 1..=255u8 {
        assert_eq!(log.checkpoint([byte]).unwrap(), LogId::new(0, byte.into()));
        assert_eq!(log.lag([byte]).unwrap().messages, u64::from(255 - byte));
        assert!(log.unsubscribe([byte]).unwrap());
        assert!(!log.unsubscribe([byte]).unwrap());
    }
    // Names with a special meaning elsewhere are ordinary names.
    for name in ["../out", "/", ".", "..", "cp.6f", "metastore", "00000000", "a\nb", "~"] {
        log.subscribe(name, Start::Beginning).unwrap();
        assert_eq!(log.subscribers().unwrap(), [SubscriberName::new(name).unwrap()]);
        assert!(log.unsubscribe(name).unwrap());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_made() {
    let (dir, path) = new_path();
    let out_of_range = |options: JlogOptions| {
        assert!(matches!(options.create(&path), Err(Error::OutOfRange { .. })), "{options:?}");
        assert!(matches!(options.create_or_open(&path), Err(Error::OutOfRange { .. })), "{options:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    for bytes in [0, MAX_SEGMENT_SIZE + 1, u32::MAX] {
        out_of_range(Jlog::options().segment_size(bytes));
    }
    for bytes in [MAX_PRE_COMMIT + 1, u32::MAX] {
        out_of_range(Jlog::options().pre_commit(bytes));
    }
    for mode in [0o1000, 0o4755, u32::MAX] {
        out_of_range(Jlog::options().file_mode(mode));
    }
    assert_eq!((MAX_SEGMENT_SIZE, MAX_PRE_COMMIT), (1 << 30, 8 << 20));
}

#[test]
fn options_at_their_limits_work() {
    for (segment_size, pre_commit) in [(1, 0), (1, MAX_PRE_COMMIT), (MAX_SEGMENT_SIZE, 1), (4096, 15)] {
        let (_dir, path) = new_path();
        let options = Jlog::options().segment_size(segment_size).pre_commit(pre_commit);
        let log = options.create(&path).unwrap();
        let meta = log.meta().unwrap();
        assert_eq!((meta.storage_log, meta.segment_size, meta.safety), (0, segment_size, Safety::AlmostSafe));
        let writer = log.writer().unwrap();
        assert_eq!(writer.pre_commit_size(), usize::try_from(pre_commit).unwrap());
        writer.append_batch(&["a", "b"]).unwrap();
        writer.close().unwrap();
        assert_eq!(bodies(&read_all(&log)), [b"a", b"b"]);
        if pre_commit > 0 {
            let len = std::fs::metadata(path.join("pre_commit")).unwrap().len();
            assert_eq!(len, 4 + u64::from(pre_commit));
        }
    }
}

#[test]
fn changes_out_of_range_are_refused() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    let before = log.meta().unwrap();
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::OutOfRange { .. })));
    let writer = log.writer().unwrap();
    for bytes in [0, MAX_SEGMENT_SIZE + 1] {
        refused(log.alter(AlterOptions::default().segment_size(bytes).safety(Safety::Safe)));
        refused(writer.set_segment_size(bytes));
    }
    refused(
        log.alter(
            AlterOptions::default().segment_size(1).pre_commit(MAX_PRE_COMMIT + 1).safety(Safety::Safe),
        ),
    );
    refused(log.writer_with(WriterOptions::default().pre_commit(MAX_PRE_COMMIT + 1)).map(|_| ()));
    assert_eq!(log.meta().unwrap(), before, "nothing of a refused change is done");
    for bytes in [1, MAX_SEGMENT_SIZE] {
        writer.set_segment_size(bytes).unwrap();
        assert_eq!(log.meta().unwrap(), Meta { segment_size: bytes, ..before });
    }
    for safety in [Safety::Unsafe, Safety::AlmostSafe, Safety::Safe] {
        log.alter(AlterOptions::default().safety(safety)).unwrap();
        assert_eq!(log.meta().unwrap().safety, safety);
        writer.set_safety(Safety::AlmostSafe).unwrap();
        assert_eq!(log.meta().unwrap().safety, Safety::AlmostSafe);
    }
}

/// Ids that point nowhere are refused if they cannot exist; otherwise reading them finds nothing.
#[test]
fn ids_beyond_the_end() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    log.writer().unwrap().append_batch(&["a", "b"]).unwrap();
    let mut reader = log.reader("one").unwrap();
    for id in [(0, 0), (0, 3), (0, u32::MAX), (1, 1), (u32::MAX, u32::MAX)].map(|(s, m)| LogId::new(s, m)) {
        assert!(matches!(reader.read(id), Err(Error::NoSuchRecord { id: named, .. }) if named == id), "{id}");
    }
    for id in [(1, 0), (0, 3), (0, u32::MAX), (u32::MAX, u32::MAX)].map(|(s, m)| LogId::new(s, m)) {
        assert!(matches!(reader.commit(id), Err(Error::NoSuchRecord { .. })));
        assert!(id.segment == 0 || matches!(reader.seek(id), Err(Error::NoSuchRecord { .. })));
        assert!(matches!(log.set_checkpoint("one", id), Err(Error::NoSuchRecord { .. })));
        assert!(matches!(log.subscribe("two", Start::After(id)), Err(Error::NoSuchRecord { .. })));
    }
    assert!(!log.has_subscriber("two").unwrap());
    assert_eq!(log.checkpoint("one").unwrap(), LogId::new(0, 0));
    assert_eq!(reader.read(LogId::new(0, 2)).unwrap().body(), b"b");
    assert_eq!(reader.position(), LogId::new(0, 0), "random reads leave the position alone");
    assert_eq!(reader.next_batch(Wait::No).unwrap().unwrap().len(), 2);
}
