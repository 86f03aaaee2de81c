//! The files besides the library that `make install` installs: self-contained headers, with the
//! layout of a context and the functions that fq, libmtev and older binaries use, and the
//! pkg-config file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use testkit::programs::skip;

/// Offset and size of each field of a context, in libjlog 2.6 on x86-64.
const FIELDS: &[(&str, usize, usize)] = &[
    ("meta", 0, 8),
    ("write_lock", 8, 40),
    ("read_method", 48, 4),
    ("meta_is_mapped", 52, 4),
    ("pre_commit_is_mapped", 56, 4),
    ("multi_process", 60, 1),
    ("pre_commit_buffer_size_specified", 61, 1),
    ("pre_commit_buffer", 64, 8),
    ("pre_commit_pos", 72, 8),
    ("pre_commit_end", 80, 8),
    ("pre_commit_buffer_len", 88, 8),
    ("desired_pre_commit_buffer_len", 96, 8),
    ("pre_commit_pointer", 104, 8),
    ("pre_init", 112, 16),
    ("context_mode", 128, 4),
    ("path", 136, 8),
    ("file_mode", 144, 4),
    ("current_log", 148, 4),
    ("data", 152, 8),
    ("index", 160, 8),
    ("checkpoint", 168, 8),
    ("metastore", 176, 8),
    ("pre_commit", 184, 8),
    ("mmap_base", 192, 8),
    ("mmap_len", 200, 8),
    ("data_file_size", 208, 8),
    ("reader_is_initialized", 216, 1),
    ("compressed_data_buffer", 224, 8),
    ("compressed_data_buffer_len", 232, 8),
    ("subscriber_name", 240, 8),
    ("last_error", 248, 4),
    ("last_errno", 252, 4),
    ("error_func", 256, 8),
    ("error_ctx", 264, 8),
    ("mess_data_size", 272, 8),
    ("mess_data", 280, 8),
];

const HEADERS: [&str; 6] =
    ["jlog.h", "jlog_compress.h", "jlog_config.h", "jlog_hash.h", "jlog_io.h", "jlog_private.h"];

/// The files that `make install-headers` installs. `None`, and a line that says so, if there is no
/// make.
fn installed() -> Option<TempDir> {
    let prefix = tempfile::tempdir().unwrap();
    let mut make = Command::new("make");
    make.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).arg("install-headers");
    make.arg(format!("PREFIX={}", prefix.path().display()));
    // The variables of a make that runs this test must not reach this one.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "DESTDIR"] {
        make.env_remove(variable);
    }
    let Ok(out) = make.output() else {
        skip("GOLDEN", "no make");
        return None;
    };
    assert!(out.status.success(), "{}", support::both(&out));
    Some(prefix)
}

