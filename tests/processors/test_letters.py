"""Whatever lies on the topic of dead letters is kept, as far as a row can hold it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.letters import (
    KEPT_MS,
    LARGEST_ROW,
    Header,
    Letter,
    expires_ms,
    letter_key,
    letter_of,
    why_not_replayable,
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
def test_anything_makes_a_letter_that_is_stored_and_shown(
    key: bytes | None, value: bytes | None, headers: list[Header]
) -> None:
    letter = letter_of(NOW, key, value, headers)
    assert msgspec.json.decode(msgspec.json.encode(letter), type=Letter) == letter
    assert (letter.key, letter.value, list(letter.headers)) == (key, value, headers)
    assert isinstance(letter.reason + letter.origin, str)
    assert why_not_replayable(letter, INPUTS)


def test_a_letter_tells_where_it_came_from_and_why_and_goes_back_without_that() -> None:
    letter = letter_of(NOW, b"a:1", b"{}", [("note", b"mine"), *ORIGIN])
    assert (letter.origin, letter.origin_topic, letter.reason) == ("x.orders/3 at 7", "x.orders", "no")
    assert letter.own_headers() == [("note", b"mine")]
    assert why_not_replayable(letter, INPUTS) == ""
    assert expires_ms(letter) == NOW + KEPT_MS


def test_what_a_sender_says_of_the_origin_counts_for_nothing_beside_what_the_task_says() -> None:
    forged: list[Header] = [("origin.topic", b"x.payments"), ("origin.offset", b"1"), ("dead-letter.reason", b"yes")]
    letter = letter_of(NOW, b"a:1", b"{}", [*forged, *ORIGIN])
    assert (letter.origin, letter.origin_topic, letter.reason) == ("x.orders/3 at 7", "x.orders", "no")


TIMER: Header = ("origin.timer", b"a:1/start")
CALL: Header = ("origin.call", b"a:1/charge")
ASKED: Header = ("origin.request", b"{}")
BROKE_DOWN: Header = ("exception.class", b"KeyError")
CUT: Header = ("dead-letter.cut", b"2000000")


@pytest.mark.parametrize(
    ("headers", "obstacle"),
    [
        ([TIMER, BROKE_DOWN], ""),
        ([TIMER], "for a reason"),
        ([TIMER, BROKE_DOWN, CUT], "for a reason"),
        ([CALL, ASKED, BROKE_DOWN], ""),
        ([CALL, ASKED], "whose order had left"),
        ([CALL, BROKE_DOWN], "dabbawala calls retry a:1/charge"),
        ([CALL, ASKED, BROKE_DOWN, CUT], "dabbawala calls retry a:1/charge"),
    ],
)
def test_a_timer_and_the_answer_to_a_call_can_be_put_back_where_their_handler_broke_down(
    headers: list[Header], obstacle: str
) -> None:
    found = why_not_replayable(letter_of(NOW, b"a:1/start", b"order", headers), INPUTS)
    assert obstacle in found
    assert bool(obstacle) is bool(found)


@pytest.mark.parametrize("nowhere", [[TIMER, BROKE_DOWN], [CALL, ASKED, BROKE_DOWN]])
@pytest.mark.parametrize("topic", [b"x.order-updates", b"x.orders"])
def test_what_says_that_it_came_from_a_topic_and_from_none_goes_nowhere(nowhere: list[Header], topic: bytes) -> None:
    """Only a stranger can have written it, who could have us say on any topic what he likes."""
    letter = letter_of(NOW, b"a:1", b"{}", [*nowhere, ("origin.topic", topic)])
    assert "no task has written that" in why_not_replayable(letter, INPUTS)


@pytest.mark.parametrize("size", [LARGEST_ROW * 3 // 4, 5_000_000])
def test_of_a_letter_that_is_too_large_the_beginning_is_kept(size: int) -> None:
    letter = letter_of(NOW, b"k" * size, b"v" * size, [("h" * 10, b"x" * size), *ORIGIN])
    assert not letter.whole
    assert len(msgspec.json.encode(letter)) < LARGEST_ROW
    assert letter.reason == "no"
    assert "too large" in why_not_replayable(letter, INPUTS)


def test_letters_of_a_partition_sort_by_offset() -> None:
    assert letter_key(3, 9) < letter_key(3, 10) < letter_key(3, 10**18)
