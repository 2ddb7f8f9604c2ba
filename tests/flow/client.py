"""Speaks to a stack as the parties outside do, over HTTP and Kafka, and waits for what follows."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from simulators.ledger import PaymentEntry, TicketEntry
from simulators.streets import moved
from tests.flow.reading import PARTITIONS
from tests.stack import Stack
from topics.families import Family, topic_name
from topics.places import Position
from topics.restaurants import Restaurant

PROVIDER = "my-shop"
WITHIN_S = 40.0
POLL_S = 0.03
CUSTOMER_M = 1000.0
"""North of the restaurant."""

T = TypeVar("T")
Body = dict[str, Any]


def an_order(kitchen: Restaurant, name: str, /, **changes: Any) -> Body:
    """The body of an order of 200.00 for a customer a kilometre away; `name` is its external id. None takes a field
    out."""
    there = moved(kitchen.position, CUSTOMER_M, 0)
    body = {
        "provider": PROVIDER,
        "external_id": name,
        "restaurant": kitchen.restaurant,
        "items": [{"id": "1", "name": "Thali", "quantity": 2, "unit_price": 80_00, "pos_code": "TH-1"}],
        "fees": [{"name": "Delivery", "amount": 40_00}],
        "total": 200_00,
        "currency": "INR",
        "customer": {
            "name": "Asha Rao",
            "address": "12 Mint Road",
            "position": place(there),
            "phone": "+91 22 5550 1234",
        },
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def order_id(external_id: str) -> str:
    """Of an order made by `an_order`."""
    return f"{PROVIDER}:{external_id}"


def place(position: Position) -> Body:
    """A position as JSON has it."""
    return {"lat": position.lat, "lon": position.lon}


class Client:
    """One party; its connections last as long as the `with` block."""

    def __init__(self, stack: Stack, number: int = 1) -> None:
        """Of the worker of this number."""
        self.stack, self.number = stack, number
        self.http = httpx.AsyncClient(base_url=stack.url_of(number), timeout=40)
        self._producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, acks="all", enable_idempotence=True)

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._producer.stop()
        await self.http.aclose()

    # -- saying things -----------------------------------------------------------------------------------------------

    async def place(self, body: Any, **headers: str) -> httpx.Response:
        """POST an order."""
        return await self.http.post("/v1/orders", json=body, headers=headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST anything."""
        return await self.http.post(path, json=body or {}, headers=headers)

    async def produce(
        self,
        family: Family,
        value: bytes | Body | None,
        key: str | None = None,
        partition: int | None = None,
        headers: Mapping[str, str | bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> Any:
        """Put a record on a topic; by its key, unless told which partition. Its partition and offset, among others."""
        return await self._producer.send_and_wait(
            topic_name(family.name, self.stack.name),
            msgspec.json.encode(value) if isinstance(value, dict) else value,
            key=None if key is None else key.encode(),
            partition=partition,
            headers=[(name, v.encode() if isinstance(v, str) else v) for name, v in (headers or {}).items()],
            timestamp_ms=timestamp_ms,
        )

    async def charged(self, order: str, charge_id: str, amount: int = 200_00) -> httpx.Response:
        """What the payment provider calls back with."""
        body = {"type": "Charged", "order": order, "charge_id": charge_id, "amount": amount, "currency": "INR"}
        return await self.post("/v1/payments/payments/events", body)

    async def ticket(self, kitchen: Restaurant, order: str, event: str, body: Any = None) -> httpx.Response:
        """What a point of sale calls back with: accepted, rejected, finished."""
        return await self.post(f"/v1/pos/{kitchen.restaurant}/tickets/{order}/{event}", body)

    # -- seeing things -----------------------------------------------------------------------------------------------

    async def get(self, path: str, **query: Any) -> Any:
        """What the API says."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def order(self, order: str) -> Body | None:
        """An order as it stands; None if there is none."""
        answer = await self.http.get(f"/v1/orders/{order}")
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    async def journal(self, order: str) -> list[Body]:
        """What happened to it."""
        entries: list[Body] = (await self.get(f"/v1/orders/{order}/journal"))["entries"]
        return entries

    async def counter(self, name: str) -> int:
        """A counter of the worker."""
        return int((await self.get("/tasks"))["counters"].get(name, 0))

    async def rows(self, table: str, key: str = "") -> dict[str, Body]:
        """Rows of a table, by key."""
        return {row["key"]: row["row"] for row in (await self.get(f"/table/{table}/{key}", limit=10_000))["rows"]}

    def payments(self, order: str) -> list[PaymentEntry]:
        """What the payment provider did for an order."""
        return [entry for entry in self.stack.payments() if entry.order == order]

    def tickets(self, order: str) -> list[TicketEntry]:
        """What the restaurant did with its ticket."""
        return [entry for entry in self.stack.tickets() if entry.order == order]

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Awaitable[T]], what: str, within_s: float = WITHIN_S) -> T:
        """Ask until the answer is something, and give it."""
        deadline = time.monotonic() + within_s
        while not (found := await condition()):
            assert time.monotonic() < deadline, f"after {within_s:g} s, still not so: {what}"
            await asyncio.sleep(POLL_S)
        return found

    async def noted(self, order: str, told: str) -> None:
        """Wait until the restaurant has noted that it told the worker, which is after the worker has acted on it."""

        async def in_ledger() -> bool:
            return any(entry.told == told for entry in self.tickets(order))

        await self.until(in_ledger, f"{order} told {told}")

    async def reaches(self, order: str, status: str, within_s: float = WITHIN_S) -> Body:
        """Wait until an order is in this status; the order as it stands then."""
        seen: Body = {}

        async def there() -> Body | None:
            seen.update(await self.order(order) or {})
            ended = seen.get("status") in ("DELIVERED", "REJECTED") and seen["status"] != status
            assert not ended, f"{order} is to be {status} and ended as {seen}"
            return seen if seen.get("status") == status else None

        try:
            found = await self.until(there, f"{order} is {status}", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen or 'unknown'}") from None
        assert found is not None
        return found


class Driver:
    """A driver's app in the test's hand."""

    def __init__(self, client: Client, name: str) -> None:
        self.name, self._client = name, client
        self._url = f"/v1/drivers/{name}"

    async def tell(self, what: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST `available`, `unavailable`, `pickup`, `delivered`, `location`."""
        return await self._client.post(f"{self._url}/{what}", body, **headers)

    async def available(self, region: str, position: Position, **headers: str) -> Body:
        """Want work; how the driver stands then."""
        answer = await self.tell("available", {"region": region, "position": place(position)}, **headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def poll(self, wait_s: float) -> httpx.Response:
        """Ask for the delivery, so many seconds long."""
        return await self._client.http.get(f"{self._url}/delivery", params={"wait": wait_s})

    async def has(self, delivery: str) -> Body:
        """Wait until the driver has this delivery."""
        answer = await self.poll(30)
        assert answer.status_code == 200, f"{self.name} has no delivery: {answer.status_code} {answer.text}"
        assert answer.json()["delivery"] == delivery
        return dict(answer.json())

    async def state(self) -> Body:
        """How the driver stands."""
        return dict(await self._client.get(self._url))

    def location(self, position: Position, at: datetime | None = None) -> Body:
        """A record that says where the driver is."""
        at = at or datetime.now(UTC)
        return {
            "type": "Location",
            "id": f"{self.name}/at/{at.isoformat()}",
            "at": at.isoformat(),
            "driver": self.name,
            "position": place(position),
        }


def partition_of(key: str) -> int:
    """Where Kafka's own partitioner puts a key."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS)
