"""A small world in memory: every machine, the topics between them, and parties outside who may say anything.

Topics keep order within a key and none between keys, as Kafka does with one key a partition. Nothing here decides what
happens next: the tests do, and the world watches that what must never happen does not.
"""

from collections import Counter, defaultdict, deque
from typing import Any

import msgspec

from processors import dispatch, driver, workflow
from processors.decision import Call, CancelTimer, Outcome, SetTimer
from processors.driver import Driver, Stage
from processors.events import CallAnswered, TimerDue
from processors.waiting import DispatchIndex, Overlay
from processors.workflow import JournalLine, Step, Workflow
from tests.processors.cases import NOW, RESTAURANT, P
from topics.identity import owner_of
from topics.order_updates import OrderStatus, OrderUpdated
from topics.orders import Placed
from topics.records import Record, write

STATUS = OrderStatus
LEGAL = {
    None: {STATUS.CREATED},
    STATUS.CREATED: {STATUS.SCHEDULED, STATUS.REJECTED},
    STATUS.SCHEDULED: {STATUS.IN_PREPARATION, STATUS.REJECTED},
    STATUS.IN_PREPARATION: {STATUS.SCHEDULING_DELIVERY},
    STATUS.SCHEDULING_DELIVERY: {STATUS.WAITING_FOR_DRIVER},
    STATUS.WAITING_FOR_DRIVER: {STATUS.IN_DELIVERY},
    STATUS.IN_DELIVERY: {STATUS.DELIVERED},
    STATUS.DELIVERED: set(),
    STATUS.REJECTED: set(),
}
"""What an observer may see follow on what; the same again is always allowed."""


LATE = {"asked", "retirement", "history"}
"""The timers that are due when nothing has been under way for a day or more."""


def _as_stored(flow: Workflow) -> Workflow:
    """The rows as they come back from the disk."""
    return msgspec.json.decode(msgspec.json.encode(flow), type=Workflow)


