//! Orderly ends of the process, in which no accepted line is lost.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::Graph;
use super::stream::Stream;
use crate::level::Level;
use crate::patience;
use crate::record::{Doing, Location, this_thread};

/// The longest wait; sinks that take too long are given up before, at their own limits.
const GRACE: Duration = Duration::from_secs(1);
/// How many streams that lead nowhere are named.
const MAX_UNHEARD: usize = 5;

/// Runs something that may wait for a sink, and waits no longer than this; returns whether it is
/// done.
#[cfg(not(feature = "shuttle"))]
fn at_most(limit: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    use std::sync::mpsc;
    let work = Arc::new(crate::sync::plain::Mutex::new(Some(work)));
    let theirs = Arc::clone(&work);
    let (done, waiting) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("log-end".to_owned()).spawn(move || {
        let work = theirs.lock().take();
        if let Some(work) = work {
            work();
        }
        // The caller may have stopped waiting.
        let _ = done.send(());
    });
    match spawned {
        Ok(_) => waiting.recv_timeout(limit) != Err(mpsc::RecvTimeoutError::Timeout),
        Err(_) => {
            let work = work.lock().take();
            if let Some(work) = work {
                work();
            }
            true
        }
    }
}

/// For the schedule checker, no time passes.
#[cfg(feature = "shuttle")]
fn at_most(_: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    work();
    true
}

impl Graph {
    /// Writes everything that waits, goes synchronous, logs a last line, makes everything durable,
    /// and ends the process with SIGABRT. Use [`fatal!`](crate::fatal!) to call it. A blocked sink
    /// does not keep the process from ending: see
    /// [`drain_limit`](crate::StreamOptions::drain_limit).
    pub fn abort(&self, stream: &Stream, location: &Location<'_>, arguments: fmt::Arguments<'_>) -> ! {
        self.last_line(stream, location, arguments);
        std::process::abort()
    }

    /// The same for an end that is not a fault of the program: it exits with status 2, as libmtev
    /// does if a configuration keeps it from starting. Use [`terminate!`](crate::terminate!) to
    /// call it.
    pub fn terminate(&self, stream: &Stream, location: &Location<'_>, arguments: fmt::Arguments<'_>) -> ! {
        self.last_line(stream, location, arguments);
        std::process::exit(2)
    }

    fn last_line(&self, stream: &Stream, location: &Location<'_>, arguments: fmt::Arguments<'_>) {
        if Doing::now() == Doing::Writing {
            // Code within a sink must not wait for sinks.
            self.report_end(arguments);
        } else {
            let (graph, last, thread) = (self.clone(), stream.clone(), this_thread());
            let (file, line, text) = (location.file.to_owned(), location.line, arguments.to_string());
            let ended = at_most(2 * self.longest_drain() + GRACE, {
                let text = text.clone();
                move || {
                    graph.go_sync();
                    let location = Location { file: &file, line };
                    last.log_of_thread(thread.0, &thread.1, Level::Error, &location, &text);
                    if let Err(e) = graph.flush() {
                        graph.report_end(format_args!("{e}"));
                    }
                }
            });
            if !ended {
                self.report_end(format_args!("a log sink did not take the last line: {text}"));
            }
        }
    }

    /// The longest time that one of its sinks may take.
    fn longest_drain(&self) -> Duration {
        let slots = self.streams().slots();
        let longest = slots.iter().map(|slot| slot.drain_limit()).max();
        longest.unwrap_or_default().min(Duration::from_secs(31_536_000))
    }

    fn report_end(&self, what: fmt::Arguments<'_>) {
        // There is nowhere else to report it.
        patience::report(format!("{what}\n").as_bytes());
    }

    /// Reports on stderr that nothing was written at all, although lines went to streams that lead
    /// nowhere. If a stream has another name than the crate that logs, nothing else shows why.
    pub(crate) fn report_unheard(&self) {
        let streams = self.streams();
        let unheard = streams.unheard();
        let (shown, more) = unheard.split_at(unheard.len().min(MAX_UNHEARD));
        if !shown.is_empty() {
            let dots = if more.is_empty() { "" } else { ", …" };
            self.report_end(format_args!(
                "logdag: no line was written: the configuration leads those of the streams {}{dots} nowhere (a crate \
                 my-app logs to the stream my_app)",
                shown.join(", ")
            ));
        }
    }

    /// Returns a guard that writes everything that waits, and makes it durable, when it is dropped.
    /// Keep it until the end of `main` if the graph itself is never dropped, as with an installed
    /// logger.
    pub fn drain_at_end(&self) -> DrainAtEnd {
        DrainAtEnd(self.clone())
    }

    /// From now on, panics are logged to this stream, and everything that waits is written and made
    /// durable, before the previous panic hook is called. This does not keep the graph alive.
    pub fn log_panics(&self, stream: &Stream) {
        let (graph, stream) = (Arc::downgrade(&self.inner), stream.clone());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // The sink's stream reports a panic within a sink. For a panic in the middle of a line,
            // for example in an argument, this line comes before that one.
            if let Some(inner) = graph.upgrade().filter(|_| Doing::now() != Doing::Writing) {
                let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
                let payload = info.payload();
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                let text = text.unwrap_or("no message");
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("without a name");
                let text = format!("thread {name} panicked: {text}");
                let (file, stream, thread) = (file.to_owned(), stream.clone(), this_thread());
                let graph = Graph { inner };
                // The process may continue: its own flush reports a blocked sink.
                at_most(graph.longest_drain() + GRACE, move || {
                    let location = Location { file: &file, line };
                    stream.log_of_thread(thread.0, &thread.1, Level::Error, &location, &text);
                    let _ = graph.flush();
                });
            }
            before(info);
        }));
    }
}

/// A guard that, when dropped, writes what waits in a graph's queues, and waits for the compression
/// of rotated files as long as a sink may take: see [`Graph::drain_at_end`].
#[derive(Debug)]
#[must_use = "queued lines are written when this is dropped"]
pub struct DrainAtEnd(Graph);

impl Drop for DrainAtEnd {
    fn drop(&mut self) {
        let graph = self.0.clone();
        let ended = at_most(2 * self.0.longest_drain() + GRACE, move || {
            graph.go_sync();
            if let Err(e) = graph.flush() {
                graph.report_end(format_args!("{e}"));
            }
        });
        if !ended {
            self.0.report_end(format_args!("a log sink did not finish: its remaining lines are lost"));
        }
        // Files that are not compressed by then are compressed after the next start.
        crate::sink::wait_for_compression(Instant::now() + self.0.longest_drain());
        self.0.streams().report_unregistered();
    }
}
