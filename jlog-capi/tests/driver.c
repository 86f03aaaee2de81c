/*
 * Makes the calls of a script, and prints the result of each and the state of the jlog after it. It
 * runs with either library.
 *
 *   driver script <path> [told]            makes the calls from stdin, one per line
 *   driver produce <path> <from> <count> <buffer>   writes messages
 *   driver consume <path> <name> <count>   reads this many messages, waiting for them
 */
#define _DEFAULT_SOURCE 1
#define _XOPEN_SOURCE 700

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jlog.h"

enum { SLOTS = 8, MANY = 64, FILES = 4096 };

static const char *path;
static jlog_ctx *slots[SLOTS];
static int is_reader[SLOTS], is_spoilt[SLOTS];
static unsigned told;

static void hear(void *data, const char *format, ...) {
  char text[1024];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  (*(unsigned *)data)++;
}

static jlog_ctx *fresh(void) {
  jlog_ctx *ctx = jlog_new(path);
  jlog_set_error_func(ctx, hear, &told);
  return ctx;
}

static uint32_t meta_field(int field) {
  char name[2048];
  uint32_t stored[4] = {0};
  snprintf(name, sizeof name, "%s/metastore", path);
  int fd = open(name, O_RDONLY);
  if (fd < 0) return 0;
  if (pread(fd, stored, sizeof stored, 0) < 0) stored[field] = 0;
  close(fd);
  return stored[field];
}

static int is_segment(const char *name) {
  return strlen(name) == 8 && strspn(name, "0123456789abcdef") == 8;
}

/* Whether a segment exists and is not empty. */
static int has_segment(uint32_t log) {
  char name[2048];
  struct stat facts;
  snprintf(name, sizeof name, "%s/%08x", path, log);
  return stat(name, &facts) == 0 && facts.st_size > 0;
}

/* How many records there are in a segment. */
static uint32_t records_in(uint32_t log) {
  char name[2048];
  uint32_t head[5], count = 0;
  int compressed = (meta_field(3) & 0xffffff00) == 0x15106A00;
  off_t at = 0;
  snprintf(name, sizeof name, "%s/%08x", path, log);
  int fd = open(name, O_RDONLY);
  if (fd < 0) return 0;
  while (pread(fd, head, compressed ? 20 : 16, at) == (compressed ? 20 : 16)) {
    at += compressed ? 20 + (off_t)head[4] : 16 + (off_t)head[3];
    count++;
  }
  close(fd);
  return count;
}

/* An id for a checkpoint, from random numbers: in a segment that exists or existed, and not past its
 * end. A checkpoint past the end is an intended difference: when our writer opens the jlog, it moves
 * the checkpoint back, so that nothing new is skipped. */
static jlog_id checkpoint_id(unsigned log, unsigned marker) {
  jlog_id id = {log % (meta_field(0) + 1), 0};
  id.marker = marker % (records_in(id.log) + 1);
  return id;
}

