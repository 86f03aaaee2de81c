//! Lines on a standard error that leads to the journal have their priorities in front.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use logdag::{Details, Graph, Level, Location};

const TOLD: &str = "LOGDAG_TEST_LOGS_TO_STDERR";

/// In a process of its own: what it writes is looked at below.
#[test]
fn logs() {
    if std::env::var_os(TOLD).is_none() {
        return;
    }
    let graph = Graph::new();
    let error = graph.stream("error").unwrap();
    graph
        .configure(
            "stderr",
            graph
                .options("stderr")
                .map(|mut options| {
                    options.flags.timestamps = false;
                    options
                })
                .unwrap(),
        )
        .unwrap();
    for level in Level::ALL {
        error.log_with(&Details::NONE, level, &Location::UNKNOWN, &[], &format_args!("{level}\nmore"));
    }
    graph.flush().unwrap();
}

fn written_with(journal: impl FnOnce(&File) -> Option<String>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stderr");
    let file = File::create(&path).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "logs", "--nocapture"]).env(TOLD, "1").env_remove("JOURNAL_STREAM");
    if let Some(journal) = journal(&file) {
        command.env("JOURNAL_STREAM", journal);
    }
    let output = command.stderr(file).output().unwrap();
    assert!(output.status.success());
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn lines_have_priorities_where_the_journal_reads_them() {
    let of = |file: &File| file.metadata().map(|facts| format!("{}:{}", facts.dev(), facts.ino())).unwrap();
    let expected = "<7>trace\n<7>\tmore\n<7>debug\n<7>\tmore\n<6>info\n<6>\tmore\n<4>warning\n<4>\tmore\n<3>error\n<3>\tmore\n";
    assert_eq!(written_with(|file| Some(of(file))), expected);
    let without: String = expected.lines().map(|line| format!("{}\n", &line[3..])).collect();
    assert_eq!(written_with(|_| None), without);
    // The variable is inherited by what has its standard error elsewhere.
    assert_eq!(written_with(|_| Some("1:2".to_owned())), without);
}
