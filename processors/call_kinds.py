"""The kinds of calls to outside parties: one row each.

| kind | idempotency key | request | path | party |
|---|---|---|---|---|
| charge | `<order>/charge` | ``ChargeRequest`` | `/v1/charges` | payment provider |
| prepare | `<order>/prepare` | ``PrepareRequest`` | `/prepare` | point of sale of the restaurant |
| refund | `<order>/refund/<charge>` | ``RefundRequest`` | `/v1/refunds` | payment provider |

``CALLS`` is this table as code. The performer, the views and the commands take the kinds from it. Two places repeat the
kinds, and tests compare them: ``topics.orders.CallKey`` (topics cannot import this module) and ``call_results`` (the
meaning of the answers).
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

import msgspec

from processors.requests import ChargeRequest, PrepareRequest, RefundRequest
from topics.patterns import NAME

_SHORT = re.compile(NAME)


class CallKind(StrEnum):
    """Kind of a call, as stored in its row; also the second part of its idempotency key."""

    CHARGE = "charge"
    PREPARE = "prepare"
    REFUND = "refund"


class CallSpec(NamedTuple):
    """Properties of one kind of call."""

    request: type[msgspec.Struct]
    """Type of the request in the call's row."""
    path: str
    """Path below the base URL of the party."""
    is_payment: bool
    """True if the payment provider is called; False for the point of sale."""
    per_charge: bool = False
    """True if an order may have one such call for each charge; the key then ends with the charge's id."""


CALLS = {
    CallKind.CHARGE: CallSpec(ChargeRequest, "/v1/charges", is_payment=True),
    CallKind.PREPARE: CallSpec(PrepareRequest, "/prepare", is_payment=False),
    CallKind.REFUND: CallSpec(RefundRequest, "/v1/refunds", is_payment=True, per_charge=True),
}


def charge_ref(charge_id: str) -> str:
    """Return the part of a refund's key that stands for the charge: the charge's id if it is short and has no slash.

    Any other id becomes a hash, so that a key has at most 255 characters and fits into the path of a URL.
    """
    if _SHORT.match(charge_id):
        return charge_id
    return "~" + sha256(charge_id.encode()).hexdigest()[:32]


def call_key(order: str, kind: CallKind, charge_id: str = "") -> str:
    """Return the idempotency key of a call."""
    return f"{order}/{kind}/{charge_ref(charge_id)}" if charge_id else f"{order}/{kind}"


def possible_call_keys(order: str, charge_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of all calls that an order with these charges can have, in the order of ``CALLS``."""
    ids = tuple(charge_ids)
    return tuple(
        call_key(order, kind, charge_id)
        for kind, spec in CALLS.items()
        for charge_id in (ids if spec.per_charge else ("",))
    )


def call_key_forms(order: str, charge_id: str) -> str:
    """Return the forms that a key can have, for people: ``call_key_forms("ORDER", "CHARGE")``."""
    *others, last = possible_call_keys(order, (charge_id,))
    return f"{', '.join(others)} or {last}"


def parse_call_key(key: str) -> tuple[CallKind, str]:
    """Return kind and `charge_ref` (empty unless it is a refund) of an idempotency key; ValueError if it is none."""
    kind, _, ref = key.partition("/")[2].partition("/")
    return CallKind(kind), ref
