//! Messages to a real rsyslogd.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::{programs, until};

const PROGRAM: &str = "/usr/sbin/rsyslogd";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago, for both protocols.
fn port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn it_understands_what_is_sent_over_every_transport() {
    if !programs::is_there(Path::new(PROGRAM).exists(), PROGRAM, "RSYSLOGD", "rsyslog") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (dir, port) = (directory.path().display(), port());
    let of_server = format!(
        r#"
        global(workDirectory="{dir}")
        module(load="imuxsock" SysSock.Use="off")
        module(load="imudp")
        module(load="imtcp")
        input(type="imuxsock" Socket="{dir}/socket" CreatePath="off" UseSpecialParser="off" ParseHostname="on")
        input(type="imudp" address="127.0.0.1" port="{port}")
        input(type="imtcp" address="127.0.0.1" port="{port}")
        template(name="fields" type="string" string="%inputname% %syslogfacility-text%.%syslogpriority-text% %app-name% %msgid% %structured-data%%msg%\n")
        action(type="omfile" file="{dir}/received" template="fields")
        "#
    );
    fs::write(path("rsyslog.conf"), of_server).unwrap();
    let server = Command::new(PROGRAM)
        .args(["-n", "-i", "NONE", "-f"])
        .arg(path("rsyslog.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(path("said")).unwrap())
        .spawn()
        .unwrap();
    let server = Server(server);
    let bound = format!("0100007F:{port:04X}");
    until("rsyslogd listens", || {
        path("socket").exists()
            && TcpStream::connect(("127.0.0.1", port)).is_ok()
            && fs::read_to_string("/proc/net/udp").unwrap().contains(&bound)
    });

    let mut configuration = String::from("[config]\nidentifier = \"shop\"\nfacility = \"local0\"\n");
    for (name, to) in [
        ("unix", path("socket").display().to_string()),
        ("udp", format!("udp:127.0.0.1:{port}")),
        ("tcp", format!("tcp:127.0.0.1:{port}")),
    ] {
        configuration += &format!("[[log]]\nname = \"{name}\"\ntype = \"syslog\"\npath = \"{to}\"\n");
    }
    configuration += "[[log]]\nname = \"web\"\noutlet = [\"unix\", \"udp\", \"tcp\"]\n";
    fs::write(path("web.toml"), configuration).unwrap();
    let mut logdag = Command::new(env!("CARGO_BIN_EXE_logdag"))
        .args(["run", "web.toml", "--json-field", "--in", "web=stdin"])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let events = br#"{"event":"first","level":"error","path":"/a \"b] \\c"}
{"event":"two\nlines of caf\u00e9","level":"warning","n":5}
{"event":"last","level":"debug"}
"#;
    logdag.stdin.take().unwrap().write_all(events).unwrap();
    let output = logdag.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let received = || fs::read_to_string(path("received")).unwrap_or_default();
    until("every message is there", || received().lines().count() >= 9);
    drop(server);
    let expected = [
        r#"local0.err shop web [keys@32473 level="error" path="/a \"b\] \\c"]first"#,
        // rsyslogd escapes the line end.
        r#"local0.warning shop web [keys@32473 level="warning" n="5"]two#012lines of café"#,
        r#"local0.debug shop web [keys@32473 level="debug"]last"#,
    ];
    for transport in ["imuxsock", "imudp", "imtcp"] {
        let received = received();
        let of_it: Vec<&str> =
            received.lines().filter_map(|line| line.strip_prefix(transport)).map(str::trim).collect();
        assert_eq!(of_it, expected, "{transport}: {received}{}", fs::read_to_string(path("said")).unwrap());
    }
}
