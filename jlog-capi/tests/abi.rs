//! What C programs have compiled in: sizes, offsets, numbers, and the fields of a context that
//! tools read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fmt::Write as _;

use jlog_core::Jlog;

/// The expected values of a C compiler for the header, on x86-64.
const NUMBERS: &[(&str, i64)] = &[
    ("sizeof(jlog_id)", 8),
    ("offsetof(jlog_id, log)", 0),
    ("offsetof(jlog_id, marker)", 4),
    ("sizeof(jlog_message_header)", 16),
    ("offsetof(jlog_message_header, reserved)", 0),
    ("offsetof(jlog_message_header, tv_sec)", 4),
    ("offsetof(jlog_message_header, tv_usec)", 8),
    ("offsetof(jlog_message_header, mlen)", 12),
    ("sizeof(jlog_message_header_compressed)", 20),
    ("offsetof(jlog_message_header_compressed, reserved)", 0),
    ("offsetof(jlog_message_header_compressed, tv_sec)", 4),
    ("offsetof(jlog_message_header_compressed, tv_usec)", 8),
    ("offsetof(jlog_message_header_compressed, mlen)", 12),
    ("offsetof(jlog_message_header_compressed, compressed_len)", 16),
    ("sizeof(jlog_message)", 48),
    ("offsetof(jlog_message, header)", 0),
    ("offsetof(jlog_message, mess_len)", 8),
    ("offsetof(jlog_message, mess)", 16),
    ("offsetof(jlog_message, aligned_header)", 24),
    ("sizeof(jlog_position)", 4),
    ("JLOG_BEGIN", 0),
    ("JLOG_END", 1),
    ("sizeof(jlog_safety)", 4),
    ("JLOG_UNSAFE", 0),
    ("JLOG_ALMOST_SAFE", 1),
    ("JLOG_SAFE", 2),
    ("JLOG_COMPRESSION_NULL", 0),
    ("JLOG_COMPRESSION_LZ4", 1),
    ("JLOG_READ_METHOD_MMAP", 0),
    ("JLOG_READ_METHOD_PREAD", 1),
    ("sizeof(jlog_err)", 4),
];

const ERRORS: [&str; 31] = [
    "SUCCESS",
    "ILLEGAL_INIT",
    "ILLEGAL_OPEN",
    "OPEN",
    "NOTDIR",
    "CREATE_PATHLEN",
    "CREATE_EXISTS",
    "CREATE_MKDIR",
    "CREATE_META",
    "CREATE_PRE_COMMIT",
    "LOCK",
    "IDX_OPEN",
    "IDX_SEEK",
    "IDX_CORRUPT",
    "IDX_WRITE",
    "IDX_READ",
    "FILE_OPEN",
    "FILE_SEEK",
    "FILE_CORRUPT",
    "FILE_READ",
    "FILE_WRITE",
    "META_OPEN",
    "PRE_COMMIT_OPEN",
    "ILLEGAL_WRITE",
    "ILLEGAL_CHECKPOINT",
    "INVALID_SUBSCRIBER",
    "ILLEGAL_LOGID",
    "SUBSCRIBER_EXISTS",
    "CHECKPOINT",
    "NOT_SUPPORTED",
    "CLOSE_LOGID",
];

/// Compiles and runs a program; returns its output, line by line.
fn lines_of(cc: &str, text: &str, arguments: &[&std::path::Path]) -> Vec<String> {
    let dir = support::library_dir();
    let (source, program) = (dir.path().join("program.c"), dir.path().join("program"));
    std::fs::write(&source, text).unwrap();
    support::compile(cc, &source, &program, &[&dir.path().join("libjlog.so.2")], &[]);
    let out = support::run_with(&program, dir.path()).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}: {}", out.status, support::both(&out));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn numbers_are_those_of_the_c_library() {
    let Some(cc) = support::compiler() else { return };
    let mut text = "#include <stdio.h>\n#include \"jlog.h\"\nint main(void) {\n".to_owned();
    let mut wanted = Vec::new();
    for (what, number) in NUMBERS {
        writeln!(text, "  printf(\"{what} %lld\\n\", (long long)({what}));").unwrap();
        wanted.push(format!("{what} {number}"));
    }
    for (number, name) in ERRORS.iter().enumerate() {
        writeln!(text, "  printf(\"{name} %d %s\\n\", JLOG_ERR_{name}, jlog_err_string({number}));").unwrap();
        wanted.push(format!("{name} {number} JLOG_ERR_{name}"));
    }
    text.push_str("  printf(\"31 %s\\n\", jlog_err_string(31));\n  return 0;\n}\n");
    wanted.push("31 Unknown".to_owned());
    assert_eq!(lines_of(&cc, &text, &[]), wanted);
}

