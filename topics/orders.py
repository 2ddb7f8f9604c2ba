"""New orders, the use of idempotency keys, and the commands of operators about an order's calls and attention.

| topic | key | written by | read by |
|---|---|---|---|
| orders | order id | the HTTP views; the ordering provider, by Kafka | agent `orders` |

Money is an integer in minor units (cents, paise) of the order's currency (ISO 4217).
"""

from hashlib import sha256
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from topics import patterns
from topics.identity import ExternalId, KeyId, OrderId, PartyId, ProviderId, order_id, owner_of
from topics.places import Position
from topics.records import Instant, Reader, Record
from topics.text import Name, Note, Text

Amount = Annotated[int, Meta(ge=0, le=10**13)]
"""Minor units. The limit is far beyond any order in any currency."""
Currency = Annotated[str, Meta(pattern=patterns.CURRENCY)]


class Modifier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An addition to an item. Its price is added to the price of each unit."""

    name: Name
    pos_code: Name = ""
    price: Amount = 0


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an order."""

    id: Name
    name: Name
    quantity: Annotated[int, Meta(ge=1, le=1000)]
    unit_price: Amount
    pos_code: Name = ""
    modifiers: Annotated[tuple[Modifier, ...], Meta(max_length=50)] = ()
    note: Note = ""


class Fee(msgspec.Struct, frozen=True, kw_only=True):
    """A charge besides the items, for example for delivery, packaging or service."""

    name: Name
    amount: Amount


class Customer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Name and address of the customer. Personal data, which is never copied to `order-updates`."""

    name: Name
    address: Text
    position: Position
    phone: Name = ""
    note: Note = ""


class Placed(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A provider placed an order. ``total`` must be the sum of its items, fees, tip and tax."""

    family: ClassVar[str] = "orders"

    provider: ProviderId
    restaurant: PartyId
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=200)]
    total: Amount
    currency: Currency
    customer: Customer
    external_id: ExternalId | None = None
    display_number: Name = ""
    fees: Annotated[tuple[Fee, ...], Meta(max_length=20)] = ()
    tip: Amount = 0
    tax: Amount = 0
    deliver_at: Instant | None = None

    @property
    def key(self) -> str:
        """Order id."""
        return order_id(self.provider, self.external_id or "")

    def body_hash(self) -> str:
        """Return a hash of the order without `id` and `at`, as 32 hex digits: copies of an order have equal hashes."""
        body = msgspec.json.encode(msgspec.structs.replace(self, id="", at=None), order="deterministic")
        return sha256(body).hexdigest()[:32]

    @property
    def cause(self) -> str:
        return f"placed/{self.body_hash()}"

    @property
    def event_id(self) -> str:
        """Id derived from the order's id and body. The sender's `id` is ignored: another body is another event."""
        return f"{self.key}/{self.cause}"


CallKey = Annotated[
    str,
    Meta(
        pattern=patterns.CALL,
        description="the idempotency key of a call: <order>/charge, <order>/prepare, <order>/refund/<charge>",
    ),
]


class _CallRequested(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "orders"

    call: CallKey
    by: Name = ""
    """Name of the operator."""
    reason: Text = ""

    @property
    def key(self) -> str:
        """Order id."""
        return owner_of(self.call)


class CallRetryRequested(_CallRequested, frozen=True, kw_only=True, omit_defaults=True):
    """Make a call again, at once and under the same key, even if it was abandoned."""


class CallAbandonRequested(_CallRequested, frozen=True, kw_only=True, omit_defaults=True):
    """Stop making a call. A person decides how the order continues."""


class OrderCommand(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An operator's command for an order."""

    family: ClassVar[str] = "orders"

    order: OrderId
    by: Name = ""
    """Name of the operator."""
    reason: Text = ""

    @property
    def key(self) -> str:
        """Order id."""
        return self.order


class AttentionSettled(OrderCommand, frozen=True, kw_only=True, omit_defaults=True):
    """An operator has settled a problem that no later event can settle: the provider contradicted itself."""


class ErasureRequested(OrderCommand, frozen=True, kw_only=True, omit_defaults=True):
    """An operator wants the personal data of an ended order erased, because the customer asked for it."""


class KeyUsed(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A request used an `Idempotency-Key` for an order that has an external id. The record precedes the order."""

    family: ClassVar[str] = "orders"

    order: OrderId
    key_id: KeyId

    @property
    def key(self) -> str:
        """Id of the order that the idempotency key would name. It decides the partition that remembers the key."""
        return order_id(self.order.partition(":")[0], self.key_id)

    @property
    def cause(self) -> str:
        return f"used/{self.order}"


OrderRecord = Placed | KeyUsed | CallRetryRequested | CallAbandonRequested | AttentionSettled | ErasureRequested
READER: Reader[OrderRecord] = Reader(OrderRecord)
PLACED: Reader[Placed] = Reader(Placed)
"""Reader of a request body that is always an order, so its `type` is optional."""
