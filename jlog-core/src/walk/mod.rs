//! Walks over segments and directories in any state: what exists, and what is missing.

pub(crate) mod counts;
pub(crate) mod holders;
pub mod lost;
pub(crate) mod survey;
