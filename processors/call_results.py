"""Meaning of the answers to calls: the HTTP status decides, the body gives the details.

| call | 200 | refused | 202 |
|---|---|---|---|
| charge | charged | 402: declined | a record on `payments` follows |
| refund | refunded | | a record on `payments` follows |
| prepare | `accepted` | 409, 422: rejected | received; a record on `pos` follows |

Server errors, time-outs and cut connections are not answers: the call is retried under the same key. A retry does not
help with any other status, or with a body that lacks what the status promises: a person has to look. An operator may
have the call retried under the same key (``CallRetryRequested``).
"""

import msgspec

from processors.call_kinds import CallKind, parse_call_key
from processors.events import CallAnswered, ChargeFailed, InternalEvent, PrepareFailed, RefundFailed, TicketReceived
from topics.identity import owner_of
from topics.orders import Amount
from topics.payments import AnyCaseCurrency, Charged, ChargeId, Declined, Refunded
from topics.pos import TicketAccepted, TicketRejected
from topics.records import Reader, Record, Undecodable
from topics.text import cleaned

PAYMENT_REQUIRED, CONFLICT, UNPROCESSABLE = 402, 409, 422


def to_event(answer: CallAnswered) -> Record | InternalEvent | None:
    """Return the record or event that an answer amounts to; None if a record will follow."""
    match answer.kind:  # mypy finds a kind without a case
        case CallKind.CHARGE:
            return _charge(answer)
        case CallKind.PREPARE:
            return _prepare(answer)
        case CallKind.REFUND:
            return _refund(answer)


def _charge(answer: CallAnswered) -> Record | InternalEvent | None:
    order = owner_of(answer.key)
    if answer.status == 200:
        try:
            charge = _charges.read(answer.body.encode())
        except Undecodable as error:
            return ChargeFailed(_unexpected(answer, str(error)))
        return Charged(order=order, charge_id=charge.charge_id, amount=charge.amount, currency=charge.currency)
    if answer.status == PAYMENT_REQUIRED:
        return Declined(order=order, reason=_reason(answer))
    return None if answer.status == 202 else ChargeFailed(_unexpected(answer, _reason(answer)))


def _refund(answer: CallAnswered) -> Record | InternalEvent | None:
    order, charge_id = owner_of(answer.key), parse_call_key(answer.key)[1]
    if answer.status == 200:
        return Refunded(order=order, charge_id=charge_id)
    return None if answer.status == 202 else RefundFailed(charge_id, _unexpected(answer, _reason(answer)))


def _prepare(answer: CallAnswered) -> Record | InternalEvent | None:
    order = owner_of(answer.key)
    if answer.status == 200 and _text_field(answer, "status") == "accepted":
        return TicketAccepted(order=order)
    if answer.status in (CONFLICT, UNPROCESSABLE):
        return TicketRejected(order=order, reason=_reason(answer))
    return TicketReceived() if answer.status == 202 else PrepareFailed(_unexpected(answer, _reason(answer)))


class _Charge(msgspec.Struct, frozen=True):
    charge_id: ChargeId
    amount: Amount
    currency: AnyCaseCurrency


class _Body(msgspec.Struct, frozen=True):
    """Fields that are read from a body. Any type is accepted, so that an odd value in one field spoils no other."""

    status: object = None
    reason: object = None
    detail: object = None


_charges = Reader[_Charge](_Charge)
_bodies = Reader[_Body](_Body)


def _text_field(answer: CallAnswered, field: str) -> str:
    """Return the text in a field of the body, cleaned and cut; "" if the body has no such text."""
    try:
        text = getattr(_bodies.read(answer.body.encode()), field)
    except Undecodable:
        return ""
    return cleaned(text) if isinstance(text, str) else ""


def _reason(answer: CallAnswered) -> str:
    """Return the field `reason`, or else the `detail` of a problem (RFC 9457)."""
    return _text_field(answer, "reason") or _text_field(answer, "detail")


def _unexpected(answer: CallAnswered, reason: str) -> str:
    return f"answered {answer.status}" + (f" ({reason})" if reason else "")
