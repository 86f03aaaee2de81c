//! Follows changes in the directories of feeds while clients ask, so that unchanged files are not
//! read again.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::statfs::{FsType, statfs};
use parking_lot::Mutex;

/// With more changed files than this in one directory, all files count as changed.
const MAX_NAMES: usize = 1000;

/// Something in the directory has changed.
const CHANGED: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// File systems that report all changes, because only this machine can make any (statfs(2)).
const LOCAL: [i128; 7] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0x794c_7630, // overlayfs
];

/// The files of one directory that have changed since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None` if changes are not reported.
    followed: Option<WatchDescriptor>,
    /// Whether any file may have changed.
    all: bool,
    names: BTreeSet<OsString>,
}

impl Names {
    /// The files that have changed since the last call; `None` if any file may have.
    pub(crate) fn take(&self) -> Option<BTreeSet<OsString>> {
        let mut state = self.0.lock();
        let names = std::mem::take(&mut state.names);
        let all = std::mem::take(&mut state.all);
        (state.followed.is_some() && !all).then_some(names)
    }

    /// Whether changes are reported.
    pub(crate) fn are_followed(&self) -> bool {
        self.0.lock().followed.is_some()
    }

    fn add(&self, name: Option<OsString>) {
        let mut state = self.0.lock();
        match name {
            Some(name) if !state.all && state.names.len() < MAX_NAMES => _ = state.names.insert(name),
            _ => {
                state.all = true;
                state.names.clear();
            }
        }
    }

    /// Returns the previous descriptor.
    fn follow(&self, followed: Option<WatchDescriptor>) -> Option<WatchDescriptor> {
        let state = State { followed, all: true, names: BTreeSet::new() };
        std::mem::replace(&mut *self.0.lock(), state).followed
    }
}

/// The directories that are followed.
#[derive(Debug)]
pub(crate) struct Changes {
    inotify: Arc<Inotify>,
    followed: HashMap<WatchDescriptor, Arc<Names>>,
}

impl Changes {
    /// `None` if the system has no resources for inotify left: then everything is read.
    pub(crate) fn new() -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        Some(Self { inotify: Arc::new(inotify), followed: HashMap::new() })
    }

    /// Follows a directory from now on, if its file system reports changes. This may block as long
    /// as the file system does; the lock is not held meanwhile.
    pub(crate) fn follow(changes: &Mutex<Option<Self>>, dir: &Path, names: &Arc<Names>) {
        let Some(inotify) = changes.lock().as_ref().map(|changes| Arc::clone(&changes.inotify)) else {
            return;
        };
        if !statfs(dir).is_ok_and(|facts| is_local(facts.filesystem_type())) {
            return;
        }
        let Ok(descriptor) = inotify.add_watch(dir, CHANGED) else { return };
        // Interest may have ended.
        if let Some(changes) =
            changes.lock().as_mut().filter(|changes| Arc::ptr_eq(&changes.inotify, &inotify))
        {
            // A directory has only one descriptor, whatever its path.
            if let Some(other) = changes.followed.insert(descriptor, Arc::clone(names)) {
                other.follow(None);
            }
            names.follow(Some(descriptor));
        }
    }

    /// Stops following these.
    pub(crate) fn leave(&mut self, names: &Names) {
        if let Some(descriptor) = names.follow(None) {
            self.followed.remove(&descriptor);
            // The directory may be gone.
            let _ = self.inotify.rm_watch(descriptor);
        }
    }

    /// Records all reported changes.
    pub(crate) fn note(&mut self) {
        let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.followed.values().for_each(|names| names.add(None));
                } else if event.mask.intersects(gone) {
                    // A directory that was moved away reports changes elsewhere.
                    if let Some(names) = self.followed.get(&event.wd).cloned() {
                        self.leave(&names);
                    }
                } else if let Some(names) = self.followed.get(&event.wd) {
                    names.add(event.name);
                }
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.followed.values().for_each(|names| _ = names.follow(None));
    }
}

/// The type of this number differs between C libraries; this one holds all of them.
fn is_local(kind: FsType) -> bool {
    LOCAL.contains(&i128::from(kind.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        std::fs::create_dir(&path).unwrap();
        let (changes, names) = (Mutex::new(Changes::new()), Arc::new(Names::default()));
        let taken = || {
            changes.lock().as_mut().unwrap().note();
            let taken = names.take()?.into_iter();
            Some(taken.map(|name| name.into_string().unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(taken(), None);
        Changes::follow(&changes, &path, &names);
        // Before it was followed, anything may have changed.
        assert_eq!(taken(), None);
        assert_eq!(taken(), Some(vec![]));
        for _ in 0..3 {
            std::fs::write(path.join("b"), "x").unwrap();
            std::fs::write(path.join("a"), "x").unwrap();
        }
        assert_eq!(taken(), Some(vec!["a".to_owned(), "b".to_owned()]));
        std::fs::rename(path.join("a"), path.join("c")).unwrap();
        std::fs::remove_file(path.join("b")).unwrap();
        let all = ["a", "b", "c"].map(ToOwned::to_owned);
        assert_eq!(taken(), Some(all.to_vec()));
        assert_eq!(std::fs::read(path.join("c")).unwrap(), b"x");
        assert_eq!(taken(), Some(vec![]));
        for n in 0..=MAX_NAMES {
            std::fs::write(path.join(n.to_string()), "").unwrap();
        }
        assert_eq!(taken(), None);
        assert_eq!(taken(), Some(vec![]));
        // A directory that is moved away is no longer followed; nor is its replacement.
        std::fs::rename(&path, dir.path().join("other")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(taken(), None);
        assert_eq!(taken(), None);
        Changes::follow(&changes, &path, &names);
        assert_eq!(taken(), None);
        assert_eq!(taken(), Some(vec![]));
        *changes.lock() = None;
        assert_eq!(names.take(), None);
    }
}
