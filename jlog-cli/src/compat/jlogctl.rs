//! `jlogctl`, new style (subcommands) and old style (options and paths).
//!
//! It differs where the C tool does harm: `clean` never removes the segment being written, reading
//! changes nothing, and `repair` keeps every intact record.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jlog_core::compat::JlogCompat;
use jlog_core::compat::ReaderCompat;
use jlog_core::format::RecordFormat;
use jlog_core::{
    AlterOptions, Claim, CleanOptions, Error, Inspection, Jlog, JlogOptions, LogId, ReaderOptions, Start,
    SubscriberName,
};

use crate::error::{Failure, Outcome};

const USAGE: &str = include_str!("usage.txt");
const OLD_USAGE: &str = include_str!("usage_old.txt");

/// The exit code for a wrong command line.
const WRONG: u8 = 255;

/// The number and name that the C library has for an error.
pub fn error_name(error: &Error, path: &Path) -> (u32, &'static str) {
    match error {
        Error::NotAJlog { .. } | Error::MetastoreMissing { .. } => match std::fs::metadata(path) {
            Err(_) => (3, "JLOG_ERR_OPEN"),
            Ok(meta) if !meta.is_dir() => (4, "JLOG_ERR_NOTDIR"),
            Ok(_) => (21, "JLOG_ERR_META_OPEN"),
        },
        Error::AlreadyExists { .. } => (6, "JLOG_ERR_CREATE_EXISTS"),
        Error::Io { action: "create", .. } => (7, "JLOG_ERR_CREATE_MKDIR"),
        Error::Damaged { .. } | Error::ChecksumMismatch { .. } | Error::Compressed { .. } => {
            (18, "JLOG_ERR_FILE_CORRUPT")
        }
        Error::UnknownSubscriber { .. } | Error::SubscriberName { .. } => (25, "JLOG_ERR_INVALID_SUBSCRIBER"),
        Error::NoSuchRecord { .. } => (26, "JLOG_ERR_ILLEGAL_LOGID"),
        Error::SubscriberExists { .. } => (27, "JLOG_ERR_SUBSCRIBER_EXISTS"),
        Error::Checkpoint { .. } => (28, "JLOG_ERR_CHECKPOINT"),
        Error::PreCommitBusy { .. } => (22, "Unknown"),
        _ => (21, "JLOG_ERR_META_OPEN"),
    }
}

fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| Failure::stdout(&e))
}

fn err(text: &str) {
    // If stderr fails, there is nowhere to report it.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn err_bytes(parts: &[&[u8]]) {
    let mut line = parts.concat();
    line.push(b'\n');
    let _ = std::io::stderr().lock().write_all(&line);
}

/// An option: its letter and its value.
type Opt = (char, Option<OsString>);

enum Parsed {
    Options(Vec<Opt>, Vec<OsString>),
    Wrong,
}

/// Parses options as the C tools do: letters one by one, values attached or next, up to the first
/// operand.
fn parse(arguments: &[OsString], letters: &str) -> Parsed {
    let mut options = Vec::new();
    let mut rest = arguments.iter();
    let mut operands = Vec::new();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" || !bytes.starts_with(b"-") {
            operands.push(argument.clone());
            operands.extend(rest.cloned());
            break;
        }
        if bytes == b"-" {
            return Parsed::Wrong;
        }
        if bytes.starts_with(b"--") {
            err_bytes(&[b"unknown long option ", bytes]);
            return Parsed::Wrong;
        }
        let letter = char::from(bytes[1]);
        let Some(at) = letters.find(letter).filter(|_| letter != ':') else {
            err(&format!("unknown option: {letter}"));
            return Parsed::Wrong;
        };
        let takes_value = letters[at + 1..].starts_with(':');
        let attached = (bytes.len() > 2).then(|| OsStr::from_bytes(&bytes[2..]).to_owned());
        let value = match (takes_value, attached) {
            (false, Some(_)) => {
                err(&format!("option {letter} does not take an argument"));
                return Parsed::Wrong;
            }
            (false, None) => None,
            (true, Some(value)) => Some(value),
            (true, None) => match rest.next() {
                Some(value) => Some(value.clone()),
                None => {
                    err(&format!("option {letter} requires an argument"));
                    return Parsed::Wrong;
                }
            },
        };
        options.push((letter, value));
    }
    Parsed::Options(options, operands)
}

