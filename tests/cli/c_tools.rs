//! Under the names `jlogctl` and `jlogtail`, the command has the output and exit codes of the C
//! tools.
//!
//! If the environment variable `JLOG_C_TOOLS` names a directory with the C tools, they are run on
//! copies of the same directories, and must print the same.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jlog_core::{LogId, Start};
use nix::sys::signal::Signal;

use crate::support::{Done, Place, Running, bare, copy_dir, end, lines, run, time, until};

/// Our command under another name, in a directory.
fn linked(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    symlink(env!("CARGO_BIN_EXE_jlog"), &path).unwrap();
    path
}

/// A tool that runs in a separate directory.
struct Tool {
    program: PathBuf,
    directory: PathBuf,
}

impl Tool {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.program);
        command.current_dir(&self.directory).args(arguments);
        command.arg0("jlogctl");
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        run(self.command(arguments), "")
    }

    /// Checks that the tool exits with 0 and prints these texts to stdout and stderr.
    #[track_caller]
    fn prints(&self, arguments: &[&str], stdout: &str, stderr: &str) {
        let done = self.run(arguments);
        let printed = String::from_utf8(done.stdout).unwrap();
        assert_eq!((printed.as_str(), done.stderr.as_str()), (stdout, stderr), "{arguments:?}");
        assert_eq!(done.code, Some(0), "{arguments:?}");
    }
}

/// Two segments of 11 and 4 messages, as a C process would have made them, in a directory `demo`.
fn demo(place: &Place) {
    let options = jlog_core::JlogOptions::default().segment_size(200).checksums(false);
    let log = options.create(place.path("demo")).unwrap();
    let writer = log.writer().unwrap();
    for n in 1..=15 {
        writer.append_at(time(n).0, format!("m{n:02}")).unwrap();
    }
    end(writer);
}

/// A place with the feed `demo` in it, and our command as `jlogctl` there.
fn with_demo() -> (Place, Tool) {
    let place = Place::empty();
    demo(&place);
    let tool = Tool { program: linked(&place.path(""), "jlogctl"), directory: place.path("") };
    (place, tool)
}

fn log(place: &Place, name: &str) -> jlog_core::Jlog {
    jlog_core::Jlog::open(place.path(name)).unwrap()
}

