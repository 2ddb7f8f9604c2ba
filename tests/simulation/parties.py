"""The parties outside, each a small model with a ledger as ``simulators.ledger`` has them.

They do what ``simulators`` do: the same request under the same key is done once, what was done is written down before
it is said, and what is told is told until there is a final answer. They are never killed; their faults are in how they
answer and call back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec

from processors.driver import Driver as Twin
from simulators.ledger import AnswerEntry, PaymentEntry, TicketEntry, TripEntry
from streams.app import topic_of
from streams.calls.performer import HttpPerformer
from streams.engine.engine import java_partition
from tests.simulation.broker import Broker
from tests.simulation.loop import Actor, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.views import Answer, Front, View
from tests.simulation.worker import Worker
from topics import families
from topics.drivers import Delivered, PickedUp, SetAvailable
from topics.locations import Location
from topics.orders import Customer, Item, Placed
from topics.payments import Charged, Declined, PaymentRecord, Refunded
from topics.places import Position
from topics.pos import PosRecord, PreparationFinished, TicketAccepted, TicketRejected
from topics.records import write
from topics.restaurants import Restaurant

FINAL = (200, 202, 404, 409, 422)
AGAIN_S = 1.0
HANGS_S = 30.0
LATE_S = 1200.0
LOST_S = 300.0
SILENT_S = 1800.0
COOKING_S = 60.0
DECISION_S = 20.0
POLL_S = 300.0
RESTAURANT = Restaurant(
    restaurant="lakshmi",
    name="Lakshmi's",
    region="fort",
    position=Position(18.9220, 72.8347),
    pos_url="http://pos",
    preparation_s=60,
)
HOME = Position(18.9322, 72.8264)
PRICE = 250


@dataclass
class Outside:
    """What the parties share, and the ledgers that they write."""

    loop: VirtualLoop
    network: Network
    broker: Broker
    front: Front
    time: Callable[[], float]
    strikes: Callable[[str], str]
    note: Callable[..., None]
    payments: list[PaymentEntry] = field(default_factory=list)
    tickets: list[TicketEntry] = field(default_factory=list)
    trips: list[TripEntry] = field(default_factory=list)
    answers: list[AnswerEntry] = field(default_factory=list)
    owed: int = 0
    """Callbacks without a final answer."""

    def now(self) -> datetime:
        """By the world's clock."""
        return datetime.fromtimestamp(self.time(), UTC)

    async def insist(self, key: str, view: View, final: tuple[int, ...] = FINAL, *, reads: bool = False) -> Answer:
        """Ask until there is a final answer."""
        while True:
            try:
                answer = await self.front.ask(key, view, reads=reads)
            except (ConnectionError, TimeoutError):
                answer = (0, None)
            if answer[0] in final:
                return answer
            await asyncio.sleep(AGAIN_S)


class Party:
    """Somebody outside, who calls back."""

    def __init__(self, name: str, outside: Outside) -> None:
        self.actor, self.outside = Actor(name), outside

    def call_back(self, order: str, view: View, told: Callable[[int], None], after_s: float) -> None:
        """Tell something, later; what goes wrong with it is drawn."""
        self.outside.owed += 1
        self.outside.loop.spawn(self.actor, self._call_back(order, view, told, after_s))

    async def _call_back(self, order: str, view: View, told: Callable[[int], None], after_s: float) -> None:
        await asyncio.sleep(after_s)
        fault = self.outside.strikes("callback")
        await asyncio.sleep({"late": LATE_S, "lost": LOST_S}.get(fault, 0.0))
        copies = 2 if fault == "doubled" else 1
        answers = await asyncio.gather(*(self.outside.insist(order, view) for _ in range(copies)))
        for status, _ in answers:
            told(status)
        self.outside.owed -= 1

    async def early(self) -> None:
        """Between what was done and the answer that says so, all that follows can be told."""
        await asyncio.sleep(2.0)


