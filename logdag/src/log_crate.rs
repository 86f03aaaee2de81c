//! Programs that log with the crate `log`: targets become streams.

use log::kv::{Error, Key, Value as KeyValue, VisitSource, VisitValue};

use crate::bridge::Targets;
use crate::graph::{DrainAtEnd, Graph};
use crate::level::Level;
use crate::record::{Details, Location};
use crate::value::{OwnedValue, Value, borrowed};

/// A `log::Log` that logs to a graph: the target `my_app::http` becomes the stream `my_app/http`.
#[derive(Debug)]
pub struct Logger {
    targets: Targets,
}

impl Logger {
    /// A logger for this graph.
    pub fn new(graph: Graph) -> Self {
        Self { targets: Targets::new(graph) }
    }

    /// Makes it the logger of the process, for all levels. It is never dropped: keep the returned
    /// guard until the end of `main`, where it writes what waits in queues.
    ///
    /// # Errors
    /// There is one already.
    pub fn install(graph: Graph) -> Result<DrainAtEnd, log::SetLoggerError> {
        let drain = graph.drain_at_end();
        log::set_boxed_logger(Box::new(Self::new(graph)))?;
        log::set_max_level(log::LevelFilter::Trace);
        Ok(drain)
    }
}

fn level(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

#[derive(Default)]
struct Keys(Vec<(String, OwnedValue)>);

impl<'kvs> VisitSource<'kvs> for Keys {
    fn visit_pair(&mut self, key: Key<'kvs>, value: KeyValue<'kvs>) -> Result<(), Error> {
        let mut typed = Typed(OwnedValue::Plain(Value::Null));
        value.visit(&mut typed)?;
        self.0.push((key.to_string(), typed.0));
        Ok(())
    }
}

/// A value with its type.
struct Typed(OwnedValue);

impl<'v> VisitValue<'v> for Typed {
    fn visit_any(&mut self, value: KeyValue<'_>) -> Result<(), Error> {
        self.0 = OwnedValue::Str(value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0 = OwnedValue::Plain(Value::Null);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.visit_i128(value.into())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = OwnedValue::Plain(Value::I64(value));
        Ok(())
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), Error> {
        match i128::try_from(value) {
            Ok(n) => self.visit_i128(n),
            Err(_) => {
                self.0 = OwnedValue::Json(value.to_string());
                Ok(())
            }
        }
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), Error> {
        self.0 = OwnedValue::of_integer(value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = OwnedValue::Plain(Value::F64(value));
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = OwnedValue::Plain(Value::Bool(value));
        Ok(())
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.targets.stream(metadata.target()).is_some_and(|stream| stream.accepts(level(metadata.level())))
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(stream) = self.targets.stream_of_line(record.target()) else { return };
        let level = level(record.level());
        if !stream.accepts(level) {
            return;
        }
        let mut keys = Keys::default();
        // What cannot be visited is left out.
        let _ = record.key_values().visit(&mut keys);
        let keys = borrowed(&keys.0);
        let location =
            Location { file: record.file().unwrap_or_default(), line: record.line().unwrap_or_default() };
        let details = Details { target: record.target(), ..Details::NONE };
        stream.log_with(&details, level, &location, &keys, record.args());
    }

    fn flush(&self) {
        // This interface cannot report errors; they are counted.
        let _ = self.targets.graph().flush();
    }
}

#[cfg(test)]
mod tests {
    use log::Log;

    use super::*;

    #[test]
    fn targets_are_streams_and_keys_stay_typed() {
        let graph = Graph::new();
        graph.add_memory("my_app", 10, 1000).unwrap();
        graph.add_memory("loud", 10, 1000).unwrap();
        graph.add_outlet("my_app/http", "loud", Some("and(status >= 500, path = '/x')")).unwrap();
        let logger = Logger::new(graph.clone());
        for (status, text) in [(200, "fine"), (503, "broken")] {
            let keys: [(&str, log::kv::Value<'_>); 2] = [("status", status.into()), ("path", "/x".into())];
            let arguments = format_args!("{text}");
            let mut record = log::Record::builder();
            record.target("my_app::http").level(log::Level::Warn).key_values(&keys);
            logger.log(&record.args(arguments).build());
        }
        let texts = |name: &str| -> Vec<Vec<u8>> {
            graph.memory_last(name, 10).unwrap().into_iter().map(|line| line.bytes).collect()
        };
        assert_eq!(texts("my_app"), [b"fine".to_vec(), b"broken".to_vec()]);
        assert_eq!(texts("loud"), [b"broken".to_vec()]);
        assert!(!logger.enabled(&log::Metadata::builder().target("other").build()));
    }
}
