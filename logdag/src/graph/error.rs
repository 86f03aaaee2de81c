//! Why a graph could not be changed.

use std::io;

use crate::filter::FilterError;

/// The maximum number of streams in a row that a line passes.
pub(super) const MAX_DEPTH: usize = 1000;
/// The maximum number of paths from a stream, counting streams and outlets together.
pub(super) const MAX_WAYS: usize = 10_000;
/// The maximum length of a stream's name, in bytes.
pub(crate) const MAX_NAME: usize = 255;

/// Why the graph could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is no stream of this name.
    #[error("there is no log stream {0:?}")]
    UnknownStream(String),
    /// A stream of this name exists already.
    #[error("there is a log stream {0:?} already")]
    StreamExists(String),
    /// A stream cannot have this name.
    #[error(
        "{0:?} cannot name a log stream: it is empty, longer than {MAX_NAME} bytes, or has an empty part or a control character"
    )]
    Name(String),
    /// The edge would close a cycle.
    #[error("an outlet from {from:?} to {to:?} would close a cycle: {path}")]
    Cycle {
        /// The stream that the edge leaves.
        from: String,
        /// The stream that it leads to.
        to: String,
        /// The cycle, by names.
        path: String,
    },
    /// Lines of this stream would go too far.
    #[error(
        "lines of the log stream {0:?} would pass through more than {MAX_DEPTH} streams in a row, or over more than {MAX_WAYS} paths"
    )]
    TooLarge(String),
    /// The filter of an outlet is wrong.
    #[error("the filter: {0}")]
    Filter(#[from] FilterError),
    /// A sink cannot be opened, or an operation on it failed.
    #[error("log stream {stream:?} of type {kind}: {source}")]
    Sink {
        /// The stream.
        stream: String,
        /// Its type.
        kind: String,
        /// Why.
        source: io::Error,
    },
    /// Operations on several sinks failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<GraphError>),
}

impl GraphError {
    pub(super) fn of_sink(stream: &str, kind: &str, source: io::Error) -> Self {
        Self::Sink { stream: stream.to_owned(), kind: kind.to_owned(), source }
    }

    /// Combines errors; `Ok` if there are none.
    pub(super) fn all(outcomes: impl Iterator<Item = Result<(), GraphError>>) -> Result<(), GraphError> {
        let mut errors: Vec<_> = outcomes.filter_map(Result::err).collect();
        match errors.pop() {
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(GraphError::Several(errors))
            }
            None => Ok(()),
        }
    }
}

/// Why several streams could not be set up together. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct ApplyError {
    /// The index in the list of the stream that cannot be set up; `None` for one that is not in the
    /// list and should have been restored.
    pub index: Option<usize>,
    /// What is wrong with it.
    pub error: GraphError,
}
