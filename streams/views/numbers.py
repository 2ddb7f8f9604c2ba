"""Numbers in what a party outside asks for."""

MOST_DIGITS = 20
"""More than any number here has; Python would refuse to read thousands of them."""


def whole_number(text: str) -> int | None:
    """The number from 0 on that these digits are; None where they are something else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None
