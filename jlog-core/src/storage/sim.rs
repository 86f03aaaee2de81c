//! An in-memory disk that knows what was synced, to test crashes at any moment.
//!
//! [`SimStorage::record`] keeps the state of the disk before every call that changes it. From such
//! a [`Moment`], [`Moment::after_kill`] makes the disk as it is after the process was killed there,
//! and [`Moment::after_power_loss`] a disk as it may be after a power failure. A power failure
//! keeps a prefix of the unsynced writes to each file, the last of them perhaps in part (but never
//! torn within 8 aligned bytes), a prefix of the unsynced changes of names, and any subset of the
//! changed pages of maps.
//!
//! It simulates one machine with one thread: taking a lock that another handle holds is an error.
//! With the feature `shuttle`, whose checker knows every thread, changes wake a waiting reader.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "shuttle")]
use crate::sync::Condvar;
use crate::sync::Mutex;

use super::posix::MapObserver;
use crate::storage::posix::Map;
use crate::storage::traits::{Facts, File, FileKind, NotRegular, Open, Storage, Waker, Watch};

/// Maps reach the disk in pieces of this size, far smaller than a page, so that small buffers tear,
/// too.
const PAGE: usize = 64;

/// A change of a file that was not synced yet.
#[derive(Clone, Debug)]
enum Change {
    Write(u64, Arc<Vec<u8>>),
    SetLen(u64),
}

fn apply(data: &mut Vec<u8>, change: &Change, part: Option<usize>) {
    match change {
        Change::Write(offset, bytes) => {
            let bytes = &bytes[..part.unwrap_or(bytes.len()).min(bytes.len())];
            let start = usize::try_from(*offset).unwrap_or(usize::MAX);
            if data.len() < start + bytes.len() {
                data.resize(start + bytes.len(), 0);
            }
            data[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Change::SetLen(len) => data.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
    }
}

/// Whether a write can tear: no disk tears one within 8 aligned bytes.
fn can_tear(offset: u64, len: usize) -> bool {
    len > 0 && offset / 8 != (offset + len as u64 - 1) / 8
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Node {
    data: Arc<Vec<u8>>,
    /// The bytes that are certainly on the disk.
    durable: Arc<Vec<u8>>,
    changes: Vec<Change>,
    map: Option<Map>,
    /// Handles that hold the lock, or the guard exclusively or shared.
    locked_by: Option<u64>,
    guarded_by: Vec<(u64, bool)>,
}

impl Node {
    /// The current bytes, including those in a map.
    fn current(&self) -> Vec<u8> {
        let mut bytes = self.data.to_vec();
        if let Some(map) = &self.map {
            let len = map.len().min(bytes.len());
            map.read(0, &mut bytes[..len]);
        }
        bytes
    }

    fn sync(&mut self) {
        self.data = Arc::new(self.current());
        self.durable = Arc::clone(&self.data);
        self.changes.clear();
    }
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    next_id: u64,
    /// Calls so far that change something.
    calls: u64,
    moments: Option<Vec<Moment>>,
    /// Bytes that still fit.
    space: Option<u64>,
    boot: u64,
    /// From this call on, every one fails.
    fail_from: Option<u64>,
}

/// A file at a moment: its bytes, those that are durable, the changes between, and whether it is
/// mapped.
type Kept = (Arc<Vec<u8>>, Arc<Vec<u8>>, Vec<Change>, bool);

/// The disk just before a call that changes it.
#[derive(Clone, Debug)]
pub struct Moment {
    /// How many such calls were made before.
    pub calls: u64,
    nodes: BTreeMap<u64, Kept>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    next_id: u64,
    boot: u64,
    /// The write that was about to happen, if it was one.
    in_flight: Option<(u64, Change)>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimStorage {
    state: Arc<Mutex<State>>,
    #[cfg(feature = "shuttle")]
    changed: Arc<Condvar>,
}

/// The source of random choices.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 up to, not including, `sides` (1 or more).
    pub fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides.max(1)
    }
}

impl SimStorage {
    fn of(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            #[cfg(feature = "shuttle")]
            changed: Arc::default(),
        }
    }

    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records every moment from now on.
    pub fn record(&self) {
        self.state.lock().moments = Some(Vec::new());
    }

    /// The moments since [`record`](Self::record), and the last one, now.
    pub fn moments(&self) -> Vec<Moment> {
        let mut state = self.state.lock();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(state.moment(None));
        moments
    }

    /// How many calls have changed something so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Limits how many more bytes can be written; `None`: no limit.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state.lock().space = bytes;
    }

    /// Makes every changing call fail, from the `call`th on.
    pub fn fail_from(&self, call: Option<u64>) {
        self.state.lock().fail_from = call;
    }
}

