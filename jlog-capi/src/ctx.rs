//! A context, on which every function operates. Several threads may use it at once.

use std::ffi::{CString, OsStr, c_int, c_void};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jlog_core::compat::{ReaderCompat, WriterCompat, WriterOptionsCompat};
use jlog_core::{
    Claim, Compression, Error, Jlog, JlogOptions, Locking, LogId, Reader, ReaderOptions, Safety, Wait,
    Writer, WriterOptions,
};

use crate::abi::{self, Layout, jlog_error_func, jlog_message};
use crate::compress;
use crate::files::{self, jlog_file};
use crate::view::View;

/// Permission bits of new files.
const FILE_MODE: u32 = 0o640;
/// The default size of segments.
const SEGMENT_SIZE: u32 = 4 << 20;
/// The largest segment size.
const MAX_SEGMENT_SIZE: usize = 1 << 30;
/// The largest pre-commit buffer.
const MAX_PRE_COMMIT: usize = 8 << 20;
const PLAIN_MAGIC: u32 = 0x663A_7318;
const COMPRESSED_MAGIC: u32 = 0x1510_6A00;
const METASTORE_LEN: usize = 16;

/// Places in `Layout::pre_init`.
const UNIT_LIMIT: usize = 1;
const SAFETY: usize = 2;
const MAGIC: usize = 3;

/// The kind of a context.
pub(crate) const NEW: u32 = 0;
pub(crate) const INIT: u32 = 1;
pub(crate) const READ: u32 = 2;
pub(crate) const APPEND: u32 = 3;
pub(crate) const INVALID: u32 = 4;

/// How many bytes are read ahead at first. The number doubles each time that all of them were used,
/// up to a limit. The limit fits into the CPU cache, but is large enough that few large messages
/// are cut at its end and read again.
const AHEAD: usize = 64 << 10;
const MAX_AHEAD: usize = 256 << 10;
const MAX_AHEAD_LARGE: usize = 1 << 20;
/// Messages of at least this size, in bytes, are large.
const LARGE: usize = 16 << 10;

/// Stands for no segment.
const NO_SEGMENT: u64 = u64::MAX;

/// An error code with errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: c_int,
    pub(crate) errno: c_int,
}

impl Fault {
    pub(crate) const fn new(code: c_int, errno: c_int) -> Self {
        Self { code, errno }
    }

    /// An error of the engine as this code, with errno if there is one.
    fn of(code: c_int, error: &Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(match error {
            Error::DiskFull { .. } | Error::AtCapacity { .. } => libc::ENOSPC,
            Error::NotAJlog { .. }
            | Error::MetastoreMissing { .. }
            | Error::UnknownSubscriber { .. }
            | Error::NoSuchRecord { .. } => libc::ENOENT,
            Error::AlreadyExists { .. } | Error::SubscriberExists { .. } => libc::EEXIST,
            Error::MessageTooLarge { .. } => libc::EMSGSIZE,
            Error::PreCommitBusy { .. } | Error::WriterBusy { .. } => libc::EBUSY,
            Error::OutOfSegments { .. } => libc::EOVERFLOW,
            Error::Replaced { .. } => libc::ESTALE,
            Error::HardLinked { .. } => libc::EMLINK,
            Error::NotAFile { .. } | Error::OutOfRange { .. } | Error::SubscriberName { .. } => libc::EINVAL,
            _ => libc::EIO,
        });
        Self { code, errno }
    }
}

pub(crate) type Outcome<T> = Result<T, Fault>;

/// The reading side of a context.
struct Reading {
    reader: Reader,
    view: View,
    /// Whether messages were read since the last interval.
    initialized: bool,
    /// The first id of the last interval: a program that reads it will read the next ones.
    expected: LogId,
    /// The id that was read last.
    last: Option<LogId>,
    /// How many bytes are read ahead.
    ahead: usize,
    compressed: bool,
}

/// A context, which begins with the layout that tools know.
#[repr(C)]
pub struct Ctx {
    layout: Layout,
    own: Own,
}

