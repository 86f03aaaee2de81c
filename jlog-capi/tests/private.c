/*
 * A C program that includes jlog_private.h, as fq and libmtev do. It checks the names of files, the
 * fields of a context in use, and the functions that need no context. Argument: an empty working
 * directory.
 */
#define _GNU_SOURCE 1

#include "jlog_private.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jlog_hash.h"

static unsigned checks;

static void check(int line, const char *what, int good) {
  checks++;
  if (!good) {
    fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, line, what, errno);
    exit(1);
  }
}

#define CHECK(condition) check(__LINE__, #condition, (condition) ? 1 : 0)

static char scratch[1024];

static const char *in(const char *name) {
  static char paths[4][2048];
  static int turn;
  char *path = paths[turn++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
  return path;
}

static void hears(void *data, const char *format, ...) {
  (void)format;
  ++*(int *)data;
}

/* The fields of a context during its whole life. */
static void fields(void) {
  int heard = 0;
  char path[MAXPATHLEN];
  jlog_id first, last;
  jlog_message message;
  jlog_ctx *ctx = jlog_new(in("feed"));
  CHECK(strcmp(ctx->path, in("feed")) == 0);
  CHECK(ctx->context_mode == JLOG_NEW);
  CHECK(ctx->file_mode == DEFAULT_FILE_MODE);
  CHECK(ctx->meta == &ctx->pre_init);
  CHECK(ctx->meta->unit_limit == DEFAULT_UNIT_LIMIT);
  CHECK(ctx->meta->safety == DEFAULT_SAFETY);
  CHECK(ctx->meta->hdr_magic == DEFAULT_HDR_MAGIC);
  CHECK(ctx->read_method == DEFAULT_READ_MESSAGE_TYPE);
  CHECK(ctx->multi_process == 1 && ctx->current_log == 0);
  CHECK(ctx->data == NULL && ctx->index == NULL && ctx->checkpoint == NULL);
  CHECK(ctx->metastore == NULL && ctx->pre_commit == NULL);
  CHECK(ctx->mmap_base == NULL && ctx->mmap_len == 0 && ctx->data_file_size == 0);
  CHECK(ctx->reader_is_initialized == 0 && ctx->subscriber_name == NULL);
  CHECK(ctx->compressed_data_buffer == NULL && ctx->compressed_data_buffer_len == 0);
  CHECK(ctx->last_error == 0 && ctx->last_errno == 0);
  CHECK(ctx->error_func == NULL && ctx->error_ctx == NULL);
  CHECK(ctx->mess_data_size == 0 && ctx->mess_data == NULL);
  CHECK(pthread_mutex_lock(&ctx->write_lock) == 0 && pthread_mutex_unlock(&ctx->write_lock) == 0);
  jlog_set_error_func(ctx, hears, &heard);
  CHECK(ctx->error_func == hears && ctx->error_ctx == &heard);
  CHECK(jlog_ctx_add_subscriber(ctx, "s", JLOG_BEGIN) != 0);
  CHECK(heard == 1 && ctx->last_error == JLOG_ERR_OPEN && ctx->last_errno == ENOENT);
  jlog_set_error_func(ctx, NULL, NULL);
  CHECK(ctx->error_func == NULL && ctx->error_ctx == NULL);
  CHECK(jlog_ctx_alter_journal_size(ctx, 100) == 0 && ctx->meta->unit_limit == 100);
  CHECK(jlog_ctx_set_pre_commit_buffer_size(ctx, 60) == 0);
  CHECK(ctx->pre_commit_buffer_size_specified == 1 && ctx->desired_pre_commit_buffer_len == 60);
  CHECK(jlog_ctx_init(ctx) == 0 && ctx->context_mode == JLOG_INIT && ctx->last_error == 0);
  CHECK(jlog_ctx_add_subscriber(ctx, "some one", JLOG_BEGIN) == 0);
  jlog_ctx_close(ctx);

  /* Records of 26 bytes: two of them fill the buffer, four a segment. Every third write flushes the buffer. */
  jlog_ctx *writer = jlog_new(in("feed"));
  jlog_ctx_set_pre_commit_buffer_size(writer, 60);
  CHECK(jlog_ctx_open_writer(writer) == 0 && writer->context_mode == JLOG_APPEND);
  CHECK(writer->meta_is_mapped && writer->meta->unit_limit == 100);
  CHECK(writer->pre_commit_is_mapped && writer->pre_commit_buffer_len == 64);
  CHECK((char *)writer->pre_commit_buffer == (char *)writer->pre_commit_pointer + 4);
  CHECK((char *)writer->pre_commit_end == (char *)writer->pre_commit_buffer + 60);
  CHECK(jlog_file_size(writer->metastore) == 16 && jlog_file_size(writer->pre_commit) == 64);
  u_int32_t passed = 0;
  for (int n = 1; n <= 60; n++) {
    CHECK(jlog_ctx_write(writer, "0123456789", 10) == 0);
    /* A cleaner relies on this to leave the segment being written alone. */
    CHECK(writer->current_log == writer->meta->storage_log);
    CHECK((char *)writer->pre_commit_pos == (char *)writer->pre_commit_buffer + *writer->pre_commit_pointer);
    if (writer->current_log > passed) passed = writer->current_log;
    STRSETDATAFILE(writer, path, writer->current_log);
    struct stat facts;
    CHECK(stat(path, &facts) == 0 && facts.st_size == jlog_file_size(writer->data));
  }
  CHECK(passed > 10);
  CHECK(jlog_ctx_flush_pre_commit_buffer(writer) == 0 && writer->pre_commit_pos == writer->pre_commit_buffer);
  CHECK(writer->current_log == writer->meta->storage_log);
  CHECK(jlog_file_sync(writer->data) == 1);

  jlog_ctx *reader = jlog_new(in("feed"));
  CHECK(jlog_ctx_open_reader(reader, "some one") == 0 && reader->context_mode == JLOG_READ);
  CHECK(strcmp(reader->subscriber_name, "some one") == 0);
  CHECK(reader->meta_is_mapped && reader->meta->storage_log == writer->current_log);
  CHECK(jlog_file_size(reader->checkpoint) == 8 && reader->pre_commit == NULL);
  int total = 0, count;
  while ((count = jlog_ctx_read_interval(reader, &first, &last)) > 0) {
    CHECK(reader->reader_is_initialized == 0 && reader->current_log == last.log);
    for (; count > 0; count--, total++, JLOG_ID_ADVANCE(&first)) {
      CHECK(jlog_ctx_read_message(reader, &first, &message) == 0);
      CHECK(reader->reader_is_initialized == 1 && reader->current_log == first.log);
      STRSETDATAFILE(reader, path, first.log);
      struct stat facts;
      CHECK(stat(path, &facts) == 0 && facts.st_size == jlog_file_size(reader->data));
    }
    CHECK(jlog_ctx_read_checkpoint(reader, &last) == 0);
  }
  CHECK(total == 60);
  first.marker = 99;
  CHECK(jlog_ctx_read_message(reader, &first, &message) != 0);
  CHECK(reader->last_error == JLOG_ERR_ILLEGAL_LOGID && reader->last_error == jlog_ctx_err(reader));
  jlog_ctx_close(reader);
  jlog_ctx_close(writer);
}

static void names(void) {
  char name[16], path[MAXPATHLEN];
  jlog_ctx *ctx = jlog_new("/some/where");
  STRLOGID(name, 0xabcdef);
  CHECK(strcmp(name, "00abcdef") == 0);
  STRSETDATAFILE(ctx, path, 0x10u);
  CHECK(strcmp(path, "/some/where/00000010") == 0);
  strcat(path, INDEX_EXT);
  CHECK(strcmp(path, "/some/where/00000010.idx") == 0);
  CHECK(IFS_CH == '/');
  CHECK(MAXLOGPATHLEN == MAXPATHLEN - 13);
  jlog_ctx_close(ctx);
}

static void *locks(void *file) {
  CHECK(jlog_file_lock(file) == 1);
  CHECK(jlog_file_unlock(file) == 1);
  return NULL;
}

static void files(void) {
  char bytes[32];
  void *base;
  size_t len;
  pthread_t thread;
  CHECK(jlog_file_open(in("none"), 0, 0600, 1) == NULL && errno == ENOENT);
  CHECK(jlog_file_open(scratch, 0, 0600, 1) == NULL);
  jlog_file *f = jlog_file_open(in("file"), O_CREAT, 0604, 1);
  CHECK(f != NULL);
  struct stat facts;
  CHECK(stat(in("file"), &facts) == 0 && (facts.st_mode & 0777) == 0604);
  CHECK(jlog_file_open(in("file"), 0, 0600, 1) == f);
  CHECK(jlog_file_open(in("file"), O_CREAT | O_EXCL, 0600, 1) == NULL && errno == EEXIST);
  CHECK(jlog_file_close(f) == 1);
  /* The file is still open once. */
  CHECK(jlog_file_size(f) == 0);
  CHECK(jlog_file_pwrite(f, "hello", 5, 3) == 1);
  CHECK(jlog_file_size(f) == 8);
  CHECK(jlog_file_pread(f, bytes, 5, 3) == 1 && memcmp(bytes, "hello", 5) == 0);
  CHECK(jlog_file_pread(f, bytes, 6, 3) == 0);
  CHECK(jlog_file_pread(f, bytes, 1, -1) == 0);
  struct iovec parts[3] = {{(void *)"ab", 2}, {(void *)"", 0}, {(void *)"cde", 3}};
  CHECK(jlog_file_pwritev(f, parts, 3, 0) == 1);
  CHECK(jlog_file_pwritev(f, parts + 1, 1, 0) == 0);
  CHECK(jlog_file_pwritev_verify_return_value(f, parts, 3, 5, 5) == 1);
  CHECK(jlog_file_pwritev_verify_return_value(f, parts, 3, 10, 6) == 0);
  CHECK(jlog_file_size(f) == 10);
  CHECK(jlog_file_sync(f) == 1);
  CHECK(jlog_file_map_read(f, &base, &len) == 1 && len == 10 && memcmp(base, "abcdeabcde", 10) == 0);
  CHECK(munmap(base, len) == 0);
  CHECK(jlog_file_map_rdwr(f, &base, &len) == 1 && len == 10);
  ((char *)base)[9] = '!';
  CHECK(munmap(base, len) == 0);
  CHECK(jlog_file_pread(f, bytes, 10, 0) == 1 && memcmp(bytes, "abcdeabcd!", 10) == 0);
  CHECK(jlog_file_truncate(f, 4) == 1 && jlog_file_size(f) == 4);
  CHECK(jlog_file_unlock(f) == 0);
  CHECK(jlog_file_lock(f) == 1);
  /* Another process cannot lock it with fcntl now... */
  pid_t child = fork();
  if (child == 0) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(in("file"), O_RDWR);
    _exit(fcntl(fd, F_SETLK, &whole) == -1 && (errno == EAGAIN || errno == EACCES) ? 0 : 1);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  /* ...and a thread waits for its turn. */
  CHECK(pthread_create(&thread, NULL, locks, f) == 0);
  usleep(20000);
  CHECK(jlog_file_unlock(f) == 1);
  CHECK(pthread_join(thread, NULL) == 0);
  child = fork();
  if (child == 0) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(in("file"), O_RDWR);
    _exit(fcntl(fd, F_SETLK, &whole) == 0 ? 0 : 1);
  }
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(jlog_file_close(f) == 1);
  CHECK(jlog_file_close(NULL) == 0 && jlog_file_size(NULL) == -1 && jlog_file_lock(NULL) == 0);
}

