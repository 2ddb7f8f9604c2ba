"""All machines together, in whatever order the world chooses."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import delivery, dispatch, driver, history, order, payment, restaurant
from processors.decision import Moment, Outcome, Table, Transition
from tests.processors.cases import HOME, KITCHEN, REGION, STREET, later, placed
from tests.processors.world import World
from topics import deliveries
from topics.drivers import Delivered, PickedUp, SetAvailable, SetUnavailable
from topics.locations import Location
from topics.order_updates import OrderStatus
from topics.orders import AttentionSettled, CallAbandonAsked, CallRetryAsked
from topics.payments import Charged, Declined, Refunded
from topics.places import Position
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected

DRIVERS = ("asha", "ravi")
ORDERS = ("bites:1", "bites:2", "bites:3", "bites:4")
PLACES = (KITCHEN, HOME, STREET, Position(18.95, 72.82))
STEPS = 600
LATE_TURNS = 500
"""Timers that fire while somebody still comes late; then it must come to an end."""
TABLES: tuple[Table[Any], ...] = (
    order.TABLE,
    payment.TABLE,
    restaurant.TABLE,
    delivery.TABLE,
    history.TABLE,
    driver.TABLE,
    dispatch.TABLE,
)


def drain(world: World) -> None:
    """Until no record is under way."""
    for _ in range(5_000):
        if not (places := world.waiting()):
            return
        world.deliver(places[0])
    raise AssertionError("records go round in circles")


def charged(world: World, order: str, charge: str = "c1", amount: int = 630) -> Charged:
    """The provider charges, and what it says of it. A charge that was made is not made again."""
    made = world.charges[order].setdefault(charge, amount)
    return Charged(order=order, charge_id=charge, amount=made, currency="INR")


def give_back(world: World, order: str, charge: str) -> Refunded:
    """The provider gives a charge back, and what it says of it."""
    world.returned.add((order, charge))
    return Refunded(order=order, charge_id=charge)


def go_well(world: World, key: str) -> None:
    """A call is answered as one would wish."""
    order, request = key.split("/")[0], world.calls[key].request
    match world.calls[key].kind:
        case "charge":
            event = charged(world, order)
            world.answer(key, 200, {"charge_id": event.charge_id, "amount": event.amount, "currency": event.currency})
        case "refund":
            give_back(world, order, request.charge_id)  # type: ignore[attr-defined]
            world.answer(key, 200, {"refund_id": "r1"})
        case "prepare":
            world.answer(key, 200, {"status": "accepted"})


def test_an_order_goes_from_placed_to_delivered() -> None:
    world = World()
    world.say(placed("1"))
    drain(world)
    go_well(world, "bites:1/charge")
    go_well(world, "bites:1/prepare")
    world.say(PreparationFinished(order="bites:1"))
    world.say(SetAvailable(id="a1", driver="asha", region=REGION, position=STREET))
    drain(world)
    world.watch()
    world.say(Location(driver="asha", position=KITCHEN, at=later(1)))
    world.say(PickedUp(driver="asha", delivery="bites:1"))
    world.say(Location(driver="asha", position=Position(18.9280, 72.8300), at=later(60)))
    world.say(Delivered(driver="asha", delivery="bites:1"))
    drain(world)
    world.watch_end()
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
    """Outside parties say anything at any time, twice or not at all; records overtake each other; time goes by.

    A seed decides everything, also how well behaved the parties are.
    """

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.world = World()
        self.shifts = self.seconds = self.wishes = 0
        self.mischief = self.choose.choice((0.0, 0.1, 0.5))
        of_people = (self.restaurant_says, self.restaurant_says, self.become_available, self.work, self.work, self.move)
        self.usual: tuple[Callable[[], None], ...] = (self.place, self.answer, *of_people)
        of_money = (self.answer_badly, self.charge, self.decline, self.refund)
        of_drivers = (self.driver_says_anything, self.go_offline, self.mix_up_keys, self.claim)
        of_kafka = (self.say_again, self.say_again, self.overtake, self.overtake, self.let_time_go_by)
        self.odd: tuple[Callable[[], None], ...] = (
            *of_money,
            self.operate,
            self.say_anything,
            *of_drivers,
            *of_kafka,
        )

    def run(self) -> World:
        """Some steps of this and that; then everybody behaves, until nothing is left to happen; then a year goes by."""
        for _ in range(STEPS):
            self.step()
            self.world.watch()
        for _ in range(300):
            drain(self.world)
            if not self.behave() and not (self.world.order_timers() and self.world.fire()):
                self.world.watch_end()
                self.let_years_go_by()
                return self.world
        raise AssertionError("it does not come to rest")

    def let_years_go_by(self) -> None:
        """Orders are retired and forgotten, but those that a person should look at; meanwhile somebody comes late.

        What was asked is kept as long as a delivery waits for a driver who may never come.
        """
        for turn in range(5_000):
            if self.world.timers.keys() <= self.kept_for_drivers():
                break
            self.world.fire()
            for says in (self.place, self.charge, self.claim, self.say_anything):
                if turn < LATE_TURNS and self.choose.random() < self.mischief / 10:
                    says()
            drain(self.world)
            self.world.watch()
        else:
            raise AssertionError("timers fire for ever")
        assert all(flow.order is not None and flow.order.concerns for flow in self.world.orders.values())

    def kept_for_drivers(self) -> set[str]:
        """The timers of requests that are still to be met."""
        rows = self.world.index.committed().values()
        return {
            dispatch.asked_key(row.region, row.delivery) for row in rows if isinstance(row, dispatch.PendingDelivery)
        }

    def step(self) -> None:
        """A record is read, or somebody says something."""
        if self.choose.random() < 0.6:
            for _ in range(self.choose.randint(1, 3)):
                self.deliver()
        elif self.choose.random() < self.mischief:
            self.choose.choice(self.odd)()
        else:
            self.choose.choice(self.usual)()

    # -- Kafka and time ----------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        if places := self.world.waiting():
            self.world.deliver(self.choose.choice(places))

    def say_again(self) -> None:
        """Any record, of ours too, may come twice, hours after."""
        if said := self.world.said_today():
            self.world.say(self.choose.choice(said[-40:]))

    def overtake(self) -> None:
        """Kafka keeps the order within a key; a producer that retries may not have."""
        if places := self.world.waiting():
            self.world.under_way[self.choose.choice(places)].rotate(1)

    def let_time_go_by(self) -> None:
        self.world.fire()

    # -- the ordering provider ---------------------------------------------------------------------------------------

    def place(self) -> None:
        wished_s = self.choose.choice((None, None, 60, 7200))
        deliver_at = None if wished_s is None else later(wished_s)
        self.world.say(placed(self.choose.choice(ORDERS).partition(":")[2], deliver_at=deliver_at))

    # -- the payment provider ----------------------------------------------------------------------------------------

    def answer(self) -> None:
        if self.world.calls:
            key = self.choose.choice(sorted(self.world.calls))
            if self.choose.random() < 0.7:
                go_well(self.world, key)
            else:
                self.world.answer(key, 202)

    def answer_badly(self) -> None:
        """A provider that has charged does not decline under the same key."""
        if self.world.calls:
            key = self.choose.choice(sorted(self.world.calls))
            charged_already = self.world.charges[key.split("/")[0]] and key.endswith("/charge")
            self.world.answer(
                key, self.choose.choice((400, 409) if charged_already else (400, 402, 409)), {"reason": "no"}
            )

    def charge(self) -> None:
        order, amount = self.choose.choice(ORDERS), self.choose.choice((630, 630, 63))
        if order in self.world.orders:
            self.world.say(charged(self.world, order, self.choose.choice(("c1", "c2")), amount))

    def decline(self) -> None:
        self.world.say(Declined(order=self.choose.choice(ORDERS), reason="no"))

    def refund(self) -> None:
        """One that was asked for, or one out of the blue that never was made."""
        asked = sorted(key for key, call in self.world.calls.items() if call.kind == "refund")
        if asked:
            order, _, charge = self.choose.choice(asked).split("/")
            self.world.say(give_back(self.world, order, charge))
        else:
            self.world.say(Refunded(order=self.choose.choice(ORDERS), charge_id="c9"))

    # -- an operator -------------------------------------------------------------------------------------------------

    def operate(self) -> None:
        """Has any call made again, or gives it up, whether it is under way or not; settles what is there to settle."""
        if self.choose.random() < 0.2:
            self.world.say(AttentionSettled(id="settled", order=self.choose.choice(ORDERS)))
            return
        wish = self.choose.choice((CallRetryAsked, CallRetryAsked, CallAbandonAsked))
        purpose = self.choose.choice(("charge", "prepare", "refund/c1", "refund/c2"))
        self.wishes += 1
        self.world.say(wish(id=f"w{self.wishes}", call=f"{self.choose.choice(ORDERS)}/{purpose}"))

    # -- the restaurant ----------------------------------------------------------------------------------------------

    def restaurant_says(self) -> None:
        """What is next: it accepts, or has finished; sometimes a step is skipped."""
        cooking = [name for name, flow in self.world.orders.items() if flow.ticket is not None]
        if cooking:
            says = self.choose.choice((TicketAccepted, PreparationFinished))
            self.world.say(says(order=self.choose.choice(cooking)))

    def say_anything(self) -> None:
        says = self.choose.choice((TicketAccepted, TicketRejected, TicketRejected, PreparationFinished))
        restaurant = self.choose.choice((None, None, "lakshmi", "other"))
        self.world.say(says(order=self.choose.choice(ORDERS), restaurant=restaurant))

    # -- the drivers -------------------------------------------------------------------------------------------------

    def become_available(self) -> None:
        self.shifts += 1
        region = REGION if self.choose.random() < 0.9 else "elsewhere"
        position = self.choose.choice(PLACES)
        driver = self.choose.choice(DRIVERS)
        self.world.say(SetAvailable(id=f"s{self.shifts}", driver=driver, region=region, position=position))

    def go_offline(self) -> None:
        self.shifts += 1
        self.world.say(SetUnavailable(id=f"s{self.shifts}", driver=self.choose.choice(DRIVERS)))

    def mix_up_keys(self) -> None:
        """An app asks under a key that was used not long ago."""
        driver, event_id = self.choose.choice(DRIVERS), f"s{max(0, self.shifts - self.choose.randint(0, 5))}"
        on = SetAvailable(id=event_id, driver=driver, region="elsewhere", position=STREET)
        self.world.say(self.choose.choice((on, SetUnavailable(id=event_id, driver=driver))))

    def move(self) -> None:
        self.seconds += 1
        driver, position = self.choose.choice(DRIVERS), self.choose.choice(PLACES)
        self.world.say(Location(driver=driver, position=position, at=later(self.seconds)))

    def work(self, driver: str | None = None) -> None:
        """What a driver with a delivery does next."""
        driver = driver or self.choose.choice(DRIVERS)
        twin = self.world.drivers.get(driver)
        if twin is not None and twin.assignment is not None:
            says = Delivered if twin.picked_up else PickedUp
            self.world.say(says(driver=driver, delivery=twin.assignment.delivery))

    def driver_says_anything(self) -> None:
        says = self.choose.choice((PickedUp, Delivered))
        self.world.say(says(driver=self.choose.choice(DRIVERS), delivery=self.choose.choice(ORDERS)))

    def claim(self) -> None:
        """A driver says something to a delivery without having been asked."""
        says = self.choose.choice((deliveries.DriverAssigned, deliveries.PickedUp, deliveries.EtaChanged))
        order, driver, attempt = self.choose.choice(ORDERS), self.choose.choice(DRIVERS), self.choose.randint(1, 2)
        self.world.say(says(id="claim", order=order, driver=driver, attempt=attempt, eta_s=9, at=later(self.seconds)))

    # -- the end -----------------------------------------------------------------------------------------------------

    def behave(self) -> bool:
        """Each party does what is its turn; whether anybody had one."""
        said = len(self.world.said)
        calls = sorted(self.world.calls)
        for key in calls:
            go_well(self.world, key)
        for name, flow in sorted(self.world.orders.items()):
            if flow.payment is None:
                continue  # it was retired
            for refund in flow.payment.refunds:
                if not refund.done:
                    self.world.say(give_back(self.world, name, refund.charge_id))
            if flow.payment.stage is payment.Stage.DUE:
                self.world.say(charged(self.world, name))
            if flow.ticket is not None and flow.ticket.stage.name in ("ASKED", "TOLD", "ACCEPTED"):
                self.world.say(PreparationFinished(order=name))
        wanted = any(flow.delivery and flow.delivery.driver is None for flow in self.world.orders.values())
        for name in DRIVERS:
            twin = self.world.drivers.get(name)
            if twin is not None and twin.assignment is not None:
                self.work(name)
            elif wanted and (twin is None or twin.status == "IDLE" or twin.region != REGION):
                self.shifts += 1
                event_id = f"s{self.shifts}"
                self.world.say(SetAvailable(id=event_id, driver=name, region=REGION, position=STREET))
        return bool(calls) or len(self.world.said) > said


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_nothing_is_lost_and_nothing_done_twice_whatever_the_world_does(seed: int) -> None:
    AnyWorld(seed).run()


@pytest.fixture
def rows_taken(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, Transition]]:
    """The rows that decide anything from now on."""
    taken: set[tuple[str, Transition]] = set()
    find = Table.find

    def note(table: Table[Any], state: Any, event: object, moment: Moment) -> Transition | None:
        row = find(table, state, event, moment)
        if row is not None:
            taken.add((table.name, row))
        return row

    monkeypatch.setattr(Table, "find", note)
    return taken


# What neighbours absorb never reaches the order; a call that was cancelled, or a timer, is not answered later.
OUT_OF_REACH = {
    "the order: PaymentCharged absorb",
    "the order: PaymentDeclined absorb",
    "the order: RestaurantAccepted absorb",
    "the order: RestaurantRefused absorb",
    "the order: RestaurantFinished absorb",
    "the order: DeliveryAssigned absorb",
    "the order: DeliveryPickedUp absorb",
    "the order: DeliveryEtaChanged absorb",
    "the order: DeliveryDone absorb",
    "the order: AttentionOver absorb",
    "the payment: RefundFailed absorb",
    "the ticket: TicketReceived absorb",
    "the ticket: PrepareFailed absorb",
    "dispatch: TimerDue absorb",
}


def test_such_worlds_take_every_row_but_those_nobody_can_reach(rows_taken: set[tuple[str, Transition]]) -> None:
    """Or they would prove little. As many worlds as it takes, up to a thousand."""
    missed: set[str] = set()
    for seed in range(1000):
        AnyWorld(seed).run()
        missed = {
            f"{table.name}: {row.event.__name__} {row.does.__name__}"
            for table in TABLES
            for row in table
            if (table.name, row) not in rows_taken
        }
        if missed <= OUT_OF_REACH:
            break
    assert missed == OUT_OF_REACH