#[test]
fn subscribers_are_managed_in_the_new_style() {
    let (place, tool) = with_demo();
    tool.prints(&["subscriber", "-j", "demo"], "", "");
    let added = "Added subscriber 'one' -> 00000000:00000000\n";
    tool.prints(&["subscriber", "-j", "demo", "-a", "one"], added, "");
    let exists = "Could not add subscriber 'one': JLOG_ERR_SUBSCRIBER_EXISTS\n";
    tool.prints(&["subscriber", "-j", "demo", "-a", "one"], "", exists);
    tool.prints(&["subscriber", "-jdemo", "-atwo"], "Added subscriber 'two' -> 00000000:00000000\n", "");
    let list = "\t                             one @ 00000000:00000000\n\
                \t                             two @ 00000000:00000000\n";
    tool.prints(&["subscriber", "-j", "demo"], list, "");
    tool.prints(&["subscriber", "-j", "demo", "-l", "-v"], list, "");
    let updated = "Updated subscriber 'one' 00000000:00000000 -> 00000000:00000002\n";
    tool.prints(&["subscriber", "-j", "demo", "-u", "one", "-C", "00000000:00000002"], updated, "");
    let same = "Updated subscriber 'one' 00000000:00000002 -> 00000000:00000002\n";
    tool.prints(&["subscriber", "-j", "demo", "-u", "one"], same, "");
    let invalid = "error opening 'demo': JLOG_ERR_INVALID_SUBSCRIBER\n";
    tool.prints(&["subscriber", "-j", "demo", "-u", "nosuch", "-C", "00000000:00000002"], "", invalid);
    tool.prints(&["subscriber", "-j", "demo", "-p", "nosuch"], "", invalid);
    let absent = "Could not erase subscriber 'nosuch': JLOG_ERR_INVALID_SUBSCRIBER\n";
    tool.prints(&["subscriber", "-j", "demo", "-e", "nosuch"], "", absent);
    tool.prints(&["subscriber", "-j", "demo", "-e", "two"], "Erased subscriber 'two'\n", "");
    let left = "\t                             one @ 00000000:00000002\n";
    tool.prints(&["subscriber", "-j", "demo"], left, "");
    let name = "a name that is longer than thirty-two bytes";
    log(&place, "demo").subscribe(name, Start::End).unwrap();
    let done = tool.run(&["subscriber", "-j", "demo"]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(lines(&text).contains(&format!("\t{name} @ 00000001:00000004").as_str()), "{text}");
}

#[test]
fn a_subscriber_can_be_added_at_an_id() {
    // The C tool always fails at this and says so; ours does it.
    let (place, tool) = with_demo();
    let added = "Added subscriber 'three' -> 00000000:00000005\n";
    tool.prints(&["subscriber", "-j", "demo", "-a", "three", "-C", "00000000:00000005"], added, "");
    assert_eq!(log(&place, "demo").checkpoint("three").unwrap(), LogId::new(0, 5));
}

#[test]
fn the_perspective_of_a_subscriber_is_shown() {
    let (_place, tool) = with_demo();
    tool.run(&["subscriber", "-j", "demo", "-a", "one"]);
    tool.run(&["subscriber", "-j", "demo", "-u", "one", "-C", "00000000:00000002"]);
    let perspective = "--------------------\n  Perspective of the 'one' subscriber\n    \
                       current checkpoint: 00000000:00000002\nLast write: 00000001:00000004\n\
                       \t     next interval: [00000000:00000003, 00000000:0000000b]\n\
                       --------------------\n\n";
    tool.prints(&["subscriber", "-j", "demo", "-p", "one"], perspective, "");
    let old = format!("demo\n{perspective}");
    tool.prints(&["-p", "one", "demo"], &old, "");
}

#[test]
fn segments_are_listed() {
    let (_place, tool) = with_demo();
    let none = "\t00000000 [      209 bytes] 0 pending readers\n\
                \t00000001 [       76 bytes] 0 pending readers\n";
    tool.prints(&["data", "-j", "demo"], none, "");
    tool.run(&["subscriber", "-j", "demo", "-a", "one"]);
    tool.run(&["subscriber", "-j", "demo", "-a", "two"]);
    tool.run(&["subscriber", "-j", "demo", "-u", "two", "-C", "00000001:00000001"]);
    let plain = "\t00000000 [      209 bytes] 1 pending readers\n\
                 \t00000001 [       76 bytes] 2 pending readers\n";
    tool.prints(&["data", "-j", "demo"], plain, "");
    let indexed = "\t00000000 [      209 bytes] 1 pending readers\n\t\t idx: none\n\
                   \t00000001 [       76 bytes] 2 pending readers\n\t\t idx: none\n";
    tool.prints(&["data", "-j", "demo", "-i"], indexed, "");
    // Showing a perspective updates the index.
    tool.run(&["subscriber", "-j", "demo", "-p", "one"]);
    tool.run(&["subscriber", "-j", "demo", "-p", "two"]);
    let indexed = "\t00000000 [      209 bytes] 1 pending readers\n\
                   \t\t idx: 11 messages (0000000b), closed\n\
                   \t00000001 [       76 bytes] 2 pending readers\n\
                   \t\t idx: 4 messages (00000004), open\n";
    tool.prints(&["data", "-j", "demo", "-i"], indexed, "");
    tool.prints(&["-i", "demo"], &format!("demo\n{indexed}"), "");
    tool.prints(&["-l", "demo"], &format!("demo\n{plain}"), "");
}

/// A segment or an index that cannot be read is listed as the C tool lists it, and so is everything
/// around it.
#[test]
fn unreadable_segments_and_indexes_are_listed() {
    let (place, tool) = with_demo();
    tool.run(&["subscriber", "-j", "demo", "-a", "one"]);
    tool.run(&["subscriber", "-j", "demo", "-p", "one"]);
    let second = "\t00000001 [       76 bytes] 1 pending readers\n\t\t idx: none\n";
    let listed = |index: &str, stderr: &str| {
        let first = format!("\t00000000 [      209 bytes] 1 pending readers\n\t\t idx: {index}\n");
        tool.prints(&["data", "-j", "demo", "-i"], &(first + second), stderr);
    };
    listed("11 messages (0000000b), closed", "");
    // Damage in the segment changes nothing about its index.
    let segment = place.path("demo/00000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[19..23].fill(0xff);
    std::fs::write(&segment, bytes).unwrap();
    listed("11 messages (0000000b), closed", "");
    let index = place.path("demo/00000000.idx");
    std::fs::write(&index, [0; 13]).unwrap();
    listed("error", "");
    std::fs::remove_file(&index).unwrap();
    std::fs::create_dir(&index).unwrap();
    listed("error", "demo/00000000.idx is a directory, not a regular file: remove it, then try again\n");
    std::fs::remove_dir(&index).unwrap();
    listed("none", "");
    std::fs::remove_file(&segment).unwrap();
    symlink("nowhere", &segment).unwrap();
    let gone = "demo/00000000 is a symbolic link, not a regular file: remove it, then try again\n";
    let first = "\t00000000 [        7 bytes] 1 pending readers\n\t\t idx: none\n";
    tool.prints(&["data", "-j", "demo", "-i"], &format!("{first}{second}"), gone);
}

#[test]
fn each_message_is_analysed_when_asked_for() {
    let (_place, tool) = with_demo();
    let done = tool.run(&["data", "-j", "demo", "-d", "-v"]);
    assert_eq!(done.code, Some(0));
    let said = lines(&done.stderr);
    assert_eq!(said.len(), 15 * 3);
    let expected = ["Message 1 at [0] of (16+3)", "\ttime: Sun Mar  1 12:00:01 2026", "\tmlen: 3"];
    assert_eq!(said[..3], expected);
    assert_eq!(said[36], "Message 2 at [19] of (16+3)");
    tool.prints(&["data", "-j", "demo", "-d"], &String::from_utf8(done.stdout).unwrap(), "");
}

#[test]
fn a_compressed_record_has_a_header_of_20_bytes_whatever_it_holds() {
    let (place, tool) = with_demo();
    let options = jlog_core::JlogOptions::default().compression(jlog_core::Compression::Lz4);
    let lz4 = options.create(place.path("lz4")).unwrap();
    let writer = lz4.writer().unwrap();
    // This message is as long compressed as uncompressed.
    let same: Vec<u8> = [&[b'a'; 6][..], b"0123456789bcdef"].concat();
    writer.append("text ".repeat(30)).unwrap();
    writer.append(same).unwrap();
    writer.append("").unwrap();
    end(writer);
    let said = tool.run(&["data", "-j", "lz4", "-d", "-v"]).stderr;
    let heads: Vec<&str> = said.lines().filter(|line| line.starts_with("Message")).collect();
    assert_eq!(heads.len(), 3);
    assert!(heads.iter().all(|head| head.contains(" of (20+")), "{heads:?}");
}

#[test]
fn damage_is_told_and_repaired_and_costs_no_good_message() {
    let (place, tool) = with_demo();
    log(&place, "demo").subscribe("one", Start::Beginning).unwrap();
    let path = place.path("demo/00000001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"junk");
    std::fs::write(&path, bytes).unwrap();
    let list = "\t00000000 [      209 bytes] 1 pending readers\n\
                \t00000001 [       80 bytes] 1 pending readers\n";
    let done = tool.run(&["data", "-j", "demo", "-d"]);
    assert_eq!((done.code, String::from_utf8(done.stdout).unwrap().as_str()), (Some(0), list));
    assert_eq!(lines(&done.stderr), ["4 bytes of junk at the end", "One or more errors were found."]);
    let done = tool.run(&["data", "-j", "demo", "-r"]);
    assert_eq!((done.code, String::from_utf8(done.stdout).unwrap().as_str()), (Some(0), list));
    let repaired = "Log file reconstructed, deleting the corresponding idx file.";
    assert_eq!(lines(&done.stderr).last(), Some(&repaired));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 76);
    let done = tool.run(&["data", "-j", "demo", "-d"]);
    assert_eq!(done.stderr, "");
}

#[test]
fn a_torn_record_and_a_wrong_header_are_told_as_the_c_tool_does() {
    let (place, tool) = with_demo();
    let path = place.path("demo/00000001");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..74]).unwrap();
    let said = tool.run(&["data", "-j", "demo", "-d"]).stderr;
    let expected = ["Message 4 at [57] of (16+3) OFF THE END!", "One or more errors were found."];
    assert_eq!(lines(&said), expected);
    let mut bytes = whole;
    bytes[19..23].copy_from_slice(b"XXXX");
    std::fs::write(&path, &bytes).unwrap();
    let said = tool.run(&["data", "-j", "demo", "-d"]).stderr;
    let expected =
        ["Message 2 at [19] has invalid reserved value 1482184792", "One or more errors were found."];
    assert_eq!(lines(&said), expected);
}

