//! The engine with scripted destinations: the sent messages, their order, and the checkpoint.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jlog_core::{Jlog, LogId, Start, Timestamp, Wait};
use jlog_ship::{
    Answer, Destination, Error, Feed, Limits, OnReject, Refusal, Report, Shipment, Shipper, destinations,
    unwrap_set_aside,
};

use self::support::{Running, until};

mod support;

struct Source {
    dir: tempfile::TempDir,
    log: Jlog,
}

/// A feed with small segments, and a subscriber `s` at its beginning.
fn source(messages: usize) -> Source {
    let dir = tempfile::tempdir().unwrap();
    let log = Jlog::options().segment_size(2000).create(dir.path().join("feed")).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let source = Source { dir, log };
    source.write(0..messages);
    source
}

impl Source {
    fn write(&self, range: std::ops::Range<usize>) {
        let writer = self.log.writer().unwrap();
        for n in range {
            writer.append(text(n)).unwrap();
        }
        writer.close().unwrap();
    }

    fn shipper(&self) -> Shipper {
        let shipper = Shipper::new(self.log.path(), "s").unwrap().once(true);
        shipper.backoff(Duration::from_millis(1), Duration::from_millis(5))
    }

    fn lag(&self) -> u64 {
        self.log.lag("s").unwrap().messages
    }
}

fn text(n: usize) -> String {
    format!("message {n}")
}

fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(text).collect()
}

fn contents(log: &Jlog) -> Vec<Vec<u8>> {
    let mut reader = log.reader_from(&Start::Beginning, Default::default()).unwrap();
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        all.extend(batch.iter().map(|message| message.body().to_vec()));
    }
    all
}

type Judge = Box<dyn FnMut(&Shipment) -> Result<(), Refusal> + Send>;

/// Accepts the shipments that its judge accepts. Of a refused shipment, it accepts as many messages
/// as the refusal says.
struct Sink {
    limits: Limits,
    judge: Judge,
    got: Arc<Mutex<Vec<String>>>,
    opened: Arc<Mutex<usize>>,
    known: Option<LogId>,
}

fn sink(
    messages: usize,
    judge: impl FnMut(&Shipment) -> Result<(), Refusal> + Send + 'static,
) -> (Box<Sink>, Arc<Mutex<Vec<String>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let limits = Limits { messages, ..Limits::default() };
    let sink =
        Sink { limits, judge: Box::new(judge), got: Arc::clone(&got), opened: Arc::default(), known: None };
    (Box::new(sink), got)
}

impl Destination for Sink {
    fn name(&self) -> String {
        "sink".to_owned()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open<'a>(&'a mut self, _: &'a Feed) -> BoxFuture<'a, Result<Option<LogId>, Refusal>> {
        *self.opened.lock().unwrap() += 1;
        let known = self.known;
        async move { Ok(known) }.boxed()
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let answer = (self.judge)(&shipment);
        let accepted = answer.as_ref().map_or_else(|refusal| refusal.accepted, |()| shipment.len());
        let texts = shipment[..accepted].iter().map(|m| String::from_utf8_lossy(&m.body).into_owned());
        self.got.lock().unwrap().extend(texts);
        async move { answer }.boxed()
    }
}

#[test]
fn everything_arrives_once_and_the_checkpoint_is_behind_it() {
    let source = source(500);
    let (sink, got) = sink(7, |_| Ok(()));
    let totals = source.shipper().run(sink).unwrap();
    assert_eq!(*got.lock().unwrap(), texts(0..500));
    assert_eq!((totals.read, totals.acknowledged, totals.in_flight, source.lag()), (500, 500, 0, 0));
    assert!(totals.is_balanced(), "{totals}");
}

#[test]
fn temporary_refusals_are_tried_again_in_order() {
    let source = source(300);
    let mut n = 0;
    let (sink, got) = sink(10, move |shipment| {
        n += 1;
        match n % 4 {
            0 => Err(Refusal::temporary("busy").after(shipment.len() / 2)),
            1 => Err(Refusal::temporary("busy")),
            2 => Err(Refusal::misconfigured("who are you?")),
            _ => Ok(()),
        }
    });
    let reports = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&reports);
    let shipper = source.shipper().on_report(move |report| reported.lock().unwrap().push(report.to_string()));
    let totals = shipper.run(sink).unwrap();
    assert_eq!(*got.lock().unwrap(), texts(0..300));
    assert!(totals.is_balanced() && totals.acknowledged == 300 && !totals.failing, "{totals:?}");
    let reports = reports.lock().unwrap();
    assert_eq!(reports[0], "sink does not accept messages: busy; trying again");
    assert!(
        reports.iter().any(|text| text.contains("until something is fixed: who are you?")),
        "{reports:?}"
    );
    assert!(reports.iter().any(|text| text == "sink accepts messages again"), "{reports:?}");
}

