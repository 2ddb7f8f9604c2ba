"""The payment of one order.

Rules:
1. Only the answer to a call is a fact, because only the provider can give it: ``Charged``, ``Declined`` and
   ``Refunded`` here are such answers. A report (a callback, or a record on `payments`) proves nothing: it has the open
   call made again at once, and never cancels one.
2. The customer is charged once, under one idempotency key. The provider may still answer with a wrong amount, or with
   another charge when an operator replays an answer. Every wrong charge is refunded under a separate key, and the order
   asks for attention.
3. Every charge is recorded. The payment of a rejected order is final only after all its refunds. ``MAX_REFUNDS`` bounds
   the row: further charges are counted, and a person refunds them.
4. A report without an open call, or one that the answers contradict, changes no money. It raises attention once for an
   order, so that nobody can fill rows and screens with reports.
5. An unclear answer raises attention once. The call goes on, because the next answer may settle it.
6. A total of 0 is paid without a charge: payment providers refuse a charge of nothing.
"""

import msgspec

from processors.call_kinds import CallKind, call_key, charge_ref
from processors.decision import (
    Call,
    Decision,
    DecisionContext,
    Outcome,
    Rows,
    StageEnum,
    Table,
    ignore_duplicate,
    refused,
)
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
    PaymentReported,
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

MAX_REFUNDS = 8
"""Limit of the refunds of wrong charges. One call under one key makes one charge, so more are no accident."""


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
    unclear: bool = False
    """True if an unclear answer has raised attention."""


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
    reported: str = ""
    """Id of the first charge that a report named before the call was answered."""
    contradicted: bool = False
    """True if a report has raised attention."""
    unclear: bool = False
    """True if an unclear answer to the charge has raised attention."""
    surplus: int = 0
    """Number of charges beyond ``MAX_REFUNDS``."""


# -- guards ----------------------------------------------------------------------------------------------------------


def is_free(_: None, event: PaymentRequested, __: DecisionContext) -> bool:
    """the total is 0"""
    return event.amount == 0


def was_free(payment: Payment, _event: RefundRequested, __: DecisionContext) -> bool:
    """the total is 0"""
    return payment.amount == 0 and not payment.charge_id


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


def has_all_refunds(payment: Payment, _event: Charged, __: DecisionContext) -> bool:
    """the row has all the refunds that it may have"""
    return len(payment.refunds) >= MAX_REFUNDS


def is_known_unclear(payment: Payment, event: ChargeFailed | RefundFailed, _: DecisionContext) -> bool:
    """an unclear answer has raised attention before"""
    if isinstance(event, ChargeFailed):
        return payment.unclear
    refund = _refund(payment, event.charge_id)
    return refund is not None and refund.unclear


def is_first_report(payment: Payment, event: PaymentReported, _: DecisionContext) -> bool:
    """the first report of a charge"""
    return isinstance(event.report, Charged) and not payment.reported


def is_about_charge(_payment: Payment, event: PaymentReported, __: DecisionContext) -> bool:
    """a report of a charge or a decline"""
    return isinstance(event.report, Charged | Declined)


def is_about_due_refund(payment: Payment, event: PaymentReported, _: DecisionContext) -> bool:
    """a report of a refund that is due"""
    return isinstance(event.report, Refunded) and _is_due(payment, event.report.charge_id)


def is_known_report(payment: Payment, event: PaymentReported, _: DecisionContext) -> bool:
    """the answers agree, or a report has raised attention before"""
    return payment.contradicted or _agrees(payment, event.report)


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
    """end the call to charge; notify the order: paid"""
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    return _end_charge_call(Decision(state=charged, internal_events=(PaymentCharged(),)))


def refund_wrong_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """end the call to charge; call: refund; notify the order: not paid; raise attention"""
    mismatch = f"charged {event.amount} {event.currency}, the order's total is {payment.amount} {payment.currency}"
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    attention = AttentionRaised(f"the refund of {event.charge_id}: {mismatch}", _wait(event))
    mismatched = PaymentMismatched(mismatch)
    return _end_charge_call(_with_refund(charged, event.charge_id, event.amount, event.currency, mismatched, attention))


def decline(payment: Payment, event: Declined, _: DecisionContext) -> Decision[Payment]:
    """end the call to charge; notify the order: not paid"""
    reason = event.reason or "the payment was declined"
    declined = msgspec.structs.replace(payment, declined=True)
    return _end_charge_call(Decision(state=declined, internal_events=(PaymentDeclined(reason),)))


