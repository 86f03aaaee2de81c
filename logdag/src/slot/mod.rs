//! A stream's sink with everything around it: format, queue, counters, repetitions, errors.

mod ending;
mod guarded;
mod latency;
mod losses;
mod queue;
mod repetition;
mod state;
mod thread;
mod write;

pub(crate) use ending::go_sync;
pub use latency::WriteTimes;
pub use queue::QueueStats;
pub use state::Counters;
pub(crate) use state::{Slot, TextHook};