impl Moment {
    fn boot(&self, boot: u64) -> State {
        State { next_id: self.next_id, boot, ..State::default() }
    }

    /// The disk after the process was killed at this moment. A write in progress may be there in
    /// part.
    pub fn after_kill(&self, dice: &mut Dice) -> SimStorage {
        let mut state = self.boot(self.boot);
        for (id, (data, durable, changes, _)) in &self.nodes {
            let node = Node {
                data: Arc::clone(data),
                durable: Arc::clone(durable),
                changes: changes.clone(),
                ..Node::default()
            };
            state.nodes.insert(*id, node);
        }
        if let Some((id, change)) = &self.in_flight
            && let Some(node) = state.nodes.get_mut(id)
        {
            let part = match change {
                Change::Write(offset, bytes) if can_tear(*offset, bytes.len()) => {
                    usize::try_from(dice.roll(bytes.len() as u64 + 1)).unwrap_or(0)
                }
                Change::Write(..) | Change::SetLen(_) => 0,
            };
            if part > 0 {
                let mut data = node.data.to_vec();
                apply(&mut data, change, Some(part));
                node.data = Arc::new(data);
                if let Change::Write(offset, bytes) = change {
                    node.changes.push(Change::Write(*offset, Arc::new(bytes[..part].to_vec())));
                }
            }
        }
        state.names = self.names.clone();
        state.durable_names = self.durable_names.clone();
        state.name_changes = self.name_changes.clone();
        SimStorage::of(state)
    }

