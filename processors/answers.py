"""What the answer to a call means: the HTTP status decides, the body says the details.

| call | 200 | refused | 202 |
|---|---|---|---|
| charge | charged | 402: declined | a record on `payments` follows |
| refund | refunded | | a record on `payments` follows |
| prepare | `accepted` | 409, 422: rejected | received; a record on `pos` follows |

Server errors, time-outs and cut connections are no answers: the call is made again under the same key. Any other
status, or a body that does not say what the status promises, cannot be helped by asking again: a person has to look,
and may have the call made again under the same key (``CallRetryAsked``).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from processors.events import CallAnswered, ChargeFailed, PrepareFailed, RefundFailed, TicketReceived
from topics.identity import owner_of
from topics.orders import Amount, Currency
from topics.payments import Charged, ChargeId, Declined, Refunded
from topics.pos import TicketAccepted, TicketRejected
from topics.records import Reader, Undecodable

PAYMENT_REQUIRED, CONFLICT, UNPROCESSABLE = 402, 409, 422


def meaning(answer: CallAnswered) -> Any:
    """The record or event an answer amounts to; None where the answer proper is still to come."""
    return _MEANINGS[answer.kind](answer)


def _charge(answer: CallAnswered) -> Any:
    order = owner_of(answer.key)
    if answer.status == 200:
        try:
            made = _charges.read(answer.body.encode())
        except Undecodable as wrong:
            return ChargeFailed(_unclear(answer, str(wrong)))
        return Charged(order=order, charge_id=made.charge_id, amount=made.amount, currency=made.currency)
    if answer.status == PAYMENT_REQUIRED:
        return Declined(order=order, reason=_reason(answer))
    return None if answer.status == 202 else ChargeFailed(_unclear(answer, _reason(answer)))


def _refund(answer: CallAnswered) -> Any:
    order, charge_id = owner_of(answer.key), answer.key.rpartition("/")[2]
    if answer.status == 200:
        return Refunded(order=order, charge_id=charge_id)
    return None if answer.status == 202 else RefundFailed(charge_id, _unclear(answer, _reason(answer)))


def _prepare(answer: CallAnswered) -> Any:
    order = owner_of(answer.key)
    if answer.status == 200 and _said(answer, "status") == "accepted":
        return TicketAccepted(order=order)
    if answer.status in (CONFLICT, UNPROCESSABLE):
        return TicketRejected(order=order, reason=_reason(answer))
    return TicketReceived() if answer.status == 202 else PrepareFailed(_unclear(answer, _reason(answer)))


class _Charge(msgspec.Struct, frozen=True):
    charge_id: ChargeId
    amount: Amount
    currency: Currency


class _Said(msgspec.Struct, frozen=True):
    """What an answer may say. Of any type: an odd value in one field takes nothing from the others."""

    status: Any = None
    reason: Any = None
    detail: Any = None


_MEANINGS: dict[str, Callable[[CallAnswered], Any]] = {"charge": _charge, "refund": _refund, "prepare": _prepare}
_charges = Reader[_Charge](_Charge)
_bodies = Reader[_Said](_Said)


def _said(answer: CallAnswered, field: str) -> str:
    """The text in one of the body's fields; nothing if there is none, or if it is not such a body."""
    try:
        text = getattr(_bodies.read(answer.body.encode()), field)
    except Undecodable:
        return ""
    return text[:200] if isinstance(text, str) else ""


def _reason(answer: CallAnswered) -> str:
    """Why: the field `reason`, or the `detail` of a problem (RFC 9457)."""
    return _said(answer, "reason") or _said(answer, "detail")


def _unclear(answer: CallAnswered, why: str) -> str:
    return f"answered {answer.status}" + (f" ({why})" if why else "")
