"""Values that strangers send, in every field of every record type: refused with the field's name, or harmless."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest

from processors import dispatch, driver, payment, ticket
from processors.spatial_index import DispatchIndex, Overlay
from processors.workflow import Workflow, decide_step
from tests.processors.cases import NOW, RESTAURANT, P
from tests.support.hostile import FIELDS, MATCHING, OTHERS, READERS, TEXTS, Field, example, name_of, struct_types
from tests.support.stack import ROOT
from topics import dispatch as dispatch_topic
from topics import drivers as driver_topic
from topics import locations, orders, patterns
from topics import payments as payment_topic
from topics import pos as pos_topic
from topics.records import Undecodable, instant
from topics.text import plain

ALLOWED_IN_NOTES = re.compile(r"[\t\n]")


def texts_of(value: Any) -> Iterator[str]:
    """Yield all texts of a decoded record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)


@pytest.mark.parametrize("reader", READERS)
def test_example_of_every_type_is_accepted(reader: str) -> None:
    for kind in struct_types(READERS[reader].types):
        READERS[reader].read(json.dumps(example(kind)).encode())


@pytest.mark.parametrize("field", FIELDS, ids=name_of)
def test_hostile_value_is_refused_by_name_or_harmless(field: Field) -> None:
    for what, value in (TEXTS | OTHERS).items():
        read = read_or_refusal(field, value)
        if isinstance(read, Undecodable):
            check_refusal(read, field, what)
        else:
            check_harmless(read, what)


def read_or_refusal(field: Field, value: Any) -> Any:
    try:
        return READERS[field.reader].read(field.with_value(value))
    except Undecodable as refused:
        return refused


def check_refusal(refused: Undecodable, field: Field, what: str) -> None:
    """Check that a refusal names the field, or a part of it or the object that it is in, in harmless plain words."""
    named, wrong = refused.pointer + "/", field.pointer + "/"
    assert named.startswith(wrong) or wrong.startswith(named), (what, str(refused))
    assert refused.pointer or "type" in refused.reason or ":" in refused.reason, (what, str(refused))
    assert plain(str(refused)) == str(refused), what
    assert len(refused.reason) < 1000, what
    assert not re.search(r"regex|Expected|Invalid|msgspec|Struct", refused.reason), (what, refused.reason)


def check_harmless(record: Any, what: str) -> None:
    """Check that the texts of a record are harmless, and that its machine can decide on it."""
    for text in texts_of(json.loads(msgspec.json.encode(record))):
        shown = ALLOWED_IN_NOTES.sub("", text)
        assert plain(shown) == shown, (what, text[:100])
        assert len(text) <= 2100, what
    decide(record)


def decide(record: Any) -> None:
    """Let the machine that takes this record decide on it; the machine must not fail."""
    match record:
        case orders.Placed():
            known = msgspec.structs.replace(RESTAURANT, restaurant=record.restaurant)
            timed = msgspec.structs.replace(record, at=record.at or instant(NOW))
            for restaurant in (None, known):
                decide_step(Workflow(), timed, NOW, P, restaurant)
        case locations.Location():
            for state in (None, DRIVER):
                driver.decide(state, record, NOW, P)
        case _ if isinstance(record, driver_topic.DriverRecord):
            for state in (None, DRIVER):
                driver.decide(state, record, NOW, P)
        case _ if isinstance(record, dispatch_topic.DispatchRecord):
            dispatch.decide(Overlay(DispatchIndex(), lambda _: None), record, NOW, P)
        case _ if isinstance(record, payment_topic.PaymentRecord):
            due = payment.Payment(order=record.order, stage=payment.Stage.DUE, amount=1, currency="INR")
            payment.decide(due, record, NOW, P)
        case _ if isinstance(record, pos_topic.PosRecord):
            ticket.decide(None, record, NOW, P)


DRIVER = driver.decide(
    None, driver_topic.SetAvailable(driver="n-1", region="r", position=RESTAURANT.position), NOW, P
).state


def metas(kind: Any) -> Iterator[msgspec.Meta]:
    """Yield the constraints in a type and in its parts."""
    if isinstance(kind, msgspec.Meta):
        yield kind
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield from metas(field.type)
    else:
        for part in get_args(kind):
            yield from metas(part)


PATTERNS = sorted({each.pattern for reader in READERS.values() for each in metas(reader.types) if each.pattern})


@pytest.mark.parametrize("field", ["attempt", "shift"])
def test_huge_number_of_an_attempt_or_a_shift_is_refused(field: str) -> None:
    kinds = [kind for kind in struct_types(dispatch_topic.READER.types) if field in kind.__struct_fields__]
    for kind in kinds:
        forged = json.dumps(example(kind) | {field: 1_000_001}).encode()
        with pytest.raises(Undecodable, match=f"/{field}: it must be at most 1000000"):
            dispatch_topic.READER.read(forged)
    assert kinds


def test_patterns_have_one_place() -> None:
    packages = ("topics", "processors", "streams", "simulators", "oracle")
    literal = re.compile(r"pattern=r?[\"']")
    found = [path for name in packages for path in (ROOT / name).rglob("*.py") if literal.search(path.read_text())]
    assert not found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_matches_a_newline_after_a_value(pattern: str) -> None:
    assert re.search(pattern, MATCHING[pattern])
    assert not re.search(pattern, MATCHING[pattern] + "\n") or pattern == patterns.NOTE
    assert pattern in patterns.ADVICE
