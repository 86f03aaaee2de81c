//! Which feed a directory holds: a random number that is made with the feed and kept in the file `identity`. The C
//! library ignores it; a feed of that library gets one from the first writer of ours that may create files there.

use std::fmt::Write;

use crate::names;
use crate::shared::Shared;
use crate::storage::{Open, read_all};
use crate::{Error, Result};

/// Bytes of the number.
const LEN: usize = 16;

/// A feed's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity([u8; LEN]);

impl Identity {
    fn random() -> std::io::Result<Self> {
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }

    fn to_text(self) -> String {
        let mut text = String::with_capacity(2 * LEN + 1);
        for byte in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        text
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        if digits.len() != 2 * LEN || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u128::from_str_radix(digits, 16).ok().map(|n| Self(n.to_be_bytes()))
    }
}

/// The identity of the feed that is at the path now; `None` where it has none, or none that can be read.
pub(crate) fn read(shared: &Shared) -> Option<Identity> {
    let file = shared.open(names::IDENTITY, Open::Read).ok()?;
    Identity::parse(&read_all(&*file, 2 * LEN + 1).ok()?)
}

/// Gives the feed an identity, unless it has one.
pub(crate) fn create(shared: &Shared) -> Result<()> {
    if shared.exists(names::IDENTITY) {
        return Ok(());
    }
    let identity = Identity::random().map_err(|e| Error::io("create", shared.at(names::IDENTITY), e))?;
    // Another process may be writing one at this moment: the first one stays.
    shared.write_temporary(identity.to_text().as_bytes())?.publish_new(names::IDENTITY)?;
    Ok(())
}

/// The feed's identity, which it gets now if it has none. `None` where files cannot be created there.
pub(crate) fn ensure(shared: &Shared) -> Option<Identity> {
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
        let identity = Identity::random().unwrap();
        let text = identity.to_text();
        assert_eq!(Identity::parse(text.as_bytes()), Some(identity));
        assert_ne!(Identity::random().unwrap(), identity);
        for bad in ["", "\n", &text[1..], &text[..32], &text.to_uppercase().replace(['A'], "G")] {
            assert_eq!(Identity::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Identity::parse(format!("+{}", &text[1..]).as_bytes()), None);
    }
}