static void compression(void) {
  char text[4096], small[4096], back[4096];
  for (size_t n = 0; n < sizeof text; n++) text[n] = "something"[n % 9];
  for (int provider = JLOG_COMPRESSION_NULL; provider <= JLOG_COMPRESSION_LZ4; provider++) {
    CHECK(jlog_set_compression_provider(provider) == 0);
    for (size_t len = 0; len <= sizeof text; len = len * 3 + 1) {
      char *dest = NULL;
      size_t bytes = 0;
      CHECK(jlog_compress(text, len, &dest, &bytes) == 0 && dest != NULL);
      CHECK(provider == JLOG_COMPRESSION_LZ4 || (bytes == len && memcmp(dest, text, len) == 0));
      CHECK(provider == JLOG_COMPRESSION_NULL || len < 100 || bytes < len / 2);
      memset(back, '?', sizeof back);
      CHECK(jlog_decompress(dest, bytes, back, len) == 0 && memcmp(back, text, len) == 0);
      CHECK(len == sizeof back || back[len] == '?');
      free(dest);
    }
  }
  CHECK(jlog_set_compression_provider(2) == -1);
  char *dest = small;
  size_t bytes = sizeof small;
  CHECK(jlog_compress(text, 100, &dest, &bytes) == 0 && dest == small && bytes < 100);
  CHECK(jlog_decompress(small, bytes, back, 99) < 0);
  CHECK(jlog_decompress("\xff\xff\xff\xff", 4, back, sizeof back) < 0);
  CHECK(jlog_decompress(small, bytes, NULL, 100) < 0);
  const struct jlog_compression_provider lz4 = {
      jlog_lz4_compression_provider_init, jlog_lz4_compression_provider_compress_bound,
      jlog_lz4_compression_provider_compress, jlog_lz4_compression_provider_decompress};
  lz4.init();
  CHECK(lz4.compress_bound(1000) >= 1000);
  int len = lz4.compress(text, small, 4096, 64);
  CHECK(len > 0 && len <= 64 && lz4.decompress(small, back, len, 4096) == 4096);
  CHECK(memcmp(back, text, 4096) == 0);
  CHECK(lz4.compress(text, small, 4096, 8) == 0);
  jlog_null_compression_provider_init();
  CHECK(jlog_null_compression_provider_compress_bound(7) == 7);
  CHECK(jlog_null_compression_provider_compress(text, small, 7, 7) == 7 && memcmp(small, text, 7) == 0);
}

