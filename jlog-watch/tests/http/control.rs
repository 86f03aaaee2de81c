//! Changes: who may make them, and their effects.

use jlog_core::{LogId, Start};
use jlog_watch::{Address, ServeError, Server, Token, Watch};
use serde_json::{Value, json};

use crate::api::check;
use crate::support::{Answer, Place, append, ask, connect, send, serve, socket_address, until};

const TOKEN: &str = "0123456789abcdef0123";

fn controlled(watch: Watch) -> Server {
    serve(watch.token(Token::new(TOKEN).unwrap()).control())
}

fn request(server: &Server, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let host = socket_address(server);
    let length = body.len();
    send(
        connect(server),
        &format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n{body}"
        ),
    )
}

/// Sends a request with the token, and checks the answer against the description.
fn change(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let authorized = format!("Authorization: Bearer {TOKEN}\r\n");
    let answer = request(server, method, path, &authorized, body);
    let description = request(server, "GET", "/openapi.json", &authorized, "").json();
    let same = |pattern: &str| {
        let (pattern, path): (Vec<&str>, Vec<&str>) =
            (pattern.split('/').collect(), path.split('/').collect());
        let same = |(pattern, part): (&&str, &&str)| pattern == part || pattern.starts_with('{');
        pattern.len() == path.len() && pattern.iter().zip(&path).all(same)
    };
    let found =
        description["paths"].as_object().unwrap().iter().find(|(pattern, _)| same(pattern)).unwrap().1;
    let response = &found[method.to_lowercase()]["responses"][answer.status.to_string()];
    check(&response["content"]["application/json"]["schema"], &answer.json(), &description, path);
    (answer.status, answer.json())
}

#[test]
fn nothing_changes_without_control_or_without_a_token() {
    let place = Place::new();
    let log = place.feed("a");
    let read_only = serve(Watch::new().feeds(place.path()).token(Token::new(TOKEN).unwrap()));
    let authorized = format!("Authorization: Bearer {TOKEN}\r\n");
    let path = "/feeds/a/subscribers/new";
    assert_eq!(request(&read_only, "PUT", path, &authorized, "").status, 404);
    assert_eq!(request(&read_only, "DELETE", "/feeds/a/subscribers/s", &authorized, "").status, 404);
    let server = controlled(Watch::new().feeds(place.path()));
    assert_eq!(request(&server, "PUT", path, "", "").status, 401);
    assert_eq!(request(&server, "PUT", path, "Authorization: Bearer wrong\r\n", "").status, 401);
    // A browser on another site's page that has the token, somehow.
    let foreign = format!("{authorized}Origin: http://evil.example\r\n");
    assert_eq!(request(&server, "PUT", path, &foreign, "").status, 403);
    assert_eq!(request(&server, "PUT", path, &authorized, &" ".repeat(100_000)).status, 413);
    assert_eq!(log.subscribers().unwrap().len(), 1);
    assert_eq!(request(&server, "PUT", path, &authorized, "").status, 201);
    assert_eq!(log.subscribers().unwrap().len(), 2);

    let refused = Watch::new().control().serve(&"127.0.0.1:0".parse().unwrap());
    assert!(matches!(refused, Err(ServeError::ControlNeedsToken { .. })), "{refused:?}");
    // A socket belongs to its owner.
    let path = place.join("control.sock");
    let server = Watch::new().feeds(place.path()).control().serve(&Address::Unix(path.clone())).unwrap();
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let asked = "DELETE /api/v1/feeds/a/subscribers/new HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(send(stream, asked).status, 200);
    assert_eq!(log.subscribers().unwrap().len(), 1);
    server.stop();
}

