//! The traits of sinks, and the types that sinks get.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;

use crate::format::Format;
use crate::record::Record;

/// A batch of lines in order, each with its time.
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

    /// Each line's bytes and time (in microseconds since 1970 UTC; see
    /// [`Capabilities::needs_times`]).
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

    /// How many lines end within the first bytes, and where the last of these ends.
    pub(crate) fn whole_within(&self, bytes: usize) -> (usize, usize) {
        let whole = self.ends.partition_point(|&(end, _)| end - self.start <= bytes);
        (whole, whole.checked_sub(1).map_or(0, |last| self.ends[last].0 - self.start))
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

/// The needs and abilities of a [`Sink`].
///
/// ```
/// use logdag::Capabilities;
///
/// let capabilities = Capabilities::default().splits_lines(false).may_be_asynchronous(true);
/// # let _ = capabilities;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub(crate) splits_lines: bool,
    pub(crate) wraps: bool,
    pub(crate) needs_times: bool,
    pub(crate) may_be_asynchronous: bool,
    pub(crate) buffers: bool,
    pub(crate) needs_ticks: bool,
    pub(crate) is_terminal: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            splits_lines: true,
            wraps: false,
            needs_times: true,
            may_be_asynchronous: false,
            buffers: false,
            needs_ticks: false,
            is_terminal: false,
        }
    }
}

impl Capabilities {
    /// Whether plain messages are split at newlines, and every line ends with a newline; true by
    /// default.
    #[must_use]
    pub fn splits_lines(mut self, yes: bool) -> Self {
        self.splits_lines = yes;
        self
    }

    /// Whether it adds data from the records to lines: see [`Sink::wrap`].
    #[must_use]
    pub fn wraps(mut self, yes: bool) -> Self {
        self.wraps = yes;
        self
    }

    /// Whether it uses the lines' times; true by default. If not, they may be 0, which saves
    /// reading the clock.
    #[must_use]
    pub fn needs_times(mut self, yes: bool) -> Self {
        self.needs_times = yes;
        self
    }

    /// Whether it may get a queue and a thread of its own.
    #[must_use]
    pub fn may_be_asynchronous(mut self, yes: bool) -> Self {
        self.may_be_asynchronous = yes;
        self
    }

    /// Whether it buffers lines until [`Sink::idle`] or [`Sink::flush`] is called.
    #[must_use]
    pub fn buffers(mut self, yes: bool) -> Self {
        self.buffers = yes;
        self
    }

    /// Whether it has periodic work: see [`Sink::tick`].
    #[must_use]
    pub fn needs_ticks(mut self, yes: bool) -> Self {
        self.needs_ticks = yes;
        self
    }

    /// Whether people read its output: events are then shown as text, and control characters are
    /// escaped.
    #[must_use]
    pub fn is_terminal(mut self, yes: bool) -> Self {
        self.is_terminal = yes;
        self
    }
}

/// A destination of lines. An application adds its own types with
/// [`Graph::register`](crate::Graph::register); `examples/custom_sink.rs` is a complete example,
/// which sends lines as UDP datagrams.
///
/// Several threads call it, but only one at a time writes to a sink.
pub trait Sink: Any + Send + Sync + fmt::Debug {
    /// Writes lines, in order and each completely.
    ///
    /// # Errors
    /// How many lines were written before the one that could not be written. An error of the kind
    /// [`InvalidData`](io::ErrorKind::InvalidData) is about that line alone: the sink gets the
    /// lines after it again.
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError>;

    /// Called before the first write, once everything that is set up together has been opened.
    /// Actions that cannot be undone belong here.
    ///
    /// # Errors
    /// An error of the system; nothing is set up then.
    fn begin(&self) -> io::Result<()> {
        Ok(())
    }

    /// Its needs and abilities. Called when the sink is opened, and when its stream goes
    /// asynchronous.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Turns a rendered line into the bytes to write, for example by adding a header. Logging
    /// threads call it, several at once, and only if [`Capabilities::wraps`] is set.
    fn wrap(&self, _record: &Record<'_>, _format: Format, _line: &mut Vec<u8>) {}

    /// Called when there is nothing more to write for the moment.
    ///
    /// # Errors
    /// An error of the system.
    fn idle(&self) -> io::Result<()> {
        Ok(())
    }

    /// Called after each line that is written without a queue, so that others see it. By default
    /// the same as [`idle`](Sink::idle); a sink may do it at a lower cost.
    ///
    /// # Errors
    /// What the system says.
    fn line_written(&self) -> io::Result<()> {
        self.idle()
    }

    /// Called about every second from the thread of its queue; never without a queue.
    ///
    /// # Errors
    /// An error of the system.
    fn tick(&self) -> io::Result<()> {
        Ok(())
    }

    /// A problem since the last call that lost no line, for example a file that cannot be rotated.
    /// It is reported at a limited rate.
    fn trouble(&self) -> Option<io::Error> {
        None
    }

    /// Makes written lines durable.
    ///
    /// # Errors
    /// An error of the system.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Reopens its file, if that was moved away.
    ///
    /// # Errors
    /// An error of the system.
    fn reopen(&self) -> io::Result<()> {
        Ok(())
    }

    /// Rotates its file.
    ///
    /// # Errors
    /// An error of the system; [`io::ErrorKind::Unsupported`] if there is nothing to rotate, as in
    /// most sinks.
    fn rotate(&self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only files are rotated"))
    }

    /// Rotates its file to this name, unless the name exists already.
    ///
    /// # Errors
    /// An error of the system; [`io::ErrorKind::Unsupported`] if there is nothing to rotate.
    fn rotate_to(&self, to: &Path) -> io::Result<()> {
        let why = format!("it cannot be rotated to {}", to.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    /// Removes expired rotated files; returns their number.
    ///
    /// # Errors
    /// An error of the system.
    fn remove_expired(&self) -> io::Result<usize> {
        Ok(0)
    }

    /// The size of its file, in bytes.
    fn size(&self) -> Option<u64> {
        None
    }
}