/// Refuses these messages. With `exact`, the refusal says which message is refused.
fn picky(poison: Vec<String>, exact: bool) -> impl FnMut(&Shipment) -> Result<(), Refusal> + Send + 'static {
    move |shipment| {
        let bad = shipment.iter().position(|m| poison.iter().any(|p| p.as_bytes() == &m.body[..]));
        match bad {
            Some(at) if exact => Err(Refusal::message("poison").after(at)),
            Some(_) => Err(Refusal::shipment("something is poison")),
            None => Ok(()),
        }
    }
}

#[test]
fn poison_is_found_and_set_aside_and_can_be_sent_again() {
    for exact in [false, true] {
        let source = source(200);
        let poison = vec![text(0), text(57), text(58), text(199)];
        let aside = source.dir.path().join("aside");
        let (sink_, got) = sink(64, picky(poison.clone(), exact));
        let shipper = source.shipper().on_reject(OnReject::SetAside(aside.clone()));
        let totals = shipper.run(sink_).unwrap();
        let good: Vec<String> = texts(0..200).into_iter().filter(|text| !poison.contains(text)).collect();
        assert_eq!(*got.lock().unwrap(), good, "exact: {exact}");
        assert_eq!((totals.acknowledged, totals.set_aside, source.lag()), (196, 4, 0));
        assert!(totals.is_balanced(), "{totals}");

        let aside = Jlog::open(&aside).unwrap();
        let records = contents(&aside);
        let first = String::from_utf8(records[0].clone()).unwrap();
        assert!(first.contains("\"destination\":\"sink\"") && first.contains("poison"), "{first}");
        let feed = source.log.identity().unwrap();
        assert!(first.contains(&format!("\"id\":\"{feed}:00000000:00000001:")), "{first}");
        let message = unwrap_set_aside(&records[1].clone().into()).unwrap();
        assert_eq!((message.id.feed, &message.body[..]), (feed, text(57).as_bytes()));

        aside.subscribe("again", Start::Beginning).unwrap();
        let (sink_, got) = sink(64, |_| Ok(()));
        let again = Shipper::new(aside.path(), "again").unwrap().once(true).unwrap_set_aside(true);
        assert_eq!(again.run(sink_).unwrap().acknowledged, 4);
        assert_eq!(*got.lock().unwrap(), poison);
    }
}

#[test]
fn poison_is_skipped_or_blocks_as_it_is_told() {
    let source = source(50);
    let (sink_, got) = sink(16, picky(vec![text(20)], false));
    let totals = source.shipper().on_reject(OnReject::Skip).run(sink_).unwrap();
    assert_eq!((totals.acknowledged, totals.skipped), (49, 1));
    assert!(!got.lock().unwrap().contains(&text(20)));

    source.write(50..60);
    let shipper = source.shipper().drain(Duration::from_millis(50));
    let stopper = shipper.stopper();
    let (sink_, got) = sink(16, picky(vec![text(55)], false));
    let shipper = shipper.on_report(move |report| {
        if matches!(report, Report::Refused { misconfigured: true, .. }) {
            stopper.stop();
        }
    });
    let totals = shipper.run(sink_).unwrap();
    assert_eq!(*got.lock().unwrap(), texts(50..55));
    assert_eq!((totals.acknowledged, totals.in_flight, totals.failing), (5, 5, true));
    assert!(totals.is_balanced(), "{totals}");
    assert_eq!(source.lag(), 5, "the next run begins with the message that is refused");
}

