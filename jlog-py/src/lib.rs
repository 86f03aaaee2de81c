//! The module `jlog._jlog`: jlog-core for Python. It translates, and decides nothing about storage.
//!
//! Calls that may wait for a disk, a lock or a message release the interpreter. Bodies are `bytes`:
//! they are appended without a copy. Reading copies them once, into the object that the program
//! gets.

// Python documents its own items: the stub file and the docstrings.
#![allow(missing_docs)]

mod error;
mod feed;
mod id;
mod reader;
mod writer;

use pyo3::prelude::*;

#[pymodule]
mod _jlog {
    #[pymodule_export]
    use crate::feed::{Feed, Lag};
    #[pymodule_export]
    use crate::id::{Id, Message};
    #[pymodule_export]
    use crate::reader::Reader;
    #[pymodule_export]
    use crate::writer::Writer;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::error::add_to(module)
    }
}
