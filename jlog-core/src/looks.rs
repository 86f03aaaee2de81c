//! Caches the state of each subscriber at the last look. Watching a feed checks all subscribers
//! repeatedly, and most have not moved.

use std::ffi::OsStr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::codec::names::Kind;
use crate::files::checkpoint;
use crate::files::renumbered::Identity;
use crate::files::shared::Shared;
use crate::storage::Facts;
use crate::subscriber::SubscriberName;
use crate::sync::Mutex;
use crate::walk::counts::SegmentCount;
use crate::walk::lost::Missing;
use crate::{Error, LogId, Meta, Result, Timestamp};

/// A file that was changed within this time before it was read may have been changed again without
/// a trace: the kernel's file times have a resolution of a few milliseconds.
const SETTLED_NANOS: i128 = 100_000_000;

/// The last looks.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<Last>);

impl Looks {
    /// Takes the last look; it must be put back afterwards.
    pub(crate) fn take(&self) -> Last {
        std::mem::take(&mut *self.0.lock())
    }

    /// Remembers this for the next time.
    pub(crate) fn remember(&self, last: Last) {
        *self.0.lock() = last;
    }
}

/// The last look.
#[derive(Debug, Default)]
pub(crate) struct Last {
    /// Sorted by name.
    pub(crate) subscribers: Vec<(SubscriberName, Look)>,
    /// `None` if it was not seen yet.
    pub(crate) feed: Option<Feed>,
}

/// The state of the feed.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) meta: Meta,
    /// Segments in the order of their numbers.
    pub(crate) counts: Vec<SegmentCount>,
    pub(crate) missing: Missing,
}

/// A look at a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The checkpoint's file, and when it was last changed, in nanoseconds since 1970: `None` if it
    /// may have changed again without a trace.
    file: Identity,
    changed: Option<i64>,
    pub(crate) checkpoint: Option<LogId>,
    /// When the checkpoint was last stored.
    pub(crate) moved: Option<Timestamp>,
    pub(crate) place: Option<Place>,
}

/// The place of a checkpoint, and the messages after it. It stays valid while its segment and the
/// first one are the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: Option<Identity>,
    pub(crate) first_segment: u32,
    /// Records up to the checkpoint in its segment, and where the last of them ends.
    pub(crate) records: u32,
    pub(crate) offset: u64,
    /// The time of the first message after it, once there is one.
    pub(crate) oldest: Option<Timestamp>,
}

impl Look {
    /// Whether the file seems unchanged.
    fn is_of(&self, facts: &Facts) -> bool {
        self.changed
            .is_some_and(|changed| (self.file, i128::from(changed)) == (facts.identity, facts.changed))
    }

