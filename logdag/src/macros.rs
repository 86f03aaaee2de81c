//! The macros to log with.

/// Logs to a [`Stream`](crate::Stream): a message as in `format!`, optionally preceded by keys, and
/// by a [`Level`](crate::Level) if it is not `Info`. The arguments are evaluated only if the line
/// would reach a sink.
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
        let level: $crate::Level = $level;
        if stream.accepts(level) {
            stream.log(
                level,
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

macro_rules! short_forms {
    ($dollar:tt $($(#[$doc:meta])* $name:ident $level:ident),+) => {$(
        $(#[$doc])*
        #[macro_export]
        macro_rules! $name {
            ($dollar stream:expr, $dollar($dollar key:ident = $dollar value:expr),+ ; $dollar($dollar message:tt)+) => {
                $crate::log!($dollar stream, $crate::Level::$level, $dollar($dollar key = $dollar value),+ ; $dollar($dollar message)+)
            };
            ($dollar stream:expr, $dollar($dollar message:tt)+) => {
                $crate::log!($dollar stream, $crate::Level::$level ; $dollar($dollar message)+)
            };
        }
    )+};
}

short_forms! { $
    /// Logs an error: [`log!`](crate::log!) with [`Level::Error`](crate::Level::Error).
    ///
    /// ```
    /// use logdag::{Graph, error};
    ///
    /// let graph = Graph::new();
    /// let ring = graph.add_memory("ring", 10, 1000)?;
    /// error!(ring, "out of {}", "cheese");
    /// error!(ring, status = 503, path = "/"; "no answer");
    /// assert_eq!(graph.memory_last("ring", 10).unwrap_or_default().len(), 2);
    /// # Ok::<(), logdag::GraphError>(())
    /// ```
    error Error,
    /// Logs a warning: [`log!`](crate::log!) with [`Level::Warn`](crate::Level::Warn).
    warn Warn,
    /// Logs normal operation: [`log!`](crate::log!) with [`Level::Info`](crate::Level::Info).
    info Info,
    /// Logs for debugging: [`log!`](crate::log!) with [`Level::Debug`](crate::Level::Debug).
    debug Debug,
    /// Logs every step: [`log!`](crate::log!) with [`Level::Trace`](crate::Level::Trace).
    trace Trace
}

/// Logs a last line to a [`Stream`](crate::Stream), without losing earlier lines, and ends the
/// process with SIGABRT: see [`Graph::abort`](crate::Graph::abort).
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

/// Logs a last line to a [`Stream`](crate::Stream), without losing earlier lines, and ends the
/// process with status 2: see [`Graph::terminate`](crate::Graph::terminate).
///
/// ```no_run
/// use logdag::{Graph, terminate};
///
/// let graph = Graph::new();
/// let error = graph.stream("error")?;
/// terminate!(graph, error, "port {} is taken", 80);
/// # #[allow(unreachable_code)]
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[macro_export]
macro_rules! terminate {
    ($graph:expr, $stream:expr, $($message:tt)+) => {
        $graph.terminate(&$stream, &$crate::Location { file: ::core::file!(), line: ::core::line!() }, ::core::format_args!($($message)+))
    };
}
