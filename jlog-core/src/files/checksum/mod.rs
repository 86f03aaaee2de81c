//! The checksums beside a segment.

mod pending;
mod runs;
mod verifier;

pub(crate) use pending::{Mark, Pending, join, replace};
pub(crate) use runs::*;
#[cfg(feature = "internals")]
pub use runs::{Run, read_runs};
pub(crate) use verifier::{InPlace, Refreshed, Suspect, Verdict, Verifier, left_over, list_beyond};
