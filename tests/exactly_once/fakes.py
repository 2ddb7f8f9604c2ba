"""A Kafka, a disk and a clock for one task, in memory. The test decides which step fails."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exactly_once.calls.interfaces import CallOutcome, Completed, DestinationKey
from exactly_once.calls.rows import CALLS
from exactly_once.settings import EngineSettings
from exactly_once.state.rocksdb import Snapshot
from exactly_once.task.manager import TaskManager
from exactly_once.task.task import POSITIONS, TIMERS, Task
from exactly_once.task.transaction import Header, Position, ProduceResult, ProducerRecord

TABLES = ("counts", POSITIONS, TIMERS, CALLS)


@dataclass
class FakeRecord:
    offset: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    topic: str = "in"
    partition: int = 0
    timestamp: int = 0
    headers: Sequence[Header] = ()


class FakeClock:
    """A clock that the test moves; ``now_ms`` and ``monotonic`` move together."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class MemoryStore:
    def __init__(self, log: list[str]) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
        self.next_offsets: dict[str, int] = {}
        self.closed = False
        self.fails: BaseException | None = None
        self._log = log

    def get(self, table: str, key: bytes) -> bytes | None:
        if self.fails:
            raise self.fails
        return self.tables[table].get(key)

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, value) for key, value in sorted(self.tables[table].items()) if key >= from_key])

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
    ) -> None:
        if self.fails:
            raise self.fails
        self._log.append("write")
        for table, changed in rows.items():
            for key, value in changed.items():
                if value is None:
                    self.tables[table].pop(key, None)
                else:
                    self.tables[table][key] = value
        self.next_offsets.update(next_offsets)

    def snapshot(self) -> Snapshot:
        return Snapshot({table: iter(sorted(rows.items())) for table, rows in self.tables.items()})

    def purge(self, prefix: bytes) -> None:
        self._log.append(f"purge {prefix.decode()}")

    def close(self) -> None:
        self.closed = True


class FakeTransactions:
    """Keeps committed records. ``before[step]`` is called before a step and may raise; ``hold`` stops a produce."""

    def __init__(self, log: list[str]) -> None:
        self.committed: dict[tuple[str, int], list[ProducerRecord]] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.hold = asyncio.Event()
        self.hold.set()
        self.closed = self.in_doubt = False
        self._log = log
        self._open: dict[tuple[str, int], list[ProducerRecord]] = {}

    async def _step(self, name: str) -> None:
        self.before.get(name, lambda: None)()
        self._log.append(name)
        await asyncio.sleep(0)

    async def produce(
        self, outputs: Mapping[tuple[str, int], Sequence[ProducerRecord]]
    ) -> dict[tuple[str, int], ProduceResult]:
        await self._step("produce")
        await self.hold.wait()
        for tp, records in outputs.items():
            self._open.setdefault(tp, []).extend(records)
        return {tp: ProduceResult(len(self.committed.get(tp, [])) + len(self._open[tp]), 0) for tp in outputs}

    async def end(self) -> None:
        await self._step("end")
        for tp, records in self._open.items():
            self.committed.setdefault(tp, []).extend(records)
        self._open = {}
        self.before.get("ended", lambda: None)()

    async def close(self) -> None:
        self.closed = True

    def disconnect(self) -> None: ...

    @property
    def positions(self) -> dict[str, int]:
        """Source topic -> committed offset of the next record to apply."""
        rows = self.committed.get((f"{POSITIONS}-changelog", 0), [])
        return {(key or b"").decode(): Position.of(value or b"").offset for key, value, _ in rows}

    def values(self, topic: str) -> list[bytes | None]:
        """Return the committed records of a topic, partition by partition."""
        return [value for tp in sorted(self.committed) if tp[0] == topic for _, value, _ in self.committed[tp]]


class FakePerformer:
    """Answers calls from ``answers``, or with ``ok``. ``gate`` holds back all calls, ``hung`` a destination's."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bytes, int]] = []
        self.answers: dict[bytes, list[CallOutcome | Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.hung: dict[str, asyncio.Event] = {}
        self.running = self.most = 0

    def destination_of(self, request: bytes) -> DestinationKey:
        """Return the key of `party@host/...`; without a host, the party's name is the host."""
        party, _, host = request.split(b"/")[0].decode().partition("@")
        return DestinationKey(party, host or party)

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> CallOutcome:
        self.calls.append((call_id, request, attempt))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.hung.get(self.destination_of(request).party, self.gate).wait()
        finally:
            self.running -= 1
        queue = self.answers.get(call_id)
        answer = queue.pop(0) if queue else Completed(b"ok")
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Stage:
    """One task of two, which can be reopened on the same Kafka and disk."""

    settings: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        self.log: list[str] = []
        self.clock = FakeClock()
        self.store = MemoryStore(self.log)
        self.resets: list[float] = []
        self.performer = FakePerformer()
        self.manager = TaskManager(
            self.settings, 2, "dead", lambda key, count: (key[0] if key else 0) % count, 10.0, lambda: self.clock
        )
        self.manager.changelogs = {table: f"{table}-changelog" for table in TABLES}
        self.manager.sources = ["in", "also"]
        self.manager.outputs |= {"in": 2, "out": 2, "one": 1}
        self.manager.performer = self.performer
        self.manager.request_reset = self.resets.append
        self.transactions = FakeTransactions(self.log)
        self.task = self.opened()

    def opened(self, **next_offsets: int) -> Task:
        """Open the task again; ``start`` makes it commit."""
        self.transactions = FakeTransactions(self.log)
        self.task = Task(
            self.manager,
            0,
            self.transactions,
            self.store,
            {
                topic: Position(offset, f"id of {topic}")
                for topic, offset in {"in": 0, "also": 0, **next_offsets}.items()
            },
            self.clock,
            self.clock.monotonic(),
        )
        self.manager.tasks[0] = self.task
        return self.task

    async def apply(self, *records: FakeRecord, handler: Callable[[Task, FakeRecord], None], follows: int = 0) -> None:
        await self.manager.apply(self.task, follows, records, handler)  # type: ignore[arg-type]

    async def settle(self) -> None:
        """Run the event loop until nothing is left to do at the current time."""
        for _ in range(50):
            await asyncio.sleep(0)


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until a condition holds; fail after a while."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - anything may change it
            await asyncio.sleep(0)
