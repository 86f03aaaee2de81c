//! Sinks that stand in for real ones: a slow one that can panic, and one that waits to be opened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use logdag::{Capabilities, Graph, Lines, Sink, SinkSpec, Stream, StreamOptions, WriteError};

/// A slow sink, which panics at the line `panic`.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    pub(crate) delay_micros: AtomicU64,
    lines: Mutex<Vec<String>>,
}

impl Slow {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Slow {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        std::thread::sleep(Duration::from_micros(self.delay_micros.load(Ordering::Relaxed)));
        for (line, _) in lines.iter() {
            let line = String::from_utf8_lossy(line).trim_end().to_owned();
            assert_ne!(line, "panic", "the sink that panics in this test");
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().may_be_asynchronous(true)
    }
}

pub(crate) fn slow(graph: &Graph, delay: Duration, dedup: Option<Duration>) -> (Arc<Slow>, Stream) {
    let sink = Arc::new(Slow::default());
    sink.delay_micros.store(u64::try_from(delay.as_micros()).unwrap(), Ordering::Relaxed);
    let made = Arc::clone(&sink);
    graph.register("slow", move |_| Ok(Arc::<Slow>::clone(&made))).unwrap();
    let spec = SinkSpec::new("slow", "");
    let options = StreamOptions::new().sink(spec).dedup(dedup);
    let stream = graph.configure("slow", options).unwrap();
    (sink, stream)
}

/// A sink that writes once it is opened, and keeps the lines. The first write can be made to fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    pub(crate) open: Arc<AtomicBool>,
    pub(crate) fails_once: Arc<AtomicBool>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    pub(crate) fn add(&self, graph: &Graph, options: StreamOptions) -> logdag::Stream {
        let gate = self.clone();
        graph.register("gate", move |_| Ok(Arc::new(gate.clone()))).unwrap();
        let sink = SinkSpec::new("gate", "");
        graph.configure("gate", options.sink(sink)).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Sink for Gate {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        while !self.open.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.fails_once.swap(false, Ordering::AcqRel) {
            return Err(std::io::Error::other("once").into());
        }
        let lines = lines.iter().map(|(line, _)| String::from_utf8(line.to_vec()).unwrap());
        self.lines.lock().unwrap().extend(lines);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false).may_be_asynchronous(true)
    }
}
