//! Releases a segment's lock in time when no append comes to do it.

use std::sync::Weak;

use super::state::Core;

/// What the thread of a [`Lease`](super::lease::Lease) does. It does not keep the writer alive.
pub(super) fn give_back_in_time(core: &Weak<Core>) {
    while let Some(core) = core.upgrade() {
        let mut appender = core.appender.lock();
        let Some(left) = appender.lease.left() else { return };
        if left.is_zero() && appender.lease.is_kept() {
            if appender.pending.is_due() {
                core.write_out(&mut appender);
            }
            core.release(&mut appender);
        }
        let rest = appender.lease.rest();
        drop(appender);
        drop(core);
        if rest {
            std::thread::park();
        } else {
            std::thread::park_timeout(left);
        }
    }
}
