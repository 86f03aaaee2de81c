//! Lines that go to syslog and the journal.

use std::io::{IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use logdag::{
    Details, Format, Graph, Level, Location, SinkSpec, Stream, StreamOptions, Value, config::Config, log,
};

use nix::fcntl::SealFlag;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::within;

const LONG: Duration = Duration::from_secs(20);
/// 2023-11-14T22:13:20.000042Z.
const TIME: Details<'static> = Details { micros: Some(1_700_000_000_000_042), ..Details::NONE };

fn options(kind: &str, path: &str) -> StreamOptions {
    let sink = SinkSpec::new(kind, path).config("identifier", "shop").config("timeout", "1");
    let drain_limit = Duration::from_millis(200);
    StreamOptions::new().sink(sink).drain_limit(drain_limit)
}

fn log_one(stream: &Stream, level: Level, keys: &[(&str, Value<'_>)], message: &str) {
    let location = Location { file: "a.rs", line: 7 };
    stream.log_with(&TIME, level, &location, keys, &message);
}

fn receiver(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn received(receive: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 17];
    let n = receive(&mut buffer).unwrap();
    buffer[..n].to_vec()
}

fn text(receive: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> String {
    String::from_utf8(received(receive)).unwrap()
}

/// A whole message with the default facility `user`.
fn message(priority: u8, stream: &str, rest: &str) -> String {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let (hostname, pid) = (hostname.trim(), std::process::id());
    format!("<{priority}>1 2023-11-14T22:13:20.000042Z {hostname} shop {pid} {stream} {rest}")
}

#[test]
fn syslog_messages_have_level_time_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = receiver(&path);
    let graph = Graph::new();
    let web = graph.configure("web/access", options("syslog", path.to_str().unwrap())).unwrap();
    let keys = [("status", Value::U64(503)), ("a=b]", Value::Str("say \"hi\" \\ ]\n"))];
    for (level, severity) in
        [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6), (Level::Debug, 7), (Level::Trace, 7)]
    {
        log_one(&web, level, &[], "one\ntwo");
        assert_eq!(text(|b| socket.recv(b)), message(8 + severity, "web/access", "- one\ntwo"));
    }
    log_one(&web, Level::Info, &keys, "x\n");
    let data = "[keys@32473 status=\"503\" a_b_=\"say \\\"hi\\\" \\\\ \\]\n\"] x";
    assert_eq!(text(|b| socket.recv(b)), message(14, "web/access", data));
    log_one(&web, Level::Info, &[], "");
    assert_eq!(text(|b| socket.recv(b)), message(14, "web/access", "-"));
    graph.set_format("web/access", Format::Event).unwrap();
    log_one(&web, Level::Warn, &keys[..1], "http.done");
    let event = concat!(
        r#"{"timestamp":"2023-11-14T22:13:20.000042Z","level":"warning","event":"http.done","#,
        r#""stream":"web/access","status":503}"#
    );
    assert_eq!(text(|b| socket.recv(b)), message(12, "web/access", &format!("- {event}")));
}

#[test]
fn a_configuration_says_the_same_in_xml_and_toml() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (socket, at) = (receiver(&path), path.display());
    let config = "<config><identifier>shop</identifier><facility>local0</facility></config>";
    let xml = format!("<app><logs><log name='a' type='syslog' path='unix:{at}'>{config}</log></logs></app>");
    let config = "[log.config]\nidentifier = \"shop\"\nfacility = \"local0\"\n";
    let toml = format!("[[log]]\nname = \"a\"\ntype = \"syslog\"\npath = \"unix:{at}\"\n{config}");
    for (name, content) in [("a.xml", xml), ("a.toml", toml)] {
        let file = dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        let config = Config::from_file(&file).unwrap();
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        let graph = Graph::new();
        config.check_types(&graph).unwrap();
        config.apply(&graph).unwrap();
        log_one(&graph.stream("a").unwrap(), Level::Error, &[], name);
        assert_eq!(text(|b| socket.recv(b)), message(16 * 8 + 3, "a", &format!("- {name}")));
    }
    let file = dir.path().join("wrong.toml");
    std::fs::write(&file, "[[log]]\nname = \"a\"\ntype = \"journald\"\npath = \"udp:a:1\"\n").unwrap();
    let config = Config::from_file(&file).unwrap();
    let error = config.check_types(&Graph::new()).unwrap_err().to_string();
    assert!(error.contains("expected an absolute path"), "{error}");
}

#[test]
fn entries_of_the_journal_have_keys_as_fields() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = receiver(&path);
    let graph = Graph::new();
    let web = graph.configure("web", options("journald", path.to_str().unwrap())).unwrap();
    let keys = [("status", Value::U64(503)), ("priority", Value::Str("0")), ("_PID", Value::Str("a\nb"))];
    log_one(&web, Level::Warn, &keys, "one\ntwo");
    let mut expected = b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\nPRIORITY=4\nSYSLOG_IDENTIFIER=shop\n".to_vec();
    expected.extend_from_slice(b"LOGDAG_STREAM=web\nLOGDAG_TIME=2023-11-14T22:13:20.000042Z\n");
    let thread = format!("CODE_FILE=a.rs\nCODE_LINE=7\nTID={}\n", nix::unistd::gettid());
    expected.extend_from_slice(thread.as_bytes());
    expected.extend_from_slice(b"STATUS=503\nKEY_PRIORITY=0\nKEY__PID\n\x03\0\0\0\0\0\0\0a\nb\n");
    let entry = received(|b| socket.recv(b));
    assert_eq!(String::from_utf8_lossy(&entry), String::from_utf8_lossy(&expected));
}

