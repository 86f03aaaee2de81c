"""Write messages, make them durable, read them as a subscriber: the code of README."""

import jlog

feed = jlog.Feed.create("feed", exist_ok=True)
feed.subscribe("billing", exist_ok=True)

with feed.writer() as writer:
    writer.append(b"hello")
    writer.append_batch([b"many", b"at", b"once"])
    writer.sync()  # all of it survives a power failure

with feed.reader("billing") as reader:  # follow=True waits for more at the end
    for message in reader:
        print(message.id, message.body)
        reader.commit(message)  # everything up to here is done

print(feed.lag("billing"))
