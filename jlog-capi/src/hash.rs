//! `jlog_hash_*`: a table of pointers with keys of bytes, in the memory of the C program. The table
//! and its buckets have the layout in `jlog_hash.h`, so that programs may read them. All memory
//! comes from malloc.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::slice;

/// Called with a key or a value that is removed from the table.
pub type JLogHashFreeFunc = Option<unsafe extern "C" fn(*mut c_void)>;

/// A key with its value, and the next bucket in the same list.
#[repr(C)]
pub struct jlog_hash_bucket {
    k: *const c_char,
    klen: c_int,
    data: *mut c_void,
    next: *mut jlog_hash_bucket,
}

/// Lists of buckets: each key is in the list that its hash chooses.
#[repr(C)]
pub struct jlog_hash_table {
    buckets: *mut *mut jlog_hash_bucket,
    table_size: u32,
    initval: u32,
    num_used_buckets: u32,
    size: u32,
    /// The lowest bit: the table does not resize.
    flags: u32,
}

/// The position of an iteration over a table.
#[repr(C)]
pub struct jlog_hash_iter {
    p2: *mut c_void,
    p1: c_int,
}

const INITIAL_SIZE: u32 = 128;

/// The bytes of a key.
///
/// # Safety
/// `key` is NULL or points to `len` bytes that stay as they are.
unsafe fn bytes<'a>(key: *const c_char, len: c_int) -> &'a [u8] {
    match usize::try_from(len) {
        // SAFETY: as promised.
        Ok(len @ 1..) if !key.is_null() => unsafe { slice::from_raw_parts(key.cast(), len) },
        _ => &[],
    }
}

