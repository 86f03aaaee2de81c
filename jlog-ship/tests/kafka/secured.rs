//! Brokers that require TLS or a login: a gate before the mock cluster, which has neither. It
//! answers handshakes itself, and forwards all other requests. In responses it replaces the
//! broker's port with its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jlog_ship::destinations::{Kafka, KafkaOptions};
use ring::{digest, hmac, pbkdf2};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Cluster;
use super::authority::Authority;
use super::support::{Running, append, feed, shipper, texts};

const USER: &str = "ship";
const PASSWORD: &str = "correct, horse = staple";

/// Numbers of requests, in Kafka's protocol.
const SASL_HANDSHAKE: u16 = 17;
const API_VERSIONS: u16 = 18;
const SASL_AUTHENTICATE: u16 = 36;
/// Its error codes.
const UNSUPPORTED_MECHANISM: u16 = 33;
const AUTHENTICATION_FAILED: u16 = 58;

trait Channel: Read + Write {}
impl<T: Read + Write> Channel for T {}

/// What a gate requires.
#[derive(Clone, Default)]
struct Gate {
    tls: Option<Arc<ServerConfig>>,
    /// The mechanisms for [`USER`] and [`PASSWORD`].
    mechanisms: Option<&'static [&'static str]>,
}

impl Gate {
    /// Opens a gate before the cluster, until the test's process ends. Returns its address.
    fn open(self, cluster: &Cluster) -> SocketAddr {
        let broker: SocketAddr = cluster.mock.bootstrap_servers().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let gate = self.clone();
                // Clients that are not let in, or leave, end it with an error.
                std::thread::spawn(move || drop(gate.pass(stream.unwrap(), address, broker)));
            }
        });
        address
    }

    fn pass(&self, stream: TcpStream, own: SocketAddr, broker: SocketAddr) -> io::Result<()> {
        let mut client: Box<dyn Channel> = match &self.tls {
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, stream))
            }
            None => Box::new(stream),
        };
        let mut cluster = TcpStream::connect(broker)?;
        let mut login = self.mechanisms.map(Login::new);
        loop {
            let request = frame(&mut client)?;
            let mut fields = Fields(&request);
            let (key, version) = (fields.u16(), fields.u16());
            let correlation = fields.take(4).to_vec();
            let client_id = usize::from(fields.u16());
            fields.take(client_id);
            let mut response = match (key, &mut login) {
                (SASL_HANDSHAKE, Some(login)) => [correlation, login.choose(fields)].concat(),
                (SASL_AUTHENTICATE, Some(login)) => [correlation, login.step(fields)].concat(),
                (API_VERSIONS, Some(_)) => with_sasl(ask(&mut cluster, &request)?, version),
                // A broker ends the connection, too.
                (_, Some(login)) if !login.done => return Ok(()),
                _ => ask(&mut cluster, &request)?,
            };
            let announced =
                [broker.ip().to_string().as_bytes(), &[0, 0], &broker.port().to_be_bytes()].concat();
            for at in 0..response.len().saturating_sub(announced.len()) {
                if response[at..].starts_with(&announced) {
                    let port = at + announced.len() - 2;
                    response[port..port + 2].copy_from_slice(&own.port().to_be_bytes());
                }
            }
            send(&mut client, &response)?;
        }
    }
}

fn frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn send(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), frame].concat())?;
    stream.flush()
}

/// Forwards a request and returns the response.
fn ask(cluster: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    send(cluster, request)?;
    frame(cluster)
}

/// Adds the SASL requests to a response's list of known requests, which follows 6 bytes.
fn with_sasl(mut response: Vec<u8>, version: u16) -> Vec<u8> {
    let added = [(SASL_HANDSHAKE, 1_u16), (SASL_AUTHENTICATE, 0)];
    let unknown_version = response[4..6] != [0, 0];
    let flexible = version >= 3 && !unknown_version;
    let (count, size) = if flexible { (6, 1) } else { (9, 4) };
    assert!(response[count] < 100, "the length has more than a byte");
    response[count] += 2;
    for (key, most) in added {
        let mut entry = [key.to_be_bytes(), [0, 0], most.to_be_bytes()].concat();
        if flexible {
            entry.push(0);
        }
        let at = 6 + size;
        response.splice(at..at, entry);
    }
    response
}

