//! Messages equal the result of `format!` with the same format string and arguments.

use std::borrow::Cow;
use std::fmt;

use logdag::{Graph, log};
use proptest::prelude::*;

/// Logs a message, and compares it with the result of `format!`.
macro_rules! same {
    ($graph:ident, $stream:ident, $($message:tt)+) => {
        log!($stream, $($message)+);
        let line = $graph.memory_last("ring", 1).unwrap().remove(0);
        assert_eq!(String::from_utf8(line.bytes).unwrap(), format!($($message)+), "{}", stringify!($($message)+));
    };
}

fn ring() -> (Graph, logdag::Stream) {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 100_000).unwrap();
    (graph, stream)
}

/// A type that implements all of the formatting traits.
struct Own(i32);

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "own ")?;
        self.0.fmt(f)
    }
}

impl fmt::LowerHex for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

#[test]
fn every_kind_of_hole() {
    let (graph, stream) = ring();
    let (path, n, width, precision) = ("/a", 42u16, 9, 2);
    same!(graph, stream, "text alone, {{braces}}");
    same!(graph, stream, "");
    same!(graph, stream, "{}", "");
    same!(graph, stream, "{path} {n} {} {n:>5} {path:?} {0} {}", 1, 'é');
    same!(graph, stream, "{b}{a}{b:04}{c}", a = path, b = -7, c = n + 1,);
    same!(graph, stream, "{:width$} {:.precision$} {:.*} {:2$}", n, 1.23456, 3, 9.876_543_21, 5);
    same!(graph, stream, "{:<8}|{:^8}|{:>8}|{:*^8}|{:08}", n, n, n, n, n);
    same!(graph, stream, "{:+} {:+08} {:#x} {:#010x} {:b} {:o} {:e}", n, n, n, n, n, n, n);
    same!(graph, stream, "{:8} {:>8} {:<8} {:.1}", path, path, path, path);
    same!(graph, stream, "{:08.3} {} {:e}", 1.5, 0.1, 1500.0);
    same!(graph, stream, "{:?} {:#?} {:02x?}", Some(path), vec![n], [10, 11]);
    same!(graph, stream, "{} {:5} {}", true, false, 'x');
    same!(graph, stream, concat!("one {", "} two"), 1);
}

#[test]
fn every_kind_of_argument() {
    let (graph, stream) = ring();
    let text = String::from("text");
    let boxed: Box<str> = "boxed".into();
    let cows = [Cow::Borrowed("borrowed"), Cow::Owned("owned".to_owned())];
    let error: Box<dyn std::error::Error> = "wrong".into();
    let mut changed = 5;
    let by_reference = &mut changed;
    same!(graph, stream, "{} {} {} {} {}", text, &text, &&*text, boxed, error);
    same!(graph, stream, "{} {} {by_reference} {by_reference:03}", cows[0], cows[1]);
    same!(graph, stream, "{} {:x} {:08x} {:>9}", Own(-3), Own(255), Own(16), Own(1));
    same!(graph, stream, "{} {:040} {:x}", u128::MAX, i128::MIN, u128::MAX);
    same!(graph, stream, "{} {:05}", std::net::Ipv4Addr::LOCALHOST, std::num::NonZeroU8::MIN);
    same!(graph, stream, "{}", format_args!("{} {}", 1, 2));
    same!(graph, stream, "{}", {
        let n = 2;
        n * 21
    });
    same!(graph, stream, "{} {}", if text.is_empty() { 1 } else { 2 }, [7, 8].map(|x| x << 2)[1]);
    fn generic<T: fmt::Display + fmt::Debug + ?Sized>(value: &T) {
        let (graph, stream) = ring();
        same!(graph, stream, "{} {:>8} {:?} {value}", value, value, value);
    }
    generic(&7);
    generic("x");
}

