//! Clients that hold connections and do nothing with them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use jlog_watch::{Limits, Watch};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{DEADLINE, Place, ask, connect, send, serve, socket_address};

#[test]
fn a_thousand_slow_connections_keep_nobody_waiting() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(8192), most).unwrap();
    let place = Place::new();
    place.feed("feed");
    let server = serve(Watch::new().feeds(place.path()));
    let slow: Vec<_> = (0..1000)
        .map(|_| {
            let mut stream = connect(&server);
            // Writing may fail if the connection was closed to make room for others.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc");
            stream
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(ask(&server, "/metrics").body.contains(&place.of("jlog_feed_up", "feed")));
    }
    // Long before the server gives up the slow clients.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(slow);
}

#[test]
fn headers_that_do_not_come_and_answers_that_nobody_takes_end_connections() {
    let place = Place::new();
    // An answer that fits into no socket's buffer.
    let limits = Limits::default()
        .header_time(Duration::from_millis(300))
        .stall_time(Duration::from_millis(300))
        .response_bytes(64 << 20);
    let server = serve(Watch::new().feeds(place.path()).limits(limits));
    let mut stream = connect(&server);
    stream.write_all(b"GET /metr").unwrap();
    let (begun, mut answer) = (Instant::now(), Vec::new());
    stream.read_to_end(&mut answer).unwrap();
    assert!(begun.elapsed() < DEADLINE && !answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");

    // A body that does not come, and one that is too long without saying so.
    let host = socket_address(&server);
    let late = send(
        connect(&server),
        &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n12"),
    );
    assert_eq!(
        (late.status, late.json()["error"].as_str()),
        (408, Some("the request's body does not arrive"))
    );
    let piece = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000)).repeat(2);
    let head = format!("POST /metrics HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let long = send(connect(&server), &(head + &piece));
    assert_eq!((long.status, long.json()["error"].as_str()), (413, Some("the request's body is too long")));

    // Pipelined requests whose answers nobody reads.
    let mut stream = connect(&server);
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").repeat(1000);
    let begun = Instant::now();
    // Both buffers fill, and then the server gives up: writing fails because the connection is
    // closed, and not because of a timeout.
    let ended = loop {
        match stream.write_all(request.as_bytes()) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => break e,
        }
        assert!(begun.elapsed() < DEADLINE, "the connection is still there");
    };
    assert!(
        matches!(ended.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset),
        "{ended}"
    );
    assert_eq!(ask(&server, "/health/live").status, 200);
}
