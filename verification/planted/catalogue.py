"""Known bugs that are planted on purpose. The oracle and the simulation have to catch each of them.

    with plant("timer-lost"):
        ...

The product contains none of them. Each is a small patch of the product in this process and lasts until the block ends.
Patches avoid Faust and Kafka's client where possible, so that a simulated Kafka runs with the same bugs. Counters start
at their first value with each block, so that a run can be replayed. A patch whose target is gone raises.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import msgspec

from exactly_once.calls.interfaces import CallOutcome, Performer
from exactly_once.calls.rows import CALLS, Call
from exactly_once.calls.runner import CallRunner
from exactly_once.task.interfaces import Record, Transactions
from exactly_once.task.task import POSITIONS, Task
from exactly_once.task.timers import TimerHead
from exactly_once.task.transaction import PendingTransaction, ProduceResult, ProducerRecord
from processors import delivery, dispatch, order, payment, ticket, workflow
from processors.decision import Decision, DecisionContext, Table, Transition, ignore_duplicate
from processors.dispatch import DispatchDecision
from processors.events import PaymentReported
from processors.order import Stage as OrderStage
from processors.ticket import Stage as TicketStage
from processors.ticket import Ticket
from streams.access import rules
from streams.access.tokens import Tokens
from streams.web import masking
from topics.orders import Customer
from topics.payments import Charged, Declined, Refunded
from topics.pos import PreparationFinished, TicketAccepted

EARLY_MS = 5_000
EVERY = 5
"""One record in this many is dropped."""


class Bug(NamedTuple):
    """A bug of the catalogue."""

    name: str
    what: str
    """Description, one sentence."""
    breaks: int
    """Number of the promise that has to catch the bug."""
    planted: Callable[[], AbstractContextManager[None]]
    """Returns a context manager that plants the bug."""


BUGS: dict[str, Bug] = {}
"""Bugs by name."""


class UnknownBug(LookupError):
    """The catalogue has no bug of this name; the message lists the names."""


def known(name: str) -> Bug:
    """Return the bug of this name; raise `UnknownBug` if there is none."""
    if name not in BUGS:
        raise UnknownBug(f"there is no bug {name!r}; there are {', '.join(BUGS)}")
    return BUGS[name]


def plant(name: str) -> AbstractContextManager[None]:
    """Plant the bug of this name within the block; raise `UnknownBug` if there is none."""
    return known(name).planted()


def _bug(*, breaks: int) -> Callable[[Callable[[], Iterator[None]]], Callable[[], AbstractContextManager[None]]]:
    """Add a function that plants a bug to the catalogue; its docstring describes the bug."""

    def enter(planting: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
        name = planting.__name__.replace("_", "-")
        planted = contextmanager(planting)
        BUGS[name] = Bug(name, planting.__doc__ or "", breaks, planted)
        return planted

    return enter


# -- commits ---------------------------------------------------------------------------------------------------------

Partition = tuple[str, int]
Outputs = Mapping[Partition, Sequence[ProducerRecord]]


class _BuggyTransactions:
    """Transactions of a task. Subclasses plant a bug in ``produce``."""

    def __init__(self, task: Task, inner: Transactions) -> None:
        self._task = task
        self._inner = inner
        self._changelogs = {topic: table for table, topic in task._context.changelogs.items()}

    @property
    def in_doubt(self) -> bool:
        return self._inner.in_doubt

    async def produce(self, outputs: Outputs) -> dict[Partition, ProduceResult]:
        return await self._inner.produce(outputs)

    async def end(self) -> None:
        await self._inner.end()

    async def close(self) -> None:
        await self._inner.close()

    def disconnect(self) -> None:
        self._inner.disconnect()


@contextmanager
def _transactions(buggy: type[_BuggyTransactions]) -> Iterator[None]:
    """Give these transactions to every task that opens."""
    original = Task.__init__

    def init(task: Task, *arguments: Any, **more: Any) -> None:
        original(task, *arguments, **more)
        task._transactions = buggy(task, task._transactions)

    with patch.object(Task, "__init__", init):
        yield


class _PositionsFirst(_BuggyTransactions):
    async def produce(self, outputs: Outputs) -> dict[Partition, ProduceResult]:
        first = {tp: records for tp, records in outputs.items() if self._changelogs.get(tp[0]) == POSITIONS}
        rest = {tp: records for tp, records in outputs.items() if tp not in first}
        if not first or not rest:
            return await self._inner.produce(outputs)
        appended = await self._inner.produce(first)
        await self._inner.end()
        return appended | await self._inner.produce(rest)


class _ChangelogRecordDropped(_BuggyTransactions):
    def __init__(self, task: Task, inner: Transactions) -> None:
        super().__init__(task, inner)
        self._counter = count(1)
        self._ends: dict[Partition, ProduceResult] = {}

    async def produce(self, outputs: Outputs) -> dict[Partition, ProduceResult]:
        kept = {
            tp: [record for record in records if tp[0] not in self._changelogs or next(self._counter) % EVERY]
            for tp, records in outputs.items()
        }
        self._ends |= await self._inner.produce({tp: records for tp, records in kept.items() if records})
        return {tp: self._ends.get(tp, ProduceResult(0, 0)) for tp in outputs}


class _DiskFirst(_BuggyTransactions):
    async def produce(self, outputs: Outputs) -> dict[Partition, ProduceResult]:
        appended = await self._inner.produce(outputs)
        committing = self._task.committing
        assert committing is not None
        self._task._store.write(committing.rows, {}, {})
        return appended


@_bug(breaks=1)
def offsets_before_outputs() -> Iterator[None]:
    """Positions are committed in an earlier transaction than the outputs and the state."""
    with _transactions(_PositionsFirst):
        yield


@_bug(breaks=8)
def changelog_record_dropped() -> Iterator[None]:
    """One changelog record in five is not produced, although its row is on disk."""
    with _transactions(_ChangelogRecordDropped):
        yield


@_bug(breaks=6)
def disk_before_commit() -> Iterator[None]:
    """RocksDB gets the rows before the transaction commits."""
    with _transactions(_DiskFirst):
        yield


@_bug(breaks=6)
def output_dropped() -> Iterator[None]:
    """One record in five that a handler emits is not produced."""
    original = PendingTransaction.emit
    counter = count(1)

    def emit(pending: PendingTransaction, topic: str, partition: int, record: ProducerRecord, size: int) -> None:
        if next(counter) % EVERY:
            original(pending, topic, partition, record, size)

    with patch.object(PendingTransaction, "emit", emit):
        yield


@_bug(breaks=9)
def dead_letter_dropped() -> Iterator[None]:
    """A record that cannot be applied is skipped without a dead letter."""

    def dead_letter(task: Task, record: Record, reason: str, exc: BaseException | None = None) -> None:
        """Write no dead letter."""

    with patch.object(Task, "dead_letter", dead_letter):
        yield


@_bug(breaks=10)
def zombie_commits() -> Iterator[None]:
    """Each opening of a task uses a new transactional id, which fences no one, and calls verify no ownership."""
    from exactly_once.engine import Engine  # imported here because it needs Faust and Kafka's client
    from exactly_once.kafka.producer import TransactionalClient

    original = Engine._transactional_client

    def with_new_id(engine: Engine, partition: int) -> TransactionalClient:
        client = original(engine, partition)
        client.transactional_id += f"-{uuid4().hex}"
        return client

    async def assume_ownership(task: Task, call_id: bytes, row: bytes) -> bool:
        return task.get(CALLS, call_id) == row

    with (
        patch.object(Engine, "_transactional_client", with_new_id),
        patch.object(Task, "verify_ownership_for_call", assume_ownership),
    ):
        yield


# -- timers ----------------------------------------------------------------------------------------------------------


@_bug(breaks=5)
def timer_fired_early() -> Iterator[None]:
    """The timers of orders are set five seconds too early."""
    original = order.Wait.timer

    def early(wait: order.Wait, of: order.Order, moment: DecisionContext) -> order.Timer:
        timer = original(wait, of, moment)
        return msgspec.structs.replace(timer, due_ms=timer.due_ms - EARLY_MS)

    with patch.object(order.Wait, "timer", early):
        yield


@_bug(breaks=5)
def timer_lost() -> Iterator[None]:
    """A timer that is set while its task is open is stored, but its task does not wait for it."""
    original = TimerHead.committed

    def committed(head: TimerHead, rows: Mapping[bytes, bytes | None]) -> None:
        original(head, {key: payload for key, payload in rows.items() if payload is None})

    with patch.object(TimerHead, "committed", committed):
        yield


# -- calls -----------------------------------------------------------------------------------------------------------


@contextmanager
def _attempts(key: Callable[[bytes, Call], bytes]) -> Iterator[None]:
    """Make each attempt of a call under this idempotency key."""
    original = CallRunner._attempt

    async def attempt(runner: CallRunner, performer: Performer, call_id: bytes, call: Call) -> CallOutcome:
        return await original(runner, performer, key(call_id, call), call)

    with patch.object(CallRunner, "_attempt", attempt):
        yield


@_bug(breaks=2)
def charge_without_key() -> Iterator[None]:
    """Customers are charged without an idempotency key."""
    with _attempts(lambda call_id, _: b"" if call_id.endswith(b"/charge") else call_id):
        yield


@_bug(breaks=2)
def new_key_on_retry() -> Iterator[None]:
    """A retry of a call uses another idempotency key."""
    with _attempts(lambda call_id, call: call_id + b"/%d" % call.attempt if call.attempt > 1 else call_id):
        yield


# -- doors -----------------------------------------------------------------------------------------------------------


@_bug(breaks=11)
def route_unchecked() -> Iterator[None]:
    """Everybody with a key sees every order."""
    path = "/v1/orders/{order}"
    with patch.dict(rules.RULES, {path: {**rules.RULES[path], "GET": rules.EVERYBODY}}):
        yield


@_bug(breaks=11)
def capability_not_compared() -> Iterator[None]:
    """Any text is accepted as the proof in a callback's address."""
    with patch.object(Tokens, "is_capability", lambda *_: True):
        yield


