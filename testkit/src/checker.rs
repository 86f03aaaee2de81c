//! The independent checker of the format, a program in Python.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use crate::feeds::{Row, rows};
use crate::programs::is_required;

/// The independent reader of the format: `JLOG_CHECK`, or `../shared/tools/jlog_check.py` next to
/// the repository. `None`, with a message, if it or python3 is missing.
fn checker_script() -> Option<PathBuf> {
    static SCRIPT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let script = SCRIPT.get_or_init(find_checker).clone();
    assert!(script.is_some() || !is_required("GOLDEN"), "no checker, and JLOG_REQUIRE_GOLDEN is set");
    script
}

fn find_checker() -> Option<PathBuf> {
    let script = std::env::var_os("JLOG_CHECK").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/tools/jlog_check.py")),
        PathBuf::from,
    );
    if !script.is_file() {
        eprintln!("skipped: no checker at {} (set JLOG_CHECK)", script.display());
        return None;
    }
    let python =
        Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3 to run the checker with");
        return None;
    }
    Some(script)
}

/// Runs the checker as its documentation says. Returns whether it found nothing wrong, and its
/// output. `None` if there is no checker.
pub fn check_strictly(dir: &Path) -> Option<(bool, serde_json::Value)> {
    let script = checker_script()?;
    let output =
        Command::new("python3").arg(script).arg(dir).args(["--strict", "--messages"]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    Some((output.status.success(), report))
}

/// The checker, loaded once by a python3 that checks one directory after the other.
pub struct Checker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// Answers each path on stdin with the checker's report in one line.
const SERVER: &str = "
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location('jlog_check', sys.argv[1])
checker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checker)
for line in sys.stdin.buffer:
    print(json.dumps(checker.check(os.fsdecode(line[:-1]), True)), flush=True)
";

impl Checker {
    /// Starts it. `None` if there is no checker, or no python3.
    pub fn start() -> Option<Self> {
        let script = checker_script()?;
        let mut child = Command::new("python3")
            .args(["-B", "-c", SERVER])
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, stdin, stdout })
    }

    /// The checker's report on a directory.
    pub fn report(&mut self, dir: &Path) -> serde_json::Value {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(dir.as_os_str().as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
        stdin.flush().unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Fails unless the checker finds nothing wrong; returns the messages in the segments, in
    /// order.
    pub fn messages(&mut self, dir: &Path, what: &str) -> Vec<Row> {
        let report = self.report(dir);
        assert_eq!(report["problems"], serde_json::json!([]), "{what}");
        rows(&report["messages"])
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // The checker ends when its input ends.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Asks the checker, if there is one, whether directories conform.
pub struct Conforming(Option<Checker>);

impl Conforming {
    /// Starts the checker, if there is one.
    pub fn start() -> Self {
        Self(Checker::start())
    }

    /// Fails if the checker finds something wrong.
    pub fn check(&mut self, dir: &Path) {
        if let Some(checker) = &mut self.0 {
            assert_eq!(checker.report(dir)["problems"], serde_json::json!([]));
        }
    }
}
