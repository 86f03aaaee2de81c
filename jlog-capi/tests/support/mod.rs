//! Shared by the tests that compile C programs.

// Each test uses only a part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use tempfile::TempDir;
use testkit::programs::skip;

/// The C compiler, `$CC` or `cc`. `None`, and a line that says so, if there is none.
pub fn compiler() -> Option<String> {
    let name = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if Command::new(&name).arg("--version").output().is_ok_and(|out| out.status.success()) {
        return Some(name);
    }
    skip("GOLDEN", &format!("no C compiler ({name})"));
    None
}

/// The file of this name that cargo built from this crate. It is in the test's directory or the one
/// above; the newest belongs to the test.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let age =
        |path: &Path| path.metadata().and_then(|facts| facts.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .filter(|path| path.is_file())
        .max_by_key(|path| age(path))
        .unwrap_or_else(|| panic!("no {name} near {}", test.display()))
}

/// A directory that has our library under the name that the loader looks for.
pub fn library_dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    link_library(&built("libjlog.so"), dir.path());
    dir
}

/// Puts a library into a directory under the name that the loader looks for.
pub fn link_library(library: &Path, dir: &Path) {
    let library = library.canonicalize().expect("the library is there");
    std::os::unix::fs::symlink(library, dir.join("libjlog.so.2")).expect("a link");
}

/// The directory of this file's C programs.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Compiles a C program against our header, followed by these libraries and flags.
pub fn compile(cc: &str, source: &Path, program: &Path, libraries: &[&Path], flags: &[&str]) {
    let out = Command::new(cc)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g"])
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(source)
        .arg("-o")
        .arg(program)
        .args(libraries)
        .args(flags)
        .output()
        .expect("the compiler starts");
    assert!(out.status.success(), "{} does not compile:\n{}", source.display(), both(&out));
}

/// A command that runs a program with the library of a directory.
pub fn run_with(program: &Path, library_dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", library_dir);
    command
}

/// A program's output, for a failing test.
pub fn both(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