#[test]
fn messages_that_are_too_long_are_not_sent() {
    let source = source(10);
    source.log.writer().unwrap().append("x".repeat(100)).unwrap();
    source.write(10..20);
    let (mut sink, got) = sink(100, |shipment| {
        assert!(shipment.iter().all(|m| m.body.len() <= 50));
        Ok(())
    });
    sink.limits.message_bytes = 50;
    let reports = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&reports);
    let shipper = source
        .shipper()
        .on_reject(OnReject::Skip)
        .on_report(move |r| reported.lock().unwrap().push(r.to_string()));
    let totals = shipper.run(sink).unwrap();
    assert_eq!(*got.lock().unwrap(), texts(0..20));
    assert_eq!((totals.acknowledged, totals.skipped), (20, 1));
    assert!(reports.lock().unwrap()[0].contains("it has 100 bytes, and sink takes at most 50"));
}

/// Answers a little later.
struct Later(Box<Sink>);

impl Destination for Later {
    fn name(&self) -> String {
        self.0.name()
    }

    fn limits(&self) -> Limits {
        Limits { messages: 1, message_bytes: 50, in_flight: 4, ..Limits::default() }
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let answer = self.0.send(shipment);
        async move {
            tokio::task::yield_now().await;
            answer.await
        }
        .boxed()
    }
}

/// Otherwise the message would be before what the destination has, and be forgotten.
#[test]
fn nothing_is_sent_behind_a_message_that_is_too_long_and_blocks() {
    let source = source(10);
    source.log.writer().unwrap().append("x".repeat(100)).unwrap();
    source.write(10..20);
    let (sink, got) = sink(1, |_| Ok(()));
    let shipper = source.shipper().drain(Duration::from_millis(20));
    let stopper = shipper.stopper();
    let totals = shipper.on_report(move |_| stopper.stop()).run(Box::new(Later(sink))).unwrap();
    assert_eq!(*got.lock().unwrap(), texts(0..10));
    assert_eq!((totals.acknowledged, totals.in_flight, source.lag()), (10, 1, 11));
}

#[test]
fn what_is_behind_a_refusal_comes_again_without_a_wait() {
    let source = source(40);
    let mut n = 0;
    let (sink, got) = sink(10, move |_| {
        n += 1;
        if n % 2 == 1 { Err(Refusal::behind()) } else { Ok(()) }
    });
    let shipper = source.shipper().backoff(Duration::from_secs(1000), Duration::from_secs(1000));
    let totals = shipper.on_report(|report| panic!("{report}")).run(sink).unwrap();
    assert_eq!((totals.acknowledged, totals.refusals), (40, 0));
    assert_eq!(*got.lock().unwrap(), texts(0..40));
}

#[test]
fn what_the_destination_has_already_is_not_sent() {
    let source = source(20);
    let (mut sink, got) = sink(100, |_| Ok(()));
    let ids: Vec<LogId> = {
        let mut reader = source.log.reader_from(&Start::Beginning, Default::default()).unwrap();
        let batch = reader.next_batch(Wait::No).unwrap().unwrap();
        batch.iter().map(|message| message.id()).collect()
    };
    sink.known = Some(ids[7]);
    let totals = source.shipper().run(sink).unwrap();
    assert_eq!(*got.lock().unwrap(), texts(8..20));
    assert_eq!((totals.acknowledged, totals.known, source.lag()), (20, 8, 0));
}

/// Answers on request.
struct Slow(Arc<Mutex<VecDeque<tokio::sync::oneshot::Sender<()>>>>);

