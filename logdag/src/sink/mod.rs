//! Where lines end up.

mod fd;
mod file;
#[cfg(feature = "jlog")]
mod jlog;
pub(crate) mod journald;
mod memory;
mod peer;
mod slot;
mod syslog;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use fd::Descriptor;
pub use fd::FdSink;
pub(crate) use fd::write_to_stderr;
pub use file::{Access, FileSink, Rotation};
#[cfg(feature = "jlog")]
pub use jlog::JlogSink;
pub(crate) use journald::Journald;
pub use memory::{MemoryLine, MemorySink};
pub(crate) use slot::Slot;
pub use slot::{Counters, QueueStats, WhenFull};
pub(crate) use syslog::Syslog;

use crate::format::Format;
use crate::record::Record;

/// Lines in order, each with its time.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where each line ends, and its time.
    pub(crate) ends: &'a [(usize, u64)],
    /// Where the first line begins.
    pub(crate) start: usize,
}

impl<'a> Lines<'a> {
    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each line's bytes and time (in microseconds since 1970 UTC; see [`Sink::needs_times`]).
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], u64)> + use<'a> {
        let (bytes, mut from) = (self.bytes, self.start);
        self.ends.iter().map(move |&(end, micros)| {
            let line = &bytes[from..end];
            from = end;
            (line, micros)
        })
    }

    /// All bytes in one piece.
    pub fn bytes(&self) -> &'a [u8] {
        &self.bytes[self.start..self.ends.last().map_or(self.start, |&(end, _)| end)]
    }

    /// The first `n` lines, and the others.
    pub(crate) fn split(&self, n: usize) -> (Self, Self) {
        let n = n.min(self.ends.len());
        let middle = n.checked_sub(1).map_or(self.start, |last| self.ends[last].0);
        let (first, rest) = self.ends.split_at(n);
        (Self { ends: first, ..*self }, Self { ends: rest, start: middle, ..*self })
    }
}

/// Lines that could not be written.
#[derive(Debug)]
pub struct WriteError {
    /// How many lines at the beginning were written.
    pub written: usize,
    /// Why the others were not.
    pub error: io::Error,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self { written: 0, error }
    }
}

/// Where lines end up. An application adds its own kinds with [`Graph::register`](crate::Graph::register); a worked
/// example, which sends lines as UDP datagrams, is `examples/custom_sink.rs`.
///
/// Calls come from several threads, but only one at a time writes to a sink.
pub trait Sink: Any + Send + Sync + fmt::Debug {
    /// Writes lines, in order and each as a whole.
    ///
    /// # Errors
    /// How many lines were written before the one that could not be. An error of the kind
    /// [`InvalidData`](io::ErrorKind::InvalidData) is about that line alone: those after it are given again.
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError>;