class PaymentProvider(Party):
    """Charges, declines and gives back."""

    def __init__(self, outside: Outside) -> None:
        super().__init__("payment", outside)
        self._done: dict[str, PaymentEntry] = {}
        self._calls_back: set[str] = set()

    async def serve(self, kind: str, key: str, body: Any) -> httpx.Response:
        """`POST /v1/charges` and `/v1/refunds`."""
        fault = self.outside.strikes(kind)
        if (trouble := await trouble_before(fault)) is not None:
            return trouble
        done = self._done.get(key)
        if done is None:
            done = self._do(kind, key, body, declined=fault == "decline")
        else:
            if (done.kind, done.order, done.amount) != (kind, body["order"], body["amount"]):
                return httpx.Response(422, json={"reason": "the key was used for another request"})
            self._write(msgspec.structs.replace(done, at=self.outside.now(), replay=True))
        if fault in ("callback", "early", "doubled-callback"):
            self._calls_back.add(key)
        if key in self._calls_back:
            for _ in range(2 if fault == "doubled-callback" else 1):
                self._tell(done, 0.0 if fault == "early" else 0.5)
            if fault == "early":
                await self.early()
            return httpx.Response(202, json={})
        if fault == "both":
            self._tell(done, 0.5)
        return await trouble_after(fault) or _money_answer(done)

    def _do(self, kind: Any, key: str, body: Any, *, declined: bool) -> PaymentEntry:
        charge = kind == "charge"
        done = PaymentEntry(
            at=self.outside.now(),
            key=key,
            kind=kind,
            order=body["order"],
            outcome=("declined" if declined else "charged") if charge else "refunded",
            charge_id="" if declined else f"ch-{len(self._done)}" if charge else body["charge_id"],
            refund_id="" if charge else f"re-{len(self._done)}",
            amount=body["amount"],
            currency=body["currency"],
            reason="the card was declined" if declined else "",
        )
        self._done[key] = done
        self._write(done)
        return done

    def _tell(self, done: PaymentEntry, after_s: float) -> None:
        view = self.outside.front.decide(families.PAYMENTS, _money_record(done))
        self.call_back(done.order, view, lambda status: self._told(done, status), after_s)

    def _told(self, done: PaymentEntry, status: int) -> None:
        self._write(
            PaymentEntry(
                at=self.outside.now(),
                key=done.key,
                kind="callback",
                order=done.order,
                outcome="answered",
                status=status,
            )
        )

    def _write(self, entry: PaymentEntry) -> None:
        self.outside.payments.append(entry)
        self.outside.note("payment", entry.order, entry.kind, entry.outcome, entry.replay)


class PointOfSale(Party):
    """Cooks."""

    def __init__(self, outside: Outside) -> None:
        super().__init__("pos", outside)
        self._tickets: dict[str, TicketEntry] = {}

    async def serve(self, key: str, body: Any) -> httpx.Response:
        """`POST /restaurants/{restaurant}/prepare`."""
        fault = self.outside.strikes("prepare")
        if (trouble := await trouble_before(fault)) is not None:
            return trouble
        ticket = self._tickets.get(key)
        if ticket is None:
            ticket = self._take(key, body, fault)
        else:
            self._write(ticket, "replay")
        if fault == "early":
            await self.early()
        if (trouble := await trouble_after(fault)) is not None:
            return trouble
        if ticket.event == "received":
            return httpx.Response(202, json={"status": "received"})
        if ticket.event == "rejected":
            return httpx.Response(409, json={"reason": ticket.reason})
        return httpx.Response(200, json={"status": "accepted"})

    def _take(self, key: str, body: Any, fault: str) -> TicketEntry:
        later = fault.startswith("callback")
        refused = fault.endswith("refuse")
        ticket = TicketEntry(
            at=self.outside.now(),
            event="received" if later else "rejected" if refused else "accepted",
            order=body["order"],
            key=key,
            restaurant=body["restaurant"],
            reason="the kitchen is too busy" if refused else "",
        )
        self._tickets[key] = ticket
        self._write(ticket, ticket.event)
        self.outside.owed += 1
        self.outside.loop.spawn(self.actor, self._live(ticket, refused=refused, quick=fault == "early"))
        return ticket

    async def _live(self, ticket: TicketEntry, *, refused: bool, quick: bool) -> None:
        if ticket.event == "received":
            await asyncio.sleep(DECISION_S)
            self._write(ticket, "rejected" if refused else "accepted")
            kind = TicketRejected if refused else TicketAccepted
            self._tell(ticket, kind(order=ticket.order, restaurant=ticket.restaurant))
        if not refused:
            await asyncio.sleep(0.0 if quick else COOKING_S)
            self._write(ticket, "finished")
            self._tell(ticket, PreparationFinished(order=ticket.order, restaurant=ticket.restaurant))
        self.outside.owed -= 1

    def _tell(self, ticket: TicketEntry, record: PosRecord) -> None:
        view = self.outside.front.decide(families.POS, record)
        self.call_back(ticket.order, view, lambda status: self._told(ticket, record, status), 0.0)

    def _told(self, ticket: TicketEntry, record: PosRecord, status: int) -> None:
        self._write(msgspec.structs.replace(ticket, told=record.cause, status=status), "told")

    def _write(self, ticket: TicketEntry, event: Any) -> None:
        self.outside.tickets.append(msgspec.structs.replace(ticket, at=self.outside.now(), event=event))
        self.outside.note("pos", ticket.order, event)


