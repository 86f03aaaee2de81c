//! Runs every console block of README and the guides, and compares what they print with what the
//! documents show.
//!
//! A block is fenced as `console`. Lines that begin with `$ ` are commands, lines that begin with
//! `> ` continue them, all others are output. The blocks of one document run in their order, in one
//! temporary directory, with the `jlog` and `logdag` of this workspace. What changes from one run
//! to the next (times, rates, temporary paths, free space, widths of columns) is not compared; a
//! line `…` stands for any number of lines. Comments before a block, which a rendered page does not
//! show, direct the test:
//!
//! - `<!-- skip: REASON -->`: the block is not run;
//! - `<!-- run: COMMANDS -->`: these run first;
//! - `<!-- fresh -->`: the block, and those after it, run in a new directory;
//! - `<!-- unordered -->`: the lines of each output may come in any order;
//! - `<!-- needs: PROGRAMS -->`: the block is not run if one of these is missing, unless the
//!   environment requires it (`JLOG_REQUIRE_JQ` for `jq`). With `journald` it gets a separate
//!   journal, and with `nats` a server.
//!
//! Blocks fenced as `rust` are compared with example programs, which are built with the other
//! tests: `<!-- from: FILE -->` names the file that has the block's lines, one after the other.
//!
//! With `JLOG_GUIDES=bless`, output that differs is written into the documents.

// Tests may fail where they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use regex::Regex;
use tempfile::TempDir;
use testkit::programs::skip;

/// The documents that are tested. `every_document_with_console_blocks_is_tested` finds others.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "docs/consuming.md",
    "docs/embedding.md",
    "docs/operating.md",
    "docs/shipping.md",
    "jlog-capi/README.md",
    "logdag/README.md",
    "logdag/examples/halo/README.md",
    "logdag/examples/halton/README.md",
];

/// Separates the output of two commands; no command prints this.
const MARK: &str = "--8<-- end of command --8<--";

#[test]
fn readme() {
    check("README.md");
}

#[test]
fn consuming() {
    check("docs/consuming.md");
}

#[test]
fn embedding() {
    check("docs/embedding.md");
}

#[test]
fn operating() {
    check("docs/operating.md");
}

#[test]
fn shipping() {
    check("docs/shipping.md");
}

#[test]
fn c_interface() {
    check("jlog-capi/README.md");
}

#[test]
fn logdag() {
    check("logdag/README.md");
}

#[test]
fn logdag_example_halo() {
    check("logdag/examples/halo/README.md");
}

#[test]
fn logdag_example_halton() {
    check("logdag/examples/halton/README.md");
}

