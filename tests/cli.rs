//! The `jlog` command with real pipes and signals.
