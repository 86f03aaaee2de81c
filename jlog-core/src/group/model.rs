//! The rules of a group, run by a model checker in all interleavings: workers that are killed at
//! any moment, leases that expire, messages that are given back, a machine that restarts, a
//! subscriber that is moved.
//!
//! It checks [`GroupState`] itself. The model adds its environment: the file, in which a change is
//! complete or absent, the checkpoint, and the leases that the workers believe to have.

use std::collections::BTreeSet;

use stateright::{Checker, Model, Property};

use super::state::{Change, GroupState};
use crate::LogId;

/// How long a lease lasts.
const TIME: u64 = 1;

/// The bounds of the exploration.
struct Group {
    workers: usize,
    /// A key for each message.
    keys: &'static [Option<u64>],
    /// How many leases there may be.
    leases: u64,
    /// The last moment.
    end: u64,
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    /// The contents of the group's file.
    file: GroupState,
    /// The contents of the checkpoint's file.
    checkpoint: LogId,
    /// The leases that each worker believes to have; `None` for one that does not run.
    workers: Vec<Option<BTreeSet<(LogId, u64)>>>,
    /// The messages whose workers know that they are acknowledged.
    acknowledged: BTreeSet<LogId>,
    /// Whether somebody has moved the subscriber back.
    moved: bool,
}

/// Where a worker that changes something is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Killed {
    Not,
    /// The change is in the file.
    Changed,
    /// The checkpoint is stored, but the file does not have the change yet.
    Stored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Lease(usize),
    Acknowledge(usize, LogId, u64, Killed),
    GiveBack(usize, LogId, u64),
    Extend(usize, LogId, u64),
    Kill(usize),
    Start(usize),
    Tick,
    /// The machine restarts: the file may describe messages that no longer exist.
    Restart,
    /// Somebody moves the subscriber to its first message, while no worker runs.
    Move,
    /// The same with another library, which knows nothing of groups.
    MoveByOther,
}

fn message(n: usize) -> LogId {
    LogId::new(0, u32::try_from(n).unwrap())
}

impl World {
    /// The first step of every operation of a worker.
    fn begin(&mut self) {
        match self.file.begin(self.checkpoint) {
            Err(fresh) => self.file = fresh,
            Ok(Some(change)) => self.file.apply(&change),
            Ok(None) => {}
        }
        self.commit(Killed::Not);
    }

    fn commit(&mut self, killed: Killed) {
        if let Some(change @ Change::Commit { id }) = self.file.commit()
            && killed != Killed::Changed
        {
            self.checkpoint = id;
            if killed != Killed::Stored {
                self.file.apply(&change);
            }
        }
    }

    /// Adds all messages, and leases the oldest that is free.
    fn lease(&mut self, keys: &[Option<u64>]) -> Option<(LogId, u64)> {
        for (n, key) in (1..).zip(keys) {
            if let Some(change) = self.file.take(message(n), *key) {
                self.file.apply(&change);
            }
        }
        let change = self.file.lease(self.now, TIME)?;
        self.file.apply(&change);
        match change {
            Change::Lease { id, lease, .. } => Some((id, lease)),
            other => panic!("{other:?}"),
        }
    }

    /// The valid leases.
    fn held(&self) -> Vec<(LogId, u64)> {
        let all = self.workers.iter().flatten().flatten();
        all.filter(|&&(id, lease)| self.file.holds(id, lease)).copied().collect()
    }
}

