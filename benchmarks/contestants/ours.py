"""Count and forward with the engine. See `benchmarks.contestants`."""

from functools import partial

import faust

from benchmarks.contestants.work import DATA, IN, KAFKA, OUT, PARTITIONS, RECORDS, RUN, Watch, decode, forwarded_key
from exactly_once import Engine, EngineSettings, Record, Task, exactly_once

app = faust.App(
    RUN,
    broker=f"kafka://{KAFKA}",
    datadir=DATA / "engine",
    web_enabled=False,
    **exactly_once(partitions=PARTITIONS, instance_id="worker-1"),
)
engine = Engine(
    app,
    partitions=PARTITIONS,
    anchor=IN,
    dead_letters=f"{RUN}-dead-letters",
    settings=EngineSettings(create_topics=True),
)
engine.table("counts", help="Key -> number of its records.")
source = engine.source(IN)
engine.sink(OUT)
watch = Watch()


@engine.agent(source)
def count(task: Task, record: Record) -> None:
    """Count and forward a record."""
    watch.start()
    assert record.key is not None
    assert record.value is not None
    said = decode(record.value)
    task.put("counts", record.key, b"%d" % (int(task.get("counts", record.key) or b"0") + 1))
    task.emit(OUT, forwarded_key(said), record.value)


def done() -> int | None:
    """Return the number of records when all are committed; None before."""
    under_way = any(task.pending or task.committing for task in engine.tasks.values())
    return None if under_way or engine.counters["records"] < RECORDS else engine.counters["records"]


app.task(partial(watch.finish_when, done))


if __name__ == "__main__":
    app.main()
