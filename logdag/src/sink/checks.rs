//! Checks of a sink before it is opened.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::fd::Descriptor;
use super::file::{resolve, rotated_directory};
#[cfg(feature = "jlog")]
use super::jlog;
use super::memory::MemorySink;
use super::spec::SinkSpec;
use super::{journald, metric, syslog};

/// Checks a spec, as far as possible without opening anything.
pub(crate) fn check(spec: &SinkSpec) -> Result<(), String> {
    match &*spec.kind {
        "memory" => match MemorySink::from_path(&spec.path) {
            Ok(_) => Ok(()),
            Err(expected) => Err(format!("the path {:?}: expected {expected}", spec.path)),
        },
        "fd" => Descriptor::number(&spec.path).map(|_| ()),
        "syslog" => syslog::check(spec),
        "journald" => journald::check(spec),
        "metric" => metric::check(spec),
        #[cfg(feature = "jlog")]
        "jlog" => jlog::check(spec),
        #[cfg(not(feature = "jlog"))]
        "jlog" => Err("the type jlog needs logdag's feature jlog".to_owned()),
        _ => Ok(()),
    }
}

/// What is in the way on this machine at the moment: a directory at the path of a file, a file at
/// the path of a jlog, or something other than a link at the path of a link.
pub(crate) fn in_the_way(spec: &SinkSpec) -> Vec<String> {
    let mut found = Vec::new();
    match &*spec.kind {
        "file" | "file_synch" => {
            let path = Path::new(&spec.path);
            if path.is_dir() || spec.path.ends_with('/') {
                found.push(format!("{} is a directory: expected the path of a file", spec.path));
            }
            if path.metadata().is_err_and(|e| e.raw_os_error() == Some(Errno::ELOOP as i32)) {
                found.push(format!("{}: its symbolic links form a loop", spec.path));
            }
            if let Some(link) = &spec.latest
                && link.symlink_metadata().is_ok_and(|facts| !facts.is_symlink())
            {
                let link = link.display();
                found.push(format!(
                    "there is something other than a symbolic link at {link}, the link \"latest\""
                ));
            }
        }
        "jlog" => {
            let dir = spec.path.split('(').next().unwrap_or_default();
            if Path::new(dir).metadata().is_ok_and(|facts| !facts.is_dir()) {
                found.push(format!("{dir} is not a directory: a jlog must be a directory"));
            }
        }
        _ => {}
    }
    found
}

/// The directory of a file's link `latest`. Nothing makes this directory.
pub(crate) fn directory_of_latest(spec: &SinkSpec) -> Option<PathBuf> {
    let link = spec.latest.as_ref().filter(|_| matches!(&*spec.kind, "file" | "file_synch"))?;
    link.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned)
}

/// The directories that a sink needs: the one that its path leads to over symbolic links, and the
/// one of its rotated files.
pub(crate) fn directories(spec: &SinkSpec) -> Vec<PathBuf> {
    let path = match &*spec.kind {
        "file" | "file_synch" => resolve(Path::new(&spec.path)),
        "jlog" => PathBuf::from(spec.path.split('(').next().unwrap_or_default()),
        _ => return Vec::new(),
    };
    let own = path.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned);
    let rotated = (spec.kind != "jlog").then(|| rotated_directory(&path, &spec.rotation)).flatten();
    own.into_iter().chain(rotated).collect()
}