/// FNV-1a, with its bits mixed once more so that the low ones depend on all.
fn hash(key: &[u8], start: u32) -> u32 {
    let sum =
        key.iter().fold(0x811c_9dc5 ^ start, |sum, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (sum ^ sum >> 15).wrapping_mul(0x2c1b_3c6d) ^ sum >> 13
}

impl jlog_hash_table {
    /// Allocates the lists, if there are none yet; `false` if there is no memory.
    fn prepare(&mut self) -> bool {
        if self.table_size == 0 || self.buckets.is_null() {
            // SAFETY: memory for this many pointers, all NULL.
            self.buckets =
                unsafe { libc::calloc(INITIAL_SIZE as usize, size_of::<*mut jlog_hash_bucket>()) }.cast();
            self.table_size = if self.buckets.is_null() { 0 } else { INITIAL_SIZE };
        }
        self.table_size > 0
    }

    /// The lists.
    ///
    /// # Safety
    /// The table is as this module has made it.
    unsafe fn lists(&mut self) -> &mut [*mut jlog_hash_bucket] {
        if self.buckets.is_null() {
            return &mut [];
        }
        // SAFETY: there are this many.
        unsafe { slice::from_raw_parts_mut(self.buckets, self.table_size as usize) }
    }

    fn list_of(&self, key: &[u8]) -> usize {
        (hash(key, self.initval) % self.table_size.max(1)) as usize
    }

    /// The address of the pointer to a key's bucket, or of the NULL at the end of its list.
    ///
    /// # Safety
    /// As [`jlog_hash_table::lists`]; keys in the table are still where they were.
    unsafe fn find(&mut self, key: &[u8]) -> Option<*mut *mut jlog_hash_bucket> {
        let list = self.list_of(key);
        // SAFETY: as promised; every bucket of a list is alive, and the last one's `next` is NULL.
        unsafe {
            let mut at: *mut *mut jlog_hash_bucket = self.lists().get_mut(list)?;
            while !(*at).is_null() && bytes((**at).k, (**at).klen) != key {
                at = &raw mut (**at).next;
            }
            Some(at)
        }
    }

    /// Takes a bucket out of its list.
    ///
    /// # Safety
    /// `at` came from [`jlog_hash_table::find`], and is not NULL there; the functions are NULL or
    /// take what is given to them.
    unsafe fn remove(
        &mut self,
        at: *mut *mut jlog_hash_bucket,
        keyfree: JLogHashFreeFunc,
        datafree: JLogHashFreeFunc,
    ) {
        // SAFETY: as promised; the bucket came from malloc.
        unsafe {
            let bucket = *at;
            let list = self.list_of(bytes((*bucket).k, (*bucket).klen));
            *at = (*bucket).next;
            free_bucket(bucket, keyfree, datafree);
            self.size = self.size.saturating_sub(1);
            if self.lists()[list].is_null() {
                self.num_used_buckets = self.num_used_buckets.saturating_sub(1);
            }
        }
    }

    /// Puts a bucket at the head of its list.
    ///
    /// # Safety
    /// As [`jlog_hash_table::lists`]; the bucket is in no list.
    unsafe fn insert(&mut self, bucket: *mut jlog_hash_bucket) {
        // SAFETY: as promised.
        unsafe {
            let list = self.list_of(bytes((*bucket).k, (*bucket).klen));
            let head = &mut self.lists()[list];
            let first = head.is_null();
            (*bucket).next = *head;
            *head = bucket;
            self.num_used_buckets += u32::from(first);
            self.size += 1;
        }
    }

    /// Gives the table this many lists; without memory for them it stays unchanged.
    ///
    /// # Safety
    /// As [`jlog_hash_table::lists`].
    unsafe fn resize(&mut self, lists: u32) {
        if self.flags & 1 != 0 || !lists.is_power_of_two() || !self.prepare() {
            return;
        }
        // SAFETY: as promised; every bucket moves from one list to another.
        unsafe {
            let fresh: *mut *mut jlog_hash_bucket =
                libc::calloc(lists as usize, size_of::<*mut jlog_hash_bucket>()).cast();
            if fresh.is_null() {
                return;
            }
            let (old, count) = (self.buckets, self.table_size as usize);
            let size = self.size;
            (self.buckets, self.table_size) = (fresh, lists);
            (self.num_used_buckets, self.size) = (0, 0);
            for &first in slice::from_raw_parts(old, count) {
                let mut bucket = first;
                while !bucket.is_null() {
                    let next = (*bucket).next;
                    self.insert(bucket);
                    bucket = next;
                }
            }
            self.size = size;
            libc::free(old.cast());
        }
    }

    /// # Safety
    /// As [`jlog_hash_table::lists`].
    unsafe fn grow(&mut self) {
        if self.size > self.table_size - self.table_size / 8 {
            // SAFETY: as promised.
            unsafe { self.resize(self.table_size.saturating_mul(2)) }
        }
    }
}

/// # Safety
/// The bucket came from [`jlog_hash__new_bucket`] and is in no list; the functions are NULL or take
/// what they are given.
unsafe fn free_bucket(bucket: *mut jlog_hash_bucket, keyfree: JLogHashFreeFunc, datafree: JLogHashFreeFunc) {
    // SAFETY: as promised.
    unsafe {
        let (key, data) = ((*bucket).k, (*bucket).data);
        libc::free(bucket.cast());
        if let Some(keyfree) = keyfree {
            keyfree(key.cast_mut().cast());
        }
        if let Some(datafree) = datafree.filter(|_| !data.is_null()) {
            datafree(data);
        }
    }
}

/// Makes a table empty, whatever it was.
///
/// # Safety
/// `h` is NULL or room for a table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_init(h: *mut jlog_hash_table) {
    if h.is_null() {
        return;
    }
    let mut table = jlog_hash_table {
        buckets: ptr::null_mut(),
        table_size: 0,
        // Two tables do not put the same keys into the same lists.
        initval: u32::try_from(h as usize >> 4 & 0xffff_ffff).unwrap_or(0),
        num_used_buckets: 0,
        size: 0,
        flags: 0,
    };
    table.prepare();
    // SAFETY: as promised.
    unsafe { h.write(table) };
}

