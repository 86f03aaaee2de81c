//! Files with a clock of the tests.

#[cfg(all(feature = "gzip", feature = "zstd"))]
mod rotated;

use std::cell::Cell;
use std::fs;

use super::*;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// What the steady clock shows, if not the same.
    static PASSED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Seconds in these tests are counted from here: a multiple of all periods, and in the range of
/// names.
const BASE: u64 = 1_699_999_800;

fn clock() -> u64 {
    BASE + NOW.get()
}

const CLOCK: Clock = Clock { wall: clock, steady: || PASSED.get().unwrap_or_else(|| NOW.get()) };

fn open(dir: &tempfile::TempDir, rotation: Rotation) -> FileSink {
    FileSink::open_with(dir.path().join("log"), rotation, &Access::default(), false, CLOCK).unwrap()
}

struct Setup {
    dir: tempfile::TempDir,
    sink: FileSink,
}

impl Setup {
    /// A sink at second 10,000.
    fn new(rotation: Rotation) -> Self {
        NOW.set(10_000);
        Self::here(rotation)
    }

    /// The same at the time that it is.
    fn here(rotation: Rotation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { sink: open(&dir, rotation), dir }
    }

    /// The file is closed and opened again.
    fn again(self, rotation: Rotation) -> Self {
        let Self { dir, sink } = self;
        drop(sink);
        Self { sink: open(&dir, rotation), dir }
    }

    fn write_at(&self, second: u64, text: &str) {
        NOW.set(second);
        let bytes = text.as_bytes();
        let ends: Vec<(usize, u64)> =
            memchr::memchr_iter(b'\n', bytes).map(|at| (at + 1, second * 1_000_000)).collect();
        self.sink.write(&Lines { bytes, ends: &ends, start: 0 }).unwrap();
    }

    /// Suffixes and texts, the current file last.
    fn files(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let suffix = name.strip_prefix("log").unwrap().trim_start_matches('.');
                let second = suffix.parse().ok().and_then(|second: u64| second.checked_sub(BASE));
                let suffix = second.map_or(suffix.to_owned(), |second| second.to_string());
                (suffix, fs::read_to_string(&path).unwrap())
            })
            .collect();
        all.sort_by_key(|(suffix, _)| suffix.parse().unwrap_or(u64::MAX));
        all
    }

    fn assert_files(&self, expected: &[(&str, &str)]) {
        let files = self.files();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert_eq!(files, expected);
    }

    /// The path of the file that was rotated at a second.
    fn rotated(&self, second: u64) -> PathBuf {
        self.dir.path().join(format!("log.{}", BASE + second))
    }

    fn put(&self, second: u64, bytes: usize) {
        fs::write(self.rotated(second), "x".repeat(bytes)).unwrap();
    }

    fn suffixes(&self) -> Vec<String> {
        self.files().into_iter().map(|(suffix, _)| suffix).collect()
    }
}

#[test]
fn a_period_ends_at_multiples_of_its_length() {
    let setup = Setup::new(Rotation { seconds: 600, ..Rotation::default() });
    for (second, text) in
        [(10_000, "a\n"), (10_199, "b\n"), (10_200, "c\n"), (10_799, "d\n"), (12_345, "e\nf\n")]
    {
        setup.write_at(second, text);
    }
    setup.assert_files(&[("10200", "a\nb\n"), ("12345", "c\nd\n"), ("", "e\nf\n")]);
}

#[test]
fn an_older_file_is_rotated_by_the_first_line() {
    NOW.set(10_000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "old\n").unwrap();
    let at = UNIX_EPOCH + Duration::from_secs(BASE + 9_000);
    File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    let rotation = Rotation { seconds: 600, ..Rotation::default() };
    let setup = Setup { sink: open(&dir, rotation), dir };
    setup.write_at(10_001, "new\n");
    setup.assert_files(&[("10001", "old\n"), ("", "new\n")]);
}

#[test]
fn the_line_that_reaches_the_limit_is_the_last_one() {
    let setup = Setup::new(Rotation { bytes: 6, ..Rotation::default() });
    setup.write_at(10_000, "12\n45\n");
    setup.assert_files(&[("", "12\n45\n")]);
    setup.write_at(10_001, "1\n3\n5\n7\n9\n");
    setup.write_at(10_002, "longer than the limit\nx\n");
    setup.assert_files(&[
        ("10001", "12\n45\n"),
        ("10002", "1\n3\n5\n"),
        ("10003", "7\n9\nlonger than the limit\n"),
        ("", "x\n"),
    ]);
}