    /// It will be written to: everything else that is set up with it could be opened, too. What cannot be undone belongs
    /// here.
    ///
    /// # Errors
    /// What the system says; nothing is set up then.
    fn begin(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether plain messages are split at line ends, and every line ends with a newline.
    fn splits_lines(&self) -> bool {
        true
    }

    /// Whether it adds to lines what it knows of their records: see [`wrap`](Sink::wrap).
    fn wraps(&self) -> bool {
        false
    }

    /// Makes of a rendered line what is written: with a header, for example. It is called by whoever logs, by several
    /// threads at once, and only where [`wraps`](Sink::wraps) says so when the sink is opened.
    fn wrap(&self, _record: &Record<'_>, _format: Format, _line: &mut Vec<u8>) {}

    /// Whether it asks for the lines' times; where it does not, they may be 0: the clock need not be read for it.
    fn needs_times(&self) -> bool {
        true
    }

    /// Whether it may get a queue and a thread of its own.
    fn may_be_asynchronous(&self) -> bool {
        false
    }

    /// Whether it keeps lines back until [`idle`](Sink::idle) or [`flush`](Sink::flush) is called.
    fn keeps_back(&self) -> bool {
        false
    }

    /// There is nothing more to write for the moment.
    ///
    /// # Errors
    /// What the system says.
    fn idle(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whoever logs a line has just written it, without a queue, and others are to see it. As [`idle`](Sink::idle) unless a
    /// sink can do it for less: this is called for every line.
    ///
    /// # Errors
    /// What the system says.
    fn line_written(&self) -> io::Result<()> {
        self.idle()
    }

    /// Whether it has something to do when time passes.
    fn needs_ticks(&self) -> bool {
        false
    }

    /// Time has passed: called about every second, from the thread of its queue (without one: never).
    ///
    /// # Errors
    /// What the system says.
    fn tick(&self) -> io::Result<()> {
        Ok(())
    }

    /// What went wrong since it was last asked, though no line was lost: a file that cannot be put aside, for example. It is
    /// told, at a limited rate.
    fn trouble(&self) -> Option<io::Error> {
        None
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the system says.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Opens what it writes to anew, if that was moved away.
    ///
    /// # Errors
    /// What the system says.
    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    /// Puts aside what was written so far.
    ///
    /// # Errors
    /// What the system says.
    fn rotate(&self) -> io::Result<()> {
        Ok(())
    }

    /// The same under this name; what is there already stays.
    ///
    /// # Errors
    /// What the system says; it has nothing that can be put aside.
    fn put_aside(&self, to: &Path) -> io::Result<()> {
        let why = format!("nothing of it can be put aside as {}", to.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    /// Removes what was put aside and is not to be kept any longer; says how much went.
    ///
    /// # Errors
    /// What the system says.
    fn cull(&self) -> io::Result<usize> {
        Ok(0)
    }

    /// Bytes in what it writes to.
    fn size(&self) -> Option<u64> {
        None
    }

    /// Whether people look at it: events are shown as text there.
    fn is_terminal(&self) -> bool {
        false
    }

    /// The ring, if it is one.
    fn memory(&self) -> Option<&MemorySink> {
        None
    }
}

/// Whether what a spec says can be right, as far as that can be told without opening anything.
pub(crate) fn check(spec: &SinkSpec) -> Result<(), String> {
    match &*spec.kind {
        "memory" => match MemorySink::from_path(&spec.path) {
            Ok(_) => Ok(()),
            Err(expected) => Err(format!("the path {:?}: expected {expected}", spec.path)),
        },
        "fd" => Descriptor::number(&spec.path).map(|_| ()),
        "syslog" => syslog::check(spec),
        "journald" => journald::check(spec),
        #[cfg(feature = "jlog")]
        "jlog" => jlog::check(spec),
        #[cfg(not(feature = "jlog"))]
        "jlog" => Err("the type jlog needs logdag's feature jlog".to_owned()),
        _ => Ok(()),
    }
}

/// What a sink is made from.
///
/// ```
/// # let dir = tempfile::tempdir()?; let path = dir.path().join("app.log");
/// use logdag::{Graph, Rotation, SinkSpec, StreamOptions, log};
///
/// let rotation = Rotation { bytes: 10_000_000, retain_count: 5, ..Rotation::default() };
/// let path = path.display().to_string();
/// let sink = SinkSpec { kind: "file".into(), path, rotation, ..SinkSpec::default() };
/// let graph = Graph::new();
/// let app = graph.configure("app", StreamOptions { sink: Some(sink), ..StreamOptions::default() })?;
/// log!(app, "started");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkSpec {
    /// The stream it belongs to.
    pub stream: String,
    /// Its type.
    pub kind: String,
    /// Its path: what that means, each type says.
    pub path: String,
    /// Its `<config>`.
    pub config: BTreeMap<String, String>,
    /// When a file is rotated, and how long rotated ones are kept.
    pub rotation: Rotation,
    /// Who may do what with a file that is created where there was none.
    pub access: Access,
    /// A symbolic link to be kept that leads to the file being written.
    pub latest: Option<PathBuf>,
    /// Whether directories that its path needs are made where they are missing.
    pub make_dirs: bool,
}

/// The directory that must be there before a sink can be opened.
pub(crate) fn directory(spec: &SinkSpec) -> Option<PathBuf> {
    let path = match &*spec.kind {
        "file" | "file_synch" => Path::new(&spec.path),
        "jlog" => Path::new(spec.path.split('(').next().unwrap_or_default()),
        _ => return None,
    };
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned)
}
