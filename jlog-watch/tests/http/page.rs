//! The page at `/`, in a real browser: Chromium, driven by chromedriver (WebDriver, which is JSON
//! over HTTP).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jlog_watch::{Server, Token, Watch};
use serde_json::{Value, json};
use testkit::programs::skip;

use crate::support::{Place, append, ask, consume, serve, socket_address};

/// How long a browser may take to start, or to show something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser, ended when it is dropped.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` if there is none and none is required.
    fn start() -> Option<Self> {
        let spawned = Command::new("chromedriver")
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut driver) = spawned else {
            skip("CHROMIUM", "chromedriver is missing (Debian's packages chromium and chromium-driver)");
            return None;
        };
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = said
            .find_map(|line| line.rsplit_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        // The driver must not block on its further output.
        std::thread::spawn(move || said.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self { driver, port: port.unwrap(), session: String::new(), _profile: profile };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=400,900",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = browser.post("/session", &capabilities);
        browser.session =
            format!("/session/{}", made["sessionId"].as_str().unwrap_or_else(|| panic!("{made}")));
        Some(browser)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        // The driver keeps the connection open.
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no answer");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["value"].clone()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", path, &body.to_string())
    }

    fn open(&self, url: &str) {
        self.post(&format!("{}/url", self.session), &json!({ "url": url }));
    }

    /// The result of a script.
    fn run(&self, script: &str) -> Value {
        self.post(&format!("{}/execute/sync", self.session), &json!({ "script": script, "args": [] }))
    }

    fn until(&self, what: &str, script: &str) {
        let begun = Instant::now();
        while self.run(script) != true {
            assert!(begun.elapsed() < PATIENCE, "{what}: {}", self.run("return document.body.innerText"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The messages in the browser's console since the last call.
    fn console(&self) -> Vec<String> {
        let entries = self.post(&format!("{}/se/log", self.session), &json!({ "type": "browser" }));
        let entries = entries.as_array().unwrap();
        entries.iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.request("DELETE", &self.session, "");
        }
        // It may have ended with its session.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn url(server: &Server) -> String {
    format!("http://{}/", socket_address(server))
}

#[test]
fn the_page_shows_what_happens_and_survives_a_restart() {
    let Some(browser) = Browser::start() else { return };
    let place = Place::new();
    let log = place.feed("feed-of-the-page");
    append(&log, 40);
    let watch = Watch::new().feeds(place.path());
    #[cfg(feature = "graph")]
    let (watch, graph) = {
        let graph = logdag::Graph::new();
        graph.add_memory("ring", 100, 10_000).unwrap();
        (watch.graph("", graph.clone()), graph)
    };
    let server = serve(watch.clone());
    browser.open(&url(&server));
    browser.until("all is well", "return document.querySelector('#state').textContent === 'All is well.'");
    let row = |cell: &str| {
        format!(
            "return [...document.querySelectorAll('#feeds table tr')]\
             .some((row) => row.cells[0].textContent === 's' && row.cells[1].textContent === '{cell}')"
        )
    };
    browser.until("40 behind", &row("40"));
    consume(&log, 30);
    browser.until("10 behind", &row("10"));
    let title = browser.run("return document.querySelector('#feeds h3').textContent");
    assert_eq!(title, place.join("feed-of-the-page").display().to_string());

    // A line with markup is text, and shown at once.
    #[cfg(feature = "graph")]
    {
        let ring = graph.stream("ring").unwrap();
        logdag::log!(ring, "<img src=x onerror=alert(1)> & \u{1b}[31mred");
        browser.until(
            "a line of the ring",
            "return [...document.querySelectorAll('#tail li')].some((line) => line.textContent.includes('<img src=x'))",
        );
        assert_eq!(browser.run("return document.querySelectorAll('#tail img').length"), 0);
        browser.run("document.querySelector('#tail [name=pause]').click()");
        logdag::log!(ring, "while paused");
        browser.until(
            "a count of what was missed",
            "return document.querySelector('#tail .note').textContent.includes('1 line arrived while paused')",
        );
    }
    assert_eq!(browser.console(), Vec::<String>::new());
    // At a width of 400 pixels, the page itself does not scroll sideways.
    let fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.run(fits), true);
    let elsewhere = "return performance.getEntriesByType('resource').map((entry) => entry.name)\
                     .filter((name) => !name.startsWith(location.origin))";
    assert_eq!(browser.run(elsewhere), json!([]));

    let at = server.address().clone();
    server.stop();
    browser.until("no answer", "return document.querySelector('#state').className === 'bad'");
    let server = watch.serve(&at).unwrap();
    browser
        .until("all is well again", "return document.querySelector('#state').textContent === 'All is well.'");
    browser.until("10 behind again", &row("10"));
    drop(browser);
    server.stop();
}

#[test]
fn the_page_asks_for_a_token_and_shows_nothing_before() {
    let place = Place::new();
    place.feed("secret-feed");
    let token = "0123456789abcdef0123";
    let server = serve(Watch::new().feeds(place.path()).token(Token::new(token).unwrap()));
    for path in ["/", "/page.js", "/page.css", "/icon.svg"] {
        let answer = ask(&server, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.contains("secret"));
    }
    assert_eq!(ask(&server, "/api/v1/feeds").status, 401);
    let Some(browser) = Browser::start() else { return };
    browser.open(&url(&server));
    browser
        .until("a question", "return document.querySelector('#state').textContent === 'A token is needed.'");
    let shown = browser.run("return document.body.innerText");
    assert!(!shown.as_str().unwrap().contains("secret-feed"));
    browser.run(&format!(
        "document.querySelector('#token input').value = '{token}'; document.querySelector('#token button').click()"
    ));
    browser.until("the feed", "return document.body.innerText.includes('secret-feed')");
    assert_eq!(browser.run("return document.querySelector('#token').hidden"), true);
}

/// If the server allows changes, a stream has a switch; the graph shows where outlets lead and
/// which lead nowhere; a segment shows the result of the last verification.
#[test]
#[cfg(feature = "graph")]
fn the_page_draws_the_graph_and_switches_streams() {
    let Some(browser) = Browser::start() else { return };
    let place = Place::new();
    let log = place.feed("checked");
    append(&log, 10);
    let graph = logdag::Graph::new();
    graph.add_memory("ring", 100, 10_000).unwrap();
    let options = logdag::StreamOptions::default().stats(true);
    let web = graph.configure("web", options).unwrap();
    graph.add_outlet("web", "ring", Some("status >= 500")).unwrap();
    for status in [200, 200, 200, 503] {
        logdag::log!(web, status = status; "line");
    }
    graph.stream("lonely").unwrap();
    graph.add_outlet("lonely", "nothing", None).unwrap();
    let token = "0123456789abcdef0123";
    let watch = Watch::new().feeds(place.path()).graph("", graph.clone());
    let server = serve(watch.token(Token::new(token).unwrap()).control());
    browser.open(&url(&server));
    browser
        .until("a question", "return document.querySelector('#state').textContent === 'A token is needed.'");
    browser.run(&format!(
        "document.querySelector('#token input').value = '{token}'; document.querySelector('#token button').click()"
    ));
    // Discard what the browser logged about the refused requests before the token.
    browser.console();
    browser.until("the graph", "return document.querySelectorAll('#graph rect').length === 9");
    let texts = browser
        .run("return [...document.querySelectorAll('#graph text')].map((text) => text.firstChild.data)");
    let texts: Vec<&str> = texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for expected in ["web", "ring", "lonely", "nothing", "status >=… 25 %", "it leads to no sink"] {
        assert!(texts.contains(&expected), "{expected}: {texts:?}");
    }
    assert_eq!(browser.run("return document.querySelectorAll('#graph path.nowhere').length"), 2);
    // A stream is to the left of the streams that it leads to.
    let left = "const at = (name) => [...document.querySelectorAll('#graph text')]\
                .find((text) => text.firstChild.data === name).getBoundingClientRect().left;\
                return at('web') < at('ring') && at('lonely') < at('nothing')";
    assert_eq!(browser.run(left), true);

    let switch = "document.querySelector('#streams input[aria-label=\"web is enabled\"]')";
    assert_eq!(browser.run(&format!("return {switch}.checked")), true);
    browser.run(&format!("{switch}.click()"));
    browser.until(
        "it is off",
        &format!("return !{switch}.checked && document.body.innerText.includes('it is disabled')"),
    );
    assert!(!graph.describe("web").unwrap().enabled);
    browser.run(&format!("{switch}.click()"));
    browser.until("it is on", &format!("return {switch}.checked"));
    assert!(graph.describe("web").unwrap().enabled);
    assert_eq!(browser.run("return document.querySelector('#refusal').textContent"), "");

    let segments = |kind: &str, count: u32| {
        browser.until(kind, &format!("return document.querySelectorAll('.bar i.{kind}').length === {count}"));
    };
    segments("unchecked", 2);
    // Change a byte of the first segment; the last one is not complete.
    let segment = place.join("checked/00000000");
    let mut stored = std::fs::read(&segment).unwrap();
    stored[20] ^= 1;
    std::fs::write(&segment, stored).unwrap();
    browser.run(&format!(
        "fetch('/api/v1/feeds/checked/verify', {{ method: 'POST', headers: {{ Authorization: 'Bearer {token}' }} }})"
    ));
    segments("damaged", 1);
    segments("unchecked", 1);
    let fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.run(fits), true);
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(browser);
    server.stop();
}