/// Compiles with the installed files, with warnings as errors.
fn compile(compiler: &str, prefix: &Path, source: &Path, arguments: &[&str]) -> PathBuf {
    let program = source.with_extension("out");
    let out = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"])
        .arg("-I")
        .arg(prefix.join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .args(arguments)
        .output()
        .unwrap();
    assert!(out.status.success(), "{} does not compile:\n{}", source.display(), support::both(&out));
    program
}

#[test]
fn each_header_stands_by_itself() {
    let (Some(cc), Some(prefix)) = (support::compiler(), installed()) else { return };
    let work = tempfile::tempdir().unwrap();
    // Also C++, if there is a compiler.
    let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let has_cxx = Command::new(&cxx).arg("--version").output().is_ok_and(|out| out.status.success());
    for header in HEADERS {
        let text = format!("#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n");
        for (compiler, extension, standards) in
            [(&cc, "c", &["gnu99", "gnu11"][..]), (&cxx, "cc", &["gnu++11", "gnu++20"])]
        {
            let source = work.path().join(header).with_extension(extension);
            std::fs::write(&source, &text).unwrap();
            for standard in standards.iter().filter(|_| extension == "c" || has_cxx) {
                compile(compiler, prefix.path(), &source, &[&format!("-std={standard}"), "-fsyntax-only"]);
            }
        }
    }
}

#[test]
fn jlog_h_brings_the_headers_that_programs_rely_on() {
    let (Some(cc), Some(prefix)) = (support::compiler(), installed()) else { return };
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("relies.c");
    let text = "#include <jlog.h>\n\
        int main(void) {\n\
        \x20 struct timeval now;\n\
        \x20 u_int32_t zero = 0;\n\
        \x20 char *copy = malloc(MAXPATHLEN);\n\
        \x20 if (copy == NULL || errno == ENOMEM || gettimeofday(&now, NULL) != 0) return 1;\n\
        \x20 memset(copy, 0, MAXPATHLEN);\n\
        \x20 zero = (u_int32_t)strlen(copy);\n\
        \x20 free(copy);\n\
        \x20 return (int)zero;\n\
        }\n";
    std::fs::write(&source, text).unwrap();
    let program = compile(&cc, prefix.path(), &source, &["-std=gnu99"]);
    assert!(Command::new(program).status().unwrap().success());
}

#[test]
fn the_layout_of_a_context_is_that_of_the_c_library() {
    let (Some(cc), Some(prefix)) = (support::compiler(), installed()) else { return };
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("layout.c");
    let mut text = "#include <jlog_private.h>\n#include <jlog_hash.h>\n\
        #define FIELD(f) printf(#f \" %zu %zu\\n\", offsetof(jlog_ctx, f), sizeof(((jlog_ctx *)0)->f))\n\
        int main(void) {\n"
        .to_owned();
    let mut wanted = String::new();
    for (field, offset, size) in FIELDS {
        writeln!(text, "  FIELD({field});").unwrap();
        writeln!(wanted, "{field} {offset} {size}").unwrap();
    }
    text.push_str(
        "  printf(\"%zu %zu %zu %zu %zu\\n\", sizeof(jlog_ctx), sizeof(struct _jlog_meta_info),\n\
         \x20        sizeof(jlog_hash_table), sizeof(jlog_hash_iter), sizeof(jlog_hash_bucket));\n\
         \x20 return 0;\n}\n",
    );
    wanted.push_str("288 16 32 16 32\n");
    std::fs::write(&source, text).unwrap();
    let program = compile(&cc, prefix.path(), &source, &["-std=gnu99"]);
    let out = Command::new(program).output().unwrap();
    assert_eq!(support::both(&out), wanted);
}

#[test]
fn programs_may_use_what_is_private() {
    let (Some(cc), Some(prefix)) = (support::compiler(), installed()) else { return };
    let library = support::library_dir();
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("private.c");
    std::fs::copy(support::source("private.c"), &source).unwrap();
    let so = library.path().join("libjlog.so.2");
    let program = compile(&cc, prefix.path(), &source, &["-std=gnu11", so.to_str().unwrap(), "-lpthread"]);
    let scratch = work.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let out = support::run_with(&program, library.path()).arg(&scratch).output().unwrap();
    let said = support::both(&out);
    assert!(out.status.success() && said.starts_with("ok ") && said.ends_with(" checks\n"), "{said}");
}

#[test]
fn pkg_config_takes_it_for_version_2() {
    let Some(prefix) = installed() else { return };
    let asked = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", prefix.path().join("lib/pkgconfig")).args(arguments).arg("jlog");
        command.output()
    };
    let Ok(out) = asked(&["--atleast-version=2", "--print-errors"]) else {
        skip("GOLDEN", "no pkg-config");
        return;
    };
    assert!(out.status.success(), "{}", support::both(&out));
    assert!(!asked(&["--atleast-version=3"]).unwrap().status.success());
    let own = asked(&["--variable=library_version"]).unwrap();
    assert_eq!(support::both(&own).trim(), env!("CARGO_PKG_VERSION"));
    let flags = asked(&["--cflags"]).unwrap();
    assert_eq!(support::both(&flags).trim(), format!("-I{}/include", prefix.path().display()));
}
