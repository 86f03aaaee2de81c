/*
 * Files that threads of a process share, each opened once: opening the same file again gives the same handle. Functions
 * that return int give 1 where they succeed and 0 where they fail, with errno set.
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

/* Opens a regular file for reading and writing; of the flags, O_CREAT and O_EXCL count. NULL where that fails. Without
 * multi_process, locks hold between the threads of this process only. */
jlog_file *jlog_file_open(const char *path, int flags, int mode, int multi_process);
int jlog_file_close(jlog_file *f);

/* Excludes other threads, and other processes, until the file is unlocked. */
int jlog_file_lock(jlog_file *f);
int jlog_file_unlock(jlog_file *f);

/* All of the bytes or a failure. */
int jlog_file_pread(jlog_file *f, void *buf, size_t nbyte, off_t offset);
int jlog_file_pwrite(jlog_file *f, const void *buf, size_t nbyte, off_t offset);
/* The bytes of several places one behind the other; no bytes at all are a failure. */
int jlog_file_pwritev(jlog_file *f, const struct iovec *vecs, int iov_count, off_t offset);
/* The same, where they must be so many. */
int jlog_file_pwritev_verify_return_value(jlog_file *f, const struct iovec *vecs, int iov_count, off_t offset,
                                          size_t expected_length);

/* Makes the contents durable. */
int jlog_file_sync(jlog_file *f);

/* Map all of the file, shared; the caller unmaps it. A file that is cut while it is mapped raises SIGBUS where it is
 * touched. */
int jlog_file_map_rdwr(jlog_file *f, void **base, size_t *len);
int jlog_file_map_read(jlog_file *f, void **base, size_t *len);

/* Its length in bytes, or -1. */
off_t jlog_file_size(jlog_file *f);
int jlog_file_truncate(jlog_file *f, off_t len);

#ifdef __cplusplus
}
#endif

#endif