#[test]
fn subscribers_are_added_moved_and_removed() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 20);
    let server = controlled(Watch::new().feeds(place.path()));
    let put = |name: &str, body: &str| change(&server, "PUT", &format!("/feeds/a/subscribers/{name}"), body);
    let (status, answer) = put("new", "{\"at\":\"end\"}");
    let end = log.end().unwrap();
    assert_eq!((status, answer), (201, json!({ "subscriber": "new", "checkpoint": end.to_string() })));
    assert_eq!(log.checkpoint("new").unwrap(), end);
    assert_eq!(put("new", "").0, 409);
    assert_eq!(put("new", "{\"at\":\"00000000:00000003\",\"move\":true}").0, 200);
    assert_eq!(log.checkpoint("new").unwrap(), LogId::new(0, 3));
    assert_eq!(put("late", "{\"at\":\"2090-01-01T00:00:00Z\"}").0, 201);
    assert_eq!(log.lag("late").unwrap().messages, 0);
    // The name that is shown is accepted.
    assert_eq!(put("odd%5Cxff", "").0, 201);
    assert!(log.has_subscriber(b"odd\xff").unwrap());
    for wrong in
        ["{\"at\":\"soon\"}", "{\"at\":7}", "{\"when\":\"end\"}", "[]", "{", "{\"at\":\"ffffffff:1\"}"]
    {
        let (status, answer) = put("other", wrong);
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
    assert!(!log.has_subscriber("other").unwrap());
    let delete = |name: &str| change(&server, "DELETE", &format!("/feeds/a/subscribers/{name}"), "").0;
    assert_eq!((delete("new"), delete("new")), (200, 404));
    assert_eq!(change(&server, "PUT", "/feeds/none/subscribers/x", "").0, 404);
    // The other subscriber is where it was.
    assert_eq!(log.checkpoint("s").unwrap(), log.resolve(&Start::Beginning).unwrap());
}

#[cfg(feature = "graph")]
#[test]
fn streams_are_switched_connected_and_logged_to() {
    use logdag::Graph;

    let place = Place::new();
    let graph = Graph::new();
    let config = format!(
        "<app><logs><log name=\"ring\" type=\"memory\"/><log name=\"other\" type=\"memory\"/>\
         <log name=\"file\" type=\"file\" path=\"{}\"/><log name=\"web/x\"><outlet name=\"ring\"/></log></logs></app>",
        place.join("file.log").display()
    );
    logdag::config::Config::from_text("test.xml", &config).unwrap().apply(&graph).unwrap();
    let server = controlled(Watch::new().graph("", graph.clone()));
    let ok = |method: &str, path: &str, body: &str| {
        let (status, answer) = change(&server, method, &format!("/streams/{path}"), body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
    };
    let lines = |name: &str| -> Vec<String> {
        let lines = graph.memory_last(name, 100).unwrap().into_iter();
        lines.map(|line| String::from_utf8(line.bytes).unwrap()).collect()
    };
    ok("POST", "web%2Fx/log", "{\"text\":\"one {} %s\"}");
    ok("PUT", "web%2Fx/outlets/other", "{\"filter\":\"level >= 'warn'\"}");
    ok("PUT", "web%2Fx/outlets/other", "{\"filter\":\"level >= 'warn'\"}");
    ok("POST", "web%2Fx/log", "{\"text\":\"two\",\"level\":\"warn\"}");
    ok("POST", "web%2Fx/log", "{\"text\":\"three\"}");
    assert_eq!(
        (lines("ring"), lines("other")),
        (vec!["one {} %s".into(), "two".into(), "three".into()], vec!["two".into()])
    );
    ok("PATCH", "ring", "{\"facility\":true,\"level\":true}");
    ok("POST", "web%2Fx/log", "{\"text\":\"four\"}");
    let four = lines("ring").pop().unwrap();
    assert!(four.contains("web/x") && four.contains("info"), "{four}");
    ok("PATCH", "ring", "{\"enabled\":false}");
    ok("POST", "web%2Fx/log", "{\"text\":\"five\"}");
    assert_eq!(lines("ring").len(), 4);
    ok("DELETE", "web%2Fx/outlets/other", "");
    assert!(!graph.stream("web/x").unwrap().is_enabled());
    ok("PUT", "web%2Fx/outlets/file", "");
    ok("POST", "web%2Fx/log", "{\"text\":\"six\"}");
    ok("POST", "file/rotate", "");
    ok("POST", "file/reopen", "");
    let files = std::fs::read_dir(place.path()).unwrap().flatten();
    let rotated = files.filter(|file| file.file_name().to_string_lossy().starts_with("file.log.")).count();
    assert_eq!(rotated, 1);

    let status =
        |method: &str, path: &str, body: &str| change(&server, method, &format!("/streams/{path}"), body).0;
    assert_eq!(status("PATCH", "none", "{\"enabled\":true}"), 404);
    assert_eq!(status("PATCH", "ring", ""), 400);
    assert_eq!(status("PATCH", "ring", "{\"enabled\":\"yes\"}"), 400);
    assert_eq!(status("PATCH", "ring", "{\"enable\":true}"), 400);
    assert_eq!(status("POST", "ring/log", "{\"level\":\"info\"}"), 400);
    assert_eq!(status("POST", "ring/log", "{\"text\":\"x\",\"level\":\"loud\"}"), 400);
    assert_eq!(status("PUT", "ring/outlets/none", ""), 404);
    // The outlet would close a cycle.
    assert_eq!(status("PUT", "ring/outlets/web%2Fx", ""), 400);
    assert_eq!(status("PUT", "web%2Fx/outlets/ring", "{\"filter\":\"level = 'info'\"}"), 409);
    assert_eq!(status("PUT", "file/outlets/ring", "{\"filter\":\"(((\"}"), 400);
    assert_eq!(status("PUT", "web%2Fx/outlets/web%2Fx", ""), 400);
    assert_eq!(status("DELETE", "web%2Fx/outlets/other", ""), 404);
    // This stream has no sink.
    assert_eq!(status("POST", "web%2Fx/rotate", ""), 400);
    // This stream has no file.
    assert_eq!(status("POST", "ring/rotate", ""), 400);
    assert!(graph.find("none").is_none());
    assert_eq!(ask(&server, "/api/v1/streams").status, 401);
}

#[test]
fn feeds_are_verified_in_the_background() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 10);
    place.feed("b");
    let server = controlled(Watch::new().feeds(place.path()));
    let verified = |feed: &str| {
        let begun = change(&server, "POST", &format!("/feeds/{feed}/verify"), "");
        assert_eq!(begun.0, 202, "{}", begun.1);
        let mut found = begun.1;
        until("the verification is done", || {
            found = change(&server, "GET", &format!("/feeds/{feed}/verify"), "").1;
            found["state"] != "running"
        });
        found
    };
    assert_eq!(change(&server, "GET", "/feeds/a/verify", ""), (200, json!({ "state": "never" })));
    let found = verified("a");
    assert_eq!(
        (&found["state"], &found["damaged"], &found["messages"]),
        (&json!("done"), &json!(false), &json!(10))
    );
    assert_eq!((&found["checked_messages"], &found["findings"]), (&json!(10), &json!([])));
    // Change a byte of a message.
    let segment = place.join("a/00000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let found = verified("a");
    assert_eq!((&found["damaged"], &found["findings"][0]["damage"]), (&json!(true), &json!(true)));
    assert!(found["findings"][0]["text"].as_str().unwrap().contains("a/00000000"), "{found}");
    std::fs::remove_dir_all(place.join("b")).unwrap();
    let found = verified("b");
    assert_eq!(found["state"], "failed", "{found}");
    assert_eq!(change(&server, "POST", "/feeds/none/verify", "").0, 404);
    // Verification counts as a change, because it occupies a core for a while.
    let read_only = serve(Watch::new().feeds(place.path()));
    assert_eq!(request(&read_only, "POST", "/feeds/a/verify", "", "").status, 405);
    assert_eq!(request(&read_only, "GET", "/feeds/a/verify", "", "").json(), json!({ "state": "never" }));
}