#[test]
fn every_document_with_console_blocks_is_tested() {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if name.ends_with(".md") && std::fs::read_to_string(&path).unwrap().contains("```console")
            {
                found.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    found.retain(|name| !DOCUMENTS.contains(&name.as_str()));
    assert_eq!(found, Vec::<String>::new(), "documents with console blocks that no test runs");
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").unwrap();
    let mut documents: Vec<PathBuf> = DOCUMENTS.iter().map(|name| root().join(name)).collect();
    let more = [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/glossary.md",
        "docs/installing.md",
        "docs/releasing.md",
        "docs/scaling.md",
        "examples/outbox/README.md",
        "jlog-py/README.md",
        "jlog-watch/README.md",
    ];
    documents.extend(more.map(|name| root().join(name)));
    let mut broken = Vec::new();
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if !target.contains("://") && !document.parent().unwrap().join(&target).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A command of a block, with the lines that the document shows as its output.
struct Step {
    command: String,
    output: Vec<String>,
    /// The first line of output, and the one after the last, in the document, from 0.
    lines: (usize, usize),
}

/// A console block.
#[derive(Default)]
struct Block {
    /// Its first line in the document, from 1.
    line: usize,
    steps: Vec<Step>,
    skip: Option<String>,
    before: String,
    fresh: bool,
    unordered: bool,
    needs: Vec<String>,
}

/// A block of Rust that is taken from a file.
struct Excerpt {
    line: usize,
    from: PathBuf,
    text: Vec<String>,
}

/// The blocks of a document.
struct Document {
    blocks: Vec<Block>,
    excerpts: Vec<Excerpt>,
}

/// The comment that begins at this line, and the line after it.
fn comment(lines: &[&str], at: usize) -> Option<(String, usize)> {
    let mut text = lines[at].strip_prefix("<!-- ")?.to_owned();
    let mut next = at + 1;
    while !text.trim_end().ends_with("-->") {
        text.push('\n');
        text.push_str(lines.get(next)?);
        next += 1;
    }
    let text = text.trim_end().strip_suffix("-->").map(str::trim).map(str::to_owned)?;
    Some((text, next))
}

fn parse(text: &str) -> Document {
    let lines: Vec<&str> = text.lines().collect();
    let mut document = Document { blocks: Vec::new(), excerpts: Vec::new() };
    let mut directions: Vec<String> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if let Some((found, next)) = comment(&lines, at) {
            directions.push(found);
            at = next;
            continue;
        }
        let Some(language) = lines[at].strip_prefix("```") else {
            if !lines[at].is_empty() {
                directions.clear();
            }
            at += 1;
            continue;
        };
        let first = at + 1;
        let end = first + lines[first..].iter().position(|line| *line == "```").expect("the block ends");
        match language {
            "console" => document.blocks.push(console(&lines, first, end, &directions)),
            "rust" => {
                let from = directions.iter().find_map(|direction| direction.strip_prefix("from: "));
                document.excerpts.extend(from.map(|from| Excerpt {
                    line: first,
                    from: root().join(from),
                    text: lines[first..end].iter().map(|&line| line.to_owned()).collect(),
                }));
            }
            _ => {}
        }
        directions.clear();
        at = end + 1;
    }
    document
}

fn console(lines: &[&str], first: usize, end: usize, directions: &[String]) -> Block {
    let mut block = Block { line: first, ..Block::default() };
    for direction in directions {
        if let Some(reason) = direction.strip_prefix("skip: ") {
            block.skip = Some(reason.to_owned());
        } else if let Some(programs) = direction.strip_prefix("needs: ") {
            block.needs = programs.split_whitespace().map(str::to_owned).collect();
        } else if let Some(commands) = direction.strip_prefix("run: ") {
            block.before.push_str(commands);
            block.before.push('\n');
        } else {
            match direction.as_str() {
                "fresh" => block.fresh = true,
                "unordered" => block.unordered = true,
                other => panic!("line {first}: the comment {other:?} means nothing"),
            }
        }
    }
    for (n, line) in lines.iter().enumerate().take(end).skip(first) {
        if let Some(command) = line.strip_prefix("$ ") {
            block.steps.push(Step { command: command.into(), output: Vec::new(), lines: (n + 1, n + 1) });
            continue;
        }
        let step = block.steps.last_mut().expect("a block begins with a command");
        match line.strip_prefix("> ").or((*line == ">").then_some("")) {
            Some(more) if step.output.is_empty() => {
                let _ = write!(step.command, "\n{more}");
                step.lines = (n + 1, n + 1);
            }
            _ => {
                step.output.push((*line).to_owned());
                step.lines.1 = n + 1;
            }
        }
    }
    block
}

/// A directory with the commands under test: `jlog`, `logdag`, and a `cargo` that runs them for
/// `cargo run -p jlog-cli --` and the example `service`.
fn commands() -> &'static Path {
    static COMMANDS: LazyLock<TempDir> = LazyLock::new(|| {
        // This file is in target/PROFILE/deps.
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        // The same options as in a test of the whole workspace, which has built them already.
        build.args(["build", "--quiet", "--locked", "--workspace", "--bins", "--example", "service"]);
        build.arg("--target-dir").arg(built.parent().unwrap());
        if built.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.current_dir(root()).status().unwrap().success(), "the commands build");

        let directory = TempDir::new().unwrap();
        for name in ["jlog", "logdag"] {
            symlink(built.join(name), directory.path().join(name)).unwrap();
        }
        symlink(built.join("examples/service"), directory.path().join("service")).unwrap();
        let cargo = directory.path().join("cargo");
        let script = "#!/bin/sh\nwhile [ \"$1\" != -- ] && [ \"$1\" != --example ]; do shift; done\n\
                      [ \"$1\" = -- ] && { shift; exec jlog \"$@\"; }\nexec service\n";
        std::fs::write(&cargo, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&cargo, mode).unwrap();
        directory
    });
    COMMANDS.path()
}

