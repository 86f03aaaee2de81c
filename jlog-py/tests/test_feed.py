"""Feeds, writers and readers, by content."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import jlog


@pytest.fixture
def feed(tmp_path):
    feed = jlog.Feed.create(tmp_path / "feed")
    feed.subscribe("billing")
    return feed


def bodies(feed, name="billing"):
    with feed.reader(name) as reader:
        return [message.body for message in reader]


def test_what_is_appended_is_read_in_order_with_ids_and_times(feed):
    before = time.time() - 1
    with feed.writer() as writer:
        first = writer.append(b"hello")
        last = writer.append_batch([b"many", bytearray(b"at"), memoryview(b"once"), b""])
        writer.flush()
        writer.sync()
    assert (str(first), repr(first)) == ("00000000:00000001", "Id(0, 1)")
    assert last == jlog.Id(0, 5) == jlog.Id.parse("00000000:00000005") and first < last
    assert len({first, last, jlog.Id(0, 1)}) == 2
    messages = list(feed.reader("billing"))
    assert [message.body for message in messages] == [b"hello", b"many", b"at", b"once", b""]
    assert [message.id.marker for message in messages] == [1, 2, 3, 4, 5]
    assert all(before < message.time < time.time() + 1 for message in messages)
    assert bytes(messages[0]) == b"hello" and len(messages[0]) == 5


def test_a_commit_is_where_the_next_reader_begins(feed):
    feed.writer().append_batch([b"%d" % n for n in range(10)])
    with feed.reader("billing") as reader:
        for message in reader:
            if message.body == b"3":
                reader.commit(message)
                break
        assert reader.lag().messages == 6
    assert feed.checkpoint("billing") == jlog.Id(0, 4)
    with feed.reader("billing") as reader:
        assert next(reader).body == b"4"
        reader.commit()
        assert [message.body for message in reader.next_batch(0)] == [b"%d" % n for n in range(5, 10)]
        reader.commit(jlog.Id(0, 8))
    assert bodies(feed) == [b"8", b"9"]
    lag = feed.lag("billing")
    assert lag.messages == 2 and lag.bytes > 2 and abs(lag.oldest - time.time()) < 60


def test_the_end_of_a_with_statement_closes(feed):
    with feed.writer() as writer:
        writer.append(b"there")
    with pytest.raises(jlog.Closed, match="writer is closed"):
        writer.append(b"late")
    writer.close()
    with feed.reader("billing") as reader:
        pass
    for call in (lambda: reader.next_batch(0), lambda: next(reader), lambda: reader.commit(jlog.Id(0, 1))):
        with pytest.raises(jlog.Closed, match="reader is closed"):
            call()
    assert bodies(feed) == [b"there"]


def test_exceptions_by_kind(tmp_path, feed):
    with pytest.raises(jlog.NotAFeed, match="nothing"):
        jlog.Feed.open(tmp_path / "nothing")
    with pytest.raises(jlog.AlreadyExists):
        jlog.Feed.create(tmp_path / "feed")
    assert jlog.Feed.create(tmp_path / "feed", exist_ok=True).subscribers() == ["billing"]
    with pytest.raises(jlog.AlreadyExists, match="billing"):
        feed.subscribe("billing")
    assert feed.subscribe("billing", exist_ok=True) is False
    assert feed.subscribe("audit", "end", exist_ok=True) is True
    with pytest.raises(jlog.UnknownSubscriber, match="nobody"):
        feed.reader("nobody")
    with pytest.raises(jlog.NoSuchRecord):
        feed.reader("billing").commit(jlog.Id(0, 99))
    with pytest.raises(TypeError, match="encode"):
        feed.writer().append("text")
    with pytest.raises(TypeError):
        feed.writer().append_batch([b"good", 7])
    for wrong in (
        lambda: feed.writer(sync="often"),
        lambda: feed.writer(sync=-1.0),
        lambda: feed.subscribe("x", "middle"),
        lambda: feed.reader("billing", on_damage="ignore"),
        lambda: feed.reader("billing").next_batch(-1),
        lambda: jlog.Feed.create(tmp_path / "other", compression="zip"),
        lambda: jlog.Feed.create(tmp_path / "other", drop_oldest=True),
        lambda: jlog.Feed.create(tmp_path / "other", segment_size=0),
        lambda: jlog.Id.parse("seven"),
    ):
        with pytest.raises(ValueError):
            wrong()
    assert bodies(feed) == [], "nothing of a batch that is refused"
    assert feed.unsubscribe("audit") is True and feed.unsubscribe("audit") is False
    assert issubclass(jlog.NotAFeed, jlog.JlogError)


def test_limits(tmp_path):
    feed = jlog.Feed.create(tmp_path / "feed", max_bytes=20_000, segment_size=1000)
    feed.subscribe("slow")
    writer = feed.writer()
    accepted = 0
    with pytest.raises(jlog.AtCapacity, match="slow"):
        while True:
            writer.append(b"x" * 200)
            accepted += 1
    assert bodies(feed, "slow") == [b"x" * 200] * accepted


def test_damage_fails_or_is_skipped(tmp_path, feed):
    with feed.writer() as writer:
        writer.append_batch([b"first", b"second", b"third"])
    segment = tmp_path / "feed" / "00000000"
    data = bytearray(segment.read_bytes())
    data[data.index(b"second")] ^= 1
    segment.write_bytes(data)
    reader = feed.reader("billing")
    got = [next(reader).body]
    for _ in range(2):
        with pytest.raises(jlog.Damaged):
            next(reader)
    reader.skip_damage()
    got += [message.body for message in reader]
    assert got == [b"first", b"third"]
    reader.close()
    assert [m.body for m in feed.reader("billing", on_damage="skip")] == got
    assert any("00000000" in event for event in feed.take_events())


def test_a_feed_that_is_removed(tmp_path, feed):
    import shutil

    reader = feed.reader("billing", follow=True)
    shutil.rmtree(tmp_path / "feed")
    with pytest.raises(jlog.Replaced):
        next(reader)


def test_options_and_compression(tmp_path):
    feed = jlog.Feed.create(
        tmp_path / "feed", compression="lz4", pre_commit=4096, segment_size=5000, checksums=True
    )
    feed.subscribe("billing")
    messages = [b"message %d " % n * 20 for n in range(200)]
    with feed.writer(sync="each-append") as writer:
        assert writer.append(messages[0]) == jlog.Id(0, 1), "durable, and past the buffer"
    with feed.writer(sync=0.01) as writer:
        assert writer.append(messages[1]) is None, "in the buffer"
        writer.append_batch(iter(messages[2:]))
    assert bodies(feed) == messages


def test_threads_append_and_read_at_the_same_time(feed):
    # The reader waits without the interpreter, or the writers could not go on.
    got = []

    def read():
        reader = feed.reader("billing", follow=True)
        while len(got) < 4000:
            got.append(next(reader).body)

    reading = threading.Thread(target=read)
    reading.start()
    writer = feed.writer()

    def write(name):
        for n in range(1000):
            writer.append(b"%d %d" % (name, n))

    writing = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in writing:
        thread.start()
    for thread in [*writing, reading]:
        thread.join(60)
        assert not thread.is_alive()
    for name in range(4):
        own = [body for body in got if body.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, n) for n in range(1000)]


def test_a_commit_does_not_wait_for_a_reader_that_waits(feed):
    feed.writer().append(b"one")
    reader = feed.reader("billing", follow=True)
    message = next(reader)
    waiting = threading.Thread(target=reader.next_batch, args=(30,))
    waiting.start()
    reader.commit(message)
    assert feed.checkpoint("billing") == message.id
    feed.writer().append(b"two")
    waiting.join(60)
    assert not waiting.is_alive()


def test_asyncio(feed):
    async def main():
        got = []
        writer = feed.writer()
        writer.append_batch([b"1", b"2"])
        reader = feed.reader("billing", follow=True)

        async def consume():
            async for message in reader:
                got.append(message.body)
                reader.commit()
                if len(got) == 5:
                    return

        task = asyncio.create_task(consume())
        while len(got) < 2:
            await asyncio.sleep(0)
        # The loop goes on while the reader waits.
        writer.append_batch([b"3", b"4", b"5"])
        await asyncio.wait_for(task, 30)
        assert got == [b"1", b"2", b"3", b"4", b"5"]
        assert feed.lag("billing").messages == 0

        # Cancelled while it waits, it loses nothing.
        messages = reader.__aiter__()
        waiting = asyncio.ensure_future(messages.__anext__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        writer.append(b"6")
        assert (await asyncio.wait_for(messages.__anext__(), 30)).body == b"6"

        # Without following, it ends. A subscriber has one reader.
        with pytest.raises(jlog.Busy):
            feed.reader("billing")
        reader.close()
        assert [message.body async for message in feed.reader("billing")] == [b"6"]

    asyncio.run(main())


def test_ctrl_c_ends_a_following_reader(tmp_path, feed):
    program = """
