//! `jlog demo`.

use std::path::Path;

use crate::support::{Place, Running, bare, jlog, lines, run};

#[test]
fn the_demo_shows_a_feed_with_two_subscribers() {
    let place = Place::empty();
    let directory = place.path("demo");
    let text = run(jlog(["demo".as_ref(), directory.as_os_str()]), "").text();
    let feed = directory.join("feed");
    assert!(text.contains(&format!("{} (6,050 lines)", directory.join("access.log").display())), "{text}");
    assert!(text.contains(&format!("billing and audit: {}\n", feed.display())), "{text}");
    assert!(text.contains("6,050 records"), "{text}");
    assert!(text.contains("billing has read all 6,050, audit half of them: 3,025\n"), "{text}");
    let row = |name: &str| -> Vec<&str> {
        let row = text.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
        row.unwrap_or_else(|| panic!("{name}: {text}")).split_whitespace().collect()
    };
    // The table of the status has a name, a checkpoint and the lag.
    let audit = text.lines().rfind(|line| line.trim_start().starts_with("audit")).unwrap();
    let audit: Vec<&str> = audit.split_whitespace().collect();
    assert_eq!((audit[0], audit[2]), ("audit", "3,025"));
    assert!(audit.join(" ").contains("holds back "), "{audit:?}");
    assert_eq!(row("subscriber")[..3], ["subscriber", "checkpoint", "behind"]);

    let log = std::fs::read(directory.join("access.log")).unwrap();
    let messages: Vec<&[u8]> = log.strip_suffix(b"\n").unwrap().split(|&b| b == b'\n').collect();
    assert_eq!(messages.len(), 6050);
    let feed = jlog_core::Jlog::open(&feed).unwrap();
    assert_eq!(feed.lag("billing").unwrap().messages, 0);
    assert_eq!(feed.lag("audit").unwrap().messages, 3025);
    let mut reader = feed.reader("audit").unwrap();
    let mut left = messages[3025..].iter();
    while let Some(batch) = reader.next_batch(jlog_core::Wait::No).unwrap() {
        assert!(batch.iter().all(|message| left.next() == Some(&message.body())));
    }
    assert_eq!(left.len(), 0);
}

/// Runs a line of the demo in a shell that finds our command.
fn shell(line: &str, bin: &Path) -> std::process::Command {
    let mut command = bare("sh");
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["-c", line]).env("PATH", format!("{}:{path}", bin.display()));
    command
}

#[test]
fn the_lines_to_try_next_work() {
    let place = Place::empty();
    // A space in the path makes no difference.
    let temporary = place.path("temporary files");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = jlog(["demo"]);
    command.env("TMPDIR", &temporary);
    let text = run(command, "").text();
    let directory = std::fs::read_dir(&temporary).unwrap().next().unwrap().unwrap().path();
    assert!(directory.file_name().unwrap().to_str().unwrap().starts_with("jlog-demo-"));

    let bin = Path::new(env!("CARGO_BIN_EXE_jlog")).parent().unwrap();
    let (_, next) = text.split_once("\nTry next").unwrap();
    let next: Vec<&str> = next.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    let [read, peek, tail, write, status, verify] = next[..] else { panic!("{next:?}") };
    assert_eq!(lines(&run(shell(read, bin), "").text()).len(), 3);
    let object: serde_json::Value = serde_json::from_str(&run(shell(peek, bin), "").text()).unwrap();
    assert_eq!(object["size"], object["body"].as_str().unwrap().len());

    let tail = tail.strip_suffix(" &").unwrap();
    let (_tail, lines) = Running::with_lines(shell(&format!("exec {tail} -n 1"), bin));
    let feed = jlog_core::Jlog::open(directory.join("feed")).unwrap();
    crate::support::until("the tail has subscribed", || feed.subscribers().unwrap().len() == 3);
    assert_eq!(run(shell(write, bin), "").code, Some(0));
    assert_eq!(lines.next().as_deref(), Some("hello from the command line\n"));
    let status = run(shell(status, bin), "").text();
    assert!(status.contains("3,023"), "{status}");
    assert!(run(shell(verify, bin), "").text().starts_with("sound: "));
}

#[test]
fn the_demo_takes_no_directory_that_is_there() {
    let place = Place::empty();
    let complaint = run(jlog(["demo".as_ref(), place.path("").as_os_str()]), "").failed(1);
    assert!(complaint.contains("name a directory that does not exist"), "{complaint}");
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}
