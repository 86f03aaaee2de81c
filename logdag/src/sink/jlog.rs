//! Durable feeds: jlogs.

use std::io;

use jlog_core::{Error, Jlog, Start, SubscriberName, SyncPolicy, Timestamp, Writer, WriterOptions};

use super::{Lines, Sink, SinkSpec, WriteError};

/// The largest pre-commit buffer; more is taken for this.
const MAX_PRE_COMMIT: u64 = 8 << 20;

/// Writes lines to a jlog.
#[derive(Debug)]
pub struct JlogSink {
    log: Jlog,
    writer: Writer,
    /// The path of its spec, with the subscribers.
    path: String,
}

/// A path of `DIR`, or `DIR(subscriber,…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place<'a> {
    dir: &'a str,
    /// The subscribers that are to be there, and whether others may be; nothing is said without parentheses.
    subscribers: Option<(Vec<&'a str>, bool)>,
}

impl<'a> Place<'a> {
    fn parse(path: &'a str) -> Result<Self, String> {
        let Some((dir, rest)) = path.split_once('(') else {
            return Ok(Self { dir: path, subscribers: None });
        };
        let Some(list) = rest.strip_suffix(')') else {
            return Err(format!("{path:?} has no closing parenthesis"));
        };
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let others = names.contains(&"*");
        for name in names.iter().filter(|&&name| name != "*") {
            SubscriberName::new(name).map_err(|e| e.to_string())?;
        }
        let names = names.into_iter().filter(|&name| name != "*").collect();
        Ok(Self { dir, subscribers: Some((names, others)) })
    }
}

/// Whether path and `<config>` are right.
pub(super) fn check(spec: &SinkSpec) -> Result<(), String> {
    let place = Place::parse(&spec.path)?;
    if place.dir.is_empty() {
        return Err("a jlog needs a path".to_owned());
    }
    number(spec, "segment_size")?;
    number(spec, "precommit").map(|_| ())
}

fn number(spec: &SinkSpec, key: &str) -> Result<Option<u64>, String> {
    match spec.config.get(key) {
        None => Ok(None),
        Some(text) => match text.trim().parse::<u64>() {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(format!("{key} is {text:?}: expected a number of bytes")),
        },
    }
}

fn io_error(error: Error) -> io::Error {
    match &error {
        Error::DiskFull { .. } | Error::AtCapacity { .. } => {
            io::Error::new(io::ErrorKind::StorageFull, error)
        }
        Error::Io { source, .. } => io::Error::new(source.kind(), error),
        _ => io::Error::other(error),
    }
}

impl JlogSink {
    /// Opens the jlog of a spec's path, making it where it is missing; [`Sink::begin`] sees to its subscribers.
    ///
    /// # Errors
    /// A wrong path or `<config>`, or what the jlog says.
    pub fn open(spec: &SinkSpec) -> io::Result<Self> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        check(spec).map_err(wrong)?;
        let place = Place::parse(&spec.path).map_err(wrong)?;
        let number = |key: &str| number(spec, key).map_err(wrong);
        let segment_size =
            number("segment_size")?.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=1 << 30).contains(n));
        let pre_commit = number("precommit")?.and_then(|n| u32::try_from(n.min(MAX_PRE_COMMIT)).ok());
        let mut options = Jlog::options();
        if let Some(bytes) = segment_size {
            options = options.segment_size(bytes);
        }
        let log = options.create_or_open(place.dir).map_err(io_error)?;
        let mut writing = WriterOptions::default().sync(SyncPolicy::OnRoll);
        if let Some(bytes) = pre_commit {
            writing = writing.pre_commit(bytes);
        }
        let writer = log.writer_with(writing).map_err(io_error)?;
        if let Some(bytes) = segment_size {
            writer.set_segment_size(bytes).map_err(io_error)?;
        }
        Ok(Self { log, writer, path: spec.path.clone() })
    }

    fn set_subscribers(&self, place: &Place<'_>) -> Result<(), Error> {
        let Some((wanted, others)) = &place.subscribers else { return Ok(()) };
        for name in wanted {
            match self.log.subscribe(name, Start::Beginning) {
                Ok(_) | Err(Error::SubscriberExists { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        for name in self.log.subscribers()? {
            let listed = wanted.iter().any(|wanted| wanted.as_bytes() == name.as_bytes());
            let temporary = name.as_bytes().starts_with(b"~");
            if !listed && (temporary || !others) {
                self.log.unsubscribe(&name)?;
            }
        }
        Ok(())
    }
}

impl Sink for JlogSink {
    /// Adds and removes subscribers: one that is removed loses its claim on messages.
    fn begin(&self) -> io::Result<()> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        self.set_subscribers(&Place::parse(&self.path).map_err(wrong)?).map_err(io_error)
    }

    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let before = self.writer.accepted();
        let messages: Vec<(Timestamp, &[u8])> = lines
            .iter()
            .map(|(line, micros)| {
                let seconds = u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX);
                // Below a million.
                let micros = u32::try_from(micros % 1_000_000).unwrap_or(0);
                (Timestamp { seconds, micros }, line)
            })
            .collect();
        self.writer.append_batch_with_times(&messages).map(|_| ()).map_err(|e| WriteError {
            written: usize::try_from(self.writer.accepted() - before).unwrap_or(0),
            error: io_error(e),
        })
    }

    fn splits_lines(&self) -> bool {
        false
    }

    /// In the pre-commit buffer.
    fn keeps_back(&self) -> bool {
        true
    }

    fn may_be_asynchronous(&self) -> bool {
        true
    }

    fn idle(&self) -> io::Result<()> {
        self.writer.flush().map_err(io_error)
    }

    fn flush(&self) -> io::Result<()> {
        self.writer.sync().map_err(io_error)
    }

    /// Removes temporary subscribers and segments that nobody needs.
    fn reopen(&self) -> io::Result<()> {
        let clean = || -> Result<(), Error> {
            for name in self.log.subscribers()? {
                if name.as_bytes().starts_with(b"~") {
                    self.log.unsubscribe(&name)?;
                }
            }
            self.log.clean(false).map(|_| ())
        };
        clean().map_err(io_error)
    }

    fn size(&self) -> Option<u64> {
        self.log.raw_size().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_subscribers() {
        let place = |path| Place::parse(path);
        assert_eq!(place("/a/b"), Ok(Place { dir: "/a/b", subscribers: None }));
        assert_eq!(place("/a(x, y)"), Ok(Place { dir: "/a", subscribers: Some((vec!["x", "y"], false)) }));
        assert_eq!(place("/a(*)"), Ok(Place { dir: "/a", subscribers: Some((vec![], true)) }));
        assert_eq!(place("/a()"), Ok(Place { dir: "/a", subscribers: Some((vec![], false)) }));
        assert!(place("/a(x").is_err());
        assert!(place(&format!("/a({})", "n".repeat(200))).is_err());
    }
}
