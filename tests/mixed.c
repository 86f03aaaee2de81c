/*
 * A process that uses the C library until it is killed.
 *
 *   mixed write <feed> <writer> <from>    appends numbered messages, and prints the number of each that is accepted
 *   mixed read <feed> <subscriber>        prints writer and number of each message, and "." once they are done
 */
#define _DEFAULT_SOURCE 1

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jlog.h"

/* As `message` in messages.rs. */
static size_t numbered(char *body, unsigned writer, unsigned seq) {
  int head = sprintf(body, "%u %u ", writer, seq);
  size_t fill = (writer * 31 + seq * 7) % 50;
  memset(body + head, 'a' + (int)((writer * 5 + seq) % 26), fill);
  return (size_t)head + fill;
}

static int failed(jlog_ctx *ctx, const char *what) {
  fprintf(stderr, "%s: %s (%d)\n", what, jlog_ctx_err_string(ctx), jlog_ctx_errno(ctx));
  return 1;
}

static int write_all(jlog_ctx *ctx, unsigned writer, unsigned seq) {
  char body[128];
  if (jlog_ctx_open_writer(ctx) != 0) return failed(ctx, "open_writer");
  for (;; seq++) {
    if (jlog_ctx_write(ctx, body, numbered(body, writer, seq)) != 0) return failed(ctx, "write");
    printf("%u\n", seq);
    fflush(stdout);
    usleep(100);
  }
}

static int read_all(jlog_ctx *ctx, const char *name) {
  char body[128];
  jlog_id first, last;
  jlog_message message;
  if (jlog_ctx_open_reader(ctx, name) != 0) return failed(ctx, "open_reader");
  for (;;) {
    int found = jlog_ctx_read_interval(ctx, &first, &last);
    if (found < 0) return failed(ctx, "read_interval");
    if (found == 0) {
      usleep(1000);
      continue;
    }
    for (; first.marker <= last.marker; JLOG_ID_ADVANCE(&first)) {
      char head[32] = "";
      unsigned writer = 0, seq = 0;
      if (jlog_ctx_read_message(ctx, &first, &message) != 0) return failed(ctx, "read_message");
      memcpy(head, message.mess, message.mess_len < 31 ? message.mess_len : 31);
      if (sscanf(head, "%u %u", &writer, &seq) != 2 || message.mess_len != numbered(body, writer, seq) ||
          memcmp(body, message.mess, message.mess_len) != 0) {
        fprintf(stderr, "%u:%u is a message that nobody wrote\n", first.log, first.marker);
        return 1;
      }
      printf("%u %u\n", writer, seq);
    }
    fflush(stdout);
    if (jlog_ctx_read_checkpoint(ctx, &last) != 0) return failed(ctx, "read_checkpoint");
    printf(".\n");
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  jlog_ctx *ctx = jlog_new(argv[2]);
  if (argc == 5 && strcmp(argv[1], "write") == 0) {
    return write_all(ctx, (unsigned)strtoul(argv[3], NULL, 10), (unsigned)strtoul(argv[4], NULL, 10));
  }
  if (strcmp(argv[1], "read") == 0) return read_all(ctx, argv[3]);
  return 2;
}
