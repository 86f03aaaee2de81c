//! The metrics of subscribers as text. Because there may be many, the text is generated while a
//! client takes it, and never exists as a whole.

use std::sync::Arc;

use crate::feeds::Subscriber;
use crate::watch::View;

/// The approximate size of a piece of the text, in bytes.
pub(crate) const PIECE: usize = 64 << 10;

/// The maximum length of a number, with the spaces and punctuation around it and the labels.
const ROOM: usize = 64;

#[derive(Clone, Copy)]
enum Value {
    Whole(u64),
    Seconds(f64),
}

/// A family of metrics; `unit` is empty if it has none.
struct Family {
    name: &'static str,
    help: &'static str,
    unit: &'static str,
    counts: bool,
    /// `None` if it is not known.
    value: fn(&Subscriber) -> Option<Value>,
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    value: fn(&Subscriber) -> Option<Value>,
) -> Family {
    Family { name, help, unit, counts: false, value }
}

fn whole(value: impl Into<u64>) -> Option<Value> {
    Some(Value::Whole(value.into()))
}

const FAMILIES: [Family; 11] = [
    gauge("jlog_subscriber_sound", "", "Whether the checkpoint can be read and is not past the end", |s| {
        whole(s.sound)
    }),
    gauge(
        "jlog_subscriber_lag_messages",
        "messages",
        "Messages in segments that the subscriber has not done yet",
        |s| if s.sound { whole(s.status.messages) } else { None },
    ),
    gauge(
        "jlog_subscriber_lag_bytes",
        "bytes",
        "Size of the records that the subscriber has not done yet",
        |s| if s.sound { whole(s.status.bytes) } else { None },
    ),
    gauge(
        "jlog_subscriber_lag_seconds",
        "seconds",
        "Age of the oldest message that the subscriber has not done yet; 0 if there is none",
        |s| s.sound.then_some(Value::Seconds(s.age)),
    ),
    gauge("jlog_subscriber_holds_oldest", "", "Whether old segments are kept for the subscriber", |s| {
        whole(s.status.holds_back)
    }),
    gauge(
        "jlog_subscriber_held_bytes",
        "bytes",
        "Size of the segments that only the subscriber needs",
        |s| whole(s.status.held),
    ),
    gauge(
        "jlog_subscriber_missed_messages",
        "messages",
        "Messages that were dropped before the subscriber reached them",
        |s| whole(s.status.missed),
    ),
    gauge(
        "jlog_subscriber_lost_messages",
        "messages",
        "A lower bound of the messages in missing segments that the subscriber had not read",
        |s| whole(s.status.lost.map_or(0, |lost| lost.messages)),
    ),
    Family {
        name: "jlog_subscriber_consumed_messages",
        help: "Messages done since the feed was first read",
        unit: "messages",
        counts: true,
        value: |s| whole(s.consumed),
    },
    gauge(
        "jlog_subscriber_checkpoint_timestamp_seconds",
        "seconds",
        "When the checkpoint was last stored",
        |s| whole(s.status.moved?.seconds),
    ),
    gauge(
        "jlog_subscriber_catch_up_seconds",
        "seconds",
        "Time until the subscriber has caught up, at the rate of the last minute",
        |s| Some(Value::Seconds(s.catches_up_in?.as_secs_f64())),
    ),
];

/// The metrics of all subscribers, in pieces.
pub(crate) struct Samples {
    view: Arc<View>,
    /// Whether the format is OpenMetrics.
    open: bool,
    family: usize,
    /// Whether the family's header was written.
    named: bool,
    feed: usize,
    subscriber: usize,
    /// The beginning of the samples of a family and a feed, up to the subscriber's name.
    start: Vec<u8>,
}

impl Samples {
    pub(crate) fn new(view: Arc<View>, open: bool) -> Self {
        Self { view, open, family: 0, named: false, feed: 0, subscriber: 0, start: Vec::new() }
    }

