//! What was last seen of each subscriber. Watching a feed looks at all of them repeatedly, and most have not
//! moved.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::names::{Kind, SubscriberName};
use crate::renumbered::Identity;
use crate::shared::Shared;
use crate::storage::Facts;
use crate::sync::Mutex;
use crate::{Error, LogId, Result, Timestamp, checkpoint};

/// A file that was changed within this time before it was read may have been changed again without a trace: the system
/// notes times a few milliseconds apart.
const SETTLED_NANOS: i128 = 100_000_000;

/// The last looks, by subscriber.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<HashMap<SubscriberName, Look>>);

/// A look at a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The checkpoint's file, and when it was changed last.
    file: Identity,
    changed: i128,
    /// When it was read, in nanoseconds since 1970.
    at: i128,
    pub(crate) checkpoint: Option<LogId>,
    /// When the checkpoint was stored last.
    pub(crate) moved: Option<Timestamp>,
    pub(crate) place: Option<Place>,
}

/// Where a checkpoint is, and what is behind it. It stays so while its segment and the first one are the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: Option<Identity>,
    pub(crate) first_segment: u32,
    /// Records up to the checkpoint in its segment, and where the last of them ends.
    pub(crate) records: u32,
    pub(crate) offset: u64,
    /// The time of the first message behind it, once there is one.
    pub(crate) oldest: Option<Timestamp>,
}

impl Look {
    /// Whether the file seems unchanged.
    fn is_of(&self, facts: &Facts) -> bool {
        (self.file, self.changed) == (facts.identity, facts.changed)
            && facts.changed > 0
            && self.changed + SETTLED_NANOS < self.at
    }
}

/// Looks at all subscribers, in the order of their names. A checkpoint that cannot be read comes as `None`.
pub(crate) fn all(shared: &Shared) -> Result<Vec<(SubscriberName, Look)>> {
    let kinds = shared.list()?.into_iter();
    let mut names: Vec<SubscriberName> =
        kinds.filter_map(|kind| if let Kind::Checkpoint(name) = kind { Some(name) } else { None }).collect();
    names.sort();
    let mut known = std::mem::take(&mut *shared.looks.0.lock());
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        // Unsubscribed meanwhile.
        let Ok(facts) = shared.facts(&name.checkpoint_file()) else { continue };
        let before = known.remove(&name);
        if let Some(look) = before.as_ref().filter(|look| look.is_of(&facts)) {
            out.push((name, look.clone()));
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let checkpoint = match checkpoint::read(shared, &name) {
            Err(Error::UnknownSubscriber { .. }) => continue,
            read => read.unwrap_or(None),
        };
        let seconds = u32::try_from(facts.modified).ok();
        out.push((
            name,
            Look {
                file: facts.identity,
                changed: facts.changed,
                at: i128::try_from(now.as_nanos()).unwrap_or(i128::MAX),
                checkpoint,
                moved: seconds.map(|seconds| Timestamp { seconds, micros: 0 }),
                // One that was stored again may be where it was.
                place: before.filter(|look| look.checkpoint == checkpoint).and_then(|look| look.place),
            },
        ));
    }
    Ok(out)
}

/// Remembers these looks for the next time.
pub(crate) fn remember(shared: &Shared, looks: impl IntoIterator<Item = (SubscriberName, Look)>) {
    *shared.looks.0.lock() = looks.into_iter().collect();
}

#[cfg(test)]
mod tests {
    use crate::{CleanOptions, Jlog, Start, Status, Timestamp, Wait};

    type Behind = (String, u64, u64, Option<Timestamp>);

    fn behind(status: &Status) -> Vec<Behind> {
        let of = |s: &crate::SubscriberStatus| (s.name.to_string(), s.messages, s.bytes, s.oldest);
        status.subscribers.iter().map(of).collect()
    }

    /// What is remembered equals what a new look would find, whatever happens between two looks.
    #[test]
    fn a_second_look_finds_what_a_first_one_would() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        let log = Jlog::options().segment_size(100).create(&path).unwrap();
        log.subscribe_all(&["a", "b", "c"], Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let watching = Jlog::open(&path).unwrap();
        let check = |what: &str| {
            let fresh = Jlog::open(&path).unwrap().status().unwrap();
            assert_eq!(behind(&watching.status().unwrap()), behind(&fresh), "{what}");
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
}
