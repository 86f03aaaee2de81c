//! Bytes to values and back, without input or output.

pub mod format;
pub mod names;
pub(crate) mod settings;
