//! libjlog.so.2: the C interface of jlog. C programs built for libjlog 2.x run on it unchanged.
//! README.md is the guide; `examples/hello.c` is a complete program.
//!
//! The functions have the names, results, error codes and states of that library (see
//! `include/jlog.h`). Several threads may use a context at once. Every pointer is checked for NULL.
//! No panic leaves the library: it becomes the error `NOT_SUPPORTED`.
//!
//! Intended differences: no accepted message is lost; a second pre-commit writer is refused
//! (`PRE_COMMIT_OPEN`); an invalid metastore is refused (`META_OPEN`), not overwritten; reading
//! works on a full disk; `jlog_clean` never removes the segment being written; repair keeps what it
//! takes out; a NUL byte follows every message that is handed out, and messages are in the
//! library's own memory, which stays valid if another program truncates the segment.
//!
//! The crate has no features.

// The names are those of the C library.
#![allow(non_camel_case_types)]

mod abi;
mod compress;
mod ctx;
mod files;
mod hash;
mod inspect;
mod view;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

use jlog_core::compat::JlogCompat;
use jlog_core::{CleanOptions, Error, Jlog, LogId, Start, SubscriberName, Timestamp};

pub use abi::{Layout, jlog_error_func, jlog_id, jlog_message, jlog_message_header_compressed};
pub use compress::*;
use ctx::{Fault, Outcome};
pub use files::*;
pub use hash::*;

/// A context.
pub type jlog_ctx = ctx::Ctx;

impl From<LogId> for jlog_id {
    fn from(id: LogId) -> Self {
        Self { log: id.segment, marker: id.marker }
    }
}

impl From<jlog_id> for LogId {
    fn from(id: jlog_id) -> Self {
        Self::new(id.log, id.marker)
    }
}

/// The error of a call that panicked.
const PANIC: Fault = Fault::new(abi::NOT_SUPPORTED, libc::EFAULT);
/// The error of a pointer that must not be NULL.
const NULL: Fault = Fault::new(abi::NOT_SUPPORTED, libc::EINVAL);

/// Runs a call on a context, records its outcome, and returns its result or `failed`.
///
/// # Safety
/// `ctx` is NULL, or came from `jlog_new` and was not closed.
unsafe fn call<R>(ctx: *mut jlog_ctx, failed: R, work: impl FnOnce(&jlog_ctx) -> Outcome<R>) -> R {
    // SAFETY: as promised.
    unsafe { call_reporting(ctx, failed, |_| true, work) }
}

/// As [`call`], but the error function gets only those errors that the C library also reports.
///
/// # Safety
/// As [`call`].
unsafe fn call_reporting<R>(
    ctx: *mut jlog_ctx,
    failed: R,
    reports: impl FnOnce(c_int) -> bool,
    work: impl FnOnce(&jlog_ctx) -> Outcome<R>,
) -> R {
    // SAFETY: as promised; the context is only ever shared.
    let Some(ctx) = (unsafe { ctx.as_ref() }) else { return failed };
    match catch_unwind(AssertUnwindSafe(|| work(ctx))).unwrap_or(Err(PANIC)) {
        Ok(result) => {
            ctx.note(None);
            result
        }
        Err(fault) => {
            ctx.note(Some(fault));
            let silent = matches!(
                fault.code,
                abi::ILLEGAL_OPEN | abi::ILLEGAL_INIT | abi::ILLEGAL_CHECKPOINT | abi::SUBSCRIBER_EXISTS
            );
            if !silent && reports(fault.code) {
                ctx.report_fault(fault);
            }
            failed
        }
    }
}

/// The same for calls that do not set an error code.
///
/// # Safety
/// As [`call`].
unsafe fn quiet<R>(ctx: *mut jlog_ctx, failed: R, work: impl FnOnce(&jlog_ctx) -> Option<R>) -> R {
    // SAFETY: as promised.
    let Some(ctx) = (unsafe { ctx.as_ref() }) else { return failed };
    catch_unwind(AssertUnwindSafe(|| work(ctx))).ok().flatten().unwrap_or(failed)
}

/// The error that the C library reports if a context is of the wrong kind for a call.
fn but_illegal_writes(code: c_int) -> bool {
    code != abi::ILLEGAL_WRITE
}