    /// A disk as it may be found after the power failed at this moment.
    pub fn after_power_loss(&self, dice: &mut Dice) -> SimStorage {
        let mut state = self.boot(self.boot + 1);
        for (id, (data, durable, changes, mapped)) in &self.nodes {
            let mut bytes = durable.to_vec();
            let keep = usize::try_from(dice.roll(changes.len() as u64 + 1)).unwrap_or(0);
            for change in &changes[..keep] {
                apply(&mut bytes, change, None);
            }
            if let Some(change @ Change::Write(offset, torn)) = changes.get(keep)
                && can_tear(*offset, torn.len())
                && dice.roll(2) == 0
            {
                let part = usize::try_from(dice.roll(torn.len() as u64 + 1)).unwrap_or(0);
                apply(&mut bytes, change, Some(part));
            }
            if *mapped {
                for (i, page) in bytes.chunks_mut(PAGE).enumerate() {
                    let now = data.get(i * PAGE..).unwrap_or_default();
                    if dice.roll(2) == 0 && now.len() >= page.len() {
                        page.copy_from_slice(&now[..page.len()]);
                    }
                }
            }
            let bytes = Arc::new(bytes);
            let node = Node { data: Arc::clone(&bytes), durable: bytes, ..Node::default() };
            state.nodes.insert(*id, node);
        }
        let mut names = self.durable_names.clone();
        let keep = usize::try_from(dice.roll(self.name_changes.len() as u64 + 1)).unwrap_or(0);
        for change in &self.name_changes[..keep] {
            change_name(&mut names, change);
        }
        state.durable_names = names.clone();
        state.names = names;
        SimStorage::of(state)
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Set(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

/// A placeholder for directories, which have no node of their own.
const DIRECTORY: u64 = 0;

impl State {
    fn moment(&self, in_flight: Option<(u64, Change)>) -> Moment {
        let nodes = self.nodes.iter().map(|(id, node)| {
            let data = if node.map.is_some() { Arc::new(node.current()) } else { Arc::clone(&node.data) };
            let parts = (data, Arc::clone(&node.durable), node.changes.clone(), node.map.is_some());
            (*id, parts)
        });
        Moment {
            calls: self.calls,
            nodes: nodes.collect(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            name_changes: self.name_changes.clone(),
            next_id: self.next_id,
            boot: self.boot,
            in_flight,
        }
    }

    /// Must be called first by every changing call.
    fn begin(&mut self, in_flight: Option<(u64, Change)>) -> io::Result<()> {
        if self.moments.is_some() {
            let moment = self.moment(in_flight);
            if let Some(moments) = &mut self.moments {
                moments.push(moment);
            }
        }
        self.calls += 1;
        if self.fail_from.is_some_and(|from| self.calls >= from) {
            return Err(io::Error::other("simulated failure"));
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change_name(&mut self.names, &change);
        self.name_changes.push(change);
    }

    fn node(&self, id: u64) -> io::Result<&Node> {
        self.nodes.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node_mut(&mut self, id: u64) -> io::Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn facts(&self, id: u64) -> io::Result<Facts> {
        let (kind, len) = match id {
            DIRECTORY => (FileKind::Directory, 0),
            _ => (FileKind::Regular, self.node(id)?.data.len() as u64),
        };
        let links = self.names.values().filter(|&&named| named == id).count() as u64;
        Ok(Facts { kind, len, links, owner: 0, mode: 0o640, identity: (0, id), modified: 0, changed: 0 })
    }

    /// Takes room for `more` bytes, or as many as fit.
    fn take_space(&mut self, more: u64) -> u64 {
        match &mut self.space {
            None => more,
            Some(space) => {
                let taken = more.min(*space);
                *space -= taken;
                taken
            }
        }
    }

    fn change(&mut self, id: u64, change: Change) -> io::Result<()> {
        let node = self.node_mut(id)?;
        apply(Arc::make_mut(&mut node.data), &change, None);
        if let (Some(map), Change::Write(offset, bytes)) = (&node.map, &change) {
            let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
            if offset < map.len() {
                // As the kernel does: writes and maps show the same bytes.
                let n = bytes.len().min(map.len() - offset);
                map.quietly_write(offset, &bytes[..n]);
            }
        }
        node.changes.push(change);
        Ok(())
    }
}

impl Storage for SimStorage {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        let id = match (state.names.get(path).copied(), how) {
            (Some(DIRECTORY), _) => {
                let error = NotRegular(FileKind::Directory);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
            }
            (Some(_), Open::CreateNew(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) => id,
            (None, Open::Read | Open::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::Create(_) | Open::CreateNew(_)) => {
                if path.parent().is_none_or(|parent| state.names.get(parent) != Some(&DIRECTORY)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.begin(None)?;
                if state.space == Some(0) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                state.next_id += 1;
                let id = state.next_id;
                state.nodes.insert(id, Node::default());
                state.change_names(NameChange::Set(path.to_owned(), id));
                id
            }
        };
        state.next_id += 1;
        let handle = state.next_id;
        let links = state.facts(id)?.links;
        Ok(Arc::new(SimFile { storage: self.clone(), id, handle, writable: how != Open::Read, links }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state.lock();
        if state.names.get(dir) != Some(&DIRECTORY) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    fn facts(&self, path: &Path) -> io::Result<Facts> {
        let state = self.state.lock();
        let id = state.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        state.facts(id)
    }

    fn create_dir(&self, path: &Path, _mode: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.begin(None)?;
        state.change_names(NameChange::Set(path.to_owned(), DIRECTORY));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.begin(None)?;
        state.change_names(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.begin(None)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.begin(None)?;
        state.change_names(NameChange::Set(to.to_owned(), id));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(None)?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }

    fn available_space(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.state.lock().space.unwrap_or(1 << 40))
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn boot_id(&self) -> u64 {
        self.state.lock().boot
    }

    fn watch(&self, _dir: &Path) -> io::Result<Box<dyn Watch>> {
        #[cfg(feature = "shuttle")]
        return Ok(Box::new(SimWatch { seen: self.calls(), storage: self.clone() }));
        #[cfg(not(feature = "shuttle"))]
        Ok(Box::new(NoWatch))
    }
}

/// Waits for any change of the disk.
#[cfg(feature = "shuttle")]
struct SimWatch {
    storage: SimStorage,
    seen: u64,
}

#[cfg(feature = "shuttle")]
impl Watch for SimWatch {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut state = self.storage.state.lock();
        while state.calls == self.seen && timeout != Some(Duration::ZERO) {
            self.storage.changed.wait(&mut state);
        }
        self.seen = state.calls;
        Ok(false)
    }

    fn waker(&self) -> io::Result<Waker> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Nothing can happen during a wait, because there is only one thread.
#[cfg(not(feature = "shuttle"))]
struct NoWatch;

#[cfg(not(feature = "shuttle"))]
impl Watch for NoWatch {
    fn wait(&mut self, _timeout: Option<Duration>) -> io::Result<bool> {
        Ok(true)
    }

    fn waker(&self) -> io::Result<Waker> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Debug)]
struct SimFile {
    storage: SimStorage,
    id: u64,
    handle: u64,
    writable: bool,
    links: u64,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn links_when_opened(&self) -> u64 {
        self.links
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.storage.state.lock();
        let node = state.node(self.id)?;
        let mapped;
        let data: &[u8] = match &node.map {
            None => &node.data,
            Some(_) => {
                mapped = node.current();
                &mapped
            }
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let n = buf.len().min(data.len() - from);
        buf[..n].copy_from_slice(&data[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let mut state = self.storage.state.lock();
        let change = Change::Write(offset, Arc::new(bytes.clone()));
        state.begin(Some((self.id, change.clone())))?;
        let len = state.node(self.id)?.data.len() as u64;
        let end = offset + bytes.len() as u64;
        let grows = end.saturating_sub(len.max(offset));
        let room = state.take_space(grows);
        if room == grows {
            state.change(self.id, change)?;
            #[cfg(feature = "shuttle")]
            self.storage.changed.notify_all();
            return Ok(bytes.len());
        }
        let fits = bytes.len() - usize::try_from(grows - room).unwrap_or(0);
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.change(self.id, Change::Write(offset, Arc::new(bytes[..fits].to_vec())))?;
        Ok(fits)
    }

    fn facts(&self) -> io::Result<Facts> {
        self.storage.state.lock().facts(self.id)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.storage.state.lock();
        state.begin(Some((self.id, Change::SetLen(len))))?;
        let old = state.node(self.id)?.data.len() as u64;
        if let Some(space) = &mut state.space {
            *space += old.saturating_sub(len);
        }
        state.change(self.id, Change::SetLen(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.storage.state.lock();
        let old = state.node(self.id)?.data.len() as u64;
        if len <= old {
            return Ok(());
        }
        state.begin(Some((self.id, Change::SetLen(len))))?;
        if state.space.is_some_and(|space| space < len - old) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.take_space(len - old);
        state.change(self.id, Change::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.storage.state.lock();
        state.begin(None)?;
        state.node_mut(self.id)?.sync();
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        let mut state = self.storage.state.lock();
        let node = state.node_mut(self.id)?;
        match node.locked_by {
            Some(holder) if holder != self.handle => {
                Err(io::Error::new(io::ErrorKind::Deadlock, "locked by another handle"))
            }
            _ => {
                node.locked_by = Some(self.handle);
                Ok(())
            }
        }
    }

    fn unlock(&self) -> io::Result<()> {
        let mut state = self.storage.state.lock();
        let node = state.node_mut(self.id)?;
        if node.locked_by == Some(self.handle) {
            node.locked_by = None;
        }
        Ok(())
    }

    fn try_guard(&self, exclusive: bool) -> io::Result<bool> {
        let mut state = self.storage.state.lock();
        let node = state.node_mut(self.id)?;
        let others = node.guarded_by.iter().filter(|(handle, _)| *handle != self.handle);
        if others.clone().any(|(_, alone)| *alone) || (exclusive && others.count() > 0) {
            return Ok(false);
        }
        node.guarded_by.retain(|(handle, _)| *handle != self.handle);
        node.guarded_by.push((self.handle, exclusive));
        Ok(true)
    }

    fn release_guard(&self) -> io::Result<()> {
        let mut state = self.storage.state.lock();
        state.node_mut(self.id)?.guarded_by.retain(|(handle, _)| *handle != self.handle);
        Ok(())
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        let mut state = self.storage.state.lock();
        let node = state.node_mut(self.id)?;
        if node.data.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(map) = &node.map
            && map.len() == len
        {
            return Ok(map.clone());
        }
        let observer = SimMap { storage: Arc::downgrade(&self.storage.state), id: self.id };
        let map = Map::anonymous(&node.current()[..len], Arc::new(observer))?;
        node.map = Some(map.clone());
        Ok(map)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.storage.state.lock();
        if let Some(node) = state.nodes.get_mut(&self.id) {
            if node.locked_by == Some(self.handle) {
                node.locked_by = None;
            }
            node.guarded_by.retain(|(handle, _)| *handle != self.handle);
        }
    }
}

#[derive(Debug)]
struct SimMap {
    storage: std::sync::Weak<Mutex<State>>,
    id: u64,
}

impl MapObserver for SimMap {
    fn before_store(&self) {
        if let Some(state) = self.storage.upgrade() {
            // A store cannot fail.
            let _ = state.lock().begin(None);
        }
    }

    fn sync(&self) -> io::Result<()> {
        let Some(state) = self.storage.upgrade() else { return Ok(()) };
        let mut state = state.lock();
        state.begin(None)?;
        state.node_mut(self.id)?.sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (SimStorage, Arc<dyn File>) {
        let disk = SimStorage::new();
        disk.create_dir(Path::new("/d"), 0o750).unwrap();
        let file = disk.open(Path::new("/d/f"), Open::Create(0o640)).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        (disk, file)
    }

    fn content(disk: &SimStorage) -> Vec<u8> {
        let file = disk.open(Path::new("/d/f"), Open::Read).unwrap();
        super::super::read_all(&*file, 100).unwrap()
    }

    #[test]
    fn power_loss_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let (disk, file) = disk();
        file.write_at(&[IoSlice::new(b"durable")], 0).unwrap();
        file.sync_data().unwrap();
        disk.record();
        file.write_at(&[IoSlice::new(b"-more")], 7).unwrap();
        let last = disk.moments().pop().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            seen.insert(content(&last.after_power_loss(&mut Dice::new(seed))));
        }
        let all: Vec<Vec<u8>> = (7..=12).map(|n| b"durable-more"[..n].to_vec()).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
        assert_eq!(content(&last.after_kill(&mut Dice::new(1))), b"durable-more");
    }

    #[test]
    fn names_that_were_not_synced_may_be_forgotten() {
        let (disk, _file) = disk();
        disk.record();
        disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
        let last = disk.moments().pop().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            seen.insert(last.after_power_loss(&mut Dice::new(seed)).list(Path::new("/d")).unwrap());
        }
        assert!(seen.contains(&vec![OsString::from("f")]));
        assert!(seen.contains(&vec![OsString::from("g")]));
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let (disk, file) = disk();
        disk.set_space(Some(3));
        assert_eq!(file.write_at(&[IoSlice::new(b"12345")], 0).unwrap(), 3);
        let error = file.write_at(&[IoSlice::new(b"45")], 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        file.set_len(1).unwrap();
        assert_eq!(file.write_at(&[IoSlice::new(b"abc")], 1).unwrap(), 2);
    }
}
