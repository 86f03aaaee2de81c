"""structlog writes its events to a feed, as lines of JSON."""

import structlog

import jlog


class FeedLogger:
    """What structlog calls with the line that its last processor has made."""

    def __init__(self, writer: jlog.Writer) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.append(line.encode())

    debug = info = warning = error = critical = exception = log = msg


def configure(writer: jlog.Writer) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *_: FeedLogger(writer),
    )


if __name__ == "__main__":
    feed = jlog.Feed.create("feed", exist_ok=True)
    feed.subscribe("logs", exist_ok=True)
    with feed.writer() as writer:
        configure(writer)
        structlog.get_logger().info("accepted", order=7)
