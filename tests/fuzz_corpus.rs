//! Runs the fuzz targets over their committed corpora, and over mutations of them, on both kinds of
//! disks.

use std::ops::Range;
use std::path::PathBuf;

use jlog_core::storage::sim::Dice;

use testkit::fuzz::{Disk, TARGETS};

/// How many mutations of each input are tried.
const MUTATIONS: u64 = 20;
/// The random inputs for a target that needs only few bytes, unless `JLOG_RANDOM_INPUTS` sets the
/// first and the number after the last.
const RANDOM: Range<u64> = 0..3000;

fn random() -> Range<u64> {
    let Ok(range) = std::env::var("JLOG_RANDOM_INPUTS") else { return RANDOM };
    let numbers = range.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = numbers else { panic!("JLOG_RANDOM_INPUTS={range} is not like 0..3000") };
    from..to
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Changes, adds, removes or repeats a few bytes.
fn mutate(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = input.to_vec();
    let at = |dice: &mut Dice, len: usize| usize::try_from(dice.roll(len as u64 + 1)).unwrap();
    for _ in 0..=dice.roll(3) {
        let byte = u8::try_from(dice.roll(256)).unwrap();
        let place = at(dice, out.len());
        match dice.roll(4) {
            0 => out.insert(place, byte),
            1 => out.truncate(place),
            2 => out.extend_from_within(place..),
            _ => {
                if let Some(there) = out.get_mut(place) {
                    *there ^= 1 << (byte % 8);
                }
            }
        }
        out.truncate(4096);
    }
    out
}

/// Runs a target, and names the input that made it fail.
fn run(target: &str, what: &str, disk: Disk, input: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let outcome = std::panic::catch_unwind(|| body(disk, input));
    if let Err(panic) = outcome {
        eprintln!("{target} with {what} on {disk:?}: {}", input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

fn run_corpus(target: &str) {
    let mut dice = Dice::new(1);
    for (path, input) in corpus(target) {
        let what = path.display().to_string();
        run(target, &what, Disk::Simulated, &input);
        run(target, &what, Disk::Real, &input);
        for n in 0..MUTATIONS {
            let input = mutate(&input, &mut dice);
            run(target, &format!("mutation {n} of {what}"), Disk::Simulated, &input);
        }
    }
}

macro_rules! corpora {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                run_corpus(stringify!($target));
            }
        )*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.map(|(name, _)| name).to_vec(), [$(stringify!($target)),*]);
        }
    };
}

/// Random bytes mostly describe directories that no committed input does.
#[test]
fn assembled_at_random() {
    let fails = |seed: &u64| {
        let mut dice = Dice::new(*seed);
        let len = 40 + dice.roll(260);
        let input: Vec<u8> = (0..len).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect();
        let what = format!("seed {seed}");
        std::panic::catch_unwind(|| run("assembled", &what, Disk::Simulated, &input)).is_err()
    };
    let failed: Vec<u64> = random().filter(fails).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

corpora!(scanner metastore checkpoint index checksums pre_commit lz4_records settings names dropped operations assembled filter config formats syslog requests);
