//! Programs that use `tracing`: targets become streams, and fields, including those of spans,
//! become keys.

use std::fmt::{self, Write};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record as SpanRecord};
use tracing_core::{Event, Interest, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::bridge::Targets;
use crate::graph::Graph;
use crate::level::Level;
use crate::record::{Details, Location, Span};
use crate::value::{OwnedValue, Value, borrowed};

/// A layer that logs events to a graph: the target `my_app::http` becomes the stream `my_app/http`,
/// the field `message` the message, and all other fields, with those of the spans around it first,
/// become keys. A subscriber that is installed is never dropped: keep a [`Graph::drain_at_end`] in
/// `main`. Records of the crate `log` that come by way of `tracing-log` (as they do after
/// `tracing_subscriber`'s `init`) arrive as they would without it, but without their key-values,
/// which `tracing-log` drops. To keep those, install a [`Logger`](crate::log_crate::Logger), and
/// set the subscriber with `tracing::subscriber::set_global_default` in the place of `init`.
///
/// ```
/// use logdag::Graph;
/// use logdag::tracing_layer::GraphLayer;
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let graph = Graph::new();
/// let subscriber = tracing_subscriber::registry().with(GraphLayer::new(graph.clone()).alone());
/// # let _ = subscriber;
/// ```
#[derive(Debug)]
pub struct GraphLayer {
    targets: Targets,
    alone: bool,
}

impl GraphLayer {
    /// A layer for this graph.
    pub fn new(graph: Graph) -> Self {
        Self { targets: Targets::new(graph), alone: false }
    }

    /// Declares that there is no other layer: then events whose stream leads nowhere are not
    /// evaluated at all. (Other layers would not get them either.)
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}

#[derive(Clone, Debug, Default)]
struct Fields {
    message: String,
    keys: Vec<(&'static str, OwnedValue)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: OwnedValue) {
        match self.keys.iter_mut().find(|(name, _)| *name == field.name()) {
            // A span's field may be recorded again and again.
            Some((_, old)) => *old = value,
            None => self.keys.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, OwnedValue::Plain(Value::I64(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, OwnedValue::Plain(Value::U64(value)));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.add(field, OwnedValue::of_integer(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        let value = i128::try_from(value)
            .map_or_else(|_| OwnedValue::Json(value.to_string()), OwnedValue::of_integer);
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, OwnedValue::Plain(Value::F64(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, OwnedValue::Plain(Value::Bool(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.add(field, OwnedValue::Str(value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String fails only if the value's own formatting does: then what was
            // written so far stays.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.add(field, OwnedValue::Str(format!("{value:?}")));
        }
    }
}

/// What `tracing-log` puts into fields of an event that was a record of the crate `log`.
#[derive(Debug, Default)]
struct LogRecord {
    target: String,
    file: String,
    line: u32,
}

/// The prefix of the names of these fields.
const OF_LOG: &str = "log.";

impl LogRecord {
    /// The record that an event was, if it was one.
    fn of(event: &Event<'_>) -> Option<Self> {
        let metadata = event.metadata();
        let was_one = metadata.target() == "log" && metadata.fields().field("log.target").is_some();
        was_one.then(|| {
            let mut record = Self::default();
            event.record(&mut record);
            record
        })
    }
}

impl Visit for LogRecord {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = u32::try_from(value).unwrap_or(0);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => value.clone_into(&mut self.target),
            "log.file" => value.clone_into(&mut self.file),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

fn level(level: tracing_core::Level) -> Level {
    match level {
        tracing_core::Level::ERROR => Level::Error,
        tracing_core::Level::WARN => Level::Warn,
        tracing_core::Level::INFO => Level::Info,
        tracing_core::Level::DEBUG => Level::Debug,
        _ => Level::Trace,
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for GraphLayer {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The graph may change.
        if self.alone { Interest::sometimes() } else { Interest::always() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let takes = || {
            // Without a stream, nothing more is logged of the event.
            let stream = self.targets.stream_of_line(metadata.target());
            stream.is_some_and(|stream| stream.accepts(level(*metadata.level())))
        };
        !self.alone || metadata.is_span() || takes()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &SpanRecord<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let was_record = LogRecord::of(event);
        let target = was_record.as_ref().map_or(metadata.target(), |record| &record.target);
        let level = level(*metadata.level());
        let Some(stream) = self.targets.stream_of_line(target).filter(|stream| stream.accepts(level)) else {
            return;
        };
        let mut own = Fields::default();
        event.record(&mut own);
        let location = match &was_record {
            Some(LogRecord { file, line, .. }) => {
                own.keys.retain(|(name, _)| !name.starts_with(OF_LOG));
                Location { file, line: *line }
            }
            None => Location {
                file: metadata.file().unwrap_or_default(),
                line: metadata.line().unwrap_or_default(),
            },
        };
        let around = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let around: Vec<(&str, Vec<(&str, OwnedValue)>)> = around
            .map(|span| {
                let fields = span.extensions().get::<Fields>().map(|fields| fields.keys.clone());
                (span.name(), fields.unwrap_or_default())
            })
            .collect();
        let fields: Vec<Vec<(&str, Value<'_>)>> = around.iter().map(|(_, fields)| borrowed(fields)).collect();
        let mut keys: Vec<(&str, Value<'_>)> = Vec::new();
        for (name, value) in fields.iter().flatten().copied().chain(borrowed(&own.keys)) {
            // The innermost field of a name counts.
            match keys.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = value,
                None => keys.push((name, value)),
            }
        }
        let spans = around.iter().zip(&fields);
        let spans: Vec<Span<'_>> = spans.map(|((name, _), fields)| Span { name, fields }).collect();
        let details = Details { target, spans: &spans, ..Details::NONE };
        stream.log_with(&details, level, &location, &keys, &own.message);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn events_reach_streams_with_the_keys_of_their_spans() {
        let graph = Graph::new();
        graph.add_memory("my_app", 10, 1000).unwrap();
        graph.add_memory("slow", 10, 1000).unwrap();
        graph.add_outlet("my_app/http", "slow", Some("and(took > 0.5, request = 7, ok = 'false')")).unwrap();
        let subscriber = tracing_subscriber::registry().with(GraphLayer::new(graph.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", request = 7, took = tracing::field::Empty);
            let _inside = span.enter();
            tracing::info!(target: "my_app::http", "fast");
            span.record("took", 0.75);
            tracing::warn!(target: "my_app::http", ok = ?false, "slow {}", 1);
        });
        let texts = |name: &str| -> Vec<Vec<u8>> {
            graph.memory_last(name, 10).unwrap().into_iter().map(|line| line.bytes).collect()
        };
        assert_eq!(texts("my_app"), [b"fast".to_vec(), b"slow 1".to_vec()]);
        assert_eq!(texts("slow"), [b"slow 1".to_vec()]);
    }

    #[test]
    fn a_field_of_a_span_has_the_value_that_was_recorded_last() {
        let graph = Graph::new();
        graph.add_memory("app", 10, 1000).unwrap();
        graph.set_format("app", crate::Format::Json).unwrap();
        let subscriber = tracing_subscriber::registry().with(GraphLayer::new(graph.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("work", done = tracing::field::Empty);
            let _inside = span.enter();
            (0..1000).for_each(|n| {
                span.record("done", n);
            });
            tracing::info!(target: "app", "x");
        });
        let line = String::from_utf8(graph.memory_last("app", 1).unwrap().remove(0).bytes).unwrap();
        assert_eq!((line.matches("done").count(), line.matches("\"done\":999").count()), (2, 2), "{line}");
    }

    #[test]
    fn nothing_is_evaluated_for_a_stream_that_leads_nowhere() {
        let graph = Graph::new();
        graph.add_memory("somewhere", 10, 1000).unwrap();
        let layer = GraphLayer::new(graph.clone()).alone();
        let mut asked = Vec::new();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: "nowhere", x = { asked.push("nowhere"); 5 }, "y");
            tracing::info!(target: "somewhere", x = { asked.push("somewhere"); 5 }, "y");
        });
        assert_eq!(asked, ["somewhere"]);
        assert_eq!(graph.memory_last("somewhere", 9).unwrap().len(), 1);
    }
}