#[test]
fn udp_takes_a_message_a_datagram_and_refusals_are_survived() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let at = socket.local_addr().unwrap();
    let graph = Graph::new();
    let a = graph.configure("a", options("syslog", &format!("udp:{at}"))).unwrap();
    log_one(&a, Level::Info, &[], "one");
    assert_eq!(text(|b| socket.recv(b)), message(14, "a", "- one"));
    drop(socket);
    for _ in 0..3 {
        log_one(&a, Level::Info, &[], "to nobody");
    }
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    log_one(&a, Level::Info, &[], "two");
    assert_eq!(text(|b| socket.recv(b)), message(14, "a", "- two"));
}

/// The next message with its octet count.
fn counted(stream: &mut TcpStream) -> String {
    let mut digits = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        if byte[0] == b' ' {
            break;
        }
        digits.push(byte[0].into());
    }
    let mut message = vec![0; digits.parse().unwrap()];
    stream.read_exact(&mut message).unwrap();
    String::from_utf8(message).unwrap()
}

#[test]
fn tcp_counts_octets_and_connects_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let graph = Graph::new();
    let a = graph.configure("a", options("syslog", &format!("tcp:{at}"))).unwrap();
    graph.go_async();
    for round in 0..3 {
        for n in 0..100 {
            log_one(&a, Level::Info, &[], &format!("round {round}\nline {n} é"));
        }
        graph.flush().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(LONG)).unwrap();
        for n in 0..100 {
            let expected = message(14, "a", &format!("- round {round}\nline {n} é"));
            assert_eq!(counted(&mut peer), expected);
        }
        // The server's answers do not matter.
        peer.write_all(b"hello").unwrap();
    }
    assert_eq!(graph.describe("a").unwrap().counters.failed, 0);
}

#[test]
fn what_cannot_be_sent_is_counted_and_a_peer_that_comes_back_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    // There is no listener yet, which must not keep the program from starting.
    let a = graph.configure("a", options("syslog", path.to_str().unwrap())).unwrap();
    log_one(&a, Level::Info, &[], "lost 1");
    for round in 0..2u64 {
        let error = graph.flush().unwrap_err().to_string();
        assert!(error.contains("1 line lost") && error.contains(path.to_str().unwrap()), "{error}");
        let socket = receiver(&path);
        log_one(&a, Level::Info, &[], "there");
        assert_eq!(text(|b| socket.recv(b)), message(14, "a", "- there"));
        let report = text(|b| socket.recv(b));
        assert!(report.contains(" - log stream a: 1 line lost since 20"), "{report}");
        // The listener is restarted meanwhile: nothing is lost.
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        let socket = receiver(&path);
        log_one(&a, Level::Info, &[], "again");
        assert_eq!(text(|b| socket.recv(b)), message(14, "a", "- again"));
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        log_one(&a, Level::Info, &[], "lost");
        assert_eq!(graph.describe("a").unwrap().counters.failed, round + 2);
    }
}