/// Reads a context like tools with the private header: by offset.
const PEEK: &str = r#"
#include <stdio.h>
#include <string.h>
#include "jlog.h"

static void look(const char *when, jlog_ctx *ctx, int buffer) {
  const char *base = (const char *)ctx;
  const unsigned char *meta;
  const unsigned *used;
  size_t len;
  unsigned current;
  memcpy(&meta, base, sizeof meta);
  memcpy(&len, base + 88, sizeof len);
  memcpy(&used, base + 104, sizeof used);
  memcpy(&current, base + 148, sizeof current);
  printf("%s:", when);
  for (int n = 0; n < 16; n++) printf(" %02x", meta[n]);
  if (buffer) printf(" | %zu %u", len, *used);
  printf(" | %u\n", current);
}

int main(int argc, char **argv) {
  jlog_id first, last;
  jlog_message message;
  if (argc != 2) return 2;
  jlog_ctx *writer = jlog_new(argv[1]);
  if (jlog_ctx_set_pre_commit_buffer_size(writer, 1000) != 0 || jlog_ctx_open_writer(writer) != 0) return 1;
  look("opened", writer, 1);
  if (jlog_ctx_write(writer, "0123456789", 10) != 0) return 1;
  look("one", writer, 1);
  if (jlog_ctx_write(writer, "0123456789", 10) != 0) return 1;
  look("two", writer, 1);
  if (jlog_ctx_flush_pre_commit_buffer(writer) != 0) return 1;
  look("flushed", writer, 1);
  for (int n = 0; n < 8; n++) {
    if (jlog_ctx_write(writer, "0123456789", 10) != 0 || jlog_ctx_flush_pre_commit_buffer(writer) != 0) return 1;
  }
  look("rolled", writer, 1);
  if (jlog_ctx_alter_journal_size(writer, 200) != 0) return 1;
  look("altered", writer, 1);
  if (jlog_ctx_add_subscriber(writer, "a", JLOG_BEGIN) != 0) return 1;
  jlog_ctx *reader = jlog_new(argv[1]);
  if (jlog_ctx_open_reader(reader, "a") != 0) return 1;
  look("reader", reader, 0);
  if (jlog_ctx_read_interval(reader, &first, &last) != 4) return 1;
  look("interval", reader, 0);
  first.log = 1;
  first.marker = 1;
  if (jlog_ctx_read_message(reader, &first, &message) != 0) return 1;
  look("next", reader, 0);
  jlog_ctx_close(reader);
  jlog_ctx_close(writer);
  return 0;
}
"#;

#[test]
fn tools_find_the_fields_of_a_context() {
    let Some(cc) = support::compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // Four records of 26 bytes fill a segment.
    drop(Jlog::options().segment_size(100).checksums(false).create(&path).unwrap());
    let lines = lines_of(&cc, PEEK, &[&path]);
    let meta = |storage: u8, limit: u8| {
        format!("{storage:02x} 00 00 00 {limit:02x} 00 00 00 01 00 00 00 18 73 3a 66")
    };
    let wanted = [
        format!("opened: {} | 1004 0 | 0", meta(0, 100)),
        format!("one: {} | 1004 26 | 0", meta(0, 100)),
        format!("two: {} | 1004 52 | 0", meta(0, 100)),
        format!("flushed: {} | 1004 0 | 0", meta(0, 100)),
        format!("rolled: {} | 1004 0 | 2", meta(2, 100)),
        format!("altered: {} | 1004 0 | 2", meta(2, 200)),
        format!("reader: {} | 0", meta(2, 200)),
        format!("interval: {} | 0", meta(2, 200)),
        format!("next: {} | 1", meta(2, 200)),
    ];
    assert_eq!(lines, wanted);
    // The disk has the same values.
    let stored = std::fs::read(path.join("metastore")).unwrap();
    let stored: Vec<String> = stored.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(stored.join(" "), meta(2, 200));
    assert_eq!(path.join("pre_commit").metadata().unwrap().len(), 1004);
}
