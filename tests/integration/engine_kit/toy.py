"""A toy whose counts prove exactly-once: N valid records on ``orders`` make N in counts, seen, fired and called.

Each record counts its key, writes a journal row, sets a timer, requests a call and emits a record under another key.
The emitted record, the timer and the call's result count once each. A ``poison`` record raises after its effects, a
``refuse`` record rejects itself, and a record in the wrong partition is forwarded.

Ten times a second the toy compares memory with disk, and writes a difference to the file ``differences``.

    TOY_RUN=x TOY_WORKER=1 KAFKA_BOOTSTRAP_SERVERS=host:port python -m tests.integration.engine_kit.toy worker -l info
"""

import asyncio
import itertools
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import faust

from exactly_once import Completed, DestinationKey, Engine, EngineSettings, Record, RejectRecord, Task, exactly_once
from exactly_once.calls.rows import CALLS, decode_call
from exactly_once.task.task import TIMERS
from tests.integration.engine_kit import names

RUN, WORKER = os.environ["TOY_RUN"], os.environ["TOY_WORKER"]
TIMER_MS = int(os.environ.get("TOY_TIMER_MS", "50"))
CALL_S = float(os.environ.get("TOY_CALL_S", "0.002"))
STOP_S = float(os.environ.get("TOY_STOP_S", "4.5"))
SESSION_S = float(os.environ.get("TOY_SESSION_S", "10"))
DIES_AT = int(os.environ.get("TOY_DIES_AT", "0"))
"""Number of timers after which the worker kills itself; 0 for never."""
LEDGER, DIFFERENCES, FIRST = Path("ledger"), Path("differences"), Path(f"first-{os.getpid()}")

app = faust.App(
    RUN,
    broker=f"kafka://{os.environ['KAFKA_BOOTSTRAP_SERVERS']}",
    datadir=f"worker-{WORKER}",
    **exactly_once(
        partitions=names.PARTITIONS,
        instance_id=f"worker-{WORKER}",
        session_timeout_s=SESSION_S,
        broker_request_timeout=max(90.0, SESSION_S),  # Faust allows no longer session
        web_enabled=False,
    ),
)
settings = EngineSettings(
    failpoints=os.environ.get("TOY_FAILPOINTS", ""),
    create_topics=True,
    timer_head=int(os.environ.get("TOY_TIMER_HEAD", "64")),
    reopen_backoff_s=(0.0, 0.05, 0.1, 0.5),
    stop_s=STOP_S,
    close_calls_s=float(os.environ.get("TOY_CLOSE_CALLS_S", STOP_S / 4.5)),
    close_commit_s=STOP_S / 2.25,
)
engine = Engine(
    app,
    partitions=names.PARTITIONS,
    anchor=names.orders(RUN),
    dead_letters=names.dead_letters(RUN),
    settings=settings,
)
for table in names.TABLES:
    engine.table(table, help=f"The toy's {table}.")
orders, pos = engine.source(names.orders(RUN)), engine.source(names.pos(RUN))


class Copy:
    """An index that is a copy of the rows."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self.found = dict(rows)

    def apply(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.found.pop(key, None)
        else:
            self.found[key] = value


engine.index("counts", Copy)


def increment(task: Task, table: str, key: bytes) -> int:
    count = int(task.get(table, key) or b"0") + 1
    task.put(table, key, b"%d" % count)
    return count


@engine.agent(orders)
def order(task: Task, record: Record) -> None:
    """Count an order, and cause one effect of every kind."""
    key = record.key or b""
    if not task.owns_key(key):
        task.forward(record, key)
        return
    count = increment(task, "counts", key)
    event = b"%s/%d" % (key, count)
    task.put("journal", event, b"%d" % task.now_ms)
    task.emit(names.pos(RUN), b"pos-%d" % (record.offset % 97), record.value)
    task.set_timer(task.now_ms + TIMER_MS, event, key)
    task.call(event, key)
    task.answer((record.value or b"").decode(), count)
    if record.value == b"poison":
        raise RuntimeError("this record is poison")
    if record.value == b"refuse":
        raise RejectRecord("not this one")
    if not FIRST.exists():
        FIRST.touch()


@engine.agent(pos)
def seen(task: Task, record: Record) -> None:
    """Count an emitted record."""
    increment(task, "seen", record.key or b"")


timers_fired = itertools.count(1)


@engine.on_timer
def fired(task: Task, timer_id: bytes, payload: bytes) -> None:
    due_ms = int(task.get("journal", timer_id) or b"0") + TIMER_MS
    if task.now_ms < due_ms:
        raise AssertionError(f"{timer_id!r} fired {due_ms - task.now_ms} ms early")
    increment(task, "fired", payload)
    if DIES_AT and next(timers_fired) >= DIES_AT:
        os.kill(os.getpid(), signal.SIGKILL)


@engine.on_result
def called(task: Task, call_id: bytes, request: bytes, result: bytes) -> None:
    increment(task, "called", request)


class Ledger:
    """The outside party: it appends each call to a file that survives the worker."""

    def destination_of(self, request: bytes) -> DestinationKey:
        return DestinationKey("ledger", "outside")

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Completed:
        line = b"%s %s\n" % (call_id, WORKER.encode())
        ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(ledger, line)
        os.close(ledger)
        await asyncio.sleep(CALL_S)
        return Completed(b"ok")


engine.performer = Ledger()


def note(differences: Iterable[str]) -> None:
    if lines := "\n".join(differences):
        DIFFERENCES.write_text(lines)


@app.timer(0.1)  # type: ignore[untyped-decorator]
async def compare() -> None:
    """Compare index, timers and calls in memory with those rebuilt from disk, between two steps."""
    for task in [task for task in engine.tasks.values() if task.alive]:
        index = task.index("counts")
        assert isinstance(index, Copy)
        stored = [key for key, _ in task.scan(TIMERS)]
        differences = {
            "index": index.found != dict(task.scan("counts")),
            "timers": list(task.timers) != stored[: len(list(task.timers))],
            "missing timers": bool(stored) and not list(task.timers),
            "calls": task.calls != {key: decode_call(row).due_ms for key, row in task.scan(CALLS)},
        }
        note(f"task {task.partition}: {what}" for what, different in differences.items() if different)


if __name__ == "__main__":
    app.main()
