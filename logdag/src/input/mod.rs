//! Lines of other programs, with what they say of themselves.

mod json;

pub use json::JsonLines;
