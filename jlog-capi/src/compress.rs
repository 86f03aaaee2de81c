//! `jlog_compress` and `jlog_decompress`: the bodies of a compressed jlog.

use std::ffi::{c_char, c_int};
use std::slice;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

const NULL: c_int = 0;
const LZ4: c_int = 1;
/// The maximum size of an LZ4 block in bytes.
const MAX_LZ4: usize = 0x7E00_0000;

/// The provider of this process.
static PROVIDER: AtomicI32 = AtomicI32::new(NULL);

pub(crate) fn choose(provider: c_int) -> bool {
    let known = matches!(provider, NULL | LZ4);
    if known {
        PROVIDER.store(provider, Relaxed);
    }
    known
}

fn bound(provider: c_int, len: usize) -> Option<usize> {
    match provider {
        LZ4 if len > MAX_LZ4 => None,
        LZ4 => Some(lz4_flex::block::get_maximum_output_size(len)),
        _ => Some(len),
    }
}

fn compress(provider: c_int, source: &[u8], dest: &mut [u8]) -> Option<usize> {
    match provider {
        // The encoder requires room for the worst case; the result may need less.
        LZ4 if bound(LZ4, source.len())? > dest.len() => {
            let block = lz4_flex::block::compress(source);
            dest.get_mut(..block.len())?.copy_from_slice(&block);
            Some(block.len())
        }
        LZ4 => lz4_flex::block::compress_into(source, dest).ok(),
        _ => {
            let len = source.len().min(dest.len());
            dest[..len].copy_from_slice(&source[..len]);
            Some(len)
        }
    }
}

fn decompress(provider: c_int, source: &[u8], dest: &mut [u8]) -> Option<usize> {
    match provider {
        LZ4 => lz4_flex::block::decompress_into(source, dest).ok(),
        _ => {
            let len = source.len().min(dest.len());
            dest[..len].copy_from_slice(&source[..len]);
            Some(len)
        }
    }
}

/// The slice of a pointer and a length; `None` if they cannot be one.
///
/// # Safety
/// `from` is NULL or points to `len` bytes, which do not change during the call.
unsafe fn input<'a>(from: *const c_char, len: usize) -> Option<&'a [u8]> {
    match len {
        0 => Some(&[]),
        len if from.is_null() || len > isize::MAX as usize => None,
        // SAFETY: as promised.
        len => Some(unsafe { slice::from_raw_parts(from.cast(), len) }),
    }
}

/// The same for an output buffer. Its bytes are zeroed first, because they may be uninitialised.
///
/// # Safety
/// `to` is NULL or has room for `len` bytes, which nothing else uses during the call.
unsafe fn output<'a>(to: *mut c_char, len: usize) -> Option<&'a mut [u8]> {
    match len {
        0 => Some(&mut []),
        len if to.is_null() || len > isize::MAX as usize => None,
        len => {
            // SAFETY: as promised.
            unsafe {
                to.write_bytes(0, len);
                Some(slice::from_raw_parts_mut(to.cast(), len))
            }
        }
    }
}

/// Sets how [`jlog_compress`] and [`jlog_decompress`] work in this process: 0 without compression
/// (the default), 1 with LZ4. Returns 0, or -1 for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn jlog_set_compression_provider(provider: c_int) -> c_int {
    if choose(provider) { 0 } else { -1 }
}

/// Compresses bytes into `*dest`, which has room for `*dest_bytes`. If that may be too little,
/// `*dest` is set to memory from malloc, which the caller must free. `*dest_bytes` is set to the
/// length. Returns 0 or -1.
///
/// # Safety
/// `source` points to `source_bytes` bytes; `dest` and `dest_bytes` are NULL or point to such
/// values, and `*dest` has room for as many bytes as `*dest_bytes` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_compress(
    source: *const c_char,
    source_bytes: usize,
    dest: *mut *mut c_char,
    dest_bytes: *mut usize,
) -> c_int {
    let provider = PROVIDER.load(Relaxed);
    // SAFETY: as promised.
    unsafe {
        let Some(source) = input(source, source_bytes) else { return -1 };
        if dest.is_null() || dest_bytes.is_null() {
            return -1;
        }
        let Some(needed) = bound(provider, source.len()) else { return -1 };
        let mut room = dest.read_unaligned();
        let own = dest_bytes.read_unaligned() < needed || room.is_null();
        if own {
            room = libc::malloc(needed.max(1)).cast();
            if room.is_null() {
                return -1;
            }
        }
        match output(room, needed).and_then(|room| compress(provider, source, room)) {
            Some(len) => {
                dest.write_unaligned(room);
                dest_bytes.write_unaligned(len);
                0
            }
            None => {
                if own {
                    libc::free(room.cast());
                }
                -1
            }
        }
    }
}