#[test]
fn clean_is_silent_and_never_takes_the_segment_being_written() {
    let (place, tool) = with_demo();
    tool.prints(&["clean", "-j", "demo"], "", "");
    // Without a subscriber, the C tool removes everything, even the segment being written.
    assert!(place.path("demo/00000001").exists());
    let (place, tool) = with_demo();
    log(&place, "demo").subscribe("one", Start::After(LogId::new(1, 0))).unwrap();
    tool.prints(&["clean", "-j", "demo"], "", "");
    assert!(!place.path("demo/00000000").exists() && place.path("demo/00000001").exists());
    tool.prints(&["-c", "-l", "-s", "demo"], "", "");
}

#[test]
fn repair_restores_the_metastore_and_is_silent() {
    let (place, tool) = with_demo();
    log(&place, "demo").subscribe("one", Start::Beginning).unwrap();
    std::fs::write(place.path("demo/metastore"), "").unwrap();
    let damaged = "Failed to open jlog at 'demo'\n\
                   perhaps the metastore is damaged or this directory isn't a jlog?\n";
    tool.prints(&["subscriber", "-j", "demo"], "", damaged);
    tool.prints(&["repair", "-j", "demo"], "", "");
    let list = "\t00000000 [      209 bytes] 1 pending readers\n\
                \t00000001 [       76 bytes] 1 pending readers\n";
    tool.prints(&["repair", "-j", "demo", "-f"], list, "");
    let mut reader = log(&place, "demo").reader("one").unwrap();
    assert_eq!(reader.next_batch(jlog_core::Wait::No).unwrap().unwrap().len(), 11);
}