def refund_late_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """call: refund; raise attention"""
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    attention = AttentionRaised(f"the refund of {event.charge_id}: charged after it was declined", _wait(event))
    return _with_refund(charged, event.charge_id, event.amount, event.currency, attention)


def refund_surplus_charge(payment: Payment, event: Charged, _: DecisionContext) -> Decision[Payment]:
    """call: refund that charge; raise attention"""
    attention = AttentionRaised(f"the refund of {event.charge_id}: a second charge", _wait(event))
    return _with_refund(payment, event.charge_id, event.amount, event.currency, attention)


def count_surplus_charge(payment: Payment, _event: Charged, __: DecisionContext) -> Decision[Payment]:
    """count it; raise attention"""
    attention = AttentionRaised(f"an operator: there are charges beyond {MAX_REFUNDS} refunds", OPERATOR)
    return Decision(state=msgspec.structs.replace(payment, surplus=payment.surplus + 1), internal_events=(attention,))


def record_report(payment: Payment, event: PaymentReported, _: DecisionContext) -> Decision[Payment]:
    """call again at once: charge; remember the reported charge"""
    assert isinstance(event.report, Charged)
    reported = msgspec.structs.replace(payment, reported=event.report.charge_id)
    return Decision(state=reported, wake_calls=(charge_key(payment.order),))


def repeat_charge_call(payment: Payment, _event: PaymentReported, __: DecisionContext) -> Decision[Payment]:
    """call again at once: charge"""
    return Decision(outcome=Outcome.ABSORBED, wake_calls=(charge_key(payment.order),))


def repeat_refund_call(payment: Payment, event: PaymentReported, _: DecisionContext) -> Decision[Payment]:
    """call again at once: refund"""
    assert isinstance(event.report, Refunded)
    key = refund_key(payment.order, event.report.charge_id)
    return Decision(outcome=Outcome.ABSORBED, wake_calls=(key,))


def raise_report_attention(payment: Payment, event: PaymentReported, _: DecisionContext) -> Decision[Payment]:
    """raise attention"""
    contradicted = msgspec.structs.replace(payment, contradicted=True)
    return Decision(state=contradicted, internal_events=(_contradiction(event.report),))


def refund_charge(payment: Payment, _event: RefundRequested, __: DecisionContext) -> Decision[Payment]:
    """call: refund"""
    return _with_refund(payment, payment.charge_id, payment.amount, payment.currency)


def record_refund(payment: Payment, event: Refunded, _: DecisionContext) -> Decision[Payment]:
    """end the call to refund; notify the order: refunded"""
    return _refunded(payment, event, PaymentRefunded(_wait(event)))


def record_other_refund(payment: Payment, event: Refunded, _: DecisionContext) -> Decision[Payment]:
    """end the call to refund; clear that attention"""
    return _refunded(payment, event, AttentionCleared(_wait(event)))


def refuse_decline(_payment: Payment, event: Declined, _: DecisionContext) -> Decision[Payment]:
    """refuse: it contradicts the charge; raise attention"""
    contradiction = "the payment provider declines what it has charged"
    return refused(contradiction, AttentionRaised(f"an operator: {contradiction} ({event.reason})", OPERATOR))


def refuse_refund(_payment: Payment, event: Refunded, _: DecisionContext) -> Decision[Payment]:
    """refuse: no refund is due; raise attention"""
    contradiction = f"no refund of {event.charge_id} is due"
    return refused(contradiction, AttentionRaised(f"an operator: refunded, but {contradiction}", OPERATOR))


def raise_charge_attention(payment: Payment, event: ChargeFailed, _: DecisionContext) -> Decision[Payment]:
    """raise attention"""
    needed = AttentionRaised(f"the charge: {event.reason}")
    return Decision(state=msgspec.structs.replace(payment, unclear=True), internal_events=(needed,))


def raise_refund_attention(payment: Payment, event: RefundFailed, _: DecisionContext) -> Decision[Payment]:
    """raise attention"""
    needed = AttentionRaised(f"the refund of {event.charge_id}: {event.reason}", _wait(event))
    refunds = tuple(
        msgspec.structs.replace(refund, unclear=True) if refund.charge_id == event.charge_id else refund
        for refund in payment.refunds
    )
    return Decision(state=msgspec.structs.replace(payment, refunds=refunds), internal_events=(needed,))


def retry_charge(payment: Payment, event: ChargeRetried, _: DecisionContext) -> Decision[Payment]:
    """call at once: charge"""
    return Decision(reason=event.requested_by, calls=(_charge_call(payment),))


