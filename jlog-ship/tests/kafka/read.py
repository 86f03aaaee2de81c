"""Reads a topic from an offset to its present end: a line of JSON for each record, partition by partition."""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition

servers, topic, offset = sys.argv[1:]
consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "group.id": "reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        # Records that are no longer there must not be passed over in silence.
        "auto.offset.reset": "error",
    }
)
partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
consumer.assign([TopicPartition(topic, number, int(offset)) for number in partitions])
left, records = set(partitions), []
while left:
    message = consumer.poll(30)
    if message is None:
        sys.exit("no answer")
    if message.error() is None:
        headers = {name: value.decode() for name, value in message.headers() or []}
        records.append((message, headers))
    elif message.error().code() == KafkaError._PARTITION_EOF:
        left.discard(message.partition())
    elif message.error().fatal() or message.error().code() == KafkaError._AUTO_OFFSET_RESET:
        sys.exit(str(message.error()))
records.sort(key=lambda record: (record[0].partition(), record[0].offset()))
for message, headers in records:
    record = {
        "partition": message.partition(),
        "key": message.key() and message.key().decode(),
        "time": message.timestamp()[1],
        "headers": headers,
        "body": message.value().decode(),
    }
    print(json.dumps(record))
consumer.close()