impl Destination for Slow {
    fn name(&self) -> String {
        "slow".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits { messages: 10, in_flight: 4, ..Limits::default() }
    }

    fn send(&mut self, _: Shipment) -> Answer {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut waiting = self.0.lock().unwrap();
        waiting.push_back(sender);
        if waiting.len() == 4 {
            // The last one is answered first; the first one never.
            for sender in waiting.drain(1..).rev() {
                sender.send(()).unwrap();
            }
        }
        async move { receiver.await.map_err(Refusal::temporary) }.boxed()
    }
}

#[test]
fn the_checkpoint_waits_for_the_first_answer() {
    let source = source(1000);
    let shipper = source.shipper().window(40, 1 << 20).drain(Duration::from_millis(20));
    let (progress, stopper) = (shipper.progress(), shipper.stopper());
    let watch = std::thread::spawn(move || {
        while progress.totals().acknowledged < 30 {
            std::thread::yield_now();
        }
        stopper.stop();
        progress
    });
    let totals = shipper.run(Box::new(Slow(Arc::default()))).unwrap();
    watch.join().unwrap();
    assert_eq!((totals.read, totals.acknowledged, totals.in_flight), (40, 30, 10));
    assert_eq!(source.log.checkpoint("s").unwrap(), LogId::new(0, 0));
}

#[test]
fn a_destination_that_does_not_answer_is_tried_again() {
    let source = source(5);
    let mut first = true;
    let (mut sink, _) = sink(100, |_| Ok(()));
    sink.limits.in_flight = 1;
    struct Once(Box<Sink>, Box<dyn FnMut() -> bool + Send>);
    impl Destination for Once {
        fn name(&self) -> String {
            self.0.name()
        }
        fn send(&mut self, shipment: Shipment) -> Answer {
            if (self.1)() { std::future::pending().boxed() } else { self.0.send(shipment) }
        }
    }
    let silent = move || std::mem::replace(&mut first, false);
    let totals = source
        .shipper()
        .timeout(Duration::from_millis(30))
        .run(Box::new(Once(sink, Box::new(silent))))
        .unwrap();
    assert_eq!((totals.acknowledged, totals.refusals), (5, 1));
    assert_eq!(totals.last_error.unwrap().1, "no answer within 0.03 s");
}

#[test]
fn until_ends_before_the_first_message_of_that_time() {
    let source = source(0);
    let writer = source.log.writer().unwrap();
    for n in 0..10 {
        writer.append_at(Timestamp { seconds: 100 + n, micros: 0 }, n.to_string()).unwrap();
    }
    writer.close().unwrap();
    let (sink, got) = sink(3, |_| Ok(()));
    source.shipper().until(Some(Timestamp { seconds: 104, micros: 0 })).run(sink).unwrap();
    assert_eq!(*got.lock().unwrap(), ["0", "1", "2", "3"]);
    assert_eq!(source.lag(), 6);
}

#[test]
fn a_dry_run_changes_nothing() {
    let source = source(30);
    let mut seen = Vec::new();
    let shipper = source.shipper();
    shipper
        .dry_run(|message| {
            seen.push(String::from_utf8_lossy(&message.body).into_owned());
            seen.len() < 20
        })
        .unwrap();
    assert_eq!((seen, source.lag()), (texts(0..20), 30));
}

