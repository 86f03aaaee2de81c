//! The log-stream graph on jlog: named streams, filters and sinks. Nothing is here yet.