/// Adds a key. Returns 1, or 0 if it exists already or there is no memory.
///
/// # Safety
/// `h` is NULL or a table; `k` points to `klen` bytes that stay as they are while they are in the
/// table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_store(
    h: *mut jlog_hash_table,
    k: *const c_char,
    klen: c_int,
    data: *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let Some(table) = h.as_mut().filter(|_| klen >= 0) else { return 0 };
        if !table.prepare() {
            return 0;
        }
        match table.find(bytes(k, klen)) {
            Some(at) if (*at).is_null() => {}
            _ => return 0,
        }
        let bucket = jlog_hash__new_bucket(k, klen, data);
        if bucket.is_null() {
            return 0;
        }
        table.insert(bucket);
        table.grow();
    }
    1
}

/// Adds a key, or replaces an existing one, which is passed to the functions. Returns 1, or 0 if
/// there is no memory.
///
/// # Safety
/// As [`jlog_hash_store`]; the functions are NULL or take keys and values of the table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_replace(
    h: *mut jlog_hash_table,
    k: *const c_char,
    klen: c_int,
    data: *mut c_void,
    keyfree: JLogHashFreeFunc,
    datafree: JLogHashFreeFunc,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let Some(table) = h.as_mut().filter(|_| klen >= 0) else { return 0 };
        if !table.prepare() {
            return 0;
        }
        let bucket = jlog_hash__new_bucket(k, klen, data);
        if bucket.is_null() {
            return 0;
        }
        if let Some(at) = table.find(bytes(k, klen)).filter(|&at| !(*at).is_null()) {
            table.remove(at, keyfree, datafree);
        }
        table.insert(bucket);
        table.grow();
    }
    1
}

/// Looks up a key. Returns 1, with its value in `*data` unless `data` is NULL; or 0.
///
/// # Safety
/// `h` is NULL or a table, `k` points to `klen` bytes, `data` is NULL or room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_retrieve(
    h: *mut jlog_hash_table,
    k: *const c_char,
    klen: c_int,
    data: *mut *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let Some(table) = h.as_mut() else { return 0 };
        let Some(at) = table.find(bytes(k, klen)).filter(|&at| !(*at).is_null()) else { return 0 };
        crate::put(data, (**at).data);
    }
    1
}

/// Removes a key. Returns 1, or 0 if it does not exist.
///
/// # Safety
/// As [`jlog_hash_replace`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_delete(
    h: *mut jlog_hash_table,
    k: *const c_char,
    klen: c_int,
    keyfree: JLogHashFreeFunc,
    datafree: JLogHashFreeFunc,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let Some(table) = h.as_mut() else { return 0 };
        let Some(at) = table.find(bytes(k, klen)).filter(|&at| !(*at).is_null()) else { return 0 };
        table.remove(at, keyfree, datafree);
        if table.table_size > INITIAL_SIZE && table.size < table.table_size / 4 {
            table.resize(table.table_size / 2);
        }
    }
    1
}

/// Removes every key.
///
/// # Safety
/// As [`jlog_hash_replace`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_delete_all(
    h: *mut jlog_hash_table,
    keyfree: JLogHashFreeFunc,
    datafree: JLogHashFreeFunc,
) {
    // SAFETY: as promised.
    unsafe {
        let Some(table) = h.as_mut().filter(|table| !table.buckets.is_null()) else { return };
        for list in table.lists() {
            let mut bucket = std::mem::replace(list, ptr::null_mut());
            while !bucket.is_null() {
                let next = (*bucket).next;
                free_bucket(bucket, keyfree, datafree);
                bucket = next;
            }
        }
        (table.size, table.num_used_buckets) = (0, 0);
        table.resize(INITIAL_SIZE);
    }
}

/// Removes every key and frees the table's memory. The table is empty afterwards, and can be used
/// again.
///
/// # Safety
/// As [`jlog_hash_replace`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_destroy(
    h: *mut jlog_hash_table,
    keyfree: JLogHashFreeFunc,
    datafree: JLogHashFreeFunc,
) {
    // SAFETY: as promised; the lists came from malloc.
    unsafe {
        jlog_hash_delete_all(h, keyfree, datafree);
        let Some(table) = h.as_mut() else { return };
        libc::free(table.buckets.cast());
        (table.buckets, table.table_size) = (ptr::null_mut(), 0);
    }
}