struct Tool {
    /// The program's name, as shown in the usage.
    name: String,
    /// `argv[0]`.
    called: String,
}

impl Tool {
    fn usage(&self, code: u8) -> Outcome {
        out(&USAGE.replace("@NAME@", &self.name))?;
        Ok(ExitCode::from(code))
    }

    fn old_usage(&self) -> Outcome {
        let text = format!("{USAGE}{OLD_USAGE}");
        out(&text.replace("@NAME@", &self.name).replace("@CALLED@", &self.called))?;
        Ok(ExitCode::from(WRONG))
    }
}

/// Runs it.
pub fn run(arguments: &[OsString]) -> Outcome {
    let called = arguments.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
    let name = called.rsplit('/').next().unwrap_or_default().to_owned();
    let tool = Tool { name, called };
    let rest = arguments.get(2..).unwrap_or_default();
    let Some(first) = arguments.get(1) else { return tool.usage(WRONG) };
    match first.to_str().unwrap_or_default() {
        "-h" | "help" => tool.usage(0),
        "subscriber" => subscriber(&tool, rest),
        "data" => data(&tool, rest),
        "clean" => clean(&tool, rest),
        "repair" => repair(&tool, rest),
        "meta" => meta(&tool, rest),
        "create" => create(&tool, rest, true),
        "alter" => create(&tool, rest, false),
        text if text.starts_with('-') => old_style(&tool, &arguments[1..]),
        _ => tool.usage(WRONG),
    }
}

/// The actions for one jlog.
#[derive(Default)]
struct Work {
    add: Option<OsString>,
    update: Option<OsString>,
    erase: Option<OsString>,
    perspective: Option<OsString>,
    checkpoint: Option<LogId>,
    list_subscribers: bool,
    list_files: bool,
    list_index: bool,
    analyse: bool,
    repair_data: bool,
    repair: bool,
    clean: bool,
    verbose: bool,
    /// Nothing goes to stdout.
    quiet: bool,
}

/// The value of `-C`: 17 characters, two hex numbers.
fn checkpoint_value(value: Option<OsString>) -> Result<LogId, Outcome> {
    value
        .as_deref()
        .and_then(OsStr::to_str)
        .filter(|text| text.len() == 17 && text.as_bytes()[8] == b':')
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            err("Invalid argument to -C");
            Ok(ExitCode::from(WRONG))
        })
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn subscriber(tool: &Tool, arguments: &[OsString]) -> Outcome {
    let Parsed::Options(options, operands) = parse(arguments, "j:a:e:u:C:p:lv") else {
        return tool.usage(WRONG);
    };
    let mut work = Work::default();
    let mut path = PathBuf::from(".");
    let mut actions = 0;
    for (letter, value) in options {
        match letter {
            'j' => path = value.unwrap_or_default().into(),
            'a' => work.add = value,
            'u' => work.update = value,
            'e' => work.erase = value,
            'p' => work.perspective = value,
            'C' => match checkpoint_value(value) {
                Ok(id) => work.checkpoint = Some(id),
                Err(outcome) => return outcome,
            },
            'v' => work.verbose = true,
            _ => work.list_subscribers = true,
        }
        actions += u32::from(matches!(letter, 'a' | 'u' | 'e' | 'p' | 'l'));
    }
    if let Some(outcome) = extraneous(tool, &operands) {
        return outcome;
    }
    let lonely = work.checkpoint.is_some() && work.add.is_none() && work.update.is_none();
    if actions > 1 || lonely {
        err("invalid option combination");
        return tool.usage(WRONG);
    }
    work.list_subscribers |= actions == 0;
    process(&path, &work)?;
    Ok(ExitCode::SUCCESS)
}

fn extraneous(tool: &Tool, operands: &[OsString]) -> Option<Outcome> {
    operands.first().map(|operand| {
        err(&format!("extraneous arguments: {}", text(operand)));
        tool.usage(WRONG)
    })
}

/// `data`, `clean` and `repair`: a path and flags.
fn flags(tool: &Tool, arguments: &[OsString], letters: &str) -> Result<(PathBuf, Vec<char>), Outcome> {
    let Parsed::Options(options, operands) = parse(arguments, letters) else {
        return Err(tool.usage(WRONG));
    };
    if let Some(outcome) = extraneous(tool, &operands) {
        return Err(outcome);
    }
    let mut path = PathBuf::from(".");
    let mut flags = Vec::new();
    for (letter, value) in options {
        match value {
            Some(value) => path = value.into(),
            None => flags.push(letter),
        }
    }
    Ok((path, flags))
}