class Driver(Party):
    """A driver's app: available, wait, pick up, deliver."""

    def __init__(self, number: int, outside: Outside) -> None:
        super().__init__(f"driver-{number}", outside)
        self._name = self.actor.name
        self._position = Position(18.92 + number / 1000, 72.83)
        self._shift = 0
        self._live: tuple[str, int, bool] | None = None
        """Delivery, attempt, picked up, by the own log."""
        self.silent = False

    async def work(self) -> None:
        """For ever."""
        while True:
            view = self.outside.front.driver(self._name)
            status, twin = await self.outside.insist(self._name, view, (200, 404), reads=True)
            self._close_what_is_over(twin)
            if status == 404 or twin.status == "IDLE":
                await self._become_available(0 if twin is None else twin.shift)
            else:
                await self._wait()

    async def _become_available(self, shift: int) -> None:
        event = SetAvailable(
            id=f"{self._name}/available/{shift + 1}", driver=self._name, region="fort", position=self._position
        )
        if await self._tell(event):
            self._note("available", shift=shift + 1)

    async def _wait(self) -> None:
        try:
            view = self.outside.front.delivery(self._name, POLL_S)
            status, twin = await self.outside.front.ask(self._name, view, POLL_S + 10, reads=True)
        except (ConnectionError, TimeoutError):
            status, twin = 0, None
        if status != 200:
            await asyncio.sleep(AGAIN_S)
            return
        await self._deliver(twin)

    async def _deliver(self, twin: Twin) -> None:
        assert twin.assignment is not None
        delivery, attempt = twin.assignment.delivery, twin.assignment.attempt
        if self._live is None or self._live[:2] != (delivery, attempt):
            self._close(dropped=True)
            self._note("assigned", delivery, attempt)
            self._live = (delivery, attempt, False)
        if self.outside.strikes("delivery") == "silent":
            self.silent = True
            await asyncio.sleep(SILENT_S)
            self.silent = False
        if not twin.picked_up:
            await self._drive(RESTAURANT.position)
            if not await self._tell(PickedUp(driver=self._name, delivery=delivery)):
                return
        if not self._live[2]:
            self._note("picked_up", delivery, attempt)
            self._live = (delivery, attempt, True)
        await self._drive(HOME)
        if await self._tell(Delivered(driver=self._name, delivery=delivery)):
            self._close(dropped=False)

    async def _drive(self, there: Position) -> None:
        """Half of the way and the other half, said over Kafka."""
        for share in (0.5, 1.0):
            await asyncio.sleep(5.0)
            here = self._position
            lat, lon = here.lat + share * (there.lat - here.lat), here.lon + share * (there.lon - here.lon)
            self._position, now = Position(lat, lon), self.outside.now()
            location = Location(driver=self._name, position=self._position, at=now, id=f"{self._name}/at/{now}")
            topic, key = topic_of(families.LOCATIONS), self._name.encode()
            partition = java_partition(key, self.outside.broker.topics[topic])
            self.outside.broker.append((topic, partition), key, write(location))

    async def _tell(self, event: SetAvailable | PickedUp | Delivered) -> bool:
        """Until it is decided; whether it was taken."""
        view = self.outside.front.decide(families.DRIVERS, event)
        copies = 2 if self.outside.strikes("told") == "doubled" else 1
        told = (self.outside.insist(self._name, view, (200, 404, 409)) for _ in range(copies))
        answers = await asyncio.gather(*told)
        if answers[0][0] != 200:
            await asyncio.sleep(AGAIN_S)
        return answers[0][0] == 200

    def _close_what_is_over(self, twin: Twin | None) -> None:
        """By the worker, the delivery is not this driver's any more."""
        mine = self._live
        assignment = None if twin is None else twin.assignment
        if mine is not None and (assignment is None or assignment.delivery != mine[0]):
            self._close(dropped=not mine[2])

    def _close(self, *, dropped: bool) -> None:
        if self._live is not None:
            self._note("dropped" if dropped else "delivered", *self._live[:2])
            self._live = None

    def _note(self, event: Any, delivery: str = "", attempt: int = 0, shift: int = 0) -> None:
        entry = TripEntry(
            at=self.outside.now(), driver=self._name, event=event, delivery=delivery, attempt=attempt, shift=shift
        )
        self.outside.trips.append(entry)
        self.outside.note("trip", self._name, event, delivery)


