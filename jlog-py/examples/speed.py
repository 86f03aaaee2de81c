"""Messages a second, in batches and one by one: `python speed.py [DIR [LIBJLOG]]`.

With the shared library of the C implementation, what a binding to it makes of the same, through ctypes.
"""

import ctypes
import sys
import tempfile
import time

import jlog

COUNT = 1_000_000
SINGLY = COUNT // 5
BATCH = 1000
BODY = b"x" * 100
BUFFER = 1 << 20


def timed(what, count, work):
    began = time.perf_counter()
    work()
    print(f"{what}: {count / (time.perf_counter() - began) / 1e6:.2f} M messages/s")


def ours(directory):
    feed = jlog.Feed.create(f"{directory}/feed", segment_size=64 << 20)
    feed.subscribe("all")

    def batches(writer):
        batch = [BODY] * BATCH
        for _ in range(COUNT // BATCH):
            writer.append_batch(batch)

    def singly(writer):
        append = writer.append
        for _ in range(SINGLY):
            append(BODY)
        writer.flush()

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

    with feed.writer(sync="never") as writer:
        timed("append_batch", COUNT, lambda: batches(writer))
    timed("for message in reader", COUNT, read)
    timed("next_batch", COUNT, read_batches)
    with feed.writer(sync="never") as writer:
        timed("append", SINGLY, lambda: singly(writer))
    buffered = jlog.Feed.create(f"{directory}/buffered", segment_size=64 << 20, pre_commit=BUFFER)
    with buffered.writer(sync="never") as writer:
        timed("append, with a pre-commit buffer", SINGLY, lambda: singly(writer))


class Message(ctypes.Structure):
    _fields_ = [
        ("header", ctypes.c_void_p),
        ("length", ctypes.c_uint32),
        ("body", ctypes.c_void_p),
        ("aligned", ctypes.c_uint32 * 8),
    ]


class Id(ctypes.Structure):
    _fields_ = [("segment", ctypes.c_uint32), ("marker", ctypes.c_uint32)]


def theirs(directory, library):
    c = ctypes.CDLL(library)
    c.jlog_new.restype = ctypes.c_void_p

    def call(name, *arguments):
        done = getattr(c, name)(*arguments)
        assert done >= 0, name
        return done

    def open_feed(path):
        return ctypes.c_void_p(c.jlog_new(path))

    def create(path, buffer):
        feed = open_feed(path)
        if buffer:
            call("jlog_ctx_set_pre_commit_buffer_size", feed, ctypes.c_size_t(buffer))
        call("jlog_ctx_init", feed)
        c.jlog_ctx_close(feed)
        feed = open_feed(path)
        call("jlog_ctx_add_subscriber", feed, b"all", 0)
        c.jlog_ctx_close(feed)

    def singly(path):
        writer = open_feed(path)
        call("jlog_ctx_open_writer", writer)
        write, length = c.jlog_ctx_write, ctypes.c_size_t(len(BODY))
        for _ in range(SINGLY):
            if write(writer, BODY, length) != 0:
                raise OSError("jlog_ctx_write")
        c.jlog_ctx_close(writer)

    def read(path):
        reader = open_feed(path)
        call("jlog_ctx_open_reader", reader, b"all")
        first, last, message, count = Id(), Id(), Message(), 0
        at, into = ctypes.byref(first), ctypes.byref(message)
        while there := call("jlog_ctx_read_interval", reader, at, ctypes.byref(last)):
            for _ in range(there):
                if c.jlog_ctx_read_message(reader, at, into) != 0:
                    raise OSError("jlog_ctx_read_message")
                ctypes.string_at(message.body, message.length)
                first.marker += 1
            count += there
            call("jlog_ctx_read_checkpoint", reader, ctypes.byref(last))
        c.jlog_ctx_close(reader)
        assert count == SINGLY, count

    for name, buffer in ("feed", 0), ("buffered", BUFFER):
        path = f"{directory}/{name}".encode()
        create(path, buffer)
        with_buffer = ", with a pre-commit buffer" if buffer else ""
        timed(f"C, append{with_buffer}", SINGLY, lambda: singly(path))
        if not buffer:
            timed("C, read", SINGLY, lambda: read(path))


directories = sys.argv[1] if len(sys.argv) > 1 else None
with tempfile.TemporaryDirectory(dir=directories) as directory:
    ours(directory)
if len(sys.argv) > 2:
    with tempfile.TemporaryDirectory(dir=directories) as directory:
        theirs(directory, sys.argv[2])
