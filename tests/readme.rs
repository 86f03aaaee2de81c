//! The example from the README, unchanged, in a program that is started twice.

use std::path::Path;
use std::time::Duration;

use jlog_core::{Jlog, Start, Wait};

const README: &str = include_str!("../README.md");
const HERE: &str = include_str!("readme.rs");

#[rustfmt::skip]
fn example(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut read = Vec::new();
// begin
let log = Jlog::create_or_open(path)?;
log.ensure_subscriber("billing", Start::Beginning)?;

let writer = log.writer()?; // Send + Sync; other processes may write, too
writer.append(b"hello")?; // subscribers see it when this returns
writer.append_batch(&["many", "at", "once"])?;
writer.sync()?; // all of it survives a power failure when this returns
writer.close()?;

let mut reader = log.reader("billing")?;
while let Some(batch) = reader.next_batch(Wait::Timeout(Duration::from_secs(1)))? {
    for message in &batch {
        read.push(format!("{} {}", message.id(), String::from_utf8_lossy(message.body())));
    }
    let last = batch.last_id();
    reader.commit(last)?; // everything up to here is done
}
// end
    Ok(read)
}

/// The text between the marks, as it is in the README, where the feed has a name and messages are
/// printed.
fn shown() -> String {
    let (_, behind) = HERE.split_once("\n// begin\n").unwrap();
    let (block, _) = behind.split_once("\n// end\n").unwrap();
    block
        .replace("create_or_open(path)", "create_or_open(\"feed\")")
        .replace("read.push(format!(", "println!(")
        .replace(")));", "));")
}

#[test]
fn the_readme_has_this_example() {
    assert!(README.contains(&format!("```rust\n{}\n```", shown())), "{}", shown());
}

#[test]
fn it_runs_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    for first in [1, 5] {
        let bodies = ["hello", "many", "at", "once"].into_iter().zip(first..);
        let expected: Vec<String> = bodies.map(|(body, n)| format!("00000000:{n:08x} {body}")).collect();
        assert_eq!(example(&path).unwrap(), expected);
    }
}