import signal, sys, jlog
# Programs in the background of a script are started with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
reader = jlog.Feed.open(sys.argv[1]).reader("billing", follow=True)
try:
    # The signal may come as soon as this is read.
    print("ready", flush=True)
    next(reader)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(feed.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=30)[0] == "interrupted\n"
        assert child.returncode == 0
    finally:
        child.kill()


def test_a_killed_process_loses_nothing_that_was_acknowledged(feed):
    program = """
import sys, jlog
writer = jlog.Feed.open(sys.argv[1]).writer()
n = 0
while True:
    writer.append(b"message %d" % n)
    print(n, flush=True)
    n += 1
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(feed.path)], stdout=subprocess.PIPE)
    for _ in range(500):
        child.stdout.readline()
    child.kill()
    rest = child.communicate()[0]
    acknowledged = 500 + len(rest.splitlines()) - (0 if rest.endswith(b"\n") or not rest else 1)
    got = bodies(feed)
    assert got == [b"message %d" % n for n in range(len(got))]
    assert acknowledged <= len(got) <= acknowledged + 1


def test_the_command_and_python_share_feeds(feed):
    # What other programs see is what is on the disk: the names of the format.
    feed.writer().append(b"x")
    names = set(os.listdir(feed.path))
    assert {"00000000", "metastore"} <= names
