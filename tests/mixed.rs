//! Processes of both libraries use one feed and are killed at random moments: two writers of the C
//! library, two of ours, `jlog write` again and again, two readers of the C library and two of
//! ours.
//!
//! `JLOG_C_LIB` names the C library's `libjlog.so.2`; without it, the test is skipped with a
//! message. `JLOG_MIXED_SECONDS` sets how long each kind of feed is tested (3 by default),
//! `JLOG_MIXED_SEED` the choices, `JLOG_MIXED_WRITERS` which of the writers 0 to 4 run (`01234`),
//! and `JLOG_MIXED_KEEP` a directory in which feeds with faults are kept. A run ends with its first
//! fault.
//!
//! `JLOG_MIXED_LINES` sets the maximum number of lines for one `jlog write` (20). If a kill cuts
//! short a write of many pages, it leaves a torn record, and the next C writer appends to that: its
//! message is lost, and readers get one that nobody wrote. With 2,000 lines, this happens several
//! times a minute. Then our readers skip damage, and what they skip, or `verify` reports, must not
//! be a message that a writer wrote. A torn message to which a C writer has appended costs one of
//! that writer's messages, and there are no more of them than the C library has lost.
//!
//! Every message that was acknowledged to our writers is delivered to every subscriber, in each
//! writer's order; every subscriber gets the same messages; none is delivered again once a
//! checkpoint past it is stored. Messages of C writers that were killed may be missing, because
//! that library loses some by itself: their number is printed.

// Tests may fail where they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jlog_core::format::RecordFormat;
use jlog_core::{Compression, Finding, Jlog, LogId, OnDamage, ReaderOptions, Start, Wait};
use testkit::messages::{message, parse};

/// Writers 0 and 1 are the C library's, 2 and 3 ours, 4 is `jlog write`.
const WRITERS: usize = 5;
const C_WRITERS: usize = 2;
/// What our readers print for a message that nobody wrote.
const TORN: &str = "torn";
/// A write of at most this many lines fits in a page: a kill leaves all of it, or nothing.
const FEW_LINES: u64 = 20;
/// Subscribers 0 and 1 are read by the C library.
const SUBSCRIBERS: [&str; 4] = ["c0", "c1", "r0", "r1"];
const C_READERS: usize = 2;

/// The task of a child process of this test.
const TASK: &str = "JLOG_MIXED_TASK";

/// Numbers of messages.
#[derive(Clone, Default, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, n: u32) {
        let (word, bit) = (n as usize / 64, n % 64);
        self.0.resize(self.0.len().max(word + 1), 0);
        self.0[word] |= 1 << bit;
    }

    fn has(&self, n: u32) -> bool {
        self.0.get(n as usize / 64).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The members that another set does not have.
    fn missing_in(&self, other: &Self) -> Vec<u32> {
        let all = 0..u32::try_from(self.0.len() * 64).unwrap();
        all.filter(|&n| self.has(n) && !other.has(n)).collect()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// How long a process lives, which is often hardly longer than it takes to start.
    fn life(&mut self) -> Duration {
        let most = [20, 100, 400, 1500][usize::try_from(self.below(4)).unwrap()];
        Duration::from_millis(1 + self.below(most))
    }
}

/// The result of a process.
struct Life {
    /// Whole lines that it has printed.
    lines: Vec<String>,
    /// Its output, if it ended by itself.
    ended: Option<String>,
}

/// Starts a process with this input, and kills it when its time is over, unless it ends earlier.
fn live(mut command: Command, input: Vec<u8>, life: Duration) -> Life {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    thread::scope(|scope| {
        let lines = scope.spawn(move || {
            let (mut out, mut lines, mut line) = (BufReader::new(stdout), Vec::new(), String::new());
            while out.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
                lines.push(line.trim_end().to_owned());
                line.clear();
            }
            lines
        });
        let errors = scope.spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        // A killed process takes no more input.
        scope.spawn(move || _ = stdin.write_all(&input));
        let end = Instant::now() + life;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= end {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        };
        let (lines, errors) = (lines.join().unwrap(), errors.join().unwrap());
        // A process that a signal ended has no code.
        let ended = status.code().map(|code| format!("{code}: {}", errors.trim()));
        Life { lines, ended }
    })
}

