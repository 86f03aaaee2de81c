//! The specifications that sinks are made from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::file::{Access, Rotation};

/// The specification of a sink.
///
/// ```
/// # let dir = tempfile::tempdir()?; let path = dir.path().join("app.log");
/// use logdag::{Graph, Rotation, SinkSpec, StreamOptions, log};
///
/// let rotation = Rotation::new().bytes(10_000_000).retain_count(5);
/// let sink = SinkSpec::file(path.display().to_string()).rotation(rotation);
/// let graph = Graph::new();
/// let app = graph.configure("app", StreamOptions::new().sink(sink))?;
/// log!(app, "started");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkSpec {
    /// The stream it belongs to.
    pub stream: String,
    /// Its type.
    pub kind: String,
    /// Its path, whose meaning depends on the type.
    pub path: String,
    /// Its `<config>`.
    pub config: BTreeMap<String, String>,
    /// When a file is rotated, and how long rotated ones are kept.
    pub rotation: Rotation,
    /// Mode, owner and group of a new file.
    pub access: Access,
    /// A symbolic link to maintain to the file being written.
    pub latest: Option<PathBuf>,
    /// Whether missing directories of its path are made.
    pub make_dirs: bool,
}

impl SinkSpec {
    /// A sink of a type, which may be one that the program [registers](crate::Graph::register). The
    /// type defines the meaning of the path.
    pub fn new(kind: impl Into<String>, path: impl Into<String>) -> Self {
        Self { kind: kind.into(), path: path.into(), ..Self::default() }
    }

    /// A file that lines are appended to: see [`FileSink`](crate::FileSink).
    pub fn file(path: impl Into<String>) -> Self {
        Self::new("file", path)
    }

    /// A ring that keeps the last lines, up to these numbers of lines and bytes: see
    /// [`MemorySink`](crate::MemorySink).
    pub fn memory(lines: usize, bytes: usize) -> Self {
        Self::new("memory", format!("{lines},{bytes}"))
    }

    /// A feed, with its subscribers: `DIR`, `DIR(sub)` or `DIR(a,b,*)`. It needs the feature
    /// `jlog`.
    pub fn jlog(path: impl Into<String>) -> Self {
        Self::new("jlog", path)
    }

    /// Standard output.
    pub fn stdout() -> Self {
        Self::new("stdout", "")
    }

    /// Standard error.
    pub fn stderr() -> Self {
        Self::new("stderr", "")
    }

    /// Adds a key of its `<config>`.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// When a file is rotated, and how long rotated ones are kept.
    #[must_use]
    pub fn rotation(self, rotation: Rotation) -> Self {
        Self { rotation, ..self }
    }

    /// Mode, owner and group of a new file.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// A symbolic link to maintain to the file being written.
    #[must_use]
    pub fn latest(self, link: impl Into<PathBuf>) -> Self {
        Self { latest: Some(link.into()), ..self }
    }

    /// Whether missing directories of its path are made.
    #[must_use]
    pub fn make_dirs(self, yes: bool) -> Self {
        Self { make_dirs: yes, ..self }
    }
}
