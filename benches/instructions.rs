//! How many instructions operations take, counted by callgrind, next to those in INSTRUCTIONS.md.
//! Instructions in the kernel are not counted.
//!
//! `cargo bench -p jlog-benches --bench instructions` needs valgrind. It fails if an operation
//! takes over 5 % more than the table says; `-- --bless` writes the table. Counts of different
//! compilers are not compared.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use jlog_benches::{Feed, MESSAGE, feed};
use jlog_core::{Compression, Jlog, JlogOptions, LogId, ReaderOptions, Wait, WriterOptions};
use logdag::{Graph, log};

/// An operation: its name, and what prepares it, does it many times as [measured], and returns how
/// often.
type Operation = (&'static str, fn() -> usize);

const OPERATIONS: [Operation; 11] = [
    ("append", || append(&Jlog::options())),
    ("append, pre-commit buffer of 1 MiB", || append(&Jlog::options().pre_commit(1 << 20))),
    ("append, LZ4", || append(&Jlog::options().compression(Compression::Lz4))),
    ("append in batches of 100", || {
        let feed = feed(&Jlog::options());
        let writer = feed.log.writer().unwrap();
        let batch = vec![[b'm'; MESSAGE]; 100];
        let mut work = || {
            for _ in 0..200 {
                writer.append_batch(black_box(&batch)).unwrap();
            }
        };
        work();
        measured(&mut work);
        20_000
    }),
    ("bulk read, verified", || read(Jlog::options(), true)),
    ("bulk read, not verified", || read(Jlog::options(), false)),
    ("bulk read, LZ4, verified", || read(Jlog::options().compression(Compression::Lz4), true)),
    ("read by id", || {
        let feed = filled(Jlog::options());
        let mut reader = feed.log.reader("bench").unwrap();
        measured(&mut || {
            for marker in 1..=u32::try_from(FILLED).unwrap() {
                black_box(reader.read(LogId::new(0, marker)).unwrap().body());
            }
        });
        FILLED
    }),
    ("checkpoint", || {
        let feed = filled(Jlog::options());
        let mut reader = feed.log.reader("bench").unwrap();
        let count = reader.next_batch(Wait::No).unwrap().unwrap().len();
        measured(&mut || {
            for marker in 1..=u32::try_from(count).unwrap() {
                reader.commit(LogId::new(0, marker)).unwrap();
            }
        });
        count
    }),
    ("log! of a line of 100 bytes to a ring", || log_lines(None)),
    ("log! with a filter that does not pass", || log_lines(Some("status >= 500"))),
];

/// Messages of a jlog to read, in one segment: enough to make the cost of opening it negligible.
const FILLED: usize = 100_000;

/// Does the counted work: callgrind recognises this function by name.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

fn append(options: &JlogOptions) -> usize {
    let feed = feed(options);
    // Keeping the lock depends on the time that passes, which callgrind stretches.
    let writer = feed.log.writer_with(WriterOptions::default().hold_lock(Duration::ZERO)).unwrap();
    let mut work = || {
        for _ in 0..5000 {
            writer.append(black_box([b'm'; MESSAGE])).unwrap();
        }
    };
    work();
    measured(&mut work);
    5000
}

fn filled(options: JlogOptions) -> Feed {
    let feed = feed(&options.segment_size(64 << 20));
    let writer = feed.log.writer().unwrap();
    writer.append_batch(&vec![[b'm'; MESSAGE]; FILLED]).unwrap();
    writer.close().unwrap();
    feed
}

fn read(options: JlogOptions, verify: bool) -> usize {
    let feed = filled(options);
    measured(&mut || {
        let mut reader = feed.log.reader_with("bench", ReaderOptions::default().verify(verify)).unwrap();
        let mut messages = 0;
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            for message in &batch {
                messages += 1;
                black_box(message.body());
            }
        }
        assert_eq!(messages, FILLED);
    });
    FILLED
}

fn log_lines(filter: Option<&str>) -> usize {
    let graph = Graph::new();
    graph.add_memory("ring", 1000, 200_000).unwrap();
    graph.add_outlet("outlet", "ring", filter).unwrap();
    let stream = graph.stream("outlet").unwrap();
    let mut work = || {
        for n in 0..5000 {
            log!(
                stream, status = black_box(200);
                "{:08} 192.0.2.17 GET /archive/{:08x}/index.html 200 compatible; feed reader/1.0 (for everyone)",
                n,
                n
            );
        }
    };
    work();
    measured(&mut work);
    5000
}

/// Instructions of one of these operations.
fn counted(operation: usize) -> u64 {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=instructions::measured*",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--run".to_owned(), operation.to_string()])
        .output()
        .expect("valgrind has to be installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    let count: u64 =
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {said}"));
    let times: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    count / times
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    format!("{}, {}", String::from_utf8_lossy(&output.stdout).trim(), std::env::consts::ARCH)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if let [run, operation] = arguments.as_slice()
        && run == "--run"
    {
        let (_, work) = OPERATIONS[operation.parse::<usize>().unwrap()];
        println!("{}", work());
        return ExitCode::SUCCESS;
    }
    if has("--test") {
        for (name, work) in OPERATIONS {
            work();
            println!("{name}: ok");
        }
        return ExitCode::SUCCESS;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("INSTRUCTIONS.md");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let compiler = compiler();
    let comparable = known.contains(&compiler);
    if !comparable {
        println!("INSTRUCTIONS.md has no counts of {compiler}");
    }
    let mut table = String::new();
    let mut grown = false;
    for (number, (name, _)) in OPERATIONS.iter().enumerate() {
        let count = counted(number);
        let before = known.lines().find_map(|line| {
            let (known, count) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
            if known == *name { count.parse::<u64>().ok() } else { None }
        });
        let too_many = comparable && before.is_some_and(|before| count > before + before / 20);
        grown |= too_many;
        let before = before.map_or_else(|| "-".to_owned(), |before| before.to_string());
        println!("{name}: {count} (was {before}){}", if too_many { ": over 5 % more" } else { "" });
        writeln!(table, "| {name} | {count} |").unwrap();
    }
    if has("--bless") {
        let text = format!(
            "# Instructions\n\n\
             Written by `cargo bench -p jlog-benches --bench instructions -- --bless` with {compiler}.\n\
             CI fails if an operation takes over 5 % more instructions.\n\n\
             Messages have 100 bytes; figures of batches and bulk reads are per message. The kernel's\n\
             instructions are not counted. callgrind's processor has no steady counter and no wide\n\
             multiplications: clocks and checksums take more instructions than on a real one.\n\n\
             | operation | instructions |\n|---|---|\n{table}"
        );
        std::fs::write(&path, text).unwrap();
        return ExitCode::SUCCESS;
    }
    if grown { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