static int freed;

static void frees(void *what) {
  freed++;
  free(what);
}

static void hash(void) {
  enum { KEYS = 5000 };
  jlog_hash_table table = JLOG_HASH_EMPTY;
  char key[32];
  const char *k;
  int klen, seen = 0;
  void *data;
  CHECK(jlog_hash_retrieve(&table, "a", 1, &data) == 0);
  CHECK(jlog_hash_delete(&table, "a", 1, NULL, NULL) == 0);
  CHECK(jlog_hash_firstkey(&table, &k, &klen) == 0);
  for (int n = 0; n < KEYS; n++) {
    snprintf(key, sizeof key, "key %d", n);
    CHECK(jlog_hash_store(&table, strdup(key), (int)strlen(key), strdup(key)) == 1);
    CHECK(jlog_hash_store(&table, key, (int)strlen(key), NULL) == 0);
  }
  CHECK(table.size == KEYS && table.table_size > KEYS);
  jlog_hash_iter iter = JLOG_HASH_ITER_ZERO;
  while (jlog_hash_next(&table, &iter, &k, &klen, &data)) {
    CHECK((int)strlen(data) == klen && memcmp(k, data, (size_t)klen) == 0);
    seen++;
  }
  CHECK(seen == KEYS);
  CHECK(jlog_hash_firstkey(&table, &k, &klen) == 1);
  for (seen = 1; jlog_hash_nextkey(&table, &k, &klen, k, klen); seen++) {
  }
  CHECK(seen == KEYS);
  CHECK(jlog_hash_replace(&table, strdup("key 7"), 5, strdup("other"), frees, frees) == 1 && freed == 2);
  CHECK(jlog_hash_retrieve(&table, "key 7", 5, &data) == 1 && strcmp(data, "other") == 0);
  CHECK(table.size == KEYS);
  for (int n = 0; n < KEYS - 10; n++) {
    snprintf(key, sizeof key, "key %d", n);
    CHECK(jlog_hash_delete(&table, key, (int)strlen(key), frees, frees) == 1);
    CHECK(jlog_hash_retrieve(&table, key, (int)strlen(key), NULL) == 0);
  }
  CHECK(table.size == 10 && table.table_size < 1000);
  CHECK(jlog_hash_retrieve(&table, "key 4999", 8, &data) == 1 && strcmp(data, "key 4999") == 0);
  jlog_hash_destroy(&table, frees, frees);
  CHECK(table.size == 0 && freed == 2 + 2 * KEYS);
  jlog_hash_init(&table);
  CHECK(jlog_hash_store(&table, "a\0b", 3, &table) == 1 && jlog_hash_retrieve(&table, "a\0c", 3, NULL) == 0);
  jlog_hash_destroy(&table, NULL, NULL);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  snprintf(scratch, sizeof scratch, "%s", argv[1]);
  names();
  fields();
  files();
  compression();
  hash();
  printf("ok %u checks\n", checks);
  return 0;
}