class Provider(Party):
    """Places the orders."""

    def __init__(self, outside: Outside) -> None:
        super().__init__("provider", outside)
        self.left = 0
        """Orders without an answer."""

    def place_all(self, count: int, faults: Callable[[int], set[str]]) -> None:
        """Order n comes at a moment of its own."""
        chance = self.outside.network.chance("provider")
        self.left = count
        for number in range(count):
            after_s = chance.choice((0.0, 1.0, chance.uniform(0, 30)))
            self.outside.loop.spawn(self.actor, self._place(number, after_s, faults(number)))

    async def _place(self, number: int, after_s: float, how: set[str]) -> None:
        await asyncio.sleep(after_s)
        outside = self.outside
        placed = order(number, outside.now() + timedelta(seconds=600) if "later" in how else None)
        entry = AnswerEntry(
            at=outside.now(), event="placing", order=placed.key, placed_at=outside.now(), deliver_at=placed.deliver_at
        )
        outside.answers.append(entry)
        outside.note("placing", placed.key, sorted(how))
        if "malformed" in how:
            self._send_nonsense(placed)
        copies = 2 if "doubled" in how else 1
        if how & {"kafka", "misplaced"}:
            for _ in range(copies):
                self._send(placed, misplaced="misplaced" in how)
            status = 0
        else:
            view = outside.front.decide(families.ORDERS, placed)
            answers = await asyncio.gather(*(outside.insist(placed.key, view) for _ in range(copies)))
            status = answers[0][0]
        accepted = status in (0, 200, 202)
        outside.answers.append(
            msgspec.structs.replace(
                entry,
                at=outside.now(),
                event="answer",
                via="http" if status else "kafka",
                outcome="accepted" if accepted else "refused",
                status=status,
            )
        )
        self.left -= 1

    def _send_nonsense(self, placed: Placed) -> None:
        key, topic = placed.key.encode(), topic_of(families.ORDERS)
        partition = java_partition(key, self.outside.broker.topics[topic])
        self.outside.broker.append((topic, partition), key, b"{")

    def _send(self, placed: Placed, *, misplaced: bool) -> None:
        key, count = placed.key.encode(), self.outside.broker.topics[topic_of(families.ORDERS)]
        partition = (java_partition(key, count) + misplaced) % count
        self.outside.broker.append((topic_of(families.ORDERS), partition), key, write(placed))