#[test]
fn damage_is_reported_and_the_rest_arrives() {
    let source = source(200);
    let path = source.log.path().join("00000001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70..80].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let (sink, got) = sink(10, |_| Ok(()));
    let losses = Arc::new(Mutex::new(0));
    let reported = Arc::clone(&losses);
    let totals = source
        .shipper()
        .on_report(move |r| *reported.lock().unwrap() += usize::from(r.is_loss()))
        .run(sink)
        .unwrap();
    let got = got.lock().unwrap();
    assert!(got.len() > 190 && got.len() < 200 && got.last() == Some(&text(199)), "{}", got.len());
    assert!(*losses.lock().unwrap() > 0);
    assert_eq!((totals.acknowledged, source.lag()), (got.len() as u64, 0));
}

#[test]
fn a_feed_that_is_made_again_is_another_one() {
    let source = source(10);
    let shipper = source.shipper().once(false);
    let (progress, stopper, path) = (shipper.progress(), shipper.stopper(), source.log.path().to_owned());
    let (sink, got) = sink(100, |_| Ok(()));
    let opened = Arc::clone(&sink.opened);
    let waiting = Arc::new(Mutex::new(false));
    let reported = Arc::clone(&waiting);
    let shipper = shipper.on_report(move |r| *reported.lock().unwrap() |= matches!(r, Report::Waiting(_)));
    let run = std::thread::spawn(move || shipper.run(sink));
    let until = |acknowledged| {
        while progress.totals().acknowledged < acknowledged {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until(10);
    std::fs::remove_dir_all(&path).unwrap();
    while !*waiting.lock().unwrap() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let log = Jlog::create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    log.writer().unwrap().append_batch(&["new 1", "new 2"]).unwrap();
    until(12);
    stopper.stop();
    assert!(run.join().unwrap().unwrap().is_balanced());
    let mut expected = texts(0..10);
    expected.extend(["new 1".to_owned(), "new 2".to_owned()]);
    assert_eq!((&*got.lock().unwrap(), *opened.lock().unwrap()), (&expected, 2));
    assert_eq!(log.lag("s").unwrap().messages, 0);
}

/// A shipper whose destination accepts nothing as long as `refusing` says why.
struct Outage {
    source: Source,
    got: Arc<Mutex<Vec<String>>>,
    refusing: Arc<Mutex<Option<Refusal>>>,
    running: Running,
}

impl Outage {
    /// Ships 10 messages; the destination refuses 5 more.
    fn begin(refusal: Refusal) -> Self {
        let source = source(10);
        let refusing = Arc::new(Mutex::new(None));
        let judge = Arc::clone(&refusing);
        let (sink, got) = sink(2, move |_| judge.lock().unwrap().clone().map_or(Ok(()), Err));
        let shipper = source.shipper().once(false).drain(Duration::from_millis(50));
        let running = Running::start(shipper, sink);
        running.until_acknowledged(10);
        *refusing.lock().unwrap() = Some(refusal);
        source.write(10..15);
        // Each try looks at only one shipment.
        until(|| running.progress.totals().refusals >= 2);
        Self { source, got, refusing, running }
    }

    /// Puts another feed at the path.
    fn replace(&self) {
        let path = self.source.log.path();
        std::fs::remove_dir_all(path).unwrap();
        let log = Jlog::create(path).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        log.writer().unwrap().append_batch(&["new 1", "new 2"]).unwrap();
    }

    /// The totals, what the destination got, the losses that were reported, and the last report.
    fn end(self) -> (jlog_ship::Totals, Vec<String>, Vec<String>, Option<String>) {
        let (reports, losses) = (Arc::clone(&self.running.reports), Arc::clone(&self.running.losses));
        let totals = self.running.end();
        let [reports, losses, got] =
            [reports, losses, self.got].map(|texts| std::mem::take(&mut *texts.lock().unwrap()));
        (totals, got, losses, reports.last().cloned())
    }
}

#[test]
fn messages_of_a_feed_that_is_replaced_in_an_outage_arrive_before_those_of_the_next_one() {
    let outage = Outage::begin(Refusal::temporary("down"));
    outage.replace();
    let refusals = || outage.running.progress.totals().refusals;
    let before = refusals();
    until(|| refusals() > before + 3);
    *outage.refusing.lock().unwrap() = None;
    // It is not certain how many of the 5 were read before, but they are in order.
    until(|| outage.got.lock().unwrap().last().is_some_and(|last| last == "new 2"));
    let (totals, got, losses, _) = outage.end();
    let old = got.len() - 2;
    assert!((11..=15).contains(&old), "{got:?}");
    assert_eq!((&got[..old], &got[old..]), (&texts(0..old)[..], &["new 1", "new 2"].map(str::to_owned)[..]));
    assert_eq!((totals.acknowledged, totals.skipped, totals.in_flight), (got.len() as u64, 0, 0));
    assert_eq!(losses, [""; 0]);
}

#[test]
fn a_message_that_blocks_does_not_block_the_feed_that_takes_the_place_of_its_own() {
    let outage = Outage::begin(Refusal::message("poison"));
    assert_eq!(outage.running.progress.totals().skipped, 0);
    outage.replace();
    outage.running.until_reported("was refused and skipped: poison; ");
    *outage.refusing.lock().unwrap() = None;
    until(|| outage.got.lock().unwrap().last().is_some_and(|last| last == "new 2"));
    let (totals, got, ..) = outage.end();
    assert_eq!(got[..10], texts(0..10));
    assert_eq!((totals.acknowledged, totals.in_flight), (got.len() as u64, 0));
    assert!(totals.skipped >= 1 && totals.read <= 17, "{totals}");
}

#[test]
fn what_can_never_be_read_again_is_not_in_flight_at_the_end() {
    type Removal = fn(&Outage);
    let removals: [(Removal, &str); 3] = [
        (Outage::replace, "replaced"),
        (|outage| std::fs::remove_dir_all(outage.source.log.path()).unwrap(), "feed"),
        (|outage| assert!(outage.source.log.unsubscribe("s").is_ok()), "\"s\""),
    ];
    for (remove, says) in removals {
        let outage = Outage::begin(Refusal::temporary("down"));
        let before = outage.running.progress.totals();
        assert!(before.in_flight >= 1 && before.in_flight <= 5, "{before}");
        remove(&outage);
        let (totals, got, losses, last) = outage.end();
        assert_eq!(got, texts(0..10));
        assert_eq!((totals.acknowledged, totals.in_flight), (10, 0), "{totals}");
        assert_eq!(totals.skipped, totals.read - 10);
        assert_eq!(last.as_ref(), losses.last());
        let last = last.unwrap();
        assert!(last.contains("cannot be read again") && last.contains(says), "{last}");
    }
    // An existing feed is read again.
    let (totals, _, losses, _) = Outage::begin(Refusal::temporary("down")).end();
    assert!(totals.in_flight >= 1 && totals.skipped == 0, "{totals}");
    assert_eq!(losses, [""; 0]);
}

#[test]
fn a_second_shipper_of_a_subscriber_is_refused() {
    let source = source(1);
    let _reader = source
        .log
        .reader_with("s", jlog_core::ReaderOptions::default().claim(jlog_core::Claim::Alone))
        .unwrap();
    let (sink, _) = sink(1, |_| Ok(()));
    let error = source.shipper().run(sink).unwrap_err();
    assert!(matches!(error, Error::Feed(jlog_core::Error::ReaderBusy { .. })), "{error}");
    assert!(Shipper::new(source.log.path(), "nobody").is_err());
}

#[test]
fn a_rate_is_kept() {
    let source = source(20);
    let (sink, _) = sink(100, |shipment| {
        assert!(shipment.len() <= 10);
        Ok(())
    });
    let before = std::time::Instant::now();
    source.shipper().rate(Some(100)).run(sink).unwrap();
    assert!(before.elapsed() >= Duration::from_millis(100), "{:?}", before.elapsed());
}

#[test]
fn another_feed_gets_the_messages_with_their_times() {
    let source = source(400);
    let to = source.dir.path().join("copy");
    // Retains what the shipper has passed, for comparison.
    source.log.subscribe("other", Start::Beginning).unwrap();
    let totals = source.shipper().run(Box::new(destinations::Feed::new(&to))).unwrap();
    let copy = Jlog::open(&to).unwrap();
    assert_eq!((totals.acknowledged, contents(&copy)), (400, contents(&source.log)));
    let time = |log: &Jlog| {
        let mut reader = log.reader_from(&Start::Beginning, Default::default()).unwrap();
        reader.next_batch(Wait::No).unwrap().unwrap().iter().next().unwrap().time()
    };
    assert_eq!(time(&copy), time(&source.log));
}

#[test]
fn what_a_filter_leaves_out_is_counted_and_passed() {
    let source = source(500);
    // For several windows, messages are left out at both ends, and more than a window in one piece.
    let passes = |n: usize| (100..450).contains(&n) && n.is_multiple_of(7);
    let (sink, got) = sink(3, |_| Ok(()));
    let mut refused = 0;
    let (mut sink, judged) = (sink, Arc::clone(&got));
    sink.judge = Box::new(move |_| {
        refused += 1;
        if refused % 5 == 0 && judged.lock().unwrap().len() < 40 {
            Err(Refusal::temporary("busy"))
        } else {
            Ok(())
        }
    });
    let number =
        |body: &[u8]| std::str::from_utf8(body).unwrap()["message ".len()..].parse::<usize>().unwrap();
    let shipper = source.shipper().window(10, 1 << 20).filter(move |message| passes(number(&message.body)));
    let mut shown = Vec::new();
    shipper
        .dry_run(|message| {
            shown.push(String::from_utf8(message.body.to_vec()).unwrap());
            true
        })
        .unwrap();
    let totals = shipper.run(sink).unwrap();
    let expected: Vec<String> = (0..500).filter(|&n| passes(n)).map(text).collect();
    assert_eq!((&*got.lock().unwrap(), &shown), (&expected, &expected));
    assert_eq!((totals.read, totals.acknowledged, totals.filtered), (500, 50, 450));
    assert!(totals.is_balanced(), "{totals}");
    assert_eq!(
        totals.to_string(),
        "500 read = 50 acknowledged + 0 set aside + 0 skipped + 450 filtered + 0 in flight"
    );
    assert_eq!(source.lag(), 0);
}

#[test]
fn a_filter_that_lets_nothing_pass_moves_the_checkpoint_to_the_end() {
    let source = source(50);
    let (sink, got) = sink(3, |_| Ok(()));
    let totals = source.shipper().filter(|_| false).run(sink).unwrap();
    assert_eq!((totals.filtered, totals.in_flight, source.lag()), (50, 0, 0));
    assert!(got.lock().unwrap().is_empty());
}

#[cfg(feature = "filter")]
#[test]
fn filters_are_about_keys_of_json_and_about_the_text_of_what_is_none() {
    use jlog_ship::{Filter, MessageId, Outgoing};
    let source = source(0);
    let feed = source.log.identity().unwrap();
    let passes = |filter: &str, body: &[u8]| {
        let time = Timestamp { seconds: 1_700_000_000, micros: 5 };
        let id = MessageId { feed, id: LogId::new(0, 1), time };
        Filter::parse(filter).unwrap().passes(&Outgoing { id, body: body.to_vec().into() })
    };
    let json = br#"{"severity":"crit","user":{"id":7},"msg":"no disk","facility":"web","line":12,"time":"2023-11-14T22:13:21Z"}"#;
    for (filter, expected) in [
        ("level = 'error'", true),
        ("and(user.id = 7, not(exists(user.name)))", true),
        ("message = 'no disk'", true),
        ("msg = 'no disk'", true),
        ("facility = 'web'", true),
        ("line > 11", true),
        ("timestamp = 1700000001000000", true),
        ("user.id > 7", false),
        ("exists(status)", false),
    ] {
        assert_eq!(passes(filter, json), expected, "{filter}");
    }
    for (filter, expected) in [
        ("message = 'no disk'", true),
        ("level = 'info'", true),
        ("timestamp = 1700000000000005", true),
        ("exists(msg)", false),
        ("msg != 'x'", true),
    ] {
        assert_eq!(passes(filter, b"no disk"), expected, "{filter}");
    }
    assert!(passes("message = '\u{fffd}'", b"\xff"));
    let error = Filter::parse("level >").unwrap_err().to_string();
    assert!(error.contains("column"), "{error}");
}