    /// Whether the text has at most this many bytes.
    pub(crate) fn fit(&self, limit: usize) -> bool {
        let of_names: usize = FAMILIES.iter().map(|family| family.name.len() + ROOM).sum();
        let feeds = self.view.feeds.iter().filter_map(|feed| Some((&feed.name, feed.facts().ok()?)));
        // Escaping at most doubles the length of a label.
        let most = feeds.map(|(name, facts)| {
            let names: usize = facts.subscribers.iter().map(|subscriber| 2 * subscriber.name().len()).sum();
            facts.subscribers.len() * (of_names + FAMILIES.len() * 2 * name.len()) + FAMILIES.len() * names
        });
        let heads: usize =
            FAMILIES.iter().map(|family| 4 * family.name.len() + family.help.len() + ROOM).sum();
        if most.sum::<usize>() + heads <= limit {
            return true;
        }
        let mut left = Some(limit);
        let (mut counted, mut piece) = (Self::new(Arc::clone(&self.view), self.open), Vec::new());
        while left.is_some() && counted.fill(&mut piece) {
            left = left.and_then(|left| left.checked_sub(piece.len()));
            piece.clear();
        }
        left.is_some()
    }

    /// Adds about one piece of the text; returns whether there was more.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let begun = out.len();
        let view = Arc::clone(&self.view);
        while let Some(family) = FAMILIES.get(self.family) {
            let Some(feed) = view.feeds.get(self.feed) else {
                (self.family, self.named, self.feed) = (self.family + 1, false, 0);
                continue;
            };
            let all = feed.facts().map_or(&[][..], |facts| &facts.subscribers);
            if self.subscriber == 0 {
                self.start.clear();
                let total = if family.counts { "_total" } else { "" };
                add(&mut self.start, [family.name, total, "{feed=\""]);
                escape(&feed.name, &mut self.start);
                add(&mut self.start, ["\",subscriber=\""]);
            }
            for subscriber in all.get(self.subscriber..).unwrap_or_default() {
                if out.len() - begun >= PIECE {
                    return true;
                }
                self.subscriber += 1;
                if let Some(value) = (family.value)(subscriber) {
                    if !std::mem::replace(&mut self.named, true) {
                        self.head(family, out);
                    }
                    self.sample(subscriber, value, out);
                }
            }
            (self.feed, self.subscriber) = (self.feed + 1, 0);
        }
        out.len() > begun
    }

    fn head(&self, family: &Family, out: &mut Vec<u8>) {
        let kind = if family.counts { " counter\n" } else { " gauge\n" };
        // OpenMetrics names the family, the text format its samples.
        let total = if family.counts && !self.open { "_total" } else { "" };
        add(out, ["# HELP ", family.name, total, " ", family.help, "\n# TYPE ", family.name, total, kind]);
        if self.open && !family.unit.is_empty() {
            add(out, ["# UNIT ", family.name, " ", family.unit, "\n"]);
        }
    }

    fn sample(&self, subscriber: &Subscriber, value: Value, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start);
        match subscriber.plain_name() {
            Some(plain) => out.extend_from_slice(plain),
            None => escape(subscriber.name(), out),
        }
        out.extend_from_slice(b"\"} ");
        let mut number = itoa::Buffer::new();
        match value {
            Value::Whole(value) => add(out, [number.format(value)]),
            Value::Seconds(seconds) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a time, which fits"
                )]
                let millis = (seconds * 1000.0) as u64;
                add(out, [number.format(millis / 1000), "."]);
                // Digits with leading zeros.
                add(out, [&number.format(1000 + millis % 1000)[1..]]);
            }
        }
        out.push(b'\n');
    }
}

fn add<const N: usize>(out: &mut Vec<u8>, texts: [&str; N]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Whether a label's value may stand as it is.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n'))
}

/// A label's value.
fn escape(text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}