#[test]
fn the_metastore_is_shown_and_changed() {
    let (_place, tool) = with_demo();
    let all = "magic          663a7318\nstoragelog     00000001\ncompression    off\n\
               safety         metasafe\nprecommit      0\nsegmentsize    200\n";
    tool.prints(&["meta", "-j", "demo"], all, "");
    for (letter, value) in [
        ("-m", "663a7318"),
        ("-l", "00000001"),
        ("-c", "off"),
        ("-f", "metasafe"),
        ("-p", "0"),
        ("-s", "200"),
    ] {
        tool.prints(&["meta", "-j", "demo", letter], &format!("{value}\n"), "");
    }
    tool.prints(&["alter", "-j", "demo", "-s", "65536", "-p", "131072"], "", "");
    tool.prints(&["meta", "-j", "demo", "-s"], "65536\n", "");
    tool.prints(&["meta", "-j", "demo", "-p"], "131072\n", "");
    let done = tool.run(&["meta", "-j", "nope"]);
    assert_eq!(done.code, Some(255));
    assert_eq!(done.stderr, "Failed to alter jlog 'nope': JLOG_ERR_OPEN\n");
}

#[test]
fn create_makes_what_the_c_tool_makes() {
    let (place, tool) = with_demo();
    tool.prints(&["create", "-j", "new", "-s", "4096", "-p", "0"], "", "");
    let files: Vec<String> =
        crate::support::snapshot(&place.path("new")).into_keys().map(|n| n.into_string().unwrap()).collect();
    for name in ["00000000", "metastore"] {
        assert!(files.contains(&name.to_owned()), "{files:?}");
    }
    // Without a buffer, its file may exist, empty, or be left to the first C writer.
    let buffer = std::fs::metadata(place.path("new/pre_commit"));
    assert!(buffer.map_or(true, |buffer| buffer.len() == 4));
    tool.prints(&["meta", "-j", "new", "-s"], "4096\n", "");
    for (arguments, complaint) in [
        (["create", "-j", "new"], "Failed to initialize jlog 'new': JLOG_ERR_CREATE_EXISTS\n"),
        (["create", "-j", "no/such"], "Failed to initialize jlog 'no/such': JLOG_ERR_CREATE_MKDIR\n"),
    ] {
        let done = tool.run(&arguments);
        assert_eq!((done.code, done.stdout.len(), done.stderr.as_str()), (Some(255), 0, complaint));
    }
    // The C tool would create segments endlessly.
    let done = tool.run(&["create", "-j", "zero", "-s", "0"]);
    assert_eq!(done.code, Some(255), "{}", done.stderr);
}

#[test]
fn the_old_style_takes_several_paths() {
    let (place, tool) = with_demo();
    let twin = place.path("twin");
    copy_dir(&place.path("demo"), &twin);
    log(&place, "twin").subscribe("one", Start::Beginning).unwrap();
    let demo = "demo\n\t00000000 [      209 bytes] 0 pending readers\n\
                \t00000001 [       76 bytes] 0 pending readers\n";
    let twin = "twin\n\t                             one @ 00000000:00000000\n\
                \t00000000 [      209 bytes] 1 pending readers\n\
                \t00000001 [       76 bytes] 1 pending readers\n";
    tool.prints(&["-l", "-s", "demo", "twin"], &format!("{demo}{twin}"), "");
    // The first jlog that cannot be opened ends the command.
    tool.prints(&["-l", "demo", "nope", "twin"], &format!("{demo}nope\n"), "Failed to open jlog at 'nope'\n");
    tool.prints(
        &["-a", "one", "-s", "demo", "twin"],
        "demo\nAdded subscriber 'one' -> 00000000:00000000\ntwin\n\t                             one @ \
         00000000:00000000\n",
        "Could not add subscriber 'one': JLOG_ERR_SUBSCRIBER_EXISTS\n",
    );
    tool.prints(
        &["-u", "one", "-C", "00000000:00000003", "demo"],
        "demo\nUpdated subscriber 'one' 00000000:00000000 -> 00000000:00000003\n",
        "",
    );
    tool.prints(&["-e", "one", "-s", "demo"], "demo\nErased subscriber 'one'\n", "");
    tool.prints(&["-R", "demo"], "demo\n", "");
}

