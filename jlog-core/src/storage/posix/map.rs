//! Shared memory maps of files.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// A map of a file's first bytes, shared with every process that maps or writes the file.
///
/// Out-of-range arguments panic, as slices do: they are the caller's arithmetic, never input. If
/// another program truncates a mapped file, the next access is a SIGBUS. We map only the metastore,
/// the pre-commit buffer and its guard, which nobody truncates.
#[derive(Debug, Clone)]
pub struct Map {
    inner: Arc<Inner>,
    observer: Option<Arc<dyn MapObserver>>,
}

/// Observes every change of a map, for simulated storage.
pub(crate) trait MapObserver: std::fmt::Debug + Send + Sync {
    /// Bytes are about to change.
    fn before_store(&self);
    /// Called instead of making the bytes durable.
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
            // SAFETY: the bytes can change at any time, as in every shared map. All methods of this
            // type copy, load atomically, or (slice) require the caller to hold the lock under
            // which nobody else writes these bytes.
            Inner::ReadOnly(unsafe { options.map(file)? })
        };
        Ok(Self { inner: Arc::new(inner), observer: None })
    }

    /// Memory instead of a file's.
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
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()), "outside the map");
    }

    fn atomic(&self, offset: usize) -> &AtomicU32 {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4), "unaligned");
        // SAFETY: in range and aligned (maps begin at a page); the memory lives as long as self;
        // AtomicU32 allows changes from elsewhere. The pointer is only written through by `store`,
        // which needs a writable map.
        unsafe { AtomicU32::from_ptr(self.ptr().add(offset).cast_mut().cast()) }
    }

    /// Loads a little-endian number at a multiple of 4.
    pub fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le(self.atomic(offset).load(Ordering::Acquire))
    }

    /// Stores a little-endian number at a multiple of 4; a reader that loads it sees all earlier
    /// writes.
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.about_to_store();
        self.mut_ptr();
        self.atomic(offset).store(value.to_le(), Ordering::Release);
    }

    /// Copies bytes out.
    #[cfg(any(test, feature = "internals"))]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        // SAFETY: in range, and the two do not overlap: `out` is an exclusive borrow of other
        // memory.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr().add(offset), out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.about_to_store();
        self.quietly_write(offset, bytes);
    }

    /// Copies bytes in without notifying the observer.
    pub(crate) fn quietly_write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: in range, and the map's memory is not part of a Rust object, so they do not
        // overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.mut_ptr().add(offset), bytes.len()) }
    }

    /// The bytes in place. The caller holds the lock that keeps others from writing them.
    pub fn slice(&self, offset: usize, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: in range, alive as long as self, initialised by the kernel. The caller's lock
        // keeps the bytes from changing while they are borrowed. A process that ignores the locks
        // could still change them, a risk of every map of a shared file: bytes are plain numbers,
        // and every use of them here is checked as input.
        unsafe { std::slice::from_raw_parts(self.ptr().add(offset), len) }
    }

    /// Makes written bytes durable.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the notifications.
    #[derive(Debug, Default)]
    struct Counting {
        stores: AtomicU32,
        syncs: AtomicU32,
    }

    impl MapObserver for Counting {
        fn before_store(&self) {
            self.stores.fetch_add(1, Ordering::Relaxed);
        }

        fn sync(&self) -> io::Result<()> {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn map(bytes: &[u8]) -> (Map, Arc<Counting>) {
        let observer = Arc::new(Counting::default());
        (Map::anonymous(bytes, Arc::clone(&observer) as Arc<dyn MapObserver>).unwrap(), observer)
    }

    #[test]
    fn bytes_and_numbers_are_read_as_they_are_written() {
        let (map, observer) = map(b"0123456789abcdef0");
        assert_eq!((map.len(), map.is_empty()), (17, false));
        let other = map.clone();
        map.write(3, b"xyz");
        map.store_u32(8, 0x0403_0201);
        map.quietly_write(16, b"!");
        map.write(17, b"");
        assert_eq!(other.slice(0, 17), b"012xyz67\x01\x02\x03\x04cdef!");
        assert_eq!((other.load_u32(8), other.load_u32(12)), (0x0403_0201, u32::from_le_bytes(*b"cdef")));
        let mut there = [0; 5];
        other.read(12, &mut there);
        assert_eq!(&there, b"cdef!");
        assert_eq!(other.slice(17, 0), b"");
        map.sync().unwrap();
        assert_eq!((observer.stores.load(Ordering::Relaxed), observer.syncs.load(Ordering::Relaxed)), (3, 1));
    }

    #[test]
    fn what_is_outside_or_unaligned_is_refused() {
        type Access = fn(&Map);
        let accesses: [Access; 9] = [
            |map| {
                let _ = map.load_u32(2);
            },
            |map| {
                let _ = map.load_u32(16);
            },
            |map| map.store_u32(3, 1),
            |map| map.store_u32(usize::MAX - 3, 1),
            |map| map.write(15, b"12"),
            |map| map.read(usize::MAX, &mut [0; 2]),
            |map| {
                let _ = map.slice(0, 17).len();
            },
            |map| {
                let _ = map.slice(17, 0).len();
            },
            |map| {
                let _ = map.slice(usize::MAX, usize::MAX).len();
            },
        ];
        for (n, access) in accesses.into_iter().enumerate() {
            let (map, _) = map(&[7; 16]);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| access(&map)));
            assert!(outcome.is_err(), "access {n}");
            assert_eq!(map.slice(0, 16), [7; 16]);
        }
    }

    /// A thread that loads a number sees everything written before it was stored.
    #[test]
    fn a_stored_number_publishes_what_was_written_before() {
        let (map, _) = map(&[0; 64]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=5u8 {
                    while map.load_u32(4) != u32::from(n) - 1 {
                        std::thread::yield_now();
                    }
                    map.write(8, &[n; 56]);
                    map.store_u32(0, n.into());
                }
            });
            for n in 1..=5u8 {
                while map.load_u32(0) != u32::from(n) {
                    std::thread::yield_now();
                }
                assert_eq!(map.slice(8, 56), [n; 56]);
                map.store_u32(4, n.into());
            }
        });
    }
}
