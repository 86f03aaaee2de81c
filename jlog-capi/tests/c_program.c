/*
 * A C program that calls every function of jlog.h in every state that a context can have, and checks
 * the results. Arguments: an empty working directory, and a jlog with checksums, two records in
 * segment 0, and a subscriber "s".
 */
#define _DEFAULT_SOURCE 1
#define _XOPEN_SOURCE 700

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jlog.h"

static unsigned checks, differences;

/* A part ends here at its first difference; the other parts still run. */
static jmp_buf end_of_part;

static void differs(void) {
  differences++;
  longjmp(end_of_part, 1);
}

static void check(int line, const char *what, int good) {
  checks++;
  if (!good) {
    fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, line, what);
    differs();
  }
}

static void same(int line, const char *what, long long got, long long wanted) {
  checks++;
  if (got != wanted) {
    fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, line, what, got, wanted);
    differs();
  }
}

static void failed(int line, const char *what, jlog_ctx *ctx, int got, int result, int code) {
  checks++;
  if (got != result || jlog_ctx_err(ctx) != code) {
    fprintf(stderr, "%s:%d: %s gave %d with %s (errno %d), not %d with %s\n", __FILE__, line, what, got,
            jlog_ctx_err_string(ctx), jlog_ctx_errno(ctx), result, jlog_err_string(code));
    differs();
  }
}

static void went(int line, const char *what, jlog_ctx *ctx, int got) {
  failed(line, what, ctx, got, 0, JLOG_ERR_SUCCESS);
}

#define CHECK(condition) check(__LINE__, #condition, (condition) ? 1 : 0)
#define SAME(got, wanted) same(__LINE__, #got, (long long)(got), (long long)(wanted))
#define PART(call) \
  do { \
    if (setjmp(end_of_part) == 0) call; \
  } while (0)
/* A call on ctx that must succeed, and one that must give -1 with this error. */
#define OK(ctx, call) went(__LINE__, #call, ctx, call)
#define FAILS(ctx, call, code) failed(__LINE__, #call, ctx, call, -1, code)

static char scratch[1024];

