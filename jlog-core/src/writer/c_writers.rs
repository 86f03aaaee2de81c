//! Keeping processes that use the C library from writing for a moment.
//!
//! Such a process reads the metastore only when its segment is full. If its segment is closed
//! early, or the segment size is raised, it continues to write to a segment that subscribers have
//! passed. While it writes, it has the file `pre_commit` open for writing; writers of ours do so
//! only with the buffer's guard. The kernel grants a lease on that file only while no process has
//! it open for writing, and the lease keeps others from opening it. So a lease shows that there is
//! no such process.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::codec::names;
use crate::files::precommit;
use crate::files::shared::Shared;
use crate::storage::{File, Guarded, Open};
use crate::{Error, Result};

/// How long to wait until a file that is open for writing is closed, if the caller can wait. A
/// process that is being started has its parent's files open until it runs its program, and a
/// writer of ours opens the file while it makes it. A C process keeps it open while it writes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// While this lives, no C process writes.
#[derive(Debug)]
pub(crate) struct KeptOut {
    lease: Option<Arc<dyn File>>,
    _guard: Option<Guarded>,
}

impl Drop for KeptOut {
    fn drop(&mut self) {
        if let Some(lease) = &self.lease {
            // It fails only where the system has taken the lease back.
            let _ = lease.release_lease();
        }
    }
}

/// Keeps C processes from writing. Waits up to `patience`, because the process that has the file
/// open may not be a C process.
///
/// # Errors
/// [`Error::CWriter`] if one has the jlog open for writing; [`Error::Io`] if that cannot be
/// determined, because the file belongs to another user.
pub(crate) fn keep_out(shared: &Shared, action: &'static str, patience: Duration) -> Result<KeptOut> {
    let nobody = |guard| Ok(KeptOut { lease: None, _guard: guard });
    if !shared.storage.is_shared() {
        return nobody(None);
    }
    // A C process makes the file when it opens the jlog. If we cannot make it, there is no such
    // process yet.
    let _ = precommit::create_empty(shared);
    let guard = match shared.open_if_there(names::PRE_COMMIT_GUARD, Open::Read)? {
        Some(file)
            if file
                .try_guard(true)
                .map_err(|e| Error::io("lock", shared.at(names::PRE_COMMIT_GUARD), e))? =>
        {
            Some(Guarded::new(file))
        }
        // A writer of ours has the buffer: no C process may have it at the same time.
        Some(_) => return nobody(None),
        None => None,
    };
    let Some(file) = shared.open_if_there(names::PRE_COMMIT, Open::Read)? else { return nobody(guard) };
    match lease_within(&*file, patience) {
        Ok(true) => Ok(KeptOut { lease: Some(file), _guard: guard }),
        Ok(false) => Err(Error::CWriter { path: shared.path.clone(), action }),
        // A file system without leases.
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => nobody(guard),
        Err(e) => Err(Error::io(
            "ask (only its owner and root can) whether a C process writes to",
            shared.path.clone(),
            e,
        )),
    }
}

/// Takes a lease. Returns `false` if the file is still open for writing when the time is over.
fn lease_within(file: &dyn File, patience: Duration) -> std::io::Result<bool> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        if file.try_lease()? {
            return Ok(true);
        }
        if since.elapsed() >= patience {
            return Ok(false);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
