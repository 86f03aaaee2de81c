//! The reading side.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jlog_core::{Checkpointer, Jlog, LogId, OnDamage, ReaderOptions, Wait};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyList};

use crate::error::{closed, exception};
use crate::feed::Lag;
use crate::id::{Id, Message};

/// How often a wait is interrupted to check for signals, such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// Reads for a subscriber.
#[pyclass(frozen, module = "jlog")]
pub(crate) struct Reader {
    log: Jlog,
    name: String,
    follow: bool,
    reader: Mutex<Option<jlog_core::Reader>>,
    /// Has its own lock, so that a checkpoint can be stored while another thread waits for
    /// messages.
    checkpointer: Mutex<Option<Checkpointer>>,
    handed: Mutex<Handed>,
}

/// The messages that iteration has read ahead.
#[derive(Default)]
struct Handed {
    next: VecDeque<Py<Message>>,
    last: Option<LogId>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    pub(crate) fn open(
        py: Python<'_>,
        log: &Jlog,
        name: &str,
        follow: bool,
        on_damage: &str,
    ) -> PyResult<Self> {
        let on_damage = match on_damage {
            "fail" => OnDamage::Fail,
            "skip" => OnDamage::Skip,
            other => {
                return Err(PyValueError::new_err(format!(
                    "on_damage: {other:?} is neither 'fail' nor 'skip'"
                )));
            }
        };
        let options = ReaderOptions::default().on_damage(on_damage);
        let (reader, checkpointer) = py
            .detach(|| {
                let reader = log.reader_with(name, options)?;
                let checkpointer = reader.checkpointer()?;
                Ok((reader, checkpointer))
            })
            .map_err(exception)?;
        Ok(Self {
            log: log.clone(),
            name: name.to_owned(),
            follow,
            reader: Mutex::new(Some(reader)),
            checkpointer: Mutex::new(Some(checkpointer)),
            handed: Mutex::new(Handed::default()),
        })
    }

    /// The next messages; `None` if none arrive within the time. Signals end the wait.
    fn read(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Option<Vec<Message>>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = match (timeout, left) {
                (Some(Duration::ZERO), _) => Wait::No,
                (_, Some(left)) => Wait::Timeout(left.min(SIGNALS_EVERY)),
                (_, None) => Wait::Timeout(SIGNALS_EVERY),
            };
            let batch = py.detach(|| {
                let mut reader = lock(&self.reader);
                let reader = reader.as_mut()?;
                // The whole batch is copied while the interpreter is released; each body is then
                // copied from it once.
                Some(reader.next_batch(wait).map(|batch| batch.map(jlog_core::Batch::into_owned)))
            });
            if let Some(batch) = batch.ok_or_else(|| closed("reader"))?.map_err(exception)? {
                let messages = batch.as_batch().iter().map(|message| {
                    let (seconds, micros) = (message.time().seconds, message.time().micros);
                    let body = PyBytes::new(py, message.body()).unbind();
                    Message { id: message.id(), seconds, micros, body }
                });
                return Ok(Some(messages.collect()));
            }
            py.check_signals()?;
            if left.is_some_and(|left| left <= SIGNALS_EVERY) || timeout == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }
}

fn seconds(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let duration = |seconds| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| PyValueError::new_err(format!("timeout: {seconds} is not a time in seconds")))
    };
    timeout.map(duration).transpose()
}

#[pymethods]
impl Reader {
    /// The subscriber's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// A list of the next messages; empty if none arrive within `timeout` seconds (None: waits
    /// forever; 0: does not wait). It commits nothing.
    #[pyo3(signature = (timeout=None))]
    fn next_batch<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        let timeout = seconds(timeout)?;
        let waiting: Vec<Py<Message>> = lock(&self.handed).next.drain(..).collect();
        if !waiting.is_empty() {
            return PyList::new(py, waiting);
        }
        PyList::new(py, self.read(py, timeout)?.unwrap_or_default())
    }

    /// Stores the checkpoint: everything up to and including the message is done. Takes a message
    /// or an id; without one, the last message that iteration has handed out.
    #[pyo3(signature = (upto=None))]
    fn commit(&self, py: Python<'_>, upto: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let id = match upto {
            None => match lock(&self.handed).last {
                Some(last) => last,
                None => return Ok(()),
            },
            Some(upto) => match upto.cast::<Message>() {
                Ok(message) => message.get().id,
                Err(_) => upto.cast::<Id>()?.get().0,
            },
        };
        py.detach(|| lock(&self.checkpointer).as_mut().map(|checkpointer| checkpointer.commit(id)))
            .ok_or_else(|| closed("reader"))?
            .map_err(exception)
    }

    /// How far the subscriber's checkpoint is behind the end.
    fn lag(&self, py: Python<'_>) -> PyResult<Lag> {
        Lag::of(py, &self.log, &self.name)
    }

    /// Skips the damage that the last call met.
    fn skip_damage(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| lock(&self.reader).as_mut().map(jlog_core::Reader::skip_damage))
            .ok_or_else(|| closed("reader"))
    }

    /// Closes the reader. Calling it again has no effect.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            lock(&self.reader).take();
            lock(&self.checkpointer).take();
        });
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<Message>>> {
        loop {
            let mut handed = lock(&self.handed);
            if let Some(message) = handed.next.pop_front() {
                handed.last = Some(message.get().id);
                return Ok(Some(message));
            }
            drop(handed);
            let timeout = if self.follow { None } else { Some(Duration::ZERO) };
            let Some(messages) = self.read(py, timeout)? else { return Ok(None) };
            let messages =
                messages.into_iter().map(|message| Py::new(py, message)).collect::<PyResult<Vec<_>>>()?;
            lock(&self.handed).next.extend(messages);
        }
    }

    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("jlog._aio")?.getattr("Messages")?.call1((slf, slf.get().follow))
    }

    /// Records the message that asynchronous iteration has handed out.
    fn _handed_out(&self, message: &Bound<'_, Message>) {
        lock(&self.handed).last = Some(message.get().id);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }
}
