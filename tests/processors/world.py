"""A small world in memory: all machines, the topics between them, and outside parties that may send anything.

Topics keep the order within a key and no order between keys, like Kafka with one key a partition. The tests decide what
happens next; the world checks the invariants.
"""

from collections import Counter, defaultdict, deque
from typing import Any

import msgspec

from processors import dispatch, driver, payment, workflow
from processors.call_results import Verdict, verdict_on
from processors.decision import Call, CancelTimer, Outcome, SetTimer
from processors.driver import Driver, Stage
from processors.events import CallAnswered, TimerDue
from processors.spatial_index import DispatchIndex, Overlay
from processors.workflow import JournalLine, Step, Workflow
from tests.processors.cases import NOW, RESTAURANT, P
from topics.identity import owner_of
from topics.order_history import RowKind
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
"""Statuses that may follow a status. A repeated status is always allowed. The oracle has a separate copy on purpose."""


LATE = {"asked", "retirement", "history", "silence"}
"""Parts of the names of timers that only fire when no record has been in flight for minutes or more."""


def _as_stored(flow: Workflow) -> Workflow:
    """Return the rows as they are read back from storage."""
    return msgspec.json.decode(msgspec.json.encode(flow), type=Workflow)


class World:
    """Committed state of all machines, and the records in flight."""

    def __init__(self) -> None:
        self.now_ms = NOW
        self.orders: dict[str, Workflow] = {}
        self.drivers: dict[str, Driver] = {}
        self.forgotten_shift = 0
        self.rows: dict[bytes, bytes] = {}
        self.index = DispatchIndex()
        self.in_flight: defaultdict[tuple[str, str], deque[Record]] = defaultdict(deque)
        self.produced: list[tuple[int, Record]] = []
        """Every record that was produced to a topic with a reader, and the time."""
        self.timers: dict[str, int] = {}
        self.calls: dict[str, Call] = {}
        self.woken: list[str] = []
        """Open calls that were to be made again at once."""
        self.charges: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """The payment provider's ledger: order -> charge -> amount."""
        self.refunded: set[tuple[str, str]] = set()
        """Refunded charges: (order, charge)."""
        self.updates: defaultdict[str, list[OrderUpdated]] = defaultdict(list)
        self.journal: defaultdict[str, list[JournalLine]] = defaultdict(list)
        self.outcomes: Counter[Outcome] = Counter()

    # -- actions -----------------------------------------------------------------------------------------------------

    def produce(self, record: Record) -> None:
        """Produce a record to its topic."""
        self.produced.append((self.now_ms, record))
        self.in_flight[record.family, record.key].append(record)

    def pending(self) -> list[tuple[str, str]]:
        """List the topics and keys with records in flight."""
        return [place for place, records in self.in_flight.items() if records]

    def deliver(self, place: tuple[str, str]) -> Outcome:
        """Apply the next record of a topic and key."""
        family, key = place
        record = self.in_flight[place].popleft()
        self.now_ms += 20
        match family:
            case "drivers" | "locations":
                return self._move_driver(key, record)
            case "dispatch":
                return self._match(record)
            case _:
                return self._move_order(key, record)

    def answer(self, key: str, status: int, body: object = None) -> Outcome:
        """Apply the answer to a call. An unclear one leaves the call open, and one without a result does nothing."""
        answer = CallAnswered(key, self.calls[key].kind, status, msgspec.json.encode(body).decode())
        verdict = verdict_on(answer)
        if verdict is Verdict.LATER:
            return Outcome.ABSORBED
        if verdict is Verdict.FINAL:
            del self.calls[key]
        return self._move_order(owner_of(key), answer)

    def replay_answer(self, answer: CallAnswered) -> Outcome:
        """Apply an answer again, as an operator does with a dead letter."""
        return self._move_order(owner_of(answer.key), answer)

    def fire(self) -> bool:
        """Advance the time to the next timer and fire it; return False if there is none.

        While records are in flight, only timers of orders fire: no record takes as long as a driver's silence, as a
        day, after which dispatch deletes requests, or as a month, after which orders are retired.
        """
        timers = self.order_timers() if self.pending() else self.timers
        if not timers:
            return False
        name = min(timers, key=lambda timer: (timers[timer], timer))
        self.now_ms = max(self.now_ms, self.timers.pop(name))
        if "/asked/" in name:
            self._match(TimerDue(name))
        elif name.endswith("/silence"):
            self._move_driver(owner_of(name), TimerDue(name))
        else:
            due = TimerDue(name, self._has_open_call(owner_of(name)))
            assert self._move_order(owner_of(name), due) is Outcome.APPLIED
        return True

    def recent_records(self) -> list[Record]:
        """List the records that are recent enough for dispatch to remember them."""
        return [
            record for produced_ms, record in self.produced if self.now_ms - produced_ms < P.request_memory_s * 1000
        ]

    def order_timers(self) -> dict[str, int]:
        """Return the timers of orders that have not ended."""
        return {name: due for name, due in self.timers.items() if not LATE & set(name.split("/"))}

    def timers_of(self, order: str) -> list[str]:
        """List the names of the running timers of an order."""
        return [name for name in self.timers if owner_of(name) == order]

    def _move_order(self, order: str, event: Any) -> Outcome:
        before = self.orders.get(order, Workflow())
        restaurant = RESTAURANT if isinstance(event, Placed) else None
        has_open_call = self._has_open_call(order)
        step = workflow.decide_step(before, event, self.now_ms, P, restaurant, has_open_call=has_open_call)
        self._check_step(order, before, step)
        if step.retire:
            self._check_retirement(order, before)
        if step.workflow != Workflow():
            self.orders[order] = _as_stored(step.workflow)
        elif order in self.orders:
            self._forget(order)
        self._carry_out(step.timers, step.emit)
        for call in step.calls:
            self.calls[call.key] = call
        for key in step.cancel_calls:
            self.calls.pop(key, None)
        self.woken.extend(key for key in step.wake_calls if key in self.calls)
        self.outcomes[step.outcome] += 1
        return step.outcome

    def _has_open_call(self, order: str) -> bool:
        row = self.orders.get(order, Workflow()).payment
        return row is not None and any(key in self.calls for key in payment.call_keys(row))

    def _forget(self, order: str) -> None:
        """Forget an order whose history has expired; so do the payment provider and the drivers.

        The next order with its id is a new one.
        """
        del self.orders[order]
        for memory in (self.charges, self.updates, self.journal):
            memory.pop(order, None)
        self.refunded = {(other, charge) for other, charge in self.refunded if other != order}
        self.calls = {key: call for key, call in self.calls.items() if owner_of(key) != order}
        for name, one in self.drivers.items():
            if one.last is not None and one.last.delivery == order:
                self.drivers[name] = msgspec.structs.replace(one, last=None)

    def _move_driver(self, name: str, event: Record | TimerDue) -> Outcome:
        decision = driver.decide(self.drivers.get(name), event, self.now_ms, P, self.forgotten_shift)
        if decision.deleted:
            self.forgotten_shift = max(self.forgotten_shift, self.drivers.pop(name).shift)
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
                self.produce(record)

    # -- invariants --------------------------------------------------------------------------------------------------

    def _check_step(self, order: str, before: Workflow, step: Step) -> None:
        """Check that a step lists exactly its changes, and that the journal has no gap."""
        for name in Workflow.__struct_fields__:
            was, now = getattr(before, name), getattr(step.workflow, name)
            assert (was != now) <= (name in step.changed), f"{name} changed silently"
            if name in step.changed:
                assert step.changed[RowKind(name)] == now
        lines = self.journal[order]
        assert [line.seq for line in step.journal] == list(range(len(lines) + 1, len(lines) + 1 + len(step.journal)))
        lines.extend(step.journal)
        if step.outcome is Outcome.ABSORBED:
            assert (step.changed, step.journal, step.emit, step.timers, step.calls) == ({}, (), (), (), ())
        if step.outcome is Outcome.NOT_FOUND:
            assert before == Workflow()
            assert not step.changed
        if step.outcome is Outcome.REFUSED:
            assert step.reason

    def check(self) -> None:
        """Check the invariants that hold at any time."""
        for order, flow in self.orders.items():
            if flow.history is None:
                self._check_order(order, flow)
            else:
                assert flow == Workflow(history=flow.history), f"{order} has left rows behind"
                assert self.timers_of(order) == [f"{order}/history"]
        for name, one in self.drivers.items():
            assert self.timers.get(driver.timer_name(name), 0) == one.timer_ms
            assert one.timer_ms or one.assignment, f"{name} has no delivery and is watched by no timer"
        assigned = [one.assignment.delivery for one in self.drivers.values() if one.assignment is not None]
        assert len(assigned) == len(set(assigned)), f"a delivery has two drivers: {assigned}"

    def _check_order(self, order: str, flow: Workflow) -> None:
        assert flow.order is not None
        row, updates = flow.order, self.updates[order]
        running = self.timers_of(order)
        assert running == ([] if row.timer is None else [row.timer.name])
        assert row.timer is None or row.timer.due_ms == self.timers[row.timer.name]
        assert running or row.attention, f"{order} is lost: {row.stage.value}, without a timer or attention"
        assert [update.version for update in updates] == list(range(1, row.version + 1))
        seen: OrderStatus | None = None
        for update in updates:
            assert update.status is seen or update.status in LEGAL[seen], f"{seen} -> {update.status}"
            seen = update.status
        assert seen is row.status
        assert (row.eta_ms is not None) == (not row.status.ended)
        assert row.journal == len(self.journal[order])

    def check_end(self) -> None:
        """Check the end of a run: every order has ended or needs attention, and the money is right."""
        self.check()
        for name, one in self.drivers.items():
            if one.stage is Stage.WAITING_FOR_WORK:
                row = self.rows.get(f"{one.region}/driver/{name}".encode())
                assert row is not None, f"{name} waits, but dispatch has no row"
                assert msgspec.json.decode(row)["shift"] == one.shift
        for order, flow in self.orders.items():
            if flow.order is not None:
                assert flow.order.status.ended or flow.order.attention, f"{order} ends as {flow.order.stage.value}"
                self._check_money(order, flow)

    def _check_retirement(self, order: str, flow: Workflow) -> None:
        """Check that an order is retired only when it is complete."""
        assert flow.order is not None
        assert flow.order.status.ended
        assert not flow.order.attention
        assert flow.payment is not None
        assert all(refund.done for refund in flow.payment.refunds)
        open_calls = [key for key in self.calls if owner_of(key) == order and not key.endswith("/prepare")]
        assert not open_calls, f"{order} leaves before {open_calls} were answered"
        self._check_money(order, flow)

    def _check_money(self, order: str, flow: Workflow) -> None:
        """Check that the customer has paid for a delivered order once, and for a rejected order nothing."""
        assert flow.order is not None
        assert flow.placed is not None
        charges = self.charges[order].items()
        kept = [amount for charge, amount in charges if amount and (order, charge) not in self.refunded]
        total = [flow.placed.total] if flow.placed.total else []
        owed = [] if flow.order.status is OrderStatus.REJECTED else total
        assert kept == owed, f"{order} ends as {flow.order.stage.value}, charged {kept}"