#[test]
fn a_message_that_is_too_long_costs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = receiver(&path);
    let graph = Graph::new();
    let a = graph.configure("a", options("syslog", path.to_str().unwrap())).unwrap();
    graph.go_async();
    log_one(&a, Level::Info, &[], "before");
    log_one(&a, Level::Info, &[], &"x".repeat(4 << 20));
    log_one(&a, Level::Info, &[], "behind");
    let error = graph.flush().unwrap_err().to_string();
    assert!(error.contains("1 line lost") && error.contains("longer than its socket takes"), "{error}");
    let messages = [(); 2].map(|()| text(|b| socket.recv(b)));
    assert_eq!(messages, [message(14, "a", "- before"), message(14, "a", "- behind")]);
    assert_eq!(graph.describe("a").unwrap().counters.failed, 1);
}

/// The contents of a datagram, or of the sealed file that it carries instead.
fn entry(socket: &UnixDatagram) -> String {
    let mut content = vec![0; 1 << 18];
    let mut parts = [IoSliceMut::new(&mut content)];
    let mut control = nix::cmsg_space!(RawFd);
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC);
    let got = got.unwrap();
    let sent = got.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let n = got.bytes;
    let Some(sent) = sent else { return String::from_utf8_lossy(&content[..n]).into_owned() };
    let &[descriptor] = &*sent else { panic!("{sent:?}") };
    assert_eq!(n, 0);
    let mut file = std::fs::File::open(format!("/proc/self/fd/{descriptor}")).unwrap();
    nix::unistd::close(descriptor).unwrap();
    let seals = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GET_SEALS).unwrap();
    let sealed =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    assert_eq!(SealFlag::from_bits_retain(seals), sealed);
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    String::from_utf8_lossy(&content).into_owned()
}

#[test]
fn the_journal_gets_a_message_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = receiver(&path);
    let graph = Graph::new();
    let a = graph.configure("a", options("journald", path.to_str().unwrap())).unwrap();
    graph.go_async();
    // A datagram of a local socket cannot have 4 MiB.
    let long = "line\n".repeat((4 << 20) / 5);
    let messages = ["before", &long, "between", &long, "behind"];
    for message in messages {
        log_one(&a, Level::Warn, &[("n", Value::U64(1))], message);
    }
    graph.flush().unwrap();
    for message in messages {
        let text = match message.trim_end() {
            text if text.contains('\n') => {
                let length = String::from_utf8_lossy(&(text.len() as u64).to_le_bytes()).into_owned();
                format!("MESSAGE\n{length}{text}\n")
            }
            text => format!("MESSAGE={text}\n"),
        };
        let entry = entry(&socket);
        let rest = entry.strip_prefix(&text).expect("the message is whole");
        assert!(
            rest.starts_with("PRIORITY=4\nSYSLOG_IDENTIFIER=shop\n") && rest.ends_with("\nN=1\n"),
            "{rest}"
        );
    }
    assert_eq!(graph.describe("a").unwrap().counters.failed, 0);
}

#[test]
fn nothing_that_watches_or_ends_waits_for_a_peer_that_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let socket = receiver(&path);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp:{}", listener.local_addr().unwrap());
    for (kind, path) in
        [("syslog", path.to_str().unwrap()), ("journald", path.to_str().unwrap()), ("syslog", &tcp)]
    {
        let graph = Graph::new();
        let a = graph.configure("a", options(kind, path)).unwrap();
        graph.go_async();
        for n in 0..500 {
            log!(a, "{n} {:.>20000}", n);
        }
        let begun = Instant::now();
        let counters = within(LONG, move || {
            graph.flush().unwrap_err();
            drop(graph.drain_at_end());
            graph.describe("a").unwrap().counters
        });
        assert!(begun.elapsed() < Duration::from_secs(4), "{kind}: {:?}", begun.elapsed());
        assert!(counters.dropped + counters.failed > 0, "{kind}: {counters:?}");
    }
    drop((socket, listener));
}
