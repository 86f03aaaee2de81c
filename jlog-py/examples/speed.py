"""Messages a second, in batches and one by one: `python speed.py [DIR]`."""

import sys
import tempfile
import time

import jlog

COUNT = 1_000_000
BATCH = 1000
BODY = b"x" * 100


def timed(what, count, work):
    began = time.perf_counter()
    work()
    print(f"{what}: {count / (time.perf_counter() - began) / 1e6:.2f} M messages/s")


with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
    feed = jlog.Feed.create(f"{directory}/feed", segment_size=64 << 20)
    feed.subscribe("all")
    writer = feed.writer(sync="never")

    def batches():
        batch = [BODY] * BATCH
        for _ in range(COUNT // BATCH):
            writer.append_batch(batch)

    def singly():
        append = writer.append
        for _ in range(COUNT // 5):
            append(BODY)

    def read():
        count = 0
        for message in feed.reader("all"):
            message.body
            count += 1
        assert count == COUNT, count

    def read_batches():
        reader, count = feed.reader("all"), 0
        while messages := reader.next_batch(0):
            count += len([message.body for message in messages])
        assert count == COUNT, count

    timed("append_batch", COUNT, batches)
    timed("for message in reader", COUNT, read)
    timed("next_batch", COUNT, read_batches)
    timed("append", COUNT // 5, singly)
