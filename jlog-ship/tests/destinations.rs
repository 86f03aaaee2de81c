//! Commands and HTTP servers as destinations.

#![allow(clippy::unwrap_used)]
#![cfg(any(feature = "exec", feature = "http"))]

use jlog_core::{Jlog, Start};

/// A feed with these messages and a subscriber `s`.
fn feed(messages: &[&[u8]]) -> (tempfile::TempDir, Jlog) {
    let dir = tempfile::tempdir().unwrap();
    let log = Jlog::create(dir.path().join("feed")).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    log.writer().unwrap().append_batch(messages).unwrap();
    (dir, log)
}

#[cfg(feature = "exec")]
mod exec {
    use std::time::Duration;

    use jlog_ship::destinations::{Exec, Framing};
    use jlog_ship::{OnReject, Shipper};

    use super::*;

    fn ship(log: &Jlog, exec: Exec) -> jlog_ship::Totals {
        let shipper = Shipper::new(log.path(), "s").unwrap().once(true).on_reject(OnReject::Skip);
        let shipper = shipper.backoff(Duration::from_millis(1), Duration::from_millis(2));
        shipper.run(Box::new(exec)).unwrap()
    }

    #[test]
    fn a_command_gets_messages_by_length() {
        let (dir, log) = feed(&[b"a", b"", b"b\nc\0"]);
        let out = dir.path().join("out");
        let command = format!("test $JLOG_MESSAGES = 3 && cat > {}", out.display());
        let totals = ship(&log, Exec::new(command));
        assert_eq!((totals.acknowledged, totals.refusals), (3, 0));
        assert_eq!(std::fs::read(out).unwrap(), b"\x01\0\0\0a\0\0\0\0\x04\0\0\0b\nc\0");
    }

    #[test]
    fn a_line_that_cannot_be_one_is_refused_and_the_others_arrive() {
        let (dir, log) = feed(&[b"a", b"b\nc", b"d"]);
        let out = dir.path().join("out");
        let totals = ship(&log, Exec::new(format!("cat >> {}", out.display())).framing(Framing::Lines));
        assert_eq!((totals.acknowledged, totals.skipped), (2, 1));
        assert_eq!(std::fs::read(out).unwrap(), b"a\nd\n");
    }

