"""What is said of orders from outside: that one was placed, what operators want done with its calls, and what they have
settled.

| topic | key | written by | read by |
|---|---|---|---|
| orders | order id | the HTTP views, anyone's Kafka producer | agent `orders` |

Money is an integer in minor units (cents, paise) of the order's currency (ISO 4217).
"""

from enum import Enum
from hashlib import sha256
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from topics.identity import ExternalId, OrderId, PartyId, ProviderId, order_id, owner_of
from topics.places import Position
from topics.records import Instant, Reader, Record

Text = Annotated[str, Meta(max_length=200)]
Amount = Annotated[int, Meta(ge=0, le=100_000_000)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]


class Fulfilment(Enum):
    """How the food reaches the customer."""

    DELIVERY = "delivery"


class Modifier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something added to an item; its price comes on top of each unit's."""

    name: Text
    pos_code: Text = ""
    price: Amount = 0


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an order."""

    id: Text
    name: Text
    quantity: Annotated[int, Meta(ge=1, le=1000)]
    unit_price: Amount
    pos_code: Text = ""
    modifiers: Annotated[tuple[Modifier, ...], Meta(max_length=50)] = ()
    note: Text = ""


class Fee(msgspec.Struct, frozen=True, kw_only=True):
    """What is charged besides the items: delivery, packaging, service."""

    name: Text
    amount: Amount


class Customer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who eats, and where. Personal data: never copied to `order-updates`."""

    name: Text
    address: Text
    position: Position
    phone: Text = ""
    note: Text = ""


class Placed(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A provider's order. ``total`` must be the sum of its lines, fees, tip and tax."""

    family: ClassVar[str] = "orders"

    provider: ProviderId
    restaurant: PartyId
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=200)]
    total: Amount
    currency: Currency
    customer: Customer
    external_id: ExternalId | None = None
    display_number: Text = ""
    fees: Annotated[tuple[Fee, ...], Meta(max_length=20)] = ()
    tip: Amount = 0
    tax: Amount = 0
    deliver_at: Instant | None = None
    fulfilment: Fulfilment = Fulfilment.DELIVERY

    @property
    def key(self) -> str:
        """The order's id."""
        return order_id(self.provider, self.external_id or "")

    def body_hash(self) -> str:
        """What this order asks for, as 16 hex digits: equal for every copy of it, whatever its `id` and `at`."""
        body = msgspec.json.encode(msgspec.structs.replace(self, id="", at=None), order="deterministic")
        return sha256(body).hexdigest()[:16]

    @property
    def cause(self) -> str:
        return f"placed/{self.body_hash()}"

    @property
    def event_id(self) -> str:
        """Derived from what is asked for, whatever id the sender gave: another body is another event."""
        return f"{self.key}/{self.cause}"


CallKey = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9-]{1,32}:[A-Za-z0-9][A-Za-z0-9._~-]{0,63}"
        r"/(charge|prepare|refund/[A-Za-z0-9][A-Za-z0-9._~-]{0,63})$",
        description="the idempotency key of a call: <order>/charge, <order>/prepare, <order>/refund/<charge>",
    ),
]


class _CallAsked(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "orders"

    call: CallKey
    by: Text = ""
    """Who asks for it."""
    reason: Text = ""

    @property
    def key(self) -> str:
        """The order's id."""
        return owner_of(self.call)


class CallRetryAsked(_CallAsked, frozen=True, kw_only=True, omit_defaults=True):
    """A party outside is to be asked again, at once, under the same key; also if the call was given up."""


class CallAbandonAsked(_CallAsked, frozen=True, kw_only=True, omit_defaults=True):
    """A party outside is not to be asked any more; a person decides how the order goes on."""


class AttentionSettled(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An operator has seen to what nothing that comes later settles: a provider contradicts itself."""

    family: ClassVar[str] = "orders"

    order: OrderId
    by: Text = ""
    """Who."""
    reason: Text = ""

    @property
    def key(self) -> str:
        """The order's id."""
        return self.order


OrderRecord = Placed | CallRetryAsked | CallAbandonAsked | AttentionSettled
READER: Reader[OrderRecord] = Reader(OrderRecord)
PLACED: Reader[Placed] = Reader(Placed)
"""Of a body that can be nothing else, and so need not say its type."""