/// The bytes of a C string.
///
/// # Safety
/// `text` is NULL, or ends with a NUL and does not change during the call.
unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: as promised.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// The value that a pointer points to.
///
/// # Safety
/// The pointer is NULL, or points to such a value.
unsafe fn read<T: Copy>(from: *const T) -> Outcome<T> {
    // SAFETY: as promised; it need not be aligned.
    if from.is_null() { Err(NULL) } else { Ok(unsafe { from.read_unaligned() }) }
}

/// Stores a value at a pointer, unless that is NULL.
///
/// # Safety
/// The pointer is NULL, or there is room for such a value.
unsafe fn put<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: as promised; it need not be aligned.
        unsafe { to.write_unaligned(value) };
    }
}

fn name_fault(error: &Error) -> Fault {
    let errno = match error {
        Error::SubscriberExists { .. } => return Fault::new(abi::SUBSCRIBER_EXISTS, libc::EEXIST),
        Error::UnknownSubscriber { .. } => return Fault::new(abi::INVALID_SUBSCRIBER, libc::ENOENT),
        Error::SubscriberName(wrong) if wrong.name().len() > SubscriberName::MAX_LEN => libc::ENAMETOOLONG,
        Error::SubscriberName { .. } => libc::EINVAL,
        other => other.raw_os_error().unwrap_or(libc::EIO),
    };
    Fault::new(abi::OPEN, errno)
}

/// Makes a context for the jlog at `path`, which is copied. Fails only for NULL, or if there is no
/// memory. Free the context with [`jlog_ctx_close`].
///
/// # Safety
/// `path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_new(path: *const c_char) -> *mut jlog_ctx {
    // SAFETY: as promised.
    let Some(path) = (unsafe { bytes(path) }) else { return ptr::null_mut() };
    let Ok(path) = CString::new(path) else { return ptr::null_mut() };
    catch_unwind(|| Box::into_raw(jlog_ctx::new(&path))).unwrap_or(ptr::null_mut())
}

/// Closes a context: flushes its writer's buffer, and frees all messages that were read with it.
/// Returns 0, or -1 for NULL. Messages that cannot be flushed stay in the pre-commit buffer for the
/// next writer.
///
/// # Safety
/// `ctx` is NULL, or came from [`jlog_new`], was not closed, and is not in use elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_close(ctx: *mut jlog_ctx) -> c_int {
    if ctx.is_null() {
        return -1;
    }
    // SAFETY: it was made by `Box::into_raw`, and nothing else refers to it.
    let ctx = unsafe { Box::from_raw(ctx) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(ctx)));
    0
}

/// The name of an error code; `Unknown` for any other number. Valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn jlog_err_string(code: c_int) -> *const c_char {
    abi::name(code).as_ptr()
}

/// The error code of the last call on this context.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_err(ctx: *mut jlog_ctx) -> c_int {
    // SAFETY: as promised.
    unsafe { quiet(ctx, abi::NOT_SUPPORTED, |ctx| Some(ctx.error().0)) }
}

/// The errno of the last failed call on this context.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_errno(ctx: *mut jlog_ctx) -> c_int {
    // SAFETY: as promised.
    unsafe { quiet(ctx, libc::EINVAL, |ctx| Some(ctx.error().1)) }
}

/// The name of the error code of the last call on this context. Valid forever.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_err_string(ctx: *mut jlog_ctx) -> *const c_char {
    // SAFETY: as promised.
    jlog_err_string(unsafe { jlog_ctx_err(ctx) })
}

/// Reports every error of this context to `func`, with `data` as its first argument; NULL stops the
/// reports. `data` must be valid as long as the context is used.
///
/// # Safety
/// `ctx` is NULL or a context; `func` is NULL or can be called as its type says, from any thread
/// that uses the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_set_error_func(ctx: *mut jlog_ctx, func: jlog_error_func, data: *mut c_void) {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, (), |ctx| {
            ctx.set_hook(func, data);
            Some(())
        });
    }
}

/// The total bytes of all files in the jlog's directory; 0 if it cannot be listed.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_raw_size(ctx: *mut jlog_ctx) -> usize {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, 0, |ctx| {
            let files = std::fs::read_dir(ctx.path()).ok()?.filter_map(|entry| entry.ok()?.metadata().ok());
            let bytes: u64 = files.filter(|facts| facts.is_file()).map(|facts| facts.len()).sum();
            usize::try_from(bytes).ok()
        })
    }
}