/// The rest of a request.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }
}

/// A login in progress.
struct Login {
    mechanisms: &'static [&'static str],
    chosen: String,
    /// The first messages of SCRAM.
    begun: Option<(String, String)>,
    done: bool,
}

impl Login {
    fn new(mechanisms: &'static [&'static str]) -> Self {
        Self { mechanisms, chosen: String::new(), begun: None, done: false }
    }

    fn choose(&mut self, mut fields: Fields<'_>) -> Vec<u8> {
        let length = usize::from(fields.u16());
        self.chosen = String::from_utf8(fields.take(length).to_vec()).unwrap();
        let known = self.mechanisms.contains(&&*self.chosen);
        let error = if known { 0 } else { UNSUPPORTED_MECHANISM };
        let mut response = error.to_be_bytes().to_vec();
        response.extend(u32::try_from(self.mechanisms.len()).unwrap().to_be_bytes());
        for name in self.mechanisms {
            response.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            response.extend(name.as_bytes());
        }
        response
    }

    fn step(&mut self, mut fields: Fields<'_>) -> Vec<u8> {
        fields.take(4);
        let said = std::str::from_utf8(fields.0).unwrap();
        let answer = match &*self.chosen {
            "PLAIN" => {
                self.done = said == format!("\0{USER}\0{PASSWORD}");
                self.done.then(String::new)
            }
            _ => self.scram(said),
        };
        let text = match &answer {
            // No error, and no text for it.
            Some(_) => [0, 0, 0xff, 0xff].to_vec(),
            None => {
                let text = "invalid credentials";
                let (error, length) =
                    (AUTHENTICATION_FAILED.to_be_bytes(), u16::try_from(text.len()).unwrap().to_be_bytes());
                [&error, &length, text.as_bytes()].concat()
            }
        };
        let answer = answer.unwrap_or_default();
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        [&text, &length[..], answer.as_bytes()].concat()
    }

    /// The server's side of RFC 5802.
    fn scram(&mut self, said: &str) -> Option<String> {
        let salt = b"salt";
        let Some((first, answered)) = &self.begun else {
            let bare = said.strip_prefix("n,,")?;
            let nonce = bare.strip_prefix(&format!("n={USER},r="))?;
            let answer = format!("r={nonce}more,s={},i=4096", STANDARD.encode(salt));
            self.begun = Some((bare.to_owned(), answer.clone()));
            return Some(answer);
        };
        let (hash, hmac, pbkdf2) = match &*self.chosen {
            "SCRAM-SHA-256" => (&digest::SHA256, hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
            _ => (&digest::SHA512, hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
        };
        let mut salted = vec![0; hash.output_len()];
        pbkdf2::derive(pbkdf2, NonZeroU32::new(4096).unwrap(), salt, PASSWORD.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac, key), text.as_bytes());
        let (without_proof, proof) = said.rsplit_once(",p=")?;
        let all = format!("{first},{answered},{without_proof}");
        let client_key = sign(&salted, "Client Key");
        let stored = digest::digest(hash, client_key.as_ref());
        let signature = sign(stored.as_ref(), &all);
        let proven: Vec<u8> =
            STANDARD.decode(proof).ok()?.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        self.done = proven == client_key.as_ref();
        let own = sign(sign(&salted, "Server Key").as_ref(), &all);
        self.done.then(|| format!("v={}", STANDARD.encode(own)))
    }
}

fn server(authority: &Authority, name: &str, known_only: bool) -> Option<Arc<ServerConfig>> {
    Some(Arc::new(authority.server(&authority.issue(name, |_| {}), known_only)))
}

/// Options to trust the authority.
fn trusting(authority: &Authority) -> KafkaOptions {
    let mut options = KafkaOptions::default();
    options.ca = Some(authority.ca());
    options
}

fn with_login(mut options: KafkaOptions, password: &str) -> KafkaOptions {
    options.password = Some((USER.to_owned(), password.to_owned()));
    options
}

