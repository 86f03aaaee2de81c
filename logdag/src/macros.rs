//! The macro to log with.

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
        $crate::log!(@ $stream, $crate::Level::Info, [$((stringify!($key), $crate::Value::from($value))),+], $($message)+)
    };
    ($stream:expr, $level:expr, $($key:ident = $value:expr),+ ; $($message:tt)+) => {
        $crate::log!(@ $stream, $level, [$((stringify!($key), $crate::Value::from($value))),+], $($message)+)
    };
    ($stream:expr, $level:expr ; $($message:tt)+) => {
        $crate::log!(@ $stream, $level, [], $($message)+)
    };
    (@ $stream:expr, $level:expr, [$($keys:tt)*], $($message:tt)+) => {{
        let stream: &$crate::Stream = &$stream;
        if stream.is_material() {
            stream.log($level, file!(), line!(), &[$($keys)*], format_args!($($message)+));
        }
    }};
    ($stream:expr, $($message:tt)+) => {
        $crate::log!(@ $stream, $crate::Level::Info, [], $($message)+)
    };
}
