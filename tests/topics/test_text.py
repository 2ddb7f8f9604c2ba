"""Texts of others, made harmless."""

import json

import pytest

from topics.text import cleaned, plain, plain_lines

HARMFUL = [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *map(chr, range(0x202A, 0x202F)), "\u2066", "\u2069"]


@pytest.mark.parametrize("character", HARMFUL, ids=ascii)
def test_control_and_direction_characters_are_escaped(character: str) -> None:
    assert plain(f"a{character}b") == f"a\\u{ord(character):04x}b"
    assert cleaned(f"a{character}b") == "a b"
    kept = character == "\n"
    assert (character in plain_lines(character)) is kept


@pytest.mark.parametrize("text", ["", "Zürich", "घी", "عربى", "\u200fx", "👩‍👩‍👧", "{0}%s$(x)"])
def test_text_that_people_write_stays(text: str) -> None:
    assert plain(text) == plain_lines(text) == cleaned(text) == text


def test_escaped_json_is_the_same_json() -> None:
    data = {"a": "".join(HARMFUL)}
    shown = plain_lines(json.dumps(data, indent=2, ensure_ascii=False))
    assert json.loads(shown) == data
    assert plain(shown.replace("\n", "")) == shown.replace("\n", "")


def test_long_text_is_cut() -> None:
    assert len(cleaned("x" * 5000)) == 1000
