//! What is done when the process comes to a bad end: nothing that was accepted is lost.

use std::fmt;
use std::sync::Arc;

use super::{Graph, Stream};
use crate::level::Level;
use crate::record::{Doing, Location, While};

impl Graph {
    /// Writes everything that waits, goes synchronous, logs a last line, makes everything durable, and ends the process
    /// with SIGABRT. [`fatal!`](crate::fatal!) is the way to call it.
    pub fn abort(&self, stream: &Stream, location: &Location<'_>, arguments: fmt::Arguments<'_>) -> ! {
        if Doing::now() == Doing::Writing {
            // Within a sink there is no waiting for sinks.
            self.tell_end(arguments);
        } else {
            let _ended = While::doing(Doing::Other);
            self.go_sync();
            stream.log(Level::Error, location, &[], &arguments);
            if let Err(e) = self.flush() {
                self.tell_end(format_args!("{e}"));
            }
        }
        std::process::abort()
    }

    fn tell_end(&self, what: fmt::Arguments<'_>) {
        use std::io::Write;
        // There is nobody else to tell.
        let _ = writeln!(std::io::stderr().lock(), "{what}");
    }

    /// Everything that waits is written, and made durable, when what this returns is dropped: keep it in `main` to its
    /// end where the graph itself is never dropped, as that of an installed logger.
    pub fn drain_at_end(&self) -> DrainAtEnd {
        DrainAtEnd(self.clone())
    }

    /// From now on a panic is logged to this stream, and everything that waits is written and made durable, before the
    /// panic hook that there was is called. The graph lives on only as long as others have it.
    pub fn log_panics(&self, stream: &Stream) {
        let (graph, stream) = (Arc::downgrade(&self.inner), stream.clone());
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A panic within a sink is its stream's affair. In the middle of a line, of an argument for example, this
            // one comes before it.
            if let Some(inner) = graph.upgrade().filter(|_| Doing::now() != Doing::Writing) {
                let _ended = While::doing(Doing::Other);
                let location = info.location();
                let location = location.map(|at| Location { file: at.file(), line: at.line() });
                let payload = info.payload();
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                let text = text.unwrap_or("no message");
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("without a name");
                stream.log(
                    Level::Error,
                    &location.unwrap_or_default(),
                    &[],
                    &format_args!("thread {name} panicked: {text}"),
                );
                // The process may go on: that a sink cannot be flushed it hears from there.
                let _ = Graph { inner }.flush();
            }
            before(info);
        }));
    }
}

/// Writes what waits in a graph's queues when it is dropped: see [`Graph::drain_at_end`].
#[derive(Debug)]
#[must_use = "what waits is written when this is dropped"]
pub struct DrainAtEnd(Graph);

impl Drop for DrainAtEnd {
    fn drop(&mut self) {
        self.0.go_sync();
        if let Err(e) = self.0.flush() {
            self.0.tell_end(format_args!("{e}"));
        }
        self.0.inner.streams.lock().report_unregistered();
    }
}