/// Creates the jlog with the context's settings. Its path must not exist. Returns 0 or -1.
/// Afterwards, the context can only be used to manage subscribers.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_init(ctx: *mut jlog_ctx) -> c_int {
    // SAFETY: as promised.
    unsafe { call(ctx, -1, |ctx| ctx.init().map(|()| 0)) }
}

/// Makes the context a writer. Returns 0 or -1; after a failure, the context can only be closed.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_open_writer(ctx: *mut jlog_ctx) -> c_int {
    // SAFETY: as promised.
    unsafe { call(ctx, -1, |ctx| ctx.open_writer().map(|()| 0)) }
}

/// Makes the context a reader for an existing subscriber. Returns 0 or -1; after a failure, the
/// context can only be closed.
///
/// # Safety
/// `ctx` is NULL or a context, `subscriber` NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_open_reader(ctx: *mut jlog_ctx, subscriber: *const c_char) -> c_int {
    // SAFETY: as promised.
    unsafe { call(ctx, -1, |ctx| ctx.open_reader(bytes(subscriber)).map(|()| 0)) }
}

/// Sets the permission bits of files that are made from now on. Returns 0.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_alter_mode(ctx: *mut jlog_ctx, mode: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            ctx.set_file_mode(u32::try_from(mode).ok()?);
            Some(0)
        })
    }
}

/// Sets the size in bytes at which segments end (1 to 1 GiB; more counts as 1 GiB), for a jlog to
/// be created or, on a writer, from now on. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_alter_journal_size(ctx: *mut jlog_ctx, size: usize) -> c_int {
    // SAFETY: as promised.
    unsafe { call_reporting(ctx, -1, but_illegal_writes, |ctx| ctx.set_segment_size(size).map(|()| 0)) }
}

/// Sets when metastore and checkpoints are synced (0 never, 1 when the kernel writes back, 2 at
/// every change), for a jlog to be created or, on a writer, from now on. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_alter_safety(ctx: *mut jlog_ctx, safety: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe { call_reporting(ctx, -1, but_illegal_writes, |ctx| ctx.set_safety(safety).map(|()| 0)) }
}

/// Sets how long messages stay in memory: 0, until the next interval or another segment; 1, until
/// the next call. Returns 0, or -1 between reading messages and the next interval.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_alter_read_method(ctx: *mut jlog_ctx, method: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe { quiet(ctx, -1, |ctx| ctx.set_read_method(method).ok().map(|()| 0)) }
}

/// Sets whether others may write as well (by default they may). If not, other writers of this
/// library are refused; this has no effect if there already are others. Returns 0.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_set_multi_process(ctx: *mut jlog_ctx, on: u8) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            ctx.set_multi_process(on != 0);
            Some(0)
        })
    }
}

/// Sets whether a jlog to be created is compressed (with LZ4). Returns 0.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_set_use_compression(ctx: *mut jlog_ctx, on: u8) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            ctx.set_compression(on != 0);
            Some(0)
        })
    }
}

/// Sets how a compressed jlog to be created is compressed: 0 not at all, 1 with LZ4. Returns 0, or
/// -1 for any other number.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_set_compression_provider(ctx: *mut jlog_ctx, provider: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe { call(ctx, -1, |ctx| ctx.set_compression_provider(provider).map(|()| 0)) }
}

/// Sets the size of the writer's pre-commit buffer in bytes (up to 8 MiB; more counts as 8 MiB).
/// Returns 0.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_set_pre_commit_buffer_size(ctx: *mut jlog_ctx, bytes: usize) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            ctx.set_pre_commit(bytes);
            Some(0)
        })
    }
}

/// Makes buffered messages readable. Returns 0 or -1; 0 if there is no buffer.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_flush_pre_commit_buffer(ctx: *mut jlog_ctx) -> c_int {
    // SAFETY: as promised.
    unsafe { call(ctx, -1, |ctx| ctx.flush().map(|()| 0)) }
}