/* The path of something in the working directory; the last four paths stay valid. */
static const char *in(const char *name) {
  static char paths[4][2048];
  static int turn;
  char *path = paths[turn++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
  return path;
}

static int there(const char *name) {
  struct stat facts;
  return stat(in(name), &facts) == 0;
}

static long long size_of(const char *name) {
  struct stat facts;
  return stat(in(name), &facts) == 0 ? (long long)facts.st_size : -1;
}

static jlog_ctx *fresh(const char *name) {
  jlog_ctx *ctx = jlog_new(in(name));
  CHECK(ctx != NULL);
  SAME(jlog_ctx_err(ctx), JLOG_ERR_SUCCESS);
  return ctx;
}

/* Creates a jlog with segments of this size, and a subscriber at its beginning. */
static void create(const char *name, size_t segment, int compressed, const char *subscriber) {
  jlog_ctx *ctx = fresh(name);
  OK(ctx, jlog_ctx_alter_journal_size(ctx, segment));
  OK(ctx, jlog_ctx_set_use_compression(ctx, compressed ? 1 : 0));
  OK(ctx, jlog_ctx_init(ctx));
  SAME(jlog_ctx_close(ctx), 0);
  if (subscriber != NULL) {
    ctx = fresh(name);
    OK(ctx, jlog_ctx_add_subscriber(ctx, subscriber, JLOG_BEGIN));
    SAME(jlog_ctx_close(ctx), 0);
  }
}

static jlog_ctx *writer_of(const char *name) {
  jlog_ctx *ctx = fresh(name);
  OK(ctx, jlog_ctx_open_writer(ctx));
  return ctx;
}

static jlog_ctx *reader_of(const char *name, const char *subscriber) {
  jlog_ctx *ctx = fresh(name);
  OK(ctx, jlog_ctx_open_reader(ctx, subscriber));
  return ctx;
}

/* Writes messages "<prefix><n>" for n from `from`, `count` of them. */
static void fill(jlog_ctx *ctx, const char *prefix, int from, int count) {
  for (int n = from; n < from + count; n++) {
    char body[64];
    int len = snprintf(body, sizeof body, "%s%d", prefix, n);
    OK(ctx, jlog_ctx_write(ctx, body, (size_t)len));
  }
}

static int holds(const jlog_message *message, const char *text) {
  return message->mess_len == strlen(text) && memcmp(message->mess, text, strlen(text)) == 0 &&
         message->header == &message->aligned_header && message->header->mlen == message->mess_len;
}

static int is_message(const jlog_message *message, const char *prefix, int n) {
  char body[64];
  snprintf(body, sizeof body, "%s%d", prefix, n);
  return holds(message, body);
}

/* Reads to the end, checks that the messages are "<prefix><n>" from `from` on, and stores the
 * checkpoint. Returns the number of messages. */
static int drain(jlog_ctx *ctx, const char *prefix, int from) {
  int total = 0;
  for (;;) {
    jlog_id first, last;
    int count = jlog_ctx_read_interval(ctx, &first, &last);
    CHECK(count >= 0);
    if (count == 0) return total;
    SAME(last.marker - first.marker + 1, count);
    SAME(first.log, last.log);
    for (; first.marker <= last.marker; JLOG_ID_ADVANCE(&first)) {
      jlog_message message;
      OK(ctx, jlog_ctx_read_message(ctx, &first, &message));
      CHECK(is_message(&message, prefix, from + total));
      total++;
    }
    OK(ctx, jlog_ctx_read_checkpoint(ctx, &last));
  }
}

static void overwrite(const char *path, long offset, const void *bytes, size_t len) {
  int fd = open(path, O_RDWR);
  CHECK(fd >= 0);
  SAME(pwrite(fd, bytes, len, offset), len);
  close(fd);
}

static void make_file(const char *name, const void *bytes, size_t len) {
  int fd = open(in(name), O_CREAT | O_TRUNC | O_RDWR, 0640);
  CHECK(fd >= 0);
  SAME(write(fd, bytes, len), len);
  close(fd);
}

/* --- numbers and names --- */

static void names_of_errors(void) {
  static const char *const names[] = {
      "SUCCESS",         "ILLEGAL_INIT",  "ILLEGAL_OPEN",       "OPEN",               "NOTDIR",
      "CREATE_PATHLEN",  "CREATE_EXISTS", "CREATE_MKDIR",       "CREATE_META",        "CREATE_PRE_COMMIT",
      "LOCK",            "IDX_OPEN",      "IDX_SEEK",           "IDX_CORRUPT",        "IDX_WRITE",
      "IDX_READ",        "FILE_OPEN",     "FILE_SEEK",          "FILE_CORRUPT",       "FILE_READ",
      "FILE_WRITE",      "META_OPEN",     "PRE_COMMIT_OPEN",    "ILLEGAL_WRITE",      "ILLEGAL_CHECKPOINT",
      "INVALID_SUBSCRIBER", "ILLEGAL_LOGID", "SUBSCRIBER_EXISTS", "CHECKPOINT",       "NOT_SUPPORTED",
      "CLOSE_LOGID",
  };
  SAME(sizeof names / sizeof *names, 31);
  SAME(JLOG_ERR_CLOSE_LOGID, 30);
  for (int code = 0; code < 31; code++) {
    char name[64];
    snprintf(name, sizeof name, "JLOG_ERR_%s", names[code]);
    CHECK(strcmp(jlog_err_string(code), name) == 0);
  }
  CHECK(strcmp(jlog_err_string(31), "Unknown") == 0);
  CHECK(strcmp(jlog_err_string(-1), "Unknown") == 0);
  CHECK(strcmp(jlog_err_string(INT_MAX), "Unknown") == 0);
  CHECK(strcmp(jlog_err_string(INT_MIN), "Unknown") == 0);
}

static void ids_as_text(void) {
  jlog_id id = {0xabc, 0xffffffff};
  char text[32];
  SAME(jlog_snprint_logid(text, sizeof text, &id), 17);
  CHECK(strcmp(text, "00000abc:ffffffff") == 0);
  memset(text, 'x', sizeof text);
  SAME(jlog_snprint_logid(text, 5, &id), 17);
  CHECK(strcmp(text, "0000") == 0 && text[5] == 'x');
  SAME(jlog_snprint_logid(text, 1, &id), 17);
  CHECK(text[0] == '\0' && text[1] == '0');
  SAME(jlog_snprint_logid(NULL, 0, &id), 17);
  JLOG_ID_ADVANCE(&id);
  SAME(id.marker, 0);
}

/* --- NULL --- */

static void without_a_context(void) {
  jlog_id id = {7, 7};
  jlog_message message;
  char **list = NULL;
  uint32_t number = 7;
  int closed = 7;
  CHECK(jlog_new(NULL) == NULL);
  SAME(jlog_ctx_close(NULL), -1);
  CHECK(jlog_ctx_err(NULL) != JLOG_ERR_SUCCESS);
  CHECK(jlog_ctx_errno(NULL) != 0);
  CHECK(jlog_ctx_err_string(NULL) != NULL);
  jlog_set_error_func(NULL, NULL, NULL);
  SAME(jlog_raw_size(NULL), 0);
  SAME(jlog_ctx_init(NULL), -1);
  SAME(jlog_ctx_open_writer(NULL), -1);
  SAME(jlog_ctx_open_reader(NULL, "a"), -1);
  SAME(jlog_ctx_alter_mode(NULL, 0600), -1);
  SAME(jlog_ctx_alter_journal_size(NULL, 1024), -1);
  SAME(jlog_ctx_alter_safety(NULL, JLOG_SAFE), -1);
  SAME(jlog_ctx_alter_read_method(NULL, JLOG_READ_METHOD_PREAD), -1);
  SAME(jlog_ctx_set_multi_process(NULL, 1), -1);
  SAME(jlog_ctx_set_use_compression(NULL, 1), -1);
  SAME(jlog_ctx_set_compression_provider(NULL, JLOG_COMPRESSION_LZ4), -1);
  SAME(jlog_ctx_set_pre_commit_buffer_size(NULL, 1024), -1);
  SAME(jlog_ctx_flush_pre_commit_buffer(NULL), -1);
  SAME(jlog_ctx_add_subscriber(NULL, "a", JLOG_BEGIN), -1);
  SAME(jlog_ctx_add_subscriber_copy_checkpoint(NULL, "a", "b"), -1);
  SAME(jlog_ctx_set_subscriber_checkpoint(NULL, "a", &id), -1);
  SAME(jlog_ctx_remove_subscriber(NULL, "a"), -1);
  SAME(jlog_ctx_list_subscribers(NULL, &list), -1);
  CHECK(list == NULL);
  SAME(jlog_ctx_list_subscribers_dispose(NULL, NULL), 0);
  SAME(jlog_get_checkpoint(NULL, "a", &id), -1);
  SAME(jlog_ctx_write(NULL, "x", 1), -1);
  SAME(jlog_ctx_write_message(NULL, NULL, NULL), -1);
  SAME(jlog_ctx_read_interval(NULL, &id, &id), -1);
  SAME(jlog_ctx_read_message(NULL, &id, &message), -1);
  SAME(jlog_ctx_bulk_read_messages(NULL, &id, 1, &message), -1);
  SAME(jlog_ctx_read_checkpoint(NULL, &id), -1);
  SAME(jlog_snprint_logid(NULL, 0, NULL), -1);
  SAME(jlog_pending_readers(NULL, 0, &number), -1);
  SAME(__jlog_pending_readers(NULL, 0), -1);
  SAME(jlog_ctx_first_log_id(NULL, &id), -1);
  SAME(jlog_ctx_last_log_id(NULL, &id), -1);
  SAME(jlog_ctx_last_storage_log(NULL, &number), -1);
  SAME(jlog_ctx_advance_id(NULL, &id, &id, &id), -1);
  SAME(jlog_clean(NULL), -1);
  CHECK(jlog_ctx_repair(NULL, 0) != 0);
  SAME(jlog_inspect_datafile(NULL, 0, 0), -1);
  SAME(jlog_repair_datafile(NULL, 0), -1);
  SAME(jlog_idx_details(NULL, 0, &number, &closed), -1);
  SAME(id.log, 7);
  SAME(id.marker, 7);
  SAME(number, 7);
  SAME(closed, 7);
}

static void without_the_rest(void) {
  jlog_id id = {0, 1};
  jlog_message message = {0};
  create("null", 4096, 0, "a");
  jlog_ctx *ctx = writer_of("null");
  OK(ctx, jlog_ctx_write(ctx, NULL, 0));
  CHECK(jlog_ctx_write(ctx, NULL, 5) == -1 && jlog_ctx_err(ctx) != JLOG_ERR_SUCCESS);
  CHECK(jlog_ctx_write_message(ctx, NULL, NULL) == -1 && jlog_ctx_err(ctx) != JLOG_ERR_SUCCESS);
  OK(ctx, jlog_ctx_write_message(ctx, &message, NULL));
  message.mess_len = 3;
  CHECK(jlog_ctx_write_message(ctx, &message, NULL) == -1 && jlog_ctx_err(ctx) != JLOG_ERR_SUCCESS);
  SAME(jlog_ctx_close(ctx), 0);

  ctx = fresh("null");
  CHECK(jlog_ctx_open_reader(ctx, NULL) == -1 && jlog_ctx_err(ctx) != JLOG_ERR_SUCCESS);
  SAME(jlog_ctx_close(ctx), 0);

  ctx = reader_of("null", "a");
  SAME(jlog_ctx_add_subscriber(ctx, NULL, JLOG_BEGIN), -1);
  SAME(jlog_ctx_add_subscriber_copy_checkpoint(ctx, NULL, "a"), -1);
  SAME(jlog_ctx_add_subscriber_copy_checkpoint(ctx, "b", NULL), -1);
  SAME(jlog_ctx_set_subscriber_checkpoint(ctx, NULL, &id), -1);
  SAME(jlog_ctx_set_subscriber_checkpoint(ctx, "a", NULL), -1);
  SAME(jlog_ctx_remove_subscriber(ctx, NULL), -1);
  SAME(jlog_ctx_list_subscribers(ctx, NULL), -1);
  /* The name of a reader's own subscriber may be left out. */
  SAME(jlog_get_checkpoint(ctx, NULL, &id), 0);
  SAME(id.marker, 0);
  SAME(jlog_get_checkpoint(ctx, "a", NULL), 0);
  SAME(jlog_ctx_read_interval(ctx, NULL, NULL), 2);
  SAME(jlog_ctx_read_message(ctx, NULL, &message), -1);
  id.marker = 1;
  SAME(jlog_ctx_read_message(ctx, &id, NULL), -1);
  SAME(jlog_ctx_bulk_read_messages(ctx, NULL, 1, &message), -1);
  SAME(jlog_ctx_bulk_read_messages(ctx, &id, 1, NULL), -1);
  SAME(jlog_ctx_read_checkpoint(ctx, NULL), -1);
  SAME(jlog_ctx_first_log_id(ctx, NULL), 0);
  SAME(jlog_ctx_last_log_id(ctx, NULL), 0);
  SAME(jlog_ctx_last_storage_log(ctx, NULL), 0);
  SAME(jlog_ctx_advance_id(ctx, NULL, &id, &id), -1);
  SAME(jlog_ctx_advance_id(ctx, &id, NULL, &id), -1);
  SAME(jlog_ctx_advance_id(ctx, &id, &id, NULL), -1);
  SAME(jlog_pending_readers(ctx, 0, NULL), 1);
  SAME(jlog_idx_details(ctx, 0, NULL, NULL), 0);
  OK(ctx, jlog_ctx_read_message(ctx, &id, &message));
  SAME(message.mess_len, 0);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- states --- */

/* Calls that only a reader may make. */
static void refuses_reading(jlog_ctx *ctx) {
  jlog_id first = {0, 1}, last = {0, 1};
  jlog_message message;
  uint32_t number;
  FAILS(ctx, jlog_ctx_read_interval(ctx, &first, &last), JLOG_ERR_ILLEGAL_WRITE);
  SAME(jlog_ctx_errno(ctx), EPERM);
  FAILS(ctx, jlog_ctx_read_message(ctx, &first, &message), JLOG_ERR_ILLEGAL_WRITE);
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &first, 1, &message), JLOG_ERR_ILLEGAL_WRITE);
  FAILS(ctx, jlog_ctx_last_log_id(ctx, &last), JLOG_ERR_ILLEGAL_WRITE);
  SAME(jlog_ctx_errno(ctx), EPERM);
  FAILS(ctx, jlog_ctx_last_storage_log(ctx, &number), JLOG_ERR_ILLEGAL_WRITE);
  SAME(jlog_ctx_errno(ctx), EPERM);
  FAILS(ctx, jlog_ctx_read_checkpoint(ctx, &first), JLOG_ERR_ILLEGAL_CHECKPOINT);
  SAME(jlog_ctx_errno(ctx), EPERM);
}