fn data(tool: &Tool, arguments: &[OsString]) -> Outcome {
    let (path, flags) = match flags(tool, arguments, "j:irdv") {
        Ok(parsed) => parsed,
        Err(outcome) => return outcome,
    };
    let has = |letter| flags.contains(&letter);
    let work = Work {
        list_files: true,
        list_index: has('i'),
        analyse: has('d') || has('r'),
        repair_data: has('r'),
        verbose: has('v'),
        ..Work::default()
    };
    process(&path, &work)?;
    Ok(ExitCode::SUCCESS)
}

fn clean(tool: &Tool, arguments: &[OsString]) -> Outcome {
    let (path, _) = match flags(tool, arguments, "j:v") {
        Ok(parsed) => parsed,
        Err(outcome) => return outcome,
    };
    process(&path, &Work { clean: true, quiet: true, ..Work::default() })?;
    Ok(ExitCode::SUCCESS)
}

fn repair(tool: &Tool, arguments: &[OsString]) -> Outcome {
    let (path, flags) = match flags(tool, arguments, "j:vf") {
        Ok(parsed) => parsed,
        Err(outcome) => return outcome,
    };
    let full = flags.contains(&'f');
    let work = Work {
        repair: true,
        list_files: full,
        analyse: full,
        repair_data: full,
        verbose: flags.contains(&'v'),
        ..Work::default()
    };
    process(&path, &work)?;
    Ok(ExitCode::SUCCESS)
}

