//! Other crates that keep a log on disk.

pub mod commitlog;
pub mod flexi_logger;
pub mod okaywal;
pub mod raft_engine;
pub mod tracing_appender;
pub mod walrus;
pub mod yaque;