impl Model for Group {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            file: GroupState::new(message(0), 1),
            checkpoint: message(0),
            workers: vec![Some(BTreeSet::new()); self.workers],
            acknowledged: BTreeSet::new(),
            moved: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (n, worker) in world.workers.iter().enumerate() {
            let Some(leases) = worker else {
                actions.push(Action::Start(n));
                continue;
            };
            actions.extend([Action::Lease(n), Action::Kill(n)]);
            for &(id, lease) in leases {
                actions.extend([Action::GiveBack(n, id, lease), Action::Extend(n, id, lease)]);
                for killed in [Killed::Not, Killed::Changed, Killed::Stored] {
                    actions.push(Action::Acknowledge(n, id, lease, killed));
                }
            }
        }
        actions.extend([Action::Tick, Action::Restart]);
        if !world.moved && world.workers.iter().all(Option::is_none) {
            actions.push(Action::Move);
            // From its place as the group knows it.
            if world.file.committed == world.checkpoint && world.checkpoint > message(0) {
                actions.push(Action::MoveByOther);
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Tick => next.now += 1,
            Action::Kill(n) => next.workers[n] = None,
            Action::Start(n) => next.workers[n] = Some(BTreeSet::new()),
            Action::Restart => {
                next.workers = vec![None; self.workers];
                next.file = GroupState::new(next.checkpoint, next.file.next_lease);
            }
            Action::Move | Action::MoveByOther => {
                if action == Action::Move {
                    next.file = GroupState::new(message(0), next.file.next_lease);
                }
                next.checkpoint = message(0);
                next.acknowledged.clear();
                next.moved = true;
            }
            Action::Lease(n) => {
                next.begin();
                let leased = next.lease(self.keys);
                next.workers[n].as_mut()?.extend(leased);
            }
            Action::GiveBack(n, id, lease) => {
                next.begin();
                if let Some(change) = next.file.give_back(id, lease, next.now, TIME) {
                    next.file.apply(&change);
                }
                next.workers[n].as_mut()?.remove(&(id, lease));
            }
            Action::Extend(_, id, lease) => {
                next.begin();
                if let Some(change) = next.file.extend(id, lease, next.now, TIME) {
                    next.file.apply(&change);
                }
            }
            Action::Acknowledge(n, id, lease, killed) => {
                next.begin();
                if let Some(change) = next.file.acknowledge(id, lease) {
                    next.file.apply(&change);
                    next.acknowledged.insert(id);
                    next.commit(killed);
                }
                match killed {
                    Killed::Not => drop(next.workers[n].as_mut()?.remove(&(id, lease))),
                    _ => next.workers[n] = None,
                }
            }
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "the checkpoint passes nothing that is not acknowledged",
                |group: &Self, world: &World| {
                    let passed = |n: &usize| message(*n) <= world.checkpoint;
                    (1..=group.keys.len()).filter(passed).all(|n| world.acknowledged.contains(&message(n)))
                },
            ),
            Property::always("nothing is lost", |group: &Self, world: &World| {
                // The next worker finds everything that is not acknowledged: it is in the window,
                // or will be.
                let mut next = world.clone();
                next.begin();
                let open = |n: &usize| !world.acknowledged.contains(&message(*n));
                (1..=group.keys.len()).filter(open).all(|n| {
                    let id = message(n);
                    id > next.file.taken
                        || next
                            .file
                            .entries
                            .iter()
                            .any(|entry| entry.id == id && entry.place != super::state::Place::Done)
                })
            }),
            Property::always("a message has one lease that holds", |_: &Self, world: &World| {
                let held = world.held();
                held.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len() == held.len()
            }),
            Property::always("messages with one key are with one worker", |group: &Self, world: &World| {
                let key = |id: LogId| group.keys[id.marker as usize - 1];
                let held = world.held();
                let keys: Vec<u64> = held.iter().filter_map(|&(id, _)| key(id)).collect();
                keys.iter().collect::<BTreeSet<_>>().len() == keys.len()
            }),
            Property::always(
                "messages with one key are done in their order",
                |group: &Self, world: &World| {
                    let done = |n: usize| world.acknowledged.contains(&message(n));
                    (1..=group.keys.len()).filter(|&n| done(n) && group.keys[n - 1].is_some()).all(|n| {
                        (1..n).all(|before| group.keys[before - 1] != group.keys[n - 1] || done(before))
                    })
                },
            ),
            Property::sometimes("everything is done", |group: &Self, world: &World| {
                world.checkpoint == message(group.keys.len())
            }),
            Property::sometimes("a message comes again", |_: &Self, world: &World| {
                world.file.entries.iter().any(|entry| entry.deliveries > 1)
            }),
            Property::sometimes("a worker has what is another one's by now", |_: &Self, world: &World| {
                world.workers.iter().flatten().flatten().any(|&(id, lease)| {
                    world.file.entries.iter().any(|entry| entry.id == id) && !world.file.holds(id, lease)
                })
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.now <= self.end && world.file.next_lease <= self.leases
    }
}

fn check(group: Group) {
    let checker = group.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done() && checker.unique_state_count() > 1000, "{}", checker.unique_state_count());
}

#[test]
fn two_workers() {
    check(Group { workers: 2, keys: &[None, None, None], leases: 5, end: 2 });
}

#[test]
fn two_workers_with_keys() {
    check(Group { workers: 2, keys: &[Some(7), None, Some(7)], leases: 5, end: 2 });
}

#[test]
fn three_workers() {
    check(Group { workers: 3, keys: &[Some(7), Some(7)], leases: 5, end: 2 });
}