static void refuses_writing(jlog_ctx *ctx) {
  jlog_message message = {0};
  message.mess = "x";
  message.mess_len = 1;
  FAILS(ctx, jlog_ctx_write(ctx, "x", 1), JLOG_ERR_ILLEGAL_WRITE);
  SAME(jlog_ctx_errno(ctx), EPERM);
  FAILS(ctx, jlog_ctx_write_message(ctx, &message, NULL), JLOG_ERR_ILLEGAL_WRITE);
  SAME(jlog_ctx_errno(ctx), EPERM);
}

static void refuses_opening(jlog_ctx *ctx) {
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_ILLEGAL_OPEN);
  FAILS(ctx, jlog_ctx_open_reader(ctx, "a"), JLOG_ERR_ILLEGAL_OPEN);
  FAILS(ctx, jlog_ctx_init(ctx), JLOG_ERR_ILLEGAL_INIT);
}

static void states(void) {
  jlog_id id = {9, 9};
  /* New. */
  jlog_ctx *ctx = fresh("states");
  refuses_reading(ctx);
  refuses_writing(ctx);
  OK(ctx, jlog_ctx_flush_pre_commit_buffer(ctx));
  CHECK(!there("states"));
  /* Created. */
  OK(ctx, jlog_ctx_init(ctx));
  SAME(size_of("states/metastore"), 16);
  refuses_opening(ctx);
  refuses_reading(ctx);
  refuses_writing(ctx);
  /* Names of subscribers can be managed with any context. */
  OK(ctx, jlog_ctx_add_subscriber(ctx, "a", JLOG_BEGIN));
  SAME(size_of("states/cp.61"), 8);
  SAME(jlog_ctx_close(ctx), 0);
  /* Writer. */
  ctx = writer_of("states");
  refuses_opening(ctx);
  refuses_reading(ctx);
  OK(ctx, jlog_ctx_write(ctx, "one", 3));
  OK(ctx, jlog_ctx_add_subscriber(ctx, "b", JLOG_END));
  SAME(jlog_get_checkpoint(ctx, "b", &id), 0);
  SAME(id.log, 0);
  SAME(id.marker, 1);
  OK(ctx, jlog_ctx_first_log_id(ctx, &id));
  SAME(id.log, 0);
  SAME(id.marker, 0);
  SAME(jlog_ctx_alter_journal_size(ctx, 8192), 0);
  SAME(jlog_ctx_alter_safety(ctx, JLOG_SAFE), 0);
  uint32_t stored[4];
  int fd = open(in("states/metastore"), O_RDONLY);
  SAME(pread(fd, stored, sizeof stored, 0), 16);
  close(fd);
  SAME(stored[0], 0);
  SAME(stored[1], 8192);
  SAME(stored[2], JLOG_SAFE);
  SAME(stored[3], 0x663A7318);
  SAME(jlog_ctx_close(ctx), 0);
  /* Reader. */
  ctx = reader_of("states", "a");
  refuses_opening(ctx);
  refuses_writing(ctx);
  SAME(jlog_ctx_alter_journal_size(ctx, 4096), -1);
  SAME(jlog_ctx_alter_journal_size(ctx, 8192), 0);
  SAME(jlog_ctx_alter_safety(ctx, JLOG_UNSAFE), -1);
  SAME(jlog_ctx_alter_safety(ctx, JLOG_SAFE), 0);
  OK(ctx, jlog_ctx_add_subscriber(ctx, "c", JLOG_END));
  SAME(jlog_ctx_remove_subscriber(ctx, "c"), 1);
  SAME(jlog_ctx_close(ctx), 0);
  /* Unusable after a failed open. */
  ctx = fresh("states");
  FAILS(ctx, jlog_ctx_open_reader(ctx, "nobody"), JLOG_ERR_INVALID_SUBSCRIBER);
  refuses_opening(ctx);
  refuses_reading(ctx);
  refuses_writing(ctx);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- setting up --- */

static void setting_up(void) {
  jlog_ctx *ctx = fresh("modes");
  SAME(jlog_ctx_alter_mode(ctx, 0604), 0);
  SAME(jlog_ctx_alter_safety(ctx, JLOG_UNSAFE), 0);
  SAME(jlog_ctx_alter_safety(ctx, (jlog_safety)9), -1);
  SAME(jlog_ctx_alter_journal_size(ctx, 0), -1);
  SAME(jlog_ctx_alter_journal_size(ctx, 12345), 0);
  SAME(jlog_ctx_alter_read_method(ctx, JLOG_READ_METHOD_PREAD), 0);
  SAME(jlog_ctx_alter_read_method(ctx, JLOG_READ_METHOD_MMAP), 0);
  SAME(jlog_ctx_alter_read_method(ctx, (jlog_read_method_type)7), -1);
  FAILS(ctx, jlog_ctx_set_compression_provider(ctx, (jlog_compression_provider_choice)77), JLOG_ERR_NOT_SUPPORTED);
  umask(0);
  OK(ctx, jlog_ctx_init(ctx));
  SAME(jlog_ctx_close(ctx), 0);
  struct stat facts;
  SAME(stat(in("modes"), &facts), 0);
  SAME(facts.st_mode & 0777, 0705);
  SAME(stat(in("modes/metastore"), &facts), 0);
  SAME(facts.st_mode & 0777, 0604);
  umask(022);
  uint32_t stored[4];
  int fd = open(in("modes/metastore"), O_RDONLY);
  SAME(pread(fd, stored, sizeof stored, 0), 16);
  close(fd);
  SAME(stored[1], 12345);
  SAME(stored[2], JLOG_UNSAFE);
  /* The read method cannot be changed between reading messages and the next interval. */
  jlog_id first, last;
  jlog_message message;
  ctx = writer_of("modes");
  fill(ctx, "m", 0, 3);
  OK(ctx, jlog_ctx_add_subscriber(ctx, "a", JLOG_BEGIN));
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("modes", "a");
  SAME(jlog_ctx_alter_read_method(ctx, JLOG_READ_METHOD_PREAD), 0);
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 3);
  OK(ctx, jlog_ctx_read_message(ctx, &first, &message));
  SAME(jlog_ctx_alter_read_method(ctx, JLOG_READ_METHOD_MMAP), -1);
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 3);
  SAME(jlog_ctx_alter_read_method(ctx, JLOG_READ_METHOD_MMAP), 0);
  OK(ctx, jlog_ctx_read_message(ctx, &first, &message));
  CHECK(is_message(&message, "m", 0));
  SAME(jlog_ctx_close(ctx), 0);
  /* Compression: none at all, or the header of a compressed jlog without compression. */
  ctx = fresh("framed");
  OK(ctx, jlog_ctx_set_use_compression(ctx, 1));
  OK(ctx, jlog_ctx_set_compression_provider(ctx, JLOG_COMPRESSION_NULL));
  OK(ctx, jlog_ctx_init(ctx));
  SAME(jlog_ctx_close(ctx), 0);
  fd = open(in("framed/metastore"), O_RDONLY);
  SAME(pread(fd, stored, sizeof stored, 0), 16);
  close(fd);
  SAME(stored[3], 0x15106A00);
  ctx = fresh("unframed");
  OK(ctx, jlog_ctx_set_compression_provider(ctx, JLOG_COMPRESSION_LZ4));
  OK(ctx, jlog_ctx_init(ctx));
  SAME(jlog_ctx_close(ctx), 0);
  fd = open(in("unframed/metastore"), O_RDONLY);
  SAME(pread(fd, stored, sizeof stored, 0), 16);
  close(fd);
  SAME(stored[3], 0x663A7318);
  /* As the only writer. */
  ctx = fresh("unframed");
  SAME(jlog_ctx_set_multi_process(ctx, 0), 0);
  OK(ctx, jlog_ctx_open_writer(ctx));
  fill(ctx, "alone", 0, 3);
  OK(ctx, jlog_ctx_add_subscriber(ctx, "a", JLOG_BEGIN));
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("unframed", "a");
  SAME(drain(ctx, "alone", 0), 3);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- errors --- */