/// Decompresses bytes into `dest`, which has room for `dest_bytes`. Returns 0, or -1 if they do not
/// decompress or do not fit.
///
/// # Safety
/// `source` points to `source_bytes` bytes, `dest` has room for `dest_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_decompress(
    source: *const c_char,
    source_bytes: usize,
    dest: *mut c_char,
    dest_bytes: usize,
) -> c_int {
    let provider = PROVIDER.load(Relaxed);
    // SAFETY: as promised.
    unsafe {
        let (Some(source), Some(room)) = (input(source, source_bytes), output(dest, dest_bytes)) else {
            return -1;
        };
        if decompress(provider, source, room).is_some() { 0 } else { -1 }
    }
}

/// Defines a provider's functions.
macro_rules! provider {
    ($provider:ident, $init:ident, $bound:ident, $compress:ident, $decompress:ident) => {
        /// Does nothing: the provider needs no preparation.
        #[unsafe(no_mangle)]
        pub extern "C" fn $init() {}

        /// The maximum compressed size of this many bytes; 0 if the provider does not accept as
        /// many.
        #[unsafe(no_mangle)]
        pub extern "C" fn $bound(source_size: c_int) -> usize {
            usize::try_from(source_size).ok().and_then(|len| bound($provider, len)).unwrap_or(0)
        }

        /// Compresses. Returns the number of bytes written, or 0 if they do not fit.
        ///
        /// # Safety
        /// `source` points to `source_size` bytes, `dest` has room for `max_dest_size`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $compress(
            source: *const c_char,
            dest: *mut c_char,
            source_size: c_int,
            max_dest_size: c_int,
        ) -> c_int {
            // SAFETY: as promised.
            unsafe { run(source, dest, source_size, max_dest_size, |from, to| compress($provider, from, to)) }
                .unwrap_or(0)
        }

        /// Decompresses. Returns the number of bytes written, or -1 on failure.
        ///
        /// # Safety
        /// `source` points to `compressed_size` bytes, `dest` has room for `max_decompressed_size`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $decompress(
            source: *const c_char,
            dest: *mut c_char,
            compressed_size: c_int,
            max_decompressed_size: c_int,
        ) -> c_int {
            let work = |from: &[u8], to: &mut [u8]| decompress($provider, from, to);
            // SAFETY: as promised.
            unsafe { run(source, dest, compressed_size, max_decompressed_size, work) }.unwrap_or(-1)
        }
    };
}

provider!(
    NULL,
    jlog_null_compression_provider_init,
    jlog_null_compression_provider_compress_bound,
    jlog_null_compression_provider_compress,
    jlog_null_compression_provider_decompress
);
provider!(
    LZ4,
    jlog_lz4_compression_provider_init,
    jlog_lz4_compression_provider_compress_bound,
    jlog_lz4_compression_provider_compress,
    jlog_lz4_compression_provider_decompress
);

/// # Safety
/// `source` points to `source_size` bytes, `dest` has room for `dest_size`.
unsafe fn run(
    source: *const c_char,
    dest: *mut c_char,
    source_size: c_int,
    dest_size: c_int,
    work: impl FnOnce(&[u8], &mut [u8]) -> Option<usize>,
) -> Option<c_int> {
    // SAFETY: as promised.
    let (source, dest) = unsafe {
        (input(source, usize::try_from(source_size).ok()?)?, output(dest, usize::try_from(dest_size).ok()?)?)
    };
    c_int::try_from(work(source, dest)?).ok()
}
