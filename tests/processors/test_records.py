"""Decoding of bytes that are not a record."""

import pytest

from topics.orders import READER
from topics.records import Undecodable


def test_json_that_is_nested_too_deeply_is_undecodable() -> None:
    nested = "[" * 100_000 + "]" * 100_000
    with pytest.raises(Undecodable, match="nested too deeply"):
        READER.read(f'{{"type": "Placed", "a_field_nobody_knows": {nested}}}'.encode())