class World:
    """The committed state of everything, and what is under way."""

    def __init__(self) -> None:
        self.now_ms = NOW
        self.orders: dict[str, Workflow] = {}
        self.drivers: dict[str, Driver] = {}
        self.rows: dict[bytes, bytes] = {}
        self.index = DispatchIndex()
        self.under_way: defaultdict[tuple[str, str], deque[Record]] = defaultdict(deque)
        self.said: list[tuple[int, Record]] = []
        """Every record that was ever put on a topic that somebody reads, and when."""
        self.timers: dict[str, int] = {}
        self.calls: dict[str, Call] = {}
        self.charges: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """The payment provider's ledger: order -> charge -> how much."""
        self.returned: set[tuple[str, str]] = set()
        """Of the charges, those that were given back: (order, charge)."""
        self.updates: defaultdict[str, list[OrderUpdated]] = defaultdict(list)
        self.journal: defaultdict[str, list[JournalLine]] = defaultdict(list)
        self.outcomes: Counter[Outcome] = Counter()

    # -- what happens ------------------------------------------------------------------------------------------------

    def say(self, record: Record) -> None:
        """Put a record on its topic."""
        self.said.append((self.now_ms, record))
        self.under_way[record.family, record.key].append(record)

    def waiting(self) -> list[tuple[str, str]]:
        """The topics and keys with records under way."""
        return [place for place, records in self.under_way.items() if records]

    def deliver(self, place: tuple[str, str]) -> Outcome:
        """The task reads the next record of a topic and key."""
        family, key = place
        record = self.under_way[place].popleft()
        self.now_ms += 20
        match family:
            case "drivers" | "locations":
                return self._move_driver(key, record)
            case "dispatch":
                return self._match(record)
            case _:
                return self._move_order(key, record)

    def answer(self, key: str, status: int, body: object = None) -> Outcome:
        """A call is answered."""
        call = self.calls.pop(key)
        text = msgspec.json.encode(body).decode()
        return self._move_order(owner_of(key), CallAnswered(key, call.kind, status, text))

    def fire(self) -> bool:
        """Time goes by until the next timer; whether there was one.

        No record is under way for a day: dispatch forgets by then what it was asked, and a month later orders go.
        """
        timers = self.order_timers() if self.waiting() else self.timers
        if not timers:
            return False
        name = min(timers, key=lambda timer: (timers[timer], timer))
        self.now_ms = max(self.now_ms, self.timers.pop(name))
        if "/asked/" in name:
            self._match(TimerDue(name))
        else:
            asking = any(owner_of(call) == owner_of(name) for call in self.calls)
            assert self._move_order(owner_of(name), TimerDue(name, asking=asking)) is Outcome.APPLIED
        return True

    def said_today(self) -> list[Record]:
        """What was said not so long ago that dispatch may have forgotten it."""
        return [record for said_ms, record in self.said if self.now_ms - said_ms < P.asked_kept_s * 1000]

    def order_timers(self) -> dict[str, int]:
        """The timers of orders that have not ended."""
        return {name: due for name, due in self.timers.items() if not LATE & set(name.split("/"))}

    def timers_of(self, order: str) -> list[str]:
        """The names of the timers that are running for an order."""
        return [name for name in self.timers if owner_of(name) == order]

    def _move_order(self, order: str, event: Any) -> Outcome:
        before = self.orders.get(order, Workflow())
        restaurant = RESTAURANT if isinstance(event, Placed) else None
        step = workflow.apply(before, event, self.now_ms, P, restaurant)
        self._watch_step(order, before, step)
        if step.retire:
            self._watch_retirement(order, before)
        if step.workflow != Workflow():
            self.orders[order] = _as_stored(step.workflow)
        elif order in self.orders:
            self._forget(order)
        self._carry_out(step.timers, step.emit)
        for call in step.calls:
            self.calls[call.key] = call
        for key in step.cancel_calls:
            self.calls.pop(key, None)
        self.outcomes[step.outcome] += 1
        return step.outcome

    def _forget(self, order: str) -> None:
        """A year later nobody remembers it, neither we, nor the payment provider, nor a driver who has brought others
        since: the next of its id is a new one."""
        del self.orders[order]
        for memory in (self.charges, self.updates, self.journal):
            memory.pop(order, None)
        self.returned = {(other, charge) for other, charge in self.returned if other != order}
        self.calls = {key: call for key, call in self.calls.items() if owner_of(key) != order}
        for name, twin in self.drivers.items():
            if twin.last is not None and twin.last.delivery == order:
                self.drivers[name] = msgspec.structs.replace(twin, last=None)

    def _move_driver(self, name: str, record: Record) -> Outcome:
        decision = driver.decide(self.drivers.get(name), record, self.now_ms, P)
        if decision.state is not None:
            self.drivers[name] = msgspec.json.decode(msgspec.json.encode(decision.state), type=Driver)
        self._carry_out(decision.timers, decision.emit)
        return decision.outcome

    def _match(self, event: Any) -> Outcome:
        decision = dispatch.decide(Overlay(self.index, self.rows.get), event, self.now_ms, P)
        for key, row in decision.rows.items():
            value = None if row is None else msgspec.json.encode(row)
            self.index.apply(key.encode(), value)
            if value is None:
                del self.rows[key.encode()]
            else:
                self.rows[key.encode()] = value
        self._carry_out(decision.timers, decision.emit)
        return decision.outcome

    def _carry_out(self, timers: tuple[SetTimer | CancelTimer, ...], emit: tuple[Record, ...]) -> None:
        for timer in timers:
            if isinstance(timer, SetTimer):
                assert timer.name not in self.timers, f"{timer.name} runs twice"
                self.timers[timer.name] = timer.due_ms
            else:
                assert self.timers.pop(timer.name) == timer.due_ms
        for record in emit:
            assert record.id, f"{type(record).__name__} has no id"
            assert type(record)(**{field: getattr(record, field) for field in record.__struct_fields__}) == record
            assert msgspec.json.decode(write(record), type=type(record)) == record
            if isinstance(record, OrderUpdated):
                self.updates[record.order].append(record)
            else:
                self.say(record)

    # -- what must never be ------------------------------------------------------------------------------------------

    def _watch_step(self, order: str, before: Workflow, step: Step) -> None:
        """What a step says it changed is what it changed, and the journal has a line for it."""
        for name in Workflow.__struct_fields__:
            was, now = getattr(before, name), getattr(step.workflow, name)
            assert (was != now) <= (name in step.changed), f"{name} changed silently"
            if name in step.changed:
                assert step.changed[name] == now
        lines = self.journal[order]
        assert [line.seq for line in step.journal] == list(range(len(lines) + 1, len(lines) + 1 + len(step.journal)))
        lines.extend(step.journal)
        if step.outcome is Outcome.ABSORBED:
            assert (step.changed, step.journal, step.emit, step.timers, step.calls) == ({}, (), (), (), ())
        if step.outcome is Outcome.UNKNOWN:
            assert before == Workflow()
            assert not step.changed
        if step.outcome is Outcome.REFUSED:
            assert step.reason

    def watch(self) -> None:
        """Whatever has happened until now, this holds."""
        for order, flow in self.orders.items():
            if flow.history is None:
                self._watch_order(order, flow)
            else:
                assert flow == Workflow(history=flow.history), f"{order} has not left whole"
                assert self.timers_of(order) == [f"{order}/history"]
        live = [one.assignment.delivery for one in self.drivers.values() if one.assignment is not None]
        assert len(live) == len(set(live)), f"a delivery has two drivers: {live}"

    def _watch_order(self, order: str, flow: Workflow) -> None:
        assert flow.order is not None
        row, updates = flow.order, self.updates[order]
        running = self.timers_of(order)
        assert running == ([] if row.timer is None else [row.timer.name])
        assert row.timer is None or row.timer.due_ms == self.timers[row.timer.name]
        assert running or row.concerns, f"{order} is lost: {row.stage.value}, nobody waits and nobody looks"
        assert [update.version for update in updates] == list(range(1, row.version + 1))
        seen: OrderStatus | None = None
        for update in updates:
            assert update.status is seen or update.status in LEGAL[seen], f"{seen} -> {update.status}"
            seen = update.status
        assert seen is row.status
        assert (row.eta_ms is not None) == (not row.status.ended)
        assert row.journal == len(self.journal[order])

    def watch_end(self) -> None:
        """When nothing is left to happen, every order has ended or a person looks, and the money is right."""
        self.watch()
        for name, twin in self.drivers.items():
            if twin.stage is Stage.WAITING_FOR_WORK:
                row = self.rows.get(f"{twin.region}/driver/{name}".encode())
                assert row is not None, f"{name} waits, and dispatch does not know"
                assert msgspec.json.decode(row)["shift"] == twin.shift
        for order, flow in self.orders.items():
            if flow.order is not None:
                assert flow.order.status.ended or flow.order.concerns, f"{order} ends as {flow.order.stage.value}"
                self._watch_money(order, flow)

    def _watch_retirement(self, order: str, flow: Workflow) -> None:
        """An order leaves when nothing is left to happen to it."""
        assert flow.order is not None
        assert flow.order.status.ended
        assert not flow.order.concerns
        assert flow.payment is not None
        assert all(refund.done for refund in flow.payment.refunds)
        assert not any(owner_of(call) == order for call in self.calls), f"{order} leaves before it was answered"
        self._watch_money(order, flow)

    def _watch_money(self, order: str, flow: Workflow) -> None:
        """The customer has paid what was delivered, once, and nothing else."""
        assert flow.order is not None
        assert flow.placed is not None
        charges = self.charges[order].items()
        kept = [amount for charge, amount in charges if (order, charge) not in self.returned]
        owed = [] if flow.order.status is OrderStatus.REJECTED else [flow.placed.total]
        assert kept == owed, f"{order} ends as {flow.order.stage.value}, charged {kept}"