fn old_style(tool: &Tool, arguments: &[OsString]) -> Outcome {
    let Parsed::Options(options, paths) = parse(arguments, "a:e:u:C:p:dsilrcvR") else {
        return tool.old_usage();
    };
    let mut work = Work::default();
    for (letter, value) in options {
        match letter {
            'a' => work.add = value,
            'e' => work.erase = value,
            'u' => work.update = value,
            'p' => work.perspective = value,
            'C' => match checkpoint_value(value) {
                Ok(id) => work.checkpoint = Some(id),
                Err(outcome) => return outcome,
            },
            's' => work.list_subscribers = true,
            'l' => work.list_files = true,
            'i' => (work.list_files, work.list_index) = (true, true),
            'd' => (work.list_files, work.analyse) = (true, true),
            'r' => (work.list_files, work.analyse, work.repair_data) = (true, true, true),
            'c' => (work.clean, work.quiet) = (true, true),
            'R' => work.repair = true,
            _ => work.verbose = true,
        }
    }
    if paths.is_empty() {
        return tool.old_usage();
    }
    for path in paths {
        let path = PathBuf::from(path);
        if !work.quiet {
            out(&format!("{}\n", path.display()))?;
        }
        if !process(&path, &work)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Performs the actions for one jlog. `false` if it cannot be opened.
fn process(path: &Path, work: &Work) -> Result<bool, Failure> {
    if work.repair
        && let Err(e) = JlogOptions::default().repair(path)
        && work.verbose
    {
        err(&e.to_string());
    }
    let log = match JlogOptions::default().open(path) {
        Ok(log) => log,
        Err(e) => {
            if work.verbose {
                err(&e.to_string());
            }
            err(&format!("Failed to open jlog at '{}'", path.display()));
            if error_name(&e, path).0 == 21 {
                err("perhaps the metastore is damaged or this directory isn't a jlog?");
            }
            return Ok(false);
        }
    };
    let done = subscriber_work(&log, path, work)?;
    if !done {
        if work.list_subscribers {
            list_subscribers(&log, work)?;
        }
        if work.list_files || work.clean {
            list_files(&log, path, work)?;
        }
        if work.clean
            && let Err(e) = log.clean(CleanOptions::default())
        {
            err(&e.to_string());
        }
    }
    check_ownership(path);
    Ok(true)
}

fn name_of(error: &Error, path: &Path) -> &'static str {
    error_name(error, path).1
}

/// Adds, updates, erases, shows. `true` if nothing else is left to do.
fn subscriber_work(log: &Jlog, path: &Path, work: &Work) -> Result<bool, Failure> {
    let say = |line: String| if work.quiet { Ok(()) } else { out(&line) };
    if let Some(name) = &work.add {
        match log.subscribe(name.as_bytes(), Start::Beginning) {
            Err(e) => err(&format!("Could not add subscriber '{}': {}", text(name), name_of(&e, path))),
            Ok(mut id) => {
                if let Some(to) = work.checkpoint {
                    match log.store_checkpoint(name.as_bytes(), to) {
                        Ok(()) => id = to,
                        Err(_) => err(&format!("error setting checkpoint {} to {to}", text(name))),
                    }
                }
                say(format!("Added subscriber '{}' -> {id}\n", text(name)))?;
                return Ok(true);
            }
        }
    }
    if let Some(name) = &work.update {
        let old = match log.checkpoint(name.as_bytes()) {
            Ok(old) => old,
            Err(e) => {
                err(&format!("error opening '{}': {}", path.display(), name_of(&e, path)));
                return Ok(true);
            }
        };
        if let Some(to) = work.checkpoint
            && log.store_checkpoint(name.as_bytes(), to).is_err()
        {
            err(&format!("error setting checkpoint {} to {to}", text(name)));
            return Ok(true);
        }
        let new = log.checkpoint(name.as_bytes())?;
        say(format!("Updated subscriber '{}' {old} -> {new}\n", text(name)))?;
        return Ok(true);
    }
    if let Some(name) = &work.erase {
        match log.unsubscribe(name.as_bytes()) {
            Ok(true) => say(format!("Erased subscriber '{}'\n", text(name)))?,
            Ok(false) => {
                err(&format!("Could not erase subscriber '{}': JLOG_ERR_INVALID_SUBSCRIBER", text(name)))
            }
            Err(e) => err(&format!("Could not erase subscriber '{}': {}", text(name), name_of(&e, path))),
        }
    }
    if let Some(name) = &work.perspective {
        // The C tool ignores other readers.
        let options = ReaderOptions::default().claim(Claim::None);
        let mut reader = match log.reader_with(name.as_bytes(), options) {
            Ok(reader) => reader,
            Err(e) => {
                err(&format!("error opening '{}': {}", path.display(), name_of(&e, path)));
                return Ok(true);
            }
        };
        let current = reader.stored_checkpoint()?;
        let last = log.end()?;
        let (first, end) = match reader.interval() {
            Ok(interval) => (interval.first, interval.last),
            Err(e) => {
                err(&format!("jlog_error: {}", name_of(&e, path)));
                (current, current)
            }
        };
        let dashes = "-".repeat(20);
        say(format!(
            "{dashes}\n  Perspective of the '{}' subscriber\n    current checkpoint: {current}\n\
             Last write: {last}\n\t     next interval: [{first}, {end}]\n{dashes}\n\n",
            text(name)
        ))?;
    }
    Ok(false)
}

fn list_subscribers(log: &Jlog, work: &Work) -> Result<(), Failure> {
    for name in log.subscribers()? {
        let Ok(id) = log.checkpoint(&name) else { continue };
        if !work.quiet {
            let padding = 32usize.saturating_sub(name.as_bytes().len());
            let mut line = vec![b'\t'];
            line.extend(std::iter::repeat_n(b' ', padding));
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(format!(" @ {id}\n").as_bytes());
            std::io::stdout().lock().write_all(&line).map_err(|e| Failure::stdout(&e))?;
        }
    }
    Ok(())
}

fn list_files(log: &Jlog, path: &Path, work: &Work) -> Result<(), Failure> {
    let checkpoints: Vec<LogId> =
        log.subscribers()?.iter().filter_map(|name: &SubscriberName| log.checkpoint(name).ok()).collect();
    let mut damaged = false;
    let format = log.meta()?.format;
    let header = format.header_len();
    for segment in log.segments()? {
        let file = format!("{segment:08x}");
        let pending = checkpoints.iter().filter(|id| id.segment <= segment).count();
        let found = log.inspect(segment, |record| {
            if work.analyse && work.verbose {
                let at = jiff::Timestamp::from_second(record.time.seconds.into()).unwrap_or_default();
                let local = at.to_zoned(jiff::tz::TimeZone::system());
                err(&format!(
                    "Message {} at [{}] of ({header}+{})\n\ttime: {}\n\tmlen: {}",
                    record.id.marker,
                    record.offset,
                    record.stored,
                    local.strftime("%a %b %e %H:%M:%S %Y"),
                    record.len
                ));
            }
        });
        // A segment that cannot be read is listed nevertheless, with its index.
        let bytes = match &found {
            Ok(found) => found.bytes,
            Err(e) => {
                err(&e.to_string());
                let Ok(facts) = std::fs::symlink_metadata(path.join(&file)) else { continue };
                facts.len()
            }
        };
        if !work.quiet {
            out(&format!("\t{file:>8} [{bytes:9} bytes] {pending} pending readers\n"))?;
        }
        if work.list_index && !work.quiet {
            let has_index = path.join(format!("{file}.idx")).exists();
            let line = match log.index_state(segment) {
                Ok(Some(index)) => format!(
                    "{} messages ({:08x}), {}",
                    index.last,
                    index.last,
                    if index.closed { "closed" } else { "open" }
                ),
                Ok(None) if !has_index => "none".to_owned(),
                Ok(None) | Err(_) => "error".to_owned(),
            };
            out(&format!("\t\t idx: {line}\n"))?;
        }
        let Ok(found) = found else { continue };
        if work.analyse && found.whole_until < found.bytes {
            damaged = true;
            err(&fault(&path.join(&file), format, &found));
            err("One or more errors were found.");
        }
    }
    if damaged && work.repair_data {
        match JlogOptions::default().repair(path) {
            Ok(_) => err("Log file reconstructed, deleting the corresponding idx file."),
            Err(e) => err(&e.to_string()),
        }
    }
    Ok(())
}

/// Describes the bytes after a segment's last whole record, as the C library does.
fn fault(path: &Path, format: RecordFormat, found: &Inspection) -> String {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 20];
    let head = &mut head[..format.header_len()];
    let whole =
        std::fs::File::open(path).and_then(|file| file.read_exact_at(head, found.whole_until)).is_ok();
    let (n, at) = (found.records + 1, found.whole_until);
    match format.decode(head) {
        _ if !whole => format!("{} bytes of junk at the end", found.bytes - at),
        None => {
            let magic = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            format!("Message {n} at [{at}] has invalid reserved value {magic}")
        }
        Some(header) => {
            format!("Message {n} at [{at}] of ({}+{}) OFF THE END!", format.header_len(), header.stored)
        }
    }
}

