"""The payment of one order.

Rules:
1. The customer is charged once, under one idempotency key. The provider may still charge twice, charge after a decline,
   or charge a wrong amount. Every wrong charge is refunded under a separate key, and the order asks for attention.
2. Every charge is recorded. The payment of a rejected order is final only after all its refunds.
3. A callback that reports a charge or a refund cancels the pending call, so no call is left to give up: an operator who
   gives it up is refused. A callback that reports a decline does not cancel the call, because an unanswered attempt may
   still have charged the customer. The call continues until it is answered, and the order stays in the tables until
   then.
4. A total of 0 is paid without a charge: payment providers refuse a charge of nothing.
5. If the provider contradicts an earlier report, the event is refused, and the order asks for attention.
"""

import msgspec

from processors.call_kinds import CallKind, call_key, charge_ref
from processors.decision import Call, Decision, DecisionContext, Rows, StageEnum, Table, ignore_duplicate, refused
from processors.events import (
    OPERATOR,
    AttentionCleared,
    AttentionRaised,
    ChargeAbandoned,
    ChargeFailed,
    ChargeRetried,
    InternalEvent,
    PaymentCharged,
    PaymentDeclined,
    PaymentMismatched,
    PaymentRefunded,
    PaymentRequested,
    RefundAbandoned,
    RefundFailed,
    RefundRequested,
    RefundRetried,
)
from processors.parameters import Parameters
from processors.requests import ChargeRequest, RefundRequest
from topics.payments import Charged, Declined, Refunded
from topics.records import Record


class Stage(StageEnum):
    """Progress of the payment."""

    DUE = "DUE"
    CHARGED = "CHARGED"
    DECLINED = "DECLINED"
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"


class Refund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Refund of one charge, due or done."""

    charge_id: str
    amount: int
    currency: str
    done: bool = False


class Payment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Amount that the customer owes, and the charges and refunds that were made."""

    order: str
    stage: Stage
    amount: int
    currency: str
    charge_id: str = ""
    """Id of the first charge. It pays the order unless its amount is wrong or it came after a decline."""
    refunds: tuple[Refund, ...] = ()
    """Refunds of all charges that are or were refunded; may include ``charge_id``."""
    declined: bool = False
    """True if the provider has declined before any charge."""


# -- guards ----------------------------------------------------------------------------------------------------------


def is_free(_: None, event: PaymentRequested, __: DecisionContext) -> bool:
    """the total is 0"""
    return event.amount == 0


def was_free(payment: Payment, _event: RefundRequested, __: DecisionContext) -> bool:
    """the total is 0"""
    return payment.amount == 0 and not payment.charge_id


def is_charge_of_nothing(_payment: Payment, event: Charged, __: DecisionContext) -> bool:
    """the amount is 0"""
    return event.amount == 0


def matches_amount_due(payment: Payment, event: Charged, _: DecisionContext) -> bool:
    """amount and currency are the order's"""
    return (event.amount, event.currency) == (payment.amount, payment.currency)


def is_known_charge(payment: Payment, event: Charged, _: DecisionContext) -> bool:
    """the charge is known"""
    return event.charge_id == payment.charge_id or _refund(payment, event.charge_id) is not None


def declined_before(payment: Payment, _event: Declined, _: DecisionContext) -> bool:
    """the provider declined before it charged"""
    return payment.declined


def is_refund_of_charge(payment: Payment, event: Refunded | RefundFailed, _: DecisionContext) -> bool:
    """the refund of the order's charge is due"""
    return event.charge_id == payment.charge_id and _is_due(payment, event.charge_id)


def is_refund_of_other_charge(payment: Payment, event: Refunded | RefundFailed, _: DecisionContext) -> bool:
    """the refund of another charge is due"""
    return event.charge_id != payment.charge_id and _is_due(payment, event.charge_id)


def is_refunded(payment: Payment, event: Refunded | RefundFailed, _: DecisionContext) -> bool:
    """the charge is refunded already"""
    refund = _refund(payment, event.charge_id)
    return refund is not None and refund.done