/// Ships some messages to the cluster through a gate.
#[track_caller]
fn arrives(cluster: &Cluster, url: &str, options: &KafkaOptions) {
    let before = cluster.records().len();
    let (_dir, log) = feed(100);
    append(&log, 100..1000);
    let totals = super::support::ship_once(&log, Box::new(Kafka::new(url, options).unwrap()));
    assert_eq!((totals.acknowledged, totals.refusals), (1000, 0), "{totals:?}");
    let arrived: Vec<String> = cluster.records_from(before).into_iter().map(|record| record.body).collect();
    assert_eq!(arrived, texts(0..1000));
}

/// Checks that nothing is shipped and the error is reported, in each case.
#[track_caller]
fn refused(cases: &[(&str, &KafkaOptions, &str)]) {
    let run = |(url, options, _): &(&str, &KafkaOptions, &str)| {
        let (dir, log) = feed(10);
        (dir, Running::start(shipper(&log), Box::new(Kafka::new(url, options).unwrap())))
    };
    // At the same time, because a persistent error is reported only after seconds.
    let running: Vec<_> = cases.iter().map(run).collect();
    for ((_dir, running), (_, options, says)) in running.into_iter().zip(cases) {
        running.until_reported(says);
        let shown =
            format!("{:?} {:?} {options:?}", running.reports.lock().unwrap(), running.progress.totals());
        assert!(!shown.contains("staple"), "the password is shown: {shown}");
        assert_eq!(running.end().acknowledged, 0);
    }
}

/// The hint for clients without TLS and a login.
const HINT: &str = "; if this goes on, the brokers may require TLS (kafka+tls://…) or a login; trying again";

#[test]
fn a_broker_is_trusted_by_its_authority_only() {
    let Some(cluster) = Cluster::start() else { return };
    let (authority, another) = (Authority::new(), Authority::new());
    let gate = Gate { tls: server(&authority, "127.0.0.1", false), ..Gate::default() }.open(&cluster);
    let misnamed = Gate { tls: server(&authority, "example.com", false), ..Gate::default() }.open(&cluster);
    let [url, wrong] = [gate, misnamed].map(|address| format!("kafka+tls://{address}/t"));
    let [says, of_wrong] = [gate, misnamed].map(|address| {
        format!(
            "kafka+tls://{address}/t refuses messages until something is fixed: ssl://{address}/bootstrap: no trusted authority vouches for the broker's certificate, for this name and this time; trying again"
        )
    });
    refused(&[
        (&url, &KafkaOptions::default(), &says),
        (&url, &trusting(&another), &says),
        (&wrong, &trusting(&authority), &of_wrong),
    ]);
    assert!(cluster.records().is_empty());
    arrives(&cluster, &url, &trusting(&authority));
}

#[test]
fn a_broker_that_knows_its_clients_gets_a_certificate() {
    let Some(cluster) = Cluster::start() else { return };
    let authority = Authority::new();
    let gate = Gate { tls: server(&authority, "127.0.0.1", true), ..Gate::default() }.open(&cluster);
    let url = format!("kafka+tls://{gate}/t");
    let mut options = trusting(&authority);
    refused(&[(&url, &options, "tlsv13 alert certificate required")]);
    let (certificate, key) = authority.issue("client", |_| {});
    let certificate = authority.file("client.pem", &certificate.pem());
    options.client = Some((certificate, authority.file("client.key", &key.serialize_pem())));
    arrives(&cluster, &url, &options);
}

