//! Maintenance of a feed.

pub(crate) mod expiry;
pub(crate) mod journal;
pub(crate) mod progress;
pub(crate) mod recovery;
pub(crate) mod repair;
pub(crate) mod retention;
pub(crate) mod verify;
