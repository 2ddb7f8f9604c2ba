"""The money of one order.

Rules:
1. The customer is charged once, under one idempotency key. The provider may still charge twice, or charge after it
   declined, or charge something else: every charge but the right one is given back, under a key of its own, and a
   person is told.
2. No charge is ever forgotten: an order that is rejected gets its money back before its payment is at rest.
   What has come about by a callback is not asked for any more. But a charge that was declined by one is, until the
   provider has answered: an attempt of which nothing was heard may have charged. The order stays in the tables so long.
   Where it charged or gave back there is no such call any more, and so none to give up: an operator is refused.
3. What the provider says against what it said before is refused, and a person is told.
"""

import msgspec

from processors.decision import Call, Decision, Moment, Named, Table, Transition, absorb, refused
from processors.events import (
    OPERATOR,
    AttentionNeeded,
    AttentionOver,
    ChargeAbandoned,
    ChargeFailed,
    ChargeRetried,
    PaymentCharged,
    PaymentDeclined,
    PaymentDue,
    PaymentMismatched,
    PaymentRefunded,
    RefundAbandoned,
    RefundDue,
    RefundFailed,
    RefundRetried,
)
from processors.parameters import Parameters
from processors.requests import ChargeRequest, RefundRequest
from topics.payments import Charged, Declined, Refunded


class Stage(Named):
    """Where the money is."""

    DUE = "DUE"
    CHARGED = "CHARGED"
    DECLINED = "DECLINED"
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"


class Refund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A charge that is given back."""

    charge_id: str
    amount: int
    currency: str
    done: bool = False


class Payment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the customer owes, and the charges that were made for it."""

    order: str
    stage: Stage
    amount: int
    currency: str
    charge_id: str = ""
    """Of the charge that counts."""
    refunds: tuple[Refund, ...] = ()
    """Every charge that is or was given back; that of ``charge_id`` too, if it is."""
    declined: bool = False
    """The provider declined."""


# -- guards ----------------------------------------------------------------------------------------------------------


def as_owed(payment: Payment, event: Charged, _: Moment) -> bool:
    """amount and currency are the order's"""
    return (event.amount, event.currency) == (payment.amount, payment.currency)


def known_charge(payment: Payment, event: Charged, _: Moment) -> bool:
    """a charge that is known"""
    return event.charge_id == payment.charge_id or _refund(payment, event.charge_id) is not None


def had_declined(payment: Payment, _event: Declined, _: Moment) -> bool:
    """it had declined before it charged"""
    return payment.declined


def refund_of_the_charge(payment: Payment, event: Refunded | RefundFailed, _: Moment) -> bool:
    """the charge that counts, its refund due"""
    return event.charge_id == payment.charge_id and _is_due(payment, event.charge_id)


def refund_of_another(payment: Payment, event: Refunded | RefundFailed, _: Moment) -> bool:
    """another charge, its refund due"""
    return event.charge_id != payment.charge_id and _is_due(payment, event.charge_id)


def refunded_already(payment: Payment, event: Refunded | RefundFailed, _: Moment) -> bool:
    """given back already"""
    refund = _refund(payment, event.charge_id)
    return refund is not None and refund.done


def refund_is_due(payment: Payment, event: RefundRetried | RefundAbandoned, _: Moment) -> bool:
    """its refund due"""
    return _is_due(payment, event.charge_id)


# -- effects ---------------------------------------------------------------------------------------------------------


def charge(_: None, event: PaymentDue, __: Moment) -> Decision[Payment]:
    """call: charge"""
    payment = Payment(order=event.order, stage=Stage.DUE, amount=event.amount, currency=event.currency)
    return Decision(state=payment, calls=(_charge_call(payment),))


def take(payment: Payment, event: Charged, _: Moment) -> Decision[Payment]:
    """call: charge no more; order: paid"""
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    return Decision(state=charged, tell=(PaymentCharged(),), cancel_calls=(charge_key(payment.order),))


def give_back_wrong_charge(payment: Payment, event: Charged, _: Moment) -> Decision[Payment]:
    """call: charge no more, refund; order: not paid, attention"""
    wrong = f"charged {event.amount} {event.currency}, the order's total is {payment.amount} {payment.currency}"
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    attention = AttentionNeeded(f"the refund of {event.charge_id}: {wrong}", _wait(event))
    mismatched = PaymentMismatched(wrong)
    return _charged_no_more(_refunding(charged, event.charge_id, event.amount, event.currency, mismatched, attention))


def decline(payment: Payment, event: Declined, _: Moment) -> Decision[Payment]:
    """order: not paid"""
    reason = event.reason or "the payment was declined"
    return Decision(state=msgspec.structs.replace(payment, declined=True), tell=(PaymentDeclined(reason),))


