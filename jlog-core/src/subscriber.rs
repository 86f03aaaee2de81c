//! Names of subscribers, and of the files that belong to one.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The prefix of the names of temporary subscribers.
pub const TEMPORARY_SUBSCRIBER: u8 = b'~';
/// The prefix of the names of checkpoint files.
pub(crate) const CHECKPOINT_PREFIX: &str = "cp.";
/// As long as the prefix of checkpoint files, so that every name fits.
pub(crate) const GROUP_PREFIX: &str = "gr.";
/// Longest file name of the file systems in use, in bytes.
const FILE_NAME_MAX: usize = 255;

/// An invalid name for a subscriber, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot name a subscriber: {why}")]
pub struct SubscriberNameError {
    name: String,
    why: &'static str,
}

impl SubscriberNameError {
    /// The name; bytes that are not UTF-8 are replaced.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A subscriber's name: 1 to 126 bytes other than NUL. (The name of its checkpoint file is `cp.`
/// and two hex digits per byte, and a file name has at most 255 bytes.)
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberName(Arc<[u8]>);

impl SubscriberName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = (FILE_NAME_MAX - CHECKPOINT_PREFIX.len()) / 2;

    /// Checks a name.
    ///
    /// # Errors
    /// If it is empty, too long, or has a NUL byte.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, SubscriberNameError> {
        let name = name.as_ref();
        let wrong = |why: &'static str| {
            Err(SubscriberNameError { name: String::from_utf8_lossy(name).into_owned(), why })
        };
        if name.is_empty() {
            return wrong("it is empty");
        }
        if name.len() > Self::MAX_LEN {
            return wrong("it is longer than 126 bytes");
        }
        if name.contains(&0) {
            return wrong("it has a NUL byte");
        }
        Ok(Self(name.into()))
    }

    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        Self::new(bytes?).ok()
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether log sinks remove this subscriber when they open the jlog: its name begins with `~`.
    pub fn is_temporary(&self) -> bool {
        self.0.first() == Some(&TEMPORARY_SUBSCRIBER)
    }

    /// The file name of its checkpoint.
    pub fn checkpoint_file(&self) -> String {
        self.file(CHECKPOINT_PREFIX)
    }

    /// The name of its group's file ([`Group`](crate::Group)).
    pub fn group_file(&self) -> String {
        self.file(GROUP_PREFIX)
    }

    fn file(&self, prefix: &str) -> String {
        use fmt::Write;
        let mut out = String::with_capacity(prefix.len() + 2 * self.0.len());
        out.push_str(prefix);
        for byte in &*self.0 {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
        }
        out
    }
}

impl fmt::Display for SubscriberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for SubscriberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", OsStr::from_bytes(&self.0))
    }
}

impl AsRef<[u8]> for SubscriberName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

const _: () = assert!(SubscriberName::MAX_LEN == 126);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriber_names_have_limits() {
        let long = SubscriberName::new([b'x'; 126]).unwrap();
        assert_eq!(long.checkpoint_file().len(), 255);
        assert!(SubscriberName::new([b'x'; 127]).is_err());
        assert!(SubscriberName::new("").is_err());
        assert!(SubscriberName::new("a\0b").is_err());
        assert_eq!(SubscriberName::new("../a b").unwrap().checkpoint_file(), "cp.2e2e2f612062");
        assert_eq!(SubscriberName::new(b"\xff~").unwrap().checkpoint_file(), "cp.ff7e");
    }
}