/// Reports files whose owner differs from the directory's, because they make writers fail later.
fn check_ownership(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(dir) = std::fs::metadata(path) else { return };
    let Ok(entries) = std::fs::read_dir(path) else { return };
    let mut mismatch = false;
    for entry in entries.flatten() {
        let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
        if (meta.uid(), meta.gid()) != (dir.uid(), dir.gid()) {
            mismatch = true;
            err(&format!(
                "{} owner/group [{}/{}] doesn't match jlog [{}/{}]",
                text(&entry.file_name()),
                meta.uid(),
                meta.gid(),
                dir.uid(),
                dir.gid()
            ));
        }
    }
    if mismatch {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        err(&format!(
            "\nA permissions mismatch can cause these to fail later\n\
             *IF* the jlog ownership is correct you can run (as root):\n\n  chown -R {}:{} {}",
            dir.uid(),
            dir.gid(),
            real.display()
        ));
    }
}

fn meta(tool: &Tool, arguments: &[OsString]) -> Outcome {
    let Parsed::Options(options, operands) = parse(arguments, "j:vcflmps") else {
        return tool.usage(WRONG);
    };
    let mut path = PathBuf::from(".");
    let mut selected = Vec::new();
    for (letter, value) in options {
        match letter {
            'j' => path = value.unwrap_or_default().into(),
            'v' => {}
            other => selected.push(other),
        }
    }
    if selected.len() > 1 {
        return tool.usage(WRONG);
    }
    let log = match JlogOptions::default().open(&path) {
        Ok(log) => log,
        Err(e) => {
            err(&format!("Failed to alter jlog '{}': {}", path.display(), name_of(&e, &path)));
            return Ok(ExitCode::from(WRONG));
        }
    };
    if let Some(outcome) = extraneous(tool, &operands) {
        return outcome;
    }
    let meta = log.meta()?;
    let compression = match meta.format.magic() {
        0x1510_6A00 => "on",
        0x663A_7318 => "off",
        _ => "unknown",
    };
    let safety = ["unsafe", "metasafe", "safe"][meta.safety.to_u32() as usize];
    let rows = [
        ('m', "magic", format!("{:08x}", meta.format.magic())),
        ('l', "storagelog", format!("{:08x}", meta.storage_log)),
        ('c', "compression", compression.to_owned()),
        ('f', "safety", safety.to_owned()),
        ('p', "precommit", log.pre_commit()?.map_or(0, |(_, size)| size).to_string()),
        ('s', "segmentsize", meta.segment_size.to_string()),
    ];
    let mut lines = String::new();
    for (letter, label, value) in rows {
        match selected.first() {
            None => lines.push_str(&format!("{label:<15}{value}\n")),
            Some(&only) if only == letter => lines.push_str(&format!("{value}\n")),
            Some(_) => {}
        }
    }
    out(&lines)?;
    Ok(ExitCode::SUCCESS)
}

