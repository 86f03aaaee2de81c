//! Compares our library with the C library that `JLOG_C_LIB` names: the same random calls, each
//! library in its own process (the C library's locks belong to the process), and both on one jlog
//! at the same time. Without `JLOG_C_LIB`, every test here reports that it is skipped.
//! `JLOG_SCRIPTS` sets the number of scripts of each kind. All differences are written to the
//! directory `JLOG_DIFFERENCES`, if it is set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

/// Both libraries, and a program that runs on either.
struct Both {
    ours: TempDir,
    theirs: TempDir,
    driver: PathBuf,
}

fn both() -> Option<Both> {
    let Some(library) = std::env::var_os("JLOG_C_LIB").filter(|path| !path.is_empty()) else {
        eprintln!("skipped: no C library to compare with (set JLOG_C_LIB to a libjlog.so.2)");
        return None;
    };
    let library = PathBuf::from(library);
    assert!(library.is_file(), "JLOG_C_LIB: no file {}", library.display());
    let cc = support::compiler()?;
    let (ours, theirs) = (support::library_dir(), tempfile::tempdir().unwrap());
    support::link_library(&library, theirs.path());
    let driver = ours.path().join("driver");
    support::compile(&cc, &support::source("driver.c"), &driver, &[&ours.path().join("libjlog.so.2")], &[]);
    Some(Both { ours, theirs, driver })
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a>(&mut self, some: &[&'a str]) -> &'a str {
        some[usize::try_from(self.below(some.len() as u64)).unwrap()]
    }
}

/// The kind of a random script.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Lz4,
    /// With a pre-commit buffer, all in one segment.
    Buffered,
    /// With a pre-commit buffer and small segments, whose ends depend on the library.
    BufferedAndRolled,
}

const NAMES: [&str; 4] = ["a", "b", "c", "~t"];
const CALLS: usize = 40;

/// The largest message that fits into a buffer of 2048 bytes. (The C library loses records next to
/// one that does not fit.)
const LARGEST: u64 = 300;

/// A script. Its calls avoid the known faults of the C library:
/// - reading messages, `advance_id` and looking into segments with a writer's context (it loses its
///   place in the file): the driver lets only readers do that;
/// - reading messages of a segment that is gone (it ends the program): the driver checks first;
/// - checkpoints in segments that do not exist yet (it removes the one being written): the driver
///   keeps checkpoints below;
/// - a reader's mapping that is older than what it reads (it reports `IDX_CORRUPT`): the driver
///   asks for the interval first;
/// - checkpoints past the end of a segment (messages that are written later are skipped): see the
///   driver;
/// - records larger than the pre-commit buffer (it loses the buffer's records).
fn script(seed: u64, kind: Kind) -> String {
    let mut random = Random(seed);
    let mut text = String::new();
    let rolled = !matches!(kind, Kind::Buffered);
    let mut size = if rolled { 100 + random.below(1500) } else { 1 << 20 };
    writeln!(text, "new 0\nsize 0 {size}").unwrap();
    if matches!(kind, Kind::Lz4) || (matches!(kind, Kind::Buffered) && random.one_in(2)) {
        text.push_str("lz4 0\n");
    }
    text.push_str("init 0\nadd 0 a 0\n");
    if matches!(kind, Kind::BufferedAndRolled) {
        // Retains all segments, because which ones are removed depends on where they end.
        text.push_str("add 0 keep 0\n");
    }
    text.push_str("close 0\n");
    let buffered = matches!(kind, Kind::Buffered | Kind::BufferedAndRolled);
    let writers = if buffered { 1 } else { 2 };
    // The contents of a slot: nothing, a writer, or a reader.
    let mut open = [' '; 8];
    for call in 0..CALLS {
        let writer = random.below(writers);
        let reader = 2 + random.below(3);
        let any = if random.one_in(2) { writer } else { reader };
        let name = random.of(&NAMES);
        let number = random.below(5);
        let slot = |number: u64| usize::try_from(number).unwrap();
        match random.below(100) {
            // Open a fresh context, and now and then one that is in use.
            0..8 => {
                if open[slot(writer)] == ' ' || random.one_in(4) {
                    writeln!(text, "new {writer}").unwrap();
                    if buffered {
                        // Without this call, the existing buffer stays in use.
                        writeln!(text, "buffer {writer} 2048").unwrap();
                    }
                    writeln!(text, "writer {writer}").unwrap();
                    open[slot(writer)] = 'w';
                } else {
                    writeln!(text, "close {writer}").unwrap();
                    open[slot(writer)] = ' ';
                }
            }
            8..20 => {
                if open[slot(reader)] == ' ' || random.one_in(6) {
                    let method = random.below(2);
                    writeln!(text, "new {reader}").unwrap();
                    if random.one_in(2) {
                        writeln!(text, "method {reader} {method}").unwrap();
                    }
                    writeln!(text, "reader {reader} {name}").unwrap();
                    open[slot(reader)] = 'r';
                } else {
                    writeln!(text, "close {reader}").unwrap();
                    open[slot(reader)] = ' ';
                }
            }
            20..40 => {
                let count = if random.one_in(3) { 1 + random.below(12) } else { 1 };
                let len = random.below(LARGEST);
                let on = if random.one_in(20) { reader } else { writer };
                writeln!(text, "write {on} {count} {len} {call}").unwrap();
            }
            40..43 => writeln!(text, "flush {any}").unwrap(),
            43..47 => writeln!(text, "interval {any}").unwrap(),
            47..56 => writeln!(text, "readall {reader}").unwrap(),
            56..60 => writeln!(text, "read {reader} {} {}", random.below(9), random.below(9)).unwrap(),
            60..63 => {
                writeln!(text, "bulk {reader} {} {} {number}", random.below(9), random.below(6)).unwrap()
            }
            63..71 => {
                let (which, log, marker) = (random.below(4), random.below(9), random.below(12));
                writeln!(text, "done {} {which} {log} {marker}", if random.one_in(9) { any } else { reader })
                    .unwrap();
            }
            71..74 => writeln!(text, "advance {reader} {}", 1 + random.below(12)).unwrap(),
            74..78 => writeln!(text, "add 9 {name} {}", random.below(2)).unwrap(),
            78..80 => writeln!(text, "remove 9 {name}").unwrap(),
            80..82 => writeln!(text, "copy 9 {name} {}", random.of(&NAMES)).unwrap(),
            82..84 => {
                writeln!(text, "set 9 {name} {} {}", random.below(9), random.below(12)).unwrap();
            }
            84..86 => writeln!(text, "get {} {name}", if random.one_in(2) { 9 } else { any }).unwrap(),
            86..87 => writeln!(text, "list 9").unwrap(),
            87..88 => writeln!(text, "first {any}").unwrap(),
            88..90 => writeln!(text, "last {any}").unwrap(),
            90..91 => writeln!(text, "storage {any}").unwrap(),
            91..92 => writeln!(text, "pending 9 {number}").unwrap(),
            92..93 => writeln!(text, "inspect {reader} {number}").unwrap(),
            93..95 => writeln!(text, "index {reader} {number}").unwrap(),
            95..96 => writeln!(text, "init {any}").unwrap(),
            96..97 => writeln!(text, "safety {any} {}", random.below(3)).unwrap(),
            // The size only shrinks: if it grew, the C library would continue in a segment that was
            // left as full. The next record begins the next segment here; a separate test covers
            // whether closing or flushing begins it.
            97..98 if rolled => {
                size = 90 + (size - 90) * random.below(100) / 100;
                writeln!(text, "size {any} {size}\nwrite {any} 1 20 {call}").unwrap();
            }
            // The C library opens a writer for this call, and with a buffer there may be only one.
            98..99 if open[0] == ' ' && open[1] == ' ' => writeln!(text, "clean 0").unwrap(),
            _ => writeln!(text, "writer {any}").unwrap(),
        }
    }
    // Read everything that is left, with a new subscriber.
    let rest = if matches!(kind, Kind::BufferedAndRolled) { "keep" } else { "fresh" };
    writeln!(text, "close 0\nclose 1\nadd 9 fresh 0\nclose 2\nnew 2\nreader 2 {rest}\ndrain 2").unwrap();
    text
}

impl Both {
    fn start(&self, ours: bool, arguments: &[&str]) -> Child {
        let library = if ours { &self.ours } else { &self.theirs };
        support::run_with(&self.driver, library.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a script with one of the libraries, and returns its answers line by line.
    fn answers(&self, ours: bool, script: &str, report: bool) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut arguments = vec!["script", path.to_str().unwrap()];
        arguments.extend(report.then_some("told"));
        let mut child = self.start(ours, &arguments);
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let whose = if ours { "ours" } else { "the C library" };
        assert!(out.status.success(), "{whose}: {}\n{script}\n{}", out.status, support::both(&out));
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The first difference between two libraries, and the calls up to there.
fn difference(ours: &[String], theirs: &[String]) -> Option<String> {
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
    let at = at.or_else(|| (ours.len() != theirs.len()).then(|| ours.len().min(theirs.len())))?;
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
    Some(format!("{}\n  ours:   {}\n  theirs: {}", ours[..at].join("\n"), line(ours), line(theirs)))
}

/// Runs scripts with both libraries, and compares the answers that `keep` selects.
fn compare(kind: Kind, scripts: u64, keep: impl Fn(&str) -> bool) {
    let Some(both) = both() else { return };
    let scripts = std::env::var("JLOG_SCRIPTS").ok().and_then(|many| many.parse().ok()).unwrap_or(scripts);
    let mut bad = Vec::new();
    for seed in 0..scripts {
        let text = script(seed, kind);
        let kept = |ours| -> Vec<String> {
            both.answers(ours, &text, false).into_iter().filter(|line| keep(line)).collect()
        };
        if let Some(how) = difference(&kept(true), &kept(false)) {
            bad.push(format!("--- seed {seed} of {kind:?}:\n{how}"));
        }
    }
    let shortest = bad.iter().min_by_key(|how| how.lines().count()).cloned().unwrap_or_default();
    if let Some(dir) = std::env::var_os("JLOG_DIFFERENCES") {
        let file = Path::new(&dir).join(format!("{kind:?}"));
        std::fs::write(file, bad.join("\n")).unwrap();
    }
    assert!(bad.is_empty(), "{} of {scripts} scripts differ; the shortest:\n{shortest}", bad.len());
}

#[test]
fn plain_jlogs() {
    compare(Kind::Plain, 100, |_| true);
}

#[test]
fn compressed_jlogs() {
    compare(Kind::Lz4, 60, |_| true);
}

#[test]
fn a_pre_commit_buffer_and_one_segment() {
    compare(Kind::Buffered, 40, |_| true);
}

/// The C library checks whether a segment is full before it flushes its buffer, but not afterwards.
/// Ours also checks afterwards, and begins the next segment earlier. Readers get the same messages
/// in the same order.
#[test]
fn a_pre_commit_buffer_and_many_segments() {
    compare(Kind::BufferedAndRolled, 40, |line| line.starts_with("drain"));
}

/// Cases that random scripts rarely reach, or must avoid.
const DETAILS: &[(&str, &str)] = &[
    (
        "a segment that is full because the limit was lowered ends when the writer is closed",
        "new 0;size 0 1000;init 0;add 0 a 0;close 0;new 0;writer 0;write 0 10 50 0;size 0 300;close 0;\
         new 1;reader 1 a;readall 1;read 1 0 11;storage 1;done 1 0 0 0;interval 1",
    ),
    (
        "and with a flush",
        "new 0;size 0 1000;init 0;add 0 a 0;close 0;new 0;writer 0;write 0 2 50 0;size 0 100;flush 0;\
         new 1;reader 1 a;readall 1;storage 1",
    ),
    (
        "a subscriber that is added with a checkpoint frees the segments before it",
        "new 0;size 0 300;init 0;add 0 c 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;remove 9 c;set 9 b 2 1",
    ),
    (
        "and one that is added where another is",
        "new 0;size 0 300;init 0;add 0 c 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;add 9 a 1;remove 9 c;\
         copy 9 b a",
    ),
    (
        "after looking into a segment, the read method stays until the next interval",
        "new 0;size 0 300;init 0;add 0 a 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;\
         new 1;reader 1 a;inspect 1 0;method 1 1;interval 1;method 1 1;readall 1;method 1 0",
    ),
    (
        "creating what is there already",
        "new 0;init 0;close 0;new 0;init 0;init 0;close 0;new 0;writer 0;init 0;close 0",
    ),
    (
        "a subscriber at the end of nothing, and of a full segment",
        "new 0;size 0 100;init 0;add 0 a 1;close 0;new 0;writer 0;write 0 1 90 0;add 9 b 1;add 0 c 1;list 9;\
         write 0 1 10 1;new 1;reader 1 b;readall 1;new 2;reader 2 a;readall 2;done 2 0 0 0;interval 2",
    ),
    (
        "cleaning, with and without subscribers",
        "new 0;size 0 300;init 0;add 0 a 0;add 0 b 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;set 9 a 2 0;\
         clean 0;remove 9 b;clean 0;clean 0;set 9 a 3 1;add 9 c 0;remove 9 a;remove 9 c",
    ),
    (
        "repairing what is sound",
        "new 0;size 0 300;init 0;add 0 a 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;repair 9;\
         new 1;reader 1 a;readall 1;done 1 0 0 0;repair 9;readall 1",
    ),
];

/// Intended differences: a script, and a text that one line of our answers contains.
const OTHERWISE: &[(&str, &str, &str)] = &[
    (
        "what a move of a checkpoint left behind when it was cut short goes with the next move",
        "new 0;size 0 300;init 0;add 0 a 0;add 0 b 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;\
         new 1;reader 1 a;done 1 3 1 1;remove 9 b;done 1 3 2 1;clean 0",
        ": 00000002=330 00000003=330 cp.61=2:1",
    ),
    (
        "a reader whose subscriber was removed frees nothing: without a subscriber everything is kept",
        "new 0;size 0 300;init 0;add 0 a 0;close 0;new 0;writer 0;write 0 20 50 0;close 0;\
         new 1;reader 1 a;readall 1;remove 9 a;get 1 a;done 1 3 2 1;interval 1;list 9",
        ": 00000000=330 00000001=330 00000002=330 00000003=330",
    ),
];

#[test]
fn what_is_done_otherwise() {
    let Some(both) = both() else { return };
    for (what, script, holds) in OTHERWISE {
        let script = script.split(';').map(|line| format!("{}\n", line.trim())).collect::<String>();
        let (ours, theirs) = (both.answers(true, &script, false), both.answers(false, &script, false));
        assert!(ours.iter().any(|line| line.ends_with(holds)), "{what}: {ours:#?}");
        assert_ne!(ours, theirs, "{what}: it is the same");
    }
}

#[test]
fn details() {
    let Some(both) = both() else { return };
    let mut bad = Vec::new();
    for (what, script) in DETAILS {
        let script = script.split(';').map(|line| format!("{}\n", line.trim())).collect::<String>();
        let (ours, theirs) = (both.answers(true, &script, false), both.answers(false, &script, false));
        if let Some(how) = difference(&ours, &theirs) {
            bad.push(format!("--- {what}:\n{how}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// The error function is called where the C library calls it.
#[test]
fn errors_are_told_where_the_c_library_tells_them() {
    let Some(both) = both() else { return };
    let mut bad = std::collections::BTreeMap::new();
    for seed in 0..40 {
        let text = script(seed, Kind::Plain);
        let (ours, theirs) = (both.answers(true, &text, true), both.answers(false, &text, true));
        for (a, b) in ours.iter().zip(&theirs) {
            let without_report = |line: &str| line.rsplit_once(" reported ").map(|(what, _)| what.to_owned());
            if a != b && without_report(a).is_some() && without_report(a) == without_report(b) {
                // One of each kind is enough.
                let (call, result) = a.split_once(" ->").unwrap_or_default();
                let kind = format!("{} {result}", call.split(' ').next().unwrap_or_default());
                bad.insert(kind, format!("  ours:   {a}\n  theirs: {b}"));
            }
        }
    }
    let lines: Vec<&str> = bad.values().map(String::as_str).collect();
    assert!(bad.is_empty(), "reported otherwise:\n{}", lines.join("\n"));
}

/// Waits for a program, which must succeed.
fn finish(what: &str, child: Child) {
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{what}: {}\n{}", out.status, support::both(&out));
}

/// A new jlog with a subscriber `s`, made by one of the libraries.
fn create(both: &Both, ours: bool, path: &Path, lz4: bool) {
    let mut child = both.start(ours, &["script", path.to_str().unwrap()]);
    let lz4 = if lz4 { "lz4 0\n" } else { "" };
    let text = format!("new 0\nsize 0 20000\n{lz4}init 0\nadd 0 s 0\nadd 0 t 0\nclose 0\n");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    finish("create", child);
}

#[test]
fn one_writes_and_the_other_reads() {
    const COUNT: &str = "6000";
    let Some(both) = both() else { return };
    for ours_writes in [true, false] {
        for lz4 in [false, true] {
            for buffer in ["0", "4096"] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("log");
                let name = path.to_str().unwrap();
                create(&both, ours_writes != lz4, &path, lz4);
                let what = format!("ours writes: {ours_writes}, lz4: {lz4}, buffer: {buffer}");
                let reader = both.start(!ours_writes, &["consume", name, "s", COUNT]);
                let writer = both.start(ours_writes, &["produce", name, "0", COUNT, buffer]);
                finish(&format!("{what}: the writer"), writer);
                finish(&format!("{what}: the reader"), reader);
                // Read it once more with the library that wrote it.
                finish(&what, both.start(ours_writes, &["consume", name, "t", COUNT]));
            }
        }
    }
}

#[test]
fn both_write_and_both_read() {
    let Some(both) = both() else { return };
    for lz4 in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let name = path.to_str().unwrap();
        create(&both, true, &path, lz4);
        let children = [
            ("our reader", both.start(true, &["consume", name, "s", "6000"])),
            ("their reader", both.start(false, &["consume", name, "t", "6000"])),
            ("our writer", both.start(true, &["produce", name, "0", "3000", "0"])),
            ("their writer", both.start(false, &["produce", name, "1000000", "3000", "0"])),
        ];
        for (what, child) in children {
            finish(&format!("lz4 {lz4}: {what}"), child);
        }
    }
}

/// The C library can read a feed that logdag writes: the same messages, with the same times.
#[test]
fn the_c_library_reads_what_logdag_writes() {
    let Some(both) = both() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let text = format!(
        "<app><logs><log name='feed' type='jlog' path='{}(s,t)' format='json'>\
         <config><segment_size>20000</segment_size><precommit>4096</precommit></config></log></logs></app>",
        path.display()
    );
    let graph = logdag::Graph::new();
    logdag::config::Config::from_text("app.xml", &text).unwrap().apply(&graph).unwrap();
    graph.go_async();
    let stream = graph.stream("feed/http").unwrap();
    for n in 0..5000u32 {
        logdag::log!(stream, n = n; "line {n} {}", "x".repeat(n as usize % 100));
    }
    graph.flush().unwrap();
    let drained = |ours: bool, subscriber: &str| {
        let mut child = both.start(ours, &["script", path.to_str().unwrap()]);
        let script = format!("new 0\nreader 0 {subscriber}\ndrain 0\nclose 0\n");
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", support::both(&out));
        let out = String::from_utf8(out.stdout).unwrap();
        out.lines().find(|line| line.starts_with("drain")).unwrap_or_default().to_owned()
    };
    let (ours, theirs) = (drained(true, "s"), drained(false, "t"));
    assert!(theirs.contains(" 5000 "), "{theirs}");
    assert_eq!(ours, theirs);
}
