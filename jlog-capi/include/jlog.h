/*
 * The C interface of jlog: programs written for libjlog 2.x compile against this header unchanged.
 *
 * A jlog is a directory. A context is made for a path (jlog_new), configured, and then used for one
 * purpose: to create the jlog, to write to it, or to read it for one subscriber. Any context can
 * manage subscribers. Functions return 0 or -1 unless stated otherwise; jlog_ctx_err gives the
 * reason. Several threads may use a context.
 */
#ifndef JLOG_H
#define JLOG_H

/* Programs rely on this header to include these. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>

#ifndef JLOG_API
#ifdef __cplusplus
#define JLOG_API(type) extern "C" type
#else
#define JLOG_API(type) type
#endif
#endif

typedef struct _jlog_ctx jlog_ctx;

/* A record's header on disk. */
typedef struct _jlog_message_header {
  uint32_t reserved; /* the jlog's header magic */
  uint32_t tv_sec;
  uint32_t tv_usec;
  uint32_t mlen; /* length of the message in bytes */
} jlog_message_header;

/* The same in a jlog that is compressed. */
typedef struct _jlog_message_header_compressed {
  uint32_t reserved;
  uint32_t tv_sec;
  uint32_t tv_usec;
  uint32_t mlen;
  uint32_t compressed_len; /* length of the body on disk */
} jlog_message_header_compressed;

/* An id: the segment, and the record's marker in it, from 1. In a checkpoint, 0 is before the first record. */
typedef struct _jlog_id {
  uint32_t log;
  uint32_t marker;
} jlog_id;

#define JLOG_ID_ADVANCE(id) ((id)->marker++)

typedef struct _jlog_message {
  jlog_message_header_compressed *header; /* points to aligned_header */
  uint32_t mess_len;
  void *mess;
  jlog_message_header_compressed aligned_header;
} jlog_message;

/* Where a new subscriber begins. */
typedef enum { JLOG_BEGIN, JLOG_END } jlog_position;

/* When metastore and checkpoints are synced: never, when the kernel writes back, at every change. */
typedef enum { JLOG_UNSAFE, JLOG_ALMOST_SAFE, JLOG_SAFE } jlog_safety;

typedef enum {
  JLOG_ERR_SUCCESS = 0,
  JLOG_ERR_ILLEGAL_INIT,
  JLOG_ERR_ILLEGAL_OPEN,
  JLOG_ERR_OPEN,
  JLOG_ERR_NOTDIR,
  JLOG_ERR_CREATE_PATHLEN,
  JLOG_ERR_CREATE_EXISTS,
  JLOG_ERR_CREATE_MKDIR,
  JLOG_ERR_CREATE_META,
  JLOG_ERR_CREATE_PRE_COMMIT,
  JLOG_ERR_LOCK,
  JLOG_ERR_IDX_OPEN,
  JLOG_ERR_IDX_SEEK,
  JLOG_ERR_IDX_CORRUPT,
  JLOG_ERR_IDX_WRITE,
  JLOG_ERR_IDX_READ,
  JLOG_ERR_FILE_OPEN,
  JLOG_ERR_FILE_SEEK,
  JLOG_ERR_FILE_CORRUPT,
  JLOG_ERR_FILE_READ,
  JLOG_ERR_FILE_WRITE,
  JLOG_ERR_META_OPEN,
  JLOG_ERR_PRE_COMMIT_OPEN,
  JLOG_ERR_ILLEGAL_WRITE,
  JLOG_ERR_ILLEGAL_CHECKPOINT,
  JLOG_ERR_INVALID_SUBSCRIBER,
  JLOG_ERR_ILLEGAL_LOGID,
  JLOG_ERR_SUBSCRIBER_EXISTS,
  JLOG_ERR_CHECKPOINT,
  JLOG_ERR_NOT_SUPPORTED,
  JLOG_ERR_CLOSE_LOGID
} jlog_err;

typedef enum { JLOG_COMPRESSION_NULL = 0, JLOG_COMPRESSION_LZ4 = 1 } jlog_compression_provider_choice;

/* How long messages that were read stay in memory: until the next interval or another segment, or until the next
 * call. */
typedef enum { JLOG_READ_METHOD_MMAP = 0, JLOG_READ_METHOD_PREAD } jlog_read_method_type;

/* Reports errors: the pointer given with it, a printf format, and its values. */
typedef void (*jlog_error_func)(void *data, const char *format, ...);

/* Making and closing a context. Closing flushes the buffer. */
JLOG_API(jlog_ctx *) jlog_new(const char *path);
JLOG_API(int) jlog_ctx_close(jlog_ctx *ctx);

/* Errors. */
JLOG_API(int) jlog_ctx_err(jlog_ctx *ctx);
JLOG_API(int) jlog_ctx_errno(jlog_ctx *ctx);
JLOG_API(const char *) jlog_ctx_err_string(jlog_ctx *ctx);
JLOG_API(const char *) jlog_err_string(int code);
JLOG_API(void) jlog_set_error_func(jlog_ctx *ctx, jlog_error_func func, void *data);