@_bug(breaks=11)
def mask_forgotten() -> Iterator[None]:
    """Views show customers' names and addresses to operators who have not asked for them."""
    with patch.dict(masking.PERSONAL, {Customer: {}}):
        yield


# -- decisions -------------------------------------------------------------------------------------------------------


@contextmanager
def _table(
    machine: ModuleType, change: Callable[[list[Transition[Any, Any, Any]]], list[Transition[Any, Any, Any]]]
) -> Iterator[None]:
    """Change the transitions of a machine; raise `LookupError` if that changes none of them."""
    original: Table[Any, Any, Any] = machine.TABLE
    rows = change(list(original.rows))
    if rows == list(original.rows):
        raise LookupError(f"{machine.__name__} has no transition that this bug would change")
    with patch.object(machine, "TABLE", Table(original.name, rows)):
        yield


def _replaced(
    effect: Callable[..., Any], **changes: Any
) -> Callable[[list[Transition[Any, Any, Any]]], list[Transition[Any, Any, Any]]]:
    """Return the function that changes the transitions with this effect."""
    return lambda rows: [row._replace(**changes) if row.does is effect else row for row in rows]


@_bug(breaks=3)
def duplicate_applied_twice() -> Iterator[None]:
    """A duplicate report of a charge counts as a second charge, which is refunded."""

    def is_charge(_payment: payment.Payment, event: PaymentReported, _: DecisionContext) -> bool:
        """a report of a charge"""
        return isinstance(event.report, Charged)

    def refund(of: payment.Payment, event: PaymentReported, _: DecisionContext) -> Decision[payment.Payment]:
        """call: refund that charge"""
        assert isinstance(event.report, Charged)
        return payment._with_refund(of, event.report.charge_id, event.report.amount, event.report.currency)

    def believe(rows: list[Transition[Any, Any, Any]]) -> list[Transition[Any, Any, Any]]:
        believed = [
            row._replace(at=payment.HAS_CHARGE, does=refund, when=is_charge)
            for row in rows
            if row.does is ignore_duplicate and row.when is payment.is_known_report
        ]
        return believed + rows

    with _table(payment, believe):
        yield


