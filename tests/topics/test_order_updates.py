"""Reasons on the public feed."""

import msgspec
import pytest

from topics.order_updates import READER, OrderStatus, OrderUpdated, Reason, in_words
from topics.records import write

REJECTED = OrderUpdated(order="shop:1", version=2, status=OrderStatus.REJECTED, restaurant="r", reason=Reason.SOLD_OUT)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, None),
        ("sold_out", Reason.SOLD_OUT),
        ("a_code_of_tomorrow", Reason.OTHER),
        ("payment: the card was declined", Reason.OTHER),
    ],
)
def test_any_reason_is_readable_and_shown_as_a_code(written: str | None, reason: Reason | None) -> None:
    fields = msgspec.json.decode(write(REJECTED))
    assert fields.pop("reason") == "sold_out"
    record = READER.read(msgspec.json.encode(fields if written is None else {**fields, "reason": written}))
    assert record.reason is reason


def test_reasons_are_shown_as_words() -> None:
    assert (in_words(Reason.SOLD_OUT), in_words("too_busy"), in_words(""), in_words(None)) == (
        "sold out",
        "too busy",
        "",
        "",
    )
