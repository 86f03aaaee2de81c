//! The macros to log with.

/// Logs to a [`Stream`](crate::Stream): a message as of `format!`, with keys before it if there are any, and a
/// [`Level`](crate::Level) before those if it is not `Info`. Nothing is evaluated where the line would get nowhere.
///
/// ```
/// use logdag::{Graph, Level, log};
///
/// let graph = Graph::new();
/// let access = graph.stream("http/access")?;
/// let path = "/index.html";
/// log!(access, "started");
/// log!(access, "GET {path}");
/// log!(access, status = 200, bytes = 5120u64, path = path; "GET {}", path);
/// log!(access, Level::Error; "no such file");
/// log!(access, Level::Warn, status = 404; "GET {path}");
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[macro_export]
macro_rules! log {
    ($stream:expr, $($key:ident = $value:expr),+ ; $($message:tt)+) => {
        $crate::log!(@ $stream, $crate::Level::Info, [$((::core::stringify!($key), $crate::Value::from($value))),+], $($message)+)
    };
    ($stream:expr, $level:expr, $($key:ident = $value:expr),+ ; $($message:tt)+) => {
        $crate::log!(@ $stream, $level, [$((::core::stringify!($key), $crate::Value::from($value))),+], $($message)+)
    };
    ($stream:expr, $level:expr ; $($message:tt)+) => {
        $crate::log!(@ $stream, $level, [], $($message)+)
    };
    (@ $stream:expr, $level:expr, [$($keys:tt)*], $($message:tt)+) => {{
        let stream: &$crate::Stream = &$stream;
        if stream.is_material() {
            stream.log(
                $level,
                &$crate::Location { file: ::core::file!(), line: ::core::line!() },
                &[$($keys)*],
                &$crate::message::message!($crate; $($message)+),
            );
        }
    }};
    ($stream:expr, $($message:tt)+) => {
        $crate::log!(@ $stream, $crate::Level::Info, [], $($message)+)
    };
}

/// Logs a last line to a [`Stream`](crate::Stream), with nothing lost of what was logged before, and ends the process with
/// SIGABRT: see [`Graph::abort`](crate::Graph::abort).
///
/// ```no_run
/// use logdag::{Graph, fatal};
///
/// let graph = Graph::new();
/// let error = graph.stream("error")?;
/// fatal!(graph, error, "no more memory for {} buffers", 12);
/// # #[allow(unreachable_code)]
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[macro_export]
macro_rules! fatal {
    ($graph:expr, $stream:expr, $($message:tt)+) => {
        $graph.abort(&$stream, &$crate::Location { file: ::core::file!(), line: ::core::line!() }, ::core::format_args!($($message)+))
    };
}