/// What is known of a writer.
#[derive(Default)]
struct Written {
    acknowledged: Set,
    next: u32,
    kills: u32,
    ended: Vec<String>,
}

/// The end of a run: after its time, or with the first fault.
struct End {
    time: Instant,
    early: AtomicBool,
}

impl End {
    fn is_over(&self) -> bool {
        self.early.load(Ordering::Relaxed) || Instant::now() >= self.time
    }

    fn fault(&self) {
        self.early.store(true, Ordering::Relaxed);
    }
}

/// Starts and kills a writer again and again until the time is over. `command` makes one that
/// begins with a number.
fn write_until(end: &End, mut random: Random, command: impl Fn(u32) -> Command) -> Written {
    let mut known = Written::default();
    while !end.is_over() {
        let life = live(command(known.next), Vec::new(), random.life());
        for line in life.lines.iter().filter_map(|line| line.parse().ok()) {
            known.acknowledged.insert(line);
            known.next = known.next.max(line + 1);
        }
        // One more message may have been written without being acknowledged.
        known.next += 1;
        match life.ended {
            None => known.kills += 1,
            Some(why) => known.ended.push(why),
        }
    }
    known
}

/// Runs `jlog write` again and again. The messages of a run that ended are acknowledged; of a run
/// that was killed, any number of the first messages may be written.
fn write_lines_until(end: &End, mut random: Random, feed: &Path) -> Written {
    let lines = most_lines();
    let mut known = Written::default();
    while !end.is_over() {
        let numbers = known.next..known.next + 1 + u32::try_from(random.below(lines)).unwrap();
        let mut input = Vec::new();
        for seq in numbers.clone() {
            input.extend(message(4, seq));
            input.push(b'\n');
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_jlog"));
        command.arg("write").arg(feed);
        let life = live(command, input, random.life());
        match life.ended {
            None => known.kills += 1,
            Some(why) if why.starts_with("0: ") => numbers.clone().for_each(|n| known.acknowledged.insert(n)),
            Some(why) => known.ended.push(why),
        }
        known.next = numbers.end;
    }
    known
}

/// What is known of a subscriber.
#[derive(Default)]
struct Delivered {
    of: [Set; WRITERS],
    /// The last message of each writer.
    last: [Option<u32>; WRITERS],
    /// What was delivered since the last checkpoint that is known to be stored.
    open: HashSet<(usize, u32)>,
    again: u64,
    /// Messages that nobody wrote: torn ones to which C writers have appended, some more than once.
    torn: u32,
    kills: u32,
    ended: Vec<String>,
    faults: Vec<String>,
}

impl Delivered {
    /// Takes the output of one reader, which began at its checkpoint.
    fn take(&mut self, who: &str, lines: &[String]) {
        let mut here: [Option<u32>; WRITERS] = [None; WRITERS];
        let before = std::mem::take(&mut self.open);
        let mut fault = |text: String| {
            if self.faults.len() < 20 {
                self.faults.push(format!("{who}: {text}"));
            }
        };
        let mut stored = false;
        for line in lines {
            if line == TORN {
                self.torn += 1;
                continue;
            }
            if line == "." {
                stored = true;
                self.open.clear();
                continue;
            }
            let Some((writer, seq)) = line.split_once(' ') else { continue };
            let (Ok(writer), Ok(seq)) = (writer.parse::<usize>(), seq.parse::<u32>()) else { continue };
            if here[writer].is_some_and(|last| seq <= last) {
                fault(format!("{writer} {seq} after {:?}, by one reader", here[writer]));
            }
            here[writer] = Some(seq);
            if self.last[writer].is_some_and(|last| seq <= last) {
                self.again += 1;
                if !before.contains(&(writer, seq)) {
                    let new = if self.of[writer].has(seq) { "again" } else { "too late" };
                    fault(format!("{writer} {seq} {new}, after {:?}", self.last[writer]));
                }
            } else {
                self.last[writer] = Some(seq);
            }
            self.of[writer].insert(seq);
            self.open.insert((writer, seq));
        }
        if !stored {
            // The checkpoint may still be where it was.
            self.open.extend(before);
        }
    }
}

fn read_until(
    end: &End,
    mut random: Random,
    who: &str,
    ours: bool,
    command: impl Fn() -> Command,
) -> Delivered {
    let mut known = Delivered::default();
    while !end.is_over() {
        let life = live(command(), Vec::new(), random.life());
        known.take(who, &life.lines);
        match life.ended {
            None => known.kills += 1,
            Some(why) => known.ended.push(why),
        }
        // Readers of the C library end by themselves at what they take for damage, so only ours
        // reveal faults.
        if !known.faults.is_empty() || ours && !known.ended.is_empty() {
            end.fault();
        }
    }
    known
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Builds the C program against the C library; `None` without the library or a compiler.
fn c_program(dir: &Path) -> Option<PathBuf> {
    let Some(library) = std::env::var_os("JLOG_C_LIB").filter(|path| !path.is_empty()) else {
        eprintln!("skipped: no C library to work beside (set JLOG_C_LIB to a libjlog.so.2)");
        return None;
    };
    let library = PathBuf::from(library).canonicalize().expect("JLOG_C_LIB is a file");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = dir.join("mixed");
    let out = match Command::new(cc)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-I"])
        .arg(here.join("../jlog-capi/include"))
        .arg(here.join("../tests/mixed.c"))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", dir.display()))
        .arg("-o")
        .arg(&program)
        .output()
    {
        Ok(out) => out,
        Err(e) => {
            eprintln!("skipped: no C compiler ({e})");
            return None;
        }
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Use the name by which the loader looks for it.
    std::os::unix::fs::symlink(&library, dir.join("libjlog.so.2")).unwrap();
    Some(program)
}

/// A process of this test, whose environment names its task.
fn ours(task: &str, feed: &Path, args: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_process_of_ours", "--exact", "--nocapture"]);
    command.env(TASK, format!("{task}\n{}\n{args}", feed.display()));
    command
}

/// Not a test: the code of our child processes.
#[test]
fn a_process_of_ours() {
    let Ok(task) = std::env::var(TASK) else { return };
    let task: Vec<&str> = task.lines().collect();
    let [what, feed, args] = task[..] else { panic!("{task:?}") };
    let mut out = std::io::stdout();
    // The test harness has begun a line.
    writeln!(out).unwrap();
    let log = Jlog::open(feed).unwrap();
    if what == "write" {
        let (id, from) = args.split_once(' ').unwrap();
        let (id, from): (u32, u32) = (id.parse().unwrap(), from.parse().unwrap());
        let writer = log.writer().unwrap();
        for seq in from.. {
            writer.append(message(id, seq)).unwrap();
            writeln!(out, "{seq}").unwrap();
            out.flush().unwrap();
            thread::sleep(Duration::from_micros(100));
        }
    }
    let mut reader = log.reader_with(args, reader_options()).unwrap();
    loop {
        let batch = reader.next_batch(Wait::Forever).unwrap().unwrap();
        let mut lines = String::new();
        for message in &batch {
            match parse(message.body()) {
                Some((writer, seq)) => writeln!(lines, "{writer} {seq}").unwrap(),
                None if most_lines() > FEW_LINES => writeln!(lines, "{TORN}").unwrap(),
                None => panic!("{}: {message:?}", message.id()),
            }
        }
        out.write_all(lines.as_bytes()).unwrap();
        let last: LogId = batch.last_id();
        reader.commit(last).unwrap();
        out.write_all(b".\n").unwrap();
    }
}

/// The maximum number of lines for one `jlog write`.
fn most_lines() -> u64 {
    number("JLOG_MIXED_LINES").unwrap_or(FEW_LINES)
}

/// Our readers stop at damage, unless damage is expected.
fn reader_options() -> ReaderOptions {
    let on_damage = if most_lines() > FEW_LINES { OnDamage::Skip } else { OnDamage::Fail };
    ReaderOptions::default().on_damage(on_damage)
}

/// The message of the record that these bytes begin with, if that is as its writer wrote it.
fn intact(format: RecordFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    let header = format.decode(bytes)?;
    let stored = bytes.get(format.header_len()..)?.get(..header.stored as usize)?;
    if !format.is_lz4() {
        return parse(stored);
    }
    parse(&lz4_flex::block::decompress(stored, header.len.min(1000) as usize).ok()?)
}

/// Intact messages that our readers have skipped, or that `verify` reports as damaged.
fn accused(feed: &Path, format: RecordFormat, findings: &[Finding]) -> Vec<String> {
    let mut accused = Vec::new();
    for entry in std::fs::read_dir(feed).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".broken-")
            && let Some((writer, seq)) = intact(format, &std::fs::read(&path).unwrap())
        {
            accused.push(format!("{}: message {seq} of writer {writer} was skipped", path.display()));
        }
    }
    for finding in findings.iter().filter(|finding| finding.damage) {
        let at = finding.offset.and_then(|offset| usize::try_from(offset).ok());
        let bytes = std::fs::read(&finding.path).unwrap_or_default();
        if let Some(bytes) = at.and_then(|at| bytes.get(at..))
            && let Some((writer, seq)) = intact(format, bytes)
        {
            accused.push(format!("{finding}: it is message {seq} of writer {writer}"));
        }
    }
    accused
}

/// Reads the rest for a subscriber when all processes have ended.
fn drain(log: &Jlog, name: &str, known: &mut Delivered) {
    let mut reader = log.reader_with(name, reader_options()).unwrap();
    let mut lines = Vec::new();
    loop {
        match reader.next_batch(Wait::No) {
            Ok(Some(batch)) => {
                for message in &batch {
                    match parse(message.body()) {
                        Some((writer, seq)) => lines.push(format!("{writer} {seq}")),
                        None if most_lines() > FEW_LINES => lines.push(TORN.to_owned()),
                        None => known.faults.push(format!("{}: {message:?}", message.id())),
                    }
                }
            }
            Ok(None) => break,
            Err(e) => {
                known.faults.push(format!("{name}, at the end: {e}"));
                break;
            }
        }
    }
    known.take(&format!("{name}, at the end"), &lines);
}

fn mixed(kind: &str, compression: Compression) {
    let (dir, programs) = (tempfile::tempdir_in(home()).unwrap(), tempfile::tempdir().unwrap());
    let Some(program) = c_program(programs.path()) else { return };
    let seconds = number("JLOG_MIXED_SECONDS").unwrap_or(3);
    let seed = number("JLOG_MIXED_SEED").unwrap_or(1);
    let feed = dir.path().join("feed");
    let log = Jlog::options().segment_size(30_000).compression(compression).create(&feed).unwrap();
    log.subscribe_all(&SUBSCRIBERS, Start::Beginning).unwrap();
    let end = End { time: Instant::now() + Duration::from_secs(seconds), early: AtomicBool::new(false) };
    let end = &end;
    let chosen = std::env::var("JLOG_MIXED_WRITERS").unwrap_or_else(|_| "01234".to_owned());
    let began = Instant::now();
    let feed = &feed;
    let c = |task: &str, args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg(task).arg(feed).args(args);
        command
    };
    let (c, chosen) = (&c, &chosen);
    let random = |n: u64| Random(seed * 1000 + n);
    let (writers, mut readers): (Vec<Written>, Vec<Delivered>) = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                scope.spawn(move || {
                    let random = random(n as u64);
                    match n {
                        n if !chosen.contains(&n.to_string()) => Written::default(),
                        4 => write_lines_until(end, random, feed),
                        n if n < C_WRITERS => {
                            write_until(end, random, |from| c("write", &[&n.to_string(), &from.to_string()]))
                        }
                        n => write_until(end, random, |from| ours("write", feed, &format!("{n} {from}"))),
                    }
                })
            })
            .collect();
        let readers: Vec<_> = SUBSCRIBERS
            .iter()
            .enumerate()
            .map(|(n, &name)| {
                scope.spawn(move || {
                    let random = random(100 + n as u64);
                    if n < C_READERS {
                        read_until(end, random, name, false, || c("read", &[name]))
                    } else {
                        read_until(end, random, name, true, || ours("read", feed, name))
                    }
                })
            })
            .collect();
        let writers = writers.into_iter().map(|thread| thread.join().unwrap()).collect();
        (writers, readers.into_iter().map(|thread| thread.join().unwrap()).collect())
    });
    // The next writer finishes what a killed one has left.
    log.writer().unwrap().close().unwrap();
    for (name, known) in SUBSCRIBERS.iter().zip(&mut readers) {
        drain(&log, name, known);
    }
    let verification = log.verify().unwrap();
    let mut faults: Vec<String> = readers.iter().flat_map(|known| known.faults.clone()).collect();
    // A C writer that was killed may have written one message more than it reported.
    let c_losses: u32 = (0..C_WRITERS)
        .map(|n| {
            let lost = writers[n].acknowledged.missing_in(&readers[2].of[n]).len();
            u32::try_from(lost).unwrap_or(u32::MAX).saturating_add(writers[n].kills)
        })
        .sum();
    let mut report = format!("{kind}, {:.0} s, seed {seed}:", began.elapsed().as_secs_f32());
    for (n, written) in writers.iter().enumerate() {
        let lost = written.acknowledged.missing_in(&readers[2].of[n]);
        let (accepted, kills, ended) = (written.acknowledged.len(), written.kills, written.ended.len());
        write!(report, "\n  writer {n}: {accepted} accepted, {kills} kills, {ended} ended by themselves")
            .unwrap();
        write!(report, ", {} lost", lost.len()).unwrap();
        if n >= C_WRITERS && !lost.is_empty() {
            faults.push(format!("writer {n} was told that {lost:?} are written, and they are lost"));
        }
        if n >= C_WRITERS && ended > 0 {
            faults.push(format!("writer {n} ended: {:?}", written.ended));
        } else if ended > 0 {
            write!(report, "; the first said {:?}", written.ended[0]).unwrap();
        }
    }
    for (n, (name, known)) in SUBSCRIBERS.iter().zip(&readers).enumerate() {
        let all: u32 = known.of.iter().map(Set::len).sum();
        let (again, kills, ended) = (known.again, known.kills, known.ended.len());
        write!(report, "\n  reader {name}: {all} delivered, {again} of them again, {kills} kills").unwrap();
        write!(report, ", {ended} ended by themselves").unwrap();
        if n >= C_READERS && known.torn > 0 {
            write!(report, ", {} that nobody wrote", known.torn).unwrap();
            let again = u32::try_from(known.again).unwrap_or(u32::MAX);
            if known.torn > c_losses.saturating_add(again) {
                faults.push(format!(
                    "{name} was given {} messages that nobody wrote, and C writers have lost {c_losses}",
                    known.torn
                ));
            }
        }
        if n >= C_READERS && ended > 0 {
            faults.push(format!("reader {name} ended: {:?}", known.ended));
        } else if ended > 0 {
            write!(report, "; the first said {:?}", known.ended[0]).unwrap();
        }
        for writer in 0..WRITERS {
            for (one, other, which) in [
                (&readers[2].of[writer], &known.of[writer], "not"),
                (&known.of[writer], &readers[2].of[writer], "only"),
            ] {
                let differ = one.missing_in(other);
                if !differ.is_empty() {
                    faults.push(format!("of writer {writer}, {name} {which} was given {differ:?}"));
                }
            }
        }
    }
    let findings: Vec<String> = verification.findings.iter().map(ToString::to_string).collect();
    println!("{report}\n  segments up to {}, findings {findings:?}", log.meta().unwrap().storage_log);
    if verification.is_damaged() && most_lines() <= FEW_LINES {
        faults.push("verify found damage".to_owned());
    }
    faults.extend(accused(feed, RecordFormat::new(compression), &verification.findings));
    if !faults.is_empty()
        && let Some(keep) = std::env::var_os("JLOG_MIXED_KEEP")
    {
        let keep = Path::new(&keep).join(kind);
        // The directory may be on another file system.
        assert!(Command::new("mv").args([feed, &keep]).status().unwrap().success());
        println!("kept in {}", keep.display());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A file system in memory, if there is one: more happens in the same time.
fn home() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

#[test]
fn plain() {
    mixed("plain", Compression::None);
}

#[test]
fn lz4() {
    mixed("lz4", Compression::Lz4);
}