@_bug(breaks=3)
def callback_believed() -> Iterator[None]:
    """A callback counts as a charge: it pays the order and cancels the call."""

    def believe(report: Charged | Declined | Refunded) -> Charged | PaymentReported:
        return report if isinstance(report, Charged) else PaymentReported(report)

    with patch.object(workflow, "PaymentReported", believe):
        yield


@_bug(breaks=3)
def refund_forgotten() -> Iterator[None]:
    """An order that the restaurant rejects ends without a refund."""

    def reject(rejected: order.Order, event: Any, moment: DecisionContext) -> Decision[order.Order]:
        return msgspec.structs.replace(order.reject_by_restaurant(rejected, event, moment), internal_events=())

    with _table(order, _replaced(order.reject_by_restaurant, to=OrderStage.REJECTED, does=reject)):
        yield


@_bug(breaks=4)
def driver_assigned_twice() -> Iterator[None]:
    """A waiting delivery is assigned to every driver who becomes available, and no driver is rejected."""

    original = dispatch.assign_oldest

    def assign(*given: Any) -> DispatchDecision:
        decision = original(*given)
        kept = {key: row for key, row in decision.rows.items() if dispatch.kind_of(key) != "pending"}
        return msgspec.structs.replace(decision, rows=kept)

    with (
        patch.object(dispatch, "assign_oldest", assign),
        _table(delivery, _replaced(delivery.refuse_late_driver, does=ignore_duplicate)),
    ):
        yield


@_bug(breaks=7)
def early_callback_lost() -> Iterator[None]:
    """A restaurant's callback that arrives before the answer to the request is committed is ignored."""

    def by_callback(_ticket: Ticket, event: TicketAccepted | PreparationFinished, _: DecisionContext) -> bool:
        """the restaurant calls back"""
        return event.restaurant is not None

    lost: list[Transition[Any, Any, Any]] = [
        Transition((TicketStage.ASKED,), event, None, ignore_duplicate, when=by_callback)
        for event in (TicketAccepted, PreparationFinished)
    ]
    with _table(ticket, lambda rows: lost + rows):
        yield


@_bug(breaks=1)
def attention_lost() -> Iterator[None]:
    """An order that has waited too long raises no attention."""
    with _table(order, _replaced(order.flag_overdue, does=ignore_duplicate)):
        yield