#[test]
fn a_configuration_is_read_again_where_there_is_one() {
    let server = controlled(Watch::new());
    assert_eq!(change(&server, "POST", "/reload", "").0, 404);
    let outcomes = std::sync::Mutex::new(vec![Err("line 3: no such type".to_owned()), Ok(())]);
    let server = controlled(Watch::new().on_reload(move || outcomes.lock().unwrap().pop().unwrap()));
    assert_eq!(change(&server, "POST", "/reload", ""), (200, json!({ "reloaded": true })));
    assert_eq!(change(&server, "POST", "/reload", ""), (400, json!({ "error": "line 3: no such type" })));
    assert_eq!(request(&server, "POST", "/reload", "", "").status, 401);
}

#[test]
fn who_asks_for_a_reload_does_not_wait_for_its_end() {
    let (end, waiting) = std::sync::mpsc::channel::<()>();
    let (ended, waiting) =
        (std::sync::Arc::new(std::sync::Mutex::new(false)), std::sync::Mutex::new(waiting));
    let has_ended = std::sync::Arc::clone(&ended);
    let server = controlled(Watch::new().on_reload(move || {
        let _ = waiting.lock().unwrap().recv();
        *has_ended.lock().unwrap() = true;
        Ok(())
    }));
    let under_way = json!({ "reloaded": false, "pending": [] });
    assert_eq!(change(&server, "POST", "/reload", ""), (202, under_way));
    assert!(!*ended.lock().unwrap());
    // The sink continues.
    end.send(()).unwrap();
    until("the reload has ended", || *ended.lock().unwrap());
    drop(end);
    assert_eq!(change(&server, "POST", "/reload", ""), (200, json!({ "reloaded": true })));
}
