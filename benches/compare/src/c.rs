//! The C library, loaded at run time: the only unsafe code in this program.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use libloading::Library;

use crate::work::{Load, Tally};

/// `jlog_ctx`, which is opaque here.
#[repr(C)]
struct Ctx {
    _private: [u8; 0],
}

/// `jlog_id`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Id {
    log: u32,
    marker: u32,
}

/// `jlog_message_header_compressed`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    reserved: u32,
    tv_sec: u32,
    tv_usec: u32,
    mlen: u32,
    compressed_len: u32,
}

/// `jlog_message`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    header: *mut Header,
    mess_len: u32,
    mess: *mut c_void,
    aligned_header: Header,
}

const EMPTY: Message = Message {
    header: std::ptr::null_mut(),
    mess_len: 0,
    mess: std::ptr::null_mut(),
    aligned_header: Header { reserved: 0, tv_sec: 0, tv_usec: 0, mlen: 0, compressed_len: 0 },
};

macro_rules! api {
    ($($name:ident: fn($($arg:ty),*) -> $ret:ty;)*) => {
        /// The library's functions.
        pub struct Api {
            $($name: unsafe extern "C" fn($($arg),*) -> $ret,)*
            /// Keeps the library loaded.
            _library: Library,
        }

        impl Api {
            /// Loads the library.
            pub fn load(path: &Path) -> Result<Self> {
                // SAFETY: libjlog has no initializers that run when it is loaded.
                let library = unsafe { Library::new(path) }
                    .with_context(|| format!("loading {}", path.display()))?;
                $(
                    // SAFETY: the type is the one that jlog.h declares for the function of this
                    // name, and the pointer is kept next to the library.
                    let $name = *unsafe {
                        library.get::<unsafe extern "C" fn($($arg),*) -> $ret>(stringify!($name))
                    }?;
                )*
                Ok(Self { $($name,)* _library: library })
            }
        }
    };
}

api! {
    jlog_new: fn(*const c_char) -> *mut Ctx;
    jlog_ctx_init: fn(*mut Ctx) -> c_int;
    jlog_ctx_close: fn(*mut Ctx) -> c_int;
    jlog_ctx_err_string: fn(*mut Ctx) -> *const c_char;
    jlog_ctx_alter_journal_size: fn(*mut Ctx, usize) -> c_int;
    jlog_ctx_set_use_compression: fn(*mut Ctx, u8) -> c_int;
    jlog_ctx_set_multi_process: fn(*mut Ctx, u8) -> c_int;
    jlog_ctx_set_pre_commit_buffer_size: fn(*mut Ctx, usize) -> c_int;
    jlog_ctx_open_writer: fn(*mut Ctx) -> c_int;
    jlog_ctx_open_reader: fn(*mut Ctx, *const c_char) -> c_int;
    jlog_ctx_write: fn(*mut Ctx, *const c_void, usize) -> c_int;
    jlog_ctx_read_interval: fn(*mut Ctx, *mut Id, *mut Id) -> c_int;
    jlog_ctx_read_message: fn(*mut Ctx, *const Id, *mut Message) -> c_int;
    jlog_ctx_bulk_read_messages: fn(*mut Ctx, *const Id, c_int, *mut Message) -> c_int;
    jlog_ctx_read_checkpoint: fn(*mut Ctx, *const Id) -> c_int;
}

/// How a jlog is created and written with the C library.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Whether other processes may also write.
    pub multi: bool,
    /// Size of the pre-commit buffer; 0 for none.
    pub pre_commit: usize,
    /// Whether bodies are compressed.
    pub lz4: bool,
    /// Segment size.
    pub segment: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { multi: true, pre_commit: 0, lz4: false, segment: 4 << 20 }
    }
}

/// An open context.
struct Handle<'a> {
    api: &'a Api,
    ctx: NonNull<Ctx>,
}

impl<'a> Handle<'a> {
    fn new(api: &'a Api, path: &Path) -> Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path is a C string; the library copies it.
        let ctx = unsafe { (api.jlog_new)(path.as_ptr()) };
        Ok(Self { api, ctx: NonNull::new(ctx).context("jlog_new")? })
    }

    fn ctx(&self) -> *mut Ctx {
        self.ctx.as_ptr()
    }

    fn check(&self, what: &str, code: c_int) -> Result<c_int> {
        if code >= 0 {
            return Ok(code);
        }
        // SAFETY: the context is open, and the strings that this returns are constants.
        let why = unsafe { CStr::from_ptr((self.api.jlog_ctx_err_string)(self.ctx())) };
        bail!("{what}: {}", why.to_string_lossy())
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: the context is open, and nobody uses it after this.
        unsafe { (self.api.jlog_ctx_close)(self.ctx()) };
    }
}