#[test]
fn wrong_command_lines_show_the_usage() {
    let (_place, tool) = with_demo();
    let new = String::from_utf8(tool.run(&["-h"]).ok()).unwrap();
    assert!(new.contains("jlogctl") && new.lines().count() > 20, "{new}");
    assert_eq!(String::from_utf8(tool.run(&["help", "me"]).ok()).unwrap(), new);
    for (arguments, complaint) in [
        (&[][..], ""),
        (&["demo", "-l"], ""),
        (&["nonsense"], ""),
        (&["subscriber", "-j", "demo", "-a", "x", "-e", "y"], "invalid option combination\n"),
        (&["subscriber", "-j", "demo", "-C", "00000000:00000002"], "invalid option combination\n"),
        (&["subscriber", "-j", "demo", "extra"], "extraneous arguments: extra\n"),
        (&["subscriber", "--"], "extraneous arguments: --\n"),
        (&["subscriber", "-Z"], "unknown option: Z\n"),
        (&["subscriber", "-a"], "option a requires an argument\n"),
        (&["subscriber", "-lv"], "option l does not take an argument\n"),
        (&["subscriber", "--list"], "unknown long option --list\n"),
        (&["subscriber", "-"], ""),
        (&["clean", "demo"], "extraneous arguments: demo\n"),
        (&["meta", "-j", "demo", "-c", "-s"], ""),
        (&["create", "-s", "1"], "bad options\n"),
        (&["alter", "-j", "demo"], "bad options\n"),
        (&["alter", "-j", "demo", "-c", "maybe"], ""),
    ] {
        let done = tool.run(arguments);
        let stdout = String::from_utf8(done.stdout).unwrap();
        assert_eq!((done.code, done.stderr.as_str()), (Some(255), complaint), "{arguments:?}");
        assert!(stdout == new, "{arguments:?}: {stdout}");
    }
    for (arguments, complaint) in [
        (&["-l"][..], ""),
        (&["-lv", "x"], "option l does not take an argument\n"),
        (&["-Z"], "unknown option: Z\n"),
    ] {
        let done = tool.run(arguments);
        let stdout = String::from_utf8(done.stdout).unwrap();
        assert_eq!((done.code, done.stderr.as_str()), (Some(255), complaint), "{arguments:?}");
        assert!(stdout.starts_with(&new) && stdout.contains("\nOld Usage:"), "{arguments:?}: {stdout}");
    }
    let done = tool.run(&["subscriber", "-C", "1"]);
    assert_eq!(
        (done.code, done.stdout.len(), done.stderr.as_str()),
        (Some(255), 0, "Invalid argument to -C\n")
    );
}

/// Sorts lines, so that they do not depend on the order of the directory. A line with more
/// indentation belongs to the one before it.
fn normalised(stdout: &[u8]) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(stdout).lines() {
        match groups.last_mut() {
            Some(group) if line.starts_with("\t\t") => {
                group.push('\n');
                group.push_str(line);
            }
            _ => groups.push(line.to_owned()),
        }
    }
    groups.sort();
    groups
}

/// Ends of lines of the C tool, and of our lines instead.
const DIFFERENCES: [(&str, &str); 2] = [
    // To find the last record, the C library makes an index of the segment being written; ours does
    // not need one.
    ("idx: 4 messages (00000004), open", "idx: none"),
    // A checkpoint past the end is moved back to the end. The C tool shows the old position, ours
    // the new one.
    ("[00000001:000000ff, 00000001:00000004]", "[00000001:00000004, 00000001:00000004]"),
];

fn means_the_same(mine: &str, real: &str) -> bool {
    let differs = |(theirs, ours): &(&str, &str)| {
        real.strip_suffix(theirs).is_some_and(|head| mine.strip_suffix(ours) == Some(head))
    };
    mine == real || DIFFERENCES.iter().any(differs)
}

/// The directory of the C tools; `None`, with a message, if there is none.
fn c_tools() -> Option<PathBuf> {
    let directory = std::env::var_os("JLOG_C_TOOLS").map(PathBuf::from);
    if directory.as_ref().is_none_or(|directory| !directory.join("jlogctl").is_file()) {
        eprintln!("skipped: JLOG_C_TOOLS names no directory with the C library's jlogctl");
        return None;
    }
    directory
}

