//! Exceptions: a class for each kind that a program may want to distinguish.

use jlog_core::Error;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

create_exception!(jlog, JlogError, PyException, "The base class of all feed exceptions.");
create_exception!(jlog, NotAFeed, JlogError, "There is no feed at the path.");
create_exception!(jlog, AlreadyExists, JlogError, "A feed, or a subscriber, of that name exists already.");
create_exception!(jlog, UnknownSubscriber, JlogError, "There is no such subscriber.");
create_exception!(
    jlog,
    NoSuchRecord,
    JlogError,
    "There is no record with that id: not any more, or not yet."
);
create_exception!(
    jlog,
    AtCapacity,
    JlogError,
    "A limit of the feed is reached: the message was not accepted."
);
create_exception!(jlog, DiskFull, JlogError, "The file system is full. Nothing half-written remains.");
create_exception!(jlog, SystemCallFailed, JlogError, "A system call failed.");
create_exception!(jlog, Busy, JlogError, "Another writer, reader or repair holds a lock.");
create_exception!(jlog, Damaged, JlogError, "Bytes of the feed differ from those that were written.");
create_exception!(jlog, Missed, JlogError, "Messages that the subscriber needed were dropped or lost.");
create_exception!(jlog, Replaced, JlogError, "The feed was removed or replaced, or the subscriber removed.");
create_exception!(
    jlog,
    SyncFailed,
    JlogError,
    "A sync failed: this writer never again reports anything as durable."
);
create_exception!(jlog, Closed, JlogError, "The writer or reader is closed.");

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    for (name, class) in [
        ("JlogError", py.get_type::<JlogError>()),
        ("NotAFeed", py.get_type::<NotAFeed>()),
        ("AlreadyExists", py.get_type::<AlreadyExists>()),
        ("UnknownSubscriber", py.get_type::<UnknownSubscriber>()),
        ("NoSuchRecord", py.get_type::<NoSuchRecord>()),
        ("AtCapacity", py.get_type::<AtCapacity>()),
        ("DiskFull", py.get_type::<DiskFull>()),
        ("SystemCallFailed", py.get_type::<SystemCallFailed>()),
        ("Busy", py.get_type::<Busy>()),
        ("Damaged", py.get_type::<Damaged>()),
        ("Missed", py.get_type::<Missed>()),
        ("Replaced", py.get_type::<Replaced>()),
        ("SyncFailed", py.get_type::<SyncFailed>()),
        ("Closed", py.get_type::<Closed>()),
    ] {
        module.add(name, class)?;
    }
    Ok(())
}

/// The exception for an error. If a system call failed, its attribute `errno` is the system's error
/// number.
pub(crate) fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    let errno = error.raw_os_error();
    let exception = match error {
        Error::NotAJlog { .. } | Error::MetastoreMissing { .. } => NotAFeed::new_err(text),
        Error::AlreadyExists { .. } | Error::SubscriberExists { .. } => AlreadyExists::new_err(text),
        Error::UnknownSubscriber { .. } => UnknownSubscriber::new_err(text),
        Error::NoSuchRecord { .. } | Error::StaleId { .. } => NoSuchRecord::new_err(text),
        Error::AtCapacity { .. } => AtCapacity::new_err(text),
        Error::DiskFull { .. } => DiskFull::new_err(text),
        Error::Io { .. } => SystemCallFailed::new_err(text),
        Error::WriterBusy { .. }
        | Error::PreCommitBusy { .. }
        | Error::ReaderBusy { .. }
        | Error::RepairBusy { .. }
        | Error::InUse { .. }
        | Error::CWriter { .. } => Busy::new_err(text),
        Error::Damaged { .. }
        | Error::ChecksumMismatch { .. }
        | Error::Compressed { .. }
        | Error::Checkpoint { .. }
        | Error::Metastore { .. } => Damaged::new_err(text),
        Error::Missed { .. } | Error::SegmentsLost { .. } => Missed::new_err(text),
        Error::Replaced { .. } | Error::Unsubscribed { .. } => Replaced::new_err(text),
        Error::SyncFailed { .. } => SyncFailed::new_err(text),
        Error::OutOfRange { .. } | Error::SubscriberName { .. } | Error::MessageTooLarge { .. } => {
            PyValueError::new_err(text)
        }
        _ => JlogError::new_err(text),
    };
    if let Some(errno) = errno {
        // Without the attribute, the text still has the cause.
        Python::attach(|py| {
            let _ = exception.value(py).setattr("errno", errno);
        });
    }
    exception
}

/// The exception of a call on a closed object.
pub(crate) fn closed(what: &str) -> PyErr {
    Closed::new_err(format!("this {what} is closed"))
}