/* Settings, before the context is opened; segment size and safety also while it writes. */
JLOG_API(int) jlog_ctx_alter_mode(jlog_ctx *ctx, int mode);
JLOG_API(int) jlog_ctx_alter_journal_size(jlog_ctx *ctx, size_t size);
JLOG_API(int) jlog_ctx_alter_safety(jlog_ctx *ctx, jlog_safety safety);
JLOG_API(int) jlog_ctx_alter_read_method(jlog_ctx *ctx, jlog_read_method_type method);
JLOG_API(int) jlog_ctx_set_multi_process(jlog_ctx *ctx, uint8_t mproc);
JLOG_API(int) jlog_ctx_set_use_compression(jlog_ctx *ctx, uint8_t use);
JLOG_API(int) jlog_ctx_set_compression_provider(jlog_ctx *ctx, jlog_compression_provider_choice provider);
JLOG_API(int) jlog_ctx_set_pre_commit_buffer_size(jlog_ctx *ctx, size_t size);

/* Opening: a context becomes one of these, once. */
JLOG_API(int) jlog_ctx_init(jlog_ctx *ctx);
JLOG_API(int) jlog_ctx_open_writer(jlog_ctx *ctx);
JLOG_API(int) jlog_ctx_open_reader(jlog_ctx *ctx, const char *subscriber);

/* Writing. */
JLOG_API(int) jlog_ctx_write(jlog_ctx *ctx, const void *message, size_t mess_len);
JLOG_API(int) jlog_ctx_write_message(jlog_ctx *ctx, jlog_message *msg, struct timeval *when);
JLOG_API(int) jlog_ctx_flush_pre_commit_buffer(jlog_ctx *ctx);

/* Reading. The interval's result is how many messages there are. Messages belong to the context, and each is followed by a
 * NUL byte that does not count. */
JLOG_API(int) jlog_ctx_read_interval(jlog_ctx *ctx, jlog_id *first, jlog_id *last);
JLOG_API(int) jlog_ctx_read_message(jlog_ctx *ctx, const jlog_id *id, jlog_message *msg);
JLOG_API(int) jlog_ctx_bulk_read_messages(jlog_ctx *ctx, const jlog_id *id, const int count, jlog_message *msgs);
JLOG_API(int) jlog_ctx_read_checkpoint(jlog_ctx *ctx, const jlog_id *checkpoint);
JLOG_API(int) jlog_ctx_first_log_id(jlog_ctx *ctx, jlog_id *id);
JLOG_API(int) jlog_ctx_last_log_id(jlog_ctx *ctx, jlog_id *id);
JLOG_API(int) jlog_ctx_last_storage_log(jlog_ctx *ctx, uint32_t *log);
JLOG_API(int) jlog_ctx_advance_id(jlog_ctx *ctx, jlog_id *cur, jlog_id *start, jlog_id *finish);
JLOG_API(int) jlog_snprint_logid(char *buff, int n, const jlog_id *id);

/* Subscribers. Removing one returns 1 if it existed and 0 if not; free a list with its dispose function. */
JLOG_API(int) jlog_ctx_add_subscriber(jlog_ctx *ctx, const char *subscriber, jlog_position whence);
JLOG_API(int) jlog_ctx_add_subscriber_copy_checkpoint(jlog_ctx *ctx, const char *new_subscriber,
                                                      const char *old_subscriber);
JLOG_API(int) jlog_ctx_set_subscriber_checkpoint(jlog_ctx *ctx, const char *subscriber, const jlog_id *checkpoint);
JLOG_API(int) jlog_ctx_remove_subscriber(jlog_ctx *ctx, const char *subscriber);
JLOG_API(int) jlog_ctx_list_subscribers(jlog_ctx *ctx, char ***subs);
JLOG_API(int) jlog_ctx_list_subscribers_dispose(jlog_ctx *ctx, char **subs);
JLOG_API(int) jlog_get_checkpoint(jlog_ctx *ctx, const char *subscriber, jlog_id *id);

/* Maintenance. Cleaning returns the number of segments removed, pending readers that of the subscribers that
 * still need the segment. Nobody may write during a repair. */
JLOG_API(size_t) jlog_raw_size(jlog_ctx *ctx);
JLOG_API(int) jlog_pending_readers(jlog_ctx *ctx, uint32_t log, uint32_t *earliest);
JLOG_API(int) __jlog_pending_readers(jlog_ctx *ctx, uint32_t log);
JLOG_API(int) jlog_clean(const char *path);
JLOG_API(int) jlog_ctx_repair(jlog_ctx *ctx, int aggressive);
JLOG_API(int) jlog_inspect_datafile(jlog_ctx *ctx, uint32_t log, int verbose);
JLOG_API(int) jlog_repair_datafile(jlog_ctx *ctx, uint32_t log);
JLOG_API(int) jlog_idx_details(jlog_ctx *ctx, uint32_t log, uint32_t *marker, int *closed);

#endif