static void errors_of_creating(void) {
  jlog_ctx *ctx;
  char name[PATH_MAX + 100];
  create("exists", 4096, 0, NULL);
  ctx = fresh("exists");
  FAILS(ctx, jlog_ctx_init(ctx), JLOG_ERR_CREATE_EXISTS);
  FAILS(ctx, jlog_ctx_init(ctx), JLOG_ERR_ILLEGAL_INIT);
  SAME(jlog_ctx_close(ctx), 0);
  make_file("file", "x", 1);
  ctx = fresh("file");
  FAILS(ctx, jlog_ctx_init(ctx), JLOG_ERR_CREATE_EXISTS);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("missing/parent");
  FAILS(ctx, jlog_ctx_init(ctx), JLOG_ERR_CREATE_MKDIR);
  SAME(jlog_ctx_errno(ctx), ENOENT);
  SAME(jlog_ctx_close(ctx), 0);
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  ctx = jlog_new(name);
  FAILS(ctx, jlog_ctx_init(ctx), JLOG_ERR_CREATE_PATHLEN);
  SAME(jlog_ctx_close(ctx), 0);
}

static void errors_of_opening(void) {
  jlog_ctx *ctx = fresh("nowhere");
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_OPEN);
  SAME(jlog_ctx_errno(ctx), ENOENT);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("nowhere");
  FAILS(ctx, jlog_ctx_open_reader(ctx, "a"), JLOG_ERR_OPEN);
  SAME(jlog_ctx_errno(ctx), ENOENT);
  SAME(jlog_ctx_close(ctx), 0);
  make_file("plainfile", "x", 1);
  ctx = fresh("plainfile");
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_NOTDIR);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("plainfile");
  FAILS(ctx, jlog_ctx_open_reader(ctx, "a"), JLOG_ERR_NOTDIR);
  SAME(jlog_ctx_close(ctx), 0);
  /* A directory that is no jlog. */
  SAME(mkdir(in("empty"), 0755), 0);
  ctx = fresh("empty");
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_META_OPEN);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("empty");
  FAILS(ctx, jlog_ctx_open_reader(ctx, "a"), JLOG_ERR_META_OPEN);
  SAME(jlog_ctx_close(ctx), 0);
  /* An invalid metastore is not changed. */
  create("magic", 4096, 0, "a");
  uint32_t strange[4] = {0, 4096, 1, 0x12345678}, found[4];
  overwrite(in("magic/metastore"), 0, strange, sizeof strange);
  ctx = fresh("magic");
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_META_OPEN);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("magic");
  FAILS(ctx, jlog_ctx_open_reader(ctx, "a"), JLOG_ERR_META_OPEN);
  SAME(jlog_ctx_close(ctx), 0);
  int fd = open(in("magic/metastore"), O_RDONLY);
  SAME(read(fd, found, sizeof found), 16);
  close(fd);
  CHECK(memcmp(found, strange, sizeof found) == 0);
  /* A pre-commit buffer that another writer uses. */
  create("busy", 4096, 0, "a");
  jlog_ctx *first = fresh("busy");
  jlog_ctx_set_pre_commit_buffer_size(first, 512);
  OK(first, jlog_ctx_open_writer(first));
  ctx = fresh("busy");
  jlog_ctx_set_pre_commit_buffer_size(ctx, 512);
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_PRE_COMMIT_OPEN);
  refuses_writing(ctx);
  SAME(jlog_ctx_close(ctx), 0);
  fill(first, "busy", 0, 20);
  SAME(jlog_ctx_close(first), 0);
  ctx = reader_of("busy", "a");
  SAME(drain(ctx, "busy", 0), 20);
  SAME(jlog_ctx_close(ctx), 0);
}

static void a_pre_commit_buffer_that_cannot_be_opened(void) {
  create("blocked", 4096, 0, "a");
  SAME(mkdir(in("blocked/pre_commit"), 0755), 0);
  jlog_ctx *ctx = fresh("blocked");
  jlog_ctx_set_pre_commit_buffer_size(ctx, 512);
  FAILS(ctx, jlog_ctx_open_writer(ctx), JLOG_ERR_PRE_COMMIT_OPEN);
  SAME(jlog_ctx_close(ctx), 0);
}

static void errors_of_subscribers(void) {
  jlog_id id = {0, 0};
  create("subscribers", 4096, 0, "a");
  jlog_ctx *ctx = fresh("subscribers");
  FAILS(ctx, jlog_ctx_add_subscriber(ctx, "a", JLOG_BEGIN), JLOG_ERR_SUBSCRIBER_EXISTS);
  SAME(jlog_ctx_errno(ctx), EEXIST);
  FAILS(ctx, jlog_ctx_add_subscriber(ctx, "a", JLOG_END), JLOG_ERR_SUBSCRIBER_EXISTS);
  FAILS(ctx, jlog_ctx_add_subscriber(ctx, "z", (jlog_position)5), JLOG_ERR_NOT_SUPPORTED);
  SAME(jlog_ctx_remove_subscriber(ctx, "nobody"), 0);
  SAME(jlog_ctx_err(ctx), JLOG_ERR_INVALID_SUBSCRIBER);
  SAME(jlog_get_checkpoint(ctx, "nobody", &id), -1);
  SAME(jlog_ctx_add_subscriber_copy_checkpoint(ctx, "b", "nobody"), -1);
  CHECK(!there("subscribers/cp.62"));
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("nowhere");
  FAILS(ctx, jlog_ctx_add_subscriber(ctx, "a", JLOG_BEGIN), JLOG_ERR_OPEN);
  SAME(jlog_ctx_errno(ctx), ENOENT);
  char **list = NULL;
  SAME(jlog_ctx_list_subscribers(ctx, &list), -1);
  SAME(jlog_get_checkpoint(ctx, "a", &id), -1);
  SAME(jlog_ctx_first_log_id(ctx, &id), -1);
  SAME(jlog_pending_readers(ctx, 0, NULL), -1);
  SAME(jlog_raw_size(ctx), 0);
  SAME(jlog_ctx_close(ctx), 0);
}

static void errors_of_reading(const char *checked) {
  jlog_id first, last, id;
  jlog_message message, many[8];
  /* Messages of ten bytes, three to a segment: segments 0 and 1 are complete, segment 2 has one. */
  create("reading", 70, 0, "a");
  jlog_ctx *ctx = writer_of("reading");
  fill(ctx, "message-00", 0, 7);
  OK(ctx, jlog_ctx_add_subscriber(ctx, "b", JLOG_BEGIN));
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("reading", "a");
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 3);
  id = (jlog_id){0, 0};
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_ILLEGAL_LOGID);
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &id, 1, many), JLOG_ERR_ILLEGAL_LOGID);
  id = (jlog_id){0, 4};
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_CLOSE_LOGID);
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &id, 1, many), JLOG_ERR_CLOSE_LOGID);
  id = (jlog_id){0, 5};
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_ILLEGAL_LOGID);
  id = (jlog_id){2, 2};
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_ILLEGAL_LOGID);
  id = (jlog_id){9, 1};
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_FILE_OPEN);
  SAME(jlog_ctx_errno(ctx), ENOENT);
  /* In bulk: as many as there are, or nothing. */
  SAME(jlog_ctx_bulk_read_messages(ctx, &first, 0, many), 0);
  SAME(jlog_ctx_bulk_read_messages(ctx, &first, -4, many), 0);
  OK(ctx, jlog_ctx_bulk_read_messages(ctx, &first, 3, many));
  for (int n = 0; n < 3; n++) CHECK(is_message(&many[n], "message-00", n));
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &first, 4, many), JLOG_ERR_IDX_CORRUPT);
  /* The context is still usable after all that. */
  SAME(drain(ctx, "message-00", 0), 7);
  /* A segment that the other reader needs is removed. */
  jlog_ctx *other = reader_of("reading", "b");
  SAME(unlink(in("reading/00000000")), 0);
  id = (jlog_id){0, 1};
  FAILS(other, jlog_ctx_read_message(other, &id, &message), JLOG_ERR_FILE_OPEN);
  FAILS(other, jlog_ctx_bulk_read_messages(other, &id, 1, many), JLOG_ERR_FILE_OPEN);
  SAME(drain(other, "message-00", 3), 4);
  SAME(jlog_ctx_close(other), 0);
  SAME(jlog_ctx_close(ctx), 0);
  /* Damage that only checksums reveal: the header is sound, the body is not. */
  char path[2048];
  snprintf(path, sizeof path, "%s/00000000", checked);
  ctx = jlog_new(checked);
  OK(ctx, jlog_ctx_open_reader(ctx, "s"));
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
  OK(ctx, jlog_ctx_read_message(ctx, &last, &message));
  SAME(jlog_ctx_close(ctx), 0);
  overwrite(path, 16, "\xff", 1);
  ctx = jlog_new(checked);
  OK(ctx, jlog_ctx_open_reader(ctx, "s"));
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
  FAILS(ctx, jlog_ctx_read_message(ctx, &first, &message), JLOG_ERR_FILE_CORRUPT);
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &first, 2, many), JLOG_ERR_FILE_CORRUPT);
  OK(ctx, jlog_ctx_read_message(ctx, &last, &message));
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &last));
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 0);
  SAME(jlog_ctx_close(ctx), 0);
}

