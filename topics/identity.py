"""Ids of orders and parties, which are also the keys of records.

The id of an order is ``provider:external_id``, on every way in. An order without an external id gets one from the
``Idempotency-Key`` it was placed with. Ids contain no slash, so ``<order>/<rest>`` names a row or an event of an order.
"""

from hashlib import sha256
from typing import Annotated

from msgspec import Meta

from topics import patterns

ProviderId = Annotated[str, Meta(pattern=patterns.PROVIDER, description="an ordering provider")]
ExternalId = Annotated[str, Meta(pattern=patterns.NAME, description="the id that the provider gave the order")]
PartyId = Annotated[str, Meta(pattern=patterns.NAME, description="a restaurant, driver or region")]
OrderId = Annotated[str, Meta(pattern=patterns.ORDER, description="provider:external_id")]


def order_id(provider: str, external_id: str) -> str:
    """Return the id of an order, the same on all topics and in all tables."""
    return f"{provider}:{external_id}"


def is_order_id(key: str) -> bool:
    """Return whether the key of a record is the id of an order: other ids contain no colon."""
    return ":" in key


KeyId = Annotated[str, Meta(pattern=patterns.KEY_ID, description="the external id that follows from a key")]
MAX_IDEMPOTENCY_KEY_BYTES = 255
KEY_ID_PREFIX = "ik-"
"""Beginning of an external id that follows from an idempotency key."""


def external_id_of(idempotency_key: bytes) -> str:
    """Return the external id of an order that was placed without one; the key may have any bytes."""
    return KEY_ID_PREFIX + sha256(idempotency_key).hexdigest()[:32]


def owner_of(row_key: str) -> str:
    """Return the owner's id: the part of a row's or event's key before the first slash. It decides the partition."""
    return row_key.partition("/")[0]