def is_refund_due(payment: Payment, event: RefundRetried | RefundAbandoned, _: DecisionContext) -> bool:
    """the refund is due"""
    return _is_due(payment, event.charge_id)


# -- effects ---------------------------------------------------------------------------------------------------------


def charge(_: None, event: PaymentRequested, __: DecisionContext) -> Decision[Payment]:
    """call the provider: charge"""
    payment = Payment(order=event.order, stage=Stage.DUE, amount=event.amount, currency=event.currency)
    return Decision(state=payment, calls=(_charge_call(payment),))


def waive_charge(_: None, event: PaymentRequested, __: DecisionContext) -> Decision[Payment]:
    """notify the order: paid"""
    payment = Payment(order=event.order, stage=Stage.CHARGED, amount=0, currency=event.currency)
    return Decision(state=payment, internal_events=(PaymentCharged(),))


def waive_refund(_payment: Payment, _event: RefundRequested, __: DecisionContext) -> Decision[Payment]:
    """notify the order: refunded"""
    return Decision(internal_events=(PaymentRefunded("a refund of nothing"),))


def record_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to charge; notify the order: paid"""
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    return Decision(state=charged, internal_events=(PaymentCharged(),), cancel_calls=(charge_key(payment.order),))


def refund_wrong_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to charge; call: refund; notify the order: not paid; raise attention"""
    mismatch = f"charged {event.amount} {event.currency}, the order's total is {payment.amount} {payment.currency}"
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    attention = AttentionRaised(f"the refund of {event.charge_id}: {mismatch}", _wait(event))
    mismatched = PaymentMismatched(mismatch)
    return _without_charge_call(
        _with_refund(charged, event.charge_id, event.amount, event.currency, mismatched, attention)
    )


def decline(payment: Payment, event: Declined, _: DecisionContext) -> Decision[Payment]:
    """notify the order: not paid"""
    reason = event.reason or "the payment was declined"
    return Decision(state=msgspec.structs.replace(payment, declined=True), internal_events=(PaymentDeclined(reason),))


def refund_late_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to charge; call: refund; raise attention"""
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    attention = AttentionRaised(f"the refund of {event.charge_id}: charged after it was declined", _wait(event))
    return _without_charge_call(_with_refund(charged, event.charge_id, event.amount, event.currency, attention))


def refund_surplus_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """call: refund that charge; raise attention"""
    attention = AttentionRaised(f"the refund of {event.charge_id}: a second charge", _wait(event))
    return _with_refund(payment, event.charge_id, event.amount, event.currency, attention)


def refund_charge(payment: Payment, _event: RefundRequested, __: DecisionContext) -> Decision[Payment]:
    """call: refund"""
    return _with_refund(payment, payment.charge_id, payment.amount, payment.currency)


def record_refund(payment: Payment, event: Refunded, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to refund; notify the order: refunded"""
    return _refunded(payment, event, PaymentRefunded(_wait(event)))