static void the_largest_marker(void) {
  jlog_message many[2];
  jlog_id id = {0, 0xffffffff};
  create("largest", 4096, 0, "a");
  jlog_ctx *ctx = writer_of("largest");
  fill(ctx, "l", 0, 2);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("largest", "a");
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, many), JLOG_ERR_ILLEGAL_LOGID);
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &id, 2, many), JLOG_ERR_ILLEGAL_LOGID);
  id.marker = 0xfffffffe;
  FAILS(ctx, jlog_ctx_bulk_read_messages(ctx, &id, 2, many), JLOG_ERR_ILLEGAL_LOGID);
  SAME(jlog_ctx_close(ctx), 0);
}

static void errors_of_writing(void) {
  create("full", 1 << 20, 0, "a");
  jlog_ctx *ctx = writer_of("full");
  fill(ctx, "full", 0, 2);
  FAILS(ctx, jlog_ctx_write(ctx, "x", SIZE_MAX), JLOG_ERR_FILE_WRITE);
  /* Files may not grow any more. */
  struct rlimit limit, old;
  char big[4096];
  memset(big, 'b', sizeof big);
  signal(SIGXFSZ, SIG_IGN);
  SAME(getrlimit(RLIMIT_FSIZE, &old), 0);
  limit = old;
  limit.rlim_cur = 2048;
  SAME(setrlimit(RLIMIT_FSIZE, &limit), 0);
  int result = jlog_ctx_write(ctx, big, sizeof big);
  int code = jlog_ctx_err(ctx), number = jlog_ctx_errno(ctx);
  SAME(setrlimit(RLIMIT_FSIZE, &old), 0);
  SAME(result, -1);
  SAME(code, JLOG_ERR_FILE_WRITE);
  SAME(number, EFBIG);
  /* The refused message is not stored, and the following ones are. */
  fill(ctx, "full", 2, 2);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("full", "a");
  SAME(drain(ctx, "full", 0), 4);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- the error function --- */

struct heard {
  int times;
  char text[512];
};

static void hear(void *data, const char *format, ...) {
  struct heard *heard = data;
  va_list values;
  va_start(values, format);
  vsnprintf(heard->text, sizeof heard->text, format, values);
  va_end(values);
  heard->times++;
}

static void errors_are_told(void) {
  struct heard heard = {0}, other = {0};
  char number[32];
  create("told", 4096, 0, "a");
  jlog_ctx *ctx = fresh("told");
  jlog_set_error_func(ctx, hear, &heard);
  FAILS(ctx, jlog_ctx_open_reader(ctx, "nobody"), JLOG_ERR_INVALID_SUBSCRIBER);
  CHECK(heard.times > 0);
  snprintf(number, sizeof number, "error: %d (", JLOG_ERR_INVALID_SUBSCRIBER);
  CHECK(strstr(heard.text, number) != NULL);
  CHECK(strstr(heard.text, "(JLOG_ERR_INVALID_SUBSCRIBER)") != NULL);
  snprintf(number, sizeof number, "errno: %d (%s)", ENOENT, strerror(ENOENT));
  CHECK(strstr(heard.text, number) != NULL);
  CHECK(heard.text[strlen(heard.text) - 1] == '\n');
  SAME(jlog_ctx_close(ctx), 0);
  /* Another function with other data; calls that succeed are not reported; NULL ends the reports. */
  ctx = reader_of("told", "a");
  jlog_set_error_func(ctx, hear, &heard);
  jlog_set_error_func(ctx, hear, &other);
  int before = heard.times;
  jlog_id id = {0, 0};
  jlog_message message;
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_ILLEGAL_LOGID);
  CHECK(other.times > 0 && strstr(other.text, "JLOG_ERR_ILLEGAL_LOGID") != NULL);
  SAME(heard.times, before);
  before = other.times;
  SAME(jlog_ctx_read_interval(ctx, &id, &id), 0);
  SAME(other.times, before);
  jlog_set_error_func(ctx, NULL, NULL);
  id.marker = 0;
  FAILS(ctx, jlog_ctx_read_message(ctx, &id, &message), JLOG_ERR_ILLEGAL_LOGID);
  SAME(other.times, before);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- messages in memory --- */

static void messages_stay(int compressed) {
  enum { COUNT = 3000 };
  static jlog_message all[COUNT];
  const char *name = compressed ? "stay-lz4" : "stay";
  create(name, 1 << 20, compressed, "a");
  jlog_ctx *ctx = writer_of(name);
  fill(ctx, "a message that stays where it is, number ", 0, COUNT);
  SAME(jlog_ctx_close(ctx), 0);
  jlog_id first, last, id;
  ctx = reader_of(name, "a");
  SAME(jlog_ctx_read_interval(ctx, &first, &last), COUNT);
  if (!compressed) {
    /* Mapped: messages stay valid until the next interval. */
    int n = 0;
    for (id = first; id.marker <= last.marker; JLOG_ID_ADVANCE(&id)) {
      OK(ctx, jlog_ctx_read_message(ctx, &id, &all[n++]));
    }
    for (n = 0; n < COUNT; n++) CHECK(is_message(&all[n], "a message that stays where it is, number ", n));
    /* Going back, and reading in any order, does not affect the other messages. */
    jlog_message message;
    id.marker = 1;
    OK(ctx, jlog_ctx_read_message(ctx, &id, &message));
    id.marker = COUNT / 2;
    OK(ctx, jlog_ctx_read_message(ctx, &id, &message));
    CHECK(is_message(&all[COUNT - 1], "a message that stays where it is, number ", COUNT - 1));
    CHECK(is_message(&message, "a message that stays where it is, number ", COUNT / 2 - 1));
    /* Backwards from a fresh interval. */
    SAME(jlog_ctx_read_interval(ctx, &first, &last), COUNT);
    for (id = last, n = COUNT; id.marker >= first.marker; id.marker--) {
      OK(ctx, jlog_ctx_read_message(ctx, &id, &all[--n]));
    }
    for (n = 0; n < COUNT; n++) CHECK(is_message(&all[n], "a message that stays where it is, number ", n));
  }
  /* In bulk: messages, plain or compressed, mapped or read, stay valid until the next call. */
  for (int method = 0; method < 2; method++) {
    SAME(jlog_ctx_read_interval(ctx, &first, &last), COUNT);
    SAME(jlog_ctx_alter_read_method(ctx, (jlog_read_method_type)method), 0);
    OK(ctx, jlog_ctx_bulk_read_messages(ctx, &first, COUNT, all));
    for (int n = 0; n < COUNT; n++) CHECK(is_message(&all[n], "a message that stays where it is, number ", n));
    id = (jlog_id){first.log, first.marker + 100};
    OK(ctx, jlog_ctx_bulk_read_messages(ctx, &id, 50, all));
    for (int n = 0; n < 50; n++) CHECK(is_message(&all[n], "a message that stays where it is, number ", n + 100));
  }
  /* Read, not mapped: one at a time. */
  SAME(jlog_ctx_read_interval(ctx, &first, &last), COUNT);
  SAME(jlog_ctx_alter_read_method(ctx, JLOG_READ_METHOD_PREAD), 0);
  SAME(drain(ctx, "a message that stays where it is, number ", 0), COUNT);
  SAME(jlog_ctx_close(ctx), 0);
}

static void headers_and_times(void) {
  for (int compressed = 0; compressed < 2; compressed++) {
    const char *name = compressed ? "times-lz4" : "times";
    create(name, 1 << 20, compressed, "a");
    jlog_ctx *ctx = writer_of(name);
    struct timeval when = {1234567890, 654321}, now;
    char body[1000];
    memset(body, 'z', sizeof body);
    jlog_message message = {0}, found;
    message.mess = body;
    message.mess_len = sizeof body;
    OK(ctx, jlog_ctx_write_message(ctx, &message, &when));
    gettimeofday(&now, NULL);
    OK(ctx, jlog_ctx_write_message(ctx, &message, NULL));
    SAME(jlog_ctx_close(ctx), 0);
    ctx = reader_of(name, "a");
    jlog_id first, last;
    SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
    OK(ctx, jlog_ctx_read_message(ctx, &first, &found));
    SAME(found.mess_len, sizeof body);
    CHECK(memcmp(found.mess, body, sizeof body) == 0);
    SAME(found.header->tv_sec, 1234567890);
    SAME(found.header->tv_usec, 654321);
    SAME(found.header->mlen, sizeof body);
    SAME(found.header->reserved, compressed ? 0x15106A01 : 0x663A7318);
    if (compressed) CHECK(found.header->compressed_len < sizeof body / 2);
    OK(ctx, jlog_ctx_read_message(ctx, &last, &found));
    CHECK(found.header->tv_sec >= now.tv_sec && found.header->tv_sec <= now.tv_sec + 10);
    CHECK(found.header->tv_usec < 1000000);
    SAME(jlog_ctx_close(ctx), 0);
  }
}

/* --- pre-commit --- */

static void buffered(void) {
  jlog_id first, last;
  create("buffered", 1 << 20, 0, "a");
  jlog_ctx *writer = fresh("buffered");
  SAME(jlog_ctx_set_pre_commit_buffer_size(writer, 4096), 0);
  OK(writer, jlog_ctx_open_writer(writer));
  SAME(size_of("buffered/pre_commit"), 4100);
  fill(writer, "b", 0, 5);
  jlog_ctx *reader = reader_of("buffered", "a");
  SAME(jlog_ctx_read_interval(reader, &first, &last), 0);
  OK(writer, jlog_ctx_flush_pre_commit_buffer(writer));
  SAME(drain(reader, "b", 0), 5);
  /* A record larger than the buffer comes after the buffer's contents. */
  fill(writer, "b", 5, 3);
  char big[5000];
  memset(big, 'b', sizeof big);
  OK(writer, jlog_ctx_write(writer, big, sizeof big));
  fill(writer, "b", 8, 2);
  SAME(jlog_ctx_close(writer), 0);
  SAME(jlog_ctx_read_interval(reader, &first, &last), 6);
  for (int n = 0; n < 6; n++, JLOG_ID_ADVANCE(&first)) {
    jlog_message message;
    OK(reader, jlog_ctx_read_message(reader, &first, &message));
    if (n == 3) {
      SAME(message.mess_len, sizeof big);
      CHECK(memcmp(message.mess, big, sizeof big) == 0);
    } else {
      CHECK(is_message(&message, "b", n < 3 ? 5 + n : 4 + n));
    }
  }
  SAME(jlog_ctx_close(reader), 0);
}

/* --- subscribers --- */

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void subscribers(void) {
  jlog_id id = {0, 0};
  char **list = NULL;
  create("names", 70, 0, NULL);
  jlog_ctx *ctx = writer_of("names");
  SAME(jlog_ctx_list_subscribers(ctx, &list), 0);
  CHECK(list != NULL && list[0] == NULL);
  SAME(jlog_ctx_list_subscribers_dispose(ctx, list), 0);
  OK(ctx, jlog_ctx_add_subscriber(ctx, "begin", JLOG_BEGIN));
  fill(ctx, "message-00", 0, 7);
  OK(ctx, jlog_ctx_add_subscriber(ctx, "end", JLOG_END));
  OK(ctx, jlog_ctx_add_subscriber(ctx, "a b/\xc3\xa4", JLOG_BEGIN));
  CHECK(there("names/cp.6120622fc3a4"));
  id = (jlog_id){1, 2};
  SAME(jlog_ctx_set_subscriber_checkpoint(ctx, "set", &id), 0);
  SAME(jlog_ctx_add_subscriber_copy_checkpoint(ctx, "copy", "set"), 0);
  SAME(jlog_ctx_list_subscribers(ctx, &list), 5);
  CHECK(list[5] == NULL);
  qsort(list, 5, sizeof *list, by_name);
  CHECK(strcmp(list[0], "a b/\xc3\xa4") == 0 && strcmp(list[1], "begin") == 0 && strcmp(list[2], "copy") == 0);
  CHECK(strcmp(list[3], "end") == 0 && strcmp(list[4], "set") == 0);
  SAME(jlog_ctx_list_subscribers_dispose(ctx, list), 0);
  SAME(jlog_get_checkpoint(ctx, "begin", &id), 0);
  CHECK(id.log == 0 && id.marker == 0);
  SAME(jlog_get_checkpoint(ctx, "end", &id), 0);
  CHECK(id.log == 2 && id.marker == 1);
  SAME(jlog_get_checkpoint(ctx, "copy", &id), 0);
  CHECK(id.log == 1 && id.marker == 2);
  /* How many subscribers need which segments. */
  uint32_t earliest = 99;
  SAME(jlog_pending_readers(ctx, 0, &earliest), 2);
  SAME(earliest, 0);
  SAME(jlog_pending_readers(ctx, 1, NULL), 4);
  SAME(__jlog_pending_readers(ctx, 2), 5);
  /* Segments are removed when nobody needs them. */
  SAME(jlog_ctx_remove_subscriber(ctx, "a b/\xc3\xa4"), 1);
  SAME(jlog_ctx_remove_subscriber(ctx, "a b/\xc3\xa4"), 0);
  CHECK(there("names/00000000"));
  id = (jlog_id){1, 0};
  SAME(jlog_ctx_set_subscriber_checkpoint(ctx, "begin", &id), 0);
  CHECK(!there("names/00000000") && there("names/00000001"));
  SAME(jlog_ctx_first_log_id(ctx, &id), 0);
  CHECK(id.log == 1 && id.marker == 0);
  SAME(jlog_ctx_remove_subscriber(ctx, "begin"), 1);
  SAME(jlog_ctx_remove_subscriber(ctx, "set"), 1);
  SAME(jlog_ctx_remove_subscriber(ctx, "copy"), 1);
  CHECK(there("names/00000001"));
  SAME(jlog_ctx_close(ctx), 0);
  SAME(jlog_clean(in("names")), 1);
  CHECK(!there("names/00000001") && there("names/00000002"));
  SAME(jlog_clean(in("names")), 0);
  SAME(jlog_clean(in("nowhere")), -1);
  /* A reader moves its subscriber's checkpoint. */
  ctx = reader_of("names", "end");
  id = (jlog_id){2, 0};
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &id));
  SAME(drain(ctx, "message-00", 6), 1);
  SAME(jlog_get_checkpoint(ctx, "end", &id), 0);
  CHECK(id.log == 2 && id.marker == 1);
  /* A checkpoint past the end of its segment is moved back. */
  id = (jlog_id){2, 50};
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &id));
  jlog_id last;
  SAME(jlog_ctx_read_interval(ctx, &id, &last), 0);
  jlog_ctx *writer = writer_of("names");
  fill(writer, "message-00", 7, 1);
  SAME(jlog_ctx_close(writer), 0);
  SAME(drain(ctx, "message-00", 7), 1);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- ids --- */

