//! `/metrics`, for Prometheus and everything that reads its format.

#[cfg(feature = "graph")]
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::iter::once;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
    prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

#[cfg(feature = "graph")]
use logdag::MetricValues;

use crate::feeds::{Facts, FeedView};
#[cfg(feature = "graph")]
use crate::graphs::StreamView;
use crate::respond;
use crate::samples::{PIECE, Samples};
use crate::watch::{Core, View};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /metrics`
pub(crate) async fn metrics(State(core): State<Arc<Core>>, headers: HeaderMap) -> Response {
    let view = core.view().await;
    let open = wants_open_metrics(&headers);
    let limit = core.limits.response_bytes;
    // With many feeds and subscribers this takes a while, and others must not wait for it.
    let encoded = tokio::task::spawn_blocking(move || encode(view, open, limit)).await;
    let kind = if open { OPEN_METRICS } else { prometheus_text::CONTENT_TYPE };
    match encoded {
        Ok(Ok(text)) => respond::body(StatusCode::OK, kind, Body::new(text)),
        _ => respond::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics have more than {limit} bytes"),
        ),
    }
}

/// Whether the client prefers OpenMetrics to the text format, or both equally.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let (mut open, mut plain) = (None, None);
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            let best = match &*kind {
                "application/openmetrics-text" => &mut open,
                "text/plain" => &mut plain,
                _ => continue,
            };
            *best = Some(best.map_or(weight, |known: f32| known.max(weight)));
        }
    }
    open.is_some_and(|open| open > 0.0 && plain.is_none_or(|plain| open >= plain))
}

/// A text up to this length is generated at once, so that its length is known.
const AT_ONCE: usize = 4 * PIECE;

/// A text of bounded size, in pieces: those that a client has taken are freed.
struct Limited {
    pieces: VecDeque<Bytes>,
    last: String,
    /// Bytes that it may still grow by.
    left: usize,
}

impl fmt::Write for Limited {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.left = self.left.checked_sub(more.len()).ok_or(fmt::Error)?;
        if self.last.len() + more.len() > PIECE && !self.last.is_empty() {
            self.end_piece();
        }
        self.last.push_str(more);
        Ok(())
    }
}

impl Limited {
    fn new(limit: usize) -> Self {
        Self { pieces: VecDeque::new(), last: String::with_capacity(PIECE), left: limit }
    }

    fn end_piece(&mut self) {
        let piece = std::mem::replace(&mut self.last, String::with_capacity(PIECE));
        self.pieces.push_back(piece.into());
    }
}

/// A text in pieces, whose last ones are generated when a client takes them.
struct Text {
    pieces: VecDeque<Bytes>,
    samples: Option<Samples>,
    /// The text's last line.
    end: &'static str,
}

impl HttpBody for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.samples.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let known = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(known);
        if self.samples.is_none() {
            hint.set_exact(known);
        }
        hint
    }
}

impl Text {
    /// Generates the next piece.
    fn next(&mut self) -> Option<Bytes> {
        let samples = self.samples.as_mut()?;
        let mut piece = Vec::with_capacity(PIECE + PIECE / 16);
        if !samples.fill(&mut piece) {
            piece.extend_from_slice(self.end.as_bytes());
            self.samples = None;
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

fn encode(view: View, open: bool, limit: usize) -> Result<Text, fmt::Error> {
    let view = Arc::new(view);
    let mut registry = Registry::default();
    for collector in &view.collectors {
        registry.register_collector(Box::new(collector.clone()));
    }
    registry.register_collector(Box::new(Shared(Arc::clone(&view))));
    let mut out = Limited::new(limit);
    if open {
        text::encode_registry(&mut out, &registry)?;
    } else {
        prometheus_text::encode(&mut out, &registry)?;
    }
    out.end_piece();
    let samples = Samples::new(view, open);
    let end = if open { "# EOF\n" } else { "" };
    if !out.left.checked_sub(end.len()).is_some_and(|left| samples.fit(left)) {
        return Err(fmt::Error);
    }
    let mut text = Text { pieces: out.pieces, samples: Some(samples), end };
    while text.samples.is_some() && text.size_hint().lower() < AT_ONCE as u64 {
        let piece = text.next();
        text.pieces.extend(piece);
    }
    Ok(text)
}

/// A name, what it means, and its unit, which the name ends in.
type About<'a> = (&'a str, &'a str, Option<Unit>);

/// A family of metrics; nothing if it is empty.
fn family<L: EncodeLabelSet, V>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): About<'_>,
    kind: MetricType,
    samples: impl IntoIterator<Item = (L, V)>,
    encode: impl Fn(MetricEncoder<'_>, &V) -> fmt::Result,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (labels, value) in samples {
        encode(family.encode_family(&labels)?, &value)?;
    }
    Ok(())
}

/// A family of gauges; nothing if it is empty.
fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    about: About<'_>,
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    family(encoder, about, MetricType::Gauge, samples, |mut to, value| to.encode_gauge(value))
}

/// A family of counters; nothing if it is empty.
fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    about: About<'_>,
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    family(encoder, about, MetricType::Counter, samples, |mut to, value| {
        to.encode_counter::<NoLabelSet, V, u64>(value, None)
    })
}

fn messages() -> Option<Unit> {
    Some(Unit::Other("messages".to_owned()))
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("feeds", &self.feeds.len()).finish_non_exhaustive()
    }
}

/// All metrics except those of subscribers.
#[derive(Debug)]
struct Shared(Arc<View>);

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let version = once(([("version", env!("CARGO_PKG_VERSION"))], 1));
        gauges(encoder, ("jlog_watch_build", "The version of this server", None), version)?;
        self.0.feeds(encoder)?;
        #[cfg(feature = "graph")]
        self.0.streams(encoder)?;
        Ok(())
    }
}

type FeedLabel<'a> = [(&'static str, &'a str); 1];

impl View {
    fn each_feed<'a, V>(
        &'a self,
        value: impl Fn(&Facts) -> Option<V> + 'a,
    ) -> impl Iterator<Item = (FeedLabel<'a>, V)> {
        self.feeds.iter().filter_map(move |feed| {
            let value = value(feed.facts().ok()?)?;
            Some(([("feed", &*feed.name)], value))
        })
    }

    fn feeds(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let bytes = Some(Unit::Bytes);
        let each = |value: fn(&Facts) -> u64| self.each_feed(move |facts| Some(value(facts)));
        let some = |value: fn(&Facts) -> Option<u64>| self.each_feed(value);
        let label = |feed: &'_ FeedView| u64::from(feed.facts().is_ok());
        let up = self.feeds.iter().map(|feed| ([("feed", &*feed.name)], label(feed)));
        gauges(to, ("jlog_feed_up", "Whether the feed can be read", None), up)?;
        let ages = self.feeds.iter().filter_map(|feed| {
            let age = feed.reading.at?.elapsed().as_secs_f64();
            Some(([("feed", &*feed.name)], age))
        });
        gauges(to, ("jlog_feed_read_age", "Age of the figures of the feed", Some(Unit::Seconds)), ages)?;
        gauges(to, ("jlog_feed_segments", "Segments on disk", None), each(|f| f.status.segments.into()))?;
        gauges(to, ("jlog_feed_stored", "Size of the segments", bytes.clone()), each(|f| f.status.bytes))?;
        gauges(to, ("jlog_feed_stored", "Messages in the segments", messages()), each(|f| f.status.records))?;
        counters(
            to,
            (
                "jlog_feed_appended",
                "Messages appended, by any writer, since the feed was first read",
                messages(),
            ),
            each(|f| f.appended),
        )?;
        counters(
            to,
            ("jlog_feed_appended", "Bytes appended to segments since the feed was first read", bytes.clone()),
            each(|f| f.appended_bytes),
        )?;
        counters(
            to,
            ("jlog_feed_rolled_segments", "Segments finished since the feed was first read", None),
            each(|f| f.rolled),
        )?;
        gauges(
            to,
            ("jlog_feed_disk_free", "Free on the feed's file system", bytes.clone()),
            each(|f| f.status.free),
        )?;
        gauges(
            to,
            ("jlog_feed_limit", "How much the feed may hold", bytes.clone()),
            some(|f| f.status.limits.max_bytes),
        )?;
        gauges(
            to,
            (
                "jlog_feed_keep_free",
                "Space that the feed's writers leave free on its file system",
                bytes.clone(),
            ),
            some(|f| f.status.limits.keep_free),
        )?;
        gauges(
            to,
            (
                "jlog_feed_full_in",
                "Time until the disk or the feed's limit is full, at the rate of the last minute",
                Some(Unit::Seconds),
            ),
            self.each_feed(|f| Some(f.full_in?.as_secs_f64())),
        )?;
        gauges(
            to,
            ("jlog_feed_pre_commit_used", "In the pre-commit buffer, not yet in a segment", bytes.clone()),
            some(|f| f.status.pre_commit.filter(|(_, size)| *size > 0).map(|(used, _)| used)),
        )?;
        gauges(
            to,
            ("jlog_feed_pre_commit_size", "Size of the pre-commit buffer", bytes.clone()),
            some(|f| f.status.pre_commit.map(|(_, size)| size).filter(|size| *size > 0)),
        )?;
        gauges(
            to,
            ("jlog_feed_kept_files", "Files with bytes that were cut from damaged ones", None),
            each(|f| f.kept.0),
        )?;
        gauges(
            to,
            ("jlog_feed_kept", "Size of the files with bytes that were cut from damaged ones", bytes),
            each(|f| f.kept.1),
        )?;
        gauges(
            to,
            ("jlog_feed_subscribers", "Subscribers of the feed", None),
            each(|f| f.subscribers.len() as u64),
        )
    }

    #[cfg(feature = "graph")]
    fn each_stream<'a, V>(
        &'a self,
        value: impl Fn(&StreamView) -> Option<V> + Copy + 'a,
    ) -> impl Iterator<Item = (Vec<(&'static str, &'a str)>, V)> {
        self.graphs.iter().flat_map(move |graph| {
            graph.streams.iter().filter_map(move |stream| {
                Some((stream_labels(&graph.name, &stream.description.name), value(stream)?))
            })
        })
    }

    #[cfg(feature = "graph")]
    fn streams(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let lines = || Some(Unit::Other("lines".to_owned()));
        let bytes = Some(Unit::Bytes);
        let all = |value: fn(&StreamView) -> u64| self.each_stream(move |stream| Some(value(stream)));
        // Streams without a sink write nothing.
        let sinks = |value: fn(&StreamView) -> u64| {
            self.each_stream(move |stream| (!stream.description.kind.is_empty()).then(|| value(stream)))
        };
        let queues = |value: fn(&logdag::QueueStats) -> u64| {
            self.each_stream(move |stream| stream.description.queue.as_ref().map(value))
        };
        gauges(
            to,
            ("logdag_stream_enabled", "Whether lines go through the stream", None),
            all(|s| s.description.enabled.into()),
        )?;
        gauges(
            to,
            ("logdag_stream_material", "Whether a line that is logged to the stream reaches a sink", None),
            all(|s| s.description.enabled_below.into()),
        )?;
        counters(
            to,
            ("logdag_stream_written", "Lines written by the stream's sink", lines()),
            sinks(|s| s.description.counters.lines),
        )?;
        counters(
            to,
            ("logdag_stream_written", "Bytes written by the stream's sink", bytes.clone()),
            sinks(|s| s.description.counters.bytes),
        )?;
        counters(
            to,
            ("logdag_stream_dropped", "Lines dropped because the queue was full", lines()),
            sinks(|s| s.description.counters.dropped),
        )?;
        counters(
            to,
            ("logdag_stream_failed", "Lines that could not be written", lines()),
            sinks(|s| s.description.counters.failed),
        )?;
        counters(
            to,
            ("logdag_stream_repeated", "Lines left out because they repeated the previous line", lines()),
            sinks(|s| s.description.counters.repeated),
        )?;
        gauges(
            to,
            ("logdag_stream_failing", "Whether lines were lost within the last minute", None),
            sinks(|s| s.failing.into()),
        )?;
        counters(
            to,
            ("logdag_stream_reentrant", "Lines left out because their thread was already logging", lines()),
            all(|s| s.description.reentrant),
        )?;
        counters(
            to,
            ("logdag_stream", "Lines that came to the stream (of streams with statistics)", lines()),
            self.each_stream(|stream| stream.description.received),
        )?;
        let left_out = self.graphs.iter().flat_map(|graph| {
            graph.streams.iter().flat_map(|stream| {
                stream.description.left_out.iter().map(|(outlet, lines)| {
                    let mut labels = stream_labels(&graph.name, &stream.description.name);
                    labels.push(("outlet", outlet));
                    (labels, *lines)
                })
            })
        });
        let about = ("logdag_outlet_left_out", "Lines that an outlet's limit or sample left out", lines());
        counters(to, about, left_out)?;
        let filters = |of: fn(logdag::FilterStats) -> u64| {
            self.graphs.iter().flat_map(move |graph| {
                graph.streams.iter().flat_map(move |stream| {
                    stream.description.filtered.iter().map(move |(outlet, counts)| {
                        let mut labels = stream_labels(&graph.name, &stream.description.name);
                        labels.push(("outlet", outlet));
                        (labels, of(*counts))
                    })
                })
            })
        };
        let about =
            ("logdag_outlet", "Lines that reached an outlet's filter (of streams with statistics)", lines());
        counters(to, about, filters(|stats| stats.lines))?;
        let about = ("logdag_outlet_filtered", "Lines that did not pass an outlet's filter", lines());
        counters(to, about, filters(|stats| stats.filtered))?;
        gauges(to, ("logdag_stream_queue", "Lines that wait in the queue", lines()), queues(|q| q.lines))?;
        gauges(
            to,
            ("logdag_stream_queue", "Bytes that wait in the queue", bytes.clone()),
            queues(|q| q.bytes),
        )?;
        gauges(
            to,
            ("logdag_stream_queue_limit", "Bytes that the queue may hold", bytes),
            queues(|q| q.limit),
        )?;
        let now = logdag::now_micros();
        gauges(
            to,
            (
                "logdag_stream_queue_age",
                "How long lines have waited: since the write began that is under way, or since the oldest line was logged \
                 where the sink knows that; 0 without any",
                Some(Unit::Seconds),
            ),
            self.each_stream(move |stream| {
                let queue = stream.description.queue?;
                let oldest = queue.oldest_micros.into_iter().chain(queue.writing_micros).min();
                Some(oldest.map_or(0.0, |oldest| micros_as_seconds(now.saturating_sub(oldest))))
            }),
        )?;
        family(
            to,
            (
                "logdag_stream_write_duration",
                "Time that the queue's thread took to write all waiting lines",
                Some(Unit::Seconds),
            ),
            MetricType::Histogram,
            self.each_stream(|stream| Some(stream.description.queue?.writes)),
            |mut to, writes| {
                let bounds = logdag::WriteTimes::BOUNDS.map(|bound| bound.as_secs_f64());
                let bounds = bounds.into_iter().chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(writes.counts).collect();
                let count = writes.counts.iter().sum();
                to.encode_histogram::<NoLabelSet>(writes.total.as_secs_f64(), count, &buckets, None)
            },
        )?;
        counters(
            to,
            ("logdag_stream_rotations", "How often this process has rotated the stream's file", None),
            self.each_stream(|stream| stream.description.rotations),
        )?;
        self.of_lines(to)
    }

    /// The metrics that configurations derive from lines. If two graphs have metrics of the same
    /// name, both are shown if they are of the same kind.
    #[cfg(feature = "graph")]
    fn of_lines(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all =
            || self.graphs.iter().flat_map(|graph| graph.metrics.iter().map(|metric| (&*graph.name, metric)));
        let skipped = all().filter(|(_, metric)| metric.adds_up || metric.buckets.is_some());
        let skipped = skipped
            .map(|(graph, metric)| (with_graph(vec![("metric", &*metric.name)], graph), metric.skipped));
        let about = (
            "logdag_metric_skipped",
            "Lines that a metric skipped because they lack its number",
            Some(Unit::Other("lines".to_owned())),
        );
        counters(to, about, skipped)?;
        let mut families: BTreeMap<&str, Vec<(&str, &MetricValues)>> = BTreeMap::new();
        for (graph, metric) in all() {
            let family = families.entry(&metric.name).or_default();
            let same = |(other, known): &(&str, &MetricValues)| {
                *other != graph && (known.buckets == metric.buckets && known.adds_up == metric.adds_up)
            };
            if family.iter().all(same) {
                family.push((graph, metric));
            }
        }
        for (name, family) in families {
            let Some((_, first)) = family.first() else { continue };
            // Only one of the formats would need line ends and backslashes escaped.
            let help = first.help.replace(['\n', '\r', '\\'], " ");
            let about = (name, if help.is_empty() { "Derived from log lines" } else { &*help }, None);
            let series = family.iter().flat_map(|(graph, metric)| {
                metric.series.iter().map(|series| {
                    let names = metric.labels.iter().map(|name| &**name);
                    let labels = names.zip(series.labels.iter().map(|value| &**value)).collect();
                    (with_graph(labels, graph), series)
                })
            });
            match &first.buckets {
                None if first.adds_up => {
                    counters(to, about, series.map(|(labels, series)| (labels, series.sum)))?
                }
                None => counters(to, about, series.map(|(labels, series)| (labels, series.count)))?,
                Some(bounds) => family_of_histograms(to, about, series, bounds)?,
            }
        }
        Ok(())
    }
}

#[cfg(feature = "graph")]
fn family_of_histograms<'a>(
    to: &mut DescriptorEncoder<'_>,
    about: About<'_>,
    series: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, &'a logdag::MetricSeries)>,
    bounds: &[f64],
) -> fmt::Result {
    family(to, about, MetricType::Histogram, series, |mut to, series| {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(series.buckets.iter().copied()).collect();
        to.encode_histogram::<NoLabelSet>(series.sum, series.count, &buckets, None)
    })
}

#[cfg(feature = "graph")]
#[expect(clippy::cast_precision_loss, reason = "an age in microseconds fits")]
fn micros_as_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The label `graph`, if the graph has a name.
#[cfg(feature = "graph")]
fn stream_labels<'a>(graph: &'a str, stream: &'a str) -> Vec<(&'static str, &'a str)> {
    with_graph(vec![("stream", stream)], graph)
}

#[cfg(feature = "graph")]
fn with_graph<'a, 'b>(mut labels: Vec<(&'b str, &'a str)>, graph: &'a str) -> Vec<(&'b str, &'a str)> {
    if !graph.is_empty() {
        labels.push(("graph", graph));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_format_that_they_ask_for() {
        let open = |accept: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            wants_open_metrics(&headers)
        };
        // Prometheus.
        assert!(open(&[
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ]));
        assert!(open(&["application/openmetrics-text"]));
        assert!(open(&["text/plain", "Application/OpenMetrics-Text"]));
        for accept in [
            "*/*",
            "",
            "text/plain",
            "text/plain,application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
        ] {
            assert!(!open(&[accept]), "{accept}");
        }
        assert!(!open(&[]));
    }

    #[test]
    fn a_response_has_a_limit() {
        let view = || View {
            feeds: Vec::new(),
            #[cfg(feature = "graph")]
            graphs: Vec::new(),
            collectors: Vec::new(),
        };
        assert!(encode(view(), true, 1000).is_ok());
        assert!(encode(view(), true, 10).is_err());
    }

    /// All of them, in pieces, and no longer than a response may be.
    #[test]
    fn subscribers_are_shown_while_a_client_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a \"feed\"");
        let log = jlog_core::Jlog::create(&path).unwrap();
        let many: Vec<String> = (0..3000).map(|n| format!("subscriber \\ \"{n:04}\"")).collect();
        log.subscribe_all(&many, jlog_core::Start::Beginning).unwrap();
        log.writer().unwrap().append_batch(&["x"; 7]).unwrap();
        let feeds = crate::feeds::Feeds::new(vec![path.clone()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let view = || View {
            feeds: runtime.block_on(feeds.look()),
            #[cfg(feature = "graph")]
            graphs: Vec::new(),
            collectors: Vec::new(),
        };
        view();
        let text = |open, limit| {
            let mut text = encode(view(), open, limit).ok()?;
            let mut pieces = Vec::new();
            let mut context = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(frame)) = Pin::new(&mut text).poll_frame(&mut context) {
                pieces.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
            }
            assert!(text.is_end_stream());
            assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() < 2 * PIECE));
            Some(pieces.concat())
        };
        let feed = path.display().to_string().replace('"', "\\\"");
        for open in [false, true] {
            let all = text(open, usize::MAX).unwrap();
            assert_eq!(all.ends_with("# EOF\n"), open);
            let of = |name: &str| all.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
            assert_eq!(of("jlog_feed_up"), 1);
            for name in
                ["sound", "lag_messages", "lag_bytes", "lag_seconds", "holds_oldest", "missed_messages"]
            {
                assert_eq!(of(&format!("jlog_subscriber_{name}")), 3000, "{name}");
            }
            let lag = r#"jlog_subscriber_lag_messages{feed="FEED",subscriber="subscriber \\\\ \"0042\""} 7"#;
            assert!(all.lines().any(|line| line == lag.replace("FEED", &feed)), "{}", &all[..2000]);
            assert_eq!(of("jlog_subscriber_consumed_messages_total"), 3000);
            let total = if open { "" } else { "_total" };
            let kind = format!("# TYPE jlog_subscriber_consumed_messages{total} counter\n");
            assert_eq!(all.matches(&kind).count(), 1);
            let unit = all.contains("# UNIT jlog_subscriber_lag_seconds seconds\n");
            assert_eq!(unit, open);
            assert_eq!(all.matches("# TYPE jlog_subscriber_lag_seconds gauge\n").count(), 1);
            assert!(!all.contains("# TYPE jlog_subscriber_catch_up_seconds"));
            // Ages may have one more digit the second time.
            assert!(text(open, all.len() + 10_000).is_some());
            assert!(text(open, all.len() - 10_000).is_none());
        }
    }
}
