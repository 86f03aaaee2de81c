//! A line in flight: its message, stream, time, thread and typed keys.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use crate::level::Level;
use crate::message::{Message, Text};
use crate::value::Value;

/// The default keys for the message, in this order.
pub(crate) const MESSAGE_KEYS: [&str; 3] = ["message", "msg", "event"];
/// The place in the source where a line is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location<'a> {
    /// The source file; may be empty.
    pub file: &'a str,
    /// The line in it.
    pub line: u32,
}

impl Location<'_> {
    /// An unknown place.
    pub const UNKNOWN: Location<'static> = Location { file: "", line: 0 };
}

/// A `tracing` span around a line, with its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its fields with their values.
    pub fields: &'a [(&'a str, Value<'a>)],
}

/// Additional properties of a line: see [`Stream::log_with`](crate::Stream::log_with).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Details<'a> {
    /// The time, in microseconds since 1970 UTC; by default the time of the call.
    pub micros: Option<u64>,
    /// The target, the program's name for the place that it logs from, such as `my_app::http`;
    /// empty if that is the stream.
    pub target: &'a str,
    /// The spans around it, outermost first.
    pub spans: &'a [Span<'a>],
}

impl Details<'_> {
    /// Nothing.
    pub const NONE: Details<'static> = Details { micros: None, target: "", spans: &[] };
}

/// A line. Its message is formatted when it is first needed, and only once.
pub struct Record<'a> {
    /// The stream it was logged to.
    pub facility: &'a str,
    /// Where it was logged.
    pub location: &'a Location<'a>,
    /// How serious it is.
    pub level: Level,
    /// Typed keys with their values.
    pub keys: &'a [(&'a str, Value<'a>)],
    /// Additional properties. The time of the line is [`micros`](Record::micros).
    pub details: &'a Details<'a>,
    micros: OnceCell<u64>,
    /// The given number and name of the thread, if any, instead of `this_thread`.
    thread: Option<(u32, &'a str)>,
    this_thread: OnceCell<(u32, Rc<str>)>,
    source: &'a dyn Message,
    message: OnceCell<String>,
    /// Whether the message is needed only once.
    pub(crate) asked_once: bool,
}

thread_local! {
    static THREAD: (u32, Rc<str>) = {
        let id = u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0);
        (id, std::thread::current().name().unwrap_or("").into())
    };
    /// A spare buffer for the next message.
    static SPARE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The number and the name of this thread.
pub(crate) fn this_thread() -> (u32, String) {
    // At the very end of a thread its name is no longer available.
    THREAD.try_with(|(id, name)| (*id, (**name).to_owned())).unwrap_or_default()
}

/// An activity of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing in this library.
    Other,
    /// It holds locks that logging takes as well, or waits for sinks: a signal handler must not log
    /// now.
    Busy,
    /// It logs a line: formats arguments, calls filters and hooks.
    Logging,
    /// It logs the lines that limits have left out, and never waits.
    Reporting,
    /// It is in a sink, or is the thread of a queue.
    Writing,
}

#[cfg(not(feature = "shuttle"))]
thread_local! {
    static DOING: Cell<Doing> = const { Cell::new(Doing::Other) };
}

// A checker's threads are not the system's.
#[cfg(feature = "shuttle")]
shuttle::thread_local! {
    static DOING: Cell<Doing> = Cell::new(Doing::Other);
}

impl Doing {
    /// The current activity of this thread.
    pub(crate) fn now() -> Self {
        // At a thread's very end it is unknown.
        DOING.try_with(Cell::get).unwrap_or(Doing::Writing)
    }
}

/// While this lives, the thread has an activity; dropping it restores the previous one.
#[derive(Debug)]
pub(crate) struct While(Doing);

impl While {
    pub(crate) fn doing(what: Doing) -> Self {
        Self(DOING.try_with(|doing| doing.replace(what)).unwrap_or(Doing::Writing))
    }

    /// The thread holds locks that logging takes as well.
    pub(crate) fn busy() -> Self {
        let now = Doing::now();
        Self::doing(if now == Doing::Other { Doing::Busy } else { now })
    }

