//! Servers' addresses, and how they end.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use jlog_watch::{Address, ServeError, Token, Watch};

use crate::support::{DEADLINE, Place, ask, connect, send, serve, socket_address};

#[test]
fn a_server_answers_until_it_is_stopped() {
    let place = Place::new();
    let server = serve(Watch::new().feeds(place.path()));
    let live = ask(&server, "/health/live").json();
    assert_eq!(live["status"], "ok");
    let address = socket_address(&server);
    assert_eq!(server.address().to_string(), format!("http://{address}"));
    let waiting = connect(&server);
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < DEADLINE);
    drop(waiting);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_unix_socket_is_its_owners_and_goes_with_the_server() {
    let place = Place::new();
    let path = place.join("watch.sock");
    let address = Address::Unix(path.clone());
    for _ in 0..2 {
        let server = Watch::new().feeds(place.path()).serve(&address).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A second one does not take it away.
        let taken = Watch::new().serve(&address).unwrap_err().to_string();
        assert!(taken.contains("watch.sock"), "{taken}");
        let stream = UnixStream::connect(&path).unwrap();
        let asked = "GET /metrics HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
        assert_eq!(send(stream, asked).status, 200);
        server.stop();
        assert!(!path.exists());
        // The leftover socket of a killed server is replaced; another file is not.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert!(Watch::new().serve(&address).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn other_machines_need_a_token_and_addresses_may_be_taken() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = Watch::new().serve(&address.parse().unwrap());
        assert!(matches!(refused, Err(ServeError::NoToken { .. })), "{refused:?}");
    }
    let token = Token::new("a token of tests".replace(' ', "-")).unwrap();
    let server = Watch::new().token(token).serve(&"0.0.0.0:0".parse().unwrap()).unwrap();
    let port = socket_address(&server).port();
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let asked = "GET /metrics HTTP/1.1\r\nHost: feeds.example\r\nConnection: close\r\n";
    assert_eq!(send(stream.try_clone().unwrap(), &format!("{asked}\r\n")).status, 401);
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let with = format!("{asked}Authorization: Bearer a-token-of-tests\r\n\r\n");
    assert_eq!(send(stream, &with).status, 200);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(taken.local_addr().unwrap());
    let refused = Watch::new().serve(&address).unwrap_err().to_string();
    assert!(refused.contains(&taken.local_addr().unwrap().to_string()), "{refused}");
}

#[test]
fn a_server_says_whether_its_thread_is_at_work() {
    let server = Watch::new().serve(&"127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(server.answers(std::time::Duration::from_secs(20)));
}
