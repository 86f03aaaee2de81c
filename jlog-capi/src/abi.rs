//! The binary interface of C programs: types, numbers, names. Layouts and values are those of
//! libjlog 2.x.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize};

use crate::files::jlog_file;

/// Declares the error codes with their names.
macro_rules! errors {
    ($($code:ident = $number:literal),* $(,)?) => {
        $(
            #[doc = concat!("The error code ", stringify!($number), ".")]
            pub const $code: c_int = $number;
        )*

        /// The name of an error code.
        pub(crate) fn name(code: c_int) -> &'static CStr {
            match code {
                // The names contain no NUL except the one that ends them.
                $($code => {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(
                        concat!("JLOG_ERR_", stringify!($code), "\0").as_bytes(),
                    ) {
                        Ok(name) => name,
                        Err(_) => c"Unknown",
                    };
                    NAME
                })*
                _ => c"Unknown",
            }
        }
    };
}

errors! {
    SUCCESS = 0,
    ILLEGAL_INIT = 1,
    ILLEGAL_OPEN = 2,
    OPEN = 3,
    NOTDIR = 4,
    CREATE_PATHLEN = 5,
    CREATE_EXISTS = 6,
    CREATE_MKDIR = 7,
    CREATE_META = 8,
    CREATE_PRE_COMMIT = 9,
    LOCK = 10,
    IDX_OPEN = 11,
    IDX_SEEK = 12,
    IDX_CORRUPT = 13,
    IDX_WRITE = 14,
    IDX_READ = 15,
    FILE_OPEN = 16,
    FILE_SEEK = 17,
    FILE_CORRUPT = 18,
    FILE_READ = 19,
    FILE_WRITE = 20,
    META_OPEN = 21,
    PRE_COMMIT_OPEN = 22,
    ILLEGAL_WRITE = 23,
    ILLEGAL_CHECKPOINT = 24,
    INVALID_SUBSCRIBER = 25,
    ILLEGAL_LOGID = 26,
    SUBSCRIBER_EXISTS = 27,
    CHECKPOINT = 28,
    NOT_SUPPORTED = 29,
    CLOSE_LOGID = 30,
}

/// An id: segment and marker.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct jlog_id {
    /// Number of the segment.
    pub log: u32,
    /// Place in the segment, from 1.
    pub marker: u32,
}

/// A record's header, as on disk. In a jlog that is not compressed, the last field is also the
/// body's length.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct jlog_message_header_compressed {
    /// The header magic.
    pub reserved: u32,
    /// Seconds since 1970.
    pub tv_sec: u32,
    /// Microseconds.
    pub tv_usec: u32,
    /// Length of the message.
    pub mlen: u32,
    /// Length of the body on disk.
    pub compressed_len: u32,
}

/// A message to write, or one that was read.
#[repr(C)]
#[derive(Debug)]
pub struct jlog_message {
    /// Points to `aligned_header` in a message that was read.
    pub header: *mut jlog_message_header_compressed,
    /// Length of the message.
    pub mess_len: u32,
    /// The message.
    pub mess: *mut c_void,
    /// A copy of the header.
    pub aligned_header: jlog_message_header_compressed,
}

/// The error function. It is called with the pointer that was given to `jlog_set_error_func`, a
/// printf format, and its values.
pub type jlog_error_func = Option<unsafe extern "C" fn(data: *mut c_void, format: *const c_char, ...)>;

/// A context, as seen by programs that include `jlog_private.h`, with the offsets of libjlog 2.6 on
/// x86-64. Programs only read it. Every field is initialised; those that this library does not use
/// stay 0.
#[repr(C)]
#[derive(Debug)]
pub struct Layout {
    /// 0: the 16 bytes of the metastore.
    pub(crate) meta: AtomicPtr<c_void>,
    write_lock: [u64; 5],
    pub(crate) read_method: AtomicU32,
    pub(crate) meta_is_mapped: AtomicU32,
    pub(crate) pre_commit_is_mapped: AtomicU32,
    pub(crate) multi_process: AtomicU8,
    pub(crate) pre_commit_buffer_size_specified: AtomicU8,
    /// 64: the beginning of the pre-commit buffer, the end of its contents, and its end.
    pub(crate) pre_commit_buffer: AtomicPtr<c_void>,
    pub(crate) pre_commit_pos: AtomicPtr<c_void>,
    pub(crate) pre_commit_end: AtomicPtr<c_void>,
    /// 88: bytes of the whole pre-commit file.
    pub(crate) pre_commit_buffer_len: AtomicUsize,
    pub(crate) desired_pre_commit_buffer_len: AtomicUsize,
    /// 104: the pre-commit file, mapped.
    pub(crate) pre_commit_pointer: AtomicPtr<c_void>,
    /// 112: the segment being written, segment size, safety and header magic of a context that is
    /// not open.
    pub(crate) pre_init: [AtomicU32; 4],
    /// 128: the kind of the context.
    pub(crate) mode: AtomicU32,
    /// 136: the path.
    pub(crate) path: *const c_char,
    /// 144: permission bits of new files.
    pub(crate) file_mode: AtomicU32,
    /// 148: number of the segment in use.
    pub(crate) current_log: AtomicU32,
    /// 152: that segment.
    pub(crate) data: AtomicPtr<jlog_file>,
    index: *mut jlog_file,
    /// 168: a reader's checkpoint.
    pub(crate) checkpoint: AtomicPtr<jlog_file>,
    /// 176: the metastore and the pre-commit buffer of a context that is open.
    pub(crate) metastore: AtomicPtr<jlog_file>,
    pub(crate) pre_commit: AtomicPtr<jlog_file>,
    mmap_base: *mut c_void,
    mmap_len: usize,
    data_file_size: usize,
    /// 216: whether messages were read since the last interval.
    pub(crate) reader_is_initialized: AtomicU8,
    compressed_data_buffer: *mut c_void,
    compressed_data_buffer_len: usize,
    /// 240: a reader's subscriber.
    pub(crate) subscriber_name: AtomicPtr<c_char>,
    /// 248: the error code of the last call, and errno of the last one that failed.
    pub(crate) last_error: AtomicI32,
    pub(crate) last_errno: AtomicI32,
    /// 256: the error function.
    pub(crate) error_func: AtomicPtr<c_void>,
    pub(crate) error_ctx: AtomicPtr<c_void>,
    mess_data_size: usize,
    mess_data: *mut c_char,
}

