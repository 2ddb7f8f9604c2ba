"""Count and forward with stock Faust and its setting for exactly-once. See `benchmarks.contestants`."""

from typing import Any

import faust

from benchmarks.contestants.work import DATA, IN, KAFKA, OUT, PARTITIONS, RECORDS, RUN, Watch, decode, forwarded_key

app = faust.App(
    RUN,
    broker=f"kafka://{KAFKA}",
    datadir=DATA / "stock",
    store="rocksdb://?driver=rocksdict",
    processing_guarantee="exactly_once",
    topic_partitions=PARTITIONS,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)
RAW: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
source = app.topic(IN, partitions=PARTITIONS, **RAW)
out = app.topic(OUT, partitions=PARTITIONS, **RAW)
counts = app.Table("counts", key_type=bytes, value_type=int, default=int, partitions=PARTITIONS)
watch = Watch()


@app.agent(source)
async def count(stream: faust.types.StreamT[Any]) -> None:
    """Count and forward a record."""
    done = 0
    async for event in stream.events():
        watch.start()
        said = decode(event.value)
        counts[event.key] += 1
        await out.send(key=forwarded_key(said), value=event.value)
        done += 1
        if done == RECORDS:  # the last commit may be missing
            watch.finish(done)


if __name__ == "__main__":
    app.main()
