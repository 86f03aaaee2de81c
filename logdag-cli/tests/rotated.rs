//! Rotated files of processes that are killed, share a file, or read a new configuration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::programs;

const LONG: Duration = Duration::from_secs(30);

struct Setup {
    dir: tempfile::TempDir,
}

impl Setup {
    /// A log that is rotated by size, with these attributes.
    fn new(attributes: &str) -> Self {
        let setup = Self { dir: tempfile::tempdir().unwrap() };
        setup.configure(attributes);
        setup
    }

    fn configure(&self, attributes: &str) {
        let path = self.path("app.log");
        let text = format!(
            "[[log]]\nname = 'app'\ntype = 'file'\npath = '{}'\nrotate_bytes = '100KiB'\n{attributes}\n",
            path.display()
        );
        fs::write(self.path("app.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self) -> Child {
        programs::heed_signals();
        Command::new(env!("CARGO_BIN_EXE_logdag"))
            .arg("run")
            .arg(self.path("app.toml"))
            .args(["--in", "app=stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The names of rotated files, by their numbers, and the log's own last.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("app.log")).collect();
        names.sort_by_key(|name| {
            let number = name.strip_prefix("app.log.").and_then(|rest| rest.split('.').next()?.parse().ok());
            number.unwrap_or(u64::MAX)
        });
        names
    }

    fn text(&self) -> String {
        self.names().iter().map(|name| unpacked(&self.path(name))).collect()
    }
}

fn unpacked(path: &Path) -> String {
    let program = match path.extension().and_then(|ext| ext.to_str()) {
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return fs::read_to_string(path).unwrap(),
    };
    let output = Command::new(program).arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

fn line(of: usize, n: usize) -> String {
    format!("<{of} {n} {:.>400}>\n", n * n)
}

/// Writes lines until nobody reads them any more.
fn feed(child: &mut Child, of: usize) -> std::thread::JoinHandle<()> {
    let mut input = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        let mut n = 0;
        while n < 30_000 && input.write_all(line(of, n).as_bytes()).is_ok() {
            n += 1;
        }
    })
}

/// Every line of each writer is present once, whole, and in order. The last line of a killed writer
/// may be torn.
fn assert_whole(text: &str, writers: usize) {
    let mut next = vec![0; writers];
    let mut torn = 0;
    for piece in text.split_inclusive('<') {
        let piece = piece.trim_end_matches('<');
        let Some(inside) = piece.strip_suffix(">\n") else {
            torn += usize::from(!piece.is_empty());
            continue;
        };
        let fields: Vec<&str> = inside.split(' ').collect();
        let (of, n): (usize, usize) = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
        assert_eq!(format!("<{piece}"), line(of, n));
        assert_eq!(n, next[of], "of {of}");
        next[of] += 1;
    }
    assert!(torn <= writers);
    assert!(next.iter().all(|&n| n > 0), "{next:?}");
}

#[test]
fn a_process_that_is_killed_while_it_compresses_loses_and_doubles_nothing() {
    for (method, suffix) in [("gzip", ".gz"), ("zstd", ".zst")] {
        if !there(method) {
            continue;
        }
        const ROUNDS: usize = 12;
        let setup = Setup::new(&format!("rotate_name = 'number'\ncompress = '{method}'"));
        let mut interrupted = 0;
        for round in 0..ROUNDS {
            let before = setup.names().len();
            let mut child = setup.run();
            let feeder = feed(&mut child, round);
            // The process has begun a rotation, and is somewhere in the middle of it.
            let begun = Instant::now();
            while setup.names().len() < before + 2 + round % 3 {
                assert!(begun.elapsed() < LONG, "nothing is rotated");
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            feeder.join().unwrap();
            interrupted += usize::from(setup.names().iter().any(|name| name.ends_with(".part")));
        }
        // The next start finishes their work.
        let mut last = setup.run();
        drop(last.stdin.take());
        assert!(last.wait().unwrap().success());
        let names = setup.names();
        let (log, rotated) = names.split_last().unwrap();
        assert_eq!(log, "app.log");
        assert!(rotated.iter().all(|name| name.ends_with(suffix)), "{names:?}");
        assert_whole(&setup.text(), ROUNDS);
        eprintln!("{method}: {interrupted} of {ROUNDS} were killed within a copy");
    }
}

#[test]
fn two_processes_that_share_a_file_lose_and_double_nothing() {
    if !there("zstd") {
        return;
    }
    let setup = Setup::new("rotate_name = '{name}-%F{ext}'\ncompress = 'zstd'");
    let mut children = [setup.run(), setup.run()];
    let feeders: Vec<_> = children.iter_mut().enumerate().map(|(of, child)| feed(child, of)).collect();
    feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    let mut last = setup.run();
    drop(last.stdin.take());
    assert!(last.wait().unwrap().success());
    let mut lines: Vec<String> = Vec::new();
    let mut rotated = 0;
    for entry in fs::read_dir(setup.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "app.toml" {
            continue;
        }
        let text = unpacked(&path);
        assert!(
            name == "app.log" || (name.ends_with(".zst") && text.len() >= 100 << 10),
            "{name} {}",
            text.len()
        );
        rotated += usize::from(name != "app.log");
        lines.extend(text.lines().map(|line| format!("{line}\n")));
    }
    assert!(rotated > 10, "{rotated}");
    lines.sort_unstable();
    let mut expected: Vec<String> = (0..2).flat_map(|of| (0..30_000).map(move |n| line(of, n))).collect();
    expected.sort_unstable();
    assert_eq!(lines.len(), expected.len());
    assert!(lines == expected);
}

#[test]
fn a_new_configuration_changes_names_and_compression_and_is_no_start() {
    if !there("gzip") {
        return;
    }
    let setup = Setup::new("rotate_name = 'number'\nrotate_on_start = true");
    let mut child = setup.run();
    let mut input = child.stdin.take().unwrap();
    let mut put = |from: usize| {
        for n in from..from + 600 {
            input.write_all(line(0, n).as_bytes()).unwrap();
        }
    };
    let wait_for = |what: &str, done: &dyn Fn(&[String]) -> bool| {
        let begun = Instant::now();
        while !done(&setup.names()) {
            assert!(begun.elapsed() < LONG, "{what}: {:?}", setup.names());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    put(0);
    wait_for("numbers", &|names| names.len() >= 3);
    setup.configure("rotate_name = '{name}-%F{ext}'\nrotate_on_start = true\ncompress = 'gzip'");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    // Files with numbers do not belong to this rotation, and stay.
    let mut from = 600;
    let begun = Instant::now();
    loop {
        let entries = fs::read_dir(setup.dir.path()).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        if names.any(|name| name.starts_with("app-2") && name.ends_with(".gz")) {
            break;
        }
        assert!(begun.elapsed() < LONG);
        put(from);
        from += 600;
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    let entries = fs::read_dir(setup.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext != "toml")).collect();
    // Numbers, then names with dates, of which the first has no number, then the log.
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".gz").to_owned();
        let number = name.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0_u64);
        (name == "app.log", name.starts_with("app-"), number)
    });
    let text: String = files.iter().map(|path| unpacked(path)).collect();
    assert_whole(&text, 1);
    assert_eq!(text.lines().count(), from);
    // A start rotates, whatever the size is.
    let small = fs::metadata(setup.path("app.log")).unwrap().len();
    assert!(small < 100 << 10);
    let mut again = setup.run();
    drop(again.stdin.take());
    assert!(again.wait().unwrap().success());
    assert_eq!(fs::metadata(setup.path("app.log")).unwrap().len(), 0);
}

#[test]
fn graph_and_check_show_the_rotation() {
    let setup = Setup::new("rotate_name = 'number'\ncompress = 'gzip'\nretain_count = 3");
    let run = |task: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_logdag"))
            .arg(task)
            .arg(setup.path("app.toml"))
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let graph = run("graph");
    assert!(
        graph.contains("\n  rotates at 102400 bytes to number, compresses with gzip, keeps 3 files\n"),
        "{graph}"
    );
    for name in ["app.log.20261125", "app.log.1700000000.gz", "app.log.7.gz"] {
        fs::write(setup.path(name), "").unwrap();
    }
    let check = run("check");
    for (name, noted) in
        [("app.log.20261125", true), ("app.log.1700000000.gz", true), ("app.log.7.gz", false)]
    {
        let note = format!("retention leaves {} alone", setup.path(name).display());
        assert_eq!(check.contains(&note), noted, "{check}");
    }
}
