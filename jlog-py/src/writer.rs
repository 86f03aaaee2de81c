//! The writing side.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use jlog_core::{SyncPolicy, WriterOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyString};

use crate::error::{closed, exception};
use crate::id::Id;

/// Appends messages. Any number of threads may use it; other processes may append, too.
#[pyclass(frozen, module = "jlog")]
pub(crate) struct Writer(RwLock<Option<jlog_core::Writer>>);

/// A body to append: used directly, or copied to `bytes` if it is another kind of buffer.
pub(crate) fn body<'py>(message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = message.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if message.is_instance_of::<PyString>() {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "a message must be bytes, not str: encode it with text.encode()",
        ));
    }
    let py = message.py();
    let view = py.import("builtins")?.getattr("memoryview")?.call1((message,))?;
    Ok(view.call_method0("tobytes")?.cast_into::<PyBytes>()?)
}

pub(crate) fn policy(sync: Option<&Bound<'_, PyAny>>) -> PyResult<SyncPolicy> {
    let Some(sync) = sync else { return Ok(SyncPolicy::OnRoll) };
    if let Ok(seconds) = sync.extract::<f64>() {
        let every = Duration::try_from_secs_f64(seconds)
            .map_err(|_| PyValueError::new_err(format!("sync: {seconds} is not an interval in seconds")))?;
        return Ok(SyncPolicy::Interval(every));
    }
    match &*sync.extract::<String>()? {
        "never" => Ok(SyncPolicy::Never),
        "on-roll" => Ok(SyncPolicy::OnRoll),
        "after-roll" => Ok(SyncPolicy::AfterRoll),
        "each-append" => Ok(SyncPolicy::EachAppend),
        other => Err(PyValueError::new_err(format!(
            "sync: {other:?} is not 'never', 'on-roll', 'after-roll', 'each-append' or a number of seconds"
        ))),
    }
}

impl Writer {
    pub(crate) fn open(py: Python<'_>, log: &jlog_core::Jlog, sync: SyncPolicy) -> PyResult<Self> {
        let writer = py.detach(|| log.writer_with(WriterOptions::default().sync(sync)));
        Ok(Self(RwLock::new(Some(writer.map_err(exception)?))))
    }

    /// Runs something with the writer while the interpreter is released.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&jlog_core::Writer) -> jlog_core::Result<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let writer = self.0.read().unwrap_or_else(PoisonError::into_inner);
            writer.as_ref().map(work)
        })
        .ok_or_else(|| closed("writer"))?
        .map_err(exception)
    }
}

#[pymethods]
impl Writer {
    /// Appends a message; returns its id, or None if it is in the pre-commit buffer.
    fn append(&self, message: &Bound<'_, PyAny>) -> PyResult<Option<Id>> {
        let body = body(message)?;
        let bytes = body.as_bytes();
        let placed = self.with(message.py(), |writer| writer.append(bytes))?;
        Ok(placed.id().map(Id))
    }

    /// Appends messages in order, without other messages of this writer between them; returns the
    /// id of the last one, or None if they are in the pre-commit buffer.
    fn append_batch(&self, messages: &Bound<'_, PyAny>) -> PyResult<Option<Id>> {
        let bodies = messages.try_iter()?.map(|message| body(&message?)).collect::<PyResult<Vec<_>>>()?;
        let bytes: Vec<&[u8]> = bodies.iter().map(|body| body.as_bytes()).collect();
        let placed = self.with(messages.py(), |writer| writer.append_batch(&bytes))?;
        Ok(placed.id().map(Id))
    }

    /// Makes every message appended so far readable.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, jlog_core::Writer::flush)
    }

    /// Makes every message appended so far durable: it survives a power failure.
    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, jlog_core::Writer::sync)
    }

    /// Makes everything durable, and closes the writer. Calling it again has no effect.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let writer = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
            writer.map_or(Ok(()), jlog_core::Writer::close)
        })
        .map_err(exception)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }
}
