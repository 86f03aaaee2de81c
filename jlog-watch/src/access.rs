//! Access control.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};
use jlog_files::SmallFile;
use subtle::ConstantTimeEq;

use crate::page;

/// A secret that clients must send.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why no token could be read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("the token file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody may read the file.
    #[error("the token file {}: everybody may read it (mode {mode:o}); `chmod o= {}`", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its contents cannot be a token.
    #[error(
        "the token file {}: expected one line of {} to {} visible ASCII characters, such as `openssl rand -hex 32` prints",
        path.display(), Token::MIN_LEN, Token::MAX_LEN
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// The shortest token, in bytes.
    pub const MIN_LEN: usize = 16;
    /// The longest token, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// A token of 16 to 1024 visible ASCII characters; `None` for anything else.
    pub fn new(token: impl AsRef<[u8]>) -> Option<Self> {
        let token = token.as_ref();
        let fits = (Self::MIN_LEN..=Self::MAX_LEN).contains(&token.len());
        (fits && token.iter().all(u8::is_ascii_graphic)).then(|| Self(token.to_vec()))
    }

    /// Reads a token from a file of one line that only its owner and group may read, or from a pipe
    /// such as a shell's `<(…)`.
    ///
    /// # Errors
    /// The file cannot be read, everybody may read it, or it contains no token.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let path = path.as_ref();
        let fail = |source| TokenError::Io { path: path.to_owned(), source };
        let SmallFile { bytes, mode } = jlog_files::read(path, jlog_files::SECRET).map_err(fail)?;
        if mode & 0o007 != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode });
        }
        Self::new(bytes.trim_ascii_end()).ok_or_else(|| TokenError::NoToken { path: path.to_owned() })
    }

    /// Compares in constant time: the time can reveal the token's length, but not where the first
    /// wrong byte is.
    fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

/// The checks that every request must pass first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) token: Option<Token>,
    /// Allowed host names, besides those of this machine's loopback.
    pub(crate) hosts: Vec<String>,
    /// Whether the server listens on a Unix socket, which no browser can reach.
    pub(crate) any_host: bool,
}

/// Why a request is refused.
pub(crate) type Refused = (StatusCode, &'static str);

/// The liveness check, whose answer reveals nothing.
const LIVE: &str = "/health/live";

impl Access {
    /// Whether a request may be answered.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let host = headers.get(HOST).map(|host| host.as_bytes());
        // For another site's page, the browser sends that page's origin.
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin.as_bytes();
            let rest = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            if rest.is_none() || rest != host {
                return Err((StatusCode::FORBIDDEN, "the Origin is another site's"));
            }
        }
        // Images and scripts that such a page requests are refused, too; following a link is
        // allowed.
        let says = |name: &str, what: &str| headers.get(name).is_some_and(|value| value == what);
        if says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
            return Err((StatusCode::FORBIDDEN, "the request is another site's"));
        }
        if let Some(token) = &self.token {
            let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
            let given = given.and_then(|value| {
                let (scheme, token) = value.split_at_checked(7)?;
                scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
            });
            // No browser sends a token by itself: a client that has it may use any host name.
            let open = uri.path() == LIVE || page::PATHS.contains(&uri.path());
            if open || given.is_some_and(|given| token.is(given)) {
                return Ok(());
            }
            return Err((StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN"));
        }
        // DNS rebinding: a foreign name that resolves to this address would pass as the page's own
        // site.
        if self.any_host || host.is_none_or(|host| self.knows(host)) {
            Ok(())
        } else {
            Err((StatusCode::MISDIRECTED_REQUEST, "the Host is not one of this server's names"))
        }
    }

    fn knows(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, _)) => name,
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let loopback = name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        loopback
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn asks(access: &Access, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        access.check(&Uri::from_static("/metrics"), &map).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn only_names_of_this_machine_and_its_own_pages_may_ask() {
        let access = Access { hosts: vec!["feeds.example".to_owned()], ..Access::default() };
        for host in ["127.0.0.1:80", "127.3.2.1", "localhost", "LOCALHOST:1", "[::1]:8", "feeds.example:80"] {
            assert_eq!(asks(&access, &[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]", "[::1"]
        {
            assert_eq!(asks(&access, &[("host", host)]), 421, "{host}");
        }
        let own = [("host", "localhost:80"), ("origin", "http://localhost:80")];
        assert_eq!(asks(&access, &own), 200);
        for origin in ["http://evil.example", "null", "http://localhost:81", "localhost:80"] {
            assert_eq!(asks(&access, &[("host", "localhost:80"), ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(asks(&access, &[]), 200);
        let from = |site, mode| {
            asks(&access, &[("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)])
        };
        assert_eq!(from("cross-site", "no-cors"), 403);
        assert_eq!(
            [from("cross-site", "navigate"), from("same-origin", "cors"), from("none", "navigate")],
            [200; 3]
        );
        let socket = Access { any_host: true, ..Access::default() };
        assert_eq!(asks(&socket, &[("host", "whatever")]), 200);
    }

    #[test]
    fn a_token_is_the_whole_token() {
        let token = Token::new("0123456789abcdef").unwrap();
        let access = Access { token: Some(token), ..Access::default() };
        for right in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            assert_eq!(asks(&access, &[("authorization", right), ("host", "feeds.example")]), 200, "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcdeF",
        ] {
            assert_eq!(asks(&access, &[("authorization", wrong), ("host", "localhost")]), 401, "{wrong}");
        }
        assert_eq!(asks(&access, &[("host", "localhost")]), 401);
        let live = access.check(&Uri::from_static("/health/live"), &HeaderMap::new());
        assert_eq!(live, Ok(()));
        // Even the right token does not admit another site's page.
        let page = [
            ("authorization", "Bearer 0123456789abcdef"),
            ("host", "localhost"),
            ("origin", "http://evil.example"),
        ];
        assert_eq!(asks(&access, &page), 403);
    }

    #[test]
    fn token_files_are_secret_and_hold_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let read = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::from_file(&path).map(|token| token.0)
        };
        assert_eq!(read("0123456789abcdef\n", 0o600).unwrap(), b"0123456789abcdef");
        assert_eq!(read("0123456789abcdef", 0o640).unwrap(), b"0123456789abcdef");
        assert!(read("0123456789abcdef", 0o644).unwrap_err().to_string().contains("everybody may read it"));
        for text in ["", "short", "0123456789 abcdef", "0123456789abcdef\nx\n", &"x".repeat(1025)] {
            assert!(matches!(read(text, 0o600), Err(TokenError::NoToken { .. })), "{text:?}");
        }
        let missing = Token::from_file(dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("No such file"), "{missing}");
        let endless = Token::from_file("/dev/zero").unwrap_err().to_string();
        assert!(endless.contains("/dev/zero: it is a device: expected a regular file"), "{endless}");
    }
}
