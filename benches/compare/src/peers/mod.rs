//! Other crates that keep a log on disk.

pub mod commitlog;
pub mod okaywal;
pub mod raft_engine;
pub mod walrus;
pub mod yaque;
