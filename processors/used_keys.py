"""Memory of an `Idempotency-Key` that came with an order which has an external id.

The id of such an order does not follow from the key. So the key has a row, and its partition is that of the order which
the key would name (`topics.identity.external_id_of`). Rules:

1. A key stands for one order for 48 hours. Another order under it is refused.
2. The same order may use it again. The partition of the order compares the bodies.
3. An order that was placed without an external id has the key as its id, so no other order may use the key.
"""

from typing import NamedTuple

import msgspec

from processors.decision import Outcome, SetTimer
from topics.orders import KeyUsed

RETENTION_MS = 48 * 3600 * 1000
"""Time for which a key stands for its order."""
ADVICE = "send another order with another key"


class UsedKey(msgspec.Struct, frozen=True):
    """Row of a key."""

    order: str
    """Id of the order that the key stands for."""


class KeyDecision(NamedTuple):
    """Decision on the use of a key, with its new row and timer if there are any."""

    outcome: Outcome
    reason: str = ""
    row: UsedKey | None = None
    timer: SetTimer | None = None


def use_key(used: UsedKey | None, event: KeyUsed, now_ms: int, *, names_order: bool) -> KeyDecision:
    """Decide on the use of a key for an order. ``names_order``: there is an order whose id follows from the key."""
    other = event.key if names_order else event.order if used is None else used.order
    if other != event.order:
        return KeyDecision(Outcome.REFUSED, refusal(other))
    if used is not None:
        return KeyDecision(Outcome.ABSORBED)
    return KeyDecision(
        Outcome.APPLIED, row=UsedKey(event.order), timer=SetTimer(timer_name(event.key), now_ms + RETENTION_MS)
    )


def refusal(order: str) -> str:
    """Return the reason for which an order is refused whose key stands for another one."""
    return f"the Idempotency-Key was used for the order {order}: {ADVICE}"


def timer_name(key: str) -> str:
    """Return the name of the timer that deletes the row."""
    return f"{key}/key"
