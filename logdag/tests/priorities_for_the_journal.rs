//! If standard output or error leads to the journal, lines there begin with their priorities.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use logdag::{Details, Graph, Level, Location, SinkSpec, StreamOptions};

/// Names the output that a separate process logs to.
const KIND: &str = "LOGDAG_TEST_LOGS_TO";

/// Runs in a separate process, whose output the test below checks.
#[test]
fn logs() {
    let Ok(kind) = std::env::var(KIND) else { return };
    let graph = Graph::new();
    let out = graph.configure("out", StreamOptions::new().sink(SinkSpec::new(&kind, ""))).unwrap();
    for level in Level::ALL {
        out.log_with(&Details::NONE, level, &Location::UNKNOWN, &[], &format_args!("{level}\nmore"));
    }
    graph.flush().unwrap();
}

fn written_with(kind: &str, journal: impl FnOnce(&File) -> Option<String>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(kind);
    let file = File::create(&path).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "logs", "--nocapture", "--quiet"]).env(KIND, kind).env_remove("JOURNAL_STREAM");
    if let Some(journal) = journal(&file) {
        command.env("JOURNAL_STREAM", journal);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    match kind {
        "stdout" => command.stdout(file),
        _ => command.stderr(file),
    };
    assert!(command.status().unwrap().success());
    let text = std::fs::read_to_string(path).unwrap();
    // The test harness also prints to standard output.
    let is_ours =
        |line: &&str| Level::ALL.iter().any(|level| line.contains(level.name())) || line.contains("\tmore");
    text.lines().filter(is_ours).map(|line| format!("{line}\n")).collect()
}

#[test]
fn lines_have_priorities_where_the_journal_reads_them() {
    let of = |file: &File| file.metadata().map(|facts| format!("{}:{}", facts.dev(), facts.ino())).unwrap();
    let expected = "<7>trace\n<7>\tmore\n<7>debug\n<7>\tmore\n<6>info\n<6>\tmore\n<4>warning\n<4>\tmore\n<3>error\n<3>\tmore\n";
    let without: String = expected.lines().map(|line| format!("{}\n", &line[3..])).collect();
    for kind in ["stdout", "stderr"] {
        assert_eq!(written_with(kind, |file| Some(of(file))), expected, "{kind}");
        assert_eq!(written_with(kind, |_| None), without, "{kind}");
        // A process whose outputs lead elsewhere may inherit the variable.
        assert_eq!(written_with(kind, |_| Some("1:2".to_owned())), without, "{kind}");
    }
}