#[test]
fn arguments_are_evaluated_once_and_in_order_and_only_where_somebody_listens() {
    let (graph, stream) = ring();
    let mut order = Vec::new();
    let mut next = |n: i32| {
        order.push(n);
        n
    };
    let (first, second) = (next(1), next(2));
    log!(stream, "{second} {first} {} {}", next(3), next(4));
    graph.set_enabled("ring", false).unwrap();
    log!(stream, "{}", next(5));
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(graph.memory_last("ring", 1).unwrap()[0].bytes, b"2 1 3 4");
}

#[test]
fn what_cannot_be_formatted_leaves_what_was_before_it() {
    struct Fails;
    impl fmt::Display for Fails {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half")?;
            Err(fmt::Error)
        }
    }
    let (graph, stream) = ring();
    log!(stream, "{} {} {}", 1, Fails, 2);
    assert_eq!(graph.memory_last("ring", 1).unwrap()[0].bytes, b"1 half");
}

#[test]
fn types_need_not_be_known_yet() {
    let (graph, stream) = ring();
    let address = "127.0.0.1:80".parse().unwrap();
    same!(graph, stream, "to {address}");
    let _: std::net::SocketAddr = address;
    let mut sum = 0;
    same!(graph, stream, "{sum} {sum:04} {sum:x}");
    sum += u128::MAX;
    same!(graph, stream, "{sum:050} {sum:x}");
    let half = [0.25, 0.25].iter().sum();
    same!(graph, stream, "{half} {half:06}");
    let _: f64 = half;
}

#[test]
fn names_of_the_caller_stay_the_callers() {
    const LOCATION: &str = "here";
    trait Put {
        fn put(&self) {}
        fn push(&self) {}
        fn number(&self) {}
    }
    impl<T: ?Sized> Put for T {}
    struct Argument;
    let (graph, stream) = ring();
    let (text, arguments, message) = (1, 2, 3);
    same!(graph, stream, "{LOCATION} {text:02} {arguments:x} {message} {0:03}", text);
    same!(graph, stream, "{foo:02} {type:02}", r#foo = 7, r#type = 8);
    log!(stream, city = LOCATION.len() as u64; "{:p} {:02}", &raw const text, arguments);
    let line = graph.memory_last("ring", 1).unwrap().remove(0);
    assert_eq!(String::from_utf8(line.bytes).unwrap(), format!("{:p} 02", &raw const text));
    Argument.put();
    Argument.push();
    Argument.number();
}

#[test]
fn numbers_at_the_ends_of_their_ranges() {
    let (graph, stream) = ring();
    for n in [0, 1, 9, 10, 99, 100, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        same!(
            graph,
            stream,
            "{n} {n:0} {n:01} {n:02} {n:3} {n:019} {n:020} {n:021} {n:x} {n:0x} {n:016X} {n:017x}"
        );
    }
    for n in [0, 1, -1, i64::MIN, i64::MIN + 1, i64::MAX] {
        same!(
            graph,
            stream,
            "{n} {n:0} {n:01} {n:02} {n:3} {n:019} {n:020} {n:021} {n:x} {n:0x} {n:016X} {n:017x}"
        );
    }
    for n in [i8::MIN, 0, i8::MAX] {
        same!(graph, stream, "{n} {n:0} {n:03} {n:4} {n:05} {n:x} {n:02x} {n:03x} {n:4X}");
    }
}

proptest! {
    /// Numbers of every type, including ones near the ends of their ranges.
    #[test]
    fn numbers(bits in any::<u64>(), shift in 0u32..64) {
        let (graph, stream) = ring();
        let n = bits >> shift;
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        {
            let (a, b, c, d) = (n as u8, n as i16, n as u32, n as i64);
            same!(graph, stream, "{a} {b} {c} {d} {n} {}", n as i8);
            same!(graph, stream, "{a:1} {b:4} {c:08} {d:020} {n:30} {:05}", n as i8);
            same!(graph, stream, "{a:x} {b:x} {c:08x} {d:020x} {n:30X} {:05X}", n as i8);
            same!(graph, stream, "{:>12} {:>012} {:0} {:01} {:019} {:020}", n as isize, n as usize, n.wrapping_neg() as i32, n, n, n);
        }
    }
}