static void walking(void) {
  jlog_id first, last, cur, start, finish;
  jlog_message message;
  uint32_t number = 0;
  create("walking", 70, 0, "a");
  jlog_ctx *ctx = writer_of("walking");
  fill(ctx, "message-00", 0, 8);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("walking", "a");
  OK(ctx, jlog_ctx_first_log_id(ctx, &first));
  CHECK(first.log == 0 && first.marker == 0);
  OK(ctx, jlog_ctx_last_log_id(ctx, &last));
  CHECK(last.log == 2 && last.marker == 2);
  OK(ctx, jlog_ctx_last_storage_log(ctx, &number));
  SAME(number, 2);
  /* From the first to the last record, across segments, without storing a checkpoint. */
  SAME(jlog_ctx_read_interval(ctx, &start, &finish), 3);
  cur = start;
  for (int n = 0; n < 8; n++) {
    OK(ctx, jlog_ctx_read_message(ctx, &start, &message));
    CHECK(is_message(&message, "message-00", n));
    cur = start;
    OK(ctx, jlog_ctx_advance_id(ctx, &cur, &start, &finish));
  }
  /* At the end, the id no longer moves. */
  CHECK(start.log == 2 && start.marker == 2 && finish.log == 2 && finish.marker == 2);
  SAME(jlog_get_checkpoint(ctx, "a", &cur), 0);
  CHECK(cur.log == 0 && cur.marker == 0);
  /* An interval is within one segment; after an exhausted one, the checkpoint moves to the next. */
  cur = (jlog_id){0, 3};
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &cur));
  SAME(jlog_ctx_read_interval(ctx, &start, &finish), 3);
  CHECK(start.log == 1 && start.marker == 1 && finish.log == 1 && finish.marker == 3);
  SAME(jlog_get_checkpoint(ctx, "a", &cur), 0);
  CHECK(cur.log == 1 && cur.marker == 0);
  CHECK(!there("walking/00000000") && !there("walking/00000000.idx"));
  cur = (jlog_id){1, 1};
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &cur));
  SAME(jlog_ctx_read_interval(ctx, &start, &finish), 2);
  CHECK(start.log == 1 && start.marker == 2 && finish.marker == 3);
  /* If there is nothing new, both ids are the checkpoint. */
  cur = (jlog_id){2, 2};
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &cur));
  SAME(jlog_ctx_read_interval(ctx, &start, &finish), 0);
  CHECK(start.log == 2 && start.marker == 2 && finish.log == 2 && finish.marker == 2);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- maintenance --- */