def give_back_late_charge(payment: Payment, event: Charged, _: Moment) -> Decision[Payment]:
    """call: charge no more, refund; attention"""
    charged = msgspec.structs.replace(payment, charge_id=event.charge_id)
    attention = AttentionNeeded(f"the refund of {event.charge_id}: charged after it was declined", _wait(event))
    return _charged_no_more(_refunding(charged, event.charge_id, event.amount, event.currency, attention))


def give_back_surplus(payment: Payment, event: Charged, _: Moment) -> Decision[Payment]:
    """call: refund of that charge; attention"""
    attention = AttentionNeeded(f"the refund of {event.charge_id}: a second charge", _wait(event))
    return _refunding(payment, event.charge_id, event.amount, event.currency, attention)


def give_back(payment: Payment, _event: RefundDue, __: Moment) -> Decision[Payment]:
    """call: refund"""
    return _refunding(payment, payment.charge_id, payment.amount, payment.currency)


def note_return(payment: Payment, event: Refunded, _: Moment) -> Decision[Payment]:
    """call: refund no more; order: refunded"""
    return _returned(payment, event, PaymentRefunded(_wait(event)))


def note_other_return(payment: Payment, event: Refunded, _: Moment) -> Decision[Payment]:
    """call: refund no more; that attention is over"""
    return _returned(payment, event, AttentionOver(_wait(event)))


def refuse_decline(_payment: Payment, event: Declined, _: Moment) -> Decision[Payment]:
    """refused; attention"""
    contradiction = "the payment provider declines what it has charged"
    return refused(contradiction, AttentionNeeded(f"an operator: {contradiction} ({event.reason})", OPERATOR))


def refuse_refund(_payment: Payment, event: Refunded, _: Moment) -> Decision[Payment]:
    """refused; attention"""
    contradiction = f"no refund of {event.charge_id} is due"
    return refused(contradiction, AttentionNeeded(f"an operator: refunded, but {contradiction}", OPERATOR))


def report_charge(_payment: Payment, event: ChargeFailed, _: Moment) -> Decision[Payment]:
    """attention"""
    return Decision(tell=(AttentionNeeded(f"the charge: {event.reason}"),))


def report_refund(payment: Payment, event: RefundFailed, _: Moment) -> Decision[Payment]:
    """attention"""
    needed = AttentionNeeded(f"the refund of {event.charge_id}: {event.reason}", _wait(event))
    return Decision(tell=(needed,))


def charge_again(payment: Payment, event: ChargeRetried, _: Moment) -> Decision[Payment]:
    """call: charge, at once"""
    return Decision(reason=event.asked, calls=(_charge_call(payment),))


def give_charge_up(payment: Payment, event: ChargeAbandoned, _: Moment) -> Decision[Payment]:
    """call: charge no more; attention"""
    needed = AttentionNeeded(f"the charge, given up {event.asked}")
    return Decision(reason=event.asked, tell=(needed,), cancel_calls=(charge_key(payment.order),))


def end_charge_call(payment: Payment, event: ChargeAbandoned, _: Moment) -> Decision[Payment]:
    """call: charge no more"""
    return Decision(reason=event.asked, cancel_calls=(charge_key(payment.order),))


def refund_again(payment: Payment, event: RefundRetried, _: Moment) -> Decision[Payment]:
    """call: refund, at once"""
    return Decision(reason=event.asked, calls=(_refund_call(payment, event.charge_id),))


def give_refund_up(payment: Payment, event: RefundAbandoned, _: Moment) -> Decision[Payment]:
    """call: refund no more; attention"""
    needed = AttentionNeeded(f"the refund of {event.charge_id}, given up {event.asked}", _wait(event))
    return Decision(reason=event.asked, tell=(needed,), cancel_calls=(refund_key(payment.order, event.charge_id),))


# -- the table -------------------------------------------------------------------------------------------------------

DUE, CHARGED, DECLINED = Stage.DUE, Stage.CHARGED, Stage.DECLINED
REFUND_DUE, REFUNDED = Stage.REFUND_DUE, Stage.REFUNDED
ANY = (DUE, CHARGED, DECLINED, REFUND_DUE, REFUNDED)
HAS_CHARGE = (CHARGED, REFUND_DUE, REFUNDED)

