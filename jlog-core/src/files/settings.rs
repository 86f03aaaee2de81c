//! The file `settings`.

use crate::codec::names;
use crate::codec::settings::Settings;
use crate::files::shared::{Shared, open_error};
use crate::storage::{Open, Storage, read_all};
use crate::{Error, Result};

/// The longest settings file.
const MAX_LEN: usize = 64 << 10;

/// Identifies the settings file and its version; `None` without a file.
pub(crate) type Stamp = ((u64, u64), i128, u64);

/// The current settings file.
pub(crate) fn stamp(shared: &Shared) -> Option<Stamp> {
    shared.facts(names::SETTINGS).ok().map(|facts| (facts.identity, facts.changed, facts.len))
}

impl Settings {
    pub(crate) fn load(storage: &dyn Storage, dir: &std::path::Path) -> Result<Self> {
        let path = dir.join(names::SETTINGS);
        let bytes = match storage.open(&path, Open::Read) {
            Ok(file) => read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", &path, e))?,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Ok(Self::default());
            }
            Err(e) => return Err(open_error(path, e)),
        };
        if bytes.is_empty() {
            // It was never written empty: its limits are lost.
            return Err(Error::Settings { path, line: 1, why: "it is empty".to_owned() });
        }
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map_err(|(line, why)| Error::Settings { path, line, why })
    }

    /// The settings and the current version of their file, if it has changed; `None` if nothing has
    /// changed. Settings that cannot be read change nothing.
    pub(crate) fn reload(shared: &Shared, was: Option<Stamp>) -> Option<(Self, Option<Stamp>)> {
        let is = stamp(shared);
        if is == was {
            return None;
        }
        Self::load(&*shared.storage, &shared.path).ok().map(|settings| (settings, is))
    }

    pub(crate) fn store(&self, shared: &Shared) -> Result<()> {
        shared.replace_file(names::SETTINGS, self.to_text().as_bytes())
    }
}
