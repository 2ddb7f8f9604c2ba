"""The parties outside: small models, each with a ledger of ``simulators.ledger``.

They keep the rules of ``simulators``. They perform requests with one key once, write the ledger before they answer, and
repeat a callback until it gets a final answer. They are never killed; their faults are in their answers and callbacks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec

from exactly_once.kafka.partitioning import java_partition
from simulators.ledger import AnswerEntry, PaymentEntry, TicketEntry, TripEntry
from streams.calls.http_performer import HttpPerformer
from topics import families
from topics.drivers import Delivered, PickedUp, SetAvailable
from topics.families import topic_name
from topics.locations import Location
from topics.orders import Customer, Item, Placed
from topics.payments import Charged, Declined, PaymentRecord, Refunded
from topics.places import Position
from topics.pos import PosRecord, PreparationFinished, TicketAccepted, TicketRejected
from topics.records import write
from topics.restaurants import Restaurant
from verification.simulation.broker import Broker
from verification.simulation.front import (
    Answer,
    Front,
    Request,
    call_back_payment,
    call_back_ticket,
    place,
    report,
)
from verification.simulation.loop import Actor, VirtualLoop
from verification.simulation.network import Network
from verification.simulation.worker import Worker

FINAL = (200, 201, 202, 404, 409, 422)
"""Statuses after which a party does not repeat a request."""
PLACED = (200, 201, 202, 422)
"""The same for an order, whose key may be under way (409)."""
RETRY_S = 1.0
HANG_S = 30.0
SLOW_S = 4.0
LATE_S = 1200.0
LOST_S = 300.0
SILENT_S = 1800.0
PREPARATION_S = 60.0
DECISION_S = 20.0
EARLY_S = 2.0
PROCESSING_S = 0.5
POLL_S = 30.0
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
class SharedContext:
    """Surroundings that the parties share, and their ledgers."""

    loop: VirtualLoop
    network: Network
    broker: Broker
    front: Front
    time: Callable[[], float]
    fault_at: Callable[[str], str]
    note: Callable[..., None]
    payments: list[PaymentEntry] = field(default_factory=list)
    tickets: list[TicketEntry] = field(default_factory=list)
    trips: list[TripEntry] = field(default_factory=list)
    answers: list[AnswerEntry] = field(default_factory=list)
    owed: int = 0
    """Callbacks without a final answer."""

    def now(self) -> datetime:
        """Return the time by the world's clock."""
        return datetime.fromtimestamp(self.time(), UTC)

    async def request_until_final(self, request: Request, final: tuple[int, ...] = FINAL) -> Answer:
        """Repeat a request until it gets a final answer."""
        while True:
            try:
                answer = await self.front.ask(request)
            except (ConnectionError, TimeoutError):
                answer = (0, None)
            if answer[0] in final:
                return answer
            await asyncio.sleep(RETRY_S)


class Party:
    """A party outside that may call back."""

    def __init__(self, name: str, shared: SharedContext) -> None:
        self.actor = Actor(name)
        self.shared = shared

    def call_back(self, request: Request, on_answer: Callable[[int], None], after_s: float) -> None:
        """Send a callback after ``after_s`` seconds, with the plan's fault; pass each final status to ``on_answer``."""
        self.shared.owed += 1
        self.shared.loop.spawn(self.actor, self._call_back(request, on_answer, after_s))

    async def _call_back(self, request: Request, on_answer: Callable[[int], None], after_s: float) -> None:
        await asyncio.sleep(after_s)
        fault = self.shared.fault_at("callback")
        await asyncio.sleep({"late": LATE_S, "lost": LOST_S}.get(fault, 0.0))
        copies = 2 if fault == "doubled" else 1
        answers = await asyncio.gather(*(self.shared.request_until_final(request) for _ in range(copies)))
        for status, _ in answers:
            on_answer(status)
        self.shared.owed -= 1

    async def delay_answer(self) -> None:
        """Wait before the answer, so that callbacks about the same request arrive earlier."""
        await asyncio.sleep(EARLY_S)