static void looking_after(void) {
  uint32_t marker = 99;
  int closed = 99;
  create("care", 70, 0, "a");
  jlog_ctx *ctx = writer_of("care");
  fill(ctx, "message-00", 0, 7);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = fresh("care");
  DIR *dir = opendir(in("care"));
  struct dirent *entry;
  long long sum = 0;
  while ((entry = readdir(dir)) != NULL) {
    char path[512];
    snprintf(path, sizeof path, "care/%s", entry->d_name);
    struct stat facts;
    if (stat(in(path), &facts) == 0 && S_ISREG(facts.st_mode)) sum += facts.st_size;
  }
  closedir(dir);
  SAME(jlog_raw_size(ctx), sum);
  SAME(jlog_ctx_close(ctx), 0);

  ctx = reader_of("care", "a");
  jlog_id first, last;
  jlog_message message;
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 3);
  OK(ctx, jlog_ctx_read_message(ctx, &last, &message));
  OK(ctx, jlog_idx_details(ctx, 0, &marker, &closed));
  SAME(marker, 3);
  SAME(closed, 1);
  SAME(jlog_ctx_close(ctx), 0);
  make_file("care/00000000.idx", "abc", 3);
  ctx = fresh("care");
  FAILS(ctx, jlog_idx_details(ctx, 0, &marker, &closed), JLOG_ERR_IDX_CORRUPT);
  SAME(jlog_ctx_close(ctx), 0);
  /* An invalid index is rebuilt. */
  ctx = reader_of("care", "a");
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 3);
  OK(ctx, jlog_ctx_read_message(ctx, &last, &message));
  SAME(jlog_inspect_datafile(ctx, 0, 0), 0);
  FAILS(ctx, jlog_inspect_datafile(ctx, 77, 0), JLOG_ERR_FILE_OPEN);
  FAILS(ctx, jlog_repair_datafile(ctx, 77), JLOG_ERR_FILE_OPEN);
  SAME(jlog_repair_datafile(ctx, 0), 0);
  /* The header of the second of three records is damaged: the others can be read, and repair takes
   * the damage out. The findings on stderr do not matter here. */
  fflush(stderr);
  int told = dup(2), nothing = open("/dev/null", O_WRONLY);
  dup2(nothing, 2);
  overwrite(in("care/00000000"), 27, "\x01\x02\x03\x04", 4);
  int inspected = jlog_inspect_datafile(ctx, 0, 1);
  dup2(told, 2);
  close(told);
  close(nothing);
  SAME(inspected, 1);
  SAME(jlog_repair_datafile(ctx, 0), 1);
  SAME(size_of("care/00000000"), 54);
  SAME(jlog_inspect_datafile(ctx, 0, 0), 0);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("care", "a");
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
  OK(ctx, jlog_ctx_read_message(ctx, &last, &message));
  CHECK(is_message(&message, "message-00", 2));
  SAME(jlog_ctx_close(ctx), 0);
  /* Repair of the metadata only, of everything, and of a sound jlog. An unreadable checkpoint is
   * moved to the beginning, so that nothing is skipped. */
  SAME(unlink(in("care/metastore")), 0);
  make_file("care/cp.61", "abcd", 4);
  ctx = fresh("care");
  struct heard heard = {0};
  jlog_set_error_func(ctx, hear, &heard);
  SAME(jlog_ctx_repair(ctx, 0), 0);
  SAME(heard.times, 2);
  CHECK(strstr(heard.text, "JLOG repair: subscriber a: ") == heard.text);
  CHECK(strstr(heard.text, "checkpoint set to 00000000:00000000\n") != NULL);
  SAME(size_of("care/metastore"), 16);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("care", "a");
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
  SAME(jlog_ctx_close(ctx), 0);
  make_file("care/cp.61", "abcdabcda", 9);
  ctx = fresh("care");
  SAME(jlog_ctx_repair(ctx, 1), 0);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("care", "a");
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
  SAME(jlog_ctx_close(ctx), 0);
}

/* As the C library's tool does it: a writer's context repairs a segment that is no longer written to. */
static void repairing_with_a_writer(void) {
  jlog_id first, last;
  create("mended", 70, 0, "a");
  jlog_ctx *ctx = writer_of("mended");
  fill(ctx, "message-00", 0, 7);
  overwrite(in("mended/00000001"), 27, "\x01\x02\x03\x04", 4);
  SAME(jlog_repair_datafile(ctx, 0), 0);
  SAME(jlog_repair_datafile(ctx, 1), 1);
  SAME(size_of("mended/00000001"), 54);
  fill(ctx, "message-00", 7, 1);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("mended", "a");
  first.log = 0;
  first.marker = 3;
  OK(ctx, jlog_ctx_read_checkpoint(ctx, &first));
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 2);
  SAME(first.log, 1);
  SAME(jlog_ctx_close(ctx), 0);
}

static void the_index_of_the_segment_being_written(void) {
  uint32_t marker = 99;
  int closed = 99;
  jlog_id first, last;
  create("index", 4096, 0, "a");
  jlog_ctx *ctx = writer_of("index");
  fill(ctx, "i", 0, 3);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("index", "a");
  OK(ctx, jlog_idx_details(ctx, 0, &marker, &closed));
  SAME(marker, 0);
  SAME(closed, 0);
  SAME(jlog_ctx_read_interval(ctx, &first, &last), 3);
  OK(ctx, jlog_idx_details(ctx, 0, &marker, &closed));
  SAME(marker, 3);
  SAME(closed, 0);
  jlog_ctx *writer = writer_of("index");
  fill(writer, "i", 3, 2);
  SAME(jlog_ctx_close(writer), 0);
  OK(ctx, jlog_ctx_last_log_id(ctx, &last));
  OK(ctx, jlog_idx_details(ctx, 0, &marker, &closed));
  SAME(marker, 5);
  SAME(closed, 0);
  SAME(jlog_ctx_close(ctx), 0);
}

/* --- contexts, threads, processes --- */

static void several_contexts(void) {
  create("first", 4096, 0, "a");
  create("second", 4096, 1, "a");
  jlog_ctx *one = writer_of("first"), *two = writer_of("first"), *three = writer_of("second");
  OK(one, jlog_ctx_add_subscriber(one, "b", JLOG_BEGIN));
  jlog_ctx *a = reader_of("first", "a"), *b = reader_of("first", "b"), *c = reader_of("second", "a");
  int a_read = 0;
  for (int n = 0; n < 1000; n += 10) {
    fill(one, "shared by two writers ", n, 5);
    fill(two, "shared by two writers ", n + 5, 5);
    fill(three, "alone ", n, 10);
    if (n % 100 == 0) a_read += drain(a, "shared by two writers ", a_read);
  }
  a_read += drain(a, "shared by two writers ", a_read);
  SAME(a_read, 1000);
  SAME(drain(b, "shared by two writers ", 0), 1000);
  SAME(drain(c, "alone ", 0), 1000);
  /* Closing one context does not affect the others. */
  SAME(jlog_ctx_close(one), 0);
  SAME(jlog_ctx_close(a), 0);
  fill(two, "shared by two writers ", 1000, 10);
  SAME(drain(b, "shared by two writers ", 1000), 10);
  SAME(jlog_ctx_close(b), 0);
  SAME(jlog_ctx_close(c), 0);
  SAME(jlog_ctx_close(two), 0);
  SAME(jlog_ctx_close(three), 0);
}

enum { THREADS = 4, EACH = 2000 };

struct work {
  jlog_ctx *ctx;
  int number;
  int bad;
};

static void *write_many(void *data) {
  struct work *work = data;
  for (int n = 0; n < EACH; n++) {
    char body[64];
    int len = snprintf(body, sizeof body, "thread %d message %d", work->number, n);
    if (jlog_ctx_write(work->ctx, body, (size_t)len) != 0) work->bad++;
  }
  return NULL;
}

