//! The file `identity`: a random number that identifies the feed in a directory, chosen when the
//! feed is created. The C library ignores it; in a feed of that library, the first writer of ours
//! that may create files adds it.

use std::fmt;
use std::str::FromStr;

use crate::codec::names;
use crate::files::shared::Shared;
use crate::storage::{Open, read_all};
use crate::{Error, Result};

/// Bytes of the number.
const LEN: usize = 16;

/// Identifies a feed, whatever its path: a random number of 128 bits that is chosen when the feed
/// is created, written as 32 hex digits. A feed that is removed and created again has another one,
/// and so has a copy that [`Jlog::backup`] makes. A directory that is copied as files keeps it.
///
/// [`Jlog::backup`]: crate::Jlog::backup
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedIdentity([u8; LEN]);

impl fmt::Display for FeedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for FeedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeedIdentity({self})")
    }
}

/// A text that is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the identity of a feed: expected 32 lower-case hex digits")]
pub struct ParseFeedIdentityError(String);

impl FromStr for FeedIdentity {
    type Err = ParseFeedIdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(format!("{text}\n").as_bytes()).ok_or_else(|| ParseFeedIdentityError(text.to_owned()))
    }
}

impl FeedIdentity {
    fn random() -> std::io::Result<Self> {
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }

    fn to_text(self) -> String {
        format!("{self}\n")
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        if digits.len() != 2 * LEN || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u128::from_str_radix(digits, 16).ok().map(|n| Self(n.to_be_bytes()))
    }
}

/// The identity of the feed that is at the path now; `None` if it has none, or none that can be
/// read.
pub(crate) fn read(shared: &Shared) -> Option<FeedIdentity> {
    let file = shared.open(names::IDENTITY, Open::Read).ok()?;
    FeedIdentity::parse(&read_all(&*file, 2 * LEN + 1).ok()?)
}

/// Gives the feed an identity, unless it has one.
pub(crate) fn create(shared: &Shared) -> Result<()> {
    if shared.exists(names::IDENTITY) {
        return Ok(());
    }
    let identity = FeedIdentity::random().map_err(|e| Error::io("create", shared.at(names::IDENTITY), e))?;
    // Another process may be writing one right now: the first one stays.
    shared.write_temporary(identity.to_text().as_bytes())?.publish_new(names::IDENTITY)?;
    Ok(())
}

/// The feed's identity, which is created if missing. `None` if files cannot be created there.
pub(crate) fn ensure(shared: &Shared) -> Option<FeedIdentity> {
    read(shared).or_else(|| {
        create(shared).ok()?;
        read(shared)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        let identity = FeedIdentity::random().unwrap();
        let text = identity.to_text();
        assert_eq!(FeedIdentity::parse(text.as_bytes()), Some(identity));
        assert_eq!(identity.to_string().parse(), Ok(identity));
        assert_eq!(FeedIdentity([1; LEN]).to_string(), "01".repeat(LEN));
        assert!("".parse::<FeedIdentity>().is_err() && text.parse::<FeedIdentity>().is_err());
        assert_ne!(FeedIdentity::random().unwrap(), identity);
        for bad in ["", "\n", &text[1..], &text[..32], &text.to_uppercase().replace(['A'], "G")] {
            assert_eq!(FeedIdentity::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(FeedIdentity::parse(format!("+{}", &text[1..]).as_bytes()), None);
    }
}
