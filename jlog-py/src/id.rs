//! Ids and messages.

use std::hash::{DefaultHasher, Hash, Hasher};

use jlog_core::LogId;
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The id of a message: segment and marker. Ids only grow.
#[pyclass(frozen, module = "jlog")]
pub(crate) struct Id(pub(crate) LogId);

#[pymethods]
impl Id {
    #[new]
    fn new(segment: u32, marker: u32) -> Self {
        Self(LogId::new(segment, marker))
    }

    /// Parses the text form of an id: "0000002a:00000007".
    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        text.parse().map(Self).map_err(|error| PyValueError::new_err(format!("{text:?}: {error}")))
    }

    #[getter]
    fn segment(&self) -> u32 {
        self.0.segment
    }

    #[getter]
    fn marker(&self) -> u32 {
        self.0.marker
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Id({}, {})", self.0.segment, self.0.marker)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0.segment, self.0.marker).hash(&mut hasher);
        hasher.finish()
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp) -> bool {
        op.matches(self.0.cmp(&other.0))
    }
}

/// A message that was read.
#[pyclass(frozen, module = "jlog")]
pub(crate) struct Message {
    pub(crate) id: LogId,
    pub(crate) seconds: u32,
    pub(crate) micros: u32,
    pub(crate) body: Py<PyBytes>,
}

#[pymethods]
impl Message {
    /// Its id.
    #[getter]
    fn id(&self) -> Id {
        Id(self.id)
    }

    /// When it was accepted, in seconds since 1970.
    #[getter]
    fn time(&self) -> f64 {
        f64::from(self.seconds) + f64::from(self.micros) / 1e6
    }

    /// The bytes that were appended.
    #[getter]
    fn body(&self, py: Python<'_>) -> Py<PyBytes> {
        self.body.clone_ref(py)
    }

    fn __bytes__(&self, py: Python<'_>) -> Py<PyBytes> {
        self.body.clone_ref(py)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.body.bind(py).len()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Message {} {}>", self.id, self.body.bind(py).repr()?))
    }
}
