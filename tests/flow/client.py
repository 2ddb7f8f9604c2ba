"""A client that talks to a stack as the outside parties do, over HTTP and Kafka, and waits for the effects."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from simulators.ledger import PaymentEntry, TicketEntry
from simulators.streets import moved
from streams.access.keys import Role
from tests.flow.reading import PARTITIONS, WITHIN_S
from tests.support.documented import check_answer
from tests.support.keys import HEADERS, KEYS, REVEALED
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.stack import Stack
from topics.families import Family, topic_name
from topics.places import Position
from topics.restaurants import Restaurant

PROVIDER = "my-shop"
POLL_S = 0.03
KEY_OF_A_DRIVER = {"Authorization": f"Bearer {KEYS[Role.DRIVER]}"}
CUSTOMER_M = 1000.0
"""Distance from the restaurant to the customer, to the north."""

T = TypeVar("T")
Body = dict[str, Any]


def an_order(kitchen: Restaurant, name: str, /, **changes: Any) -> Body:
    """Return the body of an order of 200.00 for a customer a kilometre away; `name` is its external id.

    `changes` replace fields; None removes a field.
    """
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
    """Return the id of an order made by `an_order`."""
    return f"{PROVIDER}:{external_id}"


def place(position: Position) -> Body:
    """Return a position as a JSON object."""
    return {"lat": position.lat, "lon": position.lon}


class Client:
    """One outside party. Each answer is checked against the API's document. Connections last as long as the block."""

    def __init__(self, stack: Stack, number: int = 1) -> None:
        """Connect to the worker of this number."""
        self.stack = stack
        self.number = number
        self.http = httpx.AsyncClient(
            base_url=stack.url_of(number),
            headers=HEADERS,
            timeout=120,
            verify=NO_CERTIFICATES,
            event_hooks={"response": [check_answer]},
        )
        self._producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, acks="all", enable_idempotence=True)

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._producer.stop()
        await self.http.aclose()

    # -- sending -------------------------------------------------------------------------------------------------------

    async def place(self, body: Any, **headers: str) -> httpx.Response:
        """POST an order, again while the worker is not ready for it."""
        return await self._request("POST", "/v1/orders", json=body, headers=headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST to any path, again while the worker is not ready for it. Every POST may be sent twice."""
        return await self._request("POST", path, json=body or {}, headers=headers)

    async def produce(
        self,
        family: Family,
        value: bytes | Body | None,
        key: str | None = None,
        partition: int | None = None,
        headers: Mapping[str, str | bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> Any:
        """Append a record to a topic and return its metadata, such as partition and offset.

        Without a `partition` the key decides.
        """
        return await self._producer.send_and_wait(
            topic_name(family.name, self.stack.name),
            msgspec.json.encode(value) if isinstance(value, dict) else value,
            key=None if key is None else key.encode(),
            partition=partition,
            headers=[(name, v.encode() if isinstance(v, str) else v) for name, v in (headers or {}).items()],
            timestamp_ms=timestamp_ms,
        )

    async def charged(self, order: str, charge_id: str, amount: int = 200_00) -> httpx.Response:
        """Call back as the payment provider does after a charge."""
        body = {"type": "Charged", "order": order, "charge_id": charge_id, "amount": amount, "currency": "INR"}
        return await self.post("/v1/payments/payments/events", body)

    async def ticket(self, kitchen: Restaurant, order: str, event: str, body: Any = None) -> httpx.Response:
        """Call back as a point of sale does; `event` is accepted, rejected or finished."""
        return await self.post(f"/v1/pos/{kitchen.restaurant}/tickets/{order}/{event}", body)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def get(self, path: str, **query: Any) -> Any:
        """GET a path and return the decoded body; `AssertionError` unless the status is 200."""
        answer = await self._read(path, **query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def order(self, order: str) -> Body | None:
        """Return an order; None if it does not exist."""
        answer = await self._read(f"/v1/orders/{order}")
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    async def _read(self, path: str, **query: Any) -> httpx.Response:
        """GET a path, again while the worker is not ready for it."""
        return await self._request("GET", path, params=query)

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request, again while the answer is 503 with `Retry-After`, as the API asks its clients to do."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            answer = await self.http.request(method, path, **more)
            if answer.status_code != 503 or "Retry-After" not in answer.headers or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(POLL_S)

    async def journal(self, order: str) -> list[Body]:
        """Return the journal entries of an order."""
        entries: list[Body] = (await self.get(f"/v1/orders/{order}/journal"))["entries"]
        return entries

    async def counter(self, name: str) -> int:
        """Return a counter, summed over the workers."""
        return sum(int(worker["counters"].get(name, 0)) for worker in (await self.get("/v1/tasks"))["workers"])

    async def rows(self, table: str, key: str = "") -> dict[str, Body]:
        """Return rows of a table by key, unmasked; all rows without a `key`."""
        found = await self.get(f"/table/{table}/{key}", limit=10_000, **REVEALED)
        return {row["key"]: row["row"] for row in found["rows"]}

    def payments(self, order: str) -> list[PaymentEntry]:
        """Return the payment provider's ledger entries of an order."""
        return [entry for entry in self.stack.payments() if entry.order == order]

    def tickets(self, order: str) -> list[TicketEntry]:
        """Return the restaurants' ledger entries of an order."""
        return [entry for entry in self.stack.tickets() if entry.order == order]

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Awaitable[T]], what: str, within_s: float = WITHIN_S) -> T:
        """Poll until the condition returns something true, and return it."""
        deadline = time.monotonic() + within_s
        while not (found := await condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
            await asyncio.sleep(POLL_S)
        return found

    async def noted(self, order: str, told: str) -> None:
        """Wait until the restaurant's ledger has the callback `told`, so the worker has applied it."""

        async def in_ledger() -> bool:
            return any(entry.told == told for entry in self.tickets(order))

        await self.until(in_ledger, f"the ledger has the callback {told!r} of {order}")

    async def reaches(self, order: str, status: str, within_s: float = WITHIN_S) -> Body:
        """Wait until an order has this status, and return it; fail at once if it ends otherwise."""
        seen: Body = {}

        async def there() -> Body | None:
            seen.update(await self.order(order) or {})
            ended = seen.get("status") in ("DELIVERED", "REJECTED") and seen["status"] != status
            assert not ended, f"{order} ended before it was {status}: {seen}"
            return seen if seen.get("status") == status else None

        try:
            found = await self.until(there, f"{order} is {status}", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen or 'unknown'}") from None
        assert found is not None
        return found


def room_for(took: timedelta) -> timedelta:
    """Return the lead time for an order that must be SCHEDULED before it is due: 5 s and five times what one took."""
    return timedelta(seconds=5) + 5 * took


class Driver:
    """A driver's app, operated by the test."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._url = f"/v1/drivers/{name}"

    async def tell(self, what: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST `available`, `unavailable`, `pickup`, `delivered`, `location`."""
        return await self._client.post(f"{self._url}/{what}", body, **KEY_OF_A_DRIVER, **headers)

    async def available(self, region: str, position: Position, **headers: str) -> Body:
        """Become available for work, and return the driver's state."""
        answer = await self.tell("available", {"region": region, "position": place(position)}, **headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def poll(self, wait_s: float) -> httpx.Response:
        """Long-poll for a delivery; `wait_s` is the longest wait in seconds."""
        return await self._client.http.get(f"{self._url}/delivery", params={"wait": wait_s}, headers=KEY_OF_A_DRIVER)

    async def has(self, delivery: str) -> Body:
        """Wait until the driver has this delivery, and return the offer."""
        answer = await self.poll(30)
        assert answer.status_code == 200, f"{self.name} has no delivery: {answer.status_code} {answer.text}"
        assert answer.json()["delivery"] == delivery
        return dict(answer.json())

    async def state(self) -> Body:
        """Return the driver's state."""
        return dict(await self._client.get(self._url, **REVEALED))

    def location(self, position: Position, at: datetime | None = None) -> Body:
        """Return a location record of the driver, now or `at` another time."""
        at = at or datetime.now(UTC)
        return {
            "type": "Location",
            "id": f"{self.name}/at/{at.isoformat()}",
            "at": at.isoformat(),
            "driver": self.name,
            "position": place(position),
        }


def partition_of(key: str) -> int:
    """Return the partition that Kafka's default partitioner chooses for a key."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS)
