//! The keeper of rotated files: it compresses them, and removes them when there are too many.

use std::io;
use std::time::Instant;

use super::compress::{Outcome, compress};
use super::names::{Form, Names};
use super::period::{Pair, Watch};
use super::retention::{self, FirstSeen, Reasons};
use super::rotation::Rotation;
use crate::sync::plain::Mutex;

/// The keeper of rotated files. The thread that compresses them shares it.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) rotation: Rotation,
    pub(super) kept: Mutex<Kept>,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) watch: Watch,
    pub(super) first_seen: FirstSeen,
    /// Why a file could not be compressed, until the error is taken.
    pub(super) trouble: Option<io::Error>,
    /// When a file last had to be left uncompressed for the time being.
    pub(super) left: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(rotation: Rotation, now: Pair) -> Self {
        let watch = Watch::new(now);
        Self {
            rotation,
            kept: Mutex::new(Kept { watch, first_seen: FirstSeen::new(), trouble: None, left: None }),
        }
    }

    pub(super) fn believes(&self, now: Pair) -> bool {
        self.kept.lock().watch.believes(now)
    }

    pub(super) fn remove_expired(&self, names: &Names, now: u64, reasons: Reasons) -> io::Result<usize> {
        retention::remove_expired(names, &self.rotation, now, reasons, &mut self.kept.lock().first_seen)
    }

    /// Compresses rotated files, and then removes those in excess.
    pub(super) fn compress(&self, names: &Names, now: u64, believed: bool) {
        let Some(method) = self.rotation.compress else { return };
        let (mut trouble, mut left) = (None, false);
        match retention::find(names, now) {
            Err(e) => trouble = Some(e),
            Ok(found) => {
                left = found.busy;
                let plain = found.rotated.into_iter().rev().filter(|file| file.name.form == Form::Plain);
                for file in plain {
                    match compress(&file.path, method) {
                        Ok(Outcome::Done | Outcome::Gone) => {}
                        Ok(Outcome::Busy) => left = true,
                        Err(e) => {
                            use io::ErrorKind::{
                                PermissionDenied, ReadOnlyFilesystem, StorageFull, Unsupported,
                            };
                            let for_all = [PermissionDenied, ReadOnlyFilesystem, StorageFull, Unsupported];
                            let for_all = for_all.contains(&e.kind());
                            let why = format!("{e}: {} is not compressed", file.path.display());
                            trouble = Some(io::Error::new(e.kind(), why));
                            left = true;
                            if for_all {
                                break;
                            }
                        }
                    }
                }
            }
        }
        let removed = self.remove_expired(names, now, Reasons { age: believed, bytes: true });
        let mut kept = self.kept.lock();
        kept.trouble = trouble.or(removed.err()).or(kept.trouble.take());
        kept.left = left.then(Instant::now);
    }
}