/// Adds a subscriber, at the beginning (0) or the end (1). Returns 0 or -1. The context need not be
/// open.
///
/// # Safety
/// `ctx` is NULL or a context, `subscriber` NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_add_subscriber(
    ctx: *mut jlog_ctx,
    subscriber: *const c_char,
    whence: c_int,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let name = bytes(subscriber).ok_or(NULL)?;
            let start = match whence {
                0 => Start::Beginning,
                1 => Start::End,
                _ => return Err(Fault::new(abi::NOT_SUPPORTED, libc::EINVAL)),
            };
            ctx.log()?.subscribe(name, start).map(|_| 0).map_err(|e| name_fault(&e))
        })
    }
}

/// Gives a subscriber the checkpoint of another, adding it if it is new. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, the names NULL or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_add_subscriber_copy_checkpoint(
    ctx: *mut jlog_ctx,
    new: *const c_char,
    old: *const c_char,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            let (new, old) = (bytes(new)?, bytes(old)?);
            let id = ctx.checkpoint_of(Some(old)).ok()?;
            ctx.log().ok()?.store_checkpoint(new, id).ok()?;
            Some(0)
        })
    }
}

/// Sets a subscriber's checkpoint, adding it if it is new. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, `subscriber` NULL or a C string, `checkpoint` NULL or an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_set_subscriber_checkpoint(
    ctx: *mut jlog_ctx,
    subscriber: *const c_char,
    checkpoint: *const jlog_id,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let name = bytes(subscriber).ok_or(NULL)?;
            let id = read(checkpoint)?.into();
            let log = ctx.log()?;
            log.store_checkpoint(name, id).map(|()| 0).map_err(|e| name_fault(&e))
        })
    }
}

/// Removes a subscriber. Returns 1 if it existed, 0 if it did not, -1 if it cannot be removed.
///
/// # Safety
/// `ctx` is NULL or a context, `subscriber` NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_remove_subscriber(ctx: *mut jlog_ctx, subscriber: *const c_char) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            let removed = bytes(subscriber)
                .ok_or(NULL)
                .and_then(|name| ctx.log()?.unsubscribe(name).map_err(|e| name_fault(&e)));
            match removed {
                Ok(true) => {
                    ctx.note(None);
                    Some(1)
                }
                Ok(false) => {
                    ctx.note(Some(Fault::new(abi::INVALID_SUBSCRIBER, libc::ENOENT)));
                    Some(0)
                }
                Err(fault) => {
                    ctx.note(Some(fault));
                    None
                }
            }
        })
    }
}

/// Sets `*subs` to a list of the subscribers' names, ended by a NULL. Returns their number, or -1.
/// Free the list with [`jlog_ctx_list_subscribers_dispose`].
///
/// # Safety
/// `ctx` is NULL or a context, `subs` NULL or room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_list_subscribers(ctx: *mut jlog_ctx, subs: *mut *mut *mut c_char) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            if subs.is_null() {
                return None;
            }
            let names = ctx.log().ok()?.subscribers().ok()?;
            let list: *mut *mut c_char = libc::calloc(names.len() + 1, size_of::<*mut c_char>()).cast();
            if list.is_null() {
                return None;
            }
            for (at, name) in names.iter().enumerate() {
                // A name has no NUL inside; the list ends at a name for which there is no memory.
                let name = CString::new(name.as_bytes()).ok()?;
                list.add(at).write(libc::strdup(name.as_ptr()));
            }
            put(subs, list);
            c_int::try_from(names.len()).ok()
        })
    }
}

/// Frees a list of subscribers. Returns 0.
///
/// # Safety
/// `subs` is NULL or came from [`jlog_ctx_list_subscribers`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_list_subscribers_dispose(
    _ctx: *mut jlog_ctx,
    subs: *mut *mut c_char,
) -> c_int {
    if !subs.is_null() {
        let mut at = subs;
        // SAFETY: the list ends with a NULL, and list and names came from malloc.
        unsafe {
            while !(*at).is_null() {
                libc::free((*at).cast());
                at = at.add(1);
            }
            libc::free(subs.cast());
        }
    }
    0
}

/// Gets a subscriber's checkpoint; the name NULL means a reader's own. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, `subscriber` NULL or a C string, `id` NULL or room for an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_get_checkpoint(
    ctx: *mut jlog_ctx,
    subscriber: *const c_char,
    id: *mut jlog_id,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            let checkpoint = ctx.checkpoint_of(bytes(subscriber)).ok()?;
            put(id, checkpoint.into());
            Some(0)
        })
    }
}

