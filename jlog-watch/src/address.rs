//! Where a server listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens: an IP address with a port, or a Unix socket.
///
/// ```
/// use jlog_watch::Address;
///
/// let tcp: Address = "127.0.0.1:8080".parse()?;
/// assert_eq!("8080".parse::<Address>()?, tcp);
/// let socket: Address = "unix:/run/feeds.sock".parse()?;
/// assert!(tcp.is_local() && socket.is_local());
/// # Ok::<(), jlog_watch::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 picks a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket. It is made with mode 600, and removed when the server stops.
    Unix(PathBuf),
}

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: expected 127.0.0.1:PORT, [::1]:PORT, PORT, or unix:PATH")]
pub struct AddressError(String);

impl Address {
    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Address::Unix(path.into())) };
        }
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Address::Tcp(SocketAddr::new(loopback, port)));
        }
        text.parse().map(Address::Tcp).map_err(|_| wrong())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_local_or_not() {
        let local = |text: &str| text.parse::<Address>().map(|address| address.is_local());
        for text in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:80", "localhost:80", "80", "unix:/x", "unix:x"] {
            assert_eq!(local(text), Ok(true), "{text}");
        }
        for text in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            assert_eq!(local(text), Ok(false), "{text}");
        }
        for text in ["", "unix:", "example.org:80", "127.0.0.1", "99999", "localhost:x", "::1:80x"] {
            assert!(local(text).is_err(), "{text}");
        }
        assert_eq!(local("[::ffff:127.0.0.1]:80"), Ok(true));
    }
}