    #[test]
    fn the_status_says_what_kind_of_refusal_it_is() {
        let (dir, log) = feed(&[b"one", b"bad", b"two"]);
        let at = |name: &str| dir.path().join(name).display().to_string();
        // The first run fails, the second one is not found, and `bad` is refused for good.
        let command = format!(
            "if ! test -e {0}; then touch {0}; echo not now >&2; exit 1; fi
             if ! test -e {1}; then touch {1}; exit 127; fi
             read -r line; test \"$line\" = bad && exit 65; echo $line >> {2}",
            at("first"),
            at("second"),
            at("out"),
        );
        let totals = ship(&log, Exec::new(command).framing(Framing::Lines).messages(1));
        assert_eq!((totals.acknowledged, totals.skipped, totals.refusals), (2, 1, 3));
        assert_eq!(std::fs::read_to_string(at("out")).unwrap(), "one\ntwo\n");
        assert!(totals.is_balanced(), "{totals}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let (dir, log) = feed(&[b"one"]);
        let first = dir.path().join("first");
        let process = dir.path().join("process");
        // The shell waits for a child process, which must end with it.
        let command = format!(
            "test -e {0} || {{ touch {0}; sleep 1000 & echo $! > {1}; wait; echo over; }}",
            first.display(),
            process.display()
        );
        let shipper = Shipper::new(log.path(), "s").unwrap().once(true).timeout(Duration::from_millis(500));
        let totals = shipper.run(Box::new(Exec::new(command))).unwrap();
        assert!(totals.acknowledged == 1 && totals.refusals >= 1, "{totals:?}");
        // A killed process exists until its parent, whichever process that is by now, reaps it.
        let process = std::fs::read_to_string(process).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
        while state().contains(") S ") {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_command_may_leave_its_input_and_a_process_behind() {
        let large = vec![b'x'; 1 << 20];
        let (dir, log) = feed(&[&large, b"two"]);
        let process = dir.path().join("process");
        let command = format!("sleep 1000 >/dev/null & echo $! >> {}; exit 0", process.display());
        let totals = ship(&log, Exec::new(command).framing(Framing::One));
        assert_eq!((totals.acknowledged, totals.refusals), (2, 0));
        for process in std::fs::read_to_string(process).unwrap().lines() {
            let process = nix::unistd::Pid::from_raw(process.parse().unwrap());
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    #[test]
    fn messages_may_end_with_nul_bytes() {
        let (dir, log) = feed(&[b"a\n", b"b\0c", b""]);
        let out = dir.path().join("out");
        let totals = ship(&log, Exec::new(format!("cat >> {}", out.display())).framing(Framing::Null));
        assert_eq!((totals.acknowledged, totals.skipped), (2, 1));
        assert_eq!(std::fs::read(out).unwrap(), b"a\n\0\0");
    }

    #[test]
    fn runs_at_a_time_end_in_any_order() {
        let (dir, log) = feed(&[b"1", b"2", b"3"]);
        let at = dir.path().display().to_string();
        // Each run waits for the next one, so the last run ends first.
        let command = format!(
            "read -r n; next={at}/$((n + 1)); until [ $n = 3 ] || [ -e $next ]; do sleep 0.01; done; echo $n >> {at}/out; touch {at}/$n"
        );
        let totals = ship(&log, Exec::new(command).framing(Framing::Lines).messages(1).in_flight(3));
        assert_eq!((totals.acknowledged, totals.refusals), (3, 0));
        assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "3\n2\n1\n");
    }
}

#[cfg(feature = "http")]
mod http {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use jlog_core::Wait;
    use jlog_ship::destinations::{Http, HttpBody, HttpOptions, Loki, Otlp};
    use jlog_ship::{OnReject, Shipper, Totals};

    use super::*;

    #[derive(Clone, Debug)]
    struct Request {
        head: String,
        body: Vec<u8>,
    }

    impl Request {
        fn header(&self, name: &str) -> Option<&str> {
            let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        }
    }

    /// A server that gives prepared answers, and keeps the requests.
    fn server(
        mut answer: impl FnMut(&Request) -> &'static str + Send + 'static,
    ) -> (String, Arc<Mutex<Vec<Request>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/in?key=secret", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                loop {
                    let mut head = String::new();
                    while stream.read_line(&mut head).unwrap_or(0) > 2 {}
                    let Some(length) = head
                        .to_lowercase()
                        .split_once("content-length: ")
                        .and_then(|(_, rest)| rest.lines().next()?.parse().ok())
                    else {
                        break;
                    };
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).unwrap();
                    let request = Request { head, body };
                    let said = answer(&request);
                    kept.lock().unwrap().push(request);
                    stream.get_mut().write_all(said.as_bytes()).unwrap();
                }
            }
        });
        (url, requests)
    }

    fn contents(log: &Jlog) -> Vec<Vec<u8>> {
        let mut reader = log.reader_from(&Start::Beginning, Default::default()).unwrap();
        let batch = reader.next_batch(Wait::No).unwrap().unwrap();
        batch.iter().map(|message| message.body().to_vec()).collect()
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn ship(log: &Jlog, url: &str, options: &HttpOptions) -> Totals {
        let shipper = Shipper::new(log.path(), "s").unwrap().once(true).on_reject(OnReject::Skip);
        let shipper = shipper.backoff(Duration::from_millis(1), Duration::from_millis(2));
        shipper.run(Box::new(Http::new(url, options).unwrap())).unwrap()
    }

    #[test]
    fn ndjson_has_ids_times_and_all_bytes() {
        let (_dir, log) = feed(&[b"plain", b"\xff\0"]);
        let (url, requests) = server(|_| OK);
        let mut options = HttpOptions::default();
        options.token = Some("t0ken".to_owned());
        options.headers = vec![("X-Scope".to_owned(), "a".to_owned())];
        assert_eq!(ship(&log, &url, &options).acknowledged, 2);
        let requests = requests.lock().unwrap();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert!(request.head.starts_with("POST /in?key=secret HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        assert_eq!(
            (request.header("x-scope"), request.header("content-type")),
            (Some("a"), Some("application/x-ndjson"))
        );
        let text = String::from_utf8(request.body.clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["body"], &lines[1]["body_base64"]), (&"plain".into(), &"/wA=".into()));
        let id = |n: usize| lines[n]["id"].as_str().unwrap().to_owned();
        assert!(id(0).starts_with(&format!("{}:00000000:00000001:", log.identity().unwrap())), "{}", id(0));
        assert_eq!(request.header("idempotency-key"), Some(&*format!("{}/{}", id(0), id(1))));
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn other_bodies_are_as_documented() {
        for (body, kind, expected) in [
            (HttpBody::Raw, "application/octet-stream", "{\"a\":1}"),
            (HttpBody::Lines, "text/plain; charset=utf-8", "{\"a\":1}\n"),
        ] {
            let (_dir, log) = feed(&[b"{\"a\":1}"]);
            let (url, requests) = server(|_| OK);
            let mut options = HttpOptions::default();
            options.body = body;
            ship(&log, &url, &options);
            let request = requests.lock().unwrap()[0].clone();
            assert_eq!(
                (request.header("content-type"), &request.body[..]),
                (Some(kind), expected.as_bytes())
            );
        }
        let (_dir, log) = feed(&[b"{\"a\":1}", b"text"]);
        let (url, requests) = server(|_| OK);
        let mut options = HttpOptions::default();
        options.body = HttpBody::CloudEvents;
        ship(&log, &url, &options);
        let events: serde_json::Value = serde_json::from_slice(&requests.lock().unwrap()[0].body).unwrap();
        assert_eq!((&events[0]["data"]["a"], &events[1]["data"]), (&1.into(), &"text".into()));
        assert_eq!(events[0]["source"], format!("jlog:{}", log.identity().unwrap()));
        assert_eq!(
            (&events[0]["specversion"], &events[1]["datacontenttype"]),
            (&"1.0".into(), &"text/plain".into())
        );
    }

    #[test]
    fn what_a_server_refuses_is_tried_again_or_found() {
        let (dir, log) = feed(&[b"1", b"2", b"poison", b"3", b"4"]);
        let mut n = 0;
        let (url, requests) = server(move |request| {
            n += 1;
            match n {
                1 => "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
                2 => "HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n",
                3 => "HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
                _ if request.body.windows(6).any(|part| part == b"poison") => {
                    "HTTP/1.1 400 Bad\r\nContent-Length: 6\r\n\r\nschema"
                }
                _ => OK,
            }
        });
        let aside = dir.path().join("aside");
        let shipper =
            Shipper::new(log.path(), "s").unwrap().once(true).on_reject(OnReject::SetAside(aside.clone()));
        let shipper = shipper.backoff(Duration::from_millis(1), Duration::from_millis(2));
        let mut options = HttpOptions::default();
        options.body = HttpBody::Lines;
        let before = Instant::now();
        let totals = shipper.run(Box::new(Http::new(&url, &options).unwrap())).unwrap();
        assert!(before.elapsed() >= Duration::from_secs(1), "Retry-After was not heeded");
        assert_eq!((totals.acknowledged, totals.set_aside), (4, 1));
        assert!(totals.is_balanced(), "{totals}");
        let accepted: Vec<u8> = requests.lock().unwrap()[3..]
            .iter()
            .filter(|request| !request.body.windows(6).any(|part| part == b"poison"))
            .flat_map(|request| request.body.clone())
            .collect();
        assert_eq!(accepted, b"1\n2\n3\n4\n");
        let record = String::from_utf8(contents(&Jlog::open(&aside).unwrap()).remove(0)).unwrap();
        assert!(record.contains("400 Bad Request: schema") && record.ends_with("\npoison"), "{record}");
        assert!(!record.contains("secret"), "{record}");
    }

    #[test]
    fn a_server_that_is_not_there_is_waited_for() {
        let (_dir, log) = feed(&[b"1"]);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", free.local_addr().unwrap());
        drop(free);
        let shipper = Shipper::new(log.path(), "s").unwrap().drain(Duration::ZERO);
        let stopper = shipper.stopper();
        let shipper = shipper.on_report(move |_| stopper.stop());
        let totals = shipper.run(Box::new(Http::new(&url, &HttpOptions::default()).unwrap())).unwrap();
        assert_eq!((totals.acknowledged, totals.in_flight, log.lag("s").unwrap().messages), (0, 1, 1));
        assert!(totals.last_error.unwrap().1.contains("refused"));
    }

    /// The contents of a Loki: time in nanoseconds, text and id of each line, without repeated
    /// ones.
    type Stored = Arc<Mutex<Vec<(u64, String, String)>>>;

    /// Stores the lines of a push, except those with `poison`. Returns whether there were any.
    fn push(request: &Request, stored: &Stored) -> bool {
        assert!(request.head.starts_with("POST /loki/api/v1/push HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(request.header("content-type"), Some("application/json"));
        let push: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let [stream] = &push["streams"].as_array().unwrap()[..] else { panic!("{push}") };
        assert_eq!(stream["stream"], serde_json::json!({ "job": "orders", "env": "a b" }));
        let mut poison = false;
        for line in stream["values"].as_array().unwrap() {
            let [time, text, metadata] = &line.as_array().unwrap()[..] else { panic!("{line}") };
            let text = text.as_str().unwrap().to_owned();
            let line =
                (time.as_str().unwrap().parse().unwrap(), text, metadata["jlog_id"].as_str().unwrap().into());
            let mut stored = stored.lock().unwrap();
            if line.1.contains("poison") {
                poison = true;
            } else if !stored.iter().any(|(time, text, _)| (*time, text) == (line.0, &line.1)) {
                stored.push(line);
            }
        }
        poison
    }

    fn to_loki(log: &Jlog, url: &str) -> Totals {
        let url = url.replace("/in?key=secret", "?job=orders&env=a+b");
        let shipper = Shipper::new(log.path(), "s").unwrap().once(true).on_reject(OnReject::Skip);
        let shipper = shipper.backoff(Duration::from_millis(1), Duration::from_millis(2));
        shipper.run(Box::new(Loki::new(&url, &HttpOptions::default()).unwrap())).unwrap()
    }

    const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn loki_keeps_every_line_once_although_a_request_with_a_refused_one_is_half_stored() {
        let (_dir, log) = feed(&[b"1", b"poison", b"\xff", b"2", b"poison too", b"3"]);
        // Identical messages with the same time.
        let time = jlog_core::Timestamp { seconds: 4_000_000_000, micros: 7 };
        let writer = log.writer().unwrap();
        writer.append_at(time, "alike").unwrap();
        writer.append_at(time, "alike").unwrap();
        let stored = Stored::default();
        let (kept, mut n) = (Arc::clone(&stored), 0);
        let (url, _) = server(move |request| {
            n += 1;
            if n == 1 {
                return "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n";
            }
            let poison = push(request, &kept);
            if n == 2 {
                // The push is stored, but the answer is lost.
                return "HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n";
            }
            if poison {
                "HTTP/1.1 400 Bad\r\nContent-Length: 20\r\n\r\nentry too far behind"
            } else {
                NO_CONTENT
            }
        });
        let totals = to_loki(&log, &url);
        assert_eq!((totals.acknowledged, totals.skipped), (5, 3), "{totals:?}");
        assert!(totals.is_balanced(), "{totals}");
        let stored = stored.lock().unwrap();
        let texts: Vec<_> = stored.iter().map(|(_, text, _)| &**text).collect();
        assert_eq!(texts, ["1", "2", "3", "alike", "alike"]);
        let times: Vec<_> = stored.iter().skip(3).map(|(time, ..)| *time).collect();
        assert_eq!(times, [4_000_000_000_000_007_007, 4_000_000_000_000_007_008]);
        assert!(stored[4].2.contains(":00000000:00000008:"), "{stored:?}");
    }

    #[test]
    fn no_message_is_refused_for_what_is_wrong_with_the_stream() {
        for said in [
            "HTTP/1.1 400 Bad\r\nContent-Length: 42\r\n\r\nentry for stream has 16 label names; limit",
            "HTTP/1.1 400 Bad\r\nContent-Length: 51\r\n\r\nstructured metadata, but this feature is disallowed",
            "HTTP/1.1 401 Who\r\nContent-Length: 9\r\n\r\nno org id",
        ] {
            let (_dir, log) = feed(&[b"1", b"2"]);
            let mut n = 0;
            let (url, requests) = server(move |_| {
                n += 1;
                if n == 1 { said } else { NO_CONTENT }
            });
            let totals = to_loki(&log, &url);
            assert_eq!((totals.acknowledged, totals.skipped, totals.refusals), (2, 0, 1), "{said}");
            let requests = requests.lock().unwrap();
            assert_eq!(requests[0].body, requests[1].body);
        }
    }

    #[test]
    fn an_answer_that_does_not_end_is_not_read_to_its_end() {
        let (_dir, log) = feed(&[b"1"]);
        let (url, _) = server(|_| {
            let endless =
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned() + &"x".repeat(100_000);
            Box::leak(endless.into_boxed_str())
        });
        assert_eq!(ship(&log, &url, &HttpOptions::default()).acknowledged, 1);
    }

    fn to_otlp(log: &Jlog, url: &str, on_reject: OnReject) -> Totals {
        let url = url.replace("/in?key=secret", "?service.name=orders");
        let shipper = Shipper::new(log.path(), "s").unwrap().once(true).on_reject(on_reject);
        let shipper = shipper.backoff(Duration::from_millis(1), Duration::from_millis(2));
        shipper.run(Box::new(Otlp::new(&url, &HttpOptions::default()).unwrap())).unwrap()
    }

    /// The log records of a request.
    fn records(request: &Request) -> Vec<serde_json::Value> {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().clone()
    }

    const PARTIAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n\
                           {\"partialSuccess\":{\"rejectedLogRecords\":\"1\",\"errorMessage\":\"no\"}}";

    /// A receiver that accepts everything in a request except the first record with `poison`.
    fn receives(request: &Request) -> &'static str {
        if records(request).iter().any(|record| record["body"]["stringValue"] == "poison") {
            PARTIAL
        } else {
            OK
        }
    }

    #[test]
    fn otlp_has_texts_bytes_times_and_ids() {
        let (_dir, log) = feed(&[]);
        let time = jlog_core::Timestamp { seconds: 1_700_000_000, micros: 7 };
        log.writer().unwrap().append_at(time, "text").unwrap();
        log.writer().unwrap().append_at(time, b"\xff\0").unwrap();
        let (url, requests) = server(|_| OK);
        assert_eq!(to_otlp(&log, &url, OnReject::Block).acknowledged, 2);
        let requests = requests.lock().unwrap();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert!(request.head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let resource = &body["resourceLogs"][0]["resource"]["attributes"];
        let attribute =
            |key: &str, value: &str| serde_json::json!({ "key": key, "value": { "stringValue": value } });
        let identity = log.identity().unwrap().to_string();
        assert_eq!(
            *resource,
            serde_json::json!([attribute("service.name", "orders"), attribute("jlog.feed", &identity)])
        );
        let id = |n: u32| format!("{identity}:00000000:{n:08x}:{:x}", time.as_micros());
        let record = |body: serde_json::Value, n| {
            serde_json::json!({
                "timeUnixNano": "1700000000000007000",
                "observedTimeUnixNano": "1700000000000007000",
                "body": body,
                "attributes": [attribute("jlog.id", &id(n))],
            })
        };
        let text = record(serde_json::json!({ "stringValue": "text" }), 1);
        let bytes = record(serde_json::json!({ "bytesValue": "/wA=" }), 2);
        assert_eq!(records(request), [text, bytes]);
    }

    #[test]
    fn a_partial_success_is_set_aside_as_a_whole_and_never_sent_again() {
        let (dir, log) = feed(&[b"1", b"poison", b"2"]);
        let aside = dir.path().join("aside");
        let (url, requests) = server(receives);
        let totals = to_otlp(&log, &url, OnReject::SetAside(aside.clone()));
        assert_eq!((totals.acknowledged, totals.set_aside), (0, 3), "{totals:?}");
        assert!(totals.is_balanced(), "{totals}");
        assert_eq!(requests.lock().unwrap().len(), 1);
        let kept = contents(&Jlog::open(&aside).unwrap());
        for (record, message) in kept.iter().zip(["1", "poison", "2"]) {
            let record = String::from_utf8_lossy(record);
            assert!(record.contains("partial success, 1 refused: no"), "{record}");
            assert!(record.ends_with(&format!("\n{message}")), "{record}");
        }
        assert_eq!((kept.len(), log.lag("s").unwrap().messages), (3, 0));
    }

    #[test]
    fn where_refusals_block_a_partial_success_blocks_at_the_refused_message() {
        let (_dir, log) = feed(&[b"1", b"2", b"poison", b"3"]);
        let (url, requests) = server(receives);
        let url = url.replace("/in?key=secret", "?service.name=orders");
        let shipper = Shipper::new(log.path(), "s").unwrap().drain(Duration::ZERO);
        let shipper = shipper.backoff(Duration::from_millis(1), Duration::from_millis(2));
        let stopper = shipper.stopper();
        let shipper = shipper.on_report(move |_| stopper.stop());
        let totals = shipper.run(Box::new(Otlp::new(&url, &HttpOptions::default()).unwrap())).unwrap();
        assert_eq!((totals.acknowledged, totals.skipped), (2, 0), "{totals:?}");
        assert_eq!(log.lag("s").unwrap().messages, 2);
        let requests = requests.lock().unwrap();
        let last = records(requests.last().unwrap());
        assert_eq!((last.len(), &last[0]["body"]["stringValue"]), (1, &"poison".into()));
    }

    #[test]
    fn a_receiver_that_is_busy_gets_everything_later() {
        let (_dir, log) = feed(&[b"1", b"2"]);
        let mut n = 0;
        let (url, requests) = server(move |_| {
            n += 1;
            match n {
                1 => "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                2 => "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n",
                _ => OK,
            }
        });
        let totals = to_otlp(&log, &url, OnReject::Skip);
        assert_eq!((totals.acknowledged, totals.skipped, totals.refusals), (2, 0, 2));
        assert_eq!(requests.lock().unwrap().len(), 3);
    }

    fn mapping(entries: &[(&str, &str)]) -> HttpOptions {
        let mut options = HttpOptions::default();
        for (key, template) in entries {
            options.mapping.set(key, template).unwrap();
        }
        options
    }

    fn run(log: &Jlog, destination: impl jlog_ship::Destination + 'static) -> (Totals, Vec<String>) {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let reported = Arc::clone(&reports);
        let shipper = Shipper::new(log.path(), "s").unwrap().once(true);
        let shipper = shipper.on_report(move |report| reported.lock().unwrap().push(report.to_string()));
        let totals = shipper.run(Box::new(destination)).unwrap();
        assert!(totals.is_balanced(), "{totals}");
        let reports = reports.lock().unwrap().clone();
        (totals, reports)
    }

    #[test]
    fn labels_and_times_of_loki_are_taken_from_messages() {
        let bodies: [&[u8]; 4] = [
            br#"{"level":"warn","time":1700000000.5,"n":1}"#,
            br#"{"level":"info","n":2}"#,
            b"no JSON",
            br#"{"level":"warn","time":"never","job":"mine","n":4}"#,
        ];
        let (_dir, log) = feed(&bodies);
        let (url, requests) = server(|_| NO_CONTENT);
        let url = url.replace("/in?key=secret", "?job=orders&metadata=no");
        let options =
            mapping(&[("label.level", "{level|none}"), ("label.job", "{job}"), ("timestamp", "{time}")]);
        assert_eq!(run(&log, Loki::new(&url, &options).unwrap()).0.acknowledged, 4);
        let requests = requests.lock().unwrap();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        let pushed: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let mut lines: Vec<(String, String, String)> = Vec::new();
        for stream in pushed["streams"].as_array().unwrap() {
            let labels = stream["stream"].to_string();
            for line in stream["values"].as_array().unwrap() {
                let at = |n: usize| line[n].as_str().unwrap().to_owned();
                lines.push((at(1), labels.clone(), at(0)));
            }
        }
        let of = |body: &[u8]| {
            let found = lines.iter().find(|(text, ..)| text.as_bytes() == body).unwrap();
            (serde_json::from_str::<serde_json::Value>(&found.1).unwrap(), found.2.as_str())
        };
        assert_eq!(
            of(bodies[0]),
            (serde_json::json!({ "job": "orders", "level": "warn" }), "1700000000500000001")
        );
        assert_eq!(of(bodies[1]).0, serde_json::json!({ "job": "orders", "level": "info" }));
        assert_eq!(of(bodies[2]).0, serde_json::json!({ "job": "orders", "level": "none" }));
        assert_eq!(of(bodies[3]).0, serde_json::json!({ "job": "mine", "level": "warn" }));
        // Records without a time have the message's time.
        assert!(lines.len() == 4 && of(bodies[3]).1 > "1700000001", "{lines:?}");
    }

    #[test]
    fn a_label_has_a_hundred_values_and_the_rest_is_reported_once() {
        let bodies: Vec<String> = (0..150).map(|n| format!("{{\"user\":{n}}}")).collect();
        let bodies: Vec<&[u8]> = bodies.iter().map(String::as_bytes).collect();
        let (_dir, log) = feed(&bodies);
        let (url, requests) = server(|_| NO_CONTENT);
        let url = url.replace("/in?key=secret", "?job=orders");
        let (totals, reports) = run(&log, Loki::new(&url, &mapping(&[("label.user", "{user}")])).unwrap());
        assert_eq!(totals.acknowledged, 150);
        let pushed: serde_json::Value = serde_json::from_slice(&requests.lock().unwrap()[0].body).unwrap();
        let streams = pushed["streams"].as_array().unwrap();
        let other = streams.iter().find(|stream| stream["stream"]["user"] == "other").unwrap();
        assert_eq!((streams.len(), other["values"].as_array().unwrap().len()), (101, 50));
        let [report] = &reports[..] else { panic!("{reports:?}") };
        assert!(
            report.ends_with(
                "the label user has more than 100 values: from \"100\" on, further ones are \"other\""
            ),
            "{report}"
        );
    }

    #[test]
    fn too_many_labels_and_wrong_ones_are_refused_before_anything_is_sent() {
        let many: Vec<(String, String)> =
            (0..15).map(|n| (format!("label.l{n}"), "{a}".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(key, template)| (&**key, &**template)).collect();
        let loki = |options: &HttpOptions| Loki::new("http://localhost/?job=a", options);
        assert_eq!(loki(&mapping(&many)).unwrap_err(), "16 labels are too many: Loki takes 15");
        assert!(loki(&mapping(&many[1..])).is_ok());
        let error = loki(&mapping(&[("label.a-b", "x")])).unwrap_err();
        assert!(error.starts_with("\"a-b\" cannot be a label"), "{error}");
        let error = loki(&mapping(&[("subject", "x")])).unwrap_err();
        assert_eq!(error, "it cannot use subject, which is mapped; it can use label.NAME, timestamp");
        let otlp = |key| Otlp::new("http://localhost/?service.name=a", &mapping(&[(key, "x")])).unwrap_err();
        assert_eq!(
            otlp("attribute.jlog.id"),
            "the attribute jlog.id is the message's id, and cannot be mapped"
        );
        assert!(otlp("header.a").contains("it can use timestamp, severity, attribute.NAME"));
    }

    #[test]
    fn records_of_otlp_have_severities_attributes_and_times_of_messages() {
        let (_dir, log) = feed(&[
            br#"{"level":"warn","status":503,"took":0.5,"ok":false,"user":{"name":"a"},"ts":1700000000}"#,
            b"no JSON",
        ]);
        let (url, requests) = server(|_| OK);
        let url = url.replace("/in?key=secret", "?service.name=orders");
        let options = mapping(&[
            ("severity", "{level|info}"),
            ("timestamp", "{ts}"),
            ("attribute.http.status", "{status}"),
            ("attribute.took", "{took}"),
            ("attribute.ok", "{ok}"),
            ("attribute.who", "user {user.name}"),
        ]);
        assert_eq!(run(&log, Otlp::new(&url, &options).unwrap()).0.acknowledged, 2);
        let records = records(&requests.lock().unwrap()[0]);
        assert_eq!(records[0]["timeUnixNano"], "1700000000000000000");
        assert_ne!(records[0]["observedTimeUnixNano"], "1700000000000000000");
        assert_eq!(
            (&records[0]["severityText"], &records[0]["severityNumber"]),
            (&"warn".into(), &13.into())
        );
        let attributes = records[0]["attributes"].as_array().unwrap()[1..].to_vec();
        assert_eq!(
            serde_json::Value::from(attributes),
            serde_json::json!([
                { "key": "http.status", "value": { "intValue": "503" } },
                { "key": "ok", "value": { "boolValue": false } },
                { "key": "took", "value": { "doubleValue": 0.5 } },
                { "key": "who", "value": { "stringValue": "user a" } },
            ])
        );
        assert_eq!((&records[1]["severityText"], &records[1]["severityNumber"]), (&"info".into(), &9.into()));
        assert_eq!(records[1]["attributes"].as_array().unwrap().len(), 1);
        assert_eq!(records[1]["timeUnixNano"], records[1]["observedTimeUnixNano"]);
    }

    #[test]
    fn requests_and_envelopes_have_what_is_mapped() {
        let body: &[u8] = br#"{"who":"a\r\nHost: x","at":"2023-11-14T22:13:20Z","shop":7}"#;
        let send = |kind: HttpBody, entries: &[(&str, &str)]| {
            let (_dir, log) = feed(&[body]);
            let (url, requests) = server(|_| OK);
            let mut options = mapping(entries);
            options.body = kind;
            assert_eq!(run(&log, Http::new(&url, &options).unwrap()).0.acknowledged, 1);
            requests.lock().unwrap()[0].clone()
        };
        let raw = send(HttpBody::Raw, &[("header.X-Who", "{who}"), ("header.X-None", "{none}")]);
        assert_eq!((raw.header("x-who"), raw.header("x-none")), (Some("a  Host: x"), None));
        assert_eq!(raw.body, body);
        let line = send(HttpBody::Ndjson, &[("key", "shop-{shop}"), ("timestamp", "{at}")]);
        let line: serde_json::Value = serde_json::from_slice(&line.body).unwrap();
        assert_eq!((&line["key"], &line["time"]), (&"shop-7".into(), &"2023-11-14T22:13:20.000000Z".into()));
        let event = send(
            HttpBody::CloudEvents,
            &[("key", "{shop}"), ("subject", "shops.{shop}"), ("timestamp", "{at}")],
        );
        let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        let event = &event[0];
        assert_eq!((&event["partitionkey"], &event["subject"]), (&"7".into(), &"shops.7".into()));
        assert_eq!(event["time"], "2023-11-14T22:13:20.000000Z");
    }
}
