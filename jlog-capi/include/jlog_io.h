/*
 * Files that the threads of a process share, each opened once: opening a file again returns the same handle. Functions
 * that return int return 1 on success and 0 on failure, with errno set.
 */
#ifndef _JLOG_IO_H_
#define _JLOG_IO_H_

#include <sys/types.h>
#include <sys/uio.h>

#include "jlog_config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct _jlog_file jlog_file;

/* Opens a regular file for reading and writing; only the flags O_CREAT and O_EXCL count. Returns NULL on failure. Without
 * multi_process, locks exclude only threads of this process. */
jlog_file *jlog_file_open(const char *path, int flags, int mode, int multi_process);
int jlog_file_close(jlog_file *f);

/* Excludes other threads, and other processes, until the file is unlocked. */
int jlog_file_lock(jlog_file *f);
int jlog_file_unlock(jlog_file *f);

/* Reads or writes all of the bytes, or fails. */
int jlog_file_pread(jlog_file *f, void *buf, size_t nbyte, off_t offset);
int jlog_file_pwrite(jlog_file *f, const void *buf, size_t nbyte, off_t offset);
/* Writes the bytes of several buffers, one after the other; fails if there are none. */
int jlog_file_pwritev(jlog_file *f, const struct iovec *vecs, int iov_count, off_t offset);
/* The same; fails if the number of bytes is not the expected one. */
int jlog_file_pwritev_verify_return_value(jlog_file *f, const struct iovec *vecs, int iov_count, off_t offset,
                                          size_t expected_length);

/* Makes the contents durable. */
int jlog_file_sync(jlog_file *f);

/* Map the whole file, shared; the caller unmaps it. If the file is truncated while it is mapped, accesses past its end raise
 * SIGBUS. */
int jlog_file_map_rdwr(jlog_file *f, void **base, size_t *len);
int jlog_file_map_read(jlog_file *f, void **base, size_t *len);

/* Returns its length in bytes, or -1 on failure. */
off_t jlog_file_size(jlog_file *f);
int jlog_file_truncate(jlog_file *f, off_t len);

#ifdef __cplusplus
}
#endif

#endif
