//! Lines that outlive the calls that logged them.

use std::collections::VecDeque;
use std::fmt;

use crate::level::Level;
use crate::record::{Details, Location, Record, Span, While};
use crate::sync::Mutex;
use crate::value::{OwnedValue, Value, borrowed};

/// The lines of a speculation.
pub(crate) struct Kept {
    max_lines: usize,
    max_bytes: usize,
    lines: Mutex<Lines>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("lines", &self.lines.lock().lines.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Lines {
    lines: VecDeque<KeptLine>,
    bytes: usize,
    dropped: u64,
}

/// A line that outlives the call that logged it.
pub(crate) struct KeptLine {
    micros: u64,
    thread_id: u32,
    thread_name: String,
    file: String,
    line: u32,
    pub(crate) level: Level,
    message: String,
    keys: OwnedKeys,
    target: String,
    spans: Vec<(String, OwnedKeys)>,
}

type OwnedKeys = Vec<(String, OwnedValue)>;

fn owned(keys: &[(&str, Value<'_>)]) -> OwnedKeys {
    keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
}

impl KeptLine {
    fn of(record: &Record<'_>) -> Self {
        Self {
            micros: record.micros(),
            thread_id: record.thread_id(),
            thread_name: record.thread_name().to_owned(),
            file: record.location.file.to_owned(),
            line: record.location.line,
            level: record.level,
            message: record.message().to_owned(),
            keys: owned(record.keys),
            target: record.details.target.to_owned(),
            spans: record
                .details
                .spans
                .iter()
                .map(|span| (span.name.to_owned(), owned(span.fields)))
                .collect(),
        }
    }

    /// The size of its texts and numbers in bytes.
    fn size(&self) -> usize {
        let of_value = |value: &OwnedValue| match value {
            OwnedValue::Str(text) | OwnedValue::Json(text) => text.len(),
            OwnedValue::Plain(_) => size_of::<Value<'_>>(),
        };
        let of_keys =
            |keys: &OwnedKeys| keys.iter().map(|(key, value)| key.len() + of_value(value)).sum::<usize>();
        let spans: usize = self.spans.iter().map(|(name, fields)| name.len() + of_keys(fields)).sum();
        let texts = [&self.message, &self.file, &self.thread_name, &self.target].map(String::len);
        texts.iter().sum::<usize>() + of_keys(&self.keys) + spans
    }

    /// Calls a function with it as a line of this stream.
    pub(crate) fn with_record<R>(&self, facility: &str, work: impl FnOnce(&Record<'_>) -> R) -> R {
        let keys = borrowed(&self.keys);
        let fields: Vec<_> = self.spans.iter().map(|(_, fields)| borrowed(fields)).collect();
        let spans = self.spans.iter().zip(&fields);
        let spans: Vec<Span<'_>> = spans.map(|((name, _), fields)| Span { name, fields }).collect();
        let details = Details { micros: None, target: &self.target, spans: &spans };
        let location = Location { file: &self.file, line: self.line };
        let mut record = Record::new(self.micros, facility, &self.message);
        record.set_thread(self.thread_id, &self.thread_name);
        (record.level, record.location, record.keys) = (self.level, &location, &keys);
        record.details = &details;
        work(&record)
    }
}

impl Kept {
    /// With room for this many lines and bytes.
    pub(crate) fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self { max_lines, max_bytes, lines: Mutex::new(Lines::default()) }
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        let (_busy, kept) = (While::busy(), self.lines.lock());
        kept.lines.len()
    }

    /// How many lines were removed because there was no room for them.
    pub(crate) fn dropped(&self) -> u64 {
        let (_busy, kept) = (While::busy(), self.lines.lock());
        kept.dropped
    }

    /// Takes the lines out, oldest first.
    pub(crate) fn take(&self) -> VecDeque<KeptLine> {
        let (_busy, mut kept) = (While::busy(), self.lines.lock());
        std::mem::take(&mut kept.lines)
    }

    pub(crate) fn keep(&self, record: &Record<'_>) {
        let line = KeptLine::of(record);
        let size = line.size();
        let mut kept = self.lines.lock();
        if size > self.max_bytes || self.max_lines == 0 {
            kept.dropped += 1;
            return;
        }
        while kept.lines.len() >= self.max_lines || kept.bytes + size > self.max_bytes {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.size();
            kept.dropped += 1;
        }
        kept.bytes += size;
        kept.lines.push_back(line);
    }
}
