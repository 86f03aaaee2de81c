//! The streams of a graph in a forked child: every sink is opened again.

use std::io;
use std::sync::Arc;

use super::streams::{Maker, State, Streams};
use crate::fork::{self, Renew};
use crate::sink::{Lines, Sink, SinkSpec, WriteError};
use crate::slot::Slot;
use crate::sync::Mutex;

impl Renew for Mutex<Streams> {
    fn renew(&self) {
        renew(self);
    }
}

fn renew(streams: &Mutex<Streams>) {
    let old: Vec<_> = {
        let _inside = fork::enter();
        let mut streams = streams.lock();
        streams.turns = Arc::default();
        streams.pending.clear();
        (streams.asynchronous, streams.reporting) = (false, false);
        let of = |(name, state): (&String, &State)| {
            let slot = state.slot.clone()?;
            Some((name.clone(), state.options.clone(), streams.makers.get(&slot.spec.kind).cloned(), slot))
        };
        streams.by_name.iter().filter_map(of).collect()
    };
    let mut fresh = Vec::new();
    for (name, options, make, old) in old {
        let kept = old.ring().filter(|ring| ring.is_free()).map(|_| Arc::clone(&old.sink));
        let spec = &old.spec;
        let sink = match (kept, make) {
            (Some(ring), _) => ring,
            (None, Some(make)) => match make(spec) {
                Ok(sink) => sink,
                Err(error) => {
                    old.report_on_stderr(&format!(
                        "it cannot be opened in the process that was forked: {error}"
                    ));
                    Arc::new(Unopened { make, spec: spec.clone(), sink: Mutex::default() })
                }
            },
            // Types are never unregistered.
            (None, None) => continue,
        };
        fresh.push((name, Slot::new(&old.stream, sink, spec.clone(), &options), old));
    }
    let _inside = fork::enter();
    let mut streams = streams.lock();
    for (name, slot, old) in fresh {
        // Its contents belong to the parent, and must not be written when it is dropped.
        std::mem::forget(Arc::clone(&old));
        if let Some(state) = streams.by_name.get_mut(&name) {
            state.slot = Some(slot);
        }
    }
    streams.resolve();
}

/// A sink that could not be opened in a child; every line tries again.
struct Unopened {
    make: Maker,
    spec: SinkSpec,
    sink: Mutex<Option<Arc<dyn Sink>>>,
}

impl std::fmt::Debug for Unopened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unopened").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Unopened {
    fn opened(&self) -> io::Result<Arc<dyn Sink>> {
        let mut sink = self.sink.lock();
        match &*sink {
            Some(sink) => Ok(Arc::clone(sink)),
            None => Ok(Arc::clone(sink.insert((self.make)(&self.spec)?))),
        }
    }
}

impl Sink for Unopened {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let sink = self.opened()?;
        sink.write(lines)?;
        Ok(sink.idle()?)
    }

    fn flush(&self) -> io::Result<()> {
        self.opened()?.flush()
    }
}