class PaymentProvider(Party):
    """Payment provider: it charges, declines and refunds."""

    def __init__(self, shared: SharedContext) -> None:
        super().__init__("payment", shared)
        self._done: dict[str, PaymentEntry] = {}
        self._ready_at: dict[str, float] = {}
        """Key that was answered 202 -> the time from which a repeated request is answered with the result."""

    async def serve(self, kind: str, key: str, body: Any) -> httpx.Response:
        """Serve `POST /v1/charges` and `/v1/refunds`."""
        fault = self.shared.fault_at(kind)
        if fault == "forged":
            self._forge(body)
            return httpx.Response(500)
        if (failure := await fail_before(fault)) is not None:
            return failure
        done = self._done.get(key)
        if done is None:
            done = self._perform(kind, key, body, declined=fault == "decline")
        else:
            if (done.kind, done.order, done.amount) != (kind, body["order"], body["amount"]):
                return httpx.Response(422, json={"reason": "the key was used for another request"})
            self._write(msgspec.structs.replace(done, at=self.shared.now(), replay=True))
        if fault in ("callback", "early", "doubled-callback"):
            after_s = 0.0 if fault == "early" else PROCESSING_S
            self._ready_at[key] = self.shared.time() + after_s
            for _ in range(2 if fault == "doubled-callback" else 1):
                self._report(done, after_s)
            if fault == "early":
                await self.delay_answer()
            return httpx.Response(202, json={})
        if self.shared.time() < self._ready_at.get(key, 0.0):
            return httpx.Response(409, json={})
        if fault == "both":
            self._report(done, PROCESSING_S)
        return await fail_after(fault) or _payment_response(done)

    def _forge(self, body: Any) -> None:
        """Have somebody else report a charge that was not made."""
        forged = Charged(order=body["order"], charge_id="forged", amount=body["amount"], currency=body["currency"])
        self.call_back(call_back_payment(forged), lambda _: None, 0.0)

    def _perform(self, kind: Any, key: str, body: Any, *, declined: bool) -> PaymentEntry:
        charge = kind == "charge"
        done = PaymentEntry(
            at=self.shared.now(),
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

    def _report(self, done: PaymentEntry, after_s: float) -> None:
        self.call_back(call_back_payment(_payment_record(done)), lambda status: self._answered(done, status), after_s)

    def _answered(self, done: PaymentEntry, status: int) -> None:
        self._write(
            PaymentEntry(
                at=self.shared.now(),
                key=done.key,
                kind="callback",
                order=done.order,
                outcome="answered",
                status=status,
            )
        )

    def _write(self, entry: PaymentEntry) -> None:
        self.shared.payments.append(entry)
        self.shared.note("payment", entry.order, entry.kind, entry.outcome, entry.replay)


class PointOfSale(Party):
    """Point of sale of the restaurant: it accepts or rejects tickets and prepares the food."""

    def __init__(self, shared: SharedContext) -> None:
        super().__init__("pos", shared)
        self._tickets: dict[str, TicketEntry] = {}

    async def serve(self, key: str, body: Any) -> httpx.Response:
        """Serve `POST /restaurants/{restaurant}/prepare`."""
        fault = self.shared.fault_at("prepare")
        if (failure := await fail_before(fault)) is not None:
            return failure
        ticket = self._tickets.get(key)
        if ticket is None:
            ticket = self._open_ticket(key, body, fault)
        else:
            self._write(ticket, "replay")
        if fault == "early":
            await self.delay_answer()
        if (failure := await fail_after(fault)) is not None:
            return failure
        if ticket.event == "received":
            return httpx.Response(202, json={"status": "received"})
        if ticket.event == "rejected":
            return httpx.Response(409, json={"status": "rejected", "reason": ticket.reason})
        return httpx.Response(200, json={"status": "accepted"})

    def _open_ticket(self, key: str, body: Any, fault: str) -> TicketEntry:
        later = fault.startswith("callback")
        rejected = fault.endswith("refuse")
        ticket = TicketEntry(
            at=self.shared.now(),
            event="received" if later else "rejected" if rejected else "accepted",
            order=body["order"],
            key=key,
            restaurant=body["restaurant"],
            reason="the kitchen is too busy" if rejected else "",
        )
        self._tickets[key] = ticket
        self._write(ticket, ticket.event)
        self.shared.owed += 1
        self.shared.loop.spawn(self.actor, self._prepare(ticket, rejected=rejected, quick=fault == "early"))
        return ticket

    async def _prepare(self, ticket: TicketEntry, *, rejected: bool, quick: bool) -> None:
        if ticket.event == "received":
            await asyncio.sleep(DECISION_S)
            self._write(ticket, "rejected" if rejected else "accepted")
            kind = TicketRejected if rejected else TicketAccepted
            self._report(ticket, kind(order=ticket.order, restaurant=ticket.restaurant))
        if not rejected:
            await asyncio.sleep(0.0 if quick else PREPARATION_S)
            self._write(ticket, "finished")
            self._report(ticket, PreparationFinished(order=ticket.order, restaurant=ticket.restaurant))
        self.shared.owed -= 1

    def _report(self, ticket: TicketEntry, record: PosRecord) -> None:
        self.call_back(call_back_ticket(record), lambda status: self._answered(ticket, record, status), 0.0)

    def _answered(self, ticket: TicketEntry, record: PosRecord, status: int) -> None:
        self._write(msgspec.structs.replace(ticket, told=record.cause, status=status), "told")

    def _write(self, ticket: TicketEntry, event: Any) -> None:
        self.shared.tickets.append(msgspec.structs.replace(ticket, at=self.shared.now(), event=event))
        self.shared.note("pos", ticket.order, event)


class Driver(Party):
    """A driver's app: it becomes available, waits for a delivery, picks it up and delivers it."""

    def __init__(self, number: int, shared: SharedContext) -> None:
        super().__init__(f"driver-{number}", shared)
        self._name = self.actor.name
        self._position = Position(18.92 + number / 1000, 72.83)
        self._shift = 0
        self._trip: tuple[str, int, bool] | None = None
        """Delivery, attempt, and whether it was picked up, according to the driver's ledger; None without a trip."""
        self.silent = False

    async def work(self) -> None:
        """Work until the world ends."""
        while True:
            status, twin = await self.shared.request_until_final(
                Request("GET", f"/v1/drivers/{self._name}"), (200, 404)
            )
            self._close_outdated(None if status == 404 else twin["delivery"])
            if status == 404 or twin["status"] == "IDLE":
                await self._become_available(0 if status == 404 else twin["shift"])
            else:
                await self._wait()

    async def _become_available(self, shift: int) -> None:
        key = str(shift + 1)
        event = SetAvailable(
            id=f"{self._name}/available/{key}", driver=self._name, region="fort", position=self._position
        )
        if await self._report(event, key):
            self._note("available", shift=shift + 1)

    async def _wait(self) -> None:
        try:
            poll = Request("GET", f"/v1/drivers/{self._name}/delivery?wait={POLL_S:g}")
            status, assignment = await self.shared.front.ask(poll, POLL_S + 10)
        except (ConnectionError, TimeoutError):
            status, assignment = 0, None
        if status != 200:
            await asyncio.sleep(RETRY_S)
            return
        await self._deliver(assignment)

    async def _deliver(self, assignment: dict[str, Any]) -> None:
        delivery, attempt = assignment["delivery"], assignment["attempt"]
        if self._trip is None or self._trip[:2] != (delivery, attempt):
            self._close(dropped=True)
            self._note("assigned", delivery, attempt)
            self._trip = (delivery, attempt, False)
        if self.shared.fault_at("delivery") == "silent":
            self.silent = True
            await asyncio.sleep(SILENT_S)
            self.silent = False
        if not assignment["picked_up"]:
            await self._drive(RESTAURANT.position)
            if not await self._report(PickedUp(driver=self._name, delivery=delivery)):
                return
        if not self._trip[2]:
            self._note("picked_up", delivery, attempt)
            self._trip = (delivery, attempt, True)
        await self._drive(HOME)
        if await self._report(Delivered(driver=self._name, delivery=delivery)):
            self._close(dropped=False)

    async def _drive(self, there: Position) -> None:
        """Drive in two steps and report the location after each over Kafka."""
        for share in (0.5, 1.0):
            await asyncio.sleep(5.0)
            here = self._position
            lat, lon = here.lat + share * (there.lat - here.lat), here.lon + share * (there.lon - here.lon)
            self._position, now = Position(lat, lon), self.shared.now()
            location = Location(driver=self._name, position=self._position, at=now, id=f"{self._name}/at/{now}")
            topic, key = topic_name(families.LOCATIONS.name), self._name.encode()
            partition = java_partition(key, self.shared.broker.topics[topic])
            self.shared.broker.append((topic, partition), key, write(location))

    async def _report(self, event: SetAvailable | PickedUp | Delivered, key: str = "") -> bool:
        """Report an event until a worker has decided; return whether it was applied."""
        copies = 2 if self.shared.fault_at("told") == "doubled" else 1
        reports = (self.shared.request_until_final(report(event, key), (200, 404, 409)) for _ in range(copies))
        answers = await asyncio.gather(*reports)
        if answers[0][0] != 200:
            await asyncio.sleep(RETRY_S)
        return answers[0][0] == 200

    def _close_outdated(self, delivery: str | None) -> None:
        """Close the current trip if it is not the delivery that the worker has for this driver."""
        trip = self._trip
        if trip is not None and delivery != trip[0]:
            self._close(dropped=not trip[2])

    def _close(self, *, dropped: bool) -> None:
        if self._trip is not None:
            self._note("dropped" if dropped else "delivered", *self._trip[:2])
            self._trip = None

    def _note(self, event: Any, delivery: str = "", attempt: int = 0, shift: int = 0) -> None:
        entry = TripEntry(
            at=self.shared.now(), driver=self._name, event=event, delivery=delivery, attempt=attempt, shift=shift
        )
        self.shared.trips.append(entry)
        self.shared.note("trip", self._name, event, delivery)


class Provider(Party):
    """Ordering provider: it places the orders."""

    def __init__(self, shared: SharedContext) -> None:
        super().__init__("provider", shared)
        self.left = 0
        """Number of orders without an answer."""

    def place_all(self, count: int, faults: Callable[[int], set[str]]) -> None:
        """Place ``count`` orders, each at a random moment and with the faults of its number."""
        chance = self.shared.network.chance("provider")
        self.left = count
        for number in range(count):
            after_s = chance.choice((0.0, 1.0, chance.uniform(0, 30)))
            self.shared.loop.spawn(self.actor, self._place(number, after_s, faults(number)))

    async def _place(self, number: int, after_s: float, how: set[str]) -> None:
        await asyncio.sleep(after_s)
        shared = self.shared
        placed = order(number, shared.now() + timedelta(seconds=600) if "later" in how else None)
        entry = AnswerEntry(
            at=shared.now(), event="placing", order=placed.key, placed_at=shared.now(), deliver_at=placed.deliver_at
        )
        shared.answers.append(entry)
        shared.note("placing", placed.key, sorted(how))
        if "malformed" in how:
            self._send_malformed(placed)
        copies = 2 if "doubled" in how else 1
        if how & {"kafka", "misplaced"}:
            for _ in range(copies):
                self._send_to_kafka(placed, misplaced="misplaced" in how)
            status = 0
        else:
            answers = await asyncio.gather(*(shared.request_until_final(place(placed), PLACED) for _ in range(copies)))
            status = answers[0][0]
        accepted = status in (0, 200, 201, 202)
        shared.answers.append(
            msgspec.structs.replace(
                entry,
                at=shared.now(),
                event="answer",
                via="http" if status else "kafka",
                outcome="accepted" if accepted else "refused",
                status=status,
            )
        )
        self.left -= 1

    def _send_malformed(self, placed: Placed) -> None:
        key, topic = placed.key.encode(), topic_name(families.ORDERS.name)
        partition = java_partition(key, self.shared.broker.topics[topic])
        self.shared.broker.append((topic, partition), key, b"{")

    def _send_to_kafka(self, placed: Placed, *, misplaced: bool) -> None:
        key, count = placed.key.encode(), self.shared.broker.topics[topic_name(families.ORDERS.name)]
        partition = (java_partition(key, count) + misplaced) % count
        self.shared.broker.append((topic_name(families.ORDERS.name), partition), key, write(placed))


class _Body(httpx.AsyncByteStream):
    """Response body as a stream."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class Performer(HttpPerformer):
    """The product's performer of calls, connected to the simulated parties."""

    def __init__(self, worker: Worker, payment: PaymentProvider, pos: PointOfSale) -> None:
        super().__init__("http://payment", "payments", lambda subject: "capability")
        self._worker = worker
        self._payment = payment
        self._pos = pos

    def _open_client(self) -> Any:
        return self

    @contextlib.asynccontextmanager
    async def stream(
        self, _method: str, url: str, *, content: bytes, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Stand in for ``httpx.AsyncClient.stream``."""
        response = await self._post(url, content, headers)
        yield httpx.Response(response.status_code, headers=response.headers, stream=_Body(response.content))

    async def _post(self, url: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        party = self._pos if url.startswith("http://pos") else self._payment
        shared, actor = party.shared, self._worker.actor
        await asyncio.sleep(shared.network.delay_s(actor.name))
        if actor in shared.network.cut:
            raise httpx.ConnectError("the network is cut")
        answered: asyncio.Future[httpx.Response] = shared.loop.create_future()
        shared.loop.spawn(party.actor, self._serve(party, url, headers["Idempotency-Key"], content, answered))
        response = await asyncio.wait_for(answered, HANG_S)
        await asyncio.sleep(shared.network.delay_s(actor.name))
        if actor in shared.network.cut:
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


async def fail_before(fault: str) -> httpx.Response | None:
    """Fail instead of performing the request: return the response, or None without such a fault.

    Raises ``httpx.HTTPError`` if the fault leaves the request without a response.
    """
    match fault:
        case "500":
            return httpx.Response(500)
        case "cut":
            raise httpx.ReadError("cut")
        case "silent":
            await asyncio.sleep(HANG_S)
            raise httpx.ReadTimeout("silent")
    return None


async def fail_after(fault: str) -> httpx.Response | None:
    """Fail in the same ways after the request was performed, or just delay the answer (``slow``)."""
    if fault == "slow":
        await asyncio.sleep(SLOW_S)
    return await fail_before(fault.removesuffix("-after"))


def order(number: int, deliver_at: datetime | None) -> Placed:
    """Return order ``number`` of the provider."""
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


def _payment_response(done: PaymentEntry) -> httpx.Response:
    if done.outcome == "declined":
        return httpx.Response(402, json={"reason": done.reason})
    if done.outcome == "refunded":
        return httpx.Response(200, json={"refund_id": done.refund_id, "charge_id": done.charge_id})
    return httpx.Response(200, json={"charge_id": done.charge_id, "amount": done.amount, "currency": done.currency})


def _payment_record(done: PaymentEntry) -> PaymentRecord:
    if done.outcome == "declined":
        return Declined(order=done.order, reason=done.reason)
    if done.outcome == "refunded":
        return Refunded(order=done.order, charge_id=done.charge_id, refund_id=done.refund_id)
    return Charged(order=done.order, charge_id=done.charge_id, amount=done.amount, currency=done.currency)