#[test]
fn a_login_is_checked_with_every_mechanism() {
    let Some(cluster) = Cluster::start() else { return };
    let authority = Authority::new();
    let all: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let plain = Gate { mechanisms: Some(all), ..Gate::default() }.open(&cluster);
    let tls = Gate { tls: server(&authority, "127.0.0.1", false), mechanisms: Some(all) }.open(&cluster);
    let few = Gate { mechanisms: Some(&["PLAIN"]), ..Gate::default() }.open(&cluster);
    let ways = [
        (format!("kafka://{plain}/t"), KafkaOptions::default()),
        (format!("kafka+tls://{tls}/t"), trusting(&authority)),
        (format!("kafka+tls://{tls}/t?sasl.mechanism=SCRAM-SHA-256"), trusting(&authority)),
        (format!("kafka+tls://{tls}/t?sasl.mechanism=PLAIN"), trusting(&authority)),
    ];
    let few = format!("kafka://{few}/t");
    let login = with_login(KafkaOptions::default(), PASSWORD);
    let none = KafkaOptions::default();
    let wrong = ways.clone().map(|(url, options)| (url, with_login(options, "staple")));
    let says = "until something is fixed: sasl_";
    let mut cases: Vec<_> = wrong.iter().map(|(url, options)| (&**url, options, says)).collect();
    cases.push((&few, &login, "broker's supported mechanisms: PLAIN"));
    cases.push((&ways[0].0, &none, HINT));
    refused(&cases);
    refused(&[(&wrong[1].0, &wrong[1].1, "SASL authentication error: invalid credentials; trying again")]);
    assert!(cluster.records().is_empty());
    for (url, options) in ways {
        arrives(&cluster, &url, &with_login(options, PASSWORD));
    }
}

#[test]
fn a_listener_of_the_other_kind_is_reported() {
    let Some(cluster) = Cluster::start() else { return };
    let authority = Authority::new();
    let tls = Gate { tls: server(&authority, "127.0.0.1", false), ..Gate::default() }.open(&cluster);
    let tls = format!("kafka://{tls}/t");
    let plain = format!("kafka+tls://{}/t", cluster.mock.bootstrap_servers());
    refused(&[
        (&tls, &KafkaOptions::default(), HINT),
        (&plain, &trusting(&authority), "these may be listeners without TLS (kafka://…); trying again"),
    ]);
}

#[test]
fn mistakes_are_found_before_there_is_a_broker() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("client", |_| {});
    let (_, other) = authority.issue("other", |_| {});
    let certificate = authority.file("client.pem", &certificate.pem());
    let key = authority.file("client.key", &key.serialize_pem());
    let other = authority.file("other.key", &other.serialize_pem());
    let (empty, missing) = (authority.file("empty", ""), authority.dir.path().join("missing"));
    let wrong = |ca: Option<&PathBuf>, client: Option<(&PathBuf, &PathBuf)>| {
        let mut options = KafkaOptions::default();
        options.ca = ca.cloned();
        options.client = client.map(|(certificate, key)| (certificate.clone(), key.clone()));
        Kafka::new("kafka+tls://h/t", &options).unwrap_err()
    };
    for (why, names) in [
        (wrong(Some(&missing), None), &missing),
        (wrong(Some(&empty), None), &empty),
        (wrong(None, Some((&missing, &key))), &missing),
        (wrong(None, Some((&certificate, &missing))), &missing),
        (wrong(None, Some((&certificate, &certificate))), &certificate),
        (wrong(None, Some((&certificate, &other))), &certificate),
    ] {
        assert!(why.contains(&names.display().to_string()), "{why}");
    }
    let none = KafkaOptions::default();
    let login = with_login(KafkaOptions::default(), PASSWORD);
    for (url, options, says) in [
        ("kafka://h/t", &trusting(&authority), "certificates are for TLS: kafka+tls://…"),
        ("kafka://h/t?sasl.mechanism=PLAIN", &none, "sasl.mechanism=PLAIN needs a user and a password"),
        (
            "kafka://h/t?sasl.mechanism=PLAIN",
            &login,
            "sasl.mechanism=PLAIN sends the password in plain text, which needs TLS: kafka+tls://…",
        ),
        (
            "kafka://h/t?sasl.mechanism=NTLM",
            &login,
            "sasl.mechanism=NTLM is not known: SCRAM-SHA-256, SCRAM-SHA-512, PLAIN",
        ),
        (
            "kafka://h/t",
            &with_login(KafkaOptions::default(), "a\0staple"),
            "the password is empty or contains a NUL byte",
        ),
    ] {
        assert_eq!(Kafka::new(url, options).unwrap_err(), says);
    }
}
