#include <jlog.h>
#include <stdio.h>

int main(void) {
  jlog_ctx *ctx = jlog_new("feed");
  if (jlog_ctx_init(ctx) != 0) printf("%s\n", jlog_ctx_err_string(ctx));
  jlog_ctx_add_subscriber(ctx, "billing", JLOG_BEGIN);
  jlog_ctx_close(ctx);

  ctx = jlog_new("feed");
  jlog_ctx_open_writer(ctx);
  jlog_ctx_write(ctx, "hello from C", 12);
  jlog_ctx_close(ctx);

  ctx = jlog_new("feed");
  jlog_ctx_open_reader(ctx, "billing");
  jlog_id first, last;
  int count = jlog_ctx_read_interval(ctx, &first, &last);
  for (; count > 0; count--, JLOG_ID_ADVANCE(&first)) {
    jlog_message m;
    if (jlog_ctx_read_message(ctx, &first, &m) == 0) printf("%.*s\n", (int)m.mess_len, (char *)m.mess);
  }
  jlog_ctx_read_checkpoint(ctx, &last);
  return jlog_ctx_close(ctx);
}