/// Appends a message with the current time; the data is copied. Returns 0 or -1. Threads may share
/// a context.
///
/// # Safety
/// `ctx` is NULL or a context, `data` points to `len` bytes (or is NULL, and `len` is 0).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_write(ctx: *mut jlog_ctx, data: *const c_void, len: usize) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call_reporting(ctx, -1, but_illegal_writes, |ctx| {
            ctx.append(Timestamp::now(), message(data, len)?).map(|()| 0)
        })
    }
}

/// Appends a message with a given time, or with the current time; the data is copied. Returns 0 or
/// -1. Threads may share a context.
///
/// # Safety
/// `ctx` is NULL or a context, `msg` NULL or a message whose `mess` points to `mess_len` bytes,
/// `when` NULL or a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_write_message(
    ctx: *mut jlog_ctx,
    msg: *mut jlog_message,
    when: *const libc::timeval,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call_reporting(ctx, -1, but_illegal_writes, |ctx| {
            let Some(msg) = msg.as_ref() else { return Err(NULL) };
            let time = match when.as_ref() {
                // The format holds 32 bits; the C library drops the rest as well.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                Some(when) => Timestamp { seconds: when.tv_sec as u32, micros: when.tv_usec as u32 },
                None => Timestamp::now(),
            };
            ctx.append(time, message(msg.mess, msg.mess_len as usize)?).map(|()| 0)
        })
    }
}

/// The bytes of a message to write.
///
/// # Safety
/// `data` is NULL or points to `len` bytes that do not change during the call.
unsafe fn message<'a>(data: *const c_void, len: usize) -> Outcome<&'a [u8]> {
    match (data.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(NULL),
        (false, len) if len > isize::MAX as usize => Err(Fault::new(abi::FILE_WRITE, libc::EMSGSIZE)),
        // SAFETY: as promised.
        (false, len) => Ok(unsafe { slice::from_raw_parts(data.cast(), len) }),
    }
}

/// Gets the records to read: `*first` is the record after the checkpoint and `*last` the last one
/// of its segment. Returns their number (0: both are the checkpoint), or -1.
///
/// # Safety
/// `ctx` is NULL or a context, `first` and `last` are NULL or room for an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_read_interval(
    ctx: *mut jlog_ctx,
    first: *mut jlog_id,
    last: *mut jlog_id,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call_reporting(ctx, -1, but_illegal_writes, |ctx| {
            let (from, to, count) = ctx.interval()?;
            put(first, from.into());
            put(last, to.into());
            Ok(count)
        })
    }
}

/// Reads one message. Returns 0 or -1. The context owns the message's memory: see
/// [`jlog_ctx_alter_read_method`] for how long it stays valid. In a compressed jlog, it stays valid
/// until the next call.
///
/// # Safety
/// `ctx` is NULL or a context, `id` NULL or an id, `msg` NULL or room for a message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_read_message(
    ctx: *mut jlog_ctx,
    id: *const jlog_id,
    msg: *mut jlog_message,
) -> c_int {
    // SAFETY: as promised.
    unsafe { read_messages(ctx, id, 1, msg) }
}

/// Reads `count` messages of one segment from `id` on. Returns 0, or -1 on failure or if there are
/// fewer. The context owns their memory, as in [`jlog_ctx_read_message`].
///
/// # Safety
/// `ctx` is NULL or a context, `id` NULL or an id, `msgs` NULL or room for `count` messages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_bulk_read_messages(
    ctx: *mut jlog_ctx,
    id: *const jlog_id,
    count: c_int,
    msgs: *mut jlog_message,
) -> c_int {
    match usize::try_from(count) {
        // SAFETY: as promised.
        Ok(count @ 1..) => unsafe { read_messages(ctx, id, count, msgs) },
        _ => 0,
    }
}

/// # Safety
/// As [`jlog_ctx_bulk_read_messages`].
unsafe fn read_messages(
    ctx: *mut jlog_ctx,
    id: *const jlog_id,
    count: usize,
    msgs: *mut jlog_message,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let id = read(id)?;
            if msgs.is_null() {
                return Err(NULL);
            }
            ctx.read(id.into(), slice::from_raw_parts_mut(msgs.cast::<MaybeUninit<_>>(), count)).map(|()| 0)
        })
    }
}