    /// The thread logs; `None` if it does so already: its lines would lead back to it.
    #[inline]
    pub(crate) fn logging() -> Option<Self> {
        (Doing::now() == Doing::Other).then(|| Self::doing(Doing::Logging))
    }

    /// The same for reports.
    pub(crate) fn reporting() -> Option<Self> {
        (Doing::now() == Doing::Other).then(|| Self::doing(Doing::Reporting))
    }
}

impl Drop for While {
    fn drop(&mut self) {
        let _ = DOING.try_with(|doing| doing.set(self.0));
    }
}

/// The current time, in microseconds since 1970 UTC.
pub fn now_micros() -> u64 {
    #[cfg(feature = "jlog")]
    return jlog_core::Timestamp::now_micros();
    #[cfg(not(feature = "jlog"))]
    {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl<'a> Record<'a> {
    /// A line with these properties. [`Stream::log`](crate::Stream::log) makes lines of the current
    /// time and thread.
    pub fn new(micros: u64, facility: &'a str, message: &'a dyn Message) -> Self {
        let mut record = Self::at(Some(micros), facility, message);
        record.set_thread(0, "");
        record
    }

    /// The same, of this thread. Without a time, the clock is read when the time is first needed.
    pub(crate) fn at(micros: Option<u64>, facility: &'a str, message: &'a dyn Message) -> Self {
        Self {
            micros: micros.map_or_else(OnceCell::new, OnceCell::from),
            facility,
            thread: None,
            this_thread: OnceCell::new(),
            location: &Location::UNKNOWN,
            level: Level::Info,
            keys: &[],
            details: &Details::NONE,
            source: message,
            message: OnceCell::new(),
            asked_once: false,
        }
    }

    /// The time, in microseconds since 1970 UTC. Reading the clock costs more than most filters, so
    /// it is read when the time is first needed.
    pub fn micros(&self) -> u64 {
        *self.micros.get_or_init(now_micros)
    }

    /// The target; the stream's name if there is no other.
    pub fn target(&self) -> &str {
        if self.details.target.is_empty() { self.facility } else { self.details.target }
    }

    /// The system's number of the thread that logged it.
    pub fn thread_id(&self) -> u32 {
        self.thread.map_or_else(|| self.this_thread().0, |(id, _)| id)
    }

    /// The name of the thread that logged it; may be empty.
    pub fn thread_name(&self) -> &str {
        self.thread.map_or_else(|| &*self.this_thread().1, |(_, name)| name)
    }

    /// Sets the thread that logged it.
    pub fn set_thread(&mut self, id: u32, name: &'a str) {
        self.thread = Some((id, name));
    }

    /// Looked up when it is first needed, because most sinks need no thread.
    fn this_thread(&self) -> &(u32, Rc<str>) {
        // At the very end of a thread its name is no longer available.
        let known = || THREAD.try_with(Clone::clone).unwrap_or_else(|_| (0, Rc::from("")));
        self.this_thread.get_or_init(known)
    }

    /// The message.
    pub fn message(&self) -> &str {
        if let Some(text) = self.source.as_str() {
            return text;
        }
        self.message.get_or_init(|| {
            let text = SPARE.try_with(|spare| std::mem::take(&mut *spare.borrow_mut())).unwrap_or_default();
            let mut text = text.into_bytes();
            text.clear();
            // A part that cannot be formatted leaves what was written before it.
            let _ = self.source.write_to(&mut Text::new(&mut text));
            // Only text was written.
            String::from_utf8(text).unwrap_or_default()
        })
    }

    /// Appends the message.
    pub(crate) fn write_message(&self, text: &mut Text<'_>) {
        if self.asked_once && self.message.get().is_none() {
            // A part that cannot be formatted leaves what was written before it.
            let _ = self.source.write_to(text);
        } else {
            text.push(self.message());
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if let Some(text) = self.message.take().filter(|text| text.capacity() <= 64 << 10) {
            let _ = SPARE.try_with(|spare| *spare.borrow_mut() = text);
        }
    }
}
