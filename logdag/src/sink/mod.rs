//! The trait of sinks, and the specs of the built-in ones.

mod checks;
mod fd;
mod file;
#[cfg(feature = "jlog")]
mod jlog;
pub(crate) mod journald;
mod memory;
mod metric;
mod peer;
mod spec;
mod syslog;
mod torn;
mod traits;

pub(crate) use checks::{check, directories, directory_of_latest, in_the_way};
pub(crate) use fd::Descriptor;
pub use fd::FdSink;
pub use file::{Access, Compression, FileSink, RotateAt, RotatedName, Rotation, RotationError, Zone};
pub(crate) use file::{directory, name_of_rotated, place, wait_for_compression};
#[cfg(feature = "jlog")]
pub use jlog::JlogSink;
pub(crate) use journald::Journald;
pub use memory::{MemoryLine, MemorySink};
pub(crate) use metric::{KEYS as METRIC_KEYS, MetricSink};
pub use metric::{Metric, MetricSeries, MetricValues};
pub use spec::SinkSpec;
pub(crate) use syslog::Syslog;
pub use traits::{Capabilities, Lines, Sink, WriteError};
