//! Feeds.

use std::path::PathBuf;

use jlog_core::{AtLimit, Compression, Jlog, JlogOptions, Limits, Start};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::error::exception;
use crate::id::Id;
use crate::reader::Reader;
use crate::writer::{Writer, policy};

/// A feed's directory.
#[pyclass(frozen, module = "jlog")]
pub(crate) struct Feed(Jlog);

/// How far a subscriber is behind.
#[pyclass(frozen, module = "jlog", get_all)]
pub(crate) struct Lag {
    /// Messages.
    messages: u64,
    /// Bytes of their records.
    bytes: u64,
    /// When the oldest of them was accepted, in seconds since 1970.
    oldest: Option<f64>,
}

impl Lag {
    pub(crate) fn of(py: Python<'_>, log: &Jlog, name: &str) -> PyResult<Self> {
        let lag = py.detach(|| log.lag(name)).map_err(exception)?;
        let seconds = |time: jlog_core::Timestamp| f64::from(time.seconds) + f64::from(time.micros) / 1e6;
        Ok(Self { messages: lag.messages, bytes: lag.bytes, oldest: lag.oldest.map(seconds) })
    }
}

#[pymethods]
impl Lag {
    fn __repr__(&self) -> String {
        let oldest = self.oldest.map_or("None".to_owned(), |oldest| oldest.to_string());
        format!("Lag(messages={}, bytes={}, oldest={oldest})", self.messages, self.bytes)
    }
}

fn options(
    segment_size: Option<u32>,
    pre_commit: Option<u32>,
    compression: Option<&str>,
    checksums: Option<bool>,
    max_bytes: Option<u64>,
    drop_oldest: bool,
) -> PyResult<JlogOptions> {
    let mut options = Jlog::options();
    if let Some(bytes) = segment_size {
        options = options.segment_size(bytes);
    }
    if let Some(bytes) = pre_commit {
        options = options.pre_commit(bytes);
    }
    options = match compression {
        None => options,
        Some("lz4") => options.compression(Compression::Lz4),
        Some(other) => {
            return Err(PyValueError::new_err(format!("compression: {other:?} is neither 'lz4' nor None")));
        }
    };
    if let Some(on) = checksums {
        options = options.checksums(on);
    }
    if max_bytes.is_some() {
        let at_limit = if drop_oldest { AtLimit::DropOldest } else { AtLimit::Fail };
        options = options.limits(Limits { max_bytes, at_limit, ..Limits::default() });
    } else if drop_oldest {
        return Err(PyValueError::new_err("drop_oldest needs max_bytes"));
    }
    Ok(options)
}

fn start(start: &Bound<'_, PyAny>) -> PyResult<Start> {
    if let Ok(id) = start.cast::<Id>() {
        return Ok(Start::After(id.get().0));
    }
    match &*start.extract::<String>()? {
        "beginning" => Ok(Start::Beginning),
        "end" => Ok(Start::End),
        other => Err(PyValueError::new_err(format!(
            "start: {other:?} is neither 'beginning', nor 'end', nor an Id"
        ))),
    }
}

#[pymethods]
impl Feed {
    /// Opens a feed.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| Jlog::open(path)).map(Self).map_err(exception)
    }

    /// Creates a feed. With `exist_ok`, opens a feed that exists, whatever its settings.
    #[staticmethod]
    #[pyo3(signature = (path, *, exist_ok=false, segment_size=None, pre_commit=None, compression=None, checksums=None,
        max_bytes=None, drop_oldest=false))]
    #[allow(clippy::too_many_arguments)]
    fn create(
        py: Python<'_>,
        path: PathBuf,
        exist_ok: bool,
        segment_size: Option<u32>,
        pre_commit: Option<u32>,
        compression: Option<&str>,
        checksums: Option<bool>,
        max_bytes: Option<u64>,
        drop_oldest: bool,
    ) -> PyResult<Self> {
        let options = options(segment_size, pre_commit, compression, checksums, max_bytes, drop_oldest)?;
        let made = py.detach(|| if exist_ok { options.create_or_open(path) } else { options.create(path) });
        made.map(Self).map_err(exception)
    }

    /// The directory.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Adds a subscriber; returns whether it is new. With `exist_ok`, an existing one stays where
    /// it is.
    #[pyo3(signature = (name, start=None, *, exist_ok=false))]
    fn subscribe(
        &self,
        py: Python<'_>,
        name: &str,
        start: Option<&Bound<'_, PyAny>>,
        exist_ok: bool,
    ) -> PyResult<bool> {
        let start = start.map_or(Ok(Start::Beginning), self::start)?;
        let added = py.detach(|| match exist_ok {
            true => self.0.ensure_subscriber(name, start),
            false => self.0.subscribe(name, start).map(|_| true),
        });
        added.map_err(exception)
    }

    /// Removes a subscriber; returns whether there was one.
    fn unsubscribe(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        py.detach(|| self.0.unsubscribe(name)).map_err(exception)
    }

    /// The subscribers' names.
    fn subscribers(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let names = py.detach(|| self.0.subscribers()).map_err(exception)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// The id up to which a subscriber has done everything.
    fn checkpoint(&self, py: Python<'_>, name: &str) -> PyResult<Id> {
        py.detach(|| self.0.checkpoint(name)).map(Id).map_err(exception)
    }

    /// How far a subscriber is behind the end.
    fn lag(&self, py: Python<'_>, name: &str) -> PyResult<Lag> {
        Lag::of(py, &self.0, name)
    }

    /// Opens a writer. `sync` says when messages become durable by themselves: 'never', 'on-roll'
    /// (the default), 'after-roll', 'each-append', or a number of seconds between syncs.
    #[pyo3(signature = (*, sync=None))]
    fn writer(&self, py: Python<'_>, sync: Option<&Bound<'_, PyAny>>) -> PyResult<Writer> {
        Writer::open(py, &self.0, policy(sync)?)
    }

    /// Opens a reader for a subscriber. With `follow`, iteration waits for further messages at the
    /// end of the feed. `on_damage`: 'fail' or 'skip'.
    #[pyo3(signature = (name, *, follow=false, on_damage="fail"))]
    fn reader(&self, py: Python<'_>, name: &str, follow: bool, on_damage: &str) -> PyResult<Reader> {
        Reader::open(py, &self.0, name, follow, on_damage)
    }

    /// The events since the last call, as text: skipped damage, dropped messages, …
    fn take_events(&self) -> Vec<String> {
        self.0.take_events().iter().map(ToString::to_string).collect()
    }

    fn __repr__(&self) -> String {
        format!("Feed({:?})", self.0.path())
    }
}
