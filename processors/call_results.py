"""Meaning of the answers to calls: status and body of the HTTP response.

| call | done | refused | later: asked again |
|---|---|---|---|
| charge | 200, 201: charged | 402: declined | 202, 409 |
| refund | 200, 201, 204: refunded | | 202, 409 |
| prepare | `status` is accepted | `status` is rejected | 409 |
| | 202, 204, an empty 200 or 201, or `status` is received or duplicate: received; a record on `pos` follows | | |

For prepare the field `status` of the body decides with 200, 201, 202, 409 and 422. Without it, 409 and 422 may come
from a layer for idempotency: the first attempt is under way, or had another body. They say nothing of the ticket.

Server errors, time-outs and cut connections are not answers: the call is retried under the same key. Any other answer
is unclear: the call is asked again too, at last slowly, and a person has to look. A party that keeps the key's result
settles it by the next answer.
"""

from enum import Enum

import msgspec

from processors.call_kinds import CallKind, parse_call_key
from processors.events import CallAnswered, ChargeFailed, InternalEvent, PrepareFailed, RefundFailed, TicketReceived
from topics.identity import owner_of
from topics.orders import Amount
from topics.payments import AnyCaseCurrency, Charged, ChargeId, Declined, Refunded
from topics.pos import TicketAccepted, TicketRejected
from topics.records import Reader, Record, Undecodable
from topics.text import cleaned

OK, CREATED, RECEIVED, NO_CONTENT = 200, 201, 202, 204
PAYMENT_REQUIRED, CONFLICT, UNPROCESSABLE = 402, 409, 422
NOT_SENT = 0
"""Status of an answer that no party gave: the worker could not write the request or read the answer."""
WITH_TICKET_STATUS = (OK, CREATED, RECEIVED, CONFLICT, UNPROCESSABLE)
"""Statuses with which a body may report the ticket's status."""
WITHOUT_TICKET_STATUS = (RECEIVED, NO_CONTENT)
"""Statuses of a receipt with any body."""


class Verdict(Enum):
    """Consequence of an answer for its call."""

    FINAL = "final"
    LATER = "later"
    """The party has no result yet: ask again."""
    UNCLEAR = "unclear"
    """Nobody can rely on the answer: ask again, and have a person look."""


def verdict_on(answer: CallAnswered) -> Verdict:
    """Return the consequence of an answer for its call."""
    event = to_event(answer)
    if isinstance(event, ChargeFailed | RefundFailed | PrepareFailed):
        return Verdict.UNCLEAR
    return Verdict.LATER if event is None else Verdict.FINAL


def to_event(answer: CallAnswered) -> Record | InternalEvent | None:
    """Return the record or event that an answer amounts to; None if the party has no result yet."""
    match answer.kind:  # mypy finds a kind without a case
        case CallKind.CHARGE:
            return _charge(answer)
        case CallKind.PREPARE:
            return _prepare(answer)
        case CallKind.REFUND:
            return _refund(answer)


def unclear(answer: CallAnswered) -> str:
    """Return an unclear answer as a phrase for people."""
    if answer.status == NOT_SENT:
        return f"the request fails in the worker ({answer.body})"
    reason = _flaw(answer) if answer.status in (OK, CREATED) else _reason(answer)
    return f"answered {answer.status}" + (f" ({reason})" if reason else "")


def _charge(answer: CallAnswered) -> Record | InternalEvent | None:
    order = owner_of(answer.key)
    if answer.status in (OK, CREATED):
        try:
            charge = _charges.read(answer.body.encode())
        except Undecodable:
            return ChargeFailed(unclear(answer))
        return Charged(order=order, charge_id=charge.charge_id, amount=charge.amount, currency=charge.currency)
    if answer.status == PAYMENT_REQUIRED:
        return Declined(order=order, reason=_reason(answer))
    return None if answer.status in (RECEIVED, CONFLICT) else ChargeFailed(unclear(answer))


def _refund(answer: CallAnswered) -> Record | InternalEvent | None:
    order, charge_id = owner_of(answer.key), parse_call_key(answer.key)[1]
    if answer.status in (OK, CREATED, NO_CONTENT):
        return Refunded(order=order, charge_id=charge_id)
    return None if answer.status in (RECEIVED, CONFLICT) else RefundFailed(charge_id, unclear(answer))


def _prepare(answer: CallAnswered) -> Record | InternalEvent | None:
    order = owner_of(answer.key)
    status = _text_field(answer, "status").lower() if answer.status in WITH_TICKET_STATUS else ""
    if status == "accepted":
        return TicketAccepted(order=order)
    if status == "rejected":
        return TicketRejected(order=order, reason=_reason(answer))
    is_empty = answer.status in (OK, CREATED) and not answer.body.strip()
    if status in ("received", "duplicate") or answer.status in WITHOUT_TICKET_STATUS or is_empty:
        return TicketReceived()
    return None if answer.status == CONFLICT else PrepareFailed(unclear(answer))


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


def _flaw(answer: CallAnswered) -> str:
    """Return the reason that nobody can use the body of a success."""
    if answer.kind == CallKind.PREPARE:
        return "/status: it must be accepted, rejected, received or duplicate"
    try:
        _charges.read(answer.body.encode())
    except Undecodable as error:
        return str(error)
    return ""