struct Own {
    path: PathBuf,
    /// The string that `Layout::path` points to.
    _c_path: CString,
    hook: Mutex<(jlog_error_func, usize)>,
    /// The segment that `Layout::data` shows.
    shown: AtomicU64,
    /// Held while `Layout::data` is exchanged.
    showing: Mutex<()>,
    log: OnceLock<Jlog>,
    writer: OnceLock<Writer>,
    reading: Mutex<Option<Reading>>,
    /// Keeps the maps alive that `Layout` points to.
    maps: Mutex<Vec<memmap2::Mmap>>,
    /// The string that `Layout::subscriber_name` points to.
    name: OnceLock<CString>,
}

// SAFETY: the raw pointers in it point to memory that it owns itself and never changes through
// them; everything that changes is an atomic number or behind a mutex.
unsafe impl Send for Ctx {}
// SAFETY: as above.
unsafe impl Sync for Ctx {}

/// A panic of another holder has left no harmful state: see each user.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ctx {
    pub(crate) fn new(path: &CString) -> Box<Self> {
        let c_path = path.clone();
        let pre_init = [0, SEGMENT_SIZE, 1, PLAIN_MAGIC];
        let ctx = Box::new(Self {
            layout: Layout::new(c_path.as_ptr(), pre_init, FILE_MODE),
            own: Own {
                path: PathBuf::from(OsStr::from_bytes(c_path.as_bytes())),
                _c_path: c_path,
                hook: Mutex::new((None, 0)),
                shown: AtomicU64::new(NO_SEGMENT),
                showing: Mutex::new(()),
                log: OnceLock::new(),
                writer: OnceLock::new(),
                reading: Mutex::new(None),
                maps: Mutex::new(Vec::new()),
                name: OnceLock::new(),
            },
        });
        ctx.layout.meta.store(ctx.layout.pre_init.as_ptr().cast_mut().cast(), Relaxed);
        ctx
    }

    pub(crate) fn path(&self) -> &Path {
        &self.own.path
    }

    pub(crate) fn mode(&self) -> u32 {
        self.layout.mode.load(Relaxed)
    }

    pub(crate) fn error(&self) -> (c_int, c_int) {
        (self.layout.last_error.load(Relaxed), self.layout.last_errno.load(Relaxed))
    }

    /// Records the outcome of a call.
    pub(crate) fn note(&self, fault: Option<Fault>) {
        self.layout.last_error.store(fault.map_or(abi::SUCCESS, |fault| fault.code), Relaxed);
        if let Some(fault) = fault {
            self.layout.last_errno.store(fault.errno, Relaxed);
            // SAFETY: the location of this thread's errno is always valid.
            unsafe { *libc::__errno_location() = fault.errno };
        }
    }

    /// Reports a failed call to the error function, if there is one.
    pub(crate) fn report_fault(&self, fault: Fault) {
        let (hook, data) = *lock(&self.own.hook);
        let Some(hook) = hook else { return };
        let name = abi::name(fault.code).as_ptr();
        // SAFETY: the caller promised that the function may be called so, and strerror returns a C
        // string for any number.
        unsafe {
            hook(
                data as *mut c_void,
                c"JLOG error: %d (%s) errno: %d (%s)\n".as_ptr(),
                fault.code,
                name,
                fault.errno,
                libc::strerror(fault.errno),
            );
        }
    }

    /// Reports the actions of a repair to the error function.
    pub(crate) fn report_events(&self, events: &[jlog_core::Event]) {
        let (hook, data) = *lock(&self.own.hook);
        let Some(hook) = hook else { return };
        for event in events {
            // A path may have any bytes but a NUL.
            let Ok(text) = CString::new(event.to_string()) else { continue };
            // SAFETY: the caller promised that the function may be called so.
            unsafe { hook(data as *mut c_void, c"JLOG repair: %s\n".as_ptr(), text.as_ptr()) };
        }
    }

    pub(crate) fn set_hook(&self, hook: jlog_error_func, data: *mut c_void) {
        let mut own = lock(&self.own.hook);
        *own = (hook, data as usize);
        self.layout.error_func.store(hook.map_or(ptr::null_mut(), |hook| hook as *mut c_void), Relaxed);
        self.layout.error_ctx.store(data, Relaxed);
    }

    pub(crate) fn set_file_mode(&self, mode: u32) {
        self.layout.file_mode.store(mode & 0o777, Relaxed);
    }

    pub(crate) fn set_multi_process(&self, on: bool) {
        self.layout.multi_process.store(on.into(), Relaxed);
    }

    pub(crate) fn set_pre_commit(&self, bytes: usize) {
        self.layout.desired_pre_commit_buffer_len.store(bytes.min(MAX_PRE_COMMIT), Relaxed);
        self.layout.pre_commit_buffer_size_specified.store(1, Relaxed);
    }

    pub(crate) fn set_compression(&self, on: bool) {
        self.layout.pre_init[MAGIC].store(if on { COMPRESSED_MAGIC | 1 } else { PLAIN_MAGIC }, Relaxed);
        if on {
            compress::choose(1);
        }
    }

    pub(crate) fn set_compression_provider(&self, provider: c_int) -> Outcome<()> {
        let magic = match provider {
            0 => COMPRESSED_MAGIC,
            1 => COMPRESSED_MAGIC | 1,
            _ => return Err(Fault::new(abi::NOT_SUPPORTED, libc::EINVAL)),
        };
        if self.layout.pre_init[MAGIC].load(Relaxed) & COMPRESSED_MAGIC == COMPRESSED_MAGIC {
            self.layout.pre_init[MAGIC].store(magic, Relaxed);
            compress::choose(provider);
        }
        Ok(())
    }

    /// Sets how long the memory of messages stays valid: 0 until the next interval, 1 until the
    /// next call.
    pub(crate) fn set_read_method(&self, method: c_int) -> Outcome<()> {
        if lock(&self.own.reading).as_ref().is_some_and(|reading| reading.initialized) {
            return Err(Fault::new(abi::NOT_SUPPORTED, libc::EBUSY));
        }
        match u32::try_from(method) {
            Ok(method @ 0..=1) => self.layout.read_method.store(method, Relaxed),
            _ => return Err(Fault::new(abi::NOT_SUPPORTED, libc::EINVAL)),
        }
        Ok(())
    }

    pub(crate) fn set_segment_size(&self, size: usize) -> Outcome<()> {
        let refused = Fault::new(abi::CREATE_META, libc::EINVAL);
        let size = u32::try_from(size.min(MAX_SEGMENT_SIZE)).ok().filter(|&size| size > 0).ok_or(refused)?;
        match self.mode() {
            NEW => {
                self.layout.pre_init[UNIT_LIMIT].store(size, Relaxed);
                Ok(())
            }
            APPEND => self.writer()?.set_segment_size(size).map_err(|e| Fault::of(abi::CREATE_META, &e)),
            _ if self.meta_field(UNIT_LIMIT) == size => Ok(()),
            _ => Err(Fault::new(abi::ILLEGAL_WRITE, libc::EPERM)),
        }
    }

    pub(crate) fn set_safety(&self, safety: c_int) -> Outcome<()> {
        let refused = Fault::new(abi::CREATE_META, libc::EINVAL);
        let number = u32::try_from(safety).map_err(|_| refused)?;
        let safety = Safety::from_u32(number).ok_or(refused)?;
        match self.mode() {
            NEW => {
                self.layout.pre_init[SAFETY].store(number, Relaxed);
                Ok(())
            }
            APPEND => self.writer()?.set_safety(safety).map_err(|e| Fault::of(abi::CREATE_META, &e)),
            _ if self.meta_field(SAFETY) == number => Ok(()),
            _ => Err(Fault::new(abi::ILLEGAL_WRITE, libc::EPERM)),
        }
    }

    fn meta_field(&self, field: usize) -> u32 {
        match self.log().and_then(|log| log.meta().map_err(|e| Fault::of(abi::META_OPEN, &e))) {
            Ok(meta) if field == UNIT_LIMIT => meta.segment_size,
            Ok(meta) => meta.safety.to_u32(),
            Err(_) => self.layout.pre_init[field].load(Relaxed),
        }
    }

    fn options(&self) -> JlogOptions {
        Jlog::options().file_mode_under_umask(self.layout.file_mode.load(Relaxed))
    }

    /// Creates the jlog.
    pub(crate) fn init(&self) -> Outcome<()> {
        self.layout.multi_process.store(1, Relaxed);
        if self.path().as_os_str().len() > libc::PATH_MAX as usize - 14 {
            return Err(Fault::new(abi::CREATE_PATHLEN, libc::ENAMETOOLONG));
        }
        if self.mode() != NEW {
            return Err(Fault::new(abi::ILLEGAL_INIT, libc::EINVAL));
        }
        self.layout.mode.store(INIT, Relaxed);
        match std::fs::symlink_metadata(self.path()) {
            Ok(_) => return Err(Fault::new(abi::CREATE_EXISTS, libc::EEXIST)),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Fault::new(abi::CREATE_EXISTS, e.raw_os_error().unwrap_or(libc::EIO)));
            }
            Err(_) => {}
        }
        let [_, size, safety, magic] = &self.layout.pre_init;
        let compression = match magic.load(Relaxed) {
            PLAIN_MAGIC => Compression::None,
            COMPRESSED_MAGIC => Compression::Framed,
            _ => Compression::Lz4,
        };
        let created = self
            .options()
            .segment_size(size.load(Relaxed))
            .safety(Safety::from_u32(safety.load(Relaxed)).unwrap_or_default())
            .compression(compression)
            // As in the C library; `jlog alter --checksums on` enables them.
            .checksums(false)
            .create(self.path());
        match created {
            Ok(log) => {
                let _ = self.own.log.set(log);
                Ok(())
            }
            Err(e @ Error::Io { .. }) if !self.path().exists() => Err(Fault::of(abi::CREATE_MKDIR, &e)),
            Err(e @ Error::AlreadyExists { .. }) => Err(Fault::of(abi::CREATE_EXISTS, &e)),
            Err(e) => Err(Fault::of(abi::CREATE_META, &e)),
        }
    }

    /// The jlog, opened once.
    pub(crate) fn log(&self) -> Outcome<&Jlog> {
        if let Some(log) = self.own.log.get() {
            return Ok(log);
        }
        match std::fs::metadata(self.path()) {
            Err(e) => return Err(Fault::new(abi::OPEN, e.raw_os_error().unwrap_or(libc::EIO))),
            Ok(facts) if !facts.is_dir() => return Err(Fault::new(abi::NOTDIR, libc::ENOTDIR)),
            Ok(_) => {}
        }
        let log = Jlog::options().open(self.path()).map_err(|e| Fault::of(abi::META_OPEN, &e))?;
        Ok(self.own.log.get_or_init(|| log))
    }

    /// Opens the context as a writer or a reader.
    fn begin(&self, mode: u32) -> Outcome<()> {
        self.layout
            .mode
            .compare_exchange(NEW, mode, Relaxed, Relaxed)
            .map(|_| ())
            .map_err(|_| Fault::new(abi::ILLEGAL_OPEN, libc::EINVAL))
    }

    /// A context that could not be opened can only be closed.
    fn opened<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        if outcome.is_err() {
            self.layout.mode.store(INVALID, Relaxed);
        }
        outcome
    }

    pub(crate) fn open_writer(&self) -> Outcome<()> {
        self.begin(APPEND)?;
        self.opened(self.try_open_writer())
    }

    fn try_open_writer(&self) -> Outcome<()> {
        let log = self.log()?;
        // A C program may fork and does not expect threads, so we keep no lock that a thread would
        // have to release.
        let mut options = WriterOptions::default().hold_lock(Duration::ZERO);
        let wanted = self.layout.desired_pre_commit_buffer_len.load(Relaxed);
        let specified = self.layout.pre_commit_buffer_size_specified.load(Relaxed) != 0;
        if let Some(bytes) = u32::try_from(wanted).ok().filter(|_| specified) {
            options = options.pre_commit(bytes);
        }
        let alone = self.layout.multi_process.load(Relaxed) == 0;
        let alone = alone.then(|| log.writer_with(options.locking(Locking::SingleProcess).at_once()));
        let writer = match alone {
            // The program asked to be the only writer, but others write, too. With locks, nothing
            // is lost.
            None | Some(Err(Error::WriterBusy { .. })) => log.writer_with(options),
            Some(other) => other,
        };
        let writer = writer.map_err(|e| match &e {
            Error::PreCommitBusy { .. } => Fault::of(abi::PRE_COMMIT_OPEN, &e),
            Error::WriterBusy { .. } => Fault::of(abi::LOCK, &e),
            Error::Metastore { .. } | Error::OldMetastore { .. } => Fault::of(abi::META_OPEN, &e),
            Error::OutOfRange { .. } => Fault::of(abi::PRE_COMMIT_OPEN, &e),
            Error::Io { path, .. }
            | Error::DiskFull { path, .. }
            | Error::NotAFile { path, .. }
            | Error::HardLinked { path }
                if path.file_name().is_some_and(|name| name == "pre_commit") =>
            {
                Fault::of(abi::PRE_COMMIT_OPEN, &e)
            }
            _ => Fault::of(abi::FILE_OPEN, &e),
        })?;
        let _ = self.own.writer.set(writer);
        self.show_files(true);
        self.wrote();
        Ok(())
    }

    /// Lets tools look at the metastore and the pre-commit buffer.
    fn show_files(&self, buffer: bool) {
        let map = |name: &str| {
            let file = File::open(self.path().join(name)).ok()?;
            // SAFETY: nothing truncates these files, and the bytes are never read as Rust values
            // here.
            unsafe { memmap2::Mmap::map(&file) }.ok()
        };
        let layout = &self.layout;
        let mut maps = lock(&self.own.maps);
        layout.metastore.store(self.open_file("metastore"), Relaxed);
        if let Some(meta) = map("metastore").filter(|map| map.len() >= METASTORE_LEN) {
            layout.meta.store(meta.as_ptr().cast_mut().cast(), Relaxed);
            layout.meta_is_mapped.store(1, Relaxed);
            maps.push(meta);
        }
        if !buffer {
            return;
        }
        layout.pre_commit.store(self.open_file("pre_commit"), Relaxed);
        if let Some(pre_commit) = map("pre_commit").filter(|map| map.len() >= size_of::<u32>()) {
            let range = pre_commit.as_ptr_range();
            layout.pre_commit_pointer.store(range.start.cast_mut().cast(), Relaxed);
            layout.pre_commit_buffer_len.store(pre_commit.len(), Relaxed);
            layout.pre_commit_is_mapped.store(1, Relaxed);
            layout.pre_commit_end.store(range.end.cast_mut().cast(), Relaxed);
            let begin = range.start.wrapping_add(size_of::<u32>());
            layout.pre_commit_buffer.store(begin.cast_mut().cast(), Relaxed);
            maps.push(pre_commit);
        }
    }

    /// A file of the jlog for tools to use; NULL if it cannot be opened.
    fn open_file(&self, name: &str) -> *mut jlog_file {
        let multi = self.layout.multi_process.load(Relaxed) != 0;
        let mode = self.layout.file_mode.load(Relaxed);
        files::open(&self.path().join(name), 0, mode, multi).unwrap_or(ptr::null_mut())
    }

    /// Shows which segment is in use.
    fn uses(&self, segment: u32) {
        self.layout.current_log.store(segment, Relaxed);
        if self.own.shown.load(Relaxed) == u64::from(segment) {
            return;
        }
        let _showing = lock(&self.own.showing);
        if self.own.shown.swap(segment.into(), Relaxed) != u64::from(segment) {
            let fresh = self.open_file(&jlog_core::names::segment(segment));
            close_file(&self.layout.data, fresh);
        }
    }

    /// Shows the writer's position after it has written or flushed.
    fn wrote(&self) {
        let Some(writer) = self.own.writer.get() else { return };
        self.uses(writer.segment());
        let counter: *const AtomicU32 = self.layout.pre_commit_pointer.load(Relaxed).cast_const().cast();
        // SAFETY: it is NULL, or the page-aligned beginning of a map that lives as long as the
        // context.
        if let Some(counter) = unsafe { counter.as_ref() } {
            let begin: *mut u8 = self.layout.pre_commit_buffer.load(Relaxed).cast();
            let pos = begin.wrapping_add(counter.load(Relaxed) as usize);
            self.layout.pre_commit_pos.store(pos.cast(), Relaxed);
        }
    }

    pub(crate) fn open_reader(&self, subscriber: Option<&[u8]>) -> Outcome<()> {
        self.begin(READ)?;
        self.opened(self.try_open_reader(subscriber))
    }

    fn try_open_reader(&self, subscriber: Option<&[u8]>) -> Outcome<()> {
        let log = self.log()?;
        let name = subscriber.ok_or(Fault::new(abi::INVALID_SUBSCRIBER, libc::EINVAL))?;
        // Checkpoints move only when the caller says so. The C library lets any number of contexts
        // read for one subscriber.
        let options = ReaderOptions::default().peek(true).claim(Claim::IfFree);
        let reader = log.reader_with(name, options).map_err(|e| match &e {
            Error::UnknownSubscriber { .. } | Error::SubscriberName { .. } | Error::Checkpoint { .. } => {
                Fault::of(abi::INVALID_SUBSCRIBER, &e)
            }
            _ => Fault::of(abi::META_OPEN, &e),
        })?;
        let format = reader.meta().map_err(|e| Fault::of(abi::META_OPEN, &e))?.format;
        if format.is_lz4() {
            compress::choose(1);
        }
        if let Some(name) = reader.subscriber() {
            let file = self.open_file(&name.checkpoint_file());
            self.layout.checkpoint.store(file, Relaxed);
        }
        if let Ok(name) = CString::new(name) {
            let name = self.own.name.get_or_init(|| name);
            self.layout.subscriber_name.store(name.as_ptr().cast_mut(), Relaxed);
        }
        *lock(&self.own.reading) = Some(Reading {
            reader,
            view: View::new(format.magic(), format.is_lz4()),
            initialized: false,
            expected: LogId::default(),
            last: None,
            ahead: AHEAD,
            compressed: format.is_lz4(),
        });
        self.show_files(false);
        Ok(())
    }

    fn writer(&self) -> Outcome<&Writer> {
        self.own.writer.get().ok_or(Fault::new(abi::ILLEGAL_WRITE, libc::EPERM))
    }

    pub(crate) fn append(&self, time: jlog_core::Timestamp, body: &[u8]) -> Outcome<()> {
        let writer = self.writer()?;
        match writer.append_at(time, body) {
            Ok(_) => {
                self.wrote();
                Ok(())
            }
            Err(e) => Err(Fault::of(abi::FILE_WRITE, &e)),
        }
    }

    pub(crate) fn flush(&self) -> Outcome<()> {
        // Without a buffer, and without a writer, there is nothing to do.
        let Some(writer) = self.own.writer.get() else { return Ok(()) };
        writer.flush().map_err(|e| Fault::of(abi::FILE_WRITE, &e))?;
        self.wrote();
        Ok(())
    }

    fn reading<T>(&self, work: impl FnOnce(&mut Reading) -> Outcome<T>) -> Outcome<T> {
        match &mut *lock(&self.own.reading) {
            Some(reading) => work(reading),
            None => Err(Fault::new(abi::ILLEGAL_WRITE, libc::EPERM)),
        }
    }

    /// The interval of messages to read, and their number.
    pub(crate) fn interval(&self) -> Outcome<(LogId, LogId, c_int)> {
        self.reading(|reading| {
            let stored =
                reading.reader.stored_checkpoint().map_err(|e| Fault::of(abi::INVALID_SUBSCRIBER, &e))?;
            let (here, last) = reading.reader.next_after(stored).map_err(|e| reading_fault(&e))?;
            if here != stored {
                // It is equivalent to the stored checkpoint, so on a disk that cannot be written,
                // that one stays.
                let _ = reading.reader.store_checkpoint(here);
            }
            // A program that did not use all of the read-ahead will not do so in the next interval
            // either.
            if reading
                .view
                .next()
                .is_some_and(|next| reading.last.is_none_or(|last| next.marker != last.marker + 1))
            {
                reading.ahead = AHEAD;
            }
            reading.view.clear();
            self.initialized(reading, false);
            let count = last.marker.saturating_sub(here.marker);
            let first = if count > 0 { LogId::new(here.segment, here.marker + 1) } else { here };
            reading.expected = first;
            self.uses(last.segment);
            Ok((first, last, c_int::try_from(count).unwrap_or(c_int::MAX)))
        })
    }

    /// Reads messages from `id` on into `out`.
    pub(crate) fn read(&self, id: LogId, out: &mut [MaybeUninit<jlog_message>]) -> Outcome<()> {
        self.reading(|reading| {
            if id.marker == 0 {
                return Err(Fault::new(abi::ILLEGAL_LOGID, libc::EINVAL));
            }
            // The C library keeps uncompressed messages, which it maps, until the next interval or
            // segment, and all others until the next call.
            let stays = reading.stays(self);
            if stays && out.len() == 1 && reading.view.fill(id, out) == 1 {
                reading.last = Some(id);
                return Ok(());
            }
            if !stays || reading.view.segment().is_some_and(|segment| segment != id.segment) {
                reading.keep_ahead(id);
            }
            self.uses(id.segment);
            let many = out.len() > 1;
            let mut at = id;
            let mut done = 0;
            while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
                let mut filled = reading.view.fill(at, rest);
                if filled == 0 {
                    reading.load(at, many, stays).map_err(|fault| match fault.code {
                        // There are fewer than requested.
                        abi::ILLEGAL_LOGID | abi::CLOSE_LOGID if done > 0 => {
                            Fault::new(abi::IDX_CORRUPT, fault.errno)
                        }
                        _ => fault,
                    })?;
                    self.initialized(reading, true);
                    filled = reading.view.fill(at, rest);
                }
                let past = Fault::new(abi::ILLEGAL_LOGID, libc::EINVAL);
                if filled == 0 {
                    return Err(past);
                }
                done += filled;
                let filled = u32::try_from(filled).map_err(|_| past)?;
                reading.last = Some(LogId::new(at.segment, at.marker + (filled - 1)));
                if done < out.len() {
                    at.marker = at.marker.checked_add(filled).ok_or(past)?;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn store_checkpoint(&self, id: LogId) -> Outcome<()> {
        if self.mode() != READ {
            return Err(Fault::new(abi::ILLEGAL_CHECKPOINT, libc::EPERM));
        }
        self.reading(|reading| {
            reading.reader.store_checkpoint(id).map_err(|e| Fault::of(abi::CHECKPOINT, &e))
        })
    }

    /// The last record.
    pub(crate) fn last_id(&self) -> Outcome<LogId> {
        let id = self.reading(|reading| {
            let storage_log = reading.reader.meta().map_err(|e| Fault::of(abi::META_OPEN, &e))?.storage_log;
            let position = reading.reader.position();
            // Updates the index as well.
            let last =
                reading.reader.next_after(LogId::new(storage_log, 0)).map_err(|e| reading_fault(&e))?.1;
            reading.reader.seek(position).map_err(|e| reading_fault(&e))?;
            Ok(last)
        })?;
        let segment = self.path().join(jlog_core::names::segment(id.segment));
        match std::fs::metadata(segment) {
            Ok(_) => Ok(id),
            Err(e) => Err(Fault::new(abi::FILE_OPEN, e.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    pub(crate) fn storage_log(&self) -> Outcome<u32> {
        self.reading(|reading| {
            Ok(reading.reader.meta().map_err(|e| Fault::of(abi::META_OPEN, &e))?.storage_log)
        })
    }

    /// Where the messages after `id` are.
    pub(crate) fn next_after(&self, id: LogId) -> Outcome<(LogId, LogId)> {
        self.reading(|reading| reading.reader.next_after(id).map_err(|e| reading_fault(&e)))
    }

    pub(crate) fn checkpoint_of(&self, subscriber: Option<&[u8]>) -> Outcome<LogId> {
        let own = lock(&self.own.reading)
            .as_ref()
            .filter(|reading| {
                let own = reading.reader.subscriber().map(jlog_core::SubscriberName::as_bytes);
                subscriber.is_none_or(|name| Some(name) == own)
            })
            .map(|reading| reading.reader.stored_checkpoint());
        let id = match (own, subscriber) {
            (Some(id), _) => id,
            (None, Some(name)) => self.log()?.checkpoint(name),
            (None, None) => return Err(Fault::new(abi::INVALID_SUBSCRIBER, libc::EINVAL)),
        };
        id.map_err(|e| Fault::of(abi::INVALID_SUBSCRIBER, &e))
    }

    /// Forgets the messages in memory: repair may have moved them.
    pub(crate) fn forget_view(&self) {
        if let Some(reading) = &mut *lock(&self.own.reading) {
            reading.view.clear();
            self.initialized(reading, true);
        }
    }

    /// Records whether messages were read since the last interval.
    fn initialized(&self, reading: &mut Reading, yes: bool) {
        reading.initialized = yes;
        self.layout.reader_is_initialized.store(yes.into(), Relaxed);
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        let layout = &self.layout;
        for file in [&layout.data, &layout.checkpoint, &layout.metastore, &layout.pre_commit] {
            close_file(file, ptr::null_mut());
        }
    }
}

/// Shows another file in place of one, which is closed.
fn close_file(shown: &AtomicPtr<jlog_file>, fresh: *mut jlog_file) {
    let old = shown.swap(fresh, Relaxed);
    if !old.is_null() {
        // SAFETY: the context opened it, and no longer shows it.
        unsafe { files::close(old) };
    }
}

impl Reading {
    /// Whether messages stay in memory until the next interval.
    fn stays(&self, ctx: &Ctx) -> bool {
        ctx.layout.read_method.load(Relaxed) == 0 && !self.compressed
    }

    /// Forgets the messages in memory, except those that were read ahead from `id` on.
    fn keep_ahead(&mut self, id: LogId) {
        self.view.keep_only(id);
    }

    /// Reads the message into memory, with the following ones if they are likely to be requested.
    fn load(&mut self, id: LogId, many: bool, stays: bool) -> Outcome<()> {
        let before = LogId::new(id.segment, id.marker - 1);
        let sequential =
            many || id == self.expected || self.view.next() == Some(id) || self.last == Some(before);
        if !sequential {
            return match self.reader.read(id) {
                Ok(message) => {
                    self.view.add_one(message);
                    Ok(())
                }
                Err(e) => Err(self.fault(id, &e)),
            };
        }
        if self.reader.position() != before
            && let Err(e) = self.reader.seek(before)
        {
            return Err(self.fault(id, &e));
        }
        self.reader.set_batch_bytes(self.ahead);
        let (first, count) = match self.reader.next_batch(Wait::No) {
            Ok(Some(batch)) if batch.first_id() == id => (batch.first_id(), batch.len()),
            Ok(_) => {
                let e = self.reader.read(id).err();
                return Err(e.map_or(Fault::new(abi::ILLEGAL_LOGID, libc::EINVAL), |e| self.fault(id, &e)));
            }
            Err(e) => return Err(self.fault(id, &e)),
        };
        let bytes = self.reader.take_batch(self.view.spare());
        let large = stays && bytes.len() / count.max(1) >= LARGE;
        self.ahead = (2 * self.ahead).min(if large { MAX_AHEAD_LARGE } else { MAX_AHEAD });
        self.view.add_batch(first, u32::try_from(count).unwrap_or(u32::MAX), bytes);
        Ok(())
    }

    /// Why a message cannot be read.
    fn fault(&mut self, id: LogId, error: &Error) -> Fault {
        let Error::NoSuchRecord { path, .. } = error else { return reading_fault(error) };
        if let Err(e) = std::fs::metadata(path.join(jlog_core::names::segment(id.segment))) {
            return Fault::new(abi::FILE_OPEN, e.raw_os_error().unwrap_or(libc::EIO));
        }
        // After the last message of a complete segment comes the end of its index.
        let complete = self.reader.meta().is_ok_and(|meta| id.segment < meta.storage_log);
        if complete && id.marker > 1 && self.reader.read(LogId::new(id.segment, id.marker - 1)).is_ok() {
            return Fault::new(abi::CLOSE_LOGID, 0);
        }
        Fault::new(abi::ILLEGAL_LOGID, libc::EINVAL)
    }
}

/// The error code that a C reader gets for an error while reading.
fn reading_fault(error: &Error) -> Fault {
    let code = match error {
        Error::NoSuchRecord { .. } => abi::ILLEGAL_LOGID,
        Error::Metastore { .. } | Error::NotAJlog { .. } | Error::MetastoreMissing { .. } => abi::META_OPEN,
        _ if error.is_damage() => abi::FILE_CORRUPT,
        _ => abi::FILE_READ,
    };
    Fault::of(code, error)
}
