//! The script for gdb that prints the rings of a core.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testkit::programs;

fn gdb(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("gdb")
        .args(["-nx", "-batch"])
        .args(arguments)
        .stdin(Stdio::null())
        .env("DEBUGINFOD_URLS", "")
        .output()
}

fn rings(core: &Path, arguments: &str) -> (String, String) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist/gdb/logdag.py");
    let command = format!("logdag-rings {arguments}");
    let core = format!("--core={}", core.display());
    // Without the program, there are neither symbols nor debug information.
    let output = gdb(&[&core, "-x", script.to_str().unwrap(), "-ex", &command]).unwrap();
    let (said, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    // gdb first prints its own lines about the core.
    let at = said.find("\nring ").map_or(said.len(), |at| at + 1);
    (said[at..].to_owned(), error)
}

#[test]
fn the_rings_of_a_core_are_those_of_the_process_that_was_killed() {
    if !programs::is_there(gdb(&["--version"]).is_ok(), "gdb", "GDB", "gdb") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let configuration = format!(
        "<app><logs>\
         <log name='ring' type='memory' path='5,1000'><outlet name='other'/></log>\
         <log name='other' type='memory'><outlet name='file'/></log>\
         <log name='file' type='file_synch' path='{}'/>\
         <log name='empty' type='memory'/>\
         </logs></app>",
        path("file.log").display()
    );
    fs::write(path("app.xml"), configuration).unwrap();
    // It kills the process that logs its lines, once that has all of them.
    let program = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo \"line $n\"; done; printf 'caf\\303\\251 \\033[1m\\n'; \
                   until grep -q caf \"$FILE\"; do sleep 0.01; done; kill -ABRT $PPID";
    let logdag = ["exec", "app.xml", "--stdout", "ring", "--", "sh", "-c", program];
    let stopped = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "run", "-ex", "generate-core-file core", "-ex", "kill", "--args"])
        .arg(env!("CARGO_BIN_EXE_logdag"))
        .args(logdag)
        .current_dir(directory.path())
        .env("FILE", path("file.log"))
        .env("DEBUGINFOD_URLS", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(
        said.contains("SIGABRT") && path("core").exists(),
        "{said}{}",
        String::from_utf8_lossy(&stopped.stderr)
    );

    let last = "line 9\nline 10\nline 11\nline 12\ncafé \\x1b[1m\n";
    let all: String = (1..=8).map(|n| format!("line {n}\n")).collect::<String>() + last;
    let (said, error) = rings(&path("core"), "");
    let expected = [format!("ring ring: 5 lines\n{last}"), format!("ring other: 13 lines\n{all}")];
    assert!(said == expected.concat() || said == format!("{}{}", expected[1], expected[0]), "{said}{error}");
    assert_eq!(rings(&path("core"), "ring 2").0, "ring ring: 5 lines\nline 12\ncafé \\x1b[1m\n");
    let (said, _) = rings(&path("core"), "-t ring 2");
    let line = said.lines().nth(1).unwrap();
    let year = line.strip_prefix("12 20").and_then(|rest| rest.strip_suffix(" line 12"));
    assert!(year.is_some_and(|rest| rest.len() == "26-11-26 01:02:03.123456".len()), "{said}");
    let (said, error) = rings(&path("core"), "empty");
    assert_eq!(
        (&*said, error.lines().last()),
        ("", Some("there is no ring of a stream empty that had a line"))
    );
}
