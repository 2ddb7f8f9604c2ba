"""All machines together, in random order."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import delivery, dispatch, driver, history, order, payment, ticket
from processors.call_kinds import CallKind
from processors.decision import DecisionContext, Outcome, Table, Transition
from processors.events import CallAnswered
from tests.processors.cases import HOME, KITCHEN, REGION, STREET, later, placed
from tests.processors.world import World
from topics import deliveries
from topics.drivers import Delivered, PickedUp, SetAvailable, SetUnavailable
from topics.locations import Location
from topics.order_updates import OrderStatus
from topics.orders import AttentionSettled, CallAbandonRequested, CallRetryRequested, ErasureRequested, Placed
from topics.payments import Charged, Declined, Refunded
from topics.places import Position
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected

DRIVERS = ("asha", "ravi")
ORDERS = ("bites:1", "bites:2", "bites:3", "bites:4")
PLACES = (KITCHEN, HOME, STREET, Position(18.95, 72.82))
STEPS = 600
LATE_TURNS = 500
"""Number of timers during which late events may still arrive; afterwards the world must come to rest."""
TABLES: tuple[Table[Any, Any, Any], ...] = (
    order.TABLE,
    payment.TABLE,
    ticket.TABLE,
    delivery.TABLE,
    history.TABLE,
    driver.TABLE,
)


def drain(world: World) -> None:
    """Apply records until none is in flight."""
    for _ in range(5_000):
        if not (places := world.pending()):
            return
        world.deliver(places[0])
    raise AssertionError("records go round in circles")


def free_of_charge(order: Placed) -> Placed:
    """Return the order with a total of 0."""
    gift = msgspec.structs.replace(order.items[0], unit_price=0, modifiers=())
    return msgspec.structs.replace(order, items=(gift,), fees=(), tip=0, tax=0, total=0)


def charged(world: World, order: str, charge: str = "c1", amount: int = 630) -> Charged:
    """Charge at the provider and return its report. A repeated charge returns the first amount."""
    charged_amount = world.charges[order].setdefault(charge, amount)
    return Charged(order=order, charge_id=charge, amount=charged_amount, currency="INR")


def refund(world: World, order: str, charge: str) -> Refunded:
    """Refund at the provider and return its report."""
    world.refunded.add((order, charge))
    return Refunded(order=order, charge_id=charge)


def answer_well(world: World, key: str) -> None:
    """Answer a call with success."""
    order, request = key.split("/")[0], world.calls[key].request
    match world.calls[key].kind:
        case "charge":
            event = charged(world, order)
            world.answer(key, 200, {"charge_id": event.charge_id, "amount": event.amount, "currency": event.currency})
        case "refund":
            refund(world, order, request.charge_id)  # type: ignore[attr-defined]
            world.answer(key, 200, {"refund_id": "r1"})
        case "prepare":
            world.answer(key, 200, {"status": "accepted"})


def test_order_goes_from_placed_to_delivered() -> None:
    world = World()
    world.produce(placed("1"))
    drain(world)
    answer_well(world, "bites:1/charge")
    answer_well(world, "bites:1/prepare")
    world.produce(PreparationFinished(order="bites:1"))
    world.produce(SetAvailable(id="a1", driver="asha", region=REGION, position=STREET))
    drain(world)
    world.check()
    world.produce(Location(driver="asha", position=KITCHEN, at=later(1)))
    world.produce(PickedUp(driver="asha", delivery="bites:1"))
    world.produce(Location(driver="asha", position=Position(18.9280, 72.8300), at=later(60)))
    world.produce(Delivered(driver="asha", delivery="bites:1"))
    drain(world)
    world.check_end()
    assert not world.calls
    assert not world.order_timers()
    assert world.outcomes[Outcome.REFUSED] == 0
    statuses = list(dict.fromkeys(update.status for update in world.updates["bites:1"]))
    assert statuses == [
        OrderStatus.CREATED,
        OrderStatus.SCHEDULED,
        OrderStatus.IN_PREPARATION,
        OrderStatus.SCHEDULING_DELIVERY,
        OrderStatus.WAITING_FOR_DRIVER,
        OrderStatus.IN_DELIVERY,
        OrderStatus.DELIVERED,
    ]


class AnyWorld:
    """Random world: parties send anything at any time, twice or not at all; records overtake each other; timers fire.

    The seed decides everything, including how often the parties misbehave.
    """

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.world = World()
        self.shifts = self.seconds = self.requests = 0
        self.misbehaviour = self.choose.choice((0.0, 0.1, 0.5))
        people = (self.accept_or_finish, self.accept_or_finish, self.become_available, self.work, self.work, self.move)
        self.usual: tuple[Callable[[], None], ...] = (self.place, self.answer, *people)
        money = (self.answer_badly, self.report_charge, self.decline, self.refund, self.replay_answer)
        drivers = (self.send_any_driver_event, self.go_offline, self.mix_up_keys, self.claim)
        kafka = (self.repeat_record, self.repeat_record, self.overtake, self.overtake, self.fire_timer)
        self.odd: tuple[Callable[[], None], ...] = (
            *money,
            self.operate,
            self.send_any_ticket_event,
            *drivers,
            *kafka,
        )

    def run(self) -> World:
        """Take random steps; then let all parties behave until the world is at rest; then let the history expire."""
        for _ in range(STEPS):
            self.step()
            self.world.check()
        for _ in range(300):
            drain(self.world)
            if not self.behave() and not (self.world.order_timers() and self.world.fire()):
                self.world.check_end()
                self.expire_everything()
                return self.world
        raise AssertionError("it does not come to rest")

    def expire_everything(self) -> None:
        """Fire all timers, with some late events: every order without attention is retired and deleted.

        Requests of deliveries that still wait for a driver keep their rows.
        """
        for turn in range(5_000):
            if self.world.timers.keys() <= self.timers_of_pending_requests():
                break
            self.world.fire()
            for send in (self.place, self.report_charge, self.claim, self.send_any_ticket_event, self.erase):
                if turn < LATE_TURNS and self.choose.random() < self.misbehaviour / 10:
                    send()
            drain(self.world)
            self.world.check()
        else:
            raise AssertionError("timers fire for ever")
        assert all(flow.order is not None and flow.order.attention for flow in self.world.orders.values())

    def timers_of_pending_requests(self) -> set[str]:
        """Return the timers of requests whose delivery still waits."""
        rows = self.world.index.rows().values()
        return {
            dispatch.request_key(row.region, row.delivery) for row in rows if isinstance(row, dispatch.PendingDelivery)
        }

    def step(self) -> None:
        """Apply some records, or let a party send something."""
        if self.choose.random() < 0.6:
            for _ in range(self.choose.randint(1, 3)):
                self.deliver()
        elif self.choose.random() < self.misbehaviour:
            self.choose.choice(self.odd)()
        else:
            self.choose.choice(self.usual)()

    # -- Kafka and time ----------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        if places := self.world.pending():
            self.world.deliver(self.choose.choice(places))

    def repeat_record(self) -> None:
        """Repeat a recent record of any producer."""
        if recent := self.world.recent_records():
            self.world.produce(self.choose.choice(recent[-40:]))

    def overtake(self) -> None:
        """Reorder the records of a key, as a producer that retries may do."""
        if places := self.world.pending():
            self.world.in_flight[self.choose.choice(places)].rotate(1)

    def fire_timer(self) -> None:
        self.world.fire()

    # -- the ordering provider ---------------------------------------------------------------------------------------

    def place(self) -> None:
        wished_s = self.choose.choice((None, None, 60, 7200))
        deliver_at = None if wished_s is None else later(wished_s)
        order = placed(self.choose.choice(ORDERS).partition(":")[2], deliver_at=deliver_at)
        self.world.produce(free_of_charge(order) if self.choose.random() < 0.2 else order)

    # -- the payment provider ----------------------------------------------------------------------------------------

    def answer(self) -> None:
        if self.world.calls:
            key = self.choose.choice(sorted(self.world.calls))
            if self.choose.random() < 0.7:
                answer_well(self.world, key)
            else:
                self.world.answer(key, 202)

    def answer_badly(self) -> None:
        """Answer a call with an error. A provider that has charged does not decline under the same key."""
        if self.world.calls:
            key = self.choose.choice(sorted(self.world.calls))
            charged_already = self.world.charges[key.split("/")[0]] and key.endswith("/charge")
            status = self.choose.choice((400, 409, 422) if charged_already else (400, 402, 409, 422))
            body = {"reason": "no", "status": self.choose.choice(("rejected", 409))}
            self.world.answer(key, status, body)

    def report_charge(self) -> None:
        """Charge while the call is open, rarely a wrong amount, and report it; or report a charge that was not made."""
        order, amount = self.choose.choice(ORDERS), self.choose.choice((630, 630, 63, 0))
        if f"{order}/charge" in self.world.calls and self.choose.random() < 0.7:
            self.world.produce(charged(self.world, order, amount=amount))
        else:
            charge = self.choose.choice(("c1", "c2"))
            self.world.produce(Charged(order=order, charge_id=charge, amount=amount, currency="INR"))

    def replay_answer(self) -> None:
        """Replay an answer to a call of an order: the first one again, or one that contradicts it.

        While the call to charge is open, its answers agree: the provider keeps the result of a key.
        """
        order = self.choose.choice(ORDERS)
        flow = self.world.orders.get(order)
        if flow is None or flow.payment is None:
            return
        is_open = flow.payment.stage is payment.Stage.DUE
        if self.choose.random() < 0.2:
            key = self.choose.choice(payment.call_keys(flow.payment))
            kind = CallKind.CHARGE if key.endswith("/charge") else CallKind.REFUND
            self.world.replay_answer(CallAnswered(key, kind, 400, ""))
        elif self.choose.random() < 0.3 and not (is_open and self.world.charges[order]):
            self.world.replay_answer(CallAnswered(f"{order}/charge", CallKind.CHARGE, 402, ""))
        elif self.choose.random() < 0.7:
            event = charged(self.world, order, "c1" if is_open else self.choose.choice(("c1", "c1", "c2")))
            body = {"charge_id": event.charge_id, "amount": event.amount, "currency": event.currency}
            text = msgspec.json.encode(body).decode()
            self.world.replay_answer(CallAnswered(f"{order}/charge", CallKind.CHARGE, 200, text))
        else:
            due = [refund.charge_id for refund in flow.payment.refunds]
            charge = self.choose.choice([*due, "c9"])
            self.world.refunded.add((order, charge))
            self.world.replay_answer(CallAnswered(f"{order}/refund/{charge}", CallKind.REFUND, 200, ""))

    def decline(self) -> None:
        self.world.produce(Declined(order=self.choose.choice(ORDERS), reason="no"))

    def refund(self) -> None:
        """Report a requested refund, or one of an unknown charge."""
        asked = sorted(key for key, call in self.world.calls.items() if call.kind == "refund")
        if asked:
            order, _, charge = self.choose.choice(asked).split("/")
            self.world.produce(refund(self.world, order, charge))  # the call is open: its answer will confirm it
        else:
            self.world.produce(Refunded(order=self.choose.choice(ORDERS), charge_id="c9"))

    # -- an operator -------------------------------------------------------------------------------------------------

    def operate(self) -> None:
        """Retry or give up any call, open or not; or settle attention."""
        if self.choose.random() < 0.2:
            self.world.produce(AttentionSettled(id="settled", order=self.choose.choice(ORDERS)))
            return
        if self.choose.random() < 0.1:
            self.erase()
            return
        request = self.choose.choice((CallRetryRequested, CallRetryRequested, CallAbandonRequested))
        purpose = self.choose.choice(("charge", "prepare", "refund/c1", "refund/c2"))
        self.requests += 1
        self.world.produce(request(id=f"w{self.requests}", call=f"{self.choose.choice(ORDERS)}/{purpose}"))

    def erase(self) -> None:
        self.world.produce(ErasureRequested(id="erased", order=self.choose.choice(ORDERS)))

    # -- the restaurant ----------------------------------------------------------------------------------------------

    def accept_or_finish(self) -> None:
        """Accept or finish a ticket; sometimes the acceptance is skipped."""
        cooking = [name for name, flow in self.world.orders.items() if flow.ticket is not None]
        if cooking:
            record_type = self.choose.choice((TicketAccepted, PreparationFinished))
            self.world.produce(record_type(order=self.choose.choice(cooking)))

    def send_any_ticket_event(self) -> None:
        record_type = self.choose.choice((TicketAccepted, TicketRejected, TicketRejected, PreparationFinished))
        restaurant = self.choose.choice((None, None, "lakshmi", "other"))
        self.world.produce(record_type(order=self.choose.choice(ORDERS), restaurant=restaurant))

    # -- the drivers -------------------------------------------------------------------------------------------------

    def become_available(self) -> None:
        self.shifts += 1
        region = REGION if self.choose.random() < 0.9 else "elsewhere"
        position = self.choose.choice(PLACES)
        driver = self.choose.choice(DRIVERS)
        self.world.produce(SetAvailable(id=f"s{self.shifts}", driver=driver, region=region, position=position))

    def go_offline(self) -> None:
        self.shifts += 1
        self.world.produce(SetUnavailable(id=f"s{self.shifts}", driver=self.choose.choice(DRIVERS)))

    def mix_up_keys(self) -> None:
        """Send a driver's request under a key that was used recently."""
        driver, event_id = self.choose.choice(DRIVERS), f"s{max(0, self.shifts - self.choose.randint(0, 5))}"
        on = SetAvailable(id=event_id, driver=driver, region="elsewhere", position=STREET)
        self.world.produce(self.choose.choice((on, SetUnavailable(id=event_id, driver=driver))))

    def move(self) -> None:
        self.seconds += 1
        driver, position = self.choose.choice(DRIVERS), self.choose.choice(PLACES)
        self.world.produce(Location(driver=driver, position=position, at=later(self.seconds)))

    def work(self, driver: str | None = None) -> None:
        """Do the next step of a driver's delivery."""
        driver = driver or self.choose.choice(DRIVERS)
        driver_row = self.world.drivers.get(driver)
        if driver_row is not None and driver_row.assignment is not None:
            record_type = Delivered if driver_row.picked_up else PickedUp
            self.world.produce(record_type(driver=driver, delivery=driver_row.assignment.delivery))

    def send_any_driver_event(self) -> None:
        record_type = self.choose.choice((PickedUp, Delivered))
        self.world.produce(record_type(driver=self.choose.choice(DRIVERS), delivery=self.choose.choice(ORDERS)))

    def claim(self) -> None:
        """Send an event of a driver who may not have the delivery."""
        record_type = self.choose.choice((deliveries.DriverAssigned, deliveries.PickedUp, deliveries.EtaChanged))
        order, driver, attempt = self.choose.choice(ORDERS), self.choose.choice(DRIVERS), self.choose.randint(1, 2)
        self.world.produce(
            record_type(id="claim", order=order, driver=driver, attempt=attempt, eta_s=9, at=later(self.seconds))
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    def behave(self) -> bool:
        """Let each party do its next step; return False if none had one."""
        before = len(self.world.produced)
        calls = sorted(self.world.calls)
        for key in calls:
            answer_well(self.world, key)
        for name, flow in sorted(self.world.orders.items()):
            if flow.payment is None:
                continue  # it was retired
            for key in payment.call_keys(flow.payment):
                is_due = key.endswith("/charge") and flow.payment.stage is payment.Stage.DUE
                is_due |= any(
                    key.endswith(f"/{refund.charge_id}") and not refund.done for refund in flow.payment.refunds
                )
                if is_due and key not in self.world.calls:  # an operator gave it up
                    self.requests += 1
                    self.world.produce(CallRetryRequested(id=f"w{self.requests}", call=key))
            if flow.ticket is not None and flow.ticket.stage.name in ("ASKED", "RECEIVED", "ACCEPTED"):
                self.world.produce(PreparationFinished(order=name))
        is_driver_wanted = any(flow.delivery and flow.delivery.driver is None for flow in self.world.orders.values())
        for name in DRIVERS:
            driver_row = self.world.drivers.get(name)
            if driver_row is not None and driver_row.assignment is not None:
                self.work(name)
            elif is_driver_wanted and (
                driver_row is None or driver_row.status == "IDLE" or driver_row.region != REGION
            ):
                self.shifts += 1
                event_id = f"s{self.shifts}"
                self.world.produce(SetAvailable(id=event_id, driver=name, region=REGION, position=STREET))
        return bool(calls) or len(self.world.produced) > before


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_worlds_lose_and_repeat_nothing(seed: int) -> None:
    AnyWorld(seed).run()


@pytest.fixture
def rows_taken(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, Transition[Any, Any, Any]]]:
    """Set of the rows that are taken from now on."""
    taken: set[tuple[str, Transition[Any, Any, Any]]] = set()
    find = Table.find

    def find_and_record(
        table: Table[Any, Any, Any], state: Any, event: object, context: DecisionContext
    ) -> Transition[Any, Any, Any] | None:
        row = find(table, state, event, context)
        if row is not None:
            taken.add((table.name, row))
        return row

    monkeypatch.setattr(Table, "find", find_and_record)
    return taken


