"""Count and forward with Faust as it comes, with the guarantee that it calls exactly-once. See `benchmarks.contestants`."""

import asyncio

import faust

from benchmarks.contestants.work import IN, KAFKA, OUT, PARTITIONS, RECORDS, RUN, Watch, decode, forwarded_key

app = faust.App(
    RUN,
    broker=f"kafka://{KAFKA}",
    store="rocksdb://?driver=rocksdict",
    processing_guarantee="exactly_once",
    topic_partitions=PARTITIONS,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)
RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
source = app.topic(IN, partitions=PARTITIONS, **RAW)
out = app.topic(OUT, partitions=PARTITIONS, **RAW)
counts = app.Table("counts", key_type=bytes, value_type=int, default=int, partitions=PARTITIONS)
watch = Watch()
done = [0]


@app.agent(source)
async def count(stream: faust.Stream[bytes]) -> None:
    """Count a record and send it on."""
    async for event in stream.events():
        watch.start()
        said = decode(event.value)
        counts[event.key] += 1
        await out.send(key=forwarded_key(said), value=event.value)
        done[0] += 1


@app.task
async def end() -> None:
    """When everything has been applied: what is still to be committed then is left to it."""
    while done[0] < RECORDS:
        await asyncio.sleep(0.01)
    watch.finish(done[0])


if __name__ == "__main__":
    app.main()
