"""Charges, declines and refunds of an order's money, reported by the payment provider.

| topic | key | written by | read by |
|---|---|---|---|
| payments | order id | the provider's callback view, a producer | agent `payments` |

A record on the topic is a hint: it has the open call made again. The answer to a call becomes the same event, without
being written to the topic, and only that is a fact.
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.identity import OrderId
from topics.orders import Amount, Currency, Text
from topics.records import Reader, Record

ChargeId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,63}$")]


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
    currency: Currency

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
    refund_id: ChargeId = ""

    @property
    def cause(self) -> str:
        return f"refunded/{self.charge_id}"


PaymentRecord = Charged | Declined | Refunded
READER: Reader[PaymentRecord] = Reader(PaymentRecord)
