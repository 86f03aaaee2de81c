//! Reads a configuration.

use std::path::Path;
use std::rc::Rc;

use super::checked::Config;
use super::element::{Element, Source, is_toml};
use super::error::{Result, unreadable};
use super::include::Open;
use super::{files, streams, toml, xml};

impl Config {
    /// Reads a file and the files that it includes: regular files of up to 16 MiB. The first file
    /// may also be a pipe that the process was started with, such as `/dev/stdin`, which is read to
    /// its end.
    ///
    /// # Errors
    /// The first mistake.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = files::read(path, true).map_err(|message| unreadable(path, message))?;
        let shown = streams::is_configuration(&text, is_toml(path));
        Self::from_source(&Source::new(path, text, shown), path)
    }

    /// Reads a text. `file` is its name in errors, and includes are relative to that file's
    /// directory. The text is TOML if the name ends in `.toml`.
    ///
    /// # Errors
    /// The first mistake.
    pub fn from_text(file: impl AsRef<Path>, text: &str) -> Result<Self> {
        let path = file.as_ref();
        Self::from_source(&Source::new(path, text.to_owned(), true), path)
    }

    fn from_source(source: &Rc<Source>, path: &Path) -> Result<Self> {
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut open = Open { files: vec![identity], doubts: Vec::new() };
        let root = if source.toml {
            let logs = toml::into_element(source, Element::empty("logs", source.place(0)))?;
            Element { children: vec![logs], ..Element::empty("application", source.place(0)) }
        } else {
            xml::root(source)?
        };
        let root = open.expanded(root, source)?;
        let config = streams::read(&root, open.doubts)?;
        config.check_outlets()?;
        Ok(config)
    }
}
