//! Everything that can be done with a jlog, and what must hold whatever its files contain.

use jlog_core::compat::ReaderCompat;
use jlog_core::{
    CleanOptions, Error, Jlog, LogId, OnDamage, ReadMethod, Reader, ReaderOptions, Start, Timestamp, Wait,
};

use super::feed::Feed;

/// Nothing here has more batches than this.
pub(super) const ENDLESS: usize = 10_000;

/// Reads all pending messages of a reader.
pub(super) fn read_on(reader: &mut Reader) -> Result<Vec<(LogId, Vec<u8>)>, Error> {
    let mut out = Vec::new();
    for n in 0.. {
        assert!(n < ENDLESS, "reading does not end");
        let Some(batch) = reader.next_batch(Wait::No)? else { break };
        assert!(!batch.is_empty());
        let ids: Vec<LogId> = batch.iter().map(|message| message.id()).collect();
        assert_eq!((ids.len(), ids[0]), (batch.len(), batch.first_id()));
        assert_eq!(*ids.last().unwrap(), batch.last_id());
        out.extend(batch.iter().map(|message| (message.id(), message.body().to_vec())));
    }
    assert!(out.is_sorted_by(|(a, _), (b, _)| a < b), "ids must grow");
    Ok(out)
}

pub(super) fn skipping() -> ReaderOptions {
    ReaderOptions::default().on_damage(OnDamage::Skip)
}

pub(super) const EVERYTHING: &str = "~everything";

/// Reads everything from the beginning, whatever is damaged, in several ways that must agree.
pub(super) fn read_all(log: &Jlog) -> Result<Vec<(LogId, Vec<u8>)>, Error> {
    log.unsubscribe(EVERYTHING)?;
    log.subscribe(EVERYTHING, Start::Beginning)?;
    let all = read_on(&mut log.reader_with(EVERYTHING, skipping())?)?;
    let small = skipping().batch_bytes(4096).read_method(ReadMethod::Mmap);
    let mapped = read_on(&mut log.reader_with(EVERYTHING, small)?)?;
    assert!(mapped == all, "maps and reads must give the same");
    // Readers that stop at damage get the same messages up to there.
    let mut strict = log.reader(EVERYTHING)?;
    let mut before = Vec::new();
    for n in 0.. {
        assert!(n < ENDLESS, "reading does not end");
        match strict.next_batch(Wait::No) {
            Ok(Some(batch)) => before.extend(batch.iter().map(|m| (m.id(), m.body().to_vec()))),
            Ok(None) => {
                assert!(before == all, "without damage nothing is skipped");
                break;
            }
            Err(e) if e.is_damage() => break,
            Err(e) => return Err(e),
        }
    }
    assert!(all.starts_with(&before), "damage hides nothing before it");
    drop(strict);
    // One by one.
    let mut reader = log.reader(EVERYTHING)?;
    for (id, body) in &all {
        assert_eq!(reader.read(*id)?.body(), body, "{id}");
    }
    log.unsubscribe(EVERYTHING)?;
    Ok(all)
}

pub(super) fn bodies(read: &[(LogId, Vec<u8>)]) -> Vec<&[u8]> {
    read.iter().map(|(_, body)| &body[..]).collect()
}

/// Uses every query on a jlog; errors are fine, panics are not.
pub(super) fn look(log: &Jlog) -> Result<(), Error> {
    let verified = log.verify()?;
    assert!(verified.verified <= verified.records);
    let status = log.status()?;
    assert_eq!(status.bytes, verified.bytes);
    for segment in log.segments()? {
        let mut records = 0;
        let found = log.inspect(segment, |_| records += 1)?;
        assert_eq!(found.records, records);
        assert!(found.whole_until <= found.bytes);
    }
    for name in log.subscribers()? {
        // An unreadable checkpoint is an error, nothing worse.
        let Ok(mut reader) = log.reader_with(&name, skipping()) else { continue };
        read_on(&mut reader)?;
        reader.seek_time(Timestamp { seconds: 1_700_000_006, micros: 0 })?;
        read_on(&mut reader)?;
        // The interval, if it is known, lies in one segment.
        if let Ok(interval) = reader.interval() {
            assert_eq!(interval.first.segment, interval.last.segment);
        }
    }
    log.end()?;
    log.raw_size()?;
    log.pre_commit()?;
    Ok(())
}

/// The message that we write last, and expect after all others.
pub(super) const LAST: &[u8] = b"written afterwards";

/// Writes a message. `false` if no segment number is left for it.
pub(super) fn write(log: &Jlog) -> Result<bool, Error> {
    let written = log.writer().and_then(|writer| {
        writer.append(LAST)?;
        writer.close()
    });
    match written {
        Ok(()) => Ok(true),
        Err(Error::OutOfSegments { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn is_subsequence(wanted: &[Vec<u8>], of: &[&[u8]]) -> bool {
    let mut of = of.iter();
    wanted.iter().all(|body| of.any(|other| other == body))
}

/// Does every operation on a jlog that the bytes were put in: looks at it, writes to it and repairs
/// it, in one order or the other. `wanted` are the messages that must be readable afterwards, in
/// this order.
pub(super) fn try_everything(feed: &Feed, write_first: bool, wanted: &[Vec<u8>]) {
    if let Ok(log) = feed.open() {
        // Errors are what a damaged jlog gives.
        let _ = look(&log);
        let _ = read_all(&log);
        if write_first {
            if write(&log).is_ok_and(|written| written)
                && let Ok(all) = read_all(&log)
            {
                assert_eq!(all.last().map(|(_, body)| &body[..]), Some(LAST), "what was accepted is read");
            }
            let _ = look(&log);
        }
    }
    if feed.options().repair(&feed.path).is_err() {
        return;
    }
    let log = feed.open().expect("a repaired jlog opens");
    let verified = log.verify().unwrap();
    assert!(!verified.is_damaged(), "a repaired jlog is sound: {:?}", verified.findings);
    look(&log).expect("a repaired jlog can be looked at");
    let all = read_all(&log).expect("a repaired jlog can be read");
    assert!(is_subsequence(wanted, &bodies(&all)), "intact messages are gone:\n{all:?}\nwanted:\n{wanted:?}");
    let again = feed.options().repair(&feed.path).unwrap();
    assert!(again.is_empty(), "repaired once, a jlog needs no repair: {again:?}");
    if write(&log).expect("a repaired jlog can be written to") {
        let more = read_all(&log).unwrap();
        assert_eq!(more.last().map(|(_, body)| &body[..]), Some(LAST), "what was accepted is read");
        assert!(is_subsequence(wanted, &bodies(&more)), "writing has lost messages");
    }
    log.clean(CleanOptions::default().roll(true)).expect("a repaired jlog can be cleaned");
    let verified = log.verify().unwrap();
    assert!(!verified.is_damaged(), "and stays sound: {:?}", verified.findings);
}