impl Layout {
    pub(crate) fn new(path: *const c_char, pre_init: [u32; 4], file_mode: u32) -> Self {
        Self {
            meta: AtomicPtr::default(),
            write_lock: [0; 5],
            read_method: AtomicU32::new(0),
            meta_is_mapped: AtomicU32::new(0),
            pre_commit_is_mapped: AtomicU32::new(0),
            multi_process: AtomicU8::new(1),
            pre_commit_buffer_size_specified: AtomicU8::new(0),
            pre_commit_buffer: AtomicPtr::default(),
            pre_commit_pos: AtomicPtr::default(),
            pre_commit_end: AtomicPtr::default(),
            pre_commit_buffer_len: AtomicUsize::new(0),
            desired_pre_commit_buffer_len: AtomicUsize::new(0),
            pre_commit_pointer: AtomicPtr::default(),
            pre_init: pre_init.map(AtomicU32::new),
            mode: AtomicU32::new(0),
            path,
            file_mode: AtomicU32::new(file_mode),
            current_log: AtomicU32::new(0),
            data: AtomicPtr::default(),
            index: ptr::null_mut(),
            checkpoint: AtomicPtr::default(),
            metastore: AtomicPtr::default(),
            pre_commit: AtomicPtr::default(),
            mmap_base: ptr::null_mut(),
            mmap_len: 0,
            data_file_size: 0,
            reader_is_initialized: AtomicU8::new(0),
            compressed_data_buffer: ptr::null_mut(),
            compressed_data_buffer_len: 0,
            subscriber_name: AtomicPtr::default(),
            last_error: AtomicI32::new(0),
            last_errno: AtomicI32::new(0),
            error_func: AtomicPtr::default(),
            error_ctx: AtomicPtr::default(),
            mess_data_size: 0,
            mess_data: ptr::null_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn layouts_are_those_of_the_c_library() {
        assert_eq!(size_of::<jlog_id>(), 8);
        assert_eq!(size_of::<jlog_message_header_compressed>(), 20);
        assert_eq!(size_of::<jlog_message>(), 48);
        assert_eq!(offset_of!(jlog_message, mess_len), 8);
        assert_eq!(offset_of!(jlog_message, mess), 16);
        assert_eq!(offset_of!(jlog_message, aligned_header), 24);
        assert_eq!(offset_of!(Layout, meta), 0);
        assert_eq!(offset_of!(Layout, read_method), 48);
        assert_eq!(offset_of!(Layout, pre_commit_buffer_len), 88);
        assert_eq!(offset_of!(Layout, pre_commit_pointer), 104);
        assert_eq!(offset_of!(Layout, pre_init), 112);
        assert_eq!(offset_of!(Layout, mode), 128);
        assert_eq!(offset_of!(Layout, path), 136);
        assert_eq!(offset_of!(Layout, file_mode), 144);
        assert_eq!(offset_of!(Layout, current_log), 148);
        assert_eq!(offset_of!(Layout, data), 152);
        assert_eq!(offset_of!(Layout, checkpoint), 168);
        assert_eq!(offset_of!(Layout, reader_is_initialized), 216);
        assert_eq!(offset_of!(Layout, subscriber_name), 240);
        assert_eq!(offset_of!(Layout, last_error), 248);
        assert_eq!(offset_of!(Layout, error_func), 256);
        assert_eq!(size_of::<Layout>(), 288);
    }

    #[test]
    fn codes_have_their_names() {
        assert_eq!(name(SUCCESS), c"JLOG_ERR_SUCCESS");
        assert_eq!(name(PRE_COMMIT_OPEN), c"JLOG_ERR_PRE_COMMIT_OPEN");
        assert_eq!(name(CLOSE_LOGID), c"JLOG_ERR_CLOSE_LOGID");
        assert_eq!(name(31), c"Unknown");
        assert_eq!(name(-1), c"Unknown");
    }
}
