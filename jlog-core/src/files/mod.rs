//! The files of a jlog directory, one kind in each module, and how they are opened, replaced and
//! kept.

pub(crate) mod checkpoint;
pub mod checksum;
pub(crate) mod count_cache;
pub mod dropped;
pub(crate) mod identity;
pub(crate) mod index;
pub(crate) mod metastore;
pub(crate) mod precommit;
pub(crate) mod renumbered;
pub mod scan;
pub(crate) mod settings;
pub(crate) mod shared;
