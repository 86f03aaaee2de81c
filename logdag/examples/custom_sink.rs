//! A custom type of sink: lines as UDP datagrams. Run it with
//! `cargo run -p logdag --example custom_sink`.

#![allow(clippy::print_stdout)]

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use logdag::config::Config;
use logdag::{Capabilities, Graph, Lines, Sink, WriteError, log};

/// Sends every line to an address.
#[derive(Debug)]
struct UdpSink {
    socket: UdpSocket,
}

impl Sink for UdpSink {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        for (written, (line, _micros)) in lines.iter().enumerate() {
            // Lines before the one that failed are not sent again.
            self.socket.send(line).map_err(|error| WriteError { written, error })?;
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false).may_be_asynchronous(true)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let graph = Graph::new();
    graph.register("udp", |spec| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(&spec.path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", spec.path)))?;
        Ok(Arc::new(UdpSink { socket }))
    })?;
    let address = receiver.local_addr()?;
    let text =
        format!(r#"<app><logs><log name="remote" type="udp" path="{address}" format="json"/></logs></app>"#);
    Config::from_text("app.xml", &text)?.apply(&graph)?;
    graph.go_async();
    log!(graph.stream("remote/http")?, status = 200; "GET {}", "/");
    graph.flush()?;
    let mut datagram = [0; 1024];
    let length = receiver.recv(&mut datagram)?;
    print!("{}", String::from_utf8_lossy(&datagram[..length]));
    Ok(())
}
