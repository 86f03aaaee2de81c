//! The path of a message into the buffer or the segment.

use std::sync::atomic::Ordering;

use super::appended::{Appended, AppendedBatch};
use super::batch::Encoded;
use super::limiter::Limiter;
use super::state::{Appender, Core};
use super::tail::Room;
use crate::codec::format::check_message_len;
use crate::codec::settings::Settings;
use crate::files::precommit::PreCommit;
use crate::options::SyncPolicy;
use crate::{Result, Timestamp};

impl Core {
    pub(super) fn append_alone(&self, time: Timestamp, body: &[u8]) -> Result<Appended> {
        let mut scratch = Vec::new();
        let record = self.encode(time, body, &mut scratch)?;
        let mut appender = self.appender.lock();
        let placed = self.place(&mut appender, time, &record, self.goes_past_buffer())?;
        self.finish(appender)?;
        Ok(placed)
    }

    /// Whether messages bypass the buffer. Messages that are synced at once do, because one that
    /// cannot be written must not stay in the buffer.
    pub(super) fn goes_past_buffer(&self) -> bool {
        self.policy == SyncPolicy::EachAppend
    }

    /// Puts a record in the buffer or, if it bypasses the buffer, in the segment.
    pub(super) fn place(
        &self,
        appender: &mut Appender,
        time: Timestamp,
        record: &Encoded<'_>,
        past: bool,
    ) -> Result<Appended> {
        appender.pending.saw(time);
        self.look_now_and_then(appender, time)?;
        if appender.limiter.is_some() {
            self.admit_aged(appender, record.len() as u64)?;
        }
        if appender.buffer.is_some() {
            let fits = |buffer: &PreCommit| buffer.fits(record.len());
            if past || !appender.buffer.as_ref().is_some_and(|b| !b.is_foreign() && fits(b)) {
                self.flush_buffer(appender)?;
            }
            if let Some(buffer) = appender.buffer.as_mut().filter(|b| !past && fits(b)) {
                buffer.push(record.head(), record.body);
                appender.written += 1;
                appender.accepted += 1;
                return Ok(Appended::Buffered);
            }
        }
        let mut segment = self.lock(appender, Room::Wanted)?;
        let id = segment.append(record)?;
        segment.done();
        appender.accepted += 1;
        Ok(Appended::InSegment(id))
    }

    /// Now and then, rereads the settings if they have changed and, if appends take no lock, checks
    /// that the feed at the path is still this one. `time` is the time of a message that is about
    /// to be appended.
    fn look_now_and_then(&self, appender: &mut Appender, time: Timestamp) -> Result<()> {
        let (watch, written) = (&mut appender.watch, appender.written);
        if watch.settings.is_due(time, written)
            && let Some((settings, stamp)) = Settings::reload(&self.shared, watch.stamp)
        {
            watch.stamp = stamp;
            appender.limiter = Limiter::new(settings.limits);
            self.checksums.store(settings.checksums, Ordering::Relaxed);
        }
        if (!self.multi || appender.buffer.is_some()) && watch.feed.is_due(time, written) {
            let named = self.meta.check_named(&self.shared);
            watch.feed.failed = named.is_err();
            named?;
        }
        Ok(())
    }

    /// Appends `count` messages. `message` returns each with its time.
    pub(super) fn append_batch<'m>(
        &self,
        count: usize,
        message: impl Fn(usize) -> (Timestamp, &'m [u8]),
    ) -> Result<AppendedBatch> {
        self.check_sync_failed()?;
        let mut appender = self.appender.lock();
        let mut placed = AppendedBatch::default();
        let past = self.goes_past_buffer();
        self.place_batch(&mut appender, count, message, past, |last, count| placed.add(last, count))?;
        self.finish(appender)?;
        Ok(placed)
    }

