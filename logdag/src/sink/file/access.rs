//! Paths of files, and their permissions.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Group, User};

use crate::patience;

/// Permission bits of new files, before the process's umask.
const FILE_MODE: u32 = 0o664;
/// As in the kernel, a path with more symbolic links than this leads nowhere.
const MAX_LINKS: usize = 40;

/// Mode, owner and group of a new file. Files that replace it by rotation keep those of the old
/// file, whatever is set here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// Permission bits; by default 0664 minus the process's umask.
    pub mode: Option<u32>,
    /// A user's name or number; without one, the process's own.
    pub owner: Option<String>,
    /// A group's name or number; without one, the process's own.
    pub group: Option<String>,
}

impl Access {
    /// The defaults: the process's user and group, and its umask.
    pub fn new() -> Self {
        Self::default()
    }

    /// Permission bits.
    #[must_use]
    pub fn mode(self, bits: u32) -> Self {
        Self { mode: Some(bits), ..self }
    }

    /// A user's name or number.
    #[must_use]
    pub fn owner(self, name: impl Into<String>) -> Self {
        Self { owner: Some(name.into()), ..self }
    }

    /// A group's name or number.
    #[must_use]
    pub fn group(self, name: impl Into<String>) -> Self {
        Self { group: Some(name.into()), ..self }
    }

    /// What is wrong with the user and with the group: the name does not exist, or cannot be looked
    /// up.
    pub(crate) fn missing(&self) -> Vec<io::Error> {
        [self.owner_id().err(), self.group_id().err()].into_iter().flatten().collect()
    }

    /// Resolves names to numbers.
    pub(super) fn look_up(&self) -> io::Result<Ids> {
        Ok(Ids { mode: self.mode, owner: self.owner_id()?, group: self.group_id()? })
    }

    fn owner_id(&self) -> io::Result<Option<u32>> {
        id("user", self.owner.as_deref(), |name| Ok(User::from_name(name)?.map(|user| user.uid.as_raw())))
    }

    fn group_id(&self) -> io::Result<Option<u32>> {
        id("group", self.group.as_deref(), |name| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())))
    }
}

/// The number of a user or group that is given by number or by name.
fn id(
    what: &str,
    name: Option<&str>,
    find: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> io::Result<Option<u32>> {
    let Some(name) = name else { return Ok(None) };
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("there is no {what} {name:?}"));
    find(name)?.ok_or_else(unknown).map(Some)
}

/// An [`Access`] whose names are resolved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids {
    mode: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
}

/// Opens a file to append to it. A new file gets the access of `before`, the file that it replaces,
/// or, if it replaces none, that of `first`.
pub(super) fn open(target: &Path, before: Option<&Metadata>, first: Ids) -> io::Result<File> {
    // Opening something other than a regular file (a FIFO without a reader) must not wait.
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = loop {
        match options.open(target) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(file) => {
                if let Some(before) = before {
                    keep_owner(&file, before);
                }
                break file;
            }
            failed => return failed,
        }
        match create(target, before, first) {
            // Another process was quicker.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Ok(file) => break file,
            failed => return failed,
        }
    };
    patience::let_writes_wait(&file)?;
    Ok(file)
}

/// Creates a file to append to, which must not exist yet.
pub(super) fn create(target: &Path, before: Option<&Metadata>, first: Ids) -> io::Result<File> {
    let exact = before.map(|facts| facts.mode() & 0o7777).or(first.mode);
    // Others must not be able to open it before it has its owner.
    let mode = exact.map_or(FILE_MODE, |mode| mode & 0o700);
    let file = OpenOptions::new().append(true).create_new(true).mode(mode).open(target)?;
    let set = || -> io::Result<()> {
        if let Some(before) = before {
            keep_owner(&file, before);
        } else if first.owner.is_some() || first.group.is_some() {
            fchown(&file, first.owner, first.group)?;
        }
        let Some(mut mode) = exact else { return Ok(()) };
        if let Some(before) = before
            && file.metadata()?.gid() != before.gid()
        {
            // The group could not be kept: the new group gets no more permissions than others have.
            mode &= !0o070 | (mode & 0o007) << 3;
        }
        file.set_permissions(Permissions::from_mode(mode))
    };
    set().inspect_err(|_| {
        // Nothing was written to it.
        let _ = std::fs::remove_file(target);
    })?;
    Ok(file)
}

/// Gives a file the owner and group of another one, as far as the system allows it.
pub(super) fn keep_owner(file: &File, before: &Metadata) {
    let Ok(now) = file.metadata() else { return };
    // A user other than root cannot give a file away, but can give it to one of its own groups.
    if now.uid() != before.uid() && fchown(file, Some(before.uid()), Some(before.gid())).is_ok() {
        return;
    }
    if now.gid() != before.gid() {
        let _ = fchown(file, None, Some(before.gid()));
    }
}

/// The path that symbolic links lead to, including links to directories. Nothing has to exist
/// there.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let mut links = 0;
    let mut resolved = PathBuf::new();
    let mut ahead: Vec<PathBuf> =
        path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
    while let Some(part) = ahead.pop() {
        match part.components().next() {
            Some(Component::ParentDir) => {
                resolved.pop();
                continue;
            }
            Some(Component::CurDir) | None => continue,
            _ => resolved.push(&part),
        }
        if let Ok(target) = std::fs::read_link(&resolved) {
            links += 1;
            if links > MAX_LINKS {
                return path.to_owned();
            }
            resolved.pop();
            ahead.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
        }
    }
    // The text of a link that the kernel resolves itself (/dev/stdout) may not be a path.
    match (std::fs::metadata(path), std::fs::metadata(&resolved)) {
        (Ok(one), Ok(other)) if (one.dev(), one.ino()) == (other.dev(), other.ino()) => resolved,
        (Err(_), _) => resolved,
        _ => path.to_owned(),
    }
}

/// The directory of a path's last name.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a name is, without following the name itself: its directory without links, and the name.
pub(crate) fn place(path: &Path) -> PathBuf {
    match (directory(path).canonicalize(), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_on_whether_there_is_anything_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("big")).unwrap();
        symlink("data", dir.join("logs")).unwrap();
        symlink(dir.join("big"), dir.join("data")).unwrap();
        symlink("../logs/./x.log", dir.join("big/app.log")).unwrap();
        assert_eq!(resolve(&dir.join("logs/app.log")), dir.join("big/x.log"));
        symlink("/nowhere/at/all", dir.join("dangling")).unwrap();
        assert_eq!(resolve(&dir.join("dangling/x")), Path::new("/nowhere/at/all/x"));
        symlink("loop", dir.join("loop")).unwrap();
        assert_eq!(resolve(&dir.join("loop/x")), dir.join("loop/x"));
        for special in ["/dev/null", "/dev/stdout"] {
            let there = std::fs::metadata(resolve(Path::new(special))).unwrap();
            assert_eq!(there.ino(), std::fs::metadata(special).unwrap().ino(), "{special}");
        }
    }
}