static int in_order(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Prints the files that either library makes, and their relevant contents. */
static void show_files(void) {
  static char *names[FILES];
  int count = 0;
  uint32_t storage = meta_field(0);
  DIR *dir = opendir(path);
  if (dir == NULL) {
    printf("  none\n");
    return;
  }
  struct dirent *entry;
  while ((entry = readdir(dir)) != NULL && count < FILES) names[count++] = strdup(entry->d_name);
  closedir(dir);
  qsort(names, (size_t)count, sizeof *names, in_order);
  printf("  meta %u %u %u:", storage, meta_field(1), meta_field(2));
  for (int n = 0; n < count; n++) {
    char file[4096];
    struct stat facts;
    snprintf(file, sizeof file, "%s/%s", path, names[n]);
    if (stat(file, &facts) == 0) {
      if (is_segment(names[n])) {
        /* A library may create the segment being written before its first record or with it. */
        if (facts.st_size > 0 || strtoul(names[n], NULL, 16) != storage) {
          printf(" %s=%lld", names[n], (long long)facts.st_size);
        }
      } else if (strncmp(names[n], "cp.", 3) == 0) {
        jlog_id id = {0, 0};
        int fd = open(file, O_RDONLY);
        if (fd >= 0) {
          if (pread(fd, &id, sizeof id, 0) != sizeof id) id.log = id.marker = 0xffffffff;
          close(fd);
        }
        printf(" %s=%x:%x", names[n], id.log, id.marker);
      }
    }
    free(names[n]);
  }
  printf("\n");
}

static void make_body(unsigned char *body, size_t len, uint32_t seed) {
  /* The body is incompressible, so that its stored length does not depend on the library. */
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (size_t n = 0; n < len; n++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    body[n] = (unsigned char)(state >> 32);
  }
}

static uint32_t digest(uint32_t hash, const void *bytes, size_t len) {
  for (size_t n = 0; n < len; n++) hash = (hash ^ ((const unsigned char *)bytes)[n]) * 16777619u;
  return hash;
}

static uint32_t digest_message(uint32_t hash, const jlog_message *message) {
  hash = digest(hash, message->mess, message->mess_len);
  hash = digest(hash, &message->header->mlen, sizeof message->header->mlen);
  hash = digest(hash, &message->header->reserved, sizeof message->header->reserved);
  /* Include the time only if the script gave it. */
  if (message->header->tv_usec == 424242) {
    hash = digest(hash, &message->header->tv_sec, sizeof message->header->tv_sec);
  }
  return hash;
}

/* Prints the result of a call and, if it failed, the reason. */
static void outcome(jlog_ctx *ctx, const char *what, int result) {
  printf(" %s=%d", what, result);
  if (result < 0) printf(" %s", jlog_ctx_err_string(ctx));
}

/* The same with errno, for calls in which the library sets it itself. */
static void outcome_with_errno(jlog_ctx *ctx, const char *what, int result) {
  outcome(ctx, what, result);
  if (result < 0) printf(" errno %d", jlog_ctx_errno(ctx));
}

static int interval(int slot, jlog_id *first, jlog_id *last) {
  *first = *last = (jlog_id){0, 0};
  int count = jlog_ctx_read_interval(slots[slot], first, last);
  outcome_with_errno(slots[slot], "interval", count);
  if (count >= 0) printf(" %x:%x-%x:%x", first->log, first->marker, last->log, last->marker);
  return count;
}

static void run(char *line) {
  char what[32] = "", name[64] = "", other[64] = "";
  unsigned s = 0, a = 0, b = 0, c = 0;
  jlog_id first, last;
  jlog_message message;
  printf("%s ->", line);
  sscanf(line, "%31s %u", what, &s);
  int temporary = s == 9;
  if (temporary) {
    s = 7;
    slots[s] = fresh();
  }
  if (s >= SLOTS) exit(3);
  jlog_ctx *ctx = slots[s];
  if (strcmp(what, "clean") == 0) {
    outcome(ctx, "clean", jlog_clean(path));
  } else if (strcmp(what, "new") == 0) {
    if (ctx == NULL) slots[s] = fresh();
  } else if (ctx == NULL) {
    printf(" nothing");
  } else if (is_spoilt[s] && (strcmp(what, "size") == 0 || strcmp(what, "safety") == 0)) {
    /* The settings of a context that could not be opened mean nothing. */
    printf(" spoilt");
  } else if (strcmp(what, "close") == 0) {
    printf(" %d", jlog_ctx_close(ctx));
    slots[s] = NULL;
    is_reader[s] = is_spoilt[s] = 0;
  } else if (strcmp(what, "init") == 0) {
    outcome(ctx, what, jlog_ctx_init(ctx));
  } else if (strcmp(what, "size") == 0) {
    sscanf(line, "%*s %*u %u", &a);
    printf(" %d", jlog_ctx_alter_journal_size(ctx, a));
  } else if (strcmp(what, "safety") == 0) {
    sscanf(line, "%*s %*u %u", &a);
    printf(" %d", jlog_ctx_alter_safety(ctx, (jlog_safety)a));
  } else if (strcmp(what, "lz4") == 0) {
    printf(" %d", jlog_ctx_set_use_compression(ctx, 1));
  } else if (strcmp(what, "method") == 0) {
    sscanf(line, "%*s %*u %u", &a);
    printf(" %d", jlog_ctx_alter_read_method(ctx, a ? JLOG_READ_METHOD_PREAD : JLOG_READ_METHOD_MMAP));
  } else if (strcmp(what, "buffer") == 0) {
    sscanf(line, "%*s %*u %u", &a);
    printf(" %d", jlog_ctx_set_pre_commit_buffer_size(ctx, a));
  } else if (strcmp(what, "writer") == 0) {
    int result = jlog_ctx_open_writer(ctx);
    outcome(ctx, what, result);
    if (result < 0 && jlog_ctx_err(ctx) != JLOG_ERR_ILLEGAL_OPEN) is_spoilt[s] = 1;
    if (result == 0) {
      /* One library creates the segment when it opens, the other with the first flush. */
      outcome(ctx, "flush", jlog_ctx_flush_pre_commit_buffer(ctx));
    }
  } else if (strcmp(what, "reader") == 0) {
    sscanf(line, "%*s %*u %63s", name);
    int result = jlog_ctx_open_reader(ctx, name);
    outcome(ctx, what, result);
    if (result < 0 && jlog_ctx_err(ctx) != JLOG_ERR_ILLEGAL_OPEN) is_spoilt[s] = 1;
    if (result == 0) is_reader[s] = 1;
  } else if (strcmp(what, "write") == 0) {
    sscanf(line, "%*s %*u %u %u %u", &a, &b, &c);
    static unsigned char body[65536];
    int result = 0;
    for (unsigned n = 0; n < a && result == 0; n++) {
      make_body(body, b % sizeof body, c + n);
      struct timeval when = {(time_t)c, 424242};
      message.mess = body;
      message.mess_len = b % sizeof body;
      result = n % 2 ? jlog_ctx_write(ctx, body, b % sizeof body) : jlog_ctx_write_message(ctx, &message, &when);
    }
    outcome_with_errno(ctx, what, result);
  } else if (strcmp(what, "flush") == 0) {
    outcome(ctx, what, jlog_ctx_flush_pre_commit_buffer(ctx));
  } else if (strcmp(what, "interval") == 0) {
    interval((int)s, &first, &last);
  } else if (strcmp(what, "readall") == 0) {
    uint32_t hash = 2166136261u;
    int count = interval((int)s, &first, &last), result = 0;
    for (; count > 0 && result == 0 && first.marker <= last.marker; JLOG_ID_ADVANCE(&first)) {
      result = jlog_ctx_read_message(ctx, &first, &message);
      if (result == 0) hash = digest_message(hash, &message);
    }
    outcome(ctx, what, result);
    printf(" %08x", hash);
  } else if (strcmp(what, "drain") == 0) {
    /* Only the bodies count, not the segments that they are in. */
    uint32_t hash = 2166136261u;
    int count, total = 0, result = 0;
    while (result == 0 && (count = jlog_ctx_read_interval(ctx, &first, &last)) > 0) {
      for (; result == 0 && first.marker <= last.marker; JLOG_ID_ADVANCE(&first)) {
        result = jlog_ctx_read_message(ctx, &first, &message);
        if (result == 0) hash = digest_message(hash, &message);
        total++;
      }
      if (result == 0) result = jlog_ctx_read_checkpoint(ctx, &last);
    }
    outcome(ctx, what, result);
    printf(" %d %08x", total, hash);
  } else if (strcmp(what, "read") == 0 || strcmp(what, "bulk") == 0) {
    sscanf(line, "%*s %*u %u %u %u", &a, &b, &c);
    jlog_message many[MANY];
    uint32_t hash = 2166136261u;
    if (!is_reader[s]) {
      /* With a writer's context, the C library loses its place. */
      printf(" no reader");
    } else if (interval((int)s, &first, &last) >= 0) {
      jlog_id id = {a % (meta_field(0) + 1), b};
      if (!has_segment(id.log)) {
        /* The C library would end the program. */
        printf(" gone");
        return;
      }
      int bulk = strcmp(what, "bulk") == 0, count = bulk ? (int)(c % MANY) : 1;
      int result = bulk ? jlog_ctx_bulk_read_messages(ctx, &id, count, many) : jlog_ctx_read_message(ctx, &id, many);
      outcome(ctx, what, result);
      for (int n = 0; result == 0 && n < count; n++) hash = digest_message(hash, &many[n]);
      printf(" %x:%x %08x", id.log, id.marker, hash);
    }
  } else if (strcmp(what, "done") == 0) {
    /* A checkpoint at the last, the first or the middle message, or anywhere before the end. */
    sscanf(line, "%*s %*u %u %u %u", &a, &b, &c);
    if (interval((int)s, &first, &last) >= 0 || !is_reader[s]) {
      jlog_id id = a == 0 ? last : a == 1 ? first : (jlog_id){last.log, (first.marker + last.marker) / 2};
      if (a == 3) id = checkpoint_id(b, c);
      outcome_with_errno(ctx, what, jlog_ctx_read_checkpoint(ctx, &id));
    }
  } else if (strcmp(what, "advance") == 0) {
    sscanf(line, "%*s %*u %u", &a);
    if (!is_reader[s]) {
      printf(" no reader");
    } else if (interval((int)s, &first, &last) > 0) {
      jlog_id cur = first;
      for (unsigned n = 0; n < a; n++) {
        int result = jlog_ctx_advance_id(ctx, &cur, &first, &last);
        outcome(ctx, "advance", result);
        printf(" %x:%x-%x:%x", first.log, first.marker, last.log, last.marker);
        if (result != 0) break;
        cur = first;
      }
    }
  } else if (strcmp(what, "add") == 0) {
    sscanf(line, "%*s %*u %63s %u", name, &a);
    outcome_with_errno(ctx, what, jlog_ctx_add_subscriber(ctx, name, a ? JLOG_END : JLOG_BEGIN));
  } else if (strcmp(what, "remove") == 0) {
    sscanf(line, "%*s %*u %63s", name);
    int result = jlog_ctx_remove_subscriber(ctx, name);
    printf(" %d %s", result, jlog_ctx_err_string(ctx));
  } else if (strcmp(what, "copy") == 0) {
    sscanf(line, "%*s %*u %63s %63s", name, other);
    printf(" %d", jlog_ctx_add_subscriber_copy_checkpoint(ctx, name, other));
  } else if (strcmp(what, "set") == 0) {
    sscanf(line, "%*s %*u %63s %u %u", name, &a, &b);
    jlog_id id = checkpoint_id(a, b);
    printf(" %d", jlog_ctx_set_subscriber_checkpoint(ctx, name, &id));
  } else if (strcmp(what, "get") == 0) {
    jlog_id id = {0xaaaa, 0xbbbb};
    sscanf(line, "%*s %*u %63s", name);
    int result = jlog_get_checkpoint(ctx, name, &id);
    printf(" %d %x:%x", result, id.log, id.marker);
  } else if (strcmp(what, "list") == 0) {
    char **list = NULL;
    int count = jlog_ctx_list_subscribers(ctx, &list);
    printf(" %d", count);
    if (count > 0) qsort(list, (size_t)count, sizeof *list, in_order);
    for (int n = 0; n < count; n++) printf(" %s", list[n]);
    if (count >= 0) printf(" %d", jlog_ctx_list_subscribers_dispose(ctx, list));
  } else if (strcmp(what, "first") == 0) {
    jlog_id id = {0xaaaa, 0xbbbb};
    outcome(ctx, what, jlog_ctx_first_log_id(ctx, &id));
    printf(" %x:%x", id.log, id.marker);
  } else if (strcmp(what, "last") == 0 && is_reader[s] && !has_segment(meta_field(0))) {
    /* The libraries create an empty segment at different times. */
    printf(" empty");
  } else if (strcmp(what, "last") == 0) {
    jlog_id id = {0xaaaa, 0xbbbb};
    outcome_with_errno(ctx, what, jlog_ctx_last_log_id(ctx, &id));
    printf(" %x:%x", id.log, id.marker);
  } else if (strcmp(what, "storage") == 0) {
    uint32_t log = 0xaaaa;
    outcome_with_errno(ctx, what, jlog_ctx_last_storage_log(ctx, &log));
    printf(" %x", log);
  } else if (strcmp(what, "pending") == 0) {
    uint32_t earliest = 0xaaaa;
    sscanf(line, "%*s %*u %u", &a);
    int count = jlog_pending_readers(ctx, a, &earliest);
    printf(" %d %x %d", count, earliest, __jlog_pending_readers(ctx, a));
  } else if (strcmp(what, "inspect") == 0 || strcmp(what, "index") == 0) {
    sscanf(line, "%*s %*u %u", &a);
    uint32_t log = a % (meta_field(0) + 1), marker = 0xaaaa;
    int closed = 7;
    if (!is_reader[s] || !has_segment(log)) {
      printf(" not there");
    } else if (strcmp(what, "inspect") == 0) {
      outcome(ctx, what, jlog_inspect_datafile(ctx, log, 0));
    } else if (interval((int)s, &first, &last) > 0) {
      /* Of the segment that was just read. */
      outcome(ctx, what, jlog_idx_details(ctx, last.log, &marker, &closed));
      printf(" %u %d", marker, closed);
    }
  } else if (strcmp(what, "repair") == 0) {
    printf(" %d", jlog_ctx_repair(ctx, 0));
  } else {
    exit(3);
  }
  if (temporary && slots[s] != NULL) {
    jlog_ctx_close(slots[s]);
    slots[s] = NULL;
  }
}

static int script(int with_told) {
  char line[256];
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    told = 0;
    run(line);
    if (with_told) printf(" told %d", told > 0);
    printf("\n");
    show_files();
  }
  for (int s = 0; s < SLOTS; s++) {
    if (slots[s] != NULL) jlog_ctx_close(slots[s]);
  }
  show_files();
  return 0;
}

