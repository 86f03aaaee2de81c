//! Streams and their connections.

mod changes;
mod description;
mod ending;
mod error;
mod handle;
mod makers;
mod pipe;
#[cfg(not(feature = "shuttle"))]
mod renew;
mod reports;
mod sinks;
mod speculation;
mod stream;
mod streams;

pub use description::{FilterStats, StreamInfo};
pub use ending::DrainAtEnd;
#[cfg(any(feature = "log", feature = "tracing"))]
pub(crate) use error::MAX_NAME;
pub use error::{ApplyError, GraphError};
pub use handle::Graph;
pub use pipe::{MAX_PIPE_LINE, Pipe};
pub use speculation::Speculation;
pub use stream::Stream;
#[cfg(any(feature = "log", feature = "tracing"))]
pub(crate) use stream::count_reentrant;
