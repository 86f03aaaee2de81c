"""The handler of `logging`, and structlog."""

import json
import logging

import pytest

import jlog


@pytest.fixture
def feed(tmp_path):
    feed = jlog.Feed.create(tmp_path / "feed")
    feed.subscribe("logs")
    return feed


@pytest.fixture
def logger():
    logger = logging.getLogger("shop.orders")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def lines(feed):
    return [json.loads(message.body) for message in feed.reader("logs")]


def test_records_become_lines_of_json(feed, logger):
    logger.addHandler(jlog.FeedHandler(feed.writer()))
    logger.info("order %d accepted", 7, extra={"order": 7, "total": 12.5, "customer": "Żółć \ud800"})
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("cannot divide", extra={"where": object})
    first, second = lines(feed)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "shop.orders",
        "message": "order 7 accepted",
        "order": 7,
        "total": 12.5,
        "customer": "Żółć \ud800",
    }
    assert second["level"] == "error" and second["where"] == "<class 'object'>"
    assert second["exception"].startswith("Traceback") and "ZeroDivisionError" in second["exception"]


def test_levels_and_formatters(feed, logger):
    handler = jlog.FeedHandler(feed.writer(), level=logging.WARNING, sync_level=None)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.info("left out")
    logger.warning("kept")
    handler.flush()
    assert [message.body for message in feed.reader("logs")] == [b"WARNING kept"]


def test_a_writer_that_fails_does_not_end_the_program(feed, logger, capsys):
    writer = feed.writer()
    logger.addHandler(jlog.FeedHandler(writer))
    writer.close()
    logger.error("nobody hears of this")
    assert "writer is closed" in capsys.readouterr().err
    assert lines(feed) == []


def test_structlog(feed):
    structlog = pytest.importorskip("structlog")
    import runpy
    from pathlib import Path

    example = Path(__file__).parent.parent / "examples" / "structlog_feed.py"
    configure = runpy.run_path(str(example))["configure"]
    try:
        with feed.writer() as writer:
            configure(writer)
            structlog.get_logger().bind(order=7).info("accepted", total=12.5)
    finally:
        structlog.reset_defaults()
    (line,) = lines(feed)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "accepted", "level": "info", "order": 7, "total": 12.5}