/// Creates a jlog.
pub fn create(api: &Api, path: &Path, setup: &Setup) -> Result<()> {
    let handle = Handle::new(api, path)?;
    // SAFETY: the context is new, as these functions require.
    let code = unsafe {
        (api.jlog_ctx_alter_journal_size)(handle.ctx(), setup.segment);
        (api.jlog_ctx_set_use_compression)(handle.ctx(), u8::from(setup.lz4));
        (api.jlog_ctx_init)(handle.ctx())
    };
    handle.check("jlog_ctx_init", code)?;
    Ok(())
}

/// A writer.
pub struct Writer<'a>(Handle<'a>);

// SAFETY: `jlog_ctx_write` may be called from several threads with one context: it holds the
// context's mutex while it uses what they share. (Only the error code is set outside of it.)
unsafe impl Sync for Writer<'_> {}

impl<'a> Writer<'a> {
    /// Opens an existing jlog for writing.
    pub fn open(api: &'a Api, path: &Path, setup: &Setup) -> Result<Self> {
        let handle = Handle::new(api, path)?;
        // SAFETY: the context is new, as these functions require.
        let code = unsafe {
            (api.jlog_ctx_set_multi_process)(handle.ctx(), u8::from(setup.multi));
            (api.jlog_ctx_set_pre_commit_buffer_size)(handle.ctx(), setup.pre_commit);
            (api.jlog_ctx_open_writer)(handle.ctx())
        };
        handle.check("jlog_ctx_open_writer", code)?;
        Ok(Self(handle))
    }

    /// Appends a message.
    #[inline]
    pub fn append(&self, body: &[u8]) -> Result<()> {
        // SAFETY: the context is open for writing; the library only reads the body, during the
        // call.
        let code =
            unsafe { (self.0.api.jlog_ctx_write)(self.0.ctx(), body.as_ptr().cast::<c_void>(), body.len()) };
        if code == 0 { Ok(()) } else { self.0.check("jlog_ctx_write", code).map(|_| ()) }
    }

    /// Flushes, syncs the last segment, and closes.
    pub fn close(self) {}
}

/// Appends the load's messages one by one, and closes.
pub fn append(api: &Api, path: &Path, setup: &Setup, load: &Load) -> Result<f64> {
    create(api, path, setup)?;
    let writer = Writer::open(api, path, setup)?;
    load.timed(|| {
        load.each(|body| writer.append(body))?;
        writer.close();
        Ok(())
    })
}

/// How many messages one call of the bulk read requests.
const BULK: usize = 1000;

/// Reads everything that is pending for a subscriber as the library's own tools do: interval by
/// interval, with a checkpoint after each; in bulk, or message by message. `count` counts each
/// message.
pub fn read(
    api: &Api,
    path: &Path,
    subscriber: &str,
    bulk: bool,
    mut count: impl FnMut(&mut Tally, &[u8]),
) -> Result<Tally> {
    let handle = Handle::new(api, path)?;
    let subscriber = CString::new(subscriber)?;
    // SAFETY: the context is new; the library copies the name.
    let code = unsafe { (api.jlog_ctx_open_reader)(handle.ctx(), subscriber.as_ptr()) };
    handle.check("jlog_ctx_open_reader", code)?;
    let mut tally = Tally::default();
    let mut messages = vec![EMPTY; BULK];
    loop {
        let (mut first, mut last) = (Id::default(), Id::default());
        // SAFETY: the context is open for reading, and the ids are there to be written to.
        let code = unsafe { (api.jlog_ctx_read_interval)(handle.ctx(), &raw mut first, &raw mut last) };
        let messages_there = handle.check("jlog_ctx_read_interval", code)?;
        if messages_there == 0 {
            return Ok(tally);
        }
        let mut left = usize::try_from(messages_there)?;
        let mut next = first;
        while left > 0 {
            let n = if bulk { left.min(BULK) } else { 1 };
            let code = if bulk {
                // SAFETY: the context is open for reading, and there is room for `n` messages.
                unsafe {
                    (api.jlog_ctx_bulk_read_messages)(
                        handle.ctx(),
                        &raw const next,
                        c_int::try_from(n)?,
                        messages.as_mut_ptr(),
                    )
                }
            } else {
                // SAFETY: the context is open for reading, and there is room for a message.
                unsafe { (api.jlog_ctx_read_message)(handle.ctx(), &raw const next, messages.as_mut_ptr()) }
            };
            handle.check("reading", code)?;
            for message in &messages[..n] {
                // SAFETY: the call succeeded, so each message has its address and length set; the
                // bytes stay in the library's mapping or buffer until the next call.
                let body = unsafe {
                    std::slice::from_raw_parts(message.mess.cast::<u8>(), message.mess_len as usize)
                };
                count(&mut tally, body);
            }
            next.marker += u32::try_from(n)?;
            left -= n;
        }
        // SAFETY: the context is open for reading.
        let code = unsafe { (api.jlog_ctx_read_checkpoint)(handle.ctx(), &raw const last) };
        handle.check("jlog_ctx_read_checkpoint", code)?;
    }
}
