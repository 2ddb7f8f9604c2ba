"""The table of call kinds, and the places outside it that name the kinds."""

import re
from typing import get_args

import msgspec
import pytest

from processors.call_kinds import CALLS, CallKind, call_key, call_key_forms, parse_call_key, possible_call_keys
from tests.processors.cases import ORDER
from topics.orders import CallKey


def test_every_kind_has_a_row() -> None:
    assert list(CALLS) == list(CallKind)


@pytest.mark.parametrize("kind", CallKind)
def test_a_call_key_can_be_parsed_and_sent_to_the_topic(kind: CallKind) -> None:
    charge_id = "c-1" if CALLS[kind].per_charge else ""
    key = call_key(ORDER, kind, charge_id)
    assert parse_call_key(key) == (kind, charge_id)
    assert msgspec.convert(key, CallKey) == key


def test_the_topic_accepts_no_other_kinds_than_the_table() -> None:
    """``CallKey`` repeats the kinds in its regular expression, because topics cannot import processors."""
    [meta] = [argument for argument in get_args(CallKey) if isinstance(argument, msgspec.Meta)]
    assert meta.pattern is not None
    [alternatives] = re.findall(r"/\(([a-z/|]+)\(", meta.pattern)
    assert {alternative.strip("/") for alternative in alternatives.split("|")} == {kind.value for kind in CallKind}


def test_only_a_kind_per_charge_takes_a_charge_id() -> None:
    for kind, spec in CALLS.items():
        other = call_key(ORDER, kind, "" if spec.per_charge else "c-1")
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(other, CallKey)


def test_an_order_can_have_one_refund_for_each_charge() -> None:
    assert possible_call_keys("bites:1", ["c1", "c2"]) == (
        "bites:1/charge",
        "bites:1/prepare",
        "bites:1/refund/c1",
        "bites:1/refund/c2",
    )


def test_key_forms_are_listed_for_people() -> None:
    assert call_key_forms("ORDER", "CHARGE") == "ORDER/charge, ORDER/prepare or ORDER/refund/CHARGE"
