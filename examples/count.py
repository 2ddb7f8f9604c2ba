"""Count words exactly once, even if the worker is killed at any moment.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/count.py worker -l info
"""

import os

import faust

from exactly_once import Engine, EngineSettings, Record, Task, exactly_once

PARTITIONS = 4
broker = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
app = faust.App("count", broker=f"kafka://{broker}", **exactly_once(partitions=PARTITIONS, instance_id="worker-1"))
settings = EngineSettings(create_topics=True)
engine = Engine(app, partitions=PARTITIONS, anchor="words", dead_letters="count-dead-letters", settings=settings)
engine.table("counts", help="Word -> number of its occurrences.")
words, totals = engine.source("words"), engine.sink("totals")


@engine.agent(words)
def count(task: Task, record: Record) -> None:
    """Count the word in the record's key, and emit its new total."""
    word = record.key or b""
    total = int(task.get("counts", word) or b"0") + 1
    task.put("counts", word, b"%d" % total)
    task.emit(totals, word, b"%d" % total)


if __name__ == "__main__":
    app.main()