#[test]
fn two_in_one_second_take_the_next_free_one() {
    let setup = Setup::new(Rotation { bytes: 2, ..Rotation::default() });
    setup.put(10_001, 3);
    setup.write_at(10_000, "a\nb\nc\n");
    setup.assert_files(&[("10000", "a\n"), ("10001", "xxx"), ("10002", "b\n"), ("", "c\n")]);
}

#[test]
fn what_is_too_old_goes() {
    let setup = Setup::new(Rotation { retain_seconds: 100, ..Rotation::default() });
    let mut expected = Vec::new();
    for (second, kept) in [(1, false), (9_899, false), (9_900, true), (9_999, true)] {
        setup.put(second, 1);
        expected.push((setup.rotated(second), kept));
    }
    for name in ["log", "log.1", "log.text", "log.12a", "log.", "other.1700000000"] {
        let path = setup.dir.path().join(name);
        fs::write(&path, "").unwrap();
        expected.push((path, true));
    }
    fs::create_dir(setup.rotated(2)).unwrap();
    expected.push((setup.rotated(2), true));
    assert_eq!(setup.sink.remove_expired().unwrap(), 2);
    for (path, kept) in expected {
        assert_eq!(path.exists(), kept, "{}", path.display());
    }
}

fn touch(path: &Path, second: u64) {
    let file = File::options().append(true).create(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
}

#[test]
fn names_that_a_rotation_cannot_have_made_are_left_alone() {
    let rotation = Rotation { retain_seconds: 1, retain_bytes: 1, retain_count: 1, ..Rotation::default() };
    let setup = Setup::new(rotation.clone());
    let names =
        ["1", "2", "20261101", "2026110114", "202611011415", "01700000000", "99999999999", "999999999"];
    let mut left: Vec<PathBuf> =
        names.iter().map(|name| setup.dir.path().join(format!("log.{name}"))).collect();
    left.iter().for_each(|path| touch(path, 1));
    // A file that is being written to, whatever its name.
    let live = setup.rotated(3);
    let other =
        FileSink::open_with(live.clone(), rotation.clone(), &Access::default(), false, CLOCK).unwrap();
    left.push(live);
    left.sort();
    setup.put(5, 1);
    setup.write_at(10_000, "a\n");
    setup.sink.rotate().unwrap();
    assert!(left.iter().all(|path| path.exists()));
    assert!(!setup.rotated(5).exists());
    assert_eq!(retention::find(&Names::new(&rotation, &setup.sink.path), clock()).unwrap().left_alone, left);
    // It is no longer written to: it is a rotated file like others.
    drop(other);
    assert_eq!(setup.sink.remove_expired().unwrap(), 1);
    assert!(!setup.rotated(3).exists());
}

#[test]
fn a_clock_that_was_wrong_costs_nothing() {
    const WRONG: u64 = 4_102_444_800;
    // The names are from the future; the files' own times may be right, or as wrong.
    for modified in [BASE + 10_000, WRONG] {
        let rotation = Rotation { bytes: 2, retain_count: 3, retain_seconds: 100, ..Rotation::default() };
        let setup = Setup::new(rotation);
        let future = [0, 1, 2].map(|n| setup.dir.path().join(format!("log.{}", WRONG + n)));
        future.iter().for_each(|path| touch(path, modified));
        setup.write_at(10_000, "a\nb\nc\n");
        assert_eq!(setup.suffixes().len(), 4, "{:?}", setup.files());
        setup.write_at(10_000, "d\ne\n");
        let kept = [("10001", "b\n"), ("10002", "c\n"), ("10003", "d\n"), ("", "e\n")];
        setup.assert_files(&kept);
        // Those that nothing pushes out go when they have been there long enough.
        future.iter().for_each(|path| touch(path, modified));
        setup.sink.remove_expired().unwrap();
        setup.assert_files(&kept);
        let setup = Setup::new(Rotation { retain_seconds: 100, ..Rotation::default() });
        let future = setup.dir.path().join(format!("log.{WRONG}"));
        touch(&future, modified);
        for (second, there) in [(10_000, true), (10_100, true), (10_101, false)] {
            NOW.set(second);
            setup.sink.remove_expired().unwrap();
            assert_eq!(future.exists(), there, "{second}");
        }
    }
}

#[test]
fn names_come_back_from_the_future_with_the_clock() {
    let setup = Setup::new(Rotation { bytes: 2, ..Rotation::default() });
    setup.write_at(500_000_000, "a\nb\n");
    setup.write_at(10_000, "c\nd\n");
    setup.assert_files(&[("10000", "b\n"), ("10001", "c\n"), ("500000000", "a\n"), ("", "d\n")]);
    // A clock at 1970 also makes names that retention knows, and none twice.
    NOW.set(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rotation = Rotation { bytes: 2, retain_count: 2, ..Rotation::default() };
    let clock = Clock { wall: || 7, steady: || 7 };
    let sink = FileSink::open_with(path.clone(), rotation, &Access::default(), false, clock).unwrap();
    let ends = [2, 4, 6, 8].map(|end| (end, 0));
    sink.write(&Lines { bytes: b"a\nb\nc\nd\n", ends: &ends, start: 0 }).unwrap();
    let text = |second: u64| fs::read_to_string(format!("{}.{second}", path.display())).ok();
    assert_eq!([0, 1, 2].map(|n| text(1_000_000_000 + n)), [None, Some("b\n".into()), Some("c\n".into())]);
}

#[test]
fn time_that_passes_ends_a_period_and_a_files_life() {
    let setup = Setup::new(Rotation { seconds: 600, retain_seconds: 1000, ..Rotation::default() });
    assert!(setup.sink.capabilities().needs_ticks);
    setup.put(9_000, 1);
    setup.write_at(10_000, "a\n");
    NOW.set(10_199);
    setup.sink.tick().unwrap();
    setup.assert_files(&[("", "a\n")]);
    NOW.set(10_200);
    setup.sink.tick().unwrap();
    setup.assert_files(&[("10200", "a\n"), ("", "")]);
    // Nothing was written: there is nothing to rotate.
    NOW.set(10_800);
    setup.sink.tick().unwrap();
    setup.assert_files(&[("10200", "a\n"), ("", "")]);
    // Nothing is rotated any more that would remove the old ones.
    setup.sink.files.lock().culled = None;
    NOW.set(11_201);
    setup.sink.tick().unwrap();
    setup.assert_files(&[("", "")]);
    assert!(
        !Setup::new(Rotation { bytes: 10, retain_count: 1, ..Rotation::default() })
            .sink
            .capabilities()
            .needs_ticks
    );
}

#[test]
fn bytes_and_count_keep_the_newest() {
    let setup = Setup::new(Rotation { retain_bytes: 25, ..Rotation::default() });
    for second in [9, 10, 8, 7] {
        setup.put(second, 10);
    }
    assert_eq!(setup.sink.remove_expired().unwrap(), 2);
    assert_eq!(setup.suffixes(), ["9", "10", ""]);
    let setup = Setup::new(Rotation { retain_count: 3, ..Rotation::default() });
    for second in [9, 10, 8, 7] {
        setup.put(second, 10);
    }
    assert_eq!(setup.sink.remove_expired().unwrap(), 1);
    assert_eq!(setup.suffixes(), ["8", "9", "10", ""]);
}

#[test]
fn retention_goes_with_rotation_and_leaves_the_current_file() {
    let rotation = Rotation { seconds: 600, retain_bytes: 1, retain_seconds: 1, ..Rotation::default() };
    let setup = Setup::new(rotation);
    setup.put(5, 1);
    setup.write_at(10_000, "a line of more than a byte\n");
    assert_eq!(setup.suffixes(), ["5", ""]);
    setup.write_at(20_000, "another one\n");
    setup.assert_files(&[("", "another one\n")]);
    NOW.set(90_000);
    setup.sink.remove_expired().unwrap();
    setup.assert_files(&[("", "another one\n")]);
}

/// What ought to hold and did not when this was written.
mod found {
    use super::*;

    #[test]
    fn an_empty_file_belongs_to_the_period_of_its_first_line() {
        let setup = Setup::new(Rotation { seconds: 600, ..Rotation::default() });
        // Nothing was logged in the period that it was opened in.
        setup.write_at(10_300, "a\n");
        setup.write_at(10_301, "b\n");
        setup.assert_files(&[("", "a\nb\n")]);
    }

    #[test]
    fn names_go_up_though_older_ones_were_removed() {
        let setup = Setup::new(Rotation { bytes: 2, retain_count: 2, ..Rotation::default() });
        setup.write_at(10_000, "a\nb\nc\nd\ne\n");
        let texts: Vec<String> = setup.files().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["c\n", "d\n", "e\n"]);
    }
}
