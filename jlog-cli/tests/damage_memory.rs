//! How much memory commands take for damaged feeds. A separate test binary, because the system
//! reports only the most that any command of a process has taken.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use jlog_core::storage::sim::Dice;
use jlog_core::{Jlog, Start};
use nix::sys::resource::{UsageWho, getrusage};

const PAGE: usize = 4096;
const FEEDS: u64 = 20;
/// The most that a command may take, in KiB.
const MOST: i64 = 64 << 10;

fn roll(dice: &mut Dice, sides: usize) -> usize {
    usize::try_from(dice.roll(u64::try_from(sides).unwrap())).unwrap()
}

/// A feed of 20 MiB, in which pages of several segments are damaged: zeroed, filled with garbage,
/// copied from elsewhere, or with headers that claim bodies of up to 4 GiB.
fn damaged(path: &Path, seed: u64) {
    let mut dice = Dice::new(seed);
    let log = Jlog::options().segment_size(1 << 20).create(path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let messages: Vec<String> =
        (0..200).map(|n| format!("{seed} {n} ").repeat(roll(&mut dice, 200) + 1)).collect();
    while log.segments().unwrap().len() < 20 {
        writer.append_batch(&messages).unwrap();
    }
    writer.close().unwrap();
    for _ in 0..12 {
        let segment = path.join(format!("{:08x}", roll(&mut dice, 20)));
        let mut bytes = std::fs::read(&segment).unwrap();
        let pages = bytes.len() / PAGE;
        let at = roll(&mut dice, pages) * PAGE;
        let from = roll(&mut dice, pages) * PAGE;
        let page = match roll(&mut dice, 4) {
            0 => vec![0; PAGE],
            1 => (0..PAGE).map(|_| u8::try_from(roll(&mut dice, 256)).unwrap()).collect(),
            2 => bytes[from..from + PAGE].to_vec(),
            _ => {
                let header =
                    [0x663a_7318, 1_700_000_000, 1, u32::MAX - u32::try_from(roll(&mut dice, 1000)).unwrap()];
                let header: Vec<u8> = header.iter().flat_map(|n: &u32| n.to_le_bytes()).collect();
                header.repeat(PAGE / header.len())
            }
        };
        bytes[at..at + PAGE].copy_from_slice(&page);
        std::fs::write(&segment, bytes).unwrap();
    }
}

fn run(arguments: &[&str], feed: &Path) -> i32 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jlog"));
    command.arg(arguments[0]).arg(feed).args(&arguments[1..]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code().unwrap()
}

#[test]
fn commands_take_little_memory_for_damaged_feeds() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..FEEDS {
        let feed = dir.path().join(seed.to_string());
        damaged(&feed, seed);
        for (arguments, code) in [
            (&["verify"][..], 3),
            (&["cat"], 3),
            (&["read", "s", "--peek"], 3),
            (&["grep", "nothing"], 3),
            (&["status"], 0),
            (&["repair"], 0),
            (&["verify"], 0),
        ] {
            assert_eq!(run(arguments, &feed), code, "{arguments:?}, seed {seed}");
            let most = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
            assert!(most < MOST, "{arguments:?}, seed {seed}: {most} KiB");
        }
        std::fs::remove_dir_all(&feed).unwrap();
    }
}
