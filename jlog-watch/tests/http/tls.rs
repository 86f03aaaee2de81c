//! TLS, with certificates that each test creates, and two clients: curl if it is installed, and
//! rustls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jlog_watch::{Limits, ServeError, Server, Tls, Token, Watch};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{DEADLINE, Place, send};

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// An authority, with files that it has issued.
struct Authority {
    place: Place,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = called("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { place: Place::new(), issuer };
        authority.file("ca.pem", &authority.issuer.pem());
        authority
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.place.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn ca(&self) -> PathBuf {
        self.place.join("ca.pem")
    }

    /// A certificate and its key, as files.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name = called(name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            self.file(&format!("{name}.pem"), &certificate.pem()),
            self.file(&format!("{name}.key"), &key.serialize_pem()),
        )
    }

    fn tls(&self, clients: bool) -> Tls {
        let (certificate, key) = self.issue("server", |_| {});
        Tls::from_files(certificate, key, clients.then(|| self.ca()).as_deref()).unwrap()
    }

    /// A connection that trusts this authority, and presents the certificate in these files.
    fn connect(
        &self,
        to: SocketAddr,
        shows: Option<&(PathBuf, PathBuf)>,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shows {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(("127.0.0.1", to.port())).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }

    /// The answer to a client, or the reason why there is none.
    fn ask(&self, server: &Server, shows: Option<&(PathBuf, PathBuf)>, headers: &str) -> Result<u16, String> {
        let mut stream = self.connect(crate::support::socket_address(server), shows);
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: feeds.example\r\nConnection: close\r\n{headers}\r\n");
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        asked.map_err(|e| e.to_string())?;
        Ok(answer.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// The same by curl.
    fn curl(&self, server: &Server, shows: Option<&(PathBuf, PathBuf)>) -> Option<bool> {
        let port = crate::support::socket_address(server).port();
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "20", "--cacert"]).arg(self.ca());
        if let Some((certificate, key)) = shows {
            curl.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let done = curl.arg(format!("https://127.0.0.1:{port}/metrics")).output().ok()?;
        Some(done.status.success() && done.stdout.starts_with(b"# HELP"))
    }
}

#[test]
fn clients_show_their_certificates() {
    let (ours, others) = (Authority::new(), Authority::new());
    let server = Watch::new().tls(ours.tls(true)).serve(&"0.0.0.0:0".parse().unwrap()).unwrap();
    assert!(server.url().starts_with("https://0.0.0.0:"), "{}", server.url());
    let right = ours.issue("client", |_| {});
    let wrong = others.issue("client", |_| {});
    let expired = ours.issue("expired", |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let to_come = ours.issue("to-come", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    assert_eq!(ours.ask(&server, Some(&right), ""), Ok(200));
    for (shows, why) in [
        (None, "CertificateRequired"),
        (Some(&wrong), "alert: "),
        (Some(&expired), "CertificateExpired"),
        (Some(&to_come), "alert: "),
    ] {
        let refused = ours.ask(&server, shows, "").unwrap_err();
        assert!(refused.contains(why), "{shows:?}: {refused}");
        assert_ne!(ours.curl(&server, shows), Some(true), "{shows:?}");
    }
    assert_ne!(ours.curl(&server, Some(&right)), Some(false));
    // Another site's page could make a browser present a certificate.
    assert_eq!(ours.ask(&server, Some(&right), "Origin: https://evil.example\r\n"), Ok(403));
    // A client that trusts other authorities does not trust us.
    assert!(others.ask(&server, Some(&right), "").unwrap_err().contains("certificate"));
    // Without TLS there is no answer.
    let port = crate::support::socket_address(&server).port();
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn a_token_serves_as_well_and_both_are_needed_where_both_are_asked_for() {
    let ours = Authority::new();
    let token = Token::new("a-token-of-tests").unwrap();
    let bearer = "Authorization: Bearer a-token-of-tests\r\n";
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = Watch::new().tls(ours.tls(false)).serve(&everywhere);
    assert!(matches!(refused, Err(ServeError::NoToken { .. })), "{refused:?}");
    let refused = Watch::new().tls(ours.tls(false)).control().serve(&"127.0.0.1:0".parse().unwrap());
    assert!(matches!(refused, Err(ServeError::ControlNeedsToken { .. })), "{refused:?}");
    let server = Watch::new().tls(ours.tls(false)).token(token.clone()).serve(&everywhere).unwrap();
    assert_eq!(ours.ask(&server, None, ""), Ok(401));
    assert_eq!(ours.ask(&server, None, bearer), Ok(200));
    let server = Watch::new().tls(ours.tls(true)).token(token).control().serve(&everywhere).unwrap();
    let right = ours.issue("client", |_| {});
    assert!(ours.ask(&server, None, bearer).is_err());
    assert_eq!(ours.ask(&server, Some(&right), ""), Ok(401));
    assert_eq!(ours.ask(&server, Some(&right), bearer), Ok(200));
    // On the loopback, TLS alone is enough; a socket has none.
    let server = Watch::new().tls(ours.tls(false)).serve(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let host = format!("Host: {}\r\n", crate::support::socket_address(&server));
    let stream = ours.connect(crate::support::socket_address(&server), None);
    let asked = format!("GET /health/live HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    assert_eq!(send(stream, &asked).status, 200);
    let socket = format!("unix:{}", ours.place.join("sock").display()).parse().unwrap();
    let refused = Watch::new().tls(ours.tls(false)).serve(&socket);
    assert!(matches!(refused, Err(ServeError::TlsOfSocket { .. })), "{refused:?}");
}

/// Clients that do not finish their handshake are disconnected, and delay nobody.
#[test]
fn handshakes_have_a_time() {
    let ours = Authority::new();
    let limits = Limits::default().header_time(Duration::from_millis(500)).connections(10);
    let server =
        Watch::new().tls(ours.tls(true)).limits(limits).serve(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = crate::support::socket_address(&server);
    let mut silent: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
    let right = ours.issue("client", |_| {});
    assert_eq!(ours.ask(&server, Some(&right), ""), Ok(200));
    let begun = Instant::now();
    for stream in &mut silent {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // Closed, or reset.
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    assert!(begun.elapsed() < DEADLINE);
}

#[test]
fn errors_name_the_file() {
    let ours = Authority::new();
    let (certificate, key) = ours.issue("server", |_| {});
    let (_, other_key) = ours.issue("other", |_| {});
    let empty = ours.file("empty", "");
    let cut = ours.file("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let no_certificate = ours.file("bad", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let open = ours.file("open.key", &std::fs::read_to_string(&key).unwrap());
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).unwrap();
    let missing = ours.place.join("missing");
    for (certificate, key, ca, named, why) in [
        (&missing, &key, None, "missing", "No such file"),
        (&empty, &key, None, "empty", "expected certificates in PEM"),
        (&key, &key, None, "server.key", "expected certificates in PEM"),
        (&cut, &key, None, "cut", "expected certificates in PEM: "),
        (&no_certificate, &key, None, "bad", "does not belong"),
        (&certificate, &missing, None, "missing", "No such file"),
        (&certificate, &certificate, None, "server.pem", "expected a private key in PEM"),
        (&certificate, &open, None, "open.key", "everybody may read it (mode 644)"),
        (&certificate, &other_key, None, "other.key", "does not belong"),
        (&certificate, &key, Some(&missing), "missing", "No such file"),
        (&certificate, &key, Some(&empty), "empty", "expected certificates in PEM"),
        (&certificate, &key, Some(&no_certificate), "bad", "expected certificates of authorities in PEM: "),
    ] {
        let error = Tls::from_files(certificate, key, ca.map(PathBuf::as_path)).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains(why), "{named}, {why}: {error}");
    }
}