/* Makes message n: its number, followed by up to 200 bytes. */
static size_t numbered(char *body, unsigned n) {
  size_t len = (size_t)sprintf(body, "message %u ", n);
  for (unsigned more = n * 37 % 200; more > 0; more--) body[len++] = (char)('a' + (more + n) % 26);
  return len;
}

static int failed(jlog_ctx *ctx, const char *what) {
  fprintf(stderr, "%s: %s (errno %d)\n", what, jlog_ctx_err_string(ctx), jlog_ctx_errno(ctx));
  return 1;
}

static int produce(unsigned from, unsigned count, unsigned buffer) {
  char body[512];
  jlog_ctx *ctx = jlog_new(path);
  if (buffer) jlog_ctx_set_pre_commit_buffer_size(ctx, buffer);
  if (jlog_ctx_open_writer(ctx) != 0) return failed(ctx, "open_writer");
  for (unsigned n = from; n < from + count; n++) {
    if (jlog_ctx_write(ctx, body, numbered(body, n)) != 0) return failed(ctx, "write");
    /* Give the reader a chance to read in between. */
    if (n % 500 == 0) usleep(2000);
  }
  return jlog_ctx_close(ctx);
}

/* The messages of two producers are in one jlog; those of each producer come in order. */
static int consume(const char *name, unsigned count) {
  enum { PRODUCERS = 2, APART = 1000000 };
  char body[512];
  unsigned next[PRODUCERS] = {0, APART}, total = 0, waited = 0;
  jlog_id first, last;
  jlog_message message;
  jlog_ctx *ctx = jlog_new(path);
  if (jlog_ctx_open_reader(ctx, name) != 0) return failed(ctx, "open_reader");
  while (total < count) {
    int found = jlog_ctx_read_interval(ctx, &first, &last);
    if (found < 0) return failed(ctx, "read_interval");
    if (found == 0) {
      if (++waited > 30000) {
        fprintf(stderr, "%u of %u messages came\n", total, count);
        return 1;
      }
      usleep(1000);
      continue;
    }
    waited = 0;
    for (; first.marker <= last.marker; JLOG_ID_ADVANCE(&first)) {
      unsigned n = 0;
      if (jlog_ctx_read_message(ctx, &first, &message) != 0) return failed(ctx, "read_message");
      char head[32] = "";
      memcpy(head, message.mess, message.mess_len < 31 ? message.mess_len : 31);
      if (sscanf(head, "message %u", &n) != 1) return failed(ctx, "a strange message");
      unsigned producer = n >= APART;
      size_t len = numbered(body, n);
      if (n != next[producer] || len != message.mess_len || memcmp(body, message.mess, len) != 0) {
        fprintf(stderr, "message %u came where %u was due, or with another body\n", n, next[producer]);
        return 1;
      }
      next[producer]++;
      total++;
    }
    if (jlog_ctx_read_checkpoint(ctx, &last) != 0) return failed(ctx, "read_checkpoint");
  }
  if (total != count || jlog_ctx_read_interval(ctx, &first, &last) != 0) return failed(ctx, "more than was written");
  return jlog_ctx_close(ctx);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  path = argv[2];
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (strcmp(argv[1], "script") == 0) return script(argc > 3);
  if (strcmp(argv[1], "produce") == 0 && argc == 6) {
    return produce((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
  }
  if (strcmp(argv[1], "consume") == 0 && argc == 5) return consume(argv[3], (unsigned)atoi(argv[4]));
  return 2;
}