class _Body(httpx.AsyncByteStream):
    """What is still to be read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class Performer(HttpPerformer):
    """The product's, with the parties at the other end of the wire."""

    def __init__(self, worker: Worker, payment: PaymentProvider, pos: PointOfSale) -> None:
        super().__init__("http://payment", "payments", lambda: "http://front")
        self._worker, self._payment, self._pos = worker, payment, pos

    def _open_client(self) -> Any:
        return self

    @contextlib.asynccontextmanager
    async def stream(
        self, _method: str, url: str, *, content: bytes, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """As httpx does."""
        response = await self._post(url, content, headers)
        yield httpx.Response(response.status_code, headers=response.headers, stream=_Body(response.content))

    async def _post(self, url: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        party = self._pos if url.startswith("http://pos") else self._payment
        outside, actor = party.outside, self._worker.actor
        await asyncio.sleep(outside.network.delay_s(actor.name))
        if actor in outside.network.cut:
            raise httpx.ConnectError("the network is cut")
        answered: asyncio.Future[httpx.Response] = outside.loop.create_future()
        outside.loop.spawn(party.actor, self._serve(party, url, headers["Idempotency-Key"], content, answered))
        response = await asyncio.wait_for(answered, HANGS_S)
        await asyncio.sleep(outside.network.delay_s(actor.name))
        if actor in outside.network.cut:
            raise httpx.ReadError("the network is cut")
        return response

    async def _serve(
        self, party: Any, url: str, key: str, content: bytes, answered: "asyncio.Future[httpx.Response]"
    ) -> None:
        body = msgspec.json.decode(content)
        try:
            if party is self._pos:
                response = await self._pos.serve(key, body)
            else:
                response = await self._payment.serve("charge" if url.endswith("charges") else "refund", key, body)
        except httpx.HTTPError as error:
            if not answered.done():
                answered.set_exception(error)
            return
        if not answered.done():
            answered.set_result(response)


async def trouble_before(fault: str) -> httpx.Response | None:
    """Instead of doing what is asked."""
    match fault:
        case "500":
            return httpx.Response(500)
        case "cut":
            raise httpx.ReadError("cut")
        case "silent":
            await asyncio.sleep(HANGS_S)
            raise httpx.ReadTimeout("silent")
    return None


async def trouble_after(fault: str) -> httpx.Response | None:
    """It is done, and not said."""
    match fault:
        case "500-after":
            return httpx.Response(500)
        case "cut-after":
            raise httpx.ReadError("cut")
        case "silent-after":
            await asyncio.sleep(HANGS_S)
            raise httpx.ReadTimeout("silent")
        case "slow":
            await asyncio.sleep(4.0)
    return None


def order(number: int, deliver_at: datetime | None) -> Placed:
    """The n-th order."""
    return Placed(
        provider="bites",
        external_id=str(1000 + number),
        restaurant=RESTAURANT.restaurant,
        items=(Item(id="thali", name="Thali", quantity=number + 1, unit_price=PRICE),),
        total=PRICE * (number + 1),
        currency="INR",
        customer=Customer(name="Meera", address="12 Marine Drive", position=HOME),
        deliver_at=deliver_at,
    )


def _money_answer(done: PaymentEntry) -> httpx.Response:
    if done.outcome == "declined":
        return httpx.Response(402, json={"reason": done.reason})
    if done.outcome == "refunded":
        return httpx.Response(200, json={"refund_id": done.refund_id, "charge_id": done.charge_id})
    return httpx.Response(200, json={"charge_id": done.charge_id, "amount": done.amount, "currency": done.currency})


def _money_record(done: PaymentEntry) -> PaymentRecord:
    if done.outcome == "declined":
        return Declined(order=done.order, reason=done.reason)
    if done.outcome == "refunded":
        return Refunded(order=done.order, charge_id=done.charge_id, refund_id=done.refund_id)
    return Charged(order=done.order, charge_id=done.charge_id, amount=done.amount, currency=done.currency)
