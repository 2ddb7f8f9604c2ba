"""How the parties are called: the ids that are keys, and how an event's id follows from its cause.

An order is ``provider:external_id``, however it came in. An order without an external id is named after the
``Idempotency-Key`` it was placed with. Ids hold no slash, so a row or an event that belongs to an order can be
called ``<order>/<rest>``.
"""

from hashlib import sha256
from typing import Annotated

from msgspec import Meta

ProviderId = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}$", description="an ordering provider")]
ExternalId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,63}$", description="the provider's own id of it")
]
PartyId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,63}$", description="a restaurant, driver or region")
]
OrderId = Annotated[
    str, Meta(pattern=r"^[a-z0-9-]{1,32}:[A-Za-z0-9][A-Za-z0-9._~-]{0,63}$", description="provider:external_id")
]


def order_id(provider: str, external_id: str) -> str:
    """The id an order has everywhere."""
    return f"{provider}:{external_id}"


def external_id_of(idempotency_key: str) -> str:
    """The external id of an order that came without one."""
    return "ik-" + sha256(idempotency_key.encode()).hexdigest()[:32]


def owner_of(row_key: str) -> str:
    """Whose row or event this is: the part before the first slash, which decides the partition."""
    return row_key.partition("/")[0]