/// Stores the reader's checkpoint: everything up to this record is done. Removes segments that no
/// subscriber needs any more. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, `checkpoint` NULL or an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_read_checkpoint(ctx: *mut jlog_ctx, checkpoint: *const jlog_id) -> c_int {
    // SAFETY: as promised.
    unsafe { call(ctx, -1, |ctx| ctx.store_checkpoint(read(checkpoint)?.into()).map(|()| 0)) }
}

/// Writes an id as text (17 characters and a NUL, cut to `n` bytes). Returns the number of
/// characters.
///
/// # Safety
/// `buff` is NULL or room for `n` bytes, `id` NULL or an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_snprint_logid(buff: *mut c_char, n: c_int, id: *const jlog_id) -> c_int {
    // SAFETY: as promised.
    let Ok(id) = (unsafe { read(id) }) else { return -1 };
    let text = LogId::from(id).to_string();
    if let Some(room) = usize::try_from(n).ok().filter(|&n| n > 0)
        && !buff.is_null()
    {
        let len = text.len().min(room - 1);
        // SAFETY: there is room for `len` characters and the NUL.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr().cast(), buff, len);
            buff.add(len).write(0);
        }
    }
    c_int::try_from(text.len()).unwrap_or(c_int::MAX)
}

/// How many subscribers still need segment `log` or an earlier one, or -1; `*earliest` is set to
/// the first segment that any subscriber needs, or 0.
///
/// # Safety
/// `ctx` is NULL or a context, `earliest` NULL or room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_pending_readers(ctx: *mut jlog_ctx, log: u32, earliest: *mut u32) -> c_int {
    // SAFETY: as promised.
    unsafe {
        quiet(ctx, -1, |ctx| {
            let needed: Vec<u32> = ctx
                .log()
                .ok()?
                .checkpoints()
                .ok()?
                .into_iter()
                .map(|(_, id)| id.map_or(0, |id| id.segment))
                .collect();
            put(earliest, needed.iter().copied().min().unwrap_or(0));
            c_int::try_from(needed.into_iter().filter(|&segment| segment <= log).count()).ok()
        })
    }
}

/// How many subscribers still need segment `log` or an earlier one, or -1.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __jlog_pending_readers(ctx: *mut jlog_ctx, log: u32) -> c_int {
    // SAFETY: as promised.
    unsafe { jlog_pending_readers(ctx, log, ptr::null_mut()) }
}

/// Gets the id before the first record: the first segment, and marker 0. Returns 0, or -1 if the
/// directory cannot be listed.
///
/// # Safety
/// `ctx` is NULL or a context, `id` NULL or room for an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_first_log_id(ctx: *mut jlog_ctx, id: *mut jlog_id) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let first = ctx.log()?.start().map_err(|e| name_fault(&e))?;
            put(id, first.into());
            Ok(0)
        })
    }
}

/// Gets a reader's last record: the last whole one of the segment being written. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, `id` NULL or room for an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_last_log_id(ctx: *mut jlog_ctx, id: *mut jlog_id) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let reports = |code| but_illegal_writes(code) && code != abi::FILE_OPEN;
        call_reporting(ctx, -1, reports, |ctx| {
            put(id, ctx.last_id()?.into());
            Ok(0)
        })
    }
}

/// Gets the segment being written, as a reader sees it. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, `log` NULL or room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_last_storage_log(ctx: *mut jlog_ctx, log: *mut u32) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call_reporting(ctx, -1, but_illegal_writes, |ctx| {
            put(log, ctx.storage_log()?);
            Ok(0)
        })
    }
}

/// Moves `*start` to the record after `*cur`: by one, or, if `*cur` is `*finish`, to the next
/// segment that has records, whose last record becomes `*finish`. Returns 0 or -1.
///
/// # Safety
/// `ctx` is NULL or a context, the ids are NULL or ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_advance_id(
    ctx: *mut jlog_ctx,
    cur: *mut jlog_id,
    start: *mut jlog_id,
    finish: *mut jlog_id,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let (current, mut from, to) = (read(cur)?, read(start)?, read(finish)?);
            if current != to {
                from.marker = from.marker.wrapping_add(1);
                put(start, from);
                return Ok(0);
            }
            let (next, last) = ctx.next_after(current.into())?;
            let marker = if next.segment == current.log { current.marker } else { 1 };
            put(start, jlog_id { log: next.segment, marker });
            put(finish, last.into());
            Ok(0)
        })
    }
}

