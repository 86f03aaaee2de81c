//! `jlog serve`, asked over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::support::{DEADLINE, Lines, Place, Running, jlog, run, until};

/// A server and its address.
fn serve(place: &Place, arguments: &[&str]) -> (Running, String, Lines) {
    let mut command = jlog(["serve"]);
    command.arg(place.path("")).args(["--http", "127.0.0.1:0"]).args(arguments);
    let (server, lines) = Running::with_lines(command);
    let line = lines.next().unwrap().trim_end().to_owned();
    let address = line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
    (server, address.to_owned(), lines)
}

fn ask_over(mut stream: impl Read + Write, host: &str, path: &str, headers: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn ask(address: &str, path: &str, headers: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    ask_over(stream, address, path, headers)
}

#[test]
fn feeds_are_shown_until_a_signal_ends_it() {
    let place = Place::with(&[], &["one", "two"]);
    let (mut server, address, _lines) = serve(&place, &["--max-messages", "2"]);
    let lag = |n: u32| {
        let sample = format!(
            "jlog_subscriber_lag_messages{{feed=\"{}\",subscriber=\"s\"}} {n}\n",
            place.feed.display()
        );
        ask(&address, "/metrics", "").1.contains(&sample)
    };
    assert!(lag(2));
    assert_eq!(ask(&address, "/health/ready", "").0, 200);
    place.append(&["three"]);
    until("three messages behind", || lag(3));
    let (status, body) = ask(&address, "/health/ready", "");
    assert!(status == 503 && body.contains("3 messages behind, more than 2"), "{body}");
    place.ok("read", &["s"]);
    until("none behind", || lag(0));
    // A writer and a reader of the feed do not disturb it, and it does not disturb them.
    assert_eq!(run(place.jlog("verify", [""; 0]), "").code, Some(0));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end(), Some(0));
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn sockets_and_tokens() {
    let place = Place::new(&[]);
    let socket = place.path("feeds.sock");
    let mut command = jlog(["serve"]);
    command.arg(&place.feed).arg("--http").arg(format!("unix:{}", socket.display()));
    let (mut server, lines) = Running::with_lines(command);
    assert_eq!(lines.next().unwrap().trim_end(), format!("listening on unix:{}", socket.display()));
    let (status, body) = ask_over(UnixStream::connect(&socket).unwrap(), "feeds", "/health/ready", "");
    assert_eq!((status, &*body), (200, "{\"status\":\"ok\",\"reasons\":[]}\n"));
    server.signal(Signal::SIGINT);
    assert_eq!(server.end(), Some(0));
    assert!(!socket.exists());

    let token = place.file("token", "0123456789abcdef0123\n");
    let token = token.to_str().unwrap();
    std::fs::set_permissions(token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (mut server, address, _lines) = serve(&place, &["--token-file", token, "--control"]);
    assert_eq!(ask(&address, "/metrics", "").0, 401);
    assert_eq!(ask(&address, "/metrics", "Authorization: Bearer 0123456789abcdef0123\r\n").0, 200);
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "DELETE /api/v1/feeds/feed/subscribers/s HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Authorization: Bearer 0123456789abcdef0123\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(place.subscribers().is_empty());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn what_cannot_be_served_is_an_error_at_once() {
    let place = Place::new(&[]);
    let complaint = run(place.jlog("serve", ["--http", "0.0.0.0:0"]), "").failed(1);
    assert!(complaint.contains("needs a token") && complaint.contains("--token-file"), "{complaint}");
    let complaint = run(place.jlog("serve", ["--http", "127.0.0.1:0", "--control"]), "").failed(1);
    assert!(complaint.contains("changes need a token") && complaint.contains("--token-file"), "{complaint}");
    assert!(complaint.contains("--tls-client-ca"), "{complaint}");
    let (missing, key) = (place.path("no-such.pem"), place.file("tls.key", ""));
    let tls = ["--tls-cert", missing.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let complaint = run(place.jlog("serve", tls), "").failed(1);
    assert!(complaint.contains("no-such.pem: No such file"), "{complaint}");
    let open = place.file("token", "0123456789abcdef0123");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let complaint = run(place.jlog("serve", ["--token-file", open.to_str().unwrap()]), "").failed(1);
    assert!(complaint.contains("everybody may read it"), "{complaint}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let complaint = run(place.jlog("serve", ["--http", &address]), "").failed(1);
    assert!(complaint.contains("cannot listen on") && complaint.contains(&address), "{complaint}");
}