/// A number as C's `atoi` reads it: leading digits; negative ones count as not given.
fn number(value: Option<OsString>) -> Option<u32> {
    let value = value.unwrap_or_default();
    let text = value.to_string_lossy();
    let text = text.trim_start();
    if text.starts_with('-') {
        return None;
    }
    let digits: String = text.trim_start_matches('+').chars().take_while(char::is_ascii_digit).collect();
    Some(digits.parse().unwrap_or(0))
}

/// `create` and `alter`.
fn create(tool: &Tool, arguments: &[OsString], create: bool) -> Outcome {
    let Parsed::Options(options, operands) = parse(arguments, "c:s:p:j:v") else {
        return tool.usage(WRONG);
    };
    let mut path = None;
    let (mut segment_size, mut pre_commit, mut changes) = (None, None, false);
    for (letter, value) in options {
        match letter {
            'j' => path = value.map(PathBuf::from),
            's' => (segment_size, changes) = (number(value), true),
            'p' => (pre_commit, changes) = (number(value), true),
            'c' => {
                // The C tool checks the word and ignores it.
                if !matches!(value.as_deref().and_then(OsStr::to_str), Some("on" | "off")) {
                    return tool.usage(WRONG);
                }
                changes = true;
            }
            _ => {}
        }
    }
    if let Some(outcome) = extraneous(tool, &operands) {
        return outcome;
    }
    if (create && path.is_none()) || (!create && !changes) {
        err("bad options");
        return tool.usage(WRONG);
    }
    let path = path.unwrap_or_else(|| ".".into());
    let failed = |what: &str, e: &Error| {
        err(&format!("Failed to {what} jlog '{}': {}", path.display(), name_of(e, &path)));
        Ok(ExitCode::from(WRONG))
    };
    if create {
        // As the C library makes them: without checksums.
        let options = JlogOptions::default().checksums(false);
        if path.exists() {
            let e = Error::AlreadyExists { path: path.clone(), why: "something is there" };
            return failed("initialize", &e);
        }
        if let Err(e) = options.create(&path) {
            return failed("initialize", &e);
        }
    }
    let log = match JlogOptions::default().open(&path) {
        Ok(log) => log,
        Err(e) => return failed("alter", &e),
    };
    // 0 would make the C tool run forever.
    if let Err(e) = log.alter(AlterOptions::default().segment_size(segment_size).pre_commit(pre_commit)) {
        err(&e.to_string());
        return failed("alter", &e);
    }
    // A writer makes the files that the C tool makes.
    match log.writer().and_then(jlog_core::Writer::close) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => failed("alter", &e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_c_tools_do() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let Parsed::Options(options, operands) = parse(&words("-jPATH -a -x -l rest -v"), "j:a:lv") else {
            panic!("not parsed");
        };
        let expected: Vec<Opt> = vec![('j', Some("PATH".into())), ('a', Some("-x".into())), ('l', None)];
        assert_eq!(options, expected);
        assert_eq!(operands, words("rest -v"));
        assert!(matches!(parse(&words("-lv"), "lv"), Parsed::Wrong));
        assert!(matches!(parse(&words("-a"), "a:"), Parsed::Wrong));
        assert_eq!(number(Some("64k".into())), Some(64));
        assert_eq!(number(Some("-1".into())), None);
        assert_eq!(number(Some("x".into())), Some(0));
    }
}
