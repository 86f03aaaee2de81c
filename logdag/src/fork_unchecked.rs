//! A checker's threads do not fork.

use std::sync::Arc;

pub(crate) trait Renew: Send + Sync {
    #[expect(dead_code, reason = "nobody forks")]
    fn renew(&self);
}

#[derive(Debug)]
pub(crate) struct Inside;

pub(crate) fn enter() -> Inside {
    Inside
}

pub(crate) fn register(_: Arc<dyn Renew>) {}

pub(crate) fn forks() -> u32 {
    0
}

pub(crate) fn is_child() -> bool {
    false
}

pub(crate) fn renew_if_forked() {}
