/*
 * For programs that look into a context or build the names of a jlog's files themselves. The fields of a context are
 * read-only: a program's writes to them are lost or ignored. Offsets are those of libjlog 2.6 on x86-64.
 */
#ifndef _JLOG_PRIVATE_H
#define _JLOG_PRIVATE_H

#include <pthread.h>
#include <stdio.h>

#include "jlog.h"
#include "jlog_compress.h"
#include "jlog_config.h"
#include "jlog_io.h"

/* The initial state of a context, before it is set up. */
#define DEFAULT_FILE_MODE 0640
#define DEFAULT_UNIT_LIMIT (4 * 1024 * 1024)
#define DEFAULT_HDR_MAGIC 0x663A7318
#define DEFAULT_HDR_MAGIC_COMPRESSION 0x15106A00
#define DEFAULT_SAFETY JLOG_ALMOST_SAFE
#define DEFAULT_READ_MESSAGE_TYPE JLOG_READ_METHOD_MMAP

/* The suffix of an index: its name is the segment's name and this. */
#define INDEX_EXT ".idx"
/* The longest path of a jlog, so that the paths of its files still fit. */
#define MAXLOGPATHLEN (MAXPATHLEN - (8 + sizeof(INDEX_EXT)))

/* The mode of a context. */
typedef enum { JLOG_NEW = 0, JLOG_INIT, JLOG_READ, JLOG_APPEND, JLOG_INVALID } jlog_mode;

/* The metastore. */
struct _jlog_meta_info {
  u_int32_t storage_log; /* the segment being written */
  u_int32_t unit_limit;  /* the size in bytes at which segments end */
  u_int32_t safety;      /* a jlog_safety */
  u_int32_t hdr_magic;   /* the magic number of each record */
};

struct _jlog_ctx {
  struct _jlog_meta_info *meta; /* the current one, in an open context; pre_init before */
  pthread_mutex_t write_lock;   /* not used */
  jlog_read_method_type read_method;
  int meta_is_mapped;
  int pre_commit_is_mapped;
  uint8_t multi_process;
  uint8_t pre_commit_buffer_size_specified;
  void *pre_commit_buffer; /* where the buffer begins, and ends; NULL without a buffer */
  void *pre_commit_pos;    /* the end of its contents after the last write or flush of this context */
  void *pre_commit_end;
  size_t pre_commit_buffer_len; /* of the whole file, which begins with the counter below */
  size_t desired_pre_commit_buffer_len;
  uint32_t *pre_commit_pointer; /* number of bytes in the buffer */
  struct _jlog_meta_info pre_init;
  jlog_mode context_mode;
  char *path;
  int file_mode;
  u_int32_t current_log; /* a writer: its segment after the last write or flush; a reader: that of the last message read */
  jlog_file *data;       /* that segment, after the first write or read; NULL if it cannot be opened */
  jlog_file *index;      /* not used: NULL */
  jlog_file *checkpoint; /* readers only */
  jlog_file *metastore;  /* open contexts only */
  jlog_file *pre_commit; /* writers with a buffer only */
  void *mmap_base;       /* not used: messages are not in a map */
  size_t mmap_len;
  size_t data_file_size;
  uint8_t reader_is_initialized; /* messages were read since the last interval */
  void *compressed_data_buffer;  /* not used */
  size_t compressed_data_buffer_len;
  char *subscriber_name; /* readers only; NULL otherwise */
  int last_error;        /* a jlog_err */
  int last_errno;
  jlog_error_func error_func;
  void *error_ctx;
  size_t mess_data_size; /* not used */
  char *mess_data;
};

/* Writes the name of a segment: eight digits and a NUL. */
#define STRLOGID(s, logid) ((void)sprintf((s), "%08x", (unsigned int)(logid)))
/* Writes the path of a segment, which takes 10 bytes more than that of the jlog. */
#define STRSETDATAFILE(ctx, file, log) \
  ((void)sprintf((file), "%s%c%08x", (ctx)->path, IFS_CH, (unsigned int)(log)))

#endif
