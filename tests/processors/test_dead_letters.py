"""Rows of dead letters, and whether they can be replayed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.dead_letters import (
    MAX_ROW_BYTES,
    RETENTION_MS,
    DeadLetter,
    Header,
    dead_letter_from,
    dead_letter_key,
    expires_ms,
    replay_obstacle,
)
from tests.processors.cases import NOW

INPUTS = {"x.orders"}
ORIGIN: list[Header] = [
    ("origin.topic", b"x.orders"),
    ("origin.partition", b"3"),
    ("origin.offset", b"7"),
    ("dead-letter.reason", b"no"),
]
anything = st.one_of(st.none(), st.binary(max_size=50))


@given(key=anything, value=anything, headers=st.lists(st.tuples(st.text(max_size=20), anything), max_size=5))
def test_any_record_makes_a_letter(key: bytes | None, value: bytes | None, headers: list[Header]) -> None:
    letter = dead_letter_from(NOW, key, value, headers, signed=True)
    assert msgspec.json.decode(msgspec.json.encode(letter), type=DeadLetter) == letter
    assert (letter.key, letter.value, list(letter.headers)) == (key, value, headers)
    assert isinstance(letter.reason + letter.origin, str)
    assert replay_obstacle(letter, INPUTS)


def test_letter_has_origin_reason_and_original_headers() -> None:
    letter = dead_letter_from(NOW, b"a:1", b"{}", [("note", b"mine"), *ORIGIN], signed=True)
    assert (letter.origin, letter.origin_topic, letter.reason) == ("x.orders/3 at 7", "x.orders", "no")
    assert letter.own_headers() == [("note", b"mine")]
    assert replay_obstacle(letter, INPUTS) == ""
    assert expires_ms(letter) == NOW + RETENTION_MS


def test_headers_of_the_task_override_those_of_the_sender() -> None:
    forged: list[Header] = [("origin.topic", b"x.payments"), ("origin.offset", b"1"), ("dead-letter.reason", b"yes")]
    letter = dead_letter_from(NOW, b"a:1", b"{}", [*forged, *ORIGIN], signed=True)
    assert (letter.origin, letter.origin_topic, letter.reason) == ("x.orders/3 at 7", "x.orders", "no")


@pytest.mark.parametrize("headers", [ORIGIN, [("origin.call", b"a:1/charge"), ("origin.request", b"{}")]])
def test_letter_that_no_task_wrote_cannot_be_replayed(headers: list[Header]) -> None:
    letter = dead_letter_from(NOW, b"a:1", b"{}", headers, signed=False)
    assert "no valid signature" in replay_obstacle(letter, INPUTS)


TIMER: Header = ("origin.timer", b"a:1/start")
CALL: Header = ("origin.call", b"a:1/charge")
ASKED: Header = ("origin.request", b"{}")
BROKE_DOWN: Header = ("exception.class", b"KeyError")
CUT: Header = ("dead-letter.cut", b"2000000")


@pytest.mark.parametrize(
    ("headers", "obstacle"),
    [
        ([TIMER, BROKE_DOWN], ""),
        ([TIMER], "a timer that was refused"),
        ([TIMER, BROKE_DOWN, CUT], "a timer that was refused"),
        ([CALL, ASKED, BROKE_DOWN], ""),
        ([CALL, ASKED], "whose order had left"),
        ([CALL, BROKE_DOWN], "dabbawala calls retry a:1/charge"),
        ([CALL, ASKED, BROKE_DOWN, CUT], "dabbawala calls retry a:1/charge"),
    ],
)
def test_failed_timer_or_call_answer_can_be_replayed(headers: list[Header], obstacle: str) -> None:
    found = replay_obstacle(dead_letter_from(NOW, b"a:1/start", b"order", headers, signed=True), INPUTS)
    assert obstacle in found
    assert bool(obstacle) is bool(found)


@pytest.mark.parametrize("size", [MAX_ROW_BYTES * 3 // 4, 5_000_000])
def test_too_large_letter_is_truncated(size: int) -> None:
    letter = dead_letter_from(NOW, b"k" * size, b"v" * size, [("h" * 10, b"x" * size), *ORIGIN], signed=True)
    assert not letter.complete
    assert len(msgspec.json.encode(letter)) < MAX_ROW_BYTES
    assert letter.reason == "no"
    assert "too large" in replay_obstacle(letter, INPUTS)


def test_letters_of_a_partition_sort_by_offset() -> None:
    assert dead_letter_key(3, 9) < dead_letter_key(3, 10) < dead_letter_key(3, 10**18)