/// Whether a program is installed. Fails if it is required and missing.
fn is_there(program: &str) -> bool {
    let command = match program {
        "journald" => {
            "test -x /lib/systemd/systemd-journald && command -v journalctl && unshare --mount true"
        }
        "nats" => "command -v nats-server",
        _ => "command -v \"$1\"",
    };
    let status = Command::new("sh")
        .args(["-c", command, "sh", program])
        .env("PATH", path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = status.unwrap().success();
    if !there {
        skip(&program.to_uppercase(), &format!("{program} is missing, or needs permissions"));
    }
    there
}

/// The search path for programs, with those under test first.
fn path() -> String {
    format!("{}:{}:/usr/sbin:/sbin", commands().display(), std::env::var("PATH").unwrap())
}

/// Runs a block. Returns the output of each command.
fn run(block: &Block, directory: &Path) -> Vec<Vec<String>> {
    let mut script = format!("exec 2>&1 </dev/null\n{{\ntrue\n{}}} >/dev/null 2>&1\ntrue\n", block.before);
    for step in &block.steps {
        let _ = write!(script, "{}\nstatus=$?; echo; echo '{MARK}'; (exit $status)\n", step.command);
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]);
    if block.needs.iter().any(|program| program == "journald") {
        command.args(["unshare", "--mount"]).arg(root().join("tests/with-journal.sh"));
    }
    if block.needs.iter().any(|program| program == "nats") {
        command.arg(root().join("tests/with-nats.sh"));
    }
    let path = path();
    let output = command
        .args(["bash", "-c", &script])
        .current_dir(directory)
        .envs([("PATH", path.as_str()), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8")])
        .env("REPOSITORY", root())
        .env("HOME", directory)
        .env_remove("RUST_LOG")
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut outputs: Vec<Vec<String>> = text
        .split(&format!("\n{MARK}\n"))
        .map(|output| output.lines().map(str::to_owned).collect())
        .collect();
    let ended = outputs.pop() == Some(Vec::new()) && outputs.len() == block.steps.len();
    assert!(ended, "line {}: a command did not end:\n{text}", block.line);
    outputs
}

/// A line without the parts that differ between runs.
fn stable(line: &str) -> String {
    static MASKS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            // Times of day, dates and Unix times in file names, ages.
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", "TIME"),
            (r"\d{4}-\d\d-\d\d", "DATE"),
            (r"\.\d{10}\b", ".SECONDS"),
            (r"\b\d+(\.\d+)?(s|min|h)\b", "AGE"),
            // Speeds, and free space.
            (r"in \d+\.\d+ s", "in SECONDS"),
            (r"\(\d+ messages/s\)", "(RATE)"),
            (r"[\d.,]+ [KMGT]iB free", "FREE"),
            (r"'free'=\d+B", "'free'=BYTES"),
            // Names of temporary directories.
            (r"/tmp/[A-Za-z0-9._-]+", "TMP"),
            // Columns are as wide as their contents.
            (r"\s+", " "),
        ]
        .map(|(pattern, mask)| (Regex::new(pattern).unwrap(), mask))
        .into()
    });
    let masked =
        MASKS.iter().fold(line.to_owned(), |line, (mask, with)| mask.replace_all(&line, *with).into());
    masked.trim_end().to_owned()
}

fn matches(shown: &[String], seen: &[String], unordered: bool) -> bool {
    let end = |lines: &[String]| lines.iter().rposition(|line| !line.is_empty()).map_or(0, |n| n + 1);
    let (shown, seen) = (&shown[..end(shown)], &seen[..end(seen)]);
    let mut seen: Vec<String> = seen.iter().map(|line| stable(line)).collect();
    if unordered {
        let mut shown: Vec<String> = shown.iter().map(|line| stable(line)).collect();
        shown.sort();
        seen.sort();
        return shown == seen;
    }
    fn rest(shown: &[String], seen: &[String]) -> bool {
        match shown {
            [] => seen.is_empty(),
            [any, more @ ..] if any == "…" => (0..=seen.len()).any(|n| rest(more, &seen[n..])),
            [line, more @ ..] => seen.first() == Some(&stable(line)) && rest(more, &seen[1..]),
        }
    }
    rest(shown, &seen)
}

fn check(name: &str) {
    let path = root().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let document = parse(&text);
    let bless = std::env::var("JLOG_GUIDES").is_ok_and(|value| value == "bless");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut replaced = Vec::new();
    let mut wrong = String::new();

    for Excerpt { line, from, text } in &document.excerpts {
        let source = std::fs::read_to_string(from).unwrap();
        let source: Vec<&str> = source.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let text: Vec<&str> = text.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
        if !source.windows(text.len()).any(|window| window == text) {
            let _ = writeln!(wrong, "{name}:{line}: these lines are not in {}", from.display());
        }
    }

    let mut directory = TempDir::new().unwrap();
    for block in &document.blocks {
        if let Some(reason) = &block.skip {
            eprintln!("{name}:{}: skipped: {reason}", block.line);
            continue;
        }
        if let Some(missing) = block.needs.iter().find(|program| !is_there(program)) {
            eprintln!("{name}:{}: skipped: there is no {missing}, or no permission to use it", block.line);
            continue;
        }
        if block.fresh {
            directory = TempDir::new().unwrap();
        }
        let outputs = run(block, directory.path());
        for (step, seen) in block.steps.iter().zip(outputs) {
            if matches(&step.output, &seen, block.unordered) {
                continue;
            }
            let _ = writeln!(wrong, "{name}:{}: $ {}", step.lines.0, step.command);
            for line in &step.output {
                let _ = writeln!(wrong, "  shown: {line}");
            }
            for line in &seen {
                let _ = writeln!(wrong, "  seen:  {line}");
            }
            replaced.push((step.lines, seen));
        }
    }
    if bless {
        for ((first, end), seen) in replaced.into_iter().rev() {
            let until = seen.iter().rposition(|line| !line.is_empty()).map_or(0, |n| n + 1);
            lines.splice(first..end, seen.into_iter().take(until));
        }
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}