TABLE: Table[Payment] = Table(
    "the payment",
    (
        Transition((None,), PaymentDue, DUE, charge),
        Transition((DUE,), Charged, CHARGED, take, when=as_owed),
        Transition((DUE,), Charged, REFUND_DUE, give_back_wrong_charge),
        Transition((DUE,), Declined, DECLINED, decline),
        Transition((DUE,), ChargeFailed, None, report_charge),
        Transition((DECLINED,), Charged, REFUND_DUE, give_back_late_charge),
        Transition((DECLINED,), Declined, None, absorb),
        Transition(HAS_CHARGE, Charged, None, absorb, when=known_charge),
        Transition(HAS_CHARGE, Charged, None, give_back_surplus),
        Transition(HAS_CHARGE, Declined, None, absorb, when=had_declined),
        Transition(HAS_CHARGE, Declined, None, refuse_decline),
        Transition((CHARGED,), RefundDue, REFUND_DUE, give_back),
        Transition((REFUND_DUE,), Refunded, REFUNDED, note_return, when=refund_of_the_charge),
        Transition(HAS_CHARGE, Refunded, None, note_other_return, when=refund_of_another),
        Transition(HAS_CHARGE, Refunded, None, absorb, when=refunded_already),
        Transition(ANY, Refunded, None, refuse_refund),
        Transition((REFUND_DUE,), RefundFailed, None, report_refund, when=refund_of_the_charge),
        Transition(HAS_CHARGE, RefundFailed, None, report_refund, when=refund_of_another),
        Transition(HAS_CHARGE, RefundFailed, None, absorb, when=refunded_already),
        Transition((CHARGED, DECLINED, REFUND_DUE, REFUNDED), ChargeFailed, None, absorb),
        # what operators want
        Transition((DUE,), ChargeRetried, None, charge_again),
        Transition((DUE,), ChargeAbandoned, None, give_charge_up),
        Transition((DECLINED,), ChargeAbandoned, None, end_charge_call),
        Transition(HAS_CHARGE, RefundRetried, None, refund_again, when=refund_is_due),
        Transition(HAS_CHARGE, RefundAbandoned, None, give_refund_up, when=refund_is_due),
    ),
)


def decide(payment: Payment | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Payment]:
    """What an event does to a payment: records of topics.payments and the payment's in ``events``."""
    return TABLE.decide(payment, event, now_ms, parameters)


def charge_key(order: str) -> str:
    """The idempotency key under which the customer is charged."""
    return f"{order}/charge"


def refund_key(order: str, charge_id: str) -> str:
    """The idempotency key under which this charge is given back."""
    return f"{order}/refund/{charge_id}"


def call_keys(payment: Payment) -> tuple[str, ...]:
    """The keys of every call that there may be for its money."""
    refunds = (refund_key(payment.order, refund.charge_id) for refund in payment.refunds)
    return (charge_key(payment.order), *refunds)


def _wait(event: Charged | Refunded | RefundFailed | RefundAbandoned) -> str:
    """The name of the wait for a refund."""
    return f"refund of {event.charge_id}"


def _refund(payment: Payment, charge_id: str) -> Refund | None:
    return next((refund for refund in payment.refunds if refund.charge_id == charge_id), None)


def _is_due(payment: Payment, charge_id: str) -> bool:
    refund = _refund(payment, charge_id)
    return refund is not None and not refund.done


def _refunding(payment: Payment, charge_id: str, amount: int, currency: str, *tell: object) -> Decision[Payment]:
    refund = Refund(charge_id=charge_id, amount=amount, currency=currency)
    refunding = msgspec.structs.replace(payment, refunds=(*payment.refunds, refund))
    return Decision(state=refunding, tell=tell, calls=(_refund_call(refunding, charge_id),))


def _charged_no_more(decision: Decision[Payment]) -> Decision[Payment]:
    assert decision.state is not None
    return msgspec.structs.replace(decision, cancel_calls=(charge_key(decision.state.order),))


def _charge_call(payment: Payment) -> Call:
    request = ChargeRequest(order=payment.order, amount=payment.amount, currency=payment.currency)
    return Call(charge_key(payment.order), "charge", request)


def _refund_call(payment: Payment, charge_id: str) -> Call:
    refund = _refund(payment, charge_id)
    assert refund is not None
    request = RefundRequest(order=payment.order, charge_id=charge_id, amount=refund.amount, currency=refund.currency)
    return Call(refund_key(payment.order, charge_id), "refund", request)


def _returned(payment: Payment, event: Refunded, tell: object) -> Decision[Payment]:
    refunds = tuple(
        msgspec.structs.replace(refund, done=True) if refund.charge_id == event.charge_id else refund
        for refund in payment.refunds
    )
    returned = msgspec.structs.replace(payment, refunds=refunds)
    return Decision(state=returned, tell=(tell,), cancel_calls=(refund_key(payment.order, event.charge_id),))