def abandon_charge(payment: Payment, event: ChargeAbandoned, _: DecisionContext) -> Decision[Payment]:
    """cancel the call to charge; raise attention"""
    needed = AttentionRaised(f"the charge, given up {event.requested_by}")
    return Decision(reason=event.requested_by, internal_events=(needed,), cancel_calls=(charge_key(payment.order),))


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
    | PaymentReported
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
    row((DUE,), ChargeFailed, None, ignore_duplicate, when=is_known_unclear),
    row((DUE,), ChargeFailed, None, raise_charge_attention),
    row((DECLINED,), Charged, REFUND_DUE, refund_late_charge),
    row((DECLINED,), Declined, None, ignore_duplicate),
    row(HAS_CHARGE, Charged, None, ignore_duplicate, when=is_known_charge),
    row(HAS_CHARGE, Charged, None, count_surplus_charge, when=has_all_refunds),
    row(HAS_CHARGE, Charged, None, refund_surplus_charge),
    row(HAS_CHARGE, Declined, None, ignore_duplicate, when=declined_before),
    row(HAS_CHARGE, Declined, None, refuse_decline),
    row((CHARGED,), RefundRequested, REFUNDED, waive_refund, when=was_free),
    row((CHARGED,), RefundRequested, REFUND_DUE, refund_charge),
    row((REFUND_DUE,), Refunded, REFUNDED, record_refund, when=is_refund_of_charge),
    row(HAS_CHARGE, Refunded, None, record_other_refund, when=is_refund_of_other_charge),
    row(HAS_CHARGE, Refunded, None, ignore_duplicate, when=is_refunded),
    row(ANY, Refunded, None, refuse_refund),
    row(HAS_CHARGE, RefundFailed, None, ignore_duplicate, when=is_known_unclear),
    row((REFUND_DUE,), RefundFailed, None, raise_refund_attention, when=is_refund_of_charge),
    row(HAS_CHARGE, RefundFailed, None, raise_refund_attention, when=is_refund_of_other_charge),
    row(HAS_CHARGE, RefundFailed, None, ignore_duplicate, when=is_refunded),
    row((CHARGED, DECLINED, REFUND_DUE, REFUNDED), ChargeFailed, None, ignore_duplicate),
    # reports
    row((DUE,), PaymentReported, None, record_report, when=is_first_report),
    row((DUE,), PaymentReported, None, repeat_charge_call, when=is_about_charge),
    row(HAS_CHARGE, PaymentReported, None, repeat_refund_call, when=is_about_due_refund),
    row(ANY, PaymentReported, None, ignore_duplicate, when=is_known_report),
    row(ANY, PaymentReported, None, raise_report_attention),
    # requests of operators
    row((DUE,), ChargeRetried, None, retry_charge),
    row((DUE,), ChargeAbandoned, None, abandon_charge),
    row(HAS_CHARGE, RefundRetried, None, retry_refund, when=is_refund_due),
    row(HAS_CHARGE, RefundAbandoned, None, abandon_refund, when=is_refund_due),
)
TABLE = Table[Payment, Stage, Event]("the payment", ROWS)


def decide(payment: Payment | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Payment]:
    """Decide an event of a payment: the answer to a call, or an event for the payment in ``events``."""
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


def _agrees(payment: Payment, report: Charged | Declined | Refunded) -> bool:
    """Return whether the answers to the calls say what the report says."""
    match report:
        case Charged():
            return report.charge_id == payment.charge_id or _refund(payment, report.charge_id) is not None
        case Declined():
            return payment.declined
        case Refunded():
            refund = _refund(payment, report.charge_id)
            return refund is not None and refund.done


def _contradiction(report: Charged | Declined | Refunded) -> AttentionRaised:
    match report:
        case Charged():
            text = f"the payment provider reports the charge {report.charge_id}, which no answer to a call shows"
        case Declined():
            text = f"the payment provider reports a decline of what it has charged ({report.reason})"
        case Refunded():
            text = f"the payment provider reports a refund of {report.charge_id} that is not due"
    return AttentionRaised(f"an operator: {text}", OPERATOR)


def _end_charge_call(decision: Decision[Payment]) -> Decision[Payment]:
    """Add the end of the call, which a replayed answer finds open, and attention for another charge reported before."""
    payment = decision.state
    assert payment is not None
    ended = msgspec.structs.replace(decision, cancel_calls=(charge_key(payment.order),))
    if payment.reported in ("", payment.charge_id):
        return ended
    report = Charged(order=payment.order, charge_id=payment.reported, amount=payment.amount, currency=payment.currency)
    return msgspec.structs.replace(
        ended,
        state=msgspec.structs.replace(payment, contradicted=True),
        internal_events=(*decision.internal_events, _contradiction(report)),
    )


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