    /// Puts messages in the buffer or in segments. For each group of messages that is placed, calls
    /// `placed` with the place of the last one and the number of messages in the group.
    pub(super) fn place_batch<'m>(
        &self,
        appender: &mut Appender,
        count: usize,
        message: impl Fn(usize) -> (Timestamp, &'m [u8]),
        past: bool,
        mut placed: impl FnMut(Appended, usize),
    ) -> Result<()> {
        let (mut bound, mut latest) = (0usize, Timestamp::default());
        for n in 0..count {
            let (time, body) = message(n);
            latest = latest.max(time);
            check_message_len(self.format, body.len())?;
            bound = bound.saturating_add(self.longest_record(body));
        }
        appender.pending.saw(latest);
        self.look_now_and_then(appender, latest)?;
        let buffered = !past && appender.buffer.as_ref().is_some_and(|buffer| bound <= buffer.capacity());
        if appender.limiter.is_some() {
            if buffered {
                self.admit_aged(appender, bound as u64)?;
            } else if count > 0 {
                self.admit_ages(appender, 0)?;
            }
        }
        if buffered {
            if appender.buffer.as_ref().is_some_and(|buffer| buffer.is_foreign() || !buffer.fits(bound)) {
                self.flush_buffer(appender)?;
            }
            if let Some(buffer) = appender.buffer.as_mut().filter(|buffer| buffer.fits(bound)) {
                let mut scratch = Vec::new();
                for n in 0..count {
                    scratch.clear();
                    let (time, body) = message(n);
                    let record = self.encode(time, body, &mut scratch)?;
                    buffer.push(record.head(), record.body);
                }
                appender.written += 1;
                appender.accepted += count as u64;
                placed(Appended::Buffered, count);
                return Ok(());
            }
        }
        self.flush_buffer(appender)?;
        let mut done = 0;
        while done < count {
            let mut segment = self.lock(appender, Room::Wanted)?;
            if segment.appender.limiter.is_some() {
                let room = self.segment_size(&segment.appender.limiter).saturating_sub(segment.end());
                let bytes = self.bytes_within(room, done..count, &message);
                self.admit(segment.appender, bytes)?;
            }
            let (id, n) = segment.append_batch(done..count, &message)?;
            segment.done();
            appender.accepted += n as u64;
            done += n;
            placed(Appended::InSegment(id), n);
        }
        Ok(())
    }

    /// An upper bound of the bytes that the messages that fit into this space take.
    fn bytes_within<'m>(
        &self,
        room: u64,
        range: std::ops::Range<usize>,
        message: &impl Fn(usize) -> (Timestamp, &'m [u8]),
    ) -> u64 {
        let mut bytes = 0;
        for n in range {
            bytes += self.longest_record(message(n).1) as u64;
            if bytes >= room {
                break;
            }
        }
        bytes
    }

    /// An upper bound of the bytes that a message takes in a segment.
    fn longest_record(&self, body: &[u8]) -> usize {
        self.format.header_len().saturating_add(self.format.max_stored(body.len()))
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.check_sync_failed()?;
        let mut appender = self.appender.lock();
        self.flush_buffer(&mut appender)?;
        self.write_out_pending(&mut appender)?;
        let size = self.segment_size(&appender.limiter);
        if appender.tail.segment().is_some_and(|segment| segment.end >= size) {
            // The segment size was made smaller. A roll that fails is tried again by the next
            // append.
            if let Ok(segment) = self.lock(&mut appender, Room::Wanted) {
                segment.done();
            }
        }
        self.after_roll(appender)
    }

    /// Flushes the buffer; checksums are written out when they are due.
    pub(super) fn flush_lightly(&self) -> Result<()> {
        self.check_sync_failed()?;
        let mut appender = self.appender.lock();
        self.flush_buffer(&mut appender)?;
        if appender.pending.is_due() {
            self.write_out_pending(&mut appender)?;
        }
        self.after_roll(appender)
    }

    /// Writes out the checksums that are pending for the current segment.
    pub(super) fn write_out_pending(&self, appender: &mut Appender) -> Result<()> {
        if appender.pending.is_some() {
            let mut segment = self.lock(appender, Room::Any)?;
            segment.write_out();
            segment.done();
        }
        Ok(())
    }

    /// Ends a writer.
    pub(super) fn end(&self) {
        let thread = self.appender.lock().lease.stop();
        if let Some(thread) = thread {
            // A panic in it has been printed.
            let _ = thread.join();
        }
        let mut appender = self.appender.lock();
        // Only checksums can be lost: their records then stay unverified.
        let _ = self.write_out_pending(&mut appender);
        self.release(&mut appender);
        if let Some(buffer) = &appender.buffer
            && buffer.is_empty()
        {
            buffer.close();
        }
    }
}
