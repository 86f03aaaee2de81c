//! A process that changes its directory. A separate test binary, because the directory belongs to
//! the whole process.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use logdag::config::Config;
use logdag::{Graph, log};

#[test]
fn files_and_feeds_stay_where_they_were_opened() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::env::set_current_dir(dir.path()).unwrap();
    let text = r#"<app><logs>
        <log name="file" type="file_synch" path="app.log" latest="latest.log"/>
        <log name="feed" type="jlog" path="app.feed(reader)"/>
    </logs></app>"#;
    let graph = Graph::new();
    Config::from_text("app.xml", text).unwrap().apply(&graph).unwrap();
    let (file, feed) = (graph.stream("file").unwrap(), graph.stream("feed").unwrap());
    log!(file, "one");
    log!(feed, "one");
    std::env::set_current_dir(elsewhere.path()).unwrap();
    graph.reopen().unwrap();
    log!(file, "two");
    // The sink checks the path once a second.
    std::thread::sleep(Duration::from_millis(1100));
    log!(file, "three");
    graph.rotate("file").unwrap();
    log!(file, "four");
    // A feed that somebody removed is created again.
    fs::remove_dir_all(dir.path().join("app.feed")).unwrap();
    graph.reopen().unwrap();
    log!(feed, "two");
    graph.flush().unwrap();
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(dir.path().join("app.log")).unwrap(), "four\n");
    assert_eq!(fs::read_to_string(dir.path().join("latest.log")).unwrap(), "four\n");
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(fs::read_to_string(dir.path().join(&names[2])).unwrap(), "one\ntwo\nthree\n");
    assert!(dir.path().join("app.feed").is_dir());
    // Another configuration has the same paths, and one whose file is opened now.
    let text = text.replace("app.feed(reader)\"", "app.feed(reader)\" facility=\"on\"").replace(
        "<log name=\"file\"",
        "<log name=\"new\" type=\"file\" path=\"new.log\"/><log name=\"file\" format=\"json\"",
    );
    Config::from_text("app.xml", &text).unwrap().replace(&graph).unwrap();
    log!(file, "five");
    log!(graph.stream("new").unwrap(), "six");
    log!(feed, "seven");
    graph.flush().unwrap();
    let names: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.is_empty(), "{names:?}");
    let written = fs::read_to_string(dir.path().join("app.log")).unwrap();
    assert!(written.starts_with("four\n{") && written.contains("\"five\""), "{written}");
    assert_eq!(fs::read_to_string(dir.path().join("new.log")).unwrap(), "six\n");
}
