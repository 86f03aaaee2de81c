"""A durable local feed: programs append messages to a directory, and any number of subscribers read them, each at its own
pace and with its own checkpoint.

    feed = jlog.Feed.create("feed", exist_ok=True)
    feed.subscribe("billing", exist_ok=True)

    with feed.writer() as writer:
        writer.append(b"hello")
        writer.append_batch([b"many", b"at", b"once"])
        writer.sync()  # all of it survives a power failure

    with feed.reader("billing", follow=True) as reader:
        for message in reader:
            print(message.id, message.body)
            reader.commit(message)  # everything up to here is done
"""

from ._jlog import (
    AlreadyExists,
    AtCapacity,
    Busy,
    Closed,
    Damaged,
    DiskFull,
    Feed,
    Id,
    JlogError,
    Lag,
    Message,
    Missed,
    NoSuchRecord,
    NotAFeed,
    Reader,
    Replaced,
    SyncFailed,
    SystemCallFailed,
    UnknownSubscriber,
    Writer,
    __version__,
)
from .handler import FeedHandler

__all__ = [
    "AlreadyExists",
    "AtCapacity",
    "Busy",
    "Closed",
    "Damaged",
    "DiskFull",
    "Feed",
    "FeedHandler",
    "Id",
    "JlogError",
    "Lag",
    "Message",
    "Missed",
    "NoSuchRecord",
    "NotAFeed",
    "Reader",
    "Replaced",
    "SyncFailed",
    "SystemCallFailed",
    "UnknownSubscriber",
    "Writer",
    "__version__",
]