    /// Looks at a subscriber, using an earlier look if there is one; `None` if it was unsubscribed.
    fn at(shared: &Shared, name: &SubscriberName, before: Option<Self>) -> Result<Option<Self>> {
        let Ok(facts) = shared.facts(&name.checkpoint_file()) else { return Ok(None) };
        if let Some(look) = before.as_ref().filter(|look| look.is_of(&facts)) {
            return Ok(Some(look.clone()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let checkpoint = match checkpoint::read(shared, name) {
            Err(Error::UnknownSubscriber { .. }) => return Ok(None),
            read => read.unwrap_or(None),
        };
        let settled = facts.changed > 0
            && i128::try_from(now.as_nanos()).is_ok_and(|now| facts.changed + SETTLED_NANOS < now);
        let seconds = u32::try_from(facts.modified).ok();
        Ok(Some(Self {
            file: facts.identity,
            changed: if settled { i64::try_from(facts.changed).ok() } else { None },
            checkpoint,
            moved: seconds.map(|seconds| Timestamp { seconds, micros: 0 }),
            // A checkpoint that was stored again may be where it was.
            place: before.filter(|look| look.checkpoint == checkpoint).and_then(|look| look.place),
        }))
    }
}

/// Looks at all subscribers, sorted by name. A checkpoint that cannot be read is `None`.
pub(crate) fn all(
    shared: &Shared,
    before: Vec<(SubscriberName, Look)>,
) -> Result<Vec<(SubscriberName, Look)>> {
    let names = shared.subscribers()?;
    let mut known = before.into_iter().peekable();
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        while known.next_if(|(known, _)| *known < name).is_some() {}
        let before = known.next_if(|(known, _)| *known == name).map(|(_, look)| look);
        if let Some(look) = Look::at(shared, &name, before)? {
            out.push((name, look));
        }
    }
    Ok(out)
}

impl Last {
    /// Looks again at what has changed, if only these files have; `meta` is the current metastore.
    /// `None` if everything must be read.
    pub(crate) fn again<'a>(
        &mut self,
        shared: &Shared,
        meta: &Meta,
        changed: impl IntoIterator<Item = &'a OsStr>,
    ) -> Result<Option<()>> {
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.meta == *meta) else { return Ok(None) };
        let mut moved = Vec::new();
        for name in changed {
            match Kind::of(name) {
                Kind::Checkpoint(name) => moved.push(name),
                Kind::Segment(n) | Kind::Index(n) | Kind::Checksums(n) if n == meta.storage_log => {}
                Kind::PreCommit | Kind::PreCommitGuard => {}
                _ => return Ok(None),
            }
        }
        let Some(last) = feed.counts.last_mut().filter(|last| last.number == meta.storage_log) else {
            return Ok(None);
        };
        let now = crate::walk::counts::of(shared, meta.format, meta.storage_log, meta.storage_log)?;
        if now.records < last.records || now.bytes < last.bytes {
            return Ok(None);
        }
        *last = now;
        for name in moved {
            let Ok(at) = self.subscribers.binary_search_by(|(known, _)| known.cmp(&name)) else {
                return Ok(None);
            };
            let look = &mut self.subscribers[at].1;
            match Look::at(shared, &name, Some(look.clone()))? {
                Some(now) => *look = now,
                None => return Ok(None),
            }
        }
        Ok(Some(()))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::path::Path;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use crate::{CleanOptions, Jlog, Start, Status, Wait};

    /// Everything in a status except the free disk space.
    fn behind(status: &Status) -> String {
        format!("{:#?}", Status { free: 0, ..status.clone() })
    }

    /// The files that have changed since the last look.
    fn changed(events: &Inotify) -> Vec<OsString> {
        let mut names = Vec::new();
        while let Ok(events) = events.read_events() {
            names.extend(events.into_iter().filter_map(|event| event.name));
        }
        names
    }

    fn watch(dir: &Path) -> Inotify {
        let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let open = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS | AddWatchFlags::IN_CLOSE_NOWRITE;
        events.add_watch(dir, AddWatchFlags::IN_ALL_EVENTS.difference(open)).unwrap();
        events
    }

    /// The cached state equals a fresh look, whatever happens between two looks.
    #[test]
    fn a_second_look_finds_what_a_first_one_would() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        let log = Jlog::options().segment_size(100).create(&path).unwrap();
        log.subscribe_all(&["a", "b", "c"], Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let watching = Jlog::open(&path).unwrap();
        let (following, events) = (Jlog::open(&path).unwrap(), watch(&path));
        let after = || {
            let changed = changed(&events);
            following.status_after(changed.iter().map(OsString::as_os_str)).unwrap()
        };
        let check = |what: &str| {
            let followed = after();
            let fresh = Jlog::open(&path).unwrap().status().unwrap();
            assert_eq!(behind(&watching.status().unwrap()), behind(&fresh), "{what}");
            assert_eq!(behind(&followed), behind(&fresh), "{what}, by what has changed");
            assert_eq!(behind(&after()), behind(&fresh), "{what}, and nothing has changed");
            // Long enough for the checkpoints' files to count as settled.
            std::thread::sleep(std::time::Duration::from_millis(150));
            assert_eq!(behind(&watching.status().unwrap()), behind(&fresh), "{what}, again");
            assert_eq!(behind(&watching.status().unwrap()), behind(&fresh), "{what}, once more");
        };
        check("nothing");
        for n in 0..20 {
            writer.append(format!("message {n}")).unwrap();
        }
        check("messages");
        let mut reader = log.reader("a").unwrap();
        for _ in 0..2 {
            let last = reader.next_batch(Wait::No).unwrap().unwrap().last_id();
            reader.commit(last).unwrap();
        }
        check("one moves on");
        log.set_checkpoint("b", log.end().unwrap()).unwrap();
        check("another has done all");
        writer.append("one more").unwrap();
        check("and is behind again");
        log.set_checkpoint("a", log.start().unwrap()).unwrap();
        check("one goes back");
        log.unsubscribe("a").unwrap();
        log.subscribe("a", Start::Last(3)).unwrap();
        check("a subscriber is made again");
        log.set_checkpoint("c", log.end().unwrap()).unwrap();
        log.clean(CleanOptions::default()).unwrap();
        check("segments go");
        std::fs::write(path.join(crate::SubscriberName::new("a").unwrap().checkpoint_file()), "x").unwrap();
        check("a checkpoint is damaged");
        assert!(watching.status().unwrap().subscribers[0].checkpoint.is_none());
    }

    /// Files that are not reported as changed are not read again.
    #[test]
    fn a_look_at_changes_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        let log = Jlog::create(&path).unwrap();
        log.subscribe_all(&["a", "b"], Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append("1").unwrap();
        let watching = Jlog::open(&path).unwrap();
        let lags = |changed: &[&str]| {
            let status = watching.status_after(changed.iter().map(OsStr::new)).unwrap();
            status.subscribers.iter().map(|subscriber| subscriber.messages).collect::<Vec<_>>()
        };
        assert_eq!(lags(&[]), [1, 1]);
        log.set_checkpoint("a", log.end().unwrap()).unwrap();
        log.set_checkpoint("b", log.end().unwrap()).unwrap();
        writer.append("2").unwrap();
        assert_eq!(lags(&["cp.62"]), [2, 1]);
        assert_eq!(lags(&["cp.61"]), [1, 1]);
        writer.append("3").unwrap();
        assert_eq!(lags(&[]), [2, 2]);
        // An unknown file name means that everything may have changed.
        log.unsubscribe("a").unwrap();
        assert_eq!(lags(&["something"]), [2]);
    }
}