static void threads_share_a_writer(size_t buffer) {
  const char *name = buffer ? "threads-buffered" : "threads";
  pthread_t threads[THREADS];
  struct work works[THREADS];
  int next[THREADS] = {0}, total = 0;
  create(name, 32768, 0, "a");
  jlog_ctx *ctx = fresh(name);
  if (buffer) jlog_ctx_set_pre_commit_buffer_size(ctx, buffer);
  OK(ctx, jlog_ctx_open_writer(ctx));
  for (int t = 0; t < THREADS; t++) {
    works[t] = (struct work){ctx, t, 0};
    SAME(pthread_create(&threads[t], NULL, write_many, &works[t]), 0);
  }
  for (int t = 0; t < THREADS; t++) {
    SAME(pthread_join(threads[t], NULL), 0);
    SAME(works[t].bad, 0);
  }
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of(name, "a");
  jlog_id first, last;
  while (jlog_ctx_read_interval(ctx, &first, &last) > 0) {
    for (; first.marker <= last.marker; JLOG_ID_ADVANCE(&first)) {
      jlog_message message;
      char text[64];
      int thread, n;
      OK(ctx, jlog_ctx_read_message(ctx, &first, &message));
      CHECK(message.mess_len < sizeof text);
      memcpy(text, message.mess, message.mess_len);
      text[message.mess_len] = '\0';
      SAME(sscanf(text, "thread %d message %d", &thread, &n), 2);
      CHECK(thread >= 0 && thread < THREADS);
      SAME(n, next[thread]);
      next[thread]++;
      total++;
    }
    OK(ctx, jlog_ctx_read_checkpoint(ctx, &last));
  }
  SAME(total, THREADS * EACH);
  SAME(jlog_ctx_close(ctx), 0);
}

static void fork_after_close(void) {
  create("forked", 1024, 0, "a");
  jlog_ctx *ctx = writer_of("forked");
  fill(ctx, "forked ", 0, 50);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("forked", "a");
  SAME(drain(ctx, "forked ", 0), 50);
  SAME(jlog_ctx_close(ctx), 0);
  fflush(NULL);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    ctx = writer_of("forked");
    fill(ctx, "forked ", 50, 50);
    _exit(jlog_ctx_close(ctx));
  }
  int status = -1;
  SAME(waitpid(child, &status, 0), child);
  SAME(status, 0);
  ctx = writer_of("forked");
  fill(ctx, "forked ", 100, 50);
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("forked", "a");
  SAME(drain(ctx, "forked ", 50), 100);
  SAME(jlog_ctx_close(ctx), 0);
}

/* Every message is followed by a NUL byte, however it is read; earlier messages do not change. */
static void nul_after_each(int compressed, jlog_read_method_type method) {
  enum { COUNT = 400 };
  static char body[COUNT];
  static jlog_message all[COUNT];
  const char *name = compressed ? (method ? "nul-cp" : "nul-cm") : (method ? "nul-pp" : "nul-pm");
  create(name, 20000, compressed, "a");
  jlog_ctx *ctx = writer_of(name);
  memset(body, 'n', sizeof body);
  for (int n = 0; n < COUNT; n++) OK(ctx, jlog_ctx_write(ctx, body, (size_t)n));
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of(name, "a");
  SAME(jlog_ctx_alter_read_method(ctx, method), 0);
  int total = 0;
  for (;;) {
    jlog_id first, last;
    int count = jlog_ctx_read_interval(ctx, &first, &last);
    CHECK(count >= 0 && total + count <= COUNT);
    if (count == 0) break;
    OK(ctx, jlog_ctx_bulk_read_messages(ctx, &first, count, all));
    for (int n = 0; n < count; n++) {
      SAME(all[n].mess_len, total + n);
      SAME(strlen(all[n].mess), total + n);
      SAME(memcmp(all[n].mess, body, (size_t)(total + n)), 0);
    }
    /* One by one, forward, and at random. */
    for (int n = 0; n < 2 * count; n++) {
      int at = n < count ? n : (n * 7919) % count;
      jlog_message message;
      jlog_id id = {first.log, first.marker + (unsigned)at};
      OK(ctx, jlog_ctx_read_message(ctx, &id, &message));
      SAME(message.mess_len, total + at);
      SAME(strlen(message.mess), total + at);
      SAME(message.header->mlen, total + at);
    }
    if (!compressed && method == JLOG_READ_METHOD_MMAP) {
      for (int n = 0; n < count; n++) SAME(strlen(all[n].mess), total + n);
    }
    total += count;
    OK(ctx, jlog_ctx_read_checkpoint(ctx, &last));
  }
  SAME(total, COUNT);
  SAME(jlog_ctx_close(ctx), 0);
}

/* Truncating a segment neither takes away messages that were read from it nor kills the reader. */
static void a_cut_segment_leaves_what_was_read(void) {
  enum { COUNT = 200, SIZE = 10000 };
  static char body[SIZE];
  static jlog_message all[COUNT];
  create("cut", 1 << 30, 0, "a");
  jlog_ctx *ctx = writer_of("cut");
  for (int n = 0; n < COUNT; n++) {
    memset(body, 'a' + n % 26, SIZE);
    OK(ctx, jlog_ctx_write(ctx, body, SIZE));
  }
  SAME(jlog_ctx_close(ctx), 0);
  ctx = reader_of("cut", "a");
  jlog_id first, last;
  SAME(jlog_ctx_read_interval(ctx, &first, &last), COUNT);
  OK(ctx, jlog_ctx_bulk_read_messages(ctx, &first, COUNT, all));
  SAME(truncate(in("cut/00000000"), 0), 0);
  for (int n = 0; n < COUNT; n++) {
    memset(body, 'a' + n % 26, SIZE);
    SAME(memcmp(all[n].mess, body, SIZE), 0);
    SAME(((const char *)all[n].mess)[SIZE], 0);
  }
  SAME(jlog_ctx_close(ctx), 0);
}

/* Messages that a killed writer left in the buffer can be read as soon as the next writer opens it. */
static void a_killed_writers_buffer(int specified) {
  const char *name = specified ? "killed-1" : "killed-0";
  create(name, 100000, 0, "a");
  fflush(NULL);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    jlog_ctx *ctx = fresh(name);
    jlog_ctx_set_pre_commit_buffer_size(ctx, 4096);
    if (jlog_ctx_open_writer(ctx) != 0) _exit(1);
    fill(ctx, "killed ", 0, 20);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  SAME(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  jlog_ctx *reader = reader_of(name, "a");
  SAME(drain(reader, "killed ", 0), 0);
  jlog_ctx *writer = fresh(name);
  if (specified) jlog_ctx_set_pre_commit_buffer_size(writer, 4096);
  OK(writer, jlog_ctx_open_writer(writer));
  SAME(drain(reader, "killed ", 0), 20);
  SAME(jlog_ctx_close(writer), 0);
  SAME(drain(reader, "killed ", 20), 0);
  SAME(jlog_ctx_close(reader), 0);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  snprintf(scratch, sizeof scratch, "%s", argv[1]);
  PART(names_of_errors());
  PART(ids_as_text());
  PART(without_a_context());
  PART(without_the_rest());
  PART(states());
  PART(setting_up());
  PART(errors_of_creating());
  PART(errors_of_opening());
  PART(a_pre_commit_buffer_that_cannot_be_opened());
  PART(errors_of_subscribers());
  PART(errors_of_reading(argv[2]));
  PART(the_largest_marker());
  PART(errors_of_writing());
  PART(errors_are_told());
  PART(messages_stay(0));
  PART(messages_stay(1));
  PART(headers_and_times());
  PART(buffered());
  PART(subscribers());
  PART(walking());
  PART(looking_after());
  PART(repairing_with_a_writer());
  PART(the_index_of_the_segment_being_written());
  PART(several_contexts());
  PART(threads_share_a_writer(0));
  PART(threads_share_a_writer(8192));
  PART(fork_after_close());
  PART(nul_after_each(0, JLOG_READ_METHOD_MMAP));
  PART(nul_after_each(0, JLOG_READ_METHOD_PREAD));
  PART(nul_after_each(1, JLOG_READ_METHOD_MMAP));
  PART(nul_after_each(1, JLOG_READ_METHOD_PREAD));
  PART(a_cut_segment_leaves_what_was_read());
  PART(a_killed_writers_buffer(0));
  PART(a_killed_writers_buffer(1));
  if (differences != 0) {
    fprintf(stderr, "%u parts differ\n", differences);
    return 1;
  }
  printf("ok %u checks\n", checks);
  return 0;
}