/// Gets the next key of an iteration. Returns 1, or 0 after the last one. The table must not change
/// during the iteration.
///
/// # Safety
/// `h` is NULL or a table, `iter` is NULL or an iteration over it, the others are NULL or room for
/// such values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_next(
    h: *mut jlog_hash_table,
    iter: *mut jlog_hash_iter,
    k: *mut *const c_char,
    klen: *mut c_int,
    data: *mut *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let (Some(table), Some(iter)) = (h.as_mut(), iter.as_mut()) else { return 0 };
        let lists = table.lists();
        let mut bucket: *mut jlog_hash_bucket = iter.p2.cast();
        while bucket.is_null() {
            let list = usize::try_from(iter.p1).ok().and_then(|list| lists.get(list));
            let Some(&first) = list else { return 0 };
            bucket = first;
            if bucket.is_null() {
                iter.p1 += 1;
            }
        }
        crate::put(k, (*bucket).k);
        crate::put(klen, (*bucket).klen);
        crate::put(data, (*bucket).data);
        iter.p2 = (*bucket).next.cast();
        if iter.p2.is_null() {
            iter.p1 += 1;
        }
    }
    1
}

/// Gets the first key. Returns 1, or 0 if there is none.
///
/// # Safety
/// `h` is NULL or a table, the others are NULL or room for such values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_firstkey(
    h: *mut jlog_hash_table,
    k: *mut *const c_char,
    klen: *mut c_int,
) -> c_int {
    let mut iter = jlog_hash_iter { p2: ptr::null_mut(), p1: 0 };
    // SAFETY: as promised.
    unsafe { jlog_hash_next(h, &raw mut iter, k, klen, ptr::null_mut()) }
}

/// Gets the key after `lk`. Returns 1, or 0 if `lk` is the last one or does not exist.
///
/// # Safety
/// `h` is NULL or a table, `lk` points to `lklen` bytes, the others are NULL or room for such
/// values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash_nextkey(
    h: *mut jlog_hash_table,
    k: *mut *const c_char,
    klen: *mut c_int,
    lk: *const c_char,
    lklen: c_int,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let Some(table) = h.as_mut() else { return 0 };
        let key = bytes(lk, lklen);
        let Some(at) = table.find(key).filter(|&at| !(*at).is_null()) else { return 0 };
        let next = (**at).next;
        let list = c_int::try_from(table.list_of(key)).unwrap_or(c_int::MAX);
        let p1 = if next.is_null() { list.saturating_add(1) } else { list };
        let mut iter = jlog_hash_iter { p2: next.cast(), p1 };
        jlog_hash_next(h, &raw mut iter, k, klen, ptr::null_mut())
    }
}

/// The hash of a key.
///
/// # Safety
/// `k` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash__hash(k: *const c_char, length: u32, initval: u32) -> u32 {
    // SAFETY: as promised.
    hash(unsafe { bytes(k, c_int::try_from(length).unwrap_or(c_int::MAX)) }, initval)
}

/// A new bucket that is in no table; NULL if there is no memory. Free it with free.
///
/// # Safety
/// None: the pointers are not dereferenced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash__new_bucket(
    k: *const c_char,
    klen: c_int,
    data: *mut c_void,
) -> *mut jlog_hash_bucket {
    // SAFETY: memory for a bucket.
    unsafe {
        let bucket: *mut jlog_hash_bucket = libc::calloc(1, size_of::<jlog_hash_bucket>()).cast();
        if !bucket.is_null() {
            bucket.write(jlog_hash_bucket { k, klen, data, next: ptr::null_mut() });
        }
        bucket
    }
}

/// Resizes a table to this many lists, a power of 2.
///
/// # Safety
/// `h` is NULL or a table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_hash__rebucket(h: *mut jlog_hash_table, newsize: c_int) {
    // SAFETY: as promised.
    unsafe {
        if let (Some(table), Ok(lists)) = (h.as_mut(), u32::try_from(newsize)) {
            table.resize(lists);
        }
    }
}
