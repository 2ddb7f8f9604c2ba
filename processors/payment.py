"""The money of one order."""

from enum import Enum

import msgspec

from processors.decision import Decision
from processors.parameters import Parameters


class Stage(Enum):
    """Where the money is."""

    DUE = "DUE"
    CHARGED = "CHARGED"
    DECLINED = "DECLINED"
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"


class Payment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the customer owes, and the charges that were made for it."""

    order: str
    stage: Stage
    amount: int
    currency: str
    charge_id: str = ""
    """Of the charge that counts."""
    declined: bool = False
    """The provider had declined before it charged."""
    surplus: tuple[str, ...] = ()
    """Further charges, each to be refunded."""
    returned: tuple[str, ...] = ()
    """Further charges that have been refunded."""


def decide(payment: Payment | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Payment]:
    """What an event does to a payment: records of topics.payments and the payment's in ``events``."""
    raise NotImplementedError
