"""A key that came with an order which has an external id stands for this order, for 48 hours."""

import pytest

from processors.decision import Outcome, SetTimer
from processors.used_keys import RETENTION_MS, UsedKey, timer_name, use_key
from tests.processors.cases import NOW
from topics.identity import external_id_of, owner_of
from topics.orders import KeyUsed

KEY_ID = external_id_of(b"8e03978e")
EVENT = KeyUsed(order="my-shop:1001", key_id=KEY_ID)


def test_a_new_key_stands_for_its_order_for_48_hours() -> None:
    decision = use_key(None, EVENT, NOW, names_order=False)
    assert decision.outcome is Outcome.APPLIED
    assert decision.row == UsedKey("my-shop:1001")
    assert decision.timer == SetTimer(timer_name(EVENT.key), NOW + 48 * 3600 * 1000)
    assert owner_of(timer_name(EVENT.key)) == EVENT.key, "the timer is in the partition of the row"
    assert RETENTION_MS == 48 * 3600 * 1000


def test_the_same_order_may_use_its_key_again() -> None:
    decision = use_key(UsedKey("my-shop:1001"), EVENT, NOW, names_order=False)
    assert (decision.outcome, decision.row, decision.timer) == (Outcome.ABSORBED, None, None), (
        "its time is not prolonged"
    )


@pytest.mark.parametrize(
    ("used", "names_order", "other"),
    [
        (UsedKey("my-shop:1000"), False, "my-shop:1000"),
        (None, True, f"my-shop:{KEY_ID}"),
        (UsedKey("my-shop:1001"), True, f"my-shop:{KEY_ID}"),
    ],
)
def test_another_order_is_refused_by_name(used: UsedKey | None, names_order: bool, other: str) -> None:
    decision = use_key(used, EVENT, NOW, names_order=names_order)
    assert (decision.outcome, decision.row, decision.timer) == (Outcome.REFUSED, None, None)
    assert decision.reason == (
        f"the Idempotency-Key was used for the order {other}: send another order with another key"
    )


def test_a_key_counts_for_one_provider() -> None:
    other = KeyUsed(order="your-shop:1001", key_id=KEY_ID)
    assert other.key != EVENT.key
    assert other.key == f"your-shop:{KEY_ID}"
    assert EVENT.event_id == f"my-shop:{KEY_ID}/used/my-shop:1001"