#[test]
fn the_real_jlogctl_prints_the_same() {
    let Some(c_tools) = c_tools() else { return };
    // Each sequence of commands runs on a new copy; within it, each command continues with the
    // files of the previous one.
    let runs: &[&[&[&str]]] = &[
        &[
            &[],
            &["-h"],
            &["help", "me"],
            &["nonsense"],
            &["demo", "-l"],
            &["-l"],
            &["-lv", "demo"],
            &["-Z", "demo"],
            &["--list", "demo"],
            &["-"],
            &["--", "demo"],
            &["subscriber", "-"],
            &["subscriber", "--"],
            &["subscriber", "-j"],
            &["subscriber", "-h"],
            &["subscriber", "-j", "demo", "-l", "-l"],
            &["subscriber", "-j", "demo", "-a", "x", "-e", "y"],
            &["subscriber", "-j", "demo", "-C", "00000000:00000001"],
            &["subscriber", "-j", "demo", "-a", "x", "-C", "1"],
            &["subscriber", "-j", "demo", "extra"],
            &["data", "-j", "demo", "extra"],
            &["clean", "demo"],
            &["repair", "-x"],
            &["meta", "-j", "demo", "-c", "-c"],
            &["meta", "-j", "demo", "extra"],
            &["create"],
            &["create", "-j", "x", "-m"],
            &["create", "-j", "x", "-c", "maybe"],
            &["create", "-j", "x", "extra"],
            &["alter", "-j", "demo"],
            &["alter", "-j", "demo", "-c", "maybe"],
        ],
        &[
            &["subscriber", "-j", "demo"],
            &["subscriber", "-j", "demo", "-a", "one"],
            &["subscriber", "-j", "demo", "-a", "one"],
            &["subscriber", "-j", "demo", "-a", "two words"],
            &["subscriber", "-j", "demo", "-a", "-v"],
            &["subscriber", "-j", "demo", "-a", "a name that is longer than thirty-two bytes"],
            &["subscriber", "-j", "demo", "-l"],
            &["subscriber", "-j", "demo", "-p", "one"],
            &["data", "-j", "demo"],
            &["data", "-j", "demo", "-i"],
            &["data", "-j", "demo", "-d"],
            &["subscriber", "-j", "demo", "-u", "one"],
            &["subscriber", "-j", "demo", "-u", "one", "-C", "00000000:00000002"],
            &["subscriber", "-j", "demo", "-p", "one"],
            &["subscriber", "-j", "demo", "-u", "one", "-C", "00000001:00000004"],
            &["subscriber", "-j", "demo", "-p", "one"],
            &["data", "-j", "demo", "-i"],
            &["subscriber", "-j", "demo", "-u", "one", "-C", "00000001:000000ff"],
            &["subscriber", "-j", "demo", "-p", "one"],
            &["subscriber", "-j", "demo", "-u", "one", "-C", "00000000:0000000B"],
            &["subscriber", "-j", "demo", "-p", "one"],
            &["subscriber", "-j", "demo", "-u", "nosuch"],
            &["subscriber", "-j", "demo", "-p", "nosuch"],
            &["subscriber", "-j", "demo", "-e", "nosuch"],
            &["subscriber", "-j", "demo", "-e", "two words"],
            &["subscriber", "-j", "demo", "-e", "-v"],
            &["subscriber", "-j", "demo"],
            &["subscriber", "-j", "nope"],
            &["subscriber", "-j", "file"],
            &["subscriber", "-j", "plain"],
            &["data", "-j", "demo"],
        ],
        // Forward over segments: those that nobody needs are removed.
        &[
            &["subscriber", "-j", "demo", "-a", "one"],
            &["subscriber", "-j", "demo", "-u", "one", "-C", "00000001:00000000"],
            &["data", "-j", "demo", "-i"],
            &["subscriber", "-j", "demo", "-p", "one"],
            &["clean", "-j", "demo"],
            &["data", "-j", "demo", "-i"],
        ],
        &[
            &["meta", "-j", "demo"],
            &["meta", "-j", "demo", "-v"],
            &["meta", "-j", "demo", "-m"],
            &["meta", "-j", "demo", "-l"],
            &["meta", "-j", "demo", "-c"],
            &["meta", "-j", "demo", "-f"],
            &["meta", "-j", "demo", "-p"],
            &["meta", "-j", "demo", "-s"],
            &["meta", "-j", "lz4"],
            &["meta", "-j", "nope"],
            &["meta", "-j", "plain"],
            &["alter", "-j", "demo", "-s", "65536", "-p", "131072"],
            &["meta", "-j", "demo"],
            &["alter", "-j", "demo", "-s", "64k"],
            &["meta", "-j", "demo"],
            &["data", "-j", "demo"],
            &["alter", "-j", "demo", "-s", "-5"],
            &["alter", "-j", "demo", "-p", "0"],
            &["alter", "-j", "demo", "-c", "on"],
            &["meta", "-j", "demo"],
            &["alter", "-j", "nope", "-s", "5"],
        ],
        &[
            &["create", "-j", "new", "-s", "4096", "-p", "8192"],
            &["meta", "-j", "new"],
            &["data", "-j", "new", "-i"],
            &["subscriber", "-j", "new", "-a", "one"],
            &["subscriber", "-j", "new", "-p", "one"],
            &["subscriber", "-j", "new"],
            &["create", "-j", "new"],
            &["create", "-j", "demo"],
            &["create", "-j", "no/such"],
            &["create", "-j", "compressed", "-c", "on"],
            &["meta", "-j", "compressed"],
        ],
        &[
            &["-s", "demo"],
            &["-a", "one", "demo", "lz4"],
            &["-a", "one", "-l", "-s", "demo"],
            &["-a", "two", "-l", "-s", "demo"],
            &["-p", "one", "-s", "-i", "demo"],
            &["-p", "two", "demo", "lz4"],
            &["-u", "one", "-C", "00000000:00000003", "demo"],
            &["-u", "one", "demo", "lz4"],
            &["-d", "demo"],
            &["-e", "two", "-s", "demo"],
            &["-e", "two", "-s", "demo"],
            &["-l", "demo", "nope", "lz4"],
            &["-l", "demo", "file", "lz4"],
            &["-c", "-l", "-s", "demo"],
            &["-s", "demo", "lz4"],
            &["-R", "demo"],
            &["-C", "00000000:00000003", "demo"],
            &["-v", "demo"],
        ],
        // Damage: what is listed and where checkpoints go.
        &[
            &["subscriber", "-j", "torn", "-a", "one"],
            &["data", "-j", "torn"],
            &["data", "-j", "torn", "-d"],
            &["repair", "-j", "empty"],
            &["meta", "-j", "empty"],
            &["subscriber", "-j", "empty"],
            &["repair", "-j", "far"],
            &["subscriber", "-j", "far"],
            &["repair", "-j", "far", "-f"],
            &["repair", "-j", "nope"],
        ],
    ];
    let ours = Place::empty();
    prepare(&ours);
    let theirs = Place::empty();
    for name in ["demo", "lz4", "torn", "empty", "far", "plain"] {
        copy_dir(&ours.path(name), &theirs.path(name));
    }
    theirs.file("file", "text");
    let mut differences = Vec::new();
    for (n, steps) in runs.iter().enumerate() {
        let tools = [(&ours, env!("CARGO_BIN_EXE_jlog").into()), (&theirs, c_tools.join("jlogctl"))].map(
            |(place, program): (&Place, PathBuf)| {
                let directory = place.path(format!("run {n}"));
                std::fs::create_dir(&directory).unwrap();
                for name in ["demo", "lz4", "torn", "empty", "far", "plain"] {
                    copy_dir(&place.path(name), &directory.join(name));
                }
                std::fs::write(directory.join("file"), "text").unwrap();
                Tool { program, directory }
            },
        );
        for step in *steps {
            let [mine, real] = tools.each_ref().map(|tool| tool.run(step));
            let (mine_lines, real_lines) = (normalised(&mine.stdout), normalised(&real.stdout));
            let same = mine_lines.len() == real_lines.len()
                && mine_lines.iter().zip(&real_lines).all(|(mine, real)| means_the_same(mine, real));
            if mine.code != real.code || !same {
                differences.push(format!(
                    "{step:?}\n  ours: {:?} {mine_lines:#?} {}\n  theirs: {:?} {real_lines:#?} {}",
                    mine.code, mine.stderr, real.code, real.stderr
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// The directories that the tools are compared on.
fn prepare(place: &Place) {
    demo(place);
    let options = jlog_core::JlogOptions::default().compression(jlog_core::Compression::Lz4).checksums(false);
    let lz4 = options.create(place.path("lz4")).unwrap();
    let writer = lz4.writer().unwrap();
    writer.append("text ".repeat(30)).unwrap();
    end(writer);

    // The last record is cut.
    copy_dir(&place.path("demo"), &place.path("torn"));
    let file = std::fs::File::options().write(true).open(place.path("torn/00000001")).unwrap();
    file.set_len(74).unwrap();
    // The metastore has no bytes.
    copy_dir(&place.path("demo"), &place.path("empty"));
    log(place, "empty").subscribe("one", Start::After(LogId::new(0, 3))).unwrap();
    std::fs::write(place.path("empty/metastore"), "").unwrap();
    // Checkpoints beyond the end and past a segment's end.
    copy_dir(&place.path("demo"), &place.path("far"));
    std::fs::write(place.path("far/cp.6f6e65"), [9, 0, 0, 0, 1, 0, 0, 0]).unwrap();
    std::fs::write(place.path("far/cp.74776f"), [0, 0, 0, 0, 99, 0, 0, 0]).unwrap();
    std::fs::create_dir(place.path("plain")).unwrap();
    place.file("file", "text");
}

#[test]
fn the_real_jlogctl_reads_what_ours_has_changed() {
    let Some(c_tools) = c_tools() else { return };
    let (place, tool) = with_demo();
    let real = Tool { program: c_tools.join("jlogctl"), directory: place.path("") };
    let list = |tool: &Tool| -> BTreeMap<Vec<String>, Vec<String>> {
        [["subscriber", "-j", "new"], ["data", "-j", "new"], ["meta", "-j", "new"]]
            .iter()
            .map(|arguments| {
                let done = tool.run(arguments);
                assert_eq!(done.code, Some(0));
                (arguments.iter().map(ToString::to_string).collect(), normalised(&done.stdout))
            })
            .collect()
    };
    for step in [
        &["create", "-j", "new", "-s", "1000", "-p", "512"][..],
        &["subscriber", "-j", "new", "-a", "one"],
        &["subscriber", "-j", "new", "-a", "two"],
        &["alter", "-j", "new", "-p", "0", "-s", "64"],
        &["subscriber", "-j", "new", "-e", "one"],
    ] {
        assert_eq!(tool.run(step).code, Some(0));
        assert_eq!(list(&tool), list(&real), "after {step:?}");
    }
}

/// Starts `jlogtail` on the feed `demo`, and waits until it sees what is written from then on.
fn tail(place: &Place, program: &Path) -> (Running, crate::support::Lines) {
    let mut command = bare(program);
    command.arg("demo").current_dir(place.path(""));
    let (tail, lines) = Running::with_lines(command);
    // The C tool's subscriber exists only for a moment: the tool keeps the checkpoint open, and
    // removes its name. Ours has no subscriber, and watches the directory once it knows where to
    // begin.
    let open = format!("/proc/{}/fd", tail.id());
    until("the tail has subscribed", || {
        std::fs::read_dir(&open).is_ok_and(|mut files| {
            files.any(|file| {
                let target = file.and_then(|file| std::fs::read_link(file.path()));
                target.is_ok_and(|target| {
                    let target = target.to_string_lossy();
                    target.ends_with(" (deleted)") || target.contains("inotify")
                })
            })
        })
    });
    (tail, lines)
}

#[test]
fn jlogtail_shows_what_is_written_from_now_on() {
    let (place, _) = with_demo();
    let program = linked(&place.path(""), "jlogtail");
    let (mut tail, lines) = tail(&place, &program);
    let log = log(&place, "demo");
    assert_eq!(log.subscribers().unwrap().len(), 0, "it is anonymous");
    let writer = log.writer().unwrap();
    for message in [&b"hello world"[..], b"with newline\n", b"", b"cut\0off", b"cut\0off\n", b"after"] {
        writer.append(message).unwrap();
    }
    end(writer);
    let expected = ["hello world\n", "with newline\n", "... empty message ...\n", "cut\n", "cutafter\n"];
    for line in expected {
        assert_eq!(lines.next().as_deref(), Some(line));
    }
    tail.signal(Signal::SIGTERM);
    assert_eq!(tail.end(), None);
    assert_eq!(log.subscribers().unwrap().len(), 0);
    assert_eq!(log.segments().unwrap().first(), Some(&0));
}

#[test]
fn the_real_jlogtail_prints_the_same() {
    let Some(c_tools) = c_tools() else { return };
    let messages: [&[u8]; 7] =
        [b"hello world", b"with newline\n", b"", b"cut\0off", b"cut\0off\n", b"\xff bytes\n\n", b"end"];
    let shown = |program: &Path| {
        let (place, _) = with_demo();
        let (mut tail, lines) = tail(&place, program);
        let writer = log(&place, "demo").writer().unwrap();
        for message in messages {
            writer.append(message).unwrap();
        }
        end(writer);
        let mut shown = Vec::new();
        while !shown.ends_with(b"end\n") {
            shown.extend(lines.next_bytes().unwrap());
        }
        tail.signal(Signal::SIGTERM);
        tail.end();
        shown
    };
    let place = Place::empty();
    let ours = shown(&linked(&place.path(""), "jlogtail"));
    let theirs = shown(&c_tools.join("jlogtail"));
    assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string());
}

#[test]
fn jlogtail_fails_as_the_c_tool_does() {
    let place = Place::empty();
    let program = linked(&place.path(""), "jlogtail");
    std::fs::create_dir(place.path("plain")).unwrap();
    place.file("file", "text");
    let tail = |arguments: &[&str]| {
        let mut command = bare(&program);
        command.args(arguments).arg0("jlogtail").current_dir(place.path(""));
        let done = run(command, "");
        assert_eq!((done.code, done.stdout.len()), (Some(1), 0));
        done.stderr
    };
    assert_eq!(tail(&[]), "usage: jlogtail /path/to/jlog\n");
    assert_eq!(tail(&["one", "two"]), "usage: jlogtail /path/to/jlog\n");
    assert_eq!(tail(&["nope"]), "jlog_ctx_open_reader failed: 3 JLOG_ERR_OPEN\n");
    assert_eq!(tail(&["file"]), "jlog_ctx_open_reader failed: 4 JLOG_ERR_NOTDIR\n");
    assert_eq!(tail(&["plain"]), "jlog_ctx_open_reader failed: 21 JLOG_ERR_META_OPEN\n");
    assert_eq!(std::fs::read_dir(place.path("plain")).unwrap().count(), 0, "nothing stray is left");
}
