//! The resources that this process uses.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// CPU time of this process, except for its first thread, which is the client.
pub fn cpu() -> Duration {
    time_of(UsageWho::RUSAGE_SELF).saturating_sub(time_of(UsageWho::RUSAGE_THREAD))
}

fn time_of(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("usage");
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Resident memory in KiB: without and with the parts of the program file that were used.
pub fn resident_kib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
    };
    (field("RssAnon:"), field("VmRSS:"))
}