def record_other_refund(payment: Payment, event: Refunded, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to refund; clear that attention"""
    return _refunded(payment, event, AttentionCleared(_wait(event)))


def refuse_decline(_payment: Payment, event: Declined, _: DecisionContext) -> Decision[Payment]:
    """refuse: it contradicts the charge; raise attention"""
    contradiction = "the payment provider declines what it has charged"
    return refused(contradiction, AttentionRaised(f"an operator: {contradiction} ({event.reason})", OPERATOR))


def refuse_refund(_payment: Payment, event: Refunded, _: DecisionContext) -> Decision[Payment]:
    """refuse: no refund is due; raise attention"""
    contradiction = f"no refund of {event.charge_id} is due"
    return refused(contradiction, AttentionRaised(f"an operator: refunded, but {contradiction}", OPERATOR))


def raise_charge_attention(_payment: Payment, event: ChargeFailed, _: DecisionContext) -> Decision[Payment]:
    """raise attention"""
    return Decision(internal_events=(AttentionRaised(f"the charge: {event.reason}"),))


def raise_refund_attention(payment: Payment, event: RefundFailed, _: DecisionContext) -> Decision[Payment]:
    """raise attention"""
    needed = AttentionRaised(f"the refund of {event.charge_id}: {event.reason}", _wait(event))
    return Decision(internal_events=(needed,))


def retry_charge(payment: Payment, event: ChargeRetried, _: DecisionContext) -> Decision[Payment]:
    """call at once: charge"""
    return Decision(reason=event.requested_by, calls=(_charge_call(payment),))


def abandon_charge(payment: Payment, event: ChargeAbandoned, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to charge; raise attention"""
    needed = AttentionRaised(f"the charge, given up {event.requested_by}")
    return Decision(reason=event.requested_by, internal_events=(needed,), cancel_calls=(charge_key(payment.order),))


def end_charge_call(payment: Payment, event: ChargeAbandoned, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to charge"""
    return Decision(reason=event.requested_by, cancel_calls=(charge_key(payment.order),))


def retry_refund(payment: Payment, event: RefundRetried, _: DecisionContext) -> Decision[Payment]:
    """call at once: refund"""
    return Decision(reason=event.requested_by, calls=(_refund_call(payment, event.charge_id),))


def abandon_refund(payment: Payment, event: RefundAbandoned, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to refund; raise attention"""
    needed = AttentionRaised(f"the refund of {event.charge_id}, given up {event.requested_by}", _wait(event))
    return Decision(
        reason=event.requested_by, internal_events=(needed,), cancel_calls=(refund_key(payment.order, event.charge_id),)
    )


# -- the table -------------------------------------------------------------------------------------------------------

DUE, CHARGED, DECLINED = Stage.DUE, Stage.CHARGED, Stage.DECLINED
REFUND_DUE, REFUNDED = Stage.REFUND_DUE, Stage.REFUNDED
ANY = (DUE, CHARGED, DECLINED, REFUND_DUE, REFUNDED)
HAS_CHARGE = (CHARGED, REFUND_DUE, REFUNDED)

Event = (
    PaymentRequested
    | Charged
    | Declined
    | ChargeFailed
    | RefundRequested
    | Refunded
    | RefundFailed
    | ChargeRetried
    | ChargeAbandoned
    | RefundRetried
    | RefundAbandoned
)
"""Union of the events of the table."""
row = Rows[Payment, Stage]()
ROWS = (
    row((None,), PaymentRequested, CHARGED, waive_charge, when=is_free),
    row((None,), PaymentRequested, DUE, charge),
    row((DUE,), Charged, CHARGED, record_charge, when=matches_amount_due),
    row((DUE,), Charged, REFUND_DUE, refund_wrong_charge),
    row((DUE,), Declined, DECLINED, decline),
    row((DUE,), ChargeFailed, None, raise_charge_attention),
    row((DECLINED,), Charged, REFUND_DUE, refund_late_charge),
    row((DECLINED,), Declined, None, ignore_duplicate),
    row(HAS_CHARGE, Charged, None, ignore_duplicate, when=is_known_charge),
    row(HAS_CHARGE, Charged, None, ignore_duplicate, when=is_charge_of_nothing),
    row(HAS_CHARGE, Charged, None, refund_surplus_charge),
    row(HAS_CHARGE, Declined, None, ignore_duplicate, when=declined_before),
    row(HAS_CHARGE, Declined, None, refuse_decline),
    row((CHARGED,), RefundRequested, REFUNDED, waive_refund, when=was_free),
    row((CHARGED,), RefundRequested, REFUND_DUE, refund_charge),
    row((REFUND_DUE,), Refunded, REFUNDED, record_refund, when=is_refund_of_charge),
    row(HAS_CHARGE, Refunded, None, record_other_refund, when=is_refund_of_other_charge),
    row(HAS_CHARGE, Refunded, None, ignore_duplicate, when=is_refunded),
    row(ANY, Refunded, None, refuse_refund),
    row((REFUND_DUE,), RefundFailed, None, raise_refund_attention, when=is_refund_of_charge),
    row(HAS_CHARGE, RefundFailed, None, raise_refund_attention, when=is_refund_of_other_charge),
    row(HAS_CHARGE, RefundFailed, None, ignore_duplicate, when=is_refunded),
    row((CHARGED, DECLINED, REFUND_DUE, REFUNDED), ChargeFailed, None, ignore_duplicate),
    # requests of operators
    row((DUE,), ChargeRetried, None, retry_charge),
    row((DUE,), ChargeAbandoned, None, abandon_charge),
    row((DECLINED,), ChargeAbandoned, None, end_charge_call),
    row(HAS_CHARGE, RefundRetried, None, retry_refund, when=is_refund_due),
    row(HAS_CHARGE, RefundAbandoned, None, abandon_refund, when=is_refund_due),
)
TABLE = Table[Payment, Stage, Event]("the payment", ROWS)


def decide(payment: Payment | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Payment]:
    """Decide an event of a payment: a record of ``topics.payments``, or an event for the payment in ``events``."""
    return TABLE.decide(payment, event, now_ms, parameters)


def charge_key(order: str) -> str:
    """Return the idempotency key of the order's charge."""
    return call_key(order, CallKind.CHARGE)


def refund_key(order: str, charge_id: str) -> str:
    """Return the idempotency key of the refund of this charge."""
    return call_key(order, CallKind.REFUND, charge_id)


def charge_of(payment: Payment | None, ref: str) -> str:
    """Return the id of the charge that a refund's key refers to; ``ref`` itself if no refund has this key."""
    refunds = payment.refunds if payment else ()
    return next((refund.charge_id for refund in refunds if charge_ref(refund.charge_id) == ref), ref)


def with_charge_id(payment: Payment | None, event: Record | InternalEvent | None) -> Record | InternalEvent | None:
    """Return the result of a refund with the id of its charge: the key of the call may hold a hash of it."""
    if isinstance(event, Refunded | RefundFailed):
        return msgspec.structs.replace(event, charge_id=charge_of(payment, event.charge_id))
    return event


def call_keys(payment: Payment) -> tuple[str, ...]:
    """Return the keys of all calls that this payment may have made."""
    refunds = (refund_key(payment.order, refund.charge_id) for refund in payment.refunds)
    return (charge_key(payment.order), *refunds)


def _wait(event: Charged | Refunded | RefundFailed | RefundAbandoned) -> str:
    """Return the name of the wait for a refund, as in ``AttentionItem.wait``."""
    return f"refund of {event.charge_id}"


def _refund(payment: Payment, charge_id: str) -> Refund | None:
    return next((refund for refund in payment.refunds if refund.charge_id == charge_id), None)


def _is_due(payment: Payment, charge_id: str) -> bool:
    refund = _refund(payment, charge_id)
    return refund is not None and not refund.done


def _with_refund(
    payment: Payment, charge_id: str, amount: int, currency: str, *internal_events: InternalEvent
) -> Decision[Payment]:
    refund = Refund(charge_id=charge_id, amount=amount, currency=currency)
    refunding = msgspec.structs.replace(payment, refunds=(*payment.refunds, refund))
    return Decision(state=refunding, internal_events=internal_events, calls=(_refund_call(refunding, charge_id),))


def _without_charge_call(decision: Decision[Payment]) -> Decision[Payment]:
    assert decision.state is not None
    return msgspec.structs.replace(decision, cancel_calls=(charge_key(decision.state.order),))


def _charge_call(payment: Payment) -> Call:
    request = ChargeRequest(order=payment.order, amount=payment.amount, currency=payment.currency)
    return Call(charge_key(payment.order), CallKind.CHARGE, request)


def _refund_call(payment: Payment, charge_id: str) -> Call:
    refund = _refund(payment, charge_id)
    assert refund is not None
    request = RefundRequest(order=payment.order, charge_id=charge_id, amount=refund.amount, currency=refund.currency)
    return Call(refund_key(payment.order, charge_id), CallKind.REFUND, request)


def _refunded(payment: Payment, event: Refunded, following: InternalEvent) -> Decision[Payment]:
    refunds = tuple(
        msgspec.structs.replace(refund, done=True) if refund.charge_id == event.charge_id else refund
        for refund in payment.refunds
    )
    refunded = msgspec.structs.replace(payment, refunds=refunds)
    return Decision(
        state=refunded, internal_events=(following,), cancel_calls=(refund_key(payment.order, event.charge_id),)
    )
