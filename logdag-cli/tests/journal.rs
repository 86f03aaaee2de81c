//! Entries in a real journal.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::programs;

/// A datagram of a local socket holds only about 200 KiB.
#[test]
fn entries_of_any_length_arrive_whole() {
    let command = "test -x /lib/systemd/systemd-journald && command -v journalctl && unshare --mount true";
    let there = Command::new("sh").args(["-c", command]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !programs::is_there(there.unwrap().success(), "systemd-journald", "JOURNALD", "systemd") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let long = "0123456789abcde\n".repeat(200_000);
    let bodies = ["short", &long, "between", &long];
    let config =
        "[[log]]\nname = \"web\"\ntype = \"journald\"\n[log.config]\nidentifier = \"long-entries\"\n";
    fs::write(path("web.toml"), config).unwrap();
    let events: String = bodies
        .iter()
        .enumerate()
        .map(|(n, body)| {
            format!("{}\n", serde_json::json!({ "event": body, "level": "warn", "n": n, "body": body }))
        })
        .collect();
    fs::write(path("events"), events).unwrap();
    let script = "set -e\n\
                  \"$0\" run web.toml --json-field --in web=stdin < events\n\
                  journalctl --sync\n\
                  journalctl -t long-entries -o json --all --no-pager\n";
    let with_journal = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/with-journal.sh");
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120", "unshare", "--mount"])
        .arg(with_journal)
        .args(["sh", "-c", script, env!("CARGO_BIN_EXE_logdag")])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let entries: Vec<serde_json::Value> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(entries.len(), bodies.len());
    for ((n, body), entry) in bodies.iter().enumerate().zip(entries) {
        assert_eq!(entry["N"], n.to_string());
        assert_eq!(entry["PRIORITY"], "4");
        assert!(entry["BODY"] == *body, "the key of entry {n}");
        assert!(entry["MESSAGE"] == body.trim_end(), "the message of entry {n}");
    }
}
