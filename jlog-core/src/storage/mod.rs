//! The only code that calls the operating system, behind two small traits, so that tests can
//! replace it with a faulty or forgetful disk.

pub(crate) mod posix;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
mod traits;

pub use posix::{Map, Posix};
pub use traits::{Facts, File, FileKind, NotRegular, Open, Storage, Waker, Watch};
pub(crate) use traits::{Guarded, LockGuard, read_all, read_exact_at, read_up_to_at, unlock, write_all_at};