/// Removes the segments that no subscriber needs, never the one being written. Returns their
/// number, or -1.
///
/// # Safety
/// `path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_clean(path: *const c_char) -> c_int {
    // SAFETY: as promised.
    let ctx = unsafe { jlog_new(path) };
    // SAFETY: the context was just made, and nothing else refers to it.
    unsafe {
        let removed = quiet(ctx, -1, |ctx| {
            c_int::try_from(ctx.log().ok()?.clean(CleanOptions::default()).ok()?.len()).ok()
        });
        jlog_ctx_close(ctx);
        removed
    }
}

/// Repairs metastore and checkpoints and, if `aggressive`, segments: damaged parts are taken out
/// and kept in separate files. An unreadable checkpoint is moved to the beginning. The actions are
/// reported to the context's error function. No process may write meanwhile. Returns 0 or 1.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_ctx_repair(ctx: *mut jlog_ctx, aggressive: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, 1, |ctx| {
            let done =
                if aggressive == 0 { Jlog::repair_names(ctx.path()) } else { Jlog::repair(ctx.path()) };
            ctx.forget_view();
            match done {
                Ok(events) => {
                    ctx.report_events(&events);
                    Ok(0)
                }
                Err(e @ (Error::WriterBusy { .. } | Error::RepairBusy { .. } | Error::InUse { .. })) => {
                    Err(Fault::new(abi::LOCK, e.raw_os_error().unwrap_or(libc::EBUSY)))
                }
                Err(e @ (Error::NotAJlog { .. } | Error::MetastoreMissing { .. })) => {
                    Err(Fault::new(abi::NOTDIR, e.raw_os_error().unwrap_or(libc::ENOENT)))
                }
                Err(e) => Err(Fault::new(abi::CREATE_META, e.raw_os_error().unwrap_or(libc::EIO))),
            }
        })
    }
}

/// Checks a segment and prints problems to stderr; with `verbose`, also every record. Returns 0 if
/// it is sound, 1 if it is damaged, -1 if it cannot be read.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_inspect_datafile(ctx: *mut jlog_ctx, log: u32, verbose: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            ctx.forget_view();
            inspect::inspect(ctx, log, verbose != 0)
        })
    }
}

/// Takes damaged parts out of a segment, keeping the original under another name. Nobody may write
/// meanwhile. Returns the number of parts taken out, or -1.
///
/// # Safety
/// `ctx` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_repair_datafile(ctx: *mut jlog_ctx, log: u32) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let done = ctx.log()?.repair_segment(log);
            ctx.forget_view();
            match done {
                Ok(events) => {
                    ctx.report_events(&events);
                    let repaired =
                        |event: &&jlog_core::Event| matches!(event, jlog_core::Event::SegmentRepaired { .. });
                    Ok(c_int::from(events.iter().any(|event| repaired(&event))))
                }
                Err(e @ (Error::WriterBusy { .. } | Error::RepairBusy { .. } | Error::InUse { .. })) => {
                    Err(Fault::new(abi::LOCK, e.raw_os_error().unwrap_or(libc::EBUSY)))
                }
                Err(e) => Err(Fault::new(abi::FILE_OPEN, e.raw_os_error().unwrap_or(libc::EIO))),
            }
        })
    }
}

/// Gets the last marker in a segment's index, and whether the index is closed. Returns 0 or -1; a
/// missing index lists nothing.
///
/// # Safety
/// `ctx` is NULL or a context, `marker` and `closed` are NULL or room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_idx_details(
    ctx: *mut jlog_ctx,
    log: u32,
    marker: *mut u32,
    closed: *mut c_int,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(ctx, -1, |ctx| {
            let name = ctx.path().join(jlog_core::names::index(log));
            let state = ctx
                .log()?
                .index_state(log)
                .map_err(|e| Fault::new(abi::IDX_OPEN, e.raw_os_error().unwrap_or(libc::EIO)))?;
            let (last, is_closed) = match state {
                Some(state) => (state.last, state.closed),
                None if name.exists() => return Err(Fault::new(abi::IDX_CORRUPT, 0)),
                None => (0, false),
            };
            put(marker, last);
            put(closed, is_closed.into());
            Ok(0)
        })
    }
}
