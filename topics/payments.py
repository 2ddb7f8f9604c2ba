"""Charges, declines and refunds of an order's money, reported by the payment provider.

| topic | key | written by | read by |
|---|---|---|---|
| payments | order id | the callback view; the payment provider, by Kafka | agent `payments` |

A record on the topic is a hint: it has the open call made again. The answer to a call becomes the same event, without
being written to the topic, and only that is a fact.
"""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from topics import patterns
from topics.identity import OrderId
from topics.orders import Amount
from topics.records import Reader, Record
from topics.text import Text

ChargeId = Annotated[str, Meta(pattern=patterns.CHARGE, description="a charge")]
RefundId = Annotated[str, Meta(pattern=patterns.OPTIONAL_CHARGE, description="a refund")]


AnyCaseCurrency = Annotated[str, Meta(pattern=patterns.CURRENCY_OF_ANSWER, description="in capitals or not")]
"""Payment providers write `INR` or `inr`."""


class _Payment(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "payments"

    order: OrderId

    @property
    def key(self) -> str:
        """Order id."""
        return self.order


class Charged(_Payment, frozen=True, kw_only=True, omit_defaults=True):
    """The provider charged the customer this amount, in minor units."""

    charge_id: ChargeId
    amount: Amount
    currency: AnyCaseCurrency

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "currency", self.currency.upper())

    @property
    def cause(self) -> str:
        return f"charged/{self.charge_id}"


class Declined(_Payment, frozen=True, kw_only=True, omit_defaults=True):
    """The provider did not charge the customer, and will not."""

    reason: Text = ""

    @property
    def cause(self) -> str:
        return "declined"


class Refunded(_Payment, frozen=True, kw_only=True, omit_defaults=True):
    """The provider refunded the whole charge."""

    charge_id: ChargeId
    refund_id: RefundId = ""

    @property
    def cause(self) -> str:
        return f"refunded/{self.charge_id}"


PaymentRecord = Charged | Declined | Refunded
READER: Reader[PaymentRecord] = Reader(PaymentRecord)
