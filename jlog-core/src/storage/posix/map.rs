//! Shared memory maps of files.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// A map of a file's first bytes, shared with every process that maps or writes the file.
///
/// Out-of-range arguments panic, as slices do: they are the caller's arithmetic, never input.
/// A file that another program cuts short while it is mapped makes the next access a SIGBUS; we map only
/// the metastore, the pre-commit buffer and its guard, which nobody cuts.
#[derive(Debug, Clone)]
pub struct Map {
    inner: Arc<Inner>,
    observer: Option<Arc<dyn MapObserver>>,
}

/// Told of what is done to a map, for simulated storage.
pub(crate) trait MapObserver: std::fmt::Debug + Send + Sync {
    /// Bytes are about to change.
    fn before_store(&self);
    /// In place of making the bytes durable.
    fn sync(&self) -> io::Result<()>;
}

#[derive(Debug)]
enum Inner {
    Writable(MmapRaw),
    ReadOnly(memmap2::Mmap),
}

impl Map {
    pub(crate) fn of_file(file: &File, len: usize, writable: bool) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(len);
        let inner = if writable {
            Inner::Writable(options.map_raw(file)?)
        } else {
            // SAFETY: the bytes can change under us, as in every shared map. All of this type's methods
            // copy, load atomically, or (slice) leave it to the caller to hold the lock under which
            // nobody else writes these bytes.
            Inner::ReadOnly(unsafe { options.map(file)? })
        };
        Ok(Self { inner: Arc::new(inner), observer: None })
    }

    /// Memory that stands for a file's.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn anonymous(bytes: &[u8], observer: Arc<dyn MapObserver>) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes.len()).map_anon()?;
        let map = Self { inner: Arc::new(Inner::Writable(map.into())), observer: None };
        map.write(0, bytes);
        Ok(Self { observer: Some(observer), ..map })
    }

    fn about_to_store(&self) {
        if let Some(observer) = &self.observer {
            observer.before_store();
        }
    }

    fn ptr(&self) -> *const u8 {
        match &*self.inner {
            Inner::Writable(map) => map.as_ptr(),
            Inner::ReadOnly(map) => map.as_ptr(),
        }
    }

    fn mut_ptr(&self) -> *mut u8 {
        match &*self.inner {
            Inner::Writable(map) => map.as_mut_ptr(),
            Inner::ReadOnly(_) => panic!("write to a read-only map"),
        }
    }

    /// How many bytes are mapped.
    pub fn len(&self) -> usize {
        match &*self.inner {
            Inner::Writable(map) => map.len(),
            Inner::ReadOnly(map) => map.len(),
        }
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()), "outside of the map");
    }

    fn atomic(&self, offset: usize) -> &AtomicU32 {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4), "unaligned");
        // SAFETY: in range and aligned (maps begin at a page); the memory lives as long as self; AtomicU32
        // allows changes from elsewhere. The pointer is only written through by `store`, which needs a
        // writable map.
        unsafe { AtomicU32::from_ptr(self.ptr().add(offset).cast_mut().cast()) }
    }

    /// Loads a little-endian number at a multiple of 4.
    pub fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le(self.atomic(offset).load(Ordering::Acquire))
    }

    /// Stores a little-endian number at a multiple of 4; what was written before is seen by whoever loads it.
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.about_to_store();
        self.mut_ptr();
        self.atomic(offset).store(value.to_le(), Ordering::Release);
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        // SAFETY: in range, and the two do not overlap: `out` is an exclusive borrow of other memory.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr().add(offset), out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.about_to_store();
        self.quietly_write(offset, bytes);
    }

    /// Copies bytes in without telling anybody.
    pub(crate) fn quietly_write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: in range, and the map's memory is no part of a Rust object, so that they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.mut_ptr().add(offset), bytes.len()) }
    }

    /// The bytes in place. The caller holds the lock under which nobody else writes them.
    pub fn slice(&self, offset: usize, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: in range, alive as long as self, initialised by the kernel. That the bytes do not change
        // while borrowed is what the caller's lock gives; a process that ignores the locks could change
        // them, which every map of a shared file has to live with: bytes are plain numbers, and every use
        // of them here is checked as input.
        unsafe { std::slice::from_raw_parts(self.ptr().add(offset), len) }
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        if let Some(observer) = &self.observer {
            return observer.sync();
        }
        match &*self.inner {
            Inner::Writable(map) => map.flush(),
            Inner::ReadOnly(_) => Ok(()),
        }
    }
}
