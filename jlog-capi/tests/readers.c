/* Opens two readers of one subscriber, reports that, and closes them when its input ends. */
#include <jlog.h>
#include <stdio.h>

int main(int argc, char **argv) {
  jlog_ctx *first, *second;
  jlog_id begin, end;
  if(argc != 3) return 2;
  first = jlog_new(argv[1]);
  second = jlog_new(argv[1]);
  if(jlog_ctx_open_reader(first, argv[2]) != 0) return 3;
  if(jlog_ctx_open_reader(second, argv[2]) != 0) return 4;
  if(jlog_ctx_read_interval(first, &begin, &end) != 2) return 5;
  if(jlog_ctx_read_interval(second, &begin, &end) != 2) return 6;
  puts("open");
  fflush(stdout);
  while(getchar() != EOF) {}
  jlog_ctx_close(first);
  jlog_ctx_close(second);
  return 0;
}