# Other machines absorb repeats before they reach the order; a cancelled call or timer has no later answer. No timer is
# replayed here.
UNREACHABLE = {
    "the order: PaymentCharged ignore_duplicate",
    "the order: PaymentDeclined ignore_duplicate",
    "the order: RestaurantAccepted ignore_duplicate",
    "the order: RestaurantRejected ignore_duplicate",
    "the order: RestaurantFinished ignore_duplicate",
    "the order: DeliveryAssigned ignore_duplicate",
    "the order: DeliveryPickedUp ignore_duplicate",
    "the order: DeliveryEtaChanged ignore_duplicate",
    "the order: DeliveryCompleted ignore_duplicate",
    "the order: AttentionCleared ignore_duplicate",
    "the payment: Charged count_surplus_charge",
    "the driver: TimerDue ignore_duplicate",
}


def test_random_worlds_take_every_reachable_row(
    rows_taken: set[tuple[str, Transition[Any, Any, Any]]],
) -> None:
    """Run worlds until every reachable row was taken, at most a thousand: the other tests would prove little else."""
    missed: set[str] = set()
    for seed in range(1000):
        AnyWorld(seed).run()
        missed = {
            f"{table.name}: {row.event.__name__} {row.does.__name__}"
            for table in TABLES
            for row in table
            if (table.name, row) not in rows_taken
        }
        if missed <= UNREACHABLE:
            break
    assert missed == UNREACHABLE
