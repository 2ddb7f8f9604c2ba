"""Amounts for people."""

import pytest

from topics.money import amount_text


@pytest.mark.parametrize(
    ("minor_units", "currency", "shown"),
    [
        (640, "JPY", "JPY 640"),
        (64000, "INR", "INR 640.00"),
        (5, "INR", "INR 0.05"),
        (640, "KWD", "KWD 0.640"),
        (-1, "KWD", "KWD -0.001"),
        (10**13 + 1, "IDR", "IDR 100000000000.01"),
        (64000, "", "640.00"),
    ],
)
def test_amount_has_the_digits_of_its_currency(minor_units: int, currency: str, shown: str) -> None:
    assert amount_text(minor_units, currency) == shown
