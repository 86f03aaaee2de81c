//! Durable feeds: jlogs.

use std::io;

use jlog_core::{
    AlterOptions, CleanOptions, Error, Jlog, Start, SubscriberName, SyncPolicy, Timestamp, Writer,
    WriterOptions,
};

use super::spec::SinkSpec;
use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::patience;
use crate::sync::plain::RwLock;

/// The largest pre-commit buffer; a larger number counts as this.
const MAX_PRE_COMMIT: u64 = 8 << 20;

/// Writes lines to a jlog. When it notices that the jlog was removed, it creates it again; when it
/// was replaced, it reopens it.
///
/// `type="jlog"` and a path `DIRECTORY(SUBSCRIBER,…)` give a stream one; `examples/feed.rs` shows
/// it.
#[derive(Debug)]
pub struct JlogSink {
    spec: SinkSpec,
    opened: RwLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    log: Jlog,
    writer: Writer,
}

/// A path of `DIR`, or `DIR(subscriber,…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place<'a> {
    dir: &'a str,
    /// The subscribers that must exist, and whether others may; `None` without parentheses.
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

/// Checks the path and the `<config>`.
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
        Some(text) => match text.trim().parse::<i128>() {
            // As in libmtev, a number out of range changes nothing, and a negative buffer size
            // means no buffer.
            Ok(n) if n < 0 => Ok((key == "precommit").then_some(0)),
            Ok(n) => Ok(Some(u64::try_from(n).unwrap_or(u64::MAX))),
            Err(_) => Err(format!("{key} is {text:?}: expected a number of bytes")),
        },
    }
}

/// Reports numbers that are out of range.
fn warn_of_sizes(spec: &SinkSpec) {
    let outside = |key: &str, most: i128, least: i128| {
        let number = spec.config.get(key)?.trim().parse::<i128>().ok()?;
        (!(least..=most).contains(&number)).then_some(number)
    };
    let warn = |what: String| {
        // There is nowhere else to report it.
        patience::report(format!("log stream {}: {what}\n", spec.stream).as_bytes());
    };
    if let Some(number) = outside("segment_size", 1 << 30, 1) {
        warn(format!("segment_size is {number}: expected 1 to 1073741824; it stays as it was"));
    }
    if let Some(number) = outside("precommit", i128::from(MAX_PRE_COMMIT), 0) {
        let taken = if number < 0 { 0 } else { MAX_PRE_COMMIT };
        warn(format!("precommit is {number}: expected 0 to {MAX_PRE_COMMIT}; {taken} is used"));
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
    /// Opens the jlog of a spec's path, creating it if missing; [`Sink::begin`] manages its
    /// subscribers.
    ///
    /// # Errors
    /// An invalid path or `<config>`, or an error of the jlog.
    pub fn open(spec: &SinkSpec) -> io::Result<Self> {
        check(spec).map_err(wrong)?;
        warn_of_sizes(spec);
        let mut spec = spec.clone();
        // The process may change its directory.
        spec.path = std::path::absolute(&spec.path)?
            .into_os_string()
            .into_string()
            .map_err(|path| wrong(format!("{}: it is not UTF-8", path.display())))?;
        let opened = RwLock::new(Opened::new(&spec)?);
        Ok(Self { spec, opened })
    }

    /// Opens the jlog again if it was removed or replaced, creating it if it is missing. Returns
    /// whether it opened it.
    fn renew_if_gone(&self, replaced: bool) -> io::Result<bool> {
        let mut opened = self.opened.write();
        if !replaced && opened.log.path().exists() {
            return Ok(false);
        }
        *opened = Opened::new(&self.spec)?;
        opened.set_subscribers(&self.spec)?;
        Ok(true)
    }

    fn append(&self, messages: &[(Timestamp, &[u8])]) -> Result<(), WriteError> {
        let Opened { writer, .. } = &*self.opened.read();
        let before = writer.accepted();
        writer.append_batch_with_times(messages).map(|_| ()).map_err(|e| WriteError {
            written: usize::try_from(writer.accepted() - before).unwrap_or(0),
            error: io_error(e),
        })
    }
}

fn wrong(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl Opened {
    fn new(spec: &SinkSpec) -> io::Result<Self> {
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
            log.alter(AlterOptions::default().segment_size(bytes)).map_err(io_error)?;
        }
        Ok(Self { log, writer })
    }

    /// Adds and removes subscribers. Messages are no longer retained for a removed subscriber.
    fn set_subscribers(&self, spec: &SinkSpec) -> io::Result<()> {
        let place = Place::parse(&spec.path).map_err(wrong)?;
        place.subscribers.map_or(Ok(()), |(wanted, others)| self.subscribe(&wanted, others).map_err(io_error))
    }

    fn subscribe(&self, wanted: &[&str], others: bool) -> Result<(), Error> {
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
    fn begin(&self) -> io::Result<()> {
        self.opened.read().set_subscribers(&self.spec)
    }

    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let messages: Vec<(Timestamp, &[u8])> = lines
            .iter()
            .map(|(line, micros)| {
                let seconds = u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX);
                // The remainder is below a million, and fits.
                let micros = u32::try_from(micros % 1_000_000).unwrap_or(0);
                (Timestamp { seconds, micros }, line)
            })
            .collect();
        let Err(WriteError { written, error }) = self.append(&messages) else { return Ok(()) };
        let replaced = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let replaced = matches!(replaced, Some(Error::Replaced { .. }));
        match self.renew_if_gone(replaced) {
            Ok(true) => self
                .append(&messages[written..])
                .map_err(|e| WriteError { written: written + e.written, error: e.error }),
            // If it could not be opened again, that is the error to report.
            renewed => Err(WriteError { written, error: renewed.err().unwrap_or(error) }),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false).buffers(true).may_be_asynchronous(true)
    }

    fn idle(&self) -> io::Result<()> {
        self.opened.read().writer.flush().map_err(io_error)
    }

    /// Makes the line readable; checksums follow later, many at a time.
    fn line_written(&self) -> io::Result<()> {
        self.opened.read().writer.flush_buffer().map_err(io_error)
    }

    fn flush(&self) -> io::Result<()> {
        self.opened.read().writer.sync().map_err(io_error)
    }

    /// Removes temporary subscribers and segments that nobody needs.
    fn reopen(&self) -> io::Result<()> {
        if self.renew_if_gone(false)? {
            return Ok(());
        }
        let Opened { log, .. } = &*self.opened.read();
        let clean = || -> Result<(), Error> {
            for name in log.subscribers()? {
                if name.as_bytes().starts_with(b"~") {
                    log.unsubscribe(&name)?;
                }
            }
            log.clean(CleanOptions::default()).map(|_| ())
        };
        clean().map_err(io_error)
    }

    fn size(&self) -> Option<u64> {
        self.opened.read().log.raw_size().ok()
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
