//! HTTPS, with certificates that each test creates.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "http")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use jlog_core::{Jlog, Start};
use jlog_ship::destinations::{Http, HttpBody, HttpOptions};
use jlog_ship::{Report, Shipper};
use rcgen::CertificateParams;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use self::authority::Authority;

mod authority;

/// How long a test waits for a shipper.
const PATIENCE: Duration = Duration::from_secs(60);

/// An unknown authority, and a feed with two messages.
struct Place {
    authority: Authority,
    log: Jlog,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::new();
        let log = Jlog::create(authority.dir.path().join("feed")).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        log.writer().unwrap().append_batch(&["one", "two"]).unwrap();
        Self { authority, log }
    }

    /// Options that trust the authority.
    fn trusting(&self) -> HttpOptions {
        let mut options = HttpOptions::default();
        options.body = HttpBody::Lines;
        options.ca = Some(self.authority.ca());
        options
    }

    /// A server with a certificate by the authority.
    fn server(&self, known_only: bool, change: impl FnOnce(&mut CertificateParams)) -> Server {
        Server::start(self.authority.server(&self.authority.issue("127.0.0.1", change), known_only))
    }

    /// Sends everything, and returns the reports.
    fn ship(&self, url: &str, options: &HttpOptions) -> Vec<String> {
        let (reports, kept) = mpsc::channel();
        let shipper = Shipper::new(self.log.path(), "s").unwrap().once(true);
        let shipper = shipper.on_report(move |report| reports.send(report.to_string()).unwrap());
        let totals = shipper.run(Box::new(Http::new(url, options).unwrap())).unwrap();
        assert_eq!((totals.acknowledged, totals.is_balanced()), (2, true), "{totals}");
        kept.iter().collect()
    }

    /// Tries to send, and returns why it was refused. No message is acknowledged.
    fn refusal(&self, url: &str, options: &HttpOptions) -> String {
        let (reasons, said) = mpsc::channel();
        let shipper = Shipper::new(self.log.path(), "s").unwrap().on_report(move |report| {
            if let Report::Refused { why, misconfigured, .. } = report {
                reasons.send((why.clone(), *misconfigured)).unwrap();
            }
        });
        let stopper = shipper.stopper();
        let http = Http::new(url, options).unwrap();
        let running = std::thread::spawn(move || shipper.run(Box::new(http)).unwrap());
        let (why, misconfigured) = said.recv_timeout(PATIENCE).unwrap();
        stopper.stop();
        let totals = running.join().unwrap();
        assert_eq!(totals.acknowledged, 0, "{totals}");
        assert!(misconfigured, "{why}: nobody is told to change something");
        why
    }
}

/// A server that accepts everything and keeps the bodies.
struct Server {
    url: String,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/in", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (config, kept) = (Arc::new(config), Arc::clone(&bodies));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, kept) = (Arc::clone(&config), Arc::clone(&kept));
                std::thread::spawn(move || serve(stream.unwrap(), config, &kept));
            }
        });
        Self { url, bodies }
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>, kept: &Mutex<Vec<String>>) {
    let mut connection = ServerConnection::new(config).unwrap();
    if connection.complete_io(&mut stream).is_err() {
        // The alert arrives only if nothing that was sent is left unread.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        return;
    }
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut head = String::new();
        while stream.read_line(&mut head).unwrap_or(0) > 2 {}
        let head = head.to_lowercase();
        let Some((_, length)) = head.split_once("content-length: ") else { return };
        let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        kept.lock().unwrap().push(String::from_utf8(body).unwrap());
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

#[test]
fn a_server_is_trusted_by_its_authority_only() {
    let place = Place::new();
    let server = place.server(false, |_| {});
    let why = place.refusal(&server.url, &HttpOptions::default());
    assert_eq!(why, "invalid peer certificate: UnknownIssuer");
    // An authority of the same name is not the same authority.
    let why = place.refusal(&server.url, &Place::new().trusting());
    assert_eq!(why, "invalid peer certificate: BadSignature");
    assert_eq!(server.bodies(), [""; 0]);
    assert_eq!(place.ship(&server.url, &place.trusting()), [""; 0]);
    assert_eq!(server.bodies(), ["one\ntwo\n"]);
}

#[test]
fn certificates_of_another_name_or_time_are_refused() {
    let place = Place::new();
    let other = place.server(false, |params| {
        *params = CertificateParams::new(["example.com".to_owned()]).unwrap();
    });
    let why = place.refusal(&other.url, &place.trusting());
    assert!(why.starts_with("invalid peer certificate: certificate not valid for name"), "{why}");
    let old = place.server(false, |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let why = place.refusal(&old.url, &place.trusting());
    assert!(why.starts_with("invalid peer certificate: certificate expired"), "{why}");
    assert_eq!([other.bodies(), old.bodies()], [[""; 0]; 2]);
}

#[test]
fn a_server_that_knows_its_clients_gets_a_certificate() {
    let place = Place::new();
    let server = place.server(true, |_| {});
    let mut options = place.trusting();
    let why = place.refusal(&server.url, &options);
    assert_eq!(why, "received fatal alert: CertificateRequired");
    assert_eq!(server.bodies(), [""; 0]);
    let (certificate, key) = place.authority.issue("127.0.0.1", |_| {});
    let certificate = place.authority.file("client.pem", &certificate.pem());
    options.client = Some((certificate, place.authority.file("client.key", &key.serialize_pem())));
    assert_eq!(place.ship(&server.url, &options), [""; 0]);
    assert_eq!(server.bodies(), ["one\ntwo\n"]);
}

#[test]
fn a_server_without_tls_is_refused() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/in", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let why = place.refusal(&url, &place.trusting());
    assert!(why.starts_with("received corrupt message"), "{why}");
}

#[test]
fn a_file_that_is_wrong_is_named() {
    let place = Place::new();
    let (certificate, key) = place.authority.issue("127.0.0.1", |_| {});
    let (_, other) = place.authority.issue("127.0.0.1", |_| {});
    let certificate = place.authority.file("client.pem", &certificate.pem());
    let key = place.authority.file("client.key", &key.serialize_pem());
    let other = place.authority.file("other.key", &other.serialize_pem());
    let (empty, missing) = (place.authority.file("empty", ""), place.authority.dir.path().join("missing"));
    let wrong = |ca: Option<&Path>, client: Option<(&Path, &Path)>| {
        let mut options = HttpOptions::default();
        options.ca = ca.map(Path::to_owned);
        options.client = client.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()));
        Http::new("https://127.0.0.1:1/in", &options).unwrap_err()
    };
    for (why, names) in [
        (wrong(Some(&missing), None), &missing),
        (wrong(Some(&empty), None), &empty),
        (wrong(Some(&key), None), &key),
        (wrong(None, Some((&missing, &key))), &missing),
        (wrong(None, Some((&certificate, &missing))), &missing),
        (wrong(None, Some((&certificate, &certificate))), &certificate),
        (wrong(None, Some((&certificate, &other))), &certificate),
    ] {
        assert!(why.contains(&names.display().to_string()), "{why}");
    }
}
