"""Known bugs, to be planted on purpose: whoever judges the product has to catch each of them.

    with plant("timer-lost"):
        ...

None of them is in the product: each is a small patch of it, in this process, until the block ends. It hits what is free
of Faust and Kafka's client wherever that can be, so that a simulated Kafka runs with the same bugs. What counts begins
anew with each block, so that a run can be replayed. A patch whose target is gone raises.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import msgspec

from processors import delivery, dispatch, order, payment, restaurant
from processors.decision import Decision, Moment, Table, Transition, absorb
from processors.dispatch import DispatchDecision, Situation
from processors.order import Stage as OrderStage
from processors.restaurant import Stage as TicketStage
from processors.restaurant import Ticket
from streams.engine.calls import CALLS, Again, Answered, Call, CallRunner, Performer
from streams.engine.changes import Appended, Changes, Outgoing
from streams.engine.task import POSITIONS, Record, Task, Transactions
from streams.engine.timers import TimerHead
from topics.dispatch import DriverAvailable
from topics.pos import PreparationFinished, TicketAccepted

EARLY_MS = 5_000
EVERY = 5
"""Of the records that are dropped, one in so many."""


class Bug(NamedTuple):
    """One of the catalogue."""

    name: str
    what: str
    """In a sentence."""
    breaks: int
    """The number of the promise by which it is to be caught."""
    planted: Callable[[], AbstractContextManager[None]]


BUGS: dict[str, Bug] = {}
"""By name."""


class UnknownBug(LookupError):
    """There is none of this name; the message says which there are."""


def known(name: str) -> Bug:
    """The bug of this name, or `UnknownBug`."""
    if name not in BUGS:
        raise UnknownBug(f"there is no bug {name!r}; there are {', '.join(BUGS)}")
    return BUGS[name]


def plant(name: str) -> AbstractContextManager[None]:
    """Have the bug of this name within the block."""
    return known(name).planted()


def _bug(*, breaks: int) -> Callable[[Callable[[], Iterator[None]]], Callable[[], AbstractContextManager[None]]]:
    """Enter what plants it into the catalogue; its docstring says what it is."""

    def enter(planting: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
        name = planting.__name__.replace("_", "-")
        planted = contextmanager(planting)
        BUGS[name] = Bug(name, planting.__doc__ or "", breaks, planted)
        return planted

    return enter


# -- commits ---------------------------------------------------------------------------------------------------------

Partition = tuple[str, int]
Outputs = Mapping[Partition, Sequence[Outgoing]]


class _Wrong:
    """The transactions of a task, with something wrong in how they produce."""

    def __init__(self, task: Task, inner: Transactions) -> None:
        self._task, self._inner = task, inner
        self._changelogs = {topic: table for table, topic in task._core.changelogs.items()}

    @property
    def in_doubt(self) -> bool:
        return self._inner.in_doubt

    async def produce(self, outputs: Outputs) -> dict[Partition, Appended]:
        return await self._inner.produce(outputs)

    async def end(self) -> None:
        await self._inner.end()

    async def close(self) -> None:
        await self._inner.close()

    def cut(self) -> None:
        self._inner.cut()


@contextmanager
def _transactions(wrong: type[_Wrong]) -> Iterator[None]:
    """Every task that is opened has these."""
    right = Task.__init__

    def opened(task: Task, *arguments: Any, **more: Any) -> None:
        right(task, *arguments, **more)
        task._transactions = wrong(task, task._transactions)

    with patch.object(Task, "__init__", opened):
        yield


class _PositionsFirst(_Wrong):
    async def produce(self, outputs: Outputs) -> dict[Partition, Appended]:
        first = {tp: records for tp, records in outputs.items() if self._changelogs.get(tp[0]) == POSITIONS}
        rest = {tp: records for tp, records in outputs.items() if tp not in first}
        if not first or not rest:
            return await self._inner.produce(outputs)
        appended = await self._inner.produce(first)
        await self._inner.end()
        return appended | await self._inner.produce(rest)


class _ChangelogRecordDropped(_Wrong):
    def __init__(self, task: Task, inner: Transactions) -> None:
        super().__init__(task, inner)
        self._counted, self._ends = count(1), dict[Partition, Appended]()

    async def produce(self, outputs: Outputs) -> dict[Partition, Appended]:
        kept = {
            tp: [record for record in records if tp[0] not in self._changelogs or next(self._counted) % EVERY]
            for tp, records in outputs.items()
        }
        self._ends |= await self._inner.produce({tp: records for tp, records in kept.items() if records})
        return {tp: self._ends.get(tp, Appended(0, 0)) for tp in outputs}


class _DiskFirst(_Wrong):
    async def produce(self, outputs: Outputs) -> dict[Partition, Appended]:
        appended = await self._inner.produce(outputs)
        committing = self._task.committing
        assert committing is not None
        self._task._store.write(committing.rows, {}, {})
        return appended


@_bug(breaks=1)
def offsets_before_outputs() -> Iterator[None]:
    """The positions are committed in a transaction before the one that has the outputs and the state."""
    with _transactions(_PositionsFirst):
        yield


@_bug(breaks=8)
def changelog_record_dropped() -> Iterator[None]:
    """One changelog record in five is not produced, though its row is on disk."""
    with _transactions(_ChangelogRecordDropped):
        yield


@_bug(breaks=6)
def disk_before_commit() -> Iterator[None]:
    """RocksDB has the rows before the transaction is committed."""
    with _transactions(_DiskFirst):
        yield


@_bug(breaks=6)
def output_dropped() -> Iterator[None]:
    """One record in five that a handler emits is not produced."""
    right, counted = Changes.emit, count(1)

    def emit(changes: Changes, topic: str, partition: int, record: Outgoing, size: int) -> None:
        if next(counted) % EVERY:
            right(changes, topic, partition, record, size)

    with patch.object(Changes, "emit", emit):
        yield


@_bug(breaks=9)
def dead_letter_dropped() -> Iterator[None]:
    """What cannot be applied is passed over without a dead letter."""

    def dead_letter(task: Task, record: Record, reason: str, exc: BaseException | None = None) -> None:
        """Say nothing."""

    with patch.object(Task, "dead_letter", dead_letter):
        yield


@_bug(breaks=10)
def zombie_commits() -> Iterator[None]:
    """A task that is opened takes no transactional id over, and nobody proves that it is still the owner."""
    from streams.engine.engine import Engine  # not above: it needs Faust and Kafka's client
    from streams.engine.transactions import TransactionalClient

    right = Engine._transactional_client

    def fresh(engine: Engine, partition: int) -> TransactionalClient:
        client = right(engine, partition)
        client.transactional_id += f"-{uuid4().hex}"
        return client

    async def believe(task: Task, call_id: bytes, row: bytes) -> bool:
        return task.get(CALLS, call_id) == row

    with patch.object(Engine, "_transactional_client", fresh), patch.object(Task, "prove_ownership", believe):
        yield


# -- timers ----------------------------------------------------------------------------------------------------------


@_bug(breaks=5)
def timer_fired_early() -> Iterator[None]:
    """The timers of orders are set five seconds before they are due."""
    right = order.Wait.timer

    def early(wait: order.Wait, of: order.Order, moment: Moment) -> order.Timer:
        timer = right(wait, of, moment)
        return msgspec.structs.replace(timer, due_ms=timer.due_ms - EARLY_MS)

    with patch.object(order.Wait, "timer", early):
        yield


@_bug(breaks=5)
def timer_lost() -> Iterator[None]:
    """A timer that is set while its task is open is on disk, and nobody waits for it."""
    right = TimerHead.committed

    def committed(head: TimerHead, rows: Mapping[bytes, bytes | None]) -> None:
        right(head, {key: payload for key, payload in rows.items() if payload is None})

    with patch.object(TimerHead, "committed", committed):
        yield


# -- calls -----------------------------------------------------------------------------------------------------------


@contextmanager
def _attempts(key: Callable[[bytes, Call], bytes]) -> Iterator[None]:
    """Each attempt of a call is made under this idempotency key."""
    right = CallRunner._attempt

    async def attempt(runner: CallRunner, performer: Performer, call_id: bytes, call: Call) -> Answered | Again:
        return await right(runner, performer, key(call_id, call), call)

    with patch.object(CallRunner, "_attempt", attempt):
        yield


@_bug(breaks=2)
def charge_without_key() -> Iterator[None]:
    """Customers are charged without an idempotency key."""
    with _attempts(lambda call_id, _: b"" if call_id.endswith(b"/charge") else call_id):
        yield


@_bug(breaks=2)
def new_key_on_retry() -> Iterator[None]:
    """A call that is made again is made under another idempotency key."""
    with _attempts(lambda call_id, call: call_id + b"/%d" % call.attempt if call.attempt > 1 else call_id):
        yield


# -- decisions -------------------------------------------------------------------------------------------------------


@contextmanager
def _table(machine: ModuleType, change: Callable[[list[Transition]], list[Transition]]) -> Iterator[None]:
    """The machine has other transitions; that none of them is another is an error."""
    right: Table[Any] = machine.TABLE
    rows = change(list(right.rows))
    if rows == list(right.rows):
        raise LookupError(f"{machine.__name__} has no transition that this bug would change")
    with patch.object(machine, "TABLE", Table(right.name, rows)):
        yield


def _replaced(effect: Callable[..., Any], **changes: Any) -> Callable[[list[Transition]], list[Transition]]:
    """The transitions with this effect, changed."""
    return lambda rows: [row._replace(**changes) if row.does is effect else row for row in rows]


@_bug(breaks=3)
def duplicate_applied_twice() -> Iterator[None]:
    """A charge that is told again is taken for another one, and given back."""
    with _table(payment, lambda rows: [row for row in rows if row.when is not payment.known_charge]):
        yield


@_bug(breaks=3)
def refund_forgotten() -> Iterator[None]:
    """An order that the restaurant rejects has ended, and nobody gives the money back."""

    def reject(rejected: order.Order, event: Any, moment: Moment) -> Decision[order.Order]:
        return msgspec.structs.replace(order.reject_uncooked(rejected, event, moment), tell=())

    with _table(order, _replaced(order.reject_uncooked, to=OrderStage.REJECTED, does=reject)):
        yield


@_bug(breaks=4)
def driver_assigned_twice() -> Iterator[None]:
    """A delivery that waits is given to every driver who comes, and none of them is turned away."""

    def assign(situation: Situation, event: DriverAvailable, moment: Moment) -> DispatchDecision:
        decision = dispatch.assign_oldest(situation, event, moment)
        kept = {key: row for key, row in decision.rows.items() if dispatch.kind_of(key) != "pending"}
        return msgspec.structs.replace(decision, rows=kept)

    with (
        _table(dispatch, _replaced(dispatch.assign_oldest, does=assign)),
        _table(delivery, _replaced(delivery.turn_away, does=absorb)),
    ):
        yield


@_bug(breaks=7)
def early_callback_lost() -> Iterator[None]:
    """What a restaurant says before the answer to our request is committed is taken, and forgotten."""

    def by_callback(_ticket: Ticket, event: TicketAccepted | PreparationFinished, _: Moment) -> bool:
        """the restaurant calls back"""
        return event.restaurant is not None

    lost = [
        Transition((TicketStage.ASKED,), event, None, absorb, when=by_callback)
        for event in (TicketAccepted, PreparationFinished)
    ]
    with _table(restaurant, lambda rows: lost + rows):
        yield


@_bug(breaks=1)
def attention_lost() -> Iterator[None]:
    """Nobody is asked to look at an order that has waited too long."""
    with _table(order, _replaced(order.complain, does=absorb)):
        yield
